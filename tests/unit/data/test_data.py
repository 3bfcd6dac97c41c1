"""Readers of outside files: what is accepted, and one clear error for everything else."""

from __future__ import annotations

import ast
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_data import TITLES, read_rows, write_shop

from sidtune.base.errors import UserError
from sidtune.data.catalogue import Catalogue, read_catalogue, read_texts, tell_apart
from sidtune.data.disagreements import disagreements
from sidtune.data.html import html_in
from sidtune.data.instructions import read_instructions
from sidtune.data.preferences import read_preferences
from sidtune.data.rows import load_rows
from sidtune.files.literals import CellError, parse_list, parse_lists
from sidtune.files.text import read_json, read_text


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def catalogue(folder: Path) -> Catalogue:
    data = write_shop(folder)
    return read_catalogue(Path(data["items"]), Path(data["index"]))


# --- files ---


def test_text_may_be_gzipped_and_carry_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeffGröße\r\nمرحبا"
    plain = write(tmp_path / "a.txt", text)
    packed = write(tmp_path / "a.txt.gz", gzip.compress(text.encode()))
    assert read_text(plain) == read_text(packed) == "Größe\r\nمرحبا"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"", "is empty"),
        ("a.json", b"\n \n", "is empty"),
        ("a.json", b'{"a": \xff}', "not UTF-8: byte 0xff in line 1"),
        ("a.json", b'{"a": 1,\n "b" 2}', "line 2, column 6"),
        ("a.json", b'{"a": 1, "a": 2}', "'a' occurs twice"),
        ("a.json", b"[" * 200_000, "nested too deeply"),
        ("a.json", b"[" + b"1" * 5000 + b"]", "not valid JSON: Exceeds the limit .*5000 digits\n"),
        ("a.json", b'{"a": NaN}', "a.json: not valid JSON: NaN is not a finite number"),
        ("a.json", b'{"a": [-Infinity]}', "-Infinity is not a finite number"),
        ("a.json", b'{"a": 1e400}', "1e400 is not a finite number"),
        ("a.json", b'{"a": "x\\ud800y"}', r"\\ud800 is half of a surrogate pair"),
        ("a.json.gz", b"not gzip", "damaged gzip"),
        ("a.json.gz", gzip.compress(b'{"a": 1}' * 50, mtime=0)[:-9], "damaged gzip"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_json(write(tmp_path / name, content))
    assert name in str(error.value)


def test_whole_surrogate_pairs_are_accepted(tmp_path: Path) -> None:
    assert read_json(write(tmp_path / "a.json", b'{"a": "\\ud83d\\ude00"}')) == {"a": "😀"}


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "shop.item.json", "{}")
    with pytest.raises(UserError, match=r"did you mean shop\.item\.json"):
        read_json(tmp_path / "shop.items.json")
    with pytest.raises(UserError, match="is a folder"):
        read_json(tmp_path)


# --- literals ---


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("[3437, 642]", ["3437", "642"]),
        ("['a', \"it's\"]", ["a", "it's"]),
        ('["x", "y"]', ["x", "y"]),
        (" [ ] ", []),
        ("['[[[[', 'b']", ["[[[[", "b"]),
        ("['a\\'b', 17.0]", ["a'b", "17"]),
        ("[u'a', r'\\b', \"c\\n\",]", ["a", "\\b", "c\n"]),
        ("[007, 7, -7, -0, 7., 70e-1]", ["007", "7", "-7", "0", "7", "7"]),
        ("[\n'a' ,\t'b'\n]", ["a", "b"]),
        ("[9007199254740993, 9007199254740992.0]", ["9007199254740993", "9007199254740992"]),
    ],
)
def test_lists_of_plain_values(text: str, entries: list[str]) -> None:
    assert parse_list(text) == entries


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch {marker}')",
        "[__import__('os').system('touch {marker}')]",
        "[1, [2]]",
        "[(1, 2)]",
        "{'a': 1}",
        "[1",
        "",
        "3",
        "[" * 5000 + "]" * 5000,
        "[1]" + " " * 1_000_001,
        "[1] + [2]",
        "[1.5]",
        "[1e999]",
        "[True]",
        "[0x" + "f" * 5000 + "]",
        "[1_000]",
        "[0x1f]",
        "[1-2]",
        "[9007199254740993.0]",
        "[1.00000000000000000001]",
        "[('1')]",
        "[b'a']",
        "[f'a']",
        "[1,,2]",
        "['a' + 'b']",
    ],
)
def test_nothing_else_is_a_list_and_nothing_runs(tmp_path: Path, text: str) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(ValueError, match=r"expected a|characters"):
        parse_list(text.replace("{marker}", str(marker)))
    assert not marker.exists()


