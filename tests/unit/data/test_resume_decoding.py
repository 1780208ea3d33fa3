"""Decoding that is stopped, killed, shared; and pictures that are decoded anew for every batch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distill
from distill.data import decode_pool, decoded_storage, pictures
from distill.data.array_cache import arrays_folder
from distill.data.batches import Loader
from distill.data.datasets import load_dataset
from distill.data.pictures import Pictures
from distill.data.resume_decoding import DecodingProgress
from distill.data.splits import load_splits
from distill.data.views import plan_view
from distill.errors import DataError, MissingError, UsageError
from distill.events import Event, Note, StageProgress
from distill.recipe.schema import AugmentSpec, DataSpec

SIDE = 12


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of 20 training and 5 test pictures each, JPEGs of sizes of their own."""
    random = np.random.default_rng(7)
    for split, count in (("train", 20), ("test", 5)):
        for label in ("ant", "bee"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for number in range(count):
                height, width = random.integers(SIDE, 3 * SIDE, 2)
                pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / label / f"{number:02d}.jpg")
    return tmp_path / "data"


def spec_of(root: Path, **changes) -> DataSpec:
    return DataSpec(**{"name": "folder", "root": str(root), "image_size": SIDE, **changes})


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each picture is decoded."""
    seen: Counter[str] = Counter()
    real = decode_pool.decode_image

    def counted(content: bytes, size: int) -> np.ndarray:
        seen[hashlib.sha256(content).hexdigest()] += 1
        return real(content, size)

    monkeypatch.setattr(decode_pool, "decode_image", counted)
    monkeypatch.setattr(pictures, "decode_image", counted)
    return seen


def same(one, other) -> bool:
    return np.array_equal(one.take(np.arange(len(one))), other.take(np.arange(len(other))))


# Stopped


def test_what_was_decoded_before_is_not_decoded_again(root: Path, reads, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_dataset(spec_of(root))
    monkeypatch.setenv("DISTILL_CACHE", str(root.parent / "another"))
    reads.clear()

    def press(event: Event) -> None:
        if isinstance(event, StageProgress) and event.stage == "decode" and event.done == 23:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_dataset(spec_of(root), tell=press)
    notes: list[Event] = []
    again = load_dataset(spec_of(root), tell=notes.append)
    assert [note.message for note in notes if isinstance(note, Note)] == [
        f"{root}: 23 of 50 images were decoded before; going on with the others"
    ]
    assert same(again.train, whole.train)
    assert same(again.test, whole.test)
    assert again.fingerprint == whole.fingerprint
    assert (again.mean, again.std) == (whole.mean, whole.std)
    twice = sum(count > 1 for count in reads.values())  # those that threads were at when it was stopped
    assert len(reads) == 50
    assert twice <= 1 + 2 * decode_pool.decoding_threads()
    assert not [path.name for path in arrays_folder().iterdir() if path.name.startswith(".")]


KILLED = """
import os, signal, sys
from distill.data import resume_decoding
from distill.data.datasets import load_dataset
from distill.events import StageProgress
from distill.recipe.schema import DataSpec

resume_decoding._EVERY_S = 0.0

def tell(event):
    if isinstance(event, StageProgress) and event.stage == "decode" and event.done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

