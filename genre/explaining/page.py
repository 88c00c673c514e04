"""A page with the map, the music, and the seconds that decided; it asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from genre import report
from genre.explaining.attribution import Explanation
from genre.explaining.picture import png, time_ticks

_FOLDER = Path(__file__).parent
_STYLES = (Path(report.__file__).parent / "page.css", _FOLDER / "page.css")  # the leaderboard's colours and letters
_STRONGEST = 5  # seconds named in words


def html(explanation: Explanation, name: str, genres: Sequence[tuple[str, float]], music: bytes, model: str) -> str:
    """The page of the file `name`: `genres` are its probabilities, best first, `music` is an MP3 from its start."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    script = (_FOLDER / "page.js").read_text("utf-8")
    seconds, end = explanation.by_second(), explanation.start + explanation.seconds
    strongest = sorted((second for second in seconds if second[1] > 0), key=lambda second: -second[1])[:_STRONGEST]
    return environment.get_template("page.html").render(
        name=name,
        genres=genres,
        model=model,
        explanation=explanation,
        seconds=_bars(seconds),
        strongest=strongest,
        widths=[min(1.0, end - second) for second, _ in seconds],  # the last one may be shorter
        bands=_bars([(f"{low:.0f}-{high:.0f} Hz", value) for low, high, value in explanation.by_band()][::-1]),
        attention=_attention(explanation),
        ticks=[(t, (t - explanation.start) / explanation.seconds) for t in time_ticks(explanation)],
        map=_data("image/png", png(explanation, axes=False)),
        music=_data("audio/mpeg", music),
        style=Markup("\n".join(path.read_text("utf-8") for path in _STYLES)),
        script=Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        clock=lambda second: f"{int(second) // 60}:{int(second) % 60:02d}",
    )


def _bars(values: list[tuple[float, float]] | list[tuple[str, float]]) -> list[tuple[float | str, float]]:
    """Labels and values between -1 and 1, the strongest at an end."""
    most = max((abs(value) for _, value in values), default=0.0) or 1.0
    return [(label, value / most) for label, value in values]


def _attention(explanation: Explanation) -> list[float]:
    """Attention of each second, the strongest 1; empty where the model has none."""
    if explanation.attention is None:
        return []
    each = max(1, round(1 / explanation.frame_seconds))
    weights = explanation.attention
    means = [float(weights[begin : begin + each].mean()) for begin in range(0, len(weights), each)]
    return [mean / max(means) for mean in means]


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
