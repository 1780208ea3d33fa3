"""How a recipe names a network: which source, which builder, which options."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from distill.recipe.base import Fraction, PositiveInt, Spec

__all__ = ["ModelSpec", "NormalizeSpec"]

Rgb = tuple[float, float, float]


class NormalizeSpec(Spec):
    """Mean and standard deviation by channel, for pixels scaled to 0..1."""

    mean: Rgb
    std: Annotated[Rgb, Field(description="each above 0")]


class _Model(Spec):
    input_size: PositiveInt = Field(32, le=1024, description="images are resized to this on the device")
    normalize: Literal["auto"] | NormalizeSpec = Field(
        "auto", description="auto: what pretrained weights expect, else the training images' own mean and std"
    )
    max_params: PositiveInt | None = Field(None, description="the parameter budget; 5,000,000 by default for students")
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.0, description="before the classifier")


class TimmModel(_Model):
    """Any classifier of timm, by timm's name."""

    source: Literal["timm"]
    name: str
    stem: Literal["cifar", "imagenet"] = "imagenet"
    weights: str = Field("pretrained", description="pretrained, none, or a .safetensors file")
    head: Literal["linear", "conv"] = "linear"


class ResNetModel(_Model):
    """A residual network by hyper-parameters: stages, blocks, channels, kernels, pooling."""

    source: Literal["students"]
    name: Literal["resnet"]
    blocks: tuple[PositiveInt, ...] = Field(min_length=1)
    channels: tuple[PositiveInt, ...] = Field(min_length=1)
    strides: tuple[PositiveInt, ...] = Field(min_length=1)
    kernel: PositiveInt = 3
    skip_kernel: PositiveInt = 1
    skip: Literal["projection", "pad"] = Field("projection", description="pad: parameter-free, zero-padded channels")
    conv_bias: bool = False
    stem_channels: PositiveInt | None = Field(None, description="null: channels[0]")
    pool: PositiveInt | None = Field(None, description="average-pool window; null: the whole map")


class TinyModel(_Model):
    """A random network of a few thousand parameters, for tests and for trying things out."""

    source: Literal["teachers", "students"]
    name: Literal["tiny"]
    width: PositiveInt = 8
    norm: bool = True


def _tag(value: Any) -> str | None:
    get = value.get if isinstance(value, dict) else lambda key: getattr(value, key, None)
    return "timm" if get("source") == "timm" else f"{get('source')}.{get('name')}"


ModelSpec = Annotated[
    Annotated[TimmModel, Tag("timm")]
    | Annotated[ResNetModel, Tag("students.resnet")]
    | Annotated[TinyModel, Tag("students.tiny")]
    | Annotated[TinyModel, Tag("teachers.tiny")],
    Discriminator(_tag),
]
