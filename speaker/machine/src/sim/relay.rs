//! Nodes that do not all hear each other: who hears whom is asked, and what one does not hear is passed on.

use super::world::{BOUND, World, each_seed, ms, vip};
use crate::timing::{DETECTION_TIME, WORD_HOLD};

#[test]
fn an_owner_that_another_partner_still_hears_keeps_its_address() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 4);
        // Between owner and first standby nothing passes; the second standby hears both.
        world.cut = [(0, 1), (1, 0)].into();
        world.run(ms(5_000));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        assert_eq!(world.statuses.len(), 1, "{}", world.story());
        assert_eq!(world.counters(1).false_alarms, 1, "{}", world.story());
        // It is really dead then, and noticed nearly as soon.
        world.forget_gaps();
        world.crash(0);
        world.run(ms(3_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        world.assert_gap_within(vip(0), BOUND + DETECTION_TIME);
    });
}

#[test]
fn two_owners_that_share_only_a_third_speaker_agree_through_it() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 4);
        for node in &mut world.nodes {
            node.api_reachable = false;
        }
        // Each on its own, until somebody has taken over; then all but these two hear each other again.
        world.partition(&[0, 1, 2, 3]);
        world.run(ms(1_500));
        world.cut = [(0, 1), (1, 0)].into();
        world.partition(&[0; 4]);
        world.run(BOUND);
        let answering = world.answering(vip(0));
        assert_eq!(answering.len(), 1, "{}", world.story());
        let moved = world.statuses.len();
        world.run(ms(10_000));
        assert_eq!(world.answering(vip(0)), answering, "and it stays so\n{}", world.story());
        assert_eq!(world.statuses.len(), moved, "{}", world.story());
    });
}

#[test]
fn equal_claims_are_settled_by_a_third_speaker_that_made_none() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 4);
        world.nodes.iter_mut().for_each(|node| node.api_reachable = false);
        // The owner dies in a partition, and two take over with the same number; the fourth hears of neither and waits with its link cut.
        world.plug(3, false);
        world.partition(&[0, 1, 2, 3]);
        world.crash(0);
        world.run(ms(1_500));
        assert_eq!((world.epoch(1, vip(0)), world.epoch(2, vip(0))), (2, 2), "{}", world.story());
        assert_eq!(world.answering(vip(0)), [1, 2], "{}", world.story());
        world.cut = [(1, 2), (2, 1)].into();
        world.partition(&[0; 4]);
        world.plug(3, true);
        // What it says at first is lost.
        world.deaf = [(3, 1), (3, 2)].into();
        world.run(DETECTION_TIME);
        world.deaf.clear();
        world.run(BOUND);
        assert_eq!(world.answering(vip(0)).len(), 1, "{}", world.story());
    });
}

#[test]
fn what_one_learns_from_the_announcement_it_passes_on_to_one_that_cannot_read_it() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        // The owner hears the last in the line alone, and that one hears the first by the API server alone.
        world.nodes[0].api_reachable = false;
        world.cut = [(0, 1), (1, 0), (1, 2), (2, 1)].into();
        world.deaf = [(2, 1)].into();
        let address = vip(0);
        let mut told = world.assignment(address);
        told.claimed = Some(crate::OwnerClaim { node: world.nodes[1].name.clone(), epoch: 2 });
        world.run(ms(50));
        world.tell(2, told);
        world.run(ms(300));
        // It asks the wire then, and goes on with a number of its own where nobody hears the other claimant.
        assert!(world.highest_seen(address) >= Some(2), "{}", world.story());
        assert_eq!(
            world.nodes[0].machine.as_ref().unwrap().seen(address),
            world.highest_seen(address),
            "{}",
            world.story()
        );
    });
}

#[test]
fn a_claimant_that_a_third_speaker_hears_again_later_is_told_then() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 4);
        world.nodes.iter_mut().for_each(|node| node.api_reachable = false);
        // The owner is cut off from everybody, and replaced.
        world.partition(&[1, 0, 0, 0]);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [0, 1], "{}", world.story());
        // Only the last in the line hears it again.
        world.cut = [(0, 1), (1, 0), (0, 2), (2, 0)].into();
        world.partition(&[0; 4]);
        world.run(BOUND);
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        let moved = world.statuses.len();
        world.run(ms(5_000));
        assert_eq!((world.answering(vip(0)), world.statuses.len()), (vec![1], moved), "{}", world.story());
    });
}

#[test]
fn claimants_that_share_only_the_api_agree_through_it_and_do_not_take_turns() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 2);
        world.partition(&[0, 1]);
        world.run(ms(1_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        let moved = world.statuses.len();
        world.run(WORD_HOLD.saturating_sub(ms(1_000)));
        assert_eq!((world.answering(vip(0)), world.statuses.len()), (vec![1], moved), "{}", world.story());
        // Later and later, in case the other one is dead after all.
        world.run(ms(200_000));
        assert!(world.statuses.len() - moved <= 5, "{}\n{}", world.statuses.len(), world.story());
        // Whole again, one answers and it stays.
        world.partition(&[0, 0]);
        world.run(ms(1_000));
        let moved = world.statuses.len();
        assert_eq!(world.answering(vip(0)).len(), 1, "{}", world.story());
        world.run(ms(5_000));
        assert_eq!(world.statuses.len(), moved, "{}", world.story());
    });
}

#[test]
fn who_stood_back_by_word_acts_at_once_when_it_hears_the_owner_and_that_one_dies() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 2);
        world.partition(&[0, 1]);
        world.run(ms(1_000));
        world.partition(&[0, 0]);
        world.run(ms(1_000));
        assert_eq!(world.answering(vip(0)), [1], "{}", world.story());
        world.forget_gaps();
        world.crash(1);
        world.run(ms(2_000));
        assert_eq!(world.answering(vip(0)), [0], "{}", world.story());
        world.assert_gap_within(vip(0), BOUND);
    });
}

#[test]
fn a_partner_that_is_always_late_is_given_more_time() {
    each_seed(|seed| {
        let mut world = World::serving(seed, 3);
        for _ in 0..4 {
            world.deaf = [(0, 1), (0, 2)].into();
            world.run(ms(600));
            world.deaf.clear();
            world.run(ms(500));
        }
        let doubled =
            world.unsteady.iter().filter(|(node, ..)| *node == 1).map(|(_, partner, n)| (partner.clone(), *n));
        assert_eq!(doubled.collect::<Vec<_>>(), [(world.nodes[0].name.clone(), 1)], "{}", world.story());
        assert_eq!(world.statuses.len(), 1, "{}", world.story());
        let alarms = world.counters(1).false_alarms;
        // Late by less than the doubled time, it is not asked for any more.
        world.deaf = [(0, 1), (0, 2)].into();
        world.run(ms(450));
        world.deaf.clear();
        world.run(ms(500));
        assert_eq!(world.counters(1).false_alarms, alarms, "{}", world.story());
    });
}
