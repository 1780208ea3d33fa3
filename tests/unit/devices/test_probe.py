"""Layers are tried in other processes: what ends there is a verdict here, and nothing stays behind."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from distill.devices import probe as parent
from distill.devices.child import FORKS
from distill.devices.layer_error import KernelConfig, LayerTest, LayerTestResult
from distill.devices.layers import Layer
from distill.devices.probe import probe
from distill.errors import RunError

IS_X86 = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()
LAST_WRONG_ONEDNN = (3, 12)  # the newest that was seen to have the wrong kernel
ROOT = Path(__file__).parents[3]
linux = pytest.mark.skipif(not FORKS, reason="processes are looked for in /proc")


def conv(i: int, o: int, *, kernel: int = 1, stride: int = 2, side: int = 16) -> Layer:
    pads = (kernel // 2,) * 2
    return Layer("conv2d", (i, side, side), (o, i, kernel, kernel), False, (stride,) * 2, pads, (1, 1))


# The quickstart's layers but for its strided 1x1 convolutions, which distill keeps from channels-last.
QUICKSTART = (
    conv(3, 4, kernel=3, stride=1, side=32),
    conv(4, 4, kernel=3, side=32),
    conv(4, 8, kernel=3),
    conv(8, 8, kernel=3, stride=1, side=8),
    conv(16, 32),
    Layer("linear", (8,), (10, 8), True),
)
BATCHES = (64, 33, 5)


def test_layers_that_networks_here_have_are_right() -> None:
    settings = [KernelConfig(form, threads) for form in (True, False) for threads in (1, 2)]
    trials = [LayerTest(layer, BATCHES, setting) for layer in QUICKSTART for setting in settings]
    trials += [LayerTest(conv(4, 8), BATCHES, setting) for setting in settings if not setting.channels_last]
    found = probe(trials)
    pairs = zip(trials, found.verdicts, strict=True)
    assert [(str(trial), verdict) for trial, verdict in pairs if verdict.outcome != "right"] == []
    assert all(0 < verdict.error < 1e-4 for verdict in found.verdicts)


@pytest.mark.skipif(not IS_X86, reason="the kernel is oneDNN's for x86")
def test_the_kernel_that_is_known_to_be_wrong_is_found() -> None:
    version = re.search(r"MKL-DNN v(\d+)\.(\d+)", torch.__config__.show())
    if version is None or tuple(map(int, version.groups())) > LAST_WRONG_ONEDNN:
        pytest.skip("another oneDNN; if its kernel is mended, the entry in WRONG_KERNELS can go")
    ways = [KernelConfig(True, 1, isa="AVX2"), KernelConfig(False, 1, isa="AVX2"), KernelConfig(True, 1, isa="AVX")]
    trials = [LayerTest(conv(channels, 8), (33, 128, 16, 5), way) for channels in (4, 7) for way in ways]
    seen = []
    found = probe(trials, on_verdict=lambda trial, verdict: seen.append((trial, verdict)))
    outcomes = [verdict.outcome for verdict in found.verdicts]
    assert all(outcome != "right" for outcome in outcomes[::3])
    assert outcomes[1::3] == outcomes[2::3] == ["right"] * 2
    assert dict(seen) == dict(zip(trials, found.verdicts, strict=True))


# What a process does, pretended: the batch says it.

RIGHT, CRASH, RAISE, HANG, SPOIL, SPOILT = range(10, 16)
FAKE = f"""
import json, os, signal, sys, time
sys.stdout.write(json.dumps({{"torch": "0", "heap_check": True}}) + "\\n# no JSON\\n")
sys.stdout.flush()
asked, spoilt = json.loads(sys.stdin.readline()), False
with open(sys.argv[1], "a") as log:
    log.write(json.dumps([trial["batches"][0] for trial in asked["trials"]]) + "\\n")
for trial in asked["trials"]:
    (what,) = trial["batches"]
    if what == {CRASH} or (what == {SPOILT} and spoilt):
        sys.stderr.write("free(): invalid pointer")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGABRT)
    if what == {HANG}:
        time.sleep(600)
    spoilt = spoilt or what == {SPOIL}
    failed, passed = {{"failed": "RuntimeError: could not create a primitive"}}, {{"tensor": "output", "error": 0.0}}
    print(json.dumps(failed if what == {RAISE} else passed), flush=True)
    if what == {RAISE}:
        break
