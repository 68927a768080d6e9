//! What cannot be served is said once, by condition and event, and asks AWS no more than what a person who mends it waits for.

use berth_aws::cloud::{Cloud as _, IpAddressType, NewLoadBalancer, Pairs, Scheme, SubnetMapping};
use serde_json::json;

use super::process::Cluster;

const LOAD_BALANCER: &str = "elasticloadbalancing:CreateLoadBalancer";

fn calls(cluster: &Cluster) -> u64 {
    cluster.cloud.with(|state| state.calls.values().sum())
}

/// Somebody else's load balancer of this name.
async fn foreign(cluster: &Cluster, name: &str) {
    let subnet_id = "subnet-privatea".to_owned();
    let mapping = SubnetMapping { subnet_id, allocation_id: None, private_ipv4: None, ipv6: None };
    let new = NewLoadBalancer {
        name: name.to_owned(),
        scheme: Scheme::Internal,
        ip_address_type: IpAddressType::Ipv4,
        subnet_mappings: vec![mapping],
        security_groups: Vec::new(),
        tags: Pairs::new(),
    };
    cluster.cloud.create_load_balancer(&new).await.unwrap();
}

fn refuse(cluster: &Cluster, code: &'static str) {
    cluster.cloud.with(|state| state.refuses.insert(LOAD_BALANCER, code));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_served_is_said_once_and_does_not_spin() {
    type Hurt = fn(&mut Cluster);
    let nothing: Hurt = |_| ();
    let denied: Hurt = |cluster| refuse(cluster, "AccessDenied");
    let full: Hurt = |cluster| refuse(cluster, "TooManyLoadBalancers");
    let no_subnets: Hurt = |cluster| cluster.cloud.with(|state| state.subnets.clear());
    // How often it may be tried again within twenty minutes: never what only the Service can mend, each minute what a person mends in AWS.
    for (annotations, hurt, reason, says, tries) in [
        (&[("scheme", "slip")][..], nothing, "InvalidRequest", "scheme", 0),
        (&[("quic-enabled-ports", "80")], nothing, "Unsupported", "QUIC", 0),
        (&[("subnets", "subnet-nowhere")], nothing, "InvalidRequest", "subnet-nowhere", 1),
        (&[], no_subnets, "NoSubnet", "subnet", 1),
        (&[("name", "theirs")], nothing, "CloudNameTaken", "theirs", 1),
        (&[], denied, "PermissionDenied", "allow elasticloadbalancing:CreateLoadBalancer for Berth's role", 21),
        (&[], full, "CloudLimit", "TooManyLoadBalancers", 21),
    ] {
        let mut cluster = Cluster::new();
        foreign(&cluster, "theirs").await;
        hurt(&mut cluster);
        cluster.apply("web", annotations, &json!({}));
        cluster.start();
        cluster.rest().await;
        let said = cluster.api(|api| api.says("web", "Allocated"));
        assert!(said.starts_with(&format!("False {reason}")) && said.contains(says), "{annotations:?}: {said}");
        let told = |cluster: &Cluster| cluster.api(|api| api.events.iter().filter(|event| *event == reason).count());
        assert_eq!(told(&cluster), 1, "{annotations:?}");
        let before = calls(&cluster);
        cluster.rest().await;
        // Each look that may be needed before the call is tried again costs one at the most, besides the call.
        let more = calls(&cluster) - before;
        assert!(more <= 12 * tries, "{reason}: {more} calls");
        assert_eq!(told(&cluster), 1, "{annotations:?}: still");
    }
}
