"""The public functions: what the commands do, for programs.

    from flyweight.api import Budget, fit, load_data, load_recipe, train, export, verify, measure, predict

Nothing heavy is imported until a function is called; training and export need the `train` extra.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flyweight.data.audit import Audit, audit
from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.data.split import Split, split
from flyweight.errors import FlyweightError
from flyweight.export.c.check import compile_if_ours
from flyweight.measure.budget import Budget
from flyweight.measure.speed import Measurement, measure
from flyweight.measure.sweep import sweep
from flyweight.measure.table import Sweep
from flyweight.measure.verify import Verified, verify
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.predict import Prediction, Predictor
from flyweight.train.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from flyweight.compress.chain import Compressed
    from flyweight.fit import Fitted
    from flyweight.report.study import StudyFacts
    from flyweight.report.tuning import TuningFacts
    from flyweight.studies.study import Scale, Study, Trial
    from flyweight.studies.trial import Place
    from flyweight.train.trained import Trained

__all__ = [
    "Audit",
    "Budget",
    "Bundle",
    "Dataset",
    "FlyweightError",
    "Measurement",
    "Prediction",
    "Predictor",
    "Recipe",
    "Split",
    "Sweep",
    "Verified",
    "ablate",
    "audit",
    "compare",
    "compress",
    "convert",
    "export",
    "fit",
    "load_data",
    "load_recipe",
    "measure",
    "predict",
    "reproduce",
    "split",
    "sweep",
    "train",
    "tune",
    "verify",
]


def train(dataset: Dataset, recipe: Recipe, out: Path | str, *, device: str | None = None) -> Trained:
    """Train in the folder `out` and return the result; a stopped run continues, a finished one is read back.

    Raises:
        RecipeError: The folder holds a run of another recipe.
        TrainingError: The loss is not finite, or memory is too small.
        DataError: Images cannot be read, or a class is missing from a part.
        OutputError: The folder cannot be written.
    """
    from flyweight.train.run import train_and_wait

    return train_and_wait(dataset, recipe, Path(out), device=device)


def export(trained: Trained, dataset: Dataset, out: Path | str, *, reject_threshold: float | None = None) -> Bundle:
    """Return the bundle written at `out`: ONNX with normalisation inside, calibrated on validation, checked.

    Raises:
        ExportError: The file disagrees with the network.
        OutputError: `out` cannot be written.
    """
    from flyweight.export import export as export_bundle

    return export_bundle(trained, dataset, Path(out), reject_threshold=reject_threshold)


def compress(
    source: Path | str,
    steps: Sequence[str],
    dataset: Dataset,
    out: Path | str,
    *,
    part: Literal["val", "test"] = "val",
    margin: float = 0.01,
    threads: int = 1,
    timing: Literal["full", "quick", "none"] = "full",
    device: str | None = None,
) -> Compressed:
    """Return a run or bundle after steps of compression, with the trials that say whether it ships.

    A stopped chain continues when it is called again with the same arguments.

    Args:
        source: Folder of a finished run, or a bundle.
        steps: Such as ("prune:macs=0.5", "finetune:epochs=3", "int8"); what changes the network comes first.
        part: Images that decide; test opens the sealed part, and logs it.
        margin: Share of the images (0 to 1) that may be lost, with 95 % confidence.
        threads: Of the model while it is timed.

    Raises:
        CompressError: A step is unknown, in the wrong place, or cannot be done here.
        ExportError: A file disagrees with its network.
        DataError, OutputError: As the command's.
    """
    from flyweight.compress.chain import Compressed, Request, parse_steps
    from flyweight.compress.chain import compress as run_chain
    from flyweight.compress.files.variant import Conditions

    how = Conditions(part, margin, threads, timing)
    request = Request(Path(source), parse_steps(steps), dataset, Path(out), how, device=device)
    for event in run_chain(request):
        if isinstance(event, Compressed):
            return event
    raise AssertionError("a chain ends with Compressed")


def convert(
    bundle: Bundle | Path | str,
    to: str,
    out: Path | str,
    *,
    precision: str | None = None,
    data: Dataset | None = None,
    run: Path | str | None = None,
    default: bool = False,
) -> Bundle:
    """Return the bundle written at `out` with one more variant: another format or precision of its float file.

    Args:
        to: A format of docs/formats.md.
        precision: The format's usual one without.
        data: What the bundle was trained on: to calibrate on, and to compare the files on; the test part stays sealed.
        run: Folder of the run, where the bundle ships no training weights and the format is written from torch.
        default: Make it the variant that is used when none is named.

    Raises:
        OrderError: `bundle` is the folder of a run.
        ExportError: The format cannot express the network, or the file disagrees with the float one.
        MissingExtraError: The format's packages are not installed.
        OutputError: `out` cannot be written.
    """
    from flyweight.export.convert import convert as run_convert
    from flyweight.export.convert import open_bundle
    from flyweight.export.images import real_images

    opened = bundle if isinstance(bundle, Bundle) else open_bundle(Path(bundle))
    images = None if data is None else real_images(opened, data)
    where = None if run is None else Path(run)
    return run_convert(opened, to, Path(out), precision=precision, images=images, run=where, default=default).bundle


def predict(
    bundle: Bundle | Path | str, sources: Iterable[Path | bytes], *, top_k: int = 5, threads: int | None = None
) -> Iterator[Prediction]:
    """Yield the classes of images, most likely first, with calibrated confidence (0 to 1).

    Raises:
        BundleError: Not a bundle, damaged or changed.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(Path(bundle))
    compile_if_ours(opened, opened.variant())
    return Predictor(opened, threads=threads).predict(list(sources), top_k=top_k)


