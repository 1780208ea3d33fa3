"""What stands still is told, with its place: where the interpreter's lock is free, and where it is not."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable

import pytest

from distill.team import watch as module
from distill.team.watch import Watchdog, beat, extended_silence_limit, place, watching

OURS = "from distill.team import watch\nfrom distill.team.watch import beat, enable_faulthandler, watching\n"


# Real processes


def test_native_code_that_lets_go_of_the_lock_is_told_once_with_its_place(stuck) -> None:
    code = """
with watching(silence_s=0.5) as seen:
    seen.at, seen.hint = (2, 17), "distill doctor --recipe R"
    seen.log = lambda line: (open("run.log", "a").write(line), None)
    deaf()
"""
    process = stuck(OURS + code)
    line = process.stderr.readline()
    assert line.startswith("warning: nothing has moved for ")
    assert "(epoch 3, 17 of its steps done): " in line
    assert line.endswith(" deaf; distill doctor --recipe R\n")
    process.send_signal(signal.SIGKILL)
    assert process.stderr.read() == ""


def test_native_code_that_keeps_the_lock_leaves_its_place_to_faulthandler(stuck) -> None:
    process = stuck(f"{OURS}enable_faulthandler()\nwith watching(silence_s=0.5):\n    time.sleep(0.5)\n    asleep(4)\n")
    said = process.communicate()[1]
    assert process.returncode == 0
    assert "Timeout (0:00:00.500000)!\n" in said
    assert "in asleep\n" in said


def test_a_process_of_somebody_else_keeps_its_own_timer(stuck) -> None:
    """As pytest's, which enables faulthandler and may have armed it."""
    code = """
import faulthandler
faulthandler.enable()
faulthandler.dump_traceback_later(1.5)
with watching(silence_s=0.5):
    time.sleep(0.5)
asleep(4)
"""
    said = stuck(OURS + code).communicate()[1]
    assert re.findall(r"Timeout .*", said) == ["Timeout (0:00:01.500000)!"]


def test_a_line_reaches_stderr_in_one_piece_though_nothing_buffers_it(stuck) -> None:
    """As under PYTHONUNBUFFERED, where each write is a system call: another process's line may come in between."""
    if sys.platform != "linux":
        pytest.skip("a pipe that keeps writes apart")
    ours, theirs = os.pipe2(os.O_DIRECT)
    process = stuck(f"{OURS}with watching(silence_s=0.5):\n    deaf()\n", stderr=theirs, PYTHONUNBUFFERED="1")
    os.close(theirs)
    first = os.read(ours, 1 << 16)
    process.send_signal(signal.SIGKILL)
    os.close(ours)
    assert re.fullmatch(rb"warning: nothing has moved for .* deaf\n", first)


# What a look sees


