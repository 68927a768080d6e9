//! What a fresh machine misses: installed on Debian, named exactly anywhere else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::progress::Progress;
use crate::{output, workspace};

/// A program that the lab runs, and the Debian package that has it.
struct Program {
    name: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const PROGRAMS: [Program; 6] = [
    Program { name: "nft", package: "nftables", purpose: "kube-proxy programs the nodes with it" },
    Program { name: "ip", package: "iproute2", purpose: "the lab lays its links with it" },
    Program { name: "unshare", package: "util-linux", purpose: "the lab's own namespaces" },
    Program { name: "nsenter", package: "util-linux", purpose: "to look into the lab's namespaces" },
    Program { name: "arping", package: "iputils-arping", purpose: "tests ask the lab's network who has an address" },
    Program { name: "curl", package: "curl", purpose: "the client of the demo" },
];

/// What tests run in a lab besides.
const DAEMONS: [Program; 2] = [
    Program { name: "bird", package: "bird2", purpose: "tests have it make routes known" },
    Program { name: "vtysh", package: "frr", purpose: "tests have it make routes known" },
];

/// Something that this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it is, for a person on any system.
    pub what: String,
    /// The Debian package that has it.
    pub package: &'static str,
}

/// How packages can be installed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Installer {
    /// Debian or a relative of it, as root.
    Apt,
    /// The same, by a sudo that asks for no password.
    SudoApt,
}

/// The programs that the lab needs and that are not there.
pub fn missing_programs() -> Vec<Missing> {
    missing_of(&PROGRAMS)
}

/// The routing daemons that tests need and that are not there.
pub fn missing_daemons() -> Vec<Missing> {
    missing_of(&DAEMONS)
}

/// The Python that runs moto, when it is not there with all that an environment of its own takes.
pub fn missing_python() -> Vec<Missing> {
    let look = Command::new("python3").args(["-c", "import ensurepip, venv"]).stdin(Stdio::null()).output();
    if look.is_ok_and(|look| look.status.success()) {
        return Vec::new();
    }
    let what = "python3-venv (`python3 -m venv`: moto, which answers in AWS's place, is installed in an environment of its own)";
    vec![Missing { what: what.to_owned(), package: "python3-venv" }]
}

fn missing_of(programs: &[Program]) -> Vec<Missing> {
    let missing = programs.iter().filter(|program| workspace::find_program(program.name).is_none());
    missing
        .map(|Program { name, package, purpose }| Missing { what: format!("{package} (`{name}`: {purpose})"), package })
        .collect()
}

/// Installs what is missing with Debian's packages, or says exactly what a person has to install.
pub fn install(progress: &Progress, missing: &[Missing]) -> anyhow::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let whats: Vec<_> = missing.iter().map(|missing| missing.what.as_str()).collect();
    let installer = match installer() {
        Ok(installer) => installer,
        Err(why) => bail!("this machine lacks {}; install it and run this again ({why})", whats.join(" and ")),
    };
    let mut packages: Vec<_> = missing.iter().map(|missing| missing.package).collect();
    packages.dedup();
    progress.step(format_args!("installing {} with apt-get", packages.join(", ")));
    apt_get(installer, &["update", "-q"])?;
    let options = ["install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"];
    apt_get(installer, &[&options[..], &packages].concat())?;
    silence(installer, &packages)?;
    let still = missing_programs().into_iter().chain(missing_daemons()).chain(missing_python());
    if let Some(still) = still.into_iter().find(|still| packages.contains(&still.package)) {
        bail!("apt-get installed {}, but there is still no {}", packages.join(", "), still.what);
    }
    progress.seen("installed");
    Ok(())
}

/// Routing daemons run in labs alone: Debian starts what it installs, and this machine asked for none.
fn silence(installer: Installer, packages: &[&str]) -> anyhow::Result<()> {
    let services = [("bird2", "bird.service"), ("frr", "frr.service")];
    let started: Vec<_> =
        services.iter().filter(|(package, _)| packages.contains(package)).map(|(_, unit)| *unit).collect();
    if started.is_empty() || !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    let mut command = as_root(installer, "systemctl");
    run_quietly(command.args(["disable", "--now"]).args(&started), "systemctl disable --now")
}

/// How packages can be installed here, or why they cannot.
fn installer() -> anyhow::Result<Installer> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !is_debian(&release) || workspace::find_program("apt-get").is_none() {
        bail!("on Debian it would be installed for you");
    }
    if nix::unistd::geteuid().is_root() {
        return Ok(Installer::Apt);
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if sudo.is_ok_and(|status| status.success()) {
        return Ok(Installer::SudoApt);
    }
    bail!("with root, or a sudo that asks for no password, it would be installed for you")
}

/// Whether an `/etc/os-release` speaks of Debian or a relative of it.
fn is_debian(os_release: &str) -> bool {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
    };
    value("ID") == "debian" || value("ID_LIKE").split_whitespace().any(|id| id == "debian")
}

fn apt_get(installer: Installer, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = as_root(installer, "apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    run_quietly(&mut command, &format!("apt-get {}", arguments.join(" ")))
}

fn as_root(installer: Installer, program: &str) -> Command {
    match installer {
        Installer::Apt => Command::new(program),
        Installer::SudoApt => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "--preserve-env=DEBIAN_FRONTEND", program]);
            sudo
        }
    }
}

/// Runs a command and shows its output only when it fails.
pub fn run_quietly(command: &mut Command, what: &str) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting `{what}`"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    output::line(String::from_utf8_lossy(&said).trim_end());
    bail!("`{what}` failed with {}; its output is above", output.status)
}

/// Someone who is not root needs a kernel that lets everybody make user namespaces.
pub fn namespaces_are_allowed() -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let unshare = workspace::find_program("unshare").unwrap_or_else(|| PathBuf::from("unshare"));
    let attempt = Command::new(unshare)
        .args(["--user", "--map-root-user", "--net", "--mount", "true"])
        .output()
        .context("starting `unshare`")?;
    if attempt.status.success() {
        return Ok(());
    }
    bail!(
        "you are not root and may not make user namespaces ({}); run this as root, or allow them with \
         `sysctl kernel.unprivileged_userns_clone=1` or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
        String::from_utf8_lossy(&attempt.stderr).trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_relatives_are_recognised_and_others_are_not() {
        let cases = [
            ("ID=debian\nVERSION_ID=\"12\"\n", true),
            ("NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n", true),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", true),
            ("ID='debian'\n", true),
            ("ID=fedora\nID_LIKE=\"rhel centos\"\n", false),
            ("PRETTY_NAME=\"like debian\"\nID=debianish\n", false),
            ("VARIANT_ID=debian\nID=alpine\n", false),
            ("", false),
        ];
        for (os_release, expected) in cases {
            assert_eq!(is_debian(os_release), expected, "{os_release:?}");
        }
    }
}
