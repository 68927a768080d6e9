//! The rules by which claims prevail, as tables.

use berth_api::MacAddr;

use super::*;

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn claim(node: &str, epoch: u64) -> OwnerClaim {
    OwnerClaim { node: name(node), epoch }
}

fn assignment(owner: &str, epoch: u64, claimed: Option<(&str, u64)>) -> Assignment {
    let address = IpAddr::from([192, 0, 2, 100]);
    let member = |node: &str, last| {
        Arc::new(Member {
            node: name(node),
            interface: "eth0".to_owned(),
            address: IpAddr::from([192, 0, 2, last]),
            mac: MacAddr([2, 0, 0, 0, 0, last]),
        })
    };
    Assignment {
        address,
        owner: Some(name(owner)),
        standbys: ["a", "b", "c"].into_iter().filter(|node| *node != owner).map(name).collect(),
        epoch,
        members: vec![member("a", 1), member("b", 2), member("c", 3)].into(),
        claimed: claimed.map(|(node, epoch)| claim(node, epoch)),
        sought: None,
        serving: false,
    }
}

/// The address on node b, where nothing is known yet.
fn place() -> Place {
    let assignment = assignment("a", 0, None);
    let peers = assignment.members.iter().filter(|member| member.node != name("b")).zip(0..);
    let peers = peers.map(|(member, id)| Peer { id: PeerId(id), node: member.node.clone(), mac: member.mac }).collect();
    Place::new(Duration::ZERO, assignment.members[1].clone(), assignment, peers)
}

#[test]
fn the_higher_epoch_prevails_and_between_equal_ones_the_lower_name() {
    for (one, other, beats) in [
        (claim("a", 2), claim("b", 1), true),
        (claim("a", 1), claim("b", 2), false),
        (claim("a", 2), claim("b", 2), true),
        (claim("b", 2), claim("a", 2), false),
        (claim("a", 2), claim("a", 2), false),
    ] {
        assert_eq!(one.beats(&other), beats, "{one:?} {other:?}");
    }
}

#[test]
fn the_announcement_says_whose_the_address_is() {
    let table = [
        // before, live, spec, claimed, after, why
        (None, false, ("a", 1), None, ("a", 1), "nobody has claimed yet"),
        (None, false, ("a", 1), Some(("c", 2)), ("c", 2), "a takeover that the controller has not adopted"),
        (None, false, ("c", 2), Some(("c", 2)), ("c", 2), "one that it has adopted"),
        (None, false, ("a", 2), Some(("c", 2)), ("a", 2), "between equal ones the assignment"),
        (None, false, ("a", 1), Some(("gone", 5)), ("a", 1), "a claimant that has no part any more"),
        (Some(("c", 2)), true, ("a", 1), None, ("c", 2), "the API lags behind the wire"),
        (Some(("c", 2)), false, ("a", 1), None, ("c", 2), "even if the claimant is away: numbers never fall"),
        (Some(("c", 2)), true, ("a", 3), None, ("a", 3), "the controller moves the address"),
        (Some(("b", 2)), true, ("c", 2), None, ("b", 2), "a lower name that is heard with the same number"),
        (Some(("c", 2)), true, ("a", 2), None, ("a", 2), "a higher name that is heard with the same number"),
        (Some(("b", 2)), false, ("c", 2), None, ("c", 2), "the same number, and nobody is heard with it"),
        (Some(("gone", 9)), false, ("a", 1), None, ("a", 1), "whoever held it has no part any more"),
    ];
    for (before, live, (owner, epoch), claimed, (node, after), why) in table {
        let mut place = place();
        place.top = before.map(|(node, epoch)| claim(node, epoch));
        place.adopt(Duration::ZERO, assignment(owner, epoch, claimed), live);
        assert_eq!(place.top, Some(claim(node, after)), "{why}");
    }
}

#[test]
fn a_new_owner_gets_its_time_and_a_known_one_does_not_get_it_again() {
    let mut place = place();
    let at = Duration::from_secs;
    place.adopt(at(1), assignment("a", 1, None), false);
    assert_eq!(place.watch_since, at(1));
    place.adopt(at(2), assignment("a", 2, Some(("a", 2))), false);
    assert_eq!(place.watch_since, at(1));
    place.hear(at(3), &claim("c", 3));
    assert_eq!(place.watch_since, at(3));
}

#[test]
fn nodes_take_over_in_the_order_of_the_assignment() {
    let table = [
        // owner assigned, claimed by, ahead of b
        ("a", "a", Some(vec![])),
        ("c", "c", Some(vec!["a"])),
        ("a", "c", Some(vec!["a"])),
        ("b", "c", Some(vec![])),
        ("b", "b", None),
    ];
    for (owner, top, ahead) in table {
        let mut place = place();
        place.adopt(Duration::ZERO, assignment(owner, 1, None), false);
        place.top = Some(claim(top, 5));
        let expected = ahead.map(|nodes| nodes.into_iter().map(name).collect::<Vec<_>>());
        let found = place.ahead().map(|nodes| nodes.into_iter().cloned().collect::<Vec<_>>());
        assert_eq!(found, expected, "assigned to {owner}, claimed by {top}");
    }
}

#[test]
fn a_node_claims_the_number_it_was_given_unless_it_was_used() {
    let verifying = |resume| {
        Phase::Verifying(Verifying {
            probe: Probe::begin(Duration::ZERO),
            resume,
            answered: None,
            rounds: 0,
            serve_by: None,
        })
    };
    let owned = |epoch| Ownership {
        epoch,
        since: Duration::ZERO,
        cause: Reason::Answering,
        schedule: Schedule::full(Duration::ZERO),
    };
    let table = [
        // assigned, seen, held before, number, why
        (1, None, None, 1, "never used"),
        (1, Some(1), None, 1, "its own from before a restart"),
        (1, Some(4), None, 5, "used by a node that is gone"),
        (1, Some(1), Some(1), 1, "goes on where it was"),
        (1, Some(3), Some(1), 4, "was replaced by a node that is gone"),
    ];
    for (assigned, seen, held, number, why) in table {
        let mut place = place();
        place.adopt(Duration::ZERO, assignment("b", assigned, None), false);
        place.seen = seen;
        place.phase = verifying(held.map(owned).map(Box::new));
        assert_eq!(place.intended(), number, "{why}");
    }
}
