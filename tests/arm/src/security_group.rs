//! What network security groups have to be.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::resource::{Path, name_parts, parts, unique};
use crate::{Checked, State, refused};

const RULES: &str = "securityRules";
/// Sources or destinations of one rule (Azure rule).
const PREFIXES: usize = 4000;

impl State {
    pub(crate) fn security_group(&mut self, path: &Path, document: &mut Value) -> Checked<()> {
        if !document["properties"][RULES].is_array() {
            document["properties"][RULES] = json!([]);
        }
        unique(document, RULES)?;
        if parts(document, RULES).len() > self.limits.security_rules {
            let message = format!("A network security group may have {} rules.", self.limits.security_rules);
            return refused("NetworkSecurityGroupRuleCountLimitReached", message);
        }
        let mut seen = BTreeSet::new();
        for rule in parts(document, RULES) {
            check(rule)?;
            let direction = rule["properties"]["direction"].to_string();
            if !seen.insert((direction, rule["properties"]["priority"].as_u64())) {
                let message =
                    format!("Security rule {} has the same priority and direction as another rule.", rule["name"]);
                return refused("SecurityRuleConflict", message);
            }
        }
        let serial = self.next();
        name_parts(path, document, RULES, serial);
        for rule in document["properties"][RULES].as_array_mut().into_iter().flatten() {
            let Some(properties) = rule["properties"].as_object_mut() else { continue };
            for many in
                ["sourceAddressPrefixes", "destinationAddressPrefixes", "sourcePortRanges", "destinationPortRanges"]
            {
                properties.entry(many).or_insert_with(|| json!([]));
            }
        }
        if document["properties"].get("defaultSecurityRules").is_none() {
            document["properties"]["defaultSecurityRules"] = json!([{"name": "AllowVnetInBound"}]);
        }
        Ok(())
    }
}

fn is_range(text: &str) -> bool {
    let (address, length) = text.split_once('/').unwrap_or((text, "0"));
    address.parse::<std::net::IpAddr>().is_ok() && length.parse::<u8>().is_ok()
}

fn check(rule: &Value) -> Checked<()> {
    let (name, properties) = (rule["name"].as_str().unwrap_or_default(), &rule["properties"]);
    if properties["priority"].as_u64().is_none_or(|priority| !(100..=4096).contains(&priority)) {
        return refused("SecurityRuleInvalidPriority", format!("Security rule {name}: the priority is 100 to 4096."));
    }
    if !["Tcp", "Udp", "Icmp", "*"].iter().any(|known| properties["protocol"] == **known) {
        return refused("SecurityRuleInvalidProtocol", format!("Security rule {name} has an invalid protocol."));
    }
    for (one, many) in [
        ("sourceAddressPrefix", "sourceAddressPrefixes"),
        ("destinationAddressPrefix", "destinationAddressPrefixes"),
        ("sourcePortRange", "sourcePortRanges"),
        ("destinationPortRange", "destinationPortRanges"),
    ] {
        let listed = properties[many].as_array().map_or(&[] as &[Value], Vec::as_slice);
        let single = properties[one].as_str().is_some_and(|text| !text.is_empty());
        if single != listed.is_empty() {
            let message = format!("Security rule {name} must have {one} or {many}, and not both.");
            return refused("SecurityRuleParameterContainsUnsupportedValue", message);
        }
        let words = one.ends_with("Prefix") && listed.iter().any(|text| !text.as_str().is_some_and(is_range));
        let different: BTreeSet<String> = listed.iter().map(ToString::to_string).collect();
        if words || listed.len() > PREFIXES || different.len() != listed.len() {
            return refused("SecurityRuleInvalidAddressPrefix", format!("Security rule {name} has invalid {many}."));
        }
    }
    Ok(())
}
