"""Run a study with bars, and print what it found: what `compare`, `ablate`, `stability` and `reproduce` share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyweight.cli.progress import Bars
from flyweight.runtime.environment import is_cpu, usable_cores

if TYPE_CHECKING:
    from flyweight.report.rankings import RankingFacts
    from flyweight.report.stability import CellFacts, MapFacts
    from flyweight.report.study import ArmFacts, StudyFacts, StudyVerdict
    from flyweight.studies.conduct import Event, Pace
    from flyweight.studies.forecast import Forecast
    from flyweight.studies.study import Scale, Study, Trial
    from flyweight.studies.trial import Place


Jobs = Annotated[
    int | None,
    typer.Option(help="Runs at a time, one thread each; default: cores, or one with a GPU.", min=1),
]
TrainOn = Annotated[
    str, typer.Option("--device", help="What trains: cpu or cuda. Files are timed on the processor all the same.")
]


def run_study(
    study: Study, scale: str, size: Scale, order: Sequence[Trial], place: Place, *, jobs: int | None, as_json: bool
) -> None:
    """Run every trial that is not finished, with bars, and print what the study found.

    Args:
        jobs: Runs at a time; None: one a core, or one where a GPU trains.

    Raises:
        FlyweightError: A trial failed; the others are finished and in the report.
    """
    from flyweight.studies.conduct import Pace, conduct

    at_once = jobs_on(place.device, jobs)
    pace = Pace(study, size, len(order))
    with Bars(quiet=as_json) as bars:

        def tell(event: Event) -> None:
            pace.see(event)
            for line in _shown(event, bars, pace, at_once):
                bars.say(line)

        found = conduct(study, scale, size, order, place, jobs=at_once, tell=tell)
    if as_json:
        print(json.dumps(found.facts.model_dump(mode="json")))
    else:
        _print(found.facts)
        print(f"report  {found.html}")
    if found.errors:
        raise found.errors[0]


def jobs_on(device: str, jobs: int | None) -> int:
    """Return how many trainings run at a time where nothing is asked for: one a core, or one where a GPU trains."""
    return jobs or (usable_cores() if is_cpu(device) else 1)


def predict_study(
    study: Study, size: Scale, order: Sequence[Trial], place: Place, *, jobs: int | None, as_json: bool
) -> None:
    """Print what the runs that are left would cost, arm by arm."""
    from flyweight.studies.forecast import foresee

    with Bars(quiet=as_json) as bars:
        forecast = foresee(study, size, order, place, say=bars.say)
    at_once = jobs_on(place.device, jobs)
    print(json.dumps(forecast.to_json()) if as_json else "\n".join(in_words(forecast, at_once, arms=True)))


def in_words(forecast: Forecast, jobs: int, *, arms: bool = False) -> list[str]:
    """Return a forecast as lines, the most expensive arms first where each is asked for; none where nothing is left."""
    found = []
    for one in sorted(forecast.arms, key=lambda one: -one.runs * one.total) if arms else ():
        each = one.total / 60
        told = "  (as its finished runs)" if one.measured else ""
        found.append(f"{one.runs:3d} × {each:8.2f} min = {one.runs * each:8.1f} min  {one.dataset}/{one.arm}{told}")
    if forecast.runs:
        found += _total_in_words(forecast, jobs)
    if forecast.probes_seconds:
        where = f", with {100 * forecast.share:.0f} % of a core beside what else ran" if is_cpu(forecast.device) else ""
        found.append(
            f"  timed a few steps of each distinct network on one thread in {forecast.probes_seconds:.0f} s{where}"
        )
    found += [f"not predicted: {name}: {why}" for name, why in forecast.unknown.items()]
    return found or (["nothing is left to run"] if arms else [])


def _total_in_words(forecast: Forecast, jobs: int) -> list[str]:
    total = sum(forecast.seconds.values())
    unit, name = (3600.0, "hours") if total >= 3600 else (60.0, "minutes")
    split = ", ".join(f"{seconds / unit:.2f} {key}" for key, seconds in forecast.seconds.items())
    of = "core" if is_cpu(forecast.device) else "GPU"
    also = f" ({total / 60:.0f} {of}-minutes)" if name == "hours" else ""
    if is_cpu(forecast.device):
        last = f"{total / unit / jobs:.2f} {name} with {jobs} at a time, if each has a core of its own; no GPU"
    else:
        last = f"as long on {forecast.device} with several at a time, if each keeps it busy"
    return [
        f"predicted: {total / unit:.2f} {of}-{name}{also} for {forecast.runs} runs: {split}",
        f"  {last}; scoring and timing of files not included",
    ]


def _shown(event: Event, bars: Bars, pace: Pace, jobs: int) -> Iterator[str]:
    """Move the bars; yield the lines to print."""
    from flyweight.studies.conduct import Measuring, Note
    from flyweight.studies.forecast import Forecast
    from flyweight.studies.schedule import Running, TrialFailed

    if isinstance(event, Note):
        yield event.text
    elif isinstance(event, Forecast):
        yield from in_words(event, jobs)
    elif isinstance(event, Measuring):
        bars.update("measure", event.done, event.total, "processes")
    elif isinstance(event, Running):
        for trial, epochs in event.trials:
            total = max(pace.epochs(trial), epochs, 1)
            bars.update(trial.name, epochs, total, f"  {trial.name}: {epochs} epochs done")
    else:
        bars.update("study", pace.done, pace.total, "runs")
        bars.drop(event.trial.name)
        if isinstance(event, TrialFailed):
            yield f"{event.trial.name:44} failed: {event.error.what}"
        elif not event.again:
            yield f"{event.trial.name:44} {_result_in_words(event.result)}"


def _result_in_words(result: dict[str, Any]) -> str:
    if "diverged" in result:
        return f"diverged, seen in epoch {result['diverged']['epoch']}"
    return (
        f"{100 * result['accuracy']:6.2f} %  {result['params']:6,} parameters  {result['epochs']:3d} epochs  "
        f"{result['train_seconds']:5.0f} s"
    )


def _print(facts: StudyFacts) -> None:
    for data in facts.datasets:
        images = f"{data.test_images:,} {'test' if facts.part == 'test' else 'validation'} images"
        images += "" if data.train_images is None else f", trained on {data.train_images:,}"
        print(f"\n{data.title}, {images}, {len(data.seeds)} seeds")
        for arm in sorted(data.arms, key=lambda arm: -(arm.accuracy.value or 0.0)):
            few = len(arm.per_seed) + arm.diverged < len(data.seeds)
            print(_line(arm, compares=facts.compares) + (f", {arm.seeds_text}" if few else ""))
        if data.published:
            reached = "reached" if data.published.reached else "not reached"
            print(f"  published {100 * data.published.accuracy:g} %: {reached}")
        if facts.compares:
            _print_fronts(data)
    if facts.compares:
        shared = "Networks that share a letter were not found different (Holm over all pairs, 5 %)."
        print(f"\n{shared if facts.pairs else 'Fewer than three seeds: nothing is said of which differ.'}")
    if facts.effort:
        print(facts.effort)
    for device in facts.devices:
        where = f"{device.device}, {device.backend}, {device.threads} thread{'s' * (device.threads > 1)}"
        print(f"fastest first on {where} ({device.dataset}): {device.words}")
    for one in facts.maps:
        _print_map(one)
    for ranking in facts.rankings:
        _print_ranking(ranking)
    for verdict in facts.verdicts:
        print(f"\n{verdict.question} ({verdict.dataset})\n  {_verdict_in_words(verdict)}")
    if facts.cost and facts.cost.both_runs:
        before, after = facts.cost.both_predicted, facts.cost.both_measured
        print(
            f"\n{facts.cost.both_runs} runs: {before.total / 60:.1f} {facts.cost.unit}-minutes predicted, "
            f"{facts.cost.spent(after) / 60:.1f} measured; by the clock {after.total / 60:.1f} "
            f"({after.loading / 60:.1f} loading, {after.computing / 60:.1f} computing, "
            f"{after.validating / 60:.1f} validating)"
        )
    if facts.diverged:
        print(f"\n{len(facts.diverged)} runs diverged, or need one that did: {', '.join(facts.diverged)}")
    if facts.missing:
        print(f"\n{len(facts.missing)} runs are not finished; run the same command again")


def _verdict_in_words(verdict: StudyVerdict) -> str:
    caveat = f" ({verdict.caveat})" if verdict.caveat else ""
    if verdict.answer == "same recipe":
        return f"same recipe: tuning chose the same settings for both with every seed; nothing was compared{caveat}"
    low, value, high = (100 * (getattr(verdict.difference, part) or 0.0) for part in ("low", "value", "high"))
    spread = "" if verdict.spread is None else f", varying by {100 * verdict.spread:.2f} points from seed to seed"
    return (
        f"{verdict.answer}: {value:+.2f} points [{low:+.2f}, {high:+.2f}], p {verdict.p_holm:.2g} after Holm, "
        f"{verdict.seeds} seeds{spread}{caveat}"
    )


def _print_map(one: MapFacts) -> None:
    print(f"\n{one.title}, {one.optimizer}: final accuracy (%) by rate and batch; (slow); seeds at chance or diverged")
    lrs, sizes = sorted({cell.lr for cell in one.cells}), sorted({cell.batch_size for cell in one.cells})
    print(f"{'':10}" + "".join(f"{lr:>14g}" for lr in lrs))
    for size in sizes:
        cells = {cell.lr: cell for cell in one.cells if cell.batch_size == size}
        print(f"{size:10}" + "".join(f"{_in_words(cells[lr]) if lr in cells else '':>14}" for lr in lrs))


def _in_words(cell: CellFacts) -> str:
    value = "" if cell.accuracy.value is None else f"{100 * cell.accuracy.value:.1f}"
    if cell.outcome == "diverged":
        return f"{value} div {cell.course.diverged}/{cell.course.seeds}".strip()
    if cell.outcome == "at chance":
        return f"{value} chance {cell.course.at_chance}/{cell.course.seeds}"
    return f"({value})" if cell.outcome == "slow" else value


def _print_ranking(one: RankingFacts) -> None:
    print(f"\n{one.source}: do the arms keep their order from one number of images to the next?")
    for pair in one.agreements:
        value, low, high = pair.tau.value, pair.tau.low, pair.tau.high
        shown = "undefined" if value is None else f"{value:.2f}"
        spread = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
        print(f"  {pair.small} against {pair.large}: Kendall's tau-b {shown}{spread}, {pair.seeds} seeds")


def _line(one: ArmFacts, *, compares: bool) -> str:
    low, high = one.accuracy.low, one.accuracy.high
    spread = "" if low is None or high is None else f"  [{100 * low:.2f}, {100 * high:.2f}]"
    accuracy = f"  {100 * (one.accuracy.value or 0.0):6.2f} %{spread:18}"
    accuracy += f"  {one.lost_text}" if one.lost_text else ""
    if not compares:
        cost = "" if one.cost_ratio is None else f"  cost {one.cost_ratio:.3f}"
        return f"{accuracy}  {one.params:6,} parameters{cost}  {one.title}"
    timed = one.deployed.latency_p50_ms.value if one.deployed else None
    latency = "" if timed is None else f"  {timed:8.3f} ms"
    ranked = f"{one.letters:4}" if one.enough else "not trained enough"
    return f"{accuracy}  {ranked}  {(one.size_bytes or 0) / 1000:9.1f} kB{latency}  {one.title}"


def _print_fronts(data: Any) -> None:
    from flyweight.report.tradeoff import fronts

    for cost, names in fronts(data).items():
        if names:
            print(f"  best for its {cost}: {', '.join(names)}")
