"""A watch over the machines of a Ray pipeline: it must not wait for ever for one that is gone."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

_PERIOD = 0.5
"""Seconds between two looks at the cluster."""


class MachineLost(Exception):
    """The cluster has not room any more for all actors of a pipeline."""


def room_for(needs: Mapping[str, float], nodes: Iterable[Mapping[str, Any]]) -> int:
    """Return how many actors the living machines of a cluster can hold together, whatever else they hold.

    Args:
        needs: what an actor takes, by Ray's names ("CPU", "GPU"); nothing means as many as one likes.
        nodes: as ``ray.nodes()`` lists them.
    """
    wanted = {name: amount for name, amount in needs.items() if amount > 0}
    if not wanted:
        return 1_000_000
    totals = [node["Resources"] for node in nodes if node["Alive"]]
    # a little more than there is, as shares such as 0.1 do not divide exactly
    return sum(int(min(total.get(name, 0) / amount for name, amount in wanted.items()) + 1e-6) for total in totals)


class Watch:
    """Ends a Ray Data pipeline when a machine with actors of it is lost and does not come back.

    Ray starts an actor that died again and gives it its chunks again, as soon as some machine has room for it. Where
    none has, the pipeline stands still without a word (ray-project/ray, issue 46937). It is ended then, so that its
    owner can make another one that fits what is left.

    Ray Data makes an object of this class for an execution, and calls it at each of its steps. So what it needs to know
    belongs to the class: :func:`watching` makes one.
    """

    needs: Mapping[str, float]
    actors: int
    patience: float

    def __init__(self) -> None:
        self._most = 0
        self._looked = self._whole = time.monotonic()

    def before_execution_starts(self, executor: Any) -> None:
        """Do nothing."""

    def on_execution_step(self, executor: Any) -> None:
        """Raise ``MachineLost`` when there has been too little room for too long."""
        now = time.monotonic()
        if now - self._looked < _PERIOD:
            return
        self._looked = now
        import ray

        room = room_for(self.needs, ray.nodes())
        self._most = max(self._most, min(room, self.actors))
        if room >= self._most:
            self._whole = now
        elif now - self._whole >= self.patience:
            raise MachineLost

    def after_execution_succeeds(self, executor: Any) -> None:
        """Do nothing."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Do nothing."""


def watching(needs: Mapping[str, float], actors: int, patience: float) -> type[Watch]:
    """Return a watch's class.

    Args:
        needs: what an actor takes.
        actors: how many there are at most.
        patience: seconds that a lost machine has to come back.
    """
    return type("Watching", (Watch,), {"needs": dict(needs), "actors": actors, "patience": patience})
