//! Free addresses that nodes ask for ahead of need.

use super::cluster::Cluster;
use super::*;

const MAC: &str = "02:00:00:00:00:99";

/// Which nodes are to ask for other addresses than they do, with the last number of each.
fn told(cluster: &mut Cluster) -> BTreeMap<String, Vec<String>> {
    let last = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.octets()[3].to_string(),
        IpAddr::V6(v6) => format!(":{:x}", v6.segments()[7]),
    };
    cluster.world.sweeps().into_iter().map(|(node, list)| (node, list.iter().map(last).collect())).collect()
}

/// The nodes do what they are told.
fn obey(cluster: &mut Cluster) {
    for (node, list) in cluster.world.sweeps() {
        let n = node.rsplit('-').next().unwrap().parse().unwrap();
        cluster.report(n, &list, &[]);
    }
    assert_eq!(told(cluster), BTreeMap::new(), "told once");
}

#[test]
fn one_node_asks_for_the_next_free_addresses_and_is_told_others_once_for_several_services() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.210"]);
    let first = told(&mut cluster);
    let numbers = |range: std::ops::RangeInclusive<u8>| range.map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!((first.len(), first.values().next()), (1, Some(&numbers(200..=207))), "{first:?}");
    let node = first.keys().next().cloned().unwrap();
    obey(&mut cluster);
    for n in 0..5 {
        cluster.apply(&format!("s{n}"), json!({}));
        cluster.settle(None);
        let expected = if n < 4 { BTreeMap::new() } else { BTreeMap::from([(node.clone(), numbers(205..=210))]) };
        assert_eq!(told(&mut cluster), expected, "{n}");
    }
    obey(&mut cluster);
    // The lowest is the next again when it is given back, so it is asked for.
    cluster.delete("s0");
    cluster.settle(None);
    let next: Vec<_> = ["200"].into_iter().map(str::to_owned).chain(numbers(205..=210)).collect();
    assert_eq!(told(&mut cluster), BTreeMap::from([(node.clone(), next)]));
    obey(&mut cluster);
    // Nobody asks for a pool that gives nothing, or that nobody announces.
    cluster.pool_with("default", json!({"addresses": ["192.0.2.200-192.0.2.210"], "disabled": true}));
    cluster.settle(None);
    assert_eq!(told(&mut cluster), BTreeMap::from([(node.clone(), vec![])]));
    cluster.pool_with("default", json!({"addresses": ["192.0.2.200-192.0.2.210"]}));
    cluster.settle(None);
    assert_eq!(told(&mut cluster), BTreeMap::new());
    cluster.advertise(json!({"ipAddressPools": ["other"]}));
    cluster.settle(None);
    assert_eq!(told(&mut cluster), BTreeMap::from([(node, vec![])]));
}

#[test]
fn each_family_and_pool_is_asked_for_by_a_node_that_is_on_its_link() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.201", "2001:db8:2::200-2001:db8:2::201"]);
    cluster.pool("elsewhere", &["198.51.100.0/24"]);
    cluster.settle(None);
    let mut all: Vec<_> = told(&mut cluster).into_values().flatten().collect();
    all.sort();
    assert_eq!(all, ["200", "201", ":200", ":201"]);
}

#[test]
fn what_a_node_finds_is_in_quarantine_before_anybody_is_given_it_but_not_what_is_held_or_is_a_nodes() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.210"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    let node2 = "02:00:00:00:00:02";
    // Of 192.0.2.203 it was not told to say anything.
    let asked = ["192.0.2.200", "192.0.2.201", "192.0.2.202", "198.51.100.9"].map(|address| address.parse().unwrap());
    let had = |address| (address, MAC);
    let found =
        [had("192.0.2.203"), had("192.0.2.200"), had("192.0.2.201"), ("192.0.2.202", node2), had("198.51.100.9")];
    cluster.report(1, &asked, &found);
    cluster.settle(None);
    cluster.write_pools();
    assert_eq!(cluster.quarantined(), [format!("192.0.2.201 {MAC} 300")]);
    cluster.apply("two", json!({}));
    cluster.settle(None);
    assert_eq!(cluster.ingress("two").as_deref(), Some("192.0.2.202"));
    assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.200"));

    // Its time passes while it is found all the same: it is not given in between.
    cluster.now += 300;
    cluster.world.expire(cluster.now);
    cluster.settle(None);
    cluster.write_pools();
    assert_eq!(cluster.quarantined(), [format!("192.0.2.201 {MAC} 600")]);
    // And once it is not, it is.
    cluster.report(1, &[], &[]);
    cluster.now += 600;
    cluster.world.expire(cluster.now);
    cluster.apply("three", json!({}));
    cluster.settle(None);
    assert_eq!(cluster.ingress("three").as_deref(), Some("192.0.2.201"));
}

/// A change of the cluster.
type Change = fn(&mut Cluster);

#[test]
fn what_nodes_are_to_ask_for_is_looked_at_again_after_each_change_that_it_may_follow_from_and_after_no_other() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.210"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    let (all, told) = (cluster.world.sweeps(), cluster.world.changed_sweeps());
    assert_eq!((told.len(), &told), (1, &all));
    // Not written yet, and nothing has changed.
    assert_eq!((cluster.world.changed_sweeps(), cluster.world.sweeps()), (BTreeMap::new(), all.clone()));
    cluster.world.sweep_again();
    assert_eq!(cluster.world.changed_sweeps(), all, "it could not be written");
    let changes: [(&str, Change); 5] = [
        ("addresses are given out", |cluster| (0..5).for_each(|n| cluster.apply(&format!("s{n}"), json!({})))),
        ("one is given back", |cluster| cluster.delete("s0")),
        ("a pool gives nothing", |cluster| {
            cluster.pool_with("default", json!({"addresses": ["192.0.2.200-192.0.2.210"], "disabled": true}));
        }),
        ("it gives again", |cluster| cluster.pool_with("default", json!({"addresses": ["192.0.2.200-192.0.2.210"]}))),
        ("nobody announces it", |cluster| cluster.advertise(json!({"ipAddressPools": ["other"]}))),
    ];
    for (what, change) in changes {
        obey(&mut cluster);
        cluster.world.changed_sweeps();
        cluster.endpoints("web", &["node-1"]);
        cluster.label("web", json!({"some": what.replace(' ', "-")}));
        cluster.settle(None);
        assert_eq!(cluster.world.changed_sweeps(), BTreeMap::new(), "before {what}");
        change(&mut cluster);
        cluster.settle(None);
        let told = cluster.world.changed_sweeps();
        assert!(!told.is_empty(), "{what}");
        assert_eq!(told, cluster.world.sweeps(), "{what}");
    }
}
