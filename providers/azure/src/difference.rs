//! What a step changes, part by part, for people: a document that is written whole says little by itself.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::document::{at, name, parts, port, text};
use crate::step::{Kind, Step};

/// Stands for a node port that the API server chooses. No node port has this number.
pub const PORT_UNKNOWN: u16 = 1;
/// What is shown for it.
const NODE_PORT: &str = "<node port>";
/// Minutes after which rules forget connections where nothing is said.
const IDLE: u64 = 4;
/// Lists of a load balancer, in the order in which one refers to the other.
const LISTS: [&str; 7] = [
    "frontendIPConfigurations",
    "backendAddressPools",
    "probes",
    "loadBalancingRules",
    "outboundRules",
    "inboundNatRules",
    "inboundNatPools",
];
/// Fields that only Azure writes.
const READ_ONLY: [&str; 5] = ["etag", "id", "type", "provisioningState", "resourceGuid"];

/// What becomes of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It comes.
    Create,
    /// It becomes another.
    Change,
    /// It goes.
    Delete,
}

impl Change {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Delete => "delete",
        }
    }
}

/// What becomes of a resource or of a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What becomes of it.
    pub change: Change,
    /// Of which kind it is, as ARM calls it: `loadBalancers`, `loadBalancingRules`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What it is, or what of it changes.
    pub detail: String,
}

impl Difference {
    fn new(change: Change, kind: &'static str, name: &str, detail: String) -> Self {
        Self { change, kind, name: name.to_owned(), detail }
    }

    /// The kind, as people call it.
    pub fn resource(&self) -> &'static str {
        match self.kind {
            "loadBalancers" => "load balancer",
            "publicIPAddresses" => "public IP",
            "networkSecurityGroups" => "security group",
            "frontendIPConfigurations" => "frontend",
            "backendAddressPools" => "backend pool",
            "probes" => "probe",
            "loadBalancingRules" => "rule",
            "securityRules" => "security rule",
            other => other,
        }
    }
}

/// What a step changes of what is there.
pub fn differences(before: Option<&Value>, step: &Step) -> Vec<Difference> {
    let (kind, id, after) = match step {
        Step::Delete { kind, id, .. } => {
            let detail = match (kind, before) {
                (Kind::PublicIp, Some(before)) => {
                    text(before, &["properties", "ipAddress"]).unwrap_or_default().to_owned()
                }
                _ => String::new(),
            };
            return vec![Difference::new(Change::Delete, arm(*kind), id.name(), detail)];
        }
        Step::Wait { .. } => return Vec::new(),
        Step::Put { kind, id, body, .. } => (*kind, id, body),
    };
    let mut all = Vec::new();
    match (kind, before) {
        (Kind::PublicIp, None) => all.push(Difference::new(Change::Create, arm(kind), id.name(), public_ip(after))),
        (Kind::PublicIp, Some(before)) => {
            let detail = fields(before, after).join(", ");
            all.push(Difference::new(Change::Change, arm(kind), id.name(), detail));
        }
        (Kind::LoadBalancer, before) => {
            if before.is_none() {
                let region = text(after, &["location"]).unwrap_or_default();
                all.push(Difference::new(Change::Create, arm(kind), id.name(), format!("Standard, in {region}")));
            }
            let before = before.unwrap_or(&Value::Null);
            all.extend(LISTS.iter().flat_map(|list| of_list(list, before, after)));
        }
        (Kind::SecurityGroup, before) => {
            all.extend(of_list("securityRules", before.unwrap_or(&Value::Null), after));
        }
    }
    if all.is_empty() {
        let detail = "written again, because Azure failed to carry out an earlier change".to_owned();
        all.push(Difference::new(Change::Change, arm(kind), id.name(), detail));
    }
    all
}

fn arm(kind: Kind) -> &'static str {
    match kind {
        Kind::PublicIp => "publicIPAddresses",
        Kind::SecurityGroup => "networkSecurityGroups",
        Kind::LoadBalancer => "loadBalancers",
    }
}

