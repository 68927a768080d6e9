//! Routing daemons as operators run them: BIRD or FRR on the nodes, and BIRD on the router that they tell.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use berth_lab::{Lab, Netns, Process, ProcessSpec};
use tokio::process::Command;

use crate::cluster::SOON;

/// What routes and addresses of Berth's bear.
pub const PROTOCOL: u8 = 166;

/// Numbers of autonomous systems, from those for private use (RFC 6996).
const NODES_AS: u32 = 64_512;
const ROUTER_AS: u32 = 64_500;

/// What a daemon on a node makes known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Finds {
    /// Host routes with Berth's number.
    Routes,
    /// Addresses on `stub0`.
    Addresses,
}

/// The router's BIRD, which hears the daemons of these nodes.
pub struct Router {
    lab: Lab,
    control: PathBuf,
}

impl Router {
    /// Starts it.
    pub fn start(lab: &Lab, nodes: &[&str]) -> Result<Self> {
        let mut text = String::from(
            "log stderr all;\nrouter id 192.0.2.2;\nprotocol device { scan time 5; }\n\
             protocol kernel { merge paths on; ipv4 { import none; export all; }; }\n\
             protocol kernel { merge paths on; ipv6 { import none; export all; }; }\n",
        );
        for name in nodes {
            let (node, short) = (lab.node(name)?, name.replace('-', "_"));
            for (family, ours, theirs) in families(lab, node.address().into(), node.address6().into()) {
                writeln!(
                    text,
                    "protocol bgp {short}_{family} {{ local {ours} as {ROUTER_AS}; neighbor {theirs} as {NODES_AS}; \
                     connect delay time 1; connect retry time 1; error wait time 1, 2; {family} {{ import all; export none; }}; }}"
                )?;
            }
        }
        let control = bird(lab, "router", lab.router().netns.clone(), &text)?;
        Ok(Self { lab: lab.clone(), control })
    }

    /// The nodes that the router was told lead to an address.
    pub async fn paths(&self, address: IpAddr) -> Result<BTreeSet<String>> {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let mut command = Command::from(self.lab.router().netns.command("birdc"));
        command.arg("-s").arg(&self.control).args(["show", "route", "for", &format!("{address}/{prefix}")]);
        let output = command.output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Its exit code says whether there is one.
        ensure!(output.status.success() || text.contains("Network not found"), "{output:?}");
        let named = text.split('[').skip(1).filter_map(|rest| rest.split('_').nth(1).map(|n| (rest, n)));
        Ok(named.filter(|(rest, _)| rest.starts_with("node_")).map(|(_, number)| format!("node-{number}")).collect())
    }

    /// Waits until the router knows exactly these nodes to lead to an address.
    pub async fn knows(&self, address: IpAddr, nodes: &[&str]) -> Result<()> {
        let expected: BTreeSet<_> = nodes.iter().map(|node| (*node).to_owned()).collect();
        self.lab
            .eventually(&format!("the router has paths to {address} by {nodes:?}"), SOON, async || {
                let seen = self.paths(address).await?;
                ensure!(seen == expected, "they are by {seen:?}");
                Ok(Some(()))
            })
            .await
    }
}

