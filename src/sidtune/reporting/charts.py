"""The charts of a report as Vega-Lite specifications, by Altair.

Colours are the page's CSS variables, so that one drawing serves light, dark and print. Rows are
plain values; texts in them are data, never markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

Rows = Sequence[dict[str, Any]]
Spec = dict[str, Any]

PALETTE = 8
HEIGHT, ROW_HEIGHT = 230, 22
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
    "legend": {
        "orient": "top",
        "labelColor": "var(--ink)",
        "labelFontSize": 11,
        "labelLimit": 0,
        "title": None,
        "columns": 3,
        "symbolType": "circle",
    },
}


def lines(
    rows: Rows,
    order: Sequence[str],
    titles: tuple[str, str],
    *,
    points: bool = False,
    ticks: Sequence[float] = (),
    zero: bool = False,
    form: str = ".4~g",
) -> Spec:
    """One line for each name.

    Args:
        rows: `x`, `y` and `name`, and `low` and `high` where there are intervals.
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
    banded = any("low" in row for row in rows)
    tips = [
        alt.Tooltip("name:N", title=" "),
        alt.Tooltip("x:Q", title=titles[0], format=",.6~g"),
        alt.Tooltip("y:Q", title=titles[1], format=form),
    ]
    if banded:
        tips += [
            alt.Tooltip(f"{end}:Q", title=f"95%, {end}", format=form) for end in ("low", "high")
        ]
    base = alt.Chart(_data(rows)).encode(x=x, color=_colours("name", order))
    drawn = base.mark_line(
        strokeWidth=1.8, point=alt.OverlayMarkDef(size=28) if points else False
    ).encode(y=y, tooltip=tips)
    if banded:
        drawn = (
            base.mark_area(opacity=0.13).encode(y=alt.Y("low:Q", title=titles[1]), y2="high:Q")
            + drawn
        )
    return _spec(drawn, HEIGHT)


def intervals(
    rows: Rows,
    groups: Sequence[str],
    names: Sequence[str],
    title: str,
    *,
    zero_rule: bool = False,
    form: str = ".4f",
) -> Spec:
    """Values with their intervals, a line of the chart for each group and name.

    Args:
        rows: `group`, `name`, `value`, `low`, `high`.
        groups: from top to bottom.
        names: within a group, as colours go.
        title: of the value.
        zero_rule: draw where the value is zero.
    """
    tips = [
        alt.Tooltip("group:N", title=" "),
        alt.Tooltip("name:N", title="  "),
        alt.Tooltip("value:Q", title=title, format=form),
        alt.Tooltip("low:Q", title="95%, low", format=form),
        alt.Tooltip("high:Q", title="95%, high", format=form),
    ]
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("group:N", sort=list(groups), title=None, axis=alt.Axis(ticks=False, domain=False)),
        color=_colours("name", names, legend=len(names) > 1),
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
    return _spec(drawn, step * len(groups))


def steps(rows: Rows, order: Sequence[str], titles: tuple[str, str]) -> Spec:
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
    return _spec(drawn, HEIGHT)


def ladder(
    rows: Rows, stages: Sequence[str], order: Sequence[str], titles: tuple[str, str]
) -> Spec:
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
    return _spec(drawn, HEIGHT)


def _data(rows: Rows) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def _colours(column: str, order: Sequence[str], legend: bool = True) -> alt.Color:
    shades = [f"var(--s{number % PALETTE + 1})" for number in range(len(order))]
    scale = alt.Scale(domain=list(order), range=shades)
    if legend and len(order) > 1:
        return alt.Color(f"{column}:N", scale=scale)
    return alt.Color(f"{column}:N", scale=scale, legend=None)


def _spec(chart: alt.Chart | alt.LayerChart, height: int) -> Spec:
    sized = chart.properties(width="container", height=height)
    return {**sized.to_dict(), "config": CONFIG}
