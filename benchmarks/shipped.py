"""Train, quantize, score and ship the rows of a table of bundles: what the benchmarks of accuracy under a limit share.

Each seed is trained by the row's recipe, then trained on its int8 levels with itself as the teacher (recipe `qat`), and
both are scored once, as ONNX files through ONNX Runtime, on the full official test part. The seed with the best
validation accuracy becomes the bundle.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from results_file import HERE, Measured

from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.data.split import open_test
from flyweight.export import export
from flyweight.export.bundle import copy_bundle, record_accuracy
from flyweight.export.counted import counted_params
from flyweight.export.trained import export_variant
from flyweight.measure.accuracy import score
from flyweight.measure.speed import time_models
from flyweight.measure.statistics import mean_interval, paired_bootstrap, wilson
from flyweight.measure.verify import logits_of
from flyweight.models.cost import count
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.predict import Predictor
from flyweight.train.answers import validation_logits
from flyweight.train.recipe import load_recipe
from flyweight.train.run import EpochDone, Finished, run
from flyweight.train.trained import Trained

BUNDLES = HERE.parent / "bundles"


@dataclass(frozen=True)
class Row:
    """One bundle.

    Attributes:
        claim: Name of its accuracy's claim, as in claims.json.
        limit: Most parameters, or None where the int8 file's bytes are the limit.
        bytes_limit: Most bytes of the int8 file.
        teacher: Name of the row whose run of seed 0 teaches.
        claimed: The variant that is claimed, and the default of the bundle.
        seeds: How many are run; None: as many as asked for.
        levels: Epochs on the int8 levels.
        mirror: Answer with the mean over an image and its mirror image.
        alone: True where only the claimed file is shipped, without the weights to go on from: they would be many times
            its size.
    """

    name: str
    dataset: str
    published: float
    claim: str
    limit: int | None
    bytes_limit: int
    claimed: str = "fp32"
    teacher: str | None = None
    seeds: int | None = None
    levels: int = 3
    mirror: bool = False
    alone: bool = False


def prepare(about: str | None, rows: Sequence[Row], runs: Path, seeds: int) -> argparse.Namespace:
    """Read the command line and train what is missing; where --only is given, end there.

    Args:
        about: The help text.
        runs: Default folder of the runs.
        seeds: Default number of seeds.
    """
    options = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", choices=[row.name for row in rows])
    options.add_argument("--shipped", action="store_true", help="train nothing: score and time what bundles/ holds")
    options.add_argument("--seeds", type=int, default=seeds)
    options.add_argument("--first-seed", type=int, default=0)
    options.add_argument("--runs", type=Path, default=runs)
    chosen = options.parse_args()
    if not os.environ.get("FLYWEIGHT_DATA"):
        sys.exit("FLYWEIGHT_DATA names no folder with the data sets")
    for row in () if chosen.shipped else rows:
        if chosen.only in (None, row.name):
            for seed in range(chosen.first_seed, row.seeds or chosen.seeds):
                both(row, seed, chosen.runs)
    if chosen.only is not None:
        sys.exit()
    return chosen


def both(row: Row, seed: int, runs: Path) -> tuple[Trained, Trained]:
    """Return the float and the int8 training of a seed; what is finished is not repeated."""
    dataset = data_of(row)
    teaching = [] if row.teacher is None else [f"distill.teacher={runs / row.teacher / 'seed0'}"]
    recipe = load_recipe(row.name).with_settings([f"seed={seed}", *teaching])
    floating = train(dataset, recipe, runs / row.name / f"seed{seed}")
    own = [f"distill.teacher={runs / row.name / f'seed{seed}'}", f"seed={seed}", "threads=1", "compile=false"]
    levels = load_recipe("qat").with_settings([*own, "channels_last=true", f"stages.0.epochs={row.levels}"])
    levels = levels.model_copy(update={"augment": recipe.augment, "data": recipe.data})
    return floating, train(dataset, levels, runs / row.name / f"seed{seed}-int8", initial=floating)


def shipping(row: Row, seed: int, runs: Path) -> tuple[Trained, Trained]:
    """Return the float and the int8 classifier of a seed as they ship."""
    floating, levels = both(row, seed, runs)
    return (floating.mirrored(), levels.mirrored()) if row.mirror else (padded(row, floating), levels)


def train(dataset: Dataset, recipe: Any, out: Path, initial: Trained | None = None) -> Trained:
    """Return the finished run in `out`, printing its epochs."""
    for event in run(dataset, recipe, out, device="cpu", initial=initial):
        if isinstance(event, EpochDone):
            row = event.row
            print(
                f"{out.parent.name}/{out.name}  epoch {row['epoch']:.0f}  val {100 * row['val_accuracy']:.2f} %  "
                f"{row['images_per_second']:.0f} images/s",
                flush=True,
            )
        if isinstance(event, Finished):
            return event.trained
    raise AssertionError("a run ends with Finished")


def data_of(row: Row) -> Dataset:
    """Return the row's data set."""
    return load_data(f"{row.dataset}:{os.environ['FLYWEIGHT_DATA']}")


