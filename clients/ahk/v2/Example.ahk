#Requires AutoHotkey v2.0
#SingleInstance Force
#Include License.ahk

; What your servers ask for, in order of priority, and what their answers are verified with.
g_LicenseAPI_Servers := ["https://one.example", "https://two.example"]
g_LicenseAPI_ApiKey := ""
g_LicenseAPI_SharedSecret := ""
g_LicenseAPI_PublicKeys := ""
; PASTE HERE the lines that `make run` prints for AutoHotkey v2: they set all of these to the demo's.

title := "My program"
keyFile := A_ScriptDir "\license-key.txt"

; The customer's key: asked for once, kept beside the script.
if FileExist(keyFile)
    key := FileRead(keyFile)
else {
    asked := InputBox("Please enter your license key.", title)
    if asked.Result != "OK"
        ExitApp()
    key := asked.Value
}

try
    license := LicenseClient({product: "demo", key: key, publicKeys: g_LicenseAPI_PublicKeys,
        apiKey: g_LicenseAPI_ApiKey, sharedSecret: g_LicenseAPI_SharedSecret})
catch ValueError as wrong {
    MsgBox(wrong.Message, title)
    ExitApp()
}

answer := license.Unlock()
Judge(answer)
if !FileExist(keyFile)
    try FileAppend(key, keyFile)

license.Every(60, Judge)    ; every 60 minutes, in the background
MsgBox("Unlocked: " answer.code "`n" answer.detail, title)
ExitApp()                   ; your program begins here instead

Judge(answer) {
    if answer.valid
        return
    MsgBox("This program may not run: " answer.code "`n" answer.detail, title)
    ExitApp()
}
