"""Checks of the base model: tokenizer, configuration and weights."""

from __future__ import annotations

from collections.abc import Iterator

from sidtune.base.errors import UserError
from sidtune.checks.finding import Finding
from sidtune.inputs import Inputs
from sidtune.model.base_files import SCRATCH, quantisation_fault, weight_faults
from sidtune.model.bf16 import device_type
from sidtune.model.load import skeleton
from sidtune.model.optimizer.moments import moments_fault
from sidtune.model.tuning.lora import target_names

# Rotary positions that depend on the longest sequence of a forward pass.
LENGTH_DEPENDENT = ("dynamic", "longrope")


def model(inputs: Inputs) -> Iterator[Finding]:
    text, cutoff = inputs.model_config.get_text_config(), inputs.config.encoding.cutoff_len
    yield Finding(
        "note",
        inputs.config.model.base,
        f"{text.model_type} with a vocabulary of {text.vocab_size:,} rows",
    )
    longest = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if longest and cutoff > longest:
        yield Finding(
            "error",
            "encoding.cutoff_len",
            f"{cutoff} tokens exceed the model's {longest} positions",
            remedy=f"Set encoding.cutoff_len to at most {longest}.",
        )
    rope = getattr(text, "rope_parameters", None) or {}
    native = rope.get("original_max_position_embeddings") or longest
    if rope.get("rope_type") in LENGTH_DEPENDENT and native and cutoff > native:
        yield Finding(
            "warning",
            "encoding.cutoff_len",
            f"{cutoff} tokens exceed {native}: beyond that, this model's rotary positions depend on"
            " the longest example in the batch",
            remedy=(
                f"Set encoding.cutoff_len to at most {native}; then no example affects the loss of"
                " another."
            ),
        )
    if inputs.config.tunings & {"frozen", "lora"} and not len(inputs.vocabulary.sid_ids):
        yield Finding(
            "error",
            "model.tuning",
            "frozen and lora tuning train the rows of SID tokens, but there is no SID token",
        )


def adapters(inputs: Inputs) -> Iterator[Finding]:
    """The layers that `model.lora.targets` names."""
    config = inputs.config
    targets = config.model.lora.targets
    if "lora" in config.tunings and not isinstance(targets, str):
        try:
            target_names(skeleton(config.model.base, inputs.trust_remote_code), targets)
        except UserError as fault:
            yield Finding("error", "model.lora.targets", fault.message, [], fault.hint)


def weights(inputs: Inputs) -> Iterator[Finding]:
    """The weight files, checked by size and header."""
    config = inputs.config.model
    if config.from_scratch:
        return
    for fault in weight_faults(config.base, f"Complete the folder. {SCRATCH}"):
        yield Finding("error", config.base, fault.message, [], fault.hint)
    beside = inputs.config.tunings == {"lora"}
    if quantised := quantisation_fault(config.base, inputs.model_config, config.quantize, beside):
        yield Finding("error", config.base, quantised.message, [], quantised.hint)


def optimizer(inputs: Inputs) -> Iterator[Finding]:
    """Whether the optimizer's state can be held as configured, and in another place than before."""
    training = inputs.config.training
    if fault := moments_fault(training.optimizer_state):
        yield Finding("error", "training.optimizer_state", fault.message, [], fault.hint)
    if training.offload_optimizer and device_type() == "cpu":
        yield Finding(
            "warning",
            "training.offload_optimizer",
            "no effect on the memory of a training on a CPU, whose state is in main memory anyway",
        )


def vocabulary(inputs: Inputs) -> Iterator[Finding]:
    vocabulary, base = inputs.vocabulary, inputs.config.model.base
    trained, new = vocabulary.trained_ids, vocabulary.new_ids
    groups = (
        {"with trained rows": trained, "new": new}
        if len(trained) or len(vocabulary.rowless_ids)
        else {}
    )
    examples = [f"{name}: {vocabulary.names(ids)}" for name, ids in groups.items() if len(ids)]
    message = (
        f"{vocabulary.known:,} tokens; {len(vocabulary.sid_ids):,} SID tokens: {vocabulary.counts}"
    )
    yield Finding("note", base, message, examples)
    if others := _others_without_rows(inputs):
        message = (
            f"{others:,} other tokens of the tokenizer have no row in the model and are initialised"
            " like new tokens"
        )
        yield Finding("note", base, message)


def _others_without_rows(inputs: Inputs) -> int:
    """Number of tokens of the base's tokenizer without a row in its model, SID tokens excluded."""
    if inputs.config.model.from_scratch:
        return 0
    rows, sids = (
        inputs.model_config.get_text_config().vocab_size,
        set(inputs.vocabulary.sid_ids.tolist()),
    )
    return sum(
        token >= rows and token not in sids
        for token in inputs.vocabulary.tokenizer.get_vocab().values()
    )
