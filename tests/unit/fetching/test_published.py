"""The table of published corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from genre import config, corpora
from genre.errors import ConfigError
from genre.fetching import read_table
from ray_jobs.engine import cli

ROW: dict[str, Any] = {
    "title": "t",
    "licence": "l",
    "kind": "gtzan",
    "archives": [
        {
            "file": "a.zip",
            "folder": "a",
            "size": 1,
            "unpacked": 1,
            "checksum": "md5:" + "0" * 32,
            "urls": ["http://x/a"],
        }
    ],
}


@pytest.mark.parametrize("name", read_table())
def test_the_command_of_each_corpus_is_valid(name: str) -> None:
    genre, job, *settings = read_table()[name].command(name, "data/here")
    assert (genre, job) == ("genre", "prepare")
    resolved = cli.check_plugins(config.load(None, settings))
    assert resolved.corpus.root == "data/here"
    assert corpora.classes(resolved.corpus)


def test_the_table_has_gtzan_and_all_of_fma() -> None:
    assert list(read_table()) == ["gtzan", "fma_small", "fma_medium", "fma_large", "fma_full"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "../a.zip"}, "x.archives.0.file: found"),
        ({"folder": "a/b"}, "x.archives.0.folder: found"),
        ({"checksum": "sha256:123"}, "checksum 'sha256:123': write md5, sha1, sha256"),
        ({"checksum": "crc:00"}, "checksum 'crc:00'"),
        ({"urls": ["file:///etc/passwd"]}, "x.archives.0.urls.0: found"),
        ({"urls": []}, "x.archives.0.urls: found []"),
        ({"size": 0}, "x.archives.0.size: found 0; must be more than 0"),
        ({"sise": 1}, "unknown key 'x.archives.0.sise'"),
    ],
)
def test_a_wrong_archive_is_one_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    row = ROW | {"archives": [ROW["archives"][0] | change]}
    assert message in refused(tmp_path, yaml.safe_dump({"x": row}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read"),
        ("[1]", "holds no corpora"),
        ("x: 1", "holds no corpora"),
        (yaml.safe_dump({"x": ROW | {"kind": "gtzam"}}), "x.kind: 'gtzam' is not known; did you mean 'gtzan'?"),
    ],
)
def test_a_wrong_table_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path, text)


def refused(root: Path, text: str) -> str:
    (root / "table.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        read_table(str(root / "table.yaml"))
    assert "\n" not in str(error.value)
    return str(error.value)
