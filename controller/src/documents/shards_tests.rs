use berth_api::condition::types;
use berth_api::{Condition, ConditionStatus, Reason};
use berth_provider::Class;
use serde_json::json;

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn intent(name: &str, uid: &str) -> Intent {
    let service = json!({
        "metadata": {"namespace": "shop", "name": name, "uid": uid},
        "spec": {"ports": [{"port": 80}], "ipFamilies": ["IPv4"]},
    });
    Intent::of(&serde_json::from_value(service).unwrap()).unwrap()
}

fn key(name: &str) -> ServiceKey {
    intent(name, "").id.key
}

fn shard(name: &str) -> Shard {
    Shard(name.to_owned())
}

fn learn(shards: &mut Shards, name: &str, uid: &str, of: &str) {
    shards.learn(key(name), Some((shard(of), intent(name, uid))), NOW);
}

fn names(wanted: &Wanted) -> (Vec<&str>, Vec<&str>) {
    let leaving = wanted.leaving.keys().map(|id| id.uid.as_str()).collect();
    (wanted.present.keys().map(|key| key.name.as_str()).collect(), leaving)
}

fn steps(steps: usize) -> Turn {
    Turn { steps, done: steps, ..Turn::default() }
}

/// Steps for the Service `a` of this UID.
fn steps_for(uid: &str, count: usize) -> Turn {
    Turn { concerns: BTreeSet::from([intent("a", uid).id]), ..steps(count) }
}

#[test]
fn services_of_one_shard_are_planned_together_and_one_shard_at_a_time() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "x");
    learn(&mut shards, "b", "2", "x");
    learn(&mut shards, "c", "3", "y");
    let (first, wanted) = shards.next(NOW).unwrap();
    assert_eq!((first.0.as_str(), names(&wanted)), ("x", (vec!["a", "b"], vec![])));
    assert_eq!(shards.next(NOW).unwrap().0, shard("y"));
    learn(&mut shards, "d", "4", "x");
    assert!(shards.next(NOW).is_none(), "x is being looked at");
    shards.done(&first, &steps(0), NOW);
    assert_eq!(names(&shards.next(NOW).unwrap().1), (vec!["a", "b", "d"], vec![]), "what came meanwhile is not lost");
}

#[test]
fn a_service_leaves_until_nothing_is_left_of_it() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "x");
    let (x, _) = shards.next(NOW).unwrap();
    shards.done(&x, &steps(0), NOW);
    shards.learn(key("a"), None, NOW);
    for planned in [2, 1] {
        assert_eq!(names(&shards.next(NOW).unwrap().1), (vec![], vec!["1"]));
        shards.done(&x, &steps_for("1", planned), NOW);
    }
    assert_eq!(names(&shards.next(NOW).unwrap().1), (vec![], vec!["1"]));
    shards.done(&x, &steps(0), NOW);
    assert!(shards.next_due().is_none(), "nobody has to do with this shard any more");
}

#[test]
fn one_of_which_nothing_is_left_is_held_up_by_nobody_else_of_its_shard() {
    let mut shards = Shards::default();
    for (name, uid) in [("a", "1"), ("b", "2"), ("c", "3")] {
        learn(&mut shards, name, uid, "x");
    }
    let (x, _) = shards.next(NOW).unwrap();
    shards.done(&x, &steps(0), NOW);
    shards.learn(key("b"), None, NOW);
    shards.learn(key("c"), None, NOW);
    let failing = |turn: Turn| {
        let failures = BTreeMap::from([(intent("a", "1").id, Failure::new(Class::Transient, "no"))]);
        Turn { failures, ..turn }
    };
    let id = |name, uid| intent(name, uid).id;
    for (turn, leaving) in [
        // What was not looked at, or stopped, says nothing of anybody.
        (Turn { unseen: Some(Failure::new(Class::Transient, "no")), ..Turn::default() }, [true, true]),
        (Turn { stopped: true, ..failing(steps_for("1", 1)) }, [true, true]),
        (failing(Turn { concerns: BTreeSet::from([id("a", "1"), id("b", "2")]), ..steps(2) }), [true, false]),
        (failing(steps_for("1", 1)), [false, false]),
    ] {
        shards.all_due(NOW);
        shards.next(NOW).unwrap();
        shards.done(&x, &turn, NOW);
        assert_eq!([shards.is_leaving(&id("b", "2")), shards.is_leaving(&id("c", "3"))], leaving, "{turn:?}");
    }
}

#[test]
fn one_that_leaves_while_its_shard_is_looked_at_leaves_in_the_next_look() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "x");
    let (x, _) = shards.next(NOW).unwrap();
    shards.learn(key("a"), None, NOW);
    shards.done(&x, &steps(0), NOW);
    assert_eq!(names(&shards.next(NOW).unwrap().1), (vec![], vec!["1"]));
}

#[test]
fn one_that_is_made_again_under_its_name_leaves_what_it_had() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "x");
    learn(&mut shards, "a", "2", "x");
    assert_eq!(names(&shards.next(NOW).unwrap().1), (vec!["a"], vec!["1"]));
}

