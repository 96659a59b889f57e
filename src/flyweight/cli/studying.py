"""Run the trials of a study, keep its page up to date, print what it found: what `reproduce` and `compare` share."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flyweight.cli.progress import Bars
from flyweight.errors import TrainingError
from flyweight.runtime.energy import EnergyMeter

if TYPE_CHECKING:
    from flyweight.report.rankings import RankingFacts
    from flyweight.report.stability import CellFacts, MapFacts
    from flyweight.report.study import ArmFacts, RunningFacts, StudyFacts
    from flyweight.studies.forecast import Forecast
    from flyweight.studies.study import Scale, Study, Trial
    from flyweight.studies.trial import Place

PAGE_SECONDS = 15.0  # between two drawings of the page while the study runs


def conduct(
    study: Study,
    scale: str,
    size: Scale,
    order: Sequence[Trial],
    place: Place,
    *,
    jobs: int,
    as_json: bool,
    predict: bool = False,
) -> None:
    """Run every trial that is not finished, then measure the files where networks are compared, and print.

    Args:
        predict: Print what the runs would cost, and stop before the first.

    Raises:
        FlyweightError: A trial failed; the others are finished and in the report.
    """
    from flyweight.files import write_text
    from flyweight.report.stability import csv_map
    from flyweight.report.study import build_study_report
    from flyweight.report.tables import csv_table, latex_table
    from flyweight.studies.analyse import analyse
    from flyweight.studies.deployed import measure_deployed
    from flyweight.studies.forecast import foresee
    from flyweight.studies.schedule import Running, TrialDone, TrialFailed, run_trials
    from flyweight.studies.spent import add_energy

    failed: list[TrialFailed] = []
    with Bars(quiet=as_json) as bars:
        forecast = foresee(study, size, order, place, say=bars.say)
    if predict:
        print(json.dumps(forecast.to_json()) if as_json else "\n".join(in_words(forecast, jobs, arms=True)))
        return
    energy = EnergyMeter()
    pace = _Pace(study, size, len(order))
    with Bars(quiet=as_json) as bars:
        for line in in_words(forecast, jobs):
            bars.say(line)
        try:
            for event in run_trials(study, size, list(order), place, jobs=jobs):
                for line in _shown(event, bars, pace):
                    bars.say(line)
                if isinstance(event, TrialFailed):
                    failed.append(event)
                energy.joules()  # often enough that no counter wraps twice
                finished = isinstance(event, TrialDone) and not event.again
                if finished or (isinstance(event, Running) and pace.due()):
                    build_study_report(analyse(study, scale, order, place, pace.facts(event)), place.out)
        except (KeyboardInterrupt, TrainingError):  # stopped: the page is not to wait for what does not come
            build_study_report(analyse(study, scale, order, place), place.out)
            raise
        finally:
            if pace.fresh:
                add_energy(place, energy.joules(), pace.seconds)
        if study.compare and not failed:
            bars.say("measuring the files side by side")
            measure_deployed(
                study, order, place, quick=size.quick,
                progress=lambda done, total: bars.update("measure", done, total, "processes"),
            )  # fmt: skip
    facts = analyse(study, scale, order, place)
    files = build_study_report(facts, place.out)
    if study.compare:
        write_text(place.out / "table.csv", csv_table(facts))
        write_text(place.out / "table.tex", latex_table(facts))
    if facts.maps:
        write_text(place.out / "map.csv", csv_map(facts.maps))
    if as_json:
        print(json.dumps(facts.model_dump(mode="json")))
    else:
        _print(facts)
        print(f"report  {files.html}")
    if failed:
        raise failed[0].error


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
        found.append(
            f"  timed a few steps of each distinct network on one thread in {forecast.probes_seconds:.0f} s, with "
            f"{100 * forecast.share:.0f} % of a core beside what else ran"
        )
    found += [f"not predicted: {name}: {why}" for name, why in forecast.unknown.items()]
    return found or (["nothing is left to run"] if arms else [])


def _total_in_words(forecast: Forecast, jobs: int) -> list[str]:
    total = sum(forecast.seconds.values())
    unit, name = (3600.0, "hours") if total >= 3600 else (60.0, "minutes")
    split = ", ".join(f"{seconds / unit:.2f} {key}" for key, seconds in forecast.seconds.items())
    also = f" ({total / 60:.0f} core-minutes)" if name == "hours" else ""
    return [
        f"predicted: {total / unit:.2f} core-{name}{also} for {forecast.runs} runs: {split}",
        f"  {total / unit / jobs:.2f} {name} with {jobs} at a time, if each has a core of its own; no GPU; scoring and "
        "timing of files not included",
    ]


class _Pace:
    """How far the study is, and how fast it goes."""

    def __init__(self, study: Study, size: Scale, total: int) -> None:
        self.study, self.size, self.total = study, size, total
        self.done, self.fresh, self.started, self.drawn = 0, 0, time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of this call so far."""
        return time.monotonic() - self.started

    def due(self) -> bool:
        """True when the page is older than PAGE_SECONDS; it then counts as drawn now."""
        now = time.monotonic()
        if now - self.drawn < PAGE_SECONDS:
            return False
        self.drawn = now
        return True

    def epochs(self, trial: Trial) -> int:
        """Return how many epochs a trial has, its own search included; 0 where that is known only once it starts."""
        from flyweight.studies.study import recipe_of

        arm = self.study.arms[trial.arm]
        if arm.cost:
            return 0
        tune = len(arm.tune.tries) * arm.tune.epochs if arm.tune else 0
        return tune + recipe_of(self.study, self.size, trial).total_epochs

    def facts(self, event: Any) -> RunningFacts | None:
        """Return what the page says of a running study."""
        from flyweight.report.study import RunningFacts

        if self.done >= self.total:
            return None
        left = None
        if self.fresh:
            left = self.seconds / self.fresh * (self.total - self.done)
        rows = [(trial.name, done, max(self.epochs(trial), done, 1)) for trial, done in getattr(event, "trials", ())]
        return RunningFacts(done=self.done, total=self.total, running=tuple(rows), seconds_left=left)


