"""What runs on the device: check every byte, compare golden vectors, time by the protocol, write one JSON file.

Needs Python, numpy, onnxruntime and Pillow; `run.py` of the kit says which of them is missing and calls `main`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flyweight.errors import BundleError, FlyweightBug, FlyweightError
from flyweight.files import write_json
from flyweight.measure.latency import AGAIN, FULL, QUICK, arms_of, latency_of, model_spec, run_arms
from flyweight.runtime.backends.c import build_file
from flyweight.runtime.canonical import seal
from flyweight.runtime.environment import environment
from flyweight.runtime.golden import compare_in_fresh_process
from flyweight.runtime.hashes import check_sums
from flyweight.runtime.memory import REPEATS, peak_memory
from flyweight.runtime.pace import board_model, processor_state
from flyweight.runtime.timing import ENCODED, MODEL, PREPROCESS, Spec

KIT = "kit.json"
KIT_VERSION = 1
Say = Callable[[str], None]


def main(folder: Path, arguments: Sequence[str]) -> int:
    """Run the kit in `folder` and return the exit code: 0 done, 1 you can act, 70 our bug."""
    parser = argparse.ArgumentParser(prog="run.py", description="Measure the models of this kit on this machine.")
    parser.add_argument("--out", type=Path, default=Path("result.json"), help="the file to bring back")
    parser.add_argument("--threads", help="such as 1,4; those that the kit was made for without")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter processes, no noise floor")
    parser.add_argument("--check", action="store_true", help="check files and golden vectors only; times nothing")
    given = parser.parse_args(arguments)
    try:
        threads = _threads(given.threads)
        result = run_kit(folder, threads=threads, quick=given.quick, check_only=given.check, say=_say)
        if not given.check:
            write_json(given.out, result)
    except FlyweightError as error:
        print(f"error: {error.what}\n  do: {error.do}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        return 130
    return _told(result, None if given.check else given.out)


def run_kit(
    folder: Path, *, threads: Sequence[int] | None = None, quick: bool = False, check_only: bool = False, say: Say
) -> dict[str, Any]:
    """Return what this machine measured, sealed: the plain values of `measure.result.DeviceResult`.

    Args:
        threads: Instead of those that the kit names.
        check_only: Compare golden vectors, and time nothing.
        say: Called with a line of progress.

    Raises:
        BundleError: A file of the kit is missing or changed.
    """
    check_sums(folder, whole=False)
    kit = _kit(folder)
    conditions, before = environment(), processor_state()
    rows = [_row(folder, kit, entry, count) for entry in kit["models"] for count in (threads or kit["threads"])]
    say(f"golden vectors: {sum(row['golden'] is not None and row['golden']['ok'] for row in rows)} of "
        f"{sum(row['kind'] == 'variant' for row in rows)} as recorded")  # fmt: skip
    if not check_only:
        files = {entry["name"]: folder / entry["file"] for entry in kit["models"]}
        _time(folder, kit, rows, files, quick, say)
        _weigh(rows, files, quick, say)
    known = ("machine", "cpu", "cores", "memory_bytes", "load_average", "os", "python", "versions", "date", "command")
    return seal(
        {
            "result_version": 1,
            "made_by": "kit",
            "flyweight_version": kit["flyweight_version"],
            "device": kit["device"],
            "bundle": kit["bundle"],
            "conditions": {
                **{key: conditions[key] for key in known},
                "model": board_model(),
                "before": before,
                "after": processor_state(),
            },
            "models": rows,
        }
    )


def _kit(folder: Path) -> dict[str, Any]:
    kit: dict[str, Any] = json.loads((folder / KIT).read_text("utf-8"))
    if kit["kit_version"] != KIT_VERSION:
        raise BundleError(
            f"{KIT} has the kit_version {kit['kit_version']}, its runner is for {KIT_VERSION}",
            do="copy the whole kit again; do not mix two",
        )
    return kit


def _row(folder: Path, kit: Mapping[str, Any], entry: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Return what is known of a model before it is timed: `problem` where it cannot be, or must not be."""
    copied = ("name", "kind", "sha256", "size_bytes", "format", "precision", "backend", "candidate", "params", "macs")
    row = {**{key: entry[key] for key in copied}, "threads": threads, "golden": None, "problem": None}
    if entry["golden"] is None:
        return row
    try:
        if entry["backend"] == "c":  # checked when the kit was packed; who runs a kit runs its programs
            build_file(folder / entry["file"])
        row["golden"] = compare_in_fresh_process(
            folder / entry["file"],
            backend=entry["backend"],
            threads=threads,
            images=folder / kit["images"],
            logits=folder / entry["golden"],
            tolerance=entry["tolerance"],
        )
    except (FlyweightError, FlyweightBug) as error:
        return {**row, "problem": str(error).splitlines()[0]}
    found = row["golden"]
    if not found["ok"]:
        row["problem"] = (
            f"other answers than recorded: the largest difference of a logit is {found['max_error']}, the tolerance "
            f"{found['tolerance']:g} ({found['n']} images)"
        )
    return row


