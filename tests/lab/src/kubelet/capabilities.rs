//! The capabilities that a container gets, as container runtimes work them out.

/// Names by number, as in capabilities(7) and without `CAP_`.
const NAMES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd and CRI-O agree on giving a container that says nothing.
const DEFAULT: &[&str] =
    &["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE"];

const ALL: &str = "ALL";

/// The set of bits after additions and drops; a single name has precedence over `ALL`. An unknown name is the error.
pub(crate) fn applied(add: &[String], drop: &[String]) -> Result<u64, String> {
    let every = (1 << NAMES.len()) - 1;
    let has_all = |names: &[String]| names.iter().any(|name| name == ALL);
    let mut set = match (has_all(add), has_all(drop)) {
        (true, _) => every,
        (false, true) => 0,
        (false, false) => bits(DEFAULT.iter().copied())?,
    };
    let named = |names: &[String]| bits(names.iter().map(String::as_str).filter(|name| *name != ALL));
    set |= named(add)?;
    set &= !named(drop)?;
    Ok(set)
}

fn bits<'a>(names: impl Iterator<Item = &'a str>) -> Result<u64, String> {
    let mut set = 0;
    for name in names {
        let short = name.strip_prefix("CAP_").unwrap_or(name);
        let number = NAMES.iter().position(|known| *known == short).ok_or_else(|| name.to_owned())?;
        set |= 1 << number;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_and_drops_are_applied_as_runtimes_do() {
        let names = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (add, drop, set) in [
            ("", "", Ok(0x5fb)),
            ("", "ALL", Ok(0)),
            ("NET_RAW", "ALL", Ok(1 << 13)),
            ("CAP_NET_RAW", "ALL", Ok(1 << 13)),
            ("", "KILL", Ok(0x5db)),
            ("ALL", "", Ok((1 << 41) - 1)),
            ("ALL", "CHOWN", Ok((1 << 41) - 2)),
            ("FLY", "", Err("FLY".to_owned())),
        ] {
            assert_eq!(applied(&names(add), &names(drop)), set, "add {add:?} drop {drop:?}");
        }
    }
}
