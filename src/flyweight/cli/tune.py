"""`flyweight tune`: the recipe that is best on validation, within a budget, for as few image passes as possible."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.cli.progress import Bars, need_train_extra
from flyweight.cli.studying import TrainOn, jobs_on
from flyweight.errors import MissingExtraError
from flyweight.measure.budget import show

if TYPE_CHECKING:
    from flyweight.data.dataset import Dataset
    from flyweight.report.cost import CostFacts, SecondsFacts
    from flyweight.report.tuning import TuningFacts
    from flyweight.tune.search import Search


def tune(
    data: Annotated[str, typer.Argument(help="Folder, CSV, archive, cifar10:DIR, sample, ...")] = "",
    recipe: Annotated[str, typer.Option(help="What is changed; its epochs are the full training.")] = "default",
    space: Annotated[
        str | None,
        typer.Option(help="What may change: a shipped search space or a YAML file; default: by the recipe's network."),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change the recipe, e.g. epochs=20.")] = None,
    trials: Annotated[int, typer.Option(help="Most trials.", min=1)] = 40,
    minutes: Annotated[float | None, typer.Option(help="Begin no trial after so many minutes.", min=0.0)] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Stop when a gain of so many points has become unlikely, e.g. 0.5.", min=0.0),
    ] = None,
    budget: Annotated[str, typer.Option(help='Limits, e.g. "latency_p90<2ms,size<500KB".')] = "",
    objective: Annotated[
        str, typer.Option(help="What is optimised: a metric, then costs, e.g. accuracy,latency_p50.")
    ] = "",
    sampler: Annotated[str, typer.Option(help="tpe, gp, cmaes, qmc, random or grid.")] = "tpe",
    stop: Annotated[str, typer.Option(help="Ending trials early: halving, hyperband or none.")] = "halving",
    rungs: Annotated[int, typer.Option(help="Lengths of training, the full one included.", min=1, max=6)] = 3,
    eta: Annotated[float, typer.Option(help="Each rung is so many times shorter than the next.", min=1.5)] = 3.0,
    shrink: Annotated[str, typer.Option(help="What a shorter rung has less of: epochs, data, size.")] = "epochs,data",
    begin: Annotated[
        list[str] | None,
        typer.Option("--begin", help="Try this recipe, or the three best of this earlier search, first (repeat)."),
    ] = None,
    group: Annotated[str | None, typer.Option(help="Column or pattern that keeps images together.")] = None,
    quarantine: Annotated[Path | None, typer.Option(help="Leave out the images named in this file.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the files that are timed.", min=1)] = 1,
    jobs: Annotated[
        int | None, typer.Option(help="Workers, one core each; default: cores, or one with a GPU.", min=1)
    ] = None,
    device: TrainOn = "cpu",
    engine: Annotated[str, typer.Option(help="local, or ray.")] = "local",
    storage: Annotated[
        str | None, typer.Option(help="Database URL; default: sqlite in OUT. With PostgreSQL machines share a search.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the study in the database.")] = "tune",
    seed: Annotated[int, typer.Option(help="Of weights, order and suggestions.", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder; the same command continues it.")] = Path("runs/tune"),
    predict: Annotated[
        bool, typer.Option("--predict", help="Print what the search will cost, from a few timed steps, and stop.")
    ] = False,
    show_space: Annotated[str | None, typer.Option(help="Print a shipped search space and end.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json at the end.")] = False,
) -> None:
    """Search for the recipe that is best on validation: many short trainings, few long ones, none over the budget.

    The test part stays sealed. Stop it with Ctrl-C or lose power: the same command continues. OUT holds recipe.yaml
    (the best), report.html (which follows the search while it runs) and study.db, which optuna-dashboard opens too.
    """
    if show_space is not None:
        from flyweight.tune.space import load_space, shipped_spaces

        load_space(show_space)
        print(shipped_spaces()[show_space].rstrip())
        return
    need_train_extra()
    need_tune_extra()
    from flyweight.tune.conduct import conduct
    from flyweight.tune.plan import plan_search
    from flyweight.tune.search import Source

    source = Source(data, group, None if quarantine is None else str(quarantine))
    search, dataset = plan_search(
        source,
        recipe=recipe,
        settings=set_ or (),
        space=space,
        trials=trials,
        margin=None if margin is None else margin / 100,
        budget=budget,
        objectives=[one.strip() for one in objective.split(",") if one.strip()],
        sampler=sampler,
        stop=stop,
        rungs=rungs,
        eta=eta,
        shrinks=[one.strip() for one in shrink.split(",") if one.strip()],
        begin=begin or (),
        threads=threads,
        storage=storage,
        name=name,
        seed=seed,
        out=out,
        device=device,
    )
    workers = jobs_on(device, jobs)
    if predict:
        _predict(search, dataset, workers, as_json)
        return
    with Bars(quiet=as_json) as bars:
        for facts in conduct(search, dataset, engine=engine, jobs=workers, minutes=minutes, say=bars.say):
            bars.update("search", len(facts.trials), search.trials, "trials")
    if as_json:
        print(json.dumps(facts.model_dump(mode="json")))
    else:
        _print(facts, search, data)


def _more(facts: TuningFacts) -> str:
    best = facts.trial(facts.best or 0)
    if facts.in_full(best) or facts.best_expected is None:
        return ""
    return f" after {best.results[-1].images:,} image passes; {100 * facts.best_expected:.2f} % expected at full length"


def _in_words(facts: TuningFacts, number: int) -> str:
    trial = facts.trial(number)
    costs = [f"{name} {show(name, trial.costs[name] or 0.0)}" for name in facts.objectives[1:]]
    return ", ".join([f"{facts.objectives[0]} {100 * (trial.score or 0):.2f} %", *costs])


def need_tune_extra() -> None:
    """Raise MissingExtraError where Optuna is not installed."""
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise MissingExtraError(
            "flyweight tune needs Optuna, which is not installed", do="pip install 'flyweight[tune]'"
        )


def _predict(search: Search, dataset: Dataset, jobs: int, as_json: bool) -> None:
    from flyweight.tune.forecast import foresee, in_words

    forecast = foresee(search, dataset)
    print(json.dumps(asdict(forecast)) if as_json else "\n".join(in_words(forecast, jobs)))


def _cost(facts: TuningFacts, cost: CostFacts) -> Iterator[str]:
    """Yield what the search took, in minutes, beside what was predicted of it."""
    yield f"took: {cost.measured_runs} trainings, {_minutes(cost, cost.measured)}"
    if cost.both_runs:
        yield f"  predicted of {cost.both_runs} of them: {_minutes(cost, cost.both_predicted)}"
    if cost.predicted_runs > cost.both_runs:
        yield f"  predicted of all {cost.predicted_runs}: {_minutes(cost, cost.predicted)}"
    if cost.unsplit_runs:
        yield f"  {cost.unsplit_runs} more, of an earlier version: {cost.unsplit_seconds / 60:.2f} without validating"
    if facts.weighed:
        yield f"  weighing networks: {facts.weighing_seconds / 60:.2f} minutes by the clock"
    if cost.joules is not None:
        yield f"  energy: {cost.joules / 1e3:.1f} kJ of the whole processor, whatever ran on it"
    elif cost.energy_calls[1]:
        yield "  energy: this machine does not tell"


def _minutes(cost: CostFacts, seconds: SecondsFacts) -> str:
    parts = ", ".join(f"{getattr(seconds, key) / 60:.2f} {key}" for key in ("loading", "computing", "validating"))
    return f"{cost.spent(seconds) / 60:.2f} {cost.unit}-minutes; by the clock {parts}"


def _print(facts: TuningFacts, search: Search, data: str) -> None:
    print(f"\n{facts.ended}")
    share = facts.image_passes / facts.full_passes
    print(f"{len(facts.trials)} trials, {facts.image_passes:,} image passes ({share:.1f} full trainings)")
    if facts.cost is not None:
        print("\n".join(_cost(facts, facts.cost)))
    if deaths := sum(trial.deaths for trial in facts.trials):
        how = dict.fromkeys(words for trial in facts.trials for words in trial.died)
        print(
            f"{deaths} worker{'s' * (deaths > 1)} died; what they were at went on from its last checkpoint"
            + (f" ({'; '.join(how)})" if how else "")
        )
    for cause, count in Counter(trial.cause for trial in facts.trials if trial.status == "failed").items():
        print(f"{count} trial{'s' * (count > 1)} failed: {cause}")
    if disturbed := [str(trial.number) for trial in facts.trials if trial.disturbed]:
        print(
            f"DISTURBED by other programs: the latencies of trials {', '.join(disturbed)} are not their networks' own"
        )
    if facts.best is None:
        print("no trial came as far as the rung before the full one: give it more minutes")
        return
    best = facts.trial(facts.best)
    print(
        f"best: trial {best.number}, {facts.objectives[0]} {100 * (best.score or 0):.2f} % on validation{_more(facts)}"
    )
    for key, value in best.values.items():
        print(f"  {key:28} {value:.4g}" if isinstance(value, float) else f"  {key:28} {value}")
    for choice in facts.choices:
        named = ", ".join(f"{key} = {value}" for key, value in choice.choice.items())
        print(
            f"  {named:36} {'–' if choice.score is None else f'{100 * choice.score:.2f} %'}  ({choice.trials} trials)"
        )
    for edge in facts.edges:
        print(f"note: {edge}")
    for number, file in zip(facts.front, facts.front_recipes, strict=True):
        print(f"  front: trial {number}, {_in_words(facts, number)}  {file}")
    print(f"recipe  {facts.recipe}\nreport  {search.out / 'report.html'}")
    print(f"next    flyweight train {data} --recipe {facts.recipe} --set seed=1 --out runs/tuned")
