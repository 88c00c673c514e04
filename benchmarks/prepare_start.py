"""How long the prepare command takes with next to nothing to do: what Python, Ray and this project cost to start.

    python benchmarks/prepare_start.py [--files 10] [--rounds 3]

Each round is the whole command in a process of its own, on as many wavs of a second, into an empty folder; the goal is
15 s on two cores. CPU time, which others on the machine hardly change, is that of the command and what it waited for.
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
            begun, used = time.monotonic(), _cpu_of_children()
            job = start(file)
            _, told = job.communicate()
            if job.returncode:
                sys.exit(told)
            print(f"{time.monotonic() - begun:.1f} s, {_cpu_of_children() - used:.1f} s of CPU time")


def _cpu_of_children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


if __name__ == "__main__":
    main()
