"""`python -m sidtune`, which is what torchrun starts."""

from sidtune.cli import main

if __name__ == "__main__":
    main()
