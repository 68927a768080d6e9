//! A lab with Berth, a pool and an advertisement, and the words that scenarios are told in.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use berth_api::crd::Layer2Status;
use berth_api::names::announcement_name;
use berth_api::{Announcement, IPAddressPool, MacAddr};
use berth_lab::{Answer, ArpWatch, BerthConfig, Lab, Netns, Pod, PodEdit, PodSpec, Prober};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Longest wait for what takes well under a second on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);
/// Between two connections of a prober.
pub const EVERY: Duration = Duration::from_millis(10);
/// What a crash may cost a client.
pub const GAP_LIMIT: Duration = Duration::from_secs(1);

pub const POOL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: default}
spec: {addresses: [192.0.2.200-192.0.2.209]}
";
/// Without a specification: of all pools.
pub const ADVERTISEMENT: &str = "
apiVersion: berth.dev/v1alpha1
kind: L2Advertisement
metadata: {name: default}
";

/// A lab with Berth.
pub struct Cluster {
    pub lab: Lab,
}

impl Cluster {
    pub async fn start(lab: Lab) -> Result<Self> {
        Self::start_with(lab, &BerthConfig::default()).await
    }

    /// With further arguments for the controllers.
    pub async fn start_with_args(lab: Lab, args: &[&str]) -> Result<Self> {
        Self::start_with(lab, &BerthConfig { controller: PodEdit::args(args), ..BerthConfig::default() }).await
    }

    pub async fn start_with(lab: Lab, config: &BerthConfig) -> Result<Self> {
        lab.install_berth_with(config).await?;
        lab.apply_yaml(POOL).await?;
        lab.apply_yaml(ADVERTISEMENT).await?;
        Ok(Self { lab })
    }

    pub fn services(&self) -> Api<Service> {
        Api::default_namespaced(self.lab.admin())
    }

    pub fn announcements(&self) -> Api<Announcement> {
        Api::all(self.lab.admin())
    }

    pub fn pools(&self) -> Api<IPAddressPool> {
        Api::all(self.lab.admin())
    }

    /// A ready pod of the Service `app` on `node`.
    pub async fn pod(&self, app: &str, node: &str) -> Result<Pod> {
        self.lab.pod(PodSpec::new(format!("{app}-{node}"), node).label("app", app)).await
    }

    /// Creates a Service of type LoadBalancer for the pods of `app`, with `more` laid over its specification.
    pub async fn service(&self, app: &str, more: Value) -> Result<Service> {
        let mut spec = json!({
            "type": "LoadBalancer",
            "selector": {"app": app},
            "ports": [{"port": 80, "targetPort": 8080}],
        });
        merge(&mut spec, more);
        self.annotated(app, json!({}), spec).await
    }

    /// Creates a Service of this specification, with these annotations.
    pub async fn annotated(&self, name: &str, annotations: Value, spec: Value) -> Result<Service> {
        let service = json!({"metadata": {"name": name, "annotations": annotations}, "spec": spec});
        Ok(self.services().create(&PostParams::default(), &serde_json::from_value(service)?).await?)
    }

    /// Changes a Service as a user would.
    pub async fn edit(&self, name: &str, change: Value) -> Result<()> {
        self.services().patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
        Ok(())
    }

    pub async fn delete(&self, name: &str) -> Result<()> {
        self.services().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// The address that a Service has now.
    pub async fn ingress(&self, name: &str) -> Result<Option<Ipv4Addr>> {
        let service = self.services().get(name).await?;
        let ingress = service.status.and_then(|s| s.load_balancer?.ingress).unwrap_or_default();
        Ok(ingress.first().and_then(|i| i.ip.as_ref()).map(|ip| ip.parse()).transpose()?)
    }

    /// Where a Service's status says that it is reached: addresses, or names.
    pub async fn published(&self, name: &str) -> Result<Vec<String>> {
        Ok(published(&self.services().get(name).await?))
    }

    /// Waits until a Service's status says exactly that it is reached there.
    pub async fn publishes(&self, name: &str, expected: &[&str]) -> Result<()> {
        self.lab
            .eventually(&format!("Service {name} is reached at {expected:?}"), SOON, async || {
                let seen = self.published(name).await?;
                ensure!(seen == expected, "it is {seen:?}");
                Ok(Some(()))
            })
            .await
    }

    /// Waits until nothing of Berth is in a Service's status.
    pub async fn bare(&self, name: &str) -> Result<()> {
        self.lab
            .eventually(&format!("nothing is in the status of Service {name}"), SOON, async || {
                let status = self.services().get(name).await?.status.unwrap_or_default();
                let ingress = status.load_balancer.and_then(|l| l.ingress).unwrap_or_default();
                let conditions = status.conditions.unwrap_or_default();
                ensure!(ingress.is_empty() && conditions.is_empty(), "{ingress:?} {conditions:?}");
                Ok(Some(()))
            })
            .await
    }

    /// Waits until a Service has an address of each family.
    pub async fn addresses(&self, name: &str) -> Result<[IpAddr; 2]> {
        self.lab
            .eventually(&format!("Service {name} has an address of each family"), SOON, async || {
                let service = self.services().get(name).await?;
                let ingress = service.status.and_then(|s| s.load_balancer?.ingress).unwrap_or_default();
                let all = ingress.iter().filter_map(|i| i.ip.as_ref()?.parse().ok());
                let [v4, v6] = [true, false].map(|is_v4| all.clone().find(|a: &IpAddr| a.is_ipv4() == is_v4));
                Ok(v4.zip(v6).map(|(v4, v6)| [v4, v6]))
            })
            .await
    }

    /// Waits until a Service has an address.
    pub async fn address(&self, name: &str) -> Result<Ipv4Addr> {
        self.lab.eventually(&format!("Service {name} has an address"), SOON, async || self.ingress(name).await).await
    }

    /// Waits until a Service's condition has this reason; returns its status and message.
    pub async fn reason(&self, name: &str, kind: &str, reason: &str) -> Result<(String, String)> {
        let what = format!("Service {name} has condition {kind} with reason {reason}");
        self.lab
            .eventually(&what, SOON, async || {
                let service = self.services().get(name).await?;
                let conditions = service.status.and_then(|s| s.conditions).unwrap_or_default();
                let found = conditions.iter().find(|c| c.type_ == kind);
                let found = found.with_context(|| format!("no such condition in {conditions:?}"))?;
                ensure!(found.reason == reason, "it is {}: {}", found.reason, found.message);
                Ok(Some((found.status.clone(), found.message.clone())))
            })
            .await
    }

    /// Waits until a pool's condition Ready has this reason; returns its status and message.
    pub async fn pool_reason(&self, name: &str, reason: &str) -> Result<(String, String)> {
        let what = format!("IPAddressPool {name} is Ready with reason {reason}");
        self.lab
            .eventually(&what, SOON, async || {
                let status = self.pools().get(name).await?.status.unwrap_or_default();
                let ready = status.conditions.into_iter().find(|c| c.type_ == "Ready").context("no condition yet")?;
                ensure!(ready.reason == reason, "it is {}: {}", ready.reason, ready.message);
                Ok(Some((ready.status, ready.message)))
            })
            .await
    }

    /// The events about an object of this name.
    pub async fn events(&self, name: &str) -> Result<Vec<Event>> {
        let mut all = Api::<Event>::all(self.lab.admin()).list(&ListParams::default()).await?.items;
        all.retain(|event| event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(name)));
        Ok(all)
    }

