//! Plans are tried on a small strict API server.

mod cluster;
mod dataplane;
mod families;
mod kernel;
mod late;
mod moves;
mod quarantine;
mod reinstall;
mod routes;
mod selectors;
mod sharing;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};

use berth_api::names::{announcement_name, part_label};
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use berth_api::IpFamily;
use berth_api::condition::types;
use berth_api::service::Second;
use berth_api::sharing::{SharingScope, may_share};
use berth_api::{Condition, ConditionStatus, Reason};
use berth_pool::view::{AnnouncementView, SaidCondition, ServiceView};
use berth_pool::world::Change;
use cluster::{Cluster, Refused};

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".into(), name: name.into() }
}

#[test]
fn what_another_provider_published_stays_while_its_request_is_not_met() {
    let lost = json!({
        "metadata": {"namespace": "shop", "name": "web", "uid": "1", "resourceVersion": "5"},
        "spec": {"type": "LoadBalancer"},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    });
    let mut world = World::default();
    let view = ServiceView::of(&serde_json::from_value(lost).unwrap(), Asks::AnotherProvider);
    world.learn(Change::Service(key("web"), view));
    let condition = |status, reason| Condition { kind: types::ALLOCATED, status, reason, message: String::new() };
    // What it has to say was found out before it heard of the address.
    let unmet = condition(ConditionStatus::False, Reason::InvalidRequest);
    let met = condition(ConditionStatus::True, Reason::Allocated);
    for (condition, is_met, ingress) in
        [(unmet, false, json!([{"ip": "203.0.113.1"}])), (met, true, json!([{"ip": "203.0.113.2"}]))]
    {
        let ingress_of = |ip: &str| LoadBalancerIngress { ip: Some(ip.to_owned()), ..LoadBalancerIngress::default() };
        let published = if is_met { vec![ingress_of("203.0.113.2")] } else { Vec::new() };
        let outcome = Outcome { ingress: published, conditions: vec![condition], met: is_met, look_again: None };
        let steps = plan(&world, &BTreeMap::from([(key("web"), outcome)]), &key("web"), Timestamp::UNIX_EPOCH).steps;
        let [Step::Status(status, _)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(status.body["status"]["loadBalancer"]["ingress"], ingress);
    }
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
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("True NoServingEndpoints"));
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
fn labels_of_parts_that_somebody_changed_are_written_again_and_others_stay() {
    type Edit<'a> = &'a dyn Fn(&mut BTreeMap<String, String>);
    let mut cluster = Cluster::answered();
    cluster.writes();
    let (name, label) = ("192.0.2.200", part_label(&cluster.owner("192.0.2.200").unwrap()));
    let ours = cluster.announcements[name].labels().clone();
    let other = |labels: &mut BTreeMap<String, String>| labels.insert("team".to_owned(), "shop".to_owned());
    let edits: [(&str, Edit<'_>, bool); 4] = [
        ("one is gone", &|labels| drop(labels.remove(&label)), true),
        ("one says another part", &|labels| drop(labels.insert(label.clone(), "standby".to_owned())), true),
        ("one too many", &|labels| drop(labels.insert(part_label("nobody"), "standby".to_owned())), true),
        ("only another one", &|_| {}, false),
    ];
    for (what, edit, is_written) in edits {
        let labels = cluster.announcements.get_mut(name).unwrap().labels_mut();
        other(labels);
        edit(labels);
        cluster.show(name);
        cluster.world.mark(&key("web"));
        cluster.settle(None);
        assert_eq!(cluster.writes().is_empty(), !is_written, "{what}");
        let mut expected = ours.clone();
        other(&mut expected);
        assert_eq!(*cluster.announcements[name].labels(), expected, "{what}");
    }
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
fn a_service_whose_claim_the_api_server_refuses_says_so_keeps_what_it_has_and_goes_on_when_it_is_not_refused_any_more()
{
    let mut cluster = Cluster::answered();
    let why = || (Reason::ClaimRefused, "cannot create Announcement `192.0.2.205`: denied".to_owned());
    let now = Timestamp::UNIX_EPOCH;
    cluster.apply("web", json!({"loadBalancerIP": "192.0.2.205"}));
    let steps = not_written(&cluster.world, &key("web"), why(), now).unwrap().steps;
    assert_eq!(steps.len(), 1);
    for step in steps {
        cluster.write(step).unwrap();
    }
    assert_eq!(cluster.writes(), ["status web 192.0.2.200"]);
    assert_eq!(cluster.condition("web", types::ALLOCATED), format!("False ClaimRefused {}", why().1));
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("True NoServingEndpoints"));
    assert_eq!(cluster.notes.pop(), Some(format!("ClaimRefused {}", why().1)));
    assert!(not_written(&cluster.world, &key("web"), why(), now).unwrap().steps.is_empty(), "it is said once");
    cluster.settle(None);
    assert!(cluster.condition("web", types::ALLOCATED).starts_with("False AddressPending"));

    // One that has nothing is announced by nobody.
    cluster.apply("new", json!({}));
    let steps = not_written(&cluster.world, &key("new"), why(), now).unwrap().steps;
    for step in steps {
        cluster.write(step).unwrap();
    }
    assert_eq!(cluster.services[&key("new")].status.as_ref().unwrap().conditions.as_ref().unwrap().len(), 1);
    // Another provider's is not ours to speak of.
    let view = ServiceView::of(&cluster.services[&key("web")], Asks::AnotherProvider);
    cluster.world.learn(Change::Service(key("web"), view));
    assert!(not_written(&cluster.world, &key("web"), why(), now).is_none());
}

#[test]
fn a_service_is_planned_again_only_when_the_watch_has_shown_what_was_written() {
    let mut cluster = Cluster::new(&["192.0.2.200"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    let version = cluster.version;
    cluster.world.status_written(&key("web"), version + 2);
    cluster.world.mark(&key("web"));
    let show = |cluster: &mut Cluster, version: u64| {
        let service = cluster.services.get_mut(&key("web")).unwrap();
        service.metadata.resource_version = Some(version.to_string());
        cluster.tell("web");
    };
    show(&mut cluster, version + 1);
    assert_eq!(cluster.world.next(|_| false), None);
    show(&mut cluster, version + 2);
    assert_eq!(cluster.world.next(|_| false), Some(key("web")));

    // One that is gone is not waited for.
    cluster.world.status_written(&key("web"), version + 4);
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
        let id = berth_pool::view::AdvertisementKind::Layer2.named("all");
        let view = cluster.world.advertisement(&id).unwrap();
        let change =
            berth_pool::report::advertisement_change(&id, view, &cluster.world, Timestamp::UNIX_EPOCH).unwrap();
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
    assert!(cluster.condition("web", types::ANNOUNCED).starts_with("True NoServingEndpoints"));
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
        let first = plan(&cluster.world, &BTreeMap::new(), &next, Timestamp::UNIX_EPOCH).steps.into_iter().next();
        let refused = first.map(|step| cluster.write(step));
        assert_eq!(refused, (next == key("web")).then_some(Err(Refused::Other)), "{next}");
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
    /// A Service, the families of [`POLICIES`], an address of each family that is asked for, the Local policy, a key to share by.
    Apply(u8, usize, [Option<u8>; 2], bool, Option<bool>),
    Type(u8),
    Delete(u8),
    Pools(usize, u8),
    Exclude(u8, bool),
    Restart,
}

/// `spec.ipFamilyPolicy` and `spec.ipFamilies`.
const POLICIES: [(&str, &[&str]); 6] = [
    ("SingleStack", &["IPv4"]),
    ("SingleStack", &["IPv6"]),
    ("PreferDualStack", &["IPv4", "IPv6"]),
    ("PreferDualStack", &["IPv6", "IPv4"]),
    ("PreferDualStack", &["IPv4"]),
    ("RequireDualStack", &["IPv4", "IPv6"]),
];

fn act() -> impl Strategy<Value = Act> {
    let asked = || prop::option::weighted(0.3, 0_u8..9);
    prop_oneof![
        4 => (0_u8..8, 0..POLICIES.len(), asked(), asked(), any::<bool>(), any::<Option<bool>>())
            .prop_map(|(s, p, v4, v6, l, key)| Act::Apply(s, p, [v4, v6], l, key)),
        1 => (0_u8..8).prop_map(Act::Type),
        2 => (0_u8..8).prop_map(Act::Delete),
        1 => (0_usize..5, 0_u8..9).prop_map(|(shape, last)| Act::Pools(shape, last)),
        1 => (1_u8..4, any::<bool>()).prop_map(|(n, e)| Act::Exclude(n, e)),
        1 => Just(Act::Restart),
    ]
}

impl Act {
    fn perform(self, cluster: &mut Cluster) {
        match self {
            Self::Apply(s, policy, asked, local, key) => {
                let (policy, families) = POLICIES[policy];
                let spec = json!({"externalTrafficPolicy": if local { "Local" } else { "Cluster" },
                                  "ipFamilyPolicy": policy, "ipFamilies": families, "ports": [{"port": 80 + s % 4}]});
                let asked = asked.iter().zip(["192.0.2.", "2001:db8:2::"]).zip(["IPv4", "IPv6"]);
                let asked = asked.filter(|(_, family)| families.contains(family));
                let asked: Vec<_> = asked.filter_map(|((a, net), _)| Some(format!("{net}{}", 199 + (*a)?))).collect();
                let mut annotations = json!({});
                if !asked.is_empty() {
                    annotations["berth.dev/load-balancer-ips"] = json!(asked.join(","));
                }
                if let Some(key) = key {
                    annotations["berth.dev/allow-shared-ip"] = json!(key.to_string());
                }
                let name = format!("s{s}");
                cluster.endpoints_of(&name, "IPv4", &["node-1"]);
                cluster.endpoints_of(&name, "IPv6", &["node-2"]);
                cluster.apply_with(&name, spec, annotations);
            }
            Self::Type(s) => cluster.apply(&format!("s{s}"), json!({"type": "ClusterIP"})),
            Self::Delete(s) => cluster.delete(&format!("s{s}")),
            Self::Pools(shape, last) => {
                let v4 = format!("192.0.2.200-192.0.2.{}", 200 + last);
                let v6 = format!("2001:db8:2::200-2001:db8:2::{}", 200 + last / 2);
                match shape {
                    0 => cluster.pool("default", &[&v4]),
                    1 => cluster.pool("default", &[&v6]),
                    2 => cluster.pool("default", &[&v4, &v6]),
                    3 => cluster.pool("second", &["192.0.2.207", "2001:db8:2::207"]),
                    _ => {
                        cluster.pools.remove("second");
                        cluster.world.learn(Change::Pool("second".to_owned(), None));
                    }
                }
            }
            Self::Exclude(n, exclude) => {
                let label = "node.kubernetes.io/exclude-from-external-load-balancers";
                cluster.node(n, if exclude { json!({label: ""}) } else { json!({}) });
            }
            Self::Restart => {
                let (services, announcements, version) =
                    (cluster.services.clone(), cluster.announcements.clone(), cluster.version);
                *cluster = Cluster::new(POOL);
                (cluster.services, cluster.announcements, cluster.version) = (services, announcements, version);
                for name in cluster.announcements.keys().cloned().collect::<Vec<_>>() {
                    cluster.show(&name);
                }
                for key in cluster.services.keys().cloned().collect::<Vec<_>>() {
                    cluster.tell(&key.name);
                }
            }
        }
    }
}

const POOL: &[&str] = &["192.0.2.200-192.0.2.205", "2001:db8:2::200-2001:db8:2::203"];

/// What of each Service's families its ingress has.
fn served(cluster: &Cluster) -> BTreeMap<ServiceKey, BTreeSet<IpFamily>> {
    let views = cluster.services.iter().filter_map(|(k, s)| Some((k, cluster::viewed(s)?)));
    views.map(|(key, view)| (key.clone(), view.addresses().map(IpFamily::of).collect())).collect()
}

/// One round of a controller that may write without end: it plans everybody who is in line on what it knows, then all of that is
/// written, and the nodes that are named answer. As in the controller, of two plans that write one Announcement the second waits.
fn round(cluster: &mut Cluster) {
    let (mut plans, mut touched, mut parked) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let now = Timestamp::from_second(cluster.now).unwrap();
    while let Some(key) = cluster.world.next(|key| parked.contains(key)) {
        let plan = plan(&cluster.world, &BTreeMap::new(), &key, now);
        let names: Vec<_> = plan.announcements().collect();
        if names.iter().any(|name| touched.contains(name)) {
            cluster.world.mark(&key);
            parked.insert(key);
            continue;
        }
        touched.extend(names);
        cluster.world.set_waiting(&key, plan.lack.clone(), &plan.claims);
        plan.cool.iter().for_each(|address| cluster.world.cool(*address, cluster.now));
        plan.kept.iter().for_each(|address| cluster.world.warm(*address));
        plan.claims.iter().for_each(|(address, pool)| cluster.world.hold(*address, &key, pool));
        plans.push(plan);
    }
    plans.into_iter().flat_map(|plan| plan.steps).for_each(|step| cluster.write(step).unwrap());
    cluster.write_pools();
    while let Some((name, owner, epoch)) = cluster.unanswered() {
        cluster.claim(&name, &owner, epoch);
    }
}

proptest! {
    /// What is forecast of a cluster is what a controller then does, whatever people have done to it: every Service is reached where
    /// that says, and says why not; also where something has cooled down that a pool's status still names.
    #[test]
    fn a_plan_says_what_the_controller_then_does(
        before in prop::collection::vec(act(), 0..12),
        then in prop::collection::vec(act(), 1..6),
        cool_down in prop::option::of(1_u32..100),
        later in 0_i64..150,
    ) {
        let mut cluster = Cluster::new(POOL);
        // Who would share an address that its last holder leaves at the same moment, to cool down, may still join it or come too late.
        let alone = |act| match act {
            Act::Apply(s, policy, asked, local, _) if cool_down.is_some() => Act::Apply(s, policy, asked, local, None),
            act => act,
        };
        let (before, then): (Vec<_>, Vec<_>) =
            (before.into_iter().map(alone).collect(), then.into_iter().map(alone).collect());
        if let Some(seconds) = cool_down {
            cluster.pool_with("default", json!({"addresses": POOL, "coolDownSeconds": seconds}));
        }
        for act in before {
            act.perform(&mut cluster);
            (0..4).for_each(|_| round(&mut cluster));
        }
        cluster.now += later;
        for act in then {
            act.perform(&mut cluster);
        }
        // A planner looks at everybody.
        cluster.services.keys().cloned().collect::<Vec<_>>().iter().for_each(|key| cluster.world.mark(key));
        let views: BTreeMap<_, _> = cluster.services.iter().filter_map(|(k, s)| Some((k.clone(), cluster::viewed(s)?))).collect();
        let reached = |view: &ServiceView| view.addresses().map(|address| address.to_string()).collect::<Vec<_>>();
        let before = views.iter().map(|(key, view)| (key.clone(), reached(view))).collect();
        let now = Timestamp::from_second(cluster.now).unwrap();
        let forecast = berth_pool::forecast::forecast(cluster.world.clone(), &BTreeMap::new(), &before, now);
        prop_assert!(forecast.unsettled.is_empty());

        cluster.world.expire(cluster.now);
        for _ in 0..50 {
            cluster.writes();
            round(&mut cluster);
            if cluster.writes().is_empty() && !cluster.world.has_next(|_| false) {
                break;
            }
        }
        for (key, view) in views.iter().filter(|(_, view)| view.asks == Asks::Us) {
            let prospect = &forecast.services[key];
            let view = cluster::viewed(&cluster.services[key]).unwrap_or_else(|| view.clone());
            prop_assert_eq!(&reached(&view), &prospect.after, "{}: {:?}", key, prospect);
            let said = cluster.condition(&key.name, types::ALLOCATED);
            let announced = cluster.services[key].status.as_ref().unwrap().conditions.iter().flatten();
            let announced = announced.filter(|c| c.type_ == types::ANNOUNCED).map(|c| c.reason.clone());
            let reasons: Vec<_> = said.split(' ').skip(1).take(1).map(str::to_owned).chain(announced).collect();
            prop_assert!(reasons.iter().any(|reason| reason == prospect.reason.as_str()), "{}: {:?} and {}", key, prospect, said);
        }
    }

    /// Whatever people do, however often a write is lost and however far the watch is behind: no address has two holders that may
    /// not share it, every
    /// ingress is backed by an Announcement that names the Service, no family that worked is lost, no Service has less than its
    /// policy promises, nothing is held by nobody, and in the end nothing is left to write.
    #[test]
    fn the_cluster_ends_consistent_under_lost_writes(
        acts in prop::collection::vec((act(), prop::option::of(2_usize..5), any::<bool>()), 1..40)
    ) {
        let mut cluster = Cluster::new(POOL);
        for (act, fail, behind) in acts {
            let before = served(&cluster);
            let names: BTreeSet<_> = cluster.services.keys().map(|key| key.name.clone()).collect();
            cluster.behind = behind;
            // One that changes so that it may not share any more leaves, also where there is nothing else.
            let changed = if let Act::Apply(s, ..) = act { Some(key(&format!("s{s}"))) } else { None };
            let mates = |cluster: &Cluster, key: &ServiceKey| {
                cluster.world.ipam.held_by(key).any(|address| cluster.world.ipam.tenants(address).len() > 1)
            };
            let leaves = changed.filter(|key| mates(&cluster, key));
            act.perform(&mut cluster);
            cluster.settle(fail);
            let names: BTreeSet<_> = cluster.services.keys().map(|key| key.name.clone()).chain(names).collect();
            cluster.catch_up(names);
            cluster.settle(None);
            // The owners that are named answer, which lets an address move, which another may wait for.
            while let Some((name, owner, epoch)) = cluster.unanswered() {
                cluster.claim(&name, &owner, epoch);
                cluster.settle(None);
            }

            let mut backed: BTreeMap<String, Vec<ServiceKey>> = BTreeMap::new();
            let after = served(&cluster);
            for (service, view) in cluster.services.iter().filter_map(|(k, s)| Some((k, cluster::viewed(s)?))) {
                for address in view.addresses() {
                    let name = announcement_name(address);
                    prop_assert!(AnnouncementView::of(&cluster.announcements[&name]).holders().any(|holder| holder == *service));
                    backed.entry(name).or_default().push(service.clone());
                    prop_assert!(view.families.has(IpFamily::of(address)), "{} has {}", service, address);
                }
                let has = &after[service];
                prop_assert_eq!(has.len(), view.addresses().count(), "one of each family");
                let order = view.families.iter().filter(|family| has.contains(family));
                prop_assert!(view.addresses().map(IpFamily::of).eq(order), "in the order of the Service's families");
                if view.asks != Asks::Us {
                    continue;
                }
                let had = before.get(service).cloned().unwrap_or_default();
                let lost = had.into_iter().filter(|family| view.families.has(*family) && !has.contains(family)).count();
                prop_assert!(lost == 0 || leaves.as_ref() == Some(service), "{} lost an address", service);
                let allocated = view.said(types::ALLOCATED).is_some_and(SaidCondition::holds);
                if allocated {
                    let least = if view.families.second == Some(Second::Preferred) { 1 } else { view.families.iter().count() };
                    prop_assert!(has.len() >= least, "{}", service);
                }
            }
            let names: BTreeSet<_> = backed.keys().cloned().collect();
            prop_assert_eq!(names, cluster.announcements.keys().cloned().collect::<BTreeSet<_>>());
            let terms = |key: &ServiceKey| cluster::viewed(&cluster.services[key]).and_then(|view| view.sharing);
            for (name, holders) in &backed {
                let said: BTreeSet<_> = AnnouncementView::of(&cluster.announcements[name]).holders().collect();
                prop_assert_eq!(&said, &holders.iter().cloned().collect::<BTreeSet<_>>());
                for (index, one) in holders.iter().enumerate() {
                    for other in &holders[..index] {
                        let (mine, theirs) = (terms(one), terms(other));
                        let may = may_share((one, mine.as_ref()), (other, theirs.as_ref()), SharingScope::Cluster);
                        prop_assert_eq!(may, Ok(()), "{} and {} have {}", one, other, name);
                    }
                }
            }

            cluster.writes();
            let mark_all = |cluster: &mut Cluster| {
                for key in cluster.services.keys().cloned().collect::<Vec<_>>() {
                    cluster.world.mark(&key);
                }
                cluster.settle(None);
            };
            mark_all(&mut cluster);
            // One that is refused one family may be refused the other too by now, and say that instead; no more.
            for write in cluster.writes() {
                let Some((name, _)) = write.strip_prefix("status ").and_then(|rest| rest.split_once(' ')) else {
                    return Err(TestCaseError::fail(write));
                };
                let view = cluster::viewed(&cluster.services[&key(name)]).unwrap();
                prop_assert!(view.families.second.is_some(), "{}", write);
                prop_assert!(cluster.condition(name, types::ALLOCATED).starts_with("False"), "{}", write);
            }
            prop_assert_eq!(served(&cluster), after);
            mark_all(&mut cluster);
            prop_assert_eq!(cluster.writes(), Vec::<String>::new());
        }
    }
}
