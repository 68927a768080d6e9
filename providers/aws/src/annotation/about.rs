//! What each annotation of AWS load balancers is for, for the reference page. The page is made of this and of how each is treated.

use super::{
    ACTIONS_PREFIX, KNOWN, LISTENER_ATTRIBUTES_OF, PREFIX, SOURCE_RANGES, TARGET_GROUP_ATTRIBUTES_OF, Treatment,
};

/// A line of the reference page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The full name.
    pub annotation: String,
    /// Whether it means what it means to the AWS Load Balancer Controller.
    pub honoured: bool,
    /// What it is for, or why the Service is refused.
    pub about: String,
}

/// By the names behind the prefix.
const ABOUT: &[(&str, &str)] = &[
    (
        "type",
        "`external` or `nlb-ip`, which also has ip targets. Without a class Services of these types are served where the controller runs with `--default-provider=aws`",
    ),
    (
        "nlb-target-type",
        "`instance` (node ports) or `ip` (the endpoints themselves); else what `--aws-default-target-type` says, `instance` by default",
    ),
    (
        "name",
        "name of the load balancer, at most 32 characters. It counts when it is made; a change of it changes nothing",
    ),
    (
        "scheme",
        "`internal` (the default) or `internet-facing`, which an operator admits by `--aws-internet-facing-namespaces`. A change takes another load balancer",
    ),
    ("internal", "`true` or `false`: the older form of the scheme, which counts where the newer is not there"),
    ("ip-address-type", "`ipv4` (the default) or `dualstack`, which a Service with IPv6 needs"),
    (
        "subnets",
        "identities of subnets, or their tags `Name`, one for each zone; admitted by `--aws-reference-namespaces`. Else they are found by tags and routes",
    ),
    (
        "eip-allocations",
        "Elastic IPs, one for each subnet, of an internet-facing load balancer; admitted by `--aws-reference-namespaces`",
    ),
    ("private-ipv4-addresses", "addresses, one in each subnet, of an internal load balancer"),
    ("ipv6-addresses", "addresses, one in each subnet, of a dual-stack load balancer"),
    ("enable-prefix-for-ipv6-source-nat", "needed for UDP over IPv6"),
    ("source-nat-ipv6-prefixes", "prefixes for it"),
    (
        "security-groups",
        "identities of security groups, or their tags `Name`, in place of the one that Berth makes; admitted by `--aws-reference-namespaces`",
    ),
    (
        "manage-backend-security-group-rules",
        "`true` or `false`, with security groups of its own: whether it has the backend security group beside them, and the groups of nodes \
         and pods are opened to that. With the group that Berth makes they always are",
    ),
    (
        "disable-nlb-sg",
        "`true`: a load balancer without security groups, which it can then never have. Nodes and pods are then opened by hand, which \
         `manage-backend-security-group-rules: \"false\"` has to say",
    ),
    ("security-group-prefix-lists", "prefix lists that are let in; without source ranges only they are"),
    (
        "inbound-sg-rules-on-private-link-traffic",
        "`on` or `off`: whether the rules hold for traffic through PrivateLink",
    ),
    ("enable-icmp-for-path-mtu-discovery", "`on`: lets in the ICMP messages by which the path MTU is found"),
    ("attributes", "attributes of the load balancer, `key=value,key=value`. Only those that are listed are managed"),
    ("access-log-enabled", "older form of the attribute `access_logs.s3.enabled`, which it overrides"),
    ("access-log-s3-bucket-name", "older form of the attribute `access_logs.s3.bucket`, which it overrides"),
    ("access-log-s3-bucket-prefix", "older form of the attribute `access_logs.s3.prefix`, which it overrides"),
    (
        "cross-zone-load-balancing-enabled",
        "older form of the attribute `load_balancing.cross_zone.enabled`, which it overrides",
    ),
    ("target-group-attributes", "attributes of all target groups, such as `preserve_client_ip.enabled=false`"),
    ("proxy-protocol", "`*`: the PROXY protocol to the targets of all ports"),
    ("proxy-protocol-per-target-group", "ports whose targets are sent the PROXY protocol; those of the others are not"),
    ("ssl-cert", "ARNs of certificates; the first is shown by default. TLS then ends at the load balancer"),
    ("ssl-ports", "names or numbers of the ports at which TLS ends; all of TCP where it is not given"),
    ("ssl-negotiation-policy", "the security policy of TLS; else what `--aws-ssl-policy` says"),
    ("alpn-policy", "`None`, `HTTP1Only`, `HTTP2Only`, `HTTP2Optional` or `HTTP2Preferred`, for TLS"),
    ("backend-protocol", "`ssl` or `tls`: TLS to the targets of ports at which TLS ends; else TCP"),
    (
        "healthcheck-protocol",
        "`tcp` (the default), `http` or `https`; with `externalTrafficPolicy: Local` and instance targets HTTP",
    ),
    (
        "healthcheck-port",
        "`traffic-port` (the default), a number, or the name of a port; with `externalTrafficPolicy: Local` and instance targets the Service's health-check node port",
    ),
    (
        "healthcheck-path",
        "for HTTP and HTTPS; `/`, with `externalTrafficPolicy: Local` and instance targets `/healthz`",
    ),
    ("healthcheck-interval", "seconds, 5 to 300; 10 by default"),
    (
        "healthcheck-timeout",
        "seconds, 2 to 120, at most the interval; 10 by default, with `externalTrafficPolicy: Local` and instance targets 6",
    ),
    (
        "healthcheck-healthy-threshold",
        "answers in a row, 2 to 10; 3 by default, with `externalTrafficPolicy: Local` and instance targets 2",
    ),
    (
        "healthcheck-unhealthy-threshold",
        "missing answers in a row, 2 to 10; 3 by default, with `externalTrafficPolicy: Local` and instance targets 2",
    ),
    (
        "healthcheck-success-codes",
        "codes that are good answers of HTTP and HTTPS, such as `200,204`; `200-399` by default",
    ),
    ("target-node-labels", "labels of the nodes that are targets, for instance targets"),
    ("additional-resource-tags", "tags on everything that is made for the Service, `key=value,key=value`"),
    ("minimum-load-balancer-capacity", "capacity that is reserved"),
    ("multi-cluster-target-group", "whether targets of other clusters are in the target group too"),
    (
        "enable-tcp-udp-listener",
        "whether TCP and UDP of one port are one listener; `true` by default. With `false` such a Service is refused",
    ),
    ("quic-enabled-ports", "ports that speak QUIC"),
];

