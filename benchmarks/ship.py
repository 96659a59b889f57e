"""What compression is worth: real networks, compressed step by step, each with its trial on the official test images.

    FLYWEIGHT_DATA=DIR python benchmarks/ship.py                      # all of it; stopped, it goes on where it was
    FLYWEIGHT_DATA=DIR python benchmarks/ship.py --only resnet18_half --source resnet18=RUN
    FLYWEIGHT_DATA=DIR python benchmarks/ship.py --smoke              # tiny networks and few images: does it run?

Every row is `flyweight compress` on a run: its steps, then a trial of the compressed file against the run's own, on the
10,000 test images of CIFAR-10 (opened once a row, and logged), timed in turn, one thread, batch 1. On a busy machine
the trial says so and ships nothing; the next call holds it again. A row that fails is one too, with its reason. Runs
that exist already are named with --source NETWORK=RUN; others are trained first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from results_file import Measured
from ship_networks import NETWORKS, Network, trained_run, write

from flyweight.compress.chain import Began, Compressed, Request, compress, parse_steps
from flyweight.compress.context import Said
from flyweight.compress.files.variant import Conditions
from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.files import write_json
from flyweight.measure.trial import MARGIN, Trial
from flyweight.train.loop import EpochDone
from flyweight.train.trained import FACTS


@dataclass(frozen=True)
class Row:
    """One compression.

    Attributes:
        claim: The claim whose value is how many times faster it is; None: a row of the table alone.
        margin: Share of the images that may be lost.
    """

    name: str
    network: str
    steps: tuple[str, ...]
    claim: str | None = None
    margin: float = MARGIN


CLAIM_MARGIN = 0.01  # of the accuracy: what a network of half the work may lose
HALF = "prune:macs=0.5,importance=taylor"
ROWS = (
    Row(
        "resnet18_half",
        "resnet18",
        (HALF, "distill:epochs=8"),
        "resnet18_pruned_half_macs_speedup",
    ),
    Row("resnet18_half_int8", "resnet18", (HALF, "distill:epochs=8", "qat:epochs=3")),
    Row("resnet18_exit", "resnet18", ("exit:at=0.5,cost=0.003",)),
    Row("resnet18_int8", "resnet18", ("int8",)),
    Row("mobilenetv3_small_int8_minmax", "mobilenetv3_small", ("int8:keep=none",)),
    Row("mobilenetv3_small_int8_mixed", "mobilenetv3_small", ("int8:calibration=percentile",), margin=0.005),
    Row("mobilenetv3_small_qat", "mobilenetv3_small", ("qat:epochs=10",), margin=0.005),
    Row("mobilenetv3_small_palette", "mobilenetv3_small", ("palette",)),
    Row("mobilenetv3_small_fp16", "mobilenetv3_small", ("fp16",)),
    Row("tiny_sep_qat", "tiny_sep", ("qat:epochs=3",)),
)
SMOKE_NETWORKS = {"tiny": Network("smoke", ("model.name=tiny_resnet8_8", "epochs=2", "threads=1"))}
SMOKE_ROWS = (
    Row("tiny_half", "tiny", ("prune:macs=0.5", "finetune:epochs=1"), "resnet18_pruned_half_macs_speedup"),
    Row("tiny_qat", "tiny", ("qat:epochs=1",)),
    Row("tiny_int8", "tiny", ("int8:images=32,keep=none",)),
)


def main() -> None:
    """Compress what is missing, then write benchmarks/results/ship.json."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", action="append", default=[], help="a row (repeat); then nothing is written")
    options.add_argument("--source", action="append", default=[], metavar="NETWORK=RUN", help="a finished run")
    options.add_argument("--runs", type=Path, default=Path("runs/ship"))
    options.add_argument("--part", choices=("val", "test"), default="test")
    options.add_argument("--timing", choices=("full", "quick"), default="full")
    options.add_argument(
        "--smoke", action="store_true", help="tiny networks on the embedded sample; nothing is written"
    )
    chosen = options.parse_args()
    rows, networks = (SMOKE_ROWS, SMOKE_NETWORKS) if chosen.smoke else (ROWS, NETWORKS)
    unknown = [name for name in chosen.only if name not in {row.name for row in rows}]
    if unknown:
        options.error(f"there is no row {unknown[0]!r}; rows: {', '.join(row.name for row in rows)}")
    if not chosen.smoke and not os.environ.get("FLYWEIGHT_DATA"):
        sys.exit("FLYWEIGHT_DATA names no folder with the data sets")
    dataset = load_data("sample") if chosen.smoke else load_data(f"cifar10:{os.environ['FLYWEIGHT_DATA']}")
    sources = {name: Path(run) for name, run in (text.split("=", 1) for text in chosen.source)}
    failed = {}
    for row in rows:
        if chosen.only and row.name not in chosen.only:
            continue
        how = Conditions(chosen.part, row.margin, timing=chosen.timing)
        try:
            source = trained_run(row.network, networks, dataset, chosen.runs, sources)
            begin_with(row, rows, chosen.runs)
            told(row, conduct(row, source, dataset, chosen.runs / row.name, how))
        except Exception as error:  # one row must not take the others with it, whatever a library raised
            traceback.print_exc()
            failed[row.name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            print(f"{row.name}: FAILED, {failed[row.name]}", flush=True)
        if not chosen.only and not chosen.smoke and (chosen.part, chosen.timing) == ("test", "full"):
            record(rows, chosen.runs, failed)
    sys.exit(bool(failed))


def begin_with(row: Row, rows: Sequence[Row], runs: Path) -> None:
    """Take over the first steps of a row from another that has the same ones: they are trained once."""
    for other in rows[: rows.index(row)]:
        same = 0
        while other.network == row.network and row.steps[same : same + 1] == other.steps[same : same + 1] != ():
            same += 1
        for number in range(1, same + 1):
            for there in (runs / other.name / "steps").glob(f"{number:02d}-*"):
                here = runs / row.name / "steps" / there.name
                if not here.exists() and (there / FACTS).exists():
                    part = here.with_name(f".{here.name}.part")
                    shutil.rmtree(part, ignore_errors=True)
                    shutil.copytree(there, part)
                    part.rename(here)


def conduct(row: Row, source: Path, dataset: Dataset, out: Path, conditions: Conditions) -> list[Trial]:
    """Return the trials of a row; those of a finished row are read back, if they were held alike and undisturbed."""
    file, asked = out / "trial.json", {"source": str(source), "steps": list(row.steps), **asdict(conditions)}
    held = out / "asked.json"
    if file.exists() and held.exists() and json.loads(held.read_text("utf-8")) == asked:
        trials = [Trial.model_validate(one) for one in json.loads(file.read_text("utf-8"))]
        if not any(one.speed is not None and one.speed.disturbed for one in trials):
            return trials
    file.unlink(missing_ok=True)  # else a call that is stopped leaves it to be taken for what is asked now
    write_json(held, asked)
    request = Request(source, parse_steps(row.steps), dataset, out, conditions, device="cpu")
    for event in compress(request):
        if isinstance(event, Compressed):
            return list(event.trials)
        if isinstance(event, Began):
            print(f"{row.name}  {event.step}", flush=True)
        elif isinstance(event, Said):
            print(f"{row.name}    {event.text}", flush=True)
        elif isinstance(event, EpochDone):
            print(
                f"{row.name}    epoch {event.row['epoch']:.0f}  val {100 * event.row['val_accuracy']:.2f} %", flush=True
            )
    raise AssertionError("a chain ends with Compressed")


def told(row: Row, trials: Sequence[Trial]) -> None:
    """Print the verdicts of a row."""
    for trial in trials:
        print(f"{row.name}: {trial.verdict()}", flush=True)


def record(rows: Sequence[Row], runs: Path, failed: Mapping[str, str]) -> None:
    """Write the results file from the rows that have their trial by now.

    A claim is made of an undisturbed clock, and where the accuracy that the claim allows is kept.
    """
    measured, table = {}, {}
    for row in rows:
        about = {"network": row.network, "steps": list(row.steps)}
        if row.name in failed:
            table[row.name] = {**about, "failed": failed[row.name]}
        if row.name in failed or not (runs / row.name / "trial.json").exists():
            continue
        trials = [Trial.model_validate(one) for one in json.loads((runs / row.name / "trial.json").read_text("utf-8"))]
        table[row.name] = {**about, "trials": [facts(one) for one in trials]}
        speed, kept = trials[-1].speed, trials[-1].change.value > -CLAIM_MARGIN
        if row.claim and kept and speed and not speed.disturbed and speed.ratio.low and speed.ratio.high:
            measured[row.claim] = Measured(1 / speed.ratio.value, 1 / speed.ratio.high, 1 / speed.ratio.low, speed.n)
    print(write(measured, {"compression": table}), flush=True)


def facts(trial: Trial) -> dict[str, Any]:
    """Return a trial without its list of images."""
    return trial.model_dump(mode="json", exclude={"flips"})


if __name__ == "__main__":
    main()
