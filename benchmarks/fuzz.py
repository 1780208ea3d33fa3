"""Damage recipes, runs, banks, pictures and archives by the thousand, and see that each gets a clear message.

Usage:
    python -m benchmarks.fuzz --cases 2000 [--seed S] [--kind run] [--case N]

Each case damages one thing and runs one command on it, within this process. It must end with an exit code of
distill's, say no traceback, and where it fails, name what is damaged. ``--case N`` repeats one case of a seed and shows
its output.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import contextlib
import io
import json
import random
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

from benchmarks.damage import TOKENS, damage, mutate_text

__all__ = ["main"]

_CODES = (0, 1, 2, 3, 4)
_SECONDS = 120  # a case that takes longer hangs

_DATA = "data: {name: synthetic, limit: 60, test_limit: 40}\nschema_version: 1\noptim: {name: sgd, lr: 0.05}\n"
TEACHER = _DATA + (
    "name: fuzz_teacher\nrole: teacher\nmodel: {source: teachers, name: tiny}\ntrain: {epochs: 1, batch_size: 32}\n"
)
STUDENT = _DATA + (
    "name: fuzz_student\nrole: student\nmodel: {source: students, name: tiny}\n"
    "teacher: {run: fuzz_teacher, logits: bank}\nobjective: {kind: kd, temperature: 2.0}\n"
    "augment: {crop_padding: 2, views: 2}\ntrain: {epochs: 2, batch_size: 32}\n"
)
PICTURES = (
    "schema_version: 1\nname: fuzz_pictures\nrole: baseline\nmodel: {source: students, name: tiny}\n"
    "objective: {kind: supervised}\noptim: {name: sgd, lr: 0.05}\ntrain: {epochs: 1, batch_size: 4}\n"
    "data: {name: folder, root: ROOT, image_size: 16, val_fraction: 0}\n"
)


@dataclass(frozen=True)
class Case:
    """A command to run, and what its message must name if it fails: any one of these."""

    args: list[str]
    names: tuple[str, ...]
    what: str


class Fuzz:
    """Makes sound things once, then damages a copy of one for every case."""

    def __init__(self, root: Path) -> None:
        self.root, self.good, self.home = root, root / "good", root / "case"
        os.environ["DISTILL_CACHE"] = str(root / "cache")
        os.environ["DISTILL_RUNS"] = str(self.home / "runs")
        self.good.mkdir(parents=True)
        for name, text in (("teacher", TEACHER), ("student", STUDENT)):
            (self.good / f"{name}.yaml").write_text(text)
        _make_pictures(self.good / "pictures")
        (self.good / "pictures.yaml").write_text(PICTURES.replace("ROOT", str(self.home / "pictures")))
        self._reset()
        self._train()
        shutil.rmtree(self.good)
        shutil.copytree(self.home, self.good, symlinks=True)
        from distill.recipe import bundled_recipes

        self.recipes = [path.read_bytes() for path in bundled_recipes().values()]
        self.kinds: dict[str, Callable[[random.Random], Case]] = {
            "recipe": self._recipe,
            "set": self._override,
            "run": self._run_file,
            "bank": self._bank_file,
            "picture": self._picture,
            "archive": self._archive,
        }

    def case(self, kind: str, draw: random.Random) -> Case:
        """Set up one case in a fresh copy."""
        if kind not in ("recipe", "set"):
            self._reset()
        return self.kinds[kind](draw)

    def _reset(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.good, self.home, symlinks=True)

    def _train(self) -> None:
        from distill.evaluation.latency import measure_latency

        # The least of a teacher's timing is enough here.
        briefly = partial(measure_latency, rounds=2, warmup=1, seconds_per_model=0.01)
        mock.patch("distill.teaching.build.measure_latency", briefly).start()
        for command, recipe in (("teacher-finetune", "teacher"), ("student", "student")):
            _must(run_command([command, "--recipe", str(self.home / f"{recipe}.yaml"), "--threads", "1"]))
        _must(run_command(["evaluate", "fuzz_student"]))
        stopped = self.home / "runs" / "fuzz_student" / "002"
        shutil.copytree(stopped.with_name("001"), stopped, symlinks=True)
        info = json.loads((stopped / "run.json").read_text())
        (stopped / "run.json").write_text(json.dumps(info | {"status": "interrupted", "exit_code": 130}))

    # Kinds

    def _recipe(self, draw: random.Random) -> Case:
        path = self.root / "mutated.yaml"
        path.write_bytes(mutate_text(draw, draw.choice([*self.recipes, STUDENT.encode(), TEACHER.encode()])))
        return Case(["recipe", "check", str(path)], (path.name,), "a recipe's text")

    def _override(self, draw: random.Random) -> Case:
        path = self.root / "sound.yaml"
        path.write_text(STUDENT)
        keys = [
            "train.epochs",
            "model",
            "optim.lr",
            "teacher",
            "augment.mixup.alpha",
            "train",
            "",
            "a.b",
            "data[0]",
            ".",
        ]
        value = "".join(draw.choice([*TOKENS, "x", " "]) for _ in range(draw.randint(0, 6)))
        key = draw.choice([*keys, draw.choice(TOKENS)])
        text = f"{key}{draw.choice(['=', '=', '=', '', '=='])}{value}"
        return Case(["recipe", "check", str(path), f"--set={text}"], ("--set", path.name, "sound"), f"--set {text!r}")

    def _run_file(self, draw: random.Random) -> Case:
        name, number = draw.choice([("fuzz_student", "001"), ("fuzz_student", "002"), ("fuzz_teacher", "001")])
        run = self.home / "runs" / name / number
        files = sorted(path for path in run.rglob("*") if not path.is_dir() or path.is_symlink())
        victim = draw.choice([path for path in files if "banks" not in path.parts and "plots" not in path.parts])
        how = damage(draw, victim)
        commands = [
            ["compare", "--no-latency"],
            ["compare", "--no-latency", str(run)],
            ["evaluate", str(run), "--no-plots"],
            ["student", "--resume", str(run)],
            ["student", "--recipe", str(self.home / "student.yaml"), "--teacher", str(run), "--set=train.epochs=1"],
            ["predict", str(run), str(next((self.home / "pictures" / "test").rglob("*.png")))],
            ["report"],
        ]
        named = (victim.name, str(run), f"{name}/{number}")
        return Case(draw.choice(commands), named, f"{victim.relative_to(self.home)} {how}")

    def _bank_file(self, draw: random.Random) -> Case:
        bank = next((self.home / "runs" / "fuzz_teacher" / "001" / "banks").iterdir())
        victim = draw.choice(sorted(path for path in bank.rglob("*") if path.is_file()))
        how = damage(draw, victim)
        commands = [
            ["cache", "info"],
            ["cache", "verify"],
            ["student", "--recipe", str(self.home / "student.yaml"), "--set=train.epochs=1"],
            ["student", "--recipe", str(self.home / "student.yaml"), f"--set=teacher={{bank: '{bank}'}}"],
            ["compare", "--no-latency"],
            ["cache", "clear", str(bank), "--yes"],
        ]
        return Case(draw.choice(commands), (victim.name, bank.name), f"bank: {victim.name} {how}")

    def _picture(self, draw: random.Random) -> Case:
        victim = draw.choice(sorted(path for path in (self.home / "pictures").rglob("*") if path.is_file()))
        how = damage(draw, victim)
        train = ["student", "--recipe", str(self.home / "pictures.yaml"), "--dry-run"]
        predict = ["predict", "fuzz_student/001", str(victim)]
        return Case(draw.choice([train, train, predict]), (victim.name, victim.parent.name), f"{victim.name} {how}")

    def _archive(self, draw: random.Random) -> Case:
        archive = self.home / draw.choice(["a.tar", "a.tar.gz", "a.zip"])
        _pack(self.home / "pictures", archive)
        how = damage(draw, archive)
        train = ["student", "--recipe", str(self.home / "pictures.yaml"), "--dry-run", f"--set=data.root={archive}"]
        return Case(train, (archive.name,), f"{archive.name} {how}")


# Commands


@dataclass(frozen=True)
class Ended:
    """How a command ended; ``code`` is None where it raised."""

    code: int | None
    text: str


def run_command(args: list[str]) -> Ended:
    """The command line within this process."""
    from distill.cli import main as distill

    said = io.StringIO()
    signal.alarm(_SECONDS)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            distill(args)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        said.write(traceback.format_exc())
        code = None
    finally:
        signal.alarm(0)
    return Ended(code, said.getvalue())


def _must(ended: Ended) -> None:
    if ended.code != 0:
        raise SystemExit(f"a sound command failed:\n{ended.text}")


def _judge(case: Case, ended: Ended) -> str | None:
    """What is wrong with how a case ended."""
    if ended.code is None or "Traceback" in ended.text:
        return (ended.text.rstrip().splitlines() or ["no output"])[-1]
    if ended.code not in _CODES:
        return f"exit code {ended.code}"
    if "\x1b" in ended.text or "\x00" in ended.text:
        return "control characters reach the terminal"
    if ended.code and not any(name in ended.text for name in case.names):
        return f"exit code {ended.code}, and none of {', '.join(case.names)} is named: {ended.text.strip()[-300:]}"
    return None


def _make_pictures(root: Path) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (12, 20, 24, 3), dtype=np.uint8)
    for number in range(12):
        split, label = ("train", "test")[number % 3 == 2], ("cat", "dog")[number % 2]
        folder = root / split / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(
            folder / f"{number:02d}.{('png', 'jpg', 'webp', 'bmp', 'tif')[number // 2 % 5]}"
        )
    Image.fromarray(pixels[0]).save(root / "test" / "cat" / "whole.png")


def _pack(folder: Path, archive: Path) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted(folder.rglob("*")):
                packed.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as packed:
            packed.add(folder, arcname=".")


# All of it


def _one(fuzz: Fuzz, kind: str, seed: int, number: int) -> tuple[Case, Ended, str | None]:
    case = fuzz.case(kind, random.Random(f"{seed}/{number}"))
    ended = run_command(case.args)
    return case, ended, _judge(case, ended)


def main(arguments: list[str] | None = None) -> int:
    """Run the cases; 1 where any of them went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of all damage")
    parser.add_argument("--kind", action="append", help="this kind alone: recipe, set, run, bank, picture, archive")
    parser.add_argument("--case", type=int, default=None, help="this case alone, with its output")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory(prefix="distill-fuzz-") as folder:
        fuzz = Fuzz(Path(folder) / "fuzz")
        kinds = options.kind or list(fuzz.kinds)
        numbers = range(options.cases) if options.case is None else [options.case]
        codes: Counter[tuple[str, int | None]] = Counter()
        problems, started = 0, time.monotonic()
        for number in numbers:
            kind = kinds[number % len(kinds)]
            case, ended, problem = _one(fuzz, kind, options.seed, number)
            codes[kind, ended.code] += 1
            if options.case is not None:
                print(f"{case.what}\n$ distill {' '.join(case.args)}\n{ended.text}(exit code {ended.code})")
            if problem:
                problems += 1
                print(
                    f"case {number} ({kind}): {case.what}\n  $ distill {' '.join(case.args)}\n  {problem}", flush=True
                )
    for kind in kinds:
        shares = ", ".join(f"{codes[kind, code]} with {code}" for code in _CODES if codes[kind, code])
        print(f"{kind}: {shares}")
    print(f"{len(numbers)} cases, {problems} problems, {time.monotonic() - started:.0f} s (seed {options.seed})")
    return 1 if problems else 0


def _too_long(_number: int, _frame: object) -> None:
    raise AssertionError(f"took longer than {_SECONDS} s")


if __name__ == "__main__":
    sys.exit(main())
