//! The volumes of a pod: directories of the lab, filled from the API server and kept up to date.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount, ServiceAccountTokenProjection, Volume,
};
use kube::api::PostParams;
use kube::{Api, Client};
use nix::unistd::{Uid, chown};

use super::downward::{Addresses, field};
use super::template::PodTemplate;
use crate::controlplane::SCRATCH;

/// The mode of files, unless the volume has one (0644).
const MODE: u32 = 0o644;
/// A token is for its user alone (0600), which the pod's containers share.
const TOKEN_MODE: u32 = 0o600;
/// Kubernetes' default lifetime of a projected token.
const TOKEN_SECONDS: i64 = 3600;
/// The part of a token's life after which a kubelet asks for the next one.
const TOKEN_RENEWED_AFTER: f64 = 0.8;
/// What names the present version of a volume's files, so that all change at once.
const PRESENT: &str = "..data";

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
struct VolumeFile {
    text: Vec<u8>,
    mode: u32,
    owner: Option<u32>,
}

/// The files of a volume, by their path in it.
type Files = BTreeMap<String, VolumeFile>;

/// A token that was asked for.
#[derive(Debug)]
struct Token {
    text: String,
    renew: Instant,
}

/// The volumes of one pod.
pub(crate) struct Volumes {
    client: Client,
    dir: PathBuf,
    template: PodTemplate,
    /// By volume and path.
    tokens: BTreeMap<(String, String), Token>,
    written: BTreeMap<String, Files>,
    version: u64,
}

