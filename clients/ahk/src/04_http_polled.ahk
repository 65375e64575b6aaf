; WinHTTP, asynchronous: only so can one deadline bound every phase that a server can delay (name, connection, TLS,
; headers, body), while no window of the script waits.
;
; WinHTTP reports progress by a callback on threads of its own, where script code must not run. So the callback is a few
; bytes of machine code that record the status and set an event. `state` is 32 bytes: the bits of the statuses so far at
; 0, the length of what was read at 4, an error at 8, at 12 how much can be read or why a certificate is refused, the
; event at 16, the address of SetEvent at 24. In C, for (handle, state, status, info, length):
;
;     if (!state) return
;     state->length = length
;     if (status == REQUEST_ERROR) state->error = ((WINHTTP_ASYNC_RESULT *) info)->dwError
;     if (status & (DATA_AVAILABLE | SECURE_FAILURE)) state->available = *(DWORD *) info
;     SetEvent(state->event) after an atomic state->bits |= status
;
; License-sync.ahk is the same client without it.
class LicenseCallback {
    static _Code64 := "4885d274348b4424288942044181f8000020007507418b410889420841f7c0000005007406418b0189420c488b4a10"
        . "488b4218f0440902ffe0c3"
    static _Code32 := "8b54240885d274338b4c2414894a048b4c24108b44240c3d0000200075068b4904894a08a90000050074058b09894a"
        . "0cff72108b4a18f00902ffd1c21400"
    static _Address := 0
    static Event := 0
    static SetEvent := 0
    static _Left := []          ; memory of finished exchanges that WinHTTP may still write to

    static Attach(session) {
        if (!this._Address)
            this._Make()
        DllCall("winhttp\WinHttpSetStatusCallback", "Ptr", session, "Ptr", this._Address, "UInt", 0x6F0C00, "Ptr", 0
            , "Ptr")
    }

    ; Takes over the memory of a finished exchange, whose handles are closed, and frees it once WinHTTP has reported
    ; their closing. The memory is not AutoHotkey's own, which is freed when the script ends, perhaps in the middle of a
    ; check.
    static Leave(memory) {
        before := Critical("On")
        LicenseCallback._Left.Push(memory)
        index := LicenseCallback._Left.Length
        while (index >= 1) {
            if (NumGet(LicenseCallback._Left[index], 0, "UInt") & LicenseExchange.Closing)
                DllCall("GlobalFree", "Ptr", LicenseCallback._Left.RemoveAt(index))
            index -= 1
        }
        Critical(before)
    }

    static _Make() {
        kernel := DllCall("GetModuleHandle", "Str", "kernel32", "Ptr")
        LicenseCallback.SetEvent := DllCall("GetProcAddress", "Ptr", kernel, "AStr", "SetEvent", "Ptr")
        LicenseCallback.Event := DllCall("CreateEvent", "Ptr", 0, "Int", 0, "Int", 0, "Ptr", 0, "Ptr")
        code := A_PtrSize = 8 ? LicenseCallback._Code64 : LicenseCallback._Code32
        size := StrLen(code) // 2
        memory := DllCall("VirtualAlloc", "Ptr", 0, "Ptr", size, "UInt", 0x3000, "UInt", 4, "Ptr")
        loop size
            NumPut("UChar", "0x" . SubStr(code, 2 * A_Index - 1, 2), memory, A_Index - 1)
        before := 0
        ; Executable, and no longer writable.
        DllCall("VirtualProtect", "Ptr", memory, "Ptr", size, "UInt", 0x20, "UInt*", &before)
        LicenseCallback._Address := memory
    }
}

; One POST and its whole answer before `deadline` (LicenseTime.Ticks). Poll never waits; once it returns true the
; exchange is over. `state` is the address of the 32 bytes for the callback above, then of the bytes received, then of the bytes
; to send.
class LicenseExchange extends LicenseRequest {
    static SessionFlags := 0x10000000
    static Closing := 0x800
    static Sent := 0x400000
    static Headed := 0x20000
    static Available := 0x40000
    static Read := 0x80000
    static Broken := 0x200000

    static Prepare(session) {
        LicenseCallback.Attach(session)
    }

