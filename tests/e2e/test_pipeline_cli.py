"""The commands of the mission through the real command line: tiny random networks on synthetic images."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from distill.cli import app

pytestmark = pytest.mark.pictures
COMPARE_ROW = (
    "name role run dataset objective seeds test_top1 test_top1_std delta_top1 params gmacs size_mb latency_b1_ms "
    "train_seeds test_top1_each baseline_p_holm "
    "latency_b1_p90_ms latency_b32_ms images_per_s throughput_batch latency_b1_calls ece agreement test_images "
    "test_set teacher times_smaller times_faster runtime source_run agreement_source "
    "test_top1_low test_top1_high on_front baseline baseline_difference baseline_low baseline_high baseline_p "
    "baseline_method baseline_n baseline_verdict baseline_needed test_balanced_accuracy test_macro_f1 measured_on"
)
RESULT = "run status epochs val_top1 seconds images_per_s"

RECIPES = {
    "teacher": """
        name: big
        role: teacher
        data: {name: synthetic, limit: 150, test_limit: 60}
        augment: {crop_padding: 2, hflip: 0.5}
        model: {source: teachers, name: tiny, width: 12}
        optim: {name: sgd, lr: 0.1}
        train: {epochs: 4, batch_size: 32}
    """,
    "student": """
        name: small
        role: student
        data: {name: synthetic, limit: 150, test_limit: 60}
        augment: {crop_padding: 2, hflip: 0.5}
        model: {source: students, name: tiny}
        teacher: {run: big}
        objective: {kind: kd, ce_weight: 0.5, kd_weight: 0.5, temperature: 2.0}
        optim: {name: sgd, lr: 0.05}
        train: {epochs: 2, batch_size: 32}
    """,
    "scratch": """
        name: scratch
        role: baseline
        data: {name: synthetic, limit: 150, test_limit: 60}
        augment: {crop_padding: 2, hflip: 0.5}
        model: {source: students, name: tiny}
        optim: {name: sgd, lr: 0.05}
        train: {epochs: 2, batch_size: 32}
    """,
    "wide": """
        name: r18_wide
        role: student
        data: {name: cifar100, root: nowhere}
        model: {source: students, name: resnet, blocks: [3, 3, 3, 3], channels: [64, 128, 128, 256],
                strides: [1, 2, 2, 2], pool: 4}
        teacher: {run: big}
        objective: {kind: kd}
    """,
}

Run = Callable[..., Result]


def _dedent(text: str) -> str:
    return "\n".join(line[8:] for line in text.strip("\n").splitlines()) + "\n"


def _invoke(*args: str) -> Result:
    return CliRunner().invoke(app, list(args), catch_exceptions=False)


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A teacher, two seeds of its student, and the student without it, made by the commands."""
    folder = tmp_path_factory.mktemp("tour")
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(_dedent(text))
    runs = ("--runs", str(folder / "runs"), "--threads", "1")
    made = {}
    for key, command, recipe, *more in (
        ("teacher", "teacher-finetune", "teacher"),
        ("seed 0", "student", "student"),
        ("seed 1", "student", "student", "--seed", "1"),
        ("scratch", "student", "scratch"),
    ):
        made[key] = _invoke(command, "--recipe", str(folder / f"{recipe}.yaml"), *more, *runs, "--json")
        assert made[key].exit_code == 0, made[key].stderr
    return SimpleNamespace(folder=folder, runs=folder / "runs", made=made)


