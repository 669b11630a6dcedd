"""Feeds every loader mutated files: ``python tests/fuzz/campaign.py [--cases N | --minutes M] [--seed S] [--only X]``.

No file may make a loader run or import anything, open what it has no business with, write outside of its folder, take
memory or time without bound, or end in anything but a result or a RollflowError. Prints a line a loader; exits with 1
and the offending files if one did.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from guard import MEGABYTES, Guard, TooSlow, limit_memory, peak
from loaders import Loader, Refused, loaders

from rollflow.errors import RollflowError


def fault(loader: Loader, path: Path, guard: Guard) -> str | None:
    """What a loader does wrong with a file; None if nothing."""
    wrong = None
    with guard.watching():
        try:
            loader.load(path)
        except (RollflowError, Refused) as error:
            if not 0 < len(str(error)) <= 2100:  # the command line cuts what is longer
                wrong = f"an error of {len(str(error))} characters: {str(error)[:200]}"
        except (Exception, SystemExit, TooSlow) as error:
            wrong = f"{type(error).__name__}: {str(error)[:300]}"
    return "; ".join([*guard.seen[:3], *([wrong] if wrong else [])]) or None


def attack(loader: Loader, folder: Path, guard: Guard, cases: int, until: float, seed: int) -> list[str]:
    """Feed one loader; the faults found."""
    rng, faults = random.Random(f"{seed} {loader.name}"), list[str]()
    path, done, before = folder / f"case{loader.suffix}", 0, time.monotonic()
    cases = -(-cases // 6) if loader.slow else cases
    while done < cases and time.monotonic() < until:
        content = loader.mutate(rng.choice(loader.valid), rng)
        path.write_bytes(content)
        found = fault(loader, path, guard)
        if found:
            kept = folder.parent / f"fault-{loader.name.replace(' ', '-').replace('/', '-')}-{done}{loader.suffix}"
            kept.write_bytes(content)
            faults.append(f"{loader.name}, case {done}: {found} ({kept})")
        done += 1
    print(f"{loader.name}: {done} files, {len(faults)} faults, {time.monotonic() - before:.1f} s, peak {peak()} MB")
    return faults


def main() -> int:
    """Run the campaign; 1 if it found anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10**9, help="files a loader")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for all of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="loaders whose name holds this")
    options = parser.parse_args()
    tests = Path(__file__).parents[1]
    sys.path[:0] = [str(tests), str(tests / "bench")]  # where the tiny model and a small experiment are
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    top = Path(tempfile.mkdtemp(prefix="rollflow-fuzz-"))
    folder = top / "work"
    folder.mkdir()
    os.chdir(folder)
    (top / "canary").write_text("a secret")
    (folder / "canary.py").write_text("raise SystemExit('imported')")
    guard, faults = Guard(folder, top / "canary"), list[str]()
    chosen = [loader for loader in loaders(folder) if options.only in loader.name]
    for loader in chosen:  # whatever is imported or cached at first use
        for content in loader.valid:
            (folder / f"case{loader.suffix}").write_bytes(content)
            loader.load(folder / f"case{loader.suffix}")
    before = peak()
    if Path("/proc/self/statm").exists():
        limit_memory(2 * MEGABYTES)
    for number, loader in enumerate(chosen):
        left = len(chosen) - number
        until = time.monotonic() + 60 * options.minutes / left
        if options.minutes < float("inf"):
            options.minutes -= options.minutes / left
        faults += attack(loader, folder, guard, options.cases, until, options.seed)
    if peak() - before > MEGABYTES:
        faults.append(f"memory grew by {peak() - before} MB")
    print(*faults, sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
