"""A folder of the user's own images."""

from __future__ import annotations

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from distill.data.datasets import load_dataset, num_classes
from distill.data.folder import folder_classes, list_folder
from distill.data.splits import load_splits
from distill.data.survey import survey
from distill.errors import DataError, MissingError
from distill.events import StageProgress
from distill.recipe.schema import DataSpec


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))


def pixels_of(*key, side=8):
    seed = int.from_bytes("".join(map(str, key)).encode(), "little")
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pets(tmp_path):
    """Two classes, three training and two test images each, of 8 x 8 pixels."""
    root = tmp_path / "pets"
    for split, n in (("train", 3), ("test", 2)):
        for label in ("dog", "cat"):
            for i in range(n):
                write_image(root / split / label / f"{i}.png", pixels_of(split, label, i))
    return root


def spec_of(root, **changes):
    return DataSpec(**{"name": "folder", "root": str(root), "image_size": 8, **changes})


def test_pixels_labels_and_order(pets):
    data = load_dataset(spec_of(pets))
    assert data.classes == ("cat", "dog")
    assert data.train.files == (*(f"train/cat/{i}.png" for i in range(3)), *(f"train/dog/{i}.png" for i in range(3)))
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.val is None
    for position, file in enumerate(data.train.files):
        split, label, name = file.split("/")
        expected = pixels_of(split, label, name[0]).transpose(2, 0, 1)
        assert np.array_equal(data.train.take(np.array([position]))[0], expected)


def test_mean_and_std_are_those_of_the_training_pixels(pets):
    data = load_dataset(spec_of(pets))
    values = np.stack([pixels_of("train", label, i) for label in ("cat", "dog") for i in range(3)]) / 255
    assert data.mean == pytest.approx(values.mean(axis=(0, 1, 2)), abs=1e-6)
    assert data.std == pytest.approx(values.std(axis=(0, 1, 2)), abs=1e-6)


def test_the_second_time_no_image_is_read(pets, monkeypatch):
    first = load_dataset(spec_of(pets))
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded again"))
    second = load_dataset(spec_of(pets))
    assert second.fingerprint == first.fingerprint
    assert (second.mean, second.std, second.train.files) == (first.mean, first.std, first.train.files)


def test_a_changed_file_is_read_again(pets):
    before = load_dataset(spec_of(pets))
    write_image(pets / "train/cat/1.png", pixels_of("another"))
    after = load_dataset(spec_of(pets))
    assert after.fingerprint != before.fingerprint
    assert np.array_equal(after.train.take(np.array([1]))[0], pixels_of("another").transpose(2, 0, 1))


def test_the_fingerprint_does_not_know_where_the_folder_is(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "elsewhere")
    assert load_dataset(spec_of(tmp_path / "elsewhere")).fingerprint == load_dataset(spec_of(pets)).fingerprint


def test_every_format_by_content_whatever_its_name(pets):
    jpeg = io.BytesIO()
    Image.new("RGB", (30, 20), (200, 40, 90)).save(jpeg, "JPEG", quality=95)
    (pets / "train/cat/a.png").write_bytes(jpeg.getvalue())  # a JPEG named .png
    for suffix in ("JPG", "webp", "bmp"):
        Image.new("RGB", (30, 20), (200, 40, 90)).save(pets / f"train/cat/b.{suffix}", quality=100)
    data = load_dataset(spec_of(pets))
    added = [i for i, file in enumerate(data.train.files) if file.split("/")[2][0] in "ab"]
    assert len(added) == 4
    target = np.array([200, 40, 90]).reshape(3, 1, 1)
    assert np.abs(data.train.take(np.array(added)).astype(int) - target).max() < 8


def test_hidden_files_are_passed_over_and_others_are_counted(pets):
    (pets / "train/cat/.DS_Store").write_text("x")
    (pets / "train/.ipynb_checkpoints").mkdir()
    (pets / "train/cat/notes.txt").write_text("x")
    (pets / "train/loose.png").write_text("x")
    write_image(pets / "train/cat/nested/0.png", pixels_of("nested"))
    data = load_dataset(spec_of(pets))
    assert len(data.train) == 6
    assert data.ignored == 3
    assert data.skipped == 0


