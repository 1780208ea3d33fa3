"""Decoded images on disk: damage, races, and places that cannot be written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import distill
from distill.data.array_cache import ArrayWriter, array_key, arrays_folder, open_or_build, require_space
from distill.errors import MissingError
from distill.events import silent

KEY = array_key("test", 1)
PIXELS = np.arange(4 * 3 * 5 * 5, dtype=np.uint8).reshape(4, 3, 5, 5)
LABELS = np.array([3, 1, 2, 0])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))


def build(aside):
    with ArrayWriter(aside, "train", LABELS, 5) as writer:
        writer.write(2, PIXELS[2:])
        writer.write(0, PIXELS[:2])
    return {"fact": 7}


def refuse(aside):
    pytest.fail("built again")


def test_what_was_written_is_what_is_read():
    open_or_build(KEY, build, silent)
    entry = open_or_build(KEY, refuse, silent)
    assert np.array_equal(entry.splits["train"].images, PIXELS)
    assert np.array_equal(entry.splits["train"].labels, LABELS)
    assert entry.facts == {"fact": 7}
    assert not entry.splits["train"].images.flags.writeable
    assert [path.name for path in arrays_folder().iterdir()] == [KEY]


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


DAMAGES = [
    lambda folder: flip_a_bit(folder / "images_train.npy"),
    lambda folder: flip_a_bit(folder / "labels_train.npy"),
    lambda folder: os.truncate(folder / "images_train.npy", 300),
    lambda folder: os.truncate(folder / "images_train.npy", 0),
    lambda folder: (folder / "images_train.npy").unlink(),
    lambda folder: (folder / "meta.json").unlink(),
    lambda folder: (folder / "meta.json").write_text('{"arrays": '),
    lambda folder: (folder / "meta.json").write_text("[]"),
    lambda folder: (shutil.rmtree(folder), folder.write_text("a file")),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_built_again(damage):
    open_or_build(KEY, build, silent)
    damage(arrays_folder() / KEY)
    entry = open_or_build(KEY, build, silent)
    assert np.array_equal(entry.splits["train"].images, PIXELS)
    open_or_build(KEY, refuse, silent)


def test_a_failed_build_leaves_nothing():
    def fail(aside):
        build(aside)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_or_build(KEY, fail, silent)
    assert list(arrays_folder().iterdir()) == []


def test_whoever_finishes_first_wins_and_the_other_reads_it():
    def build_while_another_does(aside):
        open_or_build(KEY, build, silent)
        return {**build(aside), "fact": "mine"}

    entry = open_or_build(KEY, build_while_another_does, silent)
    assert entry.facts == {"fact": 7}
    assert [path.name for path in arrays_folder().iterdir()] == [KEY]


BUILDER = """
import sys, time
import numpy as np
from distill.data.array_cache import ArrayWriter, open_or_build
from distill.events import silent

def slowly(aside):
    with ArrayWriter(aside, "train", np.arange(4), 5) as writer:
        writer.write(0, np.full((4, 3, 5, 5), 9, dtype=np.uint8))
    time.sleep(0.3)
    return {}

sys.stdin.readline()  # all start together
sys.exit(int(open_or_build(sys.argv[1], slowly, silent).splits["train"].images.min()))
"""


def test_processes_that_build_at_once_all_end_well():
    repository = str(Path(distill.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": repository}
    command = [sys.executable, "-c", BUILDER, KEY]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, text=True) for _ in range(3)]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.close()
    assert [worker.wait(30) for worker in workers] == [9, 9, 9]
    assert [path.name for path in arrays_folder().iterdir()] == [KEY]


def test_leftovers_of_killed_processes_are_removed_after_a_day():
    for name, age in ((".x.old.partial", 2 * 86400), (".x.new.partial", 60)):
        folder = arrays_folder() / name
        folder.mkdir(parents=True)
        (folder / "images_train.npy").write_bytes(b"x")
        for path in (folder / "images_train.npy", folder):
            os.utime(path, (time.time() - age, time.time() - age))
    open_or_build(KEY, build, silent)
    assert sorted(path.name for path in arrays_folder().iterdir()) == [".x.new.partial", KEY]


KILLED = """
import os, signal, sys
from distill.data.array_cache import open_or_build
from distill.events import silent

def die(aside):
    (aside / "images_train.npy").write_bytes(b"half")
    print(aside, flush=True)
    if sys.argv[2] == "wait":
        sys.stdin.readline()
        return {}
    os.kill(os.getpid(), signal.SIGKILL)

open_or_build(sys.argv[1], die, silent)
"""


def test_what_a_killed_process_was_building_is_removed_at_once_and_a_living_ones_is_not():
    environment = {**os.environ, "PYTHONPATH": str(Path(distill.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, array_key("another")]
    killed = subprocess.run([*command, "die"], env=environment, check=False, capture_output=True, text=True)
    assert Path(killed.stdout.strip()).is_dir()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*command, "wait"], env=environment, text=True, **pipes) as living:
        its = Path(living.stdout.readline().strip())
        assert not Path(killed.stdout.strip()).exists()
        open_or_build(KEY, build, silent)
        assert its.is_dir()
        assert [path.name for path in arrays_folder().iterdir() if path.is_dir() and path != its] == [KEY]
        living.stdin.write("\n")
    assert sorted(path.name for path in arrays_folder().iterdir() if path.name.startswith(".")) == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "file"))
    with pytest.raises(MissingError, match=r"cannot keep decoded images in .*: Not a directory") as caught:
        open_or_build(KEY, build, silent)
    assert "DISTILL_CACHE" in caught.value.hint


def test_a_full_disk_is_one_line(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def build_on_a_full_disk(aside):
        with ArrayWriter(aside, "train", LABELS, 5) as writer:
            writer._file.close()
            writer._file = type("Full", (), {"seek": full, "write": full, "close": full})()
            writer.write(0, PIXELS)

    with pytest.raises(MissingError, match="No space left on device"):
        open_or_build(KEY, build_on_a_full_disk, silent)
    assert list(arrays_folder().iterdir()) == []


def test_too_little_space_is_told_before_work_begins(tmp_path):
    with pytest.raises(MissingError, match=r"take 1000000000\.0 GB"):
        require_space(tmp_path, 10**18)


def test_metadata_is_json_that_names_every_array():
    open_or_build(KEY, build, silent)
    meta = json.loads((arrays_folder() / KEY / "meta.json").read_text())
    assert meta["arrays"]["train"]["shape"] == [4, 3, 5, 5]


def test_without_a_home_folder_the_line_says_where_to_name_one(monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(MissingError, match="there is no such home folder") as caught:
        open_or_build(KEY, refuse, silent)
    assert caught.value.hint == "name a folder: DISTILL_CACHE=DIR"
