"""Checks that mining on a two-node Ray cluster gives the same rows, also if one node is killed half-way.

    python benchmarks/ray_nodes.py checkpoints/rsft

The embedded training records are mined as in configs/mine.yaml: in this process with LocalGenerator, on a cluster of
two local nodes, and on a cluster whose second node's raylet is killed with SIGKILL after half of the chunks. Each node
has one CPU and one actor with one thread. The exit code is 1 if a row differs. Times include the start of the actors
and loading the model, but not the start of Ray.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from guardreasoner.cli.log_output import show_log
from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.ray import RayGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.sources.embedded import Embedded

NODE = {"num_cpus": 1, "object_store_memory": 256 << 20}


def main() -> int:
    """Mine three times, print times and whether rows are equal, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder")
    parser.add_argument("--records", type=int, help="number of embedded training records (all)")
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=176)
    args = parser.parse_args()
    show_log()
    try:
        return compare(args)
    except InputError as error:
        print(error.lines(), file=sys.stderr)
        return 2


def compare(args: argparse.Namespace) -> int:
    """Print one line per cluster, and return 1 if any rows differ from those of the local engine."""

    def engine(backbone: Backbone) -> Generator:
        return LocalGenerator(
            backbone, args.max_new_tokens, temperature=0.8, top_p=0.95, batch_size=128, chunk=args.chunk
        )

    mining_requests = requests(args)
    print(f"{len(mining_requests):,} records, {args.k} outputs each, chunks of {args.chunk}")
    local, seconds = timed(engine(Backbone(args.model)).generate_groups(mining_requests))
    print(f"local, {torch.get_num_threads()} threads: {seconds:.1f} s", flush=True)
    exit_code = 0
    for name, kill in (("two nodes", False), ("two nodes, one killed half-way", True)):
        with cluster() as worker:
            generator = RayGenerator(Backbone(args.model), engine, chunk=args.chunk, actors=2, patience=5.0)

            def kill_half_way(count: int, worker: Any = worker) -> None:
                if count == len(local) // 2:
                    (raylet,) = worker.all_processes["raylet"]
                    raylet.process.kill()

            rows, seconds = timed(
                generator.generate_groups(mining_requests), kill_half_way if kill else lambda count: None
            )
        equal = rows == local
        print(f"Ray, {name}: {seconds:.1f} s, rows {'equal' if equal else 'DIFFER'}", flush=True)
        exit_code |= not equal
    return int(exit_code)


def requests(args: argparse.Namespace) -> list[Request]:
    """Return the mining requests, longest conversations first."""
    prompt_tokenizer = Backbone(args.model).prompt_tokenizer
    records = sorted(Embedded().records("train")[: args.records], key=lambda r: -len(r.prompt) - len(r.response or ""))
    return [Request(r.id, tuple(prompt_tokenizer.prompt(r)), prompt_tokenizer.text(r), (0,) * args.k) for r in records]


def timed(
    parts: Iterator[list[Completion]], after: Callable[[int], None] = lambda count: None
) -> tuple[Sequence[list[Completion]], float]:
    """Return the parts and the seconds that they took; ``after`` is called with the number of parts so far."""
    start_time, received = time.perf_counter(), []
    for part in parts:
        received.append(part)
        after(len(received))
    return received, time.perf_counter() - start_time


@contextmanager
def cluster() -> Iterator[Any]:
    """Start a cluster of two local nodes, connect to it, and yield the second node."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args=NODE)
    worker = nodes.add_node(**NODE)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield worker
    finally:
        ray.shutdown()
        nodes.shutdown()


if __name__ == "__main__":
    sys.exit(main())
