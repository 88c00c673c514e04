"""The one grammar of all jobs: `genre <job> --config FILE key=value ...`, or `python -m ray_jobs.<job> ...`."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from genre import architectures, config, registry
from genre.errors import ArtifactError, ConfigError, GenreError
from genre.settings import Config
from ray_jobs.engine import help_pages, jobs

OK, FAILED, WRONG_USE = 0, 1, 2
_OURS = ("", "genre", "ray_jobs")


def main(name: str, arguments: Sequence[str] | None = None, program: str = "") -> int:
    """Parse the arguments, run the job of this name and report its error, if any, in one line.

    `program` is how the command was called. Return the exit code: 0 success, 1 the job failed, 2 the command or the
    configuration is wrong. The job's module is imported only after its settings were checked.
    """
    program = program or f"python -m ray_jobs.{name}"
    try:
        options = _parser(program).parse_intermixed_args(arguments)
    except ConfigError as error:
        return _explain(error, program)
    if options.help or options.help_all:
        print((help_pages.every_setting if options.help_all else help_pages.page)(name, program))
        return OK
    return reported(lambda: _run(name, options), program, options.verbose)


def reported(action: Callable[[], None], program: str, verbose: bool = False) -> int:
    """Do `action`; print what it raises as one line on standard error. Return the exit code."""
    try:
        action()
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return FAILED
    except Exception as error:
        if verbose:
            traceback.print_exc()
        return _explain(error, program)
    return OK


def check_plugins(settings: Config, corpus: bool = True, networks: bool = True) -> Config:
    """Fill in and check the settings of the chosen corpus and, unless told otherwise, of the architectures.

    Without `corpus` a corpus that needs what a light install lacks is left as it is.
    """
    for name, values in settings.architectures.items() if networks else ():
        architectures.params(name, values)
    try:
        plugin = registry.load("genre.corpora", settings.corpus.kind)
    except ModuleNotFoundError:
        if corpus:
            raise
        return settings
    params = config.validate(plugin.Params, settings.corpus.params, "corpus.params.")
    filled = settings.corpus.model_copy(update={"params": params.model_dump(mode="json")})
    return settings.model_copy(update={"corpus": filled})


def command_line() -> str:
    """Return the command that runs in this process, as a person would type it."""
    module = sys.modules["__main__"].__spec__
    if module is None or module.name == "ray_jobs.engine.command":
        program = ["genre"] if module else [Path(sys.argv[0]).name]
    else:
        program = ["python", "-m", module.name]
    return shlex.join([*program, *sys.argv[1:]])


def console() -> Console:
    """Where jobs talk to people: standard error, so that output can be piped; plain text when it is no terminal."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; `{self.prog} --help` shows the grammar")


def _parser(program: str) -> _Parser:
    parser = _Parser(prog=program, add_help=False, allow_abbrev=False)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--config")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--help-all", action="store_true")
    return parser


def _run(name: str, options: argparse.Namespace) -> None:
    job = jobs.JOBS[name]
    settings = config.load(options.config or job.shipped, _spelled_out(options.settings, job.bare))
    # architectures import torch, which jobs that build no network need not wait for; corpora scipy, which they may lack
    settings = check_plugins(settings, corpus="corpus" in (*job.settings, *job.also), networks=job.builds)
    if options.dry_run:
        print(config.to_yaml(settings), end="", flush=True)
        if job.forecasts:
            _forecast(name, settings)
        return
    jobs.load(name)(settings)


def _forecast(name: str, settings: Config) -> None:
    """Say what the job would do and how long it would take, or why that cannot be said yet."""
    try:
        jobs.load(name, "forecast")(settings)
    except ArtifactError as error:
        console().print(f"no forecast yet: {error}")


def _spelled_out(arguments: list[str], bare: str) -> list[str]:
    """Return `inputs=song.mp3` for `song.mp3`: an argument that does not begin with `key=` gives the `bare` setting."""
    if not bare:
        return arguments
    plain = [text for text in arguments if not re.match(r"[\w.]+=", text)]
    if len(plain) > 1:
        raise ConfigError(f"{bare}: found {len(plain)} values, {' and '.join(plain)}; name one file or one folder")
    return [f"{bare}={text}" if text in plain else text for text in arguments]


def _explain(error: BaseException, program: str) -> int:
    root = error
    # Ray wraps what a worker raised, sometimes twice, and keeps it as the cause
    while (inner := getattr(root, "cause", None) or root.__cause__) and not isinstance(root, GenreError):
        root = inner
    if isinstance(root, GenreError):
        print(f"error: {root}", file=sys.stderr)
        return WRONG_USE if isinstance(root, ConfigError) else FAILED
    if isinstance(root, ModuleNotFoundError) and (missing := (root.name or "").partition(".")[0]) not in _OURS:
        job = jobs.JOBS.get(re.split(r"[ .]", program)[-1])
        remedy = f"pip install 'genre[{job.extra if job else 'train'}]'"
        print(f"error: `{program}` needs {missing}, which is not installed; {remedy}", file=sys.stderr)
        return WRONG_USE
    text = " ".join(str(root).split())[:400] or "no message"
    print(f"error: {type(root).__name__}: {text}; run again with --verbose for the traceback", file=sys.stderr)
    return FAILED
