//! The rules and health probes that a Service asks for.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use berth_api::IpFamily;
use berth_api::service::TrafficPolicy;
use berth_provider::{Intent, Port, Protocol};

use super::front::{Front, Scheme};
use crate::annotation::{Annotations, OF_PORT, contradiction, full, wrong};
use crate::names::SHARED_PROBE;
use crate::refusal::Refusal;
use crate::settings::{ClusterProbe, Settings};

/// Minutes after which an idle connection is forgotten (Azure rule).
const IDLE: RangeInclusive<u16> = 4..=100;
const IDLE_DEFAULT: u16 = 4;
/// Seconds between two questions (Azure rule).
const INTERVAL: RangeInclusive<u32> = 5..=119;
const INTERVAL_DEFAULT: u32 = 5;
/// Questions without an answer (Azure rule).
const COUNT: RangeInclusive<u32> = 2..=23;
const COUNT_DEFAULT: u32 = 2;
/// Seconds after which a node must have been found out (rule of cloud-provider-azure).
const FOUND_OUT: u32 = 120;
/// Where nodes answer whether they have an endpoint (Kubernetes rule).
const LOCAL_PATH: &str = "/healthz";
const FLOATING: &str = "azure-disable-load-balancer-floating-ip";
const ALL_PORTS: &str = "azure-load-balancer-enable-high-availability-ports";
const PROBE: &str = "azure-load-balancer-health-probe";

/// What a rule carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Everything, on all ports.
    All,
}

impl Transport {
    /// As ARM spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "Tcp",
            Self::Udp => "Udp",
            Self::All => "All",
        }
    }
}

/// How a node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// By a connection.
    Tcp,
    /// By a request for this path.
    Http(String),
    /// By a request for this path, encrypted.
    Https(String),
}

/// What a probe's name is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeName {
    /// That of all Services.
    Shared,
    /// The Service's, and this.
    Own(String),
}

/// A health probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its name.
    pub name: ProbeName,
    /// How a node is asked.
    pub kind: ProbeKind,
    /// Where.
    pub port: u16,
    /// Seconds between two questions.
    pub interval: u32,
    /// Questions without an answer after which it gets no traffic.
    pub count: u32,
}

/// A load-balancing rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleAsks {
    /// What it carries.
    pub transport: Transport,
    /// To which port.
    pub port: u16,
    /// Where nodes take it, where they do not take it on the same port.
    pub node_port: Option<u16>,
    /// How nodes are asked.
    pub probe: Option<Probe>,
}

impl RuleAsks {
    /// What its name ends in.
    pub fn what(&self) -> String {
        format!("{}-{}", self.transport.as_str().to_uppercase(), self.port)
    }
}

/// The rules of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Each.
    pub rules: Vec<RuleAsks>,
    /// Whether nodes take traffic for the frontend's own address and port.
    pub floating: bool,
    /// Minutes after which an idle connection is forgotten.
    pub idle_timeout: u16,
    /// Whether ends are told that it is forgotten.
    pub tcp_reset: bool,
    /// Whether a client gets to the same node each time.
    pub sticky: bool,
    /// What security rules let in: protocol, port, and port of the node.
    pub opened: BTreeSet<(&'static str, u16, Option<u16>)>,
}

impl Rules {
    pub(super) fn of(
        intent: &Intent,
        annotations: &Annotations<'_>,
        front: &Front,
        settings: &Settings,
    ) -> Result<Self, Refusal> {
        let floating = !annotations.truth(FLOATING)?;
        let all_ports = annotations.truth(ALL_PORTS)?;
        if all_ports && front.scheme == Scheme::Public {
            return Err(contradiction(ALL_PORTS, "only an internal load balancer has rules for all ports; remove it"));
        }
        if all_ports && !floating {
            return Err(contradiction(ALL_PORTS, format!("it needs floating IPs; remove it, or {}", full(FLOATING))));
        }
        known_ports(intent, annotations)?;
        let mut seen = BTreeSet::new();
        let mut rules = Vec::new();
        let mut opened = BTreeSet::new();
        let reader = Reader { intent, annotations, settings };
        for port in &intent.ports {
            if !seen.insert((port.protocol, port.port)) {
                let why = format!("port {} is there twice with one protocol; remove one", port.port);
                return Err(Refusal::Contradiction { field: "spec.ports".to_owned(), why });
            }
            let security = match port.protocol {
                Protocol::Tcp => "Tcp",
                Protocol::Udp => "Udp",
                Protocol::Sctp => "*",
            };
            let transport = match port.protocol {
                Protocol::Tcp => Transport::Tcp,
                Protocol::Udp => Transport::Udp,
                Protocol::Sctp if all_ports => Transport::All,
                Protocol::Sctp => {
                    let why = format!(
                        "Azure carries SCTP only on an internal load balancer with all ports: set {} to true, or remove the port",
                        full(ALL_PORTS)
                    );
                    return Err(Refusal::Contradiction { field: "spec.ports".to_owned(), why });
                }
            };
            let (no_rule, probe) = reader.probe(port, transport)?;
            if no_rule {
                if all_ports {
                    let why = "one rule carries all ports; remove one of the two";
                    return Err(contradiction(ALL_PORTS, format!("port_{}_no_lb_rule: {why}", port.port)));
                }
                continue;
            }
            opened.insert((security, port.port, port.node_port));
            rules.push(RuleAsks { transport, port: port.port, node_port: port.node_port, probe });
        }
        if all_ports {
            let probe = rules.iter().find_map(|rule| rule.probe.clone());
            rules = vec![RuleAsks { transport: Transport::All, port: 0, node_port: None, probe }];
        }
        let translates = front.families.iter().any(|(family, _)| !direct(floating, front.scheme, *family));
        if translates && !all_ports && rules.iter().any(|rule| rule.node_port.is_none()) {
            return Err(needs_node_ports("the load balancer sends traffic to node ports"));
        }
        if all_ports && translates {
            let why = "internal IPv6 frontends have no floating IPs, which it needs; remove it";
            return Err(contradiction(ALL_PORTS, why));
        }
        let idle = annotations.number("azure-load-balancer-tcp-idle-timeout", IDLE)?.unwrap_or(IDLE_DEFAULT);
        let tcp_reset = !annotations.truth("azure-load-balancer-disable-tcp-reset")?;
        Ok(Self { rules, floating, idle_timeout: idle, tcp_reset, sticky: intent.sticky, opened })
    }

