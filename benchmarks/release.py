"""Make of a finished run what comes with distill: its weights in half precision, measured once more as they are.

``python -m benchmarks.release RUN --notice TEXT [--licence FILE] [--runs DIR] [--out DIR]``

The test set is read once, by the network as it ships. Paths and the machine's names stay out of what is written.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from distill.commands import training_verb
from distill.files import json_sha256, sha256_file, write_atomically, write_json
from distill.pipeline import Options, evaluate_run
from distill.recipe import dump_recipe
from distill.recipe.model_specs import TimmModel
from distill.runs import RunFolder, open_run, released
from distill.runs.checkpoints import best_checkpoint
from distill.runs.checkpoints.folder import META_FILE, MODEL_FILE, read_tree

_TOLD = ("status", "name", "role", "seeds", "versions", "git", "data", "params", "initial_sha256")


def release(run: RunFolder, out: Path, *, notice: str, licence: Path | None = None) -> Path:
    """Write the folder of a run's shipped checkpoint, in half precision.

    Args:
        licence: The text of a licence other than distill's, which the weights that it began with are under.

    Raises:
        ValueError: A weight is too large for half precision.
    """
    target = out / run.name
    target.mkdir(parents=True, exist_ok=True)
    checkpoint = best_checkpoint(run.checkpoints)
    save_file(_halved(load_file(checkpoint / MODEL_FILE)), target / MODEL_FILE)
    (target / MODEL_FILE).chmod(0o644)
    tree = read_tree(checkpoint)
    digests = tree.pop("sha256")
    digests |= {MODEL_FILE: sha256_file(target / MODEL_FILE), "meta": json_sha256(tree)}
    write_json(target / META_FILE, tree | {"sha256": digests})
    info = run.info.to_json()
    teacher = info.get("teacher")
    told = {key: info[key] for key in _TOLD if key in info}
    told |= {"command": ["distill", training_verb(run.recipe().role), "--recipe", run.name], "released": True}
    told["choices"] = {key: each for key, each in (info["choices"] or {}).items() if key.startswith("train.")}
    told["teacher"] = None if teacher is None else {key: teacher[key] for key in teacher if key in ("name", "sha256")}
    told |= {key: info[key] for key in ("started", "finished", "device", "exit_code")}
    write_json(target / "run.json", told)
    recipe = run.recipe()
    if recipe.teacher is not None:
        name = None if teacher is None else teacher.get("name")
        named = {"run": name, "bank": None, "banks": (), "onnx": None}
        recipe = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update=named)})
    if isinstance(recipe.model, TimmModel) and Path(recipe.model.weights).is_file():  # a place of this machine
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"weights": "pretrained"})})
    write_atomically(target / "recipe.yaml", dump_recipe(recipe))
    if licence is not None:
        shutil.copyfile(licence, target / "LICENSE")
    write_json(target / "result.json", _measured(run, target, notice))
    return target


def _halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {name: each.half() if each.is_floating_point() else each for name, each in state.items()}
    for name, each in found.items():
        if not torch.isfinite(each).all():
            raise ValueError(f"{name} has values that half precision has not")
    return {name: each.contiguous() for name, each in found.items()}


def _measured(run: RunFolder, target: Path, notice: str) -> dict[str, Any]:
    """result.json of the network as it ships, and NOTICE.md with its accuracy."""
    shutil.copyfile(run.path / "result.json", target / "result.json")
    (target / "NOTICE.md").write_text("", encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "001"
        released.assemble(target, copied)
        found = evaluate_run(copied, again=True, plots=False, options=Options(runs_dir=Path(folder), threads=1))
        result: dict[str, Any] = json.loads((copied / "result.json").read_text(encoding="utf-8"))
    (target / "NOTICE.md").write_text(
        f"# {run.name}\n\n{notice}\n\nTest top-1 of these weights, in half precision as they are here: "
        f"{found.result.top1:.2%} ({found.result.n:,} images, read once). Made at commit "
        f"{(run.info.git or {}).get('commit', 'unknown')}.\n",
        encoding="utf-8",
    )
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Release a run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.release", description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--notice", required=True, help="what it was taught by, on which data, under which licence")
    parser.add_argument("--licence", type=Path, metavar="FILE", help="its text, where it is not distill's own")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=released.RELEASED, metavar="DIR")
    given = parser.parse_args(arguments)
    print(release(open_run(given.run, runs_dir=given.runs), given.out, notice=given.notice, licence=given.licence))


if __name__ == "__main__":
    main()