#[test]
fn one_that_moves_to_another_shard_keeps_what_it_had_until_something_else_is_published() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "x");
    let (x, _) = shards.next(NOW).unwrap();
    shards.done(&x, &steps(0), NOW);
    learn(&mut shards, "a", "1", "y");
    let seen: BTreeMap<_, _> = std::iter::from_fn(|| shards.next(NOW)).collect();
    assert_eq!(names(&seen[&x]), (vec![], vec![]), "the status still names what it has in x");
    assert_eq!(names(&seen[&shard("y")]), (vec!["a"], vec![]));
    shards.done(&x, &steps(0), NOW);
    shards.done(&shard("y"), &steps(0), NOW);
    let mut told = intent("a", "1");
    told.published = vec![serde_json::from_value(json!({"ip": "192.0.2.1"})).unwrap()];
    shards.learn(key("a"), Some((shard("y"), told)), NOW);
    let seen: BTreeMap<_, _> = std::iter::from_fn(|| shards.next(NOW)).collect();
    assert_eq!(names(&seen[&x]), (vec![], vec!["1"]));
    shards.done(&x, &steps(0), NOW);
    shards.done(&shard("y"), &steps(0), NOW);
    learn(&mut shards, "a", "1", "x");
    assert_eq!(names(&shards.next(NOW).unwrap().1), (vec!["a"], vec![]), "it comes back");
}

#[test]
fn one_that_was_never_seen_here_leaves_until_nothing_is_left_of_it_and_its_shard_is_forgotten() {
    let mut shards = Shards::default();
    shards.leave(&key("a"), shard("x"), &intent("a", "1"), NOW);
    for planned in [1, 0] {
        assert!(shards.is_leaving(&intent("a", "1").id));
        let (x, wanted) = shards.next(NOW).unwrap();
        assert_eq!((x.0.as_str(), names(&wanted)), ("x", (vec![], vec!["1"])));
        let turn = if planned > 0 { steps_for("1", planned) } else { steps(0) };
        shards.done(&x, &turn, NOW);
    }
    assert!(!shards.is_leaving(&intent("a", "1").id));
    assert!(shards.next_due().is_none(), "nobody has to do with this shard any more");
}

#[test]
fn what_a_service_says_while_it_leaves_is_gone_by_wherever_it_leaves() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "x");
    let mut last = intent("a", "1");
    last.annotations.insert("says".to_owned(), "something else".to_owned());
    shards.leave(&key("a"), shard("y"), &last, NOW);
    let seen: BTreeMap<_, _> = std::iter::from_fn(|| shards.next(NOW)).collect();
    let of: Vec<_> = seen.values().flat_map(|wanted| wanted.leaving.values()).collect();
    assert_eq!((seen.len(), of), (2, vec![&last, &last]));
}

#[test]
fn what_is_found_in_another_shard_goes_once_people_are_told_of_what_there_is_in_this_one() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "y");
    shards.found(&shard("y"), &intent("a", "1"), NOW);
    assert!(!shards.is_leaving(&intent("a", "1").id), "it is where it should be");
    shards.found(&shard("x"), &intent("a", "1"), NOW);
    let seen: BTreeMap<_, _> = std::iter::from_fn(|| shards.next(NOW)).collect();
    assert_eq!(names(&seen[&shard("x")]), (vec![], vec![]), "nothing is published of y yet");
    shards.done(&shard("x"), &steps(0), NOW);
    let met = Outcome { met: true, ..Outcome::default() };
    let turn = Turn { outcomes: BTreeMap::from([(intent("a", "1").id, met)]), ..Turn::default() };
    shards.done(&shard("y"), &turn, NOW);
    assert_eq!(names(&shards.next(NOW).unwrap().1), (vec![], vec!["1"]));
}

#[test]
fn one_that_was_told_of_in_one_shard_is_not_told_of_in_the_next() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "x");
    let (x, _) = shards.next(NOW).unwrap();
    let met = Outcome { met: true, ..Outcome::default() };
    shards.done(&x, &Turn { outcomes: BTreeMap::from([(intent("a", "1").id, met)]), ..Turn::default() }, NOW);
    learn(&mut shards, "a", "1", "y");
    let seen: BTreeMap<_, _> = std::iter::from_fn(|| shards.next(NOW)).collect();
    assert_eq!(names(&seen[&x]), (vec![], vec![]), "its replacement is not there");
}

#[test]
fn what_one_service_waits_for_holds_up_no_other_of_its_shard() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "x");
    learn(&mut shards, "b", "2", "x");
    let (x, _) = shards.next(NOW).unwrap();
    let failures = BTreeMap::from([(intent("a", "1").id, Failure::new(Class::Config, "no"))]);
    shards.done(&x, &Turn { steps: 2, done: 1, failures, ..Turn::default() }, NOW);
    assert_eq!(shards.next_due(), Some(NOW), "something was done for b, which is seen by looking again");
}