def scored(row: Row, seed: int, runs: Path) -> dict[str, Any]:
    """Return what a seed's two files score on the test part, with the paired difference."""
    dataset = data_of(row)
    floating, levels = shipping(row, seed, runs)
    folder = runs / row.name / "bundles" / f"seed{seed}"
    bundle = export_variant(export(floating, dataset, folder), levels, dataset, folder)
    open_test(runs / row.name / "test-openings.jsonl", why=f"{row.name}, seed {seed}: float and int8")
    right: dict[str, Any] = {}
    result: dict[str, Any] = {"seed": seed}
    for name, trained in (("val_accuracy", floating), ("val_accuracy_int8", levels)):
        result[name] = on_validation(trained, dataset) if row.mirror else trained.metrics["val_accuracy"]
    for name in ("fp32", "int8"):
        answers, labels = on_test(bundle, name, dataset)
        found = score(answers, labels, bundle.classes, bundle.temperature)
        bundle = record_accuracy(bundle, found.to_json(), folder, name)
        right[name] = answers.argmax(axis=1) == labels
        cost = count(bundle.variant(name).file)
        size = bundle.variant(name).size_bytes
        result[name] = {"accuracy": found.top1, "params": cost.params, "macs": cost.macs, "size_bytes": size}
    change = paired_bootstrap(right["int8"], right["fp32"])
    result["int8_minus_fp32"] = {"value": change.value, "low": change.low, "high": change.high}
    if row.mirror:
        result["mirror_gain"] = mirror_gain(row, seed, runs, right[row.claimed])
    result["train_seconds"] = floating.metrics["train_seconds"] + levels.metrics["train_seconds"]
    print(
        f"{row.name} seed {seed}: {100 * result['fp32']['accuracy']:.2f} %, int8 {100 * change.value:+.2f}", flush=True
    )
    return result


def mirror_gain(row: Row, seed: int, runs: Path, right: Any) -> dict[str, float]:
    """Return what the mirror image adds on the test part, paired, to the claimed file."""
    dataset, plain = data_of(row), both(row, seed, runs)[("fp32", "int8").index(row.claimed)]
    bundle = export(plain, dataset, runs / row.name / "bundles" / f"seed{seed}-one-view", training=False)
    answers, labels = on_test(bundle, row.claimed, dataset)
    gain = paired_bootstrap(right, answers.argmax(axis=1) == labels)
    return {"value": gain.value, "low": gain.low, "high": gain.high}


def on_validation(trained: Trained, dataset: Dataset) -> float:
    """Return the share of validation images that the classifier, as it ships, gets right."""
    logits, labels = validation_logits(dataset, trained)
    return float((logits.argmax(axis=1) == labels).mean())


def padded(row: Row, trained: Trained) -> Trained:
    """Return the float classifier with channels in multiples of 4 where its limit allows it: the same, faster."""
    if row.limit is None:
        return trained
    made = trained.padded()
    return made if counted_params(made.architecture) <= row.limit else trained


