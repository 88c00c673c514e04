"""Credentials in addresses are hidden wherever an address is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from pyarrow import fs

from genre import config
from genre.credentials import for_environment, without_credentials
from genre.report.formats import without_folders

ADDRESS = "s3://KEYID:SECRET@bucket"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEYID:SECRET@bucket/a?region=x", "s3://***@bucket/a?region=x"),
        ("output=s3://KEYID:SEC%2FRET+@bucket/a b", "output=s3://***@bucket/a b"),
        ("s3://KEYID:SEC/RET@bucket: not an address", "s3://***@bucket: not an address"),
        ("abfss://music:SECRET@acc.dfs.core.windows.net/x", "abfss://music:***@acc.dfs.core.windows.net/x"),
        (
            "s3://b/x?region=y&access_key=KEYID&secret_key=SECRET&scheme=http",
            "s3://b/x?region=y&access_key=***&secret_key=***&scheme=http",
        ),
        ("abfss://c@a.net/x?client_secret=SECRET&tenant_id=t", "abfss://c@a.net/x?client_secret=***&tenant_id=t"),
        ("s3://KEYID:12345/SECRET@bucket/a", "s3://***@bucket/a"),
        ("http://KEYID:SECRET@host:9000/x", "http://***@host:9000/x"),
        ("from s3://KEYID:SECRET@one/a to 's3://KEYID:SECRET@two/b'", "from s3://***@one/a to 's3://***@two/b'"),
    ],
)
def test_credentials_are_hidden(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "/music/a:b@c.mp3?key=x",
        "s3://bucket/a:b@c.mp3",
        "gs://anonymous@bucket/a",
        "http://127.0.0.1:9000/a@b",
        "root: s3://bucket/a, group_pattern: (?P<key>[^/]+)=(?P<x>.+)",
        "s3://bucket/x, R&B_Monkeys=1.mp3",
        "s3://bucket/x?scheme=http&endpoint_override=127.0.0.1%3A9000",
        "review: http://127.0.0.1:8001 (Ctrl-C ends it), mail me@host",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"{ADDRESS}/a?region=x", "s3://bucket/a?region=x"),
        ("abfss://music:SECRET@acc.dfs.core.windows.net/x", "abfss://music@acc.dfs.core.windows.net/x"),
        ("gs://bucket/a", "gs://bucket/a"),
        ("/music/a:b@c.mp3", "/music/a:b@c.mp3"),
    ],
)
def test_an_address_that_opens_with_the_credentials_of_the_environment(address: str, shown: str) -> None:
    assert for_environment(address) == shown


@pytest.mark.parametrize("address", [f"{ADDRESS}/a?region=x", "abfss://music:U0VDUkVU@acc.dfs.core.windows.net/x"])
def test_the_forms_that_pyarrow_accepts_are_covered(address: str) -> None:
    assert fs.FileSystem.from_uri(address)
    assert "SECRET" not in (hidden := without_credentials(address))
    assert "U0VDUkVU" not in hidden


def test_written_settings_have_none() -> None:
    text = config.to_yaml(config.load(None, [f"output={ADDRESS}/run", f"corpus.root={ADDRESS}/music"]))
    assert "SECRET" not in text
    assert yaml.safe_load(text)["corpus"]["root"] == "s3://***@bucket/music"


def test_the_name_of_a_corpus_that_is_a_bucket_has_none() -> None:
    assert without_folders(f"{ADDRESS}/") == "***@bucket"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["similar", "--dry-run", f"output={ADDRESS}/run"], "output: s3://***@bucket/run"),
        (["similar", "song.mp3", "--verbose", "output=s3://KEYID:SEC/RET@bucket/run"], "Traceback"),
        (["similar", "song.mp3", f"{ADDRESS}/other.mp3"], "s3://***@bucket/other.mp3"),
    ],
)
def test_a_command_prints_none(tmp_path: Path, arguments: list[str], shown: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ray_jobs.engine.command", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    printed = done.stdout + done.stderr
    assert shown in printed
    assert "***@bucket" in printed
    assert "SEC" not in printed
    assert "RET@" not in printed


def test_the_command_in_a_report_has_none(tmp_path: Path) -> None:
    code = "from ray_jobs.engine import cli; print(cli.command_line())"
    done = subprocess.run(
        [sys.executable, "-c", code, f"output={ADDRESS}/a b"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    assert done.stdout.endswith("'output=s3://***@bucket/a b'\n")
