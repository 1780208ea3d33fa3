"""Files are whole or absent, whatever the file system refuses; links stay in their folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import resource
import stat
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill import files
from distill.errors import DataError, DistillError, RunError

PACKAGE = Path(files.__file__).parent


def failing(code: int):
    def fail(*_args, **_options):
        raise OSError(code, os.strerror(code))

    return fail


def test_writes_bytes_and_text_as_they_are(tmp_path):
    files.write_atomically(tmp_path / "deep" / "a.txt", "é\r\n\n")
    files.write_atomically(tmp_path / "b", b"\x00\xff")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == b"\xc3\xa9\r\n\n"
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "deep"]


def test_a_group_can_read_what_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        files.write_atomically(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(("code", "hint"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "writable")])
def test_a_refused_write_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, step, code, hint):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})
    monkeypatch.setattr(files.os, step, failing(code))
    with pytest.raises(DistillError) as caught:
        files.write_json(path, {"new": 2})
    assert caught.value.message == f"cannot write {path}: {os.strerror(code)}"
    assert hint in caught.value.hint
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5000, dtype=np.float32).reshape(50, 100),
        np.asfortranarray(np.arange(600.0).reshape(20, 30)),
        np.arange(600, dtype=np.float16).reshape(20, 30)[::2, 1:],
        np.arange(7, dtype=">i8"),
        np.empty((0, 3), dtype=np.float32),
        np.array(2.5),
        np.array([True, False]),
        np.zeros((3, 1 << 23), dtype=np.uint8) + np.arange(3, dtype=np.uint8)[:, None],  # numpy writes 16 MB at once
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_has_the_bytes_that_numpy_writes(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "theirs.npy", array, allow_pickle=False)
    files.save_array(tmp_path / "ours", array)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs.npy").read_bytes()


def test_an_array_that_does_not_fit_is_refused_by_the_system(tmp_path: Path) -> None:
    """Not by numpy, which says how many numbers were requested and written."""
    array, path = np.zeros((100, 100), dtype=np.float32), tmp_path / "logits.npy"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(DistillError) as caught:
            files.write_with(path, partial(files.save_array, array=array))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.message == f"cannot write {path}: File too large"
    assert "free some space" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_nobody_lets_numpy_write_a_file() -> None:
    """What it writes itself fails without a reason: see ``save_array``."""
    theirs = re.compile(r"\bnp\.save(z|z_compressed)?\(|\.tofile\(")
    found = {
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text().splitlines()
        if theirs.search(line)
    }
    assert {each.partition(":")[0] for each in found} == {"files.py", "certificate/kit.py"}, found  # into memory


def test_a_writer_that_raises_leaves_nothing(tmp_path):
    def write(aside: Path) -> None:
        aside.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_with(tmp_path / "a", write)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", failing(errno.EINVAL))
    files.write_atomically(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(DistillError, match=r"^cannot write .*a/b: "):
        files.write_atomically(tmp_path / "a" / "b", "x")


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b"[1]", "a JSON object was expected"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[" * 200_000, "not JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not JSON"),
    ],
)
def test_damaged_json_names_the_file(tmp_path, content, says):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        files.read_json(path, hint="try again")
    assert caught.value.message.startswith(f"{path}: damaged: ")
    assert says in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint == "try again"


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_one_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    message = "any.json"
    try:
        assert isinstance(files.read_json(path), dict)
    except RunError as error:
        message = error.message
    assert "any.json" in message


def test_missing_files_folders_and_pipes_are_errors_of_the_kind_asked_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("absent", "missing"), (".", "not a file"), ("pipe", "not a file")):
        with pytest.raises(DataError, match=says):
            files.read_json(tmp_path / name, error=DataError)


def test_a_link_is_relative_and_replaced_in_one_step(tmp_path):
    for name in ("001", "002"):
        (tmp_path / name).mkdir()
        files.link_atomically(tmp_path / "latest", name)
        assert os.readlink(tmp_path / "latest") == name
        assert files.follow_link(tmp_path / "latest") == tmp_path / name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["001", "002", "latest"]


def test_a_text_file_stands_in_where_links_are_not_supported(tmp_path, monkeypatch):
    (tmp_path / "001").mkdir()
    monkeypatch.setattr(files.os, "symlink", failing(errno.EPERM))
    files.link_atomically(tmp_path / "latest", "001")
    assert not (tmp_path / "latest").is_symlink()
    assert files.follow_link(tmp_path / "latest") == tmp_path / "001"


def test_a_link_does_not_replace_a_folder_of_the_users(tmp_path):
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "mine").write_text("x")
    with pytest.raises(DistillError, match=r"cannot write .*latest"):
        files.link_atomically(tmp_path / "latest", "001")
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]


@pytest.mark.parametrize("target", ["../other", "/etc", "..", ".", "a/b", "gone"])
def test_a_link_never_leaves_its_folder(tmp_path, target):
    folder = tmp_path / "runs"
    folder.mkdir()
    (tmp_path / "other").mkdir()
    (folder / "a").mkdir()
    os.symlink(target, folder / "latest")
    assert files.follow_link(folder / "latest") is None
    (folder / "text").write_text(f"{target}\n")
    assert files.follow_link(folder / "text") is None


def test_a_link_to_a_link_is_not_followed(tmp_path):
    os.symlink("/etc", tmp_path / "001")
    os.symlink("001", tmp_path / "latest")
    assert files.follow_link(tmp_path / "latest") is None


def test_remove_partials_takes_hidden_partial_files_alone(tmp_path):
    for name in (".run.json.abc.partial", "mine.partial", ".hidden"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".folder.a.partial").mkdir()
    files.remove_partials(tmp_path, "last")
    assert len(list(tmp_path.iterdir())) == 4
    files.remove_partials(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".folder.a.partial", ".hidden", "mine.partial"]


def test_an_export_clears_what_its_own_killed_writers_left(tmp_path: Path) -> None:
    """Of the last day nothing: another process may be writing it. Nor of any other name."""
    path, hours = tmp_path / "big[1].onnx", 3600.0
    left = {"big[1].onnx.0123456789ab": 30, "big[1].onnx.ba9876543210": 2, "big1.onnx.0123456789ab": 30}
    left |= {"big[1].onnx.json.0123456789ab": 30, "big[1].onnx.mine": 30}
    for name, age in left.items():
        (tmp_path / f".{name}.partial").write_text("half")
        os.utime(tmp_path / f".{name}.partial", (time.time() - age * hours,) * 2)
    files.write_export(path, b"whole")
    assert path.read_bytes() == b"whole"
    kept = {each.name for each in tmp_path.iterdir()} - {path.name}
    assert kept == {f".{name}.partial" for name in left} - {".big[1].onnx.0123456789ab.partial"}


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    assert files.sha256_file(tmp_path / "a") == hashlib.sha256(b"x" * 100_000).hexdigest()


@pytest.mark.parametrize("below", ["report.csv", "deep/er/report.csv"])
def test_a_file_where_a_folder_is_wanted_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "notes").write_text("mine")
    path = tmp_path / "notes" / below
    with pytest.raises(DistillError) as error:
        files.write_atomically(path, b"1,2\n")
    assert error.value.message == f"cannot write {path}: {tmp_path / 'notes'} is a file, not a folder"
    assert (tmp_path / "notes").read_text() == "mine"


# Home folders


def test_a_home_folder_that_nobody_has_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert files.expanded("~/photos") == tmp_path / "photos"
    assert files.expanded("photos/~") == Path("photos/~")
    assert files.expanded("~nobody-of-this-name/photos") == Path("~nobody-of-this-name/photos")
    asking = [path.name for path in PACKAGE.rglob("*.py") if ".expanduser()" in path.read_text(encoding="utf-8")]
    assert asking == []  # pathlib's own raises
