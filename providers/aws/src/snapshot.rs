//! A cloud as somebody wrote it down: outputs of the AWS CLI, or of anything else that answers in the APIs' own JSON.
//!
//! A text is one object after another, or a list of them. Each has any of the keys of the `describe-` calls. What the calls about
//! attributes, certificates and health of targets answer does not say whose it is, so the ARN stands beside it.

mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_provider::{Shard, Wanted};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::cloud::{Listener, LoadBalancer, Pairs, SecurityGroup, Subnet, TargetGroup};
use crate::intent::{Asks, Security};
use crate::observed::{Counts, Observed, SeenListener, SeenLoadBalancer, SeenTargetGroup, Unseen};
use crate::plan::with_rivals;
use crate::settings::Settings;
use crate::subnets::CLUSTER_TAG;
use crate::tags::{self, Resource};
use wire::{ByOwner, pairs};

/// What `AvailabilityZones` calls zones that are nothing special.
const ORDINARY_ZONE: &str = "availability-zone";
/// Keys of answers that say nothing of the cloud.
const PASSED_OVER: [&str; 3] = ["ResponseMetadata", "Vpcs", "Owner"];
/// Keys by which an answer says that it is not all.
const GOES_ON: [&str; 2] = ["NextToken", "NextMarker"];

/// Why a text is no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// No JSON.
    #[error("{source_name} is no JSON: {problem}; write what `aws ... --output json` prints")]
    Syntax {
        /// Which text.
        source_name: String,
        /// What is wrong.
        problem: String,
    },
    /// JSON, and no object.
    #[error(
        "{0} holds something that is no object; write objects such as {{\"Subnets\": [...]}}, as `aws ... --output json` prints them"
    )]
    NoObject(String),
    /// A key that no call answers with.
    #[error("{source_name}: `{key}` is no key of a snapshot, which are {}", known())]
    UnknownKey {
        /// Which text.
        source_name: String,
        /// The key.
        key: String,
    },
    /// Something that cannot be read.
    #[error("{source_name}: {key}[{index}]: {problem}; write it as `aws {call} --output json` prints it")]
    Item {
        /// Which text.
        source_name: String,
        /// The key.
        key: String,
        /// Which of its list, from 0.
        index: usize,
        /// What is wrong.
        problem: String,
        /// Which call answers so.
        call: &'static str,
    },
    /// A key with something else than a list.
    #[error("{source_name}: `{key}` is no list; write it as `aws {call} --output json` prints it")]
    NoList {
        /// Which text.
        source_name: String,
        /// The key.
        key: String,
        /// Which call answers so.
        call: &'static str,
    },
    /// Something that does not say whose it is.
    #[error(
        "{source_name}: `{key}` does not say whose it is; add {} beside it: aws {call} ... | jq '. + {{\"{}\": \"arn:...\"}}'",
        or(.owners), .owners.first().copied().unwrap_or_default()
    )]
    NoOwner {
        /// Which text.
        source_name: String,
        /// The key.
        key: String,
        /// Keys that say it.
        owners: &'static [&'static str],
        /// Which call answers so.
        call: &'static str,
    },
    /// An answer that goes on.
    #[error("{0} is not all: it has a {1}; let the AWS CLI fetch all pages, without --max-items and --no-paginate")]
    GoesOn(String, &'static str),
    /// Subnets are there and their routes are not.
    #[error(
        "`Subnets` are there and `RouteTables` are not, which say what the internet reaches; add `aws ec2 describe-route-tables`"
    )]
    NoRoutes,
}

/// The keys, and which call answers with each.
const KEYS: &[(&str, &str)] = &[
    ("Subnets", "ec2 describe-subnets"),
    ("RouteTables", "ec2 describe-route-tables"),
    ("AvailabilityZones", "ec2 describe-availability-zones"),
    ("SecurityGroups", "ec2 describe-security-groups"),
    ("LoadBalancers", "elbv2 describe-load-balancers"),
    ("TargetGroups", "elbv2 describe-target-groups"),
    ("Listeners", "elbv2 describe-listeners"),
    ("TagDescriptions", "elbv2 describe-tags"),
    ("Attributes", "elbv2 describe-load-balancer-attributes"),
    ("Certificates", "elbv2 describe-listener-certificates"),
    ("TargetHealthDescriptions", "elbv2 describe-target-health"),
];
const OWNERS: [&str; 3] = ["LoadBalancerArn", "TargetGroupArn", "ListenerArn"];

