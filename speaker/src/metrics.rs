//! What the speaker counts. No label has an address or a node in it, so the number of series is fixed.

use berth_telemetry::Registry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// Prefix of every metric's name.
const PREFIX: &str = "berth_speaker";

/// A label whose values are the variants of an enum.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident as $labels:ident { $key:ident } { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            const ALL: &[Self] = &[$(Self::$variant,)*];

            fn labels(self) -> $labels {
                $labels { $key: match self { $(Self::$variant => $text,)* } }
            }
        }

        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        struct $labels { $key: &'static str }
    };
}

label! {
    /// Why a heartbeat was not believed.
    Refusal as RefusalLabels { cause } {
        /// It cannot be read.
        Malformed => "malformed",
        /// Without an envelope.
        Unauthenticated => "unauthenticated",
        /// Under a key that this node does not have.
        UnknownGeneration => "unknown_generation",
        /// Forged, changed on its way, or for another node.
        BadTag => "bad_tag",
        /// From a node that shares no address with this one on that interface.
        Unknown => "unknown",
        /// Old or repeated.
        Sequence => "sequence",
        /// Of an earlier start of that node's process.
        BootId => "boot_id",
        /// From a sender that does not prove to hear this node: one that just started, or a forger.
        Unproven => "unproven",
    }
}

label! {
    /// What the driver had to drop.
    Queue as QueueLabels { queue } {
        /// ARP frames that the kernel's send queue did not take.
        Arp => "arp",
        /// Neighbor solicitations and advertisements that the kernel's send queue did not take.
        Ndp => "ndp",
        /// Heartbeats that the kernel's send queue did not take.
        Heartbeat => "heartbeat",
        /// Addresses of which nobody looked whether the node serves them.
        Evidence => "evidence",
        /// Events that were not published, because the API server was away or too many waited.
        Event => "event",
    }
}

label! {
    /// What could not be listened for on an interface.
    Listen as ListenLabels { what } {
        /// Anything: its sockets could not be opened.
        Everything => "everything",
        /// ARP about addresses that are new.
        Arp => "arp",
        /// Neighbor discovery about addresses that are new.
        Ndp => "ndp",
        /// Groups by which addresses are asked for.
        Groups => "groups",
        /// Heartbeats over IPv6.
        Heartbeat6 => "heartbeat_ipv6",
    }
}

label! {
    /// Which watch failed.
    Watch as WatchLabels { resource } {
        /// The Announcements of this node.
        Announcement => "announcements",
        /// The SpeakerNode of this node.
        SpeakerNode => "speakernodes",
    }
}

label! {
    /// How an attempt to write a status ended.
    StatusWrite as StatusWriteLabels { result } {
        /// Written.
        Written => "written",
        /// Somebody else had changed the object; read again.
        Conflict => "conflict",
        /// The API server refused it or is away.
        Failed => "failed",
    }
}

/// Bounds around what a takeover takes: 340 ms, and its doublings after false alarms; an owner that was cared for first is beyond.
const TAKEOVER_BUCKETS: [f64; 9] = [0.3, 0.35, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 30.0];

/// The metrics of this process. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Addresses that this node answers for.
    pub addresses_answering: Gauge,
    /// Addresses that this node stands by for.
    pub addresses_standby: Gauge,
    /// Addresses that this node answers for in place of a silent speaker.
    pub addresses_caring: Gauge,
    /// Partners that this node exchanges heartbeats with.
    pub partners: Gauge,
    /// Those of them that were heard within the detection time.
    pub partners_up: Gauge,
    /// ARP replies sent.
    pub arp_replies: Counter,
    /// Gratuitous ARP frames sent.
    pub gratuitous: Counter,
    /// ARP probes sent.
    pub arp_probes: Counter,
    /// Solicited neighbor advertisements sent.
    pub ndp_replies: Counter,
    /// Unsolicited neighbor advertisements sent.
    pub unsolicited: Counter,
    /// Neighbor solicitations sent.
    pub ndp_probes: Counter,
    /// Questions for addresses ahead of need.
    pub sweep_probes: Counter,
    /// Groups that the kernel did not let this node join.
    pub groups_refused: Gauge,
    /// Addresses given up to a claim that prevails.
    pub yields: Counter,
    /// Times that the process could not run.
    pub fenced: Counter,
    /// Takeovers by this node.
    pub takeovers: Counter,
    /// Partners that fell silent and were found alive.
    pub false_alarms: Counter,
    /// Addresses taken care of in place of silent speakers.
    pub caretakings: Counter,
    /// Claims of others that partners did not know and were told.
    pub claims_passed_on: Counter,
    /// Questions to nodes of silent partners whether they live.
    pub node_checks: Counter,
    /// How long owners had been silent when their addresses were taken over.
    pub takeover_silence: Histogram,
    /// Partners with a longer detection time.
    pub partners_late: Gauge,
    /// Heartbeats sent.
    pub heartbeats_sent: Counter,
    /// Heartbeats received and believed.
    pub heartbeats_received: Counter,
    /// The newest key that heartbeats are authenticated with.
    pub heartbeat_key_generation: Gauge,
    /// Conflicts seen.
    pub conflicts: Counter,
    /// Health check node ports that are answered on.
    pub health_checks: Gauge,
    /// Attempts to listen on one that somebody else has.
    pub health_checks_refused: Counter,
    /// Routes and addresses that bear Berth's mark.
    pub routes: Gauge,
    /// Addresses that this node cannot route.
    pub routes_refused: Gauge,
    /// Objects that could not be read.
    pub malformed_objects: Counter,
    heartbeats_refused: Family<RefusalLabels, Counter>,
    dropped: Family<QueueLabels, Counter>,
    listen_errors: Family<ListenLabels, Counter>,
    watch_errors: Family<WatchLabels, Counter>,
    status_writes: Family<StatusWriteLabels, Counter>,
}

