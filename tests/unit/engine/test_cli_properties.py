"""Properties of what the command line makes of its arguments, on generated values."""

from __future__ import annotations

import re
from functools import reduce
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from genre.errors import ConfigError
from genre.settings import Config
from ray_jobs.engine import cli
from ray_jobs.engine.jobs import JOBS, Job

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


def setting(config: Config, key: str) -> Any:
    return reduce(getattr, key.split("."), config)


def is_text(key: str) -> bool:
    return bool(key) and isinstance(setting(Config(), key), str)


WITH_POSITIONAL = [job for job in JOBS.values() if is_text(job.positional)]
SHORT_KEYS = [(job, key) for job in JOBS.values() for key in job.short_keys if is_text(key)]


@quick
@given(st.sampled_from(WITH_POSITIONAL), ANY_TEXT)
def test_an_argument_without_a_key_is_the_positional_setting_of_its_job(job: Job, text: str) -> None:
    assume(not re.match(r"[\w.]+=", text))
    assert setting(cli.settings_of(job, None, [text]), job.positional) == text


@quick
@given(st.sampled_from(WITH_POSITIONAL), st.lists(ANY_TEXT, min_size=2, max_size=4))
def test_two_arguments_without_a_key_are_refused(job: Job, texts: list[str]) -> None:
    assume(not any(re.match(r"[\w.]+=", text) for text in texts))
    with pytest.raises(ConfigError, match=f"found {len(texts)} values"):
        cli.settings_of(job, None, texts)


@quick
@given(st.sampled_from(SHORT_KEYS), ANY_TEXT)
def test_a_key_without_its_section_is_the_one_with_it(short: tuple[Job, str], text: str) -> None:
    job, key = short
    name = key.rpartition(".")[2]
    assert setting(cli.settings_of(job, None, [f"{name}={text}"]), key) == text
    assert cli.settings_of(job, None, [f"{name}={text}"]) == cli.settings_of(job, None, [f"{key}={text}"])
