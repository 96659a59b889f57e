"""Every source of the catalogue, written here in its true format and read back."""

from __future__ import annotations

import csv
import gzip
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.data.pictures import class_folders, smooth

from flyweight.data.sources import load_data
from flyweight.data.split import split
from flyweight.errors import DataError


def write_idx(path: Path, values: np.ndarray, *, packed: bool = False) -> None:
    content = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()
    path.with_name(path.name + ".gz" * packed).write_bytes(gzip.compress(content) if packed else content)


def mnist(root: Path, *, packed: bool = False) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 5), dtype=np.uint8)
    labels = np.array([0, 1, 2, 0, 1, 2], np.uint8)
    root.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
        write_idx(root / f"{part}-images-idx3-ubyte", pixels[rows], packed=packed)
        write_idx(root / f"{part}-labels-idx1-ubyte", labels[rows], packed=packed)
    return pixels


def cifar10(root: Path) -> np.ndarray:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    for n, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        flat = pixels[2 * n : 2 * n + 2].transpose(0, 3, 1, 2).reshape(2, 3072)
        (folder / name).write_bytes(pickle.dumps({b"data": flat, b"labels": [n, 9 - n]}, protocol=2))
    names = b"airplane automobile bird cat deer dog frog horse ship truck".split()
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}))
    return pixels


def write_csv(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_idx_files_give_back_the_pixels_labels_and_parts(tmp_path: Path, packed: bool) -> None:
    pixels = mnist(tmp_path / "MNIST" / "raw", packed=packed)
    dataset = load_data(f"mnist:{tmp_path}")
    assert np.array_equal([dataset.images.read(n) for n in range(6)], pixels[..., None])
    assert dataset.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert Counter(dataset.parts.tolist()) == {"train": 4, "test": 2}  # type: ignore[union-attr]


def test_a_truncated_idx_file_is_named(tmp_path: Path) -> None:
    mnist(tmp_path)
    file = tmp_path / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is truncated"):
        load_data(tmp_path)


def test_cifar_pickles_give_back_the_pixels(tmp_path: Path) -> None:
    pixels = cifar10(tmp_path)
    dataset = load_data(f"cifar10:{tmp_path}")
    assert np.array_equal([dataset.images.read(n) for n in range(12)], pixels)
    assert dataset.classes[dataset.labels[-1]] == "deer"


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.target,))


def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    cifar10(tmp_path)
    evil = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    evil.write_bytes(pickle.dumps({b"data": Malicious(tmp_path / "owned")}))
    with pytest.raises(DataError, match="data_batch_3"):
        load_data(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_npz_with_parts_and_class_names_is_read(tmp_path: Path) -> None:
    x = np.arange(4 * 4 * 4, dtype=np.uint8).reshape(4, 4, 4)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=[0, 1, 0, 1], x_test=x[:2], y_test=[1, 0], classes=["no", "yes"])
    dataset = load_data(tmp_path / "a.npz")
    assert (dataset.classes, dataset.labels.tolist()) == (("no", "yes"), [0, 1, 0, 1, 1, 0])


def test_npz_with_channels_first_becomes_channels_last(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=x, labels=[0, 1, 0, 1])
    assert np.array_equal(load_data(tmp_path / "a.npz").images.read(2), x[2].transpose(1, 2, 0))


def test_npz_with_several_labels_per_image_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.ones((2, 3), np.int64))
    with pytest.raises(DataError, match="several labels"):
        load_data(tmp_path / "a.npz")


def test_folders_sort_their_classes_as_people_count(tmp_path: Path) -> None:
    assert load_data(class_folders(tmp_path, 1, ("c10", "c2"))).classes == ("c2", "c10")


