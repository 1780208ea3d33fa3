"""The plan: literals, statistics, and what each choice may depend on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from distill.data import streams
from distill.data.views import (
    CUTMIX,
    MIXUP,
    UNMIXED,
    View,
    epoch_order,
    epoch_view,
    plan_view,
    table_view,
    view_checksum,
    views_of,
)
from distill.errors import RecipeError
from distill.recipe.schema import AugmentSpec

EVERYTHING: dict[str, Any] = {
    "crop_padding": 4,
    "hflip": 0.5,
    "vflip": 0.25,
    "rotation": 15.0,
    "erase": {"size": 8, "probability": 0.5},
    "mixup": {"alpha": 0.2, "probability": 0.75},
    "cutmix": {"alpha": 1.0, "probability": 0.5},
}

GOLDEN = {
    "dy": [7, 3, 4, 8],
    "dx": [3, 4, 8, 3],
    "hflip": [True, True, False, False],
    "vflip": [False, False, False, False],
    "angle": [11.38671875, -14.578125, -9.73828125, 14.51953125],
    "erase_y": [23, 0, -8, -8],
    "erase_x": [10, 7, -8, -8],
    "partner": [0, 1, 2, 3],
    "mix_kind": [0, 1, 1, 1],
    "mix_weight": [1.0, 0.999908447265625, 0.9842681884765625, 0.9998931884765625],
    "mixup_share": [1.0, 0.999908447265625, 0.9842681884765625, 0.9998931884765625],
    "box": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
}
GOLDEN_CROP = [[1536, 768, 6144, 7424], [512, 1024, 6912, 6656]]
GOLDEN_CHECKSUM = "6469c4f3cae115227545dbe8c4ac0dd85550a7656fac30c86ed62ef73ad30a69"
GOLDEN_ORDER = [5, 0, 4, 6, 1, 7, 3, 2]


def spec(**settings_: Any) -> AugmentSpec:
    return AugmentSpec.model_validate(settings_)


def planned(n: int = 4, view: int = 0, size: int = 32, **settings_: Any) -> View:
    return plan_view(spec(**settings_), n=n, image_size=size, view=view)


def arrays(view: View) -> dict[str, np.ndarray]:
    values = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def test_plan_never_drifts() -> None:
    view = planned(**EVERYTHING)
    assert {name: value.tolist() for name, value in arrays(view).items()} == GOLDEN
    assert planned(resized_crop={}, n=2).crop.tolist() == GOLDEN_CROP
    assert view_checksum(planned(n=1000, **EVERYTHING)) == GOLDEN_CHECKSUM
    assert epoch_order(0, 1, 8).tolist() == GOLDEN_ORDER


def test_dtypes_are_explicit() -> None:
    dtypes = {name: value.dtype.name for name, value in arrays(planned(**EVERYTHING)).items()}
    assert dtypes.pop("hflip") == dtypes.pop("vflip") == "bool"
    assert dtypes.pop("angle") == dtypes.pop("mix_weight") == dtypes.pop("mixup_share") == "float32"
    assert set(dtypes.values()) == {"int64"}
    assert planned(resized_crop={}).crop.dtype == np.int64


@pytest.mark.parametrize("left_out", list(EVERYTHING))
def test_one_augmentation_never_shifts_another(left_out: str) -> None:
    whole = arrays(planned(n=200, **EVERYTHING))
    others = {name: value for name, value in EVERYTHING.items() if name != left_out}
    shared = {"mix_kind", "mix_weight", "mixup_share", "box"} if left_out in {"mixup", "cutmix"} else set()
    for name, value in arrays(planned(n=200, **others)).items():
        if name not in shared:
            np.testing.assert_array_equal(value, whole[name], err_msg=name)


def test_mixing_both_keeps_what_each_draws_alone() -> None:
    both = planned(n=500, **EVERYTHING)
    mixup = planned(n=500, mixup=EVERYTHING["mixup"])
    cutmix = planned(n=500, cutmix=EVERYTHING["cutmix"])
    np.testing.assert_array_equal(both.partner, mixup.partner)
    np.testing.assert_array_equal(both.partner, cutmix.partner)
    mixed, cut = both.mix_kind == MIXUP, both.mix_kind == CUTMIX
    np.testing.assert_array_equal(both.mix_weight[mixed], mixup.mix_weight[mixed])
    np.testing.assert_array_equal(both.box[cut], cutmix.box[cut])
    assert (both.box[~cut] == 0).all()
    assert (both.mixup_share[~mixed] == 1).all()
    assert (both.mix_weight[both.mix_kind == UNMIXED] == 1).all()


@given(n=st.integers(1, 60), more=st.integers(0, 60))
@settings(max_examples=20, deadline=None)
def test_a_choice_depends_on_its_image_alone(n: int, more: int) -> None:
    few, many = arrays(planned(n=n, **EVERYTHING)), arrays(planned(n=n + more, **EVERYTHING))
    assert sorted(few.pop("partner").tolist()) == list(range(n))  # the one choice that sees the whole split
    for name, value in few.items():
        np.testing.assert_array_equal(value, many[name][:n], err_msg=name)


def test_views_and_seeds_differ() -> None:
    checksums = {
        view_checksum(planned(n=50, view=view, view_seed=seed, **EVERYTHING)) for view in range(3) for seed in range(3)
    }
    assert len(checksums) == 9


def test_checksum_sees_settings_and_each_array() -> None:
    view = planned(n=50, **EVERYTHING)
    changed = [dataclasses.replace(view, **{name: value[::-1]}) for name, value in arrays(view).items()]
    changed += [dataclasses.replace(view, border="zero"), dataclasses.replace(view, erase_size=9)]
    assert len({view_checksum(each) for each in [view, *changed]}) == len(changed) + 1
    assert view_checksum(planned(n=50, **EVERYTHING)) == view_checksum(view)


def test_off_is_none() -> None:
    assert arrays(planned()) == {}
    assert set(arrays(planned(crop_padding=2))) == {"dy", "dx"}
    assert planned(mixup={"alpha": 1.0}).box is None
    assert planned(cutmix={"alpha": 1.0}).mixup_share is None


def test_ranges_and_frequencies() -> None:
    view = planned(n=8000, **EVERYTHING)
    assert set(view.dy.tolist()) == set(view.dx.tolist()) == set(range(9))
    assert abs(view.hflip.mean() - 0.5) < 0.03
    assert abs(view.vflip.mean() - 0.25) < 0.03
    assert np.abs(view.angle).max() <= 15
    assert abs(view.angle.mean()) < 0.5
    erased = view.erase_y != -8
    assert abs(erased.mean() - 0.5) < 0.03
    assert np.array_equal(erased, view.erase_x != -8)
    assert set(view.erase_y[erased].tolist()) == set(range(-4, 28))
    shares = np.bincount(view.mix_kind, minlength=3) / 8000
    np.testing.assert_allclose(shares, [0.5 * 0.25 + 0.5 * 0.5, 0.5 * 0.75, 0.5 * 0.5], atol=0.03)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_weights_are_beta(alpha: float) -> None:
    weight = planned(n=20_000, mixup={"alpha": alpha}).mix_weight.astype(np.float64)
    assert abs(weight.mean() - 0.5) < 0.01
    assert abs(weight.var() - 1 / (4 * (2 * alpha + 1))) < 0.005
    np.testing.assert_array_equal(weight * 2**16, np.rint(weight * 2**16))


def test_mixup_weight_is_the_rounded_inverse_of_the_beta_distribution() -> None:
    special = pytest.importorskip("scipy.special")

    draws = streams.uniform(500, "view", 0, 0, "mixup_weight")
    expected = np.rint(special.betaincinv(0.4, 0.4, draws) * 2**16) / 2**16
    np.testing.assert_array_equal(planned(n=500, mixup={"alpha": 0.4}).mix_weight, expected)


def test_cutmix_weight_is_what_is_left_of_the_image() -> None:
    view = planned(n=300, size=16, cutmix={"alpha": 1.0})
    for (top, left, bottom, right), weight in zip(view.box.tolist(), view.mix_weight.tolist(), strict=True):
        own = sum(not (top <= y < bottom and left <= x < right) for y in range(16) for x in range(16))
        assert weight == own / 256
        assert 0 <= top <= bottom <= 16
        assert 0 <= left <= right <= 16


def torchvision_crops(count: int, size: int, scale: tuple[float, float], ratio: tuple[float, float]) -> np.ndarray:
    image = torch.zeros(1, size, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(count)]
    return np.array(drawn)


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [(32, (0.08, 1.0), (3 / 4, 4 / 3)), (64, (0.5, 1.0), (0.5, 2.0)), (32, (0.08, 0.09), (0.2, 5.0))],
)
def test_resized_crops_are_drawn_as_torchvisions(
    size: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    stats = pytest.importorskip("scipy.stats")

    theirs = torchvision_crops(3000, size, scale, ratio)
    ours = planned(n=20_000, size=size, resized_crop={"scale": scale, "ratio": ratio}).crop / 256
    np.testing.assert_array_equal(ours, np.rint(ours))
    for name, of in {
        "area": lambda box: box[:, 2] * box[:, 3],
        "aspect": lambda box: box[:, 3] / box[:, 2],
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
    }.items():
        assert stats.ks_2samp(of(theirs), of(ours)).pvalue > 0.01, name


@pytest.mark.parametrize("ratio", [(3.0, 4.0), (0.2, 0.3)])
def test_a_resized_crop_that_never_fits_is_cut_from_the_centre(ratio: tuple[float, float]) -> None:
    theirs = torchvision_crops(3, 33, (0.9, 1.0), ratio)
    ours = planned(n=3, size=33, resized_crop={"scale": (0.9, 1.0), "ratio": ratio}).crop / 256
    np.testing.assert_array_equal(ours, theirs)


def test_resized_crops_lie_within_the_image() -> None:
    for size in (8, 33):
        top, left, height, width = planned(n=5000, size=size, resized_crop={"scale": (0.001, 1.0)}).crop.T / 256
        assert min(top.min(), left.min()) == 0
        assert min(height.min(), width.min()) == 1
        assert (top + height).max() == (left + width).max() == size


@given(n=st.integers(1, 60), more=st.integers(0, 60))
@settings(max_examples=20, deadline=None)
def test_a_resized_crop_depends_on_its_image_alone(n: int, more: int) -> None:
    crop: dict[str, Any] = {"scale": (0.5, 1.0), "ratio": (0.5, 2.0)}  # half of the first tries do not fit
    few, many = planned(n=n, resized_crop=crop), planned(n=n + more, resized_crop=crop)
    np.testing.assert_array_equal(few.crop, many.crop[:n])


def test_views_of() -> None:
    assert views_of(spec(hflip=0.5), 30) == 30
    assert views_of(spec(hflip=0.5, views=7), 30) == 7
    assert views_of(spec(hflip=0.5, views=70), 30) == 30
    assert views_of(spec(), 30) == 1
    assert views_of(spec(views=5), 30) == 1
    assert views_of(spec(crop_padding=4, hflip=0.5, views="all"), 30) == 162
    assert views_of(spec(crop_padding=1, views="all"), 30) == 9


def test_epochs_repeat_views() -> None:
    augment = spec(crop_padding=4, views=3)
    seen = []
    for epoch in range(6):
        view, numbers = epoch_view(augment, n=20, image_size=32, epoch=epoch, train_seed=epoch, epochs=6)
        assert numbers.tolist() == [epoch % 3] * 20
        assert view_checksum(view) == view_checksum(plan_view(augment, n=20, image_size=32, view=epoch % 3))
        seen.append(view_checksum(view))
    assert seen[:3] == seen[3:]
    assert len(set(seen)) == 3


@pytest.mark.parametrize("hflip", [0.0, 0.5])
def test_table_enumerates_every_crop_and_flip_once(hflip: float) -> None:
    augment = spec(crop_padding=1, hflip=hflip, views="all")
    numbers = range(views_of(augment, 1))
    seen = []
    for number in numbers:
        view = table_view(augment, n=2, image_size=8, number=number)
        flips = [False, False] if view.hflip is None else view.hflip.tolist()
        assert len(set(zip(view.dy.tolist(), view.dx.tolist(), flips, strict=True))) == 1
        seen.append((view.dy[0].item(), view.dx[0].item(), flips[0]))
    every = [(y, x, flip) for y in range(3) for x in range(3) for flip in ([False, True] if hflip else [False])]
    assert seen == every


def test_epochs_of_the_table_draw_a_row_for_each_image() -> None:
    augment = spec(crop_padding=1, hflip=0.5, views="all")
    view, numbers = epoch_view(augment, n=2000, image_size=8, epoch=3, train_seed=5, epochs=10)
    assert set(numbers.tolist()) == set(range(18))
    for number in (0, 7, 17):
        table = table_view(augment, n=2000, image_size=8, number=number)
        for name in ("dy", "dx", "hflip"):
            chosen = numbers == number
            np.testing.assert_array_equal(getattr(view, name)[chosen], getattr(table, name)[chosen])
    _, other = epoch_view(augment, n=2000, image_size=8, epoch=4, train_seed=5, epochs=10)
    assert not np.array_equal(numbers, other)


def test_order_is_a_new_permutation_each_epoch() -> None:
    orders = [epoch_order(seed, epoch, 100) for seed in range(2) for epoch in range(2)]
    assert all(sorted(order.tolist()) == list(range(100)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 4


def test_impossible_crops_are_named() -> None:
    with pytest.raises(ValueError, match="two ways to crop"):
        planned(crop_padding=4, resized_crop={})
    with pytest.raises(RecipeError, match=r"augment\.crop_padding: 8 cannot be reflected in an image of 8 pixels"):
        planned(crop_padding=8, size=8)
    assert planned(crop_padding=8, size=8, crop_fill="zero").dy is not None


def test_alternating_flips_turn_every_image_in_every_view() -> None:
    augment = AugmentSpec(hflip=0.5, hflip_alternates=True)
    flips = [plan_view(augment, n=2_000, image_size=32, view=view).hflip for view in range(4)]
    np.testing.assert_array_equal(flips[1], ~flips[0])
    np.testing.assert_array_equal(flips[2], flips[0])
    np.testing.assert_array_equal(flips[3], flips[1])
    assert abs(flips[0].mean() - 0.5) < 0.05
    np.testing.assert_array_equal(flips[0], plan_view(AugmentSpec(hflip=0.5), n=2_000, image_size=32, view=0).hflip)
