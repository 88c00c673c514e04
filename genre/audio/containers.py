"""What the header of an audio file declares, read without decoding.

libsndfile is not enough for damaged collections: it shortens the declared length of a truncated file to the existing
part, reads nothing of a recording whose length was never filled in, rejects a WAV file with garbage after its sound,
and reads a variable-rate MP3 without a length only up to an estimate. `share_present`, `ends_early` and `repaired`
compensate for that.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_PLACEHOLDER_SIZE = 0x7FFFF000  # live recorders declare at least this size when they do not know it yet
_OGG_PAGE_LIMIT = 65_307  # bytes, header included
_OGG_LAST_PAGE = 0x04


@dataclass(frozen=True)
class _Chunks:
    """Layout of a chunked format: where chunks start, how their size is written, which one holds the sound."""

    start: int
    size: struct.Struct
    sound: bytes


_CHUNKED = {
    b"RIFF": _Chunks(12, struct.Struct("<I"), b"data"),
    b"RIFX": _Chunks(12, struct.Struct(">I"), b"data"),
    b"RF64": _Chunks(12, struct.Struct("<I"), b"data"),
    b"FORM": _Chunks(12, struct.Struct(">I"), b"SSND"),
    b"caff": _Chunks(8, struct.Struct(">Q"), b"data"),
}


@dataclass(frozen=True)
class _SoundData:
    """Offset of the sound data of a file, its size that the header declares, and the offset of that size."""

    start: int
    size: int
    size_at: int


def share_present(content: bytes) -> float:
    """Return the share, 0 to 1, of the declared sound data that the file holds; 1 if no size is declared."""
    sound = _sound_data(content)
    if sound is None or not 0 < sound.size < _PLACEHOLDER_SIZE:
        return 1.0
    return min(1.0, max(0, len(content) - sound.start) / sound.size)


def ends_early(content: bytes) -> bool:
    """Return whether an Ogg file ends before the page that is marked as its last."""
    if content[:4] != b"OggS":
        return False
    page = content.rfind(b"OggS", max(0, len(content) - _OGG_PAGE_LIMIT))
    return page < 0 or page + 5 >= len(content) or not content[page + 5] & _OGG_LAST_PAGE


def repaired(content: bytes) -> bytes:
    """Return a file that libsndfile reads completely: add a length to one without, remove what follows the sound."""
    if content[:4] in (b"RIFF", b"RIFX"):
        return _wave_repaired(content)
    return _with_mpeg_length(content)


def _wave_repaired(content: bytes) -> bytes:
    """Return the WAV file without bytes after its sound; a length of 0 becomes "until the end of the file"."""
    sound = _sound_data(content)
    if sound is None or sound.start >= len(content):
        return content
    if not sound.size:
        return content[: sound.size_at] + b"\xff\xff\xff\xff" + content[sound.start :]
    return content[: sound.start + sound.size]


def _sound_data(content: bytes) -> _SoundData | None:
    if content[:4] == b".snd" and len(content) >= 12:
        start, size = struct.unpack_from(">II", content, 4)
        return _SoundData(start, size, 8)
    layout = _CHUNKED.get(content[:4])
    return _walk(content, layout) if layout else None


def _walk(content: bytes, layout: _Chunks) -> _SoundData | None:
    """Follow the chunks up to the one that holds the sound.

    A chunk is a name, a size and its content, which is padded to an even length except in CAF.
    """
    position, long_size = layout.start, None
    head = 4 + layout.size.size
    while position + head <= len(content):
        name = content[position : position + 4]
        (size,) = layout.size.unpack_from(content, position + 4)
        if name == b"ds64" and position + 24 <= len(content):  # RF64: the sizes that do not fit into 32 bits
            (long_size,) = struct.unpack_from("<Q", content, position + 16)
        if name == layout.sound:
            if size == 0xFFFFFFFF and long_size is not None:
                size = long_size
            return _SoundData(position + head, size, position + 4)
        position += head + size + (size & 1 if head == 8 else 0)
    return None


# MPEG audio layer III: kbit/s and Hz by the indices in a frame's header (ISO/IEC 11172-3, 13818-3)
_MPEG1_RATES = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_RATES = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_HERTZ = (44100, 48000, 32000)
_MANY_FRAMES = 0x00FFFFFF  # five days of sound, so that reading stops only at the end of the file


@dataclass(frozen=True)
class _MpegFrame:
    """The four bytes of a layer III frame's header, and their meaning."""

    header: bytes
    side_info: int  # bytes between the header and the main data, where Xing and Info tags are
    bytes_long: int

    @classmethod
    def parse(cls, header: bytes) -> _MpegFrame | None:
        """Return the frame with this header; None if it is not one of layer III with a declared bit rate."""
        if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:  # no sync word, or another layer
            return None
        version, bitrate, hertz = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
        if version == 1 or bitrate in (0, 15) or hertz == 3:
            return None
        is_mpeg1 = version == 3
        rate = _HERTZ[hertz] >> (0 if is_mpeg1 else 1 if version == 2 else 2)
        kilobits = (_MPEG1_RATES if is_mpeg1 else _MPEG2_RATES)[bitrate]
        is_mono = header[3] >> 6 == 3
        side = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
        padding = header[2] >> 1 & 1
        return cls(header, side, (144_000 if is_mpeg1 else 72_000) * kilobits // rate + padding)


def _with_mpeg_length(content: bytes) -> bytes:
    """Put a frame that declares a very large length before an MP3 that declares none. Return other files unchanged.

    Without it libsndfile estimates the length from the first frame's bit rate and stops there. That loses more than
    half of a variable-rate file that starts quietly; one that starts loudly looks truncated.
    """
    start = after_id3(content)
    frame = _MpegFrame.parse(content[start : start + 4])
    if frame is None or _MpegFrame.parse(content[start + frame.bytes_long :][:4]) is None:
        return content
    tags = content[start : start + min(frame.bytes_long, 200)]
    if any(tag in tags for tag in (b"Xing", b"Info", b"VBRI")):
        return content
    # same version, rate and channels; no checksum, no padding, and a bit rate that leaves room for the tag
    header = bytes([frame.header[0], frame.header[1] | 1, 9 << 4 | frame.header[2] & 0x0C, frame.header[3]])
    first = _MpegFrame.parse(header)
    assert first is not None
    tag = b"Info" + struct.pack(">II", 1, _MANY_FRAMES)
    return content[:start] + (header + bytes(first.side_info) + tag).ljust(first.bytes_long, b"\0") + content[start:]


def declares_no_length(content: bytes) -> bool:
    """Return whether the length that this MP3 declares is not its own, but was added by `repaired`."""
    start = after_id3(content)
    return content[start + 4 : start + 60].lstrip(b"\0").startswith(b"Info" + struct.pack(">II", 1, _MANY_FRAMES))


def after_id3(content: bytes) -> int:
    """Return the offset of the sound, after an ID3v2 tag if there is one."""
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    size = content[6] << 21 | content[7] << 14 | content[8] << 7 | content[9]
    return 10 + size + (10 if content[5] & 0x10 else 0)
