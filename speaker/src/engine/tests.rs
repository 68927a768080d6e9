use berth_machine::Member;
use berth_machine::timing::ANNOUNCE_AT;
use berth_sys::{FRAME_MAX, PacketSocket};
use berth_wire::{arp, ndp};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::*;
use crate::links;
use crate::netns::{cable, in_own_network, index, netlink};
use berth_api::MacAddr;

const FAMILIES: [Family; 2] = [
    Family { address: "192.0.2.10", own: "192.0.2.1", client: "192.0.2.9", ethertype: arp::ETHERTYPE_ARP },
    Family { address: "2001:db8::10", own: "2001:db8::1", client: "2001:db8::9", ethertype: ndp::ETHERTYPE_IPV6 },
];
const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const ENDS: [(&str, &str); 2] = [("near0", "192.0.2.1/24"), ("far0", "192.0.2.9/24")];
const PATIENCE: Duration = Duration::from_secs(5);

/// The same scene in an address family.
#[derive(Clone, Copy)]
struct Family {
    address: &'static str,
    own: &'static str,
    client: &'static str,
    ethertype: u16,
}

impl Family {
    fn address(self) -> IpAddr {
        self.address.parse().unwrap()
    }

    /// Whether a frame announces the address to everybody.
    fn is_announced_by(self, frame: &Frame) -> bool {
        frame.claim().is_some_and(|(address, _)| address == self.address()) && frame.dst().0[0] & 1 == 1
    }
}

/// A machine on the other end of the cable, which sees every frame of a family.
struct Client(AsyncFd<PacketSocket>, Family);

impl Client {
    fn on(interface_index: u32, family: Family) -> Self {
        let socket = PacketSocket::open(interface_index, family.ethertype, &berth_sys::accept_all()).unwrap();
        Self(socket.into_async().unwrap(), family)
    }

