"""Devices and precision, on machines that are pretended."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric

from distill.devices import (
    autocast,
    describe_device,
    fabric_precision,
    hardware,
    kit_script,
    library_versions,
    resolve_device,
    resolve_precision,
    set_threads,
    thread_rule,
    threads,
    threads_at_most,
    threads_for,
    using_threads,
)
from distill.errors import MissingError, UsageError

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Pretend a machine: how many CUDA devices of which capability, and whether there is Apple's GPU."""

    monkeypatch.delenv("DISTILL_DEVICE", raising=False)

    def pretend(
        *, gpus: int = 0, capability: tuple[int, int] = (9, 0), mps: bool = False, cuda_build: str | None = "13.0"
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H200")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.version, "cuda", cuda_build)

    return pretend


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"gpus": 2, "mps": True}, "cuda:0"),
        ({"mps": True}, "mps:0"),
        ({}, "cpu"),
    ],
)
@pytest.mark.parametrize("name", ["auto", None, " AUTO "])
def test_auto_prefers_cuda_then_mps_then_cpu(machine, has, expected, name):
    machine(**has)
    assert resolve_device(name) == torch.device(expected)


def test_auto_is_what_the_environment_names(machine, monkeypatch):
    machine(gpus=2)
    monkeypatch.setenv("DISTILL_DEVICE", "CPU")
    assert resolve_device() == CPU
    assert resolve_device("cuda") == torch.device("cuda:0"), "who names a device gets it"
    monkeypatch.setenv("DISTILL_DEVICE", "")
    assert resolve_device("auto") == torch.device("cuda:0")
    monkeypatch.setenv("DISTILL_DEVICE", "cuda:7")
    with pytest.raises(MissingError, match=r"device cuda:7 \(\$DISTILL_DEVICE\): not on this machine"):
        resolve_device()
    monkeypatch.setenv("DISTILL_DEVICE", "gpu")
    with pytest.raises(UsageError, match=r"device 'gpu' \(\$DISTILL_DEVICE\) is unknown"):
        resolve_device()


def test_these_tests_take_the_cpu_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device() == CPU


def test_a_named_device_gets_its_index(machine):
    machine(gpus=2, mps=True)
    names = {name: str(resolve_device(name)) for name in ("cuda", "cuda:1", "mps", "cpu", "cpu:0")}
    assert names == {"cuda": "cuda:0", "cuda:1": "cuda:1", "mps": "mps:0", "cpu": "cpu", "cpu:0": "cpu"}


@pytest.mark.parametrize(
    ("has", "name", "message", "hint"),
    [
        ({"gpus": 1}, "cuda:1", "device cuda:1: not on this machine", "available here: cuda:0, cpu"),
        ({}, "cuda", "device cuda: PyTorch finds no usable NVIDIA driver or GPU", "available here: cpu"),
        ({"mps": True, "cuda_build": None}, "cuda", "was built without CUDA", "available here: mps:0, cpu"),
        ({}, "mps", "device mps: not on this machine", "available here: cpu"),
    ],
)
def test_an_absent_device_is_named_with_what_there_is(machine, has, name, message, hint):
    machine(**has)
    with pytest.raises(MissingError, match=message) as caught:
        resolve_device(name)
    assert caught.value.hint == hint


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "meta"])
def test_an_unknown_device_is_wrong_usage(name):
    with pytest.raises(UsageError, match="is unknown"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("capability", "device", "expected"),
    [((8, 0), "cuda:0", "bf16"), ((7, 5), "cuda:0", "fp16"), ((9, 0), "cpu", "fp32"), ((9, 0), "mps:0", "fp32")],
)
def test_auto_precision(machine, capability, device, expected):
    machine(gpus=1, capability=capability)
    resolved = resolve_precision("auto", torch.device(device))
    assert (resolved.name, resolved.warning) == (expected, None)


@pytest.mark.parametrize(
    ("name", "device"), [("fp32", "cpu"), ("fp32", "cuda:0"), ("bf16", "cuda:0"), ("fp16", "cuda:0"), ("fp16", "mps:0")]
)
def test_a_precision_that_fits_stays_without_warning(machine, name, device):
    machine(gpus=1)
    resolved = resolve_precision(name, torch.device(device))
    assert (resolved.name, resolved.warning) == (name, None)


