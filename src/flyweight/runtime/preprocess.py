"""The one definition of how a file becomes pixels: decode, EXIF, colour mode, resize.

Training, calibration, export, the device and the demo all come through here, so that they cannot drift apart.
Normalisation is not here: it is the first layer of the network and of the exported graph, which takes uint8.

What is decided:
    EXIF       the picture is turned the way a viewer shows it.
    alpha      laid on white, unless four channels are asked for; palette and key-colour transparency likewise.
    16 bit     the upper 8 bits (`value >> 8`), which is what Pillow does to 16-bit colour.
    animation  the first frame.
    formats    those of `FORMATS`, whatever the file is called: Pillow would run Ghostscript on an EPS.
    resize     as `resize.py` defines it, in integers.
    size       more than `MAX_PIXELS` in the header is refused before anything is decoded.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError

from flyweight.errors import BundleError, DataError
from flyweight.runtime.resize import FILTERS, resize

# The size at which Pillow begins to warn of a decompression bomb: a quarter of a GiB as RGB.
MAX_PIXELS = 89_478_485
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jfif"})

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

Resize = Literal["stretch", "crop", "pad"]
Interpolation = Literal["bilinear", "bicubic", "box"]
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# EXIF orientation to the turn that undoes it.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112

Source = Path | str | bytes | np.ndarray


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the square that a network takes.

    Attributes:
        image_size: Side S of the square, px.
        channels: 1 gray, 3 RGB, 4 RGBA; arrays may have any number.
        resize: `crop` takes the largest centred square, `stretch` ignores the aspect ratio, `pad` keeps the
            whole picture and fills the rest with the mean, which is zero after normalisation.
        interpolation: The antialiased filter, of `resize.FILTERS`.
        mean: Per channel in 0..1 units; applied inside the graph, recorded here. Empty means 0.5.
        std: As `mean`.
    """

    image_size: int
    channels: int = 3
    resize: Resize = "crop"
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        filled = (0.5,) * self.channels if type(self.channels) is int else ()
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, values or filled)
        _check(self)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocess:
        """Return the preprocessing that `to_json` wrote.

        Raises:
            BundleError: A key is missing or unknown.
            DataError: A value is impossible.
        """
        known = {field.name for field in fields(cls)}
        if "image_size" not in data or not set(data) <= known:
            raise BundleError(
                f"not a preprocessing description: it has the keys {sorted(data)}, the known ones are {sorted(known)}",
                do="use the file that this version of flyweight wrote, or upgrade flyweight",
            )
        return cls(**{**data, "mean": _values(data, "mean"), "std": _values(data, "std")})


def load(source: Source, preprocess: Preprocess, *, name: str | None = None) -> np.ndarray:
    """Return the (S, S, C) uint8 pixels that the network takes.

    Args:
        source: A path, the bytes of an image file, or an (H, W) or (H, W, C) array.
        preprocess: Size, channels and resizing.
        name: What errors call the image; the path by default.

    Raises:
        DataError: As `decode`.
    """
    return fit_image(decode(source, preprocess.channels, name=name), preprocess)


def decode(source: Source, channels: int, *, name: str | None = None) -> np.ndarray:
    """Return the (H, W, C) uint8 pixels of a path, of the bytes of an image file, or of an array.

    Raises:
        DataError: Missing, unreadable, truncated, too large, or of a kind without a defined 8-bit picture.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, channels, name or f"array of shape {source.shape}")
    name = name or (f"{len(source)} bytes" if isinstance(source, bytes) else str(source))
    content = source if isinstance(source, bytes) else _read(Path(source), name)
    image = _turned(_opened(content, name))
    return _pixels(image, channels, name)


def fit_image(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return (S, S, C) uint8 from (H, W, C) uint8; the same pixels when the image is S × S already."""
    size = preprocess.image_size
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    if preprocess.resize == "pad":
        return _padded(image, preprocess)
    box = (0.0, 0.0, float(width), float(height))
    if preprocess.resize == "crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    return resize(image, (size, size), preprocess.interpolation, box)


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"cannot read the image {name!r}: {reason.lower()}",
            do=f"check that {name!r} exists, is a file and may be read",
        ) from error


def _opened(content: bytes, name: str) -> Image.Image:
    """Return the decoded first frame; the header's size is checked before a pixel is."""
    image = _identified(content, name, MAX_PIXELS)
    try:
        image.load()
    except Exception as error:  # as above
        raise _unreadable(name, error, content) from error
    return image


