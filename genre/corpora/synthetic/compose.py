"""Compose a track of the synthetic corpus from a genre, an artist and a seed."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genre.arrays import Float32
from genre.corpora.synthetic.instruments import SAMPLE_RATE, Artist, Timbre
from genre.corpora.synthetic.styles import STYLES, Patterns, Style

VERSION = 2  # raise it when the same seeds give other files, so that folders of earlier versions are not reused

_MAJOR = (0, 2, 4, 5, 7, 9, 11)  # semitones above the tonic
_MINOR = (0, 2, 3, 5, 7, 8, 10)
_PROGRESSIONS = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (0, 3, 0, 4), (5, 3, 0, 4))  # degrees, one for each bar
_CHORD = (0, 2, 4, 7)  # degrees above the root
_STROKES = {"x": 1.0, "o": 1.0, "g": 0.35}  # loudness of a stroke
_MISSED = 0.04  # share of strokes and notes that a player leaves out
_LEVELS_DB = {"kick": -3.0, "snare": -5.0, "hat": -12.0, "bass": -3.0, "chords": -4.0, "lead": -12.0}

_tone = functools.lru_cache(maxsize=128)(Timbre.tone)  # a track repeats most of its notes; one is about 40 KB


def compose(genre: str, artist_seed: int, track_seed: int, seconds: float = 8.0, ambiguity: float = 0.0) -> Float32:
    """Return a track of `genre`: mono, shape (samples,), float32 within -1 and 1, at `SAMPLE_RATE` Hz.

    `artist_seed` decides the instruments and the mix, `track_seed` everything else. With probability `ambiguity` the
    track borrows one or two of its layers (drums, bass, chords) from another genre.
    """
    artist = Artist.draw(artist_seed)
    rng = np.random.default_rng(track_seed)
    mix = _Take(_choose_layers(genre, rng, ambiguity), artist, rng, seconds).play()
    sound = artist.room.apply(mix, rng)
    loudness_db = rng.uniform(-24, -14)
    sound *= np.float32(10 ** (loudness_db / 20)) / np.sqrt(np.mean(sound**2))
    return np.clip(sound, -0.99, 0.99, out=sound)


@dataclass(frozen=True)
class _Layers:
    """The style of each part of the band, and the style that sets the tempo."""

    tempo: Style
    drums: Style
    bass: Style
    chords: Style


def _choose_layers(genre: str, rng: np.random.Generator, ambiguity: float) -> _Layers:
    parts = dict.fromkeys(("drums", "bass", "chords"), STYLES[genre])
    if rng.random() < ambiguity:
        lender = rng.choice([name for name in STYLES if name != genre])
        for part in rng.choice(list(parts), size=rng.integers(1, 3), replace=False):
            parts[part] = STYLES[lender]
    return _Layers(tempo=STYLES[genre], **parts)


@dataclass(frozen=True)
class _Event:
    """A stroke or a note of a pattern."""

    symbol: str  # of the pattern
    bar: int  # number of the bar
    start: float  # seconds from the start of the track
    seconds: float  # its maximum duration


class _Take:
    """One performance: key, tempo and harmony are drawn once, then each part plays a line, shape (samples,)."""

    def __init__(self, layers: _Layers, artist: Artist, rng: np.random.Generator, seconds: float) -> None:
        self._layers = layers
        self._artist = artist
        self._rng = rng
        self._seconds = seconds
        self._beat = 60 / rng.uniform(*layers.tempo.tempo)  # seconds
        self._offset = rng.uniform(0, 4) * self._beat  # recordings rarely start on the first beat
        self._tonic = int(rng.integers(36, 48))  # MIDI note number in the bass
        self._scale = _MINOR if artist.minor else _MAJOR
        self._progression = _PROGRESSIONS[rng.integers(len(_PROGRESSIONS))]

    def play(self) -> Float32:
        """Return the mix of all lines. The loudness of a line does not depend on how many notes it has."""
        drums, kit = self._layers.drums, self._artist.drums
        lines = {
            "kick": self._strokes(drums.kick, drums.beats, {"x": kit.kick}),
            "snare": self._strokes(drums.snare, drums.beats, {"x": kit.snare, "g": kit.snare}),
            "hat": self._strokes(drums.hat, drums.beats, {"x": kit.hat, "g": kit.hat, "o": kit.open_hat}),
            "bass": self._bass(self._layers.bass),
            "chords": self._chords(self._layers.chords),
            "lead": self._melody(),
        }
        mix = self._silence()
        for name, line in lines.items():
            level_db = _LEVELS_DB[name] + self._artist.levels_db[name] + self._rng.uniform(-2, 2)
            mix += line * np.float32(10 ** (level_db / 20) / (np.sqrt(np.mean(line**2)) + 1e-4))
        return mix

    def _strokes(self, patterns: Patterns, beats: int, sounds: dict[str, Float32]) -> Float32:
        line = self._silence()
        for event in self._events(patterns, beats):
            gain = _STROKES[event.symbol] * self._rng.uniform(0.8, 1.0)
            _add(line, event.start, sounds[event.symbol], gain)
        return line

    def _bass(self, style: Style) -> Float32:
        line = self._silence()
        for event in self._events(style.bass, style.beats):
            degree = self._root(event) + int(event.symbol) - 1
            self._add_note(line, event.start, event.seconds, self._artist.bass, degree, octave=0)
        return line

    def _chords(self, style: Style) -> Float32:
        line = self._silence()
        for event in self._events(style.chords, style.beats):
            tones = _CHORD[:3] if event.symbol == "x" else (_CHORD[int(event.symbol) - 1],)
            for tone in tones:
                self._add_note(
                    line, event.start, event.seconds, self._artist.chords, self._root(event) + tone, octave=2
                )
        return line

    def _melody(self) -> Float32:
        """Return a random walk over the scale in random note lengths, with the same statistics in all genres."""
        line = self._silence()
        degree, start = int(self._rng.integers(0, 7)), 0.0
        while start < self._seconds:
            length = self._beat * self._rng.choice([0.5, 0.75, 1.0, 1.5, 2.0])
            degree = int(np.clip(degree + self._rng.integers(-2, 3), -2, 9))
            if self._rng.random() < 0.6:
                self._add_note(line, start, length, self._artist.lead, degree, octave=3)
            start += length
        return line

    def _events(self, patterns: Patterns, beats: int) -> Iterator[_Event]:
        """Yield the events of one of `patterns`, repeated in every bar, with random timing and random omissions."""
        steps = patterns[self._rng.integers(len(patterns))].replace(" ", "")
        notes = [(match.start(), match[1], len(match[0])) for match in re.finditer(r"([^.-])-*", steps)]
        bar_seconds = beats * self._beat
        step = bar_seconds / len(steps)
        for bar in range(int((self._seconds + self._offset) / bar_seconds) + 1):
            for index, symbol, held in notes:
                late = self._rng.normal(0, self._artist.jitter)
                start = bar * bar_seconds + index * step - self._offset + late
                if start < self._seconds and self._rng.random() >= _MISSED:
                    yield _Event(symbol, bar, start, held * step)

    def _root(self, event: _Event) -> int:
        return self._progression[event.bar % len(self._progression)]

    def _add_note(self, line: Float32, start: float, seconds: float, timbre: Timbre, degree: int, octave: int) -> None:
        """Add a degree of the scale, `octave` octaves above the bass, at `start` for `seconds`."""
        note = self._tonic + 12 * (octave + degree // 7) + self._scale[degree % 7]
        frequency = 440 * 2 ** ((note - 69) / 12)  # Hz
        _add(line, start, _tone(timbre, frequency, 0.95 * seconds), self._rng.uniform(0.8, 1.0))

    def _silence(self) -> Float32:
        return np.zeros(int(self._seconds * SAMPLE_RATE), np.float32)


def _add(line: Float32, start: float, sound: Float32, gain: float) -> None:
    """Add `sound` to `line` at `start` seconds; samples before or after the line are cut off."""
    first = int(start * SAMPLE_RATE)
    skipped = max(0, -first)
    part = sound[skipped : len(line) - first]
    line[first + skipped : first + skipped + len(part)] += part * np.float32(gain)
