//! Every time and count of the machine, with its reason.

use std::time::Duration;

/// Between two heartbeats to a partner. Ten small datagrams a second cost nothing on a link, and a switch or a busy node
/// delays one by less.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);

/// Heartbeats in a row that must be missing before a partner counts as silent, as in BFD (RFC 5880 section 6.8.4): one may be
/// lost and a second late.
pub const DETECTION_MULTIPLIER: u32 = 3;

/// Silence after which a partner is asked for on the wire, as long as it gave no false alarms; also how long an owner may be unable to run before it has to ask
/// the wire itself.
pub const DETECTION_TIME: Duration = HEARTBEAT_INTERVAL.saturating_mul(DETECTION_MULTIPLIER);

/// Probes sent when the wire is asked: one may be lost.
pub const PROBE_COUNT: u32 = 2;

/// Between two probes. RFC 5227 section 1.1 waits one to two seconds, for hosts that a person watches; within a link that
/// answers in well under a millisecond and with half a second for the whole takeover, this is ample.
pub const PROBE_SPACING: Duration = Duration::from_millis(20);

/// From the first probe to the verdict: both probes get at least 20 ms for an answer.
pub const PROBE_WAIT: Duration = PROBE_SPACING.saturating_mul(PROBE_COUNT);

/// How late the process may notice the end of a probe and still trust it. Later, answers may still wait in the socket, so it asks
/// again.
pub const PROBE_LATE: Duration = PROBE_WAIT;

/// Between two questions to a silent partner's node whether it lives, after the first [`PROBE_COUNT`], which go out with the probes.
pub const CHECK_INTERVAL: Duration = HEARTBEAT_INTERVAL;

/// The same once the node is dead and nobody may take its addresses yet.
pub const CHECK_RARELY: Duration = Duration::from_secs(1);

/// Questions in a row that a living node may leave unanswered: as many as heartbeats.
pub const CHECK_MISSES: u32 = DETECTION_MULTIPLIER;

/// Starts of a partner's process that are remembered: more than a node has while this process lives, unless something is very wrong, and
/// 8 KiB at the most.
pub const STARTS_MAX: usize = 1_024;

/// Questions in vain, because a node of ours answers that does not claim, after which a node that is to answer does. Claims settle what is
/// left; without a bound, frames that anybody can send would keep an address from being answered for.
pub const ROUNDS_MAX: u32 = 3;

/// The same where the node that answers says itself, authenticated, that it claims more than was heard of it yet: the claims of a node that took over
/// a thousand addresses are many datagrams, which come late to one that has just booted. About six seconds.
pub const ROUNDS_LISTING: u32 = 20;

/// How long a node counts as heard after another partner heard it, or it answered for one of its addresses. What others heard is asked for
/// every [`CHECK_INTERVAL`] and may be one heartbeat old by then, so two and a half; and in the moment of a real death nobody heard the node
/// much later than anybody else, so that it is over before the verdict, 340 ms after the last heartbeat.
pub const HEARD_LATELY: Duration = Duration::from_millis(250);

/// How long a standby answers in place of a speaker that is silent on a node that lives. A new start takes seconds, with a new image
/// perhaps twenty; the longest of grace periods that are common is 30 s.
pub const CARETAKER_LIMIT: Duration = Duration::from_secs(30);

/// From when on that is told in the status. A rollout is through with a node by then, so it costs the API server nothing.
pub const CARETAKER_TOLD_AFTER: Duration = Duration::from_secs(5);

/// False alarms of a partner within [`ALARM_WINDOW`] that double its detection time: one or two are bad luck.
pub const ALARMS_MAX: u32 = 3;

/// How far back false alarms count.
pub const ALARM_WINDOW: Duration = Duration::from_mins(1);

/// How often the detection time may be doubled: 2.4 s is what a node that is always late needs, and longer is no failover.
pub const DOUBLINGS_MAX: u32 = 3;

/// Time without a false alarm after which the detection time is halved again.
pub const ALARM_CALM: Duration = Duration::from_mins(10);

