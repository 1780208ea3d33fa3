"""The command as a process: what it imports, how it ends, and what signals and pipes do to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_ENV = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}


def _python(code: str, *, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=_ENV | env, capture_output=True, text=True, timeout=60, check=False
    )


def _cli(*args: str, before: str = "", after: str = "") -> str:
    """A script that runs the command line, with ``before`` done first and ``after`` whatever happens."""
    head = f"import sys\n{before}\nfrom distill.cli import main\n"
    return f"{head}try:\n    main({list(args)!r})\nfinally:\n    {after or 'pass'}\n"


_NO_TORCH = "print('torch' in sys.modules, 'matplotlib' in sys.modules, file=sys.stderr)"


@pytest.mark.parametrize(
    "args",
    [("--help",), ("student", "--help"), ("--version",), ("recipe", "list", "--json"), ("recipe", "show", "r18_small")],
)
def test_help_and_recipes_load_no_torch(args: tuple[str, ...], tmp_path: Path) -> None:
    done = _python(_cli(*args, after=_NO_TORCH), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "False False"


def test_importing_distill_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, distill; print([n for n in ('torch', 'rich', 'pydantic', 'numpy') if n in sys.modules])"
    assert _python(code, cwd=tmp_path).stdout.strip() == "[]"


def test_every_public_name_is_found(tmp_path: Path) -> None:
    code = "import distill\nfor name in distill.__all__: getattr(distill, name)\n"
    code += "print(set(distill.__all__) <= set(dir(distill)))"
    done = _python(code, cwd=tmp_path)
    assert done.stdout.strip() == "True", done.stderr


def test_python_dash_m(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "distill", "--version"],
        cwd=tmp_path,
        env=_ENV,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("distill ")


_WAIT = """
import distill.cli.report as module, time
import distill.runs
def wait(*a, **k):
    print('waiting', flush=True)
    for _ in range(300):  # Python hears a signal between two calls: one that comes as a sleep begins waits for its end
        time.sleep(0.1)
distill.runs.list_runs = wait
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_with_one_line_and_their_code(number: int, code: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _cli("report", before=_WAIT)],
        cwd=tmp_path,
        env=_ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors.startswith("stopped: ")
    assert len(errors.splitlines()) == 1


def test_a_bug_keeps_a_plain_traceback(tmp_path: Path) -> None:
    before = "import distill.runs\ndef bug(*a): secret = 'local'; raise ZeroDivisionError('a bug')\n"
    before += "distill.runs.list_runs = bug"
    done = _python(_cli("report", before=before), cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.rstrip().endswith("ZeroDivisionError: a bug")
    assert "╭" not in done.stderr


@pytest.mark.parametrize("args", [("recipe", "list"), ("recipe", "list", "--json"), ("recipe", "show", "r18_small")])
def test_a_reader_that_stops_is_no_failure(args: tuple[str, ...], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "distill", *args],
            cwd=tmp_path,
            env=_ENV,
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_ascii_terminal_is_no_failure(tmp_path: Path) -> None:
    done = _python(_cli("recipe", "list"), cwd=tmp_path, PYTHONIOENCODING="ascii", COLUMNS="120")
    assert done.returncode == 0, done.stderr
    assert "r18_small" in done.stdout


def test_omp_threads_wait_politely_unless_told_otherwise(tmp_path: Path) -> None:
    after = "import os; print(os.environ['OMP_WAIT_POLICY'], file=sys.stderr)"
    without = {key: value for key, value in _ENV.items() if key != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", _cli("--version", after=after)]
    for given, seen in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        done = subprocess.run(command, cwd=tmp_path, env=without | given, capture_output=True, text=True, check=True)
        assert done.stderr.strip() == seen


def test_json_is_one_document_and_nothing_else(tmp_path: Path) -> None:
    done = _python(_cli("recipe", "list", "--json"), cwd=tmp_path)
    assert {"r18_small", "resnet152_cifar10"} <= {row["name"] for row in json.loads(done.stdout)}
    assert done.stderr == ""


@pytest.mark.parametrize(("encoding", "dash"), [("ascii", "-"), ("cp1252", "\N{EN DASH}"), ("utf-8", "\N{EN DASH}")])
def test_an_output_that_is_not_utf_8_shows_signs_that_mean_the_same(encoding: str, dash: str, tmp_path: Path) -> None:
    code = "from distill.cli.output import PLAINER\nimport sys\nsys.stdout.reconfigure(errors=PLAINER)\n"
    code += r"print('93.87 \N{PLUS-MINUS SIGN} 0.74 \N{MINUS SIGN}5 \N{EN DASH} \N{SNOWMAN} \u2502\u2500 "
    code += r"\u0394 teacher \u2588')"
    environment = _ENV | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=True
    )
    text = done.stdout.decode(encoding)
    minus = "\N{MINUS SIGN}" if encoding == "utf-8" else "-"
    plus = "+-" if encoding == "ascii" else "\N{PLUS-MINUS SIGN}"
    snow, lines = ("\N{SNOWMAN}", "\u2502\u2500") if encoding == "utf-8" else ("\\u2603", "|-")
    head = "\u0394 teacher \u2588" if encoding == "utf-8" else "D teacher #"
    assert text.strip() == f"93.87 {plus} 0.74 {minus}5 {dash} {snow} {lines} {head}"
