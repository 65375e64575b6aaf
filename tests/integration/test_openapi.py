"""The document of the interface against the node that serves it: routes, scopes, shapes, examples, tokens."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from api.admin.token_store import Scope
from tests.support.admin import Admin, admin_on
from tests.support.nodes import PRODUCT, sell

Json = dict[str, Any]
_WHOLE = re.compile(r"<(?:any\((?P<any>[^)]*)\):)?(?P<name>\w+)>")


@pytest.fixture(scope="module")
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with admin_on("sqlite", request, tmp_path_factory.mktemp("node")) as admin:
        yield admin


@pytest.fixture(scope="module")
def document(admin: Admin) -> Json:
    return dict(json.loads(admin.node.http.get("/openapi.json").data))


def operations(document: Json) -> list[tuple[str, str, Json]]:
    return [(method, path, one) for path, item in document["paths"].items() for method, one in item.items()]


def spelled(rule: str) -> list[str]:
    """A rule of Flask's as the document has its paths: several where it has a choice of words."""
    found = _WHOLE.search(rule)
    if found is None:
        return [rule]
    choices = [f"{{{found['name']}}}"] if found["any"] is None else re.findall(r"[\w-]+", found["any"])
    return [path for one in choices for path in spelled(rule[: found.start()] + one + rule[found.end() :])]


