"""What only a GPU can show, checked in one go: parity with the CPU, banks, resuming, compiling, latency, speed, tests.

Usage:
    python -m benchmarks.gpu_check [--device cuda] [--data DIR] [--out gpu-check.json]

Each check's result is written as it comes, so that a machine that is taken away leaves what was found.
``--tiny --device cpu`` is a dry run of every line but the card's. Exit code 1 where a check failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.headline.peers import time_steps
from benchmarks.headline.runs import Machine
from benchmarks.headline.tasks import Protocol, student_tasks, teacher_task
from distill.devices import describe_device, library_versions, resolve_device
from distill.errors import TerminatedRunError
from distill.evaluation.latency import batch_sizes_on, measure_latency
from distill.events import Event, StepDone
from distill.files import write_json
from distill.models.trained import load_trained
from distill.pipeline import Options, finetune_teacher, resume_run, train_student
from distill.recipe import Recipe, load_recipe
from distill.runs import RunFolder, list_runs

__all__ = ["CHECKS", "main"]

ROOT = Path(__file__).parents[1]
_FP32 = ("train.precision=fp32", "train.compile=false", "train.deterministic=true")
_PARITY = 0.02  # of the first epoch's loss: sums are added in another order, and training amplifies that
_CLOSE = 0.1  # of the largest logit, between bf16 with autocast and with weights that are cast once


@dataclass(frozen=True)
class Setting:
    """Where it is checked, and how large."""

    work: Path
    device: str
    data: str | None
    tiny: bool

    def recipe(self, name: str, *changes: str) -> Recipe:
        """A bundled recipe for two epochs on synthetic images, in the network's own size or a tiny one."""
        role = load_recipe(name).role
        source = "teachers" if role == "teacher" else "students"
        size = 120 if self.tiny else 4000
        own = [f"data={{name: synthetic, limit: {size}, test_limit: 60}}", "train.epochs=2", "schedule={kind: cosine}"]
        own += [f"model={{source: {source}, name: tiny}}", "train.batch_size=40"] if self.tiny else []
        return load_recipe(name, [*own, *changes])

    def options(self, folder: str, device: str | None = None, **more: Any) -> Options:
        return Options(runs_dir=self.work / folder, device=device or self.device, **more)

    def teacher(self, name: str = "resnet20_cifar10") -> Path:
        """A trained teacher, trained once."""
        found = [run.path for run in list_runs(self.work / "teacher")]
        if found:
            return found[0]
        recipe = self.recipe(name, "role=teacher", "model.max_params=null", *_FP32[1:2])
        return finetune_teacher(recipe, options=self.options("teacher")).run


def _loss(run: Path) -> float:
    return float(RunFolder(run).metrics()[0]["train_loss"])


def check_tests(setting: Setting) -> dict[str, Any]:
    """The tests that need a card."""
    paths = ["tests/unit/data/test_batches.py"] if setting.tiny else ["tests/unit", "tests/e2e"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *paths]
    child = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    return {"ok": child.returncode == 0, "said": child.stdout.strip().splitlines()[-1:], "code": child.returncode}


def check_parity(setting: Setting) -> dict[str, Any]:
    """A student's first epoch in fp32 on the CPU and on the device."""
    recipe = setting.recipe("r18_small_scratch", *_FP32)
    cpu, device = (
        _loss(train_student(recipe, options=setting.options(f"parity_{where}", where)).run)
        for where in ("cpu", setting.device)
    )
    return {"ok": abs(cpu - device) <= _PARITY * abs(cpu), "cpu": cpu, "device": device}


def check_bank(setting: Setting) -> dict[str, Any]:
    """The same student taught live and by the bank, in the device's own precision."""
    losses = {}
    for how in ("live", "bank"):
        recipe = setting.recipe("r18_small", f"teacher.logits={how}", *_FP32[1:])
        run = train_student(recipe, teacher=str(setting.teacher()), options=setting.options(f"taught_{how}")).run
        losses[how] = _loss(run)
    return {"ok": abs(losses["live"] - losses["bank"]) <= _PARITY * abs(losses["live"])} | losses


