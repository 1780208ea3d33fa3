"""Checkpoints of other people's networks: the same logits as theirs, whatever their tensors are called."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from distill.errors import DataError, MissingError
from distill.models import build_model, without_weights
from distill.models.foreign_weights import ForeignWeights, fit_foreign_weights, read_checkpoint
from distill.recipe import load_recipe


class Resnet(nn.Module):
    """A residual network for small images, of torchvision's blocks."""

    def __init__(self, blocks: int, widths: tuple[int, ...], classes: int = 100) -> None:
        super().__init__()
        first, *others = widths
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        for stage, (inputs, outputs) in enumerate(zip(widths, others, strict=False), 1):
            stride = 1 if stage == 1 else 2
            down = None
            if stride > 1 or inputs != outputs:
                down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            layer = [
                BasicBlock(inputs, outputs, stride, down),
                *(BasicBlock(outputs, outputs) for _ in range(1, blocks)),
            ]
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))


class WideBlock(nn.Module):
    """Batch norm and ReLU before each convolution; where widths differ the shortcut begins behind the first ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.convShortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(x))
        around = x if self.convShortcut is None else self.convShortcut(inner)
        return around + self.conv2(F.relu(self.bn2(self.conv1(inner))))


class Wide(nn.Module):
    """A wide residual network (arXiv:1605.07146)."""

    def __init__(self, blocks: int, factor: int) -> None:
        super().__init__()
        widths = (16, 16 * factor, 32 * factor, 64 * factor)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        for stage in (1, 2, 3):
            inputs, outputs = widths[stage - 1], widths[stage]
            layer = [WideBlock(inputs, outputs, 1 if stage == 1 else 2)]
            layer += [WideBlock(outputs, outputs, 1) for _ in range(1, blocks)]
            setattr(self, f"block{stage}", nn.Sequential(*layer))
        self.bn1, self.fc = nn.BatchNorm2d(widths[-1]), nn.Linear(widths[-1], 100)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class Vgg(nn.Module):
    """Five blocks of 3x3 convolutions with batch norm, pooled behind the first three."""

    def __init__(self, convolutions: int) -> None:
        super().__init__()
        for at, (inputs, outputs) in enumerate(zip((3, 64, 128, 256, 512), (64, 128, 256, 512, 512), strict=True)):
            block = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
            for _ in range(1, convolutions):
                block += [nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
            setattr(self, f"block{at}", nn.Sequential(*block))
        self.classifier = nn.Linear(512, 100)

    def forward(self, x: Tensor) -> Tensor:
        for at in range(5):
            x = F.relu(getattr(self, f"block{at}")(x))
            x = F.max_pool2d(x, 2) if at < 3 else x
        return self.classifier(x.mean((2, 3)))


THEIRS: dict[str, Callable[[], nn.Module]] = {
    "resnet20_cifar100": lambda: Resnet(3, (16, 16, 32, 64)),
    "resnet56_cifar100": lambda: Resnet(9, (16, 16, 32, 64)),
    "resnet8x4_cifar100": lambda: Resnet(1, (32, 64, 128, 256)),
    "resnet32x4_cifar100": lambda: Resnet(5, (32, 64, 128, 256)),
    "wrn_16_2_cifar100": lambda: Wide(2, 2),
    "wrn_40_2_cifar100": lambda: Wide(6, 2),
    "vgg8_cifar100": lambda: Vgg(1),
    "vgg13_cifar100": lambda: Vgg(2),
}


def _ours(recipe: str) -> nn.Module:
    return build_model(without_weights(load_recipe(recipe).model), num_classes=100).eval()


def _lived(network: nn.Module) -> nn.Module:
    """With statistics of its own, as one that was trained has them."""
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.randn(8, 3, 32, 32))
    return network.eval()


def _fit(module: nn.Module, path: Path, **options: Any) -> ForeignWeights:
    return fit_foreign_weights(module, read_checkpoint(path), name="net", **options)


@pytest.mark.parametrize("recipe", sorted(THEIRS))
def test_published_networks_answer_as_theirs_do(recipe: str, tmp_path: Path) -> None:
    theirs, ours = _lived(THEIRS[recipe]()), _ours(recipe)
    options = argparse.Namespace(model=recipe, trial=1)
    torch.save(
        {"opt": options, "epoch": 240, "model": theirs.state_dict(), "accuracy": torch.tensor(72.5),
         "best": np.float64(72.5), "optimizer": torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9).state_dict()},
        tmp_path / "ckpt_epoch_240.pth",
    )  # fmt: skip
    found = _fit(ours, tmp_path / "ckpt_epoch_240.pth")
    assert (found.entry, found.by_order) == ("model", True)
    ours.load_state_dict(found.state)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("theirs", "ours", "by_order"),
    [
        ("resnet18", "resnet18", False),
        ("resnext50_32x4d", "resnext50_32x4d", False),
        ("mobilenet_v2", "mobilenetv2_100", True),
        ("efficientnet_b0", "efficientnet_b0", True),
    ],
)
def test_torchvisions_networks_answer_alike_as_timms(theirs: str, ours: str, by_order: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = _lived(torchvision.models.get_model(theirs, num_classes=10))
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    module = timm.create_model(ours, num_classes=10).eval()
    found = _fit(module, tmp_path / "theirs.pth")
    assert found.by_order == by_order
    module.load_state_dict(found.state)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(module(images), network(images), rtol=1e-4, atol=1e-4)


@pytest.fixture
def network() -> nn.Module:
    return _lived(_ours("resnet8x4_cifar100"))


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod.", "net.backbone."])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_by_name_whatever_stands_before_and_in_any_order(
    network: nn.Module, tmp_path: Path, prefix: str, suffix: str
) -> None:
    state = {f"{prefix}{key}": value.contiguous() for key, value in reversed(network.state_dict().items())}
    path = tmp_path / f"weights.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    found = _fit(_ours("resnet8x4_cifar100"), path)
    assert not found.by_order
    assert all(
        torch.equal(found.state[key], value) for key, value in network.state_dict().items() if "num_b" not in key
    )


def test_what_stands_beside_the_network_is_not_looked_at(network: nn.Module, tmp_path: Path) -> None:
    """As an averaged model's counter, and a loss of Lightning's."""
    averaged = torch.optim.swa_utils.AveragedModel(network)
    torch.save(averaged.state_dict() | {"criterion.weight": torch.ones(100)}, tmp_path / "swa.pth")
    found = _fit(_ours("resnet8x4_cifar100"), tmp_path / "swa.pth")
    assert torch.equal(found.state["head.weight"], network.state_dict()["head.weight"])
    assert found.matched == len([key for key in network.state_dict() if "num_batches" not in key])
    one_more = averaged.state_dict() | {"module.aux.weight": torch.zeros(2)}
    torch.save(one_more, tmp_path / "more.pth")
    with pytest.raises(DataError, match=r"aux\.weight is unknown"):
        _fit(_ours("resnet8x4_cifar100"), tmp_path / "more.pth")


@pytest.mark.parametrize(
    "strange",
    [
        lambda t: t.to_sparse(),
        lambda t: t.to(torch.complex64),
        lambda t: t.to(torch.int32),
        lambda t: t.to("meta"),
    ],
    ids=["sparse", "complex", "whole numbers", "meta"],
)
def test_only_plain_numbers_are_weights(
    network: nn.Module, tmp_path: Path, strange: Callable[[Tensor], Tensor]
) -> None:
    torch.save(network.state_dict() | {"head.weight": strange(network.state_dict()["head.weight"])}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"head.weight is no plain tensor|not a checkpoint of tensors"):
        _fit(_ours("resnet8x4_cifar100"), tmp_path / "w.pth")


def test_half_precision_is_cast_and_one_of_several_is_named(network: nn.Module, tmp_path: Path) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    torch.save({"model": network.state_dict(), "ema": {"state_dict": half}}, tmp_path / "two.pt")
    with pytest.raises(DataError, match=r"several that fit net: model, ema\.state_dict"):
        _fit(network, tmp_path / "two.pt")
    found = _fit(network, tmp_path / "two.pt", entry="ema.state_dict")
    assert found.entry == "ema.state_dict"
    assert found.state["head.weight"].dtype == torch.float32
    assert torch.equal(found.state["head.weight"], network.state_dict()["head.weight"].half().float())
    with pytest.raises(DataError, match="has no nosuch") as caught:
        _fit(network, tmp_path / "two.pt", entry="nosuch")
    assert caught.value.hint == "it has model, ema.state_dict"


def _changed(state: dict[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    merged = state | {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"head__weight": torch.zeros(7, 256)}, r"head.weight is \(7, 256\), not \(100, 256\)"),
        ({"head__bias": None}, "head.bias is missing"),
        ({"aux__weight": torch.zeros(2)}, "aux.weight is unknown"),
        ({"head__bias": torch.full((100,), float("nan"))}, "head.bias holds numbers that are not finite"),
    ],
)
def test_what_does_not_fit_is_named(
    network: nn.Module, tmp_path: Path, changes: dict[str, Tensor | None], line: str
) -> None:
    torch.save(_changed(network.state_dict(), **changes), tmp_path / "w.pth")
    with pytest.raises(DataError, match=line):
        _fit(network, tmp_path / "w.pth")


def test_in_order_the_first_that_is_anothers_is_named(tmp_path: Path) -> None:
    torch.save(Resnet(1, (16, 64, 128, 256)).state_dict(), tmp_path / "narrow.pth")
    with pytest.raises(DataError, match=r"tensor 1 of \d+ is conv1.weight \(16, 3, 3, 3\), where the network has stem"):
        _fit(_ours("resnet8x4_cifar100"), tmp_path / "narrow.pth")
    swapped = {}
    for key, value in Resnet(1, (32, 64, 128, 256)).state_dict().items():
        swapped[key.replace("running_mean", "other")] = value
    torch.save(swapped, tmp_path / "kinds.pth")
    with pytest.raises(DataError, match=r"is bn1\.other"):
        _fit(_ours("resnet8x4_cifar100"), tmp_path / "kinds.pth")
    more = Resnet(1, (32, 64, 128, 256)).state_dict() | {"extra.weight": torch.zeros(1)}
    torch.save(more, tmp_path / "more.pth")
    with pytest.raises(DataError, match="tensors, the network"):
        _fit(_ours("resnet8x4_cifar100"), tmp_path / "more.pth")


def test_safetensors_keeps_no_order(tmp_path: Path) -> None:
    save_file(Resnet(1, (32, 64, 128, 256)).state_dict(), tmp_path / "theirs.safetensors")
    with pytest.raises(DataError, match="keeps no order"):
        _fit(_ours("resnet8x4_cifar100"), tmp_path / "theirs.safetensors")


class Evil:
    """What would run code where a pickle is trusted."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('it ran')",))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (Evil(), "it holds an object of exec"),
        ({"model": {"a": torch.zeros(1), "b": Evil()}}, "it holds an object of"),
        (nn.Linear(2, 2), "it holds an object of torch.nn.modules.linear.Linear"),
        ({"epoch": 3}, "holds no tensors by name"),
        ([torch.zeros(2), torch.zeros(3)], "holds no tensors by name"),
    ],
)
def test_nothing_but_tensors_is_read(content: object, line: str, network: nn.Module, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DataError, match=line):
        _fit(network, tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"{not a checkpoint}"])
def test_other_files_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(MissingError, match="no file"):
        read_checkpoint(path)
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_checkpoint(path)
    with pytest.raises(DataError, match="not a regular file"):
        read_checkpoint(tmp_path)
