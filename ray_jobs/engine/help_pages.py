"""The help pages of a job: `--help`, which fits a screen, and `--help-all` with every setting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from genre import config, registry
from genre.errors import ConfigError
from genre.settings import Config
from ray_jobs.engine import jobs, printing

_COLUMN = 30  # where the meanings start
Row = tuple[str, str, str]  # key, value as it is written on the command line, meaning


def page(name: str, program: str, settings: Iterable[str] = ()) -> str:
    """Return the purpose of a job, and the settings that it reads, with their defaults.

    If `settings`, which were typed with `--help`, name a corpus.kind, it has the settings of that corpus. Raises
    `ConfigError` for an unknown one.
    """
    job = jobs.JOBS[name]
    rows = list(config.describe(config.load(job.default_config)))
    positional = f" [{job.positional.rpartition('.')[2].upper()}]" if job.positional else ""
    parts = [f"usage: {program}{positional} [--config FILE] [key=value ...]", _prose(jobs.purpose(name))]
    explained = list(_chosen(rows, job.settings))
    others = [row for row in _chosen(rows, job.other_settings) if row not in explained]
    parts.append("\n".join(["settings and their defaults:", *_explained(explained)]))
    if chosen := [setting for setting in settings if setting.startswith("corpus.kind=")]:
        parts.append(_of_corpus(config.load(None, chosen).corpus.kind))
    if others:
        parts.append("\n".join(["further settings by section (for example train.epochs=40):", *_listed(others)]))
    return "\n\n".join([*parts, _prose(_options(job))])


def every_setting(name: str, program: str) -> str:
    """Return the purpose of a job and every setting of all jobs. Imports all architectures and corpora."""
    job = jobs.JOBS[name]
    parts = [f"usage: {program} [--config FILE] [key=value ...]", _prose(jobs.purpose(name))]
    parts.append("\n".join(["all settings and their defaults:", *_explained(config.describe(Config()))]))
    for title, prefix, package in (
        ("with corpus.kind={}:", "corpus.params.", "genre.corpora"),
        ("of the architecture {}:", "architectures.{}.", "genre.architectures"),
    ):
        for plugin in registry.names(package):
            try:
                settings = _explained(config.describe(registry.load(package, plugin).Params(), prefix.format(plugin)))
            except ConfigError as error:  # a broken plug-in of another package; the settings of the others are right
                settings = iter([printing.filled(str(error), "  ", "  ")])
            parts.append("\n".join([title.format(plugin), *settings]))
    return "\n\n".join([*parts, _prose(_options(job))])


def _options(job: jobs.Job) -> str:
    """Return the paragraph on the options of the command line."""
    printed = "a forecast" if job.forecast else "the configuration"
    price = ", with a price by --price-per-core-hour" if job.is_priced else ""
    return (
        f"Settings override those of --config FILE. --dry-run checks them and prints {printed}{price}; --verbose shows "
        "the traceback of an error; --help-all explains every setting."
    )


def _of_corpus(kind: str) -> str:
    rows = config.describe(registry.load("genre.corpora", kind).Params(), "corpus.params.")
    return "\n".join([f"with corpus.kind={kind}:", *_explained(rows)])


def _prose(text: str) -> str:
    """Return `text` with its paragraphs in the width of the terminal, but for those with an indented line."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(each if "\n " in f"\n{each}" else printing.filled(" ".join(each.split())) for each in paragraphs)


def _chosen(rows: list[Row], wanted: Iterable[str]) -> Iterator[Row]:
    """Yield the rows of the sections and keys in `wanted`, in this order."""
    for key in wanted:
        yield from (row for row in rows if row[0] == key or row[0].startswith(f"{key}."))


def _explained(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a line for each setting: the key, its default and its meaning, wrapped below itself."""
    indent = " " * _COLUMN
    for key, default, meaning in rows:
        label = f"  {key}={default}"
        first = label.ljust(_COLUMN - 2) + "  "
        yield printing.filled(meaning, first, indent)


def _listed(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a paragraph for each section: its keys with their defaults."""
    sections: dict[str, list[str]] = {}
    for key, default, _ in rows:
        section, dot, name = key.rpartition(".")
        sections.setdefault(section + dot, []).append(f"{name}={default}")
    for section, settings in sections.items():
        yield printing.filled("  ".join(settings), f"  {section:<14}" if section else "  ", " " * 16)
