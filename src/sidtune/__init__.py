"""Fine-tune a causal language model into a generative recommender over semantic IDs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidtune.decoding.recommender import Recommendation, Recommender

__version__ = "0.1.0"
__all__ = ["Recommendation", "Recommender", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the recommender when it is asked for: the command line must not wait for torch."""
    if name in ("Recommendation", "Recommender"):
        from sidtune.decoding import recommender

        return getattr(recommender, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
