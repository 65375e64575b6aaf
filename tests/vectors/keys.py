"""What people paste as a license key, and the key that is meant: the pairs of `keys.json`."""

from __future__ import annotations

#: As the first release made them, without a check character; and as they are made since.
OURS = "7Q2M4X-KD9WFA-3HTZ0B-CDEFGH-1KMNPQ"
CHECKED = "7Q2M4XK-D9WFA3H-TZ0BCDE-FGH1KME"
IMPORTED = "ACME-2019-\u00c4rger no. 7/b"

_OURS_PASTED = {
    "as it is written": OURS,
    "in small letters": OURS.lower(),
    "without dashes": OURS.replace("-", ""),
    "with spaces for dashes": OURS.replace("-", " "),
    "in groups of ten": "7Q2M4XKD9W FA3HTZ0BCD EFGH1KMNPQ",
    "a space at the end": OURS + " ",
    "spaces around it": f"   {OURS}  ",
    "a no-break space at the end": OURS + "\u00a0",
    "a narrow no-break space within": OURS.replace("-", "\u202f"),
    "an ideographic space before it": "\u3000" + OURS,
    "a line end": OURS + "\r\n",
    "wrapped over two lines": OURS[:17] + "\r\n" + OURS[17:],
    "wrapped at a space": OURS[:20].replace("-", " ") + " \n " + OURS[20:],
    "a tab before it": "\t" + OURS,
    "a zero-width space within": OURS[:3] + "\u200b" + OURS[3:],
    "a byte order mark before it": "\ufeff" + OURS,
    "a left-to-right mark around it": f"\u200e{OURS}\u200e",
    "an embedding around it": f"\u202a{OURS}\u202c",
    "an isolate around it": f"\u2066{OURS}\u2069",
    "a soft hyphen within": OURS[:9] + "\u00ad" + OURS[9:],
    "a word joiner within": OURS[:9] + "\u2060" + OURS[9:],
    "a line separator within": OURS[:9] + "\u2028" + OURS[9:],
    "a NUL at the end": OURS + "\0",
    "a C1 control within": OURS[:9] + "\u0085" + OURS[9:],
    "en dashes": OURS.replace("-", "\u2013"),
    "em dashes": OURS.replace("-", "\u2014"),
    "hyphens": OURS.replace("-", "\u2010"),
    "non-breaking hyphens": OURS.replace("-", "\u2011"),
    "minus signs": OURS.replace("-", "\u2212"),
    "full-width hyphens": OURS.replace("-", "\uff0d"),
    "two dashes for one": OURS.replace("-", "--"),
    "full-width": "".join(chr(ord(letter) + 0xFEE0) for letter in OURS),
    "in quotation marks": f'"{OURS}"',
    "in typographic quotation marks": f"\u201c{OURS}\u201d",
    "in guillemets with spaces": f"\u00ab\u00a0{OURS}\u00a0\u00bb",
    "in apostrophes": f"'{OURS}'",
    "in backticks": f"```{OURS}```",
    "in quotation marks between spaces": f' "{OURS}" ',
    "O for 0": OURS.replace("0", "O"),
    "o for 0": OURS.replace("0", "o"),
    "I for 1": OURS.replace("1", "I"),
    "l for 1": OURS.replace("1", "l"),
}
_CHECKED_PASTED = {
    "a checked key as it is written": CHECKED,
    "a checked key in small letters without dashes": CHECKED.lower().replace("-", ""),
    "a checked key in groups of four": "7Q2M 4XKD 9WFA 3HTZ 0BCD EFGH 1KME",
    "a checked key with O for 0, l for 1 and en dashes": "7Q2M4XK\u2013D9WFA3H\u2013TZOBCDE\u2013FGHlKME",
    "a checked key over two lines, in quotation marks": '"7Q2M4XK-D9WFA3H-\r\nTZ0BCDE-FGH1KME"',
    "a checked key in full-width letters": "".join(chr(ord(letter) + 0xFEE0) for letter in CHECKED),
    "a checked key with a zero-width space and a no-break space": CHECKED[:9] + "\u200b" + CHECKED[9:] + "\u00a0",
}
#: What is nearly a key of ours, and none: it stays as it was typed.
_MISTYPED = {
    "a checked key with a wrong character": CHECKED.replace("7Q", "8Q"),
    "a checked key with a wrong check character": CHECKED[:-1] + "F",
    "a checked key with two characters swapped": CHECKED.replace("Q2", "2Q"),
    "a checked key with two characters swapped that stand apart": "EQ2M4XK-D9WFA3H-TZ0BCDE-FGH1KM7",
    "a checked key with two characters swapped across a dash": CHECKED.replace("K-D", "D-K"),
    "a checked key with B for 8": CHECKED.replace("B", "8"),
    "a checked key with a U for its V, in small letters": "7q2m4xk-d9wfa3h-tz0bcde-fgh1kmu",
    "a checked key without its last character": CHECKED[:-1],
    "a checked key without its first character": CHECKED[1:],
    "a checked key with a character twice": CHECKED.replace("Q", "QQ"),
    "a checked key with a full stop after it": CHECKED + ".",
    "a checked key with a letter that only looks like one of ours": CHECKED.replace("A", "\u0410"),
    "a checked key with a full stop for a dash and one more": "7Q2M4XK.D9WFA3H-TZ0BCDE-FGH1KME.",
    "a character short of our own shape": OURS[:-1].lower(),
    "a character beyond our own shape": OURS + "7",
    "a U is in no key of ours": OURS.replace("Q2", "U2"),
    "a letter that only looks like one of ours": OURS.replace("A", "\u0410"),
    "a small letter whose capital is ours": OURS.replace("1", "\u0131"),
    "digits of another script": OURS.replace("7", "\u0667"),
    "an emoji in a key of ours": OURS[:-1] + "\U0001f511",
}
_OTHERS = {
    "an imported key as it is": (IMPORTED, IMPORTED),
    "an imported key with a space at the end": (IMPORTED + " ", IMPORTED),
    "an imported key with a no-break space within": (IMPORTED.replace(" ", "\u00a0"), IMPORTED),
    "an imported key keeps its letters": ("my-Own-key-olI0", "my-Own-key-olI0"),
    "an imported key with an en dash": ("MY\u2013KEY\u20131234", "MY-KEY-1234"),
    "an imported key in typographic quotation marks": ("\u2018MY-KEY-1234\u2019", "MY-KEY-1234"),
    "a quotation mark within stays": ('12" rack 4711', '12" rack 4711'),
    "an imported key over two lines": ("MY-KEY-\r\n1234", "MY-KEY-1234"),
    "an imported key in full-width letters": ("\uff2d\uff39\uff0d\uff2b\uff25\uff39\uff0d\uff11", "MY-KEY-1"),
    "an emoji": ("KEY-\U0001f511-1234", "KEY-\U0001f511-1234"),
    "a decomposed letter stays so": ("KEY-A\u0308-1234", "KEY-A\u0308-1234"),
    "two characters short of a checked key": (CHECKED[:-2], CHECKED[:-2]),
    "two characters beyond our own shape": (OURS + "77", OURS + "77"),
    "a key of 25 characters, as others make them": ("ABCDE-FGHJK-MNPQR-STVWX-YZ123", "ABCDE-FGHJK-MNPQR-STVWX-YZ123"),
    "a UUID": ("0d2c1a44-93b8-5c52-8e51-3a1f0a8f7a35", "0d2c1a44-93b8-5c52-8e51-3a1f0a8f7a35"),
    "nothing but what goes": (' \u200b"\u00a0" \r\n', ""),
    "empty": ("", ""),
}


def pairs() -> list[dict[str, str | bool]]:
    """`name`, the `text` that was pasted, the `key` that it is, and whether it looks like a `mistyped` one of ours."""
    ours = [_pair(name, text, OURS) for name, text in _OURS_PASTED.items()]
    checked = [_pair(name, text, CHECKED) for name, text in _CHECKED_PASTED.items()]
    mistyped = [_pair(name, text, text, mistyped=True) for name, text in _MISTYPED.items()]
    return ours + checked + mistyped + [_pair(name, text, key) for name, (text, key) in _OTHERS.items()]


def _pair(name: str, text: str, key: str, *, mistyped: bool = False) -> dict[str, str | bool]:
    return {"name": name, "text": text, "key": key, "mistyped": mistyped}
