//! What load balancers have to be.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use crate::resource::{Path, name_parts, parts, reference, unique};
use crate::{Checked, State, refused};

const FRONTENDS: &str = "frontendIPConfigurations";
const POOLS: &str = "backendAddressPools";
const RULES: &str = "loadBalancingRules";
const PROBES: &str = "probes";
const KINDS: [&str; 7] = [FRONTENDS, POOLS, RULES, PROBES, "outboundRules", "inboundNatRules", "inboundNatPools"];

impl State {
    pub(crate) fn load_balancer(&mut self, path: &Path, document: &mut Value, old: Option<&Value>) -> Checked<()> {
        if document["sku"]["name"] != "Standard" {
            return refused("SkuNotSupported", "Only load balancers of the SKU Standard are made.");
        }
        for kind in KINDS {
            list(document, kind);
            unique(document, kind)?;
        }
        for pool in document["properties"][POOLS].as_array_mut().into_iter().flatten() {
            list(pool, "loadBalancerBackendAddresses");
        }
        let serial = self.next();
        for kind in KINDS {
            name_parts(path, document, kind, serial);
        }
        self.frontends(path, document, old)?;
        rules(path, document)?;
        probes(document)?;
        pools(document)?;
        self.rules_behind_interfaces(path, document)?;
        refer(document);
        Ok(())
    }

    fn frontends(&self, path: &Path, document: &mut Value, old: Option<&Value>) -> Checked<()> {
        let mut used = self.private_addresses();
        let there = parts(document, FRONTENDS).to_vec();
        used.extend(
            there.iter().filter(|f| f["properties"]["privateIPAllocationMethod"] == "Static").filter_map(private),
        );
        let (mut public, mut seen, mut statics) = (0, BTreeSet::new(), BTreeSet::new());
        for frontend in document["properties"][FRONTENDS].as_array_mut().into_iter().flatten() {
            let name = frontend["name"].as_str().unwrap_or_default().to_owned();
            let before = old.into_iter().flat_map(|old| parts(old, FRONTENDS)).find(|f| f["name"] == *name);
            match (reference(frontend, "publicIPAddress"), reference(frontend, "subnet")) {
                (Some(ip), None) => {
                    public += 1;
                    self.public_frontend(path, &ip, &name)?;
                    if !seen.insert(ip) {
                        let message = format!("The public IP of {name} is referenced by more than one frontend.");
                        return refused("PublicIPAddressInUse", message);
                    }
                }
                (None, Some(subnet)) => {
                    if before.is_some_and(|before| reference(before, "subnet").is_some_and(|was| was != subnet)) {
                        let message = format!("The subnet of the frontend {name} cannot be changed.");
                        return refused("FrontendSubnetCannotBeChanged", message);
                    }
                    self.internal_frontend(frontend, before, &subnet, &mut used, &mut statics)?;
                }
                _ => {
                    let message = format!("Frontend {name} must reference either a subnet or a public IP address.");
                    return refused("LoadBalancerFrontendMustReferenceSubnetOrPublicIP", message);
                }
            }
        }
        if public > 0 && public < there.len() {
            return refused("LoadBalancerMixesFrontends", "A load balancer is public or internal, and not both.");
        }
        Ok(())
    }

    fn public_frontend(&self, path: &Path, ip: &str, name: &str) -> Checked<()> {
        let Some(resource) = self.resources.get(ip) else {
            return refused("InvalidResourceReference", format!("Resource {ip} referenced by {name} was not found."));
        };
        let properties = &resource.document["properties"];
        if properties["provisioningState"] != "Succeeded" {
            let message = format!("Cannot proceed: resource {ip} used by {name} is not in Succeeded state.");
            return refused("ReferencedResourceNotProvisioned", message);
        }
        let by = properties["ipConfiguration"]["id"].as_str().unwrap_or_default().to_lowercase();
        if !by.is_empty() && !by.starts_with(&format!("{}/", path.key())) {
            return refused(
                "PublicIPAddressInUse",
                format!("Resource {name} is referencing public IP {ip} that is in use."),
            );
        }
        Ok(())
    }

