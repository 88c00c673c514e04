"""Every line that the documents tell a person to type is run by a test, or it is said why none can."""

from __future__ import annotations

import re

from conftest import REPOSITORY
from documents import DRAWINGS, ENTRIES, PAGES, Elsewhere, NotRun, Story, entries_of, typed

LINES = typed()


def test_every_line_has_one_entry():
    wrong = [line for line in LINES if len(entries_of(line, ENTRIES)) != 1]
    assert not wrong, "each needs one entry in tests/documents.py: " + "; ".join(map(str, wrong))


def test_every_entry_has_a_line():
    idle = [entry for entry in ENTRIES if not any(entry in entries_of(line, ENTRIES) for line in LINES)]
    assert not idle, f"no line is like {idle}"


def test_what_is_run_elsewhere_is_there():
    for line in LINES:
        for entry in entries_of(line, ENTRIES):
            if isinstance(entry, Elsewhere):
                words = re.fullmatch(entry.lines, line.normal).expand(entry.words)
                assert words in (REPOSITORY / entry.file).read_text(encoding="utf-8"), f"{entry.file} lacks {words!r}"


def test_every_story_is_told():
    source = (REPOSITORY / "tests/ray/test_documented.py").read_text(encoding="utf-8")
    assert all(f'lines("{entry.name}")' in source for entry in ENTRIES if isinstance(entry, Story))


def test_every_drawing_is_there():
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert all(re.search(rf"^ *{re.escape(drawing)}", pages, re.MULTILINE) for drawing in DRAWINGS)


def test_a_new_line_fails_the_list(tmp_path):
    page = tmp_path / "NEW.md"
    page.write_text(
        "Do this, or `make trouble`:\n\n    genre sing \\\n      song.mp3  # loud\n\n```\nrm -rf 'a\nb'\n```\n\n"
        "```python\nsing()\n```\n"
    )
    lines = typed([page])
    assert [line.normal for line in lines] == ["make trouble", "genre sing song.mp3", "rm -rf 'a b'"]
    assert not any(entries_of(line, ENTRIES) for line in lines)


def test_what_cannot_be_run_says_why():
    assert all(entry.why for entry in ENTRIES if isinstance(entry, NotRun))
