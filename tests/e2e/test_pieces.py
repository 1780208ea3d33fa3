"""``train.accumulate``: batches in pieces, for one step of the optimiser."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.events import Event, Note
from distill.pipeline import Options, finetune_teacher
from distill.runs import RunFolder

# At 8 pixels the last stage has one place for each image: batch norm raises for a single image there. 135 images in
# batches of 40 leave 15, which 8 pieces would share as ones and twos.
NORMED = (
    "data.image_size=8",
    "model={source: students, name: resnet, blocks: [1, 1, 1], channels: [4, 4, 4], strides: [2, 2, 2], input_size: 8}",
    "train.batch_size=40",
    "train.epochs=1",
)


def _metrics(run: Path) -> list[dict[str, float]]:
    return RunFolder(run).metrics()


@pytest.mark.parametrize("pieces", [8, 20, 999])
def test_batch_norm_never_meets_a_single_image(teacher_recipe, tmp_path: Path, pieces: int) -> None:
    seen: list[Event] = []
    options = Options(runs_dir=tmp_path, threads=1, on_event=seen.append)
    finetune_teacher(teacher_recipe(*NORMED, f"train.accumulate={pieces}"), options=options)
    notes = [event.message for event in seen if isinstance(event, Note) and "train.accumulate" in event.message]
    assert notes == ([] if pieces <= 20 else [notes[0]])
    assert pieces <= 20 or "the 40 images of a step make 20 pieces" in notes[0]


def test_pieces_of_different_sizes_learn_as_the_whole_batch_does(teacher_recipe, tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path, threads=1)
    settings = ("model.norm=false", "train.batch_size=40", "train.epochs=2", "optim.lr=0.2")
    whole = _metrics(finetune_teacher(teacher_recipe(*settings), options=options).run)
    parts = _metrics(finetune_teacher(teacher_recipe(*settings, "train.accumulate=8"), options=options).run)
    for one, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
