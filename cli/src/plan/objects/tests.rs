use serde_json::{Value, json};

use super::super::files::Source;
use super::super::load::load;
use super::*;
use crate::report::Unreadable;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// A cluster of these Services and Namespaces, with what Berth has in it.
fn cluster(services: &[Value]) -> Everything {
    let read = |value: Value| serde_json::from_value(value).unwrap();
    Everything {
        services: Seen::Here(services.iter().cloned().map(read).collect()),
        namespaces: Seen::Here(vec![serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap()]),
        service_cidrs: Seen::Here(vec![]),
        nodes: Seen::Here(vec![]),
        slices: Seen::Here(vec![
            serde_json::from_value(json!({
                "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4", "endpoints": [],
            }))
            .unwrap(),
        ]),
        announcements: Seen::Here(vec![]),
        pools: Seen::Here(vec![
            serde_json::from_value(json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "IPAddressPool",
                "metadata": {"name": "office", "uid": "uid-office", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"addresses": ["192.0.2.1"]}, "status": {"assignedIPv4": 1},
            }))
            .unwrap(),
        ]),
        advertisements: Seen::Here(vec![]),
        route_advertisements: Seen::Here(vec![]),
        speakers: Seen::Here(vec![]),
        controller: Seen::KindMissing,
    }
}

fn live(spec: Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-web", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    })
}

fn lay(objects: &mut Objects, text: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let source = Source { name: "edit.yaml".to_owned(), text: text.to_owned() };
    for object in load(&source, "shop", &mut notes).unwrap() {
        objects.lay(object, &mut notes);
    }
    objects.fill_in_families(&mut notes);
    notes
}

/// The Service `web` after an edit of its specification.
fn edited(cluster: Everything, spec: &str) -> (Value, Vec<String>) {
    let mut objects = Objects::of_cluster(cluster, NOW, &mut Vec::new()).unwrap();
    let notes = lay(&mut objects, &format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {spec}\n"));
    let web = &objects.services[&("shop".to_owned(), "web".to_owned())];
    (serde_json::to_value(web).unwrap(), notes)
}

#[test]
fn what_the_api_server_fills_in_and_a_file_leaves_out_stays() {
    let was = live(json!({
        "type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv6"],
        "ipFamilyPolicy": "SingleStack", "loadBalancerIP": "192.0.2.1",
    }));
    let (web, notes) = edited(cluster(&[was]), "{type: LoadBalancer}");
    assert_eq!(notes, [""; 0]);
    for (field, expected) in [
        ("/metadata/uid", json!("uid-web")),
        ("/metadata/creationTimestamp", json!("2026-01-01T00:00:00Z")),
        ("/spec/ipFamilies", json!(["IPv6"])),
        ("/spec/clusterIP", json!("10.0.0.1")),
        ("/status/loadBalancer/ingress/0/ip", json!("192.0.2.1")),
    ] {
        assert_eq!(web.pointer(field), Some(&expected), "{field}");
    }
    // What people write is as the file has it.
    assert_eq!(web.pointer("/spec/loadBalancerIP"), None);
}

#[test]
fn a_service_has_the_families_that_the_api_server_would_give_it() {
    let kubernetes = |families: Value| json!({"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"ipFamilies": families}});
    let dual =
        |name: &str| json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"ipFamilies": ["IPv6", "IPv4"]}});
    let (one, both) = (
        live(json!({"ipFamilies": ["IPv4"]})),
        live(json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"})),
    );
    for (services, spec, expected) in [
        (vec![kubernetes(json!(["IPv6"]))], "{type: LoadBalancer}", json!(["IPv6"])),
        (vec![kubernetes(json!(["IPv6"]))], "{ipFamilies: [IPv4]}", json!(["IPv4"])),
        (vec![kubernetes(json!(["IPv6"]))], "{ipFamilyPolicy: PreferDualStack}", json!(["IPv6"])),
        (vec![kubernetes(json!(["IPv6"])), dual("d")], "{ipFamilyPolicy: PreferDualStack}", json!(["IPv6", "IPv4"])),
        (vec![dual("d"), one.clone()], "{ipFamilyPolicy: PreferDualStack}", json!(["IPv4", "IPv6"])),
        (vec![one.clone()], "{ipFamilyPolicy: PreferDualStack}", json!(["IPv4"])),
        (vec![both.clone()], "{ipFamilyPolicy: SingleStack}", json!(["IPv4"])),
        (vec![both], "{}", json!(["IPv4", "IPv6"])),
        (vec![], "{type: LoadBalancer}", Value::Null),
    ] {
        let (web, _) = edited(cluster(&services), spec);
        assert_eq!(web.pointer("/spec/ipFamilies").cloned().unwrap_or_default(), expected, "{services:?} {spec}");
    }
}

