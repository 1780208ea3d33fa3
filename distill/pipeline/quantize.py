"""A finished run to an int8 file that lost no more than it may."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from distill.compression.choose import Int8Selection, LabelledImages, choose_int8, onnx_logits
from distill.compression.parity import check_parity
from distill.compression.quantize import record_allowed_drop
from distill.compression.results import Quantized
from distill.data.images import evenly_spaced_positions
from distill.data.splits import Splits, load_splits
from distill.errors import GateMissedError, UsageError
from distill.evaluation.askable import refuse_drawn_anew
from distill.evaluation.correct import correct
from distill.evaluation.drop import can_be_shown, images_to_show
from distill.events import Note
from distill.models.onnx_write import to_onnx, write_onnx
from distill.models.trained import Trained, load_trained
from distill.pipeline.cautions import of_reference
from distill.pipeline.context import Options
from distill.pipeline.export import about_run, deployed, target_file
from distill.pipeline.qat import train_quantised
from distill.recipe import Recipe
from distill.report.verdict import drop_words
from distill.runs import open_run
from distill.team.watch import watching
from distill.text import count

if TYPE_CHECKING:
    import onnx

__all__ = ["check_drop", "quantize"]

_CALIBRATION_IMAGES = 512
_JUDGED_MOST = 10_000  # of images that a run was trained on, where it has no others: more would tell little more


@watching()
def quantize(
    reference: Any,
    *,
    max_drop: float = 0.003,
    prove: bool = False,
    against: Any = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    calibration_images: int = _CALIBRATION_IMAGES,
    train: bool = True,
    epochs: int | None = None,
    options: Options | None = None,
) -> Quantized:
    """Write a run's network as an int8 ONNX file.

    Ranges come from training images, the decision from validation images; the test set is not read. The fastest
    kernels on this processor are found by timing. Where plain calibration loses too much, more careful methods follow,
    then quantisation-aware training, with the teacher and the bank that the network had.

    Args:
        max_drop: The most top-1 that may be lost, a fraction.
        prove: Judge by the upper end of the paired 95% interval instead of the estimate.
        against: The run that the loss is measured against, such as the one it was cut from; None: the run itself.
        out: The file; None: ``exports/<recipe>_int8.onnx``.
        calibration_images: How many training images set the ranges.
        train: False: give up where no calibration is good enough.
        epochs: Epochs of further training; None: a tenth of the run's. That is a run of its own, ``<recipe>_qat``; if
            it is stopped, the same call resumes it.

    Raises:
        GateMissedError: Everything that was tried lost more; no file was written.
        UsageError: The network cannot be exported, or the file already exists.

    Example:
        >>> quantize("quickstart_student", max_drop=0.99).file.name  # 0.003 is the default
        'quickstart_student_int8.onnx'
    """
    options = options or Options()
    check_drop(max_drop)
    if calibration_images < 1:
        raise UsageError(f"{calibration_images} calibration images", hint="some hundreds do")
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs {epochs} is too few", hint="--no-train gives up instead")
    if epochs is not None and not train:
        raise UsageError("--epochs with --no-train: nothing is trained", hint="one of them")
    threads = options.timing_threads or 1
    run = open_run(reference, runs_dir=options.runs_dir)
    path = target_file(out, f"{run.recipe().name}_int8", ".onnx", overwrite=overwrite)
    trained = load_trained(run, device=torch.device("cpu"), precision="fp32")
    splits = load_splits(trained.recipe.data, options.tell)
    refuse_drawn_anew(splits, "val", trained.recipe.data, str(run.path), run.info.trained_on)
    options.tell(Note(f"exporting {run.path}"))
    judged = _judged(splits, options.tell)
    model, right = _checked(trained, judged)
    choose = partial(
        choose_int8,
        calibration=splits.train.take(evenly_spaced_positions(len(splits.train), calibration_images)),
        judged=judged,
        allowed=max_drop,
        prove=prove,
        threads=threads,
        enlarged=trained.recipe.model.input_size > trained.image_size,
        reference=right if against is None else _right(against, trained, judged, splits, options),
        tell=lambda text: options.tell(Note(text)),
    )
    choice, finetuned = choose(model), None
    if choice.model is None and train and _may_help(trained.recipe, judged, max_drop, prove, options.tell):
        finetuned = train_quantised(run, trained, epochs=epochs, options=options)
        model, _ = _checked(load_trained(finetuned, device=torch.device("cpu"), precision="fp32"), judged)
        choice = _after(choice, choose(model))
    kept, latency = _require(choice, run.path, judged)
    if against is None:
        record_allowed_drop(kept, max_drop=max_drop, prove=prove)
    write_onnx(kept, path)
    attempt = next(each for each in choice.attempts if each.kept)
    return Quantized(
        file=path,
        run=run.path,
        trained=None if finetuned is None else finetuned.path,
        scheme=attempt.scheme,
        runtime="onnxruntime int8",
        size_mb=path.stat().st_size / 1e6,
        fp32_size_mb=model.ByteSize() / 1e6,
        split=judged.split,
        calibration_images=min(calibration_images, len(splits.train)),
        latency_b1_ms=attempt.latency_b1_ms or 0.0,
        fp32_latency_b1_ms=latency,
        threads=threads,
        attempts=choice.attempts,
    )


def _may_help(
    recipe: Recipe, judged: LabelledImages, max_drop: float, prove: bool, tell: Callable[[Note], None]
) -> bool:
    """Whether quantisation-aware training may help: not once more, nor where no loss is small enough to be shown."""
    if recipe.train.fake_quantize is not None:
        tell(Note("it is of quantisation-aware training already, and is not trained on"))
        return False
    if prove and not can_be_shown(len(judged.labels), max_drop):
        tell(Note("not trained on: of so few images not even equal answers would show it"))
        return False
    return True


def _after(before: Int8Selection, choice: Int8Selection) -> Int8Selection:
    """What came of the network that was trained on, with what had been tried before."""
    trained = tuple(replace(each, trained=True) for each in choice.attempts)
    return replace(choice, attempts=(*before.attempts, *trained))


def check_drop(max_drop: float) -> None:
    """Refuse what is no share of images.

    Raises:
        UsageError: It is not.
    """
    if not 0 <= max_drop < 1:
        raise UsageError(f"--max-drop {max_drop:g} is no fraction below 1", hint="three tenths of a point: 0.003")


def _judged(splits: Splits, tell: Callable[[Note], None]) -> LabelledImages:
    if splits.val is not None:
        return LabelledImages(splits.val.take(slice(None)), np.asarray(splits.val.labels), "val")
    tell(Note("this run has no validation images: files are judged on images it was trained on", "warning"))
    part = splits.train
    chosen = evenly_spaced_positions(len(part), _JUDGED_MOST)  # of every class
    return LabelledImages(part.take(chosen), np.asarray(part.labels)[chosen], "train")


def _checked(trained: Trained, judged: LabelledImages) -> tuple[onnx.ModelProto, np.ndarray]:
    """The fp32 graph, which answers the judged images as the network does, and which it gets right, ``(N,)`` bool."""
    model = to_onnx(deployed(trained), about_run(trained))
    answers = onnx_logits(model, judged.pixels)
    check_parity(_answers(trained, judged.pixels), answers, split=judged.split).require("the exported graph")
    return model, correct(answers, judged.labels)


def _right(against: Any, trained: Trained, judged: LabelledImages, splits: Splits, options: Options) -> np.ndarray:
    """Which of the judged images another run answers right, ``(N,)`` bool."""
    run = open_run(against, runs_dir=options.runs_dir)
    for line in of_reference(run, trained.recipe.data, splits):
        options.tell(Note(line, "warning"))
    other = load_trained(run, device=torch.device("cpu"), precision="fp32")
    if (other.classes, other.image_size) != (trained.classes, trained.image_size):
        raise UsageError(
            f"{other.place} and {trained.place} know different classes, or images of another size",
            hint="a loss is measured against a run of the same data",
        )
    return correct(_answers(other, judged.pixels), judged.labels)


def _answers(trained: Trained, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([trained(batch) for batch in torch.from_numpy(pixels).split(64)]).numpy()


def _require(choice: Int8Selection, run: Path, judged: LabelledImages) -> tuple[onnx.ModelProto, float]:
    if choice.model is not None:
        assert choice.fp32_latency_b1_ms is not None
        return choice.model, choice.fp32_latency_b1_ms
    best = min(choice.attempts, key=lambda each: each.drop.decisive)
    drop = best.drop
    message = (
        f"{run}: no int8 file is {'shown' if drop.prove else 'found'} to lose at most {100 * drop.allowed:g} points; "
        f"the best ({best.scheme}) {drop_words(drop)}; no file was written"
    )
    hint = f"allow more: --max-drop {math.ceil(1000 * drop.decisive) / 1000:g}; or "
    if drop.prove and not can_be_shown(len(judged.labels), drop.allowed):
        enough = images_to_show(drop.allowed)
        message += "" if enough is None else f"; {count(enough)} images, answered alike, would show it"
        hint += "judge by more validation images: data.val_fraction"
    else:
        hint += "train with fewer outliers: weight decay, no very large learning rate"
    raise GateMissedError(message, hint=hint)
