"""The house's walls: each room imports only what stands before it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "distill"

ORDER = (
    "errors", "references", "text", "commands", "events", "results", "files", "code", "team", "recipe", "runs",
    "devices", "fingerprint", "data", "models", "objectives", "evaluation", "train", "teaching", "compression",
    "report", "tracking", "comparison", "pipeline", "certificate", "sweeps", "searches", "cli",
)  # fmt: skip
LEAVES = ("teachers", "students")
TORCH_FREE = (*ORDER[: ORDER.index("devices")], "cli")
# Imported by rooms above that have torch, or when tensors are moved.
LATE = {PACKAGE / f"{name}.py" for name in ("runs/checkpoints/tensors", "team/consensus", "team/shares")}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path, *, module_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if module_level else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.name.startswith("__"))


def test_every_room_has_its_place() -> None:
    assert {_room(path) for path in _files()} == set(ORDER)


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = _room(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "distill" and len(parts) > 1 and parts[1] in ORDER:
            assert ORDER.index(parts[1]) <= ORDER.index(own), f"{own} imports {name}"
        if parts[0] in LEAVES:
            assert own == "models", f"{own} imports {name}: distill/models is the one door"


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_know_torch_alone(leaf: str) -> None:
    others = {*LEAVES} - {leaf} | {"distill"}
    for path in (ROOT / leaf).rglob("*.py"):
        assert not {name.split(".")[0] for name in _imports(path)} & others, path


@pytest.mark.parametrize("room", TORCH_FREE)
def test_no_torch_at_import_time(room: str) -> None:
    for path in _files():
        if _room(path) == room:
            assert not _imports(path, module_level=True) & {_module(late) for late in LATE}, path
        if _room(path) == room and path not in LATE:
            roots = {name.split(".")[0] for name in _imports(path, module_level=True)}
            assert not roots & {"torch", "torchvision", "timm", "torchmetrics", "lightning"}, path


def test_no_file_is_long_and_no_drawer_is_called_utils() -> None:
    for path in [*_files(), *(ROOT / "teachers").rglob("*.py"), *(ROOT / "students").rglob("*.py")]:
        assert path.name not in ("utils.py", "helpers.py", "common.py", "misc.py")
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
