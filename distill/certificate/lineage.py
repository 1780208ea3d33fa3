"""The steps on the way to a file, as the folders of the runs behind it tell them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from distill.certificate.images import Images
from distill.commands import rerun_command
from distill.comparison.files import source_run
from distill.errors import DistillError, RunError, UsageError
from distill.models.onnx_metadata import FileAbout
from distill.models.onnx_open import OnnxClassifier
from distill.results.certificate import Step
from distill.runs import RunFolder, list_runs, open_run
from distill.runs.find import open_named
from distill.runs.origin import SOUP_TRIED, ancestors, cut_from, imported_from, made_again, parent_of, soup_of
from distill.teaching.identity import read_identity
from distill.teaching.recorded import open_former_teacher

__all__ = ["check_same_task", "is_all_known", "original", "source_of", "steps_of", "teacher_of"]

NOT_HERE = "not known: it is not here as it was"
NOT_SAID = "not known: the file does not say, or says others"
ELSEWHERE = "not known: it was trained elsewhere"
_READS = {"trained": "taught", "cut": "ranked channels, where that was by taylor"}  # of training images
_AGAINST = (
    "--against names the run that a loss is measured against; paths of runs are as seen from where they were made"
)
_CPU = torch.device("cpu")


def source_of(file: OnnxClassifier, named: Any, runs_dir: Path) -> RunFolder:
    """The run that a file was made from.

    Args:
        named: It, where the user says which; None looks for it below ``runs_dir``.

    Raises:
        UsageError: It is not here, or the one that was named has other weights.
    """
    runs = [] if named is None else [open_run(named, runs_dir=runs_dir)]
    found = source_run(file, runs or _of_chain(file.path), runs_dir, _CPU)
    if found is None or (runs and found.path.resolve() != runs[0].path.resolve()):
        where = f"below {runs_dir}" if found is None and not runs else f"{runs[0].path}: it has other weights"
        raise UsageError(
            f"{file.place}: the run it was made from ({file.about.name}) is not {where}",
            hint="name it: --run RUN, by its folder",
        )
    return found


def _chain_of(file: Path) -> Path | None:
    """The folder of the chain that a file lies in."""
    folder = Path(os.path.normpath(file.parent / ".."))
    is_there = file.resolve().parent.name == "exports" and (folder / "chain.json").is_file()
    return folder if is_there else None


def _of_chain(file: Path) -> list[RunFolder]:
    """The runs of the chain that a file lies in."""
    if (folder := _chain_of(file)) is None:
        return []
    return [run for part in ("trials", "qat") for run in list_runs(folder / part) if run.status == "finished"]


def teacher_of(run: RunFolder, runs_dir: Path) -> RunFolder | None:
    """The run that taught this one, as it was then; None where there was none, or it is not here or no longer the same.

    It is no longer the same where its weights, or what its recipe says of the network, have changed.
    """
    with suppress(DistillError):
        former = open_former_teacher(run, runs_dir=runs_dir)
        return None if former is None or former[1] else former[0]
    return None


def original(run: RunFolder, runs_dir: Path) -> RunFolder:
    """The run that pruning, or quantisation-aware training, set out from; of any other it is the run itself.

    Raises:
        UsageError: It is not here.
    """
    seen = set[Path]()
    while (parent := parent_of(run.info)) is not None and run.path.resolve() not in seen:
        seen.add(run.path.resolve())
        quantised = run.recipe().train.fake_quantize is not None
        try:
            before = open_named(parent, run, runs_dir=runs_dir)
        except RunError as error:
            if quantised or cut_from(run.info):
                raise UsageError(
                    f"{run.path}: {parent}, from which it was cut or rounded, is not here", hint=_AGAINST
                ) from error
            break
        if not quantised and not any(cut_from(each.info) for each in (run, before)):
            break
        run = before
    return run


def steps_of(
    run: RunFolder, file: OnnxClassifier, images: Images, runs_dir: Path, *, chosen: Sequence[str] = ()
) -> tuple[Step, ...]:
    """What was done, in order: teachers, then the runs behind one another, then the file.

    Args:
        chosen: Folders of what chose this run among others, on validation images; a chain is known by its file's place.
    """
    steps: dict[str, Step] = {}
    _add(steps, run, images, runs_dir)
    chain = _chain_of(file.path)
    judged = images.of_run(run).get("validation", "training")
    choices = [
        Step(what="chosen among others", subject=each, reads={"chose this network": judged})
        for each in (*chosen, *([] if chain is None else [str(chain)]))
    ]
    return (*steps.values(), *choices, _file_step(run, file, images))


def _add(steps: dict[str, Step], run: RunFolder, images: Images, runs_dir: Path, taught: tuple[str, ...] = ()) -> None:
    """Add a run and those behind it, each once and after its teacher.

    Args:
        taught: Runs whose teacher is being added. One that comes up again would have taught itself: the links of a
            damaged folder lead in circles, and who taught it is not known.
    """
    before, lost = ancestors(run, runs_dir)
    if lost is not None:
        steps.setdefault(f"began {lost}", _began(lost))
    for each in [*before, run]:
        key = str(each.path.resolve())
        if key in steps:
            continue
        if key in taught:
            steps.setdefault(f"teacher of {each.path}", _absent(each.info.teacher or {}))
            continue
        if members := soup_of(each.info):
            _add_members(steps, each, members, images, runs_dir, taught=(*taught, key))
        elif (about := each.info.teacher) is not None:
            if (teacher := teacher_of(each, runs_dir)) is None:
                steps.setdefault(f"teacher of {each.path}", _absent(about))
            else:
                _add(steps, teacher, images, runs_dir, (*taught, key))
        if (weights := _others_weights(each)) is not None:
            steps.setdefault(f"began {weights}", _began(weights))
        steps[key] = _trained(each, images)


def _add_members(
    steps: dict[str, Step],
    run: RunFolder,
    members: Sequence[str],
    images: Images,
    runs_dir: Path,
    *,
    taught: tuple[str, ...],
) -> None:
    """Add the runs whose mean a run is, each with what is behind it: what taught them taught it."""
    for member in members:
        try:
            before = open_named(member, run, runs_dir=runs_dir)
        except RunError:
            steps.setdefault(f"began {member}", _began(member))
            continue
        _add(steps, before, images, runs_dir, taught)


def _others_weights(run: RunFolder) -> str | None:
    """Whose weights its network was built with, where those are no run's; one that starts from a run may keep some."""
    model = run.recipe().model
    weights = getattr(model, "weights", "none")
    if weights == "none" or made_again(run.info) is not None:
        return None
    return f"the weights of {model.name}" if weights == "pretrained" else str(weights)