def on_test(bundle: Bundle, variant: str, dataset: Dataset) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return logits (N, K) of a variant on the official test part, and labels (N,)."""
    indices = np.flatnonzero(dataset.parts == "test")
    logits, readable, unreadable = logits_of(Predictor(bundle, variant=variant, threads=1), dataset, indices)
    assert not unreadable
    return logits, dataset.labels[readable]


def measure(rows: Sequence[Row], chosen: argparse.Namespace, file: str) -> tuple[dict[str, Measured], dict[str, Any]]:
    """Return claims and details, by name: of the runs, or with --shipped of what bundles/ holds.

    Args:
        file: The results' name; with --shipped what it says of the seeds is kept.
    """
    if not chosen.shipped:
        return measure_runs(rows, chosen.seeds, chosen.runs)
    return measure_shipped(rows, json.loads((HERE / "results" / file).read_text(encoding="utf-8"))["details"])


def measure_runs(rows: Sequence[Row], seeds: int, runs: Path) -> tuple[dict[str, Measured], dict[str, Any]]:
    """Score every seed, ship the best on validation, time what ships; return claims and details, by name."""
    measured: dict[str, Measured] = {}
    details: dict[str, Any] = {}
    for row in rows:
        found = [scored(row, seed, runs) for seed in range(row.seeds or seeds)]
        bundle = ship(row, found, runs)
        details[row.name] = {"limit_params": row.limit, "limit_int8_bytes": row.bytes_limit, "seeds": found}
        details[row.name]["shipped"] = facts(row, bundle)
        measured[row.claim] = accuracy_of(row, found)
        print(f"{row.name:20} {100 * measured[row.claim].value:.2f} %  (published {100 * row.published:g} %)")
    time_shipped(rows, details)
    return measured, details


def measure_shipped(rows: Sequence[Row], known: dict[str, Any]) -> tuple[dict[str, Measured], dict[str, Any]]:
    """Score what bundles/ holds again, and time it; what earlier runs found of each seed is kept.

    Args:
        known: The details of the committed results.
    """
    measured: dict[str, Measured] = {}
    details: dict[str, Any] = {}
    for row in rows:
        bundle, dataset = Bundle.open(BUNDLES / row.name), data_of(row)
        details[row.name] = {**known[row.name], "shipped": facts(row, bundle)}
        for name, shown in details[row.name]["shipped"].items():
            answers, labels = on_test(bundle, name, dataset)
            found = float((answers.argmax(axis=1) == labels).mean())
            print(f"{row.name:20} {name}  {100 * found:.2f} %, as written {100 * shown['accuracy']:.2f} %", flush=True)
            if found != shown["accuracy"]:
                sys.exit(f"{row.name}: the file's accuracy is not the one that stands in its bundle")
        measured[row.claim] = accuracy_of(row, known[row.name]["seeds"])
    time_shipped(rows, details)
    return measured, details


def time_shipped(rows: Sequence[Row], details: dict[str, Any]) -> None:
    """Time what ships, interleaved, one thread, and write it into the details."""
    variants = [(row.name, name) for row in rows for name in details[row.name]["shipped"]]
    files = [Bundle.open(BUNDLES / name).variant(variant).file for name, variant in variants]
    for (name, variant), timing in zip(variants, time_models(files, threads=1), strict=True):
        details[name]["shipped"][variant]["latency"] = timing.as_dict()


def ship(row: Row, found: Sequence[dict[str, Any]], runs: Path) -> Bundle:
    """Write the bundle of the seed that validates best on what is claimed."""
    key = "val_accuracy" if row.claimed == "fp32" else "val_accuracy_int8"
    best = max(found, key=lambda result: result[key])
    bundle = Bundle.open(runs / row.name / "bundles" / f"seed{best['seed']}")
    if not row.alone:
        return copy_bundle(bundle, BUNDLES / row.name, name=row.name, default=row.claimed)
    trained = shipping(row, best["seed"], runs)[("fp32", "int8").index(row.claimed)]
    made = export(trained, data_of(row), BUNDLES / row.name, training=False)
    answers, labels = on_test(made, row.claimed, data_of(row))  # its confidence is calibrated on its own logits
    accuracy = score(answers, labels, made.classes, made.temperature)
    return record_accuracy(made, accuracy.to_json(), BUNDLES / row.name)


def facts(row: Row, bundle: Bundle) -> dict[str, Any]:
    """Return the counted facts of what ships; raises SystemExit where it breaks its own limit."""
    costs = {name: count(variant.file) for name, variant in bundle.variants.items()}
    if row.limit is not None and costs["fp32"].params > row.limit:
        sys.exit(f"{row.name}: {costs['fp32'].params} parameters, the limit is {row.limit}")
    if bundle.variant("int8").size_bytes > row.bytes_limit:
        sys.exit(f"{row.name}: int8 file of {bundle.variant('int8').size_bytes} bytes, the limit is {row.bytes_limit}")
    return {
        name: {
            "params": costs[name].params,
            "macs": costs[name].macs,
            "size_bytes": variant.size_bytes,
            "accuracy": (variant.accuracy or {})["top1"],
        }
        for name, variant in bundle.variants.items()
    }


def accuracy_of(row: Row, found: Sequence[dict[str, Any]]) -> Measured:
    """Return the mean over seeds with Student's interval; for one seed, its test images' interval."""
    values = [result[row.claimed]["accuracy"] for result in found]
    if len(values) > 1:
        interval = mean_interval(values)
        return Measured(interval.value, interval.low, min(1.0, interval.high), len(values))
    low, high = wilson(round(values[0] * 10_000), 10_000)
    return Measured(values[0], low, high, 1)
