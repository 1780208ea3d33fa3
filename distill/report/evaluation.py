"""Tables of one model's answers: metrics, classes, confusion, predictions of single pictures."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from distill.report.layout import Column, key_values, stacked
from distill.results.corruptions import CORRUPTION_NAMES, CORRUPTIONS, SEVERITIES, CorruptionResult
from distill.results.evaluations import Evaluation, Evaluations
from distill.results.rows import Prediction
from distill.text import MISSING, count, csv_text, cut, fixed, percent, plain

__all__ = ["PREDICTION_FIELDS", "evaluation_table", "evaluations_table", "predictions_csv", "predictions_table"]

# The columns of a table of predictions.
PREDICTION_FIELDS = ("file", "rank", "label", "probability", "true_label", "teacher_label")
_MAX_CLASSES = 20  # a larger confusion matrix is a picture
_MAX_CONFUSIONS = 10


def evaluation_table(evaluation: Evaluation, width: int) -> RenderableType:
    """Metrics over all images, then by class, then which classes are taken for which."""
    result = evaluation.result
    parts: list[RenderableType] = [_metrics(evaluation), Text(), _classes(evaluation, width), Text()]
    if len(result.per_class) <= _MAX_CLASSES:
        head = Text("confusion: true class down, predicted class across", style="bold")
        parts += [head, Text(), _confusion(evaluation, width), Text()]
    parts += [Text(f"note: {plain(note)}", style="yellow") for note in evaluation.notes]
    if result.top_confusions():
        parts += [Text("most frequent confusions", style="bold"), Text(), _worst_pairs(evaluation, width)]
    if evaluation.corruptions is not None:
        parts += [Text(), Text("top-1 under corruptions, by severity", style="bold"), Text()]
        parts.append(_corruptions(evaluation.corruptions, width))
    return Group(*parts)


def evaluations_table(many: Evaluations, width: int) -> RenderableType:
    """One line a model; then how each stands to the first under corruptions."""
    runs = many.runs
    corrupted = [each.corruptions for each in runs]
    after = [each.calibrated for each in runs]
    columns = [
        Column("model", many.labels, words=True, style="bold"),
        Column("role", many.roles, words=True),
        Column("top-1\n%", [percent(each.result.top1) for each in runs]),
        Column("balanced\naccuracy, %", [percent(each.result.balanced_accuracy) for each in runs]),
        Column("macro F1\n%", [percent(each.result.macro_f1) for each in runs]),
        Column("NLL", [fixed(each.result.nll, 4) for each in runs]),
        Column("ECE\n%", [percent(each.result.ece) for each in runs]),
        Column("calibrated\nECE, %", [MISSING if each is None else percent(each.ece) for each in after]),
        Column("AURC", [MISSING if r.risk_coverage is None else fixed(r.risk_coverage.aurc, 4) for r in runs]),
        Column("corrupted\ntop-1, %", [MISSING if each is None else _with_spread(each) for each in corrupted]),
        Column("retained\n%", [MISSING if each is None else percent(each.retained) for each in corrupted]),
    ]
    parts: list[RenderableType] = [stacked(columns, width)]
    if any(each is not None for each in corrupted):
        parts += [Text(), Text("mean top-1 of each corruption, %", style="bold"), Text(), _side_by_side(many, width)]
    names = dict(zip((each.run for each in runs), many.labels, strict=True))
    for each in many.against:
        change = f"{100 * each.difference:+.2f} ({100 * each.low:+.2f} to {100 * each.high:+.2f})"
        line = f"{names[each.run]} against {names[each.against]} under corruptions: {change} points: {each.verdict}"
        parts.append(Text(plain(line)))
    notes = dict.fromkeys([*many.notes, *(note for each in runs for note in each.notes)])
    parts += [Text(f"note: {plain(note)}", style="yellow") for note in notes]
    return Group(*parts)


def _with_spread(found: CorruptionResult) -> str:
    return f"{percent(found.mean_top1)} ({percent(found.mean_low)} to {percent(found.mean_high)})"


def _side_by_side(many: Evaluations, width: int) -> RenderableType:
    columns = [Column("corruption", [CORRUPTION_NAMES[name] for name in CORRUPTIONS], words=True, style="bold")]
    for name, each in zip(many.labels, many.runs, strict=True):
        if (found := each.corruptions) is not None:
            columns.append(Column(cut(plain(name), 24), [percent(found.mean_of(each)) for each in CORRUPTIONS]))
    return stacked(columns, width)


def _corruptions(found: CorruptionResult, width: int) -> RenderableType:
    curves = [found.curve(name) for name in CORRUPTIONS]
    columns = [Column("", [CORRUPTION_NAMES[name] for name in CORRUPTIONS], words=True, style="bold")]
    for severity in (0, *SEVERITIES):
        head = f"{severity}\n%" if severity else "clean\n%"
        columns.append(Column(head, [percent(curve[severity]) for curve in curves]))
    columns.append(Column("mean\n%", [percent(found.mean_of(name)) for name in CORRUPTIONS]))
    return stacked(columns, width)


def _metrics(evaluation: Evaluation) -> RenderableType:
    result = evaluation.result
    pairs = [
        ("run", evaluation.run),
        ("split", f"{evaluation.split}, {count(result.n)} images"),
        ("test-time augmentation", "" if evaluation.tta == "none" else f"{evaluation.tta}: not the run's own figures"),
        ("top-1", f"{percent(result.top1)} %"),
        ("top-5", "" if result.top5 is None else f"{percent(result.top5)} %"),
        ("macro precision", f"{percent(result.macro_precision)} %"),
        ("macro recall", f"{percent(result.macro_recall)} %"),
        ("balanced accuracy", f"{percent(result.balanced_accuracy)} %"),
        ("macro F1", f"{percent(result.macro_f1)} %"),
        ("NLL", fixed(result.nll, 4)),
        ("ECE", f"{percent(result.ece)} %"),
        *_confidence(evaluation),
    ]
    return key_values([pair for pair in pairs if pair[1]])


def _confidence(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Calibration, errors among the surest, and what corruptions leave, each where it was measured."""
    pairs = []
    if (found := evaluation.temperature) is not None and (after := evaluation.calibrated) is not None:
        edge = ", the end of what is tried" if found.at_bound else ""
        text = f"{found.value:.4g}, fitted on {count(found.n)} validation images{edge}"
        pairs.append(("temperature", f"{text}: NLL {fixed(after.nll, 4)}, ECE {percent(after.ece)} %"))
    if (curve := evaluation.risk_coverage) is not None:
        shares = f"at most 1 % errors among the surest {percent(curve.coverage_at_risk_1, 1)} % of the images"
        shares += f", 5 % among {percent(curve.coverage_at_risk_5, 1)} %"
        pairs.append(("AURC", f"{fixed(curve.aurc, 4)}, {fixed(curve.excess_aurc, 4)} above the best order; {shares}"))
    if (corrupted := evaluation.corruptions) is not None:
        text = (
            f"{_with_spread(corrupted)} %, of {percent(corrupted.clean_top1)} % clean, on {count(corrupted.n)} images"
        )
        pairs.append(("under corruptions", text))
    return pairs


