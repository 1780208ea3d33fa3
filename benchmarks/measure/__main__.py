"""Work through the recipes that are measured on real CIFAR, one run after another.

``python -m benchmarks.measure --runs DIR [--out docs/results] [--threads 1] [--weights DIR] [--only R,...]
[--anew] [--list]``

Start it from a checkout that nobody edits (``git worktree add --detach``): each result names the commit that it was
made from, and changed files are refused. It stops at any moment and goes on where it stopped when it is started again:
a run that is half done is resumed, one that is done is skipped, and so is one that docs/results/cifar.json already
holds (but for a teacher whose students are still to come: its weights are needed). A recipe that was changed since is
not done. After each run ``cifar.json``, ``cifar.md`` and ``cifar.svg`` in ``--out`` are written anew, and the time left
is estimated.

Several queues may share a folder of runs where each is given others: ``--only fast_cifar10-1`` is one run.

A run in bf16 is not gone on with on a CPU that emulates it, and the arms of one seed are not spread over two kinds of
CPU: such runs are passed over, and told; ``--anew`` makes an arm that stands once more, on this one. Several teachers
of one student are asked in bf16 where the CPU has that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.measure.document import Results, names, read_results
from benchmarks.measure.left import seconds_left
from benchmarks.measure.plan import SOONER, Item, arms, items
from benchmarks.measure.work import FailedError, Place, cpu_kind, find_run, measure, recipe_digest, trained_run
from benchmarks.measure.write import write_results
from distill.recipe import bundled_recipes, load_recipe
from distill.runs import git_state
from distill.text import duration

ROOT = Path(__file__).parents[2]
_INTERRUPTED = (130, 143)
_CLASSES, _TRAIN_IMAGES = {"cifar10": 10, "cifar100": 100}, 50_000


def pending(place: Place, results: Results, chosen: list[Item]) -> list[Item]:
    """The runs that are still to be made, in order; those of several teachers come first."""
    open_ones = [item for item in chosen if not _is_done(place, item, results)]
    needed = {recipe.teacher.run for item in open_ones if (recipe := place.recipe(item)).teacher is not None}
    members = {member for item in open_ones for member in place.missing(item)}
    left = {*open_ones, *members}
    todo = [item for item in chosen if item in left or (item.recipe in needed and not _is_here(place, item))]
    return sorted(todo, key=lambda item: item not in members)  # else in the order of the plan


def _is_done(place: Place, item: Item, results: Results) -> bool:
    """Whether a result stands: it is of the recipe as it is today."""
    if item not in results:
        return False
    return results[item].get("recipe_digest") == recipe_digest(place.recipe(item))


def _is_here(place: Place, item: Item) -> bool:
    run = find_run(place, item)
    return run is not None and run.status == "finished"


def obstacle(place: Place, item: Item, results: Results, kind: dict[str, Any]) -> str | None:
    """Why a run must not be made on this CPU, or not yet; None where it may."""
    if missing := place.missing(item):
        return f"its teachers are made first: {names(missing)}"
    run = find_run(place, item)
    if run is not None and run.status != "finished" and run.recipe().train.precision == "bf16" and not kind["bf16"]:
        return "it began in bf16, which this CPU emulates"
    for other in arms(item):
        if other in results and results[other]["cpu"] != kind:
            return f"{other} was made on another kind of CPU: {results[other]['cpu']}"
    return None


def work_of(place: Place, item: Item) -> float:
    """Billions of multiply-accumulates of a run's training images, forward."""
    from distill.evaluation.cost import spec_cost  # torch, for the estimate alone

    recipe = place.recipe(item)
    gmacs = spec_cost(recipe.model, _CLASSES[recipe.data.name]).macs / 1e9
    data = recipe.data
    images = min(data.limit or _TRAIN_IMAGES, _TRAIN_IMAGES) * (1 - data.val_fraction)
    if data.unlabelled is not None:
        images /= 1 - data.unlabelled_share
    return gmacs * images * recipe.train.epochs


def known(out: Path, anew: list[Item]) -> Results:
    """What was measured, but for what was published of ``anew``."""
    published = read_results(ROOT / "docs" / "results" / "cifar.json")
    return {item: record for item, record in published.items() if item not in anew} | read_results(out / "cifar.json")


