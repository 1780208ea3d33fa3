"""``compare`` on real runs: what is one row, what may be compared with what, and what is left out."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from rich.console import Console

import distill.comparison.timing
import distill.evaluation.assess
from distill.comparison import compare
from distill.data.images import Split
from distill.data.splits import Splits, load_splits
from distill.errors import DataError, DistillError, MissingError, UsageError
from distill.evaluation.assess import DatasetCache, assess
from distill.files import json_sha256, write_json
from distill.pipeline import Options, RunResult, finetune_teacher, rerun, train_student
from distill.recipe.schema import DataSpec
from distill.report.comparison import comparison_csv, comparison_table
from distill.results.figures import Latency
from distill.runs import RunFolder
from distill.teaching.bank import Bank
from distill.teaching.identity import read_identity

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def student(teacher_run: RunResult, student_recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student taught from a bank; tests take copies of its run."""
    options = Options(runs_dir=tmp_path_factory.mktemp("students"), threads=1)
    recipe = student_recipe("teacher.logits=bank", "augment.view_seed=34", "train.epochs=1")
    run = train_student(recipe, teacher=str(teacher_run.run), options=options).run
    assess(RunFolder(run), device=CPU)
    return run


@pytest.fixture
def copies(student: Path, tmp_path: Path) -> Callable[..., RunFolder]:
    """``copies(n, key=value)`` copies the student as run n of the test's own folder, with changes in its run.json."""

    def copy(number: int, *, seed: int = 0, **changes: object) -> RunFolder:
        run = RunFolder(tmp_path / "runs" / "tiny_student" / f"{number:03d}")
        shutil.copytree(student, run.path, symlinks=True)
        run.write_info(**changes)
        recipe = run.recipe()
        run.write_recipe(recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})}))
        return run

    return copy


def _data(run: Path, fingerprint: str) -> dict:
    return (RunFolder(run).info.data or {}) | {"fingerprint": fingerprint}


def _other_test_set(spec: DataSpec, tell: object = None) -> Splits:
    """The same data with its test images in another order."""
    splits = load_splits(spec)
    return replace(splits, test=splits.test.subset(np.arange(len(splits.test))[::-1]))


def _other_test_images(spec: DataSpec, progress: object = None) -> Splits:
    """The same data with other pixels in its test images, their labels as they were."""
    splits = load_splits(spec)
    dark = Split(255 - splits.test.take(slice(None)), splits.test.labels)
    return replace(splits, test=dark)


def _travel(bank: Path, target: Path, **changes: object) -> Path:
    """A copy of a bank with another name or other figures of its teacher; None removes one."""
    shutil.copytree(bank, target)
    copy = Bank.open(target)
    record = copy.info.teacher
    name = changes.pop("name", record.name)
    copy.set_teacher(replace(record, name=name, figures=replace(record.figures, **changes)), copy.test_logits())
    return target


def _bank(run: Path) -> Path:
    return Path(RunFolder(run).info.teacher["bank"])


def _from_banks(*banks: Path, weights: tuple[float, ...] = (1.0, 1.0)) -> dict:
    named = [{"path": str(path), "weight": weight} for path, weight in zip(banks, weights, strict=False)]
    return {"run": None, "bank": str(banks[0]), "banks": named}


# One row or several


def test_seeds_are_one_row_and_other_weights_or_data_are_others(copies, student: Path, tmp_path: Path) -> None:
    copies(1)
    copies(2, seed=1)
    copies(3, init_from="runs/elsewhere/001")
    copies(4, data=_data(student, "f" * 64))
    table = compare(runs_dir=tmp_path / "runs", latency=False)
    assert sorted(row.seeds for row in table.rows) == [1, 1, 2]
    (note,) = [note for note in table.notes if "which differ in" in note]
    assert "3 rows" in note
    assert "init_from (None, runs/elsewhere/001, None)" in note
    assert "data fingerprint (" in note
    assert "ffffffffffff" in note


def test_of_the_same_thing_the_newest_run_counts(copies, tmp_path: Path) -> None:
    copies(1)
    newest = copies(2)
    (row,) = compare(runs_dir=tmp_path / "runs", latency=False).rows
    assert (row.run, row.seeds) == (str(newest.path), 1)


