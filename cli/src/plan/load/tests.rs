use kube::Resource as _;

use super::*;

fn source(text: &str) -> Source {
    Source { name: "world.yaml".to_owned(), text: text.to_owned() }
}

/// `Kind namespace/name` of each object, and the notes.
fn read(text: &str) -> Result<(Vec<String>, Vec<String>), LoadError> {
    let mut notes = Vec::new();
    let objects = load(&source(text), "shop", &mut notes)?;
    let told = objects.iter().map(|object| {
        let (kind, meta) = match object {
            Object::Service(o) => ("Service", o.meta()),
            Object::Namespace(o) => ("Namespace", o.meta()),
            Object::ServiceCidr(o) => ("ServiceCIDR", o.meta()),
            Object::Node(o) => ("Node", o.meta()),
            Object::Slice(o) => ("EndpointSlice", o.meta()),
            Object::Announcement(o) => ("Announcement", o.meta()),
            Object::Pool(o) => ("IPAddressPool", o.meta()),
            Object::Advertisement(o) => ("L2Advertisement", o.meta()),
            Object::RouteAdvertisement(o) => ("RouteAdvertisement", o.meta()),
            Object::SpeakerNode(o) => ("SpeakerNode", o.meta()),
        };
        let namespace = meta.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("{kind} {namespace}{}", meta.name.as_deref().unwrap_or_default())
    });
    Ok((told.collect(), notes))
}

#[test]
fn objects_are_read_from_yaml_json_and_lists() {
    let web = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";
    let pool = "apiVersion: berth.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {name: office}\nspec: {addresses: [192.0.2.1]}\n";
    for (text, expected) in [
        (String::new(), &[][..]),
        ("# nothing\n---\n".to_owned(), &[]),
        (web.to_owned(), &["Service shop/web"]),
        (format!("---\n{web}---\n# no object\n---\n{pool}"), &["Service shop/web", "IPAddressPool office"]),
        (
            r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "other"}}"#.to_owned(),
            &["Service other/web"],
        ),
        (
            r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}} {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "b"}}"#
                .to_owned(),
            &["Node a", "Node b"],
        ),
        (
            r#"{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}]}"#
                .to_owned(),
            &["Namespace shop"],
        ),
        // As `kubectl get --raw` has it: the items do not say what they are.
        (
            "apiVersion: berth.dev/v1alpha1\nkind: L2AdvertisementList\nitems:\n- metadata: {name: all}\n".to_owned(),
            &["L2Advertisement all"],
        ),
        (
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1}, addressType: IPv4, endpoints: []}".to_owned(),
            &["EndpointSlice shop/web-1"],
        ),
        (
            "apiVersion: berth.dev/v1alpha1\nkind: SpeakerNode\nmetadata: {name: node-1}\nspec: {version: 0.1.0}\n".to_owned(),
            &["SpeakerNode node-1"],
        ),
        (
            "apiVersion: berth.dev/v1alpha1\nkind: Announcement\nmetadata: {name: 192.0.2.1}\nspec: {address: 192.0.2.1, pool: office, services: []}\n".to_owned(),
            &["Announcement 192.0.2.1"],
        ),
    ] {
        assert_eq!(read(&text).unwrap().0, expected, "{text}");
    }
}

#[test]
fn what_has_no_part_is_passed_over_and_told() {
    let text = "
{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: b}}
---
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: office}}
";
    let (objects, notes) = read(text).unwrap();
    assert_eq!(objects, [""; 0]);
    assert_eq!(
        notes,
        [
            "note: world.yaml: 2 Deployment of apps/v1 passed over, which no address depends on",
            "warning: world.yaml: 1 IPAddressPool of metallb.io/v1beta1 passed over, because it is MetalLB's, which Berth does not read: \
             write it as one of berth.dev/v1alpha1",
        ]
    );
}

#[test]
fn a_text_without_an_object_is_told_of() {
    for text in ["", "# nothing\n---\n", "{apiVersion: v1, kind: List, items: []}"] {
        assert_eq!(read(text).unwrap().1, ["warning: world.yaml: there is no object in it"], "{text}");
    }
    assert_eq!(read("{apiVersion: v1, kind: Node, metadata: {name: a}}").unwrap().1, [""; 0]);
}

