//! Writes the SpeakerNode: what only this node knows, when it changed and that lasts.
//!
//! Follows its own object, so that one that somebody deletes or edits is written again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::condition::types::{KERNEL_READY, PARTNERS_HEARD};
use berth_api::crd::{
    Dataplane, Found as FoundMachine, GATEWAYS_MAX, Interface, KernelTrap, Routes, SpeakerNodeSpec, Trap,
};
use berth_api::names::SPEAKER_FIELD_MANAGER;
use berth_api::{Condition as BerthCondition, ConditionStatus, Reason, SpeakerNode};
use berth_machine::timing::DETECTION_TIME;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::engine::{Found, Late};
use crate::gateways::Gateways;
use crate::links::Links;
use crate::metrics::{Metrics, Watch};
use crate::retry::{RequestError, Retry, WATCH_TIMEOUT_SECONDS, next_event, within_limit};

/// How long an interface must be gone before that is written. A shorter loss is settled among the speakers on the link, much faster; the
/// controller would only move what has found its place already.
const LOSS_DELAY: Duration = Duration::from_secs(2);

/// The conditions that are written here.
const OURS: [&str; 2] = [PARTNERS_HEARD, KERNEL_READY];

/// Keeps the SpeakerNode up to date until `shutdown`, at whatever cost in time: nothing waits for it.
/// `sweep` is told the addresses that are to be asked for ahead of need.
pub async fn run(
    client: Client,
    node: String,
    known: Known,
    sweep: watch::Sender<Vec<IpAddr>>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    shutdown.run_until_cancelled(follow(client, node, known, sweep, metrics)).await;
}

/// What the other tasks know of the node.
#[derive(Debug)]
pub struct Known {
    /// Its interfaces.
    pub links: watch::Receiver<Links>,
    /// The next hops of its routes.
    pub gateways: watch::Receiver<Gateways>,
    /// Partners that it hears badly.
    pub late: watch::Receiver<Late>,
    /// What forwards on it; nothing, until that was looked at.
    pub dataplane: watch::Receiver<Option<Dataplane>>,
    /// Settings of its kernel that break what is announced; nothing, until they were looked at.
    pub kernel: watch::Receiver<Option<Vec<KernelTrap>>>,
    /// Machines that have addresses which it asks for ahead of need.
    pub found: watch::Receiver<Found>,
    /// What comes of its routes, where it makes any; nothing, until they were looked at.
    pub routes: Option<watch::Receiver<Option<Routes>>>,
}

