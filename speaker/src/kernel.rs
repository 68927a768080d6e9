//! Settings of the node's kernel that break what is announced: what IPVS needs of `arp_ignore`, and a strict `rp_filter` on an interface
//! over which the node's default route does not lead.
//!
//! Read from `/proc`, which shows these of the network namespace of who reads them; nothing is ever set.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use berth_api::crd::{KERNEL_TRAPS_MAX, KernelTrap, Trap};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::links::Links;

/// Where the kernel has the settings of IPv4, a directory for each interface.
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";
/// Where the kernel has the IPv4 routes of the main table, one in a line.
const ROUTES: &str = "/proc/thread-self/net/route";
/// On this interface kube-proxy has the addresses of all Services in its IPVS mode.
const IPVS_INTERFACE: &str = "kube-ipvs0";
/// Between two looks. Nothing tells that a setting has changed; this is three small reads for each interface that can announce.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// `rp_filter`: a packet is dropped unless the way back leads over the interface that it came by (Linux, networking/ip-sysctl; RFC 3704).
const STRICT: u32 = 1;
/// Flag of a route that says that there is no way.
const RTF_REJECT: u32 = 0x200;

/// Settings of an interface, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// From 1 on the kernel answers ARP only for addresses of the interface that is asked.
    pub arp_ignore: u32,
    /// 0 off, 1 strict, 2 loose.
    pub rp_filter: u32,
}

impl Settings {
    /// What counts on an interface: of both settings the higher of its own and that of all (Linux, networking/ip-sysctl).
    fn with(self, all: Self) -> Self {
        Self { arp_ignore: self.arp_ignore.max(all.arp_ignore), rp_filter: self.rp_filter.max(all.rp_filter) }
    }
}

/// What is known of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether kube-proxy has addresses on an interface of its own.
    pub has_ipvs: bool,
    /// What counts on each interface that can announce IPv4 addresses.
    pub interfaces: BTreeMap<String, Settings>,
    /// The interfaces over which default routes of IPv4 lead.
    pub ways_out: BTreeSet<String>,
}

/// What breaks, in order.
pub fn traps(facts: &Facts) -> Vec<KernelTrap> {
    let of_one = |(interface, settings): (&String, &Settings)| {
        let answers_for_all = facts.has_ipvs && settings.arp_ignore == 0;
        let leads_elsewhere = !facts.ways_out.is_empty() && !facts.ways_out.contains(interface);
        let found = [
            (answers_for_all, Trap::ArpIgnore),
            (settings.rp_filter == STRICT && leads_elsewhere, Trap::ReversePathFilter),
        ];
        found.map(|(is_set, trap)| is_set.then(|| KernelTrap { interface: interface.clone(), trap }))
    };
    facts.interfaces.iter().flat_map(of_one).flatten().take(KERNEL_TRAPS_MAX).collect()
}

/// Looks. What cannot be read, because an interface has just gone, is taken for what breaks nothing.
pub fn look(settings: &Path, routes: &Path, links: &Links) -> Facts {
    let number = |interface: &str, name: &str| {
        let text = std::fs::read_to_string(settings.join(interface).join(name)).ok();
        text.and_then(|text| text.trim().parse::<u32>().ok())
    };
    let of = |interface: &str| {
        Some(Settings { arp_ignore: number(interface, "arp_ignore")?, rp_filter: number(interface, "rp_filter")? })
    };
    let all = of("all").unwrap_or_default();
    let with_ipv4 = links.iter().filter(|(_, link)| link.addresses.iter().any(|net| net.addr().is_ipv4()));
    let interfaces: BTreeMap<_, Settings> =
        with_ipv4.filter_map(|(name, _)| Some((name.clone(), of(name)?.with(all)))).collect();
    // Read only where it matters: the table may be that of the whole Internet.
    let matters = interfaces.values().any(|settings| settings.rp_filter == STRICT);
    let table = matters.then(|| File::open(routes).ok()).flatten();
    let ways_out = table.map(|table| ways_out(BufReader::new(table))).unwrap_or_default();
    Facts { has_ipvs: settings.join(IPVS_INTERFACE).is_dir(), interfaces, ways_out }
}

