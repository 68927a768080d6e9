//! Which health check node ports this node answers on.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long kube-proxy, and then the port, must have refused before they are answered for: a start of kube-proxy, or of what replaces it,
/// takes less.
pub const REFUSED_FOR: Duration = Duration::from_mins(1);

/// How long a port says that there are no endpoints after the last one went, before it is closed: a load balancer asks every few seconds and
/// wants to hear it more than once.
pub const LINGER: Duration = Duration::from_mins(1);

/// Whether health checks are answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Where kube-proxy and the port itself have refused for a minute, until kube-proxy answers
    Auto,
    /// Always: nothing else on the node does
    On,
    /// Never
    Off,
}

/// A health check: a Service, and its endpoints on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The Service's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Endpoints that are ready.
    pub ready: u32,
}

#[derive(Clone, Debug)]
struct Port {
    check: Check,
    /// Since when it has refused; only while that is asked.
    refused_since: Option<Duration>,
    /// Whether it is answered on here.
    serves: bool,
    /// Since when there is nothing more to answer.
    gone_since: Option<Duration>,
    /// Somebody else has it: it is not tried again before this.
    not_before: Duration,
}

/// The ports. Times are on one clock of the caller's.
#[derive(Clone, Debug)]
pub struct Ports {
    mode: Mode,
    ports: BTreeMap<u16, Port>,
}

impl Ports {
    /// None yet.
    pub fn new(mode: Mode) -> Self {
        Self { mode, ports: BTreeMap::new() }
    }

    /// Takes over which health checks there are. What is gone stays for a while, without endpoints.
    pub fn follow(&mut self, now: Duration, checks: BTreeMap<u16, Check>) {
        for (number, port) in &mut self.ports {
            if !checks.contains_key(number) {
                port.check.ready = 0;
                port.gone_since.get_or_insert(now);
            }
        }
        self.ports.retain(|_, port| port.serves || port.gone_since.is_none());
        self.ports.retain(|_, port| port.gone_since.is_none_or(|since| now < since + LINGER));
        for (number, check) in checks {
            let new =
                Port { check: check.clone(), refused_since: None, serves: false, gone_since: None, not_before: now };
            let port = self.ports.entry(number).or_insert(new);
            (port.check, port.gone_since) = (check, None);
        }
    }

    /// Whether health checks are this node's speaker's to answer, kube-proxy having refused for so long. To be said in the SpeakerNode, so that
    /// the Announcements name the endpoints here.
    pub fn may_serve(&self, kube_proxy_refused: Duration) -> bool {
        match self.mode {
            Mode::On => true,
            Mode::Off => false,
            Mode::Auto => kube_proxy_refused >= REFUSED_FOR,
        }
    }

