; == 1. The client =====================================================================================================

; Asks about one license of one product. Options (those with a star are needed):
;   servers*       URLs in order of priority: https, or http to this machine; else the global g_LicenseAPI_Servers
;   product*       the product's code: sent by Validate and Activate only; every verdict has to name it
;   key*           the customer's license key, as it was pasted
;   publicKeys*    the JWKs to pin, as `flask secrets` or /.well-known/jwks.json prints them, in one text
;   apiKey         as set on the servers          sharedSecret  the same
;   version        the program's (PEP 440), checked by Validate and Activate
;   language       "en", "pt", or "" for the system's
;   proxy          "" for the proxy of Windows' settings, "direct", "host:port" or "user:password@host:port"
;   proxyUser, proxyPassword      for a proxy that asks for them
;   folder, registry, logFolder   where the token, the second copy of the floors and the logs are kept
; Throws ValueError for a setting with which no check could succeed.
class LicenseClient {
    static Version := "1.0.0"
    static _Options := ["servers", "product", "key", "publicKeys", "apiKey", "sharedSecret", "version", "language"
        , "proxy", "proxyUser", "proxyPassword", "folder", "registry", "logFolder"]

    __New(options) {
        for name, value in options.OwnProps()
            if (!LicenseText.IsOneOf(name, LicenseClient._Options))
                throw ValueError("License: there is no option " . name)
        appData := EnvGet("LOCALAPPDATA")
        appData := appData != "" ? appData : A_AppData != "" ? A_AppData : A_Temp
        this.product := LicenseText.Checked("product", this._Option(options, "product"), 1, 64)
        this.key := LicenseText.Checked("key", LicenseKey.Canonical(this._Option(options, "key")), 8, 128)
        this.apiKey := LicenseText.Checked("apiKey", this._Option(options, "apiKey"), 0, 1000)
        this.sharedSecret := this._Option(options, "sharedSecret")
        this.programVersion := LicenseText.Version(this._Option(options, "version"))
        this.keyHash := LicenseBytes.Base64Url(LicenseCrypto.Sha256(LicenseBytes.Utf8(this.key)))
        this.publicKeys := LicenseTokens.PinnedKeys(this._Option(options, "publicKeys"))
        registry := this._Option(options, "registry", "HKCU\Software\protecao-license")
        folder := this._Option(options, "folder", appData . "\protecao-license")
        this.store := LicenseStore(folder, registry, this.product, this.keyHash)
        this.fingerprint := LicenseMachine.Fingerprint(this.product, this.store)
        this.servers := LicenseServers(this._Servers(options), registry)
        this.logs := LicenseLogs(this._Option(options, "logFolder", A_Temp))
        this.http := LicenseHttp(this._Option(options, "proxy"), this._Option(options, "proxyUser")
            , this._Option(options, "proxyPassword"))
        this.texts := LicenseTexts.In(this._Option(options, "language"))
        this.budgets := [2000, 5000, 60000]     ; milliseconds for a server's whole answer, in each pass
        this.clockOffset := 0                   ; seconds by which this machine's clock is behind a server's
        this.deletions := 0                     ; how many tokens have been deleted
        this.check := ""                        ; the walk of the check in the background; "" for none
        this.timer := "", this.slice := ""      ; the functions of two timers: begin a check, advance it
    }

    ; Whether the program may run. `entitlements`: an array of names that the license must include.
    Validate(entitlements := "") {
        return this._Now(this._ValidateCall(entitlements))
    }

    ; Validates, and where only this machine's seat or heartbeat is missing, activates it or sends the heartbeat.
    Unlock() {
        answer := this.Validate()
        if (LicenseText.IsOneOf(answer.code, ["NO_MACHINE", "NO_MACHINES", "FINGERPRINT_SCOPE_MISMATCH"]))
            return this.Activate()
        if (LicenseText.IsOneOf(answer.code, ["HEARTBEAT_NOT_STARTED", "HEARTBEAT_DEAD"]))
            return this.Ping()
        return answer
    }

