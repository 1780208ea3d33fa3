"""``distill cache`` on real banks of a tiny teacher: built, shown, verified, repaired, deleted."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from distill.cli import app
from distill.data.images import Split
from distill.data.splits import Splits, load_splits
from distill.files import sha256_file
from distill.pipeline import Options, RunResult, build_bank, train_student, verify_banks
from distill.recipe import dump_recipe
from distill.runs import RunFolder
from distill.teaching.bank import Bank

VIEWS = 3


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``cache("info", ...)``: one subcommand, its exit code and its output."""
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *args, input=None: CliRunner().invoke(
        app, ["cache", *map(str, args)], input=input, catch_exceptions=False
    )


@pytest.fixture
def runs(teacher_run: RunResult, tmp_path: Path) -> Path:
    """A runs folder of the test's own, with the tiny teacher in it."""
    copy = tmp_path / "runs" / "tiny_teacher" / "001"
    shutil.copytree(teacher_run.run, copy, symlinks=True, ignore=shutil.ignore_patterns("banks"))
    RunFolder(copy).point_latest()
    return tmp_path / "runs"


@pytest.fixture
def student_file(student_recipe, tmp_path: Path) -> Path:
    path = tmp_path / "student.yaml"
    path.write_text(dump_recipe(student_recipe()))
    return path


