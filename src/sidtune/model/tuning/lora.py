"""LoRA: as frozen tuning, with low-rank adapters trained beside the base's linear layers.

Hu et al., 2022: a layer computes W x + s B A x, where W stays as it is, A is `(rank, inputs)` and B
is `(outputs, rank)`. The layers are PEFT's.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sidtune.base.errors import UserError, did_you_mean
from sidtune.config.model import LoraConfig
from sidtune.model.tuning.base import text_decoder
from sidtune.model.tuning.checksums import checksum
from sidtune.model.tuning.frozen import Frozen, sid_rows
from sidtune.model.tuning.quantised import EXTRAS, quantised_layers, whole_weight

# PEFT's names: of the adapter, and of the module inside an adapted layer that holds the base's
# weight.
ADAPTER, INSIDE = "default", ".base_layer."
ALPHA_PER_RANK = 2
CHECKSUM = "checksum"
# Types of quantised weights.
PACKED = (torch.uint8, torch.int8)


class Lora(Frozen):
    """Trains adapters and the rows of the SID tokens; every weight of the base stays
    bit-identical.
    """

    def adapt(self, model: PreTrainedModel, lora: LoraConfig, seed: int) -> None:
        """See `Tuning`: the adapters start so that they change no logit."""
        from peft import inject_adapter_in_model

        settings = peft_config(lora, target_names(model, lora.targets))
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # PEFT says for GPT-2's layers that it transposes, which is what is wanted.
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
            torch.manual_seed(seed)
            try:
                inject_adapter_in_model(settings, model, ADAPTER)
            except (ValueError, NotImplementedError) as error:
                raise UserError(
                    f"model.tuning: lora is not supported for this {model.config.model_type} base:"
                    f" {' '.join(str(error).split())[:300]}",
                    "Name other layers in model.lora.targets, or use full or frozen tuning.",
                ) from None
        # PEFT leaves nothing but its own weights trainable, in the base's type.
        for row in sid_rows(model).values():
            row.requires_grad_()
        for weight in self.adapters(model).values():
            weight.data = weight.data.float()

    def merged_state(self, model: PreTrainedModel, computed: torch.dtype) -> dict[str, Tensor]:
        """See `Tuning`."""
        layers, quantised, merged = adapted_layers(model), quantised_layers(model), {}
        for name, value in super().merged_state(model, computed).items():
            own, _, last = name.rpartition(".")
            plain = _plain_name(own)
            if ".lora_" in name or (quantised and (last in EXTRAS or ".weight." in name)):
                continue
            if last == "weight" and plain in layers:
                value = merged_weight(layers[plain]).to(computed)
            elif last == "weight" and own in quantised:
                value = whole_weight(quantised[own]).to(computed)
            merged[f"{plain}.{last}"] = value
        return merged

    def load_merged(self, model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
        """See `Tuning`: they become the base's weights, and the adapters stay as they are. So do
        quantised weights.
        """
        stay = {f"{_plain_name(name)}.weight" for name in quantised_layers(model)}
        loaded = {name: value for name, value in weights.items() if name not in stay}
        super().load_merged(model, self._under_own_names(model, loaded))

    def unchanged_names(self, model: PreTrainedModel) -> set[str]:
        """See `Tuning`: the frozen weights without adapters."""
        plain = {name.replace(INSIDE, ".") for name in super().unchanged_names(model)}
        return plain - {f"{name}.weight" for name in adapted_layers(model)}

    def parameter_counts(self, model: PreTrainedModel) -> tuple[int, int]:
        """See `Tuning`: a quantised weight counts its numbers, several of which may be packed."""
        trained, total = super().parameter_counts(model)
        layers = quantised_layers(model).values()
        packed = [layer.in_features * layer.out_features - layer.weight.numel() for layer in layers]
        return trained, total + sum(packed)

    def adapters(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """See `Tuning`: A, B and, with DoRA, magnitudes, in float32."""
        return {name: weight for name, weight in model.named_parameters() if ".lora_" in name}

    def hidden_weights(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """See `Tuning`."""
        quantised, hidden = quantised_layers(model), {}
        for name, layer in adapted_layers(model).items():
            if f"{name}.base_layer" not in quantised:
                hidden[f"{name}.weight"] = layer.get_base_layer().weight.detach()
        # They are quantised anew from the base whenever a run is resumed.
        for name, layer in quantised.items():
            hidden[f"{_plain_name(name)}.{CHECKSUM}"] = checksum(whole_weight(layer)).cpu()
        return hidden

    def load_adapters(
        self, model: PreTrainedModel, adapters: dict[str, Tensor], hidden: dict[str, Tensor]
    ) -> None:
        """See `Tuning`."""
        base = self.hidden_weights(model)
        for own, given in ((self.adapters(model), adapters), (base, hidden)):
            expected = {name: tuple(value.shape) for name, value in own.items()}
            found = {name: tuple(value.shape) for name, value in given.items()}
            wrong = [
                name for name in {**expected, **found} if expected.get(name) != found.get(name)
            ]
            if wrong:
                raise UserError(
                    f"the saved adapters do not match the model: {wrong[0]} is"
                    f" {found.get(wrong[0], 'missing')}, expected {expected.get(wrong[0], 'none')}",
                    "Resume with the base and the model.lora of the run that saved them.",
                )
        quantised = [name for name in base if name.endswith(f".{CHECKSUM}")]
        if any(not torch.equal(base[name], hidden[name]) for name in quantised):
            raise UserError(
                "model.base, or how it is quantised on this machine, has changed since the run"
                " began",
                "Resume with the same base, on the same kind of device.",
            )
        weights = {name: value for name, value in hidden.items() if name not in quantised}
        model.load_state_dict(adapters | self._under_own_names(model, weights), strict=False)

    def _under_own_names(
        self, model: PreTrainedModel, weights: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The names that plain weights have in the adapted model."""
        layers = adapted_layers(model)

        def own(name: str) -> str:
            layer, _, last = name.rpartition(".")
            return f"{layer}{INSIDE}{last}" if layer in layers else name

        return {own(name): value for name, value in weights.items()}


