from __future__ import annotations

import gc
import hashlib
import json
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.tiny_bundle import CLASSES, SIZE, write_bundle

from flyweight.errors import BundleError
from flyweight.runtime.bundle import Bundle, write_sums


def zipped(folder: Path, archive: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, prefix + path.relative_to(folder).as_posix())
    return archive


def test_a_folder_opens_with_what_was_written(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert (bundle.name, bundle.classes, bundle.default, bundle.temperature) == ("thirds", CLASSES, "fp32", 2.0)
    assert bundle.preprocess.image_size == SIZE
    assert bundle.variant().file.read_bytes() == (bundle_path / "model.onnx").read_bytes()


@pytest.mark.parametrize("prefix", ["", "thirds/"])
def test_a_zip_opens_like_its_folder_and_leaves_nothing_behind(bundle_path: Path, tmp_path: Path, prefix: str) -> None:
    bundle = Bundle.open(zipped(bundle_path, tmp_path / "b.zip", prefix))
    images, logits = bundle.golden(bundle.variant())
    expected = Bundle.open(bundle_path)
    np.testing.assert_array_equal(logits, expected.golden(expected.variant())[1])
    folder = bundle.path
    assert folder.exists()
    del bundle, images
    gc.collect()
    assert not folder.exists()


def test_the_sums_are_those_of_sha256sum(bundle_path: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=bundle_path, capture_output=True, check=True
    )
    assert b"model.onnx: OK" in done.stdout


def test_a_flipped_bit_in_any_file_is_refused(bundle_path: Path) -> None:
    random = np.random.default_rng(0)
    for path in sorted(path for path in bundle_path.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for position in [0, len(content) - 1, *random.integers(0, len(content), 20)]:
            damaged = bytearray(content)
            damaged[position] ^= 1 << int(random.integers(8))
            path.write_bytes(damaged)
            with pytest.raises(BundleError):
                Bundle.open(bundle_path)
        path.write_bytes(content)
    Bundle.open(bundle_path)


def test_a_changed_file_is_named_with_both_hashes(bundle_path: Path) -> None:
    model = bundle_path / "model.onnx"
    before = hashlib.sha256(model.read_bytes()).hexdigest()
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    after = hashlib.sha256(model.read_bytes()).hexdigest()
    with pytest.raises(BundleError, match=rf"model\.onnx.*{before}.*{after}"):
        Bundle.open(bundle_path)


def test_a_missing_and_an_added_file_are_named(bundle_path: Path) -> None:
    (bundle_path / "extra.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"extra\.bin"):
        Bundle.open(bundle_path)
    (bundle_path / "extra.bin").unlink()
    (bundle_path / "card.md").unlink()
    with pytest.raises(BundleError, match=r"card\.md"):
        Bundle.open(bundle_path)


def test_what_a_file_manager_leaves_behind_does_no_harm(bundle_path: Path) -> None:
    (bundle_path / ".DS_Store").write_bytes(b"x")
    assert Bundle.open(bundle_path).name == "thirds"


def test_a_newer_format_is_refused_with_the_way_to_read_it(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "new", format_version=2, something="new")
    with pytest.raises(BundleError, match=r"(?s)format version 2.*pip install --upgrade flyweight"):
        Bundle.open(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"default": "int8"}, "int8"),
        ({"classes": ["one"]}, "classes"),
        ({"temperature": 0.0}, "temperature"),
        ({"colour": "red"}, "colour"),
        ({"preprocess": {"size": 3}}, "size"),
        ({"variants": {}}, "variants"),
    ],
)
def test_an_impossible_manifest_is_refused_by_key(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(BundleError, match=says):
        Bundle.open(write_bundle(tmp_path / "b", **changes))


def test_a_variant_file_outside_the_bundle_is_refused(bundle_path: Path) -> None:
    manifest = json.loads((bundle_path / "bundle.json").read_text())
    for outside in ("../model.onnx", "/etc/passwd", "a/../../b"):
        manifest["variants"]["fp32"]["file"] = outside
        (bundle_path / "bundle.json").write_text(json.dumps(manifest))
        write_sums(bundle_path)
        with pytest.raises(BundleError, match="leads out"):
            Bundle.open(bundle_path)


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
def test_an_archive_that_leads_outside_is_refused_and_writes_nothing(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(BundleError, match=r"leads outside"):
        Bundle.open(archive)
    assert not list(tmp_path.rglob("evil.txt"))


def test_an_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "link.zip"
    member = zipfile.ZipInfo("bundle.json")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(member, "/etc/passwd")
    with pytest.raises(BundleError, match="leads outside"):
        Bundle.open(archive)


def test_a_truncated_archive_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    archive = zipped(bundle_path, tmp_path / "b.zip")
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(BundleError, match="cannot be unpacked"):
        Bundle.open(archive)


def test_a_damaged_archive_is_refused_and_leaves_nothing_behind(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    content = zipped(bundle_path, tmp_path / "b.zip").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        damaged[random.integers(len(content))] ^= 1 << int(random.integers(8))
        (tmp_path / "b.zip").write_bytes(damaged)
        try:
            Bundle.open(tmp_path / "b.zip")
        except BundleError:
            refused += 1
    gc.collect()
    assert refused > 30
    assert not list(temporary.iterdir())


def test_what_is_no_bundle_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no bundle"):
        Bundle.open(tmp_path / "none")
    with pytest.raises(BundleError, match=r"bundle\.json"):
        Bundle.open(tmp_path)


def test_an_unknown_variant_is_refused_with_the_known_ones(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match=r"(?s)'fp16'.*--variant fp32"):
        Bundle.open(bundle_path).variant("fp16")


def test_golden_arrays_of_another_shape_are_refused(bundle_path: Path) -> None:
    np.save(bundle_path / "golden/logits-fp32.npy", np.zeros((32, 7), np.float32))
    write_sums(bundle_path)
    bundle = Bundle.open(bundle_path)
    with pytest.raises(BundleError, match=r"\(32, 7\)"):
        bundle.golden(bundle.variant())


def test_a_pickled_golden_array_is_never_unpickled(bundle_path: Path) -> None:
    np.save(bundle_path / "golden/images.npy", np.array([{"a": 1}]), allow_pickle=True)
    write_sums(bundle_path)
    bundle = Bundle.open(bundle_path)
    with pytest.raises(BundleError, match="not a readable array"):
        bundle.golden(bundle.variant())


def test_a_bundle_can_be_copied_and_renamed(bundle_path: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_path, tmp_path / "elsewhere")
    assert Bundle.open(tmp_path / "elsewhere").name == "thirds"
