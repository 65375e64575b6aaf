; A virus scanner: AutoHotkeyV2.exe wine_scanner.ahk FILE BEGUN END
; Has FILE open for itself for 30 of every 60 ms, once BEGUN is there and until END is.
#Requires AutoHotkey v2.0
#SingleInstance Off
#NoTrayIcon
OnError((thrown, mode) => (FileAppend(thrown.Message "`n", "*"), ExitApp(3)))

give_up := A_TickCount + 120000
FileAppend("", A_Args[2])
while !FileExist(A_Args[3]) && A_TickCount < give_up {
    held := ""
    try held := FileOpen(A_Args[1], "r-rwd")
    Sleep(30)
    held := ""
    Sleep(30)
}
ExitApp(0)
