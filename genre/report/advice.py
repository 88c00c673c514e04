"""Which model to use and why, in sentences computed from the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from genre.evaluation.bootstrap import interval
from genre.evaluation.robustness import UNCHANGED
from genre.report.board import SeedRun
from genre.report.formats import joined, seconds
from genre.report.table import ALPHA, Row, Table
from genre.report.tuning import tunings
from genre.wording import plural

FASTER = 1.5  # ratio of clips per second that is worth mentioning
SMALLER = 2.0  # ratio of parameters that is worth mentioning
FRAGILE = 0.05  # loss of macro F1 on changed tracks that is worth mentioning
GROUPS = 20  # test groups (or tracks) below which a bootstrap of them is unreliable
SEEDS = 3  # seed runs of every network from which a ranking is not provisional
USABLE = 0.5  # share of the tracks that get a genre, from which a network may replace one that names none
LATE = 0.8  # share of its epochs: a training whose best epoch comes later was still improving


@dataclass(frozen=True, eq=False)
class Advice:
    """The advice as a `sentence`, `reasons` for and against it, and the row to use, if any."""

    sentence: str
    reasons: list[str] = field(default_factory=list)
    pick: Row | None = None
    on_terminal: list[str] = field(default_factory=list)  # those of the reasons that a terminal shows
    badge: str = "use this"  # what the row to use is marked with


def advise(table: Table) -> Advice:
    """Pick the best network, unless the classical baseline is significantly better or the majority row is as good.

    Whether a row is significantly worse is taken from its own p-value, not from its rank: a row that does not differ
    from the first still ranks below it if a row above does.
    """
    ranked = [row for row in table.rows if row.rank is not None]
    if not ranked:
        return Advice("No model has been scored yet.", ["Train one, then make the leaderboard again."])
    best, majority = ranked[0], table.of("majority")
    if any(not row.differs for row in majority):
        sentence = "Use none of these models: the best is not significantly better than giving the most common genre."
        return Advice(sentence, [f"The best is {best.entry.name}: {_scores(best, table)}.", *_majority(majority)])
    networks = table.of("network")
    caveats = [*_few_seeds(networks), *_unequal_training(networks)]
    if best.entry.kind == "classical":
        return _no_better_than_baseline(best, table, caveats)
    others = [row for row in networks if row is not best]
    warning = list(_names_nothing(best, table))
    reasons = [*warning, *caveats, *_against_networks(best, others), *_against_baseline(table)]
    reasons += [
        *_search(best, table),
        *_all_seeds(best),
        *_ensemble(best, table),
        *_robustness(best),
        *_majority(majority),
        *_few_groups(table),
        *_resolution(best, table),
    ]
    provisional = " for now" if caveats and others else ""
    return Advice(f"Use {best.entry.name}{provisional}: {_scores(best, table)}.", reasons, best, warning)


def _no_better_than_baseline(best: Row, table: Table, caveats: list[str]) -> Advice:
    """Advise on a board that the classical baseline leads: it cannot tag music, so it is no model to use."""
    baseline = f"the classical baseline {_named([best])}"
    reasons = [
        "Label more tracks, or search longer with a larger tune.minutes, tune.trials or train.epochs. "
        "The baseline is a reference and cannot tag music."
    ]
    networks, pick, on_terminal = table.of("network"), None, list[str]()
    if networks:
        first = networks[0]
        relation = "significantly lower" if first.differs else "not significantly lower"
        on_terminal = [
            f"The best network is {first.entry.name}, which the job tag uses: {_scores(first, table)}; {relation}.",
            *_names_nothing(first, table),
        ]
        pick = None if first.differs else first
    reasons += [
        *on_terminal,
        *caveats,
        *_majority(table.of("majority")),
        *_few_groups(table),
        *_resolution(best, table),
    ]
    return Advice(
        f"No network beats {baseline} on the {table.board.track_count}.", reasons, pick, on_terminal, "best network"
    )


def _names_nothing(best: Row, table: Table) -> Iterator[str]:
    """Warn where the model that `tag` uses of `best` names no genre, and say what to use instead."""
    run, board = _used(best), table.board
    if board.search is None or board.judged_on != "test":  # tag may use another model than this row
        return
    if run.correction is None or not run.correction.thresholds or min(run.correction.thresholds) <= 1:
        return
    name, correction, instead = best.entry.name, run.correction, ""
    tied = ((row, _named_share(_used(row))) for row in table.of("network") if row.rank == best.rank)
    usable = next(((row.entry.name, share) for row, share in tied if share >= USABLE), None)
    if usable is not None:
        other, share = usable
        instead = f" {other}, of the same rank, names {100 * share:.0f} % of these tracks."
    lower = f"min_precision={correction.provable:g} names some and promises less; " if correction.provable else ""
    yield (
        f"With {name} the job tag names no genre, only unknown: {correction.source} do not prove that "
        f"{100 * correction.precision:.0f} % of the genres that it names are correct.{instead} "
        f"For tag, {lower}min_precision=0 names every track without a promise."
    )


def _used(row: Row) -> SeedRun:
    """Return the run whose model the job tag uses: of those with the best validation score, the first."""
    return max(
        row.entry.runs, key=lambda run: max((epoch.get("valid_f1") or 0.0 for epoch in run.history), default=0.0)
    )


def _named_share(run: SeedRun) -> float:
    """Return the share of the board's tracks that get a genre; 0 where nothing is known about it."""
    return 0.0 if run.reported is None else float((run.reported >= 0).mean())


