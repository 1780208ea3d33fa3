"""Files from strangers: nothing in them is run, and what they call things is data wherever it is shown."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from distill.cli import app
from distill.cli.output import Output
from distill.report.evaluation import predictions_csv
from distill.results.rows import Guess, Prediction

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for room in ("distill", "teachers", "students") for path in (ROOT / room).rglob("*.py"))

# What turns data into code or lets an archive choose where it writes. CIFAR's official files are pickles: they are read
# after their md5 was compared, by an unpickler that builds arrays alone.
FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "pickle.load",
    "pickle.loads",
    "dill.load",
    "joblib.load",
    "marshal.loads",
    "shelve.open",
    "yaml.load",
    "yaml.unsafe_load",
    "importlib.import_module",
    "os.system",
    "os.popen",
    "shutil.unpack_archive",
    "torch.hub.load",
    "tempfile.mktemp",
}
_UNSAFE_METHODS = {"extractall", "extract", "unsafe_load"}
_PICKLE_USERS = {"distill/data/cifar.py", "distill/team/processes.py"}
ALLOWED = {
    ("distill/__init__.py", "importlib.import_module"),  # distill's own modules, from a table
    ("distill/code.py", "importlib.import_module"),  # the one door, which --allow-code opens
    ("distill/report/doctor.py", "importlib.import_module"),  # libraries it depends on, from a table
    ("distill/team/processes.py", "pickle.loads"),  # a task that its own parent process handed over in memory
}


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _keywords(call: ast.Call) -> dict[str, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_turns_data_into_code(path: Path) -> None:
    for name, call in _calls(path):
        where, given = f"{path}:{call.lineno}: {name}", _keywords(call)
        assert name not in FORBIDDEN or (str(path.relative_to(ROOT)), name) in ALLOWED, where
        assert name.rpartition(".")[2] not in _UNSAFE_METHODS, where
        assert given.get("shell", "False") == "False", where
        assert given.get("allow_pickle", "False") == "False", where
        if name == "torch.load":
            assert given.get("weights_only") == "True", where
        if name in ("np.load", "numpy.load"):
            assert given.get("allow_pickle") == "False", where
        if name == "YAML":
            assert given.get("typ", "'rt'") in ("'rt'", "'safe'"), where


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pickle_is_imported_where_its_bytes_are_known_and_nowhere_else(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not modules & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"} or (
        str(path.relative_to(ROOT)) in _PICKLE_USERS
    )


# Names

HOSTILE = (
    "[bold red]bold",
    "\x1b[31mred\x1b[0m",
    "=cmd()|'!A1",
    "<script>alert(1)<\\script>",
    "up..\\..\\up",
    "new\nline",
    "$x^{",
    '"quoted",comma',
    "\u202eright to left",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of pictures with such classes and files, and a runs folder with a network trained on it."""
    home = tmp_path_factory.mktemp("hostile")
    draw = np.random.default_rng(0)
    for label in HOSTILE:
        for split, count in (("train", 3), ("test", 1)):
            folder = home / "pictures" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 255, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{HOSTILE[number]}.png".replace("\\", "_"))
    recipe = home / "own.yaml"
    recipe.write_text(
        "schema_version: 1\nname: own\nrole: baseline\nmodel: {source: students, name: tiny}\n"
        f"data: {{name: folder, root: '{home / 'pictures'}', image_size: 12, val_fraction: 0.3}}\n"
        "objective: {kind: supervised}\noptim: {name: sgd, lr: 0.05}\ntrain: {epochs: 1, batch_size: 8}\n"
    )
    runs = home / "runs"
    done = CliRunner().invoke(app, ["student", "--recipe", str(recipe), "--runs", str(runs), "--threads", "1"])
    assert done.exit_code == 0, done.output
    return home, runs


@pytest.fixture
def ask(hostile: tuple[Path, Path]) -> Callable[..., Result]:
    def run(*args: object) -> Result:
        done = CliRunner().invoke(app, [*map(str, args), "--runs", str(hostile[1])])
        assert done.exit_code == 0, done.output
        for text in (done.stdout, done.stderr):
            assert not any(char in text for char in "\x1b\x00\x07\r\u202e"), text
        return done

    return run


def test_evaluate_shows_such_names_as_they_are(ask: Callable[..., Result], hostile: tuple[Path, Path]) -> None:
    said = ask("evaluate", "own").stdout
    assert "[bold red]bold" in said
    assert "new\\nline" in said
    assert "\\x1b[31mred" in said
    document = json.loads(ask("evaluate", "own", "--json").stdout)
    assert {row["label"] for row in document["per_class"]} == set(HOSTILE)
    for name in ("confusion_test.svg", "classes_test.svg"):
        _check_svg(hostile[1] / "own" / "001" / "evaluation" / name)


def test_compare_keeps_its_pictures_clean(ask: Callable[..., Result], tmp_path: Path) -> None:
    ask("compare", "--no-latency", "--svg", tmp_path / "table.svg", "--plot", tmp_path / "plot.svg")
    for name in ("table.svg", "plot.svg"):
        _check_svg(tmp_path / name)


