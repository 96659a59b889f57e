"""The HTTP API: POST /predict, /healthz, /readyz, /metrics, and the page of `flyweight web` in front."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from flyweight import __version__
from flyweight.errors import DataError, FlyweightError, ServeError
from flyweight.runtime.predict import Predictor
from flyweight.runtime.preprocess import size_of
from flyweight.serve.batching import Batcher
from flyweight.serve.limits import MB, MORE, Gate, Limits, Pool, Rates, Share, busy
from flyweight.serve.metrics import CONTENT_TYPE, Metrics
from flyweight.serve.schema import PREDICT_ANSWERS, PREDICT_BODY
from flyweight.serve.upload import Upload

LOG = logging.getLogger("flyweight.serve")
NAME = "upload"  # what errors call the image
JPEG = b"\xff\xd8\xff"
PIECE = 1 << 16  # bytes of the page
PLANES_BYTES = 64 * MB  # most that images hold while they wait for the model
SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
# A page of its own origin alone gets the browser's fine clock, with which small networks can be timed.
PAGE_HEADERS = {
    **SAFE,
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class Service:
    """One bundle, its batches and its limits."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor, self.limits = predictor, limits
        self.batcher = Batcher(predictor.backend, limits)
        self.metrics = Metrics(lambda: self.batcher.waiting, lambda: self.batcher.sizes)
        self.inside, self.most_inside = 0, _most_inside(predictor, limits)
        self._rates = Rates(limits.rate, limits.burst)
        self._bytes = Pool(limits.held_bytes, "the uploads of others fill its memory")
        self._pixels = Gate(limits.max_pixels)
        self._decoders = ThreadPoolExecutor(limits.decoders, "flyweight-decode")

    @property
    def ready(self) -> bool:
        """True when a request would be taken now."""
        return self.batcher.alive and self.inside < self.most_inside

    async def stop(self) -> None:
        """End the threads."""
        await self.batcher.stop()
        self._decoders.shutdown(cancel_futures=True)

    async def predict(self, client: str, upload: Upload, top_k: int) -> dict[str, Any]:
        """Return the answer to one request.

        Raises:
            ServeError: 400, 408, 413, 429 or 503.
            DataError: The image cannot be decoded, or has too many pixels.
        """
        self._rates.take(client)
        if self.inside >= self.most_inside:
            raise busy(f"{self.inside} requests are under way")
        self.inside += 1
        try:
            async with asyncio.timeout(self.limits.answer_seconds):
                image = await self._image(upload)
                logits = await self.batcher.logits(image)
        except TimeoutError:
            raise busy(f"no answer within {self.limits.answer_seconds:g} s") from None
        finally:
            self.inside -= 1
        found = self.predictor.answer(NAME, logits, top_k)
        if found.rejected:
            self.metrics.rejected.inc()
        answer = found.to_json()
        del answer["source"]
        threshold = self.predictor.threshold
        return {**answer, "reject_threshold": threshold, "model": self._model()}

    def _model(self) -> dict[str, str]:
        return {"bundle": self.predictor.bundle.name, "variant": self.predictor.variant.name}

    async def _image(self, upload: Upload) -> np.ndarray:
        loop = asyncio.get_running_loop()
        with Share(self._bytes) as share:
            content = await upload.image(share)
            weight = 1 if content.startswith(JPEG) else 2
            width, height = size_of(content, name=NAME, max_pixels=self.limits.max_pixels // weight)
            async with self._pixels.held(width * height * weight):
                return await loop.run_in_executor(self._decoders, self.predictor.load, content, NAME)


def _most_inside(predictor: Predictor, limits: Limits) -> int:
    preprocess = predictor.bundle.preprocess
    each = preprocess.channels * preprocess.image_size**2
    return max(1, min(limits.waiting, PLANES_BYTES // each))


def make_app(predictor: Predictor, limits: Limits, page: str | None = None) -> FastAPI:
    """Return the application.

    Args:
        page: What GET / answers; without one it is not found.
    """
    service = Service(predictor, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await service.stop()

    # The pages that FastAPI makes of the schema load scripts from elsewhere; the schema itself is served.
    app = FastAPI(title="Flyweight", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    _explain(app)

    @app.post("/predict", openapi_extra=PREDICT_BODY, responses=PREDICT_ANSWERS)
    async def predict(request: Request, top_k: Annotated[int, Query(ge=1, le=1000)] = 5) -> JSONResponse:
        """Classify the image in the body: its bytes, or a form with one file."""
        return await _counted(service, request, top_k)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Tell that the process answers."""
        return JSONResponse({"status": "ok"}, headers=SAFE)

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """Tell whether a request would be taken now."""
        if service.ready:
            return JSONResponse({"status": "ready", **service._model()}, headers=SAFE)
        return _answer(busy("it takes no requests now"))

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return the counters for Prometheus."""
        service.metrics.inside.set(service.inside)
        return Response(service.metrics.text(), media_type=CONTENT_TYPE, headers=SAFE)

    if page is not None:
        _serve_page(app, page.encode())
    return app


async def _counted(service: Service, request: Request, top_k: int) -> JSONResponse:
    start, status = time.monotonic(), 500
    upload = Upload(request, service.limits)
    try:
        client = request.client.host if request.client else ""
        answer = JSONResponse(await service.predict(client, upload, top_k), headers=SAFE)
        status = answer.status_code
        return answer
    except FlyweightError as error:
        await upload.discard()
        answer = _answer(error)
        status = answer.status_code
        return answer
    except ClientDisconnect:
        status = 499  # as nginx counts it; nobody reads this answer
        return _answer(ServeError("the connection ended before the image was whole", do="send it again", more=MORE))
    finally:
        service.metrics.requests.labels(str(status)).inc()
        service.metrics.seconds.observe(time.monotonic() - start)


def _serve_page(app: FastAPI, content: bytes) -> None:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**PAGE_HEADERS, "ETag": tag}

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        sized = {**headers, "Content-Length": str(len(content))}
        return StreamingResponse(_pieces(content), media_type="text/html; charset=utf-8", headers=sized)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    """Yield the page piece by piece: whole, it would lie in memory once for each reader, and slow ones are many."""
    for start in range(0, len(content), PIECE):
        yield content[start : start + PIECE]


def _explain(app: FastAPI) -> None:
    """Let every error be three lines of JSON, and none a traceback."""

    @app.exception_handler(FlyweightError)
    async def known(request: Request, error: FlyweightError) -> JSONResponse:
        return _answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return _answer(ServeError(f"{place}: {first['msg']}", do="send a value that it takes", more=MORE, status=422))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        paths = ", ".join(["POST /predict", "GET /healthz", "GET /readyz", "GET /metrics", "GET /"])
        what = f"{str(error.detail).lower()}: {request.method} {request.url.path[:200]}"
        answer = _answer(ServeError(what, do=f"use one of {paths}", more=MORE, status=error.status_code))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        number = secrets.token_hex(4)
        LOG.error("failure %s", number, exc_info=error)
        body = {
            "error": "bug",
            "what": f"the server failed; its log says why under {number}",
            "do": "send the same request again; if it fails again, report that number",
            "more": "docs/errors.md#errors",
        }
        return JSONResponse(body, 500, headers=SAFE)


def _answer(error: FlyweightError) -> JSONResponse:
    status = error.status if isinstance(error, ServeError) else 422 if isinstance(error, DataError) else 500
    headers = dict(SAFE)
    if isinstance(error, ServeError) and error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return JSONResponse(error.as_dict(), status, headers=headers)
