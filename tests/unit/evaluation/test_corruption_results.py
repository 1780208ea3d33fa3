"""Accuracy under corruptions: asked once, counted by hand, kept as it goes, and held against another model's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from distill.data.corruptions import corrupt
from distill.errors import DataError, RunError, UsageError
from distill.evaluation.assess import DatasetCache
from distill.evaluation.corruptions import against, measure_corruptions
from distill.evaluation.stored import Seal
from distill.evaluation.target import EvaluationTarget
from distill.recipe.schema import DataSpec
from distill.results.corruptions import CORRUPTIONS, SEVERITIES, CorruptionResult

SPEC = DataSpec(name="synthetic", limit=40, test_limit=60)


CPU = torch.device("cpu")
GRID = [(corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES]


@dataclass
class Model:
    """Answers by the mean colour, which corruptions change; remembers how many images it was shown."""

    place: str = "model"
    image_size: int = 32
    classes: tuple[str, ...] = tuple(f"pattern_{number}" for number in range(10))
    device: torch.device = CPU
    shift: int = 0
    asked: int = 0
    fails_after: int = 1 << 30
    nan: bool = False
    seen: list[np.ndarray] = field(default_factory=list)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        self.asked += len(pixels)
        if self.asked > self.fails_after:
            raise KeyboardInterrupt
        self.seen.append(pixels.numpy().copy())
        return _answers(pixels.numpy(), self.shift) * (float("nan") if self.nan else 1.0)


def _answers(pixels: np.ndarray, shift: int) -> torch.Tensor:
    """As a bad classifier would: right on some images, wrong on others, sensitive to every corruption."""
    code = (pixels[:, :, ::5, ::3].astype(np.int64).sum(axis=(1, 2, 3)) // 40 + shift) % 10
    return torch.eye(10)[torch.from_numpy(code)]


def _query(folder: Path, model: Model, *, weights: str = "w") -> EvaluationTarget:
    return EvaluationTarget(model.place, folder, Seal(weights, None), SPEC, lambda: model)


@pytest.fixture(scope="module")
def data() -> DatasetCache:
    return DatasetCache()


def test_it_is_what_counting_by_hand_gives(tmp_path: Path, data: DatasetCache) -> None:
    found = measure_corruptions(_query(tmp_path, Model()), images=1000, data=data)
    test = data.load(SPEC).test
    images, labels, places = test.take(slice(None)), np.asarray(test.labels), np.arange(60)
    assert found.n == 60
    assert found.clean_top1 == (_answers(images, 0).argmax(1).numpy() == labels).mean()
    right = []
    for cell in found.cells:
        shown = corrupt(images, cell.corruption, cell.severity, index=places)
        right.append(_answers(shown, 0).argmax(1).numpy() == labels)
        assert cell.top1 == right[-1].mean()
        wilson = stats.binomtest(int(right[-1].sum()), 60).proportion_ci(method="wilson")
        assert (cell.low, cell.high) == pytest.approx((wilson.low, wilson.high))
    assert [(cell.corruption, cell.severity) for cell in found.cells] == [
        (c, s) for c in CORRUPTIONS for s in SEVERITIES
    ]
    shares = np.mean(right, axis=0)
    assert found.mean_top1 == pytest.approx(shares.mean())
    low, high = stats.t.interval(0.95, 59, loc=shares.mean(), scale=stats.sem(shares))
    assert (found.mean_low, found.mean_high) == pytest.approx((low, high))
    assert found.mean_of("jpeg") == pytest.approx(np.mean([c.top1 for c in found.cells if c.corruption == "jpeg"]))
    assert CorruptionResult.from_json(found.to_json()) == found


def test_fewer_images_are_the_same_for_every_model(tmp_path: Path, data: DatasetCache) -> None:
    one, other = Model("one"), Model("other", shift=3)
    first = measure_corruptions(_query(tmp_path / "1", one), images=20, data=data)
    second = measure_corruptions(_query(tmp_path / "2", other), images=20, data=data)
    assert (first.n, one.asked, first.images_key) == (20, 31 * 20, second.images_key)
    assert first != second
    assert all((a == b).all() for a, b in zip(one.seen, other.seen, strict=True))
    everything = measure_corruptions(_query(tmp_path / "3", Model()), images=60, data=data)
    assert everything.images_key != first.images_key


def test_what_is_stored_is_not_asked_again(tmp_path: Path, data: DatasetCache) -> None:
    first = measure_corruptions(_query(tmp_path, Model()), images=20, data=data)
    again = Model()
    assert measure_corruptions(_query(tmp_path, again), images=20, data=data) == first
    assert again.asked == 0
    for change in ({"again": True}, {"images": 30}):
        model = Model()
        measure_corruptions(_query(tmp_path, model), **({"images": 20, "data": data} | change))
        assert model.asked == 31 * change.get("images", 20)
    model = Model()
    measure_corruptions(_query(tmp_path, model, weights="others"), images=20, data=data)
    assert model.asked == 31 * 20


def test_an_interrupted_measurement_goes_on(tmp_path: Path, data: DatasetCache) -> None:
    whole = measure_corruptions(_query(tmp_path / "whole", Model()), images=20, data=data)
    with pytest.raises(KeyboardInterrupt):
        measure_corruptions(_query(tmp_path / "cut", Model(fails_after=20 * (1 + 5 + 5 + 2))), images=20, data=data)
    rest = Model()
    assert measure_corruptions(_query(tmp_path / "cut", rest), images=20, data=data) == whole
    assert rest.asked == 20 * 5 * 4
    assert (tmp_path / "cut" / "test_corruptions.json").read_bytes() == (
        tmp_path / "whole" / "test_corruptions.json"
    ).read_bytes()


def test_damage_is_measured_again(tmp_path: Path, data: DatasetCache) -> None:
    whole = measure_corruptions(_query(tmp_path, Model()), images=20, data=data)
    path = tmp_path / "test_corruptions.json"
    path.write_bytes(path.read_bytes()[:-40])
    model = Model()
    assert measure_corruptions(_query(tmp_path, model), images=20, data=data) == whole
    assert model.asked == 31 * 20


def test_one_model_is_held_against_another_image_by_image(tmp_path: Path, data: DatasetCache) -> None:
    ours, theirs = _query(tmp_path / "a", Model()), _query(tmp_path / "b", Model(shift=5))
    assert against(ours, theirs, images=40) is None  # nothing is stored
    a, b = (measure_corruptions(query, images=40, data=data) for query in (ours, theirs))
    test = against(ours, theirs, images=40)
    assert test is not None
    assert test.difference.estimate == pytest.approx(a.mean_top1 - b.mean_top1)
    part = data.load(SPEC).test
    from distill.data.streams import permutation

    places = np.sort(permutation(60, "corruption images")[:40])
    images, labels = part.take(places), np.asarray(part.labels)[places]
    shares = [
        np.mean(
            [
                _answers(corrupt(images, c, s, index=places), shift).argmax(1).numpy() == labels
                for c in CORRUPTIONS
                for s in SEVERITIES
            ],
            axis=0,
        )
        for shift in (0, 5)
    ]
    paired = stats.ttest_rel(*shares)
    assert test.p_value == pytest.approx(paired.pvalue)
    interval = paired.confidence_interval(0.95)
    assert (test.difference.low, test.difference.high) == pytest.approx((interval.low, interval.high))
    measure_corruptions(theirs, images=30, data=data)
    assert against(ours, theirs, images=40) is None  # of other images now


def test_what_cannot_be_measured(tmp_path: Path, data: DatasetCache) -> None:
    with pytest.raises(UsageError, match="at least 2"):
        measure_corruptions(_query(tmp_path, Model()), images=1, data=data)
    with pytest.raises(RunError, match=r"model: its logits are NaN or infinite for 20 of 20 images \(clean\)"):
        measure_corruptions(_query(tmp_path, Model(nan=True)), images=20, data=data)
    none = EvaluationTarget("model", tmp_path, Seal("w", None), SPEC.model_copy(update={"val_fraction": 0.0}), Model)
    with pytest.raises(DataError, match="no validation images"):
        measure_corruptions(none, split="val", data=DatasetCache())
