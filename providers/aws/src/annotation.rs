//! The annotations of AWS load balancers: which there are, which are refused and why, and how their values are written.
//!
//! Names, encodings and meanings are those of the AWS Load Balancer Controller (ALBC).

mod about;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::refusal::Refusal;

pub use about::{Line, lines};

/// What they begin with.
pub const PREFIX: &str = "service.beta.kubernetes.io/aws-load-balancer-";
/// What those begin with that all clouds read. Berth knows one of them.
const OF_ALL_CLOUDS: &str = "service.beta.kubernetes.io/load-balancer-";
/// That one.
pub const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// What weighted actions begin with.
pub const ACTIONS_PREFIX: &str = "service.beta.kubernetes.io/actions.";
/// What the attributes of one port's target group begin with; the port follows.
pub const TARGET_GROUP_ATTRIBUTES_OF: &str = "target-group-attributes.";
/// What the attributes of a listener begin with; `PROTOCOL-PORT` follows.
pub const LISTENER_ATTRIBUTES_OF: &str = "listener-attributes.";

/// Why weighted actions are refused.
const NO_ACTIONS: &str = "traffic is not split between target groups by weight";

/// What becomes of an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It means what it means to ALBC.
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

const FALSE: &[&str] = &["false", "False", "FALSE", "f", "F", "0"];

/// Every annotation behind [`PREFIX`], and what becomes of it.
pub const KNOWN: &[(&str, Treatment)] = &[
    ("type", Honoured),
    ("nlb-target-type", Honoured),
    ("name", Honoured),
    ("scheme", Honoured),
    ("internal", Honoured),
    ("ip-address-type", Honoured),
    ("subnets", Honoured),
    ("eip-allocations", Honoured),
    ("private-ipv4-addresses", Honoured),
    ("ipv6-addresses", Honoured),
    (
        "enable-prefix-for-ipv6-source-nat",
        Refused { harmless: &["off"], why: "prefixes for IPv6 source NAT are not set" },
    ),
    ("source-nat-ipv6-prefixes", Refused { harmless: &[], why: "prefixes for IPv6 source NAT are not set" }),
    ("security-groups", Honoured),
    ("manage-backend-security-group-rules", Honoured),
    ("disable-nlb-sg", Honoured),
    ("security-group-prefix-lists", Honoured),
    ("inbound-sg-rules-on-private-link-traffic", Honoured),
    ("enable-icmp-for-path-mtu-discovery", Honoured),
    ("attributes", Honoured),
    ("access-log-enabled", Honoured),
    ("access-log-s3-bucket-name", Honoured),
    ("access-log-s3-bucket-prefix", Honoured),
    ("cross-zone-load-balancing-enabled", Honoured),
    ("target-group-attributes", Honoured),
    ("proxy-protocol", Honoured),
    ("proxy-protocol-per-target-group", Honoured),
    ("ssl-cert", Honoured),
    ("ssl-ports", Honoured),
    ("ssl-negotiation-policy", Honoured),
    ("alpn-policy", Honoured),
    ("backend-protocol", Honoured),
    ("healthcheck-protocol", Honoured),
    ("healthcheck-port", Honoured),
    ("healthcheck-path", Honoured),
    ("healthcheck-interval", Honoured),
    ("healthcheck-timeout", Honoured),
    ("healthcheck-healthy-threshold", Honoured),
    ("healthcheck-unhealthy-threshold", Honoured),
    ("healthcheck-success-codes", Honoured),
    ("target-node-labels", Honoured),
    ("additional-resource-tags", Honoured),
    ("minimum-load-balancer-capacity", Refused { harmless: &[], why: "capacity is not reserved" }),
    ("multi-cluster-target-group", Refused { harmless: FALSE, why: "target groups are not shared between clusters" }),
    ("enable-tcp-udp-listener", Honoured),
    ("quic-enabled-ports", Refused { harmless: &[], why: "QUIC is not spoken" }),
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

impl<'a> Annotations<'a> {
    /// The annotations, once it is known that each of them is one that is honoured.
    ///
    /// # Errors
    /// When one of them is none that an AWS load balancer has, or asks for what is not done.
    pub fn of(all: &'a BTreeMap<String, String>) -> Result<Self, Refusal> {
        for (key, value) in all {
            if key.starts_with(ACTIONS_PREFIX) {
                let why = NO_ACTIONS.to_owned();
                return Err(Refusal::Unsupported { field: key.clone(), why });
            }
            // A slip of the pen in who may reach it would let in everybody.
            if key.starts_with(OF_ALL_CLOUDS) && key != SOURCE_RANGES {
                return Err(Refusal::Unknown { field: key.clone() });
            }
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            if name.starts_with(TARGET_GROUP_ATTRIBUTES_OF) || name.starts_with(LISTENER_ATTRIBUTES_OF) {
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

    /// The text of one, trimmed. An empty one is none.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(&full(name)).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The source ranges, which have a name of their own.
    pub fn source_ranges(&self) -> Vec<&'a str> {
        self.0.get(SOURCE_RANGES).map(|value| split(value)).unwrap_or_default()
    }

    /// Those whose names begin so, with what follows.
    pub fn starting(&self, prefix: &'static str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let theirs = move |(key, value): (&'a String, &'a String)| {
            Some((key.strip_prefix(PREFIX)?.strip_prefix(prefix)?, value.as_str()))
        };
        self.0.iter().filter_map(theirs)
    }

    /// A truth, as Go's `strconv.ParseBool` reads it.
    pub fn truth(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.text(name).map(|value| truth(&full(name), value)).transpose()
    }

    /// `on` or `off`.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.text(name) {
            None => Ok(None),
            Some("on") => Ok(Some(true)),
            Some("off") => Ok(Some(false)),
            Some(other) => Err(wrong(name, other, "neither `on` nor `off`", "write one of the two, or remove it")),
        }
    }

    /// Words separated by commas.
    pub fn list(&self, name: &str) -> Vec<&'a str> {
        self.text(name).map(split).unwrap_or_default()
    }

    /// Pairs such as `a=b,c=d`; a comma in a value is written `\,`.
    pub fn map(&self, name: &str) -> Result<BTreeMap<String, String>, Refusal> {
        self.text(name).map_or_else(|| Ok(BTreeMap::new()), |value| map(&full(name), value))
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

    /// One of some words, each with what it means.
    pub fn word<T: Clone>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Refusal> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let meant = words.iter().find(|(word, _)| *word == value).map(|(_, meant)| meant.clone());
        let all = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        meant.map(Some).ok_or_else(|| wrong(name, value, format!("none of {}", all()), "write one of them"))
    }
}

