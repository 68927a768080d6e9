//! Berth as it is installed in AWS, with moto in AWS's place.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use berth_api::names::{CONTROLLER_NAME, CONTROLLER_NAMESPACE};
use berth_api::orphans::{LIST_KEY, REMOVE, config_map_name};
use berth_lab::{BerthConfig, Lab, LabConfig, PodEdit, lab_test};
use berth_moto::{Fate, Ground, Moto, Proxy, Tools, environment};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Longest wait for a search that a controller makes when it begins to lead, and for the minute that follows it.
const SEARCHED: Duration = Duration::from_mins(3);
/// Longest wait for what takes seconds on an idle machine.
const SOON: Duration = Duration::from_mins(1);
const LAB: LabConfig = LabConfig { nodes: 2, kube_proxy: true };
const CLASS: &str = "berth.dev/aws-nlb";

/// A cluster in AWS.
struct Cluster {
    lab: Lab,
    tools: Tools,
    moto: Moto,
    proxy: Proxy,
    ground: Ground,
}

impl Cluster {
    async fn start(lab: Lab) -> Result<Self> {
        Self::start_with(lab, &["aws"]).await
    }

    async fn start_with(lab: Lab, components: &'static [&'static str]) -> Result<Self> {
        let tools = berth_moto::ready(&|_| ())?;
        let moto = Moto::start(&tools)?;
        let ground = tools.lay(&moto.endpoint(), usize::from(LAB.nodes) + 1)?;
        // Where the pods of nodes reach it.
        let proxy = Proxy::start_at(SocketAddr::from((lab.root().address, 0)), moto.address()).await?;
        let nodes: Api<Node> = Api::all(lab.admin());
        for (node, id) in lab.nodes().iter().zip(&ground.instances) {
            let patch = json!({ "spec": { "providerID": id } });
            nodes.patch(node.name(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        let vpc = format!("--aws-vpc-id={}", ground.vpc);
        // Nobody asks DNS here, so what is replaced goes at once.
        let flags =
            ["--aws-cluster-name=bench", "--aws-internet-facing-namespaces=default", "--aws-replaced-stays-seconds=0"];
        let mut controller = PodEdit::args(&[&flags[..], &[&vpc]].concat());
        controller.env = environment().map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        controller.env.push(("AWS_ENDPOINT_URL".to_owned(), proxy.endpoint()));
        let config = BerthConfig { controller, components, ..BerthConfig::default() };
        lab.install_berth_with(&config).await?;
        Ok(Self { lab, tools, moto, proxy, ground })
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.lab.admin(), "default")
    }

    async fn create(&self, name: &str) -> Result<()> {
        let service = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": CLASS, "selector": { "app": name },
                "ports": [{ "port": 80, "targetPort": 8080 }],
            },
        }))?;
        self.services().create(&PostParams::default(), &service).await?;
        Ok(())
    }

    async fn annotate(&self, name: &str, annotation: &str, value: &str) -> Result<()> {
        let annotation = format!("service.beta.kubernetes.io/aws-load-balancer-{annotation}");
        let patch = json!({ "metadata": { "annotations": { annotation: value } } });
        self.services().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Changes a Service: annotations of AWS by the names behind their prefix, others by their whole names, and its spec.
    async fn edit(&self, name: &str, annotations: &[(&str, &str)], spec: Value) -> Result<()> {
        let full = |name: &str| {
            if name.contains('/') {
                name.to_owned()
            } else {
                format!("service.beta.kubernetes.io/aws-load-balancer-{name}")
            }
        };
        let annotations: BTreeMap<_, _> = annotations.iter().map(|(name, value)| (full(name), *value)).collect();
        let patch = json!({ "metadata": { "annotations": annotations }, "spec": spec });
        self.services().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Nothing of any Service is there any more: no load balancer, no target group, and of security groups those that were there before.
    fn nothing_is_left(&self) -> Result<()> {
        let seen = self.tools.look(&self.moto.endpoint())?;
        ensure!(count(&seen, "LoadBalancers") + count(&seen, "TargetGroups") == 0, "{seen}");
        ensure!(count(&seen, "SecurityGroups") == 1, "{seen}");
        Ok(())
    }

    /// The host name that a Service has in its status.
    async fn served(&self, name: &str) -> Result<String> {
        let ask = async || {
            let service = self.services().get(name).await?;
            let status = service.status.context("no status")?;
            let ingress = status.load_balancer.and_then(|of| of.ingress).unwrap_or_default();
            let host = ingress.into_iter().find_map(|ingress| ingress.hostname);
            host.map(Some).with_context(|| format!("it says {}", json!(status.conditions)))
        };
        self.lab.eventually(&format!("{name} has a host name"), SOON, ask).await
    }

    /// The controller is killed at the call that was chosen; then AWS answers again.
    async fn dies(&self, name: &str) -> Result<()> {
        let ended = tokio::time::timeout(SOON, self.proxy.ended()).await;
        ensure!(ended.is_ok(), "{name}: fewer calls are made");
        self.lab.controller().await?.kill().await?;
        self.proxy.revive();
        Ok(())
    }

    async fn gone(&self, name: &str) -> Result<()> {
        self.services().delete(name, &DeleteParams::default()).await?;
        self.goes(name).await
    }

    async fn goes(&self, name: &str) -> Result<()> {
        let ask = async || Ok(self.services().get_opt(name).await?.is_none().then_some(()));
        self.lab.eventually(&format!("{name} is gone"), SOON, ask).await
    }

    /// How many controllers run.
    async fn controllers(&self, count: usize) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.lab.admin(), CONTROLLER_NAMESPACE);
        let patch = Patch::Merge(json!({ "spec": { "replicas": count } }));
        deployments.patch(CONTROLLER_NAME, &PatchParams::default(), &patch).await?;
        let pods: Api<Pod> = Api::namespaced(self.lab.admin(), CONTROLLER_NAMESPACE);
        let ask = async || {
            let there = pods.list_metadata(&ListParams::default()).await?.items.len();
            ensure!(there == count, "{there} are there");
            Ok(Some(()))
        };
        self.lab.eventually(&format!("{count} controllers run"), SOON, ask).await
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.lab.admin(), "default")
    }

    /// A pod with a readiness gate for a Service, whose containers are ready: what a kubelet says then is said here.
    async fn gated_pod(&self, name: &str, service: &str, address: &str) -> Result<()> {
        let node = self.lab.nodes().first().context("no node")?.name().to_owned();
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "app": "web" } },
            "spec": {
                "nodeName": node, "automountServiceAccountToken": false,
                "readinessGates": [{ "conditionType": gate(service) }],
                "containers": [{ "name": "web", "image": "lab", "ports": [{ "containerPort": 8080 }] }],
            },
        }))?;
        self.pods().create(&PostParams::default(), &pod).await?;
        let conditions = json!([
            { "type": "ContainersReady", "status": "True" },
            { "type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady" },
        ]);
        self.say(
            name,
            json!({ "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "conditions": conditions }),
        )
        .await
    }

    async fn say(&self, pod: &str, status: Value) -> Result<()> {
        let patch = json!({ "status": status });
        self.pods().patch_status(pod, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    /// Waits until a condition of a pod says so, as `True Reason`.
    async fn says(&self, pod: &str, kind: &str, text: &str) -> Result<()> {
        let ask = async || {
            let status = self.pods().get(pod).await?.status.unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            let of = conditions.iter().find(|condition| condition.type_ == kind);
            let said = of.map(|of| format!("{} {}", of.status, of.reason.as_deref().unwrap_or_default()));
            ensure!(said.as_deref() == Some(text), "{conditions:?}");
            Ok(Some(()))
        };
        self.lab.eventually(&format!("{pod}'s {kind} is {text}"), SOON, ask).await
    }

    /// Waits until what boto3 sees is so.
    async fn seen(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let ask = async || {
            let seen = self.tools.look(&self.moto.endpoint())?;
            if is(&seen) { Ok(Some(seen)) } else { anyhow::bail!("{seen}") }
        };
        self.lab.eventually(what, SOON, ask).await
    }
}

fn gate(service: &str) -> String {
    format!("target-health.berth.dev/{service}")
}

/// What is edited: its name for people, annotations, spec, and what boto3 sees then: of which kind of thing, where in it, and what.
type Edit = (&'static str, &'static [(&'static str, &'static str)], Value, &'static str, &'static str, Value);

fn count(seen: &Value, kind: &str) -> usize {
    seen[kind].as_object().map_or(0, serde_json::Map::len)
}

/// The field of the only one of its kind.
fn only<'a>(seen: &'a Value, kind: &str, path: &str) -> Option<&'a Value> {
    let all = seen[kind].as_object().filter(|all| all.len() == 1)?;
    all.values().next()?.pointer(path)
}

