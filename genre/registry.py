"""Plug-ins by file name: a module in `genre/architectures/` or `genre/corpora/` is its own registration."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from functools import cache
from types import ModuleType


@cache
def names(package: str) -> tuple[str, ...]:
    """Names of the plug-ins of `package`, sorted, without importing them.

    A file whose name starts with an underscore is a helper, not a plug-in.
    """
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    found = (module.name for module in pkgutil.iter_modules(spec.submodule_search_locations))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def load(package: str, name: str) -> ModuleType:
    """The plug-in module `name` of `package`; the name must be one of `names(package)`."""
    return importlib.import_module(f"{package}.{name}")
