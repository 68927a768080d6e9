//! Memory that a process has freed and the C library keeps for later.

/// Gives it back to the kernel, as far as it lies in whole pages. To be called after something that needed much more than what stays, such as
/// reading a long list. Takes a few milliseconds at the most, and does nothing where the C library is not glibc.
pub fn return_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number and no pointer, may be called at any time and from any thread, and touches free memory alone.
    unsafe {
        libc::malloc_trim(0);
    }
}
