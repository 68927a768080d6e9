//! Havoc: Services, pools and controllers change by chance, hundreds of times, while controllers are killed, paused and cut off from the
//! API server. At every moment no address has two holders that may not share it and none is taken from its Service, and in the end none
//! is lost.
//!
//! - `BERTH_SEED=n cargo xtask test lab -- havoc_of_a_chosen_seed` makes the operations of a seed again. How they meet the controllers is
//!   up to the machine, so a fault that is rare takes several tries.
//! - `BERTH_OPERATIONS=n` sets how many.

#![expect(clippy::print_stdout, reason = "the history is what a failure is understood by")]

mod controllers;
mod dice;
mod ledger;
mod operation;
mod picture;
mod settled;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use berth_api::names::announcement_name;
use berth_api::service::ServiceKey;
use berth_api::{Announcement, IPAddressPool, IpFamily, annotations};
use berth_lab::{Lab, LabConfig, lab_test};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use controllers::Controllers;
use ledger::{Change, Entry, Ledger, Wrong, replay};
use operation::{Birth, Generator, Kind, Layout, NAMESPACES, Operation, POOLS, Who, Wish};
use settled::Pool;

/// Operations of one run: with their faults and the Leases that run out, less than a minute.
const OPERATIONS: usize = 300;
/// Longest until all is done after the last fault: a Lease that runs out, a first restart, retries.
const SETTLES: Duration = Duration::from_secs(30);
/// What an allocation may take after the leader was killed.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(5);
/// Changes that are told about what a failure names.
const CHANGES_TOLD: usize = 30;
/// A pool that no operation touches, so that it always has an address.
const SPARE: &str = "spare";

const ADVERTISEMENT: &str = "
apiVersion: berth.dev/v1alpha1
kind: L2Advertisement
metadata: {name: default}
";

const NODES: LabConfig = LabConfig { nodes: 2, kube_proxy: true };

lab_test! {
    NODES;
    async fn havoc_of_seed_1(lab: Lab) -> Result<()> { run(lab, 1).await }
}

lab_test! {
    NODES;
    #[ignore = "kept seed; a minute"]
    async fn havoc_of_seed_2(lab: Lab) -> Result<()> { run(lab, 2).await }
}

lab_test! {
    NODES;
    #[ignore = "kept seed; a minute"]
    async fn havoc_of_seed_3(lab: Lab) -> Result<()> { run(lab, 3).await }
}

lab_test! {
    NODES;
    #[ignore = "runs the seed in BERTH_SEED"]
    async fn havoc_of_a_chosen_seed(lab: Lab) -> Result<()> {
        run(lab, number("BERTH_SEED")?.context("set BERTH_SEED to the seed")?).await
    }
}

fn number(variable: &str) -> Result<Option<u64>> {
    let text = std::env::var(variable).ok();
    text.map(|text| text.parse().with_context(|| format!("{variable} is not a number: {text}"))).transpose()
}

/// One run.
struct Run {
    lab: Lab,
    began: Instant,
    ledger: Ledger,
    controllers: Controllers,
    /// What was done, and when.
    done: Vec<(Instant, String)>,
}

async fn run(lab: Lab, seed: u64) -> Result<()> {
    let operations = number("BERTH_OPERATIONS")?.map_or(Ok(OPERATIONS), usize::try_from)?;
    lab.install_berth().await?;
    lab.apply_yaml(ADVERTISEMENT).await?;
    let spare = json!({"metadata": {"name": SPARE}, "spec": {"addresses": ["192.0.2.250"], "autoAssign": false}});
    pools(&lab).create(&PostParams::default(), &serde_json::from_value(spare)?).await?;
    for pool in POOLS {
        let object = json!({"metadata": {"name": pool.name}, "spec": pool_spec(pool, pool.most, pool.most)});
        pools(&lab).create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    }
    let namespaces: Api<Namespace> = Api::all(lab.admin());
    for name in NAMESPACES.iter().filter(|name| **name != "default") {
        let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        namespaces.create(&PostParams::default(), &object).await?;
    }
    let ledger = Ledger::start(lab.admin()).await?;
    let controllers = Controllers::new(lab.clone());
    let mut run = Run { lab, began: Instant::now(), ledger, controllers, done: Vec::new() };
    match run.all(seed, operations).await {
        Ok(()) => Ok(()),
        Err(error) => {
            // What was looked at now and then is known to the very write, where the history says it too.
            let (what, until) = match replay(&run.ledger.history()) {
                Err(Wrong { what, version }) => (format!("at revision {version}: {what}"), version),
                Ok(_) => (format!("{error:#}"), u64::MAX),
            };
            run.tell_about(&what, until);
            bail!(
                "seed {seed}: {what}\nBERTH_SEED={seed} BERTH_OPERATIONS={operations} makes the same operations again; all of them are above"
            )
        }
    }
}

