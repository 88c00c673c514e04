"""Kill the prepare job at random moments, again and again, and see that nothing is lost, doubled or decoded twice.

    python benchmarks/prepare_kills.py --rounds 20

A round is one SIGKILL: of the driver, of a Ray worker, or of a process that decodes. After the driver's the same
command is given again at once, while the processes of the killed one are still dying. When a job comes to its end its
result must be that of an undisturbed run, and every track that was finished before a kill must lie in the file, and
at the time, in which it was written then. Exit code 1 if anything of that does not hold.
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
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]
from music import config_of, tables, write_song

VICTIMS = ("driver", "worker", "decoder")
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # idle; they notice a minute later and end by themselves

DAMAGED, CUT, BLOCK = 5, 5, 8  # files that are no music, files that end too early, tracks in a block


@dataclass
class Kill:
    """What one round did."""

    victim: str
    seconds: float  # after the command
    finished: int  # tracks at that moment
    ending: float | None = None  # seconds until all that works for a killed driver was gone


class Disturbed:
    """A job that is killed and given again until it succeeds."""

    def __init__(self, config: Path, output: Path, draw: random.Random, victims: list[str], blocks: int) -> None:
        self._config, self._output, self._draw, self._blocks = config, output, draw, blocks
        self._victims = victims  # the next one last
        self.kept: dict[str, tuple[str, int]] = {}  # track -> its part and when that was written, at the last kill
        self.dying: list[tuple[Kill, list[int], float]] = []

    def run(self, most: int) -> list[Kill]:
        """Runs the job to its end with at most so many kills on the way."""
        kills: list[Kill] = []
        while True:
            job = start(self._config)
            started = time.monotonic()
            moment = self._moments(while_starting=True)
            while job.poll() is None:
                self._watch_the_dying()
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
        """Asked again and again whether it is time: after a random number of blocks and then up to half a second.

        Now and then a few seconds after the start instead, whatever has happened by then.
        """
        begun = time.monotonic()
        if while_starting and self._draw.random() < 0.3:
            wait = self._draw.uniform(0, 8)
        else:
            begin = self._finished_blocks()  # what was left by a kill is cut anew, so that there may be more
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
        """Tracks that were finished before a kill and are elsewhere now."""
        rows = pq.read_table(self._output / "features/tracks.parquet", columns=["track_id", "part"]).to_pylist()
        now = {row["track_id"]: (row["part"], written(self._output, row["part"])) for row in rows}
        return [track for track, place in self.kept.items() if now.get(track) != place]

    def wait_for_the_dying(self) -> None:
        while self.dying:
            self._watch_the_dying()
            time.sleep(0.1)

    def _kill(self, driver: int, since: float) -> Kill | None:
        victim = self._victims[-1]
        family = descendants(driver)
        chosen = [pid for pid in family if kind_of(pid) == victim] if victim != "driver" else [driver]
        if not chosen:
            return None  # there is none at this moment; we wait for another one
        self._victims.pop()
        self.kept |= finished(self._output)
        kill = Kill(victim, since, len(self.kept))
        os.kill(self._draw.choice(chosen), signal.SIGKILL)
        if victim == "driver":
            working = [pid for pid in family if not command(pid).startswith(AGENTS)]
            self.dying.append((kill, working, time.monotonic()))
        return kill

    def _watch_the_dying(self) -> None:
        for entry in list(self.dying):
            kill, family, since = entry
            if not any(alive(pid) for pid in family):
                kill.ending = time.monotonic() - since
                self.dying.remove(entry)
            elif time.monotonic() - since > 120:
                left = {pid: command(pid) for pid in family if alive(pid)}
                raise SystemExit(f"processes outlive their driver by two minutes: {left}")


def finished(output: Path) -> dict[str, tuple[str, int]]:
    """The tracks that a rerun need not decode, with their part and when it was written."""
    places: dict[str, tuple[str, int]] = {}
    for path in (output / "features/outcomes").glob("[!.]*.parquet"):
        try:
            rows = pq.read_table(path, columns=["track_id", "part"]).to_pylist()
        except FileNotFoundError:  # the job is at its end and tidies
            continue
        places |= {row["track_id"]: (row["part"], written(output, row["part"])) for row in rows if row["part"]}
    return places


def written(output: Path, part: str) -> int:
    return (output / "features/clips" / part).stat().st_mtime_ns


def start(config: Path) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, "-m", "ray_jobs.prepare", "--config", str(config)]
    return subprocess.Popen(command, cwd=REPOSITORY, env=clean, stderr=subprocess.PIPE, text=True)


def descendants(ancestor: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            fields = stat(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    family = [ancestor]
    for member in family:  # grows while it is walked
        family += [pid for pid, parent in parents.items() if parent == member]
    return family[1:]


def stat(pid: int) -> list[str]:
    """State, parent and so on; nothing when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def alive(pid: int) -> bool:
    fields = stat(pid)
    return bool(fields) and fields[0] != "Z"


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kind_of(pid: int) -> str:
    text = command(pid)
    if "genre.audio.isolation" in text:
        return "decoder"
    # Ray's own agents and actors are no workers: without them it ends itself, and the driver with it
    return "worker" if text.startswith("ray::") and not text.startswith((*AGENTS, "ray::_")) else ""


