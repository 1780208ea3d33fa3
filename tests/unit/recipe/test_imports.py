"""Recipes are read without torch: the command line's help and its mistakes are quick."""

from __future__ import annotations

import subprocess
import sys


def test_no_torch_and_no_numpy() -> None:
    code = (
        "import sys, distill.recipe; distill.recipe.describe_schema();"
        "print(sorted({'torch', 'numpy', 'timm', 'yaml', 'rich', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
