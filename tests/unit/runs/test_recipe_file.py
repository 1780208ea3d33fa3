"""recipe.yaml in a run: read back equal; damage is the run's fault, not the user's spelling."""

from __future__ import annotations

import pytest

from distill.errors import RunError
from distill.runs import create_run

recipe_module = pytest.importorskip("distill.recipe.load")

TEXT = """
schema_version: 1
name: a
role: baseline
data: {name: synthetic}
model: {source: students, name: resnet, blocks: [1, 1], channels: [8, 8], strides: [1, 2]}
"""


def test_written_and_read_back_equal(tmp_path):
    recipe = recipe_module.parse_recipe(TEXT, source="a.yaml")
    folder = create_run(tmp_path, "a")
    folder.write_recipe(recipe)
    assert folder.recipe() == recipe


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"name: a\nrole: nobody\n", b"{"])
def test_damage_names_the_file(tmp_path, content):
    folder = create_run(tmp_path, "a")
    if content is not None:
        (folder.path / "recipe.yaml").write_bytes(content)
    with pytest.raises(RunError, match=r"recipe\.yaml") as caught:
        folder.recipe()
    assert caught.value.exit_code == 1
