//! The keys of the heartbeats: reads them from the directory that the Secret is mounted at, and reads them again when they change.
//!
//! The speaker has no right to read Secrets; the kubelet does it, and swaps the files of the directory all at once some time after the Secret
//! changed. Keys that were read once stay in use when the directory becomes empty or unreadable: what works is not given up because of
//! somebody's mistake.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_api::HeartbeatKeys;
use berth_api::heartbeat_keys::{KEY_BYTES, KEYS_MAX, KeysError, SECRET};
use berth_api::names::SPEAKER_NAMESPACE;
use berth_telemetry::Gate;
use berth_wire::heartbeat::envelope::KeyRing;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Between two looks. A kubelet takes about a minute to show a Secret's change, and a look costs a few system calls on files in memory.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The link by which a kubelet names the present version of a volume's files, all of which change with it.
const PRESENT: &str = "..data";

/// What is in a directory beside the files of the kubelet's own; more need not be read to know that they are too many.
const FILES_MAX: usize = KEYS_MAX + 1;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("in {}: {source}", path.display())]
    Keys { path: PathBuf, source: KeysError },
}

/// Follows the directory.
#[derive(Debug)]
pub(crate) struct Keys {
    directory: PathBuf,
    out: watch::Sender<Option<KeyRing>>,
    gate: Gate,
    metrics: Metrics,
    present: Option<HeartbeatKeys>,
    /// What was wrong at the last look; said once.
    trouble: Option<String>,
}

impl Keys {
    /// Of this directory. Looks once, so that what is there already is used from the start.
    pub(crate) fn new(directory: PathBuf, gate: Gate, metrics: Metrics) -> (Self, watch::Receiver<Option<KeyRing>>) {
        let (out, keys) = watch::channel(None);
        let mut this = Self { directory, out, gate, metrics, present: None, trouble: None };
        this.look();
        (this, keys)
    }

