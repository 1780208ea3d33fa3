"""Augmentation against NumPy slicing, explicit loops, and torchvision; and the same bytes however it is asked."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from distill.data.augment import APPLIED_VERSION, apply_part, apply_view, device_view, images_needed
from distill.data.views import CUTMIX, MIXUP, UNMIXED, View, plan_view
from distill.recipe.schema import AugmentSpec

FILL = torch.tensor([10, 20, 30], dtype=torch.uint8)


def noise(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def shown(images: np.ndarray, view: View) -> np.ndarray:
    index = torch.arange(len(images))
    return apply_view(torch.from_numpy(images), index, device_view(view, "cpu"), FILL).numpy()


def each(*values: Any) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_crop_by_hand() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4).repeat(3, axis=1)
    view = View(n=1, image_size=4, padding=2, dy=each(0), dx=each(3))
    assert shown(image, view)[0, 0].tolist() == [[9, 10, 11, 10], [5, 6, 7, 6], [1, 2, 3, 2], [5, 6, 7, 6]]
    view = View(n=1, image_size=4, padding=2, border="zero", dy=each(1), dx=each(4))
    assert shown(image, view)[0, 2].tolist() == [[0, 0, 0, 0], [2, 3, 0, 0], [6, 7, 0, 0], [10, 11, 0, 0]]


@pytest.mark.parametrize(("border", "mode"), [("reflect", "reflect"), ("zero", "constant")])
@pytest.mark.parametrize(("size", "padding"), [(5, 2), (8, 7), (32, 4)])
def test_crops_and_flips_are_numpy_slices(border: str, mode: str, size: int, padding: int) -> None:
    images = noise(20, size)
    augment = AugmentSpec.model_validate({"crop_padding": padding, "crop_fill": border, "hflip": 0.5, "vflip": 0.5})
    view = plan_view(augment, n=20, image_size=size, view=1)
    padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)), mode=mode)
    result = shown(images, view)
    assert result.dtype == np.uint8
    for i in range(20):
        y, x = view.dy[i], view.dx[i]
        expected = padded[i, :, y : y + size, x : x + size]
        expected = np.flip(expected, 2) if view.hflip[i] else expected
        expected = np.flip(expected, 1) if view.vflip[i] else expected
        np.testing.assert_array_equal(result[i], expected)


@pytest.mark.parametrize("size", [4, 7])
@pytest.mark.parametrize(("angle", "turns"), [(0, 0), (90, 1), (180, 2), (-90, 3), (-180, 2)])
def test_quarter_turns_are_exact(size: int, angle: int, turns: int) -> None:
    images = noise(2, size)
    view = View(n=2, image_size=size, angle=np.full(2, angle, dtype=np.float32))
    np.testing.assert_array_equal(shown(images, view), np.rot90(images, turns, axes=(2, 3)))


@pytest.mark.parametrize("angle", [-170.0, -33.5, 7.25, 45.0, 100.0])
def test_rotation_agrees_with_torchvision(angle: float) -> None:
    images = noise(3, 16)
    view = View(n=3, image_size=16, border="zero", angle=np.full(3, angle, dtype=np.float32))
    expected = tv.rotate(torch.from_numpy(images).float(), angle, InterpolationMode.BILINEAR).numpy()
    # Positions are rounded to 1/256 pixel, which is up to one level on each axis between black and white.
    difference = shown(images, view).astype(np.float64) - expected
    assert np.abs(difference).max() < 3
    assert abs(difference.mean()) < 0.15  # rounded, not cut off


def test_rotation_reflects_what_lies_beyond_the_border() -> None:
    images = noise(1, 12)
    padded = np.pad(images, ((0, 0), (0, 0), (11, 11), (11, 11)), mode="reflect")
    view = View(n=1, image_size=12, angle=np.full(1, 30, dtype=np.float32))
    expected = tv.rotate(torch.from_numpy(padded).float(), 30, InterpolationMode.BILINEAR).numpy()[:, :, 11:-11, 11:-11]
    assert np.abs(shown(images, view).astype(np.float64) - expected).max() < 3


def test_resized_crop_of_everything_changes_nothing() -> None:
    images = noise(3, 9)
    view = View(n=3, image_size=9, crop=np.tile(each(0, 0, 9 * 256, 9 * 256), (3, 1)))
    np.testing.assert_array_equal(shown(images, view), images)


def test_resized_crop_agrees_with_interpolation() -> None:
    images = noise(1, 16)
    view = View(n=1, image_size=16, crop=each(4, 2, 8, 12)[None] * 256, hflip=np.array([True]))
    crop = torch.from_numpy(images[:, :, 4:12, 2:14]).float()
    expected = torch.nn.functional.interpolate(crop, size=16, mode="bilinear").flip(-1).numpy()
    inner = np.s_[:, :, 2:-2, 2:-2]  # beyond the crop's edge ours sees the image itself
    assert np.abs(shown(images, view)[inner].astype(np.float64) - expected[inner]).max() < 2


def test_erasing_is_a_loop_over_pixels() -> None:
    images = noise(40, 8)
    augment = AugmentSpec.model_validate({"erase": {"size": 5, "probability": 0.7}})
    view = plan_view(augment, n=40, image_size=8, view=0)
    result = shown(images, view)
    for i in range(40):
        for y in range(8):
            for x in range(8):
                erased = 0 <= y - view.erase_y[i] < 5 and 0 <= x - view.erase_x[i] < 5
                assert result[i, :, y, x].tolist() == (FILL.tolist() if erased else images[i, :, y, x].tolist())
    assert (result[view.erase_y == -5] == images[view.erase_y == -5]).all()


def test_cutmix_is_a_loop_over_pixels() -> None:
    images = noise(30, 8)
    view = plan_view(AugmentSpec.model_validate({"cutmix": {"alpha": 1.0}, "hflip": 0.5}), n=30, image_size=8, view=0)
    looks = np.where(view.hflip[:, None, None, None], images[..., ::-1], images)
    result = shown(images, view)
    assert result.dtype == np.uint8
    for i, (top, left, bottom, right) in enumerate(view.box.tolist()):
        for y in range(8):
            for x in range(8):
                source = view.partner[i] if top <= y < bottom and left <= x < right else i
                assert result[i, :, y, x].tolist() == looks[source, :, y, x].tolist()


def test_mixup_is_exact() -> None:
    images = noise(30, 8)
    augment = AugmentSpec.model_validate({"mixup": {"alpha": 0.3}, "hflip": 0.5, "erase": {"size": 3}})
    view = plan_view(augment, n=30, image_size=8, view=0)
    plain = plan_view(augment.model_copy(update={"mixup": AugmentSpec().mixup}), n=30, image_size=8, view=0)
    looks = shown(images, plain).astype(np.float64)  # partners are mixed in as they look in this view
    share = view.mix_weight.astype(np.float64)[:, None, None, None]
    result = shown(images, view)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result.astype(np.float64), share * looks + (1 - share) * looks[view.partner])


def test_mixup_and_cutmix_each_have_their_images() -> None:
    images = noise(60, 8)
    augment = AugmentSpec.model_validate(
        {"mixup": {"alpha": 1.0, "probability": 0.6}, "cutmix": {"alpha": 1.0, "probability": 0.6}}
    )
    view = plan_view(augment, n=60, image_size=8, view=0)
    result = shown(images, view)
    assert set(view.mix_kind.tolist()) == {UNMIXED, MIXUP, CUTMIX}
    for i in range(60):
        own, other = images[i].astype(np.float64), images[view.partner[i]].astype(np.float64)
        share = view.mix_weight[i].astype(np.float64)
        if view.mix_kind[i] == MIXUP:
            np.testing.assert_array_equal(result[i], share * own + (1 - share) * other)
        else:
            top, left, bottom, right = view.box[i]
            own[:, top:bottom, left:right] = other[:, top:bottom, left:right]
            np.testing.assert_array_equal(result[i], own)
            assert share == 1 - (bottom - top) * (right - left) / 64


@st.composite
def augmentations(draw: st.DrawFn) -> AugmentSpec:
    chance = st.sampled_from([0.0, 0.5, 1.0])
    mix = st.fixed_dictionaries({"alpha": st.sampled_from([0.0, 0.4, 1.0]), "probability": chance})
    return AugmentSpec.model_validate(
        {
            **draw(st.sampled_from([{}, {"crop_padding": 3}, {"resized_crop": {}}])),
            "crop_fill": draw(st.sampled_from(["reflect", "zero"])),
            "hflip": draw(chance),
            "vflip": draw(chance),
            "rotation": draw(st.sampled_from([0.0, 20.0, 180.0])),
            "erase": {"size": draw(st.sampled_from([0, 5])), "probability": draw(chance)},
            **draw(st.sampled_from([{}, {"rand_augment": {}}, {"trivial_augment": {"fill": "mean"}}])),
            "jitter": draw(st.sampled_from([{}, {"hue": 0.2}, {"contrast": 0.5, "hue": 0.1, "probability": 0.5}])),
            "grayscale": draw(chance),
            "blur": {"probability": draw(chance), "kernel": draw(st.sampled_from([None, 7]))},
            "mixup": draw(mix),
            "cutmix": draw(mix),
        }
    )


@given(augment=augmentations(), batch=st.integers(1, 24), size=st.sampled_from([8, 11]))
@settings(max_examples=60, deadline=None)
def test_same_bytes_for_any_batch_and_any_place(augment: AugmentSpec, batch: int, size: int) -> None:
    images = torch.from_numpy(noise(24, size))
    view = device_view(plan_view(augment, n=24, image_size=size, view=0), "cpu")
    whole = apply_view(images, torch.arange(24), view, FILL)
    assert whole.shape == images.shape
    assert whole.is_contiguous()
    assert whole.dtype == (torch.float32 if augment.mixup.alpha else torch.uint8)
    for index in torch.randperm(24, generator=torch.Generator().manual_seed(batch)).split(batch):
        part = apply_view(images, index, view, FILL)
        needed = images_needed(view, index)
        gathered = apply_part(images[needed], torch.arange(len(needed)), view.take(needed), FILL)
        assert torch.equal(part, whole[index])
        assert torch.equal(gathered, part)


@pytest.mark.gpu
@given(augment=augmentations())
@settings(max_examples=30, deadline=None)
def test_same_bytes_on_cuda(augment: AugmentSpec) -> None:
    images, index = torch.from_numpy(noise(24, 11)), torch.arange(24)
    view = plan_view(augment, n=24, image_size=11, view=0)
    here = apply_view(images, index, device_view(view, "cpu"), FILL)
    there = apply_view(images.cuda(), index.cuda(), device_view(view, "cuda"), FILL.cuda())
    assert torch.equal(there.cpu(), here)


def test_nothing_to_do_copies() -> None:
    images = noise(3, 8)
    result = shown(images, View(n=3, image_size=8))
    np.testing.assert_array_equal(result, images)
    assert not np.shares_memory(result, images)


def test_images_are_left_alone() -> None:
    images = noise(12, 8)
    before = images.copy()
    everything = {
        "crop_padding": 2,
        "crop_fill": "zero",
        "rotation": 9.0,
        "erase": {"size": 3},
        "mixup": {"alpha": 1.0},
    }
    shown(images, plan_view(AugmentSpec.model_validate(everything), n=12, image_size=8, view=0))
    np.testing.assert_array_equal(images, before)


def _everything() -> list[View]:
    """Views written out, not drawn: every choice there is, at places that round."""
    n, size = 4, 9
    common = {"hflip": np.array([0, 1, 0, 1], dtype=bool), "vflip": np.array([0, 0, 1, 1], dtype=bool)}
    erased = {"erase_size": 4, "erase_y": each(-4, 0, 3, 7), "erase_x": each(-4, 1, -2, 6)}
    mixed = {
        "partner": each(2, 0, 3, 1),
        "mix_kind": each(MIXUP, CUTMIX, UNMIXED, MIXUP),
        "mix_weight": np.array([0.25, 0.5, 1, 0.6875], dtype=np.float32),
        "mixup_share": np.array([0.25, 1, 1, 0.6875], dtype=np.float32),
        "box": np.array([[0] * 4, [1, 2, 6, 8], [0] * 4, [0] * 4], dtype=np.int64),
    }
    crops = [
        {"padding": 2, "border": border, "dy": each(0, 1, 4, 2), "dx": each(3, 2, 0, 4)}
        for border in ("reflect", "zero")
    ]
    boxes = np.array([[0, 0, 2304, 2304], [100, 37, 777, 1500], [511, 640, 1280, 333], [3, 2, 2000, 2301]])
    turned = {"angle": np.array([0, 7.25, -33.5, 180], dtype=np.float32)}
    return [
        *(View(n=n, image_size=size, **crop, **common, **erased, **mixed) for crop in crops),
        *(View(n=n, image_size=size, **crop, **turned) for crop in crops),
        View(n=n, image_size=size, crop=boxes.astype(np.int64), **common),
    ]


# Only with another APPLIED_VERSION may this change: banks made before hold answers about the old pixels.
APPLIED = {1: "350fb879c4b9c19b0b99601a922610e49fb0ebf9460ec6bb0cf80633e67696e8"}


def test_what_a_plan_makes_of_pixels_has_a_version() -> None:
    digest = hashlib.sha256()
    for view in _everything():
        digest.update(shown(noise(4, 9), view).tobytes())
    assert APPLIED[APPLIED_VERSION] == digest.hexdigest()
