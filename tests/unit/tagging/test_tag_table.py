"""The tag table of a collection: which files are done, which are pending, and the tables written from it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from library import tone, write_tags
from saving import CLASSES, save_model, song

from genre import Tagger, spreadsheet
from genre.audio import tags
from genre.audio.isolation import IsolatedFunction
from genre.corpora import MISSING
from genre.errors import ArtifactError, AudioError, ConfigError, Reason, StorageError
from genre.model.saved_model import SavedEnsemble
from genre.storage import Location
from genre.tagging import audio_files, result_tables, tag_rows, tag_table
from genre.tagging.known_contents import KnownContents
from genre.tagging.tag_table import TagTable


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of an untrained model with the validation predictions of a good one."""
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
    pending = table.pending(files)
    rows = tag_rows.tag_files(tagger, pending, table.known(pending))
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
    assert tags.column_names == [
        "path",
        "genre",
        "probability",
        "best",
        "genre_2",
        "probability_2",
        "seconds",
        "own_genre",
    ]
    assert "unsupported" in (out / "failures.csv").read_text()
    assert len(Location.of(out / "timeline.parquet").read_table()) >= len(tags)


def test_the_own_genre_of_a_file_is_kept_beside_the_answer(
    tmp_path: Path, ensemble: SavedEnsemble, tagger: Tagger
) -> None:
    song(tmp_path / "music/plain.wav", hertz=200)
    write_tags(tone(tmp_path / "music/tagged.flac", seed=1, seconds=2), genre=["Free Jazz", "Blues"])
    write_tags(tone(tmp_path / "music/wordy.mp3", seed=2, seconds=2), genre="x" * 10_000)
    tag_all(tmp_path / "tags", ensemble, tagger, tmp_path / "music")
    own = Location.of(tmp_path / "tags/tags.parquet").read_table()["own_genre"].to_pylist()
    assert own == [None, "Free Jazz; Blues", "x" * 200]


def test_rows_of_a_killed_run_are_kept(tmp_path: Path, ensemble: SavedEnsemble, tagger: Tagger) -> None:
    music = tmp_path / "music"
    for number in range(3):
        song(music / f"{number}.wav", hertz=200 + 100 * number)
    files = audio_files.list_files(str(music))
    table = TagTable(Location.of(tmp_path / "tags"), ensemble)
    table.add(tag_rows.tag_files(tagger, files.slice(0, 2), KnownContents.none()))
    resumed = TagTable(Location.of(tmp_path / "tags"), ensemble)
    assert [os.path.basename(path) for path in resumed.pending(files)["path"].to_pylist()] == ["2.wav"]


