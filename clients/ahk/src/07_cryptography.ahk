; == 7. Cryptography ===================================================================================================

; Windows CNG (bcrypt.dll). Bytes are objects with Ptr and Size.
class LicenseCrypto {
    static _Providers := Map()

    static Sha256(bytes) {
        return this._Hashed(this._Provider("SHA256", 0), "", bytes)
    }

    ; HMAC-SHA256.
    static Hmac(key, bytes) {
        return this._Hashed(this._Provider("SHA256", 8), key, bytes)
    }

    static Random(size) {
        LicenseLibraries.Load()
        bytes := Buffer(size)
        this._Check(DllCall("bcrypt\BCryptGenRandom", "Ptr", 0, "Ptr", bytes.Ptr, "UInt", size, "UInt", 2, "UInt"))
        return bytes
    }

    ; A handle of the point (x, y) of P-256, 32 bytes each.
    static PublicKey(x, y) {
        head := Buffer(8)
        ; BCRYPT_ECDSA_PUBLIC_P256_MAGIC: "ECS1"
        NumPut("UInt", 0x31534345, head.Ptr, 0)
        NumPut("UInt", 32, head.Ptr, 4)
        blob := LicenseBytes.Joined(LicenseBytes.Joined(head, x), y)
        handle := 0
        this._Check(DllCall("bcrypt\BCryptImportKeyPair", "Ptr", this._Provider("ECDSA_P256", 0), "Ptr", 0
            , "Str", "ECCPUBLICBLOB", "Ptr*", &handle, "Ptr", blob.Ptr, "UInt", blob.Size, "UInt", 0, "UInt"))
        return handle
    }

    ; Whether `signature`, r and s of 32 bytes each, is valid for the hash.
    static Verifies(handle, hash, signature) {
        return !DllCall("bcrypt\BCryptVerifySignature", "Ptr", handle, "Ptr", 0, "Ptr", hash.Ptr, "UInt", hash.Size
            , "Ptr", signature.Ptr, "UInt", signature.Size, "UInt", 0, "UInt")
    }

    static _Hashed(provider, key, bytes) {
        handle := 0, hash := Buffer(32)
        this._Check(DllCall("bcrypt\BCryptCreateHash", "Ptr", provider, "Ptr*", &handle, "Ptr", 0, "UInt", 0
            , "Ptr", key ? key.Ptr : 0, "UInt", key ? key.Size : 0, "UInt", 0, "UInt"))
        status := DllCall("bcrypt\BCryptHashData", "Ptr", handle, "Ptr", bytes.Ptr, "UInt", bytes.Size, "UInt", 0
            , "UInt")
        if (!status)
            status := DllCall("bcrypt\BCryptFinishHash", "Ptr", handle, "Ptr", hash.Ptr, "UInt", 32, "UInt", 0, "UInt")
        DllCall("bcrypt\BCryptDestroyHash", "Ptr", handle)
        this._Check(status)
        return hash
    }

    static _Provider(algorithm, flags) {
        LicenseLibraries.Load()
        name := algorithm . " " . flags
        if (!LicenseCrypto._Providers.Has(name)) {
            handle := 0
            this._Check(DllCall("bcrypt\BCryptOpenAlgorithmProvider", "Ptr*", &handle, "Str", algorithm, "Ptr", 0
                , "UInt", flags, "UInt"))
            LicenseCrypto._Providers[name] := handle
        }
        return LicenseCrypto._Providers[name]
    }

    static _Check(status) {
        if (status) {
            ;@v1
            throw Exception("License: CNG error " . Format("{:#x}", status))
            ;@v2
            throw OSError(status, -2, "License: CNG")
            ;@end
        }
    }
}

; The libraries of Windows that are called by name here, loaded from Windows' own folder before the first call: a
; planted library of the same name beside the program is never looked for. They stay loaded, so that their handles stay
; valid.
class LicenseLibraries {
    static _IsLoaded := false

    static Load() {
        if (!LicenseLibraries._IsLoaded)
            LicenseLibraries._IsLoaded := this._LoadAll()
    }

