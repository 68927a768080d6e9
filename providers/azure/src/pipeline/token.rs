//! Tokens: what shows ARM who is asking.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::{Method, Request, header};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Transport;
use super::assertion::{AssertionError, Signer};
use crate::config::{AzureJson, Secret};

/// A token is renewed this long before it ends, so that it is good for whatever is asked with it.
const EARLY: Duration = Duration::from_mins(5);
/// How long a token lasts where that is not said.
const UNSAID: Duration = Duration::from_mins(10);
/// Where the metadata service of machines answers (Azure rule).
const METADATA: &str = "http://169.254.169.254";
/// Which version of it (Azure rule).
const METADATA_VERSION: &str = "2018-02-01";
/// What an assertion is (RFC 7523).
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing was answered.
    #[error("no token: {0}")]
    Unanswered(String),
    /// It was refused.
    #[error("no token: {0}; correct the credentials")]
    Refused(String),
    /// The pod's own token cannot be read.
    #[error("no token: {file}: {error}; let the pod have it (its label azure.workload.identity/use)")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        error: String,
    },
    /// The certificate's file cannot be read.
    #[error("no token: the certificate {file} (aadClientCertPath) cannot be read: {error}; mount it into the pod")]
    CertificateFile {
        /// The file.
        file: String,
        /// What is wrong.
        error: String,
    },
    /// The certificate cannot be used.
    #[error("no token: the certificate {file} (aadClientCertPath) cannot be used: {error}")]
    Certificate {
        /// The file.
        file: String,
        /// What is wrong.
        error: AssertionError,
    },
}

impl TokenError {
    /// The HTTP status that stands for it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Unanswered(_) => 0,
            Self::Refused(_) | Self::File { .. } | Self::CertificateFile { .. } | Self::Certificate { .. } => 401,
        }
    }
}

/// Where tokens come from.
pub trait Tokens: Send + Sync + 'static {
    /// One that is good.
    fn token<T: Transport>(&self, transport: &T) -> impl Future<Output = Result<String, TokenError>> + Send;

    /// The last one was not taken.
    fn forget(&self);
}

impl<C: Tokens> Tokens for std::sync::Arc<C> {
    async fn token<T: Transport>(&self, transport: &T) -> Result<String, TokenError> {
        C::token(self, transport).await
    }

    fn forget(&self) {
        C::forget(self);
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The pod, by a token of the cluster in a file, which is read again each time because it is replaced every hour.
    WorkloadIdentity {
        /// The tenant.
        tenant: String,
        /// The application.
        client: String,
        /// The file.
        file: PathBuf,
    },
    /// The machine.
    ManagedIdentity {
        /// Which of its identities; none for its own.
        client: Option<String>,
    },
    /// An application that knows a secret.
    Secret {
        /// The tenant.
        tenant: String,
        /// The application.
        client: String,
        /// The secret.
        secret: Secret,
    },
    /// An application that has the key of a certificate, both in a file, which is read again each time because certificates are renewed.
    Certificate {
        /// The tenant.
        tenant: String,
        /// The application.
        client: String,
        /// The file, in PEM.
        file: PathBuf,
    },
}

/// Why the configuration names nobody who could ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Nothing is there.
    #[error(
        "azure.json names no credentials; set useFederatedWorkloadIdentityExtension, useManagedIdentityExtension, aadClientSecret or \
         aadClientCertPath"
    )]
    None,
    /// A file that only a password opens.
    #[error(
        "azure.json: `aadClientCertPassword` is set, and certificates are read as PEM without a password; write one (openssl pkcs12 -in \
         FILE -nodes -out FILE.pem) and remove it"
    )]
    Locked,
    /// Something that belongs to it is not.
    #[error("azure.json: `{0}` is missing")]
    Missing(&'static str),
}