@pytest.fixture
def seen(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was said on stderr since the last call."""
    return lambda: capsys.readouterr().err


def test_a_silence_is_told_once_and_its_end(seen) -> None:
    logged: list[str] = []
    watch = Watchdog(silence_s=60)
    watch.log = logged.append
    watch.look(59)
    assert seen() == ""
    for seconds in (1, 1000):
        watch.look(seconds)
    assert re.fullmatch(r"warning: nothing has moved for 60 s: .*\n", seen())
    watch.beats += 1
    watch.look(1)
    assert seen() == "note: it moves again, after 1061 s\n"
    assert [line.split(": ")[0] for line in logged] == ["warning", "note"]


def test_a_silence_that_has_gone_on_to_another_place_is_told_again_at_twice_the_time(seen) -> None:
    """The first look may come on the way: an import, say, before the call that never returns."""
    at_a, to_b, at_b, over = (threading.Event() for _ in range(4))

    def work() -> None:
        _run("distill.a", lambda: (at_a.set(), to_b.wait()))
        _run("distill.b", lambda: (at_b.set(), over.wait()))

    worker = threading.Thread(target=work)
    worker.start()
    watch = Watchdog(silence_s=60)
    watch._ident = worker.ident
    try:
        at_a.wait()
        watch.look(60)
        assert re.fullmatch(r"warning: nothing has moved for 60 s: distill\.a:1 call > .*\n", seen())
        to_b.set()
        at_b.wait()
        watch.look(59)
        assert seen() == ""
        watch.look(1)
        watch.look(1000)
        assert re.fullmatch(r"warning: nothing has moved for 120 s: distill\.b:1 call > .*\n", seen())
    finally:
        to_b.set()
        over.set()
        worker.join()


def test_slow_steps_are_no_silence(seen) -> None:
    """Fifty of the usual ones are; the median, so that one long pause changes nothing."""
    watch = Watchdog(silence_s=60)
    for seconds in (3, 3, 50, 3, 3):
        watch.beats += 1
        watch.look(seconds)
    assert watch.limit_s == 150
    watch.look(149)
    assert seen() == ""
    watch.look(1)
    assert seen().startswith("warning: nothing has moved for 150 s")


def test_quick_steps_have_the_usual_limit() -> None:
    watch = Watchdog(silence_s=60)
    watch.beats += 1000
    watch.look(1)
    assert watch.limit_s == 60


def test_what_is_slow_and_moves_does_not_fill_the_log(seen) -> None:
    watch = Watchdog(silence_s=60)
    for _ in range(1000):
        watch.beats += 1
        watch.look(0.01)
    for _ in range(20):
        watch.look(200)
        watch.beats += 1
        watch.look(0)
    assert seen().count("warning") == 2  # after 60 s, after 120 s, and not after 240


@pytest.mark.parametrize("name", ["torch._dynamo.convert_frame", "torch._inductor.compile_fx"])
def test_compiling_is_no_silence(seen, name: str) -> None:
    watch = Watchdog(silence_s=60)
    space: dict[str, object] = {"__name__": name, "look": watch.look}
    exec("def compile_it(): look(1000)", space)
    space["compile_it"]()
    assert seen() == ""
    watch.look(1)
    assert "nothing has moved" in seen()


def test_those_modules_compile() -> None:
    """Another version of PyTorch may have moved them."""
    import importlib.util

    for name in module._COMPILING:
        assert importlib.util.find_spec(name) is not None, name


def test_another_process_says_which_it_is_and_waits_longer_for_the_first(seen) -> None:
    with watching(rank=3) as watch:
        watch._ended.set()  # this test looks for itself
        with extended_silence_limit():
            watch.look(599)
            assert seen() == ""
            watch.look(1)
            assert seen().startswith("warning in process 3: nothing has moved for 600 s")
        assert watch.limit_s < 600
    with watching() as first, extended_silence_limit():
        assert first.limit_s == 60


def test_work_within_work_is_a_part_of_it() -> None:
    with watching() as outer:
        outer.hint = "outer"
        with watching() as inner:
            assert inner is outer
            inner.hint, inner.at = "inner", (1, 2)
            before = outer.beats
            beat()
            assert outer.beats == before + 1
        assert (outer.hint, outer.at) == ("outer", None)
    beat()  # nobody watches, and that is no error


def test_no_thread_is_left_behind() -> None:
    with watching():
        assert any(thread.name == "distill-watch" for thread in threading.enumerate())
    assert not any(thread.name == "distill-watch" for thread in threading.enumerate())


# Where


def _run(name: str, inner: Callable[[], object]) -> object:
    space: dict[str, object] = {"__name__": name, "inner": inner}
    exec("def call(): return inner()", space)
    return space["call"]()


def test_a_place_is_the_innermost_calls_and_ours() -> None:
    def here() -> str:
        return place(sys._getframe())

    deep = _run("distill.a", lambda: _run("distill.b", lambda: _run("torch.c", lambda: _run("torch.d", here))))
    calls = [call.split(" ")[0].split(":")[0] for call in str(deep).split(" > ")]
    assert [call for call in calls if call.startswith(("distill.", "torch."))] == ["distill.a", "distill.b", "torch.d"]
    assert str(deep).endswith("here")


def test_a_reader_that_stands_is_named_too(seen) -> None:
    """The main thread waits for it, and would say no more than that."""
    ready, over = threading.Event(), threading.Event()

    def read() -> None:
        ready.set()
        over.wait()

    reader = threading.Thread(target=_run, args=("distill.data.reader", read), name="reader_0")
    reader.start()
    ready.wait()
    try:
        Watchdog(silence_s=1).look(2)
    finally:
        over.set()
        reader.join()
    assert "; reader_0 at distill.data.reader:1 call > " in seen()