async fn follow(client: Client, node: String, known: Known, sweep: watch::Sender<Vec<IpAddr>>, metrics: Metrics) {
    let Known { mut links, mut gateways, mut late, mut dataplane, mut kernel, mut found, mut routes } = known;
    let config = watcher::Config::default().fields(&format!("metadata.name={node}")).timeout(WATCH_TIMEOUT_SECONDS);
    let own = Api::<DeserializeGuard<SpeakerNode>>::all(client.clone());
    let mut events = watcher(own, config).boxed();
    // Nothing is written before it is known what is there.
    let mut synced = false;
    let mut seen: Option<SpeakerNodeSpec> = None;
    let mut said = Vec::<Condition>::new();
    let mut watch_retry = Retry::new("watch the SpeakerNode of this node");
    let mut write_retry = Retry::new("write the SpeakerNode of this node");
    let (mut watch_not_before, mut not_before) = (Instant::now(), Instant::now());
    // The engine ends first.
    let (mut late_open, mut dataplane_open, mut kernel_open, mut found_open) = (true, true, true, true);
    let mut routes_open = true;

    let mut missing = BTreeMap::new();
    loop {
        let current = spec(&links.borrow_and_update(), &gateways.borrow_and_update(), &found.borrow_and_update());
        // Until it was looked at, what was written stands.
        let known = seen.as_ref().and_then(|seen| seen.dataplane);
        let dataplane_now = dataplane.borrow_and_update().or(known);
        let traps = kernel.borrow_and_update().clone();
        let traps = traps.or_else(|| Some(seen.as_ref()?.kernel_traps.clone())).unwrap_or_default();
        let readiness = ready_kernel(&traps, of(&said, KERNEL_READY), Timestamp::now());
        let known = || seen.as_ref()?.routes.clone();
        let routes_now = routes.as_mut().and_then(|routes| routes.borrow_and_update().clone().or_else(known));
        let current = SpeakerNodeSpec { dataplane: dataplane_now, kernel_traps: traps, routes: routes_now, ..current };
        let now = Instant::now();
        note_missing(&mut missing, &current, seen.as_ref(), now);
        let Due { write: wanted, look_again } = due(current, seen.as_ref(), &missing, now);
        let partners = steadiness(&late.borrow_and_update(), of(&said, PARTNERS_HEARD), Timestamp::now());
        let conditions = replaced(&said, partners.into_iter().chain(readiness));
        tokio::select! {
            () = sleep_until(not_before), if synced && wanted.is_some() => {
                let Some(wanted) = wanted else { continue };
                match write(&client, &node, wanted.clone()).await {
                    Ok(()) => {
                        tracing::info!(node, interfaces = wanted.interfaces.len(), "SpeakerNode written");
                        write_retry.succeeded();
                        seen = Some(wanted);
                    }
                    Err(error) => not_before = Instant::now() + write_retry.failed(&error),
                }
            }
            () = sleep_until(not_before), if synced && wanted.is_none() && seen.is_some() && conditions.is_some() => {
                let Some(conditions) = conditions else { continue };
                match write_status(&client, &node, &conditions).await {
                    Ok(()) => {
                        write_retry.succeeded();
                        said = conditions;
                    }
                    Err(error) => not_before = Instant::now() + write_retry.failed(&error),
                }
            }
            () = sleep_until(look_again.unwrap_or(now)), if look_again.is_some() => {}
            event = next_event(&mut events, watch_not_before) => match event {
                Some(Ok(event)) => {
                    // A list that is about to be asked for has not succeeded yet.
                    if !matches!(event, watcher::Event::Init) {
                        watch_retry.succeeded();
                    }
                    match event {
                        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                            let object = object.0.ok();
                            // What cannot be read says nothing else.
                            if let Some(object) = &object {
                                let wanted = object.status.as_ref().map(|status| status.sweep.clone()).unwrap_or_default();
                                sweep.send_if_modified(|asked| {
                                    let news = *asked != wanted;
                                    *asked = wanted;
                                    news
                                });
                            }
                            let status = object.as_ref().and_then(|object| object.status.clone());
                            said = status.unwrap_or_default().conditions;
                            said.retain(|condition| OURS.contains(&condition.type_.as_str()));
                            seen = object.map(|object| object.spec);
                        }
                        watcher::Event::Delete(_) => (seen, said) = (None, Vec::new()),
                        // Half of a list says nothing about what is missing.
                        watcher::Event::Init => (seen, said, synced) = (None, Vec::new(), false),
                        watcher::Event::InitDone => synced = true,
                    }
                }
                Some(Err(error)) => {
                    metrics.watch_error(Watch::SpeakerNode);
                    watch_not_before = Instant::now() + watch_retry.failed(&error);
                }
                // A watch never ends.
                None => return,
            },
            changed = links.changed() => if changed.is_err() {
                return;
            },
            changed = gateways.changed() => if changed.is_err() {
                return;
            },
            changed = late.changed(), if late_open => late_open = changed.is_ok(),
            changed = dataplane.changed(), if dataplane_open => dataplane_open = changed.is_ok(),
            changed = kernel.changed(), if kernel_open => kernel_open = changed.is_ok(),
            changed = found.changed(), if found_open => found_open = changed.is_ok(),
            changed = news(routes.as_mut()), if routes_open => routes_open = changed.is_ok(),
        }
    }
}

/// Waits for news, for ever where there are none.
async fn news<T>(from: Option<&mut watch::Receiver<T>>) -> Result<(), watch::error::RecvError> {
    match from {
        Some(from) => from.changed().await,
        None => std::future::pending().await,
    }
}

