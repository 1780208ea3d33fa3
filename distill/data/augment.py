"""Apply a plan to a batch of images, on the device that holds them.

Every result is exact: integers all the way, and for mixup float32 products of a pixel with a multiple of 2**-16, which
lose nothing. So the same view gives the same bytes whatever the batch size, the device, or the number of processes.
Nothing here waits for the device or has a shape that depends on the data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from distill.data.colour import blurred, grey, looked_up, moved, sharpened, toned, turned_hue
from distill.data.geometry import TURN_BITS, Border, fold, gather_pixels, resample, rotate
from distill.data.photometric import look_columns
from distill.data.views import WEIGHT_UNIT, View

__all__ = ["APPLIED_VERSION", "DeviceView", "apply_part", "apply_view", "device_view", "images_needed"]

APPLIED_VERSION = 1  # raise it whenever the same plan would give other pixels: stored answers are about those pixels


@dataclass(frozen=True, eq=False)
class DeviceView:
    """A view on a device, as one table: a row for each image, a column for each choice.

    Shapes:
        table: ``(n, len(names))`` int64.
        mix_weight: ``(n,)`` float32 share of the image's own label, or None without mixing.
    """

    table: Tensor
    names: tuple[str, ...]
    image_size: int
    padding: int
    border: Border
    erase_size: int
    bare_is_mean: bool
    mix_weight: Tensor | None

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with partners."""
        return self.mix_weight is not None

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Tensor:
        return self.table[:, self.names.index(name)]

    def take(self, index: Tensor) -> DeviceView:
        """The view of these images alone."""
        weight = None if self.mix_weight is None else self.mix_weight.index_select(0, index)
        return self._with(self.table.index_select(0, index), weight)

    def head(self, count: int) -> DeviceView:
        """The first ``count`` images."""
        return self._with(self.table[:count], None if self.mix_weight is None else self.mix_weight[:count])

    def _with(self, table: Tensor, mix_weight: Tensor | None) -> DeviceView:
        return replace(self, table=table, mix_weight=mix_weight)


def device_view(view: View, device: torch.device | str) -> DeviceView:
    """Moves a view to a device, in one transfer."""
    columns = _columns(view)
    table = np.stack(list(columns.values()), axis=1) if columns else np.zeros((view.n, 0), dtype=np.int64)
    weight = None if view.mix_weight is None else torch.from_numpy(view.mix_weight).to(device)
    return DeviceView(
        table=torch.from_numpy(table).to(device),
        names=tuple(columns),
        image_size=view.image_size,
        padding=view.padding,
        border=view.border,
        erase_size=view.erase_size,
        bare_is_mean=view.bare == "mean",
        mix_weight=weight,
    )


def images_needed(view: DeviceView, index: Tensor) -> Tensor:
    """The images a batch is made of: ``index``, and with mixing the partners after them: int64 ``(B,)``, ``(2B,)``."""
    if not view.mixes:
        return index
    return torch.cat([index, view["partner"].index_select(0, index)])


def apply_view(images: Tensor, index: Tensor, view: DeviceView, fill: Tensor) -> Tensor:
    """The batch ``index`` as ``view`` shows it.

    Shapes:
        images: ``(N, 3, S, S)`` uint8, the whole training split, on the device of ``view``.
        index: ``(B,)`` int64 on that device.
        fill: ``(3,)`` uint8, the colour of erased squares.
        returns: ``(B, 3, S, S)`` uint8; float32 in [0, 255] where mixup is on.
    """
    needed = images_needed(view, index)
    return apply_part(images, needed, view.take(needed), fill)


def apply_part(images: Tensor, at: Tensor, view: DeviceView, fill: Tensor) -> Tensor:
    """:func:`apply_view` for images that lie anywhere: entry j of ``view`` is applied to ``images[at[j]]``.

    With mixing, the second half of ``at`` and of ``view`` are the partners of the first (:func:`images_needed`).
    """
    pixels = _cropped(images, at, view)
    if "cosine" in view:
        pixels = rotate(pixels, view["cosine"], view["sine"], border=view.border)
    pixels = _looking(pixels, view, fill)
    if "erase_y" in view:
        pixels = _erased(pixels, view, fill)
    if view.mixes:
        own, other = pixels.chunk(2)
        pixels = _mixed(own, other, view.head(len(own)))
    return pixels


