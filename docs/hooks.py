"""MkDocs hooks: generate the pages that would otherwise repeat what the repository says elsewhere.

The first page is README.md, the project pages are the files in the root, and the reference is read from settings and
docstrings. Links are adapted: a link to a page leads to that page, a link to another file becomes its name.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from genre import architectures, config, corpora, registry
from genre.settings import Config, Settings
from ray_jobs.engine import jobs

ROOT = Path(__file__).resolve().parent.parent
# page of the site -> file in the root
ROOT_PAGES = {name: name for name in ("BENCHMARKS.md", "CHANGELOG.md", "CONTRIBUTING.md")} | {"index.md": "README.md"}
STABLE = ("load", "__call__", "tag", "tag_arrays", "classes")  # docs/USING_MODELS.md says so
PLUG_INS = ("genre.architectures", "genre.corpora", "genre.testing")

_LINK = re.compile(r"(!?\[)([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {page: (ROOT / file).read_text(encoding="utf-8") for page, file in ROOT_PAGES.items()}
    pages |= {
        "reference/jobs.md": jobs_page(),
        "reference/settings.md": settings_page(),
        "reference/python.md": python_page(),
        "reference/modules.md": modules_page(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adapt the links outside code blocks."""
    folder = posixpath.dirname(source_of(page.file.src_uri))

    def adapt(match: re.Match[str]) -> str:
        opening, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        known = page_of(posixpath.normpath(posixpath.join(folder, target)))
        if known is None or files.get_file_from_path(known) is None:
            return match[0] if (Path(config.docs_dir) / target).exists() else text
        return f"{opening}{text}]({posixpath.relpath(known, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(adapt, part) for part in parts)


def source_of(page: str) -> str:
    """Return the file in the repository from which a page of the site is made."""
    return ROOT_PAGES.get(page, f"docs/{page}")


def page_of(path: str) -> str | None:
    """Return the page or picture of the site for a file of the repository, or None where it has none."""
    for page, file in ROOT_PAGES.items():
        if path == file:
            return page
    return path.removeprefix("docs/") if path.startswith("docs/") else {"SECURITY.md": "SECURITY.md"}.get(path)


def jobs_page() -> str:
    """Return a section for each job: its docstring and the settings that it reads."""
    parts = ["# Jobs", "Each job is run as `genre JOB [--config FILE] [key=value ...]`. Generated from the source."]
    rows = list(config.describe(Config()))
    for name, job in jobs.JOBS.items():
        explained = [row for row in rows if any(row[0] == key or row[0].startswith(f"{key}.") for key in job.settings)]
        parts += [f"## {name}", jobs.purpose(name), table(explained)]
        if job.other_settings:
            parts.append(f"It also reads {', '.join(f'`{key}`' for key in job.other_settings)}.")
    return "\n\n".join(parts)


def settings_page() -> str:
    """Return every setting of all jobs, corpora and architectures."""
    parts = ["# Settings", "Every key, its default and its meaning. Generated from the schema."]
    sections: dict[str, list[tuple[str, str, str]]] = {}
    for row in config.describe(Config()):
        section, dot, _ = row[0].partition(".")
        sections.setdefault(section if dot else "General", []).append(row)
    for section, rows in sections.items():
        parts += [f"## {section}", *section_docstring(section), table(rows)]
    for kind in corpora_names():
        rows = list(config.describe(registry.load("genre.corpora", kind).Params(), "corpus.params."))
        parts += [f"## corpus.params with corpus.kind={kind}", table(rows) if rows else "No settings of its own."]
    for name in architectures.names():
        settings = registry.load("genre.architectures", name).Params()
        parts += [f"## architectures.{name}", table(list(config.describe(settings, f"architectures.{name}.")))]
    return "\n\n".join(parts)


def section_docstring(section: str) -> list[str]:
    """Return the docstring of the section's class, if it is a section."""
    schema = Config.model_fields[section].annotation if section in Config.model_fields else None
    return [schema.__doc__] if isinstance(schema, type) and issubclass(schema, Settings) and schema.__doc__ else []


def corpora_names() -> Iterable[str]:
    return registry.names(corpora.__name__)


def python_page() -> str:
    """Return directives that mkdocstrings replaces with signatures and docstrings."""
    tagger = f"::: genre.Tagger\n    options:\n      members: [{', '.join(STABLE)}]"
    parts = ["# Python", "## Tagging", tagger, "::: genre.Tags", "::: genre.Moment"]
    parts += ["## Errors", "::: genre.errors"]
    parts += ["## Interfaces of plug-ins", *(f"::: {name}" for name in PLUG_INS)]
    return "\n\n".join(parts)


def modules_page() -> str:
    """Return every package with its docstring, and every module with the first line of its docstring."""
    parts = [
        "# Modules",
        "One line for each module, from its docstring. [Architecture](../ARCHITECTURE.md) explains the structure.",
    ]
    for package in ("genre", "ray_jobs"):
        for folder in [ROOT / package, *sorted(path.parent for path in (ROOT / package).rglob("*/__init__.py"))]:
            name = folder.relative_to(ROOT).as_posix()
            modules = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
            parts += [f"## {name}/", docstring(folder / "__init__.py")]
            if modules:
                rows = "\n".join(f"| `{path.name}` | {cell(first_line(path))} |" for path in modules)
                parts.append(f"| module | |\n|---|---|\n{rows}")
    return "\n\n".join(parts)


def table(rows: list[tuple[str, str, str]]) -> str:
    lines = (f"| `{key}` | {f'`{value}`' if value else ''} | {cell(meaning)} |" for key, value, meaning in rows)
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *lines])


def cell(text: str) -> str:
    return re.sub(r"([|<>*_])", r"\\\1", text)


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def first_line(path: Path) -> str:
    return " ".join(docstring(path).split("\n\n")[0].split())
