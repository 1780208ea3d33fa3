"""``distill report --html`` on real runs: the page's content against numbers computed here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import distill
from distill.cli import app
from distill.comparison import Examined, examine
from distill.data.splits import load_splits
from distill.pipeline import Options, RunResult, quantize, train_student
from distill.pipeline.page import gather_page
from distill.pipeline.soup import soup
from distill.report.page.content import Page
from distill.report.page.render import render_page
from distill.runs import RunFolder


def _cli(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def runs(teacher_run: RunResult, student_recipe: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a student, two of the same network without a teacher."""
    root = tmp_path_factory.mktemp("page") / "runs"
    options = Options(runs_dir=root, threads=1)
    for seed in (0, 1):
        own = (f"train.seed={seed}", "train.epochs=2")
        taught = student_recipe("name=taught", "teacher.logits=live", *own)
        train_student(taught, teacher=str(teacher_run.run), options=options)
        alone = student_recipe("name=alone", "role=baseline", "teacher=null", "objective={kind: supervised}", *own)
        train_student(alone, options=options)
    return root


@pytest.fixture(scope="module")
def examined(runs: Path, teacher_run: RunResult) -> Examined:
    file = quantize(runs / "taught" / "002", out=runs.parent / "exports" / "taught_int8.onnx", max_drop=0.9).file
    names = [str(teacher_run.run), "taught", "alone", str(file)]
    return examine(names, runs_dir=runs, latency=False)


@pytest.fixture(scope="module")
def page(examined: Examined, runs: Path) -> Page:
    return gather_page(examined, title=None, command="distill report", runs_dir=runs)


def _stored(run: Path, what: str) -> np.ndarray:
    return np.load(run / "evaluation" / f"test_{what}.npy")


def test_every_part_is_there(page: Page) -> None:
    assert [member.label for member in page.members] == ["tiny_teacher", "alone", "taught", "taught_int8"]
    assert page.headline == "taught"
    assert page.missing.keys() == {"latency", "chains", "corrupted"}
    assert page.steps == ("tiny_teacher", "taught", "taught_int8")
    assert [member.hollow for member in page.members] == [False, False, False, True]
    assert page.members[2].look == page.members[3].look != page.members[0].look


def test_it_is_held_against_the_one_without_a_teacher(page: Page) -> None:
    row = page.member("taught").row
    assert Path(row.baseline).parent.name == "alone"
    assert row.baseline_method == "paired seeds"
    assert page.lead.startswith("taught keeps ")
    assert any(each.text.startswith("Against alone: ") for each in page.sentences)
    assert any(each.text.startswith("Against its teacher, tiny_teacher: ") for each in page.sentences)
    assert page.members[2].row.test_top1 == np.mean(
        [(_stored(Path(p.place), "logits").argmax(1) == _stored(Path(p.place), "labels")).mean()
         for p in page.members[2].provenance]
    )  # fmt: skip


def test_it_is_about_what_was_taught_whatever_a_network_is_called(
    runs: Path, teacher_run: RunResult, student_recipe: Callable, tmp_path: Path
) -> None:
    """A student's role has a budget and need not have a teacher; of labels alone it is the one to be held against."""
    alone = student_recipe("name=alone", "teacher=null", "objective={kind: supervised}", "train.epochs=3")
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    alone = train_student(alone, options=options).run
    page = gather_page(
        examine([str(teacher_run.run), str(runs / "taught/001"), str(alone)], runs_dir=runs, latency=False),
        title=None, command="", runs_dir=runs,
    )  # fmt: skip
    assert page.headline == "taught"
    assert page.member("taught").row.baseline == str(alone)
    own = examine([str(teacher_run.run), str(alone)], runs_dir=runs, latency=False)
    page = gather_page(own, title=None, command="", runs_dir=runs)
    assert page.headline == "alone"
    assert "its teacher" not in page.lead


def test_each_data_set_has_its_verdict(examined: Examined, runs: Path) -> None:
    rows = list(examined.comparison.rows)
    tested = dict(examined.tested)

    def other(run: str | None) -> str | None:
        return run and f"{run}/other"

    for row in [row for row in rows if row.source_run is None]:
        places = {"run": other(row.run), "teacher": other(row.teacher), "baseline": other(row.baseline)}
        rows.append(replace(row, name=f"{row.name}_other", dataset="other", test_top1=row.test_top1 / 2, **places))
        tested[f"{row.run}/other"] = tested[row.run]
    both = Examined(replace(examined.comparison, rows=tuple(rows)), tested)
    page = gather_page(both, title=None, command="", runs_dir=runs)
    first = next(row.dataset for row in rows)
    assert page.headline == "taught"
    assert page.lead.startswith(f"On {first}: taught keeps ")
    (told,) = [each.text for each in page.sentences if each.text.startswith("On ")]
    assert told.startswith("On other: taught_other keeps ")
    assert "than alone_other" in told or "alone_other cannot be told apart" in told


