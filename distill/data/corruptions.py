"""Images corrupted in six ways at five severities, in the manner of CIFAR-10-C (arXiv:1903.12261).

The severities are our own, and grow with the image where that matters, so figures do not compare with published ones.
Chance is keyed by the image's place in its data set and by nothing else: a pixel comes out the same in any batch and on
any number of threads. JPEG is that of the libjpeg inside Pillow.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image

from distill.data.streams import integers, raw_bits
from distill.results.corruptions import CORRUPTIONS, SEVERITIES

__all__ = ["CORRUPTIONS_VERSION", "corrupt"]

CORRUPTIONS_VERSION = 1  # of what comes out: stored results are of one version

# By severity, 1 to 5. Of blurs what is added to half a pixel (a pixel, of motion), in sides of the image.
_NOISE_STD = (0.04, 0.06, 0.08, 0.11, 0.15)
_DEFOCUS_RADIUS = (0.008, 0.014, 0.020, 0.030, 0.042)
_MOTION_LENGTH = (0.03, 0.055, 0.08, 0.12, 0.16)
_BRIGHTER_BY = (15, 31, 46, 61, 77)
_CONTRAST = (0.7, 0.5, 0.35, 0.25, 0.15)
_JPEG_QUALITY = (80, 60, 40, 25, 15)

_ANGLES = 16  # of motion, over half a turn
_ONE = 1 << 16  # what the whole numbers of a kernel add up to
_FINE = 16  # points that a pixel's side is divided into where kernels are made


def corrupt(images: np.ndarray, corruption: str, severity: int, *, index: np.ndarray) -> np.ndarray:
    """Corrupted copies of images.

    Args:
        corruption: One of ``CORRUPTIONS``.
        severity: 1 (slight) to 5.

    Shapes:
        images: ``(B, 3, S, S)`` uint8; index: ``(B,)``, each image's place in its data set.
        returns: as ``images``.

    Raises:
        ValueError: There is no such corruption or severity, or the shapes do not fit.
    """
    if corruption not in _CORRUPTERS or severity not in SEVERITIES:
        raise ValueError(f"no corruption {corruption!r} of severity {severity!r}")
    if images.dtype != np.uint8 or images.ndim != 4 or len(index) != len(images):
        raise ValueError(f"{images.dtype} images of shape {images.shape} and {len(index)} places do not fit")
    return _CORRUPTERS[corruption](images, severity - 1, np.asarray(index))


def _noise(images: np.ndarray, level: int, index: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri  # a second to import

    if len(images) == 0:
        return images.copy()
    words = np.stack([raw_bits(images[0].size, "gaussian_noise", int(place)) for place in index])
    middles = ((words >> np.uint64(11)) + 0.5) * 2.0**-53  # above 0, below 1
    noise = ndtri(middles).reshape(images.shape)  # one draw for all severities
    return _as_bytes(images + 255 * _NOISE_STD[level] * noise)


def _brightness(images: np.ndarray, level: int, _index: np.ndarray) -> np.ndarray:
    """Higher V of HSV at the same hue and saturation."""
    value = images.max(axis=1, keepdims=True).astype(np.int64)
    brighter = np.minimum(value + _BRIGHTER_BY[level], 255)
    scaled = images * brighter / np.maximum(value, 1)
    return _as_bytes(np.where(value == 0, brighter, scaled))


def _contrast(images: np.ndarray, level: int, _index: np.ndarray) -> np.ndarray:
    """Nearer to each channel's mean."""
    mean = images.sum(axis=(2, 3), keepdims=True, dtype=np.int64) / (images.shape[2] * images.shape[3])
    return _as_bytes(mean + _CONTRAST[level] * (images - mean))


def _jpeg(images: np.ndarray, level: int, _index: np.ndarray) -> np.ndarray:
    corrupted = np.empty_like(images)
    for place, image in enumerate(images):
        packed = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(
            packed, "JPEG", quality=_JPEG_QUALITY[level]
        )
        corrupted[place] = np.asarray(Image.open(packed)).transpose(2, 0, 1)
    return corrupted


def _defocus(images: np.ndarray, level: int, _index: np.ndarray) -> np.ndarray:
    return _filtered(images, _disk(0.5 + _DEFOCUS_RADIUS[level] * images.shape[-1]))


def _motion(images: np.ndarray, level: int, index: np.ndarray) -> np.ndarray:
    """Along a line through each pixel, in a direction of the image's own."""
    length = 1.0 + _MOTION_LENGTH[level] * images.shape[-1]
    angles = np.array([integers(1, _ANGLES, "motion_blur", int(place))[0] for place in index], dtype=np.int64)
    corrupted = np.empty_like(images)
    for angle in np.unique(angles):
        corrupted[angles == angle] = _filtered(images[angles == angle], _line(length, int(angle)))
    return corrupted


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# Kernels of whole numbers: their sums are exact in float64, in whichever order they are taken


def _filtered(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Every channel under a symmetric kernel, mirrored at its edges."""
    from scipy.ndimage import correlate

    sums = correlate(images.astype(np.float64), kernel[None, None].astype(np.float64), mode="reflect")
    return ((sums.astype(np.int64) + _ONE // 2) // _ONE).astype(np.uint8)


@lru_cache(maxsize=64)
def _disk(radius: float) -> np.ndarray:
    """How much of each pixel a disk covers."""
    half = math.ceil(radius - 0.5)
    middles = (np.arange((2 * half + 1) * _FINE) + 0.5) / _FINE - half - 0.5
    inside = (middles[:, None] ** 2 + middles[None, :] ** 2) <= radius**2
    side = 2 * half + 1
    return _whole(inside.reshape(side, _FINE, side, _FINE).sum(axis=(1, 3)))


@lru_cache(maxsize=256)
def _line(length: float, angle: int) -> np.ndarray:
    """A line of a pixel's width: points on it, each shared among the four pixels around it."""
    half = math.ceil(length / 2)
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    turn, points = math.pi * angle / _ANGLES, max(math.ceil(length * _FINE), 2)
    for point in range(points):
        along = ((point + 0.5) / points - 0.5) * length
        row, column = half - along * math.sin(turn), half + along * math.cos(turn)
        top, left = min(int(row), 2 * half - 1), min(int(column), 2 * half - 1)
        down, right = row - top, column - left
        kernel[top : top + 2, left : left + 2] += np.outer([1 - down, down], [1 - right, right])
    return _whole(kernel)


def _whole(weights: np.ndarray) -> np.ndarray:
    """The shares as whole numbers that add up to ``_ONE``; what rounding leaves is the centre's."""
    kernel = np.floor(weights / weights.sum() * _ONE + 0.5).astype(np.int64)
    kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] += _ONE - kernel.sum()
    return kernel


_CORRUPTERS: dict[str, Callable[[np.ndarray, int, np.ndarray], np.ndarray]] = {
    "gaussian_noise": _noise,
    "defocus_blur": _defocus,
    "motion_blur": _motion,
    "brightness": _brightness,
    "contrast": _contrast,
    "jpeg": _jpeg,
}
assert tuple(_CORRUPTERS) == CORRUPTIONS
