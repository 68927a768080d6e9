use berth_provider::Class;
use proptest::prelude::*;

use super::*;

/// Which of the names are here, and the uid of each.
type Here = Vec<(usize, String)>;

const NOW: Duration = Duration::from_secs(100);

fn service(name: &str, uid: &str) -> ServiceId {
    ServiceId { key: ServiceKey { namespace: "shop".to_owned(), name: name.to_owned() }, uid: uid.to_owned() }
}

fn shard(name: &str) -> Shard {
    Shard(format!("shop/service/{name}"))
}

fn owned(id: &str, shard: &Shard, service: Option<ServiceId>, whom: Whom) -> Owned {
    Owned { id: id.to_owned(), kind: "target group".to_owned(), shard: shard.clone(), service, whom }
}

fn of(id: &str, name: &str, uid: &str) -> Owned {
    owned(id, &shard(name), Some(service(name, uid)), Whom::Service)
}

fn here(services: &[(&str, &str)]) -> Snapshot {
    let ids = services.iter().map(|(name, uid)| service(name, uid)).collect();
    Snapshot::of(ids, services.iter().map(|(name, _)| shard(name)).collect())
}

fn ids(list: Option<(OrphanList, bool)>) -> Option<Vec<String>> {
    list.map(|(list, _)| list.orphans.into_iter().map(|orphan| orphan.id).collect())
}

/// After a search that found this while these Services were here.
fn searched(all: Vec<Owned>, living: &Snapshot) -> Orphans {
    let mut orphans = Orphans::default();
    orphans.begin(true);
    orphans.found(all, living, living, NOW);
    orphans
}

#[test]
fn what_belongs_to_a_service_that_is_here_is_none_and_of_the_rest_it_is_said_why() {
    let group = Shard("shop/group/edge".to_owned());
    let with_group = |mut here: Snapshot| {
        here.shards.insert(group.clone());
        here
    };
    for (what, thing, living, why) in [
        ("its own", of("a", "web", "1"), here(&[("web", "1")]), None),
        ("nobody's", of("a", "web", "1"), here(&[]), Some("no Service shop/web is served")),
        (
            "a predecessor's",
            of("a", "web", "1"),
            here(&[("web", "2")]),
            Some("Service shop/web is another one than this was made for"),
        ),
        ("another name's", of("a", "web", "1"), here(&[("db", "1")]), Some("no Service shop/web is served")),
        (
            "without a name",
            owned("a", &shard("web"), None, Whom::Service),
            here(&[("web", "1")]),
            Some("its tags do not say which Service it was made for"),
        ),
        (
            "shared with one who is here, and found by one who is not",
            owned("a", &group, Some(service("web", "1")), Whom::Shard),
            with_group(here(&[("db", "1")])),
            None,
        ),
        (
            "shared by nobody who is here",
            owned("a", &group, Some(service("web", "1")), Whom::Shard),
            here(&[("db", "1")]),
            Some("no Service of shop/group/edge is served"),
        ),
        (
            "all have it",
            owned("a", &shard("web"), Some(service("web", "1")), Whom::Cluster),
            here(&[("db", "1")]),
            None,
        ),
        (
            "nobody has it any more",
            owned("a", &shard("web"), Some(service("web", "1")), Whom::Cluster),
            here(&[]),
            Some("no Service is served"),
        ),
    ] {
        assert_eq!(super::why(&thing, &living).as_deref(), why, "{what}");
    }
}

#[test]
fn what_seems_to_be_an_orphan_is_listed_when_it_still_seems_so_after_a_while() {
    let all = vec![of("a", "web", "1"), of("b", "db", "1")];
    let mut orphans = searched(all, &here(&[]));
    assert_eq!((orphans.publishes(NOW), orphans.next_due()), (None, Some(NOW + SEEMS)));
    orphans.look(&here(&[("db", "1")]), NOW + SEEMS);
    assert_eq!(ids(orphans.publishes(NOW + SEEMS)), Some(vec!["a".to_owned()]), "the watch was behind for the other");
    assert_eq!(orphans.count(), 1);
}

#[test]
fn a_service_that_went_during_the_search_is_none_of_it() {
    let mut orphans = Orphans::default();
    orphans.begin(true);
    orphans.found(vec![of("a", "web", "1")], &here(&[("web", "1")]), &here(&[]), NOW);
    orphans.look(&here(&[]), NOW + SEEMS);
    assert_eq!(ids(orphans.publishes(NOW + SEEMS)), Some(vec![]));
}

