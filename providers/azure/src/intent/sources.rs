//! Who may reach a Service.

use std::collections::BTreeSet;

use berth_api::IpFamily;
use berth_provider::Intent;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::front::{Front, Scheme};
use crate::annotation::{Annotations, PREFIX, SOURCE_RANGES, contradiction, full, wrong};
use crate::refusal::Refusal;
use crate::settings::{PREFIXES_PER_RULE, Settings};

const RANGES: &str = "azure-allowed-ip-ranges";
const TAGS: &str = "azure-allowed-service-tags";
const DENY: &str = "azure-deny-all-except-load-balancer-source-ranges";
const DISABLE: &str = "azure-disable-load-balancer-nsg-rule";
const SPEC: &str = "spec.loadBalancerSourceRanges";
/// Azure's word for everybody outside.
pub const INTERNET: &str = "Internet";

/// Who may reach a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Whether there are no security rules for it.
    pub unruled: bool,
    /// Whether everybody may.
    pub everybody: bool,
    /// Ranges of IPv4 addresses, none within another.
    pub v4: BTreeSet<Ipv4Net>,
    /// Ranges of IPv6 addresses, none within another.
    pub v6: BTreeSet<Ipv6Net>,
    /// Azure's service tags.
    pub tags: BTreeSet<String>,
    /// Whether nobody else may, not even who is in the network.
    pub deny_others: bool,
}

impl Sources {
    pub(super) fn of(
        intent: &Intent,
        annotations: &Annotations<'_>,
        front: &Front,
        settings: &Settings,
    ) -> Result<Self, Refusal> {
        let by_spec: Vec<&str> = intent.source_ranges.iter().map(|range| range.trim()).collect();
        let (field, by_spec) = if by_spec.is_empty() {
            (full(SOURCE_RANGES), annotations.list(SOURCE_RANGES))
        } else {
            (SPEC.to_owned(), by_spec)
        };
        let by_annotation = annotations.list(RANGES);
        let tags: BTreeSet<String> = annotations.list(TAGS).into_iter().map(str::to_owned).collect();
        if !by_spec.is_empty() && !by_annotation.is_empty() {
            return Err(contradiction(RANGES, format!("{field} says who may reach it too; remove one of the two")));
        }
        if !by_spec.is_empty() && !tags.is_empty() {
            let why = format!("the nodes drop what is not in the ranges of {field}; move those to {PREFIX}{RANGES}");
            return Err(contradiction(TAGS, why));
        }
        if let Some(tag) = tags.iter().find(|tag| !tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')) {
            return Err(wrong(TAGS, tag, "no service tag", "write one such as AzureCloud or Storage.WestEurope"));
        }
        let unruled = annotations.truth(DISABLE)?;
        let deny_others = annotations.truth(DENY)?;
        annotations.truth("azure-shared-securityrule")?;
        if unruled || settings.security_group.is_none() {
            let wishes = [(RANGES, !by_annotation.is_empty()), (TAGS, !tags.is_empty()), (DENY, deny_others)];
            if let Some((name, _)) = wishes.into_iter().find(|(_, is)| *is) {
                let why = "no security rules are made for the Service that would hold it";
                let advice = if unruled {
                    format!("remove it, or {}", full(DISABLE))
                } else {
                    "the configuration (azure.json) names no `securityGroupName`; an operator adds it, or remove the annotation".to_owned()
                };
                return Err(contradiction(name, format!("{why}; {advice}")));
            }
        }
        let field = if by_annotation.is_empty() { field } else { full(RANGES) };
        let ranges = if by_annotation.is_empty() { by_spec } else { by_annotation };
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for range in &ranges {
            match range.parse::<IpNet>() {
                Ok(IpNet::V4(net)) => v4.push(net.trunc()),
                Ok(IpNet::V6(net)) => v6.push(net.trunc()),
                Err(_) => {
                    return Err(Refusal::Value {
                        field,
                        value: (*range).to_owned(),
                        wrong: "no range of addresses".to_owned(),
                        advice: "write one such as 192.0.2.0/24".to_owned(),
                    });
                }
            }
        }
        if ranges.len() > PREFIXES_PER_RULE {
            let message = format!("{field} has {} ranges, and a security rule takes {PREFIXES_PER_RULE}", ranges.len());
            return Err(Refusal::Limit(message));
        }
        Ok(Self {
            unruled: unruled || settings.security_group.is_none(),
            // Who is in the network reaches internal frontends anyway.
            everybody: ranges.is_empty() && tags.is_empty() && front.scheme == Scheme::Public,
            v4: Ipv4Net::aggregate(&v4).into_iter().collect(),
            v6: Ipv6Net::aggregate(&v6).into_iter().collect(),
            tags,
            deny_others,
        })
    }

    /// The lists of sources of security rules for a family: a service tag stands alone (Azure rule).
    pub fn lists(&self, family: IpFamily) -> Vec<Vec<String>> {
        let ranges: Vec<String> = match family {
            IpFamily::V4 => self.v4.iter().map(ToString::to_string).collect(),
            IpFamily::V6 => self.v6.iter().map(ToString::to_string).collect(),
        };
        let mut ranges = vec![ranges];
        ranges.retain(|list| !list.is_empty());
        if self.everybody {
            ranges.push(vec![INTERNET.to_owned()]);
        }
        ranges.into_iter().chain(self.tags.iter().map(|tag| vec![tag.clone()])).collect()
    }
}
