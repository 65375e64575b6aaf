"""The sentences for people, in English and Portuguese. Programs go by the code of a result."""

from __future__ import annotations

import re
from collections.abc import Mapping

from license_client.causes import Cause, Diagnosis, rounded_up
from license_client.codes import Local
from license_client.errors import ConfigurationError

_ENGLISH: dict[str, str] = {
    "VALID": "is valid",
    "NOT_FOUND": "no license has this key: compare it with the message that it came in",
    "NOT_FOUND mistyped": "the key looks mistyped: a character is wrong, missing or too many; copy it again",
    "BANNED": "the license is banned",
    "SUSPENDED": "the license is suspended",
    "EXPIRED": "the license has expired",
    "EXPIRED valid": "has expired and is in its grace period",
    "OVERDUE": "the license has not checked in for too long",
    "PRODUCT_SCOPE_MISMATCH": "the license is for another product",
    "VERSION_SCOPE_MISMATCH": "the license does not cover this version",
    "ENTITLEMENTS_MISSING": "the license does not include what was asked for",
    "FINGERPRINT_SCOPE_REQUIRED": "the license asks for the machine's fingerprint",
    "NO_MACHINE": "this machine is not activated",
    "NO_MACHINES": "this machine is not activated",
    "FINGERPRINT_SCOPE_MISMATCH": "the license is in use on other machines",
    "HEARTBEAT_NOT_STARTED": "this machine has not sent a ping yet",
    "HEARTBEAT_DEAD": "this machine's last ping is too old",
    "MACHINE_LIMIT_EXCEEDED": "every seat of the license is taken",
    "TOO_MANY_MACHINES": "the license is in use on too many machines",
    "TOO_MANY_MACHINES valid": "is valid, on more machines than it has seats",
    "USES_EXHAUSTED": "every use of the license is used up",
    "OTHER_CODE": "the server answered {code}",
    Local.OFFLINE_VALID: "the saved token holds",
    Local.OFFLINE_EXPIRED: "the saved token has ended",
    Local.CLOCK_TAMPERED: "the machine's clock was set back",
    Local.TOKEN_INVALID: "the saved token is damaged, or not for this license and machine",
    Local.NO_SERVER: "no token is saved",
    "ENTITLEMENTS_NOT_SAVED": "the saved token does not include what was asked for",
    "UNREADABLE": "the saved token cannot be read now: another program holds its file",
    "NEEDS_SERVER": "this call needs one",
    Cause.OTHER_PRODUCT: "no server gave a verdict for this product: the license is for another one",
    Cause.ACCESS_KEY: "this program's access key is not accepted any more: ask the vendor for an update",
    Cause.RATE_LIMITED: "too many attempts, try again in {n} minutes",
    "RATE_LIMITED later": "too many attempts, try again later",
    Cause.CLOCK: "this PC's clock is off by about {n} days",
    "CLOCK hours": "this PC's clock is off by about {n} hours",
    "CLOCK unknown": "this PC's clock is off, or a server's certificate has ended",
    Cause.PROXY: "a proxy stands between this PC and the license servers, and does not let the program through",
    Cause.INTERCEPTED: "a proxy stands between this PC and the license servers: their certificates are not trusted",
    Cause.LOGIN_PAGE: "something else answers in place of the license servers, perhaps the login page of a network",
    Cause.BUSY: "the license servers cannot answer just now: try again in some minutes",
    Cause.UNREACHABLE: "no server gave a verdict",
    "AND": "{cause}, and {saved}",
}

