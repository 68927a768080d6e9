//! `azure.json`, the file that cloud-provider-azure is configured by.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::settings::{Admission, ClusterProbe, DefaultScheme, Place, RULES_PER_INTERFACE, Settings};

/// Where kube-proxy answers whether its node takes traffic (Kubernetes rule).
const KUBE_PROXY_PORT: u16 = 10_256;
/// Under which path.
const KUBE_PROXY_PATH: &str = "/healthz";

/// What the file says, as far as it means something here. What it says of virtual machines, caches, routes and rate limits is
/// for others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AzureJson {
    /// Which cloud, such as `AzurePublicCloud`.
    pub cloud: String,
    /// Where the resource manager answers, if not where the cloud's does.
    pub resource_manager_endpoint: String,
    /// The tenant.
    pub tenant_id: String,
    /// The subscription.
    pub subscription_id: String,
    /// The application; `msi` where a managed identity is meant.
    pub aad_client_id: String,
    /// Its secret.
    pub aad_client_secret: Secret,
    /// The file with its certificate.
    pub aad_client_cert_path: String,
    /// What that file is locked with.
    pub aad_client_cert_password: Secret,
    /// Whether the machine's identity is used.
    pub use_managed_identity_extension: bool,
    /// Which one; empty for the machine's own.
    #[serde(rename = "userAssignedIdentityID")]
    pub user_assigned_identity_id: String,
    /// Whether the pod's identity is used.
    pub use_federated_workload_identity_extension: bool,
    /// The file with its token.
    pub aad_federated_token_file: String,
    /// The resource group of the nodes.
    pub resource_group: String,
    /// The region.
    pub location: String,
    /// The network.
    pub vnet_name: String,
    /// Its resource group, if another.
    pub vnet_resource_group: String,
    /// The subnet of the nodes.
    pub subnet_name: String,
    /// The network security group of the nodes.
    pub security_group_name: String,
    /// Its resource group, if another.
    pub security_group_resource_group: String,
    /// `standard`; `basic` is retired.
    pub load_balancer_sku: String,
    /// The load balancer, if it is not named after the cluster.
    pub load_balancer_name: String,
    /// Its resource group, if another.
    pub load_balancer_resource_group: String,
    /// `nodeIP`; others are not done.
    pub load_balancer_backend_pool_configuration_type: String,
    /// Whether rules are not used for connections from the nodes.
    #[serde(rename = "disableOutboundSNAT")]
    pub disable_outbound_snat: bool,
    /// Rules that there may be.
    pub maximum_load_balancer_rule_count: usize,
    /// Tags, as `a=b,c=d`.
    pub tags: String,
    /// Tags, as a map.
    pub tags_map: BTreeMap<String, String>,
    /// `shared` or `servicenodeport`.
    pub cluster_service_load_balancer_health_probe_mode: String,
    /// The port of the shared probe.
    pub cluster_service_shared_load_balancer_health_probe_port: u16,
    /// The path of the shared probe.
    pub cluster_service_shared_load_balancer_health_probe_path: String,
    /// Several load balancers.
    pub multiple_standard_load_balancer_configurations: Vec<serde_json::Value>,
}

/// Text that is not shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

/// Why the file cannot be gone by.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is no such file.
    #[error("azure.json cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// A field that is needed is empty.
    #[error("azure.json: `{0}` is missing")]
    Missing(&'static str),
    /// A value that is not done.
    #[error("azure.json: `{field}` is `{value}`, and {why}")]
    Value {
        /// The field.
        field: &'static str,
        /// What stands there.
        value: String,
        /// What to do.
        why: &'static str,
    },
}

