"""Archives: what they hold is read; nothing lands outside, nothing explodes, nothing damaged is kept."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.data.pictures import class_folders

from flyweight.data.archive import unpack
from flyweight.data.sources import load_data
from flyweight.errors import DataError


def zipped(path: Path, name: str, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return path


def tarred(path: Path, name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"x") -> Path:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, "/etc/passwd", len(content) if kind == tarfile.REGTYPE else 0
    with tarfile.open(path, f"w:{path.suffix[1:]}") as file:
        file.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "xztar", "bztar"])
def test_an_archive_of_class_folders_reads_as_the_folder(tmp_path: Path, kind: str) -> None:
    folder = class_folders(tmp_path / "photos")
    archive = shutil.make_archive(str(tmp_path / "a"), kind, tmp_path, "photos")
    assert load_data(archive, cache=tmp_path / "c").fingerprint() == load_data(folder).fingerprint()


@pytest.mark.parametrize("name", ["../out.png", "/out.png", "a/../../out.png", "..\\out.png", "C:\\out.png"])
@pytest.mark.parametrize("kind", ["zip", "gz", "xz"])
def test_a_path_that_leads_outside_is_refused_and_nothing_is_kept(tmp_path: Path, name: str, kind: str) -> None:
    archive = zipped(tmp_path / "a.zip", name) if kind == "zip" else tarred(tmp_path / f"a.tar.{kind}", name)
    with pytest.raises(DataError, match="outside"):
        unpack([archive], tmp_path / "cache")
    assert not [entry for entry in tmp_path.rglob("*") if entry.is_file() and entry != archive]
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
def test_a_link_in_a_tar_is_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(DataError, match="link"):
        unpack([tarred(tmp_path / "a.tar.gz", "cat.png", kind)], tmp_path / "cache")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("cat.png")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(entry, "/etc/passwd")
    with pytest.raises(DataError, match="link"):
        unpack([tmp_path / "a.zip"], tmp_path / "cache")


@pytest.mark.parametrize("kind", ["zip", "gz", "xz"])
def test_a_bomb_is_refused_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    zeros = bytes(20 << 20)
    archive = (
        zipped(tmp_path / "a.zip", "a.png", zeros)
        if kind == "zip"
        else tarred(tmp_path / f"a.tar.{kind}", "a.png", content=zeros)
    )
    with pytest.raises(DataError, match="bomb"):
        unpack([archive], tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.xz"])
def test_a_cut_archive_is_named_and_nothing_of_it_is_kept(tmp_path: Path, name: str) -> None:
    noise = bytes(n * n * 7919 % 251 for n in range(50_000))
    archive = zipped(tmp_path / name, "a", noise) if name == "a.zip" else tarred(tmp_path / name, "a", content=noise)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match=re.escape(name)):
        unpack([archive], tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_flipped_bytes_end_in_an_error_that_names_the_archive_or_in_nothing_lost(tmp_path: Path, name: str) -> None:
    noise = random.Random(name).randbytes(3000)
    archive = zipped(tmp_path / name, "a", noise) if name == "a.zip" else tarred(tmp_path / name, "a", content=noise)
    whole, chance = archive.read_bytes(), random.Random(name)
    refused: list[str] = []
    for turn in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[chance.randrange(len(damaged))] ^= chance.randrange(1, 256)
        archive.write_bytes(damaged)
        try:
            unpack([archive], tmp_path / f"cache{turn}")
        except DataError as error:
            refused.append(error.what)
    assert all(name in what for what in refused)
    assert refused or name == "a.tar"  # a plain tar has a checksum on its headers only


def test_a_name_that_is_a_file_and_a_folder_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("cat", b"x")
        file.writestr("cat/0.png", b"x")
    with pytest.raises(DataError, match="as a file and as a folder"):
        unpack([tmp_path / "a.zip"], tmp_path / "cache")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyweight.data.archive.MOST_FILES", 5)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for n in range(6):
            file.writestr(f"{n}.png", b"x")
    with pytest.raises(DataError, match="bomb"):
        unpack([tmp_path / "a.zip"], tmp_path / "cache")


def test_an_archive_is_unpacked_once(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", "cat/0.png")
    first = unpack([archive], tmp_path / "cache")
    (first / "mark").touch()
    assert (unpack([archive], tmp_path / "cache") / "mark").exists()


def test_a_changed_archive_is_unpacked_again(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", "cat/0.png", b"old")
    unpack([archive], tmp_path / "cache")
    zipped(archive, "cat/0.png", b"newer")
    assert (unpack([archive], tmp_path / "cache") / "cat" / "0.png").read_bytes() == b"newer"


def test_of_two_processes_that_unpack_at_once_the_slower_takes_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(tmp_path / "a.zip", "cat/0.png")
    real = os.rename

    def overtaken(work: Path, target: Path) -> None:
        shutil.copytree(work, target)
        real(work, target)

    monkeypatch.setattr(os, "rename", overtaken)
    assert (unpack([archive], tmp_path / "cache") / "cat" / "0.png").read_bytes() == b"x"
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_an_encrypted_archive_is_refused_by_name(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", "cat.png")
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flags of the entry, in the directory and before the content
    content[6] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip.*encrypted"):
        unpack([archive], tmp_path / "cache")
