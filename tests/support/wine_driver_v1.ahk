; Carries out steps for the tests: AutoHotkey.exe wine_driver_v1.ahk STEPS ANSWERS
; STEPS holds a JSON object a line, ANSWERS gets one for each. wine_driver_v2.ahk does the same.
#SingleInstance Off
#NoTrayIcon
#NoEnv
#Include %A_ScriptDir%\..\..\clients\ahk\v1\License.ahk
SetBatchLines, -1
OnError("Failed")
g_Answers := A_Args[2]
Main(A_Args[1])
ExitApp, 0

Main(path) {
    global g_Answers
    stepDriver := new StepDriver()
    FileRead, text, *P65001 %path%
    for index, line in StrSplit(text, "`n", "`r")
        if (line != "")
            FileAppend, % stepDriver.Do(LicenseJson.Parse(line)) . "`n", % g_Answers, UTF-8-RAW
}

; An error in the driver itself: said in ANSWERS, where nobody waits for a window.
Failed(thrown) {
    global g_Answers
    said := thrown
    if (IsObject(thrown))
        said := thrown.What . ": " . thrown.Message . " in " . thrown.File . " at line " . thrown.Line
    FileAppend, % "{""failed"":" . LicenseJson.Quoted(said) . "}`n", % g_Answers, UTF-8-RAW
    ExitApp, 3
}

; The client with a clock that the test sets.
class TestedClient extends LicenseClient {
    _Clock() {
        return this.clockOfTest != "" ? this.clockOfTest : base._Clock()
    }
}

MadeOf(parts) {
    return parts
}

class StepDriver {
    Do(step) {
        what := "Do" . this.Text(step, "do")
        try
            return this[what](step)
        catch thrown {
            if (!InStr(thrown.Message, "License: "))
                throw thrown
            return "{""thrown"":" . LicenseJson.Quoted(thrown.Message) . "}"
        }
    }

    DoKeys(step) {
        this.keys := LicenseTokens.PinnedKeys(this.Text(step, "text"))
        return "{""count"":" . this.keys.Length() . "}"
    }

    DoRequest(step) {
        signature := LicenseCall.Signature(this.Text(step, "secret"), this.Text(step, "request_id")
            , this.Number(step, "timestamp"), this.Text(step, "method"), this.Text(step, "path")
            , LicenseBytes.Utf8(this.Text(step, "body")))
        return "{""signature"":" . LicenseJson.Quoted(signature) . "}"
    }

