"""Pictures and films that anyone may have made, read within bounds."""

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
"""The path of a picture, or the content of its file."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats that are read; others that Pillow knows start programs (EPS) or have no use here."""

MAX_BYTES = 2**28
"""Largest file, in bytes."""

MAX_PIXELS = 2**26
"""Most pixels of one picture: 8192 x 8192."""

MAX_FILM_PIXELS = 2**27
"""Most pixels of the frames of one film together: 145 frames of 1280 x 720."""

FRAME_MILLISECONDS = 62
"""How long a frame of the films that are written is shown: 16 a second, the rate of Wan."""

MAX_FRAMES = 4096
"""Most frames of one film, those that are repeated because they are shown longer included."""

_WARNINGS = RLock()  # of the filters of warnings, which belong to all threads


class BadPicture(RollflowError):
    """A file that is no picture, is damaged, or is of a kind that is not read."""


class PictureTooLarge(BadPicture):
    """A picture or film of more pixels or frames than are read; nothing of it was decoded."""


@contextmanager
def open_picture(
    source: MediaSource, *, max_pixels: int = MAX_PIXELS, formats: Sequence[str] = FORMATS
) -> Iterator[Image.Image]:
    """Open a picture of which only the header has been read, so that its size can be judged before it is decoded.

    Whatever Pillow raises within the block, of which there are many kinds, is the fault of the file.

    Args:
        source: Path or content.
        max_pixels: Most pixels that its header may claim.
        formats: Formats of Pillow that are tried.

    Raises:
        PictureTooLarge: If it has more pixels or bytes than are read.
        BadPicture: If it cannot be read, within the block, too.
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
    """Read a picture, the first frame of a film, as RGB.

    Raises:
        BadPicture: If it is too large or cannot be read.
    """
    with _without_warnings(), open_picture(source, max_pixels=max_pixels) as picture:
        return picture.convert("RGB")


def read_frames(source: MediaSource) -> list[Image.Image]:
    """Read a picture as one frame, or a film as many, as RGB.

    A photograph is turned as its camera says. A frame that is shown longer than the shortest stands in the list as
    often as that goes into it, since files merge equal frames; they are counted before they are repeated. The unit is
    that of the films that rollflow writes where it fits all frames.

    Raises:
        PictureTooLarge: If there are more frames or pixels than are read.
        BadPicture: If it cannot be read.
    """
    with _without_warnings(), open_picture(source) as file:
        if file.mode[:1] in ("I", "F"):
            raise BadPicture(f"cannot read '{source!s:.200}': it has more than 8 bits a channel; convert it to 8")
        if not _is_film(file):
            return [ImageOps.exif_transpose(file).convert("RGB")]
        frames: list[tuple[Image.Image, float]] = []
        for number, frame in enumerate(ImageSequence.Iterator(file), 1):
            _check_pixels(frame, MAX_PIXELS)  # a later frame of a GIF may be larger than the first
            _check_film(number, frame)
            frames.append((frame.convert("RGB"), float(frame.info.get("duration", 0))))
        durations = [duration for _, duration in frames]
        # In a film of rollflow's every frame may have been merged with others, so that the shortest is no unit.
        ours = all(duration and duration % FRAME_MILLISECONDS == 0 for duration in durations)
        unit = FRAME_MILLISECONDS if ours else min(durations) or 1
        times = [max(1, round(duration / unit)) for duration in durations]
        _check_film(sum(times), frames[0][0], " once frames that are shown longer are repeated")
        return [frame for (frame, _), often in zip(frames, times, strict=True) for _ in range(often)]


@contextmanager
def _content(source: MediaSource) -> Iterator[io.BytesIO | str]:
    """What Pillow opens: content in memory, or the path of a regular file, since others may never end."""
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
    """Silence Pillow's warnings: what they are of is refused here, or does not matter."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_film(file: Image.Image) -> bool:
    """Whether there are several frames; in a JPEG they are views of one photograph (MPO)."""
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
            f"more frames of {frame.width} x {frame.height}{when}; cut it, make it smaller, or make its frames equally "
            "long"
        )


def _line(error: Exception, formats: Sequence[str]) -> str:
    """What went wrong in one line, without addresses of memory."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is no picture of a format that is read ({', '.join(formats)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "it does not fit into the memory"
    return " ".join(str(error).split())[:200] or type(error).__name__
