"""Iterate over a split in batches, augmented on the device that trains.

The images live on the device where they fit. Where they do not, they are gathered on the host (or decoded, where they
are not kept), a few batches ahead and in the background, and copied while the device computes
(:mod:`distill.data.prefetch`). All give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from distill.data.augment import DeviceView, apply_part, device_view
from distill.data.mixture import labels_per_image
from distill.data.pictures import Pictures
from distill.data.prefetch import HostImages, prefetch_chunks
from distill.data.views import View
from distill.team.watch import beat

__all__ = [
    "Batch",
    "Epoch",
    "Loader",
    "Mix",
    "OnHost",
    "RawBatch",
    "batch_positions",
    "fits_on",
    "micro_batch_count",
    "steps_per_epoch",
]

_LARGEST_SHARE = 0.4  # of a device's free memory that images may take; the rest is for the model and its activations
_COPY_IMAGES = 4096  # at a time on the way to the device, so that a memory map is never held in memory as a whole


class ImageSplit(Protocol):
    """What a loader asks of a split: uint8 images ``(N, 3, S, S)``, their labels, and which images belong to it."""

    @property
    def images(self) -> np.ndarray | Pictures: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def index(self) -> np.ndarray | None: ...


@dataclass(frozen=True)
class Mix:
    """Labels of a mixed batch: ``weight`` of an image's own label, the rest of its partner's.

    Shapes:
        partner_labels: ``(B,)`` int64; weight: ``(B,)`` float32, 1 where an image is not mixed.
    """

    partner_labels: Tensor
    weight: Tensor


@dataclass(frozen=True)
class OnHost:
    """What a batch shows, as the host knows it: who looks something up there need not wait for the device.

    Shapes:
        index, views: ``(B,)`` int64, as in :class:`Batch`.
    """

    index: np.ndarray
    views: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Images and what is known about them; pixels are not normalised.

    Shapes:
        images: ``(B, 3, S, S)`` uint8, or float32 in [0, 255] under mixup, on the loader's device.
        labels: ``(B,)`` int64, on the loader's device.
        index: ``(B,)`` int64 position within the split, on the loader's device.
        views: ``(B,)`` int64 number of the stored view that each image shows, on the loader's device.
        label_fraction: ``()`` float32, labels for each image of the whole step, shared out; None: each has its own.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    views: Tensor
    mix: Mix | None = None
    on_host: OnHost | None = None
    label_fraction: Tensor | None = None

    @property
    def host(self) -> OnHost:
        """``on_host``, or where it is not there, asked of the device."""
        return self.on_host or OnHost(self.index.cpu().numpy(), self.views.cpu().numpy())

    @property
    def size(self) -> int:
        """How many images."""
        return len(self.index)


@dataclass(frozen=True)
class RawBatch:
    """The images of a step before anything was done to them, all on the loader's device.

    Shapes:
        images: ``(M, 3, S, S)`` uint8, where their pixels lie.
        at: ``(B,)`` int64, their positions within the split; ``(2B,)``, partners last, where ``mixes``.
        where: As ``at``, their positions in ``images``.
        host_at: As ``at``, on the host.
        label_fraction: As in :class:`Batch`.
    """

    images: Tensor
    at: Tensor
    where: Tensor
    mixes: bool
    host_at: np.ndarray
    label_fraction: Tensor | None = None

    @property
    def size(self) -> int:
        """How many images, partners not counted."""
        return len(self.at) // 2 if self.mixes else len(self.at)

    def micro_batches(self, count: int) -> list[RawBatch]:
        """At most ``count`` parts of nearly equal size, none of a single image: batch norm cannot train on one."""
        count = min(count, self.size // 2)
        if count <= 1:
            return [self]
        bounds = [self.size * number // count for number in range(count + 1)]
        return [self._part(slice(start, end)) for start, end in pairwise(bounds)]

    def _part(self, part: slice) -> RawBatch:
        at, where = (each.view(1 + self.mixes, -1)[:, part].flatten() for each in (self.at, self.where))
        host_at = self.host_at.reshape(1 + self.mixes, -1)[:, part].flatten()
        return replace(self, at=at, where=where, host_at=host_at)


def micro_batch_count(most: int, *, whole: int, world_size: int) -> int:
    """Into how many parts each process takes its share of a batch, as many on every one.

    Shares may differ by an image; batch norm over all processes meets in every part, and none is of a single image.

    Args:
        most: ``train.accumulate``.
        whole: Images of the batch over all processes.
    """
    return max(1, min(most, whole // world_size // 2))


@dataclass(frozen=True)
class Epoch:
    """One epoch of a split: what each step picks, and how a view shows it.

    Attributes:
        picked: The images of each step, once; to be closed where not all are taken.
    """

    picked: Generator[RawBatch]
    view: DeviceView
    views: Tensor
    host_views: np.ndarray
    labels: Tensor
    fill: Tensor
    channels_last: bool

    def batches(self) -> Generator[Batch]:
        """Every step's batch, shown one after another."""
        with closing(self.picked) as steps:
            for picked in steps:
                yield self.show(picked)

    def show(self, picked: RawBatch) -> Batch:
        """The batch: tensors in, tensors out; nothing waits for the device, and no shape depends on the data."""
        pixels = apply_part(picked.images, picked.where, self.view.take(picked.at), self.fill)
        own = picked.at[: picked.size]
        labels, mix = self.labels.index_select(0, picked.at), None
        if self.view.mixes:
            assert self.view.mix_weight is not None, "mixes"
            labels, partner_labels = labels.chunk(2)
            mix = Mix(partner_labels, self.view.mix_weight.index_select(0, own))
        if self.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        host = picked.host_at[: picked.size]
        on_host = OnHost(host, self.host_views[host])
        return Batch(pixels, labels, own, self.views.index_select(0, own), mix, on_host, picked.label_fraction)


