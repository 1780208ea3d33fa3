"""Static int8 for ONNX Runtime: QDQ graphs with per-channel weights, calibrated on training images.

Which scheme is fast depends on the processor and the runtime's kernels for it; how much care a network needs depends on
the network. So schemes are data, and whoever quantises tries several.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from distill.data.images import digest_of_all, image_digests
from distill.errors import DistillError, RunError
from distill.files import writing
from distill.models.onnx_metadata import FileAbout
from distill.models.onnx_open import session
from distill.models.onnx_write import INPUT
from distill.team.watch import with_heartbeat

if TYPE_CHECKING:
    import onnx

__all__ = ["CALIBRATIONS", "SCHEMES", "Scheme", "int8_schemes", "quantize_model", "quantizer"]

_BATCH = 64
_ELSEWHERE = "name another folder for temporary files (export TMPDIR=/a/folder/with/space)"
_WEIGHTED = ("Conv", "Gemm", "MatMul", "ConvTranspose")


@dataclass(frozen=True)
class Scheme:
    """How a graph is quantised.

    Attributes:
        activations: ``int8`` (symmetric use of the signed kernels) or ``uint8``.
        reduce_range: Weights of 7 bits: sums of two products then fit 16 bits, which AVX2 without VNNI saturates.
        calibration: How ranges are drawn from what activations were seen: their extremes, all but their outliers
            (percentile 99.999), or those that lose the least information; arXiv:2004.09602 compares them.
        bias_correction: Take the mean error that rounding weights causes out of each bias (arXiv:1906.04721).
        float_ends: Leave the first and the last layer in float.
        float_first: Leave the first layer, and what comes before it, in float. An enlarged image has next to no fine
            detail: filters that look for some see the rounding of its pixels instead.
    """

    activations: Literal["int8", "uint8"] = "uint8"
    reduce_range: bool = False
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    bias_correction: bool = False
    float_ends: bool = False
    float_first: bool = False

    def __str__(self) -> str:
        words = [f"{'U8' if self.activations == 'uint8' else 'S8'}S8{' reduced range' if self.reduce_range else ''}"]
        words += [self.calibration] if self.calibration != "minmax" else []
        words += ["bias correction"] if self.bias_correction else []
        words += ["first and last layer in float"] if self.float_ends else []
        words += ["first layer in float"] if self.float_first and not self.float_ends else []
        return ", ".join(words)


SCHEMES = (Scheme("uint8"), Scheme("uint8", reduce_range=True), Scheme("int8"))
"""Kernels to choose between, by speed on this machine."""

CALIBRATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"bias_correction": True},
    {"calibration": "percentile", "bias_correction": True},
    {"calibration": "entropy", "bias_correction": True},
    {"bias_correction": True, "float_ends": True},
    {"calibration": "percentile", "bias_correction": True, "float_ends": True},
)
"""What is tried, in this order, where plain calibration loses too much: each as changes of a :class:`Scheme`."""


def int8_schemes(*, enlarged: bool) -> tuple[Scheme, ...]:
    """:data:`SCHEMES` for a network that takes its images as they are, or for one that takes them ``enlarged``."""
    return tuple(replace(scheme, float_first=enlarged) for scheme in SCHEMES)


def quantize_model(model: onnx.ModelProto, images: np.ndarray, scheme: Scheme) -> onnx.ModelProto:
    """One int8 twin of an exported fp32 graph, as :func:`quantizer` makes them."""
    with quantizer(model, images) as made_by:
        return made_by(scheme)


@contextlib.contextmanager
def quantizer(model: onnx.ModelProto, images: np.ndarray) -> Iterator[Callable[[Scheme], onnx.ModelProto]]:
    """What makes int8 twins of an exported fp32 graph, which is not touched; what they share is worked out once.

    Calling it raises a :class:`RunError` where ONNX Runtime cannot quantise the graph. What it takes and gives are
    files in a temporary folder.

    Raises:
        DistillError: The folder for temporary files is full, or cannot be written; calling it raises that, too.

    Shapes:
        images: ``(N, 3, S, S)`` uint8, training images, as many as shall set the ranges.
    """
    import onnx

    means = cache(partial(_mean_inputs, model, images))
    with tempfile.TemporaryDirectory(prefix="distill-") as folder:
        plain, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        with writing(plain, elsewhere=_ELSEWHERE):
            onnx.save(copy.deepcopy(model), plain)  # the quantiser moves the weights of what it is given

        def make(scheme: Scheme) -> onnx.ModelProto:
            try:
                with writing(target, elsewhere=_ELSEWHERE), _quietly():
                    _quantize(plain, target, _Images(images), scheme, _kept_in_float(model, scheme))
            except DistillError:
                raise
            except Exception as error:  # the tool raises whatever its parts do
                _require_room(target, plain.stat().st_size)
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                raise RunError(f"the graph cannot be quantised ({scheme}): {reason}") from error
            made = onnx.load(target)
            if scheme.bias_correction:
                _correct_biases(made, model, means())
            _describe(made, model, scheme, images)
            return made

        yield make


def _require_room(path: Path, size: int) -> None:
    """Refuse a full disk: the quantiser's native parts do not notice one, and take half a graph for a damaged one.

    Raises:
        DistillError: As large a graph, with the shapes that are written into it, does not fit.
    """
    with writing(path, elsewhere=_ELSEWHERE):
        path.write_bytes(bytes(size + size // 8))


def _quantize(plain: Path, target: Path, images: _Images, scheme: Scheme, excluded: list[str]) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    ranges = {}
    if "calibration_cache_path" in inspect.signature(quantize_static).parameters:  # older ones have none
        ranges = {"calibration_cache_path": plain.with_name(f"{scheme.calibration}.json")}

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    quantize_static(
        plain,
        target,
        images,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=scheme.reduce_range,
        activation_type=QuantType.QUInt8 if scheme.activations == "uint8" else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=excluded,
        calibrate_method=methods[scheme.calibration],
        # a histogram's batch after batch: all at once it holds every activation of every image
        extra_options={} if scheme.calibration == "minmax" else {"CalibStridedMinMax": 1},
        **ranges,
    )


class _Images:
    """Batches for the calibrator, whose own base class it does not ask for."""

    def __init__(self, images: np.ndarray) -> None:
        # histograms want batches of one size: the last one is filled up with the first images
        size = min(_BATCH, len(images))
        padded = np.resize(images, (-(-len(images) // size) * size, *images.shape[1:]))
        self._left = self._count = len(padded) // size
        self._batches = with_heartbeat(np.split(padded, self._count))

    def __len__(self) -> int:
        return self._count

    def set_range(self, start_index: int, end_index: int) -> None:
        """Only so many batches, from where the last range ended."""
        self._left = end_index - start_index

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch by its input's name; None at the end."""
        self._left -= 1
        batch = next(self._batches, None) if self._left >= 0 else None
        return None if batch is None else {INPUT: batch}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what the quantiser prints and advises."""
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)


def _kept_in_float(model: onnx.ModelProto, scheme: Scheme) -> list[str]:
    """Names of the nodes that are not quantised."""
    weighted = [at for at, node in enumerate(model.graph.node) if node.op_type in _WEIGHTED]
    kept = {weighted[0], weighted[-1]} if scheme.float_ends and weighted else set()
    kept |= set(range(weighted[0] + 1)) if scheme.float_first and weighted else set()
    return [model.graph.node[at].name for at in sorted(kept)]


def record_allowed_drop(made: onnx.ModelProto, *, max_drop: float, prove: bool) -> None:
    """Write into the file how much it was allowed to lose of its run's top-1, which chose how it was quantised."""
    metadata = {each.key: each.value for each in made.metadata_props}
    _set_about(made, replace(FileAbout.from_metadata(metadata, place="the graph"), max_drop=max_drop, proven=prove))


