"""What the networks are made of: skips, stems, heads, dropout, and their initial weights."""

from __future__ import annotations

import re

import numpy as np
import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, create_conv2d
from torch import nn

from distill.models import build_model, head_parameters, stages
from distill.models.build import meta_model
from students import STUDENTS
from students.resnet import PadSkip
from teachers import TEACHERS
from teachers.timm_backbone import ConvHead, centre_crop

SMALL = {"source": "students", "name": "resnet", "blocks": [1, 2], "channels": [8, 16], "strides": [1, 2]}


def test_the_registries():
    assert set(STUDENTS) == {"cnn", "fast", "grouped_resnet", "lenet", "resnet", "tiny", "vgg"}
    assert set(TEACHERS) == {"resnet9", "timm", "tiny"}


@pytest.mark.parametrize(
    ("source", "name"), [("students", n) for n in ("cnn", "fast", "lenet", "tiny", "grouped_resnet", "vgg")]
)
@pytest.mark.parametrize("num_classes", [2, 10])
def test_students_give_logits(spec, source, name, num_classes):
    net = build_model(spec(source=source, name=name), num_classes=num_classes).eval()
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, num_classes)


@pytest.mark.parametrize("name", ["resnet9", "tiny"])
def test_teachers_give_logits(spec, name):
    net = build_model(spec(source="teachers", name=name, width=4), num_classes=5).eval()
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_pad_skip_is_every_second_pixel_between_zero_channels():
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)
    out = PadSkip(4, 9, stride=2)(torch.from_numpy(x)).numpy()
    expected = np.zeros((2, 9, 3, 3), np.float32)
    for row in range(3):
        for column in range(3):
            expected[:, 2:6, row, column] = x[:, :, 2 * row, 2 * column]
    np.testing.assert_array_equal(out, expected)


def test_only_blocks_that_change_shape_have_a_skip(spec):
    net = build_model(spec(**SMALL), num_classes=10)
    assert [type(block.skip) for stage in net.stages for block in stage] == [nn.Identity, nn.Sequential, nn.Identity]
    projection = net.stages[1][0].skip[0]
    assert (projection.kernel_size, projection.stride, projection.bias) == ((1, 1), (2, 2), None)


@pytest.mark.parametrize(("pool", "features"), [(None, 16), (16, 16), (8, 64), (5, 144)])
def test_a_small_pooling_window_leaves_cells(spec, pool, features):
    net = build_model(spec(**SMALL, pool=pool), num_classes=10).eval()
    assert net.head.in_features == features
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("pool", [None, 8])
def test_a_residual_network_equals_its_definition_in_numpy(spec, pool):
    """One stage of one block, without batch norm's statistics, against convolutions written out."""
    fields = {**SMALL, "blocks": [1], "channels": [4], "strides": [1], "input_size": 8, "pool": pool}
    net = build_model(spec(**fields), num_classes=3).double().eval()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    state = {k: v.numpy() for k, v in net.state_dict().items()}

    def conv(image, weight):
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        return np.einsum("ihwkl,oikl->ohw", windows, weight) / np.sqrt(1 + 1e-5)  # fresh batch norm: mean 0, variance 1

    stem = np.maximum(conv(x[0].numpy(), state["stem.0.weight"]), 0)
    inner = np.maximum(conv(stem, state["stages.0.0.conv1.weight"]), 0)
    out = np.maximum(conv(inner, state["stages.0.0.conv2.weight"]) + stem, 0)
    logits = state["head.weight"] @ out.mean(axis=(1, 2)) + state["head.bias"]
    np.testing.assert_allclose(net(x)[0].detach().numpy(), logits, rtol=1e-10)


def test_grouped_blocks_end_in_a_sum_without_relu(spec):
    net = build_model(spec(source="students", name="grouped_resnet"), num_classes=10).eval()
    assert net.stages(net.stem(torch.randn(2, 3, 32, 32))).min() < 0
    kinds = [type(m) for m in net.stem]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.Dropout2d]
    strided = [block for stage in net.stages for block in stage if isinstance(getattr(block, "skip", None), nn.Conv2d)]
    assert len(strided) == 3
    assert all(block.skip.bias is not None and block.skip.stride == (2, 2) for block in strided)


