//! One machine alone: what its calls promise.

use std::sync::Arc;

use berth_wire::heartbeat::{Claim, Digest, EPOCH_MAX, Entries, Stance};
use berth_wire::{arp, ndp};

use super::*;
use crate::input::{Member, OwnerClaim};
use crate::timing::{ANNOUNCE_AT, ANSWER_INTERVAL, CONFLICT_RECHECK, PROBE_SPACING, PROBE_WAIT};

mod passing_on;

const T0: Duration = Duration::from_secs(1_000);

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn vip(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, 100 + n])
}

fn member(node: &str, last: u8) -> Arc<Member> {
    Arc::new(Member {
        node: name(node),
        interface: "eth0".to_owned(),
        address: IpAddr::from([192, 0, 2, last]),
        mac: MacAddr([2, 0, 0, 0, 0, last]),
    })
}

fn assignment(address: IpAddr, owner: &str, epoch: u64) -> Assignment {
    Assignment {
        address,
        owner: Some(name(owner)),
        standbys: ["a", "b"].into_iter().filter(|node| *node != owner).map(name).collect(),
        epoch,
        members: vec![member("a", 1), member("b", 2)].into(),
        claimed: None,
        sought: None,
        serving: false,
    }
}

/// One of its members, to be changed.
fn member_of(assignment: &mut Assignment, index: usize) -> &mut Member {
    Arc::make_mut(&mut Arc::make_mut(&mut assignment.members)[index])
}

/// The first of the frames that announce an address.
fn announcement(mac: MacAddr, address: IpAddr) -> Frame {
    Frame::announcements(mac, address).next().unwrap()
}

fn vip6(n: u8) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100 + u16::from(n)])
}

/// Where nodes are found for IPv6 addresses.
fn own6(last: u8) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)])
}

fn assignment6(address: IpAddr, owner: &str, epoch: u64) -> Assignment {
    let mut assignment = assignment(address, owner, epoch);
    for (index, last) in [(0, 1), (1, 2)] {
        member_of(&mut assignment, index).address = own6(last);
    }
    assignment
}

fn drain(machine: &mut Machine) -> Vec<Effect> {
    std::iter::from_fn(|| machine.poll_effect()).collect()
}

/// Ticks at each deadline up to a time.
fn run(machine: &mut Machine, until: Duration) -> Vec<Effect> {
    let mut effects = drain(machine);
    while let Some(at) = machine.next_deadline().filter(|at| *at <= until) {
        machine.tick(at);
        effects.extend(drain(machine));
    }
    effects
}

/// A node with a link.
fn speaker(node: &str) -> Machine {
    let mut machine = Machine::new(name(node), 7, T0);
    machine.link_changed(T0, "eth0", true);
    machine
}

/// Node a, which answers for the first address.
fn owner() -> (Machine, Duration) {
    let mut machine = speaker("a");
    machine.assign(T0, assignment(vip(0), "a", 1));
    let now = T0 + PROBE_WAIT;
    run(&mut machine, now);
    assert_eq!(machine.answering().collect::<Vec<_>>(), [(vip(0), 1)]);
    (machine, now)
}

#[test]
fn a_speaker_with_no_part_in_anything_says_nothing_and_sleeps() {
    let mut machine = Machine::new(name("z"), 7, T0);
    machine.assign(T0, assignment(vip(0), "a", 1));
    machine.tick(T0 + Duration::from_mins(1));
    assert_eq!(drain(&mut machine), []);
    assert_eq!(machine.next_deadline(), None);
    assert_eq!((machine.state(vip(0)), machine.take_changed_interfaces().len()), (None, 0));
}

#[test]
fn an_assignment_that_is_repeated_changes_nothing() {
    let (mut machine, now) = owner();
    machine.assign(now, assignment(vip(0), "a", 1));
    assert_eq!(drain(&mut machine), []);
    // The controller or the own status write may add what is known here already.
    let claimed = Some(OwnerClaim { node: name("a"), epoch: 1 });
    machine.assign(now, Assignment { claimed, ..assignment(vip(0), "a", 1) });
    assert_eq!(drain(&mut machine), []);
}

#[test]
fn a_withdrawn_address_is_given_up_without_a_frame() {
    let (mut machine, now) = owner();
    machine.withdraw(now, vip(0));
    assert_eq!(drain(&mut machine), []);
    let question = Frame::probe(MacAddr([2, 0, 0, 0, 0, 9]), vip(0));
    machine.frame_received(now, "eth0", &question);
    assert_eq!((drain(&mut machine), machine.next_deadline()), (vec![], None));
}

#[test]
fn what_is_packed_is_what_it_was() {
    let (mut machine, now) = owner();
    for n in 1..100 {
        machine.assign(now, assignment(vip(n), if n % 2 == 0 { "a" } else { "b" }, 1));
    }
    machine.heartbeat_received(now, "eth0", &claims("b", 3, 1, &[(vip(1), 1), (vip(3), 1)]));
    drain(&mut machine);
    let before = format!("{machine:?}");
    machine.pack();
    assert_eq!(drain(&mut machine), []);
    assert_eq!(format!("{machine:?}"), before);
    assert_eq!(machine.effects.capacity(), 0, "the room of a hundred effects at once");
}

