"""``distill kit``: a folder that measures a file on a machine which has neither PyTorch nor distill."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

import distill.devices.kit_script
from distill.data.images import evenly_spaced_positions
from distill.devices.kit_script import IMAGES, MANIFEST, REPORT
from distill.errors import UsageError
from distill.evaluation.askable import refuse_drawn_anew, require_classes
from distill.evaluation.assess import DatasetCache
from distill.evaluation.finite import require_finite
from distill.events import Note, Tell
from distill.files import sha256_file, write_atomically, write_json
from distill.models.onnx_open import OnnxClassifier, open_onnx
from distill.pipeline.context import Options
from distill.recipe import parse_recipe
from distill.references import run_of
from distill.results.device import Packed
from distill.team.watch import watching

__all__ = ["Kit", "write_kit"]

_SCRIPT, _READ_ME = "measure.py", "README.txt"
_MAX_IMAGES = 20_000  # images: a kit is copied to small machines


@dataclass(frozen=True)
class Kit:
    """A kit that was written."""

    folder: Path
    file: Path
    images: int
    size_mb: float

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill kit --json`` prints."""
        return asdict(self) | {"folder": str(self.folder), "file": str(self.file)}


@watching()
def write_kit(
    reference: Any, out: str | Path, *, images: int = 500, overwrite: bool = False, options: Options | None = None
) -> Kit:
    """Pack an exported file with test images and a script that measures it with numpy and onnxruntime alone.

    On another machine, ``python OUT/measure.py`` writes ``device.json``, which ``distill compare --measured`` reads.

    Args:
        images: How many test images, spread over all; their labels and the file's own predictions are included.
        overwrite: Write into a folder that already holds a kit.

    Raises:
        UsageError: ``out`` already holds something, or there is no such file.
        RunError: Some logits of the file are NaN or infinite.
        DataError: The data has other classes, or its test images may include some that the network was trained on.
        DistillError: The images are missing.

    Example:
        >>> write_kit("exports/quickstart_student.onnx", "kit", images=20).images
        20
    """
    options, folder = options or Options(), Path(out)
    if not 1 <= images <= _MAX_IMAGES:
        raise UsageError(f"--images {images}: between 1 and {_MAX_IMAGES:,}", hint="some hundreds do")
    file = open_onnx(run_of(reference))
    _check_folder(folder, overwrite=overwrite)
    recipe = parse_recipe(file.about.recipe, source=f"{file.place} (the recipe in it)")
    data = DatasetCache()
    test, splits = data.part(recipe.data, "test", file.place), data.load(recipe.data)
    refuse_drawn_anew(splits, "test", recipe.data, file.place, file.about.trained_on or None)
    require_classes(splits, recipe.data, file)
    at = evenly_spaced_positions(len(test), images)
    pixels, labels = test.take(at), np.asarray(test.labels)[at]
    options.tell(Note(f"packing {len(at):,} test images of {recipe.data.title}"))
    logits = file.logits(torch.from_numpy(pixels))
    require_finite(logits, file.place)
    answers = logits.numpy().argmax(1)
    packed = io.BytesIO()
    np.savez_compressed(packed, pixels=pixels, labels=labels, answers=answers)
    model = folder / file.path.name
    write_atomically(model, file.path.read_bytes())
    _remove_earlier(folder, model.name, options.tell)
    write_atomically(folder / IMAGES, packed.getvalue())
    write_atomically(folder / _SCRIPT, Path(distill.devices.kit_script.__file__).read_bytes())
    write_atomically(folder / _READ_ME, _read_me(file, len(at)))
    write_json(folder / MANIFEST, _manifest(file, folder, recipe.data.title, len(test)).model_dump(mode="json"))
    size = sum(each.stat().st_size for each in folder.iterdir() if each.is_file())
    return Kit(folder, file.path, len(at), size / 1e6)


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists() or (overwrite and (folder / MANIFEST).is_file()):
        return
    if folder.is_dir() and all(overwrite and _is_of_a_kit(path) for path in folder.iterdir()):  # true of an empty one
        return
    raise UsageError(f"{folder} is there", hint="another folder, or --overwrite where it holds a kit")


def _is_of_a_kit(path: Path) -> bool:
    """By its name: a kit that was stopped while it was written has no manifest yet."""
    known = (MANIFEST, IMAGES, REPORT, _SCRIPT, _READ_ME, "__pycache__")
    return path.name in known or path.suffix in (".onnx", ".partial")


def _remove_earlier(folder: Path, model: str, tell: Tell) -> None:
    """Remove what was measured of the kit before, and its model where that had another name."""
    if not (folder / MANIFEST).is_file():
        return
    gone = [folder / REPORT]
    with suppress(OSError, ValidationError):
        name = Packed.model_validate_json((folder / MANIFEST).read_bytes()).file
        gone += [folder / Path(name).name] if name != model else []
    for path in gone:
        if path.is_file():
            path.unlink()
            tell(Note(f"removed {path}: it was of the kit before"))


def _manifest(file: OnnxClassifier, folder: Path, dataset: str, test_images: int) -> Packed:
    about = file.about
    return Packed(
        kit=1,
        file=file.path.name,
        sha256=file.sha256,
        images_sha256=sha256_file(folder / IMAGES),
        runtime=file.runtime,
        role=about.role,
        recipe=about.name,
        dataset=dataset,
        test_images=test_images,
        classes=about.classes,
        params=about.params,
        gmacs=about.gmacs,
        size_mb=file.size_bytes / 1e6,
        version=about.version,
    )


def _read_me(file: OnnxClassifier, images: int) -> str:
    return (
        f"{file.path.name} with {images} test images, to be measured on this machine.\n\n"
        "    python -m pip install numpy onnxruntime\n"
        f"    python {_SCRIPT} --threads 1 --name board\n\n"
        "It prints accuracy, latency and the machine, and writes device.json. Where distill is:\n\n"
        "    distill compare FILE.onnx --measured device.json\n"
    )
