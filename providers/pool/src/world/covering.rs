//! By which advertisements the addresses of a pool are announced.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::World;
use crate::placement::Rule;
use crate::view::AdvertisementView;

/// An advertisement that covers a pool.
#[derive(Clone, Debug)]
pub struct Covering {
    /// Its name.
    pub advertisement: String,
    /// Whether it is for some Services only.
    pub is_for_some_services: bool,
    /// What it says of nodes and interfaces.
    pub rule: Arc<Rule>,
}

impl World {
    /// The advertisements that cover a pool.
    pub fn covering(&self, pool: &str) -> Cow<'_, [Covering]> {
        let all = || {
            let rules =
                self.advertisements.iter().map(|(name, view)| (name.as_str(), Arc::new(self.rule(view)))).collect();
            self.pools.keys().map(|name| (name.clone(), self.covering_now(name, &rules))).collect()
        };
        let known = self.covering.get_or_init(all).get(pool);
        known.map_or_else(|| self.covering_now(pool, &BTreeMap::new()).into(), Into::into)
    }

    /// The same; `rules` has those that are known already.
    fn covering_now(&self, pool: &str, rules: &BTreeMap<&str, Arc<Rule>>) -> Vec<Covering> {
        let labels = self.pools.get(pool).map(|p| &p.labels);
        let covering = self.advertisements.iter().filter(|(_, view)| view.covers(pool, labels));
        let covering = covering.map(|(name, view)| Covering {
            advertisement: name.clone(),
            is_for_some_services: view.is_for_some_services(),
            rule: rules.get(name.as_str()).cloned().unwrap_or_else(|| Arc::new(self.rule(view))),
        });
        covering.collect()
    }

    /// Which nodes an advertisement selects and prefers, and on which interfaces.
    fn rule(&self, view: &AdvertisementView) -> Rule {
        let selected = || self.nodes.iter().filter(|(_, node)| view.selects_node(&node.labels));
        let preferred = selected().map(|(name, node)| (name.clone(), view.preference(&node.labels)));
        Rule {
            nodes: Some(selected().map(|(name, _)| name.clone()).collect()),
            interfaces: view.interfaces.clone(),
            preferred: preferred.filter(|(_, preference)| *preference > 0).collect(),
        }
    }
}
