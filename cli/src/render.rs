//! Reports as people read them.

use jiff::Timestamp;

use crate::age::age;
use crate::report::{
    AddressReport, ConditionReport, Link, Problem, ServiceReport, SingleService, State, Summary, Unreadable,
};
use crate::table::{Cell, NONE, Style, Table, Tone, paint};

/// How much is shown, and how.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Colours.
    pub style: Style,
    /// More columns.
    pub wide: bool,
    /// Whether Services of several namespaces are shown.
    pub namespaces: bool,
    /// For ages.
    pub now: Timestamp,
}

/// The summary.
pub fn summary(report: &Summary, look: Look) -> String {
    let mut parts = Vec::new();
    if report.installed {
        parts.push(components(report, look));
    }
    if !report.pools.is_empty() {
        parts.push(pools(report, look));
    }
    if !report.advertisements.is_empty() {
        parts.push(advertisements(report, look));
    }
    if !report.services.is_empty() {
        parts.push(services(&report.services, look));
    }
    if !report.problems.is_empty() && report.installed {
        parts.push(problems(&report.problems, look));
    }
    parts.join("\n")
}

/// What is said beside a summary, on stderr.
pub fn summary_notes(report: &Summary, namespace: Option<&str>) -> Vec<String> {
    let mut notes: Vec<_> = report.unreadable.iter().map(unreadable).collect();
    let readable = |resource: &str| !report.unreadable.iter().any(|unreadable| unreadable.resource == resource);
    if !report.installed {
        notes.extend(
            report
                .problems
                .iter()
                .filter(|problem| problem.subject == "Berth")
                .map(|problem| format!("{}: {}", problem.message, problem.advice.as_deref().unwrap_or_default())),
        );
    }
    if report.installed && report.pools.is_empty() && readable("ipaddresspools.berth.dev") {
        notes.push("No IPAddressPools found: without one no Service is given an address".to_owned());
    }
    if report.services.is_empty() && readable("services") {
        notes.push(match namespace {
            Some(namespace) => format!("No Services of Berth found in {namespace} namespace."),
            None => "No Services of Berth found".to_owned(),
        });
    }
    if report.services_elsewhere > 0 {
        let count = report.services_elsewhere;
        let them = if count == 1 { "1 Service holds an address" } else { &format!("{count} Services hold addresses") };
        notes.push(format!("{them} in other namespaces; -A shows all"));
    }
    notes
}

/// What could not be looked at, in one line.
pub fn unreadable(unreadable: &Unreadable) -> String {
    format!("warning: {} could not be read: {}", unreadable.resource, unreadable.message)
}

fn components(report: &Summary, look: Look) -> String {
    let mut table = Table::new(vec!["COMPONENT", "READY", "VERSION", "DETAIL"]);
    let controller = &report.controller;
    let leader = match (&controller.leader, controller.renewed) {
        (Some(leader), Some(renewed)) => format!("leader {leader}, renewed {} ago", age(renewed, look.now)),
        (Some(leader), None) => format!("leader {leader}"),
        (None, _) => String::new(),
    };
    table.row(vec![
        "controller".into(),
        out_of(controller.found, controller.ready, controller.replicas),
        Cell::or_none(controller.image.as_deref().map(tag)),
        leader.into(),
    ]);
    let speakers = &report.speakers;
    let detail = match (speakers.reported, speakers.nodes) {
        (Some(reported), Some(nodes)) if speakers.silent.is_empty() => format!("{reported} of {nodes} nodes reported"),
        (Some(reported), Some(nodes)) => {
            format!("{reported} of {nodes} nodes reported; silent: {}", speakers.silent.join(", "))
        }
        (Some(reported), None) => format!("{reported} nodes reported"),
        (None, _) => String::new(),
    };
    let versions: Vec<_> = speakers.versions.iter().map(|version| format!("v{version}")).collect();
    table.row(vec![
        "speakers".into(),
        out_of(speakers.found, speakers.ready, speakers.desired),
        Cell::or_none(Some(versions.join(","))),
        detail.into(),
    ]);
    table.render(look.style)
}