#[test]
fn the_driver_learns_which_interfaces_need_a_new_filter() {
    let mut machine = speaker("a");
    let changed = |machine: &mut Machine| machine.take_changed_interfaces().into_iter().collect::<Vec<_>>();
    machine.assign(T0, assignment(vip(1), "a", 1));
    machine.assign(T0, assignment(vip(0), "b", 1));
    assert_eq!(changed(&mut machine), ["eth0"]);
    assert_eq!(machine.watched_addresses("eth0").collect::<Vec<_>>(), [vip(0), vip(1)]);
    machine.assign(T0, assignment(vip(0), "b", 2));
    assert!(changed(&mut machine).is_empty(), "the same addresses as before");
    let mut moved = assignment(vip(0), "b", 2);
    member_of(&mut moved, 0).interface = "eth1".to_owned();
    machine.assign(T0, moved);
    assert_eq!(changed(&mut machine), ["eth0", "eth1"]);
    machine.withdraw(T0, vip(0));
    machine.withdraw(T0, vip(1));
    assert_eq!(changed(&mut machine), ["eth0", "eth1"]);
    assert_eq!(machine.watched_interfaces().count(), 0);
}

#[test]
fn questions_are_answered_where_they_are_asked_and_only_if_they_are_meant() {
    let (mut machine, now) = owner();
    let asker = MacAddr([2, 0, 0, 0, 0, 9]);
    let own = member("a", 1).mac;
    let question = Frame::probe(asker, vip(0));
    let IpAddr::V4(target) = vip(0) else { panic!("IPv4") };
    let probe = arp::Frame::probe(asker, target);
    let to = |dst| Frame::Arp(arp::Frame { dst, ..probe });
    let mut answer = arp::Frame::reply_to(&probe, asker);
    (answer.arp.sender_ip, answer.arp.target_ip) = ([192, 0, 2, 9].into(), target);
    let answer = Frame::Arp(answer);
    let table = [
        ("eth0", question, true, "to everybody"),
        ("eth0", to(own), true, "to this node, to refresh an entry"),
        ("eth0", to(MacAddr([2, 0, 0, 0, 0, 8])), false, "to another one, seen in passing"),
        ("eth1", question, false, "on another link"),
        ("eth0", Frame::probe(asker, vip(1)), false, "for another address"),
        ("eth0", answer, false, "an answer that is for somebody with this address"),
        ("eth0", announcement(own, vip(0)), false, "the own announcement, heard again"),
    ];
    for (interface, frame, answered, why) in table {
        machine.frame_received(now, interface, &frame);
        let expected = if answered {
            vec![Effect::SendFrame { interface: "eth0".to_owned(), frame: Frame::reply_to(&frame, own) }]
        } else {
            vec![]
        };
        assert_eq!(drain(&mut machine), expected, "{why}");
    }
    assert_eq!(machine.counters().replies.total(), 2);
}

#[test]
fn a_process_that_did_not_run_asks_the_wire_before_it_looks_at_anything() {
    for (away, answers) in [(HEARTBEAT_INTERVAL, true), (DETECTION_TIME, false), (DETECTION_TIME * 100, false)] {
        let (mut machine, now) = owner();
        run(&mut machine, now + HEARTBEAT_INTERVAL);
        machine.frame_received(now + HEARTBEAT_INTERVAL + away, "eth0", &Frame::probe(MacAddr([2; 6]), vip(0)));
        let replies = machine.counters().replies.total();
        assert_eq!(replies == 1, answers, "away for {away:?}");
        assert_eq!(machine.counters().fenced == 0, answers);
    }
}

#[test]
fn a_process_that_runs_without_sending_heartbeats_is_as_good_as_away() {
    let (mut machine, now) = owner();
    let sent = now;
    // The driver hands frames in and never finds the time for a tick.
    let mut at = now;
    while at < sent + DETECTION_TIME + HEARTBEAT_INTERVAL {
        at += Duration::from_millis(10);
        machine.frame_received(at, "eth0", &Frame::probe(MacAddr([2; 6]), vip(1)));
    }
    assert_eq!(machine.counters().fenced, 1);
}

#[test]
fn time_that_seems_to_run_backwards_does_no_harm() {
    let (mut machine, now) = owner();
    machine.tick(now.saturating_sub(Duration::from_secs(10)));
    machine.tick(now + Duration::from_millis(1));
    assert_eq!((machine.answering().count(), machine.counters().fenced), (1, 0));
}

#[test]
fn a_partner_is_told_ten_times_a_second_that_this_node_lives() {
    let (mut machine, now) = owner();
    let effects = run(&mut machine, now + Duration::from_secs(10));
    let messages: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::SendHeartbeat { to, message, .. } if *to == name("b") => Some(message),
            _ => None,
        })
        .collect();
    assert_eq!(messages.len(), 100);
    assert!(messages.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    assert!(messages.iter().all(|message| message.boot_id == 7 && !message.stopping));
}

