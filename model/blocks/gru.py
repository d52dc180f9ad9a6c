"""Recurrence along the rows of a feature map, as in the sequential residual block of TSRN."""

from torch import Tensor, nn


class GruBlock(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, H, W): 1x1 convolution, then a bidirectional GRU along W.

    With `pointwise=False` there is no convolution, and the numbers of channels are the same (LEMMA, SGENet).
    For a recurrence along the columns transpose the map before and after.
    Paper: https://arxiv.org/abs/2005.03341 (where the figure calls it BLSTM).
    """

    def __init__(self, in_channels: int, out_channels: int, *, pointwise: bool = True) -> None:
        super().__init__()
        assert pointwise or in_channels == out_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1) if pointwise else nn.Identity()
        self.gru = nn.GRU(out_channels, out_channels // 2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Read every row of `x` in both directions."""
        x = self.conv1(x).permute(0, 2, 3, 1)  # (N, H, W, C): a row is a sequence of C-vectors
        rows, _ = self.gru(x.flatten(0, 1))
        return rows.unflatten(0, x.shape[:2]).permute(0, 3, 1, 2)
