"""LeNet-5 in the form of PyTorch's neural-network tutorial (LeCun et al. 1998, with ReLU and max-pooling)."""

import torch.nn.functional as F  # noqa: N812 (the field's usual name)
from torch import Tensor, nn


class FashionConvNet(nn.Module):
    """Two convolutions and three linear layers; [N, 1, 32, 32] float32 in, [N, 10] scores out.

    LeNet-5 takes 32x32, so the catalog pads the data set's 28x28 images by 2 on each side.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of a batch."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.flatten(1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        scores: Tensor = self.fc3(x)
        return scores
