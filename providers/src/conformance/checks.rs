//! The checks.

use std::collections::BTreeMap;

use super::drive::Cluster;
use super::fault::next;
use super::{Fault, World, said};
use crate::{Class, Intent, Provider, ServiceId};

/// Histories that are made up by chance for one run; each is a few dozen calls.
const SEEDS: u64 = 40;
/// What happens in such a history.
const EVENTS: u64 = 16;
/// Failing calls of 1,000: about every fourth, so that hardly a plan comes through whole.
const FAILING_OF_1000: u64 = 250;
/// Writes after which a provider is killed at the latest: more than the plans of a few Services have. Each costs two worlds.
const KILLS: u64 = 60;

type Checked = Result<(), String>;

async fn served<W: World>(world: &W) -> Result<Cluster, String> {
    let mut cluster = Cluster::of(world.intents());
    cluster.converge(world, &world.provider()).await?;
    Ok(cluster)
}

pub(super) async fn no_change_no_write<W: World>(world: &impl AsyncFn() -> W) -> Checked {
    let world = world().await;
    let mut cluster = served(&world).await?;
    let before = world.look().await;
    let provider = world.provider();
    let round = cluster.round::<W>(&provider).await;
    if round.steps > 0 || round.published {
        return Err(format!("a second process found something to do where nothing had changed: {round:?}"));
    }
    let after = world.look().await;
    if before.writes != after.writes {
        return Err(format!("{} writes where nothing had changed", after.writes - before.writes));
    }
    Ok(())
}

pub(super) async fn converges_under_faults<W: World>(world: &impl AsyncFn() -> W) -> Checked {
    for seed in 0..SEEDS {
        let disturbed = world().await;
        let served = history(&disturbed, seed).await.map_err(|detail| format!("seed {seed}: {detail}"))?;
        // Nothing is there twice: where only these were ever asked for, nothing failed and nobody left, there is as much.
        let fresh = world().await;
        Cluster::of(served).converge(&fresh, &fresh.provider()).await?;
        let (found, expected) = (disturbed.look().await.ours, fresh.look().await.ours);
        if found.len() != expected.len() {
            return Err(format!("seed {seed}: {found:#?} is there where {expected:#?} is what it takes"));
        }
    }
    Ok(())
}

/// Something of everything; returns what is asked for at its end.
async fn history<W: World>(world: &W, seed: u64) -> Result<Vec<Intent>, String> {
    let intents = world.intents();
    let mut chance = next(seed);
    let mut draw = |of: u64| {
        chance = next(chance);
        chance % of
    };
    let mut cluster = Cluster::default();
    let mut provider = world.provider();
    world.hurt(Fault::Random { seed: seed.wrapping_mul(31), of_1000: FAILING_OF_1000 });
    for _ in 0..EVENTS {
        let intent = &intents[draw(intents.len() as u64) as usize];
        match draw(6) {
            0..3 if !cluster.present.contains_key(&intent.id.key) => cluster.add(intent.clone()),
            3 => cluster.remove(&intent.id.key),
            4 => provider = world.provider(),
            _ => {}
        }
        cluster.round::<W>(&provider).await;
        if draw(3) == 0 {
            world.settle().await;
        }
    }
    world.hurt(Fault::None);
    cluster.converge(world, &provider).await?;
    let owned = provider.list_owned().await.map_err(|failure| format!("list_owned: {failure}"))?;
    let present = |key| cluster.present.contains_key(key);
    if let Some(left) = owned.iter().find(|o| o.service.as_ref().is_none_or(|s| !present(&s.key))) {
        return Err(format!("{} `{}` is left of a Service that is gone", left.kind, left.id));
    }
    let asked: Vec<_> = intents.into_iter().filter(|intent| cluster.present.contains_key(&intent.id.key)).collect();
    Ok(asked)
}

pub(super) async fn resumes_after_kill<W: World>(world: &impl AsyncFn() -> W) -> Checked {
    let reference = world().await;
    served(&reference).await?;
    let expected = reference.look().await;
    if expected.writes > KILLS {
        return Err(format!("{} writes serve these Services; only the first {KILLS} would be tried", expected.writes));
    }
    for writes in 0..=expected.writes {
        for fault in [Fault::DieAfter { writes }, Fault::LoseAnswerAfter { writes }] {
            // While it makes things.
            let making = world().await;
            let mut cluster = Cluster::of(making.intents());
            killed(&making, &mut cluster, fault).await;
            cluster.converge(&making, &making.provider()).await.map_err(|detail| format!("{fault:?}: {detail}"))?;
            let found = making.look().await.ours;
            if found != expected.ours {
                return Err(format!("{fault:?}: found {found:#?} where an undisturbed run makes {:#?}", expected.ours));
            }
            // While it takes them away.
            let keys: Vec<_> = cluster.present.keys().cloned().collect();
            for key in &keys {
                cluster.remove(key);
            }
            killed(&making, &mut cluster, fault).await;
            cluster.converge(&making, &making.provider()).await.map_err(|detail| format!("{fault:?}: {detail}"))?;
            let left = making.look().await.ours;
            if !left.is_empty() {
                return Err(format!("{fault:?}: killed while it took away, and left {left:#?}"));
            }
        }
    }
    Ok(())
}

