; == 11. Text, keys and time ===========================================================================================

class LicenseText {
    ; Whether two texts are identical, case included. The x keeps texts that look like numbers from being compared as
    ; such.
    static Same(one, two) {
        return "x" . one == "x" . two
    }

    static IsOneOf(text, list) {
        for index, each in list
            if (this.Same(each, text))
                return true
        return false
    }

    ; The text, or an error for a setting that every server would refuse. The message does not show it: it may be the
    ; key.
    static Checked(name, text, shortest, longest) {
        if (StrLen(text) < shortest || StrLen(text) > longest || RegExMatch(text, "[\x00-\x1F\x7F-\x9F]"))
            throw ValueError("License: " . name . " must be a text of " . shortest . " to " . longest . " characters")
        return text
    }

    ; The same for a version by PEP 440: "1.2", "1.2.3rc1", "2024.1.post2".
    static Version(text) {
        if (text != "" && !RegExMatch(text, "i)^v?(\d+!)?\d+(\.\d+)*([-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?"
            . "(-\d+|[-_.]?(post|rev|r)[-_.]?\d*)?([-_.]?dev[-_.]?\d*)?(\+[a-z0-9]+([-_.][a-z0-9]+)*)?\z"))
            throw ValueError("License: version must be like 1.2 or 1.2.3rc1 (PEP 440)")
        return text
    }
}

; The canonical form of a license key, whatever mail, chat and word processors did to the text that is pasted.
; clients/ahk/README.md describes it; tests/vectors/keys.json has examples. The characters are hexadecimal, one or a
; range each.
class LicenseKey {
    ; Control characters, line and paragraph breaks, soft hyphens, zero-width and direction marks.
    static _Invisible := "1-1F 7F-9F AD 61C 180E 200B-200F 2028-202E 2060-2069 FEFF"
    static _Spaces := "20 A0 1680 2000-200A 202F 205F 3000"
    static _Quotes := "22 27 60 AB B4 BB 2018-201F 2039-203A 300C-300F 301D-301F FF02 FF07 FF40"
    static _Dashes := "2010-2015 2212 FE58 FE63 FF0D"

    ; Crockford's base32: a character's place is its value. The last character of a key is its check character.
    static _Alphabet := "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    ; Characters of a key and of its groups; those of the first release have no check character.
    static _Length := 28, _Group := 7, _OldLength := 30, _OldGroup := 6

    ; The canonical form of `text`. A key that the servers generated is recognised with any case, spaces and dashes; any
    ; other key keeps its own.
    static Canonical(text) {
        plain := this._Typed(text), ours := this._Ours(this._Compact(plain))
        return ours == "" ? plain : ours
    }

    ; Whether `text`, however it was pasted, is almost a key that the servers generated, and none. For a hint at once,
    ; without a server; whether there is such a license, only a server says. Keys of the first release have no check
    ; character, so that none of them looks mistyped.
    static LooksMistyped(text) {
        compact := this._Compact(this._Typed(text)), strange := 0
        Loop Parse, compact
            strange += InStr(this._Alphabet, A_LoopField, true) ? 0 : 1
        size := StrLen(compact)
        return size >= this._Length - 1 && size <= this._OldLength + 1 && strange <= 2 && this._Ours(compact) == ""
    }

    ; What was meant to be seen, in ASCII characters where there are such for it.
    static _Typed(text) {
        spaces := this._Characters(this._Spaces), quotes := this._Characters(this._Quotes)
        return Trim(this._Plain(Trim(this._Shown(text), spaces . quotes), spaces), " ")
    }

    ; Without spaces and dashes, ASCII letters as capitals, and letters that are in no key as the digits they look like.
    ; Letters of other alphabets stay as they are: some have ASCII capitals.
    static _Compact(plain) {
        compact := ""
        Loop Parse, plain
            compact .= Ord(A_LoopField) < 128 ? Format("{:U}", A_LoopField) : A_LoopField
        return StrReplace(StrReplace(StrReplace(RegExReplace(compact, "[ -]"), "O", "0"), "I", "1"), "L", "1")
    }

    ; The generated key that `compact` is, in its groups; "" where it is none.
    static _Ours(compact) {
        size := StrLen(compact)
        group := size = this._Length ? this._Group : size = this._OldLength ? this._OldGroup : 0
        if (!group || (size = this._Length && this._Sum(compact)) || !RegExMatch(compact, "^[0-9A-HJKMNP-TV-Z]+\z"))
            return ""
        return RTrim(RegExReplace(compact, ".{" . group . "}", "$0-"), "-")
    }

    ; 0 for a key with a right check character: Horner's rule at x in GF(32), modulo x^5 + x^2 + 1.
    static _Sum(compact) {
        total := 0
        Loop Parse, compact
            total := (total << 1 ^ (total & 16 ? 0x25 : 0)) ^ (InStr(this._Alphabet, A_LoopField, true) - 1)
        return total
    }

    static _Shown(text) {
        shown := "", invisible := this._Characters(this._Invisible)
        Loop Parse, text
            shown .= InStr(invisible, A_LoopField, true) ? "" : A_LoopField
        return shown
    }

    ; Full-width forms, dashes and spaces as their ASCII characters.
    static _Plain(text, spaces) {
        plain := "", dashes := this._Characters(this._Dashes)
        Loop Parse, text
        {
            code := Ord(A_LoopField)
            plain .= InStr(dashes, A_LoopField, true) ? "-" : InStr(spaces, A_LoopField, true) ? " "
                : code >= 0xFF01 && code <= 0xFF5E ? Chr(code - 0xFEE0) : A_LoopField
        }
        return plain
    }

    static _Characters(codes) {
        characters := ""
        for index, each in StrSplit(codes, " ") {
            ends := StrSplit(each, "-"), first := "0x" . ends[1], last := "0x" . ends[ends.Length]
            loop last - first + 1
                characters .= Chr(first + A_Index - 1)
        }
        return characters
    }
}

class LicenseTime {
    ; Unix seconds, UTC.
    static Now() {
        return this._Unix(A_NowUTC)
    }

    ; Unix seconds for "Sun, 06 Nov 1994 08:49:37 GMT"; "" for what is no such date.
    static OfHttp(text) {
        months := "janfebmaraprmayjunjulaugsepoctnovdec"
        if (!RegExMatch(text, "i)^\w{3}, (\d\d) ([a-z]{3}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT\z", &parts))
            return ""
        month := (InStr(months, parts[2]) + 2) // 3
        return this._Unix(parts[3] . Format("{:02}", month) . parts[1] . parts[4] . parts[5] . parts[6])
    }

    ; Unix seconds for AutoHotkey's "YYYYMMDDHH24MISS"; "" for a day that no calendar has.
    static _Unix(moment) {
        ;@v1
        EnvSub, moment, 19700101000000, Seconds
        return moment
        ;@v2
        try
            return DateDiff(moment, "19700101000000", "Seconds")
        return ""
        ;@end
    }

    ; Milliseconds since Windows was started.
    static Ticks() {
        return DllCall("GetTickCount64", "Int64")
    }

    ; "2027-01-01T00:00:00Z" for Unix seconds; "" for a time that is not from the years 1970 to 9999.
    static Iso(at) {
        if (at == "" || at < 0 || at > 253402300799)
            return ""
        ;@v1
        when := 19700101000000
        EnvAdd, when, %at%, Seconds
        FormatTime, text, %when%, yyyy-MM-ddTHH:mm:ssZ
        return text
        ;@v2
        return FormatTime(DateAdd("19700101000000", at, "Seconds"), "yyyy-MM-ddTHH:mm:ssZ")
        ;@end
    }
}
