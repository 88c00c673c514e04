"""Tables as spreadsheets save them, and what the report says of their genres, paths and columns."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scanning import ids, refused, scan, settings, touch

from genre import corpora
from genre.corpora._table_file import TableFile, separator
from genre.reviewing.corrections import Corrections
from genre.storage import Location

ROWS = (("path", "genre", "group"), ("Musik/Bäcker.wav", "Für Kinder", "Die Jäger"), ("b.wav", "R&B, Soul; Funk", ""))


def write(root: Path, rows: tuple[tuple[str, ...], ...], encoding: str, delimiter: str, name: str = "t.csv") -> Path:
    """Write the rows as a spreadsheet does, and every file that they list with a relative path."""
    touch(root, *(row[0].replace("\\", "/") for row in rows[1:] if ":" not in row[0] and row[0][0] != "\\"))
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    (root / name).write_bytes(text.getvalue().encode(encoding))
    return root / name


def report(root: object, split: str = "auto", **params: str) -> list[str]:
    lines: list[str] = []
    list(corpora.scan(settings("table", root, split, **params), lines.append))
    return lines


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_what_spreadsheets_save_is_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    table = write(tmp_path, ROWS, encoding, delimiter)
    assert [(t.track_id, t.genre, t.group, t.size) for t in scan("table", table)] == [
        ("Musik/Bäcker.wav", "Für Kinder", "diejager", 1), ("b.wav", "R&B, Soul; Funk", None, 1),
    ]  # fmt: skip
    assert any("Windows-1252" in line for line in report(table)) == (encoding == "cp1252")


def test_the_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    table = write(tmp_path, ROWS, "cp1252", ";")
    assert report(table)[0].startswith("table: line 2 is not UTF-8, so the table is read as Windows-1252 (cp1252)")


def test_columns_may_have_names_in_windows_1252(tmp_path: Path) -> None:
    table = write(tmp_path, (("path", "Musikrichtung", "Länge", "Künstler"), ("a.wav", "x", "1", "y")), "cp1252", ";")
    assert "it has path, Musikrichtung, Länge, Künstler; set corpus.params.genre_column" in refused("table", table)
    (track,) = scan("table", table, genre_column="Musikrichtung", group_column="Künstler")
    assert (track.genre, track.group) == ("x", "y")


CELLS = st.text(st.sampled_from('abäß ,;\t"\r\n'), min_size=1, max_size=6)


@examples(max_examples=60)
@given(
    st.lists(CELLS, max_size=4, unique=True), st.lists(CELLS, min_size=6, max_size=6), st.permutations(range(6)),
    st.sampled_from(",;\t"), st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]), st.booleans(),
)  # fmt: skip
def test_any_table_is_read_as_written(
    others: list[str], cells: list[str], order: list[int], delimiter: str, encoding: str, is_quoted: bool
) -> None:
    """Whatever further columns are called, also with separators, quotes and line breaks in names and cells."""
    names = ["path", "genre", *others]
    order = [place for place in order if place < len(names)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL if is_quoted else csv.QUOTE_MINIMAL)
    writer.writerows([[row[place] for place in order] for row in (names, cells)])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "t.csv").write_bytes(text.getvalue().encode(encoding))
        table = TableFile(Location.of(folder) / "t.csv", {"path": "path", "genre": "genre", "group": None})
        (batch,) = table.batches(("path", "genre", "group"))
    assert sorted(table.others) == sorted(others)
    assert {name: values.to_pylist() for name, values in batch.items()} == {
        "path": [cells[0]], "genre": [cells[1].strip() or None], "group": [None],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("path;genre;Titel, Interpret, Album, Jahr", ";"),
        ('path,genre,"a;b;c;d"', ","),
        ('"path"\t"genre"\t"a,path,genre,b"\r\nx,y,z', "\t"),
        ("file;style", ";"),  # with none of the names, for the message that lists the columns
        ("path", ","),
        ("", ","),
    ],
)
def test_the_separator_divides_the_header_best(header: str, expected: str) -> None:
    assert separator(header, ["path", "genre"]) == expected


def test_empty_rows_are_skipped_and_counted_for_the_number_of_a_row(tmp_path: Path) -> None:
    """A spreadsheet saves those that have a format and no content."""
    touch(tmp_path, "a.wav", "b.wav")
    (tmp_path / "t.csv").write_text("path;genre\na.wav;x\n;\nb.wav;x\n;\n")
    assert ids(scan("table", tmp_path / "t.csv")) == ["a.wav", "b.wav"]
    assert "table: 2 tracks: 2 with 1 genre, 0 unlabelled" in report(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("path;genre\na.wav;x\n;\n;x\n")
    assert "line 4 has no path" in refused("table", tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("\npath;genre\n\na.wav;x\n\n;x\n")
    assert "line 6 has no path" in refused("table", tmp_path / "t.csv")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_damaged_letter_does_not_make_a_text_windows_1252(tmp_path: Path, mark: bytes) -> None:
    """All of its other letters would be wrong."""
    rows = "path,genre\nBäcker.wav,Röck\n".encode()
    (tmp_path / "t.csv").write_bytes(mark + rows + b"b.wav,R\xf6ck\n")
    message = refused("table", tmp_path / "t.csv")
    assert "is neither a Parquet file nor text in UTF-8 or Windows-1252 (line 3: " in message


def test_titles_in_place_of_genres_are_not_compared_with_each_other(tmp_path: Path) -> None:
    """Of a hundred thousand that would take hours, and the report would name six pairs of similar titles."""
    rows = [("path", "genre", "style"), *((f"{number}.wav", f"Title number {number}", "x") for number in range(60))]
    lines = report(write(tmp_path, (*rows, ("60.wav", "Title number 1", "x")), "utf-8", ","))
    assert not any("misspelt" in line for line in lines)
    assert any(line.startswith("odd: 60 genres; if the column 'genre' has no genres") for line in lines)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"])
def test_a_workbook_is_named_as_such(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(start + bytes(100))
    assert 'is an Excel workbook or another archive, not text; open it and save it as "CSV UTF-8"' in refused(
        "table", tmp_path / "t.csv"
    )


@pytest.mark.parametrize("content", [b"path,genre\n\x00\xff", b"path,genre\n\x81,rock"])
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    assert "is neither a Parquet file nor text in UTF-8 or Windows-1252" in refused("table", tmp_path / "t.csv")


def test_paths_of_windows_are_found(tmp_path: Path) -> None:
    paths = (r"Musik\Bäcker\a.wav", r"Musik\b.wav", r"Musik\x/y\d.wav", "c.wav")
    rows = (("path", "genre"), *((path, "rock") for path in paths))
    tracks = scan("table", write(tmp_path, rows, "cp1252", ";"))
    assert ids(tracks) == ["Musik/Bäcker/a.wav", "Musik/b.wav", "Musik/x/y/d.wav", "c.wav"]
    assert [track.size for track in tracks] == [1, 1, 1, 1]


def test_lines_are_counted_for_errors_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting reads the complete text, which for each of a million rows would take days."""
    touch(tmp_path, "a.wav", "b.wav")
    (tmp_path / "t.csv").write_text("path;genre\na.wav;x\nb.wav;y\n")
    monkeypatch.setattr(TableFile, "place", None)
    assert ids(scan("table", tmp_path / "t.csv")) == ["a.wav", "b.wav"]


