from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
from pathlib import Path
from typing import Any

import boards
import numpy as np
import pandas as pd
import pytest
from boards import GENRES, TRUTH, Page, board, network, probabilities

from genre.errors import ArtifactError
from genre.report import Board, CorpusFacts, Entry, Search, SeedRun, Trial, best_network, read_board, write
from genre.report.files import facts_of
from genre.storage import Location


@pytest.fixture
def full() -> Board:
    return boards.full()


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return Location.of(tmp_path / "leaderboard")


def test_a_board_is_restored_from_its_files(full: Board, folder: Location) -> None:
    write(full, folder)
    again = read_board(folder)
    assert facts_of(again) == facts_of(full)
    assert again.track_ids == full.track_ids
    assert again.groups == full.groups
    assert again.truth.dtype == np.int64
    np.testing.assert_array_equal(again.truth, full.truth)
    for entry, other in zip(again.entries, full.entries, strict=True):
        for run, same in zip(entry.runs, other.runs, strict=True):
            np.testing.assert_array_equal(run.probabilities, same.probabilities)
    assert again.entries[0].settings["train.learning_rate"] == 1.25e-06


def test_a_report_written_again_is_equal_in_every_byte(full: Board, folder: Location, tmp_path: Path) -> None:
    write(dataclasses.replace(full, entries=[*full.entries, boards.neighbours()]), folder)
    other = Location.of(tmp_path / "again")
    write(read_board(folder), other)
    names = ["label_issues.csv", "pairs.csv", *(f"leaderboard.{suffix}" for suffix in ("json", "csv", "md", "html"))]
    for name in names:
        assert (other / name).read_bytes() == (folder / name).read_bytes()
    for file in (folder / "predictions").files():
        assert (other / "predictions" / file.name).read_bytes() == file.read_bytes()


