"""Pruning cuts the channels that NumPy would cut, and what it leaves is rebuilt from widths alone."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.nn import functional as F

from distill.compression.prune import find_cut, require_torch_pruning, smallest
from distill.errors import MissingError, NotPrunableError, UsageError
from distill.evaluation.cost import model_cost
from distill.models import build_model
from distill.recipe.model_specs import ModelSpec

CNN = {"source": "students", "name": "cnn", "channels": [8, 12, 8], "hidden": [16]}
RESNET = {"source": "students", "name": "resnet", "blocks": [1, 2], "channels": [16, 32], "strides": [1, 2]}
NETWORKS = {
    "cnn": CNN,
    "resnet": RESNET,
    "resnet, padded": RESNET | {"skip": "pad"},
    "wide resnet": RESNET | {"pre_activation": True, "stem_channels": 8},
    "grouped_resnet": {"source": "students", "name": "grouped_resnet"},
    "lenet": {"source": "students", "name": "lenet"},
    "tiny": {"source": "students", "name": "tiny", "width": 16},
    "fast": {"source": "students", "name": "fast", "channels": [16, 32]},
    "resnet9": {"source": "teachers", "name": "resnet9", "width": 16},
    "timm resnet10t": {"source": "timm", "name": "resnet10t", "stem": "cifar", "weights": "none"},
    "timm mobilenetv3": {"source": "timm", "name": "mobilenetv3_small_050", "weights": "none"},
    "timm regnet": {"source": "timm", "name": "regnetx_002", "weights": "none"},
}


def _spec(**fields: object):
    return TypeAdapter(ModelSpec).validate_json(json.dumps(fields))


def _network(fields: dict[str, object]) -> nn.Module:
    network = build_model(_spec(**fields), num_classes=10, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():  # fresh statistics are the same for every channel
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            if isinstance(module.weight, nn.Parameter):  # else it is fixed
                module.weight.data.uniform_(0.2, 1.0, generator=generator)
            module.bias.data.normal_(generator=generator)
    return network


def _half(network: nn.Module):
    most = 0.5 * model_cost(network, 32).macs
    return lambda cut: model_cost(cut, 32).macs <= most


def test_the_kept_channels_are_those_of_the_largest_norm() -> None:
    """Against a smaller network made by hand from the weights that NumPy ranks highest."""
    torch.manual_seed(0)
    first, second, head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1), nn.Linear(6, 4)
    network = nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    cut = find_cut(network, 8, criterion="l2", multiple=2, fits=lambda net: net[0].out_channels <= 4)
    assert cut is not None

    w1, b1 = first.weight.detach().numpy(), first.bias.detach().numpy()
    w2, b2, w3 = second.weight.detach().numpy(), second.bias.detach().numpy(), head.weight.detach().numpy()
    # a channel's norm is over all that goes with it: the weights that make it and those that read it, each by its mean
    rank1 = (w1.reshape(8, -1) ** 2).sum(1) + (w2.transpose(1, 0, 2, 3).reshape(8, -1) ** 2).sum(1)
    rank2 = (w2.reshape(6, -1) ** 2).sum(1) + (w3.T**2).sum(1)
    n1, n2 = cut.module[0].out_channels, cut.module[2].out_channels
    assert (n1, n2) == (4, cut.module[5].in_features)
    keep1, keep2 = np.sort(np.argsort(rank1)[-n1:]), np.sort(np.argsort(rank2)[-n2:])

    convolutions = nn.Conv2d(3, n1, 3, padding=1), nn.ReLU(), nn.Conv2d(n1, n2, 3, padding=1)
    small = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n2, 4)).eval()
    parts = [w1[keep1], b1[keep1], w2[keep2][:, keep1], b2[keep2], w3[:, keep2], head.bias.detach().numpy()]
    for parameter, values in zip(small.parameters(), parts, strict=True):
        parameter.data = torch.from_numpy(values.copy())
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(cut.module(images), small(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_the_work_goes_and_the_widths_rebuild_the_rest(name: str) -> None:
    fields = NETWORKS[name]
    network = _network(fields)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    cut = find_cut(network, 32, criterion="l2", multiple=4, fits=_half(network))
    assert cut is not None
    assert 0 < model_cost(cut.module, 32).macs <= 0.5 * model_cost(network, 32).macs
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()), "left as it is"
    spec = _spec(**fields, widths=cut.widths)
    rebuilt = build_model(spec, num_classes=10, seed=9).eval()
    rebuilt.load_state_dict(cut.module.state_dict())
    assert [n for n, _ in rebuilt.named_parameters()] == [n for n, _ in cut.module.named_parameters()]
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(images), cut.module(images), rtol=1e-4, atol=1e-5)
    if name != "timm regnet":  # whole groups stay there
        widths = {outputs for _, _, outputs, _ in cut.widths} - {10}
        assert all(width % 4 == 0 for width in widths)


def test_it_is_the_largest_that_fits() -> None:
    """Against all shares of channels there are, in steps of a thousandth."""
    network = _network(CNN)
    most = 0.6 * model_cost(network, 32).params
    cut = find_cut(network, 32, criterion="l2", multiple=1, fits=lambda net: model_cost(net, 32).params <= most)
    assert cut is not None
    grown = find_cut(network, 32, criterion="l2", multiple=1, fits=lambda net: model_cost(net, 32).params <= most + 400)
    assert model_cost(cut.module, 32).params <= most < model_cost(grown.module, 32).params


def test_criteria_rank_by_what_they_say() -> None:
    network = _network(RESNET)
    scales = torch.linspace(1.0, 0.1, 16)
    network.stages[0][0].bn1.weight.data.copy_(scales)
    first = find_cut(network, 32, criterion="bn", multiple=8, fits=_half(network))
    kept = first.module.stages[0][0].bn1.weight
    assert torch.equal(kept, scales[: len(kept)])

    block = network.stages[0][0]
    block.bn1.bias.data.fill_(2.0)  # every channel is alive
    torch.manual_seed(3)
    F.cross_entropy(network(torch.randn(16, 3, 32, 32)), torch.arange(16) % 10).backward()
    # without the even channels the loss stays as it is, to first order
    block.conv1.weight.grad[::2] = block.bn1.weight.grad[::2] = block.bn1.bias.grad[::2] = 0
    block.conv2.weight.grad[:, ::2] = 0
    second = find_cut(network, 32, criterion="taylor", multiple=8, fits=_half(network))
    assert torch.equal(second.module.stages[0][0].bn1.running_mean, block.bn1.running_mean[1::2])
    assert all(parameter.grad is None for parameter in second.module.parameters())


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_transformers_are_refused(name: str) -> None:
    size = 224 if name.startswith("swin") else 32
    network = build_model(_spec(source="timm", name=name, weights="none", input_size=size), num_classes=10)
    with pytest.raises(NotPrunableError, match=r"cannot be pruned: .* transformer"):
        find_cut(network, size, criterion="l2", multiple=8, fits=lambda net: True)


def test_widths_that_no_recipe_can_mean() -> None:
    with pytest.raises(ValueError, match="stands twice"):
        _spec(**CNN, widths=[["features.0", 3, 4, 1], ["features.0", 3, 8, 1]])
    with pytest.raises(ValueError, match="groups"):
        _spec(**CNN, widths=[["features.0", 3, 4, 2]])
    with pytest.raises(UsageError, match="there is no such layer"):
        build_model(_spec(**CNN, widths=[["nowhere", 3, 4, 1]]), num_classes=10)
    with pytest.raises(UsageError, match="has no width"):
        build_model(_spec(**CNN, widths=[["features.1", 3, 4, 1]]), num_classes=10)


def test_a_pruned_network_needs_no_pruning_library() -> None:
    network = _network(CNN)
    cut = find_cut(network, 32, criterion="l2", multiple=4, fits=_half(network))
    recipe = json.dumps(CNN | {"widths": cut.widths})
    code = "import sys; sys.modules['torch_pruning'] = None\n"
    code += "from pydantic import TypeAdapter\nfrom distill.recipe.model_specs import ModelSpec\n"
    code += "from distill.models import build_model, count_params\n"
    code += f"print(count_params(build_model(TypeAdapter(ModelSpec).validate_json({recipe!r}), num_classes=10)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == model_cost(cut.module, 32).params


def test_without_the_library_the_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingError) as caught:
        require_torch_pruning()
    assert caught.value.exit_code == 4
    assert "pip install torch-pruning" in caught.value.hint


def _body(width: int) -> list[nn.Module]:
    return [nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]


class _Own(nn.Module):
    """A user's network whose forward pass does what ``between`` says."""

    def __init__(self, between) -> None:
        super().__init__()
        self.first, self.second = nn.Sequential(*_body(32)), nn.Conv2d(32, 64, 3, 2, 1)
        self.between, self.head = between, nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.between(self.first(images))).mean((2, 3)))


