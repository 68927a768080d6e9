//! Rules that a test may break on purpose, to see that the simulation catches it. In a build that is not a test none is ever broken, and
//! the compiler leaves the questions out.

/// A rule without which the protocol is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests break rules"))]
pub(crate) enum Rule {
    /// The wire is asked before a takeover.
    AsksTheWire,
    /// Who could not run for the detection time asks before it answers again.
    FencesItself,
    /// Of two equal epochs the lower name prevails.
    BreaksTies,
    /// What was heard before is not heard again.
    ChecksReplay,
    /// What was heard of an earlier start is not taken for a new one.
    RemembersStarts,
    /// A node whose speaker alone is silent keeps its addresses.
    CaresForTheLiving,
    /// A partner that still hears the owner holds a takeover back.
    AsksOthers,
    /// A claim that a partner seems not to know is passed on.
    PassesOn,
    /// Who asks before it answers again says meanwhile that it does not answer.
    SaysThatItAsks,
    /// An epoch that was used is not used again.
    CountsUp,
}

#[cfg(not(test))]
pub(crate) const fn is_broken(_: Rule) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(crate) fn is_broken(rule: Rule) -> bool {
    BROKEN.get() == Some(rule)
}

/// Runs something with a rule broken.
#[cfg(test)]
pub(crate) fn without<T>(rule: Rule, run: impl FnOnce() -> T) -> T {
    struct Mended;
    impl Drop for Mended {
        fn drop(&mut self) {
            BROKEN.set(None);
        }
    }
    BROKEN.set(Some(rule));
    let _mended = Mended;
    run()
}
