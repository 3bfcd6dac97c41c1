"""Fine-tune a causal language model as a generative recommender over semantic IDs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidtune.api import check, evaluate, load_config, train
    from sidtune.decoding.recommender import Recommendation, Recommender

__version__ = "0.1.0"
__all__ = [
    "Recommendation",
    "Recommender",
    "__version__",
    "check",
    "evaluate",
    "load_config",
    "train",
]

_MODULES = {
    **dict.fromkeys(("check", "evaluate", "load_config", "train"), "sidtune.api"),
    **dict.fromkeys(("Recommendation", "Recommender"), "sidtune.decoding.recommender"),
}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that the command line does not import torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
