"""The command line of all jobs: `genre <job> --config FILE key=value ...`, or `python -m ray_jobs.<job> ...`."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import math
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from genre import architectures, config, registry
from genre.credentials import without_credentials
from genre.errors import ConfigError, GenreError, install
from genre.settings import Config
from ray_jobs.engine import help_pages, jobs, printing
from ray_jobs.engine.interrupts import interruptible

OK, FAILED, WRONG_USE = 0, 1, 2
_SETTING = re.compile(r"[\w.]+=")  # how an argument with a key begins
_OWN_PACKAGES = ("", "genre", "ray_jobs")
_STORES = ("AWS Error", "google::cloud::Status", "Azure Error")  # in the message of an error that one answered


def main(name: str, arguments: Sequence[str] | None = None, program: str = "") -> int:
    """Parse the arguments and run the job `name`. Report its error, if any, in one line on standard error.

    `program` is the name of the command in messages. Return the exit code: 0 for success, 1 if the job failed, 2 if the
    command or the configuration is wrong. The job's module is imported only after its settings are checked.
    """
    program = program or f"python -m ray_jobs.{name}"
    try:
        options = _parser(program).parse_intermixed_args(arguments)
    except ConfigError as error:
        return _explain(error, program)
    if options.help or options.help_all:
        return reported(lambda: _help(name, options, program), program)
    return reported(lambda: _run(name, options), program, options.verbose)


def reported(action: Callable[[], None], program: str, verbose: bool = False) -> int:
    """Call `action` and print its error, if any, as one line on standard error. Return the exit code."""
    try:
        with interruptible():
            action()
    except KeyboardInterrupt:
        job = _job_of(program)
        again = (
            "run the same command again to resume"
            if job and job.resumes
            else "the same command starts from the beginning"
        )
        print(f"interrupted; {again}", file=sys.stderr)
        return FAILED
    except Exception as error:
        if verbose:
            print(without_credentials(traceback.format_exc()), end="", file=sys.stderr)
        return _explain(error, program)
    return OK


def check_plugins(settings: Config, corpus: bool = True, networks: bool = True) -> Config:
    """Check the settings of the corpus and, if `networks`, of the architectures; add the defaults of the corpus.

    If not `corpus`, the check of a corpus whose packages are not installed is left out. Raises `ConfigError`.
    """
    chosen = [settings.architecture] if architectures.package(settings.architecture) else []  # a built-in imports torch
    for name in dict.fromkeys([*settings.architectures, *chosen]) if networks else ():
        architectures.params(name, settings.architectures.get(name, {}))
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
    """Return the command line of this process, quoted for a shell and without credentials."""
    module = sys.modules["__main__"].__spec__
    if module is None or module.name == "ray_jobs.engine.command":
        program = ["genre"] if module else [Path(sys.argv[0]).name]
    else:
        program = ["python", "-m", module.name]
    return shlex.join([*program, *map(without_credentials, sys.argv[1:])])


def say(text: str) -> None:
    """Print a message of a job, on `console`."""
    console().print(text)


def console() -> Console:
    """Return a console for messages on standard error, so that output can be piped. It has no colours in a log."""
    return _Messages(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


class _Messages(Console):
    """A console whose terminal breaks lines between words; elsewhere a message is one line. It hides credentials."""

    def print(self, *objects: Any, **options: Any) -> None:
        objects = tuple(without_credentials(each) if isinstance(each, str) else each for each in objects)
        if self.file.isatty():  # not `is_terminal`, which FORCE_COLOR sets in a pipe
            objects = tuple(printing.wrapped(each, self.width) if isinstance(each, str) else each for each in objects)
        super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Discard further messages: a reader that closes the pipe early, such as `head`, does not end the job."""
        printing.discard(sys.stderr)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        option = message.removeprefix("unrecognized arguments: ").split(" ")[0]
        hint = "" if option == message.split(" ")[0] else _hint(option, self._option_string_actions)
        raise ConfigError(f"{message}; {hint or f'`{self.prog} --help` shows the grammar'}")


