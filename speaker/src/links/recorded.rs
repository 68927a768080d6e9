//! What kernels say of bonds, VLANs, bridges and their members, with every message parsed as it comes from the socket. The kernel that
//! runs the tests need not have these drivers.

use netlink_packet_route::link::{InfoData, InfoKind, InfoVlan, LinkMode, VlanProtocol};
use rtnetlink::packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};

use super::*;
use crate::args::DEFAULT_EXCLUDED;

/// What an Ethernet device that is up and has a carrier has.
fn up() -> LinkFlags {
    LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running | LinkFlags::Broadcast | LinkFlags::Multicast
}

/// A device as `ip -d link` shows one.
struct Device {
    index: u32,
    name: &'static str,
    flags: LinkFlags,
    state: State,
    mac: u8,
    more: Vec<LinkAttribute>,
    address: &'static str,
}

impl Device {
    /// Up, with a carrier, a MAC with this last byte and this address.
    fn new(index: u32, name: &'static str, mac: u8, address: &'static str) -> Self {
        Self { index, name, flags: up(), state: State::Up, mac, more: Vec::new(), address }
    }

    fn with(mut self, more: impl IntoIterator<Item = LinkAttribute>) -> Self {
        self.more.extend(more);
        self
    }

    fn kind(self, kind: InfoKind) -> Self {
        self.with([LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])])
    }

    /// A port of the device with this number.
    fn port(self, of: u32, kind: InfoPortKind) -> Self {
        self.with([LinkAttribute::Controller(of), LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(kind)])])
    }

    fn bonded(mut self, bond: u32) -> Self {
        self.flags |= LinkFlags::Port;
        self.port(bond, InfoPortKind::Bond)
    }

    fn vlan(self, id: u16, lower: u32) -> Self {
        let data = InfoData::Vlan(vec![InfoVlan::Protocol(VlanProtocol::Ieee8021Q), InfoVlan::Id(id)]);
        let info = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)];
        self.with([LinkAttribute::Link(lower), LinkAttribute::LinkInfo(info)])
    }

    fn state(mut self, state: State, without: LinkFlags) -> Self {
        (self.state, self.flags) = (state, self.flags - without);
        self
    }

    fn link(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = self.index;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = self.flags;
        let carrier = u8::from(self.flags.contains(LinkFlags::LowerUp));
        message.attributes = vec![
            LinkAttribute::IfName(self.name.to_owned()),
            LinkAttribute::TxQueueLen(1000),
            LinkAttribute::OperState(self.state),
            LinkAttribute::Mode(LinkMode::Default),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Carrier(carrier),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, self.mac]),
            LinkAttribute::Broadcast(vec![255; 6]),
        ];
        message.attributes.extend(self.more.clone());
        match as_read(&RouteNetlinkMessage::NewLink(message)) {
            RouteNetlinkMessage::NewLink(message) => message,
            other => panic!("{other:?}"),
        }
    }

    fn addresses(&self) -> Option<AddressMessage> {
        let net: IpNet = (!self.address.is_empty()).then(|| self.address.parse().unwrap())?;
        let mut message = AddressMessage::default();
        message.header.index = self.index;
        message.header.prefix_len = net.prefix_len();
        message.header.scope = AddressScope::Universe;
        message.header.flags = AddressHeaderFlags::Permanent;
        message.header.family = netlink_packet_route::AddressFamily::Inet;
        message.attributes = vec![AddressAttribute::Address(net.addr()), AddressAttribute::Local(net.addr())];
        match as_read(&RouteNetlinkMessage::NewAddress(message)) {
            RouteNetlinkMessage::NewAddress(message) => Some(message),
            other => panic!("{other:?}"),
        }
    }
}

/// A message as it is when it was read from a socket.
fn as_read(message: &RouteNetlinkMessage) -> RouteNetlinkMessage {
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut header = NetlinkHeader::default();
    header.message_type = message.message_type();
    RouteNetlinkMessage::deserialize(&header, &bytes).unwrap()
}

/// `name MAC address` of those that can announce.
fn chosen(devices: &[Device]) -> Vec<String> {
    let excluded: Vec<String> = DEFAULT_EXCLUDED.split(',').map(str::to_owned).collect();
    let links: Vec<_> = devices.iter().map(Device::link).collect();
    let addresses: Vec<_> = devices.iter().filter_map(Device::addresses).collect();
    let told = |(name, link): (String, Link)| {
        let addresses: Vec<_> = link.addresses.iter().map(ToString::to_string).collect();
        format!("{name} {} {}", link.mac.0[5], addresses.join(" "))
    };
    that_can_announce(&links, &addresses, &excluded).into_iter().map(told).collect()
}

