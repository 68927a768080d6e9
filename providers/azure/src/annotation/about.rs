//! What each annotation of Azure load balancers is for, for the reference page. The page is made of this and of how each is treated.

use super::{KNOWN, OF_PORT, PORT, PREFIX, Treatment};

/// A line of the reference page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The full name.
    pub annotation: String,
    /// Whether it means what it means to cloud-provider-azure.
    pub honoured: bool,
    /// What it is for, or why the Service is refused.
    pub about: String,
}

/// By the names behind the prefix.
const ABOUT: &[(&str, &str)] = &[
    (
        "azure-load-balancer-internal",
        "`true`: a frontend in the network alone. `false`: one that the internet reaches, which an operator admits by `--azure-public-namespaces`. Where \
         it is not there, what `--azure-default-scheme` says: internal, unless an operator says otherwise",
    ),
    (
        "azure-load-balancer-internal-subnet",
        "the subnet of an internal frontend, by name; another than the configured one is admitted by `--azure-reference-namespaces`. A change makes \
         another frontend",
    ),
    (
        "azure-load-balancer-ipv4",
        "the address: of an internal frontend one of its subnet, of a public one that of a public IP that exists, admitted by \
         `--azure-reference-namespaces`. Services that ask for one address share it, as long as their ports differ",
    ),
    ("azure-load-balancer-ipv6", "the same for IPv6"),
    (
        "azure-pip-name",
        "the public IP, by name, admitted by `--azure-reference-namespaces`. One that exists and is not Berth's is used, and never changed or \
         deleted; where there is none by that name it is made, and goes with the last Service that uses it",
    ),
    ("azure-pip-name-ipv6", "the same for the IPv6 frontend"),
    (
        "azure-pip-prefix-id",
        "path of the public IP prefix that a new public IP is taken from, admitted by `--azure-reference-namespaces`",
    ),
    ("azure-pip-prefix-id-ipv6", "the same for the IPv6 frontend"),
    (
        "azure-load-balancer-resource-group",
        "resource group of the public IP, if it is another than the configured one; admitted by `--azure-reference-namespaces`",
    ),
    ("azure-pip-tags", "tags of a public IP that Berth makes, `a=b,c=d`; Berth's own win"),
    (
        "azure-pip-ip-tags",
        "IP tags of a public IP that Berth makes, such as `RoutingPreference=Internet`. A change makes another public IP",
    ),
    (
        "azure-dns-label-name",
        "domain name label of a public IP that Berth makes; an empty one takes the label away. Of two Services that want one label the first has it",
    ),
    ("azure-additional-public-ips", "further destinations of the security rules"),
    (
        "azure-allowed-ip-ranges",
        "ranges of clients, by commas. Not beside `spec.loadBalancerSourceRanges`. One that cannot be read refuses the Service",
    ),
    ("azure-allowed-service-tags", "service tags of Azure that are let in, by commas, such as `AzureCloud`"),
    ("azure-deny-all-except-load-balancer-source-ranges", "`true`: nobody else is let in, not even from the network"),
    ("azure-disable-load-balancer-nsg-rule", "`true`: no security rules are made for the Service"),
    ("azure-shared-securityrule", "says what is so anyway: Services with equal ports and sources share a rule"),
    (
        "azure-load-balancer-tcp-idle-timeout",
        "minutes after which an idle connection is forgotten, 4 to 100; 4 by default",
    ),
    (
        "azure-load-balancer-disable-tcp-reset",
        "`true`: both ends are not told that their idle connection was forgotten",
    ),
    (
        "azure-disable-load-balancer-floating-ip",
        "`true`: nodes get traffic at their own addresses and node ports, in place of the frontend's address and port",
    ),
    (
        "azure-load-balancer-enable-high-availability-ports",
        "`true`: one rule for all ports and protocols, of an internal frontend. The nodes still take only the ports of the Service",
    ),
    (
        "azure-load-balancer-health-probe-protocol",
        "`tcp` (the default), `http` or `https`. `appProtocol` never makes it another. Not with `externalTrafficPolicy: Local`, whose health-check node \
         port is asked by HTTP",
    ),
    ("azure-load-balancer-health-probe-interval", "seconds between two questions, 5 to 119; 5 by default"),
    (
        "azure-load-balancer-health-probe-num-of-probe",
        "missing answers in a row after which a node gets no traffic, 2 to 23; 2 by default. Times the interval it is less than 120 s",
    ),
    ("azure-load-balancer-health-probe-request-path", "path for HTTP and HTTPS; `/` by default"),
    ("azure-load-balancer-configurations", "which of several load balancers"),
    ("azure-load-balancer-mode", "which load balancer of the basic SKU"),
    ("azure-pls-create", "`true`: a PrivateLinkService in front of the frontend"),
    ("azure-pls-name", "its name"),
    ("azure-pls-resource-group", "its resource group"),
    ("azure-pls-ip-configuration-subnet", "its subnet"),
    ("azure-pls-ip-configuration-ip-address-count", "how many addresses it has"),
    ("azure-pls-ip-configuration-ip-address", "its addresses"),
    ("azure-pls-fqdns", "its names"),
    ("azure-pls-proxy-protocol", "whether it speaks the PROXY protocol"),
    ("azure-pls-visibility", "who sees it"),
    ("azure-pls-auto-approval", "who is approved without a question"),
];

