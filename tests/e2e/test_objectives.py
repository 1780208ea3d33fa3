"""Objectives from a recipe, end to end, on tiny networks."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill import Options, export, finetune_teacher, load_model, prune, resume_run, train_student
from distill.errors import InterruptedRunError, RecipeError
from distill.events import StepDone
from distill.pipeline.verify import verify_banks
from distill.recipe import load_recipe, parse_recipe
from distill.teaching.bank import Bank
from distill.teaching.live import LiveTeacher

RECIPE = """
schema_version: 1
name: {name}
role: {role}
data: {{name: synthetic, image_size: 16, limit: 96, test_limit: 20}}
augment: {{crop_padding: 2, hflip: 0.5{augment}}}
model: {{source: {source}, name: tiny, width: {width}, input_size: 16{model}}}
optim: {{name: sgd, lr: 0.05}}
train: {{epochs: {epochs}, batch_size: 16{train}}}
{rest}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def teacher(runs):
    text = RECIPE.format(
        name="teacher", role="teacher", source="teachers", width=8, epochs=2, rest="", augment="", train="", model=""
    )
    return finetune_teacher(parse_recipe(text, source="test"), options=Options(runs_dir=runs, device="cpu")).run


def student(
    runs,
    teacher,
    objective,
    *,
    name="student",
    logits="auto",
    epochs=2,
    augment="",
    train="",
    model="",
    on_event=None,
    devices=1,
    source=None,
    width=4,
):
    source = source or f"run: {teacher}"
    rest = f"teacher: {{{source}, logits: {logits}}}\nobjective: {objective}"
    text = RECIPE.format(
        name=name,
        role="student",
        source="students",
        width=width,
        epochs=epochs,
        rest=rest,
        augment=augment,
        train=train,
        model=model,
    )
    options = Options(runs_dir=runs, device="cpu", on_event=on_event, devices=devices)
    return train_student(parse_recipe(text, source="test"), options=options).run


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("objective", "parts"),
    [
        ("{kind: dkd, ramp_epochs: 2}", {"tckd", "nckd"}),
        ("{kind: dist}", {"inter", "intra"}),
        ("{kind: mse}", {"mse"}),
        ("{kind: nkd}", {"target", "others"}),
        ("{kind: mlkd, temperatures: [1, 4]}", {"instance", "batch", "class"}),
        ("{kind: ttm, weighted: true}", {"ttm"}),
        ("{kind: ctkd, curriculum_epochs: 2}", {"ctkd", "temperature"}),
        ("{kind: kd, standardize: true, add: [{kind: dist}, {kind: mse}]}", {"kd", "inter", "intra", "mse"}),
    ],
)
def test_objectives_on_logits_train_with_mixup_ema_and_accumulation(runs, teacher, objective, parts):
    run = student(runs, teacher, objective, augment=", mixup: {alpha: 0.4}", train=", ema: 0.9, accumulate: 2")
    for epoch in metrics(run):
        assert {f"train_{part}" for part in parts | {"ce", "loss", "top1"}} <= epoch.keys()


def test_a_term_that_has_ended_is_told_no_more(runs, teacher):
    run = student(runs, teacher, "{kind: kd, add: [{kind: mse, until_epoch: 1}]}")
    first, second = metrics(run)
    assert "train_mse" in first
    assert "train_mse" not in second
    assert "train_kd" in second