    ; Takes a seat for this machine. Repeating it is no error. `name`: how the vendor sees the machine, by default the
    ; computer's name.
    ;@v1
    Activate(name := "", requestId := "") {
        name := name = "" ? A_ComputerName : name
    ;@v2
    Activate(name := A_ComputerName, requestId := "") {
    ;@end
        call := LicenseCall(this, "activate", requestId)
        call.Add("product", this.product)
        call.AddFingerprint()
        call.Add("name", SubStr(RegExReplace(name, "[\x00-\x1F\x7F-\x9F]", " "), 1, 200))
        call.Add("platform", "Windows " . A_OSVersion)
        call.Add("version", this.programVersion)
        return this._Now(call)
    }

    ; Gives this machine's seat back and deletes the saved token. Needs a server.
    Deactivate(requestId := "") {
        call := LicenseCall(this, "deactivate", requestId)
        call.AddFingerprint()
        return this._Now(call)
    }

    ; Sends this machine's heartbeat.
    Ping() {
        return this._Now(this._PingCall())
    }

    ; Resets the license's check-in clock.
    CheckIn() {
        return this._Now(LicenseCall(this, "check-in"))
    }

    ; Counts `increment` uses, all or nothing. Needs a server. To repeat a call whose answer was lost, give the
    ; requestId of its result: it is counted once.
    Usage(increment := 1, requestId := "") {
        call := LicenseCall(this, "usage", requestId)
        call.AddNumber("increment", increment, 1000000)
        return this._Now(call)
    }

    ; Saves a token that lasts `seconds` without a server; 0: as long as the policy allows.
    Checkout(seconds := 0) {
        call := LicenseCall(this, "checkout")
        call.AddFingerprint()
        if (seconds)
            call.AddNumber("ttl", seconds, 315360000)
        return this._Now(call)
    }

    ; The result if no server could be reached, by the saved token alone. Sends nothing.
    Status() {
        return this._Offline(LicenseCall(this, "status"), [], [])
    }

    ; Checks again every `minutes` and calls `callback` (a function; in AutoHotkey 1.1 its name will do) with each
    ; result. `act`: "validate", or "ping" for a heartbeat. The check runs in slices of a timer: windows, hotkeys and
    ; the rest of the script go on meanwhile. While the callback is still running, for example in a MsgBox, the next
    ; check waits.
    Every(minutes, callback, act := "validate") {
        ;@v1
        isNumeric := false
        if minutes is number
            isNumeric := true
        ;@v2
        isNumeric := IsNumber(minutes)
        ;@end
        if (!isNumeric || minutes <= 0)
            throw ValueError("License: minutes must be a number above 0")
        this.Stop()
        this.timer := ObjBindMethod(this, "Begin", this._Callable(callback), act)
        timer := this.timer
        period := Round(minutes * 60000)
        SetTimer(timer, period < 1 ? 1 : period > 0xFFFFFFFF ? 0xFFFFFFFF : period)
    }

    ; Ends the checks that Every began. A check that is under way is finished.
    Stop() {
        timer := this.timer
        if (timer)
            SetTimer(timer, 0)
        this.timer := ""
    }

    ; Starts one check in the background, now. Does nothing while there is one already.
    Begin(callback, act := "validate") {
        if (this.check)
            return
        walk := LicenseWalk(this, act = "ping" ? this._PingCall() : this._ValidateCall(""))
        walk.callback := this._Callable(callback)
        this.check := walk
        if (!this.slice)
            this.slice := ObjBindMethod(this, "_Slice")
        slice := this.slice
        SetTimer(slice, 30)
    }

    ; Advances the check in the background and calls its callback when it is over. The next check may begin only when
    ; this one has written its files. One timer serves all checks, and AutoHotkey does not call it while it is still
    ; running: callbacks never pile up. The timer ends when there is no check left.
    _Slice() {
        before := Critical("On")        ; a check that began between these lines would lose its timer
        slice := this.slice
        if (!this.check) {
            SetTimer(slice, 0)
            return
        }
        Critical(before)
        walk := this.check, goesOn := false
        try {
            goesOn := !walk.Advance()
            result := goesOn ? "" : this._Result(walk)
        } finally {
            if (!goesOn)
                this.check := ""
        }
        if (!goesOn) {
            callback := walk.callback
            callback.Call(result)
        }
    }

    ; The function that a callback is. In AutoHotkey 1.1 it may be given by its name.
    _Callable(callback) {
        ;@v1
        called := IsObject(callback) ? callback : Func(callback)
        if (!called)
            throw Exception("License: there is no function " . callback)
        return called
        ;@v2
        return callback
        ;@end
    }

    _ValidateCall(entitlements) {
        call := LicenseCall(this, "validate")
        call.Add("product", this.product)
        call.AddFingerprint()
        call.Add("version", this.programVersion)
        ;@v1
        if (IsObject(entitlements))
            call.AddEntitlements(entitlements)
        else if (entitlements != "")
            throw Exception("License: entitlements must be an array of names")
        ;@v2
        if (entitlements)
            call.AddEntitlements(entitlements)
        ;@end
        return call
    }

    _PingCall() {
        call := LicenseCall(this, "ping")
        call.AddFingerprint()
        return call
    }

    ; The result of a call, after its whole walk. Meanwhile windows are served, and hotkeys and timers run.
    _Now(call) {
        walk := LicenseWalk(this, call)
        while (!walk.Advance())
            LicenseExchange.Wait(50)
        return this._Result(walk)
    }

    ; This machine's clock, Unix seconds.
    _Clock() {
        return LicenseTime.Now()
    }

    ; The result of a walk that is over; saves its token, floors and log lines. No timer or hotkey interrupts it,
    ; because a check of theirs would write the same files.
    _Result(walk) {
        before := Critical("On")
        try
            return walk.answer ? this._Decided(walk) : this._Undecided(walk)
        finally
            Critical(before)
    }

    _Undecided(walk) {
        result := this._Offline(walk.call, walk.attempts, walk.failures)
        if (result.valid)
            this.logs.Offline(this._Clock(), walk.call.act . " " . result.code)
        return result
    }

    _Decided(walk) {
        answer := walk.answer, claims := answer.claims
        this.logs.Used(this._Clock(), answer.server, walk.call.act . " " . claims.code)
        this.store.SettleFloors(claims.iat, this._Clock())
        if (this._EndsToken(walk.call, claims)) {
            this.deletions += 1
            this.store.DeleteToken()
        } else if (claims.valid && answer.token != "" && walk.deletions = this.deletions)
            this._Save(answer.token, claims, answer.server)
        result := LicenseResult(walk.call, walk.attempts)
        result.valid := claims.valid, result.code := claims.code, result.source := "server"
        isSlip := claims.code == "NOT_FOUND" && LicenseKey.LooksMistyped(this.key)
        text := isSlip ? "NOT_FOUND mistyped" : claims.code
        result.server := answer.server, result.detail := LicenseTexts.Of(this.texts, text, claims.valid)
        result.expires := LicenseTime.Iso(claims.lic_exp), result.entitlements := claims.ent
        result.uses := claims.uses, result.maxUses := claims.max_uses
        saved := this._Saved([])
        if (saved.code == "OFFLINE_VALID")
            result.offlineUntil := LicenseTime.Iso(saved.claims.exp)
        return result
    }

    ; Whether an answer ends the saved token: the seat was given back, or the ledger that issued the token denies the
    ; license for good.
    _EndsToken(call, claims) {
        if (call.act == "deactivate" && claims.valid)
            return true
        saved := this._Saved([]).claims
        isSameLedger := !saved || LicenseText.Same(saved.led, claims.led)
        return isSameLedger && !claims.valid
            && LicenseText.IsOneOf(claims.code, ["BANNED", "SUSPENDED", "EXPIRED", "NOT_FOUND"])
    }

    ; Saves a token that is for this key, product and machine, unless the saved one is newer.
    _Save(token, verdict, server) {
        try
            claims := LicenseTokens.Lease(this.publicKeys, token, this._Bound())
        catch as refused {
            LicenseRefused.Expect(refused)
            return
        }
        saved := this._Saved([]).claims
        ; A saved token that was signed later than this verdict is from a server whose clock was wrong: it is replaced.
        if (!saved || claims.iat >= saved.iat || saved.iat > verdict.iat)
            this.store.SaveToken(token, this.fingerprint, server)
    }

    _Bound() {
        return {keyHash: this.keyHash, fingerprint: this.fingerprint, product: this.product}
    }

    ; The state of the saved token now: {code, claims (or ""), reason (or "")}.
    _Saved(entitlements) {
        token := this.store.Token()
        if (token == "" || token == "unreadable")
            return {code: "NO_SERVER", claims: "", reason: token}
        claims := ""
        try {
            claims := LicenseTokens.Lease(this.publicKeys, token, this._Bound())
            LicenseTokens.CheckClock(claims, this._Clock(), this.store.Floor())
        } catch as refused {
            reason := LicenseRefused.Expect(refused)
            code := !claims ? "TOKEN_INVALID" : reason == "expired" ? "OFFLINE_EXPIRED" : "CLOCK_TAMPERED"
            return {code: code, claims: claims, reason: reason}
        }
        for index, name in entitlements
            if (!LicenseText.IsOneOf(name, claims.ent))
                return {code: "TOKEN_INVALID", claims: claims, reason: "ent"}
        return {code: "OFFLINE_VALID", claims: claims, reason: ""}
    }

    ; The result when all servers failed. Only a server can count a use or give a seat back.
    _Offline(call, attempts, failures) {
        mayUseToken := call.act != "usage" && call.act != "deactivate"
        saved := mayUseToken ? this._Saved(call.entitlements) : {code: "NO_SERVER", claims: "", reason: ""}
        if (saved.claims && call.act != "status")
            this.store.RaiseLocalFloor(this._Clock())
        result := LicenseResult(call, attempts)
        result.valid := saved.code == "OFFLINE_VALID", result.code := saved.code, result.source := "offline"
        cause := LicenseCauses.Sentence(this.texts, failures, this._Clock(), this.store.Floor())
        result.detail := this._OfflineDetail(saved, cause)
        if (saved.claims) {
            result.expires := LicenseTime.Iso(saved.claims.lic_exp), result.entitlements := saved.claims.ent
            result.offlineUntil := LicenseTime.Iso(saved.claims.exp)
        }
        return result
    }

    ; Why no server let the client in ("" where none was reached), and what the saved token has to say.
    _OfflineDetail(saved, cause) {
        own := LicenseTexts.Of(this.texts, saved.reason == "unreadable" ? "UNREADABLE" : saved.code, false)
        if (cause == "")
            return own
        if (saved.code == "NO_SERVER" && saved.reason == "")
            return cause
        after := saved.code . " after"
        return cause . " " . (this.texts.Has(after) ? this.texts[after] : own)
    }

    _Option(options, name, otherwise := "") {
        return options.HasOwnProp(name) && options.%name% != "" ? options.%name% : otherwise
    }

    ; The option `servers`, else the global g_LicenseAPI_Servers.
    _Servers(options) {
        global g_LicenseAPI_Servers
        if (options.HasOwnProp("servers"))
            return options.servers
        ;@v1
        return g_LicenseAPI_Servers
        ;@v2
        return IsSet(g_LicenseAPI_Servers) ? g_LicenseAPI_Servers : []
        ;@end
    }
}

; One logical call, the same on each server that it is tried on. Its request id makes it idempotent.
class LicenseCall {
    __New(client, act, requestId := "") {
        if (requestId == "")
            requestId := LicenseBytes.Base64Url(LicenseCrypto.Random(16))
        else if (!RegExMatch(requestId, "^[A-Za-z0-9_-]{8,64}\z"))
            throw ValueError("License: requestId must be 8 to 64 of A-Z a-z 0-9 _ -")
        this.client := client, this.act := act, this.path := "/v1/" . act, this.requestId := requestId
        this.members := "", this.fingerprint := "", this.entitlements := []
    }

