"""What the headline measurement trains, and in which order: recipes, overrides, seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distill.recipe import Recipe, load_recipe

__all__ = ["BANK_RECIPE", "CHOICES", "PAIRS", "Protocol", "Task", "choice_tasks", "student_tasks", "teacher_task"]

TEACHER_RECIPE, BANK_RECIPE = "resnet152_cifar10_scratch", "r453_kd"
PAIRS = (("r453_kd", "r453"), ("r18_small", "r18_small_scratch"))  # taught, and the same network with labels alone
_QUICK_NAME = "r453_kd_minute"

# One augmentation for teacher and students, so that one bank serves all of them and every pair differs in its loss.
_AUGMENT = (
    "augment={crop_padding: 4, crop_fill: reflect, hflip: 0.5, cutmix: {alpha: 1.0, probability: 0.5}, view_seed: 0}"
)
_TINY_AUGMENT = "augment={crop_padding: 2, hflip: 0.5, cutmix: {alpha: 1.0, probability: 0.5}}"

# What --choose tries, each against the first: overrides of the taught student.
CHOICES: dict[str, tuple[str, ...]] = {
    "base": (),
    "t2_standardized": ("objective.temperature=2.0", "objective.standardize=true"),
    "t1_no_labels": ("objective.temperature=1.0", "objective.ce_weight=0.0", "objective.kd_weight=1.0"),
    "no_lookahead": ("optim.lookahead=null",),
    "ema": ("train.ema=0.998", "optim.lookahead=null"),
    "lr_0.5": ("optim.lr=0.5",),
}


@dataclass(frozen=True)
class Protocol:
    """The settings that all runs of a measurement share.

    Attributes:
        data: The folder of the images; None takes synthetic ones.
        views: Views in the bank; students show them in turn.
        batch: A divisor of the number of images spares a second compilation for the last batch.
        quick_epochs: Of the student that is trained within a minute; 0 leaves it out.
        compile: ``train.compile`` of the students; None leaves it to the recipe (``auto``).
    """

    data: str | None = None
    tiny: bool = False
    choose: bool = False
    seeds: int = 3
    teacher_epochs: int = 60
    student_epochs: int = 100
    quick_epochs: int = 45
    views: int = 40
    batch: int = 500
    compile: str | None = None

    def common(self) -> list[str]:
        """Overrides of every run."""
        changes = [_TINY_AUGMENT if self.tiny else _AUGMENT, f"train.batch_size={self.batch}"]
        if self.data is None:
            changes.append("data={name: synthetic}")
        else:
            changes.append(f'data.root="{self.data}"')
        if self.tiny:
            changes += ["data.limit=200", "data.test_limit=100"]
        # Protocols are chosen on images that neither teacher nor student was trained on.
        changes.append(f"data.val_fraction={0.1 if self.choose else 0.0}")
        return [*changes, "data.split_seed=0", "train.checkpoint_epochs=50", "train.checkpoint_minutes=4"]


@dataclass(frozen=True)
class Task:
    """One run to be trained."""

    recipe_name: str
    name: str
    overrides: tuple[str, ...]
    seed: int
    taught: bool

    @property
    def label(self) -> str:
        """For people: ``r453_kd seed 1``."""
        return f"{self.name} seed {self.seed}"

    def recipe(self) -> Recipe:
        """The bundled recipe with this task's overrides."""
        return load_recipe(self.recipe_name, [*self.overrides, f"name={self.name}", f"train.seed={self.seed}"])


def teacher_task(protocol: Protocol) -> Task:
    """ResNet-152 from random weights."""
    changes = [*protocol.common(), f"train.epochs={protocol.teacher_epochs}"]
    if protocol.tiny:
        changes.append("model={source: teachers, name: tiny}")
    else:
        changes += ["optim.lr=0.2", "schedule.warmup_epochs=5", "train.clip_norm=5.0"]
    return Task(TEACHER_RECIPE, TEACHER_RECIPE, tuple(changes), 0, taught=False)


def student_tasks(protocol: Protocol) -> list[Task]:
    """Seed by seed, taught and not in turn, so that whatever fits into the time can be compared; then the quick one."""
    tasks = []
    for pair in PAIRS:
        tasks += [_student(protocol, name, seed) for seed in range(protocol.seeds) for name in pair]
        if pair is PAIRS[0] and protocol.quick_epochs:
            tasks += [_quick(protocol, seed) for seed in range(protocol.seeds)]
    return tasks


def choice_tasks(protocol: Protocol) -> list[Task]:
    """The first pair's taught student in every variant of :data:`CHOICES`, then the one without a teacher."""
    taught, alone = PAIRS[0]
    tasks = [_student(protocol, taught, 0, f"{taught}_{name}", changes) for name, changes in CHOICES.items()]
    return [*tasks, _student(protocol, alone, 0)]


def _quick(protocol: Protocol, seed: int) -> Task:
    return _student(protocol, PAIRS[0][0], seed, _QUICK_NAME, (f"train.epochs={protocol.quick_epochs}",))


def _student(
    protocol: Protocol, recipe_name: str, seed: int, name: str | None = None, changes: Sequence[str] = ()
) -> Task:
    taught = recipe_name in [pair[0] for pair in PAIRS]
    own = [*protocol.common(), f"augment.views={protocol.views}", f"train.epochs={protocol.student_epochs}"]
    if protocol.tiny:
        own.append("model={source: students, name: tiny}")
    else:
        own += ["optim.lr=0.3", "schedule.warmup_epochs=5"]
    if protocol.compile:
        own.append(f"train.compile={protocol.compile}")
    return Task(recipe_name, name or recipe_name, (*own, *changes), seed, taught)
