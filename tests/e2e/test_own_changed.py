"""Code of one's own that is another by now, or was never fit to be kept: told before a number comes of it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from distill import code
from distill.cli import app
from distill.data.splits import load_splits
from distill.errors import DataError, RunError, UsageError
from distill.fingerprint import state_sha256
from distill.models import build_model
from distill.models.trained import load_trained
from distill.pipeline import Options, train_student
from distill.pipeline.worker import _require_same_images
from distill.recipe import Recipe, parse_recipe
from distill.runs import RunFolder

NET = """
import numpy as np
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self, num_classes, sign=1.0):
        super().__init__()
        self.body, self.fc, self.sign = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, num_classes), sign

    def forward(self, images):
        return SIGN * self.fc(self.body(images).relu().mean((2, 3)))


class Shifted(Plain):  # by a tensor that is no buffer
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.shift = torch.full((1, 3, 1, 1), 0.1)

    def forward(self, images):
        return super().forward(images - self.shift)


class Drawn(Plain):  # holds what no checkpoint does
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.register_buffer("mix", torch.randn(3, 3, 1, 1), persistent=False)

    def forward(self, images):
        return super().forward(nn.functional.conv2d(images, self.mix))


class ByNumPy(Plain):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.fc.weight.data = torch.from_numpy(np.random.normal(size=(num_classes, 6)).astype("float32"))


class Two(Plain):
    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


class Fails(Plain):
    def forward(self, images):
        return self.absent(images) if self.training else super().forward(images)


class Nameless(Plain):
    def get_classifier(self):
        return None


class Extra(Plain):
    def get_extra_state(self):
        return {"seen": 1}

    def set_extra_state(self, state):
        pass


SIGN = 1.0
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leave: None) -> Path:
    """A working folder with net.py, in a process that gave leave."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "net.py").write_text(NET)
    code.allow_code()
    return tmp_path


def _recipe(name: str, *overrides: str) -> Recipe:
    text = f"""
schema_version: 1
name: own
role: baseline
data: {{name: synthetic, limit: 100, test_limit: 40}}
model: {{source: python, name: "net.py:{name}", input_size: 32}}
objective: {{kind: supervised}}
train: {{epochs: 1, batch_size: 50, precision: fp32}}
"""
    return parse_recipe(text, source="own.yaml", overrides=overrides)


def _train(recipe: Recipe) -> RunFolder:
    return RunFolder(train_student(recipe, options=Options(threads=1)).run)


def _forget() -> None:
    """As in a process of its own."""
    for name in [each for each in sys.modules if each.startswith("distill_own_")]:
        del sys.modules[name]


def _distill(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def test_a_network_that_answers_otherwise_by_now_is_refused_and_one_that_was_only_added_to_is_not(here: Path) -> None:
    run = _train(_recipe("Plain"))
    assert _distill("evaluate", "own", "-q")[0] == 0
    (here / "net.py").write_text(NET + "\n\nclass Another(Plain):\n    pass\n")
    _forget()
    load_trained(run, device=torch.device("cpu"))
    (here / "net.py").write_text(NET.replace("SIGN = 1.0", "SIGN = -1.0"))
    _forget()
    with pytest.raises(RunError, match=r"own/001: net.py:Plain answers otherwise than when it was trained") as caught:
        load_trained(run, device=torch.device("cpu"))
    assert caught.value.hint == "its file has changed since: put it back, or train again"
    for command in (("evaluate", "own", "--again"), ("export", "own"), ("compare", "own")):
        exit_code, stderr = _distill(*command, "-q")
        assert (exit_code, "answers otherwise than when it was trained" in stderr) == (1, True), command
    (here / "net.py").write_text(NET)
    _forget()
    assert _distill("export", "own", "-q")[0] == 0


def test_what_a_constructor_draws_is_drawn_again_from_the_runs_seed(here: Path) -> None:
    run = _train(_recipe("Drawn", "train.seed=3"))
    network = load_trained(run, device=torch.device("cpu")).module
    other = build_model(run.recipe().model, num_classes=10, seed=0)
    assert not torch.equal(network.mix, other.mix)
    exit_code, stderr = _distill("evaluate", "own", "-q")
    assert exit_code == 0, stderr


def test_weights_that_numpy_draws_follow_the_seed_and_its_own_state_is_left_alone(here: Path) -> None:
    spec = _recipe("ByNumPy").model
    random.seed(7)
    np.random.seed(7)
    before = random.getstate(), np.random.get_state()[1].tolist()
    digests = [state_sha256(build_model(spec, num_classes=10, seed=seed).state_dict()) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_a_tensor_that_is_no_buffer_is_no_reason_to_refuse_a_network(here: Path) -> None:
    assert _train(_recipe("Shifted")).status == "finished"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Two", "net.py:Two gives tuple in training mode, and no logits"),
        ("Fails", "net.py:Fails fails in training mode: 'Fails' object has no attribute 'absent'"),
        ("Extra", "the state of net.py:Extra holds _extra_state, which is no tensor"),
    ],
)
def test_what_can_only_be_asked_is_told_before_a_folder_is_there(name: str, said: str, here: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _train(_recipe(name))
    assert said in caught.value.message
    assert not (here / "runs").exists()


def test_a_classifier_that_is_not_named_is_the_last_linear_layer(here: Path) -> None:
    assert _train(_recipe("Nameless", "optim.backbone_lr_scale=0.5")).status == "finished"


@pytest.mark.parametrize(("option", "said"), [("num_classes", "comes from the data"), ("key", "raised TypeError")])
def test_options_may_have_any_name(option: str, said: str, here: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _train(_recipe("Plain", f"model.options={{{option}: 5}}"))
    assert said in caught.value.message


def test_a_file_imports_what_lies_beside_it(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "beside_it.py").write_text("WIDTH = 4\n")
    (here / "sub" / "net2.py").write_text(
        "from beside_it import WIDTH\nfrom torch import nn\n\n\ndef make(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, WIDTH), nn.Linear(WIDTH, num_classes))\n"
    )
    model = _recipe("Plain").model.model_copy(update={"name": "sub/net2.py:make"})
    assert build_model(model, num_classes=10)[1].out_features == 4
    (here / "sub" / "net3.py").write_text("import not_there_at_all\n")
    with pytest.raises(
        Exception, match=r"model.name: sub/net3.py imports not_there_at_all, and there is no such module"
    ):
        build_model(model.model_copy(update={"name": "sub/net3.py:make"}), num_classes=10)


LOSS = """
import torch
from torch import nn


