"""Files saved with the weights that make a model folder usable without its configuration: catalogue
and prompts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sidtune.base.errors import UserError
from sidtune.config.section import MOST
from sidtune.data.catalogue import Catalogue, refuse_unnameable
from sidtune.encoding.frame import PLAIN, Frame
from sidtune.files.parquet import read_parquet
from sidtune.files.shards import SHARDS, sharded
from sidtune.files.text import read_json_model
from sidtune.runs.checkpoints import checkpoints
from sidtune.runs.model_card import CARD, Prompted, Training, model_card
from sidtune.tasks import TASKS
from sidtune.tasks.sid_sequence_reversed import FORM as REVERSED
from sidtune.templates import Template, as_tree, parse_template

CATALOGUE, RECOMMENDER_FILE = "sid_catalogue.parquet", "sid_recommender.json"
SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("sid", pa.list_(pa.string())),
        ("users", pa.int64()),
    ]
)
FORMAT_VERSION: Final = 3
HINT = (
    "sidtune writes this file when it trains a model: copy it from the same run, or retrain with"
    " this version."
)


TokenId = Annotated[int, Field(ge=0, le=MOST, strict=True)]


@dataclass(frozen=True)
class PromptIds:
    """Token ids of a prompt, for programs that do not read templates.

    Args:
        before: before the SIDs of the history.
        separator: between two SIDs.
        after: after the last SID, up to the SID of the response.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    before: list[TokenId]
    separator: list[TokenId]
    after: list[TokenId]


@dataclass(frozen=True)
class Bundle:
    """Prompt format and catalogue of a trained model.

    Args:
        catalogue: items with titles and SIDs, without descriptions.
        users: `(items,)`, number of training users of each item.
        task: the evaluation task.
        template: template of this task; the first one if there are several.
        format: template format, `plain` or `chat`.
        cutoff_len: maximum length of prompt and response in tokens.
        longest_history: maximum number of items of a training or validation row, target included,
            and at most `data.history`; prompts are cut to it, since the model was not trained on
            longer histories.
        frame: the text around prompt and response, as rendered when training began.
        prompt_ids: the token ids around the history; None if prompts contain more than the SIDs of
            a history.
        reversed_template: template of `sid_sequence_reversed`; None if the model was not trained
            on it.
    """

    catalogue: Catalogue
    users: NDArray[np.int64]
    task: str
    template: Template
    format: Literal["plain", "chat"]
    cutoff_len: int
    longest_history: int
    frame: Frame = PLAIN
    prompt_ids: PromptIds | None = None
    reversed_template: Template | None = None

    @property
    def by_users(self) -> list[str]:
        """Item ids, those with most training users first."""
        order = (-self.users).argsort(kind="stable")
        return [self.catalogue.ids[place] for place in order.tolist()]


def _only_blanks(text: str) -> str:
    if text.strip():
        raise ValueError("must be white space")
    return text


def _recommending(task: str) -> str:
    able = [name for name, known in TASKS.items() if known.recommends]
    if task not in able:
        raise ValueError(f"expected {' or '.join(able)}")
    return task


Blanks = Annotated[str, AfterValidator(_only_blanks)]


class _Frame(BaseModel):
    """The text written by the chat template."""

    model_config = ConfigDict(extra="forbid", strict=True)

    before: str
    between: str
    opening: str
    after: str
    eos: bool
    # JSON has lists.
    prompt_trim: tuple[Blanks, Blanks] = Field(strict=False)
    response_trim: tuple[Blanks, Blanks] = Field(strict=False)

    @classmethod
    def of(cls, frame: Frame) -> Self:
        """The JSON representation of a frame."""
        return cls(**{name: value for name, value in asdict(frame).items() if name != "chat"})

    def frame(self) -> Frame:
        """The frame for the encoder."""
        return Frame(chat=True, **self.model_dump())


