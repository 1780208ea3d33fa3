"""Drawing how an image looks, beside where it is cut: jittered colours, grey, blurred."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distill.data import streams
from distill.data.colour import BLUR_BITS, FACTOR_BITS, HUE_BITS
from distill.data.operations import draw_operations, operation_columns
from distill.recipe.augmentation import AugmentSpec, JitterSpec

if TYPE_CHECKING:
    from distill.data.views import View

__all__ = ["draw_looks", "look_columns"]

_SIGMA_UNIT = 2.0**-8  # of pixels


def draw_looks(augment: AugmentSpec, n: int, image_size: int, key: tuple[int | str, ...]) -> dict[str, np.ndarray]:
    """The choices of a view that change pixels where they are; what is off is absent.

    Shapes:
        operation, strength: As :func:`distill.data.operations.draw_operations` gives them.
        jitter_order: ``(n, 4)`` int64, what is done first, second ...: 0 brightness, 1 contrast, 2 saturation, 3 hue.
        jitter: ``(n, 4)`` float32 factor of brightness, contrast, saturation; shift of hue; 1, 1, 1, 0 does nothing.
        grayscale: ``(n,)`` bool.
        blur: ``(n,)`` float32 width of the blur in pixels; 0: none.
    """
    choices: dict[str, np.ndarray] = {}
    if augment.automatic is not None:
        choices |= draw_operations(augment.automatic, n, image_size, key)
    if augment.jitter.is_on:
        choices |= _jitter(augment.jitter, n, key)
    if augment.grayscale:
        choices["grayscale"] = streams.uniform(n, *key, "grayscale") < augment.grayscale
    if augment.blur.probability:
        narrow, wide = augment.blur.sigma
        sigma = narrow + (wide - narrow) * streams.uniform(n, *key, "blur_sigma")
        chosen = streams.uniform(n, *key, "blur") < augment.blur.probability
        # At least a unit: 0 is an image that is left alone.
        width = np.maximum(streams.quantized(sigma, _SIGMA_UNIT), _SIGMA_UNIT)
        choices["blur"] = np.where(chosen, width, 0).astype(np.float32)
    return choices


def _jitter(spec: JitterSpec, n: int, key: tuple[int | str, ...]) -> dict[str, np.ndarray]:
    order = np.argsort([streams.raw_bits(n, *key, "jitter_order", place) for place in range(4)], axis=0, kind="stable")
    columns = []
    for name in ("brightness", "contrast", "saturation"):
        reach = getattr(spec, name)
        low, high = max(0.0, 1 - reach), 1 + reach
        columns.append(low + (high - low) * streams.uniform(n, *key, name))
    columns.append((2 * streams.uniform(n, *key, "hue") - 1) * spec.hue)
    still = streams.uniform(n, *key, "jitter") >= spec.probability
    drawn = streams.quantized(np.stack(columns, axis=1), 2.0**-FACTOR_BITS)
    drawn[still] = (1, 1, 1, 0)
    return {"jitter_order": order.T.copy(), "jitter": drawn.astype(np.float32)}


def look_columns(view: View) -> dict[str, np.ndarray]:
    """The same choices as int64 columns for the device; exponentials are worked out here, on the CPU."""
    columns: dict[str, np.ndarray] = {}
    if view.operation is not None and view.strength is not None:
        for slot in range(view.operation.shape[1]):
            columns |= operation_columns(view.operation[:, slot], view.strength[:, slot], view.image_size, slot)
    if view.jitter_order is not None and view.jitter is not None:
        columns |= _jitter_columns(view.jitter_order, view.jitter.astype(np.float64))
    if view.grayscale is not None:
        columns["grayscale"] = view.grayscale.astype(np.int64)
    if view.blur is not None:
        weights = _blur_weights(view.blur.astype(np.float64), view.blur_side)
        columns |= {f"blur_{distance}": each for distance, each in enumerate(weights)}
    return columns


def _jitter_columns(order: np.ndarray, jitter: np.ndarray) -> dict[str, np.ndarray]:
    """For each place in the order: which tone, its factor, and how far hues turn; what is not its turn does nothing."""
    columns = {}
    changing = [kind for kind in range(4) if (jitter[:, kind] != (kind < 3)).any()]
    for place in range(4):
        kind = order[:, place]
        value = np.take_along_axis(jitter, kind[:, None], axis=1)[:, 0]
        if set(changing) & {0, 1, 2}:
            columns[f"jitter_tone_{place}"] = np.where(kind == 3, 0, kind)
            columns[f"jitter_factor_{place}"] = np.where(kind == 3, 1, value) * 2**FACTOR_BITS
        if 3 in changing:
            columns[f"jitter_hue_{place}"] = np.where(kind == 3, value, 0) * 6 * 2**HUE_BITS
    return {name: np.rint(column).astype(np.int64) for name, column in columns.items()}


def _blur_weights(sigma: np.ndarray, side: int) -> np.ndarray:
    """A Gaussian's weights at distances 0 to ``side // 2``, in units of ``2**-BLUR_BITS``: they add up to 1 exactly.

    Shapes:
        returns: ``(side // 2 + 1, n)`` int64; 1, 0, 0 ... where ``sigma`` is 0.
    """
    distance = np.arange(side // 2 + 1)[:, None]
    bell = np.exp(-(distance**2) / (2 * np.maximum(sigma, 1e-3) ** 2))
    whole = bell[0] + 2 * bell[1:].sum(axis=0)
    weights = np.rint(bell / whole * 2**BLUR_BITS).astype(np.int64)
    weights[0] = 2**BLUR_BITS - 2 * weights[1:].sum(axis=0)
    return weights
