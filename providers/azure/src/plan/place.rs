//! Gives one Service its frontends, rules and probes, or says why not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_api::IpFamily;
use berth_provider::Intent;
use serde_json::{Value, json};

use super::addresses::PublicIps;
use super::draft::{Draft, FRONTENDS, PROBES, RULES, refers};
use super::{Planner, belongs, is_published};
use crate::arm::Id;
use crate::document::{at, name, parts, port, text};
use crate::intent::{Asks, FrontAsks, Probe, ProbeKind, RuleAsks, Scheme, Transport};
use crate::names::{self, ALTERNATES};
use crate::observed::{subnet, version};
use crate::refusal::Refusal;
use crate::settings::FRONTENDS as FRONTENDS_MAX;
use crate::tags;

/// A frontend that a Service has.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub scheme: Scheme,
    pub family: IpFamily,
    pub frontend: String,
    /// Its address, if that is known by now.
    pub address: Option<IpAddr>,
    second: bool,
    /// What is to be made of it, where it is the Service's own.
    body: Option<Value>,
}

/// What tells whether a frontend is the one that is wanted.
enum Key {
    PublicIp(Id),
    Subnet(Id, Option<IpAddr>),
}

impl Planner<'_> {
    /// Gives a Service what it asks for; `Err` inside is what it waits for.
    pub(super) fn place(&mut self, asks: &Asks, intent: &Intent) -> Result<Result<Vec<Placed>, String>, Refusal> {
        let (mut keys, mut waits, mut uses) = (Vec::new(), None, Vec::new());
        for (family, one) in &asks.front.families {
            match asks.front.scheme {
                Scheme::Internal => match self.subnet(asks, one)? {
                    Some(id) => keys.push((*family, one, Key::Subnet(id, one.address), None)),
                    None => waits = Some("the subnet is not looked at yet".to_owned()),
                },
                Scheme::Public => {
                    let found = PublicIps::find(self.world, asks, *family, one)?;
                    if found.address.is_none() {
                        waits = Some(format!("Azure is making the public IP {}", found.id.name()));
                    }
                    keys.push((*family, one, Key::PublicIp(found.id.clone()), found.address));
                    uses.push(found);
                }
            }
        }
        if let Some(waits) = waits {
            // A public IP is made before the load balancer can refer to it.
            self.public_ips.uses(asks, uses);
            return Ok(Err(waits));
        }
        let base = names::base(&asks.service.uid);
        let mut placed = Vec::new();
        for (family, one, key, address) in keys {
            placed.push(self.choose(asks, intent, &base, family, one, &key, address)?);
        }
        let retained = self.retained(asks, intent, &base, &placed);
        for one in &mut placed {
            one.address = one.address.filter(|address| self.is_told_apart(one, *address));
        }
        self.conflicts(asks, &base, &placed)?;
        self.limits(asks, &base, &placed, &retained)?;
        self.security.fits(self.world, asks, &placed)?;
        let before = self.turns.map(|turns| (turns, self.drafts.clone()));
        self.write(asks, intent, &base, &placed, &retained);
        let addresses: Vec<IpAddr> = retained.iter().map(|(_, _, address)| *address).collect();
        if let Some((turns, drafts)) = before {
            let changed = self.drafts.iter().any(|draft| draft.changes.contains(&asks.service))
                || self.security.changes(self.world, asks, &placed, &addresses);
            if changed && turns == 0 {
                self.drafts = drafts;
                let message =
                    "Azure refused a change of many Services at once; they take turns to find out whose fault it is";
                return Ok(Err(message.to_owned()));
            }
            self.turns = Some(turns - usize::from(changed));
        }
        self.security.add(self.world, asks, &placed, &addresses);
        self.public_ips.uses(asks, uses);
        Ok(Ok(placed))
    }

    /// Whether it can be seen whose an address is, also by who comes after a kill: before that nothing is opened for it.
    fn is_told_apart(&self, one: &Placed, address: IpAddr) -> bool {
        let observed = self.world.observed;
        let is = |(scheme, frontend): (Scheme, &Value)| {
            scheme == one.scheme && name(frontend) == one.frontend && observed.address_of(frontend) == Some(address)
        };
        let ours = observed.public_ips.values().filter(|document| tags::is_ours(self.world.settings, document));
        let by_tag =
            |document: &Value| crate::document::address(document, &["properties", "ipAddress"]) == Some(address);
        observed.frontends().any(is) || ours.into_iter().any(by_tag)
    }

    /// The subnet that an internal Service is to be in.
    fn subnet(&self, asks: &Asks, one: &FrontAsks) -> Result<Option<Id>, Refusal> {
        let settings = self.world.settings;
        let called = asks.front.subnet_name(settings);
        if let Some(refusal) = self.world.observed.closed_subnets.get(called) {
            return Err(refusal.clone());
        }
        let Some(seen) = self.world.observed.subnets.get(called) else { return Ok(None) };
        let Some(seen) = seen else {
            let network = &settings.network.name;
            return Err(Refusal::NoSubnet(format!(
                "the network {network} has no subnet `{called}`; name one that it has"
            )));
        };
        if let Some(address) = one.address {
            let single = text(seen, &["properties", "addressPrefix"]);
            let many = parts(seen, "addressPrefixes").iter().filter_map(Value::as_str);
            let ranges: Vec<&str> = many.chain(single).collect();
            let within = |range: &&str| range.parse::<ipnet::IpNet>().is_ok_and(|net| net.contains(&address));
            if !ranges.is_empty() && !ranges.iter().any(within) {
                let ranges = ranges.join(", ");
                return Err(Refusal::NoSubnet(format!(
                    "{address} is not in the subnet `{called}`, which has {ranges}; ask for another address or subnet"
                )));
            }
        }
        Ok(Some(subnet(settings, called)))
    }

    #[expect(clippy::too_many_arguments, reason = "all of them say which frontend")]
    fn choose(
        &self,
        asks: &Asks,
        intent: &Intent,
        base: &str,
        family: IpFamily,
        one: &FrontAsks,
        key: &Key,
        address: Option<IpAddr>,
    ) -> Result<Placed, Refusal> {
        let scheme = asks.front.scheme;
        let observed = self.world.observed;
        let placed = |frontend: &str, address, body| Placed {
            scheme,
            family,
            frontend: frontend.to_owned(),
            address,
            second: one.second,
            body,
        };
        let Some(draft) = self.drafts.iter().find(|draft| draft.scheme == scheme) else {
            return Err(Refusal::NotFound("no load balancer is known for the scheme".to_owned()));
        };
        let matching = || draft.parts(FRONTENDS).iter().filter(|frontend| matches(frontend, family, key));
        let mut body = body(key, family, one);
        let known = |frontend: &Value| address.or_else(|| observed.address_of(frontend));
        let mut own: Vec<&Value> = matching().filter(|frontend| belongs(name(frontend), base)).collect();
        // The one that people are told of.
        own.sort_by_key(|frontend| !known(frontend).is_some_and(|address| is_published(intent, address)));
        if let Some(frontend) = own.first() {
            // An address that was chosen before stays the one that it has.
            let body = one.address.is_some().then_some(body).filter(|_| scheme == Scheme::Internal);
            return Ok(placed(name(frontend), known(frontend), body));
        }
        let has_address = !matches!(key, Key::Subnet(_, None));
        if let Some(other) = matching().next().filter(|_| has_address) {
            self.may_share(asks, draft, other)?;
            return Ok(placed(name(other), known(other).or(one.address), None));
        }
        let names =
            ALTERNATES.map(|alternate| names::frontend(base, asks.front.subnet.as_deref(), alternate, one.second));
        let free = names.into_iter().find(|called| draft.find(FRONTENDS, called).is_none());
        let Some(free) = free else {
            return Err(Refusal::Limit(
                "the Service changed its frontend again and again; wait until the old ones are gone".to_owned(),
            ));
        };
        let zones = &self.world.settings.zones;
        if matches!(key, Key::Subnet(..)) && !zones.is_empty() {
            // Those that there are keep theirs: zones cannot be changed (Azure rule).
            body["zones"] = json!(zones);
        }
        let address = address.or(one.address.filter(|_| scheme == Scheme::Internal));
        Ok(placed(&free, address, Some(body)))
    }

    /// Whether a Service may put rules on another one's frontend.
    fn may_share(&self, asks: &Asks, draft: &Draft<'_>, other: &Value) -> Result<(), Refusal> {
        let called = name(other);
        let present = &self.world.present;
        let owner = names::base_of(called).and_then(|base| present.get(base).copied());
        let sharer =
            || draft.rules_on(called).filter_map(|rule| names::base_of(name(rule)).and_then(|b| present.get(b)));
        let neighbour = owner.or_else(|| sharer().next().copied());
        let same_namespace = neighbour.is_some_and(|other| other.id.key.namespace == asks.service.key.namespace);
        if same_namespace || asks.front.may_refer {
            return Ok(());
        }
        let address = self.world.observed.address_of(other).map_or_else(|| called.to_owned(), |a| a.to_string());
        Err(Refusal::AddressInUse { address, by: format!("the frontend {called}") })
    }

    /// Frontends that go once no status names them: load balancer, name and address.
    fn retained(&self, asks: &Asks, intent: &Intent, base: &str, placed: &[Placed]) -> Vec<(Scheme, String, IpAddr)> {
        // Two frontends cannot have rules to one node port.
        if placed.iter().any(|placed| !asks.rules.direct(placed.scheme, placed.family)) {
            return Vec::new();
        }
        let mut retained = Vec::new();
        for draft in &self.drafts {
            let of_mine = |frontend: &Value| {
                let mine = || draft.rules_on(name(frontend)).any(|rule| belongs(name(rule), base));
                belongs(name(frontend), base) || mine()
            };
            for frontend in draft.parts(FRONTENDS) {
                let chosen = placed.iter().any(|p| p.scheme == draft.scheme && p.frontend == name(frontend));
                let address = self.world.observed.address_of(frontend).filter(|address| is_published(intent, *address));
                // Of two frontends with one address one is enough.
                let address = address.filter(|address| !placed.iter().any(|p| p.address == Some(*address)));
                // All rules are looked through last, for the few frontends of which the status tells.
                if let Some(address) = address.filter(|_| !chosen && of_mine(frontend)) {
                    retained.push((draft.scheme, name(frontend).to_owned(), address));
                }
            }
        }
        retained
    }

    /// Ports that somebody else has on the frontends.
    fn conflicts(&self, asks: &Asks, base: &str, placed: &[Placed]) -> Result<(), Refusal> {
        for one in placed {
            let Some(draft) = self.drafts.iter().find(|draft| draft.scheme == one.scheme) else { continue };
            for rule in &asks.rules.rules {
                let taken = |other: &&Value| !belongs(name(other), base) && clashes(other, rule, "frontendPort");
                let by_rule = draft.rules_on(&one.frontend).find(taken);
                let mut nat = draft.parts("inboundNatRules").iter().chain(draft.parts("inboundNatPools"));
                let by_nat = || {
                    nat.find(|nat| {
                        refers(nat, "frontendIPConfiguration", &one.frontend)
                            && (clashes(nat, rule, "frontendPort") || in_range(nat, rule))
                    })
                };
                if let Some(other) = by_rule.or_else(by_nat) {
                    let asked = asks.front.families.iter().find(|(family, _)| *family == one.family);
                    let address = one.address.or(asked.and_then(|(_, asked)| asked.address));
                    let owner = names::base_of(name(other)).and_then(|base| self.world.present.get(base));
                    return Err(Refusal::PortTaken {
                        address: address.map_or_else(|| one.frontend.clone(), |address| address.to_string()),
                        protocol: rule.transport.as_str().to_uppercase(),
                        port: rule.port,
                        by: owner.map_or_else(|| format!("the rule {}", name(other)), |i| i.id.key.to_string()),
                    });
                }
            }
        }
        Ok(())
    }

    fn limits(
        &self,
        asks: &Asks,
        base: &str,
        placed: &[Placed],
        retained: &[(Scheme, String, IpAddr)],
    ) -> Result<(), Refusal> {
        let rules = |kind| self.drafts.iter().map(|draft| draft.parts(kind).len()).sum::<usize>();
        let there = rules(RULES) + rules("inboundNatRules");
        let stays = |draft: &Draft<'_>, rule: &Value| {
            retained.iter().any(|(scheme, f, _)| *scheme == draft.scheme && refers(rule, "frontendIPConfiguration", f))
        };
        let mine = |draft: &&Draft<'_>| {
            draft.parts(RULES).iter().filter(|rule| belongs(name(rule), base) && !stays(draft, rule)).count()
        };
        let mine: usize = self.drafts.iter().map(|draft| mine(&draft)).sum();
        let (wanted, max) = (placed.len() * asks.rules.rules.len(), self.world.settings.max_rules);
        if wanted > mine && there + wanted - mine > max {
            return Err(Refusal::Limit(format!(
                "the load balancers have {there} rules, the Service needs {} more, and behind one network interface there may be \
                 {max}; remove ports or Services",
                wanted - mine
            )));
        }
        for draft in &self.drafts {
            let new = |p: &&Placed| p.scheme == draft.scheme && draft.find(FRONTENDS, &p.frontend).is_none();
            let (there, new) = (draft.parts(FRONTENDS).len(), placed.iter().filter(new).count());
            if new > 0 && there + new > FRONTENDS_MAX {
                let called = draft.id.name();
                return Err(Refusal::Limit(format!(
                    "the load balancer {called} has {there} frontends, and may have {FRONTENDS_MAX}; let Services share addresses"
                )));
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        asks: &Asks,
        intent: &Intent,
        base: &str,
        placed: &[Placed],
        retained: &[(Scheme, String, IpAddr)],
    ) {
        let service = &asks.service;
        for draft in &mut self.drafts {
            let scheme = draft.scheme;
            let goes = |frontend: &&Value| {
                let stays = |s: &Scheme, f: &str| *s == scheme && f == name(frontend);
                let kept = placed.iter().any(|p| stays(&p.scheme, &p.frontend))
                    || retained.iter().any(|(s, f, _)| stays(s, f));
                let mine = || draft.rules_on(name(frontend)).any(|rule| belongs(name(rule), base));
                // Of two frontends with one address one is enough.
                let address = self
                    .world
                    .observed
                    .address_of(frontend)
                    .filter(|is| !placed.iter().any(|p| p.address == Some(*is)));
                !kept && address.is_some_and(|address| is_published(intent, address)) && mine()
            };
            draft.disrupts |= draft.parts(FRONTENDS).iter().any(|frontend| goes(&frontend));
            let here: Vec<&Placed> = placed.iter().filter(|p| p.scheme == scheme).collect();
            let frontends: BTreeSet<&str> =
                retained.iter().filter(|(s, _, _)| *s == scheme).map(|(_, f, _)| f.as_str()).collect();
            draft.remove_rules(base, service, |rule| {
                let on = |frontend: &str| refers(rule, "frontendIPConfiguration", frontend);
                frontends.iter().any(|frontend| on(frontend))
                    || here.iter().any(|p| on(&p.frontend) && asks.rules.rules.iter().any(|asked| is(rule, asked)))
            });
        }
        for one in placed {
            if let Some(draft) = self.draft(one.scheme) {
                write_one(draft, asks, base, one);
            }
        }
    }
}