impl Run {
    async fn all(&mut self, seed: u64, operations: usize) -> Result<()> {
        let mut generator = Generator::new(seed);
        for number in 1..=operations {
            let operation = generator.next();
            let outcome = self.perform(&operation).await.with_context(|| format!("operation {number}: {operation}"))?;
            self.note(format!("{number}: {operation}{outcome}"));
            self.check().await.with_context(|| format!("after operation {number}: {operation}"))?;
        }
        self.controllers.heal().await?;
        self.note("all faults are over".to_owned());
        self.settles().await?;
        self.note("settled".to_owned());
        let took = self.failover().await?;
        self.note(format!("killed leader -> new Service has an address: {took:?}"));
        self.settles().await?;
        let writes = replay(&self.ledger.history()).map_err(|wrong| anyhow!(wrong.what))?;
        let elapsed = self.began.elapsed();
        println!("seed {seed}: {operations} operations, {writes} states in {elapsed:?}, each as it must be");
        ensure!(took < TAKEOVER_LIMIT, "from the leader's death to a new Service's address it took {took:?}");
        Ok(())
    }

    fn note(&mut self, what: String) {
        println!("{:8.3} s  {what}", self.began.elapsed().as_secs_f64());
        self.done.push((Instant::now(), what));
    }

    /// What must be so at every moment, looked at now.
    async fn check(&self) -> Result<()> {
        let (steady, all) = self.ledger.look().await?;
        steady.check().and_then(|()| all.check_holders()).map_err(|what| anyhow!(what))
    }

    /// Waits until all work is done and nothing is lost.
    async fn settles(&self) -> Result<()> {
        self.lab
            .eventually("every Service has what it can have, and nothing is left over", SETTLES, async || {
                let picture = self.ledger.caught_up().await?;
                let listed = pools(&self.lab).list(&ListParams::default()).await?;
                let pools: Result<BTreeMap<String, Pool>, String> =
                    listed.iter().filter(|pool| pool.name_any() != SPARE).map(Pool::of).collect();
                let pools = pools.map_err(|what| anyhow!(what))?;
                settled::check(&picture, &pools).map_err(|what| anyhow!(what))?;
                Ok(Some(()))
            })
            .await
    }

    /// From the death of the leader until a Service that was created after it has its address; nobody of its name comes back.
    async fn failover(&self) -> Result<Duration> {
        self.controllers.kill_for_good(Who::Leader).await?;
        let killed = Instant::now();
        let key = ServiceKey { namespace: "default".to_owned(), name: "after".to_owned() };
        let wish = Wish { pool: Some(SPARE), ..Wish::default() };
        let kind = Kind::LoadBalancer(None);
        self.create(&Birth {
            key: key.clone(),
            kind,
            first: IpFamily::V4,
            policy: "SingleStack",
            wish,
            sharing: None,
            port: 80,
        })
        .await?;
        let has_one = |entry: &Entry| matches!(&entry.change, Change::Service(k, Some(s)) if *k == key && !s.addresses.is_empty());
        let at = self
            .lab
            .eventually("the new Service has an address", SETTLES, async || {
                Ok(self.ledger.history().iter().find(|entry| has_one(entry)).map(|entry| entry.at))
            })
            .await?;
        self.services(&key).delete(&key.name, &DeleteParams::default()).await?;
        Ok(at.duration_since(killed))
    }