@pytest.mark.parametrize(
    "name", ["resnet10t", "resnet26d", "resnet18", "resnext50_32x4d", "seresnet18", "resnetv2_50", "resnetv2_50x1_bit"]
)
def test_cifar_stem_keeps_the_whole_image(spec, name):
    with torch.device("meta"):
        net = meta_model(spec(source="timm", weights="none", name=name, stem="cifar"), 10)
        x = torch.zeros(2, 3, 32, 32)
        conv = net.conv1 if hasattr(net, "conv1") else net.stem.conv
        assert conv(x).shape[-2:] == (32, 32)
        assert net.forward_features(x).shape[-2:] == (4, 4)
        assert net(x).shape == (2, 10)
        first, *_ = net.forward_intermediates(x, indices=[0], intermediates_only=True)
        assert first.shape[-1] == 32


def test_cifar_stem_keeps_the_centre_of_the_old_kernel(spec):
    fields = {"source": "timm", "name": "resnet18", "weights": "none"}
    plain = build_model(spec(**fields), num_classes=10, seed=3)
    fitted = build_model(spec(**fields, stem="cifar"), num_classes=10, seed=3)
    np.testing.assert_array_equal(fitted.conv1.weight.detach(), plain.conv1.weight.detach()[:, :, 2:5, 2:5])
    assert torch.equal(fitted.layer4[1].conv2.weight, plain.layer4[1].conv2.weight)
    assert centre_crop(torch.arange(49.0).view(1, 1, 7, 7)).flatten().tolist() == [16, 17, 18, 23, 24, 25, 30, 31, 32]


def test_an_imagenet_backbone_ends_in_one_cell_at_32_pixels(spec):
    with torch.device("meta"):
        net = meta_model(spec(source="timm", weights="none", name="resnetv2_152", head="conv", dropout=0.5), 10)
        assert net.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 2048, 1, 1)
    assert [type(m).__name__ for m in net.head.convs].count("MaxPool2d") == 2
    assert net.head.dropout.p == 0.5


@pytest.mark.parametrize("map_size", [1, 2, 3, 7])
def test_conv_head_takes_any_map(map_size):
    head = ConvHead(8, map_size, 10, dropout=0.0)
    assert head(torch.zeros(2, 8, map_size, map_size)).shape == (2, 10)


def test_conv_head_on_a_classic_resnet(spec):
    fields = {"source": "timm", "name": "resnet10t", "stem": "cifar", "weights": "none", "head": "conv"}
    net = build_model(spec(**fields), num_classes=10).eval()
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert {name.split(".")[0] for name in head_parameters(net)} == {"fc"}


@pytest.mark.parametrize(("name", "size", "patch"), [("vgg11", 32, None), ("vit_tiny_patch16_224", 32, 4)])
def test_other_families_at_32_pixels(spec, name, size, patch):
    with torch.device("meta"):
        net = meta_model(spec(source="timm", weights="none", name=name, input_size=size, patch_size=patch), 10)
        assert net(torch.zeros(2, 3, size, size)).shape == (2, 10)
    if patch:
        assert net.patch_embed.num_patches == 64


def test_dropout_reaches_timm(spec):
    assert meta_model(spec(source="timm", weights="none", name="resnet10t", dropout=0.3), 10).drop_rate == 0.3


@pytest.mark.parametrize(
    "fields",
    [SMALL, {"source": "timm", "name": "resnet10t", "stem": "cifar", "weights": "none"}],
    ids=["students.resnet", "timm"],
)
def test_initial_weights_come_from_the_seed_alone(spec, fields):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = build_model(spec(**fields), num_classes=10, seed=5).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again = build_model(spec(**fields), num_classes=10, seed=5).state_dict()
    other = build_model(spec(**fields), num_classes=10, seed=6).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_the_classifier_does_not_shift_the_backbone(spec):
    ten, hundred = (build_model(spec(**SMALL), num_classes=n).state_dict() for n in (10, 100))
    assert all(torch.equal(ten[k], hundred[k]) for k in ten if "conv" in k and "head" not in k)


NETWORKS = {
    "resnet": {
        "source": "students",
        "name": "resnet",
        "blocks": [3, 3, 2, 3],
        "channels": [64, 128, 128, 256],
        "strides": [1, 2, 2, 2],
    },
    "grouped_resnet": {"source": "students", "name": "grouped_resnet"},
    "lenet": {"source": "students", "name": "lenet"},
    "resnet9": {"source": "teachers", "name": "resnet9"},
    "resnet10t": {"source": "timm", "name": "resnet10t", "stem": "cifar"},
    "resnetv2": {"source": "timm", "name": "resnetv2_50", "head": "conv"},
    "vgg": {"source": "timm", "name": "vgg11"},
    "vgg8": {"source": "students", "name": "vgg"},
    "vit": {"source": "timm", "name": "vit_tiny_patch16_224"},
    "deit": {"source": "timm", "name": "deit_tiny_distilled_patch16_224"},
}


