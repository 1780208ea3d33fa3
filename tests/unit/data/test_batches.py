"""Batches: which images, in which order, on which process; the same whether images are resident or streamed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.data.batches import Batch, Loader, batch_positions, micro_batch_count, steps_per_epoch
from distill.data.images import Split
from distill.data.prefetch import in_background
from distill.data.views import View, epoch_order, plan_view
from distill.recipe.schema import AugmentSpec

N, SIZE = 37, 8
MIXED = {"crop_padding": 2, "hflip": 0.5, "mixup": {"alpha": 1.0, "probability": 0.5}, "cutmix": {"alpha": 1.0}}


def split() -> Split:
    """37 of 50 images, in another order."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (50, 3, SIZE, SIZE), dtype=np.uint8)
    return Split(images, generator.integers(0, 10, N), index=generator.permutation(50)[:N].astype(np.int64))


def planned(**settings: Any) -> View:
    return plan_view(AugmentSpec.model_validate(settings), n=N, image_size=SIZE, view=2)


def batches(loader: Loader, view: View, batch_size: int = 8, **settings: Any) -> list[Batch]:
    numbers = np.arange(N) * 10
    return list(loader.epoch(epoch_order(0, 0, N), view, numbers, batch_size, **settings).batches())


def joined(parts: list[Batch], name: str) -> torch.Tensor:
    return torch.cat([getattr(part, name) for part in parts])


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for name in ("images", "labels", "index", "views"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        if one.mix is not None:
            assert torch.equal(one.mix.partner_labels, other.mix.partner_labels)
            assert torch.equal(one.mix.weight, other.mix.weight)


def test_batches_follow_the_order() -> None:
    data = split()
    parts = batches(Loader(data, device="cpu"), planned())
    assert [part.size for part in parts] == [8, 8, 8, 8, 5]
    order = epoch_order(0, 0, N)
    assert joined(parts, "index").tolist() == order.tolist()
    assert joined(parts, "views").tolist() == (order * 10).tolist()
    assert joined(parts, "labels").tolist() == data.labels[order].tolist()
    np.testing.assert_array_equal(joined(parts, "images").numpy(), data.take(order))
    assert all(part.mix is None for part in parts)


def test_mixed_labels_are_the_partners() -> None:
    data, view = split(), planned(**MIXED)
    for part in batches(Loader(data, device="cpu"), view):
        index = part.index.numpy()
        assert part.labels.tolist() == data.labels[index].tolist()
        assert part.mix.partner_labels.tolist() == data.labels[view.partner[index]].tolist()
        assert part.mix.weight.tolist() == view.mix_weight[index].tolist()
        assert part.images.dtype == torch.float32
        unmixed = view.mix_kind[index] == 0
        assert (part.mix.weight.numpy()[unmixed] == 1).all()


@pytest.mark.parametrize("settings", [{}, {"crop_padding": 2, "rotation": 10.0}, MIXED])
def test_streamed_is_resident(settings: dict[str, Any]) -> None:
    view = planned(**settings)
    resident, streamed = (Loader(split(), device="cpu", resident=each) for each in (True, False))
    assert resident.resident
    assert not streamed.resident
    assert_same(batches(resident, view), batches(streamed, view))
    assert_same(list(resident.plain(10)), list(streamed.plain(10)))


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [True, False])
def test_cuda_is_cpu(resident: bool) -> None:
    view = planned(**MIXED)
    here, there = (
        batches(Loader(split(), device="cpu"), view),
        batches(Loader(split(), device="cuda", resident=resident), view),
    )
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.images, other.images.cpu())
        assert torch.equal(one.mix.weight, other.mix.weight.cpu())


@pytest.mark.parametrize("world_size", [2, 3])
def test_shards_make_up_the_batch(world_size: int) -> None:
    loader, view = Loader(split(), device="cpu"), planned(**MIXED)
    shards = [batches(loader, view, shard=(rank, world_size)) for rank in range(world_size)]
    whole = batches(loader, view)
    steps = steps_per_epoch(N, 8, world_size)
    assert {len(shard) for shard in shards} == {steps}
    for step in range(steps):
        together = torch.empty_like(whole[step].images)
        for rank in range(world_size):
            together[rank::world_size] = shards[rank][step].images
            assert shards[rank][step].size >= 2
        assert torch.equal(together, whole[step].images)


@pytest.mark.parametrize("done", [0, 1, 4, 5])
def test_an_epoch_can_be_taken_up_in_the_middle(done: int) -> None:
    loader, view = Loader(split(), device="cpu"), planned(**MIXED)
    assert_same(batches(loader, view)[done:], batches(loader, view, start_step=done))


def test_the_batch_size_changes_no_pixel() -> None:
    loader, view = Loader(split(), device="cpu"), planned(**MIXED)
    images = [joined(batches(loader, view, size), "images") for size in (3, 5, 37, 100)]
    assert [len(each) for each in images] == [36, 37, 37, 37]  # of a last batch of one, nothing is trained on
    assert all(torch.equal(each[:36], images[0]) for each in images)


@pytest.mark.parametrize(
    ("n", "batch_size", "world_size", "steps"),
    [
        (37, 8, 1, 5),
        (37, 12, 1, 3),
        (36, 12, 1, 3),
        (37, 8, 2, 5),
        (37, 8, 3, 4),
        (3, 8, 1, 1),
        (1, 8, 1, 0),
        (0, 8, 1, 0),
    ],
)
def test_steps_per_epoch(n: int, batch_size: int, world_size: int, steps: int) -> None:
    assert steps_per_epoch(n, batch_size, world_size) == steps
    for rank in range(world_size):
        assert len(batch_positions(np.arange(n), batch_size, shard=(rank, world_size))) == steps


