"""Protection against formulas in CSV files: files and genres may have names such as `=HYPERLINK(...)`."""

from __future__ import annotations

import re

# Beginnings that make a cell a formula (OWASP, "CSV Injection"); East Asian Excel accepts the full-width signs too
FORMULA = r"^\s*[=+\-@＝＋－＠]|^[\t\r\n]"


def inert(text: str) -> str:
    """Return `text`, with an apostrophe in front if a spreadsheet would run it as a formula."""
    return f"'{text}" if re.match(FORMULA, text) else text