/// What this node knows, in a fixed order, so that equal means unchanged.
fn spec(links: &Links, gateways: &Gateways, found: &Found) -> SpeakerNodeSpec {
    let gateways = links.values().filter_map(|link| gateways.get(&link.index)).flatten().copied();
    SpeakerNodeSpec {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        interfaces: links
            .iter()
            .map(|(name, link)| Interface { name: name.clone(), mac: link.mac, addresses: link.addresses.clone() })
            .collect(),
        gateways: in_order(gateways),
        dataplane: None,
        kernel_traps: Vec::new(),
        found: found.iter().map(|(address, mac)| FoundMachine { address: *address, mac: *mac }).collect(),
        routes: None,
    }
}

/// Each once, the lowest first, and no more than the object takes.
fn in_order(gateways: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    gateways.collect::<BTreeSet<_>>().into_iter().take(GATEWAYS_MAX).collect()
}

/// Notes since when interfaces are gone that the object lists, while others are there: interfaces that were lost together come back one
/// after the other.
fn note_missing(
    missing: &mut BTreeMap<String, Instant>,
    current: &SpeakerNodeSpec,
    written: Option<&SpeakerNodeSpec>,
    now: Instant,
) {
    if current.interfaces.is_empty() {
        missing.clear();
        return;
    }
    let gone: Vec<&Interface> = gone(current, written).collect();
    missing.retain(|name, _| gone.iter().any(|interface| interface.name == *name));
    for interface in gone {
        missing.entry(interface.name.clone()).or_insert(now);
    }
}

/// Interfaces that the object lists and the node does not have.
fn gone<'a>(current: &SpeakerNodeSpec, written: Option<&'a SpeakerNodeSpec>) -> impl Iterator<Item = &'a Interface> {
    let there = |name: &str| current.interfaces.iter().any(|interface| interface.name == name);
    written.into_iter().flat_map(|written| &written.interfaces).filter(move |interface| !there(&interface.name))
}

/// What is to be done about the object.
#[derive(Debug, PartialEq)]
struct Due {
    /// What to write now, if anything.
    write: Option<SpeakerNodeSpec>,
    /// When more is to be done without anything happening.
    look_again: Option<Instant>,
}

/// What to write into the object, which is now as `written` says. Gains and changes at once, losses after a while.
///
/// That all interfaces are gone is never written. The API server may be behind one of them: the write would wait and arrive when the
/// interface is back, and the controller would take away what the node has by then.
fn due(
    current: SpeakerNodeSpec,
    written: Option<&SpeakerNodeSpec>,
    missing: &BTreeMap<String, Instant>,
    now: Instant,
) -> Due {
    if current.interfaces.is_empty() && written.is_some_and(|written| !written.interfaces.is_empty()) {
        return Due { write: None, look_again: None };
    }
    let until = |interface: &Interface| missing.get(&interface.name).copied().unwrap_or(now) + LOSS_DELAY;
    let kept: Vec<&Interface> = gone(&current, written).filter(|interface| until(interface) > now).collect();
    let look_again = kept.iter().map(|interface| until(interface)).min();
    let kept: Vec<Interface> = kept.into_iter().cloned().collect();
    let mut wanted = current;
    wanted.interfaces.extend(kept);
    wanted.interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    // The routes went with the interface, and which of the gateways were on it is not written down.
    if let (Some(_), Some(written)) = (look_again, written) {
        wanted.gateways = in_order(wanted.gateways.iter().chain(&written.gateways).copied());
    }
    Due { write: (written != Some(&wanted)).then_some(wanted), look_again }
}

