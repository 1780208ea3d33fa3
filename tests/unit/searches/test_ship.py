"""Which run the file of a search is of: a certificate is about that one."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distill.compression.cut_limit import CutLimit
from distill.errors import DistillError, GateMissedError, InterruptedRunError, RunError, UsageError
from distill.pipeline import Options, resumable
from distill.recipe import Recipe
from distill.searches import ship as module
from distill.searches.costs import Costs
from distill.searches.finals import Final
from distill.searches.reference import AccuracyReference
from distill.searches.ship import Excess, Shipped, Shipping, ship

RUN = Path("searches/s/trials/001")


@pytest.fixture(autouse=True)
def _without_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "searches" / "s").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    answers = SimpleNamespace(correct=np.ones(8, dtype=bool))
    monkeypatch.setattr(module, "open_onnx", lambda path: path)
    monkeypatch.setattr(module, "assess", lambda path, split, tell: answers)


def _shipped(
    monkeypatch: pytest.MonkeyPatch,
    runtime: Any,
    quantized: Any = None,
    *,
    seed: int = 0,
    tell: Any = None,
    measured: Any = lambda path, recipe: None,
    budgets: dict[str, float] | None = None,
    written: str = "a file",
) -> Shipped:
    results = iter(quantized) if isinstance(quantized, list) else itertools.repeat(quantized)

    def quantize(*_: Any, **__: Any) -> Any:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return export(*_, result=result, **__)

    def export(run: Any, *, out: Path, result: Any = None, **_: Any) -> Any:
        out.write_text(f"{written} of {run}")
        return result or SimpleNamespace(run=run)

    monkeypatch.setattr(module, "quantize", quantize)
    monkeypatch.setattr(module, "export", export)
    run = SimpleNamespace(path=RUN, recipe=lambda: "own", figures=lambda: SimpleNamespace(params=1000))
    final = Final(("search",), None, (run,), (seed,), np.ones((1, 8), dtype=bool))  # type: ignore[arg-type]
    shipping = Shipping(
        into=Path("searches/s"),
        runtime=runtime,
        budgets=budgets or {},
        measured=measured,
        noise=0.01,
        multiple=4,
        max_drop=0.01,
        prove=False,
        options=Options(on_event=tell),
    )
    return ship(final, AccuracyReference("teacher", np.ones(8, dtype=bool), None), shipping)


def test_it_is_the_one_that_was_trained_on_with_qat_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    qat = Path("searches/s/qat/001")
    made = _shipped(monkeypatch, "onnxruntime-int8", SimpleNamespace(trained=qat, run=RUN))
    assert (made.run, made.file) == (qat, Path("searches/s/best.onnx"))


@pytest.mark.parametrize("runtime", ["onnxruntime-int8", "onnxruntime", "torch"])
def test_else_it_is_the_finalists_own(monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    made = _shipped(monkeypatch, runtime, SimpleNamespace(trained=None, run=RUN))
    assert made.run == RUN
    assert made.drop is not None
    assert made.drop.drop.estimate == 0.0


def test_where_int8_loses_too_much_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _shipped(monkeypatch, "onnxruntime-int8", GateMissedError("no int8 file"))
    assert (made.file, made.run, made.why) == (None, None, "no int8 file")


def test_a_file_of_another_seed_than_the_recipes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    assert _shipped(monkeypatch, "onnxruntime", tell=told.append).run == RUN
    assert not told
    assert _shipped(monkeypatch, "onnxruntime", seed=1, tell=told.append).run == RUN
    (note,) = told
    path = Path("searches/s/best.onnx")
    assert (note.level, note.message) == ("warning", f"the recipe's own seed could not be trained: {path} is of {RUN}")


# Over its budget


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was asked of the pruner, which is a stand-in: its runs' recipes are their numbers."""
    asked: list[dict[str, Any]] = []

    class Run:
        def __init__(self, path: Path) -> None:
            self.path = path

        def recipe(self) -> str:
            return self.path.name

    def prune_to(run: Path, limit: CutLimit, *, options: Options, **more: Any) -> Any:
        asked.append({"run": run, "into": options.into, limit.quantity: limit.most} | more)
        return SimpleNamespace(run=Path(f"cut-{len(asked)}"))

    monkeypatch.setattr(module, "prune_to", prune_to)
    monkeypatch.setattr(resumable, "RunFolder", Run)
    return asked