@pytest.fixture
def cli(tour: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``cli("compare", ...)`` in the folder of the tour, whose runs are in ``runs``: no option needed."""
    monkeypatch.chdir(tour.folder)
    monkeypatch.delenv("DISTILL_RUNS", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    return _invoke


def _info(run: str | Path) -> dict[str, Any]:
    return json.loads((Path(run) / "run.json").read_text())


# Training


@pytest.mark.parametrize("key", ["teacher", "seed 0", "seed 1", "scratch"])
def test_training_prints_one_document_and_leaves_a_run(tour, key: str) -> None:
    result = tour.made[key]
    document = json.loads(result.stdout)
    assert set(RESULT.split()) <= set(document)
    assert document["status"] == "finished"
    run = Path(document["run"])
    files = {path.name for path in run.iterdir()}
    assert {"run.json", "recipe.yaml", "metrics.jsonl", "timing.jsonl", "run.log", "result.json", "plots"} <= files
    assert (run.parent / "latest" / "run.json").is_file()
    assert run.name == ("002" if key == "seed 1" else "001")
    epochs = 4 if key == "teacher" else 2
    assert document["epochs"] == epochs
    assert len((run / "metrics.jsonl").read_text().splitlines()) == epochs
    plain_lines = [line for line in result.stderr.splitlines() if line.startswith("epoch ")]
    assert len(plain_lines) == epochs
    assert "epoch" not in result.stdout.replace('"epochs"', "")


def test_the_run_says_what_made_it(tour) -> None:
    info = _info(json.loads(tour.made["seed 1"].stdout)["run"])
    assert (info["status"], info["exit_code"], info["threads"], info["role"]) == ("finished", 0, 1, "student")
    assert info["seeds"]["train"] == 1
    assert Path(info["teacher"]["run"]).resolve() == Path(json.loads(tour.made["teacher"].stdout)["run"]).resolve()
    assert {"torch", "timm"} <= set(info["versions"])


def test_a_table_says_what_was_made_and_what_is_next(cli: Run) -> None:
    result = cli("student", "--recipe", "scratch.yaml", "--set", "train.epochs=1", "--runs", "other")
    assert result.exit_code == 0
    assert "other/scratch/001" in result.stdout
    assert "next: distill compare --runs other" in result.stderr


def test_another_teacher_by_option(cli: Run, tour) -> None:
    path = json.loads(tour.made["teacher"].stdout)["run"]
    changes = ("--set", "teacher.run=nobody", "--set", "train.epochs=1")
    result = cli("student", "--recipe", "student.yaml", "--teacher", path, *changes, "--runs", "other", "--json")
    assert result.exit_code == 0, result.stderr
    assert _info(json.loads(result.stdout)["run"])["teacher"]["run"] == path


def test_resuming_a_finished_run_prints_its_result(cli: Run, tour) -> None:
    before = (tour.runs / "small" / "001" / "metrics.jsonl").read_bytes()
    result = cli("student", "--resume", "small/001", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["val_top1"] == json.loads(tour.made["seed 0"].stdout)["val_top1"]
    assert "is finished" in result.stderr
    assert (tour.runs / "small" / "001" / "metrics.jsonl").read_bytes() == before


def test_starting_from_another_runs_weights(cli: Run) -> None:
    args = ("--recipe", "scratch.yaml", "--set", "train.epochs=1", "--runs", "other", "--json")
    cold = json.loads(cli("student", *args).stdout)["run"]
    warm = cli("student", *args, "--init-from", "runs/small/001")
    assert warm.exit_code == 0, warm.stderr
    assert "start from runs/small/001" in warm.stderr
    losses = [
        json.loads((Path(run) / "metrics.jsonl").read_text().splitlines()[0])["train_loss"]
        for run in (json.loads(warm.stdout)["run"], cold)
    ]
    assert losses[0] < losses[1]
    lost = cli("student", *args, "--init-from", "nobody")
    assert (lost.exit_code, lost.stdout) == (2, "")


def test_the_same_seed_gives_the_same_bytes(cli: Run) -> None:
    again = cli("student", "--rerun", "small/002", "--json")
    assert again.exit_code == 0, again.stderr
    document = json.loads(again.stdout)
    assert document["differences"] == []
    assert "the same bytes as runs/small/002" in again.stderr


@pytest.mark.parametrize("command", ["teacher-finetune --recipe teacher.yaml", "student --recipe student.yaml"])
def test_a_dry_run_writes_no_run(cli: Run, tour, command: str) -> None:
    before = sorted(tour.runs.rglob("*"))
    result = cli(*command.split(), "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["input_shape"], document["output_shape"]) == ([32, 3, 32, 32], [32, 10])
    assert document["params"] > 0
    assert document["seconds"] > 0
    assert document["memory_mb"] > 0
    assert sorted(tour.runs.rglob("*")) == before
    assert cli(*command.split(), "--dry-run").exit_code == 0


def test_a_dry_run_needs_no_weights_that_only_the_run_needs(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pretrained = ["--set", "model={source: timm, name: resnet10t, weights: pretrained, input_size: 32}"]
    command = ["teacher-finetune", "--recipe", "teacher.yaml", *pretrained, "--json"]
    tried = cli(*command, "--dry-run")
    assert tried.exit_code == 0, tried.stderr
    assert json.loads(tried.stdout)["seconds"] > 0
    assert "tried untrained, which takes as long; the run itself needs them: " in tried.stderr
    assert cli(*command).exit_code == 4
    lost = cli(*command, "--set", "model.weights=lost.safetensors", "--dry-run")
    assert (lost.exit_code, "lost.safetensors" in lost.stderr) == (4, True)


# Comparing


def test_compare_gathers_seeds_and_measures_all(cli: Run, tour) -> None:
    result = cli("compare", "runs/big/001", "runs/small/001", "runs/small/002", "runs/scratch/001", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert {"rows", "device", "threads", "versions"} <= set(document)
    assert document["threads"] == 1
    assert {"torch", "timm"} <= set(document["versions"])
    rows = {row["name"]: row for row in document["rows"]}
    assert [row["role"] for row in document["rows"]] == ["teacher", "baseline", "student"]
    for row in rows.values():
        assert set(row) == set(COMPARE_ROW.split())
        assert Path(row["run"]).is_dir()
        assert 0 <= row["test_top1"] <= 1
        assert 0 < row["latency_b1_ms"] <= row["latency_b1_p90_ms"]
        assert row["images_per_s"] == pytest.approx(32e3 / row["latency_b32_ms"], rel=0.01)
    assert {name: row["seeds"] for name, row in rows.items()} == {"big": 1, "small": 2, "scratch": 1}
    each = [_test_top1(tour, f"small/00{number}") for number in (1, 2)]
    assert rows["small"]["test_top1"] == pytest.approx(sum(each) / 2)
    assert rows["small"]["test_top1_std"] == pytest.approx(abs(each[0] - each[1]) / 2**0.5)
    assert rows["small"]["delta_top1"] == pytest.approx(sum(each) / 2 - rows["big"]["test_top1"])
    assert rows["big"]["test_top1"] > 0.3, "the teacher learns"


def _test_top1(tour: SimpleNamespace, run: str) -> float:
    document = _invoke("evaluate", str(tour.runs / run), "--json", "--no-plots")
    return json.loads(document.stdout)["top1"]


def test_compare_without_arguments_takes_the_newest_of_each(cli: Run) -> None:
    result = cli("compare", "--no-latency", "--json")
    rows = {row["name"]: row for row in json.loads(result.stdout)["rows"]}
    assert {name: row["seeds"] for name, row in rows.items()} == {"big": 1, "small": 2, "scratch": 1}
    assert rows["big"]["latency_b1_ms"] is None


def test_compare_prints_a_table_and_csv(cli: Run) -> None:
    result = cli("compare", "--no-latency", "--csv", "table.csv")
    assert result.exit_code == 0
    for word in ("big", "small", "scratch", "teacher", "student", "baseline", "thread", "torch"):
        assert word in result.stdout
    rows = list(csv.DictReader(io.StringIO(Path("table.csv").read_text())))
    assert [row["name"] for row in rows] == ["big", "scratch", "small"]
    assert set(COMPARE_ROW.split()) == set(rows[0])
    assert cli("compare", "--no-latency", "--csv", "-").stdout == Path("table.csv").read_text()


@pytest.mark.parametrize(
    "pair", [("--svg", "--plot"), ("--csv", "--svg"), ("--csv", "--plot"), ("--markdown", "--latex")]
)
def test_two_outputs_are_two_files(cli: Run, pair: tuple[str, str]) -> None:
    result = cli("compare", "--no-latency", pair[0], "both.svg", pair[1], "./both.svg")
    assert result.exit_code == 2
    assert f"{pair[0]} and {pair[1]} name one file" in result.stderr
    assert not Path("both.svg").exists()


def test_a_requirement_is_met_or_missed(cli: Run) -> None:
    assert cli("compare", "--no-latency", "--require", "student.params < teacher.params").exit_code == 0
    missed = cli("compare", "--no-latency", "--require", "student.test_top1 > 1.5", "--json")
    assert missed.exit_code == 3
    assert "missed: student.test_top1 > 1.5" in missed.stderr
    assert len(json.loads(missed.stdout)["rows"]) == 3


def test_compare_needs_finished_runs(cli: Run, tmp_path: Path) -> None:
    nothing = cli("compare", "--runs", str(tmp_path))
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert cli("compare", "nobody").exit_code == 2


def test_evaluate_names_every_class(cli: Run) -> None:
    document = json.loads(cli("evaluate", "small", "--json").stdout)
    keys = "run split top1 top5 macro_precision macro_recall macro_f1 nll ece per_class confusion"
    assert set(keys.split()) <= set(document)
    assert len(document["per_class"]) == len(document["confusion"]) == 10
    assert sum(map(sum, document["confusion"])) == 60
    assert "pattern_9" in cli("evaluate", "small", "--split", "val").stdout


# Looking around, and recipes


def test_recipes_of_ones_own(cli: Run) -> None:
    assert cli("recipe", "check", "teacher.yaml", "student.yaml").exit_code == 0
    assert "r18_small" in cli("recipe", "list").stdout
    assert cli("recipe", "copy", "quickstart_teacher", "mine.yaml").exit_code == 0
    assert Path("mine.yaml").read_text() == cli("recipe", "show", "quickstart_teacher").stdout
    full = cli("recipe", "show", "teacher.yaml", "--full").stdout
    Path("full.yaml").write_text(full)
    assert cli("recipe", "show", "full.yaml", "--full").stdout == full
    schema = json.loads(cli("recipe", "schema", "--json").stdout)
    assert {"data", "model", "train"} <= set(schema["properties"])
    wide = cli("recipe", "check", "wide.yaml")
    assert wide.exit_code == 2
    assert "r18_wide: 5,253,796 parameters, over the budget of 5,000,000" in wide.stderr


def test_models_and_doctor(cli: Run) -> None:
    assert "4,935,242 parameters" in cli("models", "r18_small").stdout
    layers = json.loads(cli("models", "student.yaml", "--json").stdout)
    assert sum(layer["params"] for layer in layers["layers"]) == layers["model"]["params"]
    assert json.loads(cli("doctor", "--json").stdout)


# What goes wrong, each with its exit code and one line


def _fails(result: Result, code: int, words: str) -> None:
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert words in errors[0]
    assert "Traceback" not in result.stderr


def test_a_budget_is_checked_before_any_data_is_read(cli: Run) -> None:
    words = "r18_wide: 5,253,796 parameters, over the budget of 5,000,000"
    for more in ((), ("--dry-run",)):
        _fails(cli("student", "--recipe", "wide.yaml", "--teacher", "big", *more), 2, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.epoch=3", "did you mean 'epochs'"),
        ("train.epochs=three", "train.epochs"),
        ("train.epochs", "train.epochs"),
        ("optim.name=sdg", "sgd"),
    ],
)
def test_a_wrong_change_is_told(cli: Run, change: str, words: str) -> None:
    _fails(cli("student", "--recipe", "student.yaml", "--set", change), 2, words)


def test_every_mistake_of_a_recipe_is_told_at_once(cli: Run) -> None:
    Path("bad.yaml").write_text(Path("student.yaml").read_text().replace("epochs:", "epoch:").replace("lr:", "lrr:"))
    result = cli("student", "--recipe", "bad.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("bad.yaml:") == 2
    assert "did you mean 'lr'?" in result.stderr
    assert "did you mean 'epochs'?" in result.stderr


def test_a_missing_teacher(cli: Run, tmp_path: Path) -> None:
    _fails(cli("student", "--recipe", "student.yaml", "--runs", str(tmp_path)), 2, "the teacher big has no run")
    _fails(cli("student", "--recipe", "student.yaml", "--teacher", "bigg"), 2, "'bigg'")
    assert not any(tmp_path.iterdir())


def test_missing_data(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    data = ("--set", "data={name: cifar10, root: nowhere}", "--runs", str(tmp_path))
    _fails(cli("teacher-finetune", "--recipe", "teacher.yaml", *data), 4, "cifar10")
    folder = ("--set", "data={name: folder, root: nowhere}", "--runs", str(tmp_path))
    _fails(cli("teacher-finetune", "--recipe", "teacher.yaml", *folder), 4, "nowhere")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("weights", ["pretrained", "lost.safetensors"])
def test_pretrained_weights_without_a_network(cli: Run, tmp_path: Path, weights: str, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    data = ("--set", "data={name: synthetic}", "--set", "model.name=resnet10t", "--set", f"model.weights={weights}")
    result = cli("teacher-finetune", *data, "--runs", str(tmp_path / "runs"), "--quiet")
    _fails(result, 4, "model.weights")
    assert "--set model.weights=none" in result.stderr or "folder" in result.stderr
    assert not (tmp_path / "runs").exists()


# As a process


def test_a_process_trains_a_student_from_another_folder(tour, tmp_path: Path) -> None:
    command = ["student", "--recipe", str(tour.folder / "student.yaml"), "--teacher", str(tour.runs / "big")]
    done = subprocess.run(
        [sys.executable, "-m", "distill", *command, "--set", "train.epochs=1", "--threads", "1", "--json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["run"] == "runs/small/001"
    assert (tmp_path / document["run"] / "checkpoints" / "best" / "model.safetensors").is_file()
    assert _info(tmp_path / document["run"])["command"][:3] == ["distill", "student", "--recipe"]
    assert "epoch 1/1" in done.stderr
    assert "Traceback" not in done.stderr


# The whole tour


def test_quickstart_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of ``distill quickstart`` but its length: digits, three recipes, the comparison."""
    tour = sys.modules["distill.pipeline.quickstart"]
    from distill.recipe import Recipe, load_recipe

    def shorter(name: str | Recipe, overrides: tuple[str, ...] = ()) -> Recipe:
        if isinstance(name, Recipe):  # loaded by this already
            return name
        return load_recipe(name, [*overrides, "train.epochs=1", "data.limit=300", "data.test_limit=100"])

    monkeypatch.setattr(tour, "load_recipe", shorter)
    monkeypatch.setattr(tour, "_DROP", 0.99)  # so little training proves nothing
    monkeypatch.chdir(tmp_path)
    result = _invoke("quickstart", "--seeds", "2", "--threads", "1", "--json")
    assert result.exit_code == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)["rows"]}
    assert {name: row["seeds"] for name, row in rows.items()} == {
        "quickstart_teacher": 1,
        "quickstart_scratch": 2,
        "quickstart_student": 2,
        "quickstart_student_int8": 1,
    }
    shipped = rows["quickstart_student_int8"]
    assert (shipped["runtime"], shipped["source_run"]) == ("onnxruntime int8", rows["quickstart_student"]["run"])
    assert Path(shipped["run"]).parent == Path(shipped["source_run"]) / "exports"
    assert rows["quickstart_student"]["params"] == 1_506
    assert all(row["latency_b1_ms"] > 0 for row in rows.values())
    table = _invoke("compare", "--no-latency")
    assert "quickstart_student" in table.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    assert _invoke("evaluate", "quickstart_student", "--json").exit_code == 0
