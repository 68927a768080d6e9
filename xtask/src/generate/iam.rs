//! `deploy/aws/iam-policy.json`: what the controller's role may do, from the table of calls.

use super::Generated;

/// The policy.
pub fn file() -> anyhow::Result<Generated> {
    let text = serde_json::to_string_pretty(&berth_aws::policy::policy())?;
    Ok(Generated::new("deploy/aws/iam-policy.json", text + "\n"))
}
