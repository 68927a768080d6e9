//! Which provider serves a Service: by its class, by a class that was mapped, or by default.
//!
//! The controller asks it of each Service that it watches, and whoever plans for the controller asks the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use berth_api::names::{AWS_NLB_CLASS, AZURE_LB_CLASS, CLASS_PREFIX, MOCK_CLASS, POOL_CLASS};
use k8s_openapi::api::core::v1::Service;

/// The providers that are switched on where nothing is said, as they are written on the command line.
pub const DEFAULT_PROVIDERS: &str = "pool";
/// Who serves a Service that names no class where nothing is said, as it is written on the command line.
pub const DEFAULT_DEFAULT: &str = "none";

/// The providers that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum ProviderName {
    /// Addresses from pools, announced by the nodes.
    Pool,
    /// Addresses for tests, which nobody answers at.
    Mock,
    /// Network Load Balancers of AWS.
    Aws,
    /// Frontends of the cluster's Azure load balancer.
    Azure,
}

impl ProviderName {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pool, Self::Mock, Self::Aws, Self::Azure];

    /// Its word in flags, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Mock => "mock",
            Self::Aws => "aws",
            Self::Azure => "azure",
        }
    }

    /// Its own class.
    pub fn class(self) -> &'static str {
        match self {
            Self::Pool => POOL_CLASS,
            Self::Mock => MOCK_CLASS,
            Self::Aws => AWS_NLB_CLASS,
            Self::Azure => AZURE_LB_CLASS,
        }
    }

    /// Whether what it makes is in a cloud. Such a provider marks Services with the one finalizer that there is.
    pub fn is_a_cloud(self) -> bool {
        matches!(self, Self::Aws | Self::Azure)
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who serves a Service that names no class. Never Azure: its own controller, which every cluster there has, takes all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum DefaultProvider {
    /// Nobody here: such Services are another controller's.
    None,
    /// The address pools.
    Pool,
    /// The addresses for tests.
    Mock,
    /// Network Load Balancers of AWS, for what the AWS Load Balancer Controller takes without a class: that of the type external or nlb-ip.
    Aws,
}

impl DefaultProvider {
    /// That one, or nobody where it serves no such Services.
    pub fn of(name: ProviderName) -> Self {
        match name {
            ProviderName::Pool => Self::Pool,
            ProviderName::Mock => Self::Mock,
            ProviderName::Aws => Self::Aws,
            ProviderName::Azure => Self::None,
        }
    }

    /// The provider, if there is one.
    pub fn name(self) -> Option<ProviderName> {
        match self {
            Self::None => None,
            Self::Pool => Some(ProviderName::Pool),
            Self::Mock => Some(ProviderName::Mock),
            Self::Aws => Some(ProviderName::Aws),
        }
    }
}

/// A further class for a provider, as it is written on the command line: `CLASS=PROVIDER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The class.
    pub class: String,
    /// Who serves it.
    pub provider: ProviderName,
}

/// Why a mapping cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// No `=`.
    #[error("`{0}` is no mapping; write CLASS=PROVIDER, such as example.com/lb=pool")]
    Form(String),
    /// No such provider.
    #[error("`{0}` is no provider; there are pool, mock, aws and azure")]
    Provider(String),
    /// No class that a Service could have.
    #[error("`{0}` is no class; one is a name such as example.com/lb")]
    Class(String),
    /// One of Berth's own.
    #[error("`{0}` is one of Berth's own classes, which are not mapped")]
    Own(String),
}

impl FromStr for Mapping {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let (class, provider) = text.split_once('=').ok_or_else(|| MappingError::Form(text.to_owned()))?;
        let known = ProviderName::ALL.into_iter().find(|name| name.as_str() == provider);
        let provider = known.ok_or_else(|| MappingError::Provider(provider.to_owned()))?;
        if class.is_empty() || class.contains(char::is_whitespace) {
            return Err(MappingError::Class(class.to_owned()));
        }
        if class.starts_with(CLASS_PREFIX) {
            return Err(MappingError::Own(class.to_owned()));
        }
        Ok(Self { class: class.to_owned(), provider })
    }
}

/// Says which controller a Service without a class is for, in AWS.
const AWS_TYPE: &str = "service.beta.kubernetes.io/aws-load-balancer-type";
/// Has to be there beside the type `external`.
const AWS_TARGET_TYPE: &str = "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type";

