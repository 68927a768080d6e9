//! Heartbeats are believed from speakers alone: forgers, rotations of the key, a speaker without one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use berth_api::heartbeat_keys::{ROTATE, ROTATED_AT, SECRET};
use berth_api::names::{SPEAKER_NAME, SPEAKER_NAMESPACE};
use berth_lab::{BerthConfig, HTTP_PORT, Lab, PodEdit, lab_test};
use berth_wire::heartbeat::envelope::ENVELOPE_BYTES;
use berth_wire::heartbeat::{Body, Claim, Digest, Entries, Message, Stance};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use crate::cluster::{Cluster, GAP_LIMIT, SOON, answers};

const HEARTBEAT_PORT: u16 = 7480;
/// Longest wait for a heartbeat to overhear; one comes each 100 ms.
const OVERHEARD_LIMIT: Duration = Duration::from_secs(5);
/// What a busy machine adds to a connection of a client that nothing happens to.
const NO_GAP: Duration = Duration::from_millis(250);
/// Where the envelope's number is in a datagram.
const ENVELOPE_AT: usize = 7;
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// A machine on the LAN that has heard everything, knows no key, and sends as a speaker does.
struct Forger(UdpSocket);

impl Forger {
    fn on(lab: &Lab) -> Result<Self> {
        let socket = lab.client().netns.run(|| -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            // As one that is on the link.
            socket.set_ttl(255)?;
            Ok(socket)
        })??;
        Ok(Self(socket))
    }

    fn send(&self, bytes: &[u8], to: Ipv4Addr) -> Result<()> {
        self.0.send_to(bytes, (to, HEARTBEAT_PORT))?;
        Ok(())
    }
}

/// A heartbeat from one node to another, as it is on the wire.
fn overhear(lab: &Lab, from: &str, to: &str) -> Result<Vec<u8>> {
    let begin = Instant::now();
    lab.node(to)?.netns().run(|| -> Result<Vec<u8>> {
        // Gets a copy of every UDP datagram for this host, with its headers (raw(7)).
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
        socket.set_read_timeout(Some(OVERHEARD_LIMIT))?;
        let (mut bytes, name) = ([0; 2048], from.as_bytes());
        while begin.elapsed() < OVERHEARD_LIMIT {
            let length = std::io::Read::read(&mut &socket, &mut bytes)?;
            // Headers of IPv4 without options and of UDP. The sender's name and its length come behind 32 bytes.
            let datagram = bytes[..length].get(20 + 8..).unwrap_or_default();
            let sender = datagram.get(33..33 + name.len());
            if datagram.starts_with(b"BRTH") && datagram[32] as usize == name.len() && sender == Some(name) {
                return Ok(datagram.to_vec());
            }
        }
        bail!("no heartbeat from {from} at {to}")
    })?
}

/// What a datagram says, whatever it is in.
fn unwrapped(datagram: &[u8]) -> Result<Message> {
    let mut bytes = datagram.to_vec();
    if bytes[ENVELOPE_AT] != 0 {
        bytes.truncate(bytes.len() - ENVELOPE_BYTES);
        bytes[ENVELOPE_AT] = 0;
    }
    Ok(Message::parse(&bytes)?)
}

/// A claim of an address under a higher number, by the sender of a datagram that was overheard, and as new as can be.
fn claim(overheard: &[u8], address: Ipv4Addr, epoch: u64) -> Result<Message> {
    let genuine = unwrapped(overheard)?;
    let claim = Claim { address: address.into(), epoch, stance: Stance::Answers };
    let entries = Entries::split(&[claim]).next().context("one entry")?;
    let body = Body::Changes { digest: Digest::EMPTY.with(address.into(), epoch), count: 1, entries };
    Ok(Message { sequence: genuine.sequence + 1_000_000, body, ..genuine })
}

/// The value of a metric.
async fn metric(lab: &Lab, node: &str, name: &str) -> Result<u64> {
    let page = lab.speaker_metrics(node).await?;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name} in\n{page}"))?.parse()?)
}

async fn refused(lab: &Lab, node: &str, cause: &str) -> Result<u64> {
    metric(lab, node, &format!("berth_speaker_heartbeats_refused_total{{cause=\"{cause}\"}}")).await
}

lab_test! {
    async fn where_heartbeats_are_not_authenticated_whoever_is_on_the_link_takes_an_address_away(lab: Lab) -> Result<()> {
        let config = BerthConfig { speaker: PodEdit::args(&["--heartbeat-auth=off"]), ..BerthConfig::default() };
        let cluster = Cluster::start_with(lab.clone(), &config).await?;
        let (address, owner) = cluster.web(&NODES, json!({"externalTrafficPolicy": "Local"})).await?;
        let layer2 = cluster.settled(address, 2).await?.spec.layer2.context("an owner")?;
        ensure!(lab.speaker(&owner)?.logged()?.contains("heartbeats are not authenticated"), "it warns at the start");

        let overheard = overhear(&lab, &layer2.standbys[0], &owner)?;
        assert_eq!(overheard[ENVELOPE_AT], 0);
        let forged = claim(&overheard, address, layer2.epoch + 7)?.emit();
        Forger::on(&lab)?.send(&forged, lab.node(&owner)?.address())?;
        lab.eventually("the owner gives the address up", SOON, async || {
            Ok((metric(&lab, &owner, "berth_speaker_yields_total").await? > 0).then_some(()))
        })
        .await
    }
}

