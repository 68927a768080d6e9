//! The node's network interfaces, by netlink: which of them can announce, and when that changes.
//!
//! Every event leads to a fresh look at everything instead of a patch on what was known, so that nothing a lost or
//! misread event could spoil is ever kept. Netlink works in the network namespace of the process, unlike /sys, which
//! shows the namespace it was mounted in.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_api::MacAddr;
use futures::{FutureExt, StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State};
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Least time between two looks: a node that starts many pods makes some events for each, which then share a look.
/// The first event after a calm is looked at at once, because a lost carrier must not wait.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Time before netlink is opened again after an error. Errors here are a full memory or a bug, never a state to poll.
const REOPEN_DELAY: Duration = Duration::from_secs(1);

/// An interface that can announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of it, never reused while it exists.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses that last, in order.
    pub addresses: Vec<IpNet>,
}

/// The interfaces that can announce, by name.
pub type Links = BTreeMap<String, Link>;

/// Why an interface does not announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is the loopback.
    Loopback,
    /// No Ethernet address, or one that is all zeros.
    NoEthernet,
    /// Its link does not do ARP.
    NoArp,
    /// It is part of a bridge, bond or the like, which announces in its place.
    Enslaved,
    /// Its name begins with an excluded prefix.
    Excluded,
    /// Set down, or without a carrier: its own, or that of the one below it.
    Down,
    /// It has a carrier and may not send yet, as a port that waits for IEEE 802.1X.
    Dormant,
    /// No IP address that lasts.
    NoAddress,
}

/// What the kernel says of one interface, as far as it counts here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    index: u32,
    name: String,
    flags: LinkFlags,
    mac: Option<MacAddr>,
    enslaved: bool,
    /// Its operational state says that it may not send yet (RFC 2863). The others are not asked for: with a carrier they become up, which
    /// the kernel notes up to a second later (Linux, networking/operstates).
    waits: bool,
    addresses: Vec<IpNet>,
}

impl Facts {
    fn from_message(message: &LinkMessage) -> Self {
        let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        let mut facts = Self {
            index: message.header.index,
            name: String::new(),
            flags: message.header.flags,
            mac: None,
            enslaved: false,
            waits: false,
            addresses: Vec::new(),
        };
        let mut in_vrf = false;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => facts.name.clone_from(name),
                LinkAttribute::Address(bytes) if ethernet => {
                    facts.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
                }
                LinkAttribute::Controller(index) => facts.enslaved = *index != 0,
                LinkAttribute::OperState(state) => facts.waits = matches!(state, State::Dormant | State::Testing),
                LinkAttribute::LinkInfo(infos) => {
                    in_vrf = infos.iter().any(|info| matches!(info, LinkInfo::PortKind(InfoPortKind::Vrf)));
                }
                _ => {}
            }
        }
        // A VRF takes part in routing alone: its members keep their addresses and answer for themselves (Linux, networking/vrf).
        facts.enslaved &= !in_vrf;
        facts
    }

    /// The interface as one that can announce, or what stands against it.
    fn judge(mut self, excluded: &[String]) -> Result<(String, Link), Unfit> {
        if self.flags.contains(LinkFlags::Loopback) {
            return Err(Unfit::Loopback);
        }
        let mac = self.mac.filter(|mac| *mac != MacAddr::ZERO).ok_or(Unfit::NoEthernet)?;
        if self.flags.contains(LinkFlags::Noarp) {
            return Err(Unfit::NoArp);
        }
        if self.enslaved {
            return Err(Unfit::Enslaved);
        }
        if excluded.iter().any(|prefix| self.name.starts_with(prefix.as_str())) {
            return Err(Unfit::Excluded);
        }
        // IFF_UP is what the operator wants, IFF_LOWER_UP what the wire says (netdevice(7)).
        if !self.flags.contains(LinkFlags::Up | LinkFlags::LowerUp) {
            return Err(Unfit::Down);
        }
        if self.waits || self.flags.contains(LinkFlags::Dormant) {
            return Err(Unfit::Dormant);
        }
        if self.addresses.is_empty() {
            return Err(Unfit::NoAddress);
        }
        self.addresses.sort_unstable();
        Ok((self.name, Link { index: self.index, mac, addresses: self.addresses }))
    }
}

