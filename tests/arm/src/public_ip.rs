//! What public IPs have to be.

use serde_json::{Value, json};

use crate::resource::{Path, reference};
use crate::{Checked, Refused, State, refused};

/// What is given when it is made and never again (Azure rule).
const FIXED: [&str; 4] = ["publicIPAddressVersion", "publicIPPrefix", "publicIPAllocationMethod", "ipTags"];

impl State {
    pub(crate) fn public_ip(&mut self, path: &Path, document: &mut Value, old: Option<&Value>) -> Checked<()> {
        if document["properties"]["publicIPAddressVersion"].is_null() {
            document["properties"]["publicIPAddressVersion"] = "IPv4".into();
        }
        let standard = document["sku"]["name"] == "Standard";
        if standard && document["properties"]["publicIPAllocationMethod"] != "Static" {
            let message = "Standard sku publicIp must have AllocationMethod set to Static.";
            return refused("StandardSkuPublicIPMustBeStatic", message);
        }
        let count = self.resources.keys().filter(|key| key.contains("/publicipaddresses/")).count();
        if old.is_none() && count >= self.limits.public_ips {
            let message = format!("Cannot create more than {} public IP addresses.", self.limits.public_ips);
            return refused("PublicIPCountLimitReached", message);
        }
        if let Some(prefix) =
            reference(document, "publicIPPrefix").filter(|prefix| !self.resources.contains_key(prefix))
        {
            return refused("InvalidResourceReference", format!("Resource {prefix} was not found."));
        }
        for field in FIXED {
            let changed = old.is_some_and(|old| old["properties"].get(field) != document["properties"].get(field));
            if changed {
                return refused("PublicIPAddressFieldCannotBeChanged", format!("{field} cannot be changed."));
            }
        }
        if old.is_some_and(|old| {
            old.get("zones") != document.get("zones") || old["sku"]["name"] != document["sku"]["name"]
        }) {
            return refused("ResourceAvailabilityZonesCannotBeModified", "Zones and SKU cannot be changed.");
        }
        self.label(path, document)?;
        let kept = old.and_then(|old| old["properties"].get("ipAddress").cloned());
        let serial = self.next();
        let v6 = document["properties"]["publicIPAddressVersion"] == "IPv6";
        let given = || {
            if v6 { format!("2603::{serial:x}") } else { format!("20.0.{}.{}", serial / 250 % 250, serial % 250 + 1) }
        };
        document["properties"]["ipAddress"] = kept.unwrap_or_else(|| given().into());
        if document["properties"].get("idleTimeoutInMinutes").is_none() {
            document["properties"]["idleTimeoutInMinutes"] = json!(4);
        }
        Ok(())
    }

    fn label(&self, path: &Path, document: &mut Value) -> Checked<()> {
        let Some(label) = document["properties"]["dnsSettings"]["domainNameLabel"].as_str().map(str::to_owned) else {
            // Asking a `Value` for a field by index puts nothing there.
            if let Some(properties) = document["properties"].as_object_mut() {
                properties.remove("dnsSettings");
            }
            return Ok(());
        };
        let version = document["properties"]["publicIPAddressVersion"].clone();
        let same = |(key, other): (&String, &crate::resource::Resource)| {
            let properties = &other.document["properties"];
            *key != path.key()
                && properties["dnsSettings"]["domainNameLabel"] == *label
                && properties["publicIPAddressVersion"] == version
        };
        if self.resources.iter().any(same) {
            let message =
                format!("DNS record {label}.westeurope.cloudapp.azure.com is already used by another public IP.");
            return Err(Refused(400, "DnsRecordInUse", message));
        }
        document["properties"]["dnsSettings"]["fqdn"] = format!("{label}.westeurope.cloudapp.azure.com").into();
        Ok(())
    }
}
