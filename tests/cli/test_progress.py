"""Progress: lines where there is no terminal, bars where there is one; silent, cheap, and fit to travel."""

from __future__ import annotations

import errno
import io
import pickle
import re
import time

import pytest
from rich.console import Console

from distill.cli import progress as module
from distill.cli.progress import ProgressPrinter
from distill.events import CheckpointSaved, EpochDone, Event, Note, RunStarted, StageProgress, StepDone

START = RunStarted("runs/a[b]/001", "a[b]", "cpu", 3, 100, 8, 800, 80, 1234)


def _epoch(number: int, top1: float | None = 0.5) -> EpochDone:
    metrics = {"train_loss": 0.5, "train_ce": 0.5} | ({} if top1 is None else {"val_top1": top1})
    return EpochDone(number, metrics, 2.0, 400.0, True)


def _words(text: str) -> str:
    """Without what moves the cursor and colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def _steps(epoch: int) -> list[Event]:
    return [StepDone(epoch, step + 1, 8 * (step + 1)) for step in range(100)]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch):
    """A console to print on; ``screen(terminal=True)`` is one that moves its cursor."""

    def open_screen(*, terminal: bool, width: int = 80) -> io.StringIO:
        buffer = io.StringIO()
        console = Console(file=buffer, force_terminal=terminal, width=width, highlight=False, markup=False, emoji=False)
        monkeypatch.setattr(module, "open_console", lambda **_: console)
        return buffer

    return open_screen


def test_a_terminal_that_is_gone_ends_nothing() -> None:
    """The signal that says so comes a moment later; until then there is a run to save."""

    class Gone(io.StringIO):
        number = errno.EIO

        def write(self, _text: str) -> int:
            raise OSError(self.number, "gone")

    gone = Gone()
    printer = ProgressPrinter()
    printer._display = module._Display(Console(file=gone))
    printer(START)
    gone.number = errno.ENOSPC
    with pytest.raises(OSError, match="gone"):
        printer(START)


def test_lines(screen) -> None:
    buffer = screen(terminal=False)
    with ProgressPrinter() as printer:
        for event in (
            START,
            *_steps(0),
            _epoch(1, 0.9),
            CheckpointSaved("x", True),
            *_steps(1),
            _epoch(2, 0.8),
            _epoch(3, None),
        ):
            printer(event)
    assert buffer.getvalue().splitlines() == [
        "a[b]  1,234 parameters, 800 training and 80 validation images, on cpu  ->  runs/a[b]/001",
        "epoch 1/3  loss 0.500  val top-1 90.0% (best 90.0%)  400 images/s  4.0s left",
        "epoch 2/3  loss 0.500  val top-1 80.0% (best 90.0%)  400 images/s  2.0s left",
        "epoch 3/3  loss 0.500  400 images/s  2.0s an epoch",
    ]


def test_a_resumed_run_says_where_it_goes_on(screen) -> None:
    buffer = screen(terminal=False)
    ProgressPrinter()(RunStarted("r", "a", "cpu", 3, 1, 8, 8, 0, 1, epoch=2))
    assert "from epoch 3" in buffer.getvalue()


def _stages(screen, monkeypatch: pytest.MonkeyPatch, seconds_a_step: float, *, first: int = 0) -> list[str]:
    """A thousand steps of a stage, twice, on a clock of their own."""
    buffer, printer, clock = screen(terminal=False), ProgressPrinter(), iter(range(10_000))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock) * seconds_a_step)
    for done in (*range(first, 1001), *range(first, 1001)):
        printer(StageProgress("decoding", done, 1000))
    return buffer.getvalue().splitlines()


def test_a_stage_that_is_soon_over_is_not_told(screen, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _stages(screen, monkeypatch, 0.001) == []


def test_a_long_stage_is_told_after_two_seconds_then_now_and_then_and_at_its_end(screen, monkeypatch) -> None:
    left = {2: "1m38s", 22: "1m18s", 42: "58.0s", 62: "38.0s", 82: "18.0s"}
    once = [*(f"decoding  {share}%  {time} left" for share, time in left.items()), "decoding  100%"]
    told = _stages(screen, monkeypatch, 0.1)
    assert told[:6] == once
    shares = [line.split("%")[0] for line in once]
    assert [line.split("%")[0] for line in told[6:]] == shares  # its clock's last bits are others by then


def test_what_was_done_before_does_not_make_the_rest_look_short(screen, monkeypatch) -> None:
    """900 of 1,000 were behind it when it began: the other hundred take ten seconds, at a tenth each."""
    assert _stages(screen, monkeypatch, 0.1, first=900)[:1] == ["decoding  92%  8.0s left"]


@pytest.mark.parametrize("width", [40, 80, 160])
def test_bars_never_break_a_line_or_a_number(screen, width: int) -> None:
    buffer = screen(terminal=True, width=width)
    with ProgressPrinter() as printer:
        printer(StageProgress("decoding [x]", 1, 2))
        printer(StageProgress("decoding [x]", 2, 2))
        printer(Note("[bold]x[/]"))
        for number in range(3):
            for event in ([START] if number == 0 else []) + _steps(number) + [_epoch(number + 1)]:
                printer(event)
            time.sleep(0.21)
            printer(_steps(number)[0])
    text = buffer.getvalue()
    words_only = _words(text)
    for words in ("decoding [x]", "note: [bold]x[/]", "epochs", "epoch 2"):
        assert words in words_only
    assert "…" not in text
    assert text.rstrip().endswith("2.0s an epoch") or "\x1b[?25h" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0  # the cursor is given back


def test_steps_are_drawn_a_few_times_a_second_only(screen) -> None:
    buffer = screen(terminal=True)
    with ProgressPrinter() as printer:
        printer(START)
        printer(StepDone(0, 1, 8))
        before = len(buffer.getvalue())
        for _ in range(2000):
            printer(StepDone(0, 2, 16))
        drawn = (len(buffer.getvalue()) - before) / max(before, 1)
    assert drawn < 50


def test_quiet(screen) -> None:
    buffer = screen(terminal=False)
    with ProgressPrinter(quiet=True) as printer:
        for event in (START, *_steps(0), _epoch(1), StageProgress("x", 1, 2), Note("hush"), Note("fire", "warning")):
            printer(event)
    assert buffer.getvalue() == "warning: fire\n"


@pytest.mark.parametrize("used", [False, True])
def test_it_travels_to_another_process(screen, used: bool) -> None:
    buffer = screen(terminal=True)
    printer = ProgressPrinter()
    if used:
        printer(START)
    other = pickle.loads(pickle.dumps(printer))
    other(Note("there"))
    other.close()
    printer.close()
    assert "note: there" in _words(buffer.getvalue())


def test_an_event_out_of_place_is_no_failure(screen) -> None:
    for terminal in (False, True):
        screen(terminal=terminal)
        with ProgressPrinter() as printer:
            printer(StepDone(0, 1, 8))
            printer(_epoch(1))
            printer(StageProgress("x", 5, 0))
