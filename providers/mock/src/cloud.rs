//! The cloud that the mock provider writes to: addresses and load balancers with tags, as strict as a real one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_api::IpFamily;
use berth_provider::conformance::{FaultGate, Verdict};
use berth_provider::{Class, Failure, Intent, Port, ServiceId};
use tokio::time::Instant;

use crate::ranges;
use crate::script::Script;

/// What a thing is tagged with; nothing on what is not ours.
pub(crate) type Tag = Option<ServiceId>;

/// What the cloud refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// Somebody has the address.
    #[error("the mock cloud has given {address} to somebody else")]
    AddressTaken {
        /// The address.
        address: IpAddr,
    },
    /// None is left.
    #[error("the mock cloud has no {family} address left; it has 762 IPv4 and 65,535 IPv6 ones")]
    Exhausted {
        /// Of which family.
        family: IpFamily,
    },
    /// There is no such thing.
    #[error("the mock cloud has no `{id}`")]
    NotFound {
        /// Its identity.
        id: String,
    },
    /// It is still needed.
    #[error("{address} is in use by the load balancer `{by}`")]
    InUse {
        /// The address.
        address: IpAddr,
        /// Who has it.
        by: String,
    },
    /// An annotation asked for this.
    #[error("the mock cloud fails as the annotation {} asks for: {class}", crate::script::FAULTS)]
    Scripted {
        /// With what.
        class: Class,
    },
    /// Nobody answered.
    #[error("the mock cloud does not answer")]
    Silent,
}

impl From<CloudError> for Failure {
    fn from(error: CloudError) -> Self {
        let class = match &error {
            CloudError::AddressTaken { .. } | CloudError::NotFound { .. } | CloudError::InUse { .. } => Class::Conflict,
            CloudError::Scripted { class } => *class,
            CloudError::Exhausted { .. } | CloudError::Silent => Class::Transient,
        };
        Self::new(class, error.to_string())
    }
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoadBalancer {
    pub(crate) tag: Tag,
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) ports: Vec<Port>,
    ready_at: Instant,
}

impl LoadBalancer {
    /// How long it still takes to come up.
    pub(crate) fn remaining(&self) -> Duration {
        self.ready_at.saturating_duration_since(Instant::now())
    }
}

/// Everything in the cloud.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) addresses: BTreeMap<IpAddr, Tag>,
    pub(crate) load_balancers: BTreeMap<String, LoadBalancer>,
    /// What goes wrong for a Service, by its uid.
    faults: BTreeMap<String, Faults>,
    made: u64,
}

/// How far the calls that write for a Service have come in its script.
#[derive(Debug, Default)]
struct Faults {
    /// The script that is counted; another one is counted anew.
    script: Vec<(Class, u64)>,
    calls: u64,
}

/// A cloud in memory. Cheap to clone; all clones are the same cloud.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    state: Arc<Mutex<State>>,
    gate: Arc<FaultGate>,
}

impl Cloud {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where tests make calls fail.
    pub fn gate(&self) -> &FaultGate {
        &self.gate
    }

    /// Puts something into it that is not ours, for tests.
    pub fn plant_foreign(&self, address: IpAddr, load_balancer: &str) {
        let mut state = self.lock();
        state.addresses.insert(address, None);
        let foreign = LoadBalancer {
            tag: None,
            addresses: BTreeSet::from([address]),
            ports: Vec::new(),
            ready_at: Instant::now(),
        };
        state.load_balancers.insert(load_balancer.to_owned(), foreign);
    }

    /// Everything in it, one line for each thing, ours or not.
    pub fn dump(&self, ours: bool) -> Vec<String> {
        let state = self.lock();
        let owner = |tag: &Tag| tag.as_ref().map_or("somebody else".to_owned(), |id| format!("{} {}", id.key, id.uid));
        let addresses = state.addresses.iter().filter(|(_, tag)| tag.is_some() == ours);
        let addresses = addresses.map(|(address, tag)| format!("address {address} of {}", owner(tag)));
        // Numbers of load balancers differ from one run to the next; what they are for does not.
        let balancers = state.load_balancers.values().filter(|lb| lb.tag.is_some() == ours);
        let balancers =
            balancers.map(|lb| format!("load balancer of {}: {:?} {:?}", owner(&lb.tag), lb.addresses, lb.ports));
        let mut lines: Vec<_> = addresses.chain(balancers).collect();
        lines.sort();
        lines
    }

