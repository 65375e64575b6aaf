; Carries out steps for the tests: AutoHotkeyV2.exe wine_driver_v2.ahk STEPS ANSWERS
; STEPS holds a JSON object a line, ANSWERS gets one for each. wine_driver_v1.ahk does the same.
#Requires AutoHotkey v2.0
#SingleInstance Off
#NoTrayIcon
#Include ..\..\clients\ahk\v2\License.ahk

OnError(Failed)
Main()
ExitApp(0)

Main() {
    driver := StepDriver()
    for line in StrSplit(FileRead(A_Args[1], "UTF-8"), "`n", "`r")
        if line != ""
            FileAppend(driver.Do(LicenseJson.Parse(line)) "`n", A_Args[2], "UTF-8-RAW")
}

; An error in the driver itself: said in ANSWERS, where nobody waits for a window.
Failed(thrown, mode) {
    FileAppend('{"failed":' LicenseJson.Quoted(Type(thrown) ": " thrown.Message " in " thrown.File " at line " thrown.Line) "}`n", A_Args[2],
        "UTF-8-RAW")
    ExitApp(3)
}

; The client with a clock that the test sets.
class TestedClient extends LicenseClient {
    clockOfTest := ""

    _Clock() {
        return this.HasOwnProp("clockOfTest") && this.clockOfTest != "" ? this.clockOfTest : super._Clock()
    }
}

class StepDriver {
    keys := "", client := "", results := [], gaps := 0, depth := 0, deepest := 0, kept := "", window := ""

    Do(step) {
        what := this.Text(step, "do")
        try
            return this.Do%what%(step)
        catch ValueError as wrong
            return '{"thrown":' LicenseJson.Quoted(wrong.Message) "}"
    }

    DoKeys(step) {
        this.keys := LicenseTokens.PinnedKeys(this.Text(step, "text"))
        return '{"count":' this.keys.Length "}"
    }

    DoRequest(step) {
        signature := LicenseCall.Signature(this.Text(step, "secret"), this.Text(step, "request_id"),
            this.Number(step, "timestamp"), this.Text(step, "method"), this.Text(step, "path"),
            LicenseBytes.Utf8(this.Text(step, "body")))
        return '{"signature":' LicenseJson.Quoted(signature) "}"
    }

    DoVerdict(step) {
        bound := this.Bound(step)
        bound.act := this.Text(step, "act"), bound.nonce := this.Text(step, "nonce")
        bound.requestId := this.Text(step, "request_id")
        bound.bodyHash := LicenseBytes.Base64Url(LicenseCrypto.Sha256(LicenseBytes.Utf8(this.Text(step, "body"))))
        try
            LicenseTokens.Verdict(this.keys, this.Text(step, "token"), bound)
        catch LicenseRefused as refused
            return '{"reason":"' refused.Message '"}'
        return '{"reason":"valid"}'
    }

    DoLease(step) {
        try {
            lease := LicenseTokens.Lease(this.keys, this.Text(step, "token"), this.Bound(step))
            LicenseTokens.CheckClock(lease, this.Number(step, "now"), this.Number(step, "floor"))
        } catch LicenseRefused as refused
            return '{"reason":"' refused.Message '"}'
        return '{"reason":"valid"}'
    }

    DoTokenHash(step) {
        isOwn := LicenseTokens.IsTokenOf({th: this.Text(step, "th")}, this.Text(step, "token"))
        return '{"reason":"' (isOwn ? "valid" : "invalid") '"}'
    }

    ; The one form of a key. A text of AutoHotkey ends at a NUL, which the JSON reader gives as U+FFFF.
    DoKey(step) {
        text := this.Text(step, "text"), text := text == "" ? "" : StrSplit(text, Chr(0xFFFF))[1]
        mistyped := LicenseKey.LooksMistyped(text) ? "true" : "false"
        return '{"key":' LicenseJson.Quoted(LicenseKey.Canonical(text)) ',"mistyped":' mistyped "}"
    }

    Bound(step) {
        keyHash := LicenseBytes.Base64Url(LicenseCrypto.Sha256(LicenseBytes.Utf8(this.Text(step, "key"))))
        return {keyHash: keyHash, fingerprint: this.Text(step, "fingerprint"), product: this.Text(step, "product")}
    }

