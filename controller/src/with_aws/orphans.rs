//! What belongs to no Service is listed, and touched by nobody.

use std::time::Duration;

use serde_json::json;

use super::process::Cluster;

const SWEEP: &str = "elasticloadbalancing:DescribeLoadBalancers";
const IP: (&str, &str) = ("nlb-target-type", "ip");

impl Cluster {
    /// The kinds that were listed last, with the Services that they were made for, and how often a list was written.
    fn orphans(&self) -> (Vec<String>, usize) {
        self.api(|api| {
            let last = api.lists.last().map(|list| list.orphans.clone()).unwrap_or_default();
            let mut names: Vec<_> =
                last.iter().map(|of| format!("{} of {}", of.kind, of.service.as_deref().unwrap_or("?"))).collect();
            names.sort();
            (names, api.lists.len())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_service_leaves_whose_finalizer_was_taken_off_by_force_is_listed_and_stays() {
    let mut cluster = Cluster::new();
    cluster.apply("other", &[IP], &json!({}));
    cluster.served("web", &[]).await;
    assert_eq!(cluster.orphans(), (vec![], 1), "nothing is an orphan, and that is written once");
    cluster.kill();
    cluster.api(|api| api.remove_by_force("web"));
    let ours = cluster.ours();
    cluster.start();
    cluster.rest().await;
    let (listed, writes) = cluster.orphans();
    let expected = ["listener", "load balancer", "security group", "target group"];
    // Listeners are found by their load balancers.
    assert_eq!(listed, expected[1..].iter().map(|kind| format!("{kind} of shop/web")).collect::<Vec<_>>());
    assert_eq!(writes, 2);
    assert!(
        cluster.ours().len() >= ours.len() - 1,
        "nothing is removed but rules that nobody needs: {:#?}",
        cluster.ours()
    );
    tokio::time::sleep(Duration::from_hours(5)).await;
    assert_eq!((cluster.orphans().1, cluster.orphans().0), (2, listed), "and nothing is written that is so already");
    // Made again under its name, it is served anew, and what its predecessor left is still its predecessor's.
    cluster.apply("web", &[IP], &json!({}));
    cluster.rest().await;
    let said = cluster.api(|api| api.says("web", "Allocated"));
    assert!(said.starts_with("True"), "{said}");
    let why = cluster.api(|api| api.lists.last().unwrap().orphans.iter().map(|of| of.why.clone()).collect::<Vec<_>>());
    assert!(why.iter().all(|why| why == "Service shop/web is another one than this was made for"), "{why:?}");
}

#[tokio::test(start_paused = true)]
async fn what_goes_is_gone_from_the_list_after_the_next_search_which_is_each_hour() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    let sweeps = cluster.calls(SWEEP);
    tokio::time::sleep(Duration::from_hours(10)).await;
    let each = cluster.calls(SWEEP) - sweeps;
    assert!((10..=45).contains(&each), "no more sweeps than one an hour, beside the looks: {each}");
    cluster.api(|api| api.remove_by_force("web"));
    tokio::time::sleep(Duration::from_hours(2)).await;
    let listed = cluster.orphans().0;
    // A Service that this process saw going is taken away as any other, whoever took its finalizer off.
    assert_eq!(listed, [""; 0]);
    assert_eq!(cluster.ours(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_may_not_be_written_is_written_once_it_may_and_nothing_waits_for_it() {
    let mut cluster = Cluster::new();
    cluster.api(|api| api.refuses_lists = Some(403));
    cluster.served("web", &[]).await;
    assert_eq!(cluster.orphans().1, 0);
    cluster.api(|api| api.refuses_lists = None);
    cluster.rest().await;
    assert_eq!(cluster.orphans(), (vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn things_of_another_cluster_are_not_listed_whatever_it_is_called() {
    let mut cluster = Cluster::new();
    cluster.served("web", &[]).await;
    // A new cluster of the same name finds what the old one left, which has another UID.
    cluster.kill();
    cluster.api(|api| api.remove_by_force("web"));
    cluster.settings.cluster_uid = "uid-of-another-kube-system".to_owned();
    cluster.start();
    cluster.rest().await;
    assert_eq!(cluster.orphans().0, [""; 0]);
}
