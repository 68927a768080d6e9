//! The state of one address on one node, and the rules by which claims to it prevail.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_api::{MacAddr, Reason};
use berth_wire::heartbeat::{EPOCH_MAX, NodeName};

use crate::broken::{Rule, is_broken};
use crate::claims::{Held, Known};
use crate::effect::State;
use crate::input::{Assignment, Member, OwnerClaim};
use crate::liveness::PeerId;
use crate::schedule::Schedule;
use crate::timing::PROBE_SPACING;

/// What this node does about the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Silent; another node answers, or should.
    Standby,
    /// Silent; the wire is being asked before a takeover.
    Probing(Probe),
    /// Silent; the wire is being asked before this node answers.
    Verifying(Verifying),
    /// Silent; somebody else has the address, and it was never in use by us.
    Conflicted,
    /// Answering in place of the owner.
    Caring(Box<Care>),
    /// Answering.
    Answering(Ownership),
}

/// That this node answers in place of the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Care {
    /// The ownership that it is about.
    pub(crate) claim: OwnerClaim,
    /// The Ethernet address of the owner's node, which is told.
    pub(crate) mac: MacAddr,
    /// Since when.
    pub(crate) since: Duration,
    /// Whether it was said in the status.
    pub(crate) reported: bool,
    /// The wire is being asked whether the owner answers after all, or its node is dead.
    pub(crate) question: Option<Probe>,
}

/// A question to the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Probes sent so far.
    pub(crate) sent: u32,
    /// When the next step is due: another probe, or the verdict.
    pub(crate) due: Duration,
}

impl Probe {
    /// Begins now; the first probe goes out with it.
    pub(crate) fn begin(now: Duration) -> Self {
        Self { sent: 1, due: now + PROBE_SPACING }
    }

    /// Begins as soon as it has a turn.
    pub(crate) fn soon(now: Duration) -> Self {
        Self { sent: 0, due: now }
    }
}

/// A question to the wire before answering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verifying {
    /// The question.
    pub(crate) probe: Probe,
    /// The ownership to go on with when this node answered before and was away.
    pub(crate) resume: Option<Box<Ownership>>,
    /// Who answered, if what it claims is not known for sure: nothing happens before the wire is asked again.
    pub(crate) answered: Option<Answered>,
    /// How often the wire was asked in vain.
    pub(crate) rounds: u32,
    /// The wire has nothing against it, and what is missing is evidence that this node forwards: until when that is waited for.
    pub(crate) serve_by: Option<Duration>,
}

impl Verifying {
    /// Whether what partners are known to claim may be taken for what they claim now. Not in the first round after this node was
    /// away: what they said meanwhile may still wait in the socket.
    pub(crate) fn trusts_claims(&self) -> bool {
        self.resume.is_none() || self.rounds > 0
    }
}

/// A node of ours that answered a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// One with a part in the address.
    Peer(PeerId),
    /// Another one.
    Node,
}

/// That this node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ownership {
    /// Its number.
    pub(crate) epoch: u64,
    /// Since when.
    pub(crate) since: Duration,
    /// Why.
    pub(crate) cause: Reason,
    /// Announcements still to come.
    pub(crate) schedule: Schedule,
}

/// Another node with a part in the address, or a partner that claims it although this node does not know of its part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) node: NodeName,
    pub(crate) mac: MacAddr,
}

/// One address.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) assignment: Assignment,
    /// Where this node answers.
    pub(crate) me: Arc<Member>,
    /// The others.
    pub(crate) peers: Arc<[Peer]>,
    pub(crate) phase: Phase,
    /// The claim that prevails, or the assignment that does while nobody has claimed yet. Its epoch never falls.
    pub(crate) top: Option<OwnerClaim>,
    /// Highest epoch that a node of ours is known to have claimed. As long as there is none, a foreign machine that has the
    /// address keeps it.
    pub(crate) seen: Option<u64>,
    /// Since when `top` names its node: it gets one detection time from then.
    pub(crate) watch_since: Duration,
    /// No takeover before this.
    pub(crate) hold_until: Duration,
    /// What is known of it, since this node was named, whether it forwards what comes for the address.
    pub(crate) serves: Serves,
    /// What few addresses have.
    rare: Option<Box<Rare>>,
}