def test_once_the_last_term_has_ended_nobody_asks_the_teacher(runs, teacher, monkeypatch):
    """Live it is asked in those epochs alone, and a bank has their views and no more: both teach the same bytes."""
    objective = "{kind: kd, ce_weight: 1.0, until_epoch: 1, add: [{kind: mse, until_epoch: 2}]}"
    steps, answer = [], LiveTeacher.outputs

    def counted(source, batch):
        steps.append(batch)
        return answer(source, batch)

    monkeypatch.setattr(LiveTeacher, "outputs", counted)
    live = student(runs, teacher, objective, name="ended_live", logits="live", epochs=5)
    images = json.loads((live / "run.json").read_text())["data"]["train"]
    assert len(steps) == 2 * -(-images // 16)
    stored = student(runs, teacher, objective, name="ended_bank", logits="bank", epochs=5)
    bank = Bank.open(Path(json.loads((stored / "run.json").read_text())["teacher"]["bank"]))
    assert bank.info.views == 2
    weights = [(run / "checkpoints/last/model.safetensors").read_bytes() for run in (live, stored)]
    assert weights[0] == weights[1]
    assert metrics(live) == metrics(stored)


FEATURES = [
    ("{kind: fitnet}", {"fitnet"}),
    ("{kind: vid}", {"vid"}),
    ("{kind: reviewkd, ramp_epochs: 1, add: [{kind: kd}]}", {"reviewkd", "kd"}),
    ("{kind: reviewkd, features: [stem.preact, stage1.preact]}", {"reviewkd"}),
    ("{kind: fitnet, features: [stage1.preact], teacher_features: [stage1]}", {"fitnet"}),
    ("{kind: at}", {"at"}),
    ("{kind: nst}", {"nst"}),
    ("{kind: ab}", {"ab"}),
    ("{kind: ofd}", {"ofd"}),
    ("{kind: sp}", {"sp"}),
    ("{kind: rkd}", {"rkd_distance", "rkd_angle"}),
    ("{kind: pkt, features: [stage1, pooled]}", {"pkt"}),
    ("{kind: cc, features: [stage1, pooled]}", {"cc"}),
]


@pytest.mark.parametrize(("objective", "parts"), FEATURES)
def test_objectives_on_features_train_with_mixup_ema_and_accumulation(runs, teacher, objective, parts):
    more = ", ema: 0.9, accumulate: 2, clip_norm: 1.0"
    run = student(runs, teacher, objective, logits="auto", augment=", mixup: {alpha: 0.4}", train=more)
    for epoch in metrics(run):
        assert {f"train_{part}" for part in parts | {"ce", "loss", "top1"}} <= epoch.keys()
    chosen = json.loads((run / "run.json").read_text())["teacher"]
    assert chosen["logits"] == ("bank" if parts == {"rkd_distance", "rkd_angle"} else "live")  # pooled alone


def test_fsp_trains_where_widths_agree_and_is_refused_where_not(runs, teacher):
    run = student(runs, teacher, "{kind: fsp}", name="flow", width=8)
    assert all("train_fsp" in epoch for epoch in metrics(run))
    with pytest.raises(RecipeError, match="the student's stem has 4 channels, the teacher's stem 8"):
        student(runs, teacher, "{kind: fsp}", name="narrow")
    assert not (runs / "narrow").exists()


def test_fts_student_learns_of_the_teacher_once_the_paraphraser_has(runs, teacher):
    run = student(runs, teacher, "{kind: ft, paraphraser_epochs: 2}", name="paraphrased", epochs=4)
    told = [{key for key in epoch if key in ("train_ft", "train_paraphraser")} for epoch in metrics(run)]
    assert told == [{"train_paraphraser"}] * 2 + [{"train_ft"}] * 2
    plain = student(runs, teacher, "{kind: kd, kd_weight: 0.0, ce_weight: 1.0}", name="of_labels", epochs=4)
    losses = [[epoch["train_ce"] for epoch in metrics(each)] for each in (run, plain)]
    assert losses[0][:2] == losses[1][:2]  # what the paraphraser learns is no matter of the student's
    assert losses[0][3] != losses[1][3]
    with pytest.raises(RecipeError, match=r"objective ft teaches from epoch 31 on, and train.epochs is 2"):
        student(runs, teacher, "{kind: ft}", name="too_short")
    assert not (runs / "too_short").exists()


def test_a_hint_first_then_labels_live_and_from_a_bank_to_the_same_bytes(runs, teacher):
    objective = "{kind: kd, ce_from_epoch: 2, from_epoch: 3, add: [{kind: rkd, until_epoch: 1}]}"
    stored, live = (
        student(runs, teacher, objective, name=f"first_{how}", logits=how, epochs=3) for how in ("bank", "live")
    )
    assert weights(stored) == weights(live)
    told = [{key.removeprefix("train_") for key in epoch if key.startswith("train_")} for epoch in metrics(stored)]
    assert ["rkd_angle" in parts for parts in told] == [True, False, False]
    assert ["kd" in parts for parts in told] == [False, False, True]


def test_crd_trains_and_mixed_images_are_refused(runs, teacher):
    run = student(runs, teacher, "{kind: crd, negatives: 50}", train=", ema: 0.9, accumulate: 2")
    assert "train_crd" in metrics(run)[0]
    with pytest.raises(RecipeError, match=r"turn off augment.mixup"):
        student(runs, teacher, "{kind: crd}", augment=", mixup: {alpha: 0.4}")


@pytest.mark.parametrize("kind", ["sp", "rkd", "pkt", "cc"])
def test_what_compares_images_is_refused_batches_of_one(kind):
    settings = ["train.batch_size=1", f"objective.add=[{{kind: {kind}}}]"]
    with pytest.raises(RecipeError, match=rf"{kind} compares images of a batch"):
        load_recipe("quickstart_student", settings)


@pytest.mark.parametrize("objective", ["{kind: rkd}", "{kind: crd, negatives: 9, add: [{kind: kd}]}"])
def test_pooled_features_from_a_bank_and_live_train_to_the_same_bytes(runs, teacher, objective):
    stored, live = (student(runs, teacher, objective, name=how, logits=how) for how in ("bank", "live"))
    assert weights(stored) == weights(live)
    assert metrics(stored) == metrics(live)
    assert "features: pooled" in (stored / "recipe.yaml").read_text()


def test_a_bank_with_features_serves_whoever_asks_for_them_and_whoever_does_not(runs, teacher):
    first = student(runs, teacher, "{kind: sp, features: [pooled]}", name="first", logits="bank")
    about = json.loads((first / "run.json").read_text())["teacher"]
    bank = Bank.open(Path(about["bank"]))
    assert bank.info.features == 16
    assert bank.info.width == 16 + len(bank.info.classes)
    named = [
        student(runs, teacher, objective, name=name, source=f"bank: {bank.path}")
        for name, objective in (("far", "{kind: sp, features: [pooled]}"), ("kd", "{kind: kd}"))
    ]
    assert weights(named[0]) == weights(first)
    assert weights(named[1]) == weights(student(runs, teacher, "{kind: kd}", name="own", logits="bank"))
    (row,) = verify_banks([bank.path], options=Options(runs_dir=runs, device="cpu"))
    assert (row.status, row.max_difference) == ("ok", 0.0)


def test_a_bank_without_features_is_refused_before_there_is_a_folder(runs, teacher):
    run = student(runs, teacher, "{kind: kd}", name="without", logits="bank")
    bank = json.loads((run / "run.json").read_text())["teacher"]["bank"]
    with pytest.raises(RecipeError, match="the teacher has no stage pooled"):
        student(runs, teacher, "{kind: rkd}", name="nowhere", source=f"bank: {bank}")
    assert not (runs / "nowhere").exists()
    with pytest.raises(RecipeError, match=r"teacher.features none stores none"):
        student(runs, teacher, "{kind: rkd}", name="nowhere", source=f"run: {teacher}, features: none", logits="bank")


def test_simkd_ships_its_teachers_classifier_and_counts_it(runs, teacher):
    run = student(runs, teacher, "{kind: simkd}", name="reusing", train=", ema: 0.9, clip_norm: 1.0")
    shipped = load_file(run / "checkpoints/last/model.safetensors")
    theirs = load_file(next((teacher / "checkpoints").glob("best/model.safetensors")))
    assert torch.equal(shipped["head.weight"], theirs["head.weight"])
    assert torch.equal(shipped["head.bias"], theirs["head.bias"])
    plain = student(runs, teacher, "{kind: kd}", name="plain3")
    params = [json.loads((each / "result.json").read_text())["params"] for each in (run, plain)]
    projector = 8 * 8 + 9 * 8 * 8 + 8 * 16 + 2 * (8 + 8 + 16)  # from 8 channels by way of 8 to 16, with batch norm
    classes = len(shipped["head.bias"])
    assert params[0] - params[1] == projector + (16 - 8) * classes
    gmacs = [json.loads((each / "result.json").read_text())["gmacs"] for each in (run, plain)]
    worked = 4 * 4 * (8 * 8 + 9 * 8 * 8 + 8 * 16) + (16 - 8) * classes  # on a map of 4x4
    assert 1e9 * (gmacs[0] - gmacs[1]) == pytest.approx(worked, abs=1)
    assert "reuse: 16" in (run / "recipe.yaml").read_text()
    model = load_model(run, device="cpu")
    pixels = torch.zeros((2, 3, 16, 16), dtype=torch.uint8)
    assert model.logits(pixels).shape == (2, classes)
    stored, live = (
        student(runs, teacher, "{kind: simkd, features: [pooled]}", name=f"reusing_{how}", logits=how)
        for how in ("bank", "live")
    )
    assert weights(stored) == weights(live)


def test_a_student_that_reuses_a_classifier_ships_is_pruned_and_teaches(runs, teacher, tmp_path):
    run = student(runs, teacher, "{kind: simkd}", name="sent_on")
    options = Options(runs_dir=runs, device="cpu", threads=1)
    assert export(run, out=tmp_path / "reusing.onnx", options=options).parity.holds
    pruned = prune(run, macs=0.7, multiple=2, epochs=1, options=options)
    assert pruned.after.params < pruned.before.params
    heir = student(runs, run, "{kind: simkd}", name="heir", devices=2)
    heads = [load_file(each / "checkpoints/last/model.safetensors")["head.weight"] for each in (run, pruned.run, heir)]
    assert torch.equal(heads[0], heads[1])
    assert torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": ", freeze_backbone_epochs: 1"}, "leaves nothing to train"),
        ({"model": ", reuse: 5"}, r"student.s stage1 is \(5, 4, 4\)"),
        ({"objective": "{kind: kd}", "model": ", reuse: 16"}, "it is for objective simkd"),
    ],
)
def test_what_cannot_reuse_a_classifier_is_refused_before_there_is_a_folder(runs, teacher, changes, message):
    with pytest.raises(RecipeError, match=message):
        student(runs, teacher, changes.pop("objective", "{kind: simkd}"), name="no_reuse", **changes)
    assert not (runs / "no_reuse").exists()


