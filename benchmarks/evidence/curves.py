"""What a fit has logged about itself: the values of its TensorBoard curves, and the figures that follow from them."""

from pathlib import Path
from statistics import mean
from typing import Any

from guardreasoner.workflow.config import Command

CHOSEN_CHANGE = "log-likelihood of chosen, change"
"""Change of log π(chosen) from the model that a fit started from, in nats an output; held-out pairs."""
CHOSEN_NLL = "NLL of chosen"
"""−log π(chosen) after a fit, in nats a token; held-out pairs."""
NO_SIGNAL = "groups without signal"
"""Share in percent of the groups of GRPO whose outputs all have the same reward, mean over the steps."""


def logged_figures(stage: Command) -> dict[str, float]:
    """Return what a fit on pairs, or with GRPO, has logged about its training; {} for another stage."""
    if stage.verb != "fit":
        return {}
    values = curves(stage)
    last = {tag: list(steps.values())[-1] for tag, steps in values.items()}
    beta = stage.config["model"].get("init_args", {}).get("beta")
    figures = {}
    if beta and "val/reward_chosen" in last:
        figures[CHOSEN_CHANGE] = round(last["val/reward_chosen"] / beta, 2)
    if "val/sft_loss" in last:
        figures[CHOSEN_NLL] = round(last["val/sft_loss"], 4)
    if no_signal := values.get("train/no_signal"):
        figures[NO_SIGNAL] = round(100 * mean(no_signal.values()), 2)
    return figures


def last_values(stage: Command) -> dict[str, float]:
    """Return the last value of each scalar of a fit; {} if it has logged nothing."""
    return {tag: list(steps.values())[-1] for tag, steps in curves(stage).items()}


def curves(stage: Command) -> dict[str, dict[int, float]]:
    """Return each scalar of a fit by step, from its newest TensorBoard folder; {} if there is none.

    A fit that was killed repeats the steps after its last checkpoint; a step has its latest value.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert stage.output is not None
    config: Any = stage.config
    runs = Path(config["recipe"]["logs"], stage.verb, stage.output.name).glob("version_*")
    versions = sorted(runs, key=lambda folder: int(folder.name.removeprefix("version_")))
    if not versions:
        return {}
    events = EventAccumulator(str(versions[-1]), size_guidance={"scalars": 0})
    events.Reload()
    found = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    return {tag: dict(sorted(steps.items())) for tag, steps in found.items()}
