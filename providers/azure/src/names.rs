//! Names, as cloud-provider-azure gives them, so that what it made is recognised.

use berth_api::IpFamily;
use md5::{Digest as _, Md5};

/// Longest name of a frontend without its family (Azure: 80 with it).
const FRONTEND_MAX: usize = 75;
/// Letters of what all names of a Service begin with.
pub const BASE: usize = 32;
/// What our names of security rules begin with.
pub const SECURITY_PREFIX: &str = "k8s-azure-lb";
/// The one health probe of all Services with the Cluster policy, where so configured.
pub const SHARED_PROBE: &str = "cluster-service-shared-health-probe";

/// What all names of a Service begin with: `a` and its UID without dashes, 32 letters.
pub fn base(uid: &str) -> String {
    let mut base = format!("a{}", uid.replace('-', "").to_lowercase());
    let mut end = base.len().min(BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    base.truncate(end);
    base
}

/// What a name of a Service's part of a load balancer begins with, if it is one.
pub fn base_of(name: &str) -> Option<&str> {
    let base = name.get(..BASE)?;
    let is_base = base.starts_with('a') && base[1..].bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    let ends = name[BASE..].is_empty() || name[BASE..].starts_with('-');
    (is_base && ends).then_some(base)
}

/// The longest beginning with at most so many bytes; a last letter that no word has becomes `_` (Azure: names end in a word).
fn cut(name: &str, max: usize) -> String {
    let mut cut: String = name.to_owned();
    if cut.len() > max {
        let end = (0..=max).rev().find(|end| cut.is_char_boundary(*end)).unwrap_or(0);
        cut.truncate(end);
    }
    if cut.ends_with(|last: char| !(last.is_ascii_alphanumeric() || last == '_')) {
        cut.pop();
        cut.push('_');
    }
    cut
}

fn suffixed(name: String, suffix: bool) -> String {
    if suffix { format!("{name}-IPv6") } else { name }
}

/// What tells the names of frontends and rules of a Service apart that are there at the same time, while one takes another's place.
pub const ALTERNATES: [&str; 3] = ["", "-b", "-c"];

/// The name of a frontend. `second` is for the IPv6 one of a dual-stack Service; `alternate` is one of [`ALTERNATES`].
pub fn frontend(base: &str, subnet: Option<&str>, alternate: &str, second: bool) -> String {
    let mut name = format!("{base}{alternate}");
    if let Some(subnet) = subnet {
        name = format!("{name}-{subnet}");
    }
    suffixed(cut(&name, FRONTEND_MAX), second)
}

/// The name of a rule and of its probe.
pub fn rule(base: &str, subnet: Option<&str>, alternate: &str, what: &str, second: bool) -> String {
    let ending = format!("-{what}");
    let room = FRONTEND_MAX.saturating_sub(ending.len());
    let front = frontend(base, subnet, alternate, false);
    suffixed(format!("{}{ending}", cut(&front, room)), second)
}

/// The name of a public IP that is made for a Service.
pub fn public_ip(cluster: &str, base: &str, prefix: Option<&str>, digest: Option<&str>, second: bool) -> String {
    let ending = |prefix: Option<&str>| {
        [prefix, digest].into_iter().flatten().fold(format!("-{base}"), |name, part| format!("{name}-{part}"))
    };
    let mut rest = ending(prefix);
    if cluster.len() + rest.len() <= FRONTEND_MAX {
        return suffixed(cut(&format!("{cluster}{rest}"), FRONTEND_MAX), second);
    }
    // What tells it from others is never cut.
    if let Some(prefix) = prefix.filter(|prefix| prefix.len() > DIGEST) {
        rest = ending(Some(&self::digest(prefix)));
    }
    suffixed(format!("{}{rest}", cut(cluster, FRONTEND_MAX.saturating_sub(rest.len()))), second)
}

/// Letters of a digest.
const DIGEST: usize = 8;

/// Eight letters that tell one text from another.
pub fn digest(text: &str) -> String {
    hex(text)[..DIGEST].to_owned()
}

/// A UID for a Service that has none yet.
pub fn stand_in_uid(key: &str) -> String {
    let hex = hex(key);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The name of the backend pool of a family.
pub fn pool(cluster: &str, family: IpFamily) -> String {
    suffixed(cluster.to_owned(), family == IpFamily::V6)
}

/// The name of the security rule that lets in. Equal ones are one rule, whoever they are for.
pub fn allow(family: IpFamily, protocol: &str, sources: &[String], ports: &[String]) -> String {
    let (mut sources, mut ports) = (sources.to_vec(), ports.to_vec());
    sources.sort();
    ports.sort();
    let text = format!("{protocol}_{}_{}", sources.join(","), ports.join(","));
    format!("{SECURITY_PREFIX}_allow_{family}_{}", hex(&text))
}

/// The name of the security rule that lets in nobody.
pub fn deny_all(family: IpFamily) -> String {
    format!("{SECURITY_PREFIX}_deny-all_{family}")
}

fn hex(text: &str) -> String {
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'));
    Md5::digest(text.as_bytes()).iter().flat_map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "257b9655-5137-4ad2-b091-ef3f07043ad3";

    #[test]
    fn names_are_those_of_cloud_provider_azure() {
        let base = base(UID);
        assert_eq!(base, "a257b965551374ad2b091ef3f07043ad");
        assert_eq!(frontend(&base, None, "", true), format!("{base}-IPv6"));
        assert_eq!(frontend(&base, Some("apps"), "", false), format!("{base}-apps"));
        assert_eq!(rule(&base, None, "", "TCP-80", false), format!("{base}-TCP-80"));
        assert_eq!(rule(&base, Some("apps"), "", "UDP-53", true), format!("{base}-apps-UDP-53-IPv6"));
        assert_eq!(public_ip("prod", &base, None, None, true), format!("prod-{base}-IPv6"));
        assert_eq!(public_ip("prod", &base, Some("pre"), None, false), format!("prod-{base}-pre"));
        assert_eq!(pool("prod", IpFamily::V6), "prod-IPv6");
    }

    #[test]
    fn security_rules_have_the_golden_names() {
        let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        for (protocol, sources, ports, expected) in [
            ("Tcp", "Internet", "80,443", "556f7044ec033071ec0dfcf7cd85bc93"),
            ("Tcp", "Internet", "443,80", "556f7044ec033071ec0dfcf7cd85bc93"),
            ("Tcp", "Internet", "80", "d39272f7f57ed937951650d93992ad77"),
            ("Udp", "Internet", "53", "eacf5e21d4ad7b5345009ad51af9d388"),
            ("Tcp", "172.31.0.1/32,172.30.0.0/16", "80,443", "348fd65060cc78e6a75712b6169f6832"),
        ] {
            let name = allow(IpFamily::V4, protocol, &words(sources), &words(ports));
            assert_eq!(name, format!("k8s-azure-lb_allow_IPv4_{expected}"), "{protocol} {sources} {ports}");
        }
        assert_eq!(deny_all(IpFamily::V6), "k8s-azure-lb_deny-all_IPv6");
    }

    #[test]
    fn long_names_are_cut_and_end_in_a_word() {
        let base = base(UID);
        let long = "s".repeat(41) + "-" + &"t".repeat(40);
        let name = frontend(&base, Some(&long), "", true);
        assert_eq!(name, format!("{base}-{}_-IPv6", "s".repeat(41)));
        assert_eq!(name.len(), 80);
        assert!(rule(&base, Some(&long), "-b", "TCP-65535", true).len() <= 80);
    }

    #[test]
    fn public_ips_of_clusters_and_prefixes_with_long_names_are_told_apart() {
        let (one, other) = (base(UID), base("357b9655-5137-4ad2-b091-ef3f07043ad3"));
        let long = "c".repeat(70);
        let prefixes = ["p".repeat(70) + "1", "p".repeat(70) + "2"];
        let mut all = std::collections::BTreeSet::new();
        for cluster in ["prod", &long] {
            for base in [&one, &other] {
                for prefix in [None, Some(prefixes[0].as_str()), Some(&prefixes[1])] {
                    for digest in [None, Some("12345678")] {
                        let name = public_ip(cluster, base, prefix, digest, true);
                        assert!(name.len() <= 80 && name.contains(base.as_str()), "{name}");
                        assert!(all.insert(name.clone()), "{name}");
                    }
                }
            }
        }
        assert_eq!(public_ip("prod", &one, Some("pre"), None, false), format!("prod-{one}-pre"));
    }

    #[test]
    fn a_name_tells_whose_it_is() {
        let base = base(UID);
        for (name, expected) in [
            (format!("{base}-TCP-80"), Some(base.as_str())),
            (base.clone(), Some(base.as_str())),
            (format!("{base}x"), None),
            ("a-rule-of-somebody-else-entirely-long".to_owned(), None),
            ("short".to_owned(), None),
        ] {
            assert_eq!(base_of(&name), expected, "{name}");
        }
    }
}
