//! Tests with real sockets, each in a network namespace of its own.

use std::process::Command;

use futures::TryStreamExt;
use rtnetlink::{Handle, LinkUnspec, LinkVeth};

/// Set in the copy of the test process that runs inside.
const INSIDE: &str = "BERTH_TEST_NETNS";

/// Runs `body` in a network namespace of its own, with the loopback up. `test` is the full path of the calling test, which
/// is what is started again inside. No root is needed: without it, a user namespace comes along.
pub fn in_own_network(test: &str, body: impl AsyncFnOnce()) {
    if std::env::var_os(INSIDE).is_none() {
        let copy = std::env::current_exe().unwrap();
        let output = Command::new("unshare")
            .args(if nix::unistd::geteuid().is_root() { &["--net"][..] } else { &["--map-root-user", "--net"] })
            .arg(copy)
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .expect("`unshare` of util-linux is there");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("1 passed"), "{test} in its namespace:\n{out}\n{err}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let handle = netlink();
        set_up(&handle, "lo", true).await;
        body().await;
    });
}

/// A netlink handle for making interfaces.
pub fn netlink() -> Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

/// A cable between two interfaces, each with an address.
pub async fn cable(handle: &Handle, ends: [(&str, &str); 2]) {
    handle.link().add(LinkVeth::new(ends[0].0, ends[1].0).build()).execute().await.unwrap();
    for (name, address) in ends {
        let net: ipnet::IpNet = address.parse().unwrap();
        handle.address().add(index(handle, name).await, net.addr(), net.prefix_len()).execute().await.unwrap();
        set_up(handle, name, true).await;
    }
}

/// Sets an interface up or down.
pub async fn set_up(handle: &Handle, name: &str, up: bool) {
    let link = LinkUnspec::new_with_index(index(handle, name).await);
    handle.link().set(if up { link.up() } else { link.down() }.build()).execute().await.unwrap();
}

/// The kernel's number of an interface.
pub async fn index(handle: &Handle, name: &str) -> u32 {
    let link = handle.link().get().match_name(name).execute().try_next().await.unwrap().unwrap();
    link.header.index
}
