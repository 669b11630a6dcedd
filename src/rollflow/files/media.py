"""Pictures and films of unknown origin, read within bounds."""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import TypeAlias

from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from rollflow.errors import RollflowError

MediaSource: TypeAlias = Path | str | bytes
"""Path of a picture or film, or the content of its file."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats that are read; of the others that Pillow knows, some start programs (EPS) and the rest have no use here."""

MAX_BYTES = 2**28
"""Largest file, in bytes."""

MAX_PIXELS = 2**26
"""Largest picture, in pixels: 8192 x 8192."""

MAX_FILM_PIXELS = 2**27
"""Largest film, in pixels of all frames together: 145 frames of 1280 x 720."""

FRAME_MILLISECONDS = 62
"""Duration of a frame in films that rollflow writes: 16 frames a second, the rate of Wan."""

MAX_FRAMES = 4096
"""Largest number of frames in a film, counting the repeats of frames that are shown longer."""

_WARNINGS = RLock()  # guards the warning filters, which all threads share


class BadPicture(RollflowError):
    """A file is not a picture, is damaged, or has a format that is not read."""


class PictureTooLarge(BadPicture):
    """A picture or film has too many pixels or frames; none of it was decoded."""


@contextmanager
def open_picture(
    source: MediaSource, *, max_pixels: int = MAX_PIXELS, formats: Sequence[str] = FORMATS
) -> Iterator[Image.Image]:
    """Open a picture and read only its header, so that its size can be checked before it is decoded.

    Any exception of Pillow within the block, and there are many kinds, is taken to be a fault of the file.

    Args:
        source: Path or content of the picture.
        max_pixels: Largest number of pixels that the header may declare.
        formats: Formats to try, by their names in Pillow.

    Raises:
        PictureTooLarge: If the picture has too many pixels or bytes.
        BadPicture: If the picture cannot be read, now or within the block.
    """
    name = "the picture" if isinstance(source, bytes) else f"'{source}'"
    try:
        with _content(source) as file, _without_warnings():
            picture = Image.open(file, formats=list(formats))
        with picture:
            _check_pixels(picture, max_pixels)
            yield picture
    except PictureTooLarge as error:
        raise PictureTooLarge(f"cannot read {name}: {error}") from None
    except RollflowError:
        raise
    except Image.DecompressionBombError:
        raise PictureTooLarge(f"cannot read {name}: expected at most {max_pixels} pixels, got far more") from None
    except Exception as error:
        raise BadPicture(f"cannot read {name}: {_line(error, formats)}") from error


def read_picture(source: MediaSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture, or the first frame of a film, as RGB.

    Raises:
        BadPicture: If the picture is too large or cannot be read.
    """
    with _without_warnings(), open_picture(source, max_pixels=max_pixels) as picture:
        return picture.convert("RGB")


def read_frames(source: MediaSource) -> list[Image.Image]:
    """Read a film as its frames, or a picture as a single frame, in RGB.

    A photograph is rotated as its camera recorded. Since files merge equal frames, a frame that is shown longer than
    the shortest is repeated in proportion; repeats are counted before they are made. In films that rollflow wrote, the
    unit is the duration of its frames.

    Raises:
        PictureTooLarge: If there are too many frames or pixels.
        BadPicture: If the file cannot be read.
    """
    with _without_warnings(), open_picture(source) as file:
        if file.mode[:1] in ("I", "F"):
            raise BadPicture(f"cannot read '{source!s:.200}': it has more than 8 bits per channel; convert it to 8")
        if not _is_film(file):
            return [ImageOps.exif_transpose(file).convert("RGB")]
        frames: list[tuple[Image.Image, float]] = []
        for number, frame in enumerate(ImageSequence.Iterator(file), 1):
            _check_pixels(frame, MAX_PIXELS)  # a later frame of a GIF may be larger than the first
            _check_film(number, frame)
            frames.append((frame.convert("RGB"), float(frame.info.get("duration", 0))))
        durations = [duration for _, duration in frames]
        # In a film that rollflow wrote, even the shortest frame may be several equal ones that were merged.
        ours = all(duration and duration % FRAME_MILLISECONDS == 0 for duration in durations)
        unit = FRAME_MILLISECONDS if ours else min(durations) or 1
        times = [max(1, round(duration / unit)) for duration in durations]
        _check_film(sum(times), frames[0][0], " once frames that are shown longer are repeated")
        return [frame for (frame, _), often in zip(frames, times, strict=True) for _ in range(often)]


@contextmanager
def _content(source: MediaSource) -> Iterator[io.BytesIO | str]:
    """Yield what Pillow opens: content in memory, or the path of a regular file, since others may never end."""
    if isinstance(source, bytes):
        size = len(source)
    else:
        status = os.stat(source)
        if not stat.S_ISREG(status.st_mode):
            raise BadPicture(f"cannot read '{source}': it is not a regular file")
        size = status.st_size
    if size > MAX_BYTES:
        raise PictureTooLarge(f"expected at most {MAX_BYTES} bytes, got {size}")
    yield io.BytesIO(source) if isinstance(source, bytes) else str(source)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings: their causes are refused here, or do not matter."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_film(file: Image.Image) -> bool:
    """Whether a file has several frames; those of an MPO file are views of one photograph."""
    return bool(getattr(file, "is_animated", False)) and file.format != "MPO"


def _check_pixels(picture: Image.Image, most: int) -> None:
    pixels = picture.width * picture.height
    if pixels > most:
        raise PictureTooLarge(
            f"expected at most {most} pixels, got {picture.width} x {picture.height} = {pixels}; make it smaller"
        )


def _check_film(frames: int, frame: Image.Image, when: str = "") -> None:
    pixels = frames * frame.width * frame.height
    if frames > MAX_FRAMES or pixels > MAX_FILM_PIXELS:
        raise PictureTooLarge(
            f"expected a film of at most {MAX_FRAMES} frames and {MAX_FILM_PIXELS} pixels together, got {frames} or "
            f"more frames of {frame.width} x {frame.height}{when}; shorten it, make it smaller, or show all its frames "
            "equally long"
        )


def _line(error: Exception, formats: Sequence[str]) -> str:
    """Describe an error in one line, without memory addresses."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is not a picture in a supported format ({', '.join(formats)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "it does not fit in memory"
    return " ".join(str(error).split())[:200] or type(error).__name__