    /// Looks again and again until `end`.
    pub(crate) async fn run(mut self, end: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                _ = looks.tick() => self.look(),
            }
        }
    }

    fn look(&mut self) {
        match read(&self.directory) {
            Ok(keys) => {
                if self.trouble.take().is_some() && self.present.as_ref() == Some(&keys) {
                    tracing::info!(directory = %self.directory.display(), "the keys of the heartbeats can be read again");
                }
                if self.present.as_ref() != Some(&keys) {
                    tracing::info!(generations = ?keys.generations(), "keys of the heartbeats read");
                    self.metrics.heartbeat_key_generation.set(keys.newest().into());
                    self.out.send_replace(Some(KeyRing::new(&keys)));
                    self.present = Some(keys);
                    self.gate.open();
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &LookError) {
        let text = error.to_string();
        if self.trouble.as_ref() == Some(&text) {
            return;
        }
        if let Some(keys) = &self.present {
            tracing::warn!(%error, generations = ?keys.generations(), "keys of the heartbeats cannot be read; those of before stay in use");
        } else {
            let advice = format!(
                "{text}; mount the Secret {SECRET} of the namespace {SPEAKER_NAMESPACE} there, which the controller makes, or give every \
                 speaker --heartbeat-auth=off. Until then this node hears no partner and none hears it"
            );
            tracing::error!("no key to authenticate heartbeats with: {advice}");
            self.gate.close(&advice);
        }
        self.trouble = Some(text);
    }
}

/// Reads the keys in a directory.
fn read(directory: &Path) -> Result<HeartbeatKeys, LookError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| LookError::Io { path, source }
    };
    // The version that is present now, not one file of this and one of the next.
    let files = match fs::canonicalize(directory.join(PRESENT)) {
        Ok(version) => version,
        Err(error) if error.kind() == io::ErrorKind::NotFound => directory.to_owned(),
        Err(error) => return Err(io(directory)(error)),
    };
    let mut named = Vec::new();
    for entry in fs::read_dir(&files).map_err(io(directory))? {
        let entry = entry.map_err(io(directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("..") {
            continue;
        }
        let mut bytes = Vec::new();
        // One byte more tells one that is too long.
        let limit = KEY_BYTES as u64 + 1;
        let read = File::open(entry.path()).and_then(|file| file.take(limit).read_to_end(&mut bytes));
        read.map_err(io(&directory.join(&name)))?;
        named.push((name, bytes));
        if named.len() >= FILES_MAX {
            break;
        }
    }
    let named = named.iter().map(|(name, bytes)| (name.as_str(), &bytes[..]));
    HeartbeatKeys::parse(named).map_err(|source| LookError::Keys { path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use berth_telemetry::Health;

    use super::*;

    /// A directory that is gone when the test ends.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("berth-keys-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// As a kubelet does: the files of a version are in a directory of its own, to which a link leads that is swapped.
        fn show(&self, version: u32, files: Files<'_>) {
            let name = format!("..{version}");
            fs::create_dir_all(self.0.join(&name)).unwrap();
            for (file, bytes) in files {
                fs::write(self.0.join(&name).join(file), bytes).unwrap();
                let _ = symlink(Path::new(PRESENT).join(file), self.0.join(file));
            }
            symlink(&name, self.0.join("..next")).unwrap();
            fs::rename(self.0.join("..next"), self.0.join(PRESENT)).unwrap();
            let before = self.0.join(format!("..{}", version.wrapping_sub(1)));
            let _ = fs::remove_dir_all(before);
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Files with their names.
    type Files<'a> = &'a [(&'a str, &'a [u8])];
    /// The generations that are read, or a part of what is said.
    type Read<'a> = Result<Vec<u32>, &'a str>;

    const KEY: &[u8] = &[7; KEY_BYTES];
    const OTHER: &[u8] = &[8; KEY_BYTES];

    #[test]
    fn a_directory_holds_keys_or_it_is_said_what_is_wrong() {
        let table: [(&str, Files<'_>, Read<'_>); 6] = [
            ("one", &[("5", KEY)], Ok(vec![5])),
            ("two", &[("6", OTHER), ("5", KEY)], Ok(vec![5, 6])),
            ("none", &[], Err("there is no key")),
            ("long", &[("5", &[7; 500])], Err("key `5` has 33 bytes and must have 32")),
            ("name", &[("tls.key", KEY)], Err("`tls.key` is no generation")),
            (
                "many",
                &[("1", KEY), ("2", KEY), ("3", KEY), ("4", KEY), ("5", KEY), ("6", KEY)],
                Err("there are more than 4 keys"),
            ),
        ];
        for (name, files, expected) in table {
            let (plain, mounted) =
                (Directory::new(&format!("plain-{name}")), Directory::new(&format!("mounted-{name}")));
            for (file, bytes) in files {
                fs::write(plain.0.join(file), bytes).unwrap();
            }
            mounted.show(1, files);
            for directory in [plain, mounted] {
                match (read(&directory.0), &expected) {
                    (Ok(keys), Ok(generations)) => assert_eq!(&keys.generations(), generations, "{name}"),
                    (Err(error), Err(part)) => {
                        let text = error.to_string();
                        assert!(
                            text.contains(part) && text.contains(&directory.0.display().to_string()),
                            "{name}: {text}"
                        );
                    }
                    (read, _) => panic!("{name}: {read:?}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn keys_are_followed_and_those_that_were_read_stay_when_others_cannot_be() {
        let directory = Directory::new("followed");
        let health = Health::new();
        let mut registry = crate::metrics::registry();
        let metrics = Metrics::new(&mut registry);
        let (mut keys, ring) = Keys::new(directory.0.clone(), health.gate("keys"), metrics.clone());
        let state = |ring: &watch::Receiver<Option<KeyRing>>| {
            let newest = ring.borrow().as_ref().map(KeyRing::newest);
            (newest, health.waiting().len(), metrics.heartbeat_key_generation.get())
        };
        assert_eq!(state(&ring), (None, 1, 0));
        let (_, why) = health.waiting().remove(0);
        let path = directory.0.display().to_string();
        for part in [&path[..], "there is no key", "berth-heartbeat", "berth-speaker", "--heartbeat-auth=off"] {
            assert!(why.contains(part), "{part} in {why}");
        }

        let steps: [(Files<'_>, i64, &str); 6] = [
            (&[("1", KEY)], 1, "the first key"),
            (&[("1", KEY), ("2", OTHER)], 2, "a rotation"),
            (&[], 2, "all are gone"),
            (&[("x", KEY)], 2, "something else came"),
            (&[("2", OTHER), ("3", KEY)], 3, "a rotation while nothing could be read"),
            (&[("3", OTHER)], 3, "another key of that number"),
        ];
        for (version, (files, newest, why)) in (1..).zip(steps) {
            directory.show(version, files);
            keys.look();
            assert_eq!(state(&ring), (u32::try_from(newest).ok(), 0, newest), "{why}");
        }
        let mut ring = ring;
        ring.borrow_and_update();
        keys.look();
        assert!(!ring.has_changed().unwrap(), "what did not change is not handed on");
        fs::remove_dir_all(&directory.0).unwrap();
        keys.look();
        assert_eq!(state(&ring), (Some(3), 0, 3), "the directory is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_without_being_told_of() {
        let directory = Directory::new("seen");
        let mut registry = crate::metrics::registry();
        let (keys, mut ring) = Keys::new(directory.0.clone(), Health::new().gate("keys"), Metrics::new(&mut registry));
        let end = CancellationToken::new();
        let task = tokio::spawn(keys.run(end.clone()));
        // The first look, which finds nothing.
        tokio::task::yield_now().await;
        directory.show(1, &[("4", KEY)]);
        ring.changed().await.unwrap();
        assert_eq!(ring.borrow().as_ref().map(KeyRing::newest), Some(4));
        end.cancel();
        task.await.unwrap();
    }
}
