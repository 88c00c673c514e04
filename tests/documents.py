"""List every command that the documents tell a reader to type, and the test that runs it.

`commands()` reads the pages. `ENTRIES` has an entry for each command; a command without an entry fails
tests/contract/test_documents.py. docs/LOG.md and docs/RECORDS.md record what was run at the time and are left out.

A fenced block with a title, such as ```` ```python title="genre/architectures/mlp.py" ````, is a file that the reader
writes. `files()` returns these blocks, and the tests that run the page's commands write them first.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import REPOSITORY

ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "BENCHMARKS.md", "SECURITY.md")
RECORDS = ("LOG.md", "RECORDS.md")
PAGES = [
    *(REPOSITORY / name for name in ROOT_PAGES),
    *sorted(page for page in (REPOSITORY / "docs").glob("*.md") if page.name not in RECORDS),
]
SHELL = ("", "sh", "bash", "console")
# a code span in a sentence is a command if it starts with one of these and has an argument
COMMANDS = (
    "apt-get", "aws", "docker", "export", "genre", "git", "kubectl", "make", "pip", "python", "ray", "source", "uv",
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """Text of a page that a reader types or writes to a file."""

    page: str
    number: int  # of the line where its block starts
    text: str
    file: str = ""  # the file that it is the content of

    @property
    def normal(self) -> str:
        """Return the text with single spaces, and `genre JOB` for both ways of calling a job."""
        return re.sub(r"python -m ray_jobs\.", "genre ", " ".join(self.text.split()))


@dataclass(frozen=True)
class Scenario:
    """Commands that tests/ray/test_documented.py runs in the order of the pages."""

    name: str
    pattern: str  # of all of `Block.normal`


@dataclass(frozen=True)
class Covered:
    """Commands that another test or `.ci/run` runs, which is the case if `file` contains `text`."""

    pattern: str
    file: str
    text: str


@dataclass(frozen=True)
class NotRun:
    """Commands that no test can run, and the reason."""

    pattern: str
    reason: str


Entry = Scenario | Covered | NotRun

# first words of the blocks without a language that are drawings or formulas, not commands
DRAWINGS = ("OUTPUT/features/", "level in dB =", "q = round(")

SUBMIT = "ray job submit --working-dir . --runtime-env configs/runtime_env.yaml -- "
RAY_UP = "tests/cluster/test_ray_up.py"
ENTRIES: list[Entry] = [
    Scenario(
        "tutorial",
        r"genre (?!review)(?!.*corpus\.corrections=)\w+ .*(tutorial|(labelled|unsorted) |unsorted/|inputs=music).*",
    ),
    Scenario("an architecture", r"(python -m pytest|genre) .*\bmlp\b.*"),
    Scenario("a corpus", r"(python -m pytest|genre) .*\bflat\b.*"),
    Scenario("library", r"genre (prepare corpus.kind=tags corpus.root=~/Music( --dry-run)?|tune|tag ~/Music)"),
    Scenario(
        "my music", r"genre \w+ --config configs/my_music.yaml( corpus.root=/music/labelled| inputs=/music/unsorted.*)?"
    ),
    Scenario("gtzan", r"genre \w+ --config configs/gtzan(_random)?.yaml.*"),
    Scenario("fma", r"genre \w+ --config configs/fma_small.yaml( corpus.root=/data/fma)?"),
    Scenario(
        "models",
        r"genre (?!review)\w+ (?!--config)"
        r"(?!.*(outputs/corrected|my_run|tutorial|music/|genre=jazz|mlp|flat|corpus.kind=|undo=)).*(outputs/|\.onnx).*",
    ),
    Scenario("fine-tuning", r"genre \w+ --config configs/my_music.yaml .*output=outputs/other.*"),
    Scenario("own features", r".*\bmy_run\b.*"),
    Scenario("cluster", rf"{re.escape(SUBMIT)}genre \w+ .*s3://BUCKET.*"),
    Scenario("cluster", r"export RAY_AUTH_MODE=\S+ RAY_API_SERVER_ADDRESS=\S+"),
    Scenario(
        "cluster",
        r"ray (job (list|logs ID --follow|stop ID)|status|memory --stats-only|list actors --filter state=ALIVE)",
    ),
    Scenario("token", r"\(umask 077 && ray get-auth-token --generate > /dev/null\)|ray get-auth-token --generate"),
    Scenario("scaling", r"python benchmarks/scaling.py (workers|work|rows)\b.*"),
    Scenario("long lists", r"python benchmarks/(prepare_scaling.py --rows \d+|tag_lists.py)"),
    Scenario("commands", r"source .venv/bin/activate|make help"),
    Covered(r"make (install|test|test-slow|test-plain|cluster-smoke|docs)", ".ci/run", r"make \1"),
    Covered(r"make demo", "tests/ray/test_demo.py", '"ray_jobs.engine.command", "demo"'),  # on less music
    Covered(
        r"genre prepare corpus.kind=(parquet|webdataset) .*",
        "tests/contract/test_corpora_contract.py",
        r'"\1": small_\1',
    ),
    Covered(
        r"genre prepare --config (discogs.yaml) .*|genre prepare corpus.kind=table .*/(mtg-jamendo/tracks.csv) .*"
        r"|python (jamendo_table.py)|genre prepare corpus.kind=table corpus.root=(labels.csv) .*",
        "tests/unit/corpora/test_corpora_page.py",
        r"\1\2\3\4",
    ),
    Covered(r"find ~/Music .*-print0 \| genre tag - .*", "tests/ray/test_tag.py", '"find", music'),
    Covered(r"genre tag undo=\S+", "tests/ray/test_tag_writing.py", "undo={out / 'tags/written.csv'}"),
    Covered(r"genre evaluate evaluate.folds=5", "tests/ray/test_cross_validation.py", '"evaluate.folds=2"'),
    Covered(r"genre playlist genre=jazz .*", "tests/ray/test_embed.py", "genre=jazz"),
    Covered(
        r"genre review (--config tutorial.yaml|output=outputs/mine)",
        "tests/unit/pages/test_review_service.py",
        '"review"',
    ),
    Covered(
        r"genre (prepare|train) .*output=outputs/corrected.*", "tests/browser/test_review_page.py", "init_from={output"
    ),
    Covered(
        r"genre prepare --config \S+ .*corpus.corrections=\S+", "tests/ray/test_prepare.py", 'update={"corrections"'
    ),
    Covered(r"genre pretrain .*output=outputs/mine .*", "tests/ray/test_pretrain.py", 'job("pretrain"'),
    Covered(
        r"genre train .*init_from=outputs/mine/pretrained/resnet", "tests/ray/test_pretrain.py", "init_from={body}"
    ),
    Covered(
        r"genre train .*output=outputs/mine architecture=resnet( teacher=outputs/mine/models/resnet)?",
        "tests/ray/test_self_training.py",
        'f"teacher={teacher}"',
    ),
    Covered(r"genre evaluate .*output=outputs/mine", "tests/ray/test_self_training.py", 'job("evaluate", home)'),
    Covered(r"genre demo", "tests/ray/test_demo.py", '"demo"'),
    Covered(r"make test-all", "Makefile", "test-all: test test-slow"),
    Covered(r"make check", "Makefile", "test: check"),
    Covered(r"python -m pytest tests/parity/test_spectrogram.py", ".ci/run", "make test"),
    Covered(
        r"apt-get install openssh-server iproute2 rsync", ".ci/run", "openssh-server openssh-client iproute2 rsync"
    ),
    Covered(
        r"python benchmarks/chaos.py FOLDER --(rounds 60|soak 30)", "tests/ray/test_chaos.py", "benchmarks/chaos.py"
    ),
    Covered(r"python tests/cluster/hosts.py /tmp/hosts", RAY_UP, "hosts.py"),
    Covered(r"ray up( cluster.yaml| configs/cluster/onprem.yaml)?", RAY_UP, "ray up --yes"),
    Covered(r"ray down( cluster.yaml)?", RAY_UP, "ray down --yes"),
    Covered(r"ray dashboard cluster.yaml( &)?", RAY_UP, "ray dashboard"),
    Covered(r"ray (exec|attach) cluster.yaml.*", RAY_UP, r"ray \1"),
    Covered(r"ray job submit", RAY_UP, "ray job submit"),
    Covered(r"pip install (genre|\.|'\.\[\w+\]')", "tests/contract/test_packaging.py", "requirements-light.lock"),
    Covered(
        r"pip install ./examples/beets_genremodel", "tests/install/test_beets_plugin.py", "examples/beets_genremodel"
    ),
    NotRun(r"genre (<job>|JOB)( .*)?", "the form of all jobs, whose examples are run"),
    NotRun(r"genre fetch( \w+)?", "asks servers of others for gigabytes; tests/unit/fetching has a server of its own"),
    NotRun(
        r"python benchmarks/(front_end.py --rounds 7|search_makespan.py outputs/demo .*)",
        "ratios, which need an idle machine",
    ),
    NotRun(r"python benchmarks/ranks.py", "a minute of simulation; tests/unit/evaluation/test_bootstrap.py has others"),
    NotRun(r"make same( REF=\S+)?", "compares two commits for minutes; whoever changes the code runs it"),
    NotRun(r"aws .*|for role in .*|done", "AWS; docs/CLUSTER.md says that these lines were not run"),
    NotRun(r"gcloud .*", "Google Cloud, with an account"),
    NotRun(
        rf"({re.escape(SUBMIT)})?genre (prepare|tune|tag) .*s3://ARCHIVE/.*",
        "an archive of the reader; docs/CLUSTER.md has commands of this form, which are run",
    ),
    NotRun(r"export AWS_\w+=.*", "a server and keys of the reader; tests/conftest.py sets these variables"),
    NotRun(r"docker (build -f configs/cluster/.*|push .*)", "needs docker and a registry; see test_dockerfiles.py"),
    NotRun(
        r"docker (build -t genre(-light --build-arg LOCK=\S+)? \.|run .*genre-light tag /music .*)",
        "needs docker; see test_dockerfiles.py",
    ),
    NotRun(r"source .venv/bin/activate && pip install boto3", "for AWS alone"),
    NotRun(r"python3 -m venv .venv && source .venv/bin/activate", "tests/install makes environments of its own"),
    NotRun(r"ray start", "a name in a sentence; the cluster files have the command"),
    NotRun(r"kubectl apply", "Kubernetes; tests/contract/test_cluster_files.py checks the manifests"),
]


def commands(pages: Iterable[Path] = PAGES) -> list[Block]:
    """Return every line of the shell blocks, continued lines joined, and every command within a sentence."""
    return [command for page in pages for command in _commands(page.name, page.read_text(encoding="utf-8"))]


def snippets(pages: Iterable[Path] = PAGES) -> list[Block]:
    """Return every block of Python that is not the content of a file."""
    return [block for block in _fenced(pages, "python") if not block.file]


def files(page: str) -> list[Block]:
    """Return the blocks of a page, named relative to the repository, that are the content of a file."""
    return [block for block in _fenced([REPOSITORY / page], "python", "yaml") if block.file]


def entries_of(command: Block, entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that the command matches; there should be one."""
    return [entry for entry in entries if re.fullmatch(entry.pattern, command.normal, re.DOTALL)]