    /// Does it, and says what is to be told of it.
    async fn perform(&mut self, operation: &Operation) -> Result<String> {
        let hurt = match operation {
            Operation::Create(birth) => return self.create(birth).await.map(|()| String::new()),
            Operation::Delete(key) => {
                self.services(key).delete(&key.name, &DeleteParams::default()).await?;
                return Ok(String::new());
            }
            Operation::Become(key, kind) => return self.become_other(key, *kind).await.map(|()| String::new()),
            Operation::Ask(key, wish) => {
                let wish = json!({"metadata": {"annotations": wish_annotations(*wish)}});
                return self.edit(key, wish).await.map(|()| String::new());
            }
            Operation::Families(key, policy) => {
                return self.edit(key, json!({"spec": {"ipFamilyPolicy": policy}})).await.map(|()| String::new());
            }
            Operation::Resize(pool, v4, v6) => {
                return self.edit_pool(*pool, pool_spec(*pool, *v4, *v6)).await.map(|()| String::new());
            }
            Operation::AutoAssign(pool, on) => {
                return self.edit_pool(*pool, json!({"autoAssign": on})).await.map(|()| String::new());
            }
            // Time is what is asked for here.
            Operation::Wait(time) => {
                tokio::time::sleep(*time).await;
                return Ok(String::new());
            }
            Operation::Kill(who) => self.controllers.kill(*who).await?,
            Operation::Terminate(who) => self.controllers.terminate(*who).await?,
            Operation::Pause(who) => self.controllers.pause(*who).await?,
            Operation::Resume => self.controllers.resume(),
            Operation::Silence(who) => self.controllers.silence(*who).await?,
            Operation::SilenceAtWork(births) => {
                // It goes on hearing of them, and what it claims is on its way until it may speak.
                let hurt = self.controllers.silence(Who::Leader).await?;
                for birth in births {
                    self.create(birth).await?;
                }
                hurt
            }
            Operation::LateClaims(births) => return self.late_claims(births).await,
            Operation::LetSpeak => self.controllers.let_speak()?,
        };
        Ok(format!(" ({})", hurt.as_deref().unwrap_or("there is none")))
    }

    async fn create(&self, birth: &Birth) -> Result<()> {
        let Birth { key, kind, first, policy, wish, sharing, port } = birth;
        let mut annotations = wish_annotations(*wish);
        annotations[annotations::ALLOW_SHARED_IP] = json!(sharing);
        let mut spec = kind_spec(*kind);
        spec["selector"] = json!({"app": key.name});
        spec["ports"] = json!([{"port": port, "targetPort": 8080}]);
        spec["ipFamilyPolicy"] = json!(policy);
        spec["ipFamilies"] = match *policy {
            "SingleStack" => json!([first.as_str()]),
            _ => json!([first.as_str(), first.other().as_str()]),
        };
        if let Value::Object(all) = &mut annotations {
            all.retain(|_, value| !value.is_null());
        }
        let service = json!({"metadata": {"name": key.name, "annotations": annotations}, "spec": spec});
        self.services(key).create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        Ok(())
    }

    /// Creates Services, and at the same time Announcements of the addresses that they would be given, for a Service that is gone.
    async fn late_claims(&self, births: &[Birth]) -> Result<String> {
        let (picture, _) = self.ledger.look().await?;
        let free = |pool: &Layout| {
            let lowest = |family| {
                let all = (0..pool.most).map(|place| pool.address(family, place));
                all.filter(|address| !picture.claims.contains_key(address)).take(2).collect::<Vec<_>>()
            };
            IpFamily::ALL.map(lowest).concat().into_iter().map(|address| (address, pool.name)).collect::<Vec<_>>()
        };
        let addresses: Vec<_> = POOLS.iter().flat_map(free).collect();
        let api: Api<Announcement> = Api::all(self.lab.admin());
        let claims = addresses.iter().map(async |(address, pool)| {
            let gone = json!({"namespace": "default", "name": "gone", "uid": "7e57ab1e-0000-4000-8000-000000000000"});
            let spec = serde_json::from_value(json!({"address": address, "pool": pool, "services": [gone]}))?;
            match api.create(&PostParams::default(), &Announcement::new(&announcement_name(*address), spec)).await {
                Ok(_) => Ok(1),
                // The controller was quicker.
                Err(kube::Error::Api(refused)) if refused.code == 409 => Ok(0),
                Err(error) => Err(anyhow::Error::from(error)),
            }
        });
        let (claims, ()) = tokio::try_join!(try_join_all(claims), async {
            try_join_all(births.iter().map(async |birth| self.create(birth).await)).await.map(drop)
        })?;
        Ok(format!(" ({} of {} claims are in time)", claims.iter().sum::<i32>(), claims.len()))
    }