def check_resume(setting: Setting) -> dict[str, Any]:
    """A run that is stopped in its second epoch ends, with deterministic kernels, with the bytes of a whole one."""
    recipe = setting.recipe("r18_small_scratch", *_FP32)
    whole = train_student(recipe, options=setting.options("whole")).run

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and (event.epoch, event.step) == (1, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    with suppress(TerminatedRunError):
        train_student(recipe, options=setting.options("stopped", on_event=stop))
    run = list_runs(setting.work / "stopped")[0].path
    resume_run(run, options=setting.options("stopped"))
    files = ("metrics.jsonl", "checkpoints/last/model.safetensors")
    same = {name: (run / name).read_bytes() == (whole / name).read_bytes() for name in files}
    return {"ok": all(same.values())} | same


def check_compiled(setting: Setting) -> dict[str, Any]:
    """A run as its recipe's auto has it, frozen at first: it ends, and says what compiling took."""
    recipe = setting.recipe("r18_small_scratch", "train.freeze_backbone_epochs=1", "train.epochs=3")
    run = RunFolder(train_student(recipe, options=setting.options("compiled")).run)
    timing = run.timing()
    compiles = [line.get("compile_s", 0.0) for line in timing]
    expected = run.recipe().train.compile is not False
    return {"ok": [each > 0 for each in compiles] == [False, expected, False], "timing": timing}


def check_latency(setting: Setting) -> dict[str, Any]:
    """What is timed answers as what is asked, in which time, launched and replayed."""
    device = resolve_device(setting.device)
    trained = load_trained(RunFolder(setting.teacher()), device=device)
    side = trained.normalize.input_size
    images, timed = torch.randn(32, 3, side, side, device=device), trained.to_time()
    with torch.inference_mode():
        asked, answered = trained.network(images).float(), timed(images).float()
    difference = ((asked - answered).abs().max() / asked.abs().max()).item()
    networks: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "asked": trained.network.__call__,  # what is no module is launched, not captured
        "shipped": timed,
    }
    shapes = dict.fromkeys(networks, (3, side, side))
    found = measure_latency(networks, shapes, device=device, seconds_per_model=0.2 if setting.tiny else 4.0)
    milliseconds = {name: {size: cell.median_ms for size, cell in cells.items()} for name, cells in found.items()}
    return {"ok": difference <= _CLOSE, "difference": difference, "ms": milliseconds, "n": len(batch_sizes_on(device))}


def check_speed(setting: Setting) -> dict[str, Any]:
    """A step of distill, from the bank and live, beside timm.task: the headline's networks."""
    protocol = Protocol(data=setting.data, tiny=setting.tiny, batch=50 if setting.tiny else 500, teacher_epochs=1)
    machine = Machine(setting.work / "speed" / "runs", setting.device, None, time.time() + 240)
    task = teacher_task(protocol)
    brief = replace(task, overrides=(*task.overrides, "train.compile=false", "schedule={kind: cosine}"))
    options = Options(runs_dir=machine.runs_dir, device=setting.device)
    teacher = finetune_teacher(brief.recipe(), options=options).run
    steps = time_steps(student_tasks(protocol)[0], teacher, machine, lambda found: None)
    return {"ok": len(steps) > 1, "steps": [asdict(each) for each in steps]}


CHECKS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "parity": check_parity,
    "bank": check_bank,
    "resume": check_resume,
    "compiled": check_compiled,
    "latency": check_latency,
    "speed": check_speed,
    "tests": check_tests,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every check holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu with --tiny for a dry run (default: cuda)")
    parser.add_argument("--data", metavar="DIR", help="holds cifar-10-batches-py (default: synthetic images)")
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path("gpu-check.json"))
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS))
    parser.add_argument("--tiny", action="store_true", help="tiny networks: a dry run")
    args = parser.parse_args(arguments)
    about = {"device": describe_device(resolve_device(args.device)), "versions": library_versions()}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="distill-gpu-") as folder:
        setting = Setting(Path(folder), args.device, args.data, args.tiny)
        for name in args.only:
            found[name] = _checked(CHECKS[name], setting)
            write_json(args.out, about | {"checks": found})
            print(f"{name}: {'holds' if found[name]['ok'] else 'FAILS'}, {found[name]['seconds']:.1f} s", flush=True)
    return 0 if all(each["ok"] for each in found.values()) else 1


def _checked(check: Callable[[Setting], dict[str, Any]], setting: Setting) -> dict[str, Any]:
    started = time.monotonic()
    try:
        result = check(setting)
    except Exception:  # the others are still worth their time on a borrowed machine
        result = {"ok": False, "failed": traceback.format_exc()}
    return result | {"seconds": round(time.monotonic() - started, 1)}


if __name__ == "__main__":
    sys.exit(main())
