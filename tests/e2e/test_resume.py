"""A run that was stopped anywhere and goes on ends, on the CPU, with the bytes of a run that never stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from distill.errors import DistillError, DivergedError, InterruptedRunError, RunError, TerminatedRunError
from distill.events import CheckpointSaved, EpochDone, Event, StepDone
from distill.pipeline import Options, RunResult, evaluate_run, finetune_teacher, resume_run
from distill.runs import RunFolder, list_runs
from distill.runs.checkpoints import best_checkpoint, load_checkpoint
from distill.train.step import Learner

# The tiny student: 135 images in batches of 40 are 4 steps an epoch, the last one smaller.
LIVE = ("teacher.logits=live",)
SETTINGS = {
    "sgd, cosine with warm-up": ("schedule={kind: cosine, warmup_epochs: 1}",),
    "adam, one cycle": ("optim={name: adam, lr: 0.01}", "schedule={kind: one_cycle}"),
    "plateau": ("optim.lr=0.5", "schedule={kind: plateau, patience: 1, factor: 0.5}", "train.epochs=5"),
    "ema": ("train.ema=0.9",),
    "lookahead": ("optim={name: adamw, lr: 0.01, lookahead: {k: 3}}",),
    "dropout": ("model.dropout=0.3", *LIVE),
    "mixup and cutmix": ("augment.mixup={alpha: 0.4}", "augment.cutmix={alpha: 1.0, probability: 0.5}", *LIVE),
    "accumulate and clip": ("train.accumulate=3", "train.clip_norm=0.5", "model.dropout=0.1", *LIVE),
    "early stopping": ("train.early_stopping={patience: 2, min_delta: 0.2}", "train.epochs=6", *LIVE),
    "freeze_backbone": ("train.freeze_backbone_epochs=1", "train.ema=0.8", "optim={name: adamw, lr: 0.01}"),
    "bank, all views": ("teacher.logits=bank", "augment.crop_padding=1", "augment.views=all"),
    "live, rare checkpoints": ("train.checkpoint_epochs=3", "augment.views=2", *LIVE),
    "the last epoch": ("train.checkpoint_epochs=3", "train.monitor=last", *LIVE),
    "no validation": ("data.val_fraction=0", "schedule={kind: multistep, milestones: [1, 2]}", *LIVE),
    "every optimiser state: rmsprop": ("optim={name: rmsprop, lr: 0.001, momentum: 0.5}",),
    "every optimiser state: nadam": ("optim={name: nadam, lr: 0.01}", "schedule={kind: warm_restarts}"),
    "every optimiser state: radam": ("optim={name: radam, lr: 0.01}",),
    "every optimiser state: adagrad": ("optim={name: adagrad, lr: 0.01}",),
    "every optimiser state: adadelta": ("optim={name: adadelta}", "schedule={kind: exponential}"),
    "every optimiser state: adamax": ("optim={name: adamax, lr: 0.01}",),
}


@dataclass
class Stopper:
    """Listens to a run and, when ``when`` says so, for the first time, stops it by a signal or by ``error``."""

    when: Callable[[Event], bool]
    number: int = signal.SIGTERM
    error: BaseException | None = None
    seen: list[Event] = field(default_factory=list)
    done: bool = False

    def __call__(self, event: Event) -> None:
        self.seen.append(event)
        if not self.done and self.when(event):
            self.done = True
            if self.error is not None:
                raise self.error
            os.kill(os.getpid(), self.number)


def at_step(epoch: int, step: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, StepDone) and (event.epoch, event.step) == (epoch, step)


def at_epoch_end(epoch: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, EpochDone) and event.epoch == epoch


POINTS = {
    "in the first epoch": at_step(0, 1),
    "at an epoch's end": at_epoch_end(1),
    "mid-epoch": at_step(1, 2),
    "after an epoch's last step": at_step(1, 4),
}


def model_bytes(run: Path, link: str = "last") -> bytes:
    return (run / "checkpoints" / link / "model.safetensors").read_bytes()


def assert_same(ours: Path, whole: Path) -> None:
    assert (ours / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    for link in ("last", "best"):
        assert model_bytes(ours, link) == model_bytes(whole, link), link
        assert os.readlink(ours / "checkpoints" / link) == os.readlink(whole / "checkpoints" / link)
    for run in (ours, whole):
        assert RunFolder(run).status == "finished"


def stopped_run(tmp_path: Path) -> Path:
    return list_runs(tmp_path / "runs")[-1].path


def go_on(run: Path, **options: object) -> RunResult:
    return resume_run(run, options=Options(runs_dir=run.parents[1], **options))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_run_stopped_again_and_again_ends_with_the_same_bytes(train, settings, tmp_path: Path) -> None:
    """One run, stopped at every point of ``POINTS`` in turn."""
    whole = train(*settings)
    points = list(POINTS.values())
    with pytest.raises(TerminatedRunError, match="is saved"):
        train(*settings, on_event=Stopper(points[0]))
    run = stopped_run(tmp_path)
    assert run != whole.run
    for point in points[1:]:
        assert RunFolder(run).status == "interrupted"
        with pytest.raises(TerminatedRunError):
            go_on(run, on_event=Stopper(point))
    go_on(run)
    assert_same(run, whole.run)


def test_without_a_damaged_checkpoint_it_goes_on_from_the_one_before_as_the_hint_says(train, tmp_path: Path) -> None:
    whole = train(*LIVE)
    with pytest.raises(TerminatedRunError):
        train(*LIVE, on_event=Stopper(at_step(1, 2)))
    run = stopped_run(tmp_path)
    last = (run / "checkpoints" / "last").resolve()
    content = (last / "resume.pt").read_bytes()
    (last / "resume.pt").write_bytes(content[:-50])
    with pytest.raises(RunError, match="damaged") as caught:
        go_on(run)
    assert "of an unfinished run it can be removed" in str(caught.value.hint)
    shutil.rmtree(last)
    go_on(run)
    assert_same(run, whole.run)


def test_a_teacher_that_is_gone_is_named(train, tmp_path: Path) -> None:
    with pytest.raises(TerminatedRunError):
        train(*LIVE, on_event=Stopper(at_step(1, 2)))
    run = stopped_run(tmp_path)
    teacher = Path(RunFolder(run).info.teacher["run"])
    teacher.rename(tmp_path / "elsewhere")
    try:
        with pytest.raises(RunError, match="the teacher of tiny_student is gone: no run") as caught:
            go_on(run)
    finally:
        (tmp_path / "elsewhere").rename(teacher)
    assert str(caught.value.hint).startswith(f"restore {teacher}")
    assert caught.value.exit_code == 1


def test_a_copy_that_followed_links_goes_on_and_is_read(train, tmp_path: Path) -> None:
    """``cp -rL``, an archive, a network share: ``last`` and ``best`` have become folders."""
    whole = train(*LIVE)
    with pytest.raises(TerminatedRunError):
        train(*LIVE, on_event=Stopper(at_step(1, 2)))
    copy = tmp_path / "copied" / "tiny_student" / "001"
    shutil.copytree(stopped_run(tmp_path), copy)
    assert not (copy / "checkpoints" / "last").is_symlink()
    go_on(copy)
    assert_same(copy, whole.run)
    finished = tmp_path / "copied" / "tiny_student" / "002"
    shutil.copytree(whole.run, finished)
    options = Options(runs_dir=tmp_path / "copied", threads=1)
    assert evaluate_run(finished, options=options).result == evaluate_run(whole.run, options=options).result


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS.keys())
def test_one_stop_is_enough_to_differ(train, point, tmp_path: Path) -> None:
    """The points one by one, where one stop could hide what another did."""
    settings = ("model.dropout=0.2", "train.ema=0.9", "train.checkpoint_epochs=2", *LIVE)
    whole = train(*settings)
    with pytest.raises(TerminatedRunError):
        train(*settings, on_event=Stopper(point))
    run = stopped_run(tmp_path)
    assert RunFolder(run).info.exit_code == 143
    go_on(run)
    assert_same(run, whole.run)


def test_dropout_matters(train) -> None:
    """The comparisons above could not fail if dropout drew nothing."""
    assert model_bytes(train("model.dropout=0.3").run) != model_bytes(train().run)


def test_ctrl_c_is_another_exit_code(train, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError) as caught:
        train(on_event=Stopper(at_step(1, 2), number=signal.SIGINT))
    run = stopped_run(tmp_path)
    assert caught.value.exit_code == RunFolder(run).info.exit_code == 130
    assert caught.value.hint == f"to continue: distill student --resume {run}"
    assert os.readlink(run / "checkpoints" / "last") == "000001-000002"


class Killed(BaseException):
    """As kill -9 would: nothing is caught, nothing saved."""


@pytest.mark.parametrize(
    "point",
    [at_step(0, 1), at_epoch_end(1), at_step(1, 3), at_epoch_end(2)],
    ids=["before the first checkpoint", "before its checkpoint", "mid-epoch", "second epoch, before its checkpoint"],
)
def test_a_run_that_could_not_save_goes_on_from_what_it_had(train, point, tmp_path: Path) -> None:
    settings = ("model.dropout=0.2", *LIVE)
    whole = train(*settings)
    with pytest.raises(Killed):
        train(*settings, on_event=Stopper(point, error=Killed()))
    go_on(stopped_run(tmp_path))
    assert_same(stopped_run(tmp_path), whole.run)


def test_a_run_from_other_weights_starts_over_from_them(train, tmp_path: Path) -> None:
    """Before the first checkpoint, ``init_from`` still counts."""
    first = train(*LIVE)
    whole = train("train.seed=1", *LIVE, init_from=str(first.run))
    with pytest.raises(Killed):
        train("train.seed=1", *LIVE, init_from=str(first.run), on_event=Stopper(at_step(0, 1), error=Killed()))
    go_on(stopped_run(tmp_path))
    assert_same(stopped_run(tmp_path), whole.run)
    assert model_bytes(whole.run) != model_bytes(train("train.seed=1", *LIVE).run)


def test_checkpoints_within_an_epoch_change_nothing(train) -> None:
    whole = train(*LIVE)
    stopper = Stopper(lambda _: False)
    often = train("train.checkpoint_minutes=1e-9", *LIVE, on_event=stopper)
    saved = [Path(event.path).name for event in stopper.seen if isinstance(event, CheckpointSaved)]
    assert saved[:4] == ["000000-000001", "000000-000002", "000000-000003", "000001"]
    assert_same(often.run, whole.run)


def test_a_signal_in_the_last_epoch_lets_the_run_end(train) -> None:
    """There is nothing left to go on with."""
    result = train(*LIVE, on_event=Stopper(at_epoch_end(3)))
    assert result.status == "finished"


def test_a_finished_run_is_left_as_it_is(train) -> None:
    result = train(*LIVE)
    before = {path: path.stat().st_mtime_ns for path in result.run.rglob("*") if path.is_file()}
    assert go_on(result.run) == result
    assert {path: path.stat().st_mtime_ns for path in result.run.rglob("*") if path.is_file()} == before


def test_min_delta_is_about_patience_and_not_about_which_epoch_is_best(train) -> None:
    """A margin that nothing reaches: the run stops, and ships its best epoch all the same."""
    result = train("train.early_stopping={patience: 3, min_delta: 1.0}", "train.epochs=20", "optim.lr=0.1", *LIVE)
    epochs = [line["val_top1"] for line in RunFolder(result.run).metrics()]
    assert len(epochs) == 4  # the first sets the mark; three did not exceed it by the margin
    best = json.loads((best_checkpoint(result.run / "checkpoints") / "meta.json").read_text())
    assert best["epoch"] == epochs.index(max(epochs)) + 1


@pytest.mark.parametrize("val_fraction", [0.1, 0.0])
def test_an_epoch_whose_last_step_diverged_says_so(
    teacher_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, val_fraction: float
) -> None:
    """A step's loss is worked out before the step ruins the weights: every training loss is finite."""
    real = Learner.step

    def step(self: Learner, *args: object, number: int, **named: object) -> None:
        real(self, *args, number=number, **named)
        if (self.schedule.last_lr, number) == (0.25, 3):
            next(self.raw.parameters()).data.fill_(float("inf"))

    monkeypatch.setattr(Learner, "step", step)
    settings = ("optim.lr=0.5", "schedule={kind: multistep, milestones: [1], gamma: 0.5}", "train.epochs=3")
    recipe = teacher_recipe(*settings, "train.batch_size=40", f"data.val_fraction={val_fraction}")
    with pytest.raises(
        DivergedError, match=r"^training diverged in epoch 2: .*(nan|NaN).*; learning rate 0\.25(\n|$)"
    ) as caught:
        finetune_teacher(recipe, options=Options(runs_dir=tmp_path / "runs", threads=1))
    assert caught.value.hint.startswith("lower optim.lr")
    run = RunFolder(stopped_run(tmp_path))
    assert (run.status, [line["epoch"] for line in run.metrics()]) == ("failed", [1])
    assert load_checkpoint(best_checkpoint(run.checkpoints)).epoch == 1


def test_a_loss_that_is_not_finite_keeps_the_best_checkpoint(train, tmp_path: Path) -> None:
    with pytest.raises(DistillError, match=r"not finite at epoch \d+, step \d+: loss nan"):
        train("optim.lr=1e9", *LIVE)
    run = RunFolder(stopped_run(tmp_path))
    assert run.status == "failed"
    assert run.info.exit_code == 1
