"""Plug-ins: the modules in `genre/architectures/` and `genre/corpora/`, and those that other packages register.

A module in one of these two folders is registered by its file name. Another package registers a module with an entry
point whose group is `genre.architectures` or `genre.corpora`; see examples/genre_plugin_example.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from genre.errors import ConfigError

_CONTENTS = {"genre.architectures": ("Params", "SEARCH", "build"), "genre.corpora": ("Params", "scan")}


@cache
def names(package: str) -> tuple[str, ...]:
    """Return the sorted names of the plug-ins of `package`, without importing them.

    A module whose name starts with an underscore is a helper, not a plug-in. Raises `ConfigError` when another package
    registers a name that is taken.
    """
    return tuple(sorted([*_built_in(package), *_registered(package)]))


@cache
def load(package: str, name: str) -> ModuleType:
    """Import the plug-in `name`, which must be one of `names(package)`.

    Raises `ConfigError` when the module of another package cannot be imported or lacks what a plug-in has.
    """
    entry_point = _registered(package).get(name)
    if entry_point is None:
        return importlib.import_module(f"{package}.{name}")
    try:
        module: ModuleType = entry_point.load()
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(f"{_origin(entry_point)} cannot be imported ({reason}); correct or uninstall it") from error
    missing = [attribute for attribute in _CONTENTS[package] if not hasattr(module, attribute)]
    if missing:
        raise ConfigError(f"{_origin(entry_point)} lacks {', '.join(missing)}; see the docstring of {package}")
    return module


def package_of(package: str, name: str) -> str:
    """Return name and version of the other package that registers a plug-in, as "example 0.1"; "" for a built-in."""
    entry_point = _registered(package).get(name)
    return f"{entry_point.dist.name} {entry_point.dist.version}" if entry_point and entry_point.dist else ""


def packages() -> dict[str, str]:
    """Return the versions of the other packages that register plug-ins."""
    registered = [entry_point for package in _CONTENTS for entry_point in _registered(package).values()]
    return {entry_point.dist.name: entry_point.dist.version for entry_point in registered if entry_point.dist}


def _built_in(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    modules = pkgutil.iter_modules(spec.submodule_search_locations)
    return [module.name for module in modules if not module.name.startswith("_")]


@cache
def _registered(package: str) -> dict[str, EntryPoint]:
    """Return the entry points of other packages by name."""
    built_in = _built_in(package)
    registered: dict[str, EntryPoint] = {}
    for entry_point in entry_points(group=package):
        name = entry_point.name
        if name in built_in:
            raise ConfigError(f"{_origin(entry_point)} has the name of a built-in; rename or uninstall it")
        if name in registered:
            raise ConfigError(
                f"{_origin(entry_point)} has the name of {_origin(registered[name])}; uninstall one of them"
            )
        registered[name] = entry_point
    return registered


def _origin(entry_point: EntryPoint) -> str:
    """Return "the plug-in 'tiny' (genre.architectures) of the package example"."""
    package = entry_point.dist.name if entry_point.dist else entry_point.module
    return f"the plug-in {entry_point.name!r} ({entry_point.group}) of the package {package}"
