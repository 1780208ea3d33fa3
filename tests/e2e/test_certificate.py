"""Certificates: what they say is held against numpy and the bare runtime; edits and other files are noticed."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from distill.certificate import certify, lineage, verify_file
from distill.certificate import images as images_module
from distill.certificate.images import Images
from distill.cli import app
from distill.data.splits import Splits, load_splits
from distill.errors import GateMissedError, MissingError, RunError, UsageError
from distill.events import silent
from distill.files import json_sha256
from distill.models.onnx_open import open_onnx
from distill.models.trained import load_trained
from distill.pipeline import Options, RunResult, export, quantize, train_student
from distill.recipe.schema import DataSpec
from distill.results.certificate import Certificate, Step
from distill.runs import RunFolder

SECONDS = 0.05


def _cli(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def shipped(
    teacher_run: RunResult, student_recipe: Callable, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """A student's run, its fp32 file and its int8 file."""
    root = tmp_path_factory.mktemp("certified")
    options = Options(runs_dir=root / "runs", threads=1, command=("distill", "student", "--recipe", "a student.yaml"))
    recipe = student_recipe("name=student", "train.epochs=1", "teacher.logits=live")
    run = train_student(recipe, teacher=str(teacher_run.run), options=options).run
    exported = export(run, out=root / "exports" / "student_fp32.onnx").file
    quantized = quantize(run, out=root / "exports" / "student_int8.onnx", max_drop=0.9, calibration_images=40).file
    return run, exported, quantized


@pytest.fixture(scope="module")
def certified(shipped: tuple[Path, Path, Path]) -> tuple[Path, Certificate]:
    options = Options(runs_dir=shipped[0].parents[1])
    made = certify(shipped[2], max_drop=0.9, budgets={"size_mb": 1.0}, seconds=SECONDS, options=options)
    return made.path, made.certificate


@pytest.fixture
def copied(shipped: tuple[Path, Path, Path], certified: tuple[Path, Certificate], tmp_path: Path) -> tuple[Path, Path]:
    """The int8 file and its certificate, in a folder of the test's own."""
    file, certificate = (Path(shutil.copy(each, tmp_path)) for each in (shipped[2], certified[0]))
    return file, certificate


