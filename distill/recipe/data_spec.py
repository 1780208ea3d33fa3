"""How a recipe names its images: where they are, at which size, which validate, and which have no label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from distill.files import expanded
from distill.recipe.base import PositiveInt, Spec
from distill.recipe.own import OwnOptions, Reference

__all__ = ["REST", "WITH_UNLABELLED", "DataSpec"]

REST = "rest"
WITH_UNLABELLED = ("stl10",)  # data sets that come with images without labels

# Of every data set that comes by name.
NATIVE_SIDES = {
    "cifar10": 32,
    "cifar100": 32,
    "digits": 32,
    "fashion_mnist": 28,
    "mnist": 28,
    "stl10": 96,
    "svhn": 32,
    "synthetic": 32,
    "tiny_imagenet": 64,
}


class DataSpec(Spec):
    """Which images, at which size, and how validation is carved from training."""

    name: Literal[
        "cifar10",
        "cifar100",
        "digits",
        "fashion_mnist",
        "folder",
        "hf",
        "mnist",
        "python",
        "stl10",
        "svhn",
        "synthetic",
        "tiny_imagenet",
    ]
    code: Reference | None = Field(
        None,
        description="python: what gives the images: MODULE:NAME, FILE.py:NAME, or a package's name for it",
    )
    options: OwnOptions = Field(OwnOptions(), description="python: arguments of that function; hf: path and others")
    code_sha256: str | None = Field(None, description="of the file that it is written in; a run states it")
    root: str = Field("data", description="the folder that holds it (folder: the data set itself, or its archive)")
    image_size: Annotated[int, Field(ge=8, le=1024)] | Literal["auto"] = Field(
        "auto", description="side in pixels at which images are kept; auto: the pictures', at most what the model takes"
    )
    val_fraction: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.1, description="0: train on all, keep the last epoch"
    )
    split_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    test_fraction: Annotated[float, Field(gt=0.0, le=0.5)] = Field(
        0.2, description="a folder or code without test images: this share of each class is set aside for testing"
    )
    limit: PositiveInt | None = Field(None, description="a fixed, class-balanced subset of the training images")
    test_limit: PositiveInt | None = Field(None, description="the same for the test images")
    unlabelled: str | None = Field(
        None,
        description="images without labels, which the teacher alone teaches: a folder of pictures, however deep; or "
        "rest: the training images that limit leaves out, and those without labels that stl10 comes with",
    )
    unlabelled_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="of each batch, of data.unlabelled; the rest is labelled"
    )
    skip_bad: bool = Field(False, description="go on without unreadable images; they are counted in run.json")
    decoded: Literal["auto", "kept", "per_batch"] = Field(
        "auto", description="folder: kept on the disk, or decoded anew for every batch; auto: kept where there is room"
    )

    @model_validator(mode="after")
    def _code_is_for_python(self) -> DataSpec:
        if self.name == "python" and self.code is None:
            raise ValueError("name: python needs code: MODULE:NAME, or FILE.py:NAME, of a function that gives images")
        if self.name != "python" and self.code is not None:
            raise ValueError(f"code is for name: python, and name is {self.name}")
        if self.name not in ("python", "hf") and self.options.values:
            raise ValueError(f"options are for name: python and hf, and name is {self.name}")
        return self

    @model_validator(mode="after")
    def _rest_is_of_a_limit(self) -> DataSpec:
        if self.unlabelled == REST and self.limit is None and self.name not in WITH_UNLABELLED:
            raise ValueError(f"unlabelled: {REST} is what limit leaves out, and there is no limit")
        return self

    @property
    def is_found_out(self) -> bool:
        """Whether classes, splits and sizes are known only by a look at the images themselves."""
        return self.name in ("folder", "python", "hf")

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return self.code or str(self.options.values.get("path", self.root))

    @property
    def title(self) -> str:
        """What tables call it: a public data set's name; of one's own images the folder's, the hub's or the code's."""
        if self.name == "folder":
            return expanded(self.root).resolve().name or self.root
        if not self.is_found_out:
            return self.name
        return Path(urlsplit(self.place).path).name if "://" in self.place else self.place

    @property
    def side(self) -> int:
        """``image_size`` in pixels. ``auto`` of what is found out must have been settled: by pictures and model."""
        if self.image_size == "auto":
            assert not self.is_found_out, "data.image_size: auto was not settled"
            return NATIVE_SIDES[self.name]
        return self.image_size
