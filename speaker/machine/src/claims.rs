//! What two partners tell each other they answer for: only changes travel, and a digest shows when one was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_wire::heartbeat::{Body, Claim, Digest, ENTRIES_MAX, Entries, NodeTag, PARTS_MAX, Stance};

use crate::shared::packed;
use crate::timing::CLAIMS_INTERVAL;

/// Most claims that are remembered of a partner: what it could put in one list.
const HEARD_MAX: usize = ENTRIES_MAX * PARTS_MAX as usize;

/// An ownership as one partner tells it to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Its number.
    pub(crate) epoch: u64,
    /// Whether the sender only answers in place of the owner.
    pub(crate) cares: bool,
}

/// Marks in a digest what is only cared for. Epochs stay far below it.
const CARES_BIT: u64 = 1 << 63;

impl Held {
    fn of(claim: &Claim) -> Option<Self> {
        match claim.stance {
            Stance::Answers => Some(Self { epoch: claim.epoch, cares: false }),
            Stance::Cares => Some(Self { epoch: claim.epoch, cares: true }),
            Stance::Knows(_) => None,
        }
    }

    fn stance(self) -> Stance {
        if self.cares { Stance::Cares } else { Stance::Answers }
    }

    fn bits(self) -> u64 {
        if self.cares { self.epoch | CARES_BIT } else { self.epoch }
    }
}

/// Addresses with what is held of them, and the digest over them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ClaimSet {
    held: BTreeMap<IpAddr, Held>,
    digest: Digest,
}

impl ClaimSet {
    /// Sets or removes a claim; returns what was there.
    fn set(&mut self, address: IpAddr, held: Option<Held>) -> Option<Held> {
        let old = match held {
            Some(held) => self.held.insert(address, held),
            None => self.held.remove(&address),
        };
        self.digest = shifted(self.digest, address, old, held);
        old
    }
}

fn shifted(mut digest: Digest, address: IpAddr, old: Option<Held>, new: Option<Held>) -> Digest {
    if let Some(old) = old {
        digest = digest.without(address, old.bits());
    }
    if let Some(new) = new {
        digest = digest.with(address, new.bits());
    }
    digest
}

/// Something to say about an address.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// What the partner was told last.
    old: Option<Held>,
    /// What is known to be claimed, to be said where this node does not hold it.
    known: Known,
}

/// The latest claim that is known of an address, and of which node, if that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) epoch: u64,
    pub(crate) holder: Option<NodeTag>,
}

/// What this node tells a partner.
#[derive(Debug, Default)]
pub(crate) struct Told {
    now: ClaimSet,
    /// Addresses to say something about.
    pending: BTreeMap<IpAddr, Pending>,
    sent_list: Option<Duration>,
}

impl Told {
    /// Takes as little room as can be.
    pub(crate) fn pack(&mut self) {
        packed(&mut self.now.held);
    }

    /// Notes that this node answers for an address with this number, or cares for it.
    pub(crate) fn hold(&mut self, address: IpAddr, held: Held) {
        let old = self.now.set(address, Some(held));
        if old != Some(held) {
            self.pending.entry(address).or_insert(Pending { old, known: Known::default() });
        }
    }

    /// Notes that this node does not hold an address, and what is known to be claimed.
    pub(crate) fn drop(&mut self, address: IpAddr, known: Known) {
        let old = self.now.set(address, None);
        if old.is_some() {
            self.pending.entry(address).or_insert(Pending { old, known }).known = known;
        }
    }

    /// Says what is claimed for an address to a partner that seems not to know: this node's claim, or another's.
    pub(crate) fn repeat(&mut self, address: IpAddr, known: Known) {
        let old = self.now.held.get(&address).copied();
        self.pending.entry(address).or_insert(Pending { old, known }).known = known;
    }

    /// That this node lives, without what changed.
    pub(crate) fn alive(&self) -> Body {
        Body::Heartbeat { digest: self.now.digest, count: self.now.held.len() as u32 }
    }

    /// What to send now: the changes, or that there are none. Never empty.
    pub(crate) fn changes(&mut self) -> Vec<Body> {
        let pending = std::mem::take(&mut self.pending);
        // Each datagram carries the digest of the list as the partner will have it after this datagram.
        let mut digest = self.now.digest;
        let mut count = self.now.held.len();
        let mut claims = Vec::with_capacity(pending.len());
        for (&address, &Pending { old, known }) in &pending {
            let new = self.now.held.get(&address).copied();
            digest = shifted(digest, address, new, old);
            count = count + usize::from(old.is_some()) - usize::from(new.is_some());
            claims.push(match new {
                Some(held) => Claim { address, epoch: held.epoch, stance: held.stance() },
                None => Claim { address, epoch: known.epoch, stance: Stance::Knows(known.holder) },
            });
        }
        if claims.is_empty() {
            return vec![self.alive()];
        }
        let mut bodies = Vec::with_capacity(claims.len() / ENTRIES_MAX + 1);
        for entries in Entries::split(&claims) {
            for claim in entries.as_slice() {
                let old = pending.get(&claim.address).and_then(|pending| pending.old);
                let new = Held::of(claim);
                digest = shifted(digest, claim.address, old, new);
                count = count + usize::from(new.is_some()) - usize::from(old.is_some());
            }
            bodies.push(Body::Changes { digest, count: count as u32, entries });
        }
        bodies
    }

