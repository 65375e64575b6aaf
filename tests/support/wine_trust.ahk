; Makes a certificate authority trusted: AutoHotkeyV2.exe wine_trust.ahk FILE (its certificate in DER).
#Requires AutoHotkey v2.0
#SingleInstance Off
#NoTrayIcon
OnError((thrown, mode) => (FileAppend(thrown.Message "`n", "*"), ExitApp(3)))

certificate := FileRead(A_Args[1], "RAW")
DllCall("LoadLibrary", "Str", "crypt32", "Ptr")
store := DllCall("crypt32\CertOpenStore", "Ptr", 10, "UInt", 0, "Ptr", 0, "UInt", 0x10000, "Str", "Root", "Ptr")
added := DllCall("crypt32\CertAddEncodedCertificateToStore", "Ptr", store, "UInt", 1, "Ptr", certificate,
    "UInt", certificate.Size, "UInt", 3, "Ptr", 0)
DllCall("crypt32\CertCloseStore", "Ptr", store, "UInt", 0)
ExitApp(added ? 0 : 4)
