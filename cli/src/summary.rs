//! The installation as a whole: what is there, who leads, what is given away, what is broken.

use berth_api::condition::types::READY;
use berth_api::{Announcement, IPAddressPool, L2Advertisement};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

use crate::chain::{Index, condition_report, ready_replicas};
use crate::finding::Finding;
use crate::observed::{Cluster, Seen};
use crate::report::{
    AdvertisementReport, ConditionReport, ControllerReport, PoolReport, Problem, ServiceReport, SpeakersReport,
    Summary, advice,
};

/// How far the clock of the person who asks may be off before a Lease that is renewed looks as if it were not.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(60);
/// How long a Lease is good for where it does not say: the default of Kubernetes' own components.
const LEASE_SECONDS: i32 = 15;

/// The summary of what was read.
pub fn summarise(cluster: &Cluster, now: Timestamp) -> Summary {
    let unreadable = cluster.unreadable();
    let unknown_kinds = [
        matches!(cluster.pools, Seen::KindMissing),
        matches!(cluster.advertisements, Seen::KindMissing),
        matches!(cluster.speakers, Seen::KindMissing),
        matches!(cluster.around.announcements, Seen::KindMissing),
    ];
    let installed = unknown_kinds.contains(&false);

    let index = Index::new(&cluster.around);
    let mut services: Vec<ServiceReport> = cluster
        .services
        .here()
        .into_iter()
        .flatten()
        .filter(|service| index.concerns(service))
        .map(|service| index.report(service))
        .collect();
    services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));

    let mut problems = Vec::new();
    let (controller, speakers) = if installed {
        (controller(cluster, now, &mut problems), speakers(cluster, &mut problems))
    } else {
        problems.push(found("Berth", Finding::NotInstalled, "Berth is not installed in this cluster".to_owned()));
        (ControllerReport::default(), SpeakersReport::default())
    };
    let mut pools: Vec<_> = cluster.pools.here().into_iter().flatten().map(pool).collect();
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    let mut advertisements: Vec<_> = cluster.advertisements.here().into_iter().flatten().map(advertisement).collect();
    advertisements.sort_by(|a, b| a.name.cmp(&b.name));
    problems.extend(pools.iter().filter_map(|pool| not_ready("IPAddressPool", &pool.name, pool.ready.as_ref())));
    problems.extend(advertisements.iter().filter_map(|ad| not_ready("L2Advertisement", &ad.name, ad.ready.as_ref())));
    let routes = cluster.route_advertisements.here().into_iter().flatten();
    problems.extend(routes.filter_map(|ad| {
        let ready = ready(&ad.status.clone().unwrap_or_default().conditions);
        not_ready("RouteAdvertisement", &ad.name_any(), ready.as_ref())
    }));
    problems.extend(services.iter().filter_map(broken_service));

    Summary {
        ok: problems.is_empty(),
        installed,
        controller,
        speakers,
        pools,
        advertisements,
        services,
        services_elsewhere: elsewhere(cluster),
        problems,
        unreadable,
    }
}

fn found(subject: impl Into<String>, finding: Finding, message: String) -> Problem {
    Problem {
        subject: subject.into(),
        reason: finding.as_str().to_owned(),
        message,
        advice: Some(finding.description().to_owned()),
    }
}

fn broken_service(service: &ServiceReport) -> Option<Problem> {
    let link = service.first_broken.as_ref()?;
    Some(Problem {
        subject: format!("Service {}/{}", service.namespace, service.name),
        reason: link.reason.clone().unwrap_or_default(),
        message: link.message.clone(),
        advice: link.advice.clone(),
    })
}

fn not_ready(kind: &str, name: &str, ready: Option<&ConditionReport>) -> Option<Problem> {
    let subject = format!("{kind} {name}");
    match ready {
        None => Some(found(subject, Finding::NotSeen, "the controller has said nothing about it".to_owned())),
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(Problem {
            subject,
            reason: ready.reason.clone(),
            message: ready.message.clone(),
            advice: advice(&ready.reason),
        }),
    }
}

fn controller(cluster: &Cluster, now: Timestamp, problems: &mut Vec<Problem>) -> ControllerReport {
    let mut report = ControllerReport::default();
    let lease = cluster.lease.here().and_then(Option::as_ref).and_then(|lease| lease.spec.as_ref());
    if let Some(lease) = lease {
        report.leader = lease.holder_identity.clone().filter(|holder| !holder.is_empty());
        report.renewed = lease.renew_time.as_ref().map(|time| time.0);
    }
    let Some(deployment) = cluster.around.controller.here() else { return report };
    let Some(deployment) = deployment else {
        report.found = Some(false);
        problems.push(found("controller", Finding::ControllerMissing, "the controller is not there".to_owned()));
        return report;
    };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = ready_replicas(deployment);
    (report.found, report.replicas, report.ready) = (Some(true), Some(wanted), Some(ready));
    report.image = image(deployment);
    if ready == 0 {
        let message = format!("none of {wanted} replicas is ready");
        problems.push(found("controller", Finding::ControllerNotReady, message));
    } else {
        if ready < wanted {
            let message = format!("{ready} of {wanted} replicas are ready");
            problems.push(found("controller", Finding::ControllerDegraded, message));
        }
        if let Some(message) = leaderless(&cluster.lease, now) {
            problems.push(found("controller", Finding::NoLeader, message));
        }
    }
    report
}

