"""The comparison with other frameworks, without measuring anything: what is asked, and what is made of the answers."""

from __future__ import annotations

import json
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.peers import contestant, turns
from benchmarks.peers.__main__ import main, parse
from benchmarks.peers.contestant import Cost
from benchmarks.peers.document import build_document, ratios, render
from benchmarks.peers.frameworks import FRAMEWORKS, TimmTask
from benchmarks.peers.ours import Ours
from benchmarks.peers.picture import draw_comparison
from benchmarks.peers.setting import CE_WEIGHT, PAIRS, TEMPERATURE, Setting, reference_loss
from benchmarks.peers.turns import NAMES, Entry, take_turns
from distill.devices import Precision
from distill.models import params_of
from distill.teaching.bank import Bank
from students import STUDENTS
from teachers import TEACHERS

SETTING = Setting(images=100, batch=50, rounds=2)
CHECKS = {"teacher_unchanged": True, "student_moved": True}


def _entry(name: str, cpu_s: list[float], **about: object) -> Entry:
    rounds = [Cost(seconds, 2 * seconds, loss) for seconds, loss in zip(cpu_s, (0.5, 0.4), strict=True)]
    about = {"version": "1.0", "loss_difference": 0.0} | about
    return Entry(name, about=about, warmup=Cost(3.0, 7.0, 0.9), rounds=rounds, checks=CHECKS)


def _entries() -> list[Entry]:
    return [
        _entry("distill", [1.0, 2.0], bank=Cost(1.5, 3.0)),
        _entry("distill, live", [2.5, 5.0]),
        _entry("torchdistill", [4.0, 8.0]),
        _entry("timm.task", [3.0, 7.0]),
        Entry("modelopt", missing="ModuleNotFoundError: No module named 'modelopt'"),
    ]


def test_the_document_names_the_best_peer_and_the_ratio_to_it() -> None:
    document = json.loads(json.dumps(build_document(SETTING, _entries(), {"cpu": "x", "versions": {}})))
    assert document["best_peer"] == "timm.task"
    assert document["ratio_to_best_peer"] == pytest.approx((3.0 + 3.5) / 2)
    assert document["ratios"]["timm.task"] == pytest.approx(
        {"median": 3.25, "min": 3.0, "max": 3.5, "wall_median": 3.25}
    )
    assert list(document["missing"]) == ["modelopt"]
    rows = {row["name"]: row for row in document["rows"]}
    assert set(rows) == {*NAMES} - {"modelopt"}
    assert rows["distill"]["images_per_cpu_s"] == pytest.approx((100 + 50) / 2)
    assert rows["distill"]["images_per_s"] == pytest.approx((50 + 25) / 2)
    assert rows["timm.task"]["loss_falls"] is True
    assert rows["timm.task"]["warmup_s"] == 0.0  # later epochs took longer than the first


def test_a_bank_is_repaid_by_what_each_epoch_saves() -> None:
    bank = build_document(SETTING, _entries(), {})["bank"]
    assert bank["cpu_us_per_image_and_view"] == pytest.approx(1.5 / 100 * 1e6)
    # medians: distill 1.5 s, live 3.75 s, the best peer 5 s an epoch; a view cost 1.5 s
    assert bank["epochs_to_repay_a_view_against_live"] == pytest.approx(1.5 / 2.25)
    assert bank["epochs_to_repay_a_view_against_best_peer"] == pytest.approx(1.5 / 3.5)
    assert bank["ratio_to_best_peer_when_every_epoch_builds_its_view"] == pytest.approx(5.0 / 3.0)


def test_the_best_peer_is_the_one_that_distill_is_least_ahead_of_round_by_round() -> None:
    """One with a quick round and a slow one has the higher median rate (30.6 against 29.2) and is no better."""
    entries = [
        _entry("distill", [1.0, 1.0], bank=Cost(1.5, 3.0)),
        _entry("torchdistill", [2.0, 9.0]),
        _entry("timm.task", [3.0, 4.0]),
    ]
    document = build_document(SETTING, entries, {})
    assert document["best_peer"] == "timm.task"
    assert document["ratio_to_best_peer"] == pytest.approx(3.5)
    assert document["bank"]["ratio_to_best_peer_when_every_epoch_builds_its_view"] == pytest.approx(3.5 / 2.5)


def test_without_peers_there_is_no_best_one() -> None:
    document = build_document(SETTING, _entries()[:2], {})
    assert document["best_peer"] is None
    assert document["ratio_to_best_peer"] is None


def test_the_document_names_no_folder() -> None:
    setting = Setting(data="/home/someone/data")
    assert build_document(setting, _entries(), {})["setting"]["data"] == "cifar10"


def test_the_table_has_a_row_for_everyone_present() -> None:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(build_document(SETTING, _entries(), {})))
    text = console.export_text()
    assert all(name in text for name in ("distill, live", "torchdistill", "timm.task"))
    assert "3.25" in text
    console.file.close()


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    path = draw_comparison(build_document(SETTING, _entries(), {}), tmp_path / "peers.svg")
    assert path.read_text().startswith("<?xml")


class _Pipe:
    """Answers as a process would; the log is everybody's."""

    def __init__(self, name: str, log: list[tuple[str, str]]) -> None:
        self.name, self.log = name, log
        self.answers: list[object] = [{"missing": "no"} if name == "modelopt" else {"ready": {"version": "1"}}]

    def send(self, what: str) -> None:
        self.log.append((self.name, what))
        self.answers.append(CHECKS if what == "end" else Cost(1.0, 1.0, 0.1))

    def recv(self) -> object:
        return self.answers.pop(0)


