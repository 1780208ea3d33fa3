"""What the pages tell a reader to type is what there is: commands parse, recipes validate, Python names exist."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

import distill
from distill.cli import app
from distill.recipe import bundled_recipes, describe_schema, load_recipe
from docs.site import catalogue, commands, markdown, pages

ROOT = Path(__file__).parents[2]
WRITTEN = {  # by people: what is made from the code is true of it
    name: text
    for name, text in pages.pages().items()
    if not name.startswith(("docs/commands", "docs/catalogue", "docs/keys", "docs/api.md"))
}
OTHERS = {"git", "pip", "pipx", "uv", ".", "cd", "export", "scp", "ssh", "curl", "tensorboard", "wandb"}
KEYS = {key.path for key in describe_schema()} | {"data.fingerprint"}  # that one is of run.json
SECTIONS = {"data", "augment", "model", "teacher", "objective", "optim", "schedule", "train", "search"}


def _typed() -> Iterator[tuple[str, str]]:
    """Every line that a reader may type, with where it stands."""
    for page, text in WRITTEN.items():
        for fence in markdown.fences(text):
            if fence.text.startswith("#!"):
                continue  # a script, tried below
            if fence.language == "sh" or re.match(r"(distill|python -m) ", fence.text):
                lines = fence.text.replace("\\\n", " ").splitlines()
                yield from ((f"{page}:{fence.line}", line) for line in lines if line.strip())
    for entry in catalogue.entries():
        for field in ("Run", "Grid", "Search"):
            line = re.sub(r"\\\n|\n", " ", entry.fields.get(field, ""))
            for each in re.findall(r"\bdistill .*?(?=$|\s\(|, or:|\)|\bagain with|; )", line):
                yield f"recipes/{entry.name}.yaml", each
    for file in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for job, told in YAML(typ="safe").load(file.read_text(encoding="utf-8"))["jobs"].items():
            yield from ((f"{file.name}: {job}", step["run"]) for step in told["steps"] if "run" in step)
    for name, command in commands.commands().items():
        yield from ((f"help of {name}", line.strip()) for line in (command.epilog or "").splitlines()[1:])


TYPED = sorted(set(_typed()))


@pytest.mark.parametrize(("place", "line"), TYPED)
def test_what_a_reader_types_is_understood(place: str, line: str) -> None:
    for part in re.split(r" && ", line):
        words = shlex.split(part, comments=True)
        understand(words[: words.index(">")] if ">" in words else words)


def test_scripts_in_the_pages_are_a_shells() -> None:
    scripts = [text for _, text in _fences("sh") if text.startswith("#!")]
    assert scripts
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        for line in re.findall(r"distill (\w.*?)(?= \$| \|\||$)", script.replace("\\\n", " "), re.MULTILINE):
            parsed(shlex.split(line))


def understand(words: list[str]) -> None:
    """Fail where the line's program, or what it is given, is not there."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[:2] == ["nice", "-n"]:
        words = words[3:]
    words = [word.rpartition("/bin/")[2] if place == 0 else word for place, word in enumerate(words)]
    if not words or words[0] in OTHERS:
        return
    if words[0] in ("torchrun", "python") and "-m" in words:
        module, *rest = words[words.index("-m") + 1 :]
        if module == "distill":
            parsed(rest)
        elif module == "pytest":
            assert all((ROOT / word).exists() for word in rest if word.startswith("tests"))
        elif module in ("pip", "venv", "build"):
            return
        else:
            _module(module, rest)
    elif words[0] == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert set(words[1:]) <= targets
    elif words[0] == "sh":
        paths = [word for word in words[1:] if "/" in word]
        assert paths
        assert all((ROOT / path).exists() for path in paths)
    else:
        assert words[0] == "distill", f"what is {words[0]}?"
        parsed(words[1:])


