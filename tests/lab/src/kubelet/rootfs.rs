//! What a container sees: a root of its own with its program, its volumes, the system's libraries, and nothing else of the host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, pivot_root};

use super::image::Program;
use crate::controlplane::SCRATCH;
use crate::state::is_user_namespace;

/// What a dynamically linked program needs of the system. A link is made again as a link.
const LIBRARIES: &[&str] = &["/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"];
/// What every container runtime offers of `/dev`, as far as a daemon needs it.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

/// A directory of the lab in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    pub source: PathBuf,
    /// Absolute, as the container sees it.
    pub target: String,
    pub read_only: bool,
}

/// What a root is made of.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    pub programs: Vec<Program>,
    pub binds: Vec<Bind>,
    pub read_only: bool,
}

impl Root {
    /// Makes it the root of the calling thread, whose mount namespace is its own already.
    pub(crate) fn enter(&self) -> Result<()> {
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("keeping mounts to itself")?;
        let root = Path::new(SCRATCH).join("root");
        fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
        let data = Some("mode=755");
        mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::MS_NOSUID, data).context("mounting a root")?;
        for dir in ["proc", "sys", "dev", "etc", "usr", "tmp"] {
            fs::create_dir(root.join(dir)).with_context(|| format!("making /{dir}"))?;
        }
        for path in LIBRARIES {
            library(&root, Path::new(path))?;
        }
        // Of the network namespace that the thread is in.
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
        mount(Some("sysfs"), &root.join("sys"), Some("sysfs"), flags, none).context("mounting /sys")?;
        devices(&root.join("dev"))?;
        if is_user_namespace()? {
            // There, the kernel lets a new /proc be mounted only where one can be seen in full already (mount_namespaces(7)). The
            // container's own is laid over it, and nobody in it has the right to take that off.
            bind_to(Path::new("/proc"), &root.join("proc"), false)?;
        }
        for program in &self.programs {
            bind_file(&program.source, &inside(&root, &program.target), true)?;
        }
        for bind in &self.binds {
            let target = inside(&root, &bind.target);
            fs::create_dir_all(&target).with_context(|| format!("making {}", bind.target))?;
            bind_to(&bind.source, &target, bind.read_only)?;
        }
        if self.read_only {
            read_only(&root)?;
        }
        // pivot_root(2): with the same directory for both, the old root lies over the new one and can be taken off.
        chdir(&root).context("entering the root")?;
        pivot_root(".", ".").context("changing the root")?;
        umount2(".", MntFlags::MNT_DETACH).context("leaving the lab's root")?;
        chdir("/").context("entering the root")?;
        Ok(())
    }
}

fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn library(root: &Path, path: &Path) -> Result<()> {
    let target = inside(root, &path.to_string_lossy());
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if meta.is_symlink() {
        let to = fs::read_link(path).with_context(|| format!("reading {}", path.display()))?;
        return symlink(to, &target).with_context(|| format!("linking {}", path.display()));
    }
    if meta.is_file() {
        return bind_file(path, &target, true);
    }
    fs::create_dir_all(&target).with_context(|| format!("making {}", path.display()))?;
    bind_to(path, &target, true)
}

fn devices(dev: &Path) -> Result<()> {
    for name in DEVICES {
        // Where it is itself a bind mount, as in a user namespace, a device cannot be made.
        bind_file(&Path::new("/dev").join(name), &dev.join(name), false)?;
    }
    for (link, to) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        symlink(to, dev.join(link)).with_context(|| format!("linking /dev/{link}"))?;
    }
    Ok(())
}

fn bind_file(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    if let Some(dir) = target.parent() {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    fs::write(target, "").with_context(|| format!("making {}", target.display()))?;
    bind_to(source, target, read_only)
}

fn bind_to(source: &Path, target: &Path, is_read_only: bool) -> Result<()> {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .with_context(|| format!("binding {}", source.display()))?;
    if is_read_only { read_only(target) } else { Ok(()) }
}

/// mount_namespaces(7): in a user namespace, the flags that a mount has already cannot be taken away, so they are given again.
fn read_only(mounted: &Path) -> Result<()> {
    let present = statvfs(mounted).with_context(|| format!("reading {}", mounted.display()))?.flags();
    let kept = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let kept =
        kept.iter().filter(|(flag, _)| present.contains(*flag)).fold(MsFlags::empty(), |all, (_, flag)| all | *flag);
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | kept;
    let none = None::<&str>;
    mount(none, mounted, none, flags, none).with_context(|| format!("making {} read-only", mounted.display()))
}
