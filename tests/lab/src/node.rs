//! A node: a network namespace on the LAN, its Node object and its kube-proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context as _, Result, bail};
use berth_api::MacAddr;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::netns::Netns;
use crate::network::{Host, pod_ranges};
use crate::process::Process;

/// The first address of a node's pods is the node's own on their links.
const FIRST_POD: u8 = 2;

/// A node of the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    host: Host,
    number: u8,
    kube_proxy: Option<Process>,
    admin: Client,
    next_pod: Arc<AtomicU8>,
}

impl Node {
    pub(crate) fn new(host: Host, number: u8, kube_proxy: Option<Process>, admin: Client) -> Self {
        Self { host, number, kube_proxy, admin, next_pod: Arc::new(AtomicU8::new(FIRST_POD)) }
    }

    /// Its name, as in the Node object.
    pub fn name(&self) -> &str {
        &self.host.name
    }

    /// Its address on the LAN.
    pub fn address(&self) -> Ipv4Addr {
        self.host.address
    }

    /// Its IPv6 address on the LAN.
    pub fn address6(&self) -> Ipv6Addr {
        self.host.address6
    }

    /// Both, that of the cluster's first family first.
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        [self.address().into(), self.address6().into()]
    }

    /// Its Ethernet address on the LAN.
    pub fn mac(&self) -> MacAddr {
        self.host.mac()
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.host.netns
    }

    /// Its kube-proxy, unless the lab was started without.
    pub fn kube_proxy(&self) -> Option<&Process> {
        self.kube_proxy.as_ref()
    }

    /// Sets its Ready condition, as a kubelet would.
    pub async fn set_ready(&self, ready: bool) -> Result<()> {
        let nodes: Api<NodeObject> = Api::all(self.admin.clone());
        let patch = json!({ "status": { "conditions": [ready_condition(ready)] } });
        nodes.patch_status(self.name(), &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    /// Sets labels; `None` takes one away.
    pub async fn label(&self, labels: &[(&str, Option<&str>)]) -> Result<()> {
        let nodes: Api<NodeObject> = Api::all(self.admin.clone());
        let labels: std::collections::BTreeMap<_, _> = labels.iter().copied().collect();
        let patch = json!({ "metadata": { "labels": labels } });
        nodes.patch(self.name(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// The number that its pods' addresses carry.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// The number of a new pod, for its addresses. None is used again within a lab.
    pub(crate) fn take_pod_index(&self) -> Result<u8> {
        let index = self.next_pod.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| next.checked_add(1));
        match index {
            Ok(index) => Ok(index),
            Err(_) => bail!("{} has had all the pods that its range has addresses for", self.name()),
        }
    }
}

/// Creates the Node object that a kubelet would.
pub(crate) async fn register(admin: &Client, host: &Host, number: u8) -> Result<()> {
    let node: NodeObject = serde_json::from_value(json!({
        "metadata": {
            "name": host.name,
            "labels": { "kubernetes.io/hostname": host.name, "kubernetes.io/os": "linux" },
        },
        "spec": { "podCIDR": pod_ranges(number)[0], "podCIDRs": pod_ranges(number) },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": host.address },
                { "type": "InternalIP", "address": host.address6 },
                { "type": "Hostname", "address": host.name },
            ],
            "conditions": [ready_condition(true)],
            "capacity": room(),
            "allocatable": room(),
            "nodeInfo": {
                "architecture": "", "bootID": "", "containerRuntimeVersion": "lab", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "lab", "machineID": "", "operatingSystem": "linux",
                "osImage": "lab", "systemUUID": "",
            },
        },
    }))?;
    let nodes: Api<NodeObject> = Api::all(admin.clone());
    nodes.create(&PostParams::default(), &node).await.with_context(|| format!("registering {}", host.name))?;
    Ok(())
}

/// Room for more than any suite asks for; a container gets what the machine has.
fn room() -> serde_json::Value {
    json!({ "cpu": "64", "memory": "64Gi", "ephemeral-storage": "64Gi", "pods": "250" })
}

fn ready_condition(ready: bool) -> serde_json::Value {
    let status = if ready { "True" } else { "False" };
    json!({ "type": "Ready", "status": status, "reason": "Lab", "message": "set by the lab" })
}
