"""Check that a change altered no result: record the results of two commits and compare them.

    make same                 # the working tree against the last commit
    make same REF=v0.1.0      # against any commit

or one half at a time:

    python benchmarks/same.py record FILE [--checkout FOLDER]
    python benchmarks/same.py compare FILE FILE

`record` runs the jobs of a checkout on a small corpus of composed music with one seed and writes, as JSON: a hash of
each track's clips, its split, group and rejects; the losses of two epochs of each architecture; the predictions, the
ranks and the trials of a small search; the tags of a folder. What depends on the clock is left out. `make same` runs
each commit's own copy of this file, so that names of modules and settings may differ between them. Takes five minutes
on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

ARCHITECTURES = ("cnn", "crnn", "crnn_attention", "resnet", "vgg16", "vgg19")
SETTINGS: dict[str, Any] = {
    "seed": 3,
    "corpus": {"kind": "synthetic", "params": {"tracks_per_genre": 8, "artists_per_genre": 4, "seconds": 6}},
    "audio": {"clip_seconds": 4},
    "spectrogram": {"n_mels": 40, "hop_length": 1024},
    "train": {"epochs": 2, "batch_size": 8, "window_seconds": 2.7, "eval_windows": 2},
    "device": "cpu",
    "architectures": {
        "cnn": {"width": 8, "depth": 4},
        "crnn": {"width": 8, "depth": 3, "hidden": 16},
        "crnn_attention": {"width": 8, "depth": 3, "hidden": 16},
        "resnet": {"width": 8},
        "vgg16": {"width": 4},
        "vgg19": {"width": 4},
    },
    "tune": {
        "architectures": ["resnet", "crnn_attention"],
        "trials": 2,
        "seeds": 2,
        "grace_epochs": 2,
        "robustness": False,
    },
    "cluster": {"cpus": 2, "object_store_mb": 200},
}
# parts of a leaderboard that depend on the clock, the machine or the commit
VOLATILE = {
    "busy", "clips_per_second", "command", "commands", "commit", "created", "hardware", "judged_from", "latency_ms",
    "makespan_seconds", "memory_mb", "search_seconds", "seconds", "sha256", "started", "train_seconds", "versions",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tasks = parser.add_subparsers(dest="task", required=True)
    recording = tasks.add_parser("record", help="run the jobs and write their results")
    recording.add_argument("file", type=Path)
    recording.add_argument("--checkout", type=Path, default=Path(__file__).resolve().parent.parent)
    comparing = tasks.add_parser("compare", help="compare two recordings; exits with 1 when they differ")
    comparing.add_argument("files", type=Path, nargs=2)
    options = parser.parse_args()
    if options.task == "record":
        options.file.write_text(json.dumps(record(options.checkout.resolve()), indent=1, sort_keys=True))
        return
    before, after = (json.loads(file.read_text()) for file in options.files)
    found = list(differences(before, after))
    print("\n".join(found) or "the same: features, losses, search, predictions and tags")
    sys.exit(bool(found))


def record(checkout: Path) -> dict[str, Any]:
    """Run the jobs of a checkout in a temporary folder and return their results."""
    with tempfile.TemporaryDirectory(prefix="same-") as home:
        settings = Path(home) / "same.yaml"
        settings.write_text(yaml.safe_dump(SETTINGS | {"output": f"{home}/out"}))

        def run(job: str, *words: str) -> None:
            command = [sys.executable, "-m", f"ray_jobs.{job}", "--config", str(settings), *words]
            variables = os.environ | {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": f"{home}/cache"}
            print(job, *words, file=sys.stderr, flush=True)
            subprocess.run(command, cwd=checkout, env=variables, check=True, stdout=subprocess.DEVNULL)

        output = Path(home) / "out"
        run("prepare")
        for name in ARCHITECTURES:
            run("train", f"architecture={name}")
        found = {
            "features": features(output / "features"),
            "losses": {name: losses(output / "models" / name) for name in ARCHITECTURES},
        }
        run("tune")
        board = json.loads((output / "leaderboard/leaderboard.json").read_text())
        answers = predictions(output / "leaderboard/predictions")
        music = next(Path(home).glob("cache/genre/**/*.wav")).parent
        run("tag", f"inputs={music}", f"model={output / 'models/resnet'}")
        return found | {"leaderboard": steady(board, home), "predictions": answers, "tags": tags(output / "tags")}


def features(folder: Path) -> dict[str, Any]:
    """For each track its row and a hash of its clips; the rejects; the duplicates."""
    hashes: dict[str, Any] = {}
    for clip in pq.read_table(folder / "clips").sort_by([("track_id", "ascending"), ("clip", "ascending")]).to_pylist():
        digest = hashes.setdefault(clip["track_id"], hashlib.sha256())
        digest.update(repr((clip["clip"], clip["start_seconds"], clip["peak_db"])).encode() + clip["spectrogram"])
    # not `content`: libsndfile numbers the streams of Ogg Vorbis files at random
    row = ("genre", "group", "split", "size", "sound", "seconds", "clips", "reason", "message")
    tables = {name: pq.read_table(folder / f"{name}.parquet") for name in ("tracks", "rejects")}
    return {
        name: {track["track_id"]: [track.get(key) for key in row] for track in table.to_pylist()}
        for name, table in tables.items()
    } | {"clips": {track: digest.hexdigest() for track, digest in hashes.items()}}


def losses(model: Path) -> list[list[float]]:
    """Losses and scores of each epoch of a trained model."""
    history = json.loads((model / "model.json").read_text())["facts"]["history"]
    return [[epoch[key] for key in ("train_loss", "valid_loss", "valid_accuracy", "valid_f1")] for epoch in history]


def predictions(folder: Path) -> dict[str, Any]:
    """The columns of each file of predictions."""
    return {path.name: pq.read_table(path).to_pydict() for path in sorted(folder.glob("*.parquet"))}


def tags(folder: Path) -> list[Any]:
    """The rows of the tags without the files' folders and times."""
    table = pq.read_table(folder / "tags.parquet")
    rows = table.drop_columns([name for name in ("modified",) if name in table.column_names]).to_pylist()
    return sorted(([Path(row.pop("path")).name, row] for row in rows), key=lambda pair: pair[0])


def steady(value: Any, home: str) -> Any:
    """A leaderboard without what depends on the clock or the temporary folder."""
    if isinstance(value, dict):
        return {key: steady(below, home) for key, below in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [steady(below, home) for below in value]
    return value.replace(home, "") if isinstance(value, str) else value


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Each place where two recordings differ, as one line."""
    if type(before) is type(after) is dict:
        keys = sorted(before.keys() | after.keys())
        return [line for key in keys for line in differences(before.get(key), after.get(key), f"{where}/{key}")]
    if type(before) is type(after) is list and len(before) == len(after):
        return [
            line
            for n, pair in enumerate(zip(before, after, strict=True))
            for line in differences(*pair, f"{where}/{n}")
        ]
    return [] if before == after else [f"{where}: {str(before)[:80]} -> {str(after)[:80]}"]


if __name__ == "__main__":
    main()
