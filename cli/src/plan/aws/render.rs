//! Cloud load balancers as people read them.

use std::collections::BTreeSet;

use berth_api::service::ServiceKey;
use berth_aws::cloud::{HealthCheck, NewTargetGroup, Pairs, SubnetMapping, TargetType};
use berth_aws::outlook::Outlook;
use berth_aws::step::{ListenerStep, Step};
use berth_provider::PlannedStep;

use crate::plan::cloud::{Change, PORT_UNKNOWN, Row, interrupts};

/// What is shown for a port that the API server chooses.
const NODE_PORT: &str = "<node port>";

/// Whether a plan names a port that the API server may have to choose.
pub fn shows_node_ports(outlook: &Outlook) -> bool {
    outlook.steps.iter().any(|planned| match &planned.step {
        Step::CreateTargetGroup(new) => {
            is_unknown(new.port, new.target_type) || new.health_check.port == PORT_UNKNOWN.to_string()
        }
        Step::ModifyTargetGroup { health_check, .. } => health_check.port == PORT_UNKNOWN.to_string(),
        _ => false,
    })
}

fn is_unknown(port: u16, kind: TargetType) -> bool {
    kind == TargetType::Instance && port == PORT_UNKNOWN
}

/// The lines of a plan, in its order.
pub fn rows(outlook: &Outlook, without_node_ports: &BTreeSet<ServiceKey>) -> Vec<Row> {
    let made: BTreeSet<_> = outlook.steps.iter().filter_map(|planned| makes(&planned.step)).collect();
    let mut rows = Vec::new();
    for planned in &outlook.steps {
        let unknown = planned.services.iter().any(|id| without_node_ports.contains(&id.key));
        let first = rows.len();
        of_step(planned, outlook, &made, unknown, &mut rows);
        if planned.disruptive {
            interrupts(&mut rows[first..]);
        }
    }
    rows
}

/// The name of what a step makes.
fn makes(step: &Step) -> Option<&str> {
    match step {
        Step::CreateSecurityGroup { group_name, .. } => Some(group_name),
        Step::CreateTargetGroup(new) => Some(&new.name),
        Step::CreateLoadBalancer { new, .. } => Some(&new.name),
        _ => None,
    }
}

fn of_step(planned: &PlannedStep<Step>, outlook: &Outlook, made: &BTreeSet<&str>, unknown: bool, rows: &mut Vec<Row>) {
    let mut add = |change, resource, name: &str, detail: String| {
        rows.push(Row { change, resource, name: name.to_owned(), detail });
    };
    // What belongs to something new is new as well.
    let with = |owner: &str| if made.contains(owner) { Change::Create } else { Change::Alter };
    let list = |all: &BTreeSet<String>| all.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    match &planned.step {
        Step::CreateSecurityGroup { group_name, vpc_id, .. } => {
            add(Change::Create, "security group", group_name, format!("in {vpc_id}"));
        }
        Step::AuthorizeSecurityGroupIngress { group_name, ip_permissions } => {
            for rule in ip_permissions {
                add(Change::Create, "rule", &rule.to_string(), format!("let in by {group_name}"));
            }
        }
        Step::RevokeSecurityGroupIngress { group_name, ip_permissions } => {
            for rule in ip_permissions {
                add(Change::Delete, "rule", &rule.to_string(), format!("let in by {group_name}"));
            }
        }
        Step::DeleteSecurityGroup { group_name } => add(Change::Delete, "security group", group_name, String::new()),
        Step::CreateTargetGroup(new) => add(Change::Create, "target group", &new.name, target_group(new, unknown)),
        Step::ModifyTargetGroup { target_group, health_check } => {
            add(Change::Alter, "target group", target_group, health(health_check, unknown));
        }
        Step::ModifyTargetGroupAttributes { target_group, attributes } => {
            add(with(target_group), "attributes", target_group, pairs(attributes));
        }
        Step::DeleteTargetGroup { target_group } => add(Change::Delete, "target group", target_group, String::new()),
        Step::CreateLoadBalancer { new, groups, .. } => {
            let subnets: Vec<_> = new.subnet_mappings.iter().map(subnet).collect();
            let groups: Vec<_> = groups.iter().map(ToString::to_string).collect();
            let groups = if groups.is_empty() { "no security group".to_owned() } else { groups.join(", ") };
            let mut detail =
                format!("{}, {}, in {}, with {groups}", new.scheme, new.ip_address_type, subnets.join(" and "));
            let change = if outlook.replaced.is_empty() { Change::Create } else { Change::Replace };
            for old in &outlook.replaced {
                detail = format!("{detail}; in place of {old}, which is deleted once no status names it");
            }
            add(change, "load balancer", &new.name, detail);
        }
        Step::SetSubnets { load_balancer, subnet_mappings } => {
            let subnets: Vec<_> = subnet_mappings.iter().map(subnet).collect();
            add(Change::Alter, "load balancer", load_balancer, format!("in {}", subnets.join(" and ")));
        }
        Step::SetSecurityGroups { load_balancer, security_groups, enforce_on_private_link } => {
            let groups: Vec<_> = security_groups.iter().map(ToString::to_string).collect();
            let enforce = enforce_on_private_link.map(|on| if on { "on" } else { "off" });
            let enforce = enforce.map(|on| format!(", rules for PrivateLink {on}")).unwrap_or_default();
            add(Change::Alter, "load balancer", load_balancer, format!("with {}{enforce}", groups.join(", ")));
        }
        Step::SetIpAddressType { load_balancer, ip_address_type } => {
            add(Change::Alter, "load balancer", load_balancer, ip_address_type.to_string());
        }
        Step::ModifyLoadBalancerAttributes { load_balancer, attributes } => {
            add(with(load_balancer), "attributes", load_balancer, pairs(attributes));
        }
        Step::DeleteLoadBalancer { load_balancer } => {
            add(Change::Delete, "load balancer", load_balancer, String::new());
        }
        Step::CreateListener { listener, .. } => add(Change::Create, "listener", &at(listener), to(listener)),
        Step::ModifyListener(listener) => add(Change::Alter, "listener", &at(listener), to(listener)),
        Step::AddListenerCertificates { load_balancer, port, certificates } => {
            add(with(load_balancer), "listener", &port.to_string(), format!("shows also {}", list(certificates)));
        }
        Step::RemoveListenerCertificates { port, certificates, .. } => {
            add(Change::Alter, "listener", &port.to_string(), format!("shows no more {}", list(certificates)));
        }
        Step::ModifyListenerAttributes { load_balancer, port, attributes } => {
            add(with(load_balancer), "attributes", &format!("listener {port}"), pairs(attributes));
        }
        Step::DeleteListener { load_balancer, port } => {
            add(Change::Delete, "listener", &port.to_string(), format!("of {load_balancer}"));
        }
        Step::AddTags { resource, tags } => add(Change::Alter, "tags", &resource.to_string(), pairs(tags)),
        Step::RemoveTags { resource, tag_keys } => {
            add(Change::Alter, "tags", &resource.to_string(), format!("without {}", tag_keys.join(", ")));
        }
    }
}

