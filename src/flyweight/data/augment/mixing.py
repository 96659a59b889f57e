"""Mixup and CutMix with a share of its own for every image; the partner of an image is its neighbour in the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from flyweight.data.augment.erasing import box_mask
from flyweight.data.augment.layout import channels_first, channels_last, per_image
from flyweight.data.policy import AugmentPolicy


def mix(images: Tensor, targets: Tensor, policy: AugmentPolicy, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix each image, with probability `policy.mix_prob`, with its neighbour.

    Args:
        images: (N, C, H, W) uint8.
        targets: (N, K) float32, on the device of `images`.
        policy: Its mixup, cutmix, mix_prob and mix_switch.
        generator: On the CPU; the only source of randomness.

    Returns:
        images, float32 in 0..255 where mixup is on, else uint8; and the mixed targets (N, K).
    """
    if not policy.mixes or len(images) < 2:
        return (images.float() if policy.mixup > 0 and policy.mixes else images), targets
    count = len(images)
    chosen = torch.rand(count, generator=generator) < policy.mix_prob
    switch = policy.mix_switch if policy.mixup > 0 and policy.cutmix > 0 else float(policy.cutmix > 0)
    cut = torch.rand(count, generator=generator) < switch
    pixels, share = channels_last(images), torch.ones(count)
    if policy.cutmix > 0:
        boxes = cut_boxes(draw_share(count, policy.cutmix, generator), pixels.shape[1], pixels.shape[2], generator)
        boxes[~(cut & chosen), 2] = 0
        share = 1.0 - (boxes[:, 2] * boxes[:, 3]) / (pixels.shape[1] * pixels.shape[2])
        pixels = cutmix_images(pixels, boxes)
    if policy.mixup > 0:
        drawn = draw_share(count, policy.mixup, generator)
        fade = torch.where(chosen & ~cut, drawn, torch.ones(()))
        pixels = mixup_images(pixels, channels_last(images), fade)
        share = torch.where(cut & chosen, share, fade)
    return channels_first(pixels), mix_targets(targets, share)


def draw_share(count: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw (count,) shares from Beta(alpha, alpha), as the ratio of two gamma draws."""
    gammas = torch._standard_gamma(torch.full((2, count), alpha, dtype=torch.float64), generator=generator)
    return (gammas[0] / gammas.sum(0).clamp_(min=1e-300)).float()


def cut_boxes(share: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw (N, 4) boxes of top, left, height, width that cover 1 - share of the image, clipped at its border.

    Source: CutMix, algorithm 1: sides times sqrt(1 - share), centre uniform.
    """
    cut = (1.0 - share).sqrt()
    tall, wide = (height * cut).long(), (width * cut).long()
    middle = torch.rand(2, len(share), generator=generator)
    y, x = (middle[0] * height).long(), (middle[1] * width).long()
    top, left = (y - tall // 2).clamp(0, height), (x - wide // 2).clamp(0, width)
    bottom, right = (y + tall // 2).clamp(0, height), (x + wide // 2).clamp(0, width)
    return torch.stack((top, left, bottom - top, right - left), 1)


def cutmix_images(pixels: Tensor, boxes: Tensor) -> Tensor:
    """Put into each image's box the same box of its neighbour; a box of height 0 leaves the image."""
    mask = box_mask(boxes.to(pixels.device), pixels.shape[1], pixels.shape[2])
    return torch.where(mask, pixels.roll(1, 0), pixels)


def mixup_images(pixels: Tensor, partners: Tensor, share: Tensor) -> Tensor:
    """Return share (N,) of each image and the rest of its neighbour in `partners`, float32 in 0..255."""
    other = partners.roll(1, 0).float()
    return torch.lerp(other, pixels.float(), per_image(share, pixels))


def mix_targets(targets: Tensor, share: Tensor) -> Tensor:
    """Return share (N,) of each target row and the rest of its neighbour's."""
    weight = share.to(targets.device, targets.dtype).unsqueeze(1)
    return targets.roll(1, 0) * (1.0 - weight) + targets * weight