    /// Makes the cloud anew of these Services and their addresses, each with a load balancer that is up. No address is named
    /// twice.
    pub(crate) fn restore(&self, services: Vec<(&Intent, BTreeSet<IpAddr>)>) {
        let mut state = self.lock();
        *state = State::default();
        for (intent, addresses) in services {
            state.addresses.extend(addresses.iter().map(|address| (*address, Some(intent.id.clone()))));
            state.insert(&intent.id, addresses, &intent.ports, Duration::ZERO);
        }
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, CloudError> {
        match self.gate.read() {
            Verdict::Pass => Ok(look(&self.lock())),
            Verdict::Refuse | Verdict::LoseAnswer => Err(CloudError::Silent),
        }
    }

    pub(crate) fn allocate(
        &self,
        owner: &ServiceId,
        family: IpFamily,
        wanted: Option<IpAddr>,
        script: &Script,
    ) -> Result<IpAddr, CloudError> {
        self.write(owner, script, |state| {
            let address = match wanted {
                Some(address) if state.addresses.contains_key(&address) => {
                    return Err(CloudError::AddressTaken { address });
                }
                Some(address) => address,
                None => state.lowest_free(family).ok_or(CloudError::Exhausted { family })?,
            };
            state.addresses.insert(address, Some(owner.clone()));
            Ok(address)
        })
    }

    pub(crate) fn create(
        &self,
        owner: &ServiceId,
        addresses: &BTreeSet<IpAddr>,
        ports: &[Port],
        script: &Script,
    ) -> Result<String, CloudError> {
        self.write(owner, script, |state| {
            state.expect_free(addresses, None)?;
            Ok(state.insert(owner, addresses.clone(), ports, script.latency))
        })
    }

    pub(crate) fn change(
        &self,
        owner: &ServiceId,
        id: &str,
        addresses: &BTreeSet<IpAddr>,
        ports: &[Port],
        script: &Script,
    ) -> Result<(), CloudError> {
        self.write(owner, script, |state| {
            state.expect_free(addresses, Some(id))?;
            let found = state.load_balancers.get_mut(id);
            let balancer = found.ok_or_else(|| CloudError::NotFound { id: id.to_owned() })?;
            balancer.addresses.clone_from(addresses);
            balancer.ports = ports.to_vec();
            Ok(())
        })
    }

    pub(crate) fn delete(&self, owner: &ServiceId, id: &str, script: &Script) -> Result<(), CloudError> {
        self.write(owner, script, |state| {
            state.load_balancers.remove(id);
            state.forget_script_of_nothing(owner);
            Ok(())
        })
    }

    pub(crate) fn release(&self, owner: &ServiceId, address: IpAddr, script: &Script) -> Result<(), CloudError> {
        self.write(owner, script, |state| {
            let user = state.load_balancers.iter().find(|(_, balancer)| balancer.addresses.contains(&address));
            if let Some((by, _)) = user {
                return Err(CloudError::InUse { address, by: by.clone() });
            }
            state.addresses.remove(&address);
            state.forget_script_of_nothing(owner);
            Ok(())
        })
    }

    fn write<T>(
        &self,
        owner: &ServiceId,
        script: &Script,
        change: impl FnOnce(&mut State) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        let verdict = self.gate.write();
        if verdict == Verdict::Refuse {
            return Err(CloudError::Silent);
        }
        let mut state = self.lock();
        let faults = state.faults.entry(owner.uid.clone()).or_default();
        if faults.script != script.faults {
            *faults = Faults { script: script.faults.clone(), calls: 0 };
        }
        let call = faults.calls;
        faults.calls += 1;
        if let Some(class) = script.fault(call) {
            return Err(CloudError::Scripted { class });
        }
        let answer = change(&mut state)?;
        if verdict == Verdict::LoseAnswer { Err(CloudError::Silent) } else { Ok(answer) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lowest_free(&self, family: IpFamily) -> Option<IpAddr> {
        ranges::lowest_free(family, &self.addresses.keys().copied().collect())
    }

    fn insert(&mut self, owner: &ServiceId, addresses: BTreeSet<IpAddr>, ports: &[Port], latency: Duration) -> String {
        self.made += 1;
        let id = format!("mock-{:06}", self.made);
        let (tag, ready_at) = (Some(owner.clone()), Instant::now() + latency);
        self.load_balancers.insert(id.clone(), LoadBalancer { tag, addresses, ports: ports.to_vec(), ready_at });
        id
    }

    /// One that has nothing here is gone, or begins anew.
    fn forget_script_of_nothing(&mut self, owner: &ServiceId) {
        let theirs = |tag: &Tag| tag.as_ref() == Some(owner);
        if !self.addresses.values().any(theirs) && !self.load_balancers.values().any(|lb| theirs(&lb.tag)) {
            self.faults.remove(&owner.uid);
        }
    }

    /// Addresses must be there, and no other load balancer may have them.
    fn expect_free(&self, addresses: &BTreeSet<IpAddr>, but: Option<&str>) -> Result<(), CloudError> {
        for address in addresses {
            if !self.addresses.contains_key(address) {
                return Err(CloudError::NotFound { id: address.to_string() });
            }
            let others = self.load_balancers.iter().filter(|(id, _)| Some(id.as_str()) != but);
            if let Some((by, _)) = others.into_iter().find(|(_, balancer)| balancer.addresses.contains(address)) {
                return Err(CloudError::InUse { address: *address, by: by.clone() });
            }
        }
        Ok(())
    }
}
