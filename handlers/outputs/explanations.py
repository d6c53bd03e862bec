"""Why a model answered as it did: how much each pixel or feature adds to one label's score.

Integrated gradients (Sundararajan, Taly, Yan 2017, "Axiomatic Attribution for Deep Networks", https://arxiv.org/abs/1703.01365),
by captum, from a black image or a zero vector to the input. The attributions of one example add up to the difference of
the label's score between the two.

Import this module where an explanation is asked for and not before: captum takes most of a second to import.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from captum.attr import IntegratedGradients
from numpy.typing import NDArray

from handlers.inputs import images
from handlers.signature import Signature

# Points on the path from the baseline to the input; captum's default, and the paper's "20 to 300".
STEPS = 50
# Examples that go through the network at once are these times STEPS: about the batch that a CPU's cache likes.
CHUNK = 5

# The heat map's longer side.
SIDE = 280
# The ends of ColorBrewer's red-blue scale, lightened for a dark ground; told apart by every kind of colour vision.
FOR, AGAINST = (255, 84, 64), (64, 156, 255)


def explain(
    network: torch.nn.Module, inputs: torch.Tensor, targets: Sequence[int], signature: Signature
) -> NDArray[np.float32]:
    """Attribute the scores of ``targets`` to the values of ``inputs``.

    Args:
        network: gives scores [N, labels] and gradients of its inputs. TorchScript does, frozen or not; after
            ``torch.jit.optimize_for_inference`` it no longer does.
        inputs: prepared examples, float32 [N, *signature.input.network_shape], on the network's device.
        targets: for each example the index of the label to explain.
        signature: the model's contract.

    Returns:
        float32 [N, *signature.input.shape]: above 0 where a value speaks for the label, below 0 where against it.
    """
    # The baseline is black before scaling, so it is the bias after it.
    method, baseline = IntegratedGradients(network), signature.input.bias
    found = []
    # What is made in inference mode has no gradient; the clone is made outside it.
    with torch.inference_mode(False), torch.enable_grad():
        for start in range(0, len(inputs), CHUNK):
            chunk = inputs[start : start + CHUNK].clone()
            wanted = torch.tensor(targets[start : start + CHUNK], device=inputs.device)
            found.append(method.attribute(chunk, baselines=baseline, target=wanted, n_steps=STEPS).detach())
    attributions: NDArray[np.float32] = torch.cat(found).to("cpu", torch.float32).numpy()
    padding = signature.input.padding
    attributions = attributions.reshape(-1, *(length + 2 * padding for length in signature.input.shape))
    return np.ascontiguousarray(attributions[:, padding:-padding, padding:-padding]) if padding else attributions


def heat_map_png(image: NDArray[np.uint8], attribution: NDArray[np.float32]) -> bytes:
    """Draw an attribution over its image: red pixels speak for the label, blue ones against it.

    Args:
        image: uint8 [H, W].
        attribution: float32 [H, W]; its largest magnitude gets the full colour.

    Returns:
        A PNG file of the image, enlarged by a whole factor to a longer side of about ``SIDE`` pixels.
    """
    largest = float(np.abs(attribution).max())
    strength = np.abs(attribution)[..., np.newaxis] / (largest or 1.0)
    colour = np.where(attribution[..., np.newaxis] > 0, FOR, AGAINST)
    # Half the brightness leaves room for the colours.
    ground = image[..., np.newaxis] / 2
    drawn = np.rint(ground * (1 - strength) + colour * strength).astype(np.uint8)
    factor = max(1, SIDE // max(image.shape))
    return images.encode(drawn.repeat(factor, 0).repeat(factor, 1))
