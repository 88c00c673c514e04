"""Names beside the points of a plot, placed where they hide neither a point nor one another."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from genre.report import svg

LETTER = 7.4  # width of a bold 11 px letter in the widest of the fonts that the page asks for
ASCENT, DESCENT = 10, 3
DOT = 7  # half the side of the box around a point
LEADER = 15  # a name farther than this from its point is tied to it by a line

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle with y pointing down."""

    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: Box) -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def outside(self, frame: Box) -> float:
        """Area that lies outside of `frame`."""
        return (self.right - self.left) * (self.bottom - self.top) - self.shared(frame)


def place(names: list[tuple[Point, str]], frame: Box) -> list[Box]:
    """A box for each name, in the given order: of many places around its point the one that hides least.

    What lies outside `frame`, on a point or on a name placed before counts by its area; distance decides among
    places that are equally free. The names with the most neighbours are placed first, while there is room.
    """
    dots = [Box(x - DOT, y - DOT, x + DOT, y + DOT) for (x, y), _ in names]
    crowd = [sum(abs(x - u) + abs(y - v) < 80 for (u, v), _ in names) for (x, y), _ in names]
    placed: dict[int, Box] = {}
    for index in sorted(range(len(names)), key=lambda i: (-crowd[i], -len(names[i][1]))):
        (x, y), name = names[index]

        def cost(box: Box, x: float = x, y: float = y) -> float:
            hidden = sum(box.shared(other) for other in (*dots, *placed.values()))
            return 10 * (hidden + box.outside(frame)) + _distance(box, (x, y))

        placed[index] = min(_places((x, y), name), key=cost)
    return [placed[index] for index in range(len(names))]


def draw(names: list[tuple[Point, str]], frame: Box) -> list[Markup]:
    """The names at their places, with a line to the point where they stand far from it."""
    drawn: list[Markup] = []
    for ((x, y), name), box in zip(names, place(names, frame), strict=True):
        if _distance(box, (x, y)) > LEADER:
            drawn.append(svg.line(x, y, *_nearest(box, (x, y)), "leader"))
        drawn.append(svg.text(box.left, box.bottom - DESCENT, name, "name"))
    return drawn


def _places(point: Point, name: str) -> list[Box]:
    """Right, left, above and below, then farther out in all directions."""
    (x, y), width, height = point, LETTER * len(name), ASCENT + DESCENT
    lefts = (x + DOT + 2, x - DOT - 2 - width, x - width / 2, x - width * 0.2, x - width * 0.8)
    tops = [y - height / 2 + step for distance in (0, 8, 14, 20, 28, 38, 50, 64) for step in {distance, -distance}]
    return [Box(left, top, left + width, top + height) for top in tops for left in lefts]


def _nearest(box: Box, point: Point) -> Point:
    x, y = point
    return min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)


def _distance(box: Box, point: Point) -> float:
    x, y = _nearest(box, point)
    return float(((x - point[0]) ** 2 + (y - point[1]) ** 2) ** 0.5)
