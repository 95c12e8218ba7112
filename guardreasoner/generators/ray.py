"""Sampling on one or several machines: a Ray Data pipeline over chunks of requests, with an engine in each actor."""

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from operator import methodcaller
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request, ScoreRequest, Scores
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.parallel import chunks
from guardreasoner.generators.ray_actor import ChunkError, EngineActor
from guardreasoner.generators.ray_watch import NodeLost, actor_room, node_watch
from guardreasoner.model.backbone import Backbone
from guardreasoner.workflow import stop_signals
from guardreasoner.workflow.ranges import Count, NotNegative, Positive

log = logging.getLogger("guardreasoner")

_IN_FLIGHT = 2
"""Chunks assigned to an actor at a time: the one it computes, and the next one."""


class RayGenerator(Generator):
    """Generate on a Ray cluster; each chunk of requests is computed by one of several actors.

    The actors read the model themselves. Its folder must have the same path on every machine (a shared file system),
    unless the path is a hub id, and every machine needs this package.

    With :class:`~guardreasoner.generators.local.LocalGenerator` in the actors, the texts are identical to those of that
    engine in this process, provided that chunks, number of threads and type of processor are the same.

    If the process or the machine of an actor dies, Ray restarts the actor on any machine that has room and computes its
    chunks again. If no machine has room, generation continues with fewer actors.

    Args:
        backbone: the model; its weights are not loaded in this process.
        engine: takes a backbone and returns the engine that runs in an actor.
        chunk: requests that an actor gets at once, whose completions are returned as one group; a multiple of the
            engine's own chunk size.
        actors: number of actors, or the minimum and the maximum number, used as the cluster has room.
        address: address of a running cluster that this machine is part of, "auto" or "host:port". None starts Ray on
            this machine for the duration of this process.
        num_cpus: CPUs that Ray reserves for an actor.
        num_gpus: GPUs that Ray reserves for an actor; if above 0, the weights are moved to the actor's first GPU.
        resources: custom Ray resources reserved for an actor, by name.
        threads: number of torch threads in an actor.
        patience: seconds that a lost machine has to come back before generation continues with fewer actors.
        timeout: maximum seconds without a finished chunk. It ends a run in which an actor dies on the same chunk over
            and over, for example of lack of memory.

    Raises:
        InputError: raised if a number is out of range.
    """

    needs_weights = False

    def __init__(
        self,
        backbone: Backbone,
        engine: Callable[[Backbone], Generator] = lambda backbone: LocalGenerator(backbone),
        chunk: Count = 128,
        actors: int | tuple[int, int] = 1,
        address: str | None = None,
        num_cpus: NotNegative = 1.0,
        num_gpus: NotNegative = 0.0,
        resources: dict[str, float] | None = None,
        threads: Count = 1,
        patience: NotNegative = 60.0,
        timeout: Positive = 7200.0,
    ) -> None:
        self.actors = (actors, actors) if isinstance(actors, int) else tuple(actors)
        if chunk < 1 or threads < 1:
            raise InputError("generator: chunk and threads must be at least 1")
        if not 1 <= self.actors[0] <= self.actors[1]:
            raise InputError(f"generator.actors: expected a number of at least 1, or minimum and maximum, got {actors}")
        if not all(0 <= value < float("inf") for value in (num_cpus, num_gpus, patience)):
            raise InputError("generator: num_cpus, num_gpus and patience must be 0 or above")
        if not 0 < timeout < float("inf"):
            raise InputError(f"generator.timeout must be a number above 0, got {timeout}")
        if (address or "").startswith("ray://"):
            raise InputError(
                f"generator.address: Ray Data does not support Ray Client, got {address}",
                "run on a machine of the cluster and set address: auto",
            )
        self.backbone = backbone
        self.engine = engine(backbone)
        self._make_engine = engine
        self.chunk = chunk
        self.address = address
        self.num_cpus = num_cpus
        self.num_gpus = num_gpus
        self.resources = dict(resources or {})
        self.threads = threads
        self.patience = patience
        self.timeout = timeout
        self._actor_needs = {"CPU": num_cpus, "GPU": num_gpus, **self.resources}

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the completions: engine, chunk size and threads, not the cluster."""
        engine = f"{type(self.engine).__module__}.{type(self.engine).__qualname__}"
        return {"engine": engine, **self.engine.settings, "chunk": self.chunk, "threads": self.threads}

    def model_fingerprint(self, weights: str) -> str:
        """Return the model fingerprint of the engine in the actors."""
        return self.engine.model_fingerprint(weights)

    def group_size(self, outputs: int) -> int:
        """Return the number of requests that an actor gets at once."""
        return self.chunk

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the completions of one chunk after another, in the order of the requests.

        Raises:
            InputError: raised if Ray is not installed, the cluster cannot be reached, the engine fails in an actor, or
                no chunk finishes within the timeout.
        """
        yield from self._results(list(chunks(requests, lambda first: self.chunk)), "generate")

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the scores of each request, in order; each chunk is computed by the engine of an actor.

        Raises:
            InputError: as by :meth:`generate_groups`, or if the engine cannot score continuations.
        """
        if not self.can_score:
            self.engine.score(())  # says so
        for group in self._results(list(chunks(requests, lambda first: self.chunk)), "score"):
            yield from group

    @property
    def can_score(self) -> bool:
        """Whether the engine in the actors can score continuations."""
        return self.engine.can_score

    def _results(self, remaining: list[Any], method: str) -> Iterator[list[Any]]:
        """Yield what a method of the actors' engines returns for each chunk of requests, in order.

        Args:
            remaining: chunks; each is removed when its results have been used.
            method: name of a method of :class:`~guardreasoner.generators.Generator` that takes requests.
        """
        if not remaining:
            return
        ray = _connect(self.address)
        actor_arguments = self._actor_arguments(ray)
        while remaining:
            try:
                for group in self._run_pipeline(ray, remaining, method, actor_arguments):
                    yield group
                    del remaining[0]
            except NodeLost:
                if remaining:
                    log.warning(
                        "Ray: a node was lost and has not come back; continuing %d chunks with room for %d actors",
                        len(remaining),
                        self._room(ray),
                    )

    def _run_pipeline(
        self, ray: Any, request_chunks: Sequence[Sequence[Any]], method: str, actor_arguments: Mapping[str, Any]
    ) -> Iterator[list[Any]]:
        """Yield the results of the chunks in order, until all are done or a node is lost."""
        try:
            for row in self._pipeline_rows(ray, request_chunks, method, actor_arguments):
                outcome = pickle.loads(row["outcome"])
                if isinstance(outcome, ChunkError):
                    raise InputError(outcome.message, outcome.hint) from RuntimeError(outcome.traceback)
                yield outcome
        except (InputError, NodeLost):
            raise
        except ray.data.exceptions.ExecutionTimeoutError as error:
            raise InputError(
                f"Ray: no chunk was finished within {self.timeout:.0f} seconds (generator.timeout)",
                "no machine has room for an actor, a chunk takes longer, or its actor dies each time",
            ) from error
        except Exception as error:
            raise InputError(
                f"Ray: the pipeline failed: {_error_line(error)}",
                "check that every machine has enough memory and the same version of this package",
            ) from error

    def _pipeline_rows(
        self, ray: Any, request_chunks: Sequence[Sequence[Any]], method: str, actor_arguments: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Yield the actors' output row of each chunk, in order."""
        rows = [{"call": pickle.dumps(methodcaller(method, list(chunk)))} for chunk in request_chunks]
        with ray.data.DataContext.current(self._context(ray)):
            # one row per block, because an actor is given one block at a time
            outputs = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                EngineActor,
                fn_constructor_kwargs=actor_arguments,
                compute=ray.data.ActorPoolStrategy(
                    min_size=max(1, min(self.actors[0], self._room(ray), len(rows))),
                    max_size=max(1, min(self.actors[1], len(rows))),
                    max_tasks_in_flight_per_actor=_IN_FLIGHT,
                ),
                num_cpus=self.num_cpus,
                num_gpus=self.num_gpus or None,
                resources=self.resources or None,
            )
        # prefetching would hold a finished chunk back until the next one is finished
        for table in outputs.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from table.to_pylist()

    def _context(self, ray: Any) -> Any:
        """Return Ray Data's settings: order preserved, no output on screen, and a watch for lost nodes."""
        context = ray.data.DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_no_progress_timeout_s = self.timeout
        watch = node_watch(self._actor_needs, self.actors[1], self.patience)
        context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, watch]
        return context

    def _room(self, ray: Any) -> int:
        return actor_room(self._actor_needs, ray.nodes())

    def _actor_arguments(self, ray: Any) -> dict[str, Any]:
        """Return the constructor arguments of an actor; they hold no weights."""
        backbone = self.backbone.unloaded()
        try:
            content = ray.cloudpickle.dumps((backbone, self._make_engine(backbone)))
        except Exception as error:
            name = type(self.engine).__name__
            raise InputError(f"generator.engine: {name} cannot be sent to an actor: {_error_line(error)}") from error
        return {"content": content, "threads": self.threads, "device": "cuda" if self.num_gpus else "cpu"}


def _connect(address: str | None) -> Any:
    """Return the ray module, connected to a cluster; an existing connection of this process is reused."""
    # by default Ray sends usage statistics, warns of future changes, and logs restarts of Ray Data actors as errors;
    # users who want any of these set the variables
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    is_quiet = os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal") == "fatal"
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(f"Ray cannot be imported: {_error_line(error)}", "pip install 'guardreasoner[ray]'") from error
    if not ray.is_initialized():
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        options: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
        try:
            _check_reachable(address or "")
            with _no_stderr() if is_quiet else nullcontext():
                ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
            stop_signals.take_handlers_back()
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"Ray: {address or 'this machine'}: {_error_line(error)}",
                "ray start --head starts a cluster and ray start --address=… adds a machine to it; "
                "address: null needs neither",
            ) from error
    return ray


def _check_reachable(address: str) -> None:
    """Raise an ``OSError`` if nothing listens at "host:port"; Ray itself would retry for a quarter of an hour."""
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Discard what native code writes to stderr: at every log level it reports that its level was set."""
    saved, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(devnull)


def _error_line(error: BaseException) -> str:
    """Return an error's type and the last line of its message, where Ray puts the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[-1:]])
