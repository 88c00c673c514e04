"""Count the boots in a row that `prepare` and `tag` wait for on a cluster that starts without a machine.

    python benchmarks/from_zero.py MODEL [--machines 8] [--boot 40] [--songs 64]

A cluster of processes on this machine, whose autoscaler is Ray's own: a machine of one CPU joins some time after it was
asked for. "boots" is the time from the start of the job until the last machine is up, divided by that time. The songs
are noise of three seconds. The output is in an S3 server in this process. Wall time: not on a busy machine.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from moto.server import ThreadedMotoServer
from pyarrow import fs

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import ray_jobs  # noqa: F401 - sets Ray's environment, before Ray is imported

# isort: split
from autoscaling import Autoscaled, autoscaled

RATE = 22050
OUTPUT = "output=s3://bucket/zero"


def measure(job: list[str], cluster: Autoscaled, machines: int) -> tuple[float, int]:
    """Return the seconds until all machines are up, or until the job has ended, and the most that were up."""
    began, most, last = time.monotonic(), 0, 0.0
    running = subprocess.Popen([sys.executable, "-m", *job], cwd=ROOT, env=cluster.environment)
    while running.poll() is None and most < machines:
        if (up := len(cluster.workers())) > most:
            most, last = up, time.monotonic() - began
        time.sleep(0.2)
    if running.wait():
        raise SystemExit(f"{job[0]} failed")
    return last, most


def serve_bucket() -> None:
    """Start an S3 server with an empty bucket, and point this process and those it starts to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    client, _ = fs.FileSystem.from_uri("s3://bucket?allow_bucket_creation=true")
    client.create_dir("bucket")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--machines", type=int, default=8)
    parser.add_argument("--boot", type=float, default=40.0, help="seconds")
    parser.add_argument("--songs", type=int, default=64)
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line for each request
    serve_bucket()
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0)
        for number in range(options.songs):
            song = Path(folder) / "music" / f"genre{number % 2}" / f"{number}.wav"
            song.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(song, noise.normal(0, 0.1, 3 * RATE), RATE)
        corpus = ["corpus.kind=folder", f"corpus.root={folder}/music", "audio.clip_seconds=3"]
        jobs = {
            "prepare": ["ray_jobs.prepare", *corpus, OUTPUT, "prepare.tracks_per_block=1"],
            "tag": ["ray_jobs.tag", f"{folder}/music", f"model={options.model}", OUTPUT, "tag.batch_files=2"],
        }
        for name, job in jobs.items():
            types = {"cpu": {"resources": {"CPU": 1}, "max_workers": options.machines}}
            with autoscaled(types, boot_seconds=options.boot) as cluster:
                seconds, most = measure(job, cluster, options.machines)
            boots = seconds / options.boot
            print(f"{name}: {most} of {options.machines} machines after {seconds:.0f} s, {boots:.1f} boots", flush=True)


if __name__ == "__main__":
    main()