/// What becomes of the parts of a list.
fn of_list(list: &'static str, before: &Value, after: &Value) -> Vec<Difference> {
    let (old, new) = (parts(before, list), parts(after, list));
    let find = |all: &'_ [Value], called: &str| all.iter().position(|part| name(part) == called);
    let mut all = Vec::new();
    for part in new {
        match find(old, name(part)).map(|index| &old[index]) {
            None => all.push(Difference::new(Change::Create, list, name(part), describe(list, part))),
            Some(old) if old != part => {
                let changed = fields(old, part);
                if !changed.is_empty() {
                    all.push(Difference::new(Change::Change, list, name(part), changed.join(", ")));
                }
            }
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|part| find(new, name(part)).is_none());
    all.extend(gone.map(|part| Difference::new(Change::Delete, list, name(part), describe(list, part))));
    all
}

fn describe(list: &str, part: &Value) -> String {
    match list {
        "frontendIPConfigurations" => frontend(part),
        "backendAddressPools" => "filled with the addresses of nodes".to_owned(),
        "probes" => probe(part),
        "loadBalancingRules" => rule(part),
        "securityRules" => security_rule(part),
        _ => String::new(),
    }
}

/// The name in a path that a field refers to.
fn referred<'a>(part: &'a Value, field: &str) -> Option<&'a str> {
    text(part, &["properties", field, "id"])?.rsplit('/').next()
}

fn frontend(part: &Value) -> String {
    if let Some(called) = referred(part, "publicIPAddress") {
        return format!("public IP {called}");
    }
    let address = text(part, &["properties", "privateIPAddress"]);
    let address = address.map_or_else(|| "an address that Azure chooses".to_owned(), str::to_owned);
    match referred(part, "subnet") {
        Some(subnet) => format!("{address} in the subnet {subnet}"),
        None => address,
    }
}

fn node_port(part: &Value, field: &str) -> String {
    match port(part, &["properties", field]) {
        Some(PORT_UNKNOWN) => NODE_PORT.to_owned(),
        other => other.map_or_else(String::new, |port| port.to_string()),
    }
}

fn probe(part: &Value) -> String {
    let protocol = text(part, &["properties", "protocol"]).unwrap_or_default();
    let path = text(part, &["properties", "requestPath"]).map(|path| format!(" {path}")).unwrap_or_default();
    let number = |field| at(part, &["properties", field]).and_then(Value::as_u64);
    let count = number("probeThreshold").or_else(|| number("numberOfProbes")).unwrap_or_default();
    let interval = number("intervalInSeconds").unwrap_or_default();
    format!("{protocol}{path} at {} each {interval} s, {count} times", node_port(part, "port"))
}

fn rule(part: &Value) -> String {
    let word = |field| text(part, &["properties", field]).unwrap_or_default();
    let is = |field| at(part, &["properties", field]).and_then(Value::as_bool) == Some(true);
    let frontend = referred(part, "frontendIPConfiguration").unwrap_or_default();
    let ports = match port(part, &["properties", "frontendPort"]) {
        Some(0) => "all ports".to_owned(),
        other => other.map_or_else(String::new, |port| port.to_string()),
    };
    let to = if is("enableFloatingIP") {
        "floating IP".to_owned()
    } else {
        format!("to {}", node_port(part, "backendPort"))
    };
    let mut said = vec![format!("{} {ports} of {frontend}", word("protocol")), to];
    said.push(referred(part, "probe").map_or_else(|| "no probe".to_owned(), |probe| format!("probe {probe}")));
    let idle = at(part, &["properties", "idleTimeoutInMinutes"]).and_then(Value::as_u64);
    said.extend(idle.filter(|idle| *idle != IDLE).map(|idle| format!("idle {idle} min")));
    if word("loadDistribution") == "SourceIP" {
        said.push("by client".to_owned());
    }
    said.join(", ")
}

