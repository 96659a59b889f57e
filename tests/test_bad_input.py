"""Bad input of every kind ends in three lines that quote the user's own value, never in a traceback."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.runtime.tiny_bundle import picture, write_bundle, write_pictures

from flyweight.cli import run
from flyweight.runtime.hashes import write_sums

Make = Callable[[Path], list[str]]
CASES: dict[str, tuple[Make, str, int]] = {}
QUICK = ["--set", "epochs=1", "--set", "compile=false", "--set", "precision=fp32", "--set", "channels_last=false",
         "--set", "threads=1", "--set", "batch_size=8", "--set", "data.val_fraction=0.3"]  # fmt: skip


def case(quoted: str, code: int = 1) -> Callable[[Make], Make]:
    """List a kind of bad input: the function makes it and returns the command; `quoted` must stand in the error."""

    def add(make: Make) -> Make:
        CASES[make.__name__] = (make, quoted, code)
        return make

    return add


def check(path: Path | str) -> list[str]:
    """Return the command that looks at a data set."""
    return ["data", "check", str(path)]


def train(tmp: Path, *more: str, data: Path | None = None, recipe: str = "smoke") -> list[str]:
    """Return the command that trains on sixty pictures for one epoch."""
    data = data or write_pictures(tmp / "pictures", 20, 16)
    return ["train", str(data), "--recipe", recipe, "--out", str(tmp / "run"), *QUICK, *more]


def fit(tmp: Path, budget: str, *more: str) -> list[str]:
    """Return the command that fits a budget."""
    data = write_pictures(tmp / "pictures", 60, 16)
    return ["fit", str(data), "--budget", budget, "--out", str(tmp / "fit"), "--minutes", "0.1", *more]


def bundle(tmp: Path, **changes: object) -> Path:
    """Write the small bundle."""
    return write_bundle(tmp / "bundle", **changes)


def arrays(tmp: Path, **content: object) -> list[str]:
    """Return the command that reads an .npz with some arrays exchanged."""
    good: dict[str, object] = {"images": np.zeros((6, 8, 8, 3), np.uint8), "labels": np.arange(6) % 2}
    np.savez(tmp / "data.npz", **{**good, **content})  # type: ignore[arg-type]
    return check(tmp / "data.npz")


def table(tmp: Path, text: str) -> list[str]:
    """Return the command that reads a CSV beside three pictures."""
    write_pictures(tmp, 1, 16)
    (tmp / "list.csv").write_text(text)
    return check(tmp / "list.csv")


@case("empty-one")
def an_empty_folder(tmp: Path) -> list[str]:
    (tmp / "empty-one").mkdir()
    return check(tmp / "empty-one")


@case("not-there")
def a_missing_path(tmp: Path) -> list[str]:
    return check(tmp / "not-there")


@case("cats")
def one_class_only(tmp: Path) -> list[str]:
    write_pictures(tmp / "p", 4, 16)
    shutil.move(tmp / "p" / "left", tmp / "only" / "cats")
    return train(tmp, data=tmp / "only")


@case("heap")
def images_without_class_folders(tmp: Path) -> list[str]:
    shutil.move(write_pictures(tmp / "p", 4, 16) / "left", tmp / "heap")
    return check(tmp / "heap")


@case("left/0.png")
def every_image_unreadable(tmp: Path) -> list[str]:
    for file in write_pictures(tmp / "p", 20, 16).rglob("*.png"):
        file.write_bytes(str(file).encode())
    return train(tmp, data=tmp / "p")


@case("middle/1.png")
def a_truncated_image(tmp: Path) -> list[str]:
    file = write_pictures(tmp / "p", 20, 32) / "middle/1.png"
    file.write_bytes(file.read_bytes()[:400])
    return train(tmp, data=tmp / "p")


@case("huge.png")
def a_header_of_50000_by_50000(tmp: Path) -> list[str]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0)
    (write_pictures(tmp / "p", 20, 16) / "left/huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )
    return train(tmp, data=tmp / "p")


@case("../evil.png")
def a_zip_that_leads_outside(tmp: Path) -> list[str]:
    with zipfile.ZipFile(tmp / "a.zip", "w") as file:
        file.writestr("../evil.png", b"x")
    return check(tmp / "a.zip")


@case("link.png")
def a_tar_with_a_link(tmp: Path) -> list[str]:
    entry = tarfile.TarInfo("left/link.png")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp / "a.tar", "w") as file:
        file.addfile(entry)
    return check(tmp / "a.tar")


@case("damaged.zip")
def a_damaged_zip(tmp: Path) -> list[str]:
    (tmp / "damaged.zip").write_bytes(b"PK\x03\x04" + b"\7" * 200)
    return check(tmp / "damaged.zip")


@case("bomb.zip")
def a_zip_bomb(tmp: Path) -> list[str]:
    with zipfile.ZipFile(tmp / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("left/zeros.png", bytes(64 << 20))
    return check(tmp / "bomb.zip")


@case("'label'")
def a_csv_without_the_columns(tmp: Path) -> list[str]:
    return table(tmp, "path,colour\nleft/0.png,red\n")


@case("gone.png")
def a_csv_that_lists_a_missing_file(tmp: Path) -> list[str]:
    return table(tmp, "path,label\nleft/0.png,a\ngone.png,b\n")


@case("cat|dog")
def a_csv_with_several_labels(tmp: Path) -> list[str]:
    return table(tmp, "path,label\nleft/0.png,cat|dog\nmiddle/0.png,dog\n")


@case("'holdout'")
def a_csv_with_an_unknown_split(tmp: Path) -> list[str]:
    return table(tmp, "path,label,split\nleft/0.png,a,train\nmiddle/0.png,b,holdout\n")


@case("latin.csv")
def a_csv_that_is_not_utf8(tmp: Path) -> list[str]:
    (tmp / "latin.csv").write_bytes("path,label\na.png,caf\xe9\n".encode("latin-1"))
    return check(tmp / "latin.csv")


@case("float32")
def an_npz_with_floats(tmp: Path) -> list[str]:
    return arrays(tmp, images=np.zeros((6, 8, 8, 3), np.float32))


@case("data.npz")
def an_npz_with_objects(tmp: Path) -> list[str]:
    return arrays(tmp, labels=np.array([{"a": 1}] * 6, object))


@case("from 0 to 7")
def an_npz_with_labels_out_of_range(tmp: Path) -> list[str]:
    return arrays(tmp, labels=np.array([0, 1, 7, 0, 1, 0]), classes=np.array(["a", "b"]))


@case("train-images-idx3-ubyte")
def a_truncated_idx_file(tmp: Path) -> list[str]:
    (tmp / "train-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 100, 28, 28) + bytes(50))
    (tmp / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 100) + bytes(100))
    return check(tmp)


class _Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("pickle-was-run",)


@case("mkdir")
def a_malicious_pickle(tmp: Path) -> list[str]:
    (tmp / "cifar-10-batches-py").mkdir()
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"]
    for name in names:
        (tmp / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(_Malicious()))
    return check(tmp)


@case("imagnet:/x")
def an_unknown_named_source(tmp: Path) -> list[str]:
    return check("imagnet:/x")


@case("right")
def a_class_missing_in_validation(tmp: Path) -> list[str]:
    write_pictures(tmp / "p/train", 8, 16)
    shutil.rmtree(write_pictures(tmp / "p/val", 8, 16) / "right")
    return train(tmp, data=tmp / "p")


@case("'(unclosed'")
def a_group_pattern_that_is_none(tmp: Path) -> list[str]:
    return [*check(write_pictures(tmp / "p", 2, 16)), "--group", "(unclosed"]


@case("'smokee'")
def an_unknown_recipe(tmp: Path) -> list[str]:
    return train(tmp, recipe="smokee")


@case("r.yaml, line")
def a_recipe_that_is_not_yaml(tmp: Path) -> list[str]:
    (tmp / "r.yaml").write_text("epochs: 3\nmodel: {name\n")
    return train(tmp, recipe=str(tmp / "r.yaml"))


@case("did you mean 'epochs'")
def an_unknown_recipe_key(tmp: Path) -> list[str]:
    return train(tmp, "--set", "epoch=3")


@case("'many'")
def a_recipe_value_of_the_wrong_type(tmp: Path) -> list[str]:
    return train(tmp, "--set", "epochs=many")


@case("3 problems")
def several_recipe_problems_at_once(tmp: Path) -> list[str]:
    return train(tmp, "--set", "epochs=0", "--set", "optim.lr=-1", "--set", "colour=red")


@case("tiny_cnn_8")
def an_unknown_network(tmp: Path) -> list[str]:
    return train(tmp, "--set", "model.name=tiny_cn_8")


@case("'sgdd'")
def an_unknown_optimizer(tmp: Path) -> list[str]:
    return train(tmp, "--set", "optim.name=sgdd")


@case("image_size")
def an_image_size_too_small(tmp: Path) -> list[str]:
    return train(tmp, "--set", "data.image_size=2")


@case("optim.lr")
def a_loss_that_is_not_finite(tmp: Path) -> list[str]:
    more = ("optim.lr=1e12", "ema_decay=null", "epochs=5", "clip_grad_norm=null", "schedule.warmup_fraction=0")
    return train(tmp, *(word for setting in more for word in ("--set", setting)))


@case("latencey")
def a_budget_with_an_unknown_metric(tmp: Path) -> list[str]:
    return fit(tmp, "latencey_p90<2ms")


@case("2furlongs")
def a_budget_with_an_unknown_unit(tmp: Path) -> list[str]:
    return fit(tmp, "latency_p90<2furlongs")


@case("size<small")
def a_budget_without_a_number(tmp: Path) -> list[str]:
    return fit(tmp, "size<small")


@case("size<2KB")
def a_budget_that_says_a_limit_twice(tmp: Path) -> list[str]:
    return fit(tmp, "size<1KB,size<2KB")


@case("size<1KB")
def a_budget_that_nothing_meets(tmp: Path) -> list[str]:
    return fit(tmp, "size<1KB", "--models", "tiny_cnn_4", "--sizes", "12")


@case("'toaster'")
def an_unknown_device(tmp: Path) -> list[str]:
    return fit(tmp, "latency_p90<2ms", "--device", "toaster")


@case("'unmeasured-board'")
def a_device_without_measurements(tmp: Path) -> list[str]:
    assert run(["device", "add", "unmeasured-board", "--replace"]) == 0
    return fit(tmp, "latency_p90<2ms", "--device", "unmeasured-board")


@case("a-file")
def an_output_folder_that_is_a_file(tmp: Path) -> list[str]:
    (tmp / "a-file").write_text("")
    return [*train(tmp), "--out", str(tmp / "a-file")]


@case("a-file/below")
def an_output_folder_below_a_file(tmp: Path) -> list[str]:
    (tmp / "a-file").write_text("")
    return [*train(tmp), "--out", str(tmp / "a-file/below")]


@case("optim.lr is 0.1")
def a_run_folder_of_another_recipe(tmp: Path) -> list[str]:
    assert run(train(tmp)) == 0
    return train(tmp, "--set", "optim.lr=0.03")


@case("no-bundle")
def a_missing_bundle(tmp: Path) -> list[str]:
    return ["verify", str(tmp / "no-bundle")]


@case("card.md")
def a_bundle_with_one_changed_byte(tmp: Path) -> list[str]:
    path = bundle(tmp) / "card.md"
    path.write_bytes(path.read_bytes()[:-2] + b"S\n")
    return ["verify", str(path.parent)]


@case("version 99")
def a_bundle_of_a_newer_version(tmp: Path) -> list[str]:
    return ["verify", str(bundle(tmp, format_version=99))]


@case("model.onnx")
def a_bundle_without_its_model(tmp: Path) -> list[str]:
    (bundle(tmp) / "model.onnx").unlink()
    return ["verify", str(tmp / "bundle")]


@case("golden/images.npy")
def a_bundle_with_golden_images_that_are_text(tmp: Path) -> list[str]:
    (bundle(tmp) / "golden/images.npy").write_text("text")
    write_sums(tmp / "bundle")
    return ["verify", str(tmp / "bundle")]


@case("'int3'")
def an_unknown_variant(tmp: Path) -> list[str]:
    return ["verify", str(bundle(tmp)), "--variant", "int3"]


@case("upwards")
def data_of_other_classes_than_the_bundle(tmp: Path) -> list[str]:
    (write_pictures(tmp / "p", 4, 16) / "left").rename(tmp / "p/upwards")
    return ["verify", str(bundle(tmp)), "--data", str(tmp / "p")]


@case("nothing-in-it")
def predict_on_a_folder_without_images(tmp: Path) -> list[str]:
    (tmp / "nothing-in-it").mkdir()
    return ["predict", str(bundle(tmp)), str(tmp / "nothing-in-it")]


@case("--threads", 2)
def no_threads(tmp: Path) -> list[str]:
    return ["measure", str(bundle(tmp)), "--threads", "0"]


@case("report.json")
def a_missing_report(tmp: Path) -> list[str]:
    return ["report", str(tmp)]


@case("'trian'", 2)
def an_unknown_command(tmp: Path) -> list[str]:
    return ["trian", str(tmp)]


@pytest.mark.parametrize("name", CASES)
def test_bad_input_ends_in_three_lines_that_quote_the_value(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, quoted, code = CASES[name]
    monkeypatch.chdir(tmp_path)
    arguments = make(tmp_path)
    capsys.readouterr()
    found = run(arguments)
    shown = capsys.readouterr().err
    assert found == code, shown
    assert_three_lines(shown, quoted)
    assert not (tmp_path / "pickle-was-run").exists()


def assert_three_lines(shown: str, quoted: str) -> None:
    """Assert what, do and more, each on its line, with the value in what the user reads."""
    lines = re.search(r"^error: (\S.*)\n  do: (\S.*)\n  more: (\S.*)$", shown, re.MULTILINE)
    assert lines, shown
    assert quoted in lines[0], shown
    assert "Traceback" not in shown


def test_a_full_disk_ends_in_three_lines_and_the_same_command_goes_on_once_there_is_room(tmp_path: Path) -> None:
    """A limit on file size stands for the full disk: the write fails in the middle."""
    command = [sys.executable, "-m", "flyweight", *train(tmp_path)]
    limit = 3000

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = {**os.environ, "FLYWEIGHT_CACHE": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_files_only, env=environment)
    assert done.returncode == 1, done.stderr
    assert_three_lines(done.stderr, str(tmp_path))
    assert "docs/errors.md#output" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr


def test_one_unreadable_picture_is_named_and_predict_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    buffer = io.BytesIO()
    Image.fromarray(picture(1)).save(buffer, "PNG")
    (tmp_path / "good.png").write_bytes(buffer.getvalue())
    files = [str(tmp_path / "notes.png"), str(tmp_path / "good.png")]
    assert run(["predict", str(bundle(tmp_path)), *files, "--json"]) == 1
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [Path(answer["source"]).name for answer in answers] == ["notes.png", "good.png"]
    assert "notes.png" in out
    assert "Traceback" not in err


def test_there_are_at_least_forty_kinds() -> None:
    assert len(CASES) >= 40
