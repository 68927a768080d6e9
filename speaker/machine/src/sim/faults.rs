//! One fault at a time, each over many seeds.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::{MacAddr, Reason};

use super::world::{BOUND, CLIENT, Wire, World, each_seed, ms, vip};
use crate::State;
use crate::timing::{DETECTION_TIME, PROBE_WAIT};

/// How long after a fault, at a moment that differs by seed.
fn some_time(world: &mut World) {
    let time = world.rng.below(150_000);
    world.run(Duration::from_micros(time));
}

#[test]
fn a_new_address_is_answered_for_by_its_owner_alone() {
    each_seed(|seed| {
        let mut world = World::new(seed, 3);
        world.announce(vip(0), 0, vec![1, 2], 1);
        world.run(ms(3_000));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        world.assert_gap_within(vip(0), ms(100));
        let statuses: Vec<_> = world.statuses.iter().map(|(_, node, _, status)| (*node, status.cause)).collect();
        assert_eq!(statuses, [(0, Reason::Answering)], "{}", world.story());
        for node in 0..3 {
            let counters = world.counters(node);
            assert_eq!((counters.takeovers, counters.false_alarms), (0, 0), "{}", world.story());
        }
    });
}

#[test]
fn a_crashed_owner_is_replaced_within_half_a_second_by_one_standby() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 4);
        some_time(&mut world);
        world.crash(0);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        assert_eq!(world.epoch(1, vip(0)), 2);
        world.assert_gap_within(vip(0), BOUND);
        world.assert_double_within(vip(0), ms(0));
        assert_eq!(world.statuses.len(), 2, "nobody else moved\n{}", world.story());
    });
}

#[test]
fn a_crashed_owner_is_replaced_on_a_lossy_wire() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 4);
        world.wire = Wire { heartbeat_loss: 10, arp_loss: 10, duplicates: 10, delay_max: 5_000, reorders: true };
        some_time(&mut world);
        world.crash(0);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)).len(), 1, "{}", world.story());
        world.assert_gap_within(vip(0), ms(1_000));
        world.assert_double_within(vip(0), BOUND);
    });
}

#[test]
fn owner_and_first_standby_that_crash_together_are_replaced_by_the_second() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        some_time(&mut world);
        world.crash(0);
        world.crash(1);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [2], "{}", world.story());
        world.assert_gap_within(vip(0), BOUND);
    });
}

#[test]
fn a_second_standby_acts_when_the_first_is_heard_and_does_nothing() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        // The first standby lives and is heard, yet never learns of the address.
        world.nodes[1].api_reachable = false;
        world.announce(vip(1), 0, vec![1, 2], 1);
        world.run(ms(1_000));
        world.forget_gaps();
        world.crash(0);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(1)), [2], "{}", world.story());
        world.assert_gap_within(vip(1), DETECTION_TIME * 2 + PROBE_WAIT + ms(20));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
    });
}

#[test]
fn an_owner_whose_heartbeats_alone_are_lost_keeps_its_address() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.deaf = [(0, 1), (0, 2), (1, 0), (2, 0)].into();
        world.run(ms(5_000));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        world.assert_gap_within(vip(0), ms(0));
        assert_eq!(world.statuses.len(), 1, "{}", world.story());
        assert_eq!(world.caring(vip(0)), [], "{}", world.story());
        let counters = world.counters(1);
        assert_eq!(counters.false_alarms, 1, "once for each silence\n{}", world.story());
        // Asked again after each detection time, not all the time.
        assert!(counters.probes.total() <= 32, "{counters:?}\n{}", world.story());
    });
}

#[test]
fn an_owner_whose_speaker_hangs_is_cared_for_and_goes_on_when_it_wakes() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        some_time(&mut world);
        world.pause(0);
        world.ask_every(ms(10), 400);
        let pause = ms(200 + world.rng.below(3_000));
        world.run(pause);
        world.resume(0);
        world.run(ms(3_000));
        let owner = world.nodes[0].mac;
        // Whoever answers, says that the owner's node has it.
        let other = world.replies.iter().find(|(_, _, mac)| *mac != owner);
        assert_eq!(other, None, "{}", world.story());
        assert!(!world.replies.is_empty());
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        assert_eq!(world.caring(vip(0)), [], "{}", world.story());
        assert_eq!(world.epoch(0, vip(0)), 1);
        assert_eq!(world.statuses.len(), 1, "nothing moved\n{}", world.story());
        world.assert_gap_within(vip(0), BOUND);
    });
}

