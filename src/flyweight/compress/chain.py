"""A chain of steps from a run (or a bundle) to what ships, with a trial at each point where something could ship.

Steps that change the network come first, in any order; steps that change its file come after them. Each step leaves its
result in a folder of its own, so a stopped chain goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flyweight.compress import METHODS
from flyweight.compress.context import Context, Said
from flyweight.compress.files import FILES
from flyweight.compress.files.variant import Conditions, try_file
from flyweight.compress.step import Step, parse_step, read_options, unknown_method
from flyweight.data.dataset import Dataset
from flyweight.data.split import open_test
from flyweight.errors import CompressError, OrderError
from flyweight.export import export
from flyweight.export.bundle import copy_bundle
from flyweight.export.trained import TRAINING
from flyweight.files import write_json
from flyweight.measure.trial import Promise, Trial, run_trial
from flyweight.models.architecture import Architecture
from flyweight.runtime.bundle import MANIFEST, Bundle, write_sums
from flyweight.train.prepare import Progress
from flyweight.train.run import Event
from flyweight.train.trained import FACTS, Trained

STEP, TRIALS = "step.json", "trial.json"
_ORDER = "docs/compress.md#order"


@dataclass(frozen=True)
class Began:
    """A step began."""

    number: int
    step: Step


@dataclass(frozen=True)
class Judged:
    """A trial was held."""

    trial: Trial


@dataclass(frozen=True)
class Compressed:
    """The end of a chain.

    Attributes:
        trials: In the order in which they were held.
        bundle: What OUT/bundle holds: what ships, or with `anyway` what does not; None where nothing was written.
        trained: The compressed run; None where only files were changed.
        out: Folder with bundle/, trial.json and steps/.
    """

    trials: tuple[Trial, ...]
    bundle: Bundle | None
    trained: Trained | None
    out: Path

    @property
    def ship(self) -> bool:
        """True where the last trial said so."""
        return bool(self.trials) and self.trials[-1].ship


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        source: A run, or a bundle. A bundle that carries its training weights can be changed as its run could.
        steps: In order.
        variant: Of a bundle, whose file is changed; its default one without.
        anyway: Write the bundle though the trial says no.
        device: For training; None: the GPU where there is one.
    """

    source: Path
    steps: tuple[Step, ...]
    dataset: Dataset
    out: Path
    conditions: Conditions = field(default_factory=Conditions)
    variant: str | None = None
    anyway: bool = False
    device: str | None = None


def compress(
    request: Request, *, progress: Progress | None = None
) -> Iterator[Began | Said | Event | Judged | Compressed]:
    """Yield progress, and `Compressed` last. The same request continues where a stopped one was.

    Args:
        progress: Called with (done, total) of what is timed.

    Raises:
        CompressError: A step is unknown, or cannot be done to this network or file.
        OrderError: A step is in the wrong place.
        ExportError: A file disagrees with its network.
        DataError, ModelError, TrainingError, OutputError: As training and export.
    """
    networks, files = in_order(request.steps)
    if request.conditions.part == "test":
        told = " ".join(str(step) for step in request.steps)
        open_test(request.out / "test-openings.jsonl", why=f"compress {request.source.name}: {told}")
    trials: list[Trial] = []
    bundle, trained = None, None
    if networks:
        trained, trial, bundle = yield from _network_trial(request, networks, progress)
        trials.append(trial)
        yield Judged(trial)
        if bundle is None:
            yield from _finished(request, trials, None, trained)
            return
    source = bundle if bundle is not None else _bundle_of(request)
    for number, step in enumerate(files, len(networks) + 1):
        yield Began(number, step)
        found = try_file(
            step, source, request.dataset, request.out / "bundle", variant=None if networks else request.variant,
            conditions=request.conditions, default=number == len(networks) + len(files), anyway=request.anyway,
            progress=progress,
        )  # fmt: skip
        yield from map(Said, found.made.said)
        trials.append(found.trial)
        yield Judged(found.trial)
        if found.trial.ship or request.anyway:
            source = bundle = found.bundle
    yield from _finished(request, trials, bundle, trained)