/// Whether a Service without a class is one that the AWS Load Balancer Controller would serve. All others are those of the
/// cloud's own controller.
fn asks_for_aws(service: &Service) -> bool {
    let annotation = |name: &str| service.metadata.annotations.as_ref()?.get(name).map(|value| value.trim());
    match annotation(AWS_TYPE) {
        Some("nlb-ip") => true,
        Some("external") => matches!(annotation(AWS_TARGET_TYPE), Some("instance" | "ip")),
        _ => false,
    }
}

/// Who serves which class here.
#[derive(Clone, Debug)]
pub struct Classes {
    served: BTreeMap<String, ProviderName>,
    default: Option<ProviderName>,
}

/// Why the flags do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassesError {
    /// What is to be the default is not switched on.
    #[error("--default-provider {0} is not one of --providers; add it there or choose another default")]
    Default(ProviderName),
    /// What a class is mapped to is not switched on.
    #[error("--class {0}={1}: {1} is not one of --providers; add it there")]
    Mapped(String, ProviderName),
    /// Two mappings of one class.
    #[error("--class {0} is given twice, for {1} and {2}; leave one out")]
    Twice(String, ProviderName, ProviderName),
    /// Two that each hold a Service by the same finalizer: one would take off what the other one relies on.
    #[error("--providers has both {0} and {1}, and a cluster is in one cloud; leave one out")]
    TwoClouds(ProviderName, ProviderName),
}

/// Whose a Service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// This provider's.
    By(ProviderName),
    /// None of ours: another controller's, of another type, or on its way out.
    Elsewhere,
    /// Spelled as one of our classes, and nobody here serves it.
    Unknown(String),
}

impl Classes {
    /// What the flags say.
    pub fn new(
        providers: &BTreeSet<ProviderName>,
        mappings: &[Mapping],
        default: Option<ProviderName>,
    ) -> Result<Self, ClassesError> {
        let mut clouds = providers.iter().filter(|name| name.is_a_cloud());
        if let (Some(one), Some(other)) = (clouds.next(), clouds.next()) {
            return Err(ClassesError::TwoClouds(*one, *other));
        }
        let mut served: BTreeMap<_, _> = providers.iter().map(|name| (name.class().to_owned(), *name)).collect();
        for Mapping { class, provider } in mappings {
            if !providers.contains(provider) {
                return Err(ClassesError::Mapped(class.clone(), *provider));
            }
            if let Some(other) = served.insert(class.clone(), *provider).filter(|other| other != provider) {
                return Err(ClassesError::Twice(class.clone(), other, *provider));
            }
        }
        match default.filter(|default| !providers.contains(default)) {
            Some(default) => Err(ClassesError::Default(default)),
            None => Ok(Self { served, default }),
        }
    }

    /// Who serves a Service that names no class.
    pub fn default_provider(&self) -> Option<ProviderName> {
        self.default
    }

