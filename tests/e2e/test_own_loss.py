"""A loss of one's own: tried before a run begins, then summed with the others and trained like any."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner

from distill import code
from distill.cli import app
from distill.data.batches import Batch, Mix
from distill.errors import UsageError
from distill.models.taps import stage_shapes
from distill.objectives import TermContext, build_objective
from distill.objectives.objective import NetworkOutput
from distill.pipeline import Options, RunResult, rerun, resume_run, train_student
from distill.recipe import Recipe
from distill.recipe.objectives import KDObjective, OwnLabelsObjective, OwnObjective
from distill.runs import RunFolder
from distill.runs.checkpoints import MODEL_FILE, best_checkpoint, load_checkpoint

MINE = """
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

Path("it_ran").touch()


def positional(logits, target):
    return logits.mean()


def kd(student, teacher, temperature=2.0):
    ours, theirs = F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1)
    return F.kl_div(ours, theirs, reduction="none").sum(1) * temperature**2


def focal(student, labels, gamma=2.0):
    losses = F.cross_entropy(student, labels, reduction="none")
    return (1 - torch.exp(-losses)) ** gamma * losses


def one_number(student, labels):
    return F.cross_entropy(student, labels)


class Hint(nn.Module):
    def __init__(self, ours=16, theirs=16):
        super().__init__()
        self.map = nn.LazyLinear(theirs) if ours is None else nn.Linear(ours, theirs)

    def forward(self, student_features, teacher_features):
        return (self.map(student_features["pooled"]) - teacher_features["pooled"]).square().mean(1)


class Pairs(nn.Module):
    # stages of other names, and layers as wide as they are
    def __init__(self, student_shapes, teacher_shapes, classes, scale=1.0):
        super().__init__()
        assert classes == 10
        self.pairs = list(zip(student_shapes, teacher_shapes))
        self.maps = nn.ModuleList(
            nn.Conv2d(student_shapes[a][0], teacher_shapes[b][0], 1) for a, b in self.pairs
        )

    def forward(self, student_features, teacher_features):
        found = [
            F.adaptive_avg_pool2d(one(student_features[a]), 1) - F.adaptive_avg_pool2d(teacher_features[b], 1)
            for one, (a, b) in zip(self.maps, self.pairs)
        ]
        return torch.stack([each.square().mean((1, 2, 3)) for each in found]).mean(0)


class Holds:
    def __init__(self):
        self.inner = Hint()

    def __call__(self, student_features, teacher_features):
        return self.inner(student_features, teacher_features)


def fails(student):
    raise ZeroDivisionError("no luck\\nat all")


def gives_text(student):
    return "a loss"


def per_class(student):
    return student


def constant(student, labels):
    return torch.ones(())


def wants_features(student, student_features):
    return student.mean()