class Centred:
    def __init__(self):
        self.maps = {"first": [nn.Linear(10, 10)]}
        self.scale = nn.Parameter(torch.ones(()))
        self.centre = None

    def __call__(self, student, labels):
        self.centre = student.detach().mean(0)
        return nn.functional.cross_entropy(self.scale * self.maps["first"][0](student), labels)
"""


def test_what_a_loss_holds_anywhere_is_trained_and_the_trial_leaves_it_as_it_was(here: Path) -> None:
    from distill.objectives.objective import TermContext
    from distill.objectives.own import OwnLoss

    (here / "loss.py").write_text(LOSS)
    recipe = _recipe("Plain", 'objective={kind: python_labels, name: "loss.py:Centred"}')
    shapes: dict[str, tuple[int, ...]] = {}
    loss = OwnLoss(recipe.objective, TermContext(student=shapes, teacher=shapes, classes=10, mixes=False))
    assert sorted(tuple(each.shape) for each in loss.parameters()) == [(), (10,), (10, 10)]
    assert loss._loss.centre is None
    run = _train(recipe)
    assert run.status == "finished"


def test_an_option_that_distill_gives_is_refused(here: Path) -> None:
    (here / "loss.py").write_text("def loss(student, labels, labels_too=1):\n    return student.sum()\n")
    objective = 'objective={kind: python_labels, name: "loss.py:loss", options: {labels: 3}}'
    with pytest.raises(UsageError, match=r"objective.options: labels: loss.py:loss is given that by distill"):
        _train(_recipe("Plain", objective))


IMAGES = """
import numpy as np


def load():
    chance = np.random.default_rng()
    images = chance.integers(0, 256, (40, 16, 16, 3), dtype="uint8")
    return {"train": (images[:30], np.arange(30) % 2), "test": (images[30:], np.arange(10) % 2)}
"""


def test_images_that_are_others_each_time_are_refused(here: Path) -> None:
    (here / "images.py").write_text(IMAGES)
    data = 'data={name: python, code: "images.py:load", val_fraction: 0.0}'
    recipe = _recipe("Plain", data, "model.input_size=16", "train.batch_size=10")
    run = _train(recipe)
    splits = load_splits(run.recipe().data)
    team: Callable[[str], SimpleNamespace] = lambda first: SimpleNamespace(broadcast=lambda own: first)  # noqa: E731
    context = SimpleNamespace(recipe=recipe)
    _require_same_images(splits, context, team(splits.fingerprint))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"images.py:load gave this process other images than the first one"):
        _require_same_images(splits, context, team("another"))  # type: ignore[arg-type]
    exit_code, stderr = _distill("evaluate", "own", "-q")
    assert (exit_code, "images.py:load holds other images than" in stderr) == (1, True), stderr