def make_music(root: Path, tracks: int) -> None:
    """Hard links to a few songs, some that end too early but are kept, and some files that are no music."""
    songs = [write_song(root / f"genre{i % 3}" / f"song{i}.wav", i, seconds=20.0) for i in range(12)]
    for i in range(len(songs), tracks):
        os.link(songs[i % 12], root / f"genre{i % 3}" / f"song{i}.wav")
    for i in range(DAMAGED):
        (root / "genre0" / f"bad{i}.wav").write_bytes(b"no music" * i)
    for i in range(CUT):
        whole = songs[i].read_bytes()
        (root / "genre1" / f"cut{i}.wav").write_bytes(whole[: len(whole) * 4 // 5])


def differences(found: dict[str, pa.Table], expected: dict[str, pa.Table]) -> list[str]:
    return [name for name in expected if not found[name].equals(expected[name])]


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
    for name in ("calm", "storm"):
        configs[name] = home / f"{name}.yaml"
        config = config_of(home / "music", home / name, tracks_per_block=BLOCK)
        configs[name].write_text(config.model_dump_json())
    started = time.monotonic()
    calm = start(configs["calm"])
    _, told = calm.communicate()
    if calm.returncode:
        raise SystemExit(f"the undisturbed job failed with exit code {calm.returncode}:\n{told}")
    span = time.monotonic() - started
    expected = tables(home / "calm")
    marked = expected["tracks"]["truncated"].to_pylist().count(True)
    if (marked, len(expected["rejects"])) != (CUT, DAMAGED):
        raise SystemExit(f"the undisturbed job marks {marked} tracks and rejects {len(expected['rejects'])}")
    print(f"undisturbed: {len(expected['tracks'])} tracks in {span:.1f} s", flush=True)
    print(f"{'round':>5}  {'victim':<8} {'after s':>8} {'finished':>9}  {'its workers gone after s':<30}", flush=True)
    done, wrong = 0, 0
    seen: Counter[str] = Counter()
    victims = [victim for _ in range(rounds) for victim in draw.sample(VICTIMS, len(VICTIMS))]
    while done < rounds:
        job = Disturbed(configs["storm"], home / "storm", draw, victims, -(-(tracks + DAMAGED + CUT) // BLOCK))
        kills = job.run(most=min(rounds - done, 6))
        job.wait_for_the_dying()
        for kill in kills:
            done += 1
            seen[kill.victim] += 1
            ending = "" if kill.ending is None else f"{kill.ending:.1f}"
            print(f"{done:>5}  {kill.victim:<8} {kill.seconds:>8.1f} {kill.finished:>9}  {ending:<30}", flush=True)
        found = differences(tables(home / "storm"), expected)
        again = job.lost()
        wrong += len(found) + len(again)
        verdict = f"differs in {', '.join(found)}" if found else "equal to the undisturbed run"
        print(f"       -> {verdict}; {len(again)} finished tracks decoded again", flush=True)
        shutil.rmtree(home / "storm")
    print(json.dumps({"rounds": done, "victims": dict(seen), "violations": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