#[test]
fn who_asks_for_fewer_calls_is_not_called_for_another_service_either() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "x");
    let (x, _) = shards.next(NOW).unwrap();
    let failure = Failure::new(Class::Throttled, "no").retry_after(Duration::from_mins(5));
    let unseen = Some(failure);
    shards.done(&x, &Turn { unseen, ..Turn::default() }, NOW);
    learn(&mut shards, "b", "2", "x");
    assert_eq!(shards.next_due(), Some(NOW + Duration::from_mins(5)));
}

#[test]
fn a_shard_that_is_never_at_rest_is_looked_at_less_and_less() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "x");
    let (mut now, mut waits) = (NOW, Vec::new());
    for _ in 0..20 {
        let (x, _) = shards.next(now).unwrap();
        shards.done(&x, &steps(1), now);
        let due = shards.next_due().unwrap();
        waits.push(due.saturating_sub(now).as_secs());
        now = due;
    }
    assert_eq!(waits[..8], [0, 0, 0, 0, 0, 1, 2, 4]);
    assert_eq!(waits[19], 300);
}

#[test]
fn whoever_stands_by_remembers_nothing_of_services_that_are_gone() {
    let mut shards = Shards::default();
    for number in 0..100 {
        let name = format!("s{number}");
        learn(&mut shards, &name, &name, &name);
        shards.learn(key(&name), None, NOW);
    }
    learn(&mut shards, "stays", "1", "x");
    shards.stand_by();
    assert_eq!((shards.leaving.len(), shards.due.len(), shards.members.len()), (0, 0, 1));
    shards.all_due(NOW);
    assert_eq!(names(&shards.next(NOW).unwrap().1), (vec!["stays"], vec![]));
}

#[test]
fn the_class_of_a_failure_says_when_the_shard_is_due_again() {
    for (class, millis) in
        [(Class::Transient, [200, 400, 800]), (Class::Throttled, [1_000, 2_000, 4_000]), (Class::NotReady, [1_000; 3])]
    {
        let mut shards = Shards::default();
        learn(&mut shards, "a", "1", "x");
        let mut now = NOW;
        for wait in millis {
            let (x, _) = shards.next(now).unwrap();
            let failures = BTreeMap::from([(intent("a", "1").id, Failure::new(class, "no"))]);
            shards.done(&x, &Turn { steps: 1, failures, ..Turn::default() }, now);
            assert_eq!(shards.next_due(), Some(now + Duration::from_millis(wait)), "{class}");
            now += Duration::from_millis(wait);
        }
    }
}

#[test]
fn what_takes_its_time_is_looked_at_when_it_says_and_all_else_once_an_hour() {
    let condition = Condition {
        kind: types::ALLOCATED,
        status: ConditionStatus::False,
        reason: Reason::Provisioning,
        message: String::new(),
    };
    for (look_again, due) in [(Some(Duration::from_secs(3)), Duration::from_secs(3)), (None, LOOK_AGAIN)] {
        let mut shards = Shards::default();
        learn(&mut shards, "a", "1", "x");
        let (x, _) = shards.next(NOW).unwrap();
        let outcome = Outcome { conditions: vec![condition.clone()], look_again, ..Outcome::default() };
        shards.done(&x, &Turn { outcomes: BTreeMap::from([(intent("a", "1").id, outcome)]), ..Turn::default() }, NOW);
        assert_eq!(shards.next_due(), Some(NOW + due));
    }
}

#[test]
fn what_does_not_come_is_looked_for_less_and_less_until_something_happens() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "x");
    let outcome = Outcome { look_again: Some(Duration::from_secs(1)), ..Outcome::default() };
    let waits_for = Turn { outcomes: BTreeMap::from([(intent("a", "1").id, outcome)]), ..Turn::default() };
    let (mut now, mut waits) = (NOW, Vec::new());
    for _ in 0..8 {
        let (x, _) = shards.next(now).unwrap();
        shards.done(&x, &waits_for, now);
        let due = shards.next_due().unwrap();
        waits.push(due.saturating_sub(now).as_secs());
        now = due;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    let (x, _) = shards.next(now).unwrap();
    shards.done(&x, &waits_for, now);
    shards.hasten(&x, now);
    assert_eq!(shards.next_due(), Some(now));
    let (x, _) = shards.next(now).unwrap();
    shards.done(&x, &waits_for, now);
    assert_eq!(shards.next_due(), Some(now + Duration::from_secs(1)), "it begins anew");
    let (x, _) = shards.next(now + Duration::from_secs(1)).unwrap();
    shards.done(&x, &Turn { rests: Some(Duration::from_secs(77)), ..Turn::default() }, now);
    shards.hasten(&x, now);
    assert_eq!(shards.next_due(), Some(now + Duration::from_secs(77)), "who waits for nothing is not hastened");
}

#[test]
fn a_change_that_is_none_makes_nothing_due() {
    let mut shards = Shards::default();
    learn(&mut shards, "a", "1", "x");
    let (x, _) = shards.next(NOW).unwrap();
    shards.done(&x, &steps(0), NOW);
    learn(&mut shards, "a", "1", "x");
    assert_eq!(shards.next_due(), Some(NOW + LOOK_AGAIN));
}
