"""Detection of lost cluster nodes: ends a Ray pipeline that would wait forever for a node that is gone."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

_CHECK_EVERY = 0.5
"""Seconds between two checks of the cluster."""


class NodeLost(Exception):
    """The cluster no longer has room for all actors of a pipeline."""


class NodeWatch:
    """Ray Data execution callback that ends a pipeline when a node with its actors is lost and does not come back.

    Ray restarts an actor that died, and runs its chunks again, as soon as some node has room for it. If no node has
    room, the pipeline waits silently and forever (ray-project/ray, issue 46937). This callback ends it, so that the
    caller can start a pipeline that fits the remaining nodes.

    Ray Data creates one object of this class per execution, without arguments, and calls it at each scheduling step.
    The settings are therefore class attributes; ``node_watch`` makes a class that has them.
    """

    needs: Mapping[str, float]
    actors: int
    patience: float

    def __init__(self) -> None:
        self._most_room = 0
        self._checked = self._last_complete = time.monotonic()

    def before_execution_starts(self, executor: Any) -> None:
        """Do nothing."""

    def on_execution_step(self, executor: Any) -> None:
        """Raise ``NodeLost`` if there has been too little room for longer than ``patience`` seconds."""
        now = time.monotonic()
        if now - self._checked < _CHECK_EVERY:
            return
        self._checked = now
        import ray

        room = actor_room(self.needs, ray.nodes())
        self._most_room = max(self._most_room, min(room, self.actors))
        if room >= self._most_room:
            self._last_complete = now
        elif now - self._last_complete >= self.patience:
            raise NodeLost

    def after_execution_succeeds(self, executor: Any) -> None:
        """Do nothing."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Do nothing."""


def node_watch(needs: Mapping[str, float], actors: int, patience: float) -> type[NodeWatch]:
    """Return a subclass of ``NodeWatch`` with the given settings.

    Args:
        needs: resources that one actor reserves, by Ray's names.
        actors: maximum number of actors.
        patience: seconds that a lost node has to come back.
    """
    return type("ConfiguredNodeWatch", (NodeWatch,), {"needs": dict(needs), "actors": actors, "patience": patience})


def actor_room(needs: Mapping[str, float], nodes: Iterable[Mapping[str, Any]]) -> int:
    """Return how many actors fit on the live nodes of a cluster, ignoring what else runs there.

    Args:
        needs: resources that one actor reserves, by Ray's names ("CPU", "GPU"). If all are 0, any number fits.
        nodes: nodes as ``ray.nodes()`` lists them.
    """
    required = {name: amount for name, amount in needs.items() if amount > 0}
    if not required:
        return 1_000_000
    totals = [node["Resources"] for node in nodes if node["Alive"]]
    # the tolerance is for fractions such as 0.1, which do not divide exactly
    return sum(int(min(total.get(name, 0) / amount for name, amount in required.items()) + 1e-6) for total in totals)
