//! Berth as it is installed in Azure, with the stand-in for the resource manager in Azure's place. What there is is read from the stand-in, by
//! Azure's own field names and without anything of the provider.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use berth_api::names::{AZURE_LB_CLASS, AZURE_SECRET, CONTROLLER_NAMESPACE};
use berth_arm_fake::Fake;
use berth_lab::{BerthConfig, Lab, LabConfig, PodEdit, lab_test};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Namespace, Node, Secret, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Longest wait for what takes seconds on an idle machine.
const SOON: Duration = Duration::from_mins(1);
const LAB: LabConfig = LabConfig { nodes: 2, kube_proxy: true };
const GROUP: &str = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Network";
const INTERNAL: &str = "loadBalancers/prod-internal";
const PUBLIC: &str = "loadBalancers/prod";
const SECURITY: &str = "networkSecurityGroups/prod-nsg";
/// How long tokens last that the stand-in gives.
const TOKEN: Duration = Duration::from_hours(1);

/// A cluster in Azure.
struct Cluster {
    lab: Lab,
    fake: Arc<Fake>,
    /// What there was before Berth.
    before: BTreeMap<String, Value>,
    _server: JoinSet<()>,
}

/// The network of the cluster, and a security group with a rule of somebody else.
fn plant(fake: &Fake) -> Result<()> {
    let subnet = |name: &str, prefix: &str| json!({ "name": name, "properties": { "addressPrefix": prefix } });
    let ssh = json!({ "name": "ssh", "newField": { "a": [1, null] }, "properties": {
        "protocol": "Tcp", "access": "Allow", "direction": "Inbound", "priority": 500, "sourcePortRange": "*",
        "sourceAddressPrefix": "192.0.2.7", "destinationAddressPrefix": "*", "destinationPortRange": "22",
    }});
    for (path, properties) in [
        (
            "virtualNetworks/prod-vnet",
            json!({ "subnets": [subnet("default", "10.0.0.0/16"), subnet("apps", "10.1.0.0/24")] }),
        ),
        (SECURITY, json!({ "securityRules": [ssh] })),
    ] {
        let document = json!({ "location": "westeurope", "properties": properties });
        fake.plant(&format!("{GROUP}/{path}"), document).map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// Without what changes with each write.
fn bare(resources: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("etag");
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut resources = resources;
    resources.values_mut().for_each(strip);
    resources
}

impl Cluster {
    async fn start(lab: Lab) -> Result<Self> {
        let fake = Fake::default();
        plant(&fake)?;
        fake.wants_token(Some(TOKEN));
        let (before, fake) = (bare(fake.resources()), Arc::new(fake));
        // Where the pods of nodes reach it.
        let listener = TcpListener::bind((lab.root().address, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (mut server, answering) = (JoinSet::new(), fake.clone());
        server.spawn(async move { drop(berth_arm_fake::serve(listener, answering).await) });

        let config = json!({
            "cloud": "AzurePublicCloud", "resourceManagerEndpoint": url, "tenantId": "t", "subscriptionId": "s",
            "aadClientId": "c", "aadClientSecret": "hush", "resourceGroup": "rg", "location": "westeurope",
            "vnetName": "prod-vnet", "subnetName": "default", "securityGroupName": "prod-nsg",
            "loadBalancerSku": "Standard", "loadBalancerBackendPoolConfigurationType": "nodeIP", "vmType": "vmss",
        });
        let namespace = serde_json::from_value(json!({ "metadata": { "name": CONTROLLER_NAMESPACE } }))?;
        Api::<Namespace>::all(lab.admin()).create(&PostParams::default(), &namespace).await?;
        let secret: Secret = serde_json::from_value(json!({
            "metadata": { "name": AZURE_SECRET }, "stringData": { "azure.json": config.to_string() },
        }))?;
        Api::<Secret>::namespaced(lab.admin(), CONTROLLER_NAMESPACE).create(&PostParams::default(), &secret).await?;
        let mut controller = PodEdit::args(&[
            "--azure-cluster-name=prod",
            "--azure-public-namespaces=default",
            "--azure-reference-namespaces=default",
        ]);
        controller.env.push(("AZURE_AUTHORITY_HOST".to_owned(), url));
        lab.install_berth_with(&BerthConfig { controller, components: &["azure"], ..BerthConfig::default() }).await?;
        Ok(Self { lab, fake, before, _server: server })
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.lab.admin(), "default")
    }

    async fn create(&self, name: &str, annotations: &[(&str, &str)], port: u16) -> Result<()> {
        let service = serde_json::from_value(json!({
            "metadata": { "name": name, "annotations": annotated(annotations) },
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": AZURE_LB_CLASS, "selector": { "app": name },
                "ports": [{ "name": "main", "port": port, "targetPort": 8080 }],
            },
        }))?;
        self.services().create(&PostParams::default(), &service).await?;
        Ok(())
    }

    async fn patch(&self, name: &str, patch: Value) -> Result<()> {
        self.services().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Adds annotations; one without a value goes.
    async fn annotate(&self, name: &str, annotations: &[(&str, Option<&str>)]) -> Result<()> {
        let pairs = annotations.iter().map(|(name, value)| (full(name), json!(value)));
        let annotations: serde_json::Map<_, _> = pairs.collect();
        self.patch(name, json!({ "metadata": { "annotations": annotations } })).await
    }

    /// The addresses that a Service has in its status, once there are such.
    async fn served(&self, name: &str, is: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        let ask = async || {
            let service = self.services().get(name).await?;
            let conditions = json!(service.status.as_ref().and_then(|status| status.conditions.as_ref()));
            let found = addresses(&service);
            if !found.is_empty() && is(&found) { Ok(Some(found)) } else { bail!("{found:?}, and it says {conditions}") }
        };
        self.lab.eventually(&format!("{name} is served"), SOON, ask).await
    }

    async fn gone(&self, name: &str) -> Result<()> {
        self.services().delete(name, &DeleteParams::default()).await?;
        let ask = async || Ok(self.services().get_opt(name).await?.is_none().then_some(()));
        self.lab.eventually(&format!("{name} is gone"), SOON, ask).await
    }

    fn document(&self, path: &str) -> Value {
        self.fake.resources().remove(&format!("{GROUP}/{path}")).unwrap_or_default()
    }

    /// The properties of the parts of a document, by name.
    fn parts(&self, path: &str, kind: &str) -> BTreeMap<String, Value> {
        let parts = self.document(path)["properties"][kind].as_array().cloned().unwrap_or_default();
        let named = parts.iter().map(|part| (part["name"].as_str().unwrap_or_default().to_owned(), part));
        named.map(|(name, part)| (name, part["properties"].clone())).collect()
    }

    /// Addresses in the backend pool.
    fn members(&self, path: &str) -> usize {
        let pool = self.parts(path, "backendAddressPools").remove("prod").unwrap_or_default();
        pool["loadBalancerBackendAddresses"].as_array().map_or(0, Vec::len)
    }

    /// The only rule of the kind that there is, and its probe.
    fn rule(&self, path: &str) -> Value {
        let (rules, probes) = (self.parts(path, "loadBalancingRules"), self.parts(path, "probes"));
        json!({ "rule": rules.values().next(), "probe": probes.values().next(), "of": [rules.len(), probes.len()] })
    }

    /// The rules of the security group but those that were there.
    fn let_in(&self) -> Vec<Value> {
        self.parts(SECURITY, "securityRules")
            .into_iter()
            .filter(|(name, _)| name != "ssh")
            .map(|(_, rule)| rule)
            .collect()
    }

    /// Waits until what the stand-in has is so.
    async fn seen(&self, what: &str, is: impl Fn() -> bool) -> Result<()> {
        let ask = async || if is() { Ok(Some(())) } else { bail!("{:#}", json!(self.fake.resources())) };
        self.lab.eventually(what, SOON, ask).await
    }

    fn nothing_is_left(&self) -> Result<()> {
        let now = bare(self.fake.resources());
        ensure!(now == self.before, "before {:#}\nnow {:#}", json!(self.before), json!(now));
        Ok(())
    }

    fn calls(&self, what: &str) -> u64 {
        self.fake.counts().get(what).copied().unwrap_or_default()
    }
}

fn full(annotation: &str) -> String {
    format!("service.beta.kubernetes.io/{annotation}")
}

fn annotated(annotations: &[(&str, &str)]) -> Value {
    annotations.iter().map(|(name, value)| (full(name), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

fn addresses(service: &Service) -> Vec<String> {
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|ingress| ingress.ip.clone()).collect()
}

lab_test! { LAB;
    async fn a_service_is_served_by_the_load_balancer_of_azure_through_all_its_changes_until_it_is_deleted(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab).await?;
        cluster.create("web", &[], 80).await?;
        let first = cluster.served("web", |_| true).await?;
        ensure!(first[0].starts_with("10.0."), "{first:?}");
        cluster.seen("both nodes are members", || cluster.members(INTERNAL) == 2).await?;
        let uid = cluster.services().get("web").await?.metadata.uid.context("no UID")?;
        let base = format!("a{}", uid.replace('-', ""))[..32].to_owned();
        ensure!(cluster.parts(INTERNAL, "frontendIPConfigurations").contains_key(&base), "named as by cloud-provider-azure");
        let rule = cluster.rule(INTERNAL);
        ensure!(rule["of"] == json!([1, 1]) && rule["rule"]["enableFloatingIP"] == true, "{rule}");
        ensure!(rule["rule"]["frontendPort"] == 80 && rule["rule"]["idleTimeoutInMinutes"] == 4, "{rule}");

        // Rules and probes.
        cluster.annotate("web", &[
            ("azure-load-balancer-tcp-idle-timeout", Some("20")),
            ("azure-load-balancer-disable-tcp-reset", Some("true")),
            ("azure-load-balancer-health-probe-protocol", Some("http")),
            ("azure-load-balancer-health-probe-request-path", Some("/ready")),
            ("azure-load-balancer-health-probe-interval", Some("10")),
        ]).await?;
        cluster.seen("rule and probe are as asked for", || {
            let is = cluster.rule(INTERNAL);
            is["rule"]["idleTimeoutInMinutes"] == 20 && is["rule"]["enableTcpReset"] == false
                && is["probe"]["protocol"] == "Http" && is["probe"]["requestPath"] == "/ready" && is["probe"]["intervalInSeconds"] == 10
        }).await?;
        // Sources.
        cluster.annotate("web", &[("azure-allowed-ip-ranges", Some("198.51.100.0/24"))]).await?;
        cluster.seen("the range is let in", || {
            let rules = cluster.let_in();
            rules.len() == 1 && rules[0].to_string().contains("198.51.100.0/24") && rules[0].to_string().contains(&first[0])
        }).await?;
        cluster.annotate("web", &[("azure-allowed-ip-ranges", None)]).await?;
        cluster.seen("and is not any more", || cluster.let_in().is_empty()).await?;
        // Ports.
        let ports = json!([{ "name": "main", "port": 8443, "targetPort": 8080 }, { "name": "dns", "port": 53, "protocol": "UDP" }]);
        cluster.patch("web", json!({ "spec": { "ports": ports } })).await?;
        cluster.seen("both ports have rules and the old one has none", || {
            let rules = cluster.parts(INTERNAL, "loadBalancingRules");
            rules.keys().map(String::as_str).collect::<Vec<_>>() == [format!("{base}-TCP-8443"), format!("{base}-UDP-53")]
        }).await?;
        // Another address, and another subnet.
        cluster.annotate("web", &[("azure-load-balancer-ipv4", Some("10.0.9.9"))]).await?;
        cluster.served("web", |found| found == ["10.0.9.9"]).await?;
        cluster.annotate("web", &[("azure-load-balancer-ipv4", None), ("azure-load-balancer-internal-subnet", Some("apps"))]).await?;
        cluster.served("web", |found| found[0].starts_with("10.1.0.")).await?;
        cluster.seen("the old frontend is gone", || cluster.parts(INTERNAL, "frontendIPConfigurations").len() == 1).await?;

        // Nodes.
        let added: Node = serde_json::from_value(json!({
            "metadata": { "name": "added" }, "status": {
                "conditions": [{ "type": "Ready", "status": "True", "reason": "Test", "message": "it is" }],
                "addresses": [{ "type": "InternalIP", "address": "10.0.200.200" }],
            },
        }))?;
        let nodes = Api::<Node>::all(cluster.lab.admin());
        cluster.fake.reset_counts();
        nodes.create(&PostParams::default(), &added).await?;
        cluster.seen("the node that joined is a member", || cluster.members(INTERNAL) == 3).await?;
        nodes.delete("added", &DeleteParams::default()).await?;
        cluster.seen("the node that left is none", || cluster.members(INTERNAL) == 2).await?;
        ensure!(cluster.calls("PUT backendAddressPools") == 2, "{:?}", cluster.fake.counts());

        // Whom the internet reaches, by a name.
        cluster.annotate("web", &[
            ("azure-load-balancer-internal-subnet", None),
            ("azure-load-balancer-internal", Some("false")),
            ("azure-dns-label-name", Some("shop")),
            ("azure-pip-tags", Some("team=shop")),
        ]).await?;
        let public = cluster.served("web", |found| !found[0].starts_with("10.")).await?;
        cluster.seen("nothing internal is left, and the internet is let in", || {
            let all = cluster.fake.resources();
            let ip = all.iter().find(|(id, _)| id.contains("publicIPAddresses")).map(|(_, ip)| ip.clone()).unwrap_or_default();
            cluster.document(INTERNAL).is_null() && cluster.members(PUBLIC) == 2
                && ip["properties"]["ipAddress"] == public[0] && ip["tags"]["team"] == "shop"
                && ip["properties"]["dnsSettings"]["domainNameLabel"] == "shop"
                && cluster.let_in().iter().any(|rule| rule.to_string().contains("Internet") && rule.to_string().contains(&public[0]))
        }).await?;
        // What cannot be met leaves what works alone.
        cluster.annotate("web", &[("azure-pls-create", Some("true"))]).await?;
        let refused = async || {
            let status = json!(cluster.services().get("web").await?.status);
            if status.to_string().contains("PrivateLinkServices are not made") { Ok(Some(())) } else { bail!("{status}") }
        };
        cluster.lab.eventually("the Service says that it is refused", SOON, refused).await?;
        cluster.served("web", |found| found == public).await?;

        cluster.gone("web").await?;
        cluster.nothing_is_left()
    }
}

lab_test! { LAB;
    async fn another_controller_takes_over_without_a_change_in_azure(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab).await?;
        cluster.create("web", &[("azure-load-balancer-internal", "false")], 80).await?;
        cluster.create("db", &[("azure-allowed-ip-ranges", "10.0.0.0/8")], 5432).await?;
        cluster.served("web", |_| true).await?;
        cluster.served("db", |_| true).await?;
        cluster.seen("both nodes are members", || cluster.members(INTERNAL) == 2 && cluster.members(PUBLIC) == 2).await?;
        let before = bare(cluster.fake.resources());
        cluster.fake.reset_counts();
        cluster.lab.controller().await?.kill().await?;
        cluster.create("after", &[], 81).await?;
        cluster.served("after", |_| true).await?;
        let writes = ["networkSecurityGroups", "publicIPAddresses", "backendAddressPools"].map(|kind| cluster.calls(&format!("PUT {kind}")));
        ensure!(writes == [0; 3] && cluster.calls("PUT loadBalancers") <= 2, "{:?}", cluster.fake.counts());
        cluster.gone("after").await?;
        let after = bare(cluster.fake.resources());
        ensure!(before == after, "{before:#?}\n{after:#?}");
        Ok(())
    }
}

/// How many Services are made at once.
const MANY: u16 = 240;
/// How long each operation takes.
const OPERATION: Duration = Duration::from_secs(2);
/// Within which they have to be served (issue 9).
const TARGET: Duration = Duration::from_mins(1);
/// Fewer writes of each document than this (issue 9).
const WRITES: u64 = 10;

lab_test! { LAB;
    async fn many_services_at_once_are_few_writes_and_less_than_a_minute(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab).await?;
        cluster.fake.takes(OPERATION);
        let name = |number: u16| format!("s{number}");
        let ranges = [("azure-allowed-ip-ranges", "10.0.0.0/8")];
        let puts = || [cluster.calls("PUT loadBalancers"), cluster.calls("PUT networkSecurityGroups")];
        let began = Instant::now();
        try_join_all((0..MANY).map(async |number| cluster.create(&name(number), &ranges, 1000 + number).await)).await?;
        let created = began.elapsed();
        let all = async || {
            let services = cluster.services().list(&ListParams::default()).await?;
            let served = services.iter().filter(|service| !addresses(service).is_empty()).count();
            if served == usize::from(MANY) { Ok(Some(())) } else { bail!("{served} of {MANY} are served") }
        };
        cluster.lab.eventually("all have addresses", TARGET * 2, all).await?;
        let took = began.elapsed();
        let [balancers, groups] = puts();
        println!(
            "{MANY} internal Services, each operation {} s: created in {:.1} s, all served after {:.1} s; {balancers} PUTs of the load balancer, \
             {groups} of the security group",
            OPERATION.as_secs(), created.as_secs_f64(), took.as_secs_f64()
        );
        ensure!(took < TARGET && balancers < WRITES && groups < WRITES, "{:?}", cluster.fake.counts());
        ensure!(cluster.parts(INTERNAL, "loadBalancingRules").len() == usize::from(MANY));

        cluster.fake.reset_counts();
        let began = Instant::now();
        let delete = async |number| cluster.services().delete(&name(number), &DeleteParams::default()).await;
        try_join_all((0..MANY).map(delete)).await?;
        let none = async || {
            let left = cluster.services().list(&ListParams::default()).await?;
            let left = left.iter().filter(|service| service.spec.as_ref().is_some_and(|s| s.load_balancer_class.is_some())).count();
            if left == 0 { Ok(Some(())) } else { bail!("{left} are there") }
        };
        cluster.lab.eventually("all are gone", TARGET * 2, none).await?;
        let [balancers, groups] = puts();
        println!(
            "deleted, all gone after {:.1} s; {balancers} PUTs of the load balancer, {groups} of the security group",
            began.elapsed().as_secs_f64()
        );
        ensure!(balancers < WRITES && groups < WRITES, "{:?}", cluster.fake.counts());
        cluster.nothing_is_left()
    }
}