fn security_rule(part: &Value) -> String {
    let listed = |one: &str, many: &str| {
        let single = text(part, &["properties", one]).filter(|one| !one.is_empty());
        let all = parts(part, many).iter().filter_map(Value::as_str).chain(single);
        all.collect::<Vec<_>>().join(",")
    };
    let access = text(part, &["properties", "access"]).unwrap_or_default();
    let protocol = text(part, &["properties", "protocol"]).unwrap_or_default();
    let ports = listed("destinationPortRange", "destinationPortRanges");
    let from = listed("sourceAddressPrefix", "sourceAddressPrefixes");
    let to = listed("destinationAddressPrefix", "destinationAddressPrefixes");
    let priority = port(part, &["properties", "priority"]).unwrap_or_default();
    format!("{access} {protocol} {ports} from {from} to {to}, priority {priority}")
}

fn public_ip(after: &Value) -> String {
    let family = text(after, &["properties", "publicIPAddressVersion"]).unwrap_or("IPv4");
    let mut said = vec![format!("{family}, Standard")];
    said.extend(referred(after, "publicIPPrefix").map(|prefix| format!("from the prefix {prefix}")));
    let label = text(after, &["properties", "dnsSettings", "domainNameLabel"]);
    said.extend(label.map(|label| format!("domain name label {label}")));
    let tags = parts(after, "ipTags").iter();
    said.extend(tags.filter_map(|tag| Some(format!("{}={}", text(tag, &["ipTagType"])?, text(tag, &["tag"])?))));
    said.join(", ")
}

/// The fields that differ, each with what it was and what it will be.
fn fields(before: &Value, after: &Value) -> Vec<String> {
    let mut all = Vec::new();
    compare("", before, after, &mut all);
    all
}

fn compare(path: &str, before: &Value, after: &Value, all: &mut Vec<String>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) if !old.contains_key("id") || old.contains_key("properties") => {
            let mut names: Vec<&String> = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).collect();
            names.sort();
            for field in names.into_iter().filter(|field| !READ_ONLY.contains(&field.as_str())) {
                let path = match (path, field.as_str()) {
                    ("", "properties") => String::new(),
                    ("", field) => field.to_owned(),
                    (path, field) => format!("{path}.{field}"),
                };
                let null = &Value::Null;
                compare(&path, old.get(field).unwrap_or(null), new.get(field).unwrap_or(null), all);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            let comes = new.iter().filter(|one| !old.contains(one)).map(|one| format!(" +{}", Shown(one)));
            let goes = old.iter().filter(|one| !new.contains(one)).map(|one| format!(" -{}", Shown(one)));
            let changes: String = comes.chain(goes).collect();
            if !changes.is_empty() {
                all.push(format!("{path}{changes}"));
            }
        }
        // A list and no list say the same where the list is empty.
        (Value::Null, Value::Array(list)) | (Value::Array(list), Value::Null) if list.is_empty() => {}
        (Value::Null, Value::Array(_)) => compare(path, &Value::Array(Vec::new()), after, all),
        (Value::Array(_), Value::Null) => compare(path, before, &Value::Array(Vec::new()), all),
        _ => all.push(format!("{path} {} -> {}", Shown(before), Shown(after))),
    }
}

