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
    let engine = Engine::new(Inputs {
        late: watch::channel(Late::new()).0,
        asks: mpsc::channel(1).0,
        served: mpsc::channel(1).1,
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
    Running { changes, board, metrics, shutdown, links, task }
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