def _shown(event: Any, bars: Bars, pace: _Pace) -> Iterator[str]:
    """Move the bars; yield the lines to print."""
    kind = type(event).__name__
    if kind == "Running":
        for trial, epochs in event.trials:
            total = max(pace.epochs(trial), epochs, 1)
            bars.update(trial.name, epochs, total, f"  {trial.name}: {epochs} epochs done")
        return
    pace.done += 1
    bars.update("study", pace.done, pace.total, "runs")
    bars.drop(event.trial.name)
    if kind == "TrialFailed":
        yield f"{event.trial.name:44} failed: {event.error.what}"
    elif not event.again:
        pace.fresh += 1
        result = event.result
        if "diverged" in result:
            yield f"{event.trial.name:44} diverged, seen in epoch {result['diverged']['epoch']}"
            return
        yield (
            f"{event.trial.name:44} {100 * result['accuracy']:6.2f} %  {result['params']:6,} parameters  "
            f"{result['epochs']:3d} epochs  {result['train_seconds']:5.0f} s"
        )


def _print(facts: StudyFacts) -> None:
    for data in facts.datasets:
        images = f"{data.test_images:,} {'test' if facts.part == 'test' else 'validation'} images"
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
        print(facts.effort)
    for one in facts.maps:
        _print_map(one)
    for ranking in facts.rankings:
        _print_ranking(ranking)
    for verdict in facts.verdicts:
        low, value, high = (100 * (getattr(verdict.difference, part) or 0.0) for part in ("low", "value", "high"))
        print(f"\n{verdict.question} ({verdict.dataset})")
        print(
            f"  {verdict.answer}: {value:+.2f} points [{low:+.2f}, {high:+.2f}], p {verdict.p_holm:.2g} after Holm, "
            f"{verdict.seeds} seeds"
        )
    if facts.cost and facts.cost.both_runs:
        before, after = facts.cost.both_predicted, facts.cost.both_measured
        print(
            f"\n{facts.cost.both_runs} runs: {before.total / 60:.1f} core-minutes predicted, {after.core / 60:.1f} "
            f"measured; by the clock {after.total / 60:.1f} ({after.loading / 60:.1f} loading, "
            f"{after.computing / 60:.1f} computing, {after.validating / 60:.1f} validating)"
        )
    if facts.diverged:
        print(f"\n{len(facts.diverged)} runs diverged, or need one that did: {', '.join(facts.diverged)}")
    if facts.missing:
        print(f"\n{len(facts.missing)} runs are not finished; run the same command again")


def _print_map(one: MapFacts) -> None:
    print(f"\n{one.title}, {one.optimizer}: final accuracy (%) by rate and batch size; (slow), or seeds that diverged")
    lrs, sizes = sorted({cell.lr for cell in one.cells}), sorted({cell.batch_size for cell in one.cells})
    print(f"{'':10}" + "".join(f"{lr:>14g}" for lr in lrs))
    for size in sizes:
        cells = {cell.lr: cell for cell in one.cells if cell.batch_size == size}
        print(f"{size:10}" + "".join(f"{_in_words(cells[lr]) if lr in cells else '':>14}" for lr in lrs))


def _in_words(cell: CellFacts) -> str:
    value = "" if cell.accuracy.value is None else f"{100 * cell.accuracy.value:.1f}"
    if cell.outcome == "diverged":
        return f"{value} div {cell.course.diverged}/{cell.course.seeds}".strip()
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
    accuracy += f"  {one.diverged} of {one.diverged + len(one.per_seed)} seeds diverged" if one.diverged else ""
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
