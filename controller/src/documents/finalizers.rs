//! Which Services are to get our finalizer, or to lose it: a plain state, the time is an argument.
//!
//! Only those are known here that do not have what they are to have; the cluster knows the others.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_api::service::ServiceKey;
use berth_provider::{Failure, Intent, ServiceId};

use crate::marker::{WATCH, Write, Written};
use crate::wish::Seen;

/// The Services of one provider that have to be marked otherwise than they are.
#[derive(Debug, Default)]
pub(super) struct Finalizers {
    waiting: BTreeMap<ServiceKey, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    seen: Seen,
    puts_on: bool,
    stage: Stage,
    /// Writes that failed, in a row.
    failures: u32,
    not_before: Duration,
    /// Nothing is left of it.
    is_left: bool,
}

/// How far one has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is to be written when its time has come.
    Due,
    /// It is being written.
    Writing,
    /// It waits for another version than the one that it met, though not for ever.
    Outdated,
    /// What it asks for is wrong, and it was said so.
    Refused,
}

/// What follows from a write.
#[derive(Debug, PartialEq)]
pub(super) enum Follows {
    /// What the Service asks for may be made.
    Serve(Box<Intent>),
    /// People have to hear of it.
    Say(Box<Intent>, Failure),
    /// Nothing.
    Nothing,
}

impl Finalizers {
    /// Takes in what a Service is marked with, and whether it is to have our finalizer.
    pub(super) fn learn(&mut self, key: &ServiceKey, seen: &Seen, puts_on: bool) {
        if seen.mark.is_ours() == puts_on {
            self.waiting.remove(key);
            return;
        }
        let before = self.waiting.remove(key).filter(|before| before.seen.intent.id == seen.intent.id);
        let before = before.filter(|before| before.puts_on == puts_on);
        let (seen, stage, not_before) = (seen.clone(), Stage::Due, Duration::ZERO);
        let mut now = Waiting { seen, puts_on, stage, failures: 0, not_before, is_left: false };
        if let Some(before) = before {
            (now.failures, now.is_left) = (before.failures, before.is_left);
            let is_news = before.seen.mark.version != now.seen.mark.version;
            match before.stage {
                Stage::Outdated if is_news => {}
                Stage::Refused => {}
                stage => (now.stage, now.not_before) = (stage, before.not_before),
            }
        }
        self.waiting.insert(key.clone(), now);
    }

    /// The Service is not there, or not this provider's.
    pub(super) fn forget(&mut self, key: &ServiceKey) {
        self.waiting.remove(key);
    }

    /// Everything is due: another replica may have written until now.
    pub(super) fn all_due(&mut self) {
        for waiting in self.waiting.values_mut() {
            (waiting.not_before, waiting.failures) = (Duration::ZERO, 0);
            waiting.is_left = false;
            if waiting.stage != Stage::Writing {
                waiting.stage = Stage::Due;
            }
        }
    }

    /// Whether a Service waits for the finalizer.
    pub(super) fn awaits(&self, key: &ServiceKey) -> bool {
        self.waiting.get(key).is_some_and(|waiting| waiting.puts_on)
    }

    /// Every Service that is to get the finalizer, or to lose it.
    pub(super) fn all(&self) -> impl Iterator<Item = &Intent> {
        self.waiting.values().map(|waiting| &waiting.seen.intent)
    }

    /// One of this name, if it is to get the finalizer or to lose it.
    pub(super) fn named(&self, key: &ServiceKey) -> Option<&Intent> {
        self.waiting.get(key).map(|waiting| &waiting.seen.intent)
    }

    /// Those that have the finalizer and are to lose it.
    pub(super) fn leaving(&self) -> impl Iterator<Item = (&ServiceKey, &Intent)> {
        self.waiting.iter().filter(|(_, of)| !of.puts_on).map(|(key, of)| (key, &of.seen.intent))
    }

    /// One that is to lose the finalizer, and has it.
    pub(super) fn leaves(&self, id: &ServiceId) -> Option<&Intent> {
        let waiting = self.waiting.get(&id.key).filter(|waiting| !waiting.puts_on)?;
        Some(&waiting.seen.intent).filter(|intent| intent.id == *id)
    }

