"""Any classifier of timm, fitted to small images: a CIFAR stem for ResNets, and a convolutional head."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from timm.models import get_arch_name, get_pretrained_cfg, is_model, list_pretrained
from timm.models.resnet import ResNet
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn

from teachers.conv_head import ConvHead
from teachers.mistakes import ImageSizeError
from teachers.pretrained import weights_overlay

__all__ = [
    "centre_crop",
    "check_name",
    "cifar_stem_state",
    "draw_head",
    "fit_cifar_stem",
    "timm_backbone",
]


def timm_backbone(
    *,
    num_classes: int,
    in_channels: int = 3,
    name: str,
    input_size: int,
    stem: str,
    head: str,
    head_init: str = "own",
    pretrained: bool,
    patch_size: int | None,
    dropout: float,
) -> nn.Module:
    """Build timm's network ``name`` with a new classifier.

    ``stem="cifar"`` fits a ResNet to small images (see :func:`fit_cifar_stem`), after pretrained weights are in place.
    Networks that are built for one image size (vision transformers) are built for ``input_size``; timm then resamples
    pretrained position embeddings. ``head_init="fan_in"`` draws a new classifier anew (see :func:`draw_head`); one that
    comes with pretrained weights, of as many classes, stays.

    Shapes:
        input: ``(B, in_channels, input_size, input_size)``; output: ``(B, num_classes)`` logits.

    Raises:
        ImageSizeError: The network cannot be built for ``input_size``.
        ValueError: timm has no such name, tag or option, or the family has no CIFAR stem or convolutional head.
        WeightsUnavailableError: Pretrained weights do not exist or cannot be fetched.
    """
    check_name(name)
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels, "drop_rate": dropout}
    config = get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:  # a name that timm knows from former days has no config
        options["img_size"] = input_size
    if patch_size is not None:
        options["patch_size"] = patch_size
    if pretrained:
        options["pretrained_cfg_overlay"] = weights_overlay(name)
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError, ArithmeticError, RuntimeError) as error:
        # timm hands options to a family's own class: what that class does not know is a TypeError
        if isinstance(error, RuntimeError) and "negative dimension" not in str(error):
            raise
        if isinstance(error, TypeError) or "img_size" not in options:
            raise ValueError(f"timm {name}: {error}") from error
        detail = f" ({error})" if str(error) else ""
        raise ImageSizeError(f"timm cannot build it for images of {input_size} pixels{detail}") from error
    _check_patches(model, input_size)
    if stem == "cifar":
        fit_cifar_stem(model, name)
    if head == "conv":
        _fit_conv_head(model, name, input_size, num_classes, dropout)
    elif head_init == "fan_in" and not (pretrained and config is not None and config.num_classes == num_classes):
        draw_head(model)
    return model


def check_name(name: str) -> None:
    """Raise ``ValueError`` with near misses where timm knows no such architecture or pretrained tag."""
    arch = get_arch_name(name)
    if not is_model(name) or "/" in name or ":" in name:
        near = difflib.get_close_matches(arch, timm.list_models(), n=3)
        raise ValueError(f"timm has no model {name!r}" + _did_you_mean(near))
    try:
        get_pretrained_cfg(name)
    except RuntimeError as error:  # an unknown tag behind the dot
        near = difflib.get_close_matches(name, list_pretrained(f"{arch}.*"), n=3, cutoff=0.0)
        raise ValueError(f"timm has no model {name!r}" + _did_you_mean(near)) from error


def _check_patches(model: nn.Module, input_size: int) -> None:
    """Refuse an image whose edges would be cut off in silence: patches side by side, and no multiple of them.

    Where patches overlap or are padded (PVTv2), and where several layers make them (XCiT), every pixel is seen.
    """
    cut = getattr(getattr(model, "patch_embed", None), "proj", None)
    if not isinstance(cut, nn.Conv2d) or cut.kernel_size != cut.stride or any(cut.padding):
        return
    for patch in cut.stride:
        if input_size < patch or input_size % patch:
            raise ImageSizeError(f"input_size {input_size} is no multiple of its patches' {patch} pixels")


def _did_you_mean(near: list[str]) -> str:
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def cifar_stem_state(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the original network, by name, as the same network with a CIFAR stem can load them.

    A single large convolution is cropped to its centre; a deep stem's is dropped, and the model's own stays.
    """
    stem = "conv1" if isinstance(model, ResNet) else "stem.conv"
    own, key = model.state_dict(), f"{stem}.weight"
    fitted = {k.replace("stem.norm3.", "stem.norm."): v for k, v in state.items()}
    if key in fitted and fitted[key].ndim == 4:
        fitted[key] = centre_crop(fitted[key], own[key].shape[-1])
        return fitted
    deep = ("conv1.",) if stem == "conv1" else ("stem.conv", "stem.norm1.", "stem.norm2.")
    fitted = {k: v for k, v in fitted.items() if not k.startswith(deep)}
    return fitted | {k: v for k, v in own.items() if k.startswith(f"{stem}.")}


