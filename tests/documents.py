"""What README.md and docs/ tell a person to type, and who runs it: one list, with an entry for every line.

`typed()` reads the pages. `ENTRIES` says for each line which test runs it as it stands there; a line without an
entry fails tests/contract/test_documents.py. docs/LOG.md is a record of what was run and is left out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted(set((REPOSITORY / "docs").glob("*.md")) - {REPOSITORY / "docs/LOG.md"})]
SHELL = ("", "sh", "bash", "console")
# what makes a command of `code` within a sentence, where it has an argument
COMMANDS = (
    "apt-get", "aws", "docker", "export", "genre", "git", "kubectl", "make", "pip", "python", "ray", "source", "uv",
)  # fmt: skip


@dataclass(frozen=True)
class Typed:
    """A line that a person types, continued lines joined, without its comment."""

    page: str
    number: int
    text: str

    @property
    def normal(self) -> str:
        """The line with single spaces, and `genre JOB` for both ways of calling a job."""
        return re.sub(r"python -m ray_jobs\.", "genre ", " ".join(self.text.split()))


@dataclass(frozen=True)
class Story:
    """Lines that tests/ray/test_documented.py runs, in the order of the pages."""

    name: str
    lines: str  # a pattern for all of `Typed.normal`


@dataclass(frozen=True)
class Elsewhere:
    """Lines that another test or `.ci/run` runs: `file` holds `words`."""

    lines: str
    file: str
    words: str


@dataclass(frozen=True)
class NotRun:
    """Lines that no test can run, and why."""

    lines: str
    why: str


Entry = Story | Elsewhere | NotRun

# first words of the blocks that nobody types: drawings, folders, formulas
DRAWINGS = ("corpus ──►", "OUTPUT/features/", "level in dB =", "q = round(")

SUBMIT = "ray job submit --working-dir . --runtime-env configs/runtime_env.yaml -- "
RAY_UP = "tests/cluster/test_ray_up.py"
ENTRIES: list[Entry] = [
    Story("my music", r"genre \w+ --config configs/my_music.yaml (corpus.root=/music/labelled|inputs=/music/unsorted)"),
    Story("gtzan", r"genre \w+ --config configs/gtzan(_random)?.yaml.*"),
    Story("fma", r"genre \w+ --config configs/fma_small.yaml corpus.root=/data/fma"),
    Story("models", r"genre \w+ (?!--config)(?!.*my_run).*(outputs/|\.onnx).*"),
    Story("fine-tuning", r"genre \w+ --config configs/my_music.yaml .*output=outputs/other.*"),
    Story("own features", r".*\bmy_run\b.*"),
    Story("cluster", rf"{re.escape(SUBMIT)}genre \w+ .*s3://BUCKET.*"),
    Story("cluster", r"export RAY_AUTH_MODE=\S+ RAY_API_SERVER_ADDRESS=\S+"),
    Story("cluster", r"ray (job (list|logs ID --follow|stop ID)|status|memory --stats-only)"),
    Story("token", r"\(umask 077 && ray get-auth-token --generate > /dev/null\)|ray get-auth-token --generate"),
    Story("scaling", r"python benchmarks/scaling.py (workers|work|rows)\b.*"),
    Story("commands", r"source .venv/bin/activate|make help"),
    Elsewhere(r"make (install|demo|test|test-slow|test-plain|cluster-smoke)", ".ci/run", r"make \1"),
    Elsewhere(r"make test-all", "Makefile", "test-all: test test-slow"),
    Elsewhere(
        r"apt-get install openssh-server iproute2 rsync", ".ci/run", "openssh-server openssh-client iproute2 rsync"
    ),
    Elsewhere(r"python benchmarks/chaos.py FOLDER --kills 30", "tests/ray/test_chaos.py", "benchmarks/chaos.py"),
    Elsewhere(r"python tests/cluster/hosts.py /tmp/hosts", RAY_UP, "hosts.py"),
    Elsewhere(r"ray up( cluster.yaml| configs/cluster/onprem.yaml)?", RAY_UP, "ray up --yes"),
    Elsewhere(r"ray down( cluster.yaml)?", RAY_UP, "ray down --yes"),
    Elsewhere(r"ray dashboard cluster.yaml( &)?", RAY_UP, "ray dashboard"),
    Elsewhere(r"ray (exec|attach) cluster.yaml.*", RAY_UP, r"ray \1"),
    Elsewhere(r"ray job submit", RAY_UP, "ray job submit"),
    Elsewhere(r"pip install 'genre\[(\w+)\]'", "pyproject.toml", r"\n\1 = ["),
    Elsewhere(r"pip install (genre|\.|'\.\[\w+\]')", "tests/contract/test_packaging.py", "requirements-light.lock"),
    NotRun(r"genre (<job>|JOB)( .*)?", "the form of all jobs, whose examples are run"),
    NotRun(r"aws .*", "AWS; docs/CLUSTER.md says that these lines were not run"),
    NotRun(r"source .venv/bin/activate && pip install boto3", "for AWS alone"),
    NotRun(r"kubectl apply", "Kubernetes; tests/contract/test_cluster_files.py checks the manifests"),
]


def typed(pages: Iterable[Path] = PAGES) -> list[Typed]:
    """Every line of a shell block, and every command with an argument within a sentence."""
    return [line for page in pages for line in _typed(page.name, page.read_text(encoding="utf-8"))]


def snippets(pages: Iterable[Path] = PAGES) -> list[Typed]:
    """Every block of Python."""
    return [
        Typed(page.name, number, "\n".join(lines))
        for page in pages
        for number, language, lines in _blocks(page.read_text(encoding="utf-8"))
        if language == "python"
    ]


def entries_of(line: Typed, entries: Iterable[Entry]) -> list[Entry]:
    """The entries that the line belongs to; it should be one."""
    return [entry for entry in entries if re.fullmatch(entry.lines, line.normal, re.DOTALL)]


def _typed(page: str, text: str) -> Iterator[Typed]:
    for number, language, lines in _blocks(text):
        if lines[0].strip().startswith(DRAWINGS):
            continue
        if language in SHELL:
            yield from (Typed(page, number, line) for line in _logical(lines))
        elif language == "text":
            yield from (Typed(page, number, line) for line in _within(" ".join(lines)))
        elif language != "python":
            raise ValueError(f"{page}:{number}: a block of {language}; say in tests/documents.py who runs it")


def _blocks(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """(line number, language, lines) of fenced and indented blocks, and of paragraphs, whose language is text."""
    block: list[str] = []
    kind, fenced = "text", False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fence = line.startswith("```")
        indented = line.startswith("    ") and (kind == "" or not block)
        if fence or (not fenced and (not line.strip() or (kind == "") != indented)):
            if block:
                yield number - len(block), kind, block
            block, kind = [], "" if indented else "text"
            if fence:
                fenced = not fenced
                kind = line.removeprefix("```").strip() if fenced else "text"
                continue
        if line.strip() or fenced:
            block.append(line)


def _logical(lines: list[str]) -> Iterator[str]:
    """Lines joined where they end in a backslash or within quotes, without comments."""
    text = ""
    for line in lines:
        text += line.strip() if not text else line
        if text.endswith("\\"):
            text = text[:-1]
        elif _closed(text):
            yield re.sub(r"\s+(#.*)?$", "", text)
            text = ""
        else:
            text += "\n"
    if text:
        yield text


def _closed(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return True


def _within(paragraph: str) -> Iterator[str]:
    for code in re.findall(r"`([^`]+)`", paragraph):
        word, _, arguments = code.partition(" ")
        if word in COMMANDS and arguments.strip():
            yield " ".join(code.split())
