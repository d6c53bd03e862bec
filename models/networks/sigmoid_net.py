"""A two-layer network that ends in a sigmoid: two labels that may each hold or not."""

import torch
from torch import Tensor, nn


class SigmoidNet(nn.Module):
    """[N, 3] float32 in, [N, 2] independent probabilities out."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1 = nn.Linear(3, 5)
        self.lin2 = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities of a batch."""
        x = torch.relu(self.lin1(x))
        return torch.sigmoid(self.lin2(x))
