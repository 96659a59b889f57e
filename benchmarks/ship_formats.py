"""Every network in every format and precision: accuracy change, bytes and latency, with a verdict each; and how much
faster what ships is than PyTorch eager.

    FLYWEIGHT_DATA=DIR python benchmarks/ship_formats.py                    # on a quiet machine; goes on where it was
    FLYWEIGHT_DATA=DIR python benchmarks/ship_formats.py --only resnet18    # one network; nothing is written
    FLYWEIGHT_DATA=DIR python benchmarks/ship_formats.py --train            # only train what is missing

Each network is exported and converted to what `flyweight convert` and `flyweight quantize` offer. All its files answer
the official test images of CIFAR-10 (opened once a network, and logged) through the runtime that ships them. Then all
of them and eager (channels last, nothing folded, `eager.py`) are timed in one run, in turn, one image at a time, one
thread. A conversion that is refused is a row too, with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import eager
from results_file import Measured
from ship_networks import NETWORKS, Network, images_of, trained_run, write

from flyweight.compress.files.variant import add_untried
from flyweight.compress.step import parse_step
from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.data.split import open_test
from flyweight.errors import FlyweightError
from flyweight.export import export
from flyweight.export.convert import convert
from flyweight.export.formats import FORMATS
from flyweight.export.images import real_images
from flyweight.files import write_json
from flyweight.measure.latency import LatencyResult
from flyweight.measure.replace import may_replace
from flyweight.measure.statistics import ratio_interval
from flyweight.measure.trial import Answers, answers_of, decided_by, sample_of, speed_of, time_all, trial_of
from flyweight.models.cost import count
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.environment import environment
from flyweight.runtime.hashes import digest_of
from flyweight.runtime.timing import Spec
from flyweight.train.trained import WEIGHTS, Trained

EAGER, OWN = "eager", "fp32"
# One line a file: its name in the table, how it is made. `c` is the integer path of microcontrollers (tiny nets alone).
PLAIN = "int8 (ONNX Runtime, plain)"
ATTEMPTS = 3  # at timing all files of a network undisturbed
STEPS = {PLAIN: "int8:keep=none", "int8 (ONNX Runtime, mixed)": "int8", "fp16": "fp16"}
CLAIMS = {  # network: (claim of the float file, claim of the best)
    "mobilenetv3_small_224": ("mobilenetv3_small_224_fp32_vs_eager", "mobilenetv3_small_224_best_vs_eager"),
    "resnet18_224": (None, "resnet18_224_best_vs_eager"),
}
SMOKE = {"tiny": Network("smoke", ("model.name=tiny_resnet8_8", "epochs=2", "threads=1"))}


def main() -> None:
    """Measure what is missing, then write benchmarks/results/ship.json."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", action="append", default=[], help="a network (repeat); then nothing is written")
    options.add_argument("--source", action="append", default=[], metavar="NETWORK=RUN", help="a finished run")
    options.add_argument("--runs", type=Path, default=Path("runs/ship"))
    options.add_argument("--train", action="store_true", help="train what is missing, and end there")
    options.add_argument(
        "--smoke", action="store_true", help="a tiny network on the embedded sample; nothing is written"
    )
    chosen = options.parse_args()
    networks = SMOKE if chosen.smoke else NETWORKS
    unknown = [name for name in chosen.only if name not in networks]
    if unknown:
        options.error(f"there is no network {unknown[0]!r}; networks: {', '.join(networks)}")
    if not chosen.smoke and not os.environ.get("FLYWEIGHT_DATA"):
        sys.exit("FLYWEIGHT_DATA names no folder with the data sets")
    dataset = load_data("sample") if chosen.smoke else load_data(f"cifar10:{os.environ['FLYWEIGHT_DATA']}")
    sources = {name: Path(run) for name, run in (text.split("=", 1) for text in chosen.source)}
    tables, failed = {}, []
    for name in chosen.only or networks:
        try:
            source = trained_run(name, networks, dataset, chosen.runs, sources)
            if chosen.train:
                continue
            folder = chosen.runs / "formats" / name
            tables[name] = table_of(name, source, images_of(networks[name], dataset), folder, quick=chosen.smoke)
        except Exception:  # one network must not take the others with it, whatever a library raised
            traceback.print_exc()
            failed.append(name)
            continue
        print(json.dumps(tables[name], indent=1) if chosen.smoke else f"{name}: done", flush=True)
        if not (chosen.only or chosen.smoke):
            print(write(claims_of(tables), {"formats": tables}), flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def table_of(name: str, source: Path, dataset: Dataset, folder: Path, *, quick: bool = False) -> dict[str, Any]:
    """Return the rows of a network; those of a finished one are read back, if its clock was not disturbed."""
    file, weights = folder / "table.json", digest_of([source / WEIGHTS])
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if found["weights"] == weights and not any(row["disturbed"] for row in found["rows"]):
            return found
    shutil.rmtree(folder, ignore_errors=True)
    trained = Trained.load(source)
    bundle = export(trained, dataset, folder / "bundle")
    made, refused = variants_of(trained.architecture.name, bundle, dataset, source, folder)
    where, indices = decided_by(bundle, dataset, "test")
    open_test(folder.parent / "test-openings.jsonl", why=f"benchmarks/ship_formats.py: {name}, {len(made) + 1} files")
    own = answers_of(bundle, OWN, dataset, indices)
    answers = {label: answers_of(one, None, dataset, indices) for label, one in made.items()}
    # The first is timed twice: what it differs by from itself is the noise that the others are judged by.
    specs = {OWN: own.spec(1), EAGER: Spec(str(source), eager.NAME)}
    specs |= {label: found.spec(1) for label, found in answers.items()}
    sample = sample_of(bundle, dataset, own.readable)
    for _ in range(1 if quick else ATTEMPTS):
        times = time_all(specs, sample, quick=quick, clock=eager.clock)
        if not any(latency.disturbed for latency in times.values()):
            break
        print(f"{name}: other programs had the processor while it was timed", flush=True)
    cost = count(bundle.variant(OWN).file)
    base = row_of(OWN, own, own, times, dataset, where)
    table = {
        "architecture": trained.architecture.name,
        "weights": weights,
        "image_size": bundle.preprocess.image_size,
        "params": cost.params,
        "macs": cost.macs,
        "decided_by": where,
        "n": len(own.readable),
        "refused": refused,
        "conditions": environment(),
        "rows": [
            {"file": EAGER, "backend": eager.NAME, "precision": "fp32", **latency_of(times[EAGER], times[EAGER])},
            {**base, "change": None, "ships": True, "because": ["what the others would replace"]},
            *(row_of(label, found, own, times, dataset, where) for label, found in answers.items()),
        ],
    }
    write_json(file, table)
    return table


def variants_of(
    network: str, bundle: Bundle, dataset: Dataset, source: Path, folder: Path
) -> tuple[dict[str, Bundle], dict[str, str]]:
    """Return a bundle for every file that can be made, its default, and why the others cannot."""
    images, made, refused = real_images(bundle, dataset), {}, {}
    for label, step in STEPS.items():
        try:
            made[label] = add_untried(parse_step(step), bundle, dataset, folder / "files" / step.replace(":", "-"))
        except Exception as error:
            refused[label] = _why(error)
    for name, form in FORMATS.items():
        for precision in form.precisions:
            if (name, precision) == ("onnx", "fp32") or (name == "c" and not network.startswith("tiny")):
                continue
            label = f"{precision} ({form.title})"
            try:
                out = folder / "files" / f"{name}-{precision}"
                given = made.get(PLAIN, bundle) if (name, precision) == ("c", "int8") else bundle  # it has its own int8
                made[label] = convert(
                    given, name, out, precision=precision, images=images, run=source, default=True
                ).bundle
            except Exception as error:
                refused[label] = _why(error)
            print(f"{network}  {label}: {refused.get(label, 'made')}", flush=True)
    return made, refused


def _why(error: Exception) -> str:
    """Return why a file could not be made; what is not an error of ours is one of the tool that writes it."""
    if isinstance(error, FlyweightError):
        return error.what
    return f"its tool failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def row_of(
    label: str, found: Answers, own: Answers, times: Mapping[str, LatencyResult], dataset: Dataset, where: str
) -> dict[str, Any]:
    """Return one row: the trial against the float ONNX file, and the latency beside eager's."""
    speed = speed_of(times[OWN], times[label], branches=found.branches)
    trial = trial_of(own, found, dataset, part=where, speed=speed, promises=("faster",))
    verdict = may_replace(own, found, dataset, where, speed)
    return {
        "file": label,
        "backend": found.side.backend,
        "precision": found.side.precision,
        "size_bytes": found.side.size_bytes,
        "accuracy": found.side.accuracy,
        "change": trial.change.model_dump(),
        "agreement": trial.agreement,
        "operators": found.side.operators,
        "in_float": len(found.side.in_float),
        "ratio_to_float": speed.ratio.model_dump(),
        "ships": verdict.ships,
        "because": [verdict.because],
        **latency_of(times[label], times[EAGER]),
    }


