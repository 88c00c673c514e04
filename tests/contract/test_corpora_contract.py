"""What every corpus must do. A new corpus adds a tiny example to `BUILDERS` and the smallest input to `SMALLEST`."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from library import write_tags
from music import InTurn, write_song

from genre import corpora, registry
from genre.audio import members
from genre.config import describe
from genre.corpora import EXCLUDED, SPLITS, UNLABELLED, Track
from genre.errors import ConfigError, GenreError
from genre.settings import CorpusSettings, Settings
from genre.storage import Location
from ray_jobs import prepare
from ray_jobs.engine import cli

KINDS = registry.names("genre.corpora")
SYSTEM_FILES = ("._system.wav", ".hidden.wav", "Thumbs.db", "cover.jpg")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def folder(root: Path) -> dict[str, Any]:
    names = [f"{genre}/{artist}/{n}.wav" for genre in ("rock", "folk") for artist in ("X", "Y") for n in range(3)]
    touch(root, *names, *(f"rock/X/{name}" for name in SYSTEM_FILES))
    return {"root": str(root)}


def gtzan(root: Path) -> dict[str, Any]:
    names = [f"genres/{genre}/{genre}.{n:05d}.au" for genre in ("blues", "pop") for n in range(4)]
    touch(root, *names, *(f"genres/blues/{name}" for name in SYSTEM_FILES))
    return {"root": str(root)}


def fma(root: Path) -> dict[str, Any]:
    header = ",set,set,artist,track\n,split,subset,id,genre_top\ntrack_id,,,,\n"
    rows = "2,training,small,1,Rock\n3,validation,small,2,Rock\n5,test,small,3,Pop\n"
    touch(root, "fma_small/000/000002.mp3", "fma_small/000/000003.mp3", "fma_metadata/tracks.csv")
    touch(root, *(f"fma_small/000/{name}" for name in SYSTEM_FILES))
    (root / "fma_metadata/tracks.csv").write_text(header + rows)
    return {"root": str(root)}


def table(root: Path) -> dict[str, Any]:
    touch(root, "a.wav", "b.wav", *SYSTEM_FILES)
    (root / "tracks.csv").write_text("path,genre,split\na.wav,rock,train\nb.wav,folk,\n")
    return {"root": str(root / "tracks.csv")}


def tags(root: Path) -> dict[str, Any]:
    for name, genre in {"a/1.aiff": "Rock", "b/2.flac": "Jazz", "b/3.wav": "Other"}.items():
        write_tags(write_song(root / name, seed=1), artist=name[0], genre=genre)
    touch(root, *SYSTEM_FILES)
    return {"root": str(root), "params": {"min_tracks": 1, "min_artists": 1}}


def parquet(root: Path) -> dict[str, Any]:
    songs = [write_song(root / f"{name}.wav", seed=1).read_bytes() for name in ("a", "._system")]
    pq.write_table(pa.table({"audio": songs, "genre": ["rock", "folk"]}), root / "train.parquet")
    touch(root, *SYSTEM_FILES, "._system.parquet")
    return {"root": str(root)}


def webdataset(root: Path) -> dict[str, Any]:
    names = ("a.wav", "deep/b.mp3", "deep/._system.wav")
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "train.tar", "w") as archive:
        for number, name in enumerate(names):
            archive.addfile(tarfile.TarInfo(name))
            label = tarfile.TarInfo(f"{name.rpartition('.')[0]}.cls")
            label.size = 1
            archive.addfile(label, io.BytesIO(b"%d" % number))
    touch(root, *SYSTEM_FILES)
    return {"root": str(root)}


def synthetic(root: Path) -> dict[str, Any]:
    return {"root": str(root), "params": {"tracks_per_genre": 1, "artists_per_genre": 1, "seconds": 1, "damaged": 2}}


def small_folder(root: Path) -> list[str]:
    write_song(root / "rock" / "a.wav", seed=1)
    return [f"corpus.root={root}"]


def small_gtzan(root: Path) -> list[str]:
    write_song(root / "blues" / "blues.00000.wav", seed=1)
    return [f"corpus.root={root}"]


def small_fma(root: Path) -> list[str]:
    header = ",set,set,artist,track\n,split,subset,id,genre_top\ntrack_id,,,,\n"
    write_song(root / "fma_small" / "000" / "000002.wav", seed=1)
    touch(root, "fma_metadata/tracks.csv")
    (root / "fma_metadata" / "tracks.csv").write_text(header + "2,training,small,1,Rock\n")
    return [f"corpus.root={root}"]


def small_table(root: Path) -> list[str]:
    write_song(root / "a.wav", seed=1)
    (root / "tracks.csv").write_text("path,genre\na.wav,rock\n")
    return [f"corpus.root={root / 'tracks.csv'}"]


def small_tags(root: Path) -> list[str]:
    write_song(root / "a.wav", seed=1)
    return [f"corpus.root={root}"]


def small_parquet(root: Path) -> list[str]:
    song = write_song(root / "a.wav", seed=1).read_bytes()
    pq.write_table(pa.table({"audio": [song], "label": ["rock"]}), root / "a.parquet")
    return [f"corpus.root={root / 'a.parquet'}"]


def small_webdataset(root: Path) -> list[str]:
    song = write_song(root / "a.wav", seed=1)
    with tarfile.open(root / "a.tar", "w") as archive:
        archive.add(song, "a.wav")
    return [f"corpus.root={root / 'a.tar'}"]


def small_synthetic(root: Path) -> list[str]:
    """Leave out `corpus.root`: only this corpus makes its own files."""
    return ["corpus.params.tracks_per_genre=1", "corpus.params.seconds=2", "corpus.params.damaged=0"]


# The smallest input that a person may have and type, without optional parts
SMALLEST: dict[str, Callable[[Path], list[str]]] = {
    "folder": small_folder, "fma": small_fma, "gtzan": small_gtzan, "synthetic": small_synthetic, "table": small_table,
    "tags": small_tags, "parquet": small_parquet, "webdataset": small_webdataset,
}  # fmt: skip
BUILDERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "folder": folder, "fma": fma, "gtzan": gtzan, "synthetic": synthetic, "table": table,
    "tags": tags, "parquet": parquet, "webdataset": webdataset,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_smallest_legal_input_is_prepared_from_the_command_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run the command line and `prepare` without Ray: `corpora.scan` alone does not use the default settings."""
    assert kind in SMALLEST, f"add the smallest legal input of {kind} to SMALLEST"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = [f"corpus.kind={kind}", f"output={tmp_path / 'out'}", "audio.clip_seconds=1", "train.window_seconds=1"]

    monkeypatch.setattr(prepare, "Workers", lambda *_: InTurn())
    code = cli.main("prepare", [*arguments, *SMALLEST[kind](tmp_path / "music")])
    assert code == cli.OK, capsys.readouterr().err
    counts = Location.of(tmp_path / "out/features/manifest.json").read_json()["counts"]
    assert counts["tracks"] == counts["scanned"] >= 1


