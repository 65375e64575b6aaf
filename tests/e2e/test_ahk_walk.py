"""The AutoHotkey clients' walk over the servers: order, passes, stale denials, clocks, the background, the logs."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager as ContextManager
from pathlib import Path

import pytest

from api.licensing.codes import Code
from license_client import Reply
from license_client.codes import Local
from tests.support.costs import Check, Round, costs_at_most
from tests.support.wine import LOGS, Json, Script
from tests.support.wine_client import (
    CALM,
    anew,
    call,
    clock,
    denies_now,
    grants,
    new,
    outcome,
    reasons,
    results,
    whole,
)
from tests.unit.clients.sockets import Drips, Nasty, answers, http, later, refused_url, sends, silent
from tests.unit.clients.support import KEY, PRODUCT, says
from tests.vectors.keys import CHECKED

VALID = (True, "VALID", "server")
USED, FAILOVER, OFFLINE = LOGS


# -- order ------------------------------------------------------------------------------------------------------------


def test_a_server_that_failed_is_asked_last_for_30_seconds(ahk: Script, tmp_path: Path) -> None:
    """The clock stands still but when the test turns it. The next run of the script remembers."""
    started = time.time()
    at = {by: [clock(by, started), call("Validate")] for by in (0, 29, 30)}
    with Nasty(answers(grants())) as two, Nasty(sends(lambda *_: http(500, b""))) as one:
        made = new(tmp_path, one.url, two.url)
        told = ahk.run([made, *at[0], call("Validate")]) + ahk.run([made, *at[0], *at[29], *at[30]])
        assert [answer["server"] for answer in results(told)] == [two.url] * 5
        assert [reasons(answer) for answer in results(told)] == [["status 500"], [], [], [], ["status 500"]]
        assert (one.connections, two.connections) == (2, 5)


def test_with_all_failed_the_longest_failed_is_asked_first_and_one_that_answers_is_trusted_again(
    ahk: Script, tmp_path: Path
) -> None:
    one = Nasty(later(1, sends(lambda *_: http(500, b"")), answers(grants())))
    two = Nasty(later(1, sends(lambda *_: http(502, b"")), answers(grants())))
    with one, two:
        told = ahk.run(
            [new(tmp_path, one.url, two.url, budgets=CALM[:1]), clock(0), call("Validate"), clock(5), call("Validate"),
             call("Validate")]
        )  # fmt: skip
    first, second, third = results(told)
    assert (outcome(first), reasons(first)) == ((False, "NO_SERVER", "offline"), ["status 500", "status 502"])
    assert (second["server"], third["server"]) == (one.url, one.url)


# -- passes -----------------------------------------------------------------------------------------------------------


def test_three_passes_and_the_third_only_without_a_token(ahk: Script, tmp_path: Path) -> None:
    budgets = (CALM[0],) * 3
    with Nasty(sends(lambda *_: http(503, b""))) as sleeps, Nasty(answers(grants())) as grantor:
        steps = [
            new(tmp_path, sleeps.url, budgets=budgets), call("Validate"), new(tmp_path, grantor.url), call("Validate"),
            new(tmp_path, sleeps.url, budgets=budgets), call("Validate"),
        ]  # fmt: skip
        without, _, with_token = results(ahk.run(steps))
    assert (outcome(without), len(without["attempts"])) == ((False, "NO_SERVER", "offline"), 3)
    assert (outcome(with_token), len(with_token["attempts"])) == ((True, "OFFLINE_VALID", "offline"), 2)


def test_a_host_that_wakes_in_the_third_pass_is_waited_for(ahk: Script, tmp_path: Path) -> None:
    with Nasty(later(2, sends(lambda *_: http(502, b"")), answers(grants()))) as sleeps:
        (told,) = results(ahk.run([new(tmp_path, sleeps.url, budgets=(CALM[0],) * 3), call("Validate")]))
    assert (outcome(told), reasons(told)) == (VALID, ["status 502"] * 2)


@contextlib.contextmanager
def a_byte_a_second() -> Iterator[str]:
    with Nasty(Drips(lambda *call: http(200, whole(grants(), *call)), every=1.0)) as drips:
        yield drips.url


@contextlib.contextmanager
def says_nothing() -> Iterator[str]:
    with Nasty(silent) as dead:
        yield dead.url


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dead", "reason", "limit"),
    [(refused_url, "refused", 0.2), (says_nothing, "timeout", 2.2), (a_byte_a_second, "timeout", 2.2)],
)
def test_what_a_dead_first_server_of_three_costs(
    dead: Callable[[], ContextManager[str]], reason: str, limit: float, ahk: Script, tmp_path: Path
) -> None:
    """With the budgets as they are. The client's clock is the test's: 30 s of it pass, and no more."""

    def measure() -> Round:
        started, folder, registry = time.time(), tmp_path / uuid.uuid4().hex, anew()

        def client(*urls: str) -> Json:
            return new(folder, *urls, budgets=None, registry=registry)

        # The clock goes on in these as well: a check at another second keeps other floors.
        checked = [step for by in range(0, 15, 3) for step in (clock(by, started), call("Validate"))]
        usual = [client(two.url, three.url), *checked]
        later = [step for by in range(2, 30, 3) for step in (clock(by, started), call("Validate"))]
        steps = [*usual, client(first, two.url, three.url), clock(0, started), call("Validate"), *later, *usual]
        told = results(ahk.run(steps))
        assert all(answer["valid"] for answer in told)
        checks = [Check(answer["ms"] / 1_000, [(at, why) for at, why in answer["attempts"]]) for answer in told]
        return Round(first=checks[5], later=checks[6:-5], usual=checks[:5] + checks[-5:])

    with dead() as first, Nasty(answers(grants())) as two, Nasty(answers(grants())) as three:
        costs_at_most(limit, (first, reason), measure)


# -- denials that may be stale ----------------------------------------------------------------------------------------


def test_a_stale_denial_asks_the_others_and_decides_only_when_they_fail(ahk: Script, tmp_path: Path) -> None:
    now = int(time.time())
    stale = answers(denies_now("SUSPENDED", as_of=now - 3_600))
    staler = answers(denies_now("BANNED", as_of=now - 7_200))
    with Nasty(staler) as one, Nasty(stale) as two, Nasty(answers(grants())) as fresh, refused_url() as gone:
        told = ahk.run(
            [new(tmp_path, fresh.url), call("Validate"), new(tmp_path, one.url, two.url, fresh.url), call("Validate"),
             new(tmp_path, one.url, gone, two.url, budgets=(*CALM, CALM[0])), call("Validate"), call("Status")]
        )  # fmt: skip
        assert (one.connections, two.connections) == (2, 2)
    _, contradicted, confirmed, status = results(told)
    assert (outcome(contradicted), reasons(contradicted)) == (VALID, ["provisional BANNED", "provisional SUSPENDED"])
    assert outcome(confirmed) == (False, "SUSPENDED", "server")
    assert reasons(confirmed) == ["provisional BANNED", "refused", "provisional SUSPENDED", "refused"]
    assert outcome(status) == (False, "NO_SERVER", "offline")


def test_a_stale_approval_and_a_fresh_denial_decide_at_once(ahk: Script, tmp_path: Path) -> None:
    now = int(time.time())
    approval, denial = says(at=now, as_of=now - 3_600), denies_now("SUSPENDED", as_of=now - 30)
    with Nasty(answers(approval)) as one, Nasty(answers(denial)) as two, Nasty(answers(grants())) as other:
        told = ahk.run(
            [new(tmp_path, one.url, other.url), call("Validate"), new(tmp_path, two.url, other.url), call("Validate")]
        )
        assert other.connections == 0
    assert [outcome(answer) for answer in results(told)] == [VALID, (False, "SUSPENDED", "server")]


def test_a_denial_of_another_ledger_is_provisional_and_takes_no_token(ahk: Script, tmp_path: Path) -> None:
    final, now = ["BANNED", "SUSPENDED", "EXPIRED", "NOT_FOUND"], int(time.time())
    stale = denies_now("OVERDUE", as_of=now - 3_600)
    with contextlib.ExitStack() as stack:
        grantor, old = (stack.enter_context(Nasty(answers(behave))) for behave in (grants(), stale))
        steps = [new(tmp_path, grantor.url), call("Validate")]
        for code in final:
            other = stack.enter_context(Nasty(answers(denies_now(code, led="ledger-2"))))
            for urls in ([other.url], [other.url, old.url], [other.url, grantor.url]):
                steps += [new(tmp_path, *urls), call("Validate"), call("Status")]
        _, *told = results(ahk.run(steps))
    for code, (alone, kept, ours, _, confirmed, after) in zip(final, _sixes(told), strict=True):
        assert (outcome(alone), reasons(alone)) == ((False, code, "server"), [f"provisional {code}"])
        # Of two that are provisional, that of the token's own ledger decides, however stale.
        assert outcome(ours) == (False, "OVERDUE", "server")
        assert (outcome(confirmed), reasons(confirmed)) == (VALID, [f"provisional {code}"])
        assert {outcome(status) for status in (kept, after)} == {(True, "OFFLINE_VALID", "offline")}


def test_without_a_token_the_ledger_is_any(ahk: Script, tmp_path: Path) -> None:
    denies = denies_now("SUSPENDED", led="ledger-2")
    with Nasty(answers(denies)) as one, Nasty(answers(grants())) as two:
        (told,) = results(ahk.run([new(tmp_path, one.url, two.url), call("Validate")]))
        assert two.connections == 0
    assert (outcome(told), reasons(told)) == ((False, "SUSPENDED", "server"), [])


def _sixes(told: list[Json]) -> list[list[Json]]:
    return [told[at : at + 6] for at in range(0, len(told), 6)]


# -- clocks and what is sent ------------------------------------------------------------------------------------------


def test_a_wrong_clock_is_signed_again_once_with_the_servers_time(ahk: Script, tmp_path: Path) -> None:
    skewed = json.dumps({"code": "TIMESTAMP_SKEWED", "ts": int(time.time())}).encode()
    scheme = 'WWW-Authenticate: Signature headers="X-Request-Id X-Timestamp X-Signature"'
    once = later(1, sends(lambda *_: http(401, skewed, scheme)), answers(grants()))
    always = sends(lambda *_: http(401, skewed, scheme))
    with Nasty(once) as one, Nasty(always) as two:
        right, wrong = results(
            ahk.run([new(tmp_path, one.url), call("Validate"), new(tmp_path, two.url, budgets=CALM[:1]), call("Usage")])
        )
        assert (one.connections, two.connections) == (2, 2)
        nonces = [json.loads(body)["nonce"] for _, body in one.requests]
    assert (outcome(right), reasons(right)) == (VALID, [])
    assert reasons(wrong) == ["status 401 TIMESTAMP_SKEWED"]
    assert len(set(nonces)) == 2


def test_a_server_that_ends_its_connections_late_is_not_met_on_a_connection_that_is_ending(
    ahk: Script, tmp_path: Path
) -> None:
    """The client signs again at once; on a kept connection that request would meet its end."""
    skewed = http(401, json.dumps({"code": "TIMESTAMP_SKEWED", "ts": int(time.time())}).encode())

    def ends_late(connection: socket.socket, *_: object) -> None:
        connection.sendall(skewed)
        time.sleep(0.2)  # nothing to wait for: this is the late end

    with Nasty(later(1, ends_late, answers(grants()))) as server:
        (told,) = results(ahk.run([new(tmp_path, server.url), call("Validate")]))
        assert server.connections == 2
    assert (outcome(told), reasons(told)) == (VALID, [])


def test_a_time_that_no_verdict_came_with_is_for_that_server_only(ahk: Script, tmp_path: Path) -> None:
    skewed = json.dumps({"code": "TIMESTAMP_SKEWED", "ts": 2**40 - 1}).encode()
    sent: list[str] = []

    def grants_and_notes(path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        sent.append(headers["X-Timestamp"])
        return grants()(path, body, headers)

    with Nasty(sends(lambda *_: http(401, skewed))) as one, Nasty(answers(grants_and_notes)) as two:
        (told,) = results(ahk.run([new(tmp_path, one.url, two.url), call("Validate")]))
    assert outcome(told) == VALID
    assert [abs(int(at) - time.time()) < 300 for at in sent] == [True]


def test_what_each_call_sends(ahk: Script, tmp_path: Path) -> None:
    name = 'Escritório "1"\\\t→ \U0001f5a5'
    calls = [
        call("Validate", ["pro", "estúdio"]), call("Activate", name), call("Deactivate"), call("Ping"), call("CheckIn"),
        call("Usage", 7), call("Checkout", 3_600), call("Checkout"),
    ]  # fmt: skip
    with Nasty(answers(grants())) as server:
        told = ahk.run([new(tmp_path, server.url, version="1.2"), *calls])
        sent = [(path, json.loads(body)) for path, body in server.requests]
    assert {outcome(answer) for answer in results(told)} == {VALID}
    assert len({body.pop("nonce") for _, body in sent}) == len(calls)
    for _, body in sent:
        assert body.pop("key") == KEY
        assert body.pop("client") == {"app": "license-client-ahk", "version": "1.0.0"}
    machine = {"fingerprint": told[0]["fingerprint"]}
    asked = {"product": PRODUCT, **machine, "version": "1.2"}
    assert sent[1][1].pop("platform").startswith("Windows ")
    assert sent == [
        ("/v1/validate", {**asked, "entitlements": ["pro", "estúdio"]}),
        # No server takes a control character.
        ("/v1/activate", {**asked, "name": name.replace("\t", " ")}),
        ("/v1/deactivate", machine), ("/v1/ping", machine), ("/v1/check-in", {}), ("/v1/usage", {"increment": 7}),
        ("/v1/checkout", {**machine, "ttl": 3_600}), ("/v1/checkout", machine),
    ]  # fmt: skip


def test_settings_with_which_no_check_could_succeed_are_refused_when_the_program_starts(
    ahk: Script, tmp_path: Path
) -> None:
    url = "https://one.example"
    wrong = [
        new(tmp_path), new(tmp_path, "http://one.example"), new(tmp_path, "https://one.example/path"),
        new(tmp_path, "ftp://one.example"), new(tmp_path, url, product=""), new(tmp_path, url, key="short"),
        new(tmp_path, url, key='"\u200b short\n"'), new(tmp_path, url, publicKeys="{}"),
        new(tmp_path, url, publicKeys=""), new(tmp_path, url, language="fr"), new(tmp_path, url, secret="?"),
        new(tmp_path, url, url + "/"), new(tmp_path, url + ":0"), new(tmp_path, url + ":65536"),
        new(tmp_path, url, version="one"), new(tmp_path, url, version="1.2 final"),
    ]  # fmt: skip
    right = new(tmp_path, url + "/", "http://localhost:5000", "http://127.0.0.1:5000", "http://[::1]:5000")
    calls = [call("Usage", 0), call("Usage", 1, "a request id"), call("Every", 0, ""), call("Every", "often", "")]
    versions = [
        new(tmp_path, url, version=text) for text in ("1", "1.2", "v1!2.0rc1.post2.dev3+local.1", "2024.1-beta")
    ]
    told = ahk.run([*wrong, *versions, right, *calls])
    assert [number for number, answer in enumerate(told) if "thrown" not in answer] == [
        len(wrong) + number for number in range(len(versions) + 1)
    ]
    assert all(KEY not in answer["thrown"] for answer in told if "thrown" in answer)


# -- what is given back -----------------------------------------------------------------------------------------------


def test_a_result_is_made_of_the_claims(ahk: Script, tmp_path: Path) -> None:
    """The JSON around the claims says the opposite."""
    now = int(time.time())
    with (
        Nasty(answers(says(at=now, lic_exp=1_893_456_000, ent=["pro", "estúdio"], uses=3))) as one,
        Nasty(answers(says("OVERDUE", at=now, lic_exp=None, ent=[], max_uses=None))) as two,
    ):
        made, granted, _, denied = ahk.run(
            [new(tmp_path, one.url), call("Validate"), new(tmp_path, two.url, language="en"), call("CheckIn")]
        )
    assert made["usual_budgets"] == [2_000, 5_000, 60_000]
    assert (outcome(granted), granted["server"], granted["act"]) == (VALID, one.url, "validate")
    assert (granted["expires"], granted["entitlements"]) == ("2030-01-01T00:00:00Z", ["pro", "estúdio"])
    assert (granted["uses"], granted["maxUses"], granted["offlineUntil"]) == (3, 10, "")
    assert (outcome(denied), denied["server"], denied["expires"]) == ((False, "OVERDUE", "server"), two.url, "")
    assert denied["detail"] == "This license has not checked in for too long."
    assert denied["maxUses"] is None
    assert len({granted["requestId"], denied["requestId"]}) == 2


def test_the_key_is_sent_in_its_one_form(ahk: Script, tmp_path: Path) -> None:
    pasted = " \u201c7q2m4x\u2013kd9wfa\u20133htzo b\r\ncdefgh lkmnpq\u200b\u201d\u00a0\n"
    with Nasty(answers(grants())) as server:
        ahk.run([new(tmp_path, server.url, key=pasted), call("Validate")])
        sent = [json.loads(body)["key"] for _, body in server.requests]
    assert sent == ["7Q2M4X-KD9WFA-3HTZ0B-CDEFGH-1KMNPQ"]


# -- texts and logs ---------------------------------------------------------------------------------------------------


def test_texts_are_in_two_languages_and_can_be_replaced(ahk: Script, tmp_path: Path) -> None:
    with Nasty(answers(denies_now("SUSPENDED"))) as server, Nasty(answers(denies_now("NOT_FOUND"))) as unknown:
        told = ahk.run(
            [new(tmp_path, server.url, language="en"), call("Validate"), new(tmp_path, server.url, language="pt"),
             call("Validate"), {"do": "text", "code": "SUSPENDED", "text": "Fale conosco: 0800"}, call("Validate"),
             new(tmp_path, server.url, language="pt"), call("Validate"),
             new(tmp_path, unknown.url, language="en"), call("Validate"),
             new(tmp_path, unknown.url, language="en", key=CHECKED[:-1] + "F"), call("Validate"),
             new(tmp_path, unknown.url, language="pt", key=CHECKED[:-1]), call("Validate")]
        )  # fmt: skip
    suspended = "Esta licença está suspensa."
    assert [answer["detail"] for answer in results(told)] == [
        "This license is suspended.", suspended, "Fale conosco: 0800", suspended,
        "No license has this key. Please compare it with the message that it came in.",
        "This key looks mistyped: a character is wrong, missing or too many. Copy it again.",
        "A chave parece ter um erro: um caractere errado, a menos ou a mais. Copie-a de novo.",
    ]  # fmt: skip


def test_there_is_a_text_for_every_code_in_both_languages(ahk: Script) -> None:
    told = ahk.run([{"do": "texts", "language": language} for language in ("en", "pt")])
    english, portuguese = (set(answer["codes"]) for answer in told)
    assert english == portuguese
    assert {*Code, *Local} <= english


def test_a_license_of_another_product_is_named_as_such(ahk: Script, tmp_path: Path) -> None:
    with Nasty(answers(grants())) as server:
        made = new(tmp_path, server.url, product="other", budgets=CALM[:1], language="en")
        (told,) = results(ahk.run([made, call("Validate")]))
    assert (outcome(told), reasons(told)) == ((False, "NO_SERVER", "offline"), ["verdict refused: aud"])
    assert told["detail"] == "No server answered for this product. Is the key for another one?"


def test_unlocking_takes_a_seat_or_sends_a_heartbeat_where_that_is_all_that_is_missing(
    ahk: Script, tmp_path: Path
) -> None:
    asked = {"VALID": [], "SUSPENDED": [], "NO_MACHINES": ["/v1/activate"], "NO_MACHINE": ["/v1/activate"],
             "FINGERPRINT_SCOPE_MISMATCH": ["/v1/activate"], "HEARTBEAT_NOT_STARTED": ["/v1/ping"],
             "HEARTBEAT_DEAD": ["/v1/ping"]}  # fmt: skip
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Nasty(later(1, answers(says(code)), answers(grants())))) for code in asked]
        told = ahk.run([step for each in servers for step in (new(tmp_path, each.url), call("Unlock"))])
        paths = [[path for path, _ in server.requests] for server in servers]
    assert paths == [["/v1/validate", *more] for more in asked.values()]
    assert [answer["valid"] for answer in results(told)] == [code != "SUSPENDED" for code in asked]


def test_the_log_files_begin_anew_when_they_have_grown(ahk: Script, tmp_path: Path) -> None:
    grown = ahk.wine.temp / USED
    grown.write_bytes(b"x" * 1_000_001)
    with Nasty(answers(grants())) as server:
        ahk.run([new(tmp_path, server.url), call("Validate")])
        assert [line.split("\t")[1:] for line in ahk.wine.log(USED)] == [[server.url, "validate VALID"]]
    assert grown.with_suffix(".old").stat().st_size == 1_000_001
    grown.with_suffix(".old").unlink()
