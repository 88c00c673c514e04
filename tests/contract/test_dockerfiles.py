"""The Dockerfiles, as far as they can be checked without Docker."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

IMAGE = REPOSITORY / "Dockerfile"
FILES = [IMAGE, REPOSITORY / "configs/cluster/kuberay/Dockerfile"]
LOCKS = ("requirements.lock", "requirements-light.lock")


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile as (name, arguments), without comments."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [(name, rest) for name, rest in pairs]


def copied(path: Path) -> Iterator[str]:
    """Yield the files and folders of the repository that are copied into the image."""
    for name, rest in instructions(path):
        if name == "COPY" and "--from=" not in rest:
            yield from rest.split()[:-1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_copied_files_exist_and_are_not_ignored(path: Path) -> None:
    sent = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert "*" in (REPOSITORY / ".dockerignore").read_text().splitlines()
    sources = list(copied(path))
    assert "genre" in sources
    for source in sources:
        assert (REPOSITORY / source).exists()
        assert source in sent


def test_the_base_images_have_the_python_version_of_the_lock() -> None:
    bases = [rest.split()[0] for name, rest in instructions(IMAGE) if name == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert bases[0].startswith("python:3.11")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_install_checks_hashes(path: Path) -> None:
    commands = [part for name, rest in instructions(path) if name == "RUN" for part in rest.split("&&")]
    installs = [command for command in commands if re.search(r"\bpip (install|wheel)\b", command)]
    assert installs
    for command in installs:
        assert "--require-hashes -r" in command or "--no-deps --no-index" in command
        assert "--no-build-isolation" in command or "pip wheel" not in command
    assert "://" not in path.read_text()


def test_the_image_is_built_from_the_runtime_or_the_light_lock() -> None:
    assert ("ARG", f"LOCK={LOCKS[0]}") in instructions(IMAGE)
    assert "--require-hashes -r ${LOCK}" in IMAGE.read_text()
    assert set(LOCKS) <= set(copied(IMAGE))
    assert f"--build-arg LOCK={LOCKS[1]}" in IMAGE.read_text()


def test_the_build_tool_is_locked_and_new_enough() -> None:
    """The Dockerfile extracts its lines from the lock: from its name to the first line without a continuation."""
    lock = (REPOSITORY / LOCKS[0]).read_text()
    (pinned,) = re.findall(r"^setuptools==(\d+)[^\n]*\\\n(?:    --hash=\S+ \\\n)*    --hash=\S+$", lock, re.MULTILINE)
    (needed,) = re.findall(r'requires = \["setuptools>=(\d+)"\]', (REPOSITORY / "pyproject.toml").read_text())
    assert int(pinned) >= int(needed)


def test_the_image_runs_the_command_as_an_ordinary_user() -> None:
    last = instructions(IMAGE)
    last = last[max(index for index, (name, _) in enumerate(last) if name == "FROM") :]
    (user,) = [rest for name, rest in last if name == "USER"]
    assert user not in ("root", "0")
    assert any(name == "RUN" and re.search(rf"useradd .*\b{user}\b", rest) for name, rest in last)
    assert json.loads(dict(last)["ENTRYPOINT"]) == ["genre"]
    assert [name for name, _ in last].index("USER") < [name for name, _ in last].index("ENTRYPOINT")
