//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use berth_aws::flags::Flags as AwsFlags;
use berth_azure::flags::Flags as AzureFlags;
use berth_provider::class::{DefaultProvider, ProviderName};

use crate::plan::{ClassArgs, ControllerFlags, Removal, without_variables};

const EXIT_CODES: &str = "Exit codes: 0 nothing that could be looked at is broken, 1 something does not work, \
2 wrong usage, or the cluster or the Service asked about could not be reached. Of plan and simulate, whose answer 2 is for pipelines: 0 nobody loses an \
address, 2 somebody would, 1 it could not be said.";

const PLAN_HELP: &str = "Examples:
  What an edit of a pool does to the cluster, before it is applied:
    kubectl berth plan -f pools.yaml
  Who would lose an address if a pool were deleted:
    kubectl berth plan --delete ipaddresspool/office
  Without a cluster, from files that are everything there is:
    kinds=services,namespaces,nodes,endpointslices,servicecidrs
    kinds=$kinds,ipaddresspools,l2advertisements,routeadvertisements
    kinds=$kinds,announcements,speakernodes
    kubectl get $kinds -A -o yaml > world.yaml
    kubectl berth plan --offline -f world.yaml,pools.yaml \\
      --default-provider pool
  What AWS would be asked for, against what the AWS CLI printed of it:
    aws ec2 describe-subnets > subnets.json
    aws ec2 describe-route-tables > routes.json
    kubectl berth plan -f service.yaml --provider aws \\
      --aws-cluster-name prod --observed subnets.json,routes.json
  What Azure would be asked for, against what `az` printed of it:
    az network lb list -o json > balancers.json
    az network vnet list -o json > networks.json
    kubectl berth plan -f service.yaml --provider azure \\
      --azure-cluster-name prod --azure-config azure.json \\
      --observed balancers.json,networks.json
  In a pipeline, to stop where somebody would lose an address:
    kubectl berth plan -f manifests/ -R -o json > plan.json || exit 1

Files may be separated by commas. Without --offline the objects are laid over those of the cluster: each takes the place of the one of its name, and what the API server \
fills in and the file leaves out stays. Nothing is written anywhere. The schema of -o json is docs/reference/plan.schema.json.

Exit codes: 0 nobody loses an address, 2 somebody would lose a working address, have it replaced or be interrupted, 1 the plan could not be made. \
`status`, `drain` and `rebalance` have 1 for what does not work and 2 for what could not be done.";

const SIMULATE_HELP: &str = "Examples:
  What a crash of a node would cost:
    kubectl berth simulate --fail node-1
  Of two at once:
    kubectl berth simulate --fail node-1 node-2
  Before a node is taken down on purpose:
    kubectl berth simulate --drain node-1
  Without a cluster, from files that are everything there is:
    kubectl berth simulate --fail node-1 --offline -f world.yaml

Nothing is written anywhere. A node that fails dies at once: of each address the first of its standbys that lives takes over, by itself; where \
all of them fail, the controller names others. A node that is not ready counts as one that does not take over. The schema of -o json is \
docs/reference/simulate.schema.json.

Exit codes: 0 every address keeps or finds a node, 2 an address would be lost, or would stay on a node that is to be drained, \
1 it could not be simulated. `status`, `drain` and `rebalance` have 1 for what does not work and 2 for what could not be done.";

const DRAIN_HELP: &str = "Examples:
  Before maintenance, and after it:
    kubectl berth drain node-1
    kubectl berth drain node-1 --undo
  In a script that does not wait for ever:
    kubectl berth drain node-1 --timeout 2m || exit 1

The node gets the annotation berth.dev/drain. Each of its addresses moves to a standby, which answers before the node stops to: new connections \
see nothing of it, established ones to that address break. An address that no other node can answer for stays. Nothing moves back with --undo.

Exit codes: 0 the node owns nothing, 1 it still owned something when the time was up, 2 wrong usage, or the cluster could not be reached.";

