use std::net::IpAddr;
use std::path::Path;

use berth_api::crd::{RouteAssignment, RouteForm};
use netlink_packet_route::address::{AddressAttribute, AddressProtocol};
use tokio::time::timeout;

use super::*;
use crate::netns::{cable, in_own_network, index, netlink};

/// Runs `ip` with these words, and returns what it says.
fn ip(words: &str) -> String {
    let output = std::process::Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn wishes(all: &[(&str, RouteAssignment)]) -> Wishes {
    all.iter().map(|(address, way)| (address.parse::<IpAddr>().unwrap(), vec![way.clone()])).collect()
}

fn to_near() -> RouteAssignment {
    RouteAssignment { interface: Some("near0".to_owned()), ..RouteAssignment::default() }
}

fn on_far() -> RouteAssignment {
    RouteAssignment { form: RouteForm::Address, interface: Some("far0".to_owned()), ..RouteAssignment::default() }
}

async fn settled(wishes: &Wishes) -> Vec<String> {
    let refused = settle(&Netlink::open().unwrap(), wishes).await.unwrap().1;
    refused.into_iter().map(|(address, (why, _))| format!("{address} {why:?}")).collect()
}

#[test]
fn the_kernel_has_what_is_wished_and_nothing_of_others_is_touched() {
    in_own_network("routes::tests::the_kernel_has_what_is_wished_and_nothing_of_others_is_touched", async || {
        let handle = netlink();
        cable(&handle, [("near0", "192.0.2.11/24"), ("far0", "198.51.100.1/24")]).await;
        let foreign = [
            "203.0.113.1 dev near0 proto static scope link",
            "203.0.113.2 dev near0 proto 165 scope link",
            "203.0.113.0/24 dev near0 proto 166 scope link",
        ];
        for route in foreign {
            ip(&format!("route add {route}"));
        }
        // What a run that crashed left.
        ip("route add 203.0.113.99/32 dev near0 proto 166 table 77");
        ip("-6 route add 2001:db8:77::99/128 dev near0 proto 166");
        let all = wishes(&[("203.0.113.1", to_near()), ("203.0.113.3", to_near()), ("2001:db8:77::3", to_near())]);
        assert_eq!(settled(&all).await, ["203.0.113.1 RouteTaken"]);
        assert_eq!(ip("route show table all proto 166 203.0.113.3"), "203.0.113.3 dev near0 scope link \n");
        assert!(
            ip("-6 route show proto 166").starts_with("2001:db8:77::3 dev near0 metric 1024"),
            "{}",
            ip("-6 route show proto 166")
        );
        assert_eq!(ip("-6 route show proto 166").lines().count(), 1);
        assert!(!ip("route show table all").contains("203.0.113.99"));
        for route in foreign {
            assert!(
                ip("route show").contains(route.trim_end_matches(" scope link")),
                "{route} in {}",
                ip("route show")
            );
        }

        ip("route del 203.0.113.1");
        assert_eq!(settled(&all).await, [""; 0]);
        let moved = wishes(&[("203.0.113.3", RouteAssignment { interface: Some("far0".to_owned()), ..to_near() })]);
        assert_eq!(settled(&moved).await, [""; 0]);
        assert_eq!(ip("route show proto 166 203.0.113.3"), "203.0.113.3 dev far0 scope link \n");
        assert_eq!(settled(&Wishes::new()).await, [""; 0]);
        assert_eq!(ip("-6 route show proto 166"), "");
        assert_eq!(
            ip("route show proto 166"),
            "203.0.113.0/24 dev near0 scope link \n",
            "no host route, so none of ours"
        );
    });
}

#[test]
fn addresses_are_put_on_an_interface_with_our_mark_and_found_again_by_it() {
    in_own_network(
        "routes::tests::addresses_are_put_on_an_interface_with_our_mark_and_found_again_by_it",
        async || {
            let handle = netlink();
            cable(&handle, [("near0", "192.0.2.11/24"), ("far0", "198.51.100.1/24")]).await;
            for name in ["all", "near0"] {
                std::fs::write(Path::new("/proc/sys/net/ipv4/conf").join(name).join("arp_ignore"), "0").unwrap();
            }
            ip("address add 203.0.113.5/32 dev far0");
            // With a number that is not ours.
            let mut another = handle.address().add(index(&handle, "far0").await, "203.0.113.6".parse().unwrap(), 32);
            another
                .message_mut()
                .attributes
                .push(AddressAttribute::Protocol(AddressProtocol::Other(plan::PROTOCOL - 1)));
            another.execute().await.unwrap();
            let all = wishes(&[
                ("192.0.2.200", on_far()),
                ("203.0.113.4", on_far()),
                ("203.0.113.5", on_far()),
                ("2001:db8:77::4", on_far()),
            ]);
            assert_eq!(settled(&all).await, ["192.0.2.200 OnLinkAddress", "203.0.113.5 RouteTaken"]);
            let shown = ip("address show dev far0");
            assert!(
                shown.contains("inet 203.0.113.4/32 scope global") && shown.contains("inet6 2001:db8:77::4/128"),
                "{shown}"
            );
            let ours = shown.lines().find(|line| line.contains("2001:db8:77::4")).unwrap();
            assert!(
                ours.contains("nodad deprecated") && !ours.contains("tentative"),
                "used at once, and not to send from: {ours}"
            );
            assert!(!shown.contains("192.0.2.200"), "{shown}");

            std::fs::write("/proc/sys/net/ipv4/conf/near0/arp_ignore", "1").unwrap();
            assert_eq!(settled(&all).await, ["203.0.113.5 RouteTaken"]);
            assert!(ip("address show dev far0").contains("192.0.2.200/32"));
            assert_eq!(settled(&Wishes::new()).await, [""; 0]);
            let shown = ip("address show dev far0");
            assert!(
                ["203.0.113.5/32", "203.0.113.6/32"].iter().all(|other| shown.contains(other))
                    && !shown.contains("203.0.113.4")
                    && !shown.contains("2001:db8:77"),
                "{shown}"
            );
        },
    );
}

#[test]
fn nothing_is_changed_before_all_is_known_and_what_is_deleted_comes_back() {
    in_own_network(
        "routes::tests::nothing_is_changed_before_all_is_known_and_what_is_deleted_comes_back",
        async || {
            let handle = netlink();
            cable(&handle, [("near0", "192.0.2.11/24"), ("far0", "198.51.100.1/24")]).await;
            ip("route add default via 192.0.2.1");
            ip("route add 203.0.113.9/32 dev near0 proto 166");
            let near = index(&handle, "near0").await;
            let (wanted_out, wanted) = watch::channel(Wanted::default());
            let (said_out, mut said) = watch::channel(None);
            let shutdown = CancellationToken::new();
            let metrics = Metrics::new(&mut crate::metrics::registry());
            let task = tokio::spawn(run(wanted, said_out, metrics, shutdown.clone()));
            let netlink = Netlink::open().unwrap();
            let has = async || {
                let routes = netlink.routes().await.unwrap();
                routes.into_iter().map(|route| (route.address.to_string(), route.interface)).collect::<Vec<_>>()
            };
            wanted_out.send_modify(|wanted| wanted.wishes = wishes(&[("203.0.113.3", RouteAssignment::default())]));
            sleep(Duration::from_millis(300)).await;
            assert_eq!((has().await, said.borrow().clone()), (vec![("203.0.113.9".to_owned(), near)], None));

            let comes = async |expected: Vec<(String, u32)>| {
                let came = timeout(Duration::from_secs(10), async {
                    while has().await != expected {
                        sleep(Duration::from_millis(20)).await;
                    }
                });
                assert!(came.await.is_ok(), "{expected:?}, not {:?}", has().await);
            };
            wanted_out.send_modify(|wanted| wanted.synced = true);
            // By the default route, because no interface is named.
            comes(vec![("203.0.113.3".to_owned(), near)]).await;
            assert_eq!(
                said.wait_for(Option::is_some).await.unwrap().clone(),
                Some(Routes { permitted: true, refused: Vec::new() })
            );
            ip("route del 203.0.113.3");
            comes(Vec::new()).await;
            comes(vec![("203.0.113.3".to_owned(), near)]).await;
            shutdown.cancel();
            task.await.unwrap();
            comes(vec![("203.0.113.3".to_owned(), near)]).await;
        },
    );
}