def test_a_last_single_image_is_kept_on_request() -> None:
    loader = Loader(split(), device="cpu")
    assert [part.size for part in batches(loader, planned(), 12, keep_all=True)] == [12, 12, 12, 1]
    assert [part.size for part in batches(loader, planned(), 12)] == [12, 12, 12]


def test_plain_has_every_image_in_order() -> None:
    data = split()
    parts = list(Loader(data, device="cpu").plain(10))
    assert [part.size for part in parts] == [10, 10, 10, 7]
    np.testing.assert_array_equal(joined(parts, "images").numpy(), data.take(slice(0, N)))
    assert joined(parts, "labels").tolist() == data.labels.tolist()
    assert joined(parts, "index").tolist() == list(range(N))


def test_channels_last_is_the_same_picture() -> None:
    loader, view = Loader(split(), device="cpu"), planned(**MIXED)
    for one, other in zip(batches(loader, view), batches(loader, view, channels_last=True), strict=True):
        assert torch.equal(one.images, other.images)
        assert one.images.is_contiguous()
        assert other.images.is_contiguous(memory_format=torch.channels_last)


def test_erased_squares_take_the_fill() -> None:
    loader = Loader(split(), device="cpu", fill=np.array([1, 2, 3], dtype=np.uint8))
    for part in batches(loader, planned(erase={"size": 16})):
        assert (part.images == torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None]).any(dim=(2, 3)).all()


@pytest.mark.parametrize("resident", [True, False])
def test_a_read_only_memory_map_is_used_in_place(tmp_path: Path, resident: bool) -> None:
    np.save(tmp_path / "images.npy", split().images)
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    data = Split(images, split().labels, index=split().index)
    loader = Loader(data, device="cpu", resident=resident)
    assert loader._host.tensor.data_ptr() == images.__array_interface__["data"][0]
    assert_same(batches(loader, planned(**MIXED)), batches(Loader(split(), device="cpu"), planned(**MIXED)))


@pytest.mark.parametrize("settings", [{}, MIXED], ids=["plain", "mixed"])
@pytest.mark.parametrize("resident", [True, False])
def test_a_batch_in_pieces_has_the_same_images(settings: dict[str, Any], resident: bool) -> None:
    """Positions are cut before anything is done to the pixels; partners stay with their images."""
    loader, view = Loader(split(), device="cpu", resident=resident), planned(**settings)
    epoch = loader.epoch(epoch_order(0, 0, N), view, np.arange(N) * 10, 8)
    micro_batches = [[epoch.show(piece) for piece in picked.micro_batches(3)] for picked in epoch.picked]
    assert [piece.size for piece in micro_batches[0]] == [2, 3, 3]
    for whole, parts in zip(batches(loader, view), micro_batches, strict=True):
        for name in ("images", "labels", "index", "views"):
            assert torch.equal(joined(parts, name), getattr(whole, name)), name
        if whole.mix is not None:
            assert torch.equal(torch.cat([part.mix.partner_labels for part in parts]), whole.mix.partner_labels)
            assert torch.equal(torch.cat([part.mix.weight for part in parts]), whole.mix.weight)


@pytest.mark.parametrize(
    ("size", "count", "sizes"),
    [
        (9, 8, [2, 2, 2, 3]),
        (8, 8, [2, 2, 2, 2]),
        (7, 3, [2, 2, 3]),
        (3, 2, [3]),
        (2, 5, [2]),
        (1, 2, [1]),
        (6, 1, [6]),
    ],
)
def test_no_piece_is_a_single_image(size: int, count: int, sizes: list[int]) -> None:
    loader = Loader(split(), device="cpu")
    epoch = loader.epoch(np.arange(size), planned(), np.zeros(N, np.int64), size, keep_all=True)
    (picked,) = epoch.picked
    assert [piece.size for piece in picked.micro_batches(count)] == sizes


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("most", [1, 2, 3, 4, 8])
def test_every_process_takes_its_share_in_as_many_pieces(world_size: int, most: int) -> None:
    """Batch norm over all processes meets in every piece: one piece more on one of them would wait for ever."""
    loader = Loader(split(), device="cpu")
    for whole in range(2 * world_size, min(N, 30)):
        count, sizes = micro_batch_count(most, whole=whole, world_size=world_size), []
        for size in {-(-(whole - rank) // world_size) for rank in range(world_size)}:
            epoch = loader.epoch(np.arange(size), planned(), np.zeros(N, np.int64), size, keep_all=True)
            (picked,) = epoch.picked
            sizes.append([piece.size for piece in picked.micro_batches(count)])
        assert {len(each) for each in sizes} == {count}
        assert min(min(each) for each in sizes) >= 2
        assert count == most or 2 * (count + 1) * world_size > whole - world_size + 1  # no fewer than can be


def test_an_abandoned_epoch_leaves_no_thread() -> None:
    before = threading.active_count()
    epoch = Loader(split(), device="cpu", resident=False).epoch(np.arange(N), planned(), np.zeros(N, np.int64), 2)
    batches = epoch.batches()
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_errors_in_the_background_are_raised() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    background = in_background(items())
    assert next(background) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(background)
