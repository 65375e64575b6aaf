"""The index that licenses are searched by, and the triggers that note which of its rows have to be made anew.

Nodes of an earlier release write licenses as before: what they write is noted for those that know the index. Licenses
that are there already get their rows afterwards, some at a time (`api.ledger.search_index.Filling`): here they would
be locked for as long as that takes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0008"
down_revision = "0007"

_TEXTS = ("name", "email", "external_ref", "key_hint")


def upgrade() -> None:
    op.create_table(
        "license_search",
        sa.Column("license_id", sa.String(length=36), nullable=False),
        sa.Column("words", sa.Text().with_variant(TSVECTOR(), "postgresql"), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["license_id"], ["licenses.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("license_id"),
    )
    empty = sa.text("words IS NULL")
    op.create_index(
        "ix_license_search_empty", "license_search", ["license_id"], postgresql_where=empty, sqlite_where=empty
    )
    op.create_index(
        "ix_license_search_words",
        "license_search",
        ["words"],
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
        sqlite_where=empty,
    )
    op.create_index("ix_license_search_name", "license_search", ["name"])
    op.create_index("ix_license_search_email", "license_search", ["email"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_EMPTY)
        changed = " OR ".join(f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in _TEXTS)
        for name, when in (("inserted", "INSERT"), ("updated", f"UPDATE OF {', '.join(_TEXTS)}")):
            condition = f"WHEN ({changed})" if name == "updated" else ""
            op.execute(
                f"CREATE TRIGGER license_search_{name} AFTER {when} ON licenses "
                f"FOR EACH ROW {condition} EXECUTE FUNCTION empty_license_search()"
            )
    else:
        changed = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in _TEXTS)
        for name, when in (("inserted", "INSERT"), ("updated", f"UPDATE OF {', '.join(_TEXTS)}")):
            condition = f"WHEN {changed}" if name == "updated" else ""
            op.execute(
                f"CREATE TRIGGER license_search_{name} AFTER {when} ON licenses {condition} "  # noqa: S608 - our own names
                "BEGIN INSERT OR REPLACE INTO license_search (license_id) VALUES (NEW.id); END"
            )


# It names the schema: who edits a license by hand may have another search path. And it has its owner's rights: a role
# that was granted the older tables one by one goes on writing licenses.
_EMPTY = """
CREATE FUNCTION empty_license_search() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format('INSERT INTO %I.license_search (license_id) VALUES ($1) ON CONFLICT (license_id) '
        'DO UPDATE SET words = NULL, name = NULL, email = NULL', TG_TABLE_SCHEMA) USING NEW.id;
    RETURN NULL;
END
$$
"""
