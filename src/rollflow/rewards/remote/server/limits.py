"""What one server takes on, and how it refuses the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rollflow.errors import RollflowError

_VALUES = 100_000  # of JSON that are parsed at least, whatever the limits


@dataclass(frozen=True)
class Limits:
    """What one server takes on.

    Args:
        megabytes: Of a body.
        rows: Samples of a request.
        pixels: Of the pictures of a request together, and of those that are scored in one call; three numbers of a
            tensor count as one.
        requests: That are read, wait or are scored at once.
        seconds: Until a body is complete.
        characters: Of a prompt, and of the names of what it asks for.
        memory: Megabytes of the bodies and samples of all requests that are read, wait or are scored.
        connections: Open at once; those beyond are answered 503, and beyond twice as many hung up on.
    """

    megabytes: float = 128
    rows: int = 256
    pixels: int = 2**23
    requests: int = 32
    seconds: float = 120
    characters: int = 10_000
    memory: float = 2_000
    connections: int = 256

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if not 0 < limit < math.inf:
                raise RollflowError(f"the limit of {name} must be above 0, and finite, not {limit}")

    @property
    def bytes(self) -> int:
        """Of a body."""
        return math.ceil(self.megabytes * 1e6)

    @property
    def values(self) -> int:
        """Of the JSON of a request, each of which takes much more memory than the character that it may be."""
        return _VALUES + self.rows * self.characters


class Refusal(RollflowError):
    """A request that is not answered with scores.

    Args:
        status: Of HTTP.
        message: What was got, what was expected, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status
