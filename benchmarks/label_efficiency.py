"""Compare training from a pretrained body with training from random weights, on few and many labelled tracks.

    python benchmarks/label_efficiency.py RUN [--tracks 5 10 20 0] [--seeds 3] [--config FILE] [KEY=VALUE ...]

RUN is an output with features. Networks learn from its tracks of split train, and are judged by those of split valid.
Without --bodies, each seed first pretrains a body on the training tracks, as `genre pretrain` does; --bodies names
saved ones, for the seeds in turn. Then a network is trained from random weights and one from the body, with --tracks
training tracks of each genre (0: all of them) that the seed draws, for the same number of epochs. The weights of the
last epoch are judged, so that nothing is chosen by the judged tracks. --from-body adds settings of the training from
the body, such as train.learning_rate=0.001.

Printed is the mean accuracy over the seeds, and the difference with its 95 % interval by the paired bootstrap over the
judged tracks or, where they are known, their groups; it does not cover the choice of the training tracks. The accuracy
of each training is printed on standard error when it ends. One process, on the CPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from genre.arrays import Float32, Ints
from genre.config import load
from genre.evaluation.bootstrap import bootstrap_scores
from genre.features import Clips, Features
from genre.features.cache import CachedClips, ClipCache
from genre.features.statistics import LevelStatistics, clip_levels
from genre.settings import Config
from genre.storage import Location
from genre.training import experiment, pretraining
from genre.training.experiment import Data, Experiment
from genre.training.pretraining import Pretraining

CPU = torch.device("cpu")


def pretrained(config: Config, features: Features, folder: Location) -> Location:
    """Pretrain a body on the music of the features and save it in `folder`."""
    planned, music = Pretraining.of(config), features.music()
    copy = ClipCache.of(music, config.cache, ("train",)).open()
    card, pretrainer = pretraining.pretrainer_for(planned, music, copy, CPU)
    *_, last = pretrainer.run()
    print(f"body, seed {config.seed}: loss {last.loss:.3f}, {last.matched:.1%} of the pairs found", flush=True)
    pretraining.save_body(folder, card, music, pretrainer)
    return folder


def part(clips: Clips, per_genre: int, seed: int) -> CachedClips:
    """Return the clips of `per_genre` random tracks of each genre (0: of all tracks), with their statistics."""
    order = np.random.default_rng(seed).permutation(len(clips.labels))
    chosen = [order[clips.labels[order] == genre][: per_genre or None] for genre in np.unique(clips.labels)]
    rows = np.flatnonzero(np.isin(clips.track, np.concatenate(chosen)))
    kept = replace(
        clips,
        stored=clips.stored[clips.rows_of(rows)],
        peak_db=clips.peak_db[rows],
        track=clips.track[rows],
        source=None,
        rows=None,
    )
    statistics = LevelStatistics(clips.shape)
    for spectrogram, peak in zip(kept.spectrograms, kept.peak_db, strict=True):
        statistics.add_levels(clip_levels(spectrogram, float(peak), kept.shape)[None])
    return CachedClips({"train": kept}, statistics)


def probabilities(config: Config, learned: CachedClips, judged: Clips, features: Features) -> Float32:
    """Train on the clips; return the probabilities of the judged tracks, (tracks, classes), after the last epoch."""
    data = Data.of(learned.clips | {"valid": judged}, learned.statistics, features.manifest)
    _, trainer = experiment.trainer_for(Experiment.of(config), data, CPU)
    for _ in trainer.run_to(config.train.epochs):
        pass
    return trainer.best_predictions()


def report(per_genre: int, answers: dict[str, list[Float32]], truth: Ints, groups: list[str]) -> None:
    """Print a row of the table."""
    decisions = {name: np.stack(runs).argmax(axis=2) for name, runs in answers.items()}
    right = {name: (runs == truth).mean(axis=1) for name, runs in decisions.items()}
    rows = np.arange(len(truth))
    loss = {name: -np.log(np.maximum(np.stack(runs)[:, rows, truth], 1e-6)).mean() for name, runs in answers.items()}
    drawn = bootstrap_scores(truth, decisions, answers["body"][0].shape[1], groups)
    low, high = np.quantile(drawn["body"]["accuracy"] - drawn["random"]["accuracy"], [0.025, 0.975])
    gains = right["body"] - right["random"]
    print(
        f"| {per_genre or 'all'} | {right['random'].mean():.3f} | {right['body'].mean():.3f} | {gains.mean():+.3f} "
        f"[{low:+.3f} {high:+.3f}] | {' '.join(f'{gain:+.3f}' for gain in gains)} | {loss['random']:.3f} | "
        f"{loss['body']:.3f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--config")
    parser.add_argument("--tracks", type=int, nargs="+", default=[5, 10, 20, 0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bodies", nargs="+", default=[])
    parser.add_argument("--from-body", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_intermixed_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        common = [f"output={options.run}", *options.settings]
        configs = [load(options.config, [*common, f"seed={seed}"]) for seed in range(options.seeds)]
        features = Features.open(Location.of(options.run) / "features")
        clips = ClipCache.of(features, configs[0].cache).open().clips
        groups = clips["valid"].groups.to_pylist()
        bodies = [Location.of(body) for body in options.bodies] or [
            pretrained(config, features, Location.of(folder) / f"body-{config.seed}") for config in configs
        ]
        print("| tracks a genre | random weights | body | difference [95 %] | of each seed | log-loss | with body |")
        print("|---:|---:|---:|---|---|---:|---:|", flush=True)
        for per_genre in options.tracks:
            answers: dict[str, list[Float32]] = {"random": [], "body": []}
            for seed, config in enumerate(configs):
                body = bodies[seed % len(bodies)]
                learned = part(clips["train"], per_genre, seed)
                start = [*common, f"seed={seed}", f"train.init_from={body}", *options.from_body]
                for name, started in (("random", config), ("body", load(options.config, start))):
                    answers[name].append(probabilities(started, learned, clips["valid"], features))
                    right = (answers[name][-1].argmax(axis=1) == clips["valid"].labels).mean()
                    print(f"{per_genre or 'all'} a genre, seed {seed}, {name}: {right:.3f}", file=sys.stderr)
            report(per_genre, answers, clips["valid"].labels, groups)


if __name__ == "__main__":
    main()
