"""The process: uvicorn on one socket, with patience for slow clients that ends."""

from __future__ import annotations

import ctypes
import json
import socket
import sys
import time
from asyncio import Transport

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from flyweight.errors import ServeError
from flyweight.serve.limits import MORE, Limits, busy

GRACE_SECONDS = 10  # for requests under way when the server is asked to stop


def give_memory_back() -> bool:
    """Tell the C library to give large blocks back when they are freed; True where it took it (glibc).

    Left alone it learns to keep what many threads freed: one large picture after another, each in its own heap.
    Source: mallopt(3), M_MMAP_THRESHOLD (setting it ends its growth) and M_ARENA_MAX.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all(mallopt(parameter, value) == 1 for parameter, value in ((-3, 1 << 18), (-8, 2)))


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket. Raises ServeError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ServeError(
            f"cannot listen on {host!r}, port {port}: {reason.lower()}", do="choose another with --host and --port"
        ) from error
    return bound


def serve(app: FastAPI, limits: Limits, bound: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM; requests under way are finished first."""
    protocol = type("Patient", (PatientProtocol,), {"limits": limits})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        loop="asyncio",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whoever connects from this machine could name any address as his own
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[bound])


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes connections whose requests or answers do not get on, and refuses too many of them."""

    limits = Limits()

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse it when there are too many."""
        super().connection_made(transport)
        self._since = time.monotonic()
        if len(self.connections) > self.limits.connections:
            refusal = busy(f"{self.limits.connections} connections are open")
            transport.write(_plain("503 Service Unavailable", refusal, "Retry-After: 1\r\n"))
            transport.close()
            return
        self._look_later()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        error = ServeError("this is not an HTTP/1.1 request", do="use an HTTP client", more=MORE)
        self.transport.write(_plain("400 Bad Request", error))
        self.transport.close()

    def _look_later(self) -> None:
        self.loop.call_later(self.limits.header_seconds / 4, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        limits, waited = self.limits, time.monotonic() - self._since
        answering = self.cycle is not None and not self.cycle.response_complete
        # `answer_seconds` ends inside the application first; here it is for who does not read the answer.
        if waited > (limits.header_seconds + 2 * limits.answer_seconds if answering else limits.header_seconds):
            self.transport.abort()
        else:
            self._look_later()


def _plain(status: str, error: ServeError, headers: str = "") -> bytes:
    """Return a whole answer for those whom no application sees."""
    body = json.dumps(error.as_dict()).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}"
    return head.encode() + b"Connection: close\r\n\r\n" + body
