//! What is to be changed in the kernel so that it has the routes and addresses that the controller wishes, and no other with our mark.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::crd::{RouteAssignment, RouteForm, RouteRefusal};
use ipnet::IpNet;

/// The number by which routes and addresses are known as Berth's (`rtm_protocol`, `IFA_PROTO`). It has to be nobody else's, because what
/// bears it is deleted when no Announcement wishes it: iproute2 names 0 to 18, 42, 99 and 186 to 192, FRR takes its own for 186 to 198 and
/// would pass over what has one of these, and of those who use numbers without a name, Calico has 80 and kube-vip 248.
pub const PROTOCOL: u8 = 166;

/// The routing table where none is named (`RT_TABLE_MAIN`).
const MAIN_TABLE: u32 = 254;
/// The metric that the kernel gives to an IPv6 route without one (`IP6_RT_PRIO_USER`). An IPv4 route without one has 0.
const IPV6_METRIC: u32 = 1_024;

/// How many interfaces a message names.
const NAMED_INTERFACES: usize = 5;

/// Everything that is wished of this node, in ways without nodes.
pub type Wishes = BTreeMap<IpAddr, Vec<RouteAssignment>>;

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// All interfaces, by name.
    pub links: BTreeMap<String, u32>,
    /// All addresses.
    pub addresses: Vec<Held>,
    /// The routes that bear our mark.
    pub routes: BTreeSet<Route>,
    /// The interface that the default route of IPv4 leads to, and of IPv6.
    pub ways_out: [Option<u32>; 2],
    /// What counts of `arp_ignore` on each interface.
    pub arp_ignore: BTreeMap<u32, u32>,
    /// Whether it can mark addresses.
    pub marks_addresses: bool,
}

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The interface.
    pub interface: u32,
    /// The address with its subnet.
    pub net: IpNet,
    /// Whether it bears our mark.
    pub ours: bool,
}

/// A host route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where it leads to.
    pub address: IpAddr,
    /// The table that it is in.
    pub table: u32,
    /// Its metric.
    pub metric: u32,
    /// The interface.
    pub interface: u32,
}

impl Route {
    /// Two that have this in common cannot both be there.
    fn key(&self) -> (IpAddr, u32, u32) {
        (self.address, self.table, self.metric)
    }
}

/// A change in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Add a route, unless somebody has it.
    AddRoute(Route),
    /// Let one of ours lead to another interface.
    ReplaceRoute(Route),
    /// Put an address on an interface.
    AddAddress(IpAddr, u32),
    /// Take one of ours from it.
    RemoveAddress(IpAddr, u32),
    /// Delete one of ours.
    RemoveRoute(Route),
}

impl Step {
    /// The address that it is about.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::AddRoute(route) | Self::ReplaceRoute(route) | Self::RemoveRoute(route) => route.address,
            Self::AddAddress(address, _) | Self::RemoveAddress(address, _) => *address,
        }
    }
}

/// Why an address is not routed: as a code, and for a person.
pub type Refused = (RouteRefusal, String);

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order: what is new comes before what goes.
    pub steps: Vec<Step>,
    /// What cannot be, and is not tried.
    pub refused: BTreeMap<IpAddr, Refused>,
}

/// What is wished, as the kernel would have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Route(Route),
    Address(IpAddr, u32),
}

/// Plans. Of two ways that would have the same route lead to different interfaces, the first counts.
pub fn plan(wishes: &Wishes, facts: &Facts) -> Plan {
    let mut refused = BTreeMap::new();
    let (mut routes, mut addresses) = (BTreeMap::new(), BTreeSet::new());
    for (address, ways) in wishes {
        for way in ways {
            match entry(*address, way, facts) {
                Ok(Entry::Route(route)) => {
                    routes.entry(route.key()).or_insert(route);
                }
                Ok(Entry::Address(address, interface)) => {
                    addresses.insert((address, interface));
                }
                Err(why) => {
                    refused.entry(*address).or_insert(why);
                }
            }
        }
    }
    let ours: BTreeMap<_, _> = facts.routes.iter().map(|route| (route.key(), *route)).collect();
    let held: BTreeSet<_> =
        facts.addresses.iter().filter(|held| held.ours).map(|h| (h.net.addr(), h.interface)).collect();
    let new = routes.iter().filter_map(|(key, route)| match ours.get(key) {
        Some(known) if known == route => None,
        Some(_) => Some(Step::ReplaceRoute(*route)),
        None => Some(Step::AddRoute(*route)),
    });
    let put = addresses.difference(&held).map(|(address, interface)| Step::AddAddress(*address, *interface));
    let taken = held.difference(&addresses).map(|(address, interface)| Step::RemoveAddress(*address, *interface));
    // Of two of ours under one key, which the kernel does not allow, the one that is not known here goes next time.
    let gone = ours.iter().filter(|(key, _)| !routes.contains_key(*key)).map(|(_, route)| Step::RemoveRoute(*route));
    Plan { steps: new.chain(put).chain(taken).chain(gone).collect(), refused }
}

