"""The plan of an epoch: its order, and every random choice of augmentation for all images at once.

A *view* fixes what happens to each of the N training images. The choice for image i depends on
``(view_seed, view, i)`` alone (a mixing partner comes from one permutation of the training split), never on the batch,
the device or the process. Each kind of choice has its own named stream, so that switching one augmentation on never
shifts the draws of another. Numbers are kept as integers, or as multiples of a power of two, so that applying a plan
(:mod:`distill.data.augment`) is exact arithmetic and gives the same bytes on every device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

import numpy as np

from distill.data import streams
from distill.data.photometric import draw_looks
from distill.errors import RecipeError
from distill.recipe.augmentation import AugmentSpec, MixSpec, ResizedCropSpec

__all__ = [
    "CUTMIX",
    "MIXUP",
    "PIXEL_UNIT",
    "UNMIXED",
    "WEIGHT_UNIT",
    "View",
    "check_size",
    "epoch_order",
    "epoch_view",
    "plan_view",
    "table_view",
    "view_checksum",
    "views_of",
]

UNMIXED, MIXUP, CUTMIX = 0, 1, 2
WEIGHT_UNIT = 2**-16  # exact in float32 when multiplied by a pixel; coarser than what library versions disagree about
PIXEL_UNIT = 2**-8  # of resized crops, in pixels
_ANGLE_UNIT = 2**-8  # of rotations, in degrees
_CROP_TRIES = 10  # of a resized crop, as in torchvision


# Where these are off, they are no part of a checksum: banks that were built before there were any keep theirs.
_LATER = ("bare", "blur_side", "operation", "strength", "jitter_order", "jitter", "grayscale", "blur")


@dataclass(frozen=True, eq=False)
class View:
    """What happens to each of ``n`` images; an array is None where that augmentation is off.

    Order of operations: crop (``crop``, or ``dy`` and ``dx``), ``hflip``, ``vflip``, ``angle``, ``operation``,
    ``jitter``, ``grayscale``, ``blur``, erasing, mixing.

    Shapes:
        dy, dx: ``(n,)`` int64 in [0, 2 * padding], offsets into the padded image.
        crop: ``(n, 4)`` int64 top, left, height, width in units of ``PIXEL_UNIT``.
        hflip, vflip: ``(n,)`` bool.
        angle: ``(n,)`` float32 degrees, counter-clockwise.
        erase_y, erase_x: ``(n,)`` int64 top left corner of a square of side ``erase_size``; it may hang over the
            border, and lies wholly outside (``-erase_size``) where nothing is erased.
        partner: ``(n,)`` int64, the image that is mixed in, as it looks in this view.
        mix_kind: ``(n,)`` int64 ``UNMIXED``, ``MIXUP`` or ``CUTMIX``.
        mix_weight: ``(n,)`` float32 share of the image's own label; 1 where unmixed.
        mixup_share: ``(n,)`` float32 share of the image's own pixels under mixup, a multiple of ``WEIGHT_UNIT``;
            1 where mixup is not what happens.
        box: ``(n, 4)`` int64 top, left, bottom, right of the partner's box; empty where there is none.
        operation, strength, jitter_order, jitter, grayscale, blur: :func:`distill.data.photometric.draw_looks`.
    """

    n: int
    image_size: int
    padding: int = 0
    border: Literal["reflect", "zero"] = "reflect"
    erase_size: int = 0
    dy: np.ndarray | None = None
    dx: np.ndarray | None = None
    crop: np.ndarray | None = None
    hflip: np.ndarray | None = None
    vflip: np.ndarray | None = None
    angle: np.ndarray | None = None
    erase_y: np.ndarray | None = None
    erase_x: np.ndarray | None = None
    partner: np.ndarray | None = None
    mix_kind: np.ndarray | None = None
    mix_weight: np.ndarray | None = None
    mixup_share: np.ndarray | None = None
    box: np.ndarray | None = None
    bare: Literal["zero", "mean"] = "zero"
    blur_side: int = 0
    operation: np.ndarray | None = None
    strength: np.ndarray | None = None
    jitter_order: np.ndarray | None = None
    jitter: np.ndarray | None = None
    grayscale: np.ndarray | None = None
    blur: np.ndarray | None = None


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which epoch ``epoch`` shows ``n`` images: int64 ``(n,)``, a permutation."""
    return streams.permutation(n, "order", seed, epoch)


