"""The search in pictures: one panel per varied setting, a mark per trial, validation F1 upwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from genre.report import svg
from genre.report.columns import count, score, seconds
from genre.report.facts import Search, Setting, Status, Trial
from genre.report.svg import Scale

WIDTH, HEIGHT = 230, 170
LEFT, RIGHT, TOP, BOTTOM = 34, 12, 10, 40  # margins of a panel, where tick labels and its name stand
LANE = 14  # above the axis: where trials without a score stand, so that failures are seen and not left out
LOG_FROM = 20  # ratio of the largest to the smallest value from which an axis is logarithmic

MARKS: dict[Status, str] = {
    "finished": "ran all epochs",
    "stopped": "stopped early",
    "interrupted": "not ended",
    "failed": "failed",
}


@dataclass(frozen=True)
class Slices:
    """The search within one architecture: panels by setting, and its trials, best first."""

    name: str
    panels: list[tuple[str, Markup]]
    settings: list[str]  # dotted keys that differ between the trials
    trials: list[Trial]
    outcome: str

    @property
    def best(self) -> float | None:
        """The highest validation macro F1."""
        return self.trials[0].valid_f1 if self.trials else None


def slices(search: Search) -> list[Slices]:
    """One for each architecture, the best first, all on the same F1 axis."""
    top = max((trial.valid_f1 for trial in search.trials if trial.valid_f1 is not None), default=1.0)
    y = Scale(0, top * 1.08 or 1.0, HEIGHT - BOTTOM - LANE, TOP)
    found = [_of_architecture(name, search, y) for name in search.architectures]
    return sorted(found, key=lambda item: -1.0 if item.best is None else item.best, reverse=True)


def search_facts(search: Search | None) -> list[tuple[str, str]]:
    """What a search was given and how well it used it: names and values, those that are known."""
    if search is None:
        return []
    facts = [("all architectures", _outcome(search.trials)), ("budget", search.budget)]
    facts.append(("trials at a time", str(search.concurrent or "")))
    if search.makespan_seconds is not None:
        facts.append(("wall time", seconds(search.makespan_seconds)))
    if search.trial_seconds:
        facts.append(("sum of trial times", seconds(search.trial_seconds)))
    if search.utilisation is not None:
        facts.append(("places busy", f"{search.utilisation:.0%}"))
    return [(name, value) for name, value in facts if value]


def short(key: str) -> str:
    """The last part of a dotted key."""
    return key.rsplit(".", 1)[-1]


def shown(value: Setting, digits: int = 3) -> str:
    """A setting in a few characters."""
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _of_architecture(name: str, search: Search, y: Scale) -> Slices:
    trials = [trial for trial in search.trials if trial.architecture == name]
    trials.sort(key=lambda trial: -1.0 if trial.valid_f1 is None else trial.valid_f1, reverse=True)
    keys = list(dict.fromkeys(key for trial in trials for key in trial.settings))
    varied = [key for key in keys if len({shown(trial.settings.get(key)) for trial in trials}) > 1]
    panels = [(key, _panel(name, key, trials, y)) for key in varied]
    return Slices(name, panels, varied, trials, _outcome(trials))


def _outcome(trials: list[Trial]) -> str:
    """Such as "12 trials: 3 ran all epochs, 8 stopped early, 1 failed"."""
    counts = {status: sum(trial.status == status for trial in trials) for status in MARKS}
    said = ", ".join(f"{number} {MARKS[status]}" for status, number in counts.items() if number)
    return f"{len(trials)} trial{'s' * (len(trials) != 1)}: {said}"


def _panel(name: str, key: str, trials: list[Trial], y: Scale) -> Markup:
    values = [trial.settings.get(key) for trial in trials]
    at, ticks = _axis(values)
    axis = HEIGHT - BOTTOM
    drawn: list[Markup] = []
    for tick in y.ticks(4):
        drawn += [svg.line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid")]
        drawn += [svg.text(LEFT - 6, y(tick) + 4, f"{tick:.2g}", anchor="end")]
    drawn.append(svg.line(LEFT, axis, WIDTH - RIGHT, axis, "axis"))
    drawn += [svg.text(place, axis + 15, text, anchor="middle") for place, text in ticks]
    drawn.append(svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, short(key), "axis-title", "middle"))
    for rank, (trial, value) in reversed(list(enumerate(zip(trials, values, strict=True)))):  # the best on top
        height = axis - LANE / 2 if trial.valid_f1 is None else y(trial.valid_f1)
        drawn.append(_mark(trial, at(value), height, f"{short(key)} {shown(value)}", best=rank == 0))
    label = f"{name}: validation macro F1 by {short(key)}. {_best_in_words(trials, key)}"
    return svg.picture(WIDTH, HEIGHT, label, *drawn)


def _best_in_words(trials: list[Trial], key: str) -> str:
    best = trials[0]
    if best.valid_f1 is None:
        return "No trial has a score."
    return f"Best {score(best.valid_f1)} at {shown(best.settings.get(key))}."


def _mark(trial: Trial, x: float, y: float, value: str, best: bool) -> Markup:
    """A dot, or a cross for a failure; what it stands for shows under the pointer."""
    f1 = "no score" if trial.valid_f1 is None else f"F1 {score(trial.valid_f1)}"
    title = svg.element("title", f"{value}: {f1}, {trial.epochs} epochs, {MARKS[trial.status]}")
    if trial.status == "failed":
        d = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
        return svg.element("path", title, d=d, class_="cross")
    kind = "best-trial" if best else trial.status
    return svg.element("circle", title, cx=x, cy=y, r=6.0 if best else 4.0, class_=f"trial {kind}")


def _axis(values: Sequence[Setting]) -> tuple[Callable[[Setting], float], list[tuple[float, str]]]:
    """Where each value stands, and the ticks (position, text): on a scale for numbers, side by side for the rest."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or len(set(numbers)) <= 3:
        return _categories(values)
    low, high = min(numbers), max(numbers)
    scale = Scale(low, high, LEFT + 10, WIDTH - RIGHT - 10, log=low > 0 and high / low >= LOG_FROM)

    def at(value: Setting) -> float:
        return scale(value if isinstance(value, int | float) else 0.0)

    return at, [(scale(tick), _tick(tick)) for tick in scale.ticks(3)]


def _categories(values: Sequence[Setting]) -> tuple[Callable[[Setting], float], list[tuple[float, str]]]:
    names = list(dict.fromkeys(shown(value) for value in sorted(values, key=_numbers_first)))
    step = (WIDTH - RIGHT - LEFT) / len(names)
    places = {name: LEFT + step * (index + 0.5) for index, name in enumerate(names)}
    letters = max(1, int(step / 6.5))  # that have room
    return lambda value: places[shown(value)], [(at, name[:letters]) for name, at in places.items()]


def _numbers_first(value: Setting) -> tuple[bool, float, str]:
    return (False, float(value), "") if isinstance(value, int | float) else (True, 0.0, shown(value))


def _tick(value: float) -> str:
    if 0 < value < 0.001:
        return f"{value:.0e}".replace("e-0", "e-")
    return count(value) if value >= 1000 else f"{value:.2g}"
