"""The page in front of the API, in a real browser."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tests.report.browser import Browser
from tests.runtime.tiny_bundle import picture, write_bundle
from tests.serve.client import Server, request, running
from tests.web.conftest import runtime  # noqa: F401 - a fixture

from flyweight.cli.serve import page_of
from flyweight.errors import ExportError
from flyweight.runtime.bundle import Bundle
from flyweight.web import render
from flyweight.web.ort import FOLDER_VARIABLE, MODULE, REGISTRY_VARIABLE, WASM, OrtWeb


@pytest.fixture(scope="module")
def server(runtime: OrtWeb, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:  # noqa: F811
    folder = tmp_path_factory.mktemp("ort")
    (folder / MODULE).write_bytes(runtime.module)
    (folder / WASM).write_bytes(runtime.wasm)
    with running(write_bundle(folder / "thirds"), "--ort-web", folder, page=True) as started:
        yield started


def test_the_page_in_front_classifies_in_the_browser_with_the_fine_clock(
    browser: Browser,
    server: Server,
    tmp_path: Path,
) -> None:
    browser.visit(f"http://127.0.0.1:{server.port}/", 1280)
    path = tmp_path / "middle.png"
    Image.fromarray(picture(1, 50)).save(path)
    browser.choose("#file", [path])
    assert browser.wait("flyweight.results[0]?.top[0].class") == "middle"
    assert browser.run("crossOriginIsolated")
    assert browser.run("clockStep()") <= 0.02
    assert browser.problems() == []
    assert browser.requests() == [f"http://127.0.0.1:{server.port}/"]


def test_the_page_is_sent_once_and_then_known_by_its_tag(server: Server) -> None:
    first = asyncio.run(request(server.port, "GET", "/"))
    again = asyncio.run(request(server.port, "GET", "/", headers=[f"If-None-Match: {first.headers['etag']}"]))
    assert (first.status, again.status, again.body) == (200, 304, b"")


def test_readers_of_the_page_that_do_not_read_take_little_memory(server: Server) -> None:
    async def stall(count: int) -> None:
        opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", server.port) for _ in range(count)))
        for _, writer in opened:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await request(server.port, "GET", "/healthz")).status == 200
        await asyncio.sleep(1)
        for _, writer in opened:
            writer.close()

    before = server.peak_bytes()
    asyncio.run(stall(60))
    assert server.peak_bytes() - before < 60e6  # a page has 5 MB


def test_the_page_runs_the_onnx_file_that_the_answering_variant_was_converted_from(
    runtime: OrtWeb,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / MODULE).write_bytes(runtime.module)
    (tmp_path / WASM).write_bytes(runtime.wasm)
    bundle = Bundle.open(write_bundle(tmp_path / "thirds"))
    phone = replace(bundle.variant("fp32"), name="phone", format="litert", source="fp32")
    bundle = replace(bundle, variants={**bundle.variants, "phone": phone}, default="phone")
    made = page_of(bundle, bundle.variant("phone"), tmp_path)
    assert made is not None
    assert (made.variant, made.html) == ("fp32", render(bundle, bundle.variant("fp32"), runtime))


def test_without_a_network_the_api_starts_and_says_how_to_do_without_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv(REGISTRY_VARIABLE, "http://127.0.0.1:9")  # nothing listens on the port of discard
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with running(write_bundle(tmp_path / "thirds"), page=True) as started:
        assert asyncio.run(request(started.port, "GET", "/")).status == 404
        assert asyncio.run(request(started.port, "GET", "/healthz")).status == 200
    assert "--no-page" in capfd.readouterr().err


def test_a_runtime_that_was_named_and_is_none_is_an_error(tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "thirds"))
    with pytest.raises(ExportError):
        page_of(bundle, bundle.variant(), tmp_path)
