"""Fill the templates of HTML pages and Markdown files, with every text from outside escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def html_page(name: str, content: Mapping[str, Any], folder: Path = TEMPLATES) -> str:
    """Return the page of the template NAME.html in `folder`, which extends base.html.

    Its styles are base.css and NAME.css. NAME.js is the only script that may run in it (by its hash in the page's
    content security policy), and the page loads nothing from elsewhere.
    """
    script = (folder / f"{name}.js").read_text("utf-8")
    styles = (TEMPLATES / "base.css", folder / f"{name}.css")
    assets = {
        "style": Markup("\n".join(path.read_text("utf-8") for path in styles)),
        "script": Markup(script),
        "script_hash": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return _environment(folder).get_template(f"{name}.html").render(dict(content) | assets)


def markdown_text(name: str, content: Mapping[str, Any]) -> str:
    """Return the text of the template NAME.md, in which `table` and `code` make tables and code blocks."""
    environment = _environment(TEMPLATES)
    environment.finalize = _escaped
    environment.globals |= {"table": _table, "code": _code}
    text = environment.get_template(f"{name}.md").render(content)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(folder: Path) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _escaped(value: Any) -> Any:
    """Return text on one line, with every character escaped that could start a tag, a link, emphasis or a cell."""
    if isinstance(value, Markup | jinja2.Undefined):
        return value
    line = " ".join(str(value).split()).replace("&", "&amp;")
    line = re.sub("<(?! )", "&lt;", line)  # before a space it starts no tag or link
    return Markup(re.sub(r"([\\`*|\[\]])", r"\\\1", line))


def _table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> Markup:
    """Return a pipe table whose columns are aligned in the source too."""
    cells = [[_escaped(cell) for cell in line] for line in (headings, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return Markup(
        "\n".join(
            f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in cells
        )
    )


def _code(lines: Iterable[str]) -> Markup:
    """Return an indented block, in which no character has a meaning."""
    return Markup("\n".join(f"    {line}" for text in lines for line in text.splitlines()))
