"""Explanations of an answer: how much each pixel or feature adds to one label's score.

Integrated gradients (Sundararajan, Taly, Yan 2017, "Axiomatic Attribution for Deep Networks", https://arxiv.org/abs/1703.01365),
by captum, from a black image or a zero vector (the baseline) to the input. One example's attributions add up to the
difference between the label's scores for the input and for the baseline.

Import this module only when an explanation is requested: captum takes most of a second to import.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from captum.attr import IntegratedGradients
from numpy.typing import NDArray

from handlers.inputs import images
from handlers.preparation import Preparation
from handlers.signature import Signature

# Points on the path from the baseline to the input; captum's default, and the paper's "20 to 300".
STEPS = 50
# Examples per call. captum runs STEPS inputs for each of them; batches of 250 fit into a CPU's cache.
CHUNK = 5

# The heat map's longer side: 10 times a data set picture's.
_SIDE_PX = 280
# The ends of ColorBrewer's red-blue scale, lightened for a dark background. Every kind of color vision can distinguish
# them.
FOR, AGAINST = (255, 84, 64), (64, 156, 255)


def explain(
    network: torch.nn.Module, inputs: torch.Tensor, targets: Sequence[int], signature: Signature
) -> NDArray[np.float32]:
    """Attribute the scores of ``targets`` to the values of ``inputs``.

    Args:
        network: returns scores [N, labels] and supports gradients of its inputs. TorchScript does, frozen or not, but
            not after ``torch.jit.optimize_for_inference``.
        inputs: prepared examples, float32 [N, *signature.input.network_shape], on the network's device.
        targets: for each example the index of the label to explain.
        signature: the model's contract.

    Returns:
        float32 [N, *signature.input.shape]: above 0 for a value in favor of the label, below 0 for one against it.
    """
    spec = signature.input
    method = IntegratedGradients(network)
    attributed = []
    # Tensors made in inference mode have no gradient, so each chunk is cloned outside it.
    with torch.inference_mode(False), torch.enable_grad():
        prepare = Preparation(spec, inputs.device)
        # Black, before padding and scaling.
        baseline = prepare(torch.zeros(1, *spec.shape))
        count = min(CHUNK, prepare.chunk)
        # With their gradients, that many inputs of large examples would take gigabytes at once.
        at_once = prepare.chunk if prepare.chunk < count * STEPS else None
        for start in range(0, len(inputs), count):
            chunk = inputs[start : start + count].clone()
            labels = torch.tensor(targets[start : start + count], device=inputs.device)
            attribution = method.attribute(
                chunk, baselines=baseline, target=labels, n_steps=STEPS, internal_batch_size=at_once
            )
            attributed.append(attribution.detach())
    attributions: NDArray[np.float32] = torch.cat(attributed).to("cpu", torch.float32).numpy()
    attributions = attributions.reshape(-1, *spec.padded_shape)
    if not spec.padding:
        return attributions
    inside = slice(spec.padding, -spec.padding)
    return np.ascontiguousarray(attributions[..., inside, inside])


def heat_map_png(image: NDArray[np.uint8], attribution: NDArray[np.float32]) -> bytes:
    """Draw an attribution over its image: red pixels are in favor of the label, blue ones against it.

    Args:
        image: uint8 [H, W], or [H, W, 3].
        attribution: float32 [H, W], or [3, H, W], of which the channels are added; the largest magnitude gets the full
            color.

    Returns:
        A PNG file of the image, enlarged by a whole factor to a longer side of about 280 pixels.
    """
    attribution = attribution.reshape(-1, *attribution.shape[-2:]).sum(0)
    largest = float(np.abs(attribution).max())
    strength = np.abs(attribution)[..., np.newaxis] / (largest or 1.0)
    color = np.where(attribution[..., np.newaxis] > 0, FOR, AGAINST)
    # At half the brightness, the colors stand out.
    background = image.reshape(*attribution.shape, -1) / 2
    blended = np.rint(background * (1 - strength) + color * strength).astype(np.uint8)
    factor = max(1, _SIDE_PX // max(attribution.shape))
    return images.encode(blended.repeat(factor, 0).repeat(factor, 1))