    static _LoadAll() {
        folder := Buffer(520, 0)
        DllCall("GetSystemDirectory", "Ptr", folder.Ptr, "UInt", 260)
        for index, name in ["bcrypt", "crypt32", "winhttp"] {
            path := StrGet(folder.Ptr, "UTF-16") . "\" . name . ".dll"
            ; With 0x800 their own dependencies come from there too; 8 is for a Windows 7 without that flag.
            if (!DllCall("LoadLibraryEx", "Str", path, "Ptr", 0, "UInt", 0x800, "Ptr")
                && !DllCall("LoadLibraryEx", "Str", path, "Ptr", 0, "UInt", 8, "Ptr")) {
                ;@v1
                throw Exception("License: " . name . " cannot be loaded, error " . A_LastError)
                ;@v2
                throw OSError(A_LastError, -1, "License: " . name)
                ;@end
            }
        }
        return true
    }
}

;@v1
; The Buffer of AutoHotkey v2: `size` bytes of memory, always zero at first.
class LicenseBuffer {
    __New(size, fill := 0) {
        this.SetCapacity("bytes", size < 8 ? 8 : size)
        this.Ptr := this.GetAddress("bytes")
        this.Size := size
        DllCall("RtlZeroMemory", "Ptr", this.Ptr, "Ptr", size)
    }
}

;@end
class LicenseBytes {
    static Utf8(text) {
        size := StrPut(text, "UTF-8")
        bytes := Buffer(size)
        StrPut(text, bytes.Ptr, size, "UTF-8")
        bytes.Size := size - 1
        return bytes
    }

    ; Throws LicenseRefused for what is not UTF-8, and for a NUL, which no JSON may hold.
    static FromUtf8(bytes) {
        if (!bytes.Size)
            return ""
        length := DllCall("MultiByteToWideChar", "UInt", 65001, "UInt", 8, "Ptr", bytes.Ptr, "Int", bytes.Size
            , "Ptr", 0, "Int", 0)
        wide := Buffer(2 * length + 2, 0)
        DllCall("MultiByteToWideChar", "UInt", 65001, "UInt", 8, "Ptr", bytes.Ptr, "Int", bytes.Size, "Ptr", wide.Ptr
            , "Int", length)
        text := StrGet(wide.Ptr, "UTF-16")
        if (!length || StrLen(text) != length)
            throw LicenseRefused.Because("json")
        return text
    }

    static Joined(one, two) {
        both := Buffer(one.Size + two.Size)
        DllCall("RtlMoveMemory", "Ptr", both.Ptr, "Ptr", one.Ptr, "Ptr", one.Size)
        DllCall("RtlMoveMemory", "Ptr", both.Ptr + one.Size, "Ptr", two.Ptr, "Ptr", two.Size)
        return both
    }

    static Base64(bytes) {
        LicenseLibraries.Load()
        size := 0
        DllCall("crypt32\CryptBinaryToString", "Ptr", bytes.Ptr, "UInt", bytes.Size, "UInt", 0x40000001, "Ptr", 0
            , "UInt*", &size)
        text := Buffer(2 * size, 0)
        DllCall("crypt32\CryptBinaryToString", "Ptr", bytes.Ptr, "UInt", bytes.Size, "UInt", 0x40000001
            , "Ptr", text.Ptr, "UInt*", &size)
        return StrGet(text.Ptr, "UTF-16")
    }

    static Base64Url(bytes) {
        return RTrim(StrReplace(StrReplace(this.Base64(bytes), "+", "-"), "/", "_"), "=")
    }

    ; Strict: only the alphabet, no padding, no impossible length, no unused bits that are not zero; else "".
    static FromBase64Url(text) {
        if (!RegExMatch(text, "^[A-Za-z0-9_-]*+\z") || Mod(StrLen(text), 4) = 1)
            return ""
        last := SubStr(text, StrLen(text)), unused := Mod(StrLen(text), 4)
        if (unused && !InStr(unused = 2 ? "AQgw" : "AEIMQUYcgkosw048", last, true))
            return ""
        bytes := Buffer(StrLen(text) * 3 // 4)
        if (text == "")
            return bytes
        return this.FromBase64(StrReplace(StrReplace(text, "-", "+"), "_", "/"), bytes)
    }

    ; The bytes of a base64 text, written to `bytes`, which has to be large enough; "" where the text is not base64.
    static FromBase64(text, bytes) {
        LicenseLibraries.Load()
        size := bytes.Size
        padded := text . SubStr("===", 1, Mod(4 - Mod(StrLen(text), 4), 4))
        if (!DllCall("crypt32\CryptStringToBinary", "Str", padded, "UInt", 0, "UInt", 1, "Ptr", bytes.Ptr
            , "UInt*", &size, "Ptr", 0, "Ptr", 0))
            return ""
        bytes.Size := size
        return bytes
    }
}