@pytest.fixture(scope="module")
def built(teacher_run: RunResult, student_recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of three views; measuring its teacher takes a second, so the tests copy it."""
    options = Options(runs_dir=tmp_path_factory.mktemp("none"), threads=1)
    path = tmp_path_factory.mktemp("banks") / "bank"
    return Path(build_bank(student_recipe(), teacher=str(teacher_run.run), path=path, options=options).path)


@pytest.fixture
def bank(built: Path, runs: Path) -> Path:
    """That bank in the run folder of its teacher."""
    name = Bank.open(built).info.key.digest()[:16]
    return Path(shutil.copytree(built, runs / "tiny_teacher" / "001" / "banks" / name))


def _verify(path: Path, **options) -> dict:
    (row,) = verify_banks([path], options=Options(device="cpu", threads=1), **options)
    return asdict(row)


def _spoil(bank: Path, row: int, image: int, amount: float) -> str:
    """Change one stored logit and make the checksum right again: only the teacher can tell."""
    name = f"views/{row:05d}-000.npy"
    values = np.load(bank / name)
    values[image, 0] += amount
    np.save(bank / name, values)
    _rewrite(bank, checksums=Bank.read(bank).info.checksums | {name: sha256_file(bank / name)})
    return name


def _rewrite(bank: Path, **changes) -> None:
    """A bank.json with other content, itself whole."""
    opened = Bank.read(bank)
    opened.info = replace(opened.info, **changes)
    opened._write_info()


def _flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


# build


def test_build_says_the_cost_prints_one_document_and_extends(cache, runs: Path, student_file: Path) -> None:
    built = cache("build", "--recipe", student_file, "--runs", runs, "--views", 2, "--threads", 1, "--json")
    assert built.exit_code == 0, built.stderr
    row = json.loads(built.stdout)
    assert (row["views"], row["images"], row["classes"], row["dtype"]) == (2, 135, 10, "float16")
    assert row["teacher"] == "tiny_teacher"
    assert Path(row["path"]).parent == runs / "tiny_teacher" / "001" / "banks"
    assert "2 views, about" in built.stderr
    assert "0.0 MB" in built.stderr
    more = cache("build", "--recipe", student_file, "--runs", runs, "--threads", 1, "--json", "--quiet")
    assert (json.loads(more.stdout)["views"], json.loads(more.stdout)["path"]) == (VIEWS, row["path"])
    assert more.stderr == ""


def test_a_built_bank_is_the_one_a_student_reads(cache, runs: Path, student_file: Path, student_recipe) -> None:
    cache("build", "--recipe", student_file, "--runs", runs, "--threads", 1)
    run = train_student(student_recipe("teacher.logits=bank"), options=Options(runs_dir=runs, threads=1)).run
    (path,) = (runs / "tiny_teacher" / "001" / "banks").iterdir()
    assert RunFolder(run).info.teacher["bank"] == str(path)


def test_build_elsewhere(cache, runs: Path, student_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "usb" / "bank"
    assert cache("build", "--recipe", student_file, "--runs", runs, "--views", 1, "--out", out).exit_code == 0
    assert Bank.open(out).info.views == 1
    assert not (runs / "tiny_teacher" / "001" / "banks").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--recipe", "r18_small_scratch"), "asks no teacher"),
        (("--set", "teacher={bank: somewhere}"), "names no teacher to ask"),
        (("--set", "augment.views=all", "--views", 7), "augment.views: all has 50 views, not 7"),
        (("--out", "RUNS"), "is there and is no bank"),
    ],
)
def test_what_cannot_be_built_is_wrong_usage(cache, runs: Path, student_file: Path, args: tuple, message: str) -> None:
    recipe = () if "--recipe" in args else ("--recipe", student_file)
    result = cache("build", *recipe, "--runs", runs, *(runs if part == "RUNS" else part for part in args))
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_bank_elsewhere_goes_on_as_it_was_begun(
    student_recipe, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what is faster for more views nor how the teacher's own bank was begun has a say."""
    options, place = Options(runs_dir=runs, threads=1), tmp_path / "elsewhere"

    def build(*changes: str, path: Path | None = place) -> dict[str, str]:
        row = build_bank(student_recipe(*changes), teacher="tiny_teacher", path=path, options=options)
        return Bank.open(Path(row.path)).info.runtime

    assert build("augment.views=2", "teacher.runtime=onnxruntime")["name"] == "onnxruntime"
    assert build("augment.views=4", "train.epochs=4")["name"] == "onnxruntime"
    assert Bank.open(place).info.views == 4
    assert build("augment.views=2", path=None)["name"] == "torch"
    monkeypatch.setattr(sys.modules["distill.pipeline.runtime"], "MIN_MACS", 0.0)
    assert build("augment.views=3", path=None)["name"] == "torch"


def test_a_bank_of_something_else_is_not_written_to(cache, runs: Path, student_file: Path, bank: Path) -> None:
    before = (bank / "bank.json").read_bytes()
    args = ("--recipe", student_file, "--runs", runs, "--set", "augment.view_seed=1", "--out", bank)
    result = cache("build", *args)
    assert result.exit_code == 2
    assert "view_seed: 1, in the bank 0" in result.stderr
    assert (bank / "bank.json").read_bytes() == before


def test_nothing_random_is_one_view_and_says_so(cache, runs: Path, student_file: Path) -> None:
    plain = ("--set", "augment.crop_padding=0", "--set", "augment.hflip=0.0")
    result = cache("build", "--recipe", student_file, "--runs", runs, *plain, "--views", 4, "--json")
    assert json.loads(result.stdout)["views"] == 1
    assert "nothing in this augmentation is random" in result.stderr


@pytest.mark.parametrize(
    "augmentation", [(), ("augment.mixup={alpha: 0.4}", "augment.cutmix={alpha: 1.0, probability: 0.5}")]
)
def test_two_processes_write_the_bytes_of_one(student_recipe, runs: Path, tmp_path: Path, augmentation) -> None:
    recipe = student_recipe(*augmentation)
    one, two = tmp_path / "one", tmp_path / "two"
    build_bank(recipe, views=2, path=one, options=Options(runs_dir=runs, device="cpu", threads=1))
    build_bank(recipe, views=2, path=two, options=Options(runs_dir=runs, device="cpu", threads=1, devices=2))
    assert Bank.open(two).info.views == 2
    for name in Bank.open(one).files():
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert _verify(two, images=1000, teacher=str(runs / "tiny_teacher" / "001"))["max_difference"] == 0


def test_build_measures_the_teacher_again_where_the_test_images_are_others(
    student_recipe, runs: Path, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def darker(spec: object, progress: object, **more: object) -> Splits:
        splits = load_splits(spec, progress, **more)
        return replace(splits, test=Split(splits.test.take(slice(None)) // 3, splits.test.labels))

    before, views = Bank.open(bank), [file.stat().st_mtime_ns for file in (bank / "views").iterdir()]
    answered = before.test_logits()
    monkeypatch.setattr("distill.pipeline.context.load_splits", darker)
    build_bank(student_recipe(), options=Options(runs_dir=runs, threads=1))
    after = Bank.open(bank)
    assert after.info.teacher.figures.test_content != before.info.teacher.figures.test_content
    assert (after.test_logits() != answered).any()
    assert [file.stat().st_mtime_ns for file in (bank / "views").iterdir()] == views


# info


def test_info_finds_banks_below_the_runs_by_run_and_by_path(cache, runs: Path, bank: Path) -> None:
    for args in ((), ("tiny_teacher",), (bank,), (bank.parent,), (bank, "tiny_teacher")):
        (row,) = json.loads(cache("info", *args, "--runs", runs, "--json").stdout)
        assert (row["path"], row["views"], row["status"]) == (str(bank), VIEWS, "ok")
    evaluated = Bank.open(bank).info.teacher.figures
    assert (row["teacher"], row["teacher_top1"], row["teacher_params"]) == (
        "tiny_teacher",
        evaluated.test_top1,
        evaluated.params,
    )
    assert row["augment"] == "crop 2, hflip 0.5"
    table = cache("info", "--runs", runs).stdout
    assert "tiny_teacher" in table
    assert f"{100 * row['teacher_top1']:.2f}" in table


def test_info_without_banks_says_so(cache, tmp_path: Path) -> None:
    assert json.loads(cache("info", "--runs", tmp_path, "--json").stdout) == []
    assert "no bank below" in cache("info", "--runs", tmp_path).stderr
    result = cache("info", "nobody", "--runs", tmp_path)
    assert result.exit_code == 2
    assert "neither a bank nor a run: nobody" in result.stderr


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        (lambda bank: (bank / "bank.json").write_text("{"), "bank.json is damaged"),
        (lambda bank: (bank / "bank.json").write_text('{"format": 2}'), "bank.json is damaged"),
        (lambda bank: (bank / "views" / "00001-000.npy").unlink(), "views/00001-000.npy is missing"),
        (lambda bank: os.truncate(bank / "views" / "00001-000.npy", 100), "views/00001-000.npy"),
    ],
)
def test_damaged_banks_are_listed(cache, runs: Path, bank: Path, damage, status: str) -> None:
    damage(bank)
    result = cache("info", "--runs", runs, "--json")
    assert result.exit_code == 0
    (row,) = json.loads(result.stdout)
    assert row["status"].startswith("damaged: ")
    assert status in row["status"]
    assert cache("info", "--runs", runs).exit_code == 0
    verified = cache("verify", "--runs", runs, "--quiet")
    assert verified.exit_code == 1
    assert str(bank) in verified.stderr


# verify


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("teacher.logits_dtype=float32", "augment.mixup={alpha: 0.4}", "augment.erase={size: 8}"),
        ("augment.crop_padding=1", "augment.views=all"),
    ],
    ids=["crop and flip", "float32, mixup and erasing", "all crops and flips"],
)
def test_verify_asks_again_and_finds_no_difference(student_recipe, runs: Path, settings: tuple[str, ...]) -> None:
    path = Path(build_bank(student_recipe(*settings), options=Options(runs_dir=runs, threads=1)).path)
    for images in (1, 64, 100_000):
        row = _verify(path, images=images)
        assert row["status"] == "ok"
        assert row["asked"] == min(images, row["views"] * row["images"])
        assert row["max_difference"] == 0.0


