"""The charts of a report as Vega-Lite specifications, by Altair.

Colours are the page's CSS variables, so that one drawing serves light, dark and print. Rows are
plain values; texts in them are data, never markup.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import altair as alt

Rows = Sequence[dict[str, Any]]

PALETTE = 10
HEIGHT, ROW_HEIGHT = 230, 22
DASHES = alt.StrokeDash(
    "dashed:N", scale=alt.Scale(domain=[False, True], range=[[1, 0], [4, 3]]), legend=None
)
CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--line)",
        "gridColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "labelLimit": 200,
    },
}


class Key(NamedTuple):
    """A name of the legend: its colour, and whether its line is dashed."""

    name: str
    colour: str
    dashed: bool = False


class Drawing(NamedTuple):
    """A chart without its legend, which the page sets as text, so that it can wrap."""

    spec: dict[str, Any]
    legend: list[Key]


def lines(
    rows: Rows,
    order: Sequence[str],
    titles: tuple[str, str],
    *,
    points: bool = False,
    ticks: Sequence[float] = (),
    zero: bool = False,
    form: str = ".4~g",
) -> Drawing:
    """One line for each name.

    Args:
        rows: `x`, `y` and `name`; `low` and `high` where there are intervals, `band` where they are
            drawn, `dashed` where the line is.
        order: the names, as colours go.
        titles: of both axes.
        points: mark each row.
        ticks: on a logarithmic x axis, there alone.
        zero: let the y axis begin at zero.
        form: of values, as d3-format has it.
    """
    x = alt.X(
        "x:Q",
        title=titles[0],
        scale=alt.Scale(type="log") if ticks else alt.Scale(nice=False),
        axis=alt.Axis(values=list(ticks), grid=False)
        if ticks
        else alt.Axis(tickCount=5, grid=False),
    )
    y = alt.Y("y:Q", title=titles[1], scale=alt.Scale(zero=zero), axis=alt.Axis(tickCount=5))
    tips = [
        alt.Tooltip("name:N", title=" "),
        alt.Tooltip("x:Q", title=titles[0], format=",.6~g"),
        alt.Tooltip("y:Q", title=titles[1], format=form),
    ]
    if any("low" in row for row in rows):
        tips += [
            alt.Tooltip(f"{end}:Q", title=f"95%, {end}", format=form) for end in ("low", "high")
        ]
    base = alt.Chart(_data(rows)).encode(x=x, color=_colours("name", order))
    drawn = base.mark_line(
        strokeWidth=1.8, point=alt.OverlayMarkDef(size=28) if points else False
    ).encode(y=y, tooltip=tips)
    if any(row.get("dashed") for row in rows):
        drawn = drawn.encode(strokeDash=DASHES)
    if any(row.get("band") for row in rows):
        band = base.mark_area(opacity=0.13).transform_filter("datum.band")
        drawn = band.encode(y=alt.Y("low:Q", title=titles[1]), y2="high:Q") + drawn
    dashed = {row["name"] for row in rows if row.get("dashed")}
    return _drawing(drawn, HEIGHT, order, dashed=dashed)


def intervals(
    rows: Rows,
    groups: Sequence[str],
    names: Sequence[str],
    title: str,
    *,
    palette: Sequence[str] = (),
    zero_rule: bool = False,
    form: str = ".4f",
) -> Drawing:
    """Values with their intervals, a line of the chart for each group and name.

    Args:
        rows: `group`, `name`, `value`, `low`, `high`.
        groups: from top to bottom.
        names: within a group.
        title: of the value.
        palette: the names that share the colours, if more than these have some elsewhere.
        zero_rule: draw where the value is zero.
    """
    tips = [
        alt.Tooltip("group:N", title=" "),
        alt.Tooltip("name:N", title="  "),
        alt.Tooltip("value:Q", title=title, format=form),
        alt.Tooltip("low:Q", title="95%, low", format=form),
        alt.Tooltip("high:Q", title="95%, high", format=form),
    ]
    # A point at zero is half a point wide on the left of the axis.
    beside = alt.Axis(ticks=False, domain=False, labelPadding=8)
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("group:N", sort=list(groups), title=None, axis=beside),
        color=_colours("name", names, palette),
        tooltip=tips,
    )
    if len(names) > 1:
        base = base.encode(yOffset=alt.YOffset("name:N", sort=list(names)))
    rule = base.mark_rule(strokeWidth=2, opacity=0.55).encode(
        x=alt.X("low:Q", title=title, axis=alt.Axis(tickCount=5)), x2="high:Q"
    )
    drawn = rule + base.mark_point(filled=True, size=55, opacity=1).encode(x="value:Q")
    if zero_rule:
        zero = alt.Chart(_data([{"zero": 0}])).mark_rule(color="var(--muted)").encode(x="zero:Q")
        drawn = zero + drawn
    step = max(ROW_HEIGHT, 13 * len(names) + 8)
    return _drawing(drawn, step * len(groups), names, palette)


def steps(rows: Rows, order: Sequence[str], titles: tuple[str, str]) -> Drawing:
    """Distributions as outlines.

    Args:
        rows: `x` where a bin begins, `share` of what lies in it, and `name`.
    """
    drawn = (
        alt.Chart(_data(rows))
        .mark_line(interpolate="step-after", strokeWidth=1.8)
        .encode(
            x=alt.X(
                "x:Q",
                title=titles[0],
                axis=alt.Axis(tickCount=6, grid=False),
                scale=alt.Scale(nice=False),
            ),
            y=alt.Y("share:Q", title=titles[1], axis=alt.Axis(tickCount=4, format="%")),
            color=_colours("name", order),
            tooltip=[
                alt.Tooltip("name:N", title=" "),
                alt.Tooltip("x:Q", title=f"{titles[0]} from"),
                alt.Tooltip("share:Q", title=titles[1], format=".1%"),
            ],
        )
    )
    return _drawing(drawn, HEIGHT, order)


def ladder(
    rows: Rows, stages: Sequence[str], order: Sequence[str], titles: tuple[str, str]
) -> Drawing:
    """How a share falls from stage to stage, a line for each name.

    Args:
        rows: `stage`, `name`, `value`.
    """
    drawn = (
        alt.Chart(_data(rows))
        .mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=40))
        .encode(
            x=alt.X(
                "stage:N",
                sort=list(stages),
                title=titles[0],
                axis=alt.Axis(labelAngle=0, grid=False),
            ),
            y=alt.Y(
                "value:Q",
                title=titles[1],
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%", tickCount=5),
            ),
            color=_colours("name", order),
            tooltip=[
                alt.Tooltip("name:N", title=" "),
                alt.Tooltip("stage:N", title=titles[0]),
                alt.Tooltip("value:Q", title=titles[1], format=".1%"),
            ],
        )
    )
    return _drawing(drawn, HEIGHT, order)


def _data(rows: Rows) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def _colours(column: str, order: Sequence[str], palette: Sequence[str] = ()) -> alt.Color:
    scale = alt.Scale(domain=list(order), range=_shades(order, palette))
    return alt.Color(f"{column}:N", scale=scale, legend=None)


def _shades(order: Sequence[str], palette: Sequence[str]) -> list[str]:
    places = [list(palette or order).index(name) for name in order]
    return [f"var(--s{place % PALETTE + 1})" for place in places]


def _drawing(
    chart: alt.Chart | alt.LayerChart,
    height: int,
    order: Sequence[str],
    palette: Sequence[str] = (),
    dashed: Collection[str] = (),
) -> Drawing:
    sized = chart.properties(width="container", height=height)
    keys = [
        Key(name, colour, name in dashed)
        for name, colour in zip(order, _shades(order, palette), strict=True)
    ]
    # One name needs no legend: the title says what it is.
    return Drawing({**sized.to_dict(), "config": CONFIG}, keys if len(keys) > 1 else [])
