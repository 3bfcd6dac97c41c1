"""The tokenizer's own chat template, taken apart into what stands around prompt and response."""

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
# All of it stands below this code point.
WHITESPACE = "".join(character for character in map(chr, range(0x3001)) if character.isspace())
# More than a template writes by itself.
BLANKS = 20
# In place of the computer's clock, whatever the format.
TIME = "{{%- macro strftime_now(format) %}}{}{{%- endmacro %}}"
TIMES = ("01", "02", "13", "24", "31", "59", "2031")


def make_frame(
    tokenizer: PreTrainedTokenizerFast, segments: SegmentTokenizers, style: Literal["plain", "chat"]
) -> Frame:
    """The frame of a template format, as it is now: a chat template may write the time.

    Raises:
        UserError: for `chat` with a tokenizer that has no chat template, or one that fails or cannot be taken apart.
    """
    if style == "plain":
        return PLAIN
    say = partial(conversation, tokenizer)
    answered = say(PROMPT_MARK, RESPONSE_MARK)
    if answered.count(PROMPT_MARK) != 1 or answered.count(RESPONSE_MARK) != 1:
        raise UserError("the chat template does not write each message once, as it is", HINT)
    before, rest = answered.split(PROMPT_MARK)
    if RESPONSE_MARK not in rest:
        raise UserError("the chat template writes the answer in front of the question", HINT)
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
    tokenizer: PreTrainedTokenizerFast, prompt: str, response: str | None = None, *, time: str | None = None
) -> str:
    """What the chat template makes of a question and its answer; of a question alone, up to where the model goes on.

    Args:
        time: what the template is told where it asks for the time, whatever the format; the true one by default.

    Raises:
        UserError: for a tokenizer that has no chat template, or one that fails.
    """
    if not tokenizer.chat_template:
        raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no chat template", HINT)
    messages = [{"role": "user", "content": prompt}]
    if response is not None:
        messages.append({"role": "assistant", "content": response})
    try:
        template = None if time is None else TIME.format(time) + tokenizer.get_chat_template()
        # Templates of models that think out loud leave the thought empty; the others ignore the variable.
        text = tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=response is None,
            enable_thinking=False,
        )
    except Exception as error:
        # A template is a program in Jinja's sandbox, and raises whatever programs raise.
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the chat template fails: {reason}", HINT) from None
    assert isinstance(text, str)
    return text


def reads_clock(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the chat template writes something else at another time."""
    return len({conversation(tokenizer, PROMPT_MARK, RESPONSE_MARK, time=time) for time in TIMES}) > 1


def _spanned(between: str, middle: str, segments: SegmentTokenizers) -> bool:
    """Whether a token spans the border between what a model is asked with and what it writes."""
    asked, whole = segments.whole([between, middle], behind_token=True)
    return whole[: len(asked)] != asked


def _trims(say: Callable[[str], str], mark: str) -> tuple[str, str]:
    """The white space that the template takes away in front of a message and at its end.

    Only what stands beside the mark is compared: elsewhere the template may write the time.
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
    """How many of these characters a text begins with."""
    return len(text) - len(text.lstrip(blank))


def _up_to_end_of_turn(closing: str, tokenizer: PreTrainedTokenizerFast, segments: SegmentTokenizers) -> str | None:
    """The text behind the response up to its first added token; None where there is none."""
    special = {*segments.added, str(tokenizer.eos_token)}
    found = [(closing.find(token), -len(token), token) for token in special if token and token in closing]
    if not found:
        return None
    place, _, token = min(found)
    return closing[: place + len(token)]
