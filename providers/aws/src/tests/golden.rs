//! What is planned, word for word: `golden/NAME.txt` for each Service of the table. `BERTH_UPDATE_GOLDEN=1` writes the files anew.

use std::fmt::Write as _;
use std::path::Path;

use berth_provider::{Provider as _, Wanted};
use serde_json::{Value, json};

use super::scene::{Scene, ports, service};

fn cases() -> Vec<(&'static str, Vec<(&'static str, &'static str)>, Value)> {
    let dns = json!({"ports": [
        {"name": "tcp", "protocol": "TCP", "port": 53, "nodePort": 30053},
        {"name": "udp", "protocol": "UDP", "port": 53, "nodePort": 30053},
    ]});
    let local = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 32000, "loadBalancerSourceRanges": ["192.0.2.0/24"]});
    vec![
        ("internal", vec![], json!({})),
        (
            "public-tls",
            vec![("scheme", "internet-facing"), ("ssl-cert", "arn:a,arn:b"), ("ssl-ports", "443")],
            ports(&["TCP/80:30080", "TCP/443:30443"]),
        ),
        ("dns", vec![], dns),
        ("local", vec![], local),
        (
            "ip-targets",
            vec![("type", "nlb-ip"), ("proxy-protocol", "*"), ("additional-resource-tags", "team=a")],
            json!({}),
        ),
        (
            "elastic-ips",
            vec![("scheme", "internet-facing"), ("eip-allocations", "eipalloc-1,eipalloc-2"), ("name", "edge")],
            json!({}),
        ),
        (
            "dual-stack",
            vec![("ip-address-type", "dualstack"), ("enable-icmp-for-path-mtu-discovery", "on")],
            json!({"ipFamilies": ["IPv6", "IPv4"]}),
        ),
        ("own-security-groups", vec![("security-groups", "sg-missing")], json!({})),
        ("full-zone", vec![("subnets", "subnet-privatea,subnet-publica")], json!({})),
        ("group", vec![("berth.dev/load-balancer-group", "edge")], json!({})),
    ]
}

#[tokio::test]
async fn plans_are_what_they_were() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden");
    let update = std::env::var_os("BERTH_UPDATE_GOLDEN").is_some();
    for (name, annotations, spec) in cases() {
        let scene = Scene::new();
        let intent = service("web", &annotations, spec);
        let shard = scene.provider.shard(&intent);
        let key = intent.id.key.clone();
        let wanted = Wanted { present: [(key.clone(), intent)].into(), ..Wanted::default() };
        let observed = scene.provider.observe(&shard, &wanted).await.unwrap();
        let plan = scene.provider.plan(&wanted, &observed);
        let mut text = String::new();
        for planned in &plan.steps {
            writeln!(text, "{}", planned.step).unwrap();
        }
        for condition in &plan.outcomes[&key].conditions {
            writeln!(text, "{}: {}", condition.reason, condition.message).unwrap();
        }
        writeln!(
            text,
            "{}",
            serde_json::to_string_pretty(&plan.steps.iter().map(|p| &p.step).collect::<Vec<_>>()).unwrap()
        )
        .unwrap();
        let file = directory.join(format!("{name}.txt"));
        if update {
            std::fs::write(&file, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(text, golden, "{name}");
    }
}
