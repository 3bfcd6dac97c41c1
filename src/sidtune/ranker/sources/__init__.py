"""Sources of the ranker; `SOURCES` is the only registry."""

from __future__ import annotations

from sidtune.config.rank import SourceName
from sidtune.ranker.sources.base import Source
from sidtune.ranker.sources.co_occurrence import CoOccurrence
from sidtune.ranker.sources.history import History
from sidtune.ranker.sources.model import Model
from sidtune.ranker.sources.popularity import Popularity
from sidtune.ranker.sources.sids import SidPrefixes
from sidtune.ranker.sources.transitions import TransitionSource
from sidtune.ranker.sources.vectors import Behaviour, Text

# Features of a row's candidates stand in this order.
SOURCES: dict[SourceName, type[Source]] = {
    "model": Model,
    "transitions": TransitionSource,
    "co_occurrence": CoOccurrence,
    "text": Text,
    "behaviour": Behaviour,
    "sids": SidPrefixes,
    "popularity": Popularity,
    "history": History,
}
# What each feature is, by name.
FEATURES = {name: what for source in SOURCES.values() for name, what in source.columns.items()}
