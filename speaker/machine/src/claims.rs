//! What two partners tell each other they answer for: only changes travel, and a digest shows when one was lost.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use berth_wire::heartbeat::{Body, Claim, Digest, ENTRIES_MAX, Entries, PARTS_MAX};

use crate::timing::CLAIMS_INTERVAL;

/// Most claims that are remembered of a partner: what it could put in one list.
const HEARD_MAX: usize = ENTRIES_MAX * PARTS_MAX as usize;

/// Addresses with the number of their ownership, and the digest over them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ClaimSet {
    epochs: BTreeMap<IpAddr, u64>,
    digest: Digest,
}

impl ClaimSet {
    /// Sets or removes a claim; returns what was there.
    fn set(&mut self, address: IpAddr, epoch: Option<u64>) -> Option<u64> {
        let old = match epoch {
            Some(epoch) => self.epochs.insert(address, epoch),
            None => self.epochs.remove(&address),
        };
        self.digest = shifted(self.digest, address, old, epoch);
        old
    }
}

fn shifted(mut digest: Digest, address: IpAddr, old: Option<u64>, new: Option<u64>) -> Digest {
    if let Some(old) = old {
        digest = digest.without(address, old);
    }
    if let Some(new) = new {
        digest = digest.with(address, new);
    }
    digest
}

/// Something to say about an address.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// What the partner was told last.
    old: Option<u64>,
    /// The highest number that was ever claimed, to be said where this node does not claim it.
    seen: u64,
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
    /// Notes that this node answers for an address with this number.
    pub(crate) fn claim(&mut self, address: IpAddr, epoch: u64) {
        let old = self.now.set(address, Some(epoch));
        if old != Some(epoch) {
            self.pending.entry(address).or_insert(Pending { old, seen: 0 });
        }
    }

    /// Notes that this node does not answer for an address, and which number was claimed last.
    pub(crate) fn drop(&mut self, address: IpAddr, seen: u64) {
        let old = self.now.set(address, None);
        if old.is_some() {
            self.pending.entry(address).or_insert(Pending { old, seen }).seen = seen;
        }
    }

    /// Says what is claimed for an address to a partner that seems not to know: this node's claim, or the number of another's.
    pub(crate) fn repeat(&mut self, address: IpAddr, seen: u64) {
        let old = self.now.epochs.get(&address).copied();
        self.pending.entry(address).or_insert(Pending { old, seen }).seen = seen;
    }

    /// That this node lives, without what changed.
    pub(crate) fn alive(&self) -> Body {
        Body::Heartbeat { digest: self.now.digest, count: self.now.epochs.len() as u32 }
    }

    /// What to send now: the changes, or that there are none. Never empty.
    pub(crate) fn changes(&mut self) -> Vec<Body> {
        let pending = std::mem::take(&mut self.pending);
        // Each datagram carries the digest of the list as the partner will have it after this datagram.
        let mut digest = self.now.digest;
        let mut count = self.now.epochs.len();
        let mut claims = Vec::with_capacity(pending.len());
        for (&address, &Pending { old, seen }) in &pending {
            let new = self.now.epochs.get(&address).copied();
            digest = shifted(digest, address, new, old);
            count = count + usize::from(old.is_some()) - usize::from(new.is_some());
            claims.push(Claim { address, epoch: new.unwrap_or(seen), answers: new.is_some() });
        }
        if claims.is_empty() {
            return vec![self.alive()];
        }
        let mut bodies = Vec::with_capacity(claims.len() / ENTRIES_MAX + 1);
        for entries in Entries::split(&claims) {
            for claim in entries.as_slice() {
                let old = pending.get(&claim.address).and_then(|pending| pending.old);
                let new = claim.answers.then_some(claim.epoch);
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
        let claims: Vec<Claim> =
            self.now.epochs.iter().map(|(&address, &epoch)| Claim { address, epoch, answers: true }).collect();
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
    /// Addresses that it answers for no longer.
    pub(crate) dropped: Vec<IpAddr>,
    /// Addresses that it does not answer for, with the highest number that it knows to have been claimed.
    pub(crate) seen: Vec<(IpAddr, u64)>,
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
    /// The number of the partner's ownership of an address, if it claims it.
    pub(crate) fn epoch(&self, address: IpAddr) -> Option<u64> {
        self.now.epochs.get(&address).copied()
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
                    self.replace(&BTreeMap::new(), &mut learnt);
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
        let list = assembly.claims.into_values().flatten().map(|claim| (claim.address, claim.epoch)).collect();
        self.replace(&list, learnt);
        self.asking = digest != self.now.digest;
    }

    fn replace(&mut self, list: &BTreeMap<IpAddr, u64>, learnt: &mut Learnt) {
        let gone: Vec<IpAddr> = self.now.epochs.keys().filter(|address| !list.contains_key(address)).copied().collect();
        for address in gone {
            self.now.set(address, None);
            learnt.dropped.push(address);
        }
    }

    fn apply(&mut self, claim: &Claim, learnt: &mut Learnt) {
        if claim.answers && self.now.epochs.len() >= HEARD_MAX && !self.now.epochs.contains_key(&claim.address) {
            return;
        }
        let old = self.now.set(claim.address, claim.answers.then_some(claim.epoch));
        if claim.answers {
            learnt.claimed.push((claim.address, claim.epoch));
            return;
        }
        learnt.seen.push((claim.address, claim.epoch));
        if old.is_some() {
            learnt.dropped.push(claim.address);
        }
    }
}

#[cfg(test)]
mod tests;