SIDE_BY_SIDE = (
    "['1' '2']",
    "[1, '2' '3']",
    "['1''2']",
    "['1'\n '2']",
    "['1', \"2\"'3']",
    "['1' u'2']",
    "['''12''']",
    "[1 2 3]",
    "[1. 2.]",
    "[1 -2]",
    "[1 '2']",
    "[1'2']",
    "['1' '2', 3]",
    "[1\t2]",
    "[1 2 ... 8 9]",
)


@pytest.mark.parametrize("cell", SIDE_BY_SIDE)
def test_entries_side_by_side_never_become_one(tmp_path: Path, cell: str) -> None:
    """As NumPy prints its arrays; Python joins neighbouring literals."""
    with pytest.raises(ValueError, match="commas are missing"):
        parse_list(cell)
    quoted = '"' + cell.replace('"', '""') + '"'
    for name in ("history", "history_item_id"):
        path = write(tmp_path / "r.csv", f"user_id,{name},item_id\nu,[1],2\nu,{quoted},3\n")
        with pytest.raises(
            UserError, match=rf"r.csv, row 2, column {name}: commas are missing"
        ) as error:
            read_rows(path)
        assert repr(cell)[:40] in error.value.message
        assert "tolist()" in error.value.hint
    table = pa.table({"user_id": ["u"] * 2, "history": ["[1]", cell], "item_id": ["2"] * 2})
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    with pytest.raises(UserError, match=r"r.parquet, row 2, column history: commas are missing"):
        read_rows(tmp_path / "r.parquet")


TEXT = st.text(st.characters(codec="utf-8"), max_size=6)


@given(st.lists(st.one_of(st.integers(), TEXT), max_size=6), st.sampled_from([", ", ",", " ,\n"]))
def test_a_list_is_read_as_python_wrote_it(values: list[int | str], comma: str) -> None:
    assert parse_list("[" + comma.join(map(repr, values)) + "]") == list(map(str, values))
    if len(values) > 1:
        with pytest.raises(ValueError, match="commas are missing"):
            parse_list("[" + " ".join(map(repr, values)) + "]")


@given(st.text("[]'\"\\ ,12.-eurb_\n", max_size=14))
def test_python_reads_as_many_entries(inside: str) -> None:
    try:
        entries = parse_list(f"[{inside}]")
        expected = ast.literal_eval(f"[{inside}]")
    except (ValueError, SyntaxError):
        return
    assert len(entries) == len(expected)


@given(st.lists(st.lists(st.integers(0, 10**9), max_size=5), min_size=1, max_size=8), st.data())
def test_the_fast_way_reads_what_the_slow_one_reads(
    lists: list[list[int]], data: st.DataObject
) -> None:
    cells = [
        str(entry) if data.draw(st.booleans()) else str(list(map(str, entry))) for entry in lists
    ]
    expected = [[str(value) for value in entry] for entry in lists]
    assert (
        parse_lists(pa.array(cells)).to_pylist() == [parse_list(cell) for cell in cells] == expected
    )


def test_a_bad_cell_is_named() -> None:
    with pytest.raises(CellError) as error:
        parse_lists(pa.array(["[1]", "[2]", "nonsense", None]))
    assert error.value.row == 2


# --- catalogue ---


