"""A page with the relevance map and the music, which loads nothing from the network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from genre.explaining.attribution import Explanation
from genre.explaining.picture import png, time_ticks
from genre.report.rendering import html_page

_TEMPLATES = Path(__file__).parent / "templates"
_STRONGEST = 5  # seconds named at the top


def html(explanation: Explanation, name: str, genres: Sequence[tuple[str, float]], music: bytes, model: str) -> str:
    """Return the page of the file `name`; `genres` are its probabilities, best first, `music` an MP3 of its start."""
    seconds, end = explanation.by_second(), explanation.start + explanation.seconds
    strongest = sorted((second for second in seconds if second[1] > 0), key=lambda second: -second[1])[:_STRONGEST]
    content = {
        "name": name,
        "genres": genres,
        "model": model,
        "explanation": explanation,
        "seconds": _scaled(seconds),
        "strongest": strongest,
        "widths": [min(1.0, end - second) for second, _ in seconds],  # the last one may be shorter
        "bands": _scaled([(f"{low:.0f}-{high:.0f} Hz", value) for low, high, value in explanation.by_band()][::-1]),
        "attention": _attention(explanation),
        "ticks": [(t, (t - explanation.start) / explanation.seconds) for t in time_ticks(explanation)],
        "map": _data_url("image/png", png(explanation, axes=False)),
        "music": _data_url("audio/mpeg", music),
        "clock": lambda second: f"{int(second) // 60}:{int(second) % 60:02d}",
    }
    return html_page("explanation", content, _TEMPLATES)


def _scaled(values: list[tuple[float, float]] | list[tuple[str, float]]) -> list[tuple[float | str, float]]:
    """Return labels with values divided by the largest absolute value."""
    most = max((abs(value) for _, value in values), default=0.0) or 1.0
    return [(label, value / most) for label, value in values]


def _attention(explanation: Explanation) -> list[float]:
    """Return the attention to each second, the largest being 1; [] for a model without attention."""
    if explanation.attention is None:
        return []
    frames = max(1, round(1 / explanation.frame_seconds))  # of a second
    weights = explanation.attention
    means = [float(weights[begin : begin + frames].mean()) for begin in range(0, len(weights), frames)]
    return [mean / max(means) for mean in means]


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
