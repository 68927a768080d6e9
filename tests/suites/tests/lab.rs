//! The lab itself: that what it is made of is real, that faults do what they say, and that nothing of it is left behind.

use std::time::Duration;

use berth_lab::{Lab, PodSpec, lab_test};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(20);

lab_test! {
    async fn a_pod_answers_through_its_cluster_ip_and_its_node_port(lab: Lab) -> anyhow::Result<()> {
        lab.pod(PodSpec::new("web-1", "node-1").label("app", "web")).await?;
        let services: Api<Service> = Api::default_namespaced(lab.admin());
        let service = services.create(&PostParams::default(), &serde_json::from_value(json!({
            "metadata": { "name": "web" },
            "spec": { "type": "NodePort", "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        }))?).await?;
        let spec = service.spec.unwrap();
        let cluster_ip = (spec.cluster_ip.unwrap().parse::<std::net::Ipv4Addr>()?, 80).into();
        let node_port = spec.ports.unwrap()[0].node_port.unwrap();

        for node in lab.nodes() {
            let prober = node.netns().probe(cluster_ip, Duration::from_millis(20));
            let answer = prober.answered(LIMIT).await?.outcome.unwrap();
            assert_eq!((answer.pod.as_str(), answer.node.as_str()), ("web-1", "node-1"));
            let to = (node.address(), u16::try_from(node_port)?).into();
            let prober = lab.client().netns.probe(to, Duration::from_millis(20));
            assert_eq!(prober.answered(LIMIT).await?.outcome.unwrap().pod, "web-1");
        }
        Ok(())
    }
}