fn targets(seen: &Value) -> usize {
    only(seen, "TargetGroups", "/Targets").and_then(Value::as_array).map_or(0, Vec::len)
}

lab_test! { LAB;
    async fn a_service_is_served_by_a_load_balancer_of_aws_until_it_is_deleted(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab).await?;
        cluster.create("web").await?;
        let host = cluster.served("web").await?;
        ensure!(host.contains("elb"), "{host}");
        let seen = cluster.seen("both nodes are targets", |seen| targets(seen) == 2).await?;
        ensure!(only(&seen, "LoadBalancers", "/Type") == Some(&json!("network")), "{seen}");

        cluster.annotate("web", "attributes", "load_balancing.cross_zone.enabled=true").await?;
        let path = "/Attributes/load_balancing.cross_zone.enabled";
        cluster.seen("the attribute is set", |seen| only(seen, "LoadBalancers", path) == Some(&json!("true"))).await?;

        let added: Node = serde_json::from_value(json!({
            "metadata": { "name": "added" }, "spec": { "providerID": cluster.ground.instances[2] },
            "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "Test", "message": "it is" }] },
        }))?;
        Api::<Node>::all(cluster.lab.admin()).create(&PostParams::default(), &added).await?;
        cluster.seen("the node that joined is a target", |seen| targets(seen) == 3).await?;

        cluster.gone("web").await?;
        cluster.nothing_is_left()
    }
}

