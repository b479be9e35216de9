//! Memory that was needed only for a while.

/// Gives the kernel back what the heap holds and nobody uses any more, at once, and not only what lies at its end.
///
/// glibc alone can do so (`malloc_trim(3)`); with another C library nothing happens. What is locked in memory stays.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number of bytes to keep at the heap's end, any of which will do, and may be called by any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
