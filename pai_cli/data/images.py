"""Data sets of image files, each decoded with Pillow when it is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.data.extras import need
from pai_cli.data.normalise import Normalisation
from pai_cli.errors import DataError
from pai_cli.files.budget import PIXELS, BudgetError, check_pixels
from pai_cli.files.first_bytes import ENOUGH, PICTURE, check_start, first_bytes, looks_like
from pai_cli.files.messages import one_line

LARGEST_SIDE = 256
"""Larger images are made this small: the usual size before the crop of ImageNet's networks."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded. Pillow goes by content, and some of what it knows it gives to other programs: EPS to Ghostscript."""

Source = tuple[str, Path | bytes]
"""What to call an image in an error, and its file or the bytes of one."""


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images that `source` finds by index, decoded as `mode` ("RGB", or "L" for grey) and made square: see `decoded`."""

    name: str
    classes: int
    labels: NDArray[np.int64]
    shape: tuple[int, int, int]
    mode: str
    normalisation: Normalisation
    source: Callable[[int], Source]
    class_names: tuple[str, ...] = ()

    def examples(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """These examples, normalised: (len(indices), C, side, side). Raises `DataError` naming an unreadable image."""
        stored = np.empty((len(indices), *self.shape), dtype=np.uint8)
        for place, index in enumerate(indices):
            stored[place] = decoded(*self.source(int(index)), self.mode, self.shape[1])
        return self.normalisation.apply(stored)

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.labels)


def decoded(where: str, source: Path | bytes, mode: str, side: int) -> NDArray[np.uint8]:
    """The image as uint8 (C, side, side), C 3 for "RGB" and 1 for "L".

    One of another size is resized (bilinear, antialiased) until its shorter side is `side`, and its middle is taken.
    """
    picture = _picture(where, source, mode)
    width, height = picture.size
    if (width, height) != (side, side):
        shorter = min(width, height)
        size = max(side, round(width * side / shorter)), max(side, round(height * side / shorter))
        if size[0] * size[1] > PIXELS:
            raise DataError(
                f"{where}: {width} x {height} pixels, too narrow to be made square; replace it or take it out"
            )
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        picture = picture.resize(size, _pillow(where).Resampling.BILINEAR)
        picture = picture.crop((left, top, left + side, top + side))
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def looked_at(where: str, source: Path | bytes) -> tuple[str, int]:
    """The mode ("L" for one that is grey, else "RGB") and the side that a data set has whose first image this is."""
    picture = _picture(where, source, None)
    mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
    return mode, min(*picture.size, LARGEST_SIDE)


def in_chunks(
    source: Callable[[int], Source], indices: NDArray[np.int64], mode: str, side: int
) -> Iterator[NDArray[np.uint8]]:
    """The images of these indices, one at a time: (1, C, side, side)."""
    for index in indices:
        yield decoded(*source(int(index)), mode, side)[None]


def _pillow(where: str) -> Any:
    return need("PIL.Image", "Pillow", "images", where)


def _picture(where: str, source: Path | bytes, mode: str | None) -> Any:
    """The decoded picture, in `mode` unless that is None."""
    pillow = _pillow(where)
    # A picture may have a broken comment or a palette with a transparent entry and be fine all the same.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            taken = _taken(where, source)
            with pillow.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as picture:
                if picture.mode.startswith(("I", "F")):
                    # Conversion would clip at 255 without a word.
                    raise DataError(f"{where}: an image of more than 8 bits a channel; store it with 8")
                width, height = picture.size
                check_pixels(width, height, taken)
                picture.load()
                return picture.copy() if mode is None else picture.convert(mode)
        except DataError:
            raise
        except BudgetError as e:
            raise DataError(f"{where}: {e}; replace it or take it out") from e
        except FileNotFoundError as e:
            raise DataError(f"{where}: no such file") from e
        except Exception as e:  # every format has its own ways to fail
            start = source[:ENOUGH] if isinstance(source, bytes) else first_bytes(source)
            check_start(where, start, DataError)
            what = one_line(e)
            if type(e).__name__ == "UnidentifiedImageError":  # whose text is the path again
                what = "damaged" if looks_like(start) == PICTURE else f"it looks like {looks_like(start)}"
            raise DataError(f"{where}: cannot be read as an image ({what}); replace it or take it out") from e


def _taken(where: str, source: Path | bytes) -> int:
    """Bytes of the image as it is stored. Raises `DataError` for a pipe, which nobody may ever write to, or a device."""
    if isinstance(source, bytes):
        return len(source)
    if source.exists() and not source.is_file():
        raise DataError(f"{where}: a device or a pipe, not an image; take it out")
    return source.stat().st_size
