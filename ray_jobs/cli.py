"""The one grammar of all jobs: `python -m ray_jobs.<job> --config FILE key=value ...`."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence

from rich.console import Console

from genre import config, corpora, models, registry
from genre.config import Config
from genre.errors import ConfigError, GenreError

OK, FAILED, WRONG_USE = 0, 1, 2


def main(
    name: str,
    purpose: str,
    run: Callable[[Config], None],
    arguments: Sequence[str] | None = None,
    bare: str = "",
) -> int:
    """Parse, run, report. The exit code: 0 success, 1 the job failed, 2 the command or configuration is wrong.

    `bare` names the setting that an argument without `=` gives, for jobs that have an obvious one.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m ray_jobs.{name}",
        description=purpose,
        add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings; they win over the file")
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings that differ from the defaults")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument("--verbose", action="store_true", help="show the traceback of an error")
    parser.add_argument(
        "-h", "--help", action="store_true", help="show this, and every key with its default and meaning"
    )
    options = parser.parse_intermixed_args(arguments)
    if options.help:
        print(parser.format_help() + "\n" + keys_help())
        return OK
    try:
        settings = config.load(options.config, [_spelled_out(text, bare) for text in options.settings])
        resolved = check_plugins(settings)
        if options.dry_run:
            print(config.to_yaml(resolved), end="")
            return OK
        run(resolved)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return FAILED
    except Exception as error:
        if options.verbose:
            traceback.print_exc()
        return _explain(error)
    return OK


def check_plugins(settings: Config) -> Config:
    """Fill in and check the settings of the chosen corpus and architecture."""
    corpus = registry.load("genre.corpora", settings.corpus.kind)
    corpus_params = config.validate(corpus.Params, settings.corpus.params, "corpus.params.")
    corpus_settings = settings.corpus.model_copy(update={"params": corpus_params.model_dump(mode="json")})
    for name, values in settings.models.items():
        models.params(name, values)
    return settings.model_copy(update={"corpus": corpus_settings})


def keys_help() -> str:
    """Every key with its default and meaning, one line each."""
    lines = ["settings (key, default, meaning):"]
    lines += _table(config.describe(Config))
    for name in registry.names("genre.corpora"):
        lines.append(f"\nwith corpus.kind={name}:")
        lines += _table(config.describe(registry.load(corpora.__name__, name).Params, "corpus.params."))
    for name in models.names():
        lines.append(f"\nof architecture {name}:")
        lines += _table(config.describe(registry.load(models.__name__, name).Params, f"models.{name}."))
    return "\n".join(lines)


def console() -> Console:
    """Where jobs talk to people: standard error, so that output can be piped; plain text when it is no terminal."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def _spelled_out(text: str, bare: str) -> str:
    """`song.mp3` as `inputs="song.mp3"`, quoted since names of songs may hold what means something in YAML."""
    return f"{bare}={json.dumps(text)}" if bare and "=" not in text else text


def _table(rows: object) -> list[str]:
    return [f"  {key:<32} {default:<14} {meaning}" for key, default, meaning in rows]  # type: ignore[attr-defined]


def _explain(error: BaseException) -> int:
    root = error
    # Ray wraps what a worker raised, sometimes twice, and keeps it as the cause
    while (inner := getattr(root, "cause", None) or root.__cause__) and not isinstance(root, GenreError):
        root = inner
    if isinstance(root, GenreError):
        print(f"error: {root}", file=sys.stderr)
        return WRONG_USE if isinstance(root, ConfigError) else FAILED
    text = " ".join(str(root).split())[:400] or "no message"
    print(f"error: {type(root).__name__}: {text}; run again with --verbose for the traceback", file=sys.stderr)
    return FAILED
