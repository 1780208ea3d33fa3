"""The notebook runs from top to bottom in a kernel of its own, and shows what its text promises."""

from __future__ import annotations

import os
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "first_steps.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Jupyter's own
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_DEVICE", "cpu")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=540, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = ["".join(_texts(cell)) for cell in notebook.cells if cell.cell_type == "code"]
    assert "epoch 6/6" in shown[1]
    assert "epoch 20/20" in shown[2]
    assert "quickstart_student" in shown[3]
    assert "of 359 test images" in shown[4]
    assert "onnxruntime fp32" in shown[5]
    assert shown[6].strip() == "torch.Size([1, 10])"
    assert os.listdir(tmp_path) == [], "the notebook writes beside itself"


def test_it_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def _texts(cell: nbformat.NotebookNode) -> list[str]:
    return [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