def test_a_seed_that_was_run_twice_is_one_draw(copies) -> None:
    """Named one by one, as a user would who wants all that is there."""
    runs = [copies(1), copies(2, seed=1), copies(3), copies(4, seed=2)]
    (row,) = [row for row in compare([run.path for run in runs], latency=False).rows if row.role == "student"]
    assert (row.seeds, row.run) == (3, str(runs[3].path))
    table = compare([runs[0].path, runs[2].path], latency=False)
    (row,) = [row for row in table.rows if row.role == "student"]
    assert (row.seeds, row.test_top1_std, row.run) == (1, None, str(runs[2].path))
    assert f"left out: {runs[0].path}: {runs[2].path} has the same seed, 0, and counts" in table.notes


def test_a_name_means_all_its_seeds_and_a_folder_that_run(copies, student: Path, tmp_path: Path) -> None:
    runs = [copies(1), copies(2, seed=1), copies(3, data=_data(student, "f" * 64)), copies(4), copies(5, seed=2)]
    folder = tmp_path / "runs"
    named = compare(["tiny_student"], runs_dir=folder, latency=False)
    (row,) = [row for row in named.rows if row.role == "student"]
    assert (row.seeds, row.run) == (3, str(runs[4].path))
    assert any("1 run of that name with another recipe, data or start left out" in n for n in named.notes)
    bare = compare(runs_dir=folder, latency=False)
    assert row in bare.rows
    for reference in ("tiny_student/002", runs[1].path):
        (row,) = [row for row in compare([reference], runs_dir=folder, latency=False).rows if row.role == "student"]
        assert (row.seeds, row.run) == (1, str(runs[1].path))


def test_trials_of_sweeps_are_compared_where_they_are_named(copies, tmp_path: Path) -> None:
    run, trial = copies(1), copies(2, seed=1)
    trial.write_info(sweep={"name": "s", "trial": 0, "params": {}})
    for references in ((), ("tiny_student",)):
        table = compare(references, runs_dir=tmp_path / "runs", latency=False)
        assert [row.run for row in table.rows if row.role == "student"] == [str(run.path)]
        assert any("left out: 1 trial of sweeps" in note for note in table.notes) == (references == ())
    table = compare([run.path, trial.path], latency=False)
    assert [row.seeds for row in table.rows if row.role == "student"] == [2]


def test_rows_of_one_name_are_told_apart_and_the_test_images_are_counted(copies, tmp_path: Path) -> None:
    runs = [copies(1), copies(2, init_from="runs/elsewhere/001")]
    table = compare(runs_dir=tmp_path / "runs", latency=False)
    assert [row.test_images for row in table.rows if row.role == "student"] == [60, 60]
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(comparison_table(table, 200))
    said = console.file.getvalue()
    assert all("/".join(run.path.parts[-2:]) in said for run in runs)
    assert "accuracy on 60 test images of synthetic" in said


@pytest.mark.parametrize(
    ("initial", "varied"),
    [
        ("abc", "initial weights and order"),
        ("aaa", "order"),
        ("aab", "order and initial weights (2 different ones)"),
        ("ab-", "order and initial weights of which not all are recorded"),
    ],
)
def test_the_note_says_what_the_seeds_really_varied(copies, initial: str, varied: str) -> None:
    """Three seeds, and which initial weights each began with; ``-``: not recorded."""
    digests = [None if which == "-" else which * 64 for which in initial]
    runs = [copies(seed + 1, seed=seed, initial_sha256=digest) for seed, digest in enumerate(digests)]
    (note,) = [note for note in compare([run.path for run in runs], latency=False).notes if "seeds vary" in note]
    same = "the initial weights and the teacher" if initial == "aaa" else "and the teacher"
    assert f"3 seeds vary {varied}; they share the split (seed 0)" in note
    assert note.endswith(same)
    assert ("initial weights" in note.partition("they share")[2]) == (initial == "aaa")


def test_dropout_varies_where_there_is_some(copies) -> None:
    runs = [copies(number, seed=number, initial_sha256=str(number) * 64) for number in (1, 2)]
    for run in runs:
        recipe = run.recipe()
        run.write_recipe(recipe.model_copy(update={"model": recipe.model.model_copy(update={"dropout": 0.5})}))
    (note,) = [note for note in compare([run.path for run in runs], latency=False).notes if "seeds vary" in note]
    assert "2 seeds vary initial weights, order and dropout; they share" in note


