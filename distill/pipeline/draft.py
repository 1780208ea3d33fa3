"""Recipes for a folder of pictures that nobody trained on: a teacher's and a student's, with reasons in comments."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from distill.data.batches import steps_per_epoch
from distill.data.survey import Survey, survey
from distill.errors import DataError, UsageError
from distill.files import has_controls, write_atomically
from distill.models import params_of
from distill.recipe import SCHEMA_FILE, Recipe, parse_recipe, schema_text
from distill.recipe.schema import DataSpec
from distill.text import count

__all__ = ["Draft", "draft_recipes", "write_draft"]

_SIDES = (32, 48, 64, 96, 128, 160, 192, 224)
_CIFAR_STEM_BELOW = 64  # pixels: a stem that shrinks four times would leave too little
_FEW = 2_000  # training images: a network of a quarter of the parameters has enough to learn from
_TEACHER_STEPS, _STUDENT_STEPS = 2_000, 8_000
_TEST_FRACTION, _VAL_FRACTION = 0.2, 0.1
_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Draft:
    """Two recipes and what they were made from.

    Attributes:
        name: What both names begin with.
        teacher, student: YAML.
    """

    name: str
    survey: Survey
    teacher: str
    student: str

    @property
    def set_aside(self) -> dict[str, float]:
        """Shares of the training pictures that both recipes set aside: for ``test``, of the rest for ``val``."""
        return _set_aside(self.survey)


def draft_recipes(data: str | Path, *, name: str | None = None) -> Draft:
    """Look at pictures, and write recipes that run on them as they stand.

    Args:
        data: A folder or archive of class folders, split or not.
        name: What the recipes' names begin with; None: the folder's name.

    Raises:
        MissingError: There is no such folder.
        DataError: Its layout is wrong, or its pictures cannot be opened.
        UsageError: ``name``, or the path, cannot be a recipe's.
    """
    if has_controls(str(data)):
        raise UsageError(
            f"{data}: a path that has control characters, or is not UTF-8, stands in no recipe",
            hint="rename it, or name a link to it",
        )
    spec = DataSpec(name="folder", root=str(data))
    seen = survey(spec, check=True)
    if "test" not in seen.counts and max(seen.per_class) < 2:
        raise DataError(
            f"{data} has one picture of each class, and no test/: none is left to train on",
            hint="some hundreds of each class make a classifier; two at least",
        )
    name = _name(name, data)
    side = _side(seen)
    draft = Draft(name, seen, _teacher(seen, side, str(data), name), _student(seen, side, str(data), name))
    for text in (draft.teacher, draft.student):
        parse_recipe(text, source=f"the drafted {name}")  # a mistake here is distill's own
    return draft


def write_draft(draft: Draft, folder: Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Write both recipes, and the schema that their first lines name unless it is there; the files, in this order.

    Raises:
        UsageError: One of the files is there.
    """
    paths = folder / f"{draft.name}_teacher.yaml", folder / f"{draft.name}_student.yaml"
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        raise UsageError(f"{' and '.join(there)}: there already", hint="another --name or --out, or --overwrite")
    for path, text in zip(paths, (draft.teacher, draft.student), strict=True):
        # the commands in it are typed where data.root is looked for: here, and not in its folder
        write_atomically(path, text.replace(f"--recipe {path.name}", f"--recipe {shlex.quote(str(path))}"))
    if (schema := folder / SCHEMA_FILE).exists():
        return paths
    write_atomically(schema, schema_text())
    return *paths, schema


def _name(name: str | None, data: str | Path) -> str:
    if name is not None:
        if _NAME.search(name) or not name[0].isalnum() or len(name) > 40:
            raise UsageError(f"--name {name!r}", hint="letters, digits, '_', '-', '.', 40 at most")
        return name
    stem = Path(data).absolute().name.split(".")[0]
    cleaned = _NAME.sub("_", stem).strip("_.-")[:40]
    return cleaned or "pictures"


def _side(seen: Survey) -> int:
    """The largest usual size that does not enlarge the pictures."""
    return max((side for side in _SIDES if side <= seen.side), default=_SIDES[0])


# Teacher and student


def _teacher(seen: Survey, side: int, root: str, name: str) -> str:
    cifar = side < _CIFAR_STEM_BELOW
    stem = "cifar" if cifar else "imagenet"
    why_stem = (
        "a stem for small images: its own would shrink them four times before the first block"
        if cifar
        else "its own stem; images stay at the size they are kept at"
    )
    batch = _batch(seen)
    epochs = _epochs(seen, batch, _TEACHER_STEPS, most=40)
    return f"""\
# A teacher for the pictures in {_comment(root)}: timm's ResNet-34 with ImageNet weights, fine-tuned.
# Run:    distill teacher-finetune --recipe {name}_teacher.yaml
# Time:   distill teacher-finetune --recipe {name}_teacher.yaml --dry-run   tells it for this machine
# Without network: --set model.weights=FILE.safetensors (or none: from scratch, which wants more epochs)
{_seen(seen)}
# yaml-language-server: $schema={SCHEMA_FILE}
schema_version: 1
name: {name}_teacher
role: teacher
{_data(seen, side, root)}
{_augment(side)}
# {why_stem}
model: {{source: timm, name: resnet34, stem: {stem}, weights: pretrained, input_size: {side}}}
objective: {{kind: supervised}}
optim: {{name: sgd, lr: 0.02, momentum: 0.9, weight_decay: 5e-4, backbone_lr_scale: 0.2}}  # a new head: faster
schedule: {{kind: cosine, warmup_epochs: 1}}
# {epochs} epochs are about {count(_steps(seen, batch) * epochs)} steps: pretrained weights need few
train: {{epochs: {epochs}, batch_size: {batch}, seed: 0, freeze_backbone_epochs: 1}}
"""


