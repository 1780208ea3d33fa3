"""Images of one's own: what code gives is decoded once, and then is a data set like any other."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from typer.testing import CliRunner

from distill import code, compare, evaluate, offer_data
from distill.cli import app
from distill.data import own_given
from distill.data.array_cache import arrays_folder
from distill.data.dataset_digest import digests_held
from distill.data.datasets import load_dataset, num_classes
from distill.data.own_given import pixels_of
from distill.errors import DataError, MissingError
from distill.pipeline import Options, RunResult, finetune_teacher, resume_run, train_student
from distill.pipeline.context import prepare
from distill.pipeline.own import with_own
from distill.recipe import Recipe, load_recipe
from distill.recipe.own import OwnOptions
from distill.recipe.schema import DataSpec
from distill.runs import RunFolder

MINE = """
from pathlib import Path

import numpy as np

Path("it_ran").touch()


def images(count, seed):
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    noise = draw.integers(0, 80, (count, 12, 12, 3), dtype=np.uint8)
    return noise + (60 * labels[:, None, None, None]).astype("u1"), labels


def make(count=90, **options):
    return {"train": images(count, 0), "test": images(30, 1), "classes": ["dark", "grey", "bright"], **options}


class Pairs:
    def __init__(self, count=60):
        self.images, self.labels = images(count, 2)
        self.classes = ["dark", "grey", "bright"]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, at):
        asked = Path("asked")
        asked.write_text((asked.read_text() if asked.exists() else "") + f"{at}\\n")
        return self.images[at], int(self.labels[at])


def fails():
    raise FileNotFoundError("no such disk")


def gives_text():
    return "images"


def too_many_labels():
    return images(20, 0)[0], np.arange(21)


def without_classes():
    return [(np.zeros((8, 8), "u1"), 0)]


def floats():
    return images(20, 0)[0].astype("f4") / 255 - 0.5, images(20, 0)[1]


