"""Bytes of a music file -> mono, resampled, trimmed, normalised clips of one length, or an `AudioError`.

The order is fixed: decode, check, mix down, resample, trim, normalise, cut. Mixing down comes before
resampling because it halves the work and the two commute.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from genre.config import AudioSettings, PrepareSettings
from genre.errors import AudioError, Reason

Samples = npt.NDArray[np.float32]

SILENT_PEAK = 1e-4  # -80 dBFS: nothing but dither or hum lies below it
MAX_CHANNELS = 32
RATES = (1000, 768_000)  # Hz, from telephone and old games to the fastest converters
_TRIM_FRAME, _TRIM_HOP = 2048, 512  # librosa.effects.trim's defaults


@dataclass(frozen=True)
class Sound:
    """A decoded file: samples (frames, channels), the rate in Hz, and whether the file ended early."""

    samples: Samples
    sample_rate: int
    truncated: bool = False


@dataclass(frozen=True)
class Clip:
    """One piece of a track: samples (clip_seconds * sample_rate,), and where it starts in the file, in seconds."""

    samples: Samples
    start_seconds: float


def decode(content: bytes, limits: PrepareSettings = PrepareSettings()) -> Sound:
    """Decode a whole file by its content, whatever its name says.

    Raises `AudioError` (empty, unsupported, unreadable, absurd_header, truncated, non_finite).
    """
    if not content:
        raise AudioError(Reason.EMPTY, "the file has no bytes")
    decoder = _decoder(content)
    sound = decoder(content, limits)
    if not len(sound.samples):
        raise AudioError(Reason.EMPTY, "the file declares no samples")
    if not np.isfinite(sound.samples.sum(dtype=np.float64)) and not np.isfinite(sound.samples).all():
        raise AudioError(Reason.NON_FINITE, "samples are NaN or infinite")
    return sound


def clips(sound: Sound, settings: AudioSettings) -> list[Clip]:
    """Cut a decoded file into mono clips of `settings.clip_seconds`, peak-normalised as one track.

    Full clips follow each other without overlap. A remainder of at least half a clip is kept, and so
    is a track shorter than one clip; both are filled up by repeating themselves from their start, so
    that no clip holds silence that the music does not have.

    Raises `AudioError` (silent, too_short).
    """
    rate = settings.sample_rate
    wave = resample(mono(sound.samples), sound.sample_rate, rate)
    peak = float(np.max(np.abs(wave), initial=0.0))
    if peak < SILENT_PEAK:
        raise AudioError(Reason.SILENT, f"the loudest sample is {peak:.1g} of full scale")
    start, end = trim_bounds(wave, settings.trim_db)
    wave = wave[start:end] / np.float32(peak)
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


def mono(samples: Samples) -> Samples:
    """Mean over channels of (frames, channels) -> (frames,); as a matrix product, 30 times faster than a mean."""
    channels = samples.shape[1]
    if channels == 1:
        return samples[:, 0]
    return samples @ np.full(channels, 1 / channels, dtype=np.float32)


def resample(wave: Samples, rate: int, target: int) -> Samples:
    """Band-limited resampling of (frames,) by soxr HQ (aliases below -120 dB)."""
    if rate == target:
        return wave
    resampled: Samples = soxr.resample(wave, rate, target, quality="HQ")
    return resampled


def trim_bounds(wave: Samples, top_db: float) -> tuple[int, int]:
    """First and last + 1 sample that is not leading or trailing silence.

    Same indices as `librosa.effects.trim` with its default frames: the root mean square of centred
    frames of 2048 samples every 512, `top_db` below the loudest frame. A frame is four hops, so the
    energies of hops are summed instead of the samples of each frame.
    """
    hops = 1 + len(wave) // _TRIM_HOP
    padded = np.zeros((hops + 3) * _TRIM_HOP, dtype=np.float64)
    padded[_TRIM_FRAME // 2 : _TRIM_FRAME // 2 + len(wave)] = wave
    energy = np.einsum("ij,ij->i", *(2 * [padded.reshape(-1, _TRIM_HOP)]))
    power = np.convolve(energy, np.ones(4), mode="valid")[:hops] / _TRIM_FRAME
    # librosa floors amplitudes at 1e-5 before it compares levels
    loud = np.maximum(power, 1e-10) > np.maximum(power.max(), 1e-10) * 10 ** (-top_db / 10)
    frames = np.flatnonzero(loud)
    if not len(frames):
        return 0, 0
    return int(frames[0]) * _TRIM_HOP, min(len(wave), (int(frames[-1]) + 1) * _TRIM_HOP)


def _fill(wave: Samples, length: int) -> Samples:
    return wave if len(wave) == length else np.resize(wave, length)


def _decoder(content: bytes) -> Callable[[bytes, PrepareSettings], Sound]:
    """libsndfile for what it knows (wav, flac, ogg, mp3, au, aiff, ...), FFmpeg for MPEG-4 and ADTS."""
    is_mp4 = content[4:8] == b"ftyp"
    is_adts = content[:2] in (b"\xff\xf1", b"\xff\xf9")
    is_asf = content[:4] == b"\x30\x26\xb2\x75"
    return _decode_ffmpeg if is_mp4 or is_adts or is_asf else _decode_libsndfile


def _decode_libsndfile(content: bytes, limits: PrepareSettings) -> Sound:
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            _check_header(file.frames, file.samplerate, file.channels, limits)
            samples = file.read(dtype="float32", always_2d=True)
            declared = file.frames
            rate = file.samplerate
    except soundfile.LibsndfileError as error:
        text = str(error.error_string).strip()
        unknown = "not recogni" in text or "unknown format" in text.lower() or "unimplemented" in text.lower()
        raise AudioError(Reason.UNSUPPORTED if unknown else Reason.UNREADABLE, text) from None
    return Sound(samples, rate, _is_truncated(len(samples), declared, limits))


def _decode_ffmpeg(content: bytes, limits: PrepareSettings) -> Sound:
    try:
        import av
    except ImportError:
        message = "MPEG-4, AAC and WMA need PyAV; install the extra: pip install 'genre[m4a]'"
        raise AudioError(Reason.UNSUPPORTED, message) from None
    try:
        with av.open(io.BytesIO(content)) as container:
            if not container.streams.audio:
                raise AudioError(Reason.UNSUPPORTED, "the file holds no audio stream")
            stream = container.streams.audio[0]
            rate, channels = stream.rate, stream.channels
            declared = round((container.duration or 0) / av.time_base * rate)
            _check_header(declared, rate, channels, limits)
            planar = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
            blocks = [out.to_ndarray() for frame in container.decode(stream) for out in planar.resample(frame)]
            blocks += [out.to_ndarray() for out in planar.resample(None)]
    except av.FFmpegError as error:
        raise AudioError(Reason.UNREADABLE, str(error)) from None
    samples = np.ascontiguousarray(np.concatenate(blocks, axis=1).T) if blocks else np.zeros((0, 1), np.float32)
    return Sound(samples, rate, _is_truncated(len(samples), declared, limits))


def _check_header(frames: int, rate: int, channels: int, limits: PrepareSettings) -> None:
    """Refuse what would exhaust memory before anything is allocated for it."""
    if not RATES[0] <= rate <= RATES[1] or not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(Reason.ABSURD_HEADER, f"declares {rate} Hz and {channels} channels")
    if frames > limits.max_track_seconds * rate:
        seconds = frames / rate
        message = f"declares {seconds:.0f} s, prepare.max_track_seconds={limits.max_track_seconds:.0f}"
        raise AudioError(Reason.ABSURD_HEADER, message)


def _is_truncated(found: int, declared: int, limits: PrepareSettings) -> bool:
    """Whether clearly less than the declared length came out; refuse when too little did."""
    if found >= 0.98 * declared:  # MPEG lengths are estimates
        return False
    if found < limits.min_decoded_fraction * declared:
        raise AudioError(Reason.TRUNCATED, f"{found} of {declared} declared samples decode")
    return True
