"""What machines and people do to runs: one line, the right exit code, and the last good state intact."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from distill.cli import app
from distill.devices import deterministic_kernels
from distill.errors import DistillError, MissingError, OutOfMemoryError, RunError, UsageError
from distill.objectives.combined import Combined
from distill.pipeline import (
    Options,
    RunResult,
    evaluate_run,
    failures,
    finetune_teacher,
    resume_run,
    train_student,
)
from distill.pipeline.context import Context
from distill.pipeline.failures import explain, explained, fitting_batch
from distill.recipe import Recipe, parse_recipe
from distill.runs import RunFolder
from distill.runs.checkpoints import best_checkpoint, is_whole, last_checkpoint, load_checkpoint, tensors, write
from distill.sweeps import sweep
from distill.teaching.live import LiveTeacher

CPU = torch.device("cpu")


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(runs_dir=tmp_path / "runs", threads=1)


@pytest.fixture
def only_run(tmp_path: Path) -> Callable[[], RunFolder]:
    def find() -> RunFolder:
        (found,) = (tmp_path / "runs").glob("*/[0-9]*")
        return RunFolder(found)

    return find


def _invoke(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stderr


def _bytes(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in ("metrics.jsonl", "checkpoints/last/model.safetensors")]


@pytest.fixture(scope="module")
def whole(teacher_recipe, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The bytes of the tiny teacher's run that nothing happened to."""
    options = Options(runs_dir=tmp_path_factory.mktemp("whole"), threads=1)
    return _bytes(finetune_teacher(teacher_recipe("train.epochs=3"), options=options).run)


# Folders


@pytest.mark.parametrize("name", ["r\x01ns", "r\x7fns", "r\udcffns"])
def test_a_runs_folder_that_no_recipe_can_name_is_refused_at_the_start(
    teacher_recipe, student_recipe, teacher_run: RunResult, tmp_path: Path, name: str
) -> None:
    options = Options(runs_dir=tmp_path / name, threads=1)
    for begin in (
        lambda: finetune_teacher(teacher_recipe(), options=options),
        lambda: train_student(student_recipe(), teacher=str(teacher_run.run), options=options),
        lambda: sweep(teacher_recipe(), seeds=2, options=options),
    ):
        with pytest.raises(UsageError, match="its path has control characters, or is not UTF-8"):
            begin()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["r\x01ns", "r\udcffns"])
def test_a_teacher_whose_folder_no_recipe_can_name_is_refused_at_the_start(
    student_recipe, teacher_run: RunResult, options: Options, tmp_path: Path, name: str
) -> None:
    try:
        moved = shutil.copytree(teacher_run.run, tmp_path / name / "001", symlinks=True)
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(UsageError, match=r"teacher\.run: .* has control characters"):
        train_student(student_recipe(), teacher=str(moved), options=options)
    assert not options.runs_dir.exists()
    assert evaluate_run(moved, options=options).result == evaluate_run(teacher_run.run, options=options).result


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_a_run_is_not_called_like_an_exported_file(teacher_recipe, options: Options, ending: str) -> None:
    with pytest.raises(UsageError, match=r"would be taken for an exported file") as caught:
        finetune_teacher(teacher_recipe(f"name=mine.{ending}"), options=options)
    assert caught.value.hint == "--set name=mine"
    assert not options.runs_dir.exists()


# Disks


def _failing_after(count: int, real: Callable, number: int) -> Callable:
    calls = iter(range(count))

    def call(*args: object, **named: object) -> object:
        if next(calls, None) is None:
            raise OSError(number, os.strerror(number), str(args[0]))
        return real(*args, **named)

    return call


