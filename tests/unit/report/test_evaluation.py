"""Tables of one model's answers."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console, RenderableType

from distill.report.evaluation import evaluation_table, predictions_csv, predictions_table
from distill.results.evaluations import Evaluation
from distill.results.metrics import EvalResult, PerClass
from distill.results.rows import Guess, Prediction


def _text(renderable: RenderableType, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False, markup=False, emoji=False, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()


def _evaluation(classes: int) -> Evaluation:
    labels = [f"[class {number}]" for number in range(classes)]
    confusion = tuple(
        tuple(1000 + i if i == j else (i * classes + j) % 7 for j in range(classes)) for i in range(classes)
    )
    per_class = tuple(PerClass(label, 0.9, 0.8, 0.85, 0.8, 1000) for label in labels)
    return Evaluation(
        "runs/a/001", "test", EvalResult(0.9, 0.99, 0.9, 0.8, 0.85, 0.3214, 0.02, 10_000, per_class, confusion)
    )


@pytest.mark.parametrize("width", [80, 120])
def test_ten_classes_show_the_matrix(width: int) -> None:
    text = _text(evaluation_table(_evaluation(10), width), width)
    for words in ("90.00 %", "0.3214", "10,000 images", "[class 3]", *(f"{1000 + number:,}" for number in range(10))):
        assert words in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_a_hundred_classes_show_the_worst_pairs() -> None:
    text = _text(evaluation_table(_evaluation(100), 80), 80)
    assert "most frequent confusions" in text
    assert len(text.splitlines()) < 150


def test_json_has_the_keys_of_the_contract() -> None:
    keys = "run split top1 top5 macro_precision macro_recall macro_f1 balanced_accuracy nll ece per_class confusion"
    keys += " top_confusions"
    assert set(keys.split()) <= set(_evaluation(3).to_json())


PREDICTIONS = [
    Prediction("=cmd.png", (Guess("cat[1]", 0.91), Guess("dog", 0.05)), label="cat[1]", teacher=Guess("dog", 0.6)),
    Prediction("dir/b.png", (Guess("dog", 1.0),)),
]


def test_predictions() -> None:
    text = _text(predictions_table(PREDICTIONS, 120), 120)
    for words in ("91.0% cat[1]", "5.0% dog", "100.0% dog", "dir/b.png"):
        assert words in text


def test_predictions_as_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(predictions_csv(PREDICTIONS))))
    assert [row["file"] for row in rows] == ["'=cmd.png", "'=cmd.png", "dir/b.png"]
    assert [row["rank"] for row in rows] == ["1", "2", "1"]
    assert rows[0]["teacher_label"] == "dog"


def test_predictions_as_json() -> None:
    assert PREDICTIONS[1].to_json() == {"file": "dir/b.png", "top": [{"label": "dog", "probability": 1.0}]}
    assert PREDICTIONS[0].to_json()["label"] == "cat[1]"
