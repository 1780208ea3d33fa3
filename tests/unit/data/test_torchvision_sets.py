"""Data sets by name, from files of the official layouts that each test writes, against what it wrote."""

from __future__ import annotations

import gzip
import hashlib
import struct
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from distill.data.datasets import load_dataset, num_classes
from distill.data.splits import load_splits
from distill.data.torchvision_sets import is_here
from distill.errors import DataError, MissingError
from distill.evaluation.assess import _is_here
from distill.recipe.schema import DataSpec


def drawn(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def labels_of(n: int) -> np.ndarray:
    return (np.arange(n) * 7 % 10).astype(np.uint8)


def written_mnist(root: Path, kind: str) -> dict[str, np.ndarray]:
    """The four IDX files as the format's page describes them: magic number, sizes, bytes."""
    folder = root / kind / "raw"
    folder.mkdir(parents=True)
    pixels = {}
    for seed, (part, n) in enumerate((("train", 40), ("t10k", 20))):
        pixels[part] = drawn(n, 28, 28, seed=seed)
        head = struct.pack(">IIII", 0x803, n, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + pixels[part].tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, n) + labels_of(n).tobytes())
    return pixels


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_grey_sets_become_three_equal_channels(name: str, kind: str, tmp_path: Path) -> None:
    pixels = written_mnist(tmp_path, kind)
    data = load_dataset(DataSpec(name=name, root=str(tmp_path)))
    assert data.train.images.shape == (40, 3, 28, 28)
    assert data.classes == tuple(getattr(datasets, kind).classes)
    for split, part in ((data.train, "train"), (data.test, "t10k")):
        for channel in range(3):
            np.testing.assert_array_equal(split.images[:, channel], pixels[part])
        np.testing.assert_array_equal(split.labels, labels_of(len(split)))
    assert data.mean == pytest.approx([pixels["train"].mean() / 255] * 3, abs=1e-6)
    assert data.std == pytest.approx([pixels["train"].std() / 255] * 3, abs=1e-6)
    larger = load_dataset(DataSpec(name=name, root=str(tmp_path), image_size=32))
    assert larger.train.images.shape == (40, 3, 32, 32)
    assert num_classes(DataSpec(name=name)) == 10


def test_svhn_is_read_from_its_matlab_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = {part: drawn(n, 32, 32, 3, seed=n) for part, n in (("train", 30), ("test", 20))}
    sums = {}
    for part, images in pixels.items():
        digit = labels_of(len(images))
        file = tmp_path / f"{part}_32x32.mat"
        savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": np.where(digit == 0, 10, digit)[:, None]})
        sums[part] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", datasets.SVHN.split_list | sums)
    data = load_dataset(DataSpec(name="svhn", root=str(tmp_path)))
    np.testing.assert_array_equal(data.train.images, pixels["train"].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.test.labels, labels_of(20))
    assert data.classes == tuple("0123456789")


STL10_NAMES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


