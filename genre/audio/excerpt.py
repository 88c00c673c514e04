"""Cut the start of a file as a small MP3 to listen to, decoded in a child process that a damaged file may crash."""

from __future__ import annotations

import contextlib
import functools
import io

import soundfile

from genre.audio import recordings
from genre.audio.isolation import IsolatedFunction
from genre.settings import AudioSettings, DecodingSettings

_SETTINGS = AudioSettings(sample_rate=22050)  # a rate at which every browser plays MP3


def excerpt(path: str, seconds: float, limits: DecodingSettings = DecodingSettings()) -> bytes:
    """Return the first `seconds` of a file as a mono MP3. Raises `AudioError`, or `StorageError`."""
    child = IsolatedFunction(functools.partial, _cut, seconds, limits, memory_mb=limits.max_file_memory_mb)
    with contextlib.closing(child):
        content: bytes = child(path, limits.file_timeout_s)
    return content


def _cut(seconds: float, limits: DecodingSettings, address: str) -> bytes:
    recording = recordings.load(recordings.read(address), _SETTINGS, limits)
    wave = recording.wave[: round(seconds * _SETTINGS.sample_rate)]
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, _SETTINGS.sample_rate, format="MP3", subtype="MPEG_LAYER_III")
    return buffer.getvalue()
