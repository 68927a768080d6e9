//! Keys, certificates, tokens and kubeconfigs of a lab. They are new in every lab and live in its own `/run`.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use k8s_openapi::ByteString;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;

use crate::controlplane::binary::hex;
use crate::network::API_ADDRESS;

/// Who the control plane's own parts are. Kubernetes binds its roles to these names.
const ADMIN: &str = "admin";
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
const KUBE_PROXY: &str = "system:kube-proxy";
/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// The cluster IP of the API server: the first of the range.
pub(crate) const API_CLUSTER_IP: &str = "10.96.0.1";
/// The certificate by which clients know the API server.
pub(crate) const CA_FILE: &str = "ca.crt";
/// Random bytes of a token: as hard to guess as an AES-128 key.
const TOKEN_BYTES: usize = 16;

/// All credentials of a lab.
#[derive(Debug)]
pub(crate) struct Credentials {
    dir: PathBuf,
    ca: String,
    admin: String,
    controller_manager: String,
    scheduler: String,
    kube_proxy: String,
}

impl Credentials {
    pub(crate) fn create(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "berth lab");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let names = ["127.0.0.1", "localhost", API_CLUSTER_IP].map(str::to_owned);
        let serving = CertificateParams::new([vec![API_ADDRESS.to_string()], names.to_vec()].concat())?;
        let serving_key = KeyPair::generate()?;
        let serving = serving.signed_by(&serving_key, &ca)?;

        let credentials = Self {
            ca: ca.pem(),
            admin: token()?,
            controller_manager: token()?,
            scheduler: token()?,
            kube_proxy: token()?,
            dir,
        };
        credentials.write(CA_FILE, &credentials.ca)?;
        credentials.write("serving.crt", &serving.pem())?;
        credentials.write("serving.key", &serving_key.serialize_pem())?;
        let service_accounts = KeyPair::generate()?;
        credentials.write("service-accounts.key", &service_accounts.serialize_pem())?;
        credentials.write("service-accounts.pub", &service_accounts.public_key_pem())?;
        credentials.write("tokens.csv", &credentials.tokens())?;
        credentials.write_kubeconfig("kube-controller-manager", &credentials.controller_manager)?;
        credentials.write_kubeconfig("kube-scheduler", &credentials.scheduler)?;
        credentials.write_kubeconfig("kube-proxy", &credentials.kube_proxy)?;
        Ok(credentials)
    }

    /// Columns of the API server's `--token-auth-file`: token, user, uid, groups.
    fn tokens(&self) -> String {
        let Self { admin, controller_manager, scheduler, kube_proxy, .. } = self;
        format!(
            "{admin},{ADMIN},{ADMIN},{MASTERS}\n\
             {controller_manager},{CONTROLLER_MANAGER},{CONTROLLER_MANAGER},{MASTERS}\n\
             {scheduler},{SCHEDULER},{SCHEDULER},{MASTERS}\n\
             {kube_proxy},{KUBE_PROXY},{KUBE_PROXY}\n"
        )
    }

    /// Where a file of the credentials is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the kubeconfig of a part is.
    pub(crate) fn kubeconfig_path(&self, who: &str) -> PathBuf {
        self.path(&format!("{who}.kubeconfig"))
    }

    /// Writes a kubeconfig for use inside the lab.
    pub(crate) fn write_kubeconfig(&self, who: &str, token: &str) -> Result<PathBuf> {
        self.write(&format!("{who}.kubeconfig"), &self.kubeconfig(&server(), token)?)
    }

    /// Writes the administrator's kubeconfig for use inside the lab.
    pub(crate) fn write_admin_kubeconfig(&self) -> Result<PathBuf> {
        self.write_kubeconfig(ADMIN, &self.admin)
    }

    /// Writes the administrator's kubeconfig for use outside the lab, where the API server is at `server`.
    pub(crate) fn write_host_kubeconfig(&self, path: &Path, server: &str) -> Result<()> {
        fs::write(path, self.kubeconfig(server, &self.admin)?).with_context(|| format!("writing {}", path.display()))
    }

    /// A client of the administrator.
    pub(crate) async fn admin_client(&self) -> Result<Client> {
        self.client(&self.admin).await
    }

    /// A client of whoever the token belongs to.
    pub(crate) async fn client(&self, token: &str) -> Result<Client> {
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig(&server(), token)?)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // The environment's proxy leads nowhere from inside a lab.
        config.proxy_url = None;
        Ok(Client::try_from(config)?)
    }

    fn kubeconfig(&self, server: &str, token: &str) -> Result<String> {
        let ca = ByteString(self.ca.clone().into_bytes());
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
            "clusters": [{ "name": "lab", "cluster": { "server": server, "certificate-authority-data": ca } }],
            "users": [{ "name": "lab", "user": { "token": token } }],
        });
        serde_saphyr::to_string(&config).context("writing a kubeconfig")
    }

    /// Writes a file that belongs with them.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

fn server() -> String {
    format!("https://{API_ADDRESS}:{}", super::API_PORT)
}

fn token() -> Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)).context("making a token")?;
    Ok(hex(&bytes))
}
