"""The Rust tokenizers for segments: template text or data text, at the start of the sequence or
inside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from sidtune.base.errors import UserError
from sidtune.tokenizer.faults import refusing_faults

# Rust returns one object per text; batches limit how many exist at once.
TEXTS_AT_ONCE = 50_000
# The usual spelling of SID tokens: a base may know more of them than the catalogue has.
SID_FORM = re.compile(r"<[A-Za-z]+_\d+>")


@dataclass(frozen=True)
class SegmentTokenizers:
    """Tokenises the segments of a run.

    SID tokens and special tokens are recognised in template text but not in data text, so `<a_1>`
    or `</s>` inside a title stays text. No space is added before a segment that does not start the
    sequence.

    Args:
        template_first, template_inner, data_first, data_inner: the four Rust tokenizers.
        prefix_ids: BOS if the tokenizer adds one, else empty.
        eos_id: the id of EOS, which ends a response.
        spaces_after_tokens: whether a space is added before text after every added token, not only
            at the start.
        added: ids of all added tokens by content, SID tokens included.
        sids: the SID tokens among them: the catalogue's, and others of the base that are spelled
            like SIDs.
        name: name of the base, for messages.
    """

    template_first: Tokenizer
    template_inner: Tokenizer
    data_first: Tokenizer
    data_inner: Tokenizer
    prefix_ids: list[int]
    eos_id: int
    spaces_after_tokens: bool
    added: dict[str, int]
    sids: dict[str, int]
    name: str

    def template(self, texts: Sequence[str], first: bool) -> list[list[int]]:
        """Token ids of template texts."""
        return self._encode(self.template_first if first else self.template_inner, texts)

    def whole(self, texts: Sequence[str], behind_token: bool, behind: str = "") -> list[list[int]]:
        """Token ids of template texts as part of a longer text that is tokenised at once.

        Args:
            behind_token: whether they follow an added token rather than text.
            behind: the text before them, if its end is known.
        """
        if behind:
            (before,) = self.whole([behind], True)
            both = self.whole([behind + text for text in texts], True)
            # If a token spans the border, the two texts cannot be separated.
            apart = self.whole(texts, behind_token)
            length = len(before)
            return [
                ids[length:] if ids[:length] == before else own
                for ids, own in zip(both, apart, strict=True)
            ]
        inner = self.template(texts, first=False)
        if not self.spaces_after_tokens:
            return inner
        spaced = self.template(texts, first=True)
        return spaced if behind_token else list(map(self._opening_of, inner, spaced))

    def _opening_of(self, inner: list[int], spaced: list[int]) -> list[int]:
        """`inner` up to the first added token, and `spaced` from there on."""
        added = self.added_ids
        ends = (
            next((at for at, token in enumerate(ids) if token in added), len(ids))
            for ids in (inner, spaced)
        )
        before, begin = ends
        return inner[:before] + spaced[begin:]

    @cached_property
    def added_ids(self) -> frozenset[int]:
        """The ids of the added tokens."""
        return frozenset(self.added.values())

    def data(self, texts: Sequence[str], first: bool) -> list[list[int]]:
        """Token ids of data texts."""
        return self._encode(self.data_first if first else self.data_inner, texts)

    def data_with_sids(self, texts: Sequence[str], first: bool) -> list[list[int]]:
        """Token ids of data texts that contain SIDs: SID tokens are recognised, other added tokens
        are not.
        """
        if not self.sids:
            return self.data(texts, first)
        # Alternating text and SID token, starting and ending with text.
        cut = [self._any_sid.split(text) for text in texts]
        opening = iter(self.data([pieces[0] for pieces in cut], first))
        inner = iter(self.data([text for pieces in cut for text in pieces[2::2]], False))
        encoded = []
        for pieces in cut:
            ids = list(next(opening))
            for token in pieces[1::2]:
                ids += [self.sids[token], *next(inner)]
            encoded.append(ids)
        return encoded

    def sids_in(self, text: str) -> list[str]:
        """The SID tokens in a text, in order."""
        return self._any_sid.findall(text) if self.sids else []

    @cached_property
    def _any_sid(self) -> re.Pattern[str]:
        longest_first = sorted(self.sids, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def cut(self, texts: Sequence[str], limit: int) -> list[str]:
        """Each text, truncated to `limit` tokens."""
        short: list[str] = []
        for batch in _batches(texts):
            with refusing_faults(self.name):
                encodings = self.data_inner.encode_batch(batch, add_special_tokens=False)
            for text, encoding in zip(batch, encodings, strict=True):
                short.append(
                    text[: encoding.offsets[limit - 1][1]] if len(encoding.ids) > limit else text
                )
        return short

    def _encode(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = []
        for batch in _batches(texts):
            with refusing_faults(self.name):
                encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            ids.extend(encoding.ids for encoding in encodings)
        return ids


def segment_tokenizers(
    tokenizer: PreTrainedTokenizerFast, sid_tokens: Sequence[str]
) -> SegmentTokenizers:
    """Derive the four tokenizers from the extended tokenizer.

    Args:
        tokenizer: knows the SID tokens.
        sid_tokens: the catalogue's SID tokens, which are not recognised in data text.

    Raises:
        UserError: if the tokenizer fails.
    """
    with refusing_faults(tokenizer.name_or_path):
        return _derived(tokenizer, sid_tokens)


def _derived(tokenizer: PreTrainedTokenizerFast, sid_tokens: Sequence[str]) -> SegmentTokenizers:
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    definition["truncation"] = definition["padding"] = None
    added, known = dict(tokenizer.get_added_vocab()), set(sid_tokens)
    sids = {
        token: number
        for token, number in added.items()
        if token in known or SID_FORM.fullmatch(token)
    }
    earlier = _without(definition["added_tokens"], known)
    # In data, special tokens are text; so are the base's own SID tokens, whether or not the
    # catalogue has them.
    as_text = [
        token | {"special": token["special"] or token["content"] in sids} for token in earlier
    ]
    plain = {**definition, "added_tokens": as_text}
    inner, plain_inner = _unprefixed(definition), _unprefixed(plain)
    return SegmentTokenizers(
        template_first=_build(definition),
        template_inner=_build(inner),
        data_first=_build(plain, special_is_text=True),
        data_inner=_build(plain_inner, special_is_text=True),
        prefix_ids=_prefix_ids(tokenizer),
        eos_id=tokenizer.eos_token_id,
        spaces_after_tokens=_spaces_after_tokens(definition),
        added=added,
        sids=sids,
        name=tokenizer.name_or_path,
    )


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        yield texts[start : start + TEXTS_AT_ONCE]


def _build(definition: dict[str, Any], special_is_text: bool = False) -> Tokenizer:
    tokenizer = Tokenizer.from_str(json.dumps(definition))
    tokenizer.encode_special_tokens = special_is_text
    return tokenizer


def _without(added: list[dict[str, Any]], sid_tokens: set[str]) -> list[dict[str, Any]]:
    """The added tokens before the first SID token; later ones would change their ids, so they stay
    text too.
    """
    first = min((token["id"] for token in added if token["content"] in sid_tokens), default=None)
    return [token for token in added if first is None or token["id"] < first]


def _unprefixed(definition: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer without added leading spaces: no Metaspace prefix, no `Prepend`
    normaliser.
    """
    changed: dict[str, Any] = json.loads(json.dumps(definition))
    for step in _steps(changed["pre_tokenizer"], "pretokenizers"):
        if step["type"] == "Metaspace":
            step["prepend_scheme"] = "never"
        if step["type"] == "ByteLevel":
            step["add_prefix_space"] = False
    for step in _steps(changed["normalizer"], "normalizers"):
        if step["type"] == "Prepend":
            step["prepend"] = ""
    return changed


