"""An index of the machines without a seat, so that how many a license has behind it is known at one price.

With too many of them it brings no new machine: each that comes and goes leaves a row for a month.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    gone = sa.text("NOT active")
    op.create_index(
        "ix_machines_departed", "machines", ["license_id"], unique=False, postgresql_where=gone, sqlite_where=gone
    )
