//! The next hops of the node's routes, by netlink: addresses that belong to routers, which no Service may be given.
//!
//! Beside the interfaces and apart from them: a routing daemon may change thousands of routes in a second, and nobody waits for this
//! as one does for a lost carrier. As there, every event leads to a fresh look at everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType, RouteVia};
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Least time between two looks, each of which reads all routes: a full table of the Internet is read in about as long.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Time before netlink is opened again after an error. Errors here are a full memory or a bug, never a state to poll.
const REOPEN_DELAY: Duration = Duration::from_secs(1);

/// The next hops on each interface, by the kernel's number of it.
pub type Gateways = BTreeMap<u32, BTreeSet<IpAddr>>;

/// The interfaces and next hops of a route. Those that only stand in for something are left out: routes that the kernel makes from others
/// for a while, and link-local addresses, which no pool can give.
fn next_hops(message: &RouteMessage) -> Vec<(u32, IpAddr)> {
    if message.header.kind != RouteType::Unicast || message.header.flags.contains(RouteFlags::Cloned) {
        return Vec::new();
    }
    let interface = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let mut found: Vec<_> = interface.into_iter().flat_map(|index| hops(index, &message.attributes)).collect();
    for attribute in &message.attributes {
        if let RouteAttribute::MultiPath(paths) = attribute {
            found.extend(paths.iter().flat_map(|path| hops(path.interface_index, &path.attributes)));
        }
    }
    found.retain(|(_, address)| may_be_in_a_pool(*address));
    found
}

fn hops(index: u32, attributes: &[RouteAttribute]) -> impl Iterator<Item = (u32, IpAddr)> {
    attributes.iter().filter_map(move |attribute| match attribute {
        // The second form is that of an IPv4 route by an IPv6 router (RFC 8950).
        RouteAttribute::Gateway(RouteAddress::Inet(address)) | RouteAttribute::Via(RouteVia::Inet(address)) => {
            Some((index, IpAddr::V4(*address)))
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) | RouteAttribute::Via(RouteVia::Inet6(address)) => {
            Some((index, IpAddr::V6(*address)))
        }
        _ => None,
    })
}

fn may_be_in_a_pool(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !address.is_unspecified() && !link_local
}

/// A netlink connection that looks and listens.
struct Netlink {
    handle: Handle,
    events:
        futures::channel::mpsc::UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr)>,
    /// Ends the connection's task when dropped.
    _task: AbortOnDropHandle<()>,
}

impl Netlink {
    fn open() -> std::io::Result<Self> {
        // A link that goes takes its routes along without an event for each.
        let (connection, handle, events) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        let task = AbortOnDropHandle::new(tokio::spawn(connection));
        Ok(Self { handle, events, _task: task })
    }

    async fn look(&self) -> Result<Gateways, rtnetlink::Error> {
        let mut gateways = Gateways::new();
        for question in [
            rtnetlink::RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            rtnetlink::RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let mut routes = self.handle.route().get(question).execute();
            while let Some(route) = routes.try_next().await? {
                for (interface, address) in next_hops(&route) {
                    gateways.entry(interface).or_default().insert(address);
                }
            }
        }
        Ok(gateways)
    }

    /// Waits for news, whatever they are, but until `earliest` at least. All that come meanwhile are taken out of the connection's queue
    /// as they come, because that has no bound. False when the connection is lost.
    async fn changed(&mut self, earliest: Instant) -> bool {
        if self.events.next().await.is_none() {
            return false;
        }
        loop {
            tokio::select! {
                biased;
                () = sleep_until(earliest) => return true,
                event = self.events.next() => if event.is_none() {
                    return false;
                },
            }
        }
    }
}

/// The next hops as they are now.
///
/// # Errors
/// When netlink cannot be opened or read.
pub async fn look() -> anyhow::Result<Gateways> {
    Ok(Netlink::open()?.look().await?)
}

/// Keeps `gateways` up to date until `shutdown`.
pub async fn run(gateways: watch::Sender<Gateways>, shutdown: CancellationToken) {
    let follow = async {
        loop {
            if let Err(error) = follow(&gateways).await {
                tracing::warn!(error = %error, "cannot follow the node's routes; opening netlink again");
            }
            sleep(REOPEN_DELAY).await;
        }
    };
    shutdown.run_until_cancelled(follow).await;
}