    /// Waits for an event with this reason about an object of this name; returns its note.
    pub async fn event(&self, name: &str, reason: &str) -> Result<String> {
        self.lab
            .eventually(&format!("an event {reason} about {name}"), SOON, async || {
                let ours = self.events(name).await?;
                let found = ours.iter().find(|e| e.reason.as_deref() == Some(reason));
                let reasons: Vec<_> = ours.iter().map(|e| e.reason.as_deref()).collect();
                let found = found.with_context(|| format!("about it there are {reasons:?}"))?;
                Ok(Some(found.note.clone().unwrap_or_default()))
            })
            .await
    }

    /// Who answers for an address, as the Announcement's status says.
    pub async fn answering(&self, address: impl Into<IpAddr>) -> Result<Layer2Status> {
        let status = self.announcements().get(&announcement_name(address.into())).await?.status.unwrap_or_default();
        status.layer2.context("nobody claimed it yet")
    }

    /// Waits until the status says that a node answers that fits.
    pub async fn owner(&self, address: impl Into<IpAddr>, fits: impl Fn(&str) -> bool) -> Result<String> {
        let address = address.into();
        self.lab
            .eventually(&format!("somebody answers for {address}"), SOON, async || {
                let owner = self.answering(address).await?.owner;
                ensure!(fits(&owner), "it is {owner}");
                Ok(Some(owner))
            })
            .await
    }

    /// Waits until both sides of the Announcement name the same owner and `standbys` nodes stand by.
    pub async fn settled(&self, address: impl Into<IpAddr>, standbys: usize) -> Result<Announcement> {
        let address = address.into();
        self.lab
            .eventually(&format!("the Announcement of {address} settles"), SOON, async || {
                let announcement = self.announcements().get(&announcement_name(address)).await?;
                let spec = announcement.spec.layer2.clone().context("no owner is named")?;
                let status = announcement.status.clone().and_then(|s| s.layer2).context("nobody claimed it yet")?;
                ensure!(
                    spec.owner.as_ref() == Some(&status.owner) && spec.epoch == status.epoch,
                    "{spec:?} {status:?}"
                );
                ensure!(spec.standbys.len() == standbys, "{:?} stand by", spec.standbys);
                Ok(Some(announcement))
            })
            .await
    }

    /// A Service with pods on these nodes that answers the client; its address and who answers for it.
    pub async fn web(&self, nodes: &[&str], more: Value) -> Result<(Ipv4Addr, String)> {
        for node in nodes {
            self.pod("web", node).await?;
        }
        self.service("web", more).await?;
        let address = self.address("web").await?;
        answers(&self.lab.client().netns, address).await?;
        let owner = self.owner(address, |_| true).await?;
        Ok((address, owner))
    }

    /// A prober on the LAN that has had its first answer.
    pub async fn probing(&self, address: impl Into<IpAddr>) -> Result<Prober> {
        let prober = self.lab.client().netns.probe(http(address), EVERY);
        prober.answered(SOON).await?;
        Ok(prober)
    }

    /// The Ethernet addresses that answered for `address`, or announced it.
    pub fn answerers(watch: &ArpWatch, address: Ipv4Addr) -> BTreeSet<MacAddr> {
        let about = watch.seen().into_iter().map(|seen| seen.frame.arp).filter(|arp| arp.sender_ip == address);
        about.map(|arp| arp.sender_mac).collect()
    }
}

/// Where a Service's status says that it is reached: addresses, or names.
pub fn published(service: &Service) -> Vec<String> {
    let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|i| i.ip.clone().or(i.hostname.clone())).collect()
}

pub fn http(address: impl Into<IpAddr>) -> SocketAddr {
    (address.into(), 80).into()
}

/// Waits until a Service answers somebody.
pub async fn answers(from: &Netns, address: impl Into<IpAddr>) -> Result<Answer> {
    let attempt = from.probe(http(address), EVERY).answered(SOON).await?;
    attempt.outcome.map_err(anyhow::Error::msg)
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}
