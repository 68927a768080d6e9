//! Which hosts are reached without the proxy that the environment names.

use std::net::IpAddr;

use ipnet::IpNet;

/// Whether `host` is reached directly, by the list in NO_PROXY: names, which mean what is below them too, addresses, CIDRs, or `*`.
/// What is on this machine always is, as in kubectl.
pub fn goes_direct(host: &str, list: &str) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Ok(net) = entry.parse::<IpNet>() {
            return address.is_some_and(|address| net.contains(&address));
        }
        if let Ok(one) = entry.parse::<IpAddr>() {
            return address == Some(one);
        }
        let name = entry.trim_start_matches('*').to_ascii_lowercase();
        match name.strip_prefix('.') {
            Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
            None => host == name || host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.')),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_excepted_by_name_address_and_range() {
        for (host, list, expected) in [
            ("api.example.com", "", false),
            ("api.example.com", "*", true),
            ("api.example.com", "example.com", true),
            ("api.example.com", ".example.com", true),
            ("example.com", ".example.com", false),
            ("api.example.com", "*.example.com", true),
            ("badexample.com", "example.com", false),
            ("API.example.com", "x, api.EXAMPLE.com ,", true),
            ("192.0.2.1", "192.0.2.0/24", true),
            ("192.0.3.1", "192.0.2.0/24", false),
            ("[2001:db8::1]", "2001:db8::/64", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("localhost", "", true),
            ("127.0.0.1", "", true),
        ] {
            assert_eq!(goes_direct(host, list), expected, "{host} {list:?}");
        }
    }
}
