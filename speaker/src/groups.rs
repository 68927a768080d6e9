//! Membership in the groups by which IPv6 addresses are asked for (RFC 4291 section 2.7.1), without which a switch that follows memberships
//! and the network card itself would keep the questions from us.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;

use socket2::{Domain, Protocol, Socket, Type};

/// The groups that a node is in on one interface. Dropping it leaves them all.
#[derive(Debug)]
pub struct Groups {
    interface_index: u32,
    /// They receive nothing. One holds as many groups as `net.core.optmem_max` allows, about 2,340 on a recent kernel.
    sockets: Vec<Socket>,
    /// Each group with the socket that holds it.
    joined: BTreeMap<Ipv6Addr, usize>,
    refused: usize,
}

impl Groups {
    /// In none yet.
    pub fn new(interface_index: u32) -> Self {
        Self { interface_index, sockets: Vec::new(), joined: BTreeMap::new(), refused: 0 }
    }

    /// Is in these groups from now on, and in no other. The kernel tells the link. What it refuses is tried again at the next call; the
    /// error is the last refusal's.
    pub fn follow(&mut self, interface: &str, wanted: &BTreeSet<Ipv6Addr>) -> io::Result<()> {
        for (group, socket) in self.joined.extract_if(.., |group, _| !wanted.contains(group)) {
            // One that cannot be left is gone already, as when the interface is.
            if let Some(socket) = self.sockets.get(socket)
                && let Err(error) = socket.leave_multicast_v6(&group, self.interface_index)
            {
                tracing::debug!(interface, %group, %error, "cannot leave a group");
            }
        }
        self.refused = 0;
        let mut result = Ok(());
        for group in wanted {
            if self.joined.contains_key(group) {
                continue;
            }
            match self.join(*group) {
                Ok(socket) => drop(self.joined.insert(*group, socket)),
                Err(error) => {
                    self.refused += 1;
                    result = Err(error);
                }
            }
        }
        result
    }

    /// Groups that the kernel refused at the last call.
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// Joins by the newest socket that has room, or by another one; returns its place.
    fn join(&mut self, group: Ipv6Addr) -> io::Result<usize> {
        for (place, socket) in self.sockets.iter().enumerate().rev() {
            match socket.join_multicast_v6(&group, self.interface_index) {
                Ok(()) => return Ok(place),
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.join_multicast_v6(&group, self.interface_index)?;
        self.sockets.push(socket);
        Ok(self.sockets.len() - 1)
    }
}

/// Whether the kernel has no room for another group in this socket.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::ENOMEM | nix::libc::ENOBUFS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::{cable, in_own_network, index, netlink};

    /// The groups of this test that the kernel says an interface is in (proc_net(5), `igmp6`).
    fn joined(interface: &str) -> usize {
        let text = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
        let of_interface = text.lines().filter(|line| line.split_whitespace().nth(1) == Some(interface));
        of_interface.filter(|line| line.contains(" ff0200000000000000000002ff7f")).count()
    }

    /// Group `n` of a test: by none of these the kernel asks for an own address of the link, which is random.
    fn group(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 2, 0xff7f, n)
    }

    #[test]
    fn a_node_is_in_exactly_the_groups_that_are_wanted_however_many() {
        in_own_network("groups::tests::a_node_is_in_exactly_the_groups_that_are_wanted_however_many", async || {
            let handle = netlink();
            cable(&handle, [("near0", "2001:db8::1/64"), ("far0", "2001:db8::2/64")]).await;
            let mut groups = Groups::new(index(&handle, "near0").await);
            for wanted in [0..5_000, 10..5_010, 0..3, 100..4_000, 0..0] {
                let set: BTreeSet<_> = wanted.clone().map(group).collect();
                groups.follow("near0", &set).unwrap();
                assert_eq!((groups.refused(), joined("near0")), (0, set.len()), "{wanted:?}");
                assert!(groups.sockets.len() < 20, "{} sockets", groups.sockets.len());
            }
            groups.follow("near0", &(0..10).map(group).collect()).unwrap();
            drop(groups);
            assert_eq!(joined("near0"), 0, "all are left");
        });
    }

    #[test]
    fn what_the_kernel_refuses_is_counted_and_tried_again() {
        in_own_network("groups::tests::what_the_kernel_refuses_is_counted_and_tried_again", async || {
            let handle = netlink();
            cable(&handle, [("near0", "2001:db8::1/64"), ("far0", "2001:db8::2/64")]).await;
            let mut groups = Groups::new(99);
            let wanted = (0..3).map(group).collect();
            groups.follow("gone0", &wanted).unwrap_err();
            assert_eq!((groups.refused(), groups.joined.len()), (3, 0));
            groups.interface_index = index(&handle, "near0").await;
            groups.follow("near0", &wanted).unwrap();
            assert_eq!((groups.refused(), joined("near0")), (0, 3));
        });
    }
}
