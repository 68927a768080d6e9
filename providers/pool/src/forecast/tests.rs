use berth_api::crd::AnnouncementSpec;
use berth_api::names::announcement_name;
use berth_api::sharing::{SharingScope, may_share};
use berth_api::{IPAddressPool, L2Advertisement};
use k8s_openapi::api::core::v1::{Node, Service};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::view::{AdvertisementView, NodeView, PoolView, Report};

/// Objects of a cluster, as changes in some order, and where Services are reached.
#[derive(Clone, Debug, Default)]
struct Given {
    changes: Vec<Change>,
    before: BTreeMap<ServiceKey, Vec<String>>,
}

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".to_owned(), name: name.to_owned() }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

impl Given {
    /// Two nodes in 192.0.2.0/24 and 2001:db8:2::/64, and an advertisement of all pools.
    fn nodes() -> Self {
        let mut given = Self::default();
        for n in 1..=2 {
            let name = format!("node-{n}");
            let node: Node = object(json!({
                "metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }));
            given.changes.push(Change::Node(name.clone(), Some(NodeView::of(&node))));
            let interfaces = object(json!([{"name": "eth0", "mac": format!("02:00:00:00:00:{n:02x}"),
                "addresses": [format!("192.0.2.{n}/24"), format!("2001:db8:2::{n}/64")]}]));
            given.changes.push(Change::SpeakerNode(name, Some(Report { interfaces, ..Report::default() })));
        }
        given.advertised(json!({}))
    }

    fn advertised(mut self, spec: Value) -> Self {
        let ad: L2Advertisement = object(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "L2Advertisement", "metadata": {"name": "all"}, "spec": spec,
        }));
        self.changes.retain(|change| !matches!(change, Change::Advertisement(..)));
        self.changes.push(Change::Advertisement("all".to_owned(), Some(AdvertisementView::of(&ad))));
        self
    }

    fn pool(self, name: &str, addresses: &[&str]) -> Self {
        self.pool_with(name, &json!({"addresses": addresses}))
    }

    fn pool_with(mut self, name: &str, spec: &Value) -> Self {
        let pool: IPAddressPool = object(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "IPAddressPool", "metadata": {"name": name}, "spec": spec,
        }));
        self.changes.push(Change::Pool(name.to_owned(), Some(PoolView::of(&pool))));
        self
    }

    /// What the status of a pool says of addresses that cool down, until so many seconds after now.
    fn cooling(mut self, name: &str, addresses: &str, until: i64) -> Self {
        for change in &mut self.changes {
            if let Change::Pool(pool, Some(view)) = change
                && pool == name
            {
                view.cooling.push((addresses.parse().unwrap(), until));
            }
        }
        self
    }

    /// A Service of the pools, with what is merged into it.
    fn service(self, name: &str, asks: Asks, spec: Value, status: &[&str]) -> Self {
        self.service_of(name, asks, 0, spec, status)
    }

    fn service_of(mut self, name: &str, asks: Asks, created: i64, spec: Value, status: &[&str]) -> Self {
        let ingress: Vec<_> = status.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        let condition = json!({"type": "berth.dev/Allocated", "status": "True", "reason": "Allocated", "message": "",
                               "lastTransitionTime": "2026-01-01T00:00:00Z"});
        // What a Service shares by stands in its annotations; here it is given with the specification.
        let mut spec = spec;
        let key_to_share = spec.as_object_mut().and_then(|spec| spec.remove("sharesBy"));
        let annotations = key_to_share.map_or(json!({}), |key| json!({"berth.dev/allow-shared-ip": key}));
        let mut service: Service = object(json!({
            "metadata": {"annotations": annotations, "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
                         "creationTimestamp": Timestamp::from_second(created).unwrap().to_string()},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}, "conditions": [condition]},
        }));
        if status.is_empty() {
            service.status = None;
        }
        self.changes.push(Change::Service(key(name), ServiceView::of(&service, asks)));
        self.before.insert(key(name), status.iter().map(|&ip| ip.to_owned()).collect());
        self
    }

    /// An address that a Service holds and node-1 answers for.
    fn held(mut self, address: &str, service: &str, pool: &str) -> Self {
        let name = announcement_name(address.parse().unwrap());
        let own = if address.contains(':') { "2001:db8:2::1" } else { "192.0.2.1" };
        let announcement: Announcement = object(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Announcement",
            "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "7",
                         "labels": {"part.berth.dev/node-1": "owner"}},
            "spec": {"address": address, "pool": pool,
                     "services": [{"namespace": "shop", "name": service, "uid": format!("uid-{service}")}],
                     "layer2": {"owner": "node-1", "epoch": 1, "members": [
                        {"node": "node-1", "interface": "eth0", "address": own, "mac": "02:00:00:00:00:01"}]}},
            "status": {"layer2": {"owner": "node-1", "epoch": 1, "since": "2026-01-01T00:00:00Z",
                                  "mac": "02:00:00:00:00:01", "interface": "eth0"}},
        }));
        self.changes.push(Change::Announcement(name, Some(AnnouncementView::of(&announcement))));
        self
    }

    /// A Service that holds what its status says.
    fn holder(self, name: &str, address: &str, spec: Value) -> Self {
        let pool = "office";
        self.service(name, Asks::Us, spec, &[address]).held(address, name, pool)
    }

    fn world(&self) -> World {
        let mut world = World::default();
        self.changes.iter().for_each(|change| world.learn(change.clone()));
        world
    }

    fn forecast(&self) -> Forecast {
        forecast(self.world(), &BTreeMap::new(), &self.before, Timestamp::UNIX_EPOCH)
    }

    /// Who is named for every address in the end.
    fn placed(&self) -> BTreeMap<IpAddr, AnnouncementSpec> {
        let others = BTreeMap::new();
        let mut course = Course::new(self.world(), &others, Timestamp::UNIX_EPOCH);
        course.run();
        course.world.announcements().map(|seen| (seen.address, seen.spec())).collect()
    }

    /// `outlook reason before -> after (pools)` of a Service.
    fn becomes(&self, name: &str) -> String {
        let forecast = self.forecast();
        assert_eq!(forecast.unsettled, BTreeSet::new());
        told(&forecast.services[&key(name)])
    }
}

