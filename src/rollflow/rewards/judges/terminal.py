"""Interfaces that ask a person about candidates: the terminal, and a base class for others."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rollflow.errors import RewardUnavailable
from rollflow.files.pictures import as_pictures
from rollflow.files.printable import printable

T = TypeVar("T")
FRAMES = 4
"""Number of a film's frames that the contact sheet shows."""

LABEL, MARGIN, LEAST = 28, 8, 256
"""In pixels: height of a label, space between pictures, and smallest width that is not enlarged."""

MILLISECONDS = 62
"""Duration of a film's frame."""


class Asker(ABC):
    """Shows candidates to a person and returns the answer.

    Candidates are given by number, each a picture (3, H, W) or a film (F, 3, H, W) in [0, 1], equal to the last bit to
    what is scored. Number 0 is the best so far; if there is none yet, numbers begin at 1.
    """

    @abstractmethod
    def choose(self, prompt: str, candidates: Mapping[int, Tensor]) -> int:
        """Ask for the number of the best candidate. Raises RewardUnavailable if nobody answers."""

    @abstractmethod
    def rate(self, prompt: str, candidates: Mapping[int, Tensor]) -> list[float]:
        """Ask for a rating from 0 to 10 of each candidate, in order. Raises RewardUnavailable if nobody answers."""


class Terminal(Asker):
    """Writes a contact sheet, prints its path and the question to stderr, and reads the answer from stdin.

    Args:
        folder: Folder for the contact sheet, ``candidates.png``, and for films, ``candidate-1.webp`` and so on.
        show: Whether to open the contact sheet in the system's picture viewer.
    """

    def __init__(self, folder: Path, show: bool = False) -> None:
        self.folder = folder
        self.show = show

    def choose(self, prompt: str, candidates: Mapping[int, Tensor]) -> int:
        self._present(prompt, candidates)
        first, last = min(candidates), max(candidates)

        def read(line: str) -> int:
            if not line.isdecimal() or int(line) not in candidates:
                raise ValueError(f"expected a number from {first} to {last}, not '{line}'")
            return int(line)

        return _typed(f"Which is the best{' (0 is the best so far)' if first == 0 else ''}? [{first}-{last}] ", read)

    def rate(self, prompt: str, candidates: Mapping[int, Tensor]) -> list[float]:
        self._present(prompt, candidates)
        count = len(candidates)

        def read(line: str) -> list[float]:
            try:
                numbers = [float(part) for part in line.replace(",", " ").split()]
            except ValueError:
                numbers = []
            if len(numbers) != count or not all(0 <= number <= 10 for number in numbers):
                raise ValueError(f"expected {count} numbers from 0 to 10, not '{line}'")
            return numbers

        return _typed(f"How good is each, from 0 to 10? [{count} numbers, separated by spaces] ", read)

    def _present(self, prompt: str, candidates: Mapping[int, Tensor]) -> None:
        path = self.folder / "candidates.png"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            contact_sheet(candidates).save(path)
            films = [self._film(number, film) for number, film in candidates.items() if film.ndim == 4]
        except OSError as error:
            raise RewardUnavailable(f"cannot write candidates to '{self.folder}': {error}") from error
        _say(f"'{prompt}': {', '.join(map(str, [path, *films]))}\n")
        if self.show:
            import typer  # not needed where nothing is shown

            typer.launch(str(path))

    def _film(self, number: int, film: Tensor) -> Path:
        path = self.folder / f"candidate-{number}.webp"
        first, *others = as_pictures(film)
        first.save(path, save_all=True, append_images=others, duration=MILLISECONDS, loop=0, lossless=True)
        return path


def contact_sheet(candidates: Mapping[int, Tensor]) -> Image.Image:
    """Arrange numbered candidates in one picture, about as wide as high.

    Pixels are never resampled; in pictures narrower than ``LEAST``, each becomes a square of pixels. A film is shown by
    ``FRAMES`` of its frames.
    """
    tiles = {number: _tile(sample) for number, sample in candidates.items()}
    width = max(tile.width for tile in tiles.values()) + MARGIN
    height = max(tile.height for tile in tiles.values()) + LABEL + MARGIN
    columns = max(1, round((len(tiles) * height / width) ** 0.5))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (min(columns, len(tiles)) * width + MARGIN, rows * height + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LABEL - 8)
    for place, (number, tile) in enumerate(tiles.items()):
        x, y = MARGIN + place % columns * width, MARGIN + place // columns * height
        draw.text((x, y), "0 (best so far)" if number == 0 else str(number), "black", font)
        sheet.paste(tile, (x, y + LABEL))
    return sheet


def _tile(sample: Tensor) -> Image.Image:
    steps = FRAMES - 1
    frames = sample[None] if sample.ndim == 3 else sample[[round(i * (len(sample) - 1) / steps) for i in range(FRAMES)]]
    pictures = as_pictures(frames)
    factor = max(1, -(-LEAST // pictures[0].width))
    width, height = pictures[0].width * factor, pictures[0].height * factor
    strip = Image.new("RGB", (len(pictures) * width, height))
    for i, picture in enumerate(pictures):
        strip.paste(picture.resize((width, height), Image.Resampling.NEAREST), (i * width, 0))
    return strip


def _say(text: str) -> None:
    print(printable(text), end="", file=sys.stderr, flush=True)


def _typed(question: str, read: Callable[[str], T]) -> T:
    """Read a line from stdin and return what ``read`` makes of it; ask again while it raises a ValueError."""
    while True:
        _say(question)
        try:
            line = sys.stdin.readline() if sys.stdin is not None else ""
        except (OSError, ValueError):
            line = ""
        if not line:
            raise RewardUnavailable("no input to judge candidates: run it in a terminal where you can type")
        try:
            return read(line.strip())
        except ValueError as error:
            _say(f"{error}\n")
