"""How many image passes a search needs to find what random search finds with 32 full trainings.

The problem: a small network on 10,000 images of Fashion-MNIST at 14 px, 20 epochs, the shipped search space `training`
(optimizer, its rate, weight decay, batch, label smoothing, warm-up). A full training is 200,000 image passes. Each
repetition has seeds of its own, and begins with a random search of 32 full trainings.

    target      mean accuracy, over three fresh seeds, of the recipe that random search ends with: retrained at full
                length, judged on 10,000 held-out images that no search trains or validates on (without seeds that
                diverge)
    passes      image passes of a search until its incumbent (the recipe that it would hand out at that moment: the best
                trained in full, before there is one the best expected), retrained and judged the same way, has at
                least the target. Every pass of
                every rung, pruned trial and diverged training counts. Every change of incumbent is judged; these
                retrainings are not search, and are not counted
    ratio       those passes over all of random search's. A search that spends as many without reaching the target ends
                there; its ratio, of 1 or more, is a lower bound (`reached` is false) and stays in the median

Searchers, one worker each, alike in space, recipe, data and length:
    ours                  `flyweight tune` as it comes: TPE, successive halving over epochs and data; it knows the
                          likely values of the shipped space and tries the given recipe first. Both were chosen by
                          people who had trained networks of this kind on this data set: what they are worth is in
    ours_without_priors   the same without both
    stock                 Optuna's TPESampler and HyperbandPruner (from 1 to 20 epochs), accuracy reported each epoch
    random                the random search of one repetition against the target of another: what luck is worth here

The claim is the median of the repetitions' ratios of ours; low and high are the smallest and the largest of them (of
five, they cover the median with 94 %). The official test part is not touched.

    FLYWEIGHT_DATA=DIR python benchmarks/search_efficiency.py [--repetitions 5] [--jobs 2] [--runs DIR]

The rules of the search were settled with --first-seed 100 and up and with other data, never on seeds 0 to 4.

Stop it anywhere: trainings go on from their last epoch. One thread a job. About 125 million image passes in all, of
which 32 are random search and 40 retraining; at 8,000 passes a second and core that is four and a half core-hours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from results_file import HERE, Measured, write_results
from searchers import BARE, OURS, RANDOM, STOCK, Problem, State, alone, judge, plan, race, state_of, stock, tuned

from flyweight.files import write_json
from flyweight.runtime.process import end_with_parent
from flyweight.tune.search import Source, search_code
from flyweight.tune.store import open_store

ARMS = (OURS, STOCK, RANDOM, BARE)
FRESH = (1001, 1002, 1003)
SETTINGS = (
    "model.name=tiny_cnn_6",
    "data.image_size=14",
    "data.channels=1",
    "data.val_fraction=0.08333",
    "augment.shift=1",
    "balance=none",
    "threads=1",
    "precision=fp32",
    "channels_last=true",
    "compile=false",
)
SIZE = {"epochs": 20, "images": 10_000, "held_out": 10_000, "trials": 32}
CLAIMED: dict[str, Any] = {
    **SIZE, "repetitions": 5, "first_seed": 0, "data": None, "space": "training", "settings": [],
}  # fmt: skip


def main() -> None:
    """Run what is missing, print the table; at the size of the claim write results/search_efficiency.json."""
    options = _options()
    problem = problem_of(options)
    _claim_folder(problem)
    repetitions = range(options.first_seed, options.first_seed + options.repetitions)
    _in_turn([(problem, number) for number in repetitions], target_of, options.jobs)
    tasks = [(problem, number, arm, repetitions) for arm in options.arms for number in repetitions]
    _in_turn(tasks, race_of, options.jobs)
    rows = [row_of(problem, number, arm, repetitions) for number in repetitions for arm in options.arms]
    print(f"\n{markdown(rows)}")
    if as_claimed(options):
        print(_write(problem, rows, options))
    else:
        print("not the problem of the claim, or not all of it: nothing is written to results/")


def as_claimed(options: argparse.Namespace) -> bool:
    """Return True where the run is the one that the claim is about, whole."""
    return all(getattr(options, key) == value for key, value in CLAIMED.items()) and set(ARMS) <= set(options.arms)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=CLAIMED["repetitions"])
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--arms", type=lambda text: tuple(text.split(",")), default=ARMS)
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs" / "search_efficiency")
    other = parser.add_argument_group("another problem; nothing is then written to results/")
    other.add_argument("--first-seed", type=int, default=0)
    other.add_argument("--data", help="in place of Fashion-MNIST")
    other.add_argument("--space", default="training")
    other.add_argument("--set", dest="settings", action="append", default=[], help="of the recipe")
    for key, value in SIZE.items():
        other.add_argument(f"--{key.replace('_', '-')}", type=int, default=value)
    return parser.parse_args()


def problem_of(options: argparse.Namespace) -> Problem:
    """Return the problem that is asked for."""
    if options.data is None and not os.environ.get("FLYWEIGHT_DATA"):
        sys.exit("FLYWEIGHT_DATA names no folder with the data sets")
    return Problem(
        data=options.data or f"fashion-mnist:{os.environ['FLYWEIGHT_DATA']}",
        space=options.space,
        settings=(*SETTINGS, *options.settings, f"epochs={options.epochs}"),
        images=options.images,
        held_out=options.held_out,
        trials=options.trials,
        seeds=FRESH,
        runs=options.runs,
    )


def _claim_folder(problem: Problem) -> None:
    """Write into the folder what its trainings are of and by which code, or end where it holds others."""
    file, content = problem.runs / "problem.json", json.loads(json.dumps({**problem.to_json(), **_data_of(problem)}))
    if not file.is_file():
        problem.runs.mkdir(parents=True, exist_ok=True)
        write_json(file, {**content, "code": search_code()})
        return
    there = json.loads(file.read_text("utf-8"))
    code = there.pop("code", None)
    if there != content:
        sys.exit(f"{problem.runs} holds trainings of another problem: choose another --runs")
    if code is None:
        print(f"{file} says nothing of the code its trainings were made by: it is not known", file=sys.stderr)
    elif code != search_code():
        differ = [key for key, value in search_code().items() if code.get(key) != value]
        sys.exit(f"{problem.runs} holds trainings by other code ({', '.join(differ)}): choose another --runs")


def _data_of(problem: Problem) -> dict[str, str]:
    dataset = Source(problem.data).load()
    return {"dataset": dataset.name, "fingerprint": dataset.fingerprint()}


def code_of(problem: Problem) -> dict[str, str] | str:
    """Return by which code the trainings of a folder were made."""
    found: dict[str, str] | None = json.loads((problem.runs / "problem.json").read_text("utf-8")).get("code")
    return found or "not known"


def _in_turn(tasks: Sequence[tuple[Any, ...]], function: Any, jobs: int) -> None:
    """Call the function for every task, several at a time in processes of their own; what one raises ends all."""
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_begin) as pool:
        waiting = [pool.submit(function, *task) for task in tasks]
        try:
            for done in as_completed(waiting):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin() -> None:
    """Be a job that has one thread, and no life after the script's."""
    end_with_parent()
    import torch

    torch.set_num_threads(1)