fn told(prospect: &Prospect) -> String {
    let Prospect { pools, before, after, outlook, reason, .. } = prospect;
    let list = |places: &[String]| if places.is_empty() { "-".to_owned() } else { places.join(" ") };
    format!("{outlook:?} {reason} {} -> {} ({})", list(before), list(after), pools.join(" "))
}

fn asks_for(address: &str) -> Value {
    json!({"loadBalancerIP": address})
}

const OFFICE: &[&str] = &["192.0.2.200-192.0.2.201"];

#[test]
fn what_becomes_of_a_service() {
    let office = || Given::nodes().pool("office", OFFICE);
    for (what, given, expected) in [
        (
            "a new one gets the lowest",
            office().service("web", Asks::Us, json!({}), &[]),
            "Gain Allocated - -> 192.0.2.200 (office)",
        ),
        (
            "one that has an address keeps it",
            office().holder("web", "192.0.2.201", json!({})),
            "Keep Allocated 192.0.2.201 -> 192.0.2.201 (office)",
        ),
        (
            "without its Announcement it takes it again",
            office().service("web", Asks::Us, json!({}), &["192.0.2.201"]),
            "Keep Allocated 192.0.2.201 -> 192.0.2.201 (office)",
        ),
        (
            "without its Announcement and outside all pools it gets another",
            office().service("web", Asks::Us, json!({}), &["192.0.2.209"]),
            "Move Allocated 192.0.2.209 -> 192.0.2.200 (office)",
        ),
        (
            "a pool that was cut leaves it what it holds",
            office().holder("web", "192.0.2.209", json!({})),
            "Keep Allocated 192.0.2.209 -> 192.0.2.209 (office)",
        ),
        (
            "one that asks for another gets it",
            office().holder("web", "192.0.2.200", asks_for("192.0.2.201")),
            "Move Allocated 192.0.2.200 -> 192.0.2.201 (office)",
        ),
        (
            "one that asks for what nobody has keeps what it holds",
            office().holder("web", "192.0.2.200", asks_for("198.51.100.1")),
            "Keep AddressOutsidePools 192.0.2.200 -> 192.0.2.200 (office)",
        ),
        (
            "one that asks for what nobody has and holds nothing",
            office().service("web", Asks::Us, asks_for("198.51.100.1"), &[]),
            "Pending AddressOutsidePools - -> - ()",
        ),
        (
            "a full pool",
            office().holder("a", "192.0.2.200", json!({})).holder("b", "192.0.2.201", json!({})).service(
                "web",
                Asks::Us,
                json!({}),
                &[],
            ),
            "Pending PoolExhausted - -> - ()",
        ),
        (
            "what another gives back is given on",
            office()
                .service("a", Asks::Nobody, json!({}), &["192.0.2.200"])
                .held("192.0.2.200", "a", "office")
                .holder("b", "192.0.2.201", json!({}))
                .service("web", Asks::Us, json!({}), &[]),
            "Gain Allocated - -> 192.0.2.200 (office)",
        ),
        (
            "one that asks for nothing any more",
            office().service("web", Asks::Nobody, json!({}), &["192.0.2.200"]).held("192.0.2.200", "web", "office"),
            "Lose Released 192.0.2.200 -> - (office)",
        ),
    ] {
        assert_eq!(given.becomes("web"), expected, "{what}");
    }
}

