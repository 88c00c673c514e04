"""Genres that the tag job writes into files, on request."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mutagen
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from library import read_genre
from saving import CLASSES, save_answers, save_model
from tag_jobs import rows, run

from genre.model import calibration
from genre.model.calibration import Calibration
from genre.storage import Location
from ray_jobs.engine import cli
from ray_jobs.tagging import genre_writing


def certain(tmp_path: Path, seed: int = 0) -> str:
    """Save a model whose validation predictions give the lowest threshold, so that no genre is unknown."""
    folder = save_model(tmp_path / "certain", seed=seed)
    labels = np.arange(30) % 3
    probabilities = np.where(np.eye(3)[labels] == 1, 0.34, 0.33).astype(np.float32)
    calibration.save(Location.of(folder), [str(n) for n in range(30)], labels, probabilities)
    return folder


def test_genres_are_written_only_on_request_and_never_over_another(
    music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = certain(tmp_path), tmp_path / "out"
    held = mutagen.File(music / "0.flac")
    held["genre"] = "Dixieland"
    held.save()
    before = {path.name: path.read_bytes() for path in music.iterdir()}
    wanted = (str(music), f"model={model}", f"output={out}", "min_precision=0.5")
    assert run(*wanted) == 0
    assert run(*wanted, "tag.write_genres=preview") == 0
    assert {path.name: path.read_bytes() for path in music.iterdir()} == before
    assert [row["action"] for row in rows(out / "tags/written.csv")] == ["kept", "would write", "would write"]
    capsys.readouterr()
    assert run(*wanted, "tag.write_genres=write") == 0
    assert "2 written, 1 kept, 0 unchanged because unknown" in capsys.readouterr().err
    assert read_genre(music / "0.flac") == "Dixieland"
    tags = {Path(row["path"]).name: row["genre"] for row in rows(out / "tags/tags.csv")}
    assert read_genre(music / "1.flac") == tags["1.flac"]
    # the job knows the files that it changed itself
    assert run(*wanted, "tag.write_genres=write") == 0
    assert "3 already done, 0 to do" in capsys.readouterr().err
    assert run(*wanted, "tag.write_genres=write", "tag.replace_genres=true") == 0
    assert read_genre(music / "0.flac") == tags["0.flac"]


def test_a_file_with_a_label_gets_the_label_and_not_the_prediction(
    music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The features of the same output are those that the model learned from, with labels of a person."""
    out = tmp_path / "out"
    corpus = ("corpus.kind=table", f"corpus.root={tmp_path / 'labels.csv'}", "prepare.max_reject_fraction=1")
    (tmp_path / "labels.csv").write_text(f"path,genre\n{music / '0.flac'},Reggae\n{music / '1.flac'},\n")
    assert cli.main("prepare", [*corpus, f"output={out}", "audio.clip_seconds=2", "cluster.cpus=1"]) == 0
    wanted = (str(music), f"model={certain(tmp_path)}", f"output={out}", "min_precision=0.5")
    capsys.readouterr()
    assert run(*wanted, "tag.write_genres=write") == 0
    assert "3 written, 0 unchanged because unknown, 1 file by the label" in capsys.readouterr().err
    assert read_genre(music / "0.flac") == "Reggae"
    tags = {Path(row["path"]).name: row["genre"] for row in rows(out / "tags/tags.csv")}
    assert tags["0.flac"] != "Reggae"  # the table says what the model predicts
    assert read_genre(music / "1.flac") == tags["1.flac"]
    written = rows(out / "tags/written.csv")  # says which genres are no predictions
    assert [json.loads(row["undo"])["labels"] for row in written] == [[["Reggae"]], [], []]


