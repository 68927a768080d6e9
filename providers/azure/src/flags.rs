//! What an operator says by flags: the same words for the controller and for whoever plans for it.
//!
//! Nothing has a default here, so that who reads them from several places can tell what was said; the defaults are in
//! [`Flags::settings`] and [`Flags::config_file`]. Where things are in Azure is said by `azure.json`, see [`crate::config`].

use std::path::{Path, PathBuf};

use berth_provider::Namespaces;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use crate::config::{AzureJson, ConfigError};
use crate::settings::{Admission, DefaultScheme, Settings};

/// Where nodes of AKS and of Cluster API have the file, and where pods of cloud-provider-azure find it.
pub const DEFAULT_CONFIG: &str = "/etc/kubernetes/azure.json";

/// Longest name of a cluster: the internal load balancer has `-internal` behind it, and 80 letters at most (Azure rule).
const CLUSTER_NAME_MAX: usize = 71;

/// A name that load balancers can be called by: it becomes a part of paths.
fn cluster_name(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if ends && text.len() <= CLUSTER_NAME_MAX && text.chars().all(inner) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "no name that a load balancer can have; write at most {CLUSTER_NAME_MAX} of letters, digits and -_., beginning and ending with a letter or \
         digit"
    ))
}

/// Whom the internet reaches where a Service does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemeFlag {
    /// Nobody: a public frontend is asked for by azure-load-balancer-internal: "false"
    Internal,
    /// Every Service that does not ask for an internal frontend, as with AKS; in admitted namespaces alone
    Public,
}

/// The flags of the Azure provider.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Azure")]
// Fields of other providers' flags have the same names.
#[group(id = "azure")]
pub struct Flags {
    /// The file that says where things are in Azure and who Berth is there, as cloud-provider-azure has it; read once, at the start [default: /etc/kubernetes/azure.json]
    #[arg(id = "azure_config", long = "azure-config", env = "BERTH_AZURE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The cluster's name: the load balancers are named after it unless azure.json has another name, and everything that is made is tagged with it
    #[arg(id = "azure_cluster_name", long = "azure-cluster-name", env = "BERTH_AZURE_CLUSTER_NAME", value_name = "NAME", value_parser = cluster_name)]
    pub cluster_name: Option<String>,
    /// Whether the internet reaches a Service that does not say [default: internal]
    #[arg(
        id = "azure_default_scheme",
        long = "azure-default-scheme",
        env = "BERTH_AZURE_DEFAULT_SCHEME",
        value_enum,
        value_name = "SCHEME"
    )]
    pub default_scheme: Option<SchemeFlag>,
    /// Namespaces whose Services may have a frontend that the internet reaches; `*` for all [default: none]
    #[arg(
        id = "azure_public_namespaces",
        long = "azure-public-namespaces",
        env = "BERTH_AZURE_PUBLIC_NAMESPACES",
        value_name = "NAMESPACE,..."
    )]
    pub public_namespaces: Option<Namespaces>,
    /// Namespaces whose Services may name public IPs, prefixes, resource groups and subnets that exist; `*` for all [default: none]
    #[arg(
        id = "azure_reference_namespaces",
        long = "azure-reference-namespaces",
        env = "BERTH_AZURE_REFERENCE_NAMESPACES",
        value_name = "NAMESPACE,..."
    )]
    pub reference_namespaces: Option<Namespaces>,
    /// Availability zones of the frontends and public IPs that are made, such as 1,2,3 [default: as Azure chooses]
    #[arg(
        id = "azure_zones",
        long = "azure-zones",
        env = "BERTH_AZURE_ZONES",
        value_name = "ZONE,...",
        value_delimiter = ',',
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub zones: Option<Vec<String>>,
}