NUMBER = 3
"""

RECIPE = """
schema_version: 1
name: own
role: baseline
data: {name: python, code: "mine:make", options: {count: 60}, image_size: 12, val_fraction: 0.2}
model: {source: students, name: tiny, input_size: 12}
optim: {name: sgd, lr: 0.05}
train: {epochs: 2, batch_size: 16}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leave: None) -> Path:
    """A working folder with mine.py and a recipe, of a process that gave no leave, with a cache of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (folder / "own.yaml").write_text(RECIPE)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return folder


def _distill(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def _spec(reference: str, **more: object) -> DataSpec:
    return DataSpec(name="python", code=reference, image_size=12, **more)


def _images(count: int = 45, side: int = 12) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(3)
    labels = np.arange(count) % 3
    return draw.integers(0, 256, (count, side, side, 3), dtype=np.uint8), labels


ABC = {"classes": ["a", "b", "c"]}


def _top1(run: RunResult) -> float:
    return evaluate(run, again=True, plots=False).result.top1


def _baseline(*changes: str) -> Recipe:
    (file := Path("plain.yaml")).write_text(
        RECIPE.replace('name: python, code: "mine:make", options: {count: 60}', "name: digits")
    )
    return load_recipe(file, list(changes))


def test_nothing_runs_without_leave(here: Path) -> None:
    exit_code, _, stderr = _distill("student", "--recipe", "own.yaml", "-q")
    assert exit_code == 2
    assert f"data.code: mine:make would run code: {here / 'mine.py'}" in stderr
    assert "--allow-code" in stderr
    assert not (here / "it_ran").exists()
    exit_code, stdout, _ = _distill("recipe", "check", "own.yaml")
    assert (exit_code, "mine:make was not run" in stdout) == (0, True)
    assert not (here / "it_ran").exists()
    assert not (here / "runs").exists()


def test_with_leave_it_is_a_data_set_like_any_other(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exit_code, _, stderr = _distill("student", "--recipe", "own.yaml", "--allow-code", "-q")
    assert exit_code == 0, stderr
    run = RunFolder(here / "runs" / "own" / "001")
    assert run.classes == ("dark", "grey", "bright")
    assert (run.info.data["train"], run.info.data["val"]) == (48, 12)
    stated = run.recipe().data
    assert stated.code_sha256 == hashlib.sha256(MINE.encode()).hexdigest()
    assert stated.options.values == {"count": 60}

    sys.path.insert(0, str(here))
    wanted, labels = __import__("mine").images(30, 1)
    loaded = load_dataset(stated)
    assert (loaded.test.take(slice(None)) == wanted.transpose(0, 3, 1, 2)).all()
    assert loaded.test.labels.tolist() == labels.tolist()

    assert _distill("export", "own", "--out", "own.onnx", "-q")[0] == 0
    exit_code, stdout, stderr = _distill("compare", "own", "own.onnx", "--no-latency", "--json", "-q")
    assert exit_code == 0, stderr
    found = [row["test_top1"] for row in json.loads(stdout)["rows"]]
    assert len(found) == 2
    assert found[0] == found[1]
    exit_code, stdout, stderr = _distill("evaluate", "own", "--json", "-q")
    assert json.loads(stdout)["top1"] == found[0]
    Image.fromarray(wanted[0]).save(here / "one.png")
    assert _distill("predict", "own", "one.png", "-q")[0] == 0
    assert _distill("evaluate", "own", "--calibrated", "-q")[0] == 0

    monkeypatch.delenv("DISTILL_ALLOW_CODE")
    assert _distill("evaluate", "own", "-q")[0] == 0  # what was found stands
    shutil.rmtree(run.path / "evaluation")
    exit_code, _, stderr = _distill("evaluate", "own", "-q")
    assert (exit_code, "would run code" in stderr) == (2, True)
    assert _distill("predict", "own.onnx", "one.png", "-q")[0] == 0  # needs no data


def test_a_teacher_and_its_student_learn_from_it(here: Path) -> None:
    code.allow_code()
    options = Options(runs_dir=here / "runs", threads=1)
    teacher = finetune_teacher(load_recipe("own.yaml", ["role=teacher", "name=teacher"]), options=options)
    text = RECIPE.replace(
        "role: baseline", "role: student\nteacher: {run: teacher, logits: bank}\nobjective: {kind: kd}"
    )
    (here / "taught.yaml").write_text(text.replace("name: own", "name: taught"))
    student = train_student("taught.yaml", options=options)
    rows = {row.name: row for row in compare([teacher, student], latency=False).rows}
    assert rows["taught"].agreement is not None


@pytest.mark.parametrize(
    ("name", "exit_code", "told"),
    [
        ("mine:fails", 2, "mine:fails raised FileNotFoundError: no such disk"),
        ("mine:gives_text", 1, "mine:gives_text, train is str"),
        ("mine:too_many_labels", 1, "20 images and 21 labels"),
        ("mine:without_classes", 1, "does not name its classes"),
        ("mine:floats", 1, "float pixels that are not bytes over 255"),
        ("mine:NUMBER", 1, "mine:NUMBER is int"),
        ("mine:absent", 2, "mine.py has no absent"),
        ("yours:make", 4, "no module yours"),
    ],
)
def test_what_is_wrong_is_one_line(name: str, exit_code: int, told: str, here: Path) -> None:
    arguments = ("--set", f"data.code='{name}'", "--set", "data.options={}")
    code_given, _, stderr = _distill("student", "--recipe", "own.yaml", "--allow-code", "-q", *arguments)
    assert (code_given, told in stderr) == (exit_code, True), stderr
    assert "Traceback" not in stderr
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    "data", ["{name: python}", "{name: digits, code: 'mine:make'}", "{name: python, code: 'mine:'}"]
)
def test_a_recipe_that_does_not_fit_is_refused_when_it_is_read(data: str, here: Path) -> None:
    (here / "own.yaml").write_text(RECIPE.replace(RECIPE.splitlines()[4], f"data: {data}"))
    exit_code, _, stderr = _distill("recipe", "check", "own.yaml")
    assert (exit_code, "own.yaml:5" in stderr) == (2, True), stderr


def test_a_dataset_is_asked_for_all_its_images_once(here: Path) -> None:
    code.allow_code()
    for _ in range(2):
        loaded = load_dataset(_spec("mine:Pairs", options=OwnOptions(count=300)))
    asked = [int(line) for line in (here / "asked").read_text().split()]
    counts = np.bincount(asked)
    assert counts.min() == 1  # most: a few tell whether it is the one that was decoded
    assert (counts > 1).sum() <= 64
    assert len(loaded.train) + len(loaded.test) == 300
    assert "set aside for testing" in str(loaded.note)
    load_dataset(_spec("mine:Pairs", options=OwnOptions(count=301)))
    assert len(list(arrays_folder().iterdir())) == 2


class Held:
    """A map-style Dataset that prints nothing of what it holds."""

    def __init__(self, images, labels) -> None:
        self.x, self.y = images, labels

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, at: int) -> tuple[np.ndarray, int]:
        return self.x[at], int(self.y[at])


class Listed(Held):
    """Its pictures' paths and labels in one list."""

    def __getitem__(self, at: int) -> tuple[np.ndarray, int]:
        return self.x[at], self.y[at][1]


