use super::*;
use crate::tests::scene::{GROUP, PUBLIC, Scene, service, settings};

fn read(texts: &[&str]) -> Result<Snapshot, SnapshotError> {
    let named = texts.iter().enumerate().map(|(number, text)| (format!("{number}.json"), (*text).to_owned()));
    Snapshot::read(&named.collect::<Vec<_>>())
}

/// As `az network` prints a resource or a part of one: without `properties`, and with the resource group.
fn flattened(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut flat = Map::new();
            for (field, value) in fields {
                match value {
                    Value::Object(inner) if field == "properties" => {
                        flat.extend(inner.iter().map(|(field, value)| (field.clone(), flattened(value))));
                    }
                    value => drop(flat.insert(field.clone(), flattened(value))),
                }
            }
            if fields.contains_key("id") {
                flat.insert("resourceGroup".to_owned(), "rg".into());
            }
            Value::Object(flat)
        }
        Value::Array(all) => Value::Array(all.iter().map(flattened).collect()),
        other => other.clone(),
    }
}

#[tokio::test(start_paused = true)]
async fn what_az_flattens_is_read_as_what_arm_says() {
    let mut scene = Scene::new();
    scene.apply(service("web", &[PUBLIC], json!({})));
    scene.apply(service("db", &[], json!({})));
    scene.rest().await;
    let mut there: Vec<Value> = scene.fake().resources().into_values().collect();
    for document in &mut there {
        // What is beside `properties` without being known for that cannot be told from what is in it.
        let rules = |list: &str| format!("/properties/{list}");
        for rule in document.pointer_mut(&rules("securityRules")).and_then(Value::as_array_mut).into_iter().flatten() {
            rule.as_object_mut().unwrap().remove("newField");
        }
        let default = document.pointer_mut(&rules("defaultSecurityRules")).and_then(Value::as_array_mut);
        for rule in default.into_iter().flatten() {
            rule["properties"] = json!({"access": "Allow"});
        }
    }
    let raw = read(&[&json!({ "value": there }).to_string()]).unwrap();
    let flat: Vec<Value> = there.iter().map(flattened).collect();
    let flat = read(&[&json!(flat).to_string()]).unwrap();
    assert_eq!(raw, flat);
    // And as single objects, in several texts, in letters of older versions.
    let texts: Vec<String> = there.iter().map(|one| flattened(one).to_string()).collect();
    let texts: Vec<String> = texts.iter().map(|text| text.replace("rivateIPAddress", "rivateIpAddress")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(read(&texts).unwrap(), raw);
    // A plan against either is that of a look.
    let wanted = scene.wanted();
    let observed = flat.observed(&settings(), &wanted);
    assert_eq!(crate::plan::plan(&settings(), &wanted, &observed).steps, []);
}

#[test]
fn what_is_no_snapshot_is_said_with_what_to_do() {
    for (text, says) in [
        ("kind: Service", "0.json is no JSON"),
        ("[1]", "0.json holds something that is no resource"),
        (r#"{"kind": "Service"}"#, "no resource of Azure's network"),
        (r#"{"id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/d"}"#, "Microsoft.Network"),
        (r#"{"value": [], "nextLink": "https://x"}"#, "0.json is not all: it has a nextLink"),
    ] {
        let error = read(&[text]).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
    assert_eq!(read(&["[]", r#"{"value": []}"#]).unwrap(), Snapshot::default());
}

#[test]
fn what_is_missing_is_told_with_what_is_made_of_it() {
    let nothing = Snapshot::default().lacks(&settings());
    assert_eq!(nothing.len(), 4, "{nothing:?}");
    assert!(nothing.iter().all(|lack| lack.contains(": add `az network ")), "{nothing:?}");
    let others = json!([
        {"id": format!("{GROUP}/networkSecurityGroups/other"), "name": "other"},
        {"id": format!("{GROUP}/virtualNetworks/other"), "name": "other"},
    ]);
    let lacks = read(&[&others.to_string()]).unwrap().lacks(&settings());
    for says in ["not prod-nsg, which so is taken not to be there", "not prod-vnet", "no load balancer"] {
        assert!(lacks.iter().any(|lack| lack.contains(says)), "{says}: {lacks:?}");
    }
}

#[test]
fn where_things_are_is_told_as_far_as_it_is_one_place() {
    let one = |kind: &str, name: &str, group: &str, more: Value| {
        let mut document = json!({"id": format!("/subscriptions/s/resourceGroups/{group}/providers/Microsoft.Network/{kind}/{name}"),
            "name": name, "location": "westeurope"});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document.to_string()
    };
    let ours = json!({"tags": {"k8s-azure-cluster-name": "prod", "berth-cluster-uid": "u"}});
    let network = one("virtualNetworks", "net", "shared", json!({"subnets": [{"name": "nodes"}]}));
    let snapshot = read(&[
        &one("loadBalancers", "prod", "nodes", ours),
        &network,
        &one("publicIPAddresses", "p", "other", json!({})),
    ])
    .unwrap();
    assert_eq!(snapshot.whereabouts(), [Some("s"), Some("nodes"), Some("westeurope")]);
    let network = snapshot.only("virtualNetworks").unwrap();
    assert_eq!((network.group.as_str(), network.name.as_str()), ("shared", "net"));
    assert_eq!(snapshot.only_subnet(&network), Some("nodes"));
    assert_eq!((snapshot.cluster(), snapshot.cluster_uid("prod")), (Some("prod"), Some("u")));
    assert_eq!(snapshot.only("networkSecurityGroups"), None);
}
