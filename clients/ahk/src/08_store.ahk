; == 8. What is kept ===================================================================================================

; The files: the offline token, this machine's fingerprint, and the floors (the highest times seen, `signed` by a server
; and on this machine's own `clock`), which are in the registry as well. All are encrypted by DPAPI for this Windows
; user. clients/ahk/README.md describes the formats. What is read is trusted only as far as it can be verified.
class LicenseStore {
    __New(folder, registry, product, keyHash) {
        name := RegExReplace(product, "[^A-Za-z0-9._-]", "_")
        this.folder := folder, this.product := product, this.keyHash := keyHash
        this.tokenFile := folder . "\" . name . "-" . SubStr(keyHash, 1, 16) . ".token"
        this.floorFile := folder . "\" . name . ".floor"
        this.machineFile := folder . "\" . name . ".machine"
        this.floorKey := registry . "\" . name
    }

    ; The saved token; "" for none; "unreadable" while another program holds its file. One whose file holds anything
    ; else is "damaged", which no verifier accepts.
    Token() {
        if (!FileExist(this.tokenFile))
            return ""
        sealed := LicenseFiles.Read(this.tokenFile)
        if (!IsObject(sealed))
            return "unreadable"
        token := LicenseJson.TextOf(this._Opened(sealed), "token")
        return token == "" ? "damaged" : token
    }

    SaveToken(token, fingerprint, server) {
        this._Write(this.tokenFile, '{"format":1,"product":' . LicenseJson.Quoted(this.product) . ',"kh":"'
            . this.keyHash . '","fp":"' . fingerprint . '","server":' . LicenseJson.Quoted(server)
            . ',"token":' . LicenseJson.Quoted(token) . "}")
    }

    DeleteToken() {
        LicenseFiles.Delete(this.tokenFile)
    }

    ; The time that a clock must not be far below: the higher of the two floors; "" where there is none.
    Floor() {
        floors := this._Floors()
        return this._Higher(floors.signed, floors.clock)
    }

    ; Sets the floors after a verdict, signed at `signed` while this machine's clock showed `clock`. Its nonce proves
    ; that it is fresh, so a floor well above `signed` came from a server whose clock was wrong.
    SettleFloors(signed, clock) {
        before := this._Floors().signed
        keeps := before != "" && signed < before && before <= signed + LicenseTokens.Leeway
        this._KeepFloors({signed: keeps ? before : signed, clock: clock})
    }

    ; Raises the floor of this machine's clock when the saved token is used, so that a clock set back later does not
    ; prolong it.
    RaiseLocalFloor(clock) {
        floors := this._Floors()
        this._KeepFloors({signed: floors.signed, clock: this._Higher(floors.clock, clock)})
    }

    ; The saved fingerprint and the parts of this machine that it was made of: {fingerprint, parts}, or "".
    Machine() {
        kept := this._Read(this.machineFile)
        parts := StrSplit(LicenseJson.TextOf(kept, "parts"), " ")
        return parts.Length != 3 ? "" : {fingerprint: LicenseJson.TextOf(kept, "fp"), parts: parts}
    }

    SaveMachine(fingerprint, parts) {
        list := parts[1] . " " . parts[2] . " " . parts[3]
        this._Write(this.machineFile, '{"format":1,"fp":"' . fingerprint . '","parts":"' . list . '"}')
    }

    ; Both floors, each the higher of file and registry; "" for none.
    _Floors() {
        one := this._FloorsInFile(), two := this._FloorsInRegistry()
        return {signed: this._Higher(one.signed, two.signed), clock: this._Higher(one.clock, two.clock)}
    }

    ; Writes the floors to file and registry, where these are missing, damaged or different.
    _KeepFloors(floors) {
        json := this._JsonOf(floors)
        if (!LicenseText.Same(this._JsonOf(this._FloorsInFile()), json))
            this._Write(this.floorFile, json)
        if (LicenseText.Same(this._JsonOf(this._FloorsInRegistry()), json))
            return
        sealed := this._Dpapi("CryptProtectData", LicenseBytes.Utf8(json))
        LicenseRegistry.Write(this.floorKey, "floor", LicenseBytes.Base64(sealed))
    }

