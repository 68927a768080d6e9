//! Every annotation of an AWS load balancer: what it comes to, or why the Service is refused.

use std::collections::BTreeSet;

use berth_api::Reason;
use berth_provider::{Failure, Intent, Namespaces};
use serde_json::{Value, json};

use super::scene::{ports, service, settings};
use crate::annotation::{KNOWN, SOURCE_RANGES, Treatment, full};
use crate::intent::Asks;
use crate::settings::Settings;

type With = &'static [(&'static str, &'static str)];

const DUAL: With = &[("ip-address-type", "dualstack")];
const PUBLIC: With = &[("scheme", "internet-facing")];
const TLS: With = &[("ssl-cert", "arn:a")];
const NO_GROUP: With = &[("disable-nlb-sg", "true"), ("manage-backend-security-group-rules", "false")];
const HTTP: With = &[("healthcheck-protocol", "http")];

/// An annotation, its value, what else is there, and what the Service asks for then that it did not before.
const HONOURED: &[(&str, &str, With, &str)] = &[
    ("type", "nlb-ip", &[], "kind: Ip, protocol: Tcp, port: 8080"),
    ("nlb-target-type", "ip", &[], "kind: Ip, protocol: Tcp, port: 8080"),
    ("target-node-labels", "pool=edge", &[], r#"node_labels: {"pool": "edge"}"#),
    ("name", "my-nlb", &[], r#"name: Some("my-nlb")"#),
    ("scheme", "internet-facing", &[], "scheme: InternetFacing"),
    ("internal", "false", &[], "scheme: InternetFacing"),
    ("ip-address-type", "dualstack", &[], r#"v6: {"::/0"}"#),
    ("subnets", "subnet-a, b", &[], r#"subnets: ["subnet-a", "b"]"#),
    ("eip-allocations", "eipalloc-2,eipalloc-1", PUBLIC, r#"allocations: ["eipalloc-2", "eipalloc-1"]"#),
    ("private-ipv4-addresses", "10.0.2.9", &[], "private_v4: {10.0.2.9}"),
    ("ipv6-addresses", "2001:db8::9", DUAL, "v6: {2001:db8::9}"),
    ("security-groups", "sg-1, web", &[], r#"security: Given(["sg-1", "web"])"#),
    ("disable-nlb-sg", "true", &[("manage-backend-security-group-rules", "false")], "security: None"),
    ("manage-backend-security-group-rules", "true", &[("security-groups", "sg-1")], "opens_targets: true"),
    ("security-group-prefix-lists", "pl-1,pl-2", &[], r#"v4: {}, v6: {}, prefix_lists: {"pl-1", "pl-2"}"#),
    ("inbound-sg-rules-on-private-link-traffic", "off", &[], "enforce_on_private_link: Some(false)"),
    ("enable-icmp-for-path-mtu-discovery", "on", &[], "path_mtu: true"),
    (
        "attributes",
        "a.b=c,deletion_protection.enabled=true",
        &[],
        r#"{"a.b": "c", "deletion_protection.enabled": "true"}"#,
    ),
    (
        "access-log-enabled",
        "true",
        &[("attributes", "access_logs.s3.enabled=false")],
        r#""access_logs.s3.enabled": "true""#,
    ),
    ("access-log-s3-bucket-name", "logs", &[], r#""access_logs.s3.bucket": "logs""#),
    ("access-log-s3-bucket-prefix", "web", &[], r#""access_logs.s3.prefix": "web""#),
    ("cross-zone-load-balancing-enabled", "T", &[], r#""load_balancing.cross_zone.enabled": "true""#),
    (
        "target-group-attributes",
        "preserve_client_ip.enabled=false",
        &[],
        r#"attributes: {"preserve_client_ip.enabled": "false"}"#,
    ),
    (
        "target-group-attributes.80",
        "a=2,b=",
        &[("target-group-attributes", "a=1,b=3")],
        r#"attributes: {"a": "2", "b": "3"}"#,
    ),
    (
        "proxy-protocol",
        "*",
        &[("target-group-attributes.80", "proxy_protocol_v2.enabled=false")],
        r#""proxy_protocol_v2.enabled": "true""#,
    ),
    ("proxy-protocol-per-target-group", "80", &[("proxy-protocol", "*")], r#""proxy_protocol_v2.enabled": "true""#),
    (
        "ssl-cert",
        "arn:a,arn:b",
        &[],
        r#"protocol: Tls, tls: Some(Tls { certificates: ["arn:a", "arn:b"], policy: "ELBSecurityPolicy-2016-08""#,
    ),
    ("ssl-ports", "http", TLS, "protocol: Tls"),
    ("ssl-negotiation-policy", "ELBSecurityPolicy-TLS13", TLS, r#"policy: "ELBSecurityPolicy-TLS13""#),
    ("alpn-policy", "HTTP2Preferred", TLS, r#"alpn: Some("HTTP2Preferred")"#),
    ("backend-protocol", "ssl", TLS, "kind: Instance, protocol: Tls"),
    (
        "healthcheck-protocol",
        "http",
        &[],
        r#"protocol: Http, port: "traffic-port", path: Some("/"), interval: 10, timeout: 10, healthy: 3, unhealthy: 3, codes: Some("200-399")"#,
    ),
    ("healthcheck-port", "http", &[], r#"port: "30080", path"#),
    ("healthcheck-path", "/live", HTTP, r#"path: Some("/live")"#),
    ("healthcheck-interval", "30", &[], "interval: 30, timeout: 10"),
    ("healthcheck-timeout", "5", &[], "timeout: 5"),
    ("healthcheck-healthy-threshold", "4", &[], "healthy: 4, unhealthy: 3"),
    ("healthcheck-unhealthy-threshold", "5", &[], "healthy: 3, unhealthy: 5"),
    ("healthcheck-success-codes", "200,204-206", HTTP, r#"codes: Some("200,204-206")"#),
    ("additional-resource-tags", r"team=a\,b,cost=7", &[], r#"tags: {"cost": "7", "team": "a,b"}"#),
    (
        "listener-attributes.TCP-80",
        "tcp.idle_timeout.seconds=400",
        &[],
        r#"attributes: {"tcp.idle_timeout.seconds": "400"}"#,
    ),
    (SOURCE_RANGES, "192.0.2.7/24, 198.51.100.1/32", &[], r#"v4: {"192.0.2.0/24", "198.51.100.1/32"}"#),
];

/// An annotation, its value, what else is there, the reason why the Service is refused, and a part of the message.
const WRONG: &[(&str, &str, With, Reason, &str)] = &[
    ("type", "nlb", &[], Reason::InvalidRequest, "none of external, nlb-ip"),
    ("nlb-target-type", "node", &[], Reason::InvalidRequest, "none of instance, ip"),
    ("name", "a-name-of-more-than-thirty-two-letters", &[], Reason::InvalidRequest, "at most 32"),
    ("name", "internal-web", &[], Reason::InvalidRequest, "at most 32"),
    ("scheme", "public", &[], Reason::InvalidRequest, "none of internal, internet-facing"),
    ("internal", "yes", &[], Reason::InvalidRequest, "neither true nor false"),
    ("ip-address-type", "ipv6", &[], Reason::InvalidRequest, "none of ipv4, dualstack"),
    ("eip-allocations", "eipalloc-1", &[], Reason::InvalidRequest, "only an internet-facing load balancer"),
    ("eip-allocations", "203.0.113.1", PUBLIC, Reason::InvalidRequest, "no allocation"),
    ("private-ipv4-addresses", "10.0.2.9", PUBLIC, Reason::InvalidRequest, "only an internal load balancer"),
    ("private-ipv4-addresses", "ten", &[], Reason::InvalidRequest, "no IPv4 address"),
    ("private-ipv4-addresses", "10.0.2.9", &[("subnets", "a,b")], Reason::InvalidRequest, "1 are given for 2 subnets"),
    ("ipv6-addresses", "2001:db8::9", &[], Reason::InvalidRequest, "not dual-stack"),
    ("disable-nlb-sg", "true", &[], Reason::Unsupported, "open them by hand"),
    ("disable-nlb-sg", "yes", &[], Reason::InvalidRequest, "neither true nor false"),
    ("manage-backend-security-group-rules", "false", &[], Reason::InvalidRequest, "security groups of their own"),
    ("manage-backend-security-group-rules", "no", &[], Reason::InvalidRequest, "neither true nor false"),
    ("security-groups", "sg-1", NO_GROUP, Reason::InvalidRequest, "remove one of the two"),
    ("security-group-prefix-lists", "sg-1", &[], Reason::InvalidRequest, "no prefix list"),
    (
        "security-group-prefix-lists",
        "pl-1",
        &[("security-groups", "sg-1")],
        Reason::InvalidRequest,
        "only the security group that Berth makes",
    ),
    ("inbound-sg-rules-on-private-link-traffic", "true", &[], Reason::InvalidRequest, "neither `on` nor `off`"),
    ("inbound-sg-rules-on-private-link-traffic", "on", NO_GROUP, Reason::InvalidRequest, "no security group"),
    (
        "enable-icmp-for-path-mtu-discovery",
        "on",
        &[("security-groups", "sg-1")],
        Reason::InvalidRequest,
        "only the security group",
    ),
    ("attributes", "a", &[], Reason::InvalidRequest, "no pair"),
    ("attributes", "dns_record.client_routing_policy=any", &[], Reason::InvalidRequest, "any_availability_zone"),
    ("attributes", "deletion_protection.enabled=yes", &[], Reason::InvalidRequest, "neither true nor false"),
    ("access-log-enabled", "maybe", &[], Reason::InvalidRequest, "neither true nor false"),
    ("cross-zone-load-balancing-enabled", "maybe", &[], Reason::InvalidRequest, "neither true nor false"),
    ("target-group-attributes", "=1", &[], Reason::InvalidRequest, "no pair"),
    ("target-group-attributes.81", "a=1", &[], Reason::InvalidRequest, "no such port"),
    ("proxy-protocol", "true", &[], Reason::InvalidRequest, "not `*`"),
    ("proxy-protocol-per-target-group", "81", &[], Reason::InvalidRequest, "no port of the Service"),
    ("proxy-protocol-per-target-group", "http", &[], Reason::InvalidRequest, "no port of the Service"),
    ("ssl-cert", "my-cert", &[], Reason::InvalidRequest, "no ARN"),
    ("ssl-ports", "443", TLS, Reason::InvalidRequest, "no TCP port of the Service"),
    ("ssl-ports", "*", TLS, Reason::InvalidRequest, "no TCP port of the Service"),
    ("ssl-ports", "80", &[], Reason::InvalidRequest, "without a certificate"),
    ("ssl-negotiation-policy", "x", &[], Reason::InvalidRequest, "without a certificate"),
    ("alpn-policy", "h2", TLS, Reason::InvalidRequest, "none of None, HTTP1Only"),
    ("backend-protocol", "http", TLS, Reason::InvalidRequest, "none of ssl, tls, tcp"),
    ("healthcheck-protocol", "udp", &[], Reason::InvalidRequest, "none of tcp, http, https"),
    ("healthcheck-port", "https", &[], Reason::InvalidRequest, "no port of the Service"),
    ("healthcheck-port", "0", &[], Reason::InvalidRequest, "no port of the Service"),
    ("healthcheck-path", "live", HTTP, Reason::InvalidRequest, "no path"),
    ("healthcheck-path", "/live", &[], Reason::InvalidRequest, "speaks TCP"),
    ("healthcheck-interval", "4", &[], Reason::InvalidRequest, "no number from 5 to 300"),
    ("healthcheck-timeout", "121", &[], Reason::InvalidRequest, "no number from 2 to 120"),
    ("healthcheck-timeout", "11", &[], Reason::InvalidRequest, "longer than the interval"),
    ("healthcheck-healthy-threshold", "1", &[], Reason::InvalidRequest, "no number from 2 to 10"),
    ("healthcheck-unhealthy-threshold", "11", &[], Reason::InvalidRequest, "no number from 2 to 10"),
    ("healthcheck-success-codes", "ok", HTTP, Reason::InvalidRequest, "no list of codes"),
    ("additional-resource-tags", "aws:a=b", &[], Reason::InvalidRequest, "AWS's or Berth's own"),
    ("additional-resource-tags", "berth.dev/shard=b", &[], Reason::InvalidRequest, "AWS's or Berth's own"),
    ("additional-resource-tags", "external=b", &[], Reason::InvalidRequest, "somebody else manages"),
    ("listener-attributes.TCP-81", "a=1", &[], Reason::InvalidRequest, "no such listener"),
    ("listener-attributes.TLS-80", "a=1", TLS, Reason::InvalidRequest, "names no listener"),
    ("enable-tcp-udp-listener", "maybe", &[], Reason::InvalidRequest, "neither true nor false"),
    ("berth.dev/load-balancer-grup", "edge", &[], Reason::InvalidRequest, "berth.dev/load-balancer-group"),
    ("made-up", "1", &[], Reason::InvalidRequest, "none that an AWS load balancer has"),
    ("target-node-labels", "pool", &[], Reason::InvalidRequest, "`pool`"),
    (
        "target-node-labels",
        "pool=edge",
        &[("nlb-target-type", "ip")],
        Reason::InvalidRequest,
        "for which no node stands",
    ),
    ("service.beta.kubernetes.io/actions.TCP-80", "{}", &[], Reason::Unsupported, "by weight"),
    (SOURCE_RANGES, "everybody", &[], Reason::InvalidRequest, "no range"),
    (SOURCE_RANGES, "2001:db8::/32", &[], Reason::InvalidRequest, "not dual-stack"),
    (SOURCE_RANGES, "192.0.2.0/24", NO_GROUP, Reason::InvalidRequest, "only the security group"),
    ("berth.dev/load-balancer-group", "A", &[], Reason::InvalidRequest, "no name of a group"),
    ("berth.dev/disown", "yes", &[], Reason::InvalidRequest, "neither true nor false"),
    (
        "berth.dev/disown",
        "true",
        &[("berth.dev/load-balancer-group", "edge")],
        Reason::InvalidRequest,
        "leave the group",
    ),
    ("berth.dev/allow-replacement", "yes", &[], Reason::InvalidRequest, "neither true nor false"),
    ("berth.dev/address-pool", "gold", &[], Reason::Unsupported, "a pool is asked for"),
    ("berth.dev/allow-shared-ip", "key", &[], Reason::SharingUnsupported, "load-balancer-group"),
    ("berth.dev/load-balancer-ips", "192.0.2.1", &[], Reason::Unsupported, "an address is asked for"),
];

fn tried() -> Settings {
    Settings { external_tags: ["external".to_owned()].into(), ..settings() }
}

fn read(intent: &Intent, settings: &Settings) -> Result<String, Failure> {
    Asks::of(intent, settings).map(|asks| format!("{asks:?}")).map_err(Failure::from)
}

fn with(annotation: (&'static str, &'static str), also: With) -> Intent {
    service("web", &[&[annotation], also].concat(), json!({}))
}

#[test]
fn an_annotation_that_is_honoured_asks_for_what_it_means() {
    for (name, value, also, expected) in HONOURED {
        // What goes with it may make no sense without it.
        let before = read(&service("web", also, json!({})), &tried()).unwrap_or_default();
        let after = read(&with((name, value), also), &tried());
        let after = after.unwrap_or_else(|failure| panic!("{name}={value}: {failure}"));
        assert!(after.contains(expected), "{name}={value}: {expected} is not in {after}");
        // Where it stands for the default it says nothing new.
        assert!(
            !before.contains(expected) || *name == "ssl-ports" || *name == "proxy-protocol-per-target-group",
            "{name}: {before}"
        );
    }
}

#[test]
fn a_value_that_is_wrong_is_refused_by_the_name_of_its_annotation() {
    for (name, value, also, reason, says) in WRONG {
        let failure = read(&with((name, value), also), &tried()).expect_err(&format!("{name}={value} was read"));
        assert_eq!(failure.reason, *reason, "{name}={value}: {failure}");
        assert!(failure.message.contains(says), "{name}={value}: {says} is not in {failure}");
        assert!(failure.class.is_for_a_person(), "{name}={value}");
        // Where two do not go together, either may be named. Of a request that no provider of clouds meets, the message says what it is.
        let named =
            |name: &str| failure.message.contains(&if name.contains('/') { name.to_owned() } else { full(name) });
        let is_named = named(name) || also.iter().any(|(name, _)| named(name)) || name.starts_with("berth.dev/");
        assert!(is_named, "{name} is not named: {failure}");
    }
}

#[test]
fn a_slip_of_the_pen_in_who_may_reach_it_lets_nobody_in() {
    for slip in ["load-balancer-source-range", "load-balancer-sourceranges", "load-balancer-source-ranges-ipv6"] {
        let name = format!("service.beta.kubernetes.io/{slip}");
        let refusal = Asks::of(&service("web", &[(name.as_str(), "10.0.0.0/8")], json!({})), &settings()).unwrap_err();
        assert!(refusal.to_string().contains(&name), "{refusal}");
    }
    assert!(Asks::of(&service("web", &[(SOURCE_RANGES, "10.0.0.0/8")], json!({})), &settings()).is_ok());
}

#[test]
fn what_is_not_done_is_refused_by_name_unless_it_asks_for_nothing() {
    for (name, treatment) in KNOWN {
        let Treatment::Refused { harmless, why } = treatment else { continue };
        let failure = read(&service("web", &[(name, "something")], json!({})), &tried()).unwrap_err();
        assert_eq!(failure.reason, Reason::Unsupported, "{name}");
        assert!(failure.message.contains(&full(name)) && failure.message.contains(why), "{name}: {failure}");
        for value in *harmless {
            read(&service("web", &[(name, value)], json!({})), &tried())
                .unwrap_or_else(|f| panic!("{name}={value}: {f}"));
        }
    }
}

#[test]
fn every_annotation_is_in_a_table_so_none_is_ignored() {
    let honoured: BTreeSet<_> = HONOURED.iter().map(|(name, ..)| *name).chain(["enable-tcp-udp-listener"]).collect();
    let wrong: BTreeSet<_> = WRONG.iter().map(|(name, ..)| *name).collect();
    // Any text is a value of these.
    let free = ["access-log-s3-bucket-name", "access-log-s3-bucket-prefix", "subnets"];
    for (name, treatment) in KNOWN {
        if *treatment == Treatment::Honoured {
            assert!(honoured.contains(name), "nothing shows what {name} asks for");
            assert!(wrong.contains(name) || free.contains(name), "nothing shows a wrong value of {name}");
        }
    }
}

/// Spec fields, what else is there, and what the Service asks for, or the reason and message of its refusal.
#[test]
fn the_spec_is_read_as_albc_reads_it() {
    let local = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 32000});
    let pair = |node_ports: [u16; 2], targets: [u16; 2]| {
        json!({"ports": [
            {"name": "t", "protocol": "TCP", "port": 53, "nodePort": node_ports[0], "targetPort": targets[0]},
            {"name": "u", "protocol": "UDP", "port": 53, "nodePort": node_ports[1], "targetPort": targets[1]},
        ]})
    };
    let none: With = &[];
    let cases: Vec<(&str, Value, With, Result<&str, (Reason, &str)>)> = vec![
        (
            "nodes say whether they have an endpoint",
            local.clone(),
            none,
            Ok(
                r#"protocol: Http, port: "32000", path: Some("/healthz"), interval: 10, timeout: 6, healthy: 2, unhealthy: 2"#,
            ),
        ),
        (
            "endpoints answer for themselves",
            local.clone(),
            &[("nlb-target-type", "ip")],
            Ok(r#"protocol: Tcp, port: "traffic-port""#),
        ),
        (
            "what is said counts",
            local,
            &[("healthcheck-port", "traffic-port"), ("healthcheck-interval", "5")],
            Ok(r#"port: "traffic-port", path: Some("/healthz"), interval: 5, timeout: 5"#),
        ),
        (
            "ranges of the spec before those of the annotation",
            json!({"loadBalancerSourceRanges": ["192.0.2.0/24"]}),
            &[(SOURCE_RANGES, "198.51.100.0/24")],
            Ok(r#"v4: {"192.0.2.0/24"}"#),
        ),
        ("TCP and UDP at one node port", pair([30053, 30053], [1, 2]), none, Ok("53: PortAsks { protocol: TcpUdp")),
        (
            "TCP and UDP at two node ports",
            pair([30053, 30054], [1, 1]),
            none,
            Err((Reason::InvalidRequest, "different node ports")),
        ),
        (
            "TCP and UDP at one target port",
            pair([30053, 30054], [1, 1]),
            &[("nlb-target-type", "ip")],
            Ok("53: PortAsks { protocol: TcpUdp"),
        ),
        (
            "TCP and UDP at two target ports",
            pair([30053, 30053], [1, 2]),
            &[("nlb-target-type", "ip")],
            Err((Reason::InvalidRequest, "different target ports")),
        ),
        (
            "TCP and UDP that may not be merged",
            pair([30053, 30053], [1, 1]),
            &[("enable-tcp-udp-listener", "false")],
            Err((Reason::InvalidRequest, "aws-load-balancer-enable-tcp-udp-listener")),
        ),
        (
            "TLS and UDP",
            pair([30053, 30053], [1, 1]),
            TLS,
            Err((Reason::InvalidRequest, "TLS ends at the load balancer")),
        ),
        ("UDP on dual-stack", ports(&["UDP/53:30053"]), DUAL, Err((Reason::Unsupported, "source NAT"))),
        ("SCTP", ports(&["SCTP/53:30053"]), none, Err((Reason::Unsupported, "SCTP"))),
        ("no node port", json!({"ports": [{"port": 80}]}), none, Err((Reason::InvalidRequest, "no node port"))),
        (
            "no node port is needed",
            json!({"ports": [{"port": 80}]}),
            &[("nlb-target-type", "ip")],
            Ok("protocol: Tcp, port: 80"),
        ),
        (
            "a target port by name",
            json!({"ports": [{"port": 80, "targetPort": "web"}]}),
            &[("nlb-target-type", "ip")],
            Ok("protocol: Tcp, port: 1,"),
        ),
        (
            "IPv6 without dual-stack",
            json!({"ipFamilies": ["IPv6"]}),
            none,
            Err((Reason::InvalidRequest, "not dual-stack")),
        ),
        ("IPv6 first", json!({"ipFamilies": ["IPv6"]}), DUAL, Ok("family: Ipv6")),
        (
            "TLS at the ports that are named",
            ports(&["TCP/80:30080", "TCP/443:30443"]),
            &[("ssl-cert", "arn:a"), ("ssl-ports", "443")],
            Ok("80: PortAsks { protocol: Tcp, tls: None"),
        ),
        (
            "an address in the spec",
            json!({"loadBalancerIP": "192.0.2.1"}),
            none,
            Err((Reason::Unsupported, "an address is asked for")),
        ),
    ];
    for (case, spec, annotations, expected) in cases {
        let asks = read(&service("web", annotations, spec), &settings());
        match (asks, expected) {
            (Ok(asks), Ok(expected)) => assert!(asks.contains(expected), "{case}: {expected} is not in {asks}"),
            (Err(failure), Err((reason, says))) => {
                assert_eq!(failure.reason, reason, "{case}: {failure}");
                assert!(failure.message.contains(says), "{case}: {failure}");
            }
            (asks, expected) => panic!("{case}: {asks:?} where {expected:?} was expected"),
        }
    }
}

#[test]
fn what_is_not_admitted_is_refused_with_the_flag_that_admits_it() {
    let mut settings = Settings::of("prod", "uid", "vpc-1");
    let cases: [(With, &str); 6] = [
        (
            &[("scheme", "internet-facing")],
            "aws-load-balancer-scheme: not admitted in the namespace shop; an operator admits it with --aws-internet-facing-namespaces",
        ),
        (
            &[("internal", "false")],
            "aws-load-balancer-internal: not admitted in the namespace shop; an operator admits it with --aws-internet-facing-namespaces",
        ),
        (&[("subnets", "a")], "--aws-reference-namespaces"),
        (&[("security-groups", "sg-1")], "--aws-reference-namespaces"),
        (&[("scheme", "internet-facing"), ("eip-allocations", "eipalloc-1")], "--aws-internet-facing-namespaces"),
        (&[("attributes", "ipv6.deny_all_igw_traffic=false")], "--aws-internet-facing-namespaces"),
    ];
    for (annotations, says) in cases {
        let failure = read(&service("web", annotations, json!({})), &settings).unwrap_err();
        assert_eq!(failure.reason, Reason::CloudNotAdmitted, "{annotations:?}");
        assert!(failure.message.contains(says), "{annotations:?}: {failure}");
    }
    settings.admission.internet_facing = Namespaces::Only(["shop".to_owned()].into());
    read(&service("web", PUBLIC, json!({})), &settings).unwrap();
    let failure = read(&with(("eip-allocations", "eipalloc-1"), PUBLIC), &settings).unwrap_err();
    assert!(failure.message.contains("--aws-reference-namespaces"), "{failure}");
}