def scan(settings: CorpusSettings) -> list[Track]:
    return list(corpora.scan(settings))


@pytest.fixture(scope="module", params=KINDS)
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CorpusSettings:
    kind = request.param
    assert kind in BUILDERS, f"add a tiny example of {kind} to BUILDERS"
    return CorpusSettings(kind=kind, **BUILDERS[kind](tmp_path_factory.mktemp(kind)))


def test_module_has_its_parts(settings: CorpusSettings) -> None:
    module = registry.load("genre.corpora", settings.kind)
    assert module.__doc__
    assert issubclass(module.Params, Settings)
    assert all(meaning for _, _, meaning in describe(module.Params()))
    assert callable(module.scan)


def test_tracks_are_well_formed(settings: CorpusSettings) -> None:
    tracks = scan(settings)
    assert tracks
    for track in tracks:
        assert track.track_id.encode()  # Parquet holds UTF-8 only
        assert track.genre or (track.genre is None and track.split == UNLABELLED)
        assert track.group is None or track.group
        assert track.split in (None, *SPLITS, EXCLUDED, UNLABELLED)
        assert track.size >= corpora.MISSING
        assert track.modified >= 0
    with pytest.raises(FrozenInstanceError):
        tracks[0].genre = "other"  # type: ignore[misc]


def test_ids_are_unique(settings: CorpusSettings) -> None:
    ids = [track.track_id for track in scan(settings)]
    assert len(set(ids)) == len(ids)


def test_scan_is_repeatable(settings: CorpusSettings) -> None:
    assert scan(settings) == scan(settings)


def test_size_is_that_of_the_file_or_missing(settings: CorpusSettings) -> None:
    for track in scan(settings):
        file = Location.of(members.file_of(track.path))
        assert file.exists() == (track.size >= 0)
        assert track.size == (len(file.read_bytes()) if file.exists() else corpora.MISSING)


def test_system_files_are_not_tracks(settings: CorpusSettings) -> None:
    names = {Path(track.path).name for track in scan(settings)}
    assert not [name for name in names if name.startswith(".") or name in SYSTEM_FILES]


def test_genres_are_among_the_classes(settings: CorpusSettings) -> None:
    classes = corpora.classes(settings)
    assert classes == corpora.classes(settings)
    if classes is not None:
        assert len(set(classes)) == len(classes) >= 2
        assert {track.genre for track in scan(settings) if track.genre} <= set(classes)


def test_random_split_is_not_decided_by_the_corpus(settings: CorpusSettings) -> None:
    random = settings.model_copy(update={"split": "random"})
    assert {track.split for track in scan(random) if track.genre} == {None}
    assert [track.track_id for track in scan(random)] == [track.track_id for track in scan(settings)]


def test_ids_do_not_change_when_the_corpus_moves(settings: CorpusSettings, tmp_path: Path) -> None:
    root = Path(settings.root)
    source = root if root.is_dir() else root.parent
    shutil.copytree(source, tmp_path / "moved")
    moved = tmp_path / "moved" if root.is_dir() else tmp_path / "moved" / root.name
    tracks = scan(settings.model_copy(update={"root": str(moved)}))
    assert [track.track_id for track in tracks] == [track.track_id for track in scan(settings)]


def test_error_names_an_unknown_parameter(settings: CorpusSettings) -> None:
    wrong = settings.model_copy(update={"params": {"no_such_thing": 1}})
    with pytest.raises(ConfigError, match=r"corpus\.params\.no_such_thing"):
        scan(wrong)


def test_bad_root_gives_an_error_of_one_line(settings: CorpusSettings) -> None:
    with pytest.raises(GenreError) as error:
        scan(settings.model_copy(update={"root": "nowhere://at/all"}))
    assert "\n" not in str(error.value)
