"""What the hub's cache on this machine holds."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import try_to_load_from_cache


def cached(repository: str, file: str, cache: Path | None = None) -> Path | None:
    """Where a file of a repository is, if it is here."""
    found = try_to_load_from_cache(repository, file, cache_dir=cache)
    return Path(found) if isinstance(found, str) else None


def weights_cached(repository: str, cache: Path | None = None) -> bool:
    """Whether all weights of a repository of transformers are here, in one file or in all that its index names."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if cached(repository, name, cache):
            return True
        index = cached(repository, f"{name}.index.json", cache)
        if index is not None:
            shards = set(json.loads(index.read_text())["weight_map"].values())
            if all(cached(repository, shard, cache) for shard in shards):
                return True
    return False
