"""Relevance of every point of a spectrogram for a genre.

Integrated gradients (Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", ICML 2017,
arXiv 1703.01365) of the genre's log-probability, from the mean spectrogram of the training split to the music.
The relevances of a window sum up to what the window changes in that log-probability: above zero speaks for the
genre, below against it. That the map follows the weights and not only the music is tested by randomising them
(Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, arXiv 1810.03292).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genre.audio.spectrogram import mel_filters
from genre.errors import ConfigError
from genre.features import Float32
from genre.features.preparation import PreparedTrack
from genre.model.card import ModelCard
from genre.model.classifier import Classifier
from genre.model.spectrogram_decoder import clips_of
from genre.settings import SpectrogramSettings

_TOGETHER = 16  # windows differentiated at a time


@dataclass(frozen=True)
class Explanation:
    """What of a track spoke for `genre`: maps over its frames, from `start` seconds of the file on."""

    genre: str
    start: float
    frame_seconds: float
    levels: Float32  # (bins, frames) dB
    relevance: Float32  # (bins, frames)
    attention: Float32 | None  # (frames,) where the model has it; its mean is 1
    hertz: Float32  # (bins,) centre of each band

    @property
    def seconds(self) -> float:
        return float(self.levels.shape[1] * self.frame_seconds)

    def by_second(self) -> list[tuple[float, float]]:
        """Start in the file and summed relevance of each second."""
        each = max(1, round(1 / self.frame_seconds))
        total = self.relevance.sum(axis=0)
        return [
            (self.start + begin * self.frame_seconds, float(total[begin : begin + each].sum()))
            for begin in range(0, len(total), each)
        ]

    def by_band(self, bands: int = 8) -> list[tuple[float, float, float]]:
        """Lowest and highest Hz and summed relevance of groups of neighbouring mel bands."""
        groups = np.array_split(np.arange(len(self.hertz)), min(bands, len(self.hertz)))
        return [
            (float(self.hertz[group[0]]), float(self.hertz[group[-1]]), float(self.relevance[group].sum()))
            for group in groups
        ]


def explain(
    card: ModelCard, classifier: Classifier, track: PreparedTrack, genre: str, steps: int = 16, max_seconds: float = 120
) -> Explanation:
    """Why a track, decoded with the model's recipe, is of `genre`. Raises `ConfigError` for an unknown genre."""
    if genre not in card.classes:
        raise ConfigError(f"explain.genre={genre}: the model knows {', '.join(card.classes)}")
    clips = clips_of([track], card.shape)
    levels = classifier.levels(torch.from_numpy(clips.spectrograms.copy()), torch.from_numpy(clips.peak_db))
    target = card.classes.index(genre)
    maps = [_over_clip(classifier, clip, card.frames(), target, steps) for clip in levels[: _needed(card, max_seconds)]]
    relevance = np.concatenate([relevance for relevance, _ in maps], axis=1)
    looked = [weights for _, weights in maps if weights is not None]
    # a short track was repeated to fill its clip; only its first round is shown
    end = min(track.seconds - track.clips[0].start_seconds, max_seconds)
    frames = min(relevance.shape[1], max(1, round(end / card.shape.frame_seconds)))
    weights = np.concatenate(looked)[:frames] if looked else None
    return Explanation(
        genre=genre,
        start=track.clips[0].start_seconds,
        frame_seconds=card.shape.frame_seconds,
        levels=np.concatenate(list(levels.numpy()), axis=1)[:, :frames],
        relevance=relevance[:, :frames],
        attention=None if weights is None else weights / max(float(weights.mean()), 1e-12),
        hertz=_centres(card),
    )


def integrated_gradients(classifier: Classifier, levels: Tensor, target: int, steps: int) -> Tensor:
    """Relevance of windows in dB (batch, bins, frames) for class `target`, of the same shape."""
    classifier.eval()
    baseline = classifier.mean.expand_as(levels)
    total = torch.zeros_like(levels)
    for step in range(steps):
        # the middle of each part of the path: the error falls with the square of their number
        point = (baseline + (step + 0.5) / steps * (levels - baseline)).requires_grad_()
        score = classifier(point).log_softmax(dim=1)[:, target].sum()
        total += torch.autograd.grad(score, point)[0]
    return (levels - baseline) * total / steps


def attention(classifier: Classifier, levels: Tensor) -> Tensor | None:
    """What an attending network looks at in windows (batch, bins, frames): (batch, frames), or None without."""
    look = getattr(classifier.network, "attention", None)
    if look is None:
        return None
    with torch.no_grad():
        weights: Tensor = look(classifier.normalise(levels).unsqueeze(1))
    stretched = torch.nn.functional.interpolate(weights.unsqueeze(1), size=levels.shape[2], mode="nearest")
    return stretched.squeeze(1)


def _over_clip(
    classifier: Classifier, clip: Tensor, frames: int, target: int, steps: int
) -> tuple[Float32, Float32 | None]:
    """Relevance (bins, frames of the clip) and attention, from windows side by side; the last one may overlap."""
    length = clip.shape[1]
    starts = list(range(0, length - frames + 1, frames))
    if starts[-1] + frames < length:
        starts.append(length - frames)
    windows = torch.stack([clip[:, start : start + frames] for start in starts])
    parts = torch.split(windows, _TOGETHER)
    relevance = torch.cat([integrated_gradients(classifier, part, target, steps) for part in parts])
    looked = attention(classifier, windows)
    joined = _lay(relevance, starts, length)
    return joined, None if looked is None else _lay(looked, starts, length)


def _lay(windows: Tensor, starts: list[int], length: int) -> Float32:
    """Windows (batch, ..., frames) in their places (..., length); where two overlap their mean."""
    total = torch.zeros(*windows.shape[1:-1], length)
    count = torch.zeros(length)
    for window, start in zip(windows, starts, strict=True):
        total[..., start : start + windows.shape[-1]] += window
        count[start : start + windows.shape[-1]] += 1
    laid: Float32 = (total / count).numpy()
    return laid


def _needed(card: ModelCard, max_seconds: float) -> int:
    """Clips that hold so many seconds."""
    return max(1, int(np.ceil(max_seconds / (card.shape.frames * card.shape.frame_seconds))))


def _centres(card: ModelCard) -> Float32:
    settings = SpectrogramSettings(**card.features["spectrogram"])
    rate = card.features["audio"]["sample_rate"]
    centres: Float32 = (mel_filters(rate, settings).argmax(axis=1) * rate / settings.n_fft).astype(np.float32)
    return centres