def test_csv_json_html_and_markdown_agree(full: Board, folder: Location) -> None:
    write(full, folder)
    lines = list(csv.DictReader(io.StringIO((folder / "leaderboard.csv").read_bytes().decode())))
    rows = json.loads((folder / "leaderboard.json").read_bytes())["rows"]
    page = Page((folder / "leaderboard.html").read_bytes().decode())
    markdown = (folder / "leaderboard.md").read_bytes().decode()
    assert [line["name"] for line in lines] == [row["name"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert line == {key: "" if value is None else str(value) for key, value in row.items()}
        assert f"{row['f1']:.3f} ({row['f1_low']:.3f}–{row['f1_high']:.3f})" in markdown
    for key in ("f1", "accuracy", "precision", "recall", "calibration_error", "parameters", "train_seconds"):
        assert page.values(key) == [line[key] for line in lines]


def test_the_pairs_agree_with_the_table(full: Board, folder: Location) -> None:
    table = write(full, folder)
    ranked = {row.entry.name: row for row in table.rows if row.rank is not None}
    lines = list(csv.DictReader(io.StringIO((folder / "pairs.csv").read_bytes().decode())))
    assert [(line["better"], line["worse"]) for line in lines] == list(itertools.combinations(ranked, 2))
    best = next(iter(ranked))
    for line in lines:
        better, worse = ranked[line["better"]], ranked[line["worse"]]
        low, difference, high = (float(line[f"f1_difference{end}"]) for end in ("_low", "", "_high"))
        assert difference == pytest.approx(better.f1.mean - worse.f1.mean, abs=1e-5)
        assert low <= difference <= high
        assert 0 < float(line["p_value"]) <= 1
        if line["better"] == best:
            assert float(line["p_value"]) == pytest.approx(worse.p_value, abs=1e-5)


def test_scores_on_validation_tracks_are_not_called_a_test(folder: Location) -> None:
    write(dataclasses.replace(boards.everything(), judged_on="valid"), folder)
    assert read_board(folder).judged_on == "valid"
    for suffix in ("md", "html"):
        text = (folder / f"leaderboard.{suffix}").read_bytes().decode()
        assert "of the 100 validation tracks" in text
        assert "test track" not in text.lower().replace(str(folder), "")
    with pytest.raises(ArtifactError, match="use one of train, valid, test"):
        board(network("cnn", 0.5), judged_on="holdout")


def test_a_genre_without_tracks_has_a_dash_for_its_score(folder: Location) -> None:
    truth = np.minimum(TRUTH, 2)  # no track is rock
    write(dataclasses.replace(board(network("cnn", 0.8)), truth=truth), folder)
    lines = (
        (folder / "leaderboard.md").read_bytes().decode().split("## F1 by genre")[1].split("## Data")[0].splitlines()
    )
    (rock,) = [line for line in lines if line.startswith("| rock")]
    assert rock.split("|")[2:4] == [" 0      ", " –    "]


def test_an_unreadable_file_is_reported(full: Board, folder: Location) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        read_board(folder)
    write(full, folder)
    content = (folder / "leaderboard.json").read_json()
    broken: Any
    elsewhere = content | {"board": content["board"] | {"tracks": {"name": "../tracks.parquet", "sha256": ""}}}
    for broken in (
        {},
        [],
        content | {"schema": 99},
        content | {"schema": 1},
        content | {"board": {}},
        content | {"board": content["rows"]},
        elsewhere,
    ):
        (folder / "leaderboard.json").write_json(broken)
        with pytest.raises(ArtifactError, match="make the leaderboard again"):
            read_board(folder)


def test_predictions_that_are_not_those_of_the_json_are_refused(full: Board, folder: Location) -> None:
    write(full, folder)
    file = folder / "predictions" / "resnet-1.parquet"
    content = file.read_bytes()
    file.write_bytes((folder / "predictions" / "resnet-0.parquet").read_bytes())
    with pytest.raises(ArtifactError, match=r"resnet-1\.parquet: not the predictions that leaderboard\.json lists"):
        read_board(folder)
    file.delete()
    with pytest.raises(ArtifactError, match=r"resnet-1\.parquet: no such file; make the leaderboard again"):
        read_board(folder)
    file.write_bytes(content)
    read_board(folder)


def test_the_best_network_is_found_without_predictions(folder: Location) -> None:
    write(board(boards.majority(), network("cnn", 0.5), network("resnet", 0.9), boards.classical(1.0)), folder)
    (folder / "predictions").delete()
    assert best_network(folder) == "resnet"
    write(board(boards.majority()), folder)
    assert best_network(folder) is None


def test_predictions_are_a_table_for_pandas(full: Board, folder: Location) -> None:
    write(full, folder)
    frame = pd.read_parquet((folder / "predictions" / "resnet-0.parquet").path)
    assert frame["track_id"].tolist() == full.track_ids
    assert frame["genre"].tolist() == [GENRES[index] for index in full.truth]
    answers = frame.filter(regex="^p_").idxmax(axis=1).str.removeprefix("p_")
    assert answers.tolist() == [GENRES[index] for index in full.entries[0].runs[0].predicted]
    assert set(frame.filter(regex="^p_").dtypes) == {np.dtype("float32")}


def test_neighbours_are_in_the_file_of_their_row_and_not_in_the_json(full: Board, folder: Location) -> None:
    entry = boards.neighbours()
    write(dataclasses.replace(full, entries=[*full.entries, entry]), folder)
    nearest = entry.runs[0].neighbours
    assert nearest is not None
    frame = pd.read_parquet((folder / "predictions" / "nearest-neighbours-of-resnet-1.parquet").path)
    assert frame["neighbour_3"].tolist() == nearest.track_ids[:, 2].tolist()
    assert frame["neighbour_1_genre"].tolist() == [GENRES[index] for index in nearest.genres[:, 0]]
    assert frame["neighbour_2_cosine"].to_numpy() == pytest.approx(nearest.cosines[:, 1])
    assert frame.filter(regex="^p_").shape == (100, 4)
    assert "train 7-1" not in (folder / "leaderboard.json").read_bytes().decode()
    again = read_board(folder).entries[-1].runs[0].neighbours
    assert again is not None
    for name in ("track_ids", "genres", "cosines"):
        np.testing.assert_array_equal(getattr(again, name), getattr(nearest, name))
    assert read_board(folder).entries[0].runs[0].neighbours is None


def test_only_predictions_grow_with_the_tracks(tmp_path: Path) -> None:
    few, many = Location.of(tmp_path / "few"), Location.of(tmp_path / "many")
    write(boards.large(500), few)
    write(boards.large(5000), many)
    for name in ("leaderboard.json", "leaderboard.html", "leaderboard.md", "leaderboard.csv"):
        assert len((many / name).read_bytes()) < 1.05 * len((few / name).read_bytes())


@pytest.mark.slow
def test_a_report_of_many_tracks_stays_small(tmp_path: Path) -> None:
    folder = Location.of(tmp_path)
    original = boards.large(100_000)
    write(original, folder)
    assert len((folder / "leaderboard.html").read_bytes()) < 3e6
    assert len((folder / "leaderboard.json").read_bytes()) < 1e6
    again = read_board(folder)
    assert again.track_ids == original.track_ids
    np.testing.assert_array_equal(again.entries[-1].predicted, original.entries[-1].predicted)


def test_genres_may_be_called_like_columns(folder: Location) -> None:
    names = ["genre", "track_id", "group", "p_genre"]
    write(board(network("cnn", 0.8), classes=names, corpus=CorpusFacts("corpus", "random", "")), folder)
    again = read_board(folder)
    assert again.classes == names
    np.testing.assert_array_equal(again.truth, TRUTH)
    np.testing.assert_array_equal(again.entries[0].predicted, network("cnn", 0.8).predicted)


def test_files_of_models_that_left_the_board_are_deleted(full: Board, folder: Location) -> None:
    write(full, folder)
    write(board(network("resnet", 0.8, seeds=(1,))), folder)
    assert [file.name for file in (folder / "predictions").files()] == ["resnet-1.parquet", "tracks.parquet"]
    assert len(read_board(folder).entries) == 1


@pytest.mark.parametrize("name", ["../../evil", "a/b (C:\\x)", "CON?*", "...", "", "Größe 音", "cnn", "x" * 300])
def test_any_model_name_gives_a_file_of_its_own(name: str, folder: Location) -> None:
    entries = [network("cnn", 0.4, seeds=(0, 0)), network("CNN", 0.5, seeds=(0,))]
    entries += [network(name, 0.6, seeds=(0,))] if name != "cnn" else []
    entries += [network("cnn-0", 0.7, seeds=(0, 2))]
    original = board(*entries)
    write(original, folder)
    names = [file.name for file in (folder / "predictions").files()]
    assert len({each.lower() for each in names}) == sum(len(entry.runs) for entry in entries) + 1
    again = read_board(folder)
    for entry, other in zip(again.entries, original.entries, strict=True):
        assert entry.name == other.name
        np.testing.assert_array_equal(entry.predicted, other.predicted)


def test_search_comparison_and_robustness_are_restored(folder: Location) -> None:
    original = boards.everything()
    write(original, folder)
    again = read_board(folder)
    assert again.search == original.search
    assert again.compared == original.compared
    assert again.commit == "0123abc"
    assert again.entries[0].robustness == {"unchanged": 0.78, "noise 20 dB": 0.6, "-12 dB": 0.75}


def test_a_board_without_optional_fields_can_be_read(full: Board, folder: Location) -> None:
    write(full, folder)
    content = (folder / "leaderboard.json").read_json()
    for name in ("commit", "search", "compared"):
        del content["board"][name]
    for entry in content["board"]["entries"]:
        del entry["robustness"]
    (folder / "leaderboard.json").write_json(content)
    again = read_board(folder)
    assert again.search is None
    assert again.compared == []
    assert again.entries[0].robustness == {}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r\n=", "＝"])
def test_no_name_in_the_csv_is_a_formula(start: str, folder: Location) -> None:
    name = f'{start}HYPERLINK("http://evil.example")'
    write(board(network(name, 0.6, robustness={f"{start}1+1": 0.5})), folder)
    with io.StringIO((folder / "leaderboard.csv").read_bytes().decode(), newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["name"] == f"'{name.strip()}"
    assert len(lines) == 1
    assert all(text[0].isalnum() or text[0] == "'" for text in (*lines[0], *lines[0].values()) if text)


def test_values_that_are_not_finite_become_unknown(folder: Location) -> None:
    run = SeedRun(0, probabilities(0.7, 0), float("nan"), [{"epoch": 1, "valid_f1": float("nan"), "train_loss": 2.0}])
    entry = Entry("cnn", "network", [run], clips_per_second=float("inf"), robustness={"noise": float("nan")})
    trial = Trial("cnn", {}, "failed", valid_f1=float("nan"), seconds=float("inf"))
    write(board(entry, search=Search([trial])), folder)
    assert read_board(folder).search == Search([Trial("cnn", {}, "failed")])
    entry = read_board(folder).entries[0]
    assert entry.robustness == {}
    assert entry.clips_per_second is None
    assert entry.runs[0].train_seconds is None
    assert entry.runs[0].history == [{"epoch": 1, "valid_f1": None, "train_loss": 2.0}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": TRUTH[:-1]}, "truth has shape"),
        ({"truth": TRUTH + 1}, "truth has indices outside"),
        ({"groups": ["a"]}, "1 groups"),
        ({"classes": GENRES[:3], "truth": TRUTH % 3}, "probabilities are"),
    ],
)
def test_inconsistent_boards_are_refused(full: Board, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        dataclasses.replace(full, **change)


def test_entries_need_runs_unique_names_and_finite_probabilities() -> None:
    for entries, message in (
        ([Entry("cnn", "network", [])], "no seed run"),
        ([network("cnn", 0.5), network("cnn", 0.6)], "2 entries"),
        ([Entry("cnn", "network", [SeedRun(0, np.full((100, 4), np.nan))])], "finite"),
    ):
        with pytest.raises(ArtifactError, match=message):
            board(*entries)
