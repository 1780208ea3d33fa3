"""The benchmark of growing folders: its pictures, its rows, and that nothing is measured twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import large

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is sampled from /proc")


def test_the_folder_is_gone_on_with_and_links_what_is_the_same(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(large, "DIFFERENT", 30)
    large.write_folder(tmp_path, 45)
    paths = sorted((tmp_path / "train").glob("*/*.jpg"))
    assert len(paths) == 45
    assert len({path.stat().st_ino for path in paths}) == 30
    with Image.open(paths[0]) as picture:
        assert picture.size == (large.WIDTH, large.HEIGHT)
    before, content = paths[7].stat().st_mtime_ns, {path.name: path.read_bytes() for path in paths}
    paths[3].unlink()
    large.write_folder(tmp_path, 45)
    assert paths[7].stat().st_mtime_ns == before
    assert {path.name: path.read_bytes() for path in paths} == content


@linux
def test_rows_are_measured_once_and_the_files_are_removed(tmp_path: Path, monkeypatch, capsys) -> None:
    asked = []

    def measure(root: Path, stage: str, **how: int) -> dict:
        asked.append(stage)
        if len(asked) == 3:
            raise KeyboardInterrupt
        row = {"stage": stage, "images": 40, "seconds": 2.0, "cpu_s": 1.0, "anon_mb": 7.0, "file_mb": 8.0}
        return row | {"ratio_to_torchvision": {"kept": [3.0, 1.0, 2.0], "per_batch": [0.5] * 3}}

    monkeypatch.setattr(large, "measure", measure)
    command = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--images", "40", "--side", "16"]
    with pytest.raises(KeyboardInterrupt):
        large.main(command)
    large.main(command)
    assert asked == [*list(large.STAGES)[:3], *list(large.STAGES)[2:]]
    assert list((tmp_path / "work").iterdir()) == []
    rows = json.loads((tmp_path / "out" / "large.json").read_text())["rows"]
    assert [row["stage"] for row in rows] == list(large.STAGES)
    told = capsys.readouterr().out
    assert "| 40 | decode | 2.0 | 1.0 | 40 | 7 | 8 |" in told
    assert "| 40 | 2.00 (1.00 to 3.00, n = 3) | 0.50 (0.50 to 0.50, n = 3) |" in told


def test_wrong_sizes_are_one_line(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        large.main(["--work", str(tmp_path), "--images", "many"])
    assert stopped.value.code == 2
    assert "--images many: whole numbers" in capsys.readouterr().err