def _plain_name(module: str) -> str:
    """The plain name of a module, from its name in the adapted model."""
    return module.removesuffix(INSIDE[:-1])


def is_adapted(model: PreTrainedModel) -> bool:
    """Whether a model has adapters."""
    return bool(getattr(model, "peft_config", None))


def adapted_layers(model: PreTrainedModel) -> dict[str, Any]:
    """PEFT's layers, by the names of the modules that they stand for."""
    from peft.tuners.lora import LoraLayer

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}


@torch.no_grad()
def merged_weight(layer: Any) -> Tensor:
    """The weight of an adapted layer with its adapter, computed in float32.

    Returns:
        the shape of the base's weight, in the memory of the CPU.
    """
    base = layer.get_base_layer()
    if base.weight.dtype in PACKED:
        total: Tensor = whole_weight(base) + layer.get_delta_weight(ADAPTER)
        return total.cpu()
    # A copy: merging and unmerging in place would leave rounding in the base's weight.
    own = copy.deepcopy(layer)
    own.get_base_layer().float()
    own.merge()
    weight: Tensor = own.get_base_layer().weight.detach()
    return weight.cpu()


def peft_config(lora: LoraConfig, targets: Sequence[str]) -> Any:
    """PEFT's settings for ours."""
    from peft import LoraConfig as Theirs

    return Theirs(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha or ALPHA_PER_RANK * lora.rank,
        lora_dropout=lora.dropout,
        target_modules=list(targets),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        init_lora_weights=True if lora.init == "default" else lora.init,
    )


def target_names(model: PreTrainedModel, targets: str | Sequence[str]) -> list[str]:
    """The linear layers that get adapters: never the embedding or the output head, which have rows
    of their own, nor layers that no text passes.

    Args:
        targets: `all-linear`, or names such as `q_proj` or `layers.0.mlp.up_proj`, each of which
            stands for every layer whose name ends with it.

    Raises:
        UserError: for a name that no layer ends with, and for a model without linear layers.
    """
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    outside = {id(module) for end in ends for module in end.modules()}
    passed = {id(module) for module in text_decoder(model).modules()} - outside
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module) in passed
    ]
    last = sorted({name.rpartition(".")[2] for name in linear})
    if not linear:
        raise UserError(
            f"model.tuning: lora: this {model.config.model_type} base has no linear layer",
            "Use full or frozen tuning.",
        )
    if isinstance(targets, str):
        return linear
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            raise UserError(
                f"model.lora.targets: the base has no linear layer {target!r:.80}"
                f"{did_you_mean(target, last)}",
                f"Its linear layers: {', '.join(last)}.",
            )
    return [name for name in linear if any(f".{name}".endswith(f".{target}") for target in targets)]
