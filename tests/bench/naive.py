"""What ours is compared with, as one serves it on Granian: a bare Flask route, and a check as one first writes it.

`python -m tests.bench.naive bare` or `naive`, with PORT, HOST and DATABASE_URL in the environment.
"""

from __future__ import annotations

import os
import sys
import time

from flask import Flask, Response, jsonify, request
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

#: For each worker. With one for each connection both answer less: so many take the interpreter from one another.
_THREADS = 16
#: As long as the two tokens of our answer, so that the answers are about the same size.
_VERDICT, _TOKEN = "v" * 870, "t" * 680


class Base(DeclarativeBase):
    """The naive check's own tables."""


class NaiveLicense(Base):
    __tablename__ = "naive_licenses"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str]


class NaiveEvent(Base):
    __tablename__ = "naive_events"
    id: Mapped[int] = mapped_column(primary_key=True)
    license_id: Mapped[int]
    fingerprint: Mapped[str]
    nonce: Mapped[str]
    code: Mapped[str]
    occurred_at: Mapped[float]


def bare_app() -> Flask:
    """A JSON body in, a JSON answer out, nothing between."""
    app = Flask("bare")

    @app.post("/bare")
    def bare() -> Response:
        sent = request.get_json()
        return _answer(sent["nonce"], "VALID")

    return app


def naive_app() -> Flask:
    """One session, one select, one insert and one commit for each request; unsigned, and nobody checks who asks."""
    app = Flask("naive")
    engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://"))

    @app.post("/naive")
    def naive() -> Response:
        sent = request.get_json()
        with Session(engine) as session:
            license = session.scalars(select(NaiveLicense).where(NaiveLicense.key == sent["key"])).one()
            code = "VALID" if license.status == "active" else "SUSPENDED"
            session.add(
                NaiveEvent(
                    license_id=license.id,
                    fingerprint=sent["fingerprint"],
                    nonce=sent["nonce"],
                    code=code,
                    occurred_at=time.time(),
                )
            )
            session.commit()
        return _answer(sent["nonce"], code)

    return app


def _answer(nonce: str, code: str) -> Response:
    license = {"id": 1, "status": "active", "product": "bench", "entitlements": [], "max_machines": 3, "machines": 1}
    return jsonify(
        valid=code == "VALID",
        code=code,
        detail="is valid",
        ts=int(time.time()),
        nonce=nonce,
        license=license,
        verdict=_VERDICT,
        token=_TOKEN,
    )


_APPS = {"bare": "bare_app", "naive": "naive_app"}


def main() -> int:
    Granian(
        f"tests.bench.naive:{_APPS[sys.argv[1]]}",
        factory=True,
        address=os.environ["HOST"],
        port=int(os.environ["PORT"]),
        interface=Interfaces.WSGI,
        workers=int(os.environ["WEB_CONCURRENCY"]),
        blocking_threads=_THREADS,
        http=HTTPModes.http1,
        log_level=LogLevels.error,
    ).serve()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