def test_files_of_a_part_or_a_ledger_that_was_cut_are_tagged_again(
    tmp_path: Path, ensemble: SavedEnsemble, tagger: Tagger, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a power failure or on a full disk."""
    music, folder = tmp_path / "music", Location.of(tmp_path / "tags")
    for number in range(3):
        song(music / f"{number}.wav", hertz=200 + 100 * number)
    files = audio_files.list_files(str(music))
    table = TagTable(folder, ensemble)
    for number in range(3):
        table.add(tag_rows.tag_files(tagger, files.slice(number, 1), KnownContents.none()))
    cut_in_half(next(iter((folder / "parts").files())))
    assert tag_all(tmp_path / "tags", ensemble, tagger, music) == ["0.wav"]
    expected = (folder / "tags.csv").read_bytes()
    cut_in_half(folder / "ledger.parquet")
    assert tag_all(tmp_path / "tags", ensemble, tagger, music) == ["0.wav", "1.wav", "2.wav"]
    assert (folder / "tags.csv").read_bytes() == expected
    assert all("its files are tagged again" in record.message for record in caplog.records)
    assert len(caplog.records) == 2


def cut_in_half(file: Location) -> None:
    with open(file.path, "r+b") as stream:
        stream.truncate(file.size() // 2)


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
    with pytest.raises(ArtifactError, match=r"holds tags of .*; to tag again with this model, set tag.replace=true"):
        TagTable(Location.of(tmp_path / "tags"), other)


def test_tags_of_another_model_are_replaced_on_request(tmp_path: Path, ensemble: SavedEnsemble, tagger: Tagger) -> None:
    music, folder = tmp_path / "music", tmp_path / "tags"
    song(music / "0.wav")
    song(music / "1.wav", hertz=400)
    tag_all(folder, ensemble, tagger, music)
    for name in ("written.csv", "undone.csv"):
        (folder / name).write_text(name)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    TagTable(Location.of(folder), ensemble, replace=True)  # the same model
    assert {file: file.read_bytes() for file in folder.iterdir()} == before

    other = SavedEnsemble.read([Location.of(save_model(tmp_path / "other", seed=9))], 0.8)
    table, files = TagTable(Location.of(folder), other, replace=True), audio_files.list_files(str(music))
    assert {file.name for file in folder.iterdir()} == {"models.json", "written.csv", "undone.csv"}
    assert (folder / "written.csv").read_text() == "written.csv"
    assert len(table.pending(files)) == 2
    table.add(
        tag_rows.tag_files(Tagger.load(str(tmp_path / "other"), precision=0), files.slice(0, 1), table.known(files))
    )
    resumed = TagTable(Location.of(folder), other, replace=True)
    assert len(resumed.pending(files)) == 1, "what the interrupted run tagged is done"
    with pytest.raises(ArtifactError, match=r"holds tags of .*other"):
        TagTable(Location.of(folder), ensemble)


def test_a_replacement_that_was_killed_goes_on(
    tmp_path: Path, ensemble: SavedEnsemble, tagger: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has removed some of the tags, and the owner is still the former one."""
    music, folder = tmp_path / "music", tmp_path / "tags"
    song(music / "0.wav")
    tag_all(folder, ensemble, tagger, music)
    other = SavedEnsemble.read([Location.of(save_model(tmp_path / "other", seed=9))], 0.8)

    def killed(file: Location) -> None:
        if file.name == "ledger.parquet":
            raise KeyboardInterrupt
        delete(file)

    delete = Location.delete
    with monkeypatch.context() as patch:
        patch.setattr(Location, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            TagTable(Location.of(folder), other, replace=True)
    with pytest.raises(ArtifactError, match=r"set tag.replace=true"):
        TagTable(Location.of(folder), other)
    table = TagTable(Location.of(folder), other, replace=True)
    assert len(table.pending(audio_files.list_files(str(music)))) == 1
    assert {file.name for file in folder.iterdir()} == {"models.json"}


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

    def refuse(kernel: IsolatedFunction, path: str, timeout: float) -> None:
        raise AudioError(Reason.DENIED, "Permission denied")

    def denied(location: Location) -> str:
        raise PermissionError(13, "Permission denied")

    tagger = Tagger.load(model)
    with monkeypatch.context() as patch:
        patch.setattr(IsolatedFunction, "__call__", refuse)
        patch.setattr(Location, "sha256", denied)
        assert tag_all(tmp_path / "tags", ensemble, tagger, music) == ["private.wav"]
    assert "Permission denied" in (tmp_path / "tags" / "failures.csv").read_text()
    assert tag_all(tmp_path / "tags", ensemble, tagger, music) == ["private.wav"]
    assert len(Location.of(tmp_path / "tags" / "tags.parquet").read_table()) == 1


def rows_of(paths: list[str], genre: int, seconds: float = 30.0) -> pa.Table:
    """Return rows of files that are surely of one genre, each with its own content."""
    probabilities = [0.98 if number == genre else 0.01 for number in range(len(CLASSES))]
    moments = [{"start": 0.0, "end": seconds, "probabilities": probabilities}]
    rows = [
        {
            "path": path,
            "size": 100,
            "modified": 1.0,
            "content": hashlib.sha256(path.encode()).hexdigest(),
            "seconds": seconds,
            "probabilities": probabilities,
            "timeline": moments * (1 + number % 3),
        }
        for number, path in enumerate(paths)
    ]
    return pa.Table.from_pylist(rows, tag_rows.SCHEMA)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_results_do_not_depend_on_how_many_rows_are_in_memory(
    chunk: int, tmp_path: Path, ensemble: SavedEnsemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts overlap in any order, a later row of a file replaces an earlier one, and removed files go."""
    monkeypatch.setattr(tag_table, "_CHUNK", chunk)
    paths = [f"/music/{number:02}.mp3" for number in range(10)]
    table = TagTable(Location.of(tmp_path / "tags"), ensemble)
    table.add(rows_of(paths[::2], 0))
    table.add(rows_of(["/elsewhere/x.mp3", *paths[5::-1]], 1))
    table.add(pa.Table.from_pylist([{"path": paths[9], "reason": "unsupported"}], tag_rows.SCHEMA))
    table.add(rows_of(["/music/removed.mp3"], 1))
    files = rows_of([*paths[:5], *paths[6:]], 0).select(audio_files.FILES.names)
    results = table.finish(files, Location.of("/music"), top_k=2).to_pylist()
    genres = [*[CLASSES[1]] * 5, CLASSES[0], CLASSES[0], None]
    assert [row["path"] for row in results] == [*paths[:5], paths[6], paths[8], paths[9]]
    assert [row["genre"] for row in results] == genres
    assert [row["reason"] for row in results] == [None] * 7 + ["unsupported"]
    tags = Location.of(tmp_path / "tags/tags.parquet").read_table()
    assert tags["path"].to_pylist() == ["/elsewhere/x.mp3", *paths[:5], paths[6], paths[8]]
    assert (tmp_path / "tags/tags.csv").read_bytes() == spreadsheet.csv_bytes(tags)
    ledger = Location.of(tmp_path / "tags/ledger.parquet").read_table()
    assert len(ledger) == 9
    expected = result_tables.timeline_table(ledger.slice(0, 8), ensemble.classes, 2)
    timeline = Location.of(tmp_path / "tags/timeline.parquet").read_table()
    assert timeline.equals(expected)
    assert len(timeline) == sum(map(len, ledger["timeline"].slice(0, 8).to_pylist()))
    assert not (tmp_path / "tags/parts").exists()
    assert table.row(paths[3]) == ledger.to_pylist()[4]


def test_files_that_were_not_listed_may_be_gone_with_their_folder_when_albums_are_read(
    tmp_path: Path, ensemble: SavedEnsemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of an earlier job, whose disk is away, and a path on standard input without a file."""
    monkeypatch.setattr(tags, "STORAGE_SECONDS", 0.0)
    rows = rows_of(["/earlier/a.mp3", "/music/b.mp3", "/music/c.mp3"], 0)
    files = rows.select(audio_files.FILES.names).slice(1)
    absent = files.set_column(1, "size", pa.array([MISSING] * 2))
    table = TagTable(Location.of(tmp_path / "tags"), ensemble)
    table.add(rows)
    assert len(table.finish(absent, None, top_k=1, with_albums=True)) == 2
    with pytest.raises(StorageError, match=r"/music/b\.mp3 cannot be reached"):
        table.finish(files, None, top_k=1, with_albums=True)


def test_a_listed_file_is_away_only_with_its_folder(tmp_path: Path, ensemble: SavedEnsemble) -> None:
    """A path on standard input without a file: it was deleted, or its disk is away."""
    music = tmp_path / "music"
    paths = [str(music / name) for name in ("disk/a.mp3", "disk/b.mp3")]
    table = TagTable(Location.of(tmp_path / "tags"), ensemble)
    table.add(rows_of(paths, 0))
    rows = pa.table({"path": [*paths, str(music / "new/c.mp3")], "size": [MISSING] * 3, "modified": [0.0] * 3})
    table.finish(rows.slice(0, 2), None, top_k=1)
    for make in (music.mkdir, (music / "disk").mkdir):  # the folder is missing, then empty
        make(parents=True)
        with pytest.raises(
            StorageError, match=r"disk/b.mp3, .* is away, .* mount it .* or leave out the files below it"
        ):
            table.check_present(rows, None)
    table.check_present(rows.slice(2), None)  # a file that was never tagged
    (music / "disk/b.mp3").touch()
    table.check_present(rows, None)


def test_an_emptied_folder_is_a_disk_that_is_away_and_a_missing_one_was_deleted(
    tmp_path: Path, ensemble: SavedEnsemble
) -> None:
    music = tmp_path / "music"
    paths = [str(music / name) for name in ("artist/album/a.mp3", "artist/other/b.mp3", "c.mp3")]
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    rows = rows_of(paths, 0)
    table = TagTable(Location.of(tmp_path / "tags"), ensemble)
    table.add(rows)
    table.finish(rows, Location.of(music), top_k=1)
    os.remove(paths[0])
    with pytest.raises(StorageError, match=r"artist/album is empty or denied, .* or delete the folder if its music is"):
        table.check_present(rows.slice(1), Location.of(music))
    table.check_present(rows.slice(1), None)
    table.check_present(rows.slice(1), Location.of(music / "artist/other"))
    os.rmdir(music / "artist/album")
    table.check_present(rows.slice(1), Location.of(music))
    shutil.rmtree(music / "artist")
    os.remove(paths[2])
    (music / "cover.jpg").touch()
    table.check_present(rows.slice(0, 0), Location.of(music))


def test_files_that_the_job_changed_are_not_tagged_again(tmp_path: Path, ensemble: SavedEnsemble) -> None:
    paths = [str(tmp_path / f"{number}.mp3") for number in range(3)]
    for path in paths:
        Path(path).write_bytes(b"as tagged")
    files = pa.Table.from_pylist([audio_files.file_row(Location.of(path)) for path in paths], audio_files.FILES)
    table = TagTable(Location.of(tmp_path / "tags"), ensemble)
    table.add(pa.table(rows_of(paths, 0).to_pydict() | files.to_pydict(), schema=tag_rows.SCHEMA))
    table.finish(files, Location.of(tmp_path), top_k=1)
    for path in paths[:2]:
        Path(path).write_bytes(b"with a genre")
    changed = pa.Table.from_pylist([audio_files.file_row(Location.of(path)) for path in paths], audio_files.FILES)
    table.refresh(pa.chunked_array([[paths[1]]]))
    again = TagTable(Location.of(tmp_path / "tags"), ensemble)
    assert again.pending(changed)["path"].to_pylist() == [paths[0]]
    assert hashlib.sha256(b"with a genre").hexdigest() in again.known(changed)
    assert again.row(paths[1])["probabilities"] == pytest.approx([0.98, 0.01, 0.01])


def test_only_contents_of_a_size_to_be_tagged_are_known(tmp_path: Path, ensemble: SavedEnsemble) -> None:
    table = TagTable(Location.of(tmp_path / "tags"), ensemble)
    rows = rows_of(["/music/a.mp3", "/music/b.mp3"], 0)
    rows = rows.set_column(1, "size", pa.array([100, 200]))
    table.add(rows)
    table.finish(rows.select(audio_files.FILES.names), Location.of("/music"), top_k=1)
    new = pa.table({"path": ["/music/c.mp3"], "size": [200], "modified": [5.0]}, schema=audio_files.FILES)
    known = table.known(new)
    assert [content in known for content in rows["content"].to_pylist()] == [False, True]
