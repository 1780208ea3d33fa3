"""``distill soup``: the mean of several runs' weights, as a run like any other."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from distill.certificate import certify
from distill.cli import app
from distill.comparison import compare
from distill.data.splits import load_splits
from distill.errors import UsageError
from distill.events import Note
from distill.models.trained import load_trained
from distill.pipeline import Options, export, finetune_teacher, prune, rerun, resume_run, soup, train_student
from distill.pipeline.members import repeating
from distill.runs import RunFolder, open_run
from distill.runs.remove import check_removable

CPU = torch.device("cpu")
UNTRAINED, RECORD, SOUP = (sys.modules[f"distill.pipeline.{name}"] for name in ("untrained", "record", "soup"))


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    return Options(runs_dir=tmp_path_factory.mktemp("soups") / "runs", threads=1, device="cpu")


@pytest.fixture(scope="module")
def started(options: Options, teacher_recipe) -> Path:
    """What the runs that are averaged began with."""
    return finetune_teacher(teacher_recipe("name=started"), options=options).run


@pytest.fixture(scope="module")
def tuned(started: Path, options: Options, teacher_recipe) -> tuple[Path, Path, Path]:
    """Three fine-tunings of one network, with other seeds and settings."""
    begun = replace(options, init_from=str(started))
    settings = (("train.seed=1", "optim.lr=0.01"), ("train.seed=2", "optim.lr=0.02"), ("model.dropout=0.1",))
    first, second, third = (
        finetune_teacher(teacher_recipe("name=tuned", "train.epochs=1", *each), options=begun).run for each in settings
    )
    return first, second, third


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_trained(RunFolder(run), device=CPU, precision="fp32").module.state_dict()


def _val_top1(run: Path) -> float:
    """By the network alone, asked in one batch."""
    trained = load_trained(RunFolder(run), device=CPU, precision="fp32")
    val = load_splits(trained.recipe.data).val
    assert val is not None
    logits = trained(torch.from_numpy(val.take(slice(None))))
    return float((logits.argmax(1).numpy() == np.asarray(val.labels)).mean())


def test_the_mean_is_a_run_that_holds_the_mean(tuned, options: Options) -> None:
    made = soup(tuned, options=options)
    assert made.run.parent.name == "tuned_soup"
    found, members = _weights(made.run), [_weights(run) for run in tuned]
    for name, tensor in found.items():
        if tensor.is_floating_point():
            by_hand = np.mean([each[name].double().numpy() for each in members], axis=0)
            np.testing.assert_allclose(tensor.numpy(), by_hand, rtol=1e-6, atol=1e-9, err_msg=name)
    assert [each.used for each in made.members] == [True] * 3
    assert [each.top1 for each in made.members] == pytest.approx([_val_top1(run) for run in tuned])
    assert made.top1 == pytest.approx(_val_top1(made.run))
    best = max(each.top1 for each in made.members)
    assert made.against_best.difference.estimate == pytest.approx(made.top1 - best)
    assert (made.split, made.images, made.greedy) == ("val", 15, False)


def test_it_is_a_run_like_any_other(tuned, options: Options, tmp_path: Path) -> None:
    run = RunFolder(soup(tuned[:2], name="pair", options=options).run)
    assert run.result()["val_top1"] == pytest.approx(_val_top1(run.path))
    assert resume_run(run.path, options=options).epochs == 0, "finished"
    (row,) = compare([run.path], latency=False).rows
    assert (row.name, row.role, row.params) == ("pair", "teacher", RunFolder(tuned[0]).figures().params)
    assert export(run.path, out=tmp_path / "mean.onnx", options=options).parity.images > 0
    assert prune(run.path, macs=0.8, train=False, options=options).after.params < row.params
    taught = soup([run.path, tuned[2]], options=options)
    assert taught.run.parent.name == "pair_soup", "a mean has a mean with others"


def test_it_has_no_epochs_to_watch_and_no_speed(tuned, options: Options) -> None:
    run = soup(tuned[:2], name="still", options=options).run
    watched = CliRunner().invoke(app, ["watch", str(run)])
    assert (watched.exit_code, watched.stdout) == (0, "")
    assert "has no epochs: its weights were not trained here" in watched.stderr
    resumed = CliRunner().invoke(app, ["teacher-finetune", "--resume", str(run)])
    assert resumed.exit_code == 0
    assert "images/s" not in resumed.stdout


def test_it_teaches(tuned, options: Options, student_recipe) -> None:
    made = soup(tuned, name="teaching", options=options)
    student = train_student(student_recipe("train.epochs=1"), teacher="teaching", options=options)
    assert RunFolder(student.run).info.teacher["sha256"] == load_trained(RunFolder(made.run), device=CPU).sha256


def test_the_command_that_it_names_makes_the_same_bytes(tuned, options: Options) -> None:
    made = soup(tuned, greedy=True, name="again", options=options)
    with pytest.raises(UsageError, match="was averaged and not trained") as caught:
        rerun(made.run, options=options)
    command = repeating(RunFolder(made.run))
    assert command is not None
    assert caught.value.hint == f"make it again: {command}"
    more = ["--runs", str(options.runs_dir), "--device", "cpu", "--json"]
    result = CliRunner().invoke(app, [*command.split()[1:], *more])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    one, two = (load_trained(RunFolder(Path(run)), device=CPU).sha256 for run in (made.run, document["run"]))
    assert one == two
    assert document["run"] != str(made.run), "a run of its own"
    assert document["greedy"] is True
    assert document["against_best"]["verdict"] in ("better", "worse", "cannot tell")


def _answering(monkeypatch: pytest.MonkeyPatch, worth: dict[frozenset[int], list[int]]) -> list[frozenset[int]]:
    """Means that answer right what ``worth`` says of their members, in place of what the weights answer."""
    asked = []

    def of(_: object, chosen) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        asked.append(frozenset(chosen))
        return {}, np.array(worth[frozenset(chosen)], dtype=bool)

    monkeypatch.setattr(SOUP._Averaged, "of", of)
    return asked


def test_greedy_takes_the_best_first_and_whoever_makes_it_no_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [np.array(each, dtype=bool) for each in ([1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0])]
    worth = {frozenset({1, 2}): [1, 1, 0, 0], frozenset({1, 3}): [1, 1, 1, 0], frozenset({0, 1, 3}): [1, 1, 1, 1]}
    asked = _answering(monkeypatch, worth)
    chosen = SOUP._greedily(alone, object.__new__(SOUP._Averaged), lambda _: None)
    assert chosen == [0, 1, 3]
    assert asked == [frozenset({1, 2}), frozenset({1, 3}), frozenset({0, 1, 3})], "from the best to the worst"


def test_greedy_may_keep_the_best_alone_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [np.array(each, dtype=bool) for each in ([1, 0], [1, 1])]
    _answering(monkeypatch, {frozenset({0, 1}): [0, 1]})
    said: list[Note] = []
    assert SOUP._greedily(alone, object.__new__(SOUP._Averaged), said.append) == [1]
    assert [each.level for each in said] == ["warning"]


def test_runs_that_began_apart_are_warned_of(options: Options, teacher_recipe) -> None:
    settings = ("name=apart", "data.limit=600", "train.epochs=8")
    apart = [finetune_teacher(teacher_recipe(*settings, f"train.seed={seed}"), options=options).run for seed in (5, 6)]
    said: list[Note] = []
    made = soup(apart, options=replace(options, on_event=said.append))
    assert made.top1 < min(each.top1 for each in made.members)
    (warning,) = [each.message for each in said if isinstance(each, Note) and each.level == "warning"]
    assert "for runs that began with the same weights" in warning


def test_without_validation_images_it_is_judged_on_training_images(options: Options, teacher_recipe) -> None:
    runs = [
        finetune_teacher(
            teacher_recipe("name=all", "data.val_fraction=0", "train.epochs=1", f"train.seed={seed}"), options=options
        ).run
        for seed in (0, 1)
    ]
    made = soup(runs, options=options)
    assert (made.split, made.images) == ("train", 150)
    assert RunFolder(made.run).result()["val_top1"] is None
    with pytest.raises(UsageError, match="--greedy chooses by validation images"):
        soup(runs, greedy=True, options=options)


def test_its_runs_are_needed_and_stand_in_its_certificate(tuned, options: Options, tmp_path: Path) -> None:
    made = soup(tuned[:2], greedy=True, name="shipped", options=options)
    with pytest.raises(UsageError, match="is needed by"):
        check_removable([open_run(tuned[0])], runs_dir=options.runs_dir)
    file = export(made.run, out=tmp_path / "exports" / "shipped.onnx", options=options).file
    found = certify(file, against=str(tuned[0]), run=str(made.run), seconds=0.1, options=options)
    steps = [(each.what, Path(each.subject).parts[-2:]) for each in found.certificate.steps]
    used = [run for run, each in zip(tuned, made.members, strict=False) if each.used]
    assert steps[:-1] == [
        ("trained", ("started", "001")),
        *(("trained", run.parts[-2:]) for run in used),
        ("averaged", ("shipped", made.run.name)),
    ]
    averaged = found.certificate.steps[-2]
    assert averaged.reads == {"chose which runs count": "validation"}
    assert averaged.repeat == repeating(RunFolder(made.run))


@pytest.mark.parametrize("stage", ["save_checkpoint", "write_identity"])
def test_one_that_was_killed_says_how_to_make_it_again(
    tuned, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(UNTRAINED, stage, kill)
        patch.setattr(RECORD, "_write_end", lambda *_: None)  # nothing is said any more
        with pytest.raises(Killed):
            soup(tuned[:2], options=replace(options, runs_dir=tmp_path / "runs"))
    folder = next((tmp_path / "runs" / "tuned_soup").glob("0*"))
    with pytest.raises(UsageError, match="was being averaged when it was stopped") as caught:
        resume_run(folder, options=options)
    assert caught.value.hint == f"make it again: distill soup {tuned[0]} {tuned[1]} --name tuned_soup"


def test_what_has_no_mean_is_refused_in_one_line(tuned, options: Options, teacher_recipe, tmp_path: Path) -> None:
    def trained(name: str, *overrides: str) -> Path:
        return finetune_teacher(teacher_recipe(f"name={name}", "train.epochs=1", *overrides), options=options).run

    first = tuned[0]
    others = {
        "model.width 8 and 16": trained("wide", "model.width=16"),
        "were trained on different images": trained("less", "data.limit=100"),
        "model.normalize": trained("scaled", "model.normalize={mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}"),
    }
    before = sorted(options.runs_dir.iterdir())
    for line, other in others.items():
        with pytest.raises(UsageError, match=line):
            soup([first, other], options=options)
    for named, line in (
        ([first], "two runs or more"),
        ([first, first], "is named twice"),
        ([], "two runs or more"),
    ):
        with pytest.raises(UsageError, match=line):
            soup(named, options=options)
    for name, line in (("../up", "not a run's name"), ("a.onnx", "taken for an exported file")):
        with pytest.raises(UsageError, match=line):
            soup(tuned, name=name, options=options)
    assert sorted(options.runs_dir.iterdir()) == before, "nothing was made"


def test_what_validates_must_not_have_taught_what_is_behind_it(options: Options, teacher_recipe) -> None:
    everything = finetune_teacher(
        teacher_recipe("name=everything", "data.val_fraction=0", "train.epochs=1"), options=options
    )
    begun = replace(options, init_from=str(everything.run))
    runs = [
        finetune_teacher(teacher_recipe("name=leaky", "train.epochs=1", f"train.seed={seed}"), options=begun).run
        for seed in (1, 2)
    ]
    (line,) = RunFolder(runs[0]).info.extra["cautions"]
    assert line.startswith(f"the run that it begins with, {everything.run}, was trained on 15 of the 15 images")
    with pytest.raises(UsageError, match=r"--greedy chooses by validation images: .* was trained on 15 of"):
        soup(runs, greedy=True, options=options)
    line, *own = RunFolder(soup(runs, options=options).run).info.extra["cautions"]
    assert [each.partition(":")[0] for each in own] == [str(run) for run in runs]
    assert line.startswith(f"{everything.run}, whose weights are in {runs[0]}, was trained on 15 of the 15 images")


def test_the_recipe_is_of_a_run_that_counts(tuned, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOUP, "_greedily", lambda *_: [1, 2])
    run = RunFolder(soup(tuned, greedy=True, name="later", options=options).run)
    assert run.info.extra["soup_of"] == [str(tuned[1]), str(tuned[2])]
    assert run.info.extra["soup_tried"] == [str(each) for each in tuned]
    assert run.info.seeds["train"] == run.recipe().train.seed == 2
    assert run.recipe().optim.lr == 0.02
    with pytest.raises(UsageError, match="is needed by"):
        check_removable([open_run(tuned[0])], runs_dir=options.runs_dir)


def test_sizes_of_several_runs(tuned, started: Path, options: Options, teacher_recipe) -> None:
    recipe = teacher_recipe("name=larger", "train.epochs=1", "model.input_size=40")
    larger = finetune_teacher(recipe, options=replace(options, init_from=str(started))).run
    said: list[Note] = []
    made = soup([tuned[0], larger], name="sizes", options=replace(options, on_event=said.append))
    assert RunFolder(made.run).recipe().model.input_size == 32
    assert any("is asked at 32 pixels" in each.message for each in said if isinstance(each, Note))
    with pytest.raises(UsageError, match=r"of one model\.input_size .* have 32, 40"):
        soup([tuned[0], larger], greedy=True, options=options)


def test_what_flatters_its_runs_flatters_it(tuned, options: Options, student_recipe) -> None:
    other_split = ("train.epochs=1", "name=flattered", "data.split_seed=5")
    runs = [
        train_student(student_recipe(*other_split, f"train.seed={seed}"), teacher=str(tuned[0]), options=options).run
        for seed in (1, 2)
    ]
    cautions = RunFolder(soup(runs, options=options).run).info.extra["cautions"]
    own = RunFolder(runs[0]).info.extra["cautions"]
    assert own
    assert [f"{runs[0]}: {line}" for line in own] == cautions[: len(own)]


def test_students_of_different_teachers_are_told(options: Options, started: Path, tuned, student_recipe) -> None:
    runs = [
        train_student(student_recipe("train.epochs=1", "name=taught"), teacher=str(teacher), options=options).run
        for teacher in (started, tuned[0])
    ]
    made = soup(runs, options=options)
    info = RunFolder(made.run).info
    assert info.teacher["sha256"] == RunFolder(runs[0]).info.teacher["sha256"]
    assert info.extra["cautions"] == ["its runs learned from 2 different teachers; its recipe names the first one's"]


def test_the_table_names_every_run_and_the_mean(tuned, options: Options) -> None:
    result = CliRunner().invoke(
        app, ["soup", *map(str, tuned), "--greedy", "--runs", str(options.runs_dir), "--threads", "1"]
    )
    assert result.exit_code == 0, result.stderr
    assert "the mean" in result.stdout
    assert "on 15 validation images, paired" in " ".join(result.stdout.split())
