//! The annotations of Azure load balancers: which there are, which are refused and why, and how their values are written.
//!
//! Names and meanings are those of cloud-provider-azure (CPAZ).

mod about;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::refusal::Refusal;

pub use about::{Line, lines};

/// What they begin with.
pub const PREFIX: &str = "service.beta.kubernetes.io/";
/// What those of Azure begin with behind [`PREFIX`]; another one with it that is not listed is a slip of the pen.
pub const AZURE: &str = "azure-";
/// What those begin with behind [`PREFIX`] that all clouds read. Berth knows one of them.
const OF_ALL_CLOUDS: &str = "load-balancer-";
/// That one.
pub const SOURCE_RANGES: &str = "load-balancer-source-ranges";
/// What those of one port begin with behind [`PREFIX`]; the port and one of [`OF_PORT`] follow.
pub const PORT: &str = "port_";
/// What may be said of one port.
pub const OF_PORT: &[&str] = &[
    "health-probe_protocol",
    "health-probe_port",
    "health-probe_interval",
    "health-probe_num-of-probe",
    "health-probe_request-path",
    "no_lb_rule",
    "no_probe_rule",
];

/// What becomes of an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It means what it means to CPAZ.
    Honoured,
    /// The Service is refused, unless the value asks for nothing.
    Refused {
        /// Values that ask for what is so anyway.
        harmless: &'static [&'static str],
        /// What is not done.
        why: &'static str,
    },
}

use Treatment::{Honoured, Refused};

const FALSE: &[&str] = &["false", "False", "FALSE", "f", "F", "0", ""];
const PRIVATE_LINK: Treatment = Refused {
    harmless: FALSE,
    why: "PrivateLinkServices are not made; they need backend pools of network interfaces, and these are of addresses",
};
const PRIVATE_LINK_DETAIL: Treatment = Refused { harmless: &[""], why: "PrivateLinkServices are not made" };

/// Every annotation behind [`PREFIX`], those of ports aside, and what becomes of it.
pub const KNOWN: &[(&str, Treatment)] = &[
    ("azure-load-balancer-internal", Honoured),
    ("azure-load-balancer-internal-subnet", Honoured),
    ("azure-load-balancer-ipv4", Honoured),
    ("azure-load-balancer-ipv6", Honoured),
    ("azure-pip-name", Honoured),
    ("azure-pip-name-ipv6", Honoured),
    ("azure-pip-prefix-id", Honoured),
    ("azure-pip-prefix-id-ipv6", Honoured),
    ("azure-load-balancer-resource-group", Honoured),
    ("azure-pip-tags", Honoured),
    ("azure-pip-ip-tags", Honoured),
    ("azure-dns-label-name", Honoured),
    (
        "azure-additional-public-ips",
        Refused {
            harmless: &[""],
            why: "security rules for addresses that no frontend has are not made, because nobody could tell whose they are",
        },
    ),
    ("azure-allowed-ip-ranges", Honoured),
    ("azure-allowed-service-tags", Honoured),
    ("azure-deny-all-except-load-balancer-source-ranges", Honoured),
    ("azure-disable-load-balancer-nsg-rule", Honoured),
    // Says what is so anyway: rules are always shared.
    ("azure-shared-securityrule", Honoured),
    ("azure-load-balancer-tcp-idle-timeout", Honoured),
    ("azure-load-balancer-disable-tcp-reset", Honoured),
    ("azure-disable-load-balancer-floating-ip", Honoured),
    ("azure-load-balancer-enable-high-availability-ports", Honoured),
    ("azure-load-balancer-health-probe-protocol", Honoured),
    ("azure-load-balancer-health-probe-interval", Honoured),
    ("azure-load-balancer-health-probe-num-of-probe", Honoured),
    ("azure-load-balancer-health-probe-request-path", Honoured),
    (
        "azure-load-balancer-configurations",
        Refused { harmless: &[""], why: "Services are not spread over several load balancers" },
    ),
    (
        "azure-load-balancer-mode",
        Refused { harmless: &[""], why: "it chooses between load balancers of the basic SKU, which is retired" },
    ),
    ("azure-pls-create", PRIVATE_LINK),
    ("azure-pls-name", PRIVATE_LINK_DETAIL),
    ("azure-pls-resource-group", PRIVATE_LINK_DETAIL),
    ("azure-pls-ip-configuration-subnet", PRIVATE_LINK_DETAIL),
    ("azure-pls-ip-configuration-ip-address-count", PRIVATE_LINK_DETAIL),
    ("azure-pls-ip-configuration-ip-address", PRIVATE_LINK_DETAIL),
    ("azure-pls-fqdns", PRIVATE_LINK_DETAIL),
    ("azure-pls-proxy-protocol", PRIVATE_LINK_DETAIL),
    ("azure-pls-visibility", PRIVATE_LINK_DETAIL),
    ("azure-pls-auto-approval", PRIVATE_LINK_DETAIL),
];

/// The annotations of one Service.
#[derive(Clone, Debug)]
pub struct Annotations<'a>(&'a BTreeMap<String, String>);

