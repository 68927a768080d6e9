//! What the controller counts.

use berth_telemetry::Registry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds in seconds: from one quick write to an API server that hardly answers.
const APPLY_BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct WriteLabels {
    pub(crate) kind: &'static str,
    pub(crate) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabels {
    pub(crate) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ProviderLabels {
    pub(crate) provider: &'static str,
    pub(crate) class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OrphanLabels {
    pub(crate) provider: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PoolLabels {
    pub(crate) pool: String,
    pub(crate) family: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) leader: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) backlog: Gauge,
    pub(crate) assigned: Family<PoolLabels, Gauge>,
    pub(crate) available: Family<PoolLabels, Gauge>,
    pub(crate) quarantined: Family<PoolLabels, Gauge>,
    pub(crate) writes: Family<WriteLabels, Counter>,
    pub(crate) apply_seconds: Histogram,
    pub(crate) provider_failures: Family<ProviderLabels, Counter>,
    pub(crate) orphans: Family<OrphanLabels, Gauge>,
    pub(crate) watch_errors: Family<KindLabels, Counter>,
    pub(crate) malformed: Family<KindLabels, Counter>,
    pub(crate) events_dropped: Counter,
}

impl Metrics {
    pub(crate) fn new() -> (Self, Registry) {
        let mut registry = Registry::new("berth_controller");
        let metrics = Self {
            leader: registry.gauge("leader", "Whether this replica leads: 1 or 0."),
            waiting: registry.gauge("services_waiting", "Services of ours whose request is not met."),
            backlog: registry.gauge("backlog", "Services in line to be planned."),
            assigned: registry.gauge_family("pool_addresses_assigned", "Addresses held from each pool, by family."),
            available: registry.gauge_family(
                "pool_addresses_available",
                "Addresses that each pool can still give, by family; 9223372036854775807 also stands for more.",
            ),
            quarantined: registry.gauge_family(
                "pool_addresses_quarantined",
                "Addresses of each pool that a foreign machine was found to have before their first use, by family.",
            ),
            writes: registry.counter_family("writes", "Writes to the API server by kind of object and result."),
            apply_seconds: registry.histogram(
                "apply_seconds",
                "Time from a Service's plan to its last write, in seconds.",
                APPLY_BUCKETS,
            ),
            provider_failures: registry.counter_family(
                "provider_failures",
                "Looks and effects of providers that failed, by class of failure.",
            ),
            orphans: registry.gauge_family(
                "provider_orphans",
                "Things outside the cluster that carry its marks and belong to no Service that is here, by provider; of the leader alone, from its first search on.",
            ),
            watch_errors: registry.counter_family("watch_errors", "Watches that broke off, by kind of object."),
            malformed: registry
                .counter_family("malformed_objects", "Objects that could not be read and were passed over, by kind."),
            events_dropped: registry.counter(
                "events_dropped",
                "Kubernetes events not written: too many at once, or the API server was away.",
            ),
        };
        (metrics, registry)
    }
}