fn known() -> String {
    KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ")
}

fn or(words: &[&str]) -> String {
    words.join(" or ")
}

/// Security groups, each with its VPC.
type Groups = Vec<(Option<String>, SecurityGroup)>;

/// What a person wrote down of a cloud.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By their VPC.
    subnets: Option<Vec<(String, Subnet)>>,
    groups: Option<Groups>,
    /// Names of all load balancers, with their ARNs.
    names: Option<BTreeMap<String, String>>,
    /// Security groups of all load balancers.
    groups_of: ByOwner<Vec<String>>,
    /// Those that Berth made, as their tags say.
    load_balancers: Vec<LoadBalancer>,
    target_groups: Vec<TargetGroup>,
    /// By the load balancer.
    listeners: ByOwner<Vec<Listener>>,
    tags: ByOwner<Pairs>,
    attributes: ByOwner<Pairs>,
    certificates: ByOwner<BTreeSet<String>>,
    targets: ByOwner<Counts>,
    /// What the texts leave out, and what is made of that.
    lacks: Vec<String>,
}

/// What stands under one key of one object.
struct Part {
    source: String,
    key: &'static str,
    call: &'static str,
    owner: Option<String>,
    items: Vec<Value>,
}

impl Part {
    fn read<T: DeserializeOwned>(&self, index: usize) -> Result<T, SnapshotError> {
        serde_json::from_value(self.items[index].clone()).map_err(|error| SnapshotError::Item {
            source_name: self.source.clone(),
            key: self.key.to_owned(),
            index,
            problem: error.to_string(),
            call: self.call,
        })
    }
}

/// The texts' objects, taken apart.
struct Parts(Vec<Part>);

impl Parts {
    fn of(texts: &[(String, String)]) -> Result<Self, SnapshotError> {
        let mut parts = Vec::new();
        for (source, text) in texts {
            for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
                let value = value.map_err(|error| SnapshotError::Syntax {
                    source_name: source.clone(),
                    problem: error.to_string(),
                })?;
                let objects = if let Value::Array(all) = value { all } else { vec![value] };
                for object in objects {
                    let Value::Object(object) = object else { return Err(SnapshotError::NoObject(source.clone())) };
                    take_apart(source, object, &mut parts)?;
                }
            }
        }
        Ok(Self(parts))
    }

    fn has(&self, key: &str) -> bool {
        self.0.iter().any(|part| part.key == key)
    }

    /// All that stands under a key.
    fn all<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, SnapshotError> {
        let each = self.places(key).map(|(part, index)| part.read(index));
        each.collect()
    }

    fn places<'a>(&'a self, key: &str) -> impl Iterator<Item = (&'a Part, usize)> {
        self.0
            .iter()
            .filter(move |part| part.key == key)
            .flat_map(|part| (0..part.items.len()).map(move |at| (part, at)))
    }

    /// What stands under a key, by whose it is.
    fn owned<T: DeserializeOwned>(&self, key: &str) -> Result<ByOwner<Vec<T>>, SnapshotError> {
        let mut all: ByOwner<Vec<T>> = BTreeMap::new();
        for part in self.0.iter().filter(|part| part.key == key) {
            let items = (0..part.items.len()).map(|index| part.read(index)).collect::<Result<Vec<T>, _>>()?;
            all.entry(part.owner.clone().unwrap_or_default()).or_default().extend(items);
        }
        Ok(all)
    }
}

fn take_apart(source: &str, object: Map<String, Value>, parts: &mut Vec<Part>) -> Result<(), SnapshotError> {
    let owner = OWNERS.iter().find_map(|key| object.get(*key)?.as_str()).map(str::to_owned);
    for (key, value) in object {
        if let Some(token) = GOES_ON.into_iter().find(|token| *token == key) {
            if value.is_null() {
                continue;
            }
            return Err(SnapshotError::GoesOn(source.to_owned(), token));
        }
        if OWNERS.contains(&key.as_str()) || PASSED_OVER.contains(&key.as_str()) {
            continue;
        }
        let Some((key, call)) = KEYS.iter().copied().find(|(known, _)| *known == key) else {
            return Err(SnapshotError::UnknownKey { source_name: source.to_owned(), key });
        };
        let Value::Array(items) = value else {
            return Err(SnapshotError::NoList { source_name: source.to_owned(), key: key.to_owned(), call });
        };
        let owners: &'static [&'static str] = match key {
            "Attributes" => &OWNERS,
            "Certificates" => &["ListenerArn"],
            "TargetHealthDescriptions" => &["TargetGroupArn"],
            _ => &[],
        };
        if !owners.is_empty() && owner.is_none() {
            return Err(SnapshotError::NoOwner { source_name: source.to_owned(), key: key.to_owned(), owners, call });
        }
        parts.push(Part { source: source.to_owned(), key, call, owner: owner.clone(), items });
    }
    Ok(())
}