const REBALANCE_HELP: &str = "Examples:
  What would move, and nothing more:
    kubectl berth rebalance --dry-run
  At most ten addresses, one in ten seconds:
    kubectl berth rebalance --max-moves 10 --interval 10s
  In a script:
    kubectl berth rebalance --yes

Berth itself moves nothing for balance, because a move breaks the established connections of the address. This moves those that are on a \
node while advertisements prefer others, and the fewest that bring every node down to its share and a quarter, one after the other, each awaited until the new node answers; it asks first. With -n only \
addresses that Services of that namespace hold. The schema of -o json is docs/reference/rebalance.schema.json.

Exit codes: 0 all was moved, or there was nothing to move, 1 some was not, 2 wrong usage, or the cluster could not be reached.";

const ORPHANS_HELP: &str = "Examples:
  What Services left behind:
    kubectl berth orphans
  Its identities, for a script:
    kubectl berth orphans -o json | jq -r '.orphans[].id'
  Have what a Service left removed, all of it:
    kubectl berth orphans --remove shop/web

The controller searches when it begins to lead and then once an hour, and lists in a ConfigMap of its namespace what no Service explains that is here: one whose finalizer was removed by force left it, or a cluster that was restored from a backup forgot it. It removes none of it but what a person names by --remove, which is all that one Service left. Look at it in the cloud before. The controller asks the API server once more whether the Service is there, and removes in the order that the cloud needs; how far it is, and what stands against it, is in the list.

Exit codes: 0 there are none, nobody searched, or what was named is to be removed, 1 there are some, a list could not be read, or somebody said no, 2 wrong usage, or the cluster could not be reached.";

/// Shows what Berth serves, and at which link a Service stops working
#[derive(Parser, Clone, Debug)]
#[command(
    name = "kubectl-berth",
    bin_name = "kubectl berth",
    version,
    disable_help_subcommand = true,
    after_help = format!("Examples:
  kubectl berth status
  kubectl berth status web -n shop
  kubectl berth status -A -o json
  kubectl berth plan -f pools.yaml
  kubectl berth simulate --fail node-1
  kubectl berth drain node-1
  kubectl berth version

{EXIT_CODES}")
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How the cluster is reached.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// The whole command line. Its flags stand for themselves: the variables of the controller's are the controller's.
pub fn command() -> clap::Command {
    Cli::command().mut_subcommands(without_variables)
}

/// What to do.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Show the installation and its Services, or where the chain of one Service breaks
    #[command(after_help = "Examples:
  The installation, and the Services of the current namespace:
    kubectl berth status
  Those of all namespaces, with more columns:
    kubectl berth status -A -o wide
  One Service, link by link, from its class to its endpoints:
    kubectl berth status web
  For a script:
    kubectl berth status web -o json |
      jq -r '.links[] | select(.state == \"broken\") | .reason'")]
    Status(StatusArgs),
    /// Show what the controller would do, by its own planner: who keeps, gains or loses an address, and why
    #[command(after_help = PLAN_HELP)]
    Plan(Box<PlanArgs>),
    /// Show what would become of every address if nodes failed or were drained
    #[command(after_help = SIMULATE_HELP)]
    Simulate(SimulateArgs),
    /// Have a node give up the addresses that it owns, and wait until it owns none
    #[command(after_help = DRAIN_HELP)]
    Drain(DrainArgs),
    /// Move addresses away from nodes that own too many, after asking
    #[command(after_help = REBALANCE_HELP)]
    Rebalance(RebalanceArgs),
    /// List what carries this cluster's marks in a cloud and belongs to no Service
    #[command(after_help = ORPHANS_HELP)]
    Orphans(OrphansArgs),
    /// Show the versions of this plugin, of Berth in the cluster and of Kubernetes
    Version(VersionArgs),
    /// Print a script that completes `kubectl-berth` in a shell
    #[command(after_help = "Examples:
  For the running shell:
    source <(kubectl berth completion bash)
  For every bash of this user:
    kubectl berth completion bash > ~/.local/share/bash-completion/completions/kubectl-berth

These scripts complete `kubectl-berth ...`. For `kubectl berth ...`, kubectl's own completion asks a program `kubectl_complete-berth`
on the PATH, and this program is one when it is called by that name:
    ln -s \"$(command -v kubectl-berth)\" ~/.local/bin/kubectl_complete-berth")]
    Completion(CompletionArgs),
}

