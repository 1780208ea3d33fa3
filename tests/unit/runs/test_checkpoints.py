"""Checkpoints: the same bytes for the same state, whole or absent under SIGKILL, damage named, nothing unpickled."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import re
import resource
import signal
import stat
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from distill.errors import DistillError, RunError
from distill.files import sha256_file
from distill.runs import RunFolder
from distill.runs.checkpoints import (
    best_checkpoint,
    is_whole,
    last_checkpoint,
    load_checkpoint,
    prune,
    read_meta,
    save_checkpoint,
    set_link,
)

FILES = ("model.safetensors", "resume.pt", "meta.json")
DEAD = 4_000_000  # above the largest process number


def model(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((3, 2), value), "steps": torch.tensor(7), "half": torch.ones(2, dtype=torch.bfloat16)}


def save(folder: Path, epoch: int = 1, step: int = 0, *, value: float = 1.0, **changes) -> Path:
    given = {"model_state": model(value), "resume_state": {"epoch": epoch}, "meta": {"val_top1": 0.5}} | changes
    return save_checkpoint(folder, epoch=epoch, step=step, **given)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def test_saved_and_loaded(folder):
    path = save(folder, 41, meta={"val_top1": 0.25, "note": None})
    assert path == folder / "000041"
    assert names(path) == sorted(FILES)
    loaded = load_checkpoint(path)
    assert (loaded.path, loaded.epoch, loaded.step) == (path, 41, 0)
    assert loaded.meta == {"val_top1": 0.25, "note": None}
    assert read_meta(path) == {"epoch": 41, "step": 0, "val_top1": 0.25, "note": None}
    assert loaded.model_state.keys() == model().keys()
    for name, tensor in model().items():
        assert loaded.model_state[name].dtype == tensor.dtype
        assert torch.equal(loaded.model_state[name], tensor)
    assert loaded.load_resume() == {"epoch": 41}


def test_within_an_epoch_the_step_is_in_the_name(folder):
    assert save(folder, 3, 250).name == "000003-000250"
    assert (load_checkpoint(folder / "000003-000250").step) == 250


def test_the_same_state_gives_the_same_bytes_whatever_its_order_and_layout(folder):
    base = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    plain = {"a": base, "b": torch.ones(4)}
    other = {"b": torch.ones(8)[::2], "a": base.to(memory_format=torch.channels_last).requires_grad_()}
    one, two = (save(folder, epoch, model_state=state) for epoch, state in enumerate((plain, other), start=1))
    assert (one / FILES[0]).read_bytes() == (two / FILES[0]).read_bytes()
    with safe_open(one / FILES[0], framework="np") as file:
        assert file.metadata() == {"format": "pt"}
        np.testing.assert_array_equal(file.get_tensor("a"), np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5))


def test_shared_and_partial_memory_is_saved_each_on_its_own(folder):
    base = torch.arange(10.0)
    state = {"all": base, "again": base, "part": base[2:5], "none": torch.zeros(0), "nothing": torch.zeros(0, 3)}
    loaded = load_checkpoint(save(folder, model_state=state)).model_state
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    loaded["all"].zero_()
    assert torch.equal(loaded["again"], base)
    save(folder, 2, model_state=loaded)


def test_the_state_of_a_real_optimizer_goes_on_with_the_same_bytes(folder):
    def run(steps: int, net, optimizer) -> None:
        for _ in range(steps):
            loss = net(torch.randn(4, 3)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def fresh():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
        return net, torch.optim.AdamW(net.parameters(), lr=0.1)

    net, optimizer = fresh()
    run(2, net, optimizer)
    state = {"optim": optimizer.state_dict(), "rng": torch.get_rng_state(), "best": [0.5, None, ("x", True)]}
    path = save(folder, model_state=net.state_dict(), resume_state=state)
    run(2, net, optimizer)
    net2, optimizer2 = fresh()
    loaded = load_checkpoint(path)
    resume = loaded.load_resume()
    net2.load_state_dict(loaded.model_state)
    optimizer2.load_state_dict(resume["optim"])
    torch.set_rng_state(resume["rng"])
    run(2, net2, optimizer2)
    assert resume["best"] == [0.5, None, ("x", True)]
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), net2.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"a": {"rng": np.zeros(2)}}, r"resume_state\['a'\]\['rng'\] is a numpy.ndarray"),
        ({"a": [1, np.float64(2.0)]}, r"resume_state\['a'\]\[1\] is a numpy.float64"),
        ({(1, 2): 3}, "key"),
        ({"a": Path("x")}, "Path"),
    ],
)
def test_what_could_not_be_read_back_safely_is_refused_at_once(folder, state, where):
    with pytest.raises(AssertionError, match=where):
        save(folder, resume_state=state)
    assert not folder.exists()


def test_every_plain_kind_is_read_back(folder):
    state = {"d": OrderedDict(a=1), 3: [None, True, 2**70, -1.5, "é", (), {}], "t": torch.ones(2, dtype=torch.float16)}
    loaded = load_checkpoint(save(folder, resume_state=state)).load_resume()
    assert torch.equal(loaded.pop("t"), state.pop("t"))
    assert loaded == state


def test_numbers_in_meta_must_be_finite_and_names_its_own(folder):
    with pytest.raises(RunError, match="000001: not finite"):
        save(folder, meta={"val_loss": float("nan")})
    assert names(folder) == []
    with pytest.raises(AssertionError, match="epoch"):
        save(folder, meta={"epoch": 3})


def test_links_are_relative_and_followed(folder):
    first, second = save(folder, 1), save(folder, 2)
    set_link(folder, "best", first)
    set_link(folder, "last", second)
    assert os.readlink(folder / "best") == "000001"
    assert best_checkpoint(folder) == first
    assert last_checkpoint(folder) == second
    assert load_checkpoint(folder / "last").path == second
    with pytest.raises(AssertionError):
        set_link(folder, "best", folder.parent / "000001")


def test_without_links_the_newest_whole_checkpoint_counts(folder):
    assert last_checkpoint(folder) is None
    first, middle, newest = save(folder, 9), save(folder, 9, 30), save(folder, 10)
    assert last_checkpoint(folder) == newest
    (newest / "resume.pt").write_bytes(b"")
    assert last_checkpoint(folder) == middle
    os.symlink("000099", folder / "last")
    (middle / "meta.json").unlink()
    assert last_checkpoint(folder) == first
    with pytest.raises(RunError, match="checkpoints/best: there is no such checkpoint"):
        best_checkpoint(folder)


@pytest.mark.skipif(os.name == "nt", reason="no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_every_file_has_the_mode_that_the_umask_gives(folder, umask, mode):
    before = os.umask(umask)
    try:
        path = save(folder)
    finally:
        os.umask(before)
    assert {name: oct(stat.S_IMODE((path / name).stat().st_mode)) for name in names(path)} == dict.fromkeys(
        FILES, oct(mode)
    )


def test_a_path_that_is_no_text(tmp_path):
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"d\xffg")))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    assert load_checkpoint(save(folder, 3)).epoch == 3


def test_prune_keeps_what_links_point_at_and_what_is_not_ours(folder):
    paths = [save(folder, epoch) for epoch in range(1, 5)]
    (folder / "notes").mkdir()
    prune(folder)
    assert len(names(folder)) == 5, "without last, everything stays"
    set_link(folder, "best", paths[1])
    set_link(folder, "last", paths[3])
    dead, alive = folder / f".000002.{DEAD}.partial", folder / ".000002.1.partial"
    for path in (dead, alive, folder / ".mine.partial"):
        path.mkdir()
        (path / "model.safetensors").write_text("half")
    os.symlink("000002", folder / ".last.0123456789ab.partial")
    prune(folder)
    assert names(folder) == [".000002.1.partial", ".mine.partial", "000002", "000004", "best", "last", "notes"]


def test_what_was_killed_after_the_last_checkpoint_is_cleared_by_whoever_holds_the_run_next(folder):
    """A run whose last epoch is saved prunes no more: a death in its last pruning would stay for ever."""
    path = save(folder, 2)
    set_link(folder, "last", path)
    dead, alive = folder / f".000002-000004.{DEAD}.partial", folder / ".000002.1.partial"
    for aside in (dead, alive):
        aside.mkdir()
        (aside / "model.safetensors").write_text("half removed")
    with RunFolder(folder.parent).lock():
        assert names(folder) == [".000002.1.partial", "000002", "last"]


def test_a_repeat_of_the_same_checkpoint_is_left_as_it_is(folder):
    path = save(folder)
    inode = path.stat().st_ino
    assert save(folder) == path
    assert path.stat().st_ino == inode
    assert names(folder) == ["000001"]


def test_a_repeat_that_differs_or_replaces_a_damaged_one_takes_its_place(folder):
    save(folder, value=1.0)
    path = save(folder, value=2.0)
    assert load_checkpoint(path).model_state["weight"][0, 0] == 2.0
    (path / "model.safetensors").write_bytes(b"")
    save(folder, value=2.0)
    assert is_whole(path)
    assert names(folder) == ["000001"]


def test_a_death_between_the_two_renames_loses_nothing(folder):
    path = save(folder, 5)
    set_link(folder, "last", path)
    aside = folder / f".000005.{DEAD}.replaced"
    path.rename(aside)
    assert last_checkpoint(folder) == aside
    assert load_checkpoint(folder / "last").epoch == 5
    prune(folder)
    assert aside.exists()
    save(folder, 5, value=3.0)
    assert last_checkpoint(folder) == path
    prune(folder)
    assert names(folder) == ["000005", "last"]


def test_a_failed_second_rename_puts_the_old_one_back(folder, monkeypatch):
    path = save(folder, value=1.0)
    real, calls = os.rename, []

    def rename(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(DistillError, match="cannot write"):
        save(folder, value=2.0)
    assert load_checkpoint(path).model_state["weight"][0, 0] == 1.0
    assert names(folder) == ["000001"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing", "folder"])
def test_damage_names_the_file(folder, name, damage):
    path = save(folder)
    victim = path / name
    content = bytearray(victim.read_bytes())
    victim.unlink()
    if damage == "flip":
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    elif damage in ("cut", "empty"):
        victim.write_bytes(content[:-1] if damage == "cut" and name != "meta.json" else content[: len(content) // 2])
    elif damage == "folder":
        victim.mkdir()
    assert not is_whole(path)
    with pytest.raises(RunError) as caught:
        load_checkpoint(path).load_resume()
    assert caught.value.message.startswith(f"{victim}: ")
    assert "\n" not in caught.value.message


def test_every_flipped_bit_of_meta_is_seen_or_harmless(folder):
    path = save(folder)
    victim = path / "meta.json"
    content, meta = victim.read_bytes(), read_meta(path)
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        victim.write_bytes(flipped)
        try:
            same = read_meta(path) == meta
        except RunError:
            same = True
        assert same, position


def forge(path: Path, name: str, content: bytes) -> None:
    """Replace a file by a hostile one, with the digests to match."""
    (path / name).write_bytes(content)
    tree = json.loads((path / "meta.json").read_text())
    tree["sha256"][name] = sha256_file(path / name)
    (path / "meta.json").write_text(json.dumps(tree))


class Hostile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return (Path.touch, (self.witness,))


def test_a_pickle_is_never_run(folder, tmp_path):
    path, witness = save(folder), tmp_path / "witness"
    archive = tmp_path / "hostile.pt"
    torch.save({"x": Hostile(witness)}, archive)
    for content in (archive.read_bytes(), pickle.dumps(Hostile(witness)), b"PK\x03\x04", b"", b"\x80\x02."):
        forge(path, "resume.pt", content)
        with pytest.raises(RunError, match=r"resume\.pt: damaged: cannot be loaded safely"):
            load_checkpoint(path).load_resume()
    assert not witness.exists()
    torch.save([1], archive)
    forge(path, "resume.pt", archive.read_bytes())
    with pytest.raises(RunError, match=r"resume\.pt: damaged: no state"):
        load_checkpoint(path).load_resume()


@pytest.mark.parametrize("name", ["resume.pt", "model.safetensors"])
def test_forged_bytes_are_read_or_refused(folder, name):
    path = save(folder)
    content, rng = (path / name).read_bytes(), random.Random(1)
    for _ in range(60):
        forged = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            forged[rng.randrange(len(forged))] = rng.randrange(256)
        forge(path, name, bytes(forged[: rng.randint(1, 2 * len(forged))]))
        message = name
        try:
            load_checkpoint(path).load_resume()
        except RunError as error:
            message = error.message
        assert name in message


@pytest.mark.parametrize("content", [b"", b"\xff" * 8 + b"{}", (2).to_bytes(8, "little") + b"[]", b"PK\x03\x04" * 9])
def test_weights_that_are_no_safetensors_are_damaged(folder, content):
    path = save(folder)
    forge(path, "model.safetensors", content)
    with pytest.raises(RunError, match=r"model\.safetensors: damaged: not readable as safetensors"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "step",
    [
        "write.os.rename",
        "write.os.mkdir",
        "write.sync_file",
        "write.sync_folder",
        "tensors.sync_file",
        "tensors.save_file",
        "tensors._Noting.write",
    ],
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_refuses_is_one_line_and_the_last_good_state_stays(folder, monkeypatch, step, code):
    good = save(folder, 1)
    set_link(folder, "last", good)

    def fail(*_args, **_options):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(f"distill.runs.checkpoints.{step}", fail)
        with pytest.raises(DistillError) as caught:
            save(folder, 2)
    assert caught.value.message == f"cannot write {folder}/000002: {os.strerror(code)}"
    assert last_checkpoint(folder) == good
    assert is_whole(good)
    assert [name for name in names(folder) if name.startswith(".")] == []


@pytest.mark.parametrize("large", ["model_state", "resume_state"])
def test_a_file_that_really_cannot_grow_is_one_line(folder, large):
    good = save(folder, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DistillError, match=rf"^cannot write {re.escape(str(folder))}/000002: File too large(\n|$)"):
            save(folder, 2, **{large: {"x": torch.zeros(1_000_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(folder) == ["000001"]
    assert is_whole(good)


LOOP = """
import os, sys
from pathlib import Path
import safetensors.torch, torch  # here, not in each process of its own
from distill.runs.checkpoints import last_checkpoint, load_checkpoint, prune, save_checkpoint, set_link
torch.set_num_threads(1)
folder = Path(sys.argv[1])
def run():
    path = last_checkpoint(folder)
    epoch = load_checkpoint(path).epoch if path else 0
    while True:
        epoch += 1
        state = {"w": torch.full((50_000,), float(epoch)), "b": torch.full((7,), float(epoch))}
        path = save_checkpoint(folder, epoch=epoch, step=0, model_state=state, resume_state=state, meta={})
        if epoch % 3 == 0:
            set_link(folder, "best", path)
        set_link(folder, "last", path)
        prune(folder)
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        run()
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def test_killed_at_any_moment_what_last_points_at_is_whole(folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", LOOP, folder]
    rng, reached = random.Random(0), 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        for kills in range(300):
            if kills >= 12 and reached > 3:  # a busy machine saves fewer between two kills
                break
            parent.stdin.write("\n")
            parent.stdin.flush()
            child = int(parent.stdout.readline())
            time.sleep(rng.uniform(0.01, 0.15))
            os.kill(child, signal.SIGKILL)
            assert parent.stdout.readline() == "dead\n"
            path = last_checkpoint(folder)
            if path is None:
                assert reached == 0
                continue
            loaded = load_checkpoint(path)
            resume = loaded.load_resume()
            assert loaded.epoch >= reached
            reached = loaded.epoch
            for state in (loaded.model_state, resume):
                assert all((tensor == reached).all() for tensor in state.values()), "a mixture of two checkpoints"
            if os.path.lexists(folder / "best"):
                assert load_checkpoint(best_checkpoint(folder)).epoch % 3 == 0
        parent.stdin.close()
    assert reached > 3
    prune(folder)
    assert set(names(folder)) == {"best", "last", best_checkpoint(folder).name, last_checkpoint(folder).name}
