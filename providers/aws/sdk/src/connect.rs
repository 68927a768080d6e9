//! From flags and surroundings to something that calls can be made with.

use std::error::Error;
use std::time::Duration;

use aws_config::imds;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, ConfigLoader, Region};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use berth_aws::pace::Rates;

use crate::call::Sdk;

/// Longest time until a connection stands.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest time for a call, with everything. AWS answers within a second or two; what takes longer is looked up again.
const CALL: Duration = Duration::from_secs(15);
/// Longest time for a question to the instance metadata service, which is on the same machine.
const METADATA: Duration = Duration::from_secs(2);
/// How often it is asked.
const METADATA_ATTEMPTS: u32 = 2;
/// Where it says in which region the instance is.
const REGION_PATH: &str = "/latest/meta-data/placement/region";
/// Where it says the address of the instance's first network interface.
const MAC_PATH: &str = "/latest/meta-data/mac";

/// What the operator says; the rest is found.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The region. By default what the environment, the profile or the instance says.
    pub region: Option<String>,
    /// The VPC. By default that of the instance on which this runs.
    pub vpc: Option<String>,
    /// How fast calls may be made.
    pub rates: Rates,
}

/// The calls, and where they are made.
#[derive(Clone, Debug)]
pub struct Connected {
    /// The calls.
    pub cloud: Sdk,
    /// The VPC.
    pub vpc: String,
    /// The region.
    pub region: String,
    /// What answers in AWS's place, where that is said.
    pub endpoint: Option<String>,
}

/// Why there is nobody to call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The region is not known.
    #[error("which region this runs in is not known ({0}); name it by --aws-region or AWS_REGION")]
    Region(String),
    /// The VPC is not known.
    #[error(
        "which VPC this runs in is not known ({0}); name it by --aws-vpc-id, or let pods reach the instance metadata service"
    )]
    Vpc(String),
    /// Nobody's certificates could be believed.
    #[error(
        "no certificates of authorities were found, by which AWS is known; put them into the image or mount them at /etc/ssl/certs, or name a file by SSL_CERT_FILE"
    )]
    Authorities,
    /// Connections cannot be secured.
    #[error("TLS could not be set up: {0}")]
    Tls(String),
    /// The metadata service says something that it never says.
    #[error("the instance metadata service says {value:?} for {path}")]
    Metadata {
        /// What was asked for.
        path: String,
        /// What it said.
        value: String,
    },
}

impl Sdk {
    /// Takes credentials from where pods have them: the environment, a web identity (IRSA), a container's agent (EKS Pod Identity), the
    /// instance. `AWS_ENDPOINT_URL` and its like for one service are honoured. AWS is not asked anything yet.
    pub async fn connect(options: Options) -> Result<Connected, ConnectError> {
        let has_authorities = !rustls_native_certs::load_native_certs().certs.is_empty();
        let http = client(has_authorities)?;
        let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
        let connected = Self::connect_by(loader, metadata(http), options).await?;
        if !has_authorities && is_reached_by_tls(connected.endpoint.as_deref()) {
            return Err(ConnectError::Authorities);
        }
        Ok(connected)
    }

    pub(crate) async fn connect_by(
        loader: ConfigLoader,
        metadata: imds::Client,
        options: Options,
    ) -> Result<Connected, ConnectError> {
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_timeout(CALL).build();
        let mut loader = loader.retry_config(RetryConfig::disabled()).timeout_config(timeouts);
        if let Ok(name) = AppName::new("berth") {
            loader = loader.app_name(name);
        }
        if let Some(region) = options.region {
            loader = loader.region(Region::new(region));
        }
        let mut config = loader.load().await;
        let region = match config.region() {
            Some(region) => region.to_string(),
            None => ask(&metadata, REGION_PATH).await.map_err(|why| why.or(ConnectError::Region))?,
        };
        config = config.into_builder().region(Region::new(region.clone())).build();
        let vpc = match options.vpc {
            Some(vpc) => vpc,
            None => vpc(&metadata).await.map_err(|why| why.or(ConnectError::Vpc))?,
        };
        let endpoint = config.endpoint_url().map(str::to_owned);
        Ok(Connected { cloud: Self::new(&config, &options.rates), vpc, region, endpoint })
    }
}

/// Why the metadata service did not say it.
enum Unsaid {
    Silent(String),
    Odd(ConnectError),
}

impl Unsaid {
    fn or(self, silent: fn(String) -> ConnectError) -> ConnectError {
        match self {
            Self::Silent(why) => silent(why),
            Self::Odd(error) => error,
        }
    }
}

/// What makes connections. The SDK's own panics where there are no certificates of authorities, as in an image of one file; without any, what
/// needs none is reached all the same.
fn client(has_authorities: bool) -> Result<SharedHttpClient, ConnectError> {
    let store = TrustStore::empty().with_native_roots(has_authorities);
    let context = TlsContext::builder().with_trust_store(store).build();
    let context = context.map_err(|error| ConnectError::Tls(error.to_string()))?;
    let builder = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
    Ok(builder.tls_context(context).build_https())
}

fn is_reached_by_tls(endpoint: Option<&str>) -> bool {
    endpoint.is_none_or(|endpoint| !endpoint.starts_with("http://"))
}

fn metadata(http: SharedHttpClient) -> imds::Client {
    let config = ProviderConfig::without_region().with_http_client(http);
    let client = imds::Client::builder().configure(&config).max_attempts(METADATA_ATTEMPTS);
    client.connect_timeout(METADATA).read_timeout(METADATA).operation_timeout(METADATA).build()
}

async fn vpc(metadata: &imds::Client) -> Result<String, Unsaid> {
    let mac = ask(metadata, MAC_PATH).await?;
    ask(metadata, &format!("/latest/meta-data/network/interfaces/macs/{mac}/vpc-id")).await
}

async fn ask(metadata: &imds::Client, path: &str) -> Result<String, Unsaid> {
    let said = metadata.get(path).await.map_err(|error| {
        let last = std::iter::successors(Some(&error as &dyn Error), |error| (*error).source()).last();
        Unsaid::Silent(format!("the instance metadata service: {}", last.unwrap_or(&error)))
    })?;
    let value = said.as_ref().trim();
    // It becomes part of a path, of names and of hosts.
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b':';
    if value.is_empty() || !value.bytes().all(is_word) {
        return Err(Unsaid::Odd(ConnectError::Metadata { path: path.to_owned(), value: value.to_owned() }));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests;
