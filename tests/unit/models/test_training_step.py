"""The fast parts of a training step compute the same as the parts that they replace."""

import pytest
import torch

from models.training_step import bfloat16_products, dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1000, 1001), rate)
    assert dropped.eq(0).float().mean().item() == pytest.approx(rate, abs=0.002)
    assert dropped.max().item() == pytest.approx(1 / (1 - rate), rel=1e-4)
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)


def test_all_positions_are_dropped_equally_often():
    torch.manual_seed(0)
    shares = torch.stack([dropout(torch.ones(13), 0.25).eq(0).float() for _ in range(4000)]).mean(0)
    assert shares.sub(0.25).abs().max().item() < 0.035


def test_dropout_of_rate_zero_changes_nothing():
    inputs = torch.randn(3, 5)
    assert torch.equal(dropout(inputs, 0.0), inputs)


def test_dropped_elements_have_no_gradient():
    inputs = torch.ones(50, 50, requires_grad=True)
    dropped = dropout(inputs, 0.3)
    dropped.sum().backward()
    assert inputs.grad is not None
    assert torch.equal(inputs.grad, dropped.detach())


def test_dropout_follows_the_seed():
    def drawn(seed):
        torch.manual_seed(seed)
        return dropout(torch.ones(7, 9), 0.5)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_products_are_exact_again_afterwards():
    left, right = torch.randn(64, 256), torch.randn(256, 128)
    exact = left @ right
    with bfloat16_products():
        # On a CPU without bfloat16 instructions products stay exact.
        assert torch.allclose(left @ right, exact, atol=0.5)
    assert torch.equal(left @ right, exact)
    with pytest.raises(KeyboardInterrupt), bfloat16_products():
        raise KeyboardInterrupt
    assert torch.equal(left @ right, exact)
