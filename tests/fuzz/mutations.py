"""What hostile files are made of: valid ones, harmed in a few places; everything follows from the
generator given.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa

# Bytes that readers stumble over: ends of text, other encodings, brackets without end, escapes,
# code.
POISON = [
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\r",
    b"\r\n",
    b"\n",
    b"\t",
    "\u2028\u0085\u202e".encode(),
    b'"',
    b"'",
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"\\'" * 3000,
    b",",
    b":",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[" * 20_000,
    b'{"a":' * 5_000,
    b"(" * 3_000,
    b"-" * 3_000,
    b"- " * 3_000,
    b"9" * 5_000,
    b"1e999",
    b"-1",
    b"0x_",
    b"0x" + b"f" * 5_000,
    b"1" + b":1" * 5_000,
    b"-Infinity",
    b".inf",
    b"\\z",
    b"2001-99-99",
    b"NaN",
    b"null",
    b"true",
    b"x" * 70_000,
    b"\x1b]0;title\x07\x1b[2J",
    b"<script>alert(1)</script>",
    b"=1+1",
    b"../../../etc/passwd",
    b"$NOTHING_OF_THIS_NAME",
    b"__import__('os').system('touch canary')",
    b"!!python/object/apply:os.system ['touch canary']",
    b"!!timestamp x",
    b"!!int x",
    b"&a [*a]",
    b"*a",
    b"<<: ",
    b"? ",
    b"{history_sids.__class__}",
    b"{target_sid!r:>99999999}",
]
WRONG: list[Callable[[random.Random], Any]] = [
    lambda _: None,
    lambda _: True,
    lambda _: "",
    lambda _: " ",
    lambda _: "x" * 70_000,
    lambda _: "a\x00b",
    lambda _: "\x1b[31m\u202e",
    lambda _: "[1, 2]",
    lambda _: "../../x",
    lambda _: "\ud800",
    lambda r: r.choice([0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**4000)]),
    lambda r: r.choice([0.5, -0.0, 1e308, float("inf"), float("nan")]),
    lambda _: [],
    lambda _: {},
    lambda _: [[]],
    lambda _: [None],
    lambda _: {"": None},
    lambda _: {"a": {"b": ["c"]}},
    lambda _: ["a", 1, None, {}],
    lambda r: nested(r.choice([3, 50, 400])),
    lambda r: any_json(r, 3),
]


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def any_json(r: random.Random, depth: int) -> Any:
    """A value of any shape."""
    kind = r.randrange(8 if depth else 6)
    if kind >= 6:
        entries = [any_json(r, depth - 1) for _ in range(r.randrange(4))]
        return entries if kind == 6 else {any_text(r): entry for entry in entries}
    return [None, r.random() < 0.5, r.randrange(-5, 300), r.gauss(0, 9), any_text(r), any_text(r)][
        kind
    ]


def any_text(r: random.Random) -> str:
    """A few characters from all over Unicode."""
    return "".join(
        chr(r.choice([r.randrange(32, 127), r.randrange(0xD7FF), 0x1F600]))
        for _ in range(r.randrange(6))
    )


def harmed(content: bytes, r: random.Random) -> bytes:
    """The bytes with one to four of them, or stretches of them, changed."""
    changed = bytearray(content)
    for _ in range(r.randrange(1, 5)):
        at, span = r.randrange(len(changed) + 1), 1 + int(r.expovariate(1 / 20))
        match r.randrange(7):
            case 0:
                for place in range(at, min(at + r.choice([1, 1, span]), len(changed))):
                    changed[place] ^= 1 << r.randrange(8)
            case 1:
                del changed[at : at + span]
            case 2:
                del changed[at:]
            case 3 | 4:
                changed[at:at] = r.choice(POISON)
            case 5:
                changed[at : at + span] = r.choice(POISON)
            case _:
                changed[at:at] = changed[max(0, at - span) : at] * r.choice([1, 2, 300])
    return bytes(changed)


def reencoded(content: bytes, r: random.Random) -> bytes:
    """The same text otherwise: another encoding, a byte-order mark, other ends of lines; or no text
    at all.
    """
    text = content.decode("utf-8", "replace")
    match r.randrange(8):
        case 0:
            return text.encode("utf-16")
        case 1:
            return text.encode("utf-32")
        case 2:
            return text.encode("latin-1", "replace")
        case 3:
            return b"\xef\xbb\xbf" + content
        case 4:
            return text.replace("\n", "\r\n").encode()
        case 5:
            return text.replace("\n", "\r").encode()
        case 6:
            return gzip.compress(content)
        case _:
            return r.choice([b"", b" ", b"\n\n", b"\x00" * 64, b"\x80\x04K\x01.", r.randbytes(200)])


def wrong_tree(tree: Any, r: random.Random) -> Any:
    """A JSON value with one place of it replaced, removed, renamed or doubled."""
    if isinstance(tree, dict) and tree and r.random() < 0.85:
        name = r.choice(list(tree))
        match r.randrange(6):
            case 0:
                return {other: value for other, value in tree.items() if other != name}
            case 1:
                renamed = r.choice([any_text(r), name + "s", "", "__class__", name.upper()])
                return {renamed if other == name else other: value for other, value in tree.items()}
            case _:
                return {
                    other: wrong_tree(value, r) if other == name else value
                    for other, value in tree.items()
                }
    if isinstance(tree, list) and tree and r.random() < 0.85:
        at = r.randrange(len(tree))
        middle = r.choice([[], [tree[at]] * 2, [wrong_tree(tree[at], r)]])
        return [*tree[:at], *middle, *tree[at + 1 :]]
    return r.choice(WRONG)(r)


def as_json(tree: Any, r: random.Random) -> bytes:
    """JSON text of a value, one in five times with a key of it standing twice."""
    text = json.dumps(tree, indent=r.choice([None, 1]), ensure_ascii=r.random() < 0.8)
    if r.random() < 0.2 and text.startswith("{") and isinstance(tree, dict) and tree:
        name = r.choice(list(tree))
        text = "{" + json.dumps(name) + ": " + json.dumps(r.choice(WRONG)(r)) + ", " + text[1:]
    return text.encode("utf-8", "surrogatepass")


def wrong_table(table: pa.Table, r: random.Random) -> pa.Table:
    """An Arrow table with a column of it holed, of another type, renamed, doubled, left out, or in
    bad UTF-8.
    """
    at = r.randrange(table.num_columns)
    name, column = table.column_names[at], table.column(at)
    match r.randrange(7):
        case 0:
            return table.drop_columns([name])
        case 1:
            names = table.column_names
            return table.rename_columns([*names[:at], any_text(r), *names[at + 1 :]])
        case 2:
            return table.append_column(name, column)
        case 3:
            return table.slice(0, r.choice([0, 1]))
        case 4:
            holes = [None if r.random() < 0.5 else value for value in column.to_pylist()]
            return table.set_column(at, name, pa.array(holes, column.type))
        case 5:
            return table.set_column(at, name, _other_column(table.num_rows, r))
        case _:
            return table.set_column(at, name, _bad_text(table.num_rows, r))


def _other_column(rows: int, r: random.Random) -> pa.Array:
    values: list[tuple[pa.DataType, Any]] = [
        (pa.int64(), -1),
        (pa.uint64(), 2**64 - 1),
        (pa.float64(), float("nan")),
        (pa.bool_(), True),
        (pa.null(), None),
        (pa.binary(), b"\xff\xfe"),
        (pa.large_string(), "7"),
        (pa.string(), "\x00"),
        (pa.string(), "[1, 2]"),
        (pa.string(), "[" * 5000),
        (pa.list_(pa.int64()), [7, None]),
        (pa.list_(pa.string()), ["", None]),
        (pa.list_(pa.string()), []),
        (pa.large_list(pa.large_string()), ["1"]),
        (pa.list_(pa.string(), 2), ["1", "2"]),
        (pa.list_(pa.list_(pa.string())), [["1"]]),
        (pa.struct([("a", pa.int32())]), {"a": 1}),
        (pa.map_(pa.string(), pa.int32()), [("a", 1)]),
        (pa.timestamp("us"), 0),
        (pa.decimal128(38, 2), 1),
    ]
    kind, value = r.choice(values)
    column = pa.array([value] * rows, kind)
    return column.dictionary_encode() if kind == pa.string() and r.random() < 0.3 else column


def _bad_text(rows: int, r: random.Random) -> pa.Array:
    """Text that is not UTF-8, which Arrow does not look at by itself, alone or in lists."""
    text = pa.array(
        [r.choice([b"\xff", b"ok", b"\xed\xa0\x80"]) for _ in range(rows)], pa.binary()
    ).view(pa.string())
    if r.random() < 0.5:
        return text
    return pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), text)
