//! Each rule is broken once, and the simulation has to notice: a property that holds without the rule would prove nothing about it.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use super::world::{BOUND, World, ms, vip};
use crate::broken::{Rule, without};

/// Seeds until which a broken rule has to show.
const SEEDS: u64 = 40;

/// An owner that is heard on the wire keeps its address.
fn a_silence_that_is_none_moves_nothing(seed: u64) {
    let mut world = World::serving(seed, 3);
    world.deaf = [(0, 1), (0, 2)].into();
    world.run(ms(3_000));
    assert_eq!((world.answering(vip(0)), world.statuses.len()), (vec![0], 1));
}

/// A machine that stood still while it was replaced answers nothing that queued up.
fn who_stood_still_answers_nothing_late(seed: u64) {
    let mut world = World::serving(seed, 3);
    world.suspend(0);
    world.ask_every(ms(10), 300);
    let pause = ms(1_000 + world.rng.below(2_000));
    world.run(pause);
    let (resumed, owner) = (world.now, world.nodes[0].mac);
    world.resume(0);
    world.run(ms(2_000));
    assert_eq!(world.answering(vip(0)), [1]);
    assert!(!world.replies.iter().any(|(at, _, mac)| *at >= resumed && *mac == owner));
}

/// Two that took over apart with the same number agree.
fn equal_numbers_are_settled(seed: u64) {
    let mut world = World::serving(seed, 3);
    world.nodes.iter_mut().for_each(|node| node.api_reachable = false);
    world.partition(&[0, 1, 2]);
    world.run(ms(1_500));
    world.partition(&[0; 3]);
    world.run(ms(1_000));
    assert_eq!(world.answering(vip(0)), [1]);
    world.assert_double_within(vip(0), BOUND);
}

/// A dead owner is replaced although somebody repeats what it said.
fn recordings_keep_nobody_alive(seed: u64) {
    let mut world = World::serving(seed, 3);
    world.replayed = true;
    world.run(ms(1_000));
    world.crash(0);
    for _ in 0..100 {
        world.replay(20);
        world.run(ms(10));
    }
    assert_eq!(world.answering(vip(0)), [1]);
    world.assert_gap_within(vip(0), BOUND);
}

/// The same where the recordings are of an earlier start, and of before nothing was shared with the node for a while.
fn recordings_of_earlier_starts_keep_nobody_alive(seed: u64) {
    let mut world = World::serving(seed, 3);
    world.replayed = true;
    world.run(ms(1_000));
    world.replayed = false;
    for _ in 0..2 {
        world.kill(0);
        world.run(ms(500));
        world.start(0);
        world.run(ms(1_500));
    }
    world.forget_gaps();
    world.crash(0);
    for _ in 0..100 {
        world.replay_next();
        world.run(ms(10));
    }
    assert_eq!(world.answering(vip(0)), [1]);
    world.assert_gap_within(vip(0), BOUND);
    world.start(0);
    world.run(ms(500));
    let machine = world.nodes[1].machine.as_ref().unwrap();
    assert!(machine.partners().all(|(_, up)| up), "a recording made somebody deaf");
}

/// An owner that asks before it answers again leaves nobody without an answer, since who cares for it goes on.
fn who_asks_before_it_answers_is_cared_for_until_then(seed: u64) {
    let mut world = World::serving(seed, 3);
    world.pause(0);
    world.run(ms(2_000));
    assert_eq!(world.served_at(vip(0)), [0]);
    world.forget_gaps();
    world.resume(0);
    world.run(ms(1_000));
    assert_eq!((world.answering(vip(0)), world.caring(vip(0)).len()), (vec![0], 0));
    world.assert_gap_within(vip(0), ms(0));
}

/// A speaker that dies on a node that lives moves nothing.
fn a_dead_speaker_moves_nothing(seed: u64) {
    let mut world = World::serving(seed, 3);
    world.kill(0);
    world.run(ms(2_000));
    world.start(0);
    world.run(ms(1_000));
    assert_eq!((world.answering(vip(0)), world.statuses.iter().all(|(_, node, ..)| *node == 0)), (vec![0], true));
}

/// An owner that the first standby alone does not hear, neither its heartbeats nor its answers, keeps its address.
fn who_is_heard_by_another_is_alive(seed: u64) {
    let mut world = World::serving(seed, 4);
    world.cut = [(0, 1), (1, 0)].into();
    world.run(ms(2_000));
    assert_eq!((world.answering(vip(0)), world.statuses.len()), (vec![0], 1));
}

/// Two owners that hear only others, and not each other, become one.
fn claims_are_passed_on(seed: u64) {
    let mut world = World::serving(seed, 4);
    world.nodes.iter_mut().for_each(|node| node.api_reachable = false);
    world.partition(&[0, 1, 2, 3]);
    world.run(ms(1_500));
    world.cut = [(0, 1), (1, 0)].into();
    world.partition(&[0; 4]);
    world.run(BOUND);
    assert_eq!(world.answering(vip(0)).len(), 1);
}

/// Each takeover has a number of its own, so that who comes back does not win by its name.
fn a_replaced_owner_stays_replaced(seed: u64) {
    let mut world = World::serving(seed, 3);
    world.crash(0);
    world.run(ms(1_000));
    world.start(0);
    world.run(ms(2_000));
    assert_eq!((world.answering(vip(0)), world.highest_seen(vip(0))), (vec![1], Some(2)));
}

#[test]
fn every_rule_is_needed() {
    let table: [(Rule, fn(u64)); 10] = [
        (Rule::AsksTheWire, a_silence_that_is_none_moves_nothing),
        (Rule::FencesItself, who_stood_still_answers_nothing_late),
        (Rule::BreaksTies, equal_numbers_are_settled),
        (Rule::ChecksReplay, recordings_keep_nobody_alive),
        (Rule::RemembersStarts, recordings_of_earlier_starts_keep_nobody_alive),
        (Rule::SaysThatItAsks, who_asks_before_it_answers_is_cared_for_until_then),
        (Rule::CaresForTheLiving, a_dead_speaker_moves_nothing),
        (Rule::AsksOthers, who_is_heard_by_another_is_alive),
        (Rule::PassesOn, claims_are_passed_on),
        (Rule::CountsUp, a_replaced_owner_stays_replaced),
    ];
    for (_, property) in table {
        (0..SEEDS).for_each(property);
    }
    // What the broken ones say is expected.
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let survivors: Vec<Rule> = table
        .into_iter()
        .filter(|(rule, property)| {
            let fails = |seed| catch_unwind(AssertUnwindSafe(|| property(seed))).is_err();
            !without(*rule, || (0..SEEDS).any(fails))
        })
        .map(|(rule, _)| rule)
        .collect();
    set_hook(hook);
    assert_eq!(survivors, [], "broken without a property that noticed");
}
