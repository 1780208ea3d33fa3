"""What happens to a training image: every augmentation of a recipe, with its settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.recipe.base import Fraction, Positive, PositiveInt, Spec

__all__ = [
    "AugmentSpec",
    "BlurSpec",
    "EraseSpec",
    "JitterSpec",
    "MixSpec",
    "RandAugmentSpec",
    "ResizedCropSpec",
    "TrivialAugmentSpec",
]


class EraseSpec(Spec):
    """Random erasing of one square (cutout, arXiv:1708.04552)."""

    size: Annotated[int, Field(ge=0, le=1024)] = Field(0, description="side of the square in pixels; 0: off")
    probability: Fraction = 1.0


class MixSpec(Spec):
    """Mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899)."""

    alpha: Annotated[float, Field(ge=0.0, le=100.0)] = Field(0.0, description="Beta(alpha, alpha); 0: off")
    probability: Fraction = 1.0


class ResizedCropSpec(Spec):
    """Area and aspect ratio drawn for each image, again where the box leaves it: torchvision's RandomResizedCrop."""

    scale: tuple[Annotated[float, Field(gt=0.0, le=1.0)], Annotated[float, Field(gt=0.0, le=1.0)]] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (0.75, 1.3333333333333333)


BlurWidth = Annotated[float, Field(gt=0.0, le=64.0)]
Strength = Annotated[float, Field(ge=0.0, le=2.0)]
Bins = Annotated[int, Field(ge=2, le=1001)]
Bare = Literal["zero", "mean"]


class JitterSpec(Spec):
    """Brightness, contrast, saturation and hue, in an order drawn for each image: torchvision's ColorJitter."""

    brightness: Strength = Field(0.0, description="factor drawn from max(0, 1 - b) to 1 + b")
    contrast: Strength = Field(0.0, description="the same, about the image's mean grey")
    saturation: Strength = Field(0.0, description="the same, about each pixel's grey")
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = Field(0.0, description="drawn from -h to h, of the whole circle")
    probability: Fraction = 1.0

    @property
    def is_on(self) -> bool:
        """Whether any image changes."""
        return self.probability > 0 and max(self.brightness, self.contrast, self.saturation, self.hue) > 0