def test_labels_that_are_the_files_own_tags_are_not_written(music: Path, tmp_path: Path) -> None:
    """Some may be predictions of an earlier run, which a better model replaces."""
    held = mutagen.File(music / "0.flac")
    held["genre"] = "Dixieland"
    held.save()
    output = f"output={tmp_path / 'out'}"
    limits = ("prepare.max_reject_fraction=1", "audio.clip_seconds=2", "cluster.cpus=1")
    for kind, expected in (("tags", []), ("folder", ["genre"] * 3)):
        root = music if kind == "tags" else tmp_path / "labelled"
        if kind == "folder":
            shutil.copytree(music, root / "genre")
        assert cli.main("prepare", [f"corpus.kind={kind}", f"corpus.root={root}", f"{output}-{kind}", *limits]) == 0
        labels = genre_writing.labels_of(Location.of(f"{tmp_path / 'out'}-{kind}") / "features")
        assert labels["genre"].to_pylist() == expected
    assert len(genre_writing.labels_of(Location.of(tmp_path / "none"))) == 0
    (tmp_path / "corrections.csv").write_text(f"path,genre\n{music / '1.flac'},Polka\n")
    corrected = ["corpus.kind=tags", f"corpus.root={music}", f"corpus.corrections={tmp_path / 'corrections.csv'}"]
    assert cli.main("prepare", [*corrected, f"{output}-tags", *limits]) == 0
    labels = genre_writing.labels_of(Location.of(f"{tmp_path / 'out'}-tags") / "features")
    assert labels["genre"].to_pylist() == ["Polka"]  # a person's, whatever the tags say


