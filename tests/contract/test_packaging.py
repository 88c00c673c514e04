"""The three lock files agree with each other and with pyproject.toml, and the packages ship all their files."""

from __future__ import annotations

import re
import tomllib

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
# The lock file of each extra; the empty name stands for no extra. Each lock includes those before it.
LOCKS = {"": "requirements-light.lock", "all": "requirements.lock", "dev": "requirements-dev.lock"}


def pins(lock: str) -> set[str]:
    """Return every `name==version ; marker` of a lock file."""
    return set(re.findall(r"^(\S+==[^\\\n]+?) *\\$", (REPOSITORY / lock).read_text(), re.MULTILINE))


def requirements_of(extra: str) -> set[Requirement]:
    """Return the requirements of an extra, including those of the extras that it names."""
    listed = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    requirements = {Requirement(line) for line in listed}
    for own in [requirement for requirement in requirements if requirement.name == PROJECT["name"]]:
        requirements = (requirements - {own}).union(*(requirements_of(name) for name in own.extras))
    return requirements


@pytest.mark.parametrize("lock", LOCKS.values())
def test_a_lock_holds_only_names_versions_and_hashes(lock: str) -> None:
    lines = (REPOSITORY / lock).read_text().splitlines()
    others = [
        line for line in lines if not re.fullmatch(r"[\w.\[\],-]+==\S+( ; .+)? \\|    --hash=sha256:\w+( \\)?", line)
    ]
    assert not others
    assert not [line for line in lines if "://" in line]


@pytest.mark.parametrize(("extra", "lock"), LOCKS.items())
def test_a_lock_satisfies_the_project(extra: str, lock: str) -> None:
    locked: dict[str, set[str]] = {}
    for pin in pins(lock):
        requirement = Requirement(pin)
        locked.setdefault(requirement.name.lower(), set()).add(next(iter(requirement.specifier)).version)
    for requirement in requirements_of(extra) | requirements_of(""):
        assert requirement.name.lower() in locked, f"{requirement} is not in {lock}; make lock"
        versions = locked[requirement.name.lower()]
        assert all(version in requirement.specifier for version in versions), f"{requirement} in {lock}; make lock"


def test_each_lock_includes_the_smaller_one() -> None:
    """At the same versions; a larger lock may need a package on more platforms."""
    light, runtime, developing = ({pin.partition(" ;")[0] for pin in pins(lock)} for lock in LOCKS.values())
    assert light < runtime < developing


def test_tagging_needs_no_large_library() -> None:
    large = ("torch", "torchaudio", "torchvision", "ray", "librosa", "scipy", "pandas", "opencv-python-headless")
    assert not {Requirement(pin).name for pin in pins(LOCKS[""])} & set(large)


def test_every_file_of_the_packages_is_shipped() -> None:
    """The wheel silently omits files whose suffix `package-data` does not list."""
    patterns = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    files = [path for package in ("genre", "ray_jobs") for path in (REPOSITORY / package).rglob("*") if path.is_file()]
    data = [path for path in files if path.suffix != ".py" and "__pycache__" not in path.parts]
    packages = {path.parent for path in files if path.name == "__init__.py"}
    shipped = {path for package in packages for pattern in patterns for path in package.glob(pattern)}
    assert {path.name for path in data} >= {
        "py.typed",
        "leaderboard.html",
        "leaderboard.md",
        "explanation.js",
        "serve.css",
    }
    assert not [str(path) for path in data if path not in shipped]
