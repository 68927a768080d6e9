//! A status that comes late, of a Service that has changed since it was planned: it fails, and is planned again when the
//! watch has shown the change, not before.

use super::*;

/// A Service that somebody changed, which the controller has not been shown, and a reason to write its status.
fn outdated() -> Cluster {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.210"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    cluster.writes();
    cluster.behind = true;
    cluster.apply("web", json!({"loadBalancerIP": "192.0.2.205"}));
    cluster.advertise(json!({"ipAddressPools": ["other"]}));
    cluster
}

#[test]
fn it_is_refused_and_planned_again_once_when_the_watch_has_caught_up() {
    let mut cluster = outdated();
    cluster.settle(None);
    let refused = cluster.writes();
    assert_eq!(refused[refused.len() - 2..], ["status web 192.0.2.200", "conflict"]);
    // Whatever else happens, nothing is tried that can only fail again.
    for _ in 0..3 {
        cluster.world.mark(&key("web"));
        cluster.settle(None);
    }
    assert_eq!(cluster.writes(), Vec::<String>::new());
    assert_eq!(cluster.world.behind(), 1);
    cluster.catch_up(["web".to_owned()]);
    cluster.settle(None);
    assert_eq!(cluster.ingress("web").as_deref(), Some("192.0.2.205"));
    assert!(!cluster.writes().contains(&"conflict".to_owned()));
    assert_eq!(cluster.world.behind(), 0);
}

#[test]
fn a_change_that_was_shown_while_the_write_was_under_way_is_not_waited_for() {
    let mut cluster = outdated();
    let planned = cluster.world.next(|_| false).unwrap();
    let steps = plan(&cluster.world, &BTreeMap::new(), &planned, Timestamp::UNIX_EPOCH).steps;
    cluster.catch_up(["web".to_owned()]);
    let refused = steps.into_iter().map(|step| cluster.write(step)).find_map(Result::err).unwrap();
    let Refused::Outdated(planned_on) = refused else { panic!("{refused:?}") };
    cluster.world.is_outdated(&planned, planned_on);
    assert_eq!(cluster.world.behind(), 0);
    assert_eq!(cluster.world.next(|_| false), Some(planned));
}

#[test]
fn a_service_that_was_deleted_and_made_again_is_another_one() {
    let mut cluster = outdated();
    cluster.delete("web");
    cluster.apply("web", json!({"type": "ClusterIP"}));
    cluster.settle(None);
    assert!(cluster.writes().contains(&"conflict".to_owned()));
    assert_eq!(cluster.services[&key("web")].status, None);
    cluster.catch_up(["web".to_owned()]);
    cluster.settle(None);
    assert!(cluster.announcements.is_empty());
    assert_eq!(cluster.services[&key("web")].status, None);
}

#[test]
fn a_leader_that_wakes_up_late_gives_no_address_to_a_service_that_its_successor_has_served() {
    // What the first leader knows: no address is taken.
    let mut late = Cluster::new(&["192.0.2.200-192.0.2.201"]);
    late.apply("web", json!({}));
    let planned = late.world.next(|_| false).unwrap();
    let steps = plan(&late.world, &BTreeMap::new(), &planned, Timestamp::UNIX_EPOCH).steps;
    // What its successor did meanwhile.
    let mut successor = Cluster::new(&["192.0.2.201"]);
    (successor.services, successor.version) = (late.services.clone(), late.version);
    successor.tell("web");
    successor.settle(None);
    assert_eq!(successor.ingress("web").as_deref(), Some("192.0.2.201"));
    successor.writes();
    for step in steps {
        if let Err(refused) = successor.write(step) {
            assert!(matches!(refused, Refused::Outdated(_)), "{refused:?}");
        }
    }
    assert_eq!(successor.writes(), ["claim 192.0.2.200", "status web 192.0.2.200", "conflict"]);
    assert_eq!(successor.ingress("web").as_deref(), Some("192.0.2.201"));
    // The claim that got through is seen and given back.
    successor.settle(None);
    assert_eq!(successor.writes(), ["release 192.0.2.200"]);
}

#[test]
fn a_new_leader_whose_watch_of_services_is_behind_takes_no_address_from_a_service_it_has_not_heard_of() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.201"]);
    // Another replica led until now: the Service is there and served, and the watch shows the Announcement alone.
    cluster.apply("web", json!({}));
    cluster.settle(None);
    let mut late = Cluster::new(&["192.0.2.200-192.0.2.201"]);
    (late.services, late.announcements, late.version) =
        (cluster.services.clone(), cluster.announcements.clone(), cluster.version);
    late.show("192.0.2.200");
    let planned = late.world.next(|_| false).unwrap();
    let steps = plan(&late.world, &BTreeMap::new(), &planned, Timestamp::UNIX_EPOCH).steps;
    let refused = steps.into_iter().map(|step| late.write(step)).find_map(Result::err);
    assert_eq!(refused, Some(Refused::Behind));
    assert_eq!(late.writes(), Vec::<String>::new());
    late.tell("web");
    late.settle(None);
    assert_eq!(late.writes(), Vec::<String>::new());
    assert_eq!(late.ingress("web").as_deref(), Some("192.0.2.200"));
}

#[test]
fn a_service_that_another_provider_serves_now_keeps_its_address_until_something_else_is_published() {
    let mut cluster = Cluster::new(&["192.0.2.200-192.0.2.201"]);
    cluster.apply("web", json!({}));
    cluster.settle(None);
    cluster.writes();
    let now = Timestamp::UNIX_EPOCH;
    let view = ServiceView::of(&cluster.services[&key("web")], Asks::AnotherProvider);
    cluster.world.learn(Change::Service(key("web"), view));
    let mut said = BTreeMap::new();
    assert!(plan(&cluster.world, &said, &key("web"), now).steps.is_empty(), "nobody has said anything yet");

    let ingress = |ip: &str| vec![serde_json::from_value(json!({"ip": ip})).unwrap()];
    let steps = |cluster: &Cluster, said: &BTreeMap<_, _>| -> Vec<String> {
        let steps = plan(&cluster.world, said, &key("web"), now).steps;
        steps
            .iter()
            .map(|step| match step {
                Step::Status(status, _) => format!("status {}", status.addresses.join(",")),
                Step::Pool(step) => step.to_string(),
                Step::Gone(key) => format!("gone {key}"),
            })
            .collect()
    };
    // One that refuses leaves what is there alone.
    let condition = Condition {
        kind: types::ALLOCATED,
        status: ConditionStatus::False,
        reason: Reason::Unsupported,
        message: String::new(),
    };
    said.insert(key("web"), Outcome { conditions: vec![condition.clone()], ..Outcome::default() });
    assert_eq!(steps(&cluster, &said), ["status 192.0.2.200"]);
    let condition = Condition { status: ConditionStatus::True, reason: Reason::Allocated, ..condition };
    said.insert(
        key("web"),
        Outcome { ingress: ingress("203.0.113.1"), conditions: vec![condition], met: true, look_again: None },
    );
    assert_eq!(steps(&cluster, &said), ["status 203.0.113.1"], "the status names the old one still");
    // Once it is published, what nobody is told of any more goes.
    let Some(Step::Status(status, notes)) = plan(&cluster.world, &said, &key("web"), now).steps.pop() else { panic!() };
    cluster.write(Step::Status(status, notes)).unwrap();
    let view = ServiceView::of(&cluster.services[&key("web")], Asks::AnotherProvider);
    cluster.world.learn(Change::Service(key("web"), view));
    assert_eq!(steps(&cluster, &said), ["release 192.0.2.200"]);
}