    async fn become_other(&self, key: &ServiceKey, kind: Kind) -> Result<()> {
        self.edit(key, json!({"spec": kind_spec(Kind::ClusterIp)})).await?;
        if kind != Kind::ClusterIp {
            self.edit(key, json!({"spec": kind_spec(kind)})).await?;
        }
        Ok(())
    }

    async fn edit(&self, key: &ServiceKey, change: Value) -> Result<()> {
        self.services(key).patch(&key.name, &PatchParams::default(), &Patch::Merge(change)).await?;
        Ok(())
    }

    async fn edit_pool(&self, pool: Layout, spec: Value) -> Result<()> {
        pools(&self.lab).patch(pool.name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await?;
        Ok(())
    }

    fn services(&self, key: &ServiceKey) -> Api<Service> {
        Api::namespaced(self.lab.admin(), &key.namespace)
    }

    /// Prints what was written, up to a revision, about the Services and addresses that a failure names, between what was done to
    /// them, to pools and to controllers.
    fn tell_about(&self, what: &str, until: u64) {
        let words: Vec<_> = what
            .split(|c: char| c.is_whitespace() || ",;\"[]()".contains(c))
            .map(|word| word.trim_end_matches([':', '.']))
            .collect();
        let about = |entry: &Entry| match &entry.change {
            Change::Service(key, _) => words.contains(&key.to_string().as_str()),
            Change::Claim(address, _) => words.contains(&address.to_string().as_str()),
        };
        let history = self.ledger.history();
        let written = history.iter().filter(|entry| entry.version <= until);
        let last = written.clone().map(|entry| entry.at).max().unwrap_or(self.began);
        let line = |entry: &Entry| (entry.at, format!("   revision {}: {}", entry.version, told(&entry.change)));
        let mut lines: Vec<_> = written.filter(|entry| about(entry)).map(line).collect();
        // What was done to others than the Services that it names says nothing about it.
        let concerns = |what: &String| {
            let mut names = what.split([' ', ':']).filter(|word| word.contains('/'));
            names.clone().next().is_none() || names.any(|name| words.contains(&name))
        };
        lines.extend(self.done.iter().filter(|(at, what)| *at <= last && concerns(what)).cloned());
        lines.sort_by_key(|(at, _)| *at);
        println!(
            "\nwhat was written about what the failure names, and what was done to it, to pools and to controllers:"
        );
        for (at, line) in &lines[lines.len().saturating_sub(CHANGES_TOLD)..] {
            println!("{:8.3} s  {line}", at.duration_since(self.began).as_secs_f64());
        }
    }
}

fn told(change: &Change) -> String {
    match change {
        Change::Service(key, None) => format!("{key} is gone"),
        Change::Service(key, Some(seen)) => {
            let ours = if seen.ours { "" } else { ", not ours" };
            format!("{key}{ours} has {:?}, {:?}", seen.addresses, seen.allocated)
        }
        Change::Claim(address, None) => format!("{address} is nobody's"),
        Change::Claim(address, Some(claim)) => {
            let names: Vec<_> =
                claim.services.iter().map(|s| format!("{}/{} ({})", s.namespace, s.name, s.uid)).collect();
            format!("{address} is of {}", names.join(", "))
        }
    }
}

fn pools(lab: &Lab) -> Api<IPAddressPool> {
    Api::all(lab.admin())
}

fn pool_spec(pool: Layout, v4: u8, v6: u8) -> Value {
    json!({"addresses": [pool.range(IpFamily::V4, v4), pool.range(IpFamily::V6, v6)]})
}

fn kind_spec(kind: Kind) -> Value {
    match kind {
        Kind::ClusterIp => json!({"type": "ClusterIP", "loadBalancerClass": null}),
        Kind::LoadBalancer(class) => json!({"type": "LoadBalancer", "loadBalancerClass": class}),
    }
}

fn wish_annotations(wish: Wish) -> Value {
    let mut all = serde_json::Map::new();
    all.insert(annotations::LOAD_BALANCER_IPS.to_owned(), json!(wish.address));
    all.insert(annotations::ADDRESS_POOL.to_owned(), json!(wish.pool));
    all.into()
}
