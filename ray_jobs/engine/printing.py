"""What jobs print on standard output: text that is read, piped or cut off by `head`."""

from __future__ import annotations

import os
import sys


def show(text: str) -> None:
    """Print `text`. A reader that closes the pipe early ends the output, not the job."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python flushes at its exit