NUMBER = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leave: None) -> Path:
    """A working folder with mine.py, of a process that gave no leave."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    monkeypatch.chdir(folder)
    return folder


def _student(taught_by: RunResult, objective: str, **changes: str) -> str:
    lines = {
        "name": "own",
        "role": "student",
        "data": "{name: synthetic, limit: 150, test_limit: 60}",
        "model": "{source: students, name: tiny}",
        "teacher": f"{{run: '{taught_by.run}'}}",
        "objective": objective,
        "train": "{epochs: 2, batch_size: 40}",
    }
    text = "".join(f"{key}: {value}\n" for key, value in (lines | changes).items() if value)
    Path("own.yaml").write_text(f"schema_version: 1\n{text}")
    return "own.yaml"


def _distill(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def _answers(classes: int = 5) -> tuple[NetworkOutput, NetworkOutput, Batch]:
    torch.manual_seed(0)
    student, teacher = (NetworkOutput(torch.randn(6, classes, requires_grad=at == 0)) for at in range(2))
    labels = torch.randint(classes, (6,))
    return student, teacher, Batch(torch.zeros(6, 3, 8, 8), labels, torch.arange(6), torch.zeros(6, dtype=torch.long))


def test_nothing_runs_without_leave(here: Path, teacher_run: RunResult) -> None:
    recipe = _student(teacher_run, '{kind: python, name: "mine:kd"}')
    exit_code, _, stderr = _distill("student", "--recipe", recipe, "-q")
    assert exit_code == 2
    assert f"objective.name: mine:kd would run code: {here / 'mine.py'}" in stderr
    assert _distill("recipe", "check", recipe)[0] == 0
    assert not (here / "it_ran").exists()
    assert not (here / "runs").exists()


def test_it_is_summed_with_the_others_as_the_built_in_one_is(here: Path) -> None:
    code.allow_code()
    setting, more = TermContext(classes=5), {"ce_weight": 0.3, "add": ({"kind": "mse", "mse_weight": 0.2},)}
    own = OwnObjective.model_validate({"kind": "python", "name": "mine:kd", "own_weight": 0.7, **more})
    own = own.model_copy(update={"options": type(own.options)(temperature=3.0)})
    ours = build_objective(own, setting)(*_answers())
    built_in = KDObjective.model_validate({"kind": "kd", "kd_weight": 0.7, "temperature": 3.0, **more})
    theirs = build_objective(built_in, setting)(*_answers())
    torch.testing.assert_close(ours.loss, theirs.loss)
    torch.testing.assert_close(ours.parts["own"], theirs.parts["kd"])


def test_labels_of_mixed_images_count_by_their_shares(here: Path) -> None:
    code.allow_code()
    student, _, batch = _answers()
    mix = Mix(batch.labels.flip(0), torch.linspace(0, 1, 6))
    mixed = Batch(batch.images, batch.labels, batch.index, batch.views, mix)
    spec = OwnLabelsObjective(kind="python_labels", name="mine:focal")
    found = build_objective(spec, TermContext(classes=5, mixes=True))(student, None, mixed)

    def focal(labels: Tensor) -> Tensor:  # in float64, written out
        p = F.softmax(student.logits.double(), 1).gather(1, labels[:, None])[:, 0]
        return -((1 - p) ** 2) * p.log()

    wanted = (mix.weight * focal(batch.labels) + (1 - mix.weight) * focal(mix.partner_labels)).mean()
    torch.testing.assert_close(found.loss, wanted.float())
    found.loss.backward()
    assert student.logits.grad is not None


def test_a_run_learns_from_it_and_goes_on_and_is_told_of(here: Path, teacher_run: RunResult) -> None:
    objective = '{kind: python, name: "mine:kd", options: {temperature: 3.0}, ce_weight: 0.5, own_weight: 0.5}'
    recipe = _student(teacher_run, objective)
    exit_code, _, stderr = _distill("student", "--recipe", recipe, "--allow-code", "-q")
    assert exit_code == 0, stderr
    run = RunFolder(here / "runs" / "own" / "001")
    assert run.recipe().objective.code_sha256 == hashlib.sha256(MINE.encode()).hexdigest()
    kinds = [set(json.loads(line)) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert all({"train_ce", "train_own"} <= keys for keys in kinds)
    kd = objective.replace('python, name: "mine:kd", options: {temperature: 3.0}', "kd, temperature: 3.0")
    _student(teacher_run, kd.replace("own_weight", "kd_weight"), name="built_in")
    assert _distill("student", "--recipe", recipe, "-q")[0] == 0
    theirs = RunFolder(here / "runs" / "built_in" / "001")
    own, other = (
        [json.loads(line)["train_loss"] for line in (each.path / "metrics.jsonl").read_text().splitlines()]
        for each in (run, theirs)
    )
    assert own == pytest.approx(other, rel=1e-4)
    assert _distill("student", "--resume", run.path, "-q")[0] == 0


@pytest.mark.parametrize("name", ["Hint", "Holds"])
def test_what_it_learns_itself_is_trained_saved_and_never_shipped(
    name: str, here: Path, teacher_run: RunResult
) -> None:
    objective = f'{{kind: python, name: "mine:{name}", features: [pooled]}}'
    code.allow_code()
    options = Options(runs_dir=here / "runs", threads=1)
    whole = train_student(_student(teacher_run, objective), options=options)
    run = RunFolder(whole.run)
    shipped = load_file(best_checkpoint(run.checkpoints) / MODEL_FILE)
    assert (
        sum(each.numel() for name, each in shipped.items() if name.endswith(("weight", "bias"))) == run.figures().params
    )
    metrics = [json.loads(line)["train_own"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1] < metrics[0]
    own = load_checkpoint(best_checkpoint(run.checkpoints)).load_resume()["own"]
    assert sum(each.numel() for each in own.values()) == 16 * 16 + 16
    assert resume_run(whole, options=options).val_top1 == whole.val_top1


def test_a_class_is_told_the_shapes_of_stages_that_need_not_have_one_name(here: Path, teacher_run: RunResult) -> None:
    objective = '{kind: python, name: "mine:Pairs", features: [stem, stage1], teacher_features: [stage1, stem]}'
    code.allow_code()
    recipe = _student(teacher_run, objective)
    run = RunFolder(train_student(recipe, options=Options(runs_dir=here / "runs", threads=1)).run)
    metrics = [json.loads(line)["train_own"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1] < metrics[0]
    ours, theirs = (stage_shapes(each.recipe().model, 10) for each in (run, RunFolder(teacher_run.run)))
    own = load_checkpoint(best_checkpoint(run.checkpoints)).load_resume()["own"]
    found = sorted(tuple(each.shape[:2]) for each in own.values() if each.ndim == 4)
    assert found == sorted((theirs[b][0], ours[a][0]) for a, b in (("stem", "stage1"), ("stage1", "stem")))


@pytest.mark.parametrize(
    "objective",
    ['{kind: python, name: "mine:kd"}', '{kind: kd, add: [{kind: python, name: "mine:kd"}]}'],
    ids=["main", "added"],
)
def test_a_run_that_is_repeated_says_when_its_loss_has_changed(
    objective: str, here: Path, teacher_run: RunResult
) -> None:
    code.allow_code()
    options = Options(runs_dir=here / "runs", threads=1)
    recipe = _student(teacher_run, objective, train="{epochs: 1, batch_size: 40}")
    made = train_student(recipe, options=options)
    (here / "mine.py").write_text(MINE + "\n# changed\n")
    repeated = rerun(made, options=options)
    assert repeated.differences == ()
    before, now = (hashlib.sha256(text.encode()).hexdigest()[:12] for text in (MINE, MINE + "\n# changed\n"))
    assert repeated.changed == (f"its loss's code (was {before}, is {now})",)


@pytest.mark.parametrize(
    ("objective", "exit_code", "told"),
    [
        ('{kind: python, name: "mine:fails"}', 2, "mine:fails raised ZeroDivisionError: no luck"),
        ('{kind: python, name: "mine:gives_text"}', 2, "mine:gives_text gave str"),
        ('{kind: python, name: "mine:per_class"}', 2, "gave Tensor of shape (4, 10)"),
        ('{kind: python, name: "mine:constant"}', 2, "does not depend on the student"),
        ('{kind: python, name: "mine:wants_features"}', 2, "takes student_features, and objective.features names no"),
        ('{kind: python, name: "mine:NUMBER"}', 2, "mine:NUMBER is int"),
        ('{kind: python, name: "mine:absent"}', 2, "mine.py has no absent"),
        ('{kind: python, name: "mine:kd", options: {gamma: 1}}', 2, "mine:kd raised TypeError"),
        ('{kind: python, name: "mine:positional"}', 2, "mine:positional asks for logits, target: a loss is given what"),
        ('{kind: python, name: "mine:kd", features: [stage9]}', 2, "the student has no stage stage9"),
        (
            '{kind: python, name: "mine:kd", features: [pooled], teacher_features: [stage9]}',
            2,
            "teacher_features: the teacher has no stage stage9",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    objective: str, exit_code: int, told: str, here: Path, teacher_run: RunResult
) -> None:
    recipe = _student(teacher_run, objective)
    found, _, stderr = _distill("student", "--recipe", recipe, "--allow-code", "-q")
    assert (found, told in stderr) == (exit_code, True), stderr
    assert "Traceback" not in stderr
    assert not (here / "runs").exists()


def test_without_a_teacher_it_is_of_labels_alone(here: Path, teacher_run: RunResult) -> None:
    told = {"role": "baseline", "teacher": "", "augment": "{mixup: {alpha: 0.2}}"}
    for name, wanted in (
        ("mine:kd", "takes teacher, and objective python_labels asks no"),
        ("mine:one_number", "gives one number"),
    ):
        recipe = _student(teacher_run, f'{{kind: python_labels, name: "{name}"}}', **told)
        exit_code, _, stderr = _distill("student", "--recipe", recipe, "--allow-code", "-q")
        assert (exit_code, wanted in stderr) == (2, True), stderr
    recipe = _student(teacher_run, '{kind: python_labels, name: "mine:focal"}', **told)
    assert _distill("student", "--recipe", recipe, "--allow-code", "-q")[0] == 0


def test_from_python_the_object_is_the_leave(
    here: Path, student_recipe: Callable[..., Recipe], teacher_run: RunResult
) -> None:
    options = Options(runs_dir=here / "runs", threads=1)

    def squared(student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean(1)

    made = train_student(student_recipe("train.epochs=1"), teacher=teacher_run, objective=squared, options=options)
    objective = RunFolder(made.run).recipe().objective
    assert (objective.kind, objective.ce_weight) == ("python", 0.5)  # the recipe's
    assert objective.code_sha256 == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    with pytest.raises(UsageError, match="objective: int"):
        train_student(student_recipe(), teacher=teacher_run, objective=3)
    assert not isinstance(squared, nn.Module)


def test_the_script_in_the_docs_with_all_of_ones_own_runs(here: Path) -> None:
    script = Path(__file__).parents[2] / "docs" / "own_everything.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, "2"], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "small_shapes" in done.stdout
    stated = RunFolder(here / "runs" / "small_shapes" / "001").recipe()
    digest = hashlib.sha256(script.read_bytes()).hexdigest()
    assert {stated.model.code_sha256, stated.objective.code_sha256} == {digest}
    exit_code, stdout, stderr = _distill("compare", "small_shapes", "--allow-code", "--no-latency", "--json", "-q")
    assert exit_code == 0, stderr
    assert json.loads(stdout)["rows"]


@pytest.mark.usefixtures("no_leave")
@pytest.mark.parametrize(
    ("loss", "named"), [(nn.CrossEntropyLoss(), "input, target"), (lambda s, labels: s.mean(), "asks for s:")]
)
def test_parameters_called_otherwise_are_told(
    student_recipe: Callable[..., Recipe], teacher_run: RunResult, loss: Callable[..., Any], named: str
) -> None:
    with pytest.raises(UsageError) as refused:
        train_student(student_recipe(), teacher=teacher_run, objective=loss)
    assert named in refused.value.message
    assert "lambda student, labels" in str(refused.value)
