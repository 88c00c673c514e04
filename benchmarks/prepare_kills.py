"""Kill the prepare job at random moments and check that no track is lost, duplicated or decoded twice.

    python benchmarks/prepare_kills.py --rounds 20

A round is one SIGKILL: of the driver, of a Ray worker, or of a decoder process. After a kill of the driver the same
command starts again at once, while processes of the killed one still exist. When a job ends, its results must equal
those of an undisturbed run, and each track that was finished before a kill must be in the same file as then, with the
same modification time. The exit code is 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(REPOSITORY / "benchmarks")]
from music import config_of, tables, write_song
from processes import command, descendants, is_alive

VICTIMS = ("driver", "worker", "decoder")
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # idle; they end by themselves a minute later

DAMAGED, TRUNCATED, BLOCK = 5, 5, 8  # files that are no music, files that end early, tracks in a block


@dataclass
class Kill:
    """One round."""

    victim: str
    seconds: float  # after the start of the command
    finished: int  # tracks at that time
    ending: float | None = None  # seconds until all processes of a killed driver had ended


class DisturbedJob:
    """A job that is killed and started again until it succeeds."""

    def __init__(self, config: Path, output: Path, draw: random.Random, victims: list[str], blocks: int) -> None:
        self._config, self._output, self._draw, self._blocks = config, output, draw, blocks
        self._victims = victims  # the last is the next
        self.kept: dict[str, tuple[str, int]] = {}  # track -> its part and the time it was written, at the last kill
        self.dying: list[tuple[Kill, list[int], float]] = []

    def run(self, most: int) -> list[Kill]:
        """Run the job to its end with at most `most` kills."""
        kills: list[Kill] = []
        while True:
            job = start(self._config)
            started = time.monotonic()
            moment = self._moments(while_starting=True)
            while job.poll() is None:
                self._check_dying()
                if len(kills) < most and next(moment):
                    kill = self._kill(job.pid, time.monotonic() - started)
                    kills += [kill] if kill else []
                    moment = self._moments(while_starting=False)
                time.sleep(0.02)
            if job.returncode == 0:
                return kills
            if job.returncode != -signal.SIGKILL:
                assert job.stderr
                raise SystemExit(f"the job failed by itself with exit code {job.returncode}:\n{job.stderr.read()}")

    def _moments(self, while_starting: bool) -> Iterator[bool]:
        """Yield whether it is time for a kill: after a random number of blocks and up to half a second.

        While the job starts, it is sometimes a random time of up to eight seconds instead.
        """
        begun = time.monotonic()
        if while_starting and self._draw.random() < 0.3:
            wait = self._draw.uniform(0, 8)
        else:
            begin = self._finished_blocks()  # a restart divides the remaining tracks again, into more blocks
            blocks = self._draw.randint(begin, max(begin, self._blocks))
            while self._finished_blocks() < blocks:
                yield False
            begun, wait = time.monotonic(), self._draw.uniform(0, 0.5)
        while time.monotonic() - begun < wait:
            yield False
        yield True

    def _finished_blocks(self) -> int:
        return sum(1 for _ in (self._output / "features/outcomes").glob("[!.]*.parquet"))

    def lost(self) -> list[str]:
        """Return the tracks that were finished before a kill and are in another file now, or nowhere."""
        rows = pq.read_table(self._output / "features/tracks.parquet", columns=["track_id", "part"]).to_pylist()
        now = {row["track_id"]: (row["part"], written(self._output, row["part"])) for row in rows}
        return [track for track, location in self.kept.items() if now.get(track) != location]

    def wait_for_dying(self) -> None:
        while self.dying:
            self._check_dying()
            time.sleep(0.1)

    def _kill(self, driver: int, since: float) -> Kill | None:
        victim = self._victims[-1]
        family = descendants(driver)
        chosen = [pid for pid in family if kind_of(pid) == victim] if victim != "driver" else [driver]
        if not chosen:
            return None  # there is no such process at this time
        self._victims.pop()
        self.kept |= finished(self._output)
        kill = Kill(victim, since, len(self.kept))
        os.kill(self._draw.choice(chosen), signal.SIGKILL)
        if victim == "driver":
            working = [pid for pid in family if not command(pid).startswith(AGENTS)]
            self.dying.append((kill, working, time.monotonic()))
        return kill

    def _check_dying(self) -> None:
        for entry in list(self.dying):
            kill, family, since = entry
            if not any(is_alive(pid) for pid in family):
                kill.ending = time.monotonic() - since
                self.dying.remove(entry)
            elif time.monotonic() - since > 120:
                left = {pid: command(pid) for pid in family if is_alive(pid)}
                raise SystemExit(f"processes outlive their driver by two minutes: {left}")


def finished(output: Path) -> dict[str, tuple[str, int]]:
    """Return the tracks that a rerun need not decode, with their part and the time it was written."""
    locations: dict[str, tuple[str, int]] = {}
    for path in (output / "features/outcomes").glob("[!.]*.parquet"):
        try:
            rows = pq.read_table(path, columns=["track_id", "part"]).to_pylist()
        except FileNotFoundError:  # the job has merged it
            continue
        locations |= {row["track_id"]: (row["part"], written(output, row["part"])) for row in rows if row["part"]}
    return locations


def written(output: Path, part: str) -> int:
    return (output / "features/clips" / part).stat().st_mtime_ns


def start(config: Path) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, "-m", "ray_jobs.prepare", "--config", str(config)]
    return subprocess.Popen(command, cwd=REPOSITORY, env=clean, stderr=subprocess.PIPE, text=True)


def kind_of(pid: int) -> str:
    text = command(pid)
    if "genre.audio.isolation" in text:
        return "decoder"
    # not Ray's own agents and actors: Ray ends without them, and the driver with it
    return "worker" if text.startswith("ray::") and not text.startswith((*AGENTS, "ray::_")) else ""


def make_music(root: Path, tracks: int) -> None:
    """Write hard links to a few songs, some songs that end early but are kept, and some files that are no music."""
    songs = [write_song(root / f"genre{i % 3}" / f"song{i}.wav", i, seconds=20.0) for i in range(12)]
    for i in range(len(songs), tracks):
        os.link(songs[i % 12], root / f"genre{i % 3}" / f"song{i}.wav")
    for i in range(DAMAGED):
        (root / "genre0" / f"bad{i}.wav").write_bytes(b"no music" * i)
    for i in range(TRUNCATED):
        content = songs[i].read_bytes()
        (root / "genre1" / f"cut{i}.wav").write_bytes(content[: len(content) * 4 // 5])


def differences(actual: dict[str, pa.Table], expected: dict[str, pa.Table]) -> list[str]:
    """Return the names of the tables that differ."""
    return [name for name in expected if not actual[name].equals(expected[name])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tracks", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="prepare-kills-"))
    try:
        return disturb(home, options.rounds, options.tracks, random.Random(options.seed))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def disturb(home: Path, rounds: int, tracks: int, draw: random.Random) -> int:
    make_music(home / "music", tracks)
    configs = {}
    for name in ("undisturbed", "disturbed"):
        configs[name] = home / f"{name}.yaml"
        config = config_of(home / "music", home / name, tracks_per_block=BLOCK)
        configs[name].write_text(config.model_dump_json())
    started = time.monotonic()
    undisturbed = start(configs["undisturbed"])
    _, errors = undisturbed.communicate()
    if undisturbed.returncode:
        raise SystemExit(f"the undisturbed job failed with exit code {undisturbed.returncode}:\n{errors}")
    span = time.monotonic() - started
    expected = tables(home / "undisturbed")
    marked = expected["tracks"]["truncated"].to_pylist().count(True)
    if (marked, len(expected["rejects"])) != (TRUNCATED, DAMAGED):
        raise SystemExit(f"the undisturbed job marks {marked} tracks and rejects {len(expected['rejects'])}")
    print(f"undisturbed: {len(expected['tracks'])} tracks in {span:.1f} s", flush=True)
    print(f"{'round':>5}  {'victim':<8} {'after s':>8} {'finished':>9}  {'its workers ended after s':<30}", flush=True)
    done, wrong = 0, 0
    seen: Counter[str] = Counter()
    victims = [victim for _ in range(rounds) for victim in draw.sample(VICTIMS, len(VICTIMS))]
    while done < rounds:
        job = DisturbedJob(
            configs["disturbed"], home / "disturbed", draw, victims, -(-(tracks + DAMAGED + TRUNCATED) // BLOCK)
        )
        kills = job.run(most=min(rounds - done, 6))
        job.wait_for_dying()
        for kill in kills:
            done += 1
            seen[kill.victim] += 1
            ending = "" if kill.ending is None else f"{kill.ending:.1f}"
            print(f"{done:>5}  {kill.victim:<8} {kill.seconds:>8.1f} {kill.finished:>9}  {ending:<30}", flush=True)
        different = differences(tables(home / "disturbed"), expected)
        again = job.lost()
        wrong += len(different) + len(again)
        verdict = f"differs in {', '.join(different)}" if different else "equal to the undisturbed run"
        print(f"       -> {verdict}; {len(again)} finished tracks decoded again", flush=True)
        shutil.rmtree(home / "disturbed")
    print(json.dumps({"rounds": done, "victims": dict(seen), "violations": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
