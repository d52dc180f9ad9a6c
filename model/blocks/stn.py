"""Rectification of curved text: a small network places control points, a thin-plate spline bends the picture.

Paper: ASTER, https://doi.org/10.1109/TPAMI.2018.2848939, also in the form of TSRN, https://arxiv.org/abs/2005.03341.
Key names (`stn_convnet`, `stn_fc1`, ..., `inverse_kernel`, ...) are those of published checkpoints. Difference: the
inverse kernel is computed in float64; the published float32 inverse is off by up to 1e-3 and comes with the checkpoint.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def two_rows(num_points: int, *, margin_x: float, margin_y: float) -> np.ndarray:
    """(num_points, 2) float64 (x, y) in [0, 1]: half of the points along the top, half along the bottom."""
    columns = np.linspace(margin_x, 1 - margin_x, num_points // 2)
    rows = [np.stack([columns, np.full_like(columns, y)], axis=1) for y in (margin_y, 1 - margin_y)]
    return np.concatenate(rows)


class STNHead(nn.Module):
    """(N, in_channels, H, 64) -> (N, num_points, 2), (x, y) of the control points, [0, 1] across the picture.

    At the start the points lie on two straight lines whatever the picture is.

    Args:
        in_channels: planes of a picture.
        num_points: number of control points, half along the top, half along the bottom.
        height: H, 16 (TSRN and its successors) or 32 (ASTER).
        sigmoid: keep the points inside of the picture; an option of ASTER that no published checkpoint uses.

    Raises:
        ValueError: H is neither.
    """

    def __init__(self, in_channels: int, *, num_points: int = 20, height: int = 16, sigmoid: bool = False) -> None:
        super().__init__()
        if height not in (16, 32):
            raise ValueError(f"pictures {height} pixels high: control points are placed in 16 or 32; resize them")
        self.num_points = num_points
        self.sigmoid = sigmoid
        self.stn_convnet = nn.Sequential(
            _conv_block(in_channels, 32),
            nn.MaxPool2d(2),
            _conv_block(32, 64),
            nn.MaxPool2d(2),
            _conv_block(64, 128),
            nn.MaxPool2d(2),
            _conv_block(128, 256),
            nn.MaxPool2d(2),
            _conv_block(256, 256),
            nn.MaxPool2d((height // 16, 2)),
            _conv_block(256, 256),
        )
        reduce = nn.Linear(2 * 256, 512)
        nn.init.normal_(reduce.weight, std=0.001)
        nn.init.zeros_(reduce.bias)
        self.stn_fc1 = nn.Sequential(reduce, nn.BatchNorm1d(512), nn.ReLU())
        self.stn_fc2 = nn.Linear(512, 2 * num_points)
        nn.init.zeros_(self.stn_fc2.weight)
        start = two_rows(num_points, margin_x=0.01, margin_y=0.01)
        if sigmoid:
            start = np.log(start / (1 - start))
        with torch.no_grad():
            self.stn_fc2.bias.copy_(torch.from_numpy(start.astype(np.float32)).flatten())

    def forward(self, images: Tensor) -> Tensor:
        """Place the control points of each image."""
        points = self.stn_fc2(0.1 * self.features(images)).unflatten(1, (self.num_points, 2))
        return points.sigmoid() if self.sigmoid else points

    def features(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, 64) -> (N, 512)."""
        return self.stn_fc1(self.stn_convnet(images).flatten(1))


def _conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(conv.get_parameter("bias"))
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class TPSSpatialTransformer(nn.Module):
    """Bends pictures so that given control points land on two straight lines.

    Args:
        output_size: (H, W) of the result; each side at least 2.
        num_points: number of control points, half along the top, half along the bottom.
        margin: distance of the target lines from the edges, as a fraction.
        align_corners: how sampling positions are counted, see `torch.nn.functional.grid_sample`. Published RTSRN
            and TSRN checkpoints were trained with True, TPGSR and TATT with False; ASTER's scores in their
            tables were made with False.
    """

    constant_buffers = ("inverse_kernel", "padding_matrix", "target_coordinate_repr", "target_control_points")

    def __init__(
        self, output_size: tuple[int, int], *, num_points: int = 20, margin: float = 0.05, align_corners: bool = True
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.align_corners = align_corners
        targets = two_rows(num_points, margin_x=margin, margin_y=margin)
        kernel = np.zeros((num_points + 3, num_points + 3))
        kernel[:num_points] = _basis(targets, targets)
        kernel[num_points:, :num_points] = kernel[:num_points, num_points:].T
        height, width = output_size
        rows, columns = np.meshgrid(np.arange(height) / (height - 1), np.arange(width) / (width - 1), indexing="ij")
        pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)
        self._constant("inverse_kernel", np.linalg.inv(kernel))
        self._constant("padding_matrix", np.zeros((3, 2)))
        self._constant("target_coordinate_repr", _basis(pixels, targets))
        self._constant("target_control_points", targets)

    def forward(self, images: Tensor, points: Tensor) -> Tensor:
        """Rectify.

        Args:
            images: (N, C, h, w).
            points: (N, num_points, 2) source positions (x, y) in [0, 1].

        Returns:
            (N, C, H, W) float32; where the source lies outside the picture, its edge.
        """
        source = self.source_coordinates(points).clamp(0, 1)
        grid = (2 * source - 1).unflatten(1, self.output_size)
        with torch.autocast(images.device.type, enabled=False):
            return F.grid_sample(images.float(), grid, padding_mode="zeros", align_corners=self.align_corners)

    def source_coordinates(self, points: Tensor) -> Tensor:
        """(N, num_points, 2) -> (N, H*W, 2) in [0, 1] (or outside): where each pixel, row by row, is read."""
        with torch.autocast(points.device.type, enabled=False):  # 8 bits of mantissa cannot address 64 columns
            padded = torch.cat([points.float(), self.padding_matrix.expand(len(points), 3, 2)], dim=1)
            mapping = self.inverse_kernel @ padded
            return self.target_coordinate_repr @ mapping

    inverse_kernel: Tensor
    padding_matrix: Tensor
    target_coordinate_repr: Tensor
    target_control_points: Tensor

    def _constant(self, name: str, value: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(value.astype(np.float32)))


def _basis(positions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(P, 2), (K, 2) -> (P, K + 3): the radial terms r^2 ln r (0 at r = 0), then 1, x, y."""
    squared = ((positions[:, None] - targets[None]) ** 2).sum(axis=2)
    radial = 0.5 * squared * np.log(np.where(squared > 0, squared, 1))
    return np.concatenate([radial, np.ones((len(positions), 1)), positions], axis=1)
