"""A network of one's own: it runs with leave alone, and is then a network like any other."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from distill import code
from distill.cli import app
from distill.errors import UsageError
from distill.models.trained import load_trained
from distill.pipeline import Options, RunResult, finetune_teacher, rerun, train_student
from distill.recipe import Recipe, load_recipe
from distill.runs import RunFolder
from distill.teaching.bank import Bank

MINE = """
import threading
from pathlib import Path

import torch
from torch import nn

Path("it_ran").touch()


class Small(nn.Module):
    def __init__(self, num_classes, width=8, kernels=(3, 3)):
        super().__init__()
        layers, channels = [], 3
        for kernel in kernels:
            layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.body = nn.Sequential(*layers)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.fc(self.body(images).mean((2, 3)))


def make(num_classes, **options):
    return Small(num_classes, **options)


def fails(num_classes):
    raise ZeroDivisionError("no luck\\nat all")


def exits(num_classes):
    raise SystemExit(0)


def gives_text(num_classes):
    return "a network"


def too_few(num_classes):
    return Small(num_classes - 1)


class Still(Small):
    def forward(self, images):
        with torch.no_grad():
            return super().forward(images)


class Careful(Small):
    def forward(self, images):
        with torch.set_grad_enabled(self.training):
            return super().forward(images)


class Lazy(Small):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.fc = nn.LazyLinear(num_classes)


class Grey(Small):
    def forward(self, images):
        return self.fc(self.body(images[:, :1]).mean((2, 3)))


class Locked(Small):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.lock = threading.Lock()


class Old(Small):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        torch.nn.utils.weight_norm(self.fc)


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


def _student(teacher: str, name: str = "mine:make", **changes: str) -> str:
    lines = {
        "name": "own",
        "role": "student",
        "data": "{name: synthetic, limit: 150, test_limit: 60}",
        "model": f'{{source: python, name: "{name}", options: {{width: 12, kernels: [3, 1]}}}}',
        "teacher": f"{{run: '{teacher}'}}",
        "objective": "{kind: kd, ce_weight: 0.5, kd_weight: 0.5, temperature: 2.0}",
        "train": "{epochs: 2, batch_size: 40}",
    }
    return "schema_version: 1\n" + "".join(f"{key}: {value}\n" for key, value in (lines | changes).items())


@pytest.fixture
def recipe(here: Path, teacher_run: RunResult) -> Path:
    file = here / "own.yaml"
    file.write_text(_student(str(teacher_run.run)))
    return file


