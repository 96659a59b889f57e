"""The searchers that benchmarks/search_efficiency.py compares, on one problem, and how their recipes are judged."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from flyweight.data.batches import Batches
from flyweight.data.cache import build_fixed
from flyweight.data.dataset import Dataset
from flyweight.data.subset import balanced_subset
from flyweight.files import Lease, write_json
from flyweight.train.divergence import Diverged
from flyweight.train.loop import EpochDone, predict_logits
from flyweight.train.prepare import split_for
from flyweight.train.recipe import DataPart, Recipe
from flyweight.train.run import DIVERGED, Finished, run, train_and_wait
from flyweight.train.trained import Trained
from flyweight.tune.plan import plan_search
from flyweight.tune.search import Search, Source
from flyweight.tune.space import Param, keys_of
from flyweight.tune.store import open_store
from flyweight.tune.suggest import expected_at_full, leaders
from flyweight.tune.trials import rungs_of
from flyweight.tune.worker import Train, trial_folder, work

OURS, BARE, STOCK, RANDOM = "ours", "ours_without_priors", "stock", "random"
# What `flyweight tune` does where nothing is asked for.
DEFAULTS: dict[str, Any] = {
    "sampler": "tpe", "stop": "halving", "rungs": 3, "eta": 3.0, "shrinks": ("epochs", "data"),
}  # fmt: skip
ENDLESS = 100_000  # trials; ours ends by its passes
NAME = "search"


@dataclass(frozen=True)
class Problem:
    """What is searched, and how a recipe is judged.

    Attributes:
        data: As `flyweight tune` takes it.
        space: A shipped space or a YAML file.
        settings: Of the recipe `default`; its epochs are the full training.
        images: That are trained on.
        held_out: Images of the training part that judge a retrained recipe: never trained on, never validated on.
        trials: Full-length ones of random search.
        seeds: Of retraining; no search trains with one of them.
        runs: Folder of everything that is kept.
    """

    data: str
    space: str
    settings: tuple[str, ...]
    images: int
    held_out: int
    trials: int
    seeds: tuple[int, ...]
    runs: Path

    def to_json(self) -> dict[str, Any]:
        """Return what makes it this problem; where it is kept does not."""
        return {key: value for key, value in asdict(self).items() if key not in ("runs", "data")}

    def folder(self, repetition: int, arm: str) -> Path:
        """Return where a searcher of a repetition keeps its trials."""
        return self.runs / f"repetition{repetition}" / arm


@dataclass(frozen=True)
class Incumbent:
    """The best recipe so far of a search, by what it knows at that moment.

    Attributes:
        number: Of the trial.
        passes: Image passes of the whole search until its training was done.
    """

    number: int
    passes: int
    score: float
    values: Mapping[str, Any]


State = tuple[int, list[Incumbent]]  # image passes so far, every incumbent so far


def plan(problem: Problem, arm: str, repetition: int) -> tuple[Search, Dataset]:
    """Return the search of an arm as `flyweight tune` plans it.

    Random search, stock Optuna and ours without priors know no likely values and are not told the recipe's own.
    """
    dataset = Source(problem.data).load()
    settings = (*problem.settings, f"data.train_fraction={problem.images / _train_images(problem, dataset)}")
    how = DEFAULTS | ({"sampler": "random", "stop": "none"} if arm in (RANDOM, STOCK) else {})
    search, dataset = plan_search(
        Source(problem.data), recipe="default", settings=settings, space=problem.space,
        trials=problem.trials if arm == RANDOM else ENDLESS, margin=None, budget="", objectives=(), begin=(),
        threads=1, storage=None, name=NAME, seed=repetition, out=problem.folder(repetition, arm), **how,
    )  # fmt: skip
    if arm == OURS:
        return search, dataset
    params = tuple(param.model_copy(update={"likely": None}) for param in search.space.params)
    return replace(search, queue=(), space=search.space.model_copy(update={"params": params})), dataset


def _train_images(problem: Problem, dataset: Dataset) -> int:
    return len(split_for(dataset, _data_part(problem)).train)


def _data_part(problem: Problem) -> DataPart:
    """Return the recipe's data part before it is thinned."""
    return Recipe().with_settings([one for one in problem.settings if one.startswith("data.")]).data


def tuned(search: Search, dataset: Dataset) -> Iterator[State]:
    """Take part in a search of `flyweight tune`, alone; yield where it stands after each training."""
    store = open_store(search.storage, search.name, facts=search.facts(dataset), directions=search.directions)
    yield state_of(search, store.trials())
    for step in work(search, dataset, store):
        if isinstance(step, Train):
            yield state_of(search, store.trials())


