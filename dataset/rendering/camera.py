"""How a word is lit, looked at and photographed: scene in linear light -> HR picture."""

import cv2
import numpy as np

from dataset.degradation import add_noise, jpeg, sharpen, to_display
from dataset.rendering.lettering import Box
from dataset.rendering.surfaces import LUMA

HR_HEIGHTS = (28, 64)  # pixels
HR_MAX_WIDTH = 416  # pixels


def illuminate(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Uneven light, shadows of other things, reflections; in place."""
    height, width = canvas.shape[:2]
    grid = np.exp(rng.normal(0, rng.uniform(0.02, 0.3), (2, 3))).astype(np.float32)
    canvas *= cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    chance = rng.random(2)
    if chance[0] < 0.10:  # the edge of a shadow
        angle, offset, soft = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3) * width, rng.uniform(1, 12)
        x = np.arange(width, dtype=np.float32) - width / 2
        y = np.arange(height, dtype=np.float32)[:, None] - height / 2
        distance = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) - np.float32(offset)
        shade = np.clip(0.5 + 0.5 * distance / np.float32(soft), 0, 1)
        canvas *= (1 - np.float32(rng.uniform(0.3, 0.65)) * shade)[..., None]
    if chance[1] < 0.08:  # a reflection
        spot = np.zeros((8, 16), np.float32)
        spot[int(rng.integers(8)), int(rng.integers(16))] = rng.uniform(0.3, 1.2)
        glare = cv2.GaussianBlur(spot, (0, 0), float(rng.uniform(0.8, 2.0)))
        canvas += cv2.resize(glare, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]


def _view(ink: Box, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int], float]:
    """Where the camera stands and how the word is cropped.

    Returns:
        Homography canvas -> HR, HR size (width, height), and canvas pixels per HR pixel.
    """
    x, y, width, height = ink
    yaw, pitch, roll = np.deg2rad(rng.normal(0, 1, 3) * ((10, 6, 1.5) if rng.random() < 0.87 else (28, 12, 6.0)))
    cos, sin = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    turn_y = np.array([[cos[0], 0, sin[0]], [0, 1, 0], [-sin[0], 0, cos[0]]])
    turn_x = np.array([[1, 0, 0], [0, cos[1], -sin[1]], [0, sin[1], cos[1]]])
    turn_z = np.array([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
    half = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * (width / 2, height / 2, 0)
    seen = half @ (turn_z @ turn_y @ turn_x).T
    distance = rng.uniform(1.5, 5.0) * max(width, 2.0 * height)
    flat = seen[:, :2] * (distance / (distance + seen[:, 2:]))
    low, high = flat.min(0), flat.max(0)
    box_height = high[1] - low[1]
    margin = rng.uniform(0.01, 0.16, 4) * box_height
    if rng.random() < 0.2:
        margin += rng.uniform(-0.05, 0.15) * box_height
    low, high = low - margin[:2], high + margin[2:]
    hr_height = 2 * round(rng.uniform(*HR_HEIGHTS) / 2)
    aspect = (high[0] - low[0]) / (high[1] - low[1])
    hr_width = 2 * int(np.clip(round(hr_height * aspect / 2), 8, HR_MAX_WIDTH / 2))
    corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float32)
    target = (flat - low) / (high - low) * (hr_width, hr_height)
    return (
        cv2.getPerspectiveTransform(corners, target.astype(np.float32)),
        (hr_width, hr_height),
        box_height / hr_height,
    )


def photograph(canvas: np.ndarray, ink: Box, rng: np.random.Generator) -> np.ndarray:
    """Lens, sensor and processing of the HR camera: (H, W, 3) uint8 RGB."""
    view, size, ratio = _view(ink, rng)
    softness = float(np.clip(np.exp(rng.normal(-0.55, 0.4)), 0.3, 1.4))  # of the lens, in HR pixels
    canvas = cv2.GaussianBlur(canvas, (0, 0), max(0.35, softness * ratio), borderType=cv2.BORDER_REFLECT_101)
    light = cv2.warpPerspective(canvas, view, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    # Automatic exposure: what is brighter than the sensor's range is brought back, what is dark only half-way.
    bright = float(light.mean() + 1.5 * light.std())
    exposure = 2.0 ** rng.normal(-0.1, 0.4) * (0.85 / bright) ** (0.9 if bright > 0.85 else 0.3)
    exposure = exposure * np.exp(rng.normal(0, 0.05, 3))
    haze = max(0.0, rng.normal(0.005, 0.02))
    light = light * exposure.astype(np.float32) + np.float32(haze)
    light = add_noise(light, rng, shot=float(rng.uniform(0.002, 0.014)), read=float(rng.uniform(0.0003, 0.003)))
    shown = to_display(light)
    grey = shown @ LUMA
    dull = np.float32(rng.uniform(0.0, 0.45))
    shown = shown + dull * (grey[..., None] - shown)
    if rng.random() < 0.5:
        shown = sharpen(shown, strength=float(rng.uniform(0.2, 1.2)))
    shown = 128 + np.float32(rng.uniform(0.75, 1.1)) * (shown - 128)
    return jpeg(np.clip(np.rint(shown), 0, 255).astype(np.uint8), int(rng.integers(55, 97)))
