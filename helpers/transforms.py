"""torchvision's random transforms for batches of digits, for the augment of a network file.

Each takes pictures, uint8 or float32 [N, 1, 28, 28] from 0 to 255, and a generator, and returns
float32 of the same shape and range. Each picture draws its own numbers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from DataPipeline import blend, rotate


def _draw(n: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.empty(n).uniform_(low, high, generator=generator)


def random_affine(
    images: torch.Tensor, generator: torch.Generator, degrees: float, shift=0.0, fill=0.0
) -> torch.Tensor:
    """RandomRotation(degrees), or RandomAffine(degrees, translate=(shift, shift)): nearest.

    shift: of the side, rounded to whole pixels. fill: what comes in from outside, 0 to 255.
    """
    n, most = len(images), shift * images.shape[-1]
    angle = _draw(n, -degrees, degrees, generator)
    shifts = [_draw(n, -most, most, generator).round() for _ in range(2)]
    return rotate(images.float() - fill, angle, "nearest", *shifts) + fill


def random_jitter(images: torch.Tensor, generator: torch.Generator, most: float) -> torch.Tensor:
    """ColorJitter(brightness=most, contrast=most) on 8-bit pictures, in random order."""
    n, one = len(images), torch.ones(len(images))
    brightness, contrast = (_draw(n, 1 - most, 1 + most, generator) for _ in range(2))
    first = _draw(n, 0, 1, generator) < 0.5
    images = blend(images.float(), torch.where(first, brightness, one), False, eight_bit=True)
    images = blend(images, contrast, True, eight_bit=True)
    return blend(images, torch.where(first, one, brightness), False, eight_bit=True)


def random_crop(
    images: torch.Tensor, generator: torch.Generator, side: int, p: float
) -> torch.Tensor:
    """RandomApply([CenterCrop(side)], p), then Resize((28, 28)), bilinear, on 8-bit pictures."""
    start = (images.shape[-1] - side) // 2
    crop = images[..., start : start + side, start : start + side].float()
    enlarged = F.interpolate(crop, images.shape[-2:], mode="bilinear").round()
    chosen = _draw(len(images), 0, 1, generator) < p
    return torch.where(chosen.view(-1, 1, 1, 1), enlarged, images.float())


def random_erasing(
    images: torch.Tensor,
    generator: torch.Generator,
    p: float,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    value: float,
) -> torch.Tensor:
    """RandomErasing(p, scale, ratio, value): a box of each chosen picture becomes the value.

    scale: of the box, a part of the area. ratio: of its height to its width.
    """
    n, side = len(images), images.shape[-1]
    area = _draw(n, *scale, generator) * side**2
    aspect = _draw(n, *map(math.log, ratio), generator).exp()
    inside = []
    for length in ((area * aspect).sqrt().round(), (area / aspect).sqrt().round()):
        start = (_draw(n, 0, 1, generator) * (side - length + 1)).floor()
        place = torch.arange(side)
        inside.append((place >= start[:, None]) & (place < (start + length)[:, None]))
    chosen = (_draw(n, 0, 1, generator) < p)[:, None, None]
    box = inside[0][:, :, None] & inside[1][:, None, :] & chosen
    return torch.where(box[:, None], value, images.float())