/// How long an address is left to a node that is known to have it only by the Announcement, and is not heard. Two nodes that share no
/// path but the API server would take it from each other in turns; this doubles each time, up to [`WORD_HOLD_MAX`].
pub const WORD_HOLD: Duration = Duration::from_secs(30);

/// The longest of these holds. The Node Leases have told the controller long before.
pub const WORD_HOLD_MAX: Duration = Duration::from_mins(5);

/// Between two addresses that begin to ask, where many want to. What follows from a question, another one and the announcement, comes 20 ms
/// later each and needs no turn, so the first ones are answered for when the last ones begin. With four frames for each address that is
/// 20,000 frames a second, a hundredth of a gigabit, and a thousand addresses begin within 200 ms. Repeated announcements take turns of
/// their own, and so delay nobody's question.
pub const TURN_TIME: Duration = Duration::from_micros(200);

/// Turns that are given at once: what few addresses do is never delayed.
pub const TURN_BURST: u32 = 64;

/// How long a partner that is heard may leave an address that is its own unclaimed before a standby asks the wire. Long enough
/// for its copy of the Announcement to arrive and for its own question to the wire.
pub const IDLE_OWNER_WAIT: Duration = Duration::from_secs(2);

/// How long a node that is to answer waits for evidence that it forwards, where nobody is without the address meanwhile. kube-proxy takes up to a
/// second for new rules (`minSyncPeriod`), and a little to write them; and standbys give an owner [`IDLE_OWNER_WAIT`] to claim.
pub const SERVE_WAIT: Duration = Duration::from_millis(1_500);

/// Between two looks at an address that was in conflict before its first use.
pub const CONFLICT_RECHECK: Duration = Duration::from_secs(3);

/// Between two rounds in which the wire is asked for addresses ahead of need. Hosts come and go in hours; what comes in between is found
/// before the address is used, at the cost of some 100 ms.
pub const SWEEP_INTERVAL: Duration = Duration::from_mins(5);

/// Between two addresses that are asked for ahead of need, and from the last question to the verdict: nothing waits for it, so it may be
/// slow.
pub const SWEEP_SPACING: Duration = Duration::from_millis(100);

/// How long a foreign machine with an address of ours must not have been heard before it is called gone. ARP entries live for about a
/// minute, so one that is still there has spoken by then.
pub const CONFLICT_CALM: Duration = Duration::from_mins(1);

/// Between two announcements in defence of an address against the same link (RFC 5227 section 2.4, DEFEND_INTERVAL), so that two
/// machines that both defend do not flood it.
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Between two requests for, or answers with, a whole list of claims for one partner: a list may be hundreds of datagrams.
pub const CLAIMS_INTERVAL: Duration = Duration::from_millis(50);

/// Between two answers to datagrams of one partner that prove nothing. Short, so that forged ones in between delay a partner which
/// starts by no more than this; long enough that a flood of them costs nothing.
pub const ANSWER_INTERVAL: Duration = Duration::from_millis(10);

/// How long a stopping process waits for its partners to take over. They need one exchange on the wire; this allows for the
/// second standby as well and stays far below the grace period of a pod.
pub const STOP_GRACE: Duration = Duration::from_secs(1);

/// When an address is announced, counted from the claim: at once, soon again for a lost frame, and later for switches and neighbours that
/// were not there yet. The last one is the bound on how long a neighbour that missed all others keeps a stale entry.
///
/// For IPv6 it is a little more than RFC 4861 section 7.2.6 has (three, a second apart): a lost frame would cost a client that second.
pub const ANNOUNCE_AT: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(1_500),
    Duration::from_secs(3),
    Duration::from_secs(5),
];

/// The shortest interval at which addresses may be announced again: twice what follows a claim, which is what makes them known. With it
/// 5,000 addresses make 1,000 frames a second, each for everybody on the link; a shorter one helps nobody and costs all.
pub const REFRESH_MIN: Duration = Duration::from_secs(10);

/// The longest one. Switches forget a station after minutes (300 s by IEEE 802.1Q section 8.8.3), routers after hours; what is longer than a
/// day refreshes nothing, and is a slip of the unit.
pub const REFRESH_MAX: Duration = Duration::from_hours(24);