    fn internal_frontend(
        &self,
        frontend: &mut Value,
        before: Option<&Value>,
        subnet: &str,
        used: &mut BTreeSet<IpAddr>,
        statics: &mut BTreeSet<IpAddr>,
    ) -> Checked<()> {
        let name = frontend["name"].as_str().unwrap_or_default().to_owned();
        let network = subnet.split("/subnets/").next().unwrap_or_default();
        let resource = self.resources.get(network);
        let found = resource.and_then(|network| {
            parts(&network.document, "subnets")
                .iter()
                .find(|s| s["id"].as_str().is_some_and(|id| id.to_lowercase() == subnet))
        });
        let Some(found) = found else {
            return refused(
                "InvalidResourceReference",
                format!("Resource {subnet} referenced by {name} was not found."),
            );
        };
        let v6 = frontend["properties"]["privateIPAddressVersion"] == "IPv6";
        if frontend["properties"]["privateIPAllocationMethod"] == "Static" {
            let Some(address) = private(frontend) else {
                return refused("PrivateIPAddressMissing", format!("{name} is static and has no address."));
            };
            let prefix = found["properties"]["addressPrefix"].as_str().unwrap_or_default();
            if !v6 && !within(prefix, address) {
                let message =
                    format!("Private static IP address {address} of {name} is not within the subnet {subnet}.");
                return refused("PrivateIPAddressNotInSubnet", message);
            }
            let elsewhere = self.private_addresses_of_others(frontend);
            if !statics.insert(address) || elsewhere.contains(&address) {
                let message =
                    format!("IP configuration {name} is using the private IP address {address} which is in use.");
                return refused("PrivateIPAddressInUse", message);
            }
            return Ok(());
        }
        let kept = before.and_then(private);
        let address =
            kept.or_else(|| free(found["properties"]["addressPrefix"].as_str().unwrap_or_default(), v6, used));
        let Some(address) = address else {
            return refused("SubnetIsFull", format!("Subnet {subnet} does not have enough capacity for {name}."));
        };
        used.insert(address);
        frontend["properties"]["privateIPAddress"] = address.to_string().into();
        frontend["properties"]["privateIPAllocationMethod"] = "Dynamic".into();
        Ok(())
    }

    fn private_addresses(&self) -> BTreeSet<IpAddr> {
        self.resources.values().flat_map(|resource| parts(&resource.document, FRONTENDS)).filter_map(private).collect()
    }

    fn private_addresses_of_others(&self, frontend: &Value) -> BTreeSet<IpAddr> {
        let all = self.resources.values().flat_map(|resource| parts(&resource.document, FRONTENDS));
        all.filter(|other| other["id"] != frontend["id"]).filter_map(private).collect()
    }

    fn rules_behind_interfaces(&self, path: &Path, document: &Value) -> Checked<()> {
        let others = self.resources.iter().filter(|(key, _)| **key != path.key());
        let others: usize = others.map(|(_, resource)| parts(&resource.document, RULES).len()).sum();
        if others + parts(document, RULES).len() > self.limits.rules {
            let message =
                format!("There may be {} load balancing rules behind a network interface.", self.limits.rules);
            return refused("LoadBalancingRuleCountLimitReached", message);
        }
        Ok(())
    }
}

/// A list that nobody gave is empty.
fn list(part: &mut Value, kind: &str) {
    if !part["properties"][kind].is_array() {
        part["properties"][kind] = json!([]);
    }
}

fn private(frontend: &Value) -> Option<IpAddr> {
    frontend["properties"]["privateIPAddress"].as_str()?.parse().ok()
}

fn within(prefix: &str, address: IpAddr) -> bool {
    let (Some((network, length)), IpAddr::V4(v4)) = (prefix.split_once('/'), address) else { return true };
    let (Ok(network), Ok(length)) = (network.parse::<Ipv4Addr>(), length.parse::<u32>()) else { return true };
    let shift = 32 - length.min(32);
    u64::from(u32::from(network)) >> shift == u64::from(u32::from(v4)) >> shift
}

fn free(prefix: &str, v6: bool, used: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    if v6 {
        return (5..=u16::MAX).map(|n| IpAddr::V6([0xfd00, 0, 0, 0, 0, 0, 0, n].into())).find(|ip| !used.contains(ip));
    }
    let (network, length) = prefix.split_once('/')?;
    let network = u32::from(network.parse::<Ipv4Addr>().ok()?);
    let size = 1_u64 << (32 - length.parse::<u32>().ok()?.min(32));
    // The first four and the last are Azure's own.
    let all = 4..size.saturating_sub(1);
    all.filter_map(|n| u32::try_from(n).ok()).map(|n| IpAddr::V4((network + n).into())).find(|ip| !used.contains(ip))
}

/// A part of the same load balancer that a rule refers to.
fn referred<'a>(path: &Path, document: &'a Value, rule: &Value, field: &str, kind: &str) -> Checked<Option<&'a Value>> {
    let Some(id) = reference(rule, field) else { return Ok(None) };
    let name = id.strip_prefix(&format!("{}/{}/", path.key(), kind.to_lowercase()));
    let found = name.and_then(|name| {
        parts(document, kind).iter().find(|part| part["name"].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)))
    });
    let from = rule["name"].as_str().unwrap_or_default();
    let message = || format!("Resource {id} referenced by resource {from} was not found.");
    found.map(Some).ok_or_else(|| crate::Refused(400, "InvalidResourceReference", message()))
}

