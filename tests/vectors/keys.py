"""What people paste as a license key, and the key that is meant: the pairs of `keys.json`."""

from __future__ import annotations

OURS = "7Q2M4X-KD9WFA-3HTZ0B-CDEFGH-1KMNPQ"
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
    "a character short of our own shape": (OURS[:-1].lower(), OURS[:-1].lower()),
    "a character beyond our own shape": (OURS + "7", OURS + "7"),
    "a U is in no key of ours": (OURS.replace("Q2", "U2"), OURS.replace("Q2", "U2")),
    "a letter that only looks like one of ours": (OURS.replace("A", "\u0410"), OURS.replace("A", "\u0410")),
    "a small letter whose capital is ours": (OURS.replace("1", "\u0131"), OURS.replace("1", "\u0131")),
    "digits of another script": (OURS.replace("7", "\u0667"), OURS.replace("7", "\u0667")),
    "an emoji": ("KEY-\U0001f511-1234", "KEY-\U0001f511-1234"),
    "a decomposed letter stays so": ("KEY-A\u0308-1234", "KEY-A\u0308-1234"),
    "nothing but what goes": (' \u200b"\u00a0" \r\n', ""),
    "empty": ("", ""),
}


def pairs() -> list[dict[str, str]]:
    """`name`, the `text` that was pasted, and the `key` that it is."""
    ours = [{"name": name, "text": text, "key": OURS} for name, text in _OURS_PASTED.items()]
    return ours + [{"name": name, "text": text, "key": key} for name, (text, key) in _OTHERS.items()]
