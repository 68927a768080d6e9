//! What a container's process of the lab does between fork and exec: the steps that only the new process itself can take.
//!
//! It is the first process of a new PID namespace (so `/proc` can be mounted by nobody else), and it gives up its rights as
//! the last thing before the program begins. All else about a container is prepared by its parent, in safe code.

use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;

/// Rights and user of a container's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confinement {
    /// Its user.
    pub user: u32,
    /// Its group.
    pub group: u32,
    /// Whether it has no other groups. Where the caller is root of a user namespace that has no other user, the kernel lets nobody
    /// set groups (`user_namespaces(7)`).
    pub drops_groups: bool,
    /// Whether user and group exist only in a user namespace of its own, as where the caller is root of a user namespace that has no
    /// other user.
    pub own_user_namespace: bool,
    /// Its capabilities as a set of bits by their numbers in capabilities(7). No other can ever be had.
    pub capabilities: u64,
    /// Whether exec can give it nothing that it does not have.
    pub no_new_privileges: bool,
}

/// Lets the command begin as the first process of its PID namespace, confined. The caller has made that namespace
/// (`unshare(CLONE_NEWPID)`), a mount namespace in which `/proc` is an empty directory, and has all rights over both.
pub fn confine(command: &mut Command, to: Confinement) {
    // SAFETY: the closure makes system calls on numbers and on texts that are there already; it takes no lock, allocates nothing,
    // and touches no memory of the parent.
    unsafe {
        command.pre_exec(move || {
            mount_proc()?;
            new_session()?;
            if to.own_user_namespace {
                enter_user_namespace(to.user, to.group)?;
            }
            give_up(to)
        });
    }
}

fn new_session() -> io::Result<()> {
    call(|| {
        // SAFETY: takes no argument and no memory.
        unsafe { libc::setsid() }
    })
}

/// `/proc` of the own PID namespace, with the kernel's settings read-only, as container runtimes mount it.
fn mount_proc() -> io::Result<()> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(c"proc", c"/proc", c"proc", flags)?;
    mount(c"/proc/sys", c"/proc/sys", c"none", libc::MS_BIND)?;
    mount(c"none", c"/proc/sys", c"none", libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | flags)
}

/// `user_namespaces(7)`: whoever makes one may map one user and one group to its own, once it gives up setgroups(2).
fn enter_user_namespace(user: u32, group: u32) -> io::Result<()> {
    call(|| {
        // SAFETY: takes a number.
        unsafe { libc::unshare(libc::CLONE_NEWUSER) }
    })?;
    write(c"/proc/self/setgroups", b"deny")?;
    let mut line = [0; MAP_LINE_MAX];
    write(c"/proc/self/uid_map", map_line(user, &mut line))?;
    write(c"/proc/self/gid_map", map_line(group, &mut line))
}

fn give_up(to: Confinement) -> io::Result<()> {
    for capability in 0..u64::BITS {
        if to.capabilities & (1 << capability) == 0 && !drop_from_bounding_set(capability)? {
            break;
        }
    }
    if to.drops_groups {
        call(|| {
            // SAFETY: no groups, so nothing is read.
            unsafe { libc::setgroups(0, ptr::null()) }
        })?;
    }
    // The raw calls: the C library's would change all threads, and tell them by signals; a forked process has none.
    call_raw(|| {
        // SAFETY: takes numbers.
        unsafe { libc::syscall(libc::SYS_setresgid, to.group, to.group, to.group) }
    })?;
    call_raw(|| {
        // SAFETY: takes numbers.
        unsafe { libc::syscall(libc::SYS_setresuid, to.user, to.user, to.user) }
    })?;
    // Leaving root behind has taken all capabilities away (capabilities(7)); only root keeps those of the template.
    set_capabilities(if to.user == 0 { to.capabilities } else { 0 })?;
    if to.no_new_privileges {
        call(|| {
            // SAFETY: takes numbers.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }
        })?;
    }
    Ok(())
}

/// False where the kernel knows no capability of that number, nor any above.
fn drop_from_bounding_set(capability: u32) -> io::Result<bool> {
    let dropped = call(|| {
        // SAFETY: takes numbers.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) }
    });
    match dropped {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        other => other.map(|()| true),
    }
}

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`; version 3 takes two, the low 32 bits first.
#[repr(C)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Permitted and effective; nothing is inheritable, so nothing is ambient either.
fn set_capabilities(set: u64) -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let half = |bits: u64| {
        let [a, b, c, d, ..] = bits.to_le_bytes();
        let bits = u32::from_le_bytes([a, b, c, d]);
        CapabilityData { effective: bits, permitted: bits, inheritable: 0 }
    };
    let data = [half(set), half(set >> u32::BITS)];
    call_raw(|| {
        // SAFETY: both structures are of the layout that version 3 says, and live until the call returns.
        unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }
    })
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    call(|| {
        // SAFETY: three texts that end in zero, and no data.
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, ptr::null()) }
    })
}

/// Writes in one call, as the files of user namespaces want it.
fn write(path: &CStr, text: &[u8]) -> io::Result<()> {
    // SAFETY: a text that ends in zero.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the buffer is as long as said.
    let written = unsafe { libc::write(file, text.as_ptr().cast(), text.len()) };
    let result = if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: opened above and closed once.
    unsafe { libc::close(file) };
    result
}

/// Ten digits and ` 0 1`.
const MAP_LINE_MAX: usize = 14;

/// `<number> 0 1`: one number, which is the caller's own root. Made without allocation.
fn map_line(mut number: u32, line: &mut [u8; MAP_LINE_MAX]) -> &[u8] {
    let (digits, tail) = line.split_at_mut(MAP_LINE_MAX - 4);
    tail.copy_from_slice(b" 0 1");
    let mut begin = digits.len();
    loop {
        begin -= 1;
        digits[begin] = b"0123456789"[(number % 10) as usize];
        number /= 10;
        if number == 0 {
            return &line[begin..];
        }
    }
}

fn call(work: impl FnOnce() -> libc::c_int) -> io::Result<()> {
    if work() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn call_raw(work: impl FnOnce() -> libc::c_long) -> io::Result<()> {
    if work() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_map_names_the_number_the_callers_root_and_one() {
        for (number, line) in [(0, &b"0 0 1"[..]), (65532, b"65532 0 1"), (u32::MAX, b"4294967295 0 1")] {
            assert_eq!(map_line(number, &mut [0; MAP_LINE_MAX]), line);
        }
    }
}