def test_predict_escapes_formulas_and_keeps_files_apart(
    ask: Callable[..., Result], hostile: tuple[Path, Path], tmp_path: Path
) -> None:
    pictures = hostile[0] / "pictures"
    table = tmp_path / "table.csv"
    ask("predict", "own", pictures / "test", "--csv", table, "--grid", tmp_path / "grid.png", "--top", len(HOSTILE))
    rows = list(csv.reader(io.StringIO(table.read_text(encoding="utf-8"))))
    assert len({len(row) for row in rows}) == 1
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "@", "\t"))]
    assert "'=cmd()|'!A1" in {cell for row in rows for cell in row}
    document = json.loads(ask("predict", "own", pictures / "test", "--json").stdout)
    assert {guess["label"] for row in document for guess in row["top"]} <= set(HOSTILE)
    assert all(Path(row["file"]).is_file() for row in document)
    with Image.open(tmp_path / "grid.png") as grid:
        grid.verify()


class _Stdout(io.TextIOWrapper):
    def __init__(self, *, is_terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True, errors="backslashreplace")
        self.isatty = lambda: is_terminal  # type: ignore[method-assign]

    def bytes_of(self) -> bytes:
        return self.buffer.getvalue()  # type: ignore[attr-defined]


def _printed(text: str, monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool, encoding: str = "utf-8") -> bytes:
    stdout = _Stdout(is_terminal=is_terminal, encoding=encoding)
    monkeypatch.setattr("sys.stdout", stdout)
    Output().text_file(text, "-")
    return stdout.bytes_of()


LINK = "\x1b]8;;https://example.org\x1b\\click\x1b]8;;\x1b\\"


def test_csv_is_spelled_out_to_a_terminal_and_exact_to_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    guess = Guess("\x1b[31mred\u202ethgir\x9b1m\r", 0.5)
    text = predictions_csv([Prediction(f"a\udcff{LINK}.png", (guess,), None, None)])
    assert _printed(text, monkeypatch, is_terminal=False) == text.encode(errors="surrogateescape")
    shown = _printed(text, monkeypatch, is_terminal=True).decode()
    assert all(char.isprintable() or char == "\n" for char in shown), shown
    assert "\\x1b[31mred\\u202ethgir\\x9b1m" in shown
    assert len(shown.splitlines()) == 2


def test_what_an_encoding_lacks_is_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _printed("\xe9", monkeypatch, is_terminal=False, encoding="ascii") == b"\\xe9\n"
    assert _printed("\xe9", monkeypatch, is_terminal=False, encoding="latin-1") == b"\xe9\n"


def test_pictures_whose_names_are_no_text(
    ask: Callable[..., Result], hostile: tuple[Path, Path], tmp_path: Path
) -> None:
    picture = next((hostile[0] / "pictures" / "test").rglob("*.png"))
    name = os.path.join(os.fsencode(tmp_path), b"d\xffg.png")
    try:
        Path(os.fsdecode(name)).write_bytes(picture.read_bytes())
    except OSError:
        pytest.skip("this file system has no such names")
    ask("predict", "own", tmp_path, "--csv", tmp_path / "table.csv", "--grid", tmp_path / "grid.png")
    assert name in (tmp_path / "table.csv").read_bytes()
    (tmp_path / "grid.png").unlink()
    piped = CliRunner().invoke(app, ["predict", "own", str(tmp_path), "--csv", "-", "--runs", str(hostile[1])])
    assert name in piped.stdout_bytes
    (row,) = json.loads(ask("predict", "own", tmp_path, "--json").stdout)
    assert os.fsencode(row["file"]) == name


def test_nothing_was_written_outside(hostile: tuple[Path, Path]) -> None:
    home, _ = hostile
    assert {path.name for path in home.iterdir()} == {"pictures", "own.yaml", "runs"}
    assert not (home.parent / "up").exists()


def test_names_that_are_no_text_are_refused_by_name(tmp_path: Path, hostile: tuple[Path, Path]) -> None:
    for split in ("train", "test"):
        for label in (b"cat", b"d\xffg"):
            folder = Path(str(tmp_path)) / split / label.decode(errors="surrogateescape")
            try:
                folder.mkdir(parents=True)
            except OSError:
                pytest.skip("this file system has no such names")
            Image.new("RGB", (12, 12)).save(folder / "a.png")
    args = ["student", "--recipe", str(hostile[0] / "own.yaml"), "--set", f"data.root={tmp_path}"]
    done = CliRunner().invoke(app, [*args, "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 1
    assert "class names that are not UTF-8" in done.stderr
    assert done.stderr.isascii() or "\ufffd" in done.stderr


def _check_svg(path: Path) -> None:
    tree = ElementTree.fromstring(path.read_bytes())
    tags = {element.tag.rpartition("}")[2].lower() for element in tree.iter()}
    assert not tags & {"script", "foreignobject", "iframe"}
    for element in tree.iter():
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on"), name
            assert not value.lower().startswith("javascript:"), value
            if name.endswith("href"):  # within the file: nothing is fetched
                assert value.startswith(("#", "data:image/png;base64,")), value
