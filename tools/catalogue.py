"""Write the list of everything that can be chosen by name: python tools/catalogue.py

``rollflow methods``, ``models`` and ``rewards``, the help and shell completion read it instead of importing torch. Run
it after adding a choice, or after changing a docstring or a default of one. Tested pipelines are those of
``docs/results/pipelines.md``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from rollflow.cli import catalogue

PIPELINES = Path(__file__).parents[1] / "docs/results/pipelines.md"


def content() -> str:
    """Return the text of the file."""
    rows = re.findall(r"^\| (\w+Pipeline)\b.*\| all pass \|", PIPELINES.read_text(encoding="utf-8"), re.M)
    kinds = {**catalogue.current(), "pipelines": list(dict.fromkeys(rows))}
    return json.dumps(kinds, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    catalogue.FILE.write_text(content(), encoding="utf-8")
