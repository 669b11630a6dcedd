"""Your own reward: how red a picture is. Gradients flow through it, so that guidance can follow it."""

from collections.abc import Sequence

from torch import Tensor

from rollflow import RewardModel, generate, load_model


class Redness(RewardModel):
    """The mean of the red channel minus the mean of the others."""

    name = "redness"
    description = "red minus green and blue; in [-1, 1]"
    differentiable = True
    bounds = (-1.0, 1.0)

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        red, green, blue = samples.mean((2, 3)).unbind(1)
        return red - (green + blue) / 2


def main() -> None:
    """Print the redness that 60 NFE reach, without and with guidance."""
    model, prompt = load_model("scenes-base"), "two hearts on snow background"
    for guidance in (None, "dps(scale=20)"):
        result = generate(prompt, model=model, reward=Redness(), method="svdd", nfe=60, guidance=guidance)
        print(f"guidance {guidance}: redness {result.reward:.3f} after {result.spent.nfe} NFE")


if __name__ == "__main__":
    main()