def _distill(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_nothing_runs_without_leave(recipe: Path, here: Path) -> None:
    exit_code, _, stderr = _distill("student", "--recipe", recipe, "-q")
    assert exit_code == 2
    assert f"model.name: mine:make would run code: {here / 'mine.py'}" in stderr
    assert "--allow-code" in stderr
    assert not (here / "it_ran").exists()
    assert not (here / "runs").exists()
    assert _distill("recipe", "check", recipe)[0] == 0  # a recipe is data: it can be checked without running anything
    assert not (here / "it_ran").exists()


@pytest.mark.parametrize("name", ["mine:make", "mine.py:make", "mine.py:Small"])
def test_with_leave_it_is_a_network_like_any_other(
    name: str, here: Path, teacher_run: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "own.yaml").write_text(_student(str(teacher_run.run), name))
    exit_code, _, stderr = _distill("student", "--recipe", "own.yaml", "--allow-code", "-q")
    assert exit_code == 0, stderr
    run = RunFolder(here / "runs" / "own" / "001")
    model = run.recipe().model
    assert model.code_sha256 == hashlib.sha256(MINE.encode()).hexdigest()
    trained = load_trained(run, device=torch.device("cpu"))
    assert type(trained.module).__name__ == "Small"
    assert trained.module.fc.in_features == 12
    assert run.figures().params == _params(trained.module)
    assert run.resume_command() == f"distill student --resume {run.path} --allow-code"
    exit_code, stdout, stderr = _distill("compare", "own", "--no-latency", "--json", "-q")
    assert exit_code == 0, stderr
    assert "own" in {row["name"] for row in json.loads(stdout)["rows"]}
    assert _distill("export", "own", "--out", "own.onnx", "-q")[0] == 0

    monkeypatch.delenv("DISTILL_ALLOW_CODE")
    for module in ("mine", "distill_own_mine"):
        sys.modules.pop(module, None)
    exit_code, _, stderr = _distill("export", "own", "--out", "again.onnx", "-q")
    assert exit_code == 2
    assert "would run code" in stderr
    assert _distill("evaluate", "own.onnx", "-q")[0] == 0  # what ships needs no code


def test_options_are_set_from_the_command_line(recipe: Path, here: Path) -> None:
    arguments = ("student", "--recipe", recipe, "--allow-code", "-q", "--set", "train.epochs=1")
    assert _distill(*arguments, "--set", "model.options.width=4")[0] == 0
    module = load_trained(RunFolder(here / "runs" / "own" / "001"), device=torch.device("cpu")).module
    assert (module.fc.in_features, len(module.body)) == (4, 6)
    exit_code, _, stderr = _distill(*arguments, "--set", "model.options.depth=4")
    assert exit_code == 2
    assert "mine:make raised TypeError" in stderr
    assert "depth" in stderr
    exit_code, _, stderr = _distill(*arguments, "--set", "model.max_params=100")
    assert exit_code == 2
    assert "over the budget of 100" in stderr


@pytest.mark.parametrize(
    ("name", "exit_code", "told"),
    [
        ("mine:fails", 2, "mine:fails raised ZeroDivisionError: no luck"),
        ("mine:exits", 2, "mine:exits raised SystemExit: 0"),
        ("leaves:make", 2, "importing leaves raised SystemExit: 3"),
        ("mine:gives_text", 2, "mine:gives_text gave str, no torch.nn.Module"),
        ("mine:NUMBER", 2, "mine:NUMBER is int"),
        ("mine:too_few", 2, "mine:too_few gives no logits: its output is (1, 9), not (1, 10) for one image"),
        ("mine:absent", 2, "mine.py has no absent"),
        ("yours:make", 4, "no module yours"),
        ("yours.py:make", 4, "no file yours.py"),
        ("broken:make", 2, "importing broken raised SyntaxError"),
    ],
)
def test_what_is_wrong_is_one_line(name: str, exit_code: int, told: str, here: Path, teacher_run: RunResult) -> None:
    (here / "broken.py").write_text("def make(:\n")
    (here / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    model = f'{{source: python, name: "{name}"}}'
    (here / "own.yaml").write_text(_student(str(teacher_run.run), model=model))
    code_given, _, stderr = _distill("student", "--recipe", "own.yaml", "--allow-code", "-q")
    assert (code_given, told in stderr) == (exit_code, True), stderr
    assert "Traceback" not in stderr
    assert not (here / "runs").exists()


def test_one_that_has_gradients_where_it_is_trained_alone_learns(here: Path, teacher_run: RunResult) -> None:
    model = '{source: python, name: "mine:Careful"}'
    (here / "own.yaml").write_text(_student(str(teacher_run.run), model=model))
    assert _distill("student", "--recipe", "own.yaml", "--allow-code", "-q")[0] == 0


def test_one_that_cannot_be_copied_finishes(here: Path, teacher_run: RunResult) -> None:
    model = '{source: python, name: "mine:Locked"}'
    (here / "own.yaml").write_text(_student(str(teacher_run.run), model=model))
    exit_code, _, stderr = _distill("student", "--recipe", "own.yaml", "--allow-code", "-q")
    assert exit_code == 0, stderr
    run = RunFolder(here / "runs" / "own" / "001")
    assert run.status == "finished"
    assert run.figures().params == _params(load_trained(run, device=torch.device("cpu")).module)
    assert _distill("export", "own", "--out", "own.onnx", "-q")[0] == 0


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    ("name", "ema", "told"),
    [
        ("mine:Still", 0.0, "the logits of mine:Still do not depend on its weights"),
        ("mine:Old", 0.9, "train.ema cannot copy mine:Old"),
        ("mine:Lazy", 0.0, "mine:Lazy has a lazy layer that was given no image: fc.weight has no shape yet"),
        ("mine:Grey", 0.0, "its forward is given images (B, 3, S, S)"),
    ],
)
def test_what_cannot_be_trained_so_is_told_before_a_folder_is_there(
    name: str, ema: float, told: str, here: Path, teacher_run: RunResult
) -> None:
    train = f"{{epochs: 1, batch_size: 40, ema: {ema}}}"
    (here / "own.yaml").write_text(
        _student(str(teacher_run.run), model=f'{{source: python, name: "{name}"}}', train=train)
    )
    exit_code, _, stderr = _distill("student", "--recipe", "own.yaml", "--allow-code", "-q")
    assert exit_code == 2
    assert told in stderr
    assert not (here / "runs").exists()
    if ema:  # and without an average it learns
        assert _distill("student", "--recipe", "own.yaml", "--allow-code", "-q", "--set", "train.ema=0")[0] == 0


@pytest.mark.parametrize("name", ["mine:", ":make", "mine:make()", "mine:1", "a b:c d"])
def test_a_name_that_is_no_reference_is_refused_when_the_recipe_is_read(name: str, here: Path) -> None:
    (here / "own.yaml").write_text(_student("t", model=f'{{source: python, name: "{name}"}}'))
    exit_code, _, stderr = _distill("recipe", "check", "own.yaml")
    assert exit_code == 2
    assert "model.name" in stderr


def test_a_teacher_of_ones_own_with_its_checkpoint_teaches_from_a_bank(
    here: Path, student_recipe: Callable[..., Recipe], teacher_recipe: Callable[..., Recipe]
) -> None:
    code.allow_code()
    sys.path.insert(0, str(here))
    mine = importlib.import_module("mine")

    torch.manual_seed(5)
    module = mine.make(10, width=6)
    state = {f"module.{key}": value for key, value in module.state_dict().items()}
    save_file(state | {"optimizer.step": torch.ones(1)}, here / "mine.safetensors")
    model = (
        "{source: python, name: 'mine:make', options: {width: 6}, weights: mine.safetensors, weights_prefix: module.}"
    )
    options = Options(runs_dir=here / "runs", threads=1)
    frozen = ("optim.lr=1e-9", "train.epochs=1", f"model={model}", "name=own_teacher")
    teacher = finetune_teacher(teacher_recipe(*frozen), options=options)
    trained = load_trained(RunFolder(teacher.run), device=torch.device("cpu"))
    torch.testing.assert_close(trained.module.fc.weight, module.fc.weight, atol=1e-5, rtol=0)
    student = train_student(student_recipe("teacher.logits=bank"), teacher=teacher, options=options)
    bank = Bank.open(Path(RunFolder(student.run).info.teacher["bank"]))
    before = bank.info.key
    # the same weights in another network answer otherwise: another bank
    (here / "mine.py").write_text(MINE + "\n# changed\n")
    other = finetune_teacher(teacher_recipe(*frozen), options=options)
    again = train_student(student_recipe("teacher.logits=bank"), teacher=other, options=options)
    after = Bank.open(Path(RunFolder(again.run).info.teacher["bank"])).info.key
    assert before.teacher.weights == after.teacher.weights
    assert before.teacher.architecture != after.teacher.architecture


def test_a_run_is_repeated_and_says_when_its_code_has_changed(recipe: Path, here: Path) -> None:
    assert _distill("student", "--recipe", recipe, "--allow-code", "-q")[0] == 0
    options = Options(runs_dir=here / "runs")
    assert rerun("own/001", options=options).differences == ()
    (here / "mine.py").write_text(MINE + "\n# changed\n")
    repeated = rerun("own/001", options=options)
    assert repeated.differences == ()
    assert any("its network's code" in change for change in repeated.changed)


class Handed(nn.Module):
    """As it would be written in a script."""

    def __init__(self, num_classes: int = 10, width: int = 8) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, width, 3), nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, num_classes)``."""
        return self.fc(self.body(images).relu().mean((2, 3)))


@pytest.mark.parametrize("network", [Handed, Handed(width=5), lambda num_classes: Handed(num_classes, 7)])
def test_from_python_the_object_is_the_leave(
    network: object, here: Path, student_recipe: Callable[..., Recipe], teacher_run: RunResult
) -> None:
    options = Options(runs_dir=here / "runs", threads=1)
    made = train_student(student_recipe("train.epochs=1"), teacher=teacher_run, network=network, options=options)
    run = RunFolder(made.run)
    model = run.recipe().model
    assert model.source == "python"
    assert model.code_sha256 == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    trained = load_trained(run, device=torch.device("cpu"))
    assert type(trained.module) is Handed
    assert trained.module.fc.in_features == {Handed: 8}.get(network, 5 if isinstance(network, Handed) else 7)
    if isinstance(network, Handed):
        begun = load_recipe(run.path / "recipe.yaml")
        assert begun == run.recipe()
        assert trained.module is not network


def test_what_its_own_code_keeps_from_learning_never_learns(
    here: Path, student_recipe: Callable[..., Recipe], teacher_run: RunResult
) -> None:
    options, network = Options(runs_dir=here / "runs", threads=1), Handed()
    network.body.requires_grad_(False)
    recipe = student_recipe("train.epochs=1")
    made = train_student(recipe, teacher=teacher_run, network=network, options=options)
    trained = load_trained(RunFolder(made.run), device=torch.device("cpu")).module
    assert torch.equal(trained.body.weight, network.body.weight)
    assert not torch.equal(trained.fc.weight, network.fc.weight)
    with pytest.raises(UsageError, match="all of it"):
        train_student(recipe, teacher=teacher_run, network=network.requires_grad_(False), options=options)


def test_what_is_no_network_is_refused(
    student_recipe: Callable[..., Recipe], teacher_run: RunResult, no_leave: None
) -> None:
    with pytest.raises(UsageError, match="network: int"):
        train_student(student_recipe(), teacher=teacher_run, network=3)
    locked = Handed()
    locked.lock = threading.Lock()
    with pytest.raises(UsageError, match="cannot be copied: cannot pickle"):
        train_student(student_recipe(), teacher=teacher_run, network=locked)


LOOKS = """
from torch import nn


