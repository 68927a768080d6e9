//! Addresses that a routing daemon on the nodes makes known, over both families, with BIRD and FRR.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_api::names::announcement_name;
use berth_lab::{BerthConfig, Lab, LabConfig, lab_test};
use serde_json::{Value, json};

use crate::cluster::{Cluster, EVERY, SOON, answers, http};
use crate::plugin::has;
use crate::routing::{Finds, PROTOCOL, Router, bird_on, frr_on, on, routes};

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// Longest wait for a container that ended again and again: the kubelet waits longer each time.
const RESTART: Duration = Duration::from_mins(1);
/// Addresses that are of no subnet of a node.
const POOL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: routed}
spec: {addresses: [203.0.113.10-203.0.113.19, '2001:db8:77::10-2001:db8:77::19']}
";
const ADVERTISEMENT: &str = "
apiVersion: berth.dev/v1alpha1
kind: RouteAdvertisement
metadata: {name: routed}
spec: {ipAddressPools: [routed]}
";

/// A cluster that may make routes.
async fn start(lab: &Lab, advertisement: &str) -> Result<Cluster> {
    lab.install_berth_with(&BerthConfig { components: &["routes"], ..BerthConfig::default() }).await?;
    lab.apply_yaml(POOL).await?;
    lab.apply_yaml(advertisement).await?;
    Ok(Cluster { lab: lab.clone() })
}

/// Makes a Service of both families for pods on these nodes; its addresses.
async fn dual_stack(cluster: &Cluster, nodes: &[&str], policy: &str) -> Result<[IpAddr; 2]> {
    for node in nodes {
        cluster.pod("web", node).await?;
    }
    cluster.service("web", json!({"ipFamilyPolicy": "RequireDualStack", "externalTrafficPolicy": policy})).await?;
    cluster.addresses("web").await
}

fn host(address: IpAddr) -> String {
    address.to_string()
}

/// Waits until a node has routes of Berth's to exactly these addresses.
async fn has_routes(lab: &Lab, node: &str, addresses: &[IpAddr]) -> Result<()> {
    let expected: BTreeSet<_> = addresses.iter().map(|address| host(*address)).collect();
    lab.eventually(&format!("{node} has routes to {addresses:?}"), SOON, async || {
        let seen = routes(lab, node).await?;
        ensure!(seen == expected, "they are to {seen:?}");
        Ok(Some(()))
    })
    .await
}

lab_test! {
    async fn addresses_of_no_subnet_reach_clients_by_routes_that_bird_and_frr_make_known(lab: Lab) -> Result<()> {
        let cluster = start(&lab, ADVERTISEMENT).await?;
        bird_on(&lab, "node-1", Finds::Routes)?;
        let _frr = frr_on(&lab, "node-2", Finds::Routes).await?;
        let router = Router::start(&lab, &["node-1", "node-2"])?;
        let both = dual_stack(&cluster, &["node-3"], "Cluster").await?;
        assert_eq!(both, ["203.0.113.10".parse::<IpAddr>()?, "2001:db8:77::10".parse()?]);

        for node in NODES {
            has_routes(&lab, node, &both).await?;
        }
        for address in both {
            router.knows(address, &["node-1", "node-2"]).await?;
            answers(&lab.remote().netns, address).await.with_context(|| format!("{address} from behind the router"))?;
            let spec = cluster.announcements().get(&announcement_name(address)).await?.spec;
            ensure!(spec.layer2.is_none(), "nobody answers on the link: {:?}", spec.layer2);
            let [way] = &spec.routes[..] else { anyhow::bail!("{:?}", spec.routes) };
            assert_eq!(way.nodes, NODES);
        }
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "Announced").await?;
        assert_eq!((status.as_str(), message.as_str()), ("True", "routed by 3 nodes: node-1; node-2; node-3"));
        let metrics = lab.speaker_metrics("node-1").await?;
        has(&metrics, &["berth_speaker_routes 2", "berth_speaker_routes_refused 0"])?;

        // Somebody deletes one of them, and an interface flaps, which takes all along.
        on(&lab, "node-1", &format!("ip route del {}", both[0])).await?;
        has_routes(&lab, "node-1", &both).await?;
        on(&lab, "node-3", "ip link set eth0 down; ip link set eth0 up; ip address replace 2001:db8:2::13/64 dev eth0 nodad; \
             ip route replace default via 192.0.2.2; ip -6 route replace default via 2001:db8:2::2").await?;
        has_routes(&lab, "node-3", &both).await?;

        cluster.delete("web").await?;
        for node in ["node-1", "node-2"] {
            has_routes(&lab, node, &[]).await?;
        }
        router.knows(both[0], &[]).await?;
        router.knows(both[1], &[]).await
    }
}

