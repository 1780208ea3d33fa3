"""One file to one square of RGB pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torchvision.transforms import CenterCrop, Resize
from torchvision.transforms import functional as torchvision_functional

from distill.data.decode import BadImageError, decode_image, fit_rgb, strict_pillow


def encode(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def random_rgb(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP"])
def test_lossless_pixels_at_the_exact_size_are_kept(form):
    pixels = random_rgb(16, 16)
    options = {"lossless": True} if form == "WEBP" else {}
    assert np.array_equal(decode_image(encode(Image.fromarray(pixels), form, **options), 16), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(40, 57), (57, 40), (31, 16), (9, 13), (16, 16), (33, 100)])
def test_resizing_and_cropping_are_those_of_torchvision(shape):
    image = Image.fromarray(random_rgb(*shape))
    expected = np.asarray(CenterCrop(16)(Resize(16)(image))).transpose(2, 0, 1)
    assert np.array_equal(fit_rgb(image, 16), expected)


def test_a_very_long_image_is_its_middle():
    pixels = np.zeros((2, 4000, 3), dtype=np.uint8)
    pixels[:, 1960:2040] = (10, 200, 30)
    assert (decode_image(encode(Image.fromarray(pixels)), 64) == np.array([10, 200, 30])[:, None, None]).all()


def test_gray_16_bit_is_scaled_and_not_clipped():
    values = np.array([[0, 257 * 100, 65535], [128, 129, 300], [257, 1000, 40000]], dtype=np.uint16)
    decoded = decode_image(encode(Image.fromarray(values)), 3)
    assert np.array_equal(decoded[0], np.rint(values / 257).astype(np.uint8))
    assert np.array_equal(decoded[0], decoded[2])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_become_the_same_colours(mode):
    gray = np.where(np.arange(64).reshape(8, 8) % 3 == 0, 255, 0).astype(np.uint8)
    image = Image.fromarray(np.repeat(gray[..., None], 3, axis=2)).convert(mode)
    decoded = decode_image(encode(image), 8)
    assert np.array_equal(decoded, np.repeat(gray[None], 3, axis=0))


def test_a_transparent_palette_keeps_its_colours():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 250, 120, 10])
    content = encode(image, transparency=bytes([0, 128]))
    assert decode_image(content, 4)[:, 0, 0].tolist() == [250, 120, 10]


def test_cmyk_is_converted():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    red, green, blue = decode_image(encode(image, "JPEG", quality=95), 8)[:, 4, 4]
    assert red > 240
    assert green < 16
    assert blue < 16


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_orientation_is_applied(orientation):
    """A scene is stored as each orientation says it would be, and must come out as the scene."""
    scene = np.zeros((32, 32, 3), dtype=np.uint8)
    scene[:16, :16], scene[:16, 16:], scene[16:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {  # EXIF 2.3: which side of the scene row 0 and column 0 of the file are
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.transpose(1, 0, 2),
        6: np.rot90(scene, 1),
        7: scene[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(scene, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(np.ascontiguousarray(stored)), "JPEG", quality=95, subsampling=0, exif=exif)
    assert np.abs(decode_image(content, 32).astype(int) - scene.transpose(2, 0, 1)).max() < 12


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_tiff_stands_upright_once(orientation):
    """Pillow turns a TIFF by itself while it loads it, and no other format."""
    scene = random_rgb(8, 8)
    stored = {1: scene, 3: scene[::-1, ::-1], 6: np.rot90(scene, 1), 8: np.rot90(scene, -1)}[orientation]
    content = encode(Image.fromarray(np.ascontiguousarray(stored)), "TIFF", tiffinfo={0x0112: orientation})
    assert np.array_equal(decode_image(content, 8), scene.transpose(2, 0, 1))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
def test_a_tiff_is_read_exactly(compression):
    pixels = random_rgb(8, 8)
    content = encode(Image.fromarray(pixels), "TIFF", compression=compression)
    assert np.array_equal(decode_image(content, 8), pixels.transpose(2, 0, 1))


def test_a_gif_is_read_exactly_and_its_transparency_is_dropped():
    palette = Image.fromarray(random_rgb(8, 8)).quantize(64)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode_image(encode(palette, "GIF"), 8), expected)
    assert np.array_equal(decode_image(encode(palette, "GIF", transparency=3), 8), expected)


def test_a_broken_exif_block_does_not_matter():
    content = encode(Image.fromarray(random_rgb(8, 8)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with strict_pillow():
        assert decode_image(content, 8).shape == (3, 8, 8)


def test_a_phone_picture_with_a_second_frame_is_no_animation():
    first, second = (Image.fromarray(random_rgb(8, 8, seed)) for seed in (0, 1))
    content = encode(first, "MPO", save_all=True, append_images=[second], quality=95)
    expected = np.asarray(Image.open(io.BytesIO(encode(first, "JPEG", quality=95)))).transpose(2, 0, 1)
    assert np.array_equal(decode_image(content, 8), expected)


def animated(form):
    frames = [Image.fromarray(random_rgb(8, 8, seed)) for seed in range(3)]
    lossless = {"lossless": True} if form == "WEBP" else {}
    return encode(frames[0], form, save_all=True, append_images=frames[1:], **lossless)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"not an image at all", "not a PNG, JPEG, WebP, BMP, GIF or TIFF image"),
        (encode(Image.fromarray(random_rgb(8, 8)), "PPM"), "not a PNG, JPEG, WebP, BMP, GIF or TIFF image"),
        (encode(Image.fromarray(random_rgb(64, 64)))[:3000], "truncated"),
        (encode(Image.fromarray(random_rgb(64, 64)), "JPEG")[:1000], "truncated"),
        (animated("PNG"), "animated: 3 frames"),
        (animated("WEBP"), "animated: 3 frames"),
        (animated("GIF"), "animated: 3 frames"),
        (animated("TIFF"), "3 pages"),
        (encode(Image.fromarray(random_rgb(64, 64)), "TIFF")[:3000], "truncated"),
        (encode(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"), "floating-point pixels"),
        (encode(Image.fromarray(np.zeros((8, 8), np.int32)), "TIFF"), "32-bit pixels"),
    ],
)
def test_bad_images_say_why(content, reason):
    with pytest.raises(BadImageError, match=reason):
        decode_image(content, 8)


@pytest.mark.parametrize("side", [11, 20])  # Pillow warns above the limit, and raises above twice the limit
def test_decompression_bombs_are_refused(monkeypatch, side):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with strict_pillow(), pytest.raises(BadImageError, match="decompression bomb"):
        decode_image(encode(Image.new("L", (side, side))), 8)


def test_long_text_in_a_picture_is_told_in_plain_words():
    text, content = PngInfo(), io.BytesIO()
    text.add_text("workflow", "b" * 2_000_000, zip=True)
    Image.fromarray(random_rgb(8, 8)).save(content, "PNG", pnginfo=text)
    with pytest.raises(BadImageError, match="text of over 1 MB in it: save the picture without its metadata"):
        decode_image(content.getvalue(), 8)


def test_torchvision_agrees_on_a_jpeg():
    content = encode(Image.fromarray(random_rgb(50, 70)).resize((210, 150)), "JPEG", quality=90)
    image = Image.open(io.BytesIO(content)).convert("RGB")
    expected = torchvision_functional.pil_to_tensor(CenterCrop(32)(Resize(32)(image))).numpy()
    assert np.array_equal(decode_image(content, 32), expected)