def test_catalogue(tmp_path: Path) -> None:
    shop = catalogue(tmp_path)
    assert shop.ids == [str(i) for i in range(8)]
    assert shop.titles == TITLES
    assert shop.sids[4] == ("<a_1>", "<b_1>", "<c_4>")
    assert shop.sid_tokens == sorted(
        ["<a_0>", "<a_1>", "<a_2>", "<b_0>", "<b_1>", "<b_2>", *(f"<c_{i}>" for i in range(7))]
    )
    assert {sid: items for sid, items in shop.items_of.items() if len(items) > 1} == {
        ("<a_0>", "<b_2>", "<c_6>"): [6, 7]
    }
    assert shop.positions(pa.array(["7", "nine", "0"])).tolist() == [7, -1, 0]


def small(folder: Path, items: object, index: object) -> Catalogue:
    return read_catalogue(
        write(folder / "i.json", json.dumps(items)), write(folder / "x.json", json.dumps(index))
    )


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (None, "T"),
        ("", "T"),
        ([], "T"),
        ("[]", "T"),
        (["", "  "], "T"),
        ("plain text", "plain text"),
        ("['short', 'the longest one', 'mid']", "the longest one"),
        (["a", " padded entry "], "padded entry"),
        ("[not a literal", "[not a literal"),
        ("[__import__('os')]", "[__import__('os')]"),
        ("['90s] style", "['90s] style"),
        ("[new] 'one' 'two'", "[new] 'one' 'two'"),
        ("[500 ml]", "[500 ml]"),
    ],
)
def test_the_longest_entry_is_the_description(
    tmp_path: Path, description: object, expected: str
) -> None:
    shop = small(
        tmp_path, {"1": {"title": "T", "description": description, "brand": 3}}, {"1": ["<a_1>"]}
    )
    assert shop.descriptions == [expected]


def test_odd_titles_and_depths_are_accepted(tmp_path: Path) -> None:
    titles = ["x" * 100_000, "مرحبا بالعالم", "</s> <a_1>", "日本\t語"]
    items = {str(i): {"title": title} for i, title in enumerate(titles)}
    shop = small(
        tmp_path,
        items,
        {"0": ["<a_1>"], "1": ["<a_1>", "<b_1>"], "2": ["<a_2>"], "3": ["<b_9>"] * 5},
    )
    assert shop.titles == titles
    assert [len(sid) for sid in shop.sids] == [1, 2, 1, 5]
    assert read_texts(tmp_path / "i.json") == titles * 2


def test_an_index_alone_makes_items_without_text(tmp_path: Path) -> None:
    data = write_shop(tmp_path)
    known, bare = (
        read_catalogue(items, Path(data["index"])) for items in (Path(data["items"]), None)
    )
    assert (bare.ids, bare.sids) == (known.ids, known.sids)
    assert bare.titles == bare.descriptions == [""] * 8
    assert (known.has_texts, bare.has_texts) == (True, False)
    assert list(disagreements(Path(data["train"]), bare)) == [], "titles that nothing is known of"


def test_items_of_one_sid_are_told_apart_by_a_token_more(tmp_path: Path) -> None:
    index = {
        "7": ["<a>", "<b>"],
        "1": ["<a>"],
        "2": ["<a>", "<c>"],
        "3": ["<a>", "<b>"],
        "4": ["<a>"],
        "5": ["<a>"],
    }
    shop = read_catalogue(None, write(tmp_path / "x.json", json.dumps(index)))
    apart = tell_apart(shop, tmp_path / "x.json")
    assert apart.sids == [
        ("<a>", "<b>", "<item_0>"),
        ("<a>", "<item_0>"),
        ("<a>", "<c>"),
        ("<a>", "<b>", "<item_1>"),
        ("<a>", "<item_1>"),
        ("<a>", "<item_2>"),
    ]
    assert (apart.ids, apart.titles) == (shop.ids, shop.titles)
    with pytest.raises(UserError, match=r"x.json already contains the SID token <item_0>"):
        tell_apart(
            Catalogue(list("12"), [""] * 2, [""] * 2, [("<item_0>",)] * 2), tmp_path / "x.json"
        )


GOOD = {"1": {"title": "T"}}


