"""Texts that stand where a secret is to be put: copied from a guide with the rest, they would be known to everybody.

A text is taken for one only where all of it is words of such texts, or no text at all: what is random never is.
"""

from __future__ import annotations

import re

#: The words of "put your own here" in the languages of the guides that are about, and of what is to be put there. None
#: is written with the letters from a to f alone: a secret in hexadecimal digits must never be taken for words.
_WORDS = (
    "an", "the", "my", "your", "yours", "our", "own", "this", "is", "isa", "in", "with", "and", "to", "it", "me",
    "api", "app", "apikey", "key", "keys", "secret", "secrets", "shared", "token", "tokens", "admin", "auth", "hmac",
    "access", "private", "public", "signing", "server", "client", "license", "licence", "password", "passwd", "pass",
    "passphrase", "credential", "credentials", "value", "values", "string", "text", "name", "user", "id", "code",
    "change", "changed", "changeme", "changethis", "replace", "replaceme", "insert", "enter", "put", "paste", "fill",
    "set", "edit", "update", "generate", "use", "here", "later", "please", "must", "should", "not", "do", "now",
    "for", "of", "example", "examples", "sample", "placeholder", "dummy", "fake", "foo", "bar", "baz", "todo", "tbd",
    "fixme", "default", "demo", "test", "testing", "dev", "prod", "production", "live", "sk", "pk", "super", "very",
    "top", "long", "strong", "secure", "random", "unique", "new", "old", "real", "some", "something", "none", "null",
    "env", "undefined", "empty", "unset", "hidden", "redacted", "protecao", "hello", "world", "lorem", "ipsum",
    "asdf", "sua", "suas", "seu", "seus", "minha", "meu", "uma", "um", "os", "as", "aqui", "chave", "chaveda",
    "chaves", "segredo", "segredos", "chavede", "senha", "senhas", "compartilhado", "compartilhada", "mude", "mudar",
    "troque", "trocar", "altere", "alterar", "coloque", "cole", "insira", "digite", "substitua", "substituir",
    "exemplo", "teste", "padrao", "secreta", "secreto", "privada", "privado", "nova", "novo", "esta", "este", "isto",
    "valor", "depois", "do", "por", "para", "pelo", "pela", "goes", "witha", "toa", "puta", "usea", "make", "su",
    "tu", "mi", "tus", "clave", "llave", "contrasena", "cambiar", "cambia", "cambiame", "ejemplo", "pon", "ponga",
    "pegue", "ici", "votre", "cle", "motdepasse", "hier", "dein",
)  # fmt: skip
_SHORTEST_FILLER = 3
_SEQUENCES = (
    *("01234567890123456789012345678901234567890", "9876543210987654321098765432109876543210"),
    *("abcdefghijklmnopqrstuvwxyz" * 2, "zyxwvutsrqponmlkjihgfedcba" * 2, "0123456789abcdef" * 8),
    *("qwertyuiopasdfghjklzxcvbnm", "1q2w3e4r5t6y7u8i9o0p", "1qaz2wsx3edc4rfv5tgb6yhn7ujm"),
)
#: What is longer was generated. Fewer different characters than this are a key that was held down.
_LONGEST, _FEWEST_DIFFERENT = 120, 4
#: So many digits beside words may be a date or a number; more of them may be what is secret about it.
_FEW_DIGITS = 9


def is_placeholder(text: str) -> bool:
    """Whether `text` only stands for a secret: `SUA_API_KEY_AQUI`, `changeme-changeme`, `xxxxxxxxxxxxxxxx`. Pure."""
    if len(text) > _LONGEST:
        return False
    plain = re.sub(r"[^0-9a-z]+", "", text.lower())
    if len(set(plain)) < _FEWEST_DIFFERENT or any(plain in sequence for sequence in _SEQUENCES):
        return True
    if re.fullmatch(r"(.{3,})\1+", plain) and any(plain[: len(plain) // 2] in sequence for sequence in _SEQUENCES):
        return True
    digits = "".join(re.findall(r"[0-9]", plain))
    if len(digits) > _FEW_DIGITS and not any(digits in sequence for sequence in _SEQUENCES):
        return False
    return _is_of_words(re.sub(rf"[0-9]+|(.)\1{{{_SHORTEST_FILLER - 1},}}", "", plain))


def _is_of_words(letters: str) -> bool:
    """Whether `letters` are words of `_WORDS`, one behind the other, with nothing left."""
    if not letters:
        return False
    ends = {0}
    for start in range(len(letters)):
        if start in ends:
            ends |= {start + len(word) for word in _WORDS if letters.startswith(word, start)}
    return len(letters) in ends