class TestRepeatedRows:
    HEAD = ("path", "genre", "group", "split", "fold")

    def write(self, root: Path, *rows: tuple[str, ...]) -> Path:
        return write(root, (self.HEAD, *rows), "utf-8", ",")

    def test_equal_rows_are_one_track(self, tmp_path: Path) -> None:
        """Also where only their spelling differs, as names are compared."""
        first = ("d/a.wav", "Hip-Hop", "The Band", "train", "1")
        same = ("d/a.wav", "hip hop", "Band", "TRAINING", "1")
        table = self.write(tmp_path, first, ("d/b.wav", "rock", "x", "test", "2"), first, same, same)
        assert [(t.track_id, t.genre, t.split) for t in scan("table", table)] == [
            ("d/a.wav", "Hip-Hop", "train"), ("d/b.wav", "rock", "test"),
        ]  # fmt: skip
        lines = report(table)
        assert "odd: 3 rows repeat another one" in lines
        assert lines[0] == "table: 2 tracks: 2 with 2 genres, 0 unlabelled"

    def test_all_contradictions_are_in_one_error(self, tmp_path: Path) -> None:
        rows = [(f"d/{number}.wav", "rock", "", "train", "") for number in range(6)]
        others = [(f"d/{number}.wav", genre, "", "train", "") for number, genre in enumerate(["folk", "", "Rock"])]
        table = self.write(tmp_path, *rows, *others, *[(path, "jazz", "", "", "") for path, *_ in rows[3:]], rows[0])
        message = refused("table", table)
        assert "t.csv: 5 rows contradict an earlier one of the same path: " in message
        assert "line 8 has 'd/0.wav' with genre 'folk', line 2 with genre 'rock'; " in message
        assert "line 9 has 'd/1.wav' with no genre, line 3 with genre 'rock'; " in message
        assert "line 11 has 'd/3.wav' with genre 'jazz' and no split, line 5 with genre 'rock' and split 'train'" in (
            message
        )
        assert message.endswith(" and 2 more; keep the right row of each")

    @pytest.mark.parametrize(("column", "other"), [(1, "folk"), (2, "y"), (3, "test"), (4, "2")])
    def test_each_label_counts(self, tmp_path: Path, column: int, other: str) -> None:
        row = ["d/a.wav", "rock", "x", "train", "1"]
        changed = (*row[:column], other, *row[column + 1 :])
        table = self.write(tmp_path, tuple(row), changed)
        assert f"{self.HEAD[column]} '{other}'" in refused("table", table)
        if column > 2:  # a drawn split reads neither
            assert len(scan("table", table, "random")) == 1

    def test_a_track_id_of_two_files_is_named(self, tmp_path: Path) -> None:
        rows = (("path", "genre", "track_id"), ("d/a.wav", "rock", "1"), ("d/b.wav", "rock", "1"))
        message = refused("table", write(tmp_path, rows, "utf-8", ","))
        assert "of the same track id: line 3 has '1' with genre 'rock' and path 'd/b.wav', line 2 with" in message

    def test_backslashes_and_slashes_are_the_same_path(self, tmp_path: Path) -> None:
        rows = (("d\\a.wav", "rock"), ("d\\b.wav", "rock"), ("d/a.wav", "rock"))
        assert ids(scan("table", write(tmp_path, (("path", "genre"), *rows), "utf-8", ","))) == ["d/a.wav", "d/b.wav"]

    def test_rows_of_several_batches(self, tmp_path: Path) -> None:
        paths = [f"d/{number}.wav" for number in range(20_000)]
        table = pa.table({"path": paths + paths[::2], "genre": ["rock"] * 30_000, "size": ["1"] * 30_000,
                          "modified": ["1"] * 30_000})  # fmt: skip
        pq.write_table(table, tmp_path / "t")
        assert ids(scan("table", tmp_path / "t")) == paths
        assert "odd: 10000 rows repeat another one" in report(tmp_path / "t")
        changed = table.set_column(1, "genre", pa.array(["rock"] * 29_999 + ["folk"]))
        pq.write_table(changed, tmp_path / "t")
        assert "row 30000 has 'd/19998.wav' with genre 'folk', row 19999 with genre 'rock'; keep" in (
            refused("table", tmp_path / "t")
        )


