"""Pretrained weights and weights files: what is kept, what is refused, and what a machine without network says."""

from __future__ import annotations

import pickle
import socket

import pytest
import timm
import torch
from huggingface_hub import errors as hub
from safetensors.torch import save_file
from torch import nn

from distill.errors import DataError, MissingError
from distill.models import build_model, params_of
from teachers import pretrained
from teachers.timm_backbone import draw_head

# httpx (or httpx2, or requests) stands behind the hub, depending on its version; their errors are no OSErrors
_HTTPX_TIMEOUT = type("ConnectTimeout", (Exception,), {"__module__": "httpx"})
TIMM = {"source": "timm", "name": "resnet10t"}


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def _fail(error):
    def fail(*_args, **_kwargs):
        raise error

    return fail


def _missing(spec, **fields):
    with pytest.raises(MissingError) as caught:
        build_model(spec(**{**TIMM, **fields}), num_classes=10)
    assert caught.value.exit_code == 4
    assert "\n" not in caught.value.message
    assert "model.weights=none" in caught.value.hint
    return caught.value.message


def test_no_network_is_said_at_once(spec, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", _fail(socket.gaierror(-2, "Name or service not known")))
    message = _missing(spec)
    assert message == (
        "model.weights: the weights of resnet10t are not cached, and huggingface.co cannot be reached "
        "([Errno -2] Name or service not known)"
    )


def test_offline_mode_is_said_at_once(spec, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(socket, "create_connection", _fail(AssertionError("no connection may be tried")))
    assert "HF_HUB_OFFLINE is set" in _missing(spec)


def test_the_endpoint_and_the_proxy_are_what_is_probed(spec, monkeypatch):
    tried = []

    def connect(address, timeout):
        tried.append(address)
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example:8080")
    assert "mirror.example cannot be reached (timed out)" in _missing(spec)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert "proxy.example" in _missing(spec)
    assert tried == [("mirror.example", 8080), ("proxy.example", 3128)]


@pytest.mark.parametrize(
    "error",
    [
        hub.LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub.\nMore."),
        hub.OfflineModeIsEnabled("Cannot reach the hub: offline mode is enabled."),
        _HTTPX_TIMEOUT("timed out"),
        ConnectionResetError("reset by peer"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_download_that_fails(spec, monkeypatch, error):
    monkeypatch.setattr(pretrained, "_probe", lambda name: None)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", _fail(error))
    assert "the weights of resnet10t could not be fetched" in _missing(spec)


def test_a_bug_of_the_builder_keeps_its_traceback(spec, monkeypatch):
    monkeypatch.setattr(pretrained, "_probe", lambda name: None)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", _fail(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        build_model(spec(**TIMM), num_classes=10)


def test_weights_that_never_existed(spec):
    assert "timm has no pretrained weights for resnetv2_152" in _missing(spec, name="resnetv2_152")


def test_counting_needs_no_weights(spec, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", _fail(AssertionError("no connection may be tried")))
    assert params_of(spec(**TIMM, stem="cifar"), 10) == 4_903_242


def test_cached_weights_are_loaded_without_a_connection(spec, monkeypatch, tmp_path):
    source = timm.create_model("resnet10t")
    file = tmp_path / "cached.safetensors"
    save_file(source.state_dict(), file)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_kwargs: str(file))
    monkeypatch.setattr(socket, "create_connection", _fail(AssertionError("no connection may be tried")))
    net = build_model(spec(**TIMM, stem="cifar"), num_classes=10)
    assert torch.equal(net.layer4[0].conv1.weight, source.layer4[0].conv1.weight)
    assert (net.conv1.kernel_size, net.fc.out_features) == ((3, 3), 10)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Weights as timm publishes them: 1000 classes, the original stem."""
    torch.manual_seed(0)
    source = timm.create_model("resnet18")
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(source.state_dict(), file)
    return source, file


def test_a_published_file_gives_everything_but_the_classifier(spec, imagenet):
    source, file = imagenet
    net = build_model(spec(source="timm", name="resnet18", weights=str(file)), num_classes=10, seed=1)
    fresh = build_model(spec(source="timm", name="resnet18", weights="none"), num_classes=10, seed=1)
    assert torch.equal(net.conv1.weight, source.conv1.weight)
    assert torch.equal(net.fc.weight, fresh.fc.weight)


def test_a_published_file_under_a_cifar_stem(spec, imagenet):
    source, file = imagenet
    net = build_model(spec(source="timm", name="resnet18", stem="cifar", weights=str(file)), num_classes=10)
    assert torch.equal(net.conv1.weight, source.conv1.weight[:, :, 2:5, 2:5])
    assert torch.equal(net.bn1.running_var, source.bn1.running_var)


def test_a_published_file_under_a_convolutional_head(spec, imagenet):
    source, file = imagenet
    net = build_model(spec(source="timm", name="resnet18", head="conv", weights=str(file)), num_classes=10)
    assert torch.equal(net.layer1[0].conv1.weight, source.layer1[0].conv1.weight)


def test_a_file_of_the_same_network_is_loaded_whole(spec, tmp_path):
    fields = {**TIMM, "stem": "cifar"}
    source = build_model(spec(**fields, weights="none"), num_classes=10, seed=1)
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    net = build_model(spec(**fields, weights=str(tmp_path / "own.safetensors")), num_classes=10, seed=2)
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in net.state_dict().items())


def test_a_new_classifier_may_begin_small(spec, tmp_path):
    lcnet = {"source": "timm", "name": "lcnet_035"}
    source = timm.create_model("lcnet_035")
    save_file(source.state_dict(), tmp_path / "imagenet.safetensors")
    lcnet["weights"] = str(tmp_path / "imagenet.safetensors")
    own, small = (build_model(spec(**lcnet, head_init=how), num_classes=4, seed=1) for how in ("own", "fan_in"))
    inputs = own.classifier.in_features
    bound = inputs**-0.5
    assert own.classifier.weight.abs().max() > 10 * bound  # timm's: up to 1 / sqrt(classes)
    assert 0.9 * bound < small.classifier.weight.abs().max() <= bound
    assert small.classifier.bias.abs().max() <= bound
    assert torch.equal(small.conv_stem.weight, source.conv_stem.weight)
    assert torch.equal(own.conv_stem.weight, source.conv_stem.weight)
    again = build_model(spec(**lcnet, head_init="fan_in"), num_classes=4, seed=1)
    assert torch.equal(again.classifier.weight, small.classifier.weight)
    whole = build_model(spec(**lcnet, head_init="fan_in"), num_classes=1000, seed=1)
    assert torch.equal(whole.classifier.weight, source.classifier.weight)


def test_a_classifier_that_timm_fetched_stays(spec, monkeypatch, tmp_path):
    source = timm.create_model("resnet10t")
    file = tmp_path / "cached.safetensors"
    save_file(source.state_dict(), file)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_kwargs: str(file))
    kept, drawn = (build_model(spec(**TIMM, head_init="fan_in"), num_classes=n) for n in (1000, 10))
    assert torch.equal(kept.fc.weight, source.fc.weight)
    assert drawn.fc.weight.abs().max() <= 512**-0.5


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "dla34", "levit_128s", "beit_base_patch16_224"])
def test_classifiers_of_every_sort_are_drawn(name):
    net = timm.create_model(name, num_classes=4)
    found = net.get_classifier()
    for classifier in found if isinstance(found, tuple) else (found,):
        layer = [each for each in classifier.modules() if isinstance(each, nn.Linear | nn.Conv2d)][-1]
        nn.init.constant_(layer.weight, 9.0)
    draw_head(net)
    for classifier in found if isinstance(found, tuple) else (found,):
        layer = [each for each in classifier.modules() if isinstance(each, nn.Linear | nn.Conv2d)][-1]
        assert layer.out_features == 4 if isinstance(layer, nn.Linear) else layer.out_channels == 4
        assert 0.0 < layer.weight.std() < layer.weight[0].numel() ** -0.5


@pytest.mark.parametrize("name", ["resnet10t", "resnetv2_50d"])
def test_a_deep_stem_is_replaced_and_the_rest_is_kept(spec, tmp_path, name):
    with torch.random.fork_rng():
        source = timm.create_model(name, num_classes=10)
    save_file(source.state_dict(), tmp_path / "deep.safetensors")
    fields = {"source": "timm", "name": name, "stem": "cifar", "weights": str(tmp_path / "deep.safetensors")}
    net = build_model(spec(**fields), num_classes=10)
    theirs = source.state_dict()
    kept = {k for k, v in net.state_dict().items() if k in theirs and torch.equal(v, theirs[k])}
    assert set(net.state_dict()) - kept == {"conv1.weight" if name == "resnet10t" else "stem.conv.weight"}


def test_a_transformers_positions_are_resampled(spec, tmp_path):
    source = timm.create_model("test_vit", num_classes=10)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    fields = {"source": "timm", "name": "test_vit", "input_size": 32, "weights": str(tmp_path / "vit.safetensors")}
    net = build_model(spec(**fields), num_classes=10)
    assert net.pos_embed.shape[1] < source.pos_embed.shape[1]
    assert torch.equal(net.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)


def test_weights_of_another_network_name_the_first_keys(spec, tmp_path):
    source = timm.create_model("resnet10t")
    save_file(source.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"other\.safetensors does not fit resnet18: .* is missing; .* more"):
        build_model(spec(source="timm", name="resnet18", weights=str(tmp_path / "other.safetensors")), num_classes=10)


def test_weights_of_quite_another_network_say_how_to_name_it(spec, tmp_path):
    save_file({"conv_stem.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"does not fit resnet18") as refused:
        build_model(spec(source="timm", name="resnet18", weights=str(tmp_path / "other.safetensors")), num_classes=10)
    assert "--set model.name=NAME" in refused.value.hint


def test_other_shapes_are_named(spec, imagenet, tmp_path):
    state = imagenet[0].state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(1, 2)
    save_file(state, tmp_path / "shape.safetensors")
    with pytest.raises(DataError, match=r"layer1\.0\.conv1\.weight is \(1, 2\), not \(64, 64, 3, 3\)"):
        build_model(spec(source="timm", name="resnet18", weights=str(tmp_path / "shape.safetensors")), num_classes=10)


def test_a_file_that_is_not_there(spec):
    with pytest.raises(MissingError, match=r"no file nowhere\.safetensors"):
        build_model(spec(**TIMM, weights="nowhere.safetensors"), num_classes=10)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, pickle.dumps({"conv1.weight": 1})])
def test_a_damaged_file(spec, tmp_path, content):
    file = tmp_path / "damaged.safetensors"
    file.write_bytes(content)
    with pytest.raises(DataError, match="is not a readable safetensors file"):
        build_model(spec(**TIMM, weights=str(file)), num_classes=10)
