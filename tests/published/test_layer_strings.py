"""Layer strings against hand arithmetic and published totals."""

from __future__ import annotations

import pytest

from flyweight.published.layers import count_layers

DUAL = "(conv3x3x10v relu pool2 conv3x3x20v relu pool2 dense10)x2 concat dense32 relu dense10"
KERAS = "(conv3x3x10 relu pool2 conv3x3x20 relu pool2 dense128 relu)x2 concat dense10"


@pytest.mark.parametrize(("chans", "size", "params"), [(1, 28, 14_862), (3, 32, 19_622)])
def test_the_dual_network_has_both_published_totals(chans: int, size: int, params: int) -> None:
    assert count_layers(DUAL, chans, size).params == params


def test_the_re_implementation_has_the_total_its_notebook_prints() -> None:
    sub_model = "conv3x3x10 relu pool2 conv3x3x20 relu pool2 dense128 relu dense10"
    assert count_layers(sub_model, 3, 32).params == 167_358
    assert count_layers(KERAS, 3, 32).params == 334_706


@pytest.mark.parametrize(
    ("text", "params", "macs", "shape"),
    [
        ("conv3x3x8", 27 * 8 + 8, 27 * 8 * 64, (8, 8, 8)),
        ("conv3x3x8v", 27 * 8 + 8, 27 * 8 * 36, (8, 6, 6)),
        ("conv3x3x8s2", 27 * 8 + 8, 27 * 8 * 16, (8, 4, 4)),
        ("conv3x3x8vs2", 27 * 8 + 8, 27 * 8 * 9, (8, 3, 3)),
        ("conv1x5x2v", 32, 30 * 32, (2, 8, 4)),
        ("dw3x3s2", 30, 27 * 16, (3, 4, 4)),
        ("pool3", 0, 0, (3, 2, 2)),
        ("gap dense5", 20, 15, (5,)),
        ("bn relu flatten dense2", 6 + 2 * 192 + 2, 2 * 192, (2,)),
        ("(gap)x3", 0, 0, (9,)),
        ("((conv1x1x1)x2 conv1x1x1)x2", 2 * (2 * 4 + 3), 2 * (2 * 3 + 2) * 64, (2, 8, 8)),
    ],
)
def test_each_layer(text: str, params: int, macs: int, shape: tuple[int, ...]) -> None:
    found = count_layers(text, 3, 8)
    assert (found.params, found.macs, found.shape) == (params, macs, shape)


def test_running_statistics_are_no_parameters() -> None:
    assert count_layers("bn", 3, 8).buffers == 6


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("conv3x3", "'conv3x3'"),
        ("conv3x3x8 blur", "'blur'"),
        ("(dense10", "not closed"),
        ("dense10)", "closes nothing"),
        ("(dense10)x0", "no times"),
        ("gap conv3x3x8", "needs a picture"),
        ("conv9x9x4v", "nothing is left"),
        ("pool0", "'pool0' has no size"),
        ("conv3x3x8s0", "no stride"),
        ("dense0", "nothing is left"),
        ("", "no layer"),
    ],
)
def test_what_cannot_be_counted_is_named(text: str, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        count_layers(text, 3, 8)


def test_a_network_of_ours_has_the_same_count_as_its_layer_string() -> None:
    import torch
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.Flatten(),
                        nn.Linear(288, 10))  # fmt: skip
    assert net(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    text = "conv3x3x8v bn dw3x3 flatten dense10"
    assert count_layers(text, 3, 8).params == sum(p.numel() for p in net.parameters())
