//! A cloud that is written down as the AWS CLI prints it is seen as the one that is looked at.

use berth_provider::{Provider as _, Wanted};
use serde_json::{Value, json};

use super::scene::{Scene, ports, service};
use crate::cloud::{By, Cloud as _, GroupFilter, HealthCheck, Pairs, Protocol, Rule, Source};
use crate::outlook::forecast;
use crate::snapshot::Snapshot;
use crate::step::Step;

fn tags(tags: &Pairs) -> Value {
    tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}

fn health(check: &HealthCheck) -> Value {
    json!({
        "HealthCheckProtocol": check.protocol, "HealthCheckPort": check.port, "HealthCheckPath": check.path,
        "HealthCheckIntervalSeconds": check.interval, "HealthCheckTimeoutSeconds": check.timeout, "HealthCheckEnabled": true,
        "HealthyThresholdCount": check.healthy, "UnhealthyThresholdCount": check.unhealthy,
        "Matcher": check.codes.as_ref().map(|codes| json!({"HttpCode": codes})),
    })
}

fn permission(rule: &Rule) -> Value {
    let mut permission = json!({
        "IpProtocol": rule.ip_protocol, "FromPort": rule.from_port, "ToPort": rule.to_port,
        "IpRanges": [], "Ipv6Ranges": [], "PrefixListIds": [], "UserIdGroupPairs": [],
    });
    let (list, key, from) = match &rule.source {
        Source::V4(range) => ("IpRanges", "CidrIp", range),
        Source::V6(range) => ("Ipv6Ranges", "CidrIpv6", range),
        Source::PrefixList(list) => ("PrefixListIds", "PrefixListId", list),
        Source::Group(group) => ("UserIdGroupPairs", "GroupId", group),
    };
    permission[list] = json!([{ key: from, "Description": rule.description }]);
    permission
}

