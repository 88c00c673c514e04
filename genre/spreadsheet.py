"""Protection against formulas in CSV files: files and genres may have names such as `=HYPERLINK(...)`."""

from __future__ import annotations

import io
import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

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
    pyarrow.csv.write_csv(inert_table(table), buffer)
    return buffer.getvalue()
