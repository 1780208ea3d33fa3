"""A finished run's network as a folder that timm itself opens: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from distill.compression.parity import Parity, check_parity
from distill.data.atomic_folder import atomic_folder
from distill.errors import UsageError
from distill.models.timm_folder import CONFIG, WEIGHTS, open_timm_folder, write_timm_folder
from distill.models.trained import Trained
from distill.recipe.model_specs import TimmModel

__all__ = ["require_timm", "timm_target", "write_timm"]


def require_timm(trained: Trained, *, calibrated: bool = False) -> None:
    """Refuse a network that timm cannot build again, and what a folder of weights cannot say.

    Raises:
        UsageError: Says what is not timm's about it.
    """
    spec = trained.recipe.model
    if not isinstance(spec, TimmModel):
        raise UsageError(
            f"{trained.recipe.name} is no network of timm's (source: {spec.source})",
            hint="--to onnx writes any network",
        )
    if calibrated:
        raise UsageError("--calibrated: timm's folder has no place for a temperature", hint="--to onnx has one")
    changed = {
        "stem: cifar": spec.stem == "cifar",
        "head: conv": spec.head == "conv",
        "cut channels": bool(spec.widths),
        "a teacher's classifier": spec.reuse is not None,
    }
    if told := [name for name, is_so in changed.items() if is_so]:
        raise UsageError(
            f"{trained.recipe.name} is not as timm builds it: {', '.join(told)}", hint="--to onnx writes any network"
        )


def timm_target(out: str | Path | None, name: str, *, overwrite: bool) -> Path:
    """Where the folder goes.

    Raises:
        UsageError: Something else is there.
    """
    path = Path("exports") / f"{name}_timm" if out is None else Path(out)
    if not path.exists():
        return path
    if not path.is_dir():
        raise UsageError(f"{path} is a file", hint="timm opens a folder: another name with --out")
    if not overwrite and any(path.iterdir()):
        raise UsageError(f"{path} is there", hint="another name with --out, or --overwrite")
    _refuse_others_files(path)
    return path


def _refuse_others_files(folder: Path) -> None:
    """Refuse to replace a folder that holds more than an export: nobody else has what would go with it."""
    entries = sorted(folder.iterdir())
    foreign = [each.name for each in entries if each.name not in (CONFIG, WEIGHTS) or not each.is_file()]
    if foreign or (entries and not (folder / CONFIG).is_file()):
        what = f": {', '.join(foreign[:3])}{', ...' if foreign[3:] else ''}" if foreign else ""
        raise UsageError(
            f"{folder} holds something else than a network of timm's{what}", hint="another name with --out"
        )


def write_timm(trained: Trained, folder: Path, pixels: np.ndarray, expected: np.ndarray, *, split: str) -> Parity:
    """Write the folder aside, let timm open it and answer, and put it in its place.

    Shapes:
        pixels: ``(N, 3, S, S)`` uint8; expected: ``(N, C)``, the network's answers.

    Raises:
        RunError: It does not answer as the network: none was written.
        UsageError: Something was put into the folder meanwhile that is no export's; it is as it was.
    """
    place = folder.resolve()  # where a link stands for it, the link stays
    with atomic_folder(place) as aside:
        write_timm_folder(trained.module, aside, normalize=trained.normalize, classes=trained.classes)
        parity = check_parity(expected, open_timm_folder(aside, trained.normalize, pixels), split=split)
        parity.require(str(folder))
        _put(aside, place)
    return parity


def _put(aside: Path, place: Path) -> None:
    """Rename a whole folder into its place; what was there goes once the new one is there, and not before."""
    if not place.exists():
        os.rename(aside, place)
        return
    _refuse_others_files(place)
    replaced = aside.with_suffix(".replaced")
    os.rename(place, replaced)
    try:
        os.rename(aside, place)
    except BaseException:
        os.rename(replaced, place)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
