"""A teacher is asked once: what the bank gives is, to the byte, what asking live gives."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.comparison import compare
from distill.data.splits import load_splits
from distill.errors import DistillError, MissingError, RunError, UsageError
from distill.models.trained import load_trained
from distill.pipeline import Options, RunResult, build_bank, dry_run, finetune_teacher, rerun, train_student
from distill.recipe import load_recipe
from distill.runs import RunFolder, lock
from distill.teaching.bank import Bank
from distill.teaching.bank_info import BankInfo, chunk_bounds
from distill.teaching.build import fill_bank, new_bank
from distill.teaching.identity import Identity, identity_of
from distill.teaching.key import BankKey, bank_key

CPU = torch.device("cpu")

AUGMENTATIONS = {
    "crop and flip": (),
    "erase and rotate": ("augment.erase={size: 8}", "augment.rotation=15"),
    "mixup and cutmix": ("augment.mixup={alpha: 0.4}", "augment.cutmix={alpha: 1.0, probability: 0.5}"),
    "resized crop": ("augment.crop_padding=0", "augment.resized_crop={scale: [0.5, 1.0]}"),
    "all crops and flips": ("augment.crop_padding=1", "augment.views=all"),
    "two views for three epochs": ("augment.views=2",),
}


def _weights(run: Path) -> bytes:
    return (run / "checkpoints" / "last" / "model.safetensors").read_bytes()


def _bank_of(run: Path) -> Path:
    return Path(RunFolder(run).info.teacher["bank"])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS.values(), ids=AUGMENTATIONS.keys())
def test_bank_and_live_train_to_the_same_bytes(train, augmentation, dtype: str) -> None:
    settings = (*augmentation, f"teacher.logits_dtype={dtype}")
    live = train(*settings, "teacher.logits=live")
    bank = train(*settings, "teacher.logits=bank")
    assert RunFolder(bank.run).info.data["train"] == 135  # which batches of 40 do not divide
    assert RunFolder(live.run).info.teacher["logits"] == "live"
    assert RunFolder(bank.run).info.teacher["logits"] == "bank"
    assert _weights(live.run) == _weights(bank.run)
    assert (live.run / "metrics.jsonl").read_bytes() == (bank.run / "metrics.jsonl").read_bytes()


def test_the_teacher_matters(train) -> None:
    """The comparison above could not fail if the teacher's logits had no say."""
    one = train("teacher.logits=live", "objective.kd_weight=0.0")
    two = train("teacher.logits=live")
    assert _weights(one.run) != _weights(two.run)


def test_seeds_and_temperatures_share_one_bank_and_views_extend_it(train) -> None:
    first = train("teacher.logits=bank", "augment.view_seed=5")
    bank = Bank.open(_bank_of(first.run))
    assert bank.info.views == 3
    stamps = {name: (bank.path / name).stat().st_mtime_ns for name in bank.info.checksums}
    other = train("augment.view_seed=5", "train.seed=1", "objective.temperature=3.0", "train.epochs=4")
    assert _bank_of(other.run) == bank.path
    longer = Bank.open(bank.path)
    assert longer.info.views == 4
    assert {name: (bank.path / name).stat().st_mtime_ns for name in stamps} == stamps


def test_a_named_bank_needs_no_teacher_and_compare_knows_what_it_left(train, student_recipe, tmp_path: Path) -> None:
    taught = train("teacher.logits=bank", "augment.view_seed=6")
    travelled = tmp_path / "laptop" / "bank"
    shutil.copytree(_bank_of(taught.run), travelled)
    recipe = student_recipe("augment.view_seed=6", f"teacher={{bank: '{travelled}'}}", "name=far")
    far = train_student(recipe, options=Options(runs_dir=tmp_path / "laptop" / "runs", threads=1))
    assert _weights(far.run) == _weights(taught.run)
    table = compare(runs_dir=tmp_path / "laptop" / "runs", latency=False)
    near = compare([taught.run], latency=False)
    assert [row.role for row in table.rows] == ["teacher", "student"]
    assert table.rows[0].run == str(travelled)
    assert table.rows[1].delta_top1 == pytest.approx(near.rows[0].delta_top1)
    assert table.rows[1].agreement == near.rows[0].agreement