impl Volumes {
    pub(crate) fn new(client: Client, template: PodTemplate) -> Result<Self> {
        let dir = Path::new(SCRATCH).join("pods").join(&template.uid);
        // Left by a node that crashed: a reboot empties what is in memory.
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("emptying {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self { client, dir, template, tokens: BTreeMap::new(), written: BTreeMap::new(), version: 0 })
    }

    /// The directory of a volume.
    pub(crate) fn source(&self, volume: &str) -> PathBuf {
        self.dir.join(volume)
    }

    /// Fetches what the volumes show and writes what has changed. What is missing is an error, to be tried again.
    pub(crate) async fn update(&mut self, pod: &Pod, addresses: &Addresses) -> Result<()> {
        for volume in self.template.volumes.clone() {
            let name = &volume.name;
            let source = self.source(name);
            if volume.empty_dir.is_some() {
                if !source.exists() {
                    fs::create_dir_all(&source).with_context(|| format!("making the volume {name}"))?;
                    fs::set_permissions(&source, fs::Permissions::from_mode(0o777))?;
                }
                continue;
            }
            let files = self.files(&volume, pod, addresses).await.with_context(|| format!("volume `{name}`"))?;
            if self.written.get(name) != Some(&files) {
                self.version += 1;
                write(&source, &files, self.version).with_context(|| format!("writing the volume `{name}`"))?;
                self.written.insert(name.clone(), files);
            }
        }
        Ok(())
    }

    async fn files(&mut self, volume: &Volume, pod: &Pod, addresses: &Addresses) -> Result<Files> {
        let mut files = Files::new();
        let mode = |mode: Option<i32>, default: u32| mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default);
        if let Some(secret) = &volume.secret {
            let name = secret.secret_name.as_deref().unwrap_or_default();
            let data = self.secret(name, secret.optional).await?;
            add(&mut files, name, data, secret.items.as_deref(), mode(secret.default_mode, MODE), secret.optional)?;
        } else if let Some(config_map) = &volume.config_map {
            let (name, optional) = (&config_map.name, config_map.optional);
            let data = self.config_map(name, optional).await?;
            add(&mut files, name, data, config_map.items.as_deref(), mode(config_map.default_mode, MODE), optional)?;
        } else if let Some(downward) = &volume.downward_api {
            let items = downward.items.as_deref().unwrap_or_default();
            add_fields(&mut files, items, mode(downward.default_mode, MODE), pod, addresses)?;
        } else if let Some(projected) = &volume.projected {
            let default = mode(projected.default_mode, MODE);
            for source in projected.sources.iter().flatten() {
                if let Some(token) = &source.service_account_token {
                    let file = self.token(&volume.name, token).await?;
                    files.insert(plain(&token.path)?, file);
                }
                if let Some(config_map) = &source.config_map {
                    let data = self.config_map(&config_map.name, config_map.optional).await?;
                    let items = config_map.items.as_deref();
                    add(&mut files, &config_map.name, data, items, default, config_map.optional)?;
                }
                if let Some(secret) = &source.secret {
                    let data = self.secret(&secret.name, secret.optional).await?;
                    add(&mut files, &secret.name, data, secret.items.as_deref(), default, secret.optional)?;
                }
                if let Some(downward) = &source.downward_api {
                    add_fields(&mut files, downward.items.as_deref().unwrap_or_default(), default, pod, addresses)?;
                }
            }
        } else {
            bail!("this kind is not known to the lab's kubelet");
        }
        Ok(files)
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, Vec<u8>>> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.template.namespace);
        match secrets.get_opt(name).await? {
            Some(secret) => Ok(secret.data.unwrap_or_default().into_iter().map(|(key, data)| (key, data.0)).collect()),
            None if optional == Some(true) => Ok(BTreeMap::new()),
            None => bail!("there is no Secret `{name}`"),
        }
    }

    async fn config_map(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, Vec<u8>>> {
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.template.namespace);
        match config_maps.get_opt(name).await? {
            Some(found) => {
                let texts = found.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
                let bytes = found.binary_data.unwrap_or_default().into_iter().map(|(key, data)| (key, data.0));
                Ok(texts.chain(bytes).collect())
            }
            None if optional == Some(true) => Ok(BTreeMap::new()),
            None => bail!("there is no ConfigMap `{name}`"),
        }
    }

    /// A token of the pod's ServiceAccount that is bound to the pod, and so names its node; the present one while it is fresh.
    async fn token(&mut self, volume: &str, wanted: &ServiceAccountTokenProjection) -> Result<VolumeFile> {
        let key = (volume.to_owned(), wanted.path.clone());
        if self.tokens.get(&key).is_none_or(|token| token.renew <= Instant::now()) {
            let token = self.request_token(wanted).await?;
            self.tokens.insert(key.clone(), token);
        }
        let token = self.tokens.get(&key).map(|token| token.text.clone()).unwrap_or_default();
        let mut users = self.template.containers.iter().map(|container| container.user);
        let first = users.next();
        let same = users.all(|user| Some(user) == first);
        let (mode, owner) = if same { (TOKEN_MODE, first) } else { (MODE, None) };
        Ok(VolumeFile { text: token.into_bytes(), mode, owner })
    }

    async fn request_token(&self, wanted: &ServiceAccountTokenProjection) -> Result<Token> {
        let template = &self.template;
        let seconds = wanted.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        let spec = TokenRequestSpec {
            audiences: wanted.audience.iter().cloned().collect(),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(template.name.clone()),
                uid: Some(template.uid.clone()),
            }),
            expiration_seconds: Some(seconds),
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &template.namespace);
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let account = &template.service_account;
        let asked = Instant::now();
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("asking for a token of ServiceAccount `{account}`"))?;
        let text = answer.status.context("the API server gave no token")?.token;
        // What was asked for is at most what was given.
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        Ok(Token { text, renew: asked + life.mul_f64(TOKEN_RENEWED_AFTER) })
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        // What cannot be removed goes with the lab.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Adds the keys of an object: all of them, or those that are listed.
fn add(
    files: &mut Files,
    name: &str,
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default: u32,
    optional: Option<bool>,
) -> Result<()> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        files.extend(data.into_iter().map(|(key, text)| (key, VolumeFile { text, mode: default, owner: None })));
        return Ok(());
    };
    for item in items {
        match data.remove(&item.key) {
            Some(text) => {
                let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default);
                files.insert(plain(&item.path)?, VolumeFile { text, mode, owner: None });
            }
            None if optional == Some(true) => {}
            None => bail!("`{name}` has no key `{}`", item.key),
        }
    }
    Ok(())
}

