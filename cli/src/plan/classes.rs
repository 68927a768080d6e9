//! What the controller was told by flags: which provider serves which class, whether a cordoned node is drained, and whether the exclude
//! label counts. As this program's own flags say, else as those of the controller in the cluster.

use std::collections::BTreeSet;

use berth_aws::flags::Flags as AwsFlags;
use berth_azure::flags::Flags as AzureFlags;
use berth_pool::world::World;
use berth_provider::class::{
    Classes, ClassesError, DEFAULT_DEFAULT, DEFAULT_PROVIDERS, DefaultProvider, Mapping, ProviderName,
};
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, ValueEnum};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, EnvVar};

use crate::observed::Seen;

/// The controller's container.
const CONTAINER: &str = "controller";
/// The controller's flags that matter here, and the variables that stand for them.
const FLAGS: [(&str, &str); 5] = [
    ("--providers", "BERTH_PROVIDERS"),
    ("--default-provider", "BERTH_DEFAULT_PROVIDER"),
    ("--class", "BERTH_CLASSES"),
    (DRAIN_ON_CORDON, "BERTH_DRAIN_ON_CORDON"),
    (IGNORE_EXCLUDE_LB, "BERTH_IGNORE_EXCLUDE_LB"),
];
const DRAIN_ON_CORDON: &str = "--drain-on-cordon";
const IGNORE_EXCLUDE_LB: &str = "--ignore-exclude-lb";
/// Those that need no value.
const SWITCHES: [&str; 2] = [DRAIN_ON_CORDON, IGNORE_EXCLUDE_LB];

/// The controller's own flags, as far as they matter to a plan.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "The controller's flags")]
pub struct ClassArgs {
    /// The providers that are switched on [default: as the controller's Deployment says; offline: pool]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PROVIDER,...")]
    pub providers: Option<Vec<ProviderName>>,
    /// Who serves a Service without `spec.loadBalancerClass` [default: as the controller's Deployment says; offline: none]
    #[arg(long, value_enum, value_name = "PROVIDER")]
    pub default_provider: Option<DefaultProvider>,
    /// A further class that a provider serves, such as example.com/lb=pool; may be given several times [default: as the controller's Deployment says; offline: none]
    #[arg(long = "class", value_delimiter = ',', value_name = "CLASS=PROVIDER")]
    pub classes: Option<Vec<Mapping>>,
    /// Whether a node that is cordoned gives up the addresses that it owns [default: as the controller's Deployment says; offline: false]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub drain_on_cordon: Option<bool>,
    /// Whether nodes announce although they have the label node.kubernetes.io/exclude-from-external-load-balancers [default: as the controller's Deployment says; offline: false]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub ignore_exclude_lb: Option<bool>,
}

/// All of the controller's flags that matter to a plan.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerFlags {
    /// Who serves what.
    #[command(flatten)]
    pub classes: ClassArgs,
    /// What the AWS provider is told.
    #[command(flatten)]
    pub aws: AwsFlags,
    /// What the Azure provider is told.
    #[command(flatten)]
    pub azure: AzureFlags,
}

impl ControllerFlags {
    fn or(&self, other: Self) -> Self {
        let Self { classes, aws, azure } = other;
        // What it names is in the controller's pod.
        let azure = AzureFlags { config: None, ..azure };
        Self { classes: self.classes.or(classes), aws: self.aws.or(aws), azure: self.azure.or(azure) }
    }
}

/// What the controller's switches have a plan take into account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    drain_on_cordon: bool,
    ignore_exclude_lb: bool,
}

impl Switches {
    /// Tells the pools' planner.
    pub fn tell(self, world: &mut World) {
        world.set_drain_on_cordon(self.drain_on_cordon);
        world.set_ignore_exclude_label(self.ignore_exclude_lb);
    }
}

