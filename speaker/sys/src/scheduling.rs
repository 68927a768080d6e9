//! How soon a thread runs when it is woken.

use std::io;
use std::time::Duration;

/// What the kernel is told: the part of `struct sched_attr` (`sched_setattr(2)`) that every version knows.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Octets of it (`SCHED_ATTR_SIZE_VER0`).
const SIZE: u32 = 48;

/// Asks for slices of this length (the kernel takes 0.1 to 100 ms) for the calling thread, whose policy and niceness stay. One that runs
/// for short times is let in earlier when others are busy, and its share stays the same: since Linux 6.12 a slice says how soon, not how
/// much. Needs no privilege. Kernels before that take it and do nothing.
///
/// # Errors
/// Where the kernel or a seccomp filter refuses it.
pub fn set_slice(slice: Duration) -> io::Result<()> {
    let mut attributes = Attributes::default();
    // SAFETY: the pointer is to a structure of the size that is given, which lives until the call returns; 0 means this thread.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: as above; the kernel reads it only.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_is_as_long_as_the_kernel_is_told() {
        assert_eq!(size_of::<Attributes>(), SIZE as usize);
    }

    #[test]
    fn a_thread_may_ask_for_shorter_slices_and_keeps_its_policy() {
        set_slice(Duration::from_micros(100)).unwrap();
        let mut attributes = Attributes::default();
        // SAFETY: as in `set_slice`.
        let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
        assert_eq!((got, attributes.policy, attributes.nice), (0, 0, 0));
    }
}