/// A provider that goes on until it is dead.
async fn killed<W: World>(world: &W, cluster: &mut Cluster, fault: Fault) {
    world.hurt(fault);
    let provider = world.provider();
    // It is dead when a round brings nothing about any more; it does not matter if that takes one round more.
    for _ in 0..KILLS {
        let before = world.look().await.ours;
        cluster.round::<W>(&provider).await;
        world.settle().await;
        if world.look().await.ours == before {
            break;
        }
    }
    drop(provider);
    world.hurt(Fault::None);
}

pub(super) async fn touches_nothing_foreign<W: World>(world: &impl AsyncFn() -> W) -> Checked {
    let world = world().await;
    let before = world.look().await.foreign;
    if before.is_empty() {
        return Err("the world has nothing foreign in it, so nothing can be said".to_owned());
    }
    let unchanged = async |when: &str| {
        let after = world.look().await.foreign;
        if before == after { Ok(()) } else { Err(format!("{when}: {before:#?} became {after:#?}")) }
    };
    let provider = world.provider();
    let owned = provider.list_owned().await.map_err(|failure| format!("list_owned: {failure}"))?;
    if !owned.is_empty() {
        return Err(format!("list_owned names what is not ours: {owned:?}"));
    }
    let mut cluster = served(&world).await?;
    unchanged("after serving").await?;
    let keys: Vec<_> = cluster.present.keys().cloned().collect();
    for key in &keys {
        cluster.remove(key);
    }
    cluster.converge(&world, &provider).await?;
    unchanged("after deleting").await
}

pub(super) async fn deletion_is_the_plan_for_absent<W: World>(world: &impl AsyncFn() -> W) -> Checked {
    let world = world().await;
    let mut cluster = served(&world).await?;
    let all = world.look().await.ours;
    let mut keys: Vec<_> = cluster.present.keys().cloned().collect();
    let (Some(forgotten), false) = (keys.pop(), keys.is_empty()) else {
        return Err("the world has fewer than two Services".to_owned());
    };
    // One vanished without being seen leaving.
    let orphan = cluster.present.remove(&forgotten);
    let provider = world.provider();
    cluster.converge(&world, &provider).await?;
    if world.look().await.ours != all {
        return Err(format!("something of {forgotten} was taken away, which nobody saw leaving"));
    }
    let owned = provider.list_owned().await.map_err(|failure| format!("list_owned: {failure}"))?;
    if !owned.iter().any(|o| o.service.as_ref().is_some_and(|s| s.key == forgotten)) {
        return Err(format!("list_owned does not name what is left of {forgotten}: {owned:?}"));
    }
    cluster.leaving.extend(orphan);
    for key in &keys {
        cluster.remove(key);
    }
    cluster.converge(&world, &provider).await?;
    let left = world.look().await.ours;
    if !left.is_empty() {
        return Err(format!("left of Services that are gone: {left:#?}"));
    }
    Ok(())
}

pub(super) async fn plans_are_pure<W: World>(world: &impl AsyncFn() -> W) -> Checked {
    let world = world().await;
    let mut cluster = Cluster::of(world.intents());
    let provider = world.provider();
    // Asked at the beginning, on the way and at the end.
    for _ in 0..3 {
        for (shard, wanted) in cluster.wanted(&provider) {
            let observed =
                provider.observe(&shard, &wanted).await.map_err(|failure| format!("observing {shard}: {failure}"))?;
            let before = world.look().await.writes;
            let (first, again) = (provider.plan(&wanted, &observed), world.provider().plan(&wanted, &observed));
            if first != again {
                return Err(format!("the same question got two answers: {first:?} and {again:?}"));
            }
            serde_json::to_value(&first).map_err(|error| format!("a plan cannot be written down: {error}"))?;
            let services: Vec<_> = first.steps.iter().flat_map(|step| &step.services).collect();
            let known = |id: &ServiceId| {
                wanted.present.values().any(|intent| intent.id == *id) || wanted.leaving.contains_key(id)
            };
            if let Some(stranger) = services.into_iter().find(|id| !known(id)) {
                return Err(format!("a step is for {}, which the shard was not asked for", stranger.key));
            }
            if world.look().await.writes != before {
                return Err("planning wrote something".to_owned());
            }
        }
        cluster.round::<W>(&provider).await;
        world.settle().await;
    }
    Ok(())
}