_PORTUGUESE: dict[str, str] = {
    "VALID": "é válida",
    "NOT_FOUND": "nenhuma licença tem esta chave: compare-a com a mensagem em que ela veio",
    "NOT_FOUND mistyped": "a chave parece ter um erro: um caractere errado, a menos ou a mais; copie-a de novo",
    "BANNED": "a licença foi banida",
    "SUSPENDED": "a licença está suspensa",
    "EXPIRED": "a licença expirou",
    "EXPIRED valid": "expirou e está no período de carência",
    "OVERDUE": "a licença ficou tempo demais sem se apresentar",
    "PRODUCT_SCOPE_MISMATCH": "a licença é de outro produto",
    "VERSION_SCOPE_MISMATCH": "a licença não cobre esta versão",
    "ENTITLEMENTS_MISSING": "a licença não inclui o que foi pedido",
    "FINGERPRINT_SCOPE_REQUIRED": "a licença exige a identificação da máquina",
    "NO_MACHINE": "esta máquina não está ativada",
    "NO_MACHINES": "esta máquina não está ativada",
    "FINGERPRINT_SCOPE_MISMATCH": "a licença está em uso em outras máquinas",
    "HEARTBEAT_NOT_STARTED": "esta máquina ainda não se apresentou",
    "HEARTBEAT_DEAD": "esta máquina ficou tempo demais sem se apresentar",
    "MACHINE_LIMIT_EXCEEDED": "todas as vagas da licença estão ocupadas",
    "TOO_MANY_MACHINES": "a licença está em uso em máquinas demais",
    "TOO_MANY_MACHINES valid": "é válida, em mais máquinas do que tem vagas",
    "USES_EXHAUSTED": "todos os usos da licença foram gastos",
    "OTHER_CODE": "o servidor respondeu {code}",
    Local.OFFLINE_VALID: "o token salvo vale",
    Local.OFFLINE_EXPIRED: "o token salvo venceu",
    Local.CLOCK_TAMPERED: "o relógio da máquina foi atrasado",
    Local.TOKEN_INVALID: "o token salvo está danificado, ou não é desta licença e desta máquina",
    Local.NO_SERVER: "não há token salvo",
    "ENTITLEMENTS_NOT_SAVED": "o token salvo não inclui o que foi pedido",
    "UNREADABLE": "o token salvo não pode ser lido agora: outro programa está com o arquivo",
    "NEEDS_SERVER": "esta chamada precisa de um",
    Cause.OTHER_PRODUCT: "nenhum servidor respondeu por este produto: a licença é de outro",
    Cause.ACCESS_KEY: "a chave de acesso deste programa já não é aceita: peça uma atualização ao fornecedor",
    Cause.RATE_LIMITED: "tentativas demais, tente de novo em {n} minutos",
    "RATE_LIMITED later": "tentativas demais, tente de novo mais tarde",
    Cause.CLOCK: "o relógio deste PC está errado em cerca de {n} dias",
    "CLOCK hours": "o relógio deste PC está errado em cerca de {n} horas",
    "CLOCK unknown": "o relógio deste PC está errado, ou o certificado de um servidor venceu",
    Cause.PROXY: "há um proxy entre este PC e os servidores de licenças, e ele não deixa o programa passar",
    Cause.INTERCEPTED: "há um proxy entre este PC e os servidores de licenças: seus certificados não são confiáveis",
    Cause.LOGIN_PAGE: "outra coisa responde no lugar dos servidores de licenças, talvez a página de login de uma rede",
    Cause.BUSY: "os servidores de licenças não podem responder agora: tente de novo em alguns minutos",
    Cause.UNREACHABLE: "nenhum servidor respondeu",
    "AND": "{cause}, e {saved}",
}

LANGUAGES: Mapping[str, Mapping[str, str]] = {"en": _ENGLISH, "pt": _PORTUGUESE}

_HOUR_S, _DAY_S = 3_600, 86_400


def texts_in(language: str) -> Mapping[str, str]:
    """The sentences of a language. Raises `ConfigurationError`."""
    if language not in LANGUAGES:
        raise ConfigurationError(f"language: there are {', '.join(LANGUAGES)}")
    return LANGUAGES[language]


def detail_of(code: str, valid: bool, language: str = "en", *, is_mistyped: bool = False) -> str:
    """A sentence for a code, known or not. `is_mistyped`: the key that was asked about looks so."""
    texts = texts_in(language)
    if code == "NOT_FOUND" and is_mistyped:
        return texts["NOT_FOUND mistyped"]
    known = (texts.get(f"{code} valid") if valid else None) or texts.get(code)
    return known or texts["OTHER_CODE"].format(code=code)


def cause_text(found: Diagnosis, language: str = "en") -> str:
    """A sentence for what kept the client out."""
    texts = texts_in(language)
    if found.cause is Cause.RATE_LIMITED:
        if found.seconds is None:
            return texts["RATE_LIMITED later"]
        return _counted(texts[Cause.RATE_LIMITED], rounded_up(found.seconds, 60))
    if found.cause is not Cause.CLOCK:
        return texts[found.cause]
    if found.seconds is None:
        return texts["CLOCK unknown"]
    if found.seconds < _DAY_S // 2:
        return _counted(texts["CLOCK hours"], max(1, round(found.seconds / _HOUR_S)))
    return _counted(texts[Cause.CLOCK], max(1, round(found.seconds / _DAY_S)))


def _counted(text: str, number: int) -> str:
    """The text with its number; one of anything is no plural."""
    filled = text.format(n=number)
    return re.sub(r"\b(\w+)s\b(?=$)", r"\1", filled) if number == 1 else filled