    /// Ports of which it is to be found out whether anybody listens.
    pub fn to_ask(&self) -> impl Iterator<Item = u16> + '_ {
        let asked = self.ports.iter().filter(|(_, port)| self.mode == Mode::Auto && !port.serves);
        asked.map(|(number, _)| *number)
    }

    /// Notes whether a port refused.
    pub fn answered(&mut self, now: Duration, number: u16, refused: bool) {
        if let Some(port) = self.ports.get_mut(&number) {
            if refused {
                port.refused_since.get_or_insert(now);
            } else {
                (port.refused_since, port.serves) = (None, false);
            }
        }
    }

    /// Notes that somebody else has a port, who may not answer: it is left alone for a while, whatever the mode.
    pub fn taken(&mut self, now: Duration, number: u16) {
        self.answered(now, number, false);
        if let Some(port) = self.ports.get_mut(&number) {
            port.not_before = now + REFUSED_FOR;
        }
    }

    /// The ports to answer on now, with what.
    pub fn served(&mut self, now: Duration, kube_proxy_refused: Duration) -> BTreeMap<u16, Check> {
        let may_serve = self.may_serve(kube_proxy_refused);
        for port in self.ports.values_mut() {
            let long = port.refused_since.is_some_and(|since| now >= since + REFUSED_FOR);
            let may_try = now >= port.not_before && (self.mode == Mode::On || long);
            port.serves = may_serve && (port.serves || may_try);
            if !may_serve {
                port.refused_since = None;
            }
        }
        let served = self.ports.iter().filter(|(_, port)| port.serves);
        served.map(|(number, port)| (*number, port.check.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 30_001;

    fn check(ready: u32) -> Check {
        Check { namespace: "shop".to_owned(), name: "web".to_owned(), ready }
    }

    /// Second by second: whether the Service has so many endpoints here, for how long kube-proxy has refused, whether the port refuses.
    struct Course {
        ports: Ports,
        now: u64,
    }

    impl Course {
        fn new(mode: Mode) -> Self {
            Self { ports: Ports::new(mode), now: 0 }
        }

        /// What is answered after so many seconds of this.
        fn run(&mut self, seconds: u64, endpoints: Option<u32>, kube_proxy_refused: u64, refuses: bool) -> Option<u32> {
            let mut served = None;
            for second in 0..=seconds {
                let now = Duration::from_secs(self.now + second);
                let long = Duration::from_secs(kube_proxy_refused + second * u64::from(kube_proxy_refused > 0));
                self.ports.follow(now, endpoints.map(|ready| (PORT, check(ready))).into_iter().collect());
                if self.ports.may_serve(long) {
                    for port in self.ports.to_ask().collect::<Vec<_>>() {
                        self.ports.answered(now, port, refuses);
                    }
                }
                served = self.ports.served(now, long).get(&PORT).map(|check| check.ready);
            }
            self.now += seconds;
            served
        }
    }

    #[test]
    fn a_port_is_answered_on_as_the_mode_says() {
        for (mode, seconds, kube_proxy_refused, refuses, expected) in [
            (Mode::Off, 600, 600, true, None),
            (Mode::On, 0, 0, true, Some(2)),
            (Mode::On, 0, 0, false, Some(2)),
            (Mode::Auto, 600, 0, true, None),
            (Mode::Auto, 59, 60, true, None),
            (Mode::Auto, 60, 60, true, Some(2)),
            (Mode::Auto, 60, 30, true, None),
            (Mode::Auto, 600, 60, false, None),
        ] {
            let served = Course::new(mode).run(seconds, Some(2), kube_proxy_refused, refuses);
            assert_eq!(
                served, expected,
                "{mode:?} after {seconds} s, kube-proxy refused for {kube_proxy_refused} before"
            );
        }
    }

    #[test]
    fn kube_proxy_that_answers_again_gets_its_ports_at_once_and_is_given_its_minute_again() {
        let mut course = Course::new(Mode::Auto);
        assert_eq!(course.run(60, Some(1), 60, true), Some(1));
        assert_eq!(course.run(0, Some(1), 0, true), None);
        assert_eq!(course.run(59, Some(1), 60, true), None);
        assert_eq!(course.run(1, Some(1), 120, true), Some(1));
    }

    #[test]
    fn a_port_that_is_served_says_for_a_while_that_there_are_no_endpoints_and_is_closed_then() {
        let mut course = Course::new(Mode::On);
        assert_eq!(course.run(0, Some(1), 0, true), Some(1));
        assert_eq!(course.run(0, Some(0), 0, true), Some(0), "the only pod is about to end");
        assert_eq!(course.run(59, None, 0, true), Some(0));
        assert_eq!(course.run(1, None, 0, true), None);
        assert_eq!(course.run(0, Some(3), 0, true), Some(3), "it comes back");
    }

    #[test]
    fn a_port_that_was_never_served_is_forgotten_at_once() {
        let mut course = Course::new(Mode::Auto);
        course.run(30, Some(1), 60, true);
        course.run(0, None, 90, true);
        assert_eq!(course.ports.to_ask().count(), 0);
    }

    #[test]
    fn a_port_that_somebody_else_has_is_tried_once_a_minute_whatever_the_mode() {
        for (mode, first) in [(Mode::Auto, 60), (Mode::On, 0)] {
            let mut course = Course::new(mode);
            assert_eq!(course.run(first, Some(1), 60, true), Some(1));
            for _ in 0..3 {
                // The listener could not be opened.
                let now = Duration::from_secs(course.now);
                course.ports.taken(now, PORT);
                assert_eq!(course.run(59, Some(1), 120, true), None, "{mode:?}");
                assert_eq!(course.run(1, Some(1), 120, true), Some(1), "{mode:?}");
            }
        }
    }
}