/// What is known of an address that has, or had, a trouble of its own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rare {
    /// A foreign machine that says it has the address, and when it was heard last.
    pub(crate) foreign: Option<(MacAddr, Duration)>,
    /// The one of them that the status named last, and when.
    pub(crate) named: Option<(MacAddr, Duration)>,
    /// When the address was last defended against it.
    pub(crate) defended: Option<Duration>,
    /// An ownership that this node cares or cared for, and since when its owner is away.
    pub(crate) cared: Option<(OwnerClaim, Duration)>,
    /// That this node stood back for one that it knows to have the address only by the Announcement.
    pub(crate) word: Option<Word>,
}

/// Whether this node forwards what comes for an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Serves {
    /// Not asked yet.
    #[default]
    Unasked,
    /// The driver looks.
    Asked,
    /// Something showed it.
    Yes,
}

/// A node that has an address by the word of the Announcement alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// The node.
    pub(crate) node: NodeName,
    /// For how long this node stood back the last time.
    pub(crate) hold: Duration,
    /// Until when it stands back.
    pub(crate) until: Duration,
}

/// Whose Ethernet address a frame came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This node's own.
    Own,
    /// A node with a part in the address.
    Peer(Peer),
    /// Some other node of ours.
    Node,
    /// No node of ours.
    Foreign,
}

/// Of an address without any.
static NONE: Rare = Rare { foreign: None, named: None, defended: None, cared: None, word: None };

impl Place {
    /// One that nothing is known of yet.
    pub(crate) fn new(now: Duration, me: Arc<Member>, assignment: Assignment, peers: Arc<[Peer]>) -> Self {
        Self {
            assignment,
            me,
            peers,
            phase: Phase::Standby,
            top: None,
            seen: None,
            watch_since: now,
            hold_until: now,
            serves: Serves::Unasked,
            rare: None,
        }
    }

