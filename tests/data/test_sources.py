"""Every source of the catalogue, written here in its true format and read back."""

from __future__ import annotations

import csv
import gzip
import pickle
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.data.pictures import class_folders, smooth

from flyweight.data.sources import load_data
from flyweight.data.sources.folder import natural
from flyweight.data.split import split
from flyweight.errors import DataError, MissingExtraError


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


def test_imagenet_in_class_folders_is_tested_on_its_validation_images(tmp_path: Path) -> None:
    class_folders(tmp_path / "imagenet" / "train", 3, ("n1", "n2"))
    class_folders(tmp_path / "imagenet" / "val", 1, ("n1", "n2"))
    dataset = load_data(f"imagenet:{tmp_path}")
    assert (dataset.name, dataset.classes) == ("imagenet", ("n1", "n2"))
    assert Counter(dataset.parts.tolist()) == {"train": 6, "test": 2}  # type: ignore[union-attr]
    assert load_data(f"imagenet:{tmp_path / 'imagenet'}").fingerprint() == dataset.fingerprint()


def test_imagenet_that_is_not_there_or_has_other_classes_in_val_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ImageNet with train/CLASS/ and val/CLASS/"):
        load_data(f"imagenet:{tmp_path}")
    class_folders(tmp_path / "train", 1, ("n1", "n2"))
    class_folders(tmp_path / "val", 1, ("n1", "n3"))
    with pytest.raises(DataError, match="2 classes in train, 2 in val, 1 in both"):
        load_data(f"imagenet:{tmp_path}")


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


def test_a_class_called_train_beside_others_is_a_class(tmp_path: Path) -> None:
    dataset = load_data(class_folders(tmp_path / "vehicles", classes=("bus", "car", "train")))
    assert (dataset.classes, dataset.parts) == (("bus", "car", "train"), None)


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "dev"])
def test_the_usual_names_of_a_validation_folder_are_understood(tmp_path: Path, name: str) -> None:
    for part in ("train", name):
        class_folders(tmp_path / part)
    assert Counter(load_data(tmp_path).parts.tolist()) == {"train": 6, "val": 6}  # type: ignore[union-attr]


def test_a_folder_wrapped_in_another_beside_a_readme_keeps_its_parts_and_classes(tmp_path: Path) -> None:
    for part in ("train", "test"):
        class_folders(tmp_path / "photos" / "v1" / part)
    (tmp_path / "README.txt").write_text("photos of 2026")
    dataset = load_data(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert Counter(dataset.parts.tolist()) == {"train": 6, "test": 6}  # type: ignore[union-attr]


def test_folders_may_be_nested_to_any_depth(tmp_path: Path) -> None:
    class_folders(tmp_path, classes=("animal/cat", "animal/dog", "plant"))
    assert load_data(tmp_path).classes == ("animal/cat", "animal/dog", "plant")


def test_a_link_to_a_folder_above_ends_and_counts_no_image_twice(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    assert len(load_data(tmp_path)) == 6


def test_names_that_differ_in_case_or_zeros_have_one_order() -> None:
    names = ["Cat", "cat", "a01", "a1", "a2", "10²", "²"]
    orders = {tuple(sorted(names[turn:] + names[:turn], key=natural)) for turn in range(len(names))}
    assert len(orders) == 1


@pytest.mark.parametrize("beside", [True, False], ids=["beside mnist", "alone"])
def test_fashion_mnist_has_its_own_files_and_human_names(tmp_path: Path, beside: bool) -> None:
    if beside:
        mnist(tmp_path / "MNIST" / "raw")
    pixels = mnist(tmp_path / "fashion-mnist", packed=True)[::-1]
    write_idx(tmp_path / "fashion-mnist" / "train-images-idx3-ubyte", pixels[:4])
    dataset = load_data(f"fashion-mnist:{tmp_path}")
    assert (dataset.classes[0], dataset.classes[9]) == ("T-shirt/top", "Ankle boot")
    assert np.array_equal(dataset.images.read(0), pixels[0][..., None])


def test_mnist_beside_fashion_mnist_is_mnist(tmp_path: Path) -> None:
    pixels = mnist(tmp_path / "MNIST" / "raw")
    mnist(tmp_path / "fashion-mnist")
    dataset = load_data(f"mnist:{tmp_path}")
    assert dataset.name == "mnist"
    assert np.array_equal(dataset.images.read(0), pixels[0][..., None])


def test_an_idx_file_cut_inside_its_header_is_named(tmp_path: Path) -> None:
    mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, 0]))
    with pytest.raises(DataError, match="train-images-idx3-ubyte is truncated"):
        load_data(tmp_path)


