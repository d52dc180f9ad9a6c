"""HR -> LR as a second, shorter lens would have seen it: blur, misalignment, exposure, 2x down-sampling, noise, JPEG.

TextZoom photographs every sign twice, at two focal lengths; its LR is therefore optical, slightly misaligned and
differently exposed. Here the same steps are simulated, in the order in which light meets them: lens and hand (in
linear light), sensor (photon and read noise, chroma smoothing by the demosaicing), camera processing (tone, sharpening)
and JPEG. Lengths that belong to the scene are given for a crop 32 pixels high and scale with the crop, so that a
severity means the same after the loader has resized every crop to 32x128; noise and JPEG belong to the camera and are
given per LR pixel.
"""

from dataclasses import dataclass

import cv2
import numpy as np

GAMMA = 2.2  # display gamma; the exact sRGB curve differs by less than the noise added here
REFERENCE_HEIGHT = 32  # pixels; the HR height that the lengths of `Severity` are given for

Range = tuple[float, float]


@dataclass(frozen=True)
class Severity:
    """How bad the second camera is; every range is (low, high) of a uniform draw.

    Attributes:
        blur: standard deviation of the defocus, in HR pixels of a crop 32 high.
        motion_chance: share of crops with camera shake.
        motion: length of the shake's path, in HR pixels of a crop 32 high.
        shift: largest displacement, in HR pixels of a crop 32 high.
        rotation: largest rotation, in degrees.
        scale: largest relative difference of the two magnifications.
        perspective: largest displacement of a corner, as a share of the height.
        stops: exposure difference, in powers of two.
        cast: largest relative difference of a colour channel's gain.
        contrast: factor on the deviation from mid-grey.
        shot: photon noise: standard deviation at full white, linear light in [0, 1].
        read: read noise: standard deviation, linear light in [0, 1].
        halo_chance: share of crops with over-sharpening.
        halo: its strength (unsharp mask).
        jpeg: quality, 0 to 100.
    """

    blur: Range
    motion_chance: float
    motion: Range
    shift: float
    rotation: float
    scale: float
    perspective: float
    stops: Range
    cast: float
    contrast: Range
    shot: Range
    read: Range
    halo_chance: float
    halo: Range
    jpeg: Range


# The ranges were set by a recogniser (PP-OCR, exact match): about 75, 65 and 43 % on LR when it reads 92 % of the HR.
SEVERITIES = {
    "easy": Severity(
        blur=(0.9, 2.3), motion_chance=0.10, motion=(1.0, 2.5), shift=0.5, rotation=0.4, scale=0.01, perspective=0.01,
        stops=(-0.3, 0.3), cast=0.04, contrast=(0.85, 1.05), shot=(0.01, 0.03), read=(0.001, 0.005),
        halo_chance=0.35, halo=(0.3, 1.0), jpeg=(65, 95),
    ),
    "medium": Severity(
        blur=(1.3, 2.6), motion_chance=0.20, motion=(1.5, 4.0), shift=1.0, rotation=0.8, scale=0.02, perspective=0.02,
        stops=(-0.4, 0.3), cast=0.05, contrast=(0.75, 1.0), shot=(0.015, 0.05), read=(0.002, 0.010),
        halo_chance=0.25, halo=(0.3, 1.0), jpeg=(50, 90),
    ),
    "hard": Severity(
        blur=(1.8, 3.5), motion_chance=0.35, motion=(2.0, 6.0), shift=1.2, rotation=1.0, scale=0.02, perspective=0.02,
        stops=(-0.4, 0.3), cast=0.05, contrast=(0.75, 1.0), shot=(0.02, 0.05), read=(0.003, 0.010),
        halo_chance=0.15, halo=(0.3, 0.8), jpeg=(35, 85),
    ),
}  # fmt: skip

_LINEAR = (np.arange(256) / 255.0).astype(np.float32) ** np.float32(GAMMA)


def severity_of(name: str) -> Severity:
    """The preset called `name`.

    Raises:
        ValueError: no such preset.
    """
    if name not in SEVERITIES:
        raise ValueError(f"unknown severity {name!r}; choose one of {', '.join(SEVERITIES)}")
    return SEVERITIES[name]


def point_spread(sigma: float, length: float, angle: float, *, disc: bool = False) -> np.ndarray:
    """What one point of the scene becomes on the sensor while the hand moves.

    Args:
        sigma: standard deviation of the defocus in pixels.
        length: length of the straight path of the hand in pixels; 0 is a steady hand.
        angle: direction of the path in radians.
        disc: the blades of an open lens make a disc; else a Gaussian of the same standard deviation.

    Returns:
        (k, k) float32 with odd k, sum 1.
    """
    sigma = max(sigma, 0.2)  # below this the samples of a Gaussian no longer sum to its area
    radius = int(np.ceil(length / 2 + (2.0 * sigma if disc else 3.0 * sigma))) + 1
    axis = np.arange(-radius, radius + 1, dtype=np.float32)
    steps = np.linspace(-0.5, 0.5, max(1, 2 * int(np.ceil(length)) + 1)) * length if length else np.zeros(1)
    kernel = np.zeros((axis.size, axis.size), np.float32)
    for step in steps:
        x, y = axis - np.float32(step * np.cos(angle)), axis - np.float32(step * np.sin(angle))
        if disc:  # a uniform disc of radius r has standard deviation r / 2 along each axis
            distance = np.sqrt(x[None, :] ** 2 + y[:, None] ** 2)
            kernel += np.clip(2 * sigma + 0.5 - distance, 0, 1)
        else:
            kernel += np.exp(-(y**2) / (2 * sigma**2))[:, None] * np.exp(-(x**2) / (2 * sigma**2))[None, :]
    return kernel / kernel.sum()


