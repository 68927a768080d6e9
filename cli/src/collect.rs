//! Reads what a report is made of. Decides nothing.

use std::fmt::Debug;

use berth_api::names::{CONTROLLER_NAME, CONTROLLER_NAMESPACE, LEADER_LEASE, SPEAKER_NAME, SPEAKER_NAMESPACE};
use berth_api::orphans::config_map_name;
use futures::join;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::connect::Connection;
use crate::observed::{Cluster, Everything, Seen, Surroundings};
use crate::orphans::CLOUDS;
use crate::report::Unreadable;

/// Objects of one answer: what kubectl asks for at a time, so that a large cluster need not answer in one piece.
const PAGE: u32 = 500;
/// Label of an EndpointSlice that names its Service (Kubernetes convention).
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Why nothing could be read at all.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Nobody answers there.
    #[error("the API server at {server} cannot be reached: {cause}")]
    Unreachable {
        /// Where it was looked for.
        server: String,
        /// The innermost cause.
        cause: String,
    },
    /// It took longer than was allowed.
    #[error("the API server at {server} did not answer within {limit:?}")]
    TimedOut {
        /// Where it is.
        server: String,
        /// What was allowed.
        limit: std::time::Duration,
    },
    /// The API server does not know who asks.
    #[error("the API server at {server} does not accept the credentials: {message}")]
    Unauthorized {
        /// Where it is.
        server: String,
        /// Its words.
        message: String,
    },
    /// The Service that was asked about is not there.
    #[error("there is no Service {name} in namespace {namespace}")]
    NoService {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The Service that was asked about may not be read.
    #[error("Service {name} in namespace {namespace} cannot be read: {message}")]
    ServiceUnreadable {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The API server's words.
        message: String,
    },
}

impl CollectError {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "look at the cluster that the kubeconfig names, or choose another with `--context` or `--server`"
            }
            Self::TimedOut { .. } => "allow more time with `--request-timeout`, or look at the API server",
            Self::Unauthorized { .. } => "log in again, or choose another user with `--user` or `--token`",
            Self::NoService { .. } => "choose the namespace with `-n`; `kubectl berth status -A` shows those of all",
            Self::ServiceUnreadable { .. } => "it needs the verb `get` on `services` in that namespace",
        }
    }
}

/// Reads from one cluster.
pub struct Reader<'a> {
    connection: &'a Connection,
}

impl<'a> Reader<'a> {
    /// A reader.
    pub fn new(connection: &'a Connection) -> Self {
        Self { connection }
    }

    /// All that a summary is made of. `namespace` limits the Services; `None` means all.
    pub async fn cluster(&self, namespace: Option<&str>) -> Result<Cluster, CollectError> {
        let services = self.list(self.scoped(namespace), "services", ListParams::default());
        let slices = self.list(self.scoped(namespace), "endpointslices.discovery.k8s.io", ListParams::default());
        let (services, slices, around, pools, advertisements, routes, speakers, daemon_set, lease) = join!(
            services,
            slices,
            self.around(),
            self.list(self.all(), "ipaddresspools.berth.dev", ListParams::default()),
            self.list(self.all(), "l2advertisements.berth.dev", ListParams::default()),
            self.list(self.all(), "routeadvertisements.berth.dev", ListParams::default()),
            self.list(self.all(), "speakernodes.berth.dev", ListParams::default()),
            self.one::<DaemonSet>("daemonsets.apps", SPEAKER_NAMESPACE, SPEAKER_NAME),
            self.one::<Lease>("leases.coordination.k8s.io", CONTROLLER_NAMESPACE, LEADER_LEASE),
        );
        let (announcements, nodes, controller) = around?;
        Ok(Cluster {
            services: services?,
            namespace: namespace.map(str::to_owned),
            around: Surroundings { announcements, slices: slices?, nodes, controller },
            pools: pools?,
            advertisements: advertisements?,
            route_advertisements: routes?,
            speakers: speakers?,
            daemon_set: daemon_set?,
            lease: lease?,
        })
    }

    /// Everything that the controller watches, and how it was started.
    pub async fn everything(&self) -> Result<Everything, CollectError> {
        let all = ListParams::default;
        let (
            services,
            namespaces,
            cidrs,
            nodes,
            slices,
            announcements,
            pools,
            advertisements,
            routes,
            speakers,
            controller,
        ) = join!(
            self.list(self.all(), "services", all()),
            self.list(self.all(), "namespaces", all()),
            self.list(self.all(), "servicecidrs.networking.k8s.io", all()),
            self.list(self.all(), "nodes", all()),
            self.list(self.all(), "endpointslices.discovery.k8s.io", all()),
            self.list(self.all(), "announcements.berth.dev", all()),
            self.list(self.all(), "ipaddresspools.berth.dev", all()),
            self.list(self.all(), "l2advertisements.berth.dev", all()),
            self.list(self.all(), "routeadvertisements.berth.dev", all()),
            self.list(self.all(), "speakernodes.berth.dev", all()),
            self.controller(),
        );
        Ok(Everything {
            services: services?,
            namespaces: namespaces?,
            service_cidrs: cidrs?,
            nodes: nodes?,
            slices: slices?,
            announcements: announcements?,
            pools: pools?,
            advertisements: advertisements?,
            route_advertisements: routes?,
            speakers: speakers?,
            controller: controller?,
        })
    }

