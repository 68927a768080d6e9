use std::sync::LazyLock;

use super::super::classes::ClassArgs;
use super::super::files::Source;
use super::super::load::load;
use super::*;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// Both providers; the pools serve who names no class.
static FLAGS: LazyLock<ClassArgs> = LazyLock::new(|| ClassArgs {
    providers: Some(vec![ProviderName::Pool, ProviderName::Mock]),
    default_provider: Some(berth_provider::class::DefaultProvider::Pool),
    classes: None,
    drain_on_cordon: None,
    ignore_exclude_lb: None,
});

/// The report on files that are everything there is, without what `deleted` names.
fn report(yaml: &str, deleted: &[&str]) -> PlanReport {
    report_with(yaml, deleted, &FLAGS)
}

fn report_with(yaml: &str, deleted: &[&str], flags: &ClassArgs) -> PlanReport {
    let mut objects = Objects::of_nothing(NOW);
    let source = Source { name: "world.yaml".to_owned(), text: yaml.to_owned() };
    for object in load(&source, "shop", &mut Vec::new()).unwrap() {
        objects.lay(object, &mut Vec::new());
    }
    let before = objects.places();
    for removal in deleted {
        objects.remove(&removal.parse().unwrap(), "shop").unwrap();
    }
    let classes = flags.served().unwrap();
    let (aws, azure, switches) = (aws::Cloud::default(), azure::Cloud::default(), flags.switches());
    let question = Question {
        objects: &objects,
        before: &before,
        classes: &classes,
        switches,
        aws: &aws,
        azure: &azure,
        now: NOW,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(question.answer(&mut Vec::new())).unwrap()
}

fn line(service: &PlannedService) -> String {
    let PlannedService { namespace, name, provider, pool, before, after, change, reason, .. } = service;
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let list = |places: &[String]| if places.is_empty() { "-".to_owned() } else { places.join(" ") };
    let (provider, pool) = (or(provider), or(pool));
    format!("{namespace}/{name} {provider} {pool}: {} -> {}: {} {reason}", list(before), list(after), change.as_str())
}

fn lines(report: &PlanReport) -> Vec<String> {
    report.services.iter().map(line).collect()
}

const POOL: &str = "
apiVersion: berth.dev/v1alpha1
kind: IPAddressPool
metadata: {name: office}
spec: {addresses: [192.0.2.200-192.0.2.201]}
";

fn service(name: &str, spec: &str, more: &str) -> String {
    format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, uid: uid-{name}}}\nspec: {spec}\n{more}\n")
}

/// A status in which a Service of ours is reached at an address.
fn status(address: &str) -> String {
    format!(
        "status: {{loadBalancer: {{ingress: [{{ip: {address}}}]}}, conditions: [{{type: berth.dev/Allocated, status: 'True', \
         reason: Allocated, message: '', lastTransitionTime: '2026-01-01T00:00:00Z'}}]}}"
    )
}

#[test]
fn every_service_is_told_of_and_who_is_not_served_is_ignored() {
    let lb = |class: &str| format!("{{type: LoadBalancer, loadBalancerClass: {class}, ports: [{{port: 80}}]}}");
    let plain = "{type: LoadBalancer, ports: [{port: 80}]}";
    let world = [
        POOL.to_owned(),
        service("a-new", plain, ""),
        service("b-has", plain, &status("192.0.2.201")),
        service("c-late", &lb("berth.dev/pool"), ""),
        service("d-others", &lb("example.com/lb"), "status: {loadBalancer: {ingress: [{hostname: lb.example.com}]}}"),
        service("e-slip", &lb("berth.dev/pol"), ""),
        service("f-inside", "{type: ClusterIP}", ""),
        service("g-left", "{type: ClusterIP}", &status("192.0.2.209")),
        service("h-mock", &lb("berth.dev/mock"), ""),
        service("i-mock", &lb("berth.dev/mock"), &status("203.0.113.1")),
        service(
            "j-mock",
            "{type: LoadBalancer, loadBalancerClass: berth.dev/mock, loadBalancerIP: 10.0.0.1, ports: [{port: 80}]}",
            "",
        ),
    ];
    assert_eq!(
        lines(&report(&world.concat(), &[])),
        [
            "shop/a-new pool office: - -> 192.0.2.200: gain Allocated",
            "shop/b-has pool office: 192.0.2.201 -> 192.0.2.201: keep Allocated",
            "shop/c-late pool -: - -> -: pending PoolExhausted",
            "shop/d-others - -: lb.example.com -> lb.example.com: ignore OtherClass",
            "shop/e-slip - -: - -> -: ignore UnknownClass",
            "shop/f-inside - -: - -> -: ignore NotLoadBalancer",
            "shop/g-left pool -: 192.0.2.209 -> -: lose Released",
            "shop/h-mock mock -: - -> 203.0.113.2: gain Allocated",
            "shop/i-mock mock -: 203.0.113.1 -> 203.0.113.1: keep Allocated",
            "shop/j-mock mock -: - -> -: pending InvalidRequest",
        ]
    );
}