#[test]
fn heartbeats_of_strangers_and_old_ones_are_counted_and_ignored() {
    let (mut machine, now) = owner();
    let message = |sender, sequence| Message { want_claims: true, ..claims(sender, 3, sequence, &[]) };
    machine.heartbeat_received(now, "eth1", &message("b", 1));
    machine.heartbeat_received(now, "eth0", &message("x", 1));
    assert_eq!((machine.counters().refused_unknown, drain(&mut machine).len()), (2, 0));
    machine.heartbeat_received(now, "eth0", &message("b", 5));
    assert_eq!(drain(&mut machine).len(), 1, "the list that was asked for");
    machine.heartbeat_received(now, "eth0", &message("b", 5));
    assert_eq!((machine.counters().refused_sequence, drain(&mut machine).len()), (1, 0));
    assert_eq!(machine.counters().heartbeats, 1);
}

#[test]
fn whoever_does_not_prove_to_hear_this_node_changes_nothing() {
    let (mut machine, now) = owner();
    machine.heartbeat_received(now, "eth0", &claims("b", 3, 1, &[]));
    drain(&mut machine);
    for (heard_boot_id, boot_id) in [(0, 99), (6, 99), (0, 3)] {
        let forged = Message {
            heard_boot_id,
            stopping: true,
            want_claims: true,
            ..claims("b", boot_id, 1_000, &[(vip(0), EPOCH_MAX), (vip(1), 9)])
        };
        let before = drain(&mut machine);
        machine.heartbeat_received(now, "eth0", &forged);
        assert_eq!((before, machine.answering().collect::<Vec<_>>()), (vec![], vec![(vip(0), 1)]));
        drain(&mut machine);
    }
    assert_eq!(machine.counters().refused_unproven, 3);
    // The partner goes on to be heard, is not called silent by it, and no less because of its number.
    machine.heartbeat_received(now, "eth0", &claims("b", 3, 2, &[(vip(0), 2)]));
    assert_eq!((machine.counters().heartbeats, machine.state(vip(0))), (2, Some(State::Standby)));
}

#[test]
fn a_partner_that_is_not_proven_is_answered_with_its_boot_id_and_not_by_more_than_it_sent() {
    let (mut machine, now) = owner();
    let hello = |boot_id| Message { heard_boot_id: 0, want_claims: true, ..claims("b", boot_id, 1, &[]) };
    let mut answers = Vec::new();
    for i in 0..100u32 {
        machine.heartbeat_received(now + ANSWER_INTERVAL / 10 * i, "eth0", &hello(50 + u64::from(i)));
        answers.extend(drain(&mut machine));
    }
    let heard = answers.iter().filter_map(|effect| match effect {
        Effect::SendHeartbeat { message, .. } if matches!(message.body, Body::Heartbeat { count: 1, .. }) => {
            Some(message.heard_boot_id)
        }
        _ => None,
    });
    assert_eq!(heard.collect::<Vec<_>>(), [50, 60, 70, 80, 90, 100, 110, 120, 130, 140], "{answers:?}");
    assert_eq!(answers.len(), 10);
}

#[test]
fn the_last_number_there_is_does_no_harm() {
    let (mut machine, now) = owner();
    machine.heartbeat_received(now, "eth0", &claims("b", 3, 1, &[(vip(0), EPOCH_MAX)]));
    assert_eq!(machine.state(vip(0)), Some(State::Standby));
    run(&mut machine, now + Duration::from_secs(2));
    assert_eq!(machine.answering().collect::<Vec<_>>(), [(vip(0), EPOCH_MAX)], "the partner fell silent");
}

fn claims(node: &str, boot_id: u64, sequence: u64, epochs: &[(IpAddr, u64)]) -> Message {
    let mut digest = Digest::EMPTY;
    let mut entries = Vec::new();
    for &(address, epoch) in epochs {
        digest = digest.with(address, epoch);
        entries.push(Claim { address, epoch, stance: Stance::Answers });
    }
    let body = match Entries::split(&entries).next() {
        Some(entries) => Body::Changes { digest, count: epochs.len() as u32, entries },
        None => Body::Heartbeat { digest, count: 0 },
    };
    Message {
        sender: name(node),
        boot_id,
        sequence,
        heard_boot_id: 7,
        stopping: false,
        want_claims: false,
        want_sightings: false,
        body,
    }
}

/// What was said to a partner about the first address.
fn said(effects: &[Effect]) -> Vec<Claim> {
    let bodies = effects.iter().filter_map(|effect| match effect {
        Effect::SendHeartbeat { message: Message { body: Body::Changes { entries, .. }, .. }, .. } => Some(entries),
        _ => None,
    });
    bodies.flat_map(|entries| entries.as_slice().to_vec()).collect()
}