def fit(data: str | Path, budget: Budget | str, out: Path | str, *, minutes: float = 10.0, seed: int = 0) -> Fitted:
    """Return the most accurate classifier that meets the budget, as a bundle and a report in `out`.

    Args:
        data: Any source that `load_data` takes.
        minutes: Time for training on this machine.

    Raises:
        BudgetError: Nothing fits; the message says which limit binds.
        DataError, DeviceError, OutputError: As the command's.
    """
    from flyweight.fit import FitRequest, Fitted
    from flyweight.fit import fit as run_fit

    limits = budget if isinstance(budget, Budget) else Budget.parse(budget)
    for event in run_fit(FitRequest(str(data), limits, Path(out), minutes=minutes, seed=seed)):
        if isinstance(event, Fitted):
            return event
    raise AssertionError("fit ends with Fitted")


def tune(
    data: str,
    out: Path | str,
    *,
    recipe: str = "default",
    settings: Sequence[str] = (),
    space: str | None = None,
    trials: int = 40,
    minutes: float | None = None,
    margin: float | None = None,
    budget: str = "",
    objectives: Sequence[str] = (),
    sampler: str = "tpe",
    stop: str = "halving",
    begin: Sequence[str] = (),
    jobs: int = 1,
    device: str = "cpu",
    engine: str = "local",
    seed: int = 0,
) -> TuningFacts:
    """Return what a search for the best recipe on validation found; recipe.yaml in `out` is that recipe.

    A stopped search continues when it is called again with the same arguments.

    Args:
        data: A source as `load_data` takes it.
        recipe: Shipped recipe or file that is changed; its epochs are the full training.
        settings: Changes to the recipe, such as "epochs=20".
        space: Shipped search space or YAML file; None: that of the network's family.
        trials: Most trials.
        minutes: Begin no trial after so many.
        margin: Stop when a gain of this share (0 to 1) of the images has become unlikely.
        budget: Limits that no trial may break, such as "latency_p90<2ms,size<500KB".
        objectives: A metric, then costs, such as ("accuracy", "latency_p50").
        sampler: tpe, gp, cmaes, qmc, random or grid.
        stop: halving, hyperband or none.
        begin: Recipes, and folders of earlier searches, that are tried first.
        jobs: Workers, one core each.
        device: What trains: cpu or cuda. Files are timed on the processor all the same.
        engine: local, or ray.

    Raises:
        RecipeError: The recipe, space, sampler or objectives are unknown or impossible, or `out` has another search.
        BudgetError: The budget cannot be read, or contradicts itself.
        DataError: The images cannot be read.
        OutputError: `out` or its database cannot be written.
    """
    from flyweight.tune.conduct import conduct
    from flyweight.tune.plan import plan_search
    from flyweight.tune.search import Source

    search, dataset = plan_search(
        Source(data),
        out=Path(out),
        recipe=recipe,
        settings=settings,
        space=space,
        trials=trials,
        margin=margin,
        budget=budget,
        objectives=objectives,
        sampler=sampler,
        stop=stop,
        begin=begin,
        seed=seed,
        device=device,
    )
    *_, facts = conduct(search, dataset, engine=engine, jobs=jobs, minutes=minutes)
    return facts


def compare(
    data: str | Sequence[str],
    models: Sequence[str],
    out: Path | str,
    *,
    recipe: str = "compare",
    settings: Sequence[str] = (),
    seeds: int = 3,
    tries: int = 1,
    tune_epochs: int = 3,
    per_class: Sequence[int] = (),
    pretrained: Sequence[str] = (),
    quarantine: Path | None = None,
    part: str = "test",
    jobs: int = 1,
    device: str = "cpu",
) -> StudyFacts:
    """Return what training every network on every data set with every seed showed: accuracy, cost, and which differ.

    `out` holds the page, `report.json`, `table.csv` and `table.tex`. A stopped comparison continues when it is called
    again with the same arguments.

    Args:
        data: Sources as `load_data` takes them.
        recipe: What all are trained by: shipped, or a file.
        settings: Changes to the recipe, such as "epochs=20".
        seeds: Runs of each network on each data set; nothing is said of which differ with fewer than 3.
        tries: Learning rates that each network tries on validation first, `tune_epochs` each.
        per_class: Training images a class; several are nested subsets. (): all.
        pretrained: Names of weights; each adds an arm that begins with them.
        quarantine: File that names images to leave out.
        part: test, or val where the outcome decides something.
        jobs: Runs at a time, one thread each.
        device: What trains: cpu or cuda. Files are timed on the processor all the same.

    Raises:
        RecipeError: Fewer than two arms, more seeds than folds, or `out` has another study.
        ModelError: There is no such network, or no such weights.
        TrainingError: A run failed; the others are finished and on the page.
        DataError, OutputError: As the command's.
    """
    from flyweight.studies.compared import comparison
    from flyweight.studies.study import Subset

    study = comparison(
        [data] if isinstance(data, str) else data,
        models,
        load_recipe(recipe).with_settings(settings),
        seeds=seeds,
        tries=tries,
        tune_epochs=tune_epochs,
        sizes=[Subset(per_class=count) for count in per_class],
        part=part,
        pretrained=pretrained,
        quarantine=quarantine,
    )
    return _own(study, out, jobs, device)