#[test]
fn a_plan_says_by_what_the_controller_was_told_whether_nodes_with_the_exclude_label_announce() {
    let world = [
        POOL.to_owned(),
        service("web", "{type: LoadBalancer, ports: [{port: 80}]}", ""),
        "---\napiVersion: berth.dev/v1alpha1\nkind: L2Advertisement\nmetadata: {name: all}\n\
         ---\napiVersion: v1\nkind: Node\nmetadata: {name: a, labels: {node.kubernetes.io/exclude-from-external-load-balancers: ''}}\n\
         ---\napiVersion: berth.dev/v1alpha1\nkind: SpeakerNode\nmetadata: {name: a}\nspec: {interfaces: [{name: eth0, \
         mac: '02:00:00:00:00:01', addresses: [192.0.2.11/24]}], version: ''}\n"
            .to_owned(),
    ];
    for (ignore, says) in [(None, true), (Some(false), true), (Some(true), false)] {
        let report = report_with(&world.concat(), &[], &ClassArgs { ignore_exclude_lb: ignore, ..FLAGS.clone() });
        let message = &report.services[0].message;
        assert_eq!(message.contains("every node that could answer has the label"), says, "{ignore:?}: {message}");
        assert!(says || !message.contains(';'), "{message}");
    }
}

#[test]
fn a_service_that_is_deleted_loses_what_it_has() {
    let spec = "{type: LoadBalancer, ports: [{port: 80}]}";
    let mock = "{type: LoadBalancer, loadBalancerClass: berth.dev/mock, ports: [{port: 80}]}";
    let world = [
        POOL.to_owned(),
        service("has", spec, &status("192.0.2.200")),
        service("mocked", mock, &status("203.0.113.1")),
        service("waits", spec, ""),
        service("other", "{type: ClusterIP}", ""),
    ];
    let deleted = ["svc/has", "services/shop/mocked", "service/waits", "Service/other"];
    let report = report(&world.concat(), &deleted);
    assert_eq!(
        lines(&report),
        ["shop/has pool -: 192.0.2.200 -> -: lose Released", "shop/mocked mock -: 203.0.113.1 -> -: lose Released",]
    );
    assert!(report.breaks());
}

#[test]
fn the_mocks_script_is_played_but_for_its_latency() {
    let mocked = |name: &str, script: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, uid: {name}, annotations: {{{script}}}}}\n\
             spec: {{type: LoadBalancer, loadBalancerClass: berth.dev/mock, ports: [{{port: 80}}]}}\n"
        )
    };
    let world = [
        mocked("a-slow", "mock.berth.dev/latency: 2m"),
        mocked("b-flaky", "mock.berth.dev/faults: 'throttled:3,transient'"),
        mocked("c-never", "mock.berth.dev/faults: 'permission:forever'"),
        mocked("d-named", "mock.berth.dev/hostname: web.example.com"),
        mocked("e-slip", "mock.berth.dev/latencey: 1s"),
    ];
    assert_eq!(
        lines(&report(&world.concat(), &[])),
        [
            "shop/a-slow mock -: - -> 203.0.113.1: gain Allocated",
            "shop/b-flaky mock -: - -> 203.0.113.2: gain Allocated",
            "shop/c-never mock -: - -> -: pending PermissionDenied",
            "shop/d-named mock -: - -> web.example.com: gain Allocated",
            "shop/e-slip mock -: - -> -: pending InvalidRequest",
        ]
    );
}

#[test]
fn a_pool_says_what_is_left_in_it() {
    let six = POOL.replace("office", "six").replace("192.0.2.200-192.0.2.201", "'2001:db8::/64'");
    let overlaps = POOL.replace("office", "overlaps");
    let world = [POOL, "---", &six, "---", &overlaps, &service("web", "{type: LoadBalancer}", "")].concat();
    let pools = report(&world, &[]).pools;
    let told: Vec<_> = pools
        .iter()
        .map(|p| format!("{} {} {} {} {}", p.name, p.total, p.used, p.free, p.problems.join(" ")))
        .collect();
    assert_eq!(told[0], "office 2 1 1 ");
    assert!(
        told[1].starts_with("overlaps 2 0 0 Overlap: 192.0.2.200-192.0.2.201 is also part of the older pool `office`"),
        "{told:?}"
    );
    assert_eq!(told[2], "six 18446744073709551616 0 18446744073709551616 ");
}

#[test]
fn the_order_of_the_documents_does_not_matter() {
    let world = [
        POOL.to_owned(),
        service("b", "{type: LoadBalancer}", ""),
        service("a", "{type: LoadBalancer}", ""),
        service("c", "{type: LoadBalancer}", &status("192.0.2.200")),
    ];
    let mut other = world.clone();
    other.reverse();
    assert_eq!(report(&world.concat(), &[]), report(&other.join("---\n"), &[]));
}