def _describe(made: onnx.ModelProto, model: onnx.ModelProto, scheme: Scheme, images: np.ndarray) -> None:
    """The fp32 file's metadata, the arithmetic, and which images set the ranges; nothing of the quantiser's own."""
    plain = {each.key: each.value for each in model.metadata_props}
    about = replace(
        FileAbout.from_metadata(plain, place="the exported graph"),
        arithmetic="int8",
        scheme=str(scheme),
        calibration_images=len(images),
        calibration_sha256=digest_of_all(image_digests([images])),
    )
    _set_about(made, about)
    made.producer_name, made.producer_version = model.producer_name, model.producer_version


def _set_about(made: onnx.ModelProto, about: FileAbout) -> None:
    del made.metadata_props[:]
    for key, text in sorted(about.to_metadata().items()):
        made.metadata_props.add(key=key, value=text)


# Bias correction


def _correct_biases(made: onnx.ModelProto, model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> None:
    """Shift each convolution's and linear layer's bias by the mean of what its rounded weights add to mean inputs."""
    ours, theirs = _layers(made), _layers(model)
    for name, (node, weight, bias) in ours.items():
        if bias is None or name not in theirs or name not in inputs:
            continue
        # on both sides the weight that enters the arithmetic, in float: (out, in / groups, ...)
        error = _summed(node, weight.value) - _summed(node, theirs[name][1].value)
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        means = inputs[name].reshape(groups, -1)  # (groups, in / groups)
        shift = (error.reshape(groups, -1, error.shape[1]) * means[:, None]).sum(-1).reshape(-1)
        bias.subtract(shift)


def _summed(node: onnx.NodeProto, weight: np.ndarray) -> np.ndarray:
    """Weights summed over the kernel's pixels, ``(out, in / groups)``: what a mean input is multiplied by."""
    if node.op_type == "Conv":
        return weight.reshape(*weight.shape[:2], -1).sum(-1)
    transposed = next((attribute.i for attribute in node.attribute if attribute.name == "transB"), 0)
    return weight if transposed else weight.T


def _mean_inputs(model: onnx.ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    """For each layer the mean of every input channel over images and pixels."""
    import onnx

    watched = {node.input[0]: None for node, _, _ in _layers(model).values()}
    probe = copy.deepcopy(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in watched)
    running = session(probe.SerializeToString(), threads=1, place="the exported graph")
    names = list(watched)
    sums: dict[str, np.ndarray] = {name: np.zeros(()) for name in names}
    for at in with_heartbeat(range(0, len(images), _BATCH)):
        for name, values in zip(names, running.run(names, {INPUT: images[at : at + _BATCH]}), strict=True):
            flat = values.reshape(*values.shape[:2], -1).mean(-1, dtype=np.float64)
            sums[name] = sums[name] + flat.sum(0)
    return {key: sums[node.input[0]] / len(images) for key, (node, _, _) in _layers(model).items()}


@dataclass
class _Stored:
    """A tensor of a graph, possibly held as integers with a scale for each channel."""

    tensor: onnx.TensorProto
    scale: np.ndarray | None
    axis: int

    @property
    def value(self) -> np.ndarray:
        import onnx

        array = onnx.numpy_helper.to_array(self.tensor).astype(np.float64)
        return array if self.scale is None else array * _along(self.scale, array.ndim, self.axis)

    def subtract(self, shift: np.ndarray) -> None:
        import onnx

        array = onnx.numpy_helper.to_array(self.tensor)
        steps = shift if self.scale is None else np.rint(shift / self.scale)
        self.tensor.CopyFrom(onnx.numpy_helper.from_array((array - steps).astype(array.dtype), self.tensor.name))


def _along(scale: np.ndarray, ndim: int, axis: int) -> np.ndarray:
    if scale.ndim == 0:
        return scale
    shape = [1] * ndim
    shape[axis] = -1
    return scale.reshape(shape)


def _layers(model: onnx.ModelProto) -> dict[str, tuple[onnx.NodeProto, _Stored, _Stored | None]]:
    """Convolutions and linear layers whose weights are stored, by node name: ``(node, weight, bias)``."""
    import onnx

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {out: node for node in model.graph.node for out in node.output}

    def stored(name: str) -> _Stored | None:
        if name in tensors:
            return _Stored(tensors[name], None, 0)
        node = producers.get(name)
        if node is None or node.op_type != "DequantizeLinear" or not {*node.input[:2]} <= tensors.keys():
            return None
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        scale = onnx.numpy_helper.to_array(tensors[node.input[1]]).astype(np.float64)
        return _Stored(tensors[node.input[0]], scale, axis)

    layers: dict[str, tuple[Any, _Stored, _Stored | None]] = {}
    for node in model.graph.node:
        weight = stored(node.input[1]) if node.op_type in ("Conv", "Gemm") else None
        if weight is not None:
            layers[node.name] = (node, weight, stored(node.input[2]) if len(node.input) > 2 else None)
    return layers