fn at(listener: &ListenerStep) -> String {
    format!("{} {}", listener.protocol, listener.port)
}

fn to(listener: &ListenerStep) -> String {
    let ListenerStep { load_balancer, target_group, tls, .. } = listener;
    let tls = tls.as_ref().map(|tls| {
        let certificate = tls.certificates.first().map(|arn| format!(", certificate {arn}")).unwrap_or_default();
        let alpn = tls.alpn.as_ref().map(|alpn| format!(", ALPN {alpn}")).unwrap_or_default();
        format!(", {}{certificate}{alpn}", tls.policy)
    });
    format!("of {load_balancer} to {target_group}{}", tls.unwrap_or_default())
}

fn target_group(new: &NewTargetGroup, unknown: bool) -> String {
    let NewTargetGroup { target_type, protocol, port, ip_address_type, health_check, .. } = new;
    let port = match target_type {
        TargetType::Instance if unknown && *port == PORT_UNKNOWN => NODE_PORT.to_owned(),
        TargetType::Instance => format!("node port {port}"),
        // By the name of a port, which each pod has of its own.
        TargetType::Ip if *port == PORT_UNKNOWN => "each one's own port".to_owned(),
        TargetType::Ip => format!("port {port}"),
    };
    format!("{protocol} to {target_type} targets ({ip_address_type}) at {port}; {}", health(health_check, unknown))
}

fn health(check: &HealthCheck, unknown: bool) -> String {
    let HealthCheck { protocol, port, path, interval, .. } = check;
    let port = if unknown && *port == PORT_UNKNOWN.to_string() { NODE_PORT } else { port };
    let path = path.as_ref().map(|path| format!(" {path}")).unwrap_or_default();
    format!("health {protocol}{path} at {port} each {interval} s")
}

fn subnet(mapping: &SubnetMapping) -> String {
    let SubnetMapping { subnet_id, allocation_id, private_ipv4, ipv6 } = mapping;
    let addresses = allocation_id.iter().cloned().chain(private_ipv4.iter().map(ToString::to_string));
    let addresses: Vec<_> = addresses.chain(ipv6.iter().map(ToString::to_string)).collect();
    if addresses.is_empty() { subnet_id.clone() } else { format!("{subnet_id} ({})", addresses.join(", ")) }
}

fn pairs(pairs: &Pairs) -> String {
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}
