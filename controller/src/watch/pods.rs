//! The watch of pods, for their readiness gates: the only kind of which there may be very many that are none of our concern. Of those
//! nothing is kept, not even the names.

use std::collections::BTreeSet;

use futures::StreamExt;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;

use super::seen::Seen as Read;
use super::{Outage, PAGE, WATCH_TIME, id_of};
use crate::gates::{Pod, PodFeed, PodId, PodState};
use crate::latest::Latest;
use crate::metrics::{KindLabels, Metrics};

const KIND: &str = "Pod";
/// Pods that have ended get no traffic, and Jobs leave many of them.
const RUNNING: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// A feed, and the task that fills it until it is dropped.
pub(crate) fn feed(client: &Client, metrics: &Metrics) -> (PodFeed, impl Future<Output = ()> + Send + 'static) {
    let (tell, listed) = watch::channel(false);
    let pods = Latest::default();
    let (api, metrics, to) = (Api::<Read<Pod>>::all(client.clone()), metrics.clone(), pods.clone());
    let task = async move {
        let mut outage = Outage::none(KIND, &metrics);
        let mut known = Known::default();
        let config = watcher::Config::default().timeout(WATCH_TIME.as_secs() as u32).page_size(PAGE).fields(RUNNING);
        let mut events = std::pin::pin!(watcher(api, config));
        while let Some(event) = events.next().await {
            if let Err(error) = &event {
                tokio::time::sleep(outage.broke_off(error)).await;
            }
            outage.heard(&event);
            let is_whole = matches!(event, Ok(Event::InitDone));
            for (id, state) in event.map(|event| known.hear(event, &metrics)).unwrap_or_default() {
                to.put(id, state);
            }
            if is_whole {
                tell.send_replace(true);
            }
        }
    };
    (PodFeed { pods, listed }, task)
}

/// The pods with gates of ours that the watch has shown.
#[derive(Default)]
struct Known {
    now: BTreeSet<PodId>,
    /// What a list under way has named so far.
    listed: BTreeSet<PodId>,
}

impl Known {
    /// What an event means for pods with gates of ours.
    fn hear(&mut self, event: Event<Read<Pod>>, metrics: &Metrics) -> Vec<(PodId, Option<PodState>)> {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(pod) => return self.seen(pod, true, metrics).into_iter().collect(),
            Event::Apply(pod) => return self.seen(pod, false, metrics).into_iter().collect(),
            Event::Delete(pod) => return self.gone(id_of(&pod)).into_iter().collect(),
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let vanished: Vec<_> = self.now.difference(&listed).cloned().collect();
                return vanished.into_iter().filter_map(|id| self.gone(id)).collect();
            }
        }
        Vec::new()
    }

    fn seen(&mut self, pod: Read<Pod>, in_list: bool, metrics: &Metrics) -> Option<(PodId, Option<PodState>)> {
        let id = id_of(&pod);
        match pod.0 {
            Ok(pod) => {
                let Some(state) = PodState::of(&pod) else { return self.gone(id) };
                if in_list {
                    self.listed.insert(id.clone());
                }
                self.now.insert(id.clone());
                Some((id, Some(state)))
            }
            Err(error) => {
                metrics.malformed.get_or_create(&KindLabels { kind: KIND }).inc();
                tracing::error!(
                    kind = KIND,
                    namespace = id.0,
                    name = id.1,
                    error = error.error,
                    "object cannot be read and is passed over"
                );
                // What was read of it before stays.
                if in_list && self.now.contains(&id) {
                    self.listed.insert(id);
                }
                None
            }
        }
    }

    fn gone(&mut self, id: PodId) -> Option<(PodId, Option<PodState>)> {
        self.listed.remove(&id);
        self.now.remove(&id).then_some((id, None))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, gates: &[&str]) -> Read<Pod> {
        let gates: Vec<_> = gates.iter().map(|gate| json!({"conditionType": gate})).collect();
        let pod = json!({
            "metadata": {"namespace": "shop", "name": name, "uid": name}, "spec": {"readinessGates": gates},
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn pods_without_a_gate_of_ours_leave_no_trace_and_those_with_one_are_told_of_until_they_are_gone() {
        const OURS: &[&str] = &["target-health.berth.dev/web"];
        let (mut known, metrics) = (Known::default(), Metrics::new().0);
        let hear = |known: &mut Known, event| {
            let news = known.hear(event, &metrics);
            news.into_iter().map(|((_, name), state)| (name, state.is_some())).collect::<Vec<_>>()
        };
        let told = |name: &str, is_there| vec![(name.to_owned(), is_there)];
        hear(&mut known, Event::Init);
        for number in 0..1_000 {
            let name = format!("other-{number}");
            assert_eq!(hear(&mut known, Event::InitApply(pod(&name, &["example.com/other"]))), []);
        }
        assert_eq!(hear(&mut known, Event::InitApply(pod("a", OURS))), told("a", true));
        assert_eq!(hear(&mut known, Event::InitApply(pod("b", OURS))), told("b", true));
        assert_eq!(hear(&mut known, Event::InitDone), []);
        assert_eq!((known.now.len(), known.listed.len()), (2, 0));
        assert_eq!(hear(&mut known, Event::Delete(pod("other-1", &[]))), []);
        // Made again under its name, without the gate.
        assert_eq!(hear(&mut known, Event::Apply(pod("a", &[]))), told("a", false));
        hear(&mut known, Event::Init);
        assert_eq!(hear(&mut known, Event::InitApply(pod("c", OURS))), told("c", true));
        assert_eq!(hear(&mut known, Event::InitDone), told("b", false), "it vanished while nobody watched");
    }
}