def test_one_path_of_another_program_changes_no_separator(tmp_path: Path) -> None:
    """A person who adds a row to a table of Windows may paste a path of this machine."""
    paths = (r"Musik\a.wav", r"Musik\c.wav", str(tmp_path / "Musik/b.wav"))
    table = write(tmp_path, (("path", "genre"), *((path, "rock") for path in paths)), "utf-8", ";")
    (tmp_path / "Musik/c.wav").unlink()
    assert [track.size for track in scan("table", table)] == [1, corpora.MISSING, 1]
    assert "odd: 1 listed file cannot be found, the first is Musik/c.wav" in report(table)


def test_a_backslash_in_a_name_is_kept_where_slashes_separate(tmp_path: Path) -> None:
    names = ["a/AC\\DC.wav", "AC\\DC/b.wav"]
    touch(tmp_path, *names)
    (tmp_path / "t.csv").write_text("\n".join(["path,genre", *(f"{name},rock" for name in names)]))
    assert [(track.track_id, track.size) for track in scan("table", tmp_path / "t.csv")] == [
        (name, 1) for name in names
    ]


@pytest.mark.parametrize("path", [r"D:\Musik\a.wav", "D:/Musik/a.wav", r"\\server\Musik\a.wav"])
def test_absolute_paths_of_windows_are_named(tmp_path: Path, path: str) -> None:
    table = write(tmp_path, (("path", "genre"), (path, "rock")), "utf-8", ";", "only.csv")
    message = refused("table", table)
    assert f"lists paths of a Windows machine, such as {path}, which do not exist here" in message
    assert f"relative to the folder of the table, {tmp_path}" in message
    some = write(tmp_path, (("path", "genre"), (path, "rock"), ("b.wav", "rock")), "utf-8", ";", "some.csv")
    assert [track.size for track in scan("table", some)] == [corpora.MISSING, 1]  # the first will be a reject
    (line,) = [line for line in report(some) if "Windows machine" in line]
    assert line.startswith("odd: 1 path of a Windows machine, which cannot be found here, the first in line 2: ")
    assert line.endswith(f": {path}; write paths relative to the folder of the music")


