; Asks a window again and again whether it is alive, as Windows does: AutoHotkeyV2.exe wine_asks_window.ahk TITLE HEARD
; A line in HEARD for each answer: how many milliseconds it took. Ends with the window.
#Requires AutoHotkey v2.0
#SingleInstance Off
#NoTrayIcon
OnError((thrown, mode) => (FileAppend(thrown.Message "`n", "*"), ExitApp(3)))

asked := WinWait(A_Args[1] " ahk_class AutoHotkeyGUI", , 90)
if !asked
    ExitApp(4)
while DllCall("IsWindow", "Ptr", asked) {
    began := A_TickCount, answer := 0
    if DllCall("SendMessageTimeout", "Ptr", asked, "UInt", 0, "Ptr", 0, "Ptr", 0, "UInt", 0, "UInt", 120000,
        "Ptr*", &answer)
        FileAppend(A_TickCount - began "`n", A_Args[2], "`n UTF-8-RAW")
    Sleep(10)
}
ExitApp(0)
