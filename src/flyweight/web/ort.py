"""onnxruntime-web: one pinned version, fetched once, checked against the publisher's hash and kept in the cache.

Two files of the package are all that a page needs: the module that drives the runtime and the runtime itself.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from flyweight.data.cache_folder import cache_root
from flyweight.errors import ExportError
from flyweight.files import write_bytes

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# As the registry states it, of the archive of exactly this version.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
ARCHIVE_BYTES = 33_106_585
MODULE, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
SHA256 = {
    MODULE: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
LICENCE = "ONNX Runtime Web, Copyright (c) Microsoft Corporation, MIT License"
FOLDER_VARIABLE, REGISTRY_VARIABLE = "FLYWEIGHT_ORT_WEB", "npm_config_registry"
SECONDS = 300


@dataclass(frozen=True)
class OrtWeb:
    """The two files, each with the bytes that `SHA256` names."""

    module: bytes
    wasm: bytes


def ort_web(folder: Path | None = None) -> OrtWeb:
    """Return the runtime from a folder or archive, else from the cache, else from the npm registry.

    Args:
        folder: Holds the two files (directly, or as the unpacked package does in `dist`), or is the package's .tgz;
            without, FLYWEIGHT_ORT_WEB.

    Raises:
        ExportError: There is no connection, or the files are not those of this version.
        OutputError: The cache cannot be written.
    """
    given = folder or (Path(os.environ[FOLDER_VARIABLE]) if os.environ.get(FOLDER_VARIABLE) else None)
    if given is not None:
        return _checked(_from_archive(given.read_bytes(), given) if given.is_file() else _from_folder(given), given)
    kept = cache_root() / PACKAGE / VERSION
    if all((kept / name).is_file() for name in SHA256):
        return _checked(_from_folder(kept), kept)
    address = f"{registry()}/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"
    files = _from_archive(_fetched(address), Path(address))
    for name, content in files.items():
        write_bytes(kept / name, content)
    return _checked(files, kept)


def registry() -> str:
    """Return the npm registry: npm_config_registry, else what npm is set up with. Raises ExportError."""
    named = os.environ.get(REGISTRY_VARIABLE)
    if not named:
        npm = shutil.which("npm")
        if npm is None:
            raise _not_fetched("the npm registry", "npm is not installed, which knows where that is")
        asked = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True, check=False)
        named = asked.stdout.strip()
        if asked.returncode or not named:
            raise _not_fetched("the npm registry", f"npm config get registry: {asked.stderr.strip()[-200:]}")
    return named.rstrip("/")


def _fetched(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:
            content: bytes = answer.read(ARCHIVE_BYTES + 1)
    except (OSError, ValueError) as error:  # URLError is an OSError; ValueError: not an address
        raise _not_fetched(address, f"{getattr(error, 'reason', None) or error}") from error
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != INTEGRITY:
        raise _not_fetched(address, f"its hash is {found}, and {INTEGRITY} was published")
    return content


def _from_archive(content: bytes, source: Path) -> dict[str, bytes]:
    """Return the two files of a .tgz of the package; nothing is unpacked to the disk."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            found = {name: archive.extractfile(f"package/dist/{name}") for name in SHA256}
            return {name: file.read() for name, file in found.items() if file is not None}
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise _foreign(source, f"{type(error).__name__}: {error}") from error


def _from_folder(folder: Path) -> dict[str, bytes]:
    where = folder / "dist" if (folder / "dist").is_dir() else folder
    try:
        return {name: (where / name).read_bytes() for name in SHA256}
    except OSError as error:
        raise _foreign(folder, f"{error.strerror}: {Path(error.filename or '').name}") from error


def _checked(files: dict[str, bytes], source: Path) -> OrtWeb:
    for name, expected in SHA256.items():
        found = hashlib.sha256(files.get(name, b"")).hexdigest()
        if found != expected:
            raise _foreign(source, f"{name} has the SHA-256 {found}, {PACKAGE} {VERSION} has {expected}")
    return OrtWeb(files[MODULE], files[WASM])


def _not_fetched(address: str, reason: str) -> ExportError:
    return ExportError(
        f"{PACKAGE} {VERSION} cannot be fetched from {address}: {reason}",
        do=f"where there are a connection and npm: npm pack {PACKAGE}@{VERSION}; carry the .tgz here and give it with "
        f"--ort-web FILE or {FOLDER_VARIABLE}",
        more="docs/serve.md#without-a-connection",
    )


def _foreign(source: Path, reason: str) -> ExportError:
    return ExportError(
        f"{str(source)!r} does not hold {PACKAGE} {VERSION}: {reason}",
        do=f"give the .tgz of npm pack {PACKAGE}@{VERSION}, the folder it unpacks to, or a folder with {MODULE} "
        f"and {WASM}",
        more="docs/serve.md#without-a-connection",
    )