class TestGenres:
    @staticmethod
    def write(root: Path, genres: dict[str, int], split: str = "") -> Path:
        names = (genre for genre, count in genres.items() for _ in range(count))
        rows = [(f"{number}.wav", genre, split) for number, genre in enumerate(names)]
        return write(root, (("path", "genre", "split"), *rows), "utf-8", ",")

    def test_spellings_are_a_genre_with_the_most_frequent_of_them(self, tmp_path: Path) -> None:
        table = self.write(tmp_path, {"hip hop": 2, "Hip-Hop": 5, "HIPHOP": 1, "Rock": 5, "Roc": 1, "": 3})
        assert {track.genre for track in scan("table", table)} == {"Hip-Hop", "Rock", "Roc", None}
        assert report(table) == [
            "table: 17 tracks: 14 with 3 genres, 3 unlabelled",
            "       8 Hip-Hop; written Hip-Hop (5), hip hop (2), HIPHOP (1)",
            "       5 Rock",
            "       1 Roc",
            "odd: Roc may be Rock misspelt; correct the table if it is",
        ]

    def test_a_text_with_separators_is_one_genre(self, tmp_path: Path) -> None:
        table = self.write(tmp_path, {"rap": 1, "Rock, Pop/Folk; Jazz": 1})
        assert [track.genre for track in scan("table", table)] == ["rap", "Rock, Pop/Folk; Jazz"]

    def test_excluded_rows_count_only_where_the_split_is_not_read(self, tmp_path: Path) -> None:
        table = self.write(tmp_path, {"rock": 2, "Rock": 1}, split="Excluded")
        assert report(table) == ["table: 0 tracks: 0 with 0 genres, 0 unlabelled"]
        assert report(table, "random")[1] == "       3 rock; written rock (2), Rock (1)"
        assert {track.genre for track in scan("table", table, "random")} == {"rock"}

    def test_spellings_of_a_table_of_several_batches(self, tmp_path: Path) -> None:
        genres = ["folk", "Folk", "Folk"] * 5000
        columns = {"path": [f"{number}.wav" for number in range(len(genres))], "genre": genres}
        pq.write_table(pa.table(columns), tmp_path / "t")
        assert {track.genre for track in scan("table", tmp_path / "t")} == {"Folk"}

    def test_a_long_list_is_shortened(self, tmp_path: Path) -> None:
        lines = report(self.write(tmp_path, {f"Genre of the number {number}": 2 + number % 2 for number in range(40)}))
        assert lines[31:] == ["      20 in 10 more genres"]

    @pytest.mark.parametrize("remarks", [["geprüft", ""] * 3, [f"Titel {number}" for number in range(30)]])
    def test_a_column_without_genres_is_suspected(self, tmp_path: Path, remarks: list[str]) -> None:
        rows = [(f"{number}.wav", remark, "Rock") for number, remark in enumerate(remarks)]
        table = write(tmp_path, (("path", "remark", "style"), *rows), "cp1252", ";")
        (line,) = [line for line in report(table, genre_column="remark") if "genre_column" in line]
        assert line.endswith(
            "if the column 'remark' has no genres, set corpus.params.genre_column to the one that has: style"
        )


def test_the_columns_that_may_name_artists_are_listed(tmp_path: Path) -> None:
    head = ("path", "genre", "Interpret", "Jahr", "Dauer", "Sendung", "Titel", "Bestand")
    names, dates = ["50 Cent", "Björk", "2 Unlimited", "A Tribe Called Quest"], ["2021-03-04", "4. März 2021"]
    rows = [
        (
            f"{n}.wav",
            ("rock", "folk")[n % 2],
            names[n % 4],
            f"{1990 + n % 3}",
            f"0{n % 3}:45",
            dates[n % 2],
            f"Title {n}",
            "Archiv",
        )
        for n in range(12)
    ]
    table = write(tmp_path, (head, *rows), "utf-8", ";")
    assert report(table)[-1].startswith("odd: artists are unknown: tracks of one artist may be in several splits")
    assert report(table)[-1].endswith("corpus.params.group_column to the column of artists or albums, if it is one of "
                                      "Interpret")  # fmt: skip
    assert not any(line.startswith("odd: ") for line in report(table, group_column="Interpret"))


