"""Requests and answers as JSON: what is taken, and what OpenAPI says of it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from sidtune.files.ids import id_list, is_text

ID = {"anyOf": [{"type": "string"}, {"type": "integer"}]}


def _ids(value: Any) -> list[str]:
    """Ids as text; 17 and 17.0 are the id 17."""
    found = id_list(value)
    if found is None:
        raise ValueError("expected a list of item ids, each text or a whole number")
    if not all(map(is_text, found)):
        raise ValueError("an id holds half of a surrogate pair, which is no text")
    return found


ItemIds = Annotated[
    list[str], BeforeValidator(_ids), WithJsonSchema({"type": "array", "items": ID})
]


class RecommendBody(BaseModel):
    """A request for recommendations."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"example": {"history": ["12", "7"], "k": 5}}
    )

    history: ItemIds = Field(description="Item ids, oldest first; at least one.")
    k: int = Field(10, ge=1, description="Items wanted; at most the server's number of beams.")
    exclude_history: bool = Field(False, description="Never return an item of the history.")
    candidates: ItemIds | None = Field(None, description="Return only these items.")
    skip_unknown: bool = Field(
        False,
        description=(
            "Pass over items of the history that the model's catalogue does not have, and list them"
            " under `unknown`; by default they are an error."
        ),
    )


class Item(BaseModel):
    """A recommended item."""

    item_id: str
    title: str
    sid: str = Field(description="The item's semantic ID.")
    score: float = Field(
        description=(
            "The ranker's score, which compares within a list only; without a ranker the"
            " log-probability of the SID."
        )
    )
    sources: list[str] = Field(
        default=[], description="The ranker's sources that named the item; absent without a ranker."
    )


class RecommendAnswer(BaseModel):
    """The answer: the best items, best first."""

    items: list[Item]
    unknown: list[str] = Field(default=[], description="Items of the history passed over.")
    unknown_candidates: list[str] = Field(
        default=[], description="Candidates that the model's catalogue does not have."
    )
    generation: int = Field(description="Which model answered; counts up with each reload.")


class Fault(BaseModel):
    """What is wrong with a request, and what to do."""

    error: str
    hint: str = ""
