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