pub(super) async fn steps_are_idempotent<W: World>(world: &impl AsyncFn() -> W) -> Checked {
    let world = world().await;
    let mut cluster = Cluster::of(world.intents());
    let provider = world.provider();
    for _ in 0..KILLS {
        let mut steps = 0;
        for (shard, wanted) in cluster.wanted(&provider) {
            let mut observed =
                provider.observe(&shard, &wanted).await.map_err(|failure| format!("observing {shard}: {failure}"))?;
            for planned in provider.plan(&wanted, &observed).steps {
                steps += 1;
                // A second process that knows what the first one knew does the same.
                let mut as_it_was = observed.clone();
                let step = &planned.step;
                if provider.apply(&shard, step, &mut observed).await.is_err() {
                    break;
                }
                let once = world.look().await.ours;
                let again = provider.apply(&shard, step, &mut as_it_was).await;
                let twice = world.look().await.ours;
                if once != twice {
                    return Err(format!("`{step}` carried out twice made {twice:#?} of {once:#?}"));
                }
                if let Err(failure) = again
                    && !matches!(failure.class, Class::Conflict | Class::NotReady)
                {
                    return Err(format!("`{step}` carried out twice fails with {}: {failure}", failure.class));
                }
            }
        }
        world.settle().await;
        if steps == 0 {
            return Ok(());
        }
        cluster.round::<W>(&provider).await;
        world.settle().await;
    }
    cluster.converge(&world, &provider).await
}

pub(super) async fn refuses_without_a_call<W: World>(world: &impl AsyncFn() -> W) -> Checked {
    let world = world().await;
    let refused = world.refused();
    if refused.is_empty() {
        return Err("the world names nothing that is refused, so nothing can be said".to_owned());
    }
    let provider = world.provider();
    let before = world.look().await;
    for intent in &refused {
        let Err(failure) = provider.validate(intent) else {
            return Err(format!("{} was to be refused, and is not", intent.id.key));
        };
        if !failure.class.is_for_a_person() {
            return Err(format!("{} is refused as {}, which no person would hear of", intent.id.key, failure.class));
        }
        if failure.message.is_empty() {
            return Err(format!("{} is refused without a word", intent.id.key));
        }
    }
    if world.look().await != before {
        return Err("validating called somebody".to_owned());
    }
    for intent in world.intents() {
        provider.validate(&intent).map_err(|failure| format!("{} is refused: {failure}", intent.id.key))?;
    }
    // Beside them everybody else is served, and nothing is made for those that are refused.
    let mut cluster = served(&world).await?;
    let alone = world.look().await.ours;
    cluster.present.extend(refused.iter().map(|intent| (intent.id.key.clone(), intent.clone())));
    for _ in 0..3 {
        cluster.round::<W>(&provider).await;
        world.settle().await;
    }
    let beside = world.look().await.ours;
    if alone != beside {
        return Err(format!("with refused Services beside them {alone:#?} became {beside:#?}"));
    }
    Ok(())
}

pub(super) async fn keeps_what_is_published<W: World>(world: &impl AsyncFn() -> W) -> Checked {
    for seed in 0..SEEDS / 4 {
        let world = world().await;
        let intents = world.intents();
        let Some((first, others)) = intents.split_first() else { return Err("the world has no Service".to_owned()) };
        let mut cluster = Cluster::of([first.clone()]);
        cluster.converge(&world, &world.provider()).await?;
        let published: BTreeMap<_, _> = kept(&cluster, first);
        world.hurt(Fault::Random { seed, of_1000: FAILING_OF_1000 });
        for intent in others.iter().chain(others) {
            if cluster.present.contains_key(&intent.id.key) {
                cluster.remove(&intent.id.key);
            } else {
                cluster.add(intent.clone());
            }
            for _ in 0..3 {
                cluster.round::<W>(&world.provider()).await;
                if kept(&cluster, first) != published {
                    let now = cluster.published(&first.id.key).map(said).unwrap_or_default();
                    return Err(format!("seed {seed}: {} had {published:?} and has {now}", first.id.key));
                }
            }
        }
    }
    Ok(())
}

fn kept(cluster: &Cluster, intent: &Intent) -> BTreeMap<String, String> {
    let ingress = cluster.published(&intent.id.key).map(said);
    ingress.map(|said| (intent.id.key.to_string(), said)).into_iter().collect()
}
