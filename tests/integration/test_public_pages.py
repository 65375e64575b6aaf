"""What is the same for everybody is made once, and not sent again to those who have it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import template_rendered

from tests.support.nodes import Node, running_node

PAGES = ("/docs", "/openapi.json", "/.well-known/jwks.json")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder: Path = tmp_path_factory.mktemp("node")
    with running_node(f"sqlite:///{folder}/ledger.db", folder) as node:
        yield node


@pytest.mark.parametrize("path", PAGES)
def test_who_has_a_page_is_not_sent_it_again(node: Node, path: str) -> None:
    first = node.http.get(path)
    assert (first.status_code, first.headers["Cache-Control"]) == (200, "public, max-age=300")
    etag = first.headers["ETag"]
    again = node.http.get(path, headers={"If-None-Match": f'"another", {etag}'})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", etag)


@pytest.mark.parametrize("path", PAGES)
def test_who_has_another_page_is_sent_this_one(node: Node, path: str) -> None:
    first = node.http.get(path)
    other = node.http.get(path, headers={"If-None-Match": '"another"'})
    assert (other.status_code, other.data, other.headers["ETag"]) == (200, first.data, first.headers["ETag"])
    assert node.http.head(path).headers["Content-Length"] == str(len(first.data))


def test_the_keys_have_another_tag_when_they_change(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/.well-known/jwks.json"
    etag = node.http.get(path).headers["ETag"]
    keys = node.runtime.published_keys["keys"]
    monkeypatch.setattr(node.runtime.signing, "published", {"keys": [*keys, *keys]})
    changed = node.http.get(path, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.get_json()) == (200, {"keys": [*keys, *keys]})


def test_the_documentation_is_rendered_once_for_all_who_ask_at_once(tmp_path: Path, sqlite_url: str) -> None:
    with running_node(sqlite_url, tmp_path) as node, ThreadPoolExecutor(40) as readers:
        rendered: list[object] = []
        with template_rendered.connected_to(lambda *_, **about: rendered.append(about["template"]), node.app):
            pages = {answer.data for answer in readers.map(lambda _: node.app.test_client().get("/docs"), range(40))}
        assert len(pages) == len(rendered) == 1