/// Writes the parts of a Service for one frontend.
fn write_one(draft: &mut Draft<'_>, asks: &Asks, base: &str, one: &Placed) {
    let (service, rules) = (&asks.service, &asks.rules);
    if let Some(body) = &one.body {
        draft.put(FRONTENDS, &one.frontend, body.clone(), service);
    }
    if rules.rules.is_empty() {
        return;
    }
    let subnet = asks.front.subnet.as_deref();
    let pool = draft.pool(one.family, service);
    let disable_snat = draft.disables_snat();
    for rule in &rules.rules {
        let probe = rule.probe.as_ref().map(|probe| {
            let own = |what: &str| names::rule(base, subnet, "", what, one.second);
            let called = match (&probe.name, probe.name.fixed()) {
                (_, Some(shared)) => shared.to_owned(),
                (crate::intent::ProbeName::Own(what), None) => own(what),
                (crate::intent::ProbeName::Shared, None) => own("shared"),
            };
            draft.put(PROBES, &called, probe_body(probe), service);
            json!({"id": draft.part(PROBES, &called)})
        });
        let there = draft.rules_on(&one.frontend).find(|other| belongs(name(other), base) && is(other, rule));
        let free = || {
            let names = ALTERNATES.map(|alternate| names::rule(base, subnet, alternate, &rule.what(), one.second));
            let free = names.iter().find(|called| draft.find(RULES, called).is_none());
            free.unwrap_or(&names[0]).clone()
        };
        let called = there.map_or_else(free, |there| name(there).to_owned());
        let direct = rules.direct(one.scheme, one.family);
        let backend = if direct { rule.port } else { rule.node_port.unwrap_or(rule.port) };
        let body = json!({"properties": {
            "frontendIPConfiguration": {"id": draft.part(FRONTENDS, &one.frontend)},
            "backendAddressPool": {"id": pool},
            "probe": probe,
            "protocol": rule.transport.as_str(),
            "frontendPort": rule.port,
            "backendPort": backend,
            "enableFloatingIP": direct,
            "idleTimeoutInMinutes": rules.idle_timeout,
            "enableTcpReset": rules.tcp_reset && rule.transport != Transport::Udp,
            "loadDistribution": if rules.sticky { "SourceIP" } else { "Default" },
            "disableOutboundSnat": disable_snat,
        }});
        draft.put(RULES, &called, body, service);
    }
}