def _fenced(pages: Iterable[Path], *languages: str) -> Iterator[Block]:
    for page in pages:
        for number, info, lines in _blocks(page.read_text(encoding="utf-8")):
            language, _, options = info.partition(" ")
            if language in languages:
                title = re.search(r'title="([^"]+)"', options)
                yield Block(page.name, number, "\n".join(lines), title[1] if title else "")


def _commands(page: str, text: str) -> Iterator[Block]:
    for number, info, lines in _blocks(text):
        language = info.partition(" ")[0]
        if language == "" and lines[0].strip().startswith(DRAWINGS):
            continue
        if language in SHELL:
            yield from (Block(page, number, line) for line in _logical(lines))
        elif language == "text":
            yield from (Block(page, number, line) for line in _spans(" ".join(lines)))
        elif language not in ("python", "yaml", "toml"):
            raise ValueError(f"{page}:{number}: a block of {language}; say in tests/documents.py which test runs it")


def _blocks(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line number, info string, lines) of fenced and indented blocks, and of paragraphs as `text`."""
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
    """Yield the lines without comments, joined where they end in a backslash or within quotes."""
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


def _spans(paragraph: str) -> Iterator[str]:
    for code in re.findall(r"`([^`]+)`", paragraph):
        word, _, arguments = code.partition(" ")
        if word in COMMANDS and arguments.strip():
            yield " ".join(code.split())