#[test]
fn the_list_is_written_when_it_changes_and_else_once_for_each_leader() {
    let nobody = here(&[]);
    let mut orphans = searched(vec![], &nobody);
    assert_eq!(ids(orphans.publishes(NOW)), Some(vec![]), "what another leader listed may be gone");
    assert!(!orphans.published(Ok(()), NOW));
    let next = NOW + SEARCH_EVERY;
    assert_eq!(orphans.next_due(), Some(next));
    assert!(orphans.searches(next) && !orphans.searches(next));
    orphans.found(vec![of("a", "web", "1")], &nobody, &nobody, next);
    assert_eq!(orphans.publishes(next), None);
    orphans.look(&nobody, next + SEEMS);
    assert_eq!(ids(orphans.publishes(next + SEEMS)), Some(vec!["a".to_owned()]));
    orphans.published(Ok(()), next + SEEMS);
    let later = next + SEARCH_EVERY;
    orphans.found(vec![of("a", "web", "1")], &nobody, &nobody, later);
    assert_eq!((orphans.publishes(later), orphans.count()), (None, 1), "it is as it was");
    // Its Service is seen after all.
    orphans.look(&here(&[("web", "1")]), later);
    assert_eq!(ids(orphans.publishes(later)), Some(vec![]));
}

#[test]
fn a_list_that_cannot_be_written_is_written_later_as_it_is_then() {
    let nobody = here(&[]);
    let mut orphans = searched(vec![], &nobody);
    orphans.publishes(NOW).unwrap();
    let failure = Failure::new(Class::Permission, "no");
    assert!(orphans.published(Err(&failure), NOW), "the first failure");
    let again = NOW + failure.wait(1);
    assert_eq!(orphans.publishes(NOW), None);
    orphans.publishes(again).unwrap();
    assert!(!orphans.published(Err(&failure), again));
    // It changes while it is being written.
    let mut orphans = searched(vec![of("a", "web", "1")], &nobody);
    orphans.look(&nobody, NOW + SEEMS);
    orphans.publishes(NOW + SEEMS).unwrap();
    orphans.look(&here(&[("web", "1")]), NOW + SEEMS);
    orphans.published(Ok(()), NOW + SEEMS);
    assert_eq!(ids(orphans.publishes(NOW + SEEMS)), Some(vec![]));
}

#[test]
fn a_search_that_fails_is_made_again_and_the_list_stays() {
    let nobody = here(&[]);
    let mut orphans = searched(vec![of("a", "web", "1")], &nobody);
    orphans.look(&nobody, NOW + SEEMS);
    orphans.publishes(NOW + SEEMS).unwrap();
    orphans.published(Ok(()), NOW + SEEMS);
    let next = NOW + SEARCH_EVERY;
    assert!(orphans.searches(next));
    let failure = Failure::new(Class::Throttled, "slower");
    orphans.not_found(&failure, next);
    assert_eq!((orphans.count(), orphans.next_due()), (1, Some(next + failure.wait(1))));
    assert!(orphans.searches(next + failure.wait(1)));
}

proptest! {
    /// Services come, are made again and go, searches begin, end late or fail, and this process is now and then a new one: nothing that has
    /// a Service that is here is ever listed, and in the end all else is.
    #[test]
    fn nothing_of_a_service_that_is_here_is_ever_listed(
        history in proptest::collection::vec((0..8_u8, 0..4_usize, any::<bool>()), 1..60)
    ) {
        let names = ["a", "b", "c", "d"];
        let mut orphans = Orphans::default();
        orphans.begin(true);
        let mut now = NOW;
        let mut made = 0_u32;
        // The uid of each Service that is here, and what there is in the cloud.
        let mut services: [Option<String>; 4] = [const { None }; 4];
        let mut cloud: Vec<Owned> = Vec::new();
        let mut under_way: Option<(Vec<Owned>, Here)> = None;
        let living = |services: &[Option<String>; 4]| {
            let all: Vec<_> = names.iter().zip(services).filter_map(|(name, uid)| Some((*name, uid.as_deref()?))).collect();
            here(&all)
        };
        for (what, which, flag) in history {
            now += Duration::from_secs(20);
            match what {
                // It is made, and something of it.
                0 | 1 => {
                    made += 1;
                    services[which] = Some(made.to_string());
                    cloud.push(of(&format!("thing-{made}"), names[which], &made.to_string()));
                }
                // It goes, and what it had, or not.
                2 | 3 => if let Some(uid) = services[which].take() && flag {
                    cloud.retain(|of| of.service.as_ref().is_none_or(|id| id.uid != uid));
                },
                4 => if under_way.is_none() {
                    let there = services.iter().enumerate().filter_map(|(n, uid)| Some((n, uid.clone()?))).collect();
                    under_way = Some((cloud.clone(), there));
                },
                5 | 6 => if let Some((all, there)) = under_way.take() {
                    let before: Vec<_> = there.iter().map(|(n, uid)| (names[*n], uid.as_str())).collect();
                    orphans.found(all, &here(&before), &living(&services), now);
                },
                _ => {
                    under_way = None;
                    if flag {
                        orphans.begin(true);
                    } else {
                        orphans.not_found(&Failure::new(Class::Transient, "no"), now);
                    }
                }
            }
            orphans.look(&living(&services), now);
            if let Some((list, _)) = orphans.publishes(now) {
                for orphan in &list.orphans {
                    let uid = orphan.service_uid.as_ref().unwrap();
                    prop_assert!(services.iter().flatten().all(|alive| alive != uid), "{orphan:?}");
                }
                orphans.published(Ok(()), now);
            }
        }
        now += SEEMS;
        orphans.found(cloud.clone(), &living(&services), &living(&services), now);
        orphans.look(&living(&services), now + SEEMS);
        let alive: Vec<_> = services.iter().flatten().collect();
        let left = cloud.iter().filter(|of| !alive.contains(&&of.service.as_ref().unwrap().uid)).count();
        prop_assert_eq!(orphans.count(), left);
    }
}

