//! The same over IPv6: addresses that are asked for, announced and taken over by neighbor discovery.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_api::MacAddr;
use berth_lab::{Lab, NdpWatch, lab_test};
use berth_wire::ndp::{ALL_NODES, Frame, Message};
use serde_json::{Value, json};

use crate::cluster::{Cluster, EVERY, SOON, answers, http};

/// A pool of both families beside the one of IPv4 that every cluster here has: both addresses of a Service come from one pool.
pub const DUAL_POOL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: dual}
spec: {addresses: ['192.0.2.220-192.0.2.229', '2001:db8:2::200-2001:db8:2::209']}
";
/// What a crash may cost a client.
const GAP_LIMIT: Duration = Duration::from_millis(500);
/// How often an address is announced once it is claimed, within five seconds.
const ANNOUNCEMENTS: usize = 6;
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// A cluster with a Service of both families that has a pod on each of these nodes and answers the client; its addresses.
async fn dual_stack(lab: &Lab, nodes: &[&str], more: Value) -> Result<(Cluster, Ipv6Addr)> {
    let cluster = Cluster::start(lab.clone()).await?;
    lab.apply_yaml(DUAL_POOL).await?;
    for node in nodes {
        cluster.pod("web", node).await?;
    }
    let mut spec = json!({"ipFamilyPolicy": "RequireDualStack"});
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    cluster.service("web", spec).await?;
    let [v4, v6] = cluster.addresses("web").await?;
    for address in [v4, v6] {
        answers(&lab.client().netns, address).await.with_context(|| format!("{address} from the LAN"))?;
        answers(&lab.remote().netns, address).await.with_context(|| format!("{address} from behind the router"))?;
    }
    let IpAddr::V6(v6) = v6 else { anyhow::bail!("{v6} is not of IPv6") };
    Ok((cluster, v6))
}

/// The Ethernet addresses that answered for `address`, or announced it.
fn answerers(watch: &NdpWatch, address: Ipv6Addr) -> BTreeSet<MacAddr> {
    let frames = watch.seen().into_iter().map(|seen| seen.frame).filter(|frame| frame.target == address);
    frames.filter(|f| matches!(f.message, Message::Advertisement { .. })).map(|f| f.sender_mac()).collect()
}