fn add_fields(
    files: &mut Files,
    items: &[DownwardAPIVolumeFile],
    default: u32,
    pod: &Pod,
    addresses: &Addresses,
) -> Result<()> {
    for item in items {
        let path = item.field_ref.as_ref().map(|field| field.field_path.as_str()).unwrap_or_default();
        let text = field(pod, addresses, path).map_err(|error| anyhow!(error))?.into_bytes();
        let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default);
        files.insert(plain(&item.path)?, VolumeFile { text, mode, owner: None });
    }
    Ok(())
}

/// The API server refuses the others already.
fn plain(path: &str) -> Result<String> {
    if path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..") {
        bail!("`{path}` is not a plain relative path");
    }
    Ok(path.to_owned())
}

/// As kubelets do: files are links through one link to the present version, which is replaced at once.
fn write(dir: &Path, files: &Files, version: u64) -> Result<()> {
    let name = format!("..{version}");
    for (path, file) in files {
        let to = dir.join(&name).join(path);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&to, &file.text)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(file.mode))?;
        if let Some(owner) = file.owner {
            // In a user namespace that has no other user, the container's user is this one under another number.
            match chown(&to, Some(Uid::from_raw(owner)), None) {
                Err(nix::errno::Errno::EINVAL) => {}
                other => other?,
            }
        }
    }
    fs::create_dir_all(dir.join(&name))?;
    let before = fs::read_link(dir.join(PRESENT)).ok();
    let next = dir.join("..next");
    symlink(&name, &next)?;
    fs::rename(&next, dir.join(PRESENT))?;
    let tops: std::collections::BTreeSet<_> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for entry in fs::read_dir(dir)? {
        let entry = entry?.file_name();
        let entry = entry.to_string_lossy();
        if !entry.starts_with("..") && !tops.contains(entry.as_ref()) {
            fs::remove_file(dir.join(entry.as_ref()))?;
        }
    }
    for top in tops {
        let link = dir.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(PRESENT).join(top), &link)?;
        }
    }
    if let Some(before) = before {
        fs::remove_dir_all(dir.join(before))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_changes_all_its_files_at_once_and_loses_what_is_gone() {
        let dir = std::env::temp_dir().join(format!("berth-lab-volume-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = |text: &str| VolumeFile { text: text.as_bytes().to_vec(), mode: 0o600, owner: None };
        let read = |path: &str| fs::read_to_string(dir.join(path)).ok();
        write(&dir, &Files::from([("a".to_owned(), file("1")), ("d/b".to_owned(), file("2"))]), 1).unwrap();
        assert_eq!((read("a"), read("d/b")), (Some("1".to_owned()), Some("2".to_owned())));
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o600);
        write(&dir, &Files::from([("a".to_owned(), file("3"))]), 2).unwrap();
        assert_eq!((read("a"), read("d/b")), (Some("3".to_owned()), None));
        assert!(!dir.join("d").exists() && !dir.join("..1").exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_listed_key_has_its_own_path_and_a_missing_one_is_an_error() {
        let data = BTreeMap::from([("k".to_owned(), b"v".to_vec()), ("other".to_owned(), Vec::new())]);
        let item = |key: &str| vec![KeyToPath { key: key.to_owned(), mode: Some(0o400), path: "p".to_owned() }];
        let mut files = Files::new();
        add(&mut files, "c", data.clone(), Some(&item("k")), MODE, None).unwrap();
        assert_eq!(
            files,
            Files::from([("p".to_owned(), VolumeFile { text: b"v".to_vec(), mode: 0o400, owner: None })])
        );
        assert!(add(&mut files, "c", data.clone(), Some(&item("none")), MODE, None).is_err());
        add(&mut files, "c", data, Some(&item("none")), MODE, Some(true)).unwrap();
    }
}
