"""Does the HTTP API hold under load? 500 requests at once in waves, malformed, huge and truncated ones among them.

    python benchmarks/api_load.py [--bundle bundles/cifar10-1mb] [--waves 5]

`flyweight serve` runs as it comes, page and all, with its own limits, on the loopback; callers come from addresses of
127.0.0.0/8. Afterwards 500 callers send a photo each, and come back when they are told to, until each has its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from results_file import Measured  # noqa: E402
from ship_networks import write as write_ship  # noqa: E402
from tests.serve.client import Answer, exchange, request, running  # noqa: E402

from flyweight.measure.latency import quantile_of  # noqa: E402
from flyweight.runtime.environment import environment  # noqa: E402

FILE, CLAIM, CALLERS = "ship.json", "api_peak_memory_mb", 500
ADDRESSES = 50  # of the loopback range: ten callers each
CUT_OFF = "cut off"
ALLOWED = {0, 200, 400, 408, 413, 422, 429, 503}  # 0: who cuts the connection, and nobody else, gets no answer

Sender = Callable[[int, str], Any]  # (port, own address) -> a coroutine of an Answer


@dataclass(frozen=True)
class Load:
    """What came back.

    Attributes:
        statuses: How often each, 0 without an answer.
        lost: Which requests got no answer, and how often.
        ok_seconds: How long each answer of 200 took.
        wrong: Answers that should not be: another status, an error that is not three lines, a traceback.
    """

    statuses: Counter[int]
    lost: Counter[str]
    ok_seconds: list[float]
    wrong: list[str]
    peak_bytes: int
    seconds: float


def main() -> None:
    """Run the load and write what it showed into benchmarks/results/ship.json; what others wrote there stays."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bundle", type=Path, default=HERE.parent / "bundles/cifar10-1mb")
    options.add_argument("--waves", type=int, default=5)
    options.add_argument("--repetitions", type=int, default=3, help="servers started afresh")
    options.add_argument("--dry", action="store_true", help="print, and write nothing")
    chosen = options.parse_args()
    loads = []
    for seed in range(chosen.repetitions):
        with running(chosen.bundle, page=True) as server:
            loads.append(asyncio.run(waves(server.port, server.peak_bytes, chosen.waves, seed)))
            print(told(loads[-1]), flush=True)
    with running(chosen.bundle, "--rate", 0, page=True) as server:
        patient = asyncio.run(until_answered(server.port))
    print(
        f"{CALLERS} patient callers: all answered after {patient[-1]:.1f} s, half after {patient[CALLERS // 2]:.1f} s"
    )
    wrong = [line for load in loads for line in load.wrong]
    if wrong:
        sys.exit("\n".join(["wrong answers:", *wrong[:20]]))
    if not chosen.dry:
        print(write(loads, patient, chosen.bundle))


async def waves(port: int, peak: Callable[[], int], count: int, seed: int) -> Load:
    """Send `count` waves of 500 requests at once."""
    bodies = make_bodies()
    statuses: Counter[int] = Counter()
    lost: Counter[str] = Counter()
    seconds: list[float] = []
    wrong: list[str] = []
    start = time.monotonic()
    for wave in range(count):
        chosen = random.Random(1000 * seed + wave).choices(list(bodies), [WEIGHTS[name] for name in bodies], k=CALLERS)
        senders = [bodies[name](port, f"127.0.1.{1 + i % ADDRESSES}") for i, name in enumerate(chosen)]
        for name, answer in zip(chosen, await asyncio.gather(*senders), strict=True):
            statuses[answer.status] += 1
            lost[name] += answer.status == 0
            if answer.status == 200:
                seconds.append(answer.seconds)
            wrong += problems(name, answer)
        health = await request(port, "GET", "/healthz")
        wrong += [] if health.status == 200 else [f"/healthz: {health.status} after wave {wave}"]
    return Load(statuses, +lost, seconds, wrong, peak(), time.monotonic() - start)


def problems(name: str, answer: Answer) -> list[str]:
    """Return what is wrong with an answer."""
    found = []
    if answer.status not in ALLOWED or (answer.status == 0 and name != CUT_OFF):
        found.append(f"{name}: status {answer.status}, {answer.body[:200]!r}")
    if b"Traceback" in answer.body or b'File "' in answer.body:
        found.append(f"{name}: a traceback, {answer.body[:200]!r}")
    if answer.status >= 400 and set(json.loads(answer.body)) != {"error", "what", "do", "more"}:
        found.append(f"{name}: {answer.status} without three lines, {answer.body[:200]!r}")
    if answer.status in {429, 503} and not answer.headers.get("retry-after", "").isdigit():
        found.append(f"{name}: {answer.status} without Retry-After")
    return found


WEIGHTS = {
    "small JPEG": 40, "PNG": 10, "photo of 12 Mpx": 10, "transparent PNG of 9 Mpx": 3, "WebP of 9 Mpx": 3,
    "truncated JPEG": 6, "truncated PNG": 4, "random bytes": 5, "empty": 2, "header of 3600 Mpx": 3,
    "flat PNG of 144 Mpx": 3, "upload of 12 MB": 3, "claims 1 TB": 2, "12 MB in chunks": 2, "no HTTP": 2, CUT_OFF: 2,
}  # fmt: skip