/// With `a` of `web` listed, and named by a person.
fn named(thing: Owned) -> Orphans {
    let nobody = here(&[]);
    let mut orphans = searched(vec![thing, of("b", "db", "2")], &nobody);
    orphans.look(&nobody, NOW + SEEMS);
    assert_eq!(orphans.asks(NOW + SEEMS), BTreeSet::new(), "nobody named anything");
    orphans.name(["1", "3"].map(str::to_owned).into());
    orphans
}

#[test]
fn what_is_named_is_removed_only_when_the_api_server_does_not_have_the_service() {
    let (web, now) = (service("web", "1"), NOW + SEEMS);
    let denied = Failure::new(Class::Permission, "no");
    let going = "it is being removed, as somebody asked for";
    let there = "it cannot be removed: Service shop/web is there";
    for (is_there, living, shards, again, why) in [
        (Ok(false), here(&[]), BTreeSet::from([shard("web")]), None, Some(going)),
        (Ok(true), here(&[]), BTreeSet::new(), Some(now + SEEMS), Some(there)),
        (Err(&denied), here(&[]), BTreeSet::new(), Some(now + denied.wait(1)), Some("it cannot be removed: no")),
        (Ok(false), here(&[("web", "1")]), BTreeSet::new(), None, None),
    ] {
        let mut orphans = named(of("a", "web", "1"));
        assert_eq!(orphans.asks(now), BTreeSet::from([web.clone()]), "the one that is listed and named");
        assert_eq!(orphans.asks(now), BTreeSet::new(), "once");
        assert_eq!(orphans.answered(&web, is_there, &living, now), shards, "{is_there:?}");
        let list = orphans.publishes(now).map(|(list, _)| list.orphans).unwrap_or_default();
        assert_eq!(list.iter().find(|of| of.id == "a").map(|of| of.why.as_str()), why, "{is_there:?}");
        if let Some(again) = again {
            assert_eq!(orphans.asks(again), BTreeSet::from([web.clone()]));
        } else {
            assert_eq!(orphans.asks(now + SEARCH_EVERY), BTreeSet::new());
        }
    }
}

#[test]
fn what_is_being_removed_is_listed_with_what_stands_against_it_until_nothing_is_left() {
    let (nobody, web, now) = (here(&[]), service("web", "1"), NOW + SEEMS);
    let mut orphans = named(of("a", "web", "1"));
    let list = |orphans: &mut Orphans| {
        let list = orphans.publishes(now).map(|(list, _)| list.orphans).unwrap_or_default();
        orphans.published(Ok(()), now);
        list.into_iter().map(|of| format!("{}: {}", of.id, of.why)).collect::<Vec<_>>()
    };
    orphans.asks(now);
    orphans.answered(&web, Ok(false), &nobody, now);
    let rest = "b: no Service shop/db is served";
    // It leaves, and so is one that is alive to everybody else.
    let leaves = here(&[("web", "1")]);
    orphans.look(&leaves, now);
    assert_eq!(list(&mut orphans), ["a: it is being removed, as somebody asked for", rest]);
    orphans.not_removed(&web, "it is protected", &leaves, now);
    orphans.not_removed(&service("db", "2"), "nobody named it", &leaves, now);
    assert_eq!(list(&mut orphans), ["a: it cannot be removed: it is protected", rest]);
    assert_eq!(orphans.removed(|_| true, &leaves, now), []);
    assert_eq!(orphans.removed(|_| false, &nobody, now), [web]);
    assert_eq!(list(&mut orphans), [rest]);
}

#[test]
fn what_is_for_several_services_is_removed_for_none() {
    let group = Shard("shop/group/edge".to_owned());
    let mut orphans = named(owned("a", &group, Some(service("web", "1")), Whom::Shard));
    assert_eq!(orphans.asks(NOW + SEEMS), BTreeSet::new());
}
