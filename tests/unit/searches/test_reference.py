"""What a search keeps of its teacher."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from distill.searches import reference as module
from distill.searches.reference import teacher_answers


@pytest.mark.parametrize("damage", [None, b"", b"\x93NUMPY\x01", "cut"])
def test_a_teacher_is_asked_once_and_again_where_what_was_kept_is_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: bytes | str | None
) -> None:
    logits, asked = np.arange(6, dtype=np.float32).reshape(3, 2), list[Any]()
    teacher: Any = SimpleNamespace(
        name="t", place="t", run=None, trained=None, identity=SimpleNamespace(weights="w", architecture="a"),
        require_classes=lambda classes: None,
    )  # fmt: skip

    def asking(*_: Any, **__: Any) -> Any:
        asked.append(1)
        return SimpleNamespace(logits=logits)

    monkeypatch.setattr(module, "find_teacher", lambda *_, **__: teacher)
    monkeypatch.setattr(module, "split_content", lambda *_: "c")
    monkeypatch.setattr(module, "assess_classifier", asking)
    splits: Any = SimpleNamespace(dataset=SimpleNamespace(classes=("x", "y")), val=None)
    recipe: Any = SimpleNamespace(data=None)

    def found() -> np.ndarray:
        device = torch.device("cpu")
        answers = teacher_answers(
            recipe, splits, kept=tmp_path, runs_dir=tmp_path, device=device, tell=lambda event: None
        )
        assert answers is not None
        return answers[1]

    np.testing.assert_array_equal(found(), logits)
    (file,) = tmp_path.glob("*.npy")
    if damage is not None:
        file.write_bytes(file.read_bytes()[:-4] if isinstance(damage, str) else damage)
    np.testing.assert_array_equal(found(), logits)
    assert len(asked) == (1 if damage is None else 2)
