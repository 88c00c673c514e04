"""The table of embeddings: written from the tag table, read in blocks."""

from __future__ import annotations

import shutil
from pathlib import Path

import mutagen
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from saving import CLASSES, save_model, song

from genre import Tagger
from genre.errors import ArtifactError
from genre.model.saved_model import SavedEnsemble
from genre.retrieval import embedding_table
from genre.retrieval.embedding_table import EmbeddingTable, vectors_of
from genre.storage import Location
from genre.tagging import audio_files, tag_rows, tag_table
from genre.tagging.tag_table import TagTable


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> SavedEnsemble:
    return SavedEnsemble.read([Location.of(save_model(tmp_path_factory.mktemp("model")))], 0.0)


@pytest.fixture(scope="module")
def tagger(ensemble: SavedEnsemble) -> Tagger:
    return Tagger.load(ensemble.addresses, precision=0)


def tag_all(
    folder: Path, ensemble: SavedEnsemble, tagger: Tagger, music: Path, embeds: bool = True, clips: bool = False
) -> TagTable:
    """Do one run of the job, without Ray."""
    table = TagTable(Location.of(folder), ensemble, embeds, clips)
    files = audio_files.list_files(str(music))
    pending = table.pending(files)
    table.add(tag_rows.tag_files(tagger, pending, table.known(pending)))
    table.finish(files, Location.of(music), top_k=2)
    return table


@pytest.fixture
def music(tmp_path: Path) -> Path:
    for number in range(5):
        song(tmp_path / "music" / f"{number}.flac", hertz=200 + 90 * number)
    (tmp_path / "music/bad.mp3").write_bytes(b"no music")
    held = mutagen.File(tmp_path / "music/2.flac")
    held["artist"], held["albumartist"], held["title"] = "Ana feat. Ben", "The Anas", "Un\nDeux"
    held.save()
    return tmp_path / "music"


def test_each_readable_file_has_a_row_with_what_its_tags_say(
    music: Path, tmp_path: Path, ensemble: SavedEnsemble, tagger: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tag_table, "_CHUNK", 2)
    tags = tag_all(tmp_path / "tags", ensemble, tagger, music)
    table = embedding_table.write(Location.of(tmp_path / "embeddings"), ensemble, tags.rows())
    assert table == EmbeddingTable.open(Location.of(tmp_path / "embeddings"))
    assert table.rows == 5
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), table.size)
    blocks = list(table.blocks())
    assert [len(block) for block in blocks] == [2, 2, 1]
    paths = [str(music / f"{number}.flac") for number in range(5)]
    assert table.columns("path")["path"].to_pylist() == paths
    expected = np.stack([np.asarray(tagger(path).embedding) for path in paths])
    assert np.concatenate(blocks) == pytest.approx(expected, abs=2e-3)
    rows = table.take(np.array([3, 2, 3]))
    assert [Path(path).name for path in rows["path"].to_pylist()] == ["3.flac", "2.flac", "3.flac"]
    assert np.array_equal(vectors_of(rows), np.concatenate(blocks)[[3, 2, 3]])
    second = rows.to_pylist()[1]
    assert (second["artist"], second["title"], second["group"]) == ("Ana feat. Ben", "Un Deux", "anas")
    assert second["genre"] in CLASSES
    assert second["seconds"] == pytest.approx(3, abs=0.1)


def test_a_file_is_found_by_its_path_then_by_its_content(
    music: Path, tmp_path: Path, ensemble: SavedEnsemble, tagger: Tagger
) -> None:
    shutil.copy(music / "3.flac", music / "0-copy.flac")
    tags = tag_all(tmp_path / "tags", ensemble, tagger, music)
    table = embedding_table.write(Location.of(tmp_path / "embeddings"), ensemble, tags.rows())
    place, content = str(music / "3.flac"), Location.of(music / "3.flac").sha256()
    assert table.columns("path")["path"][table.row_of(place, content) or 0].as_py() == place
    assert table.row_of("/elsewhere.flac", content) == 0
    assert table.row_of(place, "0" * 64) is None  # the file was replaced since


