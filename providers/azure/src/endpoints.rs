//! Where Azure is: the resource manager, and who gives tokens. And what the environment of a pod says beside `azure.json`.

use http::Uri;

use crate::config::{AzureJson, ConfigError};

/// Each cloud, by the names that configurations give it: the resource manager, and Entra ID (Azure's own addresses).
const CLOUDS: [(&[&str], &str, &str); 3] = [
    (&["AzurePublicCloud", "AzureCloud", ""], "https://management.azure.com", "https://login.microsoftonline.com"),
    (
        &["AzureUSGovernmentCloud", "AzureUSGovernment"],
        "https://management.usgovcloudapi.net",
        "https://login.microsoftonline.us",
    ),
    (&["AzureChinaCloud"], "https://management.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
];
/// What an application's id is in `azure.json` where a managed identity is meant (AKS).
const MANAGED: &str = "msi";

/// What the environment of a pod says: variables that the webhook of Azure Workload Identity sets, and those that the SDKs of Azure know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `AZURE_AUTHORITY_HOST`: who gives tokens.
    pub authority: Option<String>,
    /// `AZURE_CLIENT_ID`: the application.
    pub client: Option<String>,
    /// `AZURE_TENANT_ID`: its tenant.
    pub tenant: Option<String>,
    /// `AZURE_FEDERATED_TOKEN_FILE`: the file with the pod's own token.
    pub token_file: Option<String>,
    /// `AZURE_POD_IDENTITY_AUTHORITY_HOST`: who gives tokens to machines, in place of their metadata service.
    pub metadata: Option<String>,
}

impl Environment {
    /// Reads it. What is empty is not there.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let said = |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        Self {
            authority: said("AZURE_AUTHORITY_HOST"),
            client: said("AZURE_CLIENT_ID"),
            tenant: said("AZURE_TENANT_ID"),
            token_file: said("AZURE_FEDERATED_TOKEN_FILE"),
            metadata: said("AZURE_POD_IDENTITY_AUTHORITY_HOST"),
        }
    }

    /// The configuration, with what is said here where it says nothing of the pod's own identity.
    #[must_use]
    pub fn complete(&self, mut config: AzureJson) -> AzureJson {
        let names_nobody = !config.use_federated_workload_identity_extension
            && !config.use_managed_identity_extension
            && config.aad_client_secret.0.is_empty()
            && config.aad_client_cert_path.is_empty();
        if names_nobody && self.token_file.is_some() {
            config.use_federated_workload_identity_extension = true;
        }
        if !config.use_federated_workload_identity_extension {
            return config;
        }
        // The webhook writes them for the pod's account; a file that is made for nodes may have theirs.
        if config.aad_client_id.is_empty() || config.aad_client_id == MANAGED {
            config.aad_client_id = self.client.clone().unwrap_or_default();
        }
        let fill = |field: &mut String, said: &Option<String>| {
            if let (true, Some(said)) = (field.is_empty(), said) {
                field.clone_from(said);
            }
        };
        fill(&mut config.tenant_id, &self.tenant);
        fill(&mut config.aad_federated_token_file, &self.token_file);
        config
    }
}

/// Where Azure is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The resource manager.
    pub resource_manager: String,
    /// Who gives tokens to applications.
    pub authority: String,
    /// Who gives tokens to machines, if not their metadata service.
    pub metadata: Option<String>,
}

impl Endpoints {
    /// Where the configuration says that it is.
    ///
    /// # Errors
    /// When it names a cloud that nobody knows, and not where that is.
    pub fn of(config: &AzureJson, environment: &Environment) -> Result<Self, ConfigError> {
        let known = CLOUDS.iter().find(|(names, ..)| names.iter().any(|name| name.eq_ignore_ascii_case(&config.cloud)));
        let wrong = |field, value: &str, why| ConfigError::Value { field, value: value.to_owned(), why };
        let unknown = || {
            wrong(
                "cloud",
                &config.cloud,
                "there are AzurePublicCloud, AzureUSGovernmentCloud and AzureChinaCloud; with another one set \
                 resourceManagerEndpoint, and the environment variable AZURE_AUTHORITY_HOST to who gives tokens there",
            )
        };
        let manager = Some(config.resource_manager_endpoint.as_str()).filter(|endpoint| !endpoint.is_empty());
        let manager = manager.or(known.map(|(_, manager, _)| *manager)).ok_or_else(unknown)?;
        let authority = environment.authority.as_deref().or(known.map(|(.., authority)| *authority));
        let authority = authority.ok_or_else(unknown)?;
        let url = "an address such as https://management.azure.com is needed";
        for (field, value) in [
            ("resourceManagerEndpoint", Some(manager)),
            ("AZURE_AUTHORITY_HOST", Some(authority)),
            ("AZURE_POD_IDENTITY_AUTHORITY_HOST", environment.metadata.as_deref()),
        ] {
            if let Some(value) = value.filter(|value| !is_http(value)) {
                return Err(wrong(field, value, url));
            }
        }
        let (resource_manager, authority) = (manager.to_owned(), authority.to_owned());
        Ok(Self { resource_manager, authority, metadata: environment.metadata.clone() })
    }