# The teacher that it had


def test_a_teacher_that_was_trained_anew_is_not_the_one_it_learned_from(
    copies, teacher_run: RunResult, teacher_recipe, tmp_path: Path
) -> None:
    teacher = tmp_path / "runs" / "tiny_teacher" / "001"
    shutil.copytree(teacher_run.run, teacher, symlinks=True)
    about = RunFolder(copies(9).path).info.teacher | {"run": str(teacher)}
    runs = [copies(1, teacher=about), copies(2, seed=1, teacher=about)]
    before = compare([run.path for run in runs], latency=False).rows[0]
    assert before.delta_top1 is not None
    shutil.rmtree(teacher.parent)
    recipe = teacher_recipe("train.seed=7", "train.epochs=1")
    again = finetune_teacher(recipe, options=Options(runs_dir=tmp_path / "runs", threads=1))
    assert again.run == teacher
    table = compare([run.path for run in runs], latency=False)
    assert [(row.delta_top1, row.agreement) for row in table.rows] == [(None, None)]
    for run in runs:
        said = f"{run.path}: {teacher} is no longer the teacher it learned from (other weights)"
        assert any(said in note for note in table.notes)
    runs[1].write_info(teacher=about | {"sha256": read_identity(RunFolder(teacher), device=CPU).weights})
    mixed = compare([run.path for run in runs], latency=False)
    assert [(row.seeds, row.delta_top1, row.agreement) for row in mixed.rows] == [(2, None, None)]
    assert any("its seeds learned from 2 different teachers" in note for note in mixed.notes)


