"""Plug-ins: the modules in `genre/architectures/` and `genre/corpora/`, and those that other packages register.

A module in one of these two folders is registered by its file name. Another package registers a module with an entry
point whose group is `genre.architectures` or `genre.corpora`; see examples/genre_plugin_example.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import pkgutil
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from genre.errors import ConfigError

_CONTENTS = {"genre.architectures": ("Params", "SEARCH", "build"), "genre.corpora": ("Params", "scan")}


@cache
def names(package: str) -> tuple[str, ...]:
    """Return the sorted names of the plug-ins of `package`, without importing them.

    A module whose name starts with an underscore is a helper, not a plug-in.
    """
    return tuple(sorted({*_built_in(package), *_registered(package)}))


@cache
def load(package: str, name: str) -> ModuleType:
    """Import the plug-in `name`, which must be one of `names(package)`.

    Raises `ConfigError` when several packages have the name, and when the module of another package cannot be imported
    or lacks what a plug-in has. Only the use of such a plug-in fails, not the jobs that need others.
    """
    registered = _registered(package).get(name, [])
    if not registered:
        return importlib.import_module(f"{package}.{name}")
    origin = _origin(registered[0])
    if name in _built_in(package):
        raise ConfigError(f"{origin} has the name of a built-in; rename or uninstall it")
    if len(registered) > 1:
        raise ConfigError(f"{origin} has the name of {_origin(registered[1])}; uninstall one of them")
    try:
        module: ModuleType = registered[0].load()
    except Exception as error:
        raise ConfigError(f"{origin} cannot be imported ({_reason(error)}); correct or uninstall it") from error
    missing = [attribute for attribute in _CONTENTS[package] if not hasattr(module, attribute)]
    if missing:
        raise ConfigError(f"{origin} lacks {', '.join(missing)}; see the docstring of {package}")
    try:
        module.Params().model_dump()
    except Exception as error:
        raise ConfigError(
            f"{origin}: its Params must derive from genre.settings.Settings and have a default for each field "
            f"({_reason(error)})"
        ) from error
    return module


def package_of(package: str, name: str) -> str:
    """Return name and version of the other package that registers a plug-in, as "example 0.1"; "" for a built-in."""
    dist = next((entry_point.dist for entry_point in _registered(package).get(name, [])), None)
    return f"{dist.name} {dist.version}" if dist else ""


def packages() -> dict[str, str]:
    """Return the versions of the other packages that register plug-ins."""
    lists = [each for package in _CONTENTS for each in _registered(package).values()]
    return {each.dist.name: each.dist.version for each in itertools.chain(*lists) if each.dist}


def _built_in(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    modules = pkgutil.iter_modules(spec.submodule_search_locations)
    return [module.name for module in modules if not module.name.startswith("_")]


@cache
def _registered(package: str) -> dict[str, list[EntryPoint]]:
    """Return the entry points of other packages by name; two packages may have the same."""
    registered: dict[str, list[EntryPoint]] = {}
    for entry_point in entry_points(group=package):
        registered.setdefault(entry_point.name, []).append(entry_point)
    return registered


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _origin(entry_point: EntryPoint) -> str:
    """Return "the plug-in 'tiny' (genre.architectures) of the package example"."""
    package = entry_point.dist.name if entry_point.dist else entry_point.module
    return f"the plug-in {entry_point.name!r} ({entry_point.group}) of the package {package}"
