"""Bytes of a music file -> mono, resampled, normalised, trimmed clips of one length, or an `AudioError`.

The order is fixed: decode, check the header, mix down, resample, check the samples, normalise, trim, cut. Mixing down
comes before resampling because it halves the work and the two commute. Normalising comes before trimming so that a
quiet recording is trimmed like a loud one. The sound is not changed otherwise: a DC offset stays, and floats
beyond full scale are accepted.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soxr

from genre.arrays import Float32
from genre.audio import members, phases
from genre.audio.decoders import AudioStream, Block, open_stream
from genre.errors import AudioError, Reason, one_line
from genre.settings import AudioSettings, DecodingSettings
from genre.storage import Location
from genre.storage.faults import is_denied, retry

SILENT_PEAK = 1e-4  # -80 dBFS: recordings below it hold only dither or hum
MAX_CHANNELS = 32
RATES = (1000, 768_000)  # Hz, from telephone and old games to the fastest converters
COMPLETE = 0.98  # this share of the declared length counts as complete, since lengths of MPEG files are estimates
# Channels cancel if the peak of their mix is below both limits: absolute, and relative to the first channel.
CANCELLED_PEAK, CANCELLED_RATIO = 1e-2, 1e-2
_INT16_SCALE = 1 / 32768
_TRIM_FRAME, _TRIM_HOP = 2048, 512  # librosa.effects.trim's defaults


@dataclass(frozen=True)
class Recording:
    """A decoded file: its mono waveform (samples,) at `audio.sample_rate`, and its properties.

    `load` and `of_samples` scale the waveform to a peak of 1.
    """

    wave: Float32
    sample_rate: int  # Hz, of the file
    channels: int
    seconds: float
    truncated: bool = False  # the file ends before its declared length


@dataclass(frozen=True)
class Clip:
    """One piece of a track: samples (clip_seconds * sample_rate,), and its start in the file, in seconds."""

    samples: Float32
    start_seconds: float


def read(address: str, seconds: float = 0.0) -> bytes:
    """Return the bytes of the recording at an address: of a file, or inside one, see `members`.

    After a fault of the storage, try again for `seconds`. Raises `AudioError` (unreadable, denied, truncated) when the
    file is the reason, and `StorageError` when the storage is.
    """
    file = Location.of(members.file_of(address))
    try:
        with phases.reading():
            return retry(lambda: _read(address, file), file, seconds)
    except OSError as error:
        raise AudioError(Reason.DENIED if is_denied(error) else Reason.UNREADABLE, one_line(error)) from None


def _read(address: str, file: Location) -> bytes:
    if file.is_local and stat.S_ISFIFO(os.stat(file.path).st_mode):  # opening it would wait for a writer
        raise AudioError(Reason.UNREADABLE, "is a pipe, not a file")
    return members.read(address)


def load(content: bytes, settings: AudioSettings, limits: DecodingSettings = DecodingSettings()) -> Recording:
    """Decode a complete file by its content, independent of its name.

    Channels are averaged. Where they cancel, as with a wrongly wired cable, the first channel is used.

    Raises `AudioError` (empty, unsupported, unreadable, absurd_header, truncated, non_finite, silent).
    """
    if not content:
        raise AudioError(Reason.EMPTY, "the file has no bytes")
    recording = _decode(content, settings, limits)
    peak = _peak(recording.wave)
    if recording.channels > 1 and peak < CANCELLED_PEAK:
        first = _decode(content, settings, limits, only_first=True)
        if peak < CANCELLED_RATIO * _peak(first.wave):
            recording = first
    return _normalised(recording)


def of_samples(samples: Float32, sample_rate: int, settings: AudioSettings) -> Recording:
    """Return the recording of samples (frames,) or (frames, channels) at `sample_rate` Hz, processed like a file.

    Raises `AudioError` (empty, absurd_header, non_finite, silent).
    """
    frames = (samples[:, None] if samples.ndim == 1 else samples).astype(np.float32, copy=False)
    stream = AudioStream(sample_rate, frames.shape[1], len(frames), iter([frames]))
    return _normalised(_gather(stream, settings, DecodingSettings(max_track_seconds=math.inf)))


def cut(recording: Recording, settings: AudioSettings) -> list[Clip]:
    """Trim silence at both ends and cut into clips of `settings.clip_seconds`.

    Clips do not overlap. A remainder of at least half a clip is kept, and so is a track shorter than one clip; both
    are repeated from their start to fill the clip, so that no clip holds silence that is not in the music.

    Raises `AudioError` (too_short).
    """
    rate = settings.sample_rate
    start, end = trim_bounds(recording.wave, settings.trim_db)
    wave = recording.wave[start:end]
    if len(wave) < settings.min_seconds * rate:
        raise AudioError(
            Reason.TOO_SHORT, f"{len(wave) / rate:.2f} s of sound, audio.min_seconds={settings.min_seconds}"
        )
    length = round(settings.clip_seconds * rate)
    full, rest = divmod(len(wave), length)
    count = full + (rest >= length / 2 or not full)
    if settings.max_clips:
        count = min(count, settings.max_clips)
    pieces = (wave[i * length : (i + 1) * length] for i in range(count))
    return [Clip(_fill(piece, length), (start + i * length) / rate) for i, piece in enumerate(pieces)]


def end_seconds(recording: Recording, settings: AudioSettings) -> float:
    """Return where the sound of a recording ends in the file, in seconds: `cut` removes the silence after it."""
    return trim_bounds(recording.wave, settings.trim_db)[1] / settings.sample_rate


def limited(stream: AudioStream, limits: DecodingSettings) -> Iterator[Block]:
    """Return the blocks of a stream.

    Raises `AudioError` (absurd_header): at once for the header, and while reading for a longer file than allowed.
    """
    _check_header(stream, limits)
    return _blocks_within(stream, limits)


def trim_bounds(wave: Float32, top_db: float) -> tuple[int, int]:
    """Return start and end of `wave` (samples,) without leading and trailing silence, as indices.

    The indices are those of `librosa.effects.trim` with its default frames: silence is where the root mean square of
    centred frames of 2048 samples every 512 is `top_db` below the loudest frame. A frame is four hops, so the energies
    of hops are summed instead of the samples of each frame.
    """
    count, rest = divmod(len(wave), _TRIM_HOP)
    before = _TRIM_FRAME // _TRIM_HOP // 2  # hops of zeros before the first sample
    energy = np.zeros(count + 4)
    hops = wave[: count * _TRIM_HOP].reshape(count, _TRIM_HOP)
    energy[before : before + count] = np.vecdot(hops, hops)
    energy[before + count] = np.square(wave[len(wave) - rest :], dtype=np.float64).sum()
    power = np.convolve(energy, np.ones(4), mode="valid") / _TRIM_FRAME
    # librosa floors amplitudes at 1e-5 before it compares levels
    is_loud = np.maximum(power, 1e-10) > np.maximum(power.max(), 1e-10) * 10 ** (-top_db / 10)
    frames = np.flatnonzero(is_loud)
    if not len(frames):
        return 0, 0
    return int(frames[0]) * _TRIM_HOP, min(len(wave), (int(frames[-1]) + 1) * _TRIM_HOP)


def _fill(wave: Float32, length: int) -> Float32:
    return wave if len(wave) == length else np.resize(wave, length)


def _decode(content: bytes, settings: AudioSettings, limits: DecodingSettings, only_first: bool = False) -> Recording:
    with open_stream(content) as stream:
        return _gather(stream, settings, limits, only_first)


def _gather(
    stream: AudioStream, settings: AudioSettings, limits: DecodingSettings, only_first: bool = False
) -> Recording:
    """Mix down and resample a stream block by block; the result is that of the complete signal at once."""
    rate, target = stream.sample_rate, settings.sample_rate
    blocks = limited(stream, limits)
    # soxr HQ: aliases below -120 dB
    resampler = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ") if rate != target else None
    wave = _GrowingWave(math.ceil((stream.declared or 0) * target / rate) + target)
    frames = 0
    for block in blocks:
        frames += len(block)
        mixed = _mono(block, only_first)
        wave.append(resampler.resample_chunk(mixed) if resampler else mixed)
    if not frames:
        raise AudioError(Reason.EMPTY, "the file holds no samples")
    if resampler:
        wave.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    truncated = _is_truncated(frames, stream.declared, limits) or stream.ends_early
    return Recording(wave.written(), rate, stream.channels, frames / rate, truncated)


def _mono(block: Block, only_first: bool) -> Float32:
    """Return the mean over channels of (frames, channels) -> (frames,), full scale 1; or only the first channel."""
    scale = np.float32(_INT16_SCALE if block.dtype == np.int16 else 1)
    channels = block.shape[1]
    if channels == 1 or only_first:
        return block[:, 0] * scale
    # a matrix product is 30 times faster than a mean
    return block.astype(np.float32, copy=False) @ np.full(channels, scale / channels, dtype=np.float32)


class _GrowingWave:
    """An array of samples to append to, allocated with the expected length of the result."""

    def __init__(self, expected: int) -> None:
        self._samples = np.empty(expected, dtype=np.float32)
        self._end = 0

    def append(self, samples: Float32) -> None:
        end = self._end + len(samples)
        if end > len(self._samples):
            grown = np.empty(max(end, 2 * len(self._samples)), dtype=np.float32)
            grown[: self._end] = self.written()
            self._samples = grown
        self._samples[self._end : end] = samples
        self._end = end

    def written(self) -> Float32:
        return self._samples[: self._end]


def _peak(wave: Float32) -> float:
    """Return the largest magnitude of (samples,), NaN or infinite if a sample is. Twice as fast as with `abs`."""
    return max(float(wave.max(initial=0.0)), -float(wave.min(initial=0.0)))


def _normalised(recording: Recording) -> Recording:
    """Scale the recording in place to a peak of 1. Raises `AudioError` (non_finite, silent)."""
    peak = _peak(recording.wave)
    if not math.isfinite(peak):
        raise AudioError(Reason.NON_FINITE, "samples are NaN or infinite")
    if peak < SILENT_PEAK:
        raise AudioError(Reason.SILENT, f"the loudest sample is {peak:.1g} of full scale")
    np.divide(recording.wave, np.float32(peak), out=recording.wave)
    return recording


def _check_header(stream: AudioStream, limits: DecodingSettings) -> None:
    """Raise `AudioError` for a header that would exhaust memory, before anything is allocated."""
    rate, channels = stream.sample_rate, stream.channels
    if not RATES[0] <= rate <= RATES[1] or not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(Reason.ABSURD_HEADER, f"declares {rate} Hz and {channels} channels")
    if stream.declared and stream.declared > limits.max_track_seconds * rate:
        raise AudioError(Reason.ABSURD_HEADER, _too_long("declares", stream.declared / rate, limits))


def _blocks_within(stream: AudioStream, limits: DecodingSettings) -> Iterator[Block]:
    frames, most = 0, limits.max_track_seconds * stream.sample_rate
    for block in stream.blocks:
        frames += len(block)
        if frames > most:
            raise AudioError(Reason.ABSURD_HEADER, _too_long("is longer than", limits.max_track_seconds, limits))
        yield block


def _too_long(verb: str, seconds: float, limits: DecodingSettings) -> str:
    return f"{verb} {seconds:.0f} s, decoding.max_track_seconds={limits.max_track_seconds:.0f}"


def _is_truncated(decoded: int, declared: int | None, limits: DecodingSettings) -> bool:
    """Return whether fewer frames were decoded than declared. Raises `AudioError` (truncated) for too few."""
    if declared is None or decoded >= COMPLETE * declared:
        return False
    if decoded < limits.min_decoded_fraction * declared:
        raise AudioError(Reason.TRUNCATED, f"{decoded} of {declared} declared samples decode")
    return True
