//! The lab itself: that what it is made of is real, that faults do what they say, and that nothing of it is left behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::sink;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use berth_lab::testing::{Failure, Turn, arguments, runtime};
use berth_lab::{
    LIFELINE_LIMIT, Lab, LabConfig, LabState, Launch, Netns, Outcome, PodSpec, RunDir, entered, host_pids, lab_test,
    silent,
};
use k8s_openapi::api::core::v1::{Namespace, Pod as PodObject, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// Longest wait for anything in a lab on a loaded machine.
const LIMIT: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_millis(20);
/// Long enough for an answer that can come, where none may come.
const QUIET: Duration = Duration::from_millis(500);

const ONE_NODE: LabConfig = LabConfig { nodes: 1, kube_proxy: false };
const TWO_NODES: LabConfig = LabConfig { nodes: 2, kube_proxy: false };

async fn create_service(lab: &Lab) -> Result<Service> {
    let services: Api<Service> = Api::default_namespaced(lab.admin());
    let service = json!({
        "metadata": { "name": "web" },
        "spec": { "type": "NodePort", "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    });
    Ok(services.create(&PostParams::default(), &serde_json::from_value(service)?).await?)
}

fn cluster_ip(service: &Service) -> Result<SocketAddr> {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_ref()).context("it has a cluster IP")?;
    Ok((address.parse::<Ipv4Addr>()?, 80).into())
}

fn node_port(service: &Service) -> Result<u16> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let port = ports.and_then(|ports| ports.first()?.node_port).context("it has a node port")?;
    Ok(port.try_into()?)
}

lab_test! {
    async fn a_pod_answers_through_its_cluster_ip_and_its_node_port(lab: Lab) -> Result<()> {
        lab.pod(PodSpec::new("web-1", "node-1").label("app", "web")).await?;
        let service = create_service(&lab).await?;
        for node in lab.nodes() {
            let answer = node.netns().probe(cluster_ip(&service)?, EVERY).answered(LIMIT).await?.outcome.unwrap();
            assert_eq!((answer.pod.as_str(), answer.node.as_str()), ("web-1", "node-1"));
            let to = (node.address(), node_port(&service)?).into();
            for outside in [lab.client(), lab.remote()] {
                assert_eq!(outside.netns.probe(to, EVERY).answered(LIMIT).await?.outcome.unwrap().pod, "web-1");
            }
        }
        Ok(())
    }
}

lab_test! {
    async fn a_pod_answers_over_both_families(lab: Lab) -> Result<()> {
        let pod = lab.pod(PodSpec::new("web-1", "node-1").label("app", "web")).await?;
        let services: Api<Service> = Api::default_namespaced(lab.admin());
        let service = json!({
            "metadata": { "name": "web" },
            "spec": {
                "type": "NodePort", "ipFamilyPolicy": "RequireDualStack",
                "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }],
            },
        });
        let service = services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        let cluster_ips = service.spec.as_ref().and_then(|spec| spec.cluster_ips.as_ref()).context("cluster IPs")?;
        let cluster_ips: Vec<IpAddr> = cluster_ips.iter().map(|ip| ip.parse()).collect::<Result<_, _>>()?;
        assert_eq!(cluster_ips.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>(), [true, false]);

        let slices: Api<EndpointSlice> = Api::default_namespaced(lab.admin());
        let of_service = ListParams::default().labels("kubernetes.io/service-name=web");
        lab.eventually("there are endpoints of both families", LIMIT, async || {
            let mut found: Vec<_> = slices.list(&of_service).await?.items.into_iter()
                .map(|slice| (slice.address_type, slice.endpoints.into_iter().flat_map(|e| e.addresses).collect::<Vec<_>>()))
                .collect();
            found.sort();
            let expected = [
                ("IPv4".to_owned(), vec![pod.address().to_string()]),
                ("IPv6".to_owned(), vec![pod.address6().to_string()]),
            ];
            ensure!(found == expected, "endpoints: {found:?}");
            Ok(Some(()))
        }).await?;

        let answers = async |from: &berth_lab::Host, to: SocketAddr| {
            let answer = from.netns.probe(to, EVERY).answered(LIMIT).await.with_context(|| format!("{to} from {}", from.name))?;
            let answer = answer.outcome.map_err(anyhow::Error::msg)?;
            ensure!(answer.client.is_ipv4() == to.is_ipv4(), "{answer:?} to a client of {to}");
            Ok(answer)
        };
        for node in lab.nodes() {
            for cluster_ip in &cluster_ips {
                node.netns().probe((*cluster_ip, 80).into(), EVERY).answered(LIMIT).await?;
            }
            for address in [IpAddr::from(node.address()), node.address6().into()] {
                for outside in [lab.client(), lab.remote()] {
                    assert_eq!(answers(outside, (address, node_port(&service)?).into()).await?.pod, "web-1");
                }
            }
        }
        // Routed, and not translated on the way: the pod sees who asks.
        for (from, own) in [(lab.root().netns.clone(), lab.root().address6), (lab.node("node-2")?.netns().clone(), lab.node("node-2")?.address6())] {
            let answer = from.probe((pod.address6(), 8080).into(), EVERY).answered(LIMIT).await?.outcome.map_err(anyhow::Error::msg)?;
            assert_eq!(answer.client.ip(), own);
        }
        Ok(())
    }
}

lab_test! {
    ONE_NODE;
    async fn a_pod_that_is_not_ready_or_gone_is_no_endpoint(lab: Lab) -> Result<()> {
        let pod = lab.pod(PodSpec::new("web-1", "node-1").label("app", "web").unready()).await?;
        create_service(&lab).await?;
        let slices: Api<EndpointSlice> = Api::default_namespaced(lab.admin());
        let of_service = ListParams::default().labels("kubernetes.io/service-name=web");
        let until = async |expected: &[bool]| {
            lab.eventually("the endpoints are as expected", LIMIT, async || {
                let found = slices.list(&of_service).await?;
                let endpoints = found.items.iter().flat_map(|slice| &slice.endpoints);
                let ready: Vec<_> = endpoints.map(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true)).collect();
                ensure!(ready == expected, "ready endpoints: {ready:?}");
                Ok(Some(()))
            }).await
        };
        until(&[false]).await?;
        pod.set_ready(true).await?;
        until(&[true]).await?;
        pod.set_ready(false).await?;
        until(&[false]).await?;
        pod.delete().await?;
        until(&[]).await
    }
}

lab_test! {
    TWO_NODES;
    async fn a_cut_link_and_a_cut_path_stop_exactly_what_they_say(lab: Lab) -> Result<()> {
        let one = lab.pod(PodSpec::new("one", "node-1")).await?;
        let two = lab.pod(PodSpec::new("two", "node-2")).await?;
        let answers = async |from: &Netns, to: Ipv4Addr| from.http_get((to, 8080).into(), "/", QUIET).await.is_ok();
        let (node_1, node_2) = (lab.node("node-1")?.netns(), lab.node("node-2")?.netns());
        let root = &lab.root().netns;
        let all_is_well = async || {
            lab.eventually("all is well", LIMIT, async || {
                let both = answers(node_2, one.address()).await && answers(node_1, two.address()).await;
                Ok(both.then_some(()))
            })
            .await
        };
        all_is_well().await?;

        lab.drop_between("node-1", "node-2")?;
        assert!(!answers(node_2, one.address()).await && !answers(node_1, two.address()).await, "not between the nodes");
        assert!(answers(root, one.address()).await && answers(root, two.address()).await, "but from elsewhere");
        lab.restore_between("node-1", "node-2")?;
        all_is_well().await?;

        lab.cut_link("node-1")?;
        assert!(!answers(root, one.address()).await, "not over a cut link");
        assert!(answers(node_1, one.address()).await, "but on the node itself");
        assert!(answers(root, two.address()).await, "and not another node's");
        lab.restore_link("node-1")?;
        lab.eventually("the link is back", LIMIT, async || Ok(answers(root, one.address()).await.then_some(()))).await
    }
}

lab_test! {
    ONE_NODE;
    async fn what_the_api_server_stored_outlives_its_crash(lab: Lab) -> Result<()> {
        lab.pod(PodSpec::new("web-1", "node-1")).await?;
        let pods: Api<PodObject> = Api::default_namespaced(lab.admin());
        lab.stop_api_server().await?;
        assert!(!lab.api_server().is_running());
        assert!(pods.get("web-1").await.is_err(), "a stopped API server does not answer");
        lab.start_api_server().await?;
        pods.get("web-1").await?;

        lab.pause_api_server()?;
        assert!(tokio::time::timeout(QUIET, pods.get("web-1")).await.is_err(), "a paused API server does not answer");
        lab.resume_api_server()?;
        pods.get("web-1").await?;
        Ok(())
    }
}

lab_test! {
    TWO_NODES;
    async fn a_crashed_node_is_silent_and_comes_back(lab: Lab) -> Result<()> {
        let pod = lab.pod(PodSpec::new("web-1", "node-1")).await?;
        let prober = lab.root().netns.probe((pod.address(), 8080).into(), EVERY);
        prober.answered(LIMIT).await?;
        lab.crash_node("node-1").await?;
        let crashed = Instant::now();
        assert!(prober.answered_since(crashed, QUIET).await.is_err());
        lab.boot_node("node-1").await?;
        prober.answered_since(crashed, LIMIT).await?;
        let seen = prober.stop();
        assert!(seen.longest_gap_since(crashed) >= QUIET, "{:?}", seen.longest_gap_since(crashed));
        Ok(())
    }
}

lab_test! {
    ONE_NODE;
    async fn an_arp_request_is_seen_on_the_wire(lab: Lab) -> Result<()> {
        let client = lab.client();
        let wire = client.netns.watch_arp("eth0")?;
        let node = lab.node("node-1")?;
        // Nobody has this address, so the node asks for it, and asks everybody.
        let nobody = Ipv4Addr::new(192, 0, 2, 250);
        let connecting = node.netns().connect((nobody, 80).into(), QUIET);
        let (connected, seen) = tokio::join!(connecting, wire.find(LIMIT, |seen| seen.frame.arp.target_ip == nobody));
        assert!(connected.is_err());
        let arp = seen?.frame.arp;
        assert_eq!((arp.sender_ip, arp.sender_mac), (node.address(), node.mac()));
        Ok(())
    }
}

/// What a scenario of this name does as the first process of a lab that nobody's test runs in.
fn hold_open(path: &'static str) -> Result<bool> {
    let Some(entered) = entered()? else { return Ok(false) };
    runtime()?.block_on(async {
        let lab = Lab::start(entered, TWO_NODES, silent()).await?;
        lab.pod(PodSpec::new("web-1", "node-1")).await?;
        lab.detach().context(path)?;
        std::future::pending().await
    })
}

fn detached(name: &str, path: &str, scratch: &Path) -> Result<LabState> {
    let name = format!("{name}-{}", std::process::id());
    let launch = Launch::new(&name, arguments(path)).env("TMPDIR", scratch).api_on_host().detachable();
    let outcome = launch.spawn()?.relay_to(sink(), sink())?;
    ensure!(matches!(outcome, Outcome::Detached), "the lab ended while it started: {outcome:?}");
    LabState::find(&name)
}

fn links() -> Result<BTreeSet<String>> {
    fs::read_dir("/sys/class/net")?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Mounts of a lab would be its network namespaces, and what it puts over `/run` and `/proc`.
fn mounts() -> Result<Vec<String>> {
    let all = fs::read_to_string("/proc/self/mounts")?;
    let kinds = |line: &&str| ["nsfs", "tmpfs", "proc"].iter().any(|kind| line.split(' ').nth(2) == Some(kind));
    Ok(all.lines().filter(kinds).map(str::to_owned).collect())
}

/// The namespaces of the named kind that a process is in.
fn namespace(pid: u32, kind: &str) -> Option<String> {
    Some(fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?.to_string_lossy().into_owned())
}

/// Every process of the host, with its network namespace.
fn network_namespaces() -> Result<BTreeSet<String>> {
    let entries = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(entries.filter_map(|pid| namespace(pid, "net")).collect())
}

/// A client outside the lab.
async fn client(state: &LabState) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(state.kubeconfig.as_ref().context("the lab has no kubeconfig")?)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

#[test]
fn a_lab_whose_first_process_is_killed_leaves_nothing_behind() -> Result<(), Failure> {
    let path = concat!(module_path!(), "::a_lab_whose_first_process_is_killed_leaves_nothing_behind");
    if hold_open(path)? {
        return Ok(());
    }
    Ok(killed_and_gone(path)?)
}

fn killed_and_gone(path: &'static str) -> Result<()> {
    let _turn = Turn::take()?;
    let scratch = tempfile::tempdir()?;
    let (links_before, mounts_before) = (links()?, mounts()?);
    let state = detached("killed", path, scratch.path())?;

    let own = namespace(state.init_pid, "pid").context("the lab has a PID namespace")?;
    let inside = host_pids(&own)?;
    ensure!(inside.len() >= 4, "etcd, API server, controller manager and the first process are up: {inside:?}");
    let networks: BTreeSet<_> = inside.values().filter_map(|pid| namespace(*pid, "net")).collect();
    ensure!(state.nodes.len() == 2 && state.api_server_pid.is_some() && state.ready, "{state:?}");

    kill(Pid::from_raw(state.init_pid.cast_signed()), Signal::SIGKILL)?;
    let begin = Instant::now();
    while !host_pids(&own)?.is_empty() {
        ensure!(begin.elapsed() < LIMIT, "processes are left: {:?}", host_pids(&own)?);
        thread::sleep(Duration::from_millis(5));
    }
    // `unshare`, which is outside of the PID namespace and inside of the network namespace, ends a moment after its child; and
    // a number that is free again may be given to another lab that begins beside this one, until that ends.
    while let Some(left) = network_namespaces()?.intersection(&networks).next() {
        ensure!(begin.elapsed() < LIMIT, "a network namespace is left: {left}");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(links()?, links_before, "links");
    assert_eq!(mounts()?, mounts_before, "mounts");
    assert_eq!(fs::read_dir(scratch.path())?.count(), 0, "files in the directory for temporary files");
    assert!(LabState::find(&state.name).is_err(), "the lab is not listed any more");

    // Its logs go when the next lab begins.
    assert!(state.logs.exists());
    let (next, _held) = RunDir::create("next")?;
    assert!(!state.logs.exists());
    next.remove()
}

#[test]
fn two_labs_side_by_side_do_not_meet() -> Result<(), Failure> {
    let path = concat!(module_path!(), "::two_labs_side_by_side_do_not_meet");
    if hold_open(path)? {
        return Ok(());
    }
    Ok(side_by_side(path)?)
}

fn side_by_side(path: &'static str) -> Result<()> {
    let _turn = Turn::take()?;
    let scratch = tempfile::tempdir()?;
    let second = {
        let scratch = scratch.path().to_path_buf();
        thread::spawn(move || detached("second", path, &scratch))
    };
    let first = detached("first", path, scratch.path())?;
    let second = second.join().map_err(|_| anyhow::anyhow!("starting the second lab panicked"))??;

    let name = "only-in-the-first";
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    runtime()?.block_on(async {
        let (in_first, in_second) = (client(&first).await?, client(&second).await?);
        Api::<Namespace>::all(in_first).create(&PostParams::default(), &namespace).await?;
        ensure!(Api::<Namespace>::all(in_second).get_opt(name).await?.is_none(), "the labs share a store");
        Ok(())
    })?;

    let hostnames = first.exec("node-1", &["ip", "-br", "address", "show", "eth0"].map(str::to_owned))?.output()?;
    ensure!(String::from_utf8_lossy(&hostnames.stdout).contains("192.0.2.11/24"), "{hostnames:?}");
    first.down()?;
    ensure!(!first.logs.exists(), "a lab that is ended takes its directory along");
    ensure!(LabState::find(&second.name)?.ready, "the other lab goes on");
    second.down()
}

#[test]
fn a_lab_ends_with_its_launcher() -> Result<(), Failure> {
    let path = concat!(module_path!(), "::a_lab_ends_with_its_launcher");
    if let Some(entered) = entered()? {
        runtime()?.block_on(async {
            let _lab = Lab::start(entered, ONE_NODE, silent()).await?;
            std::future::pending::<Result<()>>().await
        })?;
    }
    Ok(ends_with_launcher(path)?)
}

fn ends_with_launcher(path: &'static str) -> Result<()> {
    let _turn = Turn::take()?;
    let launched = Launch::new("launched", arguments(path)).output_to_log().spawn()?;
    let run_dir = launched.run_dir().clone();
    let begin = Instant::now();
    while !LabState::of(&run_dir).is_ok_and(|state| state.ready) {
        ensure!(begin.elapsed() < LIMIT, "the lab is not up: {:?}", LabState::of(&run_dir));
        thread::sleep(Duration::from_millis(20));
    }
    let state = LabState::of(&run_dir)?;
    let own = namespace(state.init_pid, "pid").context("the lab has a PID namespace")?;
    // What the kernel does with the files of a launcher that ends, however it ends.
    let dropped = Instant::now();
    drop(launched);
    assert!(dropped.elapsed() < LIFELINE_LIMIT, "it had to be killed");
    assert!(host_pids(&own)?.is_empty());
    assert!(!run_dir.is_alive());
    run_dir.remove()
}
