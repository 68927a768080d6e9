//! What each annotation comes to, in the documents that are written.

use serde_json::{Value, json};

use super::scene::{GROUP, PUBLIC, Scene, base, ports, service, settings};
use crate::intent::Asks;
use berth_provider::Namespaces;

use crate::settings::{ClusterProbe, DefaultScheme};

const LOAD_BALANCER: &str = "loadBalancers/prod-internal";
const RULES: &str = "loadBalancingRules";

async fn served(annotations: &[(&str, &str)], spec: Value) -> Scene {
    let mut scene = Scene::new();
    scene.apply(service("web", annotations, spec));
    scene.rest().await;
    assert!(scene.outcomes.values().all(|outcome| outcome.met), "{}", scene.says("web"));
    scene
}

#[tokio::test(start_paused = true)]
async fn rules_and_probes_are_those_of_cloud_provider_azure() {
    let base = base("web");
    let one = |what: &str| format!("{base}-{what}");
    let two = || ports(&["TCP/80:30080", "UDP/53:30053"]);
    let local = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 32_001});
    for (annotations, spec, rule, expected, probe, probed) in [
        (
            &[] as &[(&str, &str)],
            two(),
            "TCP-80",
            json!({"frontendPort": 80, "backendPort": 80, "enableFloatingIP": true, "idleTimeoutInMinutes": 4,
                   "enableTcpReset": true, "loadDistribution": "Default", "protocol": "Tcp", "disableOutboundSnat": false}),
            Some("TCP-80"),
            json!({"protocol": "Tcp", "port": 30_080, "intervalInSeconds": 5, "probeThreshold": 2}),
        ),
        (
            &[],
            two(),
            "UDP-53",
            json!({"frontendPort": 53, "protocol": "Udp", "enableTcpReset": false}),
            None,
            json!({}),
        ),
        (
            &[],
            local,
            "TCP-80",
            json!({}),
            Some("TCP-32001"),
            json!({"protocol": "Http", "port": 32_001, "requestPath": "/healthz"}),
        ),
        (
            &[("azure-load-balancer-tcp-idle-timeout", "30"), ("azure-load-balancer-disable-tcp-reset", "true")],
            json!({"sessionAffinity": "ClientIP"}),
            "TCP-80",
            json!({"idleTimeoutInMinutes": 30, "enableTcpReset": false, "loadDistribution": "SourceIP"}),
            Some("TCP-80"),
            json!({}),
        ),
        (
            &[("azure-disable-load-balancer-floating-ip", "true")],
            two(),
            "TCP-80",
            json!({"backendPort": 30_080, "enableFloatingIP": false}),
            Some("TCP-80"),
            json!({}),
        ),
        (
            &[("azure-load-balancer-enable-high-availability-ports", "true")],
            two(),
            "ALL-0",
            json!({"protocol": "All", "frontendPort": 0, "backendPort": 0}),
            Some("TCP-80"),
            json!({"port": 30_080}),
        ),
        (
            &[
                ("azure-load-balancer-health-probe-protocol", "http"),
                ("azure-load-balancer-health-probe-request-path", "/live"),
                ("azure-load-balancer-health-probe-interval", "7"),
                ("port_tcp-80_health-probe_num-of-probe", "3"),
                ("port_80_health-probe_port", "8081"),
            ],
            two(),
            "TCP-80",
            json!({}),
            Some("TCP-80"),
            json!({"protocol": "Http", "requestPath": "/live", "intervalInSeconds": 7, "probeThreshold": 3, "port": 8081}),
        ),
        (&[("port_80_no_probe_rule", "true")], two(), "TCP-80", json!({}), None, json!({})),
    ] {
        let scene = served(annotations, spec).await;
        let rules = scene.parts(LOAD_BALANCER, RULES);
        let written = &rules[&one(rule)];
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&written[field], value, "{annotations:?}: {field}");
        }
        let probes = scene.parts(LOAD_BALANCER, "probes");
        let used = written["probe"]["id"].as_str().map(|id| id.rsplit('/').next().unwrap().to_owned());
        assert_eq!(used, probe.map(one), "{annotations:?}");
        for (field, value) in probed.as_object().unwrap() {
            assert_eq!(&probes[&one(probe.unwrap())][field], value, "{annotations:?}: {field}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_without_a_rule_has_none_and_the_shared_probe_is_one() {
    let scene = served(&[("port_53_no_lb_rule", "true")], ports(&["TCP/80:30080", "UDP/53:30053"])).await;
    assert_eq!(scene.parts(LOAD_BALANCER, RULES).len(), 1);

    let mut scene = Scene::new();
    scene.settings.cluster_probe = ClusterProbe::Shared { port: 10_256, path: "/healthz".to_owned() };
    scene.restart();
    let spec = json!({"ports": [{"port": 80}, {"port": 81}], "allocateLoadBalancerNodePorts": false});
    scene.apply(service("web", &[], spec));
    scene.apply(service("api", &[], json!({})));
    scene.rest().await;
    let probes = scene.parts(LOAD_BALANCER, "probes");
    assert_eq!(probes.keys().collect::<Vec<_>>(), ["cluster-service-shared-health-probe"]);
    scene.delete("web");
    scene.rest().await;
    assert_eq!(scene.parts(LOAD_BALANCER, "probes").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn security_rules_let_in_who_is_asked_for() {
    let golden = "k8s-azure-lb_allow_IPv4_d39272f7f57ed937951650d93992ad77";
    let deny = "k8s-azure-lb_deny-all_IPv4";
    for (annotations, spec, expected) in [
        (&[PUBLIC] as &[(&str, &str)], json!({}), vec![(golden.to_owned(), json!("Internet"), 501..=502)]),
        (&[], json!({}), vec![]),
        (
            &[("azure-allowed-ip-ranges", "10.1.0.0/16,10.1.2.0/24")],
            json!({}),
            vec![(String::new(), json!(["10.1.0.0/16"]), 501..=502)],
        ),
        (
            &[PUBLIC, ("azure-allowed-ip-ranges", "0.0.0.0/0")],
            json!({}),
            vec![(String::new(), json!(["0.0.0.0/0"]), 501..=502)],
        ),
        (
            &[PUBLIC],
            json!({"loadBalancerSourceRanges": ["192.0.2.0/24"]}),
            vec![(String::new(), json!(["192.0.2.0/24"]), 501..=502)],
        ),
        (
            &[
                PUBLIC,
                ("azure-allowed-service-tags", "AzureFrontDoor.Backend"),
                ("azure-allowed-ip-ranges", "192.0.2.1/32"),
            ],
            json!({}),
            vec![
                (String::new(), json!(["192.0.2.1/32"]), 501..=502),
                (String::new(), json!("AzureFrontDoor.Backend"), 501..=502),
            ],
        ),
        (
            &[
                ("azure-allowed-ip-ranges", "10.9.0.0/16"),
                ("azure-deny-all-except-load-balancer-source-ranges", "true"),
            ],
            json!({}),
            vec![(String::new(), json!(["10.9.0.0/16"]), 501..=502), (deny.to_owned(), json!("*"), 4095..=4095)],
        ),
        (&[PUBLIC, ("azure-disable-load-balancer-nsg-rule", "true")], json!({}), vec![]),
    ] {
        let scene = served(annotations, spec).await;
        let mut rules = scene.parts("networkSecurityGroups/prod-nsg", "securityRules");
        rules.remove("ssh").unwrap();
        let mut found: Vec<(String, Value, u64)> = Vec::new();
        for (name, rule) in rules {
            let many = rule["sourceAddressPrefixes"].clone();
            let sources = if many == json!([]) { rule["sourceAddressPrefix"].clone() } else { many };
            assert_eq!(rule["destinationAddressPrefixes"], json!(scene.addresses("web")), "{annotations:?}");
            found.push((name, sources, rule["priority"].as_u64().unwrap()));
        }
        // Which comes first of those that let in does not matter.
        found.sort_by_key(|(_, sources, priority)| (*priority > 4000, sources.is_string()));
        assert_eq!(found.len(), expected.len(), "{annotations:?}: {found:?}");
        for ((name, sources, priority), (wanted, from, at)) in found.iter().zip(&expected) {
            assert!(wanted.is_empty() || wanted == name, "{name}");
            assert_eq!(sources, from, "{annotations:?}");
            assert!(at.contains(priority), "{annotations:?}: {priority}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn public_ips_have_what_is_asked_for() {
    let mut scene = Scene::new();
    let prefix = format!("{GROUP}/publicIPPrefixes/pre");
    scene.fake().plant(&prefix, json!({"location": "westeurope"})).unwrap();
    scene.settings.zones = vec!["1".to_owned(), "2".to_owned()];
    scene.restart();
    let asked = [
        PUBLIC,
        ("azure-pip-prefix-id", prefix.as_str()),
        ("azure-pip-tags", "team=a,k8s-azure-cluster-name=liar"),
        ("azure-dns-label-name", "shop"),
        ("azure-pip-ip-tags", "RoutingPreference=Internet"),
    ];
    scene.apply(service("web", &asked, json!({})));
    scene.rest().await;
    let resources = scene.fake().resources();
    let (id, document) = resources.iter().find(|(id, _)| id.contains("publicIPAddresses")).unwrap();
    assert!(id.contains(&format!("/prod-{}-pre-", base("web"))), "{id}");
    assert_eq!(document["tags"]["team"], "a");
    assert_eq!(document["tags"]["k8s-azure-cluster-name"], "prod");
    assert_eq!(document["tags"]["k8s-azure-service"], "shop/web");
    assert_eq!(document["tags"]["k8s-azure-dns-label-service"], "shop/web");
    assert_eq!(document["properties"]["dnsSettings"]["domainNameLabel"], "shop");
    assert_eq!(document["properties"]["ipTags"], json!([{"ipTagType": "RoutingPreference", "tag": "Internet"}]));
    assert_eq!(document["zones"], json!(["1", "2"]));
    // An empty label takes it away.
    scene.apply(service("web", &[&asked[..3], &[("azure-dns-label-name", ""), asked[4]]].concat(), json!({})));
    scene.rest().await;
    let document = &scene.fake().resources()[id];
    assert!(document["properties"].get("dnsSettings").is_none(), "{document}");
    assert!(document["tags"].get("k8s-azure-dns-label-service").is_none());
}

#[test]
fn what_is_wrong_or_not_done_is_said_by_the_annotation_that_asks_for_it() {
    let prefix = "service.beta.kubernetes.io/";
    for (annotations, spec, says) in [
        (&[("azure-load-balancer-internal", "yes")] as &[(&str, &str)], json!({}), "neither true nor false"),
        (&[("azure-load-balancer-tcp-idle-timeout", "3")], json!({}), "no number from 4 to 100"),
        (&[("azure-load-balancer-health-probe-interval", "60")], json!({}), "60 s times 2 probes is 120 s or more"),
        (&[("azure-load-balancer-health-probe-protocol", "grpc")], json!({}), "none of tcp, http, https"),
        (&[("azure-load-balancer-health-probe-request-path", "/x")], json!({}), "TCP, which asks for no path"),
        (&[("port_81_no_lb_rule", "true")], json!({}), "the Service has no port `81`"),
        (&[("azure-pip-name", "x")], json!({}), "the Service is internal"),
        (&[PUBLIC, ("azure-load-balancer-internal-subnet", "x")], json!({}), "the Service is public"),
        (&[PUBLIC, ("azure-load-balancer-ipv4", "192.168.0.1")], json!({}), "cannot use the non-public address"),
        (&[("azure-load-balancer-ipv4", "fd00::1")], json!({}), "no IPv4 address"),
        (&[("azure-load-balancer-ipv6", "fd00::1")], json!({}), "the Service has no IPv6"),
        (&[PUBLIC, ("azure-dns-label-name", "Shop_1")], json!({}), "no label"),
        (
            &[("azure-dns-label-name", "shop")],
            json!({}),
            r#"or set service.beta.kubernetes.io/azure-load-balancer-internal: "false""#,
        ),
        (
            &[("load-balancer-source-range", "10.0.0.0/8")],
            json!({}),
            "service.beta.kubernetes.io/load-balancer-source-range",
        ),
        (&[("azure-allowed-ip-ranges", "10.0.0.0/33")], json!({}), "no range of addresses"),
        (
            &[("azure-allowed-ip-ranges", "10.0.0.0/8")],
            json!({"loadBalancerSourceRanges": ["10.0.0.0/9"]}),
            "says who may reach it too",
        ),
        (
            &[("azure-allowed-service-tags", "AzureCloud")],
            json!({"loadBalancerSourceRanges": ["10.0.0.0/9"]}),
            "the nodes drop what is not in the ranges",
        ),
        (
            &[("azure-disable-load-balancer-nsg-rule", "true"), ("azure-allowed-service-tags", "AzureCloud")],
            json!({}),
            "no security rules are made",
        ),
        (&[PUBLIC, ("azure-load-balancer-enable-high-availability-ports", "true")], json!({}), "only an internal"),
        (&[], json!({"ports": [{"port": 5000, "protocol": "SCTP", "nodePort": 30_000}]}), "Azure carries SCTP only"),
        (&[], json!({"ports": [{"port": 80}]}), "spec.allocateLoadBalancerNodePorts"),
        (
            &[("azure-load-balancer-health-probe-protocol", "https")],
            json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 32_000}),
            "one probe, HTTP /healthz",
        ),
        (&[("port_53_health-probe_interval", "9")], ports(&["UDP/53:30053"]), "asked by TCP alone"),
        (&[("azure-pls-name", "x")], json!({}), "PrivateLinkServices are not made"),
        (&[("azure-load-balancer-mode", "__auto__")], json!({}), "the basic SKU"),
        (&[("azure-additional-public-ips", "192.0.2.1")], json!({}), "nobody could tell whose"),
        (&[("azure-load-balancer-configurations", "a,b")], json!({}), "not spread over several"),
    ] {
        let refusal = Asks::of(&service("web", annotations, spec), &settings()).unwrap_err();
        let text = refusal.to_string();
        assert!(text.contains(says), "{annotations:?}: {text}");
        let named = text.contains(prefix) || text.contains("spec.") || text.contains("shop/web");
        assert!(named, "{annotations:?}: {text}");
    }
}

#[test]
fn ranges_where_nobody_makes_security_rules_are_refused_with_who_can_mend_that() {
    let settings = crate::Settings { security_group: None, ..settings() };
    let refusal =
        Asks::of(&service("web", &[("azure-allowed-ip-ranges", "10.0.0.0/8")], json!({})), &settings).unwrap_err();
    assert!(
        refusal.to_string().contains("(azure.json) names no `securityGroupName`; an operator adds it"),
        "{refusal}"
    );
}

#[test]
fn the_internet_and_what_exists_are_for_admitted_namespaces_alone() {
    let mut settings = settings();
    settings.admission.public = Namespaces::default();
    settings.admission.references = Namespaces::Only(["ops".to_owned()].into());
    for (annotations, flag) in [
        (&[PUBLIC] as &[(&str, &str)], Some("--azure-public-namespaces")),
        (&[], None),
        (&[("azure-load-balancer-internal-subnet", "apps")], Some("--azure-reference-namespaces")),
        (&[("azure-load-balancer-internal-subnet", "default")], None),
    ] {
        let refusal = Asks::of(&service("web", annotations, json!({})), &settings).err().map(|r| r.to_string());
        assert_eq!(refusal.as_ref().map(|text| text.rsplit(' ').next().unwrap()), flag, "{annotations:?}");
    }
    settings.default_scheme = DefaultScheme::Public;
    let plain = service("web", &[], json!({}));
    assert!(Asks::of(&plain, &settings).is_err());
    settings.admission.public = Namespaces::All;
    assert_eq!(Asks::of(&plain, &settings).unwrap().front.scheme, crate::intent::Scheme::Public);
    for name in ["azure-pip-name", "azure-load-balancer-resource-group"] {
        let refusal = Asks::of(&service("web", &[PUBLIC, (name, "x")], json!({})), &settings).unwrap_err().to_string();
        assert!(refusal.contains("--azure-reference-namespaces"), "{refusal}");
    }
}
