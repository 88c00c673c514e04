"""A test runs every command that the documents tell a reader to type, or an entry says why none can."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY
from documents import DRAWINGS, ENTRIES, PAGES, Covered, NotRun, Scenario, commands, entries_of, files, snippets

from genre import config
from genre.settings import Config

COMMANDS = commands()


def test_every_command_has_one_entry() -> None:
    wrong = [command for command in COMMANDS if len(entries_of(command, ENTRIES)) != 1]
    assert not wrong, "each needs one entry in tests/documents.py: " + "; ".join(map(str, wrong))


def test_every_entry_has_a_command() -> None:
    unused = [entry for entry in ENTRIES if not any(entry in entries_of(command, ENTRIES) for command in COMMANDS)]
    assert not unused, f"no command matches {unused}"


def test_the_covering_file_has_the_text_of_its_entry() -> None:
    for command in COMMANDS:
        for entry in entries_of(command, ENTRIES):
            if isinstance(entry, Covered):
                match = re.fullmatch(entry.pattern, command.normal)
                assert match
                text = match.expand(entry.text)
                assert text in (REPOSITORY / entry.file).read_text(encoding="utf-8"), f"{entry.file} lacks {text!r}"


def test_every_scenario_is_run() -> None:
    source = (REPOSITORY / "tests/ray/test_documented.py").read_text(encoding="utf-8")
    assert all(f'lines("{entry.name}")' in source for entry in ENTRIES if isinstance(entry, Scenario))


def test_every_drawing_exists() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert all(re.search(rf"^ *{re.escape(drawing)}", pages, re.MULTILINE) for drawing in DRAWINGS)


def test_a_new_command_has_no_entry(tmp_path: Path) -> None:
    page = tmp_path / "NEW.md"
    page.write_text(
        "Do this, or `make trouble`:\n\n    genre sing \\\n      song.mp3  # loud\n\n```\nrm -rf 'a\nb'\n```\n\n"
        "```python\nsing()\n```\n"
    )
    new = commands([page])
    assert [command.normal for command in new] == ["make trouble", "genre sing song.mp3", "rm -rf 'a b'"]
    assert not any(entries_of(command, ENTRIES) for command in new)


def test_a_block_with_a_title_is_a_file(tmp_path: Path) -> None:
    page = tmp_path / "NEW.md"
    page.write_text(
        '```python title="a.py"\nx = 1\n```\n\n```python\nx = 2\n```\n\n```yaml title="b.yaml"\ny: 3\n```\n'
    )
    assert [(block.file, block.text) for block in files(str(page))] == [("a.py", "x = 1"), ("b.yaml", "y: 3")]
    assert [block.text for block in snippets([page])] == ["x = 2"]


@pytest.mark.parametrize("page", [page for page in PAGES if files(str(page))], ids=lambda page: page.name)
def test_a_test_writes_the_files_of_a_page(page: Path) -> None:
    call = f'files("{page.relative_to(REPOSITORY)}")'
    assert any(call in test.read_text(encoding="utf-8") for test in (REPOSITORY / "tests").rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_named_file_exists(page: Path) -> None:
    named = re.findall(r"`((?:genre|ray_jobs|tests|benchmarks|configs|examples|docs|\.ci)/[\w./-]*)`", text_of(page))
    assert not [path for path in named if not (REPOSITORY / path).exists()]


def test_every_benchmark_is_described() -> None:
    text = text_of(REPOSITORY / "benchmarks/README.md")
    names = [path.name for path in (REPOSITORY / "benchmarks").glob("*.py")]
    assert not [name for name in names if f"`{name}" not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", text_of(page))
    assert not [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_named_setting_exists(page: Path) -> None:
    keys = {key for key, _, _ in config.describe(Config())}
    sections = "|".join({key.partition(".")[0] for key in keys if "." in key})
    named = re.findall(rf"(?<![\w./])((?:{sections})\.(?!csv|html|json|md|py|yaml)[a-z_]\w*)(?=[`= ])", text_of(page))
    known = keys | {key for key in named if key.startswith("corpus.params")}
    if page.name == "DECISIONS.md":
        known |= {"tag.precision", "train.precision", "train.device"}  # which were renamed
    assert not [key for key in named if key not in known]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_what_cannot_be_run_says_why() -> None:
    assert all(entry.reason for entry in ENTRIES if isinstance(entry, NotRun))


def test_the_readme_fits_two_screens() -> None:
    lines = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 110, "move details to docs/"
