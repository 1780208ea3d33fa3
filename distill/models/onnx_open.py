"""Exported files as classifiers, run by ONNX Runtime. A file is data: nothing outside it is read, no code is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from distill.errors import RunError, UsageError
from distill.files import sha256_file
from distill.models.onnx_metadata import FileAbout
from distill.models.onnx_write import INPUT, OUTPUT
from distill.team.watch import with_heartbeat

if TYPE_CHECKING:
    import onnx
    import onnxruntime

__all__ = ["OnnxClassifier", "is_exported_file", "on_bytes", "open_onnx", "read_model", "session"]

_BATCH = 64
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")  # of operations: others would need somebody's library
_MAX_BYTES = 2 << 30  # of a file: what a protobuf can hold


def is_exported_file(reference: str | Path) -> bool:
    """Whether a reference means an exported file and not a run."""
    return str(reference).lower().endswith((".onnx", ".pt2"))


@dataclass(frozen=True)
class OnnxClassifier:
    """An exported file that is ready to be asked.

    Attributes:
        sha256: Of the file.
        size_bytes: Of the file.
    """

    path: Path
    about: FileAbout
    sha256: str
    size_bytes: int
    run: onnxruntime.InferenceSession = field(repr=False)

    @property
    def place(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def name(self) -> str:
        """The file's name without its ending: one run may have left several files."""
        return self.path.stem

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return self.about.classes

    @property
    def image_size(self) -> int:
        """Side of the pixels it takes."""
        return self.about.image_size

    @property
    def runtime(self) -> str:
        """``onnxruntime fp32`` or ``onnxruntime int8``."""
        return f"onnxruntime {self.about.arithmetic}"

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def to_time(self) -> Callable[[Tensor], Any]:
        """Its forward pass on bytes of its own, of as many images as it is handed."""
        return on_bytes(self.run, self.image_size)

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits ``(N, C)`` float32 of pixels ``(N, 3, S, S)`` uint8."""
        images = np.ascontiguousarray(pixels.cpu().numpy())
        starts = with_heartbeat(range(0, len(images), _BATCH))
        parts = [self.run.run([OUTPUT], {INPUT: images[at : at + _BATCH]})[0] for at in starts]
        return torch.from_numpy(np.concatenate(parts))


def open_onnx(path: str | Path, *, threads: int = 1) -> OnnxClassifier:
    """Open an exported file.

    Args:
        threads: Of one operation. They do not spin between calls.

    Raises:
        UsageError: It is no ONNX file.
        RunError: It is damaged, refers to files beside it, needs a library of its own, or is not distill's.
    """
    path = Path(path)
    model = read_model(path)
    about = FileAbout.from_metadata({each.key: each.value for each in model.metadata_props}, place=str(path))
    running = session(model.SerializeToString(), threads=threads, place=str(path))
    _check_signature(running, about, str(path))
    return OnnxClassifier(path, about, sha256_file(path), path.stat().st_size, running)


def read_model(path: Path) -> onnx.ModelProto:
    """Read and check a file, without what it may refer to.

    Raises:
        UsageError: It is no file, or no ONNX file.
        RunError: As :func:`open_onnx`.
    """
    import onnx

    if path.suffix.lower() == ".pt2":
        raise UsageError(
            f"{path}: distill writes torch.export files and does not read them: reading one runs what it holds",
            hint="export to ONNX as well: distill export RUN --to onnx",
        )
    if not path.is_file():
        raise UsageError(f"{path}: no such file", hint="distill export RUN makes one")
    if path.stat().st_size > _MAX_BYTES:
        raise RunError(f"{path} is larger than an ONNX file can be")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, of whichever of its implementations is here
        raise UsageError(f"{path} is not an ONNX file, or it was cut", hint="export it again") from error
    if not model.graph.node or not model.opset_import:
        raise UsageError(f"{path} is not an ONNX file, or it was cut", hint="export it again")
    _refuse_outside(model, path)
    return model


def _refuse_outside(model: onnx.ModelProto, path: Path) -> None:
    import onnx

    parts = [part for whole in (model.graph, *model.functions) for part in _parts(whole)]
    for tensor in (tensor for part in parts for tensor in _tensors(part)):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise RunError(f"{path} refers to weights in another file ({tensor.name}); distill reads none but its own")
    foreign = {node.domain for part in parts for node in part.node}
    foreign -= {*_DOMAINS, *(each.domain for each in model.functions)}
    if foreign:
        raise RunError(f"{path} needs operations of {', '.join(sorted(foreign))}, which no library here has")


def _parts(part: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """A graph or function, and all graphs nested in it."""
    yield part
    for attribute in (attribute for node in part.node for attribute in node.attribute):
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _parts(inner)


def _tensors(part: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """The tensors of one, those of nested graphs not among them."""
    sparse = list(getattr(part, "sparse_initializer", ()))  # functions have no initializers
    yield from getattr(part, "initializer", ())
    for attribute in (attribute for node in part.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
    yield from (tensor for each in sparse for tensor in (each.values, each.indices))


def session(model: bytes, *, threads: int, place: str) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU.

    Raises:
        RunError: The runtime refuses the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would take others' cores
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        reason = str(error).strip().splitlines()[0][:200]
        raise RunError(f"{place}: ONNX Runtime refuses it: {reason}", hint="export it again") from error


def on_bytes(running: onnxruntime.InferenceSession, side: int) -> Callable[[Tensor], Any]:
    """A forward pass to time: handed a batch of whatever images, it answers as many of its own.

    Those are bytes that lie ready before the first timed call, as they would in memory where the file is used.

    Args:
        side: Of the images it takes, in pixels.
    """
    random, ready = np.random.default_rng(0), {}

    def forward(images: Tensor) -> Any:
        count = len(images)
        if count not in ready:  # in the warm-up
            ready[count] = {INPUT: random.integers(0, 256, (count, 3, side, side), dtype=np.uint8)}
        return running.run([OUTPUT], ready[count])

    return forward


def _check_signature(running: onnxruntime.InferenceSession, about: FileAbout, place: str) -> None:
    inputs, outputs = running.get_inputs(), running.get_outputs()
    fits = (
        [each.name for each in inputs] == [INPUT]
        and [each.name for each in outputs] == [OUTPUT]
        and inputs[0].type == "tensor(uint8)"
        and _shape(inputs[0]) == [3, about.image_size, about.image_size]
        and _shape(outputs[0]) == [len(about.classes)]
    )
    if not fits:
        raise RunError(
            f"{place} does not take what its metadata says: {len(about.classes)} classes, "
            f"images of {about.image_size} pixels",
            hint="export it again",
        )


def _shape(value: Any) -> list[Any]:
    return list(value.shape)[1:]