@pytest.mark.parametrize("after", [0, 3, 5, 7])
def test_a_full_disk_leaves_the_last_good_state(
    teacher_recipe, options: Options, only_run, whole: list[bytes], after: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        refusing = _failing_after(after, write.sync_file, errno.ENOSPC)
        for module in (write, tensors):
            patch.setattr(module, "sync_file", refusing)
        with pytest.raises(DistillError, match=r"cannot write .*: No space left on device") as caught:
            finetune_teacher(teacher_recipe("train.epochs=3"), options=options)
    assert caught.value.exit_code == 1
    assert "free some space" in caught.value.hint
    run = only_run()
    assert run.info.status == "failed"
    assert "No space left" in run.info.extra["error"]
    saved = last_checkpoint(run.checkpoints)
    assert (saved is None) == (after < 3)  # three files a checkpoint
    assert saved is None or is_whole(saved)
    assert _bytes(resume_run(run.path, options=options).run) == whole


def test_a_full_disk_while_metrics_are_written(
    teacher_recipe, options: Options, only_run, whole: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill.runs import journal

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_write_all", _failing_after(4, journal._write_all, errno.ENOSPC))
        with pytest.raises(DistillError, match="No space left on device"):
            finetune_teacher(teacher_recipe("train.epochs=3"), options=options)
    assert _bytes(resume_run(only_run().path, options=options).run) == whole


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_that_may_not_grow(teacher_recipe, options: Options, only_run, file_size_limit) -> None:
    """The operating system's own refusal, in Python's writes and in those of safetensors."""
    finetune_teacher(teacher_recipe("train.epochs=1", "name=warm"), options=options)  # decoded images are there now
    file_size_limit(3000)
    with pytest.raises(DistillError, match=r"cannot write .*checkpoints/000001: File too large"):
        finetune_teacher(teacher_recipe(), options=options)
    file_size_limit(resource.RLIM_INFINITY)
    run = RunFolder(options.runs_dir / "tiny_teacher" / "001")
    assert last_checkpoint(run.checkpoints) is None
    assert os.listdir(run.checkpoints) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    code, said = _invoke("student", "--recipe", "quickstart_scratch", "--runs", tmp_path / "file" / "runs")
    assert (code, said.count("error:")) == (1, 1)
    assert "cannot write" in said
    mkdir = Path.mkdir

    def refuse(path: Path, *args: object, **named: object) -> None:
        if "read_only" in str(path):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        mkdir(path, *args, **named)

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, said = _invoke("student", "--recipe", "quickstart_scratch", "--runs", tmp_path / "read_only")
    assert code == 1
    assert "Read-only file system" in said
    assert "hint:" in said


# Failures in general


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), RunError, "a/b: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), RunError, "a/b: Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b"), MissingError, "a/b: No such file"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", b"a/b"), RunError, "a/b: Is a directory"),
        (OSError(errno.EMFILE, "Too many open files", "a/b"), RunError, "a/b: Too many open files"),
        (OSError(errno.EIO, "Input/output error"), RunError, "Input/output error"),
        (OSError(errno.EXDEV, "Cross-device link", "a", None, "b"), RunError, "a -> b: Cross-device link"),
        (OSError("a library's own text\nand more"), RunError, "a library's own text"),
        (MemoryError(), OutOfMemoryError, "out of memory"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has"),
            OutOfMemoryError,
            "out of memory",
        ),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might"), OutOfMemoryError, "out of memory"),
        (RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"), MissingError, "device failed"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error: Exception, kind: type[DistillError], said: str) -> None:
    with pytest.raises(kind) as caught, explained():
        raise error
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert type(caught.value) is kind


def test_batch_norm_of_a_single_number_is_one_line() -> None:
    with pytest.raises(UsageError, match="batch norm cannot train on one image") as caught, explained():
        torch.nn.BatchNorm2d(8)(torch.zeros(1, 8, 1, 1))
    assert "train.batch_size=2" in str(caught.value.hint)


@pytest.mark.parametrize(
    "error",
    [TypeError("x"), KeyError("x"), ValueError("x"), RuntimeError("x"), OSError(errno.EPIPE, "Broken pipe")],
)
def test_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), explained():
        raise error
    assert explain(KeyboardInterrupt()) is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            NotImplementedError(
                "The operator 'aten::_linalg_solve_ex.result' is not currently implemented for the MPS device. If"
            ),
            "it has no aten::_linalg_solve_ex.result",
        ),
        (
            NotImplementedError(
                "Could not run 'aten::empty.memory_format' with arguments from the 'MPS' backend. This"
            ),
            "it has no aten::empty.memory_format",
        ),
        (
            TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. Please"
            ),
            "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64",
        ),
        (
            RuntimeError("Adaptive pool MPS: output sizes must be divisible by input sizes."),
            "Adaptive pool MPS: output sizes must be divisible by input sizes",
        ),
    ],
)
def test_what_a_macs_gpu_refuses_is_one_line(error: Exception, told: str) -> None:
    explained = explain(error)
    assert isinstance(explained, MissingError)
    assert explained.message.startswith(f"mps cannot run this: {told}")
    assert "\n" not in explained.message
    assert explained.hint == "--device cpu"