lab_test! {
    async fn a_service_of_both_families_answers_from_the_lan_and_from_behind_the_router(lab: Lab) -> Result<()> {
        let wire = lab.client().netns.watch_ndp("eth0")?;
        let (cluster, address) = dual_stack(&lab, &["node-1", "node-2"], json!({"externalTrafficPolicy": "Local"})).await?;
        assert_eq!(address, "2001:db8:2::200".parse::<Ipv6Addr>()?, "the lowest of the pool");
        // The Local policy keeps the clients' addresses.
        for from in [lab.client(), lab.remote()] {
            assert_eq!(answers(&from.netns, address).await?.client.ip(), from.address6);
        }

        let announcement = cluster.settled(address, 1).await?;
        let claim = announcement.status.and_then(|s| s.layer2).context("a claim")?;
        let owner = lab.node(&claim.owner)?;
        assert_eq!((claim.epoch, claim.interface.as_str(), claim.mac), (1, "eth0", owner.mac()));
        let members = announcement.spec.layer2.context("members")?.members;
        let found = members.iter().find(|member| member.node == claim.owner).context("the owner is a member")?;
        assert_eq!(found.address, owner.address6());
        assert_eq!(answerers(&wire, address), [claim.mac].into(), "nobody else does");
        let announced = |message| matches!(message, Message::Advertisement { solicited: false, overrides: true, .. });
        wire.find(SOON, |seen| {
            let frame = &seen.frame;
            frame.target == address && frame.destination == ALL_NODES && announced(frame.message)
        })
        .await?;
        // Its node is in the group by which the address is asked for, as a switch that follows memberships demands.
        let groups = tokio::process::Command::from(owner.netns().command("ip")).args(["maddr", "show", "dev", "eth0"]).output().await?;
        let groups = String::from_utf8_lossy(&groups.stdout).into_owned();
        ensure!(groups.contains("ff02::1:ff00:200"), "{groups}");

        // A client that asks the node alone whether it still has the address (RFC 4861 section 7.3) is answered.
        let ip = async |args: &str| {
            let output = tokio::process::Command::from(lab.client().netns.command("ip")).args(args.split(' ')).output().await?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        ip(&format!("-6 neigh replace {address} dev eth0 lladdr {} nud probe", claim.mac)).await?;
        lab.eventually("the client's kernel finds the address reachable", SOON, async || {
            let seen = ip(&format!("-6 neigh show {address} dev eth0")).await?;
            ensure!(seen.contains("REACHABLE") && seen.contains(&claim.mac.to_string()), "{seen}");
            Ok(Some(()))
        })
        .await?;

        let metrics = lab.speaker_metrics(&claim.owner).await?;
        ensure!(metrics.contains("berth_speaker_groups_refused 0"), "{metrics}");
        for counter in ["ndp_replies", "ndp_probes", "unsolicited"] {
            let line = metrics.lines().find(|l| l.starts_with(&format!("berth_speaker_{counter}_total "))).context(counter)?;
            ensure!(!line.ends_with(" 0"), "{line}");
        }
        Ok(())
    }
}

lab_test! {
    async fn a_crash_of_the_owner_moves_an_ipv6_address_within_half_a_second(lab: Lab) -> Result<()> {
        let (cluster, address) = dual_stack(&lab, &NODES, json!({"externalTrafficPolicy": "Local"})).await?;
        let (near, far) = (cluster.probing(address).await?, lab.remote().netns.probe(http(address), EVERY));
        far.answered(SOON).await?;
        let before = cluster.settled(address, 2).await?.spec.layer2.context("an owner is named")?;
        let owner = before.owner.context("an owner")?;

        let crash = Instant::now();
        lab.crash_node(&owner).await?;
        let next = cluster.owner(address, |node| node != owner).await?;
        for (who, prober) in [("the client on the LAN", near), ("the client behind the router", far)] {
            prober.answered_since(crash + Duration::from_millis(100), SOON).await?;
            let gap = prober.stop().longest_gap_since(crash);
            println!("{who} had no answer from {address} for {gap:?}");
            ensure!(gap < GAP_LIMIT, "{who} had no answer for {gap:?}");
        }
        let wire = lab.client().netns.watch_ndp("eth0")?;
        lab.boot_node(&owner).await?;
        let settled = cluster.settled(address, 2).await?;
        assert_eq!(settled.status.and_then(|s| s.layer2).map(|l| (l.owner, l.epoch)), Some((next.clone(), before.epoch + 1)));
        answers(&lab.client().netns, address).await?;
        let answered = answerers(&wire, address);
        ensure!(answered.is_subset(&[lab.node(&next)?.mac()].into()), "{answered:?} answered, not only {next}");
        Ok(())
    }
}

lab_test! {
    async fn a_foreign_host_that_asks_before_it_uses_an_address_of_ours_is_told(lab: Lab) -> Result<()> {
        let wire = lab.router().netns.watch_ndp("lan")?;
        let (cluster, address) = dual_stack(&lab, &["node-1"], json!({})).await?;
        // An announcement would tell it, too. After the last one only the answer does.
        lab.eventually("all announcements are made", SOON, async || {
            let unsolicited = |f: &Frame| f.target == address && matches!(f.message, Message::Advertisement { solicited: false, .. });
            let count = wire.seen().iter().filter(|seen| unsolicited(&seen.frame)).count();
            ensure!(count >= ANNOUNCEMENTS, "{count} were made");
            Ok(Some(()))
        })
        .await?;
        let settled = cluster.settled(address, 2).await?;
        let prober = lab.remote().netns.probe(http(address), EVERY);
        prober.answered(SOON).await?;
        // A host on the LAN whose administrator gives it the same address: its kernel asks first (RFC 4862 section 5.4).
        let client = lab.client();
        client.netns.sysctl(&[("net/ipv6/conf/eth0/accept_dad", "1")])?;
        let ip = async |args: &str| {
            let output = tokio::process::Command::from(client.netns.command("ip")).args(args.split(' ')).output().await?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        ip(&format!("addr add {address}/64 dev eth0")).await?;
        lab.eventually("its kernel gives the address up", SOON, async || {
            let seen = ip("-6 addr show dev eth0").await?;
            let line = seen.lines().find(|line| line.contains(&format!("{address}/64"))).context("the address is there")?;
            ensure!(line.contains("dadfailed"), "{line}");
            Ok(Some(()))
        })
        .await?;
        ip(&format!("addr del {address}/64 dev eth0")).await?;
        prober.answered(SOON).await?;
        let seen = prober.stop();
        ensure!(seen.failed().next().is_none(), "{:?}", seen.failed().next());
        assert_eq!(cluster.settled(address, 2).await?.status, settled.status, "nothing changed");
        Ok(())
    }
}
