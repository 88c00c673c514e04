"""Draw the relevance map over the grey spectrogram: orange is evidence for the genre, blue against it."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import uniform_filter

from genre.arrays import Bytes, Float32
from genre.explaining.attribution import Explanation
from genre.wording import clock

_FOR, _AGAINST = np.array([255, 150, 30]), np.array([60, 140, 255])
_SMOOTH = (5, 9)  # bins and frames to average over: gradients vary more from point to point than the sound
_FULL = 99.0  # percentile of the absolute relevance from which the colour is full
_HEIGHT, _WIDEST = 320, 4000  # pixels
_LEFT, _BELOW, _ABOVE = 64, 34, 30  # margins in pixels
_TICKS = (50, 100, 200, 500, 1000, 2000, 5000, 10000)  # Hz


def png(explanation: Explanation, title: str = "", axes: bool = True) -> bytes:
    """Return a PNG of the map, with axes and `title` if `axes`."""
    image = _map(explanation)
    if axes:
        image = _framed(image, explanation, title)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def colours(levels: Float32, relevance: Float32) -> Bytes:
    """Return RGB colours (bins, frames, 3) for `levels` in dB and their `relevance`, both (bins, frames)."""
    grey = (levels - levels.min()) / max(float(np.ptp(levels)), 1e-9)
    smooth = uniform_filter(relevance, _SMOOTH)
    strength = np.clip(np.abs(smooth) / max(float(np.percentile(np.abs(smooth), _FULL)), 1e-12), 0, 1)[..., None]
    base = np.repeat(20 + 190 * grey[..., None], 3, axis=2)
    tint = np.where((smooth > 0)[..., None], _FOR, _AGAINST)
    mixed: Bytes = (base * (1 - 0.8 * strength) + tint * 0.8 * strength).astype(np.uint8)
    return mixed


def _map(explanation: Explanation) -> Image.Image:
    pixels = colours(explanation.levels, explanation.relevance)[::-1]
    width = min(_WIDEST, max(600, round(explanation.seconds * 32)))
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((width, _HEIGHT), Image.Resampling.BILINEAR)


def _framed(image: Image.Image, explanation: Explanation, title: str) -> Image.Image:
    """Add the title above, frequencies on the left, and the time in the file below the map."""
    width, height = image.size
    sheet = Image.new("RGB", (width + _LEFT + 12, height + _ABOVE + _BELOW), "white")
    sheet.paste(image, (_LEFT, _ABOVE))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    draw.text((_LEFT, 8), title.encode("latin-1", "replace").decode("latin-1"), "black", font)
    last = float(_ABOVE + height)
    for hertz in _TICKS:
        bin_ = int(np.searchsorted(explanation.hertz, hertz))
        y = _ABOVE + height * (1 - bin_ / len(explanation.hertz))
        if bin_ < len(explanation.hertz) and last - y > 14:  # labels do not overlap
            last = y
            draw.line((_LEFT - 5, y, _LEFT, y), "black")
            draw.text((_LEFT - 8, y), f"{hertz} Hz", "black", font, anchor="rm")
    for second in time_ticks(explanation):
        x = _LEFT + width * (second - explanation.start) / explanation.seconds
        draw.line((x, _ABOVE + height, x, _ABOVE + height + 5), "black")
        draw.text((x, _ABOVE + height + 8), clock(second), "black", font, anchor="mt")
    return sheet


def time_ticks(explanation: Explanation) -> list[int]:
    """Return the times to label, in whole seconds: about 12 at most, at multiples of a round step."""
    step = next(step for step in (1, 2, 5, 10, 15, 30, 60, 300, 3600) if explanation.seconds / step <= 12)
    first = int(np.ceil(explanation.start / step)) * step
    return list(range(first, int(explanation.start + explanation.seconds) + 1, step))
