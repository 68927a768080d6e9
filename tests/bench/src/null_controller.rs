//! The floor: a controller that decides nothing.
//!
//! One watch on Services; for each that has no address, the next one of the pool is counted off, its Announcement created and the
//! Service's status patched, with as many writes at once as Berth makes. That is the work which nobody can spare who claims an address before it is
//! published. There is no pool, no placement, no condition, no event, no election; an error ends it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use berth_api::Announcement;
use berth_api::crd::{AnnouncementSpec, ServiceRef};
use berth_api::names::{announcement_name, part_label};
use clap::Args;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::load::ingress;
use crate::scene::{self, POOL};

/// How it works.
#[derive(Args, Debug)]
pub struct NullController {
    /// Services that are written at once; Berth's own number by default
    #[arg(long, default_value_t = 32)]
    writes: usize,
}

/// Runs until it is killed.
pub async fn run(options: &NullController) -> Result<()> {
    let client = Client::try_default().await?;
    let mut events = Box::pin(watcher(Api::<Service>::all(client.clone()), Config::default()));
    let (mut seen, mut listed, mut next) = (BTreeSet::new(), Vec::new(), 0);
    let turns = Arc::new(Semaphore::new(options.writes));
    let mut writes = JoinSet::new();
    loop {
        let event = tokio::select! {
            event = events.try_next() => event?.context("the watch ended")?,
            Some(written) = writes.join_next() => {
                written.context("a write ended abnormally")??;
                continue;
            }
        };
        let services = match event {
            Event::Init | Event::Delete(_) => continue,
            Event::InitApply(service) => {
                listed.push(service);
                continue;
            }
            Event::InitDone => std::mem::take(&mut listed),
            Event::Apply(service) => vec![service],
        };
        // What was given before a restart is given to nobody else.
        let used = services.iter().flat_map(ingress).filter_map(scene::place).max();
        next = next.max(used.map_or(0, |used| used + 1));
        for service in services {
            let uid = service.uid().unwrap_or_default();
            let asks = service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
            if !asks || ingress(&service).next().is_some() || !seen.insert(uid) {
                continue;
            }
            let (client, turns, address) = (client.clone(), turns.clone(), scene::address(next));
            next += 1;
            writes.spawn(async move {
                let _turn = turns.acquire_owned().await?;
                serve(client, &service, address).await
            });
        }
    }
}

async fn serve(client: Client, service: &Service, address: IpAddr) -> Result<()> {
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let uid = service.uid().unwrap_or_default();
    let holder = ServiceRef { namespace: namespace.clone(), name: name.clone(), uid, ..ServiceRef::default() };
    let layer2 = scene::assignment();
    let parts = layer2.members.iter().map(|member| (part_label(&member.node), String::new())).collect();
    let spec = AnnouncementSpec {
        address,
        pool: POOL.to_owned(),
        services: vec![holder],
        layer2: Some(layer2),
        routes: Vec::new(),
    };
    let mut announcement = Announcement::new(&announcement_name(address), spec);
    announcement.metadata.labels = Some(parts);
    let announcements: Api<Announcement> = Api::all(client.clone());
    let created = announcements.create(&PostParams::default(), &announcement).await;
    created.with_context(|| format!("creating the Announcement of {address}"))?;

    let services: Api<Service> = Api::namespaced(client, &namespace);
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address, "ipMode": "VIP" }] } } });
    let patched = services.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await;
    patched.with_context(|| format!("patching the status of {namespace}/{name}"))?;
    Ok(())
}