#[test]
fn partners_hear_of_a_claim_in_the_moment_it_is_made() {
    let mut machine = speaker("a");
    machine.assign(T0, assignment(vip(0), "a", 1));
    let effects = run(&mut machine, T0 + PROBE_WAIT);
    assert_eq!(said(&effects), [Claim { address: vip(0), epoch: 1, stance: Stance::Answers }]);
}

#[test]
fn a_claim_that_does_not_prevail_is_answered_with_the_one_that_does() {
    let own = Claim { address: vip(0), epoch: 1, stance: Stance::Answers };
    for (epoch, answered) in [(0, vec![own]), (1, vec![own]), (2, vec![])] {
        let (mut machine, now) = owner();
        machine.heartbeat_received(now, "eth0", &claims("b", 3, 1, &[]));
        drain(&mut machine);
        machine.heartbeat_received(now, "eth0", &claims("b", 3, 2, &[(vip(0), epoch)]));
        assert_eq!(said(&drain(&mut machine)), answered, "claimed with {epoch}");
        assert_eq!(machine.answering().count(), answered.len());
    }
}

#[test]
fn partners_hear_that_an_address_was_given_up_and_for_which_number() {
    let (mut machine, now) = owner();
    machine.heartbeat_received(now, "eth0", &claims("b", 3, 1, &[(vip(0), 5)]));
    let effects = run(&mut machine, now + HEARTBEAT_INTERVAL);
    assert!(effects.contains(&Effect::Yielded { address: vip(0), to: Some(name("b")), epoch: 5 }));
    assert_eq!(said(&effects), [Claim { address: vip(0), epoch: 5, stance: Stance::Knows(Some(name("b").tag())) }]);
}

#[test]
fn a_verdict_that_comes_late_is_not_trusted() {
    let mut machine = speaker("b");
    machine.assign(
        T0,
        Assignment { claimed: Some(OwnerClaim { node: name("a"), epoch: 1 }), ..assignment(vip(0), "a", 1) },
    );
    let silent = T0 + DETECTION_TIME;
    run(&mut machine, silent + PROBE_SPACING);
    assert_eq!((machine.state(vip(0)), machine.counters().probes.total()), (Some(State::Probing), 2));
    // Late enough for answers to wait unread, not late enough to count as away.
    let late = silent + PROBE_WAIT * 3;
    machine.tick(late);
    assert_eq!(machine.state(vip(0)), Some(State::Probing), "asked again");
    run(&mut machine, late + PROBE_WAIT);
    assert_eq!(machine.state(vip(0)), Some(State::Answering));
}

#[test]
fn what_was_known_before_a_pause_is_not_taken_for_what_is_so_now() {
    let partner = member("b", 2);
    let (mut machine, now) = owner();
    machine.assign(now, assignment(vip(0), "a", 3));
    // The partner answered with a lower number when it was last heard of.
    machine.heartbeat_received(now, "eth0", &claims("b", 3, 1, &[(vip(0), 2)]));
    let later = now + DETECTION_TIME * 5;
    machine.tick(later);
    let reply = announcement(partner.mac, vip(0));
    machine.frame_received(later, "eth0", &reply);
    assert_eq!(machine.state(vip(0)), Some(State::Verifying), "it may have claimed a higher one meanwhile");
    machine.heartbeat_received(later, "eth0", &claims("b", 3, 2, &[(vip(0), 4)]));
    assert_eq!(machine.state(vip(0)), Some(State::Standby));
}

#[test]
fn a_changed_ethernet_address_is_announced_again() {
    let (mut machine, now) = owner();
    let mut changed = assignment(vip(0), "a", 1);
    member_of(&mut changed, 0).mac = MacAddr([2, 7, 7, 7, 7, 7]);
    machine.assign(now, changed);
    let effects = drain(&mut machine);
    let announced = |effect: &Effect| matches!(effect, Effect::SendFrame { frame, .. } if frame.sender_mac().0[1] == 7);
    assert_eq!(effects.iter().filter(|effect| announced(effect)).count(), 2);
    let written = |effect: &Effect| matches!(effect, Effect::StatusChanged { status, .. } if status.mac.0[1] == 7);
    assert_eq!(effects.iter().filter(|effect| written(effect)).count(), 1);
}

#[test]
fn an_address_in_use_is_defended_and_the_offender_named_once() {
    let (mut machine, now) = owner();
    run(&mut machine, now + Duration::from_secs(6));
    let now = now + Duration::from_secs(6);
    let foreign = MacAddr([2, 9, 9, 9, 9, 9]);
    let mut frames = Vec::new();
    let mut statuses = Vec::new();
    for i in 0..100u32 {
        let at = now + Duration::from_millis(50) * i;
        machine.frame_received(at, "eth0", &announcement(foreign, vip(0)));
        for effect in run(&mut machine, at) {
            match effect {
                Effect::SendFrame { frame, .. } => frames.push(frame),
                Effect::StatusChanged { status, .. } => statuses.push(status),
                _ => {}
            }
        }
    }
    assert_eq!(frames.len(), 2, "one announcement in ten seconds");
    let [status] = &statuses[..] else { panic!("{statuses:?}") };
    assert_eq!((status.state, status.foreign), (State::Answering, Some(foreign)));
    assert_eq!(machine.counters().conflicts, 100);
    // Silence for a minute clears it.
    let later = run(&mut machine, now + Duration::from_secs(70));
    let cleared = later.iter().any(|e| matches!(e, Effect::StatusChanged { status, .. } if status.foreign.is_none()));
    assert!(cleared);
}

