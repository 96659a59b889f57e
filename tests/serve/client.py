"""Requests to a server of this project on this machine, over plain sockets: many, slow, broken or cut off."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """One answer; status 0 where the connection ended without one."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """A running `flyweight serve`."""

    process: subprocess.Popen[str]
    port: int

    def peak_bytes(self) -> int:
        """Return the most resident memory the process has held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024


@contextmanager
def running(bundle: Path, *options: object, page: bool = False) -> Iterator[Server]:
    """Start `flyweight serve` on a free port of the loopback, and end it."""
    command = [sys.executable, "-m", "flyweight", "serve", bundle, "--host", HOST, "--port", 0, *options]
    process = subprocess.Popen(
        [str(part) for part in (*command, *([] if page else ["--no-page"]))], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("listens")), None)
        assert line is not None, f"the server ended with {process.wait()}"
        port = int(line.split(":")[2].split("/")[0])
        deadline = time.monotonic() + 60
        while asyncio.run(request(port, "GET", "/healthz")).status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield Server(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def request(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: Sequence[str] = (),
    length: int | None = None,
    source: str | None = None,
    seconds: float = 400,
) -> Answer:
    """Return the answer to one request on a connection of its own.

    Args:
        length: What Content-Length claims; the body's own without.
        source: Address of the loopback range to come from.
    """
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", "Connection: close", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return await exchange(port, "\r\n".join([*lines, "", ""]).encode() + body, source=source, seconds=seconds)


async def exchange(port: int, content: bytes, *, source: str | None = None, seconds: float = 400) -> Answer:
    """Send bytes as they are and return what comes back until the connection ends."""
    start = time.monotonic()
    found = b""
    try:
        async with asyncio.timeout(seconds):
            local = (source, 0) if source else None
            reader, writer = await asyncio.open_connection(HOST, port, local_addr=local)
            try:
                writer.write(content)
                await writer.drain()
                while chunk := await reader.read(1 << 16):
                    found += chunk
            finally:
                writer.close()
    except (ConnectionError, TimeoutError):
        pass  # an answer that was sent before counts
    return _parsed(found, time.monotonic() - start)


def _parsed(content: bytes, seconds: float) -> Answer:
    head, _, body = content.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        return Answer(0, {}, content, seconds)
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return Answer(int(first.split()[1]), headers, body, seconds)