lab_test! {
    async fn a_node_that_is_drained_or_loses_its_last_local_endpoint_goes_and_the_others_go_on(lab: Lab) -> Result<()> {
        let cluster = start(&lab, ADVERTISEMENT).await?;
        bird_on(&lab, "node-1", Finds::Routes)?;
        let _frr = frr_on(&lab, "node-2", Finds::Routes).await?;
        let router = Router::start(&lab, &["node-1", "node-2"])?;
        let first = cluster.pod("web", "node-1").await?;
        let both = dual_stack(&cluster, &["node-2"], "Local").await?;
        for address in both {
            router.knows(address, &["node-1", "node-2"]).await?;
            let client = answers(&lab.remote().netns, address).await?.client.ip();
            let expected: IpAddr = if address.is_ipv4() { lab.remote().address.into() } else { lab.remote().address6.into() };
            assert_eq!(client, expected, "the Local policy keeps it");
        }
        has_routes(&lab, "node-3", &[]).await?;

        first.set_ready(false).await?;
        for address in both {
            router.knows(address, &["node-2"]).await?;
        }
        let message = "routed by 1 node: node-2";
        lab.eventually("the condition names who is left", SOON, async || {
            let (_, said) = cluster.reason("web", "berth.dev/Announced", "Announced").await?;
            ensure!(said == message, "{said}");
            Ok(Some(()))
        })
        .await?;
        let begin = Instant::now();
        let probers = both.map(|address| lab.remote().netns.probe(http(address), EVERY));
        for prober in probers {
            prober.answered_since(begin + Duration::from_millis(300), SOON).await?;
            ensure!(prober.stop().failed().next().is_none(), "the path by node-2 serves");
        }

        // The last one that can is kept although it is drained; with another it goes.
        let drain = |value: Option<&str>| json!({"metadata": {"annotations": {"berth.dev/drain": value}}});
        annotate(&lab, "node-2", drain(Some("true"))).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        for address in both {
            router.knows(address, &["node-2"]).await?;
        }
        first.set_ready(true).await?;
        for address in both {
            router.knows(address, &["node-1"]).await?;
            answers(&lab.remote().netns, address).await?;
        }
        annotate(&lab, "node-2", drain(None)).await?;
        for address in both {
            router.knows(address, &["node-1", "node-2"]).await?;
        }

        first.set_ready(false).await?;
        cluster.edit("web", json!({"spec": {"selector": {"app": "nobody"}}})).await?;
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "NoLocalEndpoints").await?;
        assert_eq!(status, "False");
        has(&message, &["no node that could route the address has a serving endpoint"])?;
        router.knows(both[0], &[]).await?;
        router.knows(both[1], &[]).await
    }
}

async fn annotate(lab: &Lab, node: &str, change: Value) -> Result<()> {
    use k8s_openapi::api::core::v1::Node;
    use kube::api::{Patch, PatchParams};
    let nodes: kube::Api<Node> = kube::Api::all(lab.admin());
    nodes.patch(node, &PatchParams::default(), &Patch::Merge(change)).await?;
    Ok(())
}

