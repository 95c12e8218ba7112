"""What a training checkpoint holds: trained weights, the random state of every process, the skipped steps."""

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from guardreasoner.errors import InputError
from guardreasoner.training.reference import FrozenAdapter

_RANDOM_STATES = "random_states"
_SKIPPED_STEPS = "skipped_steps"


def save_training_state(module: Any, checkpoint: MutableMapping[str, Any]) -> None:
    """Leave the frozen weights out of a checkpoint; add the random state of each process and the skipped steps.

    Frozen weights (the base model below an adapter, a frozen reference) come from their model folder again.

    Args:
        module: LightningModule that is saved.
        checkpoint: checkpoint to change in place.
    """
    trained = _trained(module)
    checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
    checkpoint[_RANDOM_STATES] = _gather(module.trainer, _random_state())
    checkpoint[_SKIPPED_STEPS] = module.skipped_steps


def require_trained_weights(module: Any, checkpoint: MutableMapping[str, Any]) -> None:
    """Require that a checkpoint holds exactly the weights that a module trains.

    Raises:
        InputError: weights are missing or unknown.
    """
    saved, trained = set(checkpoint["state_dict"]), _trained(module)
    if saved != trained:
        names = sorted(saved ^ trained)
        raise InputError(
            f"ckpt_path: the checkpoint does not fit the model: {len(names)} weights differ, first {names[0]}",
            "resume with the config that the checkpoint was made with",
        )


def random_state_of(module: Any, checkpoint: MutableMapping[str, Any]) -> dict[str, Tensor] | None:
    """Return the random state that a checkpoint holds for this process, None if it holds none."""
    states = checkpoint.get(_RANDOM_STATES) or []
    rank = module.trainer.global_rank
    return states[rank] if rank < len(states) else None


def skipped_steps_of(checkpoint: MutableMapping[str, Any]) -> int:
    """Return the number of skipped steps that a checkpoint holds."""
    return int(checkpoint.get(_SKIPPED_STEPS, 0))


def restore_random_state(state: dict[str, Tensor] | None) -> None:
    """Restore a random state. Call it at the first training batch, because loaders draw random numbers before."""
    if state is not None:
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])


def _trained(module: nn.Module) -> set[str]:
    """Return the names of a module's trained parameters, all of them if none is frozen; buffers are not saved."""
    return {
        name
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if parameter.requires_grad and not FrozenAdapter.owns(name)
    }


def _random_state() -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else state


def _gather(trainer: Any, state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    if trainer.world_size == 1:
        return [state]
    states: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(states, state)
    return states