/// Everything that is there, one answer after another.
async fn written(scene: &Scene) -> String {
    let (cloud, vpc) = (&scene.fake, &scene.settings.vpc);
    let subnets = cloud.describe_subnets(vpc).await.unwrap();
    let groups = cloud.describe_security_groups(vpc, GroupFilter::Tagged(Pairs::new())).await.unwrap();
    let balancers = cloud.describe_load_balancers(By::All).await.unwrap();
    let target_groups = cloud.describe_target_groups(By::All).await.unwrap();
    let public: Vec<_> =
        subnets.iter().filter(|s| s.is_public).map(|s| json!({"Main": false, "SubnetId": s.id})).collect();
    let mut answers = vec![
        json!({"Subnets": subnets.iter().map(|s| json!({
            "SubnetId": s.id, "VpcId": vpc, "AvailabilityZone": s.zone, "CidrBlock": s.cidr, "State": "available",
            "AvailableIpAddressCount": s.free_addresses, "Tags": tags(&s.tags),
            "Ipv6CidrBlockAssociationSet": [{"Ipv6CidrBlock": s.ipv6_cidr, "Ipv6CidrBlockState": {"State": "associated"}}],
        })).collect::<Vec<_>>()}),
        json!({"RouteTables": [
            {"VpcId": vpc, "Associations": [{"Main": true}], "Routes": [{"GatewayId": "local", "State": "active"}]},
            {"VpcId": vpc, "Associations": public, "Routes": [{"GatewayId": "igw-1", "State": "active"}]},
        ]}),
        json!({"AvailabilityZones": [{"ZoneName": "eu-central-1a", "ZoneType": "availability-zone"}]}),
        json!({"SecurityGroups": groups.iter().map(|g| json!({
            "GroupId": g.id, "GroupName": g.name, "VpcId": vpc, "Tags": tags(&g.tags),
            "IpPermissions": g.rules.iter().map(permission).collect::<Vec<_>>(),
        })).collect::<Vec<_>>()}),
        json!({"LoadBalancers": balancers.iter().map(|b| json!({
            "LoadBalancerArn": b.arn, "LoadBalancerName": b.name, "DNSName": b.dns_name, "VpcId": b.vpc_id, "Type": "network",
            "Scheme": b.scheme, "IpAddressType": b.ip_address_type, "State": {"Code": b.state}, "SecurityGroups": b.security_groups,
            "AvailabilityZones": b.subnet_ids.iter().map(|id| json!({"SubnetId": id})).collect::<Vec<_>>(),
            "EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic": b.enforces_on_private_link.map(|on| if on { "on" } else { "off" }),
        })).collect::<Vec<_>>()}),
        json!({"TargetGroups": target_groups.iter().map(|g| {
            let mut answer = health(&g.health_check);
            answer.as_object_mut().unwrap().extend(json!({
                "TargetGroupArn": g.arn, "TargetGroupName": g.name, "Protocol": g.protocol, "Port": g.port, "VpcId": vpc,
                "TargetType": g.target_type,
            }).as_object().unwrap().clone());
            answer
        }).collect::<Vec<_>>()}),
    ];
    let mut arns: Vec<String> = Vec::new();
    for balancer in balancers {
        let attributes = cloud.describe_load_balancer_attributes(&balancer.arn).await.unwrap();
        answers.push(json!({"LoadBalancerArn": balancer.arn, "Attributes": tags(&attributes)}));
        let listeners = cloud.describe_listeners(&balancer.arn).await.unwrap();
        let each = listeners.iter().map(|l| json!({
            "ListenerArn": l.arn, "LoadBalancerArn": balancer.arn, "Port": l.port, "Protocol": l.settings.protocol,
            "Certificates": l.settings.certificate.iter().map(|arn| json!({"CertificateArn": arn})).collect::<Vec<_>>(),
            "SslPolicy": l.settings.ssl_policy, "AlpnPolicy": l.settings.alpn_policy.iter().collect::<Vec<_>>(),
            "DefaultActions": [{"Type": "forward", "TargetGroupArn": l.settings.target_group_arn}],
        }));
        answers.push(json!({"Listeners": each.collect::<Vec<_>>()}));
        for listener in listeners {
            if listener.settings.protocol == Protocol::Tls {
                let more = cloud.describe_listener_certificates(&listener.arn).await.unwrap();
                let shown =
                    listener.settings.certificate.iter().map(|arn| json!({"CertificateArn": arn, "IsDefault": true}));
                let more = more.iter().map(|arn| json!({"CertificateArn": arn, "IsDefault": false}));
                answers
                    .push(json!({"ListenerArn": listener.arn, "Certificates": shown.chain(more).collect::<Vec<_>>()}));
            } else {
                let attributes = cloud.describe_listener_attributes(&listener.arn).await.unwrap();
                answers.push(json!({"ListenerArn": listener.arn, "Attributes": tags(&attributes)}));
            }
            arns.push(listener.arn);
        }
        arns.push(balancer.arn);
    }
    for group in target_groups {
        let attributes = cloud.describe_target_group_attributes(&group.arn).await.unwrap();
        answers.push(json!({"TargetGroupArn": group.arn, "Attributes": tags(&attributes)}));
        let targets = cloud.describe_target_health(&group.arn).await.unwrap();
        let targets =
            targets.iter().map(|t| json!({"Target": {"Id": t.target.id}, "TargetHealth": {"State": t.state}}));
        answers.push(json!({"TargetGroupArn": group.arn, "TargetHealthDescriptions": targets.collect::<Vec<_>>()}));
        arns.push(group.arn);
    }
    for chunk in arns.chunks(20) {
        let described = cloud.describe_tags(chunk).await.unwrap();
        let described = described.iter().map(|(arn, of)| json!({"ResourceArn": arn, "Tags": tags(of)}));
        answers.push(json!({"TagDescriptions": described.collect::<Vec<_>>()}));
    }
    answers.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

async fn snapshot(scene: &Scene) -> Snapshot {
    Snapshot::read(&[("cloud.json".to_owned(), written(scene).await)]).unwrap()
}

/// Scenes at rest, of every kind of thing that is observed.
async fn scenes() -> Vec<Scene> {
    let dns = json!({"ports": [
        {"name": "tcp", "protocol": "TCP", "port": 53, "nodePort": 30053},
        {"name": "udp", "protocol": "UDP", "port": 53, "nodePort": 30053},
    ]});
    let local = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 32000, "loadBalancerSourceRanges": ["192.0.2.0/24"]});
    let public = vec![
        ("scheme", "internet-facing"),
        ("ssl-cert", "arn:a,arn:b"),
        ("ssl-ports", "443"),
        ("alpn-policy", "HTTP2Only"),
    ];
    let dual = vec![("ip-address-type", "dualstack"), ("enable-icmp-for-path-mtu-discovery", "on")];
    let cases = vec![
        (vec![("attributes", "load_balancing.cross_zone.enabled=true")], json!({})),
        (public, ports(&["TCP/80:30080", "TCP/443:30443"])),
        (vec![("type", "nlb-ip"), ("proxy-protocol", "*"), ("additional-resource-tags", "team=a")], json!({})),
        (vec![("inbound-sg-rules-on-private-link-traffic", "off"), ("security-group-prefix-lists", "pl-1")], dns),
        (dual, json!({"ipFamilies": ["IPv4", "IPv6"]})),
        (vec![("berth.dev/load-balancer-group", "edge")], local),
    ];
    let mut scenes = Vec::new();
    for (annotations, spec) in cases {
        let mut scene = Scene::new();
        scene.apply(service("web", &annotations, spec));
        scene.apply(service("other", &[], json!({})));
        scene.rest().await;
        scenes.push(scene);
    }
    scenes
}