/// `2/2`, as kubectl has it.
fn out_of(found: Option<bool>, ready: Option<i32>, wanted: Option<i32>) -> Cell {
    match (found, ready, wanted) {
        (Some(true), Some(ready), Some(wanted)) => {
            let tone = match ready {
                0 if wanted > 0 => Tone::Bad,
                _ if ready < wanted => Tone::Doubtful,
                _ => Tone::Good,
            };
            Cell::toned(format!("{ready}/{wanted}"), tone)
        }
        (Some(false), ..) => Cell::toned("missing", Tone::Bad),
        _ => Cell::toned("unknown", Tone::Doubtful),
    }
}

/// The tag of an image, or all of it where it has none.
pub fn tag(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag.to_owned(),
        _ => image.to_owned(),
    }
}

fn pools(report: &Summary, look: Look) -> String {
    // As `kubectl get ipaddresspools` has them.
    let mut table = Table::new(vec![
        "POOL",
        "READY",
        "REASON",
        "AUTO-ASSIGN",
        "IPV4-USED",
        "IPV4-FREE",
        "IPV6-USED",
        "IPV6-FREE",
        "ADDRESSES",
    ]);
    for pool in &report.pools {
        let [ready, reason] = condition(pool.ready.as_ref());
        table.row(vec![
            pool.name.as_str().into(),
            ready,
            reason,
            pool.auto_assign.to_string().into(),
            Cell::or_none(pool.assigned_ipv4),
            Cell::or_none(pool.available_ipv4),
            Cell::or_none(pool.assigned_ipv6),
            Cell::or_none(pool.available_ipv6),
            pool.addresses.join(",").into(),
        ]);
    }
    table.render(look.style)
}

fn advertisements(report: &Summary, look: Look) -> String {
    let mut table = Table::new(vec!["ADVERTISEMENT", "READY", "REASON", "POOLS", "INTERFACES"]);
    for ad in &report.advertisements {
        let [ready, reason] = condition(ad.ready.as_ref());
        let mut pools = ad.pools.clone();
        if ad.selects_pools {
            pools.push("<by label>".to_owned());
        }
        let all = |names: &[String]| if names.is_empty() { "<all>".to_owned() } else { names.join(",") };
        table.row(vec![ad.name.as_str().into(), ready, reason, all(&pools).into(), all(&ad.interfaces).into()]);
    }
    table.render(look.style)
}

fn condition(condition: Option<&ConditionReport>) -> [Cell; 2] {
    [truth(condition), Cell::or_none(condition.map(|condition| &condition.reason))]
}

fn truth(condition: Option<&ConditionReport>) -> Cell {
    match condition.map(|condition| condition.status.as_str()) {
        Some("True") => Cell::toned("True", Tone::Good),
        Some("False") => Cell::toned("False", Tone::Bad),
        Some(other) => Cell::toned(other, Tone::Doubtful),
        None => Cell::toned(NONE, Tone::Doubtful),
    }
}

fn services(services: &[ServiceReport], look: Look) -> String {
    let mut head = Vec::new();
    if look.namespaces {
        head.push("NAMESPACE");
    }
    head.extend(["NAME", "ADDRESS", "ALLOCATED", "ANNOUNCED", "WORKS", "NODE", "INTERFACE", "MAC", "SINCE"]);
    if look.wide {
        head.extend(["POOL", "OWNER", "STANDBYS", "CLASS"]);
    }
    let mut table = Table::new(head);
    for service in services {
        if service.addresses.is_empty() {
            table.row(service_row(service, None, look));
        }
        for address in &service.addresses {
            table.row(service_row(service, Some(address), look));
        }
    }
    table.render(look.style)
}

fn service_row(service: &ServiceReport, address: Option<&AddressReport>, look: Look) -> Vec<Cell> {
    let mut cells = Vec::new();
    if look.namespaces {
        cells.push(service.namespace.as_str().into());
    }
    let answers = address.and_then(|address| address.answers.as_ref());
    let works = match &service.first_broken {
        None if service.links.iter().any(|link| link.state == State::Unknown) => Cell::toned("unknown", Tone::Doubtful),
        None => Cell::toned("yes", Tone::Good),
        Some(link) => Cell::toned(format!("no ({})", link.name.as_str()), Tone::Bad),
    };
    cells.extend([
        service.name.as_str().into(),
        Cell::or_none(address.map(|address| &address.address)),
        truth(service.allocated.as_ref()),
        truth(service.announced.as_ref()),
        works,
        Cell::or_none(answers.map(|answers| &answers.node)),
        Cell::or_none(answers.map(|answers| &answers.interface)),
        Cell::or_none(answers.map(|answers| &answers.mac)),
        Cell::or_none(answers.map(|answers| age(answers.since, look.now))),
    ]);
    if look.wide {
        cells.extend([
            Cell::or_none(address.and_then(|address| address.pool.as_ref())),
            Cell::or_none(address.and_then(|address| address.owner.as_ref())),
            Cell::or_none(address.map(|address| address.standbys.join(","))),
            Cell::or_none(service.class.as_ref()),
        ]);
    }
    cells
}

