"""A small graph that never changes, timed in turn with a file: how fast this machine is, now.

Milliseconds of two days, or of two hours on a machine that others use too, differ by what the machine did besides. What
a fixed graph took in the same minutes tells that apart from a file that became slower.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from distill.models.onnx_write import INPUT, OPSET, OUTPUT

__all__ = ["PACE_SIDE", "pace_graph"]

PACE_SIDE = 32
"""Side of the images that the graph takes."""

_CHANNELS = 16
_IR_VERSION = 8  # what every onnxruntime that is supported reads


@cache
def pace_graph() -> bytes:
    """The graph, from bytes ``(N, 3, 32, 32)`` to ``(N, 16)``: three convolutions, 5 million multiply-accumulates.

    A change of it would make certificates that are written already tell something else.
    """
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.Generator(np.random.PCG64(0))
    nodes = [helper.make_node("Cast", [INPUT], ["at0"], to=TensorProto.FLOAT)]
    weights = []
    for place, inputs in enumerate((3, _CHANNELS, _CHANNELS)):
        values = random.standard_normal((_CHANNELS, inputs, 3, 3), dtype=np.float32) / np.float32(3 * inputs**0.5)
        weights.append(numpy_helper.from_array(values, f"weight{place}"))
        nodes.append(helper.make_node("Conv", [f"at{place}", f"weight{place}"], [f"sum{place}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"sum{place}"], [f"at{place + 1}"]))
    nodes.append(helper.make_node("GlobalAveragePool", [f"at{len(weights)}"], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], [OUTPUT]))
    graph = helper.make_graph(
        nodes,
        "pace",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", 3, PACE_SIDE, PACE_SIDE])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", _CHANNELS])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
    return model.SerializeToString(deterministic=True)