lab_test! {
    async fn a_forger_on_the_link_that_has_no_key_moves_nothing_and_is_counted(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, owner) = cluster.web(&NODES, json!({"externalTrafficPolicy": "Local"})).await?;
        let layer2 = cluster.settled(address, 2).await?.spec.layer2.context("an owner")?;
        let (first, second) = (&layer2.standbys[0], &layer2.standbys[1]);
        let genuine = overhear(&lab, first, &owner)?;
        assert_eq!(genuine[ENVELOPE_AT], 1);
        let generation = genuine[genuine.len() - ENVELOPE_BYTES..][..4].try_into().map(u32::from_be_bytes)?;
        let forged = claim(&genuine, address, layer2.epoch + 7)?.emit();
        let sealed_with = |generation: u32| {
            let mut bytes = forged.clone();
            bytes[ENVELOPE_AT] = 1;
            bytes.extend([generation.to_be_bytes(), generation.to_be_bytes()].concat());
            bytes.extend([0x5A; 16]);
            bytes
        };
        // A claim, put before the genuine envelope.
        let grafted = {
            let mut bytes = forged.clone();
            bytes[ENVELOPE_AT] = 1;
            bytes.extend(&genuine[genuine.len() - ENVELOPE_BYTES..]);
            bytes
        };

        let prober = cluster.probing(address).await?;
        let begin = Instant::now();
        let forger = Forger::on(&lab)?;
        for (bytes, to, cause, why) in [
            (forged.clone(), &owner, "unauthenticated", "a claim as it was before there were keys"),
            (sealed_with(generation), &owner, "bad_tag", "a claim with a tag that is made up"),
            (grafted, &owner, "bad_tag", "a claim with the tag of something else"),
            (sealed_with(generation.wrapping_add(1)), &owner, "unknown_generation", "a claim under a key that is made up"),
            (genuine.clone(), &owner, "sequence", "what a partner said, once more"),
            (genuine.clone(), second, "bad_tag", "what a partner said, to another one"),
        ] {
            let before = refused(&lab, to, cause).await?;
            let node = lab.node(to)?.address();
            for _ in 0..10 {
                forger.send(&bytes, node)?;
            }
            lab.eventually(&format!("{why} is refused as {cause}"), SOON, async || {
                let now = refused(&lab, to, cause).await?;
                ensure!(now >= before + 10, "{now} after {before}");
                Ok(Some(()))
            })
            .await?;
        }
        prober.answered_since(Instant::now(), SOON).await?;
        let gap = prober.stop().longest_gap_since(begin);
        ensure!(gap < NO_GAP, "the client had no answer for {gap:?}");
        for node in NODES {
            for moved in ["yields", "takeovers"] {
                assert_eq!(metric(&lab, node, &format!("berth_speaker_{moved}_total")).await?, 0, "{moved} on {node}");
            }
        }
        let now = cluster.answering(address).await?;
        assert_eq!((&now.owner, now.epoch), (&owner, layer2.epoch), "nothing moved");
        Ok(())
    }
}

/// The keys in the Secret, by generation.
async fn keys(lab: &Lab) -> Result<BTreeMap<u32, Vec<u8>>> {
    let secret = Api::<Secret>::namespaced(lab.admin(), SPEAKER_NAMESPACE).get(SECRET).await?;
    secret.data.unwrap_or_default().into_iter().map(|(name, bytes)| Ok((name.parse()?, bytes.0))).collect()
}