impl Snapshot {
    /// Reads texts, each with what it is called in messages.
    ///
    /// # Errors
    /// When one of them cannot be read, or what is there makes no sense without what is not.
    pub fn read(texts: &[(String, String)]) -> Result<Self, SnapshotError> {
        let parts = Parts::of(texts)?;
        let mut tags: ByOwner<Pairs> = BTreeMap::new();
        for wire::TagDescription { resource_arn, tags: of } in parts.all("TagDescriptions")? {
            tags.entry(resource_arn).or_default().extend(pairs(of));
        }
        let mut snapshot = Self {
            subnets: subnets(&parts)?,
            groups: groups(&parts)?,
            attributes: parts.owned("Attributes")?.into_iter().map(|(arn, all)| (arn, pairs(all))).collect(),
            certificates: certificates(&parts)?,
            targets: targets(&parts)?,
            tags,
            ..Self::default()
        };
        snapshot.read_load_balancers(&parts)?;
        snapshot.note_what_is_missing(&parts);
        Ok(snapshot)
    }

    fn is_berths(&self, arn: &str) -> bool {
        self.tags.get(arn).is_some_and(|of| tags::resource(of).is_some())
    }

    /// Whether something of that VPC can be of the cluster's.
    fn may_be_here(&self, vpc: Option<&str>) -> bool {
        vpc.is_none_or(|vpc| self.vpcs().is_empty() || self.vpcs().contains(vpc))
    }

    fn read_load_balancers(&mut self, parts: &Parts) -> Result<(), SnapshotError> {
        if parts.has("LoadBalancers") {
            let all: Vec<wire::AnyLoadBalancer> = parts.all("LoadBalancers")?;
            let groups_of = all.iter().map(|any| (any.load_balancer_arn.clone(), any.security_groups.clone()));
            self.groups_of = groups_of.collect();
            self.names = Some(all.into_iter().map(|any| (any.load_balancer_name, any.load_balancer_arn)).collect());
        }
        let mut untagged = BTreeSet::new();
        for (part, index) in parts.places("LoadBalancers") {
            let any: wire::AnyLoadBalancer = part.read(index)?;
            if self.is_berths(&any.load_balancer_arn) {
                let is: wire::NetworkLoadBalancer = part.read(index)?;
                self.load_balancers.push(is.into());
            } else if !self.tags.contains_key(&any.load_balancer_arn) && self.may_be_here(any.vpc_id.as_deref()) {
                untagged.insert(any.load_balancer_name);
            }
        }
        if !untagged.is_empty() {
            let names: Vec<_> = untagged.into_iter().collect();
            self.lacks.push(format!(
                "no `TagDescriptions` of the load balancers {}, so they count as somebody else's: add `aws elbv2 describe-tags`",
                names.join(", ")
            ));
        }
        for (part, index) in parts.places("TargetGroups") {
            let any: wire::AnyTargetGroup = part.read(index)?;
            if self.is_berths(&any.target_group_arn) {
                let is: wire::OurTargetGroup = part.read(index)?;
                self.target_groups.push(is.into());
            }
        }
        for (part, index) in parts.places("Listeners") {
            let any: wire::AnyListener = part.read(index)?;
            if self.is_berths(&any.listener_arn) {
                let is: wire::OurListener = part.read(index)?;
                self.listeners.entry(any.load_balancer_arn).or_default().push(is.into());
            }
        }
        self.load_balancers = latest(std::mem::take(&mut self.load_balancers), |is| is.arn.clone());
        self.target_groups = latest(std::mem::take(&mut self.target_groups), |is| is.arn.clone());
        Ok(())
    }

