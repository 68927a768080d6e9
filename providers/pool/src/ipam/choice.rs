//! The address that serves a request.

use std::net::IpAddr;

use berth_api::service::{Request, Second};
use berth_api::{IpFamily, PerFamily};

use super::pools::Pool;
use super::{Ask, Ipam, Refusal, admits};

/// What serves a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// One address of each family, in the order of the Service's families.
    pub choices: Vec<Choice>,
    /// The family that a Service which prefers dual stack has to do without for now, and why.
    pub missing: Option<(IpFamily, Refusal)>,
}

/// An address for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The address.
    pub address: IpAddr,
    /// The pool that it is part of.
    pub pool: String,
}

type Kept = PerFamily<Option<IpAddr>>;

impl Ipam {
    /// The addresses that serve the request: those that are held if they do, else free ones, or such as may be shared. Both
    /// families come from one pool.
    ///
    /// # Errors
    /// When the request is not met: an address that is asked for cannot be given, no family has one, or one has none and
    /// the Service requires both. What the Service holds is not touched by that.
    pub fn choose(&self, ask: Ask<'_>) -> Result<Answer, Refusal> {
        let Request { families, .. } = ask.request;
        let kept = self.kept(ask);
        if let Some(answer) = self.all_kept(ask, &kept) {
            return Ok(answer);
        }
        if let Some(name) = self.asked_pool(ask)? {
            return self.one_pool(ask, &name, &kept);
        }
        let held = families.iter().find_map(|family| *kept.get(family));
        let Some(beside) = held else { return self.automatic(ask) };
        let name = self.pool_of(beside).unwrap_or_default().to_owned();
        // What has nothing beside it may as well come from elsewhere, and so may a pair that this pool cannot complete.
        self.one_pool(ask, &name, &kept).or_else(|refusal| match self.automatic(ask) {
            // What may pass by itself is told first: it is waited for.
            Err(elsewhere) if elsewhere.ends_by_release() => Err(elsewhere),
            other => other.map_err(|_| refusal),
        })
    }

    /// Of each family an address that meets the request and is held and may stay, or was and may be taken again: a pair of one pool
    /// if there is one, else what is in the status.
    fn kept(&self, ask: Ask<'_>) -> Kept {
        let meets = |address: &IpAddr| {
            let asked = ask.request.addresses.get(IpFamily::of(*address));
            let pool = ask.request.pool.as_deref();
            asked.is_none_or(|asked| asked == *address)
                && pool.is_none_or(|pool| self.pool_of(*address) == Some(pool))
                && self.may_stay(ask, *address).is_ok()
        };
        let mut held: Vec<IpAddr> =
            self.held_by(ask.service).filter(meets).filter(|a| !self.is_left(ask, *a)).collect();
        let is_beside = |address: &IpAddr| {
            let others = held.iter().filter(|other| IpFamily::of(**other) != IpFamily::of(*address));
            let of_one_pool = |other: &IpAddr| self.pool_of(*other) == self.pool_of(*address);
            others.clone().next().is_none() || others.into_iter().any(of_one_pool)
        };
        // What is held says more than what a status says.
        let is_new = |address: &IpAddr| !held.iter().any(|other| IpFamily::of(*other) == IpFamily::of(*address));
        let had = ask.previous.iter().copied().filter(|address| !self.is_left(ask, *address));
        let had = had.filter(is_new).filter(meets).filter(is_beside);
        let again: Vec<_> = had.filter(|address| self.may_take_again(ask, *address).is_ok()).collect();
        held.extend(again);
        let of = |family, pool: Option<&str>| {
            let fits = |a: &&IpAddr| IpFamily::of(**a) == family && (pool.is_none() || self.pool_of(**a) == pool);
            let mut all = held.iter().filter(fits);
            let in_status = all.clone().find(|a| ask.previous.contains(a));
            in_status.or_else(|| all.next()).copied()
        };
        let pools = held.iter().map(|address| self.pool_of(*address));
        let pairs = pools.map(|pool| PerFamily { v4: of(IpFamily::V4, pool), v6: of(IpFamily::V6, pool) });
        let mut complete = pairs.filter(|pair| ask.request.families.iter().all(|family| pair.get(family).is_some()));
        complete.next().unwrap_or(PerFamily { v4: of(IpFamily::V4, None), v6: of(IpFamily::V6, None) })
    }

