"""Tables and texts that the commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rollflow.cli.catalogue import Entry
from rollflow.files.printable import printable


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Align the columns of rows of equal length, as plain text that looks the same in a file.

    Line ends and control characters within a cell are escaped, so that a row is a line.
    """
    rows = [[printable(cell).replace("\n", "\\n").replace("\t", "\\t") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1."""
    return f"{number} {noun}{'s' * (number != 1)}"


def listed(entries: Sequence[Entry]) -> str:
    """List choices, one per line with a description."""
    return aligned([(entry.name, entry.description) for entry in entries])


def _signature(entry: Entry) -> str:
    settings = (name if default is None else f"{name}={default}" for name, default in entry.settings.items())
    return f"{entry.name}({', '.join(settings)})"


def explained(entries: Sequence[Entry]) -> str:
    """Describe choices of one kind in full: settings with their defaults, and docstrings or what to know of rewards."""
    kind = entries[0].kind.upper()
    parts = [kind if kind == "GUIDANCE" else f"{kind}S"]
    for entry in entries:
        text = f"{entry.description}\n{aligned([*entry.facts.items()])}" if entry.facts else entry.doc
        head = _signature(entry) if text else entry.name  # nothing is known of a plug-in that cannot be imported
        parts.append(f"{head}\n{text or entry.description}".replace("\n", "\n    "))
    return "\n\n".join(parts)


def asked(prompt: str) -> str:
    """Describe what a prompt asks for, and how that was determined."""
    from rollflow import prompts

    counts = ", ".join(f"{thing}={count}" for thing, count in prompts.asked(prompt).items()) or "nothing"
    how = "as given" if isinstance(prompt, prompts.Prompt) else "read from its words; override with --ask THING=COUNT"
    return printable(" ".join(f"the prompt asks for {counts} ({how})".split()))


def costs(spendings: Mapping[str, Mapping[str, int | None]]) -> str:
    """Tabulate costs, one line per amount and one column per job; None marks an amount known only after loading."""
    names = {"nfe": "NFE"}
    amounts = next(iter(spendings.values()))
    lines = [
        (names.get(amount, amount.replace("_", " ")), *(_amount(spending[amount]) for spending in spendings.values()))
        for amount in amounts
    ]
    return aligned([("", *spendings), *lines])


def _amount(amount: int | None) -> str:
    return "known once loaded" if amount is None else str(amount)


def _rewards(before: float | None, after: float | None) -> str:
    after_text = "not finite" if after is None else f"{after:.4g}"
    return after_text if before is None else f"{before:.4g} -> {after_text}"


def outcome(content: Mapping[str, Any], folder: Path) -> str:
    """Summarise the content of ``result.json``; its warnings are printed separately."""
    from rollflow.output.outputs import choice

    baseline = content.get("baseline", {"reward": None, "held_out": {}})
    state = "finished" if content["finished"] else f"a clean estimate at noise level {content['noise_level']:.2f}"
    if content["interrupted"]:
        state += f"; {'interrupted' if 'cause' not in content else 'stopped early'}, the best so far"
    shown = [part[name] for part in (content, baseline) for name in ("image", "film") if name in part]
    pictures = [*shown, "trace.png", "filmstrip.png"]
    rows = [
        ("prompt", content["prompt"]),
        ("search", f"{choice(content, 'method')} on {content['model']}"),
        ("sampler", ", ".join(f"{name} {choice(content, name)}" for name in ("interpolant", "kernel"))),
        ("reward", f"{content['reward_name']} {_rewards(baseline['reward'], content['reward'])}"),
    ]
    if "surrogate_name" in content:
        rows.append(("searched by", f"{content['surrogate_name']} {_rewards(None, content.get('surrogate'))}"))
    if "chosen" in content:
        rows.append(("chosen by", f"{content['chosen_by']} {_rewards(None, content['chosen'])}"))
    for label, rewards in (("part", "parts"), ("held out", "held_out")):
        for name, reward in content.get(rewards, {}).items():
            rows.append((label, f"{name} {_rewards(baseline.get(rewards, {}).get(name), reward)}"))
    rows += [("missing", f"{name}: {why}") for name, why in content.get("missing", {}).items()]
    rows += [
        ("budget", f"{content['nfe_used']} of {content['nfe_budget']} NFE in {content['seconds']:.1f} s"),
        ("sample", state),
        ("pictures", ", ".join(str(folder / name) for name in pictures)),
    ]
    return aligned(rows)


def explain(lines: Sequence[str]) -> None:
    """Print what a search was chosen to be, and why, if anything was chosen."""
    for line in lines:
        print(printable(line))
