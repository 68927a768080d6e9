//! The election as a plain function of what was seen and when: the time is an argument, counted from any beginning.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use super::lease_of;

/// The times of an election; `renew < deadline < duration`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub duration: Duration,
    pub renew: Duration,
    pub deadline: Duration,
    pub poll: Duration,
}

/// What the API server says.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    /// There is no Lease.
    Nothing,
    /// The Lease as it is.
    Lease(Box<Lease>),
}

/// An answer of the API server.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub seen: Seen,
    /// Whether it is what was just written, and not what was there already.
    pub written: bool,
}

/// What to ask the API server.
#[derive(Clone, Debug)]
pub(super) enum Next {
    /// Who holds the Lease?
    Look,
    /// Write this one: under its version, or as a new one if it has none.
    Write(Box<Lease>),
}

/// One candidate's part.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    timing: Timing,
    /// What was seen last, and when that very Lease was seen first.
    seen: Option<(Seen, Duration)>,
    /// When the request was made that renewed our own Lease last.
    renewed: Option<Duration>,
}

impl Election {
    pub(super) fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, seen: None, renewed: None }
    }

    /// What to ask now; `wall` is what people are told.
    pub(super) fn next(&self, now: Duration, wall: Timestamp) -> Next {
        let Some((seen, since)) = &self.seen else { return Next::Look };
        let write = |lease: Option<&Lease>| {
            // The wall's time is for people; nobody here reads it.
            Next::Write(Box::new(lease_of(lease, &self.identity, self.timing.duration, wall)))
        };
        match seen {
            Seen::Nothing => write(None),
            Seen::Lease(lease) => match holder(lease) {
                Some(holder) if holder == self.identity => write(Some(lease)),
                // As long as its holder says that it is good for, but at least as long as ours would be.
                Some(_) if now < *since + self.duration_of(lease) => Next::Look,
                _ => write(Some(lease)),
            },
        }
    }

    /// Takes in the answer to what was asked at `asked` and answered at `now`; `None` if there was none.
    pub(super) fn learn(&mut self, answer: Option<Answer>, asked: Duration, now: Duration) {
        let Some(Answer { seen, written }) = answer else { return };
        let ours = matches!(&seen, Seen::Lease(lease) if holder(lease) == Some(self.identity.as_str()));
        if ours && written {
            // It is good from when it was asked for, which is before it was written. One that only was found may have been
            // written long before, when an answer was lost.
            self.renewed = Some(asked);
        }
        if !ours {
            self.renewed = None;
        }
        let since = match &self.seen {
            Some((before, since)) if version(before) == version(&seen) => *since,
            // It may have been renewed while the answer was on its way.
            _ => now,
        };
        self.seen = Some((seen, since));
    }

    /// Until when this candidate leads, if it does.
    pub(super) fn leads_until(&self, now: Duration) -> Option<Duration> {
        self.renewed.map(|renewed| renewed + self.timing.deadline).filter(|until| now < *until)
    }

    /// The Lease as it was seen last.
    pub(super) fn seen(&self) -> Option<&Lease> {
        match &self.seen {
            Some((Seen::Lease(lease), _)) => Some(lease),
            _ => None,
        }
    }

    /// How long to wait before asking again.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        if self.leads_until(now).is_some() {
            return self.timing.renew;
        }
        match &self.seen {
            // Ours to take: nothing to wait for.
            Some((Seen::Lease(lease), since)) => match holder(lease) {
                Some(other) if other != self.identity => {
                    let left = (*since + self.duration_of(lease)).saturating_sub(now);
                    // At the very moment in which it has run out.
                    if left.is_zero() { self.timing.poll } else { left.min(self.timing.poll) }
                }
                _ => Duration::ZERO,
            },
            Some((Seen::Nothing, _)) => Duration::ZERO,
            None => self.timing.poll,
        }
        .max(MIN_WAIT)
    }

    /// The Lease with nobody in it, if it is ours to give back.
    pub(super) fn resign(&mut self) -> Option<Lease> {
        self.renewed.take()?;
        match self.seen.take()? {
            (Seen::Lease(mut lease), _) if holder(&lease) == Some(self.identity.as_str()) => {
                let spec = lease.spec.get_or_insert_default();
                spec.holder_identity = Some(String::new());
                // The shortest that the API takes.
                spec.lease_duration_seconds = Some(1);
                lease.metadata.managed_fields = None;
                Some(*lease)
            }
            _ => None,
        }
    }

    fn duration_of(&self, lease: &Lease) -> Duration {
        let said = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        said.and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(Duration::ZERO, Duration::from_secs)
            .max(self.timing.duration)
    }
}

