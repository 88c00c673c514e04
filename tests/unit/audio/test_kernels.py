"""The compiled kernels: compiled once on a machine, then loaded, and never loaded from a folder of another user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
ALL = 5  # kernels times types
CODE = """
from genre.audio import kernels
compiled = vars(kernels.compiled()).values()
print(sum(sum(kernel.stats.cache_misses.values()) for kernel in compiled), kernels._folder())
"""


def started(**variables: str) -> subprocess.Popen[str]:
    own = {key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    return subprocess.Popen(
        [sys.executable, "-c", CODE],
        env=own | {"PYTHONPATH": str(REPOSITORY)} | variables,
        cwd="/",
        stdout=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> tuple[int, Path]:
    """Return the number of compilations and the folder of the cache."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    compilations, folder = output.split()
    return int(compilations), Path(folder)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home in which four processes that started together have compiled."""
    home = tmp_path_factory.mktemp("home")
    counts = [result(process)[0] for process in [started(HOME=str(home)) for _ in range(4)]]
    assert sorted(counts) == [0, 0, 0, ALL], "one compiles, the others wait"
    return home


def copied(warm: Path, home: Path) -> Path:
    shutil.copytree(warm, home, dirs_exist_ok=True)
    return home


def test_a_later_process_compiles_nothing(warm: Path) -> None:
    count, folder = result(started(HOME=str(warm)))
    assert count == 0
    assert folder.is_relative_to(warm / ".cache/genre/kernels")


def test_each_processor_has_its_own_code(warm: Path, tmp_path: Path) -> None:
    home = copied(warm, tmp_path)
    count, folder = result(started(HOME=str(home), NUMBA_CPU_NAME="x86-64-v3", NUMBA_CPU_FEATURES="+avx2,+fma"))
    assert count == ALL
    assert folder != result(started(HOME=str(home)))[1]
    assert result(started(HOME=str(home)))[0] == 0


def test_an_unwritable_home_is_replaced_by_the_temporary_folder(tmp_path: Path) -> None:
    variables = {"HOME": "/proc/none", "TMPDIR": str(tmp_path)}
    assert result(started(**variables))[0] == ALL
    count, folder = result(started(**variables))
    assert count == 0
    assert folder.parent == tmp_path / f"genre-kernels-{os.getuid()}"
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_the_cache_folder_of_numba_is_used(warm: Path, tmp_path: Path) -> None:
    target = copied(warm / ".cache/genre/kernels", tmp_path / "genre")
    target.chmod(0o700)
    count, folder = result(started(HOME="/proc/none", NUMBA_CACHE_DIR=str(tmp_path)))
    assert folder.parent == target
    assert count == 0


@pytest.mark.parametrize("how", ["writable by others", "a link"])
def test_a_folder_that_others_can_write_to_is_not_used(warm: Path, tmp_path: Path, how: str) -> None:
    home, trap = copied(warm, tmp_path / "home"), tmp_path / f"genre-kernels-{os.getuid()}"
    if how == "a link":
        trap.symlink_to(home / ".cache/genre/kernels")
    else:
        copied(home / ".cache/genre/kernels", trap)
        trap.chmod(0o777)
    process = started(HOME="/proc/none", TMPDIR=str(tmp_path))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert output.split() == [str(ALL), "None"]


def test_damaged_files_are_compiled_again(warm: Path, tmp_path: Path) -> None:
    home = copied(warm, tmp_path)
    for file in home.rglob("*weigh*.nbc"):
        file.write_bytes(file.read_bytes()[:100])
    counts = [result(started(HOME=str(home)))[0] for _ in range(3)]
    assert counts == [ALL, ALL, 0]
