//! When a node waits before it answers, and when it must not.

use std::sync::Arc;

use berth_api::MacAddr;
use berth_wire::heartbeat::{Body, Claim, Digest, Entries, Message, NodeName, Stance};
use berth_wire::neighbor::Frame;

use super::*;
use crate::effect::State;
use crate::input::{Assignment, Evidence, Member, OwnerClaim};
use crate::timing::PROBE_WAIT;

const T0: Duration = Duration::from_secs(1_000);
const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 100));
const PORT: Evidence = Evidence::Connection(80);

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn member(node: &str, last: u8) -> Member {
    Member {
        node: name(node),
        interface: "eth0".to_owned(),
        address: IpAddr::from([192, 0, 2, last]),
        mac: MacAddr([2, 0, 0, 0, 0, last]),
    }
}

/// Node b is named, and node a stands by.
fn named(epoch: u64, claimed: Option<(&str, u64)>) -> Assignment {
    Assignment {
        address: VIP,
        owner: Some(name("b")),
        standbys: [name("a")].into(),
        epoch,
        members: [member("a", 1), member("b", 2)].map(Arc::new).into(),
        claimed: claimed.map(|(node, epoch)| OwnerClaim { node: name(node), epoch }),
        sought: Some(PORT),
        serving: true,
    }
}

fn speaker() -> Machine {
    let mut machine = Machine::new(name("b"), 7, T0);
    machine.link_changed(T0, "eth0", true);
    machine
}

fn run(machine: &mut Machine, until: Duration) -> Vec<Effect> {
    let mut effects: Vec<_> = std::iter::from_fn(|| machine.poll_effect()).collect();
    while let Some(at) = machine.next_deadline().filter(|at| *at <= until) {
        machine.tick(at);
        effects.extend(std::iter::from_fn(|| machine.poll_effect()));
    }
    effects
}

fn sought(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::SeekEvidence { address: VIP, sought: PORT, .. })).count()
}

fn cause(effects: &[Effect]) -> Option<Reason> {
    let mut causes = effects.iter().filter_map(|effect| match effect {
        Effect::StatusChanged { status, .. } if status.state == State::Answering => Some(status.cause),
        _ => None,
    });
    causes.next_back()
}

/// Node a is heard, and claims the address or nothing.
fn hear(machine: &mut Machine, now: Duration, sequence: u64, claims: Option<u64>) {
    let claim = claims.map(|epoch| Claim { address: VIP, epoch, stance: Stance::Answers });
    let digest = claim.map_or(Digest::EMPTY, |claim| Digest::EMPTY.with(VIP, claim.epoch));
    let body = match claim {
        None => Body::Heartbeat { digest, count: 0 },
        Some(claim) => Body::Changes { digest, count: 1, entries: Entries::split(&[claim]).next().unwrap() },
    };
    let message = Message {
        sender: name("a"),
        boot_id: 3,
        heard_boot_id: 7,
        sequence,
        stopping: false,
        want_claims: false,
        want_sightings: false,
        body,
    };
    machine.heartbeat_received(now, "eth0", &message);
}

#[test]
fn before_the_first_use_a_node_answers_as_soon_as_it_is_seen_to_serve() {
    let mut machine = speaker();
    machine.assign(T0, named(1, None));
    let effects = run(&mut machine, T0 + Duration::from_secs(1));
    assert_eq!((sought(&effects), machine.state(VIP)), (1, Some(State::Verifying)), "it waits, and looks once");
    let now = T0 + Duration::from_millis(1_001);
    machine.serves(now, VIP);
    let effects = run(&mut machine, now);
    assert_eq!((cause(&effects), machine.state(VIP)), (Some(Reason::Answering), Some(State::Answering)));
}

#[test]
fn evidence_that_comes_while_the_wire_is_asked_delays_nothing() {
    let mut machine = speaker();
    machine.assign(T0, named(1, None));
    run(&mut machine, T0);
    machine.serves(T0 + Duration::from_millis(1), VIP);
    run(&mut machine, T0 + PROBE_WAIT);
    assert_eq!(machine.state(VIP), Some(State::Answering));
}

#[test]
fn without_evidence_it_answers_all_the_same_and_says_so_until_there_is_some() {
    let mut machine = speaker();
    machine.assign(T0, named(1, None));
    let limit = T0 + PROBE_WAIT + SERVE_WAIT;
    run(&mut machine, T0 + Duration::from_millis(1_500));
    assert_eq!(machine.state(VIP), Some(State::Verifying));
    let effects = run(&mut machine, limit);
    assert_eq!((cause(&effects), machine.state(VIP)), (Some(Reason::NotServing), Some(State::Answering)));
    let later = limit + Duration::from_secs(5);
    run(&mut machine, later);
    machine.serves(later, VIP);
    assert_eq!(cause(&run(&mut machine, later)), Some(Reason::Answering));
}

