//! Where things are.

use std::path::{Path, PathBuf};

/// The root of the checkout.
///
/// Taken from where Cargo started us, not from where we were compiled, so that a binary in a target directory that
/// several clones share never touches another clone.
pub fn root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}