    async fn hears(&self, what: &str, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        let hear = async {
            loop {
                let mut bytes = [0; FRAME_MAX];
                let mut ready = self.0.readable().await.unwrap();
                let Ok(read) = ready.try_io(|socket| socket.get_ref().receive(&mut bytes)) else { continue };
                // An interface that is being made says so by an error, once.
                let Ok(length) = read else { continue };
                match Frame::parse(&bytes[..length]) {
                    Ok(frame) if wanted(&frame) => return frame,
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, hear).await.unwrap_or_else(|_| panic!("no {what}"))
    }

    fn ask(&self) {
        let question = match (self.1.client.parse().unwrap(), self.1.address()) {
            (IpAddr::V4(sender_ip), IpAddr::V4(address)) => {
                let mut asked = arp::Frame::probe(CLIENT, address);
                asked.arp.sender_ip = sender_ip;
                Frame::Arp(asked)
            }
            (own, address) => Frame::ask(CLIENT, own, address),
        };
        self.0.get_ref().send(&question.emit()).unwrap();
    }

    /// The Ethernet address that the address is announced with.
    async fn announced(&self) -> MacAddr {
        self.hears("announcement", |f| self.1.is_announced_by(f)).await.sender_mac()
    }

    /// The Ethernet address that answers.
    async fn answer(&self) -> MacAddr {
        self.ask();
        self.hears("answer", |f| f.claim().is_some() && f.dst() == CLIENT).await.sender_mac()
    }
}

struct Running {
    changes: mpsc::Sender<Change>,
    board: Arc<Board>,
    metrics: Metrics,
    shutdown: CancellationToken,
    links: watch::Sender<Links>,
    sweep: watch::Sender<Vec<IpAddr>>,
    found: watch::Receiver<Found>,
    task: tokio::task::JoinHandle<()>,
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

async fn look() -> Links {
    links::look(&["far".to_owned()]).await.unwrap()
}

async fn start() -> Running {
    let (changes, changes_in) = mpsc::channel(CHANGES_WAITING);
    let (links, links_in) = watch::channel(look().await);
    let (board, shutdown) = (Arc::<Board>::default(), CancellationToken::new());
    let metrics = Metrics::new(&mut crate::metrics::registry());
    let (sweep, sweep_in) = watch::channel(Vec::new());
    let (found_out, found) = watch::channel(Found::new());
    let engine = Engine::new(Inputs {
        late: watch::channel(Late::new()).0,
        asks: mpsc::channel(1).0,
        served: mpsc::channel(1).1,
        sweep: sweep_in,
        found: found_out,
        node: node("a"),
        heartbeat_port: 7480,
        authentication: Authentication::Off,
        keys: watch::channel(None).1,
        links: links_in,
        changes: changes_in,
        board: board.clone(),
        metrics: metrics.clone(),
        clock: BootClock::new().unwrap(),
        refresh: None,
    });
    let task = tokio::spawn(engine.run(shutdown.clone()));
    Running { changes, board, metrics, shutdown, links, sweep, found, task }
}

/// Named as owner on near0, with nobody to take over.
async fn assign(running: &Running, family: Family) {
    let links = look().await;
    let assignment = Assignment {
        address: family.address(),
        owner: Some(node("a")),
        standbys: Arc::default(),
        epoch: 1,
        members: [Arc::new(Member {
            node: node("a"),
            interface: "near0".to_owned(),
            address: family.own.parse().unwrap(),
            mac: links["near0"].mac,
        })]
        .into(),
        claimed: None,
        sought: None,
        serving: false,
    };
    running.changes.send(Change::Assign(assignment)).await.unwrap();
}

#[test]
fn an_address_is_announced_and_answered_for_until_it_is_withdrawn() {
    in_own_network("engine::tests::an_address_is_announced_and_answered_for_until_it_is_withdrawn", async || {
        let handle = netlink();
        cable(&handle, ENDS).await;
        let mac = look().await["near0"].mac;
        for family in FAMILIES {
            let (client, running) = (Client::on(index(&handle, "far0").await, family), start().await);
            assign(&running, family).await;
            client.hears("probe", |f| f.is_probe() && f.question() == Some(family.address())).await;
            assert_eq!(client.announced().await, mac);
            assert_eq!(client.answer().await, mac);
            timeout(PATIENCE, running.board.news()).await.expect("a report");
            assert_eq!(running.metrics.addresses_answering.get(), 1);

            running.changes.send(Change::Withdraw(family.address())).await.unwrap();
            while running.metrics.addresses_answering.get() == 1 {
                tokio::task::yield_now().await;
            }
            running.shutdown.cancel();
            timeout(PATIENCE, running.task).await.expect("the engine ends").unwrap();
        }
    });
}

#[test]
fn an_interface_that_comes_back_is_served_again_and_told_who_answers() {
    in_own_network("engine::tests::an_interface_that_comes_back_is_served_again_and_told_who_answers", async || {
        let handle = netlink();
        for family in FAMILIES {
            cable(&handle, ENDS).await;
            let (client, running) = (Client::on(index(&handle, "far0").await, family), start().await);
            assign(&running, family).await;
            client.announced().await;

            // Another cable between interfaces of the same names: sockets of before hear nothing of it.
            handle.link().del(index(&handle, "near0").await).execute().await.unwrap();
            running.links.send(look().await).unwrap();
            tokio::task::yield_now().await;
            cable(&handle, ENDS).await;
            let client = Client::on(index(&handle, "far0").await, family);
            let links = look().await;
            let mac = links["near0"].mac;
            running.links.send(links).unwrap();
            // The controller says where the node is found now.
            assign(&running, family).await;
            assert_eq!(client.announced().await, mac);
            assert_eq!(client.answer().await, mac);
            running.shutdown.cancel();
            timeout(PATIENCE, running.task).await.expect("the engine ends").unwrap();
            handle.link().del(index(&handle, "near0").await).execute().await.unwrap();
        }
    });
}

#[test]
fn the_kernel_of_another_host_gives_an_address_of_ours_up_when_it_asks_first() {
    in_own_network(
        "engine::tests::the_kernel_of_another_host_gives_an_address_of_ours_up_when_it_asks_first",
        async || {
            let handle = netlink();
            cable(&handle, ENDS).await;
            let family = FAMILIES[1];
            let far = index(&handle, "far0").await;
            let (client, running) = (Client::on(far, family), start().await);
            assign(&running, family).await;
            // An announcement would tell it, too. After the last one only the answer does.
            for _ in ANNOUNCE_AT {
                client.announced().await;
            }
            handle.address().add(far, family.address(), 64).execute().await.unwrap();
            let failed = async {
                loop {
                    let text = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
                    let line = text.lines().find(|line| line.starts_with("20010db8000000000000000000000010"));
                    let flags = line
                        .and_then(|line| line.split_whitespace().nth(4))
                        .map(|f| u8::from_str_radix(f, 16).unwrap());
                    // IFA_F_DADFAILED and IFA_F_TENTATIVE (linux/if_addr.h).
                    match flags {
                        Some(flags) if flags & 0x08 != 0 => break true,
                        Some(flags) if flags & 0x40 == 0 => break false,
                        _ => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
            };
            assert!(timeout(PATIENCE, failed).await.expect("a verdict"), "it uses the address");
            assert_eq!(running.metrics.conflicts.get(), 0);
            running.shutdown.cancel();
            timeout(PATIENCE, running.task).await.expect("the engine ends").unwrap();
        },
    );
}

/// So many IPv6 addresses of one node, with nobody to take over, as a pool of that size would have them.
const MANY: u16 = 5_000;

/// The `n`-th of them. No two are neighbours and no two are asked for by the same group, so the filter has to join ranges, and one
/// socket does not hold the groups.
fn many(n: u16) -> std::net::Ipv6Addr {
    let spread = u32::from(n) * 3;
    std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0x7f00 | (spread >> 16) as u16, spread as u16)
}

/// How many of the groups by which the first `count` of them are asked for the kernel says near0 is in (proc_net(5), `igmp6`).
fn groups_of_near0(count: u16) -> usize {
    // As /proc writes it: all digits, without colons.
    let hex = |group: std::net::Ipv6Addr| format!("{:032x}", group.to_bits());
    let wanted: BTreeSet<_> = (0..count).map(|n| hex(ndp::solicited_node(many(n)))).collect();
    let text = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
    let of_near =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|line| line[1] == "near0");
    of_near.filter(|line| wanted.contains(line[2])).count()
}

async fn assign6(running: &Running, mac: MacAddr, address: std::net::Ipv6Addr, owner: &str, standbys: &[&str]) {
    let member = |name: &str, address: &str, mac| Member {
        node: node(name),
        interface: "near0".to_owned(),
        address: address.parse().unwrap(),
        mac,
    };
    let assignment = Assignment {
        address: address.into(),
        owner: Some(node(owner)),
        standbys: standbys.iter().map(|name| node(name)).collect(),
        epoch: 1,
        members: [member("a", "2001:db8::1", mac), member("b", "2001:db8::2", MacAddr([2, 0, 0, 0, 0, 2]))]
            .map(Arc::new)
            .into(),
        claimed: None,
        sought: None,
        serving: false,
    };
    running.changes.send(Change::Assign(assignment)).await.unwrap();
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(6 * PATIENCE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[test]
fn thousands_of_ipv6_addresses_on_one_interface_are_each_answered_for_and_again_after_the_link_was_away() {
    in_own_network(
        "engine::tests::thousands_of_ipv6_addresses_on_one_interface_are_each_answered_for_and_again_after_the_link_was_away",
        async || {
            let handle = netlink();
            cable(&handle, ENDS).await;
            let (running, mac) = (start().await, look().await["near0"].mac);
            for n in 0..MANY {
                assign6(&running, mac, many(n), "a", &[]).await;
            }
            let answering = running.metrics.addresses_answering.clone();
            until("all are answered for", || answering.get() == i64::from(MANY)).await;
            assert_eq!(groups_of_near0(MANY), usize::from(MANY), "the link is told of each group");
            assert_eq!(running.metrics.groups_refused.get(), 0);
            let ask_all = async || {
                let client = Client::on(index(&handle, "far0").await, FAMILIES[1]);
                for n in 0..MANY {
                    let question = ndp::Frame::solicit(CLIENT, FAMILIES[1].client.parse().unwrap(), many(n));
                    let is_answer = |f: &Frame| {
                        f.claim().is_some_and(|(address, _)| address == IpAddr::V6(many(n))) && f.dst() == CLIENT
                    };
                    // As often as a host asks (RFC 4861 section 10): announcements of thousands fill the socket of the one who asks.
                    let mut answer = None;
                    for _ in 0..3 {
                        client.0.get_ref().send(&question.emit()).unwrap();
                        let hears = timeout(Duration::from_secs(1), client.hears("answer", is_answer));
                        answer = hears.await.ok();
                        if answer.is_some() {
                            break;
                        }
                    }
                    assert_eq!(answer.map(|answer| answer.sender_mac()), Some(mac), "{}", many(n));
                }
            };
            ask_all().await;

            // The cable is pulled and put back: groups are left and joined again, and each address is answered for.
            crate::netns::set_up(&handle, "far0", false).await;
            running.links.send(look().await).unwrap();
            until("the groups are left", || groups_of_near0(MANY) == 0).await;
            crate::netns::set_up(&handle, "far0", true).await;
            let links = async {
                loop {
                    let links = look().await;
                    if links.contains_key("near0") {
                        break links;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            running.links.send(timeout(PATIENCE, links).await.expect("the link is back")).unwrap();
            until("the groups are joined again", || groups_of_near0(MANY) == usize::from(MANY)).await;
            until("all are answered for again", || answering.get() == i64::from(MANY)).await;
            ask_all().await;
            running.shutdown.cancel();
            timeout(PATIENCE, running.task).await.expect("the engine ends").unwrap();
        },
    );
}

#[test]
fn a_standby_is_in_the_groups_before_it_takes_over() {
    in_own_network("engine::tests::a_standby_is_in_the_groups_before_it_takes_over", async || {
        let handle = netlink();
        cable(&handle, ENDS).await;
        let (running, mac) = (start().await, look().await["near0"].mac);
        assign6(&running, mac, many(0), "b", &["a"]).await;
        until("the group is joined", || groups_of_near0(1) == 1).await;
        assert_eq!(running.metrics.addresses_answering.get(), 0, "nothing is answered for yet");
        // The owner was never heard: the address is taken over, and its group stays what it was.
        let client = Client::on(index(&handle, "far0").await, FAMILIES[1]);
        until("it is taken over", || running.metrics.addresses_answering.get() == 1).await;
        assert_eq!(groups_of_near0(1), 1);
        drop(client);
        running.shutdown.cancel();
        timeout(PATIENCE, running.task).await.expect("the engine ends").unwrap();
    });
}

#[test]
fn a_solicitation_that_does_not_say_who_sent_it_is_answered_to_the_station_that_sent_the_frame() {
    in_own_network(
        "engine::tests::a_solicitation_that_does_not_say_who_sent_it_is_answered_to_the_station_that_sent_the_frame",
        async || {
            let handle = netlink();
            cable(&handle, ENDS).await;
            let (family, mac) = (FAMILIES[1], look().await["near0"].mac);
            let (client, running) = (Client::on(index(&handle, "far0").await, family), start().await);
            assign(&running, family).await;
            client.announced().await;
            let IpAddr::V6(address) = family.address() else { panic!("IPv6") };
            let source = family.client.parse().unwrap();
            let silent = ndp::Message::Solicitation { source_mac: None };
            // To the node alone, as unreachability detection asks, and to the group, as a host asks that thinks it is known
            // (RFC 4861 sections 4.3 and 7.3.3).
            let alone = ndp::Frame { message: silent, ..ndp::Frame::check(CLIENT, source, address, mac) };
            let group = ndp::Frame { message: silent, ..ndp::Frame::solicit(CLIENT, source, address) };
            for question in [alone, group] {
                client.0.get_ref().send(&question.emit()).unwrap();
                let answer = client.hears("answer", |f| f.claim().is_some() && f.dst() == CLIENT).await;
                let Frame::Ndp(answer) = answer else { panic!("{answer:?}") };
                assert_eq!((answer.destination, answer.target), (source, address));
                let expected = ndp::Message::Advertisement {
                    router: false,
                    solicited: true,
                    overrides: true,
                    target_mac: Some(mac),
                };
                assert_eq!(answer.message, expected);
            }
            running.shutdown.cancel();
            timeout(PATIENCE, running.task).await.expect("the engine ends").unwrap();
        },
    );
}

#[test]
fn a_machine_that_has_an_address_which_nobody_uses_yet_is_found() {
    in_own_network("engine::tests::a_machine_that_has_an_address_which_nobody_uses_yet_is_found", async || {
        let handle = netlink();
        cable(&handle, [("near0", "192.0.2.1/24"), ("far0", "192.0.2.9/24")]).await;
        for (name, address) in [("near0", "2001:db8::1"), ("far0", "2001:db8::9")] {
            let mut add = handle.address().add(index(&handle, name).await, address.parse().unwrap(), 64);
            // To be used at once.
            add.message_mut().header.flags |= netlink_packet_route::address::AddressHeaderFlags::Nodad;
            add.execute().await.unwrap();
        }
        // Both ends are of one kernel, which else takes no question from itself.
        std::fs::write("/proc/sys/net/ipv4/conf/far0/accept_local", "1").unwrap();
        let mut running = start().await;
        // The kernel at the other end has one of each family.
        let had: [IpAddr; 2] = ["192.0.2.9".parse().unwrap(), "2001:db8::9".parse().unwrap()];
        let free: [IpAddr; 3] =
            ["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap(), "198.51.100.1".parse().unwrap()];
        running.sweep.send(had.into_iter().chain(free).collect()).unwrap();
        let far = links::look(&[]).await.unwrap()["far0"].mac;
        let all = running.found.wait_for(|found| found.len() == 2);
        let found = timeout(PATIENCE, all).await.expect("both in time").unwrap().clone();
        assert_eq!(found, had.map(|address| (address, far)).into());
        until("all are asked for", || running.metrics.sweep_probes.get() == 8).await;
        assert_eq!(running.metrics.addresses_answering.get(), 0);
        // What is not asked for any more is nobody's affair.
        running.sweep.send(Vec::new()).unwrap();
        timeout(PATIENCE, running.found.wait_for(Found::is_empty)).await.expect("in time").unwrap();
        running.shutdown.cancel();
        timeout(PATIENCE, running.task).await.expect("the engine ends").unwrap();
    });
}
