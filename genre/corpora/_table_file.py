"""Read a table as text: Parquet, or text with separators as spreadsheets save it.

Text is UTF-8, or UTF-16 with a byte order mark, or else Windows-1252, which Excel writes as "CSV". The separator is the
comma, semicolon or tab that divides the first line best. Parquet is recognised by its first bytes and read in batches;
text is in memory completely, which is less than the tracks that are made of it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from genre.errors import ConfigError, one_line
from genre.storage import Location
from genre.storage.faults import explain

_ROWS = 8192  # per batch
_PARQUET = b"PAR1"
_EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # a zip, .xlsx; an OLE file, .xls
_SEPARATORS = ",;\t"  # of equally good ones the first
_HEADER = 1 << 16  # characters in which the first line ends
_QUOTED = re.compile(r'"[^"]*"')
_INSIDE_QUOTES = str.maketrans("", "", _SEPARATORS + '"\r\n')


class TableFile:
    """A table whose columns are read as text, under other names.

    `columns` maps these names to those of the file, and has the columns that exist. `others` are the columns of the
    file that it does not have. `guessed_from` is the first line that is no Unicode, where that made the text
    Windows-1252, or None.
    """

    def __init__(self, file: Location, settings: Mapping[str, str | None]) -> None:
        """Open `file`. `settings` maps names to those of the file, where None is the same name if it exists.

        Raises `ConfigError` for a file that is no table or lacks a column.
        """
        self.file = file
        self._text: pa.Buffer | None = None  # of Parquet, None
        self.guessed_from: int | None = None
        wanted = {name: column or name for name, column in settings.items()}
        with self._explained():
            if not self._is_parquet():
                text, header = self._decoded(file.read_bytes())
                self._text = pa.py_buffer(text)
                self._separator = separator(header, wanted.values())
            existing = self._existing()
        self.columns: dict[str, str] = {}
        for name, column in wanted.items():
            if column in existing:
                self.columns[name] = column
            elif settings[name]:
                names = ", ".join(existing)
                raise ConfigError(f"{file} has no column {column!r}; it has {names}; set corpus.params.{name}_column")
        self.others = [name for name in existing if name and name not in self.columns.values()]

    def batches(self, names: Iterable[str]) -> Iterator[dict[str, pa.Array]]:
        """Yield batches of rows: the columns `names`, without whitespace around values other than paths.

        Empty fields, and those of a column that does not exist, are null.
        """
        names = list(names)
        columns = {name: self.columns[name] for name in names if name in self.columns}
        with self._explained():
            for batch in self._read(sorted(set(columns.values()))):
                nothing = pa.nulls(len(batch), pa.string())
                yield {name: _text(batch[columns[name]], name) if name in columns else nothing for name in names}

    def others_begin(self, rows: int) -> dict[str, pa.ChunkedArray]:
        """Return the texts of the first `rows` rows in `others`; of Parquet, those of columns that hold text."""
        with self._explained():
            names = sorted(set(self.others) & self._text_columns())
            parts: dict[str, list[pa.Array]] = {name: [] for name in names}
            for batch in self._read(names) if names else ():
                for name in names:
                    parts[name].append(_text(batch[name], name))
                rows -= len(batch)
                if rows <= 0:
                    break
        return {name: pa.chunked_array(parts[name], pa.string()) for name in self.others if name in parts}

    def place(self, row: int) -> str:
        """Return where a row, numbered from 1, is in the file: its line in a text. Empty lines are no rows."""
        if self._text is None:
            return f"row {row}"
        lines = [number for number, line in enumerate(self._text.to_pybytes().splitlines(), 1) if line]
        return f"line {lines[row] if row < len(lines) else row + 1}"

    def _is_parquet(self) -> bool:
        with self.file.filesystem.open_input_stream(self.file.path) as stream:
            start = stream.read(4)
        if start in _EXCEL:
            raise ConfigError(
                f"corpus.root={self.file} is an Excel workbook or another archive, not text; open it and save it as "
                '"CSV UTF-8"'
            )
        return bool(start == _PARQUET)

    def _decoded(self, content: bytes) -> tuple[bytes, str]:
        """Return the text of the file as UTF-8 without a byte order mark, and its beginning."""
        try:
            if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                text = content.decode("utf-16")
                return text.encode(), text[:_HEADER]
            return content.removeprefix(codecs.BOM_UTF8), content.decode("utf-8-sig")[:_HEADER]
        except UnicodeDecodeError as error:
            problem = error
        line = content.count(b"\n", 0, problem.start) + 1
        try:
            # a text that is Unicode but for a damaged letter: in another encoding all others would be wrong
            if b"\0" in content or not content.decode(errors="ignore").isascii():
                raise problem
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            raise ConfigError(
                f"corpus.root={self.file} is neither a Parquet file nor text in UTF-8 or Windows-1252 "
                f'(line {line}: {one_line(problem)}); save it as "CSV UTF-8"'
            ) from None
        self.guessed_from = line
        return text.encode(), text[:_HEADER]

    def _existing(self) -> list[str]:
        if self._text is not None:
            return list(self._open_text(pa.csv.ConvertOptions()).schema.names)
        with self.file.filesystem.open_input_file(self.file.path) as stream:
            return list(pq.read_schema(stream).names)

    def _text_columns(self) -> set[str]:
        """Return the columns that have values of text: of a text all whose name is unique."""
        if self._text is not None:
            existing = self._existing()
            return {name for name in existing if existing.count(name) == 1}
        with self.file.filesystem.open_input_file(self.file.path) as stream:
            schema = pq.read_schema(stream)
        kinds = {
            field.name: field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in schema
        }
        return {name for name, kind in kinds.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)}

    def _read(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        if self._text is None:
            with self.file.filesystem.open_input_file(self.file.path) as stream:
                yield from pq.ParquetFile(stream).iter_batches(batch_size=_ROWS, columns=columns)
            return
        convert = pa.csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.string()),  # otherwise the artist 007 would become 7
            null_values=[""],
            strings_can_be_null=True,
        )
        yield from self._open_text(convert)

    def _open_text(self, convert: pa.csv.ConvertOptions) -> pa.csv.CSVStreamingReader:
        parse = pa.csv.ParseOptions(delimiter=self._separator, newlines_in_values=True)
        return pa.csv.open_csv(pa.BufferReader(self._text), parse_options=parse, convert_options=convert)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of pyarrow about the table into a `ConfigError` of one line."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and (reason := explain(error, self.file)):
                raise ConfigError(f"corpus.root={self.file}: {reason}") from None
            raise ConfigError(
                f"corpus.root={self.file} is not a table ({one_line(error)}); point it at a CSV or Parquet file"
            ) from None


def separator(text: str, wanted: Iterable[str]) -> str:
    """Return the character that separates the columns of a table which begins with `text`.

    It is the one with which the first line has most of the `wanted` names, and of several the most frequent. What is in
    quotes separates nothing.
    """
    bare = _QUOTED.sub(lambda quoted: quoted[0].translate(_INSIDE_QUOTES), text)
    header = re.split(r"[\r\n]", bare.lstrip("\r\n"), maxsplit=1)[0]
    names = {name.translate(_INSIDE_QUOTES) for name in wanted}
    return max(_SEPARATORS, key=lambda each: (len(names.intersection(header.split(each))), header.count(each)))


def _text(values: pa.Array, name: str) -> pa.Array:
    text = pc.cast(values, pa.string())
    stripped = text if name == "path" else pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(stripped, ""), None, stripped)
