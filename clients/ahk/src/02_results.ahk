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
; shown where a code that can be a denial comes with a valid verdict, "CODE after" after the cause for which no server
; let the client in, "NOT_FOUND mistyped" where the key is almost one that the servers generate; {n} stands for a
; number.
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
            , "NOT_FOUND", "No license has this key. Please compare it with the message that it came in."
            , "NOT_FOUND mistyped", "This key looks mistyped: a character is wrong, missing or too many. Copy it again."
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
            , "UNREADABLE", "The saved token cannot be read now: another program holds its file. Please try again."
            , "OFFLINE_VALID after", "The program goes on with the saved token."
            , "OFFLINE_EXPIRED after", "The saved token has ended."
            , "ACCESS_KEY", "This program's access key is not accepted any more: ask the vendor for an update."
            , "RATE_LIMITED", "Too many attempts, try again in {n} minutes."
            , "RATE_LIMITED later", "Too many attempts, try again later."
            , "CLOCK", "This PC's clock is off by about {n} days."
            , "CLOCK hours", "This PC's clock is off by about {n} hours."
            , "CLOCK unknown", "This PC's clock is off, or a server's certificate has ended."
            , "PROXY", "A proxy stands between this PC and the license servers, and does not let the program through."
            , "INTERCEPTED", "A proxy stands between this PC and the servers: their certificates are not trusted."
            , "LOGIN_PAGE", "Something else answers in place of the license servers, perhaps a network's login page."
            , "BUSY", "The license servers cannot answer just now. Please try again in some minutes."
            , "OTHER_PRODUCT", "No server answered for this product. Is the key for another one?"
            , "OTHER", "The license server answered: ")
    }

    static _Portuguese() {
        return Map("VALID", "A licença é válida."
            , "NOT_FOUND", "Nenhuma licença tem esta chave. Compare-a com a mensagem em que ela veio."
            , "NOT_FOUND mistyped", "A chave parece ter um erro: um caractere errado, a menos ou a mais. Copie-a de novo."
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
            , "UNREADABLE", "O token salvo não pode ser lido agora: outro programa está com o arquivo. Tente de novo."
            , "OFFLINE_VALID after", "O programa continua com o token salvo."
            , "OFFLINE_EXPIRED after", "O token salvo venceu."
            , "ACCESS_KEY", "A chave de acesso deste programa já não é aceita: peça uma atualização ao fornecedor."
            , "RATE_LIMITED", "Tentativas demais, tente de novo em {n} minutos."
            , "RATE_LIMITED later", "Tentativas demais, tente de novo mais tarde."
            , "CLOCK", "O relógio deste PC está errado em cerca de {n} dias."
            , "CLOCK hours", "O relógio deste PC está errado em cerca de {n} horas."
            , "CLOCK unknown", "O relógio deste PC está errado, ou o certificado de um servidor venceu."
            , "PROXY", "Há um proxy entre este PC e os servidores de licenças, e ele não deixa o programa passar."
            , "INTERCEPTED", "Há um proxy entre este PC e os servidores: os certificados deles não são confiáveis."
            , "LOGIN_PAGE", "Outra coisa responde no lugar dos servidores, talvez a página de login de uma rede."
            , "BUSY", "Os servidores de licenças não podem responder agora. Tente de novo em alguns minutos."
            , "OTHER_PRODUCT", "Nenhum servidor respondeu por este produto. A chave é de outro?"
            , "OTHER", "O servidor de licenças respondeu: ")
    }
}

; Why no server let the client in: the most telling of what its attempts met. `failures`: {reason, retryAfter (seconds),
; serverTime (Unix seconds)}, "" for what is not known. Nothing of it is signed, and nothing but a text follows from it.
class LicenseCauses {
    static Leeway := 300        ; seconds: a clock that is off by less keeps nobody out
    static _Patterns := [["OTHER_PRODUCT", "^verdict refused: aud\z"]
        , ["ACCESS_KEY", "^status 401(?! TIMESTAMP_SKEWED)"], ["RATE_LIMITED", "^status 429"], ["CLOCK", "^tls date\z|^status 401"], ["PROXY", "^status 407"]
        , ["INTERCEPTED", "^tls\z"], ["LOGIN_PAGE", "^no verdict\z|^status (3\d\d|511)"], ["BUSY", "^status 5\d\d"]]

    ; A sentence, or "" where no server was reached at all.
    static Sentence(texts, failures, now, floor) {
        for index, each in LicenseCauses._Patterns
            for at, failure in failures
                if (RegExMatch(failure.reason, each[2]))
                    return this._Sentence(texts, this._Likelier(each[1], now, floor), failures, now, floor)
        return ""
    }

    ; A certificate is refused while the clock is a day or more below what it has shown before: for that, most likely.
    static _Likelier(cause, now, floor) {
        return cause == "INTERCEPTED" && floor != "" && floor - now > 86400 ? "CLOCK" : cause
    }

    static _Sentence(texts, cause, failures, now, floor) {
        if (cause == "RATE_LIMITED") {
            wait := this._Sooner(failures)
            return wait == "" ? texts["RATE_LIMITED later"] : this._Counted(texts["RATE_LIMITED"], Ceil(wait / 60))
        }
        if (cause != "CLOCK")
            return texts[cause]
        offset := this._Offset(failures, now, floor)
        if (offset == "")
            return texts["CLOCK unknown"]
        if (offset < 43200)
            return this._Counted(texts["CLOCK hours"], Round(offset / 3600))
        return this._Counted(texts["CLOCK"], Round(offset / 86400))
    }

    ; The seconds until the first of the servers may be asked again; "" where none says.
    static _Sooner(failures) {
        wait := ""
        for index, failure in failures
            if (failure.retryAfter != "" && (wait == "" || failure.retryAfter < wait))
                wait := failure.retryAfter
        return wait
    }

    ; By how many seconds this machine's clock is off, by the servers' times, else by what it has shown before; "" where
    ; that is not known.
    static _Offset(failures, now, floor) {
        offset := "", isTold := false
        for index, failure in failures {
            isTold := isTold || failure.serverTime != ""
            if (failure.serverTime != "" && (offset == "" || Abs(failure.serverTime - now) > offset))
                offset := Abs(failure.serverTime - now)
        }
        if (!isTold && floor != "" && floor > now)
            offset := floor - now
        return offset == "" || offset <= this.Leeway ? "" : offset
    }

    ; The text with its number, which is its last but one word; one of anything is no plural.
    static _Counted(text, number) {
        number := number < 1 ? 1 : number
        text := StrReplace(text, "{n}", number)
        return number = 1 ? RegExReplace(text, "s\.\z", ".") : text
    }
}
