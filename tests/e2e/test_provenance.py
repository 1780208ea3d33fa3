"""A run goes on only with what it began with: the same teacher, the same answers, the same images."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.code import allow_code
from distill.errors import RunError, TerminatedRunError
from distill.events import EpochDone, Event, StepDone
from distill.files import sha256_file
from distill.pipeline import Options, build_bank, clear_banks, finetune_teacher, rerun, resume_run, train_student
from distill.recipe import Recipe
from distill.runs import RunFolder
from distill.teaching.bank import Bank


@dataclass
class Stopper:
    """Sends SIGTERM at the end of the first epoch; ``error`` is raised at its first step instead, as kill -9 would."""

    error: BaseException | None = None
    seen: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if self.error is not None and isinstance(event, StepDone):
            raise self.error
        if self.error is None and isinstance(event, EpochDone) and event.epoch == 1:
            signal.raise_signal(signal.SIGTERM)


class Killed(BaseException):
    """Nothing is caught, nothing saved."""


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(runs_dir=tmp_path / "runs", threads=1)


@pytest.fixture
def teach(teacher_recipe, options: Options) -> Callable[..., RunFolder]:
    """``teach(seed)`` trains the tiny teacher in the place of the one that may be there."""

    def run(seed: int) -> RunFolder:
        shutil.rmtree(options.runs_dir / "tiny_teacher", ignore_errors=True)
        return RunFolder(finetune_teacher(teacher_recipe("train.epochs=1", f"train.seed={seed}"), options=options).run)

    return run


def stopped(recipe: Recipe, options: Options, *, error: BaseException | None = None) -> RunFolder:
    with pytest.raises(TerminatedRunError if error is None else type(error)):
        train_student(recipe, options=replace(options, on_event=Stopper(error)))
    return RunFolder(max((options.runs_dir / recipe.name).glob("[0-9]*")))


def refused(run: RunFolder, options: Options) -> str:
    """What the refusal says; run.json is as it was."""
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(RunError) as caught:
        resume_run(run.path, options=options)
    assert (run.path / "run.json").read_bytes() == before
    assert caught.value.message.startswith(f"{run.path}: changed since this run began: ")
    return caught.value.message


@pytest.mark.parametrize("logits", ["live", "bank"])
def test_a_run_does_not_go_on_with_another_teacher(teach, student_recipe, options: Options, logits: str) -> None:
    teach(0)
    run = stopped(student_recipe(f"teacher.logits={logits}"), options)
    first = run.info.teacher["sha256"]
    second = teach(7)
    said = refused(run, options)
    assert f"teacher (was {first[:12]}, is " in said
    assert not (second.path / "banks").exists()  # nothing was built in vain
    teach(0)
    assert resume_run(run.path, options=options).status == "finished"


def test_a_run_does_not_go_on_with_other_stored_answers(teach, student_recipe, options: Options) -> None:
    teach(0)
    run = stopped(student_recipe("teacher.logits=bank"), options)
    bank = Bank.open(Path(run.info.teacher["bank"]))
    name = bank.files()[0]
    kept = (bank.path / name).read_bytes()
    np.save(bank.path / name, np.load(bank.path / name) + 1)
    _sealed(bank, name)
    assert "stored answers (was " in refused(run, options)
    (bank.path / name).write_bytes(kept)
    _sealed(bank, name)
    build_bank(student_recipe("train.epochs=5"), options=options)  # more views are no change
    assert resume_run(run.path, options=options).status == "finished"


@pytest.mark.parametrize("harm", ["missing", "cut"])
def test_a_run_goes_on_once_a_damaged_bank_is_built_again_as_the_hint_says(
    teach, student_recipe, options: Options, harm: str
) -> None:
    teach(0)
    run = stopped(student_recipe("teacher.logits=bank"), options)
    bank = Bank.open(Path(run.info.teacher["bank"]))
    file = bank.path / bank.files()[-2]
    file.unlink() if harm == "missing" else file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(RunError) as caught:
        resume_run(run.path, options=options)
    said = {"missing": "is missing", "cut": "is damaged: its bytes are not those that were written"}
    assert caught.value.message == f"{file} {said[harm]}"
    assert f"distill cache verify {bank.path} " in caught.value.hint
    assert f"distill cache clear {bank.path}, then the same command" in caught.value.hint
    clear_banks([bank.path])
    assert not bank.path.exists()
    assert resume_run(run.path, options=options).status == "finished"


def _sealed(bank: Bank, name: str) -> None:
    """A bank.json that fits a changed file."""
    bank.info = replace(bank.info, checksums=bank.info.checksums | {name: sha256_file(bank.path / name)})
    bank._write_info()


def test_a_run_does_not_go_on_with_another_teachers_bank(
    teach, student_recipe, options: Options, tmp_path: Path
) -> None:
    banks = [tmp_path / "0", tmp_path / "1"]
    for seed, path in enumerate(banks):
        teach(seed)
        build_bank(student_recipe(), path=path, options=options)
    shutil.copytree(banks[0], tmp_path / "bank")
    run = stopped(student_recipe(f"teacher={{bank: '{tmp_path / 'bank'}'}}"), options)
    shutil.rmtree(tmp_path / "bank")
    shutil.copytree(banks[1], tmp_path / "bank")
    said = refused(run, options)
    assert "teacher (was " in said
    assert "stored answers (was " in said


def test_a_run_does_not_go_on_with_other_validation_images(student_recipe, options: Options, tmp_path: Path) -> None:
    root, draw = tmp_path / "pictures", np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for number in range(6):
                pixels = draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{number}.png")
    recipe = student_recipe(
        f"data={{name: folder, root: '{root}', image_size: 16}}", "objective.kind=supervised", "train.batch_size=4"
    )
    run = stopped(recipe, options)
    kept = (root / "val" / "cat" / "0.png").read_bytes()
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(root / "val" / "cat" / "0.png")
    assert "validation images (was " in refused(run, options)
    (root / "val" / "cat" / "0.png").write_bytes(kept)
    assert resume_run(run.path, options=options).status == "finished"


def test_a_run_that_starts_over_starts_from_the_weights_it_began_with(
    student_recipe, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped(student_recipe("objective.kind=supervised"), options, error=Killed())
    assert len(run.info.extra["initial_sha256"]) == 64
    monkeypatch.setattr("distill.models.build.derive_seed", lambda seed, use: 5)
    assert "initial weights (was " in refused(run, options)


def test_the_initial_weights_are_told_however_early_a_run_was_killed(student_recipe, options: Options) -> None:
    """Killed before it was written, resumed before there was a checkpoint."""
    recipe = student_recipe("objective.kind=supervised")
    run = stopped(recipe, options, error=Killed())
    first = run.info.extra["initial_sha256"]
    run.write_info(initial_sha256=None)
    resume_run(run.path, options=options)
    assert run.info.extra["initial_sha256"] == first


@pytest.mark.parametrize(
    ("part", "was", "now"),
    [
        ("optim", "lr: 0.002", "lr: 0.02"),
        ("train", "batch_size: 16", "batch_size: 32"),
        ("augment", "hflip: 0.5", "hflip: 0.0"),
    ],
)
def test_a_run_does_not_go_on_with_an_edited_recipe(
    student_recipe, options: Options, part: str, was: str, now: str
) -> None:
    recipe = student_recipe(
        "role=baseline", "teacher=null", "objective={kind: supervised}", "optim.lr=0.002", "train.batch_size=16",
        "augment.hflip=0.5", "train.epochs=3",
    )  # fmt: skip
    run = stopped(recipe, options)
    file = run.path / "recipe.yaml"
    text = file.read_text()
    assert text.count(was) == 1
    file.write_text(text.replace(was, now))
    assert refused(run, options).endswith(f": {part} in recipe.yaml")
    file.write_text("# a remark\n" + text)
    assert resume_run(run.path, options=options).epochs == 3


@pytest.mark.usefixtures("no_leave")
@pytest.mark.parametrize("place", ["data", "model"])
def test_a_run_goes_on_where_its_things_have_moved(
    student_recipe, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    allow_code()
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\n\ndef make(num_classes):\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, num_classes))\n"
    )
    recipe = student_recipe(
        "role=baseline", "teacher=null", "objective={kind: supervised}", "model={source: python, name: 'nets.py:make'}"
    )
    run = stopped(recipe, options)
    file = run.path / "recipe.yaml"
    text = file.read_text()
    if place == "model":
        (tmp_path / "lib").mkdir()
        (tmp_path / "nets.py").rename(tmp_path / "lib" / "nets.py")
        file.write_text(text.replace("nets.py:make", "lib/nets.py:make"))
    else:
        file.write_text(re.sub(r"root: \S+?([,}\n])", r"root: elsewhere\1", text))
    assert file.read_text() != text
    assert resume_run(run.path, options=options).status == "finished"


def test_numbers_of_another_type_are_no_edit(student_recipe, options: Options) -> None:
    recipe = student_recipe("role=baseline", "teacher=null", "objective={kind: supervised}", "optim.weight_decay=0.1")
    optim = recipe.optim.model_copy(update={"weight_decay": 0})  # as Python code may
    run = stopped(recipe.model_copy(update={"optim": optim}), options)
    assert resume_run(run.path, options=options).status == "finished"


def test_a_recipe_edited_after_the_end_is_named_by_a_rerun(student_recipe, options: Options) -> None:
    recipe = student_recipe("role=baseline", "teacher=null", "objective={kind: supervised}", "optim.lr=0.002")
    run = RunFolder(train_student(recipe, options=options).run)
    file = run.path / "recipe.yaml"
    file.write_text(file.read_text().replace("lr: 0.002", "lr: 0.02"))
    again = rerun(run.path, options=options)
    assert again.differences
    assert again.changed == ("optim in recipe.yaml",)
