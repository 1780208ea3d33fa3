"""``data.unlabelled``, end to end: images that a teacher alone teaches."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from distill import Options, evaluate, finetune_teacher, resume_run, train_student
from distill.certificate.images import Images
from distill.cli import app
from distill.data.splits import load_splits
from distill.errors import DataError, InterruptedRunError, RecipeError, RunError, UsageError
from distill.events import Note, StepDone, silent
from distill.pipeline.verify import verify_banks
from distill.recipe import parse_recipe
from distill.recipe.data_spec import DataSpec
from distill.runs import RunFolder
from distill.teaching.bank import Bank

RECIPE = """
schema_version: 1
name: {name}
role: {role}
data: {{name: synthetic, image_size: 16, limit: {limit}, test_limit: 20, val_fraction: 0.25{data}}}
augment: {{crop_padding: 2, hflip: 0.5, erase: {{size: 4}}{augment}}}
model: {{source: {source}, name: tiny, width: 4, input_size: 16{model}}}
optim: {{name: sgd, lr: 0.05}}
train: {{epochs: 2{train}}}
{schedule}
{rest}
"""
EMPTY = {"limit": 64, "data": "", "augment": "", "model": "", "train": "", "schedule": "", "rest": ""}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("more")
    rng = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def teacher(runs):
    text = RECIPE.format(**EMPTY | {"name": "teacher", "role": "teacher", "source": "teachers"})
    return finetune_teacher(parse_recipe(text, source="test"), options=Options(runs_dir=runs, device="cpu")).run


def student(runs, teacher, pictures, *, name="student", logits="auto", objective="{kind: kd}", share=0.5, **changes):
    on_event, devices = changes.pop("on_event", None), changes.pop("devices", 1)
    rest = "" if teacher is None else f"teacher: {{run: {teacher}, logits: {logits}}}"
    fields = {"name": name, "role": "student", "source": "students", "rest": f"{rest}\nobjective: {objective}"}
    fields["data"] = "" if pictures is None else f", unlabelled: {pictures}, unlabelled_share: {share}"
    if "batch_size" not in changes.get("train", ""):
        changes["train"] = ", batch_size: 16" + changes.get("train", "")
    recipe = parse_recipe(RECIPE.format(**EMPTY | fields | changes), source="test")
    options = Options(runs_dir=runs, device="cpu", on_event=on_event, devices=devices)
    return train_student(recipe, options=options).run


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run):
    return (run / "checkpoints/last/model.safetensors").read_bytes()


@pytest.mark.parametrize("augment", ["", ", mixup: {alpha: 0.5}"])
def test_pieces_of_a_batch_learn_as_the_whole_of_it_does(runs, teacher, pictures, augment):
    """Of 16 images a piece has two or three labels: a mean over each piece's own would be another loss."""
    common = {"objective": "{kind: kd, ce_weight: 1.0}", "model": ", norm: false", "augment": augment}
    whole = student(runs, teacher, pictures, name="whole", **common)
    parts = student(runs, teacher, pictures, name="parts", **common, train=", accumulate: 3")
    for one, other in zip(metrics(whole), metrics(parts), strict=True):
        assert other == pytest.approx(one, rel=1e-5)
    theirs = load_file(whole / "checkpoints/last/model.safetensors")
    for name, tensor in load_file(parts / "checkpoints/last/model.safetensors").items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "augment"),
    [("{kind: kd}", ", mixup: {alpha: 0.4}"), ("{kind: rkd, add: [{kind: mse}]}", "")],
)
def test_from_a_bank_and_live_they_teach_the_same_bytes(runs, teacher, pictures, objective, augment):
    stored, live = (
        student(runs, teacher, pictures, name=f"from_{how}", logits=how, objective=objective, augment=augment)
        for how in ("bank", "live")
    )
    assert weights(stored) == weights(live)
    assert metrics(stored) == metrics(live)
    info = json.loads((stored / "run.json").read_text())
    assert (info["data"]["train"], info["data"]["unlabelled"]) == (48, 40)
    assert Bank.open(Path(info["teacher"]["bank"])).info.images == 88