class Keeping(Held):
    """Keeps what it was asked for, and counts."""

    def __init__(self, images, labels) -> None:
        super().__init__(images, labels)
        self.kept, self.by_place, self.asked, self.counts = [None] * len(images), {}, [], np.zeros(len(images))

    def __getitem__(self, at: int) -> tuple[np.ndarray, int]:
        self.kept[at] = self.by_place[at] = self.x[at]
        self.asked.append(at)
        self.counts[at] += 1
        return super().__getitem__(at)


def test_what_a_dataset_keeps_of_what_it_was_asked_for_makes_it_no_other(here: Path) -> None:
    images, labels = _images()
    keeping, new = Keeping(images, labels), Keeping(images, labels)
    names = [offer_data({"train": each, "test": each} | ABC) for each in (keeping, keeping, new)]
    for name in names:
        load_dataset(_spec(name))
    assert len(set(names)) == 1
    assert len(list(arrays_folder().iterdir())) == 1


@pytest.mark.parametrize(
    "form",
    [
        lambda images, labels: TensorDataset(torch.from_numpy(images), torch.from_numpy(labels)),
        lambda images, labels: Subset(Held(images, labels.tolist()), list(range(300))),
        lambda images, labels: ConcatDataset([Held(images[:9], labels[:9]), Held(images[9:], labels[9:])]),
        lambda images, labels: Held(list(images), tuple(labels.tolist())),
        lambda images, labels: Held(images, dict(enumerate(labels.tolist()))),
        lambda images, labels: Held(images, np.array([(str(each), each) for each in labels], dtype=object)[:, 1]),
        lambda images, labels: Listed(images, [(Path(f"{at}.png"), int(each)) for at, each in enumerate(labels)]),
    ],
)
def test_labels_that_changed_are_not_those_of_before(form, here: Path) -> None:
    images, labels = np.tile(_images()[0], (7, 1, 1, 1))[:300], np.resize(_images()[1], 300)
    probed = own_given.evenly_spaced_positions(300, own_given._PROBES)
    other = np.where(np.isin(np.arange(300), probed), labels, (labels + 1) % 3)
    assert (other != labels).sum() > 200
    for each in (labels, other, labels):
        loaded = load_dataset(_spec(offer_data({split: form(images, each) for split in ("train", "test")} | ABC)))
        assert loaded.train.labels.tolist() == each.tolist()
    assert len(list(arrays_folder().iterdir())) == 2  # the third was known again


