"""Measure the prepare command on a few short files: the time to start Python, Ray and this project.

    python benchmarks/prepare_start.py [--files 10] [--rounds 3]

Each round runs the complete command in a new process, on wavs of one second, into an empty folder. The goal is 15 s on
two cores. The CPU time is that of the command and its finished children; other programs hardly affect it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from music import config_of, write_music
from prepare_kills import start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prepare-start-") as home:
        write_music(Path(home) / "music", genres=2, per_genre=-(-options.files // 2))
        for number in range(options.rounds):
            file = Path(home) / "run.json"
            file.write_text(config_of(f"{home}/music", f"{home}/out{number}").model_dump_json())
            started, cpu = time.monotonic(), _cpu_of_children()
            job = start(file)
            _, errors = job.communicate()
            if job.returncode:
                sys.exit(errors)
            print(f"{time.monotonic() - started:.1f} s, {_cpu_of_children() - cpu:.1f} s of CPU time")


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
