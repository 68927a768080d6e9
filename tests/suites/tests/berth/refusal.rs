//! Wrong pools and wrong requests: each gets a clear error where it was made, and what worked goes on working.

use anyhow::{Context as _, Result, bail, ensure};
use berth_api::{IPAddressPool, SpeakerNode};
use berth_lab::{Lab, lab_test};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, SOON, answers};

fn pool(name: &str, addresses: Value) -> serde_json::Result<IPAddressPool> {
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "IPAddressPool",
        "metadata": {"name": name}, "spec": {"addresses": addresses},
    });
    serde_json::from_value(object)
}

lab_test! {
    async fn a_wrong_pool_says_what_is_wrong_and_what_worked_goes_on(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let (address, _) = cluster.web(&["node-1"], json!({})).await?;
        let prober = cluster.probing(address).await?;

        // What the API server can tell by itself is refused at once.
        for (entry, says) in [
            ("192.0.2.0/33", "neither a CIDR such as 192.0.2.0/28 nor a range such as 192.0.2.10-192.0.2.20: 192.0.2.0/33"),
            ("web", "neither a CIDR such as 192.0.2.0/28 nor a range such as 192.0.2.10-192.0.2.20: web"),
            ("192.0.2.1-192.0.2.2-192.0.2.3", "neither a CIDR"),
            ("192.0.2.210/28", "bits are set behind the prefix, so it is unclear which addresses are meant; clear them or write a range: 192.0.2.210/28"),
            ("2001:db8::/129", "neither a CIDR"),
            ("2001:db8::5/64", "bits are set behind the prefix"),
            ("::ffff:192.0.2.210", "neither a CIDR"),
            ("192.0.2.210-2001:db8::1", "starts in one address family and ends in the other, write one entry for each: 192.0.2.210-2001:db8::1"),
        ] {
            match cluster.pools().create(&PostParams::default(), &pool("wrong", json!([entry]))?).await {
                Ok(_) => bail!("{entry} was taken"),
                Err(error) => ensure!(error.to_string().contains(says), "{entry}: {error}"),
            }
        }
        // What needs arithmetic or the rest of the cluster is said on the object.
        for (name, addresses, reason, says) in [
            ("reversed", json!(["192.0.2.220-192.0.2.215"]), "RangeReversed", "write `192.0.2.215-192.0.2.220`"),
            ("twice", json!(["192.0.2.230-192.0.2.233", "192.0.2.232/31"]), "Overlap", "`spec.addresses[1]` and `spec.addresses[0]`"),
            ("overlap", json!(["192.0.2.205-192.0.2.215"]), "Overlap", "192.0.2.205-192.0.2.209 is also part of the older pool `default`"),
            ("node", json!(["192.0.2.12-192.0.2.12"]), "NodeAddress", "192.0.2.12 is the own address of node node-2"),
            ("node6", json!(["2001:db8:2::12-2001:db8:2::12"]), "NodeAddress", "2001:db8:2::12 is the own address of node node-2"),
            ("reversed6", json!(["2001:db8:2::9-2001:db8:2::5"]), "RangeReversed", "write `2001:db8:2::5-2001:db8:2::9`"),
            ("local6", json!(["192.0.2.240", "fe80::/64"]), "InvalidAddress", "link-local"),
        ] {
            cluster.pools().create(&PostParams::default(), &pool(name, addresses)?).await?;
            let (status, message) = cluster.pool_reason(name, reason).await?;
            ensure!(status == "False" && message.contains(says), "{name}: {message}");
            ensure!(cluster.event(name, reason).await?.contains(says), "{name}: the event says the same");
            assert_eq!(cluster.pool_reason("default", "Valid").await?.0, "True");
            cluster.pools().delete(name, &DeleteParams::default()).await?;
        }

        // Both families in one pool, however large.
        let both = json!(["2001:db8:5::/64", " 192.0.2.240 - 192.0.2.243 ", "2001:db8:3::1-2001:db8:3::7", "2001:db8:4::1"]);
        cluster.pools().create(&PostParams::default(), &pool("both", both)?).await?;
        cluster.pool_reason("both", "Valid").await?;
        let status = cluster.pools().get("both").await?.status.context("it has a condition")?;
        assert_eq!((status.available_ipv4, status.available_ipv6), (Some(4), Some(i64::MAX)));
        cluster.pools().delete("both", &DeleteParams::default()).await?;

        // A good pool that is made bad gives nothing new, keeps what is held, and recovers.
        let change = async |addresses: Value| {
            let change = Patch::Merge(json!({"spec": {"addresses": addresses}}));
            cluster.pools().patch("default", &PatchParams::default(), &change).await
        };
        change(json!(["192.0.2.209-192.0.2.200"])).await?;
        cluster.pool_reason("default", "RangeReversed").await?;
        cluster.service("new", json!({})).await?;
        let (_, message) = cluster.reason("new", "berth.dev/Allocated", "PoolNotReady").await?;
        ensure!(message.contains("IPAddressPool `default`"), "{message}");
        assert_eq!(cluster.ingress("web").await?, Some(address));
        change(json!(["192.0.2.200-192.0.2.204"])).await?;
        cluster.address("new").await?;

        let seen = prober.stop();
        ensure!(seen.failed().next().is_none(), "the Service that worked lost connections: {:?}", seen.failed().next());
        Ok(())
    }
}