def test_a_bank_of_another_teacher_at_its_place_is_not_the_one_it_learned_from(
    train, student_recipe, teacher_recipe, tmp_path: Path
) -> None:
    options = Options(runs_dir=tmp_path / "runs", threads=1)
    place = tmp_path / "bank"
    shutil.copytree(_bank_of(train("teacher.logits=bank", "augment.view_seed=6").run), place)
    recipe = student_recipe("augment.view_seed=6", f"teacher={{bank: '{place}'}}")
    far = train_student(recipe, options=options).run
    assert compare([far], latency=False).rows[-1].delta_top1 is not None
    other = finetune_teacher(teacher_recipe("name=other", "train.epochs=1", "train.seed=9"), options=options).run
    shutil.rmtree(place)
    build_bank(student_recipe("augment.view_seed=6"), teacher=other, path=place, options=options)
    table = compare([far], latency=False)
    assert [(row.name, row.delta_top1, row.agreement) for row in table.rows] == [("tiny_student", None, None)]
    assert sum("holds another teacher's answers now" in note for note in table.notes) == 2


def test_of_two_banks_where_one_was_named_it_is_the_one_that_was_learned_from(
    train, student_recipe, teacher_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    shutil.copytree(_bank_of(train("teacher.logits=bank", "augment.view_seed=6").run), ours / "bank")
    monkeypatch.chdir(ours)
    recipe = student_recipe("augment.view_seed=6", "teacher={bank: bank}", "train.epochs=1")
    options = Options(runs_dir=Path("runs"), threads=1)
    run = (ours / train_student(recipe, options=options).run).resolve()
    theirs.mkdir()
    monkeypatch.chdir(theirs)
    other = finetune_teacher(teacher_recipe("name=other", "train.epochs=1", "train.seed=9"), options=options).run
    build_bank(student_recipe("augment.view_seed=6"), teacher=other, path=Path("bank"), options=options)
    assert compare([run], latency=False).rows[-1].delta_top1 is not None
    assert rerun(run, options=options).differences == ()


def test_a_dry_run_reads_a_bank_that_is_named(train, student_recipe, tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path / "dry", threads=1)
    bank = _bank_of(train("teacher.logits=bank", "augment.view_seed=6").run)
    report = dry_run(student_recipe("augment.view_seed=6", f"teacher={{bank: '{bank}'}}"), options=options)
    assert (report.teacher, report.steps_per_epoch) == ("tiny_teacher", 4)
    with pytest.raises(MissingError, match="is not a bank"):
        dry_run(student_recipe("teacher={bank: nowhere}"), options=options)
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("augment.crop_padding=3", "augment.crop_padding: 3, in the bank 2"),
        ("augment.view_seed=8", "view_seed: 8, in the bank 7"),
        ("data.split_seed=1", "data: "),
        ("teacher.logits_dtype=float32", "dtype: float32, in the bank float16"),
        ("train.epochs=9", "holds 3 views, the recipe shows 9"),
    ],
)
def test_a_bank_that_does_not_fit_is_refused_by_the_part_that_differs(
    train, student_recipe, tmp_path: Path, override: str, part: str
) -> None:
    bank = _bank_of(train("teacher.logits=bank", "augment.view_seed=7").run)
    recipe = student_recipe("augment.view_seed=7", f"teacher={{bank: '{bank}'}}", override)
    with pytest.raises(UsageError) as caught:
        train_student(recipe, options=Options(runs_dir=tmp_path / "runs", threads=1))
    assert part in caught.value.message


def test_an_ensemble_of_one_bank_twice_is_that_bank(train, student_recipe, tmp_path: Path) -> None:
    single = train("teacher.logits=bank", "teacher.logits_dtype=float32")
    bank = _bank_of(single.run)
    banks = f"teacher={{banks: [{{path: '{bank}', weight: 1}}, {{path: '{bank}', weight: 3}}], logits_dtype: float32}}"
    both = train_student(student_recipe(banks), options=Options(runs_dir=tmp_path / "runs", threads=1))
    ours = RunFolder(both.run).metrics()[-1]
    theirs = RunFolder(single.run).metrics()[-1]
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)