def test_a_teacher_is_found_from_whatever_folder_one_asks(
    teacher_recipe, student_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs name others as they were named where they were trained: there, relative paths."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(home)
    options = Options(threads=1)
    teacher = finetune_teacher(teacher_recipe("train.epochs=1"), options=options)
    student = train_student(student_recipe("train.epochs=1", "teacher.logits=live"), options=options)
    assert RunFolder(student.run).info.teacher["run"] == str(teacher.run) == "runs/tiny_teacher/001"
    table = compare([student.run], latency=False)
    here = table.rows[0]
    warm = student_recipe("name=warm", "train.epochs=1", "teacher.logits=live")
    train_student(warm, options=Options(threads=1, init_from="tiny_student"))
    monkeypatch.chdir(elsewhere)
    there = compare(["tiny_student"], runs_dir=home / "runs", latency=False)
    assert there.rows[0].delta_top1 == here.delta_top1 is not None
    assert there.rows[0].agreement == here.agreement is not None
    assert there.notes == table.notes
    again = Options(runs_dir=home / "runs", threads=1)
    for name in ("tiny_student", "warm"):
        repeated = rerun(name, options=again)
        assert repeated.differences == repeated.changed == ()


def test_an_edited_network_is_measured_again(copies) -> None:
    run = copies(1)
    before = assess(run, device=CPU)
    recipe = run.recipe()
    normalize = recipe.model.normalize.model_copy(update={"mean": (0.9, 0.9, 0.9)})
    run.write_recipe(recipe.model_copy(update={"model": recipe.model.model_copy(update={"normalize": normalize})}))
    assert (assess(run, device=CPU).logits != before.logits).any()


# The same test set


def test_a_teacher_that_was_tested_on_other_images_is_not_compared(
    copies, teacher_run: RunResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = copies(1)
    teacher = RunFolder(tmp_path / "runs" / "tiny_teacher" / "001")
    shutil.copytree(teacher_run.run, teacher.path, symlinks=True)
    run.write_info(teacher={"run": str(teacher.path)})
    near = compare([run.path], latency=False).rows[0]
    assert near.delta_top1 is not None
    assert near.agreement is not None
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", _other_test_set)
    assess(teacher, device=CPU, again=True)
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", _gone)  # what is stored is all there is
    table = compare([run.path], latency=False)
    assert (table.rows[0].delta_top1, table.rows[0].agreement) == (None, None)
    (note,) = [note for note in table.notes if "different images" in note]
    assert str(run.path.parent) in note
    assert str(teacher.path) in note


@pytest.mark.parametrize(
    ("changes", "compared"),
    [
        ({}, True),
        ({"test_content": "0" * 64}, False),
    ],
    ids=["same", "other images"],
)
def test_a_bank_says_which_test_set_it_is_of(copies, student, tmp_path, changes: dict, compared: bool) -> None:
    bank = _travel(_bank(student), tmp_path / "bank", **changes)
    run = copies(1, teacher=_from_banks(bank))
    table = compare([run.path], latency=False)
    row = next(row for row in table.rows if row.role == "student")
    assert (row.delta_top1 is not None, row.agreement is not None) == (compared, compared)
    notes = [note for note in table.notes if "different images" in note]
    assert len(notes) == (not compared)
    assert all(str(run.path.parent) in note and str(bank) in note for note in notes)


def test_a_bank_has_what_its_teacher_is_tested_against_a_student_by(copies, student: Path, tmp_path: Path) -> None:
    run = copies(1, teacher=_from_banks(bank := _travel(_bank(student), tmp_path / "bank")))
    table = compare([run.path], latency=False, baseline=str(bank))
    teacher, row = table.rows
    ours = assess(run, device=CPU)
    right, theirs = (each.argmax(1) == ours.labels for each in (ours.logits, Bank.open(bank).test_logits()))
    won, lost = (right & ~theirs).sum(), (~right & theirs).sum()
    assert won + lost > 0
    assert (row.baseline, row.baseline_method, row.baseline_n) == (str(bank), "mcnemar", len(right))
    assert row.baseline_difference == pytest.approx((won - lost) / len(right))
    exact = scipy.stats.binomtest(int(won), int(won + lost)).pvalue
    assert row.baseline_p == pytest.approx(exact - scipy.stats.binom.pmf(int(won), int(won + lost), 0.5))  # mid-p
    assert teacher.test_set == row.test_set is not None
    assert not [note for note in table.notes if "not held against" in note]


def test_what_a_bank_says_of_speed_stands_beside_no_time_of_today(copies, student: Path, tmp_path: Path) -> None:
    """It was timed when the bank was built: on a GPU, perhaps, or with more threads."""
    times = {1: Latency(1, 0.125, 0.2, 9), 32: Latency(32, 1.0, 1.5, 9)}
    bank = _travel(_bank(student), tmp_path / "bank", latency_ms=times, hardware="a large GPU", threads=4)
    run = copies(1, teacher=_from_banks(bank))
    table = compare([run.path], seconds_per_model=0.05)
    teacher, row = table.rows
    assert (teacher.latency_b1_ms, teacher.images_per_s, teacher.on_front) == (None, None, None)
    assert row.latency_b1_ms is not None
    assert (row.times_faster, row.on_front) == (None, True)
    assert row.times_smaller == teacher.size_mb / row.size_mb
    assert any("then one image took 0.12 ms on a large GPU with 4 threads" in note for note in table.notes)


def test_a_bank_without_test_answers_is_held_against_nothing(copies, student: Path, tmp_path: Path) -> None:
    bank = _travel(_bank(student), tmp_path / "bank")
    (bank / "test_logits.npy").unlink()
    run = copies(1, teacher=_from_banks(bank))
    table = compare([run.path], latency=False, baseline="teacher")
    teacher, row = table.rows
    assert teacher.test_set == row.test_set is not None
    assert row.delta_top1 is not None  # its accuracy is known
    assert (row.agreement, row.baseline, row.baseline_difference) == (None, None, None)
    assert any("not held against" in note and "its answers are not here" in note for note in table.notes)


def test_a_teachers_figures_do_not_outlive_the_test_images(
    copies, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a bank far from its teacher, whose test images were replaced by others with the same labels."""
    bank = _travel(_bank(student), tmp_path / "bank")
    run = copies(1, teacher=_from_banks(bank))
    before = compare([run.path], latency=False).rows[0]
    assert (before.role, before.test_top1) == ("teacher", Bank.open(bank).info.teacher.figures.test_top1)
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", _other_test_images)
    table = compare([run.path], latency=False)
    assert [(row.role, row.delta_top1, row.agreement) for row in table.rows] == [
        ("teacher", None, None),
        ("student", None, None),
    ]
    assert (table.rows[0].test_top1, table.rows[0].ece) == (None, None)
    assert table.rows[1].test_top1 is not None
    assert any("its accuracy is blank: it is of other test images" in note for note in table.notes)
    assert any("different images" in note and str(bank) in note for note in table.notes)


def test_rows_of_other_images_with_the_same_labels_are_not_paired(
    copies, teacher_run: RunResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A teacher of one set of images, and a baseline of another whose labels happen to be equal."""
    teacher = RunFolder(tmp_path / "runs" / "tiny_teacher" / "001")
    shutil.copytree(teacher_run.run, teacher.path, symlinks=True)
    baseline = copies(1, teacher=None)
    paired = compare([teacher.path, baseline.path], latency=False).rows[1]
    assert None not in (paired.delta_top1, paired.agreement)
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", _other_test_images)
    assess(teacher, device=CPU, again=True)
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", _gone)
    table = compare([teacher.path, baseline.path], latency=False)
    row = table.rows[1]
    assert (row.role, row.delta_top1, row.agreement) == ("student", None, None)
    told = "synthetic: tiny_teacher | tiny_student were tested on different images"
    assert [note.partition(":")[0] for note in table.notes if note.startswith(told)] == ["synthetic"]
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(comparison_table(table, 200))
    assert "accuracy on 60 and 60 other test images of synthetic" in console.file.getvalue()


def test_the_same_images_at_another_size_are_the_same_images(
    copies, teacher_recipe, student_recipe, tmp_path: Path
) -> None:
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    teacher = finetune_teacher(teacher_recipe("data.image_size=16", "train.epochs=1"), options=options).run
    row = compare([copies(1, teacher=None).path, teacher], latency=False).rows[1]
    assert (row.role, row.delta_top1 is None) == ("student", False)


# Beside its teacher


@pytest.fixture
def two_teachers(copies, teacher_run: RunResult, teacher_recipe, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two teachers of one data set, and a run that learned from none."""
    first = tmp_path / "runs" / "tiny_teacher" / "001"
    shutil.copytree(teacher_run.run, first, symlinks=True, ignore=shutil.ignore_patterns("banks"))
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    second = finetune_teacher(teacher_recipe("name=other_teacher", "train.epochs=1"), options=options).run
    return first, second, copies(1, teacher=None).path


def test_of_two_teachers_the_one_that_students_name_is_the_baselines_too(copies, two_teachers) -> None:
    first, second, alone = two_teachers
    table = compare([first, second, alone], latency=False)
    row = next(row for row in table.rows if row.role == "student")
    assert (row.delta_top1, row.agreement, row.teacher) == (None, None, None)
    assert f"there are {first}, {second}; say which: --teacher RUN" in next(n for n in table.notes if "say which" in n)
    taught = copies(2, seed=1, teacher={"run": str(second), "name": "other_teacher"})
    taught.write_recipe(taught.recipe().model_copy(update={"name": "taught"}))
    rows = {row.name: row for row in compare([first, second, alone, taught.path], latency=False).rows}
    assert rows["tiny_student"].teacher == rows["taught"].teacher == str(second)
    assert rows["tiny_student"].delta_top1 is not None


def test_the_teacher_may_be_said(two_teachers, tmp_path: Path) -> None:
    first, second, alone = two_teachers
    top1 = {path: assess(RunFolder(path), device=CPU).result.top1 for path in two_teachers}
    for wanted in (first, second):
        for references in ([first, second, alone], [alone]):
            table = compare(references, runs_dir=tmp_path / "runs", latency=False, teacher=wanted)
            row = next(row for row in table.rows if row.role == "student")
            assert (row.teacher, row.delta_top1) == (str(wanted), pytest.approx(top1[alone] - top1[wanted]))
            assert str(wanted) in {row.run for row in table.rows}


def test_how_many_times_smaller_and_faster(two_teachers, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, alone = two_teachers

    def timed(models: dict, *_: object, **__: object) -> dict:
        sizes = {key: sum(p.numel() for p in model.parameters()) for key, model in models.items()}
        return {key: {n: Latency(n, size * 1e-3, size * 1e-3, 5) for n in (1, 32)} for key, size in sizes.items()}

    monkeypatch.setattr(distill.comparison.timing, "measure_latency", timed)
    teacher, student = compare([first, alone]).rows
    assert (student.teacher, teacher.teacher, teacher.times_faster) == (str(first), None, None)
    assert student.times_smaller == pytest.approx(teacher.size_mb / student.size_mb)
    assert student.times_faster == pytest.approx(teacher.params / student.params)
    assert student.times_smaller > 1
    console = Console(width=220, file=io.StringIO(), color_system=None)
    console.print(comparison_table(compare([first, alone]), 220))
    assert f"{student.times_smaller:.1f}" in console.file.getvalue()


def test_rows_say_which_were_tested_on_the_same_images(copies, teacher_recipe, two_teachers, tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    changes = ("name=small", "data.image_size=16", "train.epochs=1")
    small = finetune_teacher(teacher_recipe(*changes), options=options).run
    fewer = finetune_teacher(teacher_recipe("name=fewer", "data.test_limit=20", "train.epochs=1"), options=options).run
    rows = {row.name: row for row in compare([*two_teachers, small, fewer], latency=False).rows}
    same = {rows[name].test_set for name in ("tiny_teacher", "other_teacher", "tiny_student", "small")}
    assert len(same) == 1
    assert rows["fewer"].test_set not in same | {None}


# What is stored


def _gone(spec: DataSpec, tell: object = None) -> Splits:
    raise MissingError("the data is gone")


def test_an_evaluation_says_what_it_was_asked_about(copies) -> None:
    run = copies(1)
    stored = json.loads((run.path / "evaluation" / "test.json").read_text())
    assert (stored["device_type"], stored["precision"]) == ("cpu", "fp32")
    assert stored["content"] == DatasetCache().content(run.recipe().data, "test")
    assert stored["content"] != DatasetCache().content(run.recipe().data, "val")


def test_an_evaluation_does_not_survive_other_test_images(copies, monkeypatch: pytest.MonkeyPatch) -> None:
    run = copies(1)
    before = assess(run, device=CPU)
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", _other_test_set)
    after = assess(run, device=CPU)
    assert after.content != before.content
    assert np.array_equal(after.labels, before.labels[::-1])
    np.testing.assert_allclose(after.logits, before.logits[::-1], atol=1e-5)


def test_an_evaluation_survives_the_loss_of_its_data(copies, monkeypatch: pytest.MonkeyPatch) -> None:
    run = copies(1)
    before = assess(run, device=CPU)
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", _gone)
    assert np.array_equal(assess(run, device=CPU).logits, before.logits)
    with pytest.raises(MissingError, match="gone"):
        assess(run, device=CPU, again=True)


@pytest.mark.parametrize("images", [_other_test_images, _other_test_set])
def test_seeds_that_were_tested_on_other_images_are_no_mean(
    copies, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Callable
) -> None:
    """Where the data is gone, older answers stand: of two test sets there is no mean, and no pair."""
    older, newer = copies(1, seed=0), copies(2, seed=1)
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", images)
    now = assess(newer, device=CPU)
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", _gone)
    table = compare([older.path, newer.path], latency=False)
    (row,) = (row for row in table.rows if row.role == "student")
    assert (row.seeds, row.test_top1, row.run) == (1, now.result.top1, str(newer.path))
    assert any(note.startswith(f"left out: {older.path}: its answers are of other test images") for note in table.notes)


def test_nothing_is_downloaded_to_look_at_what_is_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", lambda spec: pytest.fail("loaded"))
    with pytest.raises(MissingError, match="cifar10 is not in"):
        DatasetCache().content(DataSpec(name="cifar10", root=str(tmp_path)), "test")


def test_ten_runs_load_their_data_once(copies, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number in range(1, 5):
        copies(number, seed=number, teacher=None)
    loaded = []
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", lambda spec: loaded.append(spec) or load_splits(spec))
    compare(runs_dir=tmp_path / "runs", latency=False)
    assert len(loaded) == 1


# Ensembles


def test_an_ensemble_is_the_weighted_mean_of_its_banks(copies, student: Path, tmp_path: Path) -> None:
    banks = [_travel(_bank(student), tmp_path / f"bank{number}", name=f"teacher{number}") for number in (1, 2)]
    other = Bank.open(banks[1])
    logits = np.random.default_rng(3).normal(size=other.test_logits().shape).astype(np.float32)
    other.set_teacher(other.info.teacher, logits)
    run = copies(1, teacher=_from_banks(*banks, weights=(1.0, 3.0)))
    table = compare([run.path], latency=False, baseline="teacher1 + teacher2")
    one, both, two = (row for row in table.rows if row.role == "teacher")
    assert [(row.name, row.run) for row in (one, two)] == [("teacher1", str(banks[0])), ("teacher2", str(banks[1]))]
    ours = assess(run, device=CPU)
    guesses = ((Bank.open(banks[0]).test_logits() + 3 * logits) / 4).argmax(1)
    row = table.rows[-1]
    assert row.delta_top1 == pytest.approx(ours.result.top1 - (guesses == ours.labels).mean())
    assert row.agreement == pytest.approx((guesses == ours.logits.argmax(1)).mean())
    assert row.baseline_difference == pytest.approx(row.delta_top1)
    alone = (Bank.open(banks[0]).test_logits().argmax(1) == ours.labels).mean()
    assert one.baseline_difference == pytest.approx(alone - both.test_top1)
    assert {each.test_set for each in table.rows} == {row.test_set}
    assert both.name == "teacher1 + teacher2"
    assert both.run == row.teacher == f"1 * {banks[0]} + 3 * {banks[1]}"
    assert both.test_top1 == (guesses == ours.labels).mean()
    assert (both.test_images, both.test_set) == (len(ours.labels), row.test_set)
    assert (both.params, both.size_mb) == (one.params + two.params, one.size_mb + two.size_mb)
    assert row.times_smaller == both.size_mb / row.size_mb
    assert (both.latency_b1_ms, row.times_faster) == (None, None)
    assert sum(note.startswith("teacher1 + teacher2: the mean of the logits") for note in table.notes) == 1


def test_an_ensemble_with_a_bank_of_another_test_set_is_not_compared(copies, student: Path, tmp_path: Path) -> None:
    odd = _travel(_bank(student), tmp_path / "odd", test_content="0" * 64)
    run = copies(1, teacher=_from_banks(_bank(student), odd))
    table = compare([run.path], latency=False)
    assert (table.rows[-1].delta_top1, table.rows[-1].agreement) == (None, None)
    assert any("different images" in note and str(odd) in note for note in table.notes)


# What cannot be read


def test_a_run_whose_data_is_gone_is_left_out_unless_it_is_named(
    copies, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copies(1)
    lost = copies(2, init_from="x")
    shutil.rmtree(lost.path / "evaluation")
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", _gone)
    table = compare(runs_dir=tmp_path / "runs", latency=False)
    assert [row.role for row in table.rows if row.role != "teacher"] == ["student"]
    assert f"left out: {lost.path}: the data is gone" in table.notes
    with pytest.raises(MissingError, match="the data is gone"):
        compare([lost.path], latency=False)


def test_a_run_with_damaged_files_is_left_out_unless_it_is_named(copies, tmp_path: Path) -> None:
    copies(1)
    damaged = copies(2, init_from="x")
    (damaged.path / "result.json").write_text("{")
    table = compare(runs_dir=tmp_path / "runs", latency=False)
    assert any(note.startswith("left out: ") and str(damaged.path) in note for note in table.notes)
    with pytest.raises(DistillError, match="result"):
        compare([damaged.path], latency=False)


def test_where_every_run_is_left_out_the_first_error_is_told(copies, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    def unusable(spec: DataSpec) -> Splits:
        raise DataError("the data is damaged")

    shutil.rmtree(copies(1).path / "evaluation")
    monkeypatch.setattr(distill.evaluation.assess, "load_splits", unusable)
    with pytest.raises(DataError, match="the data is damaged"):
        compare(runs_dir=tmp_path / "runs", latency=False)


@pytest.mark.parametrize("about", [{}, {"name": "half"}], ids=["none", "some"])
def test_a_bank_without_its_teachers_figures_is_skipped(copies, student: Path, tmp_path: Path, about: dict) -> None:
    shutil.copytree(_bank(student), tmp_path / "bank")
    file = tmp_path / "bank" / "bank.json"
    document = json.loads(file.read_text()) | {"teacher": about}
    kept = {key: value for key, value in document.items() if key not in ("format", "sha256")}
    write_json(file, document | {"sha256": json_sha256(kept)})
    bank = file.parent
    run = copies(1, teacher=_from_banks(bank))
    table = compare(runs_dir=tmp_path / "runs", latency=False)
    assert [row.role for row in table.rows] == ["student"]
    assert any(note.startswith(f"left out: the teacher of {bank}") for note in table.notes)
    assert any(note.startswith(f"{run.path}: its teacher cannot be read") for note in table.notes)


# The machine


def test_the_threads_of_the_timing_are_told_and_given_back(copies, monkeypatch: pytest.MonkeyPatch) -> None:
    run, before = copies(1), torch.get_num_threads()
    wanted = before + 1
    assert compare([run.path], threads_used=wanted, seconds_per_model=0.05).threads == wanted
    assert torch.get_num_threads() == before

    def fail(*args: object, **named: object) -> None:
        assert torch.get_num_threads() == wanted
        raise UsageError("stop")

    monkeypatch.setattr(distill.comparison.timing, "measure_latency", fail)
    with pytest.raises(UsageError, match="stop"):
        compare([run.path], threads_used=wanted)
    assert torch.get_num_threads() == before


def test_a_precision_below_fp32_is_told(copies, monkeypatch: pytest.MonkeyPatch) -> None:
    run = copies(1)
    quick = {size: Latency(size, 1.0, 1.0, 5) for size in (1, 32)}
    monkeypatch.setattr(
        distill.comparison.timing, "measure_latency", lambda models, *_, **__: dict.fromkeys(models, quick)
    )
    assert not any(" in bf16" in note for note in compare([run.path]).notes)
    real = distill.comparison.timing.load_trained  # as a GPU would
    monkeypatch.setattr(
        distill.comparison.timing, "load_trained", lambda *a, **k: replace(real(*a, **k), precision="bf16")
    )
    _rewrite(run.path / "evaluation" / "test.json", precision="bf16", device_type="cuda")
    notes = compare([run.path]).notes
    assert "timed in bf16: tiny_student" in notes
    assert "tested in bf16: tiny_student" in notes


def _rewrite(path: Path, **changes: object) -> None:
    document = json.loads(path.read_text()) | changes
    del document["sha256"]
    write_json(path, document | {"sha256": json_sha256(document)})


def test_a_run_is_not_held_against_one_of_fewer_labels_without_a_word(student: Path, student_recipe, tmp_path) -> None:
    alone = ("teacher=null", "objective={kind: supervised}", "role=baseline", "train.epochs=1")
    fewer, same = (
        train_student(student_recipe(*alone, f"name={name}", *more), options=Options(runs_dir=tmp_path / "runs")).run
        for name, more in (("fewer", ("data.limit=100",)), ("same", ()))
    )
    notes = compare([student, fewer], latency=False).notes
    assert (
        "tiny_student was trained on 135 labelled images, fewer on 90: the difference is not of the method alone"
        in notes
    )
    assert not any("labelled images" in each for each in compare([student, same], latency=False).notes)


def test_a_row_has_the_accuracy_of_each_seed(student: Path, student_recipe, teacher_run: RunResult, tmp_path) -> None:
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    for seed in (4, 2):
        recipe = student_recipe("train.epochs=1", f"train.seed={seed}")
        train_student(recipe, teacher=str(teacher_run.run), options=options)
    comparison = compare(["tiny_student"], runs_dir=options.runs_dir, latency=False)
    (row,) = (each for each in comparison.rows if each.role == "student")
    assert row.train_seeds == (2, 4)
    tops = [compare([options.runs_dir / "tiny_student" / number], latency=False).rows[0] for number in ("002", "001")]
    assert row.test_top1_each == tuple(next(each.test_top1 for each in [top]) for top in tops)
    assert row.test_top1 == pytest.approx(np.mean(row.test_top1_each))
    header, *lines = comparison_csv(comparison).splitlines()
    cells = dict(zip(header.split(","), next(line for line in lines if ",student," in line).split(","), strict=True))
    assert cells["train_seeds"] == "2 4"
    assert [float(each) for each in cells["test_top1_each"].split()] == list(row.test_top1_each)