#[test]
fn what_becomes_of_a_service_with_two_families_or_with_nobody_to_answer() {
    let office = || Given::nodes().pool("office", OFFICE);
    let dual = json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"});
    for (what, given, expected) in [
        (
            "a second family is a gain",
            Given::nodes().pool("office", &["192.0.2.200-192.0.2.201", "2001:db8:2::100"]).holder(
                "web",
                "192.0.2.200",
                dual.clone(),
            ),
            "Gain Allocated 192.0.2.200 -> 192.0.2.200 2001:db8:2::100 (office)",
        ),
        (
            "a family less is a loss",
            office()
                .pool("six", &["2001:db8:2::100"])
                .service("web", Asks::Us, json!({}), &["192.0.2.200", "2001:db8:2::100"])
                .held("192.0.2.200", "web", "office")
                .held("2001:db8:2::100", "web", "six"),
            "Lose Allocated 192.0.2.200 2001:db8:2::100 -> 192.0.2.200 (office)",
        ),
        (
            "an address that no node answers for any more",
            office().advertised(json!({"ipAddressPools": ["other"]})).holder("web", "192.0.2.200", json!({})),
            "Lose NoAdvertisement 192.0.2.200 -> 192.0.2.200 (office)",
        ),
        (
            "an address that no node ever answered for",
            office().advertised(json!({"ipAddressPools": ["other"]})).service(
                "web",
                Asks::Us,
                json!({}),
                &["192.0.2.200"],
            ),
            "Keep Allocated 192.0.2.200 -> 192.0.2.200 (office)",
        ),
        (
            "another provider's, of which nothing is known",
            office().service("web", Asks::AnotherProvider, json!({}), &["203.0.113.1"]),
            "Keep Provisioning 203.0.113.1 -> 203.0.113.1 ()",
        ),
    ] {
        assert_eq!(given.becomes("web"), expected, "{what}");
    }
}