def test_bank_logits_are_the_teachers_own(train, teacher_run) -> None:
    """Against the network asked by hand, one image at a time, on pixels cut and flipped with NumPy."""
    run = RunFolder(train("teacher.logits=bank", "augment.view_seed=9", "augment.crop_padding=0").run)
    bank = Bank.open(_bank_of(run.path))
    teacher = load_trained(RunFolder(teacher_run.run), device=CPU)
    recipe, splits = run.recipe(), load_splits(run.recipe().data)
    from distill.data.views import plan_view

    view = plan_view(recipe.augment, n=len(splits.train), image_size=32, view=1)
    pixels = splits.train.take(np.arange(5))
    for index in range(5):
        image = pixels[index][:, :, ::-1] if view.hflip[index] else pixels[index]
        mean, std = (np.array(v).reshape(3, 1, 1) for v in (teacher.normalize.mean, teacher.normalize.std))
        inputs = torch.from_numpy((image / 255 - mean) / std).float()[None]
        expected = teacher.module(inputs)[0].numpy()
        assert bank.view(1)[index].astype(np.float32) == pytest.approx(expected, abs=2e-3, rel=2e-3)


def _key(*, classes: int = 10, dtype: str = "float16") -> BankKey:
    teacher = Identity("a" * 64, "b" * 64, (0.5,) * 3, (0.25,) * 3, 32, "fp32", tuple(map(str, range(classes))))
    return BankKey(teacher, "d", 32, {"hflip": 0.5}, 0, 1, dtype)


def _small_bank(path: Path) -> Bank:
    return Bank.create(path, BankInfo(key=_key(), images=6, runtime={"name": "torch"}))


def test_what_a_builder_left_that_died_at_its_last_act_is_cleared(train: Callable[..., RunResult]) -> None:
    bank = Path(RunFolder(train("teacher.logits=bank", "train.epochs=1").run).info.teacher["bank"])
    before = sorted(bank.rglob("*"))
    dead = {"pid": 4_000_000, "host": platform.node(), "boot": lock._boot_id(), "process_start": 1, "since": ""}
    (bank / "lock.json").write_text(json.dumps(dead | {"token": "t"}))
    (bank / "views" / ".00000-000.npy.0123456789ab.partial").write_text("half")
    train("teacher.logits=bank", "train.epochs=1")
    assert sorted(bank.rglob("*")) == before


def test_a_build_that_stopped_goes_on_where_it_was(train, teacher_run, tmp_path: Path) -> None:
    recipe = train("teacher.logits=live", "augment.view_seed=11").run
    recipe = RunFolder(recipe).recipe()
    teacher, splits = load_trained(RunFolder(teacher_run.run), device=CPU), load_splits(recipe.data)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    key = bank_key(recipe, splits, identity_of(teacher))
    for _ in fill_bank(new_bank(whole, key, splits, recipe, CPU), teacher, splits, recipe, views=3):
        pass
    for event in fill_bank(new_bank(cut, key, splits, recipe, CPU), teacher, splits, recipe, views=3):
        if getattr(event, "done", 0) > len(splits.train) * 1.5:
            break  # in the middle of the second view
    assert Bank.open(cut).info.views == 1
    for _ in fill_bank(Bank.open(cut), teacher, splits, recipe, views=3):
        pass
    assert {n: c for n, c in Bank.open(cut).info.checksums.items()} == Bank.open(whole).info.checksums
    assert Bank.open(cut).info.plans == Bank.open(whole).info.plans


def test_no_file_of_a_large_bank_is_over_15_mb() -> None:
    info = BankInfo(key=_key(classes=1000, dtype="float32"), images=1_281_167, runtime={})
    bounds = chunk_bounds(info)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == info.images
    assert all(one[1] == two[0] for one, two in pairwise(bounds))
    assert max(end - start for start, end in bounds) * 4000 + 128 <= 15_000_000


