"""The audit: each thing wrong is found by name, and what is right is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.pictures import class_folders, smooth
from typer.testing import CliRunner

from flyweight.cli.data import app
from flyweight.data.audit import Audit, audit, leave_out
from flyweight.data.sources import load_data


def looked(root: Path) -> Audit:
    return audit(load_data(root))


def finding(found: Audit, what: str) -> list[str]:
    return [example for one in found.findings if what in one.what for example in one.examples]


def test_different_pictures_are_no_near_duplicates(tmp_path: Path) -> None:
    found = looked(class_folders(tmp_path, 40))
    assert (found.near_duplicates, found.duplicates) == ((), ())


def test_a_jpeg_saved_again_at_another_quality_is_a_near_duplicate(tmp_path: Path) -> None:
    class_folders(tmp_path)
    smooth(77).save(tmp_path / "cat" / "a.jpg", quality=95)
    smooth(77).save(tmp_path / "cat" / "b.jpg", quality=60)
    assert looked(tmp_path).near_duplicates == (("cat/a.jpg", "cat/b.jpg"),)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_picture_one_level_brighter_or_darker_is_a_near_duplicate(tmp_path: Path, change: int) -> None:
    class_folders(tmp_path)
    pixels = np.asarray(smooth(77)).astype(int)
    Image.fromarray(np.clip(pixels + change, 0, 255).astype(np.uint8)).save(tmp_path / "dog" / "b.png")
    smooth(77).save(tmp_path / "dog" / "a.png")
    assert looked(tmp_path).near_duplicates == (("dog/a.png", "dog/b.png"),)


def test_one_image_in_two_classes_is_an_error(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "dog" / "copy.png").write_bytes((tmp_path / "cat" / "0.png").read_bytes())
    found = looked(tmp_path)
    assert finding(found, "two classes") == ["cat/0.png = dog/copy.png"]
    assert not found.ok


def test_a_copy_in_train_and_test_is_an_error(tmp_path: Path) -> None:
    class_folders(tmp_path / "train")
    class_folders(tmp_path / "test", 1)
    assert len(finding(looked(tmp_path), "two parts of the official split")) == 2


def test_colour_modes_and_exif_turns_are_reported(tmp_path: Path) -> None:
    class_folders(tmp_path)
    smooth(50).convert("CMYK").save(tmp_path / "cat" / "cmyk.jpg")
    smooth(51).convert("RGBA").save(tmp_path / "cat" / "alpha.png")
    smooth(52).convert("P").save(tmp_path / "cat" / "palette.png")
    Image.fromarray(np.asarray(smooth(53).convert("L")).astype(np.uint16) * 257).save(tmp_path / "cat" / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth(54).save(tmp_path / "cat" / "turned.jpg", exif=exif)
    found = looked(tmp_path)
    assert {line.split(":")[0] for line in finding(found, "colour modes")} == {"CMYK", "RGBA", "P", "I;16", "RGB"}
    assert finding(found, "EXIF") == ["cat/turned.jpg"]


def test_truncated_and_empty_files_are_named_and_raise_nothing(tmp_path: Path) -> None:
    broken(tmp_path)
    assert set(looked(tmp_path).unreadable) == {"cat/0.png", "dog/0.png"}


def broken(root: Path) -> Path:
    class_folders(root)
    cut = root / "cat" / "0.png"
    cut.write_bytes(cut.read_bytes()[:-200])
    (root / "dog" / "0.png").write_bytes(b"")
    return root


def test_without_leaves_out_by_name_and_says_why(tmp_path: Path) -> None:
    dataset = load_data(class_folders(tmp_path)).without({"cat/1.png": "blurred"})
    assert [(one.key, one.reason) for one in dataset.quarantined] == [("cat/1.png", "blurred")]
    assert "cat/1.png" not in [dataset.images.key(n) for n in range(len(dataset))]
    assert len(dataset) == 5


def test_data_check_ends_with_1_on_unreadable_images_and_its_list_leaves_them_out(tmp_path: Path) -> None:
    root, listed = broken(tmp_path / "photos"), tmp_path / "list.txt"
    result = CliRunner().invoke(app, ["check", str(root), "--quarantine", str(listed), "--json"])
    assert result.exit_code == 1
    assert set(json.loads(result.stdout)["unreadable"]) == {"cat/0.png", "dog/0.png"}
    assert audit(leave_out(load_data(root), listed)).ok


def test_data_check_ends_with_0_on_sound_images(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(class_folders(tmp_path))])
    assert result.exit_code == 0, result.output


def test_empty_files_in_two_classes_are_unreadable_and_not_one_image_in_two_classes(tmp_path: Path) -> None:
    class_folders(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / name / "empty.png").write_bytes(b"")
    found = looked(tmp_path)
    assert set(found.unreadable) == {"cat/empty.png", "dog/empty.png"}
    assert found.duplicates == ()


def test_a_link_to_nothing_is_reported_by_name_with_all_the_rest(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert set(looked(tmp_path).unreadable) == {"cat/gone.png"}
