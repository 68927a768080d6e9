//! `cargo xtask check-dependencies`: holds what is really built against `deny.toml`.
//!
//! cargo-deny does the same and more, but takes minutes to install; these are the three checks that need no network:
//! banned crates, licences, sources. What is built comes from `cargo tree`, because `cargo metadata` also lists optional
//! dependencies that no feature turns on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use crate::{output, workspace};

/// How Cargo names the public registry, behind its protocol and host.
const PUBLIC_REGISTRY: &str = "/crates.io-index";

/// The part of `deny.toml` that is enforced here. A field that is not known is refused rather than ignored.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    deny: Vec<Ban>,
    /// Two versions of a crate are only a warning, which is cargo-deny's to give.
    #[serde(rename = "multiple-versions")]
    _multiple_versions: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

/// Only `deny` is offered for both, so there is nothing to decide.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    unknown_registry: Denied,
    unknown_git: Denied,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Denied {
    Deny,
}

/// A crate of the graph, as `cargo metadata` describes it.
#[derive(Clone, Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// Absent for crates of this workspace.
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// Checks the whole graph and names everything that is wrong with it.
pub fn run() -> anyhow::Result<ExitCode> {
    let path = workspace::root().join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
    let policy: Policy = toml::from_str(&text).with_context(|| format!("reading `{}`", path.display()))?;
    let packages = built_packages(&policy.graph.targets)?;
    let complaints = check(&policy, &packages)?;
    for complaint in &complaints {
        output::line(format_args!("error: {complaint}"));
    }
    if complaints.is_empty() {
        output::line(format_args!("{} crates: none banned, all licences allowed, all sources known", packages.len()));
        return Ok(ExitCode::SUCCESS);
    }
    output::line("hint: the rules are in `deny.toml`; `cargo tree -i CRATE` says what pulls a crate in");
    Ok(ExitCode::FAILURE)
}

/// The crates that are compiled for one of the targets, with all features and tests.
fn built_packages(targets: &[String]) -> anyhow::Result<Vec<Package>> {
    let mut built = BTreeSet::new();
    for target in targets {
        let lines = cargo(&[
            "tree",
            "--locked",
            "--workspace",
            "--all-features",
            "--edges=normal,build,dev",
            "--prefix=none",
            "--format={p}",
            "--target",
            target,
        ])?;
        built.extend(lines.lines().filter_map(tree_line));
    }
    let mut arguments = vec!["metadata", "--locked", "--all-features", "--format-version=1"];
    for target in targets {
        arguments.extend(["--filter-platform", target]);
    }
    let metadata: Metadata =
        serde_json::from_str(&cargo(&arguments)?).context("reading the output of `cargo metadata`")?;
    let mut described: BTreeMap<_, _> = metadata
        .packages
        .into_iter()
        .map(|package| ((package.name.clone(), package.version.clone()), package))
        .collect();
    built
        .into_iter()
        .map(|key| {
            described.remove(&key).with_context(|| format!("`cargo metadata` does not describe {} {}", key.0, key.1))
        })
        .collect()
}

/// Name and version out of `serde v1.0.228` or `berth-api v0.1.0 (/path) (*)`.
fn tree_line(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace();
    let (name, version) = (words.next()?, words.next()?);
    Some((name.to_owned(), version.strip_prefix('v')?.to_owned()))
}