/// An API server that refuses every write is not asked more often than this.
const MIN_WAIT: Duration = Duration::from_millis(20);

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn version(seen: &Seen) -> Option<(&str, &str)> {
    match seen {
        Seen::Nothing => None,
        Seen::Lease(lease) => {
            let meta = &lease.metadata;
            Some((meta.uid.as_deref().unwrap_or_default(), meta.resource_version.as_deref().unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        duration: Duration::from_secs(3),
        renew: Duration::from_millis(750),
        deadline: Duration::from_millis(2250),
        poll: Duration::from_millis(500),
    };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// The API server's Lease, as strict about versions as it is.
    #[derive(Default)]
    struct Store {
        lease: Option<Lease>,
        versions: u64,
    }

    impl Store {
        fn ask(&mut self, next: Next) -> Answer {
            let mut written = false;
            if let Next::Write(mut lease) = next {
                let there = self.lease.as_ref().and_then(|l| l.metadata.resource_version.clone());
                if there == lease.metadata.resource_version {
                    self.versions += 1;
                    lease.metadata.resource_version = Some(self.versions.to_string());
                    lease.metadata.uid = Some("uid".to_owned());
                    self.lease = Some(*lease);
                    written = true;
                }
            }
            Answer { seen: self.lease.clone().map_or(Seen::Nothing, |lease| Seen::Lease(Box::new(lease))), written }
        }
    }

    struct Replica {
        election: Election,
        due: Duration,
        alive: bool,
    }

    impl Replica {
        fn new(name: &str, due: u64) -> Self {
            Self { election: Election::new(name.to_owned(), TIMING), due: at(due), alive: true }
        }

        fn turn(&mut self, store: &mut Store, now: Duration) {
            if self.alive && now >= self.due {
                let answer = store.ask(self.election.next(now, Timestamp::UNIX_EPOCH));
                self.election.learn(Some(answer), now, now);
                self.due = now + self.election.wait(now);
            }
        }
    }

    #[test]
    fn the_first_one_leads_and_renews_and_the_others_stand_by() {
        let (mut store, mut a, mut b) = (Store::default(), Replica::new("a", 0), Replica::new("b", 5));
        for millis in 0..20_000 {
            a.turn(&mut store, at(millis));
            b.turn(&mut store, at(millis));
            if millis > 100 {
                assert!(a.election.leads_until(at(millis)).is_some(), "{millis} ms");
                assert!(b.election.leads_until(at(millis)).is_none(), "{millis} ms");
            }
        }
        let spec = store.lease.unwrap().spec.unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("a"), Some(0)));
        assert!(store.versions < 30, "{} writes in 20 s", store.versions);
    }

    #[test]
    fn a_killed_leader_is_followed_after_its_lease_and_one_look_at_the_latest() {
        for killed in (5_000..6_000).step_by(37) {
            let (mut store, mut a, mut b) = (Store::default(), Replica::new("a", 0), Replica::new("b", 5));
            let leads_at = (0..20_000).find(|millis| {
                a.alive = *millis < killed;
                a.turn(&mut store, at(*millis));
                b.turn(&mut store, at(*millis));
                let both =
                    b.election.leads_until(at(*millis)).is_some() && a.election.leads_until(at(*millis)).is_some();
                assert!(!both, "two leaders at {millis} ms");
                b.election.leads_until(at(*millis)).is_some()
            });
            let after = leads_at.unwrap() - killed;
            assert!(after <= 3_600, "killed at {killed} ms, followed after {after} ms");
            assert_eq!(store.lease.unwrap().spec.unwrap().lease_transitions, Some(1));
        }
    }

    #[test]
    fn a_leader_that_gets_no_answer_stops_before_anybody_else_may_lead() {
        let (mut store, mut a, mut b) = (Store::default(), Replica::new("a", 0), Replica::new("b", 5));
        let mut gaps = 0;
        for millis in 0..20_000 {
            // The leader's network is cut; nobody tells it.
            a.alive = millis < 4_000;
            a.turn(&mut store, at(millis));
            b.turn(&mut store, at(millis));
            let leads = [&a, &b].map(|r| r.election.leads_until(at(millis)).is_some());
            assert_ne!(leads, [true, true], "{millis} ms");
            gaps += u32::from(leads == [false, false] && millis > 100);
        }
        assert!(gaps > 0, "the old leader's time has to end before the new one's begins");
    }

    #[test]
    fn one_that_resigns_is_followed_at_the_next_look() {
        let (mut store, mut a, mut b) = (Store::default(), Replica::new("a", 0), Replica::new("b", 5));
        for millis in 0..3_000 {
            a.turn(&mut store, at(millis));
            b.turn(&mut store, at(millis));
        }
        let given_back = a.election.resign().unwrap();
        store.ask(Next::Write(Box::new(given_back)));
        assert!(a.election.leads_until(at(3_000)).is_none());
        let leads_at = (3_000..9_000).find(|millis| {
            b.turn(&mut store, at(*millis));
            b.election.leads_until(at(*millis)).is_some()
        });
        assert!(leads_at.unwrap() <= 3_600, "{leads_at:?}");
    }

    #[test]
    fn a_process_that_starts_again_under_its_old_name_leads_only_once_it_has_renewed() {
        let (mut store, mut a) = (Store::default(), Replica::new("a", 0));
        a.turn(&mut store, at(0));
        a.turn(&mut store, at(100));
        let mut again = Election::new("a".to_owned(), TIMING);
        again.learn(Some(store.ask(again.next(at(200), Timestamp::UNIX_EPOCH))), at(200), at(201));
        assert!(again.leads_until(at(200)).is_none(), "it has only looked");
        again.learn(Some(store.ask(again.next(at(220), Timestamp::UNIX_EPOCH))), at(220), at(221));
        assert!(again.leads_until(at(220)).is_some());
    }

    #[test]
    fn a_renewal_whose_answer_was_lost_does_not_count_from_when_it_is_found() {
        let (mut store, mut a) = (Store::default(), Election::new("a".to_owned(), TIMING));
        for millis in [0, 20, 800] {
            a.learn(Some(store.ask(a.next(at(millis), Timestamp::UNIX_EPOCH))), at(millis), at(millis));
        }
        assert_eq!(a.leads_until(at(800)), Some(at(800) + TIMING.deadline));
        // Written at 1,500 ms, and nobody hears of it; the next write meets its own version there.
        let lost = a.next(at(1_500), Timestamp::UNIX_EPOCH);
        store.ask(lost);
        a.learn(None, at(1_500), at(2_500));
        a.learn(Some(store.ask(a.next(at(2_500), Timestamp::UNIX_EPOCH))), at(2_500), at(2_500));
        assert_eq!(a.leads_until(at(2_600)), Some(at(800) + TIMING.deadline));
    }

    #[test]
    fn a_lease_that_was_renewed_while_the_answer_was_on_its_way_is_waited_for_in_full() {
        let (mut store, mut a, mut b) = (Store::default(), Replica::new("a", 0), Election::new("b".to_owned(), TIMING));
        a.turn(&mut store, at(0));
        a.turn(&mut store, at(900));
        b.learn(Some(store.ask(b.next(at(0), Timestamp::UNIX_EPOCH))), at(0), at(1_000));
        assert!(
            matches!(b.next(at(3_900), Timestamp::UNIX_EPOCH), Next::Look),
            "asked at 0, answered at 1,000: good until 4,000"
        );
        assert!(matches!(b.next(at(4_000), Timestamp::UNIX_EPOCH), Next::Write(_)));
    }

    #[test]
    fn a_lease_of_longer_duration_than_ours_is_waited_for() {
        let mut store = Store::default();
        let other = lease_of(None, "other", Duration::from_secs(15), Timestamp::now());
        store.ask(Next::Write(Box::new(other)));
        let mut b = Replica::new("b", 0);
        let leads_at = (0..30_000).find(|millis| {
            b.turn(&mut store, at(*millis));
            b.election.leads_until(at(*millis)).is_some()
        });
        assert!((15_000..15_600).contains(&leads_at.unwrap()), "{leads_at:?}");
    }
}