    ; Adds a member to the body, unless its text is empty.
    Add(name, text) {
        if (text != "")
            this.members .= ',"' . name . '":' . LicenseJson.Quoted(text)
    }

    AddNumber(name, number, largest) {
        ;@v1
        isWhole := RegExMatch(number, "^[1-9][0-9]{0,9}\z")
        ;@v2
        isWhole := IsInteger(number) && number > 0
        ;@end
        if (!isWhole || number > largest)
            throw ValueError("License: " . name . " must be a whole number from 1 to " . largest)
        this.members .= ',"' . name . '":' . (number + 0)
    }

    AddFingerprint() {
        this.fingerprint := this.client.fingerprint
        this.Add("fingerprint", this.fingerprint)
    }

    AddEntitlements(names) {
        list := ""
        for index, each in names
            list .= (A_Index > 1 ? "," : "") . LicenseJson.Quoted(each)
        this.entitlements := names
        this.members .= ',"entitlements":[' . list . "]"
    }

    ; The JSON to send, in UTF-8.
    Body(nonce) {
        about := '{"app":"license-client-ahk","version":"' . LicenseClient.Version . '"}'
        return LicenseBytes.Utf8('{"key":' . LicenseJson.Quoted(this.client.key) . ',"nonce":"' . nonce . '"'
            . this.members . ',"client":' . about . "}")
    }

    Headers(body, timestamp) {
        lines := "Content-Type: application/json`r`nX-Request-Id: " . this.requestId
        if (this.client.apiKey != "")
            lines .= "`r`nX-API-Key: " . this.client.apiKey
        if (this.client.sharedSecret != "")
            lines .= "`r`nX-Timestamp: " . timestamp . "`r`nX-Signature: "
                . LicenseCall.Signature(this.client.sharedSecret, this.requestId, timestamp, "POST", this.path, body)
        return lines
    }

    static Signature(secret, requestId, timestamp, method, path, body) {
        head := LicenseBytes.Utf8(requestId . "." . timestamp . "." . method . " " . path . ".")
        mac := LicenseCrypto.Hmac(LicenseBytes.Utf8(secret), LicenseBytes.Joined(head, body))
        return "v1," . LicenseBytes.Base64(mac)
    }
}
