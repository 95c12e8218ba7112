"""Sampling on one machine or many: a Ray Data pipeline over chunks of requests, with an engine in every actor."""

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.parallel import chunks
from guardreasoner.generators.ray_actor import EngineActor, Fault
from guardreasoner.generators.ray_watch import MachineLost, room_for, watching
from guardreasoner.model.backbone import Backbone

log = logging.getLogger("guardreasoner")

_IN_FLIGHT = 2
"""Chunks that an actor has been given: one that it works on, one that it finds when that is done."""


class RayGenerator(Generator):
    """Generate on a Ray cluster; each chunk of requests is answered whole by one of several actors.

    The actors read the model themselves: its folder must lie at the same path on every machine (a shared file system),
    or the path be a hub id; and every machine needs this package.

    With :class:`~guardreasoner.generators.local.LocalGenerator` in the actors the texts are those of that engine in
    this process, byte for byte, if its chunks and threads are the same and the processors of one kind.

    An actor whose process or machine dies is started again by Ray, on any machine with room for it, and its chunks are
    answered again. Where no room is left, the work goes on with fewer actors. Chunks are given out in their order.

    Args:
        backbone: the model; its weights are not loaded in this process.
        engine: takes a backbone; what answers in an actor.
        chunk: requests that an actor gets at once, and whose outputs are given out together; several of the engine's
            own chunks, or one.
        actors: how many; two numbers: at least and at most, as the cluster has room.
        address: of a running cluster that this machine is part of: "auto", or "host:port"; None starts Ray on this
            machine, for this process.
        num_cpus: processors that Ray sets aside for an actor.
        num_gpus: GPUs, likewise; above 0 the weights are moved to the first one that the actor is given.
        resources: custom resources of the cluster, likewise, by name.
        threads: of torch, in each actor.
        patience: seconds that a lost machine has to come back before the work goes on with fewer actors.
        timeout: seconds in which a chunk must be answered by some actor, or the run ends: an actor that dies of a
            chunk, for want of memory, would else do so for ever.

    Raises:
        InputError: a number out of range.
    """

    needs_weights = False

    def __init__(
        self,
        backbone: Backbone,
        engine: Callable[[Backbone], Generator] = lambda backbone: LocalGenerator(backbone),
        chunk: int = 128,
        actors: int | tuple[int, int] = 1,
        address: str | None = None,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        resources: dict[str, float] | None = None,
        threads: int = 1,
        patience: float = 60.0,
        timeout: float = 7200.0,
    ) -> None:
        self.actors = (actors, actors) if isinstance(actors, int) else tuple(actors)
        if chunk < 1 or threads < 1:
            raise InputError("generator: chunk and threads must be at least 1")
        if not 1 <= self.actors[0] <= self.actors[1]:
            raise InputError(f"generator: actors must be 1 or more, or such a range, got {actors}")
        if not all(0 <= one < float("inf") for one in (num_cpus, num_gpus, patience)):
            raise InputError("generator: num_cpus, num_gpus and patience must be 0 or above")
        if not 0 < timeout < float("inf"):
            raise InputError(f"generator.timeout must be a number above 0, got {timeout}")
        if (address or "").startswith("ray://"):
            raise InputError(f"generator.address: Ray Data takes no client, got {address}", "run on the cluster: auto")
        self.backbone = backbone
        self.engine = engine(backbone)
        self._engine_of = engine
        self.chunk = chunk
        self.address = address
        self.num_cpus = num_cpus
        self.num_gpus = num_gpus
        self.resources = dict(resources or {})
        self.threads = threads
        self.patience = patience
        self.timeout = timeout
        self._needs = {"CPU": num_cpus, "GPU": num_gpus, **self.resources}

    @property
    def settings(self) -> dict[str, Any]:
        """Return what decides the outputs: who computes them does not, in which chunks and on how many threads does."""
        engine = f"{type(self.engine).__module__}.{type(self.engine).__qualname__}"
        return {"engine": engine, **self.engine.settings, "chunk": self.chunk, "threads": self.threads}

    def model_fingerprint(self, weights: str) -> str:
        """Return what the engine in the actors says."""
        return self.engine.model_fingerprint(weights)

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield every request's outputs, chunk by chunk, in the order of the requests."""
        for part in self.parts(requests):
            yield from part

    def parts(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the outputs of one chunk after the other.

        Raises:
            InputError: Ray is not installed or its cluster not there; the engine fails in an actor; or nothing is
                answered for too long.
        """
        waiting = list(chunks(requests, lambda first: self.chunk))
        if not waiting:
            return
        ray = _connected(self.address)
        actor = self._actor(ray)
        while waiting:
            try:
                for part in self._answered(ray, waiting, actor):
                    yield part
                    del waiting[0]
            except MachineLost:
                if waiting:
                    log.warning(
                        "Ray: a machine was lost and has not come back; %d chunks go on with room for %d actors",
                        len(waiting),
                        self._room(ray),
                    )

    def _answered(
        self, ray: Any, waiting: Sequence[Sequence[Request]], actor: Mapping[str, Any]
    ) -> Iterator[list[Completion]]:
        """Yield what the chunks are answered with, in their order, as far as one pipeline gets."""
        try:
            for row in self._pipeline(ray, waiting, actor):
                outcome = pickle.loads(row["outcome"])
                if isinstance(outcome, Fault):
                    raise InputError(outcome.message, outcome.hint) from RuntimeError(outcome.trace)
                yield outcome
        except (InputError, MachineLost):
            raise
        except ray.data.exceptions.ExecutionTimeoutError as error:
            raise InputError(
                f"Ray: no chunk was answered in {self.timeout:.0f} seconds (generator.timeout)",
                "no machine has room for an actor, a chunk takes longer, or its actor dies of it each time",
            ) from error
        except Exception as error:
            raise InputError(
                f"Ray: the requests could not be answered: {_last_line(error)}",
                "does every machine have this package, in this version, and memory enough?",
            ) from error

    def _pipeline(
        self, ray: Any, waiting: Sequence[Sequence[Request]], actor: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Yield a row for each chunk, in their order."""
        # one row a block: an actor is given a block at a time
        rows = [{"requests": pickle.dumps(list(part))} for part in waiting]
        with ray.data.DataContext.current(self._context(ray)):
            answered = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                EngineActor,
                fn_constructor_kwargs=actor,
                compute=ray.data.ActorPoolStrategy(
                    min_size=max(1, min(self.actors[0], self._room(ray), len(rows))),
                    max_size=max(1, min(self.actors[1], len(rows))),
                    max_tasks_in_flight_per_actor=_IN_FLIGHT,
                ),
                num_cpus=self.num_cpus,
                num_gpus=self.num_gpus or None,
                resources=self.resources or None,
            )
        # nothing is fetched ahead, as a chunk would be held back until the next one is answered
        for table in answered.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from table.to_pylist()

    def _context(self, ray: Any) -> Any:
        """Return Ray Data's settings: the order kept, nothing shown, and a watch over the machines."""
        context = ray.data.DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_no_progress_timeout_s = self.timeout
        watch = watching(self._needs, self.actors[1], self.patience)
        context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, watch]
        return context

    def _room(self, ray: Any) -> int:
        return room_for(self._needs, ray.nodes())

    def _actor(self, ray: Any) -> dict[str, Any]:
        """Return the arguments of an actor: small, as weights stay where they are."""
        backbone = self.backbone.unloaded()
        try:
            content = ray.cloudpickle.dumps((backbone, self._engine_of(backbone)))
        except Exception as error:
            name = type(self.engine).__name__
            raise InputError(f"generator.engine: {name} cannot be sent to an actor: {_last_line(error)}") from error
        return {"content": content, "threads": self.threads, "device": "cuda" if self.num_gpus else "cpu"}


def _connected(address: str | None) -> Any:
    """Return Ray, connected: to the cluster that this process is connected to already, if it is to one."""
    # Ray reports how it is used without having been asked to, warns of what it will do some day, and calls it an error
    # that Ray Data restarts actors; who wants any of these sets them
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    is_quiet = os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal") == "fatal"
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(f"Ray cannot be imported: {_last_line(error)}", "pip install 'guardreasoner[ray]'") from error
    if not ray.is_initialized():
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        where: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
        try:
            _knock(address or "")
            with _no_stderr() if is_quiet else nullcontext():
                ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"Ray: {address or 'this machine'}: {_last_line(error)}",
                "ray start --head starts a cluster, ray start --address=… adds a machine to it; "
                "address null needs none of them",
            ) from error
    return ray


def _knock(address: str) -> None:
    """Raise an ``OSError`` where nobody listens at "host:port": Ray itself would try for a quarter of an hour."""
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what native code writes to stderr: that its log level was set, at any level."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _last_line(error: BaseException) -> str:
    """Return the kind of an error and the last line of what it says, where Ray puts the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[-1:]])