#[test]
fn two_machines_that_both_claim_an_address_of_ours_do_not_flood_the_status() {
    let (mut machine, now) = owner();
    let mut named = Vec::new();
    for i in 0..250u32 {
        let foreign = MacAddr([2, 9, 9, 9, 9, (i % 2) as u8]);
        let at = now + Duration::from_millis(100) * i;
        machine.frame_received(at, "eth0", &announcement(foreign, vip(0)));
        named.extend(run(&mut machine, at).into_iter().filter_map(|effect| match effect {
            Effect::StatusChanged { status, .. } if status.cause == berth_api::Reason::Answering => status.foreign,
            _ => None,
        }));
    }
    assert_eq!(named.len(), 3, "at once, and every ten seconds: {named:?}");
    assert_eq!((named[0], machine.counters().conflicts), (MacAddr([2, 9, 9, 9, 9, 0]), 250));
}

#[test]
fn a_claim_that_was_written_prevails_as_one_that_is_heard_does() {
    for (node, epoch, prevails) in [("a", 0, false), ("a", 1, true), ("a", 2, true), ("c", 1, false), ("c", 2, true)] {
        let mut machine = speaker("b");
        let members = [member("a", 1), member("b", 2), member("c", 3)].into();
        let given = Assignment { members, ..assignment(vip(0), "b", 1) };
        machine.assign(T0, given.clone());
        let now = T0 + PROBE_WAIT;
        run(&mut machine, now);
        assert_eq!(machine.state(vip(0)), Some(State::Answering));
        machine.assign(now, Assignment { claimed: Some(OwnerClaim { node: name(node), epoch }), ..given });
        let expected = if prevails { State::Standby } else { State::Answering };
        assert_eq!(machine.state(vip(0)), Some(expected), "{node} with {epoch}");
    }
}

#[test]
fn on_an_interface_that_was_never_said_to_be_up_nothing_is_taken_over() {
    for up in [false, true] {
        let mut machine = Machine::new(name("b"), 7, T0);
        machine.link_changed(T0, "eth1", true);
        if up {
            machine.link_changed(T0, "eth0", true);
        }
        let claimed = Some(OwnerClaim { node: name("a"), epoch: 1 });
        machine.assign(T0, Assignment { claimed, ..assignment(vip(0), "a", 1) });
        machine.assign(T0, assignment(vip(1), "b", 1));
        run(&mut machine, T0 + Duration::from_secs(5));
        assert_eq!(machine.answering().count(), if up { 2 } else { 0 });
        machine.link_changed(T0 + Duration::from_secs(5), "eth0", true);
        run(&mut machine, T0 + Duration::from_secs(6));
        assert_eq!(machine.answering().count(), 2, "once it is there");
    }
}

#[test]
fn after_a_stop_nothing_is_said_any_more() {
    let (mut machine, now) = owner();
    machine.stop(now);
    assert_eq!(drain(&mut machine).last(), Some(&Effect::Stopped));
    machine.assign(now, assignment(vip(1), "a", 1));
    machine.frame_received(now, "eth0", &Frame::probe(MacAddr([2; 6]), vip(0)));
    machine.tick(now + Duration::from_secs(1));
    machine.stop(now + Duration::from_secs(1));
    assert_eq!((drain(&mut machine), machine.next_deadline()), (vec![], None));
}

#[test]
fn an_ipv6_address_is_asked_for_announced_and_answered_for() {
    let mut machine = speaker("a");
    machine.assign(T0, assignment6(vip6(0), "a", 1));
    let own = member("a", 1).mac;
    let effects = run(&mut machine, T0 + PROBE_WAIT);
    let sent: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::SendFrame { frame, .. } => Some(*frame),
            _ => None,
        })
        .collect();
    let probe = Frame::probe(own, vip6(0));
    assert_eq!(sent, [probe, probe, announcement(own, vip6(0))]);
    let IpAddr::V6(target) = vip6(0) else { panic!("IPv6") };
    let (asker, now) = (MacAddr([2, 0, 0, 0, 0, 9]), T0 + PROBE_WAIT);
    let question = ndp::Frame::solicit(asker, "2001:db8::9".parse().unwrap(), target);
    let to = |dst| Frame::Ndp(ndp::Frame { dst, ..question });
    let table = [
        ("eth0", Frame::Ndp(question), true, "to the group of the address"),
        ("eth0", to(own), true, "to this node, to refresh an entry"),
        ("eth0", to(MacAddr([2, 0, 0, 0, 0, 8])), false, "to another one, seen in passing"),
        ("eth1", Frame::Ndp(question), false, "on another link"),
        ("eth0", Frame::probe(asker, vip6(0)), true, "duplicate address detection of another host"),
        ("eth0", Frame::probe(asker, vip6(1)), false, "for another address"),
        ("eth0", Frame::Ndp(ndp::Frame::reply_to(&question, own)), false, "the own answer, heard again"),
    ];
    for (interface, frame, answered, why) in table {
        machine.frame_received(now, interface, &frame);
        let reply = Effect::SendFrame { interface: "eth0".to_owned(), frame: Frame::reply_to(&frame, own) };
        assert_eq!(drain(&mut machine), if answered { vec![reply] } else { vec![] }, "{why}");
    }
    assert_eq!(machine.counters().replies, crate::PerFamily { ipv4: 0, ipv6: 3 });
    assert_eq!(machine.counters().conflicts, 0, "a host whose detection was answered does not use the address");
}