    fn note_what_is_missing(&mut self, parts: &Parts) {
        let missing = |key: &str| !parts.has(key);
        let lacks = [
            ("Subnets", "they are chosen in the cloud"),
            ("SecurityGroups", "those that Services name are taken for granted, and none is Berth's"),
            ("LoadBalancers", "it is planned as if Berth had none"),
        ];
        for (key, so) in lacks.into_iter().filter(|(key, _)| missing(key)) {
            let call = KEYS.iter().find(|(known, _)| *known == key).map(|(_, call)| *call).unwrap_or_default();
            self.lacks.push(format!("no `{key}`, so {so}: add `aws {call}`"));
        }
        if !missing("Subnets") && missing("AvailabilityZones") {
            self.lacks.push(
                "no `AvailabilityZones`, so no zone counts as a local one: add `aws ec2 describe-availability-zones --all-availability-zones`"
                    .to_owned(),
            );
        }
        let listeners = self.load_balancers.iter().filter(|is| !self.listeners.contains_key(&is.arn));
        let listeners = listeners.map(|is| format!("no `Listeners` of Berth's load balancer {0}, or no `TagDescriptions` of them, so it counts as one without any: add `aws elbv2 describe-listeners --load-balancer-arn {1}` and `aws elbv2 describe-tags`", is.name, is.arn));
        let things = self.load_balancers.iter().map(|is| (&is.arn, &is.name, "load-balancer"));
        let things = things.chain(self.target_groups.iter().map(|is| (&is.arn, &is.name, "target-group")));
        let without = things.filter(|(arn, _, _)| !self.attributes.contains_key(*arn));
        let attributes = without.map(|(arn, name, kind)| {
            format!(
                "no `Attributes` of {name}, so it counts as one without any: add `aws elbv2 describe-{kind}-attributes --{kind}-arn {arn}`, \
                 with the ARN beside them"
            )
        });
        let more: Vec<_> = listeners.chain(attributes).collect();
        self.lacks.extend(more);
    }

    /// What the texts leave out, and what is made of that.
    pub fn lacks(&self) -> &[String] {
        &self.lacks
    }

    /// The VPCs of what is there: of the subnets, else of what Berth made, else of security groups.
    pub fn vpcs(&self) -> BTreeSet<&str> {
        let subnets: BTreeSet<_> = self.subnets.iter().flatten().map(|(vpc, _)| vpc.as_str()).collect();
        let made = || self.load_balancers.iter().map(|is| is.vpc_id.as_str()).collect::<BTreeSet<_>>();
        let groups = || self.groups.iter().flatten().filter_map(|(vpc, _)| vpc.as_deref()).collect();
        [subnets, made(), groups()].into_iter().find(|vpcs| !vpcs.is_empty()).unwrap_or_default()
    }

    /// The name of the cluster, if one alone has something here: a thing that Berth made, else a subnet.
    pub fn cluster(&self) -> Option<&str> {
        let groups = self.groups.iter().flatten().map(|(_, group)| &group.tags);
        let made_for = self.tags.values().chain(groups).filter_map(|of| of.get(tags::CLUSTER)).map(String::as_str);
        let made_for: BTreeSet<_> = made_for.collect();
        let keys = self.subnets.iter().flatten().flat_map(|(_, subnet)| subnet.tags.keys());
        let tagged: BTreeSet<_> = keys.filter_map(|key| key.strip_prefix(CLUSTER_TAG)).collect();
        let names = if made_for.is_empty() { tagged } else { made_for };
        if names.len() == 1 { names.first().copied() } else { None }
    }

    /// The UID of the cluster of that name, if all that Berth made for one says the same.
    pub fn cluster_uid(&self, cluster: &str) -> Option<&str> {
        let groups = self.groups.iter().flatten().map(|(_, group)| &group.tags);
        let named =
            self.tags.values().chain(groups).filter(|of| of.get(tags::CLUSTER).is_some_and(|name| name == cluster));
        let uids: BTreeSet<_> = named.filter_map(|of| of.get(tags::CLUSTER_UID)).collect();
        if uids.len() == 1 { uids.first().map(|uid| uid.as_str()) } else { None }
    }

    /// Whether it says which load balancers there are.
    pub fn knows_load_balancers(&self) -> bool {
        self.names.is_some()
    }

