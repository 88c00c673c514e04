"""Text that a spreadsheet shows and does not run: files and genres may have names such as `=HYPERLINK(...)`."""

from __future__ import annotations

import re

# What makes a cell a formula (OWASP, "CSV Injection"); the wide signs do so in East Asian Excel
FORMULA = r"^\s*[=+\-@＝＋－＠]|^[\t\r\n]"


def inert(text: str) -> str:
    """`text` with an apostrophe in front where a spreadsheet would run it as a formula."""
    return f"'{text}" if re.match(FORMULA, text) else text
