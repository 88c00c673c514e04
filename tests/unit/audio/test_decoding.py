"""Decoders: every container, damaged headers, and files with many kinds of faults."""

from __future__ import annotations

import collections
import contextlib
import struct
from pathlib import Path

import damage
import numpy as np
import pytest
from library import encoded_by_pyav

from genre.audio import containers, recordings
from genre.audio.isolation import IsolatedFunction
from genre.errors import AudioError, Reason
from genre.features.preparing.tracks import PreparedTrack, TrackPreparer
from genre.features.recipe import Recipe
from genre.settings import AudioSettings, DecodingSettings, SpectrogramSettings

RATE = 22050
SETTINGS = AudioSettings(clip_seconds=3.0)
RECIPE = Recipe(audio=SETTINGS, spectrogram=SpectrogramSettings(n_mels=32), decoding=DecodingSettings())


def load(content: bytes, **limits: float) -> recordings.Recording:
    return recordings.load(content, SETTINGS, DecodingSettings(**limits))


@pytest.mark.parametrize("container", [*damage.CONTAINERS, "m4a"])
def test_reads_every_container(container: str) -> None:
    result = load(damage.sound_file(container))
    assert (result.sample_rate, result.channels, result.truncated) == (RATE, 2, False)
    assert result.seconds == pytest.approx(damage.SECONDS, abs=0.1)
    expected = load(damage.sound_file("wav")).wave
    shift = int(np.argmax(np.correlate(result.wave[: 30_000 + 2500], expected[:30_000])))  # the encoder's delay
    common = min(len(result.wave) - shift, len(expected))
    assert np.corrcoef(result.wave[shift : shift + common], expected[:common])[0, 1] > 0.95


@pytest.mark.parametrize("subtype", damage.SUBTYPES)
def test_reads_every_subtype(subtype: str) -> None:
    result = load(damage.encoded(damage.music(), RATE, "wav", subtype))
    expected = load(damage.encoded(damage.music(), RATE, "wav", "DOUBLE"))
    assert not result.truncated
    assert np.corrcoef(result.wave[: len(expected.wave)], expected.wave)[0, 1] > 0.97


def test_wavpack_is_read_as_the_same_sound_and_refused_when_cut() -> None:
    samples = damage.music(44100, 1, 10)
    content = encoded_by_pyav(samples, 44100, ".wv")
    result, expected = load(content), load(damage.encoded(samples, 44100, "wav"))
    assert (result.truncated, len(result.wave)) == (False, len(expected.wave))
    assert np.abs(result.wave - expected.wave).max() < 1e-4  # 16 bits
    with pytest.raises(AudioError, match="FFmpeg: "):
        load(content[: int(0.6 * len(content))])


def test_an_id3_tag_in_front_does_not_hide_the_format() -> None:
    """Some programs put one before AAC, Monkey's Audio and Musepack."""
    content = encoded_by_pyav(damage.music(22050, 1, 3), 22050, ".wv")
    tag = b"ID3\4\0\0\0\0\7\x68" + bytes(1000)
    assert np.array_equal(load(tag + content).wave, load(content).wave)


@pytest.mark.parametrize("container", ["wav", "flac", "ogg", "mp3", "aiff", "au"])
@pytest.mark.parametrize("share", [0.9, 0.6])
def test_a_slightly_truncated_file_is_kept_and_marked(container: str, share: float) -> None:
    content = damage.encoded(damage.music(44100, 2, 10), 44100, container)
    result = load(content[: int(share * len(content))])
    assert result.truncated
    assert (
        share - 0.2 < result.seconds / 10 < share + 0.1
    )  # seconds are not proportional to bytes where the bit rate varies


@pytest.mark.parametrize("container", ["wav", "flac", "mp3", "aiff", "au"])
def test_a_heavily_truncated_file_is_refused(container: str) -> None:
    content = damage.encoded(damage.music(44100, 2, 10), 44100, container)
    with pytest.raises(AudioError, match="declared samples decode") as caught:
        load(content[: int(0.35 * len(content))])
    assert caught.value.reason == Reason.TRUNCATED
    assert load(content[: int(0.35 * len(content))], min_decoded_fraction=0.1).truncated


