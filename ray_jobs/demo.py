"""Run the complete chain on composed music: prepare, then tune, with the small networks of the shipped demo.yaml.

Write the features, the models and the leaderboard to outputs/demo. Run it again to resume after an interruption.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

from genre.config import validate
from genre.corpora import synthetic
from genre.features.preparing.tracks import TrackPreparer
from genre.features.recipe import Recipe
from genre.settings import Config
from genre.storage import Location
from genre.training.costs import Workload
from genre.wording import duration
from ray_jobs import prepare, tune
from ray_jobs.engine import cli, cluster
from ray_jobs.engine.capacity import Capacity
from ray_jobs.search import space, timing
from ray_jobs.search.budget import Forecast
from ray_jobs.search.resources import TrialResources

_START_OF_PREPARE = 3.0  # seconds until its workers have started
_SAMPLES = 3  # tracks composed and transformed for the forecast, after one that is not counted


def run(config: Config) -> None:
    """Prepare the synthetic corpus and search all architectures on it."""
    is_resumed = (Location.of(config.output) / "features" / "manifest.json").exists()
    with cluster.connected(config.cluster, config.output) as capacity:
        known = None if is_resumed else _forecast(config, capacity)
        prepare.run(config)
        tune.run(config, known)
    output = shlex.quote(f"output={config.output}")
    cli.say(f"demo: next, tag a song: genre tag SONG {output}; your own music: docs/TUTORIAL.md")


def forecast(config: Config) -> None:
    """Print how long `run` will take on this machine."""
    with cluster.connected(config.cluster, config.output) as capacity:
        _forecast(config, capacity)


def _forecast(config: Config, capacity: Capacity) -> Forecast:
    """Time a few tracks and a few steps of each architecture; print and return the forecast of the search."""
    params = validate(synthetic.Params, config.corpus.params, "corpus.params.")
    features = _features_seconds(config, params)
    resources = TrialResources.of(config.tune, config.device, capacity)
    search = timing.measure(space.experiments(config), config.tune, _workload(config, params), resources)
    plan = search.plan()
    timing.show(search, plan)
    total = features + search.estimate(plan).total
    cli.say(f"demo: about {duration(total)} on this machine, {duration(features)} of it for the features")
    return search


def _workload(config: Config, params: synthetic.Params) -> Workload:
    """Return the size of the search, whose features may not exist yet."""
    tracks, shape = synthetic.sizes(params), Recipe.of(config).shape()
    classes = len(synthetic.classes(config.corpus, params))
    return Workload(tracks["train"], tracks["valid"], tracks["test"], shape, classes, tracks["test"], tracks["train"])


def _features_seconds(config: Config, params: synthetic.Params) -> float:
    """Return the expected time of `prepare`, from composing and transforming a few tracks in this process."""
    preparer, seconds = TrackPreparer(Recipe.of(config)), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(_SAMPLES + 1):
            started = time.perf_counter()
            file = Path(folder) / f"{number}.wav"
            file.write_bytes(synthetic.sample(params, number))
            preparer(str(file))
            seconds.append(time.perf_counter() - started)
    tracks = sum(synthetic.sizes(params).values())
    return _START_OF_PREPARE + math.fsum(seconds[1:]) / _SAMPLES * tracks / (config.cluster.cpus or os.cpu_count() or 1)


if __name__ == "__main__":
    sys.exit(cli.main("demo"))
