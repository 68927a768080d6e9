//! What a speaker may say of who answers.

use anyhow::{Context as _, Result, ensure};
use berth_lab::{Lab, lab_test};
use serde_json::{Value, json};

use crate::installed::{Installed, LAB, expect, refusal, write_status};

/// As far ahead as an epoch may be claimed.
const SLACK: u64 = 1 << 20;
const LARGEST: u64 = (1 << 53) - 1;

/// A `spec.layer2`.
fn assigned(owner: &str, standbys: &[&str], epoch: u64) -> Value {
    let mut layer2 = json!({ "standbys": standbys, "epoch": epoch });
    if !owner.is_empty() {
        layer2["owner"] = owner.into();
    }
    layer2
}

/// A `status.layer2`.
fn claim(owner: &str, epoch: u64) -> Value {
    claim_on("eth0", owner, epoch)
}

fn claim_on(interface: &str, owner: &str, epoch: u64) -> Value {
    json!({
        "owner": owner, "epoch": epoch, "since": "2026-01-01T00:00:00.000000Z", "mac": "02:00:00:00:00:01",
        "interface": interface,
    })
}

/// What the API server said to a claim. What is forbidden a speaker tries again and again, because rights may yet be granted; what is
/// invalid it leaves alone until something changes. So that is what the policy has to say.
fn invalid<T>(answer: kube::Result<T>) -> Result<Option<String>> {
    if let Err(kube::Error::Api(status)) = &answer
        && status.message.contains("ValidatingAdmissionPolicy")
    {
        ensure!(status.code == 422, "{} ({})", status.message, status.code);
    }
    refusal(answer)
}

/// No `layer2`.
const NONE: Value = Value::Null;
const NO_PART: Option<&str> = Some("has no part in Announcement");
const OTHERS_NAME: Option<&str> = Some("but a speaker may name only its own node, which is node-1");
const OUTBID: Option<&str> = Some("already claimed 5; claim the next epoch");
const TOO_FAR: Option<&str> = Some("which is too far ahead");
const NOT_ITS_OWN: Option<&str> = Some("may not remove status.layer2");
const FALLS: Option<&str> = Some("an epoch never falls");

lab_test! {
    LAB;
    async fn a_speaker_claims_only_for_its_own_node_where_it_has_a_part(lab: Lab) -> Result<()> {
        let installed = Installed::start(lab).await?;
        let owner = || assigned("node-1", &["node-2"], 5);
        let standby = || assigned("node-2", &["node-1"], 5);
        let neither = || assigned("node-2", &["node-3"], 5);
        // All of them are writes by the speaker of node-1.
        let cases = [
            // What a speaker writes.
            ("the owner claims what it was given", owner(), NONE, claim("node-1", 5), None),
            ("the owner goes on on another interface", owner(), claim("node-1", 5), claim_on("eth1", "node-1", 5), None),
            ("nothing changes", owner(), claim("node-1", 5), claim("node-1", 5), None),
            ("a standby takes over", standby(), claim("node-2", 5), claim("node-1", 6), None),
            ("a standby takes over what nobody claimed", standby(), NONE, claim("node-1", 6), None),
            ("a standby takes over after an outage with many takeovers", standby(), claim("node-2", 5), claim("node-1", 4000), None),
            ("a claim as late as can be", standby(), claim("node-2", 9), claim("node-1", 9 + SLACK), None),
            ("the owner still answers at an older epoch than the controller's", owner(), NONE, claim("node-1", 4), None),
            ("of two equal claims the lower name prevails", standby(), claim("node-2", 5), claim("node-1", 5), None),
            ("a standby says what is wrong, with nobody answering", standby(), NONE, NONE, None),
            ("a standby says what is wrong and leaves the claim of the owner", standby(), claim("node-2", 5), claim("node-2", 5), None),
            ("the owner takes back its own claim", owner(), claim("node-1", 5), NONE, None),
            ("who lost its part says that it answers no longer", assigned("", &[], 6), claim("node-1", 5), claim("node-1", 5), None),
            ("the last epochs there are", assigned("node-2", &["node-1"], LARGEST - 1), NONE, claim("node-1", LARGEST), None),

            // What whoever holds the node could try.
            ("a node without a part claims", neither(), NONE, claim("node-1", 6), NO_PART),
            ("a node without a part takes over", neither(), claim("node-2", 5), claim("node-1", 6), NO_PART),
            ("a node without a part writes a condition", neither(), claim("node-2", 5), claim("node-2", 5), NO_PART),
            ("a node without a part writes a condition where nobody claimed", neither(), NONE, NONE, NO_PART),
            ("a node that lost its part claims on", neither(), claim("node-1", 4), claim("node-1", 6), NO_PART),
            ("a node that lost its part takes back its claim", neither(), claim("node-1", 5), NONE, NO_PART),
            ("an address that is announced by nobody", NONE, NONE, claim("node-1", 1), NO_PART),
            ("a claim in another's name", owner(), NONE, claim("node-2", 6), OTHERS_NAME),
            ("a claim in the name of a node that does not exist", owner(), claim("node-1", 5), claim("node-9", 6), OTHERS_NAME),
            ("another's claim brought up to date", standby(), claim("node-2", 5), claim("node-2", 6), OTHERS_NAME),
            ("another's claim removed", standby(), claim("node-2", 5), NONE, NOT_ITS_OWN),
            ("of two equal claims the higher name does not prevail", owner(), claim("node-0", 5), claim("node-1", 5), OUTBID),
            ("an older claim", standby(), claim("node-2", 5), claim("node-1", 4), FALLS),
            ("an older claim in place of its own", owner(), claim("node-1", 5), claim("node-1", 4), FALLS),
            ("a claim too far ahead of the last", standby(), claim("node-2", 9), claim("node-1", 10 + SLACK), TOO_FAR),
            ("a claim too far ahead of what was given", owner(), NONE, claim("node-1", 6 + SLACK), TOO_FAR),
            ("the highest epoch there is", owner(), claim("node-1", 5), claim("node-1", LARGEST), TOO_FAR),
        ];
        for ((says, spec, before, write, expected), number) in cases.into_iter().zip(10..) {
            let name = installed.announcement(number, &spec, &before).await.context(says)?;
            let answer = write_status(&installed.speaker_1, &name, &write, false).await;
            expect(says, invalid(answer).context(says)?, expected)?;
        }
        Ok(())
    }
}

lab_test! {
    LAB;
    async fn a_claim_needs_the_token_of_a_pod_on_a_node(lab: Lab) -> Result<()> {
        let installed = Installed::start(lab).await?;
        let name = installed.announcement(10, &assigned("node-1", &["node-2"], 1), &NONE).await?;
        let no_node = Some("the token of this speaker is bound to no pod on a node");
        let (admin, none) = (installed.lab.admin(), None);
        let no_right = Some("cannot patch resource \"announcements/status\"");
        for (says, client, write, expected) in [
            ("no claim without one", &installed.unbound, claim("node-1", 1), no_node),
            ("no condition either", &installed.unbound, NONE, no_node),
            ("another's token does not do", &installed.speaker_2, claim("node-1", 1), Some("but a speaker may name only its own")),
            ("one's own does", &installed.speaker_2, claim("node-2", 1), none),
            ("the controller has no right to claim", &installed.controller, claim("node-1", 2), no_right),
            ("an administrator is not hindered", &admin, claim("node-9", 1), none),
        ] {
            expect(says, invalid(write_status(client, &name, &write, false).await)?, expected)?;
        }
        Ok(())
    }
}
