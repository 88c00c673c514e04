"""The tag table of a collection: which files are done, which are pending, and the tables written from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from saving import save_model, song

from genre import Tagger
from genre.audio.isolation import IsolatedKernel
from genre.errors import ArtifactError, AudioError, ConfigError, Reason
from genre.model.saved_model import SavedEnsemble
from genre.storage import Location
from genre.tagging import audio_files, tag_table
from genre.tagging.tag_table import TagTable


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of an untrained model with the validation answers of a good one."""
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def ensemble(model: str) -> SavedEnsemble:
    return SavedEnsemble.read([Location.of(model)], 0.8)


@pytest.fixture(scope="module")
def tagger(model: str) -> Tagger:
    return Tagger.load(model, precision=0)


def tag_all(folder: Path, ensemble: SavedEnsemble, tagger: Tagger, music: Path) -> list[str]:
    """Do one run of the job, without Ray; return the paths that were decoded."""
    table = TagTable(Location.of(folder), ensemble)
    files = audio_files.list_files(str(music))
    rows = tag_table.tag_files(tagger, table.pending(files), table.contents)
    table.add(rows)
    table.finish(files, Location.of(music), top_k=2)
    decoded = [row["path"] for row in rows.to_pylist() if row["probabilities"] or row["reason"]]
    return sorted(os.path.relpath(path, music) for path in decoded)


def test_only_new_content_is_tagged(tmp_path: Path, ensemble: SavedEnsemble, tagger: Tagger) -> None:
    music = tmp_path / "music"
    for number in range(3):
        song(music / f"{number}.wav", hertz=200 + 100 * number)
    (music / "bad.mp3").write_bytes(b"nothing")
    out = tmp_path / "tags"
    assert tag_all(out, ensemble, tagger, music) == ["0.wav", "1.wav", "2.wav", "bad.mp3"]
    assert tag_all(out, ensemble, tagger, music) == []
    (music / "0.wav").rename(music / "renamed.wav")
    os.utime(music / "1.wav", (1, 1))
    assert tag_all(out, ensemble, tagger, music) == []
    song(music / "1.wav", hertz=999)
    song(music / "new.wav", hertz=123)
    assert tag_all(out, ensemble, tagger, music) == ["1.wav", "new.wav"]
    tags = Location.of(out / "tags.parquet").read_table()
    assert [os.path.basename(path) for path in tags["path"].to_pylist()] == ["1.wav", "2.wav", "new.wav", "renamed.wav"]
    assert tags.column_names == ["path", "genre", "probability", "best", "genre_2", "probability_2", "seconds"]
    assert "unsupported" in (out / "failures.csv").read_text()
    assert len(Location.of(out / "timeline.parquet").read_table()) >= len(tags)


def test_rows_of_a_killed_run_are_kept(tmp_path: Path, ensemble: SavedEnsemble, tagger: Tagger) -> None:
    music = tmp_path / "music"
    for number in range(3):
        song(music / f"{number}.wav", hertz=200 + 100 * number)
    files = audio_files.list_files(str(music))
    table = TagTable(Location.of(tmp_path / "tags"), ensemble)
    table.add(tag_table.tag_files(tagger, files.slice(0, 2), {}))
    resumed = TagTable(Location.of(tmp_path / "tags"), ensemble)
    assert [os.path.basename(path) for path in resumed.pending(files)["path"].to_pylist()] == ["2.wav"]


def test_failures_are_retried_on_request(tmp_path: Path, ensemble: SavedEnsemble, tagger: Tagger) -> None:
    music = tmp_path / "music"
    music.mkdir()
    (music / "bad.mp3").write_bytes(b"nothing")
    tag_all(tmp_path / "tags", ensemble, tagger, music)
    files = audio_files.list_files(str(music))
    table = TagTable(Location.of(tmp_path / "tags"), ensemble)
    assert len(table.pending(files)) == 0
    assert len(table.pending(files, retry_failures=True)) == 1


def test_tags_of_another_model_are_refused(tmp_path: Path, ensemble: SavedEnsemble) -> None:
    TagTable(Location.of(tmp_path / "tags"), ensemble)
    other = SavedEnsemble.read([Location.of(save_model(tmp_path / "other", seed=9))], 0.8)
    with pytest.raises(ArtifactError, match=r"holds tags of .*; choose another output"):
        TagTable(Location.of(tmp_path / "tags"), other)


def test_a_link_out_of_the_collection_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    song(tmp_path / "elsewhere" / "secret.wav")
    song(tmp_path / "music" / "open.wav")
    (tmp_path / "music" / "link.wav").symlink_to(tmp_path / "elsewhere" / "secret.wav")
    files = audio_files.list_files(str(tmp_path / "music"))
    assert [os.path.basename(path) for path in files["path"].to_pylist()] == ["open.wav"]
    assert "links not followed" in caplog.text


def test_an_empty_folder_and_a_wrong_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no audio file"):
        audio_files.list_files(str(tmp_path))
    with pytest.raises(ConfigError, match="does not exist"):
        audio_files.list_files(str(tmp_path / "nowhere"))


def test_a_file_without_read_permission_is_a_failure_and_retried(
    tmp_path: Path, ensemble: SavedEnsemble, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions are simulated, since root may read everything."""
    music = tmp_path / "music"
    song(music / "private.wav")

    def refuse(kernel: IsolatedKernel, path: str, timeout: float) -> None:
        raise AudioError(Reason.UNREADABLE, "Permission denied")

    def denied(location: Location) -> str:
        raise PermissionError(13, "Permission denied")

    tagger = Tagger.load(model)
    with monkeypatch.context() as patch:
        patch.setattr(IsolatedKernel, "__call__", refuse)
        patch.setattr(Location, "sha256", denied)
        assert tag_all(tmp_path / "tags", ensemble, tagger, music) == ["private.wav"]
    assert "Permission denied" in (tmp_path / "tags" / "failures.csv").read_text()
    assert tag_all(tmp_path / "tags", ensemble, tagger, music) == ["private.wav"]
    assert len(Location.of(tmp_path / "tags" / "tags.parquet").read_table()) == 1