    /// Whether a Service holds an address that it is to exchange for another, because a foreign machine has it and it was never in use. Who
    /// asks for this very one has the best chance to get it by waiting where it is.
    fn is_left(&self, ask: Ask<'_>, address: IpAddr) -> bool {
        self.quarantined(address).is_some()
            && ask.request.addresses.get(IpFamily::of(address)).is_none()
            && self.held_by(ask.service).any(|held| held == address)
    }

    fn all_kept(&self, ask: Ask<'_>, kept: &Kept) -> Option<Answer> {
        let kept = ask.request.families.iter().map(|family| *kept.get(family));
        let choices = kept.map(|address| address.map(|address| self.choice(address))).collect::<Option<_>>()?;
        Some(Answer { choices, missing: None })
    }

    fn choice(&self, address: IpAddr) -> Choice {
        Choice { address, pool: self.pool_of(address).unwrap_or_default().to_owned() }
    }

    /// The pool that the request fixes, by name or by an address of it.
    fn asked_pool(&self, ask: Ask<'_>) -> Result<Option<String>, Refusal> {
        let Request { families, addresses, pool } = ask.request;
        let mut found: Option<(IpAddr, &str)> = None;
        for address in families.iter().filter_map(|family| *addresses.get(family)) {
            let is_held = self.held_by(ask.service).any(|held| held == address);
            // Held from a pool that has been cut or deleted since: the request is still met.
            let name =
                self.asked_pool_having(address, pool.as_deref()).or_else(|| self.pool_of(address).filter(|_| is_held));
            let name = name.ok_or(Refusal::AddressOutsidePools { address })?;
            if let Some((other, other_pool)) = found
                && other_pool != name
            {
                let (pool, other_pool) = (other_pool.to_owned(), name.to_owned());
                return Err(Refusal::PoolsDiffer { address: other, pool, other: address, other_pool });
            }
            found = Some((address, name));
        }
        match (pool, found) {
            (None, found) => Ok(found.map(|(_, name)| name.to_owned())),
            (Some(pool), _) if !self.pools.contains_key(pool) => Err(Refusal::PoolNotFound { pool: pool.clone() }),
            (Some(pool), Some((address, actual))) if actual != pool => {
                Err(Refusal::AddressNotInPool { address, pool: pool.clone(), actual: actual.to_owned() })
            }
            (Some(pool), _) => Ok(Some(pool.clone())),
        }
    }

    /// Of several pools that have an address, the one that is asked for.
    fn asked_pool_having(&self, address: IpAddr, wanted: Option<&str>) -> Option<&str> {
        let asked = wanted.and_then(|wanted| self.pools.get_key_value(wanted)).filter(|(_, pool)| pool.has(address));
        asked.map(|(name, _)| name.as_str()).or_else(|| self.pool_having(address).map(|(name, _)| name))
    }

    /// An address of each family from one pool, beside those that are kept.
    fn one_pool(&self, ask: Ask<'_>, name: &str, kept: &Kept) -> Result<Answer, Refusal> {
        let Request { families, addresses, .. } = ask.request;
        let (mut choices, mut refused) = (Vec::new(), Vec::new());
        for family in families.iter() {
            let found = match (*kept.get(family), *addresses.get(family)) {
                (Some(address), _) => Ok(self.choice(address)),
                (None, Some(address)) => self.asked_address(ask, address, name),
                (None, None) => self.pick(ask, family, name),
            };
            match found {
                Ok(choice) => choices.push(choice),
                Err(refusal) => refused.push((family, refusal)),
            }
        }
        let is_needed = |family| addresses.get(family).is_some() || families.second != Some(Second::Preferred);
        let needed = refused.iter().filter(|(family, _)| is_needed(*family));
        // What somebody has to mend is told before what may pass by itself.
        if let Some((_, refusal)) = needed.min_by_key(|(_, refusal)| refusal.ends_by_release()) {
            return Err(refusal.clone());
        }
        // Where either family would do, the one that may come by itself is waited for.
        refused.sort_by_key(|(_, refusal)| !refusal.ends_by_release());
        match refused.into_iter().next() {
            Some((_, refusal)) if choices.is_empty() => Err(refusal),
            missing => Ok(Answer { choices, missing }),
        }
    }

