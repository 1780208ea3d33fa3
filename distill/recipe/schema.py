"""The recipe: one frozen tree that says everything about a run. Defaults live here and nowhere else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.recipe.augmentation import AugmentSpec, EraseSpec, MixSpec
from distill.recipe.base import NonNegative, Picks, Positive, PositiveInt, Spec
from distill.recipe.data_spec import DataSpec
from distill.recipe.model_specs import ModelSpec, PositiveRgb, Rgb
from distill.recipe.objectives import (
    KINDS_WITHOUT_TEACHER,
    KDObjective,
    ObjectiveSpec,
    OwnLabelsObjective,
    OwnTerm,
    SupervisedObjective,
    TaughtObjective,
)
from distill.recipe.optimization import SGD, Constant, OptimSpec, ScheduleSpec
from distill.recipe.search_space import SearchSpec
from distill.references import NAME
from distill.results.roles import RoleName

__all__ = [
    "KINDS_WITHOUT_TEACHER",
    "STUDENT_BUDGET",
    "AugmentSpec",
    "BankSpec",
    "DataSpec",
    "EraseSpec",
    "KDObjective",
    "MixSpec",
    "ObjectiveSpec",
    "OnnxInput",
    "Recipe",
    "SupervisedObjective",
    "TaughtObjective",
    "TeacherSpec",
    "TrainSpec",
]

STUDENT_BUDGET = 5_000_000

ThreadsSpec = Literal["auto"] | Annotated[int, Field(ge=1, le=1024)]


class BankSpec(Spec):
    """One bank of stored teacher logits, and its weight in an ensemble."""

    path: str | None = Field(None, description="the bank's folder")
    run: str | None = Field(None, description="its teacher's run, or a name: the bank lies there, and is built first")
    weight: Positive = 1.0

    @model_validator(mode="after")
    def _one_place(self) -> BankSpec:
        if (self.path is None) == (self.run is None):
            raise ValueError("a bank is named by its path, or by its teacher's run: name exactly one")
        return self


class OnnxInput(Spec):
    """What an ONNX file takes: ``(pixel * scale - mean) / std`` of pixels in 0..255."""

    size: Annotated[int, Field(ge=1, le=1024)] = Field(description="side of its images; others are resized to it")
    layout: Literal["nchw", "nhwc"] = "nchw"
    scale: Positive = Field(0.00392156862745098, description="1/255 brings pixels to 0..1")
    mean: Rgb = Field((0.0, 0.0, 0.0), description="after scaling; not read where it takes bytes")
    std: PositiveRgb = (1.0, 1.0, 1.0)


class TeacherSpec(Spec):
    """Where the teacher's logits come from."""

    run: str | None = Field(None, description="a run folder, or a name: its latest finished run")
    onnx: str | None = Field(None, description="an ONNX classifier from any framework, asked by ONNX Runtime")
    input: OnnxInput | None = Field(None, description="what the ONNX file takes; null: it is distill's own and says so")
    classes: tuple[str, ...] = Field(
        (), description="the ONNX file's classes, in the order of its outputs; [] as above"
    )
    bank: str | None = Field(None, description="a stored bank: neither the teacher's weights nor a GPU is needed")
    banks: tuple[BankSpec, ...] = Field((), description="an ensemble of banks")
    logits: Literal["auto", "bank", "live"] = "auto"
    logits_dtype: Literal["auto", "float16", "float32"] = Field(
        "auto",
        description="what they are rounded to, and stored in; auto: float16, or float32 where they are large",
    )
    features: Literal["auto", "none", "pooled"] = Field(
        "auto", description="stored beside the logits; auto: pooled (float16), where the objective asks for that alone"
    )
    runtime: Literal["auto", "torch", "onnxruntime"] = Field(
        "auto", description="what it is asked through; auto: on a CPU ONNX Runtime, where it is asked enough to gain"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="of its forward pass; auto: on a GPU what it was trained in, on a CPU fp32"
    )
    threads: ThreadsSpec = Field("auto", description="CPU threads while it is asked; auto: by the work of its layers")

    @property
    def thread_count(self) -> int | None:
        """``threads``, or None where it is not decided yet."""
        return None if self.threads == "auto" else self.threads

    @property
    def members(self) -> tuple[str, ...]:
        """The runs among several teachers, as they are named."""
        return tuple(bank.run for bank in self.banks if bank.run is not None)

    @model_validator(mode="after")
    def _one_source(self) -> TeacherSpec:
        if sum((self.run is not None, self.onnx is not None, self.bank is not None, bool(self.banks))) != 1:
            raise ValueError("name exactly one of run, onnx, bank, banks")
        if self.logits == "live" and self.run is None and self.onnx is None:
            raise ValueError("logits: live needs run or onnx; a bank holds answers, not the teacher")
        if self.onnx is None and (self.input is not None or self.classes):
            raise ValueError("input and classes describe an ONNX file: name it, onnx: FILE")
        if self.onnx is not None and self.runtime == "torch":
            raise ValueError("runtime: torch cannot ask an ONNX file")
        if self.precision != "auto" and self.run is None and all(bank.run is None for bank in self.banks):
            raise ValueError(
                "precision is for a teacher's run: a file is asked in fp32, a bank says what it was made in"
            )
        if self.precision in ("bf16", "fp16") and self.runtime == "onnxruntime":
            raise ValueError(f"runtime: onnxruntime asks in fp32, not in {self.precision}")
        return self


