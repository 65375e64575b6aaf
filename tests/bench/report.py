"""What a run found, as Markdown: a table, and a line for each target with its figures."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

from tests.bench.run import SUBJECTS, Results, median, ratio

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
_NAMES = {"bare": "bare Flask route", "naive": "naive check", "ours": "**ours**"}
_HEAD = """\
| connections | | answers/s | p50 ms | p99 ms | CPU ms: server | CPU ms: Postgres | × bare | × naive |
|--:|---|--:|--:|--:|--:|--:|--:|--:|
"""


def render(results: Results) -> str:
    """The table, what was measured once, and the targets."""
    parts = [
        f"{results.machine}; the disk's `fdatasync` takes {results.fsync_ms:.2f} ms. Load, servers and Postgres share "
        f"the machine.\n\n{_HEAD}{''.join(_rows(results))}",
        *_once(results),
        "\n".join(targets(results)) + "\n",
    ]
    return "\n".join(parts)


def targets(results: Results) -> list[str]:
    """One line for each target: whether it is reached, and the figures."""
    most, few = max(n for n, _ in results.samples), _few(results)
    ours, bare, naive = (results.samples[most, name] for name in ("ours", "bare", "naive"))
    of_bare, of_naive = ratio(ours, bare), ratio(ours, naive)
    p99, bare_p99 = (median(results.samples[few, name], "p99") for name in ("ours", "bare"))
    start, durable = statistics.median(results.starts_s), median(results.delayed, "rps")
    return [
        _line(of_bare >= 0.45, f"{of_bare:.2f} × bare Flask at {most} connections (at least 0.45)"),
        _line(of_naive >= 6, f"{of_naive:.1f} × naive at {most} connections (at least 6)"),
        _line(
            p99 <= max(15, 2 * bare_p99),
            f"p99 at {few} connections {p99:.1f} ms (at most 15 ms or 2 × bare, which is {2 * bare_p99:.1f} ms)",
        ),
        _line(results.pss_mb <= 260, f"memory (PSS) of the whole node {results.pss_mb:.0f} MB (at most 260)"),
        _line(start <= 2, f"start to first verdict {start:.2f} s (at most 2)"),
        _line(
            durable >= 500,
            f"{durable:.0f} durable checks/s at {most} connections, {results.round_trip_ms:.0f} ms from Postgres "
            "(at least 500)",
        ),
    ]


def write_readme(readme: Path, text: str) -> None:
    """Replaces what is between the markers. Raises `ValueError` where they are not there once each, in order."""
    content = readme.read_text(encoding="utf-8")
    replaced, count = re.subn(
        f"({re.escape(BEGIN)}\n).*?({re.escape(END)})", lambda m: f"{m[1]}{text}{m[2]}", content, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{readme.name} needs one {BEGIN} and one {END} after it")
    readme.write_text(replaced, encoding="utf-8")


def _rows(results: Results) -> list[str]:
    return [
        _row(results, connections, name) for connections in sorted({n for n, _ in results.samples}) for name in SUBJECTS
    ]


def _row(results: Results, connections: int, name: str) -> str:
    samples = results.samples[connections, name]
    figures = [
        f"{median(samples, 'rps'):,.0f}",
        *(f"{median(samples, figure):.1f}" for figure in ("p50", "p99")),
        *(f"{median(samples, figure):.2f}" for figure in ("server_cpu", "postgres_cpu")),
        *(f"{ratio(samples, results.samples[connections, other]):.2f}" for other in ("bare", "naive")),
    ]
    return f"| {connections} | {_NAMES[name]} | {' | '.join(figures)} |\n"


def _once(results: Results) -> list[str]:
    """What has no row in the table: the network, refusals, and whether every answered check is in the log."""
    delayed, refused = results.delayed, _refused(results)
    lines = [
        f"With a network of {results.round_trip_ms:.1f} ms a round trip between node and Postgres: "
        f"{median(delayed, 'rps'):,.0f} checks/s, p50 {median(delayed, 'p50'):.0f} ms, "
        f"p99 {median(delayed, 'p99'):.0f} ms.\n",
        f"{results.answered:,} checks of ours were answered in all and {results.logged:,} are in the log.\n",
    ]
    if refused:
        lines.append(f"Answered with an error and not counted above: {refused}.\n")
    return lines


def _refused(results: Results) -> str:
    counts = {f"{name} at {n}": sum(s.refused for s in samples) for (n, name), samples in results.samples.items()}
    counts["ours over the network"] = sum(sample.refused for sample in results.delayed)
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _few(results: Results) -> int:
    """16 connections, or what comes closest in a short run."""
    return min({n for n, _ in results.samples}, key=lambda n: abs(n - 16))


def _line(reached: bool, text: str) -> str:
    return f"- {'reached' if reached else 'NOT reached'}: {text}"