def steps_per_epoch(n: int, batch_size: int, world_size: int = 1, *, keep_all: bool = False) -> int:
    """Batches in an epoch of ``n`` images, ``batch_size`` over all ``world_size`` processes.

    The last, smaller batch is kept, unless it has fewer than two images for each process: batch normalisation cannot
    train on one. ``keep_all`` keeps that one too, for networks that only answer.
    """
    full, rest = divmod(n, batch_size)
    return full + (rest >= (1 if keep_all else 2 * world_size))


def batch_positions(
    order: np.ndarray,
    batch_size: int,
    *,
    start_step: int = 0,
    shard: tuple[int, int] = (0, 1),
    keep_all: bool = False,
) -> list[np.ndarray]:
    """What process ``rank`` of ``world_size`` works on of each step's batch: every ``world_size``-th image."""
    rank, world_size = shard
    steps = range(start_step, steps_per_epoch(len(order), batch_size, world_size, keep_all=keep_all))
    return [np.ascontiguousarray(order[step * batch_size :][:batch_size][rank::world_size]) for step in steps]


def fits_on(device: torch.device, size_bytes: int) -> bool:
    """Whether images of this size should be held on the device; on a CPU they already are where they belong."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return size_bytes <= _LARGEST_SHARE * free
    if device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return size_bytes <= _LARGEST_SHARE * free
    return True


class _Array:
    """Images of an array, mapped or in memory."""

    def __init__(self, images: np.ndarray) -> None:
        self.tensor = _as_tensor(images)
        self.shape: tuple[int, ...] = tuple(self.tensor.shape[1:])

    def rows(self, index: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.index_select(self.tensor, 0, index, out=out)


class _Decoded:
    """Images that are decoded whenever they are asked for."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self.shape: tuple[int, ...] = pictures.shape[1:]

    def rows(self, index: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.from_numpy(self._pictures.take(index.numpy(), None if out is None else out.numpy()))


class Loader:
    """The images of one split, where they belong, and batches of them.

    Args:
        split: The images and labels.
        device: Where batches are made and arrive.
        resident: Hold all images on the device; None: where they fit.
        fill: Colour of erased squares, uint8 ``(3,)``, as the mean colour of the data set; None: black.
    """

    def __init__(
        self,
        split: ImageSplit,
        *,
        device: torch.device | str,
        resident: bool | None = None,
        fill: np.ndarray | None = None,
    ) -> None:
        self.device = _numbered(torch.device(device))
        self.n = len(split.labels)
        self._base_index = None if split.index is None else torch.from_numpy(np.array(split.index, dtype=np.int64))
        stays = isinstance(images := split.images, np.ndarray)
        self._host: HostImages = _Array(images) if isinstance(images, np.ndarray) else _Decoded(images)
        size_bytes = self.n * math.prod(self._host.shape)
        wanted = fits_on(self.device, size_bytes) if resident is None else resident
        self.resident = wanted and (stays or self.device.type != "cpu")
        self._images: Tensor | None = None
        self._device_index = self._base_index
        if self.resident and self.device.type != "cpu":
            self._images, self._device_index = self._copied_to_device(), None
        elif isinstance(self._host, _Array):
            self._images = self._host.tensor
        self._host_labels = np.array(split.labels, dtype=np.int64)
        self._labels = torch.from_numpy(self._host_labels).to(self.device)
        self._fill = torch.from_numpy(np.array([0, 0, 0] if fill is None else fill, dtype=np.uint8)).to(self.device)

    def __len__(self) -> int:
        return self.n

    def epoch(
        self,
        order: np.ndarray,
        view: View,
        views: np.ndarray,
        batch_size: int,
        *,
        start_step: int = 0,
        shard: tuple[int, int] = (0, 1),
        keep_all: bool = False,
        channels_last: bool = False,
    ) -> Epoch:
        """One epoch as ``view`` shows it.

        Args:
            order: Positions within the split, in the order of the epoch, int64.
            view: Every choice of augmentation, for all images of the split.
            views: Number of the stored view that each image of the split shows, int64 ``(n,)``; handed on in batches.
            batch_size: Images a step over all processes.
            start_step: Steps of this epoch that are already done.
            shard: This process's rank, and how many there are.
            keep_all: Keep a last batch of a single image too (:func:`steps_per_epoch`).
            channels_last: Lay the pixels out as channels-last.
        """
        assert view.n == self.n == len(views)
        batches = batch_positions(order, batch_size, start_step=start_step, shard=shard, keep_all=keep_all)
        needed = [_with_partners(index, view.partner) for index in batches]
        whole = batch_positions(order, batch_size, start_step=start_step, keep_all=keep_all)
        fractions = labels_per_image(self._host_labels, view, whole[: len(batches)])
        return Epoch(
            picked=self._pick(needed, mixes=view.partner is not None, fractions=fractions),
            view=device_view(view, self.device),
            views=torch.from_numpy(views).to(self.device),
            host_views=views,
            labels=self._labels,
            fill=self._fill,
            channels_last=channels_last,
        )

    def plain(self, batch_size: int) -> Iterator[Batch]:
        """All images in order, as they are; the last batch has what remains."""
        batches = [np.arange(at, min(at + batch_size, self.n)) for at in range(0, self.n, batch_size)]
        for picked in self._pick(batches):
            at = picked.at
            pixels = picked.images.index_select(0, picked.where)
            yield Batch(pixels, self._labels.index_select(0, at), at, torch.zeros_like(at))

    def _pick(
        self, needed: list[np.ndarray], *, mixes: bool = False, fractions: np.ndarray | None = None
    ) -> Generator[RawBatch]:
        if not needed:
            return
        # One transfer an epoch: a copy of each small index would wait for the device.
        positions = torch.from_numpy(np.concatenate(needed)).to(self.device).split([len(each) for each in needed])
        shares = [None] * len(needed) if fractions is None else torch.from_numpy(fractions).to(self.device).unbind()
        if self.resident:
            assert self._images is not None, "resident"
            for at, host, share in zip(positions, needed, shares, strict=True):
                where = at if self._device_index is None else self._device_index.index_select(0, at)
                beat()
                yield RawBatch(self._images, at, where, mixes, host, share)
            return
        chunks = prefetch_chunks(self._host, self._rows_of(needed), self.device)
        for chunk, at, host, share in zip(chunks, positions, needed, shares, strict=True):
            beat()
            yield RawBatch(chunk, at, torch.arange(len(at), device=self.device), mixes, host, share)

    def _rows_of(self, needed: list[np.ndarray]) -> Iterator[Tensor]:
        """For each batch: the rows to send."""
        for positions in map(torch.from_numpy, needed):
            yield positions if self._base_index is None else self._base_index.index_select(0, positions)

    def _copied_to_device(self) -> Tensor:
        images = torch.empty((self.n, *self._host.shape), dtype=torch.uint8, device=self.device)
        index = torch.arange(self.n) if self._base_index is None else self._base_index
        for at in range(0, self.n, _COPY_IMAGES):
            beat()
            part = index[at : at + _COPY_IMAGES]
            images[at : at + len(part)] = self._host.rows(part).to(self.device)
        return images


def _numbered(device: torch.device) -> torch.device:
    """``cuda`` as ``cuda:<current>``: the thread that streams has a current device of its own, the first one."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _with_partners(index: np.ndarray, partner: np.ndarray | None) -> np.ndarray:
    return index if partner is None else np.concatenate([index, partner[index]])


class _Readable:
    """An array's memory offered as writable, which nobody will write to: torch warns about read-only memory maps."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array  # kept alive as long as any tensor that shares its memory
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def _as_tensor(images: np.ndarray) -> Tensor:
    """The same memory as a tensor, also of a read-only memory map."""
    images = np.ascontiguousarray(images)
    return torch.from_numpy(images if images.flags.writeable else np.asarray(_Readable(images)))
