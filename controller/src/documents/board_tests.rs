use berth_api::Reason;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn intent(name: &str) -> Intent {
    let service = json!({
        "metadata": {"namespace": "shop", "name": name, "uid": name},
        "spec": {"ports": [{"port": 80}], "ipFamilies": ["IPv4"]},
    });
    Intent::of(&serde_json::from_value(service).unwrap()).unwrap()
}

fn shard(name: &str) -> Shard {
    Shard(name.to_owned())
}

fn slice(service: &str, addresses: &[&str]) -> SliceState {
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    let slice = json!({
        "metadata": {"namespace": "shop", "name": "any", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints,
    });
    SliceState::of(&serde_json::from_value(slice).unwrap(), true).unwrap()
}

fn id(name: &str) -> SliceId {
    ("shop".to_owned(), name.to_owned())
}

fn names(keys: &BTreeSet<ServiceKey>) -> Vec<&str> {
    keys.iter().map(|key| key.name.as_str()).collect()
}

fn addresses(board: &Board, service: &str) -> Vec<String> {
    let targets = board.targets([intent(service)].iter(), &Gates::default());
    let endpoints = &targets.services.values().next().unwrap().endpoints;
    endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

fn node(name: &str, ready: bool) -> Arc<NodeState> {
    let target = TargetNode {
        name: name.to_owned(),
        provider_id: String::new(),
        labels: BTreeMap::new(),
        addresses: Vec::new(),
    };
    Arc::new(NodeState { target, is_ready: ready, is_excluded: false })
}

#[test]
fn a_slice_concerns_its_service_alone_and_what_changes_nothing_concerns_nobody() {
    let mut board = Board::default();
    assert_eq!(names(&board.learn_slice(id("a"), Some(slice("web", &["10.0.0.1"])))), ["web"]);
    assert_eq!(names(&board.learn_slice(id("b"), Some(slice("web", &["10.0.0.1", "10.0.0.2"])))), ["web"]);
    assert_eq!(names(&board.learn_slice(id("b"), Some(slice("web", &["10.0.0.1", "10.0.0.2"])))), [""; 0]);
    assert_eq!(addresses(&board, "web"), ["10.0.0.1", "10.0.0.2"], "each once");
    assert_eq!(names(&board.learn_slice(id("b"), Some(slice("db", &["10.0.0.2"])))), ["db", "web"]);
    assert_eq!(addresses(&board, "web"), ["10.0.0.1"]);
    assert_eq!(names(&board.learn_slice(id("a"), None)), ["web"]);
    assert_eq!(names(&board.learn_slice(id("a"), None)), [""; 0]);
    assert_eq!(addresses(&board, "web"), [""; 0]);
}

#[test]
fn nodes_concern_all_only_when_others_take_traffic() {
    let mut board = Board::default();
    let news = |name: &str, node: Option<Arc<NodeState>>| BTreeMap::from([(name.to_owned(), node)]);
    assert!(board.learn_nodes(news("a", Some(node("a", true)))));
    assert!(!board.learn_nodes(news("a", Some(node("a", true)))));
    assert!(!board.learn_nodes(news("b", Some(node("b", false)))));
    assert!(board.learn_nodes(news("b", Some(node("b", true)))));
    assert!(board.learn_nodes(news("a", None)));
    let targets = board.targets(std::iter::empty(), &Gates::default());
    assert_eq!(targets.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_shard_is_sent_to_once_at_a_time_and_what_came_meanwhile_is_sent_next() {
    let mut board = Board::default();
    board.soon(&shard("x"), NOW);
    board.soon(&shard("x"), NOW);
    board.soon(&shard("y"), NOW);
    assert_eq!(board.next(NOW), Some(shard("x")));
    board.soon(&shard("x"), NOW);
    assert_eq!((board.next(NOW), board.next(NOW)), (Some(shard("y")), None));
    board.done(&shard("x"), &BTreeSet::new(), Ok(TargetReport::default()), NOW);
    assert_eq!((board.next(NOW), board.next(NOW)), (Some(shard("x")), None));
}

#[test]
fn each_shard_has_its_own_retries_and_who_asks_for_fewer_calls_is_left_alone() {
    let mut board = Board::default();
    let services = BTreeSet::new();
    for (class, waits) in [(Class::Transient, [200, 400, 800]), (Class::Throttled, [1_000, 2_000, 4_000])] {
        let mut now = NOW;
        for wait in waits {
            board.soon(&shard("x"), now);
            assert_eq!(board.next(now), Some(shard("x")), "{class}");
            board.done(&shard("x"), &services, Err(Failure::new(class, "no")), now);
            // Another change does not hasten it where fewer calls are asked for.
            if class == Class::Throttled {
                board.soon(&shard("x"), now);
            }
            now += Duration::from_millis(wait);
            assert_eq!(board.next_due(), Some(now), "{class}");
        }
        board.soon(&shard("y"), NOW);
        assert_eq!(board.next(NOW), Some(shard("y")), "{class}");
        board.done(&shard("y"), &services, Ok(TargetReport::default()), NOW);
        board.soon(&shard("x"), now);
        assert_eq!(board.next(now), Some(shard("x")));
        board.done(&shard("x"), &services, Ok(TargetReport::default()), now);
    }
}

#[test]
fn what_is_said_of_targets_stays_through_failures_that_nobody_has_to_mend() {
    let mut board = Board::default();
    let (x, web) = (shard("x"), intent("web").id);
    let services = BTreeSet::from([web.clone()]);
    let says = |message: &str| Condition {
        kind: types::TARGETS_HEALTHY,
        status: ConditionStatus::True,
        reason: Reason::TargetsHealthy,
        message: message.to_owned(),
    };
    let report = |message: &str| {
        let conditions = BTreeMap::from([(web.clone(), says(message))]);
        Ok(TargetReport { conditions, ..TargetReport::default() })
    };
    assert!(!board.was_sent_to(&x));
    assert_eq!(board.done(&x, &services, report("1 of 1"), NOW), services);
    assert!(board.was_sent_to(&x));
    assert_eq!(board.done(&x, &services, report("1 of 1"), NOW), BTreeSet::new(), "nothing new");
    let failure = |class| Err(Failure::new(class, "no"));
    assert_eq!(board.done(&x, &services, failure(Class::Throttled), NOW), BTreeSet::new());
    assert_eq!(board.condition(&web), Some(&says("1 of 1")));
    assert_eq!(board.done(&x, &services, failure(Class::Permission), NOW), services);
    assert_eq!(board.condition(&web).map(|said| said.reason), Some(Reason::PermissionDenied));
    assert_eq!(
        board.done(&x, &services, Ok(TargetReport::default()), NOW),
        services,
        "there is no target group any more"
    );
    assert_eq!(board.condition(&web), None);
}

proptest! {
    #[test]
    fn whatever_slices_come_and_go_a_service_has_the_endpoints_of_those_that_there_are(
        news in prop::collection::vec((0..4_u8, prop::option::of((0..3_u8, prop::collection::btree_set(0..6_u8, 0..4)))), 0..40)
    ) {
        let mut board = Board::default();
        let mut there = BTreeMap::new();
        for (number, state) in news {
            match &state {
                Some(state) => drop(there.insert(number, state.clone())),
                None => drop(there.remove(&number)),
            }
            let state = state.map(|(service, of)| {
                let all: Vec<_> = of.iter().map(|address| format!("10.0.0.{address}")).collect();
                slice(&format!("s{service}"), &all.iter().map(String::as_str).collect::<Vec<_>>())
            });
            board.learn_slice(id(&number.to_string()), state);
        }
        for service in 0..3_u8 {
            let of = there.values().filter(|(is, _)| *is == service).flat_map(|(_, of)| of.iter().copied());
            let expected: BTreeSet<_> = of.map(|address| format!("10.0.0.{address}")).collect();
            let seen: BTreeSet<_> = addresses(&board, &format!("s{service}")).into_iter().collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
