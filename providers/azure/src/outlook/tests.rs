use super::*;
use crate::tests::scene::{PUBLIC, Scene, base, key, ports, service, settings};

fn said(outlook: &Outlook) -> Vec<String> {
    let line = |round, d: &Difference| format!("{round} {} {} {}", d.change.as_str(), d.resource(), d.name);
    outlook.steps.iter().flat_map(|f| f.differences.iter().map(move |d| line(f.round, d))).collect()
}

#[test]
fn without_a_cloud_everything_is_made_in_the_order_in_which_it_is_needed() {
    let outlook = forecast(&settings(), None, vec![service("web", &[PUBLIC], json!({}))], Vec::new(), |_| false);
    let base = base("web");
    let rule = "k8s-azure-lb_allow_IPv4_d39272f7f57ed937951650d93992ad77";
    let expected = [
        format!("1 create public IP prod-{base}"),
        format!("2 create security rule {rule}"),
        "2 create load balancer prod".to_owned(),
        format!("2 create frontend {base}"),
        "2 create backend pool prod".to_owned(),
        format!("2 create probe {base}-TCP-80"),
        format!("2 create rule {base}-TCP-80"),
    ];
    assert_eq!(said(&outlook), expected);
    assert!(!outlook.endless);
    let text = serde_json::to_string(&outlook.steps.iter().map(|f| &f.planned.step).collect::<Vec<_>>()).unwrap();
    assert!(!text.contains("240.0."), "stand-ins are not shown: {text}");
    assert!(text.contains(&format!("\"destinationAddressPrefixes\":[\"<address of prod-{base}>\"]")), "{text}");
}

/// What a plan foresees is what a provider does: the same documents, the names of what Azure gives aside.
async fn is_what_happens(scene: &mut Scene, changes: impl FnOnce(&mut Scene)) -> Outlook {
    let there: Vec<Value> = scene.fake().resources().into_values().collect();
    let snapshot = Snapshot::read(&[("there".to_owned(), json!(there).to_string())]).unwrap();
    changes(scene);
    let wanted = scene.wanted();
    let present = wanted.present.into_values().collect();
    let outlook =
        forecast(&scene.settings, Some(&snapshot), present, wanted.leaving.into_values().collect(), |_| false);
    scene.rest().await;
    let mut after = BTreeMap::new();
    for foreseen in &outlook.steps {
        match &foreseen.planned.step {
            Step::Put { id, body, .. } => after.insert(id.clone(), Some(body)),
            Step::Delete { id, .. } => after.insert(id.clone(), None),
            Step::Wait { .. } => None,
        };
    }
    let there = scene.fake().resources();
    for (id, body) in after {
        let real = there.iter().find(|(is, _)| Id::new(is.as_str()) == id).map(|(_, document)| document);
        let names = |document: &Value, list: &str| {
            crate::document::parts(document, list).iter().map(|p| name(p).to_owned()).collect::<BTreeSet<_>>()
        };
        assert_eq!(body.is_some(), real.is_some(), "{id}");
        for list in ["frontendIPConfigurations", "loadBalancingRules", "probes", "backendAddressPools", "securityRules"]
        {
            let (body, real) = (body.unwrap_or(&Value::Null), real.unwrap_or(&Value::Null));
            assert_eq!(names(body, list), names(real, list), "{list} of {id}");
        }
    }
    outlook
}

#[tokio::test(start_paused = true)]
async fn what_is_foreseen_against_a_snapshot_is_what_happens() {
    let mut scene = Scene::new();
    let made = is_what_happens(&mut scene, |scene| {
        scene.apply(service("web", &[PUBLIC], json!({})));
        scene.apply(service("db", &[("azure-load-balancer-ipv4", "10.0.0.9")], json!({})));
    })
    .await;
    assert!(!made.steps.is_empty());
    let still = is_what_happens(&mut scene, |_| {}).await;
    assert_eq!(said(&still), Vec::<String>::new(), "nothing changes");
    let ports = ports(&["TCP/81:30081"]);
    let edited = is_what_happens(&mut scene, |scene| scene.apply(service("web", &[PUBLIC], ports))).await;
    let expected: &[&str] = &["create rule", "delete rule", "create probe", "delete probe"];
    assert!(expected.iter().all(|word| said(&edited).iter().any(|line| line.contains(word))), "{:?}", said(&edited));
    let internal = is_what_happens(&mut scene, |scene| scene.apply(service("web", &[], json!({})))).await;
    let lines = said(&internal);
    let first = |word: &str| lines.iter().position(|line| line.contains(word)).unwrap_or(usize::MAX);
    assert!(first("create frontend") < first("delete frontend"), "{lines:?}");
    assert!(lines.last().is_some_and(|line| line.contains("delete public IP")), "{lines:?}");
    let deleted = is_what_happens(&mut scene, |scene| {
        scene.delete("web");
        scene.delete("db");
    })
    .await;
    assert!(said(&deleted).iter().all(|line| line.contains(" delete ")), "{:?}", said(&deleted));
    assert!(said(&deleted).iter().any(|line| line.ends_with("delete load balancer prod-internal")));
}