def in_order(steps: Sequence[Step], done: Sequence[str] = ()) -> tuple[list[Step], list[Step]]:
    """Return the steps that change the network and those that change its file, with all options checked.

    Args:
        done: Methods that the network has been through before the first step.

    Raises:
        CompressError: There is none, or one is unknown.
        OrderError: One of the first kind comes after one of the second, or a method after one it cannot follow.
    """
    if not steps:
        raise CompressError("no step was given", do=f"give e.g. --step int8; known: {', '.join([*METHODS, *FILES])}")
    networks: list[Step] = []
    files: list[Step] = []
    for number, step in enumerate(steps):
        if step.method in {**METHODS, **FILES}:
            _refuse_after(step.method, [*done, *(one.method for one in steps[:number])])
        if step.method in METHODS:
            read_options(step, METHODS[step.method].options)
            if files:
                raise OrderError(
                    f"{step.method} changes the network and comes after {files[0].method}, which changes its file",
                    do=f"put {step.method} before {files[0].method}",
                )
            networks.append(step)
        elif step.method in FILES:
            read_options(step, FILES[step.method].options)
            files.append(step)
        else:
            raise unknown_method(step, [*METHODS, *FILES])
    return networks, files


def _refuse_after(method: str, before: Sequence[str]) -> None:
    never = (METHODS[method] if method in METHODS else FILES[method]).not_after
    late = next((name for name in before if name in never), None)
    if late is None:
        return
    if late == method:
        raise OrderError(
            f"{method} cannot be done twice: {never[late]}", do="leave one out; finetune trains further", more=_ORDER
        )
    raise OrderError(
        f"{method} cannot come after {late}: {never[late]}",
        do=f"put {method} before {late}, or leave one of them out"
        if method in METHODS
        else f"leave out {late} or {method}",
        more=_ORDER,
    )


def _been_through(architecture: Architecture) -> list[str]:
    """Return the methods that a network has been through, as far as others cannot follow them."""
    named = {"quantize": "qat", "exit": "exit"}
    return [named[step["op"]] for step in architecture.surgery if step["op"] in named]


def parse_steps(texts: Sequence[str]) -> tuple[Step, ...]:
    """Return the steps that texts mean. Raises CompressError."""
    return tuple(parse_step(text) for text in texts)


def promised(steps: Sequence[Step]) -> tuple[Promise, ...]:
    """Return what a chain of network steps must be, besides not worse: smaller where one is, faster where one is."""
    wanted: tuple[Promise, ...] = ("smaller", "faster")
    made = {promise for step in steps for promise in METHODS[step.method].promises}
    return tuple(promise for promise in wanted if promise in made)


def change_network(
    trained: Trained, steps: Sequence[Step], dataset: Dataset, out: Path, *, original: Path, device: str | None = None,
    threads: int = 1,
) -> Generator[Began | Said | Event, None, Trained]:  # fmt: skip
    """Yield progress; return the run after all steps, each saved in a folder of `out`.

    Args:
        original: Folder of `trained`, the teacher where a step names none.
    """
    before = _digest(trained)
    for number, step in enumerate(steps, 1):
        yield Began(number, step)
        folder = out / f"{number:02d}-{step.method}"
        about = {"step": step.model_dump(), "from": before}
        if (folder / FACTS).exists() and _same_step(folder, about):
            trained = Trained.load(folder)
        else:
            method = METHODS[step.method]
            context = Context(dataset, folder, original, device, threads)
            trained = yield from method.apply(trained, context, read_options(step, method.options))
            trained.save(folder)
            write_json(folder / STEP, about)
        before = _digest(trained)
        yield Said(f"validation accuracy {100 * trained.metrics['val_accuracy']:.2f} %")
    return trained


