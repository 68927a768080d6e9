//! Plans are tried on a small strict API server.

mod cluster;

use std::collections::BTreeSet;

use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::args::DefaultProvider;
use crate::world::Change;
use cluster::{Cluster, Refused};

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".into(), name: name.into() }
}

#[test]
fn a_claim_comes_before_the_ingress_and_then_there_is_nothing_left_to_write() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.210"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["claim 192.0.2.200", "status web 192.0.2.200"]);
    let ingress = &cluster.services[&key("web")].status.as_ref().unwrap().load_balancer;
    assert_eq!(serde_json::to_value(ingress).unwrap(), json!({"ingress": [{"ip": "192.0.2.200", "ipMode": "VIP"}]}));
    let labels = cluster.announcements["192.0.2.200"].labels();
    let owner = cluster.owner("192.0.2.200").unwrap();
    assert_eq!(labels[&part_label(&owner)], "owner");
    assert_eq!(labels.values().filter(|v| *v == "standby").count(), 2);

    cluster.world.mark(&key("web"));
    cluster.settle(None);
    assert_eq!(cluster.writes(), Vec::<String>::new());
}

#[test]
fn whatever_makes_a_service_no_longer_ours_releases_what_it_held() {
    type Edit = fn(&mut Cluster);
    let edits: [(&str, Edit, &[&str]); 3] = [
        ("deleted", |c| c.delete("web"), &["release 192.0.2.200"]),
        ("type changed", |c| c.apply("web", json!({"type": "ClusterIP"})), &["status web ", "release 192.0.2.200"]),
        (
            "class changed",
            |c| c.apply("web", json!({"loadBalancerClass": "example.com/other"})),
            &["status web ", "release 192.0.2.200"],
        ),
    ];
    for (what, edit, writes) in edits {
        let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.210"]);
        cluster.apply("web", json!({}));
        cluster.settle(None);
        cluster.writes();
        edit(&mut cluster);
        cluster.settle(None);
        assert_eq!(cluster.writes(), writes, "{what}");
        assert!(cluster.announcements.is_empty(), "{what}");
        assert_eq!(cluster.services.get(&key("web")).and_then(|_| cluster.ingress("web")), None, "{what}");
    }
}

#[test]
fn an_address_that_works_stays_until_another_requested_one_is_answered_for() {
    let mut cluster = Cluster::answered();
    cluster.apply("web", json!({"loadBalancerIP": "192.0.2.205"}));
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["claim 192.0.2.205", "status web 192.0.2.200"]);
    assert!(cluster.condition("web", types::ALLOCATED).starts_with("False AddressPending"));
    let owner = cluster.owner("192.0.2.205").unwrap();
    cluster.claim("192.0.2.205", &owner, 1);
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["status web 192.0.2.205", "release 192.0.2.200"]);
    assert!(cluster.condition("web", types::ALLOCATED).starts_with("True Allocated"));
}

#[test]
fn an_address_that_works_is_not_given_up_for_one_that_nobody_can_announce() {
    let mut cluster = Cluster::answered();
    cluster.pool("far", &["198.51.100.7"]);
    cluster.apply("web", json!({"loadBalancerIP": "198.51.100.7"}));
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["status web 192.0.2.200"]);
    let condition = cluster.condition("web", types::ALLOCATED);
    assert!(condition.starts_with("False NoEligibleNode no node can answer for 198.51.100.7"), "{condition}");
    assert!(condition.ends_with("192.0.2.200 stays until then"), "{condition}");
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("True Announced"));
}

#[test]
fn an_address_that_never_worked_is_replaced_at_once() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.210"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    cluster.writes();
    cluster.apply("web", json!({"loadBalancerIP": "192.0.2.205"}));
    cluster.settle(None);
    assert_eq!(cluster.writes(), ["claim 192.0.2.205", "status web 192.0.2.205", "release 192.0.2.200"]);
}