def size_of(content: bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (width, height) as the header of an image file says; no pixel is decoded.

    Raises:
        DataError: Empty, of no known format, or more than `max_pixels`.
    """
    return _identified(content, name or f"{len(content)} bytes", max_pixels).size


def _identified(content: bytes, name: str, max_pixels: int) -> Image.Image:
    """Return the image with its header read and nothing else."""
    if not content:
        raise DataError(f"the image {name!r} is empty (0 bytes)", do=f"remove {name!r} or copy it again")
    if math.prod(promised := _png_size(content)) > max_pixels:
        raise _too_large(promised, name, max_pixels)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(_header_size(content), name, max_pixels) from error
    except Exception as error:  # foreign bytes: decoders raise whatever comes to them
        raise _unreadable(name, error, content) from error
    if image.width * image.height > max_pixels:
        raise _too_large(image.size, name, max_pixels)
    return image


def _png_size(content: bytes) -> tuple[int, int]:
    """Return (width, height) of a PNG header, (0, 0) of anything else; Pillow reads no header without pixels."""
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR" or len(content) < 24:
        return (0, 0)
    return (int.from_bytes(content[16:20]), int.from_bytes(content[20:24]))


def _header_size(content: bytes) -> tuple[int, int]:
    """Return (width, height) of a header that Pillow refused for its size; it does not say them itself."""
    for factory, accept in (Image.OPEN[kind] for kind in FORMATS if kind in Image.OPEN):
        if accept is None or accept(content[:16]) is not True:
            continue
        size: tuple[int, int] = factory(io.BytesIO(content), "").size
        return size
    return (0, 0)


def _too_large(size: tuple[int, int], name: str, max_pixels: int) -> DataError:
    width, height = size
    return DataError(
        f"the image {name!r} says it is {width}×{height} px ({width * height / 1e6:.0f} Mpx); "
        f"the limit is {max_pixels / 1e6:.0f} Mpx",
        do=f"scale {name!r} down, or remove it if it is not a picture",
    )


def _unreadable(name: str, error: Exception, content: bytes) -> DataError:
    if isinstance(error, UnidentifiedImageError):
        reason = f"not an image of a known format, {', '.join(FORMATS)} (begins with {content[:8]!r})"
    else:
        reason = f"{error}" or type(error).__name__
    return DataError(f"the image {name!r} cannot be decoded: {reason}", do=f"remove {name!r} or copy it again")


def _turned(image: Image.Image) -> Image.Image:
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = image.info  # the transparent colour of a palette lives there
    return turned


def _pixels(image: Image.Image, channels: int, name: str) -> np.ndarray:
    if channels not in MODES:
        raise DataError(
            f"{channels} channels are asked for, and {name!r} is an image file",
            do="ask for 1 (gray), 3 (RGB) or 4 (RGBA) channels; other numbers come as arrays (.npz)",
        )
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bit(np.asarray(image), name))
    if channels != 4 and image.has_transparency_data:
        image = _on_white(image)
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _eight_bit(pixels: np.ndarray, name: str) -> np.ndarray:
    """Return the upper 8 bits of 16-bit values, in whatever integer type they come."""
    if pixels.dtype == np.uint8:
        return pixels
    whole = np.issubdtype(pixels.dtype, np.integer)
    if not whole or (pixels.size and not 0 <= int(pixels.min()) <= int(pixels.max()) <= 65535):
        bounds = f" from {pixels.min()} to {pixels.max()}" if pixels.size else ""
        raise DataError(
            f"{name!r} has {pixels.dtype} values{bounds}, which have no fixed meaning as a picture",
            do="convert it to 8 or 16 bits an integer channel first, with the scale that is right for it",
        )
    return (pixels >> 8).astype(np.uint8)


def _from_array(array: np.ndarray, channels: int, name: str) -> np.ndarray:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(f"{name!r} has the shape {array.shape}", do="give (height, width) or (height, width, channels)")
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        # An int64 0..255 would pass for 16 bits, and turn black.
        raise DataError(
            f"{name!r} has {array.dtype} values, whose range says nothing of how bright they are",
            do="give uint8 (0 to 255) or uint16 (0 to 65535)",
        )
    pixels = _eight_bit(array, name)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] == channels:
        return pixels
    if pixels.shape[2] not in MODES or channels not in MODES:
        raise DataError(
            f"{name!r} has {pixels.shape[2]} channels and {channels} are asked for",
            do=f"give {channels} channels in the last dimension",
        )
    return _pixels(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), channels, name)


def _padded(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    size = preprocess.image_size
    height, width = image.shape[:2]
    longest = max(height, width)
    # In integers, halves up: Python's round() takes them to the even side, which other languages do not.
    inner_w, inner_h = (max(1, (2 * side * size + longest) // (2 * longest)) for side in (width, height))
    fill = np.array([math.floor(value * 255 + 0.5) for value in preprocess.mean], np.uint8)
    canvas = np.empty((size, size, image.shape[2]), np.uint8)
    canvas[:] = fill
    left, top = (size - inner_w) // 2, (size - inner_h) // 2
    inner = resize(image, (inner_w, inner_h), preprocess.interpolation)
    canvas[top : top + inner_h, left : left + inner_w] = inner
    return canvas


def _check(preprocess: Preprocess) -> None:
    rules: list[tuple[str, Callable[[Any], bool], str]] = [
        ("image_size", lambda value: type(value) is int and 1 <= value <= 4096, "a side from 1 to 4096 px"),
        ("channels", lambda value: type(value) is int and value >= 1, "1, 3 or 4"),
        ("resize", lambda value: value in get_args(Resize), "one of stretch, crop, pad"),
        ("interpolation", lambda value: value in FILTERS, "one of bilinear, bicubic, box"),
        ("mean", lambda value: len(value) == preprocess.channels, f"{preprocess.channels} values, one per channel"),
        ("std", lambda value: len(value) == preprocess.channels and min(value) > 0, "positive, one per channel"),
    ]
    for name, holds, wanted in rules:
        value = getattr(preprocess, name)
        if not holds(value):
            raise DataError(f"preprocess.{name} is {value!r}", do=f"give {wanted}")


def _values(data: Mapping[str, Any], name: str) -> tuple[float, ...]:
    values = data.get(name, ())
    numbers = isinstance(values, (list, tuple)) and all(type(value) in (int, float) for value in values)
    if not numbers or not all(math.isfinite(value) for value in values):
        raise BundleError(f"preprocess.{name} is {values!r}, not a list of numbers", do="export again")
    return tuple(float(value) for value in values)