def _answers(file: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": pixels})[0].argmax(1)


def _wilson(right: int, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    centre = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(right * (n - right) / n + z * z / 4)
    return centre - half, centre + half


def test_what_it_says_of_the_file_is_what_the_file_does(
    shipped: tuple[Path, Path, Path], certified: tuple[Path, Certificate], teacher_run: RunResult
) -> None:
    run, _, file = shipped
    path, certificate = certified
    assert path == file.with_name("student_int8.certificate.json")
    assert certificate.file.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert certificate.file.size_bytes == len(file.read_bytes())
    splits = load_splits(RunFolder(run).recipe().data)
    for split, part in (("test", splits.test), ("val", splits.val)):
        right = _answers(file, part.take(slice(None))) == part.labels
        (accuracy,) = (each for each in certificate.accuracy if each.split == split)
        assert accuracy.top1 == pytest.approx(right.mean())
        assert (accuracy.low, accuracy.high) == pytest.approx(_wilson(int(right.sum()), len(right)))
        bits = np.unpackbits(np.frombuffer(base64.b64decode(accuracy.right), dtype=np.uint8), count=len(right))
        assert (bits.astype(bool) == right).all()
        theirs = np.load(teacher_run.run / "evaluation" / f"{split}_logits.npy").argmax(1) == part.labels
        (drop,) = (each for each in certificate.drops if (each.split, each.reference) == (split, "teacher"))
        assert drop.estimate == pytest.approx(theirs.mean() - right.mean())
        assert drop.reference_top1 == pytest.approx(theirs.mean())
    assert {each.reference for each in certificate.drops} == {"run", "teacher"}
    assert certificate.machine.affinity
    assert certificate.versions["onnxruntime"] == onnxruntime.__version__
    assert set(certificate.latency) == {"1", "32"}
    for each in certificate.latency.values():
        assert (each.p99_ms is None) == (each.n < 662)
        assert 0 < each.median_ms <= each.p90_ms


def test_which_images_each_step_read(shipped: tuple[Path, Path, Path], certified: tuple[Path, Certificate]) -> None:
    """Digests worked out anew, the calibration images among them."""
    splits = load_splits(RunFolder(shipped[0]).recipe().data)
    certificate = certified[1]

    def digests(pixels: np.ndarray) -> list[bytes]:
        return [hashlib.sha256(image.tobytes()).digest() for image in pixels]

    training = digests(splits.train.take(slice(None)))
    wanted = {
        "training": training,
        "validation": digests(splits.val.take(slice(None))),
        "test": digests(splits.test.take(slice(None))),
        "calibration": [training[int(at)] for at in np.linspace(0, len(training) - 1, 40)],
    }
    assert {each.name: each.sha256 for each in certificate.parts} == {
        name: hashlib.sha256(b"".join(of)).hexdigest() for name, of in wanted.items()
    }
    shared = {(each.one, each.other): each.images for each in certificate.overlaps}
    for (one, other), images in shared.items():
        assert images == len(set(wanted[one]) & set(wanted[other]))
    assert set(shared) == {
        ("training", "validation"), ("calibration", "validation"), ("training", "test"), ("validation", "test"),
        ("calibration", "test"), ("calibration", "training"),
    }  # fmt: skip
    assert certificate.disjoint is (not any(n for pair, n in shared.items() if pair != ("calibration", "training")))
    teacher, student, file = certificate.steps
    assert [each.what for each in certificate.steps] == ["trained", "trained", "quantised"]
    assert student.reads == {"taught": "training", "chose the epoch": "validation"}
    assert file.reads == {"set the ranges": "calibration", "chose the scheme": "validation"}
    assert student.command == "distill student --recipe 'a student.yaml'"
    assert file.repeat == f"distill quantize {shipped[0]} --calibration-images 40 --max-drop 0.9"
    assert teacher.seeds == {"train": 0, "split": 0, "view": 0}
    assert student.fingerprint == splits.fingerprint


def test_what_repeats_a_file_writes_its_bytes_again(shipped: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run = shipped[0]
    options = Options(runs_dir=run.parents[1])
    exported = export(run, out=tmp_path / "calibrated.onnx", calibrated=True).file
    quantized = quantize(run, out=tmp_path / "int8.onnx", max_drop=0.9, calibration_images=30).file
    for number, file in enumerate((exported, quantized)):
        step = certify(file, seconds=SECONDS, options=options).certificate.steps[-1]
        again = tmp_path / f"again{number}.onnx"
        arguments = shlex.split(step.repeat)[1:]
        assert _cli(*arguments, "--out", again, "--runs", run.parents[1], "-q")[0] == 0
        one, two = (replace(open_onnx(each).about, scheme="") for each in (again, file))
        assert one == two  # of int8 schemes that are as fast, timing takes either
        if number == 0:
            assert step.reads["fitted the temperature"] == "validation"
            assert again.read_bytes() == file.read_bytes()


def test_a_file_that_more_decided_than_it_says_is_not_said_to_be_repeated(
    shipped: tuple[Path, Path, Path], teacher_run: RunResult, tmp_path: Path
) -> None:
    """Held against another run, as a chain does, which no option of ``distill quantize`` asks for."""
    file = quantize(shipped[0], against=teacher_run.run, out=tmp_path / "int8.onnx", max_drop=0.9).file
    made = certify(file, seconds=SECONDS, options=Options(runs_dir=shipped[0].parents[1]))
    assert made.certificate.steps[-1].repeat is None


def test_images_that_taught_and_judge_are_counted(
    shipped: tuple[Path, Path, Path], teacher_run: RunResult, student_recipe: Callable, tmp_path: Path
) -> None:
    """A student of another split than its teacher's: what validates it was the teacher's to learn."""
    recipe = student_recipe("name=other", "train.epochs=1", "teacher.logits=live", "data.split_seed=3")
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    run = train_student(recipe, teacher=str(teacher_run.run), options=options).run
    file = export(run, out=tmp_path / "other.onnx").file
    certificate = certify(file, seconds=SECONDS, options=options).certificate
    ours, theirs = load_splits(recipe.data), load_splits(RunFolder(teacher_run.run).recipe().data)
    expected = len(set(ours.val.index.tolist()) & set(theirs.train.index.tolist()))
    name = f"training of {teacher_run.run}"
    shared = {(each.one, each.other): each.images for each in certificate.overlaps}
    assert expected > 0
    assert shared[name, "validation"] == expected
    assert not certificate.disjoint
    assert certificate.steps[0].reads["taught"] == name
    assert shared["training", "validation"] == 0


def test_it_holds_on_the_machine_that_it_is_of(copied: tuple[Path, Path]) -> None:
    found = verify_file(copied[0], latency=False)
    assert not found.fails
    assert [each.what for each in found.unchecked] == []
    assert found.same_machine
    code, stdout, stderr = _cli("verify", copied[0], "--no-latency", "--json", "-q")
    assert (code, json.loads(stdout)["holds"]) == (0, True), stderr


def _edited(path: Path, edit: Callable[[dict[str, Any]], None], *, reseal: bool = False) -> None:
    tree = json.loads(path.read_text())
    edit(tree)
    if reseal:
        del tree["seal"]
        tree["seal"] = json_sha256(tree)
    path.write_text(json.dumps(tree, indent=2))


def _more_accurate(tree: dict[str, Any]) -> None:
    tree["accuracy"][1]["top1"] += 0.01


def _faster(tree: dict[str, Any]) -> None:
    tree["latency"]["1"]["median_ms"] /= 1000


def _more_seal(tree: dict[str, Any]) -> None:
    tree["seal"] = "0" * 64


def _new_key(tree: dict[str, Any]) -> None:
    tree["approved"] = True


@pytest.mark.parametrize("edit", [_more_accurate, _faster, _more_seal, _new_key])
def test_an_edited_certificate_is_noticed_before_anything_is_measured(
    copied: tuple[Path, Path], edit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    _edited(copied[1], edit)
    monkeypatch.setattr("distill.certificate.verify.time_file", lambda *_, **__: pytest.fail("measured"))
    code, stdout, stderr = _cli("verify", copied[0], "-q")
    assert (code, stdout) == (3, "")
    assert stderr.startswith(f"error: {copied[1]} was edited")
    assert len(stderr.splitlines()) == 2


def test_who_seals_an_edit_too_is_caught_by_measuring(copied: tuple[Path, Path]) -> None:
    """Answers that the file does not give, sealed anew: the seal is no signature, the measurement is."""

    def all_right(tree: dict[str, Any]) -> None:
        for each in tree["accuracy"]:
            each["top1"] = 1.0
            each["right"] = base64.b64encode(np.packbits(np.ones(each["images"], dtype=bool)).tobytes()).decode()

    _edited(copied[1], all_right, reseal=True)
    code, stdout, stderr = _cli("verify", copied[0], "--no-latency", "--json", "-q")
    failed = [each["what"] for each in json.loads(stdout)["lines"] if each["state"] == "fails"]
    assert code == 3
    assert "test top-1, %" in failed
    assert "does not hold here: " in stderr


def _fewer_images(tree: dict[str, Any]) -> None:
    tree["drops"][0] |= {"images": 8, "right": "/w=="}


def _no_bits(tree: dict[str, Any]) -> None:
    tree["accuracy"][0]["right"] = "no bits"


def _text_for_a_number(tree: dict[str, Any]) -> None:
    tree["latency"]["1"]["median_ms"] = "fast"


def _no_answers(tree: dict[str, Any]) -> None:
    tree["accuracy"][0] |= {"images": 0, "right": ""}


@pytest.mark.parametrize("edit", [_fewer_images, _no_bits, _text_for_a_number, _no_answers, _new_key])
def test_a_certificate_that_makes_no_sense_is_one_line(copied: tuple[Path, Path], edit: Callable) -> None:
    _edited(copied[1], edit, reseal=True)
    code, stdout, stderr = _cli("verify", copied[0], "--no-latency", "-q")
    assert (code, stdout) == (1, "")
    assert "damaged" in stderr
    assert len([line for line in stderr.splitlines() if not line.startswith("hint")]) == 1


def test_another_file_under_its_name_is_noticed(copied: tuple[Path, Path], shipped: tuple[Path, Path, Path]) -> None:
    shutil.copy(shipped[1], copied[0])
    code, stdout, stderr = _cli("verify", copied[0], "-q")
    assert (code, stdout) == (3, "")
    assert "is not the file that" in stderr


def test_a_budget_that_does_not_hold_here_is_exit_code_3(copied: tuple[Path, Path]) -> None:
    def tighter(tree: dict[str, Any]) -> None:
        tree["promises"] = [{"quantity": "size_mb", "limit": 1e-6, "measured": 1e-7}]

    _edited(copied[1], tighter, reseal=True)
    code, stdout, _ = _cli("verify", copied[0], "--no-latency", "--json", "-q")
    assert code == 3
    (line,) = (each for each in json.loads(stdout)["lines"] if each["what"] == "budget size_mb")
    assert (line["state"], line["certified"]) == ("fails", "<= 1e-06")


def test_another_machine_is_shown_and_not_judged(copied: tuple[Path, Path]) -> None:
    def elsewhere(tree: dict[str, Any]) -> None:
        tree["machine"]["cpu"] = "Another 1"
        tree["latency"]["1"]["median_ms"] = 1e-6

    _edited(copied[1], elsewhere, reseal=True)
    found = verify_file(copied[0], seconds=SECONDS)
    assert not found.same_machine
    (line,) = (each for each in found.lines if each.what == "median ms at batch 1")
    assert line.state == "not judged"


def test_slower_than_certified_fails_on_the_same_machine(copied: tuple[Path, Path]) -> None:
    def faster(tree: dict[str, Any]) -> None:
        tree["latency"]["1"]["median_ms"] = 1e-6

    _edited(copied[1], faster, reseal=True)
    (line,) = (each for each in verify_file(copied[0], seconds=SECONDS).lines if each.what == "median ms at batch 1")
    assert line.state == "fails"


def test_a_machine_that_became_slower_is_no_slower_file(copied: tuple[Path, Path]) -> None:
    """The fixed graph was as much faster then as the file: both are a hundred times as slow now."""

    def both_faster(tree: dict[str, Any]) -> None:
        for each in tree["latency"].values():
            each["median_ms"] /= 100
            each["pace_ms"] /= 100

    _edited(copied[1], both_faster, reseal=True)
    found = verify_file(copied[0], seconds=1.0, slack=3.0)  # nobody knows what this machine does besides
    assert {each.state for each in found.lines if each.what.startswith("median")} == {"holds"}


def test_what_cannot_be_checked_is_exit_code_4(copied: tuple[Path, Path]) -> None:
    def other_images(tree: dict[str, Any]) -> None:
        for each in [*tree["accuracy"], *tree["drops"]]:
            each["content"] = "0" * 64

    _edited(copied[1], other_images, reseal=True)
    code, stdout, stderr = _cli("verify", copied[0], "--no-latency", "--json", "-q")
    assert (code, json.loads(stdout)["holds"]) == (4, False)
    assert "could not be checked" in stderr


# What is promised


def test_a_promise_that_does_not_hold_leaves_no_certificate(shipped: tuple[Path, Path, Path], tmp_path: Path) -> None:
    runs = shipped[0].parents[1]
    for options, said in (
        ({"budgets": {"params": 10.0}}, "params is"),
        ({"max_drop": 0.0, "prove": True}, "val images"),
    ):
        with pytest.raises(GateMissedError, match=said):
            certify(shipped[2], **options, seconds=SECONDS, out=tmp_path / "c.json", options=Options(runs_dir=runs))
        assert list(tmp_path.iterdir()) == []
    made = certify(
        shipped[2],
        budgets={"params": 10.0},
        require=False,
        seconds=SECONDS,
        out=tmp_path / "c.json",
        options=Options(runs_dir=runs),
    )
    assert made.certificate.promises[0].measured > 10.0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--budget", "speed <= 2"), 2, "a quantity, <=, and a number"),
        (("--budget", "size_mb < 2"), 2, "a quantity, <=, and a number"),
        (("--budget", "size_mb <= fast"), 2, "no number above 0"),
        (("--budget", "size_mb <= nan"), 2, "no number above 0"),
        (("--budget", "size_mb <= 1", "--budget", "size_mb <= 2"), 2, "has a budget already"),
        (("--out", "c.txt"), 2, "is a JSON file"),
        (("--out", f"{__file__}/c.json"), 2, "is no folder"),
        (("--run", "nowhere"), 2, "nowhere"),
    ],
)
def test_bad_input_is_one_line(shipped: tuple[Path, Path, Path], arguments: tuple, code: int, said: str) -> None:
    runs = shipped[0].parents[1]
    found, stdout, stderr = _cli("certify", shipped[2], "--runs", runs, "-q", "--seconds", SECONDS, *arguments)
    assert (found, stdout) == (code, ""), stderr
    assert said in stderr
    assert len([line for line in stderr.splitlines() if not line.startswith("hint")]) == 1


def test_a_file_whose_run_is_not_here(shipped: tuple[Path, Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not below"):
        certify(shipped[2], seconds=SECONDS, options=Options(runs_dir=tmp_path))
    made = certify(
        shipped[2], run=shipped[0], seconds=SECONDS, out=tmp_path / "c.json", options=Options(runs_dir=tmp_path)
    )
    assert made.certificate.steps[-2].subject == str(shipped[0])


def test_the_run_of_a_chains_file_is_found_in_its_chain(shipped: tuple[Path, Path, Path], tmp_path: Path) -> None:
    chain = tmp_path / "compressed" / "student"
    shutil.copytree(shipped[0], chain / "trials" / "0.5000" / "001", symlinks=True)
    file = chain / "exports" / "student_to50_int8.onnx"
    file.parent.mkdir()
    shutil.copy(shipped[2], file)
    options = Options(runs_dir=tmp_path / "runs")
    with pytest.raises(UsageError, match="is not below"):
        certify(file, seconds=SECONDS, options=options)
    (chain / "chain.json").write_text("{}")
    *_, step, choice, _ = certify(file, seconds=SECONDS, options=options).certificate.steps
    assert Path(step.subject).resolve() == (chain / "trials" / "0.5000" / "001").resolve()
    assert (choice.subject, choice.reads) == (str(chain), {"chose this network": "validation"})


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"teacher": {"run": "gone/001", "name": "gone", "sha256": "0" * 64}}, "gone/001"),
        ({"init_from": "lost/7"}, "lost/7"),
    ],
)
def test_a_step_whose_images_nobody_knows_is_told(
    shipped: tuple[Path, Path, Path], tmp_path: Path, changes: dict[str, Any], subject: str
) -> None:
    run = tmp_path / "runs" / "student" / "001"
    shutil.copytree(shipped[0], run, symlinks=True)
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | changes))
    options = Options(runs_dir=tmp_path / "runs")
    certificate = certify(shipped[2], seconds=SECONDS, out=tmp_path / "c.json", options=options).certificate
    assert certificate.disjoint is None
    (step,) = (each for each in certificate.steps if each.subject == subject)
    assert step.reads["taught"].startswith("not known")


