#Requires AutoHotkey v2.0
; Says in the file it is given that it runs, and then stays.
#SingleInstance Off
#NoTrayIcon
Persistent
FileAppend("", A_Args[1])
