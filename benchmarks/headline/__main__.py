"""ResNet-152 to under five million parameters on CIFAR-10, measured: teacher, bank, students, the comparison.

``python -m benchmarks.headline --data DIR --out DIR [--minutes 9.5]``

Each call works until its time is over, saves, and prints how to go on: the same command again. What is finished is
not repeated. Stages, in order: the teacher from random weights; the bank of its answers; one seed of the first network,
taught by the bank and with labels alone, with its table; the time of a step beside ``timm.task``; the other seeds and
networks; ``compare``. What does not fit into the time is left out in that order; whatever there is, is packed.
``--tiny`` tries everything out in a minute or two on a CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.headline.pack import pack
from benchmarks.headline.report import Gain, gain, print_choices, print_table, test_top1
from benchmarks.headline.runs import (
    Machine,
    OutOfTimeError,
    Watch,
    carry_out,
    carry_out_all,
    find_run,
    say,
)
from benchmarks.headline.tasks import (
    BANK_RECIPE,
    PAIRS,
    Protocol,
    Task,
    choice_tasks,
    student_tasks,
    teacher_task,
)
from distill.comparison import compare
from distill.files import read_json, write_json
from distill.pipeline import build_bank
from distill.report.plots import plot_comparison
from distill.results.rows import Comparison

__all__ = ["main", "measure"]

STAGES = ("teacher", "bank", "first", "peers", "students", "compare")  # by their worth, should time run out
_TEACHER_EPOCHS, _TRAIN_IMAGES = 60, 50_000
_PEERS_S = 240.0  # with less left the side by side is not begun: four contestants, of which two compile
_RESERVE_S = 25.0  # after the last step: a checkpoint of a large network, and packing


@dataclass(frozen=True)
class Session:
    """One call.

    Attributes:
        parallel: Students that share the device at a time.
        compare_s: Kept free for ``compare`` once there is something to compare.
    """

    protocol: Protocol
    machine: Machine
    work: Path
    out: Path
    parallel: int = 1
    stages: tuple[str, ...] = STAGES
    compare_s: float = 60.0

    @property
    def training(self) -> Machine:
        """The machine until the time that is kept for ``compare``."""
        return replace(self.machine, deadline=self.machine.deadline - self.compare_s)

    def students(self) -> list[Task]:
        return choice_tasks(self.protocol) if self.protocol.choose else student_tasks(self.protocol)


def measure(session: Session) -> bool:
    """Carry out the stages; whether all of them are finished."""
    stages: dict[str, Callable[[Session], bool]] = {
        "teacher": _teacher,
        "bank": _bank,
        "first": _first,
        "students": _students,
        "compare": _compare,
        "peers": _peers,
    }

    def keep() -> None:
        pack(session.work, session.out, _finished_students(session))

    # Compiling tells nothing, and so hears no deadline: what there is by then is packed beside it.
    timer = threading.Timer(max(session.machine.left_s, 0.0), keep)
    timer.daemon = True
    timer.start()
    try:
        return _carry_out(session, stages, keep)
    finally:
        timer.cancel()
        keep()


def _carry_out(session: Session, stages: dict[str, Callable[[Session], bool]], keep: Callable[[], None]) -> bool:
    finished = True
    for name in session.stages:
        if name == "peers" and not finished:
            continue  # the pair comes first
        started = time.time()
        done = stages[name](session)
        _note_time(session, name, time.time() - started, done)
        keep()  # the next stage may be cut off
        finished &= done
        if not done and name in ("teacher", "bank"):
            break  # the rest needs it
    return finished


def _note_time(session: Session, stage: str, seconds: float, done: bool) -> None:
    path = session.work / "stages.json"
    entries = json.loads(path.read_text()) if path.exists() else []
    entries.append({"stage": stage, "seconds": round(seconds, 1), "finished": done})
    write_json(path, entries)
    say(f"stage {stage}: {seconds:.1f} s, {'finished' if done else 'to be continued'}")


# The stages


def _teacher(session: Session) -> bool:
    """Train it, then measure it at once: its weights are too large to travel everywhere."""
    outcome = carry_out(teacher_task(session.protocol), session.machine)
    if outcome.result is None:
        say(outcome.why)
        return False
    target = session.work / "teacher.json"
    if not target.exists() and not session.protocol.choose:
        found = _compared(session, [outcome.result.run])
        write_json(target, found.to_json() | {"training_seconds": outcome.result.seconds})
        row = found.rows[0]
        say(f"teacher: test top-1 {row.test_top1:.4f}, {row.params:,} parameters, {row.latency_b1_ms:.2f} ms an image")
    return True


def _bank(session: Session) -> bool:
    taught = next(task for task in session.students() if task.recipe_name == BANK_RECIPE)
    options = session.machine.options(Watch("bank", session.machine.deadline))
    try:
        row = build_bank(
            taught.recipe(), teacher=str(_teacher_run(session)), views=session.protocol.views, options=options
        )
    except OutOfTimeError:
        return False
    say(f"bank: {row.views} views of {row.images} images, {row.size_mb:.1f} MB, {row.path}")
    return True


def _first(session: Session) -> bool:
    """One seed of the first pair, and its table: the headline with n = 1, should nothing else be finished."""
    return _trained(session, session.students()[:2]) and (session.protocol.choose or _compare(session))


def _students(session: Session) -> bool:
    return _trained(session, session.students())


def _trained(session: Session, tasks: Sequence[Task]) -> bool:
    outcomes = carry_out_all(tasks, session.training, str(_teacher_run(session)), parallel=session.parallel)
    return all(outcome.result is not None for outcome in outcomes)


def _compare(session: Session) -> bool:
    """Read the test set, once a run; choosing a protocol reads the validation images instead."""
    if session.protocol.choose:
        print_choices(session.students(), session.machine.runs_dir)
        return True
    students = _finished_students(session)
    if not students:
        return False
    found = _compared(session, [_teacher_run(session), *students])
    gains = _gains(session)
    write_json(session.work / "headline.json", found.to_json())
    write_json(session.work / "gains.json", [asdict(each) for each in gains])
    plot_comparison(found, session.work / "headline.svg")
    print_table(found, session.machine.runs_dir, gains)
    return True


def _gains(session: Session) -> list[Gain]:
    found = []
    for taught, alone in PAIRS:
        first, second = ([test_top1(run) for run in _finished_students(session, name)] for name in (taught, alone))
        if first and second:
            found.append(gain(taught, alone, first, second))
    return found


def _peers(session: Session) -> bool:
    from benchmarks.headline.peers import StepTime, time_steps

    target, done = session.work / "peers.json", session.work / "peers.done"
    if done.exists():
        return True
    if session.machine.left_s < (0 if session.protocol.tiny else _PEERS_S):
        return False

    def keep(found: list[StepTime]) -> None:
        write_json(target, [asdict(timing) for timing in found])

    try:
        timings = time_steps(session.students()[0], _teacher_run(session), session.machine, keep)
    except OutOfTimeError:
        return False
    done.touch()
    for timing in timings:
        print(f"{timing.name:44s} {timing.median_ms:9.2f} ms/step  (n={timing.n}, batch {timing.batch})")
    return True


def _compared(session: Session, runs: Sequence[Path]) -> Comparison:
    seconds = 0.2 if session.protocol.tiny else 4.0
    return compare(runs, runs_dir=session.machine.runs_dir, device=session.machine.device, seconds_per_model=seconds)


def _teacher_run(session: Session) -> Path:
    run = find_run(teacher_task(session.protocol), session.machine.runs_dir)
    if run is None or run.status != "finished":
        raise SystemExit("the teacher is not finished: begin with the stage teacher")
    return run.path


def _finished_students(session: Session, name: str | None = None) -> list[Path]:
    tasks = [task for task in session.students() if name in (None, task.name)]
    runs = [find_run(task, session.machine.runs_dir) for task in tasks]
    return [run.path for run in runs if run is not None and run.status == "finished"]


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where everything is finished, 75 where the same command should be given again."""
    args = _parser().parse_args(arguments)
    started = time.time()
    work = args.work / ("choose" if args.choose else "final")
    work.mkdir(parents=True, exist_ok=True)
    protocol = Protocol(
        data=args.data,
        tiny=args.tiny,
        choose=args.choose,
        seeds=args.seeds,
        views=args.views or (2 if args.tiny else 40),
        batch=args.batch or (50 if args.tiny else 500),
        teacher_epochs=args.teacher_epochs or (2 if args.tiny else _affordable(work, args.teacher_minutes)),
        student_epochs=args.student_epochs or (3 if args.tiny else 100),
        quick_epochs=args.quick_epochs if args.quick_epochs is not None else (2 if args.tiny else 45),
        compile=args.student_compile,
    )
    deadline = started + 60 * args.minutes - (2 if args.tiny else _RESERVE_S)
    session = Session(
        protocol=protocol,
        machine=Machine(work / "runs", args.device, args.threads, deadline),
        work=work,
        out=args.out,
        parallel=args.parallel,
        stages=tuple(stage for stage in args.stages if not (args.choose and stage == "peers")),
        compare_s=5.0 if args.tiny else 60.0,
    )
    if args.profile:
        from benchmarks.headline.profile import profile_steps

        profile_steps(protocol, session.machine, work)
        pack(work, args.out, [])
        return 0
    finished = measure(session)
    say(f"{time.time() - started:.0f} s in all; " + ("finished" if finished else "give the same command again"))
    return 0 if finished else 75


