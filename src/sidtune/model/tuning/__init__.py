"""The ways to tune a model; `TUNINGS` is the only registry."""

from transformers import PreTrainedModel

from sidtune.model.tuning.base import Tuning
from sidtune.model.tuning.frozen import Frozen, SidEmbedding
from sidtune.model.tuning.full import Full

TUNINGS: dict[str, Tuning] = {"full": Full(), "frozen": Frozen()}


def tuning_of(model: PreTrainedModel) -> Tuning:
    """How a model is tuned."""
    return TUNINGS["frozen" if isinstance(model.get_input_embeddings(), SidEmbedding) else "full"]
