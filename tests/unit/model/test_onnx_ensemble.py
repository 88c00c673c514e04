"""An exported file in the place of a model's folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from conftest import REPOSITORY
from saving import CLASSES, FEATURES, save_model, song

from genre import Tagger
from genre.errors import ArtifactError, AudioError, ConfigError
from genre.model import checkpoint, graph_export, onnx_file
from genre.model.calibration import Calibration
from genre.model.card import read_card
from genre.model.saved_model import SavedEnsemble
from genre.settings import DecodingSettings
from genre.storage import Location


def export(folder: str, place: Path) -> Path:
    card, classifier = checkpoint.load(Location.of(folder))
    place.write_bytes(graph_export.to_onnx(card, classifier, Calibration(), onnx_file.metadata_of(Location.of(folder))))
    return place


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two models, each as a folder and as a file."""
    place = tmp_path_factory.mktemp("pair")
    folders = [save_model(place / name, name, seed=seed) for seed, name in enumerate(("cnn", "crnn"))]
    return folders, [export(folder, place / f"{Path(folder).name}.onnx") for folder in folders]


def close(found, expected):
    assert dict(found.genres) == pytest.approx(dict(expected.genres), abs=1e-3)
    assert (found.genre, found.seconds, found.content) == (expected.genre, expected.seconds, expected.content)
    assert [(m.start, m.end) for m in found.timeline] == [(m.start, m.end) for m in expected.timeline]


@pytest.mark.parametrize("precision", [0, 0.5, 0.99])
def test_a_file_answers_like_its_folder_at_any_precision(pair, tmp_path, precision):
    folders, files = pair
    path = song(tmp_path / "song.mp3", seconds=5, rate=44100)
    expected, found = Tagger.load(folders[0], precision), Tagger.load(files[0], precision)
    assert found.calibration == expected.calibration
    assert found.calibration.tracks
    assert found.cards == expected.cards
    close(found(path), expected(path))


def test_files_answer_together_like_their_folders(pair, tmp_path):
    folders, files = pair
    path = song(tmp_path / "song.flac", seconds=3)
    expected, found = Tagger.load(folders), Tagger.load(files)
    assert found.calibration == expected.calibration
    close(found(path), expected(path))
    assert SavedEnsemble.read([Location.of(file) for file in files], 0.8).weights == [card_weights(f) for f in folders]


def card_weights(folder: str) -> str:
    return read_card(Location.of(folder))[1]


def test_arrays_and_bad_files(pair, tmp_path):
    folders, files = pair
    expected, found = Tagger.load(folders[0]), Tagger.load(files[0], limits=DecodingSettings(max_track_seconds=4))
    import soundfile

    wave, rate = soundfile.read(song(tmp_path / "song.wav", seconds=3, rate=48000), dtype="float32")
    close(found.tag_arrays([wave], rate)[0], expected.tag_arrays([wave], rate)[0])
    (tmp_path / "bad.mp3").write_bytes(b"no music")
    files = [tmp_path / "bad.mp3", song(tmp_path / "long.wav", seconds=5), tmp_path / "missing.wav"]
    assert [tags.reason for tags in found.tag(files)] == ["unsupported", "absurd_header", "unreadable"]
    with pytest.raises(AudioError, match=r"decoding\.max_track_seconds=4"):
        found(files[1])


def test_the_metadata_is_what_onnx_reads(pair):
    _, files = pair
    expected = {entry.key: entry.value for entry in onnx.load(files[0]).metadata_props}
    assert onnx_file.metadata(Location.of(files[0])) == expected
    assert {"model", "validation", "classes", "temperature"} <= expected.keys()


def test_a_model_without_answers_is_not_calibrated(tmp_path):
    file = export(save_model(tmp_path / "silent", answers=False), tmp_path / "silent.onnx")
    assert Tagger.load(file).calibration.tracks == 0


def test_what_does_not_fit_is_refused(pair, tmp_path):
    folders, files = pair
    with pytest.raises(ArtifactError, match="a folder and an exported file do not answer together"):
        Tagger.load([files[0], folders[1]])
    bands = export(
        save_model(tmp_path / "bands", features=(*FEATURES, "spectrogram.hop_length=256")), tmp_path / "b.onnx"
    )
    with pytest.raises(ArtifactError, match=r"spectrogram\.hop_length is 256, expected 512"):
        Tagger.load([files[0], bands])
    with pytest.raises(ConfigError, match="name the model's folder"):
        Tagger.load(files[0]).classifiers  # noqa: B018


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content[: len(content) // 2], "not an ONNX file, or cut short"),
        (lambda content: b"", "was not written by this version's export"),
        (lambda content: b"\x00\xff" * 100, "not an ONNX file, or cut short"),
        (lambda content: content.replace(b'"schema_version": 1', b'"schema_version": 9'), "not a model of version 1"),
        (lambda content: content.replace(b'"clip_seconds"', b'"clip_secondz"'), "do not fit the model"),
        (lambda content: content.replace(b'"trim_db": 60.0', b'"trim_db": -9.0'), "do not fit the model"),
        (lambda content: content.replace(b'"trim_db": 60.0', b'"trim_db": 59.0'), "do not fit the model"),
        (lambda content: content.replace(b'"audio": {', b'"sound": {'), "cannot take audio"),
        (lambda content: content.replace(b'"weights": "', b'"weights": "0', 1), "not an ONNX file|not of the weights"),
    ],
)
def test_an_altered_file_is_refused(pair, tmp_path, change, says):
    content = pair[1][0].read_bytes()
    altered = change(content)
    assert altered != content
    (tmp_path / "altered.onnx").write_bytes(altered)
    with pytest.raises(ArtifactError, match=says):
        Tagger.load(tmp_path / "altered.onnx")
    with pytest.raises(ArtifactError, match="there is no such file"):
        Tagger.load(tmp_path / "missing.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ArtifactError, match="there is no such file"):
        Tagger.load(tmp_path / "folder.onnx")


def test_a_file_in_the_place_of_a_folder_is_named(pair):
    with pytest.raises(ArtifactError, match="an exported file, where a model's folder is needed"):
        checkpoint.load(Location.of(pair[1][0]))


def test_nothing_heavy_is_imported_for_a_file(pair, tmp_path):
    path = song(tmp_path / "song.wav")
    heavy = ("torch", "ray", "librosa", "scipy.fft", "cv2", "pandas", "sklearn", "numba", "jinja2", "onnx")
    code = (
        "import sys; from ray_jobs.engine import command;"
        f"done = command.main(['tag', {str(path)!r}, 'model={pair[1][0]}']);"
        f"sys.exit(done or ' '.join(sorted(set({heavy}) & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    assert all(genre in done.stdout for genre in CLASSES)
