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

impl Cluster {
    /// With what Services of these names left whose finalizers were taken off by force, and the UIDs that they had.
    async fn with_orphans(annotations: &[(&str, &str)], names: &[&str]) -> (Self, Vec<String>) {
        let mut cluster = Self::new();
        for (number, name) in names.iter().enumerate() {
            let port = json!([{"name": "http", "port": 81 + number, "nodePort": 30_081 + number, "targetPort": 8080, "protocol": "TCP"}]);
            cluster.apply(name, annotations, &json!({ "ports": port }));
        }
        cluster.served("stays", annotations).await;
        let uids = names.iter().map(|name| cluster.uid(name).unwrap()).collect();
        cluster.kill();
        for name in names {
            cluster.api(|api| api.remove_by_force(name));
        }
        cluster.start();
        cluster.rest().await;
        (cluster, uids)
    }

    fn whys(&self) -> Vec<String> {
        self.api(|api| api.lists.last().unwrap().orphans.iter().map(|of| of.why.clone()).collect())
    }

    /// Load balancers and target groups that there are, whoever's.
    fn there(&self) -> (usize, usize) {
        self.cloud.with(|state| (state.balancers.len(), state.targets.len()))
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_person_names_is_removed_and_nothing_else() {
    let (cluster, uids) = Cluster::with_orphans(&[], &["a", "b"]).await;
    assert_eq!((cluster.there(), cluster.orphans().0.len()), ((3, 3), 6));
    cluster.remove_orphans_of(&[&uids[0], "uid-of-nobody", &cluster.uid("stays").unwrap()]);
    cluster.rest().await;
    assert_eq!(cluster.there(), (2, 2));
    let left = ["load balancer", "security group", "target group"].map(|kind| format!("{kind} of shop/b"));
    assert_eq!(cluster.orphans().0, left, "it is off the list, and the other one stays");
    assert!(cluster.api(|api| api.says("stays", "Allocated")).starts_with("True"));
    cluster.remove_orphans_of(&[]);
    tokio::time::sleep(Duration::from_hours(3)).await;
    assert_eq!((cluster.there(), cluster.orphans().0), ((2, 2), left.to_vec()));
    cluster.remove_orphans_of(&[&uids[1]]);
    cluster.rest().await;
    assert_eq!((cluster.there(), cluster.orphans().0), ((1, 1), vec![]));
}

#[tokio::test(start_paused = true)]
async fn of_a_group_only_the_part_of_the_one_that_is_named_goes() {
    let (cluster, uids) = Cluster::with_orphans(&[("berth.dev/load-balancer-group", "edge")], &["a"]).await;
    assert_eq!((cluster.there(), cluster.orphans().0), ((1, 2), vec!["target group of shop/a".to_owned()]));
    cluster.remove_orphans_of(&[&uids[0]]);
    cluster.rest().await;
    assert_eq!((cluster.there(), cluster.orphans().0), ((1, 1), vec![]));
    assert_eq!(cluster.cloud.with(|state| state.listeners.len()), 1);
    assert!(cluster.api(|api| api.says("stays", "Active")).starts_with("True"));
}

#[tokio::test(start_paused = true)]
async fn what_stands_against_a_removal_is_listed_until_it_is_mended() {
    let (cluster, uids) = Cluster::with_orphans(&[], &["a"]).await;
    cluster.cloud.with(|state| state.refuses.insert("elasticloadbalancing:DeleteLoadBalancer", "AccessDenied"));
    cluster.remove_orphans_of(&[&uids[0]]);
    cluster.rest().await;
    assert_eq!(cluster.there(), (2, 2));
    let whys = cluster.whys();
    let says = |why: &String| why.starts_with("it cannot be removed") && why.contains("DeleteLoadBalancer");
    assert!(whys.len() == 3 && whys.iter().all(says), "{whys:?}");
    cluster.cloud.with(|state| state.refuses.clear());
    cluster.rest().await;
    assert_eq!((cluster.there(), cluster.orphans().0), ((1, 1), vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_is_throttled_or_cut_off_by_a_kill_is_brought_to_its_end_by_the_next_leader() {
    for millis in [1, 20, 61_000] {
        let (mut cluster, uids) = Cluster::with_orphans(&[], &["a", "b"]).await;
        cluster.cloud.with(|state| state.answers = Some("Throttling"));
        cluster.remove_orphans_of(&[&uids[0], &uids[1]]);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(cluster.there(), (3, 3));
        cluster.cloud.with(|state| state.answers = None);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        // The watch of a new process shows what is named anew.
        cluster.start();
        cluster.remove_orphans_of(&[&uids[0], &uids[1]]);
        cluster.rest().await;
        assert_eq!((cluster.there(), cluster.orphans().0), ((1, 1), vec![]), "{millis}");
        assert!(cluster.api(|api| api.says("stays", "Allocated")).starts_with("True"));
    }
}
