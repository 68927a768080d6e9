//! Every time and count of the machine, with its reason.

use std::time::Duration;

/// Between two heartbeats to a partner. Ten small datagrams a second cost nothing on a link, and a switch or a busy node
/// delays one by less.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);

/// Heartbeats in a row that must be missing before a partner counts as silent, as in BFD (RFC 5880 section 6.8.4): one may be
/// lost and a second late.
pub const DETECTION_MULTIPLIER: u32 = 3;

/// Silence after which a partner is asked for on the wire; also how long an owner may be unable to run before it has to ask
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

/// How long a partner that is heard may leave an address that is its own unclaimed before a standby asks the wire. Long enough
/// for its copy of the Announcement to arrive and for its own question to the wire.
pub const IDLE_OWNER_WAIT: Duration = Duration::from_secs(2);

/// Between two looks at an address that was in conflict before its first use.
pub const CONFLICT_RECHECK: Duration = Duration::from_secs(3);

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