def _asserting(maps: torch.Tensor) -> torch.Tensor:
    assert maps.shape[1] == 32, "32 channels"
    return maps


def _shuffled(maps: torch.Tensor) -> torch.Tensor:
    count, channels, height, width = maps.shape
    return maps.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(maps.shape)


@pytest.mark.parametrize(
    ("between", "reason"),
    [(_asserting, "AssertionError: 32 channels"), (lambda maps: maps * {32: 1.0}[maps.shape[1]], "KeyError")],
    ids=["asserts", "looks up"],
)
def test_a_network_that_raises_when_it_is_cut_is_refused_in_one_line(between, reason: str) -> None:
    with pytest.raises(NotPrunableError, match="this network cannot be pruned") as caught:
        find_cut(_Own(between).eval(), 32, criterion="l2", multiple=8, fits=lambda net: True)
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


def test_where_the_narrowest_widths_do_not_fit_one_another_wider_ones_are_found() -> None:
    """A shuffle halves its channels: one that is left has no half."""
    network = _Own(_shuffled).eval()
    cut = find_cut(network, 32, criterion="l2", multiple=1, fits=_half(network))
    assert 0 < model_cost(cut.module, 32).macs <= 0.5 * model_cost(network, 32).macs
    assert cut.module(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_patches_make_no_transformer() -> None:
    network = _Own(nn.Identity())
    network.patch_embed = network.first
    assert find_cut(network.eval(), 32, criterion="l2", multiple=8, fits=_half(network)) is not None


def _no_narrower_than(least: int):
    def checked(maps: torch.Tensor) -> torch.Tensor:
        if maps.shape[1] < least:
            raise ValueError("too narrow")
        return maps

    return checked


def test_the_least_is_the_narrowest_that_can_be_cut() -> None:
    network = _Own(_no_narrower_than(6)).eval()
    assert smallest(network, 32, criterion="l2", multiple=1).first[0].out_channels == 6


def test_memory_that_ran_out_is_not_the_networks_fault() -> None:
    def full(maps: torch.Tensor) -> torch.Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        find_cut(_Own(full).eval(), 32, criterion="l2", multiple=8, fits=lambda net: True)
