//! The cluster that all faults happen in: Berth as it is installed, and one Service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use berth_api::names::EXCLUDE_NODE_LABEL;
use berth_lab::{Lab, PodSpec};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::board::Board;
use crate::client::Family;
use crate::load::ingress;

/// Longest wait for what takes well under a second on an idle machine, and some for a thousand addresses.
pub(crate) const SOON: Duration = Duration::from_mins(1);
/// The port of all Services.
pub(crate) const PORT: u16 = 80;
/// What the pods of all Services are called.
pub(crate) const APP: &str = "web";

/// Addresses of both families, for one Service.
const POOL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: bench}
spec: {addresses: [192.0.2.200-192.0.2.209, '2001:db8:2::200-2001:db8:2::209']}
---
apiVersion: berth.dev/v1alpha1
kind: L2Advertisement
metadata: {name: bench}
";

/// A lab with Berth and a Service of type LoadBalancer, which has a pod on every node and the Local policy, so that kube-proxy chooses no
/// endpoint of a node that is dead.
pub(crate) struct Ground {
    lab: Lab,
    board: Board,
    addresses: Vec<IpAddr>,
}

impl Ground {
    pub(crate) async fn build(lab: &Lab, families: &[Family]) -> Result<Self> {
        lab.install_berth().await?;
        lab.apply_yaml(POOL).await?;
        for node in lab.nodes() {
            lab.pod(PodSpec::new(format!("{APP}-{}", node.name()), node.name()).label("app", APP)).await?;
        }
        let board = Board::follow(lab.admin());
        let mut ground = Self { lab: lab.clone(), board, addresses: Vec::new() };
        ground.only(lab.nodes().first().context("a lab has a node")?.name()).await?;
        let policy = json!({ "externalTrafficPolicy": "Local" });
        ground.create(service(APP, families, json!({}), policy)?).await?;
        ground.addresses = ground.given(APP, families.len()).await?;
        ground.all(&ground.addresses, SOON).await?;
        Ok(ground)
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// The addresses of the Service.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The names of all nodes but one.
    pub(crate) fn others(&self, node: &str) -> Vec<String> {
        self.lab.nodes().iter().map(|known| known.name().to_owned()).filter(|name| name != node).collect()
    }

    pub(crate) async fn create(&self, service: Service) -> Result<()> {
        let services: Api<Service> = Api::default_namespaced(self.lab.admin());
        services.create(&PostParams::default(), &service).await.context("creating a Service")?;
        Ok(())
    }

    /// Leaves one node alone to be chosen.
    pub(crate) async fn only(&self, node: &str) -> Result<()> {
        for other in self.others(node) {
            self.lab.node(&other)?.label(&[(EXCLUDE_NODE_LABEL, Some(""))]).await?;
        }
        Ok(())
    }

    /// Lets all nodes be chosen again, one after the other, so that all addresses have their standbys in the same order: what follows
    /// an owner then follows it for all of them. Returns when that is so.
    pub(crate) async fn all(&self, addresses: &[IpAddr], limit: Duration) -> Result<()> {
        self.board.settled(addresses, 0, limit).await?;
        let owner = self.board.owners(addresses).into_keys().next().context("there is no address")?;
        for (standbys, other) in (1..).zip(self.others(&owner)) {
            self.lab.node(&other)?.label(&[(EXCLUDE_NODE_LABEL, None)]).await?;
            self.board.settled(addresses, standbys, limit).await?;
        }
        Ok(())
    }

    /// Waits until all these addresses have one owner, and all is settled; returns the owner. A fault is one of one node, so it is to own all
    /// of them.
    pub(crate) async fn one_owner(&self, addresses: &[IpAddr]) -> Result<String> {
        let owners = self.settled(addresses).await?;
        let owner = owners.into_keys().next().context("there is no address")?;
        if self.board.owners(addresses).len() > 1 {
            self.only(&owner).await?;
            self.board.all_at(addresses, &owner, SOON).await?;
            self.all(addresses, SOON).await?;
            self.settled(addresses).await?;
        }
        Ok(owner)
    }

    /// Waits until every address has an owner on both sides of its Announcement and all other nodes stand by, every speaker hears all
    /// others, and answers for what it is to. Returns how many addresses each owner has.
    pub(crate) async fn settled(&self, addresses: &[IpAddr]) -> Result<BTreeMap<String, usize>> {
        let standbys = self.lab.nodes().len() - 1;
        // Announcements may be behind the wire, so both are looked at until they agree.
        self.lab
            .eventually("all is settled", SOON, async || {
                self.board.settled(addresses, standbys, SOON).await?;
                let owners = self.board.owners(addresses);
                let nodes = self.lab.nodes().iter().map(berth_lab::Node::name);
                let of = |node| owners.get(node).copied().unwrap_or_default();
                try_join_all(nodes.map(|node| self.is_settled(node, of(node), addresses.len()))).await?;
                Ok(Some(owners))
            })
            .await
    }

    /// Whether a node's speaker answers for so many addresses, stands by for the rest, and hears the speakers of all other nodes.
    async fn is_settled(&self, node: &str, answering: usize, addresses: usize) -> Result<()> {
        let others = self.lab.nodes().len() - 1;
        let page = self.lab.speaker_metrics(node).await?;
        for (name, expected) in [
            ("berth_speaker_partners", others),
            ("berth_speaker_partners_up", others),
            ("berth_speaker_addresses_answering", answering),
            ("berth_speaker_addresses_standby", addresses - answering),
        ] {
            let seen = gauge(&page, name);
            ensure!(seen == Some(expected), "on {node} {name} is {seen:?} and not {expected}");
        }
        Ok(())
    }

    /// Waits for the addresses of a Service.
    pub(crate) async fn given(&self, name: &str, count: usize) -> Result<Vec<IpAddr>> {
        let services: Api<Service> = Api::default_namespaced(self.lab.admin());
        self.lab
            .eventually(&format!("the Service {name} has {count} addresses"), SOON, async || {
                let addresses: Vec<_> = ingress(&services.get(name).await?).collect();
                Ok((addresses.len() == count).then_some(addresses))
            })
            .await
    }
}

/// A Service of type LoadBalancer for the pods of the lab, of these families, with these annotations and with `more` in its specification.
pub(crate) fn service(name: &str, families: &[Family], annotations: Value, more: Value) -> Result<Service> {
    let policy = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    let families: Vec<_> = families
        .iter()
        .map(|family| match family {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        })
        .collect();
    let mut spec = json!({
        "type": "LoadBalancer",
        "allocateLoadBalancerNodePorts": false,
        "ipFamilyPolicy": policy,
        "ipFamilies": families,
        "selector": { "app": APP },
        "ports": [{ "port": PORT, "targetPort": berth_lab::DEFAULT_PORT }],
    });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    Ok(serde_json::from_value(json!({ "metadata": { "name": name, "annotations": annotations }, "spec": spec }))?)
}

/// A metric without labels.
pub(crate) fn gauge(page: &str, name: &str) -> Option<usize> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page = "# TYPE berth_speaker_partners gauge\nberth_speaker_partners_up 1\nberth_speaker_partners 2\n";
        for (name, value) in
            [("berth_speaker_partners", Some(2)), ("berth_speaker_partners_up", Some(1)), ("berth_speaker", None)]
        {
            assert_eq!(gauge(page, name), value, "{name}");
        }
    }
}
