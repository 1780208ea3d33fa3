"""``distill doctor --recipe``: the table, the document, the exit code."""

from __future__ import annotations

import json

import pytest

import distill.pipeline
from distill.devices.layer_error import KernelConfig, LayerTestResult
from distill.report.kernel_rows import KernelCheck, KernelRow, KernelTrial

CHANNELS_LAST = KernelConfig(True, 2)
USED = KernelTrial(True, CHANNELS_LAST, LayerTestResult("right", 2e-7, "output"))
OTHER = KernelTrial(False, KernelConfig(False, 2), LayerTestResult("right", 1e-7, "output"))
WRONG = KernelTrial(True, CHANNELS_LAST, LayerTestResult("wrong", 0.5, "grad_weight"))
SPOILT = KernelTrial(True, CHANNELS_LAST, LayerTestResult("wrong", float("inf"), "output"))
CRASH = KernelTrial(True, CHANNELS_LAST, LayerTestResult("crashes", detail="SIGABRT: free(): \x1b[31m"))
HANG = KernelTrial(False, KernelConfig(True, 1), LayerTestResult("hangs"))
CALM = "--set train.channels_last=false"


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch):
    """What the check finds: rows by their trials; and the options it was called with."""
    seen = []

    def pretend(*rows: tuple[KernelTrial, ...], set: str | None = None, kept: bool = False) -> list:
        layers = tuple(
            KernelRow((f"stem.{number}", "head"), "conv2d 3x3, 3 -> 4, 32x32", (64, 5), trials, set, kept)
            for number, trials in enumerate(rows)
        )
        versions = {"torch": "2.14"}
        check = KernelCheck("small", "AMD EPYC", True, 2, "fp32", True, layers, versions, seconds=4.0, set=set)
        monkeypatch.setattr(
            distill.pipeline, "check_kernels", lambda recipe, *, options: seen.append((recipe, options)) or check
        )
        return seen

    return pretend


def test_all_right_is_exit_code_0(found, cli) -> None:
    seen = found((USED, OTHER), (USED, HANG), kept=True)
    result = cli("doctor", "--recipe", "lenet_cifar10", "--threads", "2", "--set", "train.epochs=3")
    assert result.exit_code == 0
    said = " ".join(result.stdout.split())
    assert "stem.0 +1" in said
    assert "right, kept contiguous" in said
    assert "hangs: channels-last, 1 thread, fp32" in said
    assert "small on AMD EPYC: 2 distinct layers, channels-last, 2 threads, fp32" in said
    assert "glibc's heap check on; 4.0s" in said
    ((recipe, options),) = seen
    assert (recipe.name, recipe.train.epochs, options.threads) == ("lenet_cifar10", 3, 2)


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        (WRONG, "wrong (grad_weight off by 5.0e-01)"),
        (SPOILT, "wrong (output not finite)"),
        (CRASH, r"crashes (SIGABRT: free(): \x1b[31m)"),
    ],
)
def test_a_finding_is_exit_code_1_with_what_to_set(trial: KernelTrial, words: str, found, cli) -> None:
    found((trial, OTHER), (USED,), set=CALM)
    result = cli("doctor", "--recipe", "lenet_cifar10", COLUMNS="200")
    assert result.exit_code == 1
    assert words in result.stdout
    assert "\x1b" not in result.stdout
    assert "error: 1 of 2 layers of small is not right as its run computes it here" in result.stderr
    assert f"hint:  {CALM}" in result.stderr


def test_where_nothing_helps_it_says_so(found, cli) -> None:
    found((WRONG,), (CRASH,))
    result = cli("doctor", "--recipe", "lenet_cifar10")
    assert result.exit_code == 1
    assert "2 of 2 layers of small are not right as its run computes them here" in result.stderr
    assert "hint:  nothing that was tried" in result.stderr


def test_one_document(found, cli) -> None:
    found((SPOILT, OTHER), set=CALM)
    result = cli("doctor", "--recipe", "lenet_cifar10", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["right"], document["recipe"], document["set"]) == (False, "small", CALM)
    (layer,) = document["layers"]
    assert (layer["outcome"], layer["names"], layer["set"]) == ("wrong", ["stem.0", "head"], CALM)
    assert layer["trials"][0] == {
        "used": True, "setting": "channels-last, 2 threads, fp32",
        "channels_last": True, "threads": 2, "precision": "fp32",
        "trains": True, "isa": None, "outcome": "wrong", "error": None, "tensor": "output", "detail": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--recipe", "nowhere.yaml"], "error: "),
        (["--recipe", "lenet_cifar1"], "did you mean 'lenet_cifar10'"),
        (["--recipe", "lenet_cifar10", "--set", "optim.lrr=1"], "unknown key 'optim.lrr'"),
        (["--set", "train.epochs=1"], "error: --set and --threads are for a recipe's network"),
        (["--threads", "1"], "hint:  name one: distill doctor --recipe R"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_tried(args: list[str], line: str, found, cli) -> None:
    seen = found((USED,))
    result = cli("doctor", *args)
    assert result.exit_code == 2
    assert line in result.stderr
    assert seen == []


@pytest.mark.slow
def test_a_bundled_network_is_right_here(cli) -> None:
    result = cli("doctor", "--recipe", "lenet_cifar10", "--json", "--quiet")
    assert result.exit_code == 0, result.stdout
    assert json.loads(result.stdout)["right"] is True
