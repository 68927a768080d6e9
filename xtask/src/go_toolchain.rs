//! The Go toolchain that builds the lab's control plane: the one in `PATH` when it is new enough, else one fetched as
//! a Go module by whatever older Go there is.
//!
//! Go's toolchains are published as versions of the module `golang.org/toolchain`, checked like every module against
//! the checksum database. Only a Go of 1.21 or later knows what to do with one, and Debian 12 has 1.19, so the two things that
//! it would do are done here: a module has no executable files, and every `go.mod` in it is named `_go.mod`.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::progress::{Progress, seconds};
use crate::setup::{self, Missing};
use crate::workspace;

/// The toolchain that is fetched when there is none that is new enough.
const FETCHED: Version = Version { major: 1, minor: 26, patch: 8 };

/// The Debian package with some Go in it.
const PACKAGE: &str = "golang-go";

/// Environment variable that names the `go` to use.
const GO_VARIABLE: &str = berth_lab::controlplane::binary::GO_ENV;

/// A release of Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u16,
    minor: u16,
    patch: u16,
}

impl Version {
    /// Reads `1.26.8`, `go1.26.8`, `go1.27rc1` or `devel go1.28-abcdef`.
    fn parse(text: &str) -> Option<Self> {
        let start = text.find("go1").map_or(0, |at| at + 2);
        let mut numbers = text.get(start..)?.splitn(3, '.').map(leading_number);
        let version = Self {
            major: numbers.next()??,
            minor: numbers.next()??,
            patch: numbers.next().flatten().unwrap_or_default(),
        };
        Some(version)
    }
}

fn leading_number(text: &str) -> Option<u16> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What Go there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Go {
    /// One that can build the control plane.
    Ready(PathBuf),
    /// An older one, by which that one can be fetched.
    Old(PathBuf),
    /// None.
    Missing(Missing),
}

/// Looks for a Go, and changes nothing.
pub fn look() -> anyhow::Result<Go> {
    let required = required()?;
    if let Some(named) = std::env::var_os(GO_VARIABLE) {
        let named = PathBuf::from(named);
        return match version_of(&named) {
            Some(version) if version >= required => Ok(Go::Ready(named)),
            Some(version) => bail!("{GO_VARIABLE} names Go {version}, and Go {required} or newer is needed"),
            None => bail!("{GO_VARIABLE} is `{}`, which is no working go", named.display()),
        };
    }
    let present = workspace::find_program("go").and_then(|go| Some((version_of(&go)?, go)));
    let fetched = home()?.join("bin/go");
    Ok(match present {
        Some((version, go)) if version >= required => Go::Ready(go),
        _ if version_of(&fetched) == Some(FETCHED) => Go::Ready(fetched),
        Some((_, go)) => Go::Old(go),
        None => Go::Missing(Missing {
            what: format!("Go {required} or newer (in PATH, or named by {GO_VARIABLE})"),
            package: PACKAGE,
        }),
    })
}

/// A `go` that can build the control plane; fetches it where there is only an older one.
pub fn ready(progress: &Progress) -> anyhow::Result<PathBuf> {
    let bootstrap = match look()? {
        Go::Ready(go) => return Ok(go),
        Go::Old(go) => go,
        Go::Missing(missing) => bail!("there is no {}", missing.what),
    };
    let home = home()?;
    fetch(progress, &bootstrap, &home)?;
    let go = home.join("bin/go");
    if version_of(&go) != Some(FETCHED) {
        bail!("Go {FETCHED} was fetched into `{}` but does not run; delete that folder and try again", home.display());
    }
    Ok(go)
}

/// Where the fetched toolchain is.
fn home() -> anyhow::Result<PathBuf> {
    Ok(workspace::cache_dir()?.join("go").join(FETCHED.to_string()))
}