/// The interfaces of the default routes in such a table, but for those that lead nowhere: interface, destination, gateway, flags, three
/// counts, and mask are its first columns (route(8)).
fn ways_out(routes: impl BufRead) -> BTreeSet<String> {
    let of = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [interface, destination, _, flags, _, _, _, mask, ..] = columns[..] else { return None };
        let numbers = [destination, flags, mask].map(|text| u32::from_str_radix(text, 16).ok());
        let [Some(0), Some(flags), Some(0)] = numbers else { return None };
        (flags & RTF_REJECT == 0).then(|| interface.to_owned())
    };
    routes.lines().map_while(Result::ok).filter_map(|line| of(&line)).collect()
}

/// Keeps `found` up to date until `shutdown`.
pub async fn run(
    mut links: watch::Receiver<Links>,
    found: watch::Sender<Option<Vec<KernelTrap>>>,
    shutdown: CancellationToken,
) {
    let follow = async {
        loop {
            let facts = look(Path::new(SETTINGS), Path::new(ROUTES), &links.borrow_and_update());
            let traps = traps(&facts);
            found.send_if_modified(|known| {
                let changed = known.as_ref() != Some(&traps);
                if changed && (known.is_some() || !traps.is_empty()) {
                    tracing::warn!(?traps, "settings of the kernel that break what is announced");
                }
                *known = Some(traps);
                changed
            });
            tokio::select! {
                () = sleep(LOOK_INTERVAL) => {}
                // The follower of the interfaces ends first.
                changed = links.changed() => if changed.is_err() { return },
            }
        }
    };
    shutdown.run_until_cancelled(follow).await;
}

#[cfg(test)]
mod tests {
    use berth_api::MacAddr;

    use super::*;
    use crate::links::Link;
    use crate::netns::{cable, in_own_network, netlink};