class _Recommender(BaseModel):
    """The contents of `sid_recommender.json`."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[3]
    task: Annotated[str, AfterValidator(_recommending)]
    template: dict[str, object]
    format: Literal["plain", "chat"]
    cutoff_len: int = Field(ge=8, le=MOST)
    longest_history: int = Field(ge=1, le=MOST)
    chat: _Frame | None
    prompt_ids: PromptIds | None
    reversed_template: dict[str, object] | None = None

    @model_validator(mode="after")
    def _chat_has_its_frame(self) -> Self:
        if (self.format == "chat") != (self.chat is not None):
            raise ValueError(
                "`chat` must contain the text of the chat template if format is chat, and must be"
                " null otherwise"
            )
        return self


def write_bundle(bundle: Bundle, folder: Path, training: Training | None = None) -> None:
    """Write both files and the model card into a model folder.

    Args:
        training: what the card says of the training; None for a checkpoint.
    """
    catalogue = bundle.catalogue
    write_catalogue(bundle, folder / CATALOGUE)
    recommender = _Recommender(
        version=FORMAT_VERSION,
        task=bundle.task,
        template=as_tree(bundle.template),
        format=bundle.format,
        cutoff_len=bundle.cutoff_len,
        longest_history=bundle.longest_history,
        chat=_Frame.of(bundle.frame) if bundle.format == "chat" else None,
        prompt_ids=bundle.prompt_ids,
        reversed_template=as_tree(bundle.reversed_template) if bundle.reversed_template else None,
    )
    (folder / RECOMMENDER_FILE).write_text(
        recommender.model_dump_json(indent=1) + "\n", encoding="utf-8"
    )
    prompted = Prompted(
        len(catalogue.ids), catalogue.ids[0], catalogue.sids[0], bundle.prompt_ids is not None
    )
    (folder / CARD).write_text(model_card(prompted, training), encoding="utf-8")


def write_catalogue(bundle: Bundle, path: Path) -> None:
    """Write the catalogue alone."""
    catalogue = bundle.catalogue
    columns = [catalogue.ids, catalogue.titles, [list(sid) for sid in catalogue.sids], bundle.users]
    table = pa.table(
        [pa.array(column, kind.type) for column, kind in zip(columns, SCHEMA, strict=True)],
        schema=SCHEMA,
    )
    pyarrow.parquet.write_table(table, path)


def read_bundle(folder: Path) -> Bundle:
    """Read what `write_bundle` wrote.

    Raises:
        UserError: for missing or invalid files.
    """
    for name in (CATALOGUE, RECOMMENDER_FILE):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} has no {name}, which contains the model's catalogue or prompt format",
                HINT,
            )
    recommender = read_json_model(folder / RECOMMENDER_FILE, _Recommender, HINT)
    catalogue, users = _read_catalogue(folder / CATALOGUE)
    file, backwards = str(folder / RECOMMENDER_FILE), recommender.reversed_template
    template = parse_template(recommender.task, recommender.template, file)
    return Bundle(
        catalogue=catalogue,
        users=users,
        task=recommender.task,
        template=template,
        format=recommender.format,
        cutoff_len=recommender.cutoff_len,
        longest_history=recommender.longest_history,
        frame=recommender.chat.frame() if recommender.chat else PLAIN,
        prompt_ids=recommender.prompt_ids,
        reversed_template=parse_template(REVERSED, backwards, file) if backwards else None,
    )


def read_frame(folder: Path) -> Frame:
    """Read only the frame; raises as `read_bundle`."""
    recommender = read_json_model(folder / RECOMMENDER_FILE, _Recommender, HINT)
    return recommender.chat.frame() if recommender.chat else PLAIN


def _read_catalogue(path: Path) -> tuple[Catalogue, NDArray[np.int64]]:
    table = read_parquet(path, HINT)
    if (
        not table.schema.equals(SCHEMA)
        or not table.num_rows
        or any(column.null_count for column in table.columns)
    ):
        raise UserError(
            f"{path} is not a valid catalogue: expected {', '.join(SCHEMA.names)} for at least one"
            " item",
            HINT,
        )
    ids, titles, sids = (table[name].to_pylist() for name in ("item_id", "title", "sid"))
    users: NDArray[np.int64] = table["users"].to_numpy()
    if (
        not all(sid and None not in sid for sid in sids)
        or len(set(ids)) < len(ids)
        or users.min() < 0
    ):
        message = "an item has no SID, an id occurs twice, or a number of users is negative"
        raise UserError(f"{path} is not a valid catalogue: {message}", HINT)
    catalogue = Catalogue(ids, titles, titles, [tuple(sid) for sid in sids])
    refuse_unnameable(catalogue, path)
    return catalogue, users


def refuse_other_folders(folder: Path) -> None:
    """Refuse a folder without a model, and suggest another one."""
    if folder.is_file():
        raise UserError(
            f"{folder} is a file", "Give the run's folder: output_dir in its configuration."
        )
    if not folder.is_dir():
        raise UserError(
            f"no such folder: {folder}", "Give a run's folder, or one of its checkpoints."
        )
    if (folder / SHARDS).is_dir():
        raise UserError(*sharded(folder))
    if not (folder / "config.json").is_file():
        found = [one for one in checkpoints(folder) if not (one / SHARDS).is_dir()]
        inside = sorted(path.parent for path in folder.glob(f"*/{RECOMMENDER_FILE}"))
        hint = (
            f"Its run is not finished; give a checkpoint: {found[0]}"
            if found
            else "Give a run's folder."
        )
        if inside and not found:
            hint = f"Did you mean {inside[0]}?"
        raise UserError(f"{folder} contains no model", hint)
