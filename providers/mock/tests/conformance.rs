//! The mock keeps what every provider has to keep, and the suite that says so catches a provider that does not, in each of the
//! ways it looks at.

#![allow(clippy::unwrap_used, reason = "a test's fixtures are right or the test is wrong")]

#[path = "conformance/broken.rs"]
mod broken;
#[path = "conformance/world.rs"]
mod world;

use berth_provider::conformance::{self, Check};

use broken::{Broken, How};
use world::MockWorld;

#[tokio::test(start_paused = true)]
async fn the_mock_conforms() {
    let violations = conformance::run(async || MockWorld::new(|mock| mock)).await;
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_broken_in_one_of_the_ways_that_are_checked_is_caught_by_that_check() {
    for (how, check, says) in How::ALL {
        let violation =
            conformance::run_one(check, async || MockWorld::new(move |inner| Broken::new(inner, how))).await;
        let violation = violation.expect_err(&format!("{how:?} was not caught by {check}"));
        assert_eq!(violation.check, check, "{how:?}");
        assert!(violation.detail.contains(says), "{how:?} was caught for something else: {violation}");
    }
}

#[test]
fn there_is_a_broken_provider_for_every_check() {
    for check in Check::ALL {
        assert!(How::ALL.iter().any(|(_, caught_by, _)| *caught_by == check), "{check}");
    }
}
