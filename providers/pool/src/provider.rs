//! The pools as a [`Provider`]: what offline planning and the conformance suite use.
//!
//! The controller itself asks nobody: it keeps a [`World`] up to date by watches, and plans one Service at a time from it by
//! the same [`serve`] and [`releases`].

use std::fmt::Debug;

use berth_api::{Announcement, IPAddressPool, L2Advertisement, RouteAdvertisement, SpeakerNode};
use berth_provider::{Class, Failure, Intent, Owned, Plan, PlannedStep, Provider, ServiceId, Shard, Wanted, Whom};
use futures::try_join;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Namespace, Node};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::driver::{self, WriteError};
use crate::plan::{Step, releases, serve};
use crate::view::{
    self, AdvertisementView, AnnouncementView, NodeView, PoolView, Report, ServiceView, SliceView, key_of,
};
use crate::world::{Change, World};

/// All pools are planned together: an address is given once, whatever pool it is from.
const SHARD: &str = "pools";

/// The provider `pool`.
#[derive(Clone)]
pub struct Pool {
    client: Client,
}

impl Pool {
    /// A provider that writes with this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn list<K>(&self, kind: &'static str) -> Result<Vec<K>, WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        Ok(driver::call("list", kind, "*", api.list(&ListParams::default())).await?.items)
    }
}

impl Provider for Pool {
    type Observed = World;
    type Step = Step;

    fn name(&self) -> &'static str {
        "pool"
    }

    fn needs_finalizer(&self) -> bool {
        // What is made is in the cluster: an Announcement whose Service is gone is found by looking.
        false
    }

    fn validate(&self, intent: &Intent) -> Result<(), Failure> {
        match &intent.request {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::new(Class::Config, error.to_string()).reason(error.reason())),
        }
    }

    fn shard(&self, _intent: &Intent) -> Shard {
        Shard(SHARD.to_owned())
    }

    async fn observe(&self, _shard: &Shard, _wanted: &Wanted) -> Result<World, Failure> {
        let (pools, advertisements, routes, nodes, speakers, slices, announcements, namespaces, ranges) = try_join!(
            self.list::<IPAddressPool>("IPAddressPool"),
            self.list::<L2Advertisement>("L2Advertisement"),
            self.list::<RouteAdvertisement>("RouteAdvertisement"),
            self.list::<Node>("Node"),
            self.list::<SpeakerNode>("SpeakerNode"),
            self.list::<EndpointSlice>("EndpointSlice"),
            self.list::<Announcement>("Announcement"),
            self.list::<Namespace>("Namespace"),
            self.list::<ServiceCIDR>("ServiceCIDR"),
        )?;
        let mut world = World::default();
        let named = |meta: &kube::core::ObjectMeta| meta.name.clone().unwrap_or_default();
        let changes = pools
            .iter()
            .map(|pool| Change::Pool(pool.name_any(), Some(PoolView::of(pool))))
            .chain(
                advertisements.iter().map(|ad| Change::Advertisement(ad.name_any(), Some(AdvertisementView::of(ad)))),
            )
            .chain(
                routes
                    .iter()
                    .map(|ad| Change::RouteAdvertisement(ad.name_any(), Some(AdvertisementView::of_routes(ad)))),
            )
            .chain(nodes.iter().map(|node| Change::Node(node.name_any(), Some(NodeView::of(node)))))
            .chain(speakers.iter().map(|s| Change::SpeakerNode(s.name_any(), Some(Report::of(s)))))
            .chain(slices.iter().map(|slice| {
                let id = (slice.namespace().unwrap_or_default(), named(slice.meta()));
                Change::Slice(id, SliceView::of(slice))
            }))
            .chain(
                namespaces
                    .iter()
                    .map(|n| Change::Namespace(n.name_any(), Some(n.metadata.labels.clone().unwrap_or_default()))),
            )
            .chain(ranges.iter().map(|r| Change::ServiceCidr(r.name_any(), Some(view::service_ranges(r)))))
            .chain(announcements.iter().map(|a| Change::Announcement(a.name_any(), Some(AnnouncementView::of(a)))));
        changes.for_each(|change| world.learn(change));
        Ok(world)
    }

    fn plan(&self, wanted: &Wanted, observed: &World) -> Plan<Step> {
        let mut world = observed.clone();
        for (key, intent) in &wanted.present {
            world.learn(Change::Service(key.clone(), Some(ServiceView::of_intent(intent))));
        }
        let mut plan = Plan::empty();
        // Those with an address come first, then the older ones.
        while let Some(key) = world.next(|_| false) {
            let Some(intent) = wanted.present.get(&key) else { continue };
            let served = serve(&world, &key, &ServiceView::of_intent(intent));
            for (address, pool) in &served.claims {
                world.hold(*address, &key, pool);
            }
            for (address, layer2) in served.before.iter().map(Step::names) {
                world.foresee(address, layer2);
            }
            // What is still published is not given back; the next plan does it.
            let after = served.after.into_iter().filter(|_| says_same(&served.outcome.ingress, &intent.published));
            plan.steps.extend(served.before.into_iter().chain(after).map(|step| PlannedStep::of(&intent.id, step)));
            plan.outcomes.insert(key, served.outcome);
        }
        for id in wanted.leaving.keys().filter(|id| !wanted.present.contains_key(&id.key)) {
            let steps = releases(&world, &id.key, &[]);
            plan.steps.extend(steps.into_iter().map(|step| PlannedStep::of(id, step)));
        }
        plan
    }

    async fn apply(&self, _shard: &Shard, step: &Step, observed: &mut World) -> Result<(), Failure> {
        observed.learn(driver::write(&self.client, step).await?);
        Ok(())
    }

    async fn list_owned(&self) -> Result<Vec<Owned>, Failure> {
        let announcements = self.list::<Announcement>("Announcement").await?;
        let owned = announcements.iter().map(|announcement| {
            let holder = announcement.spec.services.first();
            let service = holder.map(|s| ServiceId { key: key_of(s), uid: s.uid.clone() });
            Owned {
                id: announcement.name_any(),
                kind: "Announcement".to_owned(),
                shard: Shard(SHARD.to_owned()),
                service,
                whom: Whom::Service,
            }
        });
        Ok(owned.collect())
    }
}

fn says_same(ingress: &[LoadBalancerIngress], published: &[LoadBalancerIngress]) -> bool {
    ingress.iter().map(|i| &i.ip).eq(published.iter().map(|i| &i.ip))
}
