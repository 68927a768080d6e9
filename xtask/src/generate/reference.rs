//! `docs/reference/*.md`: what people look up.

use berth_api::Reason;
use berth_telemetry::{MetricDoc, MetricKind};
use clap::{Arg, Command};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};

use super::Generated;
use super::markdown::{code, page, table};

/// All reference pages.
pub fn files() -> Vec<Generated> {
    vec![
        Generated::new("docs/reference/api.md", api()),
        Generated::new("docs/reference/aws-annotations.md", aws_annotations()),
        Generated::new("docs/reference/azure-annotations.md", azure_annotations()),
        Generated::new("docs/reference/controller.md", flags(berth_controller::command())),
        Generated::new("docs/reference/kubectl-berth.md", cli(berth_cli::command())),
        Generated::new("docs/reference/metrics.md", metrics()),
        Generated::new("docs/reference/plan.schema.json", schema(berth_cli::plan_schema())),
        Generated::new("docs/reference/reasons.md", reasons()),
        Generated::new("docs/reference/rebalance.schema.json", schema(berth_cli::rebalance_schema())),
        Generated::new("docs/reference/simulate.schema.json", schema(berth_cli::simulation_schema())),
        Generated::new("docs/reference/speaker.md", flags(berth_speaker::command())),
    ]
}

/// JSON has no comments, so nothing in it says that it is generated; the folder does.
fn schema(schema: serde_json::Value) -> String {
    format!("{schema:#}\n")
}

fn aws_annotations() -> String {
    let lines = berth_aws::annotation::lines();
    let (honoured, refused): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.honoured);
    let rows = |lines: Vec<berth_aws::annotation::Line>| {
        lines.into_iter().map(|line| [code(&line.annotation), line.about]).collect::<Vec<_>>()
    };
    page(
        "Annotations of AWS load balancers",
        "They are those of the AWS Load Balancer Controller, with its meanings and encodings. None is ignored: a Service with one that is\n\
         refused, or with one under these names that nobody knows, gets no load balancer, what it has is left as it is, and its condition\n\
         says which annotation it is. Berth's own, `berth.dev/load-balancer-group`, `berth.dev/allow-replacement` and `berth.dev/disown`,\n\
         are in the [guide](../aws.md).",
        &[
            format!("## Honoured\n\n{}", table(["Annotation", "Meaning"], rows(honoured))),
            format!(
                "## Refused\n\n{}",
                table(["Annotation", "What it asks for, and why it is refused"], rows(refused))
            ),
        ],
    )
}

fn azure_annotations() -> String {
    let (honoured, refused): (Vec<_>, Vec<_>) =
        berth_azure::annotation::lines().into_iter().partition(|line| line.honoured);
    let rows = |lines: Vec<berth_azure::annotation::Line>| {
        lines.into_iter().map(|line| [code(&line.annotation), line.about]).collect::<Vec<_>>()
    };
    page(
        "Annotations of Azure load balancers",
        "They are those of cloud-provider-azure, with its meanings except where the [guide](../azure.md) says otherwise. None is ignored: a\n\
         Service with one that is refused, with one under these names that nobody knows, or with one that means nothing for its scheme\n\
         (a public IP of an internal Service) gets nothing, what it has is left as it is, and its condition says which annotation it is.\n\
         Berth's own, `berth.dev/disown`, is in the guide.",
        &[
            format!("## Honoured\n\n{}", table(["Annotation", "Meaning"], rows(honoured))),
            format!(
                "## Refused\n\n{}",
                table(["Annotation", "What it asks for, and why it is refused"], rows(refused))
            ),
        ],
    )
}

fn reasons() -> String {
    let rows = Reason::ALL.iter().map(|reason| [code(reason.as_str()), reason.description().to_owned()]);
    page(
        "Reasons",
        "One stable word for everything that Berth says: the `reason` of each condition and event is from this\n\
         list. The message beside it names the object concerned.",
        &[table(["Reason", "What it means and what to do"], rows)],
    )
}

