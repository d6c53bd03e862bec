"""TorchScript is checked against its network before it is written."""

import pytest
import torch
from torch import nn

from models.catalog import CATALOG
from models.errors import ExportError
from models.exporting import export


@pytest.mark.parametrize("name", CATALOG)
def test_the_written_file_answers_as_the_network_does(name, tmp_path):
    entry = CATALOG[name]
    network = entry.network().eval()
    examples = torch.rand(20, *entry.input.network_shape)
    export(network, examples, entry.activation, tmp_path / "model.pt")
    scripted = torch.jit.load(tmp_path / "model.pt")
    assert "def forward" in scripted.code
    for size in (1, 3, 20):
        assert torch.allclose(scripted(examples[:size]), network(examples[:size]), atol=1e-6)


class Different(nn.Module):
    """Gives other answers once it is scripted."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # torch's documented function, which its stubs do not export.
        return x * 2 if torch.jit.is_scripting() else x  # type: ignore[attr-defined]


class FixedBatch(nn.Module):
    """Answers one row for small batches of any size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.shape[0] > 7 else x[:1]


@pytest.mark.parametrize(("network", "message"), [(Different(), "differ by"), (FixedBatch(), "batch of 2")])
def test_a_script_with_other_answers_is_not_written(network, message, tmp_path):
    with pytest.raises(ExportError, match=message):
        export(network.eval(), torch.rand(20, 3), "softmax", tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []
