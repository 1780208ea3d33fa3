"""``distill predict`` on pictures on disk: which files, which classes, what is printed and drawn."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from distill.cli import app
from distill.data.splits import load_splits
from distill.errors import UsageError
from distill.pipeline import Options, RunResult, finetune_teacher, predict
from distill.pipeline.predict import find_pictures
from distill.runs import RunFolder


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *args: CliRunner().invoke(
        app, ["predict", *map(str, args), "--device", "cpu", "--threads", "1"], catch_exceptions=False
    )


@pytest.fixture
def pictures(teacher_run: RunResult, tmp_path: Path) -> Path:
    """Twelve test images as PNG, in folders named by their classes."""
    data = load_splits(RunFolder(teacher_run.run).recipe().data)
    for number, pixels in enumerate(data.test.take(np.arange(12))):
        folder = tmp_path / "pictures" / data.dataset.classes[data.test.labels[number]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{number:02d}.png")
    return tmp_path / "pictures"


def _by_hand(run: Path, pixels: np.ndarray) -> np.ndarray:
    """Probabilities of images ``(B, 3, 32, 32)``, normalised in float64 NumPy and asked in one batch."""
    from distill.models.trained import load_trained

    trained = load_trained(RunFolder(run), device=torch.device("cpu"))
    mean, std = (np.array(v).reshape(3, 1, 1) for v in (trained.normalize.mean, trained.normalize.std))
    logits = trained.module(torch.from_numpy((pixels / 255 - mean) / std).float()).double().numpy()
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def test_the_document_is_the_contract_and_the_numbers_are_the_networks(
    cli, teacher_run: RunResult, pictures: Path
) -> None:
    result = cli(teacher_run.run, pictures, "--top", 3, "--json", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    classes = RunFolder(teacher_run.run).info.data["classes"]
    assert [entry["file"] for entry in document] == sorted(map(str, pictures.rglob("*.png")))
    pixels = np.stack([np.asarray(Image.open(entry["file"])).transpose(2, 0, 1) for entry in document])
    for entry, shares in zip(document, _by_hand(teacher_run.run, pixels), strict=True):
        assert set(entry) == {"file", "top", "label"}
        assert entry["label"] == Path(entry["file"]).parent.name
        expected = [classes[place] for place in np.argsort(-shares)[:3]]
        assert [guess["label"] for guess in entry["top"]] == expected
        assert [guess["probability"] for guess in entry["top"]] == pytest.approx(sorted(shares)[::-1][:3], rel=1e-4)


def test_a_picture_alone_is_taken_for_what_it_is_taken_for_among_others(teacher_run: RunResult, pictures: Path) -> None:
    options = Options(device="cpu", threads=1)
    together = predict(teacher_run.run, [pictures], options=options).rows
    assert len(together) == 12
    for row in together:
        assert predict(teacher_run.run, [row.file], options=options).rows == (row,)


def test_no_more_classes_than_there_are(cli, teacher_run: RunResult, pictures: Path) -> None:
    document = json.loads(cli(teacher_run.run, pictures, "--top", 99, "--json").stdout)
    assert {len(entry["top"]) for entry in document} == {10}
    assert sum(guess["probability"] for guess in document[0]["top"]) == pytest.approx(1)


def test_table_and_csv(cli, teacher_run: RunResult, pictures: Path, tmp_path: Path) -> None:
    result = cli(teacher_run.run, pictures, "--top", 2, "--csv", tmp_path / "out.csv")
    assert result.exit_code == 0
    assert "top 2" in result.stdout
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["rank"] for row in rows] == ["1", "2"] * 12
    assert cli(teacher_run.run, pictures, "--csv", "-").stdout.startswith("file,rank,label,probability")


def test_pictures_are_decoded_as_a_data_set_decodes_them(cli, teacher_run: RunResult, tmp_path: Path) -> None:
    """Large, gray, lying on its side by EXIF, with a palette: each as the same picture prepared by hand."""
    generator = np.random.default_rng(0)
    pixels = np.kron(generator.integers(0, 255, (8, 12, 3), dtype=np.uint8), np.ones((10, 10, 1), dtype=np.uint8))
    large = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter to the right to be upright
    variants = {
        "gray.png": large.convert("L"),
        "palette.png": large.quantize(8),
        "alpha.png": large.convert("RGBA"),
    }
    for name, image in variants.items():
        image.save(tmp_path / name)
        upright = image.convert("RGB").resize((48, 32), Image.Resampling.BILINEAR).crop((8, 0, 40, 32))
        upright.save(tmp_path / f"{Path(name).stem}_by_hand.png")
    large.save(tmp_path / "turned.png", exif=exif)
    turned = large.transpose(Image.Transpose.ROTATE_270).resize((32, 48), Image.Resampling.BILINEAR)
    turned.crop((0, 8, 32, 40)).save(tmp_path / "turned_by_hand.png")
    found = {Path(e["file"]).stem: e["top"] for e in json.loads(cli(teacher_run.run, tmp_path, "--json").stdout)}
    assert len(found) == 8
    for name in ("gray", "palette", "alpha", "turned"):
        assert found[name] == found[f"{name}_by_hand"]


def test_which_files(cli, teacher_run: RunResult, pictures: Path, tmp_path: Path) -> None:
    """Folders to any depth and through links, hidden files not, nothing twice, and a file by any name."""
    (pictures / "up").symlink_to(pictures)
    deep = pictures / "a" / "b"
    deep.mkdir(parents=True)
    first = next(pictures.glob("*/*.png"))
    for name in ("deep.PNG", ".hidden.png", "notes.txt"):
        (deep / name).write_bytes(first.read_bytes())
    odd = tmp_path / "odd name.img"
    odd.write_bytes(first.read_bytes())
    result = cli(teacher_run.run, odd, pictures, pictures, first, "--json")
    files = [entry["file"] for entry in json.loads(result.stdout)]
    assert len(files) == len(set(files)) == 14
    assert files[0] == str(odd)
    assert str(deep / "deep.PNG") in files


def test_one_picture_by_two_names_is_predicted_once(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = next(pictures.glob("*/*.png"))
    monkeypatch.chdir(one.parent)
    found = find_pictures([one.name, f"./{one.name}", str(one), "."])
    assert found[0] == one.name
    assert sorted(Path(each).name for each in found) == sorted(each.name for each in one.parent.glob("*.png"))


@pytest.mark.parametrize("top", [0, -1])
def test_at_least_one_class(teacher_run: RunResult, pictures: Path, top: int) -> None:
    with pytest.raises(UsageError, match="top"):
        predict(teacher_run.run, [pictures], top=top)


def test_bad_files_are_named_and_the_others_predicted(cli, teacher_run: RunResult, pictures: Path) -> None:
    (pictures / "empty.png").touch()
    (pictures / "cut.png").write_bytes(next(pictures.glob("*/*.png")).read_bytes()[:200])
    (pictures / "text.jpg").write_text("no picture")
    (pictures / "gone.png").symlink_to("nowhere")
    result = cli(teacher_run.run, pictures, "--json", "--quiet")
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)) == 12
    assert "4 of 16 files could not be used" in result.stderr
    for name in ("empty.png: empty file", "text.jpg: not a PNG", "gone.png: cannot be read", "cut.png: "):
        assert name in result.stderr


@pytest.mark.parametrize(
    ("name", "message", "code"), [("nowhere.png", "does not exist", 2), ("empty", "no picture in", 1)]
)
def test_nothing_to_look_at_is_said_before_anything_is_loaded(
    cli, tmp_path: Path, name: str, message: str, code: int
) -> None:
    (tmp_path / "empty").mkdir()
    result = cli("no_such_run", tmp_path / name)
    assert result.exit_code == code
    assert message in result.stderr


def test_an_address_is_told_as_it_was_typed(cli) -> None:
    result = cli("no_such_run", "https://example.com/a.png")
    assert result.exit_code == 2
    assert "https://example.com/a.png does not exist" in result.stderr
    assert "download it first" in result.stderr


def test_a_teacher_is_asked_too_and_disagreements_come_first(
    cli, teacher_run: RunResult, train, pictures: Path, tmp_path: Path
) -> None:
    student = train("teacher.logits=live").run
    grid = tmp_path / "grid.png"
    result = cli(student, pictures, "--teacher", teacher_run.run, "--grid", grid, "--json")
    assert result.exit_code == 0
    alone = {entry["file"]: entry["top"][0] for entry in json.loads(cli(teacher_run.run, pictures, "--json").stdout)}
    for entry in json.loads(result.stdout):
        assert entry["teacher"] == alone[entry["file"]]
    with Image.open(grid) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300


def test_a_teacher_of_other_classes_is_refused(cli, teacher_run: RunResult, pictures: Path, tmp_path: Path) -> None:
    from distill.recipe import load_recipe

    digits = load_recipe("quickstart_teacher", ["train.epochs=1", "data.limit=100", "data.test_limit=50"])
    other = finetune_teacher(digits, options=Options(runs_dir=tmp_path / "runs", threads=1)).run
    result = cli(teacher_run.run, pictures, "--teacher", other)
    assert result.exit_code == 2
    assert "know different classes" in result.stderr


def test_a_table_never_replaces_what_is_none(cli, teacher_run: RunResult, pictures: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,label\na.png,cat\n")
    result = cli(teacher_run.run, pictures, "--csv", table)
    assert (result.exit_code, table.read_text()) == (2, "file,label\na.png,cat\n")
    assert "--overwrite" in result.stderr
    assert cli(teacher_run.run, pictures, "--csv", table, "--overwrite").exit_code == 0
    assert cli(teacher_run.run, pictures, "--csv", table).exit_code == 0
    assert table.read_text().startswith("file,rank,label,")


def test_the_grid_never_replaces_what_distill_did_not_draw(cli, teacher_run: RunResult, pictures: Path) -> None:
    precious = next(pictures.glob("*/*.png"))
    before = precious.read_bytes()
    result = cli(teacher_run.run, pictures, "--grid", precious)
    assert result.exit_code == 2
    assert "distill did not draw it" in result.stderr
    assert precious.read_bytes() == before
    assert cli(teacher_run.run, pictures, "--grid", "grid.gif").exit_code == 2
    assert cli(teacher_run.run, pictures, "--grid", pictures / "grid.png").exit_code == 0
    again = cli(teacher_run.run, pictures, "--grid", pictures / "grid.png", "--json")
    assert again.exit_code == 0
    assert len(json.loads(again.stdout)) == 12  # its own picture is no input
    assert cli(teacher_run.run, pictures, "--grid", precious, "--overwrite").exit_code == 0
    assert precious.read_bytes() != before


def test_a_grid_of_large_pictures_stays_small(cli, teacher_run: RunResult, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    grid = tmp_path / "grid.svg"
    assert cli(teacher_run.run, tmp_path / "large.png", "--grid", grid).exit_code == 0
    assert grid.stat().st_size < 400_000


def test_a_pipe_gets_every_file_on_one_line(
    monkeypatch: pytest.MonkeyPatch, teacher_run: RunResult, pictures: Path
) -> None:
    """Whoever reads a pipe splits it at ends of lines; and a GIF and a TIFF are pictures."""
    deep = pictures / ("a_folder_with_a_name_that_is_long/" * 6)
    deep.mkdir(parents=True)
    for number, name in enumerate(("still.gif", "scan.TIF", "scan.tiff")):
        Image.open(sorted(pictures.rglob("*.png"))[number]).save(deep / name)
    monkeypatch.delenv("COLUMNS", raising=False)
    command = ["predict", str(teacher_run.run), str(pictures), "--device", "cpu", "--threads", "1"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    shown = [line.split("  ")[0].rstrip() for line in result.stdout.splitlines()[2:]]
    assert sorted(shown) == sorted(str(path) for path in pictures.rglob("*.*"))
