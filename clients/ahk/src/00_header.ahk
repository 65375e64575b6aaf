;@v1
; License.ahk: signed license checks for AutoHotkey 1.1, asked of several servers in turn, with a saved token for when
; none of them answers.
;
;     #Include License.ahk
;     g_LicenseAPI_Servers := []
;     g_LicenseAPI_Servers[1] := "https://one.example"
;     g_LicenseAPI_Servers[2] := "https://two.example"
;     license := new LicenseClient({product: "editor", key: "the customer's key", publicKeys: "(what `flask secrets`
;         printed)", apiKey: "...", sharedSecret: "..."})
;     answer := license.Validate()
;     if (!answer.valid) {
;         MsgBox, % answer.detail
;         ExitApp
;     }
;@v2
; License.ahk: signed license checks for AutoHotkey v2, asked of several servers in turn, with a saved token for when
; none of them answers.
;
;     #Include License.ahk
;     license := LicenseClient({servers: ["https://one.example", "https://two.example"], product: "editor",
;         key: "the customer's key", publicKeys: "(what `flask secrets` printed)", apiKey: "...", sharedSecret: "..."})
;     answer := license.Validate()
;     if !answer.valid
;         MsgBox(answer.detail), ExitApp()
;@end
;
; This file is the whole client: nothing else to install or download.
;@v1
; Keep it in UTF-8 with its byte order mark.
;@end
; clients/ahk/README.md describes a first script in ten minutes, each option, the log files and where the token is kept.
;
; The files for AutoHotkey 1.1 and v2 are both assembled from clients/ahk/src. Change the sections there, not this file,
; and run `make clients`.
;
; Sections: 1 the client, 2 results and texts, 3 the walk over the servers, 4 HTTP, 5 tokens, 6 JSON, 7 cryptography,
; 8 what is kept, 9 this machine, 10 logs, 11 text, keys and time.
;@v2

#Requires AutoHotkey v2.0
;@end
