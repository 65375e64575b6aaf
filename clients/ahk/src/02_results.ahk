; == 2. Results and texts ==============================================================================================

; The result of every call, made from signed claims or local rules only.
;   valid, code    whether the program may run, and why: the server's codes, or OFFLINE_VALID, OFFLINE_EXPIRED,
;                  CLOCK_TAMPERED, TOKEN_INVALID, NO_SERVER
;   detail         a sentence for the user, in the language chosen
;   source         "server" or "offline"          server         the URL that decided, "" offline
;   expires        when the license ends, "2027-01-01T00:00:00Z"; "" for never or not known
;   offlineUntil   the end of the saved token; "" without one
;   entitlements   an array                       uses, maxUses  numbers, "" for none
;   act, requestId, attempts   the call, its id, and [server, reason] for each server that did not decide
class LicenseResult {
    __New(call, attempts) {
        this.valid := false, this.code := "", this.detail := "", this.source := "", this.server := ""
        this.expires := "", this.offlineUntil := "", this.entitlements := [], this.uses := "", this.maxUses := ""
        this.act := call.act, this.requestId := call.requestId, this.attempts := attempts
    }
}

; Sentences for the user, by code. To replace one: license.texts["SUSPENDED"] := "...". The text of "CODE valid" is
; shown where a code that can be a denial comes with a valid verdict.
class LicenseTexts {
    ; A new copy of the texts in a language: "en", "pt", or "" for the system's.
    static In(language) {
        if (language == "")
            language := SubStr(A_Language, 3) = "16" ? "pt" : "en"     ; 0416 is Brazil, 0816 Portugal
        if (language != "en" && language != "pt")
            throw ValueError("License: language must be en or pt")
        return language = "pt" ? this._Portuguese() : this._English()
    }

    static Of(texts, code, valid) {
        if (valid && texts.Has(code . " valid"))
            return texts[code . " valid"]
        return texts.Has(code) ? texts[code] : texts["OTHER"] . code
    }

    static _English() {
        return Map("VALID", "The license is valid."
            , "NOT_FOUND", "There is no such license key."
            , "BANNED", "This license has been banned."
            , "SUSPENDED", "This license is suspended."
            , "EXPIRED", "This license has expired."
            , "EXPIRED valid", "This license has expired and is in its grace period."
            , "OVERDUE", "This license has not checked in for too long."
            , "PRODUCT_SCOPE_MISMATCH", "This license is for another product."
            , "VERSION_SCOPE_MISMATCH", "This license does not cover this version."
            , "ENTITLEMENTS_MISSING", "This license does not include what was asked for."
            , "FINGERPRINT_SCOPE_REQUIRED", "This license asks for the machine's fingerprint."
            , "NO_MACHINE", "This machine is not activated."
            , "NO_MACHINES", "This machine is not activated."
            , "FINGERPRINT_SCOPE_MISMATCH", "This license is in use on another machine."
            , "HEARTBEAT_NOT_STARTED", "This machine has not reported yet."
            , "HEARTBEAT_DEAD", "This machine has not reported for too long."
            , "MACHINE_LIMIT_EXCEEDED", "Every seat of this license is taken."
            , "TOO_MANY_MACHINES", "This license is in use on too many machines."
            , "TOO_MANY_MACHINES valid", "The license is valid, on more machines than it has seats."
            , "USES_EXHAUSTED", "Every use of this license is used up."
            , "OFFLINE_VALID", "No server could be reached. The program goes on with the saved token."
            , "OFFLINE_EXPIRED", "No server could be reached, and the saved token has ended. Please connect."
            , "CLOCK_TAMPERED", "This computer's clock was set back. Please set it right, or connect."
            , "TOKEN_INVALID", "The saved token is damaged or not for this machine. Please connect."
            , "NO_SERVER", "No license server could be reached. Please check the connection."
            , "OTHER_PRODUCT", "No server answered for this product. Is the key for another one?"
            , "OTHER", "The license server answered: ")
    }

    static _Portuguese() {
        return Map("VALID", "A licença é válida."
            , "NOT_FOUND", "Esta chave de licença não existe."
            , "BANNED", "Esta licença foi banida."
            , "SUSPENDED", "Esta licença está suspensa."
            , "EXPIRED", "Esta licença expirou."
            , "EXPIRED valid", "Esta licença expirou e está no período de carência."
            , "OVERDUE", "Esta licença ficou tempo demais sem se apresentar."
            , "PRODUCT_SCOPE_MISMATCH", "Esta licença é de outro produto."
            , "VERSION_SCOPE_MISMATCH", "Esta licença não cobre esta versão."
            , "ENTITLEMENTS_MISSING", "Esta licença não inclui o que foi pedido."
            , "FINGERPRINT_SCOPE_REQUIRED", "Esta licença exige a identificação da máquina."
            , "NO_MACHINE", "Esta máquina não está ativada."
            , "NO_MACHINES", "Esta máquina não está ativada."
            , "FINGERPRINT_SCOPE_MISMATCH", "Esta licença está em uso em outra máquina."
            , "HEARTBEAT_NOT_STARTED", "Esta máquina ainda não se apresentou."
            , "HEARTBEAT_DEAD", "Esta máquina ficou tempo demais sem se apresentar."
            , "MACHINE_LIMIT_EXCEEDED", "Todas as vagas desta licença estão ocupadas."
            , "TOO_MANY_MACHINES", "Esta licença está em uso em máquinas demais."
            , "TOO_MANY_MACHINES valid", "A licença é válida, em mais máquinas do que tem vagas."
            , "USES_EXHAUSTED", "Todos os usos desta licença foram gastos."
            , "OFFLINE_VALID", "Nenhum servidor respondeu. O programa continua com o token salvo."
            , "OFFLINE_EXPIRED", "Nenhum servidor respondeu, e o token salvo venceu. Conecte-se à internet."
            , "CLOCK_TAMPERED", "O relógio deste computador foi atrasado. Acerte-o ou conecte-se à internet."
            , "TOKEN_INVALID", "O token salvo está danificado ou não é desta máquina. Conecte-se à internet."
            , "NO_SERVER", "Nenhum servidor de licenças respondeu. Verifique a conexão."
            , "OTHER_PRODUCT", "Nenhum servidor respondeu por este produto. A chave é de outro?"
            , "OTHER", "O servidor de licenças respondeu: ")
    }
}