def test_curves_are_the_metrics_of_all_seeds(page: Page, runs: Path) -> None:
    member = page.member("taught")
    for curve, number in zip(member.curves["val_top1"], ("001", "002"), strict=True):
        lines = [json.loads(line) for line in (runs / "taught" / number / "metrics.jsonl").read_text().splitlines()]
        assert list(curve.points) == [(line["epoch"], line["val_top1"]) for line in lines]
    assert set(member.parts) == {"train_ce", "train_kd"}


def test_what_was_lost_is_counted_from_the_answers(page: Page, runs: Path, teacher_run: RunResult) -> None:
    def confusion(run: Path) -> np.ndarray:
        logits, labels = _stored(run, "logits"), _stored(run, "labels")
        counts = np.zeros((logits.shape[1],) * 2)
        for truth, guess in zip(labels, logits.argmax(1), strict=True):
            counts[truth, guess] += 1
        return counts

    ours = (confusion(runs / "taught" / "001") + confusion(runs / "taught" / "002")) / 2
    theirs = confusion(Path(teacher_run.run))
    np.testing.assert_allclose(page.pair.difference, ours - theirs)
    for index, each in enumerate(page.pair.errors):
        assert each.student == pytest.approx(1 - ours[index, index] / ours[index].sum())
        assert each.teacher == pytest.approx(1 - theirs[index, index] / theirs[index].sum())
    off = ours - theirs
    np.fill_diagonal(off, 0)
    assert page.pair.lost[0].student - page.pair.lost[0].teacher == pytest.approx(off.max())


def test_the_hardest_images_are_those_with_least_probability(page: Page, runs: Path) -> None:
    def probabilities(run: Path) -> np.ndarray:
        shares = np.exp(_stored(run, "logits").astype(np.float64))
        return shares / shares.sum(1, keepdims=True)

    mean = (probabilities(runs / "taught" / "001") + probabilities(runs / "taught" / "002")) / 2
    labels = _stored(runs / "taught" / "001", "labels")
    truth = mean[np.arange(len(labels)), labels]
    assert [each.index for each in page.hardest] == np.argsort(truth, kind="stable")[:24].tolist()
    assert page.hardest[0].truth == pytest.approx(truth.min())
    worst = page.hardest[0]
    assert worst.student.probability == pytest.approx(mean[worst.index].max())
    assert worst.student.right == (mean[worst.index].argmax() == labels[worst.index])


def test_thumbnails_are_the_images_themselves(page: Page, runs: Path) -> None:
    import io

    from PIL import Image

    images = load_splits(RunFolder(runs / "taught" / "001").recipe().data).test
    for each in page.hardest[:3]:
        shown = np.asarray(Image.open(io.BytesIO(each.png))).transpose(2, 0, 1)
        np.testing.assert_array_equal(shown, images.take(np.array([each.index]))[0])


def test_recipes_differ_where_they_differ(page: Page) -> None:
    found = dict(page.differences)
    assert found["objective.kind"] == ("supervised", "supervised", "kd")
    assert found["role"] == ("teacher", "baseline", "student")
    assert "data.name" not in found
    assert "train.seed" not in found


def test_provenance_names_weights_data_and_how_to_repeat_it(page: Page, runs: Path, teacher_run: RunResult) -> None:
    one, two = page.member("taught").provenance
    assert (one.seed, two.seed) == (0, 1)
    assert one.again == f"distill student --rerun {runs / 'taught' / '001'}"
    assert one.weights != two.weights
    assert one.teacher == page.member("tiny_teacher").provenance[0].weights
    assert one.data == json.loads((runs / "taught" / "001" / "run.json").read_text())["data"]["fingerprint"]
    assert page.member("taught_int8").provenance[0].weights


def test_what_taught_or_lent_its_weights_and_is_no_row_is_repeated_first(runs: Path, teacher_run: RunResult) -> None:
    mean = soup([runs / "taught" / "001", runs / "taught" / "002"], options=Options(runs_dir=runs, threads=1)).run
    names = [str(mean), str(runs / "taught" / "002")]
    page = gather_page(
        examine(names, runs_dir=runs, latency=False), title=None, command="distill report", runs_dir=runs
    )
    assert page.before == (
        f"distill teacher-finetune --rerun {teacher_run.run}",
        f"distill student --rerun {runs / 'taught' / '001'}",
    )
    text = render_page(page)
    places = [text.index(line) for line in (*page.before, "distill soup ", f"--rerun {runs / 'taught' / '002'}")]
    assert places[0] < places[1] < min(places[2:])