lab_test! { LAB;
    async fn what_a_service_says_is_what_boto3_sees_through_its_whole_life(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab).await?;
        cluster.create("web").await?;
        let first = cluster.served("web").await?;
        cluster.seen("both nodes are targets", |seen| targets(seen) == 2).await?;
        let edits: Vec<Edit> = vec![
            ("health checks", &[("healthcheck-interval", "30")], json!({}), "TargetGroups", "/HealthCheckIntervalSeconds", json!(30)),
            (
                "attributes of target groups", &[("target-group-attributes", "deregistration_delay.timeout_seconds=17")], json!({}),
                "TargetGroups", "/Attributes/deregistration_delay.timeout_seconds", json!("17"),
            ),
            ("tags", &[("additional-resource-tags", "team=shop")], json!({}), "LoadBalancers", "/Tags/team", json!("shop")),
            (
                "another protocol", &[], json!({ "ports": [{ "port": 53, "protocol": "UDP", "targetPort": 53 }] }),
                "LoadBalancers", "/Listeners/53/Protocol", json!("UDP"),
            ),
            (
                "another port", &[], json!({ "ports": [{ "port": 81, "targetPort": 8080 }] }),
                "LoadBalancers", "/Listeners/81/Protocol", json!("TCP"),
            ),
            (
                "attributes of listeners", &[("listener-attributes.TCP-81", "tcp.idle_timeout.seconds=400")], json!({}),
                "LoadBalancers", "/Listeners/81/Attributes/tcp.idle_timeout.seconds", json!("400"),
            ),
        ];
        for (what, annotations, spec, kind, path, expected) in edits {
            cluster.edit("web", annotations, spec).await?;
            let done = |seen: &Value| only(seen, kind, path) == Some(&expected) && targets(seen) == 2;
            let seen = cluster.seen(what, done).await?;
            let listeners = only(&seen, "LoadBalancers", "/Listeners").and_then(Value::as_object).map_or(0, serde_json::Map::len);
            ensure!(listeners == 1, "{what}: {seen}");
        }
        cluster.edit("web", &[], json!({ "loadBalancerSourceRanges": ["192.0.2.0/24"] })).await?;
        let rules = |seen: &Value| {
            let all = seen["SecurityGroups"].as_object().into_iter().flat_map(|all| all.values());
            all.filter(|of| of["Tags"]["berth.dev/resource"] == "security-group").map(|of| of["Rules"].clone()).collect::<Vec<_>>()
        };
        cluster.seen("source ranges", |seen| rules(seen) == [json!(["tcp 81-81 from 192.0.2.0/24"])]).await?;

        let nodes: Api<Node> = Api::all(cluster.lab.admin());
        let excluded = |value: Value| json!({ "metadata": { "labels": { "node.kubernetes.io/exclude-from-external-load-balancers": value } } });
        let node = cluster.lab.nodes()[0].name().to_owned();
        nodes.patch(&node, &PatchParams::default(), &Patch::Merge(excluded(json!("")))).await?;
        cluster.seen("a node that is excluded is no target", |seen| targets(seen) == 1).await?;
        nodes.patch(&node, &PatchParams::default(), &Patch::Merge(excluded(Value::Null))).await?;
        cluster.seen("and is one again", |seen| targets(seen) == 2).await?;

        let public = [("scheme", "internet-facing"), ("berth.dev/allow-replacement", "true")];
        cluster.edit("web", &public, json!({})).await?;
        let replaced = |seen: &Value| only(seen, "LoadBalancers", "/Scheme") == Some(&json!("internet-facing")) && targets(seen) == 2;
        cluster.seen("another scheme", replaced).await?;
        ensure!(cluster.served("web").await? != first, "its load balancer is another one");

        cluster.gone("web").await?;
        cluster.nothing_is_left()
    }
}

