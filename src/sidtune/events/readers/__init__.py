"""Public data sets as they are downloaded. To add one: a file here, and an entry in `FORMATS`."""

from __future__ import annotations

from sidtune.events.readers import amazon, movielens, recbole, sequences
from sidtune.events.readers.format import Format

FORMATS: dict[str, Format] = {
    "recbole": Format(recbole.tables, recbole.tables),
    "movielens": Format(movielens.ratings, movielens.movies),
    "amazon": Format(amazon.reviews, amazon.products),
    "sequences": Format(sequences.sequences, sequences.items),
}