    /// Whether nodes take traffic of this family for the frontend's own address and port.
    pub fn direct(&self, scheme: Scheme, family: IpFamily) -> bool {
        direct(self.floating, scheme, family)
    }
}

fn direct(floating: bool, scheme: Scheme, family: IpFamily) -> bool {
    floating && !(scheme == Scheme::Internal && family == IpFamily::V6)
}

fn needs_node_ports(why: &str) -> Refusal {
    let field = "spec.allocateLoadBalancerNodePorts".to_owned();
    Refusal::Contradiction { field, why: format!("{why}, and the Service has none; let it have node ports") }
}

/// What is said of a port has to be of one that the Service has.
fn known_ports(intent: &Intent, annotations: &Annotations<'_>) -> Result<(), Refusal> {
    for (key, word) in annotations.ports() {
        if !intent.ports.iter().any(|port| is_called(port, word)) {
            let why = format!("the Service has no port `{word}`; correct or remove it");
            return Err(Refusal::Contradiction { field: key.to_owned(), why });
        }
    }
    Ok(())
}

fn is_called(port: &Port, word: &str) -> bool {
    word.parse() == Ok(port.port) || (!port.name.is_empty() && port.name == word)
}

/// Reads what is said of probes.
struct Reader<'a> {
    intent: &'a Intent,
    annotations: &'a Annotations<'a>,
    settings: &'a Settings,
}

