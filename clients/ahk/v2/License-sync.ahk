; License.ahk: signed license checks for AutoHotkey v2, asked of several servers in turn, with a saved token for when
; none of them answers.
;
;     #Include License.ahk
;     license := LicenseClient({servers: ["https://one.example", "https://two.example"], product: "editor",
;         key: "the customer's key", publicKeys: "(what `flask secrets` printed)", apiKey: "...", sharedSecret: "..."})
;     answer := license.Validate()
;     if !answer.valid
;         MsgBox(answer.detail), ExitApp()
;
; This file is the whole client: nothing else to install or download.
; clients/ahk/README.md describes a first script in ten minutes, each option, the log files and where the token is kept.
;
; The files for AutoHotkey 1.1 and v2 are both assembled from clients/ahk/src. Change the sections there, not this file,
; and run `make clients`.
;
; Sections: 1 the client, 2 results and texts, 3 the walk over the servers, 4 HTTP, 5 tokens, 6 JSON, 7 cryptography,
; 8 what is kept, 9 this machine, 10 logs, 11 text, keys and time.

#Requires AutoHotkey v2.0


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
    Activate(name := A_ComputerName, requestId := "") {
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
        isNumeric := IsNumber(minutes)
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
        return callback
    }

    _ValidateCall(entitlements) {
        call := LicenseCall(this, "validate")
        call.Add("product", this.product)
        call.AddFingerprint()
        call.Add("version", this.programVersion)
        if (entitlements)
            call.AddEntitlements(entitlements)
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
        return IsSet(g_LicenseAPI_Servers) ? g_LicenseAPI_Servers : []
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
        isWhole := IsInteger(number) && number > 0
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


; == 2. Results and texts ==============================================================================================

; The result of every call, made from signed claims or local rules only.
;   valid, code    whether the program may run, and why: the server's codes, or OFFLINE_VALID, OFFLINE_EXPIRED,
;                  CLOCK_TAMPERED, TOKEN_INVALID, NO_SERVER
;   detail         a sentence for the user, in the language chosen
;   source         "server" or "offline"          server         the URL that decided, "" offline
;   expires        when the license ends, "2027-01-01T00:00:00Z"; "" for never or not known
;   offlineUntil   the end of the saved token; "" without one
;   entitlements   an array                       uses, maxUses  numbers, "" for none
;   act, requestId, attempts   the call, its id, and [server, reason] for each server that did not decide
class LicenseResult {
    __New(call, attempts) {
        this.valid := false, this.code := "", this.detail := "", this.source := "", this.server := ""
        this.expires := "", this.offlineUntil := "", this.entitlements := [], this.uses := "", this.maxUses := ""
        this.act := call.act, this.requestId := call.requestId, this.attempts := attempts
    }
}

; Sentences for the user, by code. To replace one: license.texts["SUSPENDED"] := "...". The text of "CODE valid" is
; shown where a code that can be a denial comes with a valid verdict, "CODE after" after the cause for which no server
; let the client in, "NOT_FOUND mistyped" where the key is almost one that the servers generate; {n} stands for a
; number.
class LicenseTexts {
    ; A new copy of the texts in a language: "en", "pt", or "" for the system's.
    static In(language) {
        if (language == "")
            language := SubStr(A_Language, 3) = "16" ? "pt" : "en"     ; 0416 is Brazil, 0816 Portugal
        if (language != "en" && language != "pt")
            throw ValueError("License: language must be en or pt")
        return language = "pt" ? this._Portuguese() : this._English()
    }

    static Of(texts, code, valid) {
        if (valid && texts.Has(code . " valid"))
            return texts[code . " valid"]
        return texts.Has(code) ? texts[code] : texts["OTHER"] . code
    }

    static _English() {
        return Map("VALID", "The license is valid."
            , "NOT_FOUND", "No license has this key. Please compare it with the message that it came in."
            , "NOT_FOUND mistyped", "This key looks mistyped: a character is wrong, missing or too many. Copy it again."
            , "BANNED", "This license has been banned."
            , "SUSPENDED", "This license is suspended."
            , "EXPIRED", "This license has expired."
            , "EXPIRED valid", "This license has expired and is in its grace period."
            , "OVERDUE", "This license has not checked in for too long."
            , "PRODUCT_SCOPE_MISMATCH", "This license is for another product."
            , "VERSION_SCOPE_MISMATCH", "This license does not cover this version."
            , "ENTITLEMENTS_MISSING", "This license does not include what was asked for."
            , "FINGERPRINT_SCOPE_REQUIRED", "This license asks for the machine's fingerprint."
            , "NO_MACHINE", "This machine is not activated."
            , "NO_MACHINES", "This machine is not activated."
            , "FINGERPRINT_SCOPE_MISMATCH", "This license is in use on another machine."
            , "HEARTBEAT_NOT_STARTED", "This machine has not reported yet."
            , "HEARTBEAT_DEAD", "This machine has not reported for too long."
            , "MACHINE_LIMIT_EXCEEDED", "Every seat of this license is taken."
            , "TOO_MANY_MACHINES", "This license is in use on too many machines."
            , "TOO_MANY_MACHINES valid", "The license is valid, on more machines than it has seats."
            , "USES_EXHAUSTED", "Every use of this license is used up."
            , "OFFLINE_VALID", "No server could be reached. The program goes on with the saved token."
            , "OFFLINE_EXPIRED", "No server could be reached, and the saved token has ended. Please connect."
            , "CLOCK_TAMPERED", "This computer's clock was set back. Please set it right, or connect."
            , "TOKEN_INVALID", "The saved token is damaged or not for this machine. Please connect."
            , "NO_SERVER", "No license server could be reached. Please check the connection."
            , "UNREADABLE", "The saved token cannot be read now: another program holds its file. Please try again."
            , "OFFLINE_VALID after", "The program goes on with the saved token."
            , "OFFLINE_EXPIRED after", "The saved token has ended."
            , "ACCESS_KEY", "This program's access key is not accepted any more: ask the vendor for an update."
            , "RATE_LIMITED", "Too many attempts, try again in {n} minutes."
            , "RATE_LIMITED later", "Too many attempts, try again later."
            , "CLOCK", "This PC's clock is off by about {n} days."
            , "CLOCK hours", "This PC's clock is off by about {n} hours."
            , "CLOCK unknown", "This PC's clock is off, or a server's certificate has ended."
            , "PROXY", "A proxy stands between this PC and the license servers, and does not let the program through."
            , "INTERCEPTED", "A proxy stands between this PC and the servers: their certificates are not trusted."
            , "LOGIN_PAGE", "Something else answers in place of the license servers, perhaps a network's login page."
            , "BUSY", "The license servers cannot answer just now. Please try again in some minutes."
            , "OTHER_PRODUCT", "No server answered for this product. Is the key for another one?"
            , "OTHER", "The license server answered: ")
    }

    static _Portuguese() {
        return Map("VALID", "A licença é válida."
            , "NOT_FOUND", "Nenhuma licença tem esta chave. Compare-a com a mensagem em que ela veio."
            , "NOT_FOUND mistyped", "A chave parece ter um erro: um caractere errado, a menos ou a mais. Copie-a de novo."
            , "BANNED", "Esta licença foi banida."
            , "SUSPENDED", "Esta licença está suspensa."
            , "EXPIRED", "Esta licença expirou."
            , "EXPIRED valid", "Esta licença expirou e está no período de carência."
            , "OVERDUE", "Esta licença ficou tempo demais sem se apresentar."
            , "PRODUCT_SCOPE_MISMATCH", "Esta licença é de outro produto."
            , "VERSION_SCOPE_MISMATCH", "Esta licença não cobre esta versão."
            , "ENTITLEMENTS_MISSING", "Esta licença não inclui o que foi pedido."
            , "FINGERPRINT_SCOPE_REQUIRED", "Esta licença exige a identificação da máquina."
            , "NO_MACHINE", "Esta máquina não está ativada."
            , "NO_MACHINES", "Esta máquina não está ativada."
            , "FINGERPRINT_SCOPE_MISMATCH", "Esta licença está em uso em outra máquina."
            , "HEARTBEAT_NOT_STARTED", "Esta máquina ainda não se apresentou."
            , "HEARTBEAT_DEAD", "Esta máquina ficou tempo demais sem se apresentar."
            , "MACHINE_LIMIT_EXCEEDED", "Todas as vagas desta licença estão ocupadas."
            , "TOO_MANY_MACHINES", "Esta licença está em uso em máquinas demais."
            , "TOO_MANY_MACHINES valid", "A licença é válida, em mais máquinas do que tem vagas."
            , "USES_EXHAUSTED", "Todos os usos desta licença foram gastos."
            , "OFFLINE_VALID", "Nenhum servidor respondeu. O programa continua com o token salvo."
            , "OFFLINE_EXPIRED", "Nenhum servidor respondeu, e o token salvo venceu. Conecte-se à internet."
            , "CLOCK_TAMPERED", "O relógio deste computador foi atrasado. Acerte-o ou conecte-se à internet."
            , "TOKEN_INVALID", "O token salvo está danificado ou não é desta máquina. Conecte-se à internet."
            , "NO_SERVER", "Nenhum servidor de licenças respondeu. Verifique a conexão."
            , "UNREADABLE", "O token salvo não pode ser lido agora: outro programa está com o arquivo. Tente de novo."
            , "OFFLINE_VALID after", "O programa continua com o token salvo."
            , "OFFLINE_EXPIRED after", "O token salvo venceu."
            , "ACCESS_KEY", "A chave de acesso deste programa já não é aceita: peça uma atualização ao fornecedor."
            , "RATE_LIMITED", "Tentativas demais, tente de novo em {n} minutos."
            , "RATE_LIMITED later", "Tentativas demais, tente de novo mais tarde."
            , "CLOCK", "O relógio deste PC está errado em cerca de {n} dias."
            , "CLOCK hours", "O relógio deste PC está errado em cerca de {n} horas."
            , "CLOCK unknown", "O relógio deste PC está errado, ou o certificado de um servidor venceu."
            , "PROXY", "Há um proxy entre este PC e os servidores de licenças, e ele não deixa o programa passar."
            , "INTERCEPTED", "Há um proxy entre este PC e os servidores: os certificados deles não são confiáveis."
            , "LOGIN_PAGE", "Outra coisa responde no lugar dos servidores, talvez a página de login de uma rede."
            , "BUSY", "Os servidores de licenças não podem responder agora. Tente de novo em alguns minutos."
            , "OTHER_PRODUCT", "Nenhum servidor respondeu por este produto. A chave é de outro?"
            , "OTHER", "O servidor de licenças respondeu: ")
    }
}

; Why no server let the client in: the most telling of what its attempts met. `failures`: {reason, retryAfter (seconds),
; serverTime (Unix seconds)}, "" for what is not known. Nothing of it is signed, and nothing but a text follows from it.
class LicenseCauses {
    static Leeway := 300        ; seconds: a clock that is off by less keeps nobody out
    static _Patterns := [["OTHER_PRODUCT", "^verdict refused: aud\z"]
        , ["ACCESS_KEY", "^status 401(?! TIMESTAMP_SKEWED)"], ["RATE_LIMITED", "^status 429"], ["CLOCK", "^tls date\z|^status 401"], ["PROXY", "^status 407"]
        , ["INTERCEPTED", "^tls\z"], ["LOGIN_PAGE", "^no verdict\z|^status (3\d\d|511)"], ["BUSY", "^status 5\d\d"]]

    ; A sentence, or "" where no server was reached at all.
    static Sentence(texts, failures, now, floor) {
        for index, each in LicenseCauses._Patterns
            for at, failure in failures
                if (RegExMatch(failure.reason, each[2]))
                    return this._Sentence(texts, this._Likelier(each[1], now, floor), failures, now, floor)
        return ""
    }

    ; A certificate is refused while the clock is a day or more below what it has shown before: for that, most likely.
    static _Likelier(cause, now, floor) {
        return cause == "INTERCEPTED" && floor != "" && floor - now > 86400 ? "CLOCK" : cause
    }

    static _Sentence(texts, cause, failures, now, floor) {
        if (cause == "RATE_LIMITED") {
            wait := this._Sooner(failures)
            return wait == "" ? texts["RATE_LIMITED later"] : this._Counted(texts["RATE_LIMITED"], Ceil(wait / 60))
        }
        if (cause != "CLOCK")
            return texts[cause]
        offset := this._Offset(failures, now, floor)
        if (offset == "")
            return texts["CLOCK unknown"]
        if (offset < 43200)
            return this._Counted(texts["CLOCK hours"], Round(offset / 3600))
        return this._Counted(texts["CLOCK"], Round(offset / 86400))
    }

    ; The seconds until the first of the servers may be asked again; "" where none says.
    static _Sooner(failures) {
        wait := ""
        for index, failure in failures
            if (failure.retryAfter != "" && (wait == "" || failure.retryAfter < wait))
                wait := failure.retryAfter
        return wait
    }

    ; By how many seconds this machine's clock is off, by the servers' times, else by what it has shown before; "" where
    ; that is not known.
    static _Offset(failures, now, floor) {
        offset := "", isTold := false
        for index, failure in failures {
            isTold := isTold || failure.serverTime != ""
            if (failure.serverTime != "" && (offset == "" || Abs(failure.serverTime - now) > offset))
                offset := Abs(failure.serverTime - now)
        }
        if (!isTold && floor != "" && floor > now)
            offset := floor - now
        return offset == "" || offset <= this.Leeway ? "" : offset
    }

    ; The text with its number, which is its last but one word; one of anything is no plural.
    static _Counted(text, number) {
        number := number < 1 ? 1 : number
        text := StrReplace(text, "{n}", number)
        return number = 1 ? RegExReplace(text, "s\.\z", ".") : text
    }
}


; == 3. The walk over the servers ======================================================================================

; The servers in order of priority, and when each last failed. The failures are in the registry, so that they also count
; for the next run of a script that is started for each check.
class LicenseServers {
    static AtTheEnd := 30       ; seconds for which a server that failed is asked last

    __New(urls, registry) {
        this.urls := [], this.registry := registry . "\failed"
        for index, url in urls {
            checked := this._Checked(url)
            if (LicenseText.IsOneOf(checked, this.urls))
                throw ValueError("License: servers: a URL comes twice")
            this.urls.Push(checked)
        }
        if (!this.urls.Length)
            throw ValueError("License: servers: at least one URL is needed")
    }

    ; The servers in the order to ask them: those without a recent failure as given, then the others, oldest failure
    ; first.
    Order(now) {
        order := [], failed := []
        for index, url in this.urls {
            at := LicenseRegistry.Read(this.registry, url)
            if (!RegExMatch(at, "^[0-9]{1,12}\z") || now < at || now - at >= LicenseServers.AtTheEnd) {
                order.Push(url)
                continue
            }
            place := 1
            while (place <= failed.Length && failed[place][1] <= at)
                place += 1
            failed.InsertAt(place, [at + 0, url])
        }
        for index, each in failed
            order.Push(each[2])
        return order
    }

    Failed(url, now) {
        LicenseRegistry.Write(this.registry, url, now)
    }

    Answered(url) {
        if (LicenseRegistry.Read(this.registry, url) != "")
            LicenseRegistry.Delete(this.registry, url)
    }

    ; The URL without a slash at the end.
    _Checked(url) {
        if (!RegExMatch(url, "i)^(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?/?\z", &parts)
            || parts[3] != "" && (parts[3] < 1 || parts[3] > 65535))
            throw ValueError("License: servers: a URL must be like https://host or https://host:port")
        isLocal := RegExMatch(parts[2], "i)^(localhost|127\.\d+\.\d+\.\d+|\[::1\])\z")
        if (parts[1] != "https" && !isLocal)
            throw ValueError("License: servers: " . parts[2] . " needs https, plain http is for this machine only")
        return RTrim(url, "/")
    }
}

; One call tried on server after server, pass after pass, until one decides. It never waits: Advance does what can be
; done now and returns whether the walk is over. Then `answer` is {server, claims, token}, or "" when all failed.
class LicenseWalk {
    static Fresh := 60          ; seconds: a denial from a node whose knowledge is older than this is provisional

    __New(client, call) {
        saved := client._Saved([]).claims
        this.ledger := saved ? saved.led : ""   ; that issued the saved token: a denial by another is provisional
        this.client := client, this.call := call, this.answer := "", this.attempts := []
        this.failures := []                 ; {reason, retryAfter, serverTime}: what the text for the user follows from
        this.deletions := client.deletions  ; so that a token deleted meanwhile does not come back with the answer
        this.pass := 0, this.waiting := [], this.provisional := [], this.exchange := "", this.server := ""
        this.nonce := "", this.body := "", this.deadline := 0, this.isResigned := false, this.isOver := false
        this.offset := 0                    ; the clock's, for the server that is asked now
    }

    Advance() {
        while (!this.isOver) {
            if (!this.exchange && !this._Next())
                this._Finish(this._Preferred())
            else if (!this.exchange.Poll())
                return false
            else
                this._Judge()
        }
        return true
    }

    ; Begins the exchange with the next server; false when there is none left to ask.
    _Next() {
        while (!this.waiting.Length) {
            this.pass += 1
            if (this.pass > this.client.budgets.Length)
                return false
            ; The third pass is for hosts that wake from sleep, and only where nothing else can decide.
            if (this.pass > 2 && (this.provisional.Length || this.client._Saved([]).code == "OFFLINE_VALID"))
                return false
            for index, server in this.client.servers.Order(this.client._Clock())
                if (!this._HasAnswered(server))
                    this.waiting.Push(server)
            if (!this.waiting.Length)
                return false
        }
        this.server := this.waiting.RemoveAt(1), this.isResigned := false
        this.offset := this.client.clockOffset
        this.deadline := LicenseTime.Ticks() + this.client.budgets[this.pass]
        this._Send()
        return true
    }

    ; Each try has a nonce of its own, so that no answer fits another try.
    _Send() {
        this.nonce := LicenseBytes.Base64Url(LicenseCrypto.Random(16))
        this.body := this.call.Body(this.nonce)
        headers := this.call.Headers(this.body, this.client._Clock() + this.offset)
        url := this.server . this.call.path
        this.exchange := LicenseExchange(this.client.http, url, headers, this.body, this.deadline)
    }

    _Judge() {
        exchange := this.exchange, this.exchange := ""
        if (exchange.failure != "")
            return this._GiveUp(exchange.failure)
        dated := LicenseTime.OfHttp(exchange.date)
        members := LicenseJson.Members(exchange.answer)
        if (exchange.status != 200) {
            code := LicenseJson.TextOf(members, "code"), ts := LicenseJson.NumberOf(members, "ts")
            if (exchange.status = 401 && code == "TIMESTAMP_SKEWED" && !this.isResigned && this._Resigned(members))
                return
            return this._GiveUp("status " . exchange.status . (RegExMatch(code, "^[A-Z_]{1,40}\z") ? " " . code : "")
                , this._RetryAfter(exchange.retryAfter, dated), code == "TIMESTAMP_SKEWED" && ts != "" ? ts : dated)
        }
        verdict := LicenseJson.TextOf(members, "verdict")
        if (verdict == "")
            return this._GiveUp("no verdict")
        bound := this.client._Bound()
        bound.act := this.call.act, bound.nonce := this.nonce, bound.fingerprint := this.call.fingerprint
        bound.requestId := this.call.requestId
        bound.bodyHash := LicenseBytes.Base64Url(LicenseCrypto.Sha256(this.body))
        try
            claims := LicenseTokens.Verdict(this.client.publicKeys, verdict, bound)
        catch as refused
            return this._GiveUp("verdict refused: " . LicenseRefused.Expect(refused))
        this.client.servers.Answered(this.server)
        ; Anybody may name a time: only one that came with a verdict is kept, or it would spoil the calls to the others.
        this.client.clockOffset := this.offset
        token := LicenseJson.TextOf(members, "token")
        answer := {server: this.server, claims: claims, token: LicenseTokens.IsTokenOf(claims, token) ? token : ""}
        if (!this._IsProvisional(claims))
            return this._Finish(answer)
        this.provisional.Push(answer)
        this._Note("provisional " . claims.code)
    }

    ; Sends the call once more to the same server and within the same budget, where only its timestamp was wrong.
    _Resigned(members) {
        ts := LicenseJson.NumberOf(members, "ts")
        if (ts == "" || ts < 0 || ts > 1 << 40)
            return false
        this.offset := ts - this.client._Clock()
        this.isResigned := true
        this._Send()
        return true
    }

    ; The seconds in a Retry-After, which may also be a date; "" for what is none or beyond a week.
    _RetryAfter(text, dated) {
        seconds := RegExMatch(text, "^[0-9]{1,6}\z") ? text + 0 : ""
        due := seconds == "" ? LicenseTime.OfHttp(text) : ""
        if (due != "")
            seconds := due - (dated == "" ? this.client._Clock() : dated)
        return seconds == "" || seconds > 604800 ? "" : seconds
    }

    _GiveUp(reason, retryAfter := "", serverTime := "") {
        this.failures.Push({reason: reason, retryAfter: retryAfter, serverTime: serverTime})
        this.client.servers.Failed(this.server, this.client._Clock())
        this._Note(reason)
    }

    _Note(reason) {
        this.attempts.Push([this.server, reason])
        this.client.logs.Failover(this.client._Clock(), this.server, reason)
    }

    _HasAnswered(server) {
        for index, answer in this.provisional
            if (LicenseText.Same(answer.server, server))
                return true
        return false
    }

    ; Whether the verdict is a denial by stale knowledge, or by another ledger than that of the saved token.
    _IsProvisional(claims) {
        isOfAnother := this.ledger != "" && !LicenseText.Same(claims.led, this.ledger)
        return !claims.valid && (isOfAnother || claims.iat - claims.as_of > LicenseWalk.Fresh)
    }

    ; The provisional denial that counts: by the saved token's ledger before any other, then the freshest; "" for none.
    _Preferred() {
        preferred := ""
        for index, answer in this.provisional
            if (!preferred || this._IsPreferred(answer.claims, preferred.claims))
                preferred := answer
        return preferred
    }

    _IsPreferred(one, other) {
        isOneOurs := LicenseText.Same(one.led, this.ledger), isOtherOurs := LicenseText.Same(other.led, this.ledger)
        return isOneOurs = isOtherOurs ? one.as_of > other.as_of : isOneOurs
    }

    _Finish(answer) {
        this.answer := answer
        this.isOver := true
    }
}


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
            throw OSError(A_LastError, -1, "License: WinHTTP")
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


; WinHTTP, synchronous: the build without machine code, for vendors whose customers' antivirus objects to that of
; License.ahk. What it cannot do: windows, hotkeys and timers of the script wait while a server is asked, and the
; deadline is looked at between WinHTTP's calls, each of which is given what is left of it. So a server that draws out
; its TLS handshake byte by byte may take longer than its budget; name, connection, headers and body may not.
;
; One POST and its answer. It is over when it is made.
class LicenseExchange extends LicenseRequest {
    static SessionFlags := 0

    static Prepare(session) {
    }

    ; Serves windows, hotkeys and timers between two servers.
    static Wait(milliseconds) {
        Sleep(-1)
    }

    __New(http, url, headers, body, deadline) {
        this.received := Buffer(LicenseRequest.MaxAnswer)
        this._Begin(http, url, headers, body, deadline)
        if (!this.isOver && this._Asks())
            this._ReadAll()
    }

    Poll() {
        return true
    }

    ; Sends the request, once more for a proxy that asks who this is. Whether headers have come.
    _Asks() {
        Loop {
            isSent := DllCall("winhttp\WinHttpSendRequest", "Ptr", this.request, "Str", this.headers, "UInt", -1
                , "Ptr", this.body.Ptr, "UInt", this.body.Size, "UInt", this.body.Size, "Ptr", 0)
            if (!isSent || !DllCall("winhttp\WinHttpReceiveResponse", "Ptr", this.request, "Ptr", 0)) {
                this._OverBy(A_LastError)
                return false
            }
            this._ReadHeaders()
            if (!this._MayAuthenticate())
                return true
        }
    }

    ; Reads only the bytes that are there already, so that the deadline is looked at between them.
    _ReadAll() {
        while (!this.isOver) {
            available := 0, count := 0
            if (LicenseTime.Ticks() >= this.deadline)
                return this._Over("timeout")
            LicenseHttp.SetOption(this.request, 6, this._Left())
            if (!DllCall("winhttp\WinHttpQueryDataAvailable", "Ptr", this.request, "UInt*", &available))
                return this._OverBy(A_LastError)
            if (!available)
                return this._AtTheEnd()
            if (this.size + available > LicenseRequest.MaxAnswer)
                return this._Over("body too large")
            if (!DllCall("winhttp\WinHttpReadData", "Ptr", this.request, "Ptr", this.received.Ptr + this.size
                , "UInt", available, "UInt*", &count))
                return this._OverBy(A_LastError)
            if (!count)
                return this._AtTheEnd()
            this.size += count
        }
    }

    _OverBy(error) {
        this._Over(LicenseTime.Ticks() < this.deadline ? this._Reason(error) : "timeout")
    }

    _Over(failure) {
        this.failure := failure
        this.isOver := true
        if (failure == "") {
            this.answer := Buffer(this.size)
            DllCall("RtlMoveMemory", "Ptr", this.answer.Ptr, "Ptr", this.received.Ptr, "Ptr", this.size)
        }
        this._CloseHandles()
    }
}


; == 5. Tokens =========================================================================================================

; A token was refused: its Message is one of the reasons of tests/vectors/README.md.
class LicenseRefused extends Error {
    static Because(reason) {
        return LicenseRefused(reason)
    }

    ; The reason of a refusal that was caught. Any other error is thrown again.
    static Expect(thrown) {
        isRefusal := thrown is LicenseRefused
        if (!isRefusal)
            throw thrown
        return thrown.Message
    }
}

; The strict verifier, step by step as tests/vectors/README.md describes it. The first step that fails gives the reason.
class LicenseTokens {
    static Issuer := "protecao"
    static Leeway := 300        ; seconds by which a customer's clock may be behind before it counts
    static _MaxCharacters := 65536
    static _Verdict := "iss=text iat=whole exp=whole jti=text act=text nonce=text rid=text? rh=text sub=text? "
        . "kh=text fp=text? aud=text? th=text? led=text code=text valid=flag lic_exp=whole? ent=texts uses=whole? "
        . "max_uses=whole? node=text epoch=whole as_of=whole"
    static _Lease := "iss=text iat=whole nbf=whole exp=whole jti=text sub=text kh=text fp=text aud=text ent=texts "
        . "lic_exp=whole? grace_until=whole? led=text epoch=whole"

    ; The claims of a verdict that answers exactly this call. `bound`: act, nonce, requestId and fingerprint ("" where
    ; none was sent), bodyHash, keyHash, product. The nonce proves that it is fresh: its times are compared with no
    ; clock. Throws LicenseRefused.
    static Verdict(keys, token, bound) {
        claims := this._Claims(keys, token, "verdict+jwt", this._Verdict)
        this._Require("times", claims.iat.value < claims.exp.value)
        this._Require("iss", LicenseText.Same(claims.iss.value, this.Issuer))
        this._Require("aud", this._IsText(claims.aud, bound.product) || this._IsOfNoProduct(claims, bound.act))
        this._Require("act", LicenseText.Same(claims.act.value, bound.act))
        this._Require("nonce", LicenseText.Same(claims.nonce.value, bound.nonce))
        this._Require("rid", this._IsSent(claims.rid, bound.requestId))
        this._Require("rh", LicenseText.Same(claims.rh.value, bound.bodyHash))
        this._Require("kh", LicenseText.Same(claims.kh.value, bound.keyHash))
        this._Require("fp", this._IsSent(claims.fp, bound.fingerprint))
        return this._Plain(claims)
    }

    ; Whether `token` is the one whose hash is in the verdict, and not one that a relay put beside it.
    static IsTokenOf(claims, token) {
        isAscii := !RegExMatch(token, "[^\x01-\x7F]")
        return isAscii && LicenseText.Same(claims.th
            , LicenseBytes.Base64Url(LicenseCrypto.Sha256(LicenseBytes.Utf8(token))))
    }

    ; The claims of an offline token for this key, machine and product. CheckClock judges its times.
    static Lease(keys, token, bound) {
        claims := this._Claims(keys, token, "lease+jwt", this._Lease)
        this._Require("times", claims.iat.value < claims.exp.value && claims.nbf.value < claims.exp.value)
        this._Require("iss", LicenseText.Same(claims.iss.value, this.Issuer))
        this._Require("aud", LicenseText.Same(claims.aud.value, bound.product))
        this._Require("kh", LicenseText.Same(claims.kh.value, bound.keyHash))
        this._Require("fp", LicenseText.Same(claims.fp.value, bound.fingerprint))
        return this._Plain(claims)
    }

    ; Throws LicenseRefused where the token does not hold at `now`. `floor`: the highest time seen so far, "" for none.
    ; The leeway is for clocks that are behind: the end is `exp` to the second.
    static CheckClock(lease, now, floor) {
        this._Require("clock_tampered", floor == "" || floor <= now + this.Leeway)
        this._Require("not_yet_valid", lease.nbf <= now + this.Leeway)
        this._Require("expired", now < lease.exp)
    }

    ; The keys in a text: JWKs one after another, or a key set. [{kid, handle}]. Throws ValueError.
    static PinnedKeys(text) {
        keys := []
        at := 1
        while (at := RegExMatch(text, "s)\{[^{}]*\}", &found, at)) {
            keys.Push(this._PinnedKey(found[0]))
            at += StrLen(found[0])
        }
        if (!keys.Length)
            throw ValueError("License: publicKeys: no JWK was found in the text")
        return keys
    }

    static _PinnedKey(text) {
        try {
            jwk := LicenseJson.Members(LicenseBytes.Utf8(text))
            x := LicenseBytes.FromBase64Url(LicenseJson.TextOf(jwk, "x"))
            y := LicenseBytes.FromBase64Url(LicenseJson.TextOf(jwk, "y"))
            kid := LicenseJson.TextOf(jwk, "kid")
            isOurs := LicenseJson.TextOf(jwk, "kty") == "EC" && LicenseJson.TextOf(jwk, "crv") == "P-256"
            if (isOurs && kid != "" && x.Size = 32 && y.Size = 32)
                return {kid: kid, handle: LicenseCrypto.PublicKey(x, y)}
        } catch as thrown {
        }
        throw ValueError("License: publicKeys: this is no public key for ES256 with a kid: " . SubStr(text, 1, 60))
    }

    static _Claims(keys, token, typ, types) {
        parts := StrSplit(token, ".")
        this._Require("malformed", StrLen(token) <= this._MaxCharacters && parts.Length <= 3)
        this._Require("truncated", parts.Length = 3)
        header := this._Decoded(parts[1])
        payload := this._Decoded(parts[2])
        signature := this._Decoded(parts[3])
        handle := this._Key(keys, this._Object(header, "header"), typ)
        this._Require("signature_length", signature.Size = 64)
        hash := LicenseCrypto.Sha256(LicenseBytes.Utf8(parts[1] . "." . parts[2]))
        this._Require("signature", LicenseCrypto.Verifies(handle, hash, signature))
        return this._Typed(this._Object(payload, "claims"), types)
    }

    ; The pinned key that the header names. Other members are ignored, above all a key in the header itself.
    static _Key(keys, header, typ) {
        this._Require("alg", LicenseText.Same(LicenseJson.TextOf(header, "alg"), "ES256"))
        this._Require("crit", !LicenseJson.Find(header, "crit"))
        this._Require("typ", LicenseText.Same(LicenseJson.TextOf(header, "typ"), typ))
        kid := LicenseJson.TextOf(header, "kid")
        for index, key in keys
            if (LicenseText.Same(key.kid, kid))
                return key.handle
        this._Require("kid", false)
    }

    static _Decoded(part) {
        bytes := LicenseBytes.FromBase64Url(part)
        this._Require("base64", IsObject(bytes))
        return bytes
    }

    ; The JSON object in some bytes. `otherwise`: the reason for the refusal when there is none.
    static _Object(bytes, otherwise) {
        try
            node := LicenseJson.Parse(LicenseBytes.FromUtf8(bytes))
        catch as refused
            throw LicenseRefused.Expect(refused) == "duplicate_member" ? refused : LicenseRefused.Because(otherwise)
        this._Require(otherwise, node.kind == "object")
        return node
    }

    ; The claims by name. Each has to be of its type, and present unless its type ends in "?". None may be null, which
    ; RFC 7519 does not provide for.
    static _Typed(object, types) {
        claims := {}, wanted := []
        for index, each in StrSplit(types, " ")
            wanted.Push(StrSplit(each, "="))
        for index, each in wanted {
            node := LicenseJson.Find(object, each[1])
            node := IsObject(node) ? node : {kind: "absent", value: ""}
            this._Require("claims", node.kind != "null" && this._IsPresent(node, each[2]))
            claims.%each[1]% := node
        }
        for index, each in wanted
            if (SubStr(each[2], 1, 5) == "whole")
                this._Require("number", this._IsOf(claims.%each[1]%, each[2]))
        for index, each in wanted
            this._Require("claims", this._IsOf(claims.%each[1]%, each[2]))
        return claims
    }

    ; Whether a claim is present, or optional.
    static _IsPresent(node, type) {
        return node.kind != "absent" || InStr(type, "?")
    }

    static _IsOf(node, type) {
        if (node.kind == "absent")
            return this._IsPresent(node, type)
        type := RTrim(type, "?")
        if (type != "texts")
            return node.kind == type
        if (node.kind != "array")
            return false
        for index, each in node.values
            if (each.kind != "text")
                return false
        return true
    }

    ; The claims as plain values: one that was left out is "", a list an array.
    static _Plain(claims) {
        plain := {}
        for name, node in claims.OwnProps() {
            if (node.kind == "array") {
                list := []
                for index, each in node.values
                    list.Push(each.value)
                plain.%name% := list
            } else
                plain.%name% := node.value
        }
        return plain
    }

    ; Whether the verdict may name no product: the key is unknown, and the call carried no product.
    static _IsOfNoProduct(claims, act) {
        return claims.aud.kind == "absent" && claims.sub.kind == "absent" && claims.code.value == "NOT_FOUND"
            && act != "validate" && act != "activate"
    }

    ; Whether a claim is the text that was sent; where none was sent, whether the claim is absent.
    static _IsSent(node, text) {
        return text == "" ? node.kind == "absent" : this._IsText(node, text)
    }

    static _IsText(node, text) {
        return node.kind == "text" && LicenseText.Same(node.value, text)
    }

    static _Require(reason, holds) {
        if (!holds)
            throw LicenseRefused.Because(reason)
    }
}


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


; == 7. Cryptography ===================================================================================================

; Windows CNG (bcrypt.dll). Bytes are objects with Ptr and Size.
class LicenseCrypto {
    static _Providers := Map()

    static Sha256(bytes) {
        return this._Hashed(this._Provider("SHA256", 0), "", bytes)
    }

    ; HMAC-SHA256.
    static Hmac(key, bytes) {
        return this._Hashed(this._Provider("SHA256", 8), key, bytes)
    }

    static Random(size) {
        LicenseLibraries.Load()
        bytes := Buffer(size)
        this._Check(DllCall("bcrypt\BCryptGenRandom", "Ptr", 0, "Ptr", bytes.Ptr, "UInt", size, "UInt", 2, "UInt"))
        return bytes
    }

    ; A handle of the point (x, y) of P-256, 32 bytes each.
    static PublicKey(x, y) {
        head := Buffer(8)
        ; BCRYPT_ECDSA_PUBLIC_P256_MAGIC: "ECS1"
        NumPut("UInt", 0x31534345, head.Ptr, 0)
        NumPut("UInt", 32, head.Ptr, 4)
        blob := LicenseBytes.Joined(LicenseBytes.Joined(head, x), y)
        handle := 0
        this._Check(DllCall("bcrypt\BCryptImportKeyPair", "Ptr", this._Provider("ECDSA_P256", 0), "Ptr", 0
            , "Str", "ECCPUBLICBLOB", "Ptr*", &handle, "Ptr", blob.Ptr, "UInt", blob.Size, "UInt", 0, "UInt"))
        return handle
    }

    ; Whether `signature`, r and s of 32 bytes each, is valid for the hash.
    static Verifies(handle, hash, signature) {
        return !DllCall("bcrypt\BCryptVerifySignature", "Ptr", handle, "Ptr", 0, "Ptr", hash.Ptr, "UInt", hash.Size
            , "Ptr", signature.Ptr, "UInt", signature.Size, "UInt", 0, "UInt")
    }

    static _Hashed(provider, key, bytes) {
        handle := 0, hash := Buffer(32)
        this._Check(DllCall("bcrypt\BCryptCreateHash", "Ptr", provider, "Ptr*", &handle, "Ptr", 0, "UInt", 0
            , "Ptr", key ? key.Ptr : 0, "UInt", key ? key.Size : 0, "UInt", 0, "UInt"))
        status := DllCall("bcrypt\BCryptHashData", "Ptr", handle, "Ptr", bytes.Ptr, "UInt", bytes.Size, "UInt", 0
            , "UInt")
        if (!status)
            status := DllCall("bcrypt\BCryptFinishHash", "Ptr", handle, "Ptr", hash.Ptr, "UInt", 32, "UInt", 0, "UInt")
        DllCall("bcrypt\BCryptDestroyHash", "Ptr", handle)
        this._Check(status)
        return hash
    }

    static _Provider(algorithm, flags) {
        LicenseLibraries.Load()
        name := algorithm . " " . flags
        if (!LicenseCrypto._Providers.Has(name)) {
            handle := 0
            this._Check(DllCall("bcrypt\BCryptOpenAlgorithmProvider", "Ptr*", &handle, "Str", algorithm, "Ptr", 0
                , "UInt", flags, "UInt"))
            LicenseCrypto._Providers[name] := handle
        }
        return LicenseCrypto._Providers[name]
    }

    static _Check(status) {
        if (status) {
            throw OSError(status, -2, "License: CNG")
        }
    }
}

; The libraries of Windows that are called by name here, loaded from Windows' own folder before the first call: a
; planted library of the same name beside the program is never looked for. They stay loaded, so that their handles stay
; valid.
class LicenseLibraries {
    static _IsLoaded := false

    static Load() {
        if (!LicenseLibraries._IsLoaded)
            LicenseLibraries._IsLoaded := this._LoadAll()
    }

    static _LoadAll() {
        folder := Buffer(520, 0)
        DllCall("GetSystemDirectory", "Ptr", folder.Ptr, "UInt", 260)
        for index, name in ["bcrypt", "crypt32", "winhttp"] {
            path := StrGet(folder.Ptr, "UTF-16") . "\" . name . ".dll"
            ; With 0x800 their own dependencies come from there too; 8 is for a Windows 7 without that flag.
            if (!DllCall("LoadLibraryEx", "Str", path, "Ptr", 0, "UInt", 0x800, "Ptr")
                && !DllCall("LoadLibraryEx", "Str", path, "Ptr", 0, "UInt", 8, "Ptr")) {
                throw OSError(A_LastError, -1, "License: " . name)
            }
        }
        return true
    }
}

class LicenseBytes {
    static Utf8(text) {
        size := StrPut(text, "UTF-8")
        bytes := Buffer(size)
        StrPut(text, bytes.Ptr, size, "UTF-8")
        bytes.Size := size - 1
        return bytes
    }

    ; Throws LicenseRefused for what is not UTF-8, and for a NUL, which no JSON may hold.
    static FromUtf8(bytes) {
        if (!bytes.Size)
            return ""
        length := DllCall("MultiByteToWideChar", "UInt", 65001, "UInt", 8, "Ptr", bytes.Ptr, "Int", bytes.Size
            , "Ptr", 0, "Int", 0)
        wide := Buffer(2 * length + 2, 0)
        DllCall("MultiByteToWideChar", "UInt", 65001, "UInt", 8, "Ptr", bytes.Ptr, "Int", bytes.Size, "Ptr", wide.Ptr
            , "Int", length)
        text := StrGet(wide.Ptr, "UTF-16")
        if (!length || StrLen(text) != length)
            throw LicenseRefused.Because("json")
        return text
    }

    static Joined(one, two) {
        both := Buffer(one.Size + two.Size)
        DllCall("RtlMoveMemory", "Ptr", both.Ptr, "Ptr", one.Ptr, "Ptr", one.Size)
        DllCall("RtlMoveMemory", "Ptr", both.Ptr + one.Size, "Ptr", two.Ptr, "Ptr", two.Size)
        return both
    }

    static Base64(bytes) {
        LicenseLibraries.Load()
        size := 0
        DllCall("crypt32\CryptBinaryToString", "Ptr", bytes.Ptr, "UInt", bytes.Size, "UInt", 0x40000001, "Ptr", 0
            , "UInt*", &size)
        text := Buffer(2 * size, 0)
        DllCall("crypt32\CryptBinaryToString", "Ptr", bytes.Ptr, "UInt", bytes.Size, "UInt", 0x40000001
            , "Ptr", text.Ptr, "UInt*", &size)
        return StrGet(text.Ptr, "UTF-16")
    }

    static Base64Url(bytes) {
        return RTrim(StrReplace(StrReplace(this.Base64(bytes), "+", "-"), "/", "_"), "=")
    }

    ; Strict: only the alphabet, no padding, no impossible length, no unused bits that are not zero; else "".
    static FromBase64Url(text) {
        if (!RegExMatch(text, "^[A-Za-z0-9_-]*+\z") || Mod(StrLen(text), 4) = 1)
            return ""
        last := SubStr(text, StrLen(text)), unused := Mod(StrLen(text), 4)
        if (unused && !InStr(unused = 2 ? "AQgw" : "AEIMQUYcgkosw048", last, true))
            return ""
        bytes := Buffer(StrLen(text) * 3 // 4)
        if (text == "")
            return bytes
        return this.FromBase64(StrReplace(StrReplace(text, "-", "+"), "_", "/"), bytes)
    }

    ; The bytes of a base64 text, written to `bytes`, which has to be large enough; "" where the text is not base64.
    static FromBase64(text, bytes) {
        LicenseLibraries.Load()
        size := bytes.Size
        padded := text . SubStr("===", 1, Mod(4 - Mod(StrLen(text), 4), 4))
        if (!DllCall("crypt32\CryptStringToBinary", "Str", padded, "UInt", 0, "UInt", 1, "Ptr", bytes.Ptr
            , "UInt*", &size, "Ptr", 0, "Ptr", 0))
            return ""
        bytes.Size := size
        return bytes
    }
}


; == 8. What is kept ===================================================================================================

; The files: the offline token, this machine's fingerprint, and the floors (the highest times seen, `signed` by a server
; and on this machine's own `clock`), which are in the registry as well. All are encrypted by DPAPI for this Windows
; user. clients/ahk/README.md describes the formats. What is read is trusted only as far as it can be verified.
class LicenseStore {
    __New(folder, registry, product, keyHash) {
        name := RegExReplace(product, "[^A-Za-z0-9._-]", "_")
        this.folder := folder, this.product := product, this.keyHash := keyHash
        this.tokenFile := folder . "\" . name . "-" . SubStr(keyHash, 1, 16) . ".token"
        this.floorFile := folder . "\" . name . ".floor"
        this.machineFile := folder . "\" . name . ".machine"
        this.floorKey := registry . "\" . name
    }

    ; The saved token; "" for none; "unreadable" while another program holds its file. One whose file holds anything
    ; else is "damaged", which no verifier accepts.
    Token() {
        if (!FileExist(this.tokenFile))
            return ""
        sealed := LicenseFiles.Read(this.tokenFile)
        if (!IsObject(sealed))
            return "unreadable"
        token := LicenseJson.TextOf(this._Opened(sealed), "token")
        return token == "" ? "damaged" : token
    }

    SaveToken(token, fingerprint, server) {
        this._Write(this.tokenFile, '{"format":1,"product":' . LicenseJson.Quoted(this.product) . ',"kh":"'
            . this.keyHash . '","fp":"' . fingerprint . '","server":' . LicenseJson.Quoted(server)
            . ',"token":' . LicenseJson.Quoted(token) . "}")
    }

    DeleteToken() {
        LicenseFiles.Delete(this.tokenFile)
    }

    ; The time that a clock must not be far below: the higher of the two floors; "" where there is none.
    Floor() {
        floors := this._Floors()
        return this._Higher(floors.signed, floors.clock)
    }

    ; Sets the floors after a verdict, signed at `signed` while this machine's clock showed `clock`. Its nonce proves
    ; that it is fresh, so a floor well above `signed` came from a server whose clock was wrong.
    SettleFloors(signed, clock) {
        before := this._Floors().signed
        keeps := before != "" && signed < before && before <= signed + LicenseTokens.Leeway
        this._KeepFloors({signed: keeps ? before : signed, clock: clock})
    }

    ; Raises the floor of this machine's clock when the saved token is used, so that a clock set back later does not
    ; prolong it.
    RaiseLocalFloor(clock) {
        floors := this._Floors()
        this._KeepFloors({signed: floors.signed, clock: this._Higher(floors.clock, clock)})
    }

    ; The saved fingerprint and the parts of this machine that it was made of: {fingerprint, parts}, or "".
    Machine() {
        kept := this._Read(this.machineFile)
        parts := StrSplit(LicenseJson.TextOf(kept, "parts"), " ")
        return parts.Length != 3 ? "" : {fingerprint: LicenseJson.TextOf(kept, "fp"), parts: parts}
    }

    SaveMachine(fingerprint, parts) {
        list := parts[1] . " " . parts[2] . " " . parts[3]
        this._Write(this.machineFile, '{"format":1,"fp":"' . fingerprint . '","parts":"' . list . '"}')
    }

    ; Both floors, each the higher of file and registry; "" for none.
    _Floors() {
        one := this._FloorsInFile(), two := this._FloorsInRegistry()
        return {signed: this._Higher(one.signed, two.signed), clock: this._Higher(one.clock, two.clock)}
    }

    ; Writes the floors to file and registry, where these are missing, damaged or different.
    _KeepFloors(floors) {
        json := this._JsonOf(floors)
        if (!LicenseText.Same(this._JsonOf(this._FloorsInFile()), json))
            this._Write(this.floorFile, json)
        if (LicenseText.Same(this._JsonOf(this._FloorsInRegistry()), json))
            return
        sealed := this._Dpapi("CryptProtectData", LicenseBytes.Utf8(json))
        LicenseRegistry.Write(this.floorKey, "floor", LicenseBytes.Base64(sealed))
    }

    _JsonOf(floors) {
        return '{"format":1,"floor":' . (floors.signed == "" ? "null" : floors.signed) . ',"local":'
            . (floors.clock == "" ? "null" : floors.clock) . "}"
    }

    _FloorsInFile() {
        return this._FloorsIn(this._Read(this.floorFile))
    }

    _FloorsInRegistry() {
        text := LicenseRegistry.Read(this.floorKey, "floor")
        sealed := text == "" ? "" : LicenseBytes.FromBase64(text, Buffer(StrLen(text)))
        opened := this._Dpapi("CryptUnprotectData", sealed ? sealed : Buffer(0))
        return this._FloorsIn(LicenseJson.Members(opened))
    }

    _FloorsIn(members) {
        signed := LicenseJson.NumberOf(members, "floor"), clock := LicenseJson.NumberOf(members, "local")
        return {signed: signed != "" && signed >= 0 ? signed : "", clock: clock != "" && clock >= 0 ? clock : ""}
    }

    ; "" is lower than any number.
    _Higher(one, two) {
        return one == "" ? two : two == "" ? one : one > two ? one : two
    }

    ; The object in a file; an empty one where it cannot be read.
    _Read(path) {
        sealed := LicenseFiles.Read(path)
        return this._Opened(IsObject(sealed) ? sealed : Buffer(0))
    }

    _Opened(sealed) {
        return LicenseJson.Members(this._Dpapi("CryptUnprotectData", sealed))
    }

    ; Replaces a file atomically. A write that fails changes no verdict. Two copies of a script may write the same file,
    ; so each writes under a name of its own first.
    _Write(path, json) {
        sealed := this._Dpapi("CryptProtectData", LicenseBytes.Utf8(json))
        made := path . "." . DllCall("GetCurrentProcessId", "UInt") . ".new"
        try DirCreate(this.folder)
        if (!sealed.Size || !LicenseFiles.Write(made, sealed) || !LicenseFiles.Move(made, path))
            DllCall("DeleteFile", "Str", made)
    }

    ; Encrypts or decrypts bytes; none where DPAPI fails.
    _Dpapi(function, bytes) {
        LicenseLibraries.Load()
        given := Buffer(2 * A_PtrSize, 0), made := Buffer(2 * A_PtrSize, 0)
        NumPut("UInt", bytes.Size, given.Ptr, 0)
        NumPut("Ptr", bytes.Ptr, given.Ptr, A_PtrSize)
        if (!bytes.Size || !DllCall("crypt32\" . function, "Ptr", given.Ptr, "Ptr", 0, "Ptr", 0, "Ptr", 0, "Ptr", 0
            , "UInt", 1, "Ptr", made.Ptr))
            return Buffer(0)
        address := NumGet(made.Ptr, A_PtrSize, "Ptr")
        out := Buffer(NumGet(made.Ptr, 0, "UInt"))
        DllCall("RtlMoveMemory", "Ptr", out.Ptr, "Ptr", address, "Ptr", out.Size)
        DllCall("LocalFree", "Ptr", address)
        return out
    }
}

; File access that never blocks: only regular files are opened, never a pipe, a device, a directory or a link under the
; file's name. Any of these reads as empty and is not written to. A file that another program holds, as a virus scanner
; does for a moment, is tried again for a while.
class LicenseFiles {
    static _MaxSize := 1000000
    static _Denied := 0x410     ; attributes: a directory, a reparse point
    static _Patience := 150     ; milliseconds for which a file that is held is tried again

    ; The bytes of a file; none where there is none to read; "" where another program holds it.
    static Read(path) {
        end := LicenseTime.Ticks() + this._Patience
        Loop {
            handle := this._Open(path, 0x80000000, 3)       ; reads an existing file
            error := handle ? 0 : A_LastError
            if (error != 32 && error != 33)
                break
            if (!this._MayTryAgain(error, end))
                return ""
        }
        if (!handle)
            return Buffer(0)
        size := 0, count := 0
        DllCall("GetFileSizeEx", "Ptr", handle, "Int64*", &size)
        bytes := Buffer(size <= this._MaxSize ? size : 0)
        if (bytes.Size)
            DllCall("ReadFile", "Ptr", handle, "Ptr", bytes.Ptr, "UInt", bytes.Size, "UInt*", &count, "Ptr", 0)
        DllCall("CloseHandle", "Ptr", handle)
        return count = bytes.Size ? bytes : Buffer(0)
    }

    ; Writes a new file in place of an old one. Whether all of it was written.
    static Write(path, bytes) {
        DllCall("DeleteFile", "Str", path)
        return this._Put(this._Open(path, 0x40000000, 1), bytes)    ; creates the file
    }

    ; Appends to a file, or makes it. Whether all of it was written.
    static Append(path, bytes) {
        return this._Put(this._Open(path, 4, 4), bytes)
    }

    ; Renames a file, in place of one under the new name, but not of a directory. Whether that succeeded.
    static Move(path, to) {
        end := LicenseTime.Ticks() + this._Patience
        Loop {
            if (DllCall("MoveFileEx", "Str", path, "Str", to, "UInt", 1))
                return true
            if (!this._MayTryAgain(A_LastError, end))
                return false
        }
    }

    static Delete(path) {
        end := LicenseTime.Ticks() + this._Patience
        Loop
            if (DllCall("DeleteFile", "Str", path) || !this._MayTryAgain(A_LastError, end))
                return
    }

    ; Whether an error says that another program has the file now; then waits a moment, until `end` at most.
    static _MayTryAgain(error, end) {
        if (error != 5 && error != 32 && error != 33 || LicenseTime.Ticks() >= end)
            return false
        DllCall("Sleep", "UInt", 10)                        ; AutoHotkey's own would let a timer in between
        return true
    }

    ; A handle, or 0. Others may read, write and delete the file meanwhile. 0x300000: a link is opened itself and not
    ; its target, and the server of a pipe cannot act as this user.
    static _Open(path, access, how) {
        handle := DllCall("CreateFile", "Str", path, "UInt", access, "UInt", 7, "Ptr", 0, "UInt", how
            , "UInt", 0x300000, "Ptr", 0, "Ptr")
        if (handle = -1)
            return 0
        about := Buffer(52, 0)
        if (DllCall("GetFileType", "Ptr", handle, "UInt") = 1
            && DllCall("GetFileInformationByHandle", "Ptr", handle, "Ptr", about.Ptr)
            && !(NumGet(about.Ptr, 0, "UInt") & this._Denied))
            return handle
        DllCall("CloseHandle", "Ptr", handle)
        return 0
    }

    static _Put(handle, bytes) {
        if (!handle)
            return false
        count := 0
        DllCall("WriteFile", "Ptr", handle, "Ptr", bytes.Ptr, "UInt", bytes.Size, "UInt*", &count, "Ptr", 0)
        DllCall("CloseHandle", "Ptr", handle)
        return count = bytes.Size
    }
}

; Values of the registry as texts. `try`, because what fails here would otherwise throw in the caller's try block.
class LicenseRegistry {
    ; "" for a value that is not there.
    static Read(key, name) {
        return RegRead(key, name, "")
    }

    static Write(key, name, text) {
        try RegWrite(text, "REG_SZ", key, name)
    }

    static Delete(key, name) {
        try RegDelete(key, name)
    }
}


; == 9. This machine ===================================================================================================

; The fingerprint of this machine: the hash of three stable parts (the id of the Windows installation, the system
; volume, the board) as they were when it was made. It stays the same while the installation and one of the other two
; do: a new volume or a new board does not change it. Another installation of Windows changes it, and so do a new volume
; and a new board together, at once or one after the other. Network cards, users and this script's folder are no part of
; it.
class LicenseMachine {
    ; The saved fingerprint is used only where it is the hash of its parts and these match this machine; else a new one
    ; is made.
    static Fingerprint(product, store) {
        parts := this._Parts(product)
        kept := store.Machine()
        if (kept && LicenseText.Same(kept.fingerprint, this._Name(kept.parts)) && this._IsSame(kept.parts, parts))
            return kept.fingerprint
        fingerprint := this._Name(parts)
        store.SaveMachine(fingerprint, parts)
        return fingerprint
    }

    static _Name(parts) {
        return this._Hash(parts[1] . parts[2] . parts[3])
    }

    static _IsSame(kept, parts) {
        return LicenseText.Same(kept[1], parts[1])
            && (LicenseText.Same(kept[2], parts[2]) || LicenseText.Same(kept[3], parts[3]))
    }

    ; Hashed together with the product, so that two vendors cannot compare their customers.
    static _Parts(product) {
        before := A_RegView
        SetRegView(64)      ; the id is in the 64-bit view only
        guid := LicenseRegistry.Read("HKLM\SOFTWARE\Microsoft\Cryptography", "MachineGuid")
        board := "", volume := ""
        for index, name in ["SystemManufacturer", "SystemProductName", "BaseBoardManufacturer", "BaseBoardProduct"]
            board .= LicenseRegistry.Read("HKLM\HARDWARE\DESCRIPTION\System\BIOS", name) . "|"
        SetRegView(before)
        drive := EnvGet("SystemDrive")
        try volume := DriveGetSerial(drive . "\")
        if (guid == "")
            throw Error("License: this Windows has no MachineGuid")
        return [this._Hash(product . "|guid|" . Format("{:L}", guid)), this._Hash(product . "|volume|" . volume)
            , this._Hash(product . "|board|" . board)]
    }

    static _Hash(text) {
        return SubStr(LicenseBytes.Base64Url(LicenseCrypto.Sha256(LicenseBytes.Utf8(text))), 1, 32)
    }
}


; == 10. Logs ==========================================================================================================

; The three log files, in %TEMP% by default: one line an event, "UTC time <tab> server <tab> reason". Never a key.
class LicenseLogs {
    static Limit := 1000000     ; bytes: a longer file is renamed to .old, in place of the last one

    __New(folder) {
        this.folder := folder
    }

    ; A server decided.
    Used(now, server, reason) {
        this._Line("license_server_used", now, server, reason)
    }

    ; A server did not decide, and the next one is asked.
    Failover(now, server, reason) {
        this._Line("license_server_failover", now, server, reason)
    }

    ; No server decided, and the saved token permits the program to run.
    Offline(now, reason) {
        this._Line("license_offline_success", now, "offline", reason)
    }

    _Line(name, now, server, reason) {
        path := this.folder . "\" . name
        size := 0
        try size := FileGetSize(path . ".txt")
        if (size > LicenseLogs.Limit)
            LicenseFiles.Move(path . ".txt", path . ".old")
        line := LicenseTime.Iso(now) . "`t" . server . "`t" . reason . "`n"
        LicenseFiles.Append(path . ".txt", LicenseBytes.Utf8(line))
    }
}


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
        try
            return DateDiff(moment, "19700101000000", "Seconds")
        return ""
    }

    ; Milliseconds since Windows was started.
    static Ticks() {
        return DllCall("GetTickCount64", "Int64")
    }

    ; "2027-01-01T00:00:00Z" for Unix seconds; "" for a time that is not from the years 1970 to 9999.
    static Iso(at) {
        if (at == "" || at < 0 || at > 253402300799)
            return ""
        return FormatTime(DateAdd("19700101000000", at, "Seconds"), "yyyy-MM-ddTHH:mm:ssZ")
    }
}
