"""Metrics of the service in the format of Prometheus."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from guardreasoner.guard.results import GuardResult, GuardSpeed

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ServiceMetrics:
    """Counters of one service; no label holds anything that a client chose."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("guard_requests", "Answered requests", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "guard_request_seconds",
            "Time from the request's head to the end of its answer",
            ["route", "speed"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_length = Gauge("guard_queue_length", "Conversations in the queue", registry=registry)
        self.results = Counter("guard_conversations", "Judged conversations", ["speed"], registry=registry)
        self.flagged = Counter("guard_flagged", "Flagged conversations", ["speed"], registry=registry)
        self.unparsed = Counter(
            "guard_unparsed", "Answers without a clear verdict, which flag", ["speed"], registry=registry
        )
        self.tokens = Counter("guard_generated_tokens", "Generated tokens", ["speed"], registry=registry)
        self.rejected = Counter("guard_rejected", "Requests without a verdict", ["code"], registry=registry)
        self.batch_size = Histogram(
            "guard_batch_size", "Conversations in a batch", ["speed"], buckets=_SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            "guard_batch_seconds", "Time of a batch", ["speed"], buckets=_SECONDS, registry=registry
        )

    def saw_batch(self, speed: GuardSpeed, size: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_size.labels(speed).observe(size)
        self.batch_seconds.labels(speed).observe(seconds)

    def saw_results(self, results: Sequence[GuardResult]) -> None:
        """Count results by the speed that decided."""
        for result in results:
            self.results.labels(result.speed).inc()
            self.flagged.labels(result.speed).inc(result.flagged)
            self.unparsed.labels(result.speed).inc(result.unparsed)
            self.tokens.labels(result.speed).inc(result.tokens)

    def saw_request(self, route: str, status: int, speed: str, seconds: float, code: str | None) -> None:
        """Count an answered request.

        Args:
            route: path of the route, or ``unknown``.
            status: HTTP status; 499 if the client has hung up.
            speed: speed that was asked for; "" for requests that judge nothing.
            seconds: how long it took.
            code: code of the error; None if there was none.
        """
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route, speed).observe(seconds)
        if code is not None:
            self.rejected.labels(code).inc()

    def text(self) -> bytes:
        """Return all metrics."""
        return generate_latest(self.registry)
