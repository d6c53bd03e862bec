"""A network that answers for photographs: the model's network with weights of its own, asked about several views.

A photograph's outline is less certain than a catalog picture's, and clothes that lie flat are wider than worn ones. So
the picture is shown at several widths, as it is and mirrored, and the scores of all views are averaged. On photographs
that raises the share of right answers, and above all keeps the sure ones right (docs/photographs.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from handlers.signature import Input

# Of the picture's width. All are also shown mirrored.
_WIDTHS = (0.75, 0.87, 1.0)


class PhotographNetwork(nn.Module):
    """Averages a network's log-probabilities over the views of a picture.

    Args:
        network: returns scores ``[N, labels]`` of prepared inputs.
        spec: its input, an image.
    """

    def __init__(self, network: nn.Module, spec: Input) -> None:
        super().__init__()
        self.network = network
        self.height, self.width = (length + 2 * spec.padding for length in spec.shape)
        # Black, prepared. The networks for photographs take gray pictures.
        assert isinstance(spec.bias, float)
        self.background = spec.bias
        self.narrowing: Tensor
        self.register_buffer("narrowing", torch.stack([_narrowing(self.width, share) for share in _WIDTHS]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores float32 ``[N, labels]`` of prepared inputs float32 ``[N, *network_shape]``."""
        pictures = inputs.reshape(1, -1, self.height, self.width) - self.background
        views = pictures @ self.narrowing[:, None]
        views = torch.cat([views, views.flip(3)]) + self.background
        # TorchScript has no unpacking of tuples.
        scores: Tensor = self.network(views.reshape((-1,) + inputs.shape[1:]))  # noqa: RUF005
        return scores.log_softmax(1).reshape(views.shape[0], inputs.shape[0], -1).mean(0)


def _narrowing(width: int, share: float) -> Tensor:
    """The matrix ``[width, width]`` that a picture is multiplied with to narrow it about its center, bilinearly."""
    center = (width - 1) / 2
    source = (torch.arange(width) - center) / share + center
    return (1 - (torch.arange(width)[:, None] - source).abs()).clamp(min=0)
