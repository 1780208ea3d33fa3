"""Layers timed one by one and kept by their shape: what a network would take, before it is exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.devices import using_threads
from distill.devices.layers import Layer
from distill.evaluation.latency import measure_latency
from distill.models.onnx_open import session
from distill.models.onnx_write import OPSET

__all__ = ["time_layer"]

_ROUNDS, _SECONDS = 30, 0.06


def time_layer(layer: Layer, batch_sizes: Sequence[int], *, runtime: str, threads: int) -> dict[str, float]:
    """Median milliseconds of one layer with its ReLU, by batch size; int8 is predicted by what fp32 takes."""
    run: Callable[[Tensor], Any] = _torch(layer) if runtime == "torch" else _onnx(layer, threads)
    with using_threads(threads):
        timings = measure_latency(
            {"layer": run},
            {"layer": layer.input},
            device=torch.device("cpu"),
            batch_sizes=batch_sizes,
            rounds=_ROUNDS,
            seconds_per_model=_SECONDS * len(batch_sizes),
        )
    return {str(size): cell.median_ms for size, cell in timings["layer"].items()}


def _torch(layer: Layer) -> Callable[[Tensor], Tensor]:
    weight, bias = torch.randn(layer.weight), torch.zeros(layer.weight[0])
    if weight.ndim == 4:
        weight = weight.to(memory_format=torch.channels_last)
    return lambda images: F.relu(layer(images, weight, bias), inplace=True)


def _onnx(layer: Layer, threads: int) -> Callable[[Tensor], Any]:
    import onnx
    from onnx import helper, numpy_helper

    weight = np.random.default_rng(0).standard_normal(layer.weight).astype(np.float32)
    if layer.kind == "linear":
        node = helper.make_node("MatMul", ["x", "w"], ["c"])
        weight = np.ascontiguousarray(weight.T)
    else:
        node = helper.make_node("Conv", ["x", "w"], ["c"], **_attributes(layer))
    graph = helper.make_graph(
        [node, helper.make_node("Relu", ["c"], ["y"])],
        "layer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", *layer.input])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    running = session(model.SerializeToString(), threads=threads, place=str(layer))
    return lambda images: running.run(None, {"x": images.numpy()})


def _attributes(layer: Layer) -> dict[str, Any]:
    """Of ONNX's Conv."""
    kernel = layer.weight[2:]
    before = after = tuple(0 for _ in kernel) if isinstance(layer.padding, str) else layer.padding
    if layer.padding == "same":  # as torch pads it: at the end one more where it cannot be even
        extra = [dilation * (size - 1) for dilation, size in zip(layer.dilation, kernel, strict=True)]
        before, after = tuple(each // 2 for each in extra), tuple(each - each // 2 for each in extra)
    return {
        "kernel_shape": kernel,
        "strides": layer.stride,
        "dilations": layer.dilation,
        "pads": (*before, *after),
        "group": layer.groups,
    }
