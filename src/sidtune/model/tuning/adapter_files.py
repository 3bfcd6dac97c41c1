"""The folder of an adapter, which plain PEFT loads beside the base model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers import PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.files.text import read_json_model
from sidtune.model.tuning.base import matrix_names
from sidtune.model.tuning.frozen import sid_rows
from sidtune.model.tuning.lora import ADAPTER, Lora
from sidtune.tokenizer.load import ADAPTER_CONFIG

ADAPTER_WEIGHTS = "adapter_model.safetensors"
# How PEFT names what lies inside its model, and the rows of single tokens.
OUTER, ROWS = "base_model.model.", "token_adapter.trainable_tokens_delta"
HINT = "sidtune writes this folder with model.lora.save_adapter: true."


class AdapterSettings(BaseModel):
    """What merging needs to know of `adapter_config.json`; PEFT reads the rest."""

    model_config = ConfigDict(extra="ignore", strict=True)

    peft_type: str
    # It would make PEFT import the module that a second key names.
    megatron_config: None = None
    base_model_name_or_path: Annotated[str, Field(min_length=1)]
    trainable_token_indices: Annotated[
        dict[str, Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]],
        Field(min_length=1),
    ]

    @property
    def rows(self) -> int:
        """Rows that the embedding must have at least."""
        return 1 + max(max(ids) for ids in self.trainable_token_indices.values())


def save_adapter(model: PreTrainedModel, base: str, tokens: Sequence[int], folder: Path) -> None:
    """Write the adapters of a model, and rows of its matrices, as PEFT does.

    Args:
        model: tuned with LoRA.
        base: folder or Hub name of the base.
        tokens: ids, ascending, of all rows that the base does not have, and of the SID tokens.

    Raises:
        UserError: for a model whose output head has a bias, which PEFT's format has no place for.
    """
    if getattr(model.get_output_embeddings().base, "bias", None) is not None:
        raise UserError(
            "model.lora.save_adapter: the base's output head has a bias, and PEFT's format has no"
            " place for the bias of new tokens",
            "Remove it: the merged model has everything.",
        )
    settings: Any = copy.deepcopy(model.peft_config[ADAPTER])
    rows = token_rows(model, tokens)
    settings.base_model_name_or_path = base
    settings.inference_mode = True
    settings.trainable_token_indices = {name: list(tokens) for name in rows}
    settings.save_pretrained(folder)
    adapters = Lora().adapters(model)
    saved = {name.replace(f".{ADAPTER}", ""): value for name, value in adapters.items()}
    saved |= {f"{name}.{ROWS}": value for name, value in rows.items()}
    safetensors.torch.save_file(
        {OUTER + name: value.detach().contiguous() for name, value in saved.items()},
        folder / ADAPTER_WEIGHTS,
    )


@torch.no_grad()
def token_rows(model: PreTrainedModel, tokens: Sequence[int]) -> dict[str, Tensor]:
    """The rows of some tokens as they are trained, by the name of their matrix; one matrix if tied.

    Returns:
        `(tokens, hidden)` each, float32.
    """
    ids, sid_ids = torch.tensor(tokens), model.get_output_embeddings().sid_ids.cpu()
    ends, own = (model.get_input_embeddings(), model.get_output_embeddings()), sid_rows(model)
    found = {}
    for name, end, trained in zip(matrix_names(model), ends, own.values(), strict=False):
        matrix = end.base.weight.detach().cpu().float()
        found[name] = matrix.index_copy(0, sid_ids, trained.cpu())[ids]
    return found


def read_settings(folder: Path) -> AdapterSettings:
    """Read `adapter_config.json`.

    Raises:
        UserError: for a file that is missing, damaged, or not of an adapter that sidtune wrote.
    """
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: it is not the folder of an adapter", HINT)
    settings = read_json_model(folder / ADAPTER_CONFIG, AdapterSettings, HINT)
    if settings.peft_type != "LORA":
        raise UserError(
            f"{folder / ADAPTER_CONFIG}: peft_type is {settings.peft_type!r:.80}, expected LORA",
            HINT,
        )
    return settings
