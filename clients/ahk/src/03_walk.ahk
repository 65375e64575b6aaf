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