#[test]
fn a_pool_that_the_api_server_does_not_let_in_is_refused_and_one_that_it_lets_in_is_not() {
    let pool = |addresses: &str| {
        format!(
            "apiVersion: berth.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {{name: office}}\nspec: {{addresses: [{addresses}]}}\n"
        )
    };
    for (addresses, says) in [
        (
            "192.0.2.1/28",
            Some("`spec.addresses[0]`: `192.0.2.1/28` has bits set behind its prefix; write `192.0.2.0/28`"),
        ),
        ("192.0.2.1, '2001:db8::1/64'", Some("`spec.addresses[1]`: `2001:db8::1/64` has bits set behind its prefix")),
        ("192.0.2.300", Some("`192.0.2.300` is not an address range")),
        ("'192.0.2.1-2001:db8::1'", Some("starts in one address family and ends in the other")),
        ("", Some("`spec.addresses` is empty; name at least one address. The API server refuses it too")),
        // Let in, and said by the pool's condition.
        ("192.0.2.9-192.0.2.1", None),
        ("127.0.0.1", None),
        ("192.0.2.1, 192.0.2.1", None),
    ] {
        let found = read(&pool(addresses)).map_err(|error| error.to_string());
        match says {
            None => assert_eq!(found.unwrap().0, ["IPAddressPool office"], "{addresses}"),
            Some(says) => {
                let error = found.unwrap_err();
                assert!(error.starts_with("world.yaml: IPAddressPool office: ") && error.contains(says), "{error}");
            }
        }
    }
}

#[test]
fn a_wrong_text_is_told_with_its_place_and_what_to_do() {
    let pool = |spec: &str| {
        format!("apiVersion: berth.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {{name: office}}\nspec: {spec}\n")
    };
    let list =
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: a}}\n- {kind: Node}\n";
    for (text, says) in [
        ("a: [".to_owned(), "world.yaml is neither YAML nor JSON: "),
        ("{\"a\": ".to_owned(), "world.yaml is neither YAML nor JSON: "),
        ("just words".to_owned(), "world.yaml: this has no `kind`; a Kubernetes object has `apiVersion`, `kind` and"),
        ("kind: Service".to_owned(), "world.yaml: this has no `apiVersion`; "),
        ("{apiVersion: v1, kind: Service, metadata: {}}".to_owned(), "world.yaml: this has no `metadata.name`; "),
        ("{apiVersion: v1, kind: List}".to_owned(), "world.yaml: a List without `items`; "),
        (list.to_owned(), "world.yaml, item 2: this has no `apiVersion`; "),
        (format!("{}---\nkind: Service\n", pool("{addresses: [192.0.2.1]}")), "world.yaml, document 2: this has no `apiVersion`; "),
        (pool("{}"), "world.yaml: IPAddressPool office: missing field `addresses`; `kubectl explain IPAddressPool` says"),
        (pool("{addresses: 192.0.2.1}"), "world.yaml: IPAddressPool office: invalid type: string \"192.0.2.1\", expected a sequence"),
        (pool("{addresses: [192.0.2.1], autoAsign: false}"), "world.yaml: IPAddressPool office: there is no field `spec.autoAsign`; correct or"),
        (
            "{apiVersion: berth.dev/v1alpha1, kind: SpeakerNode, metadata: {name: n}, spec: {version: a, interfaces: [{name: eth0, mtu: 9}]}}"
                .to_owned(),
            "there is no field `spec.interfaces[0].mtu`",
        ),
        (
            "{apiVersion: berth.dev/v2, kind: IPAddressPool, metadata: {name: a}}".to_owned(),
            "world.yaml: IPAddressPool of berth.dev/v2 is not known here, which are of berth.dev/v1alpha1; ",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: http}}".to_owned(),
            "world.yaml: Service web: invalid type: string \"http\"",
        ),
    ] {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}\n{error}");
    }
}

#[test]
fn the_labels_of_a_selector_are_the_users_own() {
    let text = "apiVersion: berth.dev/v1alpha1\nkind: L2Advertisement\nmetadata: {name: all}\n\
                spec: {nodeSelectors: [{matchLabels: {rack: a}, matchExpressions: [{key: b, operator: Exists}]}]}\n";
    assert_eq!(read(text).unwrap().0, ["L2Advertisement all"]);
}

#[test]
fn a_dump_of_thousands_is_read() {
    let item = "- {apiVersion: v1, kind: Service, metadata: {name: web, labels: {a: b}}, spec: {ports: [{port: 80}, {port: 81}]}}\n";
    let text = format!("apiVersion: v1\nkind: List\nitems:\n{}", item.repeat(20_000));
    assert_eq!(load(&source(&text), "shop", &mut Vec::new()).unwrap().len(), 20_000);
}
