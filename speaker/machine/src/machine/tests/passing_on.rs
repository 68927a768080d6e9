//! What a partner seems not to know, it is told until it does.

use super::*;

/// Node b, which stands by between a and c and has heard a claim the address.
fn between(heard: u64) -> (Machine, Assignment) {
    let mut machine = speaker("b");
    let members = [member("a", 1), member("b", 2), member("c", 3)].into();
    let standbys = [name("b"), name("c")].into();
    let given = Assignment { standbys, members, ..assignment(vip(0), "a", 1) };
    machine.assign(T0, given.clone());
    machine.heartbeat_received(T0, "eth0", &claims("a", 3, 1, &[(vip(0), heard)]));
    drain(&mut machine);
    (machine, given)
}

#[test]
fn what_the_announcement_says_of_another_is_passed_on_to_a_partner_that_claims_less() {
    for (epoch, passed_on) in [(2, true), (1, false)] {
        let (mut machine, given) = between(1);
        machine.assign(T0, Assignment { claimed: Some(OwnerClaim { node: name("c"), epoch }), ..given });
        let expected = Claim { address: vip(0), epoch, stance: Stance::Knows(Some(name("c").tag())) };
        assert_eq!(said(&drain(&mut machine)).contains(&expected), passed_on, "c with {epoch}");
    }
}

#[test]
fn a_partner_that_goes_on_claiming_what_does_not_prevail_is_told_with_every_heartbeat() {
    let own = Claim { address: vip(0), epoch: 2, stance: Stance::Answers };
    // With less, and with the same number, where the name decides.
    for epoch in [1, 2] {
        let mut machine = speaker("a");
        machine.assign(T0, assignment(vip(0), "a", 2));
        let now = T0 + PROBE_WAIT;
        run(&mut machine, now);
        machine.heartbeat_received(now, "eth0", &claims("b", 3, 1, &[(vip(0), epoch)]));
        assert_eq!(said(&drain(&mut machine)), [own], "claimed with {epoch}");
        let again = said(&run(&mut machine, now + HEARTBEAT_INTERVAL));
        assert_eq!(again, [own], "claimed with {epoch}, what was said first may be lost");
        machine.heartbeat_received(now + HEARTBEAT_INTERVAL, "eth0", &claims("b", 3, 2, &[]));
        drain(&mut machine);
        assert_eq!(said(&run(&mut machine, now + HEARTBEAT_INTERVAL * 2)), [], "it knows");
    }
}

#[test]
fn a_partner_that_was_silent_meanwhile_is_told_when_it_is_heard_again() {
    let (mut machine, given) = between(1);
    machine.assign(T0, Assignment { claimed: Some(OwnerClaim { node: name("c"), epoch: 2 }), ..given });
    // Only c goes on being heard.
    let mut silent = T0;
    for sequence in 1..=8 {
        machine.heartbeat_received(silent, "eth0", &claims("c", 4, sequence, &[(vip(0), 2)]));
        silent += HEARTBEAT_INTERVAL;
        run(&mut machine, silent);
    }
    assert_eq!(machine.state(vip(0)), Some(State::Standby));
    // Nothing new in what it says.
    let digest = Digest::EMPTY.with(vip(0), 1);
    let unchanged = Message { body: Body::Heartbeat { digest, count: 1 }, ..claims("a", 3, 2, &[(vip(0), 1)]) };
    machine.heartbeat_received(silent, "eth0", &unchanged);
    drain(&mut machine);
    let expected = Claim { address: vip(0), epoch: 2, stance: Stance::Knows(Some(name("c").tag())) };
    assert_eq!(said(&run(&mut machine, silent + HEARTBEAT_INTERVAL)), [expected]);
}