def test_cifar100_has_its_fine_classes(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        content = {b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [2, 1], b"coarse_labels": [0, 0]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = {b"fine_label_names": [b"apple", b"bear", b"bee"], b"coarse_label_names": [b"x"]}
    (folder / "meta").write_bytes(pickle.dumps(names))
    dataset = load_data(f"cifar100:{tmp_path}")
    assert (dataset.classes, dataset.labels.tolist()) == (("apple", "bear", "bee"), [2, 1, 2, 1])


def test_bytes_of_any_kind_in_a_cifar_file_end_in_an_error_that_names_it(tmp_path: Path) -> None:
    cifar10(tmp_path)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    whole, rng = batch.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole[: int(rng.integers(1, len(whole)))])
        damaged[:300] = [byte ^ int(rng.integers(0, 256)) if rng.random() < 0.05 else byte for byte in damaged[:300]]
        batch.write_bytes(damaged)
        with pytest.raises(DataError, match="data_batch_1"):
            load_data(tmp_path)


def test_class_names_saved_as_bytes_are_text(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([0, 1, 0, 1]), classes=np.array([b"cat", b"dog"]))
    assert load_data(tmp_path / "a.npz").classes == ("cat", "dog")


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_without_a_class_is_refused_with_its_number(tmp_path: Path, label: int) -> None:
    images = np.zeros((3, 5, 5), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([0, 1, label]), classes=np.array(["cat", "dog"]))
    with pytest.raises(DataError, match=str(label)):
        load_data(tmp_path / "a.npz")


def test_a_table_beside_class_folders_that_lists_no_images_is_passed_over(tmp_path: Path) -> None:
    class_folders(tmp_path)
    write_csv(tmp_path / "colours.csv", [["class_name", "red", "green"], ["cat", "1", "2"]])
    assert load_data(tmp_path).classes == ("cat", "dog")


def test_two_lists_of_images_in_one_folder_are_refused_by_name(tmp_path: Path) -> None:
    class_folders(tmp_path)
    for name in ("train.csv", "test.csv"):
        write_csv(tmp_path / name, [["path", "label"], ["cat/0.png", "cat"], ["dog/0.png", "dog"]])
    with pytest.raises(DataError, match=r"test\.csv, train\.csv"):
        load_data(tmp_path)


def test_tiny_imagenet_without_its_training_images_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t1\t1\n")
    with pytest.raises(DataError, match="no train/CLASS/images"):
        load_data(tmp_path)


def test_tiny_imagenet_is_read_from_its_two_archives_in_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    for name in ("n01", "n02"):
        (root / "train" / name / "images").mkdir(parents=True)
        smooth(int(name[1:])).save(root / "train" / name / "images" / f"{name}_0.JPEG")
    (root / "val" / "images").mkdir(parents=True)
    smooth(9).save(root / "val" / "images" / "val_0.JPEG")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t1\t1\n")
    packed = tmp_path / "packed"
    packed.mkdir()
    for part in ("train", "val"):
        with tarfile.open(packed / f"tiny-imagenet-200-{part}.tar.xz", "w:xz") as archive:
            archive.add(root / part, f"tiny-imagenet-200/{part}")
    wanted = load_data(root).fingerprint()
    assert load_data(f"tiny-imagenet:{packed}").fingerprint() == wanted
    assert load_data(packed).fingerprint() == wanted


def test_rows_of_a_hugging_face_set_without_a_label_are_left_out_by_name(tmp_path: Path) -> None:
    hf = pytest.importorskip("datasets")
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["a", "b"])})
    train = hf.Dataset.from_dict({"image": [smooth(n) for n in range(4)], "label": [0, 1, 1, 0]}, features=features)
    secret = hf.Dataset.from_dict({"image": [smooth(9)], "label": [-1]}, features=features)
    hf.DatasetDict({"train": train, "test": secret}).save_to_disk(str(tmp_path / "set"))
    dataset = load_data(tmp_path / "set")
    assert len(dataset) == 4
    assert [image.key for image in dataset.quarantined] == ["test-0000000"]


def test_hugging_face_data_without_the_package_names_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError) as caught:
        load_data(f"hf:{tmp_path}")
    assert 'pip install "flyweight[hf]"' in caught.value.do


def test_what_was_found_instead_of_images_is_listed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(DataError, match=r"1 entries: notes\.txt"):
        load_data(tmp_path)