def plan_view(augment: AugmentSpec, *, n: int, image_size: int, view: int) -> View:
    """Every choice of view ``view`` for all ``n`` images.

    Raises:
        RecipeError: As :func:`check_size`.
    """
    check_size(augment, image_size)
    key = ("view", augment.view_seed, view)
    padding = augment.crop_padding
    choices: dict[str, np.ndarray] = {}
    if padding:
        choices["dy"] = streams.integers(n, 2 * padding + 1, *key, "dy")
        choices["dx"] = streams.integers(n, 2 * padding + 1, *key, "dx")
    if augment.resized_crop is not None:
        choices["crop"] = _resized_crop(augment.resized_crop, n, image_size, key)
    if augment.hflip:
        choices["hflip"] = _hflip(augment, n, view)
    if augment.vflip:
        choices["vflip"] = streams.uniform(n, *key, "vflip") < augment.vflip
    if augment.rotation:
        turn = (2 * streams.uniform(n, *key, "angle") - 1) * augment.rotation
        choices["angle"] = streams.quantized(turn, _ANGLE_UNIT).astype(np.float32)
    choices |= draw_looks(augment, n, image_size, key)
    if augment.erase.size:
        choices |= _erasing(augment, n, image_size, key)
    if augment.mixup.alpha or augment.cutmix.alpha:
        choices |= _mixing(augment, n, image_size, key)
    return _view(augment, n, image_size, choices)


def _hflip(augment: AugmentSpec, n: int, view: int) -> np.ndarray:
    """Drawn for each view, or for the first one, and turned in every second view from there."""
    drawn_in = 0 if augment.hflip_alternates else view
    flip = streams.uniform(n, "view", augment.view_seed, drawn_in, "hflip") < augment.hflip
    return flip ^ (augment.hflip_alternates and view % 2 == 1)


def views_of(augment: AugmentSpec, epochs: int) -> int:
    """How many distinct views ``epochs`` epochs show; for ``views: all``, how many entries the table has."""
    if augment.views == "all":
        return (2 * augment.crop_padding + 1) ** 2 * (2 if augment.hflip else 1)
    if not augment.is_random:
        return 1
    return epochs if augment.views is None else min(augment.views, epochs)


def table_view(augment: AugmentSpec, *, n: int, image_size: int, number: int) -> View:
    """Entry ``number`` of ``views: all``, the same for every image.

    They enumerate (dy, dx, flip), the flip fastest: ``number = (dy * (2p + 1) + dx) * flips + flip``.
    """
    assert augment.views == "all"
    return _tabulated(augment, np.full(n, number, dtype=np.int64), image_size)


def epoch_view(
    augment: AugmentSpec, *, n: int, image_size: int, epoch: int, train_seed: int, epochs: int
) -> tuple[View, np.ndarray]:
    """What epoch ``epoch`` of ``epochs`` shows, and which stored view each image then reads.

    Shapes:
        returns: the view, and its number for each image, int64 ``(n,)``: ``epoch mod views`` for all; with
            ``views: all`` each image draws its own entry of the table, from ``train_seed`` and the epoch.
    """
    views = views_of(augment, epochs)
    if augment.views == "all":
        numbers = streams.integers(n, views, "row", train_seed, epoch)
        return _tabulated(augment, numbers, image_size), numbers
    number = epoch % views
    return plan_view(augment, n=n, image_size=image_size, view=number), np.full(n, number, dtype=np.int64)


