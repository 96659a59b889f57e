"""Every operation against torchvision's functional, one image at a time there, whole batches with own draws here."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandAugment, TrivialAugmentWide, autoaugment, v2
from torchvision.transforms import functional as reference
from torchvision.transforms.functional import InterpolationMode
from torchvision.transforms.v2 import functional as reference_v2

from flyweight.data.augment import augment, colour, erasing, geometry, layout, mix, operations
from flyweight.data.augment.mixing import cut_boxes, cutmix_images, draw_share, mix_targets, mixup_images
from flyweight.data.policy import AugmentPolicy

COUNT = 12


def pictures(channels: int, height: int = 24, width: int = 20, count: int = COUNT, seed: int = 0) -> Tensor:
    """(N, H, W, C) smooth pictures with noise, flat ones and narrow histograms among them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 5, 5, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    noisy = (smooth + torch.randn(smooth.shape, generator=generator) * 12).clamp(0, 255).to(torch.uint8)
    noisy[0] = 77
    noisy[1] = noisy[1] // 16 + 100
    noisy[2, :, : height // 2] = 0
    noisy[3, :, : height // 2] = 255
    return noisy.permute(0, 2, 3, 1).contiguous()


def each(pixels: Tensor, change: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply a torchvision function of (C, H, W) to each image."""
    return torch.stack([change(image.permute(2, 0, 1), i).permute(1, 2, 0) for i, image in enumerate(pixels)])


def largest_difference(ours: Tensor, theirs: Tensor) -> int:
    assert ours.dtype == theirs.dtype == torch.uint8
    assert ours.shape == theirs.shape
    return int((ours.int() - theirs.int()).abs().max())


def spread(low: float, high: float) -> Tensor:
    return torch.linspace(low, high, COUNT)


FACTORS = spread(0.0, 2.2)
BITS = torch.arange(COUNT) % 9
THRESHOLDS = torch.cat((torch.tensor([0.0, 255.0, 127.5, 128.0]), spread(3, 250)[4:]))

EXACT = {
    "posterize": (lambda p: colour.posterize(p, BITS), lambda x, i: reference.posterize(x, int(BITS[i]))),
    "solarize": (lambda p: colour.solarize(p, THRESHOLDS), lambda x, i: reference.solarize(x, float(THRESHOLDS[i]))),
    "equalize": (colour.equalize, lambda x, i: reference.equalize(x)),
    "autocontrast": (colour.autocontrast, lambda x, i: reference.autocontrast(x)),
    "invert": (colour.invert, lambda x, i: reference.invert(x)),
}
WITHIN_ONE = {
    "brightness": (
        lambda p: colour.brightness(p, FACTORS),
        lambda x, i: reference.adjust_brightness(x, float(FACTORS[i])),
    ),
    "contrast": (
        lambda p: colour.contrast(p, FACTORS),
        lambda x, i: reference.adjust_contrast(x, float(FACTORS[i])),
    ),
    "saturation": (
        lambda p: colour.saturation(p, FACTORS),
        lambda x, i: reference.adjust_saturation(x, float(FACTORS[i])),
    ),
    "sharpness": (
        lambda p: colour.sharpness(p, FACTORS),
        lambda x, i: reference.adjust_sharpness(x, float(FACTORS[i])),
    ),
    "hue": (
        lambda p: colour.hue(p, spread(-0.5, 0.5)),
        lambda x, i: reference.adjust_hue(x, float(spread(-0.5, 0.5)[i])),
    ),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", EXACT)
def test_whole_number_operations_equal_torchvision_bit_for_bit(name: str, channels: int) -> None:
    ours, theirs = EXACT[name]
    pixels = pictures(channels)
    assert largest_difference(ours(pixels), each(pixels, theirs)) == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", WITHIN_ONE)
def test_colour_operations_equal_torchvision_within_one_level(name: str, channels: int) -> None:
    ours, theirs = WITHIN_ONE[name]
    pixels = pictures(channels)
    result, expected = ours(pixels), each(pixels, theirs)
    assert largest_difference(result, expected) <= 1
    assert (result != expected).float().mean() < 0.01


@pytest.mark.parametrize("name", [*EXACT, *WITHIN_ONE])
def test_alpha_is_left_alone_and_its_colours_change_as_rgb(name: str) -> None:
    ours = (EXACT | WITHIN_ONE)[name][0]
    pixels = pictures(4)
    result = ours(pixels)
    assert torch.equal(result[..., 3], pixels[..., 3])
    assert torch.equal(result[..., :3], ours(pixels[..., :3].contiguous()))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("ours", "theirs"), [(geometry.hflip, reference.hflip), (geometry.vflip, reference.vflip)])
def test_flips_mirror_only_the_chosen_images(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], channels: int
) -> None:
    pixels = pictures(channels)
    chosen = torch.arange(COUNT) % 3 == 1
    assert torch.equal(ours(pixels, chosen), each(pixels, lambda x, i: theirs(x) if chosen[i] else x))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("fill", "mode"), [("zero", "constant"), ("reflect", "reflect"), ("edge", "edge")])
def test_a_shift_equals_torchvision_pad_then_crop(fill: str, mode: str, channels: int) -> None:
    pixels = pictures(channels)
    generator = torch.Generator().manual_seed(3)
    dy, dx = torch.randint(-4, 5, (2, COUNT), generator=generator)

    def theirs(image: Tensor, i: int) -> Tensor:
        padded = reference.pad(image, [4], padding_mode=mode)
        return reference.crop(padded, 4 + int(dy[i]), 4 + int(dx[i]), 24, 20)

    assert torch.equal(geometry.shift(pixels, dy, dx, most=4, fill=fill), each(pixels, theirs))


def test_a_shift_larger_than_the_image_still_reflects() -> None:
    pixels = torch.arange(3, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 3, 1).contiguous()
    moved = geometry.shift(pixels, torch.tensor([5]), torch.tensor([0]), most=5, fill="reflect")
    bounced = [0, 1, 2, 1, 0, 1, 2, 1]  # 0 1 2, then back and forth without repeating an edge
    assert moved[0, :, 0, 0].tolist() == bounced[5:8]


def random_affine() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(11)
    draws = torch.rand(5, COUNT, generator=generator) * 2 - 1
    return {
        "rotate": draws[0] * 60,
        "translate_x": (draws[1] * 5).round(),
        "translate_y": (draws[2] * 5).round(),
        "scale": 1 + 0.4 * draws[3],
        "shear_x": draws[4] * 25,
        "shear_y": draws[4].flip(0) * 25,
    }


def torchvision_affine(draws: dict[str, Tensor], mode: InterpolationMode) -> Callable[[Tensor, int], Tensor]:
    def apply(image: Tensor, i: int) -> Tensor:
        value = {name: float(draw[i]) for name, draw in draws.items()}
        translate = [int(value["translate_x"]), int(value["translate_y"])]
        shear = [value["shear_x"], value["shear_y"]]
        return reference.affine(image, value["rotate"], translate, value["scale"], shear, interpolation=mode)

    return apply


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bilinear_affine_equals_torchvision_within_one_level(channels: int) -> None:
    pixels, draws = pictures(channels), random_affine()
    expected = each(pixels, torchvision_affine(draws, InterpolationMode.BILINEAR))
    result = geometry.affine_bilinear(pixels, geometry.affine_matrices(**draws))
    assert largest_difference(result, expected) <= 1
    assert (result != expected).float().mean() < 0.01


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_nearest_affine_equals_torchvision_but_for_ties(channels: int) -> None:
    pixels, draws = pictures(channels), random_affine()
    expected = each(pixels, torchvision_affine(draws, InterpolationMode.NEAREST))
    result = geometry.affine_nearest(pixels, geometry.affine_matrices(**draws))
    assert (result != expected).float().mean() < 0.002


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_large_batch_in_chunks_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    images = layout.channels_first(pictures(channels, 28, 28, count=50))
    monkeypatch.setattr(layout, "CHUNK_BYTES", 1 << 30)
    whole = augment(images, EVERYTHING, torch.Generator().manual_seed(7))
    monkeypatch.setattr(layout, "CHUNK_BYTES", 3 * 28 * 28 * channels * 4)
    assert torch.equal(whole, augment(images, EVERYTHING, torch.Generator().manual_seed(7)))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_resized_crop_equals_torchvision_within_one_level(channels: int) -> None:
    pixels = pictures(channels, 24, 24)
    generator = torch.Generator().manual_seed(5)
    boxes = erasing.random_boxes(COUNT, 24, 24, (0.2, 1.0), (0.75, 1.33), generator)

    def theirs(image: Tensor, i: int) -> Tensor:
        return reference_v2.resized_crop(image, *boxes[i].tolist(), size=[24, 24], antialias=True)

    assert largest_difference(geometry.resized_crop(pixels, boxes, 24), each(pixels, theirs)) <= 1


def test_one_antialiased_crop_equals_torchvision_within_one_level() -> None:
    image = pictures(3, 50, 70)[5]
    crop = image[4:47, 9:62].contiguous()
    expected = reference_v2.resized_crop(image.permute(2, 0, 1), 4, 9, 43, 53, size=[24, 24], antialias=True)
    assert largest_difference(geometry.resized_crop_one(crop, 24), expected.permute(1, 2, 0)) <= 1


def test_erasing_equals_torchvision() -> None:
    pixels = pictures(3)
    boxes = erasing.random_boxes(COUNT, 24, 20, (0.1, 0.4), (0.3, 3.3), torch.Generator().manual_seed(2))

    def theirs(image: Tensor, i: int) -> Tensor:
        return reference.erase(image, *boxes[i].tolist(), v=torch.zeros(1, dtype=torch.uint8))

    assert torch.equal(erasing.erase(pixels, boxes), each(pixels, theirs))


def test_a_box_of_height_zero_erases_nothing() -> None:
    pixels = pictures(3)
    boxes = torch.tensor([[3, 3, 0, 5]]).expand(COUNT, 4)
    assert torch.equal(erasing.erase(pixels, boxes), pixels)


def test_random_boxes_lie_inside_and_cover_the_asked_share() -> None:
    boxes = erasing.random_boxes(5000, 32, 48, (0.2, 0.4), (1.0, 1.0), torch.Generator().manual_seed(1)).double()
    top, left, tall, wide = boxes.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + tall <= 32).all()
    assert (left + wide <= 48).all()
    assert abs(float((tall * wide / (32 * 48)).mean()) - 0.3) < 0.01


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude_bin", [0, 9, 30])
@pytest.mark.parametrize("number", range(14))
@pytest.mark.parametrize("wide", [False, True])
def test_each_randaugment_operation_equals_torchvision(
    number: int, magnitude_bin: int, channels: int, wide: bool
) -> None:
    pixels, name = pictures(channels, 28, 28), operations.OPERATIONS[number]
    ours = operations.trivial_space(28, 28) if wide else operations.randaugment_space(28, 28)
    space = TrivialAugmentWide()._augmentation_space(31) if wide else RandAugment()._augmentation_space(31, (28, 28))
    bins, signed = space[name]
    size = float(bins[magnitude_bin]) if bins.ndim else 0.0
    negative = torch.arange(COUNT) % 2

    def theirs(image: Tensor, i: int) -> Tensor:
        magnitude = -size if signed and negative[i] else size
        return autoaugment._apply_op(image, name, magnitude, InterpolationMode.NEAREST, None)

    rows = operations.row_of(torch.full((COUNT,), number), magnitude_bin, negative)
    result = operations.apply_operations(pixels, rows, ours)
    expected = each(pixels, theirs)
    if number <= 5:
        assert (result != expected).float().mean() < 0.005
    else:
        assert largest_difference(result, expected) <= 1


def test_a_mixed_batch_gives_each_image_its_own_operation() -> None:
    pixels, space = pictures(3, 28, 28), operations.trivial_space(28, 28)
    rows = operations.row_of(torch.tensor([13, 0, 5, 6, 12, 1, 10, 11, 9, 4, 7, 8]), 17, torch.arange(12) % 2)
    alone = [operations.apply_operations(pixels[i : i + 1], rows[i : i + 1], space) for i in range(12)]
    assert torch.equal(operations.apply_operations(pixels, rows, space), torch.cat(alone))


@pytest.mark.parametrize("trivial", [False, True])
def test_operations_bins_and_signs_are_drawn_evenly(monkeypatch: pytest.MonkeyPatch, trivial: bool) -> None:
    drawn: list[Tensor] = []
    monkeypatch.setattr(operations, "apply_operations", lambda pixels, rows, space: drawn.append(rows) or pixels)
    pixels, generator = torch.zeros(28000, 4, 4, 1, dtype=torch.uint8), torch.Generator().manual_seed(0)
    if trivial:
        operations.trivial_augment(pixels, generator)
    else:
        operations.randaugment(pixels, 2, 9, generator)
    for rows in drawn:
        assert torch.bincount(rows // 62, minlength=14).min() > 1800  # 2000 expected of each
        bins = torch.bincount(rows % 62 // 2, minlength=31)
        assert bins.min() > 750 if trivial else bins[9] == 28000
        assert abs(float((rows % 2).float().mean()) - 0.5) < 0.02
    assert len(drawn) == (1 if trivial else 2)


def test_mixup_is_the_weighted_sum_of_an_image_and_its_neighbour() -> None:
    pixels = pictures(3)
    share = spread(0, 1)
    expected = [
        pixels[i].double() * float(share[i]) + pixels[i - 1].double() * (1 - float(share[i])) for i in range(COUNT)
    ]
    assert torch.allclose(mixup_images(pixels, pixels, share).double(), torch.stack(expected), atol=1e-3)


def test_mixup_equals_torchvision_v2_for_one_share_per_batch() -> None:
    pixels, labels = pictures(3), torch.arange(COUNT) % 4
    transform = v2.MixUp(num_classes=4, alpha=1.0)
    params = {"lam": 0.3, "labels": labels, "batch_size": COUNT}
    expected = transform.transform(pixels.permute(0, 3, 1, 2).float(), params)
    targets = transform.transform(labels, params)
    share = torch.full((COUNT,), 0.3)
    assert torch.allclose(mixup_images(pixels, pixels, share).permute(0, 3, 1, 2), expected, atol=1e-3)
    one_hot = torch.nn.functional.one_hot(labels, 4).float()
    assert torch.allclose(mix_targets(one_hot, share), targets)


def test_cutmix_takes_exactly_its_box_from_the_neighbour() -> None:
    pixels = pictures(3)
    boxes = cut_boxes(spread(0.05, 0.95), 24, 20, torch.Generator().manual_seed(4))
    expected = pixels.clone()
    for i, (top, left, tall, wide) in enumerate(boxes.tolist()):
        expected[i, top : top + tall, left : left + wide] = pixels[i - 1, top : top + tall, left : left + wide]
    assert torch.equal(cutmix_images(pixels, boxes), expected)


def test_cutmix_targets_equal_the_share_of_pixels_that_stayed() -> None:
    pixels = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 16, 16, 1).contiguous()
    images, targets = mix(
        pixels.permute(0, 3, 1, 2), torch.eye(8), AugmentPolicy(cutmix=1.0), torch.Generator().manual_seed(0)
    )
    assert images.dtype == torch.uint8
    counted = torch.stack([(images == k).flatten(1).float().mean(1) for k in range(8)], 1)
    assert torch.allclose(counted, targets, atol=1e-6)


def test_mixup_and_cutmix_together_keep_every_target_row_at_one() -> None:
    images = layout.channels_first(pictures(3, count=64))
    targets = torch.nn.functional.one_hot(torch.arange(64) % 10, 10).float()
    policy = AugmentPolicy(mixup=0.4, cutmix=1.0, mix_prob=0.7)
    mixed, soft = mix(images, targets, policy, torch.Generator().manual_seed(1))
    assert mixed.dtype == torch.float32
    assert torch.allclose(soft.sum(1), torch.ones(64))
    assert 0.2 < float((soft.max(1).values == 1).float().mean()) < 0.45  # 30 % stay as they are


def test_shares_follow_the_beta_distribution() -> None:
    share = draw_share(20000, 0.4, torch.Generator().manual_seed(0)).double()
    assert abs(float(share.mean()) - 0.5) < 0.01
    assert abs(float(share.var()) - 1 / (4 * (2 * 0.4 + 1))) < 0.005


def test_a_tiny_mixing_alpha_never_gives_nan() -> None:
    assert torch.isfinite(draw_share(5000, 1e-6, torch.Generator().manual_seed(0))).all()


EVERYTHING = AugmentPolicy(
    random_resized_crop=(0.5, 1.0),
    hflip=0.5,
    vflip=0.2,
    shift=2,
    shift_fill="reflect",
    rotate=15,
    scale=(0.9, 1.1),
    translate=0.1,
    shear=5,
    randaugment={"ops": 2, "magnitude": 9},
    trivial=True,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=0.1,
    erase=0.5,
    erase_fill="noise",
)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_everything_at_once_keeps_shape_type_and_layout(channels: int) -> None:
    images = layout.channels_first(pictures(channels, 28, 28))
    before = images.clone()
    changed = augment(images, EVERYTHING, torch.Generator().manual_seed(0))
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert changed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)
    assert not torch.equal(changed, images)


def test_the_same_generator_state_gives_the_same_bits() -> None:
    images = layout.channels_first(pictures(3, 28, 28))
    first, second = (augment(images, EVERYTHING, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(images, EVERYTHING, torch.Generator().manual_seed(8)))


def test_the_default_policy_changes_nothing() -> None:
    images = layout.channels_first(pictures(3))
    assert torch.equal(augment(images, AugmentPolicy(), torch.Generator()), images)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_the_torch_path_of_other_devices_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    images = layout.channels_first(pictures(channels, 28, 28))
    fast = augment(images, EVERYTHING, torch.Generator().manual_seed(7))
    monkeypatch.setattr(layout, "on_cpu", lambda tensor: False)
    assert torch.equal(fast, augment(images, EVERYTHING, torch.Generator().manual_seed(7)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gives_nearly_the_same_pixels() -> None:
    images = layout.channels_first(pictures(3, 28, 28))
    here = augment(images, EVERYTHING, torch.Generator().manual_seed(7))
    there = augment(images.cuda(), EVERYTHING, torch.Generator().manual_seed(7)).cpu()
    assert ((here.int() - there.int()).abs() > 2).float().mean() < 0.02


@pytest.mark.parametrize(
    "bad",
    [
        {"hflip": 1.5},
        {"shift": -1},
        {"scale": (1.2, 0.8)},
        {"random_resized_crop": (0.0, 1.0)},
        {"erase_area": (0.1, 1.5)},
        {"flip": 0.5},
        {"randaugment": {"ops": 2, "magnitude": 31}},
        {"hue": math.nan},
    ],
)
def test_a_policy_refuses_unknown_keys_and_impossible_values(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        AugmentPolicy.model_validate(bad)
