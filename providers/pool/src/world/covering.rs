//! By which advertisements the addresses of a pool are announced.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::World;
use crate::placement::Rule;
use crate::view::{AdvertisementId, AdvertisementKind, AdvertisementView};

/// An advertisement that covers a pool.
#[derive(Clone, Debug)]
pub struct Covering {
    /// Which.
    pub advertisement: AdvertisementId,
    /// Whether it is for some Services only.
    pub is_for_some_services: bool,
    /// What it says of nodes and interfaces.
    pub rule: Arc<Rule>,
}

impl World {
    /// The advertisements by which the addresses of a pool are announced. Where one of layer 2 covers it, those of routes have no say: what
    /// nodes answer for is not taken from them because another object comes.
    pub fn covering(&self, pool: &str) -> Cow<'_, [Covering]> {
        let all = || {
            let rules = self.advertisements.iter().map(|(id, view)| (id, Arc::new(self.rule(view)))).collect();
            self.pools.keys().map(|name| (name.clone(), self.covering_now(name, &rules))).collect()
        };
        let known = self.covering.get_or_init(all).get(pool);
        known.map_or_else(|| self.covering_now(pool, &BTreeMap::new()).into(), Into::into)
    }

    /// The same; `rules` has those that are known already.
    fn covering_now(&self, pool: &str, rules: &BTreeMap<&AdvertisementId, Arc<Rule>>) -> Vec<Covering> {
        let labels = self.pools.get(pool).map(|p| &p.labels);
        let covering = self.advertisements.iter().filter(|(_, view)| view.covers(pool, labels));
        let covering = covering.map(|(id, view)| Covering {
            advertisement: id.clone(),
            is_for_some_services: view.is_for_some_services(),
            rule: rules.get(id).cloned().unwrap_or_else(|| Arc::new(self.rule(view))),
        });
        let mut covering: Vec<_> = covering.collect();
        if self.is_left_to_layer2(pool) {
            covering.retain(|covering| covering.advertisement.kind == AdvertisementKind::Layer2);
        }
        covering
    }

    /// Whether an advertisement of layer 2 covers a pool.
    pub fn is_left_to_layer2(&self, pool: &str) -> bool {
        let labels = self.pools.get(pool).map(|p| &p.labels);
        let layer2 = self.advertisements.iter().filter(|(id, _)| id.kind == AdvertisementKind::Layer2);
        layer2.into_iter().any(|(_, view)| view.covers(pool, labels))
    }

    /// The pools that an advertisement of routes covers and that are left to layer 2.
    pub fn left_to_layer2(&self, view: &AdvertisementView) -> Vec<String> {
        let covered = self.pools.iter().filter(|(name, pool)| view.covers(name, Some(&pool.labels)));
        covered.map(|(name, _)| name).filter(|name| self.is_left_to_layer2(name)).cloned().collect()
    }

    /// Which nodes an advertisement selects and prefers, and on which interfaces.
    fn rule(&self, view: &AdvertisementView) -> Rule {
        let selected = || self.nodes.iter().filter(|(_, node)| view.selects_node(&node.labels));
        let preferred = selected().map(|(name, node)| (name.clone(), view.preference(&node.labels)));
        Rule {
            nodes: Some(selected().map(|(name, _)| name.clone()).collect()),
            interfaces: view.interfaces.clone(),
            preferred: preferred.filter(|(_, preference)| *preference > 0).collect(),
            route: view.route.clone(),
        }
    }
}