def test_verify_prints_one_document_and_exits_with_0(cache, runs: Path, bank: Path) -> None:
    result = cache("verify", "--runs", runs, "--threads", 1, "--images", 10, "--json")
    assert result.exit_code == 0
    (row,) = json.loads(result.stdout)
    assert (row["asked"], row["max_difference"], row["damaged"]) == (10, 0.0, [])


def test_a_flipped_bit_is_found_and_named(cache, runs: Path, bank: Path) -> None:
    _flip_a_bit(bank / "views" / "00001-000.npy")
    result = cache("verify", bank, "--json", "--quiet")
    assert result.exit_code == 1
    assert json.loads(result.stdout)[0]["damaged"] == ["views/00001-000.npy"]
    assert f"{bank} is damaged: views/00001-000.npy" in result.stderr


def test_a_wrong_logit_under_a_right_checksum_is_found(bank: Path) -> None:
    name = _spoil(bank, row=2, image=77, amount=2.0)
    assert Bank.open(bank).damaged_files() == []
    row = _verify(bank, images=VIEWS * 135)
    assert row["status"] == "damaged: not what the teacher answers: view 2 image 77"
    assert row["damaged"] == (name,)
    assert row["max_difference"] == pytest.approx(2.0, abs=0.01)
    assert _verify(bank, images=0)["status"] == "ok"


def test_repair_drops_what_is_damaged_and_build_makes_it_again(
    cache, runs: Path, bank: Path, student_file: Path
) -> None:
    whole = {name: sha256_file(bank / name) for name in Bank.open(bank).files()}
    _flip_a_bit(bank / "views" / "00001-000.npy")
    _flip_a_bit(bank / "test_logits.npy")
    result = cache("verify", bank, "--repair")
    assert result.exit_code == 0
    assert "repaired: 1 of 3 views are left" in result.stdout
    assert Bank.open(bank).info.views == 1
    assert cache("build", "--recipe", student_file, "--runs", runs, "--threads", 1).exit_code == 0
    assert {name: sha256_file(bank / name) for name in Bank.open(bank).files()} == whole


def test_a_bank_that_lost_all_its_views_is_built_again_or_cleared(
    cache, runs: Path, bank: Path, student_file: Path
) -> None:
    whole = {name: sha256_file(bank / name) for name in Bank.open(bank).files()}
    shutil.rmtree(bank / "views")
    assert "repaired: 0 of 3 views are left" in cache("verify", bank, "--repair").stdout
    assert str(bank) in json.loads(cache("info", "--runs", runs, "--json").stdout)[0]["path"]
    assert cache("build", "--recipe", student_file, "--runs", runs, "--threads", 1).exit_code == 0
    assert {name: sha256_file(bank / name) for name in Bank.open(bank).files()} == whole
    shutil.rmtree(bank / "views")
    assert cache("clear", bank, "--yes").exit_code == 0
    assert not bank.exists()


