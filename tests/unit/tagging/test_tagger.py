"""The tagger in Python, and the ledger and file tags that the tag job is made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import mutagen
import numpy as np
import pytest
import soundfile
from conftest import REPOSITORY
from saving import CLASSES, FEATURES, RATE, save_model, song

import genre
from genre import Tagger
from genre.errors import ArtifactError, AudioError, ConfigError
from genre.model.classifier import predict
from genre.model.saved_model import SavedEnsemble
from genre.settings import DecodingSettings
from genre.storage import Location
from genre.tagging import audio_files, file_tags, tag_table
from genre.tagging.file_tags import Action
from genre.tagging.tag_table import TagTable


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tagger(model):
    return Tagger.load(model, precision=0)


def test_importing_the_package_does_not_import_torch():
    code = "import genre, sys; genre.Tagger; assert not {'torch', 'cv2', 'onnxruntime', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    assert not hasattr(genre, "Taggers")


def test_a_song_gets_every_genre_with_a_probability_best_first(tagger, tmp_path):
    tags = tagger(song(tmp_path / "song.wav", seconds=5))
    names, probabilities = zip(*tags.genres, strict=True)
    assert sorted(names) == sorted(CLASSES)
    assert list(probabilities) == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert tags.genre == names[0]
    assert tags.seconds == pytest.approx(5, abs=0.01)


def test_the_timeline_covers_a_long_track_clip_by_clip(tagger, tmp_path):
    tags = tagger(song(tmp_path / "song.wav", seconds=5))
    assert [moment.start for moment in tags.timeline] == pytest.approx([0, 2, 4], abs=0.1)
    assert tags.timeline[-1].end == pytest.approx(5, abs=0.05)
    assert all(sum(p for _, p in moment.genres) == pytest.approx(1, abs=1e-5) for moment in tags.timeline)


def test_arrays_and_files_of_the_same_sound_get_the_same_answer(tagger, tmp_path):
    path = song(tmp_path / "song.wav", rate=44100)
    wave, rate = soundfile.read(path, dtype="float32")
    (from_array,) = tagger.tag_arrays([wave], rate)
    stereo = tagger.tag_arrays([np.stack([wave, wave], axis=1)], rate)[0]
    expected = dict(tagger(path).genres)
    assert dict(from_array.genres) == pytest.approx(expected, abs=1e-4)
    assert dict(stereo.genres) == pytest.approx(expected, abs=1e-4)


def test_a_bad_file_costs_only_itself(tagger, tmp_path):
    good = song(tmp_path / "good.wav")
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"this is not music")
    results = tagger.tag([bad, good, tmp_path / "missing.wav", good])
    assert [result.reason for result in results] == ["unsupported", None, "unreadable", None]
    assert results[1].genres == results[3].genres
    with pytest.raises(AudioError):
        tagger(bad)


def test_an_ensemble_answers_with_the_mean(tmp_path):
    folders = [save_model(tmp_path / str(seed), seed=seed, answers=False) for seed in (1, 2)]
    path = song(tmp_path / "song.wav", seconds=1.5)
    single = [dict(Tagger.load(folder)(path).genres) for folder in folders]
    both = dict(Tagger.load(folders)(path).genres)
    assert both == pytest.approx({name: (single[0][name] + single[1][name]) / 2 for name in CLASSES}, abs=1e-5)


def test_a_model_that_is_not_sure_says_unknown(model, tmp_path):
    path = song(tmp_path / "song.wav")
    careful, certain = Tagger.load(model, precision=0.99)(path), Tagger.load(model, precision=0)(path)
    assert careful.genre == "unknown"
    assert certain.genre == careful.genres[0][0]


def test_calibrated_probabilities_are_the_trained_ones_corrected(model, tagger, tmp_path):
    path = song(tmp_path / "song.wav", seconds=1.5)
    track = tagger.decode(path)
    clips = collection_clips(tagger, track)
    raw = predict(tagger.classifiers[0], clips, tagger.cards[0].frames(), tagger.cards[0].eval_windows)
    expected = tagger.calibration(raw)[0]
    assert dict(tagger(path).genres) == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-6)
    assert tagger.calibration.temperature != 1


def collection_clips(tagger, track):
    from genre.model.spectrogram_decoder import clips_of

    return clips_of([track], tagger.cards[0].shape)


def test_models_that_do_not_fit_together_are_refused(tmp_path):
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
    ("change", "says"),
    [
        (lambda card: card["features"]["spectrogram"].update(n_fft=1024), "do not fit the model"),
        (lambda card: card["features"]["spectrogram"].update(n_mels=40), "do not fit the model"),
        (lambda card: card["features"].pop("audio"), "cannot take audio"),
        (lambda card: card.pop("classes"), "missing or altered"),
        (lambda card: card.update(weights="0" * 64), "not the weights that model.json lists"),
    ],
)
def test_an_altered_model_is_refused(tmp_path, change, says):
    save_model(tmp_path, answers=False)
    place = tmp_path / "model.json"
    card = json.loads(place.read_text())
    change(card)
    place.write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match=says):
        Tagger.load(tmp_path)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_of_a_model_is_named(tmp_path, name):
    save_model(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        Tagger.load(tmp_path)


# ---- the ledger ----


@pytest.fixture
def jury(model):
    return SavedEnsemble.read([Location.of(model)], 0.8)


def tag_all(place, jury, tagger, music):
    """One run of the job, without Ray; returns the paths that were answered anew."""
    ledger = TagTable(Location.of(place), jury)
    files = audio_files.list_files(str(music))
    todo = ledger.pending(files)
    rows = tag_table.tag_files(tagger, todo, ledger.contents)
    ledger.add(rows)
    ledger.finish(files, Location.of(music), top_k=2)
    decoded = [row["path"] for row in rows.to_pylist() if row["probabilities"] or row["reason"]]
    return sorted(os.path.relpath(path, music) for path in decoded)


def test_only_new_content_is_tagged(tmp_path, jury, tagger):
    music = tmp_path / "music"
    for number in range(3):
        song(music / f"{number}.wav", hertz=200 + 100 * number)
    (music / "bad.mp3").write_bytes(b"nothing")
    out = tmp_path / "tags"
    assert tag_all(out, jury, tagger, music) == ["0.wav", "1.wav", "2.wav", "bad.mp3"]
    assert tag_all(out, jury, tagger, music) == []
    (music / "0.wav").rename(music / "renamed.wav")
    os.utime(music / "1.wav", (1, 1))
    assert tag_all(out, jury, tagger, music) == []
    song(music / "1.wav", hertz=999)
    song(music / "new.wav", hertz=123)
    assert tag_all(out, jury, tagger, music) == ["1.wav", "new.wav"]
    tags = Location.of(out / "tags.parquet").read_table()
    assert [os.path.basename(path) for path in tags["path"].to_pylist()] == ["1.wav", "2.wav", "new.wav", "renamed.wav"]
    assert tags.column_names == ["path", "genre", "probability", "best", "genre_2", "probability_2", "seconds"]
    assert "unsupported" in (out / "failures.csv").read_text()
    assert len(Location.of(out / "timeline.parquet").read_table()) >= len(tags)


def test_parts_of_a_killed_run_count(tmp_path, jury, tagger):
    music = tmp_path / "music"
    for number in range(3):
        song(music / f"{number}.wav", hertz=200 + 100 * number)
    files = audio_files.list_files(str(music))
    ledger = TagTable(Location.of(tmp_path / "tags"), jury)
    ledger.add(tag_table.tag_files(tagger, files.slice(0, 2), {}))
    again = TagTable(Location.of(tmp_path / "tags"), jury)
    assert [os.path.basename(path) for path in again.pending(files)["path"].to_pylist()] == ["2.wav"]


def test_failures_are_tried_again_when_told(tmp_path, jury, tagger):
    music = tmp_path / "music"
    music.mkdir()
    (music / "bad.mp3").write_bytes(b"nothing")
    tag_all(tmp_path / "tags", jury, tagger, music)
    files = audio_files.list_files(str(music))
    ledger = TagTable(Location.of(tmp_path / "tags"), jury)
    assert len(ledger.pending(files)) == 0
    assert len(ledger.pending(files, retry_failures=True)) == 1


def test_tags_of_another_model_are_not_mixed(tmp_path, jury):
    TagTable(Location.of(tmp_path / "tags"), jury)
    other = SavedEnsemble.read([Location.of(save_model(tmp_path / "other", seed=9))], 0.8)
    with pytest.raises(ArtifactError, match=r"holds tags of .*; choose another output"):
        TagTable(Location.of(tmp_path / "tags"), other)


def test_a_link_out_of_the_collection_is_not_followed(tmp_path, caplog):
    song(tmp_path / "elsewhere" / "secret.wav")
    song(tmp_path / "music" / "open.wav")
    (tmp_path / "music" / "link.wav").symlink_to(tmp_path / "elsewhere" / "secret.wav")
    files = audio_files.list_files(str(tmp_path / "music"))
    assert [os.path.basename(path) for path in files["path"].to_pylist()] == ["open.wav"]
    assert "links not followed" in caplog.text


def test_an_empty_folder_and_a_wrong_path_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no audio file"):
        audio_files.list_files(str(tmp_path))
    with pytest.raises(ConfigError, match="does not exist"):
        audio_files.list_files(str(tmp_path / "nowhere"))


def test_a_file_that_may_not_be_read_is_a_failure_and_tried_again(tmp_path, jury, model, monkeypatch):
    """Root may read everything, so the refusal is played."""
    music = tmp_path / "music"
    song(music / "mine.wav")

    def refuse(path, timeout):
        raise AudioError(genre.errors.Reason.UNREADABLE, "Permission denied")

    def denied(self):
        raise PermissionError(13, "Permission denied")

    tagger = Tagger.load(model)
    with monkeypatch.context() as patch:
        patch.setattr(tagger._ensemble._decoder, "_kernel", refuse)
        patch.setattr(Location, "sha256", denied)
        assert tag_all(tmp_path / "tags", jury, tagger, music) == ["mine.wav"]
    assert "Permission denied" in (tmp_path / "tags" / "failures.csv").read_text()
    assert tag_all(tmp_path / "tags", jury, tagger, music) == ["mine.wav"]
    assert len(Location.of(tmp_path / "tags" / "tags.parquet").read_table()) == 1


# ---- genres in the files themselves ----


@pytest.mark.parametrize("suffix", ["mp3", "flac", "ogg", "wav", "aiff"])
def test_a_genre_is_written_read_and_never_overwritten_untold(tmp_path, suffix):
    path = song(tmp_path / f"song.{suffix}", seconds=1)
    before, _ = soundfile.read(path)
    assert file_tags.write_genre(str(path), "jazz", preview=True).action == Action.WOULD_WRITE
    assert file_tags.read_genre(str(path)) is None
    assert file_tags.write_genre(str(path), "jazz").action == Action.WRITTEN
    assert file_tags.read_genre(str(path)) == "jazz"
    assert file_tags.write_genre(str(path), "rock") == file_tags.Result(Action.KEPT, "jazz")
    assert file_tags.read_genre(str(path)) == "jazz"
    assert file_tags.write_genre(str(path), "rock", replace=True) == file_tags.Result(Action.WRITTEN, "jazz")
    assert file_tags.read_genre(str(path)) == "rock"
    after, _ = soundfile.read(path)
    assert np.array_equal(before, after)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_other_tags_stay(tmp_path):
    path = song(tmp_path / "song.flac", seconds=1)
    file = mutagen.File(path)
    file["artist"] = "somebody"
    file.save()
    file_tags.write_genre(str(path), "jazz")
    assert mutagen.File(path)["artist"] == ["somebody"]


def test_a_file_that_takes_no_tag_is_left_as_it_was(tmp_path):
    path = tmp_path / "song.mp3"
    path.write_bytes(b"not music")
    outcome = file_tags.write_genre(str(path), "jazz")
    assert outcome.action == Action.FAILED
    assert outcome.message
    assert path.read_bytes() == b"not music"
    assert file_tags.write_genre(str(tmp_path / "gone.mp3"), "jazz").action == Action.FAILED


def test_limits_reach_the_decoder(model, tmp_path):
    path = song(tmp_path / "song.wav", seconds=4)
    with pytest.raises(AudioError, match=r"decoding\.max_track_seconds=2"):
        Tagger.load(model, limits=DecodingSettings(max_track_seconds=2))(path)


def test_rates_other_than_the_models_are_resampled(tagger):
    time = np.arange(2 * 48000) / 48000
    wave = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    (fast,) = tagger.tag_arrays([wave], 48000)
    (slow,) = tagger.tag_arrays([np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE).astype(np.float32)], RATE)
    assert dict(fast.genres) == pytest.approx(dict(slow.genres), abs=0.05)
