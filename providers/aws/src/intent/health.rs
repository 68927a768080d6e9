//! How the targets of a port are asked whether they serve.

use berth_api::service::TrafficPolicy;
use berth_provider::{Intent, TargetPort};

use crate::annotation::{Annotations, contradiction, wrong};
use crate::cloud::{HealthCheck, HealthProtocol};
use crate::intent::TargetKind;
use crate::refusal::Refusal;

/// The port that traffic goes to.
const TRAFFIC_PORT: &str = "traffic-port";

/// What is so where nothing is said.
struct Defaults {
    protocol: HealthProtocol,
    port: String,
    path: &'static str,
    timeout: u16,
    thresholds: u8,
}

pub(super) fn check(intent: &Intent, annotations: &Annotations<'_>, kind: TargetKind) -> Result<HealthCheck, Refusal> {
    let local = intent.health_check_node_port.filter(|_| {
        // Endpoints answer for themselves; only nodes have to be asked whether they have one.
        intent.policy == TrafficPolicy::Local && kind == TargetKind::Instance
    });
    // ALBC's, both.
    let defaults = match local {
        Some(port) => Defaults {
            protocol: HealthProtocol::Http,
            port: port.to_string(),
            path: "/healthz",
            timeout: 6,
            thresholds: 2,
        },
        None => Defaults {
            protocol: HealthProtocol::Tcp,
            port: TRAFFIC_PORT.to_owned(),
            path: "/",
            timeout: 10,
            thresholds: 3,
        },
    };
    let words = [
        ("tcp", HealthProtocol::Tcp),
        ("http", HealthProtocol::Http),
        ("https", HealthProtocol::Https),
        ("TCP", HealthProtocol::Tcp),
        ("HTTP", HealthProtocol::Http),
        ("HTTPS", HealthProtocol::Https),
    ];
    let protocol = annotations.word("healthcheck-protocol", &words)?.unwrap_or(defaults.protocol);
    let port = port(intent, annotations, kind)?.unwrap_or(defaults.port);
    let path = annotations.text("healthcheck-path");
    if let Some(path) = path.filter(|path| !path.starts_with('/')) {
        return Err(wrong("healthcheck-path", path, "no path", "write one that begins with /"));
    }
    let codes = annotations.text("healthcheck-success-codes");
    if let Some(codes) = codes.filter(|codes| !is_codes(codes)) {
        return Err(wrong(
            "healthcheck-success-codes",
            codes,
            "no list of codes",
            "write them such as 200-399 or 200,204",
        ));
    }
    let is_http = protocol != HealthProtocol::Tcp;
    for (name, given) in [("healthcheck-path", path), ("healthcheck-success-codes", codes)] {
        if given.is_some() && !is_http {
            return Err(contradiction(
                name,
                "the health check speaks TCP and asks for nothing; set its protocol to http, or remove it",
            ));
        }
    }
    // The ranges are AWS's.
    let interval = annotations.number("healthcheck-interval", 5..=300)?.unwrap_or(10);
    let timeout = annotations.number("healthcheck-timeout", 2..=120)?.unwrap_or(defaults.timeout.min(interval));
    if timeout > interval {
        return Err(contradiction(
            "healthcheck-timeout",
            format!("{timeout} s is longer than the interval of {interval} s"),
        ));
    }
    Ok(HealthCheck {
        protocol,
        port,
        path: is_http.then(|| path.unwrap_or(defaults.path).to_owned()),
        interval,
        timeout,
        healthy: annotations.number("healthcheck-healthy-threshold", 2..=10)?.unwrap_or(defaults.thresholds),
        unhealthy: annotations.number("healthcheck-unhealthy-threshold", 2..=10)?.unwrap_or(defaults.thresholds),
        codes: is_http.then(|| codes.unwrap_or("200-399").to_owned()),
    })
}

/// `200`, `200,204`, `200-399`.
fn is_codes(text: &str) -> bool {
    let code = |text: &str| text.trim().parse::<u16>().is_ok_and(|code| (200..600).contains(&code));
    text.split(',').all(|part| match part.split_once('-') {
        Some((from, to)) => code(from) && code(to),
        None => code(part),
    })
}

fn port(intent: &Intent, annotations: &Annotations<'_>, kind: TargetKind) -> Result<Option<String>, Refusal> {
    let name = "healthcheck-port";
    let Some(text) = annotations.text(name) else { return Ok(None) };
    if text == TRAFFIC_PORT || text.parse::<u16>().is_ok_and(|port| port > 0) {
        return Ok(Some(text.to_owned()));
    }
    let named = intent.ports.iter().find(|port| port.name == text);
    let Some(port) = named else {
        let advice = "write traffic-port, a number from 1 to 65535, or the name of a port";
        return Err(wrong(name, text, "no port of the Service", advice));
    };
    match (kind, port.node_port, &port.target_port) {
        (TargetKind::Instance, Some(node_port), _) => Ok(Some(node_port.to_string())),
        (TargetKind::Ip, _, TargetPort::Number(target)) => Ok(Some(target.to_string())),
        (TargetKind::Instance, None, _) => Err(wrong(name, text, "a port without a node port", "write a number")),
        (TargetKind::Ip, _, TargetPort::Name(_)) => Err(wrong(
            name,
            text,
            "a port whose target port is a name, which differs from pod to pod",
            "write a number",
        )),
    }
}