lab_test! {
    async fn routes_outlive_their_speaker_and_its_next_start_purges_what_is_not_wished_and_nothing_else(lab: Lab) -> Result<()> {
        let cluster = start(&lab, ADVERTISEMENT).await?;
        bird_on(&lab, "node-1", Finds::Routes)?;
        let router = Router::start(&lab, &["node-1"])?;
        let both = dual_stack(&cluster, &["node-1"], "Local").await?;
        for address in both {
            router.knows(address, &["node-1"]).await?;
        }
        let probers = both.map(|address| lab.remote().netns.probe(http(address), EVERY));
        for prober in &probers {
            prober.answered(SOON).await?;
        }
        let begin = Instant::now();
        let watched = lab.run_dir().path().join("route-monitor");
        let monitor = lab.spawn(berth_lab::ProcessSpec {
            name: "route-monitor".to_owned(),
            program: "sh".into(),
            args: vec!["-c".to_owned(), format!("exec ip monitor route > {}", watched.display())],
            env: Vec::new(),
            netns: lab.node("node-1")?.netns().clone(),
        })?;

        let speaker = lab.speaker("node-1")?;
        let restarts = speaker.restarts();
        speaker.kill().await?;
        // What a run that crashed may have left, and what is none of ours: of the same prefix length, of another number, of another prefix.
        on(&lab, "node-1", &format!(
            "ip route add 203.0.113.99/32 dev eth0 proto {PROTOCOL}; ip -6 route add 2001:db8:77::99/128 dev eth0 proto {PROTOCOL}; \
             ip route add 203.0.113.98/32 dev eth0 proto {PROTOCOL} table 77; ip route add 203.0.113.97/32 dev eth0 proto static; \
             ip -6 route add 2001:db8:77::97/128 dev eth0 proto 165; ip address add 203.0.113.96/32 dev lo"
        ))
        .await?;
        speaker.restarted(restarts, RESTART).await?;
        lab.speaker_ready("node-1").await?;
        has_routes(&lab, "node-1", &both).await?;
        let left = on(&lab, "node-1", "ip route show; ip -6 route show; ip address show dev lo").await?;
        has(&left, &["203.0.113.97 dev eth0 proto static", "2001:db8:77::97 dev eth0 proto 165", "203.0.113.96/32"])?;

        // One that is told to stop leaves them, too.
        let speaker = lab.speaker("node-1")?;
        let restarts = speaker.restarts();
        speaker.terminate(SOON).await?;
        speaker.restarted(restarts, RESTART).await?;
        lab.speaker_ready("node-1").await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        has_routes(&lab, "node-1", &both).await?;
        monitor.kill().await?;
        let seen = std::fs::read_to_string(&watched)?;
        for (address, prober) in both.into_iter().zip(probers) {
            ensure!(!seen.contains(&format!("Deleted {address} ")), "{seen}");
            prober.answered_since(Instant::now(), SOON).await?;
            let observed = prober.stop();
            ensure!(observed.failed().next().is_none(), "{address}: {:?}", observed.failed().next());
            ensure!(observed.longest_gap_since(begin) < Duration::from_millis(500));
        }
        ensure!(seen.contains("Deleted 203.0.113.99 "), "{seen}");

        // The API server is away while the speaker starts: nothing is known of what is wished, so nothing is taken away.
        lab.stop_api_server().await?;
        let speaker = lab.speaker("node-1")?;
        let restarts = speaker.restarts();
        speaker.kill().await?;
        speaker.restarted(restarts, RESTART).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        has_routes(&lab, "node-1", &both).await?;
        lab.start_api_server().await?;
        has_routes(&lab, "node-1", &both).await
    }
}

lab_test! {
    async fn a_route_that_is_somebody_elses_is_left_alone_and_told_until_it_goes(lab: Lab) -> Result<()> {
        let cluster = start(&lab, ADVERTISEMENT).await?;
        on(&lab, "node-1", "ip route add 203.0.113.10/32 via 192.0.2.2 proto static").await?;
        let both = dual_stack(&cluster, &["node-2"], "Cluster").await?;
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "RouteTaken").await?;
        assert_eq!(status, "True", "others route it");
        has(&message, &["routed by 2 nodes: node-2; node-3; and not by node-1: another route to 203.0.113.10 with metric 0 is in table 254"])?;
        cluster.event("web", "RouteTaken").await?;
        has_routes(&lab, "node-1", &both[1..]).await?;
        has(&on(&lab, "node-1", "ip route show 203.0.113.10").await?, &["via 192.0.2.2 dev eth0 proto static"])?;
        has(&lab.speaker_metrics("node-1").await?, &["berth_speaker_routes_refused 1"])?;

        on(&lab, "node-1", "ip route del 203.0.113.10").await?;
        has_routes(&lab, "node-1", &both).await?;
        cluster.reason("web", "berth.dev/Announced", "Announced").await?;
        Ok(())
    }
}

/// A pool of the nodes' own subnet.
const NEAR: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: routed}
spec: {addresses: [192.0.2.230-192.0.2.239, '2001:db8:77::10-2001:db8:77::19']}
";
const ADDRESSES: &str = "
apiVersion: berth.dev/v1alpha1
kind: RouteAdvertisement
metadata: {name: routed}
spec: {ipAddressPools: [routed], form: Address, interface: stub0}
";