def test_bf16_on_a_cpu_depends_on_its_arithmetic(monkeypatch):
    class Ops:
        native = False

        def _is_mkldnn_bf16_supported(self):
            return self.native

    monkeypatch.setattr(torch.ops, "mkldnn", Ops(), raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    slow = resolve_precision("bf16", CPU)
    assert slow.name == "bf16"
    assert "no bf16 arithmetic" in slow.warning
    assert "20 to 60 times slower" in slow.warning
    monkeypatch.setattr(Ops, "native", True)
    assert resolve_precision("bf16", CPU).warning is None


def test_bf16_on_an_old_gpu_is_emulated(machine):
    machine(gpus=1, capability=(7, 5))
    assert "NVIDIA H200 has no bf16 arithmetic" in resolve_precision("bf16", torch.device("cuda:0")).warning


def test_fp16_on_a_cpu_and_unknown_names_are_wrong_usage():
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        resolve_precision("fp16", CPU)
    with pytest.raises(UsageError, match="'half' is unknown"):
        resolve_precision("half", CPU)


def test_fabric_knows_the_names():
    names = {name: fabric_precision(name) for name in ("fp32", "bf16", "fp16")}
    assert names == {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    assert Fabric(accelerator="cpu", devices=1, precision=names["bf16"])._precision.precision == "bf16-mixed"


def test_autocast_rounds_a_matrix_product_only_where_asked():
    matrix = torch.eye(2) * 1.001
    with autocast(CPU, "fp32"):
        assert (matrix @ matrix).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert (matrix @ matrix).dtype == torch.bfloat16


def test_names_of_hardware(machine, monkeypatch, tmp_path):
    machine(gpus=1, mps=True)
    assert describe_device(torch.device("cuda:0")) == "NVIDIA H200"
    monkeypatch.setattr(hardware, "cpu_model", lambda: "Apple M2")
    monkeypatch.setattr(hardware, "usable_cores", lambda: 8)
    assert describe_device(torch.device("mps:0")) == "Apple M2 GPU"
    assert describe_device(CPU) == "Apple M2, 8 logical cores"
    monkeypatch.setattr(hardware, "usable_cores", lambda: 1)
    assert describe_device(CPU) == "Apple M2, 1 logical core"


def test_cpu_model_from_cpuinfo(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nvendor_id\t: X\nmodel name\t: AMD EPYC  9354: 32-Core\n\nmodel name\t: second\n"
    )
    assert kit_script.cpuinfo("model name", str(cpuinfo)) == "AMD EPYC 9354: 32-Core"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: asimd\n")  # ARM Linux names no model
    assert kit_script.cpuinfo("model name", str(cpuinfo)) is None
    assert kit_script.cpuinfo("model name", str(tmp_path / "absent")) is None


def test_this_cpu_has_a_name():
    assert describe_device(CPU)[0].isalnum()


def test_threads_can_be_set():
    before = threads()
    try:
        set_threads(2)
        assert threads() == torch.get_num_threads() == 2
    finally:
        set_threads(before)
    with pytest.raises(UsageError, match="at least 1, got 0"):
        set_threads(0)


def test_threads_are_set_for_a_while():
    before = threads()
    with using_threads(before + 2):
        assert threads() == before + 2
        with using_threads(None):
            assert threads() == before + 2
    assert threads() == before
    with pytest.raises(UsageError, match="at least 1, got 0"), using_threads(0):
        pass
    assert threads() == before


@pytest.mark.parametrize(
    ("macs", "at_most", "expected"), [(0, 8, 1), (99e6, 8, 1), (100e6, 8, 2), (260e6, 8, 5), (1e12, 8, 8), (1e12, 1, 1)]
)
def test_a_thread_for_each_50_million_of_a_layer(macs, at_most, expected):
    assert threads_for(macs, at_most=at_most) == expected


def test_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr(thread_rule, "usable_cores", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert [threads_at_most(processes) for processes in (1, 2, 4, 16)] == [6, 4, 2, 1]


def test_library_versions():
    versions = library_versions()
    assert {"python", "torch", "torchvision", "timm", "numpy"} <= set(versions)
    assert torch.__version__.startswith(versions["torch"].partition("+")[0])
    assert all(isinstance(version, str) for version in versions.values())
