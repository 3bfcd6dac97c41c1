"""`python -m sidtune`, which is what torchrun starts."""

from sidtune.commands.main import main

if __name__ == "__main__":
    main()