fn cargo(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(workspace::cargo())
        .args(arguments)
        .current_dir(workspace::root())
        .output()
        .with_context(|| format!("starting `cargo {}`", arguments.join(" ")))?;
    if !output.status.success() {
        bail!("`cargo {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("cargo printed something that is not UTF-8")
}

fn check(policy: &Policy, packages: &[Package]) -> anyhow::Result<Vec<String>> {
    let Sources { unknown_registry: Denied::Deny, unknown_git: Denied::Deny } = policy.sources;
    let allowed = policy
        .licenses
        .allow
        .iter()
        .map(|name| Licensee::parse(name).with_context(|| format!("`{name}` in `deny.toml` is no SPDX licence")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut complaints = Vec::new();
    for Package { name, version, license, source } in packages {
        if let Some(ban) = policy.bans.deny.iter().find(|ban| ban.name == *name) {
            complaints.push(format!("{name} {version} is banned: {}", ban.reason));
        }
        if let Err(complaint) = check_license(license.as_deref(), &allowed) {
            complaints.push(format!("{name} {version} {complaint}"));
        }
        if let Some(source) = source.as_deref().filter(|source| !source.ends_with(PUBLIC_REGISTRY)) {
            complaints.push(format!("{name} {version} comes from `{source}`, which is not the public registry"));
        }
    }
    Ok(complaints)
}

fn check_license(license: Option<&str>, allowed: &[Licensee]) -> Result<(), String> {
    let text = license.ok_or("names no licence")?;
    // Lax: old crates separate their choices by a slash.
    let expression = Expression::parse_mode(text, ParseMode::LAX)
        .map_err(|error| format!("has the licence `{text}`, which is no SPDX expression: {}", error.reason))?;
    if expression.evaluate(|required| allowed.iter().any(|licensee| licensee.satisfies(required))) {
        return Ok(());
    }
    Err(format!("has the licence `{text}`, which `deny.toml` does not allow"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        graph.targets = ["x86_64-unknown-linux-gnu"]
        licenses.allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
        bans = { multiple-versions = "warn", deny = [{ crate = "backoff", reason = "unmaintained" }] }
        sources = { unknown-registry = "deny", unknown-git = "deny" }
    "#;

    fn package(name: &str, license: Option<&str>, source: Option<&str>) -> Package {
        Package {
            name: name.into(),
            version: "1.0.0".into(),
            license: license.map(Into::into),
            source: source.map(Into::into),
        }
    }

    #[test]
    fn each_crate_is_held_against_bans_licences_and_sources() {
        let registry = Some("registry+https://registry.example/crates.io-index");
        let cases: [(Package, Option<&str>); 10] = [
            (package("serde", Some("MIT OR Apache-2.0"), registry), None),
            (package("old", Some("MIT/Apache-2.0"), registry), None),
            (package("wasi", Some("Apache-2.0 WITH LLVM-exception"), registry), None),
            (package("memchr", Some("Unlicense OR MIT"), registry), None),
            (package("berth-api", Some("Apache-2.0"), None), None),
            (package("backoff", Some("MIT"), registry), Some("banned: unmaintained")),
            (package("copyleft", Some("MIT AND GPL-3.0-only"), registry), Some("does not allow")),
            (package("nothing", None, registry), Some("names no licence")),
            (package("strange", Some("do what you want"), registry), Some("no SPDX expression")),
            (package("fork", Some("MIT"), Some("git+https://git.example/fork#abc")), Some("not the public registry")),
        ];
        let policy: Policy = toml::from_str(POLICY).unwrap();
        for (package, expected) in cases {
            let complaints = check(&policy, std::slice::from_ref(&package)).unwrap();
            match expected {
                None => assert_eq!(complaints, Vec::<String>::new(), "{package:?}"),
                Some(part) => {
                    assert!(complaints.len() == 1 && complaints[0].contains(part), "{package:?}: {complaints:?}");
                }
            }
        }
    }

    #[test]
    fn a_rule_that_this_check_does_not_know_is_refused() {
        let unknown = format!("{POLICY}\n[advisories]\nyanked = \"deny\"");
        assert!(toml::from_str::<Policy>(&unknown).is_err());
    }

    #[test]
    fn the_rules_of_this_checkout_can_be_read() {
        let text = fs::read_to_string(workspace::root().join("deny.toml")).unwrap();
        assert!(!toml::from_str::<Policy>(&text).unwrap().bans.deny.is_empty());
    }

    #[test]
    fn a_line_of_the_tree_gives_name_and_version() {
        let cases = [
            ("serde v1.0.228", Some(("serde", "1.0.228"))),
            ("berth-api v0.1.0 (/somewhere/api) (*)", Some(("berth-api", "0.1.0"))),
            ("serde_derive v1.0.228 (proc-macro)", Some(("serde_derive", "1.0.228"))),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(tree_line(line), expected.map(|(n, v)| (n.to_owned(), v.to_owned())), "{line:?}");
        }
    }
}