def target_of(problem: Problem, repetition: int) -> dict[str, Any]:
    """Return what the random search of a repetition found and took: `target`, `passes`, `retrained`, `number`."""
    file = problem.runs / f"repetition{repetition}" / "target.json"
    with alone(file.parent / "target"):
        if not file.is_file():
            search, dataset = plan(problem, RANDOM, repetition)
            for passes, incumbents in tuned(search, dataset):
                found = (passes, incumbents)
            accuracies = judge(problem, search, dataset, found[1][-1].values)
            best = found[1][-1]
            # One that diverged would make the target a low one that any search reaches.
            ended = [accuracy for accuracy in accuracies if accuracy > 0]
            if not ended:
                sys.exit(f"repetition {repetition}: what random search found diverges with every fresh seed")
            content = {"target": statistics.mean(ended), "passes": found[0], "retrained": accuracies}
            write_json(file, {**content, "number": best.number, "score": best.score, "values": dict(best.values)})
            print(f"repetition {repetition}: target {100 * content['target']:.2f} %", flush=True)
    content = json.loads(file.read_text("utf-8"))
    return dict(content)


def race_of(problem: Problem, repetition: int, arm: str, repetitions: Sequence[int]) -> dict[str, Any]:
    """Return how a searcher of a repetition reached its target, run where that is not known yet."""
    file = problem.runs / f"repetition{repetition}" / f"{arm}.json"
    following = repetitions[(repetitions.index(repetition) + 1) % len(repetitions)]
    goal = target_of(problem, following if arm == RANDOM else repetition)
    with alone(file.parent / f"{arm}-race"):
        known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        if known.get("target") != goal["target"]:
            search, dataset = plan(problem, arm, repetition)
            with closing(states_of(problem, repetition, arm)) as states:
                found = race(
                    states, lambda values: judge(problem, search, dataset, values), goal["target"], goal["passes"]
                )
            known = {**found, "target": goal["target"], "random_passes": goal["passes"]}
            write_json(file, known)
            ending = "reached" if known["reached"] else "not reached"
            print(f"repetition {repetition}, {arm}: {ending}, {known['passes'] / goal['passes']:.3f}", flush=True)
    return dict(known)


