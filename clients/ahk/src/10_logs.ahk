; == 10. Logs ==========================================================================================================

; The three log files, in %TEMP% by default: one line an event, "UTC time <tab> server <tab> reason". Never a key.
class LicenseLogs {
    static Limit := 1000000     ; bytes: a longer file is renamed to .old, in place of the last one

    __New(folder) {
        this.folder := folder
    }

    ; A server decided.
    Used(now, server, reason) {
        this._Line("license_server_used", now, server, reason)
    }

    ; A server did not decide, and the next one is asked.
    Failover(now, server, reason) {
        this._Line("license_server_failover", now, server, reason)
    }

    ; No server decided, and the saved token permits the program to run.
    Offline(now, reason) {
        this._Line("license_offline_success", now, "offline", reason)
    }

    _Line(name, now, server, reason) {
        path := this.folder . "\" . name
        size := 0
        ;@v1
        try FileGetSize, size, % path . ".txt"
        ;@v2
        try size := FileGetSize(path . ".txt")
        ;@end
        if (size > LicenseLogs.Limit)
            LicenseFiles.Move(path . ".txt", path . ".old")
        line := LicenseTime.Iso(now) . "`t" . server . "`t" . reason . "`n"
        LicenseFiles.Append(path . ".txt", LicenseBytes.Utf8(line))
    }
}