@pytest.fixture
def stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Its files in ``tmp_path``, and what they hold."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    (folder / "class_names.txt").write_text("".join(f"{name}\n" for name in STL10_NAMES))
    pixels = {part: drawn(n, 3, 96, 96, seed=n) for part, n in (("train", 20), ("test", 10), ("unlabeled", 2))}
    for part, images in pixels.items():
        (folder / f"{part}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())  # column by column
        (folder / f"{part}_y.bin").write_bytes((labels_of(len(images)) + 1).tobytes())
    for listing in ("train_list", "test_list"):
        sums = [
            [file, hashlib.md5((folder / file).read_bytes()).hexdigest()]
            for file, _ in getattr(datasets.STL10, listing)
        ]
        monkeypatch.setattr(datasets.STL10, listing, sums)
    return pixels


def test_stl10_is_read_from_its_binary_files(stl10: dict[str, np.ndarray], tmp_path: Path) -> None:
    data = load_dataset(DataSpec(name="stl10", root=str(tmp_path)))
    np.testing.assert_array_equal(data.train.images, stl10["train"])
    np.testing.assert_array_equal(data.test.labels, labels_of(10))
    assert data.classes == tuple(STL10_NAMES)
    assert (len(data.train), len(data.test)) == (20, 10)  # what has no label is not read


@pytest.mark.parametrize("limit", [None, 10])
def test_stl10_has_images_without_labels(stl10: dict[str, np.ndarray], tmp_path: Path, limit: int | None) -> None:
    fields = {"name": "stl10", "root": str(tmp_path), "limit": limit, "val_fraction": 0.0}
    plain = load_splits(DataSpec(**fields))
    more = load_splits(DataSpec(**fields, unlabelled="rest"), unlabelled=True)
    kept = len(plain.train)
    assert kept == (limit or 20)
    assert more.train.labels.tolist() == [*plain.train.labels, *[-1] * (20 - kept + 2)]
    np.testing.assert_array_equal(more.labelled.take(slice(None)), plain.train.take(slice(None)))
    np.testing.assert_array_equal(more.train.take(slice(-2, None)), stl10["unlabeled"])
    shown = {image.tobytes() for image in more.train.take(slice(None))}
    assert shown == {image.tobytes() for part in ("train", "unlabeled") for image in stl10[part]}
    assert (more.fingerprint, more.dataset.mean) == (plain.fingerprint, plain.dataset.mean)  # of those with labels
    told = "the 10 training images that data.limit leaves out and " if limit else ""
    assert more.note == f"data.unlabelled: {told}the 2 training images without labels"


def test_what_is_absent_is_downloaded_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "there"
    written_mnist(source, "MNIST")
    packed = []
    for file in sorted((source / "MNIST" / "raw").iterdir()):
        archive = source / f"{file.name}.gz"
        archive.write_bytes(gzip.compress(file.read_bytes()))
        packed.append((archive.name, hashlib.md5(archive.read_bytes()).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", packed)
    spec = DataSpec(name="mnist", root=str(tmp_path / "here"))
    assert not is_here(spec)
    assert not _is_here(spec)  # compare asks, and downloads nothing
    handler = partial(SimpleHTTPRequestHandler, directory=str(source))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        assert len(load_dataset(spec).train) == 40
        server.shutdown()
    assert is_here(spec)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "svhn", "stl10"])
def test_what_cannot_be_had_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(MissingError, match=f"^{name} is not whole in .*torchvision could not download it") as error:
        load_dataset(DataSpec(name=name, root=str(tmp_path)))
    assert "\n" not in error.value.message
    assert "--set data.root=PATH" in (error.value.hint or "")
    assert capsys.readouterr().out == ""  # stdout is for documents


def test_a_damaged_file_is_named_and_nothing_is_kept(tmp_path: Path) -> None:
    written_mnist(tmp_path, "MNIST")
    file = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(DataError, match=r"mnist in .* is damaged: torchvision's MNIST cannot read it"):
        load_dataset(DataSpec(name="mnist", root=str(tmp_path)))
    file.write_bytes(whole)
    assert len(load_dataset(DataSpec(name="mnist", root=str(tmp_path))).test) == 20


IDS = ("n01", "n02", "n03")


def written_tiny(root: Path) -> dict[str, np.ndarray]:
    """Tiny-ImageNet's layout, of PNG files by another name, so that pixels can be compared."""
    (root / "wnids.txt").parent.mkdir(parents=True)
    (root / "wnids.txt").write_text("n03\nn01\nn02\n")
    (root / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tcrane\nn03\tcrane\nn04\tnothing\n")
    pixels = {}
    for number, each in enumerate(IDS):
        (root / "train" / each / "images").mkdir(parents=True)
        (root / "train" / each / f"{each}_boxes.txt").write_text("")
        for i in range(4):
            pixels[f"train/{each}/images/{each}_{i}.JPEG"] = drawn(1, 64, 64, 3, seed=10 * number + i)[0]
    (root / "val" / "images").mkdir(parents=True)
    for i in range(6):
        pixels[f"val/images/val_{i}.JPEG"] = drawn(1, 64, 64, 3, seed=100 + i)[0]
    for name, image in pixels.items():
        Image.fromarray(image).save(root / name, format="PNG")
    lines = [f"val_{i}.JPEG\t{IDS[(i * 2) % 3]}\t0\t32\t44\t62\n" for i in range(6)]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return pixels


def test_tiny_imagenet_is_read_in_its_own_layout(tmp_path: Path) -> None:
    pixels = written_tiny(tmp_path / "tiny-imagenet-200")
    (copied,) = sorted((tmp_path / "tiny-imagenet-200" / "train").glob("*/images"))[:1]
    (copied / "._n1_0.JPEG").write_bytes(b"what a Mac leaves beside a copy")
    for root in (tmp_path, tmp_path / "tiny-imagenet-200"):
        spec = DataSpec(name="tiny_imagenet", root=str(root))
        data = load_dataset(spec)
        assert data.classes == ("goldfish", "crane n02", "crane n03")
        assert num_classes(spec) == 3
        assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert data.test.labels.tolist() == [(i * 2) % 3 for i in range(6)]
        for split in (data.train, data.test):
            for position, name in enumerate(split.files):
                np.testing.assert_array_equal(
                    split.take(slice(position, position + 1))[0], pixels[name].transpose(2, 0, 1)
                )


def test_other_annotations_are_other_data(tmp_path: Path) -> None:
    written_tiny(tmp_path / "t")
    spec = DataSpec(name="tiny_imagenet", root=str(tmp_path / "t"))
    before = load_dataset(spec).test.labels.tolist()
    file = tmp_path / "t" / "val" / "val_annotations.txt"
    text = file.read_text()
    file.write_text(text.replace("val_0.JPEG\tn01", "val_0.JPEG\tn02"))
    assert load_dataset(spec).test.labels.tolist() == [1, *before[1:]]
    per_batch = load_dataset(spec.model_copy(update={"decoded": "per_batch"}))
    assert per_batch.test.labels.tolist() == [1, *before[1:]]


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda root: (root / "wnids.txt").unlink(), "tiny_imagenet is not in"),
        (lambda root: (root / "val" / "val_annotations.txt").unlink(), "lacks val/val_annotations.txt"),
        (lambda root: (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn09\t1\n"), ":1: not a file and"),
        (lambda root: (root / "val" / "val_annotations.txt").write_text("../x\tn01\t1\n"), ":1: not a file and"),
        (lambda root: (root / "wnids.txt").write_text("n01\nn02\nn03\nn05\n"), "lacks train/n05/images"),
        (lambda root: (root / "wnids.txt").write_text("n01\nn01\n"), "2 ids, 1 different"),
    ],
)
def test_what_tiny_imagenet_lacks_is_named(spoil, text: str, tmp_path: Path) -> None:
    written_tiny(tmp_path / "t")
    spoil(tmp_path / "t")
    with pytest.raises((DataError, MissingError), match=text) as error:
        load_dataset(DataSpec(name="tiny_imagenet", root=str(tmp_path / "t")))
    assert "\n" not in error.value.message
