"""Mining on a Ray cluster of two nodes on this machine, one of which is killed half-way: the same rows?

    python benchmarks/ray_nodes.py checkpoints/rsft

The model is asked about the embedded training records as configs/mine.yaml does: in this process by LocalGenerator,
by a cluster of two nodes, and by one whose second node's raylet meets SIGKILL when half of the chunks are there. Each
node has one processor and an actor with one thread. Exits with 1 when a row differs. Seconds are those of the first to
the last row, with the start of actors and the reading of the model, without the start of Ray.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from guardreasoner.cli.lightning_cli import show_log
from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.ray import RayGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.sources.embedded import Embedded

NODE = {"num_cpus": 1, "object_store_memory": 256 << 20}


def main() -> int:
    """Mine three times, print what came back and how long it took, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder")
    parser.add_argument("--records", type=int, help="of the embedded training records; all, unless told")
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
    """Print a line for each way, and return 1 where its rows differ from the local engine's."""

    def engine(backbone: Backbone) -> Generator:
        return LocalGenerator(
            backbone, args.max_new_tokens, temperature=0.8, top_p=0.95, batch_size=128, chunk=args.chunk
        )

    asked = requests(args)
    print(f"{len(asked):,} records, {args.k} outputs each, chunks of {args.chunk}")
    local, seconds = timed(engine(Backbone(args.model)).generate_groups(asked))
    print(f"local, {torch.get_num_threads()} threads: {seconds:.1f} s", flush=True)
    worst = 0
    for name, kill in (("two nodes", False), ("two nodes, one killed half-way", True)):
        with cluster() as worker:
            generator = RayGenerator(Backbone(args.model), engine, chunk=args.chunk, actors=2, patience=5.0)

            def half_way(count: int, worker: Any = worker) -> None:
                if count == len(local) // 2:
                    (raylet,) = worker.all_processes["raylet"]
                    raylet.process.kill()

            rows, seconds = timed(generator.generate_groups(asked), half_way if kill else lambda count: None)
        equal = rows == local
        print(f"Ray, {name}: {seconds:.1f} s, rows {'equal' if equal else 'DIFFER'}", flush=True)
        worst |= not equal
    return int(worst)


def requests(args: argparse.Namespace) -> list[Request]:
    """Return what mining asks for, longest conversations first."""
    prompt_tokenizer = Backbone(args.model).prompt_tokenizer
    records = sorted(Embedded().records("train")[: args.records], key=lambda r: -len(r.prompt) - len(r.response or ""))
    return [Request(r.id, tuple(prompt_tokenizer.prompt(r)), prompt_tokenizer.text(r), (0,) * args.k) for r in records]


def timed(
    parts: Iterator[list[Completion]], after: Callable[[int], None] = lambda count: None
) -> tuple[Sequence[list[Completion]], float]:
    """Return the parts and the seconds that they took; ``after`` is told how many there are."""
    started, found = time.perf_counter(), []
    for part in parts:
        found.append(part)
        after(len(found))
    return found, time.perf_counter() - started


@contextmanager
def cluster() -> Iterator[Any]:
    """Start two nodes on this machine, connect, and yield the second one."""
    import ray
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args=NODE)
    worker = found.add_node(**NODE)
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield worker
    finally:
        ray.shutdown()
        found.shutdown()


if __name__ == "__main__":
    sys.exit(main())
