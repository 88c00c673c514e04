"""One writer for an output: who holds the lease, who is refused, and who takes it over."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from faulty_storage import Handler, Proxy
from running import ENVIRONMENT

from genre.errors import ConfigError, GenreError
from genre.storage import Location, exclusive, lease
from genre.storage.lease import FILE, Holder, held
from ray_jobs.engine.interrupts import interruptible


@pytest.fixture(params=["folder", "bucket", "bucket without boto3"])
def output(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "folder":
        return str(tmp_path / "out")
    request.getfixturevalue("bucket_server")
    if request.param == "bucket without boto3":
        monkeypatch.setitem(sys.modules, "boto3", None)
    return f"s3://bucket/{tmp_path.name}"


def written(output: str, holder: Holder, renewals: int = 0) -> None:
    (Location.of(output) / FILE).write_text(json.dumps(asdict(holder) | {"renewals": renewals}))


def test_a_second_job_is_told_who_writes(output: str) -> None:
    with held(output, "tag"):
        refusal = rf"is being written by tag \(process {os.getpid()} on .*, since .*\)"
        with pytest.raises(GenreError, match=refusal), held(output, "prepare"):
            pass
        assert (Location.of(output) / FILE).exists()
    assert not (Location.of(output) / FILE).exists()
    with held(output, "prepare"):
        pass


def test_the_lease_of_a_killed_job_is_taken_over_at_once(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "STALE_SECONDS", 1000.0)
    code = f"import os\nfrom genre.storage.lease import held\nwith held({output!r}, 'tag'): os._exit(9)"
    environment = ENVIRONMENT | {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 9
    assert (Location.of(output) / FILE).exists()
    with held(output, "tag"):
        pass


def test_the_process_id_of_another_program_is_not_the_job(tmp_path: Path) -> None:
    written(str(tmp_path), replace(Holder.this_process("tag"), started="1"))
    with held(str(tmp_path), "tag"):
        pass


def test_a_lease_of_another_machine_is_taken_over_when_it_is_not_renewed(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_SECONDS", 2.0)
    written(output, replace(Holder.this_process("tag"), machine="elsewhere"))
    begin = time.monotonic()
    with held(output, "tag"):
        assert time.monotonic() - begin > 2


def test_a_lease_that_another_machine_renews_is_respected(output: str) -> None:
    other = replace(Holder.this_process("tag"), machine="elsewhere", host="node7")
    written(output, other)
    renewal = threading.Timer(2, written, (output, other, 1))
    renewal.start()
    with pytest.raises(GenreError, match="on node7"), held(output, "tag"):
        pass
    renewal.join()


def test_a_lease_that_is_taken_while_another_is_given_back_is_respected(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the failed creation and the look at the holder, the lease is given back and taken by a third job."""
    with held(output, "tag"):
        read, calls = lease._Lease._read, itertools.count()
        monkeypatch.setattr(lease._Lease, "_read", lambda self: read(self) if next(calls) else None)
        with pytest.raises(GenreError, match="is being written by tag"), held(output, "prepare"):
            pass
        assert (Location.of(output) / FILE).exists()


def test_a_lease_that_was_not_written_completely_is_stale_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_SECONDS", 1.0)
    (tmp_path / FILE).write_text('{"job"')
    with held(str(tmp_path), "tag"):
        pass


def test_a_lease_that_is_written_while_another_is_created_is_respected(bucket: Proxy, tmp_path: Path) -> None:
    output, first = f"s3://bucket/{tmp_path.name}", Holder.this_process("prepare")

    def another_is_first(request: Handler, number: int) -> bool:
        if request.command == "PUT" and number == 0:
            written(output, first)
        return False

    bucket.fault = another_is_first
    with pytest.raises(GenreError, match="is being written by prepare"), held(output, "tag"):
        pass
    assert first.token.encode() in (Location.of(output) / FILE).read_bytes()


def test_a_lease_whose_answer_was_lost_is_held(bucket: Proxy, tmp_path: Path) -> None:
    def lose(request: Handler, number: int) -> bool:
        if request.command != "PUT" or number > 0:
            return False
        request.ask()
        request.close_connection = True
        return True

    bucket.fault = lose
    with held(f"s3://bucket/{tmp_path.name}", "tag"):
        assert bucket.faults == 1


def test_a_server_without_conditional_requests_has_leases_as_well(bucket: Proxy, tmp_path: Path) -> None:
    def refuse_conditions(request: Handler, number: int) -> bool:
        if "If-None-Match" not in request.headers:
            return False
        request.refuse(501, "NotImplemented")
        return True

    bucket.fault = refuse_conditions
    with held(output := f"s3://bucket/{tmp_path.name}", "tag"):
        with pytest.raises(GenreError, match="is being written by tag"), held(output, "prepare"):
            pass
        assert (Location.of(output) / FILE).exists()
        assert bucket.faults == 1


def test_a_job_that_lost_its_lease_ends(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.2)
    other = replace(Holder.this_process("tag"), machine="elsewhere", host="node7")
    # as in a job: after Ray ran in this process, SIGTERM would else end it with a stack of C++ functions
    with interruptible(), pytest.raises(GenreError, match="on node7"), held(output, "tag"):  # noqa: PT012
        for _ in range(100):  # a renewal between its look and its request overwrites the other lease
            written(output, other)
            time.sleep(0.3)
    assert b"node7" in (Location.of(output) / FILE).read_bytes()


def test_a_lease_is_renewed(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.2)
    with held(output, "tag"):
        keeper = lease._Lease(Location.of(output) / FILE, Holder.this_process("prepare"))
        first = keeper._read()
        time.sleep(2.5)
        assert keeper._read() != first


def test_an_output_that_cannot_be_written_is_named() -> None:
    message = r"output=/proc/nothing/run cannot be written \(.*\); choose another"
    with pytest.raises(ConfigError, match=message), held("/proc/nothing/run", "tag"):
        pass


def test_a_link_that_leads_nowhere_is_named_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "STALE_SECONDS", 1.2)
    (tmp_path / FILE).symlink_to(tmp_path / "nowhere")
    used = time.process_time()
    with pytest.raises(GenreError, match=r"\.lease\.json can be neither created nor read; delete it"):
        lease._Lease(Location.of(tmp_path / FILE), Holder.this_process("tag")).take()
    assert time.process_time() - used < 0.3  # it waits without computing


def test_a_renewal_restores_a_lease_and_never_its_folder(tmp_path: Path) -> None:
    """An output whose disk is away must not be made again on the disk below."""
    folder = tmp_path / "out"
    holder = lease._Lease(Location.of(folder / FILE), Holder.this_process("tag"))
    holder.take()
    (folder / FILE).unlink()
    holder.renew()
    assert (folder / FILE).exists()
    folder.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        holder.renew()
    assert not folder.exists()
    assert holder.lost_to is None


def test_an_address_that_boto3_does_not_take_needs_more_than_one_step() -> None:
    file = Location.of("s3://key:secret@bucket/run/.lease.json?scheme=http&endpoint_override=my_host:9000")
    assert not exclusive.create(file, b"")