/// A value in few letters.
struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("none"),
            Value::String(text) => f.write_str(text),
            other => match text(other, &["id"]).and_then(|id| id.rsplit('/').next()) {
                Some(called) => f.write_str(called),
                None => other.fmt(f),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::arm::Id;

    fn put(kind: Kind, body: Value) -> Step {
        let id = Id::new("/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/x/one");
        Step::Put { kind, id, if_match: None, summary: String::new(), changes: Vec::new(), body }
    }

    fn said(before: Option<Value>, step: &Step) -> Vec<String> {
        let all = differences(before.as_ref(), step);
        all.iter().map(|d| format!("{} {} {}: {}", d.change.as_str(), d.resource(), d.name, d.detail)).collect()
    }

    #[test]
    fn a_load_balancer_is_told_part_by_part() {
        let rule = |port: u16, idle: u64| {
            json!({"name": format!("r{port}"), "etag": "e", "properties": {
                "protocol": "Tcp", "frontendPort": port, "backendPort": port, "enableFloatingIP": true, "idleTimeoutInMinutes": idle,
                "frontendIPConfiguration": {"id": "/a/front"}, "probe": {"id": "/a/probe"}, "loadDistribution": "Default",
            }})
        };
        let document = |rules: Value| json!({"location": "westeurope", "properties": {"loadBalancingRules": rules}});
        let before = document(json!([rule(80, 4), rule(81, 4), rule(82, 4)]));
        let mut moved = rule(82, 4);
        moved["etag"] = json!("another");
        let mut odd = rule(83, 9);
        odd["properties"]["enableFloatingIP"] = json!(false);
        odd["properties"]["backendPort"] = json!(PORT_UNKNOWN);
        odd["properties"]["probe"] = Value::Null;
        odd["properties"]["loadDistribution"] = json!("SourceIP");
        let after = document(json!([rule(80, 10), moved, odd]));
        assert_eq!(
            said(Some(before), &put(Kind::LoadBalancer, after.clone())),
            [
                "change rule r80: idleTimeoutInMinutes 4 -> 10",
                "create rule r83: Tcp 83 of front, to <node port>, no probe, idle 9 min, by client",
                "delete rule r81: Tcp 81 of front, floating IP, probe probe",
            ]
        );
        assert_eq!(
            said(Some(after.clone()), &put(Kind::LoadBalancer, after)),
            ["change load balancer one: written again, because Azure failed to carry out an earlier change"]
        );
    }

    #[test]
    fn a_security_rule_is_told_by_what_it_lets_in_and_changes_by_what_comes_and_goes() {
        let rule = |to: Value| {
            json!({"properties": {"securityRules": [{"name": "r", "properties": {
                "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": "Internet", "destinationPortRanges": ["80", "443"],
                "destinationAddressPrefixes": to, "priority": 500,
            }}]}})
        };
        let after = rule(json!(["192.0.2.1", "192.0.2.3"]));
        assert_eq!(
            said(Some(json!({})), &put(Kind::SecurityGroup, after.clone())),
            ["create security rule r: Allow Tcp 80,443 from Internet to 192.0.2.1,192.0.2.3, priority 500"]
        );
        assert_eq!(
            said(Some(rule(json!(["192.0.2.1", "192.0.2.2"]))), &put(Kind::SecurityGroup, after)),
            ["change security rule r: destinationAddressPrefixes +192.0.2.3 -192.0.2.2"]
        );
    }

    #[test]
    fn a_public_ip_is_told_by_what_it_is_and_by_the_fields_that_change() {
        let body = json!({"tags": {"a": "1"}, "properties": {
            "publicIPAddressVersion": "IPv6", "publicIPPrefix": {"id": "/x/pool"}, "dnsSettings": {"domainNameLabel": "shop"},
            "ipTags": [{"ipTagType": "RoutingPreference", "tag": "Internet"}],
        }});
        assert_eq!(
            said(None, &put(Kind::PublicIp, body.clone())),
            [
                "create public IP one: IPv6, Standard, from the prefix pool, domain name label shop, RoutingPreference=Internet"
            ]
        );
        let mut before = body.clone();
        before["tags"] = json!({"b": "2"});
        before["properties"]["dnsSettings"] = Value::Null;
        before["properties"]["ipTags"] = Value::Null;
        let expected = "change public IP one: dnsSettings none -> {\"domainNameLabel\":\"shop\"}, ipTags \
                        +{\"ipTagType\":\"RoutingPreference\",\"tag\":\"Internet\"}, tags.a none -> 1, tags.b 2 -> none";
        assert_eq!(said(Some(before), &put(Kind::PublicIp, body)), [expected]);
    }
}
