"""The benchmark of files that ship, on small networks and for moments."""

from __future__ import annotations

import json

import pytest

from benchmarks import deploy
from distill.errors import MissingError


def test_every_way_of_a_network_is_a_row(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    arguments = ["--networks", "lenet_cifar10", "--no-compile", "--seconds", "0.05", "--json", "--out", str(tmp_path)]
    deploy.main(arguments)
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "deploy.json").read_text())
    rows = document["rows"]
    assert [row["runtime"] for row in rows if not row["cut"]] == [
        "torch fp32",
        "torch fp32 channels-last",
        "onnxruntime fp32",
        "onnxruntime int8",
    ]
    assert rows[0]["ratio_to_eager_b1"] == rows[0]["ratio_to_eager_b32"] == 1.0
    for row in rows:
        assert row["ratio_to_eager_b1"] == pytest.approx(rows[0]["latency_b1_ms"] / row["latency_b1_ms"])
        assert row["params"] > 0
    plain, int8 = rows[2:4]
    assert int8["size_mb"] < plain["size_mb"] / 2
    assert int8["scheme"]


def test_half_is_half_and_is_timed_like_the_rest() -> None:
    pytest.importorskip("torch_pruning")
    ways = list(deploy.ways_of_recipe("resnet20_cifar10", compiled=False))
    whole, half = ([way.row for way in ways if way.row.cut == cut] for cut in (False, True))
    multiples = dict.fromkeys(row.multiple for row in half)
    assert [row.runtime for row in half] == ["torch fp32", "onnxruntime fp32", "onnxruntime int8"] * len(multiples)
    assert {row.macs * 2 <= whole[0].macs for row in half} == {True}
    assert {row.network for row in whole + half} == {"resnet20_cifar10"}
    assert half[0].params < whole[0].params


def test_without_pruning_the_rest_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise MissingError("pruning needs Torch-Pruning, which is not installed")

    monkeypatch.setattr("distill.compression.prune.require_torch_pruning", missing)
    ways = list(deploy.ways_of_recipe("lenet_cifar10", compiled=False))
    assert not any(way.row.cut for way in ways)
    assert "not cut to multiples of 8: pruning needs Torch-Pruning" in capsys.readouterr().err


def test_a_trained_run_and_its_files_have_their_accuracy(tmp_path) -> None:
    from distill.pipeline import Options, export, train_student
    from distill.recipe import load_recipe

    changes = ["data.limit=200", "data.test_limit=60", "train.epochs=1"]
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    run = train_student(load_recipe("quickstart_scratch", changes), options=options).run
    file = export(run, out=tmp_path / "scratch_fp32.onnx", options=options).file
    ways = list(deploy.ways_of_run(str(run), [str(file)], runs_dir=tmp_path / "runs", compiled=False))
    rows = deploy.measure(ways, seconds=0.05)
    assert [(row.name, row.runtime, row.cut) for row in rows] == [
        ("quickstart_scratch", "torch fp32", False),
        ("quickstart_scratch", "torch fp32 channels-last", False),
        ("scratch_fp32", "onnxruntime fp32", False),
    ]
    assert len({row.test_top1 for row in rows}) == 1
    assert rows[0].test_top1 is not None