async fn write(client: &Client, node: &str, spec: SpeakerNodeSpec) -> Result<(), RequestError> {
    // The owner's UID is read anew each time: a node that was deleted and registered again has another.
    let owner = within_limit(Api::<Node>::all(client.clone()).get_metadata(node)).await?;
    let mut object = SpeakerNode::new(node, spec);
    object.metadata.owner_references = owner.metadata.uid.map(|uid| {
        vec![OwnerReference {
            api_version: Node::api_version(&()).into_owned(),
            kind: Node::kind(&()).into_owned(),
            name: node.to_owned(),
            uid,
            ..OwnerReference::default()
        }]
    });
    let params = PatchParams::apply(SPEAKER_FIELD_MANAGER).force();
    within_limit(Api::<SpeakerNode>::all(client.clone()).patch(node, &params, &Patch::Apply(&object))).await?;
    Ok(())
}

/// What to say of how partners are heard, if it is not said. Nothing, as long as there was nothing to say.
fn steadiness(late: &Late, said: Option<&Condition>, now: Timestamp) -> Option<Condition> {
    let condition = if late.is_empty() {
        said?;
        let message = "partners are heard as regularly as they should".to_owned();
        BerthCondition { kind: PARTNERS_HEARD, status: ConditionStatus::True, reason: Reason::Heard, message }
    } else {
        let named = late.iter().map(|((partner, interface), doublings)| {
            let time = DETECTION_TIME * (1 << doublings);
            format!("{partner} on {interface} ({} ms)", time.as_millis())
        });
        let message = format!(
            "these fell silent again and again and were alive, so a takeover from them waits longer: {}; look at the load of their \
             nodes and at the link",
            named.collect::<Vec<_>>().join(", ")
        );
        BerthCondition { kind: PARTNERS_HEARD, status: ConditionStatus::False, reason: Reason::HeartbeatsLate, message }
    };
    let condition = condition.stamped(said, None, now);
    (said != Some(&condition)).then_some(condition)
}

/// What to say of the kernel, if it is not said. Nothing, as long as there was nothing to say.
fn ready_kernel(traps: &[KernelTrap], said: Option<&Condition>, now: Timestamp) -> Option<Condition> {
    let of =
        |trap: Trap| traps.iter().filter(move |t| t.trap == trap).map(|t| t.interface.as_str()).collect::<Vec<_>>();
    let told = [Trap::ArpIgnore, Trap::ReversePathFilter].map(|trap| (trap, of(trap)));
    let told: Vec<_> = told.into_iter().filter(|(_, interfaces)| !interfaces.is_empty()).collect();
    let Some((first, _)) = told.first() else {
        said?;
        let message = "no setting of the kernel is found that breaks what is announced".to_owned();
        let ready = ConditionStatus::True;
        let condition = BerthCondition { kind: KERNEL_READY, status: ready, reason: Reason::NoTraps, message };
        let condition = condition.stamped(said, None, now);
        return (said != Some(&condition)).then_some(condition);
    };
    let message = told.iter().map(|(trap, interfaces)| {
        let interfaces = interfaces.join(", ");
        match trap {
            Trap::ArpIgnore => format!(
                "the kernel answers ARP on {interfaces} for every address on kube-ipvs0, whoever owns it; set `ipvs.strictARP: true` in \
                 kube-proxy's configuration, or net.ipv4.conf.all.arp_ignore to 1"
            ),
            Trap::ReversePathFilter => format!(
                "rp_filter is strict on {interfaces}, and the routes to what is beyond lead over another interface, so what comes from \
                 there is dropped; set net.ipv4.conf.<interface>.rp_filter to 2, or add a route"
            ),
        }
    });
    let message = message.collect::<Vec<_>>().join("; ");
    let status = ConditionStatus::False;
    let condition = BerthCondition { kind: KERNEL_READY, status, reason: first.reason(), message };
    let condition = condition.stamped(said, None, now);
    (said != Some(&condition)).then_some(condition)
}

fn of<'a>(said: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    said.iter().find(|condition| condition.type_ == kind)
}

/// All conditions that are to stand, if one is new: what is applied is applied whole.
fn replaced(said: &[Condition], new: impl Iterator<Item = Condition>) -> Option<Vec<Condition>> {
    let new: Vec<_> = new.collect();
    if new.is_empty() {
        return None;
    }
    let stays = said.iter().filter(|old| of(&new, &old.type_).is_none()).cloned();
    let mut all: Vec<_> = stays.chain(new.iter().cloned()).collect();
    all.sort_by(|a, b| a.type_.cmp(&b.type_));
    Some(all)
}

