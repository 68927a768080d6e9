//! Which Services may have addresses from a pool.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::crd::ServiceAllocation;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// `spec.serviceAllocation`, parsed. A selector that matches nothing admits nothing.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Lower ones are asked first; `u32::MAX` where none is given.
    pub priority: u32,
    /// Whether namespaces are restricted at all.
    by_namespace: bool,
    namespaces: BTreeSet<String>,
    namespace_selectors: Vec<Selector>,
    service_selectors: Vec<Selector>,
}

impl Admission {
    /// Reads it.
    ///
    /// # Errors
    /// When a label selector cannot be read; which one, and why.
    pub fn parse(written: &ServiceAllocation) -> Result<Self, String> {
        let read = |field: &str, selectors: &[LabelSelector]| {
            let parse = |(index, selector): (usize, &LabelSelector)| {
                Selector::try_from(selector.clone())
                    .map_err(|error| format!("`spec.serviceAllocation.{field}[{index}]`: {error}"))
            };
            selectors.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()
        };
        let namespace_selectors = read("namespaceSelectors", &written.namespace_selectors)?;
        Ok(Self {
            // 0 is what an unset field was in manifests that exist, and means last.
            priority: written.priority.and_then(|p| u32::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(u32::MAX),
            by_namespace: !written.namespaces.is_empty() || !namespace_selectors.is_empty(),
            namespaces: written.namespaces.iter().cloned().collect(),
            namespace_selectors,
            service_selectors: read("serviceSelectors", &written.service_selectors)?,
        })
    }

    /// Whether it admits a Service with these labels in a namespace with those. `None`: the labels of the namespace are not known,
    /// and would decide.
    pub fn admits(&self, namespace: &str, its_labels: Option<&Labels>, service: &Labels) -> Option<bool> {
        if !self.service_selectors.is_empty() && !self.service_selectors.iter().any(|s| s.matches(service)) {
            return Some(false);
        }
        if !self.by_namespace || self.namespaces.contains(namespace) {
            return Some(true);
        }
        if self.namespace_selectors.is_empty() {
            return Some(false);
        }
        its_labels.map(|labels| self.namespace_selectors.iter().any(|s| s.matches(labels)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_pool_admits_namespaces_by_name_or_label_and_of_them_services_by_label() {
        let gold = json!({"matchLabels": {"tier": "gold"}});
        let web = json!({"matchLabels": {"app": "web"}});
        let nothing = json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["none"]}]});
        // (what is written, by namespace: shop (gold), shop (labels unknown), back (no labels))
        for (written, expected) in [
            (json!({}), [Some(true), Some(true), Some(true)]),
            (json!({"priority": 1}), [Some(true), Some(true), Some(true)]),
            (json!({"namespaces": ["shop"]}), [Some(true), Some(true), Some(false)]),
            (json!({"namespaceSelectors": [gold]}), [Some(true), None, Some(false)]),
            (json!({"namespaces": ["back"], "namespaceSelectors": [gold]}), [Some(true), None, Some(true)]),
            (json!({"namespaceSelectors": [nothing]}), [Some(false), None, Some(false)]),
            (json!({"serviceSelectors": [web]}), [Some(true), Some(true), Some(true)]),
            (json!({"serviceSelectors": [gold]}), [Some(false), Some(false), Some(false)]),
            (json!({"serviceSelectors": [gold, web]}), [Some(true), Some(true), Some(true)]),
            (json!({"namespaces": ["back"], "serviceSelectors": [web]}), [Some(false), Some(false), Some(true)]),
            (json!({"namespaces": ["shop"], "serviceSelectors": [gold]}), [Some(false), Some(false), Some(false)]),
            (json!({"namespaceSelectors": [{}]}), [Some(true), None, Some(true)]),
        ] {
            let admission = Admission::parse(&serde_json::from_value(written.clone()).unwrap()).unwrap();
            let (service, shop) = (labels(&[("app", "web")]), labels(&[("tier", "gold")]));
            let told = [("shop", Some(&shop)), ("shop", None), ("back", Some(&labels(&[])))]
                .map(|(namespace, its)| admission.admits(namespace, its, &service));
            assert_eq!(told, expected, "{written}");
        }
    }

    #[test]
    fn priority_zero_and_none_are_last() {
        let priority = |written: Value| Admission::parse(&serde_json::from_value(written).unwrap()).unwrap().priority;
        assert_eq!([json!({}), json!({"priority": 0}), json!({"priority": 7})].map(priority), [u32::MAX, u32::MAX, 7]);
    }

    #[test]
    fn a_selector_that_cannot_be_read_is_named_by_its_place() {
        let wrong = json!({"serviceSelectors": [{}, {"matchExpressions": [{"key": "a", "operator": "Is"}]}]});
        let error = Admission::parse(&serde_json::from_value(wrong).unwrap()).unwrap_err();
        assert!(error.starts_with("`spec.serviceAllocation.serviceSelectors[1]`: "), "{error}");
    }
}