#[test]
fn services_that_share_come_and_go_one_after_the_other() {
    let shares = |port: u16| json!({"sharesBy": "k", "ports": [{"port": port}]});
    let given = Given::nodes()
        .pool("office", &["192.0.2.200-192.0.2.201"])
        .service("one", Asks::Us, shares(80), &[])
        .service("two", Asks::Us, shares(81), &[])
        .service("three", Asks::Us, shares(82), &[])
        .service("four", Asks::Us, shares(80), &[])
        .service("five", Asks::Us, shares(80), &[]);
    // In the order of their names: one address for each that has port 80, and the other ports beside the first.
    for (name, becomes) in [
        ("five", "Gain Allocated - -> 192.0.2.200 (office)"),
        ("four", "Gain Allocated - -> 192.0.2.201 (office)"),
        ("one", "Pending PoolExhausted - -> - ()"),
        ("three", "Gain Allocated - -> 192.0.2.200 (office)"),
        ("two", "Gain Allocated - -> 192.0.2.200 (office)"),
    ] {
        assert_eq!(given.becomes(name), becomes, "{name}");
    }
}

#[test]
fn an_address_that_is_given_back_cools_down_where_the_pool_wishes_it() {
    for (seconds, expected) in
        [(0, "Gain Allocated - -> 192.0.2.200 (office)"), (60, "Pending PoolExhausted - -> - ()")]
    {
        let given = Given::nodes()
            .pool_with("office", &json!({"addresses": ["192.0.2.200"], "coolDownSeconds": seconds}))
            .held("192.0.2.200", "gone", "office")
            .service("web", Asks::Us, json!({}), &[]);
        assert_eq!(given.becomes("web"), expected, "{seconds}");
    }
}

#[test]
fn what_has_cooled_down_by_now_is_free_whatever_the_status_of_the_pool_says() {
    for (until, expected) in [(0, "Gain Allocated - -> 192.0.2.200 (office)"), (1, "Pending PoolExhausted - -> - ()")] {
        let given = Given::nodes().pool("office", &["192.0.2.200"]).service("web", Asks::Us, json!({}), &[]);
        let given = given.cooling("office", "192.0.2.200", until);
        assert_eq!(given.becomes("web"), expected, "until {until} s after now");
    }
}

#[test]
fn a_service_that_is_gone_gives_back_what_it_held_and_others_get_it() {
    let mut given = Given::nodes().pool("office", &["192.0.2.200"]).held("192.0.2.200", "gone", "office").service(
        "web",
        Asks::Us,
        json!({}),
        &[],
    );
    given.before.insert(key("gone"), vec!["192.0.2.200".to_owned()]);
    assert_eq!(given.becomes("gone"), "Lose Released 192.0.2.200 -> - (office)");
    assert_eq!(given.becomes("web"), "Gain Allocated - -> 192.0.2.200 (office)");
}

#[test]
fn nobody_is_told_of_who_was_never_served() {
    let mut given = Given::nodes();
    given.before.insert(key("other"), vec!["198.51.100.1".to_owned()]);
    assert_eq!(given.forecast().services, BTreeMap::new());
}

#[test]
fn of_many_who_wait_the_oldest_are_served_first_and_then_by_name() {
    let given = Given::nodes()
        .pool("office", OFFICE)
        .service_of("young", Asks::Us, 30, json!({}), &[])
        .service_of("b", Asks::Us, 20, json!({}), &[])
        .service_of("a", Asks::Us, 20, json!({}), &[])
        .service_of("old", Asks::Us, 10, json!({}), &[]);
    for (name, expected) in [
        ("old", "Gain Allocated - -> 192.0.2.200 (office)"),
        ("a", "Gain Allocated - -> 192.0.2.201 (office)"),
        ("b", "Pending PoolExhausted - -> - ()"),
        ("young", "Pending PoolExhausted - -> - ()"),
    ] {
        assert_eq!(given.becomes(name), expected);
    }
}

#[test]
fn what_is_moved_away_from_is_free_in_the_end() {
    let given = Given::nodes().pool("office", OFFICE).holder("web", "192.0.2.200", asks_for("192.0.2.201"));
    let pools = given.forecast().pools;
    let expected = PoolProspect { name: "office".to_owned(), total: 2, used: 1, free: 1, problems: Vec::new() };
    assert_eq!(pools, [expected]);
}