def test_files_that_were_tagged_without_embeddings_are_embedded_later(
    music: Path, tmp_path: Path, ensemble: SavedEnsemble, tagger: Tagger
) -> None:
    """As after tagging with an exported file."""
    tags = tag_all(tmp_path / "tags", ensemble, tagger, music, embeds=False)
    ledger = tmp_path / "tags/ledger.parquet"
    rows = Location.of(ledger).read_table()
    for name, values in (("embedding", [None] * len(rows)), ("is_embedded", [False] * len(rows))):
        number = rows.schema.get_field_index(name)
        rows = rows.set_column(number, rows.field(name), pa.array(values, rows.field(name).type))
    Location.of(ledger).write_table(rows)
    files = audio_files.list_files(str(music))
    with pytest.raises(ArtifactError, match="no file has an embedding"):
        embedding_table.write(Location.of(tmp_path / "embeddings"), ensemble, tags.rows())
    assert len(TagTable(Location.of(tmp_path / "tags"), ensemble).pending(files)) == 0
    assert len(TagTable(Location.of(tmp_path / "tags"), ensemble, embeds=True).pending(files)) == 5
    again = tag_all(tmp_path / "tags", ensemble, tagger, music)
    assert embedding_table.write(Location.of(tmp_path / "embeddings"), ensemble, again.rows()).rows == 5
    assert len(TagTable(Location.of(tmp_path / "tags"), ensemble, embeds=True).pending(files)) == 0


def test_clips_have_rows_of_their_own_on_request(
    music: Path, tmp_path: Path, ensemble: SavedEnsemble, tagger: Tagger
) -> None:
    """The embedding of a track is the mean of its clips' before they were scaled, so it lies between them."""
    song(music / "long.flac", seconds=7)
    shutil.copy(music / "long.flac", music / "copy.flac")
    folder = Location.of(tmp_path / "embeddings")
    tags = tag_all(tmp_path / "tags", ensemble, tagger, music)
    assert embedding_table.write_clips(folder, ensemble, tags.rows()) == 0
    assert not (folder / embedding_table.CLIPS_FILE).exists()
    tags = tag_all(tmp_path / "tags", ensemble, tagger, music, clips=True)
    timeline = (Location.of(tmp_path / "tags") / "timeline.parquet").read_table(["path", "start", "end"])
    assert embedding_table.write_clips(folder, ensemble, tags.rows()) == len(timeline)
    clips = (folder / embedding_table.CLIPS_FILE).read_table()
    assert clips.select(["path", "start", "end"]).equals(timeline)
    of_long = clips.filter(pc.equal(clips["path"], str(music / "long.flac")))
    assert len(of_long) > 2
    of_copy = clips.filter(pc.equal(clips["path"], str(music / "copy.flac")))
    assert vectors_of(of_long) == pytest.approx(vectors_of(of_copy))
    assert of_long["content"].unique().to_pylist() == [Location.of(music / "copy.flac").sha256()]
    vectors = vectors_of(of_long)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=2e-3)
    mean = tagger(music / "long.flac").embedding
    assert mean is not None
    assert float(np.min(vectors @ mean)) > float(np.min(vectors @ vectors.T)) - 1e-3
    # a later run without them keeps those that there are
    song(music / "new.flac", hertz=900)
    tags = tag_all(tmp_path / "tags", ensemble, tagger, music)
    assert embedding_table.write_clips(folder, ensemble, tags.rows()) == len(timeline)
    files = audio_files.list_files(str(music))
    pending = TagTable(Location.of(tmp_path / "tags"), ensemble, embeds=True, clips=True).pending(files)
    assert [Path(path).name for path in pending["path"].to_pylist()] == ["new.flac"]


def test_another_file_in_place_of_the_table_is_refused(tmp_path: Path) -> None:
    folder = Location.of(tmp_path)
    with pytest.raises(ArtifactError, match="no embeddings here; write them with `genre embed` first"):
        EmbeddingTable.open(folder)
    (folder / embedding_table.FILE).write_table(pa.table({"path": ["a"]}))
    with pytest.raises(ArtifactError, match="names no model"):
        EmbeddingTable.open(folder)
    (folder / embedding_table.FILE).write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="not Parquet"):
        EmbeddingTable.open(folder)
