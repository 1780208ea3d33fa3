"""Which ways a network's layers are tried in, which of them a run uses, and what is advised."""

from __future__ import annotations

import pytest
import torch

from distill import check_kernels
from distill.devices.layer_error import KernelConfig, LayerTest, LayerTestResult
from distill.devices.probe import Probe
from distill.errors import RecipeError, UsageError
from distill.events import Note, StageProgress
from distill.pipeline import Options, kernels
from distill.recipe import load_recipe

# strided 1x1 convolutions of four channels: a layer that is kept from a wrong kernel
NARROW = (
    "quickstart_scratch",
    "model.blocks=[1, 1]",
    "model.channels=[4, 8]",
    "model.strides=[2, 2]",
    "model.skip=projection",
)
RIGHT, OFF = LayerTestResult("right", 1e-7, "output"), LayerTestResult("wrong", 0.5, "grad_weight")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Pretend a machine: which trials are not right, and what was tried on it."""

    def pretend(found=lambda trial: RIGHT, *, bf16: bool = False) -> list[list[LayerTest]]:
        asked: list[list[LayerTest]] = []

        def probe(trials, *, on_verdict, seconds) -> Probe:
            asked.append(list(trials))
            for trial in trials:
                on_verdict(trial, found(trial))
            return Probe(tuple(found(trial) for trial in trials), heap_check=True)

        monkeypatch.setattr(kernels, "probe", probe)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bf16)
        monkeypatch.setattr(kernels.platform, "machine", lambda: "x86_64")
        return asked

    return pretend


def _check(name: str, *changes: str, threads: int = 2, **options):
    return check_kernels(load_recipe(name, changes), options=Options(device="cpu", threads=threads, **options))


def _is_strided(row) -> bool:
    return row.layer.startswith("conv2d 1x1, stride 2")


def test_a_network_is_tried_as_its_run_computes_it_and_otherwise(machine) -> None:
    asked = machine(bf16=True)
    check = _check("resnet20_cifar10", "train.precision=fp32")
    assert check.is_right
    assert check.set is None
    assert (check.channels_last, check.threads, check.precision, check.heap_check) == (True, 2, "fp32", True)
    (trials,) = asked  # nothing is wrong: oneDNN's older kernels are not asked
    stem = {trial.setting: trial for trial in trials if trial.layer.input == (3, 32, 32)}
    test_images = {KernelConfig(True, threads, trains=False) for threads in (1, 2)}
    both = {KernelConfig(form, threads) for form in (True, False) for threads in (1, 2)}
    assert stem.keys() == both | test_images | {KernelConfig(True, 2, "bf16")}
    assert {trial.batches for trial in stem.values()} == {(128, 33, 5)}
    used = [str(trial.setting) for trial in check.layers[0].trials if trial.used]
    assert used == ["channels-last, 2 threads, fp32", "channels-last, 2 threads, fp32, forward alone"]


def test_a_run_on_one_thread_is_tried_on_one_a_core_too(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = machine()
    monkeypatch.setattr(kernels, "usable_cores", lambda: 6)
    assert _check("lenet_cifar10", threads=1).threads == 1
    assert {trial.setting.threads for trial in asked[0]} == {1, 6}


def test_layers_without_an_image_have_one_format(machine) -> None:
    asked = machine()
    head = next(row for row in _check("resnet20_cifar10").layers if row.layer.startswith("linear"))
    assert head.outcome == "right"
    assert not any(trial.setting.channels_last for trial in asked[0] if trial.layer.kind == "linear")


def test_layers_that_distill_keeps_contiguous_are_used_so(machine) -> None:
    machine(lambda trial: OFF if trial.setting.channels_last and trial.setting.trains else RIGHT)
    notes = []
    check = _check(*NARROW, on_event=notes.append)
    assert check.is_right
    assert not check.channels_last
    assert [row.kept_contiguous for row in check.layers] == [_is_strided(row) for row in check.layers]
    assert all("wrong" in {trial.result.outcome for trial in row.trials} for row in check.layers if _is_strided(row))
    assert any(isinstance(event, Note) and "contiguous" in event.message for event in notes)
    stages = [event for event in notes if isinstance(event, StageProgress)]
    assert stages[-1].done == stages[-1].total == len(stages)


@pytest.mark.parametrize(
    ("is_off", "advice"),
    [
        (lambda setting: setting.channels_last and setting.trains, "--set train.channels_last=false"),
        (lambda setting: setting.threads == 2, "--threads 1"),
        (lambda setting: setting.isa is None, "ONEDNN_MAX_CPU_ISA=AVX in the environment"),
        (lambda setting: setting.precision == "fp32" and setting.trains, "--set train.precision=bf16"),
        (lambda setting: True, None),
    ],
)  # fmt: skip
def test_the_first_way_in_which_all_is_right_is_advised(machine, is_off, advice: str | None) -> None:
    asked = machine(lambda trial: OFF if trial.layer.kind == "conv2d" and is_off(trial.setting) else RIGHT, bf16=True)
    check = _check("resnet20_cifar10", "train.precision=fp32")
    assert not check.is_right
    assert check.set == advice
    assert {row.set for row in check.layers if row.outcome != "right"} == {advice}
    assert {row.set for row in check.layers if row.outcome == "right"} == {None}
    assert {trial.setting.isa for trial in asked[1]} == {"AVX"}


def test_the_worst_of_what_a_run_uses_is_a_layers_outcome(machine) -> None:
    crash = LayerTestResult("crashes", detail="SIGSEGV")
    machine(lambda trial: OFF if trial.setting.trains else crash)
    check = _check("lenet_cifar10")
    assert {row.outcome for row in check.layers} == {"crashes"}


def test_large_layers_are_tried_with_fewer_images(machine) -> None:
    asked = machine()
    _check("resnet152_cifar10")
    most = max(max(trial.batches) * trial.layer.macs for trial in asked[0])
    assert most <= max(kernels._MAX_MACS, 2 * max(trial.layer.macs for trial in asked[0]))


def test_inductor_lays_images_out_as_channels_last(machine) -> None:
    machine()
    assert _check("resnet20_cifar10", "train.compile=true", "train.channels_last=false").channels_last
    assert not _check(*NARROW, "train.compile=true").channels_last


def test_another_device_is_said(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()
    notes = []
    monkeypatch.setattr(kernels, "resolve_device", lambda name: torch.device("cuda", 0))
    check_kernels("lenet_cifar10", options=Options(on_event=notes.append, threads=1))
    assert any(isinstance(event, Note) and "compute on cuda:0" in event.message for event in notes)


def test_bad_input(machine) -> None:
    machine()
    with pytest.raises(RecipeError, match="did you mean"):
        check_kernels("r18_smal")
    with pytest.raises(UsageError, match="channels_last: true cannot be had"):
        _check(*NARROW, "train.channels_last=true")
