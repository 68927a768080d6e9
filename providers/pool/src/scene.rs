//! A world for tests: nodes in one subnet, a pool in it, and Services that hold addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use berth_api::crd::{Interface, Layer2Assignment, Member, ServiceRef};
use berth_api::names::announcement_name;
use berth_api::service::ServiceKey;
use berth_api::{Announcement, IPAddressPool, IpFamily, L2Advertisement, MacAddr};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::view::{
    AdvertisementView, AnnouncementView, Asks, NodeView, OnNode, PoolView, Report, ServiceView, SliceView,
};
use crate::world::{Change, World};

/// The world, as watches would have told of it.
pub struct Scene {
    pub world: World,
    version: u64,
}

pub fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "shop".to_owned(), name: name.to_owned() }
}

/// An address of the pool.
pub fn vip(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

impl Scene {
    /// So many nodes, `node-1` and so on.
    pub fn new(nodes: u8) -> Self {
        let mut scene = Self { world: World::default(), version: 0 };
        for n in 1..=nodes {
            scene.node(&format!("node-{n}"), |view| view.ready = true);
            let interfaces = vec![interface(n)];
            let report = Report { interfaces, ..Report::default() };
            scene.world.learn(Change::SpeakerNode(format!("node-{n}"), Some(report)));
        }
        let pool: IPAddressPool = object(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "IPAddressPool", "metadata": {"name": "all"},
            "spec": {"addresses": ["10.0.0.0-10.200.255.255"]},
        }));
        scene.world.learn(Change::Pool("all".to_owned(), Some(PoolView::of(&pool))));
        let advertisement: L2Advertisement = object(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "L2Advertisement", "metadata": {"name": "all"}, "spec": {},
        }));
        scene.world.learn(Change::Advertisement("all".to_owned(), Some(AdvertisementView::of(&advertisement))));
        scene
    }

    pub fn node(&mut self, name: &str, change: impl FnOnce(&mut NodeView)) {
        let mut view = self.world.node_view(name).cloned().unwrap_or_default();
        change(&mut view);
        self.world.learn(Change::Node(name.to_owned(), Some(view)));
    }

    /// A Service that holds an address, and the nodes that have a part: the one that answers first.
    pub fn held(&mut self, name: &str, address: IpAddr, spec: Value, parts: &[&str]) {
        let mut spec = spec;
        spec["type"] = json!("LoadBalancer");
        self.version += 1;
        let service = object(json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": self.version.to_string()},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": [{"ip": address.to_string()}]}},
        }));
        self.world.learn(Change::Service(key(name), ServiceView::of(&service, Asks::Us)));
        let member = |node: &&str| {
            let number = node.trim_start_matches("node-").parse().unwrap();
            let Interface { name, mac, addresses } = interface(number);
            Member { node: (*node).to_owned(), interface: name, address: addresses[0].addr(), mac }
        };
        let layer2 = Layer2Assignment {
            owner: parts.first().map(|node| (*node).to_owned()),
            standbys: parts.iter().skip(1).map(|node| (*node).to_owned()).collect(),
            epoch: 1,
            members: parts.iter().map(member).collect(),
        };
        let holder =
            ServiceRef { namespace: "shop".into(), name: name.into(), uid: name.into(), ..ServiceRef::default() };
        let spec = berth_api::crd::AnnouncementSpec {
            address,
            pool: "all".to_owned(),
            services: vec![holder],
            layer2: Some(layer2.clone()),
            routes: Vec::new(),
        };
        let mut announcement = Announcement::new(&announcement_name(address), spec);
        announcement.metadata.resource_version = Some(self.version.to_string());
        announcement.metadata.uid = Some(format!("uid-{name}"));
        let mut view = AnnouncementView::of(&announcement);
        view.claimed = layer2.owner.map(|owner| (owner, 1));
        self.world.learn(Change::Announcement(announcement.name_any(), Some(view)));
    }

    /// Somebody annotates the Announcement of an address.
    pub fn annotate(&mut self, address: IpAddr, annotation: &str, value: &str) {
        self.version += 1;
        let mut view = self.world.announcement(address).unwrap().clone();
        let annotations = BTreeMap::from([(annotation.to_owned(), value.to_owned())]);
        view.others = Some(Box::new(crate::view::Others { annotations, ..crate::view::Others::default() }));
        view.resource_version = self.version.to_string();
        self.world.learn(Change::Announcement(view.name.clone(), Some(view)));
    }

    pub fn endpoints(&mut self, service: &str, nodes: &[&str]) {
        let serving = nodes.iter().map(|node| OnNode { node: Arc::from(*node), ready: 1 }).collect();
        let slice = SliceView { service: key(service), family: IpFamily::V4, serving, elsewhere: false };
        self.world.learn(Change::Slice(("shop".to_owned(), service.to_owned()), Some(slice)));
    }
}

fn interface(n: u8) -> Interface {
    let addresses = vec![format!("10.255.0.{n}/8").parse().unwrap()];
    Interface { name: "eth0".to_owned(), mac: MacAddr([2, 0, 0, 0, 0, n]), addresses }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}
