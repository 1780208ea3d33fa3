"""An ONNX classifier from any framework, asked as a teacher: its pixels, its layout and its classes as a recipe says.

A file is data: nothing outside it is read, no code of its author is run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from distill.errors import DistillError, UsageError
from distill.files import sha256_file
from distill.models.fixed_batch import ask
from distill.models.normalize import Normalize
from distill.models.onnx_metadata import FileAbout
from distill.models.onnx_open import read_model, session
from distill.recipe.schema import OnnxInput
from distill.team.watch import beat

if TYPE_CHECKING:
    import onnx
    import onnxruntime

__all__ = ["OnnxTeacher", "about_file", "open_onnx_teacher"]


@dataclass(frozen=True)
class OnnxTeacher:
    """A file that is ready to be asked.

    Attributes:
        classes: The data's, in the data's order: the columns of its answers.
        sha256: Of the file.
        size_bytes: Of the file.
        input: What the file takes.
        columns: Where each of ``classes`` is among the file's outputs.
        batch: So many images it takes at a time; None: any number.
        takes_bytes: Whether it takes uint8, and normalises itself.
    """

    path: Path
    classes: tuple[str, ...]
    sha256: str
    size_bytes: int
    input: OnnxInput
    columns: tuple[int, ...]
    batch: int | None
    takes_bytes: bool
    running: onnxruntime.InferenceSession = field(repr=False)

    @property
    def place(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def image_size(self) -> int:
        """Side of the pixels it takes; others are resized."""
        return self.input.size

    @property
    def runtime(self) -> str:
        """ONNX Runtime; in which arithmetic, its author knows."""
        return "onnxruntime fp32"

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def normalize(self) -> Normalize:
        """``(x * scale - mean) / std`` and the resize, of pixels in 0..255."""
        unit = 255.0 * self.input.scale
        mean, std = ([each / unit for each in values] for values in (self.input.mean, self.input.std))
        return Normalize((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), self.input.size)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits ``(B, C)`` float32 of pixels ``(B, 3, S, S)``, uint8 or float in 0..255, where those are."""
        beat()
        images = self._as_taken(pixels.cpu())
        count, size = len(images), self.batch or len(images)
        images = np.concatenate([images, np.zeros((-count % size, *images.shape[1:]), images.dtype)])
        name = self.running.get_inputs()[0].name
        parts = [self.running.run(None, {name: images[at : at + size]})[0] for at in range(0, len(images), size)]
        logits = np.concatenate(parts)[:count][:, list(self.columns)]
        return torch.from_numpy(np.ascontiguousarray(logits, dtype=np.float32)).to(pixels.device)

    def _as_taken(self, pixels: Tensor) -> np.ndarray:
        if self.takes_bytes:
            resized = Normalize((0.0,) * 3, (1 / 255,) * 3, self.input.size)(pixels)
            images = resized.round().clamp(0, 255).to(torch.uint8)
        else:
            images = self.normalize(pixels)
        if self.input.layout == "nhwc":
            images = images.permute(0, 2, 3, 1)
        return images.contiguous().numpy()

    def logits(self, pixels: Tensor) -> Tensor:
        """The same in one fixed batch size."""
        return ask(self, pixels)


def open_onnx_teacher(
    path: Path,
    *,
    given: OnnxInput | None,
    named: tuple[str, ...],
    classes: tuple[str, ...],
    threads: int = 1,
) -> OnnxTeacher:
    """Open a file for data of ``classes``.

    Args:
        given: What the file takes; None where it is distill's own, which says so itself.
        named: The file's classes in the order of its outputs; empty as above.

    Raises:
        UsageError: It is no ONNX file, does not say what it takes or knows, or lacks one of the classes.
        RunError: It is damaged, refers to files beside it, or needs a library of its own.
    """
    model = read_model(path)
    about = _about(model, path)
    if given is None and about is None:
        raise UsageError(
            f"{path} does not say what it takes", hint="teacher.input: {size: 224, layout: nchw, mean: ..., std: ...}"
        )
    known = named or (about.classes if about else ())
    taken = given or OnnxInput(size=about.image_size if about else 1)
    running = session(model.SerializeToString(), threads=threads, place=str(path))
    batch, takes_bytes = _input(running, taken, path)
    columns = _columns(known, classes, _outputs(running, path), path)
    digest, size = sha256_file(path), path.stat().st_size
    return OnnxTeacher(path, classes, digest, size, taken, columns, batch, takes_bytes, running)


def about_file(path: Path) -> FileAbout | None:
    """What a file of distill's own says of itself; None of any other file."""
    try:
        return _about(read_model(path), path)
    except DistillError:  # told by whoever opens it
        return None


def _about(model: onnx.ModelProto, path: Path) -> FileAbout | None:
    try:
        return FileAbout.from_metadata({each.key: each.value for each in model.metadata_props}, place=str(path))
    except DistillError:  # of somebody else: then the recipe says it
        return None


def _input(running: onnxruntime.InferenceSession, taken: OnnxInput, path: Path) -> tuple[int | None, bool]:
    """The batch size that it is bound to, and whether it takes bytes."""
    inputs = running.get_inputs()
    shape: list[Any] = list(inputs[0].shape) if len(inputs) == 1 else []
    kind = inputs[0].type if inputs else ""
    side = taken.size
    wanted = [3, side, side] if taken.layout == "nchw" else [side, side, 3]
    fits = len(shape) == 4 and all(
        not isinstance(here, int) or here == there for here, there in zip(shape[1:], wanted, strict=True)
    )
    if not fits or kind not in ("tensor(float)", "tensor(uint8)"):
        found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
        raise UsageError(
            f"{path} takes {found}, not one batch of {' x '.join(map(str, wanted))} float or uint8",
            hint="see teacher.input: size and layout",
        )
    return shape[0] if isinstance(shape[0], int) else None, kind == "tensor(uint8)"


def _outputs(running: onnxruntime.InferenceSession, path: Path) -> int | None:
    """How many classes its first output has; None where the file leaves it open."""
    shape = list(running.get_outputs()[0].shape)
    if len(shape) != 2:
        raise UsageError(f"{path}: its first output is {shape}, not logits of a batch", hint="a classifier can teach")
    return shape[1] if isinstance(shape[1], int) else None


def _columns(known: tuple[str, ...], classes: tuple[str, ...], outputs: int | None, path: Path) -> tuple[int, ...]:
    if not known:
        raise UsageError(
            f"{path} does not say which classes its {outputs or ''} outputs are",
            hint="teacher.classes lists their names in the order of its outputs",
        )
    if len(set(known)) != len(known) or (outputs is not None and outputs != len(known)):
        raise UsageError(
            f"teacher.classes: {len(set(known))} different names for the {outputs or len(known)} outputs of {path}",
            hint="one name an output, in order",
        )
    if missing := [name for name in classes if name not in known]:
        raise UsageError(
            f"{path} does not know {len(missing)} of the data's {len(classes)} classes, {missing[0]!r} among them",
            hint="teacher.classes lists the names of its outputs as the data has them",
        )
    return tuple(known.index(name) for name in classes)