def test_weights_that_no_run_made_may_know_the_test_images(student_recipe: Callable, tmp_path: Path) -> None:
    weights = tmp_path / "theirs.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=10).state_dict(), weights)
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    settings = ("name=tuned", "role=baseline", "teacher=null", "objective={kind: supervised}", "train.epochs=1")
    model = f"model={{source: timm, name: test_resnet, weights: {weights}}}"
    run = train_student(student_recipe(*settings, model), options=options).run
    file = export(run, out=tmp_path / "exports" / "tuned.onnx").file
    certificate = certify(file, seconds=SECONDS, options=options).certificate
    assert certificate.disjoint is None
    begun, trained = certificate.steps[:2]
    assert (begun.what, begun.subject, trained.subject) == ("initial weights, from elsewhere", str(weights), str(run))
    assert begun.reads["taught"].startswith("not known")


@pytest.mark.parametrize("begun", [False, True])
def test_runs_that_name_each_other_are_read_once_each_and_not_believed(
    shipped: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """Each the other's teacher, and what the other began with: followed to its end, a circle has no end."""
    runs = [tmp_path / "runs" / "student" / number for number in ("001", "002")]
    for run, other in (runs, runs[::-1]):
        shutil.copytree(shipped[0], run, symlinks=True)
        info = json.loads((run / "run.json").read_text())
        changes = {"teacher": {"run": str(other), "name": "student"}} | ({"init_from": str(other)} if begun else {})
        (run / "run.json").write_text(json.dumps(info | changes))
    read, trained = list[Path](), lineage._trained

    def counted(run: RunFolder, images: Images) -> Step:
        read.append(run.path)
        assert len(read) <= len(runs), "read again"
        return trained(run, images)

    monkeypatch.setattr(lineage, "_trained", counted)
    run = RunFolder(runs[0])
    steps = lineage.steps_of(run, open_onnx(shipped[2]), Images(run, silent), tmp_path / "runs")
    assert sorted(read) == runs
    assert sorted(each.subject for each in steps if each.what == "trained") == [str(run) for run in runs]
    assert [each.subject for each in steps if each.what == "taught, elsewhere"]
    assert not lineage.is_all_known(steps)


@pytest.mark.parametrize("circle", [False, True])
def test_however_many_runs_lie_behind_one_another_all_are_read(
    shipped: tuple[Path, Path, Path], tmp_path: Path, circle: bool
) -> None:
    """The oldest of them began with one that is not here, or, damaged, with the youngest: that is said."""
    runs = [tmp_path / "runs" / f"student{number}" / "001" for number in range(24)]
    oldest = runs[0] if circle else tmp_path / "gone"
    for run, parent in zip(runs, [*runs[1:], oldest], strict=True):
        shutil.copytree(shipped[0], run, symlinks=True)
        info = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(info | {"teacher": None, "init_from": str(parent)}))
    run = RunFolder(runs[0])
    steps = lineage.steps_of(run, open_onnx(shipped[2]), Images(run, silent), tmp_path / "runs")
    assert [each.subject for each in steps if each.what == "trained"] == [str(each) for each in runs[::-1]]
    assert [each.subject for each in steps if each.what == "initial weights, from elsewhere"] == [str(oldest)]
    assert not lineage.is_all_known(steps)