fn entry(address: IpAddr, way: &RouteAssignment, facts: &Facts) -> Result<Entry, Refused> {
    let named = way.interface.as_ref().map(|name| {
        let index = facts.links.get(name).copied();
        index.ok_or_else(|| (RouteRefusal::RouteInterfaceMissing, format!("there is no interface {name}")))
    });
    match (way.form, named.transpose()?) {
        (RouteForm::Route, named) => {
            let table = way.table.unwrap_or(MAIN_TABLE);
            let metric = way.metric.unwrap_or(if address.is_ipv4() { 0 } else { IPV6_METRIC });
            // A default route that is away for a moment takes nothing along.
            let known = || facts.routes.iter().find(|route| route.key() == (address, table, metric));
            let way_out = facts.ways_out[usize::from(address.is_ipv6())].or_else(|| known().map(|r| r.interface));
            let interface = named.or(way_out).ok_or_else(|| {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                (
                    RouteRefusal::RouteInterfaceMissing,
                    format!("no interface is named, and there is no default route of {family}"),
                )
            })?;
            Ok(Entry::Route(Route { address, table, metric, interface }))
        }
        (RouteForm::Address, None) => {
            Err((RouteRefusal::RouteInterfaceMissing, "no interface is named to put the address on".to_owned()))
        }
        (RouteForm::Address, Some(interface)) => {
            may_hold(address, interface, facts).map(|()| Entry::Address(address, interface))
        }
    }
}