def ablate(
    data: str | Sequence[str],
    factors: Sequence[str],
    out: Path | str,
    *,
    design: str = "one-at-a-time",
    recipe: str = "compare",
    settings: Sequence[str] = (),
    seeds: int = 3,
    retune: Sequence[str] = (),
    tune_epochs: int = 3,
    per_class: int | None = None,
    quarantine: Path | None = None,
    part: str = "test",
    jobs: int = 1,
    device: str = "cpu",
) -> StudyFacts:
    """Return what training a recipe with and without each of its parts showed: which help, by how much.

    `out` holds the page and `report.json`. A stopped ablation continues when it is called again.

    Args:
        data: Sources as `load_data` takes them.
        factors: Parts, each "NAME: key=value, key=value".
        design: one-at-a-time, cumulative, leave-one-out or factorial.
        recipe: The base, without the parts: shipped, or a file.
        settings: Changes to the base, such as "epochs=20".
        retune: Settings that every arm tries on validation first, such as "optim.lr=0.01", `tune_epochs` each.
        per_class: Training images a class; None: all.
        quarantine: File that names images to leave out.
        part: test, or val where the outcome decides something.
        jobs: Runs at a time, one thread each.
        device: What trains: cpu or cuda. Files are timed on the processor all the same.

    Raises:
        RecipeError: An unknown design, factors that are none, more seeds than folds, or `out` has another study.
        TrainingError: A run failed; the others are finished and on the page.
        DataError, OutputError: As the command's.
    """
    from flyweight.studies.ablation import ablation, parse_factor

    base = load_recipe(recipe).with_settings(settings)
    study = ablation(
        [data] if isinstance(data, str) else data,
        [parse_factor(text, base) for text in factors],
        base,
        design=design,
        seeds=seeds,
        retune=retune,
        tune_epochs=tune_epochs,
        per_class=per_class,
        part=part,
        quarantine=quarantine,
    )
    return _own(study, out, jobs, device)


def reproduce(
    study: str,
    data: Path | str,
    out: Path | str,
    *,
    scale: str = "cpu",
    datasets: Sequence[str] = (),
    arms: Sequence[str] = (),
    seeds: int | None = None,
    jobs: int = 1,
    device: str = "cpu",
) -> StudyFacts:
    """Return what a shipped study found here; `out` holds its page and `report.json`.

    A stopped study continues when it is called again.

    Args:
        study: tiny_cnn, tiny_family, lightweight_five, tuning_seven, few_images or all_images.
        data: Folder that holds the data sets.
        scale: smoke, cpu or full.
        datasets: Only these; (): the scale's.
        arms: Only these, and those they need; (): the scale's.
        seeds: Runs of each arm; None: the scale's.
        jobs: Runs at a time, one thread each.
        device: What trains: cpu or cuda. Files are timed on the processor all the same.

    Raises:
        RecipeError: There is no such study, scale, data set or arm, or `out` has another study.
        TrainingError: A run failed; the others are finished and on the page.
        DataError, OutputError: As the command's.
    """
    from flyweight.studies.study import plan_study
    from flyweight.studies.trial import Place

    chosen, size, order = plan_study(study, scale, seeds=seeds, datasets=datasets, arms=arms)
    return _conducted(chosen, scale, size, order, Place(Path(data), Path(out), device), jobs)


def _own(study: Study, out: Path | str, jobs: int, device: str) -> StudyFacts:
    """Return what a study of the caller's own data found: it has one scale, and names its sources itself."""
    from flyweight.studies.study import trials
    from flyweight.studies.trial import Place

    size = study.scales["own"]
    return _conducted(study, "own", size, trials(study, size), Place(Path(), Path(out), device), jobs)


def _conducted(study: Study, scale: str, size: Scale, order: list[Trial], place: Place, jobs: int) -> StudyFacts:
    from flyweight.studies.conduct import conduct

    found = conduct(study, scale, size, order, place, jobs=jobs)
    if found.errors:
        raise found.errors[0]
    return found.facts
