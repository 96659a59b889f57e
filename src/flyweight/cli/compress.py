"""`flyweight compress` and `flyweight quantize`: smaller and faster, if a trial says so."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyweight.cli.progress import TrainingProgress, need_train_extra

if TYPE_CHECKING:
    from flyweight.compress.chain import Compressed, Request
    from flyweight.data.dataset import Dataset
    from flyweight.measure.trial import Promise, Trial

PICTURES = 48  # of images that flipped, on the page
Steps = Annotated[list[str], typer.Option("--step", help="A method and its options, in order; see docs/compress.md.")]
Data = Annotated[str, typer.Option(help="The data it was trained on.")]
Out = Annotated[
    Path, typer.Option(help="Folder for bundle/, trial.json and trial.html; the same command continues it.")
]
Part = Annotated[str, typer.Option(help="Images that decide: val, or test (opened once more, and logged).")]
Margin = Annotated[float, typer.Option(min=0.0, max=100.0, help="Points of accuracy that may be lost, at 95 %.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the model while it is timed.")]
Timing = Annotated[str, typer.Option(help="full, quick, or none: nothing ships then that promised to be faster.")]
Promised = Annotated[
    str | None,
    typer.Option(help="What it must be besides not worse: smaller, faster, both or none; else by what the two are."),
]
PROMISES: dict[str, tuple[Promise, ...]] = {
    "smaller": ("smaller",),
    "faster": ("faster",),
    "both": ("smaller", "faster"),
    "none": (),
}
Anyway = Annotated[bool, typer.Option(help="Write the bundle though the trial says no.")]
Quarantine = Annotated[Path | None, typer.Option(help="Leave out the images named in this file, one a line.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")]


def compress(
    source: Annotated[Path, typer.Argument(help="Folder of a finished run, or a bundle.")],
    data: Data,
    step: Steps,
    out: Out = Path("runs/compress"),
    part: Part = "val",
    margin: Margin = 1.0,
    threads: Threads = 1,
    timing: Timing = "full",
    variant: Annotated[str | None, typer.Option(help="Of a bundle: whose file is changed.")] = None,
    anyway: Anyway = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: the GPU where there is one.")] = None,
    quarantine: Quarantine = None,
    as_json: AsJson = False,
) -> None:
    """Compress a run or bundle, step by step, and hold a trial: ship, or do not ship, because …

    First what changes the network, in any order (fold, prune, finetune, distill, qat, exit), then what changes its file
    (int8, fp16, palette). OUT/bundle is written only where the trial says ship; the exit code is 1 where it does not.
    """
    _run(source, step, data, out, part, margin, threads, timing, variant, anyway, device, quarantine, as_json)


def quantize(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip.")],
    data: Data,
    step: Steps = ["int8"],  # noqa: B006 - typer reads it
    out: Out = Path("runs/quantize"),
    part: Part = "val",
    margin: Margin = 1.0,
    threads: Threads = 1,
    timing: Timing = "full",
    variant: Annotated[str | None, typer.Option(help="Whose file is changed; the default one without.")] = None,
    anyway: Anyway = False,
    quarantine: Quarantine = None,
    as_json: AsJson = False,
) -> None:
    """Add a smaller file to a bundle (int8, fp16, palette), if its trial says ship.

    Calibrated and chosen on training images, decided on validation images: int8 that is slower, or worse than the
    margin, is refused. `flyweight compress` does the same after steps that change the network.
    """
    _run(bundle, step, data, out, part, margin, threads, timing, variant, anyway, None, quarantine, as_json)


def trial(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip.")],
    data: Data,
    variant: Annotated[str, typer.Option(help="The variant that is judged.")],
    against: Annotated[str | None, typer.Option(help="What it would replace; the default variant without.")] = None,
    out: Out = Path("runs/trial"),
    part: Part = "val",
    margin: Margin = 1.0,
    promise: Promised = None,
    threads: Threads = 1,
    timing: Timing = "full",
    quarantine: Quarantine = None,
    as_json: AsJson = False,
) -> None:
    """Hold one variant of a bundle against another, whatever their formats: ship, or do not ship, because …

    A file for another runtime must be faster, fp16 and palettes must be smaller, anything else both; --promise says
    otherwise. The exit code is 1 where it does not. OUT holds trial.json and trial.html.
    """
    _known(part, timing, promise)
    from flyweight.data.audit import leave_out
    from flyweight.data.sources import load_data
    from flyweight.data.split import open_test
    from flyweight.files import write_json
    from flyweight.measure.trial import run_trial
    from flyweight.runtime.bundle import Bundle

    opened, dataset = Bundle.open(bundle), leave_out(load_data(data), quarantine)
    if part == "test":
        open_test(out / "test-openings.jsonl", why=f"trial of {opened.name} {variant}")
    with TrainingProgress(quiet=as_json) as bars:
        found = run_trial(
            (opened, against), (opened, variant), dataset, part=part, margin=margin / 100, threads=threads,  # type: ignore[arg-type]
            timing=timing, promises=None if promise is None else PROMISES[promise],  # type: ignore[arg-type]
            progress=bars.stage,
        )  # fmt: skip
    write_json(out / "trial.json", [found.model_dump(mode="json")])
    page = write_page((found,), dataset, out)
    print(found.model_dump_json() if as_json else "\n".join([*lines(found), f"trial   {page}"]))
    if not found.ship:
        raise typer.Exit(1)


def _known(part: str, timing: str, promise: str | None = None) -> None:
    for name, value, known in (
        ("--part", part, ("val", "test")),
        ("--timing", timing, ("full", "quick", "none")),
        ("--promise", promise, tuple(PROMISES)),
    ):
        if value is not None and value not in known:
            raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}", param_hint=f"'{name}'")


def _run(
    source: Path,
    steps: list[str],
    data: str,
    out: Path,
    part: str,
    margin: float,
    threads: int,
    timing: str,
    variant: str | None,
    anyway: bool,
    device: str | None,
    quarantine: Path | None,
    as_json: bool,
) -> None:
    need_train_extra()
    _known(part, timing)
    from flyweight.compress.chain import Request, in_order, parse_steps
    from flyweight.compress.files.variant import Conditions
    from flyweight.data.audit import leave_out
    from flyweight.data.sources import load_data

    chosen = parse_steps(steps)
    in_order(chosen)
    request = Request(
        source=source,
        steps=chosen,
        dataset=leave_out(load_data(data), quarantine),
        out=out,
        conditions=Conditions(part, margin / 100, threads, timing),  # type: ignore[arg-type]
        variant=variant,
        anyway=anyway,
        device=device,
    )
    with TrainingProgress(quiet=as_json) as bars:
        done = _follow(request, bars)
    pages = write_page(done.trials, request.dataset, out)
    if as_json:
        print(json.dumps(result(done)))
    else:
        for trial in done.trials:
            print("\n".join(lines(trial)))
        print(f"trial   {pages}")
        print(f"bundle  {written(done, anyway=anyway)}")
    if not done.ship:
        raise typer.Exit(1)


def _follow(request: Request, bars: TrainingProgress) -> Compressed:
    from flyweight.compress.chain import Began, Compressed, Judged, compress
    from flyweight.compress.context import Said

    epochs = 1
    for event in compress(request, progress=bars.stage):
        if isinstance(event, Compressed):
            return event
        if isinstance(event, Began):
            bars.say(f"step {event.number}: {event.step}")
        elif isinstance(event, Said):
            bars.say(f"  {event.text}")
        elif not isinstance(event, Judged):
            recipe = getattr(event, "recipe", None)
            epochs = recipe.total_epochs if recipe is not None else epochs
            bars.show(event, epochs)
    raise AssertionError("a chain ends with Compressed")


def result(done: Compressed) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "ship": done.ship,
        "bundle": str(done.bundle.path) if done.bundle is not None else None,
        "out": str(done.out),
        "trials": [trial.model_dump(mode="json") for trial in done.trials],
    }


def written(done: Compressed, *, anyway: bool) -> str:
    """Return where the bundle is, and what of it no trial lets ship."""
    if done.bundle is None:
        return "not written: the trial says no"
    refused = ", ".join(trial.name for trial in done.trials if not trial.ship)
    if not refused:
        return str(done.bundle.path)
    how = "with, because of --anyway," if anyway else "without"
    return f"{done.bundle.path}, {how} what does not ship: {refused}"


def lines(trial: Trial) -> list[str]:
    """Return what is shown to people."""
    change = trial.change
    assert change.low is not None
    assert change.high is not None
    rows = [
        f"{trial.name}: {trial.verdict()}",
        f"accuracy  {trial.before.accuracy:.2%} → {trial.after.accuracy:.2%}, change {100 * change.value:+.2f} points "
        f"[{100 * change.low:+.2f}, {100 * change.high:+.2f}] of {trial.n:,} images, {trial.part}",
        f"agreement {100 * trial.agreement:.2f} % top-1; {trial.flipped} images flipped",
        f"size      {trial.before.size_bytes:,} → {trial.after.size_bytes:,} bytes, ratio {trial.size_ratio:.3f}",
    ]
    if trial.speed is not None:
        rows.append(
            f"time      {trial.speed.before_ms:.3g} → {trial.speed.after_ms:.3g} ms, ratio "
            f"{trial.speed.ratio.value:.2f}, {trial.speed.verdict}{' (DISTURBED)' if trial.speed.disturbed else ''}"
        )
    if trial.after.operators:
        kinds = ", ".join(f"{count} {kind}" for kind, count in trial.after.operators.items())
        rows.append(f"computed  {kinds}; multiplied in float: {', '.join(trial.after.in_float[:4]) or 'nothing'}")
    worse = [row for row in trial.per_class if row.regressed]
    if worse:
        rows.append("classes   worse: " + ", ".join(f"{row.name} {100 * row.change.value:+.1f}" for row in worse))
    return rows


def write_page(trials: tuple[Trial, ...], dataset: Dataset, out: Path) -> Path:
    """Write trial.html, with pictures of images that flipped, and return it."""
    from flyweight.report.trial_page import build_trial_page

    shown = [flip.image for trial in trials for flip in trial.flips][:PICTURES]
    wanted = set(shown)
    place = {key: i for i in range(len(dataset)) if wanted and (key := dataset.images.key(i)) in wanted}
    pictures = {name: _png(dataset, place[name]) for name in shown if name in place}
    return build_trial_page(trials, f"{out.name}: compressed", out, pictures)


def _png(dataset: Dataset, index: int) -> bytes:
    import numpy as np
    from PIL import Image

    from flyweight.runtime.preprocess import decode

    source = dataset.images.read(index)
    pixels = source if isinstance(source, np.ndarray) else decode(source, 3)
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]))
    image.thumbnail((96, 96))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
