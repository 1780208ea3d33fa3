"""Every test has its own cache, one thread, no network, and the CPU unless it is marked ``gpu``."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["DISTILL_DEVICE"] = "cpu"  # what "auto" is, in child processes too: bytes are promised on the CPU alone

import contextlib
import copy
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from distill import code
from distill.team import guard
from distill.team.signals import STOPPING

LEAVE = ("DISTILL_ALLOW_CODE", "DISTILL_ALLOW_CODE_OF")
settings.register_profile("distill", deadline=None)  # how long a test takes is the machine's affair
settings.load_profile("distill")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background: child processes would not hear it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Several processes are given files in their order, quick unit tests last: none then waits for another's long one.

    Sorted by how many tests they have, as xdist would, the longest come last: those that train have few.
    """
    config.option.loadscopereorder = False
    if hasattr(signal, "SIGHUP"):  # ignored where nohup began this: distill respects it, but in tests
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker that dies ends the session: with ``--dist loadfile`` nothing takes over what it had.

    xdist would go on, and can wait for ever for a replacement that it gives no test (pytest-xdist, issue 1378).
    """
    if not error:
        return
    session = node.config.pluginmanager.get_plugin("dsession")
    running = None
    with contextlib.suppress(AttributeError, KeyError):  # no tests were given out yet, or none to this worker
        running = session.sched.remove_node(node)
    if running:
        session.handle_crashitem(running, node)  # a failure that names the test
    pytest.exit(f"worker {node.gateway.id} was lost: {error}", returncode=1)


def _keep_torchlib() -> None:
    """torch builds its table of some 2,000 ONNX operations for each file that it writes: here once a process.

    Nearly a second each time. What commands do in processes of their own stays as it is.
    """
    module = sys.modules.get("torch.onnx._internal.exporter._registration")
    registry = getattr(module, "ONNXRegistry", None)
    if registry is None or hasattr(registry, "_distill_kept"):
        return
    build: Any = registry.from_torchlib
    kept: dict[Any, Any] = {}

    def once(*args: Any, **kwargs: Any) -> Any:
        """A copy, which may be given more operations."""
        key = (args, tuple(kwargs.items()))
        if key not in kept:
            kept[key] = build(*args, **kwargs)
        copied = copy.copy(kept[key])
        copied.functions = {name: list(metas) for name, metas in kept[key].functions.items()}
        return copied

    registry.from_torchlib = staticmethod(once)  # called on an instance, too
    registry._distill_kept = kept


def pytest_runtest_setup(item: pytest.Item) -> None:
    _keep_torchlib()
    if item.get_closest_marker("gpu"):
        import torch  # late: a session without such a test may do without it

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session", autouse=True)
def _own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images go to a folder that is gone afterwards; no screen is known, alone or among xdist's workers.

    xdist tells its workers a width of 80, at which tables are broken wherever the path of a test's folder makes it.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE"):
            patch.delenv(name, raising=False)
        patch.setenv("DISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _signals_given_back() -> Iterator[None]:
    """What a command does to the signals of its process it must not do to those of all tests that follow."""
    before = [signal.getsignal(number) for number in STOPPING]
    yield
    assert guard._current is None
    assert [signal.getsignal(number) for number in STOPPING] == before


@pytest.fixture(autouse=True)
def _leave_given_back() -> Iterator[None]:
    """Leave that one test gives to code of the user's own is not that of all tests that follow: ``no_leave``."""
    before = [os.environ.get(name) for name in LEAVE]
    yield
    assert [os.environ.get(name) for name in LEAVE] == before


@pytest.fixture
def no_leave(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that gave code of the user's own no leave and was handed none; what it imports is forgotten."""
    for name in LEAVE:
        monkeypatch.setenv(name, "")  # to delete what is not there would put nothing back afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(code, "_offered", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("mine", "distill_own_mine"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def real_cifar() -> Path:
    """The folder that holds the official CIFAR files; tests that need them are skipped where it is absent."""
    folder = Path(os.environ.get("DISTILL_TEST_DATA", "data"))
    if not (folder / "cifar-10-batches-py").is_dir():
        pytest.skip("the official CIFAR-10 files are not in data/ (or $DISTILL_TEST_DATA)")
    return folder
