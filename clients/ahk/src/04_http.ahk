; == 4. HTTP ===========================================================================================================

; WinHTTP, asynchronous: only so can one deadline bound every phase that a server can delay (name, connection, TLS,
; headers, body), while no window of the script waits.
;
; WinHTTP reports progress by a callback on threads of its own, where script code must not run. So the callback is a few
; bytes of machine code that record the status and set an event. `state` is 32 bytes: the bits of the statuses so far at
; 0, the length of what was read at 4, an error at 8, how much can be read at 12, the event at 16, the address of
; SetEvent at 24. In C, for (handle, state, status, info, length):
;
;     if (!state) return
;     state->length = length
;     if (status == REQUEST_ERROR) state->error = ((WINHTTP_ASYNC_RESULT *) info)->dwError
;     if (status == DATA_AVAILABLE) state->available = *(DWORD *) info
;     SetEvent(state->event) after an atomic state->bits |= status
class LicenseHttp {
    static _Code64 := "4885d274348b4424288942044181f8000020007507418b41088942084181f8000004007506418b0189420c488b4a10"
        . "488b4218f0440902ffe0c3"
    static _Code32 := "8b54240885d274338b4c2414894a048b4c24108b44240c3d0000200075068b4904894a083d0000040075058b09894a"
        . "0cff72108b4a18f00902ffd1c21400"
    static _Callback := 0
    static Event := 0
    static SetEvent := 0
    static _Left := []          ; memory of finished exchanges that WinHTTP may still write to

    __New(proxy) {
        this._Prepare()
        named := proxy != "" && proxy != "direct"
        access := proxy == "direct" ? 1 : named ? 3 : 4     ; 4: by Windows' settings, from Windows 8.1 on
        this.session := this._Open(access, named ? proxy : "")
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
        DllCall("winhttp\WinHttpSetStatusCallback", "Ptr", this.session, "Ptr", LicenseHttp._Callback
            , "UInt", 0x6E0C00, "Ptr", 0, "Ptr")
    }

    __Delete() {
        if (this.HasOwnProp("session") && this.session)
            DllCall("winhttp\WinHttpCloseHandle", "Ptr", this.session)
    }

    ; Waits until an exchange makes progress, at most so many milliseconds. Windows, hotkeys and timers are served.
    static Wait(milliseconds) {
        event := LicenseHttp.Event
        DllCall("MsgWaitForMultipleObjectsEx", "UInt", 1, "Ptr*", &event, "UInt", milliseconds, "UInt", 0x4FF
            , "UInt", 0)
        Sleep(-1)
    }

    static SetOption(handle, option, value) {
        return DllCall("winhttp\WinHttpSetOption", "Ptr", handle, "UInt", option, "UInt*", &value, "UInt", 4)
    }

    ; Takes over the memory of a finished exchange, whose handles are closed, and frees it once WinHTTP has reported
    ; their closing. The memory is not AutoHotkey's own, which is freed when the script ends, perhaps in the middle of a
    ; check.
    static Leave(memory) {
        before := Critical("On")
        LicenseHttp._Left.Push(memory)
        index := LicenseHttp._Left.Length
        while (index >= 1) {
            if (NumGet(LicenseHttp._Left[index], 0, "UInt") & LicenseExchange.Closing)
                DllCall("GlobalFree", "Ptr", LicenseHttp._Left.RemoveAt(index))
            index -= 1
        }
        Critical(before)
    }

    _Open(access, proxy) {
        return DllCall("winhttp\WinHttpOpen", "Str", "license-client-ahk/" . LicenseClient.Version, "UInt", access
            , "Ptr", proxy == "" ? 0 : StrPtr(proxy), "Ptr", 0, "UInt", 0x10000000, "Ptr")
    }