    /// Whether nothing is left of one that is to lose the finalizer.
    pub(super) fn is_left(&self, id: &ServiceId) -> bool {
        self.waiting.get(&id.key).is_some_and(|waiting| waiting.is_left && waiting.seen.intent.id == *id)
    }

    /// When the next one is due. `may_go` says of which nothing is left.
    pub(super) fn next_due(&self, may_go: impl Fn(&ServiceId) -> bool) -> Option<Duration> {
        self.waiting.values().filter(|waiting| waiting.is_due(&may_go)).map(|waiting| waiting.not_before).min()
    }

    /// The Services that are due: what is to be written, or why what they ask for is refused, which `check` says.
    pub(super) fn due(
        &mut self,
        now: Duration,
        may_go: impl Fn(&ServiceId) -> bool,
        check: impl Fn(&Intent) -> Result<(), Failure>,
    ) -> (Vec<Write>, Vec<(Intent, Failure)>) {
        let (mut writes, mut refused) = (Vec::new(), Vec::new());
        let due = self.waiting.iter_mut().filter(|(_, waiting)| waiting.is_due(&may_go) && waiting.not_before <= now);
        for (key, waiting) in due {
            if waiting.puts_on
                && let Err(failure) = check(&waiting.seen.intent)
            {
                waiting.stage = Stage::Refused;
                refused.push((waiting.seen.intent.clone(), failure));
                continue;
            }
            waiting.stage = Stage::Writing;
            waiting.is_left = !waiting.puts_on;
            let Waiting { seen, puts_on, .. } = waiting;
            let (uid, seen, puts_on) = (seen.intent.id.uid.clone(), seen.mark.clone(), *puts_on);
            writes.push(Write { key: key.clone(), uid, seen, puts_on });
        }
        (writes, refused)
    }

    /// Takes in what came of a write.
    pub(super) fn done(&mut self, write: &Write, written: Written, now: Duration) -> Follows {
        let Some(waiting) = self.waiting.get_mut(&write.key) else { return Follows::Nothing };
        waiting.stage = Stage::Due;
        if waiting.seen.intent.id.uid != write.uid || waiting.puts_on != write.puts_on {
            return Follows::Nothing;
        }
        match written {
            Written::Is(mark) if mark.is_ours() == write.puts_on => {
                let waiting = self.waiting.remove(&write.key).filter(|waiting| waiting.puts_on);
                waiting.map_or(Follows::Nothing, |waiting| Follows::Serve(Box::new(waiting.seen.intent)))
            }
            Written::Gone => {
                self.waiting.remove(&write.key);
                Follows::Nothing
            }
            Written::Is(_) | Written::Outdated => {
                // The watch may have shown what it met already.
                let is_outdated = waiting.seen.mark.version == write.seen.version;
                (waiting.stage, waiting.not_before) =
                    if is_outdated { (Stage::Outdated, now + WATCH) } else { (Stage::Due, now) };
                Follows::Nothing
            }
            Written::Failed(failure) => {
                waiting.failures = waiting.failures.saturating_add(1);
                waiting.not_before = now + failure.wait(waiting.failures);
                Follows::Say(Box::new(waiting.seen.intent.clone()), failure)
            }
        }
    }
}

impl Waiting {
    fn is_due(&self, may_go: impl Fn(&ServiceId) -> bool) -> bool {
        matches!(self.stage, Stage::Due | Stage::Outdated) && (self.puts_on || may_go(&self.seen.intent.id))
    }
}

#[cfg(test)]
mod tests {
    use berth_api::names::FINALIZER;
    use berth_provider::Class;
    use serde_json::json;

    use super::*;
    use crate::wish::Mark;

    const NOW: Duration = Duration::from_secs(100);

