"""Checkpoints of version 3, whose classes and fields had other names."""

from __future__ import annotations

from typing import Any

_CLASSES = {"Standing": "PopulationState"}
_FIELDS = {"Particles": {"lean": "guidance_shift"}}


def upgraded(tree: Any) -> Any:
    """Convert the tree of a state to the current version."""
    if isinstance(tree, list):
        return [upgraded(part) for part in tree]
    if not isinstance(tree, dict):
        return tree
    if isinstance(name := tree.get("class"), str) and isinstance(parts := tree.get("fields"), dict):
        package, _, kind = name.partition(":")
        if package.partition(".")[0] == "rollflow":  # its modules were moved since
            name = _CLASSES.get(kind, kind)
        renamed = _FIELDS.get(name, {})
        return {"class": name, "fields": {renamed.get(f, f): upgraded(part) for f, part in parts.items()}}
    return {key: upgraded(part) for key, part in tree.items()}