#[test]
fn a_bond_its_vlans_and_a_bridge_announce_and_what_they_are_made_of_does_not() {
    let bond = || {
        let mut bond = Device::new(4, "bond0", 1, "192.0.2.1/24").kind(InfoKind::Bond);
        bond.flags |= LinkFlags::Controller;
        bond
    };
    // The members of a bond have its MAC; an address on one was forgotten there.
    let slaves = || {
        let stale = Device::new(2, "eth0", 1, "192.0.2.9/24");
        [stale.bonded(4), Device::new(3, "eth1", 1, "").bonded(4)]
    };
    let with_slaves = |more: Vec<Device>| slaves().into_iter().chain([bond()]).chain(more).collect::<Vec<_>>();
    for (what, devices, expected) in [
        ("two slaves and their bond", with_slaves(vec![]), &["bond0 1 192.0.2.1/24"][..]),
        (
            "a VLAN on it",
            with_slaves(vec![Device::new(5, "bond0.7", 1, "198.51.100.1/24").vlan(7, 4)]),
            &["bond0 1 192.0.2.1/24", "bond0.7 1 198.51.100.1/24"],
        ),
        (
            "a bridge on a VLAN of it, for virtual machines and pods",
            with_slaves(vec![
                Device::new(5, "bond0.8", 1, "").vlan(8, 4).port(6, InfoPortKind::Bridge),
                Device::new(6, "br8", 6, "203.0.113.1/24").kind(InfoKind::Bridge),
                Device::new(7, "veth1a2b", 7, "").kind(InfoKind::Veth).port(6, InfoPortKind::Bridge),
                Device::new(8, "vnet0", 8, "203.0.113.8/24").kind(InfoKind::Tun).port(6, InfoPortKind::Bridge),
            ]),
            &["bond0 1 192.0.2.1/24", "br8 6 203.0.113.1/24"],
        ),
        (
            "a bond that is itself in a bridge",
            vec![
                Device::new(2, "eth0", 1, "").bonded(3),
                Device::new(3, "bond0", 1, "192.0.2.9/24").port(4, InfoPortKind::Bridge),
                Device::new(4, "br0", 1, "192.0.2.1/24").kind(InfoKind::Bridge),
            ],
            &["br0 1 192.0.2.1/24"],
        ),
        (
            "a team, and a port of Open vSwitch",
            vec![
                Device::new(2, "eth0", 1, "192.0.2.8/24").port(4, InfoPortKind::Team),
                Device::new(3, "eth1", 2, "192.0.2.9/24").port(9, InfoPortKind::Other("openvswitch".to_owned())),
                Device::new(4, "team0", 1, "192.0.2.1/24"),
                Device::new(5, "br-ex", 2, "198.51.100.1/24").state(State::Unknown, LinkFlags::empty()),
            ],
            &["br-ex 2 198.51.100.1/24", "team0 1 192.0.2.1/24"],
        ),
        (
            "what is in a VRF answers for itself",
            vec![Device::new(2, "eth0", 1, "192.0.2.1/24").port(3, InfoPortKind::Vrf), {
                let mut vrf = Device::new(3, "red", 3, "203.0.113.9/32").kind(InfoKind::Vrf);
                vrf.flags |= LinkFlags::Noarp | LinkFlags::Controller;
                vrf
            }],
            &["eth0 1 192.0.2.1/24"],
        ),
        (
            "what left its bond",
            vec![Device::new(2, "eth0", 1, "192.0.2.1/24").with([LinkAttribute::Controller(0)])],
            &["eth0 1 192.0.2.1/24"],
        ),
        (
            "a macvlan beside its lower device",
            vec![
                Device::new(2, "eth0", 1, "192.0.2.1/24"),
                Device::new(3, "mac0", 9, "192.0.2.3/24").kind(InfoKind::MacVlan).with([LinkAttribute::Link(2)]),
            ],
            &["eth0 1 192.0.2.1/24", "mac0 9 192.0.2.3/24"],
        ),
    ] {
        assert_eq!(chosen(&devices), expected, "{what}");
    }
}

#[test]
fn only_what_can_send_announces() {
    let (carrier, running) = (LinkFlags::LowerUp | LinkFlags::Running, LinkFlags::Running);
    let eth = || Device::new(2, "eth0", 1, "192.0.2.1/24");
    let vlan = || Device::new(3, "eth0.7", 1, "198.51.100.1/24").vlan(7, 2);
    let down = LinkFlags::Up | carrier;
    for (what, devices, expected) in [
        ("a card", vec![eth()], &["eth0 1 192.0.2.1/24"][..]),
        // Veth, tun and most software devices before they report a carrier (Linux, networking/operstates).
        (
            "one whose state nobody tracks",
            vec![eth().state(State::Unknown, LinkFlags::empty())],
            &["eth0 1 192.0.2.1/24"],
        ),
        ("one that has just got its carrier", vec![eth().state(State::Down, running)], &["eth0 1 192.0.2.1/24"]),
        ("no carrier", vec![eth().state(State::Down, carrier)], &[]),
        ("set down", vec![eth().state(State::Down, down)], &[]),
        (
            "below a VLAN no carrier",
            vec![eth().state(State::Down, carrier), vlan().state(State::LowerLayerDown, carrier)],
            &[],
        ),
        (
            "below a VLAN set down",
            vec![eth().state(State::Down, down), vlan().state(State::LowerLayerDown, carrier)],
            &[],
        ),
        ("the VLAN set down", vec![eth(), vlan().state(State::Down, down)], &["eth0 1 192.0.2.1/24"]),
        ("waits for IEEE 802.1X", vec![eth().state(State::Dormant, running)], &[]),
        (
            "and so does its VLAN",
            vec![eth().state(State::Dormant, running), vlan().state(State::Dormant, running)],
            &[],
        ),
        ("is being tested", vec![eth().state(State::Testing, running)], &[]),
        (
            "a bond whose members have no carrier",
            vec![Device::new(4, "bond0", 1, "192.0.2.1/24").state(State::Down, carrier)],
            &[],
        ),
        (
            "a VLAN on a device without an address",
            vec![Device::new(2, "eth0", 1, ""), vlan()],
            &["eth0.7 1 198.51.100.1/24"],
        ),
    ] {
        assert_eq!(chosen(&devices), expected, "{what}");
    }
}