fn metrics() -> String {
    let section = |process: &str, metrics: Vec<MetricDoc>| {
        let rows = metrics
            .into_iter()
            .map(|metric| [code(&metric.name), kind(metric.kind).to_owned(), metric.help.to_owned()]);
        format!("## {process}\n\n{}", table(["Metric", "Kind", "What it says"], rows))
    };
    page(
        "Metrics",
        "Served by each process at `/metrics`, in the OpenMetrics text format. Durations are in seconds.",
        &[
            section("berth-controller", berth_controller::metrics_catalogue()),
            section("berth-speaker", berth_speaker::metrics_catalogue()),
        ],
    )
}

fn kind(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    }
}

/// The kubectl plugin: flags that all subcommands have, each subcommand's own, and what it finds by itself.
fn cli(mut command: Command) -> String {
    command.build();
    let flags_of = |command: &Command, global: bool| {
        let own = |argument: &&Arg| argument.is_global_set() == global;
        let ours = |argument: &&Arg| !matches!(argument.get_id().as_str(), "help" | "version");
        let rows = command.get_arguments().filter(ours).filter(own).map(plugin_flag);
        table(["Flag", "Default", "What it does"], rows).trim_end().to_owned()
    };
    let notes = |command: &Command| {
        let text = command.get_after_help()?.to_string();
        Some(format!("```text\n{}\n```", text.trim_end()))
    };
    let mut parts: Vec<_> = command
        .get_subcommands()
        .map(|sub| {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let title = format!("## kubectl berth {}\n\n{about}.", sub.get_name());
            [Some(title), Some(flags_of(sub, false)), notes(sub)].into_iter().flatten().collect::<Vec<_>>().join("\n\n")
        })
        .collect();
    parts.push(format!("## Flags of all\n\nkubectl's own, with kubectl's meaning.\n\n{}", flags_of(&command, true)));
    parts.extend(notes(&command));
    let rows = berth_cli::Finding::ALL.iter().map(|finding| [code(finding.as_str()), finding.description().to_owned()]);
    let findings = table(["Finding", "What it means and what to do"], rows);
    parts.push(format!(
        "## Findings\n\nBeside the [reasons](reasons.md) that Berth writes on objects, `status` says:\n\n{findings}"
    ));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    page("kubectl berth", &format!("{about}. How it is installed and read is in [its guide](../cli.md)."), &parts)
}

/// A flag or an argument of the plugin, which reads no variables of its own.
fn plugin_flag(argument: &Arg) -> [String; 3] {
    let [long, _, default, about] = flag(argument);
    let value = argument.get_value_names().unwrap_or_default().join(" ");
    let name = match (argument.get_short(), argument.is_positional()) {
        (_, true) => code(&value),
        (Some(short), false) => format!("`-{short}`, {long}"),
        (None, false) => long,
    };
    [name, default, about]
}

fn flags(mut command: Command) -> String {
    command.build();
    let rows =
        command.get_arguments().filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version")).map(flag);
    let flags = table(["Flag", "Environment", "Default", "What it does"], rows);
    let notes = command.get_after_help().map(|text| format!("```text\n{}\n```", text.to_string().trim_end()));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let introduction = format!("{}.", about.trim_end_matches('.'));
    page(command.get_name(), &introduction, &[Some(flags), notes].into_iter().flatten().collect::<Vec<_>>())
}

fn flag(argument: &Arg) -> [String; 4] {
    let name = argument.get_long().map(|long| format!("--{long}")).unwrap_or_default();
    let value = argument.get_value_names().unwrap_or_default().join(" ");
    let takes_value = argument.get_action().takes_values();
    let shown = if takes_value { format!("{name} <{value}>") } else { name };
    let defaults = argument.get_default_values().iter().filter(|_| takes_value);
    let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
    let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    [code(&shown), code(&variable), code(&defaults.join(",")), help + &choices(argument)]
}

fn choices(argument: &Arg) -> String {
    if !argument.get_action().takes_values() {
        return String::new();
    }
    let choices = argument.get_possible_values().into_iter().filter(|choice| !choice.is_hide_set()).map(|choice| {
        let help =
            choice.get_help().map(|help| format!(" ({})", help.to_string().trim_end_matches('.'))).unwrap_or_default();
        format!("`{}`{help}", choice.get_name())
    });
    let choices: Vec<_> = choices.collect();
    if choices.is_empty() { String::new() } else { format!(". One of {}", choices.join(", ")) }
}

