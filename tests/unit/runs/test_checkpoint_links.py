"""``last`` and ``best`` after a copy, an archive or another system made something else of the links that they were."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from distill.errors import DistillError
from distill.runs.checkpoints import (
    best_checkpoint,
    last_checkpoint,
    load_checkpoint,
    prune,
    save_checkpoint,
    set_link,
)
from distill.runs.checkpoints import folder as checkpoint_module


def save(folder: Path, epoch: int, *, value: float = 1.0) -> Path:
    state = {"weight": torch.full((3, 2), value)}
    return save_checkpoint(folder, epoch=epoch, step=0, model_state=state, resume_state={"epoch": epoch}, meta={})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def text(mark: Path) -> None:
    """What becomes of a link where there are none."""
    target = os.readlink(mark)
    mark.unlink()
    mark.write_text(target)


def folder_of(mark: Path) -> None:
    """What a copy that follows links makes of one."""
    target = mark.resolve()
    mark.unlink()
    shutil.copytree(target, mark)


@pytest.mark.parametrize("turned", [text, folder_of])
def test_links_that_a_copy_turned_into_something_else_still_lead(folder, turned):
    first, second = save(folder, 1), save(folder, 2)
    set_link(folder, "best", first)
    set_link(folder, "last", second)
    turned(folder / "best")
    turned(folder / "last")
    assert best_checkpoint(folder) == first
    assert last_checkpoint(folder) == second
    third = save(folder, 3)
    set_link(folder, "last", third)
    prune(folder)
    assert last_checkpoint(folder) == third
    assert names(folder) == ["000001", "000003", "best", "last"]
    set_link(folder, "best", third)
    prune(folder)
    assert names(folder) == ["000003", "best", "last"]
    assert load_checkpoint(best_checkpoint(folder)).epoch == 3


def test_a_copy_of_a_checkpoint_serves_where_the_checkpoint_is_gone_or_another(folder):
    path = save(folder, 1)
    set_link(folder, "best", path)
    folder_of(folder / "best")
    save(folder, 1, value=2.0)
    assert load_checkpoint(best_checkpoint(folder)).model_state["weight"][0, 0] == 1.0
    shutil.rmtree(path)
    assert load_checkpoint(best_checkpoint(folder)).epoch == 1


def test_a_death_while_a_copy_is_replaced_loses_nothing(folder, monkeypatch):
    first, second = save(folder, 1), save(folder, 2)
    set_link(folder, "best", first)
    folder_of(folder / "best")
    shutil.rmtree(first)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "link_atomically", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            set_link(folder, "best", second)
    assert load_checkpoint(best_checkpoint(folder)).epoch == 1
    set_link(folder, "last", second)
    prune(folder)
    assert load_checkpoint(best_checkpoint(folder)).epoch == 1
    set_link(folder, "best", second)
    prune(folder)
    assert names(folder) == ["000002", "best", "last"]


def test_a_folder_of_somebody_else_in_the_place_of_a_link_is_left_alone(folder):
    path = save(folder, 1)
    (folder / "best").mkdir()
    (folder / "best" / "mine").write_text("x")
    with pytest.raises(DistillError, match="cannot write"):
        set_link(folder, "best", path)
    assert (folder / "best" / "mine").read_text() == "x"