def is_valid(document: Json, name: str, instance: Any) -> bool:
    """Whether `instance` fits the component; raises where it does not, and says why."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(instance)
    return True


# -- routes ---------------------------------------------------------------------------------------------------------


def test_the_document_has_flasks_routes_and_no_others(admin: Admin, document: Json) -> None:
    served = {
        (method.lower(), path)
        for rule in admin.node.app.url_map.iter_rules()
        for path in spelled(rule.rule)
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    }
    assert served == {(method, path) for method, path, _ in operations(document)}


def test_each_call_asks_for_what_the_document_says(admin: Admin, document: Json) -> None:
    tokens = {scope: admin.resources.create_token(scope, [scope])["token"] for scope in Scope}
    for method, path, operation in operations(document):
        path = path.replace("{id}", "an-id")
        answer = admin.node.http.open(path, method=method, json=None if method == "get" else {})
        needed = [name for one in operation["security"] for name in one]
        assert (answer.status_code == 401) == bool(needed), path
        assert ("apiKey" in needed) == answer.headers.get("WWW-Authenticate", "").startswith("ApiKey"), path
        scope = next((scope for scope in Scope if f"`{scope}`." in operation["description"]), None)
        assert ("token" in needed) == (scope is not None), path
        for held, token in tokens.items() if scope else ():
            headers = {"Authorization": f"Bearer {token}"}
            answer = admin.node.http.open(path, method=method, json=None if method == "get" else {}, headers=headers)
            assert (answer.status_code == 403) == (held != scope), (path, held)


# -- names ----------------------------------------------------------------------------------------------------------


def test_names_are_those_that_a_programmer_would_give(document: Json) -> None:
    names = list(document["components"]["schemas"])
    assert [name for name in names if not re.fullmatch(r"(?:[A-Z][a-z]+)+", name)] == []
    assert all(document["components"]["schemas"][name].get("title", name) == name for name in names)
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    assert [id for id in ids if not re.fullmatch(r"[a-z]+(_[a-z]+)*", id)] == []


def test_every_reference_leads_somewhere_and_every_component_is_used(document: Json) -> None:
    references = set(re.findall(r'"\$ref": "#/components/(\w+)/([\w-]+)"', json.dumps(document)))
    kinds = ("schemas", "headers")
    assert references == {(kind, name) for kind in kinds for name in document["components"][kind]}
    schemes = {name for _, _, operation in operations(document) for one in operation["security"] for name in one}
    assert schemes == set(document["components"]["securitySchemes"])


def test_descriptions_are_no_code_blocks_and_name_nothing_of_python(document: Json) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert not re.search(r"\n {2,}", schema.get("description", "")), name
    assert r"\Z" not in json.dumps(document["components"])


# -- answers --------------------------------------------------------------------------------------------------------


def test_the_heads_that_answers_have_are_in_it(document: Json) -> None:
    named = {"201": {"Location"}, "401": {"WWW-Authenticate"}, "429": {"Retry-After"}, "503": {"Retry-After"}}
    for _, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            assert set(answer.get("headers", ())) == named.get(status, set()), (path, status)
    assert document["components"]["headers"]["Retry-After"]["required"]


def test_a_call_is_documented_with_the_codes_that_it_can_meet(document: Json) -> None:
    clients, admins = (document["paths"][path]["post"]["responses"] for path in ("/v1/usage", "/v1/licenses"))
    assert clients["401"]["description"] == "API_KEY_INVALID, TIMESTAMP_SKEWED, SIGNATURE_INVALID"
    assert clients["422"]["description"] == "REQUEST_ID_REUSED"
    assert admins["401"]["description"] == "TOKEN_INVALID"
    assert admins["404"]["description"] == "RESOURCE_NOT_FOUND"
    assert admins["422"]["description"] == "IDEMPOTENCY_KEY_REUSED"


def test_every_example_is_valid_by_its_own_schema(document: Json) -> None:
    seen = 0
    for _, path, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content:
            assert is_valid(document, content["schema"]["$ref"].split("/")[-1], content["example"]), path
            seen += 1
    assert seen == 7 + 4 + 1 + 2 + 4  # client calls, resources, renew, nodes; token, keys (2), import


def test_the_claims_of_both_tokens_are_in_it(admin: Admin, document: Json) -> None:
    sold = sell(admin.node.database, expires_at=4_000_000_000.0)
    answers = [
        admin.node.call("activate", sold.key, fingerprint="here", product=PRODUCT),
        admin.node.call("validate", sold.key, fingerprint="here", request_id=uuid.uuid4().hex),
        admin.node.call("validate", "nobody-has-this-key"),
    ]
    for answer in answers:
        assert is_valid(document, "Answer", answer.body)
        assert is_valid(document, "VerdictClaims", answer.claims)
        assert answer.claims is not None
        assert answer.claims.keys() <= document["components"]["schemas"]["VerdictClaims"]["properties"].keys()
        if answer.lease is not None:
            assert is_valid(document, "LeaseClaims", answer.lease)
            assert answer.lease.keys() <= document["components"]["schemas"]["LeaseClaims"]["properties"].keys()
    assert answers[0].lease is not None
    for name, member in (("VerdictClaims", "verdict"), ("LeaseClaims", "token")):
        described = json.dumps(document["components"]["schemas"]["Answer"]["properties"][member])
        assert '"contentMediaType": "application/jwt"' in described
        assert f"#/components/schemas/{name}" in described


def test_a_new_resource_says_what_it_needs_and_an_answer_has_all_of_its_members(admin: Admin, document: Json) -> None:
    policy = admin.policy()
    license = admin.license(policy)
    machine = admin.ok("POST", "/machines", {"license": license["id"], "fingerprint": "here"})
    schemas = document["components"]["schemas"]
    needed = {"Product": ["code", "name"], "Policy": ["product", "name"], "License": ["policy"]}
    for kind, names in (needed | {"Machine": ["license", "fingerprint"]}).items():
        assert schemas[f"New{kind}Body"]["required"] == names
        assert "required" not in schemas[f"{kind}Body"] or not schemas[f"{kind}Body"]["required"]
    views = {"ProductView": admin.product(), "PolicyView": policy, "LicenseAdminView": license}
    for name, made in (views | {"MachineAdminView": machine}).items():
        assert is_valid(document, name, made)
        assert set(schemas[name]["required"]) | {"key"} == made.keys() | {"key"}


def test_times_are_date_times(admin: Admin, document: Json) -> None:
    for name, schema in document["components"]["schemas"].items():
        for member, described in schema.get("properties", {}).items():
            if member == "at" or member.endswith("_at"):
                assert '"format": "date-time"' in json.dumps(described), (name, member)
    stats = admin.node.http.get("/stats", headers={"Authorization": f"Bearer {admin.token}"})
    assert is_valid(document, "StatsView", stats.get_json())
    assert is_valid(document, "EventList", admin.ok("GET", "/events"))


def test_problems_are_as_it_says(admin: Admin, document: Json) -> None:
    stats_only = Admin(admin.node, admin.resources.create_token("stats", ["stats:read"])["token"])
    for found in (
        admin.problem("POST", "/products", {"code": "a b"}),
        stats_only.problem("GET", "/licenses"),
        admin.problem("GET", "/licenses/none"),
    ):
        assert is_valid(document, "ProblemBody", found)
        assert found.keys() <= document["components"]["schemas"]["ProblemBody"]["properties"].keys()
