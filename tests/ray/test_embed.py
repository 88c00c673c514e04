"""The jobs that write embeddings and search in them, called with their command lines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from saving import save_model, song

from genre.model import checkpoint
from genre.storage import Location, lease
from ray_jobs.engine import cli

ROOM = ("cluster.cpus=2", "cluster.object_store_mb=200")


@pytest.fixture(scope="module")
def embedded(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a few songs in `music`, and the output `out` in which they are embedded."""
    home = tmp_path_factory.mktemp("embedded")
    for number in range(4):
        song(home / f"music/{number}.flac", hertz=200 + 150 * number)
    assert cli.main("embed", [str(home / "music"), f"model={model}", f"output={home / 'out'}"]) == 0
    return home


@pytest.mark.ray
@pytest.mark.slow
def test_a_collection_is_embedded_on_ray_once_and_searched(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    music, out = tmp_path / "music", tmp_path / "out"
    for number in range(11):
        song(music / f"{number:02}.flac", hertz=200 + 90 * number)
    shutil.copy(music / "03.flac", music / "a copy.flac")
    (music / "bad.mp3").write_bytes(b"no music")
    assert cli.main("embed", [str(music), f"model={model}", f"output={out}", *ROOM]) == 0
    output = capsys.readouterr().err
    assert "13 files, 0 already done, 13 to do" in output
    assert "12 files tagged, 1 not readable" in output
    assert "12 embeddings of 8 numbers" in output
    assert "bad.mp3,unsupported" in (out / "tags/failures.csv").read_text().replace('"', "")
    before = (out / "embeddings/embeddings.parquet").read_bytes()
    assert cli.main("embed", [str(music), f"model={model}", f"output={out}", *ROOM]) == 0
    assert "13 files, 13 already done, 0 to do" in capsys.readouterr().err
    assert (out / "embeddings/embeddings.parquet").read_bytes() == before
    assert cli.main("similar", [str(music / "03.flac"), f"output={out}", "n=5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0].split()[0] == "1.000"
    assert lines[0].endswith(str(music / "a copy.flac"))
    assert not any(line.endswith("03.flac") for line in lines)
    # the same pass wrote the genres
    assert cli.main("tag", [str(music), f"model={model}", f"output={out}", *ROOM]) == 0
    assert "13 files, 13 already done, 0 to do" in capsys.readouterr().err


def test_a_song_outside_the_table_is_embedded_by_its_model(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(embedded / "music/2.flac", tmp_path / "copy.flac")
    other = song(tmp_path / "other.wav", hertz=500.0)  # the sound of 2.flac in another format
    for path in (tmp_path / "copy.flac", other):
        assert cli.main("similar", [str(path), f"output={embedded / 'out'}"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 4
        assert lines[0].split()[0] == "1.000"
        assert lines[0].endswith("2.flac")


def test_clips_are_embedded_on_request(
    embedded: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(embedded / "music"), f"model={model}", f"output={tmp_path}", "embed.clips=true"]
    assert cli.main("embed", arguments) == 0
    clips = pq.read_table(tmp_path / "embeddings/clips.parquet")
    assert f"4 embeddings of 8 numbers, and {len(clips)} embeddings of clips" in capsys.readouterr().err
    assert clips["path"].unique().to_pylist() == [str(embedded / f"music/{number}.flac") for number in range(4)]
    assert clips["start"].to_pylist()[:2] == [0.0, 2.0]
    assert clips.schema.field("embedding").type == pa.list_(pa.float16(), 8)


def test_another_model_is_refused(
    embedded: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named for the search, or trained again in the folder of the model that made the table."""
    other = save_model(tmp_path / "other", seed=5)
    song_, output = str(embedded / "music/2.flac"), f"output={embedded / 'out'}"
    assert cli.main("similar", [song_, output, f"model={model}"]) == 0
    capsys.readouterr()
    assert cli.main("similar", [song_, output, f"model={other}"]) == 1
    said = capsys.readouterr().err
    assert f"made by another model than {other}" in said
    assert said.count("\n") == 1
    table = tmp_path / "out/embeddings/embeddings.parquet"
    table.parent.mkdir(parents=True)
    rows = pq.read_table(embedded / "out/embeddings/embeddings.parquet")
    card, classifier = checkpoint.load(Location.of(model))
    moved = tmp_path / "moved"
    checkpoint.save(Location.of(moved), card, classifier)
    metadata = rows.schema.metadata[b"genre.model"].replace(model.encode(), str(moved).encode())
    pq.write_table(rows.replace_schema_metadata({b"genre.model": metadata}), table)
    new = str(song(tmp_path / "new.wav", hertz=777))
    assert cli.main("similar", [new, f"output={tmp_path / 'out'}"]) == 0
    shutil.rmtree(moved)
    capsys.readouterr()
    assert cli.main("similar", [new, f"output={tmp_path / 'out'}"]) == 1
    said = capsys.readouterr().err
    assert f"no model in {moved}" in said
    assert said.count("\n") == 1
    assert cli.main("similar", [new, f"output={tmp_path / 'out'}", f"model={model}"]) == 0


def songs_of(playlist: Path) -> list[str]:
    """Return the names of the songs of a playlist, after checking that each path leads to a file."""
    lines = playlist.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#EXTM3U"
    assert all(line.startswith("#EXTINF:") for line in lines[1::2])
    assert all((playlist.parent / line).is_file() for line in lines[2::2])
    assert not any(line.startswith("/") for line in lines[2::2])
    return [Path(line).name for line in lines[2::2]]


def test_a_playlist_like_a_song_begins_with_it(embedded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed, output = embedded / "music/2.flac", f"output={embedded / 'out'}"
    every = ("playlist.max_cosine=1", "minutes=60")
    assert cli.main("playlist", [f"like={seed}", output, *every]) == 0
    assert "4 tracks, 12 s of 60 minutes, all that fit" in capsys.readouterr().err
    assert cli.main("similar", [str(seed), output]) == 0
    nearest = [Path(line.split()[-1]).name for line in capsys.readouterr().out.splitlines()]
    assert songs_of(embedded / "out/playlists/2.flac.m3u8") == ["2.flac", *nearest]
    target = embedded / "lists/mine.m3u8"
    assert cli.main("playlist", [f"like={seed}", output, *every[:1], "minutes=0.08", f"file={target}"]) == 0
    assert songs_of(target) == ["2.flac", nearest[0]]
    assert cli.main("playlist", [f"like={seed}", output, "playlist.max_cosine=0.000001"]) == 0
    assert songs_of(embedded / "out/playlists/2.flac.m3u8") == ["2.flac"]


def test_a_playlist_of_a_genre_has_the_most_probable_tracks_first(
    embedded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pq.read_table(embedded / "out/embeddings/embeddings.parquet")
    changes = {
        "path": [*rows["path"].to_pylist()[:3], str(embedded / "music/line\nbreak.flac")],
        "genre": ["jazz", "jazz", "rock", "jazz"],
        "probability": [0.7, 0.8, 0.99, 0.9],
    }
    for name, values in changes.items():
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.field(name), pa.array(values, rows.field(name).type))
    table = embedded / "jazz/embeddings/embeddings.parquet"
    table.parent.mkdir(parents=True)
    pq.write_table(rows, table)
    assert cli.main("playlist", ["genre=jazz", f"output={embedded / 'jazz'}", "playlist.max_cosine=1"]) == 0
    assert songs_of(embedded / "jazz/playlists/jazz.m3u8") == ["1.flac", "0.flac"]
    with lease.held(str(embedded / "jazz"), "embed"):  # a playlist needs no lease
        assert cli.main("playlist", ["genre=JAZZ", f"output={embedded / 'jazz'}", "playlist.max_cosine=1"]) == 0
    assert songs_of(embedded / "jazz/playlists/JAZZ.m3u8") == ["1.flac", "0.flac"]
    assert "cannot hold the line break in its name: '" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("job", "arguments", "code", "message"),
    [
        ("similar", ["nowhere.mp3", "output={out}"], 2, "inputs=nowhere.mp3 is not a file; name one song"),
        ("similar", ["{home}/music", "output={out}"], 2, "is not a file; name one song"),
        ("similar", ["{home}/music/1.flac", "output={home}/empty"], 1, "no embeddings here"),
        ("similar", ["{home}/music/1.flac", "output={out}", "n=0"], 2, "similar.n: found 0"),
        ("similar", ["{bad}", "output={out}"], 1, "bad.mp3: unsupported"),
        ("playlist", ["output={out}"], 2, "takes one of playlist.like=SONG and playlist.genre=GENRE"),
        ("playlist", ["output={out}", "like=x.mp3", "genre=jazz"], 2, "takes one of playlist.like=SONG"),
        ("playlist", ["output={out}", "like=nowhere.mp3"], 2, "playlist.like=nowhere.mp3 is not a file"),
        ("playlist", ["output={out}", "genre=polka"], 2, "playlist.genre: 'polka' is not known"),
        ("playlist", ["output={out}", "genre=jazz", "file=song.mp3"], 2, "file=song.mp3 does not end in .m3u8"),
        ("embed", ["{home}/music", "output={home}/o", "model={model},{model}"], 2, "embed takes one model"),
        ("embed", ["{home}/music", "output={home}/o", "model=nowhere"], 1, "no model here"),
    ],
)
def test_wrong_use_is_one_line(
    job: str,
    arguments: list[str],
    code: int,
    message: str,
    embedded: Path,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"no music")
    places = {"home": str(embedded), "out": str(embedded / "out"), "model": model, "bad": str(bad)}
    assert cli.main(job, [text.format(**places) for text in arguments]) == code
    output = capsys.readouterr().err
    assert message in output
    assert output.count("\n") == 1