def test_test_answers_that_are_lost_are_seen_and_asked_again(cache, runs: Path, bank: Path, student_file: Path) -> None:
    before = sha256_file(bank / "test_logits.npy")
    (bank / "test_logits.npy").unlink()
    assert "test_logits.npy is missing" in cache("info", bank).stdout
    assert cache("build", "--recipe", student_file, "--runs", runs, "--threads", 1).exit_code == 0
    assert sha256_file(bank / "test_logits.npy") == before


def test_views_that_are_planned_otherwise_today_are_found(bank: Path) -> None:
    plans = Bank.read(bank).info.plans
    _rewrite(bank, plans=(plans[0], "0" * 64, plans[2]))
    row = _verify(bank, images=10_000)
    assert row["damaged"] == ("views/00001-000.npy",)


def test_a_bank_far_from_its_teacher_is_verified_by_checksums_alone(
    cache, runs: Path, bank: Path, tmp_path: Path, train
) -> None:
    far = tmp_path / "laptop" / "bank"
    shutil.copytree(bank, far)
    result = cache("verify", far)
    assert result.exit_code == 0
    assert "the teacher was not asked again: its run is not here" in result.stderr
    named = cache("verify", far, "--teacher", runs / "tiny_teacher" / "001", "--images", 5, "--threads", 1, "--json")
    assert json.loads(named.stdout)[0]["max_difference"] == 0.0
    other = cache("verify", far, "--teacher", train("teacher.logits=live").run)
    assert other.exit_code == 2
    assert "is not the teacher of" in other.stderr


# clear


def test_clear_asks_for_yes_where_nobody_can_answer(cache, runs: Path, bank: Path) -> None:
    result = cache("clear", bank)
    assert result.exit_code == 2
    assert f"would delete {bank}, 0." in result.stderr
    assert Bank.open(bank).info.views == VIEWS


@pytest.mark.parametrize("answer", ["n", "y"])
def test_clear_asks_on_a_terminal(cache, bank: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.cli.output._is_answered", lambda: True)
    result = cache("clear", bank, input=f"{answer}\n")
    assert result.exit_code == 0
    assert str(bank) in result.stderr
    assert bank.exists() == (answer == "n")


def test_clear_deletes_the_bank_and_the_run_stays(cache, runs: Path, bank: Path) -> None:
    result = cache("clear", "tiny_teacher", "--runs", runs, "--yes")
    assert result.exit_code == 0
    assert "deleted" in result.stderr
    assert not bank.parent.exists()
    assert RunFolder(runs / "tiny_teacher" / "001").status == "finished"


def test_clear_leaves_what_is_not_distills_and_follows_no_link(cache, bank: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "00000-000.npy").write_text("precious")
    (bank / "notes.txt").write_text("mine")
    (bank / "views" / "thesis.npy").write_text("mine")
    (bank / "elsewhere").symlink_to(precious)
    (bank / "views" / "00009-000.npy").symlink_to(precious / "00000-000.npy")
    result = cache("clear", bank, "--yes")
    assert result.exit_code == 0
    assert "not distill's, and still there" in result.stderr
    left = {path.relative_to(bank).as_posix() for path in bank.rglob("*")}
    assert left == {"notes.txt", "elsewhere", "views", "views/thesis.npy", "views/00009-000.npy"}
    assert (precious / "00000-000.npy").read_text() == "precious"


def test_clear_refuses_links_and_folders_that_are_no_banks(cache, bank: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bank)
    assert cache("clear", tmp_path / "link", "--yes").exit_code == 1
    other = tmp_path / "other"
    (other / "views").mkdir(parents=True)
    (other / "bank.json").write_text('{"accounts": 3}')
    assert cache("clear", other, "--yes").exit_code == 1
    assert (other / "bank.json").exists()
    assert Bank.open(bank).info.views == VIEWS


def test_clear_waits_for_nobody(cache, bank: Path) -> None:
    """A bank that is being built is not deleted."""
    with Bank.open(bank).writing():
        result = cache("clear", bank, "--yes")
    assert result.exit_code == 1
    assert "is in use by" in result.stderr
    assert Bank.open(bank).info.views == VIEWS


def test_a_damaged_bank_can_be_cleared(cache, bank: Path) -> None:
    (bank / "bank.json").write_text("\x00")
    assert cache("clear", bank, "--yes").exit_code == 0
    assert not bank.exists()
