"""The headline's protocol, its stops and restarts, its counts, its intervals, and what it packs."""

from __future__ import annotations

import json
import math
import tarfile
import threading
import time
from pathlib import Path

import pytest
import torch
from scipy import stats

from benchmarks.headline import __main__ as headline
from benchmarks.headline import pack as packing
from benchmarks.headline import peers
from benchmarks.headline import profile as profiling
from benchmarks.headline import runs as headline_runs
from benchmarks.headline.counts import Ceilings, count_floor
from benchmarks.headline.report import gain
from benchmarks.headline.runs import Machine, carry_out, find_run
from benchmarks.headline.tasks import Protocol, choice_tasks, student_tasks, teacher_task
from distill.events import StepDone
from distill.models import params_of
from distill.recipe import load_recipe
from distill.runs import list_runs
from distill.teaching.key import augmentation_key

TINY = Protocol(tiny=True, batch=50, views=2, teacher_epochs=2, student_epochs=3, quick_epochs=2, seeds=1)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "runs", "cpu", 1, time.time() + 3600)


def test_the_protocol_is_fair_and_within_the_budget() -> None:
    protocol = Protocol(data="somewhere")
    recipes = [task.recipe() for task in student_tasks(protocol)]
    assert [recipe.name for recipe in recipes[:2]] == ["r453_kd", "r453"]
    assert {params_of(recipe.model, 10) for recipe in recipes} == {4_992_586, 4_935_242}
    assert {recipe.data.val_fraction for recipe in recipes} == {0.0}
    keys = [augmentation_key(recipe.augment) for recipe in [*recipes, teacher_task(protocol).recipe()]]
    assert all(key == keys[0] for key in keys), "one bank cannot serve all"
    pairs = {recipe.name: recipe for recipe in recipes}
    for taught, alone in (("r453_kd", "r453"), ("r18_small", "r18_small_scratch")):
        first, second = pairs[taught], pairs[alone]
        assert (first.model, first.optim, first.schedule) == (second.model, second.optim, second.schedule)
        assert first.train.model_copy(update={"label_smoothing": second.train.label_smoothing}) == second.train
    seeds = [recipe.train.seed for recipe in recipes if recipe.name == "r18_small"]
    assert seeds == [0, 1, 2]


def test_a_protocol_is_chosen_on_images_that_were_held_back() -> None:
    protocol = Protocol(data="somewhere", choose=True)
    recipes = [task.recipe() for task in [teacher_task(protocol), *choice_tasks(protocol)]]
    assert {(recipe.data.val_fraction, recipe.data.split_seed) for recipe in recipes} == {(0.1, 0)}
    assert len({recipe.name for recipe in recipes}) == len(recipes)


def test_out_of_time_is_saved_and_gone_on_with(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headline_runs, "_MIN_S", -math.inf)
    late = Machine(machine.runs_dir, "cpu", 1, time.time() - 1)
    task = teacher_task(TINY)
    stopped = carry_out(task, late)
    assert (stopped.result, stopped.why) == (None, "out of time, saved")
    assert find_run(task, machine.runs_dir).status == "interrupted"
    finished = carry_out(task, machine)
    assert finished.result.epochs == 2
    assert len(list_runs(machine.runs_dir)) == 1
    again = carry_out(task, late)
    assert again.result == finished.result


def test_without_time_nothing_is_begun(machine: Machine) -> None:
    late = Machine(machine.runs_dir, "cpu", 1, time.time() - 1)
    assert carry_out(teacher_task(TINY), late).why == "no time left"
    assert not machine.runs_dir.exists()


def test_a_gains_interval_is_welchs() -> None:
    found = gain("a", "b", [0.1, 0.2, 0.3], [0.2, 0.4, 0.6])
    error = math.sqrt(0.01 / 3 + 0.04 / 3)
    freedom = (0.05 / 3) ** 2 / ((0.01 / 3) ** 2 / 2 + (0.04 / 3) ** 2 / 2)
    reach = stats.t.ppf(0.975, freedom) * error
    assert found.difference == pytest.approx(-0.2)
    assert found.interval == pytest.approx((-0.2 - reach, -0.2 + reach))
    assert gain("a", "b", [0.1], [0.2, 0.4]).interval is None


def test_a_step_is_counted_by_hand() -> None:
    model = "{source: students, name: resnet, blocks: [1], channels: [4], strides: [1], input_size: 8}"
    recipe = load_recipe("r453", [f"model={model}"])
    floor = count_floor(recipe, 10, Ceilings(flops=1e6, bytes_per_s=1e6))
    macs = 64 * 4 * 3 * 9 + 2 * 64 * 4 * 4 * 9 + 4 * 10  # stem, two convolutions, classifier
    params = 4 * 3 * 9 + 2 * 4 * 4 * 9 + 3 * 2 * 4 + 4 * 10 + 10
    assert floor.flop == 6 * macs * 10
    assert floor.bytes == 28 * 3 * 4 * 64 * 10 + 32 * params
    assert floor.seconds == pytest.approx((max(floor.flop, floor.bytes) / 1e6, (floor.flop + floor.bytes) / 1e6))


