"""Which packages may import which, and that every shipped configuration is valid."""

from __future__ import annotations

import ast
import importlib
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

from genre import config
from genre.settings import Config
from ray_jobs.engine import cli, jobs

MODULES = sorted((REPOSITORY / "genre").rglob("*.py"))
CONFIGS = sorted(set((REPOSITORY / "configs").glob("*.yaml")) - {REPOSITORY / "configs/runtime_env.yaml"})


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_genre_never_imports_ray(module: Path) -> None:
    assert not imported(module) & {"ray", "ray_jobs"}


def test_a_decoding_worker_imports_no_large_library() -> None:
    """Each of these adds seconds to the start of every worker."""
    code = (
        "import sys, genre.features.preparing.tracks, genre.features.preparing.finishing;"
        "import genre.audio.isolation;"
        "heavy = {'ray', 'torch', 'torchaudio', 'librosa', 'sklearn', 'pandas', 'scipy', 'numba'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, f"imported on the worker's path: {done.stderr}"


def test_prepare_starts_ray_before_it_imports_ray_data() -> None:
    """Importing them takes longer than importing Ray, whose processes start in the meantime."""
    code = "import sys, ray_jobs.prepare; sys.exit(' '.join({'ray.data', 'pandas', 'scipy'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, f"imported before Ray starts: {done.stderr}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    cli.check_plugins(config.load(str(path)))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configurations_hold_only_values_that_differ_from_the_defaults(path: Path) -> None:
    defaults = Config().model_dump(mode="json")

    def repeated(values: dict[str, Any], against: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for key, value in values.items():
            if isinstance(value, dict) and isinstance(against.get(key), dict) and against[key]:
                yield from repeated(value, against[key], f"{prefix}{key}.")
            elif key in against and against[key] == value and key != "kind":
                yield f"{prefix}{key}"

    assert not list(repeated(yaml.safe_load(path.read_text()), defaults))


@pytest.mark.parametrize("job", jobs.JOBS)
def test_each_job_runs_as_a_module(job: str, tmp_path: Path) -> None:
    """--dry-run prints the settings that it reads. Without features or music, tag and tune fail then."""
    command = [sys.executable, "-m", f"ray_jobs.{job}", "--config", "configs/demo.yaml", "--dry-run", "seed=7"]
    command.append(f"output={tmp_path / 'out'}")
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert (done.returncode == 0) is (job not in ("tag", "tune")), done.stderr
    printed = yaml.safe_load(done.stdout)
    resolved = Config.model_validate(printed)
    names = {name.partition(".")[0] for name in jobs.JOBS[job].reads}
    assert printed.keys() == names
    assert resolved.seed == (7 if "seed" in names else 0)
    assert resolved.output == (str(tmp_path / "out") if "output" in names else Config().output)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("job", jobs.JOBS)
def test_a_job_runs_in_its_own_module_and_not_in_main(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray pickles objects of `__main__` without their module: the served class would lose its cached template."""
    module = importlib.import_module(f"ray_jobs.{job}")
    ran: list[Config] = []
    monkeypatch.setattr(module, "run", ran.append)
    monkeypatch.setattr("genre.features.manifest.read", lambda folder: None)  # as where there are features
    monkeypatch.setattr(sys, "argv", [f"ray_jobs.{job}"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"ray_jobs.{job}", run_name="__main__")
    assert end.value.code == cli.OK
    assert len(ran) == 1
