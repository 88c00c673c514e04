"""Print the results of a job on standard output, which may be a pipe."""

from __future__ import annotations

import os
import shutil
import sys


def show(text: str) -> None:
    """Print `text`. If the reader, such as `head`, closes the pipe early, the rest is discarded without an error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python flushes at its exit


def width(otherwise: int) -> int:
    """Return the columns of the terminal on standard output; `otherwise` where it is a file or a pipe."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()  # None where it is closed
    return shutil.get_terminal_size((otherwise, 0)).columns if is_terminal else otherwise
