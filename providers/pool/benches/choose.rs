//! What it costs to choose an address, claim it and give it back, in pools of any size and however much of them is held.
//!
//! `cargo bench -p berth-pool`. Ends with 1 when it costs much more with 100,000 addresses held than with one.

// What measures time and tells a person what it measured.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use berth_api::pool::Addresses;
use berth_api::service::{Families, Request, ServiceKey};
use berth_api::sharing::SharingScope;
use berth_api::{IpFamily, PerFamily};
use berth_pool::ipam::{Ask, Ipam, Labels, PoolInput, Tenant};

/// How many addresses are held.
const HELD: [u32; 3] = [1, 10_000, 100_000];
/// Turns that are measured together, so that the clock's own cost does not count.
const TURNS: u32 = 1_000;
/// Measurements, of which the fastest counts: whatever else the machine does only slows down.
const ROUNDS: u32 = 50;
/// How much more it may cost with most held: a tree of 100,000 is 17 levels deep instead of 1, and no longer in the nearest cache.
const RATIO_MAX: f64 = 8.0;

fn main() -> ExitCode {
    let mut result = ExitCode::SUCCESS;
    println!("{:<16} {:>9} {:>14}", "pool", "held", "ns a turn");
    for (name, entry, family, avoid_buggy) in [
        ("IPv4 /12", "172.16.0.0/12", IpFamily::V4, false),
        ("IPv4 /12, buggy", "172.16.0.0/12", IpFamily::V4, true),
        ("IPv6 /64", "2001:db8::/64", IpFamily::V6, false),
    ] {
        let times = HELD.map(|held| {
            let time = measure(&mut filled(entry, family, avoid_buggy, held), family);
            println!("{name:<16} {held:>9} {:>14}", time.as_nanos());
            time
        });
        let ratio = times[HELD.len() - 1].as_secs_f64() / times[0].as_secs_f64();
        println!("{name:<16} {:>9} {ratio:>14.1}", "ratio");
        if ratio > RATIO_MAX {
            eprintln!("{name}: {ratio:.1} times as much with {} held, and at most {RATIO_MAX} is expected", HELD[2]);
            result = ExitCode::FAILURE;
        }
    }
    result
}

fn filled(entry: &str, family: IpFamily, avoid_buggy: bool, held: u32) -> Ipam {
    let mut ipam = Ipam::default();
    let pool = PoolInput {
        name: "bench".to_owned(),
        created: 0,
        addresses: Addresses::parse(&[entry]),
        auto_assign: true,
        avoid_buggy,
        disabled: false,
        admission: None,
        sharing: SharingScope::Cluster,
        cooling: Vec::new(),
    };
    ipam.set_pools(vec![pool], &[]);
    // Every second one is given back, so that what is free is in as many pieces as it can be.
    let mut back = BTreeSet::new();
    for n in 0..2 * held {
        let service = key(n);
        let Some(address) = turn(&ipam, &service, family) else { break };
        ipam.hold(address, "bench", Tenant { service, terms: None });
        if n % 2 == 0 {
            back.insert(address);
        }
    }
    for address in back {
        ipam.release(address);
    }
    ipam
}

fn key(n: u32) -> ServiceKey {
    ServiceKey { namespace: "bench".to_owned(), name: format!("s{n}") }
}

fn turn(ipam: &Ipam, service: &ServiceKey, family: IpFamily) -> Option<std::net::IpAddr> {
    let families = Families { first: family, second: None };
    let request = Request { families, addresses: PerFamily::default(), pool: None };
    let none = Labels::new();
    let ask = Ask { service, labels: &none, namespace: Some(&none), request: &request, previous: &[], terms: None };
    ipam.choose(ask).ok()?.choices.first().map(|choice| choice.address)
}

fn measure(ipam: &mut Ipam, family: IpFamily) -> Duration {
    let service = ServiceKey { namespace: "bench".to_owned(), name: "new".to_owned() };
    let round = |ipam: &mut Ipam| {
        let begin = Instant::now();
        for _ in 0..TURNS {
            if let Some(address) = black_box(turn(ipam, &service, family)) {
                ipam.hold(address, "bench", Tenant { service: service.clone(), terms: None });
                ipam.release(address);
            }
        }
        begin.elapsed() / TURNS
    };
    (0..ROUNDS).map(|_| round(ipam)).min().unwrap_or_default()
}