    /// The very address that is asked for, which is part of pool `name`.
    fn asked_address(&self, ask: Ask<'_>, address: IpAddr, name: &str) -> Result<Choice, Refusal> {
        let pool = self.usable(ask, name)?;
        if !pool.has(address) {
            return Err(Refusal::AddressOutsidePools { address });
        }
        self.sharing_with_others(ask, address)?;
        if let Some(exclusion) = pool.exclusion(address) {
            return Err(Refusal::Excluded { address, exclusion: exclusion.clone() });
        }
        if pool.avoids(address) {
            return Err(Refusal::BuggyAddress { address, pool: name.to_owned() });
        }
        if let Some(quarantine) = self.quarantined(address) {
            return Err(Refusal::Quarantined { quarantine: *quarantine, pool: name.to_owned() });
        }
        let is_free = self.tenants(address).is_empty() && !ask.previous.contains(&address);
        if let Some(until) = pool.cools_until(address).filter(|_| is_free) {
            return Err(Refusal::CoolingDown { address, pool: name.to_owned(), until });
        }
        Ok(Choice { address, pool: name.to_owned() })
    }

    /// A pool, if it gives something new to who asks.
    fn usable(&self, ask: Ask<'_>, name: &str) -> Result<&Pool, Refusal> {
        let pool = self.pools.get(name).ok_or_else(|| Refusal::PoolNotFound { pool: name.to_owned() })?;
        // First that it is not for them: nobody learns more about a pool that is another's.
        if admits(pool, ask) != Some(true) {
            return Err(Refusal::PoolNotAdmitted { service: ask.service.clone(), pools: vec![name.to_owned()] });
        }
        if !pool.is_valid() {
            return Err(not_ready([(name, pool)]));
        }
        if pool.disabled {
            return Err(Refusal::PoolDisabled { pools: vec![name.to_owned()] });
        }
        Ok(pool)
    }

    /// An address of a family from one pool: the one that the Service holds or had, else the lowest that is free or may be shared.
    fn pick(&self, ask: Ask<'_>, family: IpFamily, name: &str) -> Result<Choice, Refusal> {
        let pool = self.usable(ask, name)?;
        let choice = |address| Choice { address, pool: name.to_owned() };
        if pool.has_family(family) == Some(false) {
            return Err(Refusal::FamilyUnavailable { family, pools: vec![name.to_owned()] });
        }
        // Of a pair that is on its way here, one may be claimed already.
        let mut held = self.held_by(ask.service).filter(|a| IpFamily::of(*a) == family && pool.has(*a));
        if let Some(address) = held.find(|a| !self.is_left(ask, *a) && self.may_stay(ask, *a).is_ok()) {
            return Ok(choice(address));
        }
        let mut had = ask.previous.iter().copied().filter(|a| IpFamily::of(*a) == family && pool.has(*a));
        if let Some(address) = had.find(|a| !self.is_left(ask, *a) && self.may_take_again(ask, *a).is_ok()) {
            return Ok(choice(address));
        }
        let shared = ask.terms.and_then(|terms| {
            let mut shared =
                self.holdings.shared_by(&terms.key).filter(|a| IpFamily::of(*a) == family && pool.may_give(*a));
            shared.find(|a| self.quarantined(*a).is_none() && self.sharing_with_others(ask, *a).is_ok())
        });
        let lowest = pool.free.lowest(family).into_iter().chain(shared).min();
        lowest.map(choice).ok_or_else(|| Refusal::PoolExhausted { family, pools: vec![name.to_owned()] })
    }

    /// Whether an address that the Service has by its status, and by no Announcement, can be its own again: also from a pool that
    /// gives nothing new, because to its clients it is nothing new.
    ///
    /// # Errors
    /// When no pool has it, or it is not for this Service, or somebody's.
    pub fn may_take_again(&self, ask: Ask<'_>, address: IpAddr) -> Result<Choice, Refusal> {
        let (name, pool) = self.pool_having(address).ok_or(Refusal::AddressOutsidePools { address })?;
        if let Some(exclusion) = pool.exclusion(address) {
            return Err(Refusal::Excluded { address, exclusion: exclusion.clone() });
        }
        self.may_stay(ask, address)?;
        self.sharing_with_others(ask, address)?;
        Ok(Choice { address, pool: name.to_owned() })
    }