def _scores(row: Row, table: Table) -> str:
    units, name = _units(table)
    caveat = f"; from {plural(units, name)} only, so the interval is too narrow" if units < GROUPS else ""
    return (
        f"{100 * row.accuracy.mean:.0f} % of the {table.board.track_count} correct, "
        f"macro F1 {row.f1.mean:.2f} (95 % interval {row.f1.low:.2f} to {row.f1.high:.2f}{caveat})"
    )


def _units(table: Table) -> tuple[int, str]:
    """Return how many units the bootstrap draws from, and what they are: groups, or tracks where none are known."""
    board = table.board
    return (len(set(board.groups)), "group") if board.groups else (len(board.track_ids), "track")


def _few_seeds(networks: list[Row]) -> Iterator[str]:
    """Warn when there are too few seed runs: the intervals and tests are over tracks and cannot show their spread."""
    fewest = min((len(row.entry.runs) for row in networks), default=SEEDS)
    if fewest < SEEDS and len(networks) > 1:
        differ = len({len(row.entry.runs) for row in networks}) > 1
        yield (
            f"This ranking is provisional: {'some networks were' if differ else 'each network was'} trained with "
            f"only {plural(fewest, 'seed')}, and other seeds could change the order."
        )


def _unequal_training(networks: list[Row]) -> Iterator[str]:
    """Warn when a network that trained for fewer epochs than another was still improving."""
    epochs = {row.entry.name: max((len(run.history) for run in row.entry.runs), default=0) for row in networks}
    longest = max(epochs.values(), default=0)
    improving = [
        row.entry.name
        for row in networks
        if epochs[row.entry.name] < longest
        and any((run.best_epoch or 0) > LATE * len(run.history) for run in row.entry.runs if _is_validated(run))
    ]
    if improving:
        yield (
            f"The networks trained for {min(epochs.values())} to {longest} epochs; {joined(improving)} "
            f"{'was' if len(improving) == 1 else 'were'} still improving and could gain from a longer training."
        )


def _is_validated(run: SeedRun) -> bool:
    """Return whether the best epoch of a run was found by validation, so that it says when it stopped improving."""
    return bool(run.history) and run.history[-1].get("valid_f1", 0.0) is not None


def _against_networks(best: Row, others: list[Row]) -> Iterator[str]:
    """Compare `best` with the other networks, and name the cheapest of those that share its rank."""
    if not others:
        return
    behind, equal = [row for row in others if row.differs], [row for row in others if not row.differs]
    if not equal:
        yield f"It is significantly better than every other network; the next is {_named(behind[:1])}."
        return
    better = (
        f"It is significantly better than {_named(behind)}, but not than"
        if behind
        else "It does not differ significantly from"
    )
    yield f"{better} {_named(equal)}."
    tied = [row for row in equal if row.rank == best.rank]
    if not tied:
        return
    cheaper = max(tied, key=lambda row: (_speed_ratio(best, row), _size_ratio(best, row)))
    gains = {}
    if _speed_ratio(best, cheaper) >= FASTER:
        gains["speed"] = f"{_speed_ratio(best, cheaper):.1f} times as fast"
    if _size_ratio(best, cheaper) >= SMALLER:
        gains["size"] = f"{_size_ratio(best, cheaper):.1f} times smaller"
    if gains:
        yield f"For {joined(list(gains))}, use {cheaper.entry.name}: {joined(list(gains.values()))}."


