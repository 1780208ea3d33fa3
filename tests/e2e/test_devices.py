"""Several devices: two processes on a CPU, joined by gloo, as ``--devices 2`` and as torchrun start them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from distill.errors import MissingError, RunError, TerminatedRunError, UsageError
from distill.events import Event, StepDone
from distill.pipeline import Options, RunResult, train_student
from distill.pipeline.context import prepare
from distill.recipe import Recipe, dump_recipe, parse_recipe
from distill.runs import RunFolder

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent


def _several() -> ModuleType:
    """The script beside this file, for its cases."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("several", HERE / "several.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["several"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


several = _several()


def environment() -> dict[str, str]:
    """Of a command: as ours, with the threads left to distill, and Python's own warnings shown."""
    return {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | {"PYTHONWARNINGS": "default"}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, teacher_run: RunResult) -> dict:
    """What two processes found out, one group for all cases: see several.py."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, str(HERE / "several.py"), str(folder), str(teacher_run.run)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment(), timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no advice of Fabric's, DDP's or gloo's
    assert done.stdout == ""
    return json.loads((folder / "found.json").read_text())


def weights(run: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(run) / "checkpoints" / "last" / "model.safetensors")


def same_bytes(one: str | Path, two: str | Path) -> bool:
    names = ("checkpoints/last/model.safetensors", "checkpoints/best/model.safetensors", "metrics.jsonl")
    return all((Path(one) / name).read_bytes() == (Path(two) / name).read_bytes() for name in names)


# Two processes are as one


@pytest.mark.parametrize("name", several.SAME_AS_ONE)
def test_two_ranks_give_the_weights_of_one(name: str, two, teacher_run: RunResult, tmp_path: Path) -> None:
    context = several.case(
        name, several.SAME_AS_ONE[name], teacher=str(teacher_run.run), options=Options(runs_dir=tmp_path, threads=1)
    )
    one = train_student(context.recipe, options=Options(runs_dir=tmp_path, device="cpu", threads=1))
    ours, theirs = weights(two["same"][name]), weights(one.run)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=2e-4, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}")
    lines = [RunFolder(Path(run)).metrics() for run in (two["same"][name], one.run)]
    for our_line, their_line in zip(*lines, strict=True):
        assert our_line == pytest.approx(their_line, rel=1e-3, abs=1e-4)
    assert RunFolder(Path(two["same"][name])).info.extra["devices"] == 2


def test_training_moves_the_weights_much_further_than_the_tolerance(two) -> None:
    """The comparison above could not fail on networks that had not learned, or on equal cases."""
    plain, mixed = weights(two["same"]["plain"]), weights(two["same"]["mixup and cutmix"])
    assert max((plain[key] - mixed[key]).abs().max() for key in plain) > 1e-2


def test_all_ranks_end_with_the_same_weights_and_statistics(two) -> None:
    """With batch norm (each rank's own while it trains), dropout, and a backbone that is frozen at first."""
    one, other = two["digests"]
    assert one == other


@pytest.mark.parametrize("name", several.RESUMED)
def test_a_signal_to_one_rank_stops_all_and_resuming_repeats_every_byte(name: str, two) -> None:
    found = two["resumed"][name]
    assert found["error"] == [f"TerminatedRunError: terminated; {found['run']} is saved"] * 2
    assert same_bytes(found["run"], found["whole"])


def test_every_rank_raises_the_same_where_the_loss_is_not_finite(two) -> None:
    one, other = two["not finite"]
    assert "the loss is not finite at epoch 1" in one
    assert one == other


# The command line


RECIPE = """
schema_version: 1
name: both
role: baseline
data: {name: synthetic, limit: 150, test_limit: 60}
augment: {crop_padding: 2, hflip: 0.5}
model: {source: students, name: tiny, dropout: 0.1}
train: {epochs: 40, batch_size: 32}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    (folder / "both.yaml").write_text(RECIPE)
    return folder


def start(base: Path, *command: str) -> subprocess.Popen:
    """A command of its own session, so that a signal can reach it as a terminal's does."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=base, env=environment(), stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; its whole session must be gone."""
    out, err = process.communicate(timeout=300)
    left = members(process.pid)
    for _ in range(300):  # Python's own resource tracker ends a moment after its process
        if not left:
            break
        time.sleep(0.1)
        left = members(process.pid)
    assert left == [], err
    return process.returncode, out, err


def members(session: int) -> list[str]:
    """The processes of a session, zombies too."""
    found = subprocess.run(["ps", "-o", "stat,args", "-s", str(session)], capture_output=True, text=True, check=False)
    return found.stdout.splitlines()[1:]


def student(*more: str, runs: str) -> list[str]:
    return [
        *("-m", "distill", "student", "--recipe", "both.yaml", "--device", "cpu"),
        *("--threads", "1", "--runs", runs, *more),
    ]


def wait_for_epochs(run: Path, count: int, process: subprocess.Popen) -> None:
    for _ in range(15000):
        metrics = run / "metrics.jsonl"
        if metrics.is_file() and len(metrics.read_bytes().splitlines()) >= count:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    raise AssertionError("it never came that far")


@pytest.fixture(scope="module")
def whole(base: Path) -> Path:
    """A run by ``--devices 2`` that nobody stopped."""
    process = start(base, sys.executable, *student("--devices", "2", "--json", runs="whole"))
    code, out, err = finish(process)
    assert code == 0, err
    assert "arning" not in err
    assert len(err.splitlines()) == 1 + 40 + 1  # the start, an epoch a line, what to do next
    document = json.loads(out)  # stdout is one document and nothing else
    assert document["status"] == "finished"
    return base / document["run"]


class _StopAfter:
    """Sends SIGTERM after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_goes_on_with_more_processes_where_no_step_of_its_epoch_is_left(tmp_path: Path) -> None:
    """One process has a last batch of two images, which two leave out: there is nothing to do but to end the epoch."""
    data = "data={name: synthetic, limit: 42, test_limit: 20, val_fraction: 0.0}"
    recipe = parse_recipe(RECIPE, source="both.yaml", overrides=[data, "train={epochs: 2, batch_size: 20, seed: 1}"])
    options = Options(runs_dir=tmp_path / "runs", device="cpu", threads=1, on_event=_StopAfter(2))
    with pytest.raises(TerminatedRunError):
        train_student(recipe, options=options)
    command = ["-m", "distill", "student", "--resume", "runs/both/001", "--device", "cpu", "--devices", "2", "--json"]
    code, out, err = finish(start(tmp_path, sys.executable, *command))
    assert code == 0, err
    assert json.loads(out)["epochs"] == 2
    first = RunFolder(tmp_path / "runs" / "both" / "001").metrics()[0]
    assert 0.0 < first["train_loss"] < 10.0


UNUSED = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head, self.other = nn.Linear(4, num_classes), nn.Linear(4, num_classes)

    def forward(self, x):
        return self.head(self.body(x))
"""


def test_a_network_with_weights_that_nothing_uses_trains_on_two(tmp_path: Path) -> None:
    (tmp_path / "unused.py").write_text(UNUSED)
    more = ["--set", "model={source: python, name: 'unused:Net'}", "--set", "train.epochs=2", "--allow-code", "--json"]
    (tmp_path / "both.yaml").write_text(RECIPE)
    code, out, err = finish(start(tmp_path, sys.executable, *student("--devices", "2", *more, runs="runs")))
    assert code == 0, err
    assert json.loads(out)["epochs"] == 2


@pytest.mark.slow
def test_devices_2_says_where_it_ran(whole: Path) -> None:
    info = RunFolder(whole).info
    assert info.extra["devices"] == 2
    assert info.threads == 1


@pytest.mark.slow
def test_torchrun_trains_to_the_same_bytes_and_one_process_speaks(base: Path, whole: Path) -> None:
    process = start(
        base, str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", *student("--json", runs="elastic")
    )
    code, out, err = finish(process)
    assert code == 0, err
    run = base / json.loads(out)["run"]
    assert same_bytes(run, whole)
    assert RunFolder(run).info.extra["devices"] == 2
    assert [path.name for path in run.parent.iterdir() if path.name != "latest"] == ["001"]
    ours = [line for line in err.splitlines() if "torch/distributed/run.py" not in line]  # torchrun's own advice
    assert len(ours) == 1 + 40 + 1
    assert "arning" not in err


@pytest.mark.slow
def test_torchrun_trains_one_student_after_the_other_and_builds_their_banks_before(
    base: Path, teacher_run: RunResult, student_recipe: Callable[..., Recipe]
) -> None:
    """Several groups one after the other, in the same processes."""
    taught = student_recipe("train.epochs=1", f"teacher={{banks: [{{run: '{teacher_run.run}'}}]}}", "name=taught")
    (base / "taught.yaml").write_text(dump_recipe(taught))
    more = ("--recipe", "taught.yaml", "--generations", "2", "--json")  # the last --recipe counts
    process = start(base, str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", *student(*more, runs="after"))
    code, out, err = finish(process)
    assert code == 0, err
    first, second = (RunFolder(base / run) for run in json.loads(out)["generations"])
    assert [run.info.extra["devices"] for run in (first, second)] == [2, 2]
    assert len(first.info.teacher["banks"]) == 1
    assert base / second.info.teacher["run"] == first.path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "send", "code", "said"),
    [
        (signal.SIGTERM, os.kill, 143, "stopped: terminated; {run} is saved"),
        (signal.SIGINT, os.killpg, 130, "stopped: interrupted; {run} is saved"),
        (signal.SIGKILL, os.kill, -9, ""),
    ],
    ids=["SIGTERM", "Ctrl-C", "kill -9"],
)
def test_the_processes_stop_together_saved(base: Path, number: int, send, code: int, said: str) -> None:
    """SIGTERM comes to the process that was started, a terminal's Ctrl-C to all; all save when that one is killed."""
    runs = f"stopped-{number}"
    process = start(base, str(BIN / "distill"), *student("--devices", "2", runs=runs)[2:])
    run = base / runs / "both" / "001"
    wait_for_epochs(run, 2, process)
    send(process.pid, number)
    found, _, err = finish(process)
    assert found == code, err
    assert said.format(run=f"{runs}/both/001") in err
    assert "Traceback" not in err
    info = RunFolder(run).info
    assert (info.status, info.exit_code) == ("interrupted", 143 if code < 0 else code)


@pytest.mark.slow
def test_resuming_a_stopped_run_ends_with_the_bytes_of_one_that_never_stopped(base: Path, whole: Path) -> None:
    """Goes on where the test before stopped."""
    run = base / "stopped-15" / "both" / "001"
    if not run.is_dir():
        pytest.skip("nothing was stopped")
    code, out, err = finish(start(base, str(BIN / "distill"), "student", "--resume", str(run), "--json"))
    assert code == 0, err
    assert json.loads(out)["epochs"] == 40
    assert same_bytes(run, whole)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_one_line(base: Path) -> None:
    broken = student("--devices", "2", "--set", "optim.lr=1e9", runs="broken")
    code, out, err = finish(start(base, sys.executable, *broken))
    assert code == 1
    assert out == ""
    assert "error: the loss is not finite at epoch 1" in err
    assert "Traceback" not in err
    assert RunFolder(base / "broken" / "both" / "001").status == "failed"


@pytest.mark.slow
def test_one_process_that_is_killed_takes_the_others_along(tmp_path: Path) -> None:
    process = start(tmp_path, sys.executable, str(HERE / "several.py"), str(tmp_path), "killed")
    code, _, err = finish(process)
    assert code == 1
    assert err.splitlines()[-2] == "distill.errors.RunError: process 1 was killed by SIGKILL"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_under_torchrun_one_killed_process_ends_all_in_a_line_and_the_run_goes_on(
    base: Path, whole: Path, rank: int
) -> None:
    """Torchrun's own report comes on top; the run ends with the bytes of one that nobody killed."""
    runs = f"killed-{rank}"
    torchrun = (str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2")
    process = start(base, *torchrun, *student(runs=runs))
    run = base / runs / "both" / "001"
    wait_for_epochs(run, 3, process)
    os.kill(_of_rank(process.pid, rank), signal.SIGKILL)
    code, out, err = finish(process)
    assert (code, out) == (1, "")
    ours = err.partition("torch.distributed.elastic.multiprocessing.errors")[0]  # behind it torchrun speaks
    assert "[rank" not in err  # nor a traceback of ours
    ends = ("error: ", "error in process ", "stopped: ", "stopped in process ")
    assert sum(line.startswith(ends) for line in ours.splitlines()) <= 1
    if rank == 1:  # torchrun ends the one that is left: at a step, or on its way out, which it may be already
        assert re.search(
            r"another process of this run is gone|terminated; \S+ is saved|stopped: terminated by SIGTERM\n", ours
        )
    kept = len((run / "metrics.jsonl").read_bytes().splitlines())
    assert 3 <= kept < 40

    process = start(base, *torchrun, "-m", "distill", "student", "--resume", str(run), "--json")
    code, out, err = finish(process)
    assert code == 0, err
    assert json.loads(out)["epochs"] == 40
    assert same_bytes(run, whole)


def _of_rank(launcher: int, rank: int) -> int:
    """The process that torchrun gave this number."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(launcher)], capture_output=True, text=True, check=True)
    for pid in map(int, found.stdout.split()):
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return pid
    raise AssertionError(found.stdout)


def test_what_a_scheduler_set_is_not_about_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in a step of SLURM's with four tasks is one process all the same: only torchrun's variables count."""
    job = {"JOB_ID": "77", "JOB_NAME": "train", "NTASKS": "4", "NTASKS_PER_NODE": "4", "PROCID": "3", "LOCALID": "3"}
    job |= {"NNODES": "1", "NODEID": "0", "JOB_NODELIST": "node7", "NODELIST": "node7", "STEP_NUM_TASKS": "4"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3"}.items():  # as some of its sites set
        monkeypatch.setenv(name, value)
    options = Options(runs_dir=tmp_path, device="cpu", threads=1)
    result = train_student(_recipe("train.epochs=1"), options=options)
    assert result.status == "finished"
    assert RunFolder(result.run).info.extra["devices"] == 1


# What cannot be


@pytest.fixture
def count_devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with two GPUs, as far as anybody asks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def _recipe(*overrides: str):
    return parse_recipe(RECIPE, source="both.yaml", overrides=overrides)


def test_sync_batchnorm_is_for_cuda(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.sync_batchnorm works on CUDA devices alone"):
        prepare(_recipe("train.sync_batchnorm=true"), Options(runs_dir=tmp_path, device="cpu", devices=2))
    prepare(_recipe("train.sync_batchnorm=true"), Options(runs_dir=tmp_path, device="cpu"))  # alone it has no meaning


def test_a_batch_has_two_images_for_each_device(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch_size 3 is over all devices: 2 of them need 4 or more"):
        prepare(_recipe("train.batch_size=3"), Options(runs_dir=tmp_path, device="cpu", devices=2))


def test_more_gpus_than_there_are(count_devices, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="--devices 3: this machine has 2"):
        prepare(_recipe(), Options(runs_dir=tmp_path, device="cuda", devices=3))
    with pytest.raises(UsageError, match="--device cuda:1 is one device"):
        prepare(_recipe(), Options(runs_dir=tmp_path, device="cuda:1", devices=2))


def test_a_listener_that_cannot_travel_is_a_usage_error(tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path, device="cpu", devices=2, on_event=lambda event: None)
    with pytest.raises(UsageError, match="cannot be sent to them"):
        train_student(_recipe(), options=options)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_teacher_is_found_before_any_process_starts(tmp_path: Path) -> None:
    taught = parse_recipe(several.BASE, source="x", overrides=(*several.TAUGHT, "teacher={run: nobody}"))
    with pytest.raises(RunError, match="nobody"):
        train_student(taught, options=Options(runs_dir=tmp_path, device="cpu", devices=2))
    assert dump_recipe(taught)
