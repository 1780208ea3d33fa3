"""What each command asks of the library, prints, and exits with; the library is a stand-in here."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import distill.comparison
import distill.devices
import distill.evaluation.assess
import distill.pipeline
import distill.runs
from distill.cli import options
from distill.errors import BudgetError, DistillError, InterruptedRunError, MissingError, RunError, TerminatedRunError
from distill.events import EpochDone, Note, RunStarted, StepDone
from distill.pipeline import QuickstartResult, RerunResult, RunResult
from distill.results.evaluations import Evaluation, Evaluations
from distill.results.rows import Comparison, DryRun, Row

RESULT = RunResult(Path("runs/r18_small/003"), "finished", 12, 0.9345, 62.4, 12_345.6, "student")
COMPARISON = Comparison(
    (
        Row(
            "big",
            "teacher",
            "runs/big/001",
            "digits",
            "supervised",
            1,
            0.95,
            params=100,
            latency_b1_ms=2.0,
            test_set="a",
        ),
        Row("=small", "student", "runs/small/001", "digits", "kd", 1, 0.94, params=10, latency_b1_ms=1.0, test_set="a"),
    ),
    "test cpu",
    1,
    {"torch": "2"},
)


@dataclass
class Library:
    """Stands in for the verbs, and remembers what they were asked."""

    calls: list[tuple[str, tuple, dict[str, Any]]] = field(default_factory=list)
    failure: Exception | None = None

    def verb(self, name: str, answer: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            listener = kwargs.get("tell") or getattr(kwargs.get("options"), "on_event", None)
            if listener is not None:
                _tell(listener)
            if self.failure is not None:
                raise self.failure
            return answer

        return call

    @property
    def last(self) -> tuple[str, tuple, dict[str, Any]]:
        return self.calls[-1]


def _tell(listener: Callable[[Any], None]) -> None:
    listener(Note("[bold]a note[/]"))
    listener(Note("careful", "warning"))
    listener(RunStarted("runs/r18_small/003", "r18_small", "cpu", 12, 4, 8, 32, 8, 1234))
    for step in range(4):
        listener(StepDone(0, step + 1, 8 * (step + 1)))
    metrics = {"epoch": 1, "train_loss": 0.5, "train_ce": 0.41, "train_kd": 2.1, "val_top1": 0.932}
    listener(EpochDone(1, metrics, 5.0, 12_345.0, True))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    fake = Library()
    dry = DryRun("r18", "student", "d", "cpu", "fp32", 9, 1, (8, 3, 32, 32), (8, 10), 10, None, 0.1, 1, 2)
    answers = {
        "finetune_teacher": replace(RESULT, role="teacher"),
        "train_student": RESULT,
        "resume_run": RESULT,
        "rerun": RerunResult(RESULT, Path("runs/r18_small/001"), ("metrics.jsonl",)),
        "dry_run": dry,
        "quickstart": QuickstartResult((Path("runs/a/001"), Path("runs/b/001"))),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(distill.pipeline, name, fake.verb(name, answer))
    monkeypatch.setattr("distill.comparison.compare", fake.verb("compare", COMPARISON))
    return fake


# Training


def test_a_student(cli, library: Library, monkeypatch) -> None:
    monkeypatch.setattr("distill.tracking.tracked._is_installed", lambda _: True)
    result = cli(
        "student",
        "--recipe",
        "r18_small",
        "--teacher",
        "big",
        "--seed",
        "3",
        "--set",
        "train.epochs=7",
        "--threads",
        "2",
        "--runs",
        "elsewhere",
        "--device",
        "cpu",
        "--init-from",
        "old",
        "--track",
        "tensorboard",
        "--track",
        "mlflow",
    )
    assert result.exit_code == 0
    name, (recipe,), asked = library.last
    assert (name, asked["teacher"]) == ("train_student", ("big",))
    assert (recipe.name, recipe.train.seed, recipe.train.epochs) == ("r18_small", 3, 7)
    options = asked["options"]
    assert (options.runs_dir, options.device, options.devices, options.threads) == (Path("elsewhere"), "cpu", 1, 2)
    assert options.init_from == "old"
    assert options.track == ("tensorboard", "mlflow")
    assert options.command[0] == "distill"
    assert "runs/r18_small/003" in result.stdout
    assert "93.45 %" in result.stdout
    assert "next: distill compare" in result.stderr


def test_progress_and_notes_go_to_stderr_one_line_an_epoch(cli, library: Library) -> None:
    result = cli("student", "--recipe", "r18_small")
    assert "epoch" not in result.stdout.replace("epochs ", "")
    lines = result.stderr.splitlines()
    assert "note: [bold]a note[/]" in lines
    assert "warning: careful" in lines
    expected = "epoch  1/12  loss 0.500 (ce 0.41 kd 2.1)  val top-1 93.2% (best 93.2%)  12,345 images/s  55.0s left"
    assert expected in lines


def test_quiet_leaves_warnings(cli, library: Library) -> None:
    assert cli("student", "--recipe", "r18_small", "--quiet").stderr == "warning: careful\n"


@pytest.mark.parametrize(
    "args", [("teacher-finetune",), ("student", "--recipe", "r18_small"), ("student", "--resume", "x")]
)
def test_training_json(args: tuple[str, ...], cli, library: Library) -> None:
    document = json.loads(cli(*args, "--json").stdout)
    assert document == {
        "run": "runs/r18_small/003",
        "status": "finished",
        "epochs": 12,
        "val_top1": 0.9345,
        "seconds": 62.4,
        "images_per_s": 12_345.6,
        "role": "teacher" if args[0] == "teacher-finetune" else "student",
    }


def test_the_teacher_has_a_recipe_of_its_own(cli, library: Library) -> None:
    result = cli("teacher-finetune", "--devices", "2")
    name, (recipe,), asked = library.last
    assert (name, recipe.name, asked["options"].devices) == ("finetune_teacher", "resnet152_cifar10", 2)
    assert "distill student --recipe RECIPE --teacher runs/r18_small/003" in result.stderr


def test_a_teachers_images_are_its_students(cli, library: Library) -> None:
    result = cli("teacher-finetune", "--set", "data.skip_bad=true", "--set", "train.epochs=2", "--runs", "elsewhere")
    (line,) = (line for line in result.stderr.splitlines() if "next:" in line)
    assert line.endswith("--teacher runs/r18_small/003 --set data.skip_bad=true")


@pytest.mark.parametrize(
    ("option", "meant"), [("--epochs", "train.epochs"), ("--batch-size", "train.batch_size"), ("--lr", "optim.lr")]
)
def test_an_option_that_is_a_recipes_is_told_as_one(cli, option: str, meant: str) -> None:
    result = cli("student", "--recipe", "r18_small", option, "3")
    assert result.exit_code == 2
    told = " ".join(result.stderr.replace("\u2502", " ").split())
    assert f"No such option: {option} (a recipe's: --set {meant}=VALUE)" in told
    assert "--set" not in cli("compare", option, "3").stderr


@pytest.mark.parametrize("words", [("--recipe",), ("--recipe", "r18_small", "--seed"), ("--quiet=3",)])
def test_an_option_without_its_value_is_not_told_as_unknown(cli, words: tuple[str, ...]) -> None:
    result = cli("student", *words)
    assert result.exit_code == 2
    assert "No such option" not in result.stderr


def test_resuming_names_no_recipe(cli, library: Library) -> None:
    assert cli("student", "--resume", "r18_small/003").exit_code == 0
    name, args, asked = library.last
    assert (name, args, asked["options"].threads) == ("resume_run", ("r18_small/003",), None)


def test_repeating_tells_what_differs(cli, library: Library) -> None:
    result = cli("student", "--rerun", "r18_small", "--json")
    assert json.loads(result.stdout)["differences"] == ["metrics.jsonl"]
    assert "not the bytes of runs/r18_small/001" in result.stderr


def test_a_dry_run_trains_nothing(cli, library: Library) -> None:
    result = cli("student", "--recipe", "r18_small", "--teacher", "t", "--dry-run", "--json")
    name, _, asked = library.last
    assert (name, asked["teacher"]) == ("dry_run", ("t",))
    assert json.loads(result.stdout)["input_shape"] == [8, 3, 32, 32]
    assert len(library.calls) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("student",), "no recipe"),
        (("student", "--recipe", "resnet152_cifar10"), "distill teacher-finetune --recipe resnet152_cifar10"),
        (("teacher-finetune", "--recipe", "r18_small"), "distill student --recipe r18_small"),
        (("student", "--recipe", "r18_smal"), "r18_small"),
        (("student", "--recipe", "r18_small", "--set", "train.epoch=3"), "did you mean 'epochs'"),
        (("student", "--recipe", "r18_small", "--resume", "x"), "takes no --recipe"),
        (("student", "--resume", "x", "--rerun", "y"), "takes no --rerun"),
        (("student", "--resume", "x", "--seed", "1", "--teacher", "t"), "takes no --set or --seed, --teacher"),
        (("student", "--rerun", "x", "--dry-run"), "takes no --dry-run"),
        (("student", "--recipe", "r18_small", "--devices", "0"), "--devices"),
        (("student", "--recipe", "r18_small", "--seed", "x"), "--seed"),
        (("student", "--epochs", "3"), "--epochs"),
        (("studen",), "student"),
        (("compare", "--json", "--csv", "-"), "both print to stdout"),
        (("compare", "--json", "--latex", "-"), "--json and --latex - both print to stdout"),
        (("compare", "--csv", "-", "--markdown", "-"), "--csv - and --markdown - both print to stdout"),
        (("compare", "--require", "student.test_top1"), "--require"),
        (("evaluate",), "RUN"),
        (("evaluate", "x", "--split", "train"), "--split"),
        (("evaluate", "x", "--corruption-images", "30"), "without --corruptions"),
        (("report", "--no-latency", "--overwrite"), "--no-latency, --overwrite: of a page alone"),
        (("certify", "x.onnx", "--prove"), "--prove without --max-drop"),
        (("sweep", "--grid", "optim.lr=1"), "no recipe"),
        (("sweep", "--recipe", "r18_small", "--search", "optim.lr=1:2"), "--trials"),
        (("sweep", "--recipe", "r18_small", "--search", "optim.lr=1:2", "--trials", "3", "--grid", "a=b"), "exclude"),
        (("sweep", "--resume", "x", "--seeds", "5", "--no-prune"), "takes no --seeds, --no-prune"),
        (("prune", "x", "--macs", "0.5", "--no-train", "--epochs", "3"), "--epochs with --no-train"),
        (("quantize", "x", "--no-train", "--epochs", "3"), "--epochs with --no-train"),
        (("cache", "build"), "no recipe"),
        (("recipe", "show", "nobody"), "nobody"),
    ],
)
def test_wrong_usage_is_told_and_exits_with_2(args: tuple[str, ...], words: str, cli, library: Library) -> None:
    result = cli(*args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""
    assert library.calls == []


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (RunError("runs/x/003 is [red]taken[/]", hint="wait"), 1, "error: runs/x/003 is [red]taken[/]\nhint:  wait\n"),
        (BudgetError("one\ntwo"), 2, "error: one\n       two\n"),
        (MissingError("no \x1b[31mweights"), 4, "error: no \\x1b[31mweights\n"),
        (InterruptedRunError("interrupted", hint="go on"), 130, "stopped: interrupted\nhint:  go on\n"),
        (TerminatedRunError("terminated"), 143, "stopped: terminated\n"),
        (KeyboardInterrupt(), 130, "stopped: interrupted\n"),
    ],
)
def test_errors_are_lines_and_exit_codes(error: DistillError, code: int, shown: str, cli, library: Library) -> None:
    library.failure = error
    result = cli("student", "--recipe", "r18_small", "--quiet", "--json")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == f"warning: careful\n{shown}"


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        ("put it into /data; or name the folder that holds it: --set data.root=PATH", "put it into /data"),
        ("name a folder: --set data.root=FOLDER; or a set of the hub: --set data.options.path=NAME", "THERE"),
        ("did you mean --set data.root=photos/x?", "photos/x? THERE"),
        (
            "if it is not, unpack it yourself; name the folder: --set data.root=PATH",
            "if it is not, unpack it yourself; THERE",
        ),
        ("leave out --calibrated, or train with some: --set data.val_fraction=0.1", None),
    ],
)
def test_hints_about_images_where_nothing_can_be_set(hint: str, told: str | None) -> None:
    there = "put the images, or a link to them, where the recipe says (data.root)"
    assert options.hint_of_a_run(hint) == (told.replace("THERE", there) if told is not None else hint)


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("student", "--recipe", "r18_small"), "name a folder: --set data.root=PATH; one of classes"),
        (("compare", "big"), "put the images, or a link to them, where the recipe says (data.root); one of classes"),
    ],
)
def test_a_hint_names_no_option_that_the_command_lacks(args: tuple[str, ...], hint: str, cli, library: Library) -> None:
    library.failure = MissingError("no images", hint="name a folder: --set data.root=PATH; one of classes")
    result = cli(*args)
    assert result.exit_code == 4
    assert result.stderr.endswith(f"error: no images\nhint:  {hint}\n")


def test_a_bug_is_no_line(cli, library: Library) -> None:
    library.failure = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        cli("student", "--recipe", "r18_small")


def test_runs_by_environment(cli, library: Library) -> None:
    cli("student", "--recipe", "r18_small", DISTILL_RUNS="from/env")
    assert library.last[2]["options"].runs_dir == Path("from/env")


# Comparing


def test_compare(cli, library: Library) -> None:
    result = cli("compare", "big", "small", "--no-latency", "--device", "cpu", "--threads", "3")
    name, (references,), asked = library.last
    assert (name, references, asked["latency"], asked["threads_used"]) == ("compare", ["big", "small"], False, 3)
    assert "95.00" in result.stdout
    assert "test cpu, 1 thread" in result.stdout


def test_compare_json(cli, library: Library) -> None:
    document = json.loads(cli("compare", "--json").stdout)
    assert [row["name"] for row in document["rows"]] == ["big", "=small"]
    assert {"device", "threads", "versions"} <= set(document)


def test_compare_csv_to_stdout_and_to_a_file(cli, library: Library) -> None:
    rows = list(csv.DictReader(io.StringIO(cli("compare", "--csv", "-").stdout)))
    assert [row["name"] for row in rows] == ["big", "'=small"]
    result = cli("compare", "--csv", "out/table.csv")
    assert list(csv.DictReader(io.StringIO(Path("out/table.csv").read_text()))) == rows
    assert "95.00" in result.stdout
    assert "wrote out/table.csv" in result.stderr


@pytest.mark.parametrize("option", ["--markdown", "--latex"])
def test_compare_writes_a_table_for_a_readme_and_a_paper(cli, library: Library, option: str) -> None:
    printed = cli("compare", option, "-").stdout
    result = cli("compare", option, "table.txt")
    assert Path("table.txt").read_text() == printed
    assert "95.00" in printed
    assert "95.00" in result.stdout
    assert "wrote table.txt" in result.stderr


@pytest.mark.parametrize("option", ["--csv", "--markdown", "--latex", "--svg", "--plot"])
def test_compare_replaces_what_it_made_itself_and_nothing_else(cli, library: Library, option: str) -> None:
    suffix = ".svg" if option in ("--svg", "--plot") else ""
    mine, own = Path(f"mine{suffix}"), Path(f"own{suffix}")
    mine.write_text("<svg>name,of,mine</svg>")
    refused = cli("compare", option, mine)
    assert (refused.exit_code, mine.read_text()) == (2, "<svg>name,of,mine</svg>")
    assert re.search(r"mine(\.svg)? is there.*\n.*--overwrite", refused.stderr)
    assert cli("compare", option, own).exit_code == 0
    before = own.read_bytes()
    assert cli("compare", option, own).exit_code == 0
    assert own.read_bytes() == before
    assert cli("compare", option, mine, "--overwrite").exit_code == 0
    assert mine.read_bytes() == before


@pytest.mark.parametrize("place", [".", "/"])
@pytest.mark.parametrize(
    "command",
    [
        *(("compare", option) for option in ("--csv", "--markdown", "--latex", "--svg", "--plot")),
        ("report", "--html"),
        ("card", "r", "--out"),
    ],
)
def test_a_folder_is_no_file(cli, monkeypatch, command: tuple[str, ...], place: str) -> None:
    monkeypatch.setattr(distill.comparison, "compare", lambda *_, **__: pytest.fail("measured"))
    result = cli(*command, place)
    assert result.exit_code == 2
    assert f"{place} is a folder" in result.stderr


def test_compare_pictures(cli, library: Library) -> None:
    assert cli("compare", "--svg", "t.svg", "--plot", "p.png").exit_code == 0
    assert "<svg" in Path("t.svg").read_text()
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")


def test_a_missed_gate_exits_with_3_after_the_table(cli, library: Library) -> None:
    met, wrong = "student.test_top1 >= teacher.test_top1 - 0.02", "student.test_top1 >= teacher.test_top1"
    assert cli("compare", "--require", met).exit_code == 0
    result = cli("compare", "--require", met, "--require", wrong, "--json")
    assert result.exit_code == 3
    assert len(json.loads(result.stdout)["rows"]) == 2
    assert f"error: missed: {wrong}" in result.stderr


def test_a_gate_about_nobody_is_wrong_usage(cli, library: Library) -> None:
    assert cli("compare", "--require", "nobody.test_top1 > 0").exit_code == 2


def test_quickstart_ends_with_the_comparison(cli, library: Library) -> None:
    result = cli("quickstart", "--runs", "tour")
    assert [name for name, _, _ in library.calls] == ["quickstart", "compare"]
    assert library.last[1] == (["runs/a/001", "runs/b/001"],)
    assert "95.00" in result.stdout
    assert "--runs tour" in result.stderr


# Looking around: no stand-ins


def test_recipe_list_show_copy_check_schema(cli, tmp_path: Path) -> None:
    rows = json.loads(cli("recipe", "list", "--json").stdout)
    assert {"name", "role", "dataset", "model", "objective", "teacher", "epochs", "purpose"} == set(rows[0])
    shown = cli("recipe", "show", "r18_small")
    assert shown.stdout.startswith("# ")
    assert cli("recipe", "copy", "r18_small", "mine.yaml").exit_code == 0
    assert (tmp_path / "mine.yaml").read_text() == shown.stdout
    assert cli("recipe", "show", "mine.yaml", "--full").stdout.startswith("schema_version: 1")
    assert "epochs: 3" in cli("recipe", "show", "mine.yaml", "--set", "train.epochs=3").stdout
    checked = cli("recipe", "check", "mine.yaml", "quickstart_teacher")
    assert checked.stdout.startswith("mine.yaml: ok, 4,935,242 parameters\nquickstart_teacher: ok")
    assert json.loads(cli("recipe", "schema", "--json").stdout)["$defs"]
    assert "train.batch_size" in cli("recipe", "schema").stdout


def test_a_copy_does_not_overwrite(cli) -> None:
    Path("mine.yaml").write_text("precious")
    result = cli("recipe", "copy", "r18_small", "mine.yaml")
    assert (result.exit_code, Path("mine.yaml").read_text()) == (2, "precious")
    assert cli("recipe", "copy", "r18_small", "mine.yaml", "--overwrite").exit_code == 0
    assert cli("recipe", "copy", "r18_small", ".").exit_code == 0
    assert Path("r18_small.yaml").read_text() == Path("mine.yaml").read_text()


def test_a_copy_brings_the_schema_that_it_names(cli) -> None:
    assert cli("recipe", "copy", "r18_small", "mine.yaml").exit_code == 0
    named = re.search(r"yaml-language-server: \$schema=(\S+)", Path("mine.yaml").read_text())[1]
    assert json.loads(Path(named).read_text())["$defs"]["SGD"]["properties"]["lr"]
    Path(named).write_text("my own")
    assert cli("recipe", "copy", "r453", "other.yaml").exit_code == 0
    assert Path(named).read_text() == "my own"


def test_check_tells_the_mistakes_of_all_files(cli) -> None:
    Path("bad.yaml").write_text("name: x\nroll: student\n")
    result = cli("recipe", "check", "bad.yaml", "r18_small", "nobody")
    assert result.exit_code == 2
    assert "bad.yaml:2" in result.stderr
    assert "nobody" in result.stderr
    assert "r18_small: ok" in result.stdout


def test_check_holds_the_budget(cli) -> None:
    result = cli("recipe", "check", "r18_small", "--set", "model.channels=[64, 128, 256, 512]")
    assert result.exit_code == 2
    assert "over the budget of 5,000,000" in result.stderr


def test_check_tells_what_is_larger_than_the_images(cli) -> None:
    wide = "augment={crop_padding: 40, crop_fill: reflect}"
    result = cli("recipe", "check", "r18_small", "lenet_cifar10", "--set", wide)
    assert result.exit_code == 2
    assert "r18_small: augment.crop_padding: 40 cannot be reflected in an image of 32 pixels" in result.stderr
    assert "lenet_cifar10: augment.crop_padding" in result.stderr
    assert cli("recipe", "check", "r18_small", "--set", wide, "--set", "data.image_size=64").exit_code == 0


_CANNOT = "model={source: timm, name: halonet26t, weights: none, input_size: 32}"


def test_check_tells_what_no_first_step_could(cli) -> None:
    result = cli("recipe", "check", "resnet18_cifar100", "nobody", "--set", _CANNOT)
    assert result.exit_code == 2
    assert "halonet26t cannot take images of 32 pixels" in result.stderr
    assert "sizes that it takes: 256" in result.stderr
    assert "nobody" in result.stderr


def test_check_looks_at_the_network_where_the_data_is_elsewhere(cli) -> None:
    result = cli("recipe", "check", "quickstart_teacher", "--set", "data={name: folder, root: gone}", "--set", _CANNOT)
    assert result.exit_code == 2
    assert "halonet26t cannot take images of 32 pixels" in result.stderr
    fine = cli("recipe", "check", "quickstart_teacher", "--set", "data={name: folder, root: gone}")
    assert fine.stdout == "quickstart_teacher: ok, parameters not counted: its data is not here\n"


def test_an_image_that_does_not_fit_is_told_before_a_folder_exists(cli, tmp_path: Path) -> None:
    for more in ([], ["--dry-run"]):
        result = cli("teacher-finetune", "--recipe", "quickstart_teacher", "--set", _CANNOT, *more)
        assert result.exit_code == 2
        assert "cannot take images of 32 pixels" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_models_one_by_one(cli) -> None:
    document = json.loads(cli("models", "r18_small", "--json").stdout)
    assert document["model"]["params"] == 4_935_242
    assert set(document["model"]) == {
        "name",
        "role",
        "source",
        "params",
        "gmacs",
        "input_size",
        "num_classes",
        "origin",
    }
    assert sum(layer["params"] for layer in document["layers"]) == 4_935_242
    assert "4,935,242 parameters" in cli("models", "r18_small").stdout


def test_models_of_all_recipes(cli) -> None:
    rows = {row["name"]: row for row in json.loads(cli("models", "--json").stdout)}
    assert rows["resnet152_cifar10"]["params"] == 58_156_618
    assert rows["r18_small"]["num_classes"] == 10


def test_doctor(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    result = cli("doctor")
    assert result.exit_code == 0
    assert "torch" in result.stdout
    assert {"topic", "name", "status", "detail", "fix"} == set(json.loads(cli("doctor", "--json").stdout)[0])
    monkeypatch.setattr("distill.report.doctor._INSTALLED", ("no-such-package",))
    broken = cli("doctor")
    assert broken.exit_code == 4
    assert "no-such-package" in broken.stderr


# Runs on disk, without a network


def test_evaluate(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from distill.results.metrics import EvalResult, PerClass

    classes = tuple(PerClass(f"[c{n}]", 0.5, 0.5, 0.5, 0.5, 2) for n in range(2))
    metrics = EvalResult(0.5, None, 0.5, 0.5, 0.5, 0.7, 0.1, 4, classes, ((1, 1), (1, 1)))
    found = Evaluation("runs/a/001", "test", metrics, ("runs/a/001/evaluation/confusion_test.svg",))
    asked: dict[str, Any] = {}

    def evaluate_runs(runs: list[str], **kwargs: Any) -> Evaluations:
        asked.update(kwargs, runs=runs)
        return Evaluations((found,) * len(runs), tuple(runs), ("student",) * len(runs))

    monkeypatch.setattr(distill.pipeline, "evaluate_runs", evaluate_runs)
    result = cli("evaluate", "a", "--device", "cpu")
    assert (asked["runs"], asked["split"], asked["again"], asked["plots"]) == (["a"], "test", False, True)
    assert not any(asked[name] for name in ("calibrated", "corruptions", "figure"))
    assert "[c1]" in result.stdout
    assert "wrote runs/a/001/evaluation/confusion_test.svg" in result.stderr
    document = json.loads(cli("evaluate", "a", "--json", "--no-plots").stdout)
    keys = "run split top1 top5 macro_precision macro_recall macro_f1 nll ece per_class confusion"
    assert set(keys.split()) <= set(document)
    several = json.loads(cli("evaluate", "a", "b", "--corruptions", "--json").stdout)
    assert (asked["runs"], asked["figure"]) == (["a", "b"], Path("corruptions.svg"))
    assert (len(several["runs"]), several["against"], several["figure"]) == (2, [], None)


def test_a_figure_that_evaluate_cannot_draw(cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(distill.pipeline, "evaluate_runs", lambda *_, **__: pytest.fail("measured"))
    (tmp_path / "mine.svg").write_text("<svg/>")
    for args, said in (
        (("a", "--corruptions", "--figure", "x.svg"), "of several runs"),
        (("a", "b", "--figure", "x.svg"), "of several runs"),
        (("a", "b", "--corruptions", "--figure", "x.txt"), "pictures are .svg"),
        (("a", "b", "--corruptions", "--figure", str(tmp_path / "mine.svg")), "did not draw it"),
    ):
        result = cli("evaluate", *args)
        assert (result.exit_code, said in result.stderr) == (2, True)


def test_report_without_runs_says_so(cli) -> None:
    result = cli("report")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no run below runs" in result.stderr
    assert json.loads(cli("report", "--json").stdout) == []


def test_report_of_nobody(cli) -> None:
    assert cli("report", "nobody").exit_code == 2


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("--plot", "x.txt", "pictures are .svg, .png or .pdf"),
        ("--svg", "best.onnx", "pictures are .svg, .png or .pdf"),
        ("--svg", "x.png", "x.png: this picture is an .svg"),
    ],
)
def test_a_picture_that_cannot_be_is_refused_before_anything_is_measured(cli, monkeypatch, option, name, said) -> None:
    monkeypatch.setattr(distill.comparison, "compare", lambda *_, **__: pytest.fail("measured"))
    result = cli("compare", option, name)
    assert result.exit_code == 2
    assert said in result.stderr
