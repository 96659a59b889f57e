"""onnxruntime-web is one version, known by its hash, and a machine without a connection is a normal case."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from flyweight.errors import ExportError
from flyweight.web import ort


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return path


def test_the_archive_and_the_folder_it_unpacks_to_give_the_same_files(runtime: ort.OrtWeb, tmp_path: Path) -> None:
    files = {ort.MODULE: runtime.module, ort.WASM: runtime.wasm}
    (tmp_path / "package/dist").mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "package/dist" / name).write_bytes(content)
    assert ort.ort_web(tmp_path / "package") == runtime
    assert ort.ort_web(archive(tmp_path / "a.tgz", files)) == runtime


def test_another_version_is_refused_by_its_hash(runtime: ort.OrtWeb, tmp_path: Path) -> None:
    given = archive(tmp_path / "a.tgz", {ort.MODULE: runtime.module + b"\n", ort.WASM: runtime.wasm})
    with pytest.raises(ExportError, match=r"ort\.wasm\.bundle\.min\.mjs has the SHA-256"):
        ort.ort_web(given)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b cut"])
def test_what_is_no_archive_of_the_package_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tgz").write_bytes(content)
    with pytest.raises(ExportError, match=r"does not hold onnxruntime-web"):
        ort.ort_web(tmp_path / "a.tgz")


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=ort.MODULE):
        ort.ort_web(tmp_path)


def test_without_a_connection_the_error_says_what_to_carry_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ort.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path))
    monkeypatch.setenv(ort.REGISTRY_VARIABLE, "http://127.0.0.1:9")  # nothing listens on the port of discard
    with pytest.raises(ExportError) as refused:
        ort.ort_web()
    assert "npm pack onnxruntime-web@1.30.0" in refused.value.do
    assert not list(tmp_path.iterdir())


def npm_that_says(folder: Path, registry: str) -> str:
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\necho {registry}\n")
    (folder / "npm").chmod(0o755)
    return str(folder)


def test_npm_knows_the_registry_and_a_variable_names_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ort.REGISTRY_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", npm_that_says(tmp_path / "bin", "http://mirror.example/npm/"))
    assert ort.registry() == "http://mirror.example/npm"
    monkeypatch.setenv(ort.REGISTRY_VARIABLE, "http://other.example/")
    assert ort.registry() == "http://other.example"
    monkeypatch.delenv(ort.REGISTRY_VARIABLE)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match="npm is not installed") as refused:
        ort.registry()
    assert "--ort-web" in refused.value.do


def test_what_the_registry_gives_is_checked_before_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{ort.PACKAGE}/-/{ort.PACKAGE}-{ort.VERSION}.tgz"
    (tmp_path / name).parent.mkdir(parents=True)
    archive(tmp_path / name, {ort.MODULE: b"evil", ort.WASM: b"evil"})
    monkeypatch.delenv(ort.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(ort.REGISTRY_VARIABLE, tmp_path.as_uri())
    with pytest.raises(ExportError, match="was published"):
        ort.ort_web()
    assert not (tmp_path / "cache").exists()