    _Prepare() {
        if (LicenseHttp._Callback)
            return
        LicenseLibraries.Load()
        kernel := DllCall("GetModuleHandle", "Str", "kernel32", "Ptr")
        LicenseHttp.SetEvent := DllCall("GetProcAddress", "Ptr", kernel, "AStr", "SetEvent", "Ptr")
        LicenseHttp.Event := DllCall("CreateEvent", "Ptr", 0, "Int", 0, "Int", 0, "Ptr", 0, "Ptr")
        code := A_PtrSize = 8 ? LicenseHttp._Code64 : LicenseHttp._Code32
        size := StrLen(code) // 2
        memory := DllCall("VirtualAlloc", "Ptr", 0, "Ptr", size, "UInt", 0x3000, "UInt", 4, "Ptr")
        loop size
            NumPut("UChar", "0x" . SubStr(code, 2 * A_Index - 1, 2), memory, A_Index - 1)
        before := 0
        ; Executable, and no longer writable.
        DllCall("VirtualProtect", "Ptr", memory, "Ptr", size, "UInt", 0x20, "UInt*", &before)
        LicenseHttp._Callback := memory
    }
}

; One POST and its whole answer before `deadline` (LicenseTime.Ticks). Poll never waits. Once it returns true, there is
; `failure` (refused, timeout, name, tls, short body, body too large, broken), or `status` and `answer`, the bytes.
; `state` is the address of the 32 bytes for the callback above, then of the bytes received, then of the bytes to send.
class LicenseExchange {
    static MaxAnswer := 262144
    static Closing := 0x800
    static Sent := 0x400000
    static Headed := 0x20000
    static Available := 0x40000
    static Read := 0x80000
    static Broken := 0x200000

    __New(http, url, headers, body, deadline) {
        this.deadline := deadline, this.failure := "", this.status := 0, this.isOver := false, this.size := 0
        this.declared := "", this.connection := 0, this.request := 0, this.awaited := LicenseExchange.Sent
        this.answer := ""
        this.http := http
        this.state := DllCall("GlobalAlloc", "UInt", 0x40, "Ptr", 32 + LicenseExchange.MaxAnswer + body.Size, "Ptr")
        if (!this.state)
            return this._Over("broken")
        this.received := this.state + 32, sent := this.received + LicenseExchange.MaxAnswer
        NumPut("Ptr", LicenseHttp.Event, this.state, 16)
        NumPut("Ptr", LicenseHttp.SetEvent, this.state, 24)
        DllCall("RtlMoveMemory", "Ptr", sent, "Ptr", body.Ptr, "Ptr", body.Size)
        this._Open(url)
        if (this.isOver)
            return
        this._Await(LicenseExchange.Sent)
        if (!DllCall("winhttp\WinHttpSendRequest", "Ptr", this.request, "Str", headers, "UInt", -1, "Ptr", sent
            , "UInt", body.Size, "UInt", body.Size, "Ptr", this.state))
            this._Over(this._Reason(A_LastError))
    }

    Poll() {
        while (!this.isOver) {
            bits := NumGet(this.state, 0, "UInt")
            if (bits & LicenseExchange.Broken)
                this._Over(LicenseTime.Ticks() < this.deadline ? this._Reason(NumGet(this.state, 8, "UInt"))
                    : "timeout")
            else if (bits & this.awaited)
                this._GoOn()
            else if (LicenseTime.Ticks() < this.deadline)
                return false
            else
                this._Over("timeout")
        }
        return true
    }

    _Open(url) {
        RegExMatch(url, "i)^(https?)://(\[.+\]|[^:/]+)(?::(\d+))?(/.*)\z", &parts)
        isSecure := parts[1] = "https"
        port := parts[3] != "" ? parts[3] : isSecure ? 443 : 80
        this.connection := DllCall("winhttp\WinHttpConnect", "Ptr", this.http.session, "Str", Trim(parts[2], "[]")
            , "UShort", port, "UInt", 0, "Ptr")
        if (this.connection)
            this.request := DllCall("winhttp\WinHttpOpenRequest", "Ptr", this.connection, "Str", "POST"
                , "Str", parts[4], "Ptr", 0, "Ptr", 0, "Ptr", 0, "UInt", isSecure ? 0x800000 : 0, "Ptr")
        if (!this.request)
            return this._Over("broken")
        state := this.state
        DllCall("winhttp\WinHttpSetOption", "Ptr", this.request, "UInt", 45, "Ptr*", &state, "UInt", A_PtrSize)
        ; No cookies, no redirects, and no kept connection, which its server may be ending just now.
        LicenseHttp.SetOption(this.request, 63, 11)
        left := this.deadline - LicenseTime.Ticks()
        left := (left < 1 ? 1 : left) + 50      ; so that our deadline comes first and the failure is "timeout"
        DllCall("winhttp\WinHttpSetTimeouts", "Ptr", this.request, "Int", left, "Int", left, "Int", left, "Int", left)
        LicenseHttp.SetOption(this.request, 7, left)
    }

