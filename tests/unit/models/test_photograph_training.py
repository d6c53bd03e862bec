"""Weights for photographs: the start, the temperature, and what is never seen."""

import dataclasses

import pytest
import torch

from models import datasets, photograph_training
from models.catalog import CATALOG
from models.fashion_mnist import LABELS
from models.photograph_training import train_for_photographs
from models.training import train
from tests.unit.models.test_training import small


@pytest.fixture(scope="module")
def few_images():
    return small(datasets.fashion_mnist())


def settings(entry, **changes):
    return dataclasses.replace(entry.photographs, epochs=1, batch_size=64, validation=200, **changes)


def test_training_starts_from_the_given_weights(few_images, silent):
    entry = CATALOG["fashion_mlp"]
    torch.manual_seed(0)
    start = entry.network()
    still = dataclasses.replace(settings(entry), learning_rate=1e-9, weight_decay=0)
    trained = train(entry, few_images, still, 0, silent, start=start).network
    for name, value in start.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_weights_and_temperature(few_images, silent):
    entry = CATALOG["fashion_mlp"]
    torch.manual_seed(0)
    start = entry.network()
    first, second = (train_for_photographs(entry, start, few_images, settings(entry), 0, silent) for _ in range(2))
    assert first.temperature == second.temperature > 0
    for name, value in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value)
    assert not torch.equal(
        first.network.state_dict()["network.linear_relu_stack.0.weight"],
        start.state_dict()["linear_relu_stack.0.weight"],
    )


def test_an_answer_counts_by_the_kinds_that_a_picture_may_be_of():
    accepted = photograph_training._accepted(LABELS)

    def share(label, answer):
        return accepted[LABELS.index(label), LABELS.index(answer)].item()

    assert (
        share("Shirt", "Shirt")
        == share("T-shirt/top", "Shirt")
        == share("Sandal", "Sneaker")
        == share("Bag", "Bag")
        == 1
    )
    assert share("Shirt", "Pullover") == pytest.approx(2 / 3)
    assert share("Shirt", "T-shirt/top") == pytest.approx(1 / 3)
    assert share("Trouser", "Dress") == share("Bag", "Sandal") == 0


def test_the_pictures_that_fit_the_temperature_are_not_trained_on(few_images, silent, monkeypatch):
    entry, seen = CATALOG["fashion_mlp"], []

    def record(_entry, dataset, *arguments, **options):
        seen.append(dataset.train_inputs)
        return train(_entry, dataset, *arguments, **options)

    monkeypatch.setattr(photograph_training, "train", record)
    train_for_photographs(entry, entry.network(), few_images, settings(entry), 0, silent)
    held_out = {picture.numpy().tobytes() for picture in few_images.train_inputs[:200]}
    kept = few_images.train_targets[200:]
    rare = sum(int((kept == LABELS.index(label)).sum()) // 2 for label in ("Coat", "Bag"))
    # Twice as many made pictures as others, but half of them for the rare labels.
    assert abs(len(seen[0]) - (3 * len(kept) - 2 * rare)) <= 4
    assert held_out.isdisjoint(picture.numpy().tobytes() for picture in seen[0])