def test_the_command_writes_a_page_and_replaces_its_own_alone(
    runs: Path, teacher_run: RunResult, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    arguments = ("report", "--html", str(out), "--no-latency", "--runs", str(runs), "taught", "alone")
    code, stdout, _ = _cli(*arguments)
    assert (code, stdout) == (0, f"{out}\n")
    assert "taught is" in out.read_text() or "cannot be told apart" in out.read_text()
    assert "Not measured: its teacher&#39;s answers are not in this table." in out.read_text()
    assert json.loads(_cli(*arguments, "--json")[1]) == [str(out)]
    out.write_text("mine")
    code, _, stderr = _cli(*arguments)
    assert code == 2
    assert "distill did not make it" in stderr
    assert out.read_text() == "mine"
    assert _cli(*arguments, "--overwrite")[0] == 0
    assert _cli("report", "--html", str(tmp_path / "page.pdf"))[0] == 2
    assert _cli("report", "--title", "x")[0] == 2


def test_a_teacher_that_left_its_bank_alone_is_told_as_one_that_is_here(
    student_recipe: Callable, teacher_run: RunResult, tmp_path: Path
) -> None:
    """Of its answers in the bank: the test, the confusions, the calibration, what it takes the hardest images for."""
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    own = ("name=banked", "augment.view_seed=51", "train.epochs=1")
    here = train_student(student_recipe(*own, "teacher.logits=bank"), teacher=str(teacher_run.run), options=options)
    bank = RunFolder(here.run).info.teacher["bank"]
    far = train_student(student_recipe(*own, f"teacher={{bank: {bank}}}"), options=options)
    pages = [
        gather_page(
            examine(names, runs_dir=tmp_path / "runs", latency=False),
            title="t",
            command="c",
            runs_dir=tmp_path / "runs",
        )
        for names in ([str(here.run), str(teacher_run.run)], [str(far.run)])
    ]
    for page in pages:
        assert page.member("tiny_teacher").row.role == "teacher"
        assert any(each.text.startswith("Against its teacher, tiny_teacher: ") for each in page.sentences)
    run, banked = pages
    assert banked.missing.keys() == run.missing.keys()
    np.testing.assert_array_equal(banked.pair.difference, run.pair.difference)
    assert [each.teacher.label for each in banked.hardest] == [each.teacher.label for each in run.hardest]
    curves = (page.member("tiny_teacher").reliability for page in pages)
    assert next(curves).ece == pytest.approx(next(curves).ece, abs=1e-4)  # ONNX Runtime has other last bits
    assert (banked.member("tiny_teacher").curves, banked.member("tiny_teacher").provenance) == ({}, ())


def test_without_the_images_the_page_says_so(examined: Examined, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distill.errors import MissingError

    def gone(*_: object) -> None:
        raise MissingError("cifar10 is not in data")

    monkeypatch.setattr("distill.pipeline.page.images_asked", gone)
    page = gather_page(examined, title="t", command="c", runs_dir=runs)
    assert page.hardest == ()
    assert page.missing["hardest"] == "cifar10 is not in data"


def test_a_chain_of_these_runs_is_told(examined: Examined, runs: Path) -> None:
    drop = {"drop": {"estimate": 0.0, "low": -0.1, "high": 0.1}, "reference": 0.5, "allowed": 0.1, "n": 9, "needed": 5}
    tried = {"ratio": 1.0, "run": "r", "params": 1, "gmacs": 0.1, "drop": drop, "shipped": None, "why": "w",
             "prove": False, "seconds": 1.0, "best": True}  # fmt: skip
    for name, run in (("mine", runs / "taught" / "001"), ("other", runs / "nobody" / "001")):
        folder = runs.parent / "compressed" / name
        folder.mkdir(parents=True)
        document = {"folder": str(folder), "run": str(run), "goal": "size", "max_drop": 0.1, "candidates": [tried]}
        (folder / "result.json").write_text(json.dumps(document))
    (runs.parent / "compressed" / "damaged").mkdir()
    (runs.parent / "compressed" / "damaged" / "result.json").write_text("{}")
    try:
        chains = gather_page(examined, title=None, command="c", runs_dir=runs).chains
    finally:
        import shutil

        shutil.rmtree(runs.parent / "compressed")
    assert [Path(chain.folder).name for chain in chains] == ["mine"]


def test_python_has_it(runs: Path, tmp_path: Path) -> None:
    out = distill.write_page("alone", out=tmp_path / "a.html", latency=False, options=Options(runs_dir=runs))
    assert "alone" in out.read_text()
