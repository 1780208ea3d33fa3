"""Which layers reach a wrong kernel on a CPU, and that a network which has one is kept from it."""

from __future__ import annotations

import copy
import json
import os
import platform
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from distill.devices import force_contiguous_inputs, unsafe_layers

CPU = torch.device("cpu")
# An AVX2 machine, which most are, and two signs of damage: glibc looks at its heap at every call; a gradient is off.
CAPPED = {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_WAIT_POLICY": "PASSIVE"}
HEAP_CHECK = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"}


@pytest.mark.parametrize(
    ("layer", "is_unsafe"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), True),
        (nn.Conv2d(1, 8, 1, stride=2), True),
        (nn.Conv2d(15, 32, 1, stride=(1, 2)), True),
        (nn.Conv2d(4, 8, 1, stride=(3, 1), bias=False), True),
        (nn.Conv2d(32, 32, 1, stride=2, groups=4), True),
        (nn.Conv2d(16, 32, 1, stride=2), False),
        (nn.Conv2d(64, 64, 1, stride=2, groups=4), False),
        (nn.Conv2d(4, 8, 1), False),
        (nn.Conv2d(4, 8, 3, stride=2), False),
        (nn.Conv2d(4, 8, (1, 3), stride=2), False),
        (nn.Linear(4, 8), False),
    ],
)
def test_a_narrow_strided_1x1_convolution_is_unsafe_on_a_cpu(layer: nn.Module, is_unsafe: bool) -> None:
    network = nn.Sequential(nn.Identity(), nn.Sequential(layer))
    found = unsafe_layers(network, CPU)
    assert [unsafe.name for unsafe in found] == ["1.0"] * is_unsafe
    assert unsafe_layers(network.to("meta"), CPU) == found
    assert not unsafe_layers(network, torch.device("cuda", 0))


def test_an_unsafe_layer_is_named_with_its_report() -> None:
    (found,) = unsafe_layers(nn.Sequential(nn.Conv2d(32, 8, 1, stride=(2, 1), groups=4)), CPU)
    assert str(found) == "0 (1x1, stride 2x1, 32 input channels, 4 groups)"
    assert found.kernel.report.endswith("oneDNN/issues/6035")


class _Turned(nn.Module):
    """Norms over the last dimension, as ConvNeXt's do: what comes out lies in channels-last."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_a_layer_gets_contiguous_images_whatever_comes_before_it() -> None:
    network = nn.Sequential(_Turned(), nn.Conv2d(4, 8, 1, stride=2))
    images, seen = torch.randn(2, 4, 8, 8), []
    before = network(images)
    network[1].register_forward_hook(lambda _layer, inputs, _out: seen.append(inputs[0].is_contiguous()))
    network(images)
    names = [unsafe.name for unsafe in force_contiguous_inputs(network, CPU)]
    after = network(images)
    copy.deepcopy(network)(images)  # an average of the weights is a copy
    assert names == ["1"]
    assert seen == [False, True, True]
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 4, 1, 1), (1, 4, 8, 8)])
def test_images_that_are_both_formats_at_once_get_contiguous_strides(shape: tuple[int, ...]) -> None:
    """torch calls one channel, or one pixel, contiguous whatever its strides; kernels are chosen by strides."""
    images = torch.randn(shape).to(memory_format=torch.channels_last).clone()
    network, seen = nn.Sequential(nn.Conv2d(shape[1], 8, 1, stride=2)), []
    force_contiguous_inputs(network, CPU)
    network[0].register_forward_hook(lambda _layer, inputs, _out: seen.append(inputs[0].stride()))
    network(images.requires_grad_()).sum().backward()
    assert seen == [torch.empty(shape).stride()]
    assert images.grad is not None


def test_a_safe_network_is_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(16, 32, 1, stride=2))
    assert force_contiguous_inputs(network, CPU) == ()
    assert not network[0]._forward_pre_hooks


TRAIN = """
import json, sys
from pathlib import Path
import torch
from distill.data.splits import load_splits
from distill.devices import force_contiguous_inputs
from distill.models import build_model
from distill.pipeline import Options, train_student
from distill.recipe import load_recipe

threads, folder, compile_mode = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
torch.set_num_threads(threads)

def gradients(network, images):
    network(images).square().mean().backward()
    return [parameter.grad.double() for parameter in network.parameters()]

recipe = load_recipe("quickstart_scratch", [
    "data={name: synthetic, limit: 640, test_limit: 64}", "train.epochs=10", f"train.compile={compile_mode}",
    "data.image_size=32", "model={source: students, name: resnet, blocks: [1, 1], channels: [4, 8], strides: [2, 2]}",
])
network, exact = (build_model(recipe.model, num_classes=10) for _ in range(2))
for each in (network, exact):  # a ReLU's one flipped sign, by rounding alone, moves a gradient by a hundredth
    for module in list(each.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.ReLU):
                setattr(module, name, torch.nn.SiLU())
torch.manual_seed(0)
images = torch.randn(64, 3, 32, 32)
force_contiguous_inputs(network, torch.device("cpu"))
wanted = gradients(exact.double(), images.double())
found = gradients(network, images.contiguous(memory_format=torch.channels_last))
off = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, wanted))
train_student(recipe, options=Options(runs_dir=folder, threads=threads, device="cpu"))
print(json.dumps(off))
"""


@pytest.mark.parametrize(
    ("threads", "compile_mode"), [(1, "false"), (2, "false"), pytest.param(1, "true", marks=pytest.mark.slow)]
)
def test_an_avx2_machine_trains_such_a_network_with_right_gradients(threads: int, compile_mode: str, tmp_path) -> None:
    """90 steps through the command's own path; unguarded, 30 steps of one layer damage the heap or spin for ever."""
    check = HEAP_CHECK if platform.libc_ver()[0] == "glibc" else {}
    child = subprocess.run(
        [sys.executable, "-c", TRAIN, str(threads), str(tmp_path), compile_mode],
        env=os.environ | CAPPED | ({} if compile_mode == "true" else check),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout) < 1e-4
