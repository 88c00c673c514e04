"""The tables that the tag job writes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from saving import save_model, song
from tag_jobs import rows, run

from genre import spreadsheet


def test_json_lines_have_the_rows_of_the_table(model: str, music: Path, tmp_path: Path) -> None:
    (music / "0.flac").rename(music / 'a "quoted" ü\n.flac')
    assert run(str(music), f"model={model}", f"output={tmp_path / 'out'}", "min_precision=0") == 0
    lines = (tmp_path / "out/tags/tags.jsonl").read_text(encoding="utf-8").splitlines()
    table = pq.read_table(tmp_path / "out/tags/tags.parquet").to_pylist()
    assert [json.loads(line) for line in lines] == [
        {name: pytest.approx(value, abs=1e-6) if isinstance(value, float) else value for name, value in row.items()}
        for row in table
    ]


@pytest.mark.parametrize("genre", ["=1+1", "+rock", "-core", "@home", "\tjazz", " =1+1"])
def test_genres_that_look_like_formulas_are_text_in_csv(genre: str, music: Path, tmp_path: Path) -> None:
    (music / "bad.mp3").write_bytes(b"no music")
    model = save_model(tmp_path / "model", classes=(genre, "pop", "rock"))
    settings = (str(music), f"model={model}", f"output={tmp_path / 'out'}", "min_precision=0", "tag.top_k=3")
    assert run(*settings) == 0
    names = {row[column] for row in rows(tmp_path / "out/tags/tags.csv") for column in ("best", "genre_2", "genre_3")}
    assert names == {f"'{genre}", "pop", "rock"}
    exact = pq.read_table(tmp_path / "out/tags/tags.parquet")
    assert {name for column in ("best", "genre_2", "genre_3") for name in exact[column].to_pylist()} == {
        genre, "pop", "rock"
    }  # fmt: skip
    (row,) = rows(tmp_path / "out/tags/failures.csv")
    assert row["path"] == str(music / "bad.mp3")


@pytest.mark.parametrize("name", ["=cmd.mp3", "-live.mp3", "song.mp3"])
def test_texts_of_a_file_are_text_in_csv_and_numbers_are_numbers(name: str) -> None:
    table = pa.table({"path": [name, None], "message": ["@x", "a =b"], "seconds": [-1.5, None]})
    rows = list(csv.DictReader(io.StringIO(spreadsheet.csv_bytes(table).decode())))
    mark = "" if name == "song.mp3" else "'"
    assert rows[0] == {"path": f"{mark}{name}", "message": "'@x", "seconds": "-1.5"}
    assert rows[1] == {"path": "", "message": "a =b", "seconds": ""}


def test_a_run_resumes_with_names_that_look_like_formulas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(tmp_path / "model", classes=("=1+1", "pop", "rock"))
    song(tmp_path / "music" / "=a.flac")
    settings = (str(tmp_path / "music"), f"model={model}", f"output={tmp_path / 'out'}", "min_precision=0")
    assert run(*settings) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out/tags").glob("*.csv")}
    capsys.readouterr()
    assert run(*settings) == 0
    assert "1 file, 1 already done, 0 to do" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out/tags").glob("*.csv")} == before