impl AzureJson {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is no JSON, or a field has a value of another kind.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut file: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)?;
        // Nothing, as cloud-provider-azure reads it.
        file.retain(|_, value| !value.is_null());
        Ok(serde_json::from_value(file.into())?)
    }

    /// What it says about all Services. Names of clusters and what is admitted are not in it.
    ///
    /// # Errors
    /// When something is missing, or asked for that is not done.
    pub fn settings(
        &self,
        cluster: &str,
        cluster_uid: &str,
        default_scheme: DefaultScheme,
        admission: Admission,
    ) -> Result<Settings, ConfigError> {
        let needed = |field, value: &str| if value.is_empty() { Err(ConfigError::Missing(field)) } else { Ok(()) };
        needed("subscriptionId", &self.subscription_id)?;
        needed("resourceGroup", &self.resource_group)?;
        needed("location", &self.location)?;
        needed("vnetName", &self.vnet_name)?;
        needed("subnetName", &self.subnet_name)?;
        let one_of = |field, value: &str, words: &[&str], why| {
            let fits = value.is_empty() || words.iter().any(|word| word.eq_ignore_ascii_case(value));
            if fits { Ok(()) } else { Err(ConfigError::Value { field, value: value.to_owned(), why }) }
        };
        one_of("loadBalancerSku", &self.load_balancer_sku, &["standard"], "only standard load balancers are used")?;
        one_of(
            "loadBalancerBackendPoolConfigurationType",
            &self.load_balancer_backend_pool_configuration_type,
            &["nodeIP"],
            "backend pools are of the nodes' addresses; set it to nodeIP",
        )?;
        let mode = &self.cluster_service_load_balancer_health_probe_mode;
        one_of(
            "clusterServiceLoadBalancerHealthProbeMode",
            mode,
            &["shared", "servicenodeport"],
            "there are shared and servicenodeport",
        )?;
        if !self.multiple_standard_load_balancer_configurations.is_empty() {
            let value = format!("{} configurations", self.multiple_standard_load_balancer_configurations.len());
            let field = "multipleStandardLoadBalancerConfigurations";
            return Err(ConfigError::Value { field, value, why: "Services are not spread over several; remove it" });
        }
        let or = |value: &str, other: &str| if value.is_empty() { other.to_owned() } else { value.to_owned() };
        let group = |value: &str| or(value, &self.resource_group);
        let mut tags = self.tags_map.clone();
        for pair in self.tags.split(',').filter(|pair| !pair.trim().is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            tags.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        let (port, path) = (
            self.cluster_service_shared_load_balancer_health_probe_port,
            &self.cluster_service_shared_load_balancer_health_probe_path,
        );
        let shared = mode.eq_ignore_ascii_case("shared");
        Ok(Settings {
            location: self.location.clone(),
            load_balancer: Place {
                group: group(&self.load_balancer_resource_group),
                name: or(&self.load_balancer_name, cluster),
            },
            network: Place { group: group(&self.vnet_resource_group), name: self.vnet_name.clone() },
            subnet: self.subnet_name.clone(),
            security_group: Some(&self.security_group_name)
                .filter(|name| !name.is_empty())
                .map(|name| Place { group: group(&self.security_group_resource_group), name: name.clone() }),
            disable_outbound_snat: self.disable_outbound_snat,
            max_rules: match self.maximum_load_balancer_rule_count {
                0 => RULES_PER_INTERFACE,
                count => count.min(RULES_PER_INTERFACE),
            },
            cluster_probe: if shared {
                ClusterProbe::Shared {
                    port: if port == 0 { KUBE_PROXY_PORT } else { port },
                    path: or(path, KUBE_PROXY_PATH),
                }
            } else {
                ClusterProbe::ServiceNodePort
            },
            tags,
            default_scheme,
            admission,
            ..Settings::of(cluster, cluster_uid, &self.subscription_id, &self.resource_group, &self.location)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "cloud": "AzurePublicCloud", "tenantId": "t", "subscriptionId": "s", "aadClientId": "msi", "aadClientSecret": "hush",
        "useManagedIdentityExtension": true, "userAssignedIdentityID": "u", "resourceGroup": "MC_rg", "location": "westeurope",
        "vnetName": "net", "vnetResourceGroup": "netrg", "subnetName": "nodes", "securityGroupName": "nsg",
        "loadBalancerSku": "Standard", "loadBalancerBackendPoolConfigurationType": "nodeIP", "disableOutboundSNAT": true,
        "maximumLoadBalancerRuleCount": 250, "tags": "team=a", "clusterServiceLoadBalancerHealthProbeMode": "shared",
        "cloudProviderBackoff": true, "loadBalancerCacheTTLInSeconds": 120, "loadBalancerName": null
    }"#;

    fn settings(text: &str) -> Result<Settings, ConfigError> {
        AzureJson::parse(text)?.settings("prod", "uid", DefaultScheme::Public, Admission::default())
    }

    #[test]
    fn the_file_of_aks_is_read() {
        let settings = settings(FILE).unwrap();
        assert_eq!(settings.load_balancer, Place { group: "MC_rg".to_owned(), name: "prod".to_owned() });
        assert_eq!(settings.network, Place { group: "netrg".to_owned(), name: "net".to_owned() });
        assert_eq!(settings.security_group.unwrap().group, "MC_rg");
        assert_eq!((settings.max_rules, settings.disable_outbound_snat), (250, true));
        assert_eq!(settings.cluster_probe, ClusterProbe::Shared { port: 10_256, path: "/healthz".to_owned() });
        assert_eq!(settings.tags["team"], "a");
        let shown = format!("{:?}", AzureJson::parse(FILE).unwrap());
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn what_is_missing_or_not_done_is_said() {
        for (from, to, says) in [
            (r#""vnetName": "net","#, "", "azure.json: `vnetName` is missing"),
            ("Standard", "Basic", "`loadBalancerSku` is `Basic`, and only standard"),
            ("nodeIP", "nodeIPConfiguration", "set it to nodeIP"),
            (r#""shared""#, r#""some""#, "there are shared and servicenodeport"),
            (r#""tags":"#, r#""multipleStandardLoadBalancerConfigurations": [{}], "tags":"#, "not spread over several"),
            ("250", r#""many""#, "cannot be read"),
        ] {
            let error = settings(&FILE.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