fn api() -> String {
    let parts: Vec<_> = berth_api::crd::all().iter().map(kind_of_object).collect();
    page(
        "Objects",
        "Berth's kinds, all cluster-scoped. The API server does not know a field that is not listed, and kubectl\n\
         refuses it. Required fields are marked with *.",
        &parts,
    )
}

fn kind_of_object(crd: &CustomResourceDefinition) -> String {
    let names = &crd.spec.names;
    let versions: Vec<_> =
        crd.spec.versions.iter().map(|version| format!("{}/{}", crd.spec.group, version.name)).collect();
    let spellings: Vec<_> =
        [&names.plural].into_iter().chain(names.short_names.iter().flatten()).map(|name| code(name)).collect();
    let schema = crd.spec.versions.iter().find_map(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
    let mut rows = Vec::new();
    if let Some(schema) = schema {
        fields(schema, "", &mut rows);
    }
    let about = schema.and_then(|schema| schema.description.as_deref()).unwrap_or_default();
    format!(
        "## {}\n\n{about}\n\nVersion `{}`; for kubectl: {}.\n\n{}",
        names.kind,
        versions.join("`, `"),
        spellings.join(", "),
        table(["Field", "Type", "What it is"], rows)
    )
}

/// A row for each field below `schema`, each before the fields inside it.
fn fields(schema: &JSONSchemaProps, path: &str, rows: &mut Vec<[String; 3]>) {
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let mark = if required.contains(name) { "*" } else { "" };
        let about = field.description.clone().unwrap_or_default();
        rows.push([format!("`{here}`{mark}"), type_of(field), about + &limits(field)]);
        match element(field) {
            // Every Kubernetes object has the same ones, and they are described at length elsewhere.
            Some(_) if name == "conditions" => {}
            Some(inner) => fields(inner, &format!("{here}[]"), rows),
            None => fields(field, &here, rows),
        }
    }
}

fn element(field: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match field.items.as_ref()? {
        JSONSchemaPropsOrArray::Schema(inner) => Some(inner),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

fn type_of(field: &JSONSchemaProps) -> String {
    match element(field) {
        Some(inner) => format!("list of {}", type_of(inner)),
        None => field.type_.clone().unwrap_or_default(),
    }
}

fn limits(field: &JSONSchemaProps) -> String {
    let default = field.default.as_ref().map(|value| format!(" Default: `{}`.", value.0));
    let most = field.max_items.map(|count| format!(" At most {count}."));
    [default, most].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn every_reason_is_on_its_page() {
        let page = reasons();
        for reason in Reason::ALL {
            assert!(page.contains(&format!("| `{reason}` |")), "{reason}");
        }
    }

    #[test]
    fn nested_fields_follow_the_field_that_they_are_in() {
        let page = api();
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text}"));
        assert!(at("| `spec.addresses`* | list of string |") < at("| `spec.autoAssign` | boolean |"));
        assert!(at("| `spec.layer2` | object |") < at("| `spec.layer2.members[].mac`* | string |"));
        assert!(!page.contains("lastTransitionTime"));
    }

    #[test]
    fn a_flag_shows_its_variable_its_default_and_its_choices() {
        /// Does things
        #[derive(Parser)]
        #[command(name = "thing")]
        struct Args {
            /// How loud
            #[arg(long, env = "THING_LOUD", value_name = "LEVEL", default_value = "soft", value_parser = ["soft", "hard"])]
            _loud: String,
            /// Stop early
            #[arg(long = "stop")]
            _stop: bool,
        }
        let page = flags(<Args as clap::CommandFactory>::command());
        assert!(
            page.contains("| `--loud <LEVEL>` | `THING_LOUD` | `soft` | How loud. One of `soft`, `hard` |"),
            "{page}"
        );
        assert!(page.contains("| `--stop` |  |  | Stop early |"), "{page}");
        assert!(!page.contains("--help"), "{page}");
    }
}
