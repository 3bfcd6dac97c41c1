"""What stands around prompt and response: BOS and EOS, or the tokenizer's own chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerFast

from sidtune.encoding.tokenizers import SegmentTokenizers
from sidtune.errors import UserError

PROMPT_MARK, RESPONSE_MARK = "sidtuneprompthere", "sidtuneresponsehere"


@dataclass(frozen=True)
class Frame:
    """Token ids around an example.

    Args:
        before: in front of the prompt (BOS, and what the chat template opens with).
        between: prompt and response; never a label.
        after: closes the response and is its last label: EOS, or the end of the turn.
        text_before: whether text, not only BOS, stands in front, so that the prompt does not open the sequence.
    """

    before: list[int]
    between: list[int]
    after: list[int]
    text_before: bool


def make_frame(
    tokenizer: PreTrainedTokenizerFast, segments: SegmentTokenizers, style: Literal["plain", "chat"]
) -> Frame:
    """The frame of a template format.

    Raises:
        UserError: for `chat` with a tokenizer that has no chat template, or one that fails or cannot be taken apart.
    """
    if style == "plain":
        assert tokenizer.eos_token_id is not None, "load_tokenizer refuses a tokenizer without EOS"
        return Frame(segments.prefix_ids, [], [tokenizer.eos_token_id], text_before=False)
    opening, middle, closing = _turns(tokenizer)
    before = segments.template([opening], first=True)[0] if opening else []
    bos = segments.prefix_ids if before[: len(segments.prefix_ids)] != segments.prefix_ids else []
    between = segments.template([middle], first=False)[0] if middle else []
    return Frame(bos + before, between, [_end_of_turn(closing, tokenizer, segments)], text_before=bool(opening))


def _turns(tokenizer: PreTrainedTokenizerFast) -> tuple[str, str, str]:
    """The chat template's text before the prompt, between prompt and response, and after the response."""
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template", "Use template.format: plain."
        )
    user, answer = {"role": "user", "content": PROMPT_MARK}, {"role": "assistant", "content": RESPONSE_MARK}
    asked = _render(tokenizer, [user], generate=True)
    answered = _render(tokenizer, [user, answer], generate=False)
    if asked.count(PROMPT_MARK) != 1 or answered.count(RESPONSE_MARK) != 1:
        raise UserError("the chat template does not write each message once, as it is", "Use template.format: plain.")
    opening, middle = asked.split(PROMPT_MARK)
    return opening, middle, answered.split(RESPONSE_MARK)[1]


def _render(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]], generate: bool) -> str:
    # Templates of models that think out loud leave the thought empty; the others ignore the variable.
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generate, enable_thinking=False
        )
    except Exception as error:
        # A template is a program in Jinja's sandbox, and raises whatever programs raise.
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the chat template fails: {reason}", "Use template.format: plain.") from None
    assert isinstance(text, str)
    return text


def _end_of_turn(closing: str, tokenizer: PreTrainedTokenizerFast, segments: SegmentTokenizers) -> int:
    """The first added token after the response; EOS where the template closes with none."""
    ids = segments.template([closing], first=False)[0] if closing else []
    special = set(segments.added.values()) | {tokenizer.eos_token_id}
    return next((token for token in ids if token in special), int(tokenizer.eos_token_id))