fn truth(field: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        _ if FALSE.contains(&value) => Ok(false),
        _ => Err(Refusal::Value {
            field: field.to_owned(),
            value: value.to_owned(),
            wrong: "neither true nor false".to_owned(),
            advice: "write one of the two".to_owned(),
        }),
    }
}

fn split(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}

/// Reads pairs such as `a=b,c=d`.
pub fn map(field: &str, text: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let mut pairs = BTreeMap::new();
    // U+0000 cannot be in an annotation, so it can stand for the comma that separates nothing.
    for pair in text.replace("\\,", "\0").split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = key.trim();
        if key.is_empty() || !pair.contains('=') {
            return Err(Refusal::Value {
                field: field.to_owned(),
                value: pair.replace('\0', ","),
                wrong: "no pair of key and value".to_owned(),
                advice: "write key=value,key=value".to_owned(),
            });
        }
        pairs.insert(key.replace('\0', ","), value.trim().replace('\0', ","));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
        map("it", text).map(|map| map.into_iter().collect()).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn pairs_are_read_with_escaped_commas_and_without_blanks() {
        let owned = |pairs: &[(&str, &str)]| Ok(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
        for (text, expected) in [
            ("", owned(&[])),
            ("a=b", owned(&[("a", "b")])),
            (" a = b , c=d=e ,", owned(&[("a", "b"), ("c", "d=e")])),
            (r"a=b\,c,d=", owned(&[("a", "b,c"), ("d", "")])),
            ("a", Err("it: `a` is no pair of key and value; write key=value,key=value".to_owned())),
            ("=b", Err("it: `=b` is no pair of key and value; write key=value,key=value".to_owned())),
        ] {
            assert_eq!(pairs(text), expected, "{text}");
        }
    }

    #[test]
    fn truths_are_read_as_go_reads_them() {
        for (text, expected) in
            [("true", Some(true)), ("T", Some(true)), ("0", Some(false)), ("no", None), ("tRUE", None)]
        {
            assert_eq!(truth("it", text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn no_annotation_is_listed_twice() {
        let mut names: Vec<_> = KNOWN.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KNOWN.len());
    }
}
