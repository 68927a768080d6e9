//! Where a Service's status says that it is reached.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::LoadBalancerIngress;

/// How traffic reaches an address of ours: nodes accept it as it is, so clients inside the cluster may short-cut it
/// (Service API, `ipMode`).
const IP_MODE: &str = "VIP";

/// One place: nearly always an address as the pools write it, which needs no texts.
#[derive(Clone, Debug, PartialEq)]
pub enum Reached {
    /// An address in its canonical form, of mode VIP, and nothing else.
    Address(IpAddr),
    /// Whatever else somebody wrote.
    Other(Box<LoadBalancerIngress>),
}

impl Reached {
    /// Parses it; nothing is lost.
    pub fn of(ingress: &LoadBalancerIngress) -> Self {
        let address = ingress.ip.as_ref().and_then(|ip| ip.parse().ok()).map(Self::Address);
        address
            .filter(|reached| reached.written() == *ingress)
            .unwrap_or_else(|| Self::Other(Box::new(ingress.clone())))
    }

    /// As the API has it.
    pub fn written(&self) -> LoadBalancerIngress {
        match self {
            Self::Address(address) => LoadBalancerIngress {
                ip: Some(address.to_string()),
                ip_mode: Some(IP_MODE.to_owned()),
                ..LoadBalancerIngress::default()
            },
            Self::Other(ingress) => LoadBalancerIngress::clone(ingress),
        }
    }

    /// The address, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Other(ingress) => ingress.ip.as_ref()?.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_place_is_written_as_it_was_read_and_is_small_where_the_pools_wrote_it() {
        for (ingress, small, address) in [
            (json!({"ip": "192.0.2.1", "ipMode": "VIP"}), true, Some("192.0.2.1")),
            (json!({"ip": "2001:db8::1", "ipMode": "VIP"}), true, Some("2001:db8::1")),
            (json!({"ip": "2001:DB8::1", "ipMode": "VIP"}), false, Some("2001:db8::1")),
            (json!({"ip": "192.0.2.1"}), false, Some("192.0.2.1")),
            (json!({"ip": "192.0.2.1", "ipMode": "Proxy"}), false, Some("192.0.2.1")),
            (json!({"ip": "192.0.2.1", "ipMode": "VIP", "hostname": "a.example"}), false, Some("192.0.2.1")),
            (json!({"ip": "192.0.2.1", "ipMode": "VIP", "ports": []}), false, Some("192.0.2.1")),
            (json!({"hostname": "a.example"}), false, None),
            (json!({"ip": "one"}), false, None),
        ] {
            let read: LoadBalancerIngress = serde_json::from_value(ingress.clone()).unwrap();
            let reached = Reached::of(&read);
            assert_eq!(reached.written(), read, "{ingress}");
            assert_eq!(matches!(reached, Reached::Address(_)), small, "{ingress}");
            assert_eq!(reached.address().map(|a| a.to_string()).as_deref(), address, "{ingress}");
        }
    }
}