def state_of(search: Search, trials: Sequence[FrozenTrial]) -> State:
    """Return every image pass and incumbent, in the order in which trainings ended; those that diverged are counted.

    The incumbent is what `flyweight tune` would hand out at that moment (`winners.best_first`): the best of those
    trained in full, and before the first of them the best expected of those that came as far as the rung before. A
    trial that diverged is none.
    """
    ends: list[tuple[float, int, int, int | None, float]] = []  # when, trial, passes, rung, score
    for index, trial in enumerate(trials):
        found = rungs_of(search, trial)
        ends += [(one["done"], index, one["images"], rung, one["score"]) for rung, one in found.items()]
        ends += [(when, index, passes, None, 0.0) for when, passes in _diverged(search, trial, found)]
    passes, incumbents, scores = 0, list[Incumbent](), [dict[int, float]() for _ in trials]
    for _, index, images, rung, score in sorted(ends, key=lambda end: end[:2]):
        passes += images
        scores[index] = {} if rung is None else {**scores[index], rung: score}
        full = [one for one, scored in enumerate(scores) if search.full in scored]
        first = max(full, key=lambda one: scores[one][search.full], default=None)
        best = next(iter(leaders(scores, search.full)), None) if first is None else first
        if best is not None and (not incumbents or trials[best].number != incumbents[-1].number):
            trial, expected = trials[best], expected_at_full(scores, search.full)[best]
            values = keys_of(search.space.params, trial.params)
            incumbents.append(Incumbent(trial.number, passes, expected or 0.0, values))
    return passes, incumbents


def _diverged(search: Search, trial: FrozenTrial, found: Mapping[int, Any]) -> Iterator[tuple[float, int]]:
    """Yield (time, passes) of trainings without a result: every epoch that was begun counts whole."""
    for number, rung in enumerate(search.ladder):
        file = trial_folder(search, trial.number) / f"rung{number}" / DIVERGED
        if number not in found and file.is_file():
            epochs = json.loads(file.read_text("utf-8"))["epoch"]
            yield file.stat().st_mtime, epochs * rung.images // rung.epochs


def stock(search: Search, dataset: Dataset) -> Iterator[State]:
    """Search with Optuna as it comes: TPESampler and HyperbandPruner, validation accuracy reported each epoch.

    Args:
        search: Its space, recipe, seed and folder are used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search.out.mkdir(parents=True, exist_ok=True)
    storage, epochs = f"sqlite:///{search.out / 'study.db'}", search.recipe.epochs
    others = {one for one in optuna.get_all_study_names(storage) if one != study_name(search)}
    if others:
        sys.exit(f"{search.out} holds the study {', '.join(others)}, of another version of this script: remove it")
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    study = optuna.create_study(
        storage=storage, study_name=study_name(search), direction="maximize", pruner=pruner, load_if_exists=True
    )
    # A search that goes on must not draw again what it began with.
    study.sampler = optuna.samplers.TPESampler(seed=1000 * search.seed + len(study.trials))
    yield stock_state(search, study.trials)
    while True:
        begun = [trial for trial in study.trials if trial.state is TrialState.RUNNING]
        trial = optuna.Trial(study, begun[0]._trial_id) if begun else study.ask()
        state, value = _trained(search, dataset, trial)
        study.tell(trial, value, state=state)
        yield stock_state(search, study.trials)


def study_name(search: Search) -> str:
    """Return a name of stock Optuna's study that no other repetition has: its Hyperband draws the brackets from it."""
    return f"{NAME}-{search.seed}"


def _trained(search: Search, dataset: Dataset, trial: optuna.Trial) -> tuple[TrialState, float | None]:
    """Train a trial epoch by epoch until it is pruned; every epoch that was begun is counted."""
    values: dict[str, Any] = {}
    for param in search.space.params:
        if param.active(values):
            values[param.key] = _ask(trial, param)
    recipe, images = search.trial_recipe(values), search.ladder[search.full].images // search.recipe.epochs
    accuracy = 0.0
    try:
        for event in run(dataset, recipe, trial_folder(search, trial.number), device="cpu"):
            if isinstance(event, EpochDone):
                epoch, accuracy = int(event.row["epoch"]), event.row["val_accuracy"]
                trial.set_user_attr("passes", epoch * images)
                trial.report(accuracy, epoch)
                if trial.should_prune():
                    return TrialState.PRUNED, None
            elif isinstance(event, Finished):  # also where it goes on after the last epoch: none is trained then
                epoch, accuracy = recipe.epochs, event.trained.metrics["val_accuracy"]
                trial.set_user_attr("passes", epoch * images)
    except Diverged as error:
        trial.set_user_attr("passes", error.epoch * images)
        return TrialState.FAIL, None
    return TrialState.COMPLETE, accuracy


