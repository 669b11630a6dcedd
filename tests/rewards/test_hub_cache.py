"""Which weights are here, by a cache made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_cache import weights_cached

INDEX = {"model.safetensors.index.json": json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})}


@pytest.mark.parametrize(
    ("files", "there"),
    [
        ({"config.json": "{}", "vocab.json": "{}"}, False),
        ({"config.json": "{}", "pytorch_model.bin": ""}, True),
        ({"model.safetensors": ""}, True),
        ({**INDEX, "1.safetensors": ""}, False),
        ({**INDEX, "1.safetensors": "", "2.safetensors": ""}, True),
    ],
    ids=["configuration", "torch", "safetensors", "a-shard-less", "shards"],
)
def test_weights_are_here_when_every_file_of_them_is(files: dict[str, str], there: bool, tmp_path: Path) -> None:
    repository = tmp_path / "models--own--net"
    snapshot = repository / "snapshots" / "c0"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0")
    for name, text in files.items():
        (snapshot / name).write_text(text)
    assert weights_cached("own/net", tmp_path) == there
    assert not weights_cached("own/other", tmp_path)