load_dataset(DataSpec(name="folder", root=sys.argv[1], image_size=int(sys.argv[3])), tell=tell)
"""


def _killed_at(root: Path, done: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(distill.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, str(root), str(done), str(SIDE)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


def test_killed_again_and_again_it_ends_with_the_same_bytes(root: Path, reads) -> None:
    for done in (1, 20, 45):
        _killed_at(root, done)
    again = load_dataset(spec_of(root))
    assert len(reads) == 50 - 44  # of the last one all but the image at which it died were written down
    shutil.rmtree(arrays_folder())
    whole = load_dataset(spec_of(root))
    assert (same(again.train, whole.train), same(again.test, whole.test)) == (True, True)
    assert again.fingerprint == whole.fingerprint


def _begun(root: Path) -> Path:
    _killed_at(root, 30)
    return next(arrays_folder().glob(".*.going"))


def test_a_picture_that_changed_meanwhile_begins_anew(root: Path, reads) -> None:
    _begun(root)
    Image.new("RGB", (SIDE, SIDE), (9, 9, 9)).save(root / "train" / "ant" / "00.jpg")
    again = load_dataset(spec_of(root))
    assert len(reads) == 50
    assert abs(again.train.take(np.array([0])).astype(int) - 9).max() <= 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "decoding.json").write_text('{"done": 40'),
        lambda folder: (folder / "decoding.json").write_text('{"key": "x", "done": 40, "bad": {}}'),
        lambda folder: (folder / "decoding.json").unlink(),
        lambda folder: (folder / "images_train.npy").unlink(),
        lambda folder: os.truncate(folder / "images_train.npy", 200),
        lambda folder: ((folder / "more").mkdir(), (folder / "decoding.json").write_text("[]")),
    ],
)
def test_what_cannot_be_gone_on_with_is_begun_anew(root: Path, reads, damage) -> None:
    damage(_begun(root))
    again = load_dataset(spec_of(root))
    assert len(reads) == 50
    assert same(again.train, load_dataset(spec_of(root, decoded="per_batch")).train)


def test_bad_pictures_found_before_it_was_stopped_are_known_after_it(root: Path) -> None:
    (root / "train" / "ant" / "03.jpg").write_bytes(b"no picture")
    _begun(root)
    with pytest.raises(DataError, match=r"1 of 50 images in .*\n.*train/ant/03\.jpg: not a"):
        load_dataset(spec_of(root))
    data = load_dataset(spec_of(root, skip_bad=True))
    assert (len(data.train), data.skipped) == (39, 1)


def test_of_two_processes_one_decodes_and_the_other_waits(root: Path) -> None:
    slow = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "print('here', flush=True), sys.stdin.readline()")
    environment = {**os.environ, "PYTHONPATH": str(Path(distill.__file__).parents[1])}
    command = [sys.executable, "-c", slow, str(root), "30", str(SIDE)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as one:
        one.stdout.readline()
        seen: list[Event] = []

        def listen(event: Event) -> None:
            seen.append(event)
            if isinstance(event, Note):
                one.stdin.write("go on\n")
                one.stdin.flush()

        data = load_dataset(spec_of(root), tell=listen)
    assert len(data.train) == 40
    assert "waiting for it" in next(event.message for event in seen if isinstance(event, Note))
    assert not any(isinstance(event, StageProgress) and event.stage == "decode" for event in seen)
    assert [path.name[0] for path in arrays_folder().iterdir()].count(".") == 0


def test_what_nobody_goes_on_with_for_a_week_is_dropped(root: Path) -> None:
    folder = _begun(root)
    old = time.time() - 8 * 86400
    for path in (*folder.iterdir(), folder):
        os.utime(path, (old, old))
    load_dataset(spec_of(root, image_size=SIDE + 4))
    assert not folder.exists()
    recent = _begun(root)
    load_dataset(spec_of(root, image_size=SIDE + 8))
    assert recent.exists()


# Decoded for every batch


def test_decoded_for_every_batch_or_kept_nothing_else_differs(root: Path) -> None:
    (root / "train" / "bee" / "07.jpg").write_bytes(b"")
    asked = {"skip_bad": True, "val_fraction": 0.2, "limit": 30}
    kept, unkept = (load_splits(spec_of(root, decoded=how, **asked)) for how in ("kept", "per_batch"))
    assert isinstance(unkept.train.images, Pictures)
    assert unkept.fingerprint == kept.fingerprint
    assert (unkept.dataset.mean, unkept.dataset.std) == (kept.dataset.mean, kept.dataset.std)
    for name in ("train", "val", "test"):
        assert same(getattr(unkept, name), getattr(kept, name))
    assert unkept.note.startswith("decoded images take 0.0 GB: decoded anew for every batch")
    order = np.random.default_rng(3).permutation(len(kept.train))
    shown = np.zeros(len(order), dtype=np.int64)
    view = plan_view(AugmentSpec(crop_padding=2, mixup={"alpha": 0.5}), n=len(order), image_size=SIDE, view=0)
    pairs = [Loader(each.train, device="cpu").epoch(order, view, shown, 7).batches() for each in (kept, unkept)]
    for one, other in zip(*pairs, strict=True):
        assert np.array_equal(one.images.numpy(), other.images.numpy())
        assert one.labels.tolist() == other.labels.tolist()


def test_pictures_are_looked_at_once_and_nothing_of_them_is_kept(root: Path, reads) -> None:
    shutil.rmtree(root / "test")  # some of the others are set aside, and what is left is no whole array
    spec = spec_of(root, decoded="per_batch")
    first = load_splits(spec)
    assert Counter(reads.values()) == {2: 32, 1: 8}  # whether it is bad; then the digest of those to train on
    reads.clear()
    again = load_splits(spec)
    assert not reads
    assert (again.fingerprint, again.dataset.mean) == (first.fingerprint, first.dataset.mean)
    taken = sum(path.stat().st_size for path in arrays_folder().rglob("*") if path.is_file())
    assert taken < 40 * 3 * SIDE * SIDE / 2


def test_a_picture_that_changes_on_the_way_is_an_error_that_names_it(root: Path) -> None:
    data = load_dataset(spec_of(root, decoded="per_batch"))
    path = root / "train" / "bee" / "11.jpg"
    content = path.read_bytes()
    Image.new("RGB", (SIDE, SIDE)).save(path)
    with pytest.raises(DataError, match=r"bee/11\.jpg: it has changed since this command began") as caught:
        data.train.take(np.arange(40))
    assert "--resume" in caught.value.hint
    path.unlink()
    with pytest.raises(DataError, match=r"bee/11\.jpg: No such file"):
        data.train.take(np.array([31]))
    path.write_bytes(content)


def test_auto_keeps_what_has_room_and_says_why_it_does_not(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(load_dataset(spec_of(root)).train.images, Pictures)
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(decoded_storage.shutil, "disk_usage", lambda _path: usage)
    assert not isinstance(load_dataset(spec_of(root)).train.images, Pictures)  # it is there already
    data = load_dataset(spec_of(root, image_size=SIDE + 1))
    assert isinstance(data.train.images, Pictures)
    assert data.note.endswith("GB free: pictures are decoded anew for every batch, which is slower")
    with pytest.raises(MissingError, match="GB free"):
        load_dataset(spec_of(root, image_size=SIDE + 1, decoded="kept"))


def test_auto_opens_what_is_kept_however_little_the_disk_says_it_takes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems that compress: the images, black here, are a hole in their file."""
    for path in root.rglob("*.jpg"):
        Image.new("RGB", (SIDE, SIDE)).save(path)
    load_dataset(spec_of(root))
    files = list(arrays_folder().glob("*/images_*.npy"))
    for file in files:
        content = file.read_bytes()
        assert not any(content[128:])
        with open(file, "wb") as sparse:
            sparse.write(content[:128])
            sparse.truncate(len(content))
    monkeypatch.setattr(decoded_storage.shutil, "disk_usage", lambda _path: type("usage", (), {"free": 1000}))
    if sum(getattr(file.stat(), "st_blocks", 100) * 512 for file in files) >= 50 * 3 * SIDE * SIDE - 1000:
        pytest.skip("this file system has no holes in files")
    assert not isinstance(load_dataset(spec_of(root)).train.images, Pictures)