#[test]
fn a_silent_owner_of_an_ipv6_address_is_asked_from_an_own_address() {
    let mut machine = speaker("b");
    let claimed = Some(OwnerClaim { node: name("a"), epoch: 1 });
    machine.assign(T0, Assignment { claimed, ..assignment6(vip6(0), "a", 1) });
    let effects = run(&mut machine, T0 + DETECTION_TIME);
    let frame = Frame::ask(member("b", 2).mac, own6(2), vip6(0));
    assert!(effects.contains(&Effect::SendFrame { interface: "eth0".to_owned(), frame }), "{effects:?}");
    assert_eq!(frame.claim(), Some((own6(2), member("b", 2).mac)), "so that the answer comes to it alone");
}

#[test]
fn a_foreign_machine_that_asks_for_an_address_at_the_same_time_keeps_it_from_being_used() {
    let foreign = MacAddr([2, 9, 9, 9, 9, 9]);
    for (asker, state) in [(foreign, State::Conflicted), (member("b", 2).mac, State::Verifying)] {
        for (address, assignment) in [(vip(0), assignment(vip(0), "a", 1)), (vip6(0), assignment6(vip6(0), "a", 1))] {
            let mut machine = speaker("a");
            machine.assign(T0, assignment);
            machine.frame_received(T0 + PROBE_SPACING / 2, "eth0", &Frame::probe(asker, address));
            assert_eq!(machine.state(address), Some(state), "{address} asked for by {asker}");
        }
    }
}

#[test]
fn what_was_said_of_a_conflict_is_not_for_this_node_to_say_when_another_is_named() {
    let foreign = MacAddr([2, 9, 9, 9, 9, 9]);
    // While it waits to ask the wire again, and while it does.
    for later in [Duration::ZERO, CONFLICT_RECHECK] {
        let mut machine = speaker("a");
        machine.assign(T0, assignment(vip(0), "a", 1));
        machine.frame_received(T0, "eth0", &announcement(foreign, vip(0)));
        let now = T0 + later;
        let said = run(&mut machine, now);
        let conflict =
            |e: &Effect| matches!(e, Effect::StatusChanged { status, .. } if status.state == State::Conflicted);
        assert!(said.iter().any(conflict));
        machine.assign(now, assignment(vip(0), "b", 2));
        let yielded = |e: &Effect| matches!(e, Effect::Yielded { address, .. } if *address == vip(0));
        assert_eq!(drain(&mut machine).iter().filter(|e| yielded(e)).count(), 1, "{later:?}");
        assert_eq!(machine.state(vip(0)), Some(State::Standby));
    }
}