def _hint(option: str, known: Iterable[str]) -> str:
    """Return what was probably meant by an unknown option: one of the `known`, or a setting; "" if nothing is close."""
    name, _, value = option.partition("=")
    key = name.lstrip("-").replace("-", "_")
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.8):
        return f"did you mean {close[0]}?"
    keys = [each for each, _, _ in config.describe(Config()) if f".{each}".endswith(f".{key}")]
    examples = " or ".join(f"{each}={value or each.rpartition('.')[2].upper()}" for each in keys[:2])
    return f"settings have no dashes: write {examples}" if keys else ""


def _parser(program: str) -> _Parser:
    parser = _Parser(prog=program, add_help=False, allow_abbrev=False)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--config")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--stdin0", action="store_true")
    parser.add_argument("--price-per-core-hour", type=_price)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--help-all", action="store_true")
    return parser


def _run(name: str, options: argparse.Namespace) -> None:
    job = jobs.JOBS[name]
    if options.price_per_core_hour is not None and not (options.dry_run and job.is_priced):
        priced = ", ".join(f"`{each} --dry-run`" for each, job in jobs.JOBS.items() if job.is_priced)
        raise ConfigError(f"--price-per-core-hour belongs to {priced}; leave it out")
    if options.stdin0 and not job.lists_files:
        raise ConfigError(f"--stdin0 belongs to `tag` and `embed`; leave it out, or see `genre {name} --help`")
    arguments = [*options.settings, "-"] if options.stdin0 else options.settings
    settings = settings_of(job, options.config, arguments)
    if unread := _unread(job, arguments):
        say(f"note: {name} does not read {', '.join(unread)}; `genre {name} --help` lists what it reads")
    if job.needs_features and not options.dry_run and _can_train():
        _require_features(settings.output)
    given = settings
    # importing architectures takes as long as torch; importing a corpus may need scipy, which a light install lacks
    settings = check_plugins(settings, corpus="corpus" in job.reads, networks=job.builds)
    if options.dry_run:
        short = bool(job.forecast) and sys.stdout is not None and sys.stdout.isatty()
        printing.show(_changed(given, job) if short else config.to_yaml(settings, job.reads).rstrip("\n"))
        if "output" in job.reads:
            _check_output(settings.output)
        if job.forecast:
            jobs.load_forecast(job)(settings, *([options.price_per_core_hour] if job.is_priced else []))
        return
    jobs.load(name)(settings)


def _changed(settings: Config, job: jobs.Job) -> str:
    """Return the settings that a job reads and that are not their defaults: few enough to see the forecast as well."""
    changed = config.to_yaml(settings, job.reads, only_changed=True)
    return f"{changed}# the other settings have their defaults; `| less` behind the command shows all"


def _help(name: str, options: argparse.Namespace, program: str) -> None:
    every = options.help_all
    printing.show(
        help_pages.every_setting(name, program) if every else help_pages.page(name, program, options.settings)
    )


def settings_of(job: jobs.Job, path: str | None, arguments: list[str]) -> Config:
    """Return the settings that `--config path` and `arguments` give a job. Raises `ConfigError` as `config.load`."""
    _refuse_slips(arguments, job.positional)
    full = [_with_section(text, job.short_keys) for text in _with_positional_key(arguments, job.positional)]
    return config.load(path or job.default_config, full)


def _unread(job: jobs.Job, arguments: list[str]) -> list[str]:
    """Return the keys on the command line that the job does not read. A file may hold settings of several jobs."""
    settings = [_with_section(text, job.short_keys) for text in arguments if _SETTING.match(text)]
    keys = [text.partition("=")[0] for text in settings]
    return [key for key in keys if not any(_overlap(key, each) for each in job.reads)]


def _overlap(key: str, other: str) -> bool:
    """Return whether one of two settings is the other or a part of it."""
    return f"{key}.".startswith(f"{other}.") or other.startswith(f"{key}.")


def _can_train() -> bool:
    """Return whether the packages of the extra `train` are installed, without importing them."""
    return all(importlib.util.find_spec(name) for name in ("ray", "torch"))