fn problems(problems: &[Problem], look: Look) -> String {
    let told = problems.iter().map(|problem| {
        let advice = problem.advice.as_ref().map(|advice| format!("    {advice}\n")).unwrap_or_default();
        let head = paint(&format!("{}: {}", problem.subject, problem.reason), Tone::Bad, look.style);
        format!("  {head}: {}\n{advice}", problem.message)
    });
    let head = if problems.len() == 1 { "1 problem:\n".to_owned() } else { format!("{} problems:\n", problems.len()) };
    std::iter::once(head).chain(told).collect()
}

/// One Service, a line for each link.
pub fn service(report: &SingleService, look: Look) -> String {
    let service = &report.service;
    let several = service.addresses.len() > 1;
    // The first column marks the link to begin with.
    let mut head = vec!["", "LINK"];
    if several || look.wide {
        head.push("ADDRESS");
    }
    head.extend(["STATE", "REASON", "MESSAGE"]);
    let mut table = Table::new(head);
    for link in &service.links {
        let first = service.first_broken.as_ref() == Some(link);
        let mut cells = vec![if first { Cell::toned("->", Tone::Bad) } else { "".into() }, link.name.as_str().into()];
        if several || look.wide {
            cells.push(Cell::or_none(link.address.as_ref()));
        }
        cells.extend([
            Cell::toned(link.state.as_str(), tone(link.state)),
            Cell::or_none(link.reason.as_ref()),
            link.message.as_str().into(),
        ]);
        table.row(cells);
    }
    format!("{}\n\n{}{}", headline(service, look), table.render(look.style), to_do(service, look))
}

fn tone(state: State) -> Tone {
    match state {
        State::Ok => Tone::Good,
        State::Warning | State::Unknown => Tone::Doubtful,
        State::Broken => Tone::Bad,
        State::Skipped => Tone::Neutral,
    }
}

fn headline(service: &ServiceReport, look: Look) -> String {
    let name = format!("Service {}/{}", service.namespace, service.name);
    let addresses: Vec<_> = service
        .addresses
        .iter()
        .map(|address| match &address.answers {
            Some(answers) => format!(
                "{}, answered by {} on {} ({}) for {}",
                address.address,
                answers.node,
                answers.interface,
                answers.mac,
                age(answers.since, look.now)
            ),
            None => address.address.clone(),
        })
        .collect();
    let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses.join("; ") };
    let verdict = match &service.first_broken {
        Some(link) => paint(&format!("does not work as asked: {}", link.name.as_str()), Tone::Bad, look.style),
        None if service.links.iter().any(|link| link.state == State::Unknown) => {
            paint("works as far as could be looked at", Tone::Doubtful, look.style)
        }
        None => paint("works", Tone::Good, look.style),
    };
    format!("{name} {verdict}\n{addresses}")
}

/// What to do about the first link that is broken, or else about those that are doubtful.
fn to_do(service: &ServiceReport, look: Look) -> String {
    let told = |link: &Link, tone| {
        let reason = link.reason.as_deref().unwrap_or_default();
        let advice = link.advice.as_ref().map(|advice| format!("\n  {advice}")).unwrap_or_default();
        format!(
            "\n{}: {}{advice}\n",
            paint(&format!("{}: {reason}", link.name.as_str()), tone, look.style),
            link.message
        )
    };
    if let Some(first) = &service.first_broken {
        return told(first, Tone::Bad);
    }
    service.links.iter().filter(|link| link.state == State::Warning).map(|link| told(link, Tone::Doubtful)).collect()
}

#[cfg(test)]
mod tests;
