"""Write SVG: elements with escaped content, and linear or logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup, escape


def element(tag: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """Return `<tag ...>children</tag>`, all but Markup escaped; `class_` becomes class, `stroke_width` stroke-width."""
    pairs = (
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _number(value))
        for name, value in attributes.items()
        if value is not None
    )
    content = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), Markup("").join(pairs), content)


def picture(width: float, height: float, label: str, *children: Markup, class_: str = "chart") -> Markup:
    """Return a drawing that screen readers announce as one image with this label."""
    return element("svg", *children, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label, class_=class_)


def text(x: float, y: float, content: str, class_: str = "tick", anchor: str = "start") -> Markup:
    """Return a line of text; `anchor` is start, middle or end."""
    return element("text", content, x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def polyline(points: list[tuple[float, float]], class_: str) -> Markup:
    """Return a line through `points`."""
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


def _number(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Scale:
    """Maps values between `low` and `high` to positions between `start` and `end`, logarithmically with `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, scaled = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        share = (scaled - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return about this many round values in the range: multiples of 1, 2 or 5 times a power of ten."""
        return self._log_ticks(about) if self.log else self._linear_ticks(about)

    def _linear_ticks(self, about: int) -> list[float]:
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(span / about))
        step = next(power * times for times in (1, 2, 5, 10, 20) if span / (power * times) <= about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [step * index for index in range(first, last + 1)]

    def _log_ticks(self, about: int) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        ticks: list[float] = []
        for times in ((1,), (1, 3), (1, 2, 5), range(1, 10)):  # the coarsest that gives at least two
            ticks = [t * 10.0**p for p in powers for t in times if self.low <= t * 10.0**p <= self.high]
            if len(ticks) >= 2:
                break
        return ticks[:: max(1, math.ceil(len(ticks) / about))]


def axes(x: Scale, y: Scale, show_x: Callable[[float], str], y_ticks: int = 6) -> list[Markup]:
    """Return grid lines with values on the left, and ticks below, labelled by `show_x`."""
    drawn = []
    for tick in y.ticks(y_ticks):
        drawn += [line(x.start, y(tick), x.end, y(tick), "grid")]
        drawn += [text(x.start - 6, y(tick) + 4, f"{tick:.3g}", anchor="end")]
    for tick in x.ticks():
        drawn += [line(x(tick), y.start, x(tick), y.start + 4, "axis")]
        drawn += [text(x(tick), y.start + 16, show_x(tick), anchor="middle")]
    return [*drawn, line(x.start, y.start, x.end, y.start, "axis")]