def _began(subject: str) -> Step:
    """What it began with, of which it is not known what that learned from."""
    return Step(what="initial weights, from elsewhere", subject=subject, reads={"taught": NOT_HERE})


def _trained(run: RunFolder, images: Images) -> Step:
    info = run.info
    if imported_from(info) is not None:
        return Step(what="imported", subject=str(run.path), reads={"taught": ELSEWHERE}, weights_sha256=_weights(run))
    parts = images.of_run(run)
    what, again = made_again(info) or ("trained", rerun_command(info.role, run.path))
    training = parts["training"] if "unlabelled" not in parts else f"{parts['training']} and {parts['unlabelled']}"
    reads = {_READS[what]: training} if what in _READS else {}
    if what == "trained" and "validation" in parts:
        reads["chose the epoch"] = parts["validation"]
    if what == "averaged" and SOUP_TRIED in info.extra:
        reads["chose which runs count"] = parts.get("validation", NOT_HERE)
    about = info.teacher or {}
    return Step(
        what=what,
        subject=str(run.path),
        reads=reads,
        weights_sha256=_weights(run),
        fingerprint=info.trained_on,
        teacher=about.get("name"),
        bank=_bank(about),
        seeds=info.seeds,
        threads=info.threads,
        command=shlex.join(info.command) if info.command else None,
        repeat=None if what == "cut" else again,
    )


def _weights(run: RunFolder) -> str | None:
    with suppress(DistillError):
        return read_identity(run, device=_CPU).weights
    return None


def _bank(about: dict[str, Any]) -> dict[str, str] | None:
    """Which stored answers it learned from; None where it asked its teacher."""
    return {name: about[name] for name in ("bank", "bank_key", "answers") if isinstance(about.get(name), str)} or None


def _absent(about: dict[str, Any]) -> Step:
    """A teacher that is not here, or no longer what it was: what is known of it is what its student's folder keeps."""
    return Step(
        what="taught, elsewhere",
        subject=str(about.get("run") or about.get("onnx") or about.get("bank") or about.get("name")),
        reads={"taught": NOT_HERE},
        weights_sha256=about.get("sha256"),
        teacher=about.get("name"),
        bank=_bank(about),
    )


def _file_step(run: RunFolder, file: OnnxClassifier, images: Images) -> Step:
    about, parts = file.about, images.of_run(run)
    judged = parts.get("validation", "training")
    if about.arithmetic == "fp32":
        reads = {"compared its answers with the network's": judged}
        if about.temperature is not None:
            reads["fitted the temperature"] = judged
    else:
        ranges = images.calibration(about.calibration_sha256, about.calibration_images)
        reads = {"set the ranges": ranges or NOT_SAID, "chose the scheme": judged}
    return Step(
        what="exported" if about.arithmetic == "fp32" else "quantised",
        subject=file.path.name,
        reads=reads,
        weights_sha256=about.weights_sha256,
        repeat=_written_by(run, about),
    )


def _written_by(run: RunFolder, about: FileAbout) -> str | None:
    """What writes such a file again; None where that needs more than the file says, as what a chain held it against."""
    if about.arithmetic == "fp32":
        calibrated = "" if about.temperature is None else " --calibrated"
        return f"distill export {shlex.quote(str(run.path))}{calibrated}"
    if about.max_drop is None or run.recipe().train.fake_quantize is not None:  # or was made on the way, of another run
        return None
    proven = " --prove" if about.proven else ""
    how = f"--calibration-images {about.calibration_images} --max-drop {about.max_drop!r}{proven}"
    return f"distill quantize {shlex.quote(str(run.path))} {how}"


def is_all_known(steps: Sequence[Step]) -> bool:
    """Whether every step tells which images it read."""
    return not any(part in (NOT_HERE, NOT_SAID, ELSEWHERE) for step in steps for part in step.reads.values())


def check_same_task(file: OnnxClassifier, run: RunFolder) -> None:
    """Refuse a reference that tells other classes apart.

    Raises:
        UsageError: It does.
    """
    if tuple((run.info.data or {}).get("classes") or file.classes) != file.classes:
        raise UsageError(
            f"{run.path} and {file.place} know different classes",
            hint="a loss is measured against a run of the same data",
        )