def _columns(view: View) -> dict[str, np.ndarray]:
    """A view's choices as int64 columns; what needs a sine or a division is worked out here, on the CPU."""
    columns: dict[str, np.ndarray] = {}
    for name in ("dy", "dx", "hflip", "vflip", "erase_y", "erase_x", "partner"):
        if getattr(view, name) is not None:
            columns[name] = getattr(view, name).astype(np.int64)
    if view.crop is not None:
        columns["crop_y"], columns["crop_x"], height, width = view.crop.T
        for name, side in (("step_y", height), ("step_x", width)):
            columns[name] = (side * 2**8 + view.image_size // 2) // view.image_size  # in 2**-16 pixels
    if view.angle is not None:
        angle = np.deg2rad(view.angle.astype(np.float64))
        columns["cosine"] = np.rint(np.cos(angle) * 2**TURN_BITS).astype(np.int64)
        columns["sine"] = np.rint(np.sin(angle) * 2**TURN_BITS).astype(np.int64)
    if view.box is not None:
        columns |= dict(zip(("top", "left", "bottom", "right"), view.box.T, strict=True))
    if view.mixup_share is not None:
        columns["mixup_share"] = np.rint(view.mixup_share / WEIGHT_UNIT).astype(np.int64)
    return columns | look_columns(view)


def _looking(pixels: Tensor, view: DeviceView, fill: Tensor) -> Tensor:
    """RandAugment or TrivialAugment, then jitter, grey, blur."""
    slot = 0
    while f"table_{slot}" in view:
        pixels = _operated(pixels, view, slot, fill if view.bare_is_mean else torch.zeros_like(fill))
        slot += 1
    for place in range(4):
        if f"jitter_factor_{place}" in view:
            pixels = toned(pixels, view[f"jitter_tone_{place}"], view[f"jitter_factor_{place}"])
        if f"jitter_hue_{place}" in view:
            pixels = turned_hue(pixels, view[f"jitter_hue_{place}"])
    if "grayscale" in view:
        pixels = _chosen(_bits(view["grayscale"] != 0)[:, None, None, None], grey(pixels).to(torch.uint8), pixels)
    if "blur_0" in view:
        pixels = blurred(pixels, [view[name] for name in view.names if name.startswith("blur_")])
    return pixels


def _operated(pixels: Tensor, view: DeviceView, slot: int, fill: Tensor) -> Tensor:
    """One operation of each image's own: all kinds run, and an image is changed by its own alone."""
    pixels = moved(pixels, tuple(view[f"{name}_{slot}"] for name in ("xx", "xy", "yx", "yy", "x0", "y0")), fill)
    pixels = toned(pixels, view[f"tone_{slot}"], view[f"toned_{slot}"])
    pixels = sharpened(pixels, view[f"sharpened_{slot}"])
    return looked_up(pixels, view[f"table_{slot}"], view[f"level_{slot}"])


def _cropped(images: Tensor, at: Tensor, view: DeviceView) -> Tensor:
    """The images cropped and flipped, gathered in one go."""
    if not {"dy", "crop_y", "hflip", "vflip"} & set(view.names):
        return images.index_select(0, at)
    pixel = torch.arange(view.image_size, device=at.device)
    y, x = _flipped(pixel, view, "vflip"), _flipped(pixel, view, "hflip")
    if "crop_y" in view:
        return resample(images, at, _stretched(y, view, "y"), _stretched(x, view, "x"))
    size = view.image_size
    if "dy" in view:
        y = y + (view["dy"][:, None] - view.padding)
        x = x + (view["dx"][:, None] - view.padding)
    y, x = y.expand(len(at), -1), x.expand(len(at), -1)
    pixels = gather_pixels(images, at, fold(y, size, view.border), fold(x, size, view.border))
    if "dy" in view and view.border == "zero":
        inside_y, inside_x = (y >= 0) & (y < size), (x >= 0) & (x < size)
        pixels &= _bits(inside_y)[:, None, :, None] & _bits(inside_x)[:, None, None, :]
    return pixels


def _flipped(pixel: Tensor, view: DeviceView, name: str) -> Tensor:
    """Which pixel of the unflipped image each pixel shows: ``(B, S)``, or ``(1, S)`` without that flip."""
    if name not in view:
        return pixel[None]
    return torch.where(view[name][:, None] != 0, view.image_size - 1 - pixel, pixel)


def _stretched(pixel: Tensor, view: DeviceView, axis: str) -> Tensor:
    """Centres of the pixels of a resized crop, as positions in the image, in 1/256 pixel: ``(B, S)``."""
    # (pixel + 1/2) * step - 1/2, the step being in 2**-16 pixels
    return view[f"crop_{axis}"][:, None] + (((2 * pixel + 1) * view[f"step_{axis}"][:, None]) >> 9) - 128


def _erased(pixels: Tensor, view: DeviceView, fill: Tensor) -> Tensor:
    top, left = view["erase_y"], view["erase_x"]
    square = _inside(top, left, top + view.erase_size, left + view.erase_size, view.image_size)
    return _chosen(square, fill[:, None, None], pixels)


def _mixed(own: Tensor, other: Tensor, view: DeviceView) -> Tensor:
    """The partner's box of CutMix, then mixup: an image has at most one of the two."""
    if "top" in view:
        box = _inside(view["top"], view["left"], view["bottom"], view["right"], view.image_size)
        own = _chosen(box, other, own)
    if "mixup_share" in view:
        share = view["mixup_share"].float()[:, None, None, None] * WEIGHT_UNIT
        own = torch.lerp(other.float(), own.float(), share)  # exact: 8 bits of pixel times 16 bits of share
    return own


def _inside(top: Tensor, left: Tensor, bottom: Tensor, right: Tensor, size: int) -> Tensor:
    """Which pixels lie in each image's box: uint8 ``(B, 1, S, S)``, all bits set inside and none outside."""
    pixel = torch.arange(size, device=top.device)
    rows = (pixel >= top[:, None]) & (pixel < bottom[:, None])
    columns = (pixel >= left[:, None]) & (pixel < right[:, None])
    return _bits(rows)[:, None, :, None] & _bits(columns)[:, None, None, :]


def _bits(mask: Tensor) -> Tensor:
    return mask.to(torch.uint8) * 255


def _chosen(mask: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """``torch.where`` for uint8 masks of all bits or none: a tenth of its time on a CPU, where it is not vectorised."""
    return outside ^ ((inside ^ outside) & mask)
