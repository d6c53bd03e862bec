"""Pictures of the data set, made to look like photographs."""

import pytest
import torch

from handlers.inputs import regions
from models import datasets, made_photographs
from models.fashion_mnist import LABELS

COUNT = 600


@pytest.fixture(scope="module")
def dataset():
    return datasets.fashion_mnist()


@pytest.fixture(scope="module")
def made(dataset):
    torch.manual_seed(0)
    return made_photographs.make(dataset.train_inputs[:COUNT], dataset.train_targets[:COUNT])


def test_the_same_seed_gives_the_same_pictures_and_another_call_gives_others(dataset, made):
    torch.manual_seed(0)
    pictures, targets = dataset.train_inputs[:COUNT], dataset.train_targets[:COUNT]
    assert torch.equal(made_photographs.make(pictures, targets), made)
    assert not torch.equal(made_photographs.make(pictures, targets), made)


def test_pictures_have_the_form_of_a_conversion(made):
    assert made.shape == (COUNT, 28, 28)
    assert made.dtype == torch.uint8
    # The background is black, and the conversion makes the item as large as fits.
    assert (made < 13).float().mean() > 0.3
    visible = made > 25
    lengths = torch.maximum(visible.any(1).sum(1), visible.any(2).sum(1))
    assert (lengths >= 24).float().mean() > 0.9


def test_each_picture_is_of_its_own_item(dataset, made):
    # The nearest class mean is a weak classifier; by chance it would find a tenth of the labels again.
    pictures, targets = dataset.train_inputs.float(), dataset.train_targets
    means = torch.stack([pictures[targets == label].mean(0) for label in range(len(LABELS))])
    shown = made.float().flatten(1)
    shown, known = (values / values.norm(dim=1, keepdim=True) for values in (shown, means.flatten(1)))
    predicted = (shown @ known.T).argmax(1)
    assert (predicted == targets[:COUNT]).float().mean() > 0.2


def test_shoes_come_mostly_in_pairs_and_shirts_alone(dataset):
    torch.manual_seed(1)

    def halves(label):
        """The share of pictures with two large parts."""
        chosen = dataset.train_inputs[dataset.train_targets == LABELS.index(label)][:200]
        targets = torch.full((len(chosen),), LABELS.index(label))
        several = 0
        for picture in made_photographs.make(chosen, targets).numpy():
            mask = picture > 25
            sizes: list[int] = []
            while mask.any() and len(sizes) < 4:
                start = mask & False
                start.flat[mask.argmax()] = True
                part = regions.connected(mask, start)
                sizes.append(int(part.sum()))
                mask &= ~part
            several += len(sizes) > 1 and sorted(sizes)[-2] > 60
        return several / len(chosen)

    # In most pairs the shoes touch.
    assert halves("Sneaker") > halves("Pullover") + 0.1


def test_shoes_from_above_are_long_and_round_and_keep_the_levels_of_their_sides(dataset):
    torch.manual_seed(2)
    chosen = dataset.train_inputs[dataset.train_targets == LABELS.index("Ankle boot")][:100].float() / 255
    outlines = (chosen > 0.05).float()
    items, seen = made_photographs.from_above(chosen, outlines)
    inside = seen > 0.5
    assert (inside.any(1).sum(1) >= 26).all()
    assert ((inside.any(2).sum(1) >= 8) & (inside.any(2).sum(1) <= 16)).all()
    # A boot from the side is not symmetric; from above it is the same on both sides.
    assert torch.equal(inside, inside.flip(1))
    assert not items[seen == 0].any()

    def levels(pictures, covered):
        return torch.stack([picture[mask].mean() for picture, mask in zip(pictures, covered, strict=True)])

    shown = torch.stack([levels(items, inside), levels(chosen, outlines > 0.5)])
    assert torch.corrcoef(shown)[0, 1] > 0.7