fn probe_body(probe: &Probe) -> Value {
    let (protocol, path) = match &probe.kind {
        ProbeKind::Tcp => ("Tcp", None),
        ProbeKind::Http(path) => ("Http", Some(path)),
        ProbeKind::Https(path) => ("Https", Some(path)),
    };
    json!({"properties": {
        "protocol": protocol,
        "port": probe.port,
        "requestPath": path,
        "intervalInSeconds": probe.interval,
        // What counts; the older `numberOfProbes` is ignored by Azure.
        "probeThreshold": probe.count,
    }})
}

fn body(key: &Key, family: IpFamily, one: &FrontAsks) -> Value {
    match key {
        Key::PublicIp(id) => json!({"properties": {"publicIPAddress": {"id": id}}}),
        Key::Subnet(id, address) => {
            let method = if address.is_some() { "Static" } else { "Dynamic" };
            json!({
                "properties": {
                    "subnet": {"id": id},
                    "privateIPAllocationMethod": method,
                    "privateIPAddress": one.address,
                    "privateIPAddressVersion": family.as_str(),
                },
            })
        }
    }
}

/// Whether a frontend is the one that is wanted.
fn matches(frontend: &Value, family: IpFamily, key: &Key) -> bool {
    match key {
        Key::PublicIp(id) => {
            text(frontend, &["properties", "publicIPAddress", "id"]).is_some_and(|is| Id::new(is) == *id)
        }
        Key::Subnet(id, address) => {
            let subnet = text(frontend, &["properties", "subnet", "id"]).is_some_and(|is| Id::new(is) == *id);
            let has = crate::document::address(frontend, &["properties", "privateIPAddress"]);
            let fits = address.is_none_or(|wanted| has == Some(wanted));
            subnet && fits && version(frontend, "privateIPAddressVersion") == family
        }
    }
}

