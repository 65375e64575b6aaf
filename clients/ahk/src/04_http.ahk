; == 4. HTTP ===========================================================================================================

; A session of WinHTTP, by one proxy. `proxy`: "" for that of Windows' settings, "direct", or "host:port", also as
; "user:password@host:port".
class LicenseHttp {
    __New(proxy, user := "", password := "") {
        LicenseLibraries.Load()
        if (!RegExMatch(proxy, "is)^(?:http://)?(?:([^@:]*)(?::(.*))?@)?([^@/]*)/?\z", &parts))
            throw ValueError("License: proxy must be like host:port or user:password@host:port")
        this.user := user != "" ? user : this._Unescaped(parts[1])
        this.password := user != "" ? password : this._Unescaped(parts[2])
        named := parts[3] != "" && proxy != "direct"
        access := proxy == "direct" ? 1 : named ? 3 : 4     ; 4: by Windows' settings, from Windows 8.1 on
        this.session := this._Open(access, named ? parts[3] : "")
        if (!this.session && access = 4)
            this.session := this._Open(0, "")
        if (!this.session) {
            ;@v1
            throw Exception("License: WinHTTP error " . A_LastError)
            ;@v2
            throw OSError(A_LastError, -1, "License: WinHTTP")
            ;@end
        }
        if (!LicenseHttp.SetOption(this.session, 84, 0x2800))   ; TLS 1.2 and 1.3
            LicenseHttp.SetOption(this.session, 84, 0x800)      ; for a Windows without TLS 1.3
        LicenseExchange.Prepare(this.session)
    }

    __Delete() {
        if (this.HasOwnProp("session") && this.session)
            DllCall("winhttp\WinHttpCloseHandle", "Ptr", this.session)
    }

    static SetOption(handle, option, value) {
        return DllCall("winhttp\WinHttpSetOption", "Ptr", handle, "UInt", option, "UInt*", &value, "UInt", 4)
    }

    _Open(access, proxy) {
        return DllCall("winhttp\WinHttpOpen", "Str", "license-client-ahk/" . LicenseClient.Version, "UInt", access
            , "Ptr", proxy == "" ? 0 : StrPtr(proxy), "Ptr", 0, "UInt", LicenseExchange.SessionFlags, "Ptr")
    }

    ; The user or the password of a URL, where "%40" stands for "@".
    _Unescaped(text) {
        at := 1
        while (at := RegExMatch(text, "i)%([0-9a-f]{2})", &found, at)) {
            text := SubStr(text, 1, at - 1) . Chr("0x" . found[1]) . SubStr(text, at + 3)
            at += 1
        }
        return text
    }
}

; One POST and its answer: what LicenseExchange, the one that waits or the one that does not, is made of. `failure` is
; one of refused, timeout, name, tls, tls date, short body, body too large, broken; "" where there is a whole answer:
; `status`, `answer` (the bytes), and Header.
class LicenseRequest {
    static MaxAnswer := 262144

    _Begin(http, url, headers, body, deadline) {
        this.http := http, this.headers := headers, this.body := body, this.deadline := deadline
        this.failure := "", this.status := 0, this.answer := "", this.size := 0, this.declared := ""
        this.connection := 0, this.request := 0, this.isOver := false, this.isAuthenticated := false
        this.retryAfter := "", this.date := ""
        RegExMatch(url, "i)^(https?)://(\[.+\]|[^:/]+)(?::(\d+))?(/.*)\z", &parts)
        isSecure := parts[1] = "https"
        port := parts[3] != "" ? parts[3] : isSecure ? 443 : 80
        this.connection := DllCall("winhttp\WinHttpConnect", "Ptr", http.session, "Str", Trim(parts[2], "[]")
            , "UShort", port, "UInt", 0, "Ptr")
        if (this.connection)
            this.request := DllCall("winhttp\WinHttpOpenRequest", "Ptr", this.connection, "Str", "POST"
                , "Str", parts[4], "Ptr", 0, "Ptr", 0, "Ptr", 0, "UInt", isSecure ? 0x800000 : 0, "Ptr")
        if (!this.request)
            return this._Over("broken")
        ; No cookies, no redirects, and no kept connection, which its server may be ending just now.
        LicenseHttp.SetOption(this.request, 63, 11)
        left := this._Left() + 50               ; so that our deadline comes first and the failure is "timeout"
        DllCall("winhttp\WinHttpSetTimeouts", "Ptr", this.request, "Int", left, "Int", left, "Int", left, "Int", left)
        LicenseHttp.SetOption(this.request, 7, left)
    }

    ; Milliseconds until the deadline, at least 1.
    _Left() {
        left := this.deadline - LicenseTime.Ticks()
        return left < 1 ? 1 : left
    }

    _ReadHeaders() {
        size := 4, status := 0
        DllCall("winhttp\WinHttpQueryHeaders", "Ptr", this.request, "UInt", 0x20000013, "Ptr", 0, "UInt*", &status
            , "UInt*", &size, "Ptr", 0)
        this.status := status, this.declared := this._Header("Content-Length")
        this.retryAfter := this._Header("Retry-After"), this.date := this._Header("Date")
    }

    ; A header of the answer; "" where it has none, or a long one.
    _Header(name) {
        size := 256, text := Buffer(size, 0)
        if (!DllCall("winhttp\WinHttpQueryHeaders", "Ptr", this.request, "UInt", 65535, "Str", name, "Ptr", text.Ptr
            , "UInt*", &size, "Ptr", 0))
            return ""
        return StrGet(text.Ptr, "UTF-16")
    }

    ; Whether a proxy asks for the user and the password that it has not had yet: then they are set for another try.
    _MayAuthenticate() {
        if (this.status != 407 || this.http.user == "" || this.isAuthenticated)
            return false
        supported := 0, first := 0, target := 0
        DllCall("winhttp\WinHttpQueryAuthSchemes", "Ptr", this.request, "UInt*", &supported, "UInt*", &first
            , "UInt*", &target)
        this.isAuthenticated := true
        for index, scheme in [0x10, 2, 8, 1]    ; Negotiate, NTLM, Digest, Basic
            if (supported & scheme)
                return this._SetCredentials(scheme)
        return false
    }

    _SetCredentials(scheme) {
        return DllCall("winhttp\WinHttpSetCredentials", "Ptr", this.request, "UInt", 1, "UInt", scheme
            , "Str", this.http.user, "Str", this.http.password, "Ptr", 0)
    }

    ; What the end of a body means.
    _AtTheEnd() {
        return this._Over(this.declared != "" && this.declared != this.size ? "short body" : "")
    }

    _CloseHandles() {
        for index, handle in [this.request, this.connection]
            if (handle)
                DllCall("winhttp\WinHttpCloseHandle", "Ptr", handle)
    }

    _Reason(error) {
        static reasons := Map(12029, "refused", 12007, "name", 12002, "timeout", 10060, "timeout", 12157, "tls"
            , 12175, "tls", 12185, "tls", 12037, "tls date", 12038, "tls", 12044, "tls", 12045, "tls", 12055, "tls"
            , 12056, "tls", 12057, "tls", 12169, "tls", 12170, "tls", 12179, "tls")
        return reasons.Has(error) ? reasons[error] : "broken"
    }
}
