; == 5. Tokens =========================================================================================================

;@v1
; A token was refused: an Exception whose Message is one of the reasons of tests/vectors/README.md.
class LicenseRefused {
;@v2
; A token was refused: its Message is one of the reasons of tests/vectors/README.md.
class LicenseRefused extends Error {
;@end
    static Because(reason) {
        ;@v1
        return Exception(reason, "LicenseRefused")
        ;@v2
        return LicenseRefused(reason)
        ;@end
    }

    ; The reason of a refusal that was caught. Any other error is thrown again.
    static Expect(thrown) {
        ;@v1
        isRefusal := IsObject(thrown) && thrown.What == "LicenseRefused"
        ;@v2
        isRefusal := thrown is LicenseRefused
        ;@end
        if (!isRefusal)
            throw thrown
        return thrown.Message
    }
}

; The strict verifier, step by step as tests/vectors/README.md describes it. The first step that fails gives the reason.
class LicenseTokens {
    static Issuer := "protecao"
    static Leeway := 300        ; seconds by which a customer's clock may be behind before it counts
    static _MaxCharacters := 65536
    static _Verdict := "iss=text iat=whole exp=whole jti=text act=text nonce=text rid=text? rh=text sub=text? "
        . "kh=text fp=text? aud=text? th=text? led=text code=text valid=flag lic_exp=whole? ent=texts uses=whole? "
        . "max_uses=whole? node=text epoch=whole as_of=whole"
    static _Lease := "iss=text iat=whole nbf=whole exp=whole jti=text sub=text kh=text fp=text aud=text ent=texts "
        . "lic_exp=whole? grace_until=whole? led=text epoch=whole"

    ; The claims of a verdict that answers exactly this call. `bound`: act, nonce, requestId and fingerprint ("" where
    ; none was sent), bodyHash, keyHash, product. The nonce proves that it is fresh: its times are compared with no
    ; clock. Throws LicenseRefused.
    static Verdict(keys, token, bound) {
        claims := this._Claims(keys, token, "verdict+jwt", this._Verdict)
        this._Require("times", claims.iat.value < claims.exp.value)
        this._Require("iss", LicenseText.Same(claims.iss.value, this.Issuer))
        this._Require("aud", this._IsText(claims.aud, bound.product) || this._IsOfNoProduct(claims, bound.act))
        this._Require("act", LicenseText.Same(claims.act.value, bound.act))
        this._Require("nonce", LicenseText.Same(claims.nonce.value, bound.nonce))
        this._Require("rid", this._IsSent(claims.rid, bound.requestId))
        this._Require("rh", LicenseText.Same(claims.rh.value, bound.bodyHash))
        this._Require("kh", LicenseText.Same(claims.kh.value, bound.keyHash))
        this._Require("fp", this._IsSent(claims.fp, bound.fingerprint))
        return this._Plain(claims)
    }

    ; Whether `token` is the one whose hash is in the verdict, and not one that a relay put beside it.
    static IsTokenOf(claims, token) {
        isAscii := !RegExMatch(token, "[^\x01-\x7F]")
        return isAscii && LicenseText.Same(claims.th
            , LicenseBytes.Base64Url(LicenseCrypto.Sha256(LicenseBytes.Utf8(token))))
    }

    ; The claims of an offline token for this key, machine and product. CheckClock judges its times.
    static Lease(keys, token, bound) {
        claims := this._Claims(keys, token, "lease+jwt", this._Lease)
        this._Require("times", claims.iat.value < claims.exp.value && claims.nbf.value < claims.exp.value)
        this._Require("iss", LicenseText.Same(claims.iss.value, this.Issuer))
        this._Require("aud", LicenseText.Same(claims.aud.value, bound.product))
        this._Require("kh", LicenseText.Same(claims.kh.value, bound.keyHash))
        this._Require("fp", LicenseText.Same(claims.fp.value, bound.fingerprint))
        return this._Plain(claims)
    }

    ; Throws LicenseRefused where the token does not hold at `now`. `floor`: the highest time seen so far, "" for none.
    ; The leeway is for clocks that are behind: the end is `exp` to the second.
    static CheckClock(lease, now, floor) {
        this._Require("clock_tampered", floor == "" || floor <= now + this.Leeway)
        this._Require("not_yet_valid", lease.nbf <= now + this.Leeway)
        this._Require("expired", now < lease.exp)
    }

    ; The keys in a text: JWKs one after another, or a key set. [{kid, handle}]. Throws ValueError.
    static PinnedKeys(text) {
        keys := []
        at := 1
        while (at := RegExMatch(text, "s)\{[^{}]*\}", &found, at)) {
            keys.Push(this._PinnedKey(found[0]))
            at += StrLen(found[0])
        }
        if (!keys.Length)
            throw ValueError("License: publicKeys: no JWK was found in the text")
        return keys
    }

