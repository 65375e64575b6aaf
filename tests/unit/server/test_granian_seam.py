"""What the server uses of Granian's private names: an upgrade that changes one of them fails here, and says where.

Granian promises none of these. All of them are used in `api/server/granian_worker.py` and nowhere else.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from granian._granian import CallbackScheduler, RSGIWorker, SocketHolder, WorkerSignal
from granian.server.common import AbstractServer
from granian.server.mp import MPServer, WorkerProcess

from api.server import granian_worker

ROOT = Path(__file__).resolve().parents[3]
#: The release whose `server/mp.py`, `server/common.py` and extension module were read for the seam.
READ = "2.8.7"
_ADVICE = (
    f"Granian's {{what}} is not as it was in {READ}. Compare granian/server/mp.py (WorkerProcess.wrap_target, "
    "MPServer._spawn_rsgi_worker, _spawn_worker, _init_shared_socket) with api/server/granian_worker.py, "
    "change the seam and this test together, then run tests/e2e/test_server_*.py; "
    "why there is a seam: docs/decisions/0001-granian-and-one-seam-to-it.md"
)
_WORK = (
    "worker_id callback sock ipc loop runtime_mode runtime_threads runtime_blocking_threads blocking_threads "
    "blocking_threads_idle_timeout backpressure task_impl http_mode http1_settings http2_settings websockets "
    "static_path log_access_fmt ssl_ctx scope_opts metrics"
)
_RSGI = (
    "worker_id sock ipc threads blocking_threads py_threads py_threads_idle_timeout backpressure http_mode http1_opts "
    "http2_opts websockets_enabled static_files ssl_enabled ssl_cert ssl_key ssl_key_password ssl_protocol_min ssl_ca "
    "ssl_crl ssl_client_verify metrics"
)
_WRAPPED = (
    "worker_id process_name callback_loader sock ipc loop_impl log_enabled log_level log_config env_files args kwargs"
)
SIGNATURES: dict[str, tuple[Callable[..., Any], str]] = {
    "RSGIWorker": (RSGIWorker, _RSGI),
    "CallbackScheduler": (CallbackScheduler, "event_loop cb aio_task aio_tenter aio_texit"),
    "SocketHolder": (SocketHolder, "fd uds backlog" if sys.platform == "linux" else "fd uds"),
    "WorkerSignal": (WorkerSignal, ""),
    "WorkerProcess.wrap_target": (WorkerProcess.wrap_target, "target"),
    "WorkerProcess.terminate": (WorkerProcess.terminate, "self"),
    "MPServer._spawn_rsgi_worker": (MPServer._spawn_rsgi_worker, _WORK),
    "MPServer._spawn_worker": (MPServer._spawn_worker, "self idx target callback_loader"),
    "MPServer._init_shared_socket": (MPServer._init_shared_socket, "self"),
    "MPServer.serve": (MPServer.serve, "self spawn_target target_loader wrap_loader"),
    "MPServer.signal_handler_interrupt": (MPServer.signal_handler_interrupt, "self args kwargs"),
}
ATTRIBUTES: dict[str, tuple[object, str]] = {
    "RSGIWorker": (RSGIWorker, "serve_str"),
    "CallbackScheduler": (CallbackScheduler, "_schedule_fn"),
    "WorkerSignal": (WorkerSignal, "set add_cb"),
}
#: What a method of Granian's names, as the seam sets it or counts on it.
NAMES: dict[str, tuple[Callable[..., Any], str]] = {
    "MPServer._spawn_worker": (MPServer._spawn_worker, "_ssp _shd _sso"),
    "WorkerProcess.terminate": (WorkerProcess.terminate, "interrupt_by_parent inner"),
    "AbstractServer.startup": (AbstractServer.startup, "signal_handler_interrupt _init_shared_socket _spawn_workers"),
    "AbstractServer._stop_workers": (AbstractServer._stop_workers, "wrks terminate kill workers_kill_timeout"),
}


def advice(what: str) -> str:
    return _ADVICE.format(what=what)


def parameters(call: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(call).parameters)


def missing(names: Iterable[str], there: Iterable[str]) -> set[str]:
    return set(names) - set(there)


def test_granian_is_the_release_that_the_seam_was_written_for() -> None:
    pinned = re.search(r"^granian==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned is not None, "requirements.txt does not pin granian: the seam holds for one release only"
    assert pinned[1] == READ, advice("pinned release")
    assert importlib.metadata.version("granian") == READ, advice("installed release")


@pytest.mark.parametrize("name", SIGNATURES)
def test_what_the_seam_calls_or_overrides_takes_what_it_took(name: str) -> None:
    call, expected = SIGNATURES[name]
    assert parameters(call) == expected.split(), advice(name)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_what_the_seam_uses_of_the_extension_module_is_there(name: str) -> None:
    owner, expected = ATTRIBUTES[name]
    assert not missing(expected.split(), dir(owner)), advice(name)


@pytest.mark.parametrize("name", NAMES)
def test_granians_own_methods_go_by_the_names_that_the_seam_sets(name: str) -> None:
    method, expected = NAMES[name]
    assert not missing(expected.split(), method.__code__.co_names), advice(name)


def test_a_wrapped_worker_gets_what_the_seams_own_takes() -> None:
    """Granian passes these by position."""
    wrapped = granian_worker._work
    assert len(parameters(wrapped)) == len(_WORK.split()), advice("_spawn_rsgi_worker")
    inner = inspect.unwrap(wrapped) is not wrapped
    assert inner, advice("WorkerProcess.wrap_target")
    assert list(wrapped.__code__.co_varnames[: len(_WRAPPED.split())]) == _WRAPPED.split(), advice("wrap_target")


def test_the_server_is_made_with_options_that_granian_has() -> None:
    made = set(re.findall(r"^            (\w+)=", inspect.getsource(granian_worker.Server.__init__), re.MULTILINE))
    assert {"target", "backpressure", "workers_kill_timeout"} <= made
    assert not missing(made, parameters(MPServer.__init__)), advice("MPServer.__init__")


def test_no_other_module_of_the_server_knows_granian() -> None:
    importing = re.compile(r"^\s*(from|import) granian\b", re.MULTILINE)
    found = {path.name for path in (ROOT / "api").rglob("*.py") if importing.search(path.read_text())}
    assert found == {"granian_worker.py"}
