"""Public data sets as they are downloaded. To add one: a file here, and an entry in `FORMATS`."""

from __future__ import annotations

from sidtune.events.readers import amazon, movielens, recbole, sequences
from sidtune.events.readers.format import Format

FORMATS: dict[str, Format] = {
    "recbole": Format(recbole.tables, recbole.tables, r".+\.inter", r".+\.item"),
    "movielens": Format(
        movielens.ratings, movielens.movies, r"ratings.*\.(csv|dat)|u\.data", r"movies.*|u\.item"
    ),
    "amazon": Format(amazon.reviews, amazon.products, r"(?!meta).+\.jsonl?", r"meta.*\.jsonl?"),
    "sequences": Format(
        sequences.sequences,
        sequences.items,
        r".+\.inter\.json|.+(?<!_sample)\.(txt|inter)",
        r".+\.item\.json|.*attributes.*\.json",
        lists=True,
    ),
}
