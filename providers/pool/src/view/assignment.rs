//! Who is to answer for an address, as it is kept of each Announcement: thousands of them name the same few nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use berth_api::crd::{Layer2Assignment, Member, RouteAssignment};

use crate::placement::Seat;

/// A [`Layer2Assignment`] whose names and members others may have too.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The node that answers.
    pub owner: Option<Arc<str>>,
    /// Number of the ownership.
    pub epoch: u64,
    standbys: Box<[Arc<str>]>,
    members: Box<[Arc<Member>]>,
}

impl Assignment {
    /// Parses it; nothing is lost.
    pub fn of(written: &Layer2Assignment) -> Self {
        let Layer2Assignment { owner, standbys, epoch, members } = written;
        Self {
            owner: owner.as_deref().map(Arc::from),
            epoch: *epoch,
            standbys: standbys.iter().map(|node| Arc::from(node.as_str())).collect(),
            members: members.iter().cloned().map(Arc::new).collect(),
        }
    }

    /// How it counts: with the interface of its owner, which is the first of its members. Nothing where nobody owns it.
    pub fn seat(&self) -> Option<Seat<'_, impl Iterator<Item = &str>>> {
        let owner = self.owner.as_deref()?;
        let interface = self.members.first().map_or("", |member| member.interface.as_str());
        Some(Seat { owner, interface, standbys: self.standbys.iter().map(|node| &**node) })
    }

    /// As the API has it.
    pub fn written(&self) -> Layer2Assignment {
        Layer2Assignment {
            owner: self.owner.as_deref().map(str::to_owned),
            standbys: self.standbys.iter().map(ToString::to_string).collect(),
            epoch: self.epoch,
            members: self.members.iter().map(|member| Member::clone(member)).collect(),
        }
    }

    /// Lets it have its names and members in common with those that were interned before.
    pub fn intern(&mut self, interner: &mut Interner) {
        self.owner.iter_mut().chain(&mut self.standbys).for_each(|name| interner.name(name));
        self.members.iter_mut().for_each(|member| interner.member(member));
    }
}

/// What many have in common, once.
#[derive(Clone, Debug, Default)]
pub struct Interner {
    names: BTreeSet<Arc<str>>,
    /// By the node's own address, which no two have; the latest of each.
    members: BTreeMap<IpAddr, Arc<Member>>,
    routes: BTreeSet<Arc<[RouteAssignment]>>,
}

impl Interner {
    /// Replaces a name by the equal one that is known.
    pub fn name(&mut self, name: &mut Arc<str>) {
        match self.names.get(name) {
            Some(known) => name.clone_from(known),
            None => {
                self.names.insert(name.clone());
            }
        }
    }

    /// Replaces a member by the equal one that is known.
    pub fn member(&mut self, member: &mut Arc<Member>) {
        match self.members.get(&member.address) {
            Some(known) if known == member => member.clone_from(known),
            _ => {
                self.members.insert(member.address, member.clone());
            }
        }
    }

    /// Replaces ways in which an address is routed by the equal ones that are known.
    pub fn routes(&mut self, routes: &mut Arc<[RouteAssignment]>) {
        match self.routes.get(routes) {
            Some(known) => routes.clone_from(known),
            None => {
                self.routes.insert(routes.clone());
            }
        }
    }

    /// Forgets what nobody has any more.
    pub fn prune(&mut self) {
        self.names.retain(|name| Arc::strong_count(name) > 1);
        self.members.retain(|_, member| Arc::strong_count(member) > 1);
        self.routes.retain(|routes| Arc::strong_count(routes) > 1);
    }
}

#[cfg(test)]
mod tests {
    use berth_api::MacAddr;

    use super::*;

    fn assignment(mac: u8) -> Layer2Assignment {
        let member = |number: u8| Member {
            node: format!("node-{number}"),
            interface: "eth0".to_owned(),
            address: IpAddr::from([192, 0, 2, number]),
            mac: MacAddr([2, 0, 0, 0, mac, number]),
        };
        let (owner, standbys) = (Some("node-1".to_owned()), vec!["node-2".to_owned()]);
        Layer2Assignment { owner, standbys, epoch: 3, members: vec![member(1), member(2)] }
    }

    #[test]
    fn an_assignment_is_written_as_it_was_read_interned_or_not() {
        let mut interner = Interner::default();
        // The second has another Ethernet address at the same place.
        for written in [assignment(0), assignment(1), assignment(0), Layer2Assignment::default()] {
            let mut kept = Assignment::of(&written);
            assert_eq!(kept.written(), written);
            kept.intern(&mut interner);
            assert_eq!(kept.written(), written);
        }
    }

    #[test]
    fn equal_ones_share_and_what_nobody_has_any_more_is_forgotten() {
        let mut interner = Interner::default();
        let mut parsed = || {
            let mut kept = Assignment::of(&assignment(0));
            kept.intern(&mut interner);
            kept
        };
        let (one, two) = (parsed(), parsed());
        assert!(one.standbys.iter().zip(&two.standbys).all(|(a, b)| Arc::ptr_eq(a, b)));
        assert!(one.members.iter().zip(&two.members).all(|(a, b)| Arc::ptr_eq(a, b)));
        drop(one);
        interner.prune();
        assert_eq!((interner.names.len(), interner.members.len()), (2, 2));
        drop(two);
        interner.prune();
        assert_eq!((interner.names.len(), interner.members.len()), (0, 0));
    }
}
