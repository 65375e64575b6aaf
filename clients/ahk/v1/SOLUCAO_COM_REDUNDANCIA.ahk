; SOLUCAO_COM_REDUNDANCIA.ahk: um programa protegido que tenta vários servidores de licença, um após o outro, e continua
; com o token salvo quando nenhum responde. É o arquivo do guia de hospedagem, para AutoHotkey 1.1 (Unicode).
; Precisa de License.ahk na mesma pasta. Salve em UTF-8 com BOM.
#NoEnv
#SingleInstance Force
#Include %A_ScriptDir%
#Include License.ahk

; Array de servidores (em ordem de prioridade)
g_LicenseAPI_Servers := []
g_LicenseAPI_Servers[1] := "https://api1.railway.app"      ; Servidor Principal
g_LicenseAPI_Servers[2] := "https://api2.onrender.com"     ; Backup 1
g_LicenseAPI_Servers[3] := "https://api3.fly.dev"          ; Backup 2

; API_KEY e SHARED_SECRET dos servidores, e as chaves públicas que `flask secrets` mostrou (as duas linhas).
g_LicenseAPI_ApiKey := ""
g_LicenseAPI_SharedSecret := ""
g_LicenseAPI_PublicKeys := ""
; COLE AQUI as linhas que `make run` mostra para AutoHotkey 1.1: elas põem no lugar destes os valores da demonstração.

g_Produto := "demo"                 ; o código do produto nos servidores
g_Titulo := "Meu programa"
g_ArquivoDaChave := A_ScriptDir . "\chave-da-licenca.txt"

; A chave do cliente: pedida uma vez, guardada ao lado do script.
if FileExist(g_ArquivoDaChave)
    FileRead, g_Chave, %g_ArquivoDaChave%
else {
    InputBox, g_Chave, %g_Titulo%, Digite a sua chave de licença.
    if (ErrorLevel)
        ExitApp
}

try
    g_Licenca := new LicenseClient({product: g_Produto, key: g_Chave, publicKeys: g_LicenseAPI_PublicKeys
        , apiKey: g_LicenseAPI_ApiKey, sharedSecret: g_LicenseAPI_SharedSecret, language: "pt"})
catch g_Erro {
    MsgBox, 0, %g_Titulo%, % g_Erro.Message
    ExitApp
}

; Servidor 1, depois Backup 1, depois Backup 2; se todos falharem, o modo offline com o token salvo.
g_Resposta := g_Licenca.Unlock()
Conferir(g_Resposta)
if !FileExist(g_ArquivoDaChave)
    FileAppend, %g_Chave%, %g_ArquivoDaChave%

g_Licenca.Every(60, "Conferir")     ; confere a cada 60 minutos, sem parar o programa
MsgBox, 0, %g_Titulo%, % "Liberado: " . g_Resposta.code . "`n" . g_Resposta.detail
ExitApp                             ; o seu programa começa aqui, no lugar desta linha

; Encerra o programa quando a licença não permite que ele rode.
Conferir(resposta) {
    global g_Titulo
    if (resposta.valid)
        return
    MsgBox, 0, %g_Titulo%, % "Este programa não pode rodar: " . resposta.code . "`n" . resposta.detail
    ExitApp
}
