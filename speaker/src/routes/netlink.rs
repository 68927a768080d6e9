//! The kernel's routes and addresses, by netlink: what is there with our mark, and changes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, CacheInfo};
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::{AddressMessageBuilder, Handle, MulticastGroup, RouteMessageBuilder};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::plan::{Facts, Held, PROTOCOL, Route, Step};

/// Where the kernel has the settings of IPv4, a directory for each interface.
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";
/// The first kernel that keeps who put an address on an interface (`IFA_PROTO`).
const MARKS_SINCE: (u32, u32) = (5, 18);
/// The bit of CAP_NET_ADMIN in a capability set (capabilities(7)).
const NET_ADMIN: u32 = 12;
/// Addresses that no other route than the default one leads to: the dummy address of RFC 7600, and one for documentation (RFC 9637).
const FAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)), IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1))];

/// Netlink connections: one that asks and changes, one that listens.
pub struct Netlink {
    handle: Handle,
    events: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr)>,
    /// End the connections' tasks when dropped.
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Netlink {
    /// Opens them.
    pub fn open() -> std::io::Result<Self> {
        // With strict checks the kernel lists the routes of one protocol alone, which a node with many routes is thankful for.
        let (asking, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        let (listening, _, events) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        let tasks = [tokio::spawn(asking), tokio::spawn(listening)].map(AbortOnDropHandle::new);
        Ok(Self { handle, events, _tasks: tasks })
    }

    /// What the kernel has.
    pub async fn look(&self) -> Result<Facts, rtnetlink::Error> {
        let links: Vec<_> = self.handle.link().get().execute().try_collect().await?;
        let name = |attributes: &[LinkAttribute]| {
            attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            })
        };
        let links = links.iter().filter_map(|link| Some((name(&link.attributes)?, link.header.index)));
        let links: BTreeMap<_, _> = links.collect();
        let addresses: Vec<_> = self.handle.address().get().execute().try_collect().await?;
        Ok(Facts {
            addresses: addresses.iter().filter_map(held).collect(),
            routes: self.routes().await?,
            ways_out: [self.way_out(FAR[0]).await, self.way_out(FAR[1]).await],
            arp_ignore: arp_ignore(Path::new(SETTINGS), &links),
            marks_addresses: marks_addresses(&release()),
            links,
        })
    }

    /// The routes that bear our mark, in all tables.
    pub async fn routes(&self) -> Result<BTreeSet<Route>, rtnetlink::Error> {
        let mut found = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            question.header.protocol = RouteProtocol::Other(PROTOCOL);
            let mut routes = self.handle.route().get(question).execute();
            while let Some(message) = routes.try_next().await? {
                found.extend(route(&message));
            }
        }
        Ok(found)
    }

    /// The interface by which the node would send to there, if it could.
    async fn way_out(&self, to: IpAddr) -> Option<u32> {
        let mut question = RouteMessage::default();
        let (family, address) = match to {
            IpAddr::V4(v4) => (AddressFamily::Inet, RouteAddress::Inet(v4)),
            IpAddr::V6(v6) => (AddressFamily::Inet6, RouteAddress::Inet6(v6)),
        };
        question.header.address_family = family;
        question.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        question.attributes.push(RouteAttribute::Destination(address));
        let answer = self.handle.route().get(question).execute().try_next().await.ok().flatten()?;
        let leads = answer.header.kind == RouteType::Unicast;
        answer.attributes.iter().filter(|_| leads).find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
    }

    /// Makes a change. What is to go and is gone already is no error.
    ///
    /// # Errors
    /// With the kernel's number of it, or none where netlink itself failed.
    pub async fn make(&self, step: Step) -> Result<(), Option<Errno>> {
        let done = match step {
            Step::AddRoute(route) => self.handle.route().add(message(route)).execute().await,
            // Between the look and this, whoever would take its place has a moment; the kernel knows no better way.
            Step::ReplaceRoute(route) => self.handle.route().add(message(route)).replace().execute().await,
            Step::RemoveRoute(route) => self.handle.route().del(message(route)).execute().await,
            Step::AddAddress(address, interface) => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                let mut request = self.handle.address().add(interface, address, bits);
                marked(request.message_mut(), address);
                request.execute().await
            }
            Step::RemoveAddress(address, interface) => {
                self.handle.address().del(plain(address, interface)).execute().await
            }
        };
        let is_removal = matches!(step, Step::RemoveRoute(_) | Step::RemoveAddress(..));
        match done {
            Ok(()) => Ok(()),
            Err(rtnetlink::Error::NetlinkError(error)) => {
                let number = Errno::from_raw(error.raw_code().abs());
                let is_gone = matches!(number, Errno::ESRCH | Errno::ENOENT | Errno::ENODEV | Errno::EADDRNOTAVAIL);
                if is_removal && is_gone { Ok(()) } else { Err(Some(number)) }
            }
            Err(_) => Err(None),
        }
    }

    /// Waits for news that may concern us. False when the connection is lost.
    pub async fn changed(&mut self) -> bool {
        loop {
            let Some((event, _)) = self.events.next().await else { return false };
            if concerns(&event.payload) {
                return true;
            }
        }
    }

    /// Takes whatever comes until then out of the connection's queue, because that has no bound. False when the connection is lost.
    pub async fn pass_over(&mut self, until: Instant) -> bool {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(until) => return true,
                event = self.events.next() => if event.is_none() {
                    return false;
                },
            }
        }
    }
}