lab_test! {
    async fn a_wrong_request_is_refused_on_the_service_and_mended_by_correcting_it(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        cluster.pod("web", "node-1").await?;
        for (name, more, annotations, reason, says) in [
            ("text", json!({}), json!({"berth.dev/load-balancer-ips": "web"}), "InvalidRequest", "annotation berth.dev/load-balancer-ips: `web` is not an IP address"),
            ("field", json!({"loadBalancerIP": "web"}), json!({}), "InvalidRequest", "spec.loadBalancerIP: `web` is not an IP address"),
            ("outside", json!({"loadBalancerIP": "198.51.100.9"}), json!({}), "AddressOutsidePools", "198.51.100.9 is in no IPAddressPool"),
            ("nowhere", json!({}), json!({"metallb.io/address-pool": "gold"}), "PoolNotFound", "there is no IPAddressPool `gold`"),
            ("elsewhere", json!({"loadBalancerIP": "198.51.100.9"}), json!({"metallb.io/loadBalancerIPs": "192.0.2.200"}), "InvalidRequest", "remove one of them"),
            ("family", json!({}), json!({"berth.dev/load-balancer-ips": "2001:db8:2::200"}), "FamilyMismatch", "asks for 2001:db8:2::200, but the Service has IPv4 alone"),
        ] {
            let mut spec = json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]});
            if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
                spec.extend(more);
            }
            let service = serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}, "spec": spec}))?;
            cluster.services().create(&PostParams::default(), &service).await?;
            let (status, message) = cluster.reason(name, "berth.dev/Allocated", reason).await?;
            ensure!(status == "False" && message.contains(says), "{name}: {message}");
            ensure!(cluster.event(name, reason).await?.contains(says), "{name}: the event says the same");
            assert_eq!(cluster.ingress(name).await?, None, "{name}");
            let mend = json!({
                "metadata": {"annotations": {"berth.dev/load-balancer-ips": null, "metallb.io/address-pool": null, "metallb.io/loadBalancerIPs": null}},
                "spec": {"loadBalancerIP": null},
            });
            cluster.edit(name, mend).await?;
            let address = cluster.address(name).await?;
            answers(&lab.client().netns, address).await?;
            cluster.reason(name, "berth.dev/Allocated", "Allocated").await?;
        }

        // One that holds an address keeps it.
        let held = cluster.ingress("text").await?;
        cluster.edit("text", json!({"spec": {"loadBalancerIP": "198.51.100.9"}})).await?;
        let (status, message) = cluster.reason("text", "berth.dev/Allocated", "AddressOutsidePools").await?;
        ensure!(status == "False" && message.ends_with("192.0.2.200 stays until then"), "{message}");
        assert_eq!(cluster.ingress("text").await?, held);
        answers(&lab.client().netns, held.context("it held one")?).await?;
        Ok(())
    }
}

/// A pool for each way to be refused. Two give addresses by themselves, of one family each.
const POOLS: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: six}
spec: {addresses: ['2001:db8:2::200-2001:db8:2::209']}
---
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: 'off'}
spec: {addresses: [192.0.2.210], autoAssign: false, disabled: true}
---
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: gold}
spec: {addresses: [192.0.2.211], autoAssign: false, serviceAllocation: {namespaces: [gold]}}
---
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: fussy}
spec: {addresses: [203.0.113.0/24], autoAssign: false, avoidBuggyIPs: true}
---
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: cool}
spec: {addresses: [192.0.2.212], autoAssign: false, coolDownSeconds: 3600}
---
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: narrow}
spec: {addresses: [192.0.2.213], autoAssign: false, sharing: Namespace}
---
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: wrong}
spec: {addresses: [192.0.2.219-192.0.2.215], autoAssign: false}
---
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: taken}
spec: {addresses: [192.0.2.2, 192.0.2.12, 192.0.2.255, 10.244.1.9, 10.96.0.9], autoAssign: false}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: not-this-one}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [berth.dev], apiVersions: ['*'], operations: [CREATE], resources: [announcements]}]
  validations: [{expression: object.metadata.name != '192.0.2.207', message: this one is for nobody}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: not-this-one}
spec: {policyName: not-this-one, validationActions: [Deny]}
---
apiVersion: v1
kind: Namespace
metadata: {name: elsewhere}
---
apiVersion: v1
kind: Service
metadata:
  {name: neighbour, namespace: elsewhere, annotations: {metallb.io/address-pool: narrow, metallb.io/allow-shared-ip: k}}
spec: {type: LoadBalancer, ports: [{port: 443}]}
";