def latency_of(latency: LatencyResult, baseline: LatencyResult) -> dict[str, Any]:
    """Return the latency, and how many times faster than eager it is."""
    ratio = ratio_interval(baseline.process_medians_ms, latency.process_medians_ms)
    return {
        "p50": vars(latency.quantile(0.5)),
        "n": latency.n,
        "disturbed": latency.disturbed,
        "noise_floor": latency.noise_floor,
        "eager_ratio": {"value": ratio.value, "low": ratio.low, "high": ratio.high},
    }


def claims_of(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Measured]:
    """Return the claims: of the float files the fastest, and of those that ship the fastest in any precision.

    Times that other programs disturbed are none.
    """
    measured = {}
    for name, claims in CLAIMS.items():
        found = tables[name]["rows"] if name in tables else []
        rows = [row for row in found if row["file"] != EAGER and row["ships"] and not row["disturbed"]]
        for claim, among in zip(claims, ([row for row in rows if row["precision"] == "fp32"], rows), strict=True):
            if claim is not None and among:
                best = max(among, key=lambda row: float(row["eager_ratio"]["value"]))
                ratio = best["eager_ratio"]
                measured[claim] = Measured(ratio["value"], ratio["low"], ratio["high"], best["n"])
    return measured


if __name__ == "__main__":
    main()
