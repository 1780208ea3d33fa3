"""Layers timed one by one and kept by their shape: what a network would take, before it is exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.devices import using_threads
from distill.evaluation.latency import measure_latency
from distill.models.onnx_open import session
from distill.models.onnx_write import OPSET

__all__ = ["Layer", "layers_of", "time_layer"]

_ROUNDS, _SECONDS = 30, 0.06


@dataclass(frozen=True)
class Layer:
    """One convolution, or one dense layer, and the map that enters it; a dense layer's is 1 x 1."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    groups: int
    side: int

    def __str__(self) -> str:
        where = f"{self.side} k{self.kernel} s{self.stride} p{self.padding} g{self.groups}"
        return f"{self.inputs}-{self.outputs} at {where}"


def layers_of(network: nn.Module, side: int) -> list[Layer]:
    """The layers that take time, in their order; ``network`` is on the meta device."""
    found: list[Layer] = []
    hooks = [
        module.register_forward_pre_hook(partial(_note, found=found))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        with torch.no_grad():
            network(torch.empty(1, 3, side, side, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _note(module: nn.Module, inputs: tuple[Tensor, ...], *, found: list[Layer]) -> None:
    if isinstance(module, nn.Conv2d):
        padding = module.padding[0] if isinstance(module.padding, tuple) else module.kernel_size[0] // 2
        found.append(
            Layer(
                module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0], int(padding),
                module.groups, inputs[0].shape[-1],
            )
        )  # fmt: skip
    elif isinstance(module, nn.Linear):
        found.append(Layer(module.in_features, module.out_features, 1, 1, 0, 1, 1))


def time_layer(layer: Layer, batch_sizes: Sequence[int], *, runtime: str, threads: int) -> dict[str, float]:
    """Median milliseconds of one layer with its ReLU, by batch size; int8 is predicted by what fp32 takes."""
    run: Callable[[Tensor], Any] = _torch(layer) if runtime == "torch" else _onnx(layer, threads)
    with using_threads(threads):
        timings = measure_latency(
            {"layer": run},
            {"layer": (layer.inputs, layer.side, layer.side)},
            device=torch.device("cpu"),
            batch_sizes=batch_sizes,
            rounds=_ROUNDS,
            seconds_per_model=_SECONDS * len(batch_sizes),
        )
    return {str(size): cell.median_ms for size, cell in timings["layer"].items()}


def _torch(layer: Layer) -> nn.Module:
    module = nn.Sequential(
        nn.Conv2d(
            layer.inputs, layer.outputs, layer.kernel, stride=layer.stride, padding=layer.padding, groups=layer.groups
        ),
        nn.ReLU(inplace=True),
    )
    return module.to(memory_format=torch.channels_last).eval()


def _onnx(layer: Layer, threads: int) -> Callable[[Tensor], Any]:
    import onnx
    from onnx import helper, numpy_helper

    shape = (layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel)
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    image: list[str | int | None] = ["batch", layer.inputs, layer.side, layer.side]
    settings: dict[str, Any] = {"strides": [layer.stride] * 2, "pads": [layer.padding] * 4, "group": layer.groups}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[layer.kernel] * 2, **settings),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        "layer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    running = session(model.SerializeToString(), threads=threads, place=str(layer))
    return lambda images: running.run(None, {"x": images.numpy()})