    _JsonOf(floors) {
        return '{"format":1,"floor":' . (floors.signed == "" ? "null" : floors.signed) . ',"local":'
            . (floors.clock == "" ? "null" : floors.clock) . "}"
    }

    _FloorsInFile() {
        return this._FloorsIn(this._Read(this.floorFile))
    }

    _FloorsInRegistry() {
        text := LicenseRegistry.Read(this.floorKey, "floor")
        sealed := text == "" ? "" : LicenseBytes.FromBase64(text, Buffer(StrLen(text)))
        opened := this._Dpapi("CryptUnprotectData", sealed ? sealed : Buffer(0))
        return this._FloorsIn(LicenseJson.Members(opened))
    }

    _FloorsIn(members) {
        signed := LicenseJson.NumberOf(members, "floor"), clock := LicenseJson.NumberOf(members, "local")
        return {signed: signed != "" && signed >= 0 ? signed : "", clock: clock != "" && clock >= 0 ? clock : ""}
    }

    ; "" is lower than any number.
    _Higher(one, two) {
        return one == "" ? two : two == "" ? one : one > two ? one : two
    }

    ; The object in a file; an empty one where it cannot be read.
    _Read(path) {
        sealed := LicenseFiles.Read(path)
        return this._Opened(IsObject(sealed) ? sealed : Buffer(0))
    }

    _Opened(sealed) {
        return LicenseJson.Members(this._Dpapi("CryptUnprotectData", sealed))
    }

    ; Replaces a file atomically. A write that fails changes no verdict. Two copies of a script may write the same file,
    ; so each writes under a name of its own first.
    _Write(path, json) {
        sealed := this._Dpapi("CryptProtectData", LicenseBytes.Utf8(json))
        made := path . "." . DllCall("GetCurrentProcessId", "UInt") . ".new"
        try DirCreate(this.folder)
        if (!sealed.Size || !LicenseFiles.Write(made, sealed) || !LicenseFiles.Move(made, path))
            DllCall("DeleteFile", "Str", made)
    }

    ; Encrypts or decrypts bytes; none where DPAPI fails.
    _Dpapi(function, bytes) {
        LicenseLibraries.Load()
        given := Buffer(2 * A_PtrSize, 0), made := Buffer(2 * A_PtrSize, 0)
        NumPut("UInt", bytes.Size, given.Ptr, 0)
        NumPut("Ptr", bytes.Ptr, given.Ptr, A_PtrSize)
        if (!bytes.Size || !DllCall("crypt32\" . function, "Ptr", given.Ptr, "Ptr", 0, "Ptr", 0, "Ptr", 0, "Ptr", 0
            , "UInt", 1, "Ptr", made.Ptr))
            return Buffer(0)
        address := NumGet(made.Ptr, A_PtrSize, "Ptr")
        out := Buffer(NumGet(made.Ptr, 0, "UInt"))
        DllCall("RtlMoveMemory", "Ptr", out.Ptr, "Ptr", address, "Ptr", out.Size)
        DllCall("LocalFree", "Ptr", address)
        return out
    }
}

; File access that never blocks: only regular files are opened, never a pipe, a device, a directory or a link under the
; file's name. Any of these reads as empty and is not written to. A file that another program holds, as a virus scanner
; does for a moment, is tried again for a while.
class LicenseFiles {
    static _MaxSize := 1000000
    static _Denied := 0x410     ; attributes: a directory, a reparse point
    static _Patience := 150     ; milliseconds for which a file that is held is tried again

