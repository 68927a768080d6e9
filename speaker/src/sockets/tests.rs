use std::future::poll_fn;
use std::time::Duration;

use berth_api::MacAddr;
use tokio::time::timeout;

use super::*;
use crate::netns::{cable, in_own_network, netlink};
use crate::{links, netns};

const WATCHED: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));
const WATCHED6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));
const OTHER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11));
const SENDER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// What is to be heard about these addresses, and of no partner.
fn only(addresses: &[IpAddr]) -> Watched {
    Watched { addresses: addresses.to_vec(), partners: Vec::new() }
}

/// The addresses that the frames waiting on `interface` are about, once there are any.
async fn heard(sockets: &Sockets, interface: &str) -> Vec<IpAddr> {
    let mut all = Vec::new();
    while all.is_empty() {
        timeout(Duration::from_secs(5), poll_fn(|cx| sockets.poll_readable(cx))).await.expect("a frame");
        sockets.read_frames(100, |name, bytes| {
            if name == interface {
                all.extend(Frame::parse(bytes).unwrap().question());
            }
        });
    }
    all
}

/// Listens for these, and all that it takes is to be had.
fn watch(sockets: &mut Sockets, interface: &str, addresses: &[IpAddr]) {
    let failed: Vec<_> = sockets.watch(interface, &only(addresses)).filter(|(_, result)| result.is_err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

fn send(sockets: &Sockets, address: IpAddr) {
    let frame = Frame::probe(SENDER, address);
    assert!(matches!(sockets.send_frame("far0", &frame), Sent::Yes));
}

const ENDS: [(&str, &str); 2] = [("near0", "192.0.2.1/24"), ("far0", "192.0.2.2/24")];

#[test]
fn the_kernel_lets_in_only_what_is_about_watched_addresses() {
    in_own_network("sockets::tests::the_kernel_lets_in_only_what_is_about_watched_addresses", async || {
        cable(&netlink(), ENDS).await;
        let links = links::look(&[]).await.unwrap();
        assert_eq!(links.keys().collect::<Vec<_>>(), ["far0", "near0"]);
        let mut sockets = Sockets::new(7480);
        // Without an IPv6 address of its own, nothing could be sent from far0.
        let opened =
            sockets.follow(&links, |name| if name == "near0" { only(&[WATCHED]) } else { only(&[WATCHED6]) }).opened;
        assert!(opened.iter().all(|(_, result)| result.is_ok()), "{opened:?}");

        // The first one is not heard, the second is.
        for (watched, other) in [(WATCHED, OTHER), (OTHER, WATCHED), (WATCHED6, OTHER6), (OTHER6, WATCHED6)] {
            watch(&mut sockets, "near0", &[watched]);
            send(&sockets, other);
            send(&sockets, watched);
            assert_eq!(heard(&sockets, "near0").await, [watched]);
        }
        watch(&mut sockets, "near0", &[WATCHED, WATCHED6]);
        send(&sockets, OTHER6);
        for address in [WATCHED6, WATCHED] {
            send(&sockets, address);
            assert_eq!(heard(&sockets, "near0").await, [address]);
        }

        // More ranges than fit: joined to wider ones, so that nothing that is watched is lost.
        let many = |i: u32| -> [IpAddr; 2] {
            let IpAddr::V4(first) = WATCHED else { panic!("IPv4") };
            let third = 3 * i;
            [
                Ipv4Addr::from(u32::from(first) + third).into(),
                Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(third)).into(),
            ]
        };
        watch(&mut sockets, "near0", &(1..20_000).flat_map(many).collect::<Vec<_>>());
        for address in many(19_999) {
            send(&sockets, address);
            assert_eq!(heard(&sockets, "near0").await, [address]);
        }
    });
}

#[test]
fn the_link_hears_of_the_groups_by_which_addresses_are_asked_for() {
    in_own_network("sockets::tests::the_link_hears_of_the_groups_by_which_addresses_are_asked_for", async || {
        cable(&netlink(), ENDS).await;
        let mut sockets = Sockets::new(7480);
        sockets.follow(&links::look(&[]).await.unwrap(), |_| Watched::default());
        let joined = || {
            let text = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
            let of_near = text.lines().filter(|line| line.contains("near0"));
            of_near.filter(|line| line.contains("ff0200000000000000000001ff000010")).count()
        };
        for (watched, expected) in
            [(vec![WATCHED], 0), (vec![WATCHED, WATCHED6], 1), (vec![OTHER6], 0), (vec![WATCHED6], 1)]
        {
            watch(&mut sockets, "near0", &watched);
            assert_eq!((joined(), sockets.groups_refused()), (expected, 0), "{watched:?}");
        }
        drop(sockets);
        assert_eq!(joined(), 0);
    });
}

#[test]
fn an_interface_that_was_made_anew_gets_new_sockets() {
    in_own_network("sockets::tests::an_interface_that_was_made_anew_gets_new_sockets", async || {
        let handle = netlink();
        let ends = [("near0", "192.0.2.1/24"), ("far0", "192.0.2.2/24")];
        cable(&handle, ends).await;
        let mut sockets = Sockets::new(7480);
        let opened = sockets.follow(&links::look(&[]).await.unwrap(), |_| only(&[WATCHED])).opened;
        assert_eq!(opened.len(), 2);
        let followed = sockets.follow(&links::look(&[]).await.unwrap(), |_| Watched::default());
        assert!(followed.opened.is_empty() && followed.closed.is_empty(), "nothing changed: {followed:?}");

        handle.link().del(netns::index(&handle, "near0").await).execute().await.unwrap();
        let followed = sockets.follow(&links::look(&[]).await.unwrap(), |_| Watched::default());
        assert!(followed.opened.is_empty() && !followed.closed.is_empty(), "{followed:?}");
        assert!(matches!(sockets.send_frame("near0", &Frame::probe(SENDER, OTHER)), Sent::NoInterface));

        cable(&handle, ends).await;
        let opened = sockets.follow(&links::look(&[]).await.unwrap(), |_| only(&[WATCHED])).opened;
        assert!(opened.len() == 2 && opened.iter().all(|(_, result)| result.is_ok()), "{opened:?}");
        send(&sockets, WATCHED);
        assert_eq!(heard(&sockets, "near0").await, [WATCHED]);
    });
}

/// The loopback as an interface that heartbeats of both families go over.
async fn loopback() -> Sockets {
    let addresses = vec!["127.0.0.1/8".parse().unwrap(), "::1/128".parse().unwrap()];
    let link = Link { index: netns::index(&netlink(), "lo").await, mac: SENDER, addresses };
    let mut sockets = Sockets::new(7480);
    let opened = sockets.follow(&BTreeMap::from([("lo".to_owned(), link)]), |_| Watched::default()).opened;
    assert!(opened.iter().all(|(_, result)| result.is_ok()), "{opened:?}");
    sockets
}

/// The datagrams that come once there are any, and who sent them.
async fn heartbeats(sockets: &Sockets) -> Vec<(IpAddr, String)> {
    let mut heard = Vec::new();
    while heard.is_empty() {
        timeout(Duration::from_secs(5), poll_fn(|cx| sockets.poll_readable(cx))).await.expect("a datagram");
        sockets.read_heartbeats(100, |name, from, bytes| {
            assert_eq!(name, "lo");
            heard.push((from, String::from_utf8_lossy(bytes).into_owned()));
        });
    }
    heard
}

const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

#[test]
fn a_heartbeat_comes_from_the_address_that_the_partner_knows() {
    in_own_network("sockets::tests::a_heartbeat_comes_from_the_address_that_the_partner_knows", async || {
        let handle = netlink();
        let known6: IpAddr = "2001:db8::5".parse().unwrap();
        let mut add = handle.address().add(netns::index(&handle, "lo").await, known6, 128);
        // To be used at once.
        add.message_mut().header.flags |= netlink_packet_route::address::AddressHeaderFlags::Nodad;
        add.execute().await.unwrap();
        let sockets = loopback().await;
        let known = [IpAddr::from([127, 0, 0, 2]), known6];
        for (to, from) in LOOPBACKS.into_iter().zip(known) {
            let sent = sockets.send_heartbeat("lo", Some(from), to, b"hello");
            assert!(matches!(sent, Sent::Yes), "{from} to {to}: {sent:?}");
            assert_eq!(heartbeats(&sockets).await, [(from, "hello".to_owned())]);
            assert!(matches!(sockets.send_heartbeat("lo", None, to, b"hello"), Sent::Yes));
            assert_eq!(heartbeats(&sockets).await.len(), 1);
        }
    });
}

#[test]
fn a_heartbeat_that_came_through_a_router_is_not_heard() {
    in_own_network("sockets::tests::a_heartbeat_that_came_through_a_router_is_not_heard", async || {
        let sockets = loopback().await;
        for here in LOOPBACKS {
            let far = std::net::UdpSocket::bind((here, 0)).unwrap();
            // The last one shows that the others had their time.
            for hops in [64, 254, 255] {
                let hop_limit = socket2::SockRef::from(&far);
                if here.is_ipv4() { hop_limit.set_ttl_v4(hops) } else { hop_limit.set_unicast_hops_v6(hops) }.unwrap();
                far.send_to(hops.to_string().as_bytes(), (here, 7480)).unwrap();
            }
            assert_eq!(heartbeats(&sockets).await, [(here, "255".to_owned())]);
            assert!(matches!(sockets.send_heartbeat("lo", Some(here), here, b"own"), Sent::Yes));
            assert_eq!(heartbeats(&sockets).await, [(here, "own".to_owned())]);
        }
    });
}

#[test]
fn a_filter_that_does_not_fit_beside_the_one_before_takes_its_place_first_and_becomes_smaller_last() {
    let many = |limit| filter::arp_program((0..20_000_u32).map(|i| Ipv4Addr::from(3 * i)), limit);
    let whole = many(MAX_INSTRUCTIONS).instructions.len();
    let nothing = filter::nothing().instructions.len();
    assert!(whole > SMALL_INSTRUCTIONS);
    // (the kernel's room for the program before and the one after together, what it has at first, what was put in, in order)
    for (room, before, expected) in [
        (usize::MAX, whole, vec![whole]),
        (whole + nothing, whole, vec![nothing, whole]),
        (whole - 1, nothing, vec![nothing, many(SMALL_INSTRUCTIONS).instructions.len()]),
    ] {
        let (current, put) = (std::cell::Cell::new(before), std::cell::RefCell::new(Vec::new()));
        let replace = |program: &Program| {
            let size = program.instructions.len();
            // What shrinks to nothing fits always.
            if size != nothing && current.get().saturating_add(size) > room {
                return Err(io::Error::from_raw_os_error(nix::libc::ENOMEM));
            }
            current.set(size);
            put.borrow_mut().push(size);
            Ok(())
        };
        attach_by(replace, many).unwrap();
        assert_eq!(put.into_inner(), expected, "room for {room}");
    }
    let refused = |_: &Program| Err(io::Error::from_raw_os_error(nix::libc::EPERM));
    assert_eq!(attach_by(refused, many).unwrap_err().raw_os_error(), Some(nix::libc::EPERM), "another error is told");
}