    /// What a look at a shard would see.
    pub fn observed(&self, settings: &Settings, shard: &Shard, wanted: &Wanted) -> Observed {
        let of_shard = |of: &Pairs| tags::is_ours(settings, of) && of.get(tags::SHARD) == Some(&shard.0);
        let no_tags = Pairs::new();
        let tags_of = |arn: &str| self.tags.get(arn).unwrap_or(&no_tags);
        let mine = self.load_balancers.iter().filter(|is| is.vpc_id == settings.vpc && of_shard(tags_of(&is.arn)));
        let mut observed = Observed {
            load_balancers: mine.map(|is| self.seen(is)).collect(),
            unseen: Unseen { subnets: self.subnets.is_none(), named_groups: self.groups.is_none() },
            ..Observed::default()
        };
        let in_vpc = |vpc: &str| vpc == settings.vpc;
        observed.subnets =
            self.subnets.iter().flatten().filter(|(vpc, _)| in_vpc(vpc)).map(|(_, subnet)| subnet.clone()).collect();
        observed.subnets.sort_by(|a, b| a.id.cmp(&b.id));
        let groups = self.groups.iter().flatten().filter(|(vpc, _)| vpc.as_deref().is_none_or(in_vpc));
        let groups: Vec<_> = groups.map(|(_, group)| group).collect();
        let ours = |group: &&&SecurityGroup| {
            of_shard(&group.tags) && tags::resource(&group.tags) == Some(Resource::SecurityGroup)
        };
        observed.security_groups = groups.iter().filter(ours).map(|group| (*group).clone()).collect();
        let is_backend = |group: &&&SecurityGroup| {
            tags::is_ours(settings, &group.tags) && tags::resource(&group.tags) == Some(Resource::BackendSecurityGroup)
        };
        observed.backend_group = groups.iter().find(is_backend).map(|group| group.id.clone());
        observed.has_others = self.has_others(settings, shard, &groups, observed.backend_group.as_ref());
        let words: BTreeSet<_> = named_groups(settings, wanted);
        let is_named = |group: &&&SecurityGroup| {
            words.contains(&group.id) || group.tags.get("Name").is_some_and(|name| words.contains(name))
        };
        observed.named_groups = groups.iter().filter(is_named).map(|group| (*group).clone()).collect();
        observed.named_groups.sort_by(|a, b| a.id.cmp(&b.id));
        let target_groups = self.target_groups.iter().filter(|is| of_shard(tags_of(&is.arn)));
        observed.target_groups = target_groups
            .map(|is| SeenTargetGroup {
                is: is.clone(),
                tags: tags_of(&is.arn).clone(),
                attributes: self.attributes.get(&is.arn).cloned().unwrap_or_default(),
                targets: None,
            })
            .collect();
        let rivals = with_rivals(&observed);
        for seen in observed.target_groups.iter_mut().filter(|seen| rivals.contains(&seen.is.arn)) {
            seen.targets = self.targets.get(&seen.is.arn).copied();
        }
        let own: BTreeSet<_> = observed.load_balancers.iter().map(|seen| &seen.is.arn).collect();
        let names = self.names.iter().flatten().filter(|(_, arn)| !own.contains(arn));
        observed.other_names = names.map(|(name, _)| name.clone()).collect();
        for is in self.load_balancers.iter().filter(|is| !own.contains(&is.arn)) {
            let of = tags_of(&is.arn);
            let Some(shard) = of.get(tags::SHARD).filter(|_| tags::is_ours(settings, of)) else { continue };
            let namespace = shard.split('/').next().unwrap_or_default();
            *observed.others_by_namespace.entry(namespace.to_owned()).or_default() += 1;
        }
        observed
    }

    /// Whether something of another shard, or a load balancer that is not ours any more, may use the backend security group.
    fn has_others(
        &self,
        settings: &Settings,
        shard: &Shard,
        groups: &[&SecurityGroup],
        backend: Option<&String>,
    ) -> bool {
        let things = self.load_balancers.iter().filter(|is| is.vpc_id == settings.vpc).map(|is| &is.arn);
        let things = things.chain(self.target_groups.iter().map(|is| &is.arn)).filter_map(|arn| self.tags.get(arn));
        let mut ours = things.chain(groups.iter().map(|group| &group.tags)).filter(|of| tags::is_ours(settings, of));
        let is_ours = |arn: &String| self.tags.get(arn).is_some_and(|of| tags::is_ours(settings, of));
        let uses = |of: &Vec<String>| backend.is_some_and(|backend| of.contains(backend));
        ours.any(|of| of.get(tags::SHARD).is_some_and(|of| *of != shard.0))
            || self.groups_of.iter().any(|(arn, of)| !is_ours(arn) && uses(of))
    }