async fn follow(gateways: &watch::Sender<Gateways>) -> anyhow::Result<()> {
    let mut netlink = Netlink::open()?;
    loop {
        let earliest = Instant::now() + LOOK_INTERVAL;
        let seen = netlink.look().await?;
        gateways.send_if_modified(|known| {
            let changed = *known != seen;
            if changed {
                tracing::debug!(gateways = ?seen.values(), "next hops of routes");
                *known = seen;
            }
            changed
        });
        if !netlink.changed(earliest).await {
            anyhow::bail!("the kernel closed the netlink connection");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use netlink_packet_route::AddressFamily;
    use rtnetlink::{RouteMessageBuilder, RouteNextHopBuilder};
    use tokio::time::timeout;

    use super::*;
    use crate::netns::{cable, in_own_network, index, netlink, set_up};

    const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 0);

    /// What a route is like, and its next hops.
    type Case<'a> = (&'a str, RouteMessage, &'a [(u32, &'a str)]);

    fn to(last: u8) -> RouteMessageBuilder<Ipv4Addr> {
        RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(FAR, 24).gateway(Ipv4Addr::new(192, 0, 2, last))
    }

    #[test]
    fn a_route_tells_its_next_hops_where_they_belong_to_routers() {
        let v6 = |address: &str| {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new().gateway(address.parse().unwrap());
            builder.output_interface(2).build()
        };
        let hop = |interface, address: &str| {
            let builder = RouteNextHopBuilder::new(AddressFamily::Inet).interface(interface);
            builder.via(address.parse().unwrap()).unwrap().build()
        };
        let with = |mut message: RouteMessage, change: fn(&mut RouteMessage)| {
            change(&mut message);
            message
        };
        let near = || to(1).output_interface(2);
        let cases: [Case<'_>; 12] = [
            ("by a router", near().build(), &[(2, "192.0.2.1")]),
            ("by a router of IPv6", v6("2001:db8::1"), &[(2, "2001:db8::1")]),
            (
                "of IPv4 by a router of IPv6",
                RouteMessageBuilder::<Ipv4Addr>::new().via("2001:db8::1".parse().unwrap()).output_interface(2).build(),
                &[(2, "2001:db8::1")],
            ),
            (
                "by several, on several interfaces",
                RouteMessageBuilder::<Ipv4Addr>::new()
                    .multipath(vec![hop(2, "192.0.2.1"), hop(3, "198.51.100.1"), hop(2, "192.0.2.2")])
                    .build(),
                &[(2, "192.0.2.1"), (3, "198.51.100.1"), (2, "192.0.2.2")],
            ),
            ("in another table", near().table_id(1000).build(), &[(2, "192.0.2.1")]),
            ("to the link itself", RouteMessageBuilder::<Ipv4Addr>::new().output_interface(2).build(), &[]),
            ("without an interface", to(1).build(), &[]),
            ("to nowhere", near().kind(RouteType::BlackHole).build(), &[]),
            ("of a moment", with(near().build(), |m| m.header.flags |= RouteFlags::Cloned), &[]),
            ("by a link-local router", v6("fe80::1"), &[]),
            (
                "by a link-local router of IPv4",
                RouteMessageBuilder::<Ipv4Addr>::new()
                    .gateway(Ipv4Addr::new(169, 254, 1, 1))
                    .output_interface(2)
                    .build(),
                &[],
            ),
            ("by nobody", v6("::"), &[]),
        ];
        for (what, message, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(index, hop)| (*index, hop.parse().unwrap())).collect();
            assert_eq!(next_hops(&message), expected, "a route {what}");
        }
    }

    #[test]
    fn gateways_are_found_and_their_coming_and_going_is_noticed() {
        in_own_network("gateways::tests::gateways_are_found_and_their_coming_and_going_is_noticed", async || {
            let handle = netlink();
            cable(&handle, [("near0", "192.0.2.11/24"), ("far0", "192.0.2.12/24")]).await;
            let near = index(&handle, "near0").await;
            handle.address().add(near, "2001:db8::11".parse().unwrap(), 64).execute().await.unwrap();
            handle.route().add(to(1).build()).execute().await.unwrap();
            let expected = |hops: &[&str]| {
                let hops: BTreeSet<IpAddr> = hops.iter().map(|hop| hop.parse().unwrap()).collect();
                if hops.is_empty() { Gateways::new() } else { Gateways::from([(near, hops)]) }
            };
            assert_eq!(look().await.unwrap(), expected(&["192.0.2.1"]), "what is there from the start");

            let (sender, mut gateways) = watch::channel(Gateways::new());
            let shutdown = CancellationToken::new();
            let task = tokio::spawn(run(sender, shutdown.clone()));
            let mut comes = async |hops: &[&str]| {
                let expected = expected(hops);
                let found = timeout(Duration::from_secs(10), gateways.wait_for(|seen| *seen == expected)).await;
                assert!(found.is_ok(), "{expected:?}");
            };
            comes(&["192.0.2.1"]).await;
            let more = RouteMessageBuilder::<Ipv6Addr>::new().gateway("2001:db8::1".parse().unwrap());
            handle.route().add(more.output_interface(near).build()).execute().await.unwrap();
            comes(&["192.0.2.1", "2001:db8::1"]).await;
            handle.route().del(to(1).build()).execute().await.unwrap();
            comes(&["2001:db8::1"]).await;
            set_up(&handle, "near0", false).await;
            comes(&[]).await;
            shutdown.cancel();
            task.await.unwrap();
        });
    }
}