    ; Waits until an exchange makes progress, at most so many milliseconds. Windows, hotkeys and timers are served.
    static Wait(milliseconds) {
        event := LicenseCallback.Event
        DllCall("MsgWaitForMultipleObjectsEx", "UInt", 1, "Ptr*", &event, "UInt", milliseconds, "UInt", 0x4FF
            , "UInt", 0)
        Sleep(-1)
    }

    __New(http, url, headers, body, deadline) {
        this.awaited := LicenseExchange.Sent
        this.state := DllCall("GlobalAlloc", "UInt", 0x40, "Ptr", 32 + LicenseRequest.MaxAnswer + body.Size, "Ptr")
        if (this.state) {
            this.received := this.state + 32, this.sent := this.received + LicenseRequest.MaxAnswer
            NumPut("Ptr", LicenseCallback.Event, this.state, 16)
            NumPut("Ptr", LicenseCallback.SetEvent, this.state, 24)
            DllCall("RtlMoveMemory", "Ptr", this.sent, "Ptr", body.Ptr, "Ptr", body.Size)
        }
        this._Begin(http, url, headers, body, deadline)
        if (this.isOver)
            return
        state := this.state
        DllCall("winhttp\WinHttpSetOption", "Ptr", this.request, "UInt", 45, "Ptr*", &state, "UInt", A_PtrSize)
        this._Send()
    }

    Poll() {
        while (!this.isOver) {
            bits := NumGet(this.state, 0, "UInt")
            if (bits & LicenseExchange.Broken)
                this._Over(LicenseTime.Ticks() < this.deadline ? this._BrokenBy() : "timeout")
            else if (bits & this.awaited)
                this._GoOn()
            else if (LicenseTime.Ticks() < this.deadline)
                return false
            else
                this._Over("timeout")
        }
        return true
    }

    _Send() {
        this._Await(LicenseExchange.Sent)
        if (!DllCall("winhttp\WinHttpSendRequest", "Ptr", this.request, "Str", this.headers, "UInt", -1
            , "Ptr", this.sent, "UInt", this.body.Size, "UInt", this.body.Size, "Ptr", this.state))
            this._Over(this._Reason(A_LastError))
    }

    ; Of a certificate that is refused, 0x20 says that it is not valid now.
    _BrokenBy() {
        reason := this._Reason(NumGet(this.state, 8, "UInt"))
        isByDate := reason == "tls" && NumGet(this.state, 12, "UInt") = 0x20
        return isByDate ? "tls date" : reason
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
        if (this.awaited = LicenseExchange.Headed) {
            this._ReadHeaders()
            if (this._MayAuthenticate())
                return this._Send()
        } else if (!length)
            return this._AtTheEnd()
        else if (this.awaited = LicenseExchange.Available)
            return this._ReadOn(length)
        else
            this.size += length
        this._AskForMore()
    }

    _AskForMore() {
        if (LicenseTime.Ticks() >= this.deadline)
            return this._Over("timeout")
        LicenseHttp.SetOption(this.request, 6, this._Left())
        this._Await(LicenseExchange.Available)
        if (!DllCall("winhttp\WinHttpQueryDataAvailable", "Ptr", this.request, "Ptr", 0))
            this._Over(this._Reason(A_LastError))
    }

    ; Reads only the bytes that are there already: to ask for more would be to wait for a server that sends slowly.
    _ReadOn(available) {
        if (this.size + available > LicenseRequest.MaxAnswer)
            return this._Over("body too large")
        this._Await(LicenseExchange.Read)
        if (!DllCall("winhttp\WinHttpReadData", "Ptr", this.request, "Ptr", this.received + this.size
            , "UInt", available, "Ptr", 0))
            this._Over(this._Reason(A_LastError))
    }

    ; Sets the status to wait for. Called before an operation begins, because it may be over before it returns.
    _Await(bit) {
        this.awaited := bit
        NumPut("UInt", 0, this.state, 12)
        NumPut("UInt", 0, this.state, 0)
    }

    _Over(failure) {
        this.failure := failure
        this.isOver := true
        if (failure == "") {
            this.answer := Buffer(this.size)
            DllCall("RtlMoveMemory", "Ptr", this.answer.Ptr, "Ptr", this.received, "Ptr", this.size)
        }
        this._CloseHandles()
        if (this.request)
            LicenseCallback.Leave(this.state)
        else if (this.state)
            DllCall("GlobalFree", "Ptr", this.state)
    }
}