def _spaces_after_tokens(definition: dict[str, Any]) -> bool:
    steps = [
        *_steps(definition["pre_tokenizer"], "pretokenizers"),
        *_steps(definition["normalizer"], "normalizers"),
    ]
    return any(
        step.get("prepend_scheme") == "always"
        or (step["type"] == "ByteLevel" and step.get("add_prefix_space", False))
        or step["type"] == "Prepend"
        for step in steps
    )


def _steps(component: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if component is None:
        return []
    return (
        [step for inner in component[key] for step in _steps(inner, key)]
        if key in component
        else [component]
    )


def _prefix_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids that the tokenizer adds before a text (BOS, or nothing)."""
    with_special = tokenizer("a").input_ids
    return [tokenizer.bos_token_id] if with_special[:1] == [tokenizer.bos_token_id] else []


def refuse_token_text(
    texts: Sequence[str], tokenizers: SegmentTokenizers, what: str, sids: bool = False
) -> None:
    """Refuse data text that contains added tokens and is inserted into a longer template segment.

    Args:
        sids: whether SID tokens are allowed.

    Raises:
        UserError: names the first such text.
    """
    read = tokenizers.template(texts, first=False)
    wanted = (tokenizers.data_with_sids if sids else tokenizers.data)(texts, first=False)
    for text, ids, wanted_ids in zip(texts, read, wanted, strict=True):
        if ids != wanted_ids:
            raise UserError(
                f"{what} {text!r:.120} contains a token of the model, but the template inserts it"
                " into a longer segment",
                "Give the placeholder a segment of its own, or change the text.",
            )
