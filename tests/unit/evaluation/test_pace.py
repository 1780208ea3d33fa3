"""The fixed graph: certificates that are written hold its milliseconds, so it must stay what it is."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from distill.evaluation.pace import PACE_SIDE, pace_graph
from distill.models.onnx_open import session


def test_it_is_the_graph_that_certificates_were_timed_with() -> None:
    model = onnx.load_from_string(pace_graph())
    assert [node.op_type for node in model.graph.node] == [
        "Cast", "Conv", "Relu", "Conv", "Relu", "Conv", "Relu", "GlobalAveragePool", "Flatten"
    ]  # fmt: skip
    weights = [numpy_helper.to_array(each) for each in model.graph.initializer]
    assert [each.shape for each in weights] == [(16, 3, 3, 3), (16, 16, 3, 3), (16, 16, 3, 3)]
    digest = hashlib.sha256(b"".join(each.tobytes() for each in weights)).hexdigest()
    assert digest == "f8eb0d16ea943caba0df60245b34688ad55cd275de7167cd341a4fc815b72b34"


def test_it_computes_what_torch_computes() -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 3, PACE_SIDE, PACE_SIDE), dtype=np.uint8)
    (answers,) = session(pace_graph(), threads=1, place="pace").run(None, {"images": images})
    flow = torch.from_numpy(images).float()
    for each in onnx.load_from_string(pace_graph()).graph.initializer:
        weight = torch.from_numpy(numpy_helper.to_array(each).copy())
        flow = torch.relu(torch.nn.functional.conv2d(flow, weight, padding=1))
    assert np.allclose(answers, flow.mean((2, 3)).numpy(), rtol=1e-4)
