"""Random changes of word pictures for the training of recognisers: a whole batch at a time, on the training device.

All choices come from one generator on the CPU, in an order that does not depend on the pictures, so that the same
generator gives the same changes on every device, up to rounding and the noise itself.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# At full strength: the share of pictures that a change is made to, and the largest change.
GEOMETRY, PHOTOMETRY, INVERSION, COARSE, BLUR, NOISE, ERASURE = 0.8, 0.8, 0.2, 0.4, 0.4, 0.5, 0.3
ANGLE = math.radians(12)
SHEAR, CURVE, ASPECT, SHIFT, PERSPECTIVE = 0.5, 0.35, 0.15, 0.06, 0.15  # in half heights (vertical) or half widths
CONTRAST, BRIGHTNESS, GAMMA = 0.6, 0.3, 0.8  # log2 for contrast and gamma
COARSEST = 0.45  # of the size
BLUR_SIGMA, NOISE_SIGMA = 1.6, 0.12  # in pixels; in units of the range
FULL_HEIGHT = 32  # pixels of a picture that blur and noise are meant for
BLUR_TAPS = 3  # on either side
STRIP = (0.5, 0.06)  # the longest and the widest part that is erased, of height and width or the other way round


def batch_generator(seed: int, step: int, rank: int, number: int = 0) -> torch.Generator:
    """The generator of one batch, a function of where it stands in a training.

    Args:
        seed: of the run.
        step: optimizer steps before this one.
        rank: of the process.
        number: of the batch within its step.
    """
    mixed = 0
    for value in (seed, step, rank, number):
        mixed = (mixed * 1_000_003 + value + 0x9E3779B9) % (1 << 63)
    return torch.Generator().manual_seed(mixed)


@dataclass
class _Dice:
    """Draws for N pictures; `strength` scales how often and how much."""

    count: int
    strength: float
    generator: torch.Generator

    def even(self, low: float = -1.0, high: float = 1.0) -> Tensor:
        """(N,) evenly distributed."""
        return low + (high - low) * torch.rand(self.count, generator=self.generator)

    def amount(self, largest: float) -> Tensor:
        """(N,) between plus and minus `largest`, scaled."""
        return self.even() * largest * self.strength

    def chosen(self, share: float) -> Tensor:
        """(N,) bool: which pictures are changed."""
        return self.even(0, 1) < share * min(1.0, 2 * self.strength)


def augment(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change pictures of words at random, each in its own way, so that they can still be read.

    Args:
        images: (N, 3, H, W) in [0, 1].
        strength: 0 changes nothing, 1 as much as can mostly be read.
        generator: on the CPU; see `batch_generator`.

    Returns:
        (N, 3, H, W) in [0, 1], on the device of `images`.
    """
    if not strength or not len(images):
        return images
    dice = _Dice(len(images), strength, generator)
    # Small pictures have lost much already.
    gentle = _Dice(len(images), strength * min(1.0, images.shape[2] / FULL_HEIGHT), generator)
    for change, by in ((_bend, dice), (_photometry, dice), (_coarsen, gentle), (_blur, gentle), (_noise, gentle)):
        images = change(images, by)
    return _erase(images, dice).clamp(0, 1)


def _bend(images: Tensor, dice: _Dice) -> Tensor:
    """Rotation, shear, scale, shift, perspective and a bow, in one interpolation; edges are continued."""
    n, _, height, width = images.shape
    angle, shear = dice.amount(ANGLE), dice.amount(SHEAR)
    scale_x, scale_y = 1 + dice.amount(ASPECT), 1 + dice.amount(ASPECT)
    shift_x, shift_y = dice.amount(SHIFT), dice.amount(2 * SHIFT)
    tilt_x, tilt_y = dice.amount(PERSPECTIVE), dice.amount(PERSPECTIVE)
    bow = dice.amount(CURVE) * (dice.even(0, 1) < 0.5)
    keep = dice.chosen(GEOMETRY)
    aspect = width / height
    # Long words leave little room above and below, so they are turned less: the ends move by half a height at most.
    angle = angle.clamp(-0.5 / aspect * 1.6, 0.5 / aspect * 1.6)
    cos, sin = angle.cos(), angle.sin()
    y = torch.linspace(-1, 1, height).view(1, height, 1)
    x = torch.linspace(-1, 1, width).view(1, 1, width)

    def each(values: Tensor) -> Tensor:
        return torch.where(keep, values, 0.0).view(n, 1, 1)

    bent = y + each(bow) * (x.square() - 0.5)
    depth = 1 + each(tilt_x) * x + each(tilt_y) * y
    wide = x / depth * (1 + each(scale_x - 1))
    high = bent / depth * (1 + each(scale_y - 1))
    from_x = wide * (1 + each(cos - 1)) + high * (each(sin) + each(shear)) / aspect + each(shift_x)
    from_y = high * (1 + each(cos - 1)) - wide * each(sin) * aspect + each(shift_y)
    grid = torch.stack(torch.broadcast_tensors(from_x, from_y), dim=3).to(images.device, images.dtype)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _photometry(images: Tensor, dice: _Dice) -> Tensor:
    """Contrast, brightness and gamma, and now and then dark for light."""
    contrast, gamma = dice.amount(CONTRAST), dice.amount(GAMMA)
    brightness = dice.amount(BRIGHTNESS)
    keep, inverted = dice.chosen(PHOTOMETRY), dice.chosen(INVERSION)

    def each(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1).to(images.device)

    factor = each(torch.where(keep, contrast, 0.0).exp2())
    middle = images.mean((1, 2, 3), keepdim=True)
    changed = (images - middle) * factor + middle + each(torch.where(keep, brightness, 0.0))
    changed = changed.clamp(0, 1).pow(each(torch.where(keep, gamma, 0.0).exp2()))
    return torch.where(each(inverted), 1 - changed, changed)


