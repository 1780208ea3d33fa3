"""The fast network: whitened patches, identity at the start, exact sizes, and what its recipe's settings do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from distill.data.images import Split
from distill.models import Normalize, build_model, count_params
from distill.models.first_filters import fit_first_filters
from distill.recipe.optimization import SGD, Group
from distill.train.optim import parameter_groups
from students.fast import FirstFilters, fast, whitening_filters


def _images(n: int = 40, side: int = 12) -> torch.Tensor:
    """Neighbouring pixels alike, as in pictures, with channels that differ in strength."""
    noise = np.random.default_rng(0).standard_normal((n, 3, side + 2, side + 2))
    smooth = noise[:, :, :-2, :-2] + noise[:, :, 1:-1, :-2] + noise[:, :, 1:-1, 1:-1]
    return torch.from_numpy((smooth * np.array([0.5, 1.0, 2.0])[:, None, None]).astype(np.float32))


def test_whitened_patches_are_uncorrelated_and_of_variance_one() -> None:
    images = _images()
    answers = nn.functional.conv2d(images, whitening_filters(images, 2)).double()
    flat = answers.transpose(0, 1).flatten(1).numpy()
    np.testing.assert_allclose(flat @ flat.T / flat.shape[1], np.eye(12), atol=0.01)


def test_whitening_agrees_with_numpy() -> None:
    images = _images().double().numpy()
    patches = np.stack(
        [images[:, :, y : y + 2, x : x + 2].reshape(len(images), -1) for y in range(11) for x in range(11)], axis=1
    ).reshape(-1, 12)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    ours = whitening_filters(_images(), 2).flatten(1).numpy()
    for number, value in enumerate(values[::-1]):
        theirs = vectors[:, ::-1][:, number] / np.sqrt(value + 5e-4)
        np.testing.assert_allclose(np.abs(ours[number]), np.abs(theirs), rtol=1e-3, atol=1e-5)
        assert ours[number][np.abs(ours[number]).argmax()] > 0


def test_no_filter_answers_grey_pictures_with_nothing() -> None:
    """Batch norm behind one that did divided by nothing: its weights grew a thousandfold, and cuts kept just them."""
    grey = _images()[:, :1].expand(-1, 3, -1, -1)
    filters = whitening_filters(grey, 2)
    flat = nn.functional.conv2d(grey, filters).double().transpose(0, 1).flatten(1).numpy()
    moments = flat @ flat.T / flat.shape[1]
    np.testing.assert_allclose(np.diag(moments), 1.0, atol=0.01)
    np.testing.assert_allclose(moments[:4, :4], np.eye(4), atol=0.01)  # 4 numbers a patch that differ
    alike = np.abs(moments - np.eye(12))
    assert alike.max() < 0.999, "no two are one filter, or its negative"
    assert torch.isfinite(whitening_filters(torch.zeros(5, 3, 8, 8), 2)).all()


def test_convolutions_begin_as_the_identity() -> None:
    net = fast(num_classes=10)
    x = torch.randn(1, 24, 5, 5)
    first = net.stages[0][0](x)
    torch.testing.assert_close(first[:, :24], x)
    second = net.stages[1][-3]
    wide = torch.randn(1, 256, 5, 5)
    torch.testing.assert_close(second(wide), wide)


@pytest.mark.parametrize(
    ("channels", "convolutions", "classes", "params"),
    [
        # by hand: 24 biases; 9 times the products of neighbouring widths; a bias a channel of each norm; the classifier
        ((64, 256, 256), 2, 10, 24 + 9 * (24 * 64 + 64**2 + 64 * 256 + 3 * 256**2) + 2 * (64 + 256 + 256) + 2560),
        ((128, 384, 384), 2, 10, 24 + 9 * (24 * 128 + 128**2 + 128 * 384 + 3 * 384**2) + 2 * 896 + 3840),
        ((16,), 1, 7, 24 + 9 * 24 * 16 + 16 + 7 * 16),
    ],
)
def test_exact_sizes_below_the_budget(spec, channels, convolutions, classes, params) -> None:
    net = build_model(
        spec(source="students", name="fast", channels=list(channels), convolutions=convolutions), num_classes=classes
    )
    assert count_params(net) == params < 5_000_000


def test_the_first_filters_are_fitted_saved_and_never_learned(spec) -> None:
    net = build_model(spec(source="students", name="fast", channels=[8, 8]), num_classes=3, seed=1)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 3, 32, 32), dtype=np.uint8)
    split = Split(pixels, np.zeros(20, dtype=np.int64), index=np.arange(20))
    normalize = Normalize((0.5,) * 3, (0.25,) * 3, 32)
    before = net.stem[0].weight.clone()
    assert fit_first_filters(net, split, normalize)
    expected = whitening_filters(normalize(torch.from_numpy(pixels[:20])), 2)  # of the split's own images alone
    torch.testing.assert_close(net.stem[0].weight, torch.cat([expected, -expected]))
    assert not torch.equal(before, net.stem[0].weight)
    assert "stem.0.weight" in net.state_dict()
    assert "stem.0.weight" not in dict(net.named_parameters())
    assert not fit_first_filters(nn.Linear(2, 2), split, normalize)
    assert isinstance(net.stem[0], FirstFilters)


def test_an_image_that_is_halved_away_is_refused() -> None:
    with pytest.raises(ValueError, match="input_size 8 is too small for 3 stages"):
        fast(num_classes=10, input_size=8)


def test_the_biases_of_its_norms_are_a_group_of_their_own() -> None:
    net = fast(num_classes=10)
    spec = SGD(lr=0.5, weight_decay=0.01, decoupled_decay=True, groups=(Group(of="norm_bias", lr_scale=64.0),))
    plain, biases = parameter_groups(net, spec, head=(), stages=())
    assert (plain["lr"], biases["lr"]) == (0.5, 32.0)
    assert len(biases["params"]) == 6  # type: ignore[arg-type]
    assert biases["lr"] * biases["weight_decay"] == pytest.approx(plain["lr"] * plain["weight_decay"])  # type: ignore[operator]
