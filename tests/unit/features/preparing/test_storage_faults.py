"""`prepare` on storage with faults: the features are in the end those of storage without."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import faulty_storage
import pyarrow as pa
import pytest
from conftest import REPOSITORY
from disks import resize, small_disk
from faulty_storage import Fault, Handler, refusing
from music import InTurn, config_of, tables, write_music
from pyarrow import fs
from saving import save_model

from genre.audio import isolation, members
from genre.config import to_yaml
from genre.errors import ConfigError, StorageError
from genre.features.folder import Features
from genre.settings import Config, CorpusSettings
from genre.storage import Location, location
from ray_jobs import prepare as prepare_job
from ray_jobs.engine import cli
from ray_jobs.engine.blocks import Work
from ray_jobs.prepare import prepare


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of songs, one of which is no music."""
    folder = tmp_path_factory.mktemp("storage") / "music"
    write_music(folder)
    (folder / "genre1/bad.wav").write_bytes(b"no music")
    return folder


@pytest.fixture(scope="module")
def expected(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the features of undisturbed storage."""
    output = tmp_path_factory.mktemp("expected")
    prepare(config_of(music, output), InTurn())
    return output


def upload(music: Path) -> None:
    bucket, _ = fs.FileSystem.from_uri("s3://bucket")
    for path in music.rglob("*.wav"):
        with bucket.open_output_stream(f"bucket/songs/{path.relative_to(music)}") as stream:
            stream.write(path.read_bytes())


def check_equal(output: Path | str, expected: Path) -> None:
    made, right = tables(output), tables(expected)
    assert made["clips"] == right["clips"]
    for name in ("tracks", "rejects"):
        columns = [name for name in right[name].column_names if name not in ("path", "modified")]
        for column in columns:
            assert made[name][column].to_pylist() == right[name][column].to_pylist(), (name, column)


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and the next child that decodes connect to `endpoint`."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    location._client.cache_clear()
    for kernel in isolation._shared.values():
        kernel.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["busy", "stalling", "cutting"])
def test_passing_faults_do_not_change_the_features(
    bucket_server: dict[str, str], music: Path, expected: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    upload(music)
    fault: Fault = getattr(faulty_storage, name)
    with faulty_storage.proxy(bucket_server["AWS_ENDPOINT_URL"], fault) as proxy:
        use(proxy.address, monkeypatch)
        prepare(config_of("s3://bucket/songs", f"s3://bucket/{name}"), InTurn())
        assert proxy.faults
    use(bucket_server["AWS_ENDPOINT_URL"], monkeypatch)
    check_equal(f"s3://bucket/{name}", expected)


def test_refused_reads_fail_the_job_and_leave_the_tracks_to_do(
    bucket_server: dict[str, str], music: Path, expected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with an expired token: after it was renewed, the same command does what is missing."""
    upload(music)
    config = config_of("s3://bucket/songs", "s3://bucket/expired", file_timeout_s=1)
    expired = refusing(400, "ExpiredToken", lambda request: request.command == "GET" and "genre2" in request.path)
    with faulty_storage.proxy(bucket_server["AWS_ENDPOINT_URL"], expired) as proxy:
        use(proxy.address, monkeypatch)
        with pytest.raises(StorageError, match=r"genre2/.*run the same command again"):
            prepare(config, InTurn())
    use(bucket_server["AWS_ENDPOINT_URL"], monkeypatch)
    again = InTurn()
    prepare(config, again)
    assert 6 <= again.tracks < 19
    check_equal("s3://bucket/expired", expected)


def denied_below(*names: str) -> Fault:
    """Return a fault: files with one of these names in their address are listed, and may not be read.

    The answer to GET is longer than bad.wav, for which the client takes it as a fault.
    """

    def is_denied(request: Handler) -> bool:
        is_read = request.command == "GET" or (request.command == "HEAD" and "bad" in request.path)
        return is_read and ".wav" in request.path and any(name in request.path for name in names)

    return refusing(403, "AccessDenied", is_denied)


def test_a_storage_that_denies_all_reads_fails_the_job_and_rejects_nothing(
    bucket_server: dict[str, str], music: Path, expected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without the right to decrypt the objects: the names are listed, and no file can be read."""
    upload(music)
    config = config_of("s3://bucket/songs", "s3://bucket/encrypted", file_timeout_s=1)
    with faulty_storage.proxy(bucket_server["AWS_ENDPOINT_URL"], denied_below("")) as proxy:
        use(proxy.address, monkeypatch)
        for _ in range(2):
            with pytest.raises(StorageError, match=r"denied \(19, such as s3://.*wav\); give .*kms:Decrypt.* again"):
                prepare(config, InTurn())
    assert not Location.of("s3://bucket/encrypted/features/rejects.parquet").exists()
    use(bucket_server["AWS_ENDPOINT_URL"], monkeypatch)
    again = InTurn()
    prepare(config, again)
    assert again.tracks == 19
    check_equal("s3://bucket/encrypted", expected)


def test_denied_files_are_read_again_by_every_run(
    bucket_server: dict[str, str],
    music: Path,
    expected: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Some private files among others: the second run has nothing else to read, and ends like the first."""
    upload(music)
    config = config_of("s3://bucket/songs", "s3://bucket/private")
    with faulty_storage.proxy(bucket_server["AWS_ENDPOINT_URL"], denied_below("genre2")) as proxy:
        use(proxy.address, monkeypatch)
        for count in (19, 6):
            workers = InTurn()
            assert prepare(config, workers).counts.reasons == {"denied": 6, "unsupported": 1}
            assert workers.tracks == count
            assert "6 files are denied; give read access" in capsys.readouterr().err
    use(bucket_server["AWS_ENDPOINT_URL"], monkeypatch)
    again = InTurn()
    prepare(config, again)
    assert again.tracks == 6
    assert "denied" not in capsys.readouterr().err
    check_equal("s3://bucket/private", expected)


def test_a_file_that_is_denied_keeps_the_clips_of_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Permissions are simulated, since root may read everything."""
    songs = write_music(tmp_path / "music", genres=1, per_genre=3)
    config = config_of(tmp_path / "music", tmp_path / "out")
    prepare(config, InTurn())
    before = tables(tmp_path / "out")
    os.utime(songs[0], (5e8, 5e8))
    read = members.read

    def denied(address: str) -> bytes:
        if address == str(songs[0]):
            raise PermissionError(13, "Permission denied")
        return read(address)

    with monkeypatch.context() as patch:
        patch.setattr(members, "read", denied)
        prepare(config, InTurn())
        assert tables(tmp_path / "out") == before
        os.utime(songs[1], (5e8, 5e8))
        prepare(config, InTurn())
    assert (
        "1 file could not be compared, and the clips of an earlier run are kept; give read access"
        in capsys.readouterr().err
    )
    after = tables(tmp_path / "out")
    assert after["clips"] == before["clips"]
    assert after["tracks"]["modified"].to_pylist()[1:2] == [5e8]
    songs[0].write_bytes(bytes(reversed(songs[0].read_bytes())))  # of the same size: seen, because it is compared again
    os.utime(songs[0], (5e8, 5e8))
    assert prepare(config, InTurn()).counts.reasons == {"unsupported": 1}


class Away(InTurn):
    """Moves the corpus away after the first block."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def map(self, work: Work, tracks: pa.Table, limit: int, columns: object = None) -> Iterator[pa.Table]:
        for result in super().map(work, tracks, limit, columns):
            yield result
            os.rename(self._folder, f"{self._folder}.away")


def test_a_folder_that_is_away_fails_the_job_and_rejects_nothing(music: Path, expected: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "music"
    corpus.symlink_to(music)
    config = config_of(corpus, tmp_path / "out", file_timeout_s=1)
    with pytest.raises(StorageError, match=r"cannot be reached \(No such file or directory\)"):
        prepare(config, Away(corpus))
    with pytest.raises(ConfigError, match=r"corpus.root=.* does not exist"):
        prepare(config, InTurn())
    os.rename(f"{corpus}.away", corpus)
    again = InTurn()
    prepare(config, again)
    assert 0 < again.tracks < 19
    check_equal(tmp_path / "out", expected)


def test_a_disk_of_a_table_that_is_away_takes_no_track_out_of_the_features(music: Path, tmp_path: Path) -> None:
    """A deleted file does, and a folder that was never there as well."""
    disk = Path(shutil.copytree(music, tmp_path / "disk"))
    files = [*sorted(music.glob("genre0/*.wav")), *sorted(disk.glob("genre1/song*.wav")), tmp_path / "never/was.wav"]
    rows = [f"{path},{path.parent.name},{path.stem}" for path in files]
    (tmp_path / "table.csv").write_text("\n".join(["path,genre,group", *rows]))
    corpus = CorpusSettings(kind="table", root=str(tmp_path / "table.csv"))
    config = config_of("", tmp_path / "out").model_copy(update={"corpus": corpus})
    prepare(config, InTurn())
    before = tables(tmp_path / "out")
    os.rename(disk, tmp_path / "away")
    with pytest.raises(StorageError, match=r"disk/genre1/.*, which was prepared earlier, is away, .* mount it"):
        prepare(config, InTurn())
    os.rename(tmp_path / "away", disk)
    again = InTurn()
    prepare(config, again)
    assert again.tracks == 0
    assert tables(tmp_path / "out") == before
    os.remove(files[-2])
    prepare(config, again)
    assert again.tracks == 1
    assert tables(tmp_path / "out")["rejects"]["path"].to_pylist() == sorted(str(path) for path in files[-2:])


def test_a_disk_below_the_corpus_that_is_away_takes_no_track_out_of_the_features(music: Path, tmp_path: Path) -> None:
    """Its mount point is empty then. A folder that was deleted with its music takes its tracks out."""
    corpus = Path(shutil.copytree(music, tmp_path / "music"))
    config = config_of(corpus, tmp_path / "out")
    prepare(config, InTurn())
    before = tables(tmp_path / "out")
    disk = corpus / "genre1"
    os.rename(disk, tmp_path / "away")
    disk.mkdir()
    with pytest.raises(
        StorageError, match=r"genre1 is empty or denied, and tracks below .*; mount its disk .* or delete"
    ):
        prepare(config, InTurn())
    disk.rmdir()
    os.rename(tmp_path / "away", disk)
    again = InTurn()
    prepare(config, again)
    assert again.tracks == 0
    assert tables(tmp_path / "out") == before
    shutil.rmtree(disk)
    assert prepare(config, again).counts.tracks < len(before["tracks"])


def test_a_part_that_was_cut_in_half_is_made_again(music: Path, expected: Path, tmp_path: Path) -> None:
    config = config_of(music, tmp_path)
    prepare(config, InTurn())
    part = next(iter((Location.of(tmp_path) / "features" / "clips").files()))
    with open(part.path, "r+b") as file:
        file.truncate(part.size() // 2)
    again = InTurn()
    prepare(config, again)
    assert 0 < again.tracks < 19
    check_equal(tmp_path, expected)
    assert len(Features.open(Location.of(tmp_path) / "features").tracks("train"))


class Interrupted(InTurn):
    """Ends after the second block, with a part of the second cut in half and garbage of the right size in the first."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._clips = Location.of(config.output) / "features" / "clips"

    def map(self, work: Work, tracks: pa.Table, limit: int, columns: object = None) -> Iterator[pa.Table]:
        results = super().map(work, tracks, limit, columns)
        yield next(results)
        yield next(results)
        whole, cut = self._clips.files()
        whole.write_bytes(bytes(whole.size()))
        with open(cut.path, "r+b") as file:
            file.truncate(cut.size() // 2)
        raise KeyboardInterrupt


def test_parts_of_an_interrupted_run_are_not_trusted_by_name(music: Path, expected: Path, tmp_path: Path) -> None:
    config = config_of(music, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        prepare(config, Interrupted(config))
    again = InTurn()
    prepare(config, again)
    assert again.tracks == 19
    check_equal(tmp_path, expected)


def test_a_bucket_that_cannot_be_listed_is_reported(
    bucket_server: dict[str, str], music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(music)
    closed = refusing(403, "AccessDenied", lambda request: "list-type" in request.path)
    with faulty_storage.proxy(bucket_server["AWS_ENDPOINT_URL"], closed) as proxy:
        use(proxy.address, monkeypatch)
        with pytest.raises(
            ConfigError, match=r"corpus.root=s3://bucket/songs: access is denied; check your credentials"
        ):
            prepare(config_of("s3://bucket/songs", tmp_path), InTurn())
    use(bucket_server["AWS_ENDPOINT_URL"], monkeypatch)


def test_an_output_that_is_read_only_is_reported(
    bucket_server: dict[str, str], music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = refusing(403, "AccessDenied", lambda request: request.command in ("PUT", "POST"))
    with faulty_storage.proxy(bucket_server["AWS_ENDPOINT_URL"], closed) as proxy:
        use(proxy.address, monkeypatch)
        with pytest.raises(ConfigError, match=r"output=s3://bucket/closed cannot be written \(.*ACCESS_DENIED"):
            prepare(config_of(music, "s3://bucket/closed"), InTurn())
    use(bucket_server["AWS_ENDPOINT_URL"], monkeypatch)
    with pytest.raises(ConfigError, match=r"output=/proc/nothing cannot be written"):
        prepare(config_of(music, "/proc/nothing"), InTurn())


def outside_of_the_documented_role() -> Fault:
    """Return a fault: what the policy of docs/CLUSTER.md for s3://BUCKET does not allow is denied."""
    page = (REPOSITORY / "docs/CLUSTER.md").read_text(encoding="utf-8")
    (policy,) = re.findall(r"--policy-name bucket --policy-document \\\n\s+'(.+?)'", page, re.DOTALL)
    statements = json.loads(policy.replace("BUCKET", "bucket"))["Statement"]
    allowed = [(each["Action"], resource) for each in statements for resource in each["Resource"]]

    def is_denied(request: Handler) -> bool:
        address = urlsplit(request.path)
        bucket, _, key = unquote(address.path).lstrip("/").partition("/")
        keys, query = [key], parse_qs(address.query, keep_blank_values=True)
        if not key and "delete" in query:
            action, keys = "s3:DeleteObject", re.findall("<Key>(.*?)</Key>", request.body.decode())
        elif not key:
            action = "s3:ListBucket"
        elif request.command == "DELETE":
            action = "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"
        else:
            action = "s3:GetObject" if request.command in ("GET", "HEAD") else "s3:PutObject"
        resources = [f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else "") for key in keys]
        return not all(
            any(action in actions and fnmatchcase(resource, pattern) for actions, pattern in allowed)
            for resource in resources
        )

    return refusing(403, "AccessDenied", is_denied)


def test_the_documented_role_suffices_for_its_prefixes_and_nothing_else(
    bucket_server: dict[str, str], music: Path, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs.copy_files(str(music), "s3://bucket/fma")
    fs.copy_files(str(music / "genre0"), "s3://bucket/new")
    fs.copy_files(save_model(tmp_path / "model"), "s3://bucket/run/models/cnn")
    with faulty_storage.proxy(bucket_server["AWS_ENDPOINT_URL"], outside_of_the_documented_role()) as proxy:
        use(proxy.address, monkeypatch)
        for _ in range(2):
            prepare(config_of("s3://bucket/fma", "s3://bucket/run"), InTurn())
        tagged = ["s3://bucket/new", "model=s3://bucket/run/models/cnn", "output=s3://bucket/run"]
        assert cli.main("tag", tagged) == 0
        output = Location.of("s3://bucket/run")
        (output / "sub" / "large").write_bytes(bytes(11 << 20))
        (output / "sub").delete()
        assert not (output / "sub").exists()
        assert output.is_folder()  # asked for when a file is missing
        assert not proxy.faults
        for address in ("s3://bucket/fma", "s3://bucket/new", "s3://bucket/run2"):
            with pytest.raises(ConfigError, match=r"cannot be written \(.*ACCESS_DENIED"):
                prepare(config_of("s3://bucket/fma", address), InTurn())
        with pytest.raises(OSError, match="ACCESS_DENIED"):
            Location.of("s3://bucket/other/song.wav").read_bytes()
    use(bucket_server["AWS_ENDPOINT_URL"], monkeypatch)
    check_equal("s3://bucket/run", expected)


def test_a_time_in_the_future_is_a_time(tmp_path: Path) -> None:
    (song, *_) = write_music(tmp_path / "music", genres=1, per_genre=2)
    os.utime(song, (4e9, 4e9))
    config = config_of(tmp_path / "music", tmp_path / "out")
    prepare(config, InTurn())
    again = InTurn()
    prepare(config, again)
    assert again.tracks == 0
    song.write_bytes(song.read_bytes()[:-100])  # its time is now earlier than before
    prepare(config, again)
    assert again.tracks == 1


class Changed(InTurn):
    """Replaces a song after the scan, before it is read."""

    def __init__(self, song: Path) -> None:
        super().__init__()
        self._song = song

    def map(self, work: Work, tracks: pa.Table, limit: int, columns: object = None) -> Iterator[pa.Table]:
        content = self._song.read_bytes()
        self._song.write_bytes(content[: len(content) // 2])
        yield from super().map(work, tracks, limit, columns)
        self._song.write_bytes(content[: len(content) // 2])


def test_a_file_that_changes_while_the_job_runs_is_read_again(tmp_path: Path) -> None:
    songs = write_music(tmp_path / "music", genres=1, per_genre=2)
    config = config_of(tmp_path / "music", tmp_path / "out")
    prepare(config, Changed(songs[0]))
    again = InTurn()
    prepare(config, again)
    assert again.tracks == 1
    prepare(config_of(tmp_path / "music", tmp_path / "right"), InTurn())
    assert tables(tmp_path / "out")["clips"] == tables(tmp_path / "right")["clips"]


def test_a_full_disk_is_one_line_that_names_the_folder_and_the_next_run_resumes(
    music: Path, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(to_yaml(config_of(music, tmp_path / "disk/out")))
    command = ["--config", str(tmp_path / "run.yaml")]
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        monkeypatch.setattr(prepare_job, "Workers", lambda *_: InTurn())
        assert cli.main("prepare", command) == cli.FAILED
        message = capsys.readouterr().err.splitlines()[-1]
        assert re.fullmatch(
            rf"error: {disk}/out/features/\w+: cannot be written \(No space left on device\); free space and run the "
            "same command again",
            message,
        )
        resize(disk, "100m")
        again = InTurn()
        monkeypatch.setattr(prepare_job, "Workers", lambda *_: again)
        assert cli.main("prepare", command) == cli.OK
        assert 0 < again.tracks < 19
        check_equal(disk / "out", expected)