def test_a_retrained_model_replaces_the_tags_and_all_files_can_still_be_taken_back(
    music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = certain(tmp_path), tmp_path / "out"
    before = {path.name: path.read_bytes() for path in music.iterdir()}
    wanted = (str(music), f"model={model}", f"output={out}", "min_precision=0.5", "tag.write_genres=write")
    assert run(*wanted) == 0
    written = [row["undo"] for row in rows(out / "tags/written.csv")]
    certain(tmp_path, seed=9)
    capsys.readouterr()
    assert run(*wanted) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.endswith("to tag again with this model, set tag.replace=true, which keeps written.csv")
    assert run(*wanted, "tag.replace=true", "--dry-run") == 0
    assert "tag: 3 files to do" in capsys.readouterr().err
    assert [row["undo"] for row in rows(out / "tags/written.csv")] == written
    assert (out / "tags/ledger.parquet").exists()  # a forecast removes nothing
    assert run(*wanted, "tag.replace=true") == 0
    assert "0 already done, 3 to do" in capsys.readouterr().err
    tags = {Path(row["path"]).name: row["genre"] for row in rows(out / "tags/tags.csv")}
    assert {path.name: read_genre(path) for path in music.iterdir()} == tags
    assert run(*wanted, "tag.replace=true") == 0
    assert "3 already done, 0 to do" in capsys.readouterr().err
    assert run(f"undo={out / 'tags/written.csv'}") == 0
    assert {path.name: path.read_bytes() for path in music.iterdir()} == before


def test_written_genres_are_taken_back(music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = certain(tmp_path), tmp_path / "out"
    wanted = (str(music), f"model={model}", f"output={out}", "min_precision=0.5")
    assert run(*wanted, "tag.write_genres=write") == 0
    capsys.readouterr()
    for expected in ("3 restored", "3 unchanged"):
        assert run(f"undo={out / 'tags/written.csv'}") == 0
        assert f"tag: taken back: {expected} -> {out / 'tags/undone.csv'}" in capsys.readouterr().err
        assert [read_genre(path) for path in sorted(music.iterdir())] == [None] * 3
    # the job knows the files that it changed itself
    assert run(*wanted) == 0
    assert "3 already done, 0 to do" in capsys.readouterr().err
    assert run("undo=nowhere.csv") == 1
    assert "nowhere.csv does not exist; name the written.csv in OUTPUT/tags" in capsys.readouterr().err


def test_several_genres_are_written_into_a_field_of_choice(music: Path, tmp_path: Path) -> None:
    model, out = certain(tmp_path), tmp_path / "out"
    wanted = (str(music), f"model={model}", f"output={out}", "min_precision=0.5", "tag.values=3")
    assert run(*wanted) == 0
    edit_probabilities(out, [[0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.3, 0.4, 0.3]])
    assert run(*wanted, "tag.write_genres=preview", "tag.field=custom") == 0
    planned = [row["genre"].split("; ") for row in rows(out / "tags/written.csv")]
    first, second, third = CLASSES
    assert planned == [[first], [first, second], [second, first, third]]
    for field in ("custom", "comment"):
        assert run(*wanted, "tag.write_genres=write", f"tag.field={field}") == 0
    files = [mutagen.File(path) for path in sorted(music.iterdir())]
    assert [file["genre_predicted"] for file in files] == [file["comment"] for file in files] == planned
    assert not any("genre" in file for file in files)
    assert run(f"undo={out / 'tags/written.csv'}") == 0
    assert not any(mutagen.File(path).tags for path in music.iterdir())


def test_an_album_agrees_on_request(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The three files are in one folder and have no tags: an album. Two are surely of one genre."""
    model, out = certain(tmp_path), tmp_path / "out"
    wanted = (str(music), f"model={model}", f"output={out}")
    assert run(*wanted, "min_precision=0", "tag.album=agree") == cli.WRONG_USE
    assert "tag.album=agree needs a known precision, but min_precision=0 asks for none" in capsys.readouterr().err
    assert run(*wanted, "min_precision=0.5") == 0
    assert "album" not in rows(out / "tags/tags.csv")[0]
    edit_probabilities(out, [[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.3, 0.4, 0.3]])
    half = Calibration(thresholds=(0.5,) * len(CLASSES)).reported
    monkeypatch.setattr(Calibration, "reported", lambda self, probabilities: half(probabilities))
    assert run(*wanted, "min_precision=0.5") == 0
    assert [row["genre"] for row in rows(out / "tags/tags.csv")] == [CLASSES[0], CLASSES[0], "unknown"]
    assert run(*wanted, "min_precision=0.5", "tag.album=agree", "tag.write_genres=write", "tag.values=3") == 0
    tags = rows(out / "tags/tags.csv")
    assert [row["genre"] for row in tags] == [CLASSES[0]] * 3
    assert [(row["album"], row["best"]) for row in tags] == [("agrees", CLASSES[0])] * 2 + [("filled", CLASSES[1])]
    assert mutagen.File(music / "2.flac")["genre"] == [CLASSES[0]]


def edit_probabilities(out: Path, probabilities: list[list[float]]) -> None:
    ledger = out / "tags/ledger.parquet"
    table = pq.read_table(ledger)
    column = pa.array(probabilities, pa.list_(pa.float32()))
    pq.write_table(table.set_column(table.column_names.index("probabilities"), "probabilities", column), ledger)


def test_unknown_genres_are_not_written(
    model: str, music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (f"model={model}", f"output={tmp_path / 'out'}", "min_precision=0.95", "tag.write_genres=write")
    save_answers(Location.of(model), len(CLASSES))
    assert run(str(music), *settings) == 0
    assert "3 unchanged because unknown" in capsys.readouterr().err
    assert read_genre(music / "1.flac") is None


def test_write_genres_needs_a_known_precision(music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = save_model(tmp_path / "silent", answers=False)
    assert run(str(music), f"model={silent}", "tag.write_genres=write") == 2
    assert "the model has no validation predictions" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["preview", "write"])
def test_write_genres_refuses_an_address(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the model and the music are read."""
    assert run("s3://bucket/music", f"tag.write_genres={mode}", "model=nowhere") == cli.WRONG_USE
    output = capsys.readouterr().err
    assert f"tag.write_genres={mode} changes files in local folders only, found inputs=s3://bucket/music" in output
    assert output.count("\n") == 1