    /// The whole list, unless it was sent a moment ago. Never empty.
    pub(crate) fn list(&mut self, now: Duration) -> Option<Vec<Body>> {
        if self.sent_list.is_some_and(|sent| now < sent + CLAIMS_INTERVAL) {
            return None;
        }
        self.sent_list = Some(now);
        self.pending.clear();
        let digest = self.now.digest;
        let held = self.now.held.iter();
        let claims: Vec<Claim> =
            held.map(|(&address, held)| Claim { address, epoch: held.epoch, stance: held.stance() }).collect();
        let parts = claims.len().div_ceil(ENTRIES_MAX).min(usize::from(PARTS_MAX)) as u16;
        if parts == 0 {
            return Some(vec![Body::Heartbeat { digest, count: 0 }]);
        }
        let bodies = (0..parts).zip(Entries::split(&claims));
        Some(bodies.map(|(part, entries)| Body::Claims { digest, part, parts, entries }).collect())
    }
}

/// A list that is being put together from its parts.
#[derive(Debug)]
struct Assembly {
    digest: Digest,
    parts: u16,
    claims: BTreeMap<u16, Vec<Claim>>,
}

/// What a datagram changed in what a partner is known to claim.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Learnt {
    /// Addresses that it says to answer for, whether that is new or not.
    pub(crate) claimed: Vec<(IpAddr, u64)>,
    /// Addresses that it says to care for, likewise.
    pub(crate) cared_for: Vec<(IpAddr, u64)>,
    /// Addresses that it holds no longer.
    pub(crate) dropped: Vec<IpAddr>,
    /// Addresses that it does not hold, with the latest claim that it knows of.
    pub(crate) known: Vec<(IpAddr, Known)>,
}

/// What a partner tells this node.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    now: ClaimSet,
    assembly: Option<Assembly>,
    asking: bool,
    asked: Option<Duration>,
}

impl Heard {
    /// Takes as little room as can be.
    pub(crate) fn pack(&mut self) {
        packed(&mut self.now.held);
    }

    /// The number of the partner's ownership of an address, if it claims it.
    pub(crate) fn epoch(&self, address: IpAddr) -> Option<u64> {
        self.now.held.get(&address).filter(|held| !held.cares).map(|held| held.epoch)
    }

    /// The number of the ownership of another node, in whose place the partner answers, if it does.
    pub(crate) fn cares(&self, address: IpAddr) -> Option<u64> {
        self.now.held.get(&address).filter(|held| held.cares).map(|held| held.epoch)
    }

    /// Whether the whole list is needed from the partner.
    pub(crate) fn asking(&self) -> bool {
        self.asking
    }

    /// Wants the whole list; returns whether to ask for it at once or to leave it to the next heartbeat.
    pub(crate) fn ask(&mut self, now: Duration) -> bool {
        self.asking = true;
        let at_once = self.asked.is_none_or(|asked| now >= asked + CLAIMS_INTERVAL);
        if at_once {
            self.asked = Some(now);
        }
        at_once
    }

    /// Forgets everything: the partner's process is a new one.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Takes in what the partner says. Sets [`Heard::asking`] when something is missing.
    pub(crate) fn take(&mut self, body: &Body) -> Learnt {
        let mut learnt = Learnt::default();
        match body {
            Body::Heartbeat { digest, count } => {
                if *count == 0 && *digest == Digest::EMPTY {
                    self.replace(&BTreeSet::new(), &mut learnt);
                }
                self.asking = *digest != self.now.digest;
            }
            Body::Changes { digest, entries, .. } => {
                for claim in entries.as_slice() {
                    self.apply(claim, &mut learnt);
                }
                self.asking = *digest != self.now.digest;
            }
            Body::Claims { digest, part, parts, entries } => {
                for claim in entries.as_slice() {
                    self.apply(claim, &mut learnt);
                }
                self.assemble(*digest, *part, *parts, entries, &mut learnt);
            }
            Body::Sightings(_) => {}
        }
        learnt
    }

    fn assemble(&mut self, digest: Digest, part: u16, parts: u16, entries: &Entries, learnt: &mut Learnt) {
        let mut assembly = match self.assembly.take() {
            Some(assembly) if assembly.digest == digest && assembly.parts == parts => assembly,
            _ => Assembly { digest, parts, claims: BTreeMap::new() },
        };
        assembly.claims.insert(part, entries.as_slice().to_vec());
        if assembly.claims.len() < usize::from(parts) {
            self.assembly = Some(assembly);
            return;
        }
        let list = assembly.claims.into_values().flatten().map(|claim| claim.address).collect();
        self.replace(&list, learnt);
        self.asking = digest != self.now.digest;
    }

    fn replace(&mut self, list: &BTreeSet<IpAddr>, learnt: &mut Learnt) {
        let gone: Vec<IpAddr> = self.now.held.keys().filter(|address| !list.contains(address)).copied().collect();
        for address in gone {
            self.now.set(address, None);
            learnt.dropped.push(address);
        }
    }

    fn apply(&mut self, claim: &Claim, learnt: &mut Learnt) {
        let address = claim.address;
        if claim.is_held() && self.now.held.len() >= HEARD_MAX && !self.now.held.contains_key(&address) {
            return;
        }
        let old = self.now.set(address, Held::of(claim));
        match claim.stance {
            Stance::Answers => learnt.claimed.push((address, claim.epoch)),
            Stance::Cares => {
                learnt.cared_for.push((address, claim.epoch));
                if old.is_some_and(|old| !old.cares) {
                    learnt.dropped.push(address);
                }
            }
            Stance::Knows(holder) => {
                learnt.known.push((address, Known { epoch: claim.epoch, holder }));
                if old.is_some() {
                    learnt.dropped.push(address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