impl Credential {
    /// Whoever the configuration names, in the order of cloud-provider-azure.
    ///
    /// # Errors
    /// When it names nobody.
    pub fn of(config: &AzureJson) -> Result<Self, CredentialError> {
        let needed = |field, value: &str| {
            if value.is_empty() { Err(CredentialError::Missing(field)) } else { Ok(value.to_owned()) }
        };
        if config.use_federated_workload_identity_extension {
            return Ok(Self::WorkloadIdentity {
                tenant: needed("tenantId", &config.tenant_id)?,
                client: needed("aadClientId", &config.aad_client_id)?,
                file: needed("aadFederatedTokenFile", &config.aad_federated_token_file)?.into(),
            });
        }
        if config.use_managed_identity_extension {
            let id = &config.user_assigned_identity_id;
            return Ok(Self::ManagedIdentity { client: (!id.is_empty()).then(|| id.clone()) });
        }
        if !config.aad_client_secret.0.is_empty() {
            return Ok(Self::Secret {
                tenant: needed("tenantId", &config.tenant_id)?,
                client: needed("aadClientId", &config.aad_client_id)?,
                secret: config.aad_client_secret.clone(),
            });
        }
        if config.aad_client_cert_path.is_empty() {
            return Err(CredentialError::None);
        }
        if !config.aad_client_cert_password.0.is_empty() {
            return Err(CredentialError::Locked);
        }
        Ok(Self::Certificate {
            tenant: needed("tenantId", &config.tenant_id)?,
            client: needed("aadClientId", &config.aad_client_id)?,
            file: config.aad_client_cert_path.as_str().into(),
        })
    }

    /// Whether what it needs of this machine is there, so that what is wrong with it is said before anything is asked of Azure.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn check(&self) -> Result<(), TokenError> {
        match self {
            Self::WorkloadIdentity { file, .. } => own_token(file).map(drop),
            Self::Certificate { file, .. } => signer(file).map(drop),
            Self::ManagedIdentity { .. } | Self::Secret { .. } => Ok(()),
        }
    }

    /// What kind, for logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::WorkloadIdentity { .. } => "workload identity",
            Self::ManagedIdentity { .. } => "managed identity",
            Self::Secret { .. } => "client secret",
            Self::Certificate { .. } => "client certificate",
        }
    }
}

fn own_token(file: &Path) -> Result<String, TokenError> {
    let read = std::fs::read_to_string(file);
    read.map_err(|error| TokenError::File { file: file.display().to_string(), error: error.to_string() })
}

fn signer(file: &Path) -> Result<Signer, TokenError> {
    let named = || file.display().to_string();
    let pem =
        std::fs::read(file).map_err(|error| TokenError::CertificateFile { file: named(), error: error.to_string() })?;
    Signer::of(&pem).map_err(|error| TokenError::Certificate { file: named(), error })
}

/// Tokens of a credential, each used until shortly before it ends.
pub struct Entra {
    credential: Credential,
    /// Where Entra ID answers, such as `https://login.microsoftonline.com`.
    authority: String,
    metadata: String,
    /// For whom tokens are: the resource manager.
    audience: String,
    last: Mutex<Option<(String, Instant)>>,
}

impl Entra {
    /// Tokens for this resource manager.
    pub fn new(credential: Credential, authority: &str, audience: &str) -> Self {
        let trimmed = |text: &str| text.trim_end_matches('/').to_owned();
        let (authority, audience) = (trimmed(authority), trimmed(audience));
        Self { credential, authority, metadata: METADATA.to_owned(), audience, last: Mutex::default() }
    }

    /// With a metadata service elsewhere.
    #[must_use]
    pub fn metadata_at(mut self, url: &str) -> Self {
        url.trim_end_matches('/').clone_into(&mut self.metadata);
        self
    }

    fn request(&self) -> Result<Request<Vec<u8>>, TokenError> {
        let wrong = |error: http::Error| TokenError::Refused(error.to_string());
        let scope = format!("{}/.default", self.audience);
        let asks = |tenant: &str| format!("{}/{tenant}/oauth2/v2.0/token", self.authority);
        let asserts = |text: &str| form(&[("client_assertion_type", ASSERTION), ("client_assertion", text)]);
        let (tenant, client, proof) = match &self.credential {
            Credential::ManagedIdentity { client } => {
                let mut query = form(&[("api-version", METADATA_VERSION), ("resource", &self.audience)]);
                if let Some(client) = client {
                    let field = if client.starts_with('/') { "mi_res_id" } else { "client_id" };
                    let _ = write!(query, "&{}", form(&[(field, client)]));
                }
                let url = format!("{}/metadata/identity/oauth2/token?{query}", self.metadata);
                return Request::builder().uri(url).header("Metadata", "true").body(Vec::new()).map_err(wrong);
            }
            Credential::WorkloadIdentity { tenant, client, file } => (tenant, client, asserts(own_token(file)?.trim())),
            Credential::Certificate { tenant, client, file } => {
                let signed = signer(file)?.sign(client, &asks(tenant), SystemTime::now());
                let signed =
                    signed.map_err(|error| TokenError::Certificate { file: file.display().to_string(), error })?;
                (tenant, client, asserts(&signed))
            }
            Credential::Secret { tenant, client, secret } => (tenant, client, form(&[("client_secret", &secret.0)])),
        };
        let who = form(&[("grant_type", "client_credentials"), ("client_id", client), ("scope", &scope)]);
        Request::builder()
            .method(Method::POST)
            .uri(asks(tenant))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(format!("{who}&{proof}").into_bytes())
            .map_err(wrong)
    }
}

