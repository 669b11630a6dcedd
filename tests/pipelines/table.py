"""Which pipelines of diffusers rollflow can drive: python tests/pipelines/table.py

Writes docs/results/pipelines.md: every flow pipeline that the installed diffusers has, and the diffusion pipelines that
there is a tiny one of, with what came of the checks.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from pathlib import Path

import diffusers
from checks import CHECKS, loaded
from families import FAMILIES

REPORT = Path(__file__).parents[2] / "docs/results/pipelines.md"
HEAD = """\
# Pipelines of diffusers

Written by `python tests/pipelines/table.py` with diffusers {version}, on tiny pipelines of random weights, on the CPU
in float32. The checks (`tests/pipelines/checks.py`): the ODE through the engine equals the pipeline's own output,
latents and pictures (flows: to the last bit; diffusion, and a picture of which a part is held: to 1e-4 of the spread;
SANA-Sprint, which goes on at random: its first step); an SDE without diffusion equals the ODE; rows of several prompts
and times in one call equal each alone; RBF spends exactly its budget;
gradients agree with finite differences.

| pipeline | checks | network rows a NFE | times share a call |
|---|---|---|---|"""
PICTURES = {"image", "images", "video", "control_image", "mask_image", "condition_image", "visual_condition"}


def outcome(name: str) -> tuple[str, str, str]:
    """(result, network rows a NFE, whether rows of different times share a call) of a tiny pipeline."""
    try:
        tiny = FAMILIES[name]()
        model = loaded(tiny)
    except Exception as error:
        return f"refused: {error}", "", ""
    failed = []
    for check in CHECKS:
        try:
            check(tiny, model)
        except Exception as error:
            failed.append(f"{check.__name__}: {str(error).splitlines()[0]}")
    return "; ".join(failed) or "all pass", str(model.rows_per_nfe), "yes" if model.mixes_times else "no"


def flow_pipelines() -> dict[str, type]:
    """Every pipeline of diffusers whose module speaks of flow matching."""
    found = {}
    for name in sorted(dir(diffusers)):
        kind = getattr(diffusers, name) if name.endswith("Pipeline") else None
        if not isinstance(kind, type) or not kind.__module__.startswith("diffusers.pipelines."):
            continue
        if "FlowMatch" in inspect.getsource(sys.modules[kind.__module__]):
            found[name] = kind
    return found


def why_not(kind: type) -> str:
    """What sets a pipeline that was not tried apart, as far as its signature tells."""
    named = inspect.signature(kind.__call__).parameters
    if "prompt" not in named:
        return "takes no prompt"
    pictures = sorted(PICTURES & set(named))
    return f"takes {', '.join(pictures)}" if pictures else "no tiny one yet"


def main() -> None:
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    lines = [HEAD.format(version=diffusers.__version__)]
    for name in FAMILIES:
        lines.append(f"| {name} | " + " | ".join(outcome(name)) + " |")
        print(lines[-1], flush=True)
    tried = {name.partition(",")[0] for name in FAMILIES}
    others = {name: kind for name, kind in flow_pipelines().items() if name not in tried}
    lines += ["", f"Flow pipelines that were not tried ({len(others)}):", "", "| pipeline | what it is |", "|---|---|"]
    lines += [f"| {name} | {why_not(kind)} |" for name, kind in others.items()]
    REPORT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
