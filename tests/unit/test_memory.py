"""Freed memory stays with the process: the pages of one step are the pages of the next."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import resource, sys
import torch
from distill.devices import keep_freed_memory
def step():
    return [torch.ones(2**21) for _ in range(16)]  # 8 MB each, over any threshold
if sys.argv[1] == "keep":
    print(keep_freed_memory(torch.device("cpu")))
elif sys.argv[1] == "load":
    from distill.models.open import load_model
    model, images = load_model("fast_cifar10", runs_dir=sys.argv[2], device="cpu"), torch.zeros(256, 3, 32, 32)
    print(model.name)
    def step():
        return model.logits(images)
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    del held
print(faults)
"""


def _measure(*how: str, **settings: str) -> list[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | settings
    command = [sys.executable, "-c", MEASURE, *how]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is set up")
def test_a_step_touches_no_new_pages_once_freed_memory_is_kept() -> None:
    kept, faults = _measure("keep")
    assert kept == "True"
    # 16 times 8 MB are 32,768 pages, or fewer where the kernel hands out large ones
    left = max(int(_measure("leave")[0]) for _ in range(3))
    if left < 16 * 8 // 2:
        pytest.skip("freed memory happened to stay by itself: something small lay behind it")
    assert int(faults) < left / 8


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is set up")
def test_nor_does_a_batch_that_is_evaluated(tmp_path: Path) -> None:
    name, faults = _measure("load", str(tmp_path))
    assert name == "fast_cifar10"
    assert int(faults) < 2_000  # 30,000 where memory goes back after each layer


def test_what_the_user_has_set_stays() -> None:
    assert _measure("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
