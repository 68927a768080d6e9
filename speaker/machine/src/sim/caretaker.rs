//! A speaker that is silent or stops on a node that lives moves nothing.

use berth_api::Reason;

use super::world::{BOUND, Wire, World, each_seed, ms, vip};
use crate::timing::{CARETAKER_LIMIT, CARETAKER_TOLD_AFTER};

/// Nobody but the owner's node was ever said to have the address, and no ownership was claimed anew.
fn nothing_moved(world: &World) {
    let owner = world.nodes[0].mac;
    assert_eq!(world.replies.iter().find(|(_, _, mac)| *mac != owner), None, "{}", world.story());
    assert!(world.statuses.iter().all(|(_, node, ..)| *node == 0), "{}", world.story());
    assert_eq!(world.highest_seen(vip(0)), Some(1), "{}", world.story());
}

#[test]
fn a_killed_speaker_that_is_started_again_moves_nothing() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.ask_every(ms(10), 1_000);
        world.run(ms(100));
        world.kill(0);
        let away = ms(world.rng.below(8_000));
        world.run(away);
        world.start(0);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        assert_eq!(world.caring(vip(0)), [], "{}", world.story());
        nothing_moved(&world);
        world.assert_gap_within(vip(0), BOUND);
        world.assert_double_within(vip(0), ms(0));
    });
}

#[test]
fn a_killed_speaker_that_is_started_again_moves_nothing_on_a_lossy_wire_either() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 4);
        world.wire = Wire { heartbeat_loss: 10, arp_loss: 10, duplicates: 10, delay_max: 5_000, reorders: true };
        world.kill(0);
        world.run(ms(3_000));
        world.start(0);
        world.run(ms(3_000));
        world.wire = Wire::CLEAN;
        world.run(ms(2_000));
        // Each of four questions to its node may be lost, but rarely all of them.
        let served = world.served_at(vip(0));
        assert_eq!(served.len(), 1, "{}", world.story());
        world.assert_gap_within(vip(0), ms(1_000));
        world.assert_double_within(vip(0), BOUND);
    });
}

#[test]
fn a_polite_stop_leaves_no_moment_without_an_answer_and_moves_nothing() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.ask_every(ms(5), 400);
        world.run(ms(100));
        world.stop(0);
        world.run(ms(20));
        assert_eq!(world.stopped, [0], "it waits for no more than one exchange\n{}", world.story());
        assert_eq!(world.served_at(vip(0)), [0], "{}", world.story());
        world.run(ms(1_500));
        world.start(0);
        world.run(ms(1_000));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        nothing_moved(&world);
        world.assert_gap_within(vip(0), ms(0));
        assert_eq!(world.counters(1).false_alarms, 0, "{}", world.story());
    });
}

#[test]
fn a_polite_stop_on_a_lossy_wire_leaves_no_moment_without_an_answer_either() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.wire = Wire { heartbeat_loss: 20, arp_loss: 20, duplicates: 10, delay_max: 5_000, reorders: true };
        world.stop(0);
        world.run(ms(500));
        assert_eq!(world.served_at(vip(0)).len(), 1, "{}", world.story());
        world.run(ms(1_500));
        assert_eq!(world.stopped, [0]);
        world.assert_gap_within(vip(0), ms(0));
    });
}

#[test]
fn a_rollout_of_all_speakers_moves_nothing() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.announce(vip(1), 1, vec![2, 0], 1);
        world.announce(vip(2), 2, vec![0, 1], 1);
        world.run(ms(1_000));
        world.forget_gaps();
        let moved = world.statuses.len();
        for node in 0..3 {
            world.stop(node);
            let away = ms(300 + world.rng.below(2_000));
            world.run(away);
            world.start(node);
            // The next one goes when this one has been ready for a while.
            world.run(ms(2_000));
        }
        for n in 0..3u8 {
            assert_eq!(world.answering(vip(n)), [usize::from(n)], "{}", world.story());
            world.assert_gap_within(vip(n), ms(0));
            world.assert_double_within(vip(n), ms(0));
        }
        assert!(
            world.statuses[moved..].iter().all(|(.., status)| status.cause == Reason::Answering && status.epoch == 1)
        );
    });
}

#[test]
fn a_speaker_that_does_not_come_back_is_replaced_after_half_a_minute() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.kill(0);
        world.run(CARETAKER_LIMIT.saturating_sub(ms(500)));
        assert_eq!(world.served_at(vip(0)), [0], "{}", world.story());
        nothing_moved(&world);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        assert_eq!(world.epoch(1, vip(0)), 2);
        world.assert_gap_within(vip(0), BOUND);
        world.assert_double_within(vip(0), ms(0));
        // It is told once, and not before a rollout would be through.
        let [(told, 1, _)] = world.cares[..] else { panic!("{:?}\n{}", world.cares, world.story()) };
        assert!((CARETAKER_TOLD_AFTER..CARETAKER_TOLD_AFTER + ms(2_000)).contains(&told.saturating_sub(ms(1_000))));
        // When it does come back, it has lost it.
        world.start(0);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
    });
}

#[test]
fn a_node_that_dies_while_it_is_cared_for_is_replaced_within_the_bound() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.kill(0);
        let cared = ms(500 + world.rng.below(5_000));
        world.run(cared);
        assert_eq!(world.served_at(vip(0)), [0], "{}", world.story());
        world.forget_gaps();
        world.crash(0);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        world.assert_gap_within(vip(0), BOUND);
    });
}

