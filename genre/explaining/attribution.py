"""Relevance of every point of a spectrogram for a genre.

Integrated gradients (Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", ICML 2017,
arXiv 1703.01365) of the genre's log-probability in the network's input, which is 0 for the mean spectrogram of the
training split: from there to the music.
The relevance of a window sums to its log-probability minus that of the mean spectrogram: positive values are evidence
for the genre, negative ones against it. A test with random weights checks that the map depends on the model and
not only on the music (Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, arXiv 1810.03292).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genre.arrays import Float32
from genre.audio.spectrogram import mel_filters
from genre.errors import ConfigError
from genre.features.preparing.tracks import PreparedTrack, clips_of
from genre.model.card import ModelCard
from genre.model.checkpoint import LoadedModel
from genre.model.classifier import Classifier

_BANDS = 8  # groups of mel bands on the page
_BATCH = 16  # windows


@dataclass(frozen=True)
class Explanation:
    """The evidence for `genre` in a track: maps over its frames, which begin `start` seconds into the file."""

    genre: str
    start: float
    frame_seconds: float
    levels: Float32  # (bins, frames) dB
    relevance: Float32  # (bins, frames)
    attention: Float32 | None  # (frames,) with mean 1, None for a model without attention
    hertz: Float32  # (bins,) centre frequency of each band

    @property
    def seconds(self) -> float:
        """Duration of the maps."""
        return float(self.levels.shape[1] * self.frame_seconds)

    @property
    def frames_per_second(self) -> int:
        """Frames that are shown together as one second; at least 1."""
        return max(1, round(1 / self.frame_seconds))

    def by_second(self) -> list[tuple[float, float]]:
        """Return for each second, in whole frames, its start in the file, in seconds, and the sum of its relevance."""
        frames, total = self.frames_per_second, self.relevance.sum(axis=0)
        return [
            (self.start + begin * self.frame_seconds, float(total[begin : begin + frames].sum()))
            for begin in range(0, len(total), frames)
        ]

    def by_band(self) -> list[tuple[float, float, float]]:
        """Return the lowest and highest centre frequency in Hz and the sum of the relevance of groups of mel bands."""
        groups = np.array_split(np.arange(len(self.hertz)), min(_BANDS, len(self.hertz)))
        return [
            (float(self.hertz[group[0]]), float(self.hertz[group[-1]]), float(self.relevance[group].sum()))
            for group in groups
        ]


def explain(
    model: LoadedModel, track: PreparedTrack, genre: str, steps: int = 16, max_seconds: float = 120
) -> Explanation:
    """Return the evidence for `genre` in the first `max_seconds` of a track that was decoded with the model's recipe.

    `steps` is the number of points on the path of integration. Raises `ConfigError` for a genre that the model lacks.
    """
    card, classifier = model
    if genre not in card.classes:
        raise ConfigError(f"explain.genre={genre}: unknown; the model knows {', '.join(card.classes)}")
    clips = clips_of([track], card.shape)
    levels = classifier.levels(torch.from_numpy(clips.spectrograms.copy()), torch.from_numpy(clips.peak_db))
    target = card.classes.index(genre)
    maps = [
        _clip_maps(classifier, clip, card.frames(), target, steps) for clip in levels[: _clips_in(card, max_seconds)]
    ]
    relevance = np.concatenate([relevance for relevance, _ in maps], axis=1)
    attended = [weights for _, weights in maps if weights is not None]
    # a short track is repeated to fill its clip; only the first repetition is shown
    end = min(track.seconds - track.clips[0].start_seconds, max_seconds)
    frames = min(relevance.shape[1], max(1, round(end / card.shape.frame_seconds)))
    weights = np.concatenate(attended)[:frames] if attended else None
    return Explanation(
        genre=genre,
        start=track.clips[0].start_seconds,
        frame_seconds=card.shape.frame_seconds,
        levels=np.concatenate(list(levels.numpy()), axis=1)[:, :frames],
        relevance=relevance[:, :frames],
        attention=None if weights is None else weights / max(float(weights.mean()), 1e-12),
        hertz=_centre_frequencies(card),
    )


def integrated_gradients(classifier: Classifier, levels: Tensor, target: int, steps: int) -> Tensor:
    """Return the relevance (batch, bins, frames) of windows in dB, of the same shape, for class `target`."""
    classifier.eval()
    music = classifier.input(classifier.normalise(levels))
    total = torch.zeros_like(music)
    for step in range(steps):
        # midpoint rule: its error falls with the square of the number of steps
        point = ((step + 0.5) / steps * music).requires_grad_()
        score = classifier.network(point).log_softmax(dim=1)[:, target].sum()
        total += torch.autograd.grad(score, point)[0]
    return (music * total / steps).squeeze(1)


def attention(classifier: Classifier, levels: Tensor) -> Tensor | None:
    """Return the attention (batch, frames) to windows in dB (batch, bins, frames); None for a network without."""
    attend = getattr(classifier.network, "attention", None)
    if attend is None:
        return None
    with torch.no_grad():
        weights: Tensor = attend(classifier.input(classifier.normalise(levels)))
    stretched = torch.nn.functional.interpolate(weights.unsqueeze(1), size=levels.shape[2], mode="nearest")
    return stretched.squeeze(1)


def _clip_maps(
    classifier: Classifier, clip: Tensor, frames: int, target: int, steps: int
) -> tuple[Float32, Float32 | None]:
    """Return relevance (bins, length) and attention (length,) of a clip (bins, length), from windows of `frames`.

    The windows are adjacent; the last one may overlap the one before.
    """
    length = clip.shape[1]
    starts = list(range(0, length - frames + 1, frames))
    if starts[-1] + frames < length:
        starts.append(length - frames)
    windows = torch.stack([clip[:, start : start + frames] for start in starts])
    parts = torch.split(windows, _BATCH)
    relevance = torch.cat([integrated_gradients(classifier, part, target, steps) for part in parts])
    weights = attention(classifier, windows)
    joined = _join(relevance, starts, length)
    return joined, None if weights is None else _join(weights, starts, length)


def _join(windows: Tensor, starts: list[int], length: int) -> Float32:
    """Return windows (batch, ..., frames) at their `starts` as (..., length), averaged where they overlap."""
    total = torch.zeros(*windows.shape[1:-1], length)
    count = torch.zeros(length)
    for window, start in zip(windows, starts, strict=True):
        total[..., start : start + windows.shape[-1]] += window
        count[start : start + windows.shape[-1]] += 1
    joined: Float32 = (total / count).numpy()
    return joined


def _clips_in(card: ModelCard, max_seconds: float) -> int:
    """Return the number of clips that hold `max_seconds`."""
    return max(1, int(np.ceil(max_seconds / (card.shape.frames * card.shape.frame_seconds))))


def _centre_frequencies(card: ModelCard) -> Float32:
    """Return the frequency in Hz of the largest value of each mel filter, (bins,)."""
    recipe = card.recipe()
    rate, settings = recipe.audio.sample_rate, recipe.spectrogram
    centres: Float32 = (mel_filters(rate, settings).argmax(axis=1) * rate / settings.n_fft).astype(np.float32)
    return centres
