"""Exported files: they answer as the network does, say what they are, and hold nothing but data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from distill.errors import RunError, UsageError
from distill.models import Normalize
from distill.models.deployed import Deployed
from distill.models.onnx_metadata import FileAbout
from distill.models.onnx_open import is_exported_file, open_onnx
from distill.models.onnx_write import to_onnx, write_onnx

NORMALIZE = Normalize(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), input_size=8)
ABOUT = FileAbout(
    name="net", role="student", classes=("cat", "dög", "<b>"), image_size=8, weights_sha256="0" * 64,
    recipe="name: net\n", params=1, gmacs=0.5, version="9.9",
)  # fmt: skip


def _network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip
    network[1].running_mean.normal_()
    network[1].running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    network, path = _network(), tmp_path_factory.mktemp("exports") / "net.onnx"
    write_onnx(to_onnx(Deployed(network, NORMALIZE, image_size=8), ABOUT), path)
    return path, network


def _pixels(count: int, side: int = 8) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, 3, side, side), dtype=np.uint8))


def test_bytes_in_and_the_networks_logits_out(exported: tuple[Path, nn.Module]) -> None:
    path, network = exported
    pixels = _pixels(70)
    mean, std = (np.array(each).reshape(1, 3, 1, 1) for each in (NORMALIZE.mean, NORMALIZE.std))
    by_hand = torch.from_numpy((pixels.numpy() / 255.0 - mean) / std)  # float64
    with torch.no_grad():
        expected = network.double()(by_hand).numpy()
    network.float()
    np.testing.assert_allclose(open_onnx(path).logits(pixels).numpy(), expected, atol=1e-5)


def test_an_images_answer_has_the_same_bits_whatever_its_neighbours(exported: tuple[Path, nn.Module]) -> None:
    classifier, pixels = open_onnx(exported[0]), _pixels(130)
    together = classifier.logits(pixels)
    assert torch.equal(together[100:101], classifier.logits(pixels[100:101]))
    assert torch.equal(together[:33], open_onnx(exported[0], threads=2).logits(pixels[:33]))


def test_the_file_says_what_it_is_and_nothing_of_this_machine(exported: tuple[Path, nn.Module]) -> None:
    path, _ = exported
    classifier = open_onnx(path)
    assert classifier.about == ABOUT
    assert (classifier.name, classifier.runtime, classifier.image_size) == ("net", "onnxruntime fp32", 8)
    content = path.read_bytes()
    assert str(Path(torch.__file__).parents[1]).encode() not in content
    assert b".py" not in content


def test_batch_norm_is_folded_and_the_batch_is_free(exported: tuple[Path, nn.Module]) -> None:
    model = onnx.load(exported[0])
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param


@pytest.mark.parametrize("side", [6, 16])
def test_resizing_is_inside(side: int, tmp_path: Path) -> None:
    network = _network()
    path = tmp_path / "resized.onnx"
    write_onnx(to_onnx(Deployed(network, NORMALIZE, image_size=side), replace(ABOUT, image_size=side)), path)
    pixels = _pixels(5, side)
    with torch.no_grad():
        expected = network(NORMALIZE(pixels))
    torch.testing.assert_close(open_onnx(path).logits(pixels), expected, atol=1e-4, rtol=0)


def test_two_exports_are_the_same_bytes(exported: tuple[Path, nn.Module], tmp_path: Path) -> None:
    again = tmp_path / "again.onnx"
    write_onnx(to_onnx(Deployed(_network(), NORMALIZE, image_size=8), ABOUT), again)
    assert again.read_bytes() == exported[0].read_bytes()


class _Sorts(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(x.flatten(1).reshape(len(x), 3, -1))


def test_what_cannot_be_exported_is_refused_by_the_name_of_the_operation() -> None:
    with pytest.raises(UsageError, match=r"net cannot be exported: aten.*svd"):
        to_onnx(Deployed(_Sorts().eval(), NORMALIZE, image_size=8), ABOUT)


# Hostile and damaged files


class _Branches(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.float().mean((2, 3))
        return 2 * x if x.mean() > 0.1 else x


def test_a_branch_on_values_is_refused_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="net cannot be exported: what it does depends on an image's values"):
        to_onnx(Deployed(_Branches().eval(), NORMALIZE, image_size=8), ABOUT)
    assert capfd.readouterr() == ("", "")


def _changed(path: Path, tmp_path: Path, change) -> Path:
    model = onnx.load(path)
    change(model)
    target = tmp_path / "changed.onnx"
    target.write_bytes(model.SerializeToString())
    return target


def test_weights_outside_the_file_are_refused_unread(exported: tuple[Path, nn.Module], tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"\0" * 10_000)

    def outside(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../" + secret.name)

    with pytest.raises(RunError, match="refers to weights in another file"):
        open_onnx(_changed(exported[0], tmp_path, outside))


@pytest.mark.parametrize("of", ["t", "sparse_tensor"])
def test_nor_may_a_function_in_the_file_refer_to_others(
    of: str, exported: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    def outside(model: onnx.ModelProto) -> None:
        attribute = onnx.AttributeProto(name="value")
        tensor = attribute.t if of == "t" else attribute.sparse_tensor.values
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="secret.bin")
        node = onnx.NodeProto(op_type="Constant", output=["y"], attribute=[attribute])
        model.functions.add(domain="mine", name="F", output=["y"], node=[node])

    with pytest.raises(RunError, match="refers to weights in another file"):
        open_onnx(_changed(exported[0], tmp_path, outside))


def test_operations_of_a_foreign_library_are_refused(exported: tuple[Path, nn.Module], tmp_path: Path) -> None:
    def foreign(model: onnx.ModelProto) -> None:
        model.graph.node[0].domain = "evil.example"

    with pytest.raises(RunError, match=r"needs operations of evil\.example"):
        open_onnx(_changed(exported[0], tmp_path, foreign))


def test_a_file_with_another_class_list_is_refused(exported: tuple[Path, nn.Module], tmp_path: Path) -> None:
    def fewer(model: onnx.ModelProto) -> None:
        next(each for each in model.metadata_props if each.key == "distill.classes").value = '["cat", "dog"]'

    with pytest.raises(RunError, match="does not take what its metadata says: 2 classes"):
        open_onnx(_changed(exported[0], tmp_path, fewer))


@pytest.mark.parametrize("text", ["[", '"cat"', "[1, 2, 3]", "null"])
def test_damaged_metadata_is_one_line(exported: tuple[Path, nn.Module], tmp_path: Path, text: str) -> None:
    def damage(model: onnx.ModelProto) -> None:
        next(each for each in model.metadata_props if each.key == "distill.classes").value = text

    with pytest.raises(RunError, match="metadata is damaged"):
        open_onnx(_changed(exported[0], tmp_path, damage))


def test_somebody_elses_file_is_said_to_be(exported: tuple[Path, nn.Module], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="was not exported by distill"):
        open_onnx(_changed(exported[0], tmp_path, lambda model: model.ClearField("metadata_props")))


@pytest.mark.parametrize("keep", [0, 10, 500, -200])
def test_a_truncated_file_is_one_line(exported: tuple[Path, nn.Module], tmp_path: Path, keep: int) -> None:
    target = tmp_path / "cut.onnx"
    target.write_bytes(exported[0].read_bytes()[: keep or None] if keep else b"")
    with pytest.raises((UsageError, RunError), match=r"cut\.onnx"):
        open_onnx(target)


def test_what_is_no_onnx_file(tmp_path: Path) -> None:
    text = tmp_path / "recipe.onnx"
    text.write_text("name: r18_small\n")
    with pytest.raises(UsageError, match="not an ONNX file"):
        open_onnx(text)
    with pytest.raises(UsageError, match="no such file"):
        open_onnx(tmp_path / "absent.onnx")
    with pytest.raises(UsageError, match="does not read them: reading one runs what it holds"):
        open_onnx(tmp_path / "net.pt2")


def test_references_to_files() -> None:
    assert is_exported_file("exports/a.ONNX")
    assert not is_exported_file("r18_small")