#[test]
fn an_owner_that_was_replaced_while_it_hung_answers_no_queued_request_after_that() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        some_time(&mut world);
        world.pause(0);
        // For so long that it is replaced, or for a moment less.
        let pause = ms(29_000 + world.rng.below(3_000));
        world.run(pause.saturating_sub(ms(3_000)));
        world.ask_every(ms(10), 700);
        world.run(ms(3_000));
        let resumed = world.now;
        world.resume(0);
        world.run(ms(3_000));
        let owner = world.nodes[0].mac;
        let taken = world.statuses.iter().find(|(_, node, ..)| *node != 0).map(|(at, ..)| *at);
        if let Some(taken) = taken {
            let late = world.replies.iter().find(|(at, _, mac)| *at >= taken && *mac == owner);
            assert_eq!(late, None, "replaced at {taken:?}, resumed at {resumed:?}\n{}", world.story());
            world.assert_double_within(vip(0), ms(0));
            assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        } else {
            assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        }
        assert!(!world.replies.is_empty());
    });
}

#[test]
fn an_owner_that_was_paused_and_not_replaced_goes_on_with_the_same_number() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 1);
        world.pause(0);
        world.run(ms(5_000));
        world.resume(0);
        assert_eq!(world.answering(vip(0)), [0usize; 0], "the wire is asked first\n{}", world.story());
        world.run(ms(100));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        assert_eq!(world.epoch(0, vip(0)), 1);
        assert_eq!(world.statuses.len(), 1, "nothing is new\n{}", world.story());
        assert_eq!(world.counters(0).fenced, 1);
    });
}

#[test]
fn a_paused_standby_takes_nothing_when_it_resumes() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.pause(1);
        let pause = ms(100 + world.rng.below(3_000));
        world.run(pause);
        world.resume(1);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        assert_eq!(world.statuses.len(), 1, "{}", world.story());
        let counters = world.counters(1);
        assert_eq!(counters.false_alarms, 0, "{}", world.story());
        // After a shorter pause it may ask once.
        assert!(
            counters.probes.total() == 0 || pause < DETECTION_TIME,
            "it took what it missed for silence\n{}",
            world.story()
        );
    });
}

#[test]
fn a_partition_serves_each_side_and_heals_to_the_highest_number() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 4);
        for node in &mut world.nodes {
            node.api_reachable = false;
        }
        world.partition(&[0, 1, 1, 0]);
        world.run(ms(1_500));
        assert_eq!(world.answering(vip(0)), [0, 1], "{}", world.story());
        world.partition(&[0; 4]);
        world.run(ms(1_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        assert_eq!(world.epoch(1, vip(0)), 2);
        world.assert_double_within(vip(0), BOUND);
        world.assert_gap_within(vip(0), ms(0));
    });
}

#[test]
fn an_owner_whose_link_is_cut_is_replaced_and_stays_silent_when_it_is_mended() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        for node in &mut world.nodes {
            node.api_reachable = false;
        }
        some_time(&mut world);
        world.plug(0, false);
        world.run(ms(1_500));
        assert_eq!(world.answering(vip(0)), [0, 1], "it cannot know\n{}", world.story());
        world.plug(0, true);
        world.run(ms(1_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        world.assert_double_within(vip(0), ms(100));
    });
}

#[test]
fn a_standby_whose_link_is_cut_and_mended_takes_nothing() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        some_time(&mut world);
        world.plug(1, false);
        let cut = ms(world.rng.below(3_000));
        world.run(cut);
        world.plug(1, true);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        assert_eq!(world.statuses.len(), 1, "{}", world.story());
    });
}

#[test]
fn an_owner_that_starts_without_a_link_answers_once_it_has_one() {
    each_seed(|seed| {
        let mut world = World::new(seed, 1);
        world.plug(0, false);
        world.run(ms(100));
        world.announce(vip(0), 0, vec![], 1);
        world.run(ms(1_000));
        assert_eq!(world.statuses.len(), 0, "{}", world.story());
        world.plug(0, true);
        world.run(ms(200));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
    });
}

#[test]
fn two_standbys_that_took_over_apart_with_the_same_number_agree_by_name() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        for node in &mut world.nodes {
            node.api_reachable = false;
        }
        world.partition(&[0, 1, 2]);
        world.run(ms(1_500));
        assert_eq!(world.answering(vip(0)), [0, 1, 2], "{}", world.story());
        assert_eq!((world.epoch(1, vip(0)), world.epoch(2, vip(0))), (2, 2));
        world.partition(&[0; 3]);
        world.run(ms(1_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        world.assert_double_within(vip(0), BOUND);
    });
}

