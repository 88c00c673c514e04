"""Print the results of a job on standard output, which may be a pipe."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TextIO

from genre.credentials import without_credentials


def show(text: str) -> None:
    """Print `text` without credentials. If the reader, such as `head`, closes the pipe early, the rest is discarded."""
    try:
        print(without_credentials(text), flush=True)
    except BrokenPipeError:
        discard(sys.stdout)


def discard(stream: TextIO) -> None:
    """Discard what is written to `stream` from now on, also what Python flushes at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def wrapped(text: str, columns: int) -> str:
    """Return `text` with its lines broken between words, and what follows indented below their beginning.

    A word that is longer than a line, such as a path without spaces, stays whole, so that it can be copied.
    """
    columns = max(columns, 20)
    return "\n".join(_wrapped_line(line, columns) if len(line) > columns else line for line in text.splitlines())


def _wrapped_line(line: str, columns: int) -> str:
    indent = " " * (len(line) - len(line.lstrip()))
    wrapper = textwrap.TextWrapper(columns, indent, f"{indent}  ", break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(line.lstrip())


def filled(text: str, first: str = "", indent: str = "") -> str:
    """Return `text` in lines of at most the width of the terminal, which begin with `first` and `indent`."""
    width = max(80, min(120, shutil.get_terminal_size((110, 24)).columns))
    wrapper = textwrap.TextWrapper(width, first, indent, break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(text)


def width(otherwise: int) -> int:
    """Return the columns of the terminal on standard output; `otherwise` where it is a file or a pipe."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()  # None where it is closed
    return shutil.get_terminal_size((otherwise, 0)).columns if is_terminal else otherwise
