"""The Dockerfiles, as far as they can be judged without Docker."""

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
    """Every (INSTRUCTION, rest) of a Dockerfile, continued lines joined and comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [(name, rest) for name, rest in pairs]


def copied(path: Path) -> Iterator[str]:
    """What the instructions COPY out of the repository."""
    for name, rest in instructions(path):
        if name == "COPY" and "--from=" not in rest:
            yield from rest.split()[:-1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_everything_copied_is_there_and_sent_to_the_builder(path: Path) -> None:
    sent = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert "*" in (REPOSITORY / ".dockerignore").read_text().splitlines()
    sources = list(copied(path))
    assert "genre" in sources
    for source in sources:
        assert (REPOSITORY / source).exists()
        assert source in sent


def test_the_base_images_are_of_the_python_of_the_lock() -> None:
    bases = [rest.split()[0] for name, rest in instructions(IMAGE) if name == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert bases[0].startswith("python:3.11")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_whatever_is_installed_is_known_by_its_hash(path: Path) -> None:
    commands = [part for name, rest in instructions(path) if name == "RUN" for part in rest.split("&&")]
    installs = [command for command in commands if re.search(r"\bpip (install|wheel)\b", command)]
    assert installs
    for command in installs:
        assert "--require-hashes -r" in command or "--no-deps --no-index" in command
        assert "--no-build-isolation" in command or "pip wheel" not in command
    assert "://" not in path.read_text()


def test_the_image_is_built_from_the_runtime_lock_or_the_light_one() -> None:
    assert ("ARG", f"LOCK={LOCKS[0]}") in instructions(IMAGE)
    assert "--require-hashes -r ${LOCK}" in IMAGE.read_text()
    assert set(LOCKS) <= set(copied(IMAGE))
    assert f"--build-arg LOCK={LOCKS[1]}" in IMAGE.read_text()


def test_the_build_tool_is_locked_and_new_enough() -> None:
    """The Dockerfile cuts it out of the lock: its lines begin with the name and end with one that is not continued."""
    lock = (REPOSITORY / LOCKS[0]).read_text()
    (pinned,) = re.findall(r"^setuptools==(\d+)[^\n]*\\\n(?:    --hash=\S+ \\\n)*    --hash=\S+$", lock, re.MULTILINE)
    (needed,) = re.findall(r'requires = \["setuptools>=(\d+)"\]', (REPOSITORY / "pyproject.toml").read_text())
    assert int(pinned) >= int(needed)


def test_it_runs_the_command_as_a_user() -> None:
    last = instructions(IMAGE)
    last = last[max(index for index, (name, _) in enumerate(last) if name == "FROM") :]
    (user,) = [rest for name, rest in last if name == "USER"]
    assert user not in ("root", "0")
    assert any(name == "RUN" and re.search(rf"useradd .*\b{user}\b", rest) for name, rest in last)
    assert json.loads(dict(last)["ENTRYPOINT"]) == ["genre"]
    assert [name for name, _ in last].index("USER") < [name for name, _ in last].index("ENTRYPOINT")
