"""The page in front of the API, in a real browser."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from tests.report.browser import Browser
from tests.runtime.tiny_bundle import picture, write_bundle
from tests.serve.client import Server, request, running
from tests.web.conftest import runtime  # noqa: F401 - a fixture

from flyweight.web.ort import MODULE, WASM, OrtWeb


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
