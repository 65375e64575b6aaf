"""What an idle cluster comes to in a month on the plans that cost nothing, from what was measured.

What a host gives is as its own pages said in November 2026; `docs/benchmarks.md` names them.
"""

from __future__ import annotations

from tests.bench.idle import Idle

_DAYS = 30
_HOURS = 730
_GB = 1e9
#: Gigabytes out of the database that the plan includes in a month.
_SUPABASE_GB = _NEON_GB = 5.0
#: The smallest compute, and the hours of one unit that the plan includes.
_NEON_UNIT, _NEON_UNIT_HOURS = 0.25, 100.0
#: Dollars for a gigabyte that a machine sends, and what the plan gives a month.
_RAILWAY_USD_A_GB, _RAILWAY_USD = 0.05, 1.0
_FLY_USD_A_GB = 0.02


def month(found: Idle) -> str:
    """A table in Markdown: for each host what the nodes use of what it gives in a month."""
    received, sent = (_DAYS * each / _GB for each in (found.received, found.sent))
    each_sends = sent / found.nodes
    hours = _NEON_UNIT * _HOURS
    rows = (
        ("Supabase Free (database)", "5 GB of egress", f"{received:.1f} GB: {_share(received, _SUPABASE_GB)}"),
        (
            "Neon Free (database)",
            "5 GB of public transfer; 100 CU-hours",
            f"{received:.1f} GB: {_share(received, _NEON_GB)}. It never sleeps while a node beats: {hours:.0f} "
            f"CU-hours, so the plan lasts {_NEON_UNIT_HOURS / _NEON_UNIT / 24:.0f} days of the month",
        ),
        (
            "Railway Free (node)",
            "$1 of usage; $0.05 a GB sent, private network free",
            f"{each_sends:.1f} GB for each node: ${each_sends * _RAILWAY_USD_A_GB:.2f} of it, besides its memory",
        ),
        (
            "Render Free (node)",
            "750 hours; sleeps after 15 minutes without requests",
            f"{each_sends:.1f} GB of outbound bandwidth for each node that is kept awake, "
            "none within its private network",
        ),
        (
            "Fly (node)",
            "nothing free; $0.02 a GB sent in North America and Europe",
            f"{each_sends:.1f} GB for each node: ${each_sends * _FLY_USD_A_GB:.2f}",
        ),
    )
    lines = "".join(f"| {host} | {gives} | {uses} |\n" for host, gives, uses in rows)
    return f"| host | gives a month | {found.nodes} idle nodes use |\n|---|---|---|\n{lines}"


def _share(used: float, given: float) -> str:
    return f"{100 * used / given:.0f} % of it"