/// Those of one port, by what follows the port.
const ABOUT_PORT: &[(&str, &str)] = &[
    ("health-probe_protocol", "`tcp`, `http` or `https`, for this port"),
    (
        "health-probe_port",
        "where nodes are asked for this port: a number of a node's port, or a port of the Service, by number or name, whose node port it is",
    ),
    ("health-probe_interval", "seconds between two questions, for this port"),
    ("health-probe_num-of-probe", "missing answers in a row, for this port"),
    ("health-probe_request-path", "path for HTTP and HTTPS, for this port"),
    ("no_lb_rule", "`true`: this port has no rule at the load balancer, and no probe"),
    ("no_probe_rule", "`true`: this port has a rule and no probe: all nodes get traffic"),
];

/// All lines, in the order of the names.
pub fn lines() -> Vec<Line> {
    let honoured = |annotation: String, about: &str| Line { annotation, honoured: true, about: about.to_owned() };
    let told = |all: &[(&str, &'static str)], name: &str| {
        all.iter().find(|(of, _)| *of == name).map(|(_, about)| *about).unwrap_or_default()
    };
    let known = KNOWN.iter().map(|(name, treatment)| {
        let (annotation, about) = (format!("{PREFIX}{name}"), told(ABOUT, name));
        match treatment {
            Treatment::Honoured => honoured(annotation, about),
            Treatment::Refused { harmless, why } => {
                let value = harmless
                    .first()
                    .map(|value| if value.is_empty() { "empty".to_owned() } else { format!("`{value}`") });
                let but = value.map(|value| format!(", unless it is {value}")).unwrap_or_default();
                Line { annotation, honoured: false, about: format!("{about}: refused{but}, because {why}") }
            }
        }
    });
    let of_port = OF_PORT.iter().map(|key| honoured(format!("{PREFIX}{PORT}PORT_{key}"), told(ABOUT_PORT, key)));
    let source_ranges = honoured(
        format!("{PREFIX}load-balancer-source-ranges"),
        "ranges of clients, used where `spec.loadBalancerSourceRanges` is empty; everybody in the internet, for a public frontend, where nothing is said",
    );
    let mut lines: Vec<_> = known.chain(of_port).chain([source_ranges]).collect();
    lines.sort_by(|a, b| a.annotation.cmp(&b.annotation));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_annotation_is_told_of_once() {
        let sorted = |names: Vec<&str>| {
            let mut names = names;
            names.sort_unstable();
            names.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let known = sorted(KNOWN.iter().map(|(name, _)| *name).collect());
        assert_eq!(sorted(ABOUT.iter().map(|(name, _)| *name).collect()), known);
        assert_eq!(sorted(ABOUT_PORT.iter().map(|(name, _)| *name).collect()), sorted(OF_PORT.to_vec()));
    }

    #[test]
    fn one_that_is_refused_says_why() {
        let lines = lines();
        let of = |name: &str| lines.iter().find(|line| line.annotation.ends_with(name)).unwrap();
        let mode = "which load balancer of the basic SKU: refused, unless it is empty, because it chooses between load balancers of \
                    the basic SKU, which is retired";
        assert_eq!(of("azure-load-balancer-mode").about, mode);
        assert!(of("azure-pls-create").about.contains("refused, unless it is `false`, because"));
        assert!(of("port_PORT_no_lb_rule").honoured && of("azure-pip-name").honoured);
    }
}
