"""The index of content hashes: right after every change, and no file is read twice."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from flyweight.data import index
from flyweight.data.index import file_hashes
from flyweight.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files(folder: Path, count: int = 6, age_seconds: float = 100) -> list[Path]:
    """Files of an earlier day in two class folders."""
    paths = []
    for number in range(count):
        path = folder / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture %d" % number)
        age(path, age_seconds)
        paths.append(path)
    return paths


def age(path: Path, seconds: float) -> None:
    at = os.stat(path).st_mtime - seconds
    os.utime(path, (at, at))


def plain(paths: list[Path]) -> list[bytes]:
    return [hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest().encode() for path in paths]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were really read."""
    names: list[str] = []
    real = index._hash

    def recording(name: str) -> str:
        names.append(Path(name).name)
        return real(name)

    monkeypatch.setattr(index, "_hash", recording)
    return names


def test_hashes_are_those_of_hashlib(tmp_path: Path) -> None:
    paths = files(tmp_path / "data")
    assert file_hashes(paths).tolist() == plain(paths)


def test_a_second_start_reads_no_file_and_says_the_same(tmp_path: Path, hashed: list[str]) -> None:
    paths = files(tmp_path / "data")
    first = file_hashes(paths).tolist()
    hashed.clear()
    assert file_hashes(paths).tolist() == first
    assert hashed == []


def test_only_a_changed_file_is_read_again(tmp_path: Path, hashed: list[str]) -> None:
    paths = files(tmp_path / "data")
    file_hashes(paths)
    hashed.clear()
    paths[3].write_bytes(b"another picture")
    assert file_hashes(paths).tolist() == plain(paths)
    assert hashed == ["3.png"]


def test_a_change_of_equal_size_shows_by_its_time(tmp_path: Path) -> None:
    paths = files(tmp_path / "data")
    file_hashes(paths)
    paths[0].write_bytes(b"PICTURE 0")
    age(paths[0], 50)
    assert file_hashes(paths).tolist() == plain(paths)


def test_a_file_written_a_moment_ago_is_not_trusted_to_stay(tmp_path: Path) -> None:
    paths = files(tmp_path / "data", age_seconds=0)
    file_hashes(paths)
    stamp = os.stat(paths[0]).st_mtime_ns
    paths[0].write_bytes(b"PICTURE 0")  # the same size within the same tick of the clock
    os.utime(paths[0], ns=(stamp, stamp))
    assert file_hashes(paths).tolist() == plain(paths)


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"x": "y"}', '{"x": [1]}'])
def test_a_damaged_index_costs_time_and_nothing_else(tmp_path: Path, own_cache: Path, content: str) -> None:
    paths = files(tmp_path / "data")
    file_hashes(paths)
    for file in (own_cache / "index").iterdir():
        file.write_text(content)
    assert file_hashes(paths).tolist() == plain(paths)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "file"))
    paths = files(tmp_path / "data")
    assert file_hashes(paths).tolist() == plain(paths)


def test_a_relative_and_an_absolute_path_share_an_entry(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = files(tmp_path / "data")
    file_hashes(paths)
    hashed.clear()
    monkeypatch.chdir(tmp_path)
    file_hashes([path.relative_to(tmp_path) for path in paths])
    assert hashed == []


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.png.*no such file"):
        file_hashes([tmp_path / "nothing.png"])


def test_two_processes_at_once_leave_a_whole_index(tmp_path: Path, own_cache: Path) -> None:
    paths = files(tmp_path / "data", count=40)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=file_hashes, args=(paths,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    (file,) = (own_cache / "index").iterdir()
    assert len(json.loads(file.read_text())) == 40
