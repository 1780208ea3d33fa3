"""Corrupted images: against SciPy, Pillow, matplotlib and torchvision, and the same bytes whoever asks for them."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image, ImageEnhance
from scipy import fft, stats

from distill.data import corruptions as corruptions_module
from distill.data.corruptions import corrupt
from distill.results.corruptions import CORRUPTIONS, SEVERITIES

GENERATOR = np.random.default_rng(0)
SMOOTH = np.kron(GENERATOR.integers(0, 256, (6, 3, 8, 8)), np.ones((1, 1, 4, 4))).astype(np.uint8)  # 32 pixels wide
PLACES = np.array([0, 7, 3, 9999, 12, 5])
LUMINANCE = np.array(  # ITU-T T.81, table K.1
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
ALL = tuple(product(CORRUPTIONS, SEVERITIES))


def _corrupted(corruption: str, severity: int, images: np.ndarray = SMOOTH) -> np.ndarray:
    return corrupt(images, corruption, severity, index=PLACES[: len(images)])


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_is_normal_of_the_size_that_is_stated(severity: int) -> None:
    grey = np.full((6, 3, 48, 48), 128, dtype=np.uint8)
    noise = (_corrupted("gaussian_noise", severity, grey).astype(float) - 128).reshape(-1)
    std = 255 * (0.04, 0.06, 0.08, 0.11, 0.15)[severity - 1]
    assert noise.std() == pytest.approx(std, rel=0.02)
    assert abs(noise.mean()) < 4 * std / np.sqrt(noise.size)
    jittered = noise + GENERATOR.uniform(-0.5, 0.5, noise.size)  # rounding undone
    assert stats.kstest(jittered / std, "norm").pvalue > 1e-3
    images = noise.reshape(6, -1)
    assert np.abs(np.corrcoef(images) - np.eye(6)).max() < 0.1  # each image's own


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_is_the_mean_over_a_disk(severity: int) -> None:
    radius = 0.5 + 32 * (0.008, 0.014, 0.020, 0.030, 0.042)[severity - 1]
    points = np.arange(-4 + 1 / 128, 4, 1 / 64)  # 64 points a pixel
    y, x = np.meshgrid(points, points)
    inside = y**2 + x**2 <= radius**2
    kernel, _, _ = np.histogram2d(y[inside], x[inside], bins=np.arange(-4.5, 5), density=True)
    padded = np.pad(SMOOTH.astype(float), ((0, 0), (0, 0), (4, 4), (4, 4)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (9, 9), axis=(2, 3))
    expected = np.einsum("ncyxij,ij->ncyx", windows, kernel)
    assert np.abs(_corrupted("defocus_blur", severity) - expected).max() < 2.5


@pytest.mark.parametrize("severity", SEVERITIES)
def test_motion_spreads_a_point_along_a_line(severity: int) -> None:
    point = np.zeros((6, 3, 33, 33), dtype=np.uint8)
    point[:, :, 16, 16] = 255
    length = 1 + 33 * (0.03, 0.055, 0.08, 0.12, 0.16)[severity - 1]
    angles = set()
    for image in _corrupted("motion_blur", severity, point)[:, 0].astype(float):
        assert image.sum() == pytest.approx(255, abs=0.02 * 255 + 4)
        places = np.argwhere(image > 0) - 16.0
        weights = image[image > 0] / image.sum()
        assert np.abs(weights @ places).max() < 0.05  # it does not wander
        variance, axes = np.linalg.eigh((places * weights[:, None]).T @ places)
        assert variance[1] == pytest.approx(length**2 / 12, rel=0.25, abs=0.25)
        assert variance[0] < 0.35  # and is about a pixel wide
        angles.add(round(float(np.degrees(np.arctan2(*axes[:, 1])) % 180)))
    assert len(angles) > 2


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_is_more_value_of_hsv(severity: int) -> None:
    hsv = rgb_to_hsv(SMOOTH.transpose(0, 2, 3, 1) / 255)
    hsv[..., 2] = np.minimum(hsv[..., 2] + (15, 31, 46, 61, 77)[severity - 1] / 255, 1)
    expected = 255 * hsv_to_rgb(hsv).transpose(0, 3, 1, 2)
    assert np.abs(_corrupted("brightness", severity) - expected).max() < 0.5001
    black = np.zeros((1, 3, 4, 4), dtype=np.uint8)
    assert set(_corrupted("brightness", severity, black).flat) == {(15, 31, 46, 61, 77)[severity - 1]}


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_is_pillows(severity: int) -> None:
    for image in SMOOTH[:, :1]:
        grey = np.repeat(image, 3, axis=0)
        pillow = ImageEnhance.Contrast(Image.fromarray(image[0]))
        expected = np.asarray(pillow.enhance((0.7, 0.5, 0.35, 0.25, 0.15)[severity - 1]), dtype=float)
        found = corrupt(grey[None], "contrast", severity, index=np.zeros(1, dtype=int))[0]
        assert np.abs(found - expected).max() <= 1.5  # Pillow's mean is a whole number, and it cuts


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_is_the_standards_cosine_transform(severity: int) -> None:
    quality = (80, 60, 40, 25, 15)[severity - 1]
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = np.clip((LUMINANCE * scale + 50) // 100, 1, 255)
    image = GENERATOR.integers(40, 200, (1, 16, 16)) // 3 + SMOOTH[:1, 0, :16, :16] // 2
    blocks = image.reshape(2, 8, 2, 8).transpose(0, 2, 1, 3) - 128.0
    levels = np.rint(fft.dctn(blocks, axes=(2, 3), norm="ortho") / steps)
    grey = fft.idctn(levels * steps, axes=(2, 3), norm="ortho").transpose(0, 2, 1, 3).reshape(16, 16) + 128
    shown = np.repeat(image[:, None], 3, axis=1).astype(np.uint8)
    found = _corrupted("jpeg", severity, shown)[0].astype(float)
    assert np.abs(found - np.clip(grey, 0, 255)).mean() < 1.0
    assert np.abs(found - np.clip(grey, 0, 255)).mean() < np.abs(found - image).mean() / 4


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_higher_severity_is_further_from_the_image(corruption: str) -> None:
    textured = np.clip(SMOOTH.astype(int) + GENERATOR.integers(-20, 21, SMOOTH.shape), 0, 255).astype(np.uint8)
    away = [np.abs(_corrupted(corruption, level, textured).astype(float) - textured).mean() for level in SEVERITIES]
    assert away == sorted(away)
    assert away[0] > 1
    assert len(set(away)) == 5


@pytest.mark.parametrize(("corruption", "severity"), ALL)
def test_an_image_is_corrupted_the_same_alone_in_any_company_and_on_any_thread(corruption: str, severity: int) -> None:
    together = _corrupted(corruption, severity)
    order = np.array([4, 1, 5, 0, 3, 2])
    assert (corrupt(SMOOTH[order], corruption, severity, index=PLACES[order]) == together[order]).all()
    with ThreadPoolExecutor(6) as pool:
        alone = list(
            pool.map(lambda at: corrupt(SMOOTH[at : at + 1], corruption, severity, index=PLACES[at : at + 1]), range(6))
        )
    assert (np.concatenate(alone) == together).all()
    assert together.dtype == np.uint8
    assert SMOOTH.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("side", [4, 8, 31, 64])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_any_size_and_no_images(corruption: str, side: int) -> None:
    images = GENERATOR.integers(0, 256, (2, 3, side, side)).astype(np.uint8)
    assert corrupt(images, corruption, 5, index=np.arange(2)).shape == images.shape
    assert corrupt(images[:0], corruption, 5, index=np.arange(0)).shape == (0, 3, side, side)
    flat = np.full((1, 3, side, side), 200, dtype=np.uint8)
    if corruption in ("defocus_blur", "motion_blur", "contrast"):
        assert (corrupt(flat, corruption, 5, index=np.zeros(1, dtype=int)) == flat).all()


def test_the_bytes_of_version_1() -> None:
    """What is stored is of one version: other bytes need another number. JPEG is its library's."""
    digest = hashlib.sha256()
    for corruption, severity in ALL:
        if corruption != "jpeg":
            digest.update(corrupt(_steps(), corruption, severity, index=np.arange(4)).tobytes())
    assert (corruptions_module.CORRUPTIONS_VERSION, digest.hexdigest()[:16]) == (1, "d3969c7f0b763090")


def _steps() -> np.ndarray:
    return (np.arange(4 * 3 * 16 * 16, dtype=np.int64) * 37 % 251).astype(np.uint8).reshape(4, 3, 16, 16)


@pytest.mark.parametrize(("corruption", "severity"), [("fog", 1), ("jpeg", 0), ("jpeg", 6)])
def test_what_there_is_not_is_refused(corruption: str, severity: int) -> None:
    with pytest.raises(ValueError, match="no corruption"):
        _corrupted(corruption, severity)
    with pytest.raises(ValueError, match="do not fit"):
        corrupt(SMOOTH, "jpeg", 1, index=np.arange(2))