    pub(crate) fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NONE)
    }

    /// Changes what few addresses have; nothing is kept where nothing is left of it.
    pub(crate) fn change_rare<T>(&mut self, change: impl FnOnce(&mut Rare) -> T) -> T {
        let mut rare = self.rare.take().unwrap_or_default();
        let result = change(&mut rare);
        self.rare = (*rare != NONE).then_some(rare);
        result
    }

    pub(crate) fn state(&self) -> State {
        match self.phase {
            Phase::Standby => State::Standby,
            Phase::Probing(_) => State::Probing,
            Phase::Verifying(_) => State::Verifying,
            Phase::Conflicted => State::Conflicted,
            Phase::Caring(_) => State::Caring,
            Phase::Answering(_) => State::Answering,
        }
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.assignment.address
    }

    pub(crate) fn peer(&self, node: &NodeName) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.node == *node)
    }

    /// Whether the prevailing claim is this node's.
    pub(crate) fn is_mine(&self) -> bool {
        self.top.as_ref().is_some_and(|top| top.node == self.me.node)
    }

    /// Nodes that may own the address, in the order in which they take over from each other.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = &NodeName> {
        self.assignment.owner.iter().chain(self.assignment.standbys.iter())
    }

    /// Nodes that take over before this one when `top` falls silent, or `None` if this one does not.
    pub(crate) fn ahead(&self) -> Option<Vec<&NodeName>> {
        let top = self.top.as_ref().map(|top| &top.node);
        let mut ahead = Vec::new();
        for node in self.candidates().filter(|node| Some(*node) != top) {
            if *node == self.me.node {
                return Some(ahead);
            }
            ahead.push(node);
        }
        None
    }

    /// The ownership that this node has or was given, which other nodes' claims are measured by; none for a standby.
    pub(crate) fn right(&self) -> Option<OwnerClaim> {
        let epoch = match &self.phase {
            Phase::Answering(ownership) => ownership.epoch,
            Phase::Verifying(Verifying { resume: Some(ownership), .. }) => ownership.epoch,
            Phase::Verifying(_) => self.top.as_ref().filter(|_| self.is_mine())?.epoch,
            Phase::Standby | Phase::Probing(_) | Phase::Conflicted | Phase::Caring(_) => return None,
        };
        Some(OwnerClaim { node: self.me.node.clone(), epoch })
    }

    /// The number that this node claims when the wire does not object: that of its right, unless another node has used it already
    /// or a higher one, and is gone.
    pub(crate) fn intended(&self) -> u64 {
        self.right().map(|right| right.epoch).filter(|epoch| Some(*epoch) >= self.seen).unwrap_or(self.next_epoch())
    }

    /// The first number that nobody has used or been given. Where there is none left, the last one: names decide then.
    pub(crate) fn next_epoch(&self) -> u64 {
        let assigned = self.assignment.epoch.max(self.top.as_ref().map_or(0, |top| top.epoch));
        if is_broken(Rule::CountsUp) {
            return assigned;
        }
        assigned.max(self.seen.unwrap_or(0)).saturating_add(1).min(EPOCH_MAX)
    }

    /// What partners are to know of this node.
    pub(crate) fn held(&self) -> Option<Held> {
        match &self.phase {
            Phase::Answering(ownership) => Some(Held { epoch: ownership.epoch, cares: false }),
            Phase::Caring(care) => Some(Held { epoch: care.claim.epoch, cares: true }),
            _ => None,
        }
    }

    /// What is known to be claimed, for partners that do not know.
    pub(crate) fn known(&self) -> Known {
        let epoch = self.seen.unwrap_or(0);
        let holder = self.top.as_ref().filter(|top| top.epoch == epoch && epoch > 0).map(|top| top.node.tag());
        Known { epoch, holder }
    }

    /// Whether the node that should answer is known to have claimed what it should: without that the address may never have been in use.
    pub(crate) fn is_claimed(&self) -> bool {
        self.top.as_ref().is_some_and(|top| self.seen >= Some(top.epoch))
    }

    /// Notes a claim made by its node itself; returns whether it prevails now and did not before.
    pub(crate) fn hear(&mut self, now: Duration, claim: &OwnerClaim) -> bool {
        self.seen = self.seen.max(Some(claim.epoch));
        let prevails = self.top.as_ref().is_none_or(|top| claim.beats(top));
        if prevails {
            self.watch(now, claim.clone());
        }
        prevails
    }

    /// Takes over what the Announcement says. `live` says whether the prevailing claim is one that its node makes itself right now.
    ///
    /// The API's word prevails over a lower epoch always. Over an equal one only if nobody is heard to claim it: where nodes claim,
    /// each must come to the same result from the claims alone.
    pub(crate) fn adopt(&mut self, now: Duration, assignment: Assignment, live: bool) {
        let spec = assignment.owner.clone().map(|node| OwnerClaim { node, epoch: assignment.epoch });
        let claimed = assignment.claimed.clone();
        self.seen = self.seen.max(claimed.as_ref().map(|claimed| claimed.epoch));
        self.assignment = assignment;
        let known = claimed.filter(|claim| self.takes_part(&claim.node));
        let api = match (spec, known) {
            (Some(spec), Some(claimed)) if claimed.epoch > spec.epoch => Some(claimed),
            (None, Some(claimed)) => Some(claimed),
            (spec, _) => spec,
        };
        let Some(api) = api else { return };
        let prevails = match &self.top {
            None => true,
            Some(top) if !self.takes_part(&top.node) => true,
            Some(top) if top.epoch == api.epoch && live => api.beats(top),
            Some(top) => api.epoch >= top.epoch,
        };
        if prevails && self.top.as_ref() != Some(&api) {
            self.watch(now, api);
        }
    }

    fn takes_part(&self, node: &NodeName) -> bool {
        *node == self.me.node || self.peer(node).is_some()
    }

    pub(crate) fn watch(&mut self, now: Duration, top: OwnerClaim) {
        if self.top.as_ref().is_none_or(|old| old.node != top.node) {
            self.watch_since = now;
        }
        self.top = Some(top);
    }
}

#[cfg(test)]
mod tests;
