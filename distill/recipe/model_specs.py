"""How a recipe names a network: which source, which builder, which options."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from distill.recipe.base import Positive, PositiveInt, Spec
from distill.recipe.own import OwnOptions, Reference

__all__ = [
    "CNNModel",
    "FastModel",
    "GroupedResNetModel",
    "LeNetModel",
    "ModelSpec",
    "NormalizeSpec",
    "PositiveRgb",
    "PythonModel",
    "ResNet9Model",
    "ResNetModel",
    "Rgb",
    "TimmModel",
    "TinyModel",
    "VGGModel",
]

Rgb = tuple[float, float, float]
PositiveRgb = tuple[Positive, Positive, Positive]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
LayerWidth = tuple[str, PositiveInt, PositiveInt, PositiveInt]  # module, inputs, outputs, groups


class NormalizeSpec(Spec):
    """Mean and standard deviation by channel, for pixels scaled to 0..1."""

    mean: Rgb
    std: Annotated[PositiveRgb, Field(description="each above 0")]


class _Model(Spec):
    input_size: Annotated[int, Field(ge=1, le=1024)] = Field(32, description="images are resized to this on the device")
    normalize: Literal["auto"] | NormalizeSpec = Field(
        "auto",
        description="auto: what a timm model's weights expect, fetched or a file; else the training images' own",
    )
    max_params: PositiveInt | None = Field(None, description="the parameter budget; 5,000,000 by default for students")
    dropout: Dropout = Field(0.0, description="before the classifier")
    reuse: PositiveInt | None = Field(
        None, description="width of a teacher's classifier that is reused; objective simkd fills it in"
    )
    widths: tuple[LayerWidth, ...] = Field(
        (), description="of layers that were pruned: module, input channels, output channels, groups"
    )

    @field_validator("widths")
    @classmethod
    def _each_layer_once(cls, value: tuple[LayerWidth, ...]) -> tuple[LayerWidth, ...]:
        names = [name for name, *_ in value]
        if len(set(names)) < len(names):
            raise ValueError("a module stands twice")
        for name, inputs, outputs, groups in value:
            if inputs % groups or outputs % groups:
                raise ValueError(f"{name}: {inputs} and {outputs} channels are not whole numbers of {groups} groups")
        return value


class TimmModel(_Model):
    """Any classifier of timm, by timm's name."""

    source: Literal["timm"]
    name: str = Field(
        min_length=1,
        description="as timm.list_models() says it, with or without a tag; hf-hub:OWNER/NAME; local-dir:FOLDER",
    )
    stem: Literal["cifar", "imagenet"] = Field(
        "imagenet", description="cifar (ResNets): one 3x3 stride-1 convolution, no max-pool"
    )
    weights: str = Field("pretrained", description="pretrained, none, or a .safetensors file of that model")
    head: Literal["linear", "conv"] = Field("linear", description="conv: four convolutions and two dense layers")
    head_init: Literal["own", "fan_in"] = Field(
        "own",
        description="a new classifier's first weights: own: as timm draws them; fan_in: small ones, as torch does, "
        "which suits pretrained EfficientNets and MobileNets and few classes",
    )
    patch_size: PositiveInt | None = Field(
        None, description="vision transformers: side of a patch in pixels; null: the name's own"
    )

    @field_validator("weights")
    @classmethod
    def _safetensors_only(cls, value: str) -> str:
        if value not in ("pretrained", "none") and not value.endswith(".safetensors"):
            raise ValueError(
                f"should be pretrained, none, or a .safetensors file, got {value!r} (a pickle can run code when loaded)"
            )
        return value

    @model_validator(mode="after")
    def _only_a_linear_head_is_drawn(self) -> TimmModel:
        if self.head == "conv" and self.head_init != "own":
            raise ValueError(f"head_init: {self.head_init} is for head: linear; a convolutional one draws its own")
        return self


