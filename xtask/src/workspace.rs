//! Where things are: the checkout, the cache, programs.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Folders with programs for the administrator. They are not in everybody's `PATH`, but work for everybody in a user namespace.
const ADMIN_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The root of the checkout.
///
/// Taken from where Cargo started us, not from where we were compiled, so that a binary in a target directory that
/// several clones share never touches another clone.
pub fn root() -> PathBuf {
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// The cargo that started us, so that the pinned toolchain is used throughout.
pub fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Where what is slow to make is kept between clones: `BERTH_CACHE_DIR`, or `berth` in the user's cache folder.
pub fn cache_dir() -> anyhow::Result<PathBuf> {
    cache_dir_from(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)).context(
        "neither BERTH_CACHE_DIR nor XDG_CACHE_HOME nor HOME is set; set BERTH_CACHE_DIR to a folder for caches",
    )
}

fn cache_dir_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable("BERTH_CACHE_DIR")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("berth")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/berth")))
}

/// The program of that name, as the shell would find it or in a folder for the administrator's programs.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(ADMIN_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_lies_where_the_most_specific_variable_says() {
        let cases = [
            (&[("BERTH_CACHE_DIR", "/c"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h")][..], Some("/c")),
            (&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], Some("/x/berth")),
            (&[("HOME", "/h")], Some("/h/.cache/berth")),
            (&[], None),
        ];
        for (variables, expected) in cases {
            let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| PathBuf::from(v));
            assert_eq!(cache_dir_from(variable), expected.map(PathBuf::from), "{variables:?}");
        }
    }

    #[test]
    fn a_program_is_found_by_name_and_a_missing_one_is_not() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-such-program-as-this"), None);
    }
}