def test_turns_rotate_and_the_missing_one_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, str]] = []

    @contextmanager
    def process(serve, name, setting):
        yield _Pipe(name, log)

    monkeypatch.setattr(turns, "_process", process)
    entries = take_turns(SETTING, ["distill", "timm.task", "modelopt"], contestant.serve)
    assert [name for name, what in log if what == "epoch"] == [
        *("distill", "timm.task"),  # the first epochs are in no average
        *("distill", "timm.task"),
        *("timm.task", "distill"),
    ]
    assert [len(entry.rounds) for entry in entries] == [2, 2, 0]
    assert entries[0].checks == CHECKS


def test_a_contestant_that_fails_ends_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(_Pipe):
        def recv(self) -> object:
            return {"failed": "Traceback: out of memory"}

    @contextmanager
    def process(serve, name, setting):
        yield Failing(name, [])

    monkeypatch.setattr(turns, "_process", process)
    with pytest.raises(RuntimeError, match="out of memory"):
        take_turns(SETTING, ["distill"], contestant.serve)


def test_the_reference_loss_is_the_hand_computed_one() -> None:
    student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    p, q = (
        np.exp(z / TEMPERATURE) / np.exp(z / TEMPERATURE).sum() for z in (np.array([0.0, 4.0]), np.array([2.0, 0.0]))
    )
    divergence = (p * np.log(p / q)).sum() * TEMPERATURE**2
    cross_entropy = np.log(1 + np.exp(2.0))  # of label 1
    expected = CE_WEIGHT * cross_entropy + (1 - CE_WEIGHT) * divergence
    assert reference_loss(student, teacher, torch.tensor([1])) == pytest.approx(expected, rel=1e-6)


TINY = {"input_size": 32, "width": 8, "norm": True, "dropout": 0.0}


def test_a_peer_minimises_that_loss_and_trains_the_student_alone() -> None:
    """timm is a dependency, so this one is always here; the others are checked in every run of the benchmark."""
    setting = Setting(images=64, batch=32, workers=0)
    student = STUDENTS["tiny"](num_classes=10, **TINY)
    teacher = TEACHERS["tiny"](num_classes=10, **TINY).eval().requires_grad_(False)
    copies = deepcopy(student), deepcopy(teacher)
    framework = TimmTask(setting, student, teacher)
    assert contestant._loss_difference(framework, setting, *copies) < 1e-5
    contestant._epoch(framework, setting, torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), copies[1].parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(student.parameters(), copies[0].parameters(), strict=True))


@pytest.mark.parametrize(("asked_in", "runtime"), [("fp32", "onnxruntime"), ("bf16", "torch")])
def test_our_own_contestants_train_alike_and_leave_the_teacher_alone(
    tmp_path: Path, asked_in: str, runtime: str
) -> None:
    """Through the library's own pieces, so that a change of theirs shows here; live and bank are the same bytes."""
    setting = Setting(images=8, batch=4, rounds=1, asked_in=asked_in)
    assert setting.recipe.teacher_runtime == runtime
    live, bank = Ours(setting, logits="live"), Ours(setting, logits="bank")
    for _ in bank.fill_bank(tmp_path / "bank"):
        pass
    assert Bank.open(tmp_path / "bank").info.key.teacher.precision == asked_in
    losses = list(live.epochs())
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert losses == list(bank.epochs())
    assert live.teacher_is_unchanged()


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_are_the_recipes_networks(pair: str) -> None:
    setting = Setting(pair=pair)
    params = {"resnet56-resnet20": 269_722, "resnet152-r18_small": 4_935_242}
    assert params_of(setting.recipe.model, 10) == params[pair]
    assert setting.recipe.objective.ce_weight == CE_WEIGHT
    assert setting.recipe.augment.crop_fill == "zero"  # as torchvision's RandomCrop


def test_help_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "--pair" in capsys.readouterr().out
    assert parse(["--pair", "resnet152-r18_small", "--rounds", "3"]).rounds == 3
    assert set(FRAMEWORKS) < set(NAMES)


def test_both_ratios_are_told_in_a_line() -> None:
    line = ratios(build_document(SETTING, _entries(), {}))
    assert line.startswith("best peer: timm.task; distill does 3.25 times")
    assert line.endswith("and 1.67 times where one student pays for every view of it")  # 5 s over 3 s
    assert "no ratio" in ratios(build_document(SETTING, _entries()[:2], {}))


def test_without_every_switch_all_train_in_fp32_and_with_it_auto_decides() -> None:
    assert Setting().recipe.train.precision == "fp32"
    assert Setting(peers_bf16=True).recipe.train.precision == "auto"
    assert Setting().recipe.teacher.runtime == "onnxruntime"
    assert Setting(device="cuda").recipe.teacher.runtime == "torch"


def test_every_switch_gives_the_peers_layout_and_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr("benchmarks.peers.__main__.resolve_precision", lambda name, device: Precision("bf16"))
    monkeypatch.setattr("benchmarks.peers.__main__.take_turns", lambda setting, *_: given.append(setting) or _entries())
    main(["--peers-every-switch", "--json"])
    assert (given[0].peers_channels_last, given[0].peers_bf16) == (True, True)
    monkeypatch.setattr(
        "benchmarks.peers.__main__.resolve_precision", lambda name, device: Precision("bf16", "emulated")
    )
    with pytest.raises(SystemExit, match="emulates bf16"):
        main(["--peers-every-switch"])