    ; `options` for the constructor, as they are; `budgets` in milliseconds.
    DoNew(step) {
        options := {}
        given := LicenseJson.Find(step, "options")
        for index, name in given.names
            options.%name% := this.Plain(given.values[index])
        this.client := TestedClient(options)
        usual := this.Listed(this.client.budgets)
        budgets := LicenseJson.Find(step, "budgets")
        if budgets
            this.client.budgets := this.Plain(budgets)
        return '{"fingerprint":"' this.client.fingerprint '","usual_budgets":[' usual "]}"
    }

    ; This machine's clock from now on; it stands still.
    DoClock(step) {
        this.client.clockOfTest := this.Number(step, "at")
        return "{}"
    }

    ; What this machine is made of from now on.
    DoMachine(step) {
        made := this.Plain(LicenseJson.Find(step, "parts"))
        LicenseMachine.DefineProp("_Parts", {Call: (machine, product) => made})
        return "{}"
    }

    ; A file of the client's own, with this text in it.
    DoSeal(step) {
        this.client.store._Write(this.Text(step, "path"), this.Text(step, "text"))
        return "{}"
    }

    ; Where Windows' libraries were loaded from.
    DoLibraries(step) {
        paths := []
        for name in ["bcrypt", "crypt32", "winhttp"] {
            path := Buffer(2000, 0)
            DllCall("GetModuleFileName", "Ptr", DllCall("GetModuleHandle", "Str", name, "Ptr"), "Ptr", path, "UInt", 1000)
            paths.Push(LicenseJson.Quoted(StrGet(path, "UTF-16")))
        }
        return '{"paths":[' this.Listed(paths) "]}"
    }

    DoCopy(step) {
        FileCopy(this.Text(step, "from"), this.Text(step, "to"), true)
        return "{}"
    }

    DoRemove(step) {
        FileDelete(this.Text(step, "path"))
        return "{}"
    }

    DoForget(step) {
        RegDeleteKey(this.Text(step, "key"))
        return "{}"
    }

    ; Which codes there are texts for.
    DoTexts(step) {
        codes := []
        for code, text in LicenseTexts.In(this.Text(step, "language"))
            if text != ""
                codes.Push(LicenseJson.Quoted(code))
        return '{"codes":[' this.Listed(codes) "]}"
    }

    DoText(step) {
        this.client.texts[this.Text(step, "code")] := this.Text(step, "text")
        return "{}"
    }

    ; A variable of the environment from now on; "" for none.
    DoEnv(step) {
        text := this.Text(step, "text")
        text == "" ? EnvSet(this.Text(step, "name")) : EnvSet(this.Text(step, "name"), text)
        return "{}"
    }

    DoCall(step) {
        method := this.Text(step, "method")
        began := A_TickCount
        result := this.client.%method%(this.Plain(LicenseJson.Find(step, "with"))*)
        return this.Told(result, A_TickCount - began)
    }

    ; Checks in the background until `times` results came, each of which keeps the callback for `callback_ms`, and calls
    ; Validate `calls` times meanwhile. A timer of the script's own looks how long it waits.
    DoEvery(step) {
        this.results := [], this.gaps := 0, this.depth := 0, this.deepest := 0, calls := 0, told := []
        last := A_TickCount
        tick := () => (this.gaps := Max(this.gaps, A_TickCount - last), last := A_TickCount)
        SetTimer(tick, 10)
        this.client.Every(this.Number(step, "milliseconds") / 60000,
            (result) => this.Keep(result, this.Number(step, "callback_ms")), this.Text(step, "act"))
        end := A_TickCount + 120000
        while (this.results.Length < this.Number(step, "times") || calls < this.Number(step, "calls"))
            && A_TickCount < end {
            if calls++ < this.Number(step, "calls")
                told.Push(this.Told(this.client.Validate(), 0))
            else
                Sleep(10)
        }
        this.client.Stop()
        SetTimer(tick, 0)
        return '{"longest_gap_ms":' this.gaps ',"deepest":' this.deepest ',"results":[' this.Listed(this.results)
            . '],"meanwhile":[' this.Listed(told) "]}"
    }

