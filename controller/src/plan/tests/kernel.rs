//! What is said of an address that a node's kernel spoils.

use berth_api::crd::{KernelTrap, Trap};
use berth_pool::view::Report;

use super::*;

const VIP: &str = "192.0.2.200";

#[test]
fn a_trap_of_the_kernel_is_told_on_the_services_and_moves_nothing() {
    let mut cluster = Cluster::answered();
    cluster.endpoints("web", &["node-1", "node-2", "node-3"]);
    cluster.settle(None);
    let owner = cluster.owner(VIP);
    let interfaces = cluster.world.nodes()["node-2"].interfaces.clone();
    let mut report = |traps: &[Trap]| {
        let interface = interfaces[0].name.clone();
        let kernel_traps = traps.iter().map(|trap| KernelTrap { interface: interface.clone(), trap: *trap }).collect();
        let report = Report { interfaces: interfaces.clone(), kernel_traps, ..Report::default() };
        cluster.world.learn(Change::SpeakerNode("node-2".to_owned(), Some(report)));
        cluster.settle(None);
        let layer2 = cluster.announcements[VIP].spec.layer2.clone().unwrap();
        assert_eq!((layer2.owner, layer2.epoch), (owner.clone(), 1), "nothing moves for it");
        cluster.condition("web", types::ANNOUNCED)
    };
    assert!(report(&[]).starts_with("True Announced"));
    let said = report(&[Trap::ArpIgnore]);
    assert!(said.starts_with("True ArpIgnore ") && said.contains("node-2"), "{said}");
    assert!(report(&[]).starts_with("True Announced"));
}
