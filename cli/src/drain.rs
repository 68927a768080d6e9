//! `kubectl berth drain`: asks a node to give up what it owns, and waits until it owns nothing.

use berth_api::Announcement;
use kube::ResourceExt;
use tokio::time::{Instant, sleep};

use crate::args::{ClientArgs, DrainArgs};
use crate::change::{LOOK_EVERY, Writer};
use crate::connect::connect;
use crate::output;
use crate::run::RunError;

/// How many addresses a message names.
const NAMED: usize = 10;

/// Does it. Returns whether the node owns nothing, or nobody was to wait for that.
pub async fn drain(args: &DrainArgs, client: &ClientArgs) -> Result<bool, RunError> {
    let connection = connect(client).await?;
    let writer = Writer::new(&connection);
    let node = &args.node;
    writer.drain(node, !args.undo).await?;
    if args.undo {
        output::note(format_args!("node {node} may own addresses again; nothing moves back to it"));
        return Ok(true);
    }
    output::note(format_args!("node {node} gives up what it owns, as soon as another node can take it"));
    if args.no_wait {
        return Ok(true);
    }
    let deadline = args.timeout.0.map(|limit| Instant::now() + limit);
    let mut before = None;
    loop {
        let owned = writer.owned(node).await?;
        if owned.is_empty() {
            output::note(format_args!("node {node} owns nothing"));
            return Ok(true);
        }
        if before != Some(owned.len()) {
            output::note(format_args!("node {node} owns {}", addresses(owned.len())));
            before = Some(owned.len());
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            output::note(still_owned(node, &owned));
            return Ok(false);
        }
        sleep(LOOK_EVERY).await;
    }
}

fn addresses(count: usize) -> String {
    if count == 1 { "1 address".to_owned() } else { format!("{count} addresses") }
}

/// What is left, and where it is said why.
fn still_owned(node: &str, owned: &[Announcement]) -> String {
    let one = |announcement: &Announcement| {
        let holder = announcement.spec.services.first();
        let holder = holder.map(|service| format!(" (Service {}/{})", service.namespace, service.name));
        format!("{}{}", announcement.spec.address, holder.unwrap_or_default())
    };
    let mut named: Vec<_> = owned.iter().take(NAMED).map(one).collect();
    if owned.len() > NAMED {
        named.push(format!("and {} more", owned.len() - NAMED));
    }
    let first = owned.first().map(ResourceExt::name_any).unwrap_or_default();
    format!(
        "error: node {node} still owns {}: {}\nhint: the annotation stays, and they move when they can; the condition \
         berth.dev/Announced of their Services says what holds them, `kubectl describe announcement {first}` who answers",
        addresses(owned.len()),
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_is_named_with_whose_it_is() {
        let announcement = |n: usize| {
            let services = json!([{"namespace": "shop", "name": format!("s{n}"), "uid": "1"}]);
            let spec = json!({"address": format!("192.0.2.{n}"), "pool": "a", "services": services});
            serde_json::from_value(json!({"apiVersion": "berth.dev/v1alpha1", "kind": "Announcement",
                                          "metadata": {"name": format!("192.0.2.{n}")}, "spec": spec}))
            .unwrap()
        };
        let owned: Vec<Announcement> = (1..=12).map(announcement).collect();
        let said = still_owned("a", &owned);
        assert!(said.starts_with("error: node a still owns 12 addresses: 192.0.2.1 (Service shop/s1), "), "{said}");
        assert!(said.contains("192.0.2.10 (Service shop/s10), and 2 more\nhint: "), "{said}");
        assert!(still_owned("a", &owned[..1]).starts_with("error: node a still owns 1 address: 192.0.2.1 "));
    }
}
