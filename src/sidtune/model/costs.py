"""Relative costs of the parts of a training step, which layouts trade off against each other."""

from __future__ import annotations

from transformers import PreTrainedModel

from sidtune.model.tuning import tuning_of

# Per token, a layer multiplies about 12 hidden² weights, and 2 hidden values for each token
# attended to, so a token costs 6 hidden query-key pairs. Twice that makes rows wider and fewer,
# with less padding: a step of the default mixture with group_by: user (hidden 128, one CPU core)
# took .350, .339, .348 and .330 s at 2, 6, 12 and 24 pairs.
PAIRS_PER_HIDDEN = 12
# Fixed cost of a pass, in tokens; with 100, 400, 1,000 and 3,000 that step took .35, .37, .46 and
# .76 s.
TOKENS_PER_PASS = 100
# If the embedding matrix is trained, every pass allocates, zeroes and accumulates a gradient of
# vocabulary × hidden: memory traffic that takes as long as this many times vocabulary ÷ (hidden ×
# layers) tokens.
GRADIENT_TOKENS = 4


def token_cost(model: PreTrainedModel) -> float:
    """Cost of one token outside attention, in query-key pairs."""
    return PAIRS_PER_HIDDEN * float(model.config.get_text_config().hidden_size)


def pass_cost(model: PreTrainedModel) -> float:
    """Fixed cost of a forward and backward pass, in tokens."""
    if tuning_of(model).keeps_base:
        return TOKENS_PER_PASS
    text = model.config.get_text_config()
    shape: float = text.vocab_size / (text.hidden_size * text.num_hidden_layers)
    return TOKENS_PER_PASS + GRADIENT_TOKENS * shape
