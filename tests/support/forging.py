"""Checkpoints as someone would write them who wishes ill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def forged(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the text of a checkpoint as someone would who can compute a checksum."""
    content = path.read_bytes()
    title, _, body = content.split(b"\n", 2)
    size = int.from_bytes(body[:8], "little")
    told = json.loads(body[8 : 8 + size])
    told = change(told) or told
    text = json.dumps(told).encode()
    body = len(text).to_bytes(8, "little") + text + body[8 + size :]
    path.write_bytes(b"%s\n%s\n%s" % (title, hashlib.sha256(body).hexdigest().encode(), body))