@pytest.fixture
def network(spec):
    """One of the networks above, on the meta device."""
    return lambda name: meta_model(spec(**NETWORKS[name]), 10)


@pytest.mark.parametrize("name", [*NETWORKS, "torch"])
def test_every_parameter_is_in_one_stage_and_the_head_is_last(network, name):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)) if name == "torch" else network(name)
    parts, head = stages(net), head_parameters(net)
    names = [n for n, _ in net.named_parameters()]
    assert all(sum(n.startswith(part) for part in parts) == 1 for n in names)
    assert {n for n in names if n.startswith(parts[-1])} == head
    assert 0 < len(head) < len(names)


def test_stages_in_order_of_depth(network):
    own, theirs, vit = (stages(network(n)) for n in ("resnet", "resnet10t", "vit"))
    assert own == [("stem.",), ("stages.0.",), ("stages.1.",), ("stages.2.",), ("stages.3.",), ("head.",)]
    assert theirs[0] == ("conv1.", "bn1.")
    assert theirs[1:] == [("layer1.",), ("layer2.",), ("layer3.",), ("layer4.",), ("fc.",)]
    assert (len(vit), vit[1], vit[-1]) == (14, ("blocks.0.",), ("head.",))


def test_head_of_a_distilled_transformer_is_both_classifiers(network):
    assert len(head_parameters(network("deit"))) == 4


def test_resnet_agrees_with_timm_on_the_classic_network(spec):
    """Same weights, same logits: ours with projections against timm's ResNet-10 layout with a CIFAR stem."""
    fields = {"blocks": [1, 1, 1, 1], "channels": [64, 128, 256, 512], "strides": [1, 2, 2, 2]}
    ours = build_model(spec(source="students", name="resnet", **fields), num_classes=10).eval()
    theirs = timm.models.resnet.ResNet(timm.models.resnet.BasicBlock, (1, 1, 1, 1), num_classes=10).eval()
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    # both register their parameters in the order in which they are applied, the skip last
    state = dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True))
    theirs.load_state_dict(state)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_a_pre_activation_network_agrees_with_timm(spec):
    """Same weights, same logits: a WRN-10-2 against timm's pre-activation ResNet with a CIFAR stem."""
    fields = {"blocks": [1, 1, 1], "channels": [32, 64, 128], "strides": [1, 2, 2], "stem_channels": 16}
    ours = build_model(spec(source="students", name="resnet", pre_activation=True, **fields), num_classes=10).eval()
    theirs = timm.models.resnetv2.ResNetV2(
        (1, 1, 1), (32, 64, 128), num_classes=10, stem_chs=16, act_layer=nn.ReLU, norm_layer=BatchNormAct2d,
        conv_layer=create_conv2d, basic=True, bottle_ratio=1.0,
    ).eval()  # fmt: skip
    theirs.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    own, state = ours.state_dict(), {}
    for name in theirs.state_dict():
        for theirs_name, our_name in _PRE_ACTIVATION.items():
            if (found := re.fullmatch(theirs_name, name)) is not None:
                state[name] = own.pop(found.expand(our_name))
    assert not own
    with torch.no_grad():  # fresh statistics are the same for every channel
        for name, value in state.items():
            if "norm" in name and value.dtype == torch.float32:
                value.uniform_(0.5, 1.5)
    theirs.load_state_dict({n: v.reshape(theirs.state_dict()[n].shape) for n, v in state.items()})
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


_PRE_ACTIVATION = {
    r"stem\.(weight)": r"stem.0.\1",
    r"stages\.(\d)\.blocks\.(\d)\.norm([12])\.(\w+)": r"stages.\1.\2.bn\3.\4",
    r"stages\.(\d)\.blocks\.(\d)\.conv([12])\.(weight)": r"stages.\1.\2.conv\3.\4",
    r"stages\.(\d)\.blocks\.(\d)\.downsample\.conv\.(weight)": r"stages.\1.\2.skip.\3",
    r"norm\.(\w+)": r"stages.2.1.\1",
    r"head\.fc\.(\w+)": r"head.\1",
}


def test_resnet9_pools_as_adaptive_max_pooling_does_and_trains_deterministically(spec):
    network = build_model(spec(source="teachers", name="resnet9", width=4), num_classes=5)
    maps = torch.randn(3, 8, 4, 4, requires_grad=True)
    torch.testing.assert_close(network.pool(maps), nn.functional.adaptive_max_pool2d(maps, 1).flatten(1))
    assert not any(isinstance(module, nn.AdaptiveMaxPool2d) for module in network.modules())
