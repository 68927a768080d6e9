//! A plan as people read it.

use std::collections::BTreeMap;

use super::cloud;
use super::report::{ChangeWord, PlanReport, PlannedService};
use crate::finding::Finding;
use crate::table::{Cell, Style, Table, Tone, paint};

/// Services of one reason that nobody serves and that are named. More than these are most often all of another controller's.
const NAMED: usize = 10;

/// The tables. Services that nobody here serves are left out unless `wide`; those that want a load balancer are named.
pub fn tables(report: &PlanReport, wide: bool, style: Style) -> String {
    let shown: Vec<_> = report.services.iter().filter(|service| wide || service.change != ChangeWord::Ignore).collect();
    let mut parts = Vec::new();
    if !shown.is_empty() {
        parts.push(services(&shown, style));
    }
    if !report.pools.is_empty() {
        parts.push(pools(report, style));
    }
    let told: Vec<_> =
        shown.iter().filter(|service| worth_a_line(service)).map(|service| line(service, style)).collect();
    parts.extend(report.load_balancers.iter().filter_map(|planned| cloud::tables(planned, style)));
    if !told.is_empty() {
        parts.push(told.concat());
    }
    if !wide {
        parts.extend(unserved(report));
    }
    parts.push(count(report));
    parts.join("\n")
}

fn services(shown: &[&PlannedService], style: Style) -> String {
    let mut table = Table::new(vec!["NAMESPACE", "NAME", "PROVIDER", "POOL", "BEFORE", "AFTER", "CHANGE", "REASON"]);
    for service in shown {
        table.row(vec![
            service.namespace.clone().into(),
            service.name.clone().into(),
            Cell::or_none(service.provider.as_ref()),
            Cell::or_none(service.pool.as_ref()),
            Cell::or_none(Some(service.before.join(","))),
            after(service),
            Cell::toned(service.change.as_str(), tone(service.change)),
            service.reason.clone().into(),
        ]);
    }
    table.render(style)
}

fn after(service: &PlannedService) -> Cell {
    let comes = matches!(service.change, ChangeWord::Gain | ChangeWord::Move);
    if service.after.is_empty() && comes {
        // A cloud gives a name or an address that is not known before.
        let cloud = cloud::label(service.provider.as_deref().unwrap_or_default());
        return format!("<given by {cloud}>").into();
    }
    Cell::or_none(Some(service.after.join(",")))
}

/// Names the Services that want a load balancer and that nobody here serves, by the reason.
fn unserved(report: &PlanReport) -> Option<String> {
    let mut by_reason = BTreeMap::<&str, Vec<&PlannedService>>::new();
    let ignored = report.services.iter().filter(|service| service.change == ChangeWord::Ignore);
    for service in ignored.filter(|service| wants_one(service)) {
        by_reason.entry(&service.reason).or_default().push(service);
    }
    let mut text = Vec::new();
    for services in by_reason.into_values() {
        text.extend(services.iter().take(NAMED).map(|service| {
            let PlannedService { namespace, name, reason, message, .. } = service;
            format!("Service {namespace}/{name}: ignore: {reason}: {message}\n")
        }));
        let more = services.len().checked_sub(NAMED).filter(|more| *more > 0);
        text.extend(more.map(|more| format!("... and {more} more for the same reason; -o wide lists them\n")));
    }
    (!text.is_empty()).then(|| text.concat())
}

/// Whether a Service that is ignored is of type LoadBalancer.
fn wants_one(service: &PlannedService) -> bool {
    let reasons = [berth_api::Reason::UnknownClass.as_str(), Finding::OtherClass.as_str(), Finding::NoClass.as_str()];
    reasons.contains(&service.reason.as_str())
}

fn pools(report: &PlanReport, style: Style) -> String {
    let mut table = Table::new(vec!["POOL", "TOTAL", "USED", "FREE", "PROBLEMS"]);
    for pool in &report.pools {
        table.row(vec![
            pool.name.clone().into(),
            pool.total.to_string().into(),
            pool.used.to_string().into(),
            pool.free.to_string().into(),
            Cell::or_none(Some(pool.problems.join("; "))),
        ]);
    }
    table.render(style)
}

/// What stays as it is, and was given as it was asked for, needs no words.
fn worth_a_line(service: &PlannedService) -> bool {
    let granted = service.reason == berth_api::Reason::Allocated.as_str();
    match service.change {
        ChangeWord::Lose | ChangeWord::Move | ChangeWord::Pending => true,
        ChangeWord::Keep | ChangeWord::Gain => !granted,
        ChangeWord::Ignore => false,
    }
}

