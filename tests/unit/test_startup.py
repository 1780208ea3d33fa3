"""What a command waits for before it can say anything: which packages its modules import at once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("lightning_fabric", "matplotlib", "scipy", "sklearn", "timm", "torch._dynamo", "torchmetrics", "torchvision")


def _imported(code: str, *names: str) -> set[str]:
    code += f"; import sys; print(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, timeout=300, check=True
    )
    return set(done.stdout.split())


def test_verbs_wait_for_torch_alone() -> None:
    """The rest comes when it is used: timm with one of its networks, matplotlib with a picture, and so on."""
    assert _imported("import distill.pipeline, distill.comparison, distill.sweeps", *HEAVY) == set()


def test_a_network_of_ones_own_needs_no_timm() -> None:
    code = "import distill; distill.describe_model(distill.load_recipe('r18_small'))"
    assert _imported(code, "timm", "torchvision") == set()


def test_fabric_sees_the_version_of_torchmetrics_and_no_more() -> None:
    code = "import distill.pipeline.fabric; from lightning_fabric.utilities.imports import "
    code += "_TORCHMETRICS_GREATER_EQUAL_1_0_0 as found; assert found"
    assert _imported(code, "torchmetrics", "scipy") == set()
    assert "torchmetrics" in _imported(f"{code}; import torchmetrics; torchmetrics.Metric", "torchmetrics")


@pytest.mark.parametrize(
    "code",
    [
        "import distill.cli",
        "import distill; distill.load_recipe('r18_small')",
        "import distill; distill.list_runs",
        "import distill.report.tables",
    ],
)
def test_nothing_of_this_waits_for_torch(code: str) -> None:
    assert _imported(code, "torch", "numpy" if "cli" in code else "torch") == set()
