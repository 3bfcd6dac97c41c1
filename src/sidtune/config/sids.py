"""`sids`: how semantic IDs are made of a catalogue."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sidtune.config.section import MOST, ExpandedPath, Positive, Section

VectorKind = Literal["text", "co_occurrence", "encoder", "file"]
QuantizerKind = Literal["residual_kmeans", "balanced", "rq_vae", "rq_kmeans_plus", "product"]
CollisionRule = Literal["reassign", "extra_token", "keep"]
Weight = Annotated[float, Field(gt=0, le=1e6)]
CodebookSize = Annotated[int, Field(ge=2, le=65_536)]

MOST_SIDS = 2**62
# Text columns that are read beside the title; case, blanks and signs of a name do not matter.
# Those of Amazon's and MovieLens's files, then what shops call the same.
USUAL_COLUMNS = (
    *("brand", "store", "author", "artist", "main_category", "category", "categories", "genres"),
    *("feature", "features", "description"),
    *("genre", "class", "type", "tags", "keywords", "topics", "subcategory", "category_name"),
    *("brand_name", "product_type", "department", "section", "authors", "artists", "publisher"),
    *("director", "actors", "developer", "manufacturer", "color", "colour", "material"),
    *("subtitle", "summary", "abstract", "overview", "product_description"),
    *("品牌", "类目", "类别", "分类", "类型", "标签", "关键词", "描述", "简介", "摘要"),
    *("商品类目", "商品分类", "商品描述", "店铺", "作者", "出版社", "导演", "演员", "主演", "歌手"),
)

# Keys, and the kinds of vectors that read them.
READ_BY: dict[str, tuple[VectorKind, ...]] = {
    "columns": ("text", "encoder"),
    "text_dimensions": ("text",),
    "co_occurrence_dimensions": ("co_occurrence",),
    "encoder": ("encoder",),
    "file": ("file",),
}


class SidsConfig(Section):
    """How semantic IDs are made of a catalogue."""

    catalogue: ExpandedPath | None = Field(
        default=None,
        description=(
            "Parquet with `item_id`, `title` and text columns, or CSV, TSV or JSON Lines whose"
            " columns have usual names, in place of `data.items`. With `vectors: co_occurrence` and"
            " neither of them, the items are those of the rows"
        ),
    )
    columns: tuple[str, ...] | None = Field(
        default=None,
        description=(
            "text columns read beside the title. null: those present among "
            + ", ".join(USUAL_COLUMNS)
            + "; case, spaces and punctuation in names are ignored"
        ),
    )
    vectors: VectorKind | dict[VectorKind, Weight] = Field(
        default="text",
        description=(
            "`text`, `co_occurrence`, `encoder` or `file`; or several with their"
            " weights, `{text: 1, co_occurrence: 0.5}`"
        ),
    )
    text_dimensions: Positive = Field(default=128, description="dimensions of the text vectors")
    co_occurrence_dimensions: Positive = Field(
        default=64, description="dimensions of the co-occurrence vectors"
    )
    encoder: ExpandedPath | None = Field(
        default=None, description="for `encoder`: folder of a text encoder that Transformers reads"
    )
    file: ExpandedPath | None = Field(
        default=None,
        description=(
            "for `file`: `.npy` with one row per item in the order of the catalogue, or"
            " Parquet with `item_id` and `vector`"
        ),
    )
    quantizer: QuantizerKind = Field(
        default="residual_kmeans",
        description="`residual_kmeans`, `balanced`, `rq_vae`, `rq_kmeans_plus` or `product`",
    )
    levels: tuple[CodebookSize, ...] | None = Field(
        default=None,
        description=(
            "codebook sizes, such as `[256, 256, 256]`. null: three levels of 256 from 1,024"
            " items on; smaller ones for fewer items, and larger ones above four million"
        ),
    )
    collisions: CollisionRule = Field(
        default="reassign",
        description=(
            "`reassign`: every item gets its own SID of the same length; `extra_token`:"
            " items that share a SID get one more token; `keep`: items may share a SID"
        ),
    )
    seed: Annotated[int, Field(ge=0, le=MOST)] = Field(
        default=0, description="seed of the SIDs; the `seed` of training does not change them"
    )

    @model_validator(mode="after")
    def _vectors_are_given(self) -> Self:
        if not self.weights:
            raise ValueError(
                "vectors: none given; write one kind, or kinds with weights: {text: 1,"
                " co_occurrence: 0.5}"
            )
        for name in ("encoder", "file"):
            if name in self.weights and getattr(self, name) is None:
                raise ValueError(f"vectors: {name} needs sids.{name}")
        for name, kinds in READ_BY.items():
            if (
                name in self.model_fields_set
                and getattr(self, name) is not None
                and not set(kinds) & set(self.weights)
            ):
                raise ValueError(
                    f"{name} has no effect with these vectors; it belongs to {' and '.join(kinds)}"
                )
        return self

    @model_validator(mode="after")
    def _levels_are_given(self) -> Self:
        if self.levels is not None and not 1 <= len(self.levels) <= 16:
            raise ValueError(
                "levels: give the codebook sizes of 1 to 16 levels, such as [256, 256, 256]"
            )
        if math.prod(self.levels or ()) > MOST_SIDS:
            raise ValueError("levels: more SIDs than can be counted; give fewer or smaller levels")
        return self

    @property
    def weights(self) -> dict[VectorKind, float]:
        """The kinds of vectors that are concatenated, and the factor of each."""
        return dict(self.vectors) if isinstance(self.vectors, dict) else {self.vectors: 1.0}

    def resolved(self) -> dict[str, Any]:
        """Every key as JSON holds it, less those without effect: what is read back as the same
        section.
        """
        tree = self.model_dump(mode="json")
        idle = [name for name, kinds in READ_BY.items() if not set(kinds) & set(self.weights)]
        return {name: value for name, value in tree.items() if name not in idle}


class SidsData(BaseModel):
    """The keys of `data` that making SIDs reads; training checks the others."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    items: ExpandedPath | None = None
    train: ExpandedPath | None = None
    valid: ExpandedPath | None = None
    test: ExpandedPath | None = None
    interactions: ExpandedPath | None = None
    history: Positive | None = None


class SidsRun(BaseModel):
    """The sections of a configuration that making SIDs reads; the index they lead to need not
    exist.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    output_dir: ExpandedPath
    data: SidsData = SidsData()
    sids: SidsConfig = SidsConfig()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, tree: Any) -> Any:
        """`sids:` with nothing below it means every default."""
        if isinstance(tree, dict):
            return {
                key: {} if value is None and key in ("data", "sids") else value
                for key, value in tree.items()
            }
        return tree