def test_what_is_larger_than_memory_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded_storage, "free_memory", lambda: 50 * 3 * SIDE * SIDE - 1)
    assert load_dataset(spec_of(root)).note.endswith("of memory are free: they are read from the disk as needed")
    monkeypatch.setattr(decoded_storage, "free_memory", lambda: 50 * 3 * SIDE * SIDE)
    assert load_dataset(spec_of(root)).note is None


def test_free_memory_is_what_the_system_says() -> None:
    if not Path("/proc/meminfo").is_file():
        assert decoded_storage.free_memory() is None
        return
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < decoded_storage.free_memory() <= total


def test_where_it_cannot_be_is_one_line(root: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "data"), "zip", root)
    with pytest.raises(UsageError, match="per_batch needs a folder") as caught:
        load_dataset(spec_of(tmp_path / "data.zip", decoded="per_batch"))
    assert "unpack it" in caught.value.hint
    with pytest.raises(UsageError, match=r"data\.name is digits"):
        load_dataset(DataSpec(name="digits", decoded="per_batch"))


def test_an_archive_is_gone_on_with_too(root: Path, tmp_path: Path, reads) -> None:
    shutil.make_archive(str(tmp_path / "data"), "gztar", root)
    archive = tmp_path / "data.tar.gz"
    _killed_at(archive, 30)
    again = load_dataset(spec_of(archive))
    assert len(reads) == 50 - 29
    assert same(again.train, load_dataset(spec_of(root)).train)


def test_what_is_written_down_counts_what_is_on_the_disk(tmp_path: Path) -> None:
    """Pixels first, then the line that makes them count."""
    order = []

    class File:
        def sync(self) -> None:
            order.append((tmp_path / "decoding.json").exists())

    at = DecodingProgress.resume(tmp_path, "k", {})
    at.save(3, {"train": {2: "bad"}}, [File()])
    assert order == [False]
    assert json.loads((tmp_path / "decoding.json").read_text()) == {
        "key": "k",
        "done": 3,
        "bad": {"train": [[2, "bad"]]},
    }
    assert DecodingProgress.resume(tmp_path, "k", {}).bad == {"train": {2: "bad"}}