def _some(images: Tensor, chosen: Tensor) -> Tensor:
    """Numbers of the chosen pictures, on their device."""
    return chosen.nonzero().flatten().to(images.device)


def _coarsen(images: Tensor, dice: _Dice) -> Tensor:
    """Some are made smaller and larger again; one factor a batch, as one interpolation has one size."""
    height, width = images.shape[2:]
    factor = 1 - float(dice.even(0.2, 1)[0]) * (1 - COARSEST) * dice.strength
    chosen = _some(images, dice.chosen(COARSE))
    if not len(chosen):
        return images
    size = (max(4, round(factor * height)), max(8, round(factor * width)))
    small = F.interpolate(images[chosen], size, mode="bilinear", align_corners=False, antialias=True)
    return images.index_copy(0, chosen, F.interpolate(small, (height, width), mode="bicubic", align_corners=False))


def _blur(images: Tensor, dice: _Dice) -> Tensor:
    """A Gaussian, wider in one direction than in the other."""
    sigmas = [dice.even(0.05, 1) * BLUR_SIGMA * dice.strength for _ in range(2)]
    mask = dice.chosen(BLUR)
    chosen = _some(images, mask)
    if not len(chosen):
        return images
    count = len(chosen)
    taps = torch.arange(-BLUR_TAPS, BLUR_TAPS + 1, dtype=torch.float32)
    blurred = images[chosen]
    for sigma, shape, padding in zip(sigmas, ((-1, 1), (1, -1)), ((0, 0, 3, 3), (3, 3, 0, 0)), strict=True):
        kernel = (-0.5 * (taps / sigma[mask].clamp_min(0.05).unsqueeze(1)).square()).softmax(1)
        weight = kernel.to(images).view(count, 1, *(2 * BLUR_TAPS + 1 if side < 0 else 1 for side in shape))
        # Pictures take the place of channels, as each has its own kernel; colours that of pictures.
        padded = F.pad(blurred.transpose(0, 1), padding, mode="replicate")
        blurred = F.conv2d(padded, weight, groups=count).transpose(0, 1)
    return images.index_copy(0, chosen, blurred)


def _noise(images: Tensor, dice: _Dice) -> Tensor:
    """Noise of a sensor: the same strength everywhere, of its own in each channel."""
    sigma = dice.even(0, 1) * NOISE_SIGMA * dice.strength
    mask = dice.chosen(NOISE)
    seed = int(torch.randint(1 << 62, (), generator=dice.generator))
    chosen = _some(images, mask)
    if not len(chosen):
        return images
    source = torch.Generator(images.device).manual_seed(seed)
    noise = torch.randn((len(chosen), *images.shape[1:]), generator=source, device=images.device, dtype=images.dtype)
    return images.index_add(0, chosen, noise * sigma[mask].to(images).view(-1, 1, 1, 1))


def _erase(images: Tensor, dice: _Dice) -> Tensor:
    """A strip of one colour, along the line or across it."""
    n, channels, height, width = images.shape
    along = dice.even() > 0
    length, breadth = (dice.even(0.2, 1) * size * dice.strength for size in STRIP)
    size_y, size_x = torch.where(along, breadth, length), torch.where(along, length, breadth)
    middle_y, middle_x = dice.even(0, 1), dice.even(0, 1)
    colours = torch.rand(n, channels, 1, 1, generator=dice.generator)
    mask = dice.chosen(ERASURE)

    def within(middle: Tensor, size: Tensor, pixels: int) -> Tensor:
        """(N, pixels) bool; the thinnest strip is about a pixel wide."""
        places = (torch.arange(pixels) + 0.5) / pixels
        return (places - middle.unsqueeze(1)).abs() <= size.clamp_min(1 / pixels).unsqueeze(1) / 2

    rows = within(middle_y, size_y, height) & mask.unsqueeze(1)
    columns = within(middle_x, size_x, width)
    strip = (rows.view(n, 1, height, 1) & columns.view(n, 1, 1, width)).to(images.device)
    return torch.where(strip, colours.to(images), images)