@pytest.mark.parametrize(
    ("items", "index", "message"),
    [
        (
            {**GOOD, "2": {"title": "U"}},
            {"1": ["<a>"]},
            r"i.json: 1 items have no SID in x.json: 2",
        ),
        (
            GOOD,
            {"1": ["<a>"], "7": ["<b>"], "8": ["<b>"]},
            r"x.json: 2 SIDs have no item in i.json: 7, 8",
        ),
        (GOOD, {"1": []}, r"x.json: item 1: expected a list of SID tokens"),
        (GOOD, {"1": "<a>"}, r"x.json: item 1: expected a list of SID tokens"),
        (
            GOOD,
            {"1": [3, "<b>"]},
            (
                r"x.json: item 1: expected a list of SID tokens, or a list of whole .* \(found \[3,"
                r" '<b>'"
            ),
        ),
        (GOOD, {"1": [True, False]}, r"item 1: expected a list of SID tokens"),
        (GOOD, {"1": [3, -1]}, r"item 1: expected a list of SID tokens"),
        (GOOD, {"1": [3, None]}, r"item 1: expected a list of SID tokens"),
        (GOOD, {"1": [3.5]}, r"item 1: expected a list of SID tokens"),
        (GOOD, {"1": [[3]]}, r"item 1: expected a list of SID tokens"),
        (GOOD, {"1": 3}, r"item 1: expected a list of SID tokens"),
        (
            {**GOOD, "2": {"title": "U"}},
            {"1": [3, 1], "2": ["<a_3>", "<b_1>"]},
            (
                r"x.json: the SID of item 1 is written as numbers \(\[3, 1\]\), that of item 2 as"
                r" tokens"
            ),
        ),
        ({"1": {}}, {"1": ["<a>"]}, r"item 1 has no title"),
        (
            {"": {"title": "T"}},
            {"": ["<a>"]},
            r"x.json: the item id '' is empty, starts or ends with white space, or",
        ),
        (
            {" 1": {"title": "T"}},
            {" 1": ["<a>"]},
            r"x.json: the item id ' 1' is empty, starts or ends with white space",
        ),
        (
            {"a\nb": {"title": "T"}},
            {"a\nb": ["<a>"]},
            r"the item id 'a\\nb' .* contains a NUL or a line break",
        ),
        (GOOD, {"1": ["<a>", ""]}, r"x.json: the SID token '' is empty"),
        (GOOD, {"1": ["<a\0>"]}, r"x.json: the SID token '<a\\x00>' .* contains a NUL"),
        ({"1": {"title": " "}}, {"1": ["<a>"]}, r"item 1 has no title"),
        ({"1": "T"}, {"1": ["<a>"]}, r"item 1: expected an object"),
        (
            {"1": {"title": "T", "description": 5}},
            {"1": ["<a>"]},
            r"item 1: expected text or a list",
        ),
        (
            {"1": {"title": "T", "description": "['one' 'two']"}},
            {"1": ["<a>"]},
            (
                r"i.json: item 1: description: commas are missing, the first after 'one', found"
                r" .*'two'"
            ),
        ),
        (
            {**GOOD, "1.0": {"title": "U"}},
            {"1": ["<a>"], "2": ["<b>"]},
            r"i.json: two items match 1 of x.json; one of them is written 1.0",
        ),
        ([], {"1": ["<a>"]}, r"expected a JSON object at the top level, found a list"),
        ({}, {"1": ["<a>"]}, r"is empty"),
    ],
)
def test_broken_catalogues(tmp_path: Path, items: object, index: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(tmp_path, items, index)


@pytest.mark.parametrize(
    ("given", "title"),
    [
        (1984, "1984"),
        (0, "0"),
        (-3, "-3"),
        (1984.0, "1984"),
        (2.5, "2.5"),
        (1e300, "1e+300"),
        ("007", "007"),
    ],
)
def test_a_number_is_a_title(tmp_path: Path, given: object, title: str) -> None:
    shop = small(tmp_path, {"7": {"title": given}}, {"7": ["<a_1>"]})
    assert shop.titles == shop.descriptions == [title]
    assert read_texts(tmp_path / "i.json") == [title] * 2


def test_titles_and_descriptions_are_known_however_they_are_written(tmp_path: Path) -> None:
    items = {"1": {"Title": "Mug", "DESCRIPTION": "Blue"}, "2": {"name": "Tent"}}
    found = small(tmp_path, items, {"1": ["<a>"], "2": ["<b>"]})
    assert (found.titles, found.descriptions) == (["Mug", "Tent"], ["Blue", "Tent"])


def test_faults_of_a_catalogue_are_counted_and_told_all_at_once(tmp_path: Path) -> None:
    titles = {
        f"t{number}": {"title": value}
        for number, value in enumerate([None, "", True, [], {}, "  ", ["x"]])
    }
    items = {
        "ok": {"title": "T"},
        **titles,
        "o1": "a text",
        "o2": None,
        "d": {"title": "T", "description": 5},
    }
    with pytest.raises(UserError) as error:
        small(tmp_path, items, {item: ["<a>"] for item in items})
    assert (
        error.value.message
        == f"{tmp_path / 'i.json'}: 7 items have no title: t0 (found None), t1 (found ''), t2"
        " (found True), t3 (found []), t4 (found {}) …; 2 items: expected an object with a"
        " title: o1 (found 'a text'), o2 (found None); item d: expected text or a list of texts"
        " as description (found 5)"
    )
    with pytest.raises(UserError, match="7 items have no title"):
        read_texts(tmp_path / "i.json")
    with pytest.raises(
        UserError,
        match=(
            r"x.json: 2 items: expected a list of SID tokens.*: 1 \(found 'x'\), 3 \(found \[\]\)"
        ),
    ):
        read_catalogue(
            None, write(tmp_path / "x.json", json.dumps({"1": "x", "2": ["<a>"], "3": []}))
        )


def test_numbers_in_an_index_are_codes(tmp_path: Path) -> None:
    index = {"1": [3, 14, 159], "2": [3, 14.0], "3": [0] * 28}
    shop = read_catalogue(None, write(tmp_path / "x.json", json.dumps(index)))
    assert shop.sids[0] == ("<a_3>", "<b_14>", "<c_159>")
    assert shop.sids[1] == ("<a_3>", "<b_14>")
    assert shop.sids[2][24:] == ("<y_0>", "<z_0>", "<aa_0>", "<ab_0>")
    assert shop.codes == [[3, 14, 159], [3, 14], [0] * 28]
    assert len(set(shop.sids[2])) == 28


CODED = {"0": [3, 14], "1": [3, 15]}


@pytest.mark.parametrize(
    ("history", "target", "bad"),
    [
        ("['<a_3><b_14>', '<a_3><b_15>']", "<a_3><b_15>", []),
        ("[[3, 14], [3, 15]]", "[3, 15]", []),
        ("[[3,14],[3,15]]", "[3,15]", []),
        ("[[3, 14], [3, 16]]", "[3, 15]", ["history_item_sid"]),
        ("['<a_3><b_14>', '<a_3><b_15>']", "[3, 1, 5]", ["item_sid"]),
        ("[[3, 14]]", "<a_3><b_14>", ["history_item_sid", "item_sid"]),
    ],
)
def test_rows_may_name_sids_by_their_codes(
    tmp_path: Path, history: str, target: str, bad: list[str]
) -> None:
    shop = read_catalogue(None, write(tmp_path / "x.json", json.dumps(CODED)))
    header = "user_id,history_item_id,item_id,history_item_sid,item_sid\n"
    path = write(tmp_path / "r.csv", f'{header}u,"[0, 1]",1,"{history}","{target}"\n')
    assert sorted(entry.column for entry in disagreements(path, shop)) == bad


@pytest.mark.parametrize(
    ("title", "found"),
    [
        ("Salt &amp; Pepper", "&amp;"),
        ("a <b>bold</b> mug", "<b>"),
        ("two<BR/>lines", "<BR/>"),
        ('see <a href="x.html">this', '<a href="x.html">'),
        ("5&nbsp;mm", "&nbsp;"),
        ("it&#39;s", "&#39;"),
        ("it&#x27;s", "&#x27;"),
        ("x <!-- y -->", "<!--"),
        ("Salt & Pepper; AT&T", None),
        ("<a_1> <b_22> </s_1>", None),
        ("3 < 5 > 2, <unknown>, <big fish", None),
        ("R&zzz;", None),
        ("", None),
    ],
)
def test_html_in_a_text(title: str, found: str | None) -> None:
    assert html_in(title) == found


# --- rows ---

EXPECTED = [
    {"user_id": "u", "history": ["1", "2"], "target": "3"},
    {"user_id": "v", "history": ["2"], "target": "1"},
]


def row_files(folder: Path) -> list[Path]:
    """The same two rows in every accepted form."""
    records = [
        {"user_id": r["user_id"], "history": r["history"], "item_id": r["target"], "x": 1}
        for r in EXPECTED
    ]
    numbers = [
        {**r, "history": [int(i) for i in r["history"]], "item_id": int(str(r["item_id"]))}
        for r in records
    ]
    lines = "".join(json.dumps(record) + "\n" for record in numbers)
    tables = {"p": pa.Table.from_pylist(records), "numbers": pa.Table.from_pylist(numbers)}
    for name, table in tables.items():
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet")
    mini = 'user_id,history_item_id,item_id,extra\r\nu,"[1, 2]",3,"a\nb"\r\nv,[2],1,\r\n'
    return [
        folder / "p.parquet",
        folder / "numbers.parquet",
        write(folder / "r.jsonl", lines),
        write(folder / "r.jsonl.gz", gzip.compress(lines.encode())),
        write(folder / "r.csv", 'user_id,history,item_id\nu,"[1, 2]",3\nv,"[""2""]",1\n'),
        write(folder / "mini.csv", "\ufeff" + mini),
        write(folder / "mini.csv.gz", gzip.compress(mini.encode())),
        write(
            folder / "quoted.csv",
            "\"item_id\",user_id,history_item_id\n3,u,\"['1', '2']\"\n1,v,['2']\n",
        ),
    ]


def test_every_form_of_rows_gives_one_table(tmp_path: Path) -> None:
    for path in row_files(tmp_path):
        assert read_rows(path).to_pylist() == EXPECTED, path.name


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "r.csv",
            "user_id,history,itemid\nu,[1],3\n",
            r"no column 'item_id'; did you mean itemid\?; found user_id",
        ),
        ("r.csv", "user_id,history_item_id\nu,[1]\n", r"no column 'item_id'"),
        (
            "r.csv",
            "user_id,history_item_ids,history_titles,item_id\nu,[1],['t'],3\n",
            r"no column 'history_item_id'; did you mean history_item_ids\?; found user_id",
        ),
        (
            "r.csv",
            "user_id,history_titles,item_id\nu,['t'],3\n",
            r"no column 'history'; found user_id",
        ),
        (
            "r.csv",
            "user_id,history_item_title,item_id\nu,['t'],3\n",
            r"no column 'history_item_id'; found user_id",
        ),
        (
            "r.csv",
            "user_id,history_item_sid,item_id\nu,['t'],3\n",
            r"no column 'history_item_id'; found user_id",
        ),
        (
            "r.csv",
            "user_id,history,item_sid\nu,[1],<a>\n",
            r"no column 'item_id'; found user_id, history, item_sid",
        ),
        (
            "r.csv",
            "User_ID,history,item_id\nu,[1],3\n",
            r"no column 'user_id'; did you mean User_ID\?",
        ),
        (
            "r.csv",
            "user_id,histroy,item_id\nu,[1],3\n",
            r"no column 'history'; did you mean histroy\?",
        ),
        (
            "r.csv",
            "user_id,history_itme_id,item_id\nu,[1],3\n",
            r"'history_item_id'; did you mean history_itme_id\?",
        ),
        (
            "r.jsonl",
            '{"user_id": "u", "history_item_ids": [1], "item_id": 2}\n',
            (
                r"no column 'history_item_id'; did you mean history_item_ids\?; found user_id,"
                r" history_item_ids, item_id"
            ),
        ),
        ("r.csv", "user_id,item_id\nu,1\n", r"no column 'history'"),
        ("r.csv", "user_id,history,item_id\n", r"contains no rows"),
        ("r.csv", "", r"is empty"),
        (
            "r.csv",
            "user_id,history,item_id\nu,[1],3\nv,__import__('os').system('x'),3\n",
            r"row 2, column history: expected",
        ),
        ("r.csv", "user_id,history,item_id\nu,[],3\n", r"row 1, column history: empty history"),
        ("r.csv", "user_id,history,item_id\nu,[1],\n", r"row 1, column item_id: empty"),
        ("r.csv", "user_id,history,item_id\n,[1],2\n", r"row 1, column user_id: empty"),
        ("r.csv", "user_id,history,item_id\nu,[1],2\nu,[1],2,9,9\n", r"invalid CSV"),
        ("r.csv", "user_id,history,item_id\ru,[1],2\r", r"r\.csv: lines end with a carriage"),
        ("r.csv", b"user_id,history,item_id\nu,[1],\xff\n", r"not UTF-8: byte 0xff in line 2"),
        (
            "r.jsonl",
            '{"user_id": "u", "history": "1", "item_id": 2}\n',
            r"row 1, column history: expected a list",
        ),
        ("r.jsonl", '{"user_id": "u", "item_id": 2}\n', r"no column 'history'"),
        (
            "r.jsonl",
            '{"user_id": "u", "history": [1], "item_id": 2}\n{"user_id": "u"',
            r"line 2: not valid JSON",
        ),
        (
            "r.jsonl",
            '{"user_id": NaN, "history": [1], "item_id": 2}\n',
            r"line 1: .* NaN is not a finite number",
        ),
        (
            "r.jsonl",
            '{"user_id": 1.5, "history": [1], "item_id": 2}\n',
            r"row 1, column user_id: expected an id",
        ),
        (
            "r.jsonl",
            '{"user_id": 1, "history": [true], "item_id": 2}\n',
            r"row 1, column history: expected a list",
        ),
        ("r.jsonl", "[1]\n", r"line 1: expected a JSON object"),
        ("r.parquet", "not parquet at all", r"cannot be read as Parquet"),
        ("r.txt", "x", r"unknown file type '.txt'"),
        ("r.inter.json", '{"u": [1]}', r"unknown file type '.json'\n.* data.interactions"),
        ("missing.csv", None, r"no such file"),
    ],
)
def test_broken_rows(tmp_path: Path, name: str, text: str | bytes | None, message: str) -> None:
    if text is not None:
        write(tmp_path / name, text)
    with pytest.raises(UserError, match=message) as error:
        read_rows(tmp_path / name)
    assert name in str(error.value)