def test_a_bank_is_packed_in_small_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PART_BYTES", 10_000)
    bank = tmp_path / "work/runs/teacher/001/banks/0123456789"
    (bank / "views").mkdir(parents=True)
    content = {f"views/{number:05d}-000.npy": bytes([number]) * 3000 for number in range(7)}
    for name, data in content.items():
        (bank / name).write_bytes(data)
    written = packing.pack(tmp_path / "work", tmp_path / "out", [])
    parts = [path for path in written if path.name.startswith("bank-")]
    assert len(parts) > 1
    for path in parts:
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path / "there", filter="data")
    there = tmp_path / "there" / bank.relative_to(tmp_path / "work")
    assert {name: (there / name).read_bytes() for name in content} == content


def test_what_there_is_is_packed_after_each_stage_and_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that hears nothing, as compiling does, is packed beside."""
    packed: list[str] = []
    at_deadline = threading.Event()

    def pack(work: Path, out: Path, students: list[Path]) -> None:
        packed.append(threading.current_thread().name)
        if threading.current_thread() is not threading.main_thread():
            at_deadline.set()

    def deaf(_session: headline.Session) -> bool:
        assert at_deadline.wait(60)
        return False

    monkeypatch.setattr(headline, "pack", pack)
    monkeypatch.setattr(headline, "_teacher", lambda _session: True)
    monkeypatch.setattr(headline, "_bank", deaf)
    machine = Machine(tmp_path / "runs", "cpu", 1, time.time() + 0.2)
    session = headline.Session(TINY, machine, tmp_path, tmp_path / "out", stages=("teacher", "bank", "students"))
    assert headline.measure(session) is False
    assert [name == "MainThread" for name in packed].count(True) == 3  # two stages, and the end
    assert len(packed) == 4


def test_each_peers_time_is_told_as_it_comes(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def ours(_task: object, _teacher: object, _machine: object, logits: str) -> peers.StepTime:
        if logits == "live":
            raise headline_runs.OutOfTimeError("live")
        return peers.StepTime(logits, 1.0, (1.0,), 1, 50)

    monkeypatch.setattr(peers, "_ours", ours)
    told: list[list[str]] = []
    with pytest.raises(headline_runs.OutOfTimeError):
        peers.time_steps(
            teacher_task(TINY), Path("t"), machine, lambda found: told.append([each.name for each in found])
        )
    assert told == [["bank"]]


def test_the_hosts_time_is_counted_from_an_idle_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is queued in 1 s of the host; the device takes 5, and with a full queue so does the host."""
    clock = [0.0]
    probe = profiling._Probe(torch.device("cpu"), warm=2, timed=3, profiled=2)
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(probe, "_start", lambda: None)
    monkeypatch.setattr(probe, "_stop", lambda: None)
    synchronised = [False]

    def now() -> float:
        synchronised[0] = True
        clock[0] += 5.0
        return clock[0]

    monkeypatch.setattr(probe, "_now", now)
    for step in range(20):
        clock[0] += 1.0 if synchronised[0] else 5.0
        synchronised[0] = False
        probe(StepDone(0, step, 0))
    assert probe.queued == [1.0] * 10
    assert probe.host_seconds == 1.0


@pytest.mark.slow
def test_a_dry_run_finishes_and_leaves_compares_document(tmp_path: Path) -> None:
    command = ["--tiny", "--device", "cpu", "--threads", "1", "--seeds", "1", "--student-epochs", "2"]
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    assert headline.main([*command, *folders, "--minutes", "20"]) == 0
    rows = json.loads((tmp_path / "out/headline.json").read_text())["rows"]
    assert {row["name"]: row["seeds"] for row in rows} == {
        "resnet152_cifar10_scratch": 1,
        "r453_kd": 1,
        "r453": 1,
        "r453_kd_minute": 1,
        "r18_small": 1,
        "r18_small_scratch": 1,
    }
    assert (tmp_path / "out/student.safetensors").exists()


@pytest.mark.slow
def test_steps_are_profiled_on_the_device_that_is_named_beside_the_runs(machine: Machine, tmp_path: Path) -> None:
    profiling.profile_steps(TINY, machine, tmp_path)
    steps = json.loads((tmp_path / "profile.json").read_text())["steps"]
    assert [(each["name"], each["step_ms"] > 0) for each in steps] == [("teacher", True), ("student", True)]
    found = {run.path.parent.parent for run in list_runs(machine.runs_dir.parent / "profile")}
    assert found == {machine.runs_dir.parent / "profile"}