#[test]
fn one_who_waits_gets_what_another_moves_away_from() {
    let given = Given::nodes().pool("office", OFFICE).holder("moves", "192.0.2.200", asks_for("192.0.2.201")).service(
        "web",
        Asks::Us,
        json!({}),
        &[],
    );
    assert_eq!(given.becomes("moves"), "Move Allocated 192.0.2.200 -> 192.0.2.201 (office)");
    assert_eq!(given.becomes("web"), "Gain Allocated - -> 192.0.2.200 (office)");
}

#[test]
fn a_pool_says_what_is_left_and_what_is_wrong_with_it() {
    let given = Given::nodes()
        .pool("bad", &["192.0.2.9-192.0.2.1"])
        .pool("huge", &["2001:db8:9::/48"])
        .pool("office", &["192.0.2.0/29"])
        .service("web", Asks::Us, json!({}), &[]);
    let said: Vec<_> = given
        .forecast()
        .pools
        .into_iter()
        .map(|p| {
            let problems: Vec<_> = p.problems.iter().map(|(reason, _)| reason.as_str()).collect();
            format!("{} {} {} {} {}", p.name, p.total, p.used, p.free, problems.join(" "))
        })
        .collect();
    let huge = 1_u128 << 80;
    // 192.0.2.0 is the network's own, .1 and .2 are nodes'.
    let expected =
        ["bad 0 0 0 RangeReversed".to_owned(), format!("huge {huge} 0 {huge} "), "office 8 1 4 NodeAddress".to_owned()];
    assert_eq!(said, expected);
}

#[test]
fn what_another_provider_says_is_published_when_its_request_is_met() {
    let given = Given::nodes()
        .pool("office", OFFICE)
        .service("web", Asks::AnotherProvider, json!({}), &["192.0.2.200"])
        .held("192.0.2.200", "web", "office");
    let mut world = World::default();
    given.changes.iter().for_each(|change| world.learn(change.clone()));
    let says = |met| {
        let ingress =
            vec![LoadBalancerIngress { hostname: Some("lb.example.com".to_owned()), ..LoadBalancerIngress::default() }];
        let condition = Condition {
            kind: types::ALLOCATED,
            status: ConditionStatus::True,
            reason: Reason::Allocated,
            message: "made".to_owned(),
        };
        BTreeMap::from([(key("web"), Outcome { ingress, conditions: vec![condition], met, look_again: None })])
    };
    for (met, expected, used) in [
        (true, "Lose Allocated 192.0.2.200 -> lb.example.com ()", 0),
        // What the status names goes on being announced.
        (false, "Keep Allocated 192.0.2.200 -> 192.0.2.200 ()", 1),
    ] {
        let forecast = forecast(world.clone(), &says(met), &given.before, Timestamp::UNIX_EPOCH);
        let prospect = Prospect { pools: Vec::new(), ..forecast.services[&key("web")].clone() };
        assert_eq!((told(&prospect).as_str(), forecast.pools[0].used), (expected, used), "met: {met}");
    }
}

#[test]
fn where_one_is_reached_and_will_be() {
    use Outlook::{Gain, Keep, Lose, Move, Pending};
    for (before, after, outlook) in [
        ("", "", Pending),
        ("", "192.0.2.1", Gain),
        ("192.0.2.1", "192.0.2.1", Keep),
        ("192.0.2.1", "192.0.2.2", Move),
        ("192.0.2.1", "", Lose),
        ("192.0.2.1", "2001:db8::1", Lose),
        ("192.0.2.1", "192.0.2.1 2001:db8::1", Gain),
        ("192.0.2.1 2001:db8::1", "2001:db8::1 192.0.2.1", Keep),
        ("192.0.2.1 2001:db8::1", "192.0.2.1", Lose),
        ("192.0.2.1 2001:db8::1", "192.0.2.2", Lose),
        ("192.0.2.1 2001:db8::1", "192.0.2.1 2001:db8::2", Move),
        ("192.0.2.1", "192.0.2.2 2001:db8::1", Move),
        ("lb.example.com", "lb.example.com", Keep),
        ("lb.example.com", "lb.example.org", Move),
        ("192.0.2.1", "lb.example.org", Lose),
    ] {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(Outlook::of(&list(before), &list(after)), outlook, "{before} -> {after}");
        assert_eq!(outlook.breaks(), matches!(outlook, Lose | Move));
    }
}

