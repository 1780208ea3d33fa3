"""Networks to ONNX: one self-contained graph from bytes to logits, for any batch, with batch norm folded."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from distill.errors import UsageError
from distill.files import write_export
from distill.models.deployed import Deployed
from distill.models.onnx_fold import fold_pooled_norms
from distill.models.onnx_metadata import FileAbout

if TYPE_CHECKING:
    import onnx

__all__ = ["INPUT", "OPSET", "OUTPUT", "export_program", "graph_of", "to_onnx", "write_onnx"]

INPUT, OUTPUT = "images", "logits"
OPSET = 20  # the first in which Resize can antialias, and 4 older than what onnxruntime reads today

_EXAMPLE_BATCH = 2  # torch.export takes a dimension of 1 for a constant
_OPERATION = re.compile(r"\b(?:aten|torchvision|prims)[.:]+[A-Za-z0-9_.]+")
_BRANCH = "data-dependent"  # what exporters call a condition on values that are not known yet
_NOISY_LOGGERS = (
    "torch.onnx", "onnxscript", "onnx_ir", "torch._dynamo", "torch.export", "torch.fx.experimental.symbolic_shapes",
)  # fmt: skip


def to_onnx(deployed: Deployed, about: FileAbout) -> onnx.ModelProto:
    """The graph, with ``about`` in its metadata and no path of this machine in it.

    Raises:
        UsageError: An operation of the network has no counterpart; the message names it.
    """
    model = graph_of(deployed, _example(deployed), about.name)
    fold_pooled_norms(model)
    model.producer_name, model.producer_version = "distill", about.version
    for key, text in sorted(about.to_metadata().items()):
        model.metadata_props.add(key=key, value=text)
    return model


def graph_of(module: nn.Module, example: torch.Tensor, name: str) -> onnx.ModelProto:
    """The graph of a module that takes one batch of any size, without a path of this machine in it.

    Args:
        example: A batch of two.

    Raises:
        UsageError: An operation of the network has no counterpart; the message names it.
    """
    with _quietly(), _as_user_errors(name):
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None, "what dynamo=True promises"
    model = program.model_proto
    _strip(model)
    return model


def write_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Check the model and write it, whole or not at all.

    Raises:
        DistillError: It cannot be written there.
    """
    import onnx

    onnx.checker.check_model(model, full_check=False)
    write_export(path, model.SerializeToString(deterministic=True))


def export_program(deployed: Deployed, name: str) -> torch.export.ExportedProgram:
    """The same graph as a ``torch.export`` program, for any batch.

    Raises:
        UsageError: The network cannot be exported.
    """
    with _quietly(), _as_user_errors(name):
        return torch.export.export(
            deployed, (_example(deployed),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        )


def _example(deployed: Deployed) -> torch.Tensor:
    side = deployed.image_size
    return torch.zeros((_EXAMPLE_BATCH, 3, side, side), dtype=torch.uint8)


@contextlib.contextmanager
def _as_user_errors(name: str) -> Iterator[None]:
    """An exporter's error in one line that names the operation: its own runs over a hundred."""
    try:
        yield
    except (torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.TorchDynamoException, RuntimeError, ValueError) as e:
        texts = [str(each) for each in _causes(e)]
        if any(_BRANCH in text for text in texts):
            raise UsageError(
                f"{name} cannot be exported: what it does depends on an image's values, and a graph has no branch",
                hint="torch.where, in the place of if, chooses between values",
            ) from e
        named = next((match[0] for text in texts if (match := _OPERATION.search(text))), None)
        reason = f"{named} has no counterpart" if named else texts[-1].strip().splitlines()[0][:200]
        raise UsageError(f"{name} cannot be exported: {reason}", hint="students and most timm CNNs and ViTs can") from e


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what exporters say of themselves; warnings here are never about the user's network."""
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # a graph that came to nothing
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _strip(model: onnx.ModelProto) -> None:
    """Take out stack traces: they hold paths of this machine, and differ where nothing else does."""
    parts: list[Any] = [model.graph, *model.graph.node, *model.graph.initializer]
    for part in [*parts, *model.graph.input, *model.graph.output, *model.graph.value_info]:
        del part.metadata_props[:]
        part.doc_string = ""
    model.doc_string = ""
    del model.metadata_props[:]
