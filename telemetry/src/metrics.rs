//! A metrics registry that also knows its own catalogue, from which the reference page is generated.

use std::fmt::Debug;
use std::hash::Hash;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A count that only rises.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A line of the metrics reference page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricDoc {
    /// Full name, as it is scraped.
    pub name: String,
    /// What it is.
    pub kind: MetricKind,
    /// What it says.
    pub help: &'static str,
}

/// The metrics of one process.
#[derive(Debug)]
pub struct Registry {
    inner: prometheus_client::registry::Registry,
    prefix: &'static str,
    catalogue: Vec<MetricDoc>,
}

impl Registry {
    /// An empty registry whose metrics all start with `prefix` and an underscore.
    pub fn new(prefix: &'static str) -> Self {
        Self { inner: prometheus_client::registry::Registry::with_prefix(prefix), prefix, catalogue: Vec::new() }
    }

    /// A counter. `name` without the `_total` that the exposition format adds.
    pub fn counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        let metric = Counter::default();
        self.register(name, help, MetricKind::Counter, metric.clone());
        metric
    }

    /// A counter for each combination of labels. Only labels with few values.
    pub fn counter_family<L>(&mut self, name: &'static str, help: &'static str) -> Family<L, Counter>
    where
        L: EncodeLabelSet + Clone + Eq + Hash + Debug + Send + Sync + 'static,
    {
        let metric = Family::<L, Counter>::default();
        self.register(name, help, MetricKind::Counter, metric.clone());
        metric
    }

    /// A gauge.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> Gauge {
        let metric = Gauge::default();
        self.register(name, help, MetricKind::Gauge, metric.clone());
        metric
    }

    /// A gauge for each combination of labels. Only labels with few values.
    pub fn gauge_family<L>(&mut self, name: &'static str, help: &'static str) -> Family<L, Gauge>
    where
        L: EncodeLabelSet + Clone + Eq + Hash + Debug + Send + Sync + 'static,
    {
        let metric = Family::<L, Gauge>::default();
        self.register(name, help, MetricKind::Gauge, metric.clone());
        metric
    }

    /// A histogram with the given upper bounds.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        buckets: impl IntoIterator<Item = f64>,
    ) -> Histogram {
        let metric = Histogram::new(buckets);
        self.register(name, help, MetricKind::Histogram, metric.clone());
        metric
    }

    /// Every metric, in the order of registration.
    pub fn catalogue(&self) -> &[MetricDoc] {
        &self.catalogue
    }

    /// The metrics in the OpenMetrics text format.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.inner)?;
        Ok(text)
    }

    fn register(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricKind,
        metric: impl prometheus_client::registry::Metric,
    ) {
        let suffix = if kind == MetricKind::Counter { "_total" } else { "" };
        self.catalogue.push(MetricDoc { name: format!("{}_{name}{suffix}", self.prefix), kind, help });
        // The registry puts a full stop behind the help text itself.
        self.inner.register(name, help.trim_end_matches('.'), metric);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_names_metrics_as_they_are_scraped() {
        let mut registry = Registry::new("berth_test");
        registry.counter("writes", "Writes.").inc();
        registry.gauge("held", "Addresses held.").set(3);
        let text = registry.render().unwrap();
        for doc in registry.catalogue() {
            assert!(text.lines().any(|line| line.split(' ').next() == Some(&doc.name)), "{} in\n{text}", doc.name);
        }
        assert!(text.contains("# HELP berth_test_writes Writes.\n"), "{text}");
    }
}
