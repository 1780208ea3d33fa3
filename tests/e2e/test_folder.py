"""A user's own pictures: mixed formats, sizes and modes, as a folder and as an archive, through the real commands."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from distill.cli import app
from distill.runs import RunFolder

CLASSES = ("blue", "green", "red")
COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 70), "red": (210, 50, 40)}
FORMATS = ("png", "jpg", "webp", "bmp", "gif", "tif")
PER_CLASS = {"train": 24, "test": 8, "val": 4}

TEACHER = """
name: big
role: teacher
data: {name: folder, root: ROOT, image_size: 16, val_fraction: 0.2}
augment: {crop_padding: 2, hflip: 0.5}
model: {source: teachers, name: tiny, input_size: 16}
optim: {name: sgd, lr: 0.1}
train: {epochs: 6, batch_size: 16}
"""
STUDENT = TEACHER.replace("big", "small").replace("role: teacher", "role: student").replace("teachers", "students") + (
    "teacher: {run: big}\nobjective: {kind: kd, ce_weight: 0.5, kd_weight: 0.5, temperature: 2.0}\n"
)


def _picture(rng: np.random.Generator, label: str, number: int) -> Image.Image:
    """Noise around the class's colour, of a size and a mode of its own."""
    height, width = rng.integers(11, 40, 2)
    pixels = np.array(COLOURS[label]) + rng.integers(-40, 41, (height, width, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if number % 6 == 4:
        image.putalpha(200)
    return image


def _write(folder: Path, *, splits: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    for split in splits:
        for label in CLASSES:
            target = folder / split / label
            target.mkdir(parents=True)
            for number in range(PER_CLASS[split]):
                image, suffix = _picture(rng, label, number), FORMATS[number % len(FORMATS)]
                if suffix in ("jpg", "bmp"):
                    image = image.convert("RGB")
                name = f"{number:03d}.{suffix}" if number else "picture of a thing, é.PNG"
                image.save(target / name)
            Image.new("L", (20, 13), 128).save(target / "gray.png")  # the same in every class: nobody can tell


def _invoke(*args: str) -> Result:
    return CliRunner().invoke(app, list(args), catch_exceptions=False)


def _ok(*args: str) -> dict:
    result = _invoke(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The same pictures as a folder, as a folder with ``val/``, and as an archive with one folder above."""
    base = tmp_path_factory.mktemp("pictures")
    _write(base / "plain", splits=("train", "test"))
    _write(base / "with_val", splits=("train", "test", "val"))
    with tarfile.open(base / "plain.tgz", "w:gz") as archive:
        archive.add(base / "plain", arcname="pictures")
    return SimpleNamespace(folder=base / "plain", with_val=base / "with_val", archive=base / "plain.tgz")


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``train(root)`` fine-tunes a teacher and a student on it, and returns their documents."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL_RUNS", raising=False)

    def run(root: Path) -> SimpleNamespace:
        Path("teacher.yaml").write_text(TEACHER.replace("ROOT", str(root)))
        Path("student.yaml").write_text(STUDENT.replace("ROOT", str(root)))
        teacher = _ok("teacher-finetune", "--recipe", "teacher.yaml", "--threads", "1")
        student = _ok("student", "--recipe", "student.yaml", "--threads", "1")
        return SimpleNamespace(teacher=teacher, student=student)

    return run


def _data(run: str) -> dict:
    return json.loads((Path(run) / "run.json").read_text())["data"]


def test_teacher_student_compare_evaluate(places, train) -> None:
    made = train(places.folder)
    data = _data(made.student["run"])
    assert data["classes"] == list(CLASSES)
    assert data["train"] + data["val"] == 3 * (PER_CLASS["train"] + 1)
    assert data["val"] == 3 * 5
    rows = {row["name"]: row for row in _ok("compare", "--no-latency")["rows"]}
    assert rows["big"]["test_top1"] > 0.7, "three colours, and one grey picture in nine that nobody can tell"
    assert rows["small"]["dataset"] == places.folder.name, "no table says 'folder' of it"
    assert rows["small"]["agreement"] is not None
    found = _ok("evaluate", "big")
    assert [entry["label"] for entry in found["per_class"]] == list(CLASSES)
    assert sum(map(sum, found["confusion"])) == 3 * (PER_CLASS["test"] + 1)
    assert found["top5"] is None


def test_an_archive_is_the_folder_that_is_in_it(places, train, tmp_path: Path) -> None:
    """Nothing is unpacked, and both train to the same bytes."""
    from_folder, from_archive = train(places.folder), train(places.archive)
    one, other = (Path(made.student["run"]) for made in (from_folder, from_archive))
    assert _data(str(one))["fingerprint"] == _data(str(other))["fingerprint"]
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert sorted(path.name for path in places.archive.parent.iterdir()) == ["plain", "plain.tgz", "with_val"]
    assert not list(tmp_path.rglob("*.webp"))


def test_an_archive_says_its_own_size_where_none_is_stated(places, tmp_path: Path) -> None:
    """As a folder does: auto is the default."""
    recipe = tmp_path / "teacher.yaml"
    recipe.write_text(
        "schema_version: 1\nname: auto\nrole: teacher\n"
        f"data: {{name: folder, root: '{places.archive}'}}\n"
        "model: {source: teachers, name: tiny}\ntrain: {epochs: 1, batch_size: 16}\n"
    )
    assert _invoke("recipe", "check", str(recipe)).exit_code == 0
    run = _ok("teacher-finetune", "--recipe", str(recipe))["run"]
    folder = _ok("teacher-finetune", "--recipe", str(recipe), "--set", f"data.root={places.folder}")["run"]
    assert RunFolder(Path(run)).recipe().data.image_size == RunFolder(Path(folder)).recipe().data.image_size
    assert _data(run)["fingerprint"] == _data(folder)["fingerprint"]
    assert _invoke("recipe", "check", str(recipe)).exit_code == 0  # now that it is decoded


def test_a_validation_folder_of_its_own_is_used(places, train) -> None:
    made = train(places.with_val)
    data = _data(made.teacher["run"])
    assert (data["train"], data["val"]) == (3 * (PER_CLASS["train"] + 1), 3 * (PER_CLASS["val"] + 1))
    found = _ok("evaluate", "small", "--split", "val")
    assert sum(map(sum, found["confusion"])) == data["val"]


def test_an_unreadable_picture_is_named(places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "own", splits=("train", "test"))
    bad = tmp_path / "own" / "train" / "red" / "broken.png"
    bad.write_bytes(b"no picture")
    Path("teacher.yaml").write_text(TEACHER.replace("ROOT", "own"))
    result = _invoke("teacher-finetune", "--recipe", "teacher.yaml", "--threads", "1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "broken.png" in result.stderr
    skip = ("--set", "data.skip_bad=true", "--set", "train.epochs=1")
    document = _ok("teacher-finetune", "--recipe", "teacher.yaml", "--threads", "1", *skip)
    assert _data(document["run"])["skipped"] == 1


def test_teacher_and_student_of_other_classes_are_refused(places, train, tmp_path: Path) -> None:
    train(places.folder)
    _write(tmp_path / "more", splits=("train", "test"))
    for split in ("train", "test"):
        (tmp_path / "more" / split / "red").rename(tmp_path / "more" / split / "rouge")
    result = _invoke("student", "--recipe", "student.yaml", "--set", "data.root=more", "--threads", "1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "classes" in result.stderr


def test_kept_or_decoded_for_every_batch_they_train_to_the_same_bytes(places, train, tmp_path: Path) -> None:
    made = train(places.folder)
    recipe = Path("student.yaml").read_text().replace("val_fraction", "decoded: per_batch, val_fraction")
    Path("unkept.yaml").write_text(recipe.replace("name: small", "name: unkept"))
    done = _invoke("student", "--recipe", "unkept.yaml", "--threads", "1", "--json")
    assert done.exit_code == 0, done.stderr
    assert "note: decoded images take 0.0 GB: decoded anew for every batch" in done.stderr
    one, other = Path(made.student["run"]), Path(json.loads(done.stdout)["run"])
    for name in ("metrics.jsonl", "checkpoints/last/model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert _data(str(one))["fingerprint"] == _data(str(other))["fingerprint"]