lab_test! { LAB;
    async fn whatever_call_is_the_last_of_a_controller_the_next_one_finishes_its_work(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab).await?;
        // Every call is tried where the provider is driven by itself; here a few, because whoever is killed often is started late.
        for (calls, fate) in [(1, Fate::AnswerLost), (4, Fate::Lost), (7, Fate::AnswerLost)] {
            let name = format!("web-{calls}");
            cluster.proxy.end_after(calls, fate);
            cluster.create(&name).await?;
            cluster.dies(&name).await?;
            cluster.served(&name).await?;
            let seen = cluster.seen("both nodes are targets", |seen| targets(seen) == 2).await?;
            let balancers = seen["LoadBalancerNames"].as_array().map_or(0, Vec::len);
            ensure!(balancers == 1 && count(&seen, "SecurityGroups") == 3, "{name}: {seen}");
            // And the same as it goes.
            cluster.proxy.end_after(1, fate);
            cluster.services().delete(&name, &DeleteParams::default()).await?;
            cluster.dies(&name).await?;
            cluster.goes(&name).await?;
            cluster.nothing_is_left()?;
        }
        Ok(())
    }
}

lab_test! { LAB;
    async fn another_controller_takes_over_without_a_change_in_aws(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab).await?;
        cluster.create("web").await?;
        cluster.served("web").await?;
        let before = cluster.seen("both nodes are targets", |seen| targets(seen) == 2).await?;
        let leader = cluster.lab.controller().await?;
        leader.kill().await?;
        cluster.proxy.take();
        cluster.create("after").await?;
        cluster.served("after").await?;
        let foreign = |call: &berth_moto::Call| !call.is_read() && call.form.contains("web");
        let changed: Vec<_> = cluster.proxy.take().into_iter().filter(foreign).collect();
        ensure!(changed.is_empty(), "{changed:?}");
        cluster.gone("after").await?;
        let after = cluster.tools.look(&cluster.moto.endpoint())?;
        ensure!(before == after, "{before}\n{after}");
        Ok(())
    }
}