def view_checksum(view: View) -> str:
    """sha256 over every setting and choice of a view, in hexadecimal; the same on every machine."""
    digest = hashlib.sha256()
    for field in fields(view):
        value = getattr(view, field.name)
        if field.name in _LATER and not isinstance(value, np.ndarray) and value == field.default:
            continue
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
            digest.update(f"{field.name}:{array.dtype.name}:{array.shape};".encode())
            digest.update(array.tobytes())
        else:
            digest.update(f"{field.name}={value};".encode())
    return digest.hexdigest()


def check_size(augment: AugmentSpec, image_size: int) -> None:
    """Whether images of this size can be augmented so.

    Raises:
        RecipeError: A reflected border, or a blur, that is larger than they are.
    """
    if augment.crop_fill == "reflect" and augment.crop_padding >= image_size:
        raise RecipeError(
            f"augment.crop_padding: {augment.crop_padding} cannot be reflected in an image of {image_size} pixels",
            hint=f"use at most {image_size - 1}, or crop_fill: zero",
        )
    if augment.blur.probability and augment.blur.side(image_size) // 2 >= image_size:
        raise RecipeError(
            f"augment.blur.kernel: {augment.blur.kernel} is too wide for an image of {image_size} pixels",
            hint=f"use at most {2 * image_size - 1}",
        )


def _view(augment: AugmentSpec, n: int, image_size: int, choices: dict[str, np.ndarray]) -> View:
    return View(
        n=n,
        image_size=image_size,
        padding=augment.crop_padding,
        border=augment.crop_fill,
        erase_size=augment.erase.size,
        bare="zero" if augment.automatic is None else augment.automatic.fill,
        blur_side=augment.blur.side(image_size) if augment.blur.probability else 0,
        **choices,
    )