class BlurSpec(Spec):
    """Gaussian blur, its width drawn for each image: torchvision's GaussianBlur."""

    probability: Fraction = Field(0.0, description="0: off")
    sigma: tuple[BlurWidth, BlurWidth] = Field((0.1, 2.0), description="drawn evenly between these, in pixels")
    kernel: Annotated[int, Field(ge=3, le=127)] | None = Field(
        None, description="side in pixels, odd; null: a tenth of the image's, at least 3"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> BlurSpec:
        if self.kernel is not None and self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} has no middle: use an odd number")
        if self.sigma[0] > self.sigma[1]:
            raise ValueError(f"sigma goes from small to large: [{self.sigma[1]:g}, {self.sigma[0]:g}]")
        return self

    def side(self, image_size: int) -> int:
        """The kernel's side for images of this size."""
        return self.kernel or max(3, image_size // 10 // 2 * 2 + 1)


class RandAugmentSpec(Spec):
    """RandAugment (arXiv:1909.13719): so many operations, drawn for each image, at one strength."""

    operations: Annotated[int, Field(ge=1, le=8)] = 2
    magnitude: Annotated[int, Field(ge=0, le=1000)] = Field(9, description="from 0 to bins - 1")
    bins: Bins = Field(31, description="steps from the weakest to the strongest")
    fill: Bare = Field("zero", description="what a shift or turn leaves bare: black, or the training images' mean")

    @model_validator(mode="after")
    def _is_a_bin(self) -> RandAugmentSpec:
        if self.magnitude >= self.bins:
            raise ValueError(f"magnitude {self.magnitude} is beyond the last of {self.bins} bins, {self.bins - 1}")
        return self


class TrivialAugmentSpec(Spec):
    """TrivialAugment, wide (arXiv:2103.10158): one operation and its strength, drawn for each image."""

    bins: Bins = Field(31, description="steps from the weakest to the strongest")
    fill: Bare = Field("zero", description="what a shift or turn leaves bare: black, or the training images' mean")


class AugmentSpec(Spec):
    """What happens to a training image. Every choice is planned; see docs on views."""

    crop_padding: Annotated[int, Field(ge=0, le=64)] = 0
    crop_fill: Literal["reflect", "zero"] = "reflect"
    resized_crop: ResizedCropSpec | None = None
    hflip: Fraction = 0.0
    hflip_alternates: bool = Field(
        False, description="hflip decides for an image once; from then on it turns with every view (arXiv:2404.00498)"
    )
    vflip: Fraction = 0.0
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = Field(0.0, description="degrees, drawn from -r to r")
    rand_augment: RandAugmentSpec | None = None
    trivial_augment: TrivialAugmentSpec | None = None
    jitter: JitterSpec = JitterSpec()
    grayscale: Fraction = Field(0.0, description="share of the images that lose their colours")
    blur: BlurSpec = BlurSpec()
    erase: EraseSpec = EraseSpec()
    mixup: MixSpec = MixSpec()
    cutmix: MixSpec = MixSpec()
    views: PositiveInt | Literal["all"] | None = Field(
        None,
        description="distinct views; epoch e shows view e mod views. null: one an epoch. all: crop and flip tabulated",
    )
    view_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _what_alternates_is_on(self) -> AugmentSpec:
        if self.hflip_alternates and self.hflip == 0:
            raise ValueError("hflip_alternates needs hflip: 0.5 begins with half of the images")
        return self

    @model_validator(mode="after")
    def _one_crop(self) -> AugmentSpec:
        if self.resized_crop is not None and self.crop_padding:
            raise ValueError("crop_padding and resized_crop are two ways to crop: keep one of them")
        return self

    @model_validator(mode="after")
    def _one_automatic_augmentation(self) -> AugmentSpec:
        if self.rand_augment is not None and self.trivial_augment is not None:
            raise ValueError("rand_augment and trivial_augment stand in each other's place: keep one of them")
        return self

    @property
    def automatic(self) -> RandAugmentSpec | TrivialAugmentSpec | None:
        """The automatic augmentation, of which there is one at most."""
        return self.rand_augment or self.trivial_augment

    @property
    def turned_on(self) -> dict[str, bool]:
        """Every augmentation by its key, and whether it changes any image; the other keys say how, or how often."""
        return {
            "crop_padding": self.crop_padding > 0,
            "resized_crop": self.resized_crop is not None,
            "hflip": self.hflip > 0,
            "vflip": self.vflip > 0,
            "rotation": self.rotation > 0,
            "rand_augment": self.rand_augment is not None,
            "trivial_augment": self.trivial_augment is not None,
            "jitter": self.jitter.is_on,
            "grayscale": self.grayscale > 0,
            "blur": self.blur.probability > 0,
            "erase": self.erase.size > 0,
            "mixup": self.mixup.alpha > 0,
            "cutmix": self.cutmix.alpha > 0,
        }

    @property
    def is_random(self) -> bool:
        """Whether two views of an image may differ."""
        return any(self.turned_on.values())

    @model_validator(mode="after")
    def _all_views_need_crop_and_flip_alone(self) -> AugmentSpec:
        if self.views != "all":
            return self
        others = [name for name, on in self.turned_on.items() if on and name not in ("crop_padding", "hflip")]
        if self.hflip not in (0.0, 0.5):
            others.append(f"hflip: {self.hflip:g}")
        if self.hflip_alternates:
            others.append("hflip_alternates")
        if others:
            raise ValueError(
                f"views: all tabulates crops and flips (hflip 0 or 0.5) alone: turn off {', '.join(others)}"
            )
        return self