/// Arguments of `status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// The Service to follow link by link; without one, a summary
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
    /// Services of all namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["service", "namespace"])]
    pub all_namespaces: bool,
    /// How to print it; by default as tables
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<StatusOutput>,
}

/// Output of `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusOutput {
    /// The report as JSON
    Json,
    /// The report as YAML
    Yaml,
    /// Tables with more columns
    Wide,
}

/// Arguments of `plan`.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// Objects in YAML or JSON: files, directories, or - for standard input; may be given several times
    #[arg(
        short,
        long,
        value_name = "FILE",
        num_args = 1..,
        required_unless_present = "delete"
    )]
    pub filename: Vec<String>,
    /// Look into directories below those that are named, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Plan as if the object were deleted: KIND/NAME, such as ipaddresspool/office, or service/NAMESPACE/NAME; may be given several times
    #[arg(long, value_name = "KIND/NAME")]
    pub delete: Vec<Removal>,
    /// The files are everything there is; ask no cluster
    #[arg(long, requires = "filename")]
    pub offline: bool,
    /// Plan as if this provider alone were switched on, and served what names no class; asks no cluster where none is configured
    #[arg(long, value_enum, value_name = "PROVIDER", conflicts_with = "providers")]
    pub provider: Option<ProviderName>,
    /// What is there in the cloud, as its own CLI prints it in JSON, or - for standard input; may be given several times. Of AWS: subnets, route tables, availability zones, security groups, load balancers, target groups, listeners, tags, attributes. Of Azure: load balancers, network security groups, public IPs, virtual networks. Without, the cloud is not looked at
    #[arg(long, value_name = "FILE")]
    pub observed: Vec<String>,
    /// How to print it; by default as tables
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<StatusOutput>,
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

impl PlanArgs {
    /// What the controller is told by flags.
    pub fn controller(&self) -> ControllerFlags {
        let mut classes = self.classes.clone();
        if let Some(provider) = self.provider {
            classes.providers = Some(vec![provider]);
            classes.default_provider = classes.default_provider.or(Some(DefaultProvider::of(provider)));
        }
        ControllerFlags { classes, aws: self.aws.clone(), azure: self.azure.clone() }
    }
}

/// Arguments of `simulate`.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("fault").required(true))]
pub struct SimulateArgs {
    /// Nodes that die at once, without a word
    #[arg(long, value_name = "NODE", num_args = 1.., value_delimiter = ',', group = "fault")]
    pub fail: Vec<String>,
    /// Nodes that are to give up what they own
    #[arg(long, value_name = "NODE", num_args = 1.., value_delimiter = ',', group = "fault")]
    pub drain: Vec<String>,
    /// Objects in YAML or JSON that are laid over those of the cluster: files, directories, or - for standard input; may be given several times
    #[arg(short, long, value_name = "FILE", num_args = 1..)]
    pub filename: Vec<String>,
    /// Look into directories below those that are named, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// The files are everything there is; ask no cluster
    #[arg(long, requires = "filename")]
    pub offline: bool,
    /// How to print it; by default as tables
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<StatusOutput>,
    /// Who serves what.
    #[command(flatten)]
    pub classes: ClassArgs,
}

/// Arguments of `drain`.
#[derive(Args, Clone, Debug)]
pub struct DrainArgs {
    /// The node
    #[arg(value_name = "NODE")]
    pub node: String,
    /// Let it own addresses again
    #[arg(long)]
    pub undo: bool,
    /// Do not wait until it owns none
    #[arg(long, conflicts_with = "undo")]
    pub no_wait: bool,
    /// Longest to wait, such as 30s or 2m; 0 waits for as long as it takes
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub timeout: Limit,
}