/// The families of the Service `web`, from files that are everything there is, and the notes.
fn offline(files: &str) -> (Value, Vec<String>) {
    let mut objects = Objects::of_nothing(NOW);
    let notes = lay(&mut objects, files);
    let web = serde_json::to_value(&objects.services[&("shop".to_owned(), "web".to_owned())]).unwrap();
    (web.pointer("/spec/ipFamilies").cloned().unwrap_or_default(), notes)
}

#[test]
fn offline_a_dual_stack_service_is_taken_for_one_unless_the_files_tell_otherwise() {
    let web = |spec: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{{spec}}}\n---\n");
    let ranges = |ranges: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {{name: kubernetes}}\nspec: {{cidrs: [{ranges}]}}\n---\n"
        )
    };
    let kubernetes = "apiVersion: v1\nkind: Service\nmetadata: {name: kubernetes, namespace: default}\nspec: {ipFamilies: [IPv6]}\n---\n";
    let got_one = "apiVersion: v1\nkind: Service\nmetadata: {name: got}\n\
                   spec: {ipFamilyPolicy: PreferDualStack, clusterIP: 10.0.0.9, ipFamilies: [IPv4]}\n---\n";
    let (prefer, require) = ("ipFamilyPolicy: PreferDualStack", "ipFamilyPolicy: RequireDualStack");
    let both = json!(["IPv4", "IPv6"]);
    for (files, expected, noted) in [
        (web(prefer), both.clone(), true),
        (web(require), both.clone(), true),
        (web(&format!("{prefer}, ipFamilies: [IPv6]")), json!(["IPv6", "IPv4"]), true),
        (web("ipFamilyPolicy: SingleStack"), Value::Null, false),
        (web("type: LoadBalancer"), Value::Null, false),
        (web(prefer) + kubernetes, json!(["IPv6", "IPv4"]), true),
        (web(prefer) + kubernetes + &ranges("'2001:db8::/108', 10.0.0.0/16"), json!(["IPv6", "IPv4"]), false),
        (web(prefer) + &ranges("10.0.0.0/16, '2001:db8::/108'"), both.clone(), true),
        (web(prefer) + kubernetes + &ranges("'2001:db8::/108'"), json!(["IPv6"]), false),
        (web(prefer) + got_one, Value::Null, false),
        // It was made, and got what there was.
        (web(&format!("{prefer}, clusterIP: 10.0.0.1, ipFamilies: [IPv4]")), json!(["IPv4"]), false),
    ] {
        let (families, notes) = offline(&files);
        assert_eq!(families, expected, "{files}");
        assert_eq!(
            notes.iter().any(|note| note.contains("Service shop/web: which families")),
            noted,
            "{files}{notes:?}"
        );
    }
}

#[test]
fn a_class_that_cannot_be_changed_is_planned_as_it_is_and_told() {
    for (was, spec, class, told) in [
        (json!({"type": "LoadBalancer"}), "{type: LoadBalancer, loadBalancerClass: a/b}", Value::Null, true),
        (json!({"type": "LoadBalancer", "loadBalancerClass": "a/b"}), "{type: LoadBalancer}", json!("a/b"), true),
        (
            json!({"type": "LoadBalancer", "loadBalancerClass": "a/b"}),
            "{type: LoadBalancer, loadBalancerClass: a/b}",
            json!("a/b"),
            false,
        ),
        (json!({"type": "ClusterIP"}), "{type: LoadBalancer, loadBalancerClass: a/b}", json!("a/b"), false),
        (json!({"type": "LoadBalancer", "loadBalancerClass": "a/b"}), "{type: ClusterIP}", Value::Null, false),
    ] {
        let (web, notes) = edited(cluster(&[live(was.clone())]), spec);
        assert_eq!(web.pointer("/spec/loadBalancerClass").cloned().unwrap_or_default(), class, "{was} {spec}");
        assert_eq!(notes.iter().any(|note| note.contains("cannot be changed")), told, "{was} {spec}");
    }
}

#[test]
fn a_status_is_the_clusters_for_services_and_the_files_for_what_has_none_there() {
    let mut objects = Objects::of_cluster(cluster(&[live(json!({}))]), NOW, &mut Vec::new()).unwrap();
    lay(
        &mut objects,
        "
{apiVersion: v1, kind: Service, metadata: {name: web}, status: {loadBalancer: {ingress: [{ip: 192.0.2.9}]}}}
---
{apiVersion: v1, kind: Service, metadata: {name: new}, status: {loadBalancer: {ingress: [{ip: 192.0.2.9}]}}}
---
{apiVersion: berth.dev/v1alpha1, kind: IPAddressPool, metadata: {name: office}, spec: {addresses: [192.0.2.2]}}
",
    );
    let told: Vec<_> =
        objects.places().into_iter().map(|(key, places)| format!("{key} {}", places.join(" "))).collect();
    assert_eq!(told, ["shop/new ", "shop/web 192.0.2.1"]);
    let pool = &objects.pools["office"];
    assert_eq!(pool.status.as_ref().unwrap().assigned_ipv4, Some(1));
    assert_eq!(
        (pool.metadata.uid.as_deref(), &pool.spec.addresses[..]),
        (Some("uid-office"), &["192.0.2.2".to_owned()][..])
    );
}

