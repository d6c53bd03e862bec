"""The multilayer perceptron of PyTorch's quickstart tutorial."""

from torch import Tensor, nn


class FashionMLP(nn.Module):
    """Three linear layers over the flattened image; [N, 784] or [N, 28, 28] float32 in, [N, 10] scores out."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(28 * 28, 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores of a batch."""
        x = self.flatten(x)
        scores: Tensor = self.linear_relu_stack(x)
        return scores