/// Whether an event may be about a host route or a default route, or is about anything else than routes. A routing daemon may change
/// thousands of others in a second.
fn concerns(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message),
        ) => matches!(message.header.destination_prefix_length, 0 | 32 | 128),
        // An overrun of the kernel's queue among them.
        _ => true,
    }
}

/// An address that the kernel lists.
fn held(message: &AddressMessage) -> Option<Held> {
    let (mut found, mut local, mut ours) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the other end, and IFA_LOCAL is ours (rtnetlink(7)).
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => found = Some(*address),
            AddressAttribute::Protocol(protocol) => ours = u8::from(*protocol) == PROTOCOL,
            _ => {}
        }
    }
    let net = IpNet::new(local.or(found)?, message.header.prefix_len).ok()?;
    // We put none but single addresses anywhere.
    let ours = ours && net.prefix_len() == net.max_prefix_len();
    Some(Held { interface: message.header.index, net, ours })
}

/// A host route of ours that the kernel lists; it is asked for no others, and old kernels list them all.
fn route(message: &RouteMessage) -> Option<Route> {
    let (mut address, mut interface) = (None, None);
    let (mut table, mut metric) = (u32::from(message.header.table), 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            _ => {}
        }
    }
    let address = address?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let ours = u8::from(message.header.protocol) == PROTOCOL && message.header.destination_prefix_length == bits;
    ours.then_some(Route { address, table, metric, interface: interface? })
}

/// A route as the kernel takes it. Deleting goes by it too, protocol included, so that it never meets another's.
fn message(route: Route) -> RouteMessage {
    let Route { address, table, metric, interface } = route;
    let protocol = RouteProtocol::Other(PROTOCOL);
    match address {
        // What has no router between is of the scope of the link.
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(v4, 32)
            .scope(RouteScope::Link)
            .protocol(protocol)
            .table_id(table)
            .priority(metric)
            .output_interface(interface)
            .build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6, 128)
            .protocol(protocol)
            .table_id(table)
            .priority(metric)
            .output_interface(interface)
            .build(),
    }
}

/// Marks an address as ours. One of IPv6 is used at once, because other nodes have it too, and is nothing that the node would send from.
fn marked(message: &mut AddressMessage, address: IpAddr) {
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
    if address.is_ipv6() {
        message.header.flags |= AddressHeaderFlags::Nodad;
        let mut life = CacheInfo::default();
        (life.ifa_preferred, life.ifa_valid) = (0, u32::MAX);
        message.attributes.push(AddressAttribute::CacheInfo(life));
    }
}

fn plain(address: IpAddr, interface: u32) -> AddressMessage {
    match address {
        IpAddr::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new().index(interface).address(v4, 32).build(),
        IpAddr::V6(v6) => AddressMessageBuilder::<Ipv6Addr>::new().index(interface).address(v6, 128).build(),
    }
}

/// What counts of `arp_ignore` on each interface: the higher of its own and that of all (Linux, networking/ip-sysctl).
fn arp_ignore(settings: &Path, links: &BTreeMap<String, u32>) -> BTreeMap<u32, u32> {
    let number = |name: &str| {
        let text = std::fs::read_to_string(settings.join(name).join("arp_ignore")).ok();
        text.and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or_default()
    };
    let all = number("all");
    links.iter().map(|(name, index)| (*index, number(name).max(all))).collect()
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()
}

/// Whether a kernel of this release keeps who put an address on an interface.
fn marks_addresses(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= MARKS_SINCE
}

/// Whether this process has the capability to change routes and addresses.
pub fn is_permitted() -> bool {
    permits(&std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default())
}

fn permits(status: &str) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << NET_ADMIN) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_ours_by_its_number_and_as_a_host_route_alone_whatever_the_kernel_lists() {
        for address in ["203.0.113.1", "2001:db8::1"] {
            let address: IpAddr = address.parse().unwrap();
            let ours = Route { address, table: 1_000, metric: 7, interface: 3 };
            assert_eq!(route(&message(ours)), Some(ours), "{address}");
            let mut another = message(ours);
            another.header.protocol = RouteProtocol::Other(PROTOCOL - 1);
            assert_eq!(route(&another), None, "another's number");
            let mut wider = message(ours);
            wider.header.destination_prefix_length -= 1;
            assert_eq!(route(&wider), None, "a network");
        }
    }

    #[test]
    fn kernels_mark_addresses_since_5_18_and_the_capability_is_read_from_the_effective_set() {
        for (release, marks) in
            [("5.17.0", false), ("5.18.0-1", true), ("6.1.0-13-amd64", true), ("4.19.0", false), ("", false)]
        {
            assert_eq!(marks_addresses(release), marks, "{release}");
        }
        for (set, permitted) in [("0000000000002000", false), ("0000000000003000", true), ("", false)] {
            assert_eq!(permits(&format!("Name:\tx\nCapPrm:\t0000000000003000\nCapEff:\t{set}\n")), permitted, "{set}");
        }
    }
}
