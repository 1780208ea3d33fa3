"""A teacher asked through ONNX Runtime: the same student live and from a bank, and a bank of one kind of answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distill.data.splits import load_splits
from distill.devices import using_threads
from distill.errors import UsageError
from distill.models.fixed_batch import ask
from distill.models.onnx_network import OnnxNetwork
from distill.models.trained import load_trained
from distill.pipeline import runtime as rule
from distill.pipeline.teacher import resolve_teacher
from distill.recipe import dump_recipe
from distill.runs import RunFolder
from distill.teaching.bank import Bank

CPU = torch.device("cpu")
THROUGH_ONNX = ("teacher.runtime=onnxruntime",)


def _weights(run: Path) -> bytes:
    return (run / "checkpoints" / "last" / "model.safetensors").read_bytes()


def _bank(run: Path) -> Bank:
    return Bank.open(Path(RunFolder(run).info.teacher["bank"]))


def test_bank_and_live_train_to_the_same_bytes_and_the_bank_says_what_answered(train) -> None:
    seed = "augment.view_seed=31"
    live = train(*THROUGH_ONNX, seed, "teacher.logits=live")
    bank = train(*THROUGH_ONNX, seed, "teacher.logits=bank")
    assert _weights(live.run) == _weights(bank.run)
    assert _bank(bank.run).info.runtime["name"] == "onnxruntime"
    assert RunFolder(bank.run).recipe().teacher.runtime == "onnxruntime"
    through_torch = train("teacher.runtime=torch", seed, "teacher.logits=live")
    # torch's answers differ in the last bits: what is compared above is not torch with torch
    assert RunFolder(through_torch.run).recipe().teacher.runtime == "torch"


def test_a_complete_bank_is_read_by_all_and_extended_by_its_own_kind(train) -> None:
    seed = "augment.view_seed=32"
    train(*THROUGH_ONNX, seed, "teacher.logits=bank")
    assert train("teacher.runtime=torch", seed, "teacher.logits=bank").status == "finished"
    with pytest.raises(UsageError, match="was asked through onnxruntime, and would go on through torch"):
        train("teacher.runtime=torch", seed, "teacher.logits=bank", "train.epochs=4")
    longer = train(seed, "teacher.logits=bank", "train.epochs=4")  # auto goes on as it was begun
    assert _bank(longer.run).info.views == 4
    assert "was begun so" in RunFolder(longer.run).info.choices["teacher.runtime_why"]


def test_its_answers_are_the_networks_and_do_not_depend_on_neighbours_or_threads(teacher_run) -> None:
    run = RunFolder(teacher_run.run)
    trained = load_trained(run, device=CPU)
    pixels = torch.from_numpy(load_splits(run.recipe().data).train.take(slice(0, 70)))
    with using_threads(1):
        one, theirs = OnnxNetwork(trained, threads=1), ask(trained, pixels)
    answers = ask(one, pixels)
    torch.testing.assert_close(answers, theirs, rtol=1e-4, atol=1e-4)
    assert torch.equal(one(pixels[5:6]), answers[5:6])
    assert torch.equal(one(pixels[:37].float()), answers[:37])
    assert torch.equal(OnnxNetwork(trained, threads=2)(pixels), answers)


def test_auto_takes_it_where_there_is_enough_to_ask(train, monkeypatch: pytest.MonkeyPatch) -> None:
    few = RunFolder(train("augment.view_seed=33", "teacher.logits=live").run)
    assert few.recipe().teacher.runtime == "torch"
    assert "asked too little" in few.info.choices["teacher.runtime_why"]
    monkeypatch.setattr(rule, "MIN_MACS", 1.0)
    many = RunFolder(train("augment.view_seed=33", "teacher.logits=live").run)
    assert many.recipe().teacher.runtime == "onnxruntime"
    assert "runtime: onnxruntime" in dump_recipe(many.recipe())
    monkeypatch.setattr(rule, "MAX_DISAGREEMENT", -1.0)
    unsure = RunFolder(train("augment.view_seed=33", "teacher.logits=live").run)
    assert unsure.recipe().teacher.runtime == "torch"
    assert "answers differ" in unsure.info.choices["teacher.runtime_why"]


def test_features_are_torchs_alone(train) -> None:
    objective = "objective={kind: fitnet}"
    with pytest.raises(UsageError, match="onnxruntime has logits alone, and objective fitnet asks for features"):
        train(*THROUGH_ONNX, objective)
    run = RunFolder(train(objective, "train.epochs=1").run)
    assert run.recipe().teacher.runtime == "torch"
    assert run.info.choices["teacher.runtime_why"] == "features are asked"


# In another precision


def test_a_teacher_answers_in_the_precision_that_is_named_from_a_bank_as_live(train) -> None:
    seed = "augment.view_seed=34"
    live = train("teacher.precision=bf16", seed, "teacher.logits=live")
    bank = train("teacher.precision=bf16", seed, "teacher.logits=bank")
    full = train(seed, "teacher.logits=bank")
    assert _weights(live.run) == _weights(bank.run) != _weights(full.run)
    assert RunFolder(bank.run).recipe().teacher.runtime == "torch"
    assert "answers in bf16" in RunFolder(bank.run).info.choices["teacher.runtime_why"]
    rounded, exact = _bank(bank.run), _bank(full.run)
    assert (rounded.info.identity.precision, exact.info.identity.precision) == ("bf16", "fp32")
    assert rounded.path != exact.path
    run = RunFolder(Path(RunFolder(bank.run).info.teacher["run"]))
    network, splits = load_trained(run, device=CPU, precision="fp32"), load_splits(run.recipe().data)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pixels = network.normalize(torch.from_numpy(splits.test.take(slice(0, 60))))
        expected = network.module(pixels).float()
    stored = torch.from_numpy(np.load(rounded.path / "test_logits.npy")).float()
    torch.testing.assert_close(stored, expected, rtol=0.02, atol=0.02)
    assert not torch.equal(stored, torch.from_numpy(np.load(exact.path / "test_logits.npy")).float())


def test_a_precision_that_cannot_be(train, student_recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="onnxruntime asks in fp32, not in bf16"):
        train(*THROUGH_ONNX, "teacher.precision=bf16")
    with pytest.raises(UsageError, match=r"teacher\.precision fp16 needs a GPU; a CPU computes"):
        train("teacher.precision=fp16")
    file = tmp_path / "theirs.onnx"
    with pytest.raises(UsageError, match=r"theirs\.onnx: the recipe's teacher\.precision is for a teacher's run"):
        resolve_teacher(student_recipe("teacher.precision=bf16"), runs_dir=tmp_path, override=str(file))
