"""A backbone whose weights are sharded with FSDP2, in one process: what sharding itself costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from guardreasoner.model.backbone import Backbone


class ShardedBackbone(Backbone):
    """A backbone whose layers, embedding and output layer are sharded; a tied output layer is untied first."""

    device = "cuda"
    """Kind of device that the weights are sharded on."""

    def use(self, network: Any) -> None:
        """Use a network, and shard it."""
        super().use(network)
        mesh = init_device_mesh(self.device, (dist.get_world_size(),))
        head = network.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone())
        decoder = self._decoder()
        for layer in decoder.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(decoder, mesh=mesh)
        fully_shard(head, mesh=mesh)


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Make a process group of this process alone."""
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
