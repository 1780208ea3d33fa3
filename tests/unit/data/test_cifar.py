"""CIFAR from official files: small stand-ins made here, and the real ones where there are some."""

from __future__ import annotations

import hashlib
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision

from distill.data.datasets import load_dataset, num_classes
from distill.errors import DataError, MissingError
from distill.recipe.schema import DataSpec

REAL = Path(os.environ.get("DISTILL_TEST_CIFAR", Path(__file__).parents[3] / "data"))


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["cifar10", "cifar100"])
def official(request, tmp_path, monkeypatch, _own_cache):
    """A tiny official data set under root, with its archive to download elsewhere; torchvision knows their md5."""
    name = request.param
    source = getattr(torchvision.datasets, name.upper())
    classes = int(name.removeprefix("cifar"))
    folder = tmp_path / "data" / source.base_folder
    folder.mkdir(parents=True)
    key = "labels" if name == "cifar10" else "fine_labels"
    random = np.random.default_rng(0)
    for file, _ in source.train_list + source.test_list:
        data = random.integers(0, 256, (classes, 3072), dtype=np.uint8)
        content = {"data": data, key: random.permutation(classes).tolist(), "coarse_labels": [0] * classes}
        (folder / file).write_bytes(pickle.dumps(content, protocol=4))
    meta = {source.meta["key"]: [f"class {i}" for i in range(classes)]}
    (folder / source.meta["filename"]).write_bytes(pickle.dumps(meta, protocol=4))
    (tmp_path / "web").mkdir()
    archive = tmp_path / "web" / source.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, source.base_folder)
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(source, attribute, [[f, md5(folder / f)] for f, _ in getattr(source, attribute)])
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5(folder / source.meta["filename"])})
    monkeypatch.setattr(source, "tgz_md5", md5(archive))
    monkeypatch.setattr(source, "url", archive.as_uri())
    return DataSpec(name=name, root=str(tmp_path / "data")), source, folder, archive


def remove(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_it_is_what_torchvision_reads(official):
    spec, source, _, _ = official
    data = load_dataset(spec)
    for split, train in ((data.train, True), (data.test, False)):
        expected = source(spec.root, train=train)
        assert np.array_equal(split.take(slice(None)), expected.data.transpose(0, 3, 1, 2))
        assert split.labels.tolist() == expected.targets
    assert list(data.classes) == expected.classes
    assert num_classes(spec) == len(expected.classes)
    again = load_dataset(spec)
    assert (again.fingerprint, again.mean, again.std) == (data.fingerprint, data.mean, data.std)


def test_another_image_size_is_resized(official):
    spec, _, _, _ = official
    assert load_dataset(DataSpec(**{**spec.model_dump(), "image_size": 40})).train.images.shape[1:] == (3, 40, 40)


def test_a_damaged_file_is_named(official):
    spec, source, folder, _ = official
    load_dataset(spec)  # decoded before: still, what lies there now is checked
    target = folder / source.train_list[-1][0]
    target.write_bytes(target.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{target} is damaged: .* bytes with md5") as caught:
        load_dataset(spec)
    assert f"remove {folder}" in caught.value.hint


def test_a_missing_file_is_named(official):
    spec, source, folder, _ = official
    (folder / source.test_list[0][0]).unlink()
    with pytest.raises(DataError, match=f"is incomplete: it lacks {source.test_list[0][0]}"):
        load_dataset(spec)


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("official", ["cifar10"], indirect=True)
def test_even_a_file_of_known_md5_builds_arrays_alone(official, tmp_path, monkeypatch):
    spec, source, folder, _ = official
    target = folder / source.test_list[0][0]
    target.write_bytes(pickle.dumps({"data": Touch(tmp_path / "owned")}))
    monkeypatch.setattr(source, "test_list", [[target.name, md5(target)]])
    with pytest.raises(pickle.UnpicklingError):
        load_dataset(spec)
    assert not (tmp_path / "owned").exists()


def test_absent_files_are_downloaded_whole(official):
    spec, _, folder, _ = official
    expected = load_dataset(spec).fingerprint
    remove(folder)
    folder.parent.rmdir()
    told = []
    assert load_dataset(spec, tell=told.append).fingerprint == expected
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    downloads = [event for event in told if event.stage == "download"]
    assert downloads[-1].done == downloads[-1].total > 0


def test_an_archive_placed_by_hand_is_unpacked(official):
    spec, source, folder, archive = official
    remove(folder)
    archive.rename(folder.parent / source.filename)
    assert len(load_dataset(spec).classes) == num_classes(spec)


def test_a_half_download_is_not_read_as_whole(official):
    spec, source, folder, archive = official
    remove(folder)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(DataError, match="damaged or half downloaded"):
        load_dataset(spec)
    archive.rename(folder.parent / source.filename)
    with pytest.raises(DataError, match=f"{folder.parent / source.filename} is damaged or half downloaded") as caught:
        load_dataset(spec)
    assert f"remove {folder.parent / source.filename}" in caught.value.hint
    assert [path.name for path in folder.parent.iterdir()] == [source.filename]


def test_without_a_network_it_says_where_to_put_what(official, monkeypatch):
    spec, source, folder, _ = official
    remove(folder)
    monkeypatch.setattr(source, "url", "http://127.0.0.1:9/nothing.tar.gz")
    with pytest.raises(MissingError, match=f"{spec.name} is not in {folder}, and it cannot be downl") as caught:
        load_dataset(spec)
    assert source.filename in caught.value.hint
    assert "https://www.cs.toronto.edu/~kriz/cifar.html" in caught.value.hint
    assert str(folder.parent) in caught.value.hint
    assert list(folder.parent.iterdir()) == []


@pytest.mark.skipif(not (REAL / "cifar-10-batches-py").is_dir(), reason="no CIFAR-10 (DISTILL_TEST_CIFAR)")
@pytest.mark.usefixtures("_own_cache")
def test_the_real_cifar10():
    data = load_dataset(DataSpec(name="cifar10", root=str(REAL)))
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(data.train.labels).tolist() == [5000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert data.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)
    expected = torchvision.datasets.CIFAR10(REAL, train=False)
    assert np.array_equal(data.test.images, expected.data.transpose(0, 3, 1, 2))
    assert data.test.labels.tolist() == expected.targets
