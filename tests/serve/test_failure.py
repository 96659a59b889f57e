"""When the server itself fails: a number for its log, and nothing of its inside."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.runtime.tiny_bundle import picture, write_bundle

from flyweight.runtime.predict import Predictor
from flyweight.serve.app import make_app
from flyweight.serve.limits import Limits


class Broken:
    """A backend that cannot run."""

    name, shape, only_batch = "broken", (3, 12, 12), None

    def run(self, images: np.ndarray) -> np.ndarray:
        raise RuntimeError("/secret/path is gone")


def test_a_failure_of_the_model_shows_a_number_and_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = Predictor(write_bundle(tmp_path / "b"))
    predictor.backend = Broken()
    app = make_app(predictor, Limits())
    out = io.BytesIO()
    Image.fromarray(picture(0)).save(out, "PNG")
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": out.getvalue(), "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def call() -> None:
        app.state.service.batcher.start()
        place = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "http", "root_path": ""}
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/predict", "raw_path": b"/predict",
                 "query_string": b"", "headers": [], "asgi": {"version": "3.0"}, **place}  # fmt: skip
        try:
            await app(scope, receive, send)
        finally:
            await app.state.service.stop()

    with caplog.at_level(logging.ERROR), pytest.raises(RuntimeError, match="is gone"):  # for the server's log
        asyncio.run(call())
    body = b"".join(message.get("body", b"") for message in sent)
    found = json.loads(body)
    assert sent[0]["status"] == 500
    assert set(found) == {"error", "what", "do", "more"}
    assert b"secret" not in body
    assert found["what"].split()[-1] in caplog.text