@pytest.mark.parametrize("split_seed", [0, 7])
def test_a_teacher_of_another_split_is_asked_about_the_files_images(
    shipped: tuple[Path, Path, Path], teacher_run: RunResult, tmp_path: Path, split_seed: int
) -> None:
    teacher = tmp_path / "runs" / "teacher" / "001"
    shutil.copytree(teacher_run.run, teacher, symlinks=True)
    recipe = (teacher / "recipe.yaml").read_text()
    (teacher / "recipe.yaml").write_text(re.sub(r"split_seed: \d+", f"split_seed: {split_seed}", recipe))
    shutil.rmtree(teacher / "evaluation", ignore_errors=True)
    options = Options(runs_dir=tmp_path / "runs")
    made = certify(
        shipped[1],
        run=shipped[0],
        against=teacher,
        max_drop=0.99,
        seconds=SECONDS,
        out=tmp_path / "c.json",
        options=options,
    ).certificate
    (drop,) = (each for each in made.drops if each.reference == "named" and each.split == "val")
    splits = load_splits(RunFolder(shipped[0]).recipe().data)
    assert splits.val is not None
    pixels, labels = np.concatenate(list(splits.val.chunks())), np.asarray(splits.val.labels)
    theirs = (
        load_trained(RunFolder(teacher), device=torch.device("cpu")).logits(torch.from_numpy(pixels)).argmax(1).numpy()
    )
    ours = _answers(shipped[1], pixels)
    assert drop.estimate == pytest.approx((theirs == labels).mean() - (ours == labels).mean())
    assert drop.images == len(labels)
    own = list((teacher / "evaluation").glob("val*"))
    assert bool(own) == (split_seed == 0), "asked about its own validation images for nothing"