#[test]
fn claimants_that_share_only_the_api_agree_through_it() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 2);
        world.partition(&[0, 1]);
        world.run(ms(1_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
    });
}

#[test]
fn the_last_speaker_stops_at_once() {
    let mut world = World::serving(1, 3);
    world.kill(1);
    world.kill(2);
    world.run(ms(1_000));
    world.stop(0);
    assert_eq!(world.stopped, [0], "{}", world.story());
}

#[test]
fn all_speakers_stopping_together_end_within_the_grace_time() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        for node in 0..3 {
            world.stop(node);
        }
        world.run(ms(1_100));
        world.stopped.sort_unstable();
        assert_eq!(world.stopped, [0, 1, 2], "{}", world.story());
    });
}

#[test]
fn standbys_that_do_not_hear_each_other_still_see_each_other_on_the_wire() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        for node in &mut world.nodes {
            node.api_reachable = false;
        }
        world.deaf = [(1, 2), (2, 1)].into();
        world.run(ms(1_000));
        world.crash(0);
        world.run(ms(3_000));
        assert_eq!(world.answering(vip(0)).len(), 1, "{}", world.story());
        world.assert_gap_within(vip(0), ms(1_000));
    });
}

#[test]
fn an_address_whose_owner_never_hears_of_it_is_served_by_a_standby() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.nodes[0].api_reachable = false;
        world.announce(vip(1), 0, vec![1, 2], 1);
        world.run(ms(3_000));
        assert_eq!(world.answering(vip(1)), [1], "{}", world.story());
        world.assert_gap_within(vip(1), ms(2_500));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
    });
}

#[test]
fn an_owner_yields_to_a_partner_whose_part_it_has_not_heard_of() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 4);
        world.announce(vip(1), 3, vec![2], 1);
        world.run(ms(1_000));
        // The owner is cut off from the API, and what it holds is given to a node that it knows from another address only.
        world.nodes[3].api_reachable = false;
        world.announce(vip(1), 0, vec![1, 2, 3], 2);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(1)), [0], "{}", world.story());
        world.assert_gap_within(vip(1), ms(100));
        world.assert_double_within(vip(1), ms(5));
    });
}

#[test]
fn the_controller_moves_an_address_without_a_gap() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.announce(vip(0), 2, vec![0, 1], 2);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [2], "{}", world.story());
        assert_eq!(world.epoch(2, vip(0)), 2);
        world.assert_gap_within(vip(0), ms(0));
        world.assert_double_within(vip(0), ms(5));
        assert_eq!(world.statuses.last().unwrap().3.cause, Reason::OwnerChanged);
        assert_eq!(world.statuses.len(), 2, "{}", world.story());
    });
}

#[test]
fn an_address_moved_to_a_dead_node_goes_on_being_served() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.crash(2);
        world.run(ms(1_000));
        world.announce(vip(0), 2, vec![0, 1], 2);
        world.run(ms(4_000));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        world.assert_gap_within(vip(0), ms(0));
    });
}

#[test]
fn an_address_moved_to_a_dead_node_goes_to_the_first_of_the_line_where_that_is_another() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.crash(2);
        world.run(ms(1_000));
        world.announce(vip(0), 2, vec![1, 0], 2);
        world.run(ms(3_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        assert_eq!(world.epoch(1, vip(0)), 3);
        world.assert_gap_within(vip(0), ms(0));
        world.assert_double_within(vip(0), ms(5));
    });
}

#[test]
fn an_address_moved_to_a_dead_node_leaves_one_that_has_no_part_in_it_any_more() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.crash(2);
        world.run(ms(1_000));
        world.announce(vip(0), 2, vec![1], 2);
        world.run(ms(3_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        world.assert_gap_within(vip(0), ms(0));
        world.assert_double_within(vip(0), ms(5));
    });
}

#[test]
fn a_takeover_that_the_controller_adopts_moves_nothing_more() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.adopts = true;
        world.crash(0);
        world.run(ms(1_000));
        world.start(0);
        world.run(ms(4_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        assert_eq!(world.statuses.len(), 2, "{}", world.story());
        assert_eq!(world.counters(1).yields, 0);
    });
}

