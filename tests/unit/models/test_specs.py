"""What the schema refuses before anything is built."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

RESNET = {"source": "students", "name": "resnet", "blocks": [1, 1], "channels": [8, 16], "strides": [1, 2]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blocks": [1]}, "need one value a stage each, got blocks 1, channels 2, strides 2"),
        ({"kernel": 4}, "kernel should be odd, got 4"),
        ({"skip_kernel": 2}, "skip_kernel should be odd, got 2"),
        ({"skip": "pad", "channels": [16, 8]}, "skip: pad can only add channels"),
        ({"skip": "pad", "stem_channels": 32}, "skip: pad can only add channels"),
        ({"pool": 17}, "pool 17 is larger than the last map, 16x16 at input_size 32"),
        ({"normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.0, 0.5]}}, "greater than 0"),
        ({"dropout": 1.0}, "less than 1"),
        ({"blocks": []}, "at least 1"),
    ],
)
def test_a_wrong_resnet(spec, change, said):
    with pytest.raises(ValidationError, match=said):
        spec(**{**RESNET, **change})


@pytest.mark.parametrize("file", ["weights.pth", "weights.bin", "weights.pt", "Pretrained"])
def test_only_safetensors_files_are_weights(spec, file):
    with pytest.raises(ValidationError, match=r"a \.safetensors file, got .* \(a pickle can run code when loaded\)"):
        spec(source="timm", name="resnet18", weights=file)


def test_groups_need_blocks_and_channels(spec):
    with pytest.raises(ValidationError, match="differ in length: 2 and 4"):
        spec(source="students", name="grouped_resnet", blocks=[1, 1])


def test_a_convolutional_head_draws_its_own_weights(spec):
    with pytest.raises(ValidationError, match="head_init: fan_in is for head: linear"):
        spec(source="timm", name="resnet18", head="conv", head_init="fan_in")