lab_test! {
    async fn every_refusal_of_an_address_is_seen_as_a_condition_and_an_event_with_its_own_reason(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let reports: Api<SpeakerNode> = Api::all(lab.admin());
        lab.eventually("every node has said which gateways it has", SOON, async || {
            let reports = reports.list(&ListParams::default()).await?;
            ensure!(reports.items.len() == lab.nodes().len(), "{} of them", reports.items.len());
            Ok(reports.iter().all(|report| !report.spec.gateways.is_empty()).then_some(()))
        })
        .await?;
        lab.apply_yaml(POOLS).await?;
        lab.eventually("the policy holds", SOON, async || {
            let claim = json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "Announcement", "metadata": {"name": "192.0.2.207"},
                "spec": {"address": "192.0.2.207", "pool": "default", "services": [{"namespace": "n", "name": "n", "uid": "1"}]},
            });
            let dry = PostParams { dry_run: true, ..PostParams::default() };
            Ok(cluster.announcements().create(&dry, &serde_json::from_value(claim)?).await.is_err().then_some(()))
        })
        .await?;
        let ports = |port: u16| json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": port}]});
        let asked = |address: &str| json!({"berth.dev/load-balancer-ips": address});
        let pool = |pool: &str| json!({"berth.dev/address-pool": pool});
        let shares = |address: &str, key: &str| json!({"metallb.io/loadBalancerIPs": address, "metallb.io/allow-shared-ip": key});
        cluster.annotated("shared", shares("192.0.2.205", "k"), ports(80)).await?;
        cluster.address("shared").await?;
        cluster.annotated("last", pool("cool"), ports(80)).await?;
        cluster.address("last").await?;
        lab.eventually("the neighbour holds an address", SOON, async || cluster.announcements().get_opt("192.0.2.213").await.map_err(Into::into)).await?;

        let dual = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]});
        let six = json!({"ipFamilies": ["IPv6"]});
        let local = json!({"externalTrafficPolicy": "Local"});
        let nothing = json!({});
        for (name, annotations, port, more, reason) in [
            ("disabled", pool("off"), 80, &nothing, "PoolDisabled"),
            ("not-admitted", pool("gold"), 80, &nothing, "PoolNotAdmitted"),
            ("not-ready", pool("wrong"), 80, &nothing, "PoolNotReady"),
            ("exhausted", pool("cool"), 80, &nothing, "PoolExhausted"),
            ("other-family", pool("cool"), 80, &six, "FamilyUnavailable"),
            ("buggy", asked("203.0.113.255"), 80, &nothing, "BuggyAddress"),
            ("gateway", asked("192.0.2.2"), 80, &nothing, "GatewayAddress"),
            ("node", asked("192.0.2.12"), 80, &nothing, "NodeAddress"),
            ("subnet", asked("192.0.2.255"), 80, &nothing, "SubnetAddress"),
            ("pods", asked("10.244.1.9"), 80, &nothing, "PodNetwork"),
            ("services", asked("10.96.0.9"), 80, &nothing, "ServiceNetwork"),
            ("other-pool", json!({"berth.dev/load-balancer-ips": "192.0.2.206", "metallb.io/address-pool": "cool"}), 80, &nothing, "AddressNotInPool"),
            ("two-pools", asked("192.0.2.206,2001:db8:2::206"), 80, &dual, "PoolsDiffer"),
            ("no-pair", nothing.clone(), 80, &dual, "NoDualStackPool"),
            ("in-use", asked("192.0.2.205"), 81, &nothing, "AddressInUse"),
            ("key", shares("192.0.2.205", "l"), 81, &nothing, "SharingKeyDiffers"),
            ("port", shares("192.0.2.205", "k"), 80, &nothing, "SharingPortTaken"),
            ("policy", shares("192.0.2.205", "k"), 81, &local, "SharingPolicyDiffers"),
            ("namespace", shares("192.0.2.213", "k"), 80, &nothing, "SharingNamespaceDiffers"),
            ("refused", asked("192.0.2.207"), 80, &nothing, "ClaimRefused"),
        ] {
            let mut spec = ports(port);
            if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more.clone()) {
                spec.extend(more);
            }
            cluster.annotated(name, annotations, spec).await?;
            let (status, message) = cluster.reason(name, "berth.dev/Allocated", reason).await.with_context(|| name.to_owned())?;
            assert_eq!(status, "False", "{name}: {message}");
            assert_eq!(cluster.event(name, reason).await?, message, "{name}: the event says the same");
            assert_eq!(cluster.published(name).await?, Vec::<String>::new(), "{name}");
        }
        // What was given back a moment ago, also for who asks for that very address.
        cluster.delete("last").await?;
        lab.eventually("it is given back", SOON, async || {
            Ok(cluster.announcements().get_opt("192.0.2.212").await?.is_none().then_some(()))
        })
        .await?;
        cluster.annotated("cooling", asked("192.0.2.212"), ports(80)).await?;
        let (_, message) = cluster.reason("cooling", "berth.dev/Allocated", "CoolingDown").await?;
        assert_eq!(cluster.event("cooling", "CoolingDown").await?, message);
        // What was refused by the API server is tried again, and needs nobody to say so.
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(lab.admin());
        bindings.delete("not-this-one", &DeleteParams::default()).await?;
        cluster.publishes("refused", &["192.0.2.207"]).await
    }
}