def test_other_refusals_keep_their_traceback_and_memory_its_line() -> None:
    assert explain(TypeError("'NoneType' object is not subscriptable")) is None
    assert explain(NotImplementedError("forward")) is None
    out = explain(RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, max allowed: 9.07 GB). Tried to"))
    assert out is not None
    assert "out of memory" in out.message
    assert "batch" in (out.hint or "")


def test_a_cpu_out_of_memory_is_recognised_by_what_torch_really_says() -> None:
    said = r"^out of memory: DefaultCPUAllocator: .*tried to allocate [0-9]+ bytes\nhint: "
    with pytest.raises(RunError, match=said) as caught, explained():
        torch.empty(1 << 55, dtype=torch.uint8)
    assert "batch_size" in caught.value.hint


def test_the_command_line_translates_what_no_verb_did(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import distill.comparison.selection

    def fail(*args: object, **named: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/data/x")

    monkeypatch.setattr(distill.comparison.selection, "list_runs", fail)
    assert _invoke("compare", "--runs", tmp_path) == (
        1,
        "error: /data/x: Permission denied\nhint:  allow this user to read and write there, or choose another folder\n",
    )


# Memory and devices


def test_memory_that_runs_out_names_a_smaller_batch_and_can_be_resumed(
    teacher_recipe, options: Options, only_run, whole: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Combined.forward, iter(range(7))

    def fail(self: Combined, *args: object) -> object:
        if next(calls, None) is None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total of ...")
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Combined, "forward", fail)
        with pytest.raises(RunError) as caught:
            finetune_teacher(teacher_recipe("train.epochs=3"), options=options)
    assert caught.value.message == "CUDA out of memory. Tried to allocate 20.00 MiB"
    assert "--set train.batch_size=16" in caught.value.hint
    assert "--set train.accumulate=2" in caught.value.hint
    run = only_run()
    assert run.info.status == "failed"
    assert last_checkpoint(run.checkpoints).name == "000001"
    assert _bytes(resume_run(run.path, options=options).run) == whole


def test_the_suggested_batch_is_over_all_devices(teacher_recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried is one device's share; what is suggested is what train.batch_size means."""
    tried: list[int] = []

    def fits(_recipe: Recipe, _device: torch.device, size: int) -> bool:
        tried.append(size)
        return size <= 40

    monkeypatch.setattr(failures, "_fits", fits)

    def hint(devices: int, *changes: str) -> str:
        tried.clear()
        context = Context(teacher_recipe(*changes), Options(devices=devices), torch.device("cuda", 0), 0, None)
        return failures.memory_hint(context)

    assert hint(4, "train.batch_size=150").startswith("this batch fits on its own")
    assert tried == [38]
    said = hint(4, "train.batch_size=320")
    assert said.startswith("a batch of 160 over all 4 devices fits: --set train.batch_size=160; or the same")
    assert "train.accumulate=2" in said
    assert tried == [80, 40]
    assert "train.batch_size=320" in hint(2, "train.batch_size=640", "train.accumulate=4")
    assert tried == [80, 40]
    assert "a batch of 40 fits" in hint(1, "train.batch_size=80")


@pytest.mark.gpu
def test_the_suggested_batch_fits(teacher_recipe, tmp_path: Path) -> None:
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        options = Options(runs_dir=tmp_path / "runs", device="cuda")
        model = "model={source: students, name: resnet, blocks: [1, 1], channels: [256, 256], strides: [1, 1]}"
        big = ("data={name: synthetic, limit: 4096, test_limit: 60}", model, "train.compile=false", "train.epochs=1")
        with pytest.raises(RunError, match="out of memory") as caught:
            finetune_teacher(teacher_recipe(*big, "train.batch_size=3600", "train.precision=fp32"), options=options)
        size = caught.value.hint.partition("train.batch_size=")[2].partition(";")[0]
        assert 1 <= int(size) < 3600
        fits = (*big, f"train.batch_size={size}", "train.precision=fp32")
        assert finetune_teacher(teacher_recipe(*fits), options=options).status == "finished"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.mark.parametrize("device", ["cuda:97", "mps:5"])
def test_an_absent_device_is_exit_code_4(device: str, tmp_path: Path) -> None:
    code, said = _invoke("student", "--recipe", "quickstart_scratch", "--device", device, "--runs", tmp_path / "runs")
    assert code == 4
    assert device in said
    assert not (tmp_path / "runs").exists()


def test_deterministic_kernels_are_for_cuda_alone_and_put_back() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_kernels(CPU, True):
        assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_kernels(torch.device("cuda", 0), False):
        assert not torch.are_deterministic_algorithms_enabled()
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    with deterministic_kernels(torch.device("cuda", 0), True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.backends.cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == before


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_repeats_every_byte_where_asked(teacher_recipe, tmp_path: Path, precision: str) -> None:
    options = Options(runs_dir=tmp_path / "runs", device="cuda")
    model = "model={source: students, name: resnet, blocks: [1, 1], channels: [32, 64], strides: [1, 2]}"
    changes = (model, f"train.precision={precision}", "train.deterministic=true", "train.compile=false")
    one, two = (finetune_teacher(teacher_recipe(*changes), options=options) for _ in range(2))
    assert _bytes(one.run) == _bytes(two.run)


# Numbers that are none


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best(teacher_recipe, options: Options, only_run) -> None:
    diverges = "schedule={kind: multistep, milestones: [1], gamma: 1.0e+9}"
    with pytest.raises(RunError) as caught:
        finetune_teacher(teacher_recipe("train.epochs=3", diverges), options=options)
    message = caught.value.message
    assert re.search(r"not finite at epoch [23], step \d+: loss (nan|inf), ce (nan|inf); learning rate 5e\+07", message)
    run = only_run()
    assert run.info.status == "failed"
    assert run.info.exit_code == 1
    assert 1 <= len(run.metrics()) <= 2
    assert load_checkpoint(best_checkpoint(run.checkpoints)).epoch == 1


# Data and teachers


def test_data_that_is_gone_on_resume_is_exit_code_4(options: Options, tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    pixels = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        folder = root / ("train", "test")[number % 3 == 2] / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    recipe = parse_recipe(
        f"schema_version: 1\nname: own\nrole: baseline\ndata: {{name: folder, root: '{root}', image_size: 16}}\n"
        "model: {source: students, name: tiny}\nobjective: {kind: supervised}\noptim: {name: sgd, lr: 0.1}\n"
        "train: {epochs: 1, batch_size: 8}\n",
        source="test",
    )
    run = RunFolder(train_student(recipe, options=options).run)
    run.write_info(status="interrupted")
    shutil.move(root, tmp_path / "elsewhere")
    code, said = _invoke("student", "--resume", run.path)
    assert code == 4
    assert str(root) in said
    shutil.copytree(tmp_path / "elsewhere", root)
    Image.fromarray(pixels[5]).save(root / "train" / "cat" / "0.png")
    code, said = _invoke("student", "--resume", run.path)
    assert code == 1
    assert "changed since this run began: data (was " in said


def test_a_teacher_that_changes_fails_the_run(
    train: Callable[..., RunResult], only_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LiveTeacher.outputs

    def change(self: LiveTeacher, batch: object) -> object:
        next(self.teacher.module.buffers()).add_(1)
        return real(self, batch)

    monkeypatch.setattr(LiveTeacher, "outputs", change)
    with pytest.raises(RunError, match=r"the teacher .*tiny_teacher/001 changed during training"):
        train("teacher.logits=live", "train.epochs=1")
    assert only_run().info.status == "failed"


def test_a_bank_with_a_flipped_bit_is_refused_before_it_teaches(train: Callable[..., RunResult]) -> None:
    own = "augment.view_seed=130"  # no other test may read the bank that this one damages: they share their teacher
    bank = Path(RunFolder(train(own, "teacher.logits=bank").run).info.teacher["bank"])
    file = bank / "views" / "00001-000.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError, match=r"views/00001-000\.npy is damaged: its bytes") as caught:
        train(own, "teacher.logits=bank")
    assert caught.value.hint.startswith(f"distill cache verify {bank} ")


# Two at once


def test_a_second_process_gets_one_line(train: Callable[..., RunResult]) -> None:
    run = RunFolder(train("train.epochs=1").run)
    run.write_info(status="interrupted")
    with run.lock():
        code, said = _invoke("student", "--resume", run.path)
    assert code == 1
    assert f"error: {run.path} is in use by process {os.getpid()} on host " in said


def test_a_lock_whose_process_died_is_taken_over(train: Callable[..., RunResult]) -> None:
    run = RunFolder(train("train.epochs=1").run)
    run.write_info(status="interrupted")
    code = (
        "import os, sys; from pathlib import Path; from distill.runs import RunFolder\n"
        "lock = RunFolder(Path(sys.argv[1])).lock(); lock.__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, run.path], check=False)
    assert (run.path / "lock.json").exists()
    code, said = _invoke("student", "--resume", run.path, "--quiet")
    said = [line for line in said.splitlines() if "hardly better than guessing" not in line]  # its teacher is tiny
    assert (code, said) == (0, [])


def test_a_run_of_an_edited_recipe_is_not_resumed(train: Callable[..., RunResult]) -> None:
    run = RunFolder(train("train.epochs=1").run)
    run.write_info(status="interrupted")
    recipe: Recipe = run.recipe()
    run.write_recipe(recipe.model_copy(update={"optim": parse_recipe(_ADAM, source="test").optim}))
    with pytest.raises(RunError, match=r"changed since this run began: optim in recipe\.yaml"):
        resume_run(run.path, options=Options(threads=1))
    run.write_info(recipe_sha256=None)  # nothing is known of what it was: the checkpoint does not fit
    with pytest.raises(RunError, match=r"000001 does not fit the recipe of its run|000001: the weights") as caught:
        resume_run(run.path, options=Options(threads=1))
    assert "a changed recipe is a new run" in caught.value.hint


_ADAM = """
schema_version: 1
name: x
role: baseline
data: {name: synthetic}
model: {source: students, name: tiny}
objective: {kind: supervised}
optim: {name: adam}
"""


# Damaged folders: every file, every sort of damage

_DAMAGE: dict[str, Callable[[Path, bytes], object]] = {
    "deleted": lambda path, content: None,
    "empty": lambda path, content: path.write_bytes(b""),
    "cut short": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "flipped": lambda path, content: path.write_bytes(bytes([content[0] ^ 4]) + content[1:-2] + b"\xff" + content[-1:]),
    "a folder": lambda path, content: path.mkdir(),
    "a link to itself": lambda path, content: path.symlink_to(path.name),
    "a pipe": lambda path, content: os.mkfifo(path),
    "another type": lambda path, content: path.write_bytes(b"[1, 2]"),
}


@pytest.fixture(scope="module")
def sound(teacher_run: RunResult, student_recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with the tiny teacher, its bank, and a finished student, evaluated."""
    runs = tmp_path_factory.mktemp("sound") / "runs"
    shutil.copytree(teacher_run.run.parent, runs / "tiny_teacher", symlinks=True)
    recipe = student_recipe("train.epochs=2", "augment.view_seed=77", "teacher.logits=bank")
    student = train_student(recipe, teacher=str(runs / "tiny_teacher"), options=Options(runs_dir=runs, threads=1))
    assert _invoke("evaluate", student.run)[0] == 0
    return runs


def _files(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    inner = (str(path.relative_to(folder)) for path in files)
    return sorted(name for name in inner if "plots" not in name and "banks" not in name)


@pytest.mark.slow
@pytest.mark.parametrize("damage", _DAMAGE)
def test_damaged_runs_and_banks_get_a_clear_message(sound: Path, tmp_path: Path, damage: str) -> None:
    (bank,) = [path.relative_to(sound) for path in (sound / "tiny_teacher" / "001" / "banks").iterdir()][-1:]
    student = Path("tiny_student", "001")
    victims = [student / name for name in _files(sound / student)] + [bank / name for name in _files(sound / bank)]
    assert len(victims) > 15
    for number, victim in enumerate(victims):
        home = tmp_path / str(number)
        shutil.copytree(sound, home, symlinks=True)
        path = home / victim
        content = path.read_bytes() if path.is_file() else b"xxxx"
        path.unlink()
        _DAMAGE[damage](path, content)
        args = _commands(home, student, bank)[(number + list(_DAMAGE).index(damage)) % 4]
        if "--resume" in args:
            _as_if_stopped(home / student / "run.json")
        code, said = _invoke(*args)
        assert code in (0, 1, 2, 3, 4), (args, said)
        named = path.name in said or victim.parent.name in said or str(home / student) in said
        assert code == 0 or named, (victim, damage, args, said)
        if victim.name == "run.json" and {"evaluate", "--resume"} & set(map(str, args)):
            assert code == 1, (victim, damage, args)
        shutil.rmtree(home)


def _commands(home: Path, student: Path, bank: Path) -> list[list[object]]:
    run = home / student
    return [
        ["compare", "--no-latency", "--runs", home],
        ["student", "--resume", run],
        ["evaluate", run, "--no-plots"],
        ["cache", "info", home / bank],
    ]


def _as_if_stopped(info: Path) -> None:
    if info.is_file():
        info.write_text(info.read_text(errors="replace").replace('"finished",', '"interrupted",', 1))


def test_a_result_with_wrong_types_is_damaged(sound: Path, tmp_path: Path) -> None:
    home = tmp_path / "runs"
    shutil.copytree(sound, home, symlinks=True)
    run = home / "tiny_student" / "001"
    document = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(document | {"params": "many"}))
    code, said = _invoke("compare", "--no-latency", run, "--runs", home)
    assert code == 1
    assert f"{run / 'result.json'}: damaged: params should be a number" in said


def test_a_batch_is_halved_until_its_step_fits(teacher_recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def step(_recipe: Recipe, _device: torch.device, size: int) -> None:
        tried.append(size)
        if size > 25:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    for name, value in (("mem_get_info", (100, 100)), ("memory_reserved", 0), ("max_memory_allocated", 80)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *_: None)
    real = failures._try_step
    monkeypatch.setattr(failures, "_try_step", step)
    assert fitting_batch(teacher_recipe("train.batch_size=120"), CPU) == 15
    assert tried == [120, 60, 30, 15]
    assert fitting_batch(teacher_recipe("train.batch_size=120", "train.accumulate=4"), CPU) == 60
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 95)  # it ran, and left nothing over
    assert fitting_batch(teacher_recipe("train.batch_size=120"), CPU) is None
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    real(teacher_recipe("train.precision=fp32"), CPU, 3)  # what is tried out is a step that runs
