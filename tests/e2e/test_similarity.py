"""``distill similarity``: a run beside its teacher."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from distill import Options, export, finetune_teacher, similarity, train_student
from distill.cli import app
from distill.errors import DataError, UsageError
from distill.recipe import parse_recipe

RECIPE = """
schema_version: 1
name: {name}
role: {role}
data: {{name: {data}, image_size: {size}, limit: 96, test_limit: {tests}}}
model: {{source: {source}, name: tiny, width: {width}, input_size: 16}}
train: {{epochs: 1, batch_size: 16}}
{rest}
"""


def recipe(name, role, *, width=4, size=16, tests=60, data="synthetic", rest="objective: {kind: supervised}"):
    source = "teachers" if role == "teacher" else "students"
    fields = {"source": source, "width": width, "size": size, "tests": tests, "data": data}
    return parse_recipe(RECIPE.format(name=name, role=role, rest=rest, **fields), source="test")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def options(runs):
    return Options(runs_dir=runs, device="cpu", threads=1)


@pytest.fixture(scope="module")
def teacher(options):
    return finetune_teacher(recipe("teacher", "teacher", width=8), options=options).run


@pytest.fixture(scope="module")
def student(teacher, options):
    taught = f"teacher: {{run: {teacher}}}\nobjective: {{kind: kd}}"
    return train_student(recipe("student", "student", rest=taught), options=options).run


def test_a_student_is_held_against_its_teacher(student, teacher, options):
    found = similarity(student, options=options)
    assert (found.name, found.other_name, found.n, found.images) == ("student", "teacher", 60, 60)
    assert found.stages == ("stem", "stage1", "pooled")
    assert np.array(found.cka).shape == (len(found.stages), len(found.other_stages))
    logits = [np.load(run / "evaluation" / "test_logits.npy") for run in (student, teacher)]
    assert found.agreement == (logits[0].argmax(1) == logits[1].argmax(1)).mean()
    corr = [np.corrcoef(each.T.astype(np.float64)) for each in logits]
    beside = np.abs(corr[0] - corr[1])[~np.eye(10, dtype=bool)]
    assert found.correlation_difference == pytest.approx(beside.mean())


def test_a_network_is_itself(student, options):
    found = similarity(student, student, options=options)
    assert (found.agreement, found.divergence, found.correlation_difference) == (
        1.0,
        pytest.approx(0.0, abs=1e-12),
        0.0,
    )
    assert np.diag(np.array(found.cka)) == pytest.approx(np.ones(3), abs=1e-5)


def test_the_same_images_are_drawn_and_asked_whoever_is_held_against_whom(student, teacher, options):
    one, other = (
        similarity(student, teacher, images=20, options=options),
        similarity(teacher, student, images=20, options=options),
    )
    assert one.images == other.images == 20
    np.testing.assert_allclose(np.array(one.cka), np.array(other.cka).T, atol=1e-9)
    again = similarity(student, teacher, images=20, options=options)
    assert again == one


def test_an_image_decoded_at_another_size_is_the_same_image(options):
    runs = [
        train_student(recipe(f"side{size}", "baseline", size=size, data="digits"), options=options).run
        for size in (16, 24)
    ]
    assert similarity(*runs, options=options).n == 60


def test_the_command_prints_a_table_json_and_a_picture(student, runs, tmp_path):
    runner, told = CliRunner(), ["--runs", str(runs), "--device", "cpu"]
    done = runner.invoke(app, ["similarity", "student", *told, "--figure", str(tmp_path / "both.svg")])
    assert done.exit_code == 0, done.output
    assert "agreement" in done.output
    assert "student down, teacher across" in done.output
    assert (tmp_path / "both.svg").stat().st_size > 10_000
    asked = ["similarity", "student", *told, "--json", "--split", "val", "--images", "8"]
    document = json.loads(runner.invoke(app, asked).stdout)
    assert document["split"] == "val"
    assert document["images"] == 8
    assert "correlations" not in document
    several = runner.invoke(app, ["similarity", "student", "teacher", "--with", "teacher", *told])
    assert several.exit_code == 0, several.output
    lines = [line.split() for line in several.stdout.splitlines() if line.startswith(("student", "teacher"))]
    assert [(line[0], line[1], line[2]) for line in lines] == [
        ("student", "teacher", "60"),
        ("teacher", "teacher", "60"),
    ]
    assert lines[1][3:] == ["100.00", "0.0000", "0.0000", "1.00"]
    both = runner.invoke(app, ["similarity", "student", "student", *told, "--json"])
    assert [each["name"] for each in json.loads(both.stdout)["runs"]] == ["student"] * 2
    assert runner.invoke(app, ["similarity", "student", "teacher", *told, "--figure", "a.svg"]).exit_code == 2
    (tmp_path / "mine.svg").write_text("<svg/>")
    refused = runner.invoke(app, ["similarity", "student", *told, "--figure", str(tmp_path / "mine.svg")])
    assert refused.exit_code == 2
    assert (tmp_path / "mine.svg").read_text() == "<svg/>"


def test_what_cannot_be_held_against_another_is_told(student, options, tmp_path):
    alone = train_student(recipe("alone", "baseline"), options=options).run
    with pytest.raises(UsageError, match="names no run that taught it"):
        similarity(alone, options=options)
    file = tmp_path / "student.onnx"
    export(student, out=file, options=options)
    with pytest.raises(UsageError, match="its stages cannot be seen"):
        similarity(file, options=options)
    fewer = train_student(recipe("fewer", "baseline", data="digits"), options=options).run
    with pytest.raises(DataError, match="know different classes"):
        similarity(student, fewer, options=options)
    more = train_student(recipe("more", "baseline", tests=50), options=options).run
    with pytest.raises(DataError, match="different test images"):
        similarity(student, more, options=options)
    with pytest.raises(UsageError, match="at least 4"):
        similarity(student, images=3, options=options)


def test_a_teacher_that_was_trained_anew_is_told_of(tmp_path):
    options = Options(runs_dir=tmp_path / "runs", device="cpu", threads=1)
    first = finetune_teacher(recipe("first", "teacher", width=8), options=options).run
    taught = f"teacher: {{run: {first}}}\nobjective: {{kind: kd}}"
    run = train_student(recipe("taught", "student", rest=taught), options=options).run
    assert similarity(run, options=options).notes == ()
    shutil.rmtree(first.parent)
    assert finetune_teacher(recipe("first", "teacher", width=6), options=options).run == first
    (note,) = similarity(run, options=options).notes
    assert note.startswith(f"{first} is no longer the teacher it learned from: other weights")