def _against_baseline(table: Table) -> Iterator[str]:
    for row in table.of("classical")[:1]:
        name = f"the classical baseline {_named([row])}"
        if row.differs:
            yield f"It is significantly better than {name}."
        else:
            yield f"It is not significantly better than {name}; more tracks or better training would have to show it."


def _search(best: Row, table: Table) -> Iterator[str]:
    """Say that the search gained nothing for `best`."""
    tuning = next(tuning for tuning in tunings(table) if tuning.row is best)
    default, p_value = tuning.judged_default, tuning.p_value
    spent = f"{plural(len(tuning.trials), 'trial')} and {seconds(tuning.search_seconds or 0.0)} of training"
    if tuning.kept_default and len(tuning.trials) > 1:
        yield f"The search found nothing better for it than the configured settings, in {spent}."
    elif default is not None and p_value is not None and (p_value >= ALPHA or default.f1.mean > best.f1.mean):
        relation = "not significantly" if p_value >= ALPHA else "significantly"
        gain = "lower" if default.f1.mean <= best.f1.mean else "higher"
        yield (
            f"The search gained nothing that these tracks can show, in {spent}: with the configured settings its macro "
            f"F1 is {default.f1.mean:.2f}, {relation} {gain}."
        )


def _all_seeds(best: Row) -> Iterator[str]:
    """Recommend the mean of the seeds of `best` where it is significantly better than single ones."""
    mean = best.ensembled
    if mean is not None and mean.f1.mean > best.f1.mean and mean.p_value < ALPHA:
        yield (
            f"The mean of its {len(best.entry.runs)} seeds is significantly better than one: macro F1 "
            f"{mean.f1.mean:.2f}. Name all of its seed folders as model, at the cost of running each."
        )


def _ensemble(best: Row, table: Table) -> Iterator[str]:
    for row in table.of("ensemble")[:1]:
        if row.f1.mean > best.f1.mean:
            relation = "significantly better" if row.differs else "not significantly better"
            yield (
                f"The ensemble of all networks reaches macro F1 {row.f1.mean:.2f} ({relation}) "
                "at the cost of running them all."
            )


def _robustness(best: Row) -> Iterator[str]:
    """Name the change of the audio that costs `best` most."""
    unchanged = best.entry.robustness.get(UNCHANGED)
    if unchanged is None:
        return
    change, f1 = min(best.entry.robustness.items(), key=lambda item: item[1])
    if unchanged - f1 >= FRAGILE:
        yield f"It is weakest on degraded audio ({change}): macro F1 falls from {unchanged:.2f} to {f1:.2f}."


def _majority(rows: list[Row]) -> Iterator[str]:
    for row in rows[:1]:
        yield f"Always giving the most common genre reaches macro F1 {row.f1.mean:.2f}."


def _few_groups(table: Table) -> Iterator[str]:
    """Warn when so few groups or tracks were scored that bootstrap intervals are too narrow."""
    units, name = _units(table)
    if units < GROUPS:
        yield f"Intervals and ranks come from only {plural(units, name)}; below {GROUPS} they are too optimistic."


def _resolution(best: Row, table: Table) -> Iterator[str]:
    """Say how large a difference these tracks can show: half the width of the intervals of the differences."""
    others = [row for row in table.of("network", "classical") if row is not best]
    ends = [interval(best.f1_draws - row.f1_draws, best.f1.mean - row.f1.mean) for row in others]
    widths = [(high - low) / 2 for low, high in ends]
    if widths and np.median(widths) >= 0.005:
        least = f"{np.median(widths):.2f}"
        yield f"With {table.board.track_count}, differences in macro F1 below about {least} cannot be detected."


def _speed_ratio(best: Row, row: Row) -> float:
    reference, speed = best.entry.clips_per_second, row.entry.clips_per_second
    return speed / reference if reference and speed else 0.0


def _size_ratio(best: Row, row: Row) -> float:
    reference, size = best.entry.parameters, row.entry.parameters
    return reference / size if reference and size else 0.0


def _named(rows: list[Row]) -> str:
    """Return names with their macro F1: "cnn (0.61), crnn (0.60) and vgg16 (0.58)"."""
    return joined([f"{row.entry.name} ({row.f1.mean:.2f})" for row in rows])