/// All lines, in the order of the names.
pub fn lines() -> Vec<Line> {
    let line = |annotation: String, treatment: Treatment, about: &str| match treatment {
        Treatment::Honoured => Line { annotation, honoured: true, about: about.to_owned() },
        Treatment::Refused { harmless, why } => {
            let values: Vec<_> = harmless.iter().take(1).map(|value| format!("`{value}`")).collect();
            let but = if values.is_empty() { String::new() } else { format!(", unless it is {}", values.concat()) };
            Line { annotation, honoured: false, about: format!("{about}: refused{but}, because {why}") }
        }
    };
    let known = KNOWN.iter().map(|(name, treatment)| {
        let about = ABOUT.iter().find(|(of, _)| of == name).map(|(_, about)| *about).unwrap_or_default();
        line(format!("{PREFIX}{name}"), *treatment, about)
    });
    let more = [
        line(
            SOURCE_RANGES.to_owned(),
            Treatment::Honoured,
            "ranges of clients, used where `spec.loadBalancerSourceRanges` is empty; everybody where neither is given",
        ),
        line(
            format!("{PREFIX}{TARGET_GROUP_ATTRIBUTES_OF}PORT"),
            Treatment::Honoured,
            "attributes of the target group of that port, over those of all",
        ),
        line(
            format!("{PREFIX}{LISTENER_ATTRIBUTES_OF}PROTOCOL-PORT"),
            Treatment::Honoured,
            "attributes of that listener, such as `TCP-80: tcp.idle_timeout.seconds=400`; not of TLS",
        ),
        line(
            format!("{ACTIONS_PREFIX}PROTOCOL-PORT"),
            Treatment::Refused { harmless: &[], why: super::NO_ACTIONS },
            "weighted target groups",
        ),
    ];
    let mut lines: Vec<_> = known.chain(more).collect();
    lines.sort_by(|a, b| a.annotation.cmp(&b.annotation));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_annotation_is_told_of_once() {
        let names = |all: Vec<&str>| {
            let mut names = all;
            names.sort_unstable();
            names.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let known = names(KNOWN.iter().map(|(name, _)| *name).collect());
        assert_eq!(names(ABOUT.iter().map(|(name, _)| *name).collect()), known);
    }

    #[test]
    fn one_that_is_refused_says_why() {
        let lines = lines();
        let of = |name: &str| lines.iter().find(|line| line.annotation.ends_with(name)).unwrap();
        assert_eq!(of("quic-enabled-ports").about, "ports that speak QUIC: refused, because QUIC is not spoken");
        assert!(of("multi-cluster-target-group").about.contains("refused, unless it is `false`, because"));
        assert!(!of("actions.PROTOCOL-PORT").honoured && of("scheme").honoured);
    }
}
