//! The lives of Services, told by what is done in the cloud and what is said of them.

use berth_provider::{Namespaces, Provider as _, Wanted};
use serde_json::{Value, json};

use super::scene::{Scene, ports, service, settings};
use crate::cloud::{Cloud as _, IpProtocol, Pairs, Rule, Source, TargetDescription, TargetState};
use crate::fake::State;
use crate::settings::Settings;

const CONSENTS: (&str, &str) = ("berth.dev/allow-replacement", "true");
const EDGE: (&str, &str) = ("berth.dev/load-balancer-group", "edge");

fn has(lines: &[String], what: &str) -> bool {
    lines.iter().any(|line| line.contains(what))
}

fn count(lines: &[String], what: &str) -> usize {
    lines.iter().filter(|line| line.contains(what)).count()
}

async fn served(annotations: &[(&str, &str)], spec: Value) -> Scene {
    let mut scene = Scene::new();
    scene.apply(service("web", annotations, spec));
    scene.rest().await;
    scene
}

/// Gives every target group this many targets.
fn targets(scene: &Scene, count: usize) {
    scene.fake.with(|state| {
        for group in state.targets.values_mut() {
            group.registered.clear();
            for number in 0..count {
                let target = TargetDescription { id: format!("i-{number:017x}"), port: 30_080, is_outside: false };
                group.registered.insert(target, (TargetState::Healthy, None));
            }
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_service_is_served_and_nothing_is_left_when_it_goes() {
    let mut scene = Scene::new();
    scene.apply(service("web", &[], json!({})));
    scene.round().await;
    assert_eq!(scene.says("web"), "Provisioning");
    scene.round().await;
    let key = scene.wanted.keys().next().unwrap().clone();
    let hostname = scene.wanted[&key].published[0].hostname.clone().unwrap();
    assert!(hostname.starts_with("berth-shop-web-"), "published as soon as it is known, without capitals: {hostname}");
    assert_eq!(scene.says("web"), "Provisioning", "and not said to work before it does");
    scene.rest().await;
    assert_eq!(scene.says("web"), hostname);
    scene.delete("web");
    let done = scene.rest().await;
    assert!(done[0].starts_with("delete the load balancer"), "{done:#?}");
    assert_eq!(scene.ours(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn each_group_of_annotations_is_changed_in_place_by_the_calls_it_takes_and_no_other() {
    let cases: Vec<(&[(&str, &str)], Value, &[&str])> = vec![
        (&[("attributes", "load_balancing.cross_zone.enabled=true")], json!({}), &["set on the load balancer"]),
        (&[("ip-address-type", "dualstack")], json!({}), &["let into the security group", "make the load balancer"]),
        (&[("subnets", "subnet-privatea,subnet-privateb-name")], json!({}), &[]),
        (&[("inbound-sg-rules-on-private-link-traffic", "off")], json!({}), &["give the load balancer"]),
        (&[("target-group-attributes", "preserve_client_ip.enabled=false")], json!({}), &["set on the target group"]),
        (&[("healthcheck-interval", "30")], json!({}), &["change the health check"]),
        (&[("listener-attributes.TCP-80", "tcp.idle_timeout.seconds=60")], json!({}), &["set on the listener 80"]),
        (&[("ssl-cert", "arn:a,arn:b")], json!({}), &["DISRUPTIVE change the listener 80", "show on the listener 80"]),
        (
            &[("additional-resource-tags", "team=a")],
            json!({}),
            &["tag the security group", "tag the target group", "tag the load balancer", "tag the listener 80"],
        ),
        (
            &[],
            json!({"loadBalancerSourceRanges": ["192.0.2.0/24"]}),
            &["let into the security group", "no more: tcp 80 from 0.0.0.0/0"],
        ),
        (&[("enable-icmp-for-path-mtu-discovery", "on")], json!({}), &["icmp 3/4 from 0.0.0.0/0"]),
        (
            &[],
            ports(&["TCP/80:30080", "UDP/53:30053"]),
            &["udp 53", "create the target group", "create the UDP listener 53"],
        ),
        (
            &[],
            ports(&["TCP/81:30080"]),
            &[
                "tcp 81",
                "create the target group",
                "delete the listener 80",
                "create the TCP listener 81",
                "delete the target group",
                "no more: tcp 80",
            ],
        ),
        (&[], json!({"ports": [{"port": 80, "nodePort": 30_999}]}), &[]),
        (&[("name", "renamed")], json!({}), &[]),
    ];
    for (annotations, spec, expected) in cases {
        let mut scene = served(&[], json!({})).await;
        scene.apply(service("web", annotations, spec.clone()));
        let done = scene.rest().await;
        assert_eq!(done.len(), expected.len(), "{annotations:?} {spec}: {done:#?}");
        for (line, what) in done.iter().zip(expected) {
            assert!(line.contains(what), "{annotations:?} {spec}: `{what}` is not in `{line}`");
        }
        // And back again; what was set and is not any more stays as it is, as ALBC has it.
        scene.apply(service("web", &[], json!({})));
        let back = scene.rest().await;
        assert!(!has(&back, "FAILED"), "{annotations:?}: {back:#?}");
        assert!(scene.says("web").ends_with("amazonaws.com"));
    }
}

#[tokio::test(start_paused = true)]
async fn another_scheme_needs_consent_and_is_there_before_the_old_one_goes() {
    let mut scene = served(&[], json!({})).await;
    let internal = scene.says("web");
    let internal_group = scene.fake.with(|state| state.targets.keys().next().unwrap().clone());
    let before = scene.ours();
    scene.apply(service("web", &[("scheme", "internet-facing")], json!({})));
    assert_eq!(scene.rest().await, [""; 0]);
    assert_eq!((scene.says("web").as_str(), scene.ours()), ("ReplacementNeeded", before), "what is there stays");
    let key = scene.wanted.keys().next().unwrap().clone();
    assert_eq!(scene.wanted[&key].published[0].hostname.as_ref(), Some(&internal));

    targets(&scene, 2);
    scene.apply(service("web", &[("scheme", "internet-facing"), CONSENTS], json!({})));
    for _ in 0..4 {
        scene.round().await;
        scene.settle().await;
    }
    assert!(has(&scene.ours(), "internal") && has(&scene.ours(), "internet-facing"));
    assert_eq!(scene.wanted[&key].published[0].hostname.as_ref(), Some(&internal), "no target is behind the new one");
    assert!(scene.message("web").contains("as soon as port 80 has a healthy target there"), "{}", scene.message("web"));
    targets(&scene, 2);
    for sick in [true, false] {
        let state = if sick { TargetState::Initial } else { TargetState::Healthy };
        scene.fake.with(|all| {
            all.targets.values_mut().filter(|of| !of.registered.is_empty()).for_each(|of| {
                let new = of.tags[crate::tags::SERVICE_UID].as_str() == "uid-of-web" && of.is.arn > internal_group;
                of.registered.values_mut().filter(|_| new).for_each(|is| *is = (state, None));
            })
        });
        scene.round().await;
        assert_eq!(
            scene.wanted[&key].published[0].hostname.as_ref() == Some(&internal),
            sick,
            "registered is not healthy"
        );
    }
    // Whoever asked DNS before still comes to the old one.
    scene.round().await;
    assert!(has(&scene.ours(), "internal ipv4"), "{:#?}", scene.ours());
    let done = scene.rest().await;
    assert_ne!(scene.says("web"), internal);
    assert!(has(&done, "delete the load balancer") && has(&done, "delete the target group"), "{done:#?}");
    assert!(!has(&scene.ours(), "internal ipv4"), "{:#?}", scene.ours());
    assert_eq!(scene.ours().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_protected_load_balancer_that_was_replaced_stays_until_the_protection_is_taken_back() {
    let mut scene = served(&[("attributes", "deletion_protection.enabled=true")], json!({})).await;
    let internal = scene.says("web");
    targets(&scene, 2);
    scene.apply(service("web", &[("scheme", "internet-facing"), CONSENTS], json!({})));
    for _ in 0..4 {
        scene.round().await;
        scene.settle().await;
    }
    targets(&scene, 2);
    scene.rest().await;
    assert_ne!(scene.says("web"), internal);
    assert!(has(&scene.ours(), "internal") && has(&scene.ours(), "internet-facing"), "{:#?}", scene.ours());
    let taken_back = ("attributes", "deletion_protection.enabled=false");
    scene.apply(service("web", &[("scheme", "internet-facing"), CONSENTS, taken_back], json!({})));
    scene.rest().await;
    assert!(!has(&scene.ours(), "internal ipv4"), "{:#?}", scene.ours());
}

#[tokio::test(start_paused = true)]
async fn another_kind_of_targets_needs_consent_and_takes_over_once_it_has_some() {
    let mut scene = served(&[], json!({})).await;
    targets(&scene, 2);
    scene.apply(service("web", &[("nlb-target-type", "ip")], json!({})));
    assert_eq!(scene.rest().await, [""; 0]);
    assert_eq!(scene.says("web"), "ReplacementNeeded");
    assert!(scene.message("web").contains("it is of instance TCP, and to be of ip TCP"), "{}", scene.message("web"));

    scene.apply(service("web", &[("nlb-target-type", "ip"), CONSENTS], json!({})));
    scene.log.clear();
    for _ in 0..3 {
        scene.round().await;
    }
    assert_eq!(scene.log.len(), 1, "{:#?}", scene.log);
    assert!(scene.message("web").contains("as soon as that has targets"));
    targets(&scene, 2);
    let done = scene.rest().await;
    assert!(done[0].starts_with("DISRUPTIVE change the listener 80"), "{done:#?}");
    assert!(done[1].starts_with("delete the target group"), "{done:#?}");
    assert_eq!(done.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_group_shares_one_load_balancer_each_with_its_own_ports() {
    let mut scene = Scene::new();
    scene.apply(service("a", &[EDGE], ports(&["TCP/1000:31000"])));
    scene.apply(service("b", &[EDGE, ("nlb-target-type", "ip")], ports(&["UDP/2000:32000"])));
    scene.rest().await;
    assert_eq!(scene.says("a"), scene.says("b"));
    assert_eq!(count(&scene.ours(), "load balancer berth"), 1);
    assert_eq!(count(&scene.ours(), "security group berth-shop"), 1);
    assert_eq!(count(&scene.ours(), "security group berth-backend"), 1);
    let before = scene.ours();

    // A port that the older one has, another scheme, and one that is refused for itself: each alone is refused.
    scene.apply(service("c", &[EDGE], ports(&["TCP/1000:31999"])));
    scene.apply(service("d", &[EDGE, ("scheme", "internet-facing")], ports(&["TCP/4000:34000"])));
    scene.apply(service("e", &[EDGE, ("scheme", "none")], ports(&["TCP/5000:35000"])));
    assert_eq!(scene.rest().await, [""; 0]);
    assert_eq!(["c", "d", "e"].map(|name| scene.says(name)), ["SharingPortTaken", "GroupDiffers", "InvalidRequest"]);
    assert!(scene.message("c").contains("is shop/a's already") && scene.message("d").contains("the scheme"));
    assert_eq!(scene.ours(), before);

    // The port is free when its holder leaves.
    scene.delete("a");
    let done = scene.rest().await;
    assert!(done[0].starts_with("delete the listener 1000"), "{done:#?}");
    assert!(has(&done, "create the TCP listener 1000"), "{done:#?}");
    assert_eq!(scene.says("c"), scene.says("b"));

    for name in ["b", "c", "d", "e"] {
        scene.delete(name);
        scene.rest().await;
    }
    assert_eq!(scene.ours(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn one_of_a_group_that_is_refused_keeps_what_it_has() {
    let mut scene = Scene::new();
    scene.apply(service("a", &[EDGE], ports(&["TCP/1000:31000"])));
    scene.apply(service("b", &[EDGE], ports(&["TCP/2000:32000"])));
    scene.rest().await;
    let before = scene.ours();
    scene.apply(service("b", &[EDGE, ("scheme", "slip")], ports(&["TCP/2000:32000"])));
    assert_eq!(scene.rest().await, [""; 0], "neither its listener nor its rule goes");
    assert_eq!(scene.ours(), before);
    scene.apply(service("a", &[EDGE], ports(&["TCP/2000:31000"])));
    scene.rest().await;
    assert_eq!(scene.says("a"), "SharingPortTaken", "its port is not free");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_disowned_leaves_everything_and_nothing_of_it_is_ours() {
    let mut scene = served(&[], json!({})).await;
    let (things, others) = (scene.ours().len(), scene.fake.dump(&scene.settings, false).len());
    scene.apply(service("web", &[("berth.dev/disown", "true"), ("scheme", "internet-facing")], json!({})));
    assert_eq!(scene.rest().await, [""; 0]);
    assert!(scene.says("web").ends_with("amazonaws.com"), "it is still published");
    scene.delete("web");
    let done = scene.rest().await;
    assert!(done.iter().all(|line| line.starts_with("untag")), "{done:#?}");
    // The security group that all load balancers have stays ours; the one that was disowned goes on being let in by it.
    assert_eq!((scene.ours().len(), scene.fake.dump(&scene.settings, false).len()), (1, others + things - 1));
    assert!(scene.ours()[0].starts_with("security group berth-backend-prod"), "{:#?}", scene.ours());
}

#[tokio::test(start_paused = true)]
async fn a_protected_load_balancer_stays_until_the_protection_is_taken_back() {
    let protected = ("attributes", "deletion_protection.enabled=true");
    for (last, goes) in
        [(vec![protected], false), (vec![], false), (vec![("attributes", "deletion_protection.enabled=false")], true)]
    {
        let mut scene = served(&[protected], json!({})).await;
        // What is asked for in the same moment in which the Service goes is not seen before.
        let key = scene.wanted.keys().next().unwrap().clone();
        scene.wanted.insert(key, service("web", &last, json!({})));
        let before = scene.ours();
        scene.delete("web");
        scene.log.clear();
        for _ in 0..3 {
            scene.round().await;
            scene.settle().await;
        }
        if goes {
            assert_eq!(scene.ours(), [""; 0]);
        } else {
            assert_eq!(scene.ours(), before);
            assert!(
                has(&scene.log, "FAILED: elasticloadbalancing:DeleteLoadBalancer: OperationNotPermitted"),
                "{:#?}",
                scene.log
            );
        }
    }
}

/// Changes something behind everybody's back.
fn interfere(what: &str, state: &mut State) {
    let set = |of: &mut Pairs, key: &str, value: &str| drop(of.insert(key.to_owned(), value.to_owned()));
    match what {
        "the load balancer is deleted" => {
            state.balancers.clear();
            state.listeners.clear();
        }
        "the target group is deleted" => {
            state.targets.clear();
            state.listeners.clear();
        }
        "the listener is deleted" => state.listeners.clear(),
        "the health check is changed" => {
            state.targets.values_mut().for_each(|t| t.is.health_check.interval = 300);
        }
        "a rule is taken away" => state.groups.values_mut().for_each(|group| group.rules.clear()),
        "a rule lets in more" => {
            let source = Source::V4("0.0.0.0/0".to_owned());
            let rule = Rule { ip_protocol: IpProtocol::Tcp, from_port: 22, to_port: 22, source, description: None };
            state.groups.values_mut().for_each(|group| group.rules.extend([rule.clone()]));
        }
        _ => {
            let balancer = state.balancers.values_mut().next().unwrap();
            match what {
                "an attribute is changed" => {
                    set(&mut balancer.attributes, "load_balancing.cross_zone.enabled", "false");
                }
                "an attribute nobody asked for" => set(&mut balancer.attributes, "zonal_shift.config.enabled", "true"),
                "a tag of somebody else's" => set(&mut balancer.tags, "external", "1"),
                "a tag that is not wanted" => set(&mut balancer.tags, "stray", "1"),
                other => panic!("{other}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_changed_is_mended_and_what_they_added_is_left() {
    for (what, steps) in [
        ("the load balancer is deleted", 3),
        ("the target group is deleted", 2),
        ("the listener is deleted", 1),
        ("the health check is changed", 1),
        ("a rule is taken away", 1),
        ("a rule lets in more", 1),
        ("an attribute is changed", 1),
        ("an attribute nobody asked for", 0),
        ("a tag of somebody else's", 0),
        ("a tag that is not wanted", 1),
    ] {
        let mut scene = Scene::with(Settings { external_tags: ["external".to_owned()].into(), ..settings() });
        scene.apply(service("web", &[("attributes", "load_balancing.cross_zone.enabled=true")], json!({})));
        scene.rest().await;
        scene.fake.with(|state| interfere(what, state));
        assert_eq!(scene.rest().await, [""; 0], "{what}: it is looked at once an hour");
        scene.an_hour_later().await;
        let mut done = scene.rest().await;
        // The first look may still name what is gone.
        done.retain(|line| !line.contains("NotFound"));
        assert_eq!(done.len(), steps, "{what}: {done:#?}");
        assert!(scene.plan().await.is_empty(), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_somebody_made_by_hand_is_not_touched_and_its_port_is_taken() {
    let mut scene = served(&[], json!({})).await;
    let (arn, target) =
        scene.fake.with(|s| (s.balancers.keys().next().unwrap().clone(), s.targets.keys().next().unwrap().clone()));
    let settings = scene.fake.with(|s| s.listeners.values().next().unwrap().is.settings.clone());
    assert_eq!(settings.target_group_arn, target);
    scene.fake.create_listener(&arn, 9999, &settings, &Pairs::new()).await.unwrap();
    scene.apply(service("web", &[], ports(&["TCP/9999:30080"])));
    let done = scene.rest().await;
    assert_eq!(done, [""; 0]);
    assert_eq!(scene.says("web"), "SharingPortTaken");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_somebody_else_has_is_not_taken_from_them() {
    let mut scene = Scene::new();
    scene.apply(service("first", &[("name", "mine")], json!({})));
    scene.rest().await;
    scene.apply(service("second", &[("name", "mine")], json!({})));
    assert_eq!(scene.rest().await, [""; 0]);
    assert_eq!(scene.says("second"), "CloudNameTaken");
    // Somebody made one as we would in the moment between the look and the call: AWS answers with theirs.
    let mut scene = Scene::new();
    scene.apply(service(
        "web",
        &[
            ("name", "mine"),
            ("disable-nlb-sg", "true"),
            ("manage-backend-security-group-rules", "false"),
            ("subnets", "subnet-privatea"),
        ],
        json!({}),
    ));
    let intent = scene.wanted.values().next().unwrap().clone();
    let shard = scene.provider.shard(&intent);
    let wanted = Wanted { present: [(intent.id.key.clone(), intent)].into(), ..Wanted::default() };
    let mut observed = scene.provider.observe(&shard, &wanted).await.unwrap();
    let plan = scene.provider.plan(&wanted, &observed);
    let theirs = plan.steps.iter().find_map(|planned| match &planned.step {
        crate::step::Step::CreateLoadBalancer { new, .. } => Some(new.clone()),
        _ => None,
    });
    let theirs = crate::cloud::NewLoadBalancer { tags: Pairs::new(), ..theirs.unwrap() };
    scene.fake.create_load_balancer(&theirs).await.unwrap();
    let carried = berth_provider::carry_out(&scene.provider, &shard, &plan, &mut observed, || true).await;
    assert_eq!(carried.failures.values().next().unwrap().reason, berth_api::Reason::CloudNameTaken);
    assert_eq!(scene.fake.with(|s| s.listeners.len()), 0, "no listener on theirs");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_has_no_more_load_balancers_than_it_may() {
    let mut settings = settings();
    settings.admission.load_balancers_per_namespace = Some(2);
    let mut scene = Scene::with(settings);
    for name in ["a", "b", "c"] {
        scene.apply(service(name, &[], json!({})));
    }
    scene.rest().await;
    assert_eq!(scene.says("c"), "CloudLimit");
    assert_eq!(count(&scene.ours(), "load balancer berth"), 2);
    // One that takes another's place is no more than there was.
    scene.apply(service("a", &[("scheme", "internet-facing"), CONSENTS], json!({})));
    scene.rest().await;
    assert!(scene.says("a").ends_with("amazonaws.com"));
    scene.delete("b");
    scene.rest().await;
    scene.rest().await;
    assert!(scene.says("c").ends_with("amazonaws.com"));
}

#[tokio::test(start_paused = true)]
async fn what_aws_answers_is_said_once_and_in_its_words() {
    for (code, reason) in [
        ("AccessDenied", "PermissionDenied"),
        ("TooManyLoadBalancers", "CloudLimit"),
        ("Throttling", "ProviderThrottled"),
        ("ValidationError", "InvalidRequest"),
    ] {
        let mut scene = Scene::new();
        scene.apply(service("web", &[], json!({})));
        scene.fake.with(|state| state.answers = Some(code));
        scene.round().await;
        assert!(
            scene.log.iter().any(|line| line.contains(&format!("FAILED: ec2:CreateSecurityGroup: {code}"))),
            "{:#?}",
            scene.log
        );
        let failure = berth_provider::Failure::from(crate::cloud::CallError::new("ec2:CreateSecurityGroup", code, ""));
        assert_eq!(failure.reason.to_string(), reason);
        // A write that failed ends it: nothing is tried that rests on it.
        assert!(!scene.fake.with(|state| state.calls.contains_key("elasticloadbalancing:CreateLoadBalancer")));
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_a_zone_needs_consent() {
    let both = ("subnets", "subnet-privatea,subnet-privateb");
    let mut scene = served(&[both], json!({})).await;
    scene.apply(service("web", &[("subnets", "subnet-privatea")], json!({})));
    assert_eq!(scene.rest().await, [""; 0]);
    assert_eq!(scene.says("web"), "ReplacementNeeded");
    assert!(scene.message("web").contains("would leave subnet-privateb"), "{}", scene.message("web"));
    scene.apply(service("web", &[("subnets", "subnet-privatea"), CONSENTS], json!({})));
    let done = scene.rest().await;
    assert!(done[0].starts_with("DISRUPTIVE put the load balancer") && done.len() == 1, "{done:#?}");
    scene.apply(service("web", &[both], json!({})));
    let done = scene.rest().await;
    assert!(
        done[0].starts_with("put the load balancer") && done.len() == 1,
        "one zone more interrupts nothing: {done:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_made_again_under_its_name_gets_another_load_balancer() {
    let mut scene = served(&[], json!({})).await;
    let first = scene.says("web");
    scene.delete("web");
    let mut again = service("web", &[], json!({}));
    again.id.uid = "another".to_owned();
    scene.apply(again);
    scene.rest().await;
    assert_ne!(scene.says("web"), first);
    assert_eq!(scene.ours().len(), 5, "{:#?}", scene.ours());
}

#[tokio::test(start_paused = true)]
async fn a_service_is_made_with_few_calls_and_a_look_at_what_is_at_rest_makes_no_more_than_it_must() {
    let mut scene = served(&[], json!({})).await;
    let calls = |scene: &Scene| scene.fake.with(|state| state.calls.values().sum::<u64>());
    // Another Service of the same cluster: what was learned of all is known.
    let before = calls(&scene);
    scene.apply(service("next", &[], json!({})));
    let steps = scene.plan().await.len() as u64;
    assert_eq!((steps, calls(&scene) - before), (5, 1), "subnets alone are there to be looked at");
    scene.rest().await;
    assert_eq!(calls(&scene) - before, 1 + 5 + 1, "and then it is asked how far the load balancer has come");
    let before = calls(&scene);
    scene.plan().await;
    assert_eq!(calls(&scene) - before, 0, "what was done is known");
    scene.apply(service("next", &[("healthcheck-interval", "30")], json!({})));
    scene.rest().await;
    assert_eq!(calls(&scene) - before, 9 + 1, "a change is a reason to look at that Service alone, once");
    let before = calls(&scene);
    scene.delete("next");
    scene.rest().await;
    assert_eq!(
        calls(&scene) - before,
        3 + 2,
        "load balancer, target group and security group, which is in use for a moment"
    );
    scene.an_hour_later().await;
    let before = calls(&scene);
    scene.plan().await;
    let looked = calls(&scene) - before;
    assert_eq!(looked, 9 + 4, "within the hour everything is looked at, once in depth, and what there is once for all");
}

#[tokio::test(start_paused = true)]
async fn nothing_that_aws_refuses_keeps_a_port_open_to_who_is_not_to_reach_it_any_more() {
    let mut scene = served(&[], json!({})).await;
    scene.fake.with(|state| state.refuses.insert("elasticloadbalancing:ModifyTargetGroup", "AccessDenied"));
    scene.apply(service(
        "web",
        &[("healthcheck-interval", "30")],
        json!({"loadBalancerSourceRanges": ["192.0.2.0/24"]}),
    ));
    scene.round().await;
    let rules = scene.fake.with(|state| {
        let own = state.groups.values().find(|group| group.name.starts_with("berth-shop-web"));
        own.unwrap().rules.iter().map(ToString::to_string).collect::<Vec<_>>()
    });
    assert_eq!(rules, ["tcp 80 from 192.0.2.0/24"], "{:#?}", scene.log);
}

#[tokio::test(start_paused = true)]
async fn no_admission_no_public_load_balancer() {
    let mut settings = settings();
    settings.admission.internet_facing = Namespaces::default();
    let mut scene = Scene::with(settings);
    scene.apply(service("web", &[("scheme", "internet-facing")], json!({})));
    assert_eq!(scene.rest().await, [""; 0]);
    assert_eq!(scene.says("web"), "CloudNotAdmitted");
}

#[tokio::test(start_paused = true)]
async fn everything_is_swept_again_only_after_a_call_whose_outcome_is_not_known() {
    for (answer, sweeps) in
        [("Throttling", 1), ("AccessDenied", 1), ("ValidationError", 1), ("", 2), ("DependencyViolation", 2)]
    {
        let mut scene = Scene::new();
        scene.apply(service("web", &[], json!({})));
        scene.fake.with(|state| state.answers = Some(answer));
        scene.round().await;
        scene.round().await;
        let swept = scene.fake.with(|state| state.calls["elasticloadbalancing:DescribeTargetGroups"]);
        assert_eq!(swept, sweeps, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_service_of_a_group_does_not_take_the_port_that_a_younger_one_has() {
    let mut scene = Scene::new();
    scene.apply(service("c", &[EDGE], ports(&["TCP/53:30053", "TCP/80:30080"])));
    scene.rest().await;
    // Made earlier, put into the group later, and of another protocol, so it is another listener.
    scene.apply(service("a", &[EDGE], ports(&["UDP/53:30054"])));
    assert_eq!(scene.rest().await, [""; 0], "what is there is left alone");
    assert_eq!(scene.says("a"), "SharingPortTaken");
    assert!(scene.says("c").starts_with("berth-shop-edge-"));
    // As soon as the younger one gives it up the older one has it.
    scene.apply(service("c", &[EDGE], ports(&["TCP/80:30080"])));
    let done = scene.rest().await;
    assert!(has(&done, "create the UDP listener 53"), "{done:#?}");
    assert!(scene.says("a").starts_with("berth-shop-edge-"));
}
