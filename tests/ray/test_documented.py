"""Run the commands of the documents as they are written; tests/documents.py lists them all.

They run on small music, with placeholders filled in and with settings appended that make each job short.
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
from documents import Block, snippets
from heads import Head, free_ports
from pyarrow import fs
from workspace import Workspace, job_of, lines, made, write_tagged

from genre.storage import Location

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with made(tmp_path_factory.mktemp("typed")) as workspace:
        yield workspace


@pytest.fixture(scope="module")
def trained(workspace: Workspace) -> Workspace:
    """The workspace after the commands for GTZAN, with the models that most pages assume."""
    for line in lines("gtzan"):
        if job_of(line.text) == "leaderboard":  # which compares with the same commands for the other split
            for other in lines("gtzan")[:2]:
                workspace.run(other.text.replace("gtzan.yaml", "gtzan_random.yaml"))
        workspace.run(line.text)
    (workspace.folder / "resnet.onnx").symlink_to("outputs/gtzan/export/resnet.onnx")  # once it is exported
    return workspace


@pytest.fixture(scope="module")
def own_music(workspace: Workspace) -> str:
    """Run the commands for one's own music and return the output of the last one."""
    return [workspace.run(line.text) for line in lines("my music")][-1]


def test_own_music(own_music: str) -> None:
    assert "3 files tagged" in own_music


@pytest.fixture(scope="module")
def library(workspace: Workspace) -> Workspace:
    """Run the commands of the README in the home of a person whose music has tags."""
    home = workspace.folder.parent / "tagged"
    write_tagged(home / "Music")
    person = Workspace(workspace.folder, workspace.environment | {"HOME": str(home)}, workspace.values)
    assert "43 files of 6 artists: 40 with 2 genres, 3 unlabelled" in person.run(lines("library")[0].text)
    assert "43 files tagged" in [person.run(line.text) for line in lines("library")[1:]][-1]
    return person


def test_a_library_with_tags(library: Workspace) -> None:
    assert (library.folder / "outputs/run/tags/tags.csv").exists()


def test_tutorial(workspace: Workspace) -> None:
    workspace.write_files("docs/TUTORIAL.md")
    for line in lines("tutorial"):
        workspace.run(line.text)


@pytest.fixture(scope="module")
def contributed(workspace: Workspace) -> Workspace:
    """The workspace with the architecture and the corpus of CONTRIBUTING.md."""
    workspace.write_files("CONTRIBUTING.md")
    return workspace


def test_an_architecture_in_ten_minutes(contributed: Workspace) -> None:
    for line in lines("an architecture"):
        contributed.shell(line.text)
    assert (contributed.folder / "outputs/mlp/models/mlp/model.json").exists()


def test_a_corpus_in_ten_minutes(contributed: Workspace) -> None:
    for line in lines("a corpus"):
        contributed.shell(line.text)
    assert (contributed.folder / "outputs/flat/features/manifest.json").exists()


def test_fma(workspace: Workspace) -> None:
    for line in lines("fma"):
        workspace.run(line.text)


def test_gtzan_on_two_splits(trained: Workspace) -> None:
    page = (trained.folder / "outputs/gtzan-random/compared/leaderboard.md").read_text()
    assert "outputs/gtzan" in page or "gtzan-random" in page


@pytest.mark.parametrize("line", lines("models"), ids=lambda line: line.normal)
def test_a_trained_model(trained: Workspace, line: Block) -> None:
    if job_of(line.text) == "serve":
        serve(trained, line)
        return
    before = set(trained.folder.iterdir())
    output = trained.run(line.text)
    if "output=" not in line.text and job_of(line.text) == "tag":
        assert "%" in output
        assert set(trained.folder.iterdir()) == before


def serve(workspace: Workspace, line: Block) -> None:
    """Check that the page answers with the genres of a song until Ctrl-C."""
    command = workspace.command(f"{line.text} serve.port={free_ports(1)[0]}")
    server = subprocess.Popen(
        command, cwd=workspace.folder, env=workspace.environment, text=True, stderr=subprocess.PIPE
    )
    assert server.stderr
    try:
        while not (address := re.search(r"serve: (http://[\w.:]+)", message := server.stderr.readline())):
            assert message, "the server ended"
        song = (workspace.folder / "song.mp3").read_bytes()
        request = urllib.request.Request(f"{address[1]}/tag", song, {"X-Song-Name": "song.mp3"})
        with urllib.request.urlopen(request, timeout=60) as response:
            assert sum(share for _, share in json.load(response)["genres"]) == pytest.approx(1, abs=0.01)
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)
    finally:
        server.kill()


