"""Which int8 graph is kept: how far they are judged, and on what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from distill.compression.choose import LabelledImages, choose_int8
from distill.models.onnx_write import INPUT, OUTPUT


def _first_pixel(bias: float) -> ModelProto:
    """A graph of two logits: the first pixel of the first channel against the second, which has ``bias`` on top."""
    side = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["n", 3, 2, 2])
    out = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", 2])
    nodes = [
        helper.make_node("Cast", [INPUT], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["float", "shape"], ["rows"]),
        helper.make_node("Slice", ["rows", "zero", "two", "axis"], ["flat"]),
        helper.make_node("Add", ["flat", "bias"], [OUTPUT]),
    ]
    numbers = {"zero": [0], "two": [2], "axis": [1], "shape": [-1, 12]}
    given = [helper.make_tensor(name, TensorProto.INT64, [len(each)], each) for name, each in numbers.items()]
    given.append(helper.make_tensor("bias", TensorProto.FLOAT, [2], [0.0, bias]))
    graph = helper.make_graph(nodes, "first_pixel", [side], [out], given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("wrong", "asked"),
    [
        (400, 1000),  # a tenth of all is lost: a quarter of the images leaves no doubt
        (60, 4000),  # 1.5 points of an allowed one: a quarter cannot tell
        (0, 4000),
    ],
)
def test_of_many_images_some_are_enough_to_refute(monkeypatch: pytest.MonkeyPatch, wrong: int, asked: int) -> None:
    """Images that the fp32 graph gets right by less than the bias of the other are wrong there."""
    pixels = np.zeros((4000, 3, 2, 2), np.uint8)
    pixels[:, 0, 0, 0] = 100
    pixels[np.random.default_rng(0).choice(4000, wrong, replace=False), 0, 0, 0] = 1
    model, biased = _first_pixel(0.0), _first_pixel(2.0)

    @contextmanager
    def quantizer(model: ModelProto, images: np.ndarray) -> Iterator[Callable[[object], ModelProto]]:
        yield lambda scheme: biased

    monkeypatch.setattr("distill.compression.choose.quantizer", quantizer)
    judged = LabelledImages(pixels, np.zeros(4000, np.int64), "val")
    choice = choose_int8(model, pixels[:8], judged, allowed=0.01)
    assert {each.drop.n for each in choice.attempts} == {asked}
    assert choice.attempts[0].drop.drop.estimate == pytest.approx(wrong / 4000, abs=0.02)
    assert (choice.model is None) is (wrong > 0)