/// Why nobody leads, where that is so.
fn leaderless(lease: &Seen<Option<Lease>>, now: Timestamp) -> Option<String> {
    let lease = lease.here()?.as_ref().and_then(|lease| lease.spec.as_ref());
    let Some(lease) = lease else { return Some("there is no Lease, so no replica leads".to_owned()) };
    let holder = lease.holder_identity.as_deref().filter(|holder| !holder.is_empty());
    let Some(holder) = holder else { return Some("nobody holds the Lease".to_owned()) };
    let good_for = SignedDuration::from_secs(i64::from(lease.lease_duration_seconds.unwrap_or(LEASE_SECONDS)));
    let renewed = lease.renew_time.as_ref()?.0;
    let late = now.duration_since(renewed) > good_for + CLOCK_TOLERANCE;
    late.then(|| format!("{holder} holds the Lease and has not renewed it since {renewed}"))
}

/// The image of the first container.
pub fn image(deployment: &Deployment) -> Option<String> {
    deployment.spec.as_ref()?.template.spec.as_ref()?.containers.first()?.image.clone()
}

fn speakers(cluster: &Cluster, problems: &mut Vec<Problem>) -> SpeakersReport {
    let mut report = SpeakersReport::default();
    if let Some(set) = cluster.daemon_set.here() {
        report.found = Some(set.is_some());
        match set {
            None => problems.push(found(
                "speakers",
                Finding::SpeakersMissing,
                "the DaemonSet of the speakers is not there".to_owned(),
            )),
            Some(set) => {
                let status = set.status.clone().unwrap_or_default();
                let (desired, ready) = (status.desired_number_scheduled, status.number_ready);
                (report.desired, report.ready) = (Some(desired), Some(ready));
                if ready < desired {
                    let message = format!("the speaker is ready on {ready} of {desired} nodes");
                    problems.push(found("speakers", Finding::SpeakersNotReady, message));
                }
            }
        }
    }
    let Some(speakers) = cluster.speakers.here() else { return report };
    let reported: Vec<_> = speakers.iter().filter_map(|speaker| speaker.metadata.name.as_deref()).collect();
    report.versions = speakers.iter().map(|speaker| speaker.spec.version.clone()).collect();
    report.versions.sort();
    report.versions.dedup();
    let Some(nodes) = cluster.around.nodes.here() else {
        report.reported = Some(reported.len());
        return report;
    };
    let nodes: Vec<_> = nodes.iter().filter(|node| can_run_a_speaker(node)).filter_map(name).collect();
    report.nodes = Some(nodes.len());
    report.silent = nodes.iter().filter(|node| !reported.contains(*node)).map(|node| (*node).to_owned()).collect();
    report.silent.sort();
    report.reported = Some(nodes.len() - report.silent.len());
    for node in &report.silent {
        let message = "its speaker has not reported".to_owned();
        problems.push(found(format!("node {node}"), Finding::SpeakerSilent, message));
    }
    report
}

fn name(node: &Node) -> Option<&str> {
    node.metadata.name.as_deref()
}

/// The speaker is a Linux program.
fn can_run_a_speaker(node: &Node) -> bool {
    let system = node.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    system.is_none_or(|system| system == "linux")
}

fn ready(conditions: &[Condition]) -> Option<ConditionReport> {
    conditions.iter().find(|condition| condition.type_ == READY).map(condition_report)
}

fn pool(pool: &IPAddressPool) -> PoolReport {
    let status = pool.status.clone().unwrap_or_default();
    PoolReport {
        name: pool.metadata.name.clone().unwrap_or_default(),
        ready: ready(&status.conditions),
        auto_assign: pool.spec.auto_assign,
        assigned_ipv4: status.assigned_ipv4,
        available_ipv4: status.available_ipv4,
        assigned_ipv6: status.assigned_ipv6,
        available_ipv6: status.available_ipv6,
        addresses: pool.spec.addresses.clone(),
    }
}

fn advertisement(ad: &L2Advertisement) -> AdvertisementReport {
    AdvertisementReport {
        name: ad.metadata.name.clone().unwrap_or_default(),
        ready: ready(&ad.status.clone().unwrap_or_default().conditions),
        pools: ad.spec.ip_address_pools.clone(),
        selects_pools: !ad.spec.ip_address_pool_selectors.is_empty(),
        interfaces: ad.spec.interfaces.clone(),
    }
}

/// Services that hold an address in namespaces that are not looked at.
fn elsewhere(cluster: &Cluster) -> usize {
    let Some(namespace) = &cluster.namespace else { return 0 };
    let holders = |announcement: &Announcement| announcement.spec.services.clone();
    let all = cluster.around.announcements.here().into_iter().flatten().flat_map(holders);
    let others: std::collections::BTreeSet<_> =
        all.filter(|service| service.namespace != *namespace).map(|s| (s.namespace, s.name)).collect();
    others.len()
}

#[cfg(test)]
pub(crate) mod tests;
