"""Markdown that also reads well unrendered, with every text from outside escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A pipe table whose columns line up unrendered too."""
    cells = [[safe(cell) for cell in line] for line in (headings, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in cells
    )


def bullets(lines: Iterable[str]) -> str:
    """A list; each line is escaped."""
    return "\n".join(f"- {safe(line)}" for line in lines)


def code(lines: Iterable[str]) -> str:
    """An indented block, in which nothing has a meaning."""
    return "\n".join(f"    {line}" for text in lines for line in text.splitlines())


def bracketed(text: str) -> str:
    """`text` in brackets, or nothing for nothing."""
    return f"({text})" if text else ""


def safe(text: str) -> str:
    """`text` on one line, with every sign that could start a tag, a link, emphasis or another cell escaped."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*|\[\]])", r"\\\1", flat)
