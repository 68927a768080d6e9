//! A host on the LAN that is none of our nodes and has an address of a pool: before its first use by us, and while we use it.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use berth_api::MacAddr;
use berth_lab::{Lab, Netns, lab_test};
use berth_wire::ndp::Message;
use serde_json::json;

use crate::cluster::{Cluster, SOON, answers};
use crate::families::DUAL_POOL;

/// How often the host claims an address that is in use, within less than the time between two defences (RFC 5227 section 2.4).
const CLAIMS: u32 = 4;
/// Addresses of a pool and family that are asked for ahead of need, twice each.
const SWEPT: usize = 8;
/// Where nothing listens: a datagram to it makes the sender's kernel ask for the receiver's Ethernet address.
const DISCARD: u16 = 9;

async fn ip(netns: &Netns, args: &str) -> Result<String> {
    let output = tokio::process::Command::from(netns.command("ip")).args(args.split(' ')).output().await?;
    ensure!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Somebody gives a host an address, and its kernel uses it without asking.
async fn takes(netns: &Netns, address: IpAddr) -> Result<()> {
    let length = if address.is_ipv4() { 24 } else { 64 };
    ip(netns, &format!("addr add {address}/{length} dev eth0")).await.map(drop)
}

async fn gives_back(netns: &Netns, address: IpAddr) -> Result<()> {
    let length = if address.is_ipv4() { 24 } else { 64 };
    ip(netns, &format!("addr del {address}/{length} dev eth0")).await.map(drop)
}

/// Waits until the status of the pool has exactly these in quarantine, each with a machine.
async fn quarantined(cluster: &Cluster, pool: &str, expected: &[(IpAddr, MacAddr)]) -> Result<()> {
    cluster
        .lab
        .eventually(&format!("{expected:?} are in quarantine"), SOON, async || {
            let said = cluster.pools().get(pool).await?.status.unwrap_or_default().quarantined;
            let said: Vec<_> = said.iter().map(|one| (one.address, one.mac)).collect();
            ensure!(said == expected, "it says {said:?}");
            Ok(Some(()))
        })
        .await
}

/// Waits until the next addresses of so many pools and families have been asked for ahead of need.
async fn swept(lab: &Lab, lists: usize) -> Result<()> {
    lab.eventually("the sweep is through", SOON, async || {
        let mut probes = 0;
        for node in lab.nodes() {
            let metrics = lab.speaker_metrics(node.name()).await?;
            let count = metrics.lines().find_map(|line| line.strip_prefix("berth_speaker_sweep_probes_total "));
            probes += count.context("no such metric")?.parse::<usize>()?;
        }
        let expected = lists * SWEPT * 2;
        ensure!(probes >= expected, "{probes} probes of {expected}");
        Ok(Some(()))
    })
    .await
}

lab_test! {
    async fn an_address_that_a_foreign_host_has_before_its_first_use_is_put_in_quarantine_and_the_next_one_is_taken(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let foreign = lab.client();
        let had: [IpAddr; 2] = ["192.0.2.220".parse()?, "2001:db8:2::200".parse()?];
        lab.apply_yaml(DUAL_POOL).await?;
        cluster.pod("web", "node-1").await?;
        // It comes after the sweep, and without a word.
        swept(&lab, 3).await?;
        for address in had {
            takes(&foreign.netns, address).await?;
        }
        cluster.service("web", json!({"ipFamilyPolicy": "RequireDualStack"})).await?;
        // The lowest of each family but those.
        cluster.publishes("web", &["192.0.2.221", "2001:db8:2::201"]).await?;
        for address in cluster.addresses("web").await? {
            answers(&lab.remote().netns, address).await?;
        }
        quarantined(&cluster, "dual", &had.map(|address| (address, foreign.mac()))).await?;
        for (about, what) in [("web", "the Service"), ("dual", "the pool")] {
            let note = cluster.event(about, "Quarantined").await?;
            ensure!(note.contains(&foreign.mac().to_string()), "{what} is told which machine it is: {note}");
        }
        lab.eventually("what is in quarantine is claimed by nobody", SOON, async || {
            let names = cluster.announcements().list(&kube::api::ListParams::default()).await?.items;
            let left: Vec<_> = names.iter().map(|found| found.spec.address).filter(|address| had.contains(address)).collect();
            ensure!(left.is_empty(), "{left:?} are");
            Ok(Some(()))
        })
        .await?;

        // Who asks for one of them is told why not.
        cluster.service("asks", json!({"loadBalancerIP": "192.0.2.220"})).await?;
        let (status, message) = cluster.reason("asks", "berth.dev/Allocated", "Quarantined").await?;
        ensure!(status == "False" && message.contains(&foreign.mac().to_string()), "{status} {message}");
        // A controller that starts knows it from the pool.
        for controller in lab.controllers() {
            controller.kill().await?;
        }
        cluster.service("later", json!({"ipFamilyPolicy": "RequireDualStack"})).await?;
        cluster.publishes("later", &["192.0.2.222", "2001:db8:2::202"]).await?;
        quarantined(&cluster, "dual", &had.map(|address| (address, foreign.mac()))).await
    }
}

lab_test! {
    async fn a_foreign_host_is_found_before_anybody_asks_for_its_address(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        let foreign = lab.client();
        let had: [IpAddr; 2] = ["192.0.2.220".parse()?, "2001:db8:2::200".parse()?];
        for address in had {
            takes(&foreign.netns, address).await?;
        }
        lab.apply_yaml(DUAL_POOL).await?;
        quarantined(&cluster, "dual", &had.map(|address| (address, foreign.mac()))).await?;
        let note = cluster.event("dual", "Quarantined").await?;
        ensure!(note.contains(&foreign.mac().to_string()), "{note}");

        // One that comes later says so itself, and is heard.
        let later: IpAddr = "192.0.2.221".parse()?;
        takes(&foreign.netns, later).await?;
        lab.eventually("it is found as well", SOON, async || {
            let arping = ["-c", "1", "-w", "1", "-A", "-I", "eth0", "192.0.2.221"];
            tokio::process::Command::from(foreign.netns.command("arping")).args(arping).output().await?;
            let said = cluster.pools().get("dual").await?.status.unwrap_or_default().quarantined;
            Ok(said.iter().any(|one| one.address == later).then_some(()))
        })
        .await?;

        cluster.pod("web", "node-1").await?;
        cluster.service("web", json!({"ipFamilyPolicy": "RequireDualStack"})).await?;
        cluster.publishes("web", &["192.0.2.222", "2001:db8:2::201"]).await?;
        for address in cluster.addresses("web").await? {
            answers(&lab.remote().netns, address).await?;
        }
        let moved = cluster.events("web").await?.iter().any(|event| event.reason.as_deref() == Some("Quarantined"));
        ensure!(!moved, "it was given a bad one first");
        Ok(())
    }
}

lab_test! {
    async fn who_asks_for_the_very_address_of_a_foreign_host_waits_and_gets_it_when_the_host_is_gone(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        // Not among the next ones, which are swept.
        let (foreign, address): (_, IpAddr) = (lab.client(), "192.0.2.209".parse()?);
        takes(&foreign.netns, address).await?;
        cluster.pod("web", "node-1").await?;
        cluster.service("web", json!({"loadBalancerIP": "192.0.2.209"})).await?;
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "AddressConflict").await?;
        ensure!(status == "False" && message.contains(&foreign.mac().to_string()), "{status} {message}");
        quarantined(&cluster, "default", &[(address, foreign.mac())]).await?;
        gives_back(&foreign.netns, address).await?;
        cluster.owner(address, |_| true).await?;
        answers(&lab.remote().netns, address).await?;
        quarantined(&cluster, "default", &[]).await
    }
}

