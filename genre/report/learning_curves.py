"""Learning curves: a line per seed run, with the same axes for all networks so that they can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from genre.report import svg
from genre.report.board import Entry
from genre.report.svg import Scale

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 36, 10, 10, 22  # margins for tick labels


@dataclass(frozen=True)
class Curves:
    """The two panels of one network; a training without validation has no scores."""

    name: str
    f1: Markup | None
    loss: Markup


def learning_curves(entries: Iterable[Entry]) -> list[Curves]:
    """Return panels with validation macro F1 and with both losses for every entry that has a history."""
    trained = [entry for entry in entries if any(run.history for run in entry.runs)]
    return [
        Curves(
            entry.name,
            _panel(entry, ("valid_f1",), trained) if any(_series(entry, "valid_f1")) else None,
            _panel(entry, ("train_loss", "valid_loss"), trained),
        )
        for entry in trained
    ]


def _panel(entry: Entry, keys: tuple[str, ...], entries: list[Entry]) -> Markup:
    """Return the lines of `keys` over the epochs, on axes that hold all `entries`; dots mark the epochs kept."""
    every_point = [point for other in entries for key in keys for points in _series(other, key) for point in points]
    x = Scale(0, max((epoch for epoch, _ in every_point), default=1), LEFT, WIDTH - RIGHT)
    y = Scale(0, max((value for _, value in every_point), default=1) * 1.05, HEIGHT - BOTTOM, TOP)
    drawn = svg.axes(x, y, lambda epoch: f"{epoch:g}", y_ticks=5)
    for key in keys:
        for run, points in zip(entry.runs, _series(entry, key), strict=True):
            drawn.append(svg.polyline([(x(epoch), y(value)) for epoch, value in points], f"curve {key}"))
            kept = [(epoch, value) for epoch, value in points if epoch == run.best_epoch and key != "train_loss"]
            drawn += [svg.element("circle", cx=x(epoch), cy=y(value), r=3.5, class_="dot") for epoch, value in kept]
    return svg.picture(WIDTH, HEIGHT, _description(entry, keys), *drawn)


def _series(entry: Entry, key: str) -> list[list[tuple[float, float]]]:
    """Return (epoch, value) of each seed run, without epochs whose value is unknown."""
    return [
        [(epoch["epoch"] or 0, value) for epoch in run.history if (value := epoch.get(key)) is not None]
        for run in entry.runs
    ]


def _description(entry: Entry, keys: tuple[str, ...]) -> str:
    """Return what a screen reader says of a panel."""
    ends = []
    for key in keys:
        last = [points[-1] for points in _series(entry, key) if points]
        if last:
            mean = sum(value for _, value in last) / len(last)
            ends.append(f"{key.replace('_', ' ')} ends at {mean:.2f} after {max(e for e, _ in last):g} epochs")
    return f"{entry.name}: {' and '.join(ends) or 'no history'}."
