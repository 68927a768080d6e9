//! Sends traffic to the nodes: one write of the backend pool, whatever the number of Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::IpFamily;
use berth_provider::{Class, Failure, TargetReport, Targets};
use serde_json::{Value, json};

use super::Azure;
use crate::arm::{Arm, Condition, Id, Wait};
use crate::document::{address, etag, name, overlay, parts};
use crate::intent::Scheme;
use crate::names;
use crate::observed::{addresses, load_balancer};

/// When pools are looked for again that are not there. Whoever makes one is followed by this without it; a Service that is disowned makes none.
const NO_POOL_AGAIN: Duration = Duration::from_mins(1);
/// How often a pool is read again and written anew that somebody else wrote in between.
const TRIES: usize = 3;
/// The label by which a node is kept out of Azure's load balancers.
const MANAGED: &str = "kubernetes.azure.com/managed";

/// A write of a pool that is under way, also when nobody waits for it any more.
struct Filling<'a, A: Arm>(&'a Azure<A>);

impl<'a, A: Arm> Filling<'a, A> {
    fn begin(azure: &'a Azure<A>) -> Self {
        azure.memory(|memory| memory.pools.begun += 1);
        Self(azure)
    }
}

impl<A: Arm> Drop for Filling<'_, A> {
    fn drop(&mut self) {
        self.0.memory(|memory| memory.pools.over += 1);
    }
}

impl<A: Arm> Azure<A> {
    pub(super) async fn send_to(&self, targets: &Targets) -> Result<TargetReport, Failure> {
        let nodes = targets.nodes.iter().filter(|node| node.labels.get(MANAGED).is_none_or(|value| value != "false"));
        let nodes: BTreeMap<IpAddr, &str> =
            nodes.flat_map(|node| node.addresses.iter().map(|address| (*address, node.name.as_str()))).collect();
        let mut report = TargetReport::default();
        let mut pools = 0;
        for scheme in [Scheme::Public, Scheme::Internal] {
            let id = load_balancer(&self.settings, scheme);
            let Some(document) = self.arm.get(&id).await? else { continue };
            for family in IpFamily::ALL {
                let called = names::pool(&self.settings.cluster, family);
                let mut all = parts(&document, "backendAddressPools").iter();
                // Rules refer to it whatever its case (ARM rule).
                let Some(pool) = all.find(|pool| name(pool).eq_ignore_ascii_case(&called)) else { continue };
                pools += 1;
                let of_family = nodes.iter().filter(|(address, _)| IpFamily::of(**address) == family);
                let of_family = of_family.map(|(address, node)| (*address, *node)).collect();
                self.fill(&id.child("backendAddressPools", name(pool)), pool.clone(), &of_family, &mut report).await?;
            }
        }
        if pools == 0 && !targets.services.is_empty() {
            report.look_again = Some(NO_POOL_AGAIN);
        }
        Ok(report)
    }

    async fn fill(
        &self,
        id: &Id,
        mut pool: Value,
        nodes: &BTreeMap<IpAddr, &str>,
        report: &mut TargetReport,
    ) -> Result<(), Failure> {
        // Cut off from the nodes' list or with all nodes gone, a pool that serves is better than none.
        if nodes.is_empty() {
            return Ok(());
        }
        for attempt in 1..=TRIES {
            if !parts(&pool, "backendIPConfigurations").is_empty() {
                let message = format!(
                    "the backend pool {} has network interfaces, which somebody else put there; Berth fills pools of addresses. Let \
                     the other controller give it up, or set another cluster name",
                    id.name()
                );
                return Err(Failure::new(Class::Config, message));
            }
            let old = addresses(&pool);
            let new: BTreeSet<IpAddr> = nodes.keys().copied().collect();
            if old == new {
                return Ok(());
            }
            let condition = etag(&pool).map_or(Condition::New, |etag| Condition::Is(etag.to_owned()));
            let body = self.filled(&pool, nodes);
            let written = {
                let _under_way = Filling::begin(self);
                self.arm.put(id, &body, &condition, Wait::Done).await
            };
            match written {
                Ok(_) => {
                    report.added += new.difference(&old).count();
                    report.removed += old.difference(&new).count();
                    return Ok(());
                }
                Err(error) if error.class().0 == Class::Conflict && attempt < TRIES => {
                    pool = self.arm.get(id).await?.ok_or_else(|| Failure::from(error))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The pool with these nodes. What is said of a node that stays, stays.
    fn filled(&self, pool: &Value, nodes: &BTreeMap<IpAddr, &str>) -> Value {
        let entries = parts(pool, "loadBalancerBackendAddresses").iter();
        let of = |entry: &Value| address(entry, &["properties", "ipAddress"]);
        let mut kept: Vec<Value> =
            entries.filter(|entry| of(entry).is_none_or(|address| nodes.contains_key(&address))).cloned().collect();
        let there: BTreeSet<IpAddr> = kept.iter().filter_map(of).collect();
        let new = nodes.iter().filter(|(address, _)| !there.contains(address));
        kept.extend(new.map(|(address, node)| {
            let name = if address.is_ipv6() { format!("{node}-IPv6") } else { (*node).to_owned() };
            json!({"name": name, "properties": {"ipAddress": address.to_string()}})
        }));
        let network = Id::at(&self.settings, "virtualNetworks", &self.settings.network);
        let mut body = pool.clone();
        overlay(
            &mut body,
            &json!({"properties": {
                "virtualNetwork": {"id": network},
                "loadBalancerBackendAddresses": kept,
            }}),
        );
        body
    }
}