#[test]
fn another_machine_with_the_address_is_named_on_the_service() {
    let mut cluster = Cluster::answered();
    let mut announcement = cluster.announcements["192.0.2.200"].clone();
    announcement.status.as_mut().unwrap().conditions = serde_json::from_value(json!([{
        "type": "Ready", "status": "False", "reason": "AddressConflict", "message": "02:00:00:00:00:99 has it",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]))
    .unwrap();
    cluster.announcements.insert("192.0.2.200".to_owned(), announcement);
    cluster.show("192.0.2.200");
    cluster.settle(None);
    assert_eq!(cluster.condition("web", types::ANNOUNCED), "False AddressConflict 02:00:00:00:00:99 has it");
}

#[test]
fn a_deleted_report_of_a_node_that_is_there_moves_nothing() {
    let mut cluster = Cluster::answered();
    let owner = cluster.owner("192.0.2.200").unwrap();
    cluster.world.learn(Change::SpeakerNode(owner.clone(), None));
    cluster.settle(None);
    assert_eq!(cluster.owner("192.0.2.200"), Some(owner.clone()));
    cluster.world.learn(Change::Node(owner.clone(), None));
    cluster.settle(None);
    assert_ne!(cluster.owner("192.0.2.200"), Some(owner));
}

#[test]
fn a_pool_as_large_as_the_subnet_gives_neither_its_network_nor_its_broadcast_address() {
    let mut cluster = Cluster::new(&["192.0.2.0/24"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.1"));
    cluster.apply("last", json!({"loadBalancerIP": "192.0.2.255"}));
    cluster.settle(None);
    assert!(cluster.condition("last", types::ALLOCATED).starts_with("False SubnetAddress"));
}

#[test]
fn a_request_that_cannot_be_met_leaves_the_address_and_says_why() {
    for (request, reason) in
        [("web", "InvalidRequest"), ("198.51.100.1", "AddressOutsidePools"), ("192.0.2.201", "AddressInUse")]
    {
        let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.210"]);
        cluster.apply("web", json!({}));
        cluster.settle(None);
        cluster.apply("other", json!({}));
        cluster.settle(None);
        cluster.notes.clear();
        cluster.apply("web", json!({"loadBalancerIP": request}));
        cluster.settle(None);
        assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"), "{request}");
        let condition = cluster.condition("web", types::ALLOCATED);
        assert!(condition.starts_with(&format!("False {reason} ")), "{condition}");
        assert!(condition.ends_with("; 192.0.2.200 stays until then"), "{condition}");
        assert_eq!(cluster.notes.len(), 1, "{:?}", cluster.notes);
        assert!(cluster.owner("192.0.2.200").is_some(), "{request}: it is still announced");
    }
}

#[test]
fn a_service_is_planned_again_only_when_the_watch_has_shown_what_was_written() {
    let mut cluster = Cluster::new(&["192.0.2.200"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    cluster.world.status_written(&key("web"), 7);
    cluster.world.mark(&key("web"));
    let show = |cluster: &mut Cluster, version: &str| {
        let service = cluster.services.get_mut(&key("web")).unwrap();
        service.metadata.resource_version = Some(version.to_owned());
        cluster.tell("web");
    };
    show(&mut cluster, "6");
    assert_eq!(cluster.world.next(|_| false), None);
    show(&mut cluster, "7");
    assert_eq!(cluster.world.next(|_| false), Some(key("web")));

    // One that is gone is not waited for.
    cluster.world.status_written(&key("web"), 9);
    cluster.delete("web");
    assert_eq!(cluster.world.next(|_| false), Some(key("web")));
}

#[test]
fn an_advertisement_that_no_node_can_follow_says_so() {
    for (spec, told) in [
        (json!({}), "True Valid"),
        (json!({"interfaces": ["eth0"]}), "True Valid"),
        (json!({"interfaces": ["eth9"]}), "False NoEligibleNode no selected node has one of `spec.interfaces`"),
        (
            json!({"nodeSelectors": [{"matchLabels": {"x": "y"}}]}),
            "False NoEligibleNode `spec.nodeSelectors` match no node",
        ),
        (json!({"ipAddressPools": ["default", "gone"]}), "False PoolNotFound `spec.ipAddressPools` names `gone`"),
    ] {
        let mut cluster = Cluster::new(&["192.0.2.200"]);
        cluster.advertise(spec.clone());
        let view = cluster.world.advertisement("all").unwrap();
        let change = status::advertisement_change("all", view, &cluster.world, Timestamp::UNIX_EPOCH).unwrap();
        let condition = &change.body["status"]["conditions"][0];
        let said = ["status", "reason", "message"].map(|field| condition[field].as_str().unwrap()).join(" ");
        assert!(said.starts_with(told), "{spec}: {said}");
    }
}

#[test]
fn an_address_whose_pool_is_gone_is_kept_and_the_service_says_so() {
    let mut cluster = Cluster::answered();
    cluster.world.learn(Change::Pool("default".to_owned(), None));
    cluster.settle(None);
    assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"));
    let condition = cluster.condition("web", types::ALLOCATED);
    assert!(condition.starts_with("True Allocated 192.0.2.200, kept although IPAddressPool `default`"), "{condition}");
}

#[test]
fn a_waiting_service_gets_the_address_that_becomes_free() {
    let mut cluster = Cluster::new(&["192.0.2.200"]);
    cluster.apply("first", json!({}));
    cluster.settle(None);
    cluster.apply("second", json!({}));
    cluster.settle(None);
    assert_eq!(cluster.ingress("second"), None);
    assert!(cluster.condition("second", types::ALLOCATED).starts_with("False PoolExhausted"));
    cluster.delete("first");
    cluster.settle(None);
    assert_eq!(cluster.ingress("second").as_deref(), Some("192.0.2.200"));
}

#[test]
fn the_local_policy_names_only_nodes_with_serving_endpoints() {
    let mut cluster = Cluster::new(&["192.0.2.200"]);
    cluster.endpoints("web", &["node-2"]);
    cluster.apply("web", json!({"externalTrafficPolicy": "Local"}));
    cluster.settle(None);
    assert_eq!(cluster.owner("192.0.2.200").as_deref(), Some("node-2"));
    cluster.claim("192.0.2.200", "node-2", 1);
    cluster.endpoints("web", &["node-3"]);
    cluster.settle(None);
    let layer2 = cluster.announcements["192.0.2.200"].spec.layer2.clone().unwrap();
    assert_eq!((layer2.owner.as_deref(), layer2.epoch), (Some("node-3"), 2));
    assert_eq!(layer2.standbys, ["node-2"], "who answers keeps its part until node-3 has claimed");
    cluster.claim("192.0.2.200", "node-3", 2);
    cluster.settle(None);
    assert_eq!(cluster.announcements["192.0.2.200"].spec.layer2.clone().unwrap().standbys, Vec::<String>::new());
    cluster.endpoints("web", &[]);
    cluster.settle(None);
    assert_eq!(cluster.owner("192.0.2.200"), None);
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("False NoLocalEndpoints"));
}

#[test]
fn a_takeover_on_the_wire_is_adopted() {
    let mut cluster = Cluster::new(&["192.0.2.200"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    let standby = cluster.announcements["192.0.2.200"].spec.layer2.clone().unwrap().standbys[0].clone();
    cluster.claim("192.0.2.200", &standby, 2);
    cluster.settle(None);
    let layer2 = cluster.announcements["192.0.2.200"].spec.layer2.clone().unwrap();
    assert_eq!((layer2.owner, layer2.epoch), (Some(standby), 2));
}

#[test]
fn without_an_advertisement_the_service_says_so() {
    let mut cluster = Cluster::new(&["192.0.2.200"]);
    cluster.advertise(json!({"ipAddressPools": ["other"]}));
    cluster.apply("web", json!({}));
    cluster.settle(None);
    assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"));
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("False NoAdvertisement"));
    cluster.advertise(json!({}));
    cluster.settle(None);
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("True Announced"));
}

#[test]
fn an_address_that_somebody_else_claimed_first_is_not_given() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.201"]);
    cluster.apply("other", json!({}));
    cluster.settle(None);
    // This controller has not heard of it: a paused leader that wakes up.
    let stranger = cluster.announcements["192.0.2.200"].clone();
    cluster.world.learn(Change::Announcement("192.0.2.200".to_owned(), None));
    cluster.world.learn(Change::Service(key("other"), None));
    cluster.apply("web", json!({}));
    while let Some(next) = cluster.world.next(|_| false) {
        let first = plan(&cluster.world, &next, Timestamp::UNIX_EPOCH).steps.into_iter().next();
        let refused = first.map(|step| cluster.write(step));
        assert_eq!(refused, (next == key("web")).then_some(Err(Refused)), "{next}");
    }
    assert_eq!(cluster.announcements["192.0.2.200"].spec, stranger.spec);
    cluster.show("192.0.2.200");
    cluster.tell("other");
    cluster.world.mark(&key("web"));
    cluster.settle(None);
    assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.201"));
}

#[derive(Clone, Debug)]
enum Act {
    Apply(u8, Option<u8>, bool),
    Type(u8),
    Delete(u8),
    Pool(u8),
    Exclude(u8, bool),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u8..8, prop::option::of(0_u8..9), any::<bool>()).prop_map(|(s, a, l)| Act::Apply(s, a, l)),
        1 => (0_u8..8).prop_map(Act::Type),
        2 => (0_u8..8).prop_map(Act::Delete),
        1 => (0_u8..9).prop_map(Act::Pool),
        1 => (1_u8..4, any::<bool>()).prop_map(|(n, e)| Act::Exclude(n, e)),
        1 => Just(Act::Restart),
    ]
}

proptest! {
    /// Whatever people do and however often a write is lost: no address has two holders, every ingress is backed by
    /// an Announcement that names the Service, nothing is held by nobody, and in the end nothing is left to write.
    #[test]
    fn the_cluster_ends_consistent_under_lost_writes(
        acts in prop::collection::vec((act(), prop::option::of(2_usize..5)), 1..40)
    ) {
        let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.205"]);
        for (act, fail) in acts {
            match act {
                Act::Apply(s, address, local) => {
                    let mut spec = json!({"externalTrafficPolicy": if local { "Local" } else { "Cluster" }});
                    if let Some(a) = address {
                        spec["loadBalancerIP"] = json!(format!("192.0.2.{}", 199 + a));
                    }
                    cluster.endpoints(&format!("s{s}"), &["node-1"]);
                    cluster.apply(&format!("s{s}"), spec);
                }
                Act::Type(s) => cluster.apply(&format!("s{s}"), json!({"type": "ClusterIP"})),
                Act::Delete(s) => cluster.delete(&format!("s{s}")),
                Act::Pool(last) => cluster.pool("default", &[&format!("192.0.2.200-192.0.2.{}", 200 + last)]),
                Act::Exclude(n, exclude) => {
                    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
                    cluster.node(n, if exclude { json!({label: ""}) } else { json!({}) });
                }
                Act::Restart => {
                    let (services, announcements, version) =
                        (cluster.services.clone(), cluster.announcements.clone(), cluster.version);
                    cluster = Cluster::new(&["192.0.2.200-192.0.2.205"]);
                    (cluster.services, cluster.announcements, cluster.version) = (services, announcements, version);
                    for name in cluster.announcements.keys().cloned().collect::<Vec<_>>() {
                        cluster.show(&name);
                    }
                    for key in cluster.services.keys().cloned().collect::<Vec<_>>() {
                        cluster.tell(&key.name);
                    }
                }
            }
            let before: BTreeMap<_, _> = cluster.services.keys().map(|k| (k.name.clone(), cluster.ingress(&k.name))).collect();
            cluster.settle(fail);
            cluster.settle(None);
            // The owners that are named answer, which lets an address move, which another may wait for.
            while let Some((name, owner, epoch)) = cluster.unanswered() {
                cluster.claim(&name, &owner, epoch);
                cluster.settle(None);
            }

            let mut backed = BTreeSet::new();
            for (service, view) in cluster.services.iter().map(|(k, s)| (k, ServiceView::of(s, DefaultProvider::Pool))) {
                let ingress = view.as_ref().and_then(ServiceView::previous);
                if let Some(address) = ingress {
                    let holder = AnnouncementView::of(&cluster.announcements[&address.to_string()]).holder();
                    prop_assert_eq!(holder.as_ref(), Some(service));
                    backed.insert(address.to_string());
                }
                if view.is_some_and(|v| v.ours) && before.get(&service.name).is_some_and(Option::is_some) {
                    prop_assert!(ingress.is_some(), "{} lost its address", service);
                }
            }
            prop_assert_eq!(backed, cluster.announcements.keys().cloned().collect::<BTreeSet<_>>());

            cluster.writes();
            for key in cluster.services.keys().cloned().collect::<Vec<_>>() {
                cluster.world.mark(&key);
            }
            cluster.settle(None);
            prop_assert_eq!(cluster.writes(), Vec::<String>::new());
        }
    }
}