def states_of(problem: Problem, repetition: int, arm: str) -> Generator[State]:
    """Yield where the search of an arm stands after each training; random search's is finished already."""
    search, dataset = plan(problem, arm, repetition)
    if arm == RANDOM:
        store = open_store(search.storage, search.name, facts=search.facts(dataset), directions=search.directions)
        yield state_of(search, store.trials())
        return
    yield from (stock if arm == STOCK else tuned)(search, dataset)


def row_of(problem: Problem, repetition: int, arm: str, repetitions: Sequence[int]) -> dict[str, Any]:
    """Return a row of the table."""
    found = race_of(problem, repetition, arm, repetitions)
    return {"repetition": repetition, "arm": arm, "ratio": found["passes"] / found["random_passes"], **found}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table: a row for each repetition and searcher, then the medians."""
    lines = ["| repetition | searcher | target | passes | of random's | incumbents judged |", f"|{' --- |' * 6}"]
    for row in rows:
        ratio = f"{row['ratio']:.3f}" if row["reached"] else f"> {row['ratio']:.3f}"
        lines.append(
            f"| {row['repetition']} | {row['arm']} | {100 * row['target']:.2f} % | {row['passes']:,} | {ratio} "
            f"| {len(row['checks'])} |"
        )
    for arm in dict.fromkeys(row["arm"] for row in rows):
        found = ratios(rows, arm)
        lines.append(
            f"\n{arm}: median {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] of random's, n = {found.n}"
        )
    return "\n".join(lines)


def ratios(rows: Sequence[dict[str, Any]], arm: str) -> Measured:
    """Return the median of an arm's ratios; one that was not reached counts as the 1 or more that it spent."""
    return Measured.median_and_range([row["ratio"] for row in rows if row["arm"] == arm])


def _write(problem: Problem, rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> Path:
    seeds = range(options.first_seed, options.first_seed + options.repetitions)
    targets = [target_of(problem, number) for number in seeds]
    return write_results(
        "search_efficiency.json",
        {"passes_vs_random": ratios(rows, OURS)},
        seeds=seeds,
        conditions={
            "problem": {**problem.to_json(), **_data_of(problem)},
            "code": code_of(problem),
            "threads": 1,
            "interval": "smallest and largest of the repetitions; of five they cover the median with 94 %",
            "judged": "10,000 held-out training images, mean of three fresh seeds; the test part is not touched",
        },
        details={
            "medians": {arm: vars(ratios(rows, arm)) for arm in options.arms},
            "not_reached": {arm: sum(not row["reached"] for row in rows if row["arm"] == arm) for arm in options.arms},
            "rows": list(rows),
            "targets": targets,
        },
    )


if __name__ == "__main__":
    main()