@pytest.mark.parametrize("moved", [False, True])
def test_a_teachers_images_are_looked_for_where_the_students_are(
    shipped: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    """As of one that was trained in another folder, by a recipe that says ``root: data``."""
    run = tmp_path / "student" / "001"
    shutil.copytree(shipped[0], run, symlinks=True)
    teacher = tmp_path / "teacher" / "001"
    shutil.copytree(shipped[0], teacher, symlinks=True)
    info = json.loads((teacher / "run.json").read_text())
    info["data"]["fingerprint"] = None  # so that it is looked at, as another's images are
    (teacher / "run.json").write_text(json.dumps(info))
    for folder, root in ((run, tmp_path / "here"), (teacher, tmp_path / "gone")):
        recipe = folder / "recipe.yaml"
        recipe.write_text(re.sub(r"(?m)^  root: .*$", f"  root: {root}", recipe.read_text()))
    asked, load = list[str](), images_module.load_splits

    def found(spec: DataSpec, *args: Any, **named: Any) -> Splits:
        asked.append(Path(spec.root).name)
        if not Path(spec.root).exists():
            raise MissingError(f"synthetic is not in {spec.root}, and it cannot be downloaded")
        return load(spec, *args, **named)

    monkeypatch.setattr(images_module, "load_splits", found)
    (tmp_path / ("moved" if moved else "here")).mkdir()
    if moved:
        with pytest.raises(MissingError, match=r"is not in .*here"):
            Images(RunFolder(run), silent)
        return
    read = Images(RunFolder(run), silent)
    parts = read.of_run(RunFolder(teacher))
    assert parts["training"] == f"training of {teacher}"
    assert "gone" not in asked
    shared = {each.other: each.images for each in read.overlaps() if each.one == parts["training"]}
    assert shared == {"validation": 0, "test": 0}


def test_other_images_than_the_run_was_trained_on_are_refused(shipped: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "runs" / "student" / "001"
    shutil.copytree(shipped[0], run, symlinks=True)
    info = json.loads((run / "run.json").read_text())
    info["data"]["fingerprint"] = "0" * 64
    (run / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunError, match="are not those that it was trained on"):
        certify(shipped[2], run=run, seconds=SECONDS, options=Options(runs_dir=tmp_path))


def test_what_is_no_certificate_is_not_overwritten(shipped: tuple[Path, Path, Path], tmp_path: Path) -> None:
    mine = tmp_path / "notes.json"
    mine.write_text("{}")
    options = Options(runs_dir=shipped[0].parents[1])
    with pytest.raises(UsageError, match="is no certificate"):
        certify(shipped[2], out=mine, seconds=SECONDS, options=options)
    assert mine.read_text() == "{}"


def test_a_file_without_a_certificate(shipped: tuple[Path, Path, Path]) -> None:
    code, _, stderr = _cli("verify", shipped[1], "-q")
    assert (code, stderr.splitlines()[0]) == (2, f"error: {shipped[1]} has no certificate beside it")