def _costs(**values: float) -> Costs:
    return Costs(**({"params": 1000, "gmacs": 0.1, "size_mb": 0.5} | values))  # type: ignore[arg-type]


def test_a_file_that_takes_longer_than_it_may_is_cut_until_it_does_not(
    monkeypatch: pytest.MonkeyPatch, cuts: list[dict[str, Any]]
) -> None:
    takes = {"own": 2.5, "cut-1": 2.1, "cut-2": 1.9}

    def measured(path: Path, recipe: Recipe) -> Costs:
        return _costs(latency_b1_ms=takes[str(recipe)])

    told: list[Any] = []
    budgets = {"latency_b1_ms": 2.0, "params": 5000.0}
    made = _shipped(monkeypatch, "onnxruntime", budgets=budgets, measured=measured, tell=told.append)
    first = 0.97 / 1.25
    shares = [first, first * 0.97 / 1.05]
    assert [each["macs"] for each in cuts] == pytest.approx(shares, abs=1e-4)
    assert all((each["run"], each.get("params"), each["multiple"]) == (RUN, None, 4) for each in cuts)
    assert [each["into"] for each in cuts] == [Path(f"searches/s/cut/001-{share:.4f}") for share in shares]
    assert (made.run, made.over) == (Path("cut-2"), None)
    assert made.cut is not None
    said = "trained, its file took 125.0% of the budget of latency_b1_ms: cut to 77.6% of its multiply-accumulates"
    assert f"{said}, and trained on" in told[0].message
    more = "that took 105.0% of the budget of latency_b1_ms: cut to 71.7% of its multiply-accumulates, and trained on"
    assert made.cut.why == f"{said}; {more}"

    takes.update({"own": 2.6, "cut-1": 1.0, "cut-3": 9.0, "cut-4": 9.0})  # timed again, all would be other numbers
    monkeypatch.setattr(resumable, "begun_runs", lambda into: [SimpleNamespace(path=Path(there[into.name]))])
    monkeypatch.setattr(resumable, "resume_run", lambda run, options: SimpleNamespace(run=run))
    there = {f"001-{share:.4f}": f"cut-{number}" for number, share in enumerate(shares, 1)}
    again = _shipped(monkeypatch, "onnxruntime", budgets=budgets, measured=measured)
    assert again.cut is not None
    assert (again.cut.why, again.over, len(cuts)) == (made.cut.why, None, 2)


def test_another_file_of_that_run_is_measured_for_itself(
    monkeypatch: pytest.MonkeyPatch, cuts: list[dict[str, Any]]
) -> None:
    """As of a loss that is allowed now and was not: int8 by another scheme, of another size."""
    sizes = {"own": 0.4, "cut-1": 0.4}
    asked = {"budgets": {"size_mb": 0.5}, "measured": lambda path, recipe: _costs(size_mb=sizes[str(recipe)])}
    assert _shipped(monkeypatch, "onnxruntime", **asked).cut is None
    sizes["own"] = 1.0
    assert _shipped(monkeypatch, "onnxruntime", **asked).cut is None  # the same file: what was found of it stands
    made = _shipped(monkeypatch, "onnxruntime", written="another file", **asked)
    assert [each["params"] for each in cuts] == [485]
    assert made.cut is not None


def test_a_cut_that_is_there_is_gone_on_with(monkeypatch: pytest.MonkeyPatch, cuts: list[dict[str, Any]]) -> None:
    there = {Path(f"searches/s/cut/001-{0.97 / 1.2:.4f}"): [SimpleNamespace(path=Path("begun"))]}
    monkeypatch.setattr(resumable, "begun_runs", lambda into: there.get(into, []))
    monkeypatch.setattr(resumable, "resume_run", lambda run, options: SimpleNamespace(run=Path(f"{run}-and-ended")))
    takes = {"own": 1.2, "begun-and-ended": 0.9}
    made = _shipped(
        monkeypatch,
        "onnxruntime",
        budgets={"latency_b1_ms": 1.0},
        measured=lambda path, recipe: _costs(latency_b1_ms=takes[str(recipe)]),
    )
    assert (made.run, cuts) == (Path("begun-and-ended"), [])


