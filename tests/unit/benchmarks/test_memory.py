"""The memory benchmark's folder of images and its watch."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import augment, memory

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is sampled from /proc")


def test_the_folder_is_one_that_distill_reads(tmp_path: Path) -> None:
    memory.write_folder(tmp_path, images=40, size=16)
    assert len(list((tmp_path / "train").glob("*/*.jpg"))) == 40
    assert len(list((tmp_path / "train").iterdir())) == memory.CLASSES
    with Image.open(next((tmp_path / "test").glob("*/*.jpg"))) as picture:
        assert picture.size == (16, 16)


@linux
def test_the_watch_sees_memory_come() -> None:
    watch = memory.Watch()
    watch.look()
    before = watch.anon_mb
    with watch.watching():
        held = mmap.mmap(
            -1, 100 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )  # new to the process, whatever its allocator has kept
        held.write(b"1" * (100 * 2**20))
    assert watch.anon_mb - before > 90
    held.close()


@pytest.mark.parametrize("module", [memory, augment])
def test_help(module, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0
    assert "--json" in capsys.readouterr().out
