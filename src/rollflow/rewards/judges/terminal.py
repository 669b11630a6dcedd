"""How a person is asked about candidates: at the terminal, or by whatever else shows pictures."""

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
"""Of a film, that its place on the sheet shows."""

LABEL, MARGIN, LEAST = 28, 8, 256
"""In pixels: the height of a number, what is between pictures, and the narrowest that is shown as it is."""

MILLISECONDS = 62
"""Of a frame of a film."""


class Asker(ABC):
    """Shows candidates to a person and takes the answer.

    Candidates are by number, each a picture (3, H, W) or a film (F, 3, H, W) in [0, 1], to the last bit what is scored.
    Number 0 is the best so far; where there is none, numbers begin at 1.
    """

    @abstractmethod
    def choose(self, prompt: str, candidates: Mapping[int, Tensor]) -> int:
        """The number of the best. Raises RewardUnavailable if nobody answers."""

    @abstractmethod
    def rate(self, prompt: str, candidates: Mapping[int, Tensor]) -> list[float]:
        """A number from 0 to 10 for each, in their order. Raises RewardUnavailable if nobody answers."""


class Terminal(Asker):
    """Writes a contact sheet, says where, and reads what is typed; what it says goes to stderr.

    Args:
        folder: Of the sheet, ``candidates.png``, and of films, ``candidate-1.webp``.
        show: Whether to open the sheet in the system's viewer.
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

        return _typed(f"Which is the best{', 0 being the best so far' if first == 0 else ''}? [{first}-{last}] ", read)

    def rate(self, prompt: str, candidates: Mapping[int, Tensor]) -> list[float]:
        self._present(prompt, candidates)
        count = len(candidates)

        def read(line: str) -> list[float]:
            try:
                numbers = [float(part) for part in line.replace(",", " ").split()]
            except ValueError:
                numbers = []
            if len(numbers) != count or not all(0 <= number <= 10 for number in numbers):
                raise ValueError(f"expected numbers from 0 to 10, {count} of them, not '{line}'")
            return numbers

        return _typed(f"How good is each, from 0 to 10? [{count} numbers, with spaces between] ", read)

    def _present(self, prompt: str, candidates: Mapping[int, Tensor]) -> None:
        path = self.folder / "candidates.png"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            contact_sheet(candidates).save(path)
            films = [self._film(number, film) for number, film in candidates.items() if film.ndim == 4]
        except OSError as error:
            raise RewardUnavailable(f"candidates cannot be shown in '{self.folder}': {error}") from error
        _say(f"'{prompt}': {', '.join(map(str, [path, *films]))}\n")
        if self.show:
            import typer  # not wanted where nothing is shown

            typer.launch(str(path))

    def _film(self, number: int, film: Tensor) -> Path:
        path = self.folder / f"candidate-{number}.webp"
        first, *others = as_pictures(film)
        first.save(path, save_all=True, append_images=others, duration=MILLISECONDS, loop=0, lossless=True)
        return path


def contact_sheet(candidates: Mapping[int, Tensor]) -> Image.Image:
    """Numbered candidates on one picture, about as wide as high.

    Their pixels are kept; where they are narrower than ``LEAST``, each becomes a square. A film is shown by ``FRAMES``
    of its frames.
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
    shown = sample[None] if sample.ndim == 3 else sample[[round(i * (len(sample) - 1) / steps) for i in range(FRAMES)]]
    pictures = as_pictures(shown)
    factor = max(1, -(-LEAST // pictures[0].width))
    width, height = pictures[0].width * factor, pictures[0].height * factor
    strip = Image.new("RGB", (len(pictures) * width, height))
    for i, picture in enumerate(pictures):
        strip.paste(picture.resize((width, height), Image.Resampling.NEAREST), (i * width, 0))
    return strip


def _say(text: str) -> None:
    print(printable(text), end="", file=sys.stderr, flush=True)


def _typed(question: str, read: Callable[[str], T]) -> T:
    """What ``read`` makes of a line typed; asked again while it raises ValueError."""
    while True:
        _say(question)
        try:
            line = sys.stdin.readline() if sys.stdin is not None else ""
        except (OSError, ValueError):
            line = ""
        if not line:
            raise RewardUnavailable("nobody is at the terminal to judge candidates; run it where you can type")
        try:
            return read(line.strip())
        except ValueError as error:
            _say(f"{error}\n")