/// Arguments of `rebalance`.
#[derive(Args, Clone, Debug)]
pub struct RebalanceArgs {
    /// Show what would move, and move nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Most addresses to move
    #[arg(long, value_name = "N")]
    pub max_moves: Option<usize>,
    /// How long to wait after a move before the next, such as 10s; 0 does not wait
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub interval: Limit,
    /// How many addresses to move at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub parallel: u8,
    /// Longest to wait for one move, such as 30s; 0 waits for as long as it takes
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub timeout: Limit,
    /// How to print what is planned; by default as tables
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<StatusOutput>,
}

/// Arguments of `orphans`.
#[derive(Args, Clone, Debug)]
pub struct OrphansArgs {
    /// Have the controller remove all that these Services left, each by NAMESPACE/NAME or by its UID, after asking
    #[arg(long, value_name = "SERVICE", num_args = 1..)]
    pub remove: Vec<String>,
    /// Do not ask
    #[arg(short, long, requires = "remove")]
    pub yes: bool,
    /// How to print it; by default as a table
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<VersionOutput>,
}

/// Arguments of `version`.
#[derive(Args, Clone, Debug)]
pub struct VersionArgs {
    /// Only this plugin's; asks no cluster
    #[arg(long)]
    pub client: bool,
    /// How to print it; by default as lines of text
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<VersionOutput>,
}

/// Output of `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VersionOutput {
    /// As JSON
    Json,
    /// As YAML
    Yaml,
}

/// Arguments of `completion`.
#[derive(Args, Clone, Debug)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A shell that scripts are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Shell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
    /// PowerShell
    #[value(name = "powershell")]
    Power,
}

/// kubectl's own flags, with kubectl's meaning.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Kubernetes")]
pub struct ClientArgs {
    /// The kubeconfig; by default those that KUBECONFIG lists, or `~/.kube/config`
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The cluster of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// The user of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// The namespace; by default that of the context
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Address of the API server
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Bearer token to authenticate with
    #[arg(long, global = true, value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// User to act as
    #[arg(long = "as", global = true, value_name = "USER")]
    pub as_user: Option<String>,
    /// Group to act as; may be given several times
    #[arg(long, global = true, value_name = "GROUP", requires = "as_user")]
    pub as_group: Vec<String>,
    /// Certificate of the authority that signed the API server's certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,
    /// Client certificate to authenticate with
    #[arg(long, global = true, value_name = "FILE")]
    pub client_certificate: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// Name that the API server's certificate has to be for
    #[arg(long, global = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// Believe any certificate of the API server; the connection is then not safe
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// Longest that one request may take, such as 5s, 2m or a number of seconds; 0 waits for as long as it takes
    #[arg(long, global = true, value_name = "DURATION", default_value = "0", value_parser = duration)]
    pub request_timeout: Limit,
}

/// The longest that a request may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit(pub Option<Duration>);