/// The address of a message, unless it is one that says nothing about the subnets of a node: of the host or of the
/// link alone, not yet checked, or soon gone.
fn lasting_address(message: &AddressMessage) -> Option<IpNet> {
    let passing = AddressHeaderFlags::Tentative | AddressHeaderFlags::Deprecated | AddressHeaderFlags::Dadfailed;
    if message.header.flags.intersects(passing)
        || matches!(message.header.scope, AddressScope::Link | AddressScope::Host | AddressScope::Nowhere)
    {
        return None;
    }
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the other end, and IFA_LOCAL is ours (rtnetlink(7)).
            AddressAttribute::Local(address) => {
                found = Some(*address);
                break;
            }
            AddressAttribute::Address(address) => found = Some(*address),
            _ => {}
        }
    }
    let address = found?;
    // A temporary IPv6 address is marked as secondary; it changes by the day.
    if address.is_ipv6() && message.header.flags.contains(AddressHeaderFlags::Secondary) {
        return None;
    }
    IpNet::new(address, message.header.prefix_len).ok()
}

/// Of all interfaces and addresses that the kernel lists, the interfaces that can announce.
fn that_can_announce(links: &[LinkMessage], addresses: &[AddressMessage], excluded: &[String]) -> Links {
    let mut facts: BTreeMap<u32, Facts> =
        links.iter().map(|message| (message.header.index, Facts::from_message(message))).collect();
    for message in addresses {
        if let (Some(address), Some(facts)) = (lasting_address(message), facts.get_mut(&message.header.index)) {
            facts.addresses.push(address);
        }
    }
    let judged = facts.into_values().filter_map(|facts| {
        let name = facts.name.clone();
        match facts.judge(excluded) {
            Ok(link) => Some(link),
            Err(why) => {
                tracing::trace!(interface = name, ?why, "interface cannot announce");
                None
            }
        }
    });
    judged.collect()
}

/// A netlink connection that looks and listens.
struct Netlink {
    handle: Handle,
    events:
        futures::channel::mpsc::UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr)>,
    /// Ends the connection's task when dropped.
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Netlink {
    fn open() -> std::io::Result<Self> {
        let (connection, handle, events) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ])?;
        let task = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        Ok(Self { handle, events, _task: task })
    }

    async fn look(&self, excluded: &[String]) -> Result<Links, rtnetlink::Error> {
        let links: Vec<_> = self.handle.link().get().execute().try_collect().await?;
        let addresses: Vec<_> = self.handle.address().get().execute().try_collect().await?;
        Ok(that_can_announce(&links, &addresses, excluded))
    }

    /// Waits for news, whatever they are (an overrun of the kernel's queue is among them, and asks for the same fresh
    /// look), and takes all that have come. False when the connection is lost.
    async fn changed(&mut self) -> bool {
        if self.events.next().await.is_none() {
            return false;
        }
        // What the connection queues is not bounded by it; emptied here at least once in each LOOK_INTERVAL.
        loop {
            match self.events.next().now_or_never() {
                Some(Some(_)) => {}
                Some(None) => return false,
                None => return true,
            }
        }
    }
}

/// The interfaces as they are now.
///
/// # Errors
/// When netlink cannot be opened or read.
pub async fn look(excluded: &[String]) -> anyhow::Result<Links> {
    Ok(Netlink::open()?.look(excluded).await?)
}

/// Keeps `links` up to date until `shutdown`.
pub async fn run(excluded: Vec<String>, links: watch::Sender<Links>, shutdown: CancellationToken) {
    let follow = async {
        loop {
            if let Err(error) = follow(&excluded, &links).await {
                tracing::warn!(error = %error, "cannot follow the node's interfaces; opening netlink again");
            }
            sleep(REOPEN_DELAY).await;
        }
    };
    shutdown.run_until_cancelled(follow).await;
}

async fn follow(excluded: &[String], links: &watch::Sender<Links>) -> anyhow::Result<()> {
    let mut netlink = Netlink::open()?;
    loop {
        let seen = netlink.look(excluded).await?;
        links.send_if_modified(|known| {
            let changed = *known != seen;
            if changed {
                log_changes(known, &seen);
                *known = seen;
            }
            changed
        });
        sleep(LOOK_INTERVAL).await;
        if !netlink.changed().await {
            anyhow::bail!("the kernel closed the netlink connection");
        }
    }
}