def to_linear(image: np.ndarray) -> np.ndarray:
    """uint8 as displayed -> float32 linear light in [0, 1]."""
    return _LINEAR[image]


def to_display(light: np.ndarray) -> np.ndarray:
    """Linear light (any range; clipped to [0, 1]) -> float32 in [0, 255] as displayed."""
    return np.clip(light, 0, 1) ** np.float32(1 / GAMMA) * np.float32(255)


def add_noise(light: np.ndarray, rng: np.random.Generator, *, shot: float, read: float) -> np.ndarray:
    """Sensor noise in linear light: the part of photons grows with the square root of the light, the rest does not.

    The colour part is smooth over some pixels (a Bayer sensor sees each colour at every second pixel only), the
    brightness part has the grain of single pixels.
    """
    height, width = light.shape[:2]
    grain = rng.standard_normal((height, width, 1), np.float32)
    colour = rng.standard_normal((height, width, 3), np.float32)
    colour = cv2.GaussianBlur(colour, (5, 5), 1.0, borderType=cv2.BORDER_REFLECT_101) * np.float32(2.0)
    deviation = np.sqrt(np.float32(shot**2) * np.clip(light, 0, 1) + np.float32(read**2))
    return light + deviation * (np.float32(0.8) * grain + np.float32(0.6) * colour)


def sharpen(image: np.ndarray, *, strength: float, sigma: float = 0.9) -> np.ndarray:
    """Unsharp mask of a float32 picture, with the halos that cameras leave at edges; `sigma` in pixels."""
    smooth = cv2.GaussianBlur(image, (5, 5), sigma, borderType=cv2.BORDER_REFLECT_101)
    return image + np.float32(strength) * (image - smooth)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """uint8 RGB through one JPEG generation (4:2:0, like phone cameras); quality 0 to 100."""
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1])


def _misaligned(light: np.ndarray, severity: Severity, rng: np.random.Generator) -> np.ndarray:
    """The view of the second shot: shifted, rotated, scaled and seen from slightly elsewhere."""
    height, width = light.shape[:2]
    unit = height / REFERENCE_HEIGHT
    shift = rng.uniform(-severity.shift, severity.shift, 2) * unit
    angle = np.deg2rad(rng.uniform(-severity.rotation, severity.rotation))
    zoom = 1 + rng.uniform(-severity.scale, severity.scale)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    centre = np.array([width / 2, height / 2])
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (corners - centre) @ turn.T + centre + shift
    moved += rng.uniform(-severity.perspective, severity.perspective, (4, 2)) * height
    view = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    return cv2.warpPerspective(light, view, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _exposed(light: np.ndarray, severity: Severity, rng: np.random.Generator) -> np.ndarray:
    """Other exposure and white balance."""
    gain = 2.0 ** rng.uniform(*severity.stops) * (1 + rng.uniform(-severity.cast, severity.cast, 3))
    return light * gain.astype(np.float32)


def degrade(hr: np.ndarray, severity: str | Severity, rng: np.random.Generator) -> np.ndarray:
    """The LR shot of an HR crop.

    Args:
        hr: (H, W, 3) uint8 RGB, at least 2x2 pixels.
        severity: a name of `SEVERITIES`, or ranges of one's own.
        rng: source of all randomness; the same state gives the same bits, whatever number of threads OpenCV uses.

    Returns:
        (H // 2, W // 2, 3) uint8 RGB.

    Raises:
        ValueError: unknown severity, or `hr` is not such an image.
    """
    if hr.dtype != np.uint8 or hr.ndim != 3 or hr.shape[2] != 3 or min(hr.shape[:2]) < 2:
        raise ValueError(
            f"hr is {hr.dtype} of shape {hr.shape}; (H, W, 3) uint8 RGB of at least 2x2 pixels was expected"
        )
    severity = severity_of(severity) if isinstance(severity, str) else severity
    height, width = hr.shape[:2]
    unit = height / REFERENCE_HEIGHT
    length = rng.uniform(*severity.motion) * unit if rng.random() < severity.motion_chance else 0.0
    spread = point_spread(
        rng.uniform(*severity.blur) * unit, length, rng.uniform(0, np.pi), disc=bool(rng.random() < 0.4)
    )
    light = cv2.filter2D(to_linear(hr), -1, spread, borderType=cv2.BORDER_REPLICATE)
    light = _exposed(_misaligned(light, severity, rng), severity, rng)
    shrink = cv2.INTER_AREA if rng.random() < 0.6 else cv2.INTER_CUBIC
    light = cv2.resize(light, (width // 2, height // 2), interpolation=shrink)
    light = add_noise(light, rng, shot=rng.uniform(*severity.shot), read=rng.uniform(*severity.read))
    shown = to_display(light)
    if rng.random() < severity.halo_chance:
        shown = sharpen(shown, strength=rng.uniform(*severity.halo))
    middle = np.float32(128)
    shown = middle + np.float32(rng.uniform(*severity.contrast)) * (shown - middle)
    return jpeg(np.clip(np.rint(shown), 0, 255).astype(np.uint8), round(rng.uniform(*severity.jpeg)))