def _affordable(work: Path, minutes: float) -> int:
    """Epochs of the teacher: 60, or as many as fit by the step that ``--profile`` measured, 20 at least."""
    path = work / "profile.json"
    if not path.exists():
        return _TEACHER_EPOCHS
    step = read_json(path)["steps"][0]
    epoch_s = step["step_ms"] / 1e3 * _TRAIN_IMAGES / step["batch"]
    return max(20, min(_TEACHER_EPOCHS, int(60 * minutes / epoch_s)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.headline", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", metavar="DIR", help="folder that holds cifar-10-batches-py (default: synthetic images)")
    add("--work", metavar="DIR", type=Path, default=Path("headline"), help="runs and results, kept between calls")
    add("--out", metavar="DIR", type=Path, default=Path("headline/out"), help="what to take away, in few small files")
    add("--minutes", type=float, default=9.5, help="this call's budget (default: 9.5)")
    add("--device", help="cpu, cuda, mps (default: the best there is)")
    add("--threads", type=int, help="CPU threads of each process (default: torch's choice)")
    add("--parallel", type=int, default=1, help="students trained at a time, in processes of their own (default: 1)")
    add("--seeds", type=int, default=3, help="of each student (default: 3)")
    add("--teacher-epochs", type=int, help="default: 60; where --profile went before, what fits --teacher-minutes")
    add("--teacher-minutes", type=float, default=8.0, help="of training (default: 8)")
    add("--student-epochs", type=int, help="default: 100")
    add("--quick-epochs", type=int, help="of the student trained within a minute; 0: none (default: 45)")
    add("--views", type=int, help="in the bank, 1 MB each (default: 40)")
    add("--batch", type=int, help="of teacher and students (default: 500, a divisor of 50,000)")
    modes = ("default", "reduce-overhead", "max-autotune", "false")
    add("--student-compile", choices=modes, help="default: the recipe's auto")
    add("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="only these")
    add("--choose", action="store_true", help="try variants on 45,000 / 5,000 images; the test set decides nothing")
    add("--profile", action="store_true", help="where a step's time goes, instead of the stages")
    add("--tiny", action="store_true", help="tiny networks and data: a dry run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