def test_links_to_images_and_to_classes_are_followed(pets, tmp_path):
    write_image(tmp_path / "store/x.png", pixels_of("linked"))
    (pets / "train/cat/9.png").symlink_to(tmp_path / "store/x.png")
    (pets / "train/dog").rename(tmp_path / "dogs")
    (pets / "train/dog").symlink_to(tmp_path / "dogs")
    data = load_dataset(spec_of(pets))
    assert data.train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert np.array_equal(data.train.take(np.array([3]))[0], pixels_of("linked").transpose(2, 0, 1))


def add_bad_images(pets):
    good = (pets / "train/cat/0.png").read_bytes()
    (pets / "train/cat/empty.png").write_bytes(b"")
    (pets / "train/cat/truncated.png").write_bytes(good[: len(good) // 2])
    (pets / "train/dog/text.jpg").write_text("no image")
    (pets / "test/dog/gone.png").symlink_to(pets / "nowhere.png")
    os.mkfifo(pets / "test/cat/pipe.png")
    (pets / "train/cat/there.png").symlink_to("back.png")
    (pets / "train/cat/back.png").symlink_to("there.png")


def test_all_bad_images_are_listed_at_once(pets):
    add_bad_images(pets)
    with pytest.raises(DataError) as caught:
        load_dataset(spec_of(pets))
    lines = caught.value.message.splitlines()
    assert lines[0] == f"7 of 17 images in {pets} cannot be used:"
    assert "  train/cat/empty.png: empty file" in lines
    assert "  train/dog/text.jpg: not a PNG, JPEG, WebP, BMP, GIF or TIFF image" in lines
    assert "  test/dog/gone.png: cannot be read: No such file or directory" in lines
    assert "  test/cat/pipe.png: not a regular file" in lines
    assert "  train/cat/back.png: cannot be read: Too many levels of symbolic links" in lines
    assert any(line.startswith("  train/cat/truncated.png: ") for line in lines)
    assert "--set data.skip_bad=true" in caught.value.hint


def test_bad_images_can_be_skipped(pets):
    clean = load_dataset(spec_of(pets))
    add_bad_images(pets)
    data = load_dataset(spec_of(pets, skip_bad=True))
    assert data.skipped == 7
    assert data.train.files == clean.train.files
    assert np.array_equal(data.train.labels, clean.train.labels)
    assert np.array_equal(data.train.take(slice(None)), clean.train.take(slice(None)))
    assert data.fingerprint == clean.fingerprint
    assert (data.mean, data.std) == (clean.mean, clean.std)
    with pytest.raises(DataError, match="7 of 17"):  # also where they were decoded already
        load_dataset(spec_of(pets))


def test_a_long_list_of_bad_images_is_cut(pets):
    for i in range(25):
        (pets / f"train/cat/bad{i:02d}.png").write_bytes(b"bad")
    with pytest.raises(DataError) as caught:
        load_dataset(spec_of(pets))
    lines = caught.value.message.splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  and 5 more"


def test_a_class_that_loses_every_image_is_an_error(pets):
    for path in (pets / "test/dog").iterdir():
        path.write_bytes(b"bad")
    with pytest.raises(DataError, match="every image of test/dog is bad"):
        load_dataset(spec_of(pets, skip_bad=True))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_bad_until_it_can_be_read(pets):
    (pets / "train/cat/0.png").chmod(0)
    assert load_dataset(spec_of(pets, skip_bad=True)).skipped == 1
    (pets / "train/cat/0.png").chmod(0o644)
    assert load_dataset(spec_of(pets)).skipped == 0


def test_a_decompression_bomb_is_bad(pets, monkeypatch):
    write_image(pets / "train/cat/big.png", pixels_of("big", side=40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"train/cat/big\.png: decompression bomb"):
        load_dataset(spec_of(pets))


def test_a_class_whose_link_leads_in_circles_is_not_lost_without_a_word(pets):
    (pets / "train/eel").symlink_to("eel")
    with pytest.raises(DataError, match=r"cannot list .*train/eel: Too many levels"):
        load_dataset(spec_of(pets, skip_bad=True))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root / "train"), "has test/ and no train/ folder"),
        (lambda root: (root / "test").rename(root / "Test"), "has Test/, in capitals"),
        (lambda root: (root / "train").rename(root / "TRAIN"), "has TRAIN/, in capitals"),
        (
            lambda root: shutil.copytree(root / "test", root / "val") and shutil.copytree(root / "val", root / "valid"),
            "val/ and valid/ are both validation",
        ),
        (
            lambda root: [
                shutil.rmtree(root / "test"),
                [(root / f"train/{c}/{i}.png").unlink() for c in ("cat", "dog") for i in (1, 2)],
            ],
            "has no test/ folder, and no class has an image to spare",
        ),
        (lambda root: (root / "test/dog").rename(root / "test/Dog"), r"test/ lacks dog; test/ alone has Dog"),
        (lambda root: (root / "train/eel").mkdir(), r"test/ lacks eel"),
        (lambda root: [(root / s / "eel").mkdir() for s in ("train", "test")], "no images in train/eel, test/eel"),
        (lambda root: shutil.rmtree(root / "train/dog"), r"one class folder alone \(cat\)"),
        (lambda root: write_image(root / "val/cat/0.png", pixels_of("v")), "val/ and train/ differ: val/ lacks dog"),
    ],
)
def test_a_wrong_layout_is_named(pets, damage, message):
    damage(pets)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(spec_of(pets))
    assert caught.value.hint


