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
    Press(asks)
}
says := Window()
FileAppend(WinGetText(says), A_Args[2], "UTF-8-RAW")
Press(says)
ExitApp(0)

Window() {
    found := WinWait(A_Args[1] " ahk_class #32770", , 90)
    if !found
        ExitApp(4)
    return found
}

Press(id) {
    PostMessage(0xF5, 0, 0, "Button1", id)
    if !WinWaitClose(id, , 30)
        ExitApp(5)
}
