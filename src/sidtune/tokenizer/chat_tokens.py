"""The literal text in a tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Iterator

import jinja2
from transformers import PreTrainedTokenizerFast

CONVERSATION = [{"role": role, "content": "text"} for role in ("user", "assistant")]
# Never part of a token.
BETWEEN = "\0"


def literal_text(tokenizer: PreTrainedTokenizerFast) -> str:
    """All literal text and string constants in the chat templates, whether written or only
    compared.
    """
    return BETWEEN.join(piece for source in _sources(tokenizer) for piece in _literals(source))


def rendered_text(tokenizer: PreTrainedTokenizerFast) -> str:
    """A short conversation as rendered by the chat templates, since they may assemble tokens from
    pieces.
    """
    return BETWEEN.join(
        text for source in _sources(tokenizer) for text in _rendered(tokenizer, source)
    )


def _sources(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    template = tokenizer.chat_template
    sources = list(template.values()) if isinstance(template, dict) else [template]
    return [source for source in sources if isinstance(source, str)]


def _literals(source: str) -> list[str]:
    try:
        return [
            text for _, kind, text in jinja2.Environment().lex(source) if kind in ("data", "string")
        ]
    except jinja2.TemplateError:
        # A template that cannot be parsed writes nothing.
        return []


def _rendered(tokenizer: PreTrainedTokenizerFast, source: str) -> Iterator[str]:
    for generate in (True, False):
        try:
            text = tokenizer.apply_chat_template(
                CONVERSATION, chat_template=source, tokenize=False, add_generation_prompt=generate
            )
        except Exception:
            # A template is a program and may raise any exception; `format: chat` refuses one that
            # fails.
            continue
        yield str(text)