class ResNetModel(_Model):
    """A residual network by hyper-parameters: stages, blocks, channels, kernels, pooling."""

    source: Literal["students"]
    name: Literal["resnet"]
    blocks: Widths = Field(description="blocks of each stage")
    channels: Widths = Field(description="channels of each stage")
    strides: Widths = Field(description="stride of each stage's first block")
    kernel: PositiveInt = Field(3, description="of the stem and the blocks; odd")
    skip_kernel: PositiveInt = Field(1, description="of the projections; odd")
    skip: Literal["projection", "pad"] = Field("projection", description="pad: parameter-free, zero-padded channels")
    pre_activation: bool = Field(
        False, description="batch norm and ReLU before each convolution, as in wide residual networks"
    )
    conv_bias: bool = False
    stem_channels: PositiveInt | None = Field(None, description="null: channels[0]")
    pool: PositiveInt | None = Field(None, description="average-pool window; null: the whole map")

    @model_validator(mode="after")
    def _hyper_parameters_agree(self) -> ResNetModel:
        lengths = {"blocks": len(self.blocks), "channels": len(self.channels), "strides": len(self.strides)}
        if len(set(lengths.values())) > 1:
            stated = ", ".join(f"{name} {n}" for name, n in lengths.items())
            raise ValueError(f"blocks, channels and strides need one value a stage each, got {stated}")
        for name in ("kernel", "skip_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} should be odd, got {getattr(self, name)}")
        widths = (self.stem_channels or self.channels[0], *self.channels)
        if self.skip == "pad" and list(widths) != sorted(widths):
            raise ValueError("skip: pad can only add channels; let them grow from stage to stage")
        return self

    @model_validator(mode="after")
    def _pool_fits_the_last_map(self) -> ResNetModel:
        size = self.input_size
        for stride in self.strides:
            size = -(-size // stride)
        if self.pool is not None and self.pool > size:
            at = f"{size}x{size} at input_size {self.input_size}"
            raise ValueError(f"pool {self.pool} is larger than the last map, {at}")
        return self


class GroupedResNetModel(_Model):
    """A residual network in groups of equal width, joined by 1x1 convolutions; all convolutions with biases."""

    source: Literal["students"]
    name: Literal["grouped_resnet"]
    blocks: Widths = Field((2, 4, 4, 2), description="blocks of each group")
    channels: Widths = Field((32, 64, 128, 256), description="channels of each group")
    stem_dropout: Dropout = Field(0.3, description="of whole channels, after the stem")
    pool: PositiveInt = Field(4, description="max-pool window at the end")

    @model_validator(mode="after")
    def _lengths_agree(self) -> GroupedResNetModel:
        if len(self.blocks) != len(self.channels):
            raise ValueError(f"blocks and channels differ in length: {len(self.blocks)} and {len(self.channels)}")
        return self


class LeNetModel(_Model):
    """LeNet-5 with ReLU and max-pooling: 62,006 parameters for ten classes at 32 pixels."""

    source: Literal["students"]
    name: Literal["lenet"]


class CNNModel(_Model):
    """A plain CNN without skips or batch norm: convolutions with max-pools between them, then dense layers."""

    source: Literal["students"]
    name: Literal["cnn"]
    channels: Widths = (32, 64, 64)
    kernel: PositiveInt = Field(3, description="without padding")
    hidden: tuple[PositiveInt, ...] = Field((64,), description="sizes of the dense layers before the classifier")


class FastModel(_Model):
    """A network made to learn fast (after arXiv:2404.00498): its first filters are found from the training images."""

    source: Literal["students"]
    name: Literal["fast"]
    channels: Widths = Field((64, 256, 256), description="channels of each stage; each stage halves the map")
    convolutions: PositiveInt = Field(2, description="3x3 convolutions of each stage")
    kernel: Annotated[int, Field(ge=1, le=5)] = Field(2, description="side of the first filters")
    logit_scale: Positive = Field(0.1111111111111111, description="what the classifier's answers are multiplied by")


class VGGModel(_Model):
    """3x3 convolutions with batch norm in five stages: VGG-8 with one in each, 3,965,028 parameters for 100 classes."""

    source: Literal["students"]
    name: Literal["vgg"]
    channels: Widths = Field((64, 128, 256, 512, 512), description="channels of each stage")
    convolutions: Widths = Field((1, 1, 1, 1, 1), description="convolutions of each stage")

    @model_validator(mode="after")
    def _lengths_agree(self) -> VGGModel:
        if len(self.channels) != len(self.convolutions):
            lengths = f"{len(self.channels)} and {len(self.convolutions)}"
            raise ValueError(f"channels and convolutions differ in length: {lengths}")
        return self


class ResNet9Model(_Model):
    """ResNet-9: 6,575,370 parameters at width 64."""

    source: Literal["teachers"]
    name: Literal["resnet9"]
    width: PositiveInt = 64


class TinyModel(_Model):
    """A random network of a few thousand parameters, for tests and for trying things out."""

    source: Literal["teachers", "students"]
    name: Literal["tiny"]
    width: PositiveInt = 8
    norm: bool = Field(True, description="false: no batch norm")


class PythonModel(_Model):
    """A network of one's own: a function ``make(num_classes, **options)``. It runs with --allow-code alone."""

    source: Literal["python"]
    name: Reference = Field(
        description="MODULE:NAME, or FILE.py:NAME, from the current folder; or a name that an installed package offers"
    )
    options: OwnOptions = Field(OwnOptions(), description="further arguments of the function")
    weights: str = Field("none", description="none, or a .safetensors file; all but the classifier must fit")
    weights_prefix: str = Field("", description="what stands before each name in that file, as module.")
    code_sha256: str | None = Field(None, description="of the file that it is written in; a run states it")

    @field_validator("weights")
    @classmethod
    def _safetensors_only(cls, value: str) -> str:
        if value != "none" and not value.endswith(".safetensors"):
            raise ValueError(
                f"should be none, or a .safetensors file, got {value!r} (a pickle can run code when loaded)"
            )
        return value


def _tag(value: Any) -> str | None:
    def get(key: str) -> Any:
        return value.get(key) if isinstance(value, dict) else getattr(value, key, None)

    source = get("source")
    return source if source in ("timm", "python") else f"{source}.{get('name')}"


ModelSpec = Annotated[
    Annotated[TimmModel, Tag("timm")]
    | Annotated[PythonModel, Tag("python")]
    | Annotated[CNNModel, Tag("students.cnn")]
    | Annotated[FastModel, Tag("students.fast")]
    | Annotated[GroupedResNetModel, Tag("students.grouped_resnet")]
    | Annotated[LeNetModel, Tag("students.lenet")]
    | Annotated[ResNetModel, Tag("students.resnet")]
    | Annotated[TinyModel, Tag("students.tiny")]
    | Annotated[VGGModel, Tag("students.vgg")]
    | Annotated[ResNet9Model, Tag("teachers.resnet9")]
    | Annotated[TinyModel, Tag("teachers.tiny")],
    Discriminator(_tag),
]
