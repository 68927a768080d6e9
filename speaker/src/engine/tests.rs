use berth_machine::Member;
use berth_sys::{ArpSocket, FRAME_MAX};
use berth_wire::arp::{ArpPacket, Operation};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::*;
use crate::links;
use crate::netns::{cable, in_own_network, index, netlink};
use berth_api::MacAddr;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const ENDS: [(&str, &str); 2] = [("near0", "192.0.2.1/24"), ("far0", "192.0.2.9/24")];
const PATIENCE: Duration = Duration::from_secs(5);

/// A machine on the other end of the cable, which sees every ARP frame.
struct Client(AsyncFd<ArpSocket>);

impl Client {
    fn on(interface_index: u32) -> Self {
        Self(ArpSocket::open(interface_index, &berth_sys::accept_all()).unwrap().into_async().unwrap())
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
        let question = Frame {
            dst: MacAddr::BROADCAST,
            src: CLIENT,
            arp: ArpPacket {
                operation: Operation::Request,
                sender_mac: CLIENT,
                sender_ip: Ipv4Addr::new(192, 0, 2, 9),
                target_mac: MacAddr::ZERO,
                target_ip: ADDRESS,
            },
        };
        self.0.get_ref().send(&question.emit()).unwrap();
    }

    /// The Ethernet address that the address is announced with.
    async fn announced(&self) -> MacAddr {
        self.hears("announcement", |f| f.arp.is_gratuitous() && f.arp.sender_ip == ADDRESS).await.arp.sender_mac
    }

    /// The Ethernet address that answers.
    async fn answer(&self) -> MacAddr {
        self.ask();
        self.hears("answer", |f| f.arp.operation == Operation::Reply && f.dst == CLIENT).await.arp.sender_mac
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
        node: node("a"),
        heartbeat_port: 7480,
        links: links_in,
        changes: changes_in,
        board: board.clone(),
        metrics: metrics.clone(),
        clock: BootClock::new().unwrap(),
    });
    let task = tokio::spawn(engine.run(shutdown.clone()));
    Running { changes, board, metrics, shutdown, links, task }
}

/// Named as owner on near0, with nobody to take over.
async fn assign(running: &Running) {
    let links = look().await;
    let assignment = Assignment {
        address: ADDRESS,
        owner: Some(node("a")),
        standbys: vec![],
        epoch: 1,
        members: vec![Member {
            node: node("a"),
            interface: "near0".to_owned(),
            address: Ipv4Addr::new(192, 0, 2, 1),
            mac: links["near0"].mac,
        }],
        claimed: None,
    };
    running.changes.send(Change::Assign(assignment)).await.unwrap();
}

#[test]
fn an_address_is_announced_and_answered_for_until_it_is_withdrawn() {
    in_own_network("engine::tests::an_address_is_announced_and_answered_for_until_it_is_withdrawn", async || {
        let handle = netlink();
        cable(&handle, ENDS).await;
        let mac = look().await["near0"].mac;
        let (client, running) = (Client::on(index(&handle, "far0").await), start().await);
        assign(&running).await;
        client.hears("probe", |f| f.arp.is_probe() && f.arp.target_ip == ADDRESS).await;
        assert_eq!(client.announced().await, mac);
        assert_eq!(client.answer().await, mac);
        timeout(PATIENCE, running.board.news()).await.expect("a report");
        assert_eq!(running.metrics.addresses_answering.get(), 1);

        running.changes.send(Change::Withdraw(ADDRESS)).await.unwrap();
        while running.metrics.addresses_answering.get() == 1 {
            tokio::task::yield_now().await;
        }
        running.shutdown.cancel();
        timeout(PATIENCE, running.task).await.expect("the engine ends").unwrap();
    });
}

#[test]
fn an_interface_that_comes_back_is_served_again_and_told_who_answers() {
    in_own_network("engine::tests::an_interface_that_comes_back_is_served_again_and_told_who_answers", async || {
        let handle = netlink();
        cable(&handle, ENDS).await;
        let (client, running) = (Client::on(index(&handle, "far0").await), start().await);
        assign(&running).await;
        client.announced().await;

        // Another cable between interfaces of the same names: sockets of before hear nothing of it.
        handle.link().del(index(&handle, "near0").await).execute().await.unwrap();
        running.links.send(look().await).unwrap();
        tokio::task::yield_now().await;
        cable(&handle, ENDS).await;
        let client = Client::on(index(&handle, "far0").await);
        let links = look().await;
        let mac = links["near0"].mac;
        running.links.send(links).unwrap();
        // The controller says where the node is found now.
        assign(&running).await;
        assert_eq!(client.announced().await, mac);
        assert_eq!(client.answer().await, mac);
        running.shutdown.cancel();
        timeout(PATIENCE, running.task).await.expect("the engine ends").unwrap();
    });
}