#[test]
fn a_node_that_shuts_down_politely_is_replaced_when_it_is_off() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.stop(0);
        world.run(ms(1_000));
        assert_eq!((world.served_at(vip(0)), world.stopped.len()), (vec![0], 1), "{}", world.story());
        world.crash(0);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        world.assert_gap_within(vip(0), BOUND);
    });
}

#[test]
fn a_node_that_dies_right_after_it_was_told_to_stop_is_replaced_within_the_bound() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.stop(0);
        let time = world.rng.below(50_000);
        world.run(std::time::Duration::from_micros(time));
        world.crash(0);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        world.assert_gap_within(vip(0), BOUND + ms(100));
    });
}

#[test]
fn a_node_that_dies_before_it_was_ever_asked_whether_it_lives_is_replaced_within_the_bound() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.stop(0);
        world.crash(0);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        world.assert_gap_within(vip(0), BOUND + ms(100));
    });
}

#[test]
fn of_two_caretakers_that_hear_each_other_again_the_first_in_the_line_goes_on() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.cut = [(1, 2), (2, 1)].into();
        world.run(ms(1_000));
        world.kill(0);
        world.run(ms(2_000));
        assert_eq!(world.caring(vip(0)).len(), 2, "neither knows of the other\n{}", world.story());
        world.cut.clear();
        world.run(ms(500));
        assert_eq!(world.caring(vip(0)).iter().map(|(node, _)| *node).collect::<Vec<_>>(), [1], "{}", world.story());
        world.assert_gap_within(vip(0), BOUND);
    });
}

#[test]
fn a_restarted_speaker_that_learns_of_its_addresses_slowly_keeps_all_of_them() {
    each_seed(|seed| {
        let mut world = World::new(seed, 3);
        let addresses: Vec<_> = (0..50).map(vip).collect();
        for address in &addresses {
            world.announce(*address, 0, vec![1, 2], 1);
        }
        world.run(ms(1_000));
        world.kill(0);
        world.run(ms(1_000));
        world.nodes[0].api_reachable = false;
        world.start(0);
        // The list takes longer than an idle owner is waited for.
        for address in &addresses {
            world.nodes[0].api_reachable = true;
            world.publish_to(*address, 0);
            world.nodes[0].api_reachable = false;
            world.run(ms(80));
        }
        world.run(ms(1_000));
        for address in &addresses {
            assert_eq!((world.answering(*address), world.caring(*address).len()), (vec![0], 0), "{}", world.story());
        }
        assert!(world.statuses.iter().all(|(_, node, ..)| *node == 0), "something moved\n{}", world.story());
    });
}

#[test]
fn a_restarted_speaker_of_thousands_of_addresses_keeps_all_of_them() {
    let mut world = World::new(11, 3);
    world.judged = false;
    let addresses: Vec<_> = (0..3_000u16).map(|i| std::net::IpAddr::from([10, 0, (i >> 8) as u8, i as u8])).collect();
    for address in &addresses {
        world.announce(*address, 0, vec![1, 2], 1);
    }
    world.run(ms(4_000));
    for politely in [false, true] {
        if politely {
            world.stop(0);
        } else {
            world.kill(0);
        }
        world.run(ms(1_500));
        world.start(0);
        world.run(ms(6_000));
        for address in &addresses {
            assert_eq!((world.answering(*address), world.caring(*address).len()), (vec![0], 0), "{address}");
        }
        assert!(world.statuses.iter().all(|(_, node, ..)| *node == 0), "something moved");
    }
    // What they all do at once does not flood the link: a burst of 64 with its announcements, and late wake-ups. Unpaced it is thousands.
    assert!(world.busiest <= 400, "{} frames within a millisecond", world.busiest);
}

#[test]
fn the_second_standby_cares_when_the_first_stops_as_well() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.kill(0);
        world.run(ms(1_000));
        assert_eq!(world.caring(vip(0)).len(), 1, "one is enough\n{}", world.story());
        world.forget_gaps();
        if seed % 2 == 0 {
            world.kill(1);
        } else {
            world.stop(1);
        }
        world.run(ms(2_000));
        assert_eq!(world.served_at(vip(0)), [0], "{}", world.story());
        assert_eq!(world.caring(vip(0)).first().map(|(node, _)| *node), Some(2), "{}", world.story());
        nothing_moved(&world);
        world.assert_gap_within(vip(0), ms(1_000));
    });
}

#[test]
fn an_address_that_was_never_claimed_is_not_cared_for() {
    each_seed(|seed| {
        let mut world = World::new(seed, 3);
        world.kill(0);
        world.announce(vip(0), 0, vec![1, 2], 1);
        world.run(ms(3_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
    });
}

#[test]
fn a_speaker_that_is_back_and_does_not_know_of_its_address_is_replaced() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        // It is met for another address as well, and learns of that one only.
        world.announce(vip(1), 0, vec![1, 2], 1);
        world.run(ms(1_000));
        world.kill(0);
        world.run(ms(1_000));
        world.nodes[0].api_reachable = false;
        world.start(0);
        world.nodes[0].api_reachable = true;
        world.publish_to(vip(1), 0);
        world.nodes[0].api_reachable = false;
        world.run(ms(5_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        assert_eq!(world.answering(vip(1)), [0], "{}", world.story());
        world.assert_gap_within(vip(0), BOUND);
    });
}

#[test]
fn the_controller_moves_an_address_that_is_cared_for() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        world.kill(0);
        world.run(ms(1_000));
        world.forget_gaps();
        let next = 1 + (seed % 2) as usize;
        world.announce(vip(0), next, vec![3 - next, 0], 2);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [next], "{}", world.story());
        assert_eq!(world.caring(vip(0)), [], "{}", world.story());
        world.assert_gap_within(vip(0), ms(100));
    });
}