    fn seen(&self, is: &LoadBalancer) -> SeenLoadBalancer {
        let tags_of = |arn: &str| self.tags.get(arn).cloned().unwrap_or_default();
        let attributes_of = |arn: &str| self.attributes.get(arn).cloned().unwrap_or_default();
        let listener = |is: &Listener| SeenListener {
            is: is.clone(),
            tags: tags_of(&is.arn),
            attributes: attributes_of(&is.arn),
            certificates: self.certificates.get(&is.arn).cloned().unwrap_or_default(),
        };
        let listeners = self.listeners.get(&is.arn).into_iter().flatten();
        SeenLoadBalancer {
            is: is.clone(),
            tags: tags_of(&is.arn),
            attributes: attributes_of(&is.arn),
            listeners: listeners.map(|is| (is.port, listener(is))).collect(),
            unnamed_for: Duration::ZERO,
        }
    }
}

fn named_groups(settings: &Settings, wanted: &Wanted) -> BTreeSet<String> {
    let asks = wanted.present.values().filter_map(|intent| Asks::of(intent, settings).ok());
    let words = asks.flat_map(|asks| match asks.front.security {
        Security::Given(words) => words,
        Security::Managed | Security::None => Vec::new(),
    });
    words.collect()
}

fn subnets(parts: &Parts) -> Result<Option<Vec<(String, Subnet)>>, SnapshotError> {
    if !parts.has("Subnets") {
        return Ok(None);
    }
    if !parts.has("RouteTables") {
        return Err(SnapshotError::NoRoutes);
    }
    let tables: Vec<wire::RouteTable> = parts.all("RouteTables")?;
    let zones: Vec<wire::Zone> = parts.all("AvailabilityZones")?;
    let read = |subnet: wire::Subnet| {
        let explicit = |table: &&wire::RouteTable| {
            table.associations.iter().any(|with| with.subnet_id.as_ref() == Some(&subnet.subnet_id))
        };
        let is_main = |table: &&wire::RouteTable| {
            table.vpc_id == subnet.vpc_id && table.associations.iter().any(|with| with.main)
        };
        // One that is associated with none has the VPC's main one.
        let table = tables.iter().find(explicit).or_else(|| tables.iter().find(is_main));
        let zone = zones.iter().find(|zone| zone.zone_name == subnet.availability_zone);
        let zone_type = match &subnet.outpost_arn {
            Some(_) => "outpost",
            None => zone.map_or(ORDINARY_ZONE, |zone| zone.zone_type.as_str()),
        };
        let is = Subnet {
            zone_type: zone_type.to_owned(),
            ipv6_cidr: subnet.ipv6(),
            is_public: table.is_some_and(wire::RouteTable::is_public),
            id: subnet.subnet_id,
            zone: subnet.availability_zone,
            cidr: subnet.cidr_block,
            free_addresses: subnet.available_ip_address_count,
            tags: pairs(subnet.tags),
        };
        (subnet.vpc_id, is)
    };
    let all = parts.all("Subnets")?.into_iter().map(read).collect();
    Ok(Some(latest(all, |(_, subnet)| subnet.id.clone())))
}

/// What is there twice, as in two texts, counts as it was read last.
fn latest<T>(all: Vec<T>, id: impl Fn(&T) -> String) -> Vec<T> {
    all.into_iter().map(|is| (id(&is), is)).collect::<BTreeMap<_, _>>().into_values().collect()
}

fn groups(parts: &Parts) -> Result<Option<Groups>, SnapshotError> {
    if !parts.has("SecurityGroups") {
        return Ok(None);
    }
    let all: Vec<wire::Group> = parts.all("SecurityGroups")?;
    let all: Vec<(_, SecurityGroup)> = all.into_iter().map(|group| (group.vpc_id.clone(), group.into())).collect();
    Ok(Some(latest(all, |(_, group)| group.id.clone())))
}

fn certificates(parts: &Parts) -> Result<ByOwner<BTreeSet<String>>, SnapshotError> {
    let beside = |all: Vec<wire::Certificate>| {
        all.into_iter()
            .filter(|certificate| !certificate.is_default)
            .map(|certificate| certificate.certificate_arn)
            .collect()
    };
    Ok(parts.owned("Certificates")?.into_iter().map(|(arn, all)| (arn, beside(all))).collect())
}

fn targets(parts: &Parts) -> Result<ByOwner<Counts>, SnapshotError> {
    let count = |all: Vec<wire::Health>| Counts::of(all.iter().map(wire::Health::state));
    Ok(parts.owned("TargetHealthDescriptions")?.into_iter().map(|(arn, all)| (arn, count(all))).collect())
}

#[cfg(test)]
mod tests;