def _tabulated(augment: AugmentSpec, numbers: np.ndarray, image_size: int) -> View:
    check_size(augment, image_size)
    flips, offsets = (2 if augment.hflip else 1), 2 * augment.crop_padding + 1
    choices = {}
    if augment.crop_padding:
        choices["dy"], choices["dx"] = np.divmod(numbers // flips, offsets)
    if augment.hflip:
        choices["hflip"] = numbers % flips == 1
    return _view(augment, len(numbers), image_size, choices)


def _resized_crop(spec: ResizedCropSpec, n: int, image_size: int, key: tuple[int | str, ...]) -> np.ndarray:
    """Boxes as torchvision's RandomResizedCrop draws them: in whole pixels, and again where they leave the image."""
    sides = np.tile(_largest_box(spec, image_size), (n, 1))
    waiting = np.arange(n)
    for attempt in range(_CROP_TRIES):  # each has draws of its own for every image, asked for or not
        drawn = _drawn_sides(spec, n, image_size, (*key, attempt))[waiting]
        fits = ((drawn >= 1) & (drawn <= image_size)).all(axis=1)
        sides[waiting[fits]] = drawn[fits]
        waiting = waiting[~fits]
        if not len(waiting):
            break
    places = np.stack([streams.uniform(n, *key, name) for name in ("crop_y", "crop_x")], axis=1)
    corners = np.floor((image_size - sides + 1) * places)
    corners[waiting] = (image_size - sides[waiting]) // 2
    return (np.concatenate([corners, sides], axis=1) / PIXEL_UNIT).astype(np.int64)


def _drawn_sides(spec: ResizedCropSpec, n: int, image_size: int, key: tuple[int | str, ...]) -> np.ndarray:
    """Height and width of one try, which may be longer than the image: float64 ``(n, 2)``, whole numbers."""
    smallest, largest = sorted(spec.scale)
    area = smallest + (largest - smallest) * streams.uniform(n, *key, "crop_area")
    narrowest, widest = np.log(sorted(spec.ratio))
    ratio = np.exp(narrowest + (widest - narrowest) * streams.uniform(n, *key, "crop_ratio"))
    return np.rint(np.sqrt(np.stack([area / ratio, area * ratio], axis=1)) * image_size)


def _largest_box(spec: ResizedCropSpec, image_size: int) -> tuple[float, float]:
    """Height and width of what stands in the centre where no try fits: all that the ratios allow."""
    narrowest, widest = sorted(spec.ratio)
    height, width = min(1.0, 1 / narrowest), min(1.0, widest)
    return max(np.rint(height * image_size), 1.0), max(np.rint(width * image_size), 1.0)


def _erasing(augment: AugmentSpec, n: int, image_size: int, key: tuple[int | str, ...]) -> dict[str, np.ndarray]:
    size = augment.erase.size
    erased = streams.uniform(n, *key, "erase") < augment.erase.probability
    corners = {}
    for field in ("erase_y", "erase_x"):
        centre = streams.integers(n, image_size, *key, field)
        corners[field] = np.where(erased, centre - size // 2, -size)
    return corners


def _mixing(augment: AugmentSpec, n: int, image_size: int, key: tuple[int | str, ...]) -> dict[str, np.ndarray]:
    mixup, cutmix = augment.mixup, augment.cutmix
    if mixup.alpha and cutmix.alpha:
        kind = np.where(streams.uniform(n, *key, "mix_kind") < 0.5, np.int64(MIXUP), np.int64(CUTMIX))
    else:
        kind = np.full(n, MIXUP if mixup.alpha else CUTMIX, dtype=np.int64)
    weight = np.ones(n, dtype=np.float32)
    choices = {"partner": streams.permutation(n, *key, "partner")}
    if mixup.alpha:
        kind, chosen = _gated(kind, MIXUP, mixup.probability, n, (*key, "mixup"))
        weight = np.where(chosen, _own_share(mixup, n, (*key, "mixup_weight")), 1).astype(np.float32)
        choices["mixup_share"] = weight
    if cutmix.alpha:
        kind, chosen = _gated(kind, CUTMIX, cutmix.probability, n, (*key, "cutmix"))
        choices["box"] = _boxes(cutmix, n, image_size, key) * chosen[:, None]
        top, left, bottom, right = choices["box"].T
        own_area = 1 - (bottom - top) * (right - left) / image_size**2
        weight = np.where(chosen, own_area, weight).astype(np.float32)
    return choices | {"mix_kind": kind, "mix_weight": weight}


def _gated(
    kind: np.ndarray, which: int, probability: float, n: int, key: tuple[int | str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Unmixes the images of kind ``which`` that fail their draw; returns the kinds, and which images stay ``which``."""
    passed = streams.uniform(n, *key) < probability
    kind = np.where((kind == which) & ~passed, np.int64(UNMIXED), kind)
    return kind, kind == which


def _own_share(spec: MixSpec, n: int, key: tuple[int | str, ...]) -> np.ndarray:
    """Draws from Beta(alpha, alpha) in multiples of ``WEIGHT_UNIT``."""
    # The last edge between two multiples that a draw lies above: the inverse distribution function, rounded. Looked
    # up in a table: betaincinv itself takes 16 microseconds a draw, longer than all that is then done to the image.
    return np.searchsorted(_beta_edges(spec.alpha), streams.uniform(n, *key), side="right") * WEIGHT_UNIT


@lru_cache(maxsize=8)
def _beta_edges(alpha: float) -> np.ndarray:
    """The distribution function of Beta(alpha, alpha) halfway between multiples of ``WEIGHT_UNIT``."""
    edges = (np.arange(1 / WEIGHT_UNIT) + 0.5) * WEIGHT_UNIT
    if alpha == 1:
        return edges
    from scipy.special import betainc  # slow to import, and needed here alone

    return betainc(alpha, alpha, edges)


def _boxes(spec: MixSpec, n: int, image_size: int, key: tuple[int | str, ...]) -> np.ndarray:
    """CutMix's boxes: ``1 - share`` of the area, around a uniform centre, cut at the border."""
    share = _own_share(spec, n, (*key, "cutmix_weight"))
    side = np.floor(image_size * np.sqrt(1 - share)).astype(np.int64)
    top = streams.integers(n, image_size, *key, "cutmix_y") - side // 2
    left = streams.integers(n, image_size, *key, "cutmix_x") - side // 2
    return np.clip(np.stack([top, left, top + side, left + side], axis=1), 0, image_size)