/// Whether an address may be put on an interface. Every node that routes it has it then, so none may answer for it on a link.
fn may_hold(address: IpAddr, interface: u32, facts: &Facts) -> Result<(), Refused> {
    if !facts.marks_addresses {
        let message =
            "the kernel is older than 5.18, so an address of Berth's could not be told from others".to_owned();
        return Err((RouteRefusal::KernelTooOld, message));
    }
    let name = |index: u32| {
        let known = facts.links.iter().find(|(_, known)| **known == index);
        known.map_or_else(|| index.to_string(), |(name, _)| name.clone())
    };
    if let Some(other) = facts.addresses.iter().find(|held| !held.ours && held.net.addr() == address) {
        let message = format!("{} is on {} already, and not by Berth", address, name(other.interface));
        return Err((RouteRefusal::RouteTaken, message));
    }
    let is_host = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
    let on_link: BTreeSet<u32> = facts
        .addresses
        .iter()
        .filter(|held| !held.ours && !is_host(&held.net) && held.net.contains(&address))
        .map(|held| held.interface)
        .collect();
    // No setting but one that keeps the node itself from being found has the kernel silent on the interface that has the address.
    if on_link.contains(&interface) {
        let message = format!(
            "{address} is of the subnet of {0}, where every node that has it on {0} answers for it",
            name(interface)
        );
        return Err((RouteRefusal::OnLinkAddress, message));
    }
    // Neighbor discovery answers for what the asked interface has, whatever is set.
    let answers = |index: &&u32| address.is_ipv4() && facts.arp_ignore.get(*index).copied().unwrap_or_default() == 0;
    let answering: Vec<_> = on_link.iter().filter(answers).take(NAMED_INTERFACES).map(|index| name(*index)).collect();
    if answering.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{address} is of the subnet of {0}, where arp_ignore is 0, so the kernel answers ARP for it",
        answering.join(", ")
    );
    Err((RouteRefusal::OnLinkAddress, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: &str = "203.0.113.10";
    const VIP6: &str = "2001:db8:77::10";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn held(interface: u32, net: &str, ours: bool) -> Held {
        Held { interface, net: net.parse().unwrap(), ours }
    }

    /// eth0 is 2 and leads out, stub0 is 3; ours are the routes named by `address table metric interface`.
    fn facts(routes: &[&str]) -> Facts {
        let parse = |text: &&str| {
            let words: Vec<_> = text.split(' ').collect();
            let number = |at: usize| words[at].parse().unwrap();
            Route { address: ip(words[0]), table: number(1), metric: number(2), interface: number(3) }
        };
        Facts {
            links: BTreeMap::from([("eth0".to_owned(), 2), ("stub0".to_owned(), 3)]),
            addresses: vec![held(2, "192.0.2.11/24", false), held(2, "2001:db8:2::11/64", false)],
            routes: routes.iter().map(parse).collect(),
            ways_out: [Some(2), Some(2)],
            arp_ignore: BTreeMap::from([(2, 0), (3, 0)]),
            marks_addresses: true,
        }
    }

    fn way() -> RouteAssignment {
        RouteAssignment::default()
    }

    fn on(interface: &str) -> RouteAssignment {
        RouteAssignment { form: RouteForm::Address, interface: Some(interface.to_owned()), ..way() }
    }

    fn wish(address: &str, way: RouteAssignment) -> Wishes {
        Wishes::from([(ip(address), vec![way])])
    }

    /// `add 203.0.113.10 254 0 2` and the like; refusals as their code.
    fn told(wishes: &Wishes, facts: &Facts) -> String {
        let Plan { steps, refused } = plan(wishes, facts);
        let of = |route: Route| format!("{} {} {} {}", route.address, route.table, route.metric, route.interface);
        let steps = steps.into_iter().map(|step| match step {
            Step::AddRoute(route) => format!("add {}", of(route)),
            Step::ReplaceRoute(route) => format!("replace {}", of(route)),
            Step::RemoveRoute(route) => format!("remove {}", of(route)),
            Step::AddAddress(address, interface) => format!("put {address} {interface}"),
            Step::RemoveAddress(address, interface) => format!("take {address} {interface}"),
        });
        let refused = refused.into_iter().map(|(address, (why, _))| format!("refuse {address} {why:?}"));
        steps.chain(refused).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_host_route_leads_to_the_named_interface_or_to_that_of_the_default_route() {
        let named = RouteAssignment { interface: Some("stub0".to_owned()), ..way() };
        let other = RouteAssignment { table: Some(100), metric: Some(7), ..way() };
        for (what, address, way, expected) in [
            ("of IPv4", VIP, way(), "add 203.0.113.10 254 0 2"),
            ("of IPv6, which has a metric of its own", VIP6, way(), "add 2001:db8:77::10 254 1024 2"),
            ("by a named interface", VIP, named.clone(), "add 203.0.113.10 254 0 3"),
            ("in another table", VIP6, other, "add 2001:db8:77::10 100 7 2"),
            ("of an address on the link", "192.0.2.200", way(), "add 192.0.2.200 254 0 2"),
            (
                "by an interface that is not there",
                VIP,
                RouteAssignment { interface: Some("gone0".to_owned()), ..way() },
                "refuse 203.0.113.10 RouteInterfaceMissing",
            ),
        ] {
            assert_eq!(told(&wish(address, way), &facts(&[])), expected, "{what}");
        }
        let without = Facts { ways_out: [None, Some(2)], ..facts(&[]) };
        assert_eq!(told(&wish(VIP, way()), &without), "refuse 203.0.113.10 RouteInterfaceMissing");
        assert_eq!(told(&wish(VIP6, way()), &without), "add 2001:db8:77::10 254 1024 2");
        assert_eq!(told(&wish(VIP, named), &without), "add 203.0.113.10 254 0 3");
    }

    #[test]
    fn what_is_there_stays_and_what_nobody_wishes_goes_after_what_is_new() {
        let both = Wishes::from([(ip(VIP), vec![way()]), (ip(VIP6), vec![way()])]);
        let v6 = "2001:db8:77::10 254 1024 2";
        for (what, wishes, routes, expected) in [
            ("all there", &both, &["203.0.113.10 254 0 2", v6][..], ""),
            ("one there", &both, &[v6], "add 203.0.113.10 254 0 2"),
            (
                "one that nobody wishes",
                &both,
                &["203.0.113.10 254 0 2", v6, "203.0.113.9 254 0 2"],
                "remove 203.0.113.9 254 0 2",
            ),
            ("by another interface", &both, &["203.0.113.10 254 0 3", v6], "replace 203.0.113.10 254 0 2"),
            (
                "by another metric",
                &both,
                &["203.0.113.10 254 5 2", v6],
                "add 203.0.113.10 254 0 2, remove 203.0.113.10 254 5 2",
            ),
            ("nothing wished", &Wishes::new(), &[v6], "remove 2001:db8:77::10 254 1024 2"),
        ] {
            assert_eq!(told(wishes, &facts(routes)), expected, "{what}");
        }
        let without = Facts { ways_out: [None, None], ..facts(&["203.0.113.10 254 0 2"]) };
        assert_eq!(told(&wish(VIP, way()), &without), "", "a default route that is away takes nothing along");
    }

    #[test]
    fn two_ways_are_two_routes_unless_the_kernel_has_room_for_one() {
        let ways = |all: Vec<RouteAssignment>| Wishes::from([(ip(VIP), all)]);
        let table = RouteAssignment { table: Some(9), ..way() };
        let stub = RouteAssignment { interface: Some("stub0".to_owned()), ..way() };
        assert_eq!(told(&ways(vec![way(), table]), &facts(&[])), "add 203.0.113.10 9 0 2, add 203.0.113.10 254 0 2");
        assert_eq!(told(&ways(vec![way(), stub.clone()]), &facts(&[])), "add 203.0.113.10 254 0 2");
        let one_fails = ways(vec![RouteAssignment { interface: Some("gone0".to_owned()), ..way() }, stub]);
        assert_eq!(
            told(&one_fails, &facts(&[])),
            "add 203.0.113.10 254 0 3, refuse 203.0.113.10 RouteInterfaceMissing"
        );
    }

    #[test]
    fn an_address_is_put_on_an_interface_and_taken_from_it() {
        let with = |more: Held| Facts { addresses: [facts(&[]).addresses, vec![more]].concat(), ..facts(&[]) };
        for (what, wishes, facts, expected) in [
            ("a new one", wish(VIP, on("stub0")), facts(&[]), "put 203.0.113.10 3"),
            ("a new one of IPv6", wish(VIP6, on("stub0")), facts(&[]), "put 2001:db8:77::10 3"),
            ("one that is there", wish(VIP, on("stub0")), with(held(3, "203.0.113.10/32", true)), ""),
            ("one that nobody wishes", Wishes::new(), with(held(3, "203.0.113.10/32", true)), "take 203.0.113.10 3"),
            (
                "one on another interface",
                wish(VIP, on("stub0")),
                with(held(2, "203.0.113.10/32", true)),
                "put 203.0.113.10 3, take 203.0.113.10 2",
            ),
            (
                "one that somebody else has",
                wish(VIP, on("stub0")),
                with(held(3, "203.0.113.10/32", false)),
                "refuse 203.0.113.10 RouteTaken",
            ),
            (
                "one that nobody wishes and somebody else has",
                Wishes::new(),
                with(held(3, "203.0.113.10/32", false)),
                "",
            ),
            ("no interface", wish(VIP, on("gone0")), facts(&[]), "refuse 203.0.113.10 RouteInterfaceMissing"),
            (
                "an old kernel",
                wish(VIP, on("stub0")),
                Facts { marks_addresses: false, ..facts(&[]) },
                "refuse 203.0.113.10 KernelTooOld",
            ),
            (
                "a route in place of it",
                wish(VIP, way()),
                with(held(3, "203.0.113.10/32", true)),
                "add 203.0.113.10 254 0 2, take 203.0.113.10 3",
            ),
        ] {
            assert_eq!(told(&wishes, &facts), expected, "{what}");
        }
    }

    #[test]
    fn an_address_of_a_subnet_is_refused_where_the_kernel_would_answer_for_it() {
        let near = "192.0.2.200";
        let with = |eth0: u32, stub0: u32| Facts { arp_ignore: BTreeMap::from([(2, eth0), (3, stub0)]), ..facts(&[]) };
        let ours = |facts: Facts| Facts {
            addresses: [facts.addresses, vec![held(3, "192.0.2.200/32", true)]].concat(),
            ..facts
        };
        for (what, wishes, facts, expected) in [
            ("arp_ignore 0", wish(near, on("stub0")), with(0, 0), "refuse 192.0.2.200 OnLinkAddress"),
            ("arp_ignore 1 where nobody asks", wish(near, on("stub0")), with(0, 1), "refuse 192.0.2.200 OnLinkAddress"),
            ("arp_ignore 1 where it is asked for", wish(near, on("stub0")), with(1, 0), "put 192.0.2.200 3"),
            ("arp_ignore 2", wish(near, on("stub0")), with(2, 0), "put 192.0.2.200 3"),
            ("on the very interface", wish(near, on("eth0")), with(1, 1), "refuse 192.0.2.200 OnLinkAddress"),
            ("of IPv6, elsewhere", wish("2001:db8:2::200", on("stub0")), with(0, 0), "put 2001:db8:2::200 3"),
            (
                "of IPv6, on the very interface",
                wish("2001:db8:2::200", on("eth0")),
                with(1, 1),
                "refuse 2001:db8:2::200 OnLinkAddress",
            ),
            (
                "arp_ignore that became 0 while it is there",
                wish(near, on("stub0")),
                ours(with(0, 0)),
                "take 192.0.2.200 3, refuse 192.0.2.200 OnLinkAddress",
            ),
            ("arp_ignore 1 while it is there", wish(near, on("stub0")), ours(with(1, 0)), ""),
        ] {
            assert_eq!(told(&wishes, &facts), expected, "{what}");
        }
    }
}