    ; The bytes of a file; none where there is none to read; "" where another program holds it.
    static Read(path) {
        end := LicenseTime.Ticks() + this._Patience
        Loop {
            handle := this._Open(path, 0x80000000, 3)       ; reads an existing file
            error := handle ? 0 : A_LastError
            if (error != 32 && error != 33)
                break
            if (!this._MayTryAgain(error, end))
                return ""
        }
        if (!handle)
            return Buffer(0)
        size := 0, count := 0
        DllCall("GetFileSizeEx", "Ptr", handle, "Int64*", &size)
        bytes := Buffer(size <= this._MaxSize ? size : 0)
        if (bytes.Size)
            DllCall("ReadFile", "Ptr", handle, "Ptr", bytes.Ptr, "UInt", bytes.Size, "UInt*", &count, "Ptr", 0)
        DllCall("CloseHandle", "Ptr", handle)
        return count = bytes.Size ? bytes : Buffer(0)
    }

    ; Writes a new file in place of an old one. Whether all of it was written.
    static Write(path, bytes) {
        DllCall("DeleteFile", "Str", path)
        return this._Put(this._Open(path, 0x40000000, 1), bytes)    ; creates the file
    }

    ; Appends to a file, or makes it. Whether all of it was written.
    static Append(path, bytes) {
        return this._Put(this._Open(path, 4, 4), bytes)
    }

    ; Renames a file, in place of one under the new name, but not of a directory. Whether that succeeded.
    static Move(path, to) {
        end := LicenseTime.Ticks() + this._Patience
        Loop {
            if (DllCall("MoveFileEx", "Str", path, "Str", to, "UInt", 1))
                return true
            if (!this._MayTryAgain(A_LastError, end))
                return false
        }
    }

    static Delete(path) {
        end := LicenseTime.Ticks() + this._Patience
        Loop
            if (DllCall("DeleteFile", "Str", path) || !this._MayTryAgain(A_LastError, end))
                return
    }

    ; Whether an error says that another program has the file now; then waits a moment, until `end` at most.
    static _MayTryAgain(error, end) {
        if (error != 5 && error != 32 && error != 33 || LicenseTime.Ticks() >= end)
            return false
        DllCall("Sleep", "UInt", 10)                        ; AutoHotkey's own would let a timer in between
        return true
    }

    ; A handle, or 0. Others may read, write and delete the file meanwhile. 0x300000: a link is opened itself and not
    ; its target, and the server of a pipe cannot act as this user.
    static _Open(path, access, how) {
        handle := DllCall("CreateFile", "Str", path, "UInt", access, "UInt", 7, "Ptr", 0, "UInt", how
            , "UInt", 0x300000, "Ptr", 0, "Ptr")
        if (handle = -1)
            return 0
        about := Buffer(52, 0)
        if (DllCall("GetFileType", "Ptr", handle, "UInt") = 1
            && DllCall("GetFileInformationByHandle", "Ptr", handle, "Ptr", about.Ptr)
            && !(NumGet(about.Ptr, 0, "UInt") & this._Denied))
            return handle
        DllCall("CloseHandle", "Ptr", handle)
        return 0
    }

    static _Put(handle, bytes) {
        if (!handle)
            return false
        count := 0
        DllCall("WriteFile", "Ptr", handle, "Ptr", bytes.Ptr, "UInt", bytes.Size, "UInt*", &count, "Ptr", 0)
        DllCall("CloseHandle", "Ptr", handle)
        return count = bytes.Size
    }
}

; Values of the registry as texts. `try`, because what fails here would otherwise throw in the caller's try block.
class LicenseRegistry {
    ; "" for a value that is not there.
    static Read(key, name) {
        ;@v1
        value := ""
        try RegRead, value, % key, % name
        return value
        ;@v2
        return RegRead(key, name, "")
        ;@end
    }

    static Write(key, name, text) {
        ;@v1
        try RegWrite, REG_SZ, % key, % name, % text
        ;@v2
        try RegWrite(text, "REG_SZ", key, name)
        ;@end
    }

    static Delete(key, name) {
        ;@v1
        try RegDelete, % key, % name
        ;@v2
        try RegDelete(key, name)
        ;@end
    }
}
