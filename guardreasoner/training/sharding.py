"""Weights, gradients and optimizer state sharded over processes (FSDP2), for models that are too large for one device.

The network is sharded from outside, by the strategy; the modules train it as they train any other. Checkpoints hold
whole tensors, in the same files as those of an unsharded run, so either kind of run can continue the other's.
"""

import sys
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2: each process keeps its share of every weight, gradient and optimizer state.

    Every decoder layer is a unit: its weights are gathered before it computes and freed afterwards. Embeddings, the
    last norm and the output layer form one more unit, because the first and the last may be the same weight.

    Args:
        compute_dtype: data type of the gathered weights and of the activations; the shares that the optimizer updates
            keep ``model.backbone.dtype``, and gradients are added in float32. None computes in that data type too.
        process_group_backend: communication library; None uses NCCL on GPUs and Gloo on CPUs.

    Raises:
        InputError: when a run starts that is neither a fit nor a validation, or whose weights are quantized.
    """

    def __init__(
        self,
        compute_dtype: Literal["float32", "bfloat16"] | None = None,
        process_group_backend: str | None = None,
    ) -> None:
        super().__init__(process_group_backend=process_group_backend, save_distributed_checkpoint=False)
        self.compute_dtype = compute_dtype

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether the trainer passes the optimizer state of a checkpoint to :meth:`load_optimizer_state_dict`."""
        return True

    def setup_environment(self) -> None:
        """Connect the processes; all of them share the weights and divide the data."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def setup(self, trainer: Any) -> None:
        """Shard the loaded network, then create the optimizer of the shares."""
        if trainer.state.fn not in (TrainerFn.FITTING, TrainerFn.VALIDATING):
            raise InputError(
                f"trainer.strategy: ShardedStrategy only trains; it cannot {trainer.state.fn.value}",
                "use configs/trainer/ddp.yaml (a model per process) or vLLM (configs/engine/vllm.yaml)",
            )
        module: Any = self.lightning_module
        dtype = getattr(torch, self.compute_dtype) if self.compute_dtype else None
        shard(module.backbone, self.device_mesh["data_parallel"], dtype)
        super().setup(trainer)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the whole weights on the first process, on its CPU, and an empty dictionary on the others."""
        assert self.lightning_module is not None
        return whole_weights(self.lightning_module, self.global_rank == 0)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Give each process its shares of whole weights."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        with torch.no_grad():
            for name, value in checkpoint["state_dict"].items():
                own[name].copy_(_like(own[name], value))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state of an optimizer on the first process."""
        return whole_optimizer_state(optimizer, self.global_rank == 0)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give each process its shares of the state of each optimizer."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(shares_of_state(optimizer, state))

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a checkpoint of whole tensors on the first process."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint of whole tensors on every process."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)


def shard(backbone: Backbone, mesh: Any, compute_dtype: torch.dtype | None = None) -> None:
    """Shard the weights of a loaded network in place.

    Args:
        backbone: the model.
        mesh: one-dimensional device mesh of the processes.
        compute_dtype: data type of the gathered weights; None keeps that of the shares.

    Raises:
        InputError: the weights are quantized.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    if backbone.quantization:
        raise InputError(
            "trainer.strategy: ShardedStrategy cannot shard 4-bit weights",
            "use configs/trainer/ddp.yaml, or leave model.backbone.quantization out",
        )
    options: dict[str, Any] = {
        "mesh": mesh,
        # The inputs are ids, weights and log-probabilities, whose precision must stay.
        "mp_policy": MixedPrecisionPolicy(compute_dtype, torch.float32, cast_forward_inputs=False),
    }
    for layer in backbone.layers():
        fully_shard(layer, **options)
    fully_shard(backbone, **options)
    register_fsdp_forward_method(backbone, "encode_prefix")
    backbone.is_sharded = True
    if compute_dtype is not None:
        backbone.compute_dtype = str(compute_dtype).removeprefix("torch.")


def is_sharded(trainer: Any) -> bool:
    """Return whether the processes of a trainer hold shares of the weights, so that all must compute together."""
    return trainer is not None and isinstance(trainer.strategy, ShardedStrategy)


def is_share(value: Any) -> bool:
    """Return whether a value is this process's share of a tensor."""
    module = sys.modules.get("torch.distributed.tensor")  # slow to import; without it nothing is sharded
    return module is not None and isinstance(value, module.DTensor)


@torch.no_grad()
def whole_weights(module: nn.Module, keep: bool) -> dict[str, Tensor]:
    """Return whole weights on the CPU by name; every process must call this.

    Args:
        module: module with sharded weights.
        keep: whether this process needs the result; an empty dictionary is returned if not.
    """
    state = module.state_dict(keep_vars=True)
    # One tensor for all names of a tied weight, so that it is written once.
    tensors = {id(value): _gathered(value, keep) for value in {id(v): v for v in state.values()}.values()}
    return {name: tensors[id(value)] for name, value in state.items()} if keep else {}


def whole_optimizer_state(optimizer: Optimizer, keep: bool) -> dict[str, Any]:
    """Return the state of an optimizer with whole tensors; every process must call this.

    Args:
        optimizer: optimizer of shares or of whole weights.
        keep: whether this process needs the result; an empty dictionary is returned if not.
    """
    found: dict[str, Any] = _gathered(optimizer.state_dict(), keep)
    return found if keep else {}


def shares_of_state(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of an optimizer with this process's shares of whole tensors.

    Args:
        optimizer: optimizer that will load it.
        state: as ``state_dict()`` of an optimizer of whole weights returns it.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        "state": {
            index: {name: _like(parameters[index], value) for name, value in values.items()}
            for index, values in state["state"].items()
        },
        "param_groups": state["param_groups"],
    }


def _gathered(value: Any, keep: bool) -> Any:
    if isinstance(value, Mapping):
        return {name: _gathered(inner, keep) for name, inner in value.items()}
    if is_share(value):
        whole: Tensor = value.full_tensor()
        return whole.cpu() if keep else None
    return value.detach().cpu() if isinstance(value, Tensor) and keep else value


def _like(target: Any, value: Any) -> Any:
    """Return this process's share of a whole tensor of the target's shape; any other value as it is."""
    if is_share(target) and isinstance(value, Tensor) and value.shape == target.shape:
        from torch.distributed.tensor import distribute_tensor

        whole = value.to(target.device)
        return distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None)
    return value