def centre_crop(weight: Tensor, size: int = 3) -> Tensor:
    """The centre ``(size, size)`` window of convolution weights ``(O, I, K, K)`` with an odd ``K``."""
    edge = (weight.shape[-1] - size) // 2
    return weight[..., edge : edge + size, edge : edge + size]


def fit_cifar_stem(model: nn.Module, name: str) -> None:
    """Replace the whole stem, deep ones too, by one 3x3 stride-1 convolution, and drop the max-pool, in place.

    The norm and activation after the stem stay. So does what can be kept of a single large convolution, pretrained or
    not: the centre of its kernel, where most of its energy lies. A deep stem's convolution starts from random weights,
    since its last layer reads feature maps, not pixels.

    Raises:
        ValueError: Not a ResNet of timm's.
    """
    net: Any = model  # a checker knows timm's attributes by what is first assigned to them
    if isinstance(model, ResNet):
        net.conv1 = _small_conv(net.conv1, net.bn1.num_features)
        net.maxpool = nn.Identity()
    elif isinstance(model, ResNetV2):
        convs = [m for m in net.stem if isinstance(m, nn.Conv2d)]
        norms = [m for n, m in net.stem.named_children() if n in ("norm", "norm3")]  # only without pre-activation
        fitted = nn.Sequential()
        fitted.add_module("conv", _small_conv(net.stem, convs[-1].out_channels))
        for norm in norms:
            fitted.add_module("norm", norm)
        net.stem, net.stem_feat_idx = fitted, len(fitted) - 1
    else:
        raise ValueError(f"stem: cifar is for timm's ResNets (resnet*, resnetv2*, resnext*, wide_resnet*), not {name}")
    for info in net.feature_info:  # timm's note of how far each feature map is reduced
        info["reduction"] //= 2 if info is net.feature_info[0] else 4


def _small_conv(old: nn.Module, out_channels: int) -> nn.Conv2d:
    """A 3x3 stride-1 convolution of the old one's kind, with the centre of its weights where there is one of them."""
    convs = [m for m in old.modules() if isinstance(m, nn.Conv2d)]
    first = convs[0]
    bias = first.bias
    new = type(first)(first.in_channels, out_channels, kernel_size=3, stride=1, padding=1, bias=bias is not None)
    if hasattr(first, "eps"):  # weight-standardised convolutions
        new.eps = first.eps
    if len(convs) == 1:
        with torch.no_grad():
            new.weight.copy_(centre_crop(first.weight))
            if bias is not None and new.bias is not None:
                new.bias.copy_(bias)
    else:
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new


def draw_head(model: nn.Module) -> None:
    """Draw the last layer of each of a timm network's classifiers anew, as torch does: from +-1 / sqrt(inputs).

    timm draws those of EfficientNets and MobileNets from +-1 / sqrt(classes), as they are trained on ImageNet: of 20
    classes behind 1,280 features, the first loss is 7, and what flows back into pretrained layers is of that size.
    """
    found = model.get_classifier()  # type: ignore[operator]
    for classifier in found if isinstance(found, tuple | list) else (found,):
        layers = [each for each in classifier.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
        if layers:
            layers[-1].reset_parameters()


def _fit_conv_head(model: nn.Module, name: str, input_size: int, num_classes: int, dropout: float) -> None:
    if not isinstance(model, ResNet | ResNetV2):
        raise ValueError(f"head: conv is for timm's ResNets (resnet*, resnetv2*, resnext*, wide_resnet*), not {name}")
    net: Any = model
    map_size = -(-input_size // net.feature_info[-1]["reduction"])
    head = ConvHead(net.num_features, map_size, num_classes, dropout=dropout)
    if isinstance(model, ResNetV2):
        net.head = head
    else:
        net.global_pool, net.fc, net.drop_rate = nn.Identity(), head, 0.0
