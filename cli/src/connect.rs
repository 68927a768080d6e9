//! From kubectl's flags to a client: which kubeconfig, and what is laid over it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedAuthInfo, NamedCluster,
    NamedContext,
};
use kube::{Client, Config};

use crate::args::{ClientArgs, Limit};
use crate::no_proxy::goes_direct;

/// The environment variable that lists kubeconfigs.
const KUBECONFIG: &str = "KUBECONFIG";
/// What the context is called that is made for `--server` where no kubeconfig has one.
const FROM_FLAGS: &str = "flags";

/// How the cluster is reached.
pub struct Connection {
    /// The client.
    pub client: Client,
    /// The namespace that is meant where none is named.
    pub namespace: String,
    /// The API server, for error messages.
    pub server: String,
    /// Longest that one request may take.
    pub limit: Limit,
}

/// Why there is no way to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing says where the cluster is.
    #[error("no cluster is configured: there is no kubeconfig at {0}")]
    NoKubeconfig(String),
    /// The kubeconfig is there and names no context.
    #[error("no cluster is chosen: the kubeconfig has no current context")]
    NoContext,
    /// The context, or what it names, is not there.
    #[error("{what} `{name}` is not in the kubeconfig")]
    Missing {
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The kubeconfig cannot be used.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// No client can be made of it.
    #[error("the kubeconfig cannot be used: {0}")]
    Client(#[source] Box<kube::Error>),
}

impl ConnectError {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoKubeconfig(_) => {
                "name one with `--kubeconfig` or KUBECONFIG, or the API server with `--server`; `plan` and `simulate` need none with `--offline`, where the files are all there is"
            }
            Self::NoContext => "choose one with `--context`, or `kubectl config use-context`",
            Self::Missing { .. } => "`kubectl config view` shows what is there",
            Self::Kubeconfig(_) | Self::Client(_) => "`kubectl config view` shows what is read; correct the kubeconfig",
        }
    }
}

/// Connects as the flags say.
pub async fn connect(args: &ClientArgs) -> Result<Connection, ConnectError> {
    let paths = paths(args.kubeconfig.as_deref(), std::env::var_os(KUBECONFIG).as_deref(), std::env::home_dir());
    let config = match read(&paths, args.kubeconfig.is_some())? {
        None if args.server.is_none() => Config::incluster().map_err(|_| {
            let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            ConnectError::NoKubeconfig(names.join(", "))
        })?,
        found => {
            let options = KubeConfigOptions {
                context: args.context.clone(),
                cluster: args.cluster.clone(),
                user: args.user.clone(),
            };
            let (kubeconfig, options) = overlay(found.unwrap_or_default(), options, args)?;
            let own_proxy = has_proxy(&kubeconfig, options.cluster.as_deref());
            let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            // kube compares NO_PROXY with the name of the proxy; what counts is that of the API server.
            let direct = config.cluster_url.host().is_some_and(|host| goes_direct(host, &no_proxy()));
            if direct && !own_proxy {
                config.proxy_url = None;
            }
            config
        }
    };
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let server = config.cluster_url.to_string();
    let limit = args.request_timeout;
    let client = Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))?;
    Ok(Connection { client, namespace, server: server.trim_end_matches('/').to_owned(), limit })
}

fn no_proxy() -> String {
    ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default()
}

/// Whether the kubeconfig itself names a proxy for the cluster, which holds whatever the environment says.
fn has_proxy(kubeconfig: &Kubeconfig, cluster: Option<&str>) -> bool {
    let named = kubeconfig.clusters.iter().find(|named| Some(named.name.as_str()) == cluster);
    let proxy = named.and_then(|named| named.cluster.as_ref()?.proxy_url.as_deref());
    proxy.is_some_and(|proxy| !proxy.is_empty())
}