def make_bodies() -> dict[str, Sender]:
    """Return by name what sends one request of each kind."""
    small = jpeg(noise(320, 240, 0))
    photo, clear = jpeg(smooth(4000, 3000), exif=6), png(np.dstack([smooth(3000, 3000), smooth(3000, 3000)[..., :1]]))
    webp, flat = encoded(smooth(3000, 3000), "WEBP", quality=60), encoded(np.zeros((12000, 12000), np.uint8), "PNG")
    header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + b"IHDR" + (60000).to_bytes(4) * 2 + b"\x08\x02\0\0\0"
    large = bytes(12_000_000)
    start = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    chunks = b"".join(b"10000\r\n" + large[: 1 << 16] + b"\r\n" for _ in range(184)) + b"0\r\n\r\n"
    plain = {
        "small JPEG": small, "PNG": png(noise(64, 64, 1)), "photo of 12 Mpx": photo, "transparent PNG of 9 Mpx": clear,
        "WebP of 9 Mpx": webp, "truncated JPEG": small[: len(small) // 2], "truncated PNG": clear[:50_000],
        "random bytes": np.random.default_rng(2).bytes(5000), "empty": b"", "header of 3600 Mpx": header,
        "flat PNG of 144 Mpx": flat, "upload of 12 MB": large,
    }  # fmt: skip
    raw = {
        "12 MB in chunks": start + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        "no HTTP": b"\x16\x03\x01 hello\r\n\r\n",
    }
    senders: dict[str, Sender] = {name: poster(body) for name, body in plain.items()}
    senders |= {name: sender(content) for name, content in raw.items()}
    senders["claims 1 TB"] = poster(small, length=10**12)
    senders[CUT_OFF] = cutter(start + b"Content-Length: 100000\r\n\r\n" + small[:500])
    return senders


def poster(body: bytes, length: int | None = None) -> Sender:
    """Return what posts a body."""
    return lambda port, source: request(port, "POST", "/predict", body, length=length, source=source)


def sender(content: bytes) -> Sender:
    """Return what sends bytes as they are."""
    return lambda port, source: exchange(port, content, source=source)


def cutter(content: bytes) -> Sender:
    """Return what sends bytes and cuts the connection after a tenth of a second."""
    return lambda port, source: exchange(port, content, source=source, seconds=0.1)


async def until_answered(port: int) -> list[float]:
    """Return after how many seconds each of 500 callers had its answer; they come back when they are told to."""
    body, start = jpeg(noise(320, 240, 3)), time.monotonic()

    async def patient() -> float:
        while (answer := await request(port, "POST", "/predict", body)).status != 200:
            if answer.status != 503 or time.monotonic() - start > 300:
                raise RuntimeError(f"{answer.status} after {time.monotonic() - start:.0f} s: {answer.body[:200]!r}")
            await asyncio.sleep(int(answer.headers["retry-after"]) * (1 + random.random()))
        return time.monotonic() - start

    return sorted(await asyncio.gather(*(patient() for _ in range(CALLERS))))


def noise(width: int, height: int, seed: int) -> np.ndarray:
    """Return (H, W, 3) random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(width: int, height: int) -> np.ndarray:
    """Return (H, W, 3) pixels that files are small of."""
    across = np.linspace(0, 255, width).astype(np.uint8)
    return np.broadcast_to(across[None, :, None], (height, width, 3)).copy()


def jpeg(pixels: np.ndarray, exif: int | None = None) -> bytes:
    """Return a JPEG, with an EXIF orientation where one is given."""
    tags = Image.Exif()
    if exif is not None:
        tags[0x0112] = exif
    return encoded(pixels, "JPEG", quality=90, exif=tags)


def png(pixels: np.ndarray) -> bytes:
    """Return a PNG."""
    return encoded(pixels, "PNG", compress_level=1)


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    """Return an image file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def told(load: Load) -> str:
    """Return in a line what a load showed."""
    counts = ", ".join(f"{status}: {count}" for status, count in sorted(load.statuses.items()))
    p50, p99 = (quantile_of([1000 * one for one in load.ok_seconds], q) for q in (0.5, 0.99))
    times = ", ".join(f"{name} {found.reason or f'{found.ms:.0f} ms'}" for name, found in (("p50", p50), ("p99", p99)))
    return (
        f"peak {load.peak_bytes / 1e6:.0f} MB; {counts}; answers of 200: {times}; {load.seconds:.0f} s, "
        f"{len(load.wrong)} wrong; without an answer: {dict(load.lost)}"
    )


def write(loads: Sequence[Load], patient: Sequence[float], bundle: Path) -> Path:
    """Write the claim beside what other benchmarks have in the same file."""
    peaks = [load.peak_bytes / 1e6 for load in loads]
    everything = [1000 * one for load in loads for one in load.ok_seconds]
    statuses = sum((load.statuses for load in loads), Counter[int]())
    api = {
        "bundle": bundle.name,
        "requests": sum(statuses.values()),
        "at_once": CALLERS,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "latency_ms_of_200": {f"p{q * 100:g}": vars(quantile_of(everything, q)) for q in (0.5, 0.9, 0.99)},
        "patient_callers_seconds": {"half": patient[len(patient) // 2], "all": patient[-1]},
        "conditions": environment(),
    }
    return write_ship({CLAIM: Measured(max(peaks), min(peaks), max(peaks), len(peaks))}, {"api": api})


if __name__ == "__main__":
    main()
