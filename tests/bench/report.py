"""What a run found, as Markdown: a table, and a line for each target with its figures."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

from tests.bench.copying import Copying
from tests.bench.idle import Idle
from tests.bench.isolated import IsolatedLoad
from tests.bench.run import SUBJECTS, Results
from tests.bench.sample import median, ratio
from tests.bench.small import Small

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
IDLE_BEGIN, IDLE_END = "<!-- bench:idle -->", "<!-- bench:idle:end -->"
_NAMES = {"bare": "bare Flask route", "naive": "naive check", "ours": "**ours**"}
_HEAD = """\
| connections | | answers/s | p50 ms | p99 ms | CPU ms: server | CPU ms: Postgres | × bare | × naive |
|--:|---|--:|--:|--:|--:|--:|--:|--:|
"""


def render(results: Results) -> str:
    """The table, what was measured once, and the targets, of the parts that were run."""
    head = (
        f"{results.machine}; the disk's `fdatasync` takes {results.fsync_ms:.2f} ms. Load, servers and Postgres share "
        "the machine.\n"
    )
    parts = [head]
    if results.samples:
        parts += [f"{_HEAD}{''.join(_rows(results))}", *_once(results)]
    if results.isolated:
        parts.append(_while_isolated(results.isolated))
    if results.copying:
        parts.append(_while_copying(results.copying))
    if results.small:
        parts.append(_of_one_worker(results.small))
    if results.idle:
        parts.append(_while_idle(results.idle))
    return "\n".join([*parts, "\n".join(targets(results)) + "\n"])


def targets(results: Results) -> list[str]:
    """One line for each target: whether it is reached, and the figures."""
    return [
        *(_load_targets(results) if results.samples else ()),
        *(_isolated_targets(results.isolated) if results.isolated else ()),
        *(_copying_targets(results.copying) if results.copying else ()),
        *(_small_targets(results.small) if results.small else ()),
        *(_idle_targets(results.idle) if results.idle else ()),
    ]


def _load_targets(results: Results) -> list[str]:
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


def _isolated_targets(found: IsolatedLoad) -> list[str]:
    speed = ratio(found.isolated, found.ledger)
    kept, all_there = found.answered == found.queued, found.taken == found.recorded
    return [
        _line(speed >= 1, f"isolated {speed:.2f} × with its ledger at {found.connections} connections (at least 1)"),
        _line(kept, f"of {found.answered:,} checks answered while isolated {found.queued:,} are in the queue (all)"),
        _line(all_there, f"of {found.taken:,} events queued {found.recorded:,} are in the ledger afterwards (all)"),
        _line(
            found.per_s >= 5_000,
            f"replay of {found.backlog:,} events at {found.per_s:,.0f} events/s (at least 5,000)",
        ),
    ]


def _copying_targets(found: Copying) -> list[str]:
    cost, bad = ratio(found.many, found.few, "server_cpu"), found.refused.total()
    few, many = (f"{licenses:,}" for licenses in found.licenses)
    return [
        _line(found.loaded_s <= 15, f"{many} licenses on an empty disk in {found.loaded_s:.1f} s (at most 15)"),
        _line(not bad, f"{found.answered:,} checks answered well meanwhile, {bad:,} not (none)"),
        _line(cost <= 1.1, f"a check with {many} licenses costs {cost:.2f} × one with {few} (at most 1.1)"),
        _line(found.pss_mb <= 300, f"memory (PSS) of that node {found.pss_mb:.0f} MB (at most 300)"),
        _line(found.look_up_us <= 15, f"a look-up in the copy {found.look_up_us:.0f} µs (about 10)"),
    ]


def _small_targets(found: Small) -> list[str]:
    idle, loaded = found.idle_mb, found.loaded_mb
    return [
        _line(idle <= 110, f"memory (PSS) of a node with WEB_CONCURRENCY=1 and no calls {idle:.0f} MB (at most 110)"),
        _line(
            loaded <= 160,
            f"the same with {found.licenses:,} licenses at {found.connections} connections {loaded:.0f} MB "
            "(at most 160)",
        ),
    ]


def _idle_targets(found: Idle) -> list[str]:
    most, nodes = max(found.cpu), found.nodes
    return [
        _line(found.messages <= 6, f"{nodes} idle nodes send {found.messages:.1f} statements a second (at most 6)"),
        _line(found.received <= 100e6, f"{found.received / 1e6:.0f} MB a day out of the database (at most 100)"),
        _line(found.wal <= 40e6, f"{found.wal / 1e6:.0f} MB a day of write-ahead log (at most 40)"),
        _line(most <= 1, f"{most:.1f} % of a core at the most for each node (at most 1)"),
    ]


def write_between(file: Path, begin: str, end: str, text: str) -> None:
    """Replaces what is between the markers. Raises `ValueError` where they are not there once each, in order."""
    content = file.read_text(encoding="utf-8")
    replaced, count = re.subn(
        f"({re.escape(begin)}\n).*?({re.escape(end)})", lambda m: f"{m[1]}{text}{m[2]}", content, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{file.name} needs one {begin} and one {end} after it")
    file.write_text(replaced, encoding="utf-8")


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


def _while_isolated(found: IsolatedLoad) -> str:
    with_ledger, without = (median(samples, "rps") for samples in (found.ledger, found.isolated))
    return (
        f"With Postgres stopped, {found.connections} connections: {without:,.0f} checks/s into the node's own queue, "
        f"p50 {median(found.isolated, 'p50'):.1f} ms, p99 {median(found.isolated, 'p99'):.1f} ms; "
        f"in turn with it {with_ledger:,.0f}.\n"
    )


def _while_copying(found: Copying) -> str:
    few, many, all = (median(samples, "server_cpu") for samples in (found.few, found.many, found.all))
    asked, licenses = (f"{count:,}" for count in found.licenses)
    return (
        f"The copy of {licenses} licenses with a machine each is {found.file_mb:.0f} MB. A check's CPU with {asked} "
        f"licenses {few:.2f} ms, of {asked} among {licenses} {many:.2f} ms, of any of the {licenses}, where it is its "
        f"license's first in a minute, {all:.2f} ms ({found.connections} connections).\n"
    )


def _of_one_worker(found: Small) -> str:
    shown = "; ".join(f"{when} {', '.join(f'{each:.0f}' for each in sizes)}" for when, sizes in found.parts.items())
    return f"With WEB_CONCURRENCY=1 the memory of each process, from the master down, in MB: {shown}.\n"


def _while_idle(found: Idle) -> str:
    """Statements are counted as a server's log counts them: one for each message, whatever that sets before it."""
    most = found.of_messages.most_common(8)
    what = "\n".join(f"| {count / found.seconds:.2f} | `{text}` |" for text, count in most)
    return (
        f"{found.nodes} nodes of two workers with default settings, left alone for {found.seconds:.0f} s: "
        f"{found.messages:.1f} statements a second ({found.set_and_said:.0f} with the settings that each message "
        f"begins with), {found.received / 1e6:.0f} MB a day out of the database and {found.sent / 1e6:.0f} MB into it, "
        f"{found.wal / 1e6:.0f} MB a day of write-ahead log.\n\n| a second | |\n|--:|---|\n{what}\n"
    )


def _refused(results: Results) -> str:
    counts = {f"{name} at {n}": sum(s.refused for s in samples) for (n, name), samples in results.samples.items()}
    counts["ours over the network"] = sum(sample.refused for sample in results.delayed)
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _few(results: Results) -> int:
    """16 connections, or what comes closest in a short run."""
    return min({n for n, _ in results.samples}, key=lambda n: abs(n - 16))


def _line(reached: bool, text: str) -> str:
    return f"- {'reached' if reached else 'NOT reached'}: {text}"
