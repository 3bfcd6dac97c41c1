"""`training` and `stages`: batch size, optimizer and schedule."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sidtune.config.model import TuningName
from sidtune.config.section import MOST, Positive, Section, Share

StateKind = Literal["fp32", "bf16", "8bit"]


class TrainingConfig(Section):
    """Batch size, memory limits, optimizer and schedule."""

    epochs: Positive = Field(default=3, description="passes over the mixture")
    max_steps: Positive | None = Field(
        default=None, description="length of the run in steps, in place of `training.epochs`"
    )
    batch_size: Positive = Field(default=128, description="examples per step, over all processes")
    group_by: Literal["user", "example"] = Field(
        default="user",
        description=(
            "`user`: groups of four examples with the same history stay together, and"
            " the groups are shuffled; `example`: all examples are shuffled"
        ),
    )
    layout: Literal["tree", "bucketed", "padded"] = Field(
        default="tree",
        description=(
            "`tree`: shared prefixes are computed once; `bucketed`: grouped by length,"
            " right-padded; `padded`: in order, left-padded to a multiple of 8 (right-padded where"
            " left padding would change the loss of the model, as in recurrent models)"
        ),
    )
    max_tokens: Positive | Literal["auto"] = Field(
        default="auto",
        description=(
            "padded tokens of one forward pass; bounds memory and never changes the loss. `auto`:"
            " 8192, and on a GPU what fits when the run starts. With `auto` on a GPU and one"
            " process, a step that runs out of memory is run again in smaller passes; with"
            " dropout, exact resuming there needs a number instead of `auto`"
        ),
    )
    micro_batch_size: Positive = Field(
        default=4, description="with `layout: padded`: examples of one forward pass"
    )
    workers: Annotated[int, Field(ge=0, le=MOST)] = Field(
        default=1,
        description="processes that prepare steps ahead; 0 prepares each step when it is needed",
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        default=3e-4,
        description=(
            "peak of the cosine schedule. The default suits a pretrained base; use 1e-3"
            " to 2e-3 for a small model from scratch and about 1e-2 for frozen tuning"
        ),
    )
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="final learning rate of the schedule, as a share of the peak"
    )
    warmup: Annotated[int, Field(ge=0, le=MOST)] | Share = Field(
        default=20,
        description=(
            "steps, or a share of the run when below 1; each stage has its own warmup."
            " `check` and `train` warn when a run or a stage is no longer than its"
            " warmup"
        ),
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="of AdamW; never applies to biases and norms"
    )
    decay_embeddings: bool = Field(
        default=True,
        description=(
            "whether weight decay applies to the rows of tokens, input and output,"
            " including the SID rows of frozen tuning"
        ),
    )
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="gradients are clipped to this norm"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description=(
            "`bf16` autocast, `fp32`, or `auto`. `auto` chooses bf16 where the device has"
            " instructions for it, otherwise fp32. Devices with such instructions are GPUs from"
            " Ampere on, and CPUs with AVX512_BF16, AMX or Arm's BF16; on a CPU bf16 is chosen"
            " only from a hidden size of 256 on, because it is slower for smaller models. The"
            " choice is kept with the run, and resuming on another machine uses it. On a CPU"
            " attention stays in float32"
        ),
    )
    optimizer_state: StateKind = Field(
        default="fp32",
        description=(
            "how AdamW's two moments are held between steps. `fp32`: 8 bytes for each"
            " trained parameter; `bf16`: 4, with stochastic rounding; `8bit`: about 2, with"
            " a scale for each block of values, by bitsandbytes (`pip install"
            " 'sidtune[quantize]'`)"
        ),
    )
    offload_optimizer: bool = Field(
        default=False,
        description=(
            "hold AdamW's moments in main memory instead of on the GPU. The result is the same to"
            " the bit, and every step takes the time to copy them there and back"
        ),
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="recompute activations in the backward pass instead of keeping them",
    )
    compile: bool = Field(default=False, description="`torch.compile` the model")
    distributed: Literal["auto", "ddp", "fsdp2"] = Field(
        default="auto",
        description=(
            "how several processes share the work. `ddp`: each holds the whole model, and"
            " gradients are exchanged. `fsdp2`: weights, gradients and optimizer state are"
            " divided among them (PyTorch's `fully_shard`), for models that one GPU cannot"
            " hold. `auto`: `ddp` with several processes"
        ),
    )

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        idle, used = "micro_batch_size", "max_tokens"
        if self.layout == "padded":
            idle, used = used, idle
        if idle in self.model_fields_set and used not in self.model_fields_set:
            raise ValueError(f"{idle} has no effect with layout: {self.layout}; use {used}")
        return self

    @model_validator(mode="after")
    def _sharded_models_are_not_compiled(self) -> Self:
        if self.distributed == "fsdp2" and self.compile:
            raise ValueError("compile is not supported with distributed: fsdp2; remove one of them")
        return self

    @model_validator(mode="after")
    def _something_decays(self) -> Self:
        if "decay_embeddings" in self.model_fields_set and not self.weight_decay:
            raise ValueError("decay_embeddings has no effect with weight_decay: 0; remove it")
        return self


class StageConfig(Section):
    """A stage of the run, with its own tuning and schedule."""

    tuning: TuningName = Field(
        description=(
            "`full`, `lora` or `frozen`; leave `model.tuning` out. `model.lora` applies to each"
            " `lora` stage"
        )
    )
    steps: Positive | None = Field(default=None, description="length of the stage in steps")
    epochs: Positive | None = Field(
        default=None,
        description=(
            "length in epochs instead; the last stage may give neither, and then"
            " `training.epochs` or `training.max_steps` applies"
        ),
    )
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="peak of the stage's schedule; null takes `training.learning_rate`",
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps and self.epochs:
            raise ValueError(
                "steps and epochs both set the length of the stage: remove one of them"
            )
        return self
