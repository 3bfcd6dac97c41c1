"""Splits the output of the tokenizer's chat template into the texts around prompt and response."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from transformers import PreTrainedTokenizerFast

from sidtune.base.errors import UserError
from sidtune.encoding.frame import PLAIN, Frame
from sidtune.tokenizer.segments import SegmentTokenizers

PROMPT_MARK, RESPONSE_MARK = "sidtuneprompthere", "sidtuneresponsehere"
HINT = "Use template.format: plain."
# All white space is below this code point.
WHITESPACE = "".join(character for character in map(chr, range(0x3001)) if character.isspace())
# Longer than any run of blanks written by a template.
BLANKS = 20
# Replaces the clock by a fixed text, whatever the format.
TIME = "{{%- macro strftime_now(format) %}}{}{{%- endmacro %}}"
TIMES = ("01", "02", "13", "24", "31", "59", "2031")


def make_frame(
    tokenizer: PreTrainedTokenizerFast, segments: SegmentTokenizers, style: Literal["plain", "chat"]
) -> Frame:
    """The frame of a template format; a chat template may write the current time.

    Raises:
        UserError: for `chat` with a tokenizer without chat template, or with one that fails or
            cannot be split.
    """
    if style == "plain":
        return PLAIN
    say = partial(conversation, tokenizer)
    answered = say(PROMPT_MARK, RESPONSE_MARK)
    if answered.count(PROMPT_MARK) != 1 or answered.count(RESPONSE_MARK) != 1:
        raise UserError(
            "the chat template does not contain each message exactly once and unchanged", HINT
        )
    before, rest = answered.split(PROMPT_MARK)
    if RESPONSE_MARK not in rest:
        raise UserError(
            "the chat template writes the assistant message before the user message", HINT
        )
    middle, closing = rest.split(RESPONSE_MARK)
    between = say(PROMPT_MARK).partition(PROMPT_MARK)[2]
    if not middle.startswith(between) or _spanned(between, middle, segments):
        between = middle
    after = _up_to_end_of_turn(closing, tokenizer, segments)
    return Frame(
        chat=True,
        before=before,
        between=between,
        opening=middle.removeprefix(between),
        after=closing if after is None else after,
        eos=after is None,
        prompt_trim=_trims(lambda text: say(text, RESPONSE_MARK), PROMPT_MARK),
        response_trim=_trims(lambda text: say(PROMPT_MARK, text), RESPONSE_MARK),
    )


def conversation(
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    response: str | None = None,
    *,
    time: str | None = None,
) -> str:
    """Render a user message and its answer with the chat template; without answer, up to the
    generation prompt.

    Args:
        time: fixed text for the template's clock; the actual time by default.

    Raises:
        UserError: if there is no chat template, or if it fails.
    """
    if not tokenizer.chat_template:
        raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no chat template", HINT)
    messages = [{"role": "user", "content": prompt}]
    if response is not None:
        messages.append({"role": "assistant", "content": response})
    try:
        template = None if time is None else TIME.format(time) + tokenizer.get_chat_template()
        # Templates of reasoning models then leave the reasoning empty; others ignore the variable.
        text = tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=response is None,
            enable_thinking=False,
        )
    except Exception as error:
        # A template is a program in Jinja's sandbox and may raise any exception.
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the chat template fails: {reason}", HINT) from None
    assert isinstance(text, str)
    return text


def reads_clock(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the output of the chat template depends on the time."""
    return (
        len({conversation(tokenizer, PROMPT_MARK, RESPONSE_MARK, time=time) for time in TIMES}) > 1
    )


def _spanned(between: str, middle: str, segments: SegmentTokenizers) -> bool:
    """Whether a token spans the border between prompt and response."""
    asked, whole = segments.whole([between, middle], behind_token=True)
    return whole[: len(asked)] != asked


def _trims(say: Callable[[str], str], mark: str) -> tuple[str, str]:
    """The white space that the template strips at the start and end of a message.

    Only the text next to the mark is compared, because the template may write the time elsewhere.
    """
    front, back = say(mark).split(mark)
    trimmed_front, trimmed_back = "", ""
    for blank in WHITESPACE:
        left, right = say(BLANKS * blank + mark + BLANKS * blank).split(mark)
        if _run(left[::-1], blank) == _run(front[::-1], blank):
            trimmed_front += blank
        if _run(right, blank) == _run(back, blank):
            trimmed_back += blank
    return trimmed_front, trimmed_back


def _run(text: str, blank: str) -> int:
    """How many leading characters of a text are this blank."""
    return len(text) - len(text.lstrip(blank))


def _up_to_end_of_turn(
    closing: str, tokenizer: PreTrainedTokenizerFast, segments: SegmentTokenizers
) -> str | None:
    """The text after the response up to and including its first added token; None if there is no
    such token.
    """
    special = {*segments.added, str(tokenizer.eos_token)}
    found = [
        (closing.find(token), -len(token), token) for token in special if token and token in closing
    ]
    if not found:
        return None
    place, _, token = min(found)
    return closing[: place + len(token)]
