"""Charts of the rows: macro F1 with its interval, and macro F1 over cost.

The charts carry classes and no colours: the style sheet gives them light and dark themes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from markupsafe import Markup

from genre.report import svg
from genre.report.formats import count, score
from genre.report.svg import Scale
from genre.report.table import Estimate, Row

MARK_WIDTH, MARK_HEIGHT = 100, 26
PLOT_WIDTH, PLOT_HEIGHT = 400, 270
LEFT, RIGHT, TOP, BOTTOM = 44, 124, 14, 40  # margins for tick labels, and on the right for the names
LETTERS = 16  # of a name that fit into the right margin
LINE = 14  # distance between two names


def interval_mark(estimate: Estimate, ceiling: float, best: float) -> Markup:
    """Return a dot at the mean with its 95 % interval, on an axis from 0 to `ceiling`; a thin line marks `best`."""
    x = Scale(0, ceiling, 4, MARK_WIDTH - 4)
    middle = MARK_HEIGHT / 2
    label = f"macro F1 {score(estimate.mean)}, interval {score(estimate.low)} to {score(estimate.high)}"
    return svg.picture(
        MARK_WIDTH,
        MARK_HEIGHT,
        label,
        svg.line(x(0), middle, x(ceiling), middle, "rail"),
        svg.line(x(best), 2, x(best), MARK_HEIGHT - 2, "best"),
        svg.line(x(estimate.low), middle, x(estimate.high), middle, "span"),
        svg.element("circle", cx=x(estimate.mean), cy=middle, r=4.5, class_="dot"),
        class_="mark",
    )


@dataclass(frozen=True)
class CostAxis:
    """A horizontal axis of the plots of macro F1 over cost; less is better."""

    title: str
    of: Callable[[Row], float | None]
    tick: Callable[[float], str]


def _seconds_tick(value: float) -> str:
    return f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"


def _seconds_per_clip(row: Row) -> float | None:
    return 1 / row.entry.clips_per_second if row.entry.clips_per_second else None


COSTS = (
    CostAxis("Parameters", lambda row: row.entry.parameters, count),
    CostAxis("Training time", lambda row: row.train_seconds, _seconds_tick),
    CostAxis("Time to classify a clip", _seconds_per_clip, _seconds_tick),
)


def cost_plot(rows: Iterable[Row], cost: CostAxis) -> Markup | None:
    """Return macro F1 over `cost` with intervals and the Pareto front.

    It is None when fewer than two networks have a cost: without a choice between networks the table says it all.
    """
    points = [(value, row) for row in rows if (value := cost.of(row)) and row.entry.kind != "majority"]
    if sum(row.entry.kind == "network" for _, row in points) < 2:
        return None
    values = [value for value, _ in points]
    x = Scale(min(values) / 1.6, max(values) * 1.6, LEFT, PLOT_WIDTH - RIGHT, log=True)
    low, high = min(row.f1.low for _, row in points), max(row.f1.high for _, row in points)
    y = Scale(max(0.0, low - 0.02), min(1.0, high + 0.02), PLOT_HEIGHT - BOTTOM, TOP)
    front = pareto(points)
    names = ", ".join(row.entry.name for _, row in front)
    label = f"Macro F1 against {cost.title.lower()}. On the Pareto front: {names}."
    return svg.picture(
        PLOT_WIDTH,
        PLOT_HEIGHT,
        label,
        *svg.axes(x, y, cost.tick),
        svg.text(
            (LEFT + PLOT_WIDTH - RIGHT) / 2, PLOT_HEIGHT - 4, f"{cost.title}, less is better", "axis-title", "middle"
        ),
        _front_line(front, x, y),
        *_names(points, x, y),
        *(_point(x(value), y, row, any(row is other for _, other in front)) for value, row in points),
    )


def pareto(points: Iterable[tuple[float, Row]]) -> list[tuple[float, Row]]:
    """Return the points for which no other has both a lower cost and a higher macro F1, cheapest first."""
    front: list[tuple[float, Row]] = []
    for value, row in sorted(points, key=lambda point: (point[0], -point[1].f1.mean)):
        if not front or row.f1.mean > front[-1][1].f1.mean:
            front.append((value, row))
    return front


def _front_line(front: list[tuple[float, Row]], x: Scale, y: Scale) -> Markup:
    """Return the Pareto front as steps: at each cost, the best macro F1 that can be had for it."""
    corners: list[tuple[float, float]] = []
    for value, row in front:
        if corners:
            corners.append((x(value), corners[-1][1]))
        corners.append((x(value), y(row.f1.mean)))
    return svg.polyline([*corners, (x.end, corners[-1][1])], "pareto")


def _names(points: list[tuple[float, Row]], x: Scale, y: Scale) -> Iterator[Markup]:
    """Yield the names in the right margin, ordered by macro F1, with a line from each point to its name."""
    ordered = sorted(points, key=lambda point: -point[1].f1.mean)
    step = min(LINE, (y.start - TOP) / len(ordered))
    name_y = float(TOP) - step
    for number, (value, row) in enumerate(ordered):
        lowest = y.start - step * (len(ordered) - 1 - number)  # leaves room for the names below
        name_y = min(max(y(row.f1.mean), name_y + step), lowest)
        yield svg.line(x(value), y(row.f1.mean), x.end + 4, name_y, "leader")
        name = row.entry.name
        yield svg.text(x.end + 7, name_y + 4, name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…", "name")


def _point(at: float, y: Scale, row: Row, on_front: bool) -> Markup:
    kind = "reference" if row.entry.is_reference else "front" if on_front else "behind"
    return svg.element(
        "g",
        svg.line(at, y(row.f1.low), at, y(row.f1.high), "whisker"),
        svg.element("circle", cx=at, cy=y(row.f1.mean), r=5.0, class_=f"dot {kind}"),
    )
