"""Integer ids of models and rewards."""

from __future__ import annotations

import itertools
from collections.abc import MutableMapping

from torch.utils.weak import WeakIdKeyDictionary


class Numbering:
    """Assigns ids to objects in the order in which they are first seen.

    Objects are distinguished by identity, even if they compare equal or cannot be hashed. They are not kept alive, and
    ids are never reused.
    """

    def __init__(self) -> None:
        self._ids: MutableMapping[object, int] = WeakIdKeyDictionary()
        self._next = itertools.count()

    def id_of(self, one: object) -> int:
        """Return the id of an object, a new one if it was not seen before."""
        if one not in self._ids:
            self._ids[one] = next(self._next)
        return self._ids[one]
