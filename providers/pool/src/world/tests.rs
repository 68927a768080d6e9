use std::sync::Arc;

use super::*;

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".to_owned(), name: name.to_owned() }
}

fn slice(service: &str, family: IpFamily, nodes: &[&str]) -> SliceView {
    SliceView { service: key(service), family, serving: nodes.iter().map(|node| Arc::from(*node)).collect() }
}

#[test]
fn a_service_is_served_where_its_own_slices_of_the_family_say() {
    use IpFamily::{V4, V6};
    let mut world = World::default();
    let mut learn = |name: &str, view| {
        world.learn(Change::Slice(("shop".to_owned(), name.to_owned()), view));
        let serving = |name, family| world.serving(&key(name), family).into_iter().collect::<Vec<_>>().join(" ");
        [serving("web", V4), serving("web", V6), serving("web-2", V4)]
    };
    for (what, name, view, serving) in [
        ("one", "web-a", Some(slice("web", V4, &["b", "a"])), ["a b", "", ""]),
        ("another, which sorts between", "web-2-a", Some(slice("web-2", V4, &["c"])), ["a b", "", "c"]),
        ("a second one", "web-b", Some(slice("web", V4, &["a", "d"])), ["a b d", "", "c"]),
        ("the other family", "web-c", Some(slice("web", V6, &["e"])), ["a b d", "e", "c"]),
        ("other nodes", "web-a", Some(slice("web", V4, &["a"])), ["a d", "e", "c"]),
        ("of another Service now", "web-b", Some(slice("web-2", V4, &["a", "d"])), ["a", "e", "a c d"]),
        ("gone", "web-2-a", None, ["a", "e", "a d"]),
        ("no slice of a Service any more", "web-b", None, ["a", "e", ""]),
        ("never known", "web-z", None, ["a", "e", ""]),
    ] {
        assert_eq!(learn(name, view), serving, "{what}");
    }
    assert_eq!((world.slices.len(), world.slices_of.len()), (2, 2), "the two maps know the same");
}
