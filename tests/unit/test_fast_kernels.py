"""Whoever is measured runs the kernels that cuDNN found fastest, and deterministic ones where those are asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from distill.data.splits import load_splits
from distill.devices import deterministic_kernels, fast_kernels
from distill.evaluation import assess, latency
from distill.evaluation.assess import assess_classifier
from distill.models.classifier import Classifier
from distill.pipeline import banks
from distill.pipeline.context import Context
from distill.recipe import load_recipe

CUDA = torch.device("cuda", 0)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether cuDNN was trying out, each time something was asked; the device is pretended."""
    found: list[bool] = []
    for module in (latency, assess):
        monkeypatch.setattr(module, "fast_kernels", lambda _device: fast_kernels(CUDA))
    assert not torch.backends.cudnn.benchmark
    yield found
    assert not torch.backends.cudnn.benchmark


def test_an_evaluation(seen: list[bool]) -> None:
    splits = load_splits(load_recipe("quickstart_scratch", ["data={name: synthetic, limit: 20, test_limit: 20}"]).data)

    def logits(pixels: Tensor) -> Tensor:
        seen.append(torch.backends.cudnn.benchmark)
        return torch.zeros(len(pixels), len(splits.dataset.classes))

    model = SimpleNamespace(
        device=torch.device("cpu"),
        classes=tuple(splits.dataset.classes),
        logits=logits,
        name="a",
        place="a",
        runtime="torch fp32",
    )
    spec = load_recipe("quickstart_scratch").data
    assess_classifier(cast("Classifier", model), splits, spec)
    assert seen == [True]
    with deterministic_kernels(CUDA, True):
        assess_classifier(cast("Classifier", model), splits, spec)
    assert seen == [True, False]


def test_latency(seen: list[bool]) -> None:
    def forward(images: Tensor) -> Tensor:
        seen.append(torch.backends.cudnn.benchmark)
        return images

    latency.measure_latency({"a": forward}, {"a": (3, 4, 4)}, device=torch.device("cpu"), rounds=2, warmup=1)
    assert set(seen) == {True}


@pytest.mark.parametrize("deterministic", [False, True])
def test_building_a_bank(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool]] = []

    def built(*_args: Any, **_named: Any) -> None:
        seen.append((torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()))

    monkeypatch.setattr(banks, "_built", built)
    recipe = load_recipe("r18_small", [f"train.deterministic={str(deterministic).lower()}"])
    context = cast("Context", dataclasses.make_dataclass("C", ["recipe"])(recipe))
    banks._build(cast("Any", SimpleNamespace(device=CUDA, global_rank=0, world_size=1)), context, views=1, path=None)
    assert seen == [(not deterministic, deterministic)]
