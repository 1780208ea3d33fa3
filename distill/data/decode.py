"""One encoded image to a square of RGB pixels."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from distill.data.layout import IMAGE_KINDS

__all__ = ["BadImageError", "decode_image", "fit_rgb", "orientation", "strict_pillow", "to_rgb", "upright"]

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LONGEST = 8  # an image longer than this many times its shorter side is cut before it is resized


class BadImageError(Exception):
    """An image that cannot be used; the text is the reason, in a few words."""


@contextlib.contextmanager
def strict_pillow() -> Iterator[None]:
    """Make Pillow raise for decompression bombs and keep its other warnings to itself.

    Filters belong to the process: enter this in the main thread, around the threads that decode.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode_image(content: bytes, size: int) -> np.ndarray:
    """Decode PNG, JPEG, WebP, BMP, GIF or TIFF by content: upright, RGB, shorter side to ``size``, centre crop.

    Transparency is dropped, not blended, as torchvision's ``ImageFolder`` does; 16-bit gray is scaled to 8.

    Shapes:
        returns: ``(3, size, size)`` uint8.

    Raises:
        BadImageError: The content is no such image, or a damaged, animated, or overly large one.
    """
    if not content:
        raise BadImageError("empty file")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _refuse_unusable(image)
            image.load()
            return fit_rgb(to_rgb(upright(image)), size)
    except UnidentifiedImageError:
        raise BadImageError(f"not a {IMAGE_KINDS} image") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise BadImageError(f"decompression bomb: over {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except BadImageError:
        raise
    except MemoryError:
        raise BadImageError("does not fit in memory") from None
    except Exception as error:  # a damaged file can raise nearly anything within a decoder
        if "MAX_TEXT_CHUNK" in str(error) or "MAX_TEXT_MEMORY" in str(error):
            raise BadImageError("text of over 1 MB in it: save the picture without its metadata") from error
        raise BadImageError(" ".join(str(error).split()) or type(error).__name__) from error


def fit_rgb(image: Image.Image | np.ndarray, size: int) -> np.ndarray:
    """Shorter side to ``size`` (antialiased bilinear), then the centre square.

    The arithmetic is that of torchvision's ``Resize(size)`` and ``CenterCrop(size)``.

    Shapes:
        image: an RGB image, or ``(H, W, 3)`` uint8.
        returns: ``(3, size, size)`` uint8, contiguous.
    """
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image = _cut_ends(image)
    width, height = image.size
    short = min(width, height)
    if short != size:
        image = image.resize((size * width // short, size * height // short), Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    pixels = np.asarray(image)[top : top + size, left : left + size]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _cut_ends(image: Image.Image) -> Image.Image:
    """Bound the memory of enlarging a very long image: its ends are cropped away anyway."""
    width, height = image.size
    limit = _LONGEST * min(width, height)
    if max(width, height) <= limit:
        return image
    left, top = max(0, (width - limit) // 2), max(0, (height - limit) // 2)
    return image.crop((left, top, left + min(width, limit), top + min(height, limit)))


def _refuse_unusable(image: Image.Image) -> None:
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise BadImageError(f"decompression bomb: {image.width} x {image.height} pixels")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # an MPO is a phone's JPEG with a preview or a depth map behind it
        raise BadImageError(f"{frames} pages" if image.format == "TIFF" else f"animated: {frames} frames")


def orientation(image: Image.Image) -> int | None:
    """How the camera was held, as EXIF numbers it; a damaged EXIF block does not make an image unusable."""
    try:
        held = image.getexif().get(_ORIENTATION_TAG)
    except Exception:
        return None
    return held if isinstance(held, int) else None


def upright(image: Image.Image) -> Image.Image:
    """The picture as it was seen, however the camera was held."""
    transpose = _UPRIGHT.get(orientation(image) or 0)
    return image if transpose is None else image.transpose(transpose)


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB: transparency dropped, 16 bits brought to 8.

    Raises:
        BadImageError: Its pixels are floats, or whole numbers of 32 bits.
    """
    if image.mode in ("F", "I"):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise BadImageError(f"{kind} pixels: nothing says what is black and what is white")
    if image.mode.startswith("I"):  # 16-bit gray: Pillow's own conversion clips at 255
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(((np.clip(values, 0, 65535) + 128) // 257).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")