/// The full name of an annotation.
pub fn full(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// A value that cannot be read.
pub fn wrong(name: &str, value: &str, wrong: impl Into<String>, advice: impl Into<String>) -> Refusal {
    Refusal::Value { field: full(name), value: value.to_owned(), wrong: wrong.into(), advice: advice.into() }
}

/// Two wishes that do not go together.
pub fn contradiction(name: &str, why: impl Into<String>) -> Refusal {
    Refusal::Contradiction { field: full(name), why: why.into() }
}

/// The port, by number or name, and what is said of it.
fn of_port(name: &str) -> Option<(&str, &'static str)> {
    let rest = name.strip_prefix(PORT)?;
    OF_PORT.iter().find_map(|key| Some((rest.strip_suffix(key)?.strip_suffix('_')?, *key)))
}

impl<'a> Annotations<'a> {
    /// The annotations, once it is known that each of them is one that is honoured.
    ///
    /// # Errors
    /// When one of them is none that an Azure load balancer has, or asks for what is not done.
    pub fn of(all: &'a BTreeMap<String, String>) -> Result<Self, Refusal> {
        for (key, value) in all {
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            // A slip of the pen in who may reach it would let in everybody.
            if name.starts_with(OF_ALL_CLOUDS) && name != SOURCE_RANGES {
                return Err(Refusal::Unknown { field: key.clone() });
            }
            if of_port(name).is_some() || !(name.starts_with(AZURE) || name.starts_with(PORT)) {
                continue;
            }
            match KNOWN.iter().find(|(known, _)| *known == name) {
                None => return Err(Refusal::Unknown { field: key.clone() }),
                Some((_, Honoured)) => {}
                Some((_, Refused { harmless, .. })) if harmless.contains(&value.trim()) => {}
                Some((_, Refused { why, .. })) => {
                    return Err(Refusal::Unsupported { field: key.clone(), why: (*why).to_owned() });
                }
            }
        }
        Ok(Self(all))
    }

    /// The text of one, trimmed, also when it is empty.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.get(&full(name)).map(|value| value.trim())
    }

    /// The text of one, trimmed. An empty one is none.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.raw(name).filter(|value| !value.is_empty())
    }

    /// The ports that something is said of, by number or name.
    pub fn ports(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.keys().filter_map(|key| Some((key.as_str(), of_port(key.strip_prefix(PREFIX)?)?.0)))
    }

    /// The name of a resource, of at most so many letters. Others are no part of a path, and a look at them would be one for nobody.
    pub fn resource(&self, name: &str, max: usize, more: &[char]) -> Result<Option<&'a str>, Refusal> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') || more.contains(&c);
        let ends = !value.ends_with('.')
            && value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(&c));
        if value.len() <= max && ends && value.chars().all(fits) {
            return Ok(Some(value));
        }
        let more: String = more.iter().collect();
        let advice = format!("write at most {max} of letters, digits and -_.{more}, beginning with none of -.");
        Err(wrong(name, value, "no name that a resource of Azure has", advice))
    }

    /// A truth, as Go's `strconv.ParseBool` reads it.
    pub fn truth(&self, name: &str) -> Result<bool, Refusal> {
        Ok(self.maybe_truth(name)?.unwrap_or(false))
    }

    /// The same where not being there is something else than no.
    pub fn maybe_truth(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match value {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(Some(true)),
            _ if FALSE.contains(&value) => Ok(Some(false)),
            _ => Err(wrong(name, value, "neither true nor false", "write one of the two")),
        }
    }

    /// Words separated by commas.
    pub fn list(&self, name: &str) -> Vec<&'a str> {
        let split = |text: &'a str| text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        self.text(name).map(split).unwrap_or_default()
    }

    /// Pairs such as `a=b,c=d`.
    pub fn map(&self, name: &str) -> Result<BTreeMap<String, String>, Refusal> {
        let mut pairs = BTreeMap::new();
        for pair in self.list(name) {
            let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
                return Err(wrong(name, pair, "no pair of key and value", "write key=value,key=value"));
            };
            pairs.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        Ok(pairs)
    }

    /// A number of a range.
    pub fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, Refusal>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(value) = self.text(name) else { return Ok(None) };
        let number = value.parse().ok().filter(|number| range.contains(number));
        let what = || format!("no number from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| wrong(name, value, what(), "write one"))
    }

    /// An address.
    pub fn address(&self, name: &str) -> Result<Option<IpAddr>, Refusal> {
        let Some(value) = self.text(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| wrong(name, value, "no IP address", "write one such as 10.0.0.10"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_annotation_is_listed_twice() {
        let mut names: Vec<_> = KNOWN.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KNOWN.len());
    }

    #[test]
    fn an_annotation_of_a_port_is_split_at_the_last_word_that_is_known() {
        for (name, expected) in [
            ("port_80_health-probe_port", Some(("80", "health-probe_port"))),
            ("port_my_http_no_lb_rule", Some(("my_http", "no_lb_rule"))),
            ("port_80_health-probe_protokoll", None),
            ("port_no_lb_rule", None),
        ] {
            assert_eq!(of_port(name), expected, "{name}");
        }
    }

    #[test]
    fn every_annotation_is_honoured_or_refused_by_name() {
        for (name, treatment) in KNOWN {
            let all = BTreeMap::from([(full(name), "x".to_owned())]);
            match (treatment, Annotations::of(&all)) {
                (Honoured, Ok(_)) => {}
                (Refused { .. }, Err(refusal)) => assert!(refusal.to_string().starts_with(&full(name)), "{refusal}"),
                (_, other) => panic!("{name}: {other:?}"),
            }
        }
        for slip in ["azure-load-balancer-intern", "azure-dns-label", "port_80_probe"] {
            let all = BTreeMap::from([(full(slip), String::new())]);
            assert_eq!(Annotations::of(&all).unwrap_err(), Refusal::Unknown { field: full(slip) });
        }
        // Those of other clouds are nothing to us.
        let all = BTreeMap::from([(full("aws-load-balancer-type"), "external".to_owned())]);
        Annotations::of(&all).unwrap();
    }
}
