; The person before the screen: AutoHotkeyV2.exe wine_robot.ahk TITLE HEARD [KEY]
; Enters KEY where a window asks for a text, writes what the last window says to HEARD, and presses its first button.
#Requires AutoHotkey v2.0
#SingleInstance Off
#NoTrayIcon
OnError((thrown, mode) => (FileAppend(thrown.Message "`n", "*"), ExitApp(3)))
SetTitleMatchMode(3)

if A_Args.Length = 3 {
    asks := Window()
    ControlSetText(A_Args[3], "Edit1", asks)
    ControlSend("{Enter}", "Edit1", asks)
    WinWaitClose(asks, , 60)
}
says := Window()
FileAppend(WinGetText(says), A_Args[2], "UTF-8-RAW")
PostMessage(0x111, 2, 0, , says)    ; as the button does that ends a message
WinWaitClose(says, , 60)
ExitApp(0)

Window() {
    if !WinWait(A_Args[1] " ahk_class #32770", , 120)
        ExitApp(4)
    return WinExist()
}