/// Of both families: its name in BIRD, an address of the router, and the one of these that is of the family.
fn families(lab: &Lab, v4: IpAddr, v6: IpAddr) -> [(&'static str, IpAddr, IpAddr); 2] {
    let router = lab.router();
    [("ipv4", router.address.into(), v4), ("ipv6", router.address6.into(), v6)]
}

/// BIRD on a node.
pub fn bird_on(lab: &Lab, name: &str, finds: Finds) -> Result<()> {
    let node = lab.node(name)?;
    let mut text = format!("log stderr all;\nrouter id {};\nprotocol device {{ scan time 5; }}\n", node.address());
    for (family, theirs, ours) in families(lab, node.address().into(), node.address6().into()) {
        let (learns, filter) = match finds {
            Finds::Routes => (
                format!("protocol kernel {{ learn; {family} {{ import all; export none; }}; }}"),
                format!("where krt_source = {PROTOCOL}"),
            ),
            Finds::Addresses => (
                format!("protocol direct {{ interface \"stub0\"; {family}; }}"),
                "where source = RTS_DEVICE".to_owned(),
            ),
        };
        writeln!(
            text,
            "{learns}\nprotocol bgp router_{family} {{ local {ours} as {NODES_AS}; neighbor {theirs} as {ROUTER_AS}; \
             connect delay time 1; connect retry time 1; error wait time 1, 2; {family} {{ import none; export {filter}; }}; }}"
        )?;
    }
    bird(lab, name, node.netns().clone(), &text).map(drop)
}

/// Starts BIRD; returns where it is spoken to.
fn bird(lab: &Lab, host: &str, netns: Netns, config: &str) -> Result<PathBuf> {
    let name = format!("bird-{host}");
    let file = written(&format!("{name}.conf"), config)?;
    let (control, number) = (folder()?.join(format!("{name}.ctl")), folder()?.join(format!("{name}.pid")));
    let mut args = vec!["-f".to_owned()];
    for (flag, path) in [("-c", &file), ("-s", &control), ("-P", &number)] {
        args.extend([flag.to_owned(), path.display().to_string()]);
    }
    lab.spawn(ProcessSpec { name, program: "bird".into(), args, env: Vec::new(), netns })?;
    Ok(control)
}

/// FRR on a node: zebra, which knows the kernel, and bgpd.
pub async fn frr_on(lab: &Lab, name: &str, finds: Finds) -> Result<[Process; 2]> {
    let node = lab.node(name)?;
    let redistributed = if finds == Finds::Routes { "kernel" } else { "connected" };
    let mut text = format!(
        "hostname {name}\nrouter bgp {NODES_AS}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n",
        node.address()
    );
    let both = families(lab, node.address().into(), node.address6().into());
    for (_, router, _) in both {
        write!(text, " neighbor {router} remote-as {ROUTER_AS}\n neighbor {router} timers connect 1\n")?;
    }
    for (family, router, _) in both {
        write!(
            text,
            " address-family {family} unicast\n  redistribute {redistributed} route-map services-{family}\n  neighbor {router} activate\n \
             exit-address-family\n"
        )?;
    }
    // Every route of the kernel's that is not one of its own is `kernel` to FRR, so it is told which addresses are meant.
    text += "ip prefix-list services seq 5 permit 203.0.113.0/24 ge 32\nip prefix-list services seq 6 permit 192.0.2.224/27 ge 32\n\
             ipv6 prefix-list services seq 5 permit 2001:db8:77::/64 ge 128\n\
             route-map services-ipv4 permit 10\n match ip address prefix-list services\n\
             route-map services-ipv6 permit 10\n match ipv6 address prefix-list services\n";
    let folder = folder()?.join(name);
    std::fs::create_dir_all(&folder)?;
    // FRR runs as who is in this group; a lab has one user.
    let group = written("group", "root:x:0:root\nfrrvty:x:0:root\n")?;
    let socket = folder.join("zserv.api");
    let daemon = |daemon: &str, config: PathBuf, more: &[&str]| {
        let program = format!("/usr/lib/frr/{daemon}");
        let script = format!("mount --bind {} /etc/group; exec \"$@\"", group.display());
        let words =
            ["--mount", "sh", "-ec", &script, "sh", &program, "-u", "root", "-g", "root", "-P", "0", "--log", "stdout"];
        let mut args: Vec<_> = words.map(str::to_owned).into();
        for (flag, path) in
            [("-f", &config), ("-i", &folder.join(format!("{daemon}.pid"))), ("-z", &socket), ("--vty_socket", &folder)]
        {
            args.extend([flag.to_owned(), path.display().to_string()]);
        }
        args.extend(more.iter().map(|word| (*word).to_owned()));
        let program = "unshare".into();
        lab.spawn(ProcessSpec {
            name: format!("{daemon}-{name}"),
            program,
            args,
            env: Vec::new(),
            netns: node.netns().clone(),
        })
    };
    let zebra = daemon("zebra", written(&format!("{name}/zebra.conf"), &format!("hostname {name}\n"))?, &[])?;
    lab.eventually("zebra listens", SOON, async || Ok(socket.exists().then_some(()))).await?;
    let bgpd = daemon("bgpd", written(&format!("{name}/bgpd.conf"), &text)?, &["-p", "179"])?;
    Ok([zebra, bgpd])
}

/// Where the daemons have their files: on the lab's own `/run`, because names of sockets are short.
fn folder() -> Result<PathBuf> {
    let folder = PathBuf::from("/run/routing");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn written(name: &str, text: &str) -> Result<PathBuf> {
    let path = folder()?.join(name);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Runs a shell's words on a node; what it prints.
pub async fn on(lab: &Lab, node: &str, script: &str) -> Result<String> {
    let mut command = Command::from(lab.node(node)?.netns().command("sh"));
    command.args(["-ec", script]);
    said(command).await
}

async fn said(mut command: Command) -> Result<String> {
    let output = command.output().await?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The routes with Berth's number on a node, each without what the kernel adds.
pub async fn routes(lab: &Lab, node: &str) -> Result<BTreeSet<String>> {
    let listed = on(
        lab,
        node,
        &format!("ip route show table all proto {PROTOCOL}; ip -6 route show table all proto {PROTOCOL}"),
    )
    .await?;
    Ok(listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}