#[test]
fn addresses_of_both_families_share_one_session() {
    let mut machine = speaker("a");
    machine.assign(T0, assignment6(vip6(0), "a", 1));
    machine.assign(T0, assignment(vip(0), "a", 1));
    assert_eq!(machine.partners().count(), 1);
    let talks_to = |machine: &mut Machine, now| {
        let effects = run(machine, now);
        let addresses = effects.iter().filter_map(|effect| match effect {
            Effect::SendHeartbeat { address, .. } => Some(*address),
            _ => None,
        });
        addresses.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    let mut now = T0 + HEARTBEAT_INTERVAL;
    assert_eq!(talks_to(&mut machine, now), [own6(2)], "where it was met first");
    machine.heartbeat_received(now, "eth0", &claims("b", 3, 1, &[]));
    // Without the address that it was met for, it is talked to at the other one, as the same process.
    machine.withdraw(now, vip6(0));
    drain(&mut machine);
    now += HEARTBEAT_INTERVAL;
    assert_eq!(talks_to(&mut machine, now), [member("b", 2).address]);
    assert_eq!(machine.partners().collect::<Vec<_>>(), [(&name("b"), true)]);
    // Found elsewhere, it is followed.
    let mut moved = assignment(vip(0), "a", 1);
    member_of(&mut moved, 1).address = member("b", 22).address;
    machine.assign(now, moved);
    now += HEARTBEAT_INTERVAL;
    drain(&mut machine);
    assert_eq!(talks_to(&mut machine, now), [member("b", 22).address]);
    assert_eq!(machine.partners().collect::<Vec<_>>(), [(&name("b"), true)]);
    machine.withdraw(now, vip(0));
    assert_eq!(machine.partners().count(), 0);
}

#[test]
fn a_node_that_is_met_on_two_interfaces_has_a_session_on_each() {
    let mut machine = speaker("a");
    machine.link_changed(T0, "eth1", true);
    machine.assign(T0, assignment(vip(0), "b", 1));
    let mut other = assignment(vip(1), "b", 1);
    for member in Arc::make_mut(&mut other.members).iter_mut().map(Arc::make_mut) {
        member.interface = "eth1".to_owned();
        let IpAddr::V4(address) = member.address else { panic!("IPv4") };
        member.address = IpAddr::from([198, 51, 100, address.octets()[3]]);
    }
    machine.assign(T0, other);
    for (interface, heard) in [("eth0", false), ("eth1", true)] {
        machine.heartbeat_received(T0, interface, &claims("b", 3, 1, &[]));
        assert_eq!(machine.partners().collect::<Vec<_>>(), [(&name("b"), heard)], "after {interface}");
    }
    machine.withdraw(T0, vip(0));
    machine.heartbeat_received(T0, "eth0", &claims("b", 3, 2, &[]));
    assert_eq!((machine.partners().count(), machine.counters().refused_unknown), (1, 1));
}

/// When a node that was named first answers, while a partner says so of itself in each heartbeat and answers every question in its name.
fn answered_beside(heartbeat: impl Fn(Duration, u64) -> Message) -> Option<Duration> {
    let mut machine = speaker("a");
    machine.assign(T0, assignment(vip(0), "a", 1));
    let partner = member("b", 2);
    let mut sequence = 0;
    let answered = (0..1_000u32).map(|i| T0 + Duration::from_millis(10) * i).find(|now| {
        if machine.next_deadline().is_some_and(|due| due <= *now) {
            machine.tick(*now);
        }
        if now.as_millis() % 100 == 0 {
            sequence += 1;
            machine.heartbeat_received(*now, "eth0", &heartbeat(now.saturating_sub(T0), sequence));
        }
        // Somebody says in its name that it has the address, whenever that is asked.
        let asked =
            |effect: &Effect| matches!(effect, Effect::SendFrame { frame, .. } if frame.question() == Some(vip(0)));
        if drain(&mut machine).iter().any(asked) {
            machine.frame_received(*now, "eth0", &announcement(partner.mac, vip(0)));
        }
        machine.state(vip(0)) == Some(State::Answering)
    });
    answered.map(|at| at.saturating_sub(T0))
}

#[test]
fn a_node_that_answers_and_never_claims_keeps_nobody_from_answering_for_good() {
    let after = answered_beside(|_, sequence| claims("b", 3, sequence, &[]));
    assert!(after.is_some_and(|after| (DETECTION_TIME * 3..Duration::from_secs(2)).contains(&after)), "{after:?}");
}

#[test]
fn a_node_that_answers_and_claims_more_than_was_heard_of_it_is_heard_out() {
    // Its heartbeats say how many claims it has, and the claims themselves do not come.
    let lists = |sequence| {
        let digest = Digest::EMPTY.with(vip(0), 2);
        Message { body: Body::Heartbeat { digest, count: 1 }, ..claims("b", 3, sequence, &[]) }
    };
    let late = answered_beside(|since, sequence| {
        if since < Duration::from_secs(4) { lists(sequence) } else { claims("b", 3, sequence, &[(vip(0), 2)]) }
    });
    assert_eq!(late, None, "what it claims was heard at last");
    let never = answered_beside(|_, sequence| lists(sequence));
    let expected = Duration::from_secs(4)..Duration::from_secs(9);
    assert!(never.is_some_and(|after| expected.contains(&after)), "{never:?}: nobody is kept from answering for good");
}

#[test]
fn who_stood_back_for_one_node_by_word_does_not_stand_back_for_the_next() {
    let mut machine = speaker("b");
    let members = [member("a", 1), member("b", 2), member("c", 3)].into();
    let standbys = [name("a"), name("c")].into();
    let given = Assignment { standbys, members, ..assignment(vip(0), "b", 1) };
    machine.assign(T0, given.clone());
    let now = T0 + PROBE_WAIT;
    run(&mut machine, now);
    // It is known only from the Announcement that node c has claimed the address.
    machine.assign(now, Assignment { claimed: Some(OwnerClaim { node: name("c"), epoch: 2 }), ..given });
    let now = now + Duration::from_secs(5);
    run(&mut machine, now);
    assert_eq!(machine.state(vip(0)), Some(State::Standby), "it stands back");
    // Node a took over, is heard, and dies.
    machine.heartbeat_received(now, "eth0", &claims("a", 3, 1, &[(vip(0), 3)]));
    run(&mut machine, now + DETECTION_TIME + PROBE_WAIT);
    assert_eq!(machine.answering().collect::<Vec<_>>(), [(vip(0), 4)]);
}

#[test]
fn what_was_heard_of_a_partner_is_remembered_while_nothing_is_shared_with_it() {
    let (mut machine, now) = owner();
    machine.heartbeat_received(now, "eth0", &claims("b", 3, 9, &[]));
    machine.heartbeat_received(now, "eth0", &claims("b", 4, 5, &[]));
    machine.withdraw(now, vip(0));
    machine.assign(now, assignment(vip(0), "a", 1));
    let before = machine.counters();
    for (boot_id, sequence, refused, why) in [
        (3, 10, true, "an earlier start"),
        (4, 5, true, "repeated"),
        (4, 4, true, "older"),
        (4, 6, false, "the next one"),
        (5, 1, false, "a new start"),
    ] {
        let heartbeats = machine.counters().heartbeats;
        machine.heartbeat_received(now, "eth0", &claims("b", boot_id, sequence, &[]));
        assert_eq!(machine.counters().heartbeats == heartbeats, refused, "{why}");
    }
    let after = machine.counters();
    assert_eq!(
        (after.refused_boot_id - before.refused_boot_id, after.refused_sequence - before.refused_sequence),
        (1, 2)
    );
}

/// When the address was announced, in order.
fn announced_at(machine: &mut Machine, address: IpAddr, until: Duration) -> Vec<Duration> {
    let first = announcement(MacAddr([2, 0, 0, 0, 0, 1]), address);
    let is_first = |effect: &Effect| matches!(effect, Effect::SendFrame { frame, .. } if *frame == first);
    let mut times = Vec::new();
    while let Some(at) = machine.next_deadline().filter(|at| *at <= until) {
        machine.tick(at);
        times.extend(drain(machine).iter().filter(|effect| is_first(effect)).map(|_| at));
    }
    times
}

#[test]
fn an_owner_announces_again_at_the_interval_if_it_is_to_and_else_never() {
    let interval = Duration::from_mins(5);
    for (refresh, expected) in [(None, 0), (Some(Refresh::every(interval).unwrap()), 12)] {
        for address in [vip(0), vip6(0)] {
            let mut machine = speaker("a").refreshing(refresh);
            let assign = if address.is_ipv4() { assignment } else { assignment6 };
            machine.assign(T0, assign(address, "a", 1));
            let claimed = T0 + PROBE_WAIT;
            run(&mut machine, claimed);
            let after_claim = announced_at(&mut machine, address, claimed + ANNOUNCE_AT[5]);
            assert_eq!(after_claim.len(), 5, "what follows a claim stays as it is");
            let later = announced_at(&mut machine, address, claimed + Duration::from_hours(1));
            assert_eq!(later.len(), expected, "{address} within an hour: {later:?}");
            assert!(later.is_sorted_by(|earlier, later| *later == *earlier + interval), "{later:?}");
        }
    }
}

#[test]
fn who_does_not_answer_any_more_refreshes_nothing() {
    let mut machine = speaker("a").refreshing(Some(Refresh::every(Duration::from_secs(10)).unwrap()));
    machine.assign(T0, assignment(vip(0), "a", 1));
    let now = T0 + Duration::from_secs(30);
    assert!(announced_at(&mut machine, vip(0), now).len() > 6);
    let claimed = Some(OwnerClaim { node: name("b"), epoch: 2 });
    machine.assign(now, Assignment { claimed, ..assignment(vip(0), "b", 2) });
    assert_eq!(machine.state(vip(0)), Some(State::Standby));
    // It would take over in the end.
    assert_eq!(announced_at(&mut machine, vip(0), now + DETECTION_TIME), [] as [Duration; 0]);
    machine.withdraw(now + DETECTION_TIME, vip(0));
    assert_eq!(machine.next_deadline(), None);
}

#[test]
fn five_thousand_addresses_are_refreshed_one_by_one() {
    const ADDRESSES: u32 = 5_000;
    let interval = Duration::from_secs(10);
    let mut machine = speaker("a").refreshing(Some(Refresh::every(interval).unwrap()));
    for n in 0..ADDRESSES {
        let address = std::net::Ipv4Addr::from_bits(0xc612_0000 + n).into();
        machine.assign(T0, assignment(address, "a", 1));
    }
    // All are claimed and announced for the last time.
    let mut now = T0 + Duration::from_secs(20);
    run(&mut machine, now);
    for _ in 0..3 {
        let (before, end) = (machine.counters().announcements.ipv4, now + interval);
        let mut most = 0;
        while now < end {
            now += Duration::from_millis(10);
            let is_arp = |effect: &&Effect| matches!(effect, Effect::SendFrame { frame: Frame::Arp(_), .. });
            most = most.max(run(&mut machine, now).iter().filter(is_arp).count());
        }
        let announced = machine.counters().announcements.ipv4 - before;
        assert_eq!(announced, u64::from(2 * ADDRESSES), "each once, in both forms");
        // Five addresses within 10 ms if it were perfect.
        assert!(most <= 2 * 8, "{most} frames within 10 ms");
    }
}
