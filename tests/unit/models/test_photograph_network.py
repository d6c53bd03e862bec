"""The network for photographs: views of a picture."""

import numpy as np
import pytest
import torch

from models.catalog import CATALOG
from models.photograph_network import PhotographNetwork
from models.training import prepare
from tests.support import image_files

MODELS = ("fashion_mlp", "fashion_convnet")


@pytest.fixture(params=MODELS)
def entry(request):
    return CATALOG[request.param]


@pytest.fixture
def network(entry):
    torch.manual_seed(0)
    return entry.network().eval()


def inputs(entry, *pictures):
    return prepare(torch.from_numpy(np.stack(pictures)), entry.input)


def test_a_picture_whose_views_are_all_the_same_has_the_scores_of_the_network(entry, network):
    black = inputs(entry, np.zeros((28, 28), np.uint8))
    scores = PhotographNetwork(network, entry.input)(black)
    torch.testing.assert_close(scores, network(black).log_softmax(1))


def test_a_mirrored_picture_has_the_same_scores(entry, network):
    picture = image_files.texture()
    averaged = PhotographNetwork(network, entry.input)
    scores, mirrored = averaged(inputs(entry, picture)), averaged(inputs(entry, picture[:, ::-1].copy()))
    torch.testing.assert_close(scores, mirrored)
    assert not torch.allclose(network(inputs(entry, picture)).log_softmax(1), scores)


def test_views_are_narrower_and_keep_the_center():
    seen = []

    class Network(torch.nn.Module):
        def forward(self, values):
            seen.append(values.reshape(-1, 28, 28))
            return torch.zeros(len(values), 10)

    entry = CATALOG["fashion_mlp"]
    bar = np.zeros((28, 28), np.uint8)
    bar[:, 4:24] = 255
    PhotographNetwork(Network(), entry.input)(inputs(entry, bar))
    brightness = (seen[0] - entry.input.bias) / entry.input.gain / 255
    widths = brightness[:, 14].sum(1)
    torch.testing.assert_close(widths, torch.tensor([15.0, 17.4, 20.0] * 2), atol=0.3, rtol=0)
    torch.testing.assert_close(brightness[:3], brightness[3:])


def test_other_pictures_of_a_batch_change_nothing_and_torchscript_gives_the_same(entry, network):
    averaged = PhotographNetwork(network, entry.input).eval()
    several = inputs(entry, *(image_files.texture(seed=seed) for seed in range(3)))
    together = averaged(several)
    torch.testing.assert_close(together, torch.cat([averaged(one[None]) for one in several]), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.jit.script(averaged)(several), together)