lab_test! {
    async fn an_address_is_put_on_an_interface_unless_the_kernel_would_answer_for_it_on_the_link(lab: Lab) -> Result<()> {
        let cluster = start(&lab, ADDRESSES).await?;
        lab.apply_yaml(NEAR).await?;
        for node in NODES {
            // What kind of interface it is, is the same to addresses.
            on(&lab, node, "echo 0 > /proc/sys/net/ipv4/conf/all/arp_ignore; echo 0 > /proc/sys/net/ipv4/conf/eth0/arp_ignore").await?;
            if node != "node-3" {
                on(&lab, node, "ip link add stub0 type veth peer name stub1; ip link set stub0 up; ip link set stub1 up").await?;
            }
        }
        bird_on(&lab, "node-1", Finds::Addresses)?;
        let _frr = frr_on(&lab, "node-2", Finds::Addresses).await?;
        let router = Router::start(&lab, &["node-1", "node-2"])?;
        let [v4, v6] = dual_stack(&cluster, &["node-3"], "Cluster").await?;
        router.knows(v6, &["node-1", "node-2"]).await?;
        answers(&lab.remote().netns, v6).await?;

        // Two refuse it for the one reason, and the third for another.
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "OnLinkAddress").await?;
        assert_eq!(status, "False");
        has(&message, &["node-1: 192.0.2.230 is of the subnet of eth0, where arp_ignore is 0", "node-3: there is no interface stub0"])?;
        ensure!(!on(&lab, "node-1", "ip address show").await?.contains(&format!("{v4}/32")), "it is on no interface");
        router.knows(v4, &[]).await?;

        for node in NODES {
            on(&lab, node, "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore").await?;
        }
        router.knows(v4, &["node-1", "node-2"]).await?;
        answers(&lab.remote().netns, v4).await?;
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "RouteInterfaceMissing").await?;
        assert_eq!(status, "True");
        has(&message, &["routed by 2 nodes: node-1; node-2; and not by node-3: there is no interface stub0"])?;
        // Nobody on the link is told that a node has it.
        let watch = lab.client().netns.watch_arp("eth0")?;
        let mut command = tokio::process::Command::from(lab.client().netns.command("arping"));
        command.args(["-c", "2", "-w", "2", "-I", "eth0", &v4.to_string()]).output().await?;
        let IpAddr::V4(asked) = v4 else { anyhow::bail!("{v4}") };
        assert_eq!(Cluster::answerers(&watch, asked), BTreeSet::new());

        on(&lab, "node-3", "ip link add stub0 type veth peer name stub1; ip link set stub0 up").await?;
        cluster.reason("web", "berth.dev/Announced", "Announced").await?;
        cluster.delete("web").await?;
        lab.eventually("the addresses are taken away", SOON, async || {
            let left = on(&lab, "node-1", "ip address show dev stub0").await?;
            ensure!(!left.contains(&v4.to_string()) && !left.contains(&v6.to_string()), "{left}");
            Ok(Some(()))
        })
        .await
    }
}

lab_test! {
    LabConfig { nodes: 1, kube_proxy: false };
    async fn a_route_advertisement_that_contradicts_itself_is_refused_at_once(lab: Lab) -> Result<()> {
        lab.install_berth_without_workloads().await?;
        let all: kube::Api<berth_api::RouteAdvertisement> = kube::Api::all(lab.admin());
        for (spec, expected) in [
            (json!({}), None),
            (json!({"interface": "bond0.10", "table": 100, "metric": 7}), None),
            (json!({"form": "Address", "interface": "stub0"}), None),
            (json!({"form": "Address"}), Some("form Address needs an interface to put addresses on")),
            (json!({"form": "Address", "interface": "stub0", "table": 9}), Some("table and metric are of form Route alone")),
            (json!({"interface": "eth0:1"}), Some("not a name of an interface")),
            (json!({"interface": "an-interface-too-long"}), Some("spec.interface")),
            (json!({"table": 0}), Some("spec.table")),
            (json!({"table": 255}), Some("table 255 is the kernel's own")),
        ] {
            let object = json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "RouteAdvertisement", "metadata": {"name": "x"}, "spec": spec,
            });
            let params = kube::api::PostParams { dry_run: true, ..Default::default() };
            let said = all.create(&params, &serde_json::from_value(object.clone())?).await.err().map(|error| error.to_string());
            match (said, expected) {
                (None, None) => {}
                (Some(said), Some(part)) => ensure!(said.contains(part), "{object}: {said}"),
                (said, expected) => anyhow::bail!("{object}: {said:?}, not {expected:?}"),
            }
        }
        // Without a specification it is of all pools.
        lab.apply_yaml("{apiVersion: berth.dev/v1alpha1, kind: RouteAdvertisement, metadata: {name: all}}").await?;
        Ok(())
    }
}

