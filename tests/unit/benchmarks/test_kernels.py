"""Which layers the kernel benchmark tries, in which ways, and what it makes of what it finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import kernels
from benchmarks.kernels import Case, Journal, bundled_cases, is_known, narrow_cases, summary, trials_of
from distill.devices.layer_error import KernelConfig, LayerTest, LayerTestResult
from distill.devices.layers import Layer
from distill.devices.probe import Probe
from distill.recipe import bundled_recipes

NARROW = Layer("conv2d", (4, 16, 16), (8, 4, 1, 1), False, (2, 2), (0, 0), (1, 1))
HEAD = Layer("linear", (8,), (10, 8), True)
CASES = [Case(NARROW, (5,), ("narrow",)), Case(HEAD, (5,), ("lenet",))]
RIGHT, CRASH = LayerTestResult("right", 1e-7, "output"), LayerTestResult("crashes", detail="SIGABRT")


@pytest.fixture(autouse=True)
def _no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)


def test_every_count_of_channels_up_to_two_blocks_goes_through_a_strided_pointwise_convolution() -> None:
    found = {layer.input[0] for case in narrow_cases() if _is_strided_pointwise(layer := case.layer)}
    assert found >= set(range(1, 34))


def _is_strided_pointwise(layer: Layer) -> bool:
    return layer.weight[2:] == (1, 1) and layer.stride == (2, 2) and layer.groups == 1


def test_every_recipe_and_builder_is_among_the_bundled_ones() -> None:
    cases = bundled_cases()
    sources = {name for case in cases for name in case.of}
    assert sources >= {*bundled_recipes(), "students.tiny", "teachers.tiny"}
    assert len({case.layer for case in cases}) == len(cases) > 150
    quickstart = [case.layer for case in cases if "quickstart_scratch" in case.of]
    assert quickstart
    assert not any(is_known(layer) for layer in quickstart)  # a newcomer's first network is nowhere near it
    assert all(max(case.batches) * case.layer.macs <= max(kernels.MAX_MACS, 2 * case.layer.macs) for case in cases)


def test_the_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {trial.setting for trial in trials_of(CASES[0], ["AVX2", None])}
    both = {KernelConfig(form, n, "fp32", isa) for form in (True, False) for n in (1, 2) for isa in ("AVX2", None)}
    assert ways == both | {KernelConfig(True, n, "fp32", isa, trains=False) for n in (1, 2) for isa in ("AVX2", None)}
    assert {trial.setting for trial in trials_of(CASES[1], [None])} == {KernelConfig(False, 1), KernelConfig(False, 2)}
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert {trial.setting for trial in trials_of(CASES[1], [None])} == {
        KernelConfig(False, threads, precision) for threads in (1, 2) for precision in ("fp32", "bf16")
    }
    assert not any(trial.setting.precision == "bf16" for trial in trials_of(CASES[1], ["AVX2"]))


def _found(trial: LayerTest) -> LayerTestResult:
    crashes = trial.layer == NARROW and trial.setting.channels_last and trial.setting.trains
    return CRASH if crashes else RIGHT


def test_a_journal_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def probe(trials, *, on_verdict, seconds) -> Probe:
        asked.append(len(trials))
        for trial in trials[:3]:
            on_verdict(trial, _found(trial))
        return Probe((), heap_check=True)

    monkeypatch.setattr(kernels, "probe", probe)
    path = tmp_path / "journal.jsonl"
    for _ in range(3):
        kernels.try_all(CASES, [None], Journal(path))
    assert asked == [8, 5, 2]
    with path.open("a") as file:
        file.write('{"trial": "cut')
    assert len(Journal(path).verdicts) == 8


def test_findings_are_counted_and_known_ones_marked() -> None:
    journal = Journal(None)
    for case in CASES:
        for trial in trials_of(case, [None]):
            wrong = trial.layer == HEAD and trial.setting.threads == 2
            journal.add(trial, LayerTestResult("wrong", 0.5, "grad_bias") if wrong else _found(trial))
    found = summary(CASES, [None], journal)
    assert [(each["layer"], each["setting"], each["known"]) for each in found["findings"]] == [
        (str(NARROW), "channels-last, 1 thread, fp32", True),
        (str(NARROW), "channels-last, 2 threads, fp32", True),
        (str(HEAD), "contiguous, 2 threads, fp32", False),
    ]
    outcomes = {(row["channels_last"], row["threads"], row["trains"]): row for row in found["rows"]}
    assert outcomes[True, 1, True]["crashes"] == outcomes[True, 1, True]["wanted"] == 1
    assert outcomes[True, 1, True]["worst_right"] is None
    assert (outcomes[False, 1, True]["right"], outcomes[False, 1, True]["worst_right"]) == (2, 1e-7)
    assert (outcomes[False, 2, True]["right"], outcomes[False, 2, True]["wrong"]) == (1, 1)
    assert json.loads(json.dumps(found)) is not None


def test_a_report_tries_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "narrow_cases", lambda: CASES)
    monkeypatch.delattr(kernels, "probe")
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add(trials_of(CASES[1], [None])[0], RIGHT)
    assert (
        kernels.main(["--only", "narrow", "--isa", "native", "--json", "--report", "--journal", str(journal.path)]) == 0
    )
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["threads"], row["wanted"], row["right"]) for row in rows] == [(1, 2, 1)]


def test_the_exit_code_tells_of_what_is_not_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = {"now": _found}

    def probe(trials, *, on_verdict, seconds) -> Probe:
        for trial in trials:
            on_verdict(trial, verdict["now"](trial))
        return Probe((), heap_check=True)

    monkeypatch.setattr(kernels, "probe", probe)
    monkeypatch.setattr(kernels, "narrow_cases", lambda: CASES)
    assert kernels.main(["--only", "narrow", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["versions"]["torch"] == torch.__version__
    assert all(finding["known"] for finding in document["findings"])
    verdict["now"] = lambda trial: CRASH
    assert kernels.main(["--only", "narrow", "--isa", "native"]) == 1
    assert "NEW linear 8 -> 10, bias" in capsys.readouterr().out


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        kernels.main(["--help"])
    assert stopped.value.code == 0
    assert "--journal" in capsys.readouterr().out
