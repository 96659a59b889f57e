"""Weights in folders: found without a network, checked, carried, and made to fit other channels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from flyweight.cli import run as cli
from flyweight.errors import ModelError
from flyweight.models import fetch
from flyweight.models.architecture import Architecture
from flyweight.models.weights import (
    SHIPPED,
    TENSORS,
    Weights,
    cache_folder,
    facts_of,
    fitted,
    forget,
    load_weights,
    stored,
    vendor,
)

NAME = "timm/mobilenetv3_small_050.lamb_in1k"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLYWEIGHT_WEIGHTS", raising=False)


def some(name: str = "own/net", channels: int = 3) -> Weights:
    architecture = Architecture("tiny_cnn_4", 5, channels, 28)
    state = architecture.build().state_dict()
    return Weights(name, architecture, state, "CC0-1.0", "a test", "nothing")


def test_what_was_saved_is_found_by_name_and_by_path_with_the_same_values() -> None:
    own = some()
    folder = own.save(cache_folder() / own.name)
    for name in ("own/net", str(folder)):
        found = load_weights(name)
        assert found.architecture == own.architecture
        assert all(torch.equal(found.weights[key], value) for key, value in own.weights.items())
        assert (found.licence, found.data) == ("CC0-1.0", "nothing")


def test_half_of_the_bits_halve_the_file_and_are_read_as_before(tmp_path: Path) -> None:
    found = some()
    whole, half = found.save(tmp_path / "whole"), found.save(tmp_path / "half", half=True)
    sizes = [(folder / TENSORS).stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.9 * sizes[0]  # names and shapes take their part of a file this small
    for name, value in load_weights(str(half)).weights.items():
        assert value.dtype == found.weights[name].dtype
        torch.testing.assert_close(value, found.weights[name], rtol=1e-3, atol=1e-4)


def test_what_half_of_the_bits_cannot_hold_keeps_all(tmp_path: Path) -> None:
    found = some()
    found.weights["net.0.1.running_var"].fill_(1e6)
    folder = found.save(tmp_path / "half", half=True)
    assert torch.equal(load_weights(str(folder)).weights["net.0.1.running_var"], found.weights["net.0.1.running_var"])


def test_vendored_weights_are_found_on_a_machine_that_has_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some().save(cache_folder() / "own/net")
    vendor("own/net", tmp_path / "stick")
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "empty"))
    with pytest.raises(ModelError, match="no weights 'own/net'"):
        load_weights("own/net")
    monkeypatch.setenv("FLYWEIGHT_WEIGHTS", str(tmp_path / "stick"))
    assert [name for name, folder in stored() if SHIPPED not in folder.parents] == ["own/net"]
    assert load_weights("own/net").architecture.num_classes == 5


def test_a_damaged_file_is_refused() -> None:
    folder = some().save(cache_folder() / "own/net")
    file = folder / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match="not the file"):
        load_weights("own/net")


def test_a_file_of_timm_that_was_carried_here_becomes_weights_with_its_licence(tmp_path: Path) -> None:
    published = timm.create_model("mobilenetv3_small_050", num_classes=1000).eval()
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    found = fetch.fetch(NAME, tmp_path / "model.safetensors")
    assert (found.licence, found.data) == ("apache-2.0", "ImageNet-1k")
    assert found.architecture.mean == (0.485, 0.456, 0.406)
    network = found.architecture.build().eval()
    network.load_state_dict(dict(found.weights))
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    mean, std = (
        torch.tensor(values).reshape(1, 3, 1, 1) for values in (found.architecture.mean, found.architecture.std)
    )
    with torch.no_grad():
        assert torch.allclose(network(pixels), published((pixels / 255 - mean) / std), atol=1e-4)


def test_a_file_of_torchvision_that_was_carried_here_becomes_weights(tmp_path: Path) -> None:
    published = torchvision.models.squeezenet1_1(weights=None)
    torch.save(published.state_dict(), tmp_path / "squeezenet.pth")
    found = fetch.fetch("torchvision/squeezenet1_1.IMAGENET1K_V1", tmp_path / "squeezenet.pth")
    assert found.architecture.num_classes == 1000
    assert torch.equal(found.weights["net.features.0.weight"], published.features[0].weight)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm/mobilenetv3_small_050.nonsuch", "mobilenetv3_small_050"),
        ("torchvision/squeezenet1_1.NONSUCH", "squeezenet1_1"),
        ("torchvision/nonsuch_net.X", "weights list --known"),
        ("mobilenetv3_small_050", "weights list --known"),
        ("timm/nonsuch_net.in1k", "weights list --known"),
    ],
)
def test_a_name_that_nobody_published_is_answered_with_close_ones(name: str, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        fetch.fetch(name)
    assert words in str(caught.value)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("mobilenetv3_small_075").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="another shape"):
        fetch.fetch(NAME, tmp_path / "other.safetensors")
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        fetch.fetch(NAME, tmp_path / "bad.pth")


def test_a_file_that_the_networks_own_rule_cannot_read_is_refused_as_one_of_another_network(tmp_path: Path) -> None:
    save_file({"other.fc1.weight": torch.zeros(4, 4)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="another shape"):
        fetch.fetch("timm/convnext_atto.d2_in1k", tmp_path / "other.safetensors")


def test_without_a_connection_it_says_how_to_do_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models.load_state_dict_from_hf", refuse)
    with pytest.raises(ModelError, match="no route to host") as caught:
        fetch.fetch(NAME)
    assert "weights vendor" in caught.value.do


def test_a_grey_image_gives_what_its_colour_copy_gave_and_four_channels_keep_the_sum() -> None:
    colour = some()
    stem = "net.0.0.weight"
    grey = fitted(colour, Architecture("tiny_cnn_4", 5, 1, 28))
    assert torch.allclose(grey[stem], colour.weights[stem].sum(1, keepdim=True))
    four = fitted(colour, Architecture("tiny_cnn_4", 5, 4, 28))
    assert four[stem].shape[1] == 4
    same = torch.full((1, 4, 3, 3), 7.0)
    by_hand = (colour.weights[stem][:, [0, 1, 2, 0]] * 0.75 * same).sum((1, 2, 3))
    assert torch.allclose((four[stem] * same).sum((1, 2, 3)), by_hand)


def test_known_names_come_without_asking_the_network() -> None:
    assert NAME in fetch.known_names("mobilenetv3_small_050")
    assert "torchvision/squeezenet1_1.IMAGENET1K_V1" in fetch.known_names("squeezenet")


def test_weights_of_a_trunk_without_classes_are_not_listed_and_not_fetched() -> None:
    without = "timm/convnext_tiny.dinov3_lvd1689m"
    assert timm.get_pretrained_cfg(without.removeprefix("timm/")).num_classes == 0
    assert without not in fetch.known_names("convnext_tiny")
    with pytest.raises(ModelError, match="trunk without classes"):
        fetch.fetch(without)


def test_the_licence_is_known_before_anything_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["weights", "list", "--known", "mobilenetv3_small_050", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": NAME, "licence": "apache-2.0"}]
    assert cli(["weights", "list", "--known", "squeezenet1_1"]) == 0
    assert "ImageNet's terms" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["[]", "{}", '{"name": "own/net"}', "no json"])
def test_facts_that_are_none_are_refused_and_hide_no_other_weights(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some().save(cache_folder() / "own/net")
    folder = some("own/broken").save(cache_folder() / "own/broken")
    (folder / "weights.json").write_text(content)
    for ask in (lambda: load_weights("own/broken"), lambda: vendor("own/broken", tmp_path / "stick")):
        with pytest.raises(ModelError, match="does not hold weights"):
            ask()
    assert cli(["weights", "list", "own", "--json"]) == 0
    broken, whole = json.loads(capsys.readouterr().out)
    assert (broken["name"], whole["name"]) == ("own/broken", "own/net")
    assert "does not hold weights" in broken["broken"]
    assert "broken" not in whole


def test_a_folder_without_its_tensors_is_listed_as_broken(capsys: pytest.CaptureFixture[str]) -> None:
    some().save(cache_folder() / "own/net")
    (some("own/gone").save(cache_folder() / "own/gone") / TENSORS).unlink()
    assert cli(["weights", "list", "own"]) == 0
    gone, whole = capsys.readouterr().out.splitlines()
    assert "broken" in gone
    assert TENSORS in gone
    assert "CC0-1.0" in whole


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a//b", "a/./b", "a/..", "", ".", "..\\out", "C:out"])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    some().save(cache_folder() / "kept")
    carried = some(name).save(tmp_path / "carried")
    for ask in (
        lambda: load_weights(str(carried)),
        lambda: facts_of(carried),
        lambda: vendor(str(carried), tmp_path / "stick"),
        lambda: forget(name),
    ):
        with pytest.raises(ModelError, match="no name of weights"):
            ask()
    assert cli(["weights", "add", name, str(tmp_path)]) == 1
    assert not (tmp_path / "stick").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "carried"]
    assert (cache_folder() / "kept" / TENSORS).is_file()


def test_the_facts_are_plain_json() -> None:
    folder = some().save(cache_folder() / "own/net")
    assert json.loads((folder / "weights.json").read_text())["architecture"]["name"] == "tiny_cnn_4"
