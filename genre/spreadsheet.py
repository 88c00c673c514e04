"""CSV files, with protection against formulas: files and genres may have names such as `=HYPERLINK(...)`."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

_ROWS = 10_000  # that are written at a time
_LONGEST_ROW = 1 << 26  # bytes
# Beginnings that make a cell a formula (OWASP, "CSV Injection"); East Asian Excel accepts the full-width signs too
FORMULA = r"^\s*[=+\-@＝＋－＠]|^[\t\r\n]"


def inert(text: str) -> str:
    """Return `text`, with an apostrophe in front if a spreadsheet would run it as a formula."""
    return f"'{text}" if re.match(FORMULA, text) else text


def inert_table(table: pa.Table) -> pa.Table:
    """Return `table` with `inert` texts."""
    for number, column in enumerate(table.columns):
        if pa.types.is_string(column.type):
            is_formula = pc.match_substring_regex(column, FORMULA)
            texts = pc.if_else(is_formula, pc.binary_join_element_wise("'", column, ""), column)
            table = table.set_column(number, table.field(number), texts)
    return table


def csv_bytes(table: pa.Table) -> bytes:
    """Return `table` as CSV, with an apostrophe before each text that a spreadsheet would run as a formula."""
    buffer = io.BytesIO()
    write_csv(table, buffer)
    return buffer.getvalue()


def write_csv(table: pa.Table, stream: IO[bytes] | pa.NativeFile) -> None:
    """Write what `csv_bytes` returns, some rows at a time, so that no copy of a long table is in memory."""
    with pyarrow.csv.CSVWriter(stream, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=_ROWS):
            writer.write_table(inert_table(pa.Table.from_batches([batch])))


def read_csv(stream: pa.NativeFile, names: Sequence[str]) -> pa.Table:
    """Return columns of a CSV file as texts, null where they are empty; the apostrophes of `csv_bytes` stay."""
    return pyarrow.csv.read_csv(
        stream,
        pyarrow.csv.ReadOptions(block_size=_LONGEST_ROW, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            include_columns=names,
        ),
    )
