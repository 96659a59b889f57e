from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from flyweight.errors import BundleError, DataError
from flyweight.runtime.preprocess import MAX_PIXELS, Preprocess, decode, fit_image, load

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (20, 30, 3), np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width × height and holds no pixel."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_a_path_its_bytes_and_its_array_give_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(COLOUR)))
    preprocess = Preprocess(16)
    from_path = load(path, preprocess)
    np.testing.assert_array_equal(from_path, load(path.read_bytes(), preprocess))
    np.testing.assert_array_equal(from_path, load(COLOUR, preprocess))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_decodes_to_the_channels_asked_for(channels: int) -> None:
    colour = Image.fromarray(COLOUR)
    for image in (colour, colour.convert("L"), colour.convert("P"), colour.convert("RGBA"), colour.convert("1")):
        pixels = decode(encoded(image), channels)
        assert pixels.shape == (20, 30, channels)
        assert pixels.dtype == np.uint8


def test_gray_becomes_three_equal_channels() -> None:
    gray = COLOUR[:, :, 0]
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(gray)), 3), np.repeat(gray[:, :, None], 3, 2))


def test_colour_becomes_gray_by_the_rec_601_weights() -> None:
    found = decode(encoded(Image.fromarray(COLOUR)), 1)[:, :, 0]
    expected = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(found - expected).max() <= 1


def test_transparency_is_laid_on_white() -> None:
    alpha = RANDOM.integers(0, 256, (20, 30, 1), np.uint8)
    found = decode(encoded(Image.fromarray(np.concatenate([COLOUR, alpha], axis=2))), 3)
    share = alpha / 255
    assert np.abs(found - (COLOUR * share + 255 * (1 - share))).max() <= 1


def test_the_transparent_colour_of_a_palette_becomes_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 1), 1)
    found = decode(encoded(image, transparency=0), 3)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[1, 1].tolist() == [200, 100, 50]


def test_the_key_colour_of_an_rgb_png_becomes_white() -> None:
    found = decode(encoded(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3)), 3)
    assert (found == 255).all()


def test_sixteen_bit_gray_keeps_its_upper_byte() -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(values)), 1)[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert decode(values, 1)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_sixteen_bit_colour_and_gray_of_the_same_values_agree() -> None:
    values = RANDOM.integers(0, 65536, (5, 7), np.uint16)
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, 1).astype(">u2").tobytes() for row in values)
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (
            (b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
    )
    colour = decode(b"\x89PNG\r\n\x1a\n" + chunks, 3)
    gray = decode(encoded(Image.fromarray(values)), 1)
    np.testing.assert_array_equal(colour, np.repeat(gray, 3, 2))


def test_cmyk_jpegs_become_rgb() -> None:
    found = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), 3)
    assert np.abs(found.astype(int) - [255, 0, 0]).max() < 6


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content, 3)[3, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_as_pillow_undoes_it(orientation: int) -> None:
    image = Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(image, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    np.testing.assert_array_equal(decode(content, 3), expected)


def test_a_huge_header_is_refused_with_its_size_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(50_000, 50_000))
    with pytest.raises(DataError, match=r"huge\.png.*50000×50000"):
        load(path, Preprocess(16))


@pytest.mark.parametrize("side", [int(MAX_PIXELS**0.5) + 1, 40_000])
@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_too_large_a_header_of_any_kind_is_refused_with_its_size(kind: str, side: int) -> None:
    sides = {"PNG": (16, ">I"), "GIF": (6, "<H"), "BMP": (18, "<I")}
    start, layout = sides[kind]
    content = bytearray(encoded(Image.fromarray(COLOUR), kind))
    width = struct.calcsize(layout)
    content[start : start + 2 * width] = struct.pack(layout, side) * 2
    with pytest.raises(DataError, match=f"{side}×{side}"):
        decode(bytes(content), 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"cut.{kind.lower()}"
    content = encoded(Image.fromarray(COLOUR), kind)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"cut\.{kind.lower()}"):
        decode(path, 3)


def test_random_damage_gives_pixels_or_a_data_error() -> None:
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF"):
        content = np.frombuffer(encoded(Image.fromarray(COLOUR), kind), np.uint8)
        for seed in range(40):
            random = np.random.default_rng(seed)
            damaged = content.copy()
            damaged[random.integers(0, len(content), 5)] = random.integers(0, 256, 5)
            try:
                pixels = decode(damaged.tobytes(), 3)
            except DataError:
                continue
            assert pixels.ndim == 3


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "empty"), (b"hello world, no image", "not an image"), (b"\x89PNG\r\n\x1a\n", "decoded")]
)
def test_what_is_no_image_is_a_data_error(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        decode(path, 3)


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        decode(tmp_path / "none.png", 3)
    with pytest.raises(DataError, match="directory"):
        decode(tmp_path, 3)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3)), np.full((4, 4), 70_000, np.int32), np.zeros(4, np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_arrays_without_a_fixed_meaning_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError):
        decode(array, 3)


