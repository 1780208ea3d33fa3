"""run.json: read back as written, unknown keys kept, wrong types refused with the file's name."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import RunError
from distill.runs import RunInfo, create_run, git_state
from distill.runs import info as info_module

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_written_and_read_back(tmp_path):
    folder = create_run(tmp_path, "r18_small")
    written = folder.write_info(
        status="running",
        role="student",
        command=["distill", "student"],
        seeds={"train": 1},
        teacher={"run": "t"},
        params=7,
    )
    assert written == folder.read_info() == folder.info
    assert written.name == "r18_small"
    assert written.command == ("distill", "student")
    assert written.extra == {"params": 7}
    tree = json.loads((folder.path / "run.json").read_text())
    assert tree["params"] == 7
    assert tree["command"] == ["distill", "student"]


def test_changes_keep_the_rest_and_keys_of_other_versions(tmp_path):
    folder = create_run(tmp_path, "a")
    (folder.path / "run.json").write_text('{"status": "running", "threads": 3, "of_the_future": {"x": [1]}}')
    info = folder.write_info(status="finished", exit_code=0)
    assert (info.status, info.threads, info.extra) == ("finished", 3, {"of_the_future": {"x": [1]}})
    assert folder.read_info() == info


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({}, "no status"),
        ({"status": "done"}, "status should be one of running, finished, interrupted, failed, got 'done'"),
        ({"status": ["finished"]}, "status should be"),
        ({"status": "finished", "command": "rm"}, "command should be a list of text"),
        ({"status": "finished", "command": [1]}, "command should be"),
        ({"status": "finished", "threads": True}, "threads should be an integer or null, got True"),
        ({"status": "finished", "seeds": {"train": "x"}}, "seeds should be an object of integers"),
        ({"status": "finished", "role": []}, "role should be one of"),
        ({"status": "finished", "teacher": "t"}, "teacher should be an object or null"),
        ({"status": "finished", "name": "x" * 5, "versions": {"torch": 2}}, "versions should be"),
    ],
)
def test_wrong_types_name_the_file_and_the_key(tmp_path, tree, says):
    folder = create_run(tmp_path, "a")
    path = folder.path / "run.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(RunError) as caught:
        folder.read_info()
    assert caught.value.message.startswith(f"{path}: damaged: ")
    assert says in caught.value.message


@given(st.dictionaries(st.sampled_from([*RunInfo.__dataclass_fields__, "other"]), json_values, max_size=5))
def test_any_object_is_read_or_refused(tree):
    source, message = Path("run.json"), "run.json: damaged"
    try:
        info = RunInfo.from_json({"status": "finished"} | tree, source=source)
        assert RunInfo.from_json(info.to_json(), source=source) == info
    except RunError as error:
        message = error.message
    assert message.startswith("run.json: damaged")


def test_writing_a_wrong_type_leaves_the_file(tmp_path):
    folder = create_run(tmp_path, "a")
    folder.write_info(role="student")
    with pytest.raises(RunError, match="threads"):
        folder.write_info(threads="four")
    assert folder.read_info().threads is None


def test_git_state_follows_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(
        info_module.os,
        "environ",
        {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
    )
    assert git_state(tmp_path) is None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert git_state(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "a", "--no-gpg-sign")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "untracked").write_text("1")
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)["dirty"] is True


def test_git_that_is_missing_or_slow_is_none(tmp_path, monkeypatch):
    for error in (FileNotFoundError(), subprocess.TimeoutExpired("git", 1)):

        def fail(*_args, cause=error, **_options):
            raise cause

        monkeypatch.setattr(info_module.subprocess, "run", fail)
        assert git_state(tmp_path) is None
