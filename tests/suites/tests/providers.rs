//! The pools keep what every provider has to keep, on a real API server that fails on purpose.

#![allow(clippy::expect_used, reason = "a fixture that is wrong is a test that is wrong")]

use std::sync::Arc;

use anyhow::{Result, ensure};
use berth_api::names::{CONTROLLER_NAME, CONTROLLER_NAMESPACE};
use berth_api::{Announcement, IPAddressPool, L2Advertisement};
use berth_lab::{Lab, LabConfig, lab_test};
use berth_pool::provider::Pool;
use berth_provider::Intent;
use berth_provider::conformance::{self, Fault, FaultGate, Verdict, View, World};
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::client::Body;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower::service_fn;

/// The provider needs an API server and Node objects, and no data path.
const NO_DATA_PATH: LabConfig = LabConfig { nodes: 3, kube_proxy: false };

/// The namespace of the intents, two pools, one of them for those who ask for it, and somebody else's Service.
const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: default}
spec: {addresses: [192.0.2.200-192.0.2.220, '2001:db8:2::200-2001:db8:2::220']}
---
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: gold}
spec: {addresses: [192.0.2.230-192.0.2.239], autoAssign: false}
---
apiVersion: berth.dev/v1alpha1
kind: L2Advertisement
metadata: {name: all}
spec: {}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: default}
spec: {type: LoadBalancer, loadBalancerClass: example.com/other, ports: [{port: 80}]}
";

lab_test! { NO_DATA_PATH;
    async fn the_pools_conform(lab: Lab) -> Result<()> {
        prepare(&lab).await?;
        // What it does not need it may not need: it has the rights that are shipped, and no other.
        let (admin, own) = (lab.admin(), lab.client_of(CONTROLLER_NAMESPACE, CONTROLLER_NAME).await?);
        let violations = Box::pin(conformance::run(async || PoolWorld::new(admin.clone(), own.clone()).await)).await;
        ensure!(violations.is_empty(), "{violations:#?}");
        Ok(())
    }
}

/// The kinds, the rights, the objects, and what the nodes' speakers would have reported.
async fn prepare(lab: &Lab) -> Result<()> {
    lab.install_berth_without_workloads().await?;
    for object in (1..=3).map(speaker_node) {
        lab.apply(&serde_json::from_value(object)?).await?;
    }
    apply(lab, OBJECTS).await
}

async fn apply(lab: &Lab, yaml: &str) -> Result<()> {
    let objects: Vec<DynamicObject> = serde_saphyr::from_multiple(yaml)?;
    for object in &objects {
        lab.apply(object).await?;
    }
    Ok(())
}

fn speaker_node(number: u8) -> Value {
    let interface = json!({
        "name": "eth0",
        "mac": format!("02:00:00:00:00:{number:02x}"),
        "addresses": [format!("192.0.2.{}/24", 10 + number), format!("2001:db8:2::{}/64", 10 + number)],
    });
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "SpeakerNode", "metadata": {"name": format!("node-{number}")},
        "spec": {"version": "test", "interfaces": [interface]},
    })
}

/// An API server behind a gate.
struct PoolWorld {
    admin: Client,
    gate: Arc<FaultGate>,
    provider: Pool,
}

impl PoolWorld {
    /// What the last world left behind goes first. The provider acts by a client of its own.
    async fn new(admin: Client, own: Client) -> Self {
        let announcements: Api<Announcement> = Api::all(admin.clone());
        announcements.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("an API server");
        let gate = Arc::new(FaultGate::default());
        Self { provider: Pool::new(behind(gate.clone(), own)), gate, admin }
    }
}

/// A client whose requests may be refused, or answered without being heard.
fn behind(gate: Arc<FaultGate>, inner: Client) -> Client {
    let service = service_fn(move |request: http::Request<Body>| {
        let (gate, inner) = (gate.clone(), inner.clone());
        async move {
            let reads = request.method() == http::Method::GET;
            match if reads { gate.read() } else { gate.write() } {
                Verdict::Pass => Ok(inner.send(request).await?),
                Verdict::Refuse => Err("refused on purpose".into()),
                Verdict::LoseAnswer => {
                    inner.send(request).await?;
                    Err::<_, tower::BoxError>("answer lost on purpose".into())
                }
            }
        }
    });
    Client::new(service, "default")
}

impl World for PoolWorld {
    type Provider = Pool;

    fn provider(&self) -> Pool {
        self.provider.clone()
    }

    fn intents(&self) -> Vec<Intent> {
        vec![
            intent("web", json!({}), json!({})),
            intent("dual", json!({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"}), json!({})),
            intent("asks", json!({}), json!({"berth.dev/load-balancer-ips": "192.0.2.210"})),
            intent("gold", json!({}), json!({"berth.dev/address-pool": "gold"})),
            intent("local", json!({"externalTrafficPolicy": "Local", "ipFamilies": ["IPv6"]}), json!({})),
        ]
    }

    fn refused(&self) -> Vec<Intent> {
        vec![
            intent("text", json!({}), json!({"berth.dev/load-balancer-ips": "web"})),
            intent("slip", json!({}), json!({"berth.dev/load-balancer-ip": "192.0.2.211"})),
            intent("family", json!({}), json!({"berth.dev/load-balancer-ips": "2001:db8:2::205"})),
        ]
    }

    async fn look(&self) -> View {
        let announcements = list::<Announcement>(&self.admin).await;
        let ours = announcements.iter().map(held);
        let mut foreign = Vec::new();
        foreign.extend(told(list::<IPAddressPool>(&self.admin).await));
        foreign.extend(told(list::<L2Advertisement>(&self.admin).await));
        foreign.extend(told(list::<Node>(&self.admin).await));
        foreign.extend(told(list::<Service>(&self.admin).await));
        View { ours: ours.collect(), foreign, writes: self.gate.writes() }
    }

    fn hurt(&self, fault: Fault) {
        self.gate.set(fault);
    }

    async fn settle(&self) {}
}

/// What is held, to the letter but for the order of the nodes: who of them is the owner follows from their load, and so from the order in
/// which addresses were claimed, which a kill changes. The lab has as many nodes as parts, so the same ones are named in any case.
fn held(announcement: &Announcement) -> String {
    let mut spec = announcement.spec.clone();
    let mut parts = Vec::new();
    if let Some(layer2) = &mut spec.layer2 {
        parts.extend(layer2.owner.take());
        parts.append(&mut layer2.standbys);
        parts.sort();
        layer2.members.sort_by(|a, b| a.node.cmp(&b.node));
    }
    let labels: Vec<_> = announcement.labels().keys().collect();
    format!("{} {} for {parts:?}, labels {labels:?}", announcement.name_any(), json!(spec))
}

async fn list<K>(client: &Client) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    Api::<K>::all(client.clone()).list(&ListParams::default()).await.expect("an API server").items
}

fn told<K: Resource + serde::Serialize>(objects: Vec<K>) -> impl Iterator<Item = String> {
    objects.into_iter().map(|object| json!(object).to_string())
}

fn intent(name: &str, mut spec: Value, annotations: Value) -> Intent {
    spec["type"] = json!("LoadBalancer");
    spec["ports"] = json!([{"port": 80}]);
    if spec["ipFamilies"].is_null() {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    let service = json!({
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-of-{name}"), "annotations": annotations},
        "spec": spec,
    });
    let service: Service = serde_json::from_value(service).expect("a Service");
    Intent::of(&service).expect("an intent")
}
