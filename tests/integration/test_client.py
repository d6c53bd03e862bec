"""The Python client and its command line with the real service."""

from __future__ import annotations

import asyncio
import csv
import io
import json

import numpy as np
import pytest
from fashion_client import FashionClient, NotFoundError, Predictions, RefusedError, command
from fashion_client.asynchronous import AsyncFashionClient
from PIL import Image

# Another batch size changes the order of the network's float32 sums.
TOLERANCE = 1e-5


@pytest.fixture
def client(gateway):
    with FashionClient(gateway.url) as client:
        yield client


@pytest.fixture
def image_archives(served):
    return [archive for archive in served if archive.signature.input.kind == "image"]


def test_the_client_lists_the_served_models(client, served):
    assert client.ready()
    assert set(client.models()) == {archive.model for archive in served}
    for archive in served:
        model = client.model(archive.model)
        assert model.name == archive.model
        assert archive.version in model.versions
        assert model.inputs[0].shape == (-1, *archive.signature.input.shape)


def test_an_address_may_be_ipv6(gateway):
    url = f"http://[::1]:{gateway.settings.gateway.number}/"
    with FashionClient(url) as client:
        assert client.ready()

    async def ready() -> bool:
        async with AsyncFashionClient(url) as client:
            return await client.ready()

    assert asyncio.run(ready())


def test_every_model_gives_its_golden_answers(client, served):
    for archive in served:
        predictions = client.predict(archive.golden.inputs, model=archive.model)
        assert isinstance(predictions, Predictions)
        assert predictions.labels == archive.signature.output.labels
        assert predictions.independent == (archive.signature.output.activation == "sigmoid")
        np.testing.assert_allclose(predictions.probabilities, archive.golden.probabilities, atol=TOLERANCE)
        one = client.predict(archive.golden.inputs[0], model=archive.model, version=archive.version)
        assert one.label == predictions[0].label
        assert (one.class_index is None) == predictions.independent
        assert list(one.probabilities.values()) == pytest.approx(
            archive.golden.probabilities[0].tolist(), abs=TOLERANCE
        )


def test_the_predictions_of_many_pieces_are_in_order(client, image_archives):
    for archive in image_archives:
        golden = archive.golden
        order = np.random.default_rng(0).integers(len(golden.inputs), size=5000)
        predictions = client.predict(golden.inputs[order], model=archive.model)
        np.testing.assert_allclose(predictions.probabilities, golden.probabilities[order], atol=TOLERANCE)


def test_each_form_of_an_image(client, image_archives, tmp_path):
    archive = image_archives[0]
    pixels = archive.golden.inputs[0].astype(np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "image.png")
    forms = [picture, tmp_path / "image.png", (tmp_path / "image.png").read_bytes(), pixels, pixels.tobytes()]
    for prediction in client.predict(forms, model=archive.model, top_k=3):
        assert prediction.class_index == archive.golden.probabilities[0].argmax()
        assert prediction.probability == pytest.approx(archive.golden.probabilities[0].max(), abs=TOLERANCE)
        assert len(prediction.probabilities) == 3


def test_explanations(client, image_archives):
    archive = image_archives[0]
    pixels = archive.golden.inputs[0].astype(np.uint8)
    explanation = client.explain(pixels, model=archive.model, target=archive.signature.output.labels[3])
    assert explanation.target == 3
    assert explanation.class_index == archive.golden.probabilities[0].argmax()
    assert explanation.attributions.shape == archive.signature.input.shape
    assert np.abs(explanation.attributions).max() > 0
    assert Image.open(io.BytesIO(client.heat_map(pixels, model=archive.model))).format == "PNG"


def test_problems_are_raised_as_errors(client, image_archives):
    model = image_archives[0].model
    with pytest.raises(RefusedError) as caught:
        client.predict(b"%PDF-1.7 nothing", model=model)
    assert caught.value.problem.status == 415
    assert caught.value.problem.detail
    with pytest.raises(RefusedError, match="top_k"):
        client.predict(bytes(784), model=model, top_k=1000)
    with pytest.raises(NotFoundError):
        client.predict(bytes(784), model="no-such-model")
    with pytest.raises(NotFoundError):
        client.predict(bytes(784), model=model, version="99.9")


def test_the_asynchronous_client_answers_the_same(gateway, client, image_archives):
    golden, model = image_archives[0].golden, image_archives[0].model

    async def call():
        async with AsyncFashionClient(gateway.url) as asynchronous:
            return await asynchronous.models(), await asynchronous.predict(golden.inputs, model=model)

    models, predictions = asyncio.run(call())
    assert models == client.models()
    np.testing.assert_allclose(predictions.probabilities, golden.probabilities, atol=TOLERANCE)


def test_the_command_line(gateway, image_archives, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FASHION_URL", gateway.url)
    golden, model = image_archives[0].golden, image_archives[0].model
    labels = image_archives[0].signature.output.labels
    expected = [labels[index] for index in golden.probabilities[:5].argmax(axis=1)]
    for index, pixels in enumerate(golden.inputs[:5]):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{index}.png")

    assert command.main(["predict", str(tmp_path / "0.png"), "--model", model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == expected[0]
    assert command.main(["predict", str(tmp_path), "--model", model]) == 0
    assert [row["label"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == expected
    assert command.main(["explain", str(tmp_path / "0.png"), "--model", model, "-o", str(tmp_path / "heat.png")]) == 0
    with Image.open(tmp_path / "heat.png") as heat_map:
        assert heat_map.format == "PNG"
    assert command.main(["models"]) == 0
    assert model in capsys.readouterr().out
    assert command.main(["predict", str(tmp_path / "0.png"), "--model", "no-such-model"]) == command.EXIT_REFUSED
    assert capsys.readouterr().err.count("\n") == 1