def _network_trial(
    request: Request, steps: Sequence[Step], progress: Progress | None
) -> Generator[Began | Said | Event, None, tuple[Trained, Trial, Bundle | None]]:
    """Yield progress; return the changed run, its trial, and the bundle where it ships."""
    archive = Bundle.open(request.source) if request.source.is_file() else None  # held: its folder goes with it
    folder = _run_of(request, request.source if archive is None else archive.path)
    original = Trained.load(folder)
    in_order(request.steps, _been_through(original.architecture))  # before anything is trained
    how = request.conditions
    trained = yield from change_network(
        original, steps, request.dataset, request.out / "steps", original=folder, device=request.device,
        threads=how.threads,
    )  # fmt: skip
    work = request.out / "work"
    before = _exported(original, request.dataset, work / "before", training=False)
    after = _exported(trained, request.dataset, work / "after")
    trial = run_trial(
        (before, None), (after, None), request.dataset, part=how.part, margin=how.margin, promises=promised(steps),
        threads=how.threads, timing=how.timing, progress=progress,
    )  # fmt: skip
    if not (trial.ship or request.anyway):
        return trained, trial, None
    return trained, trial, _with_verdict(after, trial, request.out / "bundle")


def _with_verdict(bundle: Bundle, trial: Trial, out: Path) -> Bundle:
    """Return the bundle written at `out` with the verdict in its provenance."""
    with tempfile.TemporaryDirectory(prefix="flyweight-compress-") as scratch:
        told = Path(shutil.copytree(bundle.path, Path(scratch) / "bundle"))
        manifest = json.loads((told / MANIFEST).read_text("utf-8"))
        manifest["provenance"]["trial"] = trial.record()
        write_json(told / MANIFEST, manifest)
        write_sums(told)
        return copy_bundle(Bundle.open(told), out, name=out.parent.name)


def _exported(trained: Trained, dataset: Dataset, folder: Path, *, training: bool = True) -> Bundle:
    """Return the bundle of a run in a folder, written unless a stopped chain has written it."""
    digest, seen = _digest(trained), folder.with_suffix(".json")
    known = json.loads(seen.read_text("utf-8")) if seen.exists() else None
    if known == digest and folder.exists():
        return Bundle.open(folder)
    made = export(trained, dataset, folder, training=training)
    write_json(seen, digest)
    return made


def _finished(
    request: Request, trials: Sequence[Trial], bundle: Bundle | None, trained: Trained | None
) -> Iterator[Said | Compressed]:
    """Yield the end; a bundle that an earlier chain wrote does not stay beside trials that say no."""
    earlier = request.out / "bundle"
    if bundle is None and (earlier / MANIFEST).exists() and earlier.resolve() != request.source.resolve():
        shutil.rmtree(earlier)
        yield Said(f"removed {earlier}, which an earlier run wrote: the trial now says no")
    write_json(request.out / TRIALS, [trial.model_dump(mode="json") for trial in trials])
    yield Compressed(tuple(trials), bundle, trained, request.out)


def _run_of(request: Request, source: Path) -> Path:
    """Return the folder of the run that a folder is, or carries."""
    if (source / FACTS).exists():
        return source
    carried = source / TRAINING
    if (carried / FACTS).exists():
        return carried
    raise OrderError(
        f"{str(request.source)!r} is no finished run, nor a bundle that carries its training weights; "
        f"{request.steps[0].method} changes a network",
        do="give the folder of the run (flyweight train … --out RUN), or only steps that change files: "
        + ", ".join(FILES),
    )


def _bundle_of(request: Request) -> Bundle:
    """Return the bundle that a source is, or that its run exports to."""
    if (request.source / FACTS).exists():
        return _exported(Trained.load(request.source), request.dataset, request.out / "work" / "before")
    return Bundle.open(request.source)


def _same_step(folder: Path, about: Mapping[str, object]) -> bool:
    """True where a finished folder is of this very step; raises CompressError where it is of another."""
    there = json.loads((folder / STEP).read_text("utf-8")) if (folder / STEP).exists() else None
    if there is None:
        return False
    if there != about:
        raise CompressError(
            f"{folder} holds another step, or the same of another run",
            do="choose another --out, or empty that folder to start again",
        )
    return True


def _digest(trained: Trained) -> str:
    made = hashlib.blake2b(json.dumps(trained.architecture.to_json(), sort_keys=True).encode(), digest_size=8)
    for name, value in sorted(trained.weights.items()):
        made.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return made.hexdigest()