    /// From the first pool that gives addresses by itself and has what is asked for. Pools with a selection come first.
    fn automatic(&self, ask: Ask<'_>) -> Result<Answer, Refusal> {
        let families = ask.request.families;
        let mut pools: Vec<_> = self.pools.iter().filter(|(_, pool)| pool.auto_assign).collect();
        pools
            .sort_by_key(|(name, pool)| (pool.admission.is_none(), pool.admission.as_ref().map(|a| a.priority), *name));
        let candidates = || pools.iter().filter(|(name, _)| self.usable(ask, name).is_ok());
        let all =
            |name: &str| families.iter().map(|family| self.pick(ask, family, name)).collect::<Result<Vec<_>, _>>();
        if let Some(choices) = candidates().find_map(|(name, _)| all(name).ok()) {
            return Ok(Answer { choices, missing: None });
        }
        if families.second == Some(Second::Preferred) {
            for family in families.iter() {
                let found = candidates().find_map(|(name, _)| Some((*name, self.pick(ask, family, name).ok()?)));
                if let Some((name, choice)) = found {
                    let other = family.other();
                    let missing = self.pick(ask, other, name).err().map(|refusal| (other, refusal));
                    return Ok(Answer { choices: vec![choice], missing });
                }
            }
        }
        let refused: Vec<_> =
            families.iter().filter_map(|family| self.automatic_refusal(ask, family, &pools)).collect();
        // For a pair, what somebody has to mend is told before what may pass by itself; where either would do, the other way round.
        let prefers = families.second == Some(Second::Preferred);
        let first = refused.into_iter().min_by_key(|refusal| refusal.ends_by_release() != prefers);
        Err(first.unwrap_or_else(|| {
            let some = candidates().map(|(name, _)| (*name).clone());
            Refusal::NoDualStackPool { pools: some.collect() }
        }))
    }

    /// Why no pool gives an address of a family by itself; `None`: one does.
    fn automatic_refusal(&self, ask: Ask<'_>, family: IpFamily, automatic: &[(&String, &Pool)]) -> Option<Refusal> {
        type Told<'a> = Vec<(&'a String, &'a Pool)>;
        let keep = |of: &Told<'_>, wanted: &dyn Fn(&Pool) -> bool| -> Vec<String> {
            of.iter().filter(|(_, pool)| wanted(pool)).map(|(name, _)| (*name).clone()).collect()
        };
        if automatic.iter().any(|(name, _)| self.pick(ask, family, name).is_ok()) {
            return None;
        }
        if automatic.is_empty() {
            return Some(Refusal::NoPool { others: self.pools.len() });
        }
        let admitting: Told<'_> =
            automatic.iter().filter(|(_, pool)| admits(pool, ask) == Some(true)).copied().collect();
        if admitting.is_empty() {
            let pools = automatic.iter().map(|(name, _)| (*name).clone()).collect();
            return Some(Refusal::PoolNotAdmitted { service: ask.service.clone(), pools });
        }
        // One that cannot be read may have the family.
        let having: Told<'_> =
            admitting.iter().filter(|(_, pool)| pool.has_family(family) != Some(false)).copied().collect();
        let giving = keep(&having, &|pool| pool.accepts());
        if !giving.is_empty() {
            return Some(Refusal::PoolExhausted { family, pools: giving });
        }
        if having.is_empty() {
            return Some(Refusal::FamilyUnavailable { family, pools: keep(&admitting, &|_| true) });
        }
        let disabled = keep(&having, &|pool| pool.is_valid());
        Some(if disabled.is_empty() {
            not_ready(having.iter().map(|(name, pool)| (name.as_str(), *pool)))
        } else {
            Refusal::PoolDisabled { pools: disabled }
        })
    }
}

fn not_ready<'a>(pools: impl IntoIterator<Item = (&'a str, &'a Pool)>) -> Refusal {
    let told = pools.into_iter().map(|(name, pool)| {
        let reason = pool.problem.as_ref().map_or("", |p| p.reason().as_str());
        format!("`{name}` ({reason})")
    });
    Refusal::PoolNotReady { pools: told.collect() }
}
