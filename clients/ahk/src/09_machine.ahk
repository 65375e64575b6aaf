; == 9. This machine ===================================================================================================

; The fingerprint of this machine: the hash of three stable parts (the id of the Windows installation, the system
; volume, the board) as they were when it was made. It stays the same while the installation and one of the other two
; do: a new volume or a new board does not change it. Another installation of Windows changes it, and so do a new volume
; and a new board together, at once or one after the other. Network cards, users and this script's folder are no part of
; it.
class LicenseMachine {
    ; The saved fingerprint is used only where it is the hash of its parts and these match this machine; else a new one
    ; is made.
    static Fingerprint(product, store) {
        parts := this._Parts(product)
        kept := store.Machine()
        if (kept && LicenseText.Same(kept.fingerprint, this._Name(kept.parts)) && this._IsSame(kept.parts, parts))
            return kept.fingerprint
        fingerprint := this._Name(parts)
        store.SaveMachine(fingerprint, parts)
        return fingerprint
    }

    static _Name(parts) {
        return this._Hash(parts[1] . parts[2] . parts[3])
    }

    static _IsSame(kept, parts) {
        return LicenseText.Same(kept[1], parts[1])
            && (LicenseText.Same(kept[2], parts[2]) || LicenseText.Same(kept[3], parts[3]))
    }

    ; Hashed together with the product, so that two vendors cannot compare their customers.
    static _Parts(product) {
        before := A_RegView
        SetRegView(64)      ; the id is in the 64-bit view only
        guid := LicenseRegistry.Read("HKLM\SOFTWARE\Microsoft\Cryptography", "MachineGuid")
        board := "", volume := ""
        for index, name in ["SystemManufacturer", "SystemProductName", "BaseBoardManufacturer", "BaseBoardProduct"]
            board .= LicenseRegistry.Read("HKLM\HARDWARE\DESCRIPTION\System\BIOS", name) . "|"
        SetRegView(before)
        drive := EnvGet("SystemDrive")
        ;@v1
        try DriveGet, volume, Serial, % drive . "\"
        ;@v2
        try volume := DriveGetSerial(drive . "\")
        ;@end
        if (guid == "")
            throw Error("License: this Windows has no MachineGuid")
        return [this._Hash(product . "|guid|" . Format("{:L}", guid)), this._Hash(product . "|volume|" . volume)
            , this._Hash(product . "|board|" . board)]
    }

    static _Hash(text) {
        return SubStr(LicenseBytes.Base64Url(LicenseCrypto.Sha256(LicenseBytes.Utf8(text))), 1, 32)
    }
}
