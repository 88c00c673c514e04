"""What every corpus must do. A new corpus adds a tiny example to `BUILDERS` and the smallest input to `SMALLEST`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from library import write_tags
from music import InTurn, write_song

from genre import registry
from genre.settings import CorpusSettings
from genre.storage import Location
from genre.testing import CORPUS_CHECKS
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


@pytest.fixture(scope="module", params=KINDS)
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CorpusSettings:
    kind = request.param
    assert kind in BUILDERS, f"add a tiny example of {kind} to BUILDERS"
    return CorpusSettings(kind=kind, **BUILDERS[kind](tmp_path_factory.mktemp(kind)))


@pytest.mark.parametrize("check", CORPUS_CHECKS, ids=lambda check: check.__name__)
def test_a_corpus_keeps_the_contract(settings: CorpusSettings, check: Callable[[CorpusSettings], None]) -> None:
    check(settings)
