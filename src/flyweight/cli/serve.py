"""`flyweight serve`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.errors import ExportError, MissingExtraError, OutputError

if TYPE_CHECKING:
    from flyweight.runtime.bundle import Bundle, Variant

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or .zip.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines too.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    variant: Annotated[str | None, typer.Option(help="Model file of the bundle; its default without.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the model; one batch runs at a time.")] = 1,
    max_batch: Annotated[int, typer.Option(min=1, help="Images of one run of the model.")] = 16,
    batch_wait_ms: Annotated[float, typer.Option(min=0, help="How long an image waits for others.")] = 0.0,
    waiting: Annotated[int, typer.Option(min=1, help="Requests under way; more get 503.")] = 256,
    max_mb: Annotated[float, typer.Option(min=0.001, help="Of one upload; more gets 413.")] = 10.0,
    max_mpx: Annotated[float, typer.Option(min=0.001, max=89, help="Of a JPEG; of other formats half as many.")] = 20.0,
    rate: Annotated[float, typer.Option(min=0, help="Requests a second of one address; 0: any number.")] = 20.0,
    patience: Annotated[
        float, typer.Option(min=0.1, help="Seconds for the head and for the body of a request.")
    ] = 10.0,
    page: Annotated[bool, typer.Option(help="The page of flyweight web in front.")] = True,
    ort_web: Annotated[Path | None, typer.Option(help="As of flyweight web.")] = None,
) -> None:
    """Answer over HTTP: POST an image to /predict, get its classes; the same page as flyweight web in front."""
    _need_extra()
    from flyweight.export.c.check import compile_if_ours
    from flyweight.runtime.bundle import Bundle
    from flyweight.runtime.predict import Predictor
    from flyweight.serve.app import make_app
    from flyweight.serve.limits import MB, Limits
    from flyweight.serve.server import give_memory_back, listen
    from flyweight.serve.server import serve as run_server

    limits = Limits(
        max_bytes=int(max_mb * MB), max_pixels=int(max_mpx * MB), held_bytes=max(32 * MB, int(max_mb * MB)),
        waiting=waiting, max_batch=max_batch, batch_wait_ms=batch_wait_ms, rate=rate, burst=max(1, round(2 * rate)),
        header_seconds=patience, body_seconds=patience, threads=threads,
    )  # fmt: skip
    give_memory_back()
    opened = Bundle.open(bundle)
    compile_if_ours(opened, opened.variant(variant))
    predictor = Predictor(opened, variant=variant, threads=threads)
    built = page_of(opened, predictor.variant, ort_web) if page else None
    bound = listen(host, port)
    shown, at = bound.getsockname()[:2]
    address = f"http://{f'[{shown}]' if ':' in shown else shown}:{at}"
    print(f"bundle  {opened.name}, variant {predictor.variant.name} ({predictor.backend.name})")
    if built is not None:
        print(f"page    variant {built.variant} (onnxruntime-web, in the browser)")
    print(
        f"limits  {limits.decoders} thread(s) decode, {threads} run(s) the model in batches of up to {max_batch}; "
        f"{waiting} requests under way, {max_mb:g} MB and {max_mpx:g} Mpx an image, "
        + (f"{rate:g} a second of one address" if rate else "any rate")
    )
    print(f"listens {address}/predict  (curl --data-binary @photo.jpg {address}/predict)", flush=True)
    run_server(make_app(predictor, limits, None if built is None else built.html), limits, bound)


@dataclass(frozen=True)
class Page:
    """The page in front, and the variant that it runs in the browser."""

    html: str
    variant: str


def page_of(bundle: Bundle, answers: Variant, ort_web: Path | None) -> Page | None:
    """Return the page for the variant that answers: its ONNX file, or that which it was converted from.

    None, with a warning, where the page cannot be built: what answers needs none. With `ort_web` that is an error.
    """
    from flyweight.web import render
    from flyweight.web.ort import ort_web as find_runtime

    try:
        shown = answers if answers.format == "onnx" or answers.source is None else bundle.variants[answers.source]
        return Page(render(bundle, shown, find_runtime(ort_web)), shown.name)
    except (ExportError, OutputError) as error:
        if ort_web is not None:
            raise
        print(f"warning: there is no page in front: {error.what}\n  do: {error.do}; or add --no-page", file=sys.stderr)
        return None


def _need_extra() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"flyweight serve needs {', '.join(missing)}", do='pip install "flyweight[serve]"', more="docs/serve.md"
        )
