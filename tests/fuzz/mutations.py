"""Mutations of files: of bytes, and of what a JSON document says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

DEEP = 100_000
"""Brackets of a document that is nested deeper than any parser recurses."""

TOKENS = (
    b"null",
    b"[]",
    b"{}",
    b"-1",
    b"1e999",
    b"NaN",
    b"99999999999999999999999999",
    b"\x00",
    b"\xff\xfe",
    "\u202e".encode(),
    b"\x1b[2J",
    b"../../../../etc/passwd",
    b"canary:Reward",
    b"os:system",
    b"!!python/object/apply:os.system ['touch canary']",
    b"&a [*a, *a]",
    b"=cmd|'/c calc'!A0",
    b"<script>alert(1)</script>",
    b'"',
    b"\n",
)
"""What is put somewhere into a file."""

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    10**30,
    0.5,
    float("nan"),
    float("-inf"),
    "",
    "x",
    "canary:Reward",
    "os:system",
    "count(weights=../canary)",
    "vlm-judge(url=http://127.0.0.1:9/v1, model=x, key=PATH)",
    "remote(url=http://127.0.0.1:9)",
    "../canary",
    "\u202e\x1b[2J\n",
    "a" * 100_000,
    [],
    [[]],
    {},
    {"": "os:system"},
    [0] * 1000,
)
"""What takes the place of something in a document."""


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Change a file in one to four places, without a thought for what it means."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 16, 256))
        match rng.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
            case 4:
                del data[at:]
            case 5:
                data[at:at] = rng.choice(TOKENS)
            case _:
                data[at : at + length] = rng.randbytes(length)
    return bytes(data)


def mutate_document(document: Any, rng: random.Random) -> Any:
    """Replace, remove, rename or repeat one node of a document of JSON's types."""
    places = list(_places(document))
    if not places or rng.random() < 0.05:
        return deepcopy(rng.choice(VALUES))
    parent, key = rng.choice(places)
    match rng.randrange(5):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[rng.choice((f"{key} ", "nosuch", "", "__class__"))] = parent.pop(key)
        case 2:
            other, name = rng.choice(places)
            parent[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else other[name]))
        case _:
            parent[key] = deepcopy(rng.choice(VALUES))  # which the next change may alter
    return document


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Change what a JSON file says, or now and then its bytes, or nest it without end."""
    chance = rng.random()
    if chance < 0.03:
        return b"[" * DEEP
    if chance < 0.25:
        return mutate_bytes(content, rng)
    document = json.loads(content)
    for _ in range(rng.randint(1, 2)):
        document = mutate_document(document, rng)
    return json.dumps(document).encode()


def mutate_lines(change: Callable[[bytes, random.Random], bytes]) -> Callable[[bytes, random.Random], bytes]:
    """Change one line of a file, or leave it out, or say it twice."""

    def mutate(content: bytes, rng: random.Random) -> bytes:
        lines = content.splitlines()
        at = rng.randrange(len(lines))
        match rng.randrange(8):
            case 0:
                lines[at : at + 1] = []
            case 1:
                lines[at:at] = [lines[rng.randrange(len(lines))]]
            case _:
                lines[at] = change(lines[at], rng)
        return b"\n".join(lines) + b"\n"

    return mutate


def _places(node: Any) -> Any:
    """Every (container, key) of a document."""
    if isinstance(node, dict | list):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from _places(node[key])
