//! `kubectl berth` as people run it: the program itself, with a kubeconfig, against a real API server.

mod plugin;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use berth_lab::{Lab, LabConfig, PodSpec, lab_test};

use plugin::{Plugin, has};

/// Longest wait for what takes well under a second on an idle machine.
const SOON: Duration = Duration::from_secs(20);
const NO_DATA_PATH: LabConfig = LabConfig { nodes: 1, kube_proxy: false };

const POOL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: office}
spec: {addresses: [192.0.2.200-192.0.2.209]}
---
apiVersion: berth.dev/v1alpha1
kind: L2Advertisement
metadata: {name: office}
spec: {ipAddressPools: [office]}
";

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: LoadBalancer
  loadBalancerClass: berth.dev/pool
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

const REFUSED: &str = "
apiVersion: v1
kind: Service
metadata: {name: refused, namespace: default}
spec:
  type: LoadBalancer
  loadBalancerClass: berth.dev/pool
  loadBalancerIP: 198.51.100.9
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

lab_test! {
    async fn a_service_is_followed_from_its_class_to_its_endpoints(lab: Lab) -> Result<()> {
        lab.install_berth().await?;
        let plugin = Plugin::of(&lab).await?;
        // A healthy installation in which nobody has asked for anything: who leads is told, and nothing is wrong.
        let leader = lab.controller().await?;
        let said = plugin.run(&["status"]).await?;
        assert_eq!(said.code, Some(0), "{said:?}");
        has(&said.out, &["controller   2/2 ", &format!("leader {}, renewed ", leader.pod()), "speakers     3/3 "])?;
        let (summary, _) = plugin.json(&["status"]).await?;
        assert_eq!(summary["controller"]["leader"], leader.pod(), "{summary:#}");

        lab.apply_yaml(POOL).await?;
        let _pod = lab.pod(PodSpec::new("web-1", "node-1").label("app", "web")).await?;
        lab.apply_yaml(WEB).await?;

        // One that works.
        let (report, _) = lab
            .eventually("Service web works", SOON, async || {
                let (report, said) = plugin.json(&["status", "web"]).await?;
                ensure!(said.code == Some(0) && report["ok"] == true, "{said:?}");
                Ok(Some((report, said)))
            })
            .await?;
        let address = &report["addresses"][0];
        assert_eq!(address["inStatus"], true);
        assert_eq!(address["owner"], address["answers"]["node"]);
        let names: Vec<_> = report["links"].as_array().context("links")?.iter().map(|link| &link["name"]).collect();
        assert_eq!(names, ["class", "request", "allocated", "claimed", "placed", "answering", "ingress", "endpoints"]);
        let said = plugin.run(&["status", "svc/web", "-n", "default"]).await?;
        has(&said.out, &["Service default/web works\n192.0.2.", ", answered by node-", "1 serving: 1 on node-1"])?;
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));

        // One that is refused.
        lab.apply_yaml(REFUSED).await?;
        let refused = lab
            .eventually("Service refused is refused", SOON, async || {
                let said = plugin.run(&["status", "refused"]).await?;
                ensure!(said.out.contains("AddressOutsidePools"), "{said:?}");
                Ok(Some(said))
            })
            .await?;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        has(&refused.out, &[
            "Service default/refused does not work as asked: allocated",
            "->   allocated   broken    AddressOutsidePools",
            "Ask for one that does, or add it to a pool.",
        ])?;

        // Both in the summary, with what they rest on.
        let (summary, said) = plugin.json(&["status", "-A"]).await?;
        assert_eq!(said.code, Some(1), "{said:?}");
        let services = summary["services"].as_array().context("services")?;
        assert_eq!(services.iter().map(|service| &service["ok"]).collect::<Vec<_>>(), [false, true]);
        assert_eq!(summary["speakers"]["reported"], 3, "{summary:#}");
        assert_eq!((&summary["pools"][0]["assignedIPv4"], &summary["pools"][0]["availableIPv4"]), (&1.into(), &9.into()));
        let told = plugin.run(&["status"]).await?;
        has(&told.out, &["office   True    Valid", "Service default/refused: AddressOutsidePools: 198.51.100.9 is in no"])?;

        // With few rights: what may not be read is named, the rest is there.
        let (report, said) = plugin.json(&["status", "web", "--context", "user"]).await?;
        assert_eq!((said.code, &report["ok"]), (Some(0), &true.into()), "{said:?}");
        has(&said.err, &["warning: announcements.berth.dev could not be read: announcements.berth.dev is forbidden"])?;
        assert_eq!(report["links"][3]["state"], "unknown", "{report:#}");
        assert_eq!(report["links"][7]["state"], "ok", "{report:#}");
        let said = plugin.run(&["status", "--context", "user"]).await?;
        has(&said.out, &["web "])?;
        has(&said.err, &["ipaddresspools.berth.dev could not be read", "nodes could not be read"])?;

        // Acting as somebody is somebody's rights.
        let said = plugin.run(&["status", "web", "--as", "jane"]).await?;
        assert_eq!(said.code, Some(2), "{said:?}");
        has(&said.err, &["error: Service web in namespace default cannot be read: ", "\"jane\""])?;

        let (versions, said) = plugin.json(&["version"]).await?;
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(versions["server"]["speakerVersions"][0]["nodes"].as_array().map(Vec::len), Some(3), "{versions:#}");
        ensure!(versions["server"]["kubernetesVersion"].as_str().is_some_and(|v| v.starts_with('v')), "{versions:#}");

        // kubectl finds it on the PATH and hands on what follows.
        let missing = plugin.run(&["status", "nothing"]).await?;
        assert_eq!(missing.code, Some(2));
        has(&missing.err, &["error: there is no Service nothing in namespace default", "hint: "])?;
        Ok(())
    }
}

