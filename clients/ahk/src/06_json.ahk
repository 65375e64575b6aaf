; == 6. JSON ===========================================================================================================

; A strict reader (RFC 8259, no member twice) and a writer of texts. A value is {kind, value}: kind is text, whole (a
; number without fraction or exponent, at most 2^53 - 1 either way), number (any other), flag (true, false) or null; or
; {kind: "array", values}; or {kind: "object", names, values}. Throws LicenseRefused. An answer of a hostile server must
; not block the script. Hence the limits, far beyond any honest answer, and hence no string function on the whole text,
; because each would copy or measure all of it. `at` is the address of the next character.
class LicenseJson {
    static _MaxDepth := 100
    static _MaxValues := 1000
    static _MaxMembers := 100
    static _MaxEscapes := 4000

    static Parse(text) {
        reader := LicenseJson(text)
        node := reader._Value(1)
        reader._SkipSpace()
        reader._Require(reader._Next() == "")
        return node
    }

    ; The object in some bytes; an empty one where they hold none.
    static Members(bytes) {
        try {
            node := this.Parse(LicenseBytes.FromUtf8(bytes))
            if (node.kind == "object")
                return node
        } catch as refused
            LicenseRefused.Expect(refused)
        return {kind: "object", names: [], values: []}
    }

    ; The member's value, or "".
    static Find(object, name) {
        for index, each in object.names
            if (LicenseText.Same(each, name))
                return object.values[index]
        return ""
    }

    static TextOf(object, name) {
        node := this.Find(object, name)
        return node && node.kind == "text" ? node.value : ""
    }

    static NumberOf(object, name) {
        node := this.Find(object, name)
        return node && node.kind == "whole" ? node.value : ""
    }

    static Quoted(text) {
        text := StrReplace(StrReplace(text, "\", "\\"), '"', '\"')
        loop 31
            text := StrReplace(text, Chr(A_Index), Format("\u{:04x}", A_Index))
        return '"' . text . '"'
    }

    __New(text) {
        this.memory := Buffer(2 * StrLen(text) + 2)
        StrPut(text, this.memory.Ptr, "UTF-16")
        this.at := this.memory.Ptr, this.count := 0, this.escapes := 0
    }

    _Value(depth) {
        static words := Map("true", true, "false", false, "null", "")
        this.count += 1
        this._Require(depth <= LicenseJson._MaxDepth && this.count <= LicenseJson._MaxValues)
        this._SkipSpace()
        first := this._Next()
        if (first == "{")
            return this._Object(depth)
        if (first == "[")
            return this._Array(depth)
        if (first == '"')
            return {kind: "text", value: this._Text()}
        for word, value in words
            if (StrGet(this.at, StrLen(word), "UTF-16") == word) {
                this.at += 2 * StrLen(word)
                return {kind: word == "null" ? "null" : "flag", value: value}
            }
        text := this._Run("spn", "0123456789+-.eE")
        this._Require(RegExMatch(text, "^-?(0|[1-9][0-9]*+)(\.[0-9]++)?([eE][+-]?[0-9]++)?\z", &number))
        if (number[2] != "" || number[3] != "" || StrLen(number[1]) > 16 || number[1] > 9007199254740991)
            return {kind: "number", value: ""}
        return {kind: "whole", value: text + 0}
    }

    _Object(depth) {
        node := {kind: "object", names: [], values: []}
        this.at += 2
        while (!this._Closes("}", node.names.Length)) {
            this._SkipSpace()
            this._Require(this._Next() == '"' && node.names.Length < LicenseJson._MaxMembers)
            name := this._Text()
            for index, each in node.names
                if (LicenseText.Same(each, name))
                    throw LicenseRefused.Because("duplicate_member")
            this._SkipSpace()
            this._Require(this._Next() == ":")
            this.at += 2
            node.names.Push(name)
            node.values.Push(this._Value(depth + 1))
        }
        return node
    }

    _Array(depth) {
        node := {kind: "array", values: []}
        this.at += 2
        while (!this._Closes("]", node.values.Length))
            node.values.Push(this._Value(depth + 1))
        return node
    }

    ; Whether the list ends here. If it does not and has values already, steps over the comma.
    _Closes(bracket, count) {
        this._SkipSpace()
        ends := this._Next() == bracket
        this._Require(ends || !count || this._Next() == ",")
        if (ends || count)
            this.at += 2
        return ends
    }

    _Text() {
        static escapes := Map('"', '"', "\", "\", "/", "/", "b", "`b", "f", "`f", "n", "`n", "r", "`r", "t", "`t")
        out := ""
        this.at += 2
        Loop {
            plain := this._Run("cspn", '"\')
            this._Require(!RegExMatch(plain, "[\x01-\x1F]"))
            out .= plain
            if (this._Next() == '"') {
                this.at += 2
                return out
            }
            text := StrGet(this.at, 6, "UTF-16")
            this.escapes += 1
            this._Require(this.escapes <= LicenseJson._MaxEscapes)
            this._Require(RegExMatch(text, "A)\\(?:([\x22\\/bfnrt])|u([0-9A-Fa-f]{4}))", &escape))
            this.at += 2 * StrLen(escape[0])
            code := "0x" . escape[2]
            ; A text of AutoHotkey ends at a NUL: the noncharacter U+FFFF stands for it.
            out .= escape[1] != "" ? escapes[escape[1]] : Chr(code = 0 ? 0xFFFF : code + 0)
        }
    }

    _SkipSpace() {
        this._Run("spn", " `t`n`r")
    }

    ; The next character; "" at the end.
    _Next() {
        code := NumGet(this.at, 0, "UShort")
        return code ? Chr(code) : ""
    }

    ; Reads characters and returns them: all that are in the set ("spn"), or all up to the first one that is ("cspn").
    _Run(which, set) {
        begin := this.at
        length := DllCall("ntdll\wcs" . which, "Ptr", begin, "WStr", set, "CDecl UPtr")
        this.at += 2 * length
        return length ? StrGet(begin, length, "UTF-16") : ""
    }

    _Require(holds) {
        if (!holds)
            throw LicenseRefused.Because("json")
    }
}