def test_the_columns_of_parquet_are_named_when_one_is_missing(tmp_path: Path) -> None:
    table = pa.table(
        {"user_id": ["u"], "history_item_ids": [["1"]], "history_titles": [["t"]], "item_id": ["2"]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    with pytest.raises(
        UserError, match=r"no column 'history_item_id'; did you mean history_item_ids\?"
    ):
        read_rows(tmp_path / "r.parquet")


def test_a_file_of_a_thousand_other_fields_is_read(tmp_path: Path) -> None:
    record = {f"x{number}": 0 for number in range(3_000)} | {
        "user_id": "u",
        "history": [1, 2],
        "item_id": 3,
    }
    assert (
        read_rows(write(tmp_path / "r.jsonl", json.dumps(record) + "\n")).to_pylist()
        == EXPECTED[:1]
    )


def test_unknown_items_are_named_with_their_rows(tmp_path: Path) -> None:
    shop = catalogue(tmp_path)
    path = write(
        tmp_path / "r.csv", 'user_id,history,item_id\nu,[1],2\nu,"[1, 99]",2\nv,[1],nine\n'
    )
    with pytest.raises(
        UserError, match=r"2 rows contain items without a SID: 99, nine \(first in row 2\)"
    ):
        load_rows(path, shop)


def test_rows_resolve_to_positions(tmp_path: Path) -> None:
    shop = catalogue(tmp_path)
    path = write(tmp_path / "r.csv", 'user_id,history,item_id\nu,"[7, 1]",2\nv,[3],0\n')
    rows = load_rows(path, shop)
    assert [rows.history[i].tolist() for i in range(2)] == [[7, 1], [3]]
    assert rows.target.tolist() == [2, 0]
    assert rows.users.to_pylist() == ["u", "v"]


def test_cells_that_disagree_with_the_catalogue(tmp_path: Path) -> None:
    data = write_shop(tmp_path)
    shop, path = catalogue(tmp_path), Path(data["train"])
    assert list(disagreements(path, shop)) == []
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace("<a_", "<z_")
    path.write_text("\n".join(lines) + "\n")
    found = list(disagreements(path, shop))
    assert {entry.row for entry in found} == {3}
    assert {entry.column for entry in found} == {"history_item_sid", "item_sid"}
    assert any("<z_" in entry.found and "<a_" in entry.expected for entry in found)


def test_real_data_reads_whole_and_agrees(amazon: Path) -> None:
    shop = read_catalogue(
        *(amazon / f"Industrial_and_Scientific.{kind}.json" for kind in ("item", "index"))
    )
    assert (len(shop.ids), len(shop.items_of), len(shop.sid_tokens)) == (3686, 3670, 560)
    for name, count in (("train", 10_393), ("valid", 4_532), ("test", 4_533)):
        path = amazon / f"{name}.csv"
        assert len(load_rows(path, shop).target) == count
    assert list(disagreements(amazon / "valid.csv", shop)) == []


# --- preferences and instructions ---

RECORD = {
    "user": 7,
    "user_preference": "likes tents",
    "split": "valid",
    "context": {"history_items": [1, "2"], "target_item": 3, "more": 0},
    "more": 1,
}


def test_preferences_as_json_and_jsonl(tmp_path: Path) -> None:
    expected = {
        "user_id": "7",
        "history": ["1", "2"],
        "target": "3",
        "preference": "likes tents",
        "split": "valid",
    }
    assert read_preferences(write(tmp_path / "p.json", json.dumps([RECORD]))).to_pylist() == [
        expected
    ]
    assert read_preferences(write(tmp_path / "p.jsonl", json.dumps(RECORD) + "\n")).to_pylist() == [
        expected
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": {}}, "missing field 'history_items'"),
        (
            {"context": {"history_items": [], "target_item": 1}},
            "context.history_items: expected a list",
        ),
        ({"context": {"history_items": [1]}}, "missing field 'target_item'"),
        ({"context": None}, "missing field 'history_items'"),
        ({"user_preference": ""}, "user_preference: expected text"),
        ({"user": ["x"]}, "user: expected an id"),
        ({"user": True}, "user: expected an id, found True"),
        (
            {"context": {"history_items": [1, True], "target_item": 1}},
            "context.history_items: expected a list",
        ),
        (
            {"context": {"history_items": [1, ""], "target_item": 1}},
            "context.history_items: expected a list",
        ),
        ({"split": None}, "split: expected the name of a split, found None"),
        ({"split": ["valid"]}, "split: expected the name of a split"),
        ({"split": True}, "split: expected the name of a split"),
        (
            {"split": "Valid"},
            r"split: expected the name of a split, found 'Valid'; did you mean valid\?",
        ),
    ],
)
def test_broken_preferences(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"p.json, record 2: {message}"):
        read_preferences(write(tmp_path / "p.json", json.dumps([RECORD, {**RECORD, **change}])))


def test_a_preference_without_a_split_is_for_training(tmp_path: Path) -> None:
    record = {name: value for name, value in RECORD.items() if name != "split"}
    assert read_preferences(write(tmp_path / "p.json", json.dumps([record])))[
        "split"
    ].to_pylist() == ["train"]


def test_instructions(tmp_path: Path) -> None:
    path = write(
        tmp_path / "i.jsonl",
        '{"prompt": "a", "response": "b", "x": 1}\n\n{"prompt": "c", "response": "d"}\n',
    )
    assert read_instructions(path).to_pylist() == [
        {"prompt": "a", "response": "b"},
        {"prompt": "c", "response": "d"},
    ]
    with pytest.raises(UserError, match="line 2: response: expected text"):
        read_instructions(
            write(
                tmp_path / "j.jsonl",
                '{"prompt": "a", "response": "b"}\n{"prompt": "a", "response": ""}\n',
            )
        )


def test_other_top_levels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a list of records"):
        read_preferences(write(tmp_path / "p.json", "{}"))
    with pytest.raises(UserError, match="contains no records"):
        read_preferences(write(tmp_path / "p.json", "[]"))