fn line(service: &PlannedService, style: Style) -> String {
    let PlannedService { namespace, name, change, reason, message, .. } = service;
    let word = paint(change.as_str(), tone(*change), style);
    format!("Service {namespace}/{name}: {word}: {reason}: {message}\n")
}

fn count(report: &PlanReport) -> String {
    let mut counts = BTreeMap::<ChangeWord, usize>::new();
    for service in &report.services {
        *counts.entry(service.change).or_default() += 1;
    }
    let counted: Vec<_> = counts.iter().map(|(word, count)| format!("{count} {}", word.as_str())).collect();
    let counted = if counted.is_empty() { "none".to_owned() } else { counted.join(", ") };
    format!("Services: {counted}\n")
}

fn tone(change: ChangeWord) -> Tone {
    match change {
        ChangeWord::Keep | ChangeWord::Ignore => Tone::Neutral,
        ChangeWord::Gain => Tone::Good,
        ChangeWord::Lose | ChangeWord::Move => Tone::Bad,
        ChangeWord::Pending => Tone::Doubtful,
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Count, PlannedPool};
    use super::*;

    fn service(name: &str, before: &str, after: &str, change: ChangeWord, reason: &str) -> PlannedService {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let served = change != ChangeWord::Ignore;
        PlannedService {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            provider: served.then(|| "pool".to_owned()),
            pool: served.then(|| "office".to_owned()),
            before: list(before),
            after: list(after),
            change,
            reason: reason.to_owned(),
            message: format!("why {name}"),
        }
    }

    fn report() -> PlanReport {
        let pool = PlannedPool {
            name: "office".to_owned(),
            total: Count(10),
            used: Count(2),
            free: Count(0),
            problems: vec!["Overlap: with another".to_owned()],
        };
        let services = vec![
            service("api", "192.0.2.1", "192.0.2.1", ChangeWord::Keep, "Allocated"),
            service("db", "", "", ChangeWord::Ignore, "NotLoadBalancer"),
            service("web", "192.0.2.2", "192.0.2.3", ChangeWord::Move, "Allocated"),
        ];
        PlanReport { services, pools: vec![pool], load_balancers: Vec::new() }
    }

    #[test]
    fn a_plan_is_two_tables_and_what_needs_words() {
        let expected = "\
NAMESPACE   NAME   PROVIDER   POOL     BEFORE      AFTER       CHANGE   REASON
shop        api    pool       office   192.0.2.1   192.0.2.1   keep     Allocated
shop        web    pool       office   192.0.2.2   192.0.2.3   move     Allocated

POOL     TOTAL   USED   FREE   PROBLEMS
office   10      2      0      Overlap: with another

Service shop/web: move: Allocated: why web

Services: 1 keep, 1 move, 1 ignore
";
        assert_eq!(tables(&report(), false, Style::Plain), expected);
        let wide = tables(&report(), true, Style::Plain);
        assert!(
            wide.contains("shop        db     <none>     <none>   <none>      <none>      ignore   NotLoadBalancer"),
            "{wide}"
        );
        assert!(tables(&report(), false, Style::Coloured).contains("\u{1b}[31mmove\u{1b}[0m"));
    }

    #[test]
    fn services_that_nobody_serves_are_named_if_they_want_a_load_balancer() {
        let unserved = |name: &str, reason: &str| service(name, "", "", ChangeWord::Ignore, reason);
        let mut services: Vec<_> = (10..22).map(|number| unserved(&format!("s{number}"), "OtherClass")).collect();
        services.extend([unserved("slip", "UnknownClass"), unserved("inside", "NotLoadBalancer")]);
        let report = PlanReport { services, pools: Vec::new(), load_balancers: Vec::new() };
        let text = tables(&report, false, Style::Plain);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "Service shop/s10: ignore: OtherClass: why s10");
        assert_eq!(lines[10], "... and 2 more for the same reason; -o wide lists them");
        assert_eq!(lines[11..], ["Service shop/slip: ignore: UnknownClass: why slip", "", "Services: 14 ignore"]);
        assert!(!tables(&report, true, Style::Plain).contains("Service shop/slip"), "the table has it");
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        let empty = PlanReport { services: Vec::new(), pools: Vec::new(), load_balancers: Vec::new() };
        assert_eq!(tables(&empty, false, Style::Plain), "Services: none\n");
    }
}
