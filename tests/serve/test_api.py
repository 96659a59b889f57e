"""The HTTP API as its callers see it: a real server process on the loopback."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.runtime.tiny_bundle import picture, write_bundle
from tests.serve.client import Answer, Server, exchange, request, running

from flyweight.runtime.predict import Predictor

LINES = {"error", "what", "do", "more"}
BOMB = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + b"IHDR" + (60000).to_bytes(4) + (60000).to_bytes(4) + b"\x08\x02\0\0\0"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "thirds", reject_threshold=0.6)


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    with running(bundle, "--rate", 0, "--max-mb", 1) as started:
        yield started


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def post(server: Server, body: bytes, path: str = "/predict", **options: Any) -> Answer:
    return asyncio.run(request(server.port, "POST", path, body, **options))


def get(server: Server, path: str) -> Answer:
    return asyncio.run(request(server.port, "GET", path))


def test_an_image_gets_the_answer_of_the_command(server: Server, bundle: Path) -> None:
    content = png(picture(2, 90, seed=4))
    wanted = next(iter(Predictor(bundle).predict([content]))).to_json()
    found = post(server, content)
    assert found.status == 200
    assert {key: found.json[key] for key in ("class", "confidence", "rejected", "top")} == {
        key: wanted[key] for key in ("class", "confidence", "rejected", "top")
    }


def test_a_form_with_a_file_gets_the_same_answer(server: Server) -> None:
    content = png(picture(1, 40))
    form = b'--xx\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    form += b'--xx\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    form += content + b"\r\n--xx--\r\n"
    found = post(server, form, headers=["Content-Type: multipart/form-data; boundary=xx"])
    assert found.json == post(server, content).json


def test_an_image_like_no_class_is_answered_without_a_class(server: Server) -> None:
    found = post(server, png(np.full((20, 20, 3), 128, np.uint8)))
    assert found.status == 200
    assert (found.json["class"], found.json["rejected"], found.json["reject_threshold"]) == (None, True, 0.6)
    assert b"flyweight_rejected_total 0.0" not in get(server, "/metrics").body


@pytest.mark.parametrize(
    ("body", "options", "status"),
    [
        (b"", {}, 400),
        (b"hello", {}, 422),
        (BOMB, {}, 422),
        (b"x" * 10, {"length": 3_000_000}, 413),
        (b"x" * 2_000_000, {}, 413),
        (b"--xx\r\nnothing", {"headers": ["Content-Type: multipart/form-data; boundary=xx"]}, 400),
        (b"abc", {"headers": ["Content-Type: multipart/form-data"]}, 400),
    ],
    ids=["empty", "text", "bomb", "claims much", "sends much", "broken form", "form without boundary"],
)
def test_what_is_not_taken_is_said_in_three_lines(
    server: Server, body: bytes, options: dict[str, Any], status: int
) -> None:
    found = post(server, body, **options)
    assert found.status == status
    assert set(found.json) == LINES


def test_a_truncated_image_is_said_to_be_one(server: Server) -> None:
    found = post(server, png(picture(0, 90))[:900])
    assert (found.status, found.json["error"]) == (422, "data")


def test_an_upload_of_unstated_length_is_cut_at_the_limit(server: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    found = asyncio.run(exchange(server.port, head + (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 20 + b"0\r\n\r\n"))
    assert (found.status, set(found.json)) == (413, LINES)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/predict", 405),
                                                        ("GET", "/", 404), ("GET", "/docs", 404)])  # fmt: skip
def test_other_paths_are_refused_in_three_lines(server: Server, method: str, path: str, status: int) -> None:
    found = asyncio.run(request(server.port, method, path))
    assert (found.status, set(found.json)) == (status, LINES)


@pytest.mark.parametrize("top_k", ["0", "-1", "x", "100000"])
def test_a_top_k_out_of_range_is_refused(server: Server, top_k: str) -> None:
    assert post(server, b"", f"/predict?top_k={top_k}").status == 422


def test_what_is_no_http_is_answered_in_three_lines(server: Server) -> None:
    found = asyncio.run(exchange(server.port, b"garbage\r\n\r\n"))
    assert (found.status, set(found.json)) == (400, LINES)


def test_health_readiness_and_metrics_answer(server: Server) -> None:
    assert get(server, "/healthz").json == {"status": "ok"}
    assert get(server, "/readyz").json == {"status": "ready", "bundle": "thirds", "variant": "fp32"}
    assert b"flyweight_requests_total" in get(server, "/metrics").body


def test_the_schema_says_what_a_request_is_and_what_its_answers_hold(server: Server) -> None:
    asked = get(server, "/openapi.json").json["paths"]["/predict"]["post"]
    assert {"application/octet-stream", "multipart/form-data"} == set(asked["requestBody"]["content"])
    assert {"200", "400", "408", "413", "422", "429", "503"} <= set(asked["responses"])
    answers = {status: one["content"]["application/json"]["schema"] for status, one in asked["responses"].items()}
    good, bad = post(server, png(picture(2, 90, seed=4))), post(server, b"no image")
    assert set(good.json) == set(answers["200"]["properties"])
    assert set(good.json["top"][0]) == set(answers["200"]["properties"]["top"]["items"]["properties"])
    assert set(bad.json) == set(answers[str(bad.status)]["properties"])


def test_more_than_the_rate_gets_429_and_when_to_come_back(bundle: Path) -> None:
    async def many(port: int) -> list[Answer]:
        content = png(picture(0))
        ours = [request(port, "POST", "/predict", content, source="127.0.0.2") for _ in range(12)]
        theirs = request(port, "POST", "/predict", content, source="127.0.0.3")
        return [*await asyncio.gather(*ours), await theirs]

    with running(bundle, "--rate", 0.01) as started:
        *ours, theirs = asyncio.run(many(started.port))
    refused = [answer for answer in ours if answer.status == 429]
    assert len(refused) == 11
    assert all(int(answer.headers["retry-after"]) > 0 and set(answer.json) == LINES for answer in refused)
    assert theirs.status == 200


def test_clients_that_do_not_get_on_are_cut_off(bundle: Path) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    slow = {
        "nothing": b"",
        "half a head": head,
        "half a body": head + b"Content-Length: 1000\r\n\r\nabc",
    }

    async def all_at_once(port: int) -> dict[str, Answer]:
        found = await asyncio.gather(*(exchange(port, content, seconds=30) for content in slow.values()))
        return dict(zip(slow, found, strict=True))

    with running(bundle, "--patience", 0.4) as started:
        found = asyncio.run(all_at_once(started.port))
    assert {name: answer.status for name, answer in found.items()} == {
        "nothing": 0,
        "half a head": 0,
        "half a body": 408,
    }
    assert set(found["half a body"].json) == LINES
    assert max(answer.seconds for answer in found.values()) < 25


def test_a_taken_address_is_said_to_be_one(bundle: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    from flyweight.cli import run

    assert run(["serve", str(bundle), "--port", str(server.port), "--no-page"]) == 1
    assert f"port {server.port}" in capfd.readouterr().err
