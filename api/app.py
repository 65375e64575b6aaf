"""The application factory, and the entry that starts a production server: `cd api && python app.py`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # Started as a script, the folder of this file is on the path and the project is not; it must be the other way.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from flask import Flask
from flask.cli import load_dotenv
from flask.helpers import get_load_dotenv
from werkzeug.middleware.proxy_fix import ProxyFix

from api import demo, logs
from api.config import clean_environ, private_files
from api.config.secret_files import SECRET_NAMES
from api.config.settings import Settings, SettingsError
from api.ids import new_id
from api.runtime import Runtime
from api.web import admin_routes as admin
from api.web import client_routes as client
from api.web import docs_routes as docs
from api.web import meta_routes as meta
from api.web import problem_responses, public_pages
from api.web import stats_routes as stats
from api.web.address_log import AddressLog
from api.web.admin_auth import AdminAuth
from api.web.fast_path import FastPath
from api.web.intake import BODY_LIMIT
from api.web.openapi import ADMIN_ROUTES, CLIENT_ROUTES
from api.web.per_process import PerProcess
from api.web.per_request import PerRequest
from api.web.rate_limit import FailureLimiter

#: Settings that are secret, or hold a password.
SECRET_SETTINGS = (*SECRET_NAMES, "DATABASE_URL")


def create_app(settings: Settings | None = None, instance: str | None = None, *, background: bool = True) -> Flask:
    """A node's application for any WSGI server, before or after it forks. Raises `SettingsError`.

    `settings` default to the environment's; `instance` names the supervisor that runs beside this process, if one
    does. The `Runtime` is at `app.extensions["runtime"]`, started, or without `instance` just about to be; at
    `app.extensions["non_blocking"]` is what answers client calls without a thread for each, for a server that can.
    Without `background` nothing runs between requests, and the node's supervisor is `flask node run-supervisor`.
    """
    settings = settings or _settings()
    app = _application(settings, instance, background=background)
    if not background:
        app.wsgi_app = PerRequest(  # type: ignore[method-assign]
            app, lambda: _application(settings, None, background=False)
        )
    elif instance is None:
        app.wsgi_app = each = PerProcess(app, lambda: _application(settings, None))  # type: ignore[method-assign]
        each.watch()
    else:
        app.extensions["runtime"].start()
    return app


def _settings() -> Settings:
    """Those of the environment. Raises `SettingsError`."""
    return Settings.from_env(os.environ, on_terminal=sys.stderr is not None and sys.stderr.isatty())


def _application(settings: Settings, instance: str | None, *, background: bool = True) -> Flask:
    """All of it, its runtime not started yet."""
    secrets = (*settings.api_keys, *settings.shared_secrets, settings.admin_token)
    logs.configure(settings.log_level, settings.log_format, hide=secrets)
    runtime = Runtime(settings, instance, background=background)
    app = Flask("api", static_folder=None)
    # A body without a stated length is cut at this, without a word: the one byte more tells that it was too long.
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT + 1
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.extensions["runtime"] = runtime
    limiter = FailureLimiter(runtime.state.failures, settings.rate_limit)
    problem_responses.register(app)
    public_pages.keep_others_private(app)
    calls = client.ClientCalls(runtime, limiter)
    app.register_blueprint(client.blueprint(calls, settings.cors_origins))
    admin_auth = AdminAuth(runtime, limiter)
    app.register_blueprint(admin.blueprint(runtime, admin_auth))
    app.register_blueprint(stats.blueprint(runtime, admin_auth))
    app.register_blueprint(meta.blueprint(runtime))
    app.register_blueprint(docs.blueprint(CLIENT_ROUTES + ADMIN_ROUTES))
    app.wsgi_app = direct = FastPath(app, calls, settings.trusted_proxies)  # type: ignore[method-assign]
    app.extensions["non_blocking"] = direct
    if settings.log_level == "DEBUG":
        app.wsgi_app = AddressLog(app.wsgi_app)  # type: ignore[method-assign]
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies)  # type: ignore[method-assign]
    return app


def main() -> int:
    """Serves until it is stopped; gives the exit status: 2 for faulty settings."""
    # Before any file is made and any process forked: what a node writes is for its own user only.
    os.umask(0o077)
    if get_load_dotenv():
        load_dotenv()  # as `flask` does: the server and its command line are to speak of one ledger
    try:
        settings = _settings()
    except SettingsError as error:
        print(f"These settings cannot be used:\n{error}", file=sys.stderr)
        return 2
    # All that need them have the settings.
    clean_environ.forget(SECRET_SETTINGS)
    private_files.tighten(settings)
    from api.server import Application, Companion, ServerOptions, serve
    from api.supervisor import companion

    demo.announce(settings)
    options = ServerOptions(
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        body_limit=BODY_LIMIT,
        port_advice=f"; choose another with the setting PORT, as in: PORT={settings.port % 65_535 + 1} make run",
    )
    # One for the life of this server: a supervisor that is started again must find its own lease again.
    instance = new_id()
    supervisor = Companion("supervisor", lambda: companion.run(settings, instance))

    def application() -> Application:
        app = create_app(settings, instance)
        app.extensions["runtime"].settle()  # its worker takes connections as soon as it has this
        return Application(app, app.extensions["non_blocking"])

    return serve(options, application, [supervisor])


if __name__ == "__main__":
    raise SystemExit(main())
