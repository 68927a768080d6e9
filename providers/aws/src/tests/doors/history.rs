//! What always holds, whatever is asked for, fails, or is done by hand.

use berth_provider::conformance::Fault;
use proptest::prelude::*;

use super::{IP, World, node, numbered, rule};
use crate::cloud::{Pairs, Source};
use crate::fake::NODES_GROUP;

#[derive(Clone, Debug)]
enum Event {
    /// The second one goes to pods, the others to nodes.
    Serve {
        number: usize,
    },
    Delete {
        number: usize,
    },
    Pods(Vec<(u8, u16)>),
    Nodes(usize),
    /// Somebody writes a rule into a group, if it is not there.
    ByHand {
        group: usize,
        port: u16,
        from_backend: bool,
    },
    Fault {
        writes: u64,
        lost: bool,
    },
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..3_usize).prop_map(|number| Event::Serve { number }),
        1 => (0..3_usize).prop_map(|number| Event::Delete { number }),
        3 => prop::collection::vec((0..6_u8, 8080..8100_u16), 0..6).prop_map(Event::Pods),
        1 => (0..5_usize).prop_map(Event::Nodes),
        2 => (0..2_usize, 8080..8100_u16, any::<bool>()).prop_map(|(group, port, from_backend)| Event::ByHand { group, port, from_backend }),
        1 => (0..4_u64, any::<bool>()).prop_map(|(writes, lost)| Event::Fault { writes, lost }),
        1 => Just(Event::Restart),
    ]
}

async fn history(events: &[Event]) -> Result<(), TestCaseError> {
    let mut world = World::new();
    world.plant("sg-pods", &[rule(22, Source::V4("10.0.0.0/8".to_owned()), Some("ssh"))], Pairs::new());
    for number in 0..6 {
        let group = if number % 2 == 0 { NODES_GROUP } else { "sg-pods" };
        world.fit(&format!("eni-{number}"), None, &format!("10.0.0.{number}"), None, &[group]);
    }
    let mut made = 0;
    for event in events {
        let foreign = world.foreign();
        match event {
            Event::Serve { number } => {
                let mut intent = numbered(*number, if *number == 1 { &[IP] } else { &[] });
                // One that is made again is another one.
                let before = world.scene.wanted.get(&intent.id.key).map(|intent| intent.id.uid.clone());
                made += 1;
                intent.id.uid = before.unwrap_or_else(|| format!("uid-{made}"));
                world.scene.apply(intent);
            }
            Event::Delete { number } => {
                let key = numbered(*number, &[]).id.key;
                let intent = world.scene.wanted.remove(&key);
                world.scene.leaving.extend(intent);
                world.scene.outcomes.remove(&key);
                world.scene.rest().await;
            }
            Event::Pods(pods) => world.pods.clone_from(pods),
            Event::Nodes(count) => world.nodes = (0..*count).map(node).collect(),
            Event::ByHand { group, port, from_backend } => {
                let id = [NODES_GROUP, "sg-pods"][*group];
                world.scene.fake.with(|state| {
                    let backend = state.groups.iter().find(|(_, of)| of.name.starts_with("berth-backend"));
                    let backend = backend.map(|(id, _)| id.clone()).filter(|_| *from_backend);
                    let source = backend.map_or(Source::V4("10.0.0.0/8".to_owned()), Source::Group);
                    let new = rule(*port, source, Some("by hand"));
                    let rules = &mut state.groups.get_mut(id).unwrap().rules;
                    if !rules.iter().any(|rule| rule.bare() == new.bare()) {
                        rules.insert(new);
                    }
                });
                continue;
            }
            Event::Fault { writes, lost: true } => {
                world.scene.fake.gate().set(Fault::LoseAnswerAfter { writes: *writes });
            }
            Event::Fault { writes, lost: false } => {
                world.scene.fake.gate().set(Fault::DieAfter { writes: *writes });
            }
            Event::Restart => world.restart(),
        }
        world.scene.round().await;
        drop(world.send().await);
        world.scene.fake.gate().set(Fault::None);
        world.scene.settle().await;
        prop_assert_eq!(world.foreign(), foreign, "{:?}", event);
    }
    // What is there in the end is what is needed, and no more.
    world.scene.fake.with(|state| {
        for of in state.groups.values_mut() {
            of.rules.retain(|rule| rule.description.as_deref() != Some("by hand"));
        }
    });
    world.restart();
    for _ in 0..3 {
        world.scene.rest().await;
        world.send().await.unwrap();
    }
    let mut asked: Vec<(String, u16)> = Vec::new();
    for intent in world.scene.wanted.values() {
        if intent.annotations.values().any(|value| value == "ip") {
            let group = |number: u8| if number.is_multiple_of(2) { NODES_GROUP } else { "sg-pods" };
            asked.extend(world.pods.iter().map(|(number, port)| (group(*number).to_owned(), *port)));
        } else if !world.nodes.is_empty() {
            asked.extend([(NODES_GROUP.to_owned(), 30_000), (NODES_GROUP.to_owned(), 32_767)]);
        }
    }
    let opened = world.opened();
    let lets = |(group, port): &(String, u16)| {
        opened.iter().any(|line| {
            let mut words = line.split(' ');
            let (of, _, range) = (words.next().unwrap(), words.next(), words.next().unwrap());
            let (from, to) = range.split_once('-').unwrap();
            of == group && (from.parse().unwrap()..=to.parse::<u16>().unwrap()).contains(port)
        })
    };
    for one in &asked {
        prop_assert!(lets(one), "{one:?} is not among {opened:?}");
    }
    prop_assert!(asked.is_empty() == opened.is_empty(), "{asked:?} {opened:?}");
    prop_assert!(opened.len() <= 2 * 9);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_rules_of_others_are_what_they_were_and_in_the_end_what_is_needed_is_let_in(
        events in prop::collection::vec(event(), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(history(&events))?;
    }
}