#[test]
fn who_is_refused_is_told_why_and_takes_no_step() {
    let bad = service("web", &[("azure-pls-create", "true")], json!({}));
    let outlook = forecast(&settings(), None, vec![bad], Vec::new(), |_| false);
    assert_eq!(said(&outlook), Vec::<String>::new());
    let said = &outlook.outcomes[&key("web")].conditions[0];
    assert_eq!(said.reason, berth_api::Reason::Unsupported);
}

#[test]
fn an_address_that_is_asked_for_is_taken_to_exist_where_nobody_looked() {
    let annotations = [PUBLIC, ("azure-load-balancer-ipv4", "20.0.0.9")];
    let outlook = forecast(&settings(), None, vec![service("web", &annotations, json!({}))], Vec::new(), |_| false);
    assert!(outlook.outcomes[&key("web")].met, "{:?}", outlook.outcomes);
    assert!(!said(&outlook).iter().any(|line| line.contains("public IP")), "{:?}", said(&outlook));
    assert!(outlook.given.is_empty());
}

#[test]
fn rules_for_nodes_are_told_to_be_in_no_plan() {
    let direct = service("a", &[PUBLIC], json!({}));
    let translated = service("b", &[PUBLIC, ("azure-disable-load-balancer-floating-ip", "true")], json!({}));
    let unruled =
        [PUBLIC, ("azure-disable-load-balancer-floating-ip", "true"), ("azure-disable-load-balancer-nsg-rule", "true")];
    let unruled = service("c", &unruled, json!({}));
    let outlook = forecast(&settings(), None, vec![direct, translated, unruled], Vec::new(), |_| false);
    assert_eq!(outlook.by_node, BTreeSet::from([key("b")]));
}

#[test]
fn a_word_is_replaced_only_where_it_stands_alone() {
    for (text, expected) in [
        ("to 240.0.0.1,240.0.0.10", "to <x>,240.0.0.10"),
        ("100::1 100::1a 100::1:2", "100::1 100::1a 100::1:2"),
        ("240.0.0.1", "<x>"),
    ] {
        assert_eq!(replaced(text, "240.0.0.1", "<x>"), expected);
    }
}

#[test]
fn a_service_without_a_uid_is_named_by_its_key_wherever_its_uid_would_be() {
    let unborn = |name: &str| {
        let mut intent = service(name, &[PUBLIC], json!({}));
        intent.id.uid = format!("planned/{name}");
        intent
    };
    // Names that are cut are not the same for the two.
    let long = "n".repeat(50);
    let (one, other) = (format!("{long}1"), format!("{long}2"));
    let present = vec![unborn("web"), unborn(&one), unborn(&other)];
    let outlook = forecast(&settings(), None, present, Vec::new(), |uid| uid.starts_with("planned"));
    let lines = said(&outlook);
    for name in ["web", &one, &other] {
        assert!(lines.contains(&format!("2 create rule <shop/{name}>-TCP-80")), "{lines:?}");
        assert!(outlook.outcomes[&key(name)].conditions[0].message.contains(&format!("the frontend <shop/{name}> of")));
    }
    let text = format!(
        "{:?}",
        outlook.steps.iter().map(|f| serde_json::to_string(&f.planned.step).unwrap()).collect::<Vec<_>>()
    );
    assert!(text.contains("<UID of shop/web>") && !text.contains(&names::base(&names::stand_in_uid("shop/web"))));
}
