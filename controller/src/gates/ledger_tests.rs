use std::sync::Arc;

use berth_provider::{Class, EndpointHealth, Protocol};
use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".to_owned(), name: name.to_owned() }
}

fn service(name: &str) -> ServiceId {
    ServiceId { key: key(name), uid: format!("uid-of-{name}") }
}

fn id(name: &str) -> PodId {
    ("shop".to_owned(), name.to_owned())
}

fn stamp(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn said(status: &str, second: i64) -> Said {
    let (status, reason, message) = (status.to_owned(), "Any".to_owned(), String::new());
    Said { status, reason, message, since: Some(stamp(second)) }
}

fn pod(uid: &str, gates: &[(&str, Option<Said>)]) -> PodState {
    let gates = gates.iter().map(|(service, said)| ((*service).to_owned(), said.clone())).collect();
    PodState { uid: uid.to_owned(), version: "1".to_owned(), is_ready_but_for_us: true, gates }
}

fn endpoint(number: u8) -> Endpoint {
    let ports = Arc::new(BTreeMap::from([(("http".to_owned(), Protocol::Tcp), 8080)]));
    Endpoint { address: [10, 0, 0, number].into(), ports }
}

fn known(all: &[(u8, EndpointHealth)]) -> EndpointReport {
    EndpointReport::Known(all.iter().map(|(number, health)| (endpoint(*number), health.clone())).collect())
}

/// Takes in a change of a pod whose slices have followed by [`NOW`].
fn learn(gates: &mut Gates, id: &PodId, pod: Option<PodState>) -> BTreeSet<ServiceKey> {
    gates.learn(id, pod, NOW.saturating_sub(SLICES_FOLLOW))
}

/// What is to be written while every Service is served, and the pod `web-N` has the endpoint N.
fn due(gates: &mut Gates, now: Duration) -> Vec<GateWrite> {
    let endpoints: Vec<_> = (0..20).map(|number| (format!("web-{number}"), endpoint(number))).collect();
    let by_pod = |_: &ServiceKey| endpoints.iter().map(|(pod, of)| (pod.as_str(), vec![of])).collect();
    gates.due(now, stamp(1_000), |key| Served::By(service(&key.name)), by_pod)
}

fn words(writes: &[GateWrite]) -> Vec<String> {
    let each = writes.iter().flat_map(|write| {
        write.says.iter().map(move |(of, said)| format!("{} {of} {} {}", write.pod.1, said.status, said.reason))
    });
    each.collect()
}

#[test]
fn what_is_said_already_is_not_written_and_the_time_is_that_of_the_change() {
    let mut gates = Gates::default();
    learn(&mut gates, &id("web-1"), Some(pod("1", &[("web", Some(said("False", 5)))])));
    assert_eq!(due(&mut gates, NOW), [], "nothing is known");
    gates.heard(&service("web"), known(&[(1, EndpointHealth::Initial(String::new()))]));
    let writes = due(&mut gates, NOW);
    assert_eq!(words(&writes), ["web-1 web False TargetsInitial"]);
    assert_eq!(writes[0].says["web"].since, Some(stamp(5)), "its status is what it was");
    assert_eq!(due(&mut gates, NOW), [], "it is being written");
    gates.done(&writes[0], GateWritten::Done("2".to_owned()), NOW);
    gates.heard(&service("web"), known(&[(1, EndpointHealth::Initial(String::new()))]));
    assert_eq!((due(&mut gates, NOW), gates.next_due()), (vec![], None));
    gates.heard(&service("web"), known(&[(1, EndpointHealth::Healthy)]));
    let writes = due(&mut gates, NOW);
    assert_eq!(
        (words(&writes), writes[0].says["web"].since),
        (vec!["web-1 web True TargetsHealthy".to_owned()], Some(stamp(1_000)))
    );
}

#[test]
fn a_write_has_every_gate_that_says_something_so_that_none_is_taken_away() {
    let mut gates = Gates::default();
    let three = [("api", None), ("db", Some(said("True", 5))), ("web", Some(said("False", 5)))];
    learn(&mut gates, &id("web-1"), Some(pod("1", &three)));
    gates.heard(&service("web"), known(&[(1, EndpointHealth::Healthy)]));
    assert_eq!(words(&due(&mut gates, NOW)), ["web-1 db True Any", "web-1 web True TargetsHealthy"]);
}

#[test]
fn a_failed_write_is_tried_again_by_its_class_and_what_changed_meanwhile_is_written_instead() {
    let mut gates = Gates::default();
    learn(&mut gates, &id("web-1"), Some(pod("1", &[("web", None)])));
    gates.heard(&service("web"), known(&[(1, EndpointHealth::Initial(String::new()))]));
    let write = due(&mut gates, NOW).remove(0);
    let denied = Failure::new(Class::Permission, "no");
    assert_eq!(gates.done(&write, GateWritten::Failed(denied.clone()), NOW), Some((denied.clone(), true)));
    gates.heard(&service("web"), known(&[(1, EndpointHealth::Healthy)]));
    let again = NOW + denied.wait(1);
    assert_eq!((due(&mut gates, NOW), gates.next_due()), (vec![], Some(again)));
    assert_eq!(words(&due(&mut gates, again)), ["web-1 web True TargetsHealthy"]);
    assert_eq!(gates.done(&write, GateWritten::Done("2".to_owned()), again), None);
    assert_eq!(gates.next_due(), None);
}

#[test]
fn what_met_another_version_waits_for_the_watch_though_not_for_ever() {
    let mut gates = Gates::default();
    let seen = |version: &str| Some(PodState { version: version.to_owned(), ..pod("1", &[("web", None)]) });
    learn(&mut gates, &id("web-1"), seen("1"));
    gates.heard(&service("web"), known(&[(1, EndpointHealth::Healthy)]));
    let write = due(&mut gates, NOW).remove(0);
    assert_eq!(gates.done(&write, GateWritten::Outdated, NOW), None);
    assert_eq!((due(&mut gates, NOW), gates.next_due()), (vec![], Some(NOW + WATCH)));
    learn(&mut gates, &id("web-1"), seen("2"));
    let write = due(&mut gates, NOW).remove(0);
    assert_eq!(write.version, "2");
    gates.done(&write, GateWritten::Outdated, NOW);
    let write = due(&mut gates, NOW + WATCH).remove(0);
    // The watch was quicker than the answer.
    learn(&mut gates, &id("web-1"), seen("3"));
    gates.done(&write, GateWritten::Outdated, NOW + WATCH);
    assert_eq!(due(&mut gates, NOW + WATCH)[0].version, "3");
}

#[test]
fn an_answer_for_a_pod_that_is_gone_or_another_now_changes_nothing() {
    for next in [None, Some(pod("2", &[("web", None)]))] {
        let mut gates = Gates::default();
        learn(&mut gates, &id("web-1"), Some(pod("1", &[("web", None)])));
        gates.heard(&service("web"), known(&[(1, EndpointHealth::Healthy)]));
        let write = due(&mut gates, NOW).remove(0);
        let is_there = next.is_some();
        learn(&mut gates, &id("web-1"), next);
        assert_eq!(gates.done(&write, GateWritten::Failed(Failure::new(Class::Transient, "no")), NOW), None);
        assert_eq!(due(&mut gates, NOW).len(), usize::from(is_there), "and the new one is told");
    }
}

#[test]
fn a_pod_of_two_families_is_judged_by_what_is_a_target() {
    let mut gates = Gates::default();
    learn(&mut gates, &id("web-1"), Some(pod("1", &[("web", None)])));
    gates.heard(&service("web"), known(&[(1, EndpointHealth::Healthy), (2, EndpointHealth::NoTarget)]));
    let (a, b) = (endpoint(1), endpoint(2));
    let by_pod = |_: &ServiceKey| ByPod::from([("web-1", vec![&a, &b])]);
    let writes = gates.due(NOW, stamp(1), |key| Served::By(service(&key.name)), by_pod);
    assert_eq!(words(&writes), ["web-1 web True TargetsHealthy"]);
}

#[test]
fn a_pod_without_an_endpoint_is_told_so_once_slices_had_the_time_to_follow_it() {
    let mut gates = Gates::default();
    gates.learn(&id("web-1"), Some(pod("1", &[("web", None)])), NOW);
    gates.heard(&service("web"), known(&[]));
    let nobody = |gates: &mut Gates, now| {
        words(&gates.due(now, stamp(1), |key| Served::By(service(&key.name)), |_| ByPod::new()))
    };
    assert_eq!((nobody(&mut gates, NOW), gates.next_due()), (vec![], Some(NOW + SLICES_FOLLOW)));
    assert_eq!(nobody(&mut gates, NOW + SLICES_FOLLOW), ["web-1 web False NotATarget"]);
    // It has one in the meantime.
    let mut gates = Gates::default();
    gates.learn(&id("web-1"), Some(pod("1", &[("web", None)])), NOW);
    gates.heard(&service("web"), known(&[]));
    nobody(&mut gates, NOW);
    gates.heard(&service("web"), known(&[(1, EndpointHealth::Healthy)]));
    assert_eq!(words(&due(&mut gates, NOW)), ["web-1 web True TargetsHealthy"], "and waits no longer");
}

#[test]
fn only_a_change_in_how_a_pod_stands_concerns_targets() {
    let mut gates = Gates::default();
    let names = |keys: BTreeSet<ServiceKey>| keys.into_iter().map(|key| key.name).collect::<Vec<_>>();
    let two = |web: Option<Said>| pod("1", &[("web", web), ("api", None)]);
    assert_eq!(names(learn(&mut gates, &id("web-1"), Some(two(None)))), ["api", "web"]);
    assert_eq!(
        names(learn(&mut gates, &id("web-1"), Some(two(Some(said("False", 1)))))),
        [""; 0],
        "it waits as before"
    );
    assert_eq!(gates.stand(&key("web"), "web-1"), Some(Stand { is_ready_but_for_us: true, waits: true }));
    assert_eq!(names(learn(&mut gates, &id("web-1"), Some(two(Some(said("True", 1)))))), ["web"]);
    assert_eq!(gates.stand(&key("web"), "web-1"), Some(Stand { is_ready_but_for_us: true, waits: false }));
    assert_eq!((gates.stand(&key("db"), "web-1"), gates.stand(&key("web"), "web-2")), (None, None));
    assert_eq!(names(learn(&mut gates, &id("web-1"), None)), ["api", "web"]);
    assert_eq!((gates.by_service.len(), gates.stale.len()), (0, 0), "nothing is kept of it");
}

#[test]
fn no_more_than_a_few_are_written_at_once_and_the_others_come_next() {
    let mut gates = Gates::default();
    for number in 0..20 {
        learn(&mut gates, &id(&format!("web-{number}")), Some(pod("1", &[("web", None)])));
    }
    gates.heard(&service("web"), EndpointReport::Nodes);
    let writes = due(&mut gates, NOW);
    assert_eq!((writes.len(), gates.next_due()), (WRITES_AT_ONCE, None));
    gates.done(&writes[0], GateWritten::Done("2".to_owned()), NOW);
    assert_eq!(due(&mut gates, NOW).len(), 1);
}

proptest! {
    /// Whatever is heard in whatever order, and whichever writes fail: in the end the gate says what was heard last, unless it is open
    /// and nothing speaks against it; an open gate is closed by nothing but a target that does not serve.
    #[test]
    fn in_the_end_a_gate_says_what_is_so(
        history in proptest::collection::vec((0..7_u8, any::<bool>(), any::<bool>()), 1..30)
    ) {
        let healths = [
            EndpointHealth::NoTarget, EndpointHealth::Healthy, EndpointHealth::Initial(String::new()),
            EndpointHealth::Refused("x".to_owned()), EndpointHealth::Unhealthy("x".to_owned()),
        ];
        let mut gates = Gates::default();
        let mut there = pod("1", &[("web", None)]);
        learn(&mut gates, &id("web-1"), Some(there.clone()));
        let (mut now, mut last) = (NOW, None);
        for (what, fails, shows) in history {
            last = healths.get(usize::from(what)).cloned();
            if let Some(health) = &last {
                gates.heard(&service("web"), known(&[(1, health.clone())]));
            } else {
                gates.begin();
            }
            now += Duration::from_mins(2);
            for write in due(&mut gates, now) {
                let (before, after) = (there.gates["web"].clone(), write.says["web"].clone());
                prop_assert_ne!(before.as_ref(), Some(&after), "nothing is written that is so");
                if before.is_some_and(|before| before.is_true()) && !after.is_true() {
                    prop_assert!(matches!(last, Some(EndpointHealth::Unhealthy(_))));
                }
                if fails {
                    gates.done(&write, GateWritten::Failed(Failure::new(Class::Transient, "no")), now);
                } else {
                    there.gates.insert("web".to_owned(), Some(after));
                    gates.done(&write, GateWritten::Done("2".to_owned()), now);
                }
                if shows {
                    learn(&mut gates, &id("web-1"), Some(there.clone()));
                }
            }
        }
        for write in due(&mut gates, now + Duration::from_mins(2)) {
            there.gates.insert("web".to_owned(), Some(write.says["web"].clone()));
            gates.done(&write, GateWritten::Done("2".to_owned()), now);
        }
        prop_assert_eq!(due(&mut gates, now + Duration::from_mins(4)), vec![], "then it is at rest");
        let is_open = there.gates["web"].as_ref().is_some_and(Said::is_true);
        match last {
            Some(EndpointHealth::Healthy) => prop_assert!(is_open),
            Some(EndpointHealth::Unhealthy(_)) => prop_assert!(!is_open),
            _ => {}
        }
    }
}