    static _PinnedKey(text) {
        try {
            jwk := LicenseJson.Members(LicenseBytes.Utf8(text))
            x := LicenseBytes.FromBase64Url(LicenseJson.TextOf(jwk, "x"))
            y := LicenseBytes.FromBase64Url(LicenseJson.TextOf(jwk, "y"))
            kid := LicenseJson.TextOf(jwk, "kid")
            isOurs := LicenseJson.TextOf(jwk, "kty") == "EC" && LicenseJson.TextOf(jwk, "crv") == "P-256"
            if (isOurs && kid != "" && x.Size = 32 && y.Size = 32)
                return {kid: kid, handle: LicenseCrypto.PublicKey(x, y)}
        } catch as thrown {
        }
        throw ValueError("License: publicKeys: this is no public key for ES256 with a kid: " . SubStr(text, 1, 60))
    }

    static _Claims(keys, token, typ, types) {
        parts := StrSplit(token, ".")
        this._Require("malformed", StrLen(token) <= this._MaxCharacters && parts.Length <= 3)
        this._Require("truncated", parts.Length = 3)
        header := this._Decoded(parts[1])
        payload := this._Decoded(parts[2])
        signature := this._Decoded(parts[3])
        handle := this._Key(keys, this._Object(header, "header"), typ)
        this._Require("signature_length", signature.Size = 64)
        hash := LicenseCrypto.Sha256(LicenseBytes.Utf8(parts[1] . "." . parts[2]))
        this._Require("signature", LicenseCrypto.Verifies(handle, hash, signature))
        return this._Typed(this._Object(payload, "claims"), types)
    }

    ; The pinned key that the header names. Other members are ignored, above all a key in the header itself.
    static _Key(keys, header, typ) {
        this._Require("alg", LicenseText.Same(LicenseJson.TextOf(header, "alg"), "ES256"))
        this._Require("crit", !LicenseJson.Find(header, "crit"))
        this._Require("typ", LicenseText.Same(LicenseJson.TextOf(header, "typ"), typ))
        kid := LicenseJson.TextOf(header, "kid")
        for index, key in keys
            if (LicenseText.Same(key.kid, kid))
                return key.handle
        this._Require("kid", false)
    }

    static _Decoded(part) {
        bytes := LicenseBytes.FromBase64Url(part)
        this._Require("base64", IsObject(bytes))
        return bytes
    }

    ; The JSON object in some bytes. `otherwise`: the reason for the refusal when there is none.
    static _Object(bytes, otherwise) {
        try
            node := LicenseJson.Parse(LicenseBytes.FromUtf8(bytes))
        catch as refused
            throw LicenseRefused.Expect(refused) == "duplicate_member" ? refused : LicenseRefused.Because(otherwise)
        this._Require(otherwise, node.kind == "object")
        return node
    }

    ; The claims by name. Each has to be of its type, and present unless its type ends in "?". None may be null, which
    ; RFC 7519 does not provide for.
    static _Typed(object, types) {
        claims := {}, wanted := []
        for index, each in StrSplit(types, " ")
            wanted.Push(StrSplit(each, "="))
        for index, each in wanted {
            node := LicenseJson.Find(object, each[1])
            node := IsObject(node) ? node : {kind: "absent", value: ""}
            this._Require("claims", node.kind != "null" && this._IsPresent(node, each[2]))
            claims.%each[1]% := node
        }
        for index, each in wanted
            if (SubStr(each[2], 1, 5) == "whole")
                this._Require("number", this._IsOf(claims.%each[1]%, each[2]))
        for index, each in wanted
            this._Require("claims", this._IsOf(claims.%each[1]%, each[2]))
        return claims
    }

    ; Whether a claim is present, or optional.
    static _IsPresent(node, type) {
        return node.kind != "absent" || InStr(type, "?")
    }

    static _IsOf(node, type) {
        if (node.kind == "absent")
            return this._IsPresent(node, type)
        type := RTrim(type, "?")
        if (type != "texts")
            return node.kind == type
        if (node.kind != "array")
            return false
        for index, each in node.values
            if (each.kind != "text")
                return false
        return true
    }

    ; The claims as plain values: one that was left out is "", a list an array.
    static _Plain(claims) {
        plain := {}
        for name, node in claims.OwnProps() {
            if (node.kind == "array") {
                list := []
                for index, each in node.values
                    list.Push(each.value)
                plain.%name% := list
            } else
                plain.%name% := node.value
        }
        return plain
    }

    ; Whether the verdict may name no product: the key is unknown, and the call carried no product.
    static _IsOfNoProduct(claims, act) {
        return claims.aud.kind == "absent" && claims.sub.kind == "absent" && claims.code.value == "NOT_FOUND"
            && act != "validate" && act != "activate"
    }

    ; Whether a claim is the text that was sent; where none was sent, whether the claim is absent.
    static _IsSent(node, text) {
        return text == "" ? node.kind == "absent" : this._IsText(node, text)
    }

    static _IsText(node, text) {
        return node.kind == "text" && LicenseText.Same(node.value, text)
    }

    static _Require(reason, holds) {
        if (!holds)
            throw LicenseRefused.Because(reason)
    }
}