def test_simkd_of_a_network_with_no_place_for_a_projector_is_refused_before_there_is_a_folder(runs, teacher):
    rest = f"teacher: {{run: {teacher}}}\nobjective: {{kind: simkd}}"
    fields = {"role": "student", "source": "students", "width": 4, "epochs": 1, "augment": "", "train": "", "model": ""}
    text = RECIPE.format(name="no_place", rest=rest, **fields)
    text = text.replace("name: tiny, width: 4, input_size: 16", "name: lenet, input_size: 16")
    with pytest.raises(RecipeError, match="puts a projector between a last map and its average"):
        train_student(parse_recipe(text, source="test"), options=Options(runs_dir=runs, device="cpu"))
    assert not (runs / "no_place").exists()


def test_simkd_without_its_teachers_classifier_is_refused_when_the_recipe_is_read(runs, teacher):
    with pytest.raises(RecipeError, match=r"it needs teacher.run"):
        student(runs, teacher, "{kind: simkd, features: [pooled]}", source="bank: somewhere")


def test_what_an_objective_owns_is_not_shipped(runs, teacher):
    run = student(runs, teacher, "{kind: fitnet, add: [{kind: crd, negatives: 9}]}", name="owner")
    plain = student(runs, teacher, "{kind: kd}", name="plain2")
    assert (
        load_file(run / "checkpoints/last/model.safetensors").keys()
        == load_file(plain / "checkpoints/last/model.safetensors").keys()
    )
    counted = [json.loads((each / "result.json").read_text())["params"] for each in (run, plain)]
    assert counted[0] == counted[1]