def _time(
    folder: Path,
    kit: Mapping[str, Any],
    rows: list[dict[str, Any]],
    files: Mapping[str, Path],
    quick: bool,
    say: Say,
) -> None:
    """Add clocks to the rows without a problem: variants by the full plan, the many candidates by the quick one."""
    for kind, plan in (("variant", QUICK if quick else FULL), ("candidate", QUICK)):
        chosen = {f"{i}": row for i, row in enumerate(rows) if row["kind"] == kind and row["problem"] is None}
        specs = {key: _spec(folder, kit, row, files[row["name"]]) for key, row in chosen.items()}
        arms, problems = arms_of(specs, plan), dict[str, str]()
        runs = run_arms(arms, plan, problems=problems, progress=_progress(f"timing {kind}s", say))
        for key, row in chosen.items():
            row["problem"] = problems.get(key)
            row["enough"] = plan.enough
            row["clocks"] = {clock: [run[clock] for run in runs[key]] for clock in arms[key].clocks if runs[key]}
        first = next(iter(chosen.values()), None)
        if first is not None and AGAIN in runs:
            first["again"] = [run[MODEL] for run in runs[AGAIN]]


def _spec(folder: Path, kit: Mapping[str, Any], row: Mapping[str, Any], file: Path) -> Spec:
    if row["kind"] == "candidate":
        return model_spec(file, row["threads"], row["backend"])
    return Spec(
        str(file),
        row["backend"],
        row["threads"],
        clocks=(MODEL, PREPROCESS, ENCODED),
        images=str(folder / kit["images"]),
        photo=str(folder / kit["photo"]),
        preprocess=kit["preprocess"],
    )


def _weigh(rows: Sequence[dict[str, Any]], files: Mapping[str, Path], quick: bool, say: Say) -> None:
    """Add the peak memory of fresh processes, where this system tells it."""
    timed = [row for row in rows if row["problem"] is None]
    empty: dict[str, int] = {}
    tell = _progress("weighing", say)
    for done, row in enumerate(timed):
        repeats = 1 if quick or row["kind"] == "candidate" else REPEATS
        try:
            found = peak_memory(
                files[row["name"]],
                threads=row["threads"],
                backend=row["backend"],
                repeats=repeats,
                empty_bytes=empty.get(row["backend"]),
            )
        except BundleError as error:
            say(f"no memory of {row['name']}: {error.what}")
            continue
        empty[row["backend"]] = found.empty_bytes
        row["memory"] = vars(found)
        tell(done + 1, len(timed))


def _told(result: Mapping[str, Any], out: Path | None) -> int:
    """Print a line a model and return the exit code: 1 where a variant does not give its golden vectors."""
    for row in result["models"]:
        runs = row.get("clocks", {}).get(MODEL)
        shown = row["problem"] or "as recorded"
        if runs and row["problem"] is None:
            spec = Spec(row["name"], row["backend"], row["threads"])
            found = latency_of(row["name"], MODEL, spec, [{MODEL: run} for run in runs], row["enough"])
            slow = "" if found.p90_ms is None else f", p90 {found.p90_ms:.3g} ms"
            p50 = "too few samples" if found.p50_ms is None else f"p50 {found.p50_ms:.3g} ms"
            shown = p50 + slow + (", DISTURBED by other programs" if found.disturbed else "")
        print(f"{row['name']:<36} {row['threads']} thread(s)  {shown}")
    if out is not None:
        print(f"bring back {out}: flyweight device add {out.name}")
    wrong = [row for row in result["models"] if row["golden"] is not None and not row["golden"]["ok"]]
    if wrong:
        print(
            f"error: {wrong[0]['name']} does not verify on this machine: {wrong[0]['problem']}\n  do: do not use its "
            "numbers; check that this machine's onnxruntime is a release build, and copy the kit again",
            file=sys.stderr,
        )
    return 1 if wrong else 0


def _threads(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise BundleError(f"--threads {text!r} is no list of numbers of threads", do="write it as --threads 1,4")
    return counts


def _progress(what: str, say: Say) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        say(f"{what}: {done} of {total}")

    return tell


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