class Looks(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, num_classes)

    def forward(self, images):
        images = self.body(images)
        if images.mean() > 0:
            images = images * 2
        return self.fc(images.mean((2, 3)))


def make(num_classes):
    return Looks(num_classes)
"""


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_one_that_looks_at_the_values_of_its_tensors_is_counted_all_the_same(here: Path, precision: str) -> None:
    """Shapes alone do not say which way it goes: it is run for a black image, and no run is lost at its end."""
    (here / "looks.py").write_text(LOOKS)
    train = f"{{epochs: 1, batch_size: 40, precision: {precision}}}"
    alone = {"role": "baseline", "objective": "{kind: supervised}", "train": train}
    recipe = _student("", model='{source: python, name: "looks:make"}', **alone)
    (here / "own.yaml").write_text(recipe.replace("teacher: {run: ''}\n", ""))
    exit_code, _, stderr = _distill("student", "--recipe", "own.yaml", "--allow-code", "-q")
    assert (exit_code, stderr) == (0, "")
    result = RunFolder(here / "runs" / "own" / "001").result()
    assert result["params"] == 8 * 27 + 8 + 8 * 10 + 10
    assert result["gmacs"] == pytest.approx((32 * 32 * 8 * 27 + 80) / 1e9)


def test_two_of_one_name_are_two(here: Path, student_recipe: Callable[..., Recipe], teacher_run: RunResult) -> None:
    options = Options(runs_dir=here / "runs", threads=1)
    makers = [lambda num_classes, width=width: Handed(num_classes, width) for width in (4, 9)]
    runs = [
        train_student(student_recipe("train.epochs=1"), teacher=teacher_run, network=make, options=options).run
        for make in makers
    ]
    modules = [load_trained(RunFolder(run), device=torch.device("cpu")).module for run in runs]
    assert [module.fc.in_features for module in modules] == [4, 9]


@pytest.mark.slow
def test_two_processes_find_what_was_handed_over(
    here: Path, student_recipe: Callable[..., Recipe], teacher_run: RunResult
) -> None:
    """Each process imports it anew: the leave is for what was handed over, and for nothing else."""
    sys.path.insert(0, str(here))
    mine = importlib.import_module("mine")

    options = Options(runs_dir=here / "runs", threads=1, devices=2)
    made = train_student(student_recipe("train.epochs=1"), teacher=teacher_run, network=mine.make, options=options)
    assert made.status == "finished"
    assert not code.code_is_allowed("mine:fails")


@pytest.mark.slow
def test_the_script_in_the_docs_runs_and_the_command_line_finds_its_network(here: Path) -> None:
    script = Path(__file__).parents[2] / "docs" / "own_network.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, "1"], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "depthwise" in done.stdout
    name = RunFolder(here / "runs" / "depthwise" / "001").recipe().model.name
    assert name == f"{os.path.relpath(script)}:Depthwise"
    exit_code, _, stderr = _distill("export", "depthwise", "--out", "again.onnx", "-q")
    assert (exit_code, "would run code" in stderr) == (2, True)
    assert _distill("export", "depthwise", "--out", "again.onnx", "--allow-code", "-q")[0] == 0
