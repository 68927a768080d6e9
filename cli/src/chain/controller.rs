//! What the controller's Deployment says of how the controller runs.

use berth_provider::class::{DEFAULT_DEFAULT, DEFAULT_PROVIDERS, ProviderName};
use k8s_openapi::api::apps::v1::Deployment;

use super::View;
use crate::observed::Seen;

/// Who serves Services without a class, as far as the controller's Deployment tells.
pub(super) fn default_provider(controller: &Seen<Option<Deployment>>) -> Option<String> {
    flag(controller, "--default-provider", "BERTH_DEFAULT_PROVIDER", DEFAULT_DEFAULT)
}

/// Whether a provider is switched on, as far as the controller's Deployment tells.
fn is_on(controller: &Seen<Option<Deployment>>, provider: &str) -> Option<bool> {
    let all = flag(controller, "--providers", "BERTH_PROVIDERS", DEFAULT_PROVIDERS)?;
    Some(all.split(',').any(|word| word.trim() == provider))
}

impl View<'_> {
    /// The provider of a class of ours, where the controller does not run it.
    pub(super) fn switched_off(&self, class: &str) -> Option<ProviderName> {
        let name = ProviderName::ALL.into_iter().find(|name| name.class() == class)?;
        let is_off = is_on(&self.index.around.controller, name.as_str()) == Some(false);
        // Whoever was heard of is there, whatever the Deployment says.
        (is_off && !self.has_our_conditions()).then_some(name)
    }
}

/// What a flag says, or its variable, or what holds without.
fn flag(controller: &Seen<Option<Deployment>>, flag: &str, variable: &str, default: &str) -> Option<String> {
    let deployment = controller.here()?.as_ref()?;
    let containers = &deployment.spec.as_ref()?.template.spec.as_ref()?.containers;
    let container = containers.first()?;
    let words: Vec<_> = container.command.iter().chain(&container.args).flatten().map(String::as_str).collect();
    // One that is given again counts in place of the one before.
    let by_flag = words.iter().enumerate().rev().find_map(|(at, word)| match word.strip_prefix(flag)? {
        "" => words.get(at + 1).copied(),
        rest => rest.strip_prefix('='),
    });
    let by_env = || {
        let variable = container.env.iter().flatten().find(|is| is.name == variable)?;
        variable.value.as_deref()
    };
    Some(by_flag.or_else(by_env).unwrap_or(default).to_owned())
}

/// Replicas of the controller that are ready.
pub fn ready_replicas(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default()
}