def _classes(evaluation: Evaluation, width: int) -> RenderableType:
    classes = evaluation.result.per_class
    columns = [
        Column("class", [each.label for each in classes], words=True, style="bold"),
        Column("precision\n%", [percent(each.precision) for each in classes]),
        Column("recall\n%", [percent(each.recall) for each in classes]),
        Column("F1\n%", [percent(each.f1) for each in classes]),
        Column("accuracy\n%", [percent(each.accuracy) for each in classes]),
        Column("images", [count(each.n) for each in classes]),
    ]
    return stacked(columns, width)


def _confusion(evaluation: Evaluation, width: int) -> RenderableType:
    labels = [each.label for each in evaluation.result.per_class]
    matrix = evaluation.result.confusion
    columns = [Column("", labels, words=True, style="bold")]
    for place, label in enumerate(labels):
        columns.append(Column(cut(plain(label), 12), [count(row[place]) for row in matrix]))
    return stacked(columns, width)


def _worst_pairs(evaluation: Evaluation, width: int) -> RenderableType:
    worst = evaluation.result.top_confusions(_MAX_CONFUSIONS)
    columns = [
        Column("true class", [each.label for each in worst], words=True, style="bold"),
        Column("predicted", [each.predicted for each in worst], words=True),
        Column("images", [count(each.n) for each in worst]),
        Column("of the class\n%", [percent(each.share, 1) for each in worst]),
    ]
    return stacked(columns, width)


def predictions_table(predictions: Sequence[Prediction], width: int) -> RenderableType:
    """One row a picture: its classes by falling probability."""
    places = max((len(prediction.top) for prediction in predictions), default=0)
    columns = [Column("file", [prediction.file for prediction in predictions], words=True, style="bold")]
    columns.append(Column("true", [prediction.label or "" for prediction in predictions], words=True))
    for place in range(places):
        cells = [_guess(prediction, place) for prediction in predictions]
        columns.append(Column(f"top {place + 1}", cells, words=True))
    columns.append(Column("teacher", [p.teacher.label if p.teacher else "" for p in predictions], words=True))
    return stacked(columns, width)


def _guess(prediction: Prediction, place: int) -> str:
    if place >= len(prediction.top):
        return ""
    guess = prediction.top[place]
    return f"{percent(guess.probability, 1):>5}% {guess.label}"


def predictions_csv(predictions: Sequence[Prediction]) -> str:
    """One line for each picture and class, most probable first."""
    rows = (
        (each.file, rank, guess.label, guess.probability, each.label, each.teacher.label if each.teacher else None)
        for each in predictions
        for rank, guess in enumerate(each.top, start=1)
    )
    return csv_text(PREDICTION_FIELDS, rows)
