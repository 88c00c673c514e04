"""The lines that the documents tell a person to type, run as they are; tests/documents.py lists them all.

On small music, with what stands for something else filled in, and with settings behind a job's line that make it short.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import Typed, snippets
from heads import Head, free_ports
from pyarrow import fs
from typing_in import Place, job_of, lines, placed

from genre.storage import Location

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with placed(tmp_path_factory.mktemp("typed")) as found:
        yield found


@pytest.fixture(scope="module")
def trained(place: Place) -> Place:
    """After GTZAN's lines: models in outputs/gtzan/models, as the other pages take them to be."""
    for line in lines("gtzan"):
        if job_of(line.text) == "leaderboard":  # which compares with the same done for the other split
            for other in lines("gtzan")[:2]:
                place.run(other.text.replace("gtzan.yaml", "gtzan_random.yaml"))
        place.run(line.text)
    (place.folder / "resnet.onnx").symlink_to("outputs/gtzan/export/resnet.onnx")  # once it is exported
    return place


def test_music_of_ones_own(place):
    for line in lines("my music"):
        told = place.run(line.text)
    assert "3 files tagged" in told


def test_fma(place):
    for line in lines("fma"):
        place.run(line.text)


def test_gtzan_on_two_splits(trained):
    page = (trained.folder / "outputs/gtzan-random/compared/leaderboard.md").read_text()
    assert "outputs/gtzan" in page or "gtzan-random" in page


@pytest.mark.parametrize("line", lines("models"), ids=lambda line: line.normal)
def test_a_trained_model(trained, line):
    if job_of(line.text) == "serve":
        serve(trained, line)
        return
    before = set(trained.folder.iterdir())
    told = trained.run(line.text)
    if "output=" not in line.text and job_of(line.text) == "tag":
        assert "%" in told
        assert set(trained.folder.iterdir()) == before


def serve(place: Place, line: Typed) -> None:
    """The page answers with the genres of a song, until Ctrl-C."""
    command = place.command(f"{line.text} serve.port={free_ports(1)[0]}")
    running = subprocess.Popen(command, cwd=place.folder, env=place.environment, text=True, stderr=subprocess.PIPE)
    try:
        while not (address := re.search(r"serve: (http://[\w.:]+)", told := running.stderr.readline())):
            assert told, "it ended"
        song = (place.folder / "song.mp3").read_bytes()
        request = urllib.request.Request(f"{address[1]}/tag", song, {"X-Song-Name": "song.mp3"})
        with urllib.request.urlopen(request, timeout=60) as response:
            assert sum(share for _, share in json.load(response)["genres"]) == pytest.approx(1, abs=0.01)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    finally:
        running.kill()


def test_other_genres(trained):
    for line in lines("fine-tuning"):
        trained.run(line.text)


@pytest.mark.parametrize("snippet", snippets(), ids=lambda snippet: f"{snippet.page}:{snippet.number}")
def test_python(trained, snippet):
    for name in ("a.mp3", "b.flac"):
        (trained.folder / name).write_bytes((trained.folder / "song.mp3").read_bytes())
    before = "import numpy as np; waveform = np.random.default_rng(0).normal(0, 0.1, 5 * 44100).astype(np.float32)\n"
    done = subprocess.run(
        ["python", "-c", before + snippet.text],
        cwd=trained.folder, env=trained.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_features_of_ones_own(place):
    for line in lines("own features"):
        place.run(line.text)


@pytest.mark.parametrize("line", lines("scaling"), ids=lambda line: line.normal)
def test_scaling(place, line):
    small = {"work": "--counts 1 --clips 8 --rounds 1", "workers": "--counts 1 --clip-ms 1", "rows": "--rows 16000"}
    what = re.search(r"scaling.py (\w+)", line.text)[1]
    assert "|---:|" in place.tell(f"{line.text} {small[what]}")


def test_the_token_is_the_persons_alone(place):
    token = Path(place.environment["HOME"]) / ".ray/auth_token"
    for line in lines("token"):
        token.unlink(missing_ok=True)
        place.tell(line.text)
        assert len(token.read_text()) > 30
        # Ray alone leaves it readable for all, which docs/SECURITY.md says
        assert (token.stat().st_mode & 0o077 == 0) == ("umask" in line.text)


@pytest.mark.parametrize("line", lines("commands"), ids=lambda line: line.normal)
def test_commands(place, line):
    place.tell(line.text)


@pytest.fixture(scope="module")
def cluster(place: Place, bucket_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A running cluster with a GPU that Ray takes on trust, and a bucket with music."""
    bucket, _ = fs.FileSystem.from_uri("s3://bucket")
    data, music = Path(place.words["/data"]), Path(place.words["/music"])
    for root, name in ((data / "fma", "fma"), (music / "unsorted", "new")):
        for path in (path for path in root.rglob("*") if path.is_file()):
            with bucket.open_output_stream(f"bucket/{name}/{path.relative_to(root)}") as stream:
                stream.write(path.read_bytes())
    folder = tmp_path_factory.mktemp("head")
    with Head(folder, bucket_server, ["--num-gpus=1"]) as head:
        port = head.environment["RAY_API_SERVER_ADDRESS"].rpartition(":")[2]
        # `ray status` and `ray memory` look for the one Ray of the machine; other tests may run another
        environment = head.environment | {"RAY_ADDRESS": (head.temporary / "ray_current_cluster").read_text().strip()}
        yield Place(head.checkout, environment, {"BUCKET": "bucket", "8265": port})


def test_submitted_to_a_cluster(cluster):
    """With features, checkpoints, searches, models and tags on S3; what is finished is not done again."""
    exports = [line.text for line in lines("cluster") if line.text.startswith("export")]
    for line in lines("cluster"):
        told = cluster.run("\n".join([*exports, line.text]))
        if submitted := re.search(r"Job '(\w+)' succeeded", told):
            cluster.words["ID"] = submitted[1]
        if job_of(line.text) == "train":
            assert "epoch   1/1" in told
            assert "epoch   1/1" not in cluster.run("\n".join([*exports, line.text]))
    output = Location.of("s3://bucket/run")
    assert len((output / "features" / "tracks.parquet").read_table()) == 64
    assert len((output / "tags" / "tags.parquet").read_table()) == 3
    assert (output / "models" / "crnn" / "model.json").read_json()["architecture"] == "crnn"