def test_a_root_one_folder_too_high_is_guessed(pets):
    for ask in (load_dataset, num_classes):  # a run counts the classes first
        with pytest.raises(DataError) as caught:
            ask(spec_of(pets.parent))
        assert f"--set data.root={pets}" in caught.value.hint


def test_pictures_one_folder_too_deep_are_no_classes_of_train(tmp_path):
    for name in ("a/x/0.png", "a/y/0.png", "b/x/0.png"):
        write_image(tmp_path / name, pixels_of(name))
    for ask in (load_dataset, num_classes):
        with pytest.raises(DataError, match="has no train/ folder and no class folders") as caught:
            ask(spec_of(tmp_path))
        assert "directly in the class folder" in caught.value.hint


def test_an_absent_root_is_missing(tmp_path):
    for ask in (load_dataset, num_classes):
        with pytest.raises(MissingError, match="nowhere") as caught:
            ask(spec_of(tmp_path / "nowhere"))
        assert "train/<class>/<image>" in caught.value.hint


def test_classes_are_counted_without_decoding(pets, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    assert num_classes(spec_of(pets)) == 2


def test_limits_choose_balanced_subsets_in_order(pets):
    data = load_dataset(spec_of(pets, limit=4, test_limit=2))
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    assert list(data.train.files) == sorted(data.train.files)
    chosen = np.stack([pixels_of(*f.removesuffix(".png").split("/")).transpose(2, 0, 1) for f in data.train.files])
    assert np.array_equal(data.train.take(slice(None)), chosen)
    assert data.mean == pytest.approx(chosen.mean(axis=(0, 2, 3)) / 255, abs=1e-6)
    assert data.fingerprint == load_dataset(spec_of(pets, limit=4)).fingerprint
    assert data.fingerprint != load_dataset(spec_of(pets)).fingerprint


def test_progress_counts_every_image(pets):
    told = []
    load_dataset(spec_of(pets), tell=told.append)
    assert [event for event in told if event.stage == "decode"] == [
        StageProgress("decode", i + 1, 10) for i in range(10)
    ]


# Folders that are not split


@pytest.mark.parametrize("folder", ["val", "valid", "validation"])
def test_validation_may_be_called_so(pets, folder):
    write_image(pets / folder / "cat/0.png", pixels_of("v"))
    write_image(pets / folder / "dog/0.png", pixels_of("w"))
    data = load_dataset(spec_of(pets))
    assert data.val.files == (f"{folder}/cat/0.png", f"{folder}/dog/0.png")
    assert data.note is None


def classes_alone(root, per_class=10):
    for label in ("dog", "cat"):
        for i in range(per_class):
            write_image(root / label / f"{i}.png", pixels_of(label, i))
    return root


def test_without_test_images_some_of_each_class_are_set_aside_and_it_is_said(tmp_path):
    root = classes_alone(tmp_path / "pets/train").parent
    splits = load_splits(spec_of(root))
    files = {name: set(getattr(splits, name).files) for name in ("train", "val", "test")}
    assert {name: len(of) for name, of in files.items()} == {"train": 14, "val": 2, "test": 4}
    assert len(set.union(*files.values())) == 20
    assert splits.test.labels.tolist() == [0, 0, 1, 1]
    assert "has no test/: 4 of 20 images are set aside for testing (data.test_fraction 0.2" in splits.note
    again = load_splits(spec_of(root, val_fraction=0.3))
    assert set(again.test.files) == files["test"]  # the same test images whatever is validated on
    assert set(load_splits(spec_of(root, split_seed=1)).test.files) != files["test"]
    assert len(load_splits(spec_of(root, test_fraction=0.5)).test) == 10


def test_mean_and_fingerprint_are_those_of_the_images_that_are_left(tmp_path):
    root = classes_alone(tmp_path / "pets/train").parent
    data = load_dataset(spec_of(root))
    left = np.stack([pixels_of(*file.removesuffix(".png").split("/")[1:]) for file in data.train.files]) / 255
    assert data.mean == pytest.approx(left.mean(axis=(0, 1, 2)), abs=1e-6)
    assert load_dataset(spec_of(root, split_seed=1)).fingerprint != data.fingerprint


def test_class_folders_alone_are_a_data_set(tmp_path):
    root = classes_alone(tmp_path / "pets")
    (root / "notes").mkdir()  # no picture in it: no class
    data = load_dataset(spec_of(root))
    assert data.classes == ("cat", "dog")
    assert num_classes(spec_of(root)) == 2
    assert {file.split("/")[0] for file in (*data.train.files, *data.test.files)} == {"cat", "dog"}
    position = data.train.files.index(next(file for file in data.train.files if file.startswith("dog")))
    label, name = data.train.files[position].split("/")
    expected = pixels_of(label, name.removesuffix(".png")).transpose(2, 0, 1)
    assert np.array_equal(data.train.take(np.array([position]))[0], expected)


@pytest.mark.parametrize("decoded", ["kept", "per_batch"])
def test_a_folder_beside_classes_without_a_picture_of_its_own_is_named(tmp_path, decoded):
    """A class must not be lost without a word: its pictures may lie a folder deeper."""
    root = classes_alone(tmp_path / "pets")
    write_image(root / "owl/2024/0.png", pixels_of("t"))
    note = load_dataset(spec_of(root, decoded=decoded)).note
    assert note is not None
    assert "owl/ holds no picture directly: no class" in note
    assert survey(spec_of(root)).note == list_folder(spec_of(root)).note == note.splitlines()[0]
    (root / "empty").mkdir()
    assert "empty/, owl/ hold no picture directly" in (load_dataset(spec_of(root, decoded=decoded)).note or "")


def test_a_class_may_be_called_train_in_capitals(tmp_path):
    root = classes_alone(tmp_path / "vehicles")
    for name in ("cat", "dog"):
        (root / name).rename(root / {"cat": "Bus", "dog": "Train"}[name])
    assert {"Bus", "Train"} <= set(load_dataset(spec_of(root)).classes)


def test_a_test_folder_beside_class_folders_is_no_class(tmp_path):
    root = classes_alone(tmp_path / "pets")
    write_image(root / "test/cat/0.png", pixels_of("t"))
    with pytest.raises(DataError, match="has test/ and no train/ folder"):
        load_dataset(spec_of(root))
    with pytest.raises(DataError, match="has test/ and no train/ folder"):
        folder_classes(spec_of(root))
