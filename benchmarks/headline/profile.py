"""Where a training step spends its time: kernels by time, achieved FLOP/s and bytes/s beside what the device can do."""

from __future__ import annotations

import os
import signal
import statistics
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.headline.counts import Ceilings, Floor, count_floor
from benchmarks.headline.runs import Machine, say
from benchmarks.headline.tasks import Protocol, Task, student_tasks, teacher_task
from distill.devices import resolve_device
from distill.errors import TerminatedRunError
from distill.events import Event, StepDone
from distill.files import write_json
from distill.pipeline import Options, finetune_teacher, train_student

__all__ = ["measure_ceilings", "profile_steps"]

_ROWS = 30
_HOSTED = 10  # steps that begin with an idle device


@dataclass
class _Probe:
    """Listens to a run: lets it warm up, times steps, profiles a few more, then asks it to stop."""

    device: torch.device
    warm: int
    timed: int
    profiled: int
    seen: int = 0
    started: float = 0.0
    seconds: float = 0.0
    profiler: Any = None
    table: str = ""
    queued: list[float] = field(default_factory=list)  # seconds until each of some steps was queued

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StepDone) or self.table:
            return
        ready = time.perf_counter()
        self.seen += 1
        timed = self.warm + self.timed
        hosted = timed + _HOSTED
        if timed < self.seen <= hosted:
            self.queued.append(ready - self.started)
        if self.seen == timed:
            self.seconds = (self._now() - self.started) / self.timed
        if self.seen == self.warm or timed <= self.seen < hosted:
            # From an idle device on: once its queue is full, a step takes the host as long as it takes the device.
            self.started = self._now()
        if self.seen == hosted:
            self._start()
        elif self.seen == hosted + self.profiled:
            self._stop()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _start(self) -> None:
        kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])
        self.profiler = profile(activities=kinds)
        self.profiler.start()

    def _stop(self) -> None:
        self._now()
        self.profiler.stop()
        by = "self_device_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        self.table = self.profiler.key_averages().table(sort_by=by, row_limit=_ROWS, max_name_column_width=80)
        os.kill(os.getpid(), signal.SIGTERM)

    @property
    def host_seconds(self) -> float:
        """A step's time on the host, the device idle before it: the median."""
        return statistics.median(self.queued) if self.queued else float("nan")


def profile_steps(protocol: Protocol, machine: Machine, work: Path) -> None:
    """Profile the teacher's step, and the first student's as it is compiled by default and with CUDA graphs."""
    device = resolve_device(machine.device)
    ceilings = measure_ceilings(device, small=protocol.tiny)
    say(f"ceilings: {ceilings.flops / 1e12:.1f} TFLOP/s (bf16), {ceilings.bytes_per_s / 1e12:.3f} TB/s (copies)")
    # the network that learns from labels alone needs neither teacher nor bank, which add a few lookups
    student = next(task for task in student_tasks(protocol) if not task.taught)
    cases: list[tuple[str, Task, str | None]] = [("teacher", teacher_task(protocol), None), ("student", student, None)]
    if device.type == "cuda":
        cases += [("student, CUDA graphs", student, "reduce-overhead")]
    entries = []
    for name, task, mode in cases:
        if machine.left_s > 0:
            entries.append(_profiled(name, task, mode, machine=machine, ceilings=ceilings, work=work))
            write_json(work / "profile.json", {"ceilings": asdict(ceilings), "steps": entries})


def _profiled(
    name: str, task: Task, mode: str | None, *, machine: Machine, ceilings: Ceilings, work: Path
) -> dict[str, Any]:
    device = resolve_device(machine.device)
    changes = ("train.epochs=50", *((f"train.compile={mode}",) if mode else ()))
    recipe = replace(task, overrides=(*task.overrides, *changes)).recipe()
    probe = _Probe(device, *((2, 3, 2) if device.type == "cpu" else (20, 40, 5)))
    runs = machine.runs_dir.parent / "profile"
    options = Options(runs, device=machine.device, threads=machine.threads, on_event=probe)
    with suppress(TerminatedRunError):  # the probe has seen enough
        (finetune_teacher if recipe.role == "teacher" else train_student)(recipe, options=options)
    floor = count_floor(recipe, recipe.train.batch_size, ceilings)
    (work / f"profile-{name.split(',', maxsplit=1)[0]}{'-graphs' if mode else ''}.txt").write_text(probe.table)
    entry = asdict(floor) | {"name": name, "step_ms": 1e3 * probe.seconds, "host_ms": 1e3 * probe.host_seconds}
    _print(entry, floor, probe)
    return entry


def _print(entry: dict[str, Any], floor: Floor, probe: _Probe) -> None:
    step = probe.seconds
    print(probe.table[:6000])
    print(
        f"{entry['name']}: {entry['step_ms']:.2f} ms a step (host {entry['host_ms']:.2f}), batch {floor.batch}: "
        f"{floor.flop / step / 1e12:.1f} TFLOP/s, {floor.bytes / step / 1e12:.2f} TB/s of what was counted; "
        f"floor {1e3 * floor.seconds[0]:.2f} to {1e3 * floor.seconds[1]:.2f} ms"
    )


def measure_ceilings(device: torch.device, *, small: bool = False) -> Ceilings:
    """A large bf16 matrix product and a large copy on random data, each the median of ten."""
    side, count = (256, 1 << 20) if small or device.type == "cpu" else (8192, 1 << 31)
    one, two = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = _median_seconds(lambda: one @ two, device)
    source = torch.randint(0, 255, (count,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = _median_seconds(lambda: target.copy_(source), device)
    return Ceilings(flops=2 * side**3 / product, bytes_per_s=2 * count / copy)


def _median_seconds(work: Any, device: torch.device, repeats: int = 10) -> float:
    times = []
    for _ in range(repeats + 3):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return sorted(times[3:])[repeats // 2]