    /// One Service and what its chain is followed in.
    pub async fn service(&self, namespace: &str, name: &str) -> Result<(Service, Surroundings), CollectError> {
        let of_service = ListParams::default().labels(&format!("{SERVICE_NAME_LABEL}={name}"));
        let (service, slices, around) = join!(
            self.one::<Service>("services", namespace, name),
            self.list(self.scoped(Some(namespace)), "endpointslices.discovery.k8s.io", of_service),
            self.around(),
        );
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let service = match service? {
            Seen::Here(Some(service)) => service,
            Seen::Here(None) | Seen::KindMissing => return Err(CollectError::NoService { namespace, name }),
            Seen::Unreadable(Unreadable { message, .. }) => {
                return Err(CollectError::ServiceUnreadable { namespace, name, message });
            }
        };
        let (announcements, nodes, controller) = around?;
        Ok((service, Surroundings { announcements, slices: slices?, nodes, controller }))
    }

    /// What tells the versions: the controller's Deployment, the SpeakerNodes, and Kubernetes' own.
    pub async fn versions(
        &self,
    ) -> Result<(Seen<Option<Deployment>>, Seen<Vec<berth_api::SpeakerNode>>, Seen<String>), CollectError> {
        let (deployment, speakers, kubernetes) = join!(
            self.controller(),
            self.list(self.all(), "speakernodes.berth.dev", ListParams::default()),
            self.within(self.client().apiserver_version())
        );
        let kubernetes = match kubernetes? {
            Ok(info) => Seen::Here(info.git_version),
            Err(error) => Seen::Unreadable(self.unreadable("the version of Kubernetes", error)?),
        };
        Ok((deployment?, speakers?, kubernetes))
    }

    /// The lists of orphans of all providers that make something outside the cluster.
    pub async fn orphans(&self) -> Result<Vec<(&'static str, Seen<Option<ConfigMap>>)>, CollectError> {
        let mut lists = Vec::new();
        for provider in CLOUDS {
            let name = config_map_name(provider);
            lists.push((provider, self.one::<ConfigMap>("configmaps", CONTROLLER_NAMESPACE, &name).await?));
        }
        Ok(lists)
    }

    #[allow(clippy::type_complexity, reason = "three fields of one struct, which has a fourth")]
    async fn around(
        &self,
    ) -> Result<
        (Seen<Vec<berth_api::Announcement>>, Seen<Vec<k8s_openapi::api::core::v1::Node>>, Seen<Option<Deployment>>),
        CollectError,
    > {
        let (announcements, nodes, controller) = join!(
            self.list(self.all(), "announcements.berth.dev", ListParams::default()),
            self.list(self.all(), "nodes", ListParams::default()),
            self.controller(),
        );
        Ok((announcements?, nodes?, controller?))
    }

    async fn controller(&self) -> Result<Seen<Option<Deployment>>, CollectError> {
        self.one("deployments.apps", CONTROLLER_NAMESPACE, CONTROLLER_NAME).await
    }

    fn client(&self) -> &Client {
        &self.connection.client
    }

    fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client().clone())
    }

    fn scoped<K>(&self, namespace: Option<&str>) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        match namespace {
            Some(namespace) => Api::namespaced(self.client().clone(), namespace),
            None => self.all(),
        }
    }

    async fn one<K>(&self, resource: &str, namespace: &str, name: &str) -> Result<Seen<Option<K>>, CollectError>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = self.scoped(Some(namespace));
        match self.within(api.get_opt(name)).await? {
            Ok(object) => Ok(Seen::Here(object)),
            Err(error) => {
                Ok(Seen::Unreadable(self.unreadable(&format!("{resource} {name} in namespace {namespace}"), error)?))
            }
        }
    }

    /// All pages of a list.
    async fn list<K>(&self, api: Api<K>, resource: &str, params: ListParams) -> Result<Seen<Vec<K>>, CollectError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let mut params = params.limit(PAGE);
        let mut items = Vec::new();
        let mut started_again = false;
        loop {
            let page = match self.within(api.list(&params)).await? {
                Ok(page) => page,
                // The list changed for longer than the API server remembers: from the start, in one piece.
                Err(kube::Error::Api(status)) if status.code == 410 && !started_again => {
                    started_again = true;
                    items.clear();
                    (params.limit, params.continue_token) = (None, None);
                    continue;
                }
                Err(kube::Error::Api(status)) if status.is_not_found() || status.code == 404 => {
                    return Ok(Seen::KindMissing);
                }
                Err(error) => return Ok(Seen::Unreadable(self.unreadable(resource, error)?)),
            };
            items.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(Seen::Here(items)),
            }
        }
    }

    /// Waits no longer than is allowed.
    pub async fn within<T>(&self, request: impl Future<Output = T>) -> Result<T, CollectError> {
        match self.connection.limit.0 {
            None => Ok(request.await),
            Some(limit) => timeout(limit, request)
                .await
                .map_err(|_| CollectError::TimedOut { server: self.connection.server.clone(), limit }),
        }
    }

    /// An answer that concerns this request alone, or the reason why no other request can do better.
    pub fn unreadable(&self, resource: &str, error: kube::Error) -> Result<Unreadable, CollectError> {
        let server = self.connection.server.clone();
        match error {
            kube::Error::Api(status) if status.code == 401 => {
                Err(CollectError::Unauthorized { server, message: status.message })
            }
            kube::Error::Api(status) => Ok(Unreadable { resource: resource.to_owned(), message: status.message }),
            kube::Error::SerdeError(error) => Ok(Unreadable {
                resource: resource.to_owned(),
                message: format!("the answer cannot be read, perhaps because its version is another: {error}"),
            }),
            other => Err(CollectError::Unreachable { server, cause: innermost(&other) }),
        }
    }
}

/// What lies at the bottom of an error: the layers above say only that there is one.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_by_its_cause() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(innermost(&kube::Error::Service(Box::new(refused))), "connection refused");
    }
}