    DoVerdict(step) {
        bound := this.Bound(step)
        bound.act := this.Text(step, "act"), bound.nonce := this.Text(step, "nonce")
        bound.requestId := this.Text(step, "request_id")
        bound.bodyHash := LicenseBytes.Base64Url(LicenseCrypto.Sha256(LicenseBytes.Utf8(this.Text(step, "body"))))
        try
            LicenseTokens.Verdict(this.keys, this.Text(step, "token"), bound)
        catch refused
            return "{""reason"":""" . LicenseRefused.Expect(refused) . """}"
        return "{""reason"":""valid""}"
    }

    DoLease(step) {
        try {
            lease := LicenseTokens.Lease(this.keys, this.Text(step, "token"), this.Bound(step))
            LicenseTokens.CheckClock(lease, this.Number(step, "now"), this.Number(step, "floor"))
        } catch refused
            return "{""reason"":""" . LicenseRefused.Expect(refused) . """}"
        return "{""reason"":""valid""}"
    }

    DoTokenHash(step) {
        isOwn := LicenseTokens.IsTokenOf({th: this.Text(step, "th")}, this.Text(step, "token"))
        return "{""reason"":""" . (isOwn ? "valid" : "invalid") . """}"
    }

    ; The one form of a key. A text of AutoHotkey ends at a NUL, which the JSON reader gives as U+FFFF.
    DoKey(step) {
        text := StrSplit(this.Text(step, "text"), Chr(0xFFFF))[1]
        mistyped := LicenseKey.LooksMistyped(text) ? "true" : "false"
        return "{""key"":" . LicenseJson.Quoted(LicenseKey.Canonical(text)) . ",""mistyped"":" . mistyped . "}"
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
            options[name] := this.Plain(given.values[index])
        this.client := new TestedClient(options)
        usual := this.Listed(this.client.budgets)
        budgets := LicenseJson.Find(step, "budgets")
        if (budgets)
            this.client.budgets := this.Plain(budgets)
        return "{""fingerprint"":""" . this.client.fingerprint . """,""usual_budgets"":[" . usual . "]}"
    }

    ; This machine's clock from now on; it stands still.
    DoClock(step) {
        this.client.clockOfTest := this.Number(step, "at")
        return "{}"
    }

    ; What this machine is made of from now on.
    DoMachine(step) {
        made := this.Plain(LicenseJson.Find(step, "parts"))
        LicenseMachine._Parts := Func("MadeOf").Bind(made)
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
        for index, name in ["bcrypt", "crypt32", "winhttp"] {
            path := new LicenseBuffer(2000)
            DllCall("GetModuleFileName", "Ptr", DllCall("GetModuleHandle", "Str", name, "Ptr"), "Ptr", path.Ptr, "UInt", 1000)
            paths.Push(LicenseJson.Quoted(StrGet(path.Ptr + 0, "UTF-16")))
        }
        return "{""paths"":[" . this.Listed(paths) . "]}"
    }

    DoCopy(step) {
        FileCopy, % this.Text(step, "from"), % this.Text(step, "to"), 1
        return "{}"
    }

    DoRemove(step) {
        FileDelete, % this.Text(step, "path")
        return "{}"
    }

    DoForget(step) {
        RegDelete, % this.Text(step, "key")
        return "{}"
    }

    ; Which codes there are texts for.
    DoTexts(step) {
        codes := []
        for code, text in LicenseTexts.In(this.Text(step, "language"))
            if (text != "")
                codes.Push(LicenseJson.Quoted(code))
        return "{""codes"":[" . this.Listed(codes) . "]}"
    }

    DoText(step) {
        code := this.Text(step, "code")
        this.client.texts[code] := this.Text(step, "text")
        return "{}"
    }

    ; A variable of the environment from now on; "" for none.
    DoEnv(step) {
        EnvSet, % this.Text(step, "name"), % this.Text(step, "text")
        return "{}"
    }

    DoCall(step) {
        method := this.Text(step, "method")
        with := this.Plain(LicenseJson.Find(step, "with"))
        began := LicenseTime.Ticks()
        client := this.client
        result := client[method](with*)
        return this.Told(result, LicenseTime.Ticks() - began)
    }

    ; Checks in the background until `times` results came, each of which keeps the callback for `callback_ms`, and calls
    ; Validate `calls` times meanwhile. A timer of the script's own looks how long it waits.
    DoEvery(step) {
        this.results := [], this.gaps := 0, this.depth := 0, this.deepest := 0, calls := 0, told := []
        this.last := LicenseTime.Ticks()
        tick := ObjBindMethod(this, "Tick")
        SetTimer, % tick, 10
        minutes := this.Number(step, "milliseconds") / 60000
        this.client.Every(minutes, ObjBindMethod(this, "Keep", this.Number(step, "callback_ms")), this.Text(step, "act"))
        end := LicenseTime.Ticks() + 120000
        while ((this.results.Length() < this.Number(step, "times") || calls < this.Number(step, "calls"))
            && LicenseTime.Ticks() < end) {
            calls += 1
            if (calls <= this.Number(step, "calls"))
                told.Push(this.Told(this.client.Validate(), 0))
            else
                Sleep, 10
        }
        this.client.Stop()
        SetTimer, % tick, Delete
        return "{""longest_gap_ms"":" . this.gaps . ",""deepest"":" . this.deepest . ",""results"":["
            . this.Listed(this.results) . "],""meanwhile"":[" . this.Listed(told) . "]}"
    }

    Tick() {
        gap := LicenseTime.Ticks() - this.last
        this.gaps := gap > this.gaps ? gap : this.gaps
        this.last := LicenseTime.Ticks()
    }

    Keep(milliseconds, result) {
        this.depth += 1
        this.deepest := this.depth > this.deepest ? this.depth : this.deepest
        if (milliseconds)
            Sleep, % milliseconds
        this.results.Push(this.Told(result, 0))
        this.depth -= 1
    }

    Listed(texts) {
        list := ""
        for index, each in texts
            list .= (index > 1 ? "," : "") . each
        return list
    }

    ; Begins a check in the background, and goes on after so many milliseconds.
    DoBegin(step) {
        this.results := [], this.depth := 0, this.deepest := 0
        this.client.Begin(ObjBindMethod(this, "Keep", 0), this.Text(step, "act"))
        Sleep, % this.Number(step, "milliseconds")
        return "{}"
    }

    ; The result of the check that was begun.
    DoAwait(step) {
        end := LicenseTime.Ticks() + 120000
        while (!this.results.Length() && LicenseTime.Ticks() < end)
            Sleep, 10
        return this.results[1]
    }

    ; Validate, `times` times: what this process holds after the first twenty, and after all.
    DoRepeat(step) {
        Loop % this.Number(step, "times") {
            code := this.client.Validate().code
            if (A_Index = 20)
                first := this.Held()
        }
        return "{""code"":""" . code . """,""held"":[" . first . "," . this.Held() . "]}"
    }

    Held() {
        counters := new LicenseBuffer(10 * A_PtrSize)
        NumPut(counters.Size, counters.Ptr + 0, 0, "UInt")
        DllCall("K32GetProcessMemoryInfo", "Ptr", DllCall("GetCurrentProcess", "Ptr"), "Ptr", counters.Ptr
            , "UInt", counters.Size)
        ; Wine counts no handles, but a new one takes the lowest number that is free.
        handle := DllCall("CreateEvent", "Ptr", 0, "Int", 0, "Int", 0, "Ptr", 0, "Ptr")
        DllCall("CloseHandle", "Ptr", handle)
        return "{""handles"":" . handle // 4 . ",""bytes"":" . NumGet(counters.Ptr + 0, 2 * A_PtrSize, "UPtr") . "}"
    }

    ; Keeps a file open so that nobody else can; without a path, no more.
    DoHold(step) {
        path := this.Text(step, "path")
        this.kept := path == "" ? "" : FileOpen(path, "rw-rwd")
        return "{}"
    }

    ; A window of the script's own, for as long as it runs.
    DoWindow(step) {
        title := this.Text(step, "title")
        Gui, Show, w100 h100, %title%
        return "{}"
    }

    ; How long it takes to find out that a text is no answer.
    DoMembers(step) {
        file := FileOpen(this.Text(step, "path"), "r")
        file.Pos := 0
        bytes := new LicenseBuffer(file.Length)
        file.RawRead(bytes.Ptr + 0, bytes.Size)
        began := LicenseTime.Ticks()
        count := LicenseJson.Members(bytes).names.Length()
        return "{""count"":" . count . ",""ms"":" . (LicenseTime.Ticks() - began) . "}"
    }

    ; Says that it has come here, and waits until the test says go on.
    DoMeet(step) {
        FileAppend,, % this.Text(step, "here")
        end := LicenseTime.Ticks() + 120000
        while (!FileExist(this.Text(step, "go")) && LicenseTime.Ticks() < end)
            Sleep, 10
        return "{""met"":" . (LicenseTime.Ticks() < end ? "true" : "false") . "}"
    }

    Told(result, milliseconds) {
        attempts := ""
        for index, each in result.attempts
            attempts .= (index > 1 ? "," : "") . "[" . LicenseJson.Quoted(each[1]) . "," . LicenseJson.Quoted(each[2])
                . "]"
        json := "{""valid"":" . (result.valid ? "true" : "false") . ",""ms"":" . milliseconds . ",""attempts"":["
            . attempts . "]"
        for index, name in ["code", "detail", "source", "server", "expires", "offlineUntil", "act", "requestId"]
            json .= ",""" . name . """:" . LicenseJson.Quoted(result[name])
        entitlements := ""
        for index, each in result.entitlements
            entitlements .= (index > 1 ? "," : "") . LicenseJson.Quoted(each)
        return json . ",""uses"":" . (result.uses == "" ? "null" : result.uses) . ",""maxUses"":"
            . (result.maxUses == "" ? "null" : result.maxUses) . ",""entitlements"":[" . entitlements . "]}"
    }

    Text(step, name) {
        return LicenseJson.TextOf(step, name)
    }

    Number(step, name) {
        return LicenseJson.NumberOf(step, name)
    }

    Plain(node) {
        if (!node)
            return []
        if (node.kind != "array")
            return node.value
        list := []
        for index, each in node.values
            list.Push(this.Plain(each))
        return list
    }
}