def test_the_columns_of_a_parquet_file_that_have_no_text_are_not_listed(tmp_path: Path) -> None:
    artists = pa.array(["x", "y"] * 10)
    columns = {"path": [f"{n}.wav" for n in range(20)], "genre": ["rock"] * 20, "year": [1990, 1991] * 10,
               "artist": artists.dictionary_encode(), "album": artists, "tags": [["x"], ["y"]] * 10}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "t")
    (line,) = [line for line in report(tmp_path / "t") if "artists are unknown" in line]
    assert line.endswith("if it is one of artist, album")


def test_small_genres_are_not_learned(tmp_path: Path) -> None:
    rows = (("path", "genre"), *((f"{n}.wav", genre) for n, genre in enumerate(["Rock"] * 3 + ["rock", "Rok", ""])))
    table = write(tmp_path, rows, "utf-8", ";")
    assert [(t.genre, t.split) for t in scan("table", table, min_tracks=2)] == [
        *[("Rock", None)] * 4, *[(None, "unlabelled")] * 2,
    ]  # fmt: skip
    lines: list[str] = []
    list(corpora.scan(settings("table", table, min_tracks=2), lines.append))
    assert "table: 6 tracks: 4 with 1 genre, 2 unlabelled" in lines
    assert "not learned: genres with fewer than corpus.params.min_tracks=2: Rok (1 track)" in lines
    assert "odd: fewer than two genres can be learned; lower corpus.params.min_tracks" in lines
    assert [track.genre for track in scan("table", table)][4] == "Rok"


def test_the_music_may_be_in_another_folder(tmp_path: Path) -> None:
    music = touch(tmp_path / "music", "d/a.wav")
    (tmp_path / "t.csv").write_text("path,genre\nd/a.wav,rock\n")
    assert [t.size for t in scan("table", tmp_path / "t.csv")] == [corpora.MISSING]
    (track,) = scan("table", tmp_path / "t.csv", folder=str(music))
    assert (track.track_id, track.path, track.size) == ("d/a.wav", str(music / "d/a.wav"), 1)
    message = refused("table", tmp_path / "t.csv", folder=str(tmp_path / "absent"))
    assert message.startswith(f"corpus.params.folder={tmp_path}/absent does not exist")


def test_published_folds_are_read_and_counted(tmp_path: Path) -> None:
    rows = (
        ("path", "genre", "split", "fold"),
        *((f"{number}.wav", "rock", "excluded" if number == 5 else "", str(number % 3)) for number in range(6)),
        ("6.wav", "folk", "", ""),
    )
    table = write(tmp_path, rows, "utf-8", ",")
    assert [(t.fold, t.split) for t in scan("table", table)] == [
        *((str(number % 3), "excluded" if number == 5 else None) for number in range(6)), (None, None),
    ]  # fmt: skip
    assert "table: 3 published folds for a cross-validation: 0 (2), 1 (2), 2 (1)" in report(table)
    assert {t.fold for t in scan("table", table, "random")} == {None}
    assert not any("published fold" in line for line in report(table, "random"))
    assert [t.fold for t in scan("table", table, fold_column="genre")] == ["rock"] * 6 + ["folk"]
    assert "has no column 'part'" in refused("table", table, fold_column="part")


def test_corrections_of_the_review_are_read_as_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "music/a;b.wav", "music/c, d.wav")
    corrections = Corrections(Location.of(tmp_path / "corrections.csv"))
    corrections.put(str(tmp_path / "music/a;b.wav"), "Für Kinder", "die jäger")
    corrections.put(str(tmp_path / "music/c, d.wav"), "rock", None)
    assert [(t.track_id, t.genre, t.group, t.size) for t in scan("table", corrections.file)] == [
        (str(tmp_path / "music/a;b.wav"), "Für Kinder", "diejager", 1),
        (str(tmp_path / "music/c, d.wav"), "rock", None, 1),
    ]
    assert [line for line in report(corrections.file) if line.startswith("odd: ")] == []
