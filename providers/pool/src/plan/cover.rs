//! By which advertisements an address is announced.

use std::sync::Arc;

use berth_api::crd::ServiceRef;

use crate::placement::{Rule, Unselected};
use crate::view::key_of;
use crate::world::{Covering, World};

/// The advertisements by which an address is announced.
pub(super) struct Cover {
    pub(super) rules: Vec<Arc<Rule>>,
    /// Why there are none, where some cover the pool.
    pub(super) unselected: Option<Unselected>,
}

impl Cover {
    /// Those that cover the pool and select every Service on the address: a node that answers for it answers for all of them, and
    /// exposure is never wider than asked for. One that is gone and not taken off the address yet has no say.
    pub(super) fn of(world: &World, pool: &str, services: &[ServiceRef]) -> Self {
        let covering = world.covering(pool);
        if covering.iter().all(|covering| !covering.is_for_some_services) {
            let rules = covering.iter().map(|covering| Arc::clone(&covering.rule)).collect();
            return Self { rules, unselected: None };
        }
        let keys = services.iter().map(key_of);
        let known: Vec<_> =
            keys.filter_map(|key| Some((world.service(&key)?.labels.unpacked(), key))).collect();
        // The first Service that it does not select, and whether it selects another.
        let leaves_out = |covering: &Covering| {
            let view = world.advertisement(&covering.advertisement).filter(|_| covering.is_for_some_services)?;
            let (selected, left): (Vec<_>, Vec<_>) = known.iter().partition(|(labels, _)| view.selects_service(labels));
            Some((left.first().map(|(_, key)| key.clone()), !selected.is_empty()))
        };
        let (mut rules, mut none_of, mut sharer) = (Vec::new(), None, None);
        for covering in covering.iter() {
            match leaves_out(covering) {
                None | Some((None, true)) => rules.push(Arc::clone(&covering.rule)),
                Some((Some(service), true)) => {
                    let advertisement = covering.advertisement.clone();
                    sharer = sharer.or(Some(Unselected::Sharer { service, advertisement }));
                }
                Some((service, false)) => none_of = none_of.or(service),
            }
        }
        let all = || covering.iter().map(|covering| covering.advertisement.clone()).collect();
        let unselected = sharer.or_else(|| none_of.map(|service| Unselected::Service { service, advertisements: all() }));
        Self { unselected: unselected.filter(|_| rules.is_empty()), rules }
    }
}
