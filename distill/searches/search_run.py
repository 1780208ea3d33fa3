"""From a definition to a report: how many evaluations, the search, the finals, the file, its certificate."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from distill.certificate import certify
from distill.devices.kit_script import cpu_model
from distill.errors import DistillError
from distill.events import Note
from distill.files import write_atomically, write_json
from distill.pipeline.context import Options
from distill.recipe import dump_recipe
from distill.report.verdict import drop_sentence
from distill.results.search import SearchReport, budget_text
from distill.searches.bench import Runtime
from distill.searches.costs import LATENCIES
from distill.searches.explore import Explored, explore, widest_uniform
from distill.searches.finals import Final, advice, choose, finalist_rows, finalist_shapes, finals, tried_rows
from distill.searches.folder import SearchDefinition, SearchFolder
from distill.searches.prices import cheapest, extrapolated, price_curve, rounded_up
from distill.searches.reference import AccuracyReference
from distill.searches.rungs import MIN_EVALUATIONS, Plan, plan_of
from distill.searches.ship import Excess, Shipped, Shipping, ship
from distill.searches.trials import ShapeEvaluator
from distill.text import counted, duration, percent, plain

__all__ = ["SearchRun"]


@dataclass
class SearchRun:
    """One search, from its folder as it stands to its end."""

    definition: SearchDefinition
    folder: SearchFolder
    trials: ShapeEvaluator
    reference: AccuracyReference
    options: Options

    def run(self) -> SearchReport:
        """All of it; what is done already costs nothing."""
        self.trials.kept.clear_orphans()
        plan = self._plan()
        self.trials.epochs, self.trials.rungs = plan.total_epochs, plan.rungs
        explored = explore(self.trials.space, self.trials, self.trials, self.limits, plan, tell=self._say)
        report = self._begun(0 if explored is None else len(explored.candidates))
        if explored is None:
            return self._kept(self._nothing_fits(report))
        self._tell_if_short(explored, plan)
        return self._kept(self._finished(report, explored, plan))

    @property
    def limits(self) -> dict[str, float]:
        """The budgets, and the recipe's own on parameters."""
        budgets = dict(self.definition.budgets)
        most = self.trials.base.recipe.max_params
        if most is not None:
            budgets["params"] = min(budgets.get("params", float(most)), float(most))
        return budgets

    def _own_limit_binds(self) -> bool:
        """Whether the recipe's own limit on parameters is less than the budget's."""
        return self.limits.get("params", math.inf) < self.definition.budgets.get("params", math.inf)

    def _say(self, text: str) -> None:
        self.options.tell(Note(f"candidate {text}"))

    # How much

    def _plan(self) -> Plan:
        asked = self.definition
        epochs = asked.base.recipe.train.epochs
        plan = plan_of(asked.evaluations, epochs=epochs, seeds=asked.seeds)
        if asked.hours is None:
            return plan
        told = {"hours": asked.hours, "evaluations": asked.evaluations, "seeds": asked.seeds}
        count = self.folder.decided(told)
        if count is None:
            count = self._affordable(plan, told)
        return plan_of(count, epochs=epochs, seeds=asked.seeds)

    def _affordable(self, plan: Plan, told: Mapping[str, Any]) -> int:
        """How many evaluations the hours allow, by how long the first epochs of the uniform shape take."""
        asked = self.definition
        first = widest_uniform(self.trials.space, self.trials, self.limits)
        if first is None:
            return asked.evaluations  # nothing fits: nothing will be trained
        self.trials.score(first.shape, plan.rungs[0])
        mean = self.trials.seconds_per_epoch() or 0.0
        count = asked.evaluations

        def seconds(count: int) -> float:
            return mean * plan_of(count, epochs=plan.epochs, seeds=asked.seeds).total_epochs

        assert asked.hours is not None
        while count > MIN_EVALUATIONS and seconds(count) > 3600 * asked.hours:
            count -= 1
        if seconds(count) > 3600 * asked.hours:
            text = f"--hours {asked.hours:g}: the least search takes about {duration(seconds(count))}, and is made"
            self.options.tell(Note(text, "warning"))
        elif count < asked.evaluations:
            self.options.tell(Note(f"{count} evaluations of {asked.evaluations} fit into {asked.hours:g} h"))
        self.folder.decide(told, count, mean)
        return count

    # What came of it

    def _tell_if_short(self, explored: Explored, plan: Plan) -> None:
        """Say so where shapes ran out before evaluations did; what cannot be trained was told already."""
        tried, planned = len(explored.candidates), plan.first + plan.local
        if explored.best and tried < planned:
            what = f"{counted(tried, 'shape')} tried, of {planned}: no other that fills the budgets was found"
            self.options.tell(Note(what))

    def _begun(self, evaluations: int) -> SearchReport:
        asked = self.definition
        return SearchReport(
            name=self.folder.path.name,
            folder=str(self.folder.path),
            recipe=asked.base.recipe.name,
            budgets=asked.budgets,
            runtime=asked.runtime,
            threads=asked.threads,
            machine=cpu_model() if asked.measure is None else asked.measure,
            noise=self.trials.bench.noise,
            max_drop=asked.max_drop,
            prove=asked.prove,
            reference=self.reference.name,
            max_params=self.trials.base.recipe.max_params,
            evaluations=evaluations,
        )

    def _nothing_fits(self, report: SearchReport) -> SearchReport:
        nearest, quantity, prices = cheapest(self.trials.space, self.trials, self.limits)
        would = " and ".join(budget_text(*each) for each in nearest.items())
        least = self.trials.space.smallest
        missed = f"no shape fits: the smallest, {least}, needs {would}" if nearest else "no shape that fits was found"
        if "params" in nearest and self._own_limit_binds():
            missed += f", and the recipe's model.max_params is {self.trials.base.recipe.max_params:,}"
        return replace(report, missed=missed, nearest=nearest, priced=quantity, prices=prices)

    def _finished(self, report: SearchReport, explored: Explored, plan: Plan) -> SearchReport:
        self.trials.plan_rest(finalist_shapes(explored), plan.seeds)
        found = finals(explored, self.trials, plan.seeds)
        report = replace(
            report,
            tried=tried_rows(explored, self.trials),
            search_epochs=explored.search_epochs,
            random_epochs=explored.random_epochs,
        )
        if not found:
            return replace(report, missed="no shape could be trained to its end")
        taken, helped = choose(found)
        asked = self.definition
        bench = self.trials.bench
        shipping = Shipping(
            into=self.folder.path,
            runtime=cast(Runtime, asked.runtime),
            budgets=self.limits,
            measured=bench.of_file,
            noise=bench.noise or 0.0,
            multiple=self.trials.space.multiple,
            max_drop=asked.max_drop,
            prove=asked.prove,
            options=replace(self.options, timing_threads=asked.threads),
        )
        shipped = ship(taken, self.reference, shipping)
        report = replace(
            report,
            finalists=finalist_rows(found, taken, self.trials),
            helped=helped,
            advice=advice(found),
            best_recipe=str(self._write_recipe(taken, shipped)),
            cut=shipped.cut.why if shipped.cut else None,
        )
        report = self._judged(report, shipped)
        if shipped.file is not None:
            report = replace(report, certificate=self._certified(shipped.file, shipped.run, taken))
        return report

    def _judged(self, report: SearchReport, shipped: Shipped) -> SearchReport:
        if shipped.drop is None:
            return replace(report, missed=shipped.why)  # of rounding: what more of the budget would buy says nothing
        words = drop_sentence(shipped.drop)
        report = replace(
            report,
            file=str(shipped.file),
            drop=shipped.drop.to_json() | {"allowed": shipped.drop.allowed},
            drop_words=words,
        )
        over = shipped.over
        excess = "" if over is None else f"the file takes {percent(over.times, 1)}% of the budget of {over.quantity}"
        if shipped.drop.passes:
            return report if over is None else replace(report, missed=excess, nearest=self._enough(over))
        missed = f"the file of the shape that was taken {words}, against {report.reference}"
        missed += f"; {excess}" if excess else ""
        return self._priced(replace(report, missed=missed), shipped.drop.decisive - report.max_drop)

    def _enough(self, over: Excess) -> dict[str, float]:
        """The budget that would have held."""
        return {over.quantity: rounded_up(over.quantity, self.limits[over.quantity] * over.times)}

    def _priced(self, report: SearchReport, missing: float) -> SearchReport:
        """Why it was not enough, and what more of the budget would buy."""
        epochs = self.definition.base.recipe.train.epochs
        quantity, points = price_curve(self.trials.space, self.trials, self.limits, epochs)
        value = extrapolated(points, missing)
        nearest = None if quantity is None or value is None else {quantity: float(f"{value:.3g}")}
        return replace(report, priced=quantity, prices=points, nearest=nearest)

    def _write_recipe(self, taken: Final, shipped: Shipped) -> Path:
        path = self.folder.path / "best.yaml"
        recipe = self.trials.kept.trainer.pinned(self.trials.recipe_of(taken.candidate.shape))
        budgets = ", ".join(f"{name} <= {limit:g}" for name, limit in self.definition.budgets.items())
        lines = [f"Found by distill search within {budgets}: {taken.candidate.shape}."]
        if shipped.cut is not None:
            cut = shipped.cut.run.recipe()
            recipe = recipe.model_copy(update={"name": cut.name, "model": cut.model})
            lines.append(f"Then {shipped.cut.why}: {shipped.cut.run.path} began with what was left of its weights.")
        lines += [f"Found by: {shlex.join(self.options.command)}"] if self.options.command else []
        lines += [f"Run:    distill student --recipe {shlex.quote(str(path))}"]
        write_atomically(path, "".join(f"# {plain(line)}\n" for line in lines) + dump_recipe(recipe))
        return path

    def _certified(self, file: Path, run: Path | None, taken: Final) -> str | None:
        """The file's certificate, beside it; None where that cannot be had, which is told."""
        asked = self.definition
        budgets = {name: limit for name, limit in asked.budgets.items() if self._is_of_file(name)}
        place = self.folder.path / "certificate.json"
        place.unlink(missing_ok=True)  # an earlier call's, which may have shipped another file for another goal
        try:
            made = certify(
                file,
                run=run,
                against=None if self.reference.run is None else str(self.reference.run),
                max_drop=None if self.reference.run is None else asked.max_drop,
                prove=asked.prove and self.reference.run is not None,
                budgets=budgets,
                out=place,
                overwrite=True,
                require=False,
                chosen=[str(self.folder.path)],
                made={"search": self.folder.path.name, "budgets": asked.budgets, "seeds": len(taken.runs)},
                options=replace(self.options, timing_threads=asked.threads),
            )
        except DistillError as error:  # the search is done, and its file there
            self.options.tell(Note(f"no certificate: {error.message}", "warning"))
            return None
        return str(made.path)

    def _is_of_file(self, quantity: str) -> bool:
        """Whether the search's budget is one of the ONNX file, here: not what PyTorch weighs, nor another's time."""
        asked = self.definition
        if quantity in LATENCIES:
            return asked.measure is None and asked.runtime != "torch"
        return quantity != "size_mb" or asked.runtime != "torch"

    def _kept(self, report: SearchReport) -> SearchReport:
        from distill.report.search_plots import plot_search  # matplotlib, at the end alone

        plot = plot_search(report, self.folder.path / "front.svg")
        report = replace(report, plot=None if plot is None else str(plot))
        write_json(self.folder.path / "result.json", report.to_json())
        return report