    /// Whether anything of Azure is reached by TLS, as it is everywhere but at a stand-in.
    pub fn needs_tls(&self) -> bool {
        self.in_the_clear().count() < 2
    }

    /// Those to which tokens and secrets go unencrypted.
    pub fn in_the_clear(&self) -> impl Iterator<Item = &str> {
        let all = [self.resource_manager.as_str(), self.authority.as_str()];
        all.into_iter().filter(|url| !url.to_ascii_lowercase().starts_with("https://"))
    }
}

fn is_http(text: &str) -> bool {
    let Ok(url) = text.parse::<Uri>() else { return false };
    matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> AzureJson {
        AzureJson::parse(text).unwrap()
    }

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::of(|name| pairs.iter().find(|(is, _)| *is == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_cloud_says_where_it_is_unless_another_place_is_named() {
        let elsewhere = [("AZURE_AUTHORITY_HOST", "https://login.local/")];
        let public = ("https://management.azure.com", "https://login.microsoftonline.com");
        for (text, said, expected) in [
            ("{}", &[] as &[(&str, &str)], Ok(public)),
            (r#"{"cloud": "azurepubliccloud"}"#, &[], Ok(public)),
            (
                r#"{"cloud": "AzureChinaCloud"}"#,
                &[],
                Ok(("https://management.chinacloudapi.cn", "https://login.chinacloudapi.cn")),
            ),
            (
                r#"{"cloud": "AzureUSGovernmentCloud"}"#,
                &elsewhere,
                Ok(("https://management.usgovcloudapi.net", "https://login.local/")),
            ),
            (
                r#"{"cloud": "AzureStackCloud", "resourceManagerEndpoint": "https://arm.local"}"#,
                &elsewhere,
                Ok(("https://arm.local", "https://login.local/")),
            ),
            (
                r#"{"cloud": "AzureStackCloud", "resourceManagerEndpoint": "https://arm.local"}"#,
                &[],
                Err("`cloud` is `AzureStackCloud`"),
            ),
            (
                r#"{"cloud": "AzureGermanCloud"}"#,
                &[],
                Err("`cloud` is `AzureGermanCloud`, and there are AzurePublicCloud"),
            ),
            (
                r#"{"resourceManagerEndpoint": "arm.local"}"#,
                &[],
                Err("`resourceManagerEndpoint` is `arm.local`, and an address"),
            ),
            ("{}", &[("AZURE_AUTHORITY_HOST", "ftp://a")], Err("`AZURE_AUTHORITY_HOST` is `ftp://a`")),
            (
                "{}",
                &[("AZURE_POD_IDENTITY_AUTHORITY_HOST", "x y")],
                Err("`AZURE_POD_IDENTITY_AUTHORITY_HOST` is `x y`"),
            ),
        ] {
            match (Endpoints::of(&config(text), &environment(said)), expected) {
                (Ok(found), Ok((manager, authority))) => {
                    assert_eq!(
                        (found.resource_manager.as_str(), found.authority.as_str()),
                        (manager, authority),
                        "{text}"
                    );
                }
                (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{text}: {error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn what_is_sent_unencrypted_is_told() {
        let config = config(r#"{"resourceManagerEndpoint": "http://arm.local"}"#);
        let endpoints = Endpoints::of(&config, &Environment::default()).unwrap();
        assert_eq!(endpoints.in_the_clear().collect::<Vec<_>>(), ["http://arm.local"]);
        assert!(endpoints.needs_tls());
        let stand_in = environment(&[("AZURE_AUTHORITY_HOST", "http://arm.local")]);
        assert!(!Endpoints::of(&config, &stand_in).unwrap().needs_tls());
    }

    #[test]
    fn a_pods_own_identity_is_told_by_its_environment() {
        let pod = environment(&[
            ("AZURE_CLIENT_ID", "pod"),
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
            ("AZURE_AUTHORITY_HOST", " "),
        ]);
        assert_eq!(pod.authority, None);
        for (text, is_pod, client, tenant) in [
            ("{}", true, "pod", "t"),
            (r#"{"aadClientId": "msi"}"#, true, "pod", "t"),
            (
                r#"{"aadClientId": "c", "tenantId": "other", "useFederatedWorkloadIdentityExtension": true}"#,
                true,
                "c",
                "other",
            ),
            (r#"{"aadClientId": "c", "aadClientSecret": "s"}"#, false, "c", ""),
            (r#"{"aadClientId": "msi", "useManagedIdentityExtension": true}"#, false, "msi", ""),
        ] {
            let complete = pod.complete(config(text));
            assert_eq!(complete.use_federated_workload_identity_extension, is_pod, "{text}");
            assert_eq!((complete.aad_client_id.as_str(), complete.tenant_id.as_str()), (client, tenant), "{text}");
            assert_eq!(complete.aad_federated_token_file.is_empty(), !is_pod, "{text}");
        }
        assert!(!Environment::default().complete(config("{}")).use_federated_workload_identity_extension);
    }
}
