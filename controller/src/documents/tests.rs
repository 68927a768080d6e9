use berth_mock::{Cloud, Mock};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::*;
use crate::wish::{Mark, Seen};
use berth_api::Reason;

/// Longer than anything takes that is not waited for on purpose.
const A_WHILE: Duration = Duration::from_mins(5);

fn intent(name: &str, uid: &str, ingress: &Value, annotations: &Value) -> Intent {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": name, "uid": uid, "annotations": annotations},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "ipFamilies": ["IPv4"]},
        "status": {"loadBalancer": {"ingress": ingress}},
    }))
    .unwrap();
    Intent::of(&service).unwrap()
}

struct Driven {
    asked: Asked,
    outcomes: Outcomes,
    lead: watch::Sender<Leadership>,
    listed: watch::Sender<bool>,
    end: CancellationToken,
}

impl Driven {
    fn start() -> Self {
        let (lead, leadership) = watch::channel(Leadership::alone());
        let (listed, told) = watch::channel(false);
        let (asked, outcomes, end) = (Asked::default(), Outcomes::default(), CancellationToken::new());
        let (mock, metrics) = (Mock::new(Cloud::new()), Metrics::new().0);
        // The mock puts no finalizer on anything.
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(tower::BoxError::from("nobody is asked"))
        });
        let client = kube::Client::new(nobody, "default");
        let ties = Ties::new(&client, leadership, told, &metrics);
        let ties = Ties { asked: asked.clone(), outcomes: outcomes.clone(), ..ties };
        tokio::spawn(Documents::new(mock, ties).run(end.clone()));
        Self { asked, outcomes, lead, listed, end }
    }

    fn ask(&self, intent: Intent) {
        let seen = Box::new(Seen { mark: Mark::default(), intent });
        self.asked.put(seen.intent.id.key.clone(), Wish::Served(seen));
    }

    /// What was said last of each Service when nothing more is said; the address, or the reason why there is none.
    async fn said(&self) -> BTreeMap<String, String> {
        let mut said = BTreeMap::new();
        while let Ok(more) = tokio::time::timeout(A_WHILE, self.outcomes.take()).await {
            said.extend(more.into_iter().map(|((id, _), outcome)| {
                let text = match outcome.ingress.first().and_then(|ingress| ingress.ip.clone()) {
                    Some(address) if outcome.met => address,
                    _ => outcome.conditions[0].reason.to_string(),
                };
                (id.uid, text)
            }));
        }
        said
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

fn says(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(uid, text)| ((*uid).to_owned(), (*text).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_before_every_service_that_has_something_is_known() {
    let driven = Driven::start();
    driven.ask(intent("a", "new", &json!([]), &json!({})));
    assert_eq!(driven.said().await, says(&[]), "the list is not complete");
    driven.ask(intent("b", "old", &json!([{"ip": "203.0.113.1"}]), &json!({})));
    driven.listed.send_replace(true);
    assert_eq!(driven.said().await, says(&[("new", "203.0.113.2"), ("old", "203.0.113.1")]));
}

#[tokio::test(start_paused = true)]
async fn whoever_leads_again_goes_by_what_another_leader_published_meanwhile() {
    let driven = Driven::start();
    driven.ask(intent("web", "first", &json!([]), &json!({})));
    driven.listed.send_replace(true);
    assert_eq!(driven.said().await, says(&[("first", "203.0.113.1")]));

    driven.lead.send_replace(Leadership::default());
    driven.asked.put(intent("web", "first", &json!([]), &json!({})).id.key, Wish::Nothing);
    driven.ask(intent("other", "second", &json!([{"ip": "203.0.113.1"}]), &json!({})));
    driven.ask(intent("a", "third", &json!([]), &json!({})));
    assert_eq!(driven.said().await, says(&[]), "a standby says nothing");
    driven.lead.send_replace(Leadership::alone());
    assert_eq!(driven.said().await, says(&[("second", "203.0.113.1"), ("third", "203.0.113.2")]));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_made_again_hears_nothing_of_its_predecessor_and_gets_its_address() {
    let driven = Driven::start();
    driven.listed.send_replace(true);
    driven.ask(intent("web", "first", &json!([]), &json!({})));
    driven.said().await;
    driven.ask(intent("web", "second", &json!([]), &json!({"mock.berth.dev/faults": "transient:3"})));
    let said = driven.said().await;
    assert_eq!(said.keys().collect::<Vec<_>>(), ["second"]);
    driven.ask(intent("last", "third", &json!([]), &json!({})));
    let last = driven.said().await;
    let mut given = [&said["second"], &last["third"]];
    given.sort();
    assert_eq!(given, ["203.0.113.1", "203.0.113.2"], "what the first had is free");
}

#[tokio::test(start_paused = true)]
async fn a_failure_for_a_person_is_said_and_tried_again_after_its_time() {
    let driven = Driven::start();
    driven.listed.send_replace(true);
    let begin = Instant::now();
    driven.ask(intent("web", "1", &json!([]), &json!({"mock.berth.dev/faults": "permission:2,throttled"})));
    let mut said = Vec::new();
    while said.last() != Some(&Reason::Allocated) {
        let outcome = driven.outcomes.take().await.into_values().next().unwrap();
        said.push(outcome.conditions[0].reason);
    }
    // Only what is latest is kept for whoever listens, so what is said for a moment may be missed.
    said.retain(|reason| *reason != Reason::Provisioning);
    said.dedup();
    let expected = [Reason::PermissionDenied, Reason::ProviderThrottled, Reason::Allocated];
    assert_eq!(said, expected);
    // Twice a minute for the right; the third failure in a row that asks for fewer calls waits for four seconds.
    assert_eq!(begin.elapsed().as_secs(), 124);
}