def test_their_bank_is_another_than_without_them_and_can_be_verified(runs, teacher, pictures):
    keys = [
        json.loads((student(runs, teacher, root, name="keyed", logits="bank") / "run.json").read_text())["teacher"]
        for root in (pictures, None)
    ]
    assert keys[0]["bank_key"] != keys[1]["bank_key"]
    (row,) = verify_banks([keys[0]["bank"]], options=Options(runs_dir=runs, device="cpu"))
    assert row.status == "ok", row


def test_what_their_teacher_says_is_all_they_teach(runs, teacher, pictures):
    """Without weight on that, half a batch of them changes nothing: the run is that of batches half as large."""
    objective = "{kind: kd, ce_weight: 1.0, kd_weight: 0.0}"
    common = {"objective": objective, "model": ", norm: false"}
    mixed = student(runs, teacher, pictures, name="silent", **common)
    alone = student(runs, teacher, None, name="alone", **common, train=", batch_size: 8")
    for together, apart in zip(metrics(mixed), metrics(alone), strict=True):
        assert together["train_ce"] == pytest.approx(apart["train_ce"], rel=1e-4)
        assert together["train_top1"] == pytest.approx(apart["train_top1"])
    theirs = load_file(alone / "checkpoints/last/model.safetensors")
    for name, tensor in load_file(mixed / "checkpoints/last/model.safetensors").items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)
    taught = student(runs, teacher, pictures, name="spoken", model=", norm: false")
    assert weights(taught) != weights(mixed)


def test_what_a_limit_leaves_out_teaches_as_a_folder_of_these_pictures_does(runs, teacher, tmp_path):
    everything = load_splits(DataSpec(name="synthetic", image_size=16, val_fraction=0.0)).train
    kept = load_splits(DataSpec(name="synthetic", image_size=16, val_fraction=0.0, limit=64)).train
    pixels = everything.take(slice(None))
    limited = {image.tobytes() for image in kept.take(slice(None))}
    others = [image for image in pixels if image.tobytes() not in limited]
    assert len(others) == len(pixels) - 64 > 0
    for number, image in enumerate(others):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{number:05d}.png")
    of_folder, rest = (
        student(runs, teacher, root, name=name, logits="live")
        for name, root in (("of_folder", tmp_path), ("rest", "rest"))
    )
    assert weights(rest) == weights(of_folder)
    assert metrics(rest) == metrics(of_folder)
    about = [json.loads((run / "run.json").read_text())["data"] for run in (rest, of_folder)]
    assert about[0] == about[1]
    assert about[0]["unlabelled"] == len(others)


def test_a_limit_that_leaves_nothing_out_has_no_rest(runs, teacher):
    with pytest.raises(DataError, match=r"data.limit 1,000,000 leaves no training image out"):
        student(runs, teacher, "rest", name="refused", limit=1_000_000)
    assert not (runs / "refused").exists()
    with pytest.raises(RecipeError, match="and there is no limit"):
        student(runs, teacher, "rest", name="refused", limit="null")


def test_the_rates_that_are_kept_are_those_of_all_its_steps(runs, teacher, pictures):
    """88 images an epoch in batches of 16, where those with labels alone would be 48."""
    taught = student(runs, teacher, pictures, name="rated", schedule="schedule: {kind: cosine}")
    rates, per_epoch = (json.loads((taught / "rates.json").read_text())[key] for key in ("lr", "steps_per_epoch"))
    assert (per_epoch, len(rates)) == (6, 12)
    assert [rates[per_epoch - 1], rates[-1]] == pytest.approx([line["lr"] for line in metrics(taught)])


def test_judging_images_among_them_are_told_of(runs, teacher, pictures, tmp_path):
    splits = load_splits(DataSpec(name="synthetic", image_size=16, limit=64, test_limit=20, val_fraction=0.25))
    mine = shutil.copytree(pictures, tmp_path / "mine")
    for name, part, count in (("test", splits.test, 3), ("val", splits.val, 1), ("train", splits.train, 5)):
        for number, image in enumerate(part.take(slice(0, count))):
            Image.fromarray(image.transpose(1, 2, 0)).save(mine / f"{name}{number}.png")
    told = []
    student(runs, teacher, mine, name="told", on_event=told.append)
    warned = [event.message for event in told if isinstance(event, Note) and "without labels, which" in event.message]
    assert [line.partition(" images ")[0].rpartition(":")[2].strip() for line in warned] == [
        "3 of the 20 test",
        "1 of the 16 validation",
    ]
    told.clear()
    student(runs, teacher, pictures, name="untold", on_event=told.append)
    assert not [event for event in told if isinstance(event, Note) and "without labels, which" in event.message]


