"""timm's own checkpoints as folders: ``config.json`` and ``model.safetensors``, local or on the Hugging Face hub."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from distill.errors import DataError, MissingError, UsageError
from distill.files import expanded, read_json
from distill.models.normalize import Normalize
from distill.recipe.model_specs import ModelSpec, NormalizeSpec, TimmModel
from distill.text import first_line

__all__ = ["CONFIG", "WEIGHTS", "open_timm_folder", "resolve_timm", "write_timm_folder"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_HUB, _LOCAL = "hf-hub:", "local-dir:"
_SAID_ELSEWHERE = {"num_classes", "in_chans", "drop_rate", "img_size", "patch_size", "input_size", "pretrained_strict"}


def resolve_timm(spec: ModelSpec) -> ModelSpec:
    """A timm model whose name is a folder or a repository of the hub, as the architecture and weights that it holds.

    Others are returned as they are. What the repository is asked for is kept by huggingface_hub.

    Raises:
        MissingError: There is no such folder or repository, or the hub cannot be reached.
        DataError: Its ``config.json`` is none of timm's.
        UsageError: It is built with options that a recipe has not.
    """
    if not isinstance(spec, TimmModel) or not spec.name.startswith((_HUB, _LOCAL)):
        return spec
    folder = expanded(spec.name.removeprefix(_LOCAL)) if spec.name.startswith(_LOCAL) else _fetched(spec.name)
    return spec.model_copy(update=_settings(spec, folder, _config(folder)))


def _settings(spec: TimmModel, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    arguments, pretrained = config.get("model_args") or {}, config.get("pretrained_cfg") or config
    usual = _usual_arguments(config["architecture"])
    given = {name: value for name, value in arguments.items() if name not in _SAID_ELSEWHERE and value is not None}
    if other := sorted(name for name, value in given.items() if value != usual.get(name)):
        raise UsageError(
            f"model.name: {spec.name} is built with {', '.join(other)}, which a recipe does not have",
            hint="make it with a function of your own: model: {source: python, ...}",
        )
    found: dict[str, Any] = {"name": config["architecture"]}
    if spec.weights == "pretrained":
        found["weights"] = str((folder / WEIGHTS).resolve())
    if spec.patch_size is None and isinstance(arguments.get("patch_size"), int):
        found["patch_size"] = arguments["patch_size"]
    if spec.normalize == "auto" and "mean" in pretrained and "std" in pretrained:
        found["normalize"] = NormalizeSpec(mean=tuple(pretrained["mean"]), std=tuple(pretrained["std"]))
    return found


@functools.lru_cache(maxsize=8)
def _usual_arguments(architecture: str) -> dict[str, Any]:
    """What timm writes of a network that was built without options."""
    import timm
    from timm.models._hub import save_config_for_hf  # what save_for_hf calls; it has no public name of its own

    try:
        with torch.device("meta"), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / CONFIG
            save_config_for_hf(timm.create_model(architecture), str(path))
            return dict(read_json(path).get("model_args") or {})
    except RuntimeError as error:
        raise UsageError(f"model.name: timm has no model {architecture!r}") from error


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = read_json(path, error=DataError)
    except DataError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise MissingError(
            f"model.name: {folder} has no {CONFIG}", hint=f"a folder of timm's holds {CONFIG} and {WEIGHTS}"
        ) from error
    if not isinstance(config.get("architecture"), str):
        raise DataError(f"{path} names no architecture: it is none of timm's")
    if not (folder / WEIGHTS).is_file():
        raise MissingError(
            f"model.name: {folder} has no {WEIGHTS}", hint="weights that are pickles are not read: save them anew"
        )
    return config


@functools.lru_cache(maxsize=8)
def _fetched(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repository, _, revision = name.removeprefix(_HUB).partition("@")
    try:
        paths = [hf_hub_download(repository, each, revision=revision or None) for each in (CONFIG, WEIGHTS)]
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise MissingError(
            f"model.name: {name} could not be fetched ({first_line(error)})",
            hint=f"download it elsewhere and name the folder: model.name={_LOCAL}FOLDER ({CONFIG}, {WEIGHTS})",
        ) from error
    return Path(paths[0]).parent


def write_timm_folder(module: nn.Module, folder: Path, *, normalize: Normalize, classes: tuple[str, ...]) -> None:
    """Write a network that timm built as timm writes it, with the classes' names and what it expects of pixels.

    Args:
        folder: It is there and empty.
    """
    from timm.models import save_for_hf

    side = normalize.input_size
    expects = {
        "input_size": (3, side, side), "mean": normalize.mean, "std": normalize.std, "interpolation": "bilinear",
        "crop_pct": 1.0,
    }  # fmt: skip
    save_for_hf(
        module.to(memory_format=torch.contiguous_format),  # safetensors keeps no other
        str(folder),
        model_config={"label_names": list(classes)},
        safe_serialization=True,
        data_config=expects,
    )


def open_timm_folder(folder: Path, normalize: Normalize, pixels: np.ndarray) -> np.ndarray:
    """What timm makes of such a folder answers to these images: logits ``(N, C)``.

    Shapes:
        pixels: ``(N, 3, S, S)`` uint8.
    """
    import timm

    module = timm.create_model(f"{_LOCAL}{folder}", pretrained=True).eval()
    with torch.no_grad():
        return np.concatenate([module(normalize(batch)).numpy() for batch in torch.from_numpy(pixels).split(64)])
