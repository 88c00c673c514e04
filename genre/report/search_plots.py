"""The search in pictures: a panel per varied setting, with validation macro F1 of each trial over its value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from genre.report import svg
from genre.report.facts import Setting
from genre.report.formats import count, score
from genre.report.search import STATUS_TEXT, Search, Trial, expected_best, status_counts
from genre.report.svg import Scale

WIDTH, HEIGHT = 230, 170
LEFT, RIGHT, TOP, BOTTOM = 34, 12, 10, 40  # margins for tick labels and the setting's name
LANE = 14  # height of the strip above the axis that holds trials without a score
LOG_FROM = 20  # ratio of the largest to the smallest value from which an axis is logarithmic
LETTER = 6.5  # width of a letter of a tick label


@dataclass(frozen=True)
class ArchitectureSearch:
    """The search of one architecture: panels by setting, and its trials, best first."""

    name: str
    panels: list[tuple[str, Markup]]
    settings: list[str]  # dotted keys that differ between the trials
    trials: list[Trial]

    @property
    def best(self) -> float | None:
        """The highest validation macro F1."""
        return self.trials[0].valid_f1 if self.trials else None

    @property
    def status_counts(self) -> str:
        """Such as "12 trials: 3 finished, 9 stopped"."""
        return status_counts(self.trials)

    def expected_best(self, tried: int) -> float | None:
        """The best validation macro F1 that a search of `tried` trials finds on average."""
        return expected_best(self.trials, tried)


def budgets(search: Search) -> list[int]:
    """Return numbers of trials to compare, doubling from 1 up to the most that an architecture has with a score."""
    scored = [trial.architecture for trial in search.trials if trial.valid_f1 is not None]
    most = max((scored.count(name) for name in search.architectures), default=0)
    return sorted({2**power for power in range(most.bit_length()) if 2**power < most} | {most} - {0})


def by_architecture(search: Search) -> list[ArchitectureSearch]:
    """Return the search of each architecture, best first, all with the same F1 axis."""
    top = max((trial.valid_f1 for trial in search.trials if trial.valid_f1 is not None), default=1.0)
    y = Scale(0, top * 1.08 or 1.0, HEIGHT - BOTTOM - LANE, TOP)
    searches = [_of_architecture(name, search, y) for name in search.architectures]
    return sorted(searches, key=lambda item: _or_last(item.best), reverse=True)


def last_part(key: str) -> str:
    """Return the last part of a dotted key."""
    return key.rsplit(".", 1)[-1]


def setting_text(value: Setting, digits: int = 3) -> str:
    """Return a setting's value, floats with `digits` significant digits."""
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _or_last(f1: float | None) -> float:
    """Return a sort key by which trials without a score are the worst."""
    return -1.0 if f1 is None else f1


def _of_architecture(name: str, search: Search, y: Scale) -> ArchitectureSearch:
    trials = [trial for trial in search.trials if trial.architecture == name]
    trials.sort(key=lambda trial: _or_last(trial.valid_f1), reverse=True)
    keys = list(dict.fromkeys(key for trial in trials for key in trial.settings))
    varied = [key for key in keys if len({setting_text(trial.settings.get(key)) for trial in trials}) > 1]
    return ArchitectureSearch(name, [(key, _panel(name, key, trials, y)) for key in varied], varied, trials)


def _panel(name: str, key: str, trials: list[Trial], y: Scale) -> Markup:
    values, setting = [trial.settings.get(key) for trial in trials], last_part(key)
    x_of, ticks = _x_axis(values)
    axis = HEIGHT - BOTTOM
    drawn: list[Markup] = []
    for tick in y.ticks(4):
        drawn += [svg.line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid")]
        drawn += [svg.text(LEFT - 6, y(tick) + 4, f"{tick:.2g}", anchor="end")]
    drawn.append(svg.line(LEFT, axis, WIDTH - RIGHT, axis, "axis"))
    drawn += [svg.text(x, axis + 15, text, anchor="middle") for x, text in ticks]
    drawn.append(svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, setting, "axis-title", "middle"))
    for rank, (trial, value) in reversed(list(enumerate(zip(trials, values, strict=True)))):  # the best on top
        height = axis - LANE / 2 if trial.valid_f1 is None else y(trial.valid_f1)
        drawn.append(_mark(trial, x_of(value), height, f"{setting} {setting_text(value)}", best=rank == 0))
    f1 = trials[0].valid_f1
    best = "No trial has a score." if f1 is None else f"Best {score(f1)} at {setting_text(values[0])}."
    return svg.picture(WIDTH, HEIGHT, f"{name}: validation macro F1 by {setting}. {best}", *drawn)


def _mark(trial: Trial, x: float, y: float, value: str, best: bool) -> Markup:
    """Return a dot, or a cross for a failed trial, with a tooltip."""
    f1 = "no score" if trial.valid_f1 is None else f"F1 {score(trial.valid_f1)}"
    title = svg.element("title", f"{value}: {f1}, {trial.epochs} epochs, {STATUS_TEXT[trial.status]}")
    if trial.status == "failed":
        d = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
        return svg.element("path", title, d=d, class_="cross")
    kind = "best-trial" if best else trial.status
    return svg.element("circle", title, cx=x, cy=y, r=6.0 if best else 4.0, class_=f"trial {kind}")


def _x_axis(values: Sequence[Setting]) -> tuple[Callable[[Setting], float], list[tuple[float, str]]]:
    """Return the position of a value, and ticks (position, text); a scale for many numbers, otherwise categories."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or len(set(numbers)) <= 3:
        return _categories(values)
    low, high = min(numbers), max(numbers)
    scale = Scale(low, high, LEFT + 10, WIDTH - RIGHT - 10, log=low > 0 and high / low >= LOG_FROM)

    def x_of(value: Setting) -> float:
        return scale(value if isinstance(value, int | float) else 0.0)

    return x_of, [(scale(tick), _tick_text(tick)) for tick in scale.ticks(3)]


def _categories(values: Sequence[Setting]) -> tuple[Callable[[Setting], float], list[tuple[float, str]]]:
    names = list(dict.fromkeys(setting_text(value) for value in sorted(values, key=_numbers_first)))
    step = (WIDTH - RIGHT - LEFT) / len(names)
    positions = {name: LEFT + step * (index + 0.5) for index, name in enumerate(names)}
    letters = max(1, int(step / LETTER))
    return lambda value: positions[setting_text(value)], [(x, name[:letters]) for name, x in positions.items()]


def _numbers_first(value: Setting) -> tuple[bool, float, str]:
    return (False, float(value), "") if isinstance(value, int | float) else (True, 0.0, setting_text(value))


def _tick_text(value: float) -> str:
    if 0 < value < 0.001:
        return f"{value:.0e}".replace("e-0", "e-")
    return count(value) if value >= 1000 else f"{value:.2g}"
