"""What the parts of a training step cost, in units of one another: layouts weigh them."""

from __future__ import annotations

from transformers import PreTrainedModel

from sidtune.model.tuning import tuning_of

# A layer multiplies a token by about 12 hidden² weights, and adds up 2 hidden values for each token
# that it sees: six hidden sizes of pairs per token. With twice that, rows are wider and fewer,
# which pads less: a step of the default mixture by user (hidden 128, one CPU core) took .350, .339,
# .348 and .330 s at 2, 6, 12 and 24 pairs.
PAIRS_PER_HIDDEN = 12
# A pass's own cost beside its tokens, in tokens; with 100, 400, 1,000 and 3,000 that step took .35,
# .37, .46 and .76 s.
TOKENS_PER_PASS = 100
# Where the matrix is trained, every pass makes, clears and adds up a gradient of the size
# vocabulary × hidden: memory traffic that takes as long as this many times vocabulary ÷ (hidden ×
# layers) tokens.
GRADIENT_TOKENS = 4


def token_cost(model: PreTrainedModel) -> float:
    """What one token costs outside attention, in pairs of tokens inside it."""
    return PAIRS_PER_HIDDEN * float(model.config.get_text_config().hidden_size)


def pass_cost(model: PreTrainedModel) -> float:
    """What a forward and backward pass costs besides its tokens, in tokens."""
    if tuning_of(model).keeps_base:
        return TOKENS_PER_PASS
    text = model.config.get_text_config()
    shape: float = text.vocab_size / (text.hidden_size * text.num_hidden_layers)
    return TOKENS_PER_PASS + GRADIENT_TOKENS * shape