lab_test! {
    async fn an_address_in_use_is_defended_and_never_given_up_for_a_foreign_host(lab: Lab) -> Result<()> {
        let cluster = Cluster::start(lab.clone()).await?;
        lab.apply_yaml(DUAL_POOL).await?;
        cluster.pod("web", "node-1").await?;
        let (arp, ndp) = (lab.router().netns.watch_arp("lan")?, lab.router().netns.watch_ndp("lan")?);
        cluster.service("web", json!({"ipFamilyPolicy": "RequireDualStack"})).await?;
        let [v4, v6] = cluster.addresses("web").await?;
        let (IpAddr::V4(v4), IpAddr::V6(v6)) = (v4, v6) else { anyhow::bail!("{v4} and {v6}") };
        let mut owners = Vec::new();
        for address in [IpAddr::V4(v4), v6.into()] {
            let settled = cluster.settled(address, 2).await?;
            let claim = settled.status.and_then(|s| s.layer2).context("a claim")?;
            answers(&lab.remote().netns, address).await?;
            owners.push((address, claim));
        }
        let (owner4, owner6) = (owners[0].1.mac, owners[1].1.mac);
        let announced4 = || {
            let about = arp.seen().into_iter().map(|seen| seen.frame.arp).filter(|arp| arp.sender_ip == v4 && arp.is_gratuitous());
            about.filter(|arp| arp.sender_mac == owner4).count()
        };
        let announced6 = || {
            let unsolicited = |message| matches!(message, Message::Advertisement { solicited: false, .. });
            let frames = ndp.seen().into_iter().map(|seen| seen.frame).filter(|f| f.target == v6 && unsolicited(f.message));
            frames.filter(|f| f.sender_mac() == owner6).count()
        };
        lab.eventually("all announcements are made", SOON, async || {
            ensure!(announced4() >= 12 && announced6() >= 6, "{} and {} were", announced4(), announced6());
            Ok(Some(()))
        })
        .await?;
        let (before4, before6) = (announced4(), announced6());

        let foreign = lab.client();
        for address in [IpAddr::V4(v4), v6.into()] {
            takes(&foreign.netns, address).await?;
        }
        let near = lab.node(&owners[1].1.owner)?.address6();
        for _ in 0..CLAIMS {
            let arping = ["-c", "1", "-w", "1", "-A", "-I", "eth0", &v4.to_string()].map(str::to_owned);
            tokio::process::Command::from(foreign.netns.command("arping")).args(arping).output().await?;
            claim6(&foreign.netns, v6, near).await?;
        }
        for (address, claim) in &owners {
            let named = foreign.mac().to_string();
            let said = lab
                .eventually(&format!("the Announcement of {address} names the host"), SOON, async || {
                    let status = cluster.announcements().get(&berth_api::names::announcement_name(*address)).await?.status;
                    let status = status.context("a status")?;
                    let ready = status.conditions.iter().find(|c| c.type_ == "Ready").context("a condition")?;
                    ensure!(ready.reason == "AddressConflict" && ready.message.contains(&named), "{ready:?}");
                    ensure!(ready.status == "True" && status.foreign == Some(foreign.mac()), "{status:?}");
                    Ok(Some(status.clone()))
                })
                .await?;
            assert_eq!(said.layer2.as_ref(), Some(claim), "it is as it was");
            let note = cluster.event(&berth_api::names::announcement_name(*address), "AddressConflict").await?;
            ensure!(note.contains(&named), "{note}");
        }
        let (status, message) = cluster.reason("web", "berth.dev/Announced", "AddressConflict").await?;
        ensure!(status == "True" && message.contains(&foreign.mac().to_string()), "{status} {message}");
        // Both forms of ARP, once; one advertisement.
        let defended = (announced4() - before4, announced6() - before6);
        ensure!(defended == (2, 1), "{defended:?} frames in defence");
        quarantined(&cluster, "dual", &[]).await?;
        cluster.publishes("web", &[&v4.to_string(), &v6.to_string()]).await?;

        // It gives them back, and clients find the Service as before.
        for address in [IpAddr::V4(v4), v6.into()] {
            gives_back(&foreign.netns, address).await?;
            ip(&lab.router().netns, "neigh flush dev lan").await?;
            answers(&lab.remote().netns, address).await?;
        }
        Ok(())
    }
}

/// Has the kernel of a host ask for a neighbour, from an address that it says is its own.
async fn claim6(netns: &Netns, address: Ipv6Addr, neighbour: Ipv6Addr) -> Result<()> {
    ip(netns, "-6 neigh flush dev eth0").await?;
    netns.run(|| UdpSocket::bind((address, 0))?.send_to(b"", (neighbour, DISCARD)))??;
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}