#[test]
fn in_files_alone_a_later_object_takes_the_place_of_an_earlier_one_and_has_its_status() {
    let mut objects = Objects::of_nothing(NOW);
    lay(
        &mut objects,
        "
{apiVersion: v1, kind: Service, metadata: {name: web}, status: {loadBalancer: {ingress: [{ip: 192.0.2.9}]}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {loadBalancerIP: 192.0.2.8}}
",
    );
    let (key, web) = objects.services().next().unwrap();
    assert_eq!(web.spec.as_ref().unwrap().load_balancer_ip.as_deref(), Some("192.0.2.8"));
    assert_eq!(objects.places()[&key], ["192.0.2.9"]);
}

#[test]
fn what_is_new_is_younger_than_all_that_there_is() {
    let mut objects = Objects::of_cluster(cluster(&[]), NOW, &mut Vec::new()).unwrap();
    lay(
        &mut objects,
        "{apiVersion: berth.dev/v1alpha1, kind: IPAddressPool, metadata: {name: a}, spec: {addresses: [192.0.2.1]}}",
    );
    assert_eq!(objects.pools["a"].metadata.creation_timestamp, Some(Time(NOW)));
}

#[test]
fn what_is_deleted_takes_what_is_in_it_along() {
    for (removal, services, slices, namespaces, pools) in [
        ("service/web", 0, 0, 1, 1),
        ("svc/shop/web", 0, 0, 1, 1),
        ("ns/shop", 0, 0, 0, 1),
        ("ipaddresspools.berth.dev/office", 1, 1, 1, 0),
        ("endpointslice/web-1", 1, 0, 1, 1),
    ] {
        let mut objects = Objects::of_cluster(cluster(&[live(json!({}))]), NOW, &mut Vec::new()).unwrap();
        objects.remove(&removal.parse().unwrap(), "shop").unwrap();
        let left = (objects.services.len(), objects.slices.len(), objects.namespaces.len(), objects.pools.len());
        assert_eq!(left, (services, slices, namespaces, pools), "{removal}");
    }
}

#[test]
fn what_cannot_be_deleted_is_told() {
    let mut objects = Objects::of_cluster(cluster(&[]), NOW, &mut Vec::new()).unwrap();
    for (removal, says) in [
        ("office", "`office` names no object; write KIND/NAME"),
        ("service/", "`service/` names no object"),
        ("service//web", "`service//web` names no object"),
        ("node/a/b", "`node/a/b` names no object"),
        ("deployment/web", "`deployment` is no kind that an address depends on"),
        ("service/web", "--delete: there is no Service web in namespace shop; correct the name"),
        ("ipap/gold", "--delete: there is no IPAddressPool gold; correct the name"),
    ] {
        let error = removal.parse::<Removal>().and_then(|removal| objects.remove(&removal, "shop")).unwrap_err();
        assert!(error.to_string().starts_with(says), "{error}");
    }
}

#[test]
fn without_a_part_of_a_cluster_there_is_no_plan() {
    let why = Unreadable { resource: "nodes".to_owned(), message: "forbidden".to_owned() };
    let all = Everything { nodes: Seen::Unreadable(why), ..cluster(&[]) };
    let error = Objects::of_cluster(all, NOW, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().ends_with("some of it could not be read: nodes: forbidden"), "{error}");
}

#[test]
fn a_cluster_without_berth_is_planned_as_if_it_were_there() {
    let mut notes = Vec::new();
    let objects =
        Objects::of_cluster(Everything { pools: Seen::KindMissing, ..cluster(&[]) }, NOW, &mut notes).unwrap();
    assert_eq!(objects.pools.len(), 0);
    assert!(notes[0].contains("does not know Berth's kinds"), "{notes:?}");
}

#[test]
fn files_that_leave_out_who_holds_what_are_told() {
    for (text, says) in [
        (
            "{apiVersion: v1, kind: Service, metadata: {name: web}, status: {loadBalancer: {ingress: [{ip: 192.0.2.9}]}}}",
            "no Announcement",
        ),
        (
            "{apiVersion: berth.dev/v1alpha1, kind: IPAddressPool, metadata: {name: a}, spec: {addresses: [192.0.2.1]}}",
            "no Node",
        ),
    ] {
        let mut objects = Objects::of_nothing(NOW);
        lay(&mut objects, text);
        let notes = objects.what_is_missing();
        assert!(notes.len() == 1 && notes[0].contains(says), "{notes:?}");
    }
    assert_eq!(Objects::of_nothing(NOW).what_is_missing(), [""; 0]);
}