lab_test! { LAB;
    async fn a_pod_that_waits_for_its_readiness_gate_is_a_target_and_its_gate_opens(lab: Lab) -> Result<()> {
        let cluster = Cluster::start_with(lab, &["aws", "aws-readiness-gates"]).await?;
        cluster.gated_pod("web-0", "web", "198.51.100.10").await?;
        cluster.gated_pod("lost-0", "absent", "198.51.100.11").await?;
        cluster.says("web-0", &gate("web"), "False GateUnserved").await?;
        cluster.says("lost-0", &gate("absent"), "False GateUnserved").await?;
        cluster.create("web").await?;
        cluster.served("web").await?;
        // Of nodes by default.
        cluster.says("web-0", &gate("web"), "False GateNeedsAddresses").await?;
        cluster.gone("web").await?;
        let service = serde_json::from_value(json!({
            "metadata": {
                "name": "web",
                "annotations": { "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": "ip" },
            },
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": CLASS, "selector": { "app": "web" },
                "ports": [{ "port": 80, "targetPort": 8080 }],
            },
        }))?;
        cluster.services().create(&PostParams::default(), &service).await?;
        cluster.served("web").await?;
        cluster.says("web-0", &gate("web"), "True TargetsHealthy").await?;
        cluster.says("web-0", "Ready", "False ReadinessGatesNotReady").await?;
        let is_it = |seen: &Value| targets(seen) == 1;
        cluster.seen("the pod that waited is the only target", is_it).await?;
        cluster.say("web-0", json!({ "conditions": [{ "type": "Ready", "status": "True", "reason": null }] })).await?;
        cluster.seen("it stays one when it is ready", is_it).await?;
        cluster.says("lost-0", &gate("absent"), "False GateUnserved").await
    }
}

lab_test! { LAB;
    async fn what_a_service_left_is_listed_and_removed_once_a_person_names_it(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab).await?;
        cluster.create("web").await?;
        cluster.served("web").await?;
        let uid = cluster.services().get("web").await?.metadata.uid.context("no uid")?;
        let lists: Api<ConfigMap> = Api::namespaced(cluster.lab.admin(), CONTROLLER_NAMESPACE);
        let listed = async |what: &str, is: fn(&str) -> bool| {
            let ask = async || {
                let list = lists.get(&config_map_name("aws")).await?.data.unwrap_or_default();
                let text = list.get(LIST_KEY).cloned().unwrap_or_default();
                if is(&text) { Ok(Some(())) } else { anyhow::bail!("{text}") }
            };
            cluster.lab.eventually(what, SEARCHED, ask).await
        };
        listed("nothing is listed", |text| text.contains("\"orphans\": []")).await?;

        // Its finalizer is taken off by force while no controller runs.
        cluster.controllers(0).await?;
        cluster.services().patch("web", &PatchParams::default(), &Patch::Merge(json!({ "metadata": { "finalizers": null } }))).await?;
        cluster.gone("web").await?;
        cluster.controllers(2).await?;
        listed("it is listed", |text| text.contains("no Service default/web is served")).await?;
        let seen = cluster.tools.look(&cluster.moto.endpoint())?;
        ensure!(count(&seen, "LoadBalancers") == 1, "{seen}");

        let patch = json!({ "metadata": { "annotations": { REMOVE: uid } } });
        lists.patch(&config_map_name("aws"), &PatchParams::default(), &Patch::Merge(patch)).await?;
        cluster.seen("all of it is gone", |seen| count(seen, "LoadBalancers") + count(seen, "TargetGroups") == 0).await?;
        listed("nothing is listed any more", |text| text.contains("\"orphans\": []")).await
    }
}
