"""`Tagger`: genres of files and arrays with one or several saved models."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import REPOSITORY
from saving import CLASSES, FEATURES, RATE, save_model, song

import genre
from genre import Tagger
from genre.errors import ArtifactError, AudioError, ConfigError
from genre.features.preparing.tracks import clips_of
from genre.settings import DecodingSettings


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of an untrained model with the validation predictions of a good one."""
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tagger(model: str) -> Tagger:
    return Tagger.load(model, precision=0)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import genre, sys; genre.Tagger; assert not {'torch', 'cv2', 'onnxruntime', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    assert not hasattr(genre, "Taggers")


def test_a_song_gets_all_genres_with_probabilities_best_first(tagger: Tagger, tmp_path: Path) -> None:
    tags = tagger(song(tmp_path / "song.wav", seconds=5))
    names, probabilities = zip(*tags.genres, strict=True)
    assert sorted(names) == sorted(CLASSES)
    assert list(probabilities) == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert tags.genre == names[0]
    assert tags.seconds == pytest.approx(5, abs=0.01)


def test_the_timeline_covers_all_clips_of_a_long_track(tagger: Tagger, tmp_path: Path) -> None:
    tags = tagger(song(tmp_path / "song.wav", seconds=5))
    assert [moment.start for moment in tags.timeline] == pytest.approx([0, 2, 4], abs=0.1)
    assert tags.timeline[-1].end == pytest.approx(5, abs=0.05)
    assert all(sum(p for _, p in moment.genres) == pytest.approx(1, abs=1e-5) for moment in tags.timeline)


def test_arrays_and_files_of_the_same_sound_get_the_same_genres(tagger: Tagger, tmp_path: Path) -> None:
    path = song(tmp_path / "song.wav", rate=44100)
    wave, rate = soundfile.read(path, dtype="float32")
    (from_array,) = tagger.tag_arrays([wave], rate)
    stereo = tagger.tag_arrays([np.stack([wave, wave], axis=1)], rate)[0]
    expected = dict(tagger(path).genres)
    assert dict(from_array.genres) == pytest.approx(expected, abs=1e-4)
    assert dict(stereo.genres) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("waveforms", "found"),
    [
        (np.zeros(RATE), "found an array of shape ()"),
        (np.zeros((RATE, 2)), f"found a single array of shape ({RATE}, 2)"),
        ([np.zeros((2, RATE))], f"found an array of shape (2, {RATE})"),  # as librosa returns stereo
        ([np.zeros((1, RATE, 2))], f"found an array of shape (1, {RATE}, 2)"),
    ],
)
def test_arrays_that_are_no_waveforms_are_refused(tagger: Tagger, waveforms: Any, found: str) -> None:
    message = f"waveforms: {found}; give a list of arrays (frames,) or (frames, channels)"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        tagger.tag_arrays(waveforms, RATE)


def test_arrays_may_be_rows_of_an_array(tagger: Tagger, rng: np.random.Generator) -> None:
    waves: Any = rng.uniform(-1, 1, (2, 3 * RATE, 2)).astype(np.float32)
    assert tagger.tag_arrays(waves[..., 0], RATE) == tagger.tag_arrays(list(waves[..., 0]), RATE)
    assert len(tagger.tag_arrays(waves, RATE)) == 2
    with pytest.raises(AudioError, match="no samples"):
        tagger.tag_arrays([waves[0, :0]], RATE)


def test_an_unreadable_file_does_not_affect_the_others(tagger: Tagger, tmp_path: Path) -> None:
    good = song(tmp_path / "good.wav")
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"this is not music")
    results = tagger.tag([bad, good, tmp_path / "missing.wav", good])
    assert [result.reason for result in results] == ["unsupported", None, "unreadable", None]
    assert results[1].genres == results[3].genres
    with pytest.raises(AudioError):
        tagger(bad)


def test_an_ensemble_averages_probabilities(tmp_path: Path) -> None:
    folders = [save_model(tmp_path / str(seed), seed=seed, answers=False) for seed in (1, 2)]
    path = song(tmp_path / "song.wav", seconds=1.5)
    single = [dict(Tagger.load(folder)(path).genres) for folder in folders]
    both = dict(Tagger.load(folders)(path).genres)
    assert both == pytest.approx({name: (single[0][name] + single[1][name]) / 2 for name in CLASSES}, abs=1e-5)


def test_a_probability_below_the_threshold_is_unknown(model: str, tmp_path: Path) -> None:
    path = song(tmp_path / "song.wav")
    strict, lenient = Tagger.load(model, precision=0.99)(path), Tagger.load(model, precision=0)(path)
    assert strict.genre == "unknown"
    assert lenient.genre == strict.genres[0][0]


def test_probabilities_are_those_of_training_after_calibration(tagger: Tagger, tmp_path: Path) -> None:
    path = song(tmp_path / "song.wav", seconds=1.5)
    track = tagger.decode(path)
    clips = clips_of([track], tagger.cards[0].shape)
    raw = tagger.models[0].predict(clips)
    expected = tagger.calibration(raw)[0]
    assert dict(tagger(path).genres) == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-6)
    assert tagger.calibration.temperature != 1


def test_models_of_other_genres_or_features_are_refused(tmp_path: Path) -> None:
    first = save_model(tmp_path / "a")
    genres = save_model(tmp_path / "b", classes=("folk", "jazz", "rock"))
    bands = save_model(tmp_path / "c", features=(*FEATURES, "spectrogram.hop_length=256"))
    with pytest.raises(ArtifactError, match="only models of the same genres"):
        Tagger.load([first, genres])
    with pytest.raises(ArtifactError, match=r"spectrogram\.hop_length is 256, expected 512"):
        Tagger.load([first, bands])
    with pytest.raises(ConfigError, match="no model was named"):
        Tagger.load([])
    with pytest.raises(ConfigError, match="precision: found 2"):
        Tagger.load(first, precision=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card["features"]["spectrogram"].update(n_fft=1024), "do not fit the model"),
        (lambda card: card["features"]["spectrogram"].update(n_mels=40), "do not fit the model"),
        (lambda card: card["features"].pop("audio"), "cannot take audio"),
        (lambda card: card.pop("classes"), "missing or altered"),
        (lambda card: card.update(weights="0" * 64), "not the weights that model.json lists"),
    ],
)
def test_an_altered_model_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    save_model(tmp_path, answers=False)
    path = tmp_path / "model.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match=message):
        Tagger.load(tmp_path)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_of_a_model_is_named(tmp_path: Path, name: str) -> None:
    save_model(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        Tagger.load(tmp_path)


def test_limits_reach_the_decoder(model: str, tmp_path: Path) -> None:
    path = song(tmp_path / "song.wav", seconds=4)
    with pytest.raises(AudioError, match=r"decoding\.max_track_seconds=2"):
        Tagger.load(model, limits=DecodingSettings(max_track_seconds=2))(path)


def test_other_sample_rates_are_resampled(tagger: Tagger) -> None:
    time = np.arange(2 * 48000) / 48000
    wave = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    (fast,) = tagger.tag_arrays([wave], 48000)
    (slow,) = tagger.tag_arrays([np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE).astype(np.float32)], RATE)
    assert dict(fast.genres) == pytest.approx(dict(slow.genres), abs=0.05)
