//! By which advertisements an address is announced, and who may share it because of that.
//!
//! A node that answers for an address answers for all Services on it. So one with `serviceSelectors` announces an address only where it
//! selects every Service there; and who cannot be announced together with those that were there first does not get the address, as
//! one who wants their port does not.

use std::net::IpAddr;
use std::sync::Arc;

use berth_api::crd::ServiceRef;
use berth_api::service::ServiceKey;

use crate::ipam::Refusal;
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
    /// Those that cover the pool and select the Services on the address, but for one that is about to leave because of that.
    pub(super) fn of(world: &World, pool: &str, services: &[ServiceRef]) -> Self {
        let covering = world.covering(pool);
        let together = Together::of(world, &covering, services.iter().map(key_of));
        let rules: Vec<_> = together.announced_by.iter().map(|covering| Arc::clone(&covering.rule)).collect();
        let unselected = together.first.filter(|_| rules.is_empty()).map(|service| Unselected {
            service,
            kind: covering.first().map_or("advertisement", |covering| covering.advertisement.kind.as_str()),
            advertisements: covering.iter().map(|covering| covering.advertisement.to_string()).collect(),
        });
        Self { rules, unselected: unselected.filter(|unselected| !unselected.advertisements.is_empty()) }
    }
}

/// Why a Service cannot be on an address with those that are there, or were there before it: no advertisement announces it for all.
pub(super) fn keeps_off(world: &World, key: &ServiceKey, address: IpAddr) -> Option<Refusal> {
    let seen = world.announcement(address)?;
    let before: Vec<_> = seen.holders().take_while(|holder| holder != key).collect();
    let holder = before.first()?.clone();
    let covering = world.covering(&seen.pool);
    let together = Together::of(world, &covering, before.into_iter().chain([key.clone()]));
    let is_apart = together.apart.contains(key);
    is_apart.then(|| Refusal::NotAnnouncedTogether { address, holder, service: key.clone() })
}

/// Services on one address, in the order in which they came.
struct Together<'a> {
    /// The first.
    first: Option<ServiceKey>,
    announced_by: Vec<&'a Covering>,
    /// Those that are announced by none of the advertisements which announce the ones before.
    apart: Vec<ServiceKey>,
}

impl<'a> Together<'a> {
    /// One that is gone and not taken off the address yet has no say; nobody whom all know is gone is selected.
    fn of(world: &World, covering: &'a [Covering], services: impl Iterator<Item = ServiceKey>) -> Self {
        let mut together = Self { first: None, announced_by: covering.iter().collect(), apart: Vec::new() };
        if covering.iter().all(|covering| !covering.is_for_some_services) {
            return together;
        }
        for service in services {
            let Some(view) = world.service(&service) else { continue };
            let labels = view.labels.unpacked();
            let selects = |covering: &&Covering| {
                !covering.is_for_some_services
                    || world.advertisement(&covering.advertisement).is_some_and(|view| view.selects_service(&labels))
            };
            let left: Vec<_> = together.announced_by.iter().copied().filter(selects).collect();
            let is_first = together.first.is_none();
            if left.is_empty() && !is_first && !together.announced_by.is_empty() {
                together.apart.push(service);
                continue;
            }
            together.announced_by = left;
            together.first.get_or_insert(service);
        }
        if together.first.is_none() {
            together.announced_by.retain(|covering| !covering.is_for_some_services);
        }
        together
    }
}