    ; The awaited status has come: takes the next step.
    _GoOn() {
        if (this.awaited = LicenseExchange.Sent) {
            this._Await(LicenseExchange.Headed)
            if (!DllCall("winhttp\WinHttpReceiveResponse", "Ptr", this.request, "Ptr", 0))
                this._Over(this._Reason(A_LastError))
            return
        }
        length := NumGet(this.state, this.awaited = LicenseExchange.Available ? 12 : 4, "UInt")
        if (this.awaited = LicenseExchange.Headed)
            this._ReadHeaders()
        else if (!length)
            return this._Over(this.declared != "" && this.declared != this.size ? "short body" : "")
        else if (this.awaited = LicenseExchange.Available)
            return this._ReadOn(length)
        else
            this.size += length
        this._AskForMore()
    }

    _AskForMore() {
        left := this.deadline - LicenseTime.Ticks()
        if (left <= 0)
            return this._Over("timeout")
        LicenseHttp.SetOption(this.request, 6, left)
        this._Await(LicenseExchange.Available)
        if (!DllCall("winhttp\WinHttpQueryDataAvailable", "Ptr", this.request, "Ptr", 0))
            this._Over(this._Reason(A_LastError))
    }

    ; Reads only the bytes that are there already: to ask for more would be to wait for a server that sends slowly.
    _ReadOn(available) {
        if (this.size + available > LicenseExchange.MaxAnswer)
            return this._Over("body too large")
        this._Await(LicenseExchange.Read)
        if (!DllCall("winhttp\WinHttpReadData", "Ptr", this.request, "Ptr", this.received + this.size
            , "UInt", available, "Ptr", 0))
            this._Over(this._Reason(A_LastError))
    }

    _ReadHeaders() {
        size := 4, status := 0
        DllCall("winhttp\WinHttpQueryHeaders", "Ptr", this.request, "UInt", 0x20000013, "Ptr", 0, "UInt*", &status
            , "UInt*", &size, "Ptr", 0)
        this.status := status
        size := 64, text := Buffer(size, 0)
        if (DllCall("winhttp\WinHttpQueryHeaders", "Ptr", this.request, "UInt", 5, "Ptr", 0, "Ptr", text.Ptr
            , "UInt*", &size, "Ptr", 0))
            this.declared := StrGet(text.Ptr, "UTF-16")
    }

    ; Sets the status to wait for. Called before an operation begins, because it may be over before it returns.
    _Await(bit) {
        this.awaited := bit
        NumPut("UInt", 0, this.state, 0)
    }

    _Over(failure) {
        this.failure := failure
        this.isOver := true
        if (failure == "") {
            this.answer := Buffer(this.size)
            DllCall("RtlMoveMemory", "Ptr", this.answer.Ptr, "Ptr", this.received, "Ptr", this.size)
        }
        for index, handle in [this.request, this.connection]
            if (handle)
                DllCall("winhttp\WinHttpCloseHandle", "Ptr", handle)
        if (this.request)
            LicenseHttp.Leave(this.state)
        else if (this.state)
            DllCall("GlobalFree", "Ptr", this.state)
    }

    _Reason(error) {
        static reasons := Map(12029, "refused", 12007, "name", 12002, "timeout", 10060, "timeout", 12157, "tls"
            , 12175, "tls", 12185, "tls", 12037, "tls", 12038, "tls", 12044, "tls", 12045, "tls", 12055, "tls"
            , 12056, "tls", 12057, "tls", 12169, "tls", 12170, "tls", 12179, "tls")
        return reasons.Has(error) ? reasons[error] : "broken"
    }
}
