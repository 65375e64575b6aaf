#NoEnv
#SingleInstance Force
#Include %A_ScriptDir%
#Include License.ahk

; What your servers ask for, in order of priority, and what their answers are verified with.
g_LicenseAPI_Servers := []
g_LicenseAPI_Servers[1] := "https://one.example"
g_LicenseAPI_Servers[2] := "https://two.example"
g_LicenseAPI_ApiKey := ""
g_LicenseAPI_SharedSecret := ""
g_LicenseAPI_PublicKeys := ""
; PASTE HERE the lines that `make run` prints for AutoHotkey 1.1: they set all of these to the demo's.

title := "My program"
keyFile := A_ScriptDir . "\license-key.txt"

; The customer's key: asked for once, kept beside the script.
if FileExist(keyFile)
    FileRead, key, %keyFile%
else {
    InputBox, key, %title%, Please enter your license key.
    if (ErrorLevel)
        ExitApp
}

try
    license := new LicenseClient({product: "demo", key: key, publicKeys: g_LicenseAPI_PublicKeys
        , apiKey: g_LicenseAPI_ApiKey, sharedSecret: g_LicenseAPI_SharedSecret})
catch wrong {
    MsgBox, 0, %title%, % wrong.Message
    ExitApp
}

answer := license.Unlock()
Judge(answer)
if !FileExist(keyFile)
    FileAppend, %key%, %keyFile%

license.Every(60, "Judge")  ; every 60 minutes, in the background
MsgBox, 0, %title%, % "Unlocked: " . answer.code . "`n" . answer.detail
ExitApp                     ; your program begins here instead

Judge(answer) {
    global title
    if (answer.valid)
        return
    MsgBox, 0, %title%, % "This program may not run: " . answer.code . "`n" . answer.detail
    ExitApp
}