def test_arrays_with_any_number_of_channels_pass_when_it_is_the_number_asked_for() -> None:
    array = RANDOM.integers(0, 256, (10, 14, 7), np.uint8)
    np.testing.assert_array_equal(decode(array, 7), array)
    assert fit_image(array, Preprocess(8, channels=7)).shape == (8, 8, 7)


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
def test_an_image_of_the_right_size_keeps_its_pixels(resize: str) -> None:
    image = COLOUR[:20, :20]
    np.testing.assert_array_equal(fit_image(image, Preprocess(20, resize=resize)), image)  # type: ignore[arg-type]


def test_crop_takes_the_centred_square() -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    assert (fit_image(wide, Preprocess(20)) == 255).all()
    assert (fit_image(wide.transpose(1, 0, 2), Preprocess(20)) == 255).all()


def test_stretch_is_pillows_resize_of_the_whole_picture_horizontally_first() -> None:
    across = Image.fromarray(COLOUR).resize((9, COLOUR.shape[0]), Image.Resampling.BICUBIC)
    expected = np.asarray(across.resize((9, 9), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(fit_image(COLOUR, Preprocess(9, resize="stretch", interpolation="bicubic")), expected)


def test_pad_keeps_the_whole_picture_and_fills_with_the_mean() -> None:
    white = np.full((10, 40, 3), 255, np.uint8)
    found = fit_image(white, Preprocess(20, resize="pad", mean=(0.0, 0.2, 1.0)))
    assert (found[7:12] == 255).sum() == 5 * 20 * 3
    assert found[0, 0].tolist() == [0, 51, 255]


@pytest.mark.parametrize("shape", [(1, 500, 3), (500, 1, 3), (1, 1, 3)])
@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
def test_extreme_shapes_fit(shape: tuple[int, int, int], resize: str) -> None:
    found = fit_image(np.full(shape, 9, np.uint8), Preprocess(8, resize=resize))  # type: ignore[arg-type]
    assert found.shape == (8, 8, 3)


def test_json_and_back_is_the_same_preprocessing() -> None:
    preprocess = Preprocess(33, 1, "pad", "box", (0.25,), (0.125,))
    assert Preprocess.from_json(preprocess.to_json()) == preprocess


def test_mean_and_std_default_to_a_half_per_channel() -> None:
    assert Preprocess(8, 4).mean == (0.5,) * 4 == Preprocess(8, 4).std


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": 0}, {"resize": "zoom"}, {"interpolation": "lanczos"}, {"mean": (0.5,)}, {"std": (1.0, 0.0, 1.0)}],
)
def test_impossible_values_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        Preprocess(**{"image_size": 8, **wrong})  # type: ignore[arg-type]


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(BundleError, match="gamma"):
        Preprocess.from_json({"image_size": 8, "gamma": 2})