def run_queue(place: Place, results: Results, out: Path, chosen: list[Item], kind: dict[str, Any]) -> int:
    """Make what is left; the exit code."""
    failed: list[Item] = []
    for item in pending(place, results, chosen):
        if (reason := obstacle(place, item, results, kind)) is not None:
            _say(f"{item}: passed over: {reason}")
            continue
        _say(f"{item}: begins")
        try:
            results[item] = measure(place, item, kind)
        except FailedError as error:
            _say(str(error))
            if error.code in _INTERRUPTED:
                return error.code
            failed.append(item)
            continue
        write_results(results, out)
        _say(f"{item}: test top-1 {100 * results[item]['test_top1']:.2f}%; {_left(place, results, chosen)}")
    if failed:
        _say(f"failed: {names(failed)}; see {place.runs / 'measured'}")
    return 1 if failed else 0


def _left(place: Place, results: Results, chosen: list[Item]) -> str:
    todo = pending(place, results, chosen)
    seconds, unknown = seconds_left([(item, work_of(place, item)) for item in todo], results)
    more = f", and {len(unknown)} of unknown length" if unknown else ""
    return f"{len(todo)} run(s) left, some {duration(seconds)}{more}"


def main(arguments: list[str] | None = None) -> int:
    """Works through the queue, or lists it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "results", help="folder for cifar.json, cifar.md, cifar.svg"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a run (default: 1)")
    parser.add_argument("--weights", type=Path, help="folder of benchmarks.pretrained (default: timm's hub)")
    parser.add_argument("--only", help="recipes, or runs as RECIPE-SEED, comma-separated (default: all)")
    parser.add_argument("--anew", action="store_true", help="make what docs/results/cifar.json has of --only once more")
    parser.add_argument("--list", action="store_true", help="say what is left, and make nothing")
    options = parser.parse_args(arguments)
    planned = [item for item in items() if item.recipe in bundled_recipes()]
    only = set(options.only.split(",")) if options.only else {item.recipe for item in planned}
    if unknown := only - {name for item in planned for name in (item.recipe, str(item))}:
        parser.error(f"--only: the plan has no {', '.join(sorted(unknown))}")
    chosen = [item for item in planned if only & {item.recipe, str(item)}]
    runs = options.runs.absolute()
    taught = {} if options.list else _trained_teachers(runs, {item.recipe for item in chosen})
    settings = _weights(options.weights, {item.recipe for item in planned})
    settings |= {recipe: (setting,) for recipe, setting in taught.items()}
    kind = None if options.list else cpu_kind()
    if kind is not None and kind["bf16"]:
        settings |= {recipe: ("teacher.precision=bf16",) for recipe in SOONER}
    place = Place(runs, options.threads, settings)
    state = git_state(Path.cwd())
    if state is not None and state["dirty"] and not options.list:
        parser.error(
            "tracked files differ from the commit: work from a checkout of its own (git worktree add --detach)"
        )
    results, out = known(options.out, chosen if options.anew else []), options.out.absolute()
    if kind is None:
        print("\n".join(map(str, pending(place, results, chosen))))
        return 0
    results |= read_results(*sorted((runs / "measured").glob("*.json")))
    return run_queue(place, results, out, chosen, kind)


def _weights(folder: Path | None, recipes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Where each pretrained teacher of the queue finds its weights."""
    if folder is None:
        return {}
    files = {path.stem: path for path in folder.absolute().glob("*.safetensors")}
    networks = {recipe: load_recipe(recipe).model.name for recipe in recipes}
    return {recipe: (f"model.weights={files[name]}",) for recipe, name in networks.items() if name in files}


def _trained_teachers(runs: Path, chosen: set[str]) -> dict[str, str]:
    """What students have whose teacher comes trained: that one, not a run that the queue makes of its recipe."""
    found = {}
    for recipe in sorted(chosen):
        teacher = load_recipe(recipe).teacher
        if teacher is not None and (run := trained_run(runs, teacher.run)) is not None:
            found[recipe] = f"teacher.run={run.path}"
    return found


def _say(line: str) -> None:
    from distill.runs import utc_now

    print(f"{utc_now()} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