lab_test! {
    NO_DATA_PATH;
    async fn a_cluster_without_berth_or_that_does_not_answer_is_told(lab: Lab) -> Result<()> {
        let plugin = Plugin::of(&lab).await?;
        let said = plugin.run(&["status"]).await?;
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
        has(&said.err, &["Berth is not installed in this cluster: ", "No Services of Berth found in default namespace."])?;
        let (summary, _) = plugin.json(&["status"]).await?;
        assert_eq!((&summary["installed"], &summary["problems"][0]["reason"]), (&false.into(), &"NotInstalled".into()));

        lab.apply_yaml(WEB).await?;
        let (report, said) = plugin.json(&["status", "web"]).await?;
        assert_eq!(said.code, Some(1));
        assert_eq!(report["firstBroken"]["name"], "allocated", "{report:#}");
        assert_eq!(report["firstBroken"]["reason"], "NotInstalled", "{report:#}");

        for (words, says) in [
            // Nobody listens there.
            (&["--server", "https://127.0.0.1:1"][..], "error: the API server at https://127.0.0.1:1 cannot be reached: Connection refused"),
            // Nobody is there at all.
            (&["--server", "https://192.0.2.250:6443", "--request-timeout", "300ms"], "error: the API server at https://192.0.2.250:6443 did not answer within 300ms"),
            (&["--context", "nobody"], "does not accept the credentials: Unauthorized"),
            (&["--context", "nowhere"], "error: the context `nowhere` is not in the kubeconfig"),
            (&["--kubeconfig", "/nowhere"], "error: failed to read kubeconfig from '\"/nowhere\"'"),
        ] {
            for command in ["status", "version"] {
                let said = plugin.run(&[&[command], words].concat()).await?;
                assert_eq!(said.code, Some(2), "{command} {words:?}: {said:?}");
                has(&said.err, &[says, "\nhint: "])?;
            }
        }
        let said = plugin.run(&["version", "--client", "--server", "https://127.0.0.1:1"]).await?;
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        ensure!(said.out.starts_with("Client Version: v"), "{said:?}");
        Ok(())
    }
}