#[test]
fn an_owner_that_comes_back_after_its_replacement_stays_silent() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.crash(0);
        world.run(ms(1_000));
        // It learns from the wire alone: the status could not be written.
        world.api.get_mut(&vip(0)).unwrap().claimed = None;
        world.ask_every(ms(5), 400);
        world.start(0);
        world.run(ms(4_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        let owner = world.nodes[0].mac;
        assert_eq!(world.replies.iter().find(|(_, _, mac)| *mac == owner), None, "{}", world.story());
        assert_eq!(world.statuses.len(), 2, "{}", world.story());
    });
}

#[test]
fn an_owner_whose_process_restarts_quickly_keeps_its_address() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        some_time(&mut world);
        world.kill(0);
        let away = ms(world.rng.below(100));
        world.run(away);
        world.start(0);
        world.run(ms(3_000));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        assert_eq!(world.epoch(0, vip(0)), 1, "{}", world.story());
        world.assert_gap_within(vip(0), ms(200));
    });
}

#[test]
fn a_restarted_speaker_and_its_partners_hear_each_other_after_one_exchange() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        let node = world.rng.below(3) as usize;
        world.kill(node);
        world.start(node);
        // What it learns its part from takes up to 15 ms, each datagram half of one.
        world.run(ms(19));
        for node in 0..3 {
            let machine = world.nodes[node].machine.as_ref().unwrap();
            assert!(machine.partners().all(|(_, up)| up), "{}", world.story());
            assert_eq!(machine.partners().count(), 2);
        }
    });
}

#[test]
fn a_foreign_machine_keeps_an_address_that_was_never_ours() {
    each_seed(|seed| {
        let mut world = World::new(seed, 3);
        let mac = MacAddr([2, 9, 9, 9, 9, 9]);
        world.foreign = Some((vip(0), mac));
        world.announce(vip(0), 0, vec![1, 2], 1);
        world.run(ms(8_000));
        assert_eq!(world.answering(vip(0)), [0usize; 0], "{}", world.story());
        let [(_, 0, _, status)] = &world.statuses[..] else { panic!("{}", world.story()) };
        assert_eq!((status.state, status.cause), (State::Conflicted, Reason::AddressConflict));
        assert_eq!(status.foreign, Some(mac));
        world.foreign = None;
        world.run(ms(4_000));
        assert_eq!(world.answering(vip(0)).len(), 1, "{}", world.story());
        assert_eq!(world.statuses.last().unwrap().3.foreign, None);
    });
}

#[test]
fn a_foreign_machine_does_not_get_an_address_in_use() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        let mac = MacAddr([2, 9, 9, 9, 9, 9]);
        world.foreign = Some((vip(0), mac));
        world.crash(0);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        world.assert_gap_within(vip(0), BOUND);
        let status = &world.statuses.last().unwrap().3;
        assert_eq!((status.state, status.foreign), (State::Answering, Some(mac)), "{}", world.story());
    });
}

#[test]
fn requests_are_answered_by_the_owner_alone() {
    let mut world = World::serving(3, 3);
    world.ask_every(ms(7), 50);
    world.run(ms(1_000));
    let owner = world.nodes[0].mac;
    assert_eq!(world.replies.len(), 50);
    assert!(world.replies.iter().all(|(_, address, mac)| (*address, *mac) == (vip(0), owner)));
    assert_eq!(world.counters(0).replies.total(), 50);
    assert_ne!(CLIENT, owner);
}

#[test]
fn a_thousand_addresses_of_a_crashed_owner_move_together() {
    let mut world = World::new(5, 3);
    world.judged = false;
    let addresses: Vec<_> = (0..1_000u16)
        .map(|i| match i % 2 {
            0 => IpAddr::from([10, 0, (i >> 8) as u8, i as u8]),
            _ => IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, i]),
        })
        .collect();
    for address in &addresses {
        world.announce(*address, 0, vec![1, 2], 1);
    }
    world.run(ms(2_000));
    let before = world.datagrams;
    world.run(ms(1_000));
    let idle = world.datagrams - before;
    // Three pairs, both ways, ten a second: neither the number of addresses nor that of families matters.
    assert!((50..=70).contains(&idle), "{idle}");
    world.crash(0);
    world.run(ms(600));
    for address in &addresses {
        assert_eq!(world.answering(*address), [1]);
    }
    // One change reaches each partner in one datagram.
    world.run(ms(1_000));
    let before = world.datagrams;
    world.announce(addresses[0], 2, vec![1], 3);
    world.run(ms(1_000));
    let change = world.datagrams - before;
    assert!(change <= 60, "{change}");
    assert_eq!(world.answering(addresses[0]), [2]);
}