class EarlyStoppingSpec(Spec):
    patience: PositiveInt = Field(description="epochs without improvement of train.monitor")
    min_delta: NonNegative = 0.0


class TrainSpec(Spec):
    """The loop: how long, in which batches, in which precision."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 200
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(128, description="over all devices")
    accumulate: PositiveInt = Field(
        1, description="a step's batch is worked through in this many pieces, of two images at least"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    monitor: Picks = Field(
        "val_top1",
        description="picks the checkpoint that is shipped; last: the last epoch's, which suits few validation images",
    )
    early_stopping: EarlyStoppingSpec | None = None
    freeze_backbone_epochs: Annotated[int, Field(ge=0)] = Field(0, description="so long the classifier trains alone")
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.0, description="decay of averaged weights a step; 0: off")
    clip_norm: Positive | None = None
    clip_value: Positive | None = None
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: ThreadsSpec = Field("auto", description="CPU threads per operation; auto: by the work of a layer")
    channels_last: Literal["auto"] | bool = "auto"
    compile: Literal["auto", "default", "reduce-overhead", "max-autotune"] | bool = Field(
        "auto", description="torch.compile; auto: on CUDA. reduce-overhead: CUDA graphs, for small networks"
    )
    fake_quantize: Literal[7, 8] | None = Field(
        None, description="bits of weights while training, as in an int8 file; what enters a layer has 8"
    )
    sync_batchnorm: bool = Field(False, description="over CUDA devices; else batch norm is each device's own")
    deterministic: bool = Field(False, description="CUDA: deterministic kernels, slower; the CPU always is")
    checkpoint_epochs: PositiveInt = Field(1, description="save every so many epochs; the best and the last always")
    checkpoint_minutes: Positive | None = Field(None, description="save within an epoch too, this often")

    @model_validator(mode="after")
    def _patience_watches_a_number(self) -> TrainSpec:
        if self.early_stopping is not None and self.monitor == "last":
            raise ValueError("early_stopping watches train.monitor, and of last the next epoch is always better")
        return self

    @property
    def thread_count(self) -> int | None:
        """``threads``, or None where it is not decided yet."""
        return None if self.threads == "auto" else self.threads


class Recipe(Spec):
    """Everything about one run."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    role: RoleName
    data: DataSpec
    augment: AugmentSpec = AugmentSpec()
    model: ModelSpec
    teacher: TeacherSpec | None = None
    objective: ObjectiveSpec = SupervisedObjective()
    optim: OptimSpec = SGD()
    schedule: ScheduleSpec = Constant()
    train: TrainSpec = TrainSpec()
    search: SearchSpec | None = Field(None, description="what distill search may vary; no run keeps it")

    @model_validator(mode="after")
    def _teacher_and_objective_agree(self) -> Recipe:
        learns, kind = self.objective.asks_teacher, self.objective.kind
        if learns and self.teacher is None:
            raise ValueError(f"objective {kind} needs a teacher: section")
        if not learns and self.teacher is not None:
            raise ValueError(f"teacher: is set but objective {kind} asks none; remove it or use kind: kd")
        if learns and self.role != "student":
            raise ValueError(f"objective {kind} is a student's; role is {self.role}")
        return self

    @model_validator(mode="after")
    def _every_term_begins(self) -> Recipe:
        for term in self.objective.terms:
            if term.weighs and term.first_epoch > self.train.epochs:
                raise ValueError(
                    f"objective {term.kind} teaches from epoch {term.first_epoch} on, "
                    f"and train.epochs is {self.train.epochs}"
                )
        return self

    @model_validator(mode="after")
    def _features_can_be_had(self) -> Recipe:
        if self.teacher is None:
            return self
        asking = [term.kind for term in self.objective.terms if term.asks_features]
        if self.teacher.onnx is not None and (asking or self.teacher.features == "pooled"):
            asks = f"objective {asking[0]}" if asking else "teacher.features"
            raise ValueError(f"{asks} asks for features: a file has logits alone")
        live = self.teacher.run is not None and self.teacher.logits != "bank"
        maps = [term.kind for term in self.objective.terms if term.needs_maps]
        if maps and not live:
            raise ValueError(f"objective {', '.join(maps)} asks a live teacher: a bank has no maps of its stages")
        if asking and not live and not self.stored_features:
            raise ValueError(f"objective {asking[0]} asks a bank for features: teacher.features none stores none")
        if asking and len(self.teacher.banks) > 1:
            raise ValueError(f"objective {asking[0]} asks for features: those of several teachers have no mean")
        mixes = self.augment.mixup.alpha > 0 or self.augment.cutmix.alpha > 0
        if mixes and (telling := [term.kind for term in self.objective.terms if term.tells_images_apart]):
            turn_off = "turn off augment.mixup and augment.cutmix"
            raise ValueError(f"objective {telling[0]} tells an image from all others: {turn_off}")
        alone = self.train.batch_size < 2
        if alone and (comparing := [term.kind for term in self.objective.terms if term.compares_images]):
            raise ValueError(f"objective {comparing[0]} compares images of a batch: train.batch_size 1 leaves it none")
        return self

    @model_validator(mode="after")
    def _classifier_can_be_reused(self) -> Recipe:
        if self.objective.kind != "simkd":
            if self.model.reuse is not None:
                raise ValueError("model.reuse holds a teacher's classifier: it is for objective simkd")
        elif self.teacher is not None and self.teacher.run is None:
            raise ValueError("objective simkd reuses its teacher's classifier: it needs teacher.run")
        elif self.train.freeze_backbone_epochs:
            raise ValueError("train.freeze_backbone_epochs leaves nothing to train: simkd's classifier learns nothing")
        return self

    @model_validator(mode="after")
    def _what_has_no_label_can_be_taught(self) -> Recipe:
        if self.data.unlabelled is None:
            return self
        if not self.objective.asks_teacher:
            kind = self.objective.kind
            raise ValueError(
                f"data.unlabelled is taught by a teacher: objective {kind} asks none (without: data.unlabelled=null)"
            )
        if asking := [term.kind for term in self.objective.terms if term.asks_labels]:
            raise ValueError(f"objective {asking[0]} asks for every image's label: data.unlabelled has none")
        if self.train.batch_size < 2:
            raise ValueError("data.unlabelled: train.batch_size 1 has no room for both kinds of images")
        return self

    @model_validator(mode="after")
    def _what_watches_validation_has_some(self) -> Recipe:
        if self.train.early_stopping is not None and self.data.val_fraction == 0 and not self.data.is_found_out:
            raise ValueError("train.early_stopping watches validation, and data.val_fraction is 0")
        if self.schedule.kind == "plateau" and self.data.val_fraction == 0 and not self.data.is_found_out:
            raise ValueError("schedule plateau watches validation, and data.val_fraction is 0")
        return self

    @model_validator(mode="after")
    def _rates_fall(self) -> Recipe:
        least = getattr(self.schedule, "min_lr", 0.0)
        if least > self.optim.lr:
            raise ValueError(f"schedule.min_lr {least:g} is above optim.lr {self.optim.lr:g}: it is what lr falls to")
        return self

    @model_validator(mode="after")
    def _sides_alternate(self) -> Recipe:
        views = self.augment.views
        if self.augment.hflip_alternates and isinstance(views, int) and views % 2 and views < self.train.epochs:
            raise ValueError(
                f"augment.hflip_alternates turns images with every view, and augment.views {views} is odd: "
                "where they begin again an image would stand as in the epoch before; use an even number"
            )
        return self

    @property
    def logits_dtype(self) -> Literal["float16", "float32"]:
        """What a teacher's logits are rounded to, of a recipe that has a teacher."""
        assert self.teacher is not None
        assert self.teacher.logits_dtype != "auto", "teacher.logits_dtype: auto was not settled"
        return self.teacher.logits_dtype

    @property
    def teacher_runtime(self) -> Literal["torch", "onnxruntime"]:
        """What a teacher is asked through, of a recipe that has one; torch where it is not decided."""
        assert self.teacher is not None
        return "torch" if self.teacher.runtime == "auto" else self.teacher.runtime

    @property
    def own_code(self) -> tuple[str, ...]:
        """The code that it names and that runs with leave alone: a network, images, losses."""
        named = [self.model.name] if self.model.source == "python" else []
        named += [] if self.data.code is None else [self.data.code]
        named += [each.name for each in self.objective.terms if isinstance(each, OwnTerm | OwnLabelsObjective)]
        return tuple(each for each in named if ":" in each)  # what an installed package offers has no colon

    @property
    def stored_features(self) -> bool:
        """Whether the teacher's pooled features stand beside its logits, of a recipe that has a teacher."""
        assert self.teacher is not None
        if self.teacher.features != "auto":
            return self.teacher.features == "pooled"
        asking = [term for term in self.objective.terms if term.asks_features]
        return bool(asking) and not any(term.needs_maps for term in asking)

    @property
    def teacher_threads(self) -> int | None:
        """What a teacher is asked with, of a recipe that has one; None where it is not decided yet."""
        assert self.teacher is not None
        return self.teacher.thread_count

    @property
    def max_params(self) -> int | None:
        """The parameter budget: ``model.max_params``, by default 5,000,000 for a student and none for others."""
        if self.model.max_params is not None:
            return self.model.max_params
        return STUDENT_BUDGET if self.role == "student" else None