def _ask(trial: optuna.Trial, param: Param) -> Any:
    if param.choices:
        return trial.suggest_categorical(param.name, param.choices)
    low, high = param.range
    if param.integer:
        return trial.suggest_int(param.name, int(low), int(high), log=param.log)
    return trial.suggest_float(param.name, low, high, log=param.log)


def stock_state(search: Search, trials: Sequence[FrozenTrial]) -> State:
    """Return the passes of every trial, pruned ones too, and the incumbents among the complete ones."""
    passes, incumbents = 0, list[Incumbent]()
    for trial in trials:
        passes += trial.user_attrs.get("passes", 0)
        if trial.state is TrialState.COMPLETE:
            score = float(trial.values[0])
            if not incumbents or score > incumbents[-1].score:
                incumbents.append(Incumbent(trial.number, passes, score, keys_of(search.space.params, trial.params)))
    return passes, incumbents


def judge(problem: Problem, search: Search, dataset: Dataset, values: Mapping[str, Any]) -> list[float]:
    """Return the accuracy on the held-out images of a recipe retrained at full length, for each fresh seed.

    Each recipe is retrained once and remembered, whichever search it comes from. One that diverges has accuracy 0.
    """
    recipe = search.trial_recipe(values)
    facts = {"recipe": recipe.model_dump(mode="json", exclude={"seed", "name"}), "data": dataset.fingerprint()}
    facts["held_out"] = problem.held_out
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    folder = problem.runs / "retrained" / digest
    return [_retrained(problem, dataset, recipe, seed, folder / str(seed)) for seed in problem.seeds]


def _retrained(problem: Problem, dataset: Dataset, recipe: Recipe, seed: int, folder: Path) -> float:
    file = folder / "result.json"
    with alone(folder):
        if not file.is_file():
            try:
                own = recipe.model_copy(update={"seed": seed})
                trained = train_and_wait(dataset, own, folder / "run", device="cpu")
                accuracy = held_out_accuracy(trained, dataset, held_out_images(problem, dataset))
            except Diverged:
                accuracy = 0.0
            write_json(file, {"accuracy": accuracy, "seed": seed, "recipe": recipe.model_dump(mode="json")})
        found: float = json.loads(file.read_text("utf-8"))["accuracy"]
    return found


def held_out_images(problem: Problem, dataset: Dataset) -> np.ndarray[Any, Any]:
    """Return indices of training images that no search trains or validates on, equally many of each class."""
    part = _data_part(problem)
    everything = split_for(dataset, part).train
    fraction = problem.images / len(everything)
    used = split_for(dataset, part.model_copy(update={"train_fraction": fraction})).train
    return balanced_subset(dataset, np.setdiff1d(everything, used), problem.held_out)


def held_out_accuracy(trained: Trained, dataset: Dataset, chosen: np.ndarray[Any, Any]) -> float:
    """Return the share of those images that a trained network names."""
    batches = Batches(
        build_fixed(dataset, chosen, trained.preprocess), dataset.labels[chosen], batch_size=512,
        image_size=trained.preprocess.image_size, policy=None, num_classes=len(dataset.classes), train=False,
    )  # fmt: skip
    logits, labels = predict_logits(trained.network(), batches, trained.recipe)
    return float((logits.argmax(1) == labels).float().mean())


def race(
    states: Iterator[State], judged: Callable[[Mapping[str, Any]], list[float]], target: float, limit: int
) -> dict[str, Any]:
    """Follow a search until an incumbent, retrained, is as good as the target, or its passes reach the limit.

    Returns:
        `reached`, `passes` until then (of all, where it was not reached) and a row of every incumbent judged.
    """
    checks: list[dict[str, Any]] = []
    passes = 0
    for passes, incumbents in states:
        for one in incumbents[len(checks) :]:
            accuracies = judged(one.values)
            checks.append({**asdict(one), "retrained": accuracies})
            if statistics.mean(accuracies) >= target:
                return {"reached": True, "passes": one.passes, "checks": checks}
        if passes >= limit:
            break
    return {"reached": False, "passes": passes, "checks": checks}


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from the folder; the lock is gone when this process is."""
    folder.mkdir(parents=True, exist_ok=True)
    lease = Lease(folder / ".lock", fcntl.LOCK_EX)
    try:
        yield
    finally:
        lease.close()
