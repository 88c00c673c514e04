"""The rooms of the code: which may import which. docs/ARCHITECTURE.md draws them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY

from ray_jobs.engine import jobs

# from the lowest to the highest; a room may import lower ones only, and not those of its own line
FLOORS = [
    ["ground"],  # the modules directly in genre/
    ["storage"],
    ["audio"],
    ["corpora", "fetching"],
    ["features"],
    ["architectures"],
    ["model"],
    ["training", "tagging"],
    ["evaluation", "retrieval"],
    ["report"],
    ["explaining", "reviewing"],
    ["ray_jobs.engine"],
    ["ray_jobs.scoring", "ray_jobs.tagging", "ray_jobs.pages"],
    ["ray_jobs.search"],
    ["jobs"],  # the modules directly in ray_jobs/
]
RANK = {room: rank for rank, rooms in enumerate(FLOORS) for room in rooms}
# scores are computed in training as well; evaluation does not import training
ABOVE_ALL = (
    "genre",
    "genre.testing",
)  # the public face imports its names when they are used; nothing imports the other
EXCEPTIONS = {("training", "genre.evaluation.metrics")}


def name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for package in ("genre", "ray_jobs") for path in (REPOSITORY / package).rglob("*.py")}


@dataclass(frozen=True)
class Import:
    module: str
    name: str = ""  # of what is imported from the module; empty for the module itself


def imports_of(module: str) -> Iterator[Import]:
    """Yield what a module imports from this project, in functions and for type checking too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name) for alias in node.names if alias.name.split(".")[0] in ("genre", "ray_jobs"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("genre", "ray_jobs"):
            assert node.module is not None
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield Import(submodule) if submodule in MODULES else Import(node.module, alias.name)


def room_of(module: str) -> str:
    package, _, rest = module.partition(".")
    room = rest.split(".")[0]
    is_folder = bool(room) and (REPOSITORY / package / room).is_dir()
    if package == "genre":
        return room if is_folder else "ground"
    if not rest:
        return "ray_jobs.engine"  # sets the environment of Ray
    return f"ray_jobs.{room}" if is_folder else "jobs"


def test_every_room_has_a_floor() -> None:
    assert {room_of(module) for module in MODULES} == set(RANK)


@pytest.mark.parametrize("room", RANK)
def test_a_room_imports_lower_ones_only(room: str) -> None:
    refused = [
        f"{module} imports {imported.module}"
        for module in MODULES
        if room_of(module) == room and module not in ABOVE_ALL
        for imported in imports_of(module)
        if room_of(imported.module) != room
        and RANK[room_of(imported.module)] >= RANK[room]
        and (room, imported.module) not in EXCEPTIONS
    ]
    assert not refused


def test_a_room_imports_no_private_name_of_another() -> None:
    refused = [
        f"{module} imports {imported.module} {imported.name}".rstrip()
        for module in MODULES
        for imported in imports_of(module)
        if room_of(imported.module) != room_of(module)
        and any(part.startswith("_") and part != "__version__" for part in [*imported.module.split("."), imported.name])
    ]
    assert not refused


@pytest.mark.parametrize("room", [room for room in RANK if room not in ("ground", "jobs")])
def test_a_room_says_what_it_is_for(room: str) -> None:
    package = room if room.startswith("ray_jobs.") else f"genre.{room}"
    assert ast.get_docstring(ast.parse(MODULES[package].read_text(encoding="utf-8")))


@pytest.mark.parametrize("package", ["genre.tagging", *(room for room in RANK if room.startswith("ray_jobs."))])
def test_a_room_lists_all_of_its_modules(package: str) -> None:
    text = ast.get_docstring(ast.parse(MODULES[package].read_text(encoding="utf-8"))) or ""
    modules = {path.stem for path in MODULES[package].parent.glob("*.py")} - {"__init__"}
    assert modules <= set(re.findall(r"\w+", text))


def test_ray_jobs_holds_the_jobs_and_nothing_else() -> None:
    assert {path.stem for path in (REPOSITORY / "ray_jobs").glob("*.py")} == {"__init__", *jobs.JOBS}


def test_a_function_fits_on_a_screen() -> None:
    """With its docstring at most 40 lines, and at most 8 parameters."""
    refused = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if lines > 40 or len(set(names) - {"self", "cls"}) > 8:
                    refused.append(f"{module}.{node.name}: {lines} lines, {len(names)} parameters")
    assert not refused