impl Metrics {
    /// Registers every metric, each label with every value, so that a rate is 0 and not missing until the first count.
    #[allow(clippy::too_many_lines, reason = "one list")]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            addresses_answering: registry.gauge("addresses_answering", "Addresses that this node answers for."),
            addresses_standby: registry.gauge("addresses_standby", "Addresses that this node stands by for."),
            addresses_caring: registry.gauge(
                "addresses_caring",
                "Addresses that this node answers for in place of their owners, whose speakers are silent while their nodes live.",
            ),
            partners: registry.gauge("partners", "Speakers that this one exchanges heartbeats with."),
            partners_up: registry.gauge("partners_up", "Partners that were heard within the detection time."),
            arp_replies: registry.counter("arp_replies", "ARP replies sent for addresses of Services."),
            gratuitous: registry.counter("gratuitous", "Gratuitous ARP frames sent, which tell the link who answers."),
            arp_probes: registry.counter("arp_probes", "ARP probes sent, which ask the link whether anybody answers."),
            ndp_replies: registry.counter(
                "ndp_replies",
                "Neighbor advertisements sent in answer to solicitations of addresses of Services.",
            ),
            unsolicited: registry
                .counter("unsolicited", "Unsolicited neighbor advertisements sent, which tell the link who answers."),
            ndp_probes: registry
                .counter("ndp_probes", "Neighbor solicitations sent, which ask the link whether anybody answers."),
            sweep_probes: registry.counter(
                "sweep_probes",
                "ARP probes and neighbor solicitations sent for free addresses, ahead of need: whether a foreign machine has one.",
            ),
            groups_refused: registry.gauge(
                "groups_refused",
                "Groups by which IPv6 addresses are asked for and that the kernel does not let this node join.",
            ),
            yields: registry.counter("yields", "Addresses given up because another node's newer claim was heard."),
            fenced: registry.counter(
                "fenced",
                "Times that the process could not run for so long that it asked the link before it answered again.",
            ),
            takeovers: registry.counter("takeovers", "Addresses taken over from an owner that fell silent."),
            false_alarms: registry
                .counter("false_alarms", "Times that a partner fell silent and was then found to be alive."),
            caretakings: registry.counter(
                "caretakings",
                "Times that this node began to answer for an address in place of its owner, whose speaker was silent or stopped while its \
                 node lived.",
            ),
            claims_passed_on: registry
                .counter("claims_passed_on", "Claims that this node heard and told to a partner which seemed not to know."),
            node_checks: registry
                .counter("node_checks", "ARP requests and solicitations that asked the node of a silent speaker whether it lives."),
            takeover_silence: registry.histogram(
                "takeover_silence_seconds",
                "Time from the last heartbeat of an owner to the takeover of an address of it.",
                TAKEOVER_BUCKETS,
            ),
            partners_late: registry.gauge(
                "partners_late",
                "Partners whose detection time is longer than 300 ms, because they gave false alarms.",
            ),
            heartbeats_sent: registry.counter("heartbeats_sent", "Heartbeats sent to other speakers."),
            heartbeats_received: registry.counter("heartbeats_received", "Heartbeats of other speakers believed."),
            heartbeat_key_generation: registry.gauge(
                "heartbeat_key_generation",
                "Newest generation of the keys by which heartbeats are authenticated: when the controller made it, in seconds since 1970; 0 \
                 without a key.",
            ),
            conflicts: registry.counter(
                "conflicts",
                "Times that a machine which is none of our nodes was found to answer for an address.",
            ),
            health_checks: registry.gauge(
                "health_checks",
                "Health check node ports that this speaker answers on, because nobody else does.",
            ),
            health_checks_refused: registry.counter(
                "health_checks_refused",
                "Attempts to listen on a health check node port that failed, most often because somebody else has it.",
            ),
            routes: registry.gauge(
                "routes",
                "Routes and addresses of Services in the node's kernel that bear Berth's mark, for a routing daemon to make known.",
            ),
            routes_refused: registry.gauge("routes_refused", "Addresses that this node is to route and cannot."),
            malformed_objects: registry.counter(
                "malformed_objects",
                "Announcements that could not be read; the last good one stays in force.",
            ),
            heartbeats_refused: registry.counter_family(
                "heartbeats_refused",
                "Heartbeats not believed, by cause: malformed, unauthenticated, unknown_generation, bad_tag, unknown, sequence, boot_id, \
                 unproven.",
            ),
            dropped: registry.counter_family(
                "dropped",
                "What was dropped because a queue was full, by queue: arp, ndp, heartbeat, evidence, event.",
            ),
            listen_errors: registry.counter_family(
                "listen_errors",
                "Attempts to listen on an interface that failed and are made again each second, by what was not had: everything, arp, \
                 ndp, groups, heartbeat_ipv6.",
            ),
            watch_errors: registry
                .counter_family("watch_errors", "Errors of watches, by resource: announcements, speakernodes."),
            status_writes: registry.counter_family(
                "status_writes",
                "Attempts to write the status of an Announcement, by result: written, conflict, failed.",
            ),
        };
        metrics.count_from_zero();
        metrics
    }

    /// Makes every series with a label, so that it is there before anything was counted.
    fn count_from_zero(&self) {
        for label in Refusal::ALL {
            self.heartbeats_refused.get_or_create_owned(&label.labels());
        }
        for label in Queue::ALL {
            self.dropped.get_or_create_owned(&label.labels());
        }
        for label in Listen::ALL {
            self.listen_errors.get_or_create_owned(&label.labels());
        }
        for label in Watch::ALL {
            self.watch_errors.get_or_create_owned(&label.labels());
        }
        for label in StatusWrite::ALL {
            self.status_writes.get_or_create_owned(&label.labels());
        }
    }

    /// Heartbeats were not believed.
    pub fn heartbeat_refused(&self, cause: Refusal, times: u64) {
        self.heartbeats_refused.get_or_create(&cause.labels()).inc_by(times);
    }

    /// Something was dropped.
    pub fn dropped(&self, queue: Queue) {
        self.dropped.get_or_create(&queue.labels()).inc();
    }

    /// Something could not be listened for.
    pub fn listen_error(&self, what: Listen) {
        self.listen_errors.get_or_create(&what.labels()).inc();
    }

    /// A watch failed.
    pub fn watch_error(&self, watch: Watch) {
        self.watch_errors.get_or_create(&watch.labels()).inc();
    }

    /// An attempt to write a status ended.
    pub fn status_write(&self, result: StatusWrite) {
        self.status_writes.get_or_create(&result.labels()).inc();
    }
}

/// A count as gauges take it.
pub fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// An empty registry with the speaker's prefix.
pub fn registry() -> Registry {
    Registry::new(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_before_anything_happened() {
        let mut registry = registry();
        Metrics::new(&mut registry);
        let text = registry.render().unwrap();
        for series in [
            "berth_speaker_takeovers_total 0",
            "berth_speaker_heartbeats_refused_total{cause=\"unknown\"} 0",
            "berth_speaker_heartbeats_refused_total{cause=\"bad_tag\"} 0",
            "berth_speaker_heartbeat_key_generation 0",
            "berth_speaker_dropped_total{queue=\"ndp\"} 0",
            "berth_speaker_status_writes_total{result=\"conflict\"} 0",
            "berth_speaker_listen_errors_total{what=\"ndp\"} 0",
            "berth_speaker_watch_errors_total{resource=\"announcements\"} 0",
        ] {
            assert!(text.lines().any(|line| line == series), "{series} in\n{text}");
        }
    }
}
