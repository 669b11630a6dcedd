"""Checkpoints as an attacker would write them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def forged(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the JSON header of a checkpoint, and its checksum accordingly."""
    content = path.read_bytes()
    title, _, body = content.split(b"\n", 2)
    size = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + size])
    header = change(header) or header
    text = json.dumps(header).encode()
    body = len(text).to_bytes(8, "little") + text + body[8 + size :]
    path.write_bytes(b"%s\n%s\n%s" % (title, hashlib.sha256(body).hexdigest().encode(), body))
