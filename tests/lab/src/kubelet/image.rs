//! The images that a node can run, each with the programs that it stands for. The lab has no registry.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::tool;

/// Where Berth's binaries are, when they are not beside the running one.
pub const BIN_DIR_ENV: &str = "BERTH_BIN_DIR";

/// The image of users' pods: [`Pod`](crate::Pod) serves them, and the kubelets leave them alone.
pub(crate) const USER_IMAGE: &str = "lab";

/// What is in an image, beside what every container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Image {
    /// One of Berth's binaries, at the root, as built from this checkout.
    Built(&'static str),
    /// A shell and a few of the system's tools in `/bin`, for tests of the kubelet itself.
    Shell,
}

/// Repository of an image, and what is in it. Tags are not looked at: there is one build.
const IMAGES: &[(&str, Image)] = &[
    ("berth-controller", Image::Built("berth-controller")),
    ("berth-speaker", Image::Built("berth-speaker")),
    ("lab-shell", Image::Shell),
];

/// What a shell test needs.
const SHELL_TOOLS: &[&str] = &["sh", "cat", "id", "ls", "sleep", "touch"];

/// A program of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// Where it is in the lab.
    pub source: PathBuf,
    /// Where it is in the container.
    pub target: String,
}

impl Image {
    /// The image of that name, such as `berth-speaker:v0.1.0`, with or without a registry in front.
    pub(crate) fn find(name: &str) -> Option<Self> {
        let last = name.rsplit('/').next().unwrap_or(name);
        let repository = last.split([':', '@']).next().unwrap_or(last);
        IMAGES.iter().find(|(known, _)| *known == repository).map(|(_, image)| *image)
    }

    /// All names, for a message.
    pub(crate) fn known() -> String {
        IMAGES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// Its programs.
    pub(crate) fn programs(self) -> Result<Vec<Program>> {
        match self {
            Self::Built(name) => Ok(vec![Program { source: bin_dir()?.join(name), target: format!("/{name}") }]),
            Self::Shell => SHELL_TOOLS
                .iter()
                .map(|name| Ok(Program { source: find_tool(name)?, target: format!("/bin/{name}") }))
                .collect(),
        }
    }
}

fn find_tool(name: &str) -> Result<PathBuf> {
    let candidates = tool::PATH.split(':').map(|dir| Path::new(dir).join(name));
    let found = candidates.into_iter().find(|path| path.exists());
    found.with_context(|| format!("`{name}` is not in {}", tool::PATH))
}

/// Where Berth's binaries are.
pub(crate) fn bin_dir() -> Result<PathBuf> {
    let dir = if let Some(dir) = std::env::var_os(BIN_DIR_ENV) {
        PathBuf::from(dir)
    } else {
        let binary = std::env::current_exe().context("finding the running binary")?;
        let dir = binary.parent().context("the running binary is in no directory")?;
        // A test's binary is in `deps`, one level down.
        if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_path_buf() } else { dir.to_path_buf() }
    };
    for (name, image) in IMAGES {
        if *image == Image::Built(name) && !dir.join(name).exists() {
            bail!(
                "{} is not there: run `cargo build -p berth-controller -p berth-speaker`, or set {BIN_DIR_ENV}",
                dir.join(name).display()
            );
        }
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_repository() {
        for (name, image) in [
            ("berth-speaker:v0.1.0", Some(Image::Built("berth-speaker"))),
            ("registry.example:5000/berth/berth-controller@sha256:00", Some(Image::Built("berth-controller"))),
            ("lab-shell", Some(Image::Shell)),
            ("berth-speaker-2:v0.1.0", None),
            ("lab", None),
            ("", None),
        ] {
            assert_eq!(Image::find(name), image, "{name}");
        }
    }
}