def test_the_card_says_how_many_there_were(runs, teacher, pictures):
    run = student(runs, teacher, pictures, name="carded", logits="live")
    shown = CliRunner().invoke(app, ["card", str(run), "--runs", str(runs)])
    assert shown.exit_code == 0, shown.stderr
    assert "| training images | 48 |\n| unlabelled training images | 40 |\n" in shown.stdout


def test_two_processes_learn_what_one_learns_of_them(runs, teacher, pictures):
    one, two = (
        student(runs, teacher, pictures, name=f"on{count}", model=", norm: false", devices=count, share=0.25)
        for count in (1, 2)
    )
    first, second = (load_file(run / "checkpoints/last/model.safetensors") for run in (one, two))
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=1e-3, atol=1e-4)


def test_a_run_that_was_stopped_ends_with_the_same_bytes(runs, teacher, pictures):
    whole = student(runs, teacher, pictures, name="whole", share=0.4)

    def stop(event):
        if isinstance(event, StepDone) and (event.epoch, event.step) == (1, 2):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRunError):
        student(runs, teacher, pictures, name="stopped", share=0.4, on_event=stop)
    (stopped,) = (path for path in (runs / "stopped").iterdir() if path.name.isdigit())
    resume_run(stopped, options=Options(runs_dir=runs, device="cpu"))
    assert weights(stopped) == weights(whole)
    assert metrics(stopped) == metrics(whole)


def test_it_goes_on_only_with_the_same_pictures_and_is_evaluated_without_any(runs, teacher, pictures, tmp_path):
    mine = shutil.copytree(pictures, tmp_path / "mine")

    def stop(event):
        if isinstance(event, StepDone) and event.epoch == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRunError):
        student(runs, teacher, mine, name="moved", logits="live", on_event=stop)
    (run,) = (path for path in (runs / "moved").iterdir() if path.name.isdigit())
    (mine / "0.png").unlink()
    with pytest.raises(RunError, match="unlabelled images"):
        resume_run(run, options=Options(runs_dir=runs, device="cpu"))
    shutil.copy(pictures / "0.png", mine)
    resume_run(run, options=Options(runs_dir=runs, device="cpu"))
    shutil.rmtree(mine)
    assert 0.0 <= evaluate(run, options=Options(runs_dir=runs, device="cpu")).result.top1 <= 1.0


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"objective": "{kind: dkd}"}, (RecipeError, "objective dkd asks for every image's label")),
        ({"objective": "{kind: nkd}"}, (RecipeError, "objective nkd asks for every image's label")),
        ({"objective": "{kind: kd, add: [{kind: crd}]}"}, (RecipeError, "objective crd asks for every image's label")),
        ({"share": 1.0}, (RecipeError, "above 0, below 1")),
        ({"train": ", batch_size: 1"}, (RecipeError, "no room for both kinds")),
        ({"share": 0.9, "train": ", batch_size: 48"}, (UsageError, "40 images, and a batch of 48 takes 43")),
    ],
)
def test_what_cannot_have_them_is_refused_before_there_is_a_folder(runs, teacher, pictures, changes, refusal):
    with pytest.raises(refusal[0], match=refusal[1]):
        student(runs, teacher, pictures, name="refused", **changes)
    assert not (runs / "refused").exists()


def test_labels_alone_teach_none_of_them(runs, pictures):
    fields = {"name": "no", "role": "baseline", "source": "students", "data": f", unlabelled: {pictures}"}
    text = RECIPE.format(**EMPTY | fields)
    with pytest.raises(RecipeError, match="objective supervised asks none"):
        parse_recipe(text, source="test")


def test_a_certificate_tells_runs_with_them_from_runs_without(runs, teacher, pictures):
    """Both train on the same labelled images and validate on the same: only one of them read the others, too."""
    plain, more = (student(runs, teacher, root, name="certified", logits="live") for root in (None, pictures))
    assert "unlabelled" not in Images(RunFolder(more), silent).of_run(RunFolder(plain))
    images = Images(RunFolder(plain), silent)
    assert images.of_run(RunFolder(more))["unlabelled"] == f"unlabelled of {more}"
    assert {each.one for each in images.overlaps() if each.other == "test"} >= {f"unlabelled of {more}"}
