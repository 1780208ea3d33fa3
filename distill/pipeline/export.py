"""A finished run to a file that classifies without PyTorch."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import distill
from distill.compression.parity import check_parity
from distill.compression.results import Exported, Format
from distill.data.images import evenly_spaced_positions
from distill.data.splits import Splits, load_splits
from distill.errors import UsageError
from distill.evaluation.calibrate import temperature_of
from distill.evaluation.cost import model_cost
from distill.evaluation.target import evaluation_target
from distill.events import Note
from distill.files import in_the_way, write_export
from distill.models.deployed import Deployed
from distill.models.onnx_metadata import FileAbout
from distill.models.onnx_open import session
from distill.models.onnx_write import INPUT, OPSET, OUTPUT, export_program, to_onnx, write_onnx
from distill.models.trained import Trained, load_trained
from distill.pipeline.context import Options, in_asked_threads
from distill.pipeline.export_timm import require_timm, timm_target, write_timm
from distill.recipe import dump_recipe
from distill.runs import open_run
from distill.team.watch import watching, with_heartbeat

__all__ = ["about_run", "deployed", "export", "parity_images", "target_file"]

_SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
_PARITY_IMAGES = 512
_BATCH = 64


@watching()
@in_asked_threads
def export(
    reference: Any,
    *,
    to: Format = "onnx",
    out: str | Path | None = None,
    calibrated: bool = False,
    overwrite: bool = False,
    options: Options | None = None,
) -> Exported:
    """Write a run's network as one file: uint8 images in, logits out, any batch size.

    Before the file appears, it must match the network on 512 validation images (training images where there are none):
    no predicted class changes except for ties, logits within 1e-4 of the largest.

    Args:
        to: ``onnx``, or ``torch`` for a ``torch.export`` program (``.pt2``); ``timm`` for a folder that timm opens, for
            a timm network.
        out: The file; None: ``exports/<recipe>.onnx`` or ``.pt2``, or the folder ``exports/<recipe>_timm``.
        calibrated: Divide the logits, in the file, by the temperature fitted on the run's validation images; it
            is fitted now where none is stored.
        overwrite: Replace an existing file.

    Raises:
        UsageError: The network cannot be exported, or the file already exists.
        DataError: ``calibrated`` is set, but the run has no validation images.
        RunError: The file does not match the network: none was written.

    Example:
        >>> export("quickstart_student").file.name
        'quickstart_student.onnx'
    """
    options = options or Options()
    run = open_run(reference, runs_dir=options.runs_dir)
    name = run.recipe().name
    path = (
        timm_target(out, name, overwrite=overwrite)
        if to == "timm"
        else target_file(out, name, _SUFFIX[to], overwrite=overwrite)
    )
    trained = load_trained(run, device=torch.device("cpu"), precision="fp32")
    if to == "timm":
        require_timm(trained, calibrated=calibrated)
    temperature = None
    if calibrated:
        temperature = temperature_of(evaluation_target(run, device=trained.device), tell=options.tell).value
    pixels, split = parity_images(load_splits(trained.recipe.data, options.tell))
    options.tell(Note(f"exporting {run.path}"))
    expected = _in_batches(lambda batch: trained(batch).numpy(), pixels) / np.float32(temperature or 1.0)
    if to == "timm":
        parity = write_timm(trained, path, pixels, expected, split=split)
    else:
        answer, write = (_as_onnx if to == "onnx" else _as_program)(trained, temperature)
        parity = check_parity(expected, answer(pixels), split=split)
        parity.require(str(path))
        write(path)
    return Exported(
        file=path,
        run=run.path,
        format=to,
        runtime="onnxruntime fp32" if to == "onnx" else "torch fp32",
        size_mb=sum(each.stat().st_size for each in (path.iterdir() if path.is_dir() else [path])) / 1e6,
        opset=OPSET if to == "onnx" else None,
        parity=parity,
        temperature=temperature,
    )


def target_file(out: str | Path | None, name: str, suffix: str, *, overwrite: bool) -> Path:
    """Where an export goes.

    Raises:
        UsageError: Its name ends otherwise, or something is there.
    """
    path = Path("exports") / f"{name}{suffix}" if out is None else Path(out)
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint=f"name a file: --out {path / (name + suffix)}")
    if path.suffix != suffix:
        raise UsageError(f"{path}: such a file's name ends in {suffix}", hint=f"--out {path.with_suffix(suffix)}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there", hint="another name with --out, or --overwrite")
    if above := in_the_way(path):
        raise UsageError(f"{path}: {above} is no folder", hint="another place with --out")
    return path


def parity_images(splits: Splits) -> tuple[np.ndarray, str]:
    """Images that a file is checked on, ``(N, 3, S, S)`` uint8, spread over the split, and which split that is."""
    part, name = (splits.train, "train") if splits.val is None else (splits.val, "val")
    return part.take(evenly_spaced_positions(len(part), _PARITY_IMAGES)), name


def deployed(trained: Trained, temperature: float | None = None) -> Deployed:
    """A run's network as it ships, contiguous and in fp32 on the CPU; its logits divided by a temperature, if one."""
    network = trained.module.to(memory_format=torch.contiguous_format)
    side = trained.recipe.data.side
    return Deployed(network, trained.normalize, image_size=side, temperature=temperature).eval()


def about_run(trained: Trained, temperature: float | None = None) -> FileAbout:
    """What an exported file says of the run."""
    cost = model_cost(trained.module, trained.normalize.input_size)
    return FileAbout(
        name=trained.recipe.name,
        role=trained.recipe.role,
        classes=trained.classes,
        image_size=trained.recipe.data.side,
        weights_sha256=trained.sha256,
        recipe=dump_recipe(trained.recipe),
        params=cost.params,
        gmacs=cost.macs / 1e9,
        version=distill.__version__,
        temperature=temperature,
        trained_on=trained.run.info.trained_on or "",
    )


_Answer = Callable[[np.ndarray], np.ndarray]


def _as_onnx(trained: Trained, temperature: float | None) -> tuple[_Answer, Callable[[Path], None]]:
    model = to_onnx(deployed(trained, temperature), about_run(trained, temperature))
    running = session(model.SerializeToString(), threads=1, place=trained.recipe.name)
    return (
        lambda pixels: _in_batches(lambda batch: running.run([OUTPUT], {INPUT: batch.numpy()})[0], pixels),
        lambda path: write_onnx(model, path),
    )


def _as_program(trained: Trained, temperature: float | None) -> tuple[_Answer, Callable[[Path], None]]:
    program = export_program(deployed(trained, temperature), trained.recipe.name)
    module, about = program.module(), about_run(trained, temperature).to_metadata()

    def answer(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return _in_batches(lambda batch: module(batch).numpy(), pixels)

    def write(path: Path) -> None:
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files=about)
        write_export(path, buffer.getvalue())

    return answer, write


def _in_batches(forward: Callable[[torch.Tensor], np.ndarray], pixels: np.ndarray) -> np.ndarray:
    images = torch.from_numpy(pixels)
    return np.concatenate([forward(batch) for batch in with_heartbeat(images.split(_BATCH))])