/// An L2Advertisement of the same pool.
const ON_THE_LINK: &str = "
apiVersion: berth.dev/v1alpha1
kind: L2Advertisement
metadata: {name: link}
spec: {ipAddressPools: [routed]}
";

lab_test! {
    async fn what_is_answered_for_on_the_link_is_left_there_and_without_the_component_nothing_is_routed(lab: Lab) -> Result<()> {
        lab.install_berth().await?;
        lab.apply_yaml(NEAR).await?;
        lab.apply_yaml(ON_THE_LINK).await?;
        let cluster = Cluster { lab: lab.clone() };
        let both = dual_stack(&cluster, &["node-1"], "Cluster").await?;
        let before = cluster.settled(both[0], 2).await?;
        lab.apply_yaml(ADVERTISEMENT).await?;
        let message = advertisement(&lab, "LeftToLayer2").await?;
        has(&message, &["an L2Advertisement covers `routed` too"])?;
        let after = cluster.settled(both[0], 2).await?;
        assert_eq!(after.spec, before.spec, "nothing is taken from the link");

        // Without the component the speakers have no right to routes.
        let links: kube::Api<berth_api::L2Advertisement> = kube::Api::all(lab.admin());
        links.delete("link", &kube::api::DeleteParams::default()).await?;
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "RoutesNotPermitted").await?;
        assert_eq!(status, "False");
        has(&message, &["(node-1; node-2; node-3)", "deploy/routes"])?;
        advertisement(&lab, "NoEligibleNode").await?;
        for node in NODES {
            has_routes(&lab, node, &[]).await?;
            assert_eq!(effective(&lab, node)?, "0000000000002000", "NET_RAW and no other");
        }

        // With it they have that and NET_ADMIN, and no other.
        lab.install_berth_with(&BerthConfig { components: &["routes"], ..BerthConfig::default() }).await?;
        cluster.reason("web", "berth.dev/Announced", "Announced").await?;
        for node in NODES {
            has_routes(&lab, node, &both).await?;
            assert_eq!(effective(&lab, node)?, "0000000000003000", "NET_RAW, NET_ADMIN and no other");
        }
        advertisement(&lab, "Valid").await?;
        let epoch = |of: &berth_api::Announcement| of.spec.layer2.as_ref().map(|layer2| layer2.epoch);
        let routed = cluster.announcements().get(&announcement_name(both[0])).await?;
        ensure!(epoch(&routed) > epoch(&before), "an epoch never falls: {:?}", routed.spec.layer2);

        // And back, without the component: what it left is told, and not taken for granted.
        lab.install_berth().await?;
        cluster.reason("web", "berth.dev/Announced", "RoutesNotPermitted").await?;
        Ok(())
    }
}

fn effective(lab: &Lab, node: &str) -> Result<String> {
    let pid = lab.speaker(node)?.pid().context("it runs")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("a set")?;
    Ok(set.trim().to_owned())
}

/// Waits until the RouteAdvertisement's condition Ready has this reason; returns its message.
async fn advertisement(lab: &Lab, reason: &str) -> Result<String> {
    let all: kube::Api<berth_api::RouteAdvertisement> = kube::Api::all(lab.admin());
    lab.eventually(&format!("the RouteAdvertisement is Ready with reason {reason}"), SOON, async || {
        let status = all.get("routed").await?.status.unwrap_or_default();
        let ready = status.conditions.into_iter().find(|c| c.type_ == "Ready").context("no condition yet")?;
        ensure!(ready.reason == reason, "it is {}: {}", ready.reason, ready.message);
        Ok(Some(ready.message))
    })
    .await
}