def test_a_cut_that_int8_ruins_leaves_the_file_that_was_there(
    monkeypatch: pytest.MonkeyPatch, cuts: list[dict[str, Any]]
) -> None:
    told: list[Any] = []
    quantized = [SimpleNamespace(trained=None), GateMissedError("loses too much")]
    made = _shipped(
        monkeypatch,
        "onnxruntime-int8",
        quantized,
        budgets={"latency_b1_ms": 1.0},
        measured=lambda path, recipe: _costs(latency_b1_ms=1.5),
        tell=told.append,
    )
    assert (made.file, made.run, made.cut) == (Path("searches/s/best.onnx"), RUN, None)
    assert made.over == Excess("latency_b1_ms", 1.5)
    assert len(cuts) == 1
    assert told[-1].message == f"cut-1: loses too much; {Path('searches/s/best.onnx')} stays what it was"


def test_a_file_that_is_too_large_loses_parameters(monkeypatch: pytest.MonkeyPatch, cuts: list[dict[str, Any]]) -> None:
    sizes = {"own": 0.5001, "cut-1": 0.48}
    made = _shipped(
        monkeypatch,
        "onnxruntime",
        budgets={"size_mb": 0.5, "latency_b1_ms": 2.0},
        measured=lambda path, recipe: _costs(size_mb=sizes[str(recipe)], latency_b1_ms=2.05),  # within the noise
    )
    assert [each["params"] for each in cuts] == [970]
    assert made.over is None


def test_what_cannot_be_cut_ships_and_says_what_it_is_over(
    monkeypatch: pytest.MonkeyPatch, cuts: list[dict[str, Any]]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise UsageError("out of reach", hint="ask for less")

    monkeypatch.setattr(module, "prune_to", refuse)
    told: list[Any] = []
    made = _shipped(
        monkeypatch,
        "onnxruntime",
        budgets={"latency_b1_ms": 1.0},
        measured=lambda path, recipe: _costs(latency_b1_ms=1.5),
        tell=told.append,
    )
    assert (made.file, made.run, made.cut) == (Path("searches/s/best.onnx"), RUN, None)
    assert made.over == Excess("latency_b1_ms", 1.5)
    assert told[0].message.endswith("cannot be cut: out of reach (ask for less)")


@pytest.mark.parametrize("stop", [InterruptedRunError("stopped"), RunError("no space left")])
def test_what_stops_the_training_of_a_cut_stops_the_search(
    monkeypatch: pytest.MonkeyPatch, cuts: list[dict[str, Any]], stop: DistillError
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise stop

    monkeypatch.setattr(module, "prune_to", stopped)
    with pytest.raises(type(stop)):
        _shipped(
            monkeypatch,
            "onnxruntime",
            budgets={"latency_b1_ms": 1.0},
            measured=lambda path, recipe: _costs(latency_b1_ms=1.5),
        )


def test_it_is_cut_three_times_at_most(monkeypatch: pytest.MonkeyPatch, cuts: list[dict[str, Any]]) -> None:
    made = _shipped(
        monkeypatch,
        "onnxruntime",
        budgets={"latency_b1_ms": 1.0},
        measured=lambda path, recipe: _costs(latency_b1_ms=1.5),
    )
    assert len(cuts) == 3
    assert made.run == Path("cut-3")
    assert made.over is not None


def test_a_file_of_an_earlier_goal_does_not_stay_where_none_was_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    into = tmp_path / "searches" / "s"
    for name in ("best.onnx", "certificate.json"):
        (into / name).write_text("earlier")
    made = _shipped(monkeypatch, "onnxruntime-int8", GateMissedError("no int8 file"))
    assert made.file is None
    assert list(into.iterdir()) == []