    #[test]
    fn what_breaks_is_found_and_nothing_else() {
        let facts = |has_ipvs, interfaces: &[(&str, u32, u32)], ways_out: &[&str]| Facts {
            has_ipvs,
            interfaces: interfaces
                .iter()
                .map(|(name, arp_ignore, rp_filter)| {
                    ((*name).to_owned(), Settings { arp_ignore: *arp_ignore, rp_filter: *rp_filter })
                })
                .collect(),
            ways_out: ways_out.iter().map(|way| (*way).to_owned()).collect(),
        };
        let eth0 = &["eth0"][..];
        for (what, facts, expected) in [
            ("nothing of note", facts(false, &[("eth0", 0, 0)], eth0), &[][..]),
            ("IPVS, and the kernel answers for all", facts(true, &[("eth0", 0, 0)], eth0), &["eth0 ArpIgnore"]),
            ("IPVS with strictARP", facts(true, &[("eth0", 1, 0)], eth0), &[]),
            ("a stricter one still", facts(true, &[("eth0", 8, 0)], eth0), &[]),
            (
                "IPVS and one interface of two",
                facts(true, &[("eth0", 1, 0), ("eth1", 0, 0)], eth0),
                &["eth1 ArpIgnore"],
            ),
            ("strict, and it leads out there", facts(false, &[("eth0", 0, 1)], eth0), &[]),
            (
                "strict, and it leads out elsewhere",
                facts(false, &[("eth0", 0, 1), ("eth1", 0, 1)], eth0),
                &["eth1 ReversePathFilter"],
            ),
            ("loose, and it leads out elsewhere", facts(false, &[("eth0", 0, 2), ("eth1", 0, 2)], eth0), &[]),
            ("off, and it leads out elsewhere", facts(false, &[("eth0", 0, 0), ("eth1", 0, 0)], eth0), &[]),
            (
                "strict, and it leads out by both",
                facts(false, &[("eth0", 0, 1), ("eth1", 0, 1)], &["eth0", "eth1"]),
                &[],
            ),
            (
                "strict, and it leads out by none that announces",
                facts(false, &[("eth0", 0, 1)], &["tun0"]),
                &["eth0 ReversePathFilter"],
            ),
            ("strict, and it leads nowhere", facts(false, &[("eth0", 0, 1)], &[]), &[]),
            ("both", facts(true, &[("eth1", 0, 1)], eth0), &["eth1 ArpIgnore", "eth1 ReversePathFilter"]),
        ] {
            let found: Vec<_> = traps(&facts).into_iter().map(|t| format!("{} {:?}", t.interface, t.trap)).collect();
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn of_an_interface_and_of_all_the_higher_setting_counts() {
        let settings = |arp_ignore, rp_filter| Settings { arp_ignore, rp_filter };
        for (own, all, expected) in [((0, 0), (1, 2), (1, 2)), ((1, 1), (0, 0), (1, 1)), ((0, 1), (1, 2), (1, 2))] {
            let counts = settings(own.0, own.1).with(settings(all.0, all.1));
            assert_eq!(counts, settings(expected.0, expected.1), "{own:?} {all:?}");
        }
    }

    #[test]
    fn the_interfaces_of_default_routes_are_found_in_the_kernels_table() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
        for (what, lines, expected) in [
            ("none", &[][..], &[][..]),
            ("one", &["eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0  "], &["eth0"]),
            (
                "two, and others",
                &[
                    "eth1\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0",
                    "tun0\t00000000\t00000000\t0001\t0\t0\t200\t00000000\t0\t0\t0",
                    "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0",
                    "eth2\t00000000\t010200C0\t0003\t0\t0\t0\t00000080\t0\t0\t0",
                ],
                &["eth1", "tun0"],
            ),
            ("one that says that there is no way", &["*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0"], &[]),
            ("what is no route", &["eth0\t0000"], &[]),
        ] {
            let table = std::iter::once(&head).chain(lines).copied().collect::<Vec<_>>().join("\n");
            assert_eq!(ways_out(table.as_bytes()).iter().map(String::as_str).collect::<Vec<_>>(), expected, "{what}");
        }
    }

    #[test]
    fn the_settings_of_its_own_network_are_read() {
        in_own_network("kernel::tests::the_settings_of_its_own_network_are_read", async || {
            let handle = netlink();
            cable(&handle, [("near0", "192.0.2.1/24"), ("kube-ipvs0", "198.51.100.1/24")]).await;
            let set = |path: &str, value: u32| {
                std::fs::write(Path::new(SETTINGS).join(path), value.to_string()).unwrap();
            };
            for path in ["all/rp_filter", "all/arp_ignore", "near0/arp_ignore"] {
                set(path, 0);
            }
            set("near0/rp_filter", 1);
            let links = crate::links::look(&["kube-ipvs".to_owned()]).await.unwrap();
            let read = |links: &Links| look(Path::new(SETTINGS), Path::new(ROUTES), links);
            let expected = |arp_ignore, ways_out: &[&str]| Facts {
                has_ipvs: true,
                interfaces: BTreeMap::from([("near0".to_owned(), Settings { arp_ignore, rp_filter: 1 })]),
                ways_out: ways_out.iter().map(|way| (*way).to_owned()).collect(),
            };
            assert_eq!(read(&links), expected(0, &[]));
            set("all/arp_ignore", 1);
            let default =
                rtnetlink::RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway("192.0.2.9".parse().unwrap());
            handle.route().add(default.build()).execute().await.unwrap();
            assert_eq!(read(&links), expected(1, &["near0"]));
            // One that is not there, and one without an IPv4 address.
            let link =
                |address: &str| Link { index: 98, mac: MacAddr([2; 6]), addresses: vec![address.parse().unwrap()] };
            let others =
                Links::from([("gone0".to_owned(), link("192.0.2.2/24")), ("near0".to_owned(), link("2001:db8::1/64"))]);
            assert_eq!(read(&others).interfaces, BTreeMap::new());
        });
    }
}
