"""Search for many prompts at once: the jobs of one engine share every call of the model."""

from rollflow import Engine, Job, RolloverBudget, Task
from rollflow.models.scenes import ScenesBase
from rollflow.rewards.scenes.scenes import CaptionReward, JudgeReward

PROMPTS = ("two cats on grass background", "three stars above one house", "one dog to the left of two trees")


def main() -> None:
    """Print the rewards that 60 NFE reach for each prompt."""
    model, reward, judges = ScenesBase(), CaptionReward(), (JudgeReward(),)
    search = RolloverBudget(initial=5)
    jobs = [Job(Task(model, prompt, reward, judges), search, nfe=60, seed=1) for prompt in PROMPTS]
    for result in Engine(max_rows=64).run(jobs):
        print(
            f"{result.job.task.prompt}: reward {result.reward:.3f}, held out {result.held_out}, {result.spent.nfe} NFE"
        )


if __name__ == "__main__":
    main()