"""


def pretend(tmp_path: Path, *batches: int) -> tuple[list[str], list[list[int]], list[LayerTestResult]]:
    """The outcomes, what each process was asked, and the verdicts; of one layer, so that one process gets all."""
    log = tmp_path / "asked"
    trials = [LayerTest(conv(4, 8), (batch,), KernelConfig(False, 1)) for batch in batches]
    found = probe(trials, child=[sys.executable, "-c", FAKE, str(log)])
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    return [verdict.outcome for verdict in found.verdicts], asked, list(found.verdicts)


def test_a_crash_is_tried_alone_and_the_rest_goes_on(tmp_path: Path) -> None:
    outcomes, asked, verdicts = pretend(tmp_path, RIGHT, CRASH, RIGHT)
    assert outcomes == ["right", "crashes", "right"]
    assert asked == [[RIGHT, CRASH, RIGHT], [CRASH], [RIGHT]]
    assert verdicts[1].detail == "SIGABRT: free(): invalid pointer"


def test_what_a_layer_raises_is_a_crash_with_its_words(tmp_path: Path) -> None:
    outcomes, _, verdicts = pretend(tmp_path, RAISE)
    assert (outcomes, verdicts[0].detail) == (["crashes"], "RuntimeError: could not create a primitive")


def test_a_process_that_is_silent_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_SILENCE_S", 2.0)
    outcomes, asked, _ = pretend(tmp_path, HANG, RIGHT)
    assert outcomes == ["hangs", "right"]
    assert asked == [[HANG, RIGHT], [RIGHT]]


def test_a_crash_that_another_caused_is_not_put_down_to_it_alone(tmp_path: Path) -> None:
    outcomes, asked, verdicts = pretend(tmp_path, SPOIL, RIGHT, SPOILT, RIGHT)
    assert outcomes == ["right", "right", "crashes", "right"]
    assert asked == [[SPOIL, RIGHT, SPOILT, RIGHT], [SPOILT], [RIGHT], [SPOIL], [RIGHT]]
    assert verdicts[2].detail.endswith("not when tried alone")


def test_a_child_that_cannot_start_is_one_line() -> None:
    trials = [LayerTest(conv(4, 8), (2,), KernelConfig(False, 1))]
    with pytest.raises(RunError, match=r"cannot be tried out: /nowhere/python: No such file"):
        probe(trials, child=["/nowhere/python"])
    with pytest.raises(RunError, match=r"ends at once \(exit status 1: ImportError: no torch\)"):
        probe(trials, child=[sys.executable, "-c", "raise ImportError('no torch')"])


# Limits

LONG = LayerTest(
    Layer("conv2d", (256, 64, 64), (256, 256, 3, 3), False, (1, 1), (1, 1), (1, 1)), (64,), KernelConfig(False, 1)
)


STUCK = f"""
import ctypes, sys
sys.path.insert(0, {str(ROOT)!r})
from distill.devices import child

def stuck(trial, real=child.deviations):
    return ctypes.PyDLL(None).sleep(600) if trial.batches == (2,) else real(trial)

child.deviations = stuck
child.main()
"""


@pytest.mark.skipif(os.name == "nt", reason="the C library has no sleep there")
def test_native_code_that_keeps_the_interpreters_lock_is_ended_by_the_child_itself() -> None:
    trials = [LayerTest(conv(4, 8), (batch,), KernelConfig(False, 1)) for batch in (2, 3)]
    found = probe(trials, seconds=4.0, child=[sys.executable, "-c", STUCK])
    assert [verdict.outcome for verdict in found.verdicts] == ["hangs", "right"]


ASK = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from distill.devices.layers import Layer
from distill.devices.probe import probe
from distill.devices.layer_error import KernelConfig, LayerTest
print("ready", flush=True)
probe([{LONG!r}])
"""


@linux
def test_a_killed_parent_leaves_no_process_behind() -> None:
    asker = subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True)
    try:
        assert asker.stdout.readline() == "ready\n"
        family = _wait_for(lambda: found if len(found := _below(asker.pid)) >= 2 else None)
    finally:
        asker.send_signal(signal.SIGKILL)
        asker.wait()
        asker.stdout.close()
    assert _wait_for(lambda: not any(_is_running(pid) for pid in family))


def _below(pid: int) -> list[int]:
    """Every process that this one started, and theirs."""
    children = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children += [int(child) for child in task.read_text().split()]
    return children + [each for child in children for each in _below(child)]


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(look):
    until = time.monotonic() + 90
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


# The child's environment


def test_the_heap_is_checked_where_glibc_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    environment = parent._environment("AVX2")
    assert environment["MALLOC_CHECK_"] == "3"
    assert environment["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    monkeypatch.setenv("LD_PRELOAD", "libjemalloc.so")  # the user's own allocator is what their run has
    assert "MALLOC_CHECK_" not in parent._environment(None)
    assert parent._environment(None)["LD_PRELOAD"] == "libjemalloc.so"
    monkeypatch.delenv("LD_PRELOAD")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert "LD_PRELOAD" not in parent._environment(None)


def test_the_child_is_this_distill_whatever_the_working_directory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "distill").mkdir()
    (tmp_path / "distill" / "__init__.py").write_text("raise SystemExit('another one')")
    monkeypatch.chdir(tmp_path)
    assert os.getcwd() == str(tmp_path)
    (verdict,) = probe([LayerTest(Layer("linear", (8,), (10, 8), True), (2,), KernelConfig(False, 1))]).verdicts
    assert verdict.outcome == "right"