/// The kubeconfigs to read, the first to say something wins.
fn paths(flag: Option<&Path>, variable: Option<&OsStr>, home: Option<PathBuf>) -> Vec<PathBuf> {
    if let Some(path) = flag {
        return vec![path.to_owned()];
    }
    let listed: Vec<_> = variable
        .map(|list| std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    if !listed.is_empty() {
        return listed;
    }
    home.map(|home| home.join(".kube").join("config")).into_iter().collect()
}

/// Reads and merges them. A file of the list need not be there, as in kubectl; one that is named by the flag has to be.
fn read(paths: &[PathBuf], required: bool) -> Result<Option<Kubeconfig>, KubeconfigError> {
    let mut merged: Option<Kubeconfig> = None;
    for path in paths.iter().filter(|path| required || path.exists()) {
        let next = Kubeconfig::read_from(path)?;
        merged = Some(match merged {
            Some(before) => before.merge(next)?,
            None => next,
        });
    }
    Ok(merged)
}

/// Lays the flags over the context, cluster and user that are used. Names all three, so that nothing is left to be guessed.
fn overlay(
    mut kubeconfig: Kubeconfig,
    mut options: KubeConfigOptions,
    args: &ClientArgs,
) -> Result<(Kubeconfig, KubeConfigOptions), ConnectError> {
    let chosen = options.context.clone().or(kubeconfig.current_context.clone()).filter(|name| !name.is_empty());
    let context_name = match chosen {
        Some(name) => name,
        None if args.server.is_some() || options.cluster.is_some() => {
            let context = Context { cluster: FROM_FLAGS.to_owned(), ..Context::default() };
            kubeconfig.contexts.push(NamedContext {
                name: FROM_FLAGS.to_owned(),
                context: Some(context),
                ..NamedContext::default()
            });
            kubeconfig.clusters.push(NamedCluster {
                name: FROM_FLAGS.to_owned(),
                cluster: Some(Cluster::default()),
                ..NamedCluster::default()
            });
            FROM_FLAGS.to_owned()
        }
        None => return Err(ConnectError::NoContext),
    };
    let missing = |what, name: &str| ConnectError::Missing { what, name: name.to_owned() };
    let context = kubeconfig.contexts.iter().find(|context| context.name == context_name);
    let context =
        context.and_then(|named| named.context.clone()).ok_or_else(|| missing("the context", &context_name))?;

    let cluster_name = options.cluster.take().unwrap_or_else(|| context.cluster.clone());
    let cluster = kubeconfig.clusters.iter_mut().find(|cluster| cluster.name == cluster_name);
    let cluster =
        cluster.and_then(|named| named.cluster.as_mut()).ok_or_else(|| missing("the cluster", &cluster_name))?;
    apply_to_cluster(cluster, args);

    let user_name = options.user.take().or(context.user).unwrap_or_else(|| FROM_FLAGS.to_owned());
    if !kubeconfig.auth_infos.iter().any(|user| user.name == user_name) {
        if args.user.is_some() {
            return Err(missing("the user", &user_name));
        }
        kubeconfig.auth_infos.push(NamedAuthInfo { name: user_name.clone(), ..NamedAuthInfo::default() });
    }
    for user in kubeconfig.auth_infos.iter_mut().filter(|user| user.name == user_name) {
        apply_to_user(user.auth_info.get_or_insert_default(), args);
    }
    let options = KubeConfigOptions { context: Some(context_name), cluster: Some(cluster_name), user: Some(user_name) };
    Ok((kubeconfig, options))
}

fn apply_to_cluster(cluster: &mut Cluster, args: &ClientArgs) {
    if let Some(server) = &args.server {
        cluster.server = Some(server.clone());
    }
    if let Some(path) = &args.certificate_authority {
        cluster.certificate_authority = Some(path.display().to_string());
        cluster.certificate_authority_data = None;
    }
    if args.insecure_skip_tls_verify {
        cluster.insecure_skip_tls_verify = Some(true);
        cluster.certificate_authority = None;
        cluster.certificate_authority_data = None;
    }
    if let Some(name) = &args.tls_server_name {
        cluster.tls_server_name = Some(name.clone());
    }
}

fn apply_to_user(user: &mut AuthInfo, args: &ClientArgs) {
    if let Some(token) = &args.token {
        // Only one way to authenticate may be left, and it is the one that was asked for.
        *user = AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() };
    }
    if let Some(path) = &args.client_certificate {
        user.client_certificate = Some(path.display().to_string());
        user.client_certificate_data = None;
    }
    if let Some(path) = &args.client_key {
        user.client_key = Some(path.display().to_string());
        user.client_key_data = None;
    }
    if let Some(name) = &args.as_user {
        user.impersonate = Some(name.clone());
        user.impersonate_groups = (!args.as_group.is_empty()).then(|| args.as_group.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "
current-context: one
contexts:
- {name: one, context: {cluster: a, user: u, namespace: shop}}
- {name: two, context: {cluster: b, user: v}}
clusters:
- {name: a, cluster: {server: 'https://a.example:6443', certificate-authority-data: QQ==}}
- {name: b, cluster: {server: 'https://b.example:6443'}}
users:
- {name: u, user: {client-certificate: /c, client-key: /k}}
- {name: v, user: {token: secret}}
";

    /// Cluster and user that are used, after the flags.
    fn laid(yaml: &str, args: &ClientArgs) -> Result<(Cluster, AuthInfo), ConnectError> {
        let options =
            KubeConfigOptions { context: args.context.clone(), cluster: args.cluster.clone(), user: args.user.clone() };
        let (kubeconfig, options) = overlay(Kubeconfig::from_yaml(yaml)?, options, args)?;
        let cluster = kubeconfig.clusters.into_iter().find(|c| Some(&c.name) == options.cluster.as_ref()).unwrap();
        let user = kubeconfig.auth_infos.into_iter().find(|u| Some(&u.name) == options.user.as_ref()).unwrap();
        Ok((cluster.cluster.unwrap(), user.auth_info.unwrap()))
    }

    #[allow(clippy::unnecessary_wraps, reason = "flags are optional")]
    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_context_cluster_and_user_that_are_asked_for_are_used() {
        for (args, server, certificate) in [
            (ClientArgs::default(), "https://a.example:6443", true),
            (ClientArgs { context: some("two"), ..ClientArgs::default() }, "https://b.example:6443", false),
            (ClientArgs { cluster: some("b"), ..ClientArgs::default() }, "https://b.example:6443", true),
            (ClientArgs { user: some("v"), ..ClientArgs::default() }, "https://a.example:6443", false),
            (ClientArgs { server: some("https://c.example"), ..ClientArgs::default() }, "https://c.example", true),
        ] {
            let (cluster, user) = laid(TWO, &args).unwrap();
            assert_eq!(cluster.server.as_deref(), Some(server), "{args:?}");
            assert_eq!(user.client_certificate.is_some(), certificate, "{args:?}");
        }
    }

    #[test]
    fn what_is_not_in_the_kubeconfig_is_named() {
        let with = |change: fn(&mut ClientArgs)| {
            let mut args = ClientArgs::default();
            change(&mut args);
            args
        };
        for (yaml, args, says) in [
            (TWO, with(|a| a.context = some("three")), "the context `three` is not in the kubeconfig"),
            (TWO, with(|a| a.cluster = some("c")), "the cluster `c` is not in the kubeconfig"),
            (TWO, with(|a| a.user = some("w")), "the user `w` is not in the kubeconfig"),
            ("contexts: []", with(|_| {}), "no cluster is chosen: the kubeconfig has no current context"),
            ("current-context: ''", with(|_| {}), "no cluster is chosen: the kubeconfig has no current context"),
        ] {
            assert_eq!(laid(yaml, &args).unwrap_err().to_string(), says);
        }
    }

    #[test]
    fn a_server_and_a_token_need_no_kubeconfig() {
        let args = ClientArgs { server: some("https://c.example"), token: some("t"), ..ClientArgs::default() };
        let (cluster, user) = laid("{}", &args).unwrap();
        assert_eq!(cluster.server, args.server);
        assert!(user.token.is_some());
    }

    #[test]
    fn a_token_replaces_the_other_ways_to_authenticate() {
        let (_, user) = laid(TWO, &ClientArgs { token: some("t"), ..ClientArgs::default() }).unwrap();
        assert!(user.token.is_some() && user.client_certificate.is_none() && user.client_key.is_none());
    }

    #[test]
    fn one_acts_as_another() {
        let args = ClientArgs { as_user: some("jane"), as_group: vec!["dev".to_owned()], ..ClientArgs::default() };
        let (_, user) = laid(TWO, &args).unwrap();
        assert_eq!((user.impersonate, user.impersonate_groups), (some("jane"), Some(vec!["dev".to_owned()])));
    }

    #[test]
    fn an_insecure_connection_trusts_no_authority_beside() {
        let (cluster, _) = laid(TWO, &ClientArgs { insecure_skip_tls_verify: true, ..ClientArgs::default() }).unwrap();
        assert_eq!((cluster.insecure_skip_tls_verify, cluster.certificate_authority_data), (Some(true), None));
    }

    #[test]
    fn kubeconfigs_are_found_as_kubectl_finds_them() {
        let home = || Some(PathBuf::from("/home/jane"));
        for (flag, variable, expected) in [
            (Some("/f"), Some("/a:/b"), &["/f"][..]),
            (None, Some("/a::/b"), &["/a", "/b"]),
            (None, Some(""), &["/home/jane/.kube/config"]),
            (None, None, &["/home/jane/.kube/config"]),
        ] {
            let found = paths(flag.map(Path::new), variable.map(OsStr::new), home());
            assert_eq!(found, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_file_of_the_list_may_be_missing_and_one_that_is_named_may_not() {
        let missing = [PathBuf::from("/nowhere/kubeconfig")];
        assert!(read(&missing, false).unwrap().is_none());
        assert!(read(&missing, true).unwrap_err().to_string().contains("/nowhere/kubeconfig"));
    }
}
