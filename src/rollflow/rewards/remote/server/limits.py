"""The limits of a server, and the error for requests that it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rollflow.errors import RollflowError

_VALUES = 100_000  # JSON values that may be parsed in any case


@dataclass(frozen=True)
class Limits:
    """The limits of one server.

    Args:
        megabytes: Largest size of a request's body, in megabytes.
        rows: Largest number of samples per request.
        pixels: Largest number of pixels of all samples in a request, and in one call of the reward; three numbers of a
            tensor count as one pixel.
        requests: Largest number of requests in progress.
        seconds: Time limit for receiving a body.
        characters: Largest length of a prompt, including the names of the things it asks for.
        memory: Largest size of the bodies and samples of all requests in progress, in megabytes.
        connections: Largest number of open connections; further ones are answered 503, and closed at once beyond twice
            as many.
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
                raise RollflowError(f"the limit of {name} must be positive and finite, not {limit}")

    @property
    def bytes(self) -> int:
        """Largest size of a request's body in bytes."""
        return math.ceil(self.megabytes * 1e6)

    @property
    def values(self) -> int:
        """Largest number of JSON values in a request; one may take far more memory than its text."""
        return _VALUES + self.rows * self.characters


class Refusal(RollflowError):
    """The refusal of a request.

    Args:
        status: HTTP status.
        message: One line on what was wrong, what was expected, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status
