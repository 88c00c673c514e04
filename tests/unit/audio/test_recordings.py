"""From bytes to clips: results, reasons for rejection, and memory."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from unittest.mock import Mock

import damage
import numpy as np
import numpy.typing as npt
import pytest

from genre.audio import decoders, members, recordings
from genre.errors import AudioError, Reason
from genre.settings import AudioSettings, DecodingSettings

RATE = 22050
USUAL = AudioSettings(clip_seconds=2.0)


def wave_file(samples: npt.NDArray[np.floating], rate: int = RATE, subtype: str = "FLOAT") -> bytes:
    return damage.encoded(samples, rate, "wav", subtype)


def refused(
    content: bytes, settings: AudioSettings = USUAL, limits: DecodingSettings = DecodingSettings()
) -> AudioError:
    with pytest.raises(AudioError) as caught:
        recordings.cut(recordings.load(content, settings, limits), settings)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("frames", [1000, 65536, 10**7])
@pytest.mark.parametrize(("container", "rate"), [("wav", 22050), ("wav", 44100), ("flac", 48000), ("mp3", 44100)])
def test_the_result_is_independent_of_the_block_size(
    frames: int, container: str, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = damage.encoded(damage.music(rate, 2), rate, container)
    expected = recordings.load(content, USUAL)
    monkeypatch.setattr(decoders, "BLOCK_FRAMES", frames)
    result = recordings.load(content, USUAL)
    assert result.wave.tobytes() == expected.wave.tobytes()
    assert result.seconds == expected.seconds


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "DOUBLE"])
def test_mixes_down_to_the_mean(channels: int, subtype: str) -> None:
    samples = damage.music(channels=channels)
    result = recordings.load(wave_file(samples, subtype=subtype), USUAL)
    mean = samples.mean(axis=1)
    np.testing.assert_allclose(result.wave, mean / np.abs(mean).max(), atol=2e-4 if subtype == "PCM_16" else 1e-6)
    assert result.channels == channels


def test_samples_and_files_give_the_same_waveform() -> None:
    samples = damage.music(44100, 2).astype(np.float32)
    from_file = recordings.load(wave_file(samples, 44100), USUAL)
    from_array = recordings.of_samples(samples, 44100, USUAL)
    assert from_file.wave.tobytes() == from_array.wave.tobytes()


@pytest.mark.parametrize(
    ("seconds", "count", "kept"),
    [
        (0.5, 1, "repeated"),
        (1.9, 1, "repeated"),
        (2.0, 1, "complete"),
        (2.9, 1, "complete"),
        (3.1, 2, "repeated"),
        (6, 3, "complete"),
    ],
)
def test_cuts_into_clips(seconds: float, count: int, kept: str, rng: np.random.Generator) -> None:
    wave = rng.uniform(-1, 1, round(seconds * RATE)).astype(np.float32)
    wave[0] = 1
    settings = AudioSettings(clip_seconds=2.0, min_seconds=0.1)
    clips = recordings.cut(recordings.of_samples(wave[:, None], RATE, settings), settings)
    assert [clip.start_seconds for clip in clips] == [2.0 * i for i in range(count)]
    assert {len(clip.samples) for clip in clips} == {2 * RATE}
    end = np.concatenate([clip.samples for clip in clips])
    known = min(len(wave), len(end))
    np.testing.assert_array_equal(end[:known], wave[:known])
    if kept == "repeated":
        last = wave[(count - 1) * 2 * RATE :]
        np.testing.assert_array_equal(end[len(wave) :], np.resize(last, 2 * RATE)[len(last) :])


def test_keeps_at_most_max_clips() -> None:
    recording = recordings.of_samples(damage.music(seconds=9), RATE, USUAL)
    assert len(recordings.cut(recording, USUAL.model_copy(update={"max_clips": 3}))) == 3


def test_leading_silence_is_trimmed() -> None:
    wave = np.pad(damage.music(seconds=4)[:, 0], RATE)
    first = recordings.cut(recordings.of_samples(wave[:, None].astype(np.float32), RATE, USUAL), USUAL)[0]
    assert first.start_seconds == pytest.approx(1.0, abs=2048 / RATE)


@pytest.mark.parametrize("gain_db", [-50, -20, 0, 20, 600])
def test_the_level_does_not_change_the_clips(gain_db: float) -> None:
    """Also beyond full scale, and at levels too low for librosa to trim."""
    wave = np.pad(damage.music(seconds=4), ((RATE, RATE), (0, 0))).astype(np.float32)
    expected = recordings.cut(recordings.of_samples(wave, RATE, USUAL), USUAL)
    result = recordings.cut(recordings.of_samples(wave * np.float32(10 ** (gain_db / 20)), RATE, USUAL), USUAL)
    assert [clip.start_seconds for clip in result] == [clip.start_seconds for clip in expected]
    np.testing.assert_allclose(result[0].samples, expected[0].samples, atol=1e-6)


def test_an_offset_stays() -> None:
    samples = 0.1 * damage.music() + 0.5
    result = recordings.load(wave_file(samples), USUAL)
    assert result.wave.mean() == pytest.approx(samples.mean() / samples.max(), rel=1e-3)


@pytest.mark.parametrize("container", ["wav", "flac", "mp3"])
@pytest.mark.parametrize("rest", [0, 1e-4])
def test_channels_that_cancel_give_the_first_channel(container: str, rest: float) -> None:
    samples = damage.music(channels=2)
    samples[:, 1] = -samples[:, 0] * (1 - rest)
    result = recordings.load(damage.encoded(samples, RATE, container), USUAL)
    first = recordings.load(damage.encoded(samples[:, :1], RATE, "wav"), USUAL)
    common = slice(2000, 60000)
    assert np.corrcoef(result.wave[common], first.wave[common])[0, 1] > 0.98


def test_quiet_stereo_is_mixed() -> None:
    samples = 1e-3 * damage.music(channels=2)
    result = recordings.load(wave_file(samples), USUAL)
    mean = samples.mean(axis=1)
    np.testing.assert_allclose(result.wave, mean / np.abs(mean).max(), atol=1e-5)


def test_each_fault_has_its_reason() -> None:
    sound = damage.music(channels=2)
    bad, infinite = sound.copy(), sound.copy()
    bad[50_000, 1], infinite[7, 0] = np.nan, np.inf
    assert refused(b"").reason == Reason.EMPTY
    assert refused(wave_file(sound[:0])).reason == Reason.EMPTY
    assert refused(wave_file(bad)).reason == Reason.NON_FINITE
    assert refused(wave_file(bad, 44100)).reason == Reason.NON_FINITE
    assert refused(wave_file(infinite)).reason == Reason.NON_FINITE
    assert refused(wave_file(sound * 1e300, subtype="DOUBLE")).reason == Reason.NON_FINITE
    assert refused(wave_file(sound * 0)).reason == Reason.SILENT
    assert refused(wave_file(sound * 1e-5)).reason == Reason.SILENT
    assert refused(wave_file(sound[:20_000])).reason == Reason.TOO_SHORT
    assert refused(wave_file(sound[:1])).reason == Reason.TOO_SHORT


@pytest.mark.parametrize("offset", ["channels", "rate", "length"])
def test_an_absurd_header_is_refused_before_memory_is_allocated(offset: str) -> None:
    content = bytearray(damage.sound_file("wav"))
    if offset == "channels":
        struct.pack_into("<HIIH", content, 22, 1000, RATE, RATE * 2000, 2000)
    elif offset == "rate":
        struct.pack_into("<I", content, 24, 2**31 - 1)
    else:
        content = bytearray(damage.sound_file("flac"))
        content[21:26] = bytes([content[21] | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF])
    tracemalloc.start()
    error = refused(bytes(content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.reason == Reason.ABSURD_HEADER
    assert "declares" in str(error)
    assert peak < 4 << 20


def test_a_length_beyond_the_limit_is_refused_whether_declared_or_not() -> None:
    limits = DecodingSettings(max_track_seconds=2)
    declared = refused(damage.sound_file("wav"), limits=limits)
    assert str(declared) == "declares 3 s, decoding.max_track_seconds=2"
    undeclared = refused(damage.bare_mp3(), limits=limits)
    assert undeclared.reason == Reason.ABSURD_HEADER
    assert "is longer than" in str(undeclared)


def test_a_long_file_needs_little_more_memory_than_its_waveform() -> None:
    content = damage.encoded(np.tile(damage.music(44100, 2), (60, 1)), 44100, "wav")
    tracemalloc.start()
    recording = recordings.load(content, AudioSettings())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert recording.seconds == pytest.approx(180)
    assert peak < 1.3 * recording.wave.nbytes


def test_a_file_that_may_not_be_read_has_its_own_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions are simulated, since root may read everything."""
    file = tmp_path / "private.wav"
    file.touch()
    errors: dict[Reason, list[OSError]] = {
        Reason.DENIED: [PermissionError(13, "no"), OSError("AWS Error ACCESS_DENIED during GetObject operation")],
        Reason.UNREADABLE: [IsADirectoryError(21, "no")],
    }
    for reason, error in [(reason, error) for reason, each in errors.items() for error in each]:
        monkeypatch.setattr(members, "read", Mock(side_effect=error))
        with pytest.raises(AudioError) as caught:
            recordings.read(str(file))
        assert caught.value.reason is reason