impl Flags {
    /// Where the configuration is.
    pub fn config_file(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG))
    }

    /// What they and the configuration say, with the defaults where they say nothing. The cluster is given, because how its name is
    /// found where no flag has it is the caller's to know.
    ///
    /// # Errors
    /// When something is missing in the configuration, or asked for that is not done.
    pub fn settings(&self, config: &AzureJson, cluster: &str, cluster_uid: &str) -> Result<Settings, ConfigError> {
        let default_scheme = match self.default_scheme {
            None | Some(SchemeFlag::Internal) => DefaultScheme::Internal,
            Some(SchemeFlag::Public) => DefaultScheme::Public,
        };
        let admission = Admission {
            public: self.public_namespaces.clone().unwrap_or_default(),
            references: self.reference_namespaces.clone().unwrap_or_default(),
        };
        let settings = config.settings(cluster, cluster_uid, default_scheme, admission)?;
        Ok(Settings { zones: self.zones.clone().unwrap_or_default(), ..settings })
    }

    /// These, and those of `other` where these say nothing.
    #[must_use]
    pub fn or(&self, other: Self) -> Self {
        let these = self.clone();
        Self {
            config: these.config.or(other.config),
            cluster_name: these.cluster_name.or(other.cluster_name),
            default_scheme: these.default_scheme.or(other.default_scheme),
            public_namespaces: these.public_namespaces.or(other.public_namespaces),
            reference_namespaces: these.reference_namespaces.or(other.reference_namespaces),
            zones: these.zones.or(other.zones),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        flags: Flags,
    }

    fn read(words: &str) -> Result<Flags, String> {
        let words = std::iter::once("it").chain(words.split_whitespace());
        Words::try_parse_from(words).map(|words| words.flags).map_err(|error| error.to_string())
    }

    fn settings(flags: &Flags) -> Settings {
        let config =
            r#"{"subscriptionId": "s", "resourceGroup": "rg", "location": "l", "vnetName": "v", "subnetName": "n"}"#;
        flags.settings(&AzureJson::parse(config).unwrap(), "prod", "uid-1").unwrap()
    }

    #[test]
    fn where_nothing_is_said_nothing_is_admitted_and_everything_is_internal() {
        let flags = read("").unwrap();
        assert_eq!(flags, Flags::default());
        assert_eq!(flags.config_file(), Path::new("/etc/kubernetes/azure.json"));
        let settings = settings(&flags);
        assert_eq!((settings.default_scheme, settings.admission), (DefaultScheme::Internal, Admission::default()));
        assert_eq!((settings.cluster.as_str(), settings.zones.len()), ("prod", 0));
    }

    #[test]
    fn what_is_said_counts_and_fills_in_what_another_place_leaves_out() {
        let all = "--azure-config /a.json --azure-cluster-name prod --azure-default-scheme public --azure-public-namespaces shop,web \
                   --azure-reference-namespaces * --azure-zones 1,2";
        let flags = read(all).unwrap();
        assert_eq!((flags.cluster_name.as_deref(), flags.config_file()), (Some("prod"), Path::new("/a.json")));
        let settings = settings(&flags);
        assert!(settings.admission.public.has("web") && !settings.admission.public.has("other"));
        assert_eq!(settings.admission.references, Namespaces::All);
        assert_eq!(settings.default_scheme, DefaultScheme::Public);
        assert_eq!(settings.zones, ["1", "2"]);
        assert_eq!(Flags::default().or(flags.clone()), flags);
        let other = read("--azure-cluster-name test").unwrap();
        assert_eq!(other.or(flags).cluster_name.as_deref(), Some("test"));
    }

    #[test]
    fn words_that_are_none_are_refused() {
        for (words, says) in [
            ("--azure-public-namespaces Shop", "`Shop` is no name of a namespace"),
            ("--azure-reference-namespaces *,shop", "`*` is all namespaces already"),
            ("--azure-default-scheme open", "possible values: internal, public"),
            ("--azure-cluster-name=", "no name that a load balancer can have"),
            ("--azure-cluster-name=a/../b", "no name that a load balancer can have"),
            ("--azure-cluster-name=-a", "beginning and ending with a letter or digit"),
            ("--azure-zones=1,,2", "a value is required"),
        ] {
            let error = read(words).unwrap_err();
            assert!(error.contains(says), "{words}: {error}");
        }
    }
}