/// A cluster of a few Services who want much of little, some of whom have something.
fn crowd() -> impl Strategy<Value = Given> {
    let request = prop_oneof![
        3 => Just(json!({})),
        1 => Just(json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"})),
        1 => Just(json!({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"})),
        2 => (80..82_u16).prop_map(|port| json!({"sharesBy": "k", "ports": [{"port": port}]})),
        1 => (200..206_u8).prop_map(|n| asks_for(&format!("192.0.2.{n}"))),
    ];
    let asks = prop_oneof![6 => Just(Asks::Us), 1 => Just(Asks::Nobody), 1 => Just(Asks::AnotherProvider)];
    // What one has: nothing, an address in its status, one that it holds beside.
    let service = (asks, request, 0..3_i64, 0..3_u8);
    let services = proptest::collection::vec(service, 1..8);
    let cooling = proptest::collection::vec((200..206_u8, -1..2_i64), 0..3);
    let shape = (200..205_u8, proptest::bool::ANY, proptest::bool::ANY, cooling);
    (services, shape).prop_map(|(services, (last, six, covered, cooling))| {
        let mut given =
            Given::nodes().pool("office", &[&format!("192.0.2.200-192.0.2.{last}")]).pool("cut", &["192.0.2.205"]);
        for (address, until) in cooling {
            given = given.cooling("office", &format!("192.0.2.{address}"), until);
        }
        if six {
            given = given.pool("six", &["2001:db8:2::100-2001:db8:2::101"]);
        }
        if !covered {
            given = given.advertised(json!({"ipAddressPools": ["six"]}));
        }
        for (n, (asks, spec, created, has)) in services.into_iter().enumerate() {
            let (name, address) = (format!("s{n}"), format!("192.0.2.{}", 200 + n));
            let status = if has == 0 { Vec::new() } else { vec![address.as_str()] };
            given = given.service_of(&name, asks, created, spec, &status);
            if has == 2 {
                given = given.held(&address, &name, "office");
            }
        }
        given
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_in_which_objects_are_learned_does_not_matter(
        (given, shuffled) in crowd().prop_flat_map(|given| {
            let changes = Just(given.changes.clone()).prop_shuffle();
            (Just(given), changes)
        })
    ) {
        let other = Given { changes: shuffled, ..given.clone() };
        prop_assert_eq!(given.forecast(), other.forecast());
        prop_assert_eq!(given.placed(), other.placed());
    }

    #[test]
    fn it_comes_to_an_end_in_which_no_address_is_given_twice(given in crowd()) {
        let forecast = given.forecast();
        prop_assert!(forecast.unsettled.is_empty());
        let view = |key: &ServiceKey| {
            given.changes.iter().find_map(|change| match change {
                Change::Service(k, Some(view)) if k == key => Some(view),
                _ => None,
            })
        };
        let ours = forecast.services.iter().filter(|(key, _)| view(key).is_none_or(|view| view.asks != Asks::AnotherProvider));
        let mut given_out: Vec<(&ServiceKey, &String)> = Vec::new();
        for (key, place) in ours.flat_map(|(key, prospect)| prospect.after.iter().map(move |place| (key, place))) {
            for (other, _) in given_out.iter().filter(|(_, given)| *given == place) {
                let terms = |key| view(key).and_then(|view| view.sharing.as_ref());
                let may = may_share((key, terms(key)), (other, terms(other)), SharingScope::Cluster);
                prop_assert_eq!(may, Ok(()), "{} is given twice: {:?}", place, forecast);
            }
            given_out.push((key, place));
        }
    }
}
