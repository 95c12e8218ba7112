"""Compare a backbone sharded with FSDP2 with the same backbone on one process: ``sharded.py FOLDER``, run per rank."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Example
from guardreasoner.model.packing import packed


def main(folder: str) -> None:
    """Shard layers, decoder and output layer separately; require equal log-probabilities and gradients."""
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    backbone = Backbone(folder)
    backbone.load()
    head = backbone.network.lm_head
    head.weight = nn.Parameter(1.5 * head.weight.detach())  # untied from the input embedding
    batch = packed([Example("a", (3, 9, 4), ((4, 5, 6), (7, 8)))], 0)
    expected = backbone(batch)
    expected.sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in backbone.named_parameters()}
    backbone.zero_grad()
    for layer in backbone.network.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(backbone.network.model, mesh=mesh)
    fully_shard(head, mesh=mesh)
    logps = backbone(batch)
    torch.testing.assert_close(logps, expected)
    logps.sum().backward()
    for name, parameter in backbone.named_parameters():
        torch.testing.assert_close(parameter.grad.full_tensor(), gradients[name], atol=1e-5, rtol=1e-5, msg=name)
    dist.destroy_process_group()
    print("equal")


if __name__ == "__main__":
    main(sys.argv[1])
