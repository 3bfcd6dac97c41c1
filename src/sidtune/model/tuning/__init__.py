"""The ways to tune a model; `TUNINGS` is the only registry."""

from transformers import PreTrainedModel

from sidtune.model.tuning.base import Tuning
from sidtune.model.tuning.frozen import Frozen, SidEmbedding
from sidtune.model.tuning.full import Full
from sidtune.model.tuning.lora import Lora, is_adapted

TUNINGS: dict[str, Tuning] = {"full": Full(), "frozen": Frozen(), "lora": Lora()}


def tuning_of(model: PreTrainedModel) -> Tuning:
    """How a model is tuned."""
    if not isinstance(model.get_input_embeddings(), SidEmbedding):
        return TUNINGS["full"]
    return TUNINGS["lora" if is_adapted(model) else "frozen"]
