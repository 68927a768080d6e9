//! The objects of the demo, as a person would write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::Service;
use serde_json::json;

/// Name of the Service.
pub const SERVICE: &str = "web";
/// The first address of the pool in each family.
pub const FIRST_ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x200))];
/// The addresses of the pool.
pub const POOL_RANGES: [&str; 2] = ["192.0.2.200-192.0.2.220", "2001:db8:2::200-2001:db8:2::220"];
/// Name of the pool, and of what announces it.
pub const POOL: &str = "demo";

/// The port of the Service.
pub const PORT: u16 = 80;
/// Label and value by which the Service selects its pods.
pub const SELECTOR: (&str, &str) = ("app", SERVICE);

/// The pool, and that its addresses are announced on the local network.
pub fn pool() -> String {
    let [v4, v6] = POOL_RANGES;
    format!(
        "apiVersion: berth.dev/v1alpha1\nkind: IPAddressPool\nmetadata:\n  name: {POOL}\n\
         spec:\n  addresses:\n  - {v4}\n  - {v6}\n\
         ---\n\
         apiVersion: berth.dev/v1alpha1\nkind: L2Advertisement\nmetadata:\n  name: {POOL}\n\
         spec:\n  ipAddressPools:\n  - {POOL}\n"
    )
}

/// The Service. `Local`: a node gives its own pods what arrives there and leaves the client's address on it.
pub fn service(target_port: u16) -> Result<Service, serde_json::Error> {
    let (label, value) = SELECTOR;
    serde_json::from_value(json!({
        "metadata": { "name": SERVICE },
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": berth_api::names::POOL_CLASS,
            "externalTrafficPolicy": "Local",
            "ipFamilyPolicy": "RequireDualStack",
            "selector": { label: value },
            "ports": [{ "port": PORT, "targetPort": target_port }],
        },
    }))
}

/// What a person types to ask a Service at its address.
pub fn url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("http://{v4}/"),
        IpAddr::V6(v6) => format!("http://[{v6}]/"),
    }
}

#[cfg(test)]
mod tests {
    use berth_api::pool::{Addresses, IpRange};
    use serde_json::Value;

    use super::*;
    use crate::workspace;

    fn sample(name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(workspace::root().join("deploy/samples").join(name)).unwrap();
        serde_saphyr::from_multiple(&text).unwrap()
    }

    #[test]
    fn the_samples_can_be_applied_beside_the_demo() {
        let ours = Addresses::parse(&POOL_RANGES).unwrap();
        for object in ["pool.yaml", "services.yaml", "mock-service.yaml", "aws-service.yaml", "azure-service.yaml"]
            .into_iter()
            .flat_map(sample)
        {
            let name = object["metadata"]["name"].as_str().unwrap();
            assert!(name != POOL && name != SERVICE, "{object}");
            for entry in object["spec"]["addresses"].as_array().into_iter().flatten() {
                let range: IpRange = entry.as_str().unwrap().parse().unwrap();
                assert!(ours.ranges().iter().all(|other| other.intersection(range).is_none()), "{range}");
            }
        }
    }
}