def parsed(words: list[str]) -> None:
    """Read as the command line reads it; a bundled recipe takes what ``--set`` says."""
    command: Any = get_command(app)
    if words == ["--version"]:
        return
    if "[" in "".join(words):
        words = [word for word in words if word[0] != "[" and word.count("[") == word.count("]")]  # may be left out
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"no command {words[0]}"
        command = command.commands[words[0]]
        words = words[1:]
    values = command.make_context("distill", list(words)).params
    recipe = values.get("recipe")
    names = recipe if isinstance(recipe, list) else [recipe]
    for name in names:
        if name and str(name).removesuffix(".yaml") in bundled_recipes():
            load_recipe(str(name), list(values.get("changes") or []))


def _module(module: str, words: list[str]) -> None:
    """A program of this repository that knows these options."""
    place = ROOT / module.replace(".", "/")
    files = list(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    source = "".join(path.read_text(encoding="utf-8") for path in files)
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert f'"{option}"' in source, f"{module} has no {option}"


@pytest.mark.parametrize(
    "line",
    [
        "distill studnt --recipe r18_small",
        "distill student --recip r18_small",
        "distill student --recipe r18_small --set train.epoch=3",
        "python -m benchmarks.peers --no-such-option",
        "python -m benchmarks.nothing",
        "make tea",
        "sh .ci/nothing",
    ],
)
def test_what_is_wrong_is_noticed(line: str) -> None:
    with pytest.raises(Exception) as refused:
        understand(shlex.split(line))
    assert refused.type.__name__ in ("AssertionError", "RecipeError", "FileNotFoundError", "NoSuchOption")


def _fences(language: str) -> list[tuple[str, str]]:
    return [
        (f"{page}:{fence.line}", fence.text)
        for page, text in WRITTEN.items()
        for fence in markdown.fences(text)
        if fence.language == language
    ]


BASE = """
schema_version: 1
name: base
role: student
data: {name: digits}
model: {source: students, name: resnet, blocks: [1, 1], channels: [8, 16], strides: [1, 2]}
teacher: {run: quickstart_teacher}
objective: {kind: kd}
"""


@pytest.mark.parametrize(("place", "text"), _fences("yaml"))
def test_recipes_in_the_pages_validate(place: str, text: str, tmp_path: Path) -> None:
    """Whole ones as they are; of a part, the rest is a plain student's."""
    if "schema_version" not in text:
        part = YAML(typ="safe").load(text)
        assert set(part) <= SECTIONS, "neither a recipe nor a part of one"
        rest = [line for line in BASE.splitlines() if line.split(":")[0] not in part]
        text = "\n".join(rest) + "\n" + text
    file = tmp_path / "page.yaml"
    file.write_text(text, encoding="utf-8")
    load_recipe(file)


@pytest.mark.parametrize(("place", "text"), _fences("python"))
def test_python_in_the_pages_names_what_there_is(place: str, text: str) -> None:
    tree = ast.parse(text)
    ours = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "distill"
        for alias in node.names
    }
    assert ours <= set(distill.__all__)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Name) and call.func.id in ours:
            named = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            inspect.signature(getattr(distill, call.func.id)).bind(*call.args, **named)


CODE = sorted({(page, code) for page, text in WRITTEN.items() for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)})


def test_keys_that_the_pages_name_exist() -> None:
    named = {
        (page, code)
        for page, code in CODE
        if re.fullmatch(rf"({'|'.join(SECTIONS)})\.[a-z0-9_.]+[a-z0-9]", code)
        and not re.search(r"\.(py|jsonl?|safetensors)$", code)
    }
    assert len(named) > 20
    assert [each for each in sorted(named) if each[1] not in KEYS] == []


def test_commands_that_the_pages_name_exist() -> None:
    found = commands.commands()
    groups = {name.split(" ")[0] for name in found if " " in name}
    wrong = []
    for page, code in CODE:
        match = re.fullmatch(r"distill ([a-z-]+)( [a-z-]+)?(.*)", code)
        if not match:
            continue
        name = match[1] + (match[2] or "") if match[1] in groups and match[2] else match[1]
        command = found.get(name)
        known = (
            set()
            if command is None
            else {option for each in command.params for option in each.opts + each.secondary_opts}
        )
        options = set(re.findall(r"(?<!\S)--[a-z][\w-]*", code)) - {"--help", "--version"}
        if (command is None and name not in groups) or options - known:
            wrong.append((page, code))
    assert wrong == []
