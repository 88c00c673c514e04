"""Plug-ins of other packages: which names are accepted, and how a broken one is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genre import architectures, config, registry
from genre.errors import ConfigError

Install = Callable[[str, dict[str, str], str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that puts a package on the path: its name, its architectures by name, and its module's source.

    The module has the name of the package.
    """

    def put(package: str, entries: dict[str, str], source: str) -> None:
        folder = tmp_path / package
        metadata = folder / f"{package}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {module}" for name, module in entries.items()]
        (metadata / "entry_points.txt").write_text("\n".join(["[genre.architectures]", *lines]))
        (folder / f"{package}.py").write_text(source)
        monkeypatch.syspath_prepend(folder)
        forget()

    def forget() -> None:
        for cached in (registry.names, registry.load, registry._registered):
            cached.cache_clear()

    yield put
    monkeypatch.undo()
    forget()


def test_a_registered_module_is_a_plugin_like_those_here(install: Install) -> None:
    before = architectures.names()
    install("first_plugin", {"first": "first_plugin"}, "Params = SEARCH = build = None")
    assert architectures.names() == tuple(sorted([*before, "first"]))
    assert registry.load("genre.architectures", "first").__name__ == "first_plugin"
    assert config.load(None, ["architecture=first"]).architecture == "first"


def test_a_name_that_a_built_in_has_is_refused(install: Install) -> None:
    install("second_plugin", {"cnn": "second_plugin"}, "")
    with pytest.raises(ConfigError) as error:
        config.load()
    assert str(error.value) == (
        "the plug-in 'cnn' (genre.architectures) of the package second_plugin has the name of a built-in; "
        "rename or uninstall it"
    )


def test_a_name_that_two_packages_register_is_refused(install: Install) -> None:
    install("third_plugin", {"same": "third_plugin"}, "")
    install("fourth_plugin", {"same": "fourth_plugin"}, "")
    with pytest.raises(ConfigError, match=r"'same' .* of the package third_plugin has the name of .* fourth_plugin; "):
        architectures.names()


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import not_installed", r"cannot be imported \(ModuleNotFoundError: No module named 'not_installed'\)"),
        ("1 / 0", r"cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("Params = None", "lacks SEARCH, build; see the docstring of genre.architectures"),
    ],
)
def test_a_broken_plugin_names_its_package(install: Install, source: str, problem: str) -> None:
    package = f"broken_{len(source)}"
    install(package, {"broken": package}, source)
    assert "broken" in architectures.names()
    with pytest.raises(ConfigError, match=f"the plug-in 'broken' .* of the package {package} {problem}"):
        architectures.params("broken", {})
