"""fsp, ab, ofd, ft: float64 NumPy, torchdistill where it is, and what they own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.data.batches import Batch
from distill.errors import RecipeError
from distill.objectives import TermContext
from distill.objectives.ab import AB, ab_loss
from distill.objectives.fsp import FSP, fsp_loss
from distill.objectives.ft import FT, ft_loss
from distill.objectives.ofd import OFD, ofd_loss
from distill.recipe.feature_terms import ABTerm, FSPTerm, FTTerm, OFDTerm

from .reference import SHAPES, answer, assert_equals

WIDE = {name: (2 * shape[0], *shape[1:]) for name, shape in SHAPES.items()}
SAME, WIDER = TermContext(student=SHAPES, teacher=SHAPES), TermContext(student=SHAPES, teacher=WIDE)


def batch(count=4):
    index = torch.arange(count)
    return Batch(torch.zeros(count, 3, 1, 1), index % 3, index, index, None)


def numpy_ab(student: np.ndarray, teacher: np.ndarray, margin: float) -> float:
    total = 0.0
    for ours, theirs in zip(student.ravel(), teacher.ravel(), strict=True):
        if theirs > 0 and ours < margin:
            total += (margin - ours) ** 2
        if theirs <= 0 and ours > -margin:
            total += (margin + ours) ** 2
    return total / len(student)


def numpy_ofd(student: np.ndarray, teacher: np.ndarray, margin: np.ndarray) -> float:
    total = 0.0
    for place in np.ndindex(student.shape):
        ours, theirs, low = student[place], teacher[place], margin[place[1]]
        if theirs > 0 or low < theirs < ours:
            total += (ours - theirs) ** 2
        elif theirs <= low < ours:
            total += (ours - low) ** 2
    return total / len(student)


def numpy_fsp(student: list[np.ndarray], teacher: list[np.ndarray]) -> float:
    """Both stages of one size."""

    def matrices(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.einsum("bchw,bdhw->bcd", first, second) / first[0, 0].size

    return float(((matrices(*student) - matrices(*teacher)) ** 2).mean())


def numpy_ft(student: np.ndarray, teacher: np.ndarray) -> float:
    units = [[each.ravel() / np.linalg.norm(each) for each in maps] for maps in (student, teacher)]
    return float(np.mean([np.abs(s - t) for s, t in zip(*units, strict=True)]))


@pytest.fixture
def maps():
    return np.random.default_rng(5).normal(size=(2, 2, 3, 4, 4))


@pytest.mark.parametrize("margin", [0.5, 1.0])
def test_ab_is_numpys(maps, margin):
    assert_equals(lambda s, t: ab_loss(s, t, margin=margin), lambda s, t: numpy_ab(s, t, margin), *maps)


def test_ofd_is_numpys(maps):
    margin = np.array([-0.2, -0.7, 0.0])
    fixed = torch.from_numpy(margin).float()[:, None, None]
    assert_equals(lambda s, t: ofd_loss(s, t, fixed), lambda s, t: numpy_ofd(s, t, margin), *maps)


def test_ft_is_numpys(maps):
    assert_equals(ft_loss, numpy_ft, *maps, tolerance=1e-4)


def test_fsp_is_numpys(maps):
    second = np.random.default_rng(6).normal(size=(2, 2, 5, 4, 4))
    more = [torch.from_numpy(each).float() for each in second]
    assert_equals(
        lambda s, t: fsp_loss((s, more[0]), (t, more[1])),
        lambda s, t: numpy_fsp([s, second[0]], [t, second[1]]),
        *maps,
    )


def test_fsp_averages_the_larger_map(maps):
    first, second = torch.from_numpy(maps).float()
    small, other = (torch.nn.functional.avg_pool2d(each, 2) for each in (first, second))
    mixed, averaged = fsp_loss((first, small), (second, other)), fsp_loss((small, small), (other, other))
    torch.testing.assert_close(mixed, averaged, rtol=1e-5, atol=1e-7)


def test_equal_torchdistill(maps):
    theirs = pytest.importorskip("torchdistill.losses.mid_level")
    student, teacher = torch.from_numpy(maps).float()
    told = {"s": {"output": student}}, {"t": {"output": teacher}}
    one, other = {"io": "output", "path": "s"}, {"io": "output", "path": "t"}
    ab = theirs.AltActTransferLoss({"p": {"student": one, "teacher": other}}, margin=1.0, reduction="mean")(*told)
    torch.testing.assert_close(ab_loss(student, teacher, margin=1.0), ab)
    ft = theirs.FTLoss(paraphraser_path="t", translator_path="s")(*told)
    torch.testing.assert_close(ft_loss(student, teacher), ft)
    ours, others = (theirs.FSPLoss.compute_fsp_matrix(each, each) for each in (student, teacher))
    torch.testing.assert_close(fsp_loss((student, student), (teacher, teacher)), (ours - others).square().mean())


def test_fsp_takes_the_stem_and_every_stage_and_refuses_other_widths():
    term = FSP(FSPTerm(kind="fsp"), SAME)
    assert term.requires.student_features == ("stem", "stage1", "stage2")
    student, teacher = answer(SHAPES, 0), answer(SHAPES, 1)
    expected = 0.0
    for pair in (("stem", "stage1"), ("stage1", "stage2")):
        ours, theirs = (tuple(each.features[name] for name in pair) for each in (student, teacher))
        expected += fsp_loss(ours, theirs)
    torch.testing.assert_close(term.losses(student, teacher, batch())["fsp"], expected)
    with pytest.raises(RecipeError, match=r"the student's stem has 4 channels, the teacher's stem 8"):
        FSP(FSPTerm(kind="fsp"), WIDER)
    with pytest.raises(RecipeError, match="share one alone"):
        FSP(FSPTerm(kind="fsp"), TermContext(student={"stage1": (4, 2, 2)}, teacher=SHAPES))
    with pytest.raises(ValueError, match="two at least"):
        FSPTerm(kind="fsp", features=("stage1",))


@pytest.mark.parametrize(("kind", "spec"), [(AB, ABTerm(kind="ab")), (OFD, OFDTerm(kind="ofd"))])
def test_ab_and_ofd_compare_what_enters_activations_and_earlier_stages_count_half(kind, spec):
    term = kind(spec, WIDER)
    names = ("stage1.preact", "stage2.preact")
    assert term.requires.teacher_features == names
    student, teacher = answer(SHAPES, 0), answer(WIDE, 1)
    parts = []
    for connector, name in zip(term.connectors, names, strict=True):
        target, ours = teacher.features[name], connector(student.features[name])
        margin = torch.stack([channel[channel < 0].mean() for channel in target.unbind(1)])[:, None, None]
        parts.append(ab_loss(ours, target, margin=1.0) if kind is AB else ofd_loss(ours, target, margin))
    found = term.losses(student, teacher, batch())[spec.kind]
    torch.testing.assert_close(found, parts[0] / 2 + parts[1], rtol=1e-4, atol=1e-4)


def test_ofds_margins_are_means_over_all_images_so_far():
    term = OFD(OFDTerm(kind="ofd"), WIDER)
    told = [answer(WIDE, seed) for seed in range(3)]
    for each in told:
        term.losses(answer(SHAPES, 9), each, batch())
    numbers = torch.cat([each.features["stage1.preact"] for each in told]).double()
    for channel, seen in enumerate(numbers.unbind(1)):
        assert term.margins[0].mean[channel].item() == pytest.approx(seen[seen < 0].mean().item(), rel=1e-5)
        assert term.margins[0].count[channel].item() == (seen < 0).sum().item()


def test_a_channel_that_is_never_off_has_margin_0():
    term = OFD(OFDTerm(kind="ofd", features=("stage1.preact",)), WIDER)
    told = answer(WIDE, 0)
    told.features["stage1.preact"].abs_()
    assert term.losses(answer(SHAPES, 9), told, batch())["ofd"].isfinite()
    assert not term.margins[0].mean.any()


def test_where_no_stage_ends_in_an_activation_they_say_so():
    plain = {name: shape for name, shape in SHAPES.items() if not name.endswith(".preact")}
    context = TermContext(student=plain, teacher=plain)
    with pytest.raises(RecipeError, match="no stages of the same names that end in an activation"):
        OFD(OFDTerm(kind="ofd"), context)
    OFD(OFDTerm(kind="ofd", features=("stage1", "stage2")), context)


def test_fts_paraphraser_learns_first_and_alone_and_then_no_more():
    torch.manual_seed(0)
    term = FT(FTTerm(kind="ft", paraphraser_epochs=2), WIDER)
    assert term.requires.teacher_features == ("stage2",)
    student, teacher = answer(SHAPES, 0), answer(WIDE, 1)
    student.features["stage2"].requires_grad_()
    for epoch, part in enumerate(("paraphraser", "paraphraser", "ft", "ft")):
        term.begin_epoch(epoch)
        term.zero_grad(set_to_none=True)
        student.features["stage2"].grad = None
        found = term.losses(student, teacher, batch())
        assert set(found) == {part}
        found[part].backward()
        learns = {name.split(".")[0] for name, each in term.named_parameters() if each.grad is not None}
        assert learns == ({"paraphrasers"} if part == "paraphraser" else {"translators"})
        assert (student.features["stage2"].grad is not None) == (part == "ft")


def test_fts_factor_has_half_the_teachers_channels_and_its_maps_come_back_from_it():
    torch.manual_seed(0)
    term = FT(FTTerm(kind="ft", paraphraser_epochs=1), WIDER)
    teacher = answer(WIDE, 1)
    assert term.paraphrasers[0].factor(teacher.features["stage2"]).shape == (4, 8, 4, 4)
    optimizer = torch.optim.Adam(term.parameters(), lr=0.01)
    seen = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = term.losses(answer(SHAPES, 0), teacher, batch())["paraphraser"]
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.8 * seen[0]