/// Why it cannot be said who serves what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassesUnknown {
    /// The flags do not go together.
    #[error(transparent)]
    Flags(#[from] ClassesError),
    /// The controller's own defaults cannot be read: this program is broken.
    #[error("the default `{0}` is no provider")]
    Default(&'static str),
}

impl ClassArgs {
    /// Who serves which class.
    pub fn served(&self) -> Result<Classes, ClassesUnknown> {
        let read = |word: &'static str| ProviderName::from_str(word, true).map_err(|_| ClassesUnknown::Default(word));
        let providers: BTreeSet<_> = match &self.providers {
            Some(providers) => providers.iter().copied().collect(),
            None => DEFAULT_PROVIDERS.split(',').map(read).collect::<Result<_, _>>()?,
        };
        let default = match self.default_provider {
            Some(default) => default,
            None => DefaultProvider::from_str(DEFAULT_DEFAULT, true)
                .map_err(|_| ClassesUnknown::Default(DEFAULT_DEFAULT))?,
        };
        Ok(Classes::new(&providers, self.classes.as_deref().unwrap_or_default(), default.name())?)
    }

    /// Whether a provider is switched on by what is said.
    pub fn has(&self, provider: ProviderName) -> bool {
        self.providers.iter().flatten().any(|on| *on == provider)
    }

    /// Its switches; off where nothing is said.
    pub fn switches(&self) -> Switches {
        let is_on = |switch: Option<bool>| switch.unwrap_or(false);
        Switches { drain_on_cordon: is_on(self.drain_on_cordon), ignore_exclude_lb: is_on(self.ignore_exclude_lb) }
    }

    fn or(&self, other: Self) -> Self {
        Self {
            providers: self.providers.clone().or(other.providers),
            default_provider: self.default_provider.or(other.default_provider),
            classes: self.classes.clone().or(other.classes),
            drain_on_cordon: self.drain_on_cordon.or(other.drain_on_cordon),
            ignore_exclude_lb: self.ignore_exclude_lb.or(other.ignore_exclude_lb),
        }
    }
}

/// What the flags say, and where they say nothing, what the controller of the cluster was started with.
pub fn in_cluster(
    given: &ControllerFlags,
    controller: &Seen<Option<Deployment>>,
    notes: &mut Vec<String>,
) -> ControllerFlags {
    let found = match controller {
        Seen::Here(Some(deployment)) => of_deployment(deployment),
        Seen::Here(None) | Seen::KindMissing => Err("there is none".to_owned()),
        Seen::Unreadable(why) => Err(why.message.clone()),
    };
    let ClassArgs { providers, default_provider, classes, drain_on_cordon, ignore_exclude_lb } = &given.classes;
    let are_switched = drain_on_cordon.is_some() && ignore_exclude_lb.is_some();
    match found {
        Ok(flags) => given.or(flags),
        Err(_) if providers.is_some() && default_provider.is_some() && classes.is_some() && are_switched => {
            given.clone()
        }
        Err(why) => {
            notes.push(format!(
                "warning: who serves which class is not known from the controller's Deployment: {why}; planned as with \
                 --providers={DEFAULT_PROVIDERS} --default-provider={DEFAULT_DEFAULT}, unless these flags say otherwise"
            ));
            given.clone()
        }
    }
}

/// The flags among the words of a controller's command line.
#[derive(Parser)]
#[command(args_override_self = true)]
struct Words {
    #[command(flatten)]
    flags: ControllerFlags,
}

impl Words {
    fn read(words: impl Iterator<Item = String>) -> Result<ControllerFlags, clap::Error> {
        let command = without_variables(Self::command());
        let words = std::iter::once("controller".to_owned()).chain(words);
        Ok(Self::from_arg_matches(&command.try_get_matches_from(words)?)?.flags)
    }
}

/// The same command, which reads no variables: those that stand for the controller's flags are the controller's.
pub fn without_variables(command: Command) -> Command {
    command.mut_args(|argument| argument.env(None::<&'static str>))
}

/// The flags that matter, and the variables that stand for them.
fn flags() -> Vec<(String, String)> {
    let clouds = AzureFlags::augment_args(AwsFlags::augment_args(Command::new("controller")));
    let clouds = clouds.get_arguments().filter_map(|argument| {
        Some((format!("--{}", argument.get_long()?), argument.get_env()?.to_string_lossy().into_owned()))
    });
    FLAGS.iter().map(|(flag, variable)| ((*flag).to_owned(), (*variable).to_owned())).chain(clouds).collect()
}

/// Whether a word of a command line is that flag, with a value or before one.
fn is_flag(word: &str, flag: &str) -> bool {
    word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

/// What a Deployment starts the controller with, or why that cannot be said.
fn of_deployment(deployment: &Deployment) -> Result<ControllerFlags, String> {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let containers = pod.map(|pod| &pod.containers[..]).unwrap_or_default();
    let container = containers.iter().find(|container| container.name == CONTAINER);
    let container = container.or(containers.first()).ok_or("it has no container")?;
    let known = flags();
    let words = words_of(container, &known)?;
    if let Some(word) = words.iter().find(|word| word.contains("$(")) {
        return Err(format!("`{word}` is filled in when the container starts"));
    }
    let first_line = |error: clap::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    let mut flags = Words::read(words.iter().cloned()).map_err(first_line)?;
    // A variable counts where the flag is not there.
    for (flag, variable) in known.iter().filter(|(flag, _)| !words.iter().any(|word| is_flag(word, flag))) {
        match container.env.iter().flatten().find(|env| env.name == *variable) {
            Some(EnvVar { value: Some(value), value_from: None, .. }) => {
                let more = Words::read(std::iter::once(format!("{flag}={value}")));
                flags = flags.or(more.map_err(|_| format!("`{variable}={value}` cannot be read"))?);
            }
            // What a cloud's provider is told has no part in who serves what; the plan says what it lacks.
            _ if !FLAGS.iter().any(|(known, _)| known == flag) => {}
            Some(EnvVar { value_from: Some(_), .. }) => {
                return Err(format!("the variable {variable} comes from another object"));
            }
            None if container.env_from.as_ref().is_some_and(|from| !from.is_empty()) => {
                return Err(format!("the variable {variable} may come from another object"));
            }
            Some(_) | None => {}
        }
    }
    Ok(flags)
}

/// The words of a container's command line that matter; the others are of no concern here.
fn words_of(container: &Container, flags: &[(String, String)]) -> Result<Vec<String>, String> {
    let mut all = container.command.iter().flatten().chain(container.args.iter().flatten());
    let mut words = Vec::new();
    while let Some(word) = all.next() {
        if !flags.iter().any(|(flag, _)| is_flag(word, flag)) {
            continue;
        }
        words.push(word.clone());
        if !word.contains('=') && !SWITCHES.contains(&word.as_str()) {
            words.push(all.next().ok_or_else(|| format!("`{word}` has no value"))?.clone());
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(container: Value) -> Deployment {
        let mut container = container;
        container["name"] = json!("controller");
        let pod = json!({"spec": {"containers": [{"name": "proxy", "args": ["--class=a/b=mock"]}, container]}});
        serde_json::from_value(json!({"spec": {"selector": {}, "template": pod}})).unwrap()
    }

    fn told(args: &ClassArgs) -> String {
        let ClassArgs { providers, default_provider, classes, .. } = args;
        let providers = providers.as_ref().map(|p| p.iter().map(|p| p.as_str()).collect::<Vec<_>>().join(","));
        let classes = classes.as_ref().map(|c| c.iter().map(|m| m.class.clone()).collect::<Vec<_>>().join(","));
        let or = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
        format!("{} {} {}", or(providers), or(default_provider.map(|d| format!("{d:?}"))), or(classes))
    }

    #[test]
    fn a_deployment_tells_what_its_controller_serves() {
        for (container, expected) in [
            (json!({}), Ok("? ? ?")),
            (json!({"args": ["--log-format=json", "--default-provider=pool"]}), Ok("? Pool ?")),
            (json!({"args": ["--default-provider", "pool", "--providers", "pool,mock"]}), Ok("pool,mock Pool ?")),
            (json!({"command": ["/berth-controller", "--default-provider=mock"]}), Ok("? Mock ?")),
            // As the controller itself: of one that is given again the last counts, and these add up.
            (json!({"args": ["--default-provider=pool", "--default-provider=none"]}), Ok("? None ?")),
            (json!({"args": ["--class=a/b=pool", "--class", "c/d=pool"]}), Ok("? ? a/b,c/d")),
            (json!({"env": [{"name": "BERTH_DEFAULT_PROVIDER", "value": "pool"}]}), Ok("? Pool ?")),
            (
                json!({"args": ["--default-provider=none"], "env": [{"name": "BERTH_DEFAULT_PROVIDER", "value": "pool"}]}),
                Ok("? None ?"),
            ),
            (json!({"args": ["--providers"]}), Err("`--providers` has no value")),
            (json!({"args": ["--providers=$(P)"]}), Err("`--providers=$(P)` is filled in when the container starts")),
            (
                json!({"args": ["--providers=cloud"]}),
                Err("error: invalid value 'cloud' for '--providers <PROVIDER,...>'"),
            ),
            (
                json!({"env": [{"name": "BERTH_PROVIDERS", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}]}),
                Err("the variable BERTH_PROVIDERS comes from another object"),
            ),
            (
                json!({"envFrom": [{"configMapRef": {"name": "a"}}]}),
                Err("the variable BERTH_PROVIDERS may come from another object"),
            ),
        ] {
            let found = of_deployment(&deployment(container.clone()));
            assert_eq!(
                found.as_ref().map(|found| told(&found.classes)).map_err(String::as_str),
                expected.map(str::to_owned),
                "{container}"
            );
        }
    }

    #[test]
    fn a_deployment_tells_its_controllers_switches() {
        for (container, drain_on_cordon, ignore_exclude_lb) in [
            (json!({}), None, None),
            (json!({"args": ["--drain-on-cordon", "--default-provider=pool"]}), Some(true), None),
            (json!({"args": ["--drain-on-cordon=false"]}), Some(false), None),
            (json!({"env": [{"name": "BERTH_DRAIN_ON_CORDON", "value": "true"}]}), Some(true), None),
            (json!({"args": ["--ignore-exclude-lb", "--drain-on-cordon"]}), Some(true), Some(true)),
            (
                json!({"args": ["--ignore-exclude-lb=false"], "env": [{"name": "BERTH_IGNORE_EXCLUDE_LB", "value": "true"}]}),
                None,
                Some(false),
            ),
            (json!({"env": [{"name": "BERTH_IGNORE_EXCLUDE_LB", "value": "true"}]}), None, Some(true)),
        ] {
            let found = of_deployment(&deployment(container.clone())).unwrap().classes;
            let switches = (found.drain_on_cordon, found.ignore_exclude_lb);
            assert_eq!(switches, (drain_on_cordon, ignore_exclude_lb), "{container}");
        }
    }

    #[test]
    fn a_flag_counts_more_than_the_deployment_and_what_is_not_known_is_told() {
        let classes = ClassArgs { default_provider: Some(DefaultProvider::None), ..ClassArgs::default() };
        let given = ControllerFlags { classes, ..ControllerFlags::default() };
        let mut notes = Vec::new();
        let there = Seen::Here(Some(deployment(json!({"args": ["--default-provider=pool", "--providers=mock"]}))));
        assert_eq!((told(&in_cluster(&given, &there, &mut notes).classes).as_str(), notes.len()), ("mock None ?", 0));
        assert_eq!(told(&in_cluster(&given, &Seen::Here(None), &mut notes).classes), "? None ?");
        assert!(notes[0].starts_with(
            "warning: who serves which class is not known from the controller's Deployment: there is none; "
        ));
    }

    #[test]
    fn a_deployment_tells_what_its_controller_is_told_of_aws() {
        let container = json!({
            "args": ["--providers=aws", "--aws-cluster-name", "prod", "--aws-internet-facing-namespaces=shop,web"],
            "env": [
                {"name": "BERTH_AWS_DEFAULT_TARGET_TYPE", "value": "ip"}, {"name": "BERTH_AWS_CLUSTER_NAME", "value": "other"},
                {"name": "BERTH_AWS_VPC_ID", "valueFrom": {"fieldRef": {"fieldPath": "a"}}},
            ],
        });
        let found = of_deployment(&deployment(container)).unwrap();
        assert_eq!(told(&found.classes), "aws ? ?");
        let settings = found.aws.settings("prod", "uid", "vpc");
        assert_eq!((found.aws.cluster_name.as_deref(), found.aws.vpc_id), (Some("prod"), None));
        assert!(settings.admission.internet_facing.has("web"));
        assert_eq!(settings.target_kind, berth_aws::intent::TargetKind::Ip);
    }

    #[test]
    fn a_deployment_tells_what_its_controller_is_told_of_azure_but_for_a_file_that_is_in_its_pod() {
        let container = json!({
            "args": ["--providers=azure", "--azure-config=/etc/berth-azure/azure.json", "--azure-public-namespaces=shop"],
            "env": [{"name": "BERTH_AZURE_CLUSTER_NAME", "value": "prod"}],
        });
        let mut notes = Vec::new();
        let seen = Seen::Here(Some(deployment(container)));
        let found = in_cluster(&ControllerFlags::default(), &seen, &mut notes);
        assert!(found.classes.has(ProviderName::Azure) && !found.classes.has(ProviderName::Aws), "{notes:?}");
        assert_eq!((found.azure.cluster_name.as_deref(), found.azure.config), (Some("prod"), None));
        assert!(found.azure.public_namespaces.unwrap().has("shop"));
    }

    #[test]
    fn without_a_word_it_is_as_with_the_controllers_own_defaults() {
        let service = |class: Option<&str>| {
            serde_json::from_value(json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": class}})).unwrap()
        };
        let classes = ClassArgs::default().served().unwrap();
        assert_eq!(classes.of(&service(None)), berth_provider::class::Served::Elsewhere);
        assert_eq!(classes.of(&service(Some("berth.dev/pool"))), berth_provider::class::Served::By(ProviderName::Pool));
        assert_eq!(classes.of(&service(Some("berth.dev/mock"))), berth_provider::class::Served::Elsewhere);
    }
}