@pytest.mark.parametrize(
    "objective",
    [
        "{kind: crd, negatives: 20, add: [{kind: vid}]}",
        "{kind: reviewkd}",
        "{kind: simkd}",
        "{kind: ofd, add: [{kind: ctkd}, {kind: ft, paraphraser_epochs: 1}]}",
    ],
)
def test_a_run_that_was_stopped_ends_with_the_same_bytes(runs, teacher, objective):
    """Stopped in the middle of an epoch, so that adapters, memories and draws are those of a step."""
    whole = student(runs, teacher, objective, name="whole")
    seen = 0

    def stop(event):
        nonlocal seen
        seen += isinstance(event, StepDone)
        if seen == 8 and isinstance(event, StepDone):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRunError):
        student(runs, teacher, objective, name="halved", on_event=stop)
    (halved,) = [path for path in (runs / "halved").iterdir() if path.is_dir() and not path.is_symlink()]
    resume_run(halved, options=Options(runs_dir=runs, device="cpu"))
    assert weights(halved) == weights(whole)
    assert (halved / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    shutil.rmtree(runs / "halved")


@pytest.mark.slow
def test_two_processes_train_one_adapter(runs, teacher):
    """Without batch norm two halves of a batch make the gradients of the whole: of adapters, too."""
    objective = "{kind: fitnet, fitnet_weight: 1.0}"
    one, two = (
        student(runs, teacher, objective, name=f"on{count}", logits="live", model=", norm: false", devices=count)
        for count in (1, 2)
    )
    for alone, together in zip(metrics(one), metrics(two), strict=True):
        assert together["train_fitnet"] == pytest.approx(alone["train_fitnet"], rel=1e-4)
    first, second = (load_file(run / "checkpoints/last/model.safetensors") for run in (one, two))
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=1e-3, atol=1e-4)
    with pytest.raises(RecipeError, match="one process"):
        student(runs, teacher, "{kind: crd}", name="alone", devices=2)


def test_features_change_nothing_of_the_network_but_its_loss(runs, teacher):
    """With weight 0 the student is the same as without: what is looked at is not touched."""
    plain = student(runs, teacher, "{kind: kd}", name="plain", logits="live")
    seen = student(runs, teacher, "{kind: kd, add: [{kind: at, at_weight: 0.0}]}", name="seen", logits="live")
    assert weights(plain) == weights(seen)


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ("{kind: at, features: [stage7]}", "the student has no stage stage7"),
        ("{kind: at, features: [stage7.preact]}", r"the student has no stage stage7\.preact"),
        ("{kind: at, features: [pooled]}", "compares maps"),
    ],
)
def test_what_cannot_be_compared_is_told_before_there_is_a_folder(runs, teacher, objective, told):
    with pytest.raises(RecipeError, match=told):
        student(runs, teacher, objective, name="none", logits="live")
    assert not (runs / "none").exists()


def test_maps_from_a_bank_are_refused_when_the_recipe_is_read(runs, teacher):
    with pytest.raises(RecipeError, match="objective at asks a live teacher"):
        student(runs, teacher, "{kind: at}", logits="bank")


def weights(run):
    return (run / "checkpoints" / "last" / "model.safetensors").read_bytes()