/// Reads a duration as kubectl does: seconds, or numbers with units. Zero is no limit.
fn duration(text: &str) -> Result<Limit, String> {
    let wrong = || format!("`{text}` is no duration; write one such as 30s, 2m or 1h30m, or a number of seconds");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Limit((seconds > 0).then(|| Duration::from_secs(seconds))));
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0).ok_or_else(wrong)?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let milliseconds = match &rest[digits..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(milliseconds).map(Duration::from_millis);
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[unit..];
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Ok(Limit((total > Duration::ZERO).then_some(total)))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_duration_reads_as_in_kubectl() {
        for (text, milliseconds) in [
            ("0", Some(None::<u128>)),
            ("0s", Some(None)),
            ("5", Some(Some(5_000))),
            ("5s", Some(Some(5_000))),
            ("1h30m", Some(Some(5_400_000))),
            ("250ms", Some(Some(250))),
            ("", None),
            ("s", None),
            ("5 s", None),
            ("5x", None),
            ("-5s", None),
            ("s5", None),
            ("99999999999999999999", None),
            ("18446744073709551615h", None),
        ] {
            let read = duration(text).ok().map(|limit| limit.0.map(|limit| limit.as_millis()));
            assert_eq!(read, milliseconds, "{text:?}");
        }
    }

    #[test]
    fn flags_stand_before_or_behind_the_subcommand() {
        for line in [
            &["kubectl-berth", "-n", "shop", "--context", "lab", "status", "web", "-o", "json"][..],
            &["kubectl-berth", "status", "web", "-o", "json", "-n", "shop", "--context", "lab"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.client.namespace.as_deref(), Some("shop"));
            assert_eq!(cli.client.context.as_deref(), Some("lab"));
            let Command::Status(status) = cli.command else { panic!("{line:?}") };
            assert_eq!((status.service.as_deref(), status.output), (Some("web"), Some(StatusOutput::Json)));
        }
    }

    #[test]
    fn no_command_of_the_examples_is_wrapped_on_a_terminal_of_80_columns() {
        for sub in command().get_subcommands() {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            let mut commands = help.lines().filter(|line| line.starts_with("    "));
            // The script of completion goes to a file whose name is as long as it is.
            let wide = commands.find(|line| sub.get_name() != "completion" && line.len() > 80);
            assert_eq!(wide, None, "{}", sub.get_name());
        }
    }

    #[test]
    fn a_provider_is_planned_for_alone_and_by_default() {
        let of = |words: &[&str]| {
            let words = ["kubectl-berth", "plan", "-f", "a.yaml"].iter().chain(words);
            let Command::Plan(args) = Cli::try_parse_from(words).unwrap().command else { panic!("no plan") };
            let ClassArgs { providers, default_provider, .. } = args.controller().classes;
            (providers, default_provider)
        };
        assert_eq!(of(&["--provider", "aws"]), (Some(vec![ProviderName::Aws]), Some(DefaultProvider::Aws)));
        let given = of(&["--provider", "aws", "--default-provider", "none"]);
        assert_eq!(given, (Some(vec![ProviderName::Aws]), Some(DefaultProvider::None)));
        assert_eq!(of(&[]), (None, None), "as the controller's Deployment says");
    }

    #[test]
    fn the_plugin_reads_no_variables_of_the_controllers() {
        let plan = command();
        let plan = plan.get_subcommands().find(|sub| sub.get_name() == "plan").unwrap();
        let flags: Vec<_> = plan.get_arguments().filter(|argument| argument.get_env().is_some()).collect();
        assert!(flags.is_empty(), "{flags:?}");
        assert!(plan.get_arguments().any(|argument| argument.get_long() == Some("aws-cluster-name")));
    }

    #[test]
    fn what_contradicts_itself_is_wrong_usage() {
        for line in [
            &["kubectl-berth"][..],
            &["kubectl-berth", "status", "-A", "web"],
            &["kubectl-berth", "status", "-A", "-n", "shop"],
            &["kubectl-berth", "status", "-o", "table"],
            &["kubectl-berth", "status", "--as-group", "admins"],
            &["kubectl-berth", "status", "--request-timeout", "soon"],
            &["kubectl-berth", "simulate"],
            &["kubectl-berth", "simulate", "--fail", "a", "--drain", "b"],
            &["kubectl-berth", "simulate", "--fail", "a", "--offline"],
            &["kubectl-berth", "drain"],
            &["kubectl-berth", "drain", "a", "--undo", "--no-wait"],
            &["kubectl-berth", "rebalance", "--parallel", "0"],
            &["kubectl-berth", "version", "-o", "wide"],
            &["kubectl-berth", "completion", "tcsh"],
        ] {
            let error = Cli::try_parse_from(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}: {error}");
        }
    }
}
