//! Many faults at once, and then peace: whatever happened, one answers.

use super::world::{BOUND, Wire, World, each_seed, ms, vip};

const NODES: usize = 4;

/// One random fault.
fn disturb(world: &mut World) {
    let node = world.rng.below(NODES as u64) as usize;
    match world.rng.below(12) {
        0 | 1 => world.kill(node),
        2 | 3 if world.nodes[node].machine.is_none() => world.start(node),
        4 if !world.nodes[node].paused => world.pause(node),
        5 | 6 if world.nodes[node].paused => world.resume(node),
        7 => world.stop(node),
        8 => {
            let sides: Vec<u8> = (0..NODES).map(|_| world.rng.below(2) as u8).collect();
            world.partition(&sides);
        }
        9 => world.partition(&[0; NODES]),
        10 => {
            let loss = world.rng.below(40);
            world.wire =
                Wire { heartbeat_loss: loss, arp_loss: loss / 2, duplicates: 20, delay_max: 20_000, reorders: true };
        }
        11 => {
            let address = vip(world.rng.below(2) as u8);
            let epoch = world.api[&address].epoch.max(world.api[&address].claimed.as_ref().map_or(0, |c| c.epoch)) + 1;
            let standbys = (0..NODES).filter(|i| *i != node).collect();
            world.announce(address, node, standbys, epoch);
        }
        _ => world.nodes[node].api_reachable = !world.nodes[node].api_reachable,
    }
}

#[test]
fn after_any_faults_one_node_answers_for_each_address_and_it_stays() {
    each_seed(|seed| {
        let mut world = World::new(seed, NODES);
        world.adopts = seed % 2 == 0;
        world.announce(vip(0), 0, vec![1, 2, 3], 1);
        world.announce(vip(1), 3, vec![2, 1], 1);
        world.run(ms(500));
        for _ in 0..25 {
            disturb(&mut world);
            let pause = ms(world.rng.below(700));
            world.run(pause);
        }
        world.heal();
        world.run(ms(6_000));
        let moved = world.statuses.len();
        for address in [vip(0), vip(1)] {
            assert_eq!(world.answering(address).len(), 1, "{address}\n{}", world.story());
        }
        world.forget_gaps();
        world.run(ms(4_000));
        assert_eq!(world.statuses.len(), moved, "something moved without a cause\n{}", world.story());
        for address in [vip(0), vip(1)] {
            world.assert_gap_within(address, ms(0));
            world.assert_double_within(address, ms(0));
        }
        for address in [vip(0), vip(1)] {
            let owner = world.answering(address)[0];
            assert_eq!(Some(world.epoch(owner, address)), world.highest_seen(address), "{}", world.story());
        }
    });
}

#[test]
fn while_nodes_can_hear_each_other_two_never_answer_for_longer_than_the_bound() {
    each_seed(|seed| {
        let mut world = World::new(seed + 10_000, NODES);
        world.adopts = seed % 2 == 0;
        world.announce(vip(0), 0, vec![1, 2, 3], 1);
        world.announce(vip(1), 3, vec![2, 1], 1);
        for _ in 0..25 {
            let node = world.rng.below(NODES as u64) as usize;
            match world.rng.below(6) {
                0 => world.kill(node),
                1 if world.nodes[node].machine.is_none() => world.start(node),
                2 if !world.nodes[node].paused => world.pause(node),
                3 if world.nodes[node].paused => world.resume(node),
                4 => world.stop(node),
                _ => disturb(&mut world),
            }
            // A bound in time holds on a wire that lets most through.
            world.wire.heartbeat_loss = world.wire.heartbeat_loss.min(10);
            let pause = ms(world.rng.below(700));
            world.run(pause);
        }
        for address in [vip(0), vip(1)] {
            world.assert_double_within(address, BOUND);
        }
    });
}