def _student(seen: Survey, side: int, root: str, name: str) -> str:
    few = seen.counts["train"] < _FEW
    channels = [16, 32, 64, 128] if few else [32, 64, 128, 256]
    strides = [1, 2, 2, 2] if side <= 48 else [2, 2, 2, 2]
    batch = _batch(seen)
    epochs = _epochs(seen, batch, _STUDENT_STEPS, most=200)
    text = f"""\
# A student for the pictures in {_comment(root)}: a compact ResNet of PARAMS parameters, taught by {name}_teacher.
# Run:    distill student --recipe {name}_student.yaml                 (after the teacher)
# Beside: the same with labels alone, to see what the teacher is worth:
#         distill student --recipe {name}_student.yaml --set role=baseline --set name={name}_scratch \\
#           --set objective.kind=supervised --set teacher=null
{_seen(seen)}
# yaml-language-server: $schema={SCHEMA_FILE}
schema_version: 1
name: {name}_student
role: student
{_data(seen, side, root)}
{_augment(side)}
# {"narrow: there are few images to learn from" if few else "wide enough for these images, and under the budget"}
model: {{source: students, name: resnet, blocks: [2, 2, 2, 2], channels: {channels}, strides: {strides},
        input_size: {side}, max_params: 5000000}}
teacher: {{run: {name}_teacher, logits: auto}}                                    # asked once, its answers are stored
objective: {{kind: kd, ce_weight: 0.1, kd_weight: 0.9, temperature: 4.0}}      # mostly the teacher's softened answers
optim: {{name: sgd, lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 5e-4}}
schedule: {{kind: cosine, warmup_epochs: {min(5, epochs // 10)}}}
# {epochs} epochs are about {count(_steps(seen, batch) * epochs)} steps: a network from scratch needs many
train: {{epochs: {epochs}, batch_size: {batch}, seed: 0}}
"""
    return text.replace("PARAMS", count(_params(text, len(seen.classes))), 1)


def _params(text: str, classes: int) -> int:
    recipe: Recipe = parse_recipe(text, source="the drafted student")
    return params_of(recipe.model, classes)


# What both say


def _seen(seen: Survey) -> str:
    """What was looked at, as comment lines."""
    parts = ", ".join(f"{count(n)} {split}" for split, n in seen.counts.items())
    low, high = seen.sides
    sizes = f"{seen.side} pixels" if low == high else f"{seen.side} pixels in the median, {low} to {high}"
    lines = [f"# Seen:   {count(len(seen.classes))} classes; {parts} pictures; shorter sides {sizes}."]
    smallest = min(range(len(seen.classes)), key=seen.per_class.__getitem__)
    if seen.imbalance >= 3:
        lines.append(
            f"#         The largest class has {seen.imbalance:.0f} times the pictures of the smallest "
            f"({_comment(seen.classes[smallest])}: {count(seen.per_class[smallest])}): read macro F1 beside top-1."
        )
    return "\n".join(lines)


def _data(seen: Survey, side: int, root: str) -> str:
    own_val = "val" in seen.counts
    why = "the largest usual size that does not enlarge them" if side <= seen.side else "they are smaller: enlarged"
    lines = [f"# kept at {side} pixels: {why}"]
    if "test" not in seen.counts:
        lines.append("# no test/ folder: a fifth of each class is set aside for testing, the same in both recipes")
    fraction = "" if own_val else f", val_fraction: {_VAL_FRACTION}"
    test = "" if "test" in seen.counts else f", test_fraction: {_TEST_FRACTION}"
    lines.append(
        f"data: {{name: folder, root: {json.dumps(root, ensure_ascii=False)}, image_size: {side}{fraction}{test}}}"
    )
    return "\n".join(lines)


def _augment(side: int) -> str:
    return (
        "# mirrored half of the time: hflip: 0 where a mirrored picture is another class (text, digits)\n"
        f"augment: {{crop_padding: {side // 8}, crop_fill: reflect, hflip: 0.5}}"
    )


def _comment(text: str) -> str:
    """Somebody's words in a comment: they end no line and start no command."""
    return " ".join("".join(char if char.isprintable() else "?" for char in text).split())[:80]


def _batch(seen: Survey) -> int:
    return 32 if seen.counts["train"] < _FEW else 64 if seen.counts["train"] < 10 * _FEW else 128


def _set_aside(seen: Survey) -> dict[str, float]:
    """Without folders of their own, test and validation images are taken from the training images."""
    wanted = {"test": _TEST_FRACTION, "val": _VAL_FRACTION}
    return {split: share for split, share in wanted.items() if split not in seen.counts}


def _steps(seen: Survey, batch: int) -> int:
    """Of an epoch, on what is left of the training images."""
    left = math.prod(1 - share for share in _set_aside(seen).values())
    return max(1, steps_per_epoch(round(seen.counts["train"] * left), batch))


def _epochs(seen: Survey, batch: int, steps: int, *, most: int) -> int:
    return max(5, min(most, round(steps / _steps(seen, batch))))
