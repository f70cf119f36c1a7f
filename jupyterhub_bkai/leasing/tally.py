"""What has happened since this process began, counted for Prometheus: who asked, started, was refused, ended; how long
that took. Owns the counters and their names; what stands at the moment is read from the broker where it is shown.

No label names a person: each value of a label is a series of its own that is kept for as long as the metrics are, and
who used what is told by the usage report to those who may see it.
"""

from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Counter, Histogram

from jupyterhub_bkai.store.records import Record

_WAITS_S = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 3 * 86400, 7 * 86400)
_WORK_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)


class Tally:
    """The counters of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._asked = self._counter("bkai_requests", "Requests that were recorded", "group")
        self._refused = self._counter(
            "bkai_refusals",
            "Requests that were refused, by the reason that programs are told",
            "group",
            "reason",
        )
        self._granted = self._counter("bkai_grants", "Leases that were given", "group")
        self._ended = self._counter("bkai_ends", "Requests and leases that ended", "group", "cause")
        self._waits = Histogram(
            "bkai_wait_seconds",
            "From asking to being granted",
            ["group"],
            buckets=_WAITS_S,
            registry=self.registry,
        )
        self._decisions = self._timer(
            "bkai_decision_seconds", "What it takes to decide who starts now, and where"
        )
        self._writes = self._timer(
            "bkai_database_write_seconds", "What it takes to have a transaction on disk"
        )

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def _timer(self, name: str, help: str) -> Histogram:
        return Histogram(name, help, buckets=_WORK_S, registry=self.registry)

    def decision(self) -> AbstractContextManager[object]:
        """Times one decision."""
        return self._decisions.time()

    def write(self) -> AbstractContextManager[object]:
        """Times one transaction."""
        return self._writes.time()

    def refused(self, group: str, reason: str) -> None:
        """Somebody may not have what they ask for."""
        self._refused.labels(group, reason).inc()

    def moved(self, before: Record | None, after: Record, final: bool) -> None:
        """A record as it was (None: new) and as it was written."""
        group = after.request.group
        if before is None:
            self._asked.labels(group).inc()
        if after.granted_ms is not None and (before is None or before.granted_ms is None):
            self._granted.labels(group).inc()
            self._waits.labels(group).observe(max(0, after.granted_ms - after.asked_ms) / 1000)
        if final:
            self._ended.labels(group, str(after.cause or "unknown")).inc()