    Keep(result, milliseconds) {
        this.deepest := Max(this.deepest, ++this.depth)
        if milliseconds
            Sleep(milliseconds)
        this.results.Push(this.Told(result, 0))
        this.depth--
    }

    Listed(texts) {
        list := ""
        for each in texts
            list .= (A_Index > 1 ? "," : "") each
        return list
    }

    ; Begins a check in the background, and goes on after so many milliseconds.
    DoBegin(step) {
        this.results := [], this.depth := 0, this.deepest := 0
        this.client.Begin((result) => this.Keep(result, 0), this.Text(step, "act"))
        Sleep(this.Number(step, "milliseconds"))
        return "{}"
    }

    ; The result of the check that was begun.
    DoAwait(step) {
        end := A_TickCount + 120000
        while !this.results.Length && A_TickCount < end
            Sleep(10)
        return this.results[1]
    }

    ; Validate, `times` times: what this process holds after the first twenty, and after all.
    DoRepeat(step) {
        loop this.Number(step, "times") {
            code := this.client.Validate().code
            if A_Index = 20
                first := this.Held()
        }
        return '{"code":"' code '","held":[' first "," this.Held() "]}"
    }

    Held() {
        counters := Buffer(10 * A_PtrSize, 0)
        NumPut("UInt", counters.Size, counters)
        DllCall("K32GetProcessMemoryInfo", "Ptr", DllCall("GetCurrentProcess", "Ptr"), "Ptr", counters,
            "UInt", counters.Size)
        ; Wine counts no handles, but a new one takes the lowest number that is free.
        handle := DllCall("CreateEvent", "Ptr", 0, "Int", 0, "Int", 0, "Ptr", 0, "Ptr")
        DllCall("CloseHandle", "Ptr", handle)
        return '{"handles":' handle // 4 ',"bytes":' NumGet(counters, 2 * A_PtrSize, "UPtr") "}"
    }

    ; Keeps a file open so that nobody else can; without a path, no more.
    DoHold(step) {
        path := this.Text(step, "path")
        this.kept := path == "" ? "" : FileOpen(path, "rw-rwd")
        return "{}"
    }

    ; A window of the script's own, for as long as it runs.
    DoWindow(step) {
        this.window := Gui(, this.Text(step, "title"))
        this.window.Show("w100 h100")
        return "{}"
    }

    ; How long it takes to find out that a text is no answer.
    DoMembers(step) {
        bytes := FileRead(this.Text(step, "path"), "RAW")
        began := A_TickCount
        count := LicenseJson.Members(bytes).names.Length
        return '{"count":' count ',"ms":' A_TickCount - began "}"
    }

    ; Says that it has come here, and waits until the test says go on.
    DoMeet(step) {
        FileAppend("", this.Text(step, "here"))
        end := A_TickCount + 120000
        while !FileExist(this.Text(step, "go")) && A_TickCount < end
            Sleep(10)
        return '{"met":' (A_TickCount < end ? "true" : "false") "}"
    }

    Told(result, milliseconds) {
        attempts := ""
        for each in result.attempts
            attempts .= (A_Index > 1 ? "," : "") "[" LicenseJson.Quoted(each[1]) "," LicenseJson.Quoted(each[2]) "]"
        json := '{"valid":' (result.valid ? "true" : "false") ',"ms":' milliseconds ',"attempts":[' attempts "]"
        for name in ["code", "detail", "source", "server", "expires", "offlineUntil", "act", "requestId"]
            json .= ',"' name '":' LicenseJson.Quoted(result.%name%)
        entitlements := ""
        for each in result.entitlements
            entitlements .= (A_Index > 1 ? "," : "") LicenseJson.Quoted(each)
        return json ',"uses":' (result.uses == "" ? "null" : result.uses) ',"maxUses":'
            . (result.maxUses == "" ? "null" : result.maxUses) ',"entitlements":[' entitlements "]}"
    }

    Text(step, name) {
        return LicenseJson.TextOf(step, name)
    }

    Number(step, name) {
        return LicenseJson.NumberOf(step, name)
    }

    Plain(node) {
        if !node
            return []
        if node.kind != "array"
            return node.value
        list := []
        for each in node.values
            list.Push(this.Plain(each))
        return list
    }
}
