"""What the command line is called, option by option: a change is a visible diff here."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from distill.cli import app, completion

ROOT = Path(__file__).parents[2]
_TRAIN = (
    "--recipe -r --set -s --seed --seeds --device --devices --threads --runs --resume --rerun --init-from --track "
    "--dry-run --json --quiet -q"
)

SURFACE = {
    "": "--install-completion --show-completion --version",
    "quickstart": "--device --json --quiet -q --runs --seeds --threads",
    "teacher-finetune": _TRAIN,
    "student": f"{_TRAIN} --teacher -t --generations --then",
    "sweep": (
        "--recipe -r --set -s --teacher -t --grid --search --trials --seeds --prune --no-prune --storage --device "
        "--threads --runs --name --resume --json --quiet -q"
    ),
    "search": (
        "--recipe -r --set -s --teacher -t --budget --runtime --threads --measure --max-drop --prove --against "
        "--evaluations --hours --seeds --name --device --runs --json --quiet -q"
    ),
    "import": "FILE --device --entry --json --quiet -q --recipe -r --runs --set -s --threads",
    "soup": "RUNS --device --greedy --json --name --quiet -q --runs --threads",
    "cache": "",
    "cache build": "--device --devices --json --out --quiet -q --recipe -r --runs --set -s --teacher -t --threads --views",  # noqa: E501
    "cache info": "BANKS --json --runs",
    "cache verify": "BANKS --device --images --json --quiet -q --repair --runs --teacher -t --threads",
    "cache clear": "BANKS --runs --yes -y",
    "cache images": "--clear --yes -y --json",
    "compare": (
        "RUNS --baseline -b --csv --device --json --latency --latex --markdown --measured --no-latency --overwrite"
        " --plot --quiet -q --require --runs --svg --teacher -t --threads"
    ),
    "evaluate": (
        "RUN --again --calibrated --corruption-images --corruptions --device --figure --json --no-plots --overwrite"
        " --plots --quiet -q --runs --split --threads --tta"
    ),
    "similarity": ("RUN --device --figure --images --json --overwrite --quiet -q --runs --split --threads --with"),
    "compress": (
        "RUN --criterion --device --epochs --goal --json --max-drop --name --prove --quiet -q --runs --threads --trials"
    ),
    "prune": (
        "RUN --criterion --device --epochs --json --latency-ms --macs --multiple --no-train --params --quiet -q --runs"
        " --threads --train"
    ),
    "quantize": (
        "RUN --calibration-images --device --epochs --json --max-drop --no-train --out --overwrite --prove --quiet -q"
        " --runs --threads --train"
    ),
    "certify": (
        "FILE --against --budget --device --json --max-drop --out --overwrite --prove --quiet -q --run --runs --seconds"
        " --threads"
    ),
    "verify": "FILE --certificate --json --latency --no-latency --quiet -q --seconds --slack --threads",
    "kit": "FILE OUT --images --json --overwrite --quiet -q",
    "export": "RUN --calibrated --json --out --overwrite --quiet -q --runs --threads --to",
    "predict": (
        "PATHS RUN --calibrated --csv --device --grid --json --overwrite --quiet -q --runs --teacher -t --threads --top"
    ),
    "card": "RUN --device --latency --no-latency --out -o --overwrite --quiet -q --runs --threads",
    "report": (
        "RUNS --baseline -b --device --html --json --latency --no-latency --overwrite --quiet -q --runs --threads"
        " --title"
    ),
    "watch": "RUN --every --once --runs",
    "runs": "",
    "runs list": "--json --runs",
    "runs remove": "RUNS --runs --yes -y",
    "recipe": "",
    "recipe list": "--json",
    "recipe show": "NAME --full --set -s",
    "recipe new": "DIR --force --name --out --overwrite --student --student-weights --teacher --teacher-weights "
    "--unlabelled",
    "recipe copy": "FILE NAME --force --overwrite",
    "recipe check": "NAMES --set -s",
    "recipe objectives": "KIND --json",
    "recipe schema": "--json",
    "models": "NAME --json --set -s",
    "doctor": "--data --json --quiet -q --recipe -r --runs --set -s --threads",
}


BUILDS_NETWORKS = (  # so that they may be asked to run a recipe's own code
    "teacher-finetune", "student", "sweep", "search", "import", "soup", "cache build", "cache verify", "compare",
    "evaluate", "similarity", "compress", "prune", "quantize", "export", "kit", "predict", "report", "recipe check",
    "models", "certify", "verify", "card", "doctor",
)  # fmt: skip


def _walk(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk(child, f"{path} {name}".strip())


COMMANDS = dict(_walk(get_command(app)))


def _surface(command: Any) -> set[str]:
    names = set()
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            names.add(parameter.metavar.strip("[].").removesuffix("]"))
        else:
            names |= {*parameter.opts, *parameter.secondary_opts}
    return {name for name in names if name not in ("--help", "-h")}


def test_the_commands() -> None:
    assert set(COMMANDS) == set(SURFACE)


@pytest.mark.parametrize("path", SURFACE)
def test_the_options(path: str) -> None:
    leave = {"--allow-code"} if path in BUILDS_NETWORKS else set()
    assert _surface(COMMANDS[path]) == set(SURFACE[path].split()) | leave


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if not hasattr(command, "commands")])
def test_every_command_says_what_it_does_and_gives_two_lines_to_copy(path: str, cli) -> None:
    command = COMMANDS[path]
    first = command.help.split("\n")[0]
    assert first[0].isupper()
    assert first.split()[0].rstrip(",:").replace("-", "").isalpha()
    copied = [line.strip() for line in command.epilog.splitlines()[1:]]
    assert copied
    assert all(line.startswith(f"distill {path}") for line in copied)
    result = cli(*path.split(), "--help")
    assert result.exit_code == 0
    shown = " ".join(result.output.split())
    assert all(" ".join(line.split()) in shown for line in copied)


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if not hasattr(command, "commands")])
def test_examples_parse(path: str) -> None:
    """Every option that an example uses exists."""
    known = set(SURFACE[path].split())
    for line in COMMANDS[path].epilog.splitlines()[1:]:
        used = {word for word in line.split() if word.startswith("-") and len(word) > 1 and not word.startswith("->")}
        assert used - {"-"} <= known, line


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_explains_itself(path: str) -> None:
    for parameter in COMMANDS[path].params:
        assert parameter.help, parameter.name


@pytest.mark.parametrize("args", [(), ("recipe",), ("cache",)])
def test_no_arguments_show_the_help(args: tuple[str, ...], cli) -> None:
    assert "Usage" in cli(*args).output


def test_version(cli) -> None:
    result = cli("--version")
    assert result.exit_code == 0
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    expected = rf"distill \d+\.\d+\.\d+ \({commit[:10]}\+?\)\n" if commit else r"distill \d+\.\d+\.\d+\n"
    assert re.fullmatch(expected, result.stdout)


@pytest.mark.parametrize("path", COMMANDS)
def test_sentences_are_not_broken_where_the_source_breaks_them(path: str) -> None:
    for paragraph in (COMMANDS[path].help or "").split("\n\n"):
        assert "\n" not in paragraph.strip("\n")


def test_settings_and_devices_complete() -> None:
    assert "train.epochs=" in completion.complete_settings("train.ep")
    assert "train=" not in completion.complete_settings("train")
    assert completion.complete_devices("c") == ["cpu", "cuda", "cuda:0", "cuda:1"]


def test_switches_take_no_value() -> None:
    for command in (["compare"], ["export"], ["cache", "build"], []):
        shown = CliRunner().invoke(app, [*command, "--help"]).stdout
        lines = [line for line in shown.splitlines() if "<bool>" in line]
        assert all("-completion" in line for line in lines), lines  # typer's own


def _every_path() -> Iterator[tuple[str, str]]:
    for name, command in COMMANDS.items():
        for param in command.params:
            if param.metavar in ("FILE", "DIR", "OUT", "PATHS") and param.param_type_name == "option":
                yield name, param.opts[0]


@pytest.mark.parametrize(("command", "option"), list(_every_path()))
def test_a_home_is_found_where_the_shell_left_it(command: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/at/home")
    (name,) = [param.name for param in COMMANDS[command].params if option in param.opts]
    for typed, meant in (("~/mine", "/at/home/mine"), ("~nosuch/mine", "~nosuch/mine"), ("a~", "a~")):
        context = COMMANDS[command].make_context(command, [f"{option}={typed}"], resilient_parsing=True)
        value = context.params[name]
        assert str(value[0] if isinstance(value, list) else value) == meant