def test_what_lies_on_disk_is_not_read_to_know_it_again(here: Path) -> None:
    images, labels = _images()
    np.save(here / "images.npy", images)
    mapped = np.load(here / "images.npy", mmap_mode="r")
    digests = []
    for held in (mapped, mapped[::-1], images, images[::-1]):
        digests.append(str(digests_held(Held(held, labels))))
    assert len(set(digests)) == 3
    assert digests[0] == digests[1]


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pictures_of_a_dataset_stand_upright_as_those_of_a_folder_do(orientation: int, here: Path) -> None:
    images, labels = _images(side=20)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for at, (image, label) in enumerate(zip(images, labels, strict=True)):
        for split in ("train", "test"):
            (folder := here / "pictures" / split / "abc"[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{at:03}.png", exif=exif)
    given = {split: ImageFolder(here / "pictures" / split, loader=Image.open) for split in ("train", "test")}
    folder = load_dataset(DataSpec(name="folder", root=str(here / "pictures"), image_size=12))
    assert load_dataset(_spec(offer_data(given))).fingerprint == folder.fingerprint
    read = {split: ImageFolder(here / "pictures" / split) for split in ("train", "test")}
    assert load_dataset(_spec(offer_data(read))).fingerprint == folder.fingerprint


def test_what_is_handed_over_in_any_form_is_the_same_images(here: Path) -> None:
    images, labels = _images()
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2)
    forms = [
        (images, labels),
        (tensors, torch.from_numpy(labels)),
        (images.transpose(0, 3, 1, 2), labels.astype(np.int32)),
        ([Image.fromarray(each) for each in images], labels.tolist()),
        (images, np.array(["a", "b", "c"])[labels]),
        TensorDataset(tensors, torch.from_numpy(labels)),
        TensorDataset(tensors.float() / 255, torch.from_numpy(labels)),  # as torchvision's ToTensor
    ]
    for form in forms:
        reference = offer_data({"train": form, "test": form, "classes": ["a", "b", "c"]})
        loaded = load_dataset(_spec(reference))
        assert (loaded.train.take(slice(None)) == images.transpose(0, 3, 1, 2)).all()
        assert loaded.train.labels.tolist() == labels.tolist()


def test_torchvision_s_own_folder_gives_what_the_folder_gives(here: Path) -> None:
    images, labels = _images(side=20)
    for at, (image, label) in enumerate(zip(images, labels, strict=True)):
        for split in ("train", "test"):
            (folder := here / "pictures" / split / "abc"[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{at:03}.png")
    given = {split: ImageFolder(here / "pictures" / split) for split in ("train", "test")}
    own = load_dataset(_spec(offer_data(given)))
    folder = load_dataset(DataSpec(name="folder", root=str(here / "pictures"), image_size=12))
    assert own.fingerprint == folder.fingerprint


def test_numbers_of_another_list_of_classes_are_refused(here: Path) -> None:
    """torchvision numbers the folders that are there: without "a" the test set's 0 is a "b"."""
    images, labels = _images(side=12)
    for at, (image, label) in enumerate(zip(images, labels, strict=True)):
        for split in ("train", "test"):
            if split == "train" or label > 0:
                (folder := here / "pictures" / split / "abc"[label]).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / f"{at:03}.png")
    given = {split: ImageFolder(here / "pictures" / split) for split in ("train", "test")}
    with pytest.raises(DataError, match="the classes of test and train differ: b, c; a, b, c"):
        offer_data(given)
    train = given["train"]
    by_name = ImageFolder(here / "pictures" / "test", target_transform=lambda number: "bc"[number])
    names = ImageFolder(here / "pictures" / "train", target_transform=lambda number: train.classes[number])
    own = load_dataset(_spec(offer_data({"train": names, "test": by_name})))
    assert sorted(set(own.test.labels.tolist())) == [1, 2]


def test_labels_are_of_one_kind_in_all_splits(here: Path) -> None:
    images, labels = _images()
    names = np.array(["a", "b", "c"])[labels]
    for given in (
        {"train": (images, labels), "test": (images, names)},
        {"train": (images, names), "test": (images, labels)},
    ):
        with pytest.raises(DataError, match="its labels differ in kind"):
            offer_data(given)


@pytest.mark.parametrize(
    ("labels", "classes", "told"),
    [
        (np.arange(20) % 2 - 1, None, "its labels are -1 to 0"),
        (np.arange(20) % 2 * 30_000_000, None, "its labels are 0 to 30000000"),
        ([[0], [0, 1]] * 10, None, "train labels are no array"),
        (np.arange(20) % 2, {"b", "a"}, "classes are set"),
        (np.arange(20) % 2, {"b": 1, "a": 0}, "classes are dict"),
        (np.arange(20) % 2, 2, "classes are int"),
        (np.arange(20) % 2, np.array(2), "classes are ndarray"),
    ],
)
def test_labels_and_classes_that_cannot_be_meant_are_refused(
    labels: object, classes: object, told: str, here: Path
) -> None:
    with pytest.raises(DataError, match=told):
        offer_data({"train": (np.zeros((20, 8, 8), np.uint8), labels), "classes": classes})


def test_an_order_is_all_that_classes_need(here: Path) -> None:
    pair = (np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
    reference = offer_data({"train": pair, "test": pair, "classes": {"b": 1, "a": 0}.keys()})
    assert load_dataset(_spec(reference)).classes == ("b", "a")


@pytest.mark.parametrize("bad", [torch.zeros(3, 8, 8, dtype=torch.bfloat16), [[1, 2], [3]]])
def test_a_list_of_what_is_no_image_is_listed(here: Path, bad: object) -> None:
    images = [np.zeros((8, 8), np.uint8)] * 19 + [bad]
    reference = offer_data({"train": (images, np.arange(20) % 2), "classes": ["a", "b"]})
    with pytest.raises(DataError, match="19"):
        load_dataset(_spec(reference))


def test_names_that_look_like_numbers_are_no_numbers(here: Path) -> None:
    images, labels = _images(20)
    for given, expected in ((labels, labels), (labels.astype(str), 2 - labels)):
        pair = (images, given)
        reference = offer_data({"train": pair, "test": pair, "classes": ["2", "1", "0"]})
        assert load_dataset(_spec(reference)).train.labels.tolist() == expected.tolist()


def test_a_tensor_that_numpy_does_not_know_is_refused(here: Path) -> None:
    with pytest.raises(DataError, match="train images are no array"):
        offer_data((torch.zeros(20, 3, 8, 8, dtype=torch.bfloat16), np.arange(20) % 2))


def test_pictures_are_known_by_their_palette_too(here: Path) -> None:
    """A picture with a palette is numbers that mean nothing without it."""
    images, labels = _images()
    drawn = [Image.fromarray(image).quantize(8) for image in images]
    dark = [each.copy() for each in drawn]
    for each in dark:
        each.putpalette([value // 2 for value in each.getpalette()])
    clear = [each.copy() for each in drawn]
    for each in clear:
        each.info["transparency"] = 0
    found = [offer_data({"train": (given, labels), "test": (images, labels)}) for given in (drawn, dark, clear)]
    assert len(set(found)) == 3
    plain = [Image.fromarray(image) for image in images]
    assert own_given._bytes_of(plain[0]) == b"RGB (12, 12) " + images[0].tobytes()  # as they were known before
    assert offer_data({"train": ([each.copy() for each in drawn], labels), "test": (images, labels)}) == found[0]


def test_random_transforms_belong_to_the_recipe(here: Path) -> None:
    images, labels = _images()
    (here / "pictures").mkdir()
    for at, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder := here / "pictures" / "abc"[label]).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{at:03}.png")
    jitter = ImageFolder(here / "pictures", transform=v2.ColorJitter(brightness=0.5))
    with pytest.raises(DataError, match="another one each time") as error:
        offer_data(jitter)
    assert "augment" in str(error.value.hint)


class Rows:
    """A Dataset that gives a new mapping where an image is wanted, as tables of files do."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.targets, self.classes = images, labels, ["a", "b", "c"]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: int) -> tuple[dict[str, bytes], int]:
        return {"bytes": self.images[at].tobytes()}, int(self.targets[at])


def test_what_is_no_image_is_not_taken_for_a_random_one(here: Path) -> None:
    images, labels = _images()
    reference = offer_data({"train": Rows(images, labels), "test": (images, labels)})
    with pytest.raises(DataError, match=r"45 of 90 images .*\n  train 0: shape \(\) is no image"):
        load_dataset(_spec(reference))


def test_bad_images_are_all_listed_or_left_out(here: Path) -> None:
    images, labels = _images()
    pictures = [Image.fromarray(each) for each in images]
    pictures[7] = Image.new("F", (12, 12))
    pictures[9] = "no picture"  # type: ignore[call-overload]
    reference = offer_data({"train": (pictures, labels), "test": (images, labels)})
    with pytest.raises(DataError, match=r"(?s)2 of 90 images .*\n  train 7: floating-point pixels.*\n  train 9: "):
        load_dataset(_spec(reference))
    loaded = load_dataset(_spec(reference, skip_bad=True))
    assert (len(loaded.train), loaded.skipped) == (43, 2)
    kept = np.delete(np.arange(45), [7, 9])
    assert (loaded.train.take(slice(None)) == images[kept].transpose(0, 3, 1, 2)).all()


def test_arrays_from_python_go_on_when_they_are_gone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(runs_dir=here / "runs", threads=1)
    images, labels = _images()
    given = {"train": (images, labels), "test": _images(21), "classes": ["a", "b", "c"]}
    made = train_student(_baseline("train.epochs=1"), data=given, options=options)
    run = RunFolder(made.run)
    assert run.classes == ("a", "b", "c")
    assert str(run.recipe().data.code).startswith("handed_over:data_")
    top1 = _top1(made)

    monkeypatch.setattr(code, "_offered", {})  # as in another process: what was decoded is there
    assert _top1(made) == top1
    assert resume_run(made, options=options).val_top1 == made.val_top1
    exit_code, _, stderr = _distill("compare", "own", "--no-latency", "-q")
    assert exit_code == 0, stderr

    monkeypatch.setenv("DISTILL_CACHE", str(here / "emptied"))
    with pytest.raises(MissingError, match="handed over from Python, in a process that is gone") as error:
        _top1(made)
    assert "offer_data" in str(error.value.hint)
    exit_code, _, stderr = _distill("evaluate", "own", "--split", "val", "-q")
    assert (exit_code, stderr.count("error:")) == (4, 1)
    offer_data(given)
    assert _top1(made) == top1


def test_auto_keeps_the_pictures_own_size(here: Path) -> None:
    made = train_student(
        _baseline("train.epochs=1", "data.image_size=auto", "model.input_size=32"),
        data=_images(side=20),
        options=Options(runs_dir=here / "runs", threads=1),
    )
    assert RunFolder(made.run).recipe().data.image_size == 20


def test_a_function_runs_once_for_all_that_a_run_asks_before_it_begins_and_anew_for_the_next(here: Path) -> None:
    given, calls, images = [_images(side=20), _images(60, side=20)], [], []

    def make() -> tuple[np.ndarray, np.ndarray]:
        calls.append(None)
        return given[0]

    recipe = with_own(_baseline("data.image_size=auto", "model.input_size=32"), data=make)
    for count in (1, 2):
        images.append(prepare(recipe, Options(runs_dir=here / "runs", threads=1)).splits)
        assert len(calls) == count
        given.reverse()  # what it gives is no part of it
    assert [len(each.train) + len(each.val) + len(each.test) for each in images] == [45, 60]


def test_the_bytes_of_arrays_are_hashed_where_somebody_asks_and_once(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed, digest = [], own_given._Pairs.digest
    monkeypatch.setattr(own_given._Pairs, "digest", lambda pairs: hashed.append(pairs.where) or digest(pairs))

    def make() -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {"train": _images(), "test": _images(21)}

    reference = offer_data(make)
    with own_given.asking_once():
        assert num_classes(_spec(reference)) == 3
        assert hashed == []
        for _ in range(2):
            load_dataset(_spec(reference))
    assert hashed == [f"{reference}, train", f"{reference}, test"]


def test_rows_of_other_shapes(here: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    wanted = np.stack([grey] * 3, axis=2)
    for form in (grey, grey[:, :, None], grey[None], torch.from_numpy(grey), Image.fromarray(grey), grey.astype(int)):
        assert (pixels_of(form) == wanted).all()


@pytest.mark.slow
def test_two_processes_find_what_was_decoded(here: Path, teacher_run: RunResult) -> None:
    options = Options(runs_dir=here / "runs", threads=1, devices=2)
    made = train_student(_baseline("train.epochs=1"), data=_images(), options=options)
    assert made.status == "finished"