fn log_changes(known: &Links, seen: &Links) {
    for (name, link) in seen {
        if known.get(name) != Some(link) {
            tracing::info!(interface = name, mac = %link.mac, addresses = ?link.addresses, "interface can announce");
        }
    }
    for name in known.keys().filter(|name| !seen.contains_key(*name)) {
        tracing::info!(interface = name, "interface can no longer announce");
    }
}

#[cfg(test)]
mod recorded;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    use crate::args::DEFAULT_EXCLUDED;
    use crate::netns::{cable, in_own_network, index, netlink, set_up};
    use rtnetlink::{LinkBridge, LinkUnspec};

    fn eth0() -> Facts {
        Facts {
            index: 2,
            name: "eth0".into(),
            flags: LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Broadcast,
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            enslaved: false,
            waits: false,
            addresses: vec!["192.0.2.11/24".parse().unwrap()],
        }
    }

    #[test]
    fn an_interface_announces_unless_something_stands_against_it() {
        type Change = fn(&mut Facts);
        let cases: &[(&str, Change, Option<Unfit>)] = &[
            ("an ordinary network card", |_| {}, None),
            ("a bond or bridge itself", |f| f.name = "bond0".into(), None),
            ("the loopback", |f| f.flags |= LinkFlags::Loopback, Some(Unfit::Loopback)),
            ("a tunnel without Ethernet", |f| f.mac = None, Some(Unfit::NoEthernet)),
            ("an Ethernet address of zeros", |f| f.mac = Some(MacAddr::ZERO), Some(Unfit::NoEthernet)),
            ("a link without ARP", |f| f.flags |= LinkFlags::Noarp, Some(Unfit::NoArp)),
            ("a member of a bond or bridge", |f| f.enslaved = true, Some(Unfit::Enslaved)),
            ("a pod's end of a veth pair", |f| f.name = "veth1a2b3c".into(), Some(Unfit::Excluded)),
            ("a container bridge", |f| f.name = "docker0".into(), Some(Unfit::Excluded)),
            ("a cable pulled", |f| f.flags.remove(LinkFlags::LowerUp), Some(Unfit::Down)),
            ("a port that waits to be let in", |f| f.waits = true, Some(Unfit::Dormant)),
            ("set down", |f| f.flags.remove(LinkFlags::Up), Some(Unfit::Down)),
            ("no IP address", |f| f.addresses.clear(), Some(Unfit::NoAddress)),
        ];
        let excluded: Vec<String> = DEFAULT_EXCLUDED.split(',').map(str::to_owned).collect();
        for (what, change, expected) in cases {
            let mut facts = eth0();
            change(&mut facts);
            assert_eq!(facts.judge(&excluded).err(), *expected, "{what}");
        }
    }

    #[test]
    fn only_addresses_that_last_say_which_subnets_a_node_is_in() {
        let message = |address: &str, prefix_len, scope, flags| {
            let mut message = AddressMessage::default();
            message.header.prefix_len = prefix_len;
            message.header.scope = scope;
            message.header.flags = flags;
            message.attributes.push(AddressAttribute::Address(address.parse().unwrap()));
            message
        };
        let permanent = AddressHeaderFlags::Permanent;
        let cases = [
            (message("192.0.2.11", 24, AddressScope::Universe, permanent), Some("192.0.2.11/24")),
            // A second IPv4 address in the same subnet is marked as secondary and lasts all the same.
            (message("192.0.2.12", 24, AddressScope::Universe, AddressHeaderFlags::Secondary), Some("192.0.2.12/24")),
            (message("2001:db8::1", 64, AddressScope::Universe, permanent), Some("2001:db8::1/64")),
            (message("2001:db8::1", 64, AddressScope::Universe, AddressHeaderFlags::Tentative), None),
            (message("2001:db8::2", 64, AddressScope::Universe, AddressHeaderFlags::Secondary), None),
            (message("2001:db8::3", 64, AddressScope::Universe, AddressHeaderFlags::Deprecated), None),
            (message("fd00::1", 64, AddressScope::Universe, permanent), Some("fd00::1/64")),
            (message("fe80::1", 64, AddressScope::Link, permanent), None),
            (message("127.0.0.1", 8, AddressScope::Host, permanent), None),
        ];
        for (message, expected) in cases {
            assert_eq!(lasting_address(&message), expected.map(|net| net.parse().unwrap()), "{message:?}");
        }
    }

    #[test]
    fn on_a_point_to_point_link_the_near_end_is_ours() {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 32;
        for attribute in [
            AddressAttribute::Address("192.0.2.1".parse().unwrap()),
            AddressAttribute::Local("192.0.2.2".parse().unwrap()),
        ] {
            message.attributes.push(attribute);
        }
        assert_eq!(lasting_address(&message), Some("192.0.2.2/32".parse().unwrap()));
    }

    #[test]
    fn a_cut_cable_is_noticed_and_so_is_its_return() {
        in_own_network("links::tests::a_cut_cable_is_noticed_and_so_is_its_return", async || {
            let handle = netlink();
            cable(&handle, [("near0", "192.0.2.1/24"), ("far0", "192.0.2.2/24")]).await;
            let (sender, mut links) = watch::channel(Links::new());
            let shutdown = CancellationToken::new();
            let task = tokio::spawn(run(vec!["far".to_owned()], sender, shutdown.clone()));
            let wait = |links: &mut watch::Receiver<Links>, there: bool| {
                let mut links = links.clone();
                async move {
                    let changed = links.wait_for(|links| links.contains_key("near0") == there);
                    timeout(Duration::from_secs(5), changed).await.expect("a change").unwrap().clone()
                }
            };
            let seen = wait(&mut links, true).await;
            assert_eq!(seen.keys().collect::<Vec<_>>(), ["near0"], "the other end is excluded");
            assert_eq!(seen["near0"].addresses, ["192.0.2.1/24".parse().unwrap()]);
            // With the far end down, the near one has no carrier.
            set_up(&handle, "far0", false).await;
            wait(&mut links, false).await;
            set_up(&handle, "far0", true).await;
            wait(&mut links, true).await;
            shutdown.cancel();
            timeout(Duration::from_secs(5), task).await.expect("the task ends").unwrap();
        });
    }

    #[test]
    fn a_bridge_announces_and_not_what_it_is_made_of_and_a_new_name_is_noticed() {
        in_own_network(
            "links::tests::a_bridge_announces_and_not_what_it_is_made_of_and_a_new_name_is_noticed",
            async || {
                let handle = netlink();
                cable(&handle, [("eth0", "192.0.2.1/24"), ("far0", "198.51.100.2/24")]).await;
                let (sender, links) = watch::channel(Links::new());
                let shutdown = CancellationToken::new();
                let task = tokio::spawn(run(vec!["far".to_owned()], sender, shutdown.clone()));
                let wait = |name: &'static str| {
                    let mut links = links.clone();
                    async move {
                        let changed = links.wait_for(|links| links.keys().eq([name]));
                        timeout(Duration::from_secs(5), changed).await.expect("a change").unwrap().clone()
                    }
                };
                wait("eth0").await;
                // An address that was forgotten on the member is none of the node's places on the link any more.
                handle.link().add(LinkBridge::new("br0").build()).execute().await.unwrap();
                let (bridge, member) = (index(&handle, "br0").await, index(&handle, "eth0").await);
                handle.address().add(bridge, "192.0.2.3".parse().unwrap(), 24).execute().await.unwrap();
                let enslave = LinkUnspec::new_with_index(member).controller(bridge).build();
                handle.link().set(enslave).execute().await.unwrap();
                set_up(&handle, "br0", true).await;
                let seen = wait("br0").await;
                assert_eq!(seen["br0"].addresses, ["192.0.2.3/24".parse().unwrap()]);
                // Without a member that has a carrier it has none itself, and with one again it does.
                set_up(&handle, "far0", false).await;
                timeout(Duration::from_secs(5), links.clone().wait_for(Links::is_empty))
                    .await
                    .expect("a change")
                    .unwrap();
                set_up(&handle, "far0", true).await;
                wait("br0").await;
                // Older kernels rename none that is up.
                set_up(&handle, "br0", false).await;
                let rename = LinkUnspec::new_with_index(bridge).name("lan0".to_owned()).build();
                handle.link().set(rename).execute().await.unwrap();
                set_up(&handle, "lan0", true).await;
                assert_eq!(wait("lan0").await["lan0"].index, bridge);
                shutdown.cancel();
                timeout(Duration::from_secs(5), task).await.expect("the task ends").unwrap();
            },
        );
    }
}