impl Tokens for Entra {
    async fn token<T: Transport>(&self, transport: &T) -> Result<String, TokenError> {
        // Whoever else needs one meanwhile waits for this one.
        let mut last = self.last.lock().await;
        if let Some((token, _)) = last.as_ref().filter(|(_, until)| *until > Instant::now()) {
            return Ok(token.clone());
        }
        let response = transport.send(self.request()?).await.map_err(TokenError::Unanswered)?;
        let body: Value = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
        let status = response.status();
        let Some(token) = body["access_token"].as_str().filter(|_| status.is_success()) else {
            let said = ["error_description", "error"].iter().find_map(|field| body[*field].as_str());
            let said = format!("{status}: {}", said.unwrap_or("nothing is said"));
            let later = status.is_server_error() || status.as_u16() == 429;
            return Err(if later { TokenError::Unanswered(said) } else { TokenError::Refused(said) });
        };
        // The metadata service writes numbers as text.
        let seconds = body["expires_in"].as_u64().or_else(|| body["expires_in"].as_str()?.parse().ok());
        let lasts = seconds.map_or(UNSAID, Duration::from_secs);
        let good = lasts.saturating_sub(EARLY).max(lasts / 2);
        *last = Some((token.to_owned(), Instant::now() + good));
        Ok(token.to_owned())
    }

    fn forget(&self) {
        // Held only while one is fetched, and then it is a new one anyway.
        if let Ok(mut last) = self.last.try_lock() {
            *last = None;
        }
    }
}

/// Pairs as a form has them.
fn form(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (field, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(field);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(byte)),
                other => drop(write!(text, "%{other:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Credential, String> {
        Credential::of(&AzureJson::parse(text).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_configuration_names_who_asks_in_a_fixed_order() {
        let all = r#"{"tenantId": "t", "aadClientId": "c", "aadClientSecret": "s", "aadFederatedTokenFile": "/f",
            "useManagedIdentityExtension": true, "useFederatedWorkloadIdentityExtension": true}"#;
        assert!(matches!(of(all), Ok(Credential::WorkloadIdentity { .. })));
        let all = all.replace(r#""useFederatedWorkloadIdentityExtension": true"#, r#""userAssignedIdentityID": "u""#);
        assert_eq!(of(&all), Ok(Credential::ManagedIdentity { client: Some("u".to_owned()) }));
        let all = all.replace("true", "false");
        assert!(matches!(of(&all), Ok(Credential::Secret { .. })));
        assert_eq!(of(r#"{"aadClientSecret": "s"}"#), Err("azure.json: `tenantId` is missing".to_owned()));
        let certificate = r#"{"tenantId": "t", "aadClientId": "c", "aadClientCertPath": "/c"}"#;
        assert!(matches!(of(certificate), Ok(Credential::Certificate { .. })));
        let locked = certificate.replace("/c\"", "/c\", \"aadClientCertPassword\": \"p\"");
        assert!(of(&locked).unwrap_err().contains("PEM without a password"));
        assert!(of(r#"{"aadClientCertPath": "/c"}"#).unwrap_err().contains("`tenantId` is missing"));
        assert!(of("{}").unwrap_err().contains("names no credentials"));
    }

    #[test]
    fn forms_are_written_as_forms() {
        assert_eq!(form(&[("a", "b c&d"), ("e", "https://f/.g")]), "a=b%20c%26d&e=https%3A%2F%2Ff%2F.g");
    }
}