async fn write_status(client: &Client, node: &str, conditions: &[Condition]) -> Result<(), RequestError> {
    let object = serde_json::json!({
        "apiVersion": SpeakerNode::api_version(&()),
        "kind": SpeakerNode::kind(&()),
        "metadata": { "name": node },
        "status": { "conditions": conditions },
    });
    let params = PatchParams::apply(SPEAKER_FIELD_MANAGER).force();
    within_limit(Api::<SpeakerNode>::all(client.clone()).patch_status(node, &params, &Patch::Apply(&object))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Link;
    use berth_api::MacAddr;

    #[tokio::test]
    async fn gains_and_changes_are_written_at_once_losses_after_a_while_and_the_loss_of_all_never() {
        let start = Instant::now();
        let interface = |text: &str| {
            let (name, last) = text.split_at(1);
            Interface {
                name: name.to_owned(),
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
                addresses: vec![format!("192.0.2.{last}/24").parse().unwrap()],
            }
        };
        let spec = |text: &str| SpeakerNodeSpec {
            version: "1".to_owned(),
            interfaces: text.split_whitespace().map(interface).collect(),
            gateways: Vec::new(),
            dataplane: None,
            kernel_traps: Vec::new(),
            found: Vec::new(),
            routes: None,
        };
        // What the object says, what the node has, since how many ms something is missing, what is written, when more is to be done.
        let table = [
            (None, "a1", None, Some("a1"), None, "the first time"),
            (None, "", None, Some(""), None, "the first time, with nothing to tell"),
            (Some("a1"), "a1", None, None, None, "nothing new"),
            (Some(""), "a1", None, Some("a1"), None, "the first one"),
            (Some("b1"), "a1 b1", None, Some("a1 b1"), None, "one more"),
            (Some("a1 b1"), "a1 b2", None, Some("a1 b2"), None, "another address"),
            (Some("a1"), "", Some(0), None, None, "the only one lost"),
            (Some("a1 b1"), "", Some(60_000), None, None, "all lost, for a long time"),
            (Some("a1 b1"), "b1", Some(0), None, Some(2_000), "one lost a moment ago"),
            (Some("a1 b1"), "b1", Some(1_999), None, Some(1), "still not long ago"),
            (Some("a1 b1"), "b1", Some(2_000), Some("b1"), None, "lost for long enough"),
            (Some("a1 b1"), "b2 c1", Some(500), Some("a1 b2 c1"), Some(1_500), "one lost, one changed, one more"),
            (Some("a1"), "c1", Some(500), Some("a1 c1"), Some(1_500), "one in place of the other"),
        ];
        for (written, current, missing, write, again, why) in table {
            let now = start + Duration::from_mins(1);
            let (written, current) = (written.map(spec), spec(current));
            let mut since = BTreeMap::new();
            if let Some(missing) = missing {
                note_missing(&mut since, &current, written.as_ref(), now - Duration::from_millis(missing));
            }
            note_missing(&mut since, &current, written.as_ref(), now);
            let expected =
                Due { write: write.map(spec), look_again: again.map(|again| now + Duration::from_millis(again)) };
            assert_eq!(due(current, written.as_ref(), &since, now), expected, "{why}");
        }
    }

    #[test]
    fn partners_that_are_late_are_named_and_what_was_never_said_is_not_taken_back() {
        let now = Timestamp::UNIX_EPOCH;
        let late =
            |doublings| Late::from([((berth_machine::NodeName::new("b").unwrap(), "eth0".to_owned()), doublings)]);
        assert_eq!(steadiness(&Late::new(), None, now), None, "nothing to say");
        let first = steadiness(&late(1), None, now).unwrap();
        assert_eq!((first.status.as_str(), first.reason.as_str()), ("False", "HeartbeatsLate"));
        assert!(first.message.contains("b on eth0 (600 ms)"), "{}", first.message);
        assert_eq!(steadiness(&late(1), Some(&first), Timestamp::MAX), None, "said already");
        let more = steadiness(&late(2), Some(&first), Timestamp::MAX).unwrap();
        assert_eq!(more.last_transition_time, first.last_transition_time, "it has been so since then");
        let calm = steadiness(&Late::new(), Some(&more), Timestamp::MAX).unwrap();
        assert_eq!((calm.status.as_str(), calm.reason.as_str()), ("True", "Heard"));
    }

    #[test]
    fn traps_of_the_kernel_are_told_and_what_was_never_said_is_not_taken_back() {
        let now = Timestamp::UNIX_EPOCH;
        let trap = |interface: &str, trap| KernelTrap { interface: interface.to_owned(), trap };
        assert_eq!(ready_kernel(&[], None, now), None, "nothing to say");
        let both =
            [trap("eth0", Trap::ReversePathFilter), trap("eth0", Trap::ArpIgnore), trap("eth1", Trap::ArpIgnore)];
        let first = ready_kernel(&both, None, now).unwrap();
        assert_eq!((first.status.as_str(), first.reason.as_str()), ("False", "ArpIgnore"));
        for part in ["ARP on eth0, eth1 for", "rp_filter is strict on eth0,"] {
            assert!(first.message.contains(part), "{}", first.message);
        }
        assert_eq!(ready_kernel(&both, Some(&first), Timestamp::MAX), None, "said already");
        let one = ready_kernel(&both[..1], Some(&first), now).unwrap();
        assert_eq!(one.reason, "ReversePathFilter");
        let none = ready_kernel(&[], Some(&one), now).unwrap();
        assert_eq!((none.status.as_str(), none.reason.as_str()), ("True", "NoTraps"));
    }

    #[test]
    fn one_condition_that_is_new_is_written_beside_the_others() {
        let condition = |kind: &'static str, message: &str| {
            let condition = BerthCondition {
                kind,
                status: ConditionStatus::True,
                reason: Reason::Heard,
                message: message.to_owned(),
            };
            condition.stamped(None, None, Timestamp::UNIX_EPOCH)
        };
        let (partners, kernel) = (condition(PARTNERS_HEARD, "a"), condition(KERNEL_READY, "b"));
        assert_eq!(replaced(std::slice::from_ref(&partners), std::iter::empty()), None);
        let both = replaced(std::slice::from_ref(&partners), std::iter::once(kernel.clone())).unwrap();
        assert_eq!(both, [kernel.clone(), partners]);
        let other = condition(PARTNERS_HEARD, "c");
        assert_eq!(replaced(&both, std::iter::once(other.clone())), Some(vec![kernel, other]));
    }

    #[tokio::test]
    async fn an_interface_that_comes_back_has_its_time_again() {
        let now = Instant::now();
        let spec = |names: &[&str]| SpeakerNodeSpec {
            version: "1".to_owned(),
            interfaces: names
                .iter()
                .map(|name| Interface { name: (*name).to_owned(), mac: MacAddr([2; 6]), addresses: vec![] })
                .collect(),
            gateways: Vec::new(),
            dataplane: None,
            kernel_traps: Vec::new(),
            found: Vec::new(),
            routes: None,
        };
        let (written, mut missing) = (spec(&["a", "b"]), BTreeMap::new());
        for (at, names) in
            [(0, &["a"][..]), (1_000, &["a", "b"]), (2_000, &["a"]), (3_000, &[]), (9_000, &["a"]), (9_500, &["a"])]
        {
            note_missing(&mut missing, &spec(names), Some(&written), now + Duration::from_millis(at));
        }
        assert_eq!(missing, BTreeMap::from([("b".to_owned(), now + Duration::from_secs(9))]));
    }

    #[tokio::test]
    async fn gateways_change_at_once_and_stay_while_their_interface_may_come_back() {
        let now = Instant::now();
        let spec = |interfaces: &str, gateways: &str| SpeakerNodeSpec {
            version: "1".to_owned(),
            interfaces: interfaces
                .split_whitespace()
                .map(|name| Interface { name: name.to_owned(), mac: MacAddr([2; 6]), addresses: vec![] })
                .collect(),
            gateways: gateways.split_whitespace().map(|address| address.parse().unwrap()).collect(),
            dataplane: None,
            kernel_traps: Vec::new(),
            found: Vec::new(),
            routes: None,
        };
        // What the object says, what the node has, since how many ms an interface is missing, what is written.
        let table = [
            (("a", ""), ("a", "192.0.2.1"), None, Some(("a", "192.0.2.1")), "the first one"),
            (("a", "192.0.2.1"), ("a", "192.0.2.1"), None, None, "nothing new"),
            (("a", "192.0.2.1"), ("a", "192.0.2.2"), None, Some(("a", "192.0.2.2")), "another one"),
            (("a", "192.0.2.1"), ("a", ""), None, Some(("a", "")), "none any more"),
            (("a b", "192.0.2.1"), ("b", ""), Some(500), None, "gone with its interface a moment ago"),
            (("a b", "192.0.2.1"), ("b", ""), Some(2_000), Some(("b", "")), "gone with its interface for long enough"),
            (
                ("a b", "192.0.2.9"),
                ("b", "192.0.2.1"),
                Some(500),
                Some(("a b", "192.0.2.1 192.0.2.9")),
                "one that came while another may come back",
            ),
            (("a", "192.0.2.1"), ("", ""), Some(60_000), None, "all interfaces lost"),
        ];
        for (written, current, missing, expected, why) in table {
            let (written, current) = (spec(written.0, written.1), spec(current.0, current.1));
            let mut since = BTreeMap::new();
            if let Some(missing) = missing {
                note_missing(&mut since, &current, Some(&written), now - Duration::from_millis(missing));
            }
            let write = due(current, Some(&written), &since, now).write;
            assert_eq!(write, expected.map(|(interfaces, gateways)| spec(interfaces, gateways)), "{why}");
        }
    }

    #[test]
    fn the_object_lists_the_gateways_on_the_interfaces_that_can_announce_each_once_and_in_order() {
        let link = |index| Link { index, mac: MacAddr([2; 6]), addresses: vec![] };
        let links = BTreeMap::from([("eth0".to_owned(), link(2)), ("eth1".to_owned(), link(3))]);
        let on = |hops: &[&str]| hops.iter().map(|hop| hop.parse().unwrap()).collect::<BTreeSet<IpAddr>>();
        let gateways = Gateways::from([
            (2, on(&["2001:db8::1", "192.0.2.10", "192.0.2.9"])),
            (3, on(&["192.0.2.9", "192.0.2.1"])),
            // A pod's.
            (4, on(&["10.244.0.1"])),
        ]);
        let text = serde_json::to_value(spec(&links, &gateways, &Found::new())).unwrap();
        assert_eq!(text["gateways"], serde_json::json!(["192.0.2.1", "192.0.2.9", "192.0.2.10", "2001:db8::1"]));

        let text = serde_json::to_value(spec(&links, &Gateways::new(), &Found::new())).unwrap();
        assert_eq!(text.get("gateways"), None, "nothing to tell");
        let many = (0..=255).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        let lowest = spec(&links, &Gateways::from([(2, many)]), &Found::new()).gateways;
        assert_eq!(
            (lowest.len(), lowest[63]),
            (GATEWAYS_MAX, IpAddr::from([192, 0, 2, 63])),
            "no more than the object takes"
        );
    }

    #[test]
    fn the_object_lists_the_interfaces_that_can_announce() {
        let link = Link {
            index: 2,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            addresses: vec!["192.0.2.11/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()],
        };
        let spec = spec(&BTreeMap::from([("eth0".to_owned(), link)]), &Gateways::new(), &Found::new());
        let text = serde_json::to_value(&spec).unwrap();
        assert_eq!(
            text["interfaces"],
            serde_json::json!([{
                "name": "eth0",
                "mac": "02:00:00:00:00:01",
                "addresses": ["192.0.2.11/24", "2001:db8::1/64"],
            }])
        );
    }
}
