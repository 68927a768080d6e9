//! What a node keeps of thousands of addresses.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use berth_api::MacAddr;
use berth_machine::{Assignment, Effect, Machine, Member, NodeName, OwnerClaim};

#[global_allocator]
static COUNTED: dhat::Alloc = dhat::Alloc;

const ADDRESSES: u32 = 5_000;
/// Most octets of each, on any of its nodes: 2.5 MB of the 15 that a speaker with all of them may have.
const OCTETS_MAX: usize = 500;
const NODES: [&str; 3] = ["a", "b", "c"];
const STEP: Duration = Duration::from_millis(10);

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn assignment(number: u32) -> Assignment {
    let member = |node: &str, last: u8| {
        let (address, mac) = ([198, 19, 0, last].into(), MacAddr([2, 0, 0, 0, 0, last]));
        Arc::new(Member { node: name(node), interface: "eth0".to_owned(), address, mac })
    };
    Assignment {
        address: IpAddr::from(Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + number)),
        owner: Some(name("a")),
        standbys: [name("b"), name("c")].into(),
        epoch: 1,
        // Each object that is read has its own copy of all that.
        members: [member("a", 1), member("b", 2), member("c", 3)].into(),
        claimed: None,
        sought: None,
        serving: false,
    }
}

/// Lets all machines do what is due, and hear what the others say.
fn step(machines: &mut [Machine], now: Duration, given: &[Assignment]) {
    let mut said = Vec::new();
    for machine in &mut *machines {
        for assignment in given {
            machine.assign(now, assignment.clone());
        }
        machine.tick(now);
        while let Some(effect) = machine.poll_effect() {
            if let Effect::SendHeartbeat { to, message, .. } = effect {
                said.push((to, message));
            }
        }
    }
    for (to, message) in said {
        let place = NODES.iter().position(|node| *node == to.as_str()).unwrap();
        machines[place].heartbeat_received(now, "eth0", &message);
    }
}

#[test]
fn owner_and_standbys_of_five_thousand_addresses_keep_little_of_each() {
    let _counting = dhat::Profiler::builder().testing().build();
    let mut now = Duration::from_secs(1_000);
    let new = |(node, boot_id): (&&str, u64)| {
        let mut machine = Machine::new(name(node), boot_id, now);
        machine.link_changed(now, "eth0", true);
        machine
    };
    let mut machines: Vec<Machine> = NODES.iter().zip(1..).map(new).collect();
    let mut then = |given: &[Assignment]| {
        step(&mut machines, now, given);
        now += STEP;
    };
    for first in (0..ADDRESSES).step_by(50) {
        then(&(first..first + 50).map(assignment).collect::<Vec<_>>());
    }
    // Until all is announced, and nothing is due but heartbeats.
    for _ in 0..2_000 {
        then(&[]);
    }
    let claimed = Some(OwnerClaim { node: name("a"), epoch: 1 });
    let written = |number| Assignment { claimed: claimed.clone(), ..assignment(number) };
    then(&(0..ADDRESSES).map(written).collect::<Vec<_>>());
    then(&[]);
    let answering: Vec<_> = machines.iter().map(|machine| machine.answering().count()).collect();
    assert_eq!(answering, [ADDRESSES as usize, 0, 0]);
    for (node, mut machine) in NODES.iter().zip(machines) {
        machine.pack();
        let all = dhat::HeapStats::get().curr_bytes;
        drop(machine);
        let each = (all - dhat::HeapStats::get().curr_bytes) / ADDRESSES as usize;
        assert!((100..OCTETS_MAX).contains(&each), "{node} keeps {each} octets of each address");
    }
}