#[tokio::test(start_paused = true)]
async fn what_is_written_down_is_seen_as_what_is_looked_at() {
    for scene in scenes().await {
        let snapshot = snapshot(&scene).await;
        assert_eq!(snapshot.lacks(), [""; 0]);
        scene.an_hour_later().await;
        for intent in scene.wanted.values() {
            let shard = scene.provider.shard(intent);
            let wanted = Wanted { present: [(intent.id.key.clone(), intent.clone())].into(), ..Wanted::default() };
            let mut looked = scene.provider.observe(&shard, &wanted).await.unwrap();
            // They are looked at only where they matter; who writes them down does not know that.
            looked.subnets = scene.fake.describe_subnets(&scene.settings.vpc).await.unwrap();
            looked.subnets.sort_by(|a, b| a.id.cmp(&b.id));
            assert_eq!(snapshot.observed(&scene.settings, &shard, &wanted), looked, "{}", intent.id.key);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_is_as_it_should_be_is_left_alone_and_an_edit_is_planned_as_the_provider_plans_it() {
    for mut scene in scenes().await {
        let written = snapshot(&scene).await;
        let present = |scene: &Scene| scene.wanted.values().cloned().collect::<Vec<_>>();
        let steps = |scene: &Scene, leaving| -> Vec<Step> {
            let all = forecast(&scene.settings, Some(&written), present(scene), leaving);
            all.into_iter().flat_map(|outlook| outlook.steps).map(|planned| planned.step).collect()
        };
        assert_eq!(steps(&scene, Vec::new()), [], "{:?}", scene.wanted.keys());
        for intent in scene.wanted.values_mut().filter(|intent| intent.id.key.name == "other") {
            intent.ports[0].port = 8080;
        }
        let edited: Vec<_> = scene.plan().await.into_iter().map(|planned| planned.step).collect();
        assert!(!edited.is_empty());
        assert_eq!(steps(&scene, Vec::new()), edited);
        scene.delete("web");
        let with_deletion: Vec<_> = scene.plan().await.into_iter().map(|planned| planned.step).collect();
        assert!(with_deletion.iter().any(|step| matches!(step, Step::DeleteLoadBalancer { .. })));
        assert_eq!(steps(&scene, scene.leaving.clone()), with_deletion);
    }
}