    fn seen(version: &str, ours: bool) -> Seen {
        let service = json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "1"},
            "spec": {"ports": [{"port": 80}], "ipFamilies": ["IPv4"]},
        });
        let intent = Intent::of(&serde_json::from_value(service).unwrap()).unwrap();
        let finalizers = if ours { vec!["a/b".to_owned(), FINALIZER.to_owned()] } else { vec!["a/b".to_owned()] };
        Seen { intent, mark: Mark { finalizers, version: version.to_owned() } }
    }

    fn key() -> ServiceKey {
        seen("", false).intent.id.key
    }

    /// The versions under which finalizers are to be written now.
    fn due(all: &mut Finalizers, now: Duration) -> Vec<Write> {
        all.due(now, |_| true, |_| Ok(())).0
    }

    #[test]
    fn only_who_lacks_what_it_is_to_have_is_written_and_once_at_a_time() {
        for (ours, puts_on, writes) in [(false, true, 1), (true, true, 0), (true, false, 1), (false, false, 0)] {
            let mut all = Finalizers::default();
            all.learn(&key(), &seen("1", ours), puts_on);
            assert_eq!(due(&mut all, NOW).len(), writes, "{ours} {puts_on}");
            assert_eq!(due(&mut all, NOW).len(), 0, "it is being written");
            all.learn(&key(), &seen("2", ours), puts_on);
            assert_eq!(due(&mut all, NOW).len(), 0, "also when it changes meanwhile");
        }
    }

    #[test]
    fn what_met_another_version_waits_for_the_watch_though_not_for_ever() {
        let mut all = Finalizers::default();
        all.learn(&key(), &seen("1", false), true);
        let write = due(&mut all, NOW).remove(0);
        assert_eq!(all.done(&write, Written::Outdated, NOW), Follows::Nothing);
        assert_eq!((due(&mut all, NOW).len(), all.next_due(|_| true)), (0, Some(NOW + WATCH)));
        all.learn(&key(), &seen("2", false), true);
        let write = due(&mut all, NOW).remove(0);
        assert_eq!(write.seen.version, "2");
        all.done(&write, Written::Outdated, NOW);
        assert_eq!(due(&mut all, NOW + WATCH).len(), 1);
        // The watch was quicker than the answer.
        all.learn(&key(), &seen("3", false), true);
        all.done(&write, Written::Outdated, NOW);
        assert_eq!(due(&mut all, NOW)[0].seen.version, "3");
    }

    #[test]
    fn a_failure_is_said_and_tried_again_by_its_class_and_a_change_hastens_nothing() {
        let mut all = Finalizers::default();
        all.learn(&key(), &seen("1", false), true);
        let write = due(&mut all, NOW).remove(0);
        let failure = Failure::new(Class::Permission, "no");
        let said = all.done(&write, Written::Failed(failure.clone()), NOW);
        assert_eq!(said, Follows::Say(Box::new(write_intent()), failure));
        all.learn(&key(), &seen("2", false), true);
        assert_eq!((due(&mut all, NOW).len(), all.next_due(|_| true)), (0, Some(NOW + Duration::from_mins(1))));
        all.all_due();
        assert_eq!(due(&mut all, NOW).len(), 1, "whoever begins to lead tries at once");
    }

    fn write_intent() -> Intent {
        seen("", false).intent
    }

    #[test]
    fn once_it_is_on_the_service_is_served_and_it_goes_off_only_when_nothing_is_left() {
        let mut all = Finalizers::default();
        all.learn(&key(), &seen("1", false), true);
        let write = due(&mut all, NOW).remove(0);
        let follows = all.done(&write, Written::Is(seen("2", true).mark), NOW);
        assert_eq!(follows, Follows::Serve(Box::new(write_intent())));
        all.learn(&key(), &seen("3", true), false);
        assert_eq!(all.due(NOW, |_| false, |_| Ok(())).0, [], "something is left");
        assert!(!all.is_left(&write_intent().id));
        let write = due(&mut all, NOW).remove(0);
        assert!(all.is_left(&write_intent().id) && write.seen.with_ours(write.puts_on) == ["a/b"]);
        assert_eq!(all.done(&write, Written::Is(seen("4", false).mark), NOW), Follows::Nothing);
        assert_eq!(all.next_due(|_| true), None);
    }

    #[test]
    fn who_is_refused_is_told_once_until_it_changes() {
        let mut all = Finalizers::default();
        all.learn(&key(), &seen("1", false), true);
        let refuses = |_: &Intent| Err(Failure::new(Class::Config, "no"));
        assert_eq!(all.due(NOW, |_| true, refuses).1.len(), 1);
        assert_eq!(all.due(NOW, |_| true, refuses).1.len(), 0);
        all.learn(&key(), &seen("2", false), true);
        assert_eq!(due(&mut all, NOW).len(), 1);
    }
}
