//! Carries requests over HTTP/1.1, with TLS where the address says so.

use std::io;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::builderstates::WantsSchemes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

use super::Transport;

/// Longest answer that is read: a full load balancer is some megabytes.
const LONGEST: usize = 64 << 20;

/// Connections that are kept and used again.
#[derive(Clone, Debug)]
pub struct Wire {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Wire {
    /// With the certificates that the system trusts.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new() -> io::Result<Self> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Ok(Self::of(HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)?))
    }

    /// For where nothing is encrypted, as with a stand-in: there need be no certificates, and who asks for TLS all the same is trusted by none.
    ///
    /// # Errors
    /// When there is no TLS at all.
    pub fn unencrypted() -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        Ok(Self::of(HttpsConnectorBuilder::new().with_tls_config(config)))
    }

    fn of(builder: HttpsConnectorBuilder<WantsSchemes>) -> Self {
        // Entra ID and ARM are always behind https; the metadata service of machines never is.
        let connector = builder.https_or_http().enable_http1().build();
        Self { client: Client::builder(TokioExecutor::new()).build(connector) }
    }
}

impl Transport for Wire {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, String> {
        let response = self.client.request(request.map(|body| Full::new(Bytes::from(body)))).await;
        let response = response.map_err(|error| chain(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map_err(|error| error.to_string())?;
        Ok(Response::from_parts(head, body.to_bytes().to_vec()))
    }
}

/// What a failure says, with what is behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
