//! Both ends of a conversation about claims, with and without losses.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn address(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

fn answers(epoch: u64) -> Held {
    Held { epoch, cares: false }
}

fn cares(epoch: u64) -> Held {
    Held { epoch, cares: true }
}

fn known(epoch: u64) -> Known {
    Known { epoch, holder: None }
}

fn deliver(told: &mut Told, heard: &mut Heard) -> Learnt {
    let mut all = Learnt::default();
    for body in told.changes() {
        let learnt = heard.take(&body);
        all.claimed.extend(learnt.claimed);
        all.cared_for.extend(learnt.cared_for);
        all.dropped.extend(learnt.dropped);
        all.known.extend(learnt.known);
    }
    all
}

#[test]
fn only_changes_travel() {
    let (mut told, mut heard) = (Told::default(), Heard::default());
    told.hold(address(1), answers(5));
    told.hold(address(2), answers(6));
    let first = deliver(&mut told, &mut heard);
    assert_eq!(first.claimed, [(address(1), 5), (address(2), 6)]);
    assert_eq!(deliver(&mut told, &mut heard), Learnt::default(), "nothing changed");
    told.hold(address(1), answers(5));
    assert_eq!(deliver(&mut told, &mut heard), Learnt::default(), "nor did this");
    told.drop(address(2), known(9));
    let last = deliver(&mut told, &mut heard);
    assert_eq!((last.claimed, last.dropped, last.known), (vec![], vec![address(2)], vec![(address(2), known(9))]));
    assert_eq!((heard.epoch(address(1)), heard.epoch(address(2)), heard.asking()), (Some(5), None, false));
}

#[test]
fn a_lost_change_is_noticed_with_the_next_datagram_and_the_list_mends_it() {
    let (mut told, mut heard) = (Told::default(), Heard::default());
    told.hold(address(1), answers(1));
    deliver(&mut told, &mut heard);
    told.drop(address(1), known(1));
    for n in 2..100 {
        told.hold(address(n), answers(7));
    }
    let unheard = told.changes();
    assert_eq!(unheard.len(), 5, "24 to a datagram");
    deliver(&mut told, &mut heard);
    assert!(heard.asking());
    let now = Duration::from_secs(1);
    let list = told.list(now).unwrap();
    assert_eq!(list.len(), 5);
    let mut dropped = Vec::new();
    for body in &list {
        assert!(heard.asking());
        dropped.extend(heard.take(body).dropped);
    }
    assert!(!heard.asking());
    assert_eq!(dropped, [address(1)]);
    assert_eq!(heard.now, told.now);
}

#[test]
fn lists_are_neither_asked_for_nor_sent_all_the_time() {
    let (mut told, mut heard) = (Told::default(), Heard::default());
    let later = CLAIMS_INTERVAL;
    assert!(told.list(Duration::ZERO).is_some());
    assert!(told.list(Duration::ZERO).is_none());
    assert!(told.list(later).is_some());
    assert!(heard.ask(Duration::ZERO));
    assert!(!heard.ask(Duration::ZERO));
    assert!(heard.ask(later));
}

#[test]
fn what_a_partner_seems_not_to_know_is_said_again() {
    let (mut told, mut heard) = (Told::default(), Heard::default());
    told.hold(address(1), answers(3));
    deliver(&mut told, &mut heard);
    told.repeat(address(1), known(3));
    told.repeat(address(2), known(8));
    let learnt = deliver(&mut told, &mut heard);
    assert_eq!(learnt.claimed, [(address(1), 3)], "its own claim");
    assert_eq!(learnt.known, [(address(2), known(8))], "another's number");
    assert!(learnt.dropped.is_empty());
    assert!(!heard.asking());
}

#[test]
fn to_care_for_an_address_is_another_claim_than_to_answer_for_it() {
    let (mut told, mut heard) = (Told::default(), Heard::default());
    told.hold(address(1), cares(3));
    let learnt = deliver(&mut told, &mut heard);
    assert_eq!((learnt.cared_for, learnt.claimed), (vec![(address(1), 3)], vec![]));
    assert_eq!((heard.cares(address(1)), heard.epoch(address(1))), (Some(3), None));
    let digest = heard.now.digest;
    told.hold(address(1), answers(3));
    let learnt = deliver(&mut told, &mut heard);
    assert_eq!((learnt.cared_for, learnt.claimed), (vec![], vec![(address(1), 3)]));
    assert_eq!((heard.cares(address(1)), heard.epoch(address(1))), (None, Some(3)));
    assert_ne!(heard.now.digest, digest, "a partner that missed it notices");
    told.hold(address(1), cares(3));
    assert_eq!(deliver(&mut told, &mut heard).dropped, [address(1)], "it answers for itself no longer");
}

#[derive(Clone, Debug)]
enum Step {
    Hold(u8, Held),
    Drop(u8),
    Repeat(u8),
    Beat { lost: bool },
    List { lost: bool },
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), 1..5u64, any::<bool>()).prop_map(|(n, epoch, cares)| Step::Hold(n, Held { epoch, cares })),
        2 => any::<u8>().prop_map(Step::Drop),
        1 => any::<u8>().prop_map(Step::Repeat),
        3 => any::<bool>().prop_map(|lost| Step::Beat { lost }),
        1 => any::<bool>().prop_map(|lost| Step::List { lost }),
    ]
}

proptest! {
    #[test]
    fn whatever_is_lost_a_partner_that_asks_for_nothing_knows_everything(steps in prop::collection::vec(steps(), 0..200)) {
        let (mut told, mut heard) = (Told::default(), Heard::default());
        let mut model: BTreeMap<IpAddr, Held> = BTreeMap::new();
        let mut now = Duration::ZERO;
        for step in steps.into_iter().chain([Step::Beat { lost: false }, Step::List { lost: false }]) {
            now += CLAIMS_INTERVAL;
            let (bodies, lost) = match step {
                Step::Hold(n, held) => {
                    told.hold(address(n), held);
                    model.insert(address(n), held);
                    continue;
                }
                Step::Drop(n) => {
                    told.drop(address(n), known(9));
                    model.remove(&address(n));
                    continue;
                }
                Step::Repeat(n) => {
                    told.repeat(address(n), known(9));
                    continue;
                }
                Step::Beat { lost } => (told.changes(), lost),
                Step::List { lost } => (told.list(now).unwrap(), lost),
            };
            prop_assert!(!bodies.is_empty());
            for body in bodies.iter().filter(|_| !lost) {
                heard.take(body);
            }
            if !lost && !heard.asking() {
                prop_assert_eq!(&heard.now.held, &model);
            }
        }
        prop_assert!(!heard.asking());
        prop_assert_eq!(&heard.now.held, &model);
    }
}
