"""Real runs on CUDA's own dispatch, without a GPU: a runtime that launches nothing stands in for it.

``$DISTILL_FAKE_CUDA`` is a folder whose ``run COMMAND...`` runs a command so; without it these are skipped. What such a
stand-in can show is in docs/gpu.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
STAND_IN = os.environ.get("DISTILL_FAKE_CUDA")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not STAND_IN, reason="$DISTILL_FAKE_CUDA names no runtime that stands in for CUDA's"),
]


def _run(case: str, folder: Path, **environment: str) -> dict[str, Any]:
    assert STAND_IN is not None
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    variables = os.environ | {"PYTHONPATH": paths, "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")} | environment
    variables.pop("DISTILL_DEVICE", None)
    child = subprocess.run(
        [str(Path(STAND_IN) / "run"), sys.executable, "-m", "fake_cuda", case, str(folder)],
        check=False,
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return found


def test_a_run_compiles_one_graph_and_no_step_waits(tmp_path: Path) -> None:
    """Four steps an epoch, the last one short; the first epoch frozen: both run uncompiled."""
    found = _run("compiled", tmp_path)
    assert found["said"] is None
    assert found["graphs"] == 1
    assert [each > 0 for each in found["compile_s"]] == [False, True, False]
    assert found["waits"] == [0] * 9
    assert min(found["launches"]) > 0


def test_without_a_compiler_a_run_goes_uncompiled_and_says_so(tmp_path: Path) -> None:
    found = _run("no compiler", tmp_path)
    assert (found["said"], found["graphs"]) == (None, 0)
    assert any("runs uncompiled: there is no C compiler" in note for note in found["notes"])


def test_two_devices_under_ddp_compile_one_graph(tmp_path: Path) -> None:
    """Its waits say nothing: gloo stands in for NCCL, and copies through the host."""
    found = _run("two devices", tmp_path, FAKE_CUDA_DEVICES="2")
    assert (found["said"], found["graphs"]) == (None, 1)
    assert [each > 0 for each in found["compile_s"]] == [False, True, False]
    assert len(found["launches"]) == 9


def test_memory_that_runs_out_on_a_gpu_is_one_line_with_a_batch_that_fits(tmp_path: Path) -> None:
    message, hint = _run("little memory", tmp_path, FAKE_MEM_MB="400")["said"]
    assert "out of memory" in message
    assert "--set train.batch_size=" in hint


def test_latency_on_a_gpu_is_a_graphs(tmp_path: Path) -> None:
    """Each batch size is captured once, and replayed: three warm-ups, ten rounds of two passes."""
    assert _run("latency", tmp_path) == {"batches": [1, 32, 256], "captures": 3, "replays": 3 * (3 + 10 * 2)}
