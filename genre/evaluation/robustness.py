"""Does a model still know the music when the recording is worse? Test tracks, changed as files change in the wild.

A change acts on the decoded file at its own rate and with its own channels; everything after it (mixing down,
resampling, trimming, normalising, cutting) is what every file goes through. So a model is asked about the changed
track as a person would ask it, and `-12 dB` shows that the level of a file does not matter.

    noise 20 dB     white noise, 20 dB below the track's mean power; the same on all channels, so that mixing
                    them down does not make it weaker
    mp3 64 kbit/s   encoded by LAME at a constant 64 kbit/s for all channels together, and decoded again
    -12 dB          a quarter of the amplitude
    5 % faster      played faster, so pitch rises by 5 % (0.84 semitones) and the tempo with it

Every change is deterministic: the same file gives the same features on every machine.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import soundfile
import soxr

from genre.audio import recordings
from genre.audio.decoders import Block, open_stream
from genre.audio.recordings import Samples
from genre.errors import AudioError, Reason
from genre.evaluation import ensemble, metrics
from genre.features import Clips, Float32
from genre.features.preparation import ClipEncoder
from genre.features.recipe import Recipe
from genre.storage import Location


@dataclass(frozen=True)
class Sound:
    """A file as it decodes: samples (frames, channels), full scale 1, at its own rate in Hz."""

    samples: Samples
    sample_rate: int


Change = Callable[[Sound], Sound]
Predictor = Callable[[Clips], Float32]  # probabilities (tracks, classes)

ENSEMBLE = "ensemble"  # the row of all networks together

# What MPEG layer III allows: rates in Hz, and from each rate on the lowest and highest bit rate in kbit/s
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_MP3_BIT_RATES = {32000: (32, 320), 16000: (8, 160), 0: (8, 64)}


def unchanged(sound: Sound) -> Sound:
    """No change: gives the very features that preparation gave."""
    return sound


def with_noise(sound: Sound, snr_db: float = 20.0) -> Sound:
    """White Gaussian noise `snr_db` below the mean power of the mono mix, the same on every channel."""
    power = float(np.mean(np.square(sound.samples.mean(axis=1, dtype=np.float64))))
    noise = np.random.default_rng(0).standard_normal((len(sound.samples), 1), dtype=np.float32)
    return replace(sound, samples=sound.samples + noise * np.float32(np.sqrt(power) * 10 ** (-snr_db / 20)))


def louder(sound: Sound, gain_db: float = -12.0) -> Sound:
    """Every sample times a gain; nothing clips, since samples are floating point."""
    return replace(sound, samples=sound.samples * np.float32(10 ** (gain_db / 20)))


def faster(sound: Sound, factor: float = 1.05) -> Sound:
    """Resampled so that it lasts 1 / `factor` as long at the same rate: tempo and pitch change together."""
    return replace(sound, samples=_resample(sound.samples, sound.sample_rate * factor, sound.sample_rate))


def through_mp3(sound: Sound, kbit_s: int = 64) -> Sound:
    """Encoded as MP3 of constant bit rate and decoded again; libsndfile cuts the encoder's delay off."""
    encoded = encode_mp3(sound, kbit_s)
    return Sound(*soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=True))


def encode_mp3(sound: Sound, kbit_s: int = 64) -> bytes:
    """`sound` as an MP3 file. Rates that MP3 lacks become the next lower one, more than two channels become one."""
    samples = sound.samples
    if samples.shape[1] > 2:
        samples = samples.mean(axis=1, keepdims=True)
    rate = max((known for known in _MP3_RATES if known <= sound.sample_rate), default=_MP3_RATES[0])
    if rate != sound.sample_rate:
        samples = _resample(samples, sound.sample_rate, rate)
    low, high = next(bounds for start, bounds in _MP3_BIT_RATES.items() if rate >= start)
    file = io.BytesIO()
    soundfile.write(
        file,
        samples,
        rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        # libsndfile maps 0..1 onto the bit rates that the sample rate allows, highest first
        compression_level=min(max((high - kbit_s) / (high - low), 0.0), 1.0),
    )
    return file.getvalue()