def test_a_flipped_bit_is_found_and_a_cut_file_is_refused(tmp_path: Path) -> None:
    bank = _small_bank(tmp_path / "bank")
    bank.put(0, 0, np.ones((6, 10), dtype=np.float16), "plan")
    file = bank.path / "views" / "00000-000.npy"
    assert bank.damaged_files() == []
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert bank.damaged_files() == ["views/00000-000.npy"]
    file.write_bytes(content[:-20])
    with pytest.raises(RunError, match=r"00000-000\.npy is damaged: its bytes"):
        Bank.open(bank.path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', "\x00", '{"format": 2, "key": {}}'])
def test_a_damaged_description_is_one_clear_error(tmp_path: Path, text: str) -> None:
    bank = _small_bank(tmp_path / "bank")
    (bank.path / "bank.json").write_text(text)
    with pytest.raises(DistillError, match=r"bank\.json"):
        Bank.open(bank.path)


def test_a_bank_of_an_older_format_is_refused_in_one_line(tmp_path: Path) -> None:
    bank = _small_bank(tmp_path / "bank")
    (bank.path / "bank.json").write_text('{"format": 1, "key": {"teacher": "t"}, "images": 6}')
    with pytest.raises(RunError) as caught:
        Bank.open(bank.path)
    assert caught.value.message == f"{bank.path / 'bank.json'} has format 1, and this version of distill reads 2"
    assert caught.value.hint == f"distill cache clear {bank.path}, then build it again"


def test_what_computed_the_answers_is_recorded_and_more_are_not_asked_through_something_else(
    train, teacher_run, tmp_path: Path
) -> None:
    bank = Bank.open(_bank_of(train("teacher.logits=bank", "augment.view_seed=15").run))
    assert bank.info.runtime == {"name": "torch", "version": torch.__version__, "device_type": "cpu"}
    strange = Bank(bank.path, replace(bank.info, runtime={"name": "abacus"}))
    strange._write_info()
    assert train("augment.view_seed=15").status == "finished"  # what is complete is read, whatever answered
    with pytest.raises(UsageError, match="was asked through abacus, and would go on through torch"):
        train("augment.view_seed=15", "train.epochs=5", "teacher.logits=bank")


def test_auto_asks_live_where_no_bank_can_be_written(train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    info = RunFolder(train("augment.view_seed=77").run).info
    assert info.choices["teacher.logits"] == "live"
    assert info.choices["teacher.logits_why"].startswith("no bank can be written below ")


def test_auto_takes_the_bank_and_says_why(train) -> None:
    info = RunFolder(train("augment.view_seed=12").run).info
    assert info.choices["teacher.logits"] == "bank"
    assert "3 views for 3 epochs" in info.choices["teacher.logits_why"]
    assert json.loads((Path(info.teacher["bank"]) / "bank.json").read_text())["views"] >= 3


def test_key_names_every_part_that_differs() -> None:
    one = _key()
    two = replace(one, image_size=64, augment={"hflip": 0.0}, applied=2)
    assert one.differences(two) == [
        "image_size: 32, in the bank 64",
        "augment.hflip: 0.5, in the bank 0.0",
        "applied: 1, in the bank 2",
    ]
    other = replace(one, teacher=replace(one.teacher, architecture="c" * 64))
    assert one.differences(other) == ["teacher.architecture: bbbbbbbbbbbb, in the bank cccccccccccc"]
    assert replace(one, teacher=None).differences(other, teachers_own=False) == []
    parts = [replace(one, **{name: None}) for name in ("data", "view_seed", "applied", "dtype")]
    parts += [replace(one, teacher=replace(one.teacher, **{item.name: None})) for item in fields(Identity)]
    assert len({key.digest() for key in (one, two, *parts)}) == 2 + 4 + 7


def test_a_recipe_without_a_teacher_asks_none(train) -> None:
    with pytest.raises(UsageError, match="asks no teacher"):
        train_student(load_recipe("quickstart_scratch"), teacher="x")


def test_views_that_are_drawn_otherwise_now_are_refused(train, student_recipe, tmp_path: Path, monkeypatch) -> None:
    bank = _bank_of(train("teacher.logits=bank", "augment.view_seed=13").run)
    monkeypatch.setattr("distill.pipeline.source.view_checksum", lambda view: "of another version")
    recipe = student_recipe("augment.view_seed=13", f"teacher={{bank: '{bank}'}}")
    with pytest.raises(UsageError, match="was drawn otherwise"):
        train_student(recipe, options=Options(runs_dir=tmp_path / "runs", threads=1))


def test_a_view_in_several_files_teaches_the_same(train, student_recipe, tmp_path: Path, monkeypatch) -> None:
    """Views larger than one file, and a bank that is too large to lie in memory whole."""
    plain = train("teacher.logits=bank", "augment.view_seed=14")
    monkeypatch.setattr("distill.teaching.bank_info._CHUNK_BYTES", 256 + 20 * 50)
    monkeypatch.setattr("distill.teaching.stored._RESIDENT_BYTES", {"cpu": 0})
    shutil.rmtree(_bank_of(plain.run))
    cut = train("teacher.logits=bank", "augment.view_seed=14")
    assert len(list((_bank_of(cut.run) / "views").glob("00000-*.npy"))) == 3
    assert _weights(cut.run) == _weights(plain.run)