/// Asks for a new key, as long after the last one as is needed, and waits until every speaker has it.
async fn rotate(lab: &Lab) -> Result<()> {
    let before = keys(lab).await?;
    let secrets: Api<Secret> = Api::namespaced(lab.admin(), SPEAKER_NAMESPACE);
    let asked = json!({ "metadata": { "annotations": { ROTATE: "now", ROTATED_AT: "2026-01-01T00:00:00Z" } } });
    secrets.patch(SECRET, &PatchParams::default(), &Patch::Merge(asked)).await?;
    // The next leader looks at once, and not in a minute.
    lab.controller().await?.kill().await?;
    let newest = lab
        .eventually("a new key is in the Secret", SOON, async || {
            let now = keys(lab).await?;
            let newest = now.last_key_value().map(|(generation, _)| *generation).context("a key")?;
            ensure!(!before.contains_key(&newest), "{newest} is old");
            let last = before.last_key_value().context("a key")?;
            ensure!(now.len() == 2 && now.get(last.0) == Some(last.1), "the one before it stays, and no other");
            Ok(Some(newest))
        })
        .await?;
    let secret = secrets.get(SECRET).await?;
    let annotations = secret.metadata.annotations.unwrap_or_default();
    ensure!(!annotations.contains_key(ROTATE), "it is done: {annotations:?}");
    for node in NODES {
        lab.eventually(&format!("{node} has the new key"), SOON, async || {
            let now = metric(lab, node, "berth_speaker_heartbeat_key_generation").await?;
            ensure!(now == u64::from(newest), "{now} and not {newest}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

lab_test! {
    async fn a_rotation_of_the_key_is_noticed_by_nobody(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, owner) = cluster.web(&NODES, json!({"externalTrafficPolicy": "Local"})).await?;
        let before = cluster.settled(address, 2).await?;
        let standby = before.spec.layer2.context("an owner")?.standbys[0].clone();
        assert_eq!(keys(&lab).await?.len(), 1, "the controller made a key");
        let prober = cluster.probing(address).await?;
        let begin = Instant::now();
        // Twice, so that the first key is gone for good.
        for _ in 0..2 {
            rotate(&lab).await?;
        }
        let newest = keys(&lab).await?.into_keys().next_back().context("a key")?;
        lab.eventually("the newest key is signed with", SOON, async || {
            let overheard = overhear(&lab, &standby, &owner)?;
            let generation = overheard[overheard.len() - ENVELOPE_BYTES..][..4].try_into().map(u32::from_be_bytes)?;
            Ok((generation == newest).then_some(()))
        })
        .await?;
        prober.answered_since(Instant::now(), SOON).await?;
        let gap = prober.stop().longest_gap_since(begin);
        ensure!(gap < NO_GAP, "the client had no answer for {gap:?}");
        for node in NODES {
            for cause in ["unauthenticated", "unknown_generation", "bad_tag"] {
                assert_eq!(refused(&lab, node, cause).await?, 0, "heartbeats refused as {cause} on {node}");
            }
            for moved in ["yields", "takeovers", "false_alarms"] {
                assert_eq!(metric(&lab, node, &format!("berth_speaker_{moved}_total")).await?, 0, "{moved} on {node}");
            }
        }
        assert_eq!(cluster.answering(address).await?.owner, owner);
        Ok(())
    }
}

lab_test! {
    async fn a_speaker_without_a_key_is_not_ready_says_why_and_answers_all_the_same(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, _) = cluster.web(&NODES, json!({"externalTrafficPolicy": "Local"})).await?;
        cluster.settled(address, 2).await?;
        let (prober, begin) = (cluster.probing(address).await?, Instant::now());
        // The rollout stands still at the first node, whose new speaker finds no key.
        let speakers: Api<DaemonSet> = Api::namespaced(lab.admin(), SPEAKER_NAMESPACE);
        let container = json!({ "name": "speaker", "args": ["--heartbeat-key-dir=/nowhere"] });
        let change = json!({ "spec": { "template": { "spec": { "containers": [container] } } } });
        speakers.patch(SPEAKER_NAME, &PatchParams::default(), &Patch::Strategic(change)).await?;
        let (node, page) = lab
            .eventually("a speaker is not ready", SOON, async || {
                for node in NODES {
                    let Ok(speaker) = lab.speaker(node) else { continue };
                    if let Ok(answer) = speaker.http_get(HTTP_PORT, "/readyz", SOON).await
                        && answer.status == 503
                        && answer.body.contains("/nowhere")
                    {
                        return Ok(Some((node, answer.body)));
                    }
                }
                Ok(None)
            })
            .await?;
        for part in ["cannot read /nowhere", SECRET, SPEAKER_NAMESPACE, "--heartbeat-auth=off"] {
            ensure!(page.contains(part), "no `{part}` in: {page}");
        }
        let speaker = lab.speaker(node)?;
        let said = speaker.logged()?.lines().filter(|line| line.contains("no key to authenticate heartbeats")).count();
        assert_eq!(said, 1, "once");

        // It believes nobody, so it hears no partner.
        lab.eventually("it refuses what its partners say", SOON, async || {
            let now = refused(&lab, node, "unknown_generation").await?;
            ensure!(now > 20, "{now}");
            Ok(Some(()))
        })
        .await?;
        assert_eq!(metric(&lab, node, "berth_speaker_partners_up").await?, 0);
        prober.answered_since(Instant::now(), SOON).await?;
        let gap = prober.stop().longest_gap_since(begin);
        ensure!(gap < GAP_LIMIT, "the client had no answer for {gap:?}");

        // The only node that may answer for an address does.
        cluster.pod("only", node).await?;
        cluster.service("only", json!({"externalTrafficPolicy": "Local"})).await?;
        let only = cluster.address("only").await?;
        answers(&lab.client().netns, only).await?;
        cluster.owner(only, |owner| owner == node).await?;
        Ok(())
    }
}