fn rules(path: &Path, document: &Value) -> Checked<()> {
    let (mut fronts, mut backs) = (BTreeSet::new(), Vec::new());
    for rule in parts(document, RULES) {
        let name = rule["name"].as_str().unwrap_or_default();
        let properties = &rule["properties"];
        let front = referred(path, document, rule, "frontendIPConfiguration", FRONTENDS)?;
        let Some(front) = front else {
            return refused("InvalidRequestFormat", format!("Rule {name} has no frontend."));
        };
        let pool = referred(path, document, rule, "backendAddressPool", POOLS)?;
        referred(path, document, rule, "probe", PROBES)?;
        let protocol = properties["protocol"].as_str().unwrap_or_default().to_lowercase();
        let (port, back) = (properties["frontendPort"].as_u64(), properties["backendPort"].as_u64());
        let (Some(port), Some(back)) = (port, back) else {
            return refused("InvalidRequestFormat", format!("Rule {name} has no ports."));
        };
        if (protocol == "all") != (port == 0 && back == 0) || port > 65_534 || back > 65_535 {
            return refused("InvalidPortForProtocol", format!("Rule {name}: the ports do not fit the protocol."));
        }
        if protocol == "all" && front["properties"].get("publicIPAddress").is_some() {
            return refused(
                "HaPortsOnPublicLoadBalancer",
                format!("Rule {name}: only internal load balancers have it."),
            );
        }
        let idle = properties["idleTimeoutInMinutes"].as_u64().unwrap_or(4);
        if !(4..=100).contains(&idle) {
            return refused("InvalidIdleTimeout", format!("Rule {name}: the idle timeout is 4 to 100 minutes."));
        }
        if protocol == "udp" && properties["enableTcpReset"] == true {
            return refused("TcpResetForUdp", format!("Rule {name}: TCP resets are for TCP."));
        }
        if !fronts.insert((front["id"].to_string(), protocol.clone(), port)) {
            let message = format!("Rule {name} uses the same frontend port and protocol as another rule.");
            return refused("RulesUseSameFrontendPortProtocolAndIPConfig", message);
        }
        let floats = properties["enableFloatingIP"] == true;
        let pool = pool.map(|pool| pool["id"].to_string());
        let same = |(p, b, o, f): &(String, u64, Option<String>, bool)| {
            *p == protocol && *b == back && *o == pool && !(*f && floats)
        };
        if backs.iter().any(same) {
            let message =
                format!("Load balancing rule {name} uses the same backend port, protocol and pool as another rule.");
            return refused("RulesUseSameBackendPortProtocolAndVnet", message);
        }
        backs.push((protocol, back, pool, floats));
    }
    Ok(())
}

fn probes(document: &Value) -> Checked<()> {
    for probe in parts(document, PROBES) {
        let (name, properties) = (probe["name"].as_str().unwrap_or_default(), &probe["properties"]);
        let tcp = properties["protocol"].as_str().is_some_and(|p| p.eq_ignore_ascii_case("tcp"));
        if tcp == properties["requestPath"].is_string() {
            return refused("InvalidProbeRequestPath", format!("Probe {name}: HTTP has a path, and TCP has none."));
        }
        if properties["intervalInSeconds"].as_u64().is_none_or(|interval| interval < 5) {
            return refused("InvalidProbeInterval", format!("Probe {name}: the interval is at least 5 s."));
        }
        if properties["port"].as_u64().is_none_or(|port| port == 0 || port > 65_535) {
            return refused("InvalidProbePort", format!("Probe {name}: that is no port."));
        }
    }
    Ok(())
}

fn pools(document: &mut Value) -> Checked<()> {
    for pool in document["properties"][POOLS].as_array_mut().into_iter().flatten() {
        let name = pool["name"].as_str().unwrap_or_default().to_owned();
        let network = pool["properties"]["virtualNetwork"]["id"].is_string();
        let mut names = BTreeSet::new();
        for entry in pool["properties"]["loadBalancerBackendAddresses"].as_array_mut().into_iter().flatten() {
            let has_network = network || entry["properties"]["virtualNetwork"]["id"].is_string();
            if entry["properties"]["ipAddress"].is_string() && !has_network {
                return refused(
                    "BackendAddressWithoutNetwork",
                    format!("Pool {name}: an address needs a virtual network."),
                );
            }
            if !names.insert(entry["name"].to_string()) {
                return refused("InvalidRequestFormat", format!("Pool {name}: two addresses have one name."));
            }
        }
    }
    Ok(())
}

/// Who refers to a part is written there by us alone.
fn refer(document: &mut Value) {
    let rules = parts(document, RULES).to_vec();
    for (kind, field) in [(FRONTENDS, "frontendIPConfiguration"), (POOLS, "backendAddressPool"), (PROBES, "probe")] {
        for part in document["properties"][kind].as_array_mut().into_iter().flatten() {
            let id = part["id"].as_str().unwrap_or_default().to_lowercase();
            let by = rules.iter().filter(|rule| reference(rule, field).as_deref() == Some(&id));
            let by: Vec<Value> = by.map(|rule| json!({"id": rule["id"]})).collect();
            if let Some(properties) = part["properties"].as_object_mut() {
                if by.is_empty() {
                    properties.remove(RULES);
                } else {
                    properties.insert(RULES.to_owned(), by.into());
                }
            }
        }
    }
}
