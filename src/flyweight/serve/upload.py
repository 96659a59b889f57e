"""The body of a request as the bytes of one image, read within limits of size, time and memory."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.requests import ClientDisconnect, Request

from flyweight.errors import ServeError
from flyweight.serve.limits import MB, MORE, Limits, Share

PAUSE_SECONDS = 2.0  # who sends nothing for so long waits for the answer


class Upload:
    """The body of one request, read once; what was not read is discarded before the answer."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self._request, self._limits, self._ended = request, limits, False

    async def image(self, share: Share) -> bytes:
        """Return the image: the body, or the first file of a form.

        Raises:
            ServeError: 400 no image or a broken form, 408 too slow, 413 too large, 503 no room.
        """
        body = await self._read(share)
        kind = self._request.headers.get("content-type", "")
        content = _first_file(body, kind) if kind.lower().startswith("multipart/form-data") else body
        if not content:
            raise ServeError(
                "the request carries no image (0 bytes)",
                do="send the bytes of an image file: curl --data-binary @photo.jpg ADDRESS/predict, "
                "or -F image=@photo.jpg",
                more=MORE,
            )
        return content

    async def discard(self) -> None:
        """Read the rest and forget it: who is still sending would lose the answer with the connection.

        Not without end: after twice the largest upload, the time for a body, or a pause, the connection may break.
        """
        left = 2 * self._limits.max_bytes
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(self._limits.body_seconds):
                while not self._ended and left > 0:
                    left -= len(await asyncio.wait_for(self._next(), PAUSE_SECONDS))

    async def _read(self, share: Share) -> bytes:
        limits, stated = self._limits, self._request.headers.get("content-length", "0")
        if stated.isdigit() and int(stated) > limits.max_bytes:
            raise _too_large(f"{int(stated) / MB:.1f} MB", limits)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                while not self._ended:
                    parts.append(await self._next())
                    size += len(parts[-1])
                    if size > limits.max_bytes:
                        raise _too_large(f"more than {limits.max_bytes / MB:g} MB", limits)
                    share.take(len(parts[-1]))
        except TimeoutError:
            self._ended = True  # nothing more is waited for
            raise ServeError(
                f"only {size} bytes of the request came within {limits.body_seconds:g} s",
                do="send it over a faster connection, or a smaller image",
                more=MORE,
                status=408,
            ) from None
        return b"".join(parts)

    async def _next(self) -> bytes:
        message = await self._request.receive()
        if message["type"] == "http.disconnect":
            self._ended = True
            raise ClientDisconnect
        self._ended = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part


def _too_large(found: str, limits: Limits) -> ServeError:
    return ServeError(
        f"the upload has {found}; the limit is {limits.max_bytes / MB:g} MB",
        do="scale the image down or save it with a lower quality",
        more=MORE,
        status=413,
    )


def _first_file(body: bytes, kind: str) -> bytes:
    """Return the content of the first part of a form that is a file."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    boundary = parse_options_header(kind)[1].get(b"boundary", b"")
    files: list[list[bytes]] = []
    header: list[bytes] = []
    inside = [False]  # in a part that is a file

    def begin() -> None:
        header.clear()
        inside[0] = False

    def take_header(data: bytes, start: int, end: int) -> None:
        header.append(data[start:end])

    def begin_content() -> None:
        inside[0] = b"filename" in b"".join(header).lower()
        if inside[0]:
            files.append([])

    def take_content(data: bytes, start: int, end: int) -> None:
        if inside[0] and len(files) == 1:
            files[0].append(data[start:end])

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_value": take_header,
                "on_headers_finished": begin_content,
                "on_part_data": take_content,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise ServeError(
            f"the form cannot be read: {error}", do="send it whole: curl -F image=@photo.jpg ADDRESS/predict", more=MORE
        ) from error
    return b"".join(files[0]) if files else b""
