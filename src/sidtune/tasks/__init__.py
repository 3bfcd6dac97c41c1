"""The tasks; `TASKS` is the only registry."""

from sidtune.tasks.base import Task
from sidtune.tasks.fusion import Fusion
from sidtune.tasks.instruction import Instruction
from sidtune.tasks.item_feature import ItemFeature
from sidtune.tasks.preference import Preference
from sidtune.tasks.preference_to_sid import PreferenceToSid
from sidtune.tasks.sid_next import SidNext
from sidtune.tasks.sid_sequence import SidSequence
from sidtune.tasks.sid_sequence_reversed import SidSequenceReversed
from sidtune.tasks.text_neighbours import TextNeighbours
from sidtune.tasks.title_next import TitleNext
from sidtune.tasks.title_to_sid import TitleToSid

TASKS: dict[str, Task] = {
    "sid_next": SidNext(),
    "sid_sequence": SidSequence(),
    "sid_sequence_reversed": SidSequenceReversed(),
    "text_neighbours": TextNeighbours(),
    "item_feature": ItemFeature(),
    "fusion": Fusion(),
    "title_next": TitleNext(),
    "title_to_sid": TitleToSid(),
    "preference": Preference(),
    "preference_to_sid": PreferenceToSid(),
    "instruction": Instruction(),
}

DEFAULT_TASKS = ("sid_next", "item_feature", "fusion", "title_next", "title_to_sid")