def test_other_genres(trained: Workspace) -> None:
    for line in lines("fine-tuning"):
        trained.run(line.text)


@pytest.mark.parametrize("snippet", snippets(), ids=lambda snippet: f"{snippet.page}:{snippet.number}")
@pytest.mark.usefixtures("library")
def test_python(trained: Workspace, snippet: Block) -> None:
    for name in ("a.mp3", "b.flac"):
        (trained.folder / name).write_bytes((trained.folder / "song.mp3").read_bytes())
    before = "import numpy as np; waveform = np.random.default_rng(0).normal(0, 0.1, 5 * 44100).astype(np.float32)\n"
    done = subprocess.run(
        ["python", "-c", before + snippet.text],
        cwd=trained.folder, env=trained.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_own_features(workspace: Workspace) -> None:
    for line in lines("own features"):
        workspace.run(line.text)


@pytest.mark.parametrize("line", lines("scaling"), ids=lambda line: line.normal)
def test_scaling(workspace: Workspace, line: Block) -> None:
    small = {"work": "--counts 1 --clips 8 --rounds 1", "workers": "--counts 1 --clip-ms 1", "rows": "--rows 16000"}
    match = re.search(r"scaling.py (\w+)", line.text)
    assert match
    assert "|---:|" in workspace.shell(f"{line.text} {small[match[1]]}")


@pytest.mark.parametrize("line", lines("long lists"), ids=lambda line: line.normal)
def test_long_lists(workspace: Workspace, line: Block) -> None:
    shown = workspace.shell(f"{line.text} --rows 3000")  # the last of two options counts
    assert "peak MiB" in shown
    assert "finish, nothing new" in shown


def test_only_the_owner_can_read_the_token(workspace: Workspace) -> None:
    token = Path(workspace.environment["HOME"]) / ".ray/auth_token"
    for line in lines("token"):
        token.unlink(missing_ok=True)
        workspace.shell(line.text)
        assert len(token.read_text()) > 30
        # Ray itself leaves it readable for all, as docs/SECURITY.md says
        assert (token.stat().st_mode & 0o077 == 0) == ("umask" in line.text)


@pytest.mark.parametrize("line", lines("commands"), ids=lambda line: line.normal)
def test_commands(workspace: Workspace, line: Block) -> None:
    workspace.shell(line.text)


@pytest.fixture(scope="module")
def cluster(
    workspace: Workspace, bucket_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workspace]:
    """A running cluster and a bucket with music."""
    bucket, _ = fs.FileSystem.from_uri("s3://bucket")
    data, music = Path(workspace.values["/data"]), Path(workspace.values["/music"])
    for root, name in ((data / "fma", "fma"), (music / "unsorted", "new")):
        for path in (path for path in root.rglob("*") if path.is_file()):
            with bucket.open_output_stream(f"bucket/{name}/{path.relative_to(root)}") as stream:
                stream.write(path.read_bytes())
    folder = tmp_path_factory.mktemp("head")
    with Head(folder, bucket_server) as head:
        port = head.environment["RAY_API_SERVER_ADDRESS"].rpartition(":")[2]
        # `ray status` and `ray memory` look for the only Ray of the machine; other tests may run another
        environment = head.environment | {"RAY_ADDRESS": head.address}
        yield Workspace(head.checkout, environment, {"BUCKET": "bucket", "8265": port})


def test_submitted_to_a_cluster(cluster: Workspace) -> None:
    """Features, checkpoints, searches, models and tags are on S3; a finished job is not repeated."""
    exports = [line.text for line in lines("cluster") if line.text.startswith("export")]
    for line in lines("cluster"):
        output = cluster.run("\n".join([*exports, line.text]))
        if submitted := re.search(r"Job '(\w+)' succeeded", output):
            cluster.values["ID"] = submitted[1]
        if job_of(line.text) == "train":
            assert "epoch   1/1" in output
            assert "epoch   1/1" not in cluster.run("\n".join([*exports, line.text]))
    folder = Location.of("s3://bucket/run")
    assert len((folder / "features" / "tracks.parquet").read_table()) == 64
    assert len((folder / "tags" / "tags.parquet").read_table()) == 3
    assert (folder / "models" / "crnn" / "model.json").read_json()["architecture"] == "crnn"
