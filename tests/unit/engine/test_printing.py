"""Lines of messages: whole in a file or a pipe, broken between words on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.engine import cli, printing

WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=50)


@given(words=st.lists(WORDS, min_size=1, max_size=40), indent=st.integers(0, 4), columns=st.integers(40, 120))
def test_a_line_is_broken_between_words_only(words: list[str], indent: int, columns: int) -> None:
    text = " " * indent + " ".join(words)
    lines = printing.wrapped(text, columns).split("\n")
    assert " ".join(lines).split() == words
    assert all(len(line) <= columns or len(line.split()) == 1 for line in lines)
    assert all(line.startswith(" " * (indent + 2)) for line in lines[1:])
    assert lines[0].startswith(" " * indent + words[0])
    assert lines == [text] or len(text) > columns


@pytest.mark.parametrize("colours", ["", "1"])
def test_a_message_is_one_line_where_it_is_not_read_on_a_terminal(
    colours: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", colours)
    message = "word " * 60 + "[bold] :cd:"
    cli.console().print(message)
    assert capsys.readouterr().err == message + "\n"


def test_a_reader_that_closes_the_pipe_does_not_end_the_job() -> None:
    code = (
        "from ray_jobs.engine import cli\n"
        "for number in range(20_000): cli.console().print('message', number)\n"
        "print('finished')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY, text=True
    )
    assert process.stdout
    assert process.stderr
    assert process.stderr.readline() == "message 0\n"
    process.stderr.close()
    assert process.stdout.read() == "finished\n"
    assert process.wait() == 0


def test_an_error_fits_a_terminal_and_its_paths_stay_whole() -> None:
    path = "/" + "/".join(["a_long_folder"] * 8)
    command = [sys.executable, "-m", "ray_jobs.engine.command", "train", f"--config={path}/config.yaml"]
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    done = subprocess.run(
        command, stderr=child, cwd=REPOSITORY, env=environment | {"TERM": "xterm"}, timeout=60, check=False
    )
    os.close(child)
    shown = os.read(parent, 10_000).decode().splitlines()
    os.close(parent)
    assert done.returncode == 2
    assert any(f"{path}/config.yaml" in line for line in shown)
    assert all(len(line) <= 80 or len(line.split()) == 1 for line in shown)
