"""The sequential residual block of TSRN and of the networks that give it a hint."""

import torch
from torch import Tensor, nn

from model.blocks.activation import mish
from model.blocks.gru import GruBlock


class RecurrentResidualBlock(nn.Module):
    """(N, F, H, W) and a hint (N, c, H, W) -> (N, F, H, W): two convolutions, a GRU along H and one along W (SRB).

    Papers: TSRN, https://arxiv.org/abs/2005.03341; with a hint TPGSR, https://arxiv.org/abs/2106.15368.

    Args:
        features: F.
        hint_channels: c; with 0 the block takes no hint.
    """

    def __init__(self, features: int, hint_channels: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(features)
        self.gru1 = GruBlock(features + hint_channels, features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(features)
        self.gru2 = GruBlock(features, features)

    def forward(self, x: Tensor, hint: Tensor | None = None) -> Tensor:
        """Refine `x` with `hint`."""
        residual = self.bn2(self.conv2(mish(self.bn1(self.conv1(x)))))
        if hint is not None:
            residual = torch.cat([residual, hint], dim=1)
        columns = self.gru1(residual, columns=True)
        return self.gru2(x + columns)