impl Reader<'_> {
    /// The name of the annotation of a port that is there, if any: by number, or by name.
    fn of_port(&self, port: &Port, key: &str) -> Option<String> {
        let words = [port.port.to_string(), port.name.clone()];
        let names = words.into_iter().filter(|word| !word.is_empty()).map(|word| format!("port_{word}_{key}"));
        names.into_iter().find(|name| self.annotations.text(name).is_some())
    }

    fn truth(&self, port: &Port, key: &str) -> Result<bool, Refusal> {
        self.of_port(port, key).map_or(Ok(false), |name| self.annotations.truth(&name))
    }

    fn number(
        &self,
        port: &Port,
        of_port: &str,
        of_all: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, Refusal> {
        let name = self.of_port(port, of_port).unwrap_or_else(|| format!("{PROBE}-{of_all}"));
        self.annotations.number(&name, range)
    }

    /// Whether the port has no rule, and how nodes are asked for it.
    fn probe(&self, port: &Port, transport: Transport) -> Result<(bool, Option<Probe>), Refusal> {
        if self.truth(port, "no_lb_rule")? {
            return Ok((true, None));
        }
        if self.truth(port, "no_probe_rule")? {
            return Ok((false, None));
        }
        let interval = self.number(port, "health-probe_interval", "interval", INTERVAL)?.unwrap_or(INTERVAL_DEFAULT);
        let count = self.number(port, "health-probe_num-of-probe", "num-of-probe", COUNT)?.unwrap_or(COUNT_DEFAULT);
        if interval * count >= FOUND_OUT {
            let why = format!("{interval} s times {count} probes is {FOUND_OUT} s or more; lower one of the two");
            return Err(contradiction(&format!("{PROBE}-interval"), why));
        }
        if let Some((name, probe_port, path)) = self.common()? {
            self.says_the_same(port, path)?;
            let kind = ProbeKind::Http(path.to_owned());
            return Ok((false, Some(Probe { name, kind, port: probe_port, interval, count })));
        }
        if transport != Transport::Tcp {
            let said =
                OF_PORT.iter().filter(|key| key.starts_with("health-probe")).find_map(|key| self.of_port(port, key));
            return match said {
                Some(name) => {
                    Err(contradiction(&name, "nodes are asked by TCP alone; remove it, or set it for a TCP port"))
                }
                None => Ok((false, None)),
            };
        }
        let kind = self.kind(port)?;
        let Some(number) = self.number_of(port)? else {
            return Err(needs_node_ports("nodes are asked on node ports whether they take traffic"));
        };
        let name = ProbeName::Own(format!("TCP-{}", port.port));
        Ok((false, Some(Probe { name, kind, port: number, interval, count })))
    }

    /// The probe that all ports have in common, if they do.
    fn common(&self) -> Result<Option<(ProbeName, u16, &str)>, Refusal> {
        match (self.intent.policy, &self.settings.cluster_probe) {
            (TrafficPolicy::Local, _) => {
                let Some(port) = self.intent.health_check_node_port else {
                    let why = "the Service has none yet, and nodes are asked there".to_owned();
                    return Err(Refusal::Contradiction { field: "spec.healthCheckNodePort".to_owned(), why });
                };
                Ok(Some((ProbeName::Own(format!("TCP-{port}")), port, LOCAL_PATH)))
            }
            (TrafficPolicy::Cluster, ClusterProbe::Shared { port, path }) => Ok(Some((ProbeName::Shared, *port, path))),
            (TrafficPolicy::Cluster, ClusterProbe::ServiceNodePort) => Ok(None),
        }
    }

    /// What is said of probes has to be what is done where all ports have one probe in common.
    fn says_the_same(&self, port: &Port, path: &str) -> Result<(), Refusal> {
        let one = |key: &str, of_all: &str| self.of_port(port, key).unwrap_or_else(|| format!("{PROBE}-{of_all}"));
        let differs =
            |name: &String, is: &str| self.annotations.text(name).is_some_and(|v| !v.eq_ignore_ascii_case(is));
        let protocol = one("health-probe_protocol", "protocol");
        let asked = one("health-probe_request-path", "request-path");
        let said = [(&protocol, "http"), (&asked, path)].into_iter().find(|(name, is)| differs(name, is));
        let said = said.map(|(name, _)| name.clone()).or_else(|| self.of_port(port, "health-probe_port"));
        match said {
            Some(name) => Err(contradiction(
                &name,
                format!(
                    "all ports of the Service have one probe, HTTP {path} (its policy, or how Berth is configured); remove it"
                ),
            )),
            None => Ok(()),
        }
    }

    fn kind(&self, port: &Port) -> Result<ProbeKind, Refusal> {
        let name = self.of_port(port, "health-probe_protocol").unwrap_or_else(|| format!("{PROBE}-protocol"));
        let path_of_port = self.of_port(port, "health-probe_request-path");
        let path_name = path_of_port.clone().unwrap_or_else(|| format!("{PROBE}-request-path"));
        let path = self.annotations.text(&path_name);
        if let Some(path) = path.filter(|path| !path.starts_with('/')) {
            return Err(wrong(&path_name, path, "no path", "begin it with /"));
        }
        let asked = path.unwrap_or("/").to_owned();
        let word = self.annotations.text(&name).unwrap_or("tcp");
        match word.to_ascii_lowercase().as_str() {
            "tcp" if path_of_port.is_some() || (path.is_some() && !self.anybody_asks_http()) => Err(contradiction(
                &path_name,
                "nodes are asked by TCP, which asks for no path; set the protocol to http",
            )),
            "tcp" => Ok(ProbeKind::Tcp),
            "http" => Ok(ProbeKind::Http(asked)),
            "https" => Ok(ProbeKind::Https(asked)),
            _ => Err(wrong(&name, word, "none of tcp, http, https", "write one of them")),
        }
    }

    fn anybody_asks_http(&self) -> bool {
        self.intent.ports.iter().any(|port| {
            let name = self.of_port(port, "health-probe_protocol").unwrap_or_else(|| format!("{PROBE}-protocol"));
            self.annotations.text(&name).is_some_and(|word| word.to_ascii_lowercase().starts_with("http"))
        })
    }

    /// Where a node is asked: a port of the Service stands for its node port.
    fn number_of(&self, port: &Port) -> Result<Option<u16>, Refusal> {
        let Some(name) = self.of_port(port, "health-probe_port") else { return Ok(port.node_port) };
        let word = self.annotations.text(&name).unwrap_or_default();
        if let Some(other) = self.intent.ports.iter().find(|other| is_called(other, word)) {
            return Ok(other.node_port);
        }
        match word.parse::<u16>() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err(wrong(&name, word, "no port, and no name of one of the Service's", "write 1 to 65535, or a name")),
        }
    }
}

impl ProbeName {
    /// Whether it is that of all Services.
    pub fn is_shared(&self) -> bool {
        *self == Self::Shared
    }

    /// What it is called, where that does not depend on the Service.
    pub fn fixed(&self) -> Option<&'static str> {
        self.is_shared().then_some(SHARED_PROBE)
    }
}
