"""Bytes of a music file -> blocks of samples. No other module decodes the music of a corpus with libsndfile or FFmpeg.

libsndfile reads WAV, FLAC, Ogg, MP3, AU, AIFF, CAF and others, FFmpeg the MPEG-4 and Windows Media families, WavPack,
Monkey's Audio and Musepack. The content decides which one is used, never the name. A file is decoded block by block, so
that two hours of music need no more memory than their mono waveform, and up to the first error: what decodes before it
is kept.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from genre.arrays import Float32
from genre.audio import containers
from genre.errors import AudioError, Reason, install

# (frames, channels): 16-bit integers where the file holds them, because converting them here is faster
# than in libsndfile, otherwise floats with full scale 1. Reading the next block may overwrite a block.
Block = npt.NDArray[np.int16] | Float32

BLOCK_FRAMES = 1 << 16  # 1.5 s at 44.1 kHz: few calls, and still small enough for the processor's cache
# the first bytes of ADTS (twice), ASF, WavPack, Monkey's Audio, and Musepack (twice)
_OF_FFMPEG = (b"\xff\xf1", b"\xff\xf9", b"\x30\x26\xb2\x75", b"wvpk", b"MAC ", b"MPCK", b"MP+")
_MOST_FRAMES = 1 << 62  # libsndfile's value for an unknown length


@dataclass(frozen=True)
class AudioStream:
    """An opened file: rate in Hz, channels, number of declared frames (None: not declared), and blocks of samples."""

    sample_rate: int
    channels: int
    declared: int | None
    blocks: Iterator[Block]
    ends_early: bool = False  # by an unknown amount


def open_stream(content: bytes) -> AbstractContextManager[AudioStream]:
    """Open the file as a stream within `with`.

    Raises `AudioError` (unsupported, unreadable), also while blocks are read.
    """
    start = containers.after_id3(content)  # which FFmpeg skips in some of its formats only
    is_of_ffmpeg = content[4:8] == b"ftyp" or content.startswith(_OF_FFMPEG, start)
    return _open_ffmpeg(content[start:]) if is_of_ffmpeg else _open_libsndfile(content)


class _Content(io.BytesIO):
    """Bytes for libsndfile, which a damaged header may make seek to negative offsets."""

    def seek(self, offset: int, whence: int = 0) -> int:
        return super().seek(max(0, offset) if whence == io.SEEK_SET else offset, whence)


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """A file that never seeks: soundfile would seek after every read, and decode parts of MP3 and Vorbis twice."""

    def seekable(self) -> bool:
        return False


@contextmanager
def _open_libsndfile(content: bytes) -> Iterator[AudioStream]:
    repaired = containers.repaired(content)
    try:
        file = _Sequential(_Content(repaired))
    except soundfile.SoundFileError as error:
        text = _text(error)
        is_unknown = "not recogni" in text or "unknown format" in text.lower() or "unimplemented" in text.lower()
        raise AudioError(Reason.UNSUPPORTED if is_unknown else Reason.UNREADABLE, text) from None
    with file:
        is_known = file.frames < _MOST_FRAMES and not containers.declares_no_length(repaired)
        # libsndfile has already shortened the declared length of a truncated file to the existing part
        declared = round(file.frames / max(containers.share_present(repaired), 1e-9)) if is_known else None
        ends_early = containers.ends_early(content)
        yield AudioStream(file.samplerate, file.channels, declared, _libsndfile_blocks(file), ends_early)


def _libsndfile_blocks(file: _Sequential) -> Iterator[Block]:
    dtype = "int16" if file.subtype == "PCM_16" else "float32"
    buffer = np.empty((BLOCK_FRAMES, file.channels), dtype)
    done = 0
    while True:
        try:
            block = file.read(out=buffer)
        except soundfile.SoundFileError as error:
            # libsndfile counted the frames before the fault, soundfile discarded the count
            rest = file.tell() - done
            if not done + rest:
                raise AudioError(Reason.UNREADABLE, _text(error)) from None
            yield buffer[: max(0, rest)]
            return
        done += len(block)
        yield block
        if len(block) < BLOCK_FRAMES:
            return


def _text(error: soundfile.SoundFileError) -> str:
    return str(getattr(error, "error_string", error)).strip()


@contextmanager
def _open_ffmpeg(content: bytes) -> Iterator[AudioStream]:
    try:
        import av
    except ImportError:
        message = f"this format needs PyAV; {install('m4a')}"
        raise AudioError(Reason.UNSUPPORTED, message) from None
    try:
        with av.open(io.BytesIO(content), mode="r", metadata_errors="replace") as container:
            stream = next((s for s in container.streams.audio if s.codec_context is not None), None)
            if stream is None:
                raise AudioError(Reason.UNSUPPORTED, "the file holds no audio stream that FFmpeg can decode")
            rate = stream.codec_context.sample_rate
            length = (container.duration or 0) / av.time_base
            declared = round(length * rate) or None
            yield AudioStream(rate, stream.codec_context.channels, declared, _ffmpeg_blocks(container, stream))
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(Reason.UNREADABLE, f"FFmpeg: {error}") from None


def _ffmpeg_blocks(container: Any, stream: Any) -> Iterator[Block]:
    """Yield FFmpeg's frames, of about a thousand samples each, joined to blocks. Skip packets that do not decode."""
    import av

    rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
    packed = av.AudioResampler(format="flt", layout=stream.codec_context.layout, rate=rate)
    gathered: list[Float32] = []

    def gather(frames: list[Any]) -> int:
        gathered.extend(frame.to_ndarray().reshape(-1, channels) for frame in frames)
        return sum(frame.samples for frame in frames)

    waiting = 0
    for packet in container.demux(stream):
        try:
            frames = [out for frame in packet.decode() for out in packed.resample(frame)]
        except av.FFmpegError:
            continue
        waiting += gather(frames)
        if waiting >= BLOCK_FRAMES:
            yield np.concatenate(gathered)
            gathered.clear()
            waiting = 0
    if waiting + gather(packed.resample(None)):
        yield np.concatenate(gathered)