def test_samples_before_a_fault_are_kept() -> None:
    content = bytearray(damage.encoded(damage.music(44100, 2, 20), 44100, "flac"))
    undamaged = load(bytes(content)).wave
    middle = int(0.7 * len(content))
    content[middle : middle + 300] = bytes(300)
    result = load(bytes(content))
    assert result.truncated
    assert 0.6 < result.seconds / 20 < 0.8
    same = len(result.wave) - RATE // 10
    ratio = (
        undamaged[:same] @ result.wave[:same] / (undamaged[:same] @ undamaged[:same])
    )  # both are normalised, to different peaks
    np.testing.assert_allclose(result.wave[:same], ratio * undamaged[:same], atol=1e-5)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_recording_without_a_length_is_read_to_its_end(size: int) -> None:
    content = bytearray(damage.sound_file("wav"))
    struct.pack_into("<I", content, 40, size)
    result = load(bytes(content))
    assert not result.truncated
    assert result.seconds == damage.SECONDS


def test_garbage_after_the_sound_is_not_read() -> None:
    sound = damage.sound_file("wav")
    for tail in (b"TAG" + bytes(125), b"RIFF", b"\xff" * 501, damage.sound_file("aiff")):
        assert load(sound + tail).wave.tobytes() == load(sound).wave.tobytes()


def test_an_mp3_without_a_length_is_read_to_its_end() -> None:
    """libsndfile alone would stop at its estimate, here a third of the length."""
    content = damage.bare_mp3(12)
    result = load(content)
    assert result.seconds == pytest.approx(12, abs=0.2)
    assert not result.truncated
    assert containers.declares_no_length(containers.repaired(content))
    tagged = b"ID3\x03\x00\x00\x00\x00\x07\x68" + bytes(1000) + content
    assert load(tagged).wave.tobytes() == result.wave.tobytes()


def test_files_with_a_length_are_not_changed() -> None:
    for container in damage.CONTAINERS:
        content = damage.sound_file(container)
        assert containers.repaired(content) == content
        assert containers.share_present(content) == 1
        assert not containers.ends_early(content)


@pytest.mark.parametrize(
    "start", [b"RIFF", b"RF64", b"FORM", b"caff", b".snd", b"OggS", b"ID3\x04", b"\xff\xfb\x90\x64"]
)
def test_header_readers_accept_any_bytes(start: bytes, rng: np.random.Generator) -> None:
    for length in [*range(40), 100, 1000]:
        content = start + rng.bytes(length)
        containers.repaired(content)
        containers.share_present(content)
        containers.ends_early(content)


def test_content_without_a_decoder_is_unsupported() -> None:
    for content in (b"<html></html>", bytes(5000), b"\x89PNG\r\n\x1a\n" + bytes(100)):
        with pytest.raises(AudioError) as caught:
            load(content)
        assert caught.value.reason == Reason.UNSUPPORTED


def test_a_damaged_mpeg4_file_raises_only_audio_errors(rng: np.random.Generator) -> None:
    content = damage.sound_file("m4a")
    for _ in range(30):
        edited = np.frombuffer(content, np.uint8).copy()
        edited[rng.integers(0, len(edited), 50)] ^= 0xFF
        with contextlib.suppress(AudioError):
            load(edited.tobytes())


def prepare_all(folder: Path, count: int, seed: int) -> collections.Counter[str]:
    """Decode a folder of damaged files in a child process and count the outcomes; each must be an expected one."""
    runner = IsolatedFunction(TrackPreparer, RECIPE)
    outcomes: collections.Counter[str] = collections.Counter()
    try:
        for case, path in zip(damage.cases(count, seed), damage.write(folder, count, seed), strict=True):
            try:
                track = runner(str(path), 30.0)
            except AudioError as error:
                outcome = error.reason.value
            else:
                assert isinstance(track, PreparedTrack)
                assert track.clips
                outcome = damage.CLIPS
            assert case.outcome is None or outcome in case.outcome, f"{path.name}: {outcome}"
            outcomes[outcome] += 1
    finally:
        runner.close()
    assert not outcomes["crashed"] + outcomes["timed_out"]
    return outcomes


def test_damaged_files_give_clips_or_a_reason(tmp_path: Path) -> None:
    outcomes = prepare_all(tmp_path, 120, seed=0)
    assert outcomes.total() == 120
    assert outcomes.keys() >= {"clips", "empty", "unsupported", "absurd_header", "silent", "non_finite"}


@pytest.mark.slow
def test_many_damaged_files_give_clips_or_a_reason(tmp_path: Path) -> None:
    outcomes = prepare_all(tmp_path, 900, seed=1)
    assert outcomes.keys() >= {"clips", "unreadable", "truncated", "too_short"}
