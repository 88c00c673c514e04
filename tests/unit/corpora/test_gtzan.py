"""Tests of GTZAN: layouts, the fault-filtered split and the random split."""

from __future__ import annotations

import ast
import importlib.util
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scanning import refused, scan, settings, touch

from genre import corpora
from genre.corpora import gtzan
from genre.features import SPLITS
from genre.features.splitting import splits

FILTERED = {  # train, valid, test
    "blues": (46, 23, 31), "classical": (48, 20, 31), "country": (45, 23, 30), "disco": (42, 22, 29),
    "hiphop": (47, 18, 27), "jazz": (43, 17, 27), "metal": (44, 20, 27), "pop": (41, 13, 30),
    "reggae": (43, 17, 26), "rock": (44, 24, 32),
}  # fmt: skip


@pytest.fixture(scope="module")
def complete_gtzan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = (f"{genre}/{genre}.{number:05d}.au" for genre in gtzan.GENRES for number in range(100))
    return touch(tmp_path_factory.mktemp("gtzan"), *names)


class TestGtzan:
    def test_filtered_split_has_its_published_counts(self, complete_gtzan: Path) -> None:
        counts = Counter((track.genre, track.split) for track in scan("gtzan", complete_gtzan))
        by_genre = {g: tuple(counts[g, split] for split in SPLITS) for g in gtzan.GENRES}
        assert by_genre == FILTERED
        assert [sum(column) for column in zip(*by_genre.values(), strict=True)] == [443, 197, 290]
        assert sum(counts[g, "excluded"] for g in gtzan.GENRES) == 70

    def test_filtered_split_equals_that_of_torchaudio(self) -> None:
        """Torchaudio has an independent copy (jordipons/sklearn-audio-transfer-learning), read without importing it."""
        package = importlib.util.find_spec("torchaudio")
        assert package is not None
        assert package.origin is not None
        source = Path(package.origin).with_name("datasets") / "gtzan.py"
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if name.startswith("filtered_"):
                    published = set(ast.literal_eval(node.value))
                    ours = {
                        track for track, split in gtzan.filtered_split().items() if split == name[len("filtered_") :]
                    }
                    assert ours == published

    def test_filtered_split_equals_the_published_lists(self, shared_data: Path) -> None:
        for split in SPLITS:
            lines = (shared_data / "gtzan-splits" / f"{split}_filtered.txt").read_text().split()
            ours = {track for track, side in gtzan.filtered_split().items() if side == split}
            assert {Path(line).stem for line in lines} == ours

    def test_random_split_is_stratified_for_any_set_of_files(self, complete_gtzan: Path) -> None:
        tracks = scan("gtzan", complete_gtzan, "random")
        assert {track.split for track in tracks} == {None}
        columns = {name: [getattr(track, name) for track in tracks] for name in ("track_id", "genre", "group", "split")}
        table = pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))
        assigned = splits.assign(table, settings("gtzan"))
        expected = {"train": 65, "valid": 15, "test": 20, "excluded": 0}
        assert splits.summary(assigned) == dict.fromkeys(gtzan.GENRES, expected)
        part = splits.assign(table.slice(30, 400), settings("gtzan"))
        assert splits.assign(table, settings("gtzan"), part)["split"].slice(30, 400).equals(part["split"])

    @examples(max_examples=20)
    @given(st.sets(st.tuples(st.sampled_from(gtzan.GENRES), st.integers(0, 99)), min_size=1, max_size=12))
    def test_any_part_of_the_corpus_keeps_its_order_and_splits(self, tracks: set[tuple[str, int]]) -> None:
        ids = sorted(f"{genre}.{number:05d}" for genre, number in tracks)
        with tempfile.TemporaryDirectory() as root:
            touch(Path(root), *(f"{track.partition('.')[0]}/{track}.wav" for track in ids))
            scanned = scan("gtzan", root)
        assert [(track.track_id, track.split) for track in scanned] == [
            (track, gtzan.filtered_split().get(track, "excluded")) for track in ids
        ]

    @pytest.mark.parametrize("parents", ["", "genres", "genres_original", "Data/genres_original"])
    @pytest.mark.parametrize("extension", ["au", "wav", "flac", "mp3"])
    def test_layouts(self, tmp_path: Path, parents: str, extension: str) -> None:
        names = [f"jazz/jazz.00054.{extension}", f"blues/blues.00000.{extension}", f"blues/._blues.00001.{extension}"]
        touch(tmp_path / parents, *names)
        touch(tmp_path, "images_original/blues/blues00000.png")
        tracks = scan("gtzan", tmp_path)
        assert [(t.track_id, t.genre, t.split) for t in tracks] == [
            ("blues.00000", "blues", "valid"),
            ("jazz.00054", "jazz", "train"),
        ]
        assert corpora.classes(settings("gtzan", tmp_path)) == sorted(gtzan.GENRES)

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["blues/song.wav"], "'song.wav' is not named like a GTZAN track (blues.00000.wav)"),
            (["blues/jazz.00000.wav"], "'jazz.00000.wav' is not named like"),
            (["blues/blues.00100.wav"], "'blues.00100.wav' is not named like"),
            (["blues/blues.00000.au", "blues/blues.00000.wav"], "are one track; keep only one"),
            (["techno/a.wav"], "has no genre folder"),
        ],
    )
    def test_refusals(self, tmp_path: Path, names: list[str], message: str) -> None:
        assert message in refused("gtzan", touch(tmp_path, *names))

    def test_real_music(self, shared_data: Path) -> None:
        tracks = scan("gtzan", shared_data / "gtzan-mini")
        assert Counter(track.split for track in tracks) == {"train": 233, "valid": 98, "test": 130, "excluded": 48}