def _require_features(output: str) -> None:
    """Raise `ArtifactError` unless there are complete features: before the imports of the job, which take seconds."""
    from genre.features import manifest  # needs pyarrow, which the help does not
    from genre.storage import Location

    manifest.read(Location.of(output) / "features")


def _check_output(output: str) -> None:
    """Raise `ConfigError` unless the output exists or can be made. Without Ray and without writing: for a dry run.

    A job itself writes a file, on all machines: `reach.check_output`.
    """
    from genre.storage import Location
    from genre.storage.faults import check_place

    check_place(Location.of(output), "output")


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < math.inf:
        raise argparse.ArgumentTypeError(f"found {text!r}, must be a number of at least 0")
    return price


def _with_positional_key(arguments: list[str], key: str) -> list[str]:
    """Return the arguments with `key` in front of one without `key=`: `song.mp3` is `inputs=song.mp3`."""
    if not key:
        return arguments
    plain = [text for text in arguments if not _SETTING.match(text)]
    if len(plain) > 1:
        path = " ".join(plain)
        remedy = "name one, in quotes if its path has spaces" if key == "inputs" else "name one"
        if os.path.exists(path):
            remedy = f"a path with spaces needs quotes: {shlex.quote(path)}"
        raise ConfigError(f"{key}: found {len(plain)} values, {' and '.join(plain)}; {remedy}")
    return [f"{key}={text}" if text in plain else text for text in arguments]


def _refuse_slips(arguments: list[str], positional: str) -> None:
    """Raise `ConfigError` for `config=FILE`, and for spaces around `=`, which make several arguments of a setting."""
    for before, text, after in zip(["", *arguments], arguments, [*arguments[1:], ""], strict=False):
        if text.startswith("config="):
            raise ConfigError(f"unknown key 'config'; write --config {shlex.quote(text.removeprefix('config='))}")
        if text.startswith("=") and before and "=" not in before:
            meant = f"{before}={text[1:] or after}"
        elif text.endswith("=") and after and "=" not in after and not positional:
            meant = text + after
        else:
            continue
        raise ConfigError(f"a setting has no spaces around =; write {shlex.quote(meant)}")


def _with_section(text: str, short_keys: tuple[str, ...]) -> str:
    """Return the argument with `similar.n=20` for `n=20` where `similar.n` is one of `short_keys`."""
    key = text.partition("=")[0].strip()
    return next((name.removesuffix(key) for name in short_keys if name.endswith(f".{key}")), "") + text


def _job_of(program: str) -> jobs.Job | None:
    """Return the job that `genre JOB` or `python -m ray_jobs.JOB` runs."""
    return jobs.JOBS.get(re.split(r"[ .]", program)[-1])


def _explain(error: BaseException, program: str) -> int:
    """Print an error as one line and return the exit code."""
    root = error
    # Ray wraps the error of a worker, sometimes twice, and keeps it as the cause
    while (inner := getattr(root, "cause", None) or root.__cause__) and not isinstance(root, GenreError):
        root = inner
    if isinstance(root, GenreError):
        say(f"error: {root}")
        return WRONG_USE if isinstance(root, ConfigError) else FAILED
    if isinstance(root, ModuleNotFoundError) and (missing := (root.name or "").partition(".")[0]) not in _OWN_PACKAGES:
        job = _job_of(program)
        remedy = install(job.extra if job else "train")
        say(f"error: `{program}` needs {missing}, which is not installed; {remedy}")
        return WRONG_USE
    text = " ".join(str(root).split())[:400] or "no message"
    # pyarrow has no class for what an object store answers; a damaged file or a missing library is an OSError as well
    if isinstance(root, OSError) and any(name in str(root) for name in _STORES):
        remedy = "check address, credentials and network, and run the same command again"
        say(f"error: the storage cannot be reached, or refuses ({text.rstrip('.')}); {remedy}")
        return FAILED
    say(f"error: {type(root).__name__}: {text}; run again with --verbose for the traceback")
    return FAILED
