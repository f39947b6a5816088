"""Pictures as files: the one place where a picture is opened, in the formats that are promised and within bounds.

A picture's bytes choose its decoder, whatever its name says, and some decoders start programs (Pillow hands EPS to
Ghostscript). So the formats are listed here, and size and scans are checked before anything is decoded.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from PIL import Image

from tunewright.data.image.resize_crop import WIDE_MODES, upright, upright_size
from tunewright.files import open_regular
from tunewright.limits import PICTURE_PIXELS, PICTURE_SCANS, Limit

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
GREY_MODES = {"1", "L", "LA", *WIDE_MODES}
# What begins a scan of a JPEG; compressed data does not contain it.
SCAN = b"\xff\xda"
# Pictures with more pixels are decoded one at a time, so that threads do not each need the memory for one.
LARGE = 20_000_000
_one_large = Lock()


@dataclass(frozen=True)
class Header:
    """What a picture says of itself, turned as it is meant to be seen."""

    height: int
    width: int
    grey: bool


def read_header(picture: Path | bytes | None) -> Header:
    """Read a picture's size and kind, without decoding it.

    Raises:
        ValueError: there is none, or it cannot be read; the message says why.
    """
    with _opened(picture) as image:
        height, width = upright_size(image)
        return Header(height, width, image.mode in GREY_MODES)


def read_picture(picture: Path | bytes | None, channels: int) -> Image.Image:
    """Read a picture upright, in grey (1 channel) or RGB (3). Of several frames the first is read.

    Raises:
        ValueError: there is none, or it cannot be read; the message says why.
    """
    with _opened(picture) as image, _one_large if image.width * image.height > LARGE else nullcontext():
        return upright(image, channels)


def require_size(height: int, width: int) -> None:
    """Raises ValueError where a picture is too large, or would be made so."""
    if height * width > PICTURE_PIXELS.value:
        raise _beyond(PICTURE_PIXELS, f"{width}×{height}")


def _beyond(limit: Limit, found: str) -> ValueError:
    return ValueError(f"{found} {limit.unit} are more than {limit.value:,} ({limit.variable} changes the limit)")


@contextmanager
def _opened(picture: Path | bytes | None) -> Generator[Image.Image]:
    """Whatever Pillow raises while a picture is open is the picture's fault, and becomes a ValueError."""
    if picture is None:
        raise ValueError("there is no picture")
    try:
        with (
            warnings.catch_warnings(),
            io.BytesIO(picture) if isinstance(picture, bytes) else open_regular(picture) as file,
        ):
            # Pillow warns of damaged metadata, which is not used, and of sizes, which are bounded here.
            warnings.simplefilter("ignore")
            if Image.MAX_IMAGE_PIXELS is not None:
                Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, PICTURE_PIXELS.value)
            with Image.open(file, formats=FORMATS) as image:
                require_size(image.height, image.width)
                if image.format in ("JPEG", "MPO"):
                    _require_few_scans(file)
                yield image
    except Image.UnidentifiedImageError:
        raise ValueError(f"it is not one of {', '.join(FORMATS)}, or is damaged") from None
    except Image.DecompressionBombError:
        raise _beyond(PICTURE_PIXELS, "its") from None
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{error}" or type(error).__name__) from None


def _require_few_scans(file: io.BufferedIOBase) -> None:
    """A progressive JPEG can go over all of its pixels again for every few bytes."""
    place = file.tell()
    file.seek(0)
    count, before = 0, b""
    while piece := file.read(2**20):
        count += (before + piece).count(SCAN)
        before = piece[-1:]
    file.seek(place)
    if count > PICTURE_SCANS.value:
        raise _beyond(PICTURE_SCANS, f"{count:,}")