/// The version that the control plane's `go.mod` asks for.
fn required() -> anyhow::Result<Version> {
    let path = workspace::root().join("tests/controlplane/go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
    required_by(&text).with_context(|| format!("`{}` has no line such as `go 1.26.0`", path.display()))
}

fn required_by(go_mod: &str) -> Option<Version> {
    go_mod.lines().find_map(|line| Version::parse(line.strip_prefix("go ")?))
}

/// The version of a `go`, or nothing when it does not run.
fn version_of(go: &Path) -> Option<Version> {
    let output = command(go).args(["env", "GOVERSION"]).output().ok().filter(|output| output.status.success())?;
    Version::parse(String::from_utf8_lossy(&output.stdout).trim())
}

/// Makes a process build with this `go`, and with no other that it would fetch by itself.
pub fn environment(process: &mut Command, go: &Path) {
    process.env(GO_VARIABLE, go).env("GOTOOLCHAIN", "local").env_remove("GOROOT");
}

/// A `go` that is itself and not another version that it would fetch, outside of any module.
fn command(go: &Path) -> Command {
    let mut command = Command::new(go);
    command.env("GOTOOLCHAIN", "local").env("GO111MODULE", "on").env_remove("GOROOT").current_dir("/");
    command
}

/// Fetches the toolchain into `home`, whole or not at all.
fn fetch(progress: &Progress, bootstrap: &Path, home: &Path) -> anyhow::Result<()> {
    let parent = home.parent().context("the cache folder has no parent")?;
    let name = module_version()?;
    progress.step(format_args!("fetching Go {FETCHED} as a module, with `{}`", bootstrap.display()));
    let before = progress.elapsed();

    // An own module cache beside the goal: it can be moved instead of copied, and nothing stays behind.
    let modules = parent.join(format!(".fetch-{}", std::process::id()));
    fs::create_dir_all(&modules).with_context(|| format!("creating `{}`", modules.display()))?;
    let fetched = fetch_into(bootstrap, &modules, &name).and_then(|folder| {
        make_runnable(&folder)?;
        match fs::rename(&folder, home) {
            // Another xtask was quicker.
            Err(_) if home.join("bin/go").exists() => Ok(()),
            outcome => outcome.with_context(|| format!("moving the toolchain to `{}`", home.display())),
        }
    });
    fs::remove_dir_all(&modules).with_context(|| format!("removing `{}`", modules.display()))?;
    fetched?;
    progress.seen(format_args!(
        "Go {FETCHED} is in `{}` after {}",
        home.display(),
        seconds(progress.elapsed().saturating_sub(before))
    ));
    Ok(())
}

/// The toolchain's version in the module's own words.
fn module_version() -> anyhow::Result<String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("install Go {FETCHED} or newer yourself: which toolchain is for `{other}` is not known here"),
    };
    Ok(format!("v0.0.1-go{FETCHED}.linux-{architecture}"))
}

fn fetch_into(bootstrap: &Path, modules: &Path, version: &str) -> anyhow::Result<PathBuf> {
    let module = format!("golang.org/toolchain@{version}");
    let mut download = command(bootstrap);
    // Without this flag the module cache is read-only, and could not be moved.
    download.args(["mod", "download", &module]).env("GOMODCACHE", modules).env("GOFLAGS", "-modcacherw");
    setup::run_quietly(&mut download, &format!("go mod download {module}"))?;
    Ok(modules.join(module))
}

/// Does what a newer Go does to a toolchain that came as a module.
fn make_runnable(folder: &Path) -> anyhow::Result<()> {
    visit(folder, &mut |path| {
        if path.file_name().is_some_and(|name| name == "_go.mod") {
            let goal = path.with_file_name("go.mod");
            fs::copy(path, &goal).with_context(|| format!("writing `{}`", goal.display()))?;
        }
        let inside = path.strip_prefix(folder).unwrap_or(path);
        if inside.starts_with("bin") || inside.starts_with("pkg/tool") {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("making `{}` executable", path.display()))?;
        }
        Ok(())
    })
}

fn visit(folder: &Path, each_file: &mut impl FnMut(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading `{}`", folder.display()))?;
    let paths = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    for path in paths {
        if path.is_dir() { visit(&path, each_file)? } else { each_file(&path)? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u16, minor: u16, patch: u16) -> Version {
        Version { major, minor, patch }
    }

    #[test]
    fn versions_are_read_in_every_form_that_go_writes() {
        let cases = [
            ("go1.26.8", Some(version(1, 26, 8))),
            ("1.26.0", Some(version(1, 26, 0))),
            ("go1.19", Some(version(1, 19, 0))),
            ("go1.27rc1", Some(version(1, 27, 0))),
            ("devel go1.28-0123abc Mon", Some(version(1, 28, 0))),
            ("go1.26.8 X:nocoverageredesign", Some(version(1, 26, 8))),
            ("", None),
            ("go", None),
            ("1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Version::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version(1, 9, 7) < version(1, 19, 0));
        assert!(version(1, 26, 8) < version(1, 26, 10));
        assert!(version(1, 26, 10) < version(2, 0, 0));
    }

    #[test]
    fn what_is_fetched_is_new_enough_for_the_control_plane() {
        assert!(FETCHED >= required().unwrap());
    }

    #[test]
    fn the_go_line_of_a_go_mod_is_found() {
        let go_mod = "module controlplane\n\ngo 1.26.0\n\nrequire (\n\tgo.etcd.io/etcd v3.6.8\n)\n";
        assert_eq!(required_by(go_mod), Some(version(1, 26, 0)));
        assert_eq!(required_by("module controlplane\n"), None);
    }

    #[test]
    fn a_toolchain_from_a_module_becomes_runnable() {
        let folder = std::env::temp_dir().join(format!("berth-toolchain-{}", std::process::id()));
        let files = ["bin/go", "pkg/tool/linux_amd64/compile", "src/_go.mod", "src/main.go"];
        for file in files {
            fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
            fs::write(folder.join(file), file).unwrap();
        }
        make_runnable(&folder).unwrap();
        let mode = |file: &str| folder.join(file).metadata().unwrap().permissions().mode() & 0o111;
        let modes = files.map(mode);
        let go_mod = fs::read_to_string(folder.join("src/go.mod"));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(modes, [0o111, 0o111, 0, 0]);
        assert_eq!(go_mod.unwrap(), "src/_go.mod");
    }
}
