"""One contestant in a process of its own, which runs an epoch whenever it is told to, and says what it took."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.peers.frameworks import FRAMEWORKS, Framework, quiet, version
from benchmarks.peers.setting import Setting, normalised, reference_loss
from distill.devices import autocast, fast_kernels
from distill.fingerprint import state_sha256

__all__ = ["Cost", "Meter", "serve"]

_CHECKED_IMAGES = 16


@dataclass(frozen=True)
class Cost:
    """What a stretch of work took: CPU seconds of the process and all its workers, wall seconds, and its mean loss."""

    cpu_s: float
    wall_s: float
    loss: float = float("nan")


class Meter:
    """CPU seconds, user and system, of this process and its children, running and gone; and wall seconds."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu_s, self._wall_s = self._now()

    def stop(self, loss: float = float("nan")) -> Cost:
        """What happened since the meter was made."""
        cpu_s, wall_s = self._now()
        return Cost(cpu_s - self._cpu_s, wall_s - self._wall_s, loss)

    def _now(self) -> tuple[float, float]:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        gone = resource.getrusage(resource.RUSAGE_CHILDREN)
        running = [_cpu_s_of(each.pid) for each in multiprocessing.active_children() if each.pid is not None]
        return time.process_time() + gone.ru_utime + gone.ru_stime + sum(running), time.perf_counter()


def _cpu_s_of(pid: int) -> float:
    """CPU seconds of a running process, to the nanosecond; elsewhere than on Linux workers end with their epoch."""
    if sys.platform != "linux":
        return 0.0
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)


def serve(name: str, setting: Setting, pipe: Connection) -> None:
    """Answer ``"epoch"`` with a :class:`Cost` until ``"end"``, which is answered with what was found on the way.

    The first message is ``{"ready": {...}}``, or ``{"missing": why}`` where the package is not installed.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        with fast_kernels(torch.device(setting.device)):  # for ours and theirs alike
            _answer(_start(name, setting), setting, pipe)
    except ImportError as error:
        pipe.send({"missing": f"{type(error).__name__}: {error}"})
    except EOFError:
        pass  # whoever asked is gone
    except (
        BaseException
    ):  # a DataLoader's workers hold the pipe open: without a word the other side would wait for ever
        pipe.send({"failed": traceback.format_exc()})
        raise


def _answer(contestant: Generator[Any, str | None, None], setting: Setting, pipe: Connection) -> None:
    pipe.send({"ready": next(contestant)})
    device = torch.device(setting.device)
    while pipe.recv() == "epoch":
        meter = Meter(device)
        pipe.send(meter.stop(next(contestant)))
    pipe.send(contestant.send("end"))


def _start(name: str, setting: Setting) -> Generator[Any, str | None, None]:
    if name in FRAMEWORKS:
        return _peer(FRAMEWORKS[name], setting)
    return _ours(setting, logits="bank" if name == "distill" else "live")


def _ours(setting: Setting, *, logits: str) -> Generator[Any, str | None, None]:
    """First what it is; then, each time, the mean loss of another epoch; after "end" what was checked."""
    from benchmarks.peers.ours import Ours, prepare_process

    prepare_process(setting.device)
    ours = Ours(setting, logits=logits)
    about: dict[str, Any] = {"version": version("distill"), "loss_difference": None, "choices": ours.choices}
    if logits == "bank":
        about["bank"] = _bank_cost(ours, setting)
    asked = yield about
    for loss in ours.epochs():
        asked = yield loss
        if asked == "end":
            break
    yield {"teacher_unchanged": ours.teacher_is_unchanged()}


def _bank_cost(ours: Any, setting: Setting) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter(torch.device(setting.device))
        for _ in ours.fill_bank(Path(folder) / "bank"):
            pass
        return meter.stop()


def _peer(
    build: Callable[[Setting, nn.Module, nn.Module], Framework], setting: Setting
) -> Generator[Any, str | None, None]:
    """As :func:`_ours`."""
    device = torch.device(setting.device)
    student, teacher = setting.build_student().to(device), setting.build_teacher().to(device)
    if setting.peers_channels_last:
        student, teacher = (network.to(memory_format=torch.channels_last) for network in (student, teacher))
    copies = deepcopy(student), deepcopy(teacher)
    weights, parameters = state_sha256(teacher.state_dict()), list(student.parameters())
    with quiet():
        framework = build(setting, student, teacher)
    asked = yield {
        "version": version(framework.package),
        "differences": framework.differences,
        "loss_difference": _loss_difference(framework, setting, *copies),
    }
    while asked != "end":
        asked = yield _epoch(framework, setting, device)
    pairs = zip(parameters, copies[0].parameters(), strict=True)
    moved = all(not torch.equal(now, before) for now, before in pairs)
    yield {
        "teacher_unchanged": state_sha256(teacher.state_dict()) == weights and not teacher.training,
        "student_moved": moved,
    }


def _epoch(framework: Framework, setting: Setting, device: torch.device) -> float:
    losses = []
    framework.start_epoch()
    for images, labels, *_ in framework.loader:
        batch = images.to(device)
        if setting.peers_channels_last:
            batch = batch.contiguous(memory_format=torch.channels_last)
        with autocast(device, "bf16" if setting.peers_bf16 else "fp32"):
            loss = framework.loss(batch, labels.to(device))
        framework.update(loss)
        losses.append(loss.item())
    return sum(losses) / len(losses)


def _loss_difference(framework: Framework, setting: Setting, student: nn.Module, teacher: nn.Module) -> float:
    """How far its loss of some images is from the definition, relative; asked before any step."""
    device = torch.device(setting.device)
    images = normalised(torch.from_numpy(setting.pixels[:_CHECKED_IMAGES]).permute(0, 3, 1, 2)).to(device)
    labels = torch.from_numpy(setting.labels[:_CHECKED_IMAGES]).to(device)
    framework.start_epoch()
    theirs = framework.loss(images, labels).item()
    with torch.no_grad():
        expected = reference_loss(student.train()(images), teacher.eval()(images), labels)
    return abs(theirs - expected) / abs(expected)
