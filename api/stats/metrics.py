"""`GET /metrics`: the numbers of `/stats` as Prometheus reads them, from a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

Report = Mapping[str, Any]


class Metrics:
    """Renders the report that `report()` gives. What that does not know (null) has no sample."""

    CONTENT_TYPE = CONTENT_TYPE_LATEST

    def __init__(self, report: Callable[[], Report]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(report))

    def text(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self._registry)


class _Collector(Collector):
    def __init__(self, report: Callable[[], Report]) -> None:
        self._report = report

    def collect(self) -> Iterable[Metric]:
        report = self._report()
        yield from _of_the_node(report)
        yield from _of_the_ledger(report)


def _of_the_node(report: Report) -> Iterable[Metric]:
    node, sync = report["node"], report["sync"]
    labels = {name: str(node[name]) for name in ("id", "rank", "role", "state", "disk")}
    yield InfoMetricFamily("protecao_node", "Which node this is and what part it plays.", value=labels)
    yield _gauge("protecao_ledger_reachable", "1 while the ledger answers.", int(node["ledger"] == "reachable"))
    yield _gauge("protecao_uptime_seconds", "Since the answering process started.", node["uptime_s"])
    yield _gauge("protecao_epoch", "The epoch this node last knew.", node["epoch"])
    yield _gauge("protecao_snapshot_lag_seconds", "How far this node's knowledge is behind.", node["snapshot"]["lag_s"])
    yield _gauge("protecao_queue_events", "Events in this node's own queue.", sync["queue"]["pending"])
    yield _gauge("protecao_queue_bytes", "Size of this node's own queue.", sync["queue"]["bytes"])


def _of_the_ledger(report: Report) -> Iterable[Metric]:
    checks = report["checks"]
    yield _gauge("protecao_log_head", "The last position of the ledger's log.", report["node"]["snapshot"]["seq"])
    yield _gauges("protecao_licenses", "Licenses, all (total) and by what they are.", "status", report["licenses"])
    yield _gauges("protecao_machines", "Machines that hold a seat, all and alive.", "state", report["machines"])
    yield _gauges(
        "protecao_sync_events", "Events taken in backup mode or in isolation.", "state", _numbers(report["sync"])
    )
    results = {name: checks[name] for name in ("valid", "denied")}
    yield _counters("protecao_checks", "Verdicts given, by outcome.", "result", results)
    yield _counters("protecao_checks_by_code", "Verdicts given, by code.", "code", checks["by_code"])


def _gauge(name: str, what: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(name, what)
    if value is not None:
        family.add_metric([], value)
    return family


def _gauges(name: str, what: str, label: str, values: Mapping[str, float | None]) -> Metric:
    return _filled(GaugeMetricFamily(name, what, labels=[label]), values)


def _counters(name: str, what: str, label: str, values: Mapping[str, float | None]) -> Metric:
    return _filled(CounterMetricFamily(name, what, labels=[label]), values)


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, float | None]
) -> GaugeMetricFamily | CounterMetricFamily:
    for value, number in values.items():
        if number is not None:
            family.add_metric([value], number)
    return family


def _numbers(members: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in members.items() if isinstance(value, int)}
