"""An HTML page with the relevance map and the music, in one file that loads nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from genre.explaining.attribution import Explanation
from genre.explaining.picture import png, time_ticks
from genre.report.rendering import html_page
from genre.wording import clock

_TEMPLATES = Path(__file__).parent / "templates"
_STRONGEST = 5  # number of seconds that the page names first


def html(explanation: Explanation, name: str, genres: Sequence[tuple[str, float]], music: bytes, model: str) -> str:
    """Return the page of the file `name`.

    `genres` are genres with their probabilities, the most probable first; `music` is an MP3 of the explained part.
    """
    seconds, end = explanation.by_second(), explanation.start + explanation.seconds
    strongest = sorted((second for second in seconds if second[1] > 0), key=lambda second: -second[1])[:_STRONGEST]
    content = {
        "name": name,
        "genres": genres,
        "model": model,
        "explanation": explanation,
        "seconds": _scaled(seconds),
        "strongest": strongest,
        "widths": [min(1.0, end - second) for second, _ in seconds],  # the last second may be incomplete
        "bands": _scaled([(f"{low:.0f}-{high:.0f} Hz", value) for low, high, value in explanation.by_band()][::-1]),
        "attention": _attention(explanation),
        "ticks": [(t, (t - explanation.start) / explanation.seconds) for t in time_ticks(explanation)],
        "map": _data_url("image/png", png(explanation, axes=False)),
        "music": _data_url("audio/mpeg", music),
        "clock": clock,
    }
    return html_page("explanation", content, _TEMPLATES)


def _scaled(values: list[tuple[float, float]] | list[tuple[str, float]]) -> list[tuple[float | str, float]]:
    """Return the labels with the values divided by the largest absolute value."""
    largest = max((abs(value) for _, value in values), default=0.0) or 1.0
    return [(label, value / largest) for label, value in values]


def _attention(explanation: Explanation) -> list[float]:
    """Return the mean attention to each second, divided by the largest; [] for a model without attention."""
    if explanation.attention is None:
        return []
    frames, weights = explanation.frames_per_second, explanation.attention
    means = [float(weights[begin : begin + frames].mean()) for begin in range(0, len(weights), frames)]
    return [mean / max(means) for mean in means]


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
