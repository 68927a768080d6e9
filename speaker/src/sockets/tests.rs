use std::future::poll_fn;
use std::time::Duration;

use berth_api::MacAddr;
use berth_wire::arp::Frame;
use tokio::time::timeout;

use super::*;
use crate::netns::{cable, in_own_network, netlink};
use crate::{links, netns};

const WATCHED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const SENDER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// The addresses that the frames waiting on `interface` are about, once there are any.
async fn heard(sockets: &Sockets, interface: &str) -> Vec<Ipv4Addr> {
    let mut all = Vec::new();
    while all.is_empty() {
        timeout(Duration::from_secs(5), poll_fn(|cx| sockets.poll_readable(cx))).await.expect("a frame");
        sockets.read_frames(100, |name, bytes| {
            if name == interface {
                all.push(Frame::parse(bytes).unwrap().arp.target_ip);
            }
        });
    }
    all
}

fn send(sockets: &Sockets, address: Ipv4Addr) {
    let frame = Frame::probe(SENDER, address).emit();
    assert!(matches!(sockets.send_frame("far0", &frame), Sent::Yes));
}

#[test]
fn the_kernel_lets_in_only_what_is_about_watched_addresses() {
    in_own_network("sockets::tests::the_kernel_lets_in_only_what_is_about_watched_addresses", async || {
        cable(&netlink(), [("near0", "192.0.2.1/24"), ("far0", "192.0.2.2/24")]).await;
        let links = links::look(&[]).await.unwrap();
        assert_eq!(links.keys().collect::<Vec<_>>(), ["far0", "near0"]);
        let mut sockets = Sockets::new(7480);
        let opened = sockets.follow(&links, |name| if name == "near0" { vec![WATCHED] } else { vec![] }).opened;
        assert!(opened.iter().all(|(_, result)| result.is_ok()), "{opened:?}");

        send(&sockets, OTHER);
        send(&sockets, WATCHED);
        assert_eq!(heard(&sockets, "near0").await, [WATCHED]);

        sockets.watch("near0", &[OTHER]).unwrap();
        send(&sockets, WATCHED);
        send(&sockets, OTHER);
        assert_eq!(heard(&sockets, "near0").await, [OTHER]);

        // More ranges than fit: joined to wider ones, so that nothing that is watched is lost.
        let many: Vec<Ipv4Addr> = (0..20_000).map(|i| Ipv4Addr::from(u32::from(WATCHED) + 3 * i)).collect();
        sockets.watch("near0", &many).unwrap();
        send(&sockets, many[19_999]);
        assert_eq!(heard(&sockets, "near0").await, [many[19_999]]);
    });
}

#[test]
fn an_interface_that_was_made_anew_gets_new_sockets() {
    in_own_network("sockets::tests::an_interface_that_was_made_anew_gets_new_sockets", async || {
        let handle = netlink();
        let ends = [("near0", "192.0.2.1/24"), ("far0", "192.0.2.2/24")];
        cable(&handle, ends).await;
        let mut sockets = Sockets::new(7480);
        let opened = sockets.follow(&links::look(&[]).await.unwrap(), |_| vec![WATCHED]).opened;
        assert_eq!(opened.len(), 2);
        let followed = sockets.follow(&links::look(&[]).await.unwrap(), |_| vec![]);
        assert!(followed.opened.is_empty() && followed.closed.is_empty(), "nothing changed: {followed:?}");

        handle.link().del(netns::index(&handle, "near0").await).execute().await.unwrap();
        let followed = sockets.follow(&links::look(&[]).await.unwrap(), |_| vec![]);
        assert!(followed.opened.is_empty() && !followed.closed.is_empty(), "{followed:?}");
        assert!(matches!(sockets.send_frame("near0", &[0; 60]), Sent::NoInterface));

        cable(&handle, ends).await;
        let opened = sockets.follow(&links::look(&[]).await.unwrap(), |_| vec![WATCHED]).opened;
        assert!(opened.len() == 2 && opened.iter().all(|(_, result)| result.is_ok()), "{opened:?}");
        send(&sockets, WATCHED);
        assert_eq!(heard(&sockets, "near0").await, [WATCHED]);
    });
}

#[test]
fn a_heartbeat_comes_from_the_address_that_the_partner_knows() {
    in_own_network("sockets::tests::a_heartbeat_comes_from_the_address_that_the_partner_knows", async || {
        let loopback = Link { index: netns::index(&netlink(), "lo").await, mac: SENDER, addresses: vec![] };
        let mut sockets = Sockets::new(7480);
        let opened = sockets.follow(&BTreeMap::from([("lo".to_owned(), loopback)]), |_| vec![]).opened;
        assert!(opened.iter().all(|(_, result)| result.is_ok()), "{opened:?}");
        let known = Ipv4Addr::new(127, 0, 0, 2);
        assert!(matches!(sockets.send_heartbeat("lo", known, Ipv4Addr::LOCALHOST, b"hello"), Sent::Yes));
        let mut heard = Vec::new();
        while heard.is_empty() {
            timeout(Duration::from_secs(5), poll_fn(|cx| sockets.poll_readable(cx))).await.expect("a datagram");
            sockets.read_heartbeats(100, |name, from, bytes| heard.push((name.to_owned(), from, bytes.to_vec())));
        }
        assert_eq!(heard, [("lo".to_owned(), known, b"hello".to_vec())]);
    });
}

#[test]
fn a_heartbeat_that_came_through_a_router_is_not_heard() {
    in_own_network("sockets::tests::a_heartbeat_that_came_through_a_router_is_not_heard", async || {
        let loopback = Link { index: netns::index(&netlink(), "lo").await, mac: SENDER, addresses: vec![] };
        let mut sockets = Sockets::new(7480);
        let opened = sockets.follow(&BTreeMap::from([("lo".to_owned(), loopback)]), |_| vec![]).opened;
        assert!(opened.iter().all(|(_, result)| result.is_ok()), "{opened:?}");
        let far = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // The last one shows that the others had their time.
        for ttl in [64, 254, 255] {
            far.set_ttl(ttl).unwrap();
            far.send_to(ttl.to_string().as_bytes(), (Ipv4Addr::LOCALHOST, 7480)).unwrap();
        }
        let mut heard = Vec::new();
        while heard.is_empty() {
            timeout(Duration::from_secs(5), poll_fn(|cx| sockets.poll_readable(cx))).await.expect("a datagram");
            sockets.read_heartbeats(100, |_, _, bytes| heard.push(String::from_utf8_lossy(bytes).into_owned()));
        }
        assert_eq!(heard, ["255"]);
        assert!(matches!(sockets.send_heartbeat("lo", Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, b"own"), Sent::Yes));
        while heard.len() < 2 {
            timeout(Duration::from_secs(5), poll_fn(|cx| sockets.poll_readable(cx))).await.expect("our own datagram");
            sockets.read_heartbeats(100, |_, _, bytes| heard.push(String::from_utf8_lossy(bytes).into_owned()));
        }
        assert_eq!(heard, ["255", "own"]);
    });
}