/// Whether a rule is for what is asked for.
fn is(rule: &Value, asked: &RuleAsks) -> bool {
    let protocol = text(rule, &["properties", "protocol"]).unwrap_or_default();
    protocol.eq_ignore_ascii_case(asked.transport.as_str())
        && port(rule, &["properties", "frontendPort"]) == Some(asked.port)
}

/// Whether two rules cannot be on one frontend.
fn clashes(other: &Value, asked: &RuleAsks, field: &str) -> bool {
    let protocol = text(other, &["properties", "protocol"]).unwrap_or_default();
    let all = protocol.eq_ignore_ascii_case("All") || asked.transport == Transport::All;
    let port = at(other, &["properties", field]).is_some() && port(other, &["properties", field]) == Some(asked.port);
    all || (port && protocol.eq_ignore_ascii_case(asked.transport.as_str()))
}

fn in_range(pool: &Value, asked: &RuleAsks) -> bool {
    let bound = |field| port(pool, &["properties", field]);
    let protocol = text(pool, &["properties", "protocol"]).unwrap_or_default();
    let range = bound("frontendPortRangeStart").zip(bound("frontendPortRangeEnd"));
    protocol.eq_ignore_ascii_case(asked.transport.as_str())
        && range.is_some_and(|(from, to)| (from..=to).contains(&asked.port))
}