    /// Whose a Service is.
    pub fn of(&self, service: &Service) -> Served {
        let Some(spec) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("LoadBalancer")) else {
            return Served::Elsewhere;
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Served::Elsewhere;
        }
        match spec.load_balancer_class.as_deref() {
            None => match self.default {
                Some(ProviderName::Aws) if !asks_for_aws(service) => Served::Elsewhere,
                default => default.map_or(Served::Elsewhere, Served::By),
            },
            Some(class) => match self.served.get(class) {
                Some(name) => Served::By(*name),
                // The other providers' own classes may be another controller's of ours.
                None if class.starts_with(CLASS_PREFIX) && !ProviderName::ALL.iter().any(|p| p.class() == class) => {
                    Served::Unknown(class.to_owned())
                }
                None => Served::Elsewhere,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn classes(providers: &[ProviderName], mappings: &[&str], default: Option<ProviderName>) -> Classes {
        let mappings: Vec<Mapping> = mappings.iter().map(|text| text.parse().unwrap()).collect();
        Classes::new(&providers.iter().copied().collect(), &mappings, default).unwrap()
    }

    fn of(classes: &Classes, spec: Value) -> Served {
        let service = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
        classes.of(&serde_json::from_value(service).unwrap())
    }

    #[test]
    fn the_class_decides_then_the_default() {
        use ProviderName::{Azure, Mock, Pool};
        let azure = classes(&[Azure], &["example.com/azure=azure"], DefaultProvider::of(Azure).name());
        let both = classes(&[Pool, Mock], &["example.com/lb=pool"], Some(Pool));
        let pool = classes(&[Pool], &[], None);
        let lb = |class: Option<&str>| json!({"type": "LoadBalancer", "loadBalancerClass": class});
        let unknown = |class: &str| Served::Unknown(class.to_owned());
        for (who, spec, expected) in [
            (&both, lb(None), Served::By(Pool)),
            (&both, lb(Some("berth.dev/pool")), Served::By(Pool)),
            (&both, lb(Some("berth.dev/mock")), Served::By(Mock)),
            (&both, lb(Some("example.com/lb")), Served::By(Pool)),
            (&both, lb(Some("example.com/other")), Served::Elsewhere),
            (&both, lb(Some("service.k8s.aws/nlb")), Served::Elsewhere),
            (&both, lb(Some("berth.dev/pol")), unknown("berth.dev/pol")),
            (&both, json!({"type": "ClusterIP"}), Served::Elsewhere),
            (&pool, lb(None), Served::Elsewhere),
            (&pool, lb(Some("berth.dev/mock")), Served::Elsewhere),
            (&pool, lb(Some("example.com/lb")), Served::Elsewhere),
            (&azure, lb(None), Served::Elsewhere),
            (&azure, lb(Some("berth.dev/azure-lb")), Served::By(Azure)),
            (&azure, lb(Some("example.com/azure")), Served::By(Azure)),
            (&pool, lb(Some("berth.dev/azure-lb")), Served::Elsewhere),
        ] {
            assert_eq!(of(who, spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn a_service_that_is_being_deleted_is_nobodys() {
        let service = json!({
            "metadata": {"name": "web", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": "berth.dev/pool"},
        });
        let pool = classes(&[ProviderName::Pool], &[], None);
        assert_eq!(pool.of(&serde_json::from_value(service).unwrap()), Served::Elsewhere);
    }

    #[test]
    fn without_a_class_aws_serves_only_what_the_aws_load_balancer_controller_would() {
        let aws = classes(&[ProviderName::Aws], &["service.k8s.aws/nlb=aws"], Some(ProviderName::Aws));
        for (class, kind, targets, is_served) in [
            (None, None, None, false),
            (None, Some("external"), None, false),
            (None, Some("external"), Some("ip"), true),
            (None, Some("external"), Some("instance"), true),
            (None, Some("external"), Some("pod"), false),
            (None, Some("nlb-ip"), None, true),
            (None, Some("nlb"), Some("ip"), false),
            (Some("berth.dev/aws-nlb"), None, None, true),
            (Some("service.k8s.aws/nlb"), None, None, true),
            (Some("example.com/lb"), Some("nlb-ip"), None, false),
        ] {
            let service = json!({
                "metadata": {"name": "web", "annotations": {AWS_TYPE: kind.unwrap_or("-"), AWS_TARGET_TYPE: targets.unwrap_or("-")}},
                "spec": {"type": "LoadBalancer", "loadBalancerClass": class},
            });
            let expected = if is_served { Served::By(ProviderName::Aws) } else { Served::Elsewhere };
            assert_eq!(aws.of(&serde_json::from_value(service).unwrap()), expected, "{class:?} {kind:?} {targets:?}");
        }
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused_with_what_to_do() {
        use ProviderName::{Aws, Azure, Mock, Pool};
        let says = |providers: &[ProviderName], mappings: &[&str], default| {
            let mappings: Vec<Mapping> = mappings.iter().map(|text| text.parse().unwrap()).collect();
            Classes::new(&providers.iter().copied().collect(), &mappings, default).unwrap_err().to_string()
        };
        let refused = says(&[Pool], &[], Some(Mock));
        assert_eq!(
            refused,
            "--default-provider mock is not one of --providers; add it there or choose another default"
        );
        let refused = says(&[Pool], &["a/b=mock"], None);
        assert_eq!(refused, "--class a/b=mock: mock is not one of --providers; add it there");
        let refused = says(&[Pool, Mock], &["a/b=mock", "a/b=pool"], None);
        assert_eq!(refused, "--class a/b is given twice, for mock and pool; leave one out");
        let refused = says(&[Pool, Azure, Aws], &[], None);
        assert_eq!(refused, "--providers has both aws and azure, and a cluster is in one cloud; leave one out");
        for (text, says) in [
            ("a/b", "is no mapping"),
            ("a/b=cloud", "`cloud` is no provider"),
            ("=pool", "`` is no class"),
            ("berth.dev/mock=pool", "one of Berth's own"),
        ] {
            let error = text.parse::<Mapping>().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
