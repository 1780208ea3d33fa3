"""The operations of RandAugment and TrivialAugment: which an image gets, how strong, and as integers to apply.

Ranges are those of torchvision's classes of these names. An image gets the same operation with the same strength
whatever its batch: both are part of its view.
"""

from __future__ import annotations

import numpy as np

from distill.data import streams
from distill.data.colour import (
    AUTO_CONTRAST,
    BRIGHTNESS,
    CONTRAST,
    EQUALIZE,
    FACTOR_BITS,
    POSTERIZE,
    SATURATION,
    SOLARIZE,
)
from distill.data.geometry import TURN_BITS
from distill.recipe.augmentation import RandAugmentSpec, TrivialAugmentSpec

__all__ = ["OPERATIONS", "draw_operations", "operation_columns"]

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
)
_SIGNED = frozenset(OPERATIONS[1:10])
_TONES = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "color": SATURATION}
_TABLES = {"posterize": POSTERIZE, "solarize": SOLARIZE, "auto_contrast": AUTO_CONTRAST, "equalize": EQUALIZE}
_FACTOR_UNIT = 2.0**-FACTOR_BITS
_FINE_UNIT = 2.0**-8  # of degrees, and of levels


def draw_operations(
    spec: RandAugmentSpec | TrivialAugmentSpec, n: int, image_size: int, key: tuple[int | str, ...]
) -> dict[str, np.ndarray]:
    """One operation or several for each image, one after the other, and their signed strengths.

    Shapes:
        operation: ``(n, slots)`` int64, places in ``OPERATIONS``.
        strength: ``(n, slots)`` float32: degrees, whole pixels, tangents of shears, what is added to a factor of 1,
            bits that are kept, or the level from which on a channel is inverted; 0 where an operation has none.
    """
    table, signed = _strengths(spec, image_size), np.array([name in _SIGNED for name in OPERATIONS])
    chosen, strengths = [], []
    for slot in range(spec.operations if isinstance(spec, RandAugmentSpec) else 1):
        operation = streams.integers(n, len(OPERATIONS), *key, "operation", slot)
        if isinstance(spec, RandAugmentSpec):
            bins = np.full(n, spec.magnitude)
        else:
            bins = streams.integers(n, spec.bins, *key, "strength", slot)
        negative = (streams.uniform(n, *key, "sign", slot) < 0.5) & signed[operation]
        strength = table[operation, bins]
        chosen.append(operation)
        strengths.append(np.where(negative, -strength, strength))
    return {"operation": np.stack(chosen, axis=1), "strength": np.stack(strengths, axis=1).astype(np.float32)}


def _strengths(spec: RandAugmentSpec | TrivialAugmentSpec, image_size: int) -> np.ndarray:
    """Strengths by operation and bin, unsigned: float64 ``(operations, bins)``, exact in float32."""
    wide = isinstance(spec, TrivialAugmentSpec)
    step = np.arange(spec.bins) / (spec.bins - 1)
    shear, factor, turn, bits = (0.99, 0.99, 135.0, 6) if wide else (0.3, 0.9, 30.0, 4)
    shift = 32.0 if wide else 150 / 331 * image_size
    table = dict.fromkeys(OPERATIONS, np.zeros(spec.bins))
    table |= dict.fromkeys(("shear_x", "shear_y"), streams.quantized(shear * step, _FACTOR_UNIT))
    table |= dict.fromkeys(("translate_x", "translate_y"), np.floor(streams.quantized(shift * step, _FACTOR_UNIT)))
    table["rotate"] = streams.quantized(turn * step, _FINE_UNIT)
    toned = streams.quantized(factor * step, _FACTOR_UNIT)
    table |= dict.fromkeys(("brightness", "color", "contrast", "sharpness"), toned)
    table["posterize"] = np.rint(8 - bits * step)
    table["solarize"] = streams.quantized(255 * (1 - step), _FINE_UNIT)
    return np.stack([table[name] for name in OPERATIONS])


def operation_columns(operation: np.ndarray, strength: np.ndarray, image_size: int, slot: int) -> dict[str, np.ndarray]:
    """What slot ``slot`` does, as integers: each kind of operation with what leaves alone whom it does not concern.

    Args:
        operation: ``(n,)``; strength: ``(n,)`` of this slot.
    """
    strength = strength.astype(np.float64)
    of = {name: operation == place for place, name in enumerate(OPERATIONS)}
    tones = np.select([of[name] for name in _TONES], list(_TONES.values()), 0)
    tables = np.select([of[name] for name in _TABLES], list(_TABLES.values()), 0)
    toned = of["brightness"] | of["color"] | of["contrast"]
    columns = _moves(of, strength, image_size) | {
        "tone": tones,
        "toned": _factor(np.where(toned, strength, 0)),
        "sharpened": _factor(np.where(of["sharpness"], strength, 0)),
        "table": tables,
        "level": np.ceil(strength),
    }
    return {f"{name}_{slot}": column.astype(np.int64) for name, column in columns.items()}


def _factor(added: np.ndarray) -> np.ndarray:
    return np.rint((1 + added) / _FACTOR_UNIT)


def _moves(of: dict[str, np.ndarray], strength: np.ndarray, image_size: int) -> dict[str, np.ndarray]:
    """Where a pixel's value comes from, about the centre: ``x' = xx x + xy y + x0`` and the same for y.

    Shears are about the corner, as torchvision's. Shifts are in half pixels; all is in units of ``2**-TURN_BITS``.
    """
    unit = 2.0**TURN_BITS
    angle = np.deg2rad(np.where(of["rotate"], strength, 0))
    cosine, sine = np.rint(np.cos(angle) * unit), np.rint(np.sin(angle) * unit)
    shear_x, shear_y = (np.where(of[name], strength * unit, 0) for name in ("shear_x", "shear_y"))
    shift_x, shift_y = (np.where(of[name], strength * unit, 0) for name in ("translate_x", "translate_y"))
    return {
        "xx": cosine,
        "xy": shear_x - sine,
        "yx": shear_y + sine,
        "yy": cosine,
        "x0": shear_x * image_size - 2 * shift_x,
        "y0": shear_y * image_size - 2 * shift_y,
    }