CHANGES: dict[str, Change] = {
    "noise 20 dB": with_noise,
    "mp3 64 kbit/s": through_mp3,
    "-12 dB": louder,
    "5 % faster": faster,
}


def answers(
    paths: Sequence[str],
    recipe: Recipe,
    predictors: Sequence[Predictor],
    changes: Mapping[str, Change] = CHANGES,
) -> dict[str, Float32]:
    """What each predictor says of each changed track: (predictors, tracks, classes) by change.

    Holds the features of `paths` for one change at a time (0.2 MB for 30 s of 128 bands): call it with a block of
    tracks and concatenate along axis 1. Raises `AudioError` when a track cannot be read any more.
    """
    sounds = [read(path) for path in paths]
    found = {}
    for name, change in changes.items():
        clips = changed_clips(sounds, recipe, change)
        found[name] = np.stack([predictor(clips) for predictor in predictors])
    return found


def macro_f1(truth: metrics.IntArray, probabilities: Float32) -> float:
    """Macro F1 of (runs, tracks, classes) of probabilities, mean over the runs."""
    return metrics.mean_scores(truth, metrics.decisions(probabilities), probabilities.shape[-1])["f1"]


def by_row(
    truth: metrics.IntArray, seeds: Mapping[str, Sequence[int]], answers: Mapping[str, Float32], baseline: str = ""
) -> dict[str, dict[str, float]]:
    """Macro F1 by row of a leaderboard and change, of answers (models, tracks, classes) by change.

    The models are the runs of each network in turn, with the `seeds` of each, and last, where it has a name, the
    `baseline`. The ensemble is that of unchanged tracks (`ensemble.by_seed`), then the mean over seeds.
    """
    ends = np.cumsum([len(each) for each in seeds.values()])
    scores: dict[str, dict[str, float]] = {}
    for change, given in answers.items():
        runs = dict(zip(seeds, np.split(given[: ends[-1]], ends[:-1]), strict=True))
        together = ensemble.by_seed({row: list(zip(seeds[row], run, strict=True)) for row, run in runs.items()})
        runs[ENSEMBLE] = np.stack([probabilities for _, probabilities in together])
        if baseline:
            runs[baseline] = given[-1:]
        for row, run in runs.items():
            scores.setdefault(row, {})[change] = macro_f1(truth, run)
    return scores


def changed_clips(sounds: Sequence[str | Sound], recipe: Recipe, change: Change) -> Clips:
    """Features of changed tracks, as a model takes them: paths or decoded files, in their order, without labels.

    Raises `AudioError` when a track cannot be read, or the change left nothing to hear.
    """
    encoder = ClipEncoder(recipe)
    tracks = []
    for item in sounds:
        sound = change(read(item) if isinstance(item, str) else item)
        tracks.append(encoder(recordings.of_samples(sound.samples, sound.sample_rate, recipe.audio)))
    return Clips.unlabelled(tracks, recipe.shape())


def read(path: str) -> Sound:
    """The file at a path or address, whole: changes need all channels at the file's own rate. Raises `AudioError`."""
    try:
        content = Location.of(path).read_bytes()
    except OSError as error:
        raise AudioError(Reason.UNREADABLE, f"{path}: {error.strerror or error}") from None
    with open_stream(content) as stream:
        # a block may be overwritten by the next, so each is copied
        blocks = [_full_scale(block) for block in stream.blocks]
        samples = np.concatenate(blocks) if blocks else np.zeros((0, stream.channels), np.float32)
        return Sound(samples, stream.sample_rate)


def _full_scale(block: Block) -> Samples:
    scale = np.float32(1 / 32768 if block.dtype == np.int16 else 1)
    scaled: Samples = block * scale
    return scaled


def _resample(samples: Samples, rate: float, target: float) -> Samples:
    """(frames, channels) by soxr, at rates that need not be whole."""
    resampled: Samples = soxr.resample(samples, rate, target, quality="HQ")
    return resampled
