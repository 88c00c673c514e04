"""The command `genre <job> [key=value ...]`. It imports a job only to run it, so that help and errors are fast."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches

import genre
from ray_jobs.engine import jobs, printing

_USAGE = """\
usage: genre JOB [--config FILE] [key=value ...]

{purpose}

jobs:
{jobs}

options:
  -h, --help     show this page; `genre JOB --help` shows a job's settings
  --version      show the version
"""
_PURPOSE = "Classify music by genre: learn from labelled music, compare architectures, tag a collection."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job that the first argument names. Return the exit code of `cli.main`; 2 if the job is unknown."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name == "help":  # as other commands have it
        name, rest = (rest or ["--help"])[0], ["--help"]
    if name in jobs.JOBS:
        from ray_jobs.engine import cli

        return cli.main(name, rest, program=f"genre {name}")
    if name in ("-h", "--help"):
        printing.show(_overview())
        return 0
    if name == "--version":
        print(f"genre {genre.__version__}")
        return 0
    if not name:
        print(_overview(), file=sys.stderr)
        return 2
    kind = "option" if name.startswith("-") else "job"
    close = get_close_matches(name, jobs.JOBS, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"the jobs are {', '.join(jobs.JOBS)}"
    print(f"error: unknown {kind} {name!r}; {remedy}", file=sys.stderr)
    return 2


def _overview() -> str:
    purposes = {name: jobs.purpose(name).splitlines()[0] for name in jobs.JOBS}
    lines = (printing.filled(purpose, f"  {name:<14} ", " " * 17) for name, purpose in purposes.items())
    return _USAGE.rstrip().format(purpose=printing.filled(_PURPOSE), jobs="\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
