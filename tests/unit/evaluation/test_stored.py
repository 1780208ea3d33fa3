"""What is kept of an evaluation: read back whole, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.evaluation.assessment import Assessment
from distill.evaluation.confidence import fit_temperature, reliability, risk_coverage
from distill.evaluation.metrics import evaluate_logits
from distill.evaluation.stored import (
    Seal,
    read_answers,
    read_evaluation,
    write_answers,
    write_sealed,
    write_temperature,
)
from distill.results.corruptions import CORRUPTIONS, SEVERITIES, CorruptedTop1, CorruptionResult

OWN = Seal("w", "n")
LOGITS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, 40)


def _store(folder: Path, *, weights: str = "w", network: str | None = "n") -> None:
    result = evaluate_logits(torch.from_numpy(LOGITS), torch.from_numpy(LABELS), ["a", "b", "c"])
    parts = (result, reliability(LOGITS, LABELS), risk_coverage(LOGITS, LABELS), LOGITS, LABELS)
    answers = Assessment("run", "test", *parts, "f", "c", "cpu", "fp32")
    write_answers(folder, answers, Seal(weights, network))


def test_it_comes_back(tmp_path: Path) -> None:
    assert read_evaluation(tmp_path) is None
    _store(tmp_path)
    found, answers = read_evaluation(tmp_path), read_answers(tmp_path, "test", place="here")
    assert found is not None
    assert answers is not None
    assert answers[1] == Seal("w", "n")
    assert (answers[0].place, answers[0].fingerprint, answers[0].content) == ("here", "f", "c")
    assert (answers[0].logits == LOGITS).all()
    assert (answers[0].labels == LABELS).all()
    assert found.reliability == reliability(LOGITS, LABELS)
    assert found.risk_coverage == risk_coverage(LOGITS, LABELS)
    assert found.result.n == 40
    assert (found.temperature, found.calibrated, found.corruptions) == (None, None, None)
    assert read_evaluation(tmp_path, "val") is None


def test_a_temperature_belongs_to_its_weights(tmp_path: Path) -> None:
    _store(tmp_path)
    fitted = fit_temperature(LOGITS, LABELS)
    write_temperature(tmp_path, fitted, OWN, content="v")
    found = read_evaluation(tmp_path)
    assert found is not None
    assert found.temperature == fitted
    assert found.calibrated == reliability(LOGITS, LABELS, temperature=fitted.value)
    for other in (Seal("x", "n"), Seal("w", "x")):
        write_temperature(tmp_path, fitted, other, content="v")
        left = read_evaluation(tmp_path)
        assert left is not None
        assert left.temperature is None


def test_corrupted_images_belong_to_the_images_of_the_answers(tmp_path: Path) -> None:
    _store(tmp_path)
    cells = tuple(CorruptedTop1(c, s, 0.5, 0.4, 0.6) for c in CORRUPTIONS for s in SEVERITIES)
    measured = CorruptionResult(20, 0.9, 0.5, 0.4, 0.6, cells, "key")
    for content, wanted in (("c", measured), ("other images", None)):
        document = {"content": content, "result": measured.to_json()}
        write_sealed(tmp_path / "test_corruptions.json", document, OWN)
        found = read_evaluation(tmp_path)
        assert found is not None
        assert found.corruptions == wanted


@pytest.mark.parametrize("name", ["test.json", "test_logits.npy", "test_labels.npy"])
def test_damage_is_as_good_as_nothing(tmp_path: Path, name: str) -> None:
    _store(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for broken in (whole[:-9], whole.replace(whole[len(whole) // 2 :][:4], b"9999"), b""):
        (tmp_path / name).write_bytes(broken)
        assert read_evaluation(tmp_path) is None


def test_damage_beside_the_answers_leaves_them(tmp_path: Path) -> None:
    _store(tmp_path)
    for name, text in (("temperature.json", "{}"), ("test_corruptions.json", "nothing")):
        (tmp_path / name).write_text(text)
    write_sealed(tmp_path / "test_corruptions.json", {"result": {"cells": 1}}, OWN)
    write_sealed(tmp_path / "temperature.json", {"temperature": {"value": 2}}, OWN)
    found = read_evaluation(tmp_path)
    assert found is not None
    assert (found.temperature, found.corruptions) == (None, None)


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    _store(tmp_path)
    code = (
        "import sys; from pathlib import Path; from distill.evaluation.stored import read_evaluation; "
        f"assert read_evaluation(Path({str(tmp_path)!r})).result.n == 40; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
