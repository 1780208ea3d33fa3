"""Lines are whole or dropped; going back keeps the first lines byte for byte."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import DistillError, RunError
from distill.recipe import dump_recipe, load_recipe
from distill.runs import create_run, journal


@pytest.fixture
def folder(tmp_path):
    folder = create_run(tmp_path, "a")
    for epoch in range(3):
        folder.append_metrics({"epoch": epoch, "loss": 0.1 * epoch})
    return folder


def test_lines_are_appended_and_read(folder):
    path = folder.path / "metrics.jsonl"
    assert path.read_bytes() == b'{"epoch": 0, "loss": 0.0}\n{"epoch": 1, "loss": 0.1}\n{"epoch": 2, "loss": 0.2}\n'
    assert folder.metrics() == [{"epoch": epoch, "loss": 0.1 * epoch} for epoch in range(3)]
    assert folder.timing() == []


@given(cut=st.integers(0, 78), garbage=st.binary(max_size=5).filter(lambda data: b"\n" not in data))
def test_cut_anywhere_gives_the_whole_lines_and_appending_goes_on_after_them(tmp_path_factory, cut, garbage):
    folder = create_run(tmp_path_factory.mktemp("run"), "a")
    path = folder.path / "metrics.jsonl"
    lines = [b'{"epoch": 0, "loss": 0.0}\n', b'{"epoch": 1, "loss": 0.5}\n', b'{"epoch": 2, "loss": 0.2}\n']
    path.write_bytes(b"".join(lines)[:cut] + garbage)
    whole = cut // 26
    assert [entry["epoch"] for entry in folder.metrics()] == list(range(whole))
    folder.append_metrics({"epoch": 9})
    assert path.read_bytes() == b"".join(lines[:whole]) + b'{"epoch": 9}\n'


def test_a_power_cut_may_leave_zeros_as_the_last_line(folder):
    path = folder.path / "metrics.jsonl"
    whole = path.read_bytes()
    for tail in (b"\0\0\0", b"\0\0\n", b"\xff\xfe\n"):
        path.write_bytes(whole + tail)
        assert len(folder.metrics()) == 3


def test_going_back_keeps_bytes(folder):
    path = folder.path / "metrics.jsonl"
    path.write_bytes(b'{"epoch":0,  "loss":1e-3}\n{"epoch": 1}\n{"epo')
    folder.truncate_metrics(1)
    assert path.read_bytes() == b'{"epoch":0,  "loss":1e-3}\n'
    folder.truncate_metrics(0)
    assert path.read_bytes() == b""


def test_fewer_epochs_than_the_checkpoint_has_is_an_error_for_metrics_alone(folder):
    with pytest.raises(RunError, match=r"metrics\.jsonl: damaged: 3 epochs where the checkpoint has 5"):
        folder.truncate_metrics(5)
    folder.append_timing({"seconds": 1.0})
    folder.truncate_timing(5)
    assert folder.timing() == [{"seconds": 1.0}]
    folder.truncate_timing(0)
    assert folder.timing() == []


@pytest.mark.parametrize("bad", [b"{", b"[1]", b"", b"\xff"])
def test_damage_before_the_last_line_names_the_line(folder, bad):
    path = folder.path / "metrics.jsonl"
    first, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(first + b"\n" + bad + b"\n" + rest)
    with pytest.raises(RunError, match=r"metrics\.jsonl(:2)?: damaged"):
        folder.metrics()


def test_numbers_that_are_not_finite_are_refused(folder):
    with pytest.raises(RunError, match=r"metrics\.jsonl: not finite"):
        folder.append_metrics({"loss": float("inf")})
    assert len(folder.metrics()) == 3


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_full_disk_leaves_the_lines_that_were_there(folder, monkeypatch, step):
    before = (folder.path / "metrics.jsonl").read_bytes()
    real = getattr(os, step)

    def fail(handle, *rest):
        if step == "write":
            real(handle, rest[0][:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, step, fail)
        with pytest.raises(DistillError, match=r"cannot write .*metrics\.jsonl: No space left on device"):
            folder.append_metrics({"epoch": 3})
    assert (folder.path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.log"])
def test_a_link_in_a_hostile_folder_is_not_written_through(tmp_path, name):
    folder = create_run(tmp_path, "a")
    mine = tmp_path / "mine"
    mine.write_text("precious")
    os.symlink(mine, folder.path / name)
    if name == "run.log":
        folder.log("x")
    else:
        with pytest.raises(DistillError, match="cannot write"):
            folder.append_metrics({"epoch": 0})
    assert mine.read_text() == "precious"


def test_the_log_has_the_time_and_any_text(tmp_path):
    folder = create_run(tmp_path, "a")
    folder.log("one\ntwo")
    folder.log("\udcff")
    lines = (folder.path / "run.log").read_bytes().decode().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["one", "two", "\\udcff"]
    assert lines[0][:4].isdigit()
    assert lines[0].split(" ")[0].endswith("+00:00")


@pytest.mark.parametrize(
    ("monitor", "epochs", "picked"),
    [
        ("val_top1", None, 3),
        ("val_top1", 2, 1),
        ("val_loss", None, 2),
        ("val_loss", 1, 1),
        ("val_macro_f1", None, 1),
        ("last", None, 3),
        ("last", 2, 2),
    ],
)
def test_the_epoch_that_ships_need_not_be_the_most_accurate(tmp_path, monitor, epochs, picked):
    folder = create_run(tmp_path, "a")
    assert folder.picked(folder.metrics()) is None
    (folder.path / "recipe.yaml").write_text(
        dump_recipe(load_recipe("quickstart_scratch", [f"train.monitor={monitor}"])), encoding="utf-8"
    )
    for epoch, (top1, loss, f1) in enumerate([(0.7, 0.9, 0.8), (0.7, 0.4, 0.8), (0.8, 0.6, 0.7)], start=1):
        folder.append_metrics({"epoch": epoch, "val_top1": top1, "val_loss": loss, "val_macro_f1": f1})
    assert folder.picked(folder.metrics()[:epochs])["epoch"] == picked