#[test]
fn without_an_endpoint_it_waits_as_long_for_one_to_come_and_then_has_nothing_to_say() {
    for comes in [false, true] {
        let mut machine = speaker();
        machine.assign(T0, Assignment { serving: false, ..named(1, None) });
        let now = T0 + Duration::from_secs(1);
        run(&mut machine, now);
        assert_eq!(machine.state(VIP), Some(State::Verifying));
        machine.assign(now, Assignment { serving: comes, ..named(1, None) });
        let effects = run(&mut machine, T0 + PROBE_WAIT + SERVE_WAIT);
        let expected = if comes { Reason::NotServing } else { Reason::Answering };
        assert_eq!((cause(&effects), sought(&effects)), (Some(expected), 0), "an endpoint comes: {comes}");
    }
}

#[test]
fn a_node_waits_where_nobody_is_without_the_address_meanwhile_and_nowhere_else() {
    for (what, claimed, a_claims, sought, waits) in [
        ("the first use", None, None, Some(PORT), true),
        ("the first use, and nothing would show it", None, None, None, false),
        ("the former owner goes on", Some(("a", 1)), Some(1), Some(PORT), true),
        ("the former owner goes on, and its status was not written yet", None, Some(1), Some(PORT), true),
        ("the former owner lives and does not answer", Some(("a", 1)), None, Some(PORT), false),
        ("it answered itself, before its process ended", Some(("b", 2)), None, Some(PORT), false),
    ] {
        let mut machine = speaker();
        machine.assign(T0, Assignment { sought, ..named(2, claimed) });
        for step in 0..6_u64 {
            let now = T0 + Duration::from_millis(step * 20);
            hear(&mut machine, now, step + 1, a_claims);
            if a_claims.is_some() {
                machine.frame_received(
                    now,
                    "eth0",
                    &Frame::announcements(MacAddr([2, 0, 0, 0, 0, 1]), VIP).next().unwrap(),
                );
            }
            run(&mut machine, now);
        }
        let expected = if waits { State::Verifying } else { State::Answering };
        assert_eq!(machine.state(VIP), Some(expected), "{what}");
    }
}

#[test]
fn a_takeover_waits_for_nothing() {
    let mut machine = speaker();
    let named = named(1, Some(("a", 1)));
    let given = Assignment { owner: Some(name("a")), standbys: [name("b")].into(), ..named };
    machine.assign(T0, given);
    hear(&mut machine, T0, 1, Some(1));
    let effects = run(&mut machine, T0 + Duration::from_millis(400));
    assert_eq!((cause(&effects), sought(&effects)), (Some(Reason::TookOver), 0));
}

#[test]
fn what_another_machine_has_is_not_connected_to_each_time_the_wire_is_asked() {
    let mut machine = speaker();
    machine.assign(T0, named(1, None));
    let foreign = MacAddr([2, 0, 0, 0, 0, 99]);
    let mut looks = sought(&run(&mut machine, T0));
    for step in 0..20_u64 {
        let now = T0 + Duration::from_millis(1 + step * 1_000);
        looks += sought(&run(&mut machine, now));
        machine.frame_received(now, "eth0", &Frame::announcements(foreign, VIP).next().unwrap());
        looks += sought(&run(&mut machine, now));
    }
    assert_eq!((looks, machine.state(VIP)), (1, Some(State::Conflicted)));
}

#[test]
fn where_nothing_showed_that_it_serves_it_is_looked_again_when_that_may_have_changed() {
    for (what, later, looks, expected) in [
        ("nothing changed", named(1, Some(("b", 1))), 0, None),
        ("endpoints are gone", Assignment { serving: false, ..named(1, None) }, 1, None),
        ("another port", Assignment { sought: Some(Evidence::Connection(81)), ..named(1, None) }, 1, None),
        ("nothing would show it any more", Assignment { sought: None, ..named(1, None) }, 0, Some(Reason::Answering)),
    ] {
        let mut machine = speaker();
        machine.assign(T0, named(1, None));
        let now = T0 + Duration::from_secs(2);
        assert_eq!(cause(&run(&mut machine, now)), Some(Reason::NotServing));
        machine.assign(now, later);
        let effects = run(&mut machine, now);
        let all = effects.iter().filter(|effect| matches!(effect, Effect::SeekEvidence { .. })).count();
        assert_eq!((all, cause(&effects)), (looks, expected), "{what}");
    }
}

#[test]
fn who_waits_while_the_former_owner_goes_on_answers_when_that_one_falls_silent() {
    let mut machine = speaker();
    machine.assign(T0, named(2, Some(("a", 1))));
    let mut now = T0;
    for sequence in 1..=3 {
        hear(&mut machine, now, sequence, Some(1));
        now += Duration::from_millis(100);
        run(&mut machine, now);
    }
    assert_eq!(machine.state(VIP), Some(State::Verifying), "it waits");
    let effects = run(&mut machine, now + crate::timing::DETECTION_TIME);
    assert_eq!((cause(&effects).is_some(), machine.state(VIP)), (true, Some(State::Answering)));
    // Or when it says that it does not answer any more.
    let mut machine = speaker();
    machine.assign(T0, named(2, Some(("a", 1))));
    hear(&mut machine, T0, 1, Some(1));
    now = T0 + Duration::from_millis(200);
    run(&mut machine, now);
    assert_eq!(machine.state(VIP), Some(State::Verifying), "it waits");
    hear(&mut machine, now, 2, None);
    run(&mut machine, now);
    assert_eq!(machine.state(VIP), Some(State::Answering));
}
