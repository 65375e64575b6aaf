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

    ; The canonical form of `text`. A key that the servers generated is recognised with any case, spaces and dashes; any
    ; other key keeps its own.
    static Canonical(text) {
        spaces := this._Characters(this._Spaces), quotes := this._Characters(this._Quotes)
        shown := Trim(this._Shown(text), spaces . quotes)
        plain := Trim(this._Plain(shown, spaces), " ")
        compact := RegExReplace(plain, "[ -]")
        ; Before capitals are made: letters of other alphabets have ASCII capitals.
        if (!RegExMatch(compact, "^[0-9A-Za-z]{30}\z"))
            return plain
        ours := StrReplace(StrReplace(StrReplace(Format("{:U}", compact), "O", "0"), "I", "1"), "L", "1")
        return InStr(ours, "U") ? plain : RTrim(RegExReplace(ours, ".{6}", "$0-"), "-")
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
