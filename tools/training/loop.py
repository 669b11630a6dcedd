"""The common training loop: resumable and seeded, with a time budget, a moving average, a log and a sample sheet.

Every script is ``python tools/training/train_X.py --minutes M [--seed S] [--out runs/X]``. A run that was stopped, or
that is called again with more minutes, continues from ``runs/X/checkpoint.pt``; without one, ``--from-package`` starts
from the weights in the package. Minutes count the optimisation alone and add up over the parts of a run.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

MODEL_WEIGHTS = Path(__file__).parents[2] / "src/rollflow/models/scenes/weights"
REWARD_WEIGHTS = Path(__file__).parents[2] / "src/rollflow/rewards/scenes/weights"

LONGEST_STEP = 30.0
"""Largest number of seconds that one step counts: a longer one was suspended (kill -STOP) and resumed (kill -CONT)."""

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Options:
    """The command-line options of all scripts."""

    which: str
    minutes: float
    seed: int
    out: Path
    from_package: bool
    device: torch.device


def options(name: str, minutes: float, doc: str | None, which: tuple[str, ...] = ()) -> Options:
    """Parse the command line; ``which`` lists the networks to choose from if a script trains more than one."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if which:
        parser.add_argument("which", choices=which)
    parser.add_argument("--minutes", type=float, default=minutes, help="optimisation time of the whole run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of checkpoint, log and sheet; runs/NAME by default")
    parser.add_argument("--from-package", action="store_true", help="start from the packaged weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    chosen = given.which if which else name
    out = given.out or Path("runs") / chosen
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(given.seed)
    return Options(chosen, given.minutes, given.seed, out, given.from_package, torch.device(given.device))


def channels_last(network: Network) -> Network:
    """Return the network with its weights in the memory layout in which convolutions are fastest."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's overloads omit this call
    return network


def optimizers(network: nn.Module, lr: float, muon_lr: float | None = None) -> list[torch.optim.Optimizer]:
    """Make the optimizers: AdamW for everything, or Muon for the matrices of all ``blocks`` and AdamW for the rest."""
    matrices = []
    if muon_lr is not None:
        named = network.named_parameters()
        matrices = [p for name, p in named if "blocks." in name and p.ndim == 2 and min(p.shape) > 6]
    taken = {id(p) for p in matrices}
    rest = [p for p in network.parameters() if id(p) not in taken]
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=1e-4)]
    if matrices:
        assert muon_lr is not None
        made.append(torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return made


@dataclass
class Loop:
    """Runs ``loss(step)`` until the minutes are spent; the learning rate warms up, holds, and falls to zero at the end.

    Args:
        network: Network to train; ``average`` is its exponential moving average, which is packaged.
        loss: Function from the step number to a scalar; it draws its own data from a generator seeded by the step.
        sheet: Function called with the averaged network at every report, to draw samples.
        decay: Fraction of the minutes, at the end, over which the learning rate falls.
    """

    options: Options
    network: nn.Module
    optimizers: list[torch.optim.Optimizer]
    loss: Callable[[int], Tensor]
    sheet: Callable[[nn.Module, int], None]
    decay: float = 0.4
    ema: float = 0.995
    warmup: int = 100
    report_seconds: float = 240.0
    step: int = 0
    spent: float = 0.0
    average: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        import copy

        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self._rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        path = self.options.out / "checkpoint.pt"
        if path.exists():
            state = torch.load(path, map_location=self.options.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.spent = state["step"], state["spent"]
            print(f"resumed at step {self.step}, {self.spent / 60:.1f} minutes", flush=True)

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "spent": self.spent,
        }
        path = self.options.out / "checkpoint.pt"
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def _set_rates(self) -> None:
        left = 1 - self.spent / (60 * self.options.minutes)
        scale = min(1.0, (self.step + 1) / self.warmup, max(left, 0.0) / self.decay)
        for optimizer, rates in zip(self.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * scale

    @torch.no_grad()
    def _average(self) -> None:
        weight = min(self.ema, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(now, 1 - weight)
        for kept, latest in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(latest)

    def run(self) -> nn.Module:
        """Train; returns the averaged network."""
        log_path = self.options.out / "log.csv"
        running, since, reported = 0.0, 0, self.spent
        while self.spent < 60 * self.options.minutes:
            begun = time.perf_counter()
            self._set_rates()
            loss = self.loss(self.step)
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
            self._average()
            value = float(loss.detach())
            if not math.isfinite(value):
                raise FloatingPointError(f"the loss is {value} at step {self.step}; the last checkpoint is whole")
            self.step += 1
            running, since = running + value, since + 1
            self.spent += min(time.perf_counter() - begun, LONGEST_STEP)
            if self.spent - reported >= self.report_seconds or self.spent >= 60 * self.options.minutes:
                line = [self.step, round(self.spent / 60, 2), round(running / since, 5)]
                new = not log_path.exists()
                with log_path.open("a", newline="") as log:
                    csv.writer(log).writerows([["step", "minutes", "loss"], line] if new else [line])
                print(*line, flush=True)
                running, since, reported = 0.0, 0, self.spent
                self.save()
                self.sheet(self.average, self.step)
        return self.average


def ship(network: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write the weights as bfloat16 safetensors, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in network.state_dict().items()}
    save_file(tensors, str(path) + ".tmp", metadata)
    os.replace(str(path) + ".tmp", path)