def test_folders_below_train_and_test_keep_their_parts(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", 2)
    class_folders(tmp_path / "test", 1)
    dataset = load_data(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert Counter(dataset.parts.tolist()) == {"train": 4, "test": 2}  # type: ignore[union-attr]


def test_tiny_imagenet_takes_its_test_labels_from_the_annotations(tmp_path: Path) -> None:
    for name in ("n1", "n2"):
        (tmp_path / "train" / name / "images").mkdir(parents=True)
        smooth(int(name[1])).save(tmp_path / "train" / name / "images" / f"{name}_0.JPEG")
    (tmp_path / "val" / "images").mkdir(parents=True)
    smooth(5).save(tmp_path / "val" / "images" / "val_0.JPEG")
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn2\t0\t0\t1\t1\n")
    (tmp_path / "words.txt").write_text("n1\tgoldfish, Carassius\nn2\tfrog\n")
    dataset = load_data(tmp_path)
    assert dataset.classes == ("n1 goldfish", "n2 frog")
    assert [(part, int(label)) for part, label in zip(dataset.parts, dataset.labels, strict=True)] == [  # type: ignore[arg-type]
        ("train", 0), ("train", 1), ("test", 1)]  # fmt: skip


def test_a_hugging_face_folder_gives_back_its_labels(tmp_path: Path) -> None:
    hf = pytest.importorskip("datasets")
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["a", "b"])})
    rows = {"image": [smooth(n) for n in range(4)], "label": [0, 1, 1, 0]}
    hf.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    dataset = load_data(tmp_path / "set")
    assert (dataset.classes, dataset.labels.tolist()) == (("a", "b"), [0, 1, 1, 0])


def csv_of_people(root: Path, header: str = "person") -> Path:
    class_folders(root, 30)
    rows = [[f"{name}/{n}.png", name, f"p{n // 3}"] for name in ("cat", "dog") for n in range(30)]
    return write_csv(root / "list.csv", [["path", "label", header], *rows])


@pytest.mark.parametrize(("header", "group"), [("person", None), ("site", "site")])
def test_a_csv_column_names_the_groups_and_the_rule_says_which(tmp_path: Path, header: str, group: str | None) -> None:
    dataset = load_data(csv_of_people(tmp_path, header), group=group)
    assert dataset.groups is not None
    assert len(set(dataset.groups)) == 10
    assert split(dataset, val_fraction=0.3, test_fraction=0.3).rule["group"] == header


def test_images_without_a_group_in_the_csv_are_not_one_group(tmp_path: Path) -> None:
    class_folders(tmp_path, 2)
    rows = [[f"{name}/{n}.png", name, ""] for name in ("cat", "dog") for n in range(2)]
    dataset = load_data(write_csv(tmp_path / "list.csv", [["path", "label", "group"], *rows]))
    assert len(set(dataset.groups or ())) == 4


def test_a_pattern_of_groups_is_recorded_and_gives_the_same_split_again(tmp_path: Path) -> None:
    class_folders(tmp_path, 30)
    rule = split(load_data(tmp_path, group=r"(\d)\.png"), val_fraction=0.3, test_fraction=0.3).rule
    again = load_data(tmp_path, group=rule["group"])
    assert again.groups == load_data(tmp_path, group=r"(\d)\.png").groups


def test_an_image_outside_the_pattern_keeps_its_group_as_the_folder_grows(tmp_path: Path) -> None:
    class_folders(tmp_path, 12)
    pattern = r"(\d\d)\.png"
    before = dict(zip(*_named(load_data(tmp_path, group=pattern)), strict=True))
    smooth(9999).save(tmp_path / "cat" / "00.png")
    after = dict(zip(*_named(load_data(tmp_path, group=pattern)), strict=True))
    assert {name: after[name] for name in before} == before


def _named(dataset) -> tuple[list[str], tuple[str, ...]]:  # type: ignore[no-untyped-def]
    return [dataset.images.key(n) for n in range(len(dataset))], dataset.groups


@pytest.mark.parametrize("label", ["cat|dog", "cat;dog"])
def test_a_csv_of_several_labels_is_refused(tmp_path: Path, label: str) -> None:
    class_folders(tmp_path, 1)
    path = write_csv(tmp_path / "l.csv", [["path", "label"], ["cat/0.png", label], ["dog/0.png", "dog"]])
    with pytest.raises(DataError, match="several classes"):
        load_data(path)


def test_a_file_that_a_csv_names_and_that_is_gone_is_quoted(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "l.csv", [["path", "label"], ["lost.png", "a"]])
    with pytest.raises(DataError, match=r"lost\.png"):
        load_data(path)


def test_the_sample_is_balanced() -> None:
    assert set(load_data("sample").counts().values()) == {700}
